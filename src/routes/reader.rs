//! Reads the change feed for a route whose files are in workspaces.
//!
//! It goes on where the checkpoint stands, by itself until it has caught up, then with the pages that the Connection's one reader shares.
//! What the feed cannot tell any more (a new route, a cursor that expired, another feed, a wider scope) is found by scanning: a file without
//! a record is taken up (level-based).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::delivery::Origin;
use super::engine::{Checkpoint, Engine};
use super::inventory::Request;
use super::items::ItemSource;
use super::recorded::{Noted, Recorded};
use super::window::{About, Token};
use super::work::{Concerns, Work};
use crate::api::file_route::FileEvent;
use crate::documents::record::{REQUIREMENT, Recorded as Document};
use crate::error::{Error, Kind, Result};
use crate::file360::model::{Actor, Change, ChangeKind, ChangePage, Item};
use crate::hex::hex;
use crate::reconcile::backoff;
use crate::session::Session;

/// After such a time without a failure, the next one is the first again.
const CALM: Duration = Duration::from_mins(1);

/// Follows the feed for one engine.
pub struct Reader {
    /// The engine that gets the work.
    pub engine: Arc<Engine>,
    /// Where the files are.
    pub source: Arc<ItemSource>,
    /// The Connection's session.
    pub session: Arc<Session>,
    /// Uid of the route: what it caused itself is passed over (R8).
    pub uid: String,
    /// Some destination mirrors access and deletions.
    pub mirrors: bool,
    /// What decides what such destinations show; when it changes, they are brought up to date.
    pub mirrored: String,
}

/// How far the feed has been read.
struct Position {
    cursor: String,
    /// Sequence of the last entry; 0: unknown.
    sequence: u64,
}

impl Reader {
    /// Reads until the task is dropped.
    pub async fn run(&self, checkpoint: Option<Checkpoint>) {
        let scope = self.scope_fingerprint();
        if self.mirrors && checkpoint.as_ref().is_some_and(|known| !known.cursor.is_empty() && known.scope != scope) {
            self.bring_up_to_date();
        }
        let known = checkpoint.filter(|known| known.feed_epoch == self.session.service.feed_epoch && known.scope == scope);
        let mut position =
            known.filter(|known| !known.cursor.is_empty()).map(|known| Position { cursor: known.cursor, sequence: 0 });
        // The workspaces of the first set are scanned below, or were before the restart.
        self.source.scope.take_joined();
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let ended = self.follow(&mut position).await;
            if started.elapsed() > CALM {
                failures = 0;
            }
            match ended {
                Ok(never) => match never {},
                Err(error) if error.kind == Kind::Expired => {
                    info!(route = %self.engine.route.id.name, "The feed does not reach back to the checkpoint; every file is looked at");
                    position = None;
                    self.bring_up_to_date();
                    if failures > 0 {
                        tokio::time::sleep(backoff::delay(failures, rand::random()) / 4).await;
                    }
                    failures = (failures + 1).min(6);
                }
                Err(error) if error.kind == Kind::Stopping => return,
                Err(error) => {
                    failures = (failures + 1).min(6);
                    self.engine.say_trouble(Some(&error));
                    warn!(route = %self.engine.route.id.name, %error, "The source cannot be read; trying again");
                    tokio::time::sleep(error.retry_after.unwrap_or_else(|| backoff::delay(failures, rand::random()) / 4))
                        .await;
                }
            }
        }
    }

    /// Destinations that mirror missed something: who may read what, or that a file is gone. An inventory finds all of it.
    fn bring_up_to_date(&self) {
        if self.mirrors {
            self.engine.inventories.ask(Request::default());
        }
    }

    /// The scope that was scanned: which workspaces, which paths.
    fn scope_fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for id in self.source.scope.ids() {
            hash.update(id.as_bytes());
            hash.update([0]);
        }
        hash.update(format!("{:?}", self.source.pattern));
        hash.update(&self.mirrored);
        hex(&hash.finalize()[..16])
    }

    async fn follow(&self, position: &mut Option<Position>) -> Result<std::convert::Infallible> {
        let mut live = self.session.pages();
        let at = match position {
            Some(at) => at,
            None => position.insert(self.begin().await?),
        };
        self.catch_up(at).await?;
        self.engine.say_trouble(None);
        self.engine.say_caught_up(true);
        loop {
            tokio::select! {
                page = live.recv() => match page {
                    Ok(page) => self.take_live(at, &page).await?,
                    // Too slow for the shared pages: read by itself again.
                    Err(RecvError::Lagged(_)) => {
                        live = self.session.pages();
                        self.catch_up(at).await?;
                    }
                    Err(RecvError::Closed) => return Err(Error::new(Kind::Stopping, "the session ended")),
                },
                () = self.source.scope.joined() => self.scan_joined(at).await?,
            }
        }
    }

    /// The first time: the end of the feed is noted first, then every file is looked at.
    async fn begin(&self) -> Result<Position> {
        self.engine.say_caught_up(false);
        self.source.scope.take_joined();
        let end = self.session.driver.changes("now", Duration::ZERO).await?;
        let about = About { feed_epoch: end.feed_epoch, scope: self.scope_fingerprint() };
        let batch = self.engine.window.open_about(end.next_cursor.clone(), about);
        let read = async {
            for workspace in self.source.scope.ids() {
                self.scan(&workspace, &self.source.pattern.root(), &batch, &Scan::Unrecorded).await?;
            }
            Ok(())
        };
        self.whole(&batch, read.await)?;
        Ok(Position { cursor: end.next_cursor, sequence: 0 })
    }

    /// Reads by itself until nothing is left. Entries may have been handled before a restart.
    async fn catch_up(&self, at: &mut Position) -> Result<()> {
        loop {
            let page = self.session.driver.changes(&at.cursor, Duration::ZERO).await?;
            if page.feed_epoch != self.session.service.feed_epoch {
                return Err(Error::new(Kind::Expired, "the feed's history was replaced"));
            }
            let is_last = page.items.is_empty();
            self.take(at, &page, true).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// A page of the shared reader: what was read before is passed over; after a hole it is read by itself.
    async fn take_live(&self, at: &mut Position, page: &ChangePage) -> Result<()> {
        let first = page.items.first().map_or(0, |change| change.sequence);
        if page.feed_epoch != self.session.service.feed_epoch {
            return Err(Error::new(Kind::Expired, "the feed's history was replaced"));
        }
        if at.sequence == 0 || first > at.sequence + 1 {
            return self.catch_up(at).await;
        }
        self.take(at, page, false).await
    }

    async fn take(&self, at: &mut Position, page: &ChangePage, again: bool) -> Result<()> {
        let batch = self.engine.window.open(page.next_cursor.clone());
        let read = async {
            for change in page.items.iter().filter(|change| change.sequence > at.sequence) {
                self.handle(change, &batch, again).await?;
            }
            Ok(())
        };
        self.whole(&batch, read.await)?;
        at.sequence = page.items.last().map_or(at.sequence, |change| change.sequence.max(at.sequence));
        at.cursor.clone_from(&page.next_cursor);
        Ok(())
    }

    /// R2: a batch that could not be read to its end never counts as done.
    fn whole(&self, batch: &Token, read: Result<()>) -> Result<()> {
        if read.is_err() {
            self.engine.window.withdraw(batch);
        }
        read
    }

    async fn scan_joined(&self, at: &Position) -> Result<()> {
        let joined = self.source.scope.take_joined();
        let about = About { feed_epoch: self.session.service.feed_epoch.clone(), scope: self.scope_fingerprint() };
        let batch = self.engine.window.open_about(at.cursor.clone(), about);
        let read = async {
            for workspace in &joined {
                debug!(route = %self.engine.route.id.name, workspace, "A workspace joined the scope");
                match self.scan_anew(workspace, &batch).await {
                    Err(error) if error.kind != Kind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        };
        let read = read.await;
        if read.is_err() {
            self.source.scope.rejoin(&joined);
        }
        self.whole(&batch, read)
    }

    /// A workspace that came, or came back: what has no record is taken up; destinations that mirror may have forgotten the rest.
    async fn scan_anew(&self, workspace: &str, batch: &Token) -> Result<()> {
        let root = self.source.pattern.root();
        self.scan(workspace, &root, batch, &Scan::Unrecorded).await?;
        if !self.mirrors {
            return Ok(());
        }
        let occasion = format!("joined {}", Timestamp::now());
        let again = Again { occasion, at: Timestamp::now(), actor: String::new() };
        self.scan(workspace, &root, batch, &Scan::Every(again)).await
    }

    async fn handle(&self, change: &Change, batch: &Token, again: bool) -> Result<()> {
        let Some(workspace) = change.workspace_id.as_deref().filter(|id| self.source.scope.contains(id)) else {
            return Ok(());
        };
        let is_own = self.session.identity.caused(change, &self.uid);
        match change.kind {
            ChangeKind::WorkspaceUpdated => self.source.forget_workspace(workspace),
            ChangeKind::FolderChanged => self.source.forget_folders(),
            _ => {}
        }
        match change.kind {
            // R8: what the route itself brings and labels does not start it again.
            ChangeKind::FileUploaded | ChangeKind::VersionAdded | ChangeKind::FileChanged if is_own => Ok(()),
            ChangeKind::FileUploaded | ChangeKind::FileRestored => {
                self.file(change, FileEvent::Uploaded, again, batch).await
            }
            ChangeKind::VersionAdded => self.file(change, FileEvent::VersionAdded, again, batch).await,
            ChangeKind::FileChanged => self.file_changed(change, batch).await,
            ChangeKind::FileDeleted if self.mirrors => self.gone(change, batch).await,
            ChangeKind::FacetChanged if change.facet.as_deref() == Some(REQUIREMENT) => self.document(change, batch).await,
            ChangeKind::LinkChanged => self.shared(change, workspace, batch).await,
            ChangeKind::FolderChanged => self.folder_changed(change, workspace, batch).await,
            ChangeKind::MemberSet | ChangeKind::MemberRemoved if self.mirrors => {
                self.below(change, workspace, change.path.as_deref().unwrap_or("/"), batch).await
            }
            ChangeKind::WorkspaceUpdated | ChangeKind::WorkspaceTrashed | ChangeKind::WorkspacePurged if self.mirrors => {
                self.below(change, workspace, "/", batch).await
            }
            ChangeKind::WorkspaceRestored => self.scan_anew(workspace, batch).await,
            ChangeKind::GovernanceChanged if self.mirrors => {
                self.file(change, FileEvent::MetadataChanged, true, batch).await
            }
            _ => Ok(()),
        }
    }

    /// One file, if its path is the route's. A path that is not told is looked up with the file. Destinations that mirror follow every event.
    async fn file(&self, change: &Change, event: FileEvent, again: bool, batch: &Token) -> Result<()> {
        let is_elsewhere = change.path.as_deref().is_some_and(|path| !self.source.pattern.matches(path));
        let is_wanted = self.engine.route.events.contains(&event);
        if is_elsewhere || !(is_wanted || self.mirrors) {
            return Ok(());
        }
        let Some(mut work) = work(change, event) else { return Ok(()) };
        work.may_be_recorded = again || change.kind == ChangeKind::FileRestored;
        if !is_wanted {
            work.concerns = Concerns::Mirrors;
        } else if self.mirrors && change.kind == ChangeKind::FileRestored {
            // Its record is still there; its entry in an index is not.
            work.concerns = Concerns::Unrouted;
        }
        if event == FileEvent::MetadataChanged || work.concerns != Concerns::All {
            work.occasion.clone_from(&change.id);
        }
        self.push(work, batch).await
    }

    /// Renamed, moved, copied or labelled: perhaps into the route's paths, perhaps out of them.
    async fn file_changed(&self, change: &Change, batch: &Token) -> Result<()> {
        let is_wanted = self.engine.route.events.contains(&FileEvent::MetadataChanged);
        if !is_wanted && !self.mirrors {
            return self.file(change, FileEvent::Uploaded, true, batch).await;
        }
        let Some(mut work) = work(change, FileEvent::MetadataChanged) else { return Ok(()) };
        work.occasion.clone_from(&change.id);
        if !is_wanted {
            let takes_new = self.engine.route.events.contains(&FileEvent::Uploaded);
            work.concerns = if takes_new { Concerns::Unrouted } else { Concerns::Mirrors };
        }
        self.push(work, batch).await
    }

    async fn gone(&self, change: &Change, batch: &Token) -> Result<()> {
        let Some(mut work) = work(change, FileEvent::MetadataChanged) else { return Ok(()) };
        work.is_gone = true;
        work.occasion.clone_from(&change.id);
        self.push(work, batch).await
    }

    async fn shared(&self, change: &Change, workspace: &str, batch: &Token) -> Result<()> {
        if self.mirrors {
            self.below(change, workspace, change.path.as_deref().unwrap_or("/"), batch).await?;
        }
        if !self.engine.route.events.contains(&FileEvent::Shared) {
            return Ok(());
        }
        let Some(item) = &change.item_id else { return Ok(()) };
        let Some(version) = self.source.tenant.item(item).await?.and_then(|item| item.version) else { return Ok(()) };
        let about = Change { subject: Some(item.clone()), version: Some(version), ..change.clone() };
        let Some(mut work) = work(&about, FileEvent::Shared) else { return Ok(()) };
        work.occasion.clone_from(&change.id);
        self.push(work, batch).await
    }

    /// A required document came into another state.
    async fn document(&self, change: &Change, batch: &Token) -> Result<()> {
        // Facets of other clients are not the operator's, whatever their name.
        if !self.follows_documents() || self.session.identity.is_not(&change.actor) {
            return Ok(());
        }
        if change.path.as_deref().is_some_and(|path| !self.source.pattern.matches(path)) {
            return Ok(());
        }
        let (Some(item), Some(version)) = (&change.subject, change.version) else { return Ok(()) };
        let Some(recorded) = self.source.recorded_document(item, version).await? else { return Ok(()) };
        let Some((event, occasion)) = self.hears(&recorded) else { return Ok(()) };
        let Some(mut work) = work(change, event) else { return Ok(()) };
        work.occasion = occasion;
        self.push(work, batch).await
    }

    /// What the route hears about a required document: the event, and what tells its deliveries apart.
    fn hears(&self, recorded: &Document) -> Option<(FileEvent, String)> {
        recorded.tells().filter(|(event, _)| self.engine.route.events.contains(event))
    }

    /// What a scan found beside a file: of its versions, the newest that has something to tell, unless that was heard before.
    async fn noted(&self, item: &Item, noted: &[(u64, Document)], batch: &Token) -> Result<()> {
        let told = noted.iter().rev().find_map(|(version, recorded)| Some((*version, self.hears(recorded)?)));
        let Some((version, (event, occasion))) = told else { return Ok(()) };
        let mut work = scanned(item);
        work.origin = Origin::Item { workspace: item.workspace_id.clone(), item: item.id.clone(), version };
        (work.event, work.occasion) = (event, occasion);
        if let Some(record) = self.engine.recorded(&work.origin).await?
            && record.is_about(&self.engine.route.id, &work.origin, &work.occasion)
        {
            return Ok(());
        }
        self.push(work, batch).await
    }

    fn follows_documents(&self) -> bool {
        self.engine.route.events.iter().any(|event| event.is_about_a_document())
    }

    async fn folder_changed(&self, change: &Change, workspace: &str, batch: &Token) -> Result<()> {
        let Some(path) = change.path.as_deref() else { return Ok(()) };
        // Moved into the route's paths, perhaps.
        self.scan(workspace, path, batch, &Scan::Unrecorded).await?;
        if self.mirrors {
            return self.below(change, workspace, path, batch).await;
        }
        Ok(())
    }

    /// Everything below a path is looked at again: access or place changed.
    async fn below(&self, change: &Change, workspace: &str, path: &str, batch: &Token) -> Result<()> {
        let again = Again { occasion: change.id.clone(), at: change.time, actor: name(&change.actor) };
        match self.scan(workspace, path, batch, &Scan::Every(again)).await {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            other => other,
        }
    }

    /// A file without a record, which a scan found.
    async fn unrecorded(&self, item: &Item, has_older: bool, batch: &Token) -> Result<()> {
        let mut work = scanned(item);
        work.may_be_recorded = self.engine.is_at_work(&work.origin);
        if !self.engine.route.takes_up(item, has_older) {
            if !self.mirrors {
                return Ok(());
            }
            work.concerns = Concerns::Mirrors;
        }
        self.push(work, batch).await
    }

    async fn push(&self, mut work: Work, batch: &Token) -> Result<()> {
        work.token = Some(batch.share());
        self.engine.take_up(work).await
    }

    /// Looks at every file below `path` of a workspace.
    async fn scan(&self, workspace: &str, path: &str, batch: &Token, how: &Scan) -> Result<()> {
        let facet = self.engine.names.facet.as_str();
        let mut files = Recorded::of(&*self.source.tenant, workspace, path, facet);
        let mut documents = Noted::of(&*self.source.tenant, workspace);
        loop {
            let item = match files.next().await {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                // The folder is not there (yet).
                Err(error) if error.kind == Kind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            match how {
                Scan::Unrecorded => {
                    if self.follows_documents() && self.source.is_ours(&item) {
                        self.noted(&item, &documents.beside(&item).await?, batch).await?;
                    }
                    if self.source.is_ours(&item) && files.record(&item).await?.is_none() {
                        self.unrecorded(&item, files.has_older(), batch).await?;
                    }
                }
                Scan::Every(again) => self.push(again.work(&item), batch).await?,
            }
        }
    }
}

/// Which files a scan takes up.
enum Scan {
    /// Those of the route without a record.
    Unrecorded,
    /// Every one.
    Every(Again),
}

/// Why every file is looked at again.
struct Again {
    occasion: String,
    at: Timestamp,
    actor: String,
}

impl Again {
    fn work(&self, item: &Item) -> Work {
        let mut work = Work::new(origin(item), item.path.clone(), FileEvent::MetadataChanged, self.at, self.actor.clone());
        work.occasion.clone_from(&self.occasion);
        work.concerns = Concerns::Mirrors;
        work
    }
}

/// Work on a file that a scan found.
pub fn scanned(item: &Item) -> Work {
    let actor = item.created_by.as_ref().map(name).unwrap_or_default();
    Work::new(origin(item), item.path.clone(), FileEvent::Uploaded, item.modified_at, actor)
}

fn origin(item: &Item) -> Origin {
    Origin::Item { workspace: item.workspace_id.clone(), item: item.id.clone(), version: item.version.unwrap_or_default() }
}

fn name(actor: &Actor) -> String {
    actor.name.clone()
}

fn work(change: &Change, event: FileEvent) -> Option<Work> {
    let origin =
        Origin::Item { workspace: change.workspace_id.clone()?, item: change.subject.clone()?, version: change.version? };
    Some(Work::new(origin, change.path.clone().unwrap_or_default(), event, change.time, name(&change.actor)))
}
