//! A proxy before File 360 or the API server: counts mutating requests, and at one of them does something terrible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::free_port;

/// When the crash happens, relative to the mutating request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The request never arrives.
    Before,
    /// The request is done, its reply arrives, then the process dies.
    After,
    /// The request is done, the process dies without its reply.
    ReplyLost,
}

/// All moments.
pub const MOMENTS: [Moment; 3] = [Moment::Before, Moment::After, Moment::ReplyLost];

/// Shared by the proxies of one run: numbers the mutating requests of all of them in the order they come.
pub struct Script {
    /// Mutating requests so far.
    pub count: AtomicUsize,
    /// One line for each.
    pub lines: Mutex<Vec<String>>,
    crash: Option<(usize, Moment)>,
    armed: AtomicBool,
    /// Told when the process has to die.
    pub die: Notify,
    /// The process is dead: the proxy may go on.
    pub dead: AtomicBool,
}

impl Script {
    /// Counts; with `crash`, dies at that request (from 1).
    pub fn new(crash: Option<(usize, Moment)>) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            lines: Mutex::default(),
            crash,
            armed: AtomicBool::new(false),
            die: Notify::new(),
            dead: AtomicBool::new(false),
        })
    }

    /// Counting begins; everything before was preparation.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Waits until nothing was counted for this long.
    pub async fn quiet(&self, long: std::time::Duration) {
        loop {
            let before = self.count.load(Ordering::SeqCst);
            tokio::time::sleep(long).await;
            if self.count.load(Ordering::SeqCst) == before {
                return;
            }
        }
    }

    /// Nothing is counted any more.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Shared {
    upstream: String,
    http: reqwest::Client,
    script: Arc<Script>,
    keeps_host: bool,
}

/// Starts a proxy before `upstream`; returns its URL.
pub async fn start(upstream: &str, http: reqwest::Client, script: Arc<Script>) -> String {
    start_with(upstream, http, script, false).await
}

/// The same for a server whose clients sign the host that they call, as those of S3 do.
pub async fn start_keeping_host(upstream: &str, http: reqwest::Client, script: Arc<Script>) -> String {
    start_with(upstream, http, script, true).await
}

async fn start_with(upstream: &str, http: reqwest::Client, script: Arc<Script>, keeps_host: bool) -> String {
    let port = free_port();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the proxy listens");
    let shared = Shared { upstream: upstream.trim_end_matches('/').to_owned(), http, script, keeps_host };
    let app = Router::new().fallback(forward).with_state(shared);
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://127.0.0.1:{port}")
}

fn counts(request: &Request) -> bool {
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let mutates = !reads && request.method().as_str() != "PROPFIND";
    // Events are for people, Leases and tokens are not state, fences only grow.
    let is_noise = ["/events", "/leases", "/oauth2/token", "/v1/fences"].iter().any(|noise| path.contains(noise));
    mutates && !is_noise
}

async fn forward(State(shared): State<Shared>, request: Request) -> Response {
    let script = shared.script.clone();
    let number = (counts(&request) && script.armed.load(Ordering::SeqCst)).then(|| {
        script.lines.lock().push(format!("{} {}", request.method(), request.uri().path()));
        script.count.fetch_add(1, Ordering::SeqCst) + 1
    });
    let crash = script.crash.filter(|(at, _)| number == Some(*at)).map(|(_, moment)| moment);
    if crash == Some(Moment::Before) {
        return die(&script).await;
    }
    let answer = pass_on(&shared, request).await;
    match crash {
        Some(Moment::ReplyLost) => die(&script).await,
        Some(Moment::After) => {
            let script = script.clone();
            // The reply leaves first.
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                script.die.notify_one();
            });
            answer
        }
        _ => answer,
    }
}

/// Never answers: the process dies, and its connections with it.
async fn die(script: &Script) -> Response {
    script.die.notify_one();
    while !script.dead.load(Ordering::SeqCst) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    StatusCode::BAD_GATEWAY.into_response()
}

async fn pass_on(shared: &Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let mut headers = parts.headers;
    if !shared.keeps_host {
        headers.remove("host");
    }
    let sent =
        shared.http.request(parts.method, format!("{}{path}", shared.upstream)).headers(headers).body(body).send().await;
    let Ok(answer) = sent else { return StatusCode::BAD_GATEWAY.into_response() };
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != "transfer-encoding" && name != "connection" {
            response = response.header(name, value);
        }
    }
    response.body(Body::from_stream(answer.bytes_stream())).unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}
