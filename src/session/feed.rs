//! The one reader of a tenant's change feed.
//!
//! It starts with a complete listing, so that nothing that happened before is missed: the cursor is taken first, then the
//! listing, then the feed from the cursor. When the cursor expires or the feed's history was replaced, it starts over.
//!
//! A tenant without a feed is looked at instead: whether it answers, every half minute; every workspace, once in an interval.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::Session;
use crate::documents::record::DECISION;
use crate::error::{Error, Kind, Result};
use crate::file360::model::{Change, ChangeKind};
use crate::reconcile::{ObjectKey, backoff};

const WAIT: Duration = Duration::from_secs(25);
/// Pause after a page of nothing but own echoes.
const GATHER: Duration = Duration::from_millis(30);
/// Pages that the listing may have: 10 million workspaces.
const MOST_PAGES: usize = 10_000;
/// Even a feed that never fails is checked against a complete listing this often.
const INVENTORY: Duration = Duration::from_mins(30);

/// Without a feed: whether the tenant answers is asked this often.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A change that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Who, as `kind name`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Who is told about changes.
pub trait Wake: Send + Sync {
    /// The workspace of `key` changed. `None`: seen in a listing, nobody knows who.
    fn workspace_changed(&self, key: &ObjectKey, change: Option<Foreign>);
    /// Something happened to files of the workspace of `key`, below `path`; `None`: anywhere.
    fn files_changed(&self, key: &ObjectKey, path: Option<&str>);
    /// An entry of this time was handled.
    fn entry_handled(&self, at: Timestamp);
    /// Users or groups changed: whoever misses one may try again.
    fn principals_changed(&self);
    /// The tenant answers again after an outage: these were waiting.
    fn tenant_is_back(&self, keys: Vec<ObjectKey>);
    /// The feed's state changed.
    fn feed_state_changed(&self);
}

impl Session {
    /// Reads a complete listing into the index and returns the cursor that the feed continues from.
    pub async fn take_inventory(&self, wake: &dyn Wake) -> Result<String> {
        let cursor =
            if self.has_feed() { self.driver.changes("now", Duration::ZERO).await?.next_cursor } else { String::new() };
        let mut listing = HashMap::new();
        let mut page_cursor: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let page = self.driver.workspaces(Some(&self.cluster_id), page_cursor.as_deref()).await?;
            listing.extend(page.items.into_iter().map(|row| (row.id, (row.revision, row.content_revision))));
            match page.next_cursor {
                Some(next) if page_cursor.as_ref() != Some(&next) => page_cursor = Some(next),
                Some(_) => return Err(Error::new(Kind::Malformed, "the listing of workspaces repeats its cursor")),
                None => {
                    for key in self.index.compare(&listing) {
                        wake.workspace_changed(&key, None);
                    }
                    return Ok(cursor);
                }
            }
        }
        Err(Error::new(Kind::Malformed, "the listing of workspaces does not end"))
    }

    /// Follows the feed from `cursor` until the session is stopped; without a feed, looks at every workspace once in
    /// `observe_every`.
    pub async fn follow(self: Arc<Self>, cursor: String, observe_every: Duration, wake: Arc<dyn Wake>) {
        let stop = self.stop.clone();
        let following = async {
            if self.has_feed() {
                self.follow_forever(cursor, &*wake).await;
            } else {
                tokio::join!(self.ask_forever(&*wake), self.observe_forever(observe_every, &*wake));
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = following => {}
        }
    }

    /// Asks whether the tenant answers.
    async fn ask_forever(&self, wake: &dyn Wake) {
        let mut failures = 0;
        loop {
            match self.driver.service().await {
                Ok(_) => {
                    failures = 0;
                    self.set_connected(true, wake);
                    tokio::time::sleep(backoff::jittered(HEARTBEAT)).await;
                }
                Err(error) => {
                    failures += 1;
                    self.set_connected(false, wake);
                    warn!(error = %error, failures, "The tenant does not answer");
                    tokio::time::sleep(feed_delay(failures, &error)).await;
                }
            }
        }
    }

    /// Has every workspace looked at, one after the other, so that a round takes half of its interval.
    async fn observe_forever(&self, every: Duration, wake: &dyn Wake) {
        loop {
            let resources = self.index.resources();
            tokio::time::sleep(backoff::jittered(every / 2)).await;
            let pause = every / 2 / u32::try_from(resources.len().max(1)).unwrap_or(u32::MAX);
            for key in resources {
                tokio::time::sleep(pause).await;
                if self.is_connected() {
                    wake.workspace_changed(&key, None);
                }
            }
        }
    }

    async fn follow_forever(&self, mut cursor: String, wake: &dyn Wake) {
        let mut failures = 0;
        let mut last_inventory = tokio::time::Instant::now();
        loop {
            // After a failure any answer is news: it must not wait for an entry.
            let wait = if failures > 0 { Duration::ZERO } else { WAIT };
            match self.advance(&cursor, wait, wake).await {
                Ok(next) => {
                    cursor = next;
                    failures = 0;
                    self.set_connected(true, wake);
                    if last_inventory.elapsed() < INVENTORY {
                        continue;
                    }
                }
                Err(error) if error.kind == Kind::Expired => {
                    info!(error = %error, "The change feed starts over with a complete listing");
                }
                Err(error) => {
                    failures += 1;
                    self.set_connected(false, wake);
                    warn!(error = %error, failures, "The change feed does not answer");
                    tokio::time::sleep(feed_delay(failures, &error)).await;
                    continue;
                }
            }
            match self.take_inventory(wake).await {
                Ok(next) => {
                    cursor = next;
                    last_inventory = tokio::time::Instant::now();
                }
                Err(error) => {
                    failures += 1;
                    warn!(error = %error, failures, "The listing after an interrupted change feed failed");
                    tokio::time::sleep(feed_delay(failures, &error)).await;
                }
            }
        }
    }

    fn set_connected(&self, connected: bool, wake: &dyn Wake) {
        if self.connected.swap(connected, Ordering::Relaxed) != connected {
            wake.feed_state_changed();
        }
        if connected {
            let waiting = self.take_deferred();
            if !waiting.is_empty() {
                wake.tenant_is_back(waiting.into_iter().collect());
            }
        }
    }

    /// Handles the next page, waiting for it for so long; returns where to go on.
    async fn advance(&self, cursor: &str, wait: Duration, wake: &dyn Wake) -> Result<String> {
        let page = self.driver.changes(cursor, wait).await?;
        if page.feed_epoch != self.service.feed_epoch && self.epoch_is_new(&page.feed_epoch) {
            return Err(Error::new(Kind::Expired, "the feed's history was replaced"));
        }
        let mut own_echoes_only = !page.items.is_empty();
        for change in &page.items {
            own_echoes_only &= self.handle(change, wake);
        }
        let next = page.next_cursor.clone();
        if self.pages.receiver_count() > 0 && !page.items.is_empty() {
            // Nobody listens any more: nothing is lost, followers read by themselves first.
            let _ = self.pages.send(Arc::new(page));
        }
        if own_echoes_only {
            // While the operator writes, its own echoes come one by one; a moment later they come together.
            tokio::time::sleep(GATHER).await;
        }
        Ok(next)
    }

    /// Remembers the epoch of the feed; true when it differs from the last one.
    fn epoch_is_new(&self, epoch: &str) -> bool {
        let mut known = self.feed_epoch.lock();
        let changed = known.as_deref() != Some(epoch);
        *known = Some(epoch.to_owned());
        changed
    }

    /// Handles one entry; whether it was the echo of an own change.
    fn handle(&self, change: &Change, wake: &dyn Wake) -> bool {
        wake.entry_handled(change.time);
        if change.kind == ChangeKind::PrincipalChanged {
            self.forget_principals();
            wake.principals_changed();
            return false;
        }
        let Some(workspace) = change.workspace_id.as_deref() else { return false };
        if !moves_the_revision(change.kind) {
            return self.handle_file(change, workspace, wake);
        }
        let Some(revision) = change.revision else { return false };
        let Some(row) = self.index.get(workspace) else { return false };
        self.index.saw(workspace, revision);
        let Some((key, uid)) = row.resource else { return false };
        if self.identity.caused(change, &uid) {
            debug!(workspace.id = workspace, revision, "Own echo");
            return true;
        }
        let by = crate::error::clean(&format!("{:?} {}", change.actor.kind, change.actor.name), 300);
        wake.workspace_changed(&key, Some(Foreign { by, at: change.time }));
        false
    }

    /// Handles an entry about a file; whether it was the echo of an own change.
    fn handle_file(&self, change: &Change, workspace: &str, wake: &dyn Wake) -> bool {
        let Some((key, uid)) = self.index.get(workspace).and_then(|row| row.resource) else { return false };
        let is_own = self.identity.caused(change, &uid);
        // What the operator itself notes beside a file comes back without a cause.
        let is_note = change.kind == ChangeKind::FacetChanged && change.facet.as_deref() != Some(DECISION);
        if is_own || is_note {
            return true;
        }
        // A file that was moved away is told with the path that it has now.
        let path = change.path.as_deref().filter(|_| change.kind != ChangeKind::FileChanged);
        wake.files_changed(&key, path);
        false
    }
}

/// Whether a change moves the revision of its workspace. What happens to files does not.
fn moves_the_revision(kind: ChangeKind) -> bool {
    !matches!(
        kind,
        ChangeKind::FileUploaded
            | ChangeKind::VersionAdded
            | ChangeKind::FileChanged
            | ChangeKind::FileDeleted
            | ChangeKind::FileRestored
            | ChangeKind::GovernanceChanged
            | ChangeKind::FacetChanged
            | ChangeKind::Unknown
    )
}

/// Short waits: the feed is what makes an outage's end known. The server's own wish is respected.
fn feed_delay(failures: u32, error: &Error) -> Duration {
    let own = Duration::from_millis(250).saturating_mul(2u32.saturating_pow(failures.min(7)));
    backoff::jittered(error.retry_after.unwrap_or_default().max(own.min(Duration::from_secs(15))))
}
