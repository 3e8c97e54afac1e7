//! The fault switchboard (`--test-faults`): makes the server slow, unavailable, forgetful or wrong, and counts what was asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::App;
use super::call::{Answer, Call};
use super::http::{DropConnection, Reply, replaced};
use super::operation::Operation;

/// One fault that hits the next calls that match.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fault {
    /// Only calls with this method.
    pub method: Option<String>,
    /// Only calls whose path starts so.
    pub path_prefix: Option<String>,
    /// Answer with this status. With `afterCommit`, the operation runs first.
    pub status: Option<u16>,
    /// `Retry-After` of that answer.
    pub retry_after: Option<u64>,
    /// How many calls it hits; 0 or absent: one.
    pub count: u64,
    /// The operation runs and is durable; then the answer is lost: the connection is closed, or `status` is sent.
    pub after_commit: bool,
    /// The operation runs; half of its answer is sent, then the connection is closed.
    pub truncate_body: bool,
    /// 200 with JSON that stops in the middle.
    pub malformed: bool,
    /// 200 with a body that does not end.
    pub endless: bool,
}

/// What the switchboard is set to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Switches {
    /// Every call waits so long first.
    pub latency_ms: u64,
    /// Faults in the order they are tried.
    pub fail_next: Vec<Fault>,
    /// Every cursor of the change feed has expired.
    pub expire_cursors: bool,
    /// How far the server's clock is ahead.
    pub clock_offset_seconds: i64,
    /// No bearer token is accepted.
    pub reject_tokens: bool,
    /// Starts another feed epoch, once.
    pub feed_epoch_bump: bool,
    /// Calls per operation since the start. Sending `{}` starts over.
    pub request_counters: Option<BTreeMap<String, u64>>,
}

/// The switchboard of one server.
pub struct Faults {
    enabled: bool,
    armed: AtomicBool,
    switches: Mutex<Switches>,
    counters: Vec<AtomicU64>,
}

impl Faults {
    /// All off. Without `enabled` it only counts.
    pub fn new(enabled: bool) -> Self {
        let counters = Operation::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self { enabled, armed: AtomicBool::new(false), switches: Mutex::default(), counters }
    }

    /// Counts the call, delays it, and says which fault hits it.
    pub async fn admit(&self, operation: Operation, method: &Method, path: &str) -> Option<Fault> {
        if let Some(counter) = self.counters.get(operation as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if !self.enabled || operation.is_test_only() || !self.armed.load(Ordering::Acquire) {
            return None;
        }
        let latency = self.switches.lock().latency_ms;
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        let mut switches = self.switches.lock();
        let at = switches.fail_next.iter().position(|fault| {
            fault.method.as_deref().is_none_or(|wanted| method.as_str().eq_ignore_ascii_case(wanted))
                && fault.path_prefix.as_deref().is_none_or(|prefix| path.starts_with(prefix))
        })?;
        let fault = switches.fail_next[at].clone();
        if fault.count <= 1 {
            switches.fail_next.remove(at);
        } else {
            switches.fail_next[at].count -= 1;
        }
        Some(fault)
    }

    /// Every cursor counts as expired.
    pub fn cursors_are_expired(&self) -> bool {
        self.armed.load(Ordering::Acquire) && self.switches.lock().expire_cursors
    }

    /// No token counts.
    pub fn tokens_are_rejected(&self) -> bool {
        self.armed.load(Ordering::Acquire) && self.switches.lock().reject_tokens
    }

    /// Calls per operation since the start.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let counts = Operation::ALL.iter().zip(&self.counters);
        counts
            .map(|(operation, count)| (operation.id().to_owned(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Sets all switches.
    pub fn set(&self, switches: Switches) {
        if switches.request_counters.is_some() {
            self.counters.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        }
        *self.switches.lock() = switches;
        self.armed.store(true, Ordering::Release);
    }
}

impl Fault {
    /// The answer of a fault that keeps the operation from running.
    pub fn respond(&self) -> Response {
        if self.malformed {
            return json(Body::from("{\"items\": [{\"id\": \"w0"));
        }
        if self.endless {
            let blanks = Bytes::from(vec![b' '; 64 * 1024]);
            return json(Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::io::Error>(blanks.clone()))));
        }
        replaced(
            self.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            self.retry_after,
        )
    }

    /// What becomes of the answer of an operation that ran.
    pub async fn distort(&self, response: Response) -> Response {
        if self.truncate_body {
            return truncated(response).await;
        }
        if let Some(status) = self.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            return replaced(status, self.retry_after);
        }
        let mut lost = Response::new(Body::empty());
        lost.extensions_mut().insert(DropConnection);
        lost
    }
}

fn json(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

async fn truncated(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = axum::body::to_bytes(body, 16 * 1024 * 1024).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(whole.len()));
    let half = whole.slice(..whole.len() / 2);
    let rest = futures::stream::once(async move { Ok(half) })
        .chain(futures::stream::once(async { Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)) }));
    Response::from_parts(parts, Body::from_stream(rest))
}

/// `GET /test/faults`
pub fn get(app: &App) -> Reply {
    let switches = app.faults.switches.lock().clone();
    Reply::plain(Answer::ok(&Switches { request_counters: Some(app.faults.counters()), ..switches }))
}

/// `PUT /test/faults`
pub async fn put(app: App, call: Call) -> Reply {
    let switches: Switches = match call.json() {
        Ok(switches) => switches,
        Err(refusal) => return refusal.into(),
    };
    app.config.clock.set_offset_seconds(switches.clock_offset_seconds);
    if switches.feed_epoch_bump {
        let epoch = super::names::secret()[..12].to_owned();
        let kept = epoch.clone();
        let stored = app.store.write(move |ledger| super::store::schema::set_meta(ledger.db, "feedEpoch", &kept)).await;
        if let Err(refusal) = stored {
            return refusal.into();
        }
        app.store.tail.set_epoch(epoch);
    }
    app.faults.set(Switches { feed_epoch_bump: false, ..switches });
    super::sweep::run(&app).await;
    get(&app)
}
