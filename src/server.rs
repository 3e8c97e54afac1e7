//! The embedded File 360: a real server for the connector contract, for development, demos, CI and contract tests.
//!
//! Promises: what was answered with 2xx is on disk; two writers never lose an update; a reader never blocks a writer; what
//! is held, retained, quarantined, pending or a record is so on every path, because every effect passes [`authorize`] in its
//! own transaction. The contract (`config/file360/openapi.yaml`) is this project's own and neutral; File 360 publishes none.

pub mod audit;
pub mod authorize;
pub mod blobs;
pub mod call;
pub mod clock;
pub mod faults;
pub mod http;
pub mod limits;
pub mod linger;
pub mod names;
pub mod notices;
pub mod oauth;
pub mod operation;
pub mod pages;
pub mod passwords;
pub mod records;
pub mod refusal;
pub mod routes;
pub mod seed;
pub mod store;
pub mod sweep;
pub mod tail;
pub mod transport;
pub mod tx;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::clock::Clock;
use self::seed::Seed;

/// Most requests served at once; long polls do not count.
const TURNS: usize = 1024;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where database and content live.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address that people and clients use, if it is another than the one the server listens on.
    pub public_url: Option<String>,
    /// Clients, users, groups.
    pub seed: Seed,
    /// Certificate and key, in PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The server's time.
    pub clock: Clock,
    /// Life of a token; at most 15 minutes.
    pub token_lifetime: Duration,
    /// Requests a second that each client may send; `None`: no limit.
    pub requests_per_second: Option<u32>,
    /// How long the change feed keeps its entries.
    pub changes_retention: Duration,
    /// How often the server looks for what is due.
    pub sweep_every: Duration,
    /// Largest file.
    pub max_file_bytes: u64,
    /// `smtp://` or `smtps://` address of the mail relay; `None`: mails become files in the folder `outbox`.
    pub smtp_url: Option<String>,
    /// Sender of mails.
    pub mail_from: String,
    /// Opens the fault switchboard.
    pub test_faults: bool,
}

impl ServerConfig {
    /// A server on a free port of the loopback interface, with its data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: None,
            seed: Seed::default(),
            tls: None,
            clock: Clock::default(),
            token_lifetime: oauth::LONGEST_LIFE,
            requests_per_second: None,
            changes_retention: Duration::from_hours(14 * 24),
            sweep_every: Duration::from_secs(1),
            max_file_bytes: 1 << 40,
            smtp_url: None,
            mail_from: "File 360 <file360@localhost>".to_owned(),
            test_faults: false,
        }
    }
}

/// Why a server does not start or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder or the listening socket cannot be used.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: std::io::Error,
    },
    /// The database cannot be opened.
    #[error("the database cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    /// The mail settings are wrong.
    #[error("mail cannot be sent like this: {0}")]
    Mail(String),
    /// The seed is wrong.
    #[error("the seed cannot be used: {0}")]
    Seed(String),
}

/// What every request shares.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// See [`App`].
pub struct Shared {
    /// What the server was started with.
    pub config: ServerConfig,
    /// The database.
    pub store: store::Store,
    /// Content.
    pub blobs: blobs::Blobs,
    /// Mails.
    pub mail: notices::Sender,
    /// Who guesses passwords and codes.
    pub guesses: pages::codes::Guesses,
    /// Signs what pages hand out.
    pub page_key: Vec<u8>,
    /// Client applications by id.
    pub clients: HashMap<String, oauth::Client>,
    /// Tokens in force.
    pub tokens: oauth::Tokens,
    /// Rate limits.
    pub limits: limits::Buckets,
    /// The fault switchboard and the counters.
    pub faults: faults::Faults,
    /// Turns of requests.
    pub turns: Arc<Semaphore>,
    /// Where the server is reached, without a slash at the end.
    pub public_url: Arc<str>,
    /// Cancelled when the server stops.
    pub stopping: CancellationToken,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The embedded File 360.
pub struct Server;

/// A server that runs until it is stopped or dropped.
pub struct RunningServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its address for clients, without a slash at the end.
    pub url: String,
    app: App,
    handle: Handle<SocketAddr>,
    serving: JoinHandle<std::io::Result<()>>,
    sweeping: JoinHandle<()>,
    mailing: JoinHandle<()>,
}

impl Server {
    /// Opens the data folder, applies the seed, and listens. When this returns, the server answers.
    pub async fn start(config: ServerConfig) -> Result<RunningServer, Error> {
        let io = |what: String| move |error| Error::Io { what, error };
        std::fs::create_dir_all(&config.data_dir).map_err(io(format!("{}", config.data_dir.display())))?;
        let clients = seed::clients(&config.seed).map_err(Error::Seed)?;
        let store = store::Store::open(&config.data_dir)?;
        apply_seed(&store, &config).await?;
        let blobs = blobs::Blobs::open(&config.data_dir).map_err(io("the content folder".to_owned()))?;
        let page_key = page_key(&store).await?;
        let listener = TcpListener::bind(config.listen).map_err(io(format!("listening on {}", config.listen)))?;
        listener.set_nonblocking(true).map_err(io("listening".to_owned()))?;
        let address = listener.local_addr().map_err(io("listening".to_owned()))?;
        let tls = match &config.tls {
            Some((certificate, key)) => {
                // Another part of the process may have installed it already; either is the same provider.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let what = format!("{} and {}", certificate.display(), key.display());
                Some(RustlsConfig::from_pem_file(certificate, key).await.map_err(io(what))?)
            }
            None => None,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = config.public_url.clone().unwrap_or_else(|| format!("{scheme}://{address}"));
        let url = url.trim_end_matches('/').to_owned();
        let app = App(Arc::new(Shared {
            mail: mail(&config)?,
            guesses: pages::codes::Guesses::default(),
            page_key,
            blobs,
            store,
            clients,
            tokens: oauth::Tokens::default(),
            limits: limits::Buckets::new(config.requests_per_second),
            faults: faults::Faults::new(config.test_faults),
            turns: Arc::new(Semaphore::new(TURNS)),
            public_url: Arc::from(url.as_str()),
            stopping: CancellationToken::new(),
            config,
        }));
        let handle = Handle::new();
        let serving = tokio::spawn(transport::serve(listener, tls, handle.clone(), http::router(app.clone())));
        let sweeping = tokio::spawn(sweep_until_stopped(app.clone()));
        let mailing = tokio::spawn(mail_until_stopped(app.clone()));
        Ok(RunningServer { address, url, app, handle, serving, sweeping, mailing })
    }
}

async fn apply_seed(store: &store::Store, config: &ServerConfig) -> Result<(), Error> {
    let (seed, now) = (config.seed.clone(), config.clock.now());
    let applied = store.write(move |ledger| ledger.atomically(|ledger| seed::apply(ledger, &seed, now))).await;
    applied.and_then(|applied| applied).map_err(|refusal| Error::Seed(refusal.to_string()))
}

/// The key that signs what pages hand out; made once, so that a restart does not void a form that somebody is filling in.
async fn page_key(store: &store::Store) -> Result<Vec<u8>, Error> {
    let key = store.write(|ledger| {
        if let Some(key) = store::schema::meta(ledger.db, "pageKey")? {
            return Ok(key);
        }
        let key = names::secret();
        store::schema::set_meta(ledger.db, "pageKey", &key).map(|()| key)
    });
    let key = key.await.map_err(|refusal| Error::Seed(refusal.to_string()))??;
    Ok(key.into_bytes())
}

fn mail(config: &ServerConfig) -> Result<notices::Sender, Error> {
    let from = config.mail_from.parse().map_err(|error| Error::Mail(format!("{}: {error}", config.mail_from)))?;
    let relay = match &config.smtp_url {
        None => notices::Relay::Outbox(config.data_dir.join("outbox")),
        Some(url) => {
            if url.starts_with("smtps") {
                let _ = rustls::crypto::ring::default_provider().install_default();
            }
            let transport = lettre::AsyncSmtpTransport::<lettre::Tokio1Executor>::from_url(url);
            let transport = transport.map_err(|error| Error::Mail(error.to_string()))?;
            notices::Relay::Smtp(Box::new(transport.timeout(Some(Duration::from_secs(20))).build()))
        }
    };
    Ok(notices::Sender { relay, from })
}

async fn mail_until_stopped(app: App) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(app.config.sweep_every) => notices::deliver(&app).await,
        }
    }
}

async fn sweep_until_stopped(app: App) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(app.config.sweep_every) => sweep::run(&app).await,
        }
    }
}

impl RunningServer {
    /// The server's time.
    pub fn clock(&self) -> &Clock {
        &self.app.config.clock
    }

    /// Does at once what is due by the server's clock.
    pub async fn sweep(&self) {
        sweep::run(&self.app).await;
    }

    /// Sends at once what mails are due.
    pub async fn deliver_mail(&self) {
        notices::deliver(&self.app).await;
    }

    /// Calls per operation since the start.
    pub fn counters(&self) -> std::collections::BTreeMap<String, u64> {
        self.app.faults.counters()
    }

    /// Ends when the server fails or is stopped.
    pub async fn wait(&mut self) -> std::io::Result<()> {
        (&mut self.serving).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// Stops taking requests, lets those in flight end within `patience`, and closes the data.
    pub async fn stop(mut self, patience: Duration) -> std::io::Result<()> {
        self.app.stopping.cancel();
        self.handle.graceful_shutdown(Some(patience));
        self.wait().await
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.app.stopping.cancel();
        self.handle.shutdown();
        self.sweeping.abort();
        self.mailing.abort();
    }
}
