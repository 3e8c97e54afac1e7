//! A NATS server with JetStream: messages that a stream has acknowledged.

pub mod connect;
pub mod subject;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use tokio::sync::broadcast;

use self::connect::{ANSWER, Live, Login, Server, connect};
use self::subject::Subject;
use crate::api::common::SecretKeyRef;
use crate::api::connection::CaRef;
use crate::api::places::NatsAuth;
use crate::error::{Error, Kind, Result, clean};
use crate::outbound::guard::Guard;
use crate::outbound::secrets::References;
use crate::outbound::shared::Shared;
use crate::outbound::trust::Trust;

/// How often a message is sent again when no stream answers: while a cluster elects a leader, none does.
const ELECTION_TRIES: u32 = 3;
const ELECTION_WAIT: Duration = Duration::from_millis(250);

/// What a client is made of.
pub struct Settings {
    /// Which server.
    pub server: Server,
    /// How to log in.
    pub auth: Option<NatsAuth>,
    /// The authorities to trust instead of the public ones.
    pub ca: Option<CaRef>,
    /// Where credentials come from.
    pub references: Arc<dyn References>,
    /// Which addresses are fine.
    pub guard: Arc<Guard>,
    /// The operator's trust.
    pub trust: Trust,
}

/// One server, with one connection that everything shares. Nothing is connected before it is needed.
pub struct Nats {
    settings: Settings,
    live: Shared<Arc<Live>>,
}

/// What a stream acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Name of the stream.
    pub stream: String,
    /// Number of the message in it.
    pub sequence: u64,
    /// The stream had a message with this id already and dropped this one.
    pub duplicate: bool,
}

enum Outcome {
    Acknowledged(Acknowledged),
    /// The connection went away: whether the message arrived is not known.
    Lost,
    /// Nobody listens to the subject.
    NoStream,
    Failed(Error),
}

impl Nats {
    /// A client for one server.
    pub fn new(settings: Settings) -> Self {
        Self { settings, live: Shared::default() }
    }

    /// The connection; made if there is none. A login that is refused is read again once, so that a changed Secret needs no restart.
    pub async fn live(&self) -> Result<Arc<Live>> {
        Box::pin(self.live.get(|live| live.is_up(), self.connect())).await
    }

    async fn connect(&self) -> Result<Arc<Live>> {
        let first = self.connect_once().await;
        let Err(error) = &first else { return first };
        match error.kind {
            Kind::Tls => {
                self.settings.references.refused();
                first
            }
            Kind::Denied => {
                self.settings.references.refused();
                self.connect_once().await
            }
            _ => first,
        }
    }

    async fn connect_once(&self) -> Result<Arc<Live>> {
        let Settings { server, ca, references, guard, trust, .. } = &self.settings;
        let authorities = match ca {
            Some(reference) => Some(references.authorities(reference).await?),
            None => None,
        };
        let tls = trust.settings(authorities.as_deref(), Some(&server.host), None)?;
        let login = self.login().await?;
        // The client's future is large, and rarely needed.
        match Box::pin(connect(server, &login, tls, guard)).await {
            Ok(live) => Ok(Arc::new(live)),
            Err(error) if error.kind == Kind::Denied => Err(Error::new(Kind::Denied, format!("{error}; {}", self.advice()))),
            Err(error) => Err(error),
        }
    }

    async fn login(&self) -> Result<Login> {
        let Settings { server, auth, references, .. } = &self.settings;
        let Some(auth) = auth else { return Ok(Login::None) };
        let read = |reference: &SecretKeyRef| {
            let reference = reference.clone();
            async move { references.credential(&reference, &server.host).await }
        };
        match auth {
            NatsAuth { token_ref: Some(token), .. } => Ok(Login::Token(read(token).await?)),
            NatsAuth { credentials_ref: Some(file), .. } => Ok(Login::Credentials(read(file).await?)),
            NatsAuth { username_ref: Some(user), password_ref: Some(password), .. } => {
                Ok(Login::Password(read(user).await?, read(password).await?))
            }
            _ => Err(Error::new(Kind::Rejected, "auth needs tokenRef, credentialsRef, or usernameRef with passwordRef")),
        }
    }

    /// What to look at when the login is refused.
    fn advice(&self) -> String {
        let Some(auth) = &self.settings.auth else { return "the server wants one; set auth".into() };
        let references = [&auth.token_ref, &auth.credentials_ref, &auth.username_ref, &auth.password_ref];
        let places =
            references.into_iter().flatten().map(|reference| format!("key {} of Secret {}", reference.key, reference.name));
        format!("check {}", places.collect::<Vec<_>>().join(" and "))
    }

    /// Publishes one message and waits until a stream has it. A stream drops a second message with the same `id` within its duplicate
    /// window. Ends within about half a minute, whatever the server does. Any number of callers share the connection, and none waits for
    /// another's acknowledgement.
    pub async fn publish(
        &self,
        subject: &Subject,
        id: &str,
        content_type: &'static str,
        payload: Bytes,
    ) -> Result<Acknowledged> {
        let message = PublishMessage::build().message_id(id).header("Content-Type", content_type).payload(payload);
        let mut elections = 0;
        let mut was_lost = false;
        loop {
            let live = self.live().await?;
            match send(&live, subject, message.clone()).await {
                Outcome::Acknowledged(acknowledged) => return Ok(acknowledged),
                Outcome::Lost if !was_lost => was_lost = true,
                Outcome::Lost => {
                    return Err(Error::new(
                        Kind::Unavailable,
                        "the connection was lost before a stream acknowledged the message",
                    ));
                }
                Outcome::NoStream if elections + 1 < ELECTION_TRIES => {
                    elections += 1;
                    tokio::time::sleep(ELECTION_WAIT).await;
                }
                Outcome::NoStream => return Err(no_stream(subject)),
                Outcome::Failed(error) => {
                    if error.code == "silent" {
                        // The next message tries a connection of its own; what is in flight on this one may still be answered.
                        self.live.discard(|current| Arc::ptr_eq(current, &live)).await;
                    }
                    return Err(error);
                }
            }
        }
    }
}

async fn send(live: &Live, subject: &Subject, message: PublishMessage) -> Outcome {
    let complaints = live.complaints.subscribe();
    let acknowledged = async {
        let sent = live.jetstream.send_publish(subject.as_str().to_owned(), message).await?;
        sent.await
    };
    tokio::select! {
        biased;
        result = acknowledged => outcome(live, result),
        () = live.lost.cancelled() => Outcome::Lost,
        complaint = refusal(complaints, subject) => {
            let what = format!("the server does not let this login publish to {subject}, or hear of the acknowledgement: {complaint}");
            Outcome::Failed(Error::new(Kind::Denied, what))
        }
    }
}

/// Waits for a complaint that is about publishing to `subject`, or about the inbox that acknowledgements come to.
async fn refusal(mut complaints: broadcast::Receiver<String>, subject: &Subject) -> String {
    loop {
        match complaints.recv().await {
            Ok(text) => {
                let lower = text.to_lowercase();
                let is_ours = lower.contains("for publish to") && text.contains(&format!("\"{subject}\""))
                    || lower.contains("for subscription to") && lower.contains("_inbox");
                if lower.contains("permissions violation") && is_ours {
                    return clean(&text, 300);
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The one place that turns what became of a message into a kind of failure.
fn outcome(live: &Live, result: Result<jetstream::publish::PublishAck, PublishError>) -> Outcome {
    let error = match result {
        Ok(ack) => {
            return Outcome::Acknowledged(Acknowledged {
                stream: ack.stream,
                sequence: ack.sequence,
                duplicate: ack.duplicate,
            });
        }
        Err(error) => error,
    };
    let failed = |kind, message: String| Outcome::Failed(Error::new(kind, message));
    match error.kind() {
        PublishErrorKind::StreamNotFound => Outcome::NoStream,
        PublishErrorKind::BrokenPipe => Outcome::Lost,
        _ if !live.is_up() => Outcome::Lost,
        PublishErrorKind::TimedOut => {
            let mut error =
                Error::new(Kind::Unavailable, format!("no stream acknowledged the message within {} s", ANSWER.as_secs()));
            error.code = "silent".into();
            Outcome::Failed(error)
        }
        PublishErrorKind::MaxPayloadExceeded => failed(
            Kind::Rejected,
            format!("the message is larger than the {} bytes that the server takes", live.client.max_payload()),
        ),
        _ => {
            let source = std::error::Error::source(&error);
            match source.and_then(|source| source.downcast_ref::<jetstream::Error>()) {
                Some(refused) => Outcome::Failed(refused_by_stream(refused)),
                None => failed(Kind::Malformed, clean(&format!("the acknowledgement cannot be read: {error}"), 300)),
            }
        }
    }
}

fn refused_by_stream(refused: &jetstream::Error) -> Error {
    let kind = match refused.code() {
        429 => Kind::RateLimited,
        400..=499 => Kind::Rejected,
        // A full stream among them: it takes messages again once others are gone.
        _ => Kind::Unavailable,
    };
    Error::new(kind, clean(&format!("the stream refused the message: {refused}"), 300))
}

fn no_stream(subject: &Subject) -> Error {
    let what =
        format!("no stream takes messages to {subject}; create one whose subjects include it, or correct the subject");
    let mut error = Error::new(Kind::Rejected, what);
    error.code = "no-stream".into();
    error
}
