//! What comes in: one HTTP server for what other systems send to the operator.
//!
//! Every replica serves it, leader or not. A request is verified before its body is read, bounded while it is read, and answered with 2xx only
//! when what it brought is durable in File 360 or Kubernetes (semantics T4). The parsers ([`signature`], [`digest`], [`disposition`], [`names`])
//! know neither clocks nor sockets. docs/inbound.md is the reference for senders.

pub mod body;
pub mod callback;
pub mod digest;
pub mod disposition;
pub mod events;
pub mod form;
mod ingest;
pub mod keyring;
pub mod names;
pub mod problem;
pub mod registry;
pub mod signature;
pub mod transport;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::{MethodFilter, any, on};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use http::{HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use url::Url;

use crate::telemetry::metrics::Metrics;
use body::Limits;
use problem::Refusal;
use registry::Endpoints;
use signature::Keys;
use transport::{CertificateFiles, Renewal};

/// Requests that are being read at once, of all endpoints.
const AT_ONCE: usize = 256;
/// How long requests may take to end after the stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Where the server listens, and how it is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one.
    pub address: SocketAddr,
    /// Certificate and key; without them it is plain HTTP, for behind a proxy that ends TLS.
    pub tls: Option<CertificateFiles>,
    /// Where senders reach it, if it is known.
    pub public_url: Option<PublicUrl>,
    /// How long and how slow bodies may be.
    pub limits: Limits,
}

/// Where senders reach the server: scheme, host and perhaps a path, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl std::str::FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("{text}: {error}"))?;
        let is_plain = matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if is_plain {
            Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
        } else {
            Err(format!("{text}: not an http(s) address without query"))
        }
    }
}

impl PublicUrl {
    /// The address of an ingest endpoint.
    pub fn ingest(&self, namespace: &str, path: &str) -> String {
        format!("{}/ingest/{namespace}/{path}", self.0)
    }

    /// The address of an endpoint for events.
    pub fn events(&self, namespace: &str, path: &str) -> String {
        format!("{}/events/{namespace}/{path}", self.0)
    }

    /// The address where another system says how an Approval ends.
    pub fn callback(&self, namespace: &str, approval: &str) -> String {
        format!("{}/callbacks/{namespace}/{approval}", self.0)
    }
}

/// What every request shares.
#[derive(Clone)]
struct Inbound {
    endpoints: Arc<dyn Endpoints>,
    metrics: Arc<Metrics>,
    /// Stand in for the keys of addresses that nobody listens at.
    nobodys: Arc<Keys>,
    turns: Arc<Semaphore>,
    limits: Limits,
}

/// A server that takes requests until it is stopped.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Running {
    /// Ends when the server has been stopped and its requests have ended, or their time is over.
    pub async fn ended(self) {
        let _ = self.serving.await;
    }
}

/// Listens; when this returns, requests are answered. From `stop` on no connection is taken, and requests that are being read may end.
pub async fn start(
    settings: Settings,
    endpoints: Arc<dyn Endpoints>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<Running, String> {
    let Settings { address, tls, public_url, limits } = settings;
    let cannot = |error: std::io::Error| format!("cannot listen on --inbound-address {address}: {error}");
    let listener = TcpListener::bind(address).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let tls = match tls {
        Some(files) => Some(files.open().await.map_err(|why| format!("--inbound-tls-cert/--inbound-tls-key: {why}"))?),
        None => None,
    };
    let inbound =
        Inbound { endpoints, metrics, nobodys: Arc::new(Keys::nobodys()), turns: Arc::new(Semaphore::new(AT_ONCE)), limits };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let public = public_url.unwrap_or_else(|| PublicUrl(format!("{scheme}://{address}")));
    info!(%address, "Senders reach the inbound endpoint at {}", public.ingest("<namespace>", "<path>"));
    Ok(Running { address, serving: tokio::spawn(serve(listener, tls, router(inbound), stop)) })
}

async fn serve(listener: TcpListener, tls: Option<(RustlsConfig, Renewal)>, router: Router, stop: CancellationToken) {
    let handle = Handle::new();
    let (tls, renewal) = tls.unzip();
    let renewing = async {
        match renewal {
            Some(renewal) => renewal.follow().await,
            None => std::future::pending().await,
        }
    };
    let stopping = async {
        stop.cancelled().await;
        handle.graceful_shutdown(Some(DRAIN));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = transport::serve(listener, tls, handle.clone(), router) => {
            if let Err(error) = ended {
                error!(%error, "The inbound endpoint ended");
            }
        }
        () = renewing => {}
        () = stopping => {}
    }
}

fn router(inbound: Inbound) -> Router {
    Router::new()
        .route(
            "/ingest/{namespace}/{path}",
            on(MethodFilter::POST.or(MethodFilter::PUT), ingest::handle).fallback(no_method),
        )
        .route(
            "/events/{namespace}/{path}",
            on(MethodFilter::POST.or(MethodFilter::PUT), events::handle).fallback(no_method),
        )
        .route("/callbacks/{namespace}/{approval}", any(callback::handle))
        .fallback(async || no_path())
        .layer(axum::middleware::map_response(plain))
        .with_state(inbound)
}

/// Answers are for the sender alone, and are what they say.
async fn plain(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn no_method() -> Response {
    let mut response = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Use POST or PUT.").respond();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST, PUT"));
    response
}

fn no_path() -> Response {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not-found",
        "There are no endpoints but /ingest/<namespace>/<path>, /events/<namespace>/<path> and /callbacks/<namespace>/<approval>.",
    )
    .respond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_address_is_one_that_senders_can_use() {
        let url: PublicUrl = "https://files.example/f360/".parse().unwrap();
        assert_eq!(url.ingest("legal", "erp"), "https://files.example/f360/ingest/legal/erp");
        for odd in
            ["files.example", "ftp://files.example", "https://", "https://u:p@files.example", "https://files.example/?a=b"]
        {
            assert!(odd.parse::<PublicUrl>().is_err(), "{odd}");
        }
    }
}
