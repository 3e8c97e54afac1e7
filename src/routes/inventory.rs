//! Counts both ends of a route (R4, R7): every file of the source, what is recorded of it, and what is there at the destinations.
//!
//! Events make a route fast; this makes it right. What nobody knew of is taken up, search indexes are brought up to date, and copies that are
//! gone are told. A listing that fails changes nothing (C5), and nothing is said about a file before it was looked at by itself.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::delivery::{MAX_LISTING, Origin, key};
use super::engine::Engine;
use super::items::ItemSource;
use super::ledger::{ObjectRecord, Record, State, Submission, read_documents};
use super::objects::{ObjectSource, etag_digest, key_digest};
use super::reader::scanned;
use super::recorded::Recorded;
use super::route::Target;
use super::work::{Concerns, Work};
use crate::api::file_route::{
    FileEvent, Finding, Inventory as Spec, InventoryDestination, InventoryFinding, InventoryState, InventoryStatus,
};
use crate::error::{Kind, Result, clean};
use crate::file360::model::ClientStatePut;
use crate::outbound::object_store::Entry;
use crate::reconcile::backoff;

/// How often, when the spec does not say, and at most.
const DEFAULT_EVERY: Duration = Duration::from_hours(24);
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_hours(8760);
/// Doubtful files that are looked at one by one; there are more only if something is very wrong, and the next inventory sees those.
const MOST_DOUBTS: usize = 10_000;
/// Findings that the status shows.
const SHOWN: usize = 20;
/// What was acknowledged so shortly before the listing began may be missing in it.
const MARGIN: Duration = Duration::from_secs(5);
/// Records that are being written have time to arrive before doubtful files are looked at.
const SETTLE: Duration = Duration::from_secs(2);
/// Words of a request besides its token.
const REDELIVER: &str = "redeliver";

/// Requests to count now.
#[derive(Default)]
pub struct Requests {
    asked: Mutex<Option<Request>>,
    changed: Notify,
}

/// A request to count now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Comes back in the status. Empty: nobody waits for it.
    pub token: String,
    /// Copies that are gone are delivered again.
    pub redelivers: bool,
}

impl Request {
    /// From an annotation's value: any token, and perhaps `redeliver` after it.
    pub fn parse(value: &str) -> Self {
        let redelivers = value.split_whitespace().skip(1).any(|word| word == REDELIVER);
        Self { token: clean(value, 253), redelivers }
    }
}

impl Requests {
    /// Asks for an inventory as soon as the route has caught up.
    pub fn ask(&self, request: Request) {
        let mut asked = self.asked.lock();
        // Nobody waits for one without a token: it must not take the place of one with.
        if !request.token.is_empty() || asked.is_none() {
            *asked = Some(request);
        }
        drop(asked);
        self.changed.notify_one();
    }

    fn take(&self) -> Option<Request> {
        self.asked.lock().take()
    }
}

/// When inventories were taken.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Known {
    /// Since when the first one is waited for.
    pub since: Option<Timestamp>,
    /// The last one.
    pub last: Option<InventoryStatus>,
}

/// What is counted at the source.
pub enum Stock {
    /// Files in workspaces.
    Items(Arc<ItemSource>),
    /// Objects of a store.
    Objects(Arc<ObjectSource>),
}

/// Counts for one engine.
pub struct Inventory {
    engine: Arc<Engine>,
    stock: Stock,
    every: Duration,
    ignored: BTreeSet<String>,
}

impl Inventory {
    /// As the spec says.
    pub fn new(spec: Option<&Spec>, engine: Arc<Engine>, stock: Stock) -> Self {
        let every = spec.and_then(|spec| super::route::duration(spec.every.as_deref()?)).unwrap_or(DEFAULT_EVERY);
        let ignored = spec.and_then(|spec| spec.ignore_missing.clone()).unwrap_or_default();
        let every = backoff::jittered(every.clamp(SHORTEST, LONGEST));
        Self { engine, stock, every, ignored: ignored.into_iter().collect() }
    }

    /// Counts whenever it is time, until the task is dropped.
    pub async fn run(&self) {
        let mut failures = 0;
        loop {
            let request = self.due().await;
            match self.take(&request).await {
                Ok(found) => {
                    failures = 0;
                    self.engine.inventory_ended("counted");
                    info!(route = %self.engine.route.id.name, namespace = %self.engine.route.id.namespace, files = found.files,
                        unaccounted = found.unaccounted, "An inventory ended");
                    self.engine.note_inventory(|known| known.last = Some(found));
                }
                Err(error) if error.kind == Kind::Stopping => return,
                Err(error) => {
                    failures += 1;
                    self.engine.inventory_ended("failed");
                    warn!(route = %self.engine.route.id.name, %error, "The inventory could not be taken; trying again");
                    let text = clean(&error.to_string(), 300);
                    self.engine.note_inventory(|known| known.last.get_or_insert_default().last_error = Some(text.clone()));
                    tokio::time::sleep(error.retry_after.unwrap_or_else(|| backoff::delay(failures, rand::random()))).await;
                    // Unless somebody asked for another one meanwhile.
                    self.engine.inventories.asked.lock().get_or_insert(request);
                }
            }
        }
    }

    async fn due(&self) -> Request {
        loop {
            if let Some(request) = self.engine.inventories.take() {
                self.ready().await;
                return request;
            }
            let wait = self.wait();
            if wait.is_zero() {
                self.ready().await;
                return Request::default();
            }
            tokio::select! {
                () = self.engine.inventories.changed.notified() => {}
                () = tokio::time::sleep(wait.min(Duration::from_hours(1))) => {}
            }
        }
    }

    /// How long until the next one.
    fn wait(&self) -> Duration {
        let now = Timestamp::now();
        let known = self.engine.known_inventory();
        let last = known.last.and_then(|last| last.last_at).or(known.since);
        let Some(last) = last else {
            self.engine.note_inventory(|known| known.since = Some(now));
            return self.every;
        };
        let since = Duration::try_from(now.duration_since(last)).unwrap_or_default();
        self.every.saturating_sub(since)
    }

    /// Waits until what was there before is taken up, and the route keeps up with what comes.
    async fn ready(&self) {
        while !self.engine.keeps_up() {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn take(&self, request: &Request) -> Result<InventoryStatus> {
        let started = Timestamp::now();
        let mut count = Count::new(started, request);
        count.places = self.places().await?;
        match &self.stock {
            Stock::Items(source) => {
                self.count_items(source, &mut count).await?;
                tokio::time::sleep(SETTLE).await;
                self.doubtful_items(source, &mut count).await?;
                self.surplus_items(source, &mut count).await?;
            }
            Stock::Objects(source) => {
                self.count_objects(source, &mut count).await?;
                tokio::time::sleep(SETTLE).await;
                self.doubtful_objects(source, &mut count).await?;
                self.surplus_objects(source, &mut count).await?;
            }
        }
        self.missing(&mut count).await?;
        Ok(count.into_status())
    }

    /// Lists every destination once. One that does not answer counts by its acknowledgements.
    async fn places(&self) -> Result<Vec<Place>> {
        let mut places: Vec<Place> = Vec::new();
        for (slot, target) in self.engine.route.slots() {
            let same = |known: &&mut Place| {
                let name = target.destination.place();
                name.is_some() && known.target.destination.place() == name
            };
            if let Some(known) = places.iter_mut().find(same) {
                known.slots.push(slot);
                continue;
            }
            let (state, names) = match target.destination.listing(&self.engine.route.id).await {
                Ok(Some(names)) if names.len() <= MAX_LISTING => (InventoryState::Compared, Listed::new(names)),
                Ok(_) => (InventoryState::Acknowledged, Listed::default()),
                Err(error) if error.kind == Kind::Stopping => return Err(error),
                Err(error) => {
                    warn!(route = %self.engine.route.id.name, destination = slot, %error, "A destination could not be listed");
                    (InventoryState::Unreachable, Listed::default())
                }
            };
            places.push(Place { slots: vec![slot], target: target.clone(), state, names, missing: 0, surplus: 0 });
        }
        Ok(places)
    }

    async fn count_items(&self, source: &ItemSource, count: &mut Count) -> Result<()> {
        for workspace in source.scope.ids() {
            match self.count_workspace(source, &workspace, count).await {
                // It is gone, or has no such folder: what it had is looked at one by one.
                Err(error) if error.kind == Kind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn count_workspace(&self, source: &ItemSource, workspace: &str, count: &mut Count) -> Result<()> {
        let root = source.pattern.root();
        let mut files = Recorded::of(&*source.tenant, workspace, &root, &self.engine.names.facet);
        while let Some(item) = files.next().await? {
            if !source.is_ours(&item) {
                continue;
            }
            let work = scanned(&item);
            match files.record(&item).await? {
                None if self.engine.route.takes_up(&item, files.has_older()) => {
                    // Bringing it up to date now would leave a record, as if it had been routed.
                    count.doubt(work.origin, item.path);
                    continue;
                }
                None => {}
                Some(record) => self.count_record(&work.origin, &item.path, &record, count),
            }
            self.refresh(work, count).await?;
        }
        Ok(())
    }

    /// Destinations that mirror get what the source says now.
    async fn refresh(&self, mut work: Work, count: &Count) -> Result<()> {
        if !self.engine.route.mirrors() {
            return Ok(());
        }
        work.event = FileEvent::MetadataChanged;
        work.occasion = count.occasion();
        work.concerns = Concerns::Mirrors;
        self.engine.take_up(work).await
    }

    fn count_record(&self, origin: &Origin, path: &str, record: &Record, count: &mut Count) {
        let unwritten = self.engine.unwritten(origin);
        let record = unwritten.as_ref().unwrap_or(record);
        count.known(record.state);
        let file = origin.file();
        let recent = count.started - MARGIN;
        for (slot, entry) in &record.to {
            let Some((at, reference)) = entry.at.zip(entry.reference.as_deref()) else { continue };
            let mut places = count.places.iter_mut().enumerate();
            let place = places.find(|(_, place)| place.slots.contains(slot));
            let Some((number, place)) = place.filter(|(_, place)| place.state == InventoryState::Compared) else { continue };
            let name = place.target.destination.listed_as(&file, reference).to_owned();
            if place.names.saw(&name) || at > recent || self.is_ignored(slot) {
                continue;
            }
            if count.missing.len() < MOST_DOUBTS {
                let (origin, path, slot) = (origin.clone(), path.to_owned(), slot.clone());
                count.missing.push(Missing { origin, path, slot, place: number, name, record: record.clone() });
            }
        }
    }

    fn is_ignored(&self, slot: &str) -> bool {
        slot.split_once('/').is_some_and(|(_, name)| self.ignored.contains(name))
    }

    /// Files without a record: most were being worked on.
    async fn doubtful_items(&self, source: &ItemSource, count: &mut Count) -> Result<()> {
        for (origin, path) in std::mem::take(&mut count.doubts) {
            let Origin::Item { item, .. } = &origin else { continue };
            let Some(found) = source.tenant.item(item).await?.filter(|item| source.is_ours(item)) else { continue };
            let work = scanned(&found);
            match self.known(&work.origin).await? {
                Some(state) => {
                    count.known(state);
                    self.refresh(work, count).await?;
                }
                None => {
                    count.not_routed(&path);
                    self.take_up(work).await?;
                }
            }
        }
        Ok(())
    }

    /// What is recorded of a version, or open in this moment.
    async fn known(&self, origin: &Origin) -> Result<Option<State>> {
        if self.engine.queue.contains(&origin.file()) {
            return Ok(Some(State::Waiting));
        }
        Ok(self.engine.recorded(origin).await?.map(|record| record.state))
    }

    async fn take_up(&self, mut work: Work) -> Result<()> {
        work.may_be_recorded = true;
        self.engine.take_up(work).await
    }

    /// Entries of indexes for files that were not seen.
    async fn surplus_items(&self, source: &ItemSource, count: &mut Count) -> Result<()> {
        for (number, name) in count.unseen() {
            let found = source.tenant.item(&name).await?;
            if found.as_ref().is_some_and(|item| source.is_ours(item)) {
                continue;
            }
            count.surplus(number, found.as_ref().map_or(&name, |item| &item.path));
            let origin = Origin::Item { workspace: String::new(), item: name, version: 0 };
            self.withdraw(origin, count).await?;
        }
        Ok(())
    }

    async fn surplus_objects(&self, source: &ObjectSource, count: &mut Count) -> Result<()> {
        let place = source.place();
        for (number, name) in count.unseen() {
            let Some(key) = name.strip_prefix(&place).and_then(|rest| rest.strip_prefix('/')) else { continue };
            if source.object(key).await?.is_some() {
                continue;
            }
            count.surplus(number, key);
            let origin = Origin::Object { store: place.clone(), key: key.to_owned(), etag: String::new() };
            self.withdraw(origin, count).await?;
        }
        Ok(())
    }

    async fn withdraw(&self, origin: Origin, count: &Count) -> Result<()> {
        let mut work = Work::new(origin, String::new(), FileEvent::MetadataChanged, count.started, String::new());
        work.is_gone = true;
        work.occasion = count.occasion();
        self.engine.take_up(work).await
    }

    /// Copies that the listings lack.
    async fn missing(&self, count: &mut Count) -> Result<()> {
        let mut again: Vec<Missing> = Vec::new();
        for missing in std::mem::take(&mut count.missing) {
            let mirrors = count.places[missing.place].target.destination.mirrors();
            if !count.places[missing.place].target.destination.is_gone(&missing.name).await? {
                continue;
            }
            count.gone(&missing);
            if count.request.redelivers && !mirrors {
                again.push(missing);
            }
        }
        for missing in again {
            let mut record = missing.record;
            if record.state == State::Waiting {
                // What waits is delivered by its own tries; the next inventory looks again.
                continue;
            }
            record.to.remove(&missing.slot);
            for (slot, entry) in &mut record.to {
                // What the others have stays as it is, whatever event brought it there.
                if let Some((rule, name)) = slot.split_once('/') {
                    entry.key = key(&self.engine.route.id, &missing.origin, rule, name, "");
                }
            }
            let mut work = Work::new(missing.origin, missing.path, FileEvent::Uploaded, record.at, String::new());
            work.to = record.to;
            self.engine.take_up(work).await?;
        }
        Ok(())
    }

    /// First the records, then the store: an object without a record is doubtful, a record without an object is forgotten.
    async fn count_objects(&self, source: &ObjectSource, count: &mut Count) -> Result<()> {
        let place = source.place();
        let mut known: HashMap<u128, (u64, bool)> = HashMap::new();
        let mut records = Vec::new();
        read_documents(&*self.engine.files, &self.engine.names.objects(), |_, value| {
            if let Ok(found) = serde_json::from_value::<ObjectRecord>(value) {
                known.insert(key_digest(&found.key), (etag_digest(&found.etag), false));
                records.push(found);
            }
        })
        .await?;
        let mut listed = 0u64;
        let mut refresh: Vec<Entry> = Vec::new();
        let mut listing = source.listing();
        while let Some(entry) = listing.next().await? {
            listed += 1;
            match known.get_mut(&key_digest(&entry.key)) {
                Some((etag, seen)) if *etag == etag_digest(&entry.etag) => {
                    *seen = true;
                    if self.engine.route.mirrors() && refresh.len() < MAX_LISTING {
                        refresh.push(entry);
                    }
                }
                other => {
                    // Another version of it: the record is not without an object.
                    other.into_iter().for_each(|(_, seen)| *seen = true);
                    if source.is_settled(&entry, count.started) {
                        let (key, etag) = (entry.key.clone(), entry.etag.clone());
                        count.doubt(Origin::Object { store: place.clone(), key, etag }, entry.key.clone());
                    }
                }
            }
        }
        for found in records {
            let is_there = known.get(&key_digest(&found.key)).is_some_and(|(_, seen)| *seen);
            if is_there {
                let origin = Origin::Object { store: place.clone(), key: found.key.clone(), etag: found.etag };
                self.count_record(&origin, &found.key, &found.record, count);
            } else if listed > 0 && count.forgotten.len() < MOST_DOUBTS {
                count.forgotten.push(found.key);
            }
        }
        for entry in refresh {
            let origin = Origin::Object { store: place.clone(), key: entry.key.clone(), etag: entry.etag };
            let work = Work::new(origin, entry.key, FileEvent::MetadataChanged, entry.modified_at, String::new());
            self.refresh(work, count).await?;
        }
        Ok(())
    }

    async fn doubtful_objects(&self, source: &ObjectSource, count: &mut Count) -> Result<()> {
        for (origin, path) in std::mem::take(&mut count.doubts) {
            let Origin::Object { key, etag, .. } = &origin else { continue };
            if source.object(key).await?.is_none_or(|entry| entry.etag != *etag) {
                continue;
            }
            match self.known(&origin).await? {
                Some(state) => count.known(state),
                None => {
                    count.not_routed(&path);
                    // The next listing takes it up.
                    source.forget(key);
                }
            }
        }
        for key in std::mem::take(&mut count.forgotten) {
            if source.object(&key).await?.is_none() {
                let documents = vec![ClientStatePut { key: self.engine.names.object(&key), value: None }];
                self.engine.submit(Submission { documents, ..Submission::default() }).await?;
                source.forget(&key);
            }
        }
        Ok(())
    }
}

/// What is at a destination.
struct Place {
    slots: Vec<String>,
    target: Arc<Target>,
    state: InventoryState,
    names: Listed,
    missing: u64,
    surplus: u64,
}

/// The names of a listing, and which of them were seen.
#[derive(Default)]
struct Listed {
    names: Vec<Box<str>>,
    seen: Vec<bool>,
}

impl Listed {
    fn new(names: Vec<String>) -> Self {
        let mut names: Vec<Box<str>> = names.into_iter().map(String::into_boxed_str).collect();
        names.sort_unstable();
        names.dedup();
        Self { seen: vec![false; names.len()], names }
    }

    /// Whether the name is there.
    fn saw(&mut self, name: &str) -> bool {
        let found = self.names.binary_search_by(|known| (**known).cmp(name));
        if let Some(seen) = found.ok().and_then(|at| self.seen.get_mut(at)) {
            *seen = true;
        }
        found.is_ok()
    }

    fn unseen(&self) -> impl Iterator<Item = &str> {
        self.names.iter().zip(&self.seen).filter(|(_, seen)| !**seen).map(|(name, _)| &**name)
    }
}

/// A copy that a listing lacks.
struct Missing {
    origin: Origin,
    path: String,
    slot: String,
    place: usize,
    name: String,
    record: Record,
}

struct Count {
    started: Timestamp,
    request: Request,
    found: InventoryStatus,
    places: Vec<Place>,
    doubts: Vec<(Origin, String)>,
    missing: Vec<Missing>,
    forgotten: Vec<String>,
}

impl Count {
    fn new(started: Timestamp, request: &Request) -> Self {
        let requested = Some(request.token.clone()).filter(|token| !token.is_empty());
        let found = InventoryStatus { last_at: Some(started), requested, ..InventoryStatus::default() };
        let (places, doubts, missing, forgotten) = Default::default();
        Self { started, request: request.clone(), found, places, doubts, missing, forgotten }
    }

    /// Tells deliveries of one inventory from those of another.
    fn occasion(&self) -> String {
        format!("inventory {}", self.started)
    }

    fn doubt(&mut self, origin: Origin, path: String) {
        if self.doubts.len() < MOST_DOUBTS {
            self.doubts.push((origin, path));
        }
    }

    fn known(&mut self, state: State) {
        self.found.files += 1;
        match state {
            State::Delivered => self.found.delivered += 1,
            State::Unmatched => self.found.unmatched += 1,
            State::Waiting => self.found.waiting += 1,
            State::Dead => self.found.dead_lettered += 1,
        }
    }

    fn not_routed(&mut self, path: &str) {
        self.found.files += 1;
        self.found.unaccounted += 1;
        self.say(path, Finding::NotRouted, "");
    }

    fn gone(&mut self, missing: &Missing) {
        self.found.unaccounted += 1;
        self.places[missing.place].missing += 1;
        self.say(&missing.path, Finding::Missing, &missing.slot);
    }

    fn surplus(&mut self, place: usize, file: &str) {
        self.places[place].surplus += 1;
        let slot = self.places[place].slots.first().cloned().unwrap_or_default();
        self.say(file, Finding::Surplus, &slot);
    }

    fn say(&mut self, file: &str, found: Finding, destination: &str) {
        if self.found.findings.len() < SHOWN {
            let (file, destination) = (clean(file, 1024), destination.to_owned());
            self.found.findings.push(InventoryFinding { file, found, destination });
        }
    }

    /// Names of mirroring destinations that no record stands for.
    fn unseen(&self) -> Vec<(usize, String)> {
        let mirrors = self.places.iter().enumerate().filter(|(_, place)| place.target.destination.mirrors());
        let unseen = mirrors.flat_map(|(number, place)| place.names.unseen().map(move |name| (number, name.to_owned())));
        unseen.take(MOST_DOUBTS).collect()
    }

    fn into_status(self) -> InventoryStatus {
        let destinations = self.places.into_iter().take(64).map(|place| InventoryDestination {
            name: place.slots.into_iter().next().unwrap_or_default(),
            state: place.state,
            missing: place.missing,
            surplus: place.surplus,
        });
        InventoryStatus { destinations: destinations.collect(), ..self.found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_ask_for_missing_copies() {
        assert_eq!(Request::parse("t1"), Request { token: "t1".into(), redelivers: false });
        assert_eq!(Request::parse("t2 redeliver"), Request { token: "t2 redeliver".into(), redelivers: true });
        assert!(!Request::parse("redeliver").redelivers, "the token alone asks for nothing more");
    }

    #[test]
    fn what_a_listing_has_is_seen_once_it_is_asked_for() {
        let mut listed = Listed::new(vec!["b".into(), "a".into(), "c".into(), "a".into()]);
        assert!(listed.saw("a") && listed.saw("c") && !listed.saw("d"));
        assert_eq!(listed.unseen().collect::<Vec<_>>(), ["b"]);
    }
}
