//! A real HTTP server that answers as it is told, and remembers what it was sent. Bodies go to files, so that their size does not show in
//! the memory of the test.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt as _;

use crate::counterparts::{free_port, listen_again};

/// One request that arrived whole.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query as they were sent.
    pub target: String,
    pub headers: HeaderMap,
    body: PathBuf,
}

impl Seen {
    pub fn body(&self) -> Vec<u8> {
        std::fs::read(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body()).unwrap()
    }

    /// A header as text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

type Respond = Arc<dyn Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync>;

pub struct Counterpart {
    pub port: u16,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: Arc<State>,
    running: Mutex<Option<Running>>,
}

struct State {
    folder: tempfile::TempDir,
    seen: Mutex<Vec<Seen>>,
    /// Requests whose head arrived.
    begun: AtomicUsize,
    respond: Mutex<Respond>,
}

struct Running {
    handle: Handle<SocketAddr>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Counterpart {
    /// Starts on a free loopback port, inside a runtime, and answers 200 with `{}`.
    pub fn start(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let state = State {
            folder: tempfile::tempdir().unwrap(),
            seen: Mutex::default(),
            begun: AtomicUsize::new(0),
            respond: Mutex::new(Arc::new(|_| Box::pin(async { axum::Json(serde_json::json!({})).into_response() }))),
        };
        let counterpart = Self { port, tls, state: Arc::new(state), running: Mutex::new(None) };
        counterpart.serve(listener);
        counterpart
    }

    fn serve(&self, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let state = self.state.clone();
        let router = Router::new().fallback(move |request: Request| handle(state.clone(), request)).into_make_service();
        let handle = Handle::new();
        let task = match &self.tls {
            Some(tls) => {
                let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(tls.clone())).unwrap();
                tokio::spawn(server.handle(handle.clone()).serve(router))
            }
            None => tokio::spawn(axum_server::from_tcp(listener).unwrap().handle(handle.clone()).serve(router)),
        };
        *self.running.lock() = Some(Running { handle, task });
    }

    /// From now on, `respond` answers.
    pub fn answers<F>(&self, respond: impl Fn(Seen) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Response> + Send + 'static,
    {
        *self.state.respond.lock() = Arc::new(move |seen| Box::pin(respond(seen)));
    }

    /// From now on, the answer is this.
    pub fn answers_with(&self, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers: Vec<(&'static str, String)> =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let body = body.to_owned();
        self.answers(move |_| {
            let mut response = (StatusCode::from_u16(status).unwrap(), body.clone()).into_response();
            for (name, value) in &headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            async { response }
        });
    }

    /// What arrived whole, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().clone()
    }

    /// The one request that arrived.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.into_iter().next().unwrap()
    }

    /// Forgets what arrived.
    pub fn forget(&self) {
        self.state.seen.lock().clear();
    }

    /// How many requests began, whole or not.
    pub fn begun(&self) -> usize {
        self.state.begun.load(Ordering::SeqCst)
    }

    /// Closes the port and every connection.
    pub async fn stop(&self) {
        let running = self.running.lock().take().expect("it runs");
        running.handle.shutdown();
        running.task.await.unwrap().unwrap();
    }

    /// Opens the same port again.
    pub fn start_again(&self) {
        self.serve(listen_again((Ipv4Addr::LOCALHOST, self.port).into()));
    }
}

impl Drop for Counterpart {
    fn drop(&mut self) {
        if let Some(running) = self.running.lock().take() {
            running.handle.shutdown();
            running.task.abort();
        }
    }
}

async fn handle(state: Arc<State>, request: Request) -> Response {
    let number = state.begun.fetch_add(1, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let path = state.folder.path().join(number.to_string());
    let mut file = tokio::fs::File::create(&path).await.unwrap();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return StatusCode::BAD_REQUEST.into_response() };
        file.write_all(&chunk).await.unwrap();
    }
    file.flush().await.unwrap();
    let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let seen = Seen { method: head.method.to_string(), target, headers: head.headers, body: path };
    state.seen.lock().push(seen.clone());
    let respond = state.respond.lock().clone();
    respond(seen).await
}

/// A body that never ends.
pub fn endless() -> Body {
    let chunk = axum::body::Bytes::from(vec![b'x'; 64 * 1024]);
    Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone())))
}

/// An authority that the tests make.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// Certificate and key for a name or address, as PEM.
    pub fn issue(&self, name: &str) -> HashMap<&'static str, String> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        HashMap::from([("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())])
    }

    /// A server with a certificate for `name`, which asks its clients for one of `clients`.
    pub fn server(&self, name: &str, clients: Option<&Authority>) -> Arc<rustls::ServerConfig> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let issued = self.issue(name);
        let chain = vec![CertificateDer::from_pem_slice(issued["tls.crt"].as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(issued["tls.key"].as_bytes()).unwrap();
        let builder = rustls::ServerConfig::builder();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
                let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }
}
