//! Gates: what File 360 holds back for a decision is let through, asked about, or refused.
//!
//! The folder is closed by File 360 itself (A1), and what is pending is listed there: that listing is the record that nothing is forgotten (R2),
//! whatever the position in the feed. A pass over a tenant reads it, finds out for each thing which gates hold it, makes its Approvals, and
//! carries decisions out. docs/decisions/0018 says why it is so.

mod carry;
mod pass;
mod refusals;
pub mod register;
mod thing;
mod tickets;
mod verify;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::api::FileRoute;
use crate::api::connection::OrphanedGate;
use crate::controllers::approval::Approvals;
use crate::controllers::connection::Connections;
use crate::controllers::context::Context;
use crate::controllers::file_route::{FileRoutes, connection_key, engine};
use crate::controllers::secure_workspace::{Labels, SecureWorkspaces};
use crate::error::{Error, Kind, Result};
use crate::file360::Cause;
use crate::file360::feature::Feature;
use crate::file360::model::{ChangeKind, GateAction};
use crate::reconcile::{ObjectKey, backoff};
use crate::routes::build;
use crate::session::Session;
use refusals::Refusals;
use register::{Declared, Register};
use verify::Unverified;

/// How often it is looked whether a Connection has a new session.
const LOOK: Duration = Duration::from_millis(500);
/// Several changes come together.
const GATHER: Duration = Duration::from_millis(50);
/// What is pending is listed this often even when nothing was heard of it.
const INVENTORY: Duration = Duration::from_mins(10);
/// Folders that are gated at once.
const AT_ONCE: usize = 16;
/// Orphaned gates that the status of a Connection shows.
const SHOWN: usize = 20;
const KIND: &str = "Gate";

/// The gates of all tenants.
pub struct Gates {
    ctx: Arc<Context>,
    approvals: Arc<Approvals>,
    routes: Arc<FileRoutes>,
    workspaces: Arc<SecureWorkspaces>,
    tenants: Mutex<HashMap<ObjectKey, Arc<Tenant>>>,
    /// When the other system was asked last.
    polled: Mutex<HashMap<ObjectKey, Instant>>,
    /// Systems that failed, and when they are tried again.
    later: Mutex<HashMap<ObjectKey, tickets::Later>>,
    connections: Arc<Connections>,
}

/// A tenant with its gates, for one session.
struct Tenant {
    session: Arc<Session>,
    /// Read once for a session; one that could not be read is read again.
    register: tokio::sync::Mutex<Option<Arc<Register>>>,
    wake: Notify,
    /// The same for those who talk to other systems.
    wake_tickets: Notify,
    found: Mutex<Found>,
    /// Gates that have to be looked at.
    unverified: Mutex<Unverified>,
    /// Decisions that File 360 refuses.
    refusals: Refusals<String>,
    keeper: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Tenant {
    fn wake(&self) {
        self.wake.notify_one();
        self.wake_tickets.notify_one();
    }
}

/// What the last pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    awaiting: HashMap<ObjectKey, u64>,
    orphans: Vec<OrphanedGate>,
}

impl Gates {
    /// Nothing runs before [`Gates::run`].
    pub fn new(
        ctx: Arc<Context>,
        approvals: Arc<Approvals>,
        routes: Arc<FileRoutes>,
        workspaces: Arc<SecureWorkspaces>,
        connections: Arc<Connections>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ctx,
            approvals,
            routes,
            workspaces,
            connections,
            tenants: Mutex::default(),
            polled: Mutex::default(),
            later: Mutex::default(),
        })
    }

    /// Works until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        let work = async { tokio::join!(self.follow_sessions(), self.follow_approvals()) };
        tokio::select! {
            _ = work => {}
            () = self.ctx.shutdown.cancelled() => {}
        }
        self.tenants.lock().clear();
    }

    /// Something about the routes of a Connection changed.
    pub fn wake(&self, connection: &ObjectKey) {
        if let Some(tenant) = self.tenants.lock().get(connection) {
            tenant.wake();
        }
    }

    /// How many things a route's gates hold back.
    pub fn awaiting(&self, connection: &ObjectKey, route: &ObjectKey) -> u64 {
        let tenants = self.tenants.lock();
        tenants.get(connection).and_then(|tenant| tenant.found.lock().awaiting.get(route).copied()).unwrap_or_default()
    }

    /// The gates of a Connection that no route declares any more; `None`: not known yet.
    pub fn orphans(&self, connection: &ObjectKey) -> Option<Vec<OrphanedGate>> {
        let tenants = self.tenants.lock();
        tenants.get(connection).map(|tenant| tenant.found.lock().orphans.clone())
    }

    /// Closes what a route's gates declare in these workspaces. When this returns, nothing that arrives there is visible before it was looked at.
    pub async fn install(&self, route: &FileRoute, session: &Arc<Session>, workspaces: Vec<&str>) -> Result<()> {
        let Some(declared) = declared(route) else { return Ok(()) };
        if !session.enforcement.has(Feature::Intake) {
            let why = "the Connection's server has no intake policies, so that a gate could not hold anything back: see status.enforcement";
            return Err(Error::new(Kind::Unsupported, why));
        }
        let register = self.register_of(&connection_key(route), session).await?;
        let cause = Cause(format!("gate/{}", route.uid().unwrap_or_default()));
        let (register, declared, cause) = (&register, &declared, &cause);
        let missing = workspaces.into_iter().filter(|workspace| !register.has(declared, workspace));
        let installs: Vec<BoxFuture<'_, Result<()>>> = missing
            .map(|workspace| {
                let workspace = workspace.to_owned();
                async move {
                    match register.install(&*session.driver, declared, &workspace, cause).await {
                        // A workspace that is gone has nothing to hold back; one that is there and not closed is open.
                        Err(error)
                            if error.kind == Kind::NotFound && session.driver.workspace(&workspace).await?.is_none() =>
                        {
                            Ok(())
                        }
                        other => other.map_err(|error| error.while_doing("close a gate")),
                    }
                }
                .boxed()
            })
            .collect();
        let results: Vec<Result<()>> = futures::stream::iter(installs).buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    /// Closes every gate that a route declares for a workspace, before it gets members or upload requests.
    pub async fn close_for(
        &self,
        key: &ObjectKey,
        labels: &Labels,
        connection: &ObjectKey,
        session: &Arc<Session>,
        workspace: &str,
    ) -> Result<()> {
        // C5: which routes there are is not known yet; that is not the same as none.
        while !self.routes.is_listed() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for route in self.routes.gated(connection) {
            let spec = &route.object.spec;
            let is_local = route.key.namespace == key.namespace && engine::reads(spec, &key.name, labels);
            if is_local || route.reads.contains(workspace) {
                self.install(&route.object, session, vec![workspace]).await?;
            }
        }
        Ok(())
    }

    /// The register of a Connection's tenant, as this session read it.
    async fn register_of(&self, connection: &ObjectKey, session: &Arc<Session>) -> Result<Arc<Register>> {
        let tenant = self.tenant(connection, session);
        let mut register = tenant.register.lock().await;
        if let Some(register) = &*register {
            return Ok(register.clone());
        }
        let read = Arc::new(Register::read(&*session.driver, &self.ctx.cluster_id, connection).await?);
        *register = Some(read.clone());
        Ok(read)
    }

    fn tenant(&self, connection: &ObjectKey, session: &Arc<Session>) -> Arc<Tenant> {
        let mut tenants = self.tenants.lock();
        match tenants.get(connection) {
            Some(tenant) if Arc::ptr_eq(&tenant.session, session) => tenant.clone(),
            before => {
                let found = before.map(|before| before.found.lock().clone()).unwrap_or_default();
                let tenant = Arc::new(Tenant {
                    session: session.clone(),
                    register: tokio::sync::Mutex::default(),
                    wake: Notify::new(),
                    wake_tickets: Notify::new(),
                    found: Mutex::new(found),
                    unverified: Mutex::default(),
                    refusals: Refusals::default(),
                    keeper: Mutex::default(),
                });
                tenants.insert(connection.clone(), tenant.clone());
                tenant
            }
        }
    }

    /// Every tenant that can hold things back has a keeper.
    async fn follow_sessions(self: &Arc<Self>) {
        loop {
            let mut alive = HashSet::new();
            for (key, lookup) in self.ctx.sessions.all() {
                let Ok(session) = lookup.session else { continue };
                if !session.enforcement.has(Feature::Intake) {
                    continue;
                }
                let tenant = self.tenant(&key, &session);
                alive.insert(key.clone());
                let mut keeper = tenant.keeper.lock();
                if keeper.is_none() {
                    let (this, tenant) = (self.clone(), tenant.clone());
                    *keeper = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                        tokio::join!(this.keep(&key, &tenant), this.keep_tickets(&key, &tenant));
                    })));
                }
            }
            self.tenants.lock().retain(|key, _| alive.contains(key));
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn follow_approvals(&self) {
        let mut news = self.approvals.news();
        loop {
            match news.recv().await {
                Ok(key) => {
                    let connection = self.approvals.get(&key).map(|approval| connection_of(&key, &approval.spec));
                    match connection {
                        Some(connection) => self.wake(&connection),
                        // It is gone: whoever asked asks again.
                        None => {
                            self.polled.lock().remove(&key);
                            self.later.lock().remove(&key);
                            self.wake_all();
                        }
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all(),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn wake_all(&self) {
        self.tenants.lock().values().for_each(|tenant| tenant.wake());
    }

    /// Passes over one tenant whenever something may have changed.
    async fn keep(&self, connection: &ObjectKey, tenant: &Tenant) {
        let mut pages = tenant.session.pages();
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let result = self.pass(connection, tenant).await;
            let wait = match result {
                Ok(wait) => {
                    failures = 0;
                    self.ctx.metrics.pass_ended(KIND, "converged", started.elapsed());
                    wait.unwrap_or(INVENTORY)
                }
                Err(error) => {
                    failures += 1;
                    warn!(%connection, %error, failures, "What is pending could not be looked at");
                    self.ctx.metrics.pass_ended(KIND, error.kind.as_str(), started.elapsed());
                    backoff::delay(failures, rand::random()).min(Duration::from_secs(30))
                }
            };
            let heard = async {
                loop {
                    match pages.recv().await {
                        Ok(page) => {
                            let may_open = tenant.unverified.lock().heard(&page.items);
                            if may_open || page.items.iter().any(|change| concerns(change.kind)) {
                                return;
                            }
                        }
                        Err(broadcast::error::RecvError::Lagged(_)) => {
                            tenant.unverified.lock().everything();
                            return;
                        }
                        Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = tenant.session.stop.cancelled() => return,
                () = tenant.wake.notified() => {}
                () = heard => {}
                () = tokio::time::sleep(wait) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Talks to other systems; one that is slow or away keeps nothing else waiting.
    async fn keep_tickets(&self, connection: &ObjectKey, tenant: &Tenant) {
        loop {
            let wait = match self.tickets(connection, tenant).await {
                Ok(wait) => wait.unwrap_or(INVENTORY),
                Err(error) => {
                    debug!(%connection, %error, "The systems that decide could not be looked after");
                    backoff::jittered(Duration::from_secs(5))
                }
            };
            tokio::select! {
                () = tenant.session.stop.cancelled() => return,
                () = tenant.wake_tickets.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Takes up what a pass found, and tells whoever reports it.
    fn report(&self, connection: &ObjectKey, tenant: &Tenant, found: &Found) {
        let before = std::mem::replace(&mut *tenant.found.lock(), found.clone());
        let changed = before.awaiting.keys().chain(found.awaiting.keys());
        let changed: HashSet<&ObjectKey> =
            changed.filter(|route| before.awaiting.get(*route) != found.awaiting.get(*route)).collect();
        changed.into_iter().for_each(|route| self.routes.engine_changed(route, true));
        let held: u64 = self.tenants.lock().values().map(|tenant| tenant.found.lock().awaiting.values().sum::<u64>()).sum();
        self.ctx.metrics.approvals_awaited.set(i64::try_from(held).unwrap_or(i64::MAX));
        if before.orphans != found.orphans {
            info!(%connection, orphaned = found.orphans.len(), "Gates that no route declares");
            self.connections.push(connection.clone());
        }
    }
}

/// Whether a change can be about something pending.
fn concerns(kind: ChangeKind) -> bool {
    matches!(
        kind,
        ChangeKind::GovernanceChanged
            | ChangeKind::FileUploaded
            | ChangeKind::VersionAdded
            | ChangeKind::LinkChanged
            | ChangeKind::MemberSet
            | ChangeKind::MemberRemoved
            | ChangeKind::FileDeleted
            | ChangeKind::Unknown
    )
}

/// The Connection that an Approval is about.
fn connection_of(key: &ObjectKey, spec: &crate::api::ApprovalSpec) -> ObjectKey {
    let reference = &spec.connection_ref;
    ObjectKey::new(reference.namespace.as_deref().unwrap_or(&key.namespace), &reference.name)
}

/// What a route's gates hold back, all rules together; `None`: it has none.
pub fn declared(route: &FileRoute) -> Option<Declared> {
    let gates: Vec<_> = route.spec.rules.iter().filter_map(|rule| rule.gate.as_ref()).collect();
    if gates.is_empty() {
        return None;
    }
    let mut actions: Vec<GateAction> = gates.iter().flat_map(|gate| gate.actions.iter().copied()).collect();
    actions.sort_unstable();
    actions.dedup();
    Some(Declared {
        route: ObjectKey::of(route),
        path: build::pattern(&route.spec).root(),
        actions,
        min_approvals: gates.iter().filter_map(|gate| gate.min_approvals).max().unwrap_or(1),
        separates: gates.iter().any(|gate| gate.separation_of_duties == Some(true)),
    })
}
