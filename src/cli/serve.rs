//! `file360-operator serve`: the embedded File 360.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::server::seed::Seed;
use crate::server::{Error, Server, ServerConfig};

/// Runs the embedded File 360: a server for the connector contract of this project, for development, demos and tests.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Folder for database and content; made if it does not exist.
    #[arg(long, env = "FILE360_DATA_DIR", default_value = "./file360-data")]
    pub data_dir: PathBuf,
    /// Address to listen on.
    #[arg(long, env = "FILE360_LISTEN", default_value = "127.0.0.1:8360")]
    pub listen: SocketAddr,
    /// Address that clients and people use, where it is another one.
    #[arg(long, env = "FILE360_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// YAML file with clients, users and groups, applied at every start.
    #[arg(long, env = "FILE360_SEED")]
    pub seed: Option<PathBuf>,
    /// Certificate chain in PEM; serves HTTPS.
    #[arg(long, env = "FILE360_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate in PEM.
    #[arg(long, env = "FILE360_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Life of an access token in seconds.
    #[arg(long, env = "FILE360_TOKEN_LIFETIME", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=900))]
    pub token_lifetime: u64,
    /// Requests a second that one client may send; no limit if absent.
    #[arg(long, env = "FILE360_REQUESTS_PER_SECOND", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_second: Option<u32>,
    /// How many days the change feed keeps its entries.
    #[arg(long, env = "FILE360_CHANGES_RETENTION_DAYS", default_value_t = 14)]
    pub changes_retention_days: u64,
    /// Largest file in bytes.
    #[arg(long, env = "FILE360_MAX_FILE_BYTES", default_value_t = 1 << 40)]
    pub max_file_bytes: u64,
    /// Mail relay, such as `smtps://user:secret@mail.example`; without it mails become files in the folder `outbox`.
    #[arg(long, env = "FILE360_SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<String>,
    /// Sender of mails.
    #[arg(long, env = "FILE360_MAIL_FROM", default_value = "File 360 <file360@localhost>")]
    pub mail_from: String,
    /// Opens the fault switchboard at /test/faults to everybody. Never outside tests.
    #[arg(long, hide_short_help = true)]
    pub test_faults: bool,
}

/// Runs the server until it is told to stop.
pub async fn run(args: ServeArgs) -> Result<(), Error> {
    let config = config(args)?;
    let mut server = Server::start(config).await?;
    tracing::info!(address = %server.address, "The embedded File 360 listens at {}", server.url);
    let ended = tokio::select! {
        ended = server.wait() => Some(ended),
        () = told_to_stop() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => server.stop(Duration::from_secs(10)).await,
    };
    ended.map_err(|error| Error::Io { what: "serving".to_owned(), error })
}

fn config(args: ServeArgs) -> Result<ServerConfig, Error> {
    let seed = match &args.seed {
        None => Seed::default(),
        Some(file) => {
            let io = |error| Error::Io { what: file.display().to_string(), error };
            let text = std::fs::read_to_string(file).map_err(io)?;
            serde_saphyr::from_str(&text).map_err(|error| Error::Seed(error.to_string()))?
        }
    };
    if seed.clients.is_empty() {
        tracing::warn!("The seed names no client: nobody can get a token.");
    }
    Ok(ServerConfig {
        listen: args.listen,
        public_url: args.public_url,
        seed,
        tls: args.tls_cert.zip(args.tls_key),
        token_lifetime: Duration::from_secs(args.token_lifetime),
        requests_per_second: args.requests_per_second,
        changes_retention: Duration::from_secs(args.changes_retention_days.saturating_mul(86_400)),
        max_file_bytes: args.max_file_bytes,
        smtp_url: args.smtp_url,
        mail_from: args.mail_from,
        test_faults: args.test_faults,
        ..ServerConfig::new(args.data_dir)
    })
}

async fn told_to_stop() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be watched");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
