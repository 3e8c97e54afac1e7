//! The outbox of one workspace where it is kept: a document in File 360, changed by one at a time.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::outbox::Outbox;
use crate::api::report::ReportStatus;
use crate::error::{Error, Kind, Result, clean};
use crate::file360::File360;
use crate::reconcile::ObjectKey;

/// What a status says of an error at most.
const LONGEST_ERROR: usize = 500;
/// Times that a change is tried when somebody else changed the document in between.
const ROUNDS: usize = 3;

/// See the module. At rest it holds no outbox.
pub struct Mailbox {
    document: String,
    held: tokio::sync::Mutex<Option<Held>>,
    /// What is known without reading.
    pub known: Mutex<Known>,
}

struct Held {
    outbox: Option<Outbox>,
    etag: Option<String>,
}

/// What is known of an outbox without reading it.
#[derive(Clone, Default)]
pub struct Known {
    /// The resource.
    pub owner: Option<ObjectKey>,
    /// Events that somebody wants.
    pub wants: u16,
    /// Generation of the spec that the sinks were last brought to by this process.
    pub generation: Option<i64>,
    /// Sinks whose last try failed: how often in a row, and why.
    pub failing: BTreeMap<String, Failing>,
    /// What the status said last, and when that was written.
    pub reported: Option<(Vec<ReportStatus>, tokio::time::Instant)>,
    /// Events that wait, all sinks together.
    pub pending: usize,
    /// How many of these are in the metric.
    counted: usize,
}

impl Known {
    /// What the metric lacks of the events that wait; it is in it from now on.
    pub fn uncounted(&mut self) -> i64 {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let before = std::mem::replace(&mut self.counted, self.pending);
        number(self.pending) - number(before)
    }

    /// Takes the events that wait out of the metric.
    pub fn uncount(&mut self) -> i64 {
        -i64::try_from(std::mem::take(&mut self.counted)).unwrap_or(i64::MAX)
    }
}

/// A sink whose last try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Failures in a row.
    pub failures: u32,
    /// Why.
    pub error: String,
}

impl Mailbox {
    /// The mailbox whose outbox is this document.
    pub fn new(document: String) -> Self {
        Self { document, held: tokio::sync::Mutex::default(), known: Mutex::default() }
    }

    /// Takes up an outbox that a listing told of, without holding it.
    pub fn saw(&self, outbox: &Outbox) {
        note(&mut self.known.lock(), Some(outbox));
    }

    /// Runs `change` on the outbox (`None`: there is none) and writes it if it differs afterwards. When this returns, it is durable; after an
    /// error nobody knows, and it is read again. `change` may run more than once.
    pub async fn with<T>(&self, tenant: &dyn File360, change: impl Fn(&mut Option<Outbox>) -> T) -> Result<T> {
        let mut held = self.held.lock().await;
        for _ in 0..ROUNDS {
            let Held { outbox, etag } = match held.take() {
                Some(known) => known,
                None => self.read(tenant).await?,
            };
            let mut next = outbox.clone();
            let result = change(&mut next);
            if next == outbox {
                self.keep(&mut held, Held { outbox, etag });
                return Ok(result);
            }
            let written = match (&next, &etag) {
                (Some(next), etag) => {
                    let value = serde_json::to_value(next)
                        .map_err(|error| Error::new(Kind::Malformed, format!("an outbox cannot be written: {error}")))?;
                    tenant.put_client_state(&self.document, &value, etag.as_deref()).await.map(Some)
                }
                (None, Some(etag)) => tenant.delete_client_state(&self.document, etag).await.map(|()| None),
                (None, None) => Ok(None),
            };
            match written {
                Ok(etag) => {
                    self.keep(&mut held, Held { outbox: next, etag });
                    return Ok(result);
                }
                // Another process, or an own write whose reply was lost: what is there now counts.
                Err(error) if error.kind == Kind::Stale && error.code != "fenced" => {}
                Err(error) => return Err(error.while_doing("keep what is to be reported")),
            }
        }
        Err(Error::new(Kind::Stale, "what is to be reported keeps changing"))
    }

    fn keep(&self, held: &mut Option<Held>, now: Held) {
        note(&mut self.known.lock(), now.outbox.as_ref());
        // At rest nothing is held: there may be thousands.
        *held = Some(now).filter(|now| now.outbox.as_ref().is_some_and(|outbox| !outbox.is_empty()));
    }

    async fn read(&self, tenant: &dyn File360) -> Result<Held> {
        let Some(found) = tenant.client_state(&self.document).await? else { return Ok(Held { outbox: None, etag: None }) };
        // A document that nobody can read is replaced: what it held cannot be told.
        let outbox = serde_json::from_value(found.value).ok();
        Ok(Held { outbox, etag: Some(found.etag) })
    }

    /// A try failed; how many did in a row.
    pub fn failed(&self, sink: &str, error: &Error) -> u32 {
        let mut known = self.known.lock();
        let failing = known.failing.entry(sink.to_owned()).or_insert_with(|| Failing { failures: 0, error: String::new() });
        failing.failures = failing.failures.saturating_add(1);
        failing.error = clean(&error.to_string(), LONGEST_ERROR);
        failing.failures
    }

    /// A try succeeded; whether the one before had failed.
    pub fn succeeded(&self, sink: &str) -> bool {
        self.known.lock().failing.remove(sink).is_some()
    }

    /// What the status is to say of the sinks in `outbox`.
    pub fn status(&self, outbox: &Outbox) -> Vec<ReportStatus> {
        let known = self.known.lock();
        let status = outbox.sinks.iter().map(|(name, sink)| ReportStatus {
            name: name.clone(),
            last_delivered_at: sink.delivered_at,
            pending: u32::try_from(outbox.pending(name)).unwrap_or(u32::MAX),
            last_error: known.failing.get(name).map(|failing| failing.error.clone()),
        });
        status.collect()
    }
}

fn note(known: &mut Known, outbox: Option<&Outbox>) {
    let Some(outbox) = outbox else {
        (known.wants, known.pending) = (0, 0);
        return;
    };
    known.owner = Some(ObjectKey::new(&outbox.namespace, &outbox.name));
    known.wants = outbox.wants();
    known.pending = outbox.sinks.keys().map(|name| outbox.pending(name)).sum();
    known.failing.retain(|name, _| outbox.sinks.contains_key(name));
}
