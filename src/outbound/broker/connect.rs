//! One connection to a NATS server.

use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};
use rustls::ClientConfig;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::error::{Error, Kind, Result, clean};
use crate::outbound::guard::Guard;
use crate::outbound::trust::tls_failure;
use crate::redacted::Redacted;

/// Longest wait for one address to answer.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for a connection, whatever addresses there are.
const CONNECT_IN_ALL: Duration = Duration::from_secs(12);
/// Longest wait for the server's answer to a message or request.
pub const ANSWER: Duration = Duration::from_secs(10);
/// A connection that is silent for about three of these is dead.
const PING: Duration = Duration::from_secs(15);
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 8;

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Nothing is sent without TLS. Otherwise TLS is used where the server wants it.
    pub tls: bool,
}

impl Server {
    /// `nats://host:port` or `tls://host:port`. Refuses addresses that the guard refuses, and `nats://` unless the host is in
    /// `--outbound-allow`.
    pub fn parse(url: &str, guard: &Guard) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
        let tls = match parsed.scheme() {
            "tls" => true,
            "nats" => false,
            _ => return Err("must start with tls:// or nats://".into()),
        };
        if !parsed.username().is_empty()
            || parsed.password().is_some()
            || parsed.query().is_some()
            || parsed.fragment().is_some()
        {
            return Err("must not carry a user name, password, query or fragment".into());
        }
        if !matches!(parsed.path(), "" | "/") {
            return Err("must not have a path".into());
        }
        let host = parsed.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_lowercase();
        if host.is_empty() {
            return Err("has no host".into());
        }
        guard.check_host(&host)?;
        if !tls && !guard.is_allowed_host(&host) {
            return Err(format!("must start with tls:// unless {host} is in --outbound-allow"));
        }
        Ok(Self { host, port: parsed.port().unwrap_or(4222), tls })
    }
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    None,
    /// With a token.
    Token(Redacted),
    /// With a credentials file: a JWT and the seed of its key.
    Credentials(Redacted),
    /// With user name and password.
    Password(Redacted, Redacted),
}

/// A connection that is up. It does not come back once it is lost: who needs it connects again, with addresses that are checked
/// again and a login that is read again.
#[derive(Clone, Debug)]
pub struct Live {
    /// The connection.
    pub client: Client,
    /// JetStream on it.
    pub jetstream: Context,
    /// Ends when the connection is lost.
    pub lost: CancellationToken,
    /// What the server complains about that answers no request, such as missing permissions.
    pub complaints: broadcast::Sender<String>,
}

impl Live {
    /// Whether it is of use.
    pub fn is_up(&self) -> bool {
        !self.lost.is_cancelled()
    }
}

/// Connects within 12 seconds, or says why not.
///
/// The client would resolve names by itself, so the name is resolved here, through the guard, and the client gets addresses that the guard
/// has checked. `tls` therefore has to verify the name (see [`Trust::settings`](crate::outbound::trust::Trust::settings)). Other servers of a
/// cluster that the server advertises are not connected to: the guard has not seen them.
pub async fn connect(server: &Server, login: &Login, tls: ClientConfig, guard: &Guard) -> Result<Live> {
    let in_time = tokio::time::timeout(CONNECT_IN_ALL, attempt(server, login, tls, guard)).await;
    in_time.unwrap_or_else(|_| Err(Error::new(Kind::Unavailable, format!("{} did not answer in time", server.host))))
}

async fn attempt(server: &Server, login: &Login, tls: ClientConfig, guard: &Guard) -> Result<Live> {
    let addresses = addresses(server, guard).await?;
    let lost = CancellationToken::new();
    let (complaints, _) = broadcast::channel(64);
    let options = ConnectOptions::new()
        .name(concat!("file360-operator/", env!("CARGO_PKG_VERSION")))
        .require_tls(server.tls)
        .tls_client_config(tls)
        .ignore_discovered_servers()
        .retain_servers_order()
        // One round over the addresses; a lost connection is not followed up for long, see `Live`.
        .max_reconnects(addresses.len())
        .connection_timeout(CONNECT)
        .request_timeout(Some(ANSWER))
        .ping_interval(PING)
        .event_callback({
            let (lost, complaints) = (lost.clone(), complaints.clone());
            move |event| {
                match event {
                    Event::Disconnected | Event::Closed => lost.cancel(),
                    // Nobody listening is fine.
                    Event::ServerError(ServerError::Other(text)) => drop(complaints.send(clean(&text, 600))),
                    _ => {}
                }
                std::future::ready(())
            }
        });
    let client = with_login(options, login)?.connect(addresses).await.map_err(|error| failure(server, &error))?;
    let jetstream = jetstream::context::ContextBuilder::new().timeout(ANSWER).build(client.clone());
    Ok(Live { client, jetstream, lost, complaints })
}

async fn addresses(server: &Server, guard: &Guard) -> Result<Vec<ServerAddr>> {
    let found = guard.resolve(&server.host, server.port).await?;
    let scheme = if server.tls { "tls" } else { "nats" };
    let parsed = found.iter().take(MAX_ADDRESSES).map(|address| format!("{scheme}://{address}").parse());
    parsed
        .collect::<Result<_, _>>()
        .map_err(|_| Error::new(Kind::Rejected, format!("{} is no address for NATS", server.host)))
}

fn with_login(options: ConnectOptions, login: &Login) -> Result<ConnectOptions> {
    match login {
        Login::None => Ok(options),
        Login::Token(token) => Ok(options.token(token.expose().to_owned())),
        Login::Password(user, password) => {
            Ok(options.user_and_password(user.expose().to_owned(), password.expose().to_owned()))
        }
        // What is wrong with the file could show parts of it.
        Login::Credentials(file) => options
            .credentials(file.expose())
            .map_err(|_| Error::new(Kind::Reference, "the credentials file has no user JWT and seed as NATS writes them")),
    }
}

/// The one place that turns a failed connection into a kind of failure.
fn failure(server: &Server, error: &ConnectError) -> Error {
    let host = &server.host;
    if let Some(why) = tls_failure(error) {
        return Error::new(
            Kind::Tls,
            format!("TLS with {host} failed: {why}; check caRef and that the certificate names the host"),
        );
    }
    let source = std::error::Error::source(error);
    let said = source.and_then(|source| source.downcast_ref::<ServerError>()).map(ToString::to_string);
    let is_about_login = said.as_ref().is_some_and(|said| said.to_lowercase().contains("auth"));
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            Error::new(Kind::Denied, format!("{host} refused the login"))
        }
        _ if is_about_login => Error::new(Kind::Denied, format!("{host} refused the login")),
        ConnectErrorKind::TimedOut => Error::new(Kind::Unavailable, format!("{host} did not answer in time")),
        ConnectErrorKind::Tls => Error::new(Kind::Tls, format!("TLS with {host} failed; check caRef")),
        _ => {
            let why = source.map_or_else(|| error.to_string(), ToString::to_string);
            Error::new(Kind::Unavailable, clean(&format!("cannot reach {host}: {why}"), 300))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t3_servers_without_tls_and_addresses_inside_are_refused() {
        let open = Guard::default();
        let server = |host: &str, port, tls| Ok(Server { host: host.into(), port, tls });
        assert_eq!(Server::parse("tls://NATS.example.com", &open), server("nats.example.com", 4222, true));
        assert_eq!(Server::parse("tls://[2001:db8::1]:4443/", &open), server("2001:db8::1", 4443, true));
        for url in [
            "nats://nats.example.com:4222",
            "tls://127.0.0.1:4222",
            "tls://[::1]:4222",
            "tls://169.254.169.254",
            "tls://user:password@nats.example.com",
            "tls://nats.example.com/x",
            "tls://nats.example.com?x=1",
            "tls://",
            "http://nats.example.com",
            "wss://nats.example.com",
        ] {
            assert!(Server::parse(url, &open).is_err(), "{url}");
        }
        let allowing = Guard::new(&["nats.local".into(), "127.0.0.1".into()], &[]).unwrap();
        assert_eq!(Server::parse("nats://nats.local:4222", &allowing), server("nats.local", 4222, false));
        assert_eq!(Server::parse("nats://127.0.0.1:1", &allowing), server("127.0.0.1", 1, false));
    }

    #[test]
    fn a_login_prints_nothing() {
        let login = Login::Password(Redacted::new("hidden-user"), Redacted::new("hidden-password"));
        assert!(!format!("{login:?}").contains("hidden"));
        let wrong = with_login(ConnectOptions::new(), &Login::Credentials(Redacted::new("hidden"))).unwrap_err();
        assert!(!wrong.to_string().contains("hidden"), "{wrong}");
    }
}
