//! Makes the engine of a route from everything around it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::FileRoutes;
use crate::api::connection::{GrantScope, MaxSharing};
use crate::api::file_route::{DryRunStatus, FileRouteSpec};
use crate::api::places::ObjectStore;
use crate::api::{Connection, FileRoute};
use crate::controllers::context::Context;
use crate::controllers::secure_workspace::{Labels, SecureWorkspaces};
use crate::error::{Error, Kind, Result, clean};
use crate::expression::InvalidField;
use crate::file360::content::IdempotencyKey;
use crate::file360::model::{AccessList, Audience, NewLink};
use crate::file360::sharing::lets_out;
use crate::file360::{Cause, File360};
use crate::hex::hex;
use crate::outbound::http::{self, Clients};
use crate::outbound::object_store::{self, Settings, Store};
use crate::outbound::secrets::References;
use crate::reconcile::ObjectKey;
use crate::routes::attempts::{Attempts, Here};
use crate::routes::build::{Network, Workshop, route};
use crate::routes::content::Bandwidth;
use crate::routes::delivery::{Delivery, Origin, RouteId};
use crate::routes::destinations::file360;
use crate::routes::destinations::http::Addresses;
use crate::routes::destinations::index::Readers;
use crate::routes::engine::{Engine, Observer, Parts};
use crate::routes::inventory::{Inventory, Stock};
use crate::routes::items::{ItemSource, Scope, Scoped};
use crate::routes::ledger::Names;
use crate::routes::objects::{Lister, ObjectSource};
use crate::routes::paths::PathPattern;
use crate::routes::reader::Reader;
use crate::routes::route::{Route, bytes};
use crate::routes::work::Source;
use crate::routes::{build, dry_run};
use crate::session::Session;

/// A running engine. Dropping it stops everything where it is.
pub struct Running {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The workspaces it reads; may change while it runs.
    pub scope: Arc<Scope>,
    /// Its files.
    pub items: Arc<ItemSource>,
    /// Of what it was made from.
    pub fingerprint: String,
    /// Generation of the spec that it was made from.
    pub generation: i64,
    /// Writes its records.
    writer: tokio::task::JoinHandle<()>,
    /// Reads and works.
    work: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    /// A task ended by itself, as when the session ended.
    pub fn has_ended(&self) -> bool {
        self.writer.is_finished() || self.work.is_finished()
    }

    /// Stops where it is, and returns once what was done is recorded, or could not be for 2 s.
    pub async fn end(mut self) {
        self.halt();
        let _ = (&mut self.work).await;
        let _ = (&mut self.writer).await;
    }

    /// The writer ends by itself.
    fn halt(&self) {
        self.engine.close();
        self.stop.cancel();
        self.work.abort();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Everything around a route, on the leader and in a worker alike.
pub struct Surroundings<'a> {
    /// What the controllers share.
    pub ctx: &'a Arc<Context>,
    /// The route.
    pub key: &'a ObjectKey,
    /// The same.
    pub object: &'a Arc<FileRoute>,
    /// Its Connection.
    pub connection: &'a Arc<Connection>,
    /// The tenant behind it.
    pub tenant: Arc<dyn File360>,
    /// How far it may reach.
    pub reach: GrantScope,
    /// Where workspaces are declared.
    pub declarations: Arc<dyn Declarations>,
    /// Secrets of its namespace.
    pub references: Arc<dyn References>,
    /// HTTP clients.
    pub clients: Arc<Clients>,
}

/// What only the leader has: it reads, and keeps records.
pub struct Lead<'a> {
    /// The session.
    pub session: &'a Arc<Session>,
    /// The workspaces of all namespaces.
    pub workspaces: &'a Arc<SecureWorkspaces>,
    /// Hears what the engine tells.
    pub controller: Weak<FileRoutes>,
}

/// Where workspaces are declared.
#[async_trait]
pub trait Declarations: Send + Sync {
    /// Workspace of one SecureWorkspace that uses a Connection, once it has one.
    async fn workspace_of(&self, key: &ObjectKey, connection: &ObjectKey) -> Result<Option<String>>;
}

#[async_trait]
impl Declarations for SecureWorkspaces {
    async fn workspace_of(&self, key: &ObjectKey, connection: &ObjectKey) -> Result<Option<String>> {
        Ok(SecureWorkspaces::workspace_of(self, key, connection))
    }
}

/// What the work of a route needs.
pub struct Made {
    /// The route.
    pub route: Route,
    /// Where its files come from.
    pub source: Arc<dyn Source>,
    /// The same, for files in workspaces.
    pub items: Arc<ItemSource>,
    /// The same, for objects of a store.
    pub objects: Option<Arc<ObjectSource>>,
}

impl Surroundings<'_> {
    /// Changes when what was made from it has to be made anew.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(serde_json::to_vec(&self.object.spec).unwrap_or_default());
        hash.update(self.object.metadata.generation.unwrap_or_default().to_be_bytes());
        hash.update(self.object.uid().unwrap_or_default());
        hash.update(serde_json::to_vec(&self.connection.spec.sharing).unwrap_or_default());
        hash.update(serde_json::to_vec(&self.connection.spec.limits).unwrap_or_default());
        hash.update(format!("{:p} {:?}", Arc::as_ptr(&self.tenant), self.reach));
        hex(&hash.finalize()[..16])
    }

    /// Which route.
    pub fn id(&self) -> Arc<RouteId> {
        Arc::new(RouteId {
            cluster: self.ctx.cluster_id.to_string(),
            namespace: self.key.namespace.to_string(),
            name: self.key.name.to_string(),
            uid: self.object.uid().unwrap_or_default(),
        })
    }

    /// What no share may exceed.
    fn ceiling(&self) -> Option<MaxSharing> {
        self.connection.spec.sharing.as_ref().map(|sharing| sharing.max.clone())
    }

    fn cause(&self) -> Cause {
        Cause(self.object.uid().unwrap_or_default())
    }

    /// The workspaces that the route reads now. Only those that its namespace declares, unless the grant reaches the whole tenant (T1).
    pub fn scope(&self, workspaces: &SecureWorkspaces) -> Result<HashMap<String, Scoped>> {
        let from = &self.object.spec.from;
        let declared = self.declared(workspaces);
        let mut scope = HashMap::new();
        for (name, id, labels) in declared {
            if reads(&self.object.spec, &name, &labels) {
                scope.insert(id, Scoped { name, labels });
            }
        }
        for id in from.workspaces.iter().flat_map(|workspaces| workspaces.ids.iter().flatten()) {
            self.tenant_wide()?;
            scope.entry(id.clone()).or_default();
        }
        Ok(scope)
    }

    /// Refuses what only a grant for the whole tenant allows.
    pub fn tenant_wide(&self) -> Result<()> {
        if self.reach == GrantScope::Tenant {
            return Ok(());
        }
        let why = "from.workspaces.ids reaches workspaces that this namespace does not declare; that needs a grant with scope: Tenant";
        let mut error = Error::new(Kind::Rejected, why);
        error.code = "tenant-scope-needed".into();
        Err(error)
    }

    fn declared(&self, workspaces: &SecureWorkspaces) -> Vec<(String, String, Arc<Labels>)> {
        let connection = super::connection_key(self.object);
        workspaces.declared(&self.key.namespace, &connection)
    }

    /// What all routes of the Connection may read together.
    fn shared_bandwidth(&self) -> Option<Arc<Bandwidth>> {
        let limit = self.connection.spec.limits.as_ref()?.bandwidth.as_deref().and_then(bytes)?;
        self.ctx.bandwidths.of(&super::connection_key(self.object).to_string(), limit)
    }

    /// Compiles the route and runs its tests.
    fn compile(&self, scope: &Arc<Scope>) -> Result<Route> {
        let workshop = Bench { around: self, scope: scope.clone() };
        let mut made = route(self.id(), &self.object.spec, &workshop).map_err(|invalid| refused(&invalid))?;
        made.bandwidth.extend(self.shared_bandwidth());
        let tests = self.object.spec.tests.as_deref().unwrap_or_default();
        let failing = made.rules.failing(tests, self.ctx.now());
        if failing.is_empty() {
            return Ok(made);
        }
        let shown = failing.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        let mut error =
            Error::new(Kind::Rejected, format!("{} of {} tests fail: {}", failing.len(), tests.len(), clean(&shown, 800)));
        error.code = "tests-failed".into();
        Err(error)
    }

    fn source(&self, route: &Route, scope: &Arc<Scope>) -> Arc<ItemSource> {
        Arc::new(ItemSource::new(
            self.tenant.clone(),
            scope.clone(),
            route.pattern.clone(),
            self.cause(),
            route.bandwidth.clone(),
        ))
    }

    /// Fingerprint of what decides what destinations that mirror show.
    fn shown(&self) -> String {
        let spec = &self.object.spec;
        hex(&Sha256::digest(serde_json::to_vec(&(&spec.rules, &spec.unmatched)).unwrap_or_default())[..16])
    }

    /// Compiles everything that the work of the route needs; nothing is sent yet.
    pub fn make(&self, scope: &Arc<Scope>) -> Result<Made> {
        let route = self.compile(scope)?;
        let workshop = Bench { around: self, scope: scope.clone() };
        let objects =
            build::objects(&self.object.spec, &route, &workshop).map_err(|invalid| refused(&invalid))?.map(Arc::new);
        let items = self.source(&route, scope);
        let source: Arc<dyn Source> = match &objects {
            Some(objects) => objects.clone(),
            None => items.clone(),
        };
        Ok(Made { route, source, items, objects })
    }

    fn attempts(&self) -> Arc<dyn Attempts> {
        let generation = self.object.metadata.generation.unwrap_or_default();
        match &self.ctx.queue {
            Some(queue) => queue.route(&self.id(), generation),
            None => Arc::new(Here),
        }
    }

    /// Starts the engine.
    pub fn start(&self, lead: &Lead<'_>, fingerprint: String, workspaces: HashMap<String, Scoped>) -> Result<Running> {
        let scope = Arc::new(Scope::default());
        scope.set(workspaces);
        let Made { route, source, items, objects } = self.make(&scope)?;
        let mirrors = route.mirrors();
        let parts = Parts {
            route,
            source,
            files: self.tenant.clone(),
            metrics: self.ctx.metrics.clone(),
            observer: Arc::new(Hears { key: self.key.clone(), controller: lead.controller.clone() }),
            attempts: self.attempts(),
        };
        let (engine, writer) = Engine::new(parts);
        let stop = lead.session.stop.child_token();
        let uid = self.object.uid().unwrap_or_default();
        let stock = objects.clone().map_or_else(|| Stock::Items(items.clone()), Stock::Objects);
        let inventory = Inventory::new(self.object.spec.inventory.as_ref(), engine.clone(), stock);
        let mirrored = if mirrors { self.shown() } else { String::new() };
        let session = lead.session.clone();
        let reader = Reader { engine: engine.clone(), source: items.clone(), session, uid, mirrors, mirrored };
        let reading = {
            let (engine, stop) = (engine.clone(), stop.clone());
            async move {
                let work = async {
                    let checkpoint = engine.restore().await;
                    let read = async {
                        match objects {
                            Some(source) => Lister { engine: engine.clone(), source }.run().await,
                            None => reader.run(checkpoint).await,
                        }
                    };
                    tokio::join!(engine.clone().run(), read, inventory.run());
                };
                let stopped = async {
                    stop.cancelled().await;
                    engine.window.close();
                };
                tokio::select! { () = work => {}, () = stopped => {} }
            }
        };
        let (writer, work) = (tokio::spawn(writer), tokio::spawn(reading));
        let generation = self.object.metadata.generation.unwrap_or_default();
        Ok(Running { engine, scope, items, fingerprint, generation, writer, work, stop })
    }

    /// Looks at what the rules would do, and touches nothing.
    pub async fn dry_run(&self, workspaces: &SecureWorkspaces) -> Result<DryRunStatus> {
        if self.object.spec.from.object_store.is_some() {
            return Err(refused(&InvalidField::value(
                "mode",
                "DryRun looks at files in workspaces; it does not go with from.objectStore",
            )));
        }
        let scope = Arc::new(Scope::default());
        scope.set(self.scope(workspaces)?);
        let route = self.compile(&scope)?;
        let source = self.source(&route, &scope);
        let lookback = self.object.spec.lookback.as_deref().unwrap_or(dry_run::DEFAULT_LOOKBACK);
        dry_run::run(&route, &source, lookback, self.ctx.now()).await
    }
}

/// Whether a route reads the workspace of a SecureWorkspace of its namespace that has this name and these labels.
pub fn reads(spec: &FileRouteSpec, name: &str, labels: &Labels) -> bool {
    let is_inbox = spec.from.http.as_ref().is_some_and(|http| http.inbox.workspace_ref.name == name);
    let fits = spec.from.workspaces.as_ref().is_some_and(|workspaces| {
        workspaces.names.iter().flatten().any(|wanted| wanted == name)
            || workspaces.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    });
    is_inbox || fits
}

/// A field that cannot be used.
fn refused(invalid: &InvalidField) -> Error {
    let mut error = Error::new(Kind::Rejected, format!("spec.{invalid}"));
    let is_expression = invalid.why.starts_with("line ");
    error.code = if is_expression { "invalid-expression".into() } else { "invalid-spec".into() };
    error
}

/// Where destinations are made.
struct Bench<'a, 'b> {
    around: &'a Surroundings<'b>,
    scope: Arc<Scope>,
}

impl Workshop for Bench<'_, '_> {
    fn http(&self) -> http::Surroundings {
        http::Surroundings { references: self.around.references.clone(), clients: self.around.clients.clone() }
    }

    fn addresses(&self) -> Arc<dyn Addresses> {
        Arc::new(Links { tenant: self.around.tenant.clone(), cause: self.around.cause(), ceiling: self.around.ceiling() })
    }

    fn network(&self) -> Network {
        let ctx = self.around.ctx;
        Network { references: self.around.references.clone(), guard: ctx.guard.clone(), trust: ctx.trust.clone() }
    }

    fn readers(&self) -> Arc<dyn Readers> {
        Arc::new(Access(self.around.tenant.clone()))
    }

    fn store(&self, spec: &ObjectStore) -> Result<Arc<dyn Store>> {
        let ctx = self.around.ctx;
        let settings = Settings { guard: ctx.guard.clone(), extra_ca: ctx.extra_ca.clone(), folders: ctx.folders.clone() };
        object_store::store(spec, &self.around.key.namespace, self.around.references.clone(), &settings)
    }

    fn publication(&self) -> file360::Surroundings {
        let around = self.around;
        let spec = &around.object.spec;
        file360::Surroundings {
            tenant: around.tenant.clone(),
            workspaces: Arc::new(Declared {
                declarations: around.declarations.clone(),
                namespace: around.key.namespace.clone(),
                connection: super::connection_key(around.object),
                scope: self.scope.clone(),
                pattern: (spec.from.workspaces.is_some() || spec.from.http.is_some()).then(|| build::pattern(spec)),
            }),
            references: around.references.clone(),
            ceiling: around.ceiling(),
            cause: around.cause(),
            facet: Names::of(&around.id()).facet,
        }
    }
}

/// The workspaces that the route's namespace declares.
struct Declared {
    declarations: Arc<dyn Declarations>,
    namespace: Arc<str>,
    connection: ObjectKey,
    scope: Arc<Scope>,
    pattern: Option<PathPattern>,
}

#[async_trait]
impl file360::Workspaces for Declared {
    async fn id_of(&self, name: &str) -> Result<Option<String>> {
        self.declarations.workspace_of(&ObjectKey::new(&self.namespace, name), &self.connection).await
    }

    fn is_read(&self, workspace: &str, path: &str) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| self.scope.contains(workspace) && pattern.matches(path))
    }
}

/// Who reads a file is what File 360 says.
struct Access(Arc<dyn File360>);

#[async_trait]
impl Readers for Access {
    async fn readers(&self, item: &str) -> Result<AccessList> {
        self.0.access(item).await
    }
}

/// Download addresses are share links that end soon.
struct Links {
    tenant: Arc<dyn File360>,
    cause: Cause,
    ceiling: Option<MaxSharing>,
}

#[async_trait]
impl Addresses for Links {
    async fn address(&self, delivery: &Delivery, works_for: Duration) -> Result<String> {
        let Origin::Item { item, .. } = &delivery.file.origin else {
            return Err(Error::new(Kind::Rejected, "send: Reference needs a file in File 360; use send: Content"));
        };
        if let Some(max) =
            self.ceiling.as_ref().and_then(|ceiling| ceiling.link_audience).filter(|max| *max < Audience::Anyone)
        {
            let why =
                format!("send: Reference needs links for Anyone; the Connection's ceiling is {max:?}. Use send: Content");
            return Err(Error::new(Kind::Rejected, why));
        }
        if let Some(max) =
            self.ceiling.as_ref().and_then(|ceiling| ceiling.external).filter(|max| !lets_out(*max, Audience::Anyone))
        {
            let why = format!(
                "send: Reference needs links for Anyone; the Connection's ceiling is external: {max:?}. Use send: Content"
            );
            return Err(Error::new(Kind::Rejected, why));
        }
        if self.ceiling.as_ref().is_some_and(|ceiling| ceiling.allowed_domains.is_some()) {
            let why = "send: Reference needs links for Anyone; the Connection's ceiling names domains. Use send: Content";
            return Err(Error::new(Kind::Rejected, why));
        }
        let now = Timestamp::now();
        let new = NewLink {
            audience: Audience::Anyone,
            expires_at: Some(now + works_for),
            password: None,
            max_downloads: None,
            download: Some(true),
            recipients: Vec::new(),
            managed: false,
        };
        // Each try has an address of its own: an earlier one may have ended.
        let key = IdempotencyKey(format!("{:032x}", rand::random::<u128>()));
        let link = self
            .tenant
            .create_link(item, &new, &key, &self.cause)
            .await
            .map_err(|error| error.while_doing("make a download address"))?;
        let url = link.url.ok_or_else(|| Error::new(Kind::Rejected, "File 360 does not tell the link's address"))?;
        Ok(format!("{url}/content"))
    }
}

/// Hears what an engine tells.
struct Hears {
    key: ObjectKey,
    controller: Weak<FileRoutes>,
}

impl Observer for Hears {
    fn changed(&self, important: bool) {
        if let Some(controller) = self.controller.upgrade() {
            controller.engine_changed(&self.key, important);
        }
    }
}
