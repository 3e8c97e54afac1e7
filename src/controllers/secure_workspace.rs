//! SecureWorkspace: the controller. Who is looked at when; what one pass does stands in [`pass`].

pub mod cleanup;
pub mod desired;
pub mod documents;
pub mod execute;
mod fight;
pub mod observe;
pub mod pass;
pub mod plan;
pub mod reminders;
pub mod reports;
pub mod reviews;
pub mod secrets;
pub mod status;
mod store;
pub mod unsupported;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher::Event;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::SecureWorkspace;
use crate::controllers::context::Context;
use crate::controllers::secure_workspace_set::SecureWorkspaceSets;
use crate::error::{Disposition, Error, Kind};
use crate::reconcile::queue::Queue;
use crate::reconcile::{ObjectKey, backoff};
use crate::session::{Foreign, Session, Unavailable};
pub use store::Labels;
use store::{Store, Verdict};

pub(super) const KIND: &str = "SecureWorkspace";
/// A terminal failure is looked at again this often, in case the world changed.
const TERMINAL_RESYNC: Duration = Duration::from_mins(30);

/// Marks of one Connection's outage before the others' turn.
const MARKS_AT_ONCE: usize = 100;

/// The controller of SecureWorkspaces.
///
/// It keeps no copy of a converged object: only what tells whether the next event matters. An object that has to be worked on
/// is kept from its watch event until its pass, or read again.
pub struct SecureWorkspaces {
    ctx: Arc<Context>,
    queue: Queue,
    store: Store,
    /// Who generates workspaces, and wants to know what becomes of them.
    sets: OnceLock<Arc<SecureWorkspaceSets>>,
}

/// What comes after a pass.
pub enum Next {
    /// Nothing until something changes, or at the latest after this long.
    Rest(Option<Duration>),
    /// The object is gone.
    Gone,
    /// The Connection has no session; woken when it has one, and looked at again after this long anyway.
    Deferred(Duration),
}

impl SecureWorkspaces {
    /// Nothing runs before [`SecureWorkspaces::run`].
    pub fn new(ctx: Arc<Context>) -> Arc<Self> {
        let queue = Queue::new(ctx.tuning.workers);
        Arc::new(Self { ctx, queue, store: Store::default(), sets: OnceLock::new() })
    }

    /// Tells who generates workspaces.
    pub fn tells(&self, sets: Arc<SecureWorkspaceSets>) {
        let _ = self.sets.set(sets);
    }

    /// Watches and works until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..self.ctx.tuning.workers {
            let this = self.clone();
            tasks.spawn(async move {
                while let Some(key) = this.queue.next().await {
                    Box::pin(this.work_on(&key)).await;
                    this.queue.done(&key);
                    this.ctx.metrics.set_queue_depth(KIND, this.queue.len());
                }
            });
        }
        let this = self.clone();
        let outages = tasks.spawn(async move { this.mark_outages().await });
        // Dropping the set ends the tasks with this one.
        tokio::select! {
            () = self.watch() => {}
            () = self.ctx.shutdown.cancelled() => {
                self.queue.close();
                outages.abort();
                while tasks.join_next().await.is_some() {}
            }
        }
    }

    /// Something happened to a workspace in File 360.
    pub fn remote_changed(&self, key: &ObjectKey, change: Option<Foreign>) {
        self.store.remote_changed(key, change);
        self.queue.push(key.clone());
    }

    /// Something happened to files of a workspace, at `path`; `None`: anywhere.
    pub fn files_changed(&self, key: &ObjectKey, path: Option<&str>) {
        if self.store.looks_at(key, path) {
            self.queue.push(key.clone());
        }
    }

    /// Looks at `keys` soon.
    pub fn wake(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        keys.into_iter().for_each(|key| self.queue.push(key));
    }

    /// The grants or the ceiling of a Connection changed, or it is gone.
    pub fn connection_changed(&self, connection: &ObjectKey) {
        self.wake(self.store.keys_where(|_, entry| entry.connection == *connection));
    }

    /// The labels of a namespace changed: grants by selector may end or begin.
    pub fn namespace_changed(&self, namespace: &str) {
        self.wake(
            self.store.keys_where(|key, entry| &*key.namespace == namespace && entry.connection.namespace != key.namespace),
        );
    }

    /// Looks again at what failed for a reason that may be gone, such as an unknown group.
    pub fn retry_failed(&self, connection: &ObjectKey) {
        self.wake(self.store.keys_where(|_, entry| entry.failures > 0 && entry.connection == *connection));
        // One that is worked on may be about to fail for that reason.
        self.queue.repeat(self.store.keys_where(|_, entry| entry.connection == *connection));
    }

    /// A new session took over: it learns which workspace belongs to which resource; whoever differs is looked at.
    pub fn session_replaced(&self, connection: &ObjectKey, old: &Session, new: &Session) {
        for key in self.store.keys_where(|_, entry| entry.connection == *connection) {
            let Some((workspace, uid)) = self.store.workspace_of(&key) else { continue };
            let before = old.index.get(&workspace).map(|row| row.revision);
            let now = new.index.get(&workspace).map(|row| row.revision);
            new.index.belongs(&workspace, now.unwrap_or_default(), &key, &uid);
            if let Some(last) = old.index.get(&workspace).filter(|row| row.has_documents) {
                let content = new.index.get(&workspace).and_then(|row| row.content);
                new.index.looked_at_files(&workspace, Some(content));
                if content.is_none() || content != last.content {
                    self.queue.push(key.clone());
                }
            }
            if before != now {
                self.remote_changed(&key, None);
            }
        }
        self.retry_failed(connection);
    }

    /// How many resources of a Connection have a finalizer; `None` before the first listing.
    pub fn with_finalizer(&self, connection: &ObjectKey) -> Option<usize> {
        self.store
            .is_listed()
            .then(|| self.store.keys_where(|_, entry| entry.has_finalizer && entry.connection == *connection).len())
    }

    /// Whether the first listing is complete.
    pub fn is_listed(&self) -> bool {
        self.store.is_listed()
    }

    /// Name, workspace and labels of what a namespace declares over a Connection.
    pub fn declared(&self, namespace: &str, connection: &ObjectKey) -> Vec<(String, String, Arc<Labels>)> {
        self.store.declared(namespace, connection)
    }

    /// Workspace of one SecureWorkspace that uses a Connection, once it has one.
    pub fn workspace_of(&self, key: &ObjectKey, connection: &ObjectKey) -> Option<String> {
        self.store.declared_workspace(key, connection)
    }

    /// Namespaces in which labels or workspaces changed since the last call; `None` before the first listing.
    pub fn take_relabelled(&self) -> Option<std::collections::HashSet<Arc<str>>> {
        self.store.is_listed().then(|| self.store.take_relabelled())
    }

    async fn watch(&self) {
        let api: Api<SecureWorkspace> = super::api_of(&self.ctx);
        let mut events = std::pin::pin!(super::watch(api));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => self.store.begin_listing(),
                Ok(Event::InitApply(object) | Event::Apply(object)) => self.saw(object),
                Ok(Event::Delete(object)) => self.gone(&ObjectKey::of(&object)),
                Ok(Event::InitDone) => {
                    self.store.end_listing().iter().for_each(|key| self.gone(key));
                    if let Some(reports) = self.ctx.reports.get() {
                        reports.listed();
                    }
                    self.ctx.readiness.is_ready("workspaces");
                }
                Err(error) => warn!(%error, "The watch of SecureWorkspaces failed; it starts again"),
            }
        }
    }

    fn saw(&self, object: SecureWorkspace) {
        if let Some(sets) = self.sets.get() {
            sets.saw_workspace(&object);
        }
        let key = ObjectKey::of(&object);
        if let Some(reports) = self.ctx.reports.get() {
            reports.saw(&key, &object);
        }
        let verdict = self.store.saw(&key, object, |object| self.is_up_to_date(object));
        self.ctx.gate.is_shared(self.store.namespaces() > 1);
        match verdict {
            Verdict::Nothing => {}
            Verdict::UpToDate { again } => {
                if let Some(again) = again {
                    self.queue.push_after(key, again);
                }
            }
            Verdict::Work => self.queue.push(key),
        }
    }

    /// Whether a pass would find nothing to do, judged from the object and the session's listing alone.
    fn is_up_to_date(&self, object: &SecureWorkspace) -> bool {
        let key = ObjectKey::of(object);
        let connection = pass::connection_key(object);
        let Some(lookup) = self.ctx.sessions.peek(&connection) else { return false };
        let Ok(session) = &lookup.session else { return false };
        if pass::permitted(&self.ctx, object, &lookup).is_err() {
            return false;
        }
        let Some(status) = object.status.as_ref() else { return false };
        let Some(workspace) = status.workspace_id.as_deref() else { return false };
        let Some(row) = session.index.get(workspace) else { return false };
        if !status::is_settled(object, row.revision, self.ctx.now()) {
            return false;
        }
        let content = match status.documents.as_ref() {
            None => None,
            Some(_) => {
                let zone = pass::zone_name(object, &lookup.connection);
                if !documents::are_as_seen(object, row.content, &zone) {
                    return false;
                }
                Some(row.content)
            }
        };
        session.index.looked_at_files(workspace, content);
        let uid: Arc<str> = object.uid().unwrap_or_default().into();
        session.index.belongs(workspace, row.revision, &key, &uid);
        true
    }

    fn gone(&self, key: &ObjectKey) {
        self.queue.cancel(key);
        if let Some(sets) = self.sets.get() {
            sets.workspace_gone(key);
        }
        if let Some(reports) = self.ctx.reports.get() {
            reports.gone(key);
        }
        let Some(entry) = self.store.forget(key) else { return };
        self.ctx.gate.is_shared(self.store.namespaces() > 1);
        if let (Some(workspace), Some(lookup)) = (entry.workspace, self.ctx.sessions.peek(&entry.connection))
            && let Ok(session) = lookup.session
        {
            session.index.forget(&workspace);
        }
    }

    async fn work_on(&self, key: &ObjectKey) {
        let started = Instant::now();
        let result = Box::pin(self.pass(key)).await;
        let outcome = match &result {
            Ok(Next::Rest(_)) => "converged",
            Ok(Next::Gone) => "gone",
            Ok(Next::Deferred(_)) => "deferred",
            Err(error) => error.kind.as_str(),
        };
        self.ctx.metrics.pass_ended(KIND, outcome, started.elapsed());
        match result {
            Ok(Next::Rest(again)) => {
                self.store.succeeded(key);
                if let Some(again) = again {
                    self.queue.push_after(key.clone(), again);
                }
            }
            Ok(Next::Gone) => self.gone(key),
            Ok(Next::Deferred(again)) => {
                debug!(object = %key, "Waits for its Connection");
                self.queue.push_after(key.clone(), again);
            }
            Err(error) => self.failed(key, &error),
        }
    }

    fn failed(&self, key: &ObjectKey, error: &Error) {
        let failures = self.store.failed(key);
        self.ctx.metrics.retry(KIND, error.kind.as_str());
        let delay = match error.disposition() {
            Disposition::RetryAfter(after) => backoff::jittered(after),
            Disposition::Retry => backoff::delay(failures, rand::random()),
            Disposition::Terminal => backoff::jittered(TERMINAL_RESYNC),
        };
        warn!(object = %key, %error, failures, retry_seconds = delay.as_secs(), "The pass failed");
        self.queue.push_after(key.clone(), delay);
    }

    /// Reads the object if no fresh copy is at hand, then runs a pass.
    async fn pass(&self, key: &ObjectKey) -> Result<Next, Error> {
        let object = match self.store.take(key) {
            Some(object) => *object,
            None => {
                let api: Api<SecureWorkspace> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
                match api.get_opt(&key.name).await? {
                    Some(object) => object,
                    None => return Ok(Next::Gone),
                }
            }
        };
        let mut pass = pass::Pass::new(&self.ctx, &self.store, key.clone(), object);
        let result = Box::pin(pass.run()).await;
        if let (Err(_), Some(due)) = (&result, pass.due_after_failure()) {
            self.queue.push_after(key.clone(), due);
        }
        result
    }

    /// Tells the resources of a Connection that has been away for long, and has them looked at when it is back.
    async fn mark_outages(&self) {
        let mut away_since = HashMap::new();
        loop {
            self.ctx.metrics.drift_standing.set(self.store.standing_drift());
            self.ctx.metrics.required_documents(&self.store.documents());
            let all = self.ctx.sessions.all();
            away_since.retain(|key, _| all.iter().any(|(known, _)| known == key));
            let mut more = false;
            for (connection, lookup) in all {
                let is_away = match &lookup.session {
                    Ok(session) => !session.is_connected(),
                    // A suspended Connection is away on purpose: its dependants keep what they said.
                    Err(why) => matches!(why, Unavailable::Because { .. }),
                };
                if !is_away {
                    away_since.remove(&connection);
                    more |= self.unmark_dependants(&connection).await;
                    continue;
                }
                let since = *away_since.entry(connection.clone()).or_insert_with(Instant::now);
                if since.elapsed() >= self.ctx.tuning.outage_grace {
                    let why =
                        lookup.session.err().map_or_else(|| "File 360 does not answer".to_owned(), |why| why.to_string());
                    more |= self.mark_dependants(&connection, &why).await;
                }
            }
            if !more {
                tokio::time::sleep(self.ctx.tuning.outage_grace.min(Duration::from_secs(15))).await;
            }
        }
    }

    /// Tells some of the resources of a Connection that it has been away for long; whether there are more.
    async fn mark_dependants(&self, connection: &ObjectKey, why: &str) -> bool {
        let mut unmarked = self.store.keys_where(|_, entry| !entry.marked && entry.connection == *connection);
        let more = unmarked.len() > MARKS_AT_ONCE;
        unmarked.truncate(MARKS_AT_ONCE);
        for key in unmarked {
            self.ctx.outage_marks.until_ready().await;
            if self.ctx.sessions.peek(connection).is_some_and(|now| now.is_connected()) {
                return false;
            }
            match pass::mark_outage(&self.ctx, &self.store, &key, why).await {
                Ok(()) => self.store.marked(&key),
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) => {
                    debug!(object = %key, %error, "The outage could not be written");
                    // The API server has its own trouble: another try comes with the next look.
                    return false;
                }
            }
        }
        more
    }

    /// Looks at some of the resources that tell of an outage which is over, no faster than they were told of it: what changed
    /// in File 360 meanwhile is looked at without this. Whether there are more.
    async fn unmark_dependants(&self, connection: &ObjectKey) -> bool {
        let (marked, more) = self.store.unmark(connection, MARKS_AT_ONCE);
        for key in marked {
            self.ctx.outage_marks.until_ready().await;
            self.queue.push(key);
        }
        more
    }
}
