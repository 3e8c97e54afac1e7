//! A small case system: takes files and events over HTTP, keeps what it got, honours idempotency keys; can be told to fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// One request that was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Path of the request.
    pub path: String,
    /// Its query, without the question mark.
    pub query: String,
    /// Its `Idempotency-Key`.
    pub key: String,
    /// Its headers, in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Accepted {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

#[derive(Default)]
struct Kept {
    accepted: Mutex<Vec<Accepted>>,
    /// Requests with a key that was there already.
    repeated: Mutex<Vec<String>>,
    /// Answers every request with this status; 0: as usual.
    status: AtomicU16,
    /// Requests are not answered for the time being.
    held: AtomicBool,
    /// How many wait for that.
    waiting: AtomicUsize,
    /// Requests are accepted, and not answered for the time being.
    muted: AtomicBool,
    /// Bodies that contain this are refused with 422.
    poison: Mutex<Option<Vec<u8>>>,
}

/// The case system.
pub struct CaseSystem {
    /// Its base URL.
    pub url: String,
    address: SocketAddr,
    kept: Arc<Kept>,
    server: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl CaseSystem {
    /// Starts on a free port.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let kept = Arc::new(Kept::default());
        let server = Mutex::new(Some(serve(listener, kept.clone())));
        Self { url: format!("http://{address}"), address, kept, server }
    }

    /// Everything that was accepted, in order, each key once.
    pub fn accepted(&self) -> Vec<Accepted> {
        self.kept.accepted.lock().clone()
    }

    /// Accepts requests without an answer, as if it were lost.
    pub fn mute(&self, muted: bool) {
        self.kept.muted.store(muted, Ordering::SeqCst);
    }

    /// How many requests came again with a known key.
    pub fn repeated(&self) -> usize {
        self.kept.repeated.lock().len()
    }

    /// Answers every request with `status` from now on; `None`: as usual.
    pub fn answer_with(&self, status: Option<u16>) {
        self.kept.status.store(status.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Answers nothing from now on; once it does again, it does not know what it was asked meanwhile.
    pub fn hold(&self, held: bool) {
        self.kept.held.store(held, Ordering::SeqCst);
    }

    /// How many requests wait for an answer.
    pub fn held(&self) -> usize {
        self.kept.waiting.load(Ordering::SeqCst)
    }

    /// Refuses bodies that contain `text`.
    pub fn refuse(&self, text: Option<&str>) {
        *self.kept.poison.lock() = text.map(|text| text.as_bytes().to_vec());
    }

    /// Goes away: connections are refused.
    pub fn stop(&self) {
        if let Some(server) = self.server.lock().take() {
            server.abort();
        }
    }

    /// Comes back on the same port.
    pub async fn start_again(&self) {
        let listener = crate::support::eventually("the port", || async {
            tokio::net::TcpListener::bind(self.address).await.map_err(|error| error.to_string())
        })
        .await;
        *self.server.lock() = Some(serve(listener, self.kept.clone()));
    }
}

fn serve(listener: tokio::net::TcpListener, kept: Arc<Kept>) -> tokio::task::JoinHandle<()> {
    let app = axum::Router::new().fallback(take).with_state(kept);
    tokio::spawn(async move {
        let _ = axum::serve(listener, app).await;
    })
}

/// Accepts a request; its answer can be held back.
async fn take(State(kept): State<Arc<Kept>>, request: Request) -> Response {
    let answer = accept(&kept, request).await;
    while kept.muted.load(Ordering::SeqCst) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    answer
}

async fn accept(kept: &Kept, request: Request) -> Response {
    let status = kept.status.load(Ordering::Relaxed);
    if let Ok(status) = StatusCode::from_u16(status) {
        return (status, "as told").into_response();
    }
    if kept.held.load(Ordering::SeqCst) {
        kept.waiting.fetch_add(1, Ordering::SeqCst);
        while kept.held.load(Ordering::SeqCst) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let (parts, body) = request.into_parts();
    let headers: BTreeMap<String, String> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let Ok(body) = to_bytes(body, 256 << 20).await else { return StatusCode::BAD_REQUEST.into_response() };
    if kept.poison.lock().as_ref().is_some_and(|poison| body.windows(poison.len()).any(|window| window == poison.as_slice()))
    {
        return (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(json!({"detail": "this one is not wanted"}))).into_response();
    }
    let key = headers.get("idempotency-key").cloned().unwrap_or_default();
    let mut accepted = kept.accepted.lock();
    let number = match accepted.iter().position(|known| known.key == key) {
        Some(at) => {
            kept.repeated.lock().push(key);
            at + 1
        }
        None => {
            accepted.push(Accepted {
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                key,
                headers,
                body: body.to_vec(),
            });
            accepted.len()
        }
    };
    (StatusCode::CREATED, axum::Json(json!({"id": format!("CASE-{number}")}))).into_response()
}
