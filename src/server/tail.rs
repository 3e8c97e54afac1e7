//! The newest entries of the change feed, kept in memory: thousands of pollers at the end of the feed cost no query.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use rusqlite::Connection;
use tokio::sync::watch;

/// How many entries stay in memory.
const KEPT: usize = 10_000;

/// One entry, as it is sent.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its position.
    pub sequence: u64,
    /// Its JSON.
    pub body: Arc<str>,
}

/// The end of the feed.
pub struct Tail {
    recent: RwLock<VecDeque<Entry>>,
    head: watch::Sender<u64>,
    epoch: RwLock<String>,
    floor: std::sync::atomic::AtomicU64,
}

impl Tail {
    /// The end of the feed in this database.
    pub fn load(db: &Connection) -> Result<Self, rusqlite::Error> {
        let mut statement = db.prepare("SELECT sequence, body FROM changes ORDER BY sequence DESC LIMIT ?1")?;
        let rows = statement
            .query_map([KEPT], |row| Ok(Entry { sequence: row.get(0)?, body: Arc::from(row.get_ref(1)?.as_str()?) }))?;
        let mut recent = rows.collect::<Result<VecDeque<_>, _>>()?;
        recent.make_contiguous().reverse();
        let pruned = super::store::schema::meta(db, "changesPruned")?.and_then(|text| text.parse().ok()).unwrap_or(0);
        let head = recent.back().map_or(pruned, |entry| entry.sequence);
        let epoch = super::store::schema::meta(db, "feedEpoch")?.unwrap_or_default();
        Ok(Self {
            recent: RwLock::new(recent),
            head: watch::Sender::new(head),
            epoch: RwLock::new(epoch),
            floor: pruned.into(),
        })
    }

    /// Makes committed entries visible and wakes who waits.
    pub fn publish(&self, entries: Vec<Entry>, head: u64) {
        if entries.is_empty() {
            return;
        }
        let mut recent = self.recent.write();
        recent.extend(entries);
        let surplus = recent.len().saturating_sub(KEPT);
        recent.drain(..surplus);
        drop(recent);
        self.head.send_replace(head);
    }

    /// Position of the last entry.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Wakes with every commit that adds entries.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Entries after `position`, if memory still has all of them.
    pub fn after(&self, position: u64, limit: usize) -> Option<Vec<Entry>> {
        let recent = self.recent.read();
        let Some(first) = recent.front() else {
            return (position == self.head()).then(Vec::new);
        };
        let skip = usize::try_from(position.checked_sub(first.sequence - 1)?).ok()?;
        Some(recent.iter().skip(skip).take(limit).cloned().collect())
    }

    /// Position of the last entry that is no longer kept.
    pub fn floor(&self) -> u64 {
        self.floor.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Says that entries up to `position` are no longer kept.
    pub fn pruned(&self, position: u64) {
        self.floor.store(position, std::sync::atomic::Ordering::Relaxed);
    }

    /// See `Service::feed_epoch`.
    pub fn epoch(&self) -> String {
        self.epoch.read().clone()
    }

    /// Starts another epoch: all cursors become void.
    pub fn set_epoch(&self, epoch: String) {
        *self.epoch.write() = epoch;
        self.head.send_modify(|_| ());
    }
}
