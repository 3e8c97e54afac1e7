//! Flags of the queue between the leader and its workers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use url::Url;

use super::process::duration;
use crate::error::{Error, Kind, Result as Done};
use crate::outbound::broker::connect::{Login, Server};
use crate::outbound::guard::Guard;
use crate::outbound::trust::Trust;
use crate::queue::link::{Names, Settings};
use crate::queue::message::Keys;
use crate::redacted::Redacted;

/// Shortest lease: a worker says three times within one that it is still there.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// Where the queue is. The same for the leader and its workers.
#[derive(Debug, Args)]
pub struct QueueArgs {
    /// NATS server with JetStream, as nats://HOST:PORT or tls://HOST:PORT. The work of FileRoutes goes there, and
    /// `file360-operator worker` processes do it. Default: it is done in this process.
    #[arg(long, env = "FILE360_QUEUE", requires = "queue_key_file")]
    queue: Option<String>,
    /// File with the key that leader and workers sign their messages with: 32 bytes or more. With several lines, the first key
    /// signs and all are accepted, for changing it.
    #[arg(long, env = "FILE360_QUEUE_KEY_FILE", requires = "queue")]
    queue_key_file: Option<PathBuf>,
    /// Name of the queue in NATS. Default: made from --cluster-id and --namespace.
    #[arg(long, env = "FILE360_QUEUE_NAME", requires = "queue")]
    queue_name: Option<String>,
    /// NATS credentials file: the JWT and seed of a user.
    #[arg(long, env = "FILE360_QUEUE_CREDENTIALS_FILE", requires = "queue", conflicts_with_all = ["queue_token_file", "queue_user"])]
    queue_credentials_file: Option<PathBuf>,
    /// File with a token to log in with.
    #[arg(long, env = "FILE360_QUEUE_TOKEN_FILE", requires = "queue", conflicts_with = "queue_user")]
    queue_token_file: Option<PathBuf>,
    /// User name to log in with.
    #[arg(long, env = "FILE360_QUEUE_USER", requires = "queue_password_file")]
    queue_user: Option<String>,
    /// File with the password of --queue-user.
    #[arg(long, env = "FILE360_QUEUE_PASSWORD_FILE", requires = "queue_user")]
    queue_password_file: Option<PathBuf>,
    /// PEM bundle of the authorities that the server's certificate may be from. Default: the system's and --ca-file.
    #[arg(long, env = "FILE360_QUEUE_CA_FILE", requires = "queue")]
    queue_ca_file: Option<PathBuf>,
    /// Client certificate in PEM, where the server wants one.
    #[arg(long, env = "FILE360_QUEUE_TLS_CERT", requires = "queue_tls_key")]
    queue_tls_cert: Option<PathBuf>,
    /// Key of that certificate in PEM.
    #[arg(long, env = "FILE360_QUEUE_TLS_KEY", requires = "queue_tls_cert")]
    queue_tls_key: Option<PathBuf>,
}

/// How the leader uses the queue.
#[derive(Debug, Args)]
pub struct LeadArgs {
    /// A worker that is silent for this long has lost its job, and another one gets it.
    #[arg(long = "queue-lease", env = "FILE360_QUEUE_LEASE", default_value = "30s", value_parser = duration)]
    lease: Duration,
    /// Files of one FileRoute that are on the queue or with workers at once, for routes without `delivery.concurrency`.
    #[arg(long = "queue-open", env = "FILE360_QUEUE_OPEN", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=2000))]
    open: u16,
    /// Most jobs on the queue, all routes together; when it is full, routes wait.
    #[arg(long = "queue-max-jobs", env = "FILE360_QUEUE_MAX_JOBS", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    max_jobs: u32,
    /// Copies of the queue that a cluster of NATS servers keeps.
    #[arg(long = "queue-replicas", env = "FILE360_QUEUE_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
}

impl Default for LeadArgs {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), open: 256, max_jobs: 100_000, replicas: 1 }
    }
}

impl LeadArgs {
    /// Open files of one route at once.
    pub fn open(&self) -> usize {
        usize::from(self.open)
    }
}

impl QueueArgs {
    /// Whether there is a queue.
    pub fn is_set(&self) -> bool {
        self.queue.is_some()
    }

    /// Reads the files and checks everything that can be checked without the server; `None` without a queue.
    pub fn settings(
        &self,
        lead: &LeadArgs,
        trust: &Trust,
        cluster_id: &str,
        namespace: Option<&str>,
    ) -> Result<Option<Settings>, String> {
        let (Some(url), Some(key_file)) = (&self.queue, &self.queue_key_file) else { return Ok(None) };
        if lead.lease < SHORTEST_LEASE {
            return Err("--queue-lease must be at least 1s".into());
        }
        let server = server(url).map_err(|why| format!("--queue {why}"))?;
        let keys = Keys::read(&read("--queue-key-file", key_file)?).map_err(|why| format!("--queue-key-file {why}"))?;
        let names = match &self.queue_name {
            Some(name) => Names::new(name).map_err(|why| format!("--queue-name {why}"))?,
            None => Names::of(cluster_id, namespace),
        };
        let authorities = self.queue_ca_file.as_deref().map(|path| read("--queue-ca-file", path)).transpose()?;
        let identity = match self.queue_tls_key.as_deref().zip(self.queue_tls_cert.as_deref()) {
            Some((key, certificate)) => {
                let (key, certificate) = (text("--queue-tls-key", key)?, text("--queue-tls-cert", certificate)?);
                Some(Redacted::new(format!("{key}\n{certificate}\n")))
            }
            None => None,
        };
        let tls = trust
            .settings(authorities.as_deref(), Some(&server.host), identity.as_ref().map(Redacted::expose))
            .map_err(|error| format!("--queue-ca-file, --queue-tls-cert: {error}"))?;
        // What cannot be read is told now; later changes count with the next connection.
        let login = self.login();
        login().map_err(|error| error.to_string())?;
        Ok(Some(Settings {
            server,
            login,
            tls,
            keys,
            names,
            lease: lead.lease,
            replicas: usize::from(lead.replicas),
            most: i64::from(lead.max_jobs),
        }))
    }

    fn login(&self) -> Box<dyn Fn() -> Done<Login> + Send + Sync> {
        let credentials = self.queue_credentials_file.clone();
        let token = self.queue_token_file.clone();
        let password = self.queue_user.clone().zip(self.queue_password_file.clone());
        Box::new(move || {
            let secret = |flag: &str, path: &Path| {
                let content = text(flag, path).map_err(|why| Error::new(Kind::Reference, why))?;
                Ok::<_, Error>(Redacted::new(content.trim_end_matches(['\r', '\n'])))
            };
            if let Some(path) = &credentials {
                return Ok(Login::Credentials(secret("--queue-credentials-file", path)?));
            }
            if let Some(path) = &token {
                return Ok(Login::Token(secret("--queue-token-file", path)?));
            }
            match &password {
                Some((user, path)) => {
                    Ok(Login::Password(Redacted::new(user.clone()), secret("--queue-password-file", path)?))
                }
                None => Ok(Login::None),
            }
        })
    }
}

fn server(url: &str) -> Result<Server, String> {
    let parsed = Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
    let host = parsed.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_lowercase();
    // Whoever starts the operator may name any server.
    Server::parse(url, &Guard::new(&[host], &[])?)
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{flag} {}: {error}", path.display()))
}

fn text(flag: &str, path: &Path) -> Result<String, String> {
    String::from_utf8(read(flag, path)?).map_err(|_| format!("{flag} {}: is no text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_may_be_anywhere_but_its_address_carries_no_password() {
        for fine in ["nats://127.0.0.1:4222", "tls://nats.example.com", "nats://[::1]:1", "nats://nats.queue.svc"] {
            assert!(server(fine).is_ok(), "{fine}");
        }
        for wrong in ["http://nats", "nats://user:password@nats", "nats://", "nats"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }
}
