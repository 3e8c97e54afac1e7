//! What is recorded of each file, before the checkpoint passes it (R2).
//!
//! Of a file in File 360 the record is a facet on its version; of an object of a store, a document of the client. What waits for another try or
//! was given up has a document besides, so that a restart finds it without looking at every file. Records are written in batches; a record
//! counts once the batch is durable.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::attempts::Receipt;
use super::delivery::{Origin, RouteId, key};
use super::window::Token;
use super::work::Concerns;
use crate::api::common::is_default;
use crate::error::{Error, Kind, Result};
use crate::file360::content::{Content, IdempotencyKey};
use crate::file360::model::{ClientStatePut, FacetPut};
use crate::hex::hex;
use crate::reconcile::backoff;
use sha2::{Digest, Sha256};

/// Records in one batch.
const MOST: usize = 500;
/// Bytes of one batch: half of what the contract allows.
const LARGEST: usize = 512 * 1024;
/// Bytes that a record needs besides its own.
const OVERHEAD: usize = 128;
/// Records that may wait for their batch.
const WAITING: usize = 4096;
/// How long a batch waits for more records.
const LINGER: Duration = Duration::from_millis(40);
/// How long a route that stops goes on writing what it has to record.
const LAST_TRIES: Duration = Duration::from_secs(2);
/// Documents that a restart reads at most.
const MOST_PAGES: usize = 1000;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Every destination acknowledged it.
    Delivered,
    /// No rule took it.
    Unmatched,
    /// Some destination is tried again.
    Waiting,
    /// Some destination was given up.
    Dead,
}

/// The record of one version of one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What became of it.
    pub state: State,
    /// The rule that took it.
    pub rule: String,
    /// When.
    pub at: Timestamp,
    /// The destinations, by `rule/name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub to: BTreeMap<String, Entry>,
}

impl Record {
    /// Whether it tells what became of this occasion, and not of an earlier one.
    pub fn is_about(&self, route: &RouteId, origin: &Origin, occasion: &str) -> bool {
        self.to.iter().any(|(slot, entry)| {
            slot.split_once('/').is_some_and(|(rule, to)| entry.key == key(route, origin, rule, to, occasion))
        })
    }

    /// Destinations that mirror were brought up to date. What the `others` have, and the rule that took the file to them, stays as it was.
    pub fn goes_on_from(&mut self, before: &Self, others: impl Fn(&str) -> bool) {
        let kept: Vec<_> = before.to.iter().filter(|(slot, _)| others(slot)).collect();
        if kept.is_empty() {
            return;
        }
        self.rule.clone_from(&before.rule);
        if matches!(self.state, State::Delivered | State::Unmatched) {
            self.state = match () {
                () if kept.iter().any(|(_, entry)| entry.given_up) => State::Dead,
                () if kept.iter().any(|(_, entry)| entry.at.is_none()) => State::Waiting,
                () => State::Delivered,
            };
        }
        self.to.extend(kept.into_iter().map(|(slot, entry)| (slot.clone(), entry.clone())));
    }
}

/// One destination's part of a record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The idempotency key.
    pub key: String,
    /// Where it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// When it was acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Tries that failed because of this file; what is given up is decided by them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempts: u32,
    /// All tries that failed; the wait grows with them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tries: u32,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It is not tried again unless somebody asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// How often the destination had answered when this file failed last.
    #[serde(skip)]
    pub answers: u64,
    /// Somebody else knows that it has answered since.
    #[serde(skip)]
    pub others_answered: bool,
}

/// Work that waits or was given up, as a restart finds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parked {
    /// What it is about.
    pub origin: ParkedOrigin,
    /// Path or key, for people.
    pub path: String,
    /// What happened.
    pub event: crate::api::file_route::FileEvent,
    /// When.
    pub event_at: Timestamp,
    /// Who did it.
    pub actor: String,
    /// See [`super::delivery::key`].
    #[serde(default)]
    pub occasion: String,
    /// Which destinations it is for.
    #[serde(default)]
    pub concerns: Concerns,
    /// It is gone at the source; destinations that mirror are to forget it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_gone: bool,
    /// It was given up and is still to be moved to `delivery.deadLetter.moveTo`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_move: bool,
    /// The record so far.
    pub record: Record,
}

/// See [`Origin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum ParkedOrigin {
    /// A version of a file in File 360.
    Item {
        /// Id of the workspace.
        workspace: String,
        /// Id of the item.
        item: String,
        /// The version.
        version: u64,
    },
    /// An object of a store.
    Object {
        /// The store.
        store: String,
        /// Its key.
        key: String,
        /// Its entity tag.
        etag: String,
    },
}

impl From<&Origin> for ParkedOrigin {
    fn from(origin: &Origin) -> Self {
        match origin.clone() {
            Origin::Item { workspace, item, version } => Self::Item { workspace, item, version },
            Origin::Object { store, key, etag } => Self::Object { store, key, etag },
        }
    }
}

impl From<&ParkedOrigin> for Origin {
    fn from(origin: &ParkedOrigin) -> Self {
        match origin.clone() {
            ParkedOrigin::Item { workspace, item, version } => Self::Item { workspace, item, version },
            ParkedOrigin::Object { store, key, etag } => Self::Object { store, key, etag },
        }
    }
}

/// What a restart finds of an object of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRecord {
    /// Its key.
    pub key: String,
    /// The entity tag that the record is about.
    pub etag: String,
    /// The record.
    pub record: Record,
}

/// Names under which a route keeps its records. They outlive the route: one that is made again under the same name goes on.
#[derive(Clone, Debug)]
pub struct Names {
    /// Of the facet on file versions.
    pub facet: String,
    prefix: String,
}

impl Names {
    /// The names of a route.
    pub fn of(route: &RouteId) -> Self {
        let digest = Sha256::digest(format!("{}/{}/{}", route.cluster, route.namespace, route.name));
        let short = hex(&digest[..12]);
        Self { facet: format!("route-{short}"), prefix: format!("route/{short}/") }
    }

    /// Document with the checkpoint.
    pub fn checkpoint(&self) -> String {
        format!("{}checkpoint", self.prefix)
    }

    /// Beginning of the documents about work that waits.
    pub fn waiting(&self) -> String {
        format!("{}waiting/", self.prefix)
    }

    /// Beginning of the documents about work that was given up.
    pub fn dead(&self) -> String {
        format!("{}dead/", self.prefix)
    }

    /// Beginning of the documents about objects.
    pub fn objects(&self) -> String {
        format!("{}object/", self.prefix)
    }

    /// Document about one piece of work below `beginning`.
    pub fn document(beginning: &str, origin: &Origin, occasion: &str) -> String {
        let text = format!("{}\u{0}{}\u{0}{occasion}", origin.file(), origin.version());
        format!("{beginning}{}", hex(&Sha256::digest(text)[..16]))
    }

    /// Document about one object.
    pub fn object(&self, key: &str) -> String {
        format!("{}{}", self.objects(), hex(&Sha256::digest(key)[..16]))
    }
}

/// One thing to record. The token is let go once it is durable.
#[derive(Default)]
pub struct Submission {
    /// Facets to set.
    pub facets: Vec<FacetPut>,
    /// Documents to set or remove.
    pub documents: Vec<ClientStatePut>,
    /// Let go afterwards.
    pub token: Option<Token>,
    /// The record that is among them, for those who ask before it is durable.
    pub unwritten: Option<Unwritten>,
    /// Told afterwards.
    pub receipt: Option<Box<dyn Receipt>>,
}

/// A record that is being written. Dropping it forgets it.
pub struct Unwritten {
    key: (String, String),
    number: u64,
    records: Arc<Mutex<Records>>,
}

#[derive(Default)]
struct Records {
    number: u64,
    by_version: HashMap<(String, String), (u64, Record)>,
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        let mut records = self.records.lock();
        // A later one of the same version stays.
        if records.by_version.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            records.by_version.remove(&self.key);
        }
    }
}

/// Takes records.
#[derive(Clone)]
pub struct Ledger {
    sender: mpsc::Sender<Submission>,
    unwritten: Arc<Mutex<Records>>,
    closing: CancellationToken,
}

impl Ledger {
    /// A ledger, and the task that writes it. The task ends once everything is written after the ledger was closed or its last clone dropped;
    /// at the latest 2 s later.
    pub fn new(files: Arc<dyn Content>) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let closing = CancellationToken::new();
        let writer = write(files, receiver, closing.clone());
        (Self { sender, unwritten: Arc::default(), closing }, writer)
    }

    /// Takes nothing more; what was submitted is still written.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Notes a record that is about to be submitted.
    pub fn writes(&self, origin: &Origin, record: &Record) -> Unwritten {
        let key = (origin.file(), origin.version());
        let mut records = self.unwritten.lock();
        records.number += 1;
        let number = records.number;
        records.by_version.insert(key.clone(), (number, record.clone()));
        Unwritten { key, number, records: self.unwritten.clone() }
    }

    /// The record of a version that is submitted and not durable yet.
    pub fn unwritten(&self, origin: &Origin) -> Option<Record> {
        let key = (origin.file(), origin.version());
        self.unwritten.lock().by_version.get(&key).map(|(_, record)| record.clone())
    }

    /// Returns once everything that was submitted before is durable.
    pub async fn settled(&self) -> Result<()> {
        let (tell, told) = oneshot::channel();
        self.submit(Submission { receipt: Some(Box::new(Settled(tell))), ..Submission::default() }).await?;
        told.await.map_err(|_| Error::new(Kind::Stopping, "the route is stopping"))
    }

    /// Records something; waits while too much is waiting.
    pub async fn submit(&self, submission: Submission) -> Result<()> {
        self.sender.send(submission).await.map_err(|_| Error::new(Kind::Stopping, "the route is stopping"))
    }
}

struct Settled(oneshot::Sender<()>);

#[async_trait]
impl Receipt for Settled {
    async fn settle(self: Box<Self>) {
        // Whoever asked may wait no more.
        let _ = self.0.send(());
    }
}

async fn write(files: Arc<dyn Content>, mut receiver: mpsc::Receiver<Submission>, closing: CancellationToken) {
    let work = async {
        let mut batch = Vec::new();
        loop {
            let is_closing = receiver.is_closed();
            tokio::select! {
                count = receiver.recv_many(&mut batch, MOST) => if count == 0 { return },
                () = closing.cancelled(), if !is_closing => {
                    receiver.close();
                    continue;
                }
            }
            if batch.len() < MOST && !receiver.is_closed() {
                tokio::time::sleep(LINGER).await;
            }
            while batch.len() < MOST {
                match receiver.try_recv() {
                    Ok(more) => batch.push(more),
                    Err(_) => break,
                }
            }
            write_until_durable(&*files, &batch).await;
            for submission in &mut batch {
                if let Some(receipt) = submission.receipt.take() {
                    receipt.settle().await;
                }
            }
            // Letting go of the tokens is what moves the checkpoint.
            batch.clear();
        }
    };
    let last = async {
        closing.cancelled().await;
        tokio::time::sleep(LAST_TRIES).await;
    };
    tokio::select! { () = work => {}, () = last => warn!("Records of a route that stopped could not be written; its files are looked at again") }
}

/// Tries until it is durable: the tokens are held meanwhile, so nothing is lost by waiting.
async fn write_until_durable(files: &dyn Content, batch: &[Submission]) {
    let facets: Vec<FacetPut> = batch.iter().flat_map(|submission| submission.facets.iter().cloned()).collect();
    // Of several writes to one document the last one counts.
    let mut documents: BTreeMap<String, Option<Value>> = BTreeMap::new();
    for put in batch.iter().flat_map(|submission| &submission.documents) {
        documents.insert(put.key.clone(), put.value.clone());
    }
    let documents: Vec<ClientStatePut> = documents.into_iter().map(|(key, value)| ClientStatePut { key, value }).collect();
    // What says that a file waits is there before its facet, and goes after it: wherever a crash falls, a facet that says so is true.
    let (removals, puts): (Vec<_>, Vec<_>) = documents.into_iter().partition(|document| document.value.is_none());
    put_documents(files, &puts).await;
    let length = |facet: &FacetPut| facet.item_id.len() + facet.value.as_ref().map_or(4, |value| value.to_string().len());
    for part in parts(&facets, length) {
        put_facets(files, part).await;
    }
    put_documents(files, &removals).await;
}

async fn put_documents(files: &dyn Content, documents: &[ClientStatePut]) {
    let length =
        |document: &ClientStatePut| document.key.len() + document.value.as_ref().map_or(4, |value| value.to_string().len());
    for part in parts(documents, length) {
        repeat("client state", |key| async move { files.put_client_states(part, &key).await }).await;
    }
}

/// Parts of at most [`MOST`] and [`LARGEST`]; what is larger than that goes alone.
fn parts<T>(mut rest: &[T], length: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(MOST).take_while(|one| {
            bytes += length(one) + OVERHEAD;
            bytes <= LARGEST
        });
        let count = fits.count().max(1).min(rest.len());
        let (part, left) = rest.split_at(count);
        rest = left;
        (!part.is_empty()).then_some(part)
    })
}

/// All at once; if some file is gone meanwhile, each by itself.
async fn put_facets(files: &dyn Content, facets: &[FacetPut]) {
    let gone = repeat("facets", |key| async move {
        match files.put_facets(facets, &key).await {
            Err(error) if error.kind == Kind::NotFound => Ok(true),
            other => other.map(|()| false),
        }
    })
    .await;
    if gone && facets.len() > 1 {
        let (left, right) = facets.split_at(facets.len() / 2);
        Box::pin(put_facets(files, left)).await;
        Box::pin(put_facets(files, right)).await;
    }
}

async fn repeat<T, F: Future<Output = Result<T>>>(what: &str, call: impl Fn(IdempotencyKey) -> F) -> T {
    let key = IdempotencyKey(format!("{:032x}", rand::random::<u128>()));
    let mut failures = 0;
    loop {
        match call(key.clone()).await {
            Ok(value) => return value,
            Err(error) => {
                failures += 1;
                warn!(%error, what, failures, "Records of a route could not be written; trying again");
                let delay = error.retry_after.unwrap_or_else(|| backoff::delay(failures.min(4), rand::random()));
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Reads every document below `prefix` and hands it to `each`.
pub async fn read_documents(files: &dyn Content, prefix: &str, mut each: impl FnMut(&str, Value) + Send) -> Result<()> {
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let page = files.client_states(prefix, cursor.as_deref()).await?;
        for row in page.items {
            each(&row.key, row.value);
        }
        match page.next_cursor {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            Some(_) => return Err(Error::new(Kind::Malformed, "the listing of documents repeats its cursor")),
            None => return Ok(()),
        }
    }
    Err(Error::new(Kind::Malformed, "the listing of documents does not end"))
}

/// A stream of pages, each fetched when it is asked for, until the last; never endless.
pub fn pages<'a, T, F>(fetch: impl Fn(Option<String>) -> F + 'a + Send) -> impl futures::Stream<Item = Result<Vec<T>>> + 'a
where
    T: 'a + Send,
    F: Future<Output = Result<crate::file360::model::Page<T>>> + 'a + Send,
{
    futures::stream::try_unfold((Some(None::<String>), fetch, 0usize), |(state, fetch, count)| async move {
        let Some(cursor) = state else { return Ok(None) };
        if count > 1_000_000 {
            return Err(Error::new(Kind::Malformed, "a listing does not end"));
        }
        let page = fetch(cursor.clone()).await?;
        if page.next_cursor.is_some() && page.next_cursor == cursor {
            return Err(Error::new(Kind::Malformed, "a listing repeats its cursor"));
        }
        let next = page.next_cursor.map(Some);
        Ok(Some((page.items, (next, fetch, count + 1))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_never_larger_than_the_server_takes() {
        let sizes = |all: &[usize]| parts(all, |size| *size).map(<[usize]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), Vec::<usize>::new());
        assert_eq!(sizes(&[1; 1200]), [500, 500, 200]);
        assert_eq!(sizes(&[100_000; 12]), [5, 5, 2]);
        assert_eq!(sizes(&[1, 2_000_000, 1]), [1, 1, 1], "what is too large goes alone, and the others without it");
    }
}
