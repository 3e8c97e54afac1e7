//! Connection: one pass, top to bottom. A pass makes sure that the Connection's session is there and fits its credential.

pub mod credentials;
pub mod status;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::api::Connection;
use crate::api::connection::Driver;
use crate::api::{FINALIZER, REQUESTED_AT};
use crate::controllers::approval::Approvals;
use crate::controllers::context::Context;
use crate::controllers::file_route::FileRoutes;
use crate::controllers::finalizers;
use crate::controllers::secure_workspace::SecureWorkspaces;
use crate::controllers::secure_workspace_set::SecureWorkspaceSets;
use crate::error::{Error, Kind, Result};
use crate::file360::exchange::Settings;
use crate::file360::feature::Feature;
use crate::file360::model::Service;
use crate::file360::{self, File360};
use crate::reconcile::queue::Queue;
use crate::reconcile::{ObjectKey, backoff, publish};
use crate::session::{Foreign, Identity, Session, Unavailable, Wake};
use credentials::Credentials;

const KIND: &str = "Connection";
/// Connections that are worked on at once.
const WORKERS: usize = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The controller of Connections.
pub struct Connections {
    ctx: Arc<Context>,
    queue: Queue,
    objects: Mutex<HashMap<ObjectKey, Entry>>,
    /// Connections of the first listing whose first pass has not ended.
    unsettled: Mutex<Option<HashSet<ObjectKey>>>,
    workspaces: OnceLock<Arc<SecureWorkspaces>>,
    routes: OnceLock<Arc<FileRoutes>>,
    sets: OnceLock<Arc<SecureWorkspaceSets>>,
    approvals: OnceLock<Arc<Approvals>>,
    me: Weak<Self>,
}

#[derive(Clone)]
struct Entry {
    object: Arc<Connection>,
    failures: u32,
    /// Fingerprint of what the session was built from.
    built_from: Option<String>,
}

/// What a pass found out.
pub struct Outcome {
    /// The session, or why there is none.
    pub session: Result<Arc<Session>, Error>,
    /// It is suspended.
    pub suspended: bool,
}

impl Connections {
    /// Nothing runs before [`Connections::run`].
    pub fn new(ctx: Arc<Context>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            ctx,
            queue: Queue::new(WORKERS),
            objects: Mutex::default(),
            unsettled: Mutex::new(None),
            workspaces: OnceLock::new(),
            routes: OnceLock::new(),
            sets: OnceLock::new(),
            approvals: OnceLock::new(),
            me: me.clone(),
        })
    }

    /// Tells who depends on the sessions.
    pub fn serves(
        &self,
        workspaces: Arc<SecureWorkspaces>,
        routes: Arc<FileRoutes>,
        sets: Arc<SecureWorkspaceSets>,
        approvals: Arc<Approvals>,
    ) {
        let _ = self.workspaces.set(workspaces);
        let _ = self.routes.set(routes);
        let _ = self.sets.set(sets);
        let _ = self.approvals.set(approvals);
    }

    fn tell_routes(&self, connection: &ObjectKey) {
        if let Some(routes) = self.routes.get() {
            routes.connection_changed(connection);
        }
        if let Some(sets) = self.sets.get() {
            sets.connection_changed(connection);
        }
        if let Some(approvals) = self.approvals.get() {
            approvals.connection_changed(connection);
        }
    }

    /// Watches and works until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        let workers = (0..WORKERS).map(|_| {
            let this = self.clone();
            async move {
                while let Some(key) = this.queue.next().await {
                    this.pass(&key).await;
                    this.queue.done(&key);
                }
            }
        });
        tokio::join!(self.watch(), futures::future::join_all(workers));
    }

    /// Waits until every Connection of the first listing had its first pass, but not longer than `patience`.
    pub async fn settled(&self, patience: Duration) {
        let settle = async {
            while self.unsettled.lock().as_ref().is_none_or(|waiting| !waiting.is_empty()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(patience, settle).await;
    }

    /// Looks at `key` soon.
    pub fn push(&self, key: ObjectKey) {
        self.queue.push(key);
    }

    async fn watch(&self) {
        self.ctx.readiness.waits("connections", "the first listing");
        let api: Api<Connection> = crate::controllers::api_of(&self.ctx);
        let mut events = std::pin::pin!(crate::controllers::watch(api));
        let mut listing = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(object)) => {
                    listing.insert(ObjectKey::of(&object));
                    self.saw(object);
                }
                Ok(Event::InitDone) => {
                    let mut unsettled = self.unsettled.lock();
                    unsettled.get_or_insert_with(|| listing.clone());
                    drop(unsettled);
                    let gone: Vec<ObjectKey> =
                        self.objects.lock().keys().filter(|key| !listing.contains(*key)).cloned().collect();
                    gone.iter().for_each(|key| self.gone(key));
                    self.ctx.readiness.is_ready("connections");
                }
                Ok(Event::Apply(object)) => self.saw(object),
                Ok(Event::Delete(object)) => self.gone(&ObjectKey::of(&object)),
                Err(error) => warn!(%error, "The watch of Connections failed; it starts again"),
            }
        }
    }

    fn saw(&self, object: Connection) {
        let key = ObjectKey::of(&object);
        let object = Arc::new(object);
        let mut objects = self.objects.lock();
        let last = objects.get(&key).cloned();
        let relevant = last.as_ref().is_none_or(|last| differs(&last.object, &object));
        let shared_rules_changed = last.as_ref().is_some_and(|last| {
            let (last, now) = (&last.object.spec, &object.spec);
            last.grants != now.grants
                || last.sharing != now.sharing
                || last.time_zone != now.time_zone
                || last.principals != now.principals
        });
        let entry = match last {
            Some(entry) if entry.object.uid() == object.uid() => Entry { object: object.clone(), ..entry },
            _ => Entry { object: object.clone(), failures: 0, built_from: None },
        };
        objects.insert(key.clone(), entry);
        drop(objects);
        self.ctx.sessions.saw(&object);
        if relevant {
            self.queue.push(key.clone());
        }
        if let Some(workspaces) = self.workspaces.get().filter(|_| shared_rules_changed) {
            workspaces.connection_changed(&key);
        }
        if shared_rules_changed {
            self.tell_routes(&key);
        }
    }

    fn gone(&self, key: &ObjectKey) {
        self.objects.lock().remove(key);
        self.ctx.sessions.remove(key);
        if let Some(workspaces) = self.workspaces.get() {
            workspaces.connection_changed(key);
        }
        self.tell_routes(key);
        self.settle(key);
    }

    fn settle(&self, key: &ObjectKey) {
        if let Some(unsettled) = self.unsettled.lock().as_mut() {
            unsettled.remove(key);
        }
    }

    async fn pass(&self, key: &ObjectKey) {
        let Some(entry) = self.objects.lock().get(key).cloned() else { return };
        let started = tokio::time::Instant::now();
        let result = if entry.object.meta().deletion_timestamp.is_some() {
            self.let_go(key, &entry.object).await
        } else {
            self.converge(key, &entry).await
        };
        self.settle(key);
        let outcome = match &result {
            Ok(_) => "ok",
            Err(error) => error.kind.as_str(),
        };
        self.ctx.metrics.pass_ended(KIND, outcome, started.elapsed());
        let failures = if result.is_ok() { 0 } else { entry.failures.saturating_add(1) };
        if let Some(entry) = self.objects.lock().get_mut(key) {
            entry.failures = failures;
        }
        match result {
            Ok(again) => {
                if let Some(again) = again {
                    self.queue.push_after(key.clone(), again);
                }
            }
            Err(error) => {
                warn!(connection = %key, %error, failures, "The Connection is not usable");
                self.ctx.metrics.retry(KIND, error.kind.as_str());
                self.queue.push_after(key.clone(), wait_after(failures, &error));
            }
        }
    }

    /// Brings the session to what the spec says and reports. Returns when to look again.
    async fn converge(&self, key: &ObjectKey, entry: &Entry) -> Result<Option<Duration>> {
        let connection = &entry.object;
        let now = self.ctx.now();
        let suspended = status::is_suspended(connection, now);
        let result = if suspended {
            self.close(key, connection, Unavailable::Suspended);
            Err(Error::new(Kind::Stopping, "suspended"))
        } else {
            self.open(key, entry).await
        };
        let has_session = self.ctx.sessions.peek(key).is_some_and(|lookup| lookup.session.is_ok());
        if let (false, Err(error)) = (suspended || has_session, &result) {
            self.close(key, connection, unusable(error));
        }
        let outcome = Outcome { session: result, suspended };
        self.report(connection, &outcome).await?;
        if suspended {
            let until = connection.spec.suspend_until.map(|until| crate::controllers::until(until, now));
            return Ok(until);
        }
        outcome.session.map(|_| Some(backoff::jittered(self.ctx.tuning.secret_interval)))
    }

    /// The session, made anew when the credential or the spec changed.
    async fn open(&self, key: &ObjectKey, entry: &Entry) -> Result<Arc<Session>> {
        let connection = &entry.object;
        let credentials = Credentials::read(&self.ctx, connection).await?;
        let current = self.ctx.sessions.peek(key).and_then(|lookup| lookup.session.ok());
        if let (Some(session), true) = (current, entry.built_from.as_ref() == Some(&credentials.fingerprint)) {
            if !session.is_connected() {
                session.driver.service().await?;
            }
            return Ok(session);
        }
        let fingerprint = credentials.fingerprint.clone();
        let (driver, service) = driver(&self.ctx, connection, credentials).await?;
        let stop = self.ctx.stop_writes.child_token();
        let identity = Identity::of(driver.identity().await?);
        let session = Arc::new(Session::new(driver, service, identity, self.ctx.cluster_id.clone(), stop));
        if session.enforcement.has(Feature::Fencing) || connection.spec.driver() == Driver::Connector {
            // One fence for each Connection: two Connections to one tenant do not shut each other out.
            let consumer = format!("operator.{}.{}", key.namespace, key.name);
            session.driver.take_fence(&self.ctx.cluster_id, &consumer, &self.ctx.instance).await?;
        }
        let wake: Arc<dyn Wake> = Arc::new(Waker {
            key: key.clone(),
            ctx: self.ctx.clone(),
            connections: self.me.clone(),
            workspaces: self.workspaces.get().cloned(),
        });
        let cursor = session.take_inventory(&*wake).await?;
        info!(connection = %key, product = %session.service.product, workspaces = session.index.len(), "Connected");
        // The old session ends only now that the new one works.
        let old = self.ctx.sessions.peek(key).and_then(|lookup| lookup.session.ok());
        let waiting = self.ctx.sessions.set(key, connection.clone(), Ok(session.clone()));
        tokio::spawn(session.clone().follow(cursor, self.ctx.tuning.observe_interval, wake));
        if let Some(entry) = self.objects.lock().get_mut(key) {
            entry.built_from = Some(fingerprint);
        }
        if let Some(workspaces) = self.workspaces.get() {
            if let Some(old) = old {
                old.stop.cancel();
                workspaces.session_replaced(key, &old, &session);
            }
            workspaces.wake(waiting);
        }
        self.tell_routes(key);
        Ok(session)
    }

    fn close(&self, key: &ObjectKey, connection: &Arc<Connection>, why: Unavailable) {
        let lookup = self.ctx.sessions.peek(key);
        if let Some(Ok(session)) = lookup.map(|lookup| lookup.session) {
            session.stop.cancel();
        }
        if let Some(entry) = self.objects.lock().get_mut(key) {
            entry.built_from = None;
        }
        let waiting = self.ctx.sessions.set(key, connection.clone(), Err(why));
        if let Some(workspaces) = self.workspaces.get() {
            workspaces.wake(waiting);
        }
        self.tell_routes(key);
    }

    async fn report(&self, connection: &Connection, outcome: &Outcome) -> Result<()> {
        let connected = self.ctx.sessions.all().iter().filter(|(_, lookup)| lookup.is_connected()).count();
        self.ctx.metrics.feeds_connected.set(i64::try_from(connected).unwrap_or(i64::MAX));
        let mut next = status::after(connection, outcome, self.ctx.now());
        if let Some(orphans) = self.ctx.gates().and_then(|gates| gates.orphans(&ObjectKey::of(connection))) {
            next.orphaned_gates = orphans;
        }
        let flipped = status::flipped(connection.status.as_ref(), &next);
        if let Some(written) = publish::publish(&self.ctx.client, connection, connection.status.as_ref(), &next).await? {
            self.ctx.metrics.status_written(KIND);
            self.remember(written);
            if let Some((warning, reason, message)) = flipped {
                self.ctx.event(connection, warning, &reason, &message).await;
            }
        }
        Ok(())
    }

    /// The own write is known at once: the next pass never plans from what was before it.
    fn remember(&self, written: Connection) {
        if let Some(entry) = self.objects.lock().get_mut(&ObjectKey::of(&written)) {
            entry.object = Arc::new(written);
        }
    }

    /// A Connection stays while resources that are being deleted need it.
    async fn let_go(&self, key: &ObjectKey, connection: &Arc<Connection>) -> Result<Option<Duration>> {
        if !connection.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(None);
        }
        let Some(needed) = self.workspaces.get().and_then(|workspaces| workspaces.with_finalizer(key)) else {
            return Ok(Some(Duration::from_millis(500)));
        };
        let suspended = status::is_suspended(connection, self.ctx.now());
        if needed > 0 && !suspended && self.ctx.sessions.peek(key).is_none_or(|lookup| lookup.session.is_err()) {
            let entry = Entry { object: connection.clone(), failures: 0, built_from: None };
            if let Err(error) = self.open(key, &entry).await {
                self.close(key, connection, unusable(&error));
            }
        }
        if needed == 0 {
            finalizers::remove(&self.ctx.client, &**connection).await?;
            return Ok(None);
        }
        let mut next = connection.status.clone().unwrap_or_default();
        status::say_needed(&mut next, connection, needed, self.ctx.now());
        if let Some(written) = publish::publish(&self.ctx.client, &**connection, connection.status.as_ref(), &next).await? {
            self.ctx.metrics.status_written(KIND);
            self.remember(written);
        }
        Ok(Some(Duration::from_secs(5)))
    }
}

/// The way to the tenant of a Connection, with its limits, and what the tenant says about itself. No fence is taken yet.
pub async fn driver(
    ctx: &Context,
    connection: &Connection,
    credentials: Credentials,
) -> Result<(Arc<dyn File360>, Service)> {
    let limits = connection.spec.limits.as_ref();
    let (rate, concurrency) =
        (limits.and_then(|limits| limits.requests_per_second), limits.and_then(|limits| limits.concurrency));
    let settings = Settings {
        endpoint: credentials.endpoint,
        credential: credentials.credential,
        http: credentials.http,
        requests_per_second: rate,
        concurrency,
        stop_writes: ctx.stop_writes.clone(),
        observer: ctx.metrics.clone(),
    };
    let (driver, transport) = file360::driver(connection.spec.driver(), settings);
    let service = driver.service().await?;
    if rate.is_none() {
        transport.limit_rate(service.limits.requests_per_second);
    }
    if concurrency.is_none() {
        transport.limit_concurrency(service.limits.concurrency);
    }
    Ok((driver, service))
}

/// Whether two versions of a Connection differ in something that a pass looks at.
fn differs(last: &Connection, next: &Connection) -> bool {
    last.uid() != next.uid()
        || last.meta().generation != next.meta().generation
        || last.meta().deletion_timestamp != next.meta().deletion_timestamp
        || last.annotations().get(REQUESTED_AT) != next.annotations().get(REQUESTED_AT)
}

/// Why a Connection has no session.
fn unusable(error: &Error) -> Unavailable {
    let no_credential = error.kind == Kind::Reference || error.code == "unauthenticated";
    Unavailable::Because { why: error.to_string(), no_credential }
}

fn wait_after(failures: u32, error: &Error) -> Duration {
    let own = Duration::from_millis(500).saturating_mul(2u32.saturating_pow(failures.min(8)));
    backoff::jittered(error.retry_after.unwrap_or_default().max(own.min(LONGEST_WAIT)))
}

/// Hears what one session's feed tells.
struct Waker {
    key: ObjectKey,
    ctx: Arc<Context>,
    connections: Weak<Connections>,
    workspaces: Option<Arc<SecureWorkspaces>>,
}

impl Wake for Waker {
    fn workspace_changed(&self, key: &ObjectKey, change: Option<Foreign>) {
        if let Some(workspaces) = &self.workspaces {
            workspaces.remote_changed(key, change);
        }
    }

    fn files_changed(&self, key: &ObjectKey, path: Option<&str>) {
        if let Some(workspaces) = &self.workspaces {
            workspaces.files_changed(key, path);
        }
    }

    fn entry_handled(&self, at: Timestamp) {
        let lag = self.ctx.now().duration_since(at).as_secs_f64();
        self.ctx.metrics.feed_lag_seconds.set(lag.max(0.0));
    }

    fn principals_changed(&self) {
        if let Some(workspaces) = &self.workspaces {
            workspaces.retry_failed(&self.key);
        }
    }

    fn tenant_is_back(&self, keys: Vec<ObjectKey>) {
        if let Some(workspaces) = &self.workspaces {
            workspaces.wake(keys);
        }
    }

    fn feed_state_changed(&self) {
        if let Some(connections) = self.connections.upgrade() {
            connections.push(self.key.clone());
        }
    }
}
