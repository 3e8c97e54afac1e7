//! FileRoute: the controller. A pass makes sure that the route's engine runs as the spec says, and reports what it does.

pub mod engine;
pub mod status;
pub mod worker;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::api::connection::{GrantKind, GrantScope};
use crate::api::file_route::RouteMode;
use crate::api::{Connection, FileRoute, INVENTORY_AT, REPLAY_AT, REQUESTED_AT};
use crate::controllers::context::Context;
use crate::controllers::secure_workspace::SecureWorkspaces;
use crate::controllers::{grants, references::ReferenceStore, until};
use crate::error::{Error, Kind, Result};
use crate::file360::feature::{Feature, Level};
use crate::outbound::http::Clients;
use crate::reconcile::queue::Queue;
use crate::reconcile::{ObjectKey, backoff, publish};
use crate::routes::inventory::Request;
use crate::session::{Lookup, Unavailable};
use engine::Running;

const KIND: &str = "FileRoute";
/// Passes at once.
const WORKERS: usize = 4;
/// Numbers alone are written at most this often.
const NUMBERS_EVERY: Duration = Duration::from_mins(1);
/// Numbers that begin to move are written after this long, so that the first ones come together.
const GATHER: Duration = Duration::from_secs(1);
/// What changed important is written this much later, so that several changes come together.
const SOON: Duration = Duration::from_millis(100);
/// Labels of workspaces are looked at this often.
const SCOPE_EVERY: Duration = Duration::from_millis(200);
/// What a route needs of its server.
const NEEDED: [Feature; 3] = [Feature::Changes, Feature::ClientState, Feature::Facets];

/// The controller of FileRoutes.
pub struct FileRoutes {
    ctx: Arc<Context>,
    queue: Queue,
    routes: Mutex<HashMap<ObjectKey, Entry>>,
    workspaces: OnceLock<Arc<SecureWorkspaces>>,
    references: Arc<ReferenceStore>,
    clients: Arc<Clients>,
    listed: AtomicBool,
    me: Weak<Self>,
}

/// A route with gates.
pub struct GatedRoute {
    /// Which one.
    pub key: ObjectKey,
    /// The same.
    pub object: Arc<FileRoute>,
    /// Ids of the workspaces that it reads.
    pub reads: HashSet<String>,
    /// Ids of all workspaces that its namespace declares on its Connection.
    pub declared: HashSet<String>,
    /// What evaluates its rules, while it runs.
    pub running: Option<RunningGate>,
}

/// What evaluates the rules of a route with gates.
pub struct RunningGate {
    /// Its engine.
    pub engine: Arc<crate::routes::engine::Engine>,
    /// The workspaces it reads.
    pub scope: Arc<crate::routes::items::Scope>,
    /// Its files.
    pub items: Arc<crate::routes::items::ItemSource>,
}

struct Entry {
    object: Arc<FileRoute>,
    failures: u32,
    running: Option<Running>,
    written_at: Option<Instant>,
    replayed: Option<String>,
    counted: Option<String>,
    /// The last request for a pass that hurried what waits.
    hurried: Option<String>,
}

/// What a pass found out.
pub enum Outcome {
    /// The engine runs.
    Runs(Box<crate::routes::engine::Snapshot>),
    /// A dry run ended.
    Tried(Box<crate::api::file_route::DryRunStatus>),
    /// Suspended.
    Suspended,
    /// It cannot run.
    Failed(Error),
}

impl FileRoutes {
    /// Nothing runs before [`FileRoutes::run`].
    pub fn new(ctx: Arc<Context>, references: Arc<ReferenceStore>, clients: Arc<Clients>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            ctx,
            queue: Queue::new(WORKERS),
            routes: Mutex::default(),
            workspaces: OnceLock::new(),
            references,
            clients,
            listed: AtomicBool::new(false),
            me: me.clone(),
        })
    }

    /// Tells where workspaces are declared.
    pub fn reads(&self, workspaces: Arc<SecureWorkspaces>) {
        let _ = self.workspaces.set(workspaces);
    }

    /// Watches and works until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        let workers = (0..WORKERS).map(|_| {
            let this = self.clone();
            async move {
                while let Some(key) = this.queue.next().await {
                    Box::pin(this.pass(&key)).await;
                    this.queue.done(&key);
                    this.ctx.metrics.set_queue_depth(KIND, this.queue.len());
                }
            }
        });
        let work = async { tokio::join!(self.watch(), self.watch_scopes(), futures::future::join_all(workers)) };
        tokio::select! {
            _ = work => {}
            () = self.ctx.shutdown.cancelled() => self.queue.close(),
        }
        // Engines stop where they are: what they were at is found again.
        let running: Vec<Running> = self.routes.lock().drain().filter_map(|(_, entry)| entry.running).collect();
        futures::future::join_all(running.into_iter().map(Running::end)).await;
    }

    /// The session, the grants or the ceiling of a Connection changed, or it is gone.
    pub fn connection_changed(&self, connection: &ObjectKey) {
        let routes = self.routes.lock();
        routes
            .iter()
            .filter(|(_, entry)| connection_key(&entry.object) == *connection)
            .for_each(|(key, _)| self.queue.push(key.clone()));
    }

    /// Whether the first listing is complete.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// The routes of a Connection that have a gate and that it is granted to, whether they run or not.
    pub fn gated(&self, connection: &ObjectKey) -> Vec<GatedRoute> {
        let routes = self.routes.lock();
        let fits = |entry: &Entry| {
            entry.object.meta().deletion_timestamp.is_none()
                && entry.object.spec.rules.iter().any(|rule| rule.gate.is_some())
                && connection_key(&entry.object) == *connection
        };
        // C5: while the Connection is not known, nothing is taken from anybody.
        let lookup = self.ctx.sessions.peek(connection);
        let reached = |entry: &Entry| match &lookup {
            Some(lookup) => permitted(&self.ctx, &entry.object, lookup).ok(),
            None => Some(GrantScope::Declared),
        };
        let fitting = routes.iter().filter(|(_, entry)| fits(entry));
        fitting.filter_map(|(key, entry)| Some(self.gate_of(key, entry, connection, reached(entry)?))).collect()
    }

    /// How far a Connection lets the routes of a namespace reach; `None`: not at all, or it is not known.
    pub fn reached(&self, namespace: &str, connection: &ObjectKey) -> Option<GrantScope> {
        let lookup = self.ctx.sessions.peek(connection)?;
        let labels = self.ctx.namespaces.of(namespace);
        let asking = grants::Asking { namespace, labels: &labels, kind: GrantKind::FileRoute, external_system: None };
        grants::scope(&connection.namespace, &lookup.connection.spec, &asking).ok()
    }

    fn gate_of(&self, key: &ObjectKey, entry: &Entry, connection: &ObjectKey, scope: GrantScope) -> GatedRoute {
        let spec = &entry.object.spec;
        let known = self.workspaces.get().map(|workspaces| workspaces.declared(&key.namespace, connection));
        let known = known.unwrap_or_default();
        // Who may use its own workspaces only does not gate another's by naming it.
        let ids = || {
            let named = spec.from.workspaces.iter().flat_map(|from| from.ids.iter().flatten());
            let may = |id: &&String| scope == GrantScope::Tenant || known.iter().any(|(_, own, _)| own == *id);
            named.filter(may).cloned()
        };
        let fitting = known.iter().filter(|(name, _, labels)| engine::reads(spec, name, labels));
        let reads = fitting.map(|(_, id, _)| id.clone()).chain(ids()).collect();
        let declared = known.iter().map(|(_, id, _)| id.clone()).chain(ids()).collect();
        // One that runs for an earlier spec does not know the gates of this one.
        let running = entry
            .running
            .as_ref()
            .filter(|running| !running.has_ended() && Some(running.generation) == entry.object.meta().generation);
        let running = running.map(|running| RunningGate {
            engine: running.engine.clone(),
            scope: running.scope.clone(),
            items: running.items.clone(),
        });
        GatedRoute { key: key.clone(), object: entry.object.clone(), reads, declared, running }
    }

    fn wake_gates(&self, object: &FileRoute) {
        if let Some(gates) = self.ctx.gates() {
            gates.wake(&connection_key(object));
        }
    }

    /// The labels of a namespace changed: grants by selector may end or begin.
    pub fn namespace_changed(&self, namespace: &str) {
        let routes = self.routes.lock();
        routes.keys().filter(|key| &*key.namespace == namespace).for_each(|key| self.queue.push(key.clone()));
    }

    async fn watch(&self) {
        self.ctx.readiness.waits("routes", "the first listing");
        let api: Api<FileRoute> = crate::controllers::api_of(&self.ctx);
        let mut events = std::pin::pin!(crate::controllers::watch(api));
        let mut listing = std::collections::HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(object)) => {
                    listing.insert(ObjectKey::of(&object));
                    self.saw(object);
                }
                Ok(Event::InitDone) => {
                    let gone: Vec<ObjectKey> =
                        self.routes.lock().keys().filter(|key| !listing.contains(*key)).cloned().collect();
                    gone.iter().for_each(|key| self.gone(key));
                    self.listed.store(true, Ordering::Release);
                    self.ctx.readiness.is_ready("routes");
                }
                Ok(Event::Apply(object)) => self.saw(object),
                Ok(Event::Delete(object)) => self.gone(&ObjectKey::of(&object)),
                Err(error) => warn!(%error, "The watch of FileRoutes failed; it starts again"),
            }
        }
    }

    /// Routes look again when workspaces of their namespace come, go or change their labels.
    async fn watch_scopes(&self) {
        loop {
            tokio::time::sleep(SCOPE_EVERY).await;
            let Some(namespaces) = self.workspaces.get().and_then(|workspaces| workspaces.take_relabelled()) else {
                continue;
            };
            let routes = self.routes.lock();
            routes.keys().filter(|key| namespaces.contains(&key.namespace)).for_each(|key| self.queue.push(key.clone()));
        }
    }

    fn saw(&self, mut object: FileRoute) {
        object.metadata.managed_fields = None;
        let key = ObjectKey::of(&object);
        let mut routes = self.routes.lock();
        match routes.get_mut(&key) {
            Some(entry) if entry.object.uid() == object.uid() => {
                let is_older = version(&object) < version(&entry.object);
                if is_older || !differs(&entry.object, &object) {
                    if !is_older {
                        entry.object = Arc::new(object);
                    }
                    return;
                }
                entry.object = Arc::new(object);
                entry.failures = 0;
            }
            _ => {
                let entry = Entry {
                    object: Arc::new(object),
                    failures: 0,
                    running: None,
                    written_at: None,
                    replayed: None,
                    counted: None,
                    hurried: None,
                };
                routes.insert(key.clone(), entry);
            }
        }
        drop(routes);
        self.queue.push(key);
    }

    /// A deleted route stops; its records stay, and one that is made again under its name goes on where it stood (R1).
    fn gone(&self, key: &ObjectKey) {
        self.queue.cancel(key);
        let gone = self.routes.lock().remove(key);
        if let Some(entry) = gone {
            self.wake_gates(&entry.object);
        }
    }

    async fn pass(&self, key: &ObjectKey) {
        let Some(object) = self.routes.lock().get(key).map(|entry| entry.object.clone()) else { return };
        if object.meta().deletion_timestamp.is_some() {
            self.stop(key).await;
            return;
        }
        let started = Instant::now();
        let outcome = self.converge(key, &object).await;
        self.wake_gates(&object);
        let outcome = match outcome {
            Ok(Some(outcome)) => outcome,
            // The Connection has no session: what was reported stays.
            Ok(None) => return,
            Err(error) => Outcome::Failed(error),
        };
        let told = match &outcome {
            Outcome::Failed(error) => error.kind.as_str(),
            _ => "converged",
        };
        self.ctx.metrics.pass_ended(KIND, told, started.elapsed());
        if let Outcome::Failed(error) = &outcome {
            self.stop(key).await;
            let failures = self.failed(key);
            warn!(object = %key, %error, failures, "The route does not run");
            self.queue.push_after(key.clone(), backoff::delay(failures, rand::random()));
        }
        if let Err(error) = self.report(key, &object, &outcome).await {
            warn!(object = %key, %error, "The status could not be written");
            self.queue.push_after(key.clone(), backoff::jittered(Duration::from_secs(2)));
        }
        if let Some(again) = object.spec.suspend_until.filter(|_| matches!(outcome, Outcome::Suspended)) {
            self.queue.push_after(key.clone(), until(again, self.ctx.now()) + Duration::from_millis(100));
        }
    }

    fn failed(&self, key: &ObjectKey) -> u32 {
        self.routes.lock().get_mut(key).map_or(1, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures
        })
    }

    /// Stops the engine, if one runs; what it did is recorded before this returns, unless File 360 does not answer.
    async fn stop(&self, key: &ObjectKey) {
        let running = self.routes.lock().get_mut(key).and_then(|entry| entry.running.take());
        if let Some(running) = running {
            running.end().await;
        }
    }

    /// Brings the engine to what the spec says.
    async fn converge(&self, key: &ObjectKey, object: &Arc<FileRoute>) -> Result<Option<Outcome>> {
        if is_suspended(object, self.ctx.now()) {
            self.stop(key).await;
            return Ok(Some(Outcome::Suspended));
        }
        let connection = connection_key(object);
        let Some(lookup) = self.ctx.sessions.peek(&connection) else {
            return self.without_connection(key, object);
        };
        let scope = permitted(&self.ctx, object, &lookup)?;
        let Some(workspaces) = self.workspaces.get().filter(|workspaces| workspaces.is_listed()) else {
            // C5: which workspaces there are is not known yet; that is not the same as none.
            self.queue.push_after(key.clone(), SOON);
            return Ok(None);
        };
        let session = match &lookup.session {
            Ok(session) => session.clone(),
            Err(Unavailable::Pending) => return Ok(None),
            Err(why) => {
                self.stop(key).await;
                return Err(Error::new(Kind::Unavailable, format!("the Connection cannot be used: {why}")));
            }
        };
        let missing = NEEDED.iter().filter(|needed| session.enforcement.level(**needed) != Level::Native);
        let missing: Vec<String> = missing.map(|feature| format!("{feature:?}")).collect();
        if !missing.is_empty() {
            let why = format!(
                "Connection {} (driver {}) lacks {}: a route follows the feed and keeps its position and its deliveries at the \
                 server; name a Connection whose status.enforcement has them as Native",
                connection.name,
                lookup.connection.spec.driver(),
                missing.join(", ")
            );
            return Err(Error::new(Kind::Unsupported, why));
        }
        let surroundings = engine::Surroundings {
            ctx: &self.ctx,
            key,
            object,
            connection: &lookup.connection,
            tenant: session.driver.clone(),
            reach: scope,
            declarations: workspaces.clone(),
            references: self.references.of(&key.namespace),
            clients: self.clients.clone(),
        };
        self.check_inbound_keys(key, object).await?;
        let lead = engine::Lead { session: &session, workspaces, controller: self.me.clone() };
        if object.spec.mode == Some(RouteMode::DryRun) {
            self.stop(key).await;
            return Ok(Some(Outcome::Tried(Box::new(surroundings.dry_run(lead.workspaces).await?))));
        }
        self.ensure_engine(key, &surroundings, &lead).await?;
        self.hurry(key, object);
        self.replay(key, object).await;
        self.count(key, object);
        let snapshot = self.routes.lock().get(key).and_then(|entry| Some(entry.running.as_ref()?.engine.snapshot()));
        Ok(snapshot.map(|snapshot| Outcome::Runs(Box::new(snapshot))))
    }

    /// Without its keys an endpoint takes nothing in: the route says so, instead of waiting for files that cannot come.
    async fn check_inbound_keys(&self, key: &ObjectKey, object: &FileRoute) -> Result<()> {
        let Some(http) = &object.spec.from.http else { return Ok(()) };
        let secret = &http.hmac_ref.name;
        match self.references.of(&key.namespace).keys(secret).await {
            Ok(keys) if keys.is_empty() => {
                Err(Error::new(Kind::Reference, format!("from.http.hmacRef: Secret {secret} has no key to sign with")))
            }
            Err(error) if error.kind == Kind::Reference => Err(error.while_doing("read from.http.hmacRef")),
            // C5: that it could not be read is not that it is absent.
            _ => Ok(()),
        }
    }

    fn without_connection(&self, key: &ObjectKey, object: &FileRoute) -> Result<Option<Outcome>> {
        let namespace = object.namespace().unwrap_or_default();
        if self.failed(key) == 1 {
            // Routes are often applied together with their Connection.
            self.queue.push_after(key.clone(), Duration::from_secs(1));
            return Ok(None);
        }
        Err(grants::not_granted(&namespace))
    }

    /// Starts the engine, or leaves the one that fits; then tells it which workspaces there are.
    async fn ensure_engine(
        &self,
        key: &ObjectKey,
        surroundings: &engine::Surroundings<'_>,
        lead: &engine::Lead<'_>,
    ) -> Result<()> {
        let fingerprint = surroundings.fingerprint();
        let scope = surroundings.scope(lead.workspaces)?;
        self.close_gates(surroundings, lead, &scope).await?;
        {
            let routes = self.routes.lock();
            let running = routes.get(key).and_then(|entry| entry.running.as_ref());
            if let Some(running) = running.filter(|running| running.fingerprint == fingerprint && !running.has_ended()) {
                running.scope.set(scope);
                return Ok(());
            }
        }
        // The old engine is gone before the new one begins: there is one reader of the checkpoint.
        self.stop(key).await;
        let running = surroundings.start(lead, fingerprint, scope)?;
        info!(object = %key, "The route runs");
        if let Some(entry) = self.routes.lock().get_mut(key) {
            entry.failures = 0;
            entry.running = Some(running);
        }
        Ok(())
    }

    /// Whoever asks for a pass wants to see now whether what waits can be done. Once for each new value.
    fn hurry(&self, key: &ObjectKey, object: &FileRoute) {
        let Some(token) = object.annotations().get(REQUESTED_AT) else { return };
        let handled = object.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_ref());
        let mut routes = self.routes.lock();
        let Some(entry) = routes.get_mut(key).filter(|entry| entry.hurried.as_ref() != Some(token)) else { return };
        if handled != Some(token)
            && let Some(running) = &entry.running
        {
            running.engine.hurry();
        }
        entry.hurried = Some(token.clone());
    }

    /// Before a route runs, or looks at a workspace, File 360 holds back what its gates declare.
    async fn close_gates(
        &self,
        surroundings: &engine::Surroundings<'_>,
        lead: &engine::Lead<'_>,
        scope: &HashMap<String, crate::routes::items::Scoped>,
    ) -> Result<()> {
        if surroundings.object.spec.rules.iter().all(|rule| rule.gate.is_none()) {
            return Ok(());
        }
        let Some(gates) = self.ctx.gates() else {
            return Err(Error::new(Kind::Stopping, "the gates are not looked after yet"));
        };
        // A route that cannot run closes nothing new.
        surroundings.make(&Arc::default())?;
        gates.install(surroundings.object, lead.session, scope.keys().map(String::as_str).collect()).await
    }

    /// `kubectl file360 replay` sets an annotation; each new value tries the dead letters again once.
    async fn replay(&self, key: &ObjectKey, object: &FileRoute) {
        let Some(token) = object.annotations().get(REPLAY_AT) else { return };
        let engine = {
            let routes = self.routes.lock();
            let Some(entry) = routes.get(key) else { return };
            if entry.replayed.as_ref() == Some(token) {
                return;
            }
            entry.running.as_ref().map(|running| running.engine.clone())
        };
        let Some(engine) = engine.filter(|engine| engine.is_restored()) else { return };
        match engine.replay(token).await {
            Ok(()) => {
                if let Some(entry) = self.routes.lock().get_mut(key) {
                    entry.replayed = Some(token.clone());
                }
            }
            Err(error) => {
                warn!(object = %key, %error, "The dead letters could not be read");
                self.queue.push_after(key.clone(), Duration::from_secs(2));
            }
        }
    }

    /// `kubectl file360 inventory` sets an annotation; each new value counts once.
    fn count(&self, key: &ObjectKey, object: &FileRoute) {
        let Some(value) = object.annotations().get(INVENTORY_AT) else { return };
        let mut routes = self.routes.lock();
        let Some(entry) = routes.get_mut(key).filter(|entry| entry.counted.as_ref() != Some(value)) else { return };
        let Some(running) = entry.running.as_ref().filter(|running| running.engine.is_restored()) else { return };
        running.engine.ask_for_inventory(Request::parse(value));
        entry.counted = Some(value.clone());
    }

    async fn report(&self, key: &ObjectKey, object: &FileRoute, outcome: &Outcome) -> Result<()> {
        let now = self.ctx.now();
        let http = object.spec.from.http.as_ref();
        let ingest_url = http.zip(self.ctx.public_url.as_ref()).map(|(http, url)| url.ingest(&key.namespace, &http.path));
        let mut next = status::after(object, outcome, ingest_url, now);
        if let Some(gates) = self.ctx.gates() {
            status::await_approval(object, &mut next, gates.awaiting(&connection_key(object), key), now);
        }
        self.measure();
        let written_at = self.routes.lock().get(key).and_then(|entry| entry.written_at);
        if status::differ_in_numbers_only(object.status.as_ref(), &next)
            && let Some(at) = written_at.map(|at| at + NUMBERS_EVERY).filter(|at| *at > Instant::now())
        {
            self.queue.push_after(key.clone(), at.saturating_duration_since(Instant::now()));
            return Ok(());
        }
        let events = status::events(object.status.as_ref(), &next);
        let Some(mut written) = publish::publish(&self.ctx.client, object, object.status.as_ref(), &next).await? else {
            return Ok(());
        };
        self.ctx.metrics.status_written(KIND);
        written.metadata.managed_fields = None;
        if let Some(entry) = self.routes.lock().get_mut(key) {
            entry.written_at = Some(Instant::now());
            if version(&written) >= version(&entry.object) && !differs(&entry.object, &written) {
                entry.object = Arc::new(written);
            }
        }
        for (warning, reason, message) in events {
            self.ctx.event(object, warning, &reason, &message).await;
        }
        Ok(())
    }

    /// What waits and what was given up, all routes together.
    fn measure(&self) {
        let routes = self.routes.lock();
        let snapshots = routes.values().filter_map(|entry| Some(entry.running.as_ref()?.engine.snapshot()));
        let (waiting, dead, unaccounted) = snapshots.fold((0, 0, 0), |(waiting, dead, unaccounted), one| {
            let found = one.inventory.map_or(0, |inventory| inventory.unaccounted);
            (waiting + one.waiting, dead + one.dead, unaccounted + found)
        });
        self.ctx.metrics.route_unaccounted.set(i64::try_from(unaccounted).unwrap_or(i64::MAX));
        self.ctx.metrics.route_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.ctx.metrics.route_dead_letters.set(i64::try_from(dead).unwrap_or(i64::MAX));
    }

    /// The engine of a route has something to tell.
    pub(crate) fn engine_changed(&self, key: &ObjectKey, important: bool) {
        self.queue.push_after(key.clone(), if important { SOON } else { GATHER });
    }
}

/// The Connection that an object names.
pub fn connection_key(object: &FileRoute) -> ObjectKey {
    let reference = &object.spec.connection_ref;
    let own = object.namespace().unwrap_or_default();
    ObjectKey::new(reference.namespace.as_deref().unwrap_or(&own), &reference.name)
}

/// How far the Connection lets the route reach.
fn permitted(ctx: &Context, object: &FileRoute, lookup: &Lookup) -> Result<GrantScope> {
    reach(object, &lookup.connection, &ctx.namespaces.of(&object.namespace().unwrap_or_default()))
}

/// The same. `labels` are those of the route's namespace.
fn reach(object: &FileRoute, connection: &Connection, labels: &BTreeMap<String, String>) -> Result<GrantScope> {
    let home = connection.namespace().unwrap_or_default();
    let namespace = object.namespace().unwrap_or_default();
    let asking = grants::Asking { namespace: &namespace, labels, kind: GrantKind::FileRoute, external_system: None };
    grants::scope(&home, &connection.spec, &asking)
}

fn is_suspended(object: &FileRoute, now: Timestamp) -> bool {
    object.spec.suspend == Some(true) && object.spec.suspend_until.is_none_or(|until| until > now)
}

/// Whether two versions of a route differ in something that a pass looks at.
fn differs(last: &FileRoute, next: &FileRoute) -> bool {
    let annotation = |object: &FileRoute, name: &str| object.annotations().get(name).cloned();
    last.uid() != next.uid()
        || last.meta().generation != next.meta().generation
        || last.meta().deletion_timestamp != next.meta().deletion_timestamp
        || [REQUESTED_AT, REPLAY_AT, INVENTORY_AT].iter().any(|name| annotation(last, name) != annotation(next, name))
}

fn version(object: &FileRoute) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
