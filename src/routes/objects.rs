//! Objects of a store as a source.
//!
//! The store is listed every so often. What has no record under its key and entity tag is taken up; what was taken up is remembered by two short
//! digests for each object, read from the records when the route starts.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use regex::Regex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::warn;

use super::content::{Bandwidth, throttled, verified};
use super::delivery::{Content, File, Opened, Origin};
use super::engine::Engine;
use super::environment::{Facts, Surroundings, Uploader};
use super::ledger::{ObjectRecord, read_documents};
use super::route::duration;
use super::work::{Loaded, Look, Source, Whereabouts, Work};
use crate::api::file_route::{FileEvent, ObjectStoreSource};
use crate::error::{Error, Kind, Result};
use crate::expression::InvalidField;
use crate::outbound::object_store::{Entry, Store};
use crate::reconcile::backoff;

/// Largest sidecar, in bytes.
const MAX_SIDECAR: usize = 64 * 1024;
/// Metadata entries that an object may bring.
const MAX_METADATA: usize = 64;
/// An object's sidecar is looked for again this often.
const SIDECAR_AGAIN: Duration = Duration::from_secs(5);
const DEFAULT_EVERY: Duration = Duration::from_secs(30);
const DEFAULT_SETTLE: Duration = Duration::from_secs(30);
/// Largest compiled expression over keys, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// Objects of a store.
pub struct ObjectSource {
    store: Arc<dyn Store>,
    prefix: String,
    settle: Duration,
    /// How often the store is listed.
    pub every: Duration,
    tags: bool,
    sidecar: Option<String>,
    from_key: Option<Regex>,
    bandwidth: Vec<Arc<Bandwidth>>,
    /// Digest of the key → digest of the entity tag.
    taken: Mutex<HashMap<u128, u64>>,
}

impl ObjectSource {
    /// Compiles `from.objectStore`.
    pub fn new(
        spec: &ObjectStoreSource,
        store: Arc<dyn Store>,
        bandwidth: Vec<Arc<Bandwidth>>,
    ) -> Result<Self, InvalidField> {
        let metadata = spec.metadata.clone().unwrap_or_default();
        let from_key =
            metadata.from_key.as_deref().map(|text| regex::RegexBuilder::new(text).size_limit(MAX_PATTERN).build());
        let from_key = from_key.transpose().map_err(|error| {
            InvalidField::value("from.objectStore.metadata.fromKey", crate::error::clean(&error.to_string(), 300))
        })?;
        let sidecar = metadata.sidecar;
        if sidecar.as_deref().is_some_and(|text| !text.contains("{key}") && !text.contains("{stem}") || text == "{key}") {
            let why = "needs {key} or {stem} and something more, such as {key}.json";
            return Err(InvalidField::value("from.objectStore.metadata.sidecar", why));
        }
        if metadata.tags == Some(true) && store.kind() != "s3" {
            return Err(InvalidField::value("from.objectStore.metadata.tags", "goes with s3 only"));
        }
        let default_settle = if store.kind() == "s3" { Duration::ZERO } else { DEFAULT_SETTLE };
        Ok(Self {
            prefix: spec.prefix.clone().unwrap_or_default(),
            settle: spec.settle.as_deref().and_then(duration).unwrap_or(default_settle),
            every: spec.every.as_deref().and_then(duration).unwrap_or(DEFAULT_EVERY).max(Duration::from_millis(100)),
            tags: metadata.tags == Some(true),
            sidecar,
            from_key,
            bandwidth,
            store,
            taken: Mutex::default(),
        })
    }

    /// Key of the document with the metadata of an object.
    fn sidecar_of(&self, key: &str) -> Option<String> {
        let stem = match key.rsplit_once('.') {
            Some((stem, extension)) if !extension.contains('/') => stem,
            _ => key,
        };
        Some(self.sidecar.as_deref()?.replace("{key}", key).replace("{stem}", stem))
    }

    /// What tells the store from every other.
    pub fn place(&self) -> String {
        self.store.describe()
    }

    /// A new listing of the source.
    pub fn listing(&self) -> Listing<'_> {
        let (cursor, page, held, sidecars, present) = Default::default();
        Listing { source: self, cursor, is_done: false, page, held, sidecars, present }
    }

    /// The object as it is now, if it is there.
    pub async fn object(&self, key: &str) -> Result<Option<Entry>> {
        match self.store.head(key).await {
            Ok(object) => Ok(Some(object.entry)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The object has no record any more: it is taken up when a listing shows it again.
    pub fn forget(&self, key: &str) {
        self.taken.lock().remove(&key_digest(key));
    }

    /// Whether the object is complete: it has not changed for long enough.
    pub fn is_settled(&self, entry: &Entry, now: Timestamp) -> bool {
        let age = now.duration_since(entry.modified_at);
        self.settle.is_zero() || Duration::try_from(age).is_ok_and(|age| age >= self.settle)
    }

    async fn metadata(&self, key: &str, tags: BTreeMap<String, String>) -> Result<Option<BTreeMap<String, String>>> {
        let mut metadata = if self.tags { tags } else { BTreeMap::new() };
        if let Some(sidecar) = self.sidecar_of(key) {
            match self.read_sidecar(&sidecar).await {
                Ok(found) => metadata.extend(found),
                Err(error) if error.kind == Kind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        if let Some(found) = self.from_key.as_ref().and_then(|pattern| Some((pattern, pattern.captures(key)?))) {
            let (pattern, captures) = found;
            let named = pattern.capture_names().flatten().filter_map(|name| Some((name, captures.name(name)?)));
            metadata.extend(named.map(|(name, value)| (name.to_owned(), value.as_str().to_owned())));
        }
        metadata.retain(|name, value| !name.is_empty() && name.len() <= 63 && value.chars().count() <= 1024);
        while metadata.len() > MAX_METADATA {
            metadata.pop_last();
        }
        Ok(Some(metadata))
    }

    async fn read_sidecar(&self, key: &str) -> Result<BTreeMap<String, String>> {
        let object = self.store.head(key).await?;
        let mut opened = self.store.open(key, &object.entry.etag).await?;
        let wrong = |why: &str| Error::new(Kind::Rejected, format!("the sidecar {} {why}", crate::error::clean(key, 200)));
        let mut text: Vec<u8> = Vec::new();
        while let Some(chunk) = opened.content.next().await {
            let chunk: Bytes = chunk?;
            if text.len() + chunk.len() > MAX_SIDECAR {
                return Err(wrong("has more than 64 KiB"));
            }
            text.extend_from_slice(&chunk);
        }
        let document: Value = serde_json::from_slice(&text).map_err(|_| wrong("is no JSON"))?;
        let members = document.as_object().ok_or_else(|| wrong("is no JSON object"))?;
        Ok(members.iter().filter_map(|(name, value)| Some((name.clone(), scalar(value)?))).collect())
    }
}

/// Objects of the source, without sidecars, as the store lists them.
pub struct Listing<'a> {
    source: &'a ObjectSource,
    /// Where the next page begins.
    cursor: Option<String>,
    is_done: bool,
    page: VecDeque<Entry>,
    /// Which objects are sidecars is known once everything is listed.
    held: Vec<Entry>,
    sidecars: HashSet<String>,
    /// Everything that was held.
    present: HashSet<u128>,
}

impl Listing<'_> {
    /// Whether the document with the object's metadata is there, if it needs one.
    pub fn is_complete(&self, key: &str) -> bool {
        self.source.sidecar_of(key).is_none_or(|sidecar| self.present.contains(&key_digest(&sidecar)))
    }

    /// The next object; `None` after the last. A listing that fails did not end.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                return Ok(Some(entry));
            }
            if self.is_done {
                return Ok(None);
            }
            let page = self.source.store.list(&self.source.prefix, self.cursor.as_deref()).await?;
            if page.next.is_some() && page.next == self.cursor {
                return Err(Error::new(Kind::Malformed, "the store's listing repeats its cursor"));
            }
            for entry in page.entries {
                match self.source.sidecar_of(&entry.key) {
                    Some(sidecar) => {
                        self.sidecars.insert(sidecar);
                        self.held.push(entry);
                    }
                    None => self.page.push_back(entry),
                }
            }
            self.cursor = page.next;
            self.is_done = self.cursor.is_none();
            if self.is_done {
                self.present = self.held.iter().map(|entry| key_digest(&entry.key)).collect();
                let held = std::mem::take(&mut self.held);
                self.page.extend(held.into_iter().filter(|entry| !self.sidecars.contains(&entry.key)));
            }
        }
    }
}

/// Texts, numbers and booleans; anything else is no metadata.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

struct ObjectContent {
    store: Arc<dyn Store>,
    key: String,
    etag: String,
    size: u64,
    bandwidth: Vec<Arc<Bandwidth>>,
}

#[async_trait]
impl Content for ObjectContent {
    async fn open(&self) -> Result<Opened> {
        let opened = self.store.open(&self.key, &self.etag).await?;
        if opened.size != self.size {
            return Err(Error::new(Kind::Stale, "the object is another by now"));
        }
        Ok(Opened {
            size: opened.size,
            content: verified(throttled(opened.content, self.bandwidth.clone()), self.size, None),
        })
    }
}

#[async_trait]
impl Source for ObjectSource {
    fn whereabouts(&self, _: &Origin) -> Whereabouts {
        Whereabouts { is_read: true, ..Whereabouts::default() }
    }

    async fn look(&self, work: &Work) -> Result<Look> {
        let Origin::Object { key, etag, .. } = &work.origin else { return Ok(Look::NotOurs) };
        let object = match self.store.head(key).await {
            Ok(object) => object,
            Err(error) if error.kind == Kind::NotFound => return Ok(Look::NotOurs),
            Err(error) => return Err(error),
        };
        if object.entry.etag != *etag {
            // The next listing shows it under its new entity tag.
            return Ok(Look::Superseded);
        }
        let Some(metadata) = self.metadata(key, object.metadata).await? else {
            return Ok(Look::Later(Instant::now() + SIDECAR_AGAIN));
        };
        let place = self.store.describe();
        let file = File {
            origin: work.origin.clone(),
            name: key.rsplit('/').next().unwrap_or(key).to_owned(),
            path: key.clone(),
            size: object.entry.size,
            sha256: None,
            mime_type: object.mime_type.unwrap_or_else(|| "application/octet-stream".into()),
            created_at: object.entry.modified_at,
            modified_at: object.entry.modified_at,
            created_by: None,
            classification: None,
            metadata,
            workspace_name: place.clone(),
        };
        let content = ObjectContent {
            store: self.store.clone(),
            key: key.clone(),
            etag: etag.clone(),
            size: object.entry.size,
            bandwidth: self.bandwidth.clone(),
        };
        let facts = Facts {
            file: Arc::new(file),
            uploader: Uploader { kind: "System".into(), email_verified: true, ..Uploader::default() },
            upload_request: None,
            folder: Arc::default(),
            workspace: Arc::new(Surroundings { name: place, ..Surroundings::default() }),
            event: work.event,
            actor: String::new(),
            requirement: None,
        };
        Ok(Look::Here(Box::new(Loaded { facts, content: Arc::new(content), is_current: true })))
    }

    /// An object's metadata is the other side's business; destinations see what rules set.
    async fn label(&self, _: &Origin, _: &BTreeMap<String, String>) -> Result<()> {
        Ok(())
    }

    async fn move_to(&self, _: &Origin, _: &str) -> Result<()> {
        Ok(())
    }
}

/// Lists the store for one engine.
pub struct Lister {
    /// The engine that gets the work.
    pub engine: Arc<Engine>,
    /// The store.
    pub source: Arc<ObjectSource>,
}

impl Lister {
    /// Reads until the task is dropped.
    pub async fn run(&self) {
        self.remember().await;
        let mut failures = 0;
        loop {
            match self.list().await {
                Ok(()) => {
                    failures = 0;
                    self.engine.say_trouble(None);
                    self.engine.say_caught_up(true);
                    // The records say what was taken up; the checkpoint has the totals.
                    drop(self.engine.window.open(String::new()));
                    tokio::time::sleep(backoff::jittered(self.source.every)).await;
                }
                Err(error) if error.kind == Kind::Stopping => return,
                Err(error) => {
                    failures = (failures + 1).min(8);
                    self.engine.say_trouble(Some(&error));
                    warn!(route = %self.engine.route.id.name, %error, "The store cannot be listed; trying again");
                    let wait = error.retry_after.unwrap_or_else(|| backoff::delay(failures, rand::random()));
                    tokio::time::sleep(wait.min(self.source.every.max(Duration::from_secs(1)))).await;
                }
            }
        }
    }

    /// Reads which objects have a record; tried until File 360 answers.
    async fn remember(&self) {
        let mut failures = 0;
        loop {
            let mut taken = HashMap::new();
            let read = read_documents(&*self.engine.files, &self.engine.names.objects(), |_, value| {
                if let Ok(record) = serde_json::from_value::<ObjectRecord>(value) {
                    taken.insert(key_digest(&record.key), etag_digest(&record.etag));
                }
            })
            .await;
            match read {
                Ok(()) => {
                    *self.source.taken.lock() = taken;
                    return;
                }
                Err(error) => {
                    failures += 1;
                    self.engine.say_trouble(Some(&error));
                    tokio::time::sleep(backoff::delay(failures, rand::random())).await;
                }
            }
        }
    }

    async fn list(&self) -> Result<()> {
        let now = Timestamp::now();
        let mut listing = self.source.listing();
        while let Some(entry) = listing.next().await? {
            // One that waits for its metadata takes nobody's place (R5).
            if listing.is_complete(&entry.key) {
                self.consider(entry, now).await?;
            }
        }
        Ok(())
    }

    async fn consider(&self, entry: Entry, now: Timestamp) -> Result<()> {
        let (key, etag) = (key_digest(&entry.key), etag_digest(&entry.etag));
        if self.source.taken.lock().get(&key) == Some(&etag) || !self.source.is_settled(&entry, now) {
            return Ok(());
        }
        let event = if self.source.taken.lock().contains_key(&key) { FileEvent::VersionAdded } else { FileEvent::Uploaded };
        let origin = Origin::Object { store: self.source.store.describe(), key: entry.key.clone(), etag: entry.etag };
        let work = Work::new(origin, entry.key, event, entry.modified_at, String::new());
        self.engine.take_up(work).await?;
        self.source.taken.lock().insert(key, etag);
        Ok(())
    }
}

/// Short for a key.
pub fn key_digest(key: &str) -> u128 {
    let digest = Sha256::digest(key);
    digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Short for an entity tag.
pub fn etag_digest(etag: &str) -> u64 {
    let digest = Sha256::digest(etag);
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
