//! Many writes in one request: what callers want to write within a moment goes together, and each gets its own result.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use super::http::{Answer, is_block, reason};
use crate::error::{Error, Kind, Result};

/// How long the first write of a request waits for others.
const GATHER: Duration = Duration::from_millis(10);
/// Most writes in a request.
const MAX_WRITES: usize = 500;
/// Largest request, in bytes; a single larger document is refused.
const MAX_BYTES: usize = 5 * 1024 * 1024;
/// Requests that are under way at once.
const MAX_REQUESTS: usize = 4;
/// How long to stay away from a cluster that is too busy and does not say how long.
const BUSY: Duration = Duration::from_secs(2);

/// One write of a document. It is done only if what is there has no larger version; equal ones are replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Id of the document.
    pub id: String,
    /// Its version, which the writer gives (`external_gte`).
    pub version: u64,
    /// The document; `None` removes it. The version of what was removed is remembered for a minute (`index.gc_deletes`), so that a
    /// late write does not bring it back.
    pub document: Option<Value>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is done and durable.
    Done,
    /// A newer document is there, or was there until lately. Nothing changed.
    Superseded,
    /// There is no such document.
    Gone,
}

impl Write {
    fn action(&self) -> &'static str {
        if self.document.is_some() { "index" } else { "delete" }
    }

    /// The lines of the request. JSON has no line breaks within.
    fn lines(&self) -> String {
        // The cluster counts in signed numbers.
        let version = i64::try_from(self.version).unwrap_or(i64::MAX);
        let action = json!({(self.action()): {"_id": self.id, "version": version, "version_type": "external_gte"}});
        match &self.document {
            Some(document) => format!("{action}\n{document}\n"),
            None => format!("{action}\n"),
        }
    }
}

/// Sends one request.
#[async_trait]
pub trait Sender: Send + Sync + 'static {
    /// Sends these lines and returns the answer, of any status.
    async fn send(&self, lines: String) -> Result<Answer>;

    /// What a failed request means for everything in it.
    fn refusal(&self, answer: &Answer) -> Error;
}

struct Waiting {
    write: Write,
    lines: String,
    done: oneshot::Sender<Result<Written>>,
}

/// Gathers writes.
pub struct Bulk<S> {
    sender: Arc<S>,
    gathering: Mutex<Vec<Waiting>>,
    slots: Semaphore,
    me: Weak<Self>,
}

impl<S: Sender> Bulk<S> {
    /// Writes through `sender`.
    pub fn new(sender: Arc<S>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            sender,
            gathering: Mutex::default(),
            slots: Semaphore::new(MAX_REQUESTS),
            me: me.clone(),
        })
    }

    /// Writes, together with what others write in the same moment. A caller that goes away stops no other, and not its own write.
    pub async fn write(&self, write: Write) -> Result<Written> {
        let lines = write.lines();
        if lines.len() > MAX_BYTES {
            let what = format!("the document has {} bytes; {MAX_BYTES} are allowed", lines.len());
            return Err(Error::new(Kind::Rejected, what));
        }
        let (done, result) = oneshot::channel();
        self.gather(Waiting { write, lines, done });
        result.await.unwrap_or_else(|_| Err(Error::new(Kind::Stopping, "the operator is stopping")))
    }

    fn gather(&self, waiting: Waiting) {
        let mut gathering = self.gathering.lock();
        let bytes: usize = gathering.iter().map(|waiting| waiting.lines.len()).sum();
        if gathering.len() >= MAX_WRITES || bytes + waiting.lines.len() > MAX_BYTES {
            let full = mem::take(&mut *gathering);
            self.start(Some(full));
        }
        let is_first = gathering.is_empty();
        gathering.push(waiting);
        if is_first {
            self.start(None);
        }
    }

    /// Sends `full` as soon as a slot is free; without it, what has gathered by then.
    fn start(&self, full: Option<Vec<Waiting>>) {
        let Some(me) = self.me.upgrade() else { return };
        tokio::spawn(async move {
            if full.is_none() {
                tokio::time::sleep(GATHER).await;
            }
            let Ok(_slot) = me.slots.acquire().await else { return };
            let batch = full.unwrap_or_else(|| mem::take(&mut *me.gathering.lock()));
            if !batch.is_empty() {
                me.send(batch).await;
            }
        });
    }

    /// Sends a batch, in halves where it is too large for the cluster.
    async fn send(&self, batch: Vec<Waiting>) {
        let mut batches = vec![batch];
        while let Some(mut batch) = batches.pop() {
            let lines = batch.iter().map(|waiting| waiting.lines.as_str()).collect();
            match self.sender.send(lines).await {
                Ok(answer) if answer.status == StatusCode::PAYLOAD_TOO_LARGE && batch.len() > 1 => {
                    batches.push(batch.split_off(batch.len() / 2));
                    batches.push(batch);
                }
                Ok(answer) if answer.status.is_success() => finish(batch, &answer),
                Ok(answer) => fail(batch, &self.sender.refusal(&answer)),
                Err(error) => fail(batch, &error),
            }
        }
    }
}

fn fail(batch: Vec<Waiting>, error: &Error) {
    for waiting in batch {
        // The caller may have gone away.
        let _ = waiting.done.send(Err(error.clone()));
    }
}

/// Gives each caller its own item of the answer. Nothing is taken for written that the answer does not name.
fn finish(batch: Vec<Waiting>, answer: &Answer) {
    let items = answer.body.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if items.len() != batch.len() {
        let what = format!("the answer has {} results for {} writes", items.len(), batch.len());
        return fail(batch, &Error::new(Kind::Malformed, what));
    }
    for (waiting, item) in batch.into_iter().zip(items) {
        let result = result(&waiting.write, item, answer.retry_after);
        let _ = waiting.done.send(result);
    }
}

fn result(write: &Write, item: &Value, retry_after: Option<Duration>) -> Result<Written> {
    let malformed = || Error::new(Kind::Malformed, "the answer has no result for the write");
    let item = item.get(write.action()).ok_or_else(malformed)?;
    if item.get("_id").and_then(Value::as_str) != Some(write.id.as_str()) {
        return Err(malformed());
    }
    let status = item.get("status").and_then(Value::as_u64).ok_or_else(malformed)?;
    let kind = match status {
        200..=299 => return Ok(Written::Done),
        409 => return Ok(Written::Superseded),
        404 if item.pointer("/error/type").and_then(Value::as_str) != Some("index_not_found_exception") => {
            return Ok(Written::Gone);
        }
        404 => Kind::NotFound,
        429 => Kind::RateLimited,
        403 if is_block(item) => Kind::Unavailable,
        401 | 403 => Kind::Denied,
        400..=499 => Kind::Rejected,
        _ => Kind::Unavailable,
    };
    let why = reason(item).map(|why| format!(": {why}")).unwrap_or_default();
    let mut error = Error::new(kind, format!("the index refused the document with {status}{why}"));
    if kind == Kind::RateLimited {
        error.retry_after = Some(retry_after.unwrap_or(BUSY));
    }
    Err(error)
}
