//! The engine of one route: reader → queue → workers → destinations → ledger → checkpoint.
//!
//! Nothing here is kept but in File 360: the checkpoint and what waits are read when the engine starts. Memory is bounded: [`OPEN`] pieces of
//! work may be open, [`PARKED`] may wait; when both are used up, reading stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::attempts::{Attempted, Attempts};
use super::dead_letters::{Moves, dead_letter};
use super::delivery::Origin;
use super::inventory::{Known, Request, Requests};
use super::ledger::{Ledger, Names, ObjectRecord, Parked, Record, Submission, read_documents};
use super::queue::{FileQueue, Lane};
use super::route::{Route, Target};
use super::rules::UNMATCHED;
use super::window::{Position, Window};
use super::work::{Concerns, Finished, Outcome, Source, Work, hold};
use crate::api::file_route::{DeadLetterStatus, FileEvent, InventoryStatus, RouteCounts};
use crate::error::{Error, Kind, Result, clean};
use crate::file360::content::Content;
use crate::file360::model::{ClientStatePut, FacetPut};
use crate::reconcile::backoff;
use crate::telemetry::metrics::Metrics;

/// Pieces of work that may be open at once.
const OPEN: usize = 2_000;
/// Pieces of work that may wait for another try besides.
const PARKED: usize = 20_000;
/// Dead letters that the status shows.
pub const DEAD_SHOWN: usize = 20;
/// The checkpoint is written at most this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// A checkpoint that moved only past what does not concern the route is written this often.
const IDLE_CHECKPOINT: Duration = Duration::from_mins(10);

/// Hears that the status of a route may have changed.
pub trait Observer: Send + Sync {
    /// Something changed; `important`: more than numbers.
    fn changed(&self, important: bool);
}

/// What an engine is made from.
pub struct Parts {
    /// The route.
    pub route: Route,
    /// Where its files come from.
    pub source: Arc<dyn Source>,
    /// Where its records are.
    pub files: Arc<dyn Content>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Hears about changes.
    pub observer: Arc<dyn Observer>,
    /// Does the work on files.
    pub attempts: Arc<dyn Attempts>,
}

/// A running route.
pub struct Engine {
    /// The route.
    pub route: Route,
    /// Where its files come from.
    pub source: Arc<dyn Source>,
    /// Where its records are.
    pub files: Arc<dyn Content>,
    /// Under which names.
    pub names: Names,
    /// Work that is open.
    pub queue: FileQueue<Work>,
    /// What of the source is done.
    pub window: Window,
    pub(super) ledger: Ledger,
    pub(super) state: Mutex<Counted>,
    pub(super) room: Arc<Semaphore>,
    parked_room: Arc<Semaphore>,
    /// Something was taken up since the checkpoint was written.
    pub(super) dirty: AtomicBool,
    /// The checkpoint is to be written now.
    pub(super) flush: Notify,
    /// Requests to count both ends.
    pub inventories: Requests,
    restored: AtomicBool,
    metrics: Arc<Metrics>,
    pub(super) observer: Arc<dyn Observer>,
    attempts: Arc<dyn Attempts>,
    /// What was given up and is to be moved.
    pub(super) moves: Moves,
}

/// What is counted and shown.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) counts: RouteCounts,
    pub(super) rules: BTreeMap<String, u64>,
    pub(super) checkpoint: Option<Checkpoint>,
    etag: Option<String>,
    pub(super) dead: BTreeMap<String, DeadLetterStatus>,
    pub(super) waiting: usize,
    pub(super) trouble: Option<String>,
    pub(super) is_caught_up: bool,
}

/// Where the source is read on after a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Checkpoint {
    /// Cursor of the change feed; empty for sources that are listed.
    pub cursor: String,
    /// The feed that the cursor belongs to.
    pub feed_epoch: String,
    /// Fingerprint of the scope that was scanned.
    pub scope: String,
    /// Totals.
    pub counts: RouteCounts,
    /// Files by rule.
    pub rules: BTreeMap<String, u64>,
    /// The last request to try dead letters again.
    pub replayed: Option<String>,
    /// When both ends were counted.
    pub inventory: Known,
}

/// What a route's status is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Totals.
    pub counts: RouteCounts,
    /// Files by rule.
    pub rules: BTreeMap<String, u64>,
    /// Where the source is read on after a restart.
    pub checkpoint: Option<String>,
    /// Given up, the latest first; at most [`DEAD_SHOWN`].
    pub dead_letters: Vec<DeadLetterStatus>,
    /// How many were given up.
    pub dead: usize,
    /// How many wait for another try.
    pub waiting: usize,
    /// How many are open.
    pub open: usize,
    /// Destinations that do not answer, with the reason.
    pub away: Vec<(String, String)>,
    /// Why the source cannot be read.
    pub trouble: Option<String>,
    /// Why no work can be done.
    pub stuck: Option<String>,
    /// Everything that was there has been taken up.
    pub is_caught_up: bool,
    /// What the last inventory found.
    pub inventory: Option<InventoryStatus>,
}

impl Engine {
    /// An engine that does nothing yet, and the task that writes its records.
    pub fn new(parts: Parts) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (ledger, writer) = Ledger::new(parts.files.clone());
        let engine = Arc::new(Self {
            names: Names::of(&parts.route.id),
            route: parts.route,
            source: parts.source,
            files: parts.files,
            queue: FileQueue::default(),
            window: Window::default(),
            ledger,
            state: Mutex::default(),
            room: Arc::new(Semaphore::new(OPEN)),
            parked_room: Arc::new(Semaphore::new(PARKED)),
            dirty: AtomicBool::new(false),
            flush: Notify::new(),
            inventories: Requests::default(),
            restored: AtomicBool::new(false),
            metrics: parts.metrics,
            observer: parts.observer,
            attempts: parts.attempts,
            moves: Moves::default(),
        });
        (engine, writer)
    }

    /// Reads the checkpoint and what waits; returns the checkpoint, if there is one. Tried until File 360 answers.
    pub async fn restore(&self) -> Option<Checkpoint> {
        let mut failures = 0;
        loop {
            match self.try_restore().await {
                Ok(checkpoint) => return checkpoint,
                Err(error) => {
                    failures += 1;
                    self.say_trouble(Some(&error));
                    tokio::time::sleep(backoff::delay(failures, rand::random())).await;
                }
            }
        }
    }

    async fn try_restore(&self) -> Result<Option<Checkpoint>> {
        let found = self.files.client_state(&self.names.checkpoint()).await?;
        let mut waiting: Vec<(String, Parked)> = Vec::new();
        read_documents(&*self.files, &self.names.waiting(), |key, value| {
            if let Ok(parked) = serde_json::from_value(value) {
                waiting.push((key.to_owned(), parked));
            }
        })
        .await?;
        let mut dead = BTreeMap::new();
        read_documents(&*self.files, &self.names.dead(), |key, value| {
            if let Ok(parked) = serde_json::from_value::<Parked>(value) {
                dead.insert(key.to_owned(), dead_letter(&parked));
                if parked.to_move {
                    self.moves.add(key.to_owned(), parked);
                }
            }
        })
        .await?;
        // In the order in which they happened, so that versions of one file stay in order.
        waiting.sort_by_key(|(_, parked)| parked.event_at);
        let checkpoint = found.as_ref().and_then(|found| serde_json::from_value::<Checkpoint>(found.value.clone()).ok());
        {
            let mut state = self.state.lock();
            state.etag = found.map(|found| found.etag);
            state.dead = dead;
            state.waiting = waiting.len();
            if let Some(checkpoint) = &checkpoint {
                state.counts = checkpoint.counts;
                state.rules.clone_from(&checkpoint.rules);
            }
            state.checkpoint.clone_from(&checkpoint);
        }
        for (_, parked) in waiting {
            self.take_up_parked(parked);
        }
        self.say_trouble(None);
        self.restored.store(true, Ordering::Release);
        // Requests wait for this: which of them were handled before is known now.
        self.observer.changed(true);
        Ok(checkpoint)
    }

    /// Whether what was recorded before is known.
    pub fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }

    pub(super) fn take_up_parked(&self, parked: Parked) {
        let origin = Origin::from(&parked.origin);
        let mut work = Work::new(origin, parked.path, parked.event, parked.event_at, parked.actor);
        work.occasion = parked.occasion;
        work.concerns = parked.concerns;
        work.is_gone = parked.is_gone;
        work.to = parked.record.to;
        work.is_parked = true;
        let file: Arc<str> = work.origin.file().into();
        self.queue.push(&file, lane_of(&work), work);
    }

    /// Works until the queue is closed.
    pub async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        for _ in 0..self.attempts.at_once(&self.route) {
            let this = self.clone();
            tasks.spawn(async move {
                while let Some((file, lane, work)) = this.queue.next().await {
                    this.work_on(&file, lane, work).await;
                }
            });
        }
        let this = self.clone();
        tasks.spawn(async move { this.keep_checkpoint().await });
        let this = self.clone();
        tasks.spawn(async move { this.keep_moving().await });
        let this = self.clone();
        tasks.spawn(async move {
            loop {
                this.attempts.trouble_changed().await;
                this.observer.changed(true);
            }
        });
        while tasks.join_next().await.is_some() {}
    }

    /// Takes up a piece of work; waits while too much is open.
    pub async fn take_up(&self, mut work: Work) -> Result<()> {
        let permit = self.room.clone().acquire_owned().await;
        work.permit = Some(permit.map_err(|_| Error::new(Kind::Stopping, "the route is stopping"))?);
        self.dirty.store(true, Ordering::Release);
        let file: Arc<str> = work.origin.file().into();
        self.queue.push(&file, lane_of(&work), work);
        self.tell_mirrors(&file);
        Ok(())
    }

    /// While a version waits for another destination, mirrors hear of the newest that stands behind it.
    fn tell_mirrors(&self, file: &Arc<str>) {
        if self.route.mirrors()
            && let Some(ahead) = self.queue.newest_behind(file, Work::ahead).flatten()
        {
            self.queue.push(file, Lane::Mirrors, ahead);
        }
    }

    async fn work_on(&self, file: &Arc<str>, lane: Lane, mut work: Work) {
        let started = Instant::now();
        let is_first = !work.is_parked && work.attempts == 0 && work.to.is_empty();
        let Some(outcome) = self.attempt(lane, &mut work).await else {
            self.queue.push(file, Lane::Versions, work);
            self.tell_mirrors(file);
            return self.queue.done(file);
        };
        let counts = work.concerns == Concerns::All && !work.is_gone;
        if is_first && counts && !matches!(outcome, Outcome::Nothing | Outcome::Hold(..)) {
            self.state.lock().counts.seen += 1;
        }
        let result = match outcome {
            Outcome::Nothing => self.forget(&mut work).await,
            Outcome::Hold(at, error) => {
                debug!(route = %self.route.id.name, %error, file = %work.path, "The source does not give the file yet");
                let receipt = work.receipt.take();
                self.queue.later(file, lane, work, at);
                if let Some(receipt) = receipt {
                    receipt.settle().await;
                }
                return;
            }
            Outcome::Done(finished) => {
                self.metrics.route_file_ended("delivered", started.elapsed());
                self.count(&work, &finished);
                self.record(&mut work, &finished, None).await
            }
            Outcome::Dead(finished) => {
                self.metrics.route_file_ended("dead", started.elapsed());
                self.count(&work, &finished);
                self.bury(&mut work, &finished).await
            }
            Outcome::Wait(at, finished) => {
                self.count_deliveries(&finished);
                let result = self.park(&mut work, &finished).await;
                self.queue.later(file, lane, work, at);
                self.tell_mirrors(file);
                if let Err(error) = result {
                    debug!(%error, "What waits could not be recorded");
                }
                return;
            }
        };
        if let Err(error) = result {
            debug!(%error, "The record could not be handed over");
        }
        drop(work);
        self.queue.done(file);
    }

    /// One try; `None`: it has to wait for its turn among the versions of the file.
    async fn attempt(&self, lane: Lane, work: &mut Work) -> Option<Outcome> {
        // What waits has a record, too: its own.
        let is_repeat = work.may_be_recorded && work.occasion.is_empty() && !work.is_parked && work.to.is_empty();
        if (is_repeat || work.concerns != Concerns::All) && !work.is_gone {
            match self.recorded(&work.origin).await {
                Ok(Some(_)) if is_repeat => return Some(Outcome::Nothing),
                Ok(record) => work.recorded = record,
                Err(error) => return Some(hold(&self.route, work, error)),
            }
        }
        if work.concerns == Concerns::Unrouted && work.recorded.is_none() {
            if lane == Lane::Mirrors {
                return None;
            }
            // It came into the route's paths, perhaps: then it is taken up like one that was just uploaded.
            work.concerns = Concerns::All;
            work.event = FileEvent::Uploaded;
            work.occasion.clear();
        }
        let Attempted { outcome, receipt } = self.attempts.attempt(&self.route, &*self.source, work).await;
        work.receipt = receipt;
        Some(outcome)
    }

    /// Whether a version is being worked on, or was so lately that its record cannot be read yet.
    pub(super) fn is_at_work(&self, origin: &Origin) -> bool {
        self.queue.contains(&origin.file()) || self.ledger.unwritten(origin).is_some()
    }

    /// The record of a version that is being written.
    pub(super) fn unwritten(&self, origin: &Origin) -> Option<Record> {
        self.ledger.unwritten(origin)
    }

    /// What is recorded of a version, including what is still being written.
    pub(super) async fn recorded(&self, origin: &Origin) -> Result<Option<Record>> {
        if let Some(record) = self.ledger.unwritten(origin) {
            return Ok(Some(record));
        }
        match origin {
            Origin::Item { item, version, .. } => {
                let facet = self.files.facet(item, *version, &self.names.facet).await?;
                Ok(facet.and_then(|facet| serde_json::from_value(facet.value).ok()))
            }
            Origin::Object { key, etag, .. } => {
                let document = self.files.client_state(&self.names.object(key)).await?;
                let found = document.and_then(|document| serde_json::from_value::<ObjectRecord>(document.value).ok());
                Ok(found.filter(|found| found.etag == *etag).map(|found| found.record))
            }
        }
    }

    /// Nothing is to be recorded; what waited waits no more. Its record goes, so that the file is taken up when it is the route's again.
    async fn forget(&self, work: &mut Work) -> Result<()> {
        let mut submission = submission(work);
        let is_whole = work.concerns == Concerns::All && !work.is_gone;
        match &work.origin {
            Origin::Item { item, version, .. } if work.is_parked && is_whole => {
                let name = self.names.facet.clone();
                submission.facets.push(FacetPut {
                    item_id: item.clone(),
                    version: *version,
                    name,
                    value: None,
                    announce: false,
                });
            }
            Origin::Object { key, .. } if work.is_parked && is_whole => {
                submission.documents.push(ClientStatePut { key: self.names.object(key), value: None });
            }
            _ => {}
        }
        submission.documents.extend(self.unpark(work));
        self.ledger.submit(submission).await
    }

    /// Removes the document about work that waited.
    fn unpark(&self, work: &mut Work) -> Option<ClientStatePut> {
        if !work.is_parked {
            return None;
        }
        work.is_parked = false;
        let mut state = self.state.lock();
        state.waiting = state.waiting.saturating_sub(1);
        let none_left = state.waiting == 0;
        drop(state);
        self.observer.changed(none_left);
        Some(ClientStatePut { key: Names::document(&self.names.waiting(), &work.origin, &work.occasion), value: None })
    }

    fn count_deliveries(&self, finished: &Finished) {
        let mut state = self.state.lock();
        state.counts.delivered += finished.delivered;
        state.counts.duplicates += finished.duplicates;
        state.counts.bytes += finished.bytes;
        drop(state);
        self.metrics.route_delivered(finished.delivered, finished.bytes);
        for (slot, error) in &finished.errors {
            self.metrics.route_delivery_failed(error.kind.as_str());
            warn!(route = %self.route.id.name, namespace = %self.route.id.namespace, destination = %slot, file = %clean(&finished.path, 300), %error,
                "A delivery failed");
        }
    }

    fn count(&self, work: &Work, finished: &Finished) {
        self.count_deliveries(finished);
        if work.concerns != Concerns::All {
            // It was counted when it was routed.
            return self.observer.changed(false);
        }
        let mut state = self.state.lock();
        if finished.record.rule == UNMATCHED {
            state.counts.unmatched += 1;
        }
        if !finished.record.rule.is_empty() {
            *state.rules.entry(finished.record.rule.clone()).or_default() += 1;
        }
        drop(state);
        self.observer.changed(false);
    }

    /// Records what became of a file; the work's token goes once that is durable.
    pub(super) async fn record(&self, work: &mut Work, finished: &Finished, also: Option<ClientStatePut>) -> Result<()> {
        let mut submission = submission(work);
        submission.documents.extend(self.unpark(work));
        if also.is_none() && work.concerns != Concerns::All {
            let letter = self.dead_document(work);
            if self.state.lock().dead.remove(&letter).is_some() {
                submission.documents.push(ClientStatePut { key: letter, value: None });
            }
        }
        submission.documents.extend(also);
        // What was never routed must not look as if it had been because an index shows it.
        if work.concerns == Concerns::All || work.recorded.is_some() {
            self.add_record(&mut submission, &work.origin, &finished.record);
        }
        self.ledger.submit(submission).await
    }

    fn add_record(&self, submission: &mut Submission, origin: &Origin, record: &Record) {
        let value = serde_json::to_value(record).unwrap_or_default();
        submission.unwritten = Some(self.ledger.writes(origin, record));
        match origin {
            Origin::Item { item, version, .. } => submission.facets.push(FacetPut {
                item_id: item.clone(),
                version: *version,
                name: self.names.facet.clone(),
                value: Some(value),
                announce: false,
            }),
            Origin::Object { key, etag, .. } => submission.documents.push(ClientStatePut {
                key: self.names.object(key),
                value: Some(serde_json::json!({"key": key, "etag": etag, "record": value})),
            }),
        }
    }

    /// Records that a file waits, before the checkpoint passes it. While there is no room for more that wait, the work keeps its place among what is open.
    async fn park(&self, work: &mut Work, finished: &Finished) -> Result<()> {
        let is_new = !work.is_parked;
        if is_new {
            work.is_parked = true;
            self.state.lock().waiting += 1;
            self.observer.changed(true);
            if let Ok(permit) = self.parked_room.clone().try_acquire_owned() {
                work.permit = Some(permit);
            }
        }
        let key = Names::document(&self.names.waiting(), &work.origin, &work.occasion);
        let value = serde_json::to_value(parked(work, finished)).unwrap_or_default();
        let mut submission = submission(work);
        submission.documents.push(ClientStatePut { key, value: Some(value) });
        if is_new && !work.is_gone && work.concerns == Concerns::All {
            self.add_record(&mut submission, &work.origin, &finished.record);
        }
        self.ledger.submit(submission).await
    }

    /// Everything that was there has been taken up, and there is room for more.
    pub(super) fn keeps_up(&self) -> bool {
        self.state.lock().is_caught_up && self.room.available_permits() > OPEN / 2
    }

    /// When inventories were taken, and what the last one found.
    pub(super) fn known_inventory(&self) -> Known {
        self.state.lock().checkpoint.as_ref().map(|checkpoint| checkpoint.inventory.clone()).unwrap_or_default()
    }

    /// Keeps what is known about inventories with the next checkpoint.
    pub(super) fn note_inventory(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.state.lock().checkpoint.get_or_insert_default().inventory);
        self.dirty.store(true, Ordering::Release);
        self.flush.notify_one();
        self.observer.changed(true);
    }

    /// An inventory ended so.
    pub(super) fn inventory_ended(&self, outcome: &'static str) {
        self.metrics.route_inventory_ended(outcome);
    }

    /// Takes up nothing more. What is done already is still recorded.
    pub fn close(&self) {
        self.window.close();
        self.queue.close();
        self.ledger.close();
    }

    /// Records something that is no work on a file.
    pub(super) async fn submit(&self, submission: Submission) -> Result<()> {
        self.ledger.submit(submission).await
    }

    /// Asks for an inventory, once for each request.
    pub fn ask_for_inventory(&self, request: Request) {
        let last = self.known_inventory().last.and_then(|last| last.requested);
        if last.as_deref() != Some(&request.token) {
            self.inventories.ask(request);
        }
    }

    /// Everything that waits for its time is tried now, also where a destination was away.
    pub fn hurry(&self) {
        self.route.all_targets().for_each(|target| target.breaker.hurry());
        self.queue.hurry();
    }

    /// Why the source cannot be read, if so.
    pub(super) fn say_trouble(&self, error: Option<&Error>) {
        let text = error.map(|error| clean(&error.to_string(), 300));
        let mut state = self.state.lock();
        if state.trouble == text {
            return;
        }
        state.trouble = text;
        drop(state);
        self.observer.changed(true);
    }

    /// The reader has nothing left that was there when it looked.
    pub(super) fn say_caught_up(&self, is_caught_up: bool) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_caught_up, is_caught_up) != is_caught_up {
            drop(state);
            self.observer.changed(true);
        }
    }

    /// What the status is made from.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        let mut dead_letters: Vec<DeadLetterStatus> = state.dead.values().cloned().collect();
        dead_letters.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.file.cmp(&b.file)));
        dead_letters.truncate(DEAD_SHOWN);
        Snapshot {
            counts: state.counts,
            rules: state.rules.clone(),
            checkpoint: state.checkpoint.as_ref().map(|checkpoint| checkpoint.cursor.clone()),
            dead_letters,
            dead: state.dead.len(),
            waiting: state.waiting,
            open: self.window.len(),
            away: self.away(),
            trouble: state.trouble.clone(),
            stuck: self.attempts.trouble(),
            is_caught_up: state.is_caught_up,
            inventory: state.checkpoint.as_ref().and_then(|checkpoint| checkpoint.inventory.last.clone()),
        }
    }

    fn away(&self) -> Vec<(String, String)> {
        let away = |target: &Arc<Target>| Some((target.name.to_string(), clean(&target.breaker.why()?.to_string(), 300)));
        self.route.all_targets().filter_map(away).collect()
    }

    /// Moves the checkpoint behind what is done. R2: a batch is done once everything in it is acknowledged or recorded.
    async fn keep_checkpoint(&self) {
        let mut last_written = Instant::now();
        let mut pending: Option<Position> = None;
        loop {
            let is_asked = tokio::select! {
                () = self.window.changed() => false,
                () = self.flush.notified() => true,
                () = tokio::time::sleep(CHECKPOINT_EVERY) => false,
            };
            if let Some(Position { cursor, about }) = self.window.advance() {
                if about.is_some() {
                    self.dirty.store(true, Ordering::Release);
                }
                let about = about.or_else(|| pending.take().and_then(|before| before.about));
                pending = Some(Position { cursor, about });
            } else if is_asked && pending.is_none() {
                // Something besides the position changed. Before the first checkpoint there is no position to write it with.
                let state = self.state.lock();
                let written = state.etag.as_ref().and(state.checkpoint.as_ref());
                pending = written.map(|checkpoint| Position { cursor: checkpoint.cursor.clone(), about: None });
            }
            let Some(position) = pending.clone() else { continue };
            let is_dirty = self.dirty.load(Ordering::Acquire);
            let due = if is_dirty { CHECKPOINT_EVERY } else { IDLE_CHECKPOINT };
            let is_first = self.state.lock().etag.is_none();
            if !is_first && last_written.elapsed() < due {
                continue;
            }
            // What is taken up from now on makes it dirty again.
            self.dirty.store(!self.window.is_empty(), Ordering::Release);
            match self.write_checkpoint(position).await {
                Ok(()) => {
                    pending = None;
                    last_written = Instant::now();
                }
                Err(error) => {
                    warn!(route = %self.route.id.name, %error, "The checkpoint could not be written; trying again");
                }
            }
        }
    }

    /// Writes the checkpoint with the totals.
    async fn write_checkpoint(&self, position: Position) -> Result<()> {
        let (checkpoint, etag) = {
            let state = self.state.lock();
            let before = state.checkpoint.clone().unwrap_or_default();
            let (counts, rules) = (state.counts, state.rules.clone());
            let mut checkpoint = Checkpoint { cursor: position.cursor, counts, rules, ..before };
            if let Some(about) = position.about {
                (checkpoint.feed_epoch, checkpoint.scope) = (about.feed_epoch, about.scope);
            }
            (checkpoint, state.etag.clone())
        };
        let key = self.names.checkpoint();
        let value = serde_json::to_value(&checkpoint).unwrap_or_default();
        let written = match self.files.put_client_state(&key, &value, etag.as_deref()).await {
            Err(error) if error.kind == Kind::Stale && error.code != "fenced" => {
                // A reply was lost, or an earlier leader wrote last; its fence keeps it from writing again.
                let found = self.files.client_state(&key).await?;
                self.files.put_client_state(&key, &value, found.map(|found| found.etag).as_deref()).await
            }
            other => other,
        }?;
        let mut state = self.state.lock();
        state.etag = Some(written);
        let written = state.checkpoint.get_or_insert_default();
        (written.cursor, written.feed_epoch, written.scope) = (checkpoint.cursor, checkpoint.feed_epoch, checkpoint.scope);
        drop(state);
        self.observer.changed(false);
        Ok(())
    }
}

/// What only tells mirrors how a file is need not wait for a destination that an earlier piece waits for.
fn lane_of(work: &Work) -> Lane {
    if work.is_gone || work.concerns != Concerns::All { Lane::Mirrors } else { Lane::Versions }
}

/// A record to be made, with what waits for it.
fn submission(work: &mut Work) -> Submission {
    Submission { token: work.token.take(), receipt: work.receipt.take(), ..Submission::default() }
}

/// What a restart finds of work that ended so.
pub(super) fn parked(work: &Work, finished: &Finished) -> Parked {
    Parked {
        origin: (&work.origin).into(),
        path: clean(&finished.path, 1024),
        event: work.event,
        event_at: work.event_at,
        actor: clean(&work.actor, 300),
        occasion: work.occasion.clone(),
        concerns: work.concerns,
        is_gone: work.is_gone,
        to_move: false,
        record: finished.record.clone(),
    }
}
