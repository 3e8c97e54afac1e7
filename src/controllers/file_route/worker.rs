//! Does the work of routes in a worker process. Everything that a job names is looked up in Kubernetes first: a job says which file, and nothing about
//! what may be done with it (T1).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::info;

use super::engine::{Declarations, Made, Surroundings, reads};
use super::{connection_key, reach};
use crate::api::connection::GrantScope;
use crate::api::file_route::FileRouteSpec;
use crate::api::{Connection, FileRoute, SecureWorkspace};
use crate::controllers::connection::credentials::Credentials;
use crate::controllers::context::Context;
use crate::controllers::references::ReferenceStore;
use crate::controllers::{connection, grants, secure_workspace};
use crate::error::{Error, Kind, Result, clean};
use crate::file360::File360;
use crate::outbound::http::Clients;
use crate::queue::message::{Handled, Job, RouteVersion};
use crate::queue::worker::Handler;
use crate::reconcile::{ObjectKey, is_object_name};
use crate::routes::delivery::Origin;
use crate::routes::items::{Scope, Scoped};
use crate::routes::work::{Source, Work, attempt};

/// What is remembered of each kind of object.
const REMEMBERED: usize = 10_000;
/// What does not fit is read again, but not more often than this.
const AGAIN: Duration = Duration::from_millis(500);
/// A job that could not be tried comes again after this long.
const UNABLE: Duration = Duration::from_secs(2);

/// Does the work of all routes.
pub struct Bench {
    ctx: Arc<Context>,
    references: Arc<ReferenceStore>,
    clients: Arc<Clients>,
    routes: Cache<Arc<Ready>>,
    tenants: Cache<Arc<Tenant>>,
    workspaces: Arc<Workspaces>,
}

/// A route, ready to be worked on.
struct Ready {
    object: Arc<FileRoute>,
    connection: ObjectKey,
    reach: GrantScope,
    fingerprint: String,
    made: Made,
    /// What the leader said last about how current its own knowledge is.
    memory: Mutex<String>,
}

/// A Connection in use.
struct Tenant {
    connection: Arc<Connection>,
    fingerprint: String,
    driver: Arc<dyn File360>,
}

impl Bench {
    /// Nothing is read yet.
    pub fn new(ctx: Arc<Context>) -> Self {
        let references = ReferenceStore::new(ctx.client.clone(), ctx.guard.clone(), ctx.tuning.secret_interval);
        let clients = Clients::new(ctx.guard.clone(), ctx.extra_ca.clone());
        let workspaces = Arc::new(Workspaces { ctx: ctx.clone(), known: Cache::default() });
        Self { ctx, references, clients, routes: Cache::default(), tenants: Cache::default(), workspaces }
    }

    /// The route of a job; `None` when there is no such route any more, or a newer version of it.
    async fn ready(&self, job: &Job) -> Result<Option<Arc<Ready>>> {
        let RouteVersion { namespace, name, uid, generation } = &job.route;
        let is_ours = self.ctx.namespace.as_ref().is_none_or(|own| own == namespace);
        if job.cluster != *self.ctx.cluster_id || !is_ours {
            let why =
                "the job is of another operator; give each its own --queue-name, and workers the flags of their leader";
            return Err(Error::new(Kind::Rejected, why));
        }
        let key = ObjectKey::new(namespace, name);
        let slot = self.routes.slot(&key);
        let mut kept = slot.lock().await;
        let last = kept.as_ref().map(|(_, ready): &(Instant, Arc<Ready>)| ready.clone());
        let fits = last.as_ref().is_some_and(|ready| version(&ready.object) == (uid.clone(), *generation));
        let longest = if fits { self.ctx.tuning.secret_interval } else { AGAIN };
        let ready = match kept.as_ref().filter(|(at, _)| at.elapsed() < longest) {
            Some((_, ready)) => ready.clone(),
            None => {
                let Some(ready) = self.read(&key, last).await? else {
                    *kept = None;
                    return Ok(None);
                };
                kept.insert((Instant::now(), ready)).1.clone()
            }
        };
        drop(kept);
        let (own_uid, own_generation) = version(&ready.object);
        if own_uid != *uid || own_generation > *generation {
            return Ok(None);
        }
        if own_generation < *generation {
            return Err(Error::new(Kind::Stale, format!("generation {generation} of the route is not to be seen yet")));
        }
        Ok(Some(ready))
    }

    /// Reads the route and what it refers to; what was made before stays while nothing of it changed.
    async fn read(&self, key: &ObjectKey, last: Option<Arc<Ready>>) -> Result<Option<Arc<Ready>>> {
        let api: Api<FileRoute> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let Some(object) = api.get_opt(&key.name).await.map_err(|error| reading("the FileRoute", error))? else {
            return Ok(None);
        };
        // A route that is being deleted takes nothing up.
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let object = Arc::new(object);
        let connection = connection_key(&object);
        let (tenant, reach) = self.tenant(&object, &connection).await?;
        let scope = Arc::new(Scope::default());
        let around = Surroundings {
            ctx: &self.ctx,
            key,
            object: &object,
            connection: &tenant.connection,
            tenant: tenant.driver.clone(),
            reach,
            declarations: Arc::new(OfRoute {
                workspaces: self.workspaces.clone(),
                spec: object.spec.clone(),
                scope: scope.clone(),
            }),
            references: self.references.of(&key.namespace),
            clients: self.clients.clone(),
        };
        let fingerprint = around.fingerprint();
        if let Some(last) = last.filter(|last| last.fingerprint == fingerprint) {
            last.made.items.forget_all();
            return Ok(Some(last));
        }
        for id in object.spec.from.workspaces.iter().flat_map(|workspaces| workspaces.ids.iter().flatten()) {
            around.tenant_wide()?;
            scope.put(id, Scoped::default());
        }
        let made = around.make(&scope)?;
        info!(object = %key, generation = object.metadata.generation, "The route can be worked on");
        Ok(Some(Arc::new(Ready { object, connection, reach, fingerprint, made, memory: Mutex::default() })))
    }

    /// The route's Connection, if it grants its use (T1), and how far.
    async fn tenant(&self, object: &FileRoute, key: &ObjectKey) -> Result<(Arc<Tenant>, GrantScope)> {
        let own = object.namespace().unwrap_or_default();
        let slot = self.tenants.slot(key);
        let mut kept = slot.lock().await;
        let tenant = match kept.as_ref().filter(|(at, _)| at.elapsed() < self.ctx.tuning.secret_interval) {
            Some((_, tenant)) => tenant.clone(),
            None => {
                let api: Api<Connection> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
                let found = api.get_opt(&key.name).await.map_err(|error| reading("the Connection", error))?;
                let found = Arc::new(found.ok_or_else(|| grants::not_granted(&own))?);
                if connection::status::is_suspended(&found, self.ctx.now()) {
                    *kept = None;
                    return Err(Error::new(Kind::Stopping, "the Connection is suspended"));
                }
                let credentials = Credentials::read(&self.ctx, &found).await?;
                let last = kept.as_ref().map(|(_, tenant): &(Instant, Arc<Tenant>)| tenant.clone());
                let last = last.filter(|last| last.fingerprint == credentials.fingerprint);
                let fingerprint = credentials.fingerprint.clone();
                let driver: Arc<dyn File360> = match last {
                    Some(last) => last.driver.clone(),
                    // No fence is taken: a worker is no leader, and its calls carry none.
                    None => connection::driver(&self.ctx, &found, credentials).await?.0,
                };
                kept.insert((Instant::now(), Arc::new(Tenant { connection: found, fingerprint, driver }))).1.clone()
            }
        };
        drop(kept);
        let labels =
            if *own == *key.namespace { BTreeMap::new() } else { crate::controllers::labels_of(&self.ctx, &own).await? };
        let reach = reach(object, &tenant.connection, &labels)?;
        Ok((tenant, reach))
    }

    /// The source, for the one workspace that the job is about: only if the route may read it now (T1).
    async fn source(&self, ready: &Ready, job: &Job, origin: &Origin) -> Result<Arc<dyn Source>> {
        let Origin::Item { workspace, .. } = origin else { return Ok(ready.made.source.clone()) };
        let scope = Arc::new(Scope::default());
        if job.place.is_read {
            scope.put(workspace, self.scoped(ready, job, workspace).await?);
        }
        Ok(Arc::new(ready.made.items.within(scope)))
    }

    async fn scoped(&self, ready: &Ready, job: &Job, workspace: &str) -> Result<Scoped> {
        let spec = &ready.object.spec;
        let name = &job.place.workspace;
        if name.is_empty() {
            let mut ids = spec.from.workspaces.iter().flat_map(|workspaces| workspaces.ids.iter().flatten());
            let is_named = ready.reach == GrantScope::Tenant && ids.any(|id| id == workspace);
            return if is_named { Ok(Scoped::default()) } else { Err(not_read(workspace)) };
        }
        let key = ObjectKey::new(&job.route.namespace, name);
        for longest in [self.ctx.tuning.secret_interval, AGAIN] {
            let found = self.workspaces.declared(&key, longest).await?;
            let fitting = found.filter(|found| {
                found.connection == ready.connection
                    && found.workspace.as_deref() == Some(workspace)
                    && reads(spec, name, &found.labels)
            });
            if let Some(found) = fitting {
                return Ok(Scoped { name: name.clone(), labels: found.labels.clone() });
            }
        }
        Err(not_read(name))
    }
}

#[async_trait]
impl Handler for Bench {
    async fn handle(&self, job: &Job, work: &mut Work) -> Option<Handled> {
        let ready = match self.ready(job).await {
            Ok(ready) => ready?,
            Err(error) => return Some(unable(error)),
        };
        {
            let mut memory = ready.memory.lock();
            if *memory != job.memory {
                memory.clone_from(&job.memory);
                ready.made.items.forget_all();
            }
        }
        match self.source(&ready, job, &work.origin).await {
            Ok(source) => Some(Handled::Tried(attempt(&ready.made.route, &*source, work, Timestamp::now()).await)),
            Err(error) => Some(unable(error)),
        }
    }
}

fn unable(error: Error) -> Handled {
    Handled::Unable(error.retry_after.unwrap_or(UNABLE), error)
}

fn not_read(workspace: &str) -> Error {
    let what = format!("the route does not read the workspace {} (any more)", clean(workspace, 253));
    Error::new(Kind::Denied, what)
}

fn reading(what: &str, error: kube::Error) -> Error {
    Error::from(error).while_doing(format!("read {what}"))
}

fn version(object: &FileRoute) -> (String, i64) {
    (object.uid().unwrap_or_default(), object.metadata.generation.unwrap_or_default())
}

/// SecureWorkspaces, read one by one.
struct Workspaces {
    ctx: Arc<Context>,
    known: Cache<Option<Arc<Declared>>>,
}

struct Declared {
    connection: ObjectKey,
    workspace: Option<String>,
    labels: Arc<BTreeMap<String, String>>,
}

impl Workspaces {
    /// What is declared under a name, as it was `longest` ago or later.
    async fn declared(&self, key: &ObjectKey, longest: Duration) -> Result<Option<Arc<Declared>>> {
        let slot = self.known.slot(key);
        let mut kept = slot.lock().await;
        if let Some((_, found)) = kept.as_ref().filter(|(at, _)| at.elapsed() < longest) {
            return Ok(found.clone());
        }
        // A route's expressions may yield any name.
        if !is_object_name(&key.name) {
            return Ok(None);
        }
        let api: Api<SecureWorkspace> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await.map_err(|error| reading("the SecureWorkspace", error))?;
        let found = found.map(|object| {
            Arc::new(Declared {
                connection: secure_workspace::pass::connection_key(&object),
                labels: Arc::new(object.labels().clone()),
                workspace: object.status.and_then(|status| status.workspace_id),
            })
        });
        *kept = Some((Instant::now(), found.clone()));
        Ok(found)
    }
}

/// The SecureWorkspaces of a route's namespace, for its publications.
struct OfRoute {
    workspaces: Arc<Workspaces>,
    spec: FileRouteSpec,
    /// Workspaces that the route reads, as far as it has asked for them.
    scope: Arc<Scope>,
}

#[async_trait]
impl Declarations for OfRoute {
    async fn workspace_of(&self, key: &ObjectKey, connection: &ObjectKey) -> Result<Option<String>> {
        let mut found = self.workspaces.declared(key, self.workspaces.ctx.tuning.secret_interval).await?;
        if found.as_ref().is_none_or(|found| found.workspace.is_none()) {
            found = self.workspaces.declared(key, AGAIN).await?;
        }
        let Some(found) = found.filter(|found| found.connection == *connection) else { return Ok(None) };
        if let Some(id) = &found.workspace
            && reads(&self.spec, &key.name, &found.labels)
        {
            self.scope.put(id, Scoped { name: key.name.to_string(), labels: found.labels.clone() });
        }
        Ok(found.workspace.clone())
    }
}

/// What was read of objects, each with the time. Who finds one too old reads it, the others wait for that.
struct Cache<T> {
    slots: Mutex<HashMap<ObjectKey, Slot<T>>>,
}

type Slot<T> = Arc<tokio::sync::Mutex<Option<(Instant, T)>>>;

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { slots: Mutex::default() }
    }
}

impl<T> Cache<T> {
    fn slot(&self, key: &ObjectKey) -> Slot<T> {
        let mut slots = self.slots.lock();
        if slots.len() >= REMEMBERED && !slots.contains_key(key) {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry(key.clone()).or_default().clone()
    }
}
