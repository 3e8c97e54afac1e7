//! Connections of senders: HTTP/1.1, bounded in number and in the time and size of a request's head; TLS with files that may change.
//!
//! No HTTP/2: one request at a time for each connection is what the bounds count on.

use std::future::{Ready, ready};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_service::Service;
use tracing::{info, warn};

/// Most connections at once; more are closed as they come.
const MOST_CONNECTIONS: usize = 1024;
/// How long a sender may take for the head of a request, or be idle between two.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// Largest head of a request.
const LARGEST_HEAD: usize = 64 * 1024;
/// How often the certificate's files are compared with what is served.
const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// Serves connections until the handle stops it.
pub async fn serve(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    handle: Handle<SocketAddr>,
    router: Router,
) -> std::io::Result<()> {
    let make = MakePerConnection { router, connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)) };
    if let Some(tls) = tls {
        let mut server = axum_server::from_tcp_rustls(listener, tls)?.handle(handle).http1_only();
        let mut http = server.http_builder().http1();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(LARGEST_HEAD);
        server.serve(make).await
    } else {
        let mut server = axum_server::from_tcp(listener)?.handle(handle).http1_only();
        let mut http = server.http_builder().http1();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(LARGEST_HEAD);
        server.serve(make).await
    }
}

/// Gives each connection a place, as long as there are some.
#[derive(Clone)]
struct MakePerConnection {
    router: Router,
    connections: Arc<Semaphore>,
}

impl Service<SocketAddr> for MakePerConnection {
    type Response = PerConnection;
    type Error = std::io::Error;
    type Future = Ready<std::io::Result<PerConnection>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, peer: SocketAddr) -> Self::Future {
        // An error closes the connection before a handshake costs anything.
        let place = Arc::clone(&self.connections).try_acquire_owned().map_err(std::io::Error::other);
        ready(place.map(|place| PerConnection { router: self.router.clone(), peer, _place: Arc::new(place) }))
    }
}

/// The router for one connection. Its place is free again when the connection is gone.
#[derive(Clone)]
struct PerConnection {
    router: Router,
    peer: SocketAddr,
    _place: Arc<OwnedSemaphorePermit>,
}

impl<B> Service<http::Request<B>> for PerConnection
where
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = <Router as Service<Request>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.router.call(request)
    }
}

/// A certificate chain and its key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl CertificateFiles {
    /// Reads the files, and says how to keep what is served as they are.
    pub async fn open(self) -> Result<(RustlsConfig, Renewal), String> {
        let served = self.read().await?;
        let config = RustlsConfig::from_config(Arc::new(server_config(&served)?));
        Ok((config.clone(), Renewal { files: self, config, served }))
    }

    async fn read(&self) -> Result<Pem, String> {
        Ok(Pem { certificate: read(&self.certificate).await?, key: read(&self.key).await? })
    }
}

/// Keeps what is served as the files are.
pub struct Renewal {
    files: CertificateFiles,
    config: RustlsConfig,
    served: Pem,
}

impl Renewal {
    /// Looks at the files again and again; never ends. What is broken is logged once.
    pub async fn follow(mut self) {
        let mut known_failure = None;
        loop {
            tokio::time::sleep(RELOAD_EVERY).await;
            match self.look().await {
                Ok(true) => info!("The certificate of the inbound endpoint has changed"),
                Ok(false) => {}
                Err(error) if known_failure.as_ref() == Some(&error) => continue,
                Err(error) => {
                    warn!(error, "The certificate of the inbound endpoint cannot be renewed; the former one stays");
                    known_failure = Some(error);
                    continue;
                }
            }
            known_failure = None;
        }
    }

    /// Takes up what is new in the files; `false` if nothing is. What is broken changes nothing: certificate and key may have been caught between
    /// two writes, and the next look sees both.
    pub async fn look(&mut self) -> Result<bool, String> {
        let pem = self.files.read().await?;
        if pem == self.served {
            return Ok(false);
        }
        self.config.reload_from_config(Arc::new(server_config(&pem)?));
        self.served = pem;
        Ok(true)
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))
}

fn server_config(pem: &Pem) -> Result<rustls::ServerConfig, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate is no PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| format!("the key is no PEM: {error}"))?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("certificate and key cannot be used: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
