//! Files that were given up: what is recorded of them, where they are moved to, and how they are tried again.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::delivery::Origin;
use super::engine::{Engine, parked};
use super::ledger::{Entry, Names, Parked, State, Submission, read_documents};
use super::work::{Concerns, Finished, Work};
use crate::api::file_route::DeadLetterStatus;
use crate::error::{Disposition, Error, Kind, Result, clean};
use crate::file360::model::ClientStatePut;

/// How long the latest letters may take to be written before they are asked for again.
const SETTLED: Duration = Duration::from_secs(5);

/// Files that were given up and are still where they were, by the key of the document that says so.
#[derive(Default)]
pub(super) struct Moves {
    open: Mutex<BTreeMap<String, Open>>,
    changed: Notify,
    /// A file is either moved away or asked for again, not both at once.
    one: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Open {
    parked: Parked,
    due: Instant,
    failures: u32,
}

impl Moves {
    /// One more, whose document is submitted.
    pub(super) fn add(&self, key: String, parked: Parked) {
        self.open.lock().insert(key, Open { parked, due: Instant::now(), failures: 0 });
        self.changed.notify_one();
    }

    fn forget(&self, key: &str) {
        self.open.lock().remove(key);
    }

    fn get(&self, key: &str) -> Option<Parked> {
        self.open.lock().get(key).map(|open| open.parked.clone())
    }

    /// What is due, and when the next one is.
    fn due(&self, now: Instant) -> (Vec<String>, Option<Instant>) {
        let open = self.open.lock();
        let due = open.iter().filter(|(_, open)| open.due <= now).map(|(key, _)| key.clone()).collect();
        (due, open.values().map(|open| open.due).filter(|due| *due > now).min())
    }

    fn failed(&self, key: &str, wait: impl FnOnce(u32) -> Duration) {
        if let Some(open) = self.open.lock().get_mut(key) {
            open.failures += 1;
            open.due = Instant::now() + wait(open.failures);
        }
    }
}

impl Engine {
    /// Document about a file that was given up. There is one for all that destinations which mirror could not show of a version.
    pub(super) fn dead_document(&self, work: &Work) -> String {
        let occasion = if work.concerns == Concerns::All { work.occasion.as_str() } else { "mirrors" };
        Names::document(&self.names.dead(), &work.origin, occasion)
    }

    /// Records that a file was given up. Where the route says so, it is moved away after that.
    pub(super) async fn bury(&self, work: &mut Work, finished: &Finished) -> Result<()> {
        let to_move = work.concerns == Concerns::All && self.route.dead_letter_folder.is_some();
        let parked = Parked { to_move, ..parked(work, finished) };
        let key = self.dead_document(work);
        let letter = dead_letter(&parked);
        warn!(route = %self.route.id.name, namespace = %self.route.id.namespace, file = %letter.file, rule = %letter.rule, destination = %letter.destination,
            error = %letter.error, "A delivery was given up");
        self.state.lock().counts.failed += 1;
        let value = serde_json::to_value(&parked).unwrap_or_default();
        self.record(work, finished, Some(ClientStatePut { key: key.clone(), value: Some(value) })).await?;
        // Whoever sees the letter can ask for it: it is submitted by now.
        self.state.lock().dead.insert(key.clone(), letter);
        self.observer.changed(true);
        if parked.to_move {
            self.moves.add(key, parked);
        }
        Ok(())
    }

    /// Moves what was given up away, again and again until it succeeds or cannot.
    pub(super) async fn keep_moving(&self) {
        let Some(folder) = &self.route.dead_letter_folder else { return };
        loop {
            let (due, next) = self.moves.due(Instant::now());
            // A file that is out of the route's paths, and nowhere given up, would be forgotten by a restart: first the record, then the move.
            if !due.is_empty() && self.ledger.settled().await.is_err() {
                return;
            }
            for key in due {
                self.move_away(&key, folder).await;
            }
            let again = async {
                match next.or_else(|| self.moves.due(Instant::now()).1) {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { () = again => {}, () = self.moves.changed.notified() => {} }
        }
    }

    async fn move_away(&self, key: &str, folder: &str) {
        let _one = self.moves.one.lock().await;
        // Somebody may have asked for it meanwhile.
        let Some(parked) = self.moves.get(key) else { return };
        let (route, namespace, file) = (&self.route.id.name, &self.route.id.namespace, &parked.path);
        match self.source.move_to(&Origin::from(&parked.origin), folder).await {
            Ok(()) => {}
            Err(error) if error.disposition() != Disposition::Terminal => {
                warn!(%route, %namespace, %file, %error, folder, "A file that was given up could not be moved yet");
                let delay = |failures| self.route.retry.delay(failures, rand::random()).max(Duration::from_millis(250));
                return self.moves.failed(key, |failures| error.retry_after.unwrap_or_else(|| delay(failures)));
            }
            Err(error) => {
                warn!(%route, %namespace, %file, %error, folder, "A file that was given up cannot be moved; it stays where it is");
            }
        }
        self.moves.forget(key);
        let value = serde_json::to_value(Parked { to_move: false, ..parked }).unwrap_or_default();
        let documents = vec![ClientStatePut { key: key.to_owned(), value: Some(value) }];
        // Unwritten, it is found to be moved after a restart.
        let _ = self.submit(Submission { documents, ..Submission::default() }).await;
    }

    /// Tries everything that was given up again, once for each `token`.
    pub async fn replay(&self, token: &str) -> Result<()> {
        if self.state.lock().checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.replayed.as_deref() == Some(token)) {
            return Ok(());
        }
        // What the status shows already may still be on its way to File 360.
        let settled = tokio::time::timeout(SETTLED, self.ledger.settled()).await;
        settled.map_err(|_| Error::new(Kind::Unavailable, "the latest dead letters are not written yet"))??;
        let mut found: Vec<(String, Parked)> = Vec::new();
        read_documents(&*self.files, &self.names.dead(), |key, value| {
            if let Ok(parked) = serde_json::from_value(value) {
                found.push((key.to_owned(), parked));
            }
        })
        .await?;
        let count = found.len();
        for (key, mut parked) in found {
            let _one = self.moves.one.lock().await;
            self.moves.forget(&key);
            for entry in parked.record.to.values_mut().filter(|entry| entry.given_up) {
                *entry = Entry { key: entry.key.clone(), ..Entry::default() };
            }
            parked.record.state = State::Waiting;
            parked.to_move = false;
            let origin = Origin::from(&parked.origin);
            let waiting = Names::document(&self.names.waiting(), &origin, &parked.occasion);
            let value = serde_json::to_value(&parked).unwrap_or_default();
            let documents =
                vec![ClientStatePut { key: waiting, value: Some(value) }, ClientStatePut { key: key.clone(), value: None }];
            self.ledger.submit(Submission { documents, ..Submission::default() }).await?;
            let mut state = self.state.lock();
            state.dead.remove(&key);
            state.waiting += 1;
            drop(state);
            self.take_up_parked(parked);
        }
        info!(route = %self.route.id.name, namespace = %self.route.id.namespace, count, "Dead letters are tried again");
        self.state.lock().checkpoint.get_or_insert_default().replayed = Some(token.to_owned());
        self.dirty.store(true, Ordering::Release);
        self.flush.notify_one();
        self.observer.changed(true);
        Ok(())
    }
}

/// A dead letter for people.
pub(super) fn dead_letter(parked: &Parked) -> DeadLetterStatus {
    let origin = Origin::from(&parked.origin);
    let given_up = parked.record.to.iter().find(|(_, entry)| entry.given_up);
    let (slot, error) =
        given_up.map_or(("", ""), |(slot, entry)| (slot.as_str(), entry.error.as_deref().unwrap_or_default()));
    let (rule, destination) = slot.split_once('/').unwrap_or((slot, ""));
    DeadLetterStatus {
        file: clean(&parked.path, 1024),
        version: clean(&origin.version(), 128),
        rule: clean(rule, 63),
        destination: clean(destination, 63),
        error: clean(error, 512),
        at: parked.record.at,
    }
}
