//! The connection to the NATS server, and the two streams.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use bytes::Bytes;
use rustls::ClientConfig;
use sha2::{Digest, Sha256};

use super::message::{Keys, MAX_MESSAGE, SIGNATURE};
use crate::error::{Error, Kind, Result, clean};
use crate::hex::hex;
use crate::outbound::broker::connect::{ANSWER, Live, Login, Server, connect};
use crate::outbound::guard::Guard;
use crate::outbound::shared::Shared;

/// The stream drops a second message with the same id within this time.
const DUPLICATES: Duration = Duration::from_mins(2);
/// Jobs that may be with workers at once, all workers together.
const WITH_WORKERS: i64 = 20_000;
/// Name of the consumer of jobs.
const WORKERS: &str = "workers";
/// Name of the consumer of answers.
const LEADER: &str = "leader";

/// Where the queue is, and how it is used.
pub struct Settings {
    /// The server.
    pub server: Server,
    /// How to log in. Read for each connection.
    pub login: Box<dyn Fn() -> Result<Login> + Send + Sync>,
    /// TLS, if the server wants it.
    pub tls: ClientConfig,
    /// What signs and verifies.
    pub keys: Keys,
    /// Names of streams and subjects.
    pub names: Names,
    /// A worker that is silent for this long has lost its job.
    pub lease: Duration,
    /// Copies that a cluster of servers keeps.
    pub replicas: usize,
    /// Most jobs on the stream; then publishing waits.
    pub most: i64,
}

/// Names of streams and subjects of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    name: String,
}

impl Names {
    /// Of a queue with this name: lower-case letters, digits and `-`.
    pub fn new(name: &str) -> Result<Self, String> {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 40 || !name.bytes().all(fine) {
            return Err("needs 1 to 40 lower-case letters, digits and `-`".into());
        }
        Ok(Self { name: name.to_owned() })
    }

    /// The name when nobody chose one: the same for the operator of a cluster (or of one namespace of it) and its workers.
    pub fn of(cluster_id: &str, namespace: Option<&str>) -> Self {
        let digest = Sha256::digest(format!("{cluster_id}\u{0}{}", namespace.unwrap_or_default()));
        Self { name: hex(&digest[..6]) }
    }

    /// Stream of jobs.
    pub fn jobs(&self) -> String {
        format!("file360-{}-jobs", self.name)
    }

    /// Stream of answers.
    pub fn answers(&self) -> String {
        format!("file360-{}-answers", self.name)
    }

    /// Subject of one job.
    pub fn job(&self, route_uid: &str, generation: i64, id: &str) -> String {
        format!("file360.{}.job.{}.{generation}.{id}", self.name, hex(&Sha256::digest(route_uid)[..6]))
    }

    /// Subjects of all jobs of one generation of a route.
    pub fn jobs_of(&self, route_uid: &str, generation: i64) -> String {
        self.job(route_uid, generation, "*")
    }

    /// Subjects of all jobs.
    pub fn all_jobs(&self) -> String {
        format!("file360.{}.job.>", self.name)
    }

    /// Subject of one answer.
    pub fn answer(&self, id: &str) -> String {
        format!("file360.{}.answer.{id}", self.name)
    }

    fn all_answers(&self) -> String {
        format!("file360.{}.answer.>", self.name)
    }
}

/// A connection with the streams behind it.
#[derive(Clone)]
pub struct Link {
    /// The connection.
    pub live: Arc<Live>,
    /// Jobs.
    pub jobs: Stream,
    /// Answers.
    pub answers: Stream,
}

/// One connection that everything in the process shares; made when it is needed, and again when it is lost.
pub struct Links {
    /// Where to.
    pub settings: Settings,
    /// Only the leader makes streams.
    makes_streams: bool,
    link: Shared<Arc<Link>>,
}

impl Links {
    /// Nothing is connected yet.
    pub fn new(settings: Settings, makes_streams: bool) -> Self {
        Self { settings, makes_streams, link: Shared::default() }
    }

    /// The connection.
    pub async fn get(&self) -> Result<Arc<Link>> {
        Box::pin(self.link.get(|link| link.live.is_up(), self.connect())).await
    }

    /// This connection, or a stream behind it, is no good any more.
    pub async fn discard(&self, link: &Arc<Link>) {
        self.link.discard(|current| Arc::ptr_eq(current, link)).await;
    }

    async fn connect(&self) -> Result<Arc<Link>> {
        let Settings { server, login, tls, .. } = &self.settings;
        // The address comes from whoever runs the operator, not from a manifest.
        let guard = Guard::new(std::slice::from_ref(&server.host), &[]).map_err(|why| Error::new(Kind::Rejected, why))?;
        let live = Arc::new(Box::pin(connect(server, &login()?, tls.clone(), &guard)).await?);
        let (jobs, answers) = if self.makes_streams { self.make(&live).await? } else { self.find(&live).await? };
        Ok(Arc::new(Link { live, jobs, answers }))
    }

    async fn make(&self, live: &Live) -> Result<(Stream, Stream)> {
        let Settings { names, most, lease, .. } = &self.settings;
        let jobs = self.stream(live, names.jobs(), names.all_jobs(), *most).await?;
        let answers = self.stream(live, names.answers(), names.all_answers(), most.saturating_mul(2)).await?;
        let consumer = pull::Config {
            durable_name: Some(WORKERS.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: *lease,
            deliver_policy: DeliverPolicy::All,
            max_deliver: -1,
            max_ack_pending: WITH_WORKERS,
            ..pull::Config::default()
        };
        jobs.create_consumer(consumer).await.map_err(|error| unusable("the consumer of jobs", &error))?;
        Ok((jobs, answers))
    }

    async fn stream(&self, live: &Live, name: String, subject: String, most: i64) -> Result<Stream> {
        let config = Config {
            name: name.clone(),
            description: Some("Work of FileRoutes on its way to workers and back; made by file360-operator".into()),
            subjects: vec![subject],
            retention: RetentionPolicy::WorkQueue,
            // What does not fit is refused, and the leader waits; nothing is thrown away.
            discard: DiscardPolicy::New,
            max_messages: most,
            max_message_size: i32::try_from(MAX_MESSAGE).unwrap_or(i32::MAX),
            storage: StorageType::File,
            num_replicas: self.settings.replicas,
            duplicate_window: DUPLICATES,
            ..Config::default()
        };
        let made = live.jetstream.create_or_update_stream(config).await;
        made.map_err(|error| unusable(&format!("the stream {name}"), &error))?;
        live.jetstream.get_stream(&name).await.map_err(|error| unusable(&format!("the stream {name}"), &error))
    }

    async fn find(&self, live: &Live) -> Result<(Stream, Stream)> {
        let names = &self.settings.names;
        let mut found = Vec::new();
        for name in [names.jobs(), names.answers()] {
            let stream = live.jetstream.get_stream(&name).await;
            found.push(stream.map_err(|error| unusable(&format!("the stream {name}, which the leader makes,"), &error))?);
        }
        let [jobs, answers] = <[Stream; 2]>::try_from(found).map_err(|_| Error::new(Kind::Malformed, "two streams"))?;
        Ok((jobs, answers))
    }

    /// Publishes a signed message and waits until the stream has it: whether the stream had it already.
    pub async fn publish(&self, subject: &str, id: Option<&str>, payload: Bytes) -> Result<Published> {
        let link = self.get().await?;
        let signature = self.settings.keys.sign(subject, &payload);
        let mut message = PublishMessage::build().header(SIGNATURE, signature.as_str()).payload(payload);
        if let Some(id) = id {
            message = message.message_id(id);
        }
        let acknowledged = async {
            let sent = link.live.jetstream.send_publish(subject.to_owned(), message).await?;
            sent.await
        };
        let result = tokio::select! {
            biased;
            result = acknowledged => result,
            () = link.live.lost.cancelled() => return Err(Error::new(Kind::Unavailable, "the connection to the queue was lost")),
        };
        match result {
            Ok(ack) => Ok(Published { duplicate: ack.duplicate, sequence: ack.sequence }),
            Err(error) => Err(self.refused(&link, &error).await),
        }
    }

    async fn refused(&self, link: &Arc<Link>, error: &async_nats::jetstream::context::PublishError) -> Error {
        use async_nats::jetstream::context::PublishErrorKind;
        match error.kind() {
            PublishErrorKind::StreamNotFound => {
                // Somebody deleted it; the next connection makes it anew.
                self.discard(link).await;
                Error::new(Kind::Unavailable, "the stream is gone")
            }
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {
                self.discard(link).await;
                Error::new(Kind::Unavailable, format!("no acknowledgement within {} s", ANSWER.as_secs()))
            }
            _ => {
                let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
                Error::new(Kind::Unavailable, clean(&format!("the stream refused the message: {why}"), 300))
            }
        }
    }
}

impl Link {
    /// The consumer that workers share.
    pub async fn workers(&self) -> Result<PullConsumer> {
        let found = self.jobs.get_consumer(WORKERS).await;
        found.map_err(|error| unusable("the consumer of jobs, which the leader makes,", &*error))
    }

    /// The consumer of answers. `anew`: what an earlier leader had taken and not acknowledged comes at once, and that leader gets nothing any more.
    pub async fn leader(&self, lease: Duration, anew: bool) -> Result<PullConsumer> {
        if anew {
            // There is none the first time.
            let _ = self.answers.delete_consumer(LEADER).await;
        }
        let config = pull::Config {
            durable_name: Some(LEADER.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: lease,
            deliver_policy: DeliverPolicy::All,
            max_deliver: -1,
            max_ack_pending: WITH_WORKERS,
            ..pull::Config::default()
        };
        self.answers.create_consumer(config).await.map_err(|error| unusable("the consumer of answers", &error))
    }

    /// Answers that the leader has not read.
    pub async fn answers_unread(&self) -> Result<u64> {
        let found: Result<PullConsumer, _> = self.answers.get_consumer(LEADER).await;
        found.map(|found| found.cached_info().num_pending).map_err(|error| unusable("the consumer of answers", &*error))
    }

    /// Acknowledges a message, whichever connection it came over.
    pub async fn acknowledge(&self, reply: &async_nats::Subject) {
        // A lost acknowledgement makes it come again, which is no harm.
        let _ = self.live.client.publish(reply.clone(), Bytes::from_static(b"+ACK")).await;
    }

    /// Sends word about a message and waits until the server has it.
    pub async fn confirm(&self, reply: &async_nats::Subject, word: &'static [u8]) -> Result<()> {
        let sent = self.live.client.request(reply.clone(), Bytes::from_static(word));
        sent.await.map(drop).map_err(|error| Error::new(Kind::Unavailable, clean(&error.to_string(), 200)))
    }
}

/// What a stream acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// It had a message with this id already.
    pub duplicate: bool,
    /// Number in the stream, of the first one.
    pub sequence: u64,
}

fn unusable(what: &str, error: &dyn std::error::Error) -> Error {
    let why = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    Error::new(Kind::Unavailable, clean(&format!("{what} cannot be used: {why}"), 300))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_one_operator_and_no_other() {
        let one = Names::of("cluster", None);
        assert_eq!(one, Names::of("cluster", None));
        assert_ne!(one, Names::of("cluster", Some("team")));
        assert_ne!(one, Names::of("other", None));
        let named = Names::new("prod").unwrap();
        assert_eq!((named.jobs(), named.all_jobs()), ("file360-prod-jobs".into(), "file360.prod.job.>".into()));
        assert!(named.job("uid", 3, "7").ends_with(".3.7") && named.jobs_of("uid", 3).ends_with(".3.*"));
        for wrong in ["", "Prod", "a.b", "a*", "a>", &"x".repeat(41)] {
            assert!(Names::new(wrong).is_err(), "{wrong}");
        }
    }
}
