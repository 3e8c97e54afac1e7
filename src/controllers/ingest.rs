//! Opens the ingest endpoints that FileRoutes declare. Runs in every replica, leader or not: a file is made under its key, whoever takes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::connection::credentials::Credentials;
use super::context::Context;
use super::references::ReferenceStore;
use super::{file_route, grants};
use crate::api::connection::{Driver, GrantKind};
use crate::api::{Connection, FileRoute, SecureWorkspace};
use crate::error::{Error, Kind, Result};
use crate::file360::connector::{Connector, Settings, Transport};
use crate::file360::content::Content as _;
use crate::inbound::keyring::Keyring;
use crate::inbound::registry::{IngestEndpoint, Map};
use crate::reconcile::ObjectKey;
use crate::routes::delivery::RouteId;
use crate::routes::route::bytes;

/// What could not be opened is tried again after this long.
const AGAIN: Duration = Duration::from_secs(2);
/// Largest body, when the spec does not say.
const DEFAULT_MAX_SIZE: u64 = 1 << 30;

/// Keeps the endpoints as declared until the task is dropped.
pub async fn keep(ctx: Arc<Context>, map: Arc<Map>) {
    let references = ReferenceStore::new(ctx.client.clone(), ctx.guard.clone(), ctx.tuning.secret_interval);
    let known = Known::default();
    let ingest = Ingest { ctx, map, references, opened: Mutex::default() };
    tokio::join!(watch(&ingest.ctx, &known), ingest.follow(&known));
}

/// The routes that declare an endpoint.
#[derive(Default)]
struct Known {
    routes: Mutex<Option<HashMap<ObjectKey, Arc<FileRoute>>>>,
    changed: Notify,
}

impl Known {
    fn saw(&self, object: FileRoute) {
        let key = ObjectKey::of(&object);
        let wanted = object.spec.from.http.is_some() && object.metadata.deletion_timestamp.is_none();
        let mut routes = self.routes.lock();
        let Some(routes) = routes.as_mut() else { return };
        let before = routes.get(&key).and_then(|known| known.metadata.generation);
        let is_news = if wanted {
            let generation = object.metadata.generation;
            routes.insert(key, Arc::new(object));
            before != generation
        } else {
            routes.remove(&key).is_some()
        };
        if is_news {
            self.changed.notify_one();
        }
    }

    fn gone(&self, key: &ObjectKey) {
        if self.routes.lock().as_mut().is_some_and(|routes| routes.remove(key).is_some()) {
            self.changed.notify_one();
        }
    }
}

async fn watch(ctx: &Arc<Context>, known: &Known) {
    let api: Api<FileRoute> = super::api_of(ctx);
    let mut events = std::pin::pin!(super::watch(api));
    let mut listing: Vec<FileRoute> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) if object.spec.from.http.is_some() => listing.push(object),
            Ok(Event::InitApply(_)) => {}
            Ok(Event::InitDone) => {
                let routes = listing.drain(..).map(|object| (ObjectKey::of(&object), Arc::new(object))).collect();
                *known.routes.lock() = Some(routes);
                known.changed.notify_one();
            }
            Ok(Event::Apply(object)) => known.saw(object),
            Ok(Event::Delete(object)) => known.gone(&ObjectKey::of(&object)),
            Err(error) => warn!(%error, "The watch of routes with an endpoint failed; it starts again"),
        }
    }
}

struct Ingest {
    ctx: Arc<Context>,
    map: Arc<Map>,
    references: Arc<ReferenceStore>,
    /// Uid and fingerprint of what is open.
    opened: Mutex<HashMap<ObjectKey, (String, String)>>,
}

impl Ingest {
    async fn follow(&self, known: &Known) {
        loop {
            let routes = known.routes.lock().clone();
            let mut wait = self.ctx.tuning.secret_interval;
            if let Some(routes) = routes {
                if !self.refresh(&routes).await {
                    wait = AGAIN;
                }
                self.map.all_known();
            }
            let _ = tokio::time::timeout(wait, known.changed.notified()).await;
        }
    }

    /// Opens, replaces and closes; whether everything that is declared is open.
    async fn refresh(&self, routes: &HashMap<ObjectKey, Arc<FileRoute>>) -> bool {
        let gone: Vec<ObjectKey> = self.opened.lock().keys().filter(|key| !routes.contains_key(*key)).cloned().collect();
        gone.iter().for_each(|key| self.close(key));
        let mut complete = true;
        for (key, route) in routes {
            match self.open(key, route).await {
                Ok(()) => {}
                Err(error) => {
                    complete = false;
                    debug!(object = %key, %error, "The ingest endpoint is not open yet");
                    // What may not be reached any more is closed; an outage closes nothing.
                    if matches!(error.kind, Kind::Reference | Kind::Rejected | Kind::NotFound) {
                        self.close(key);
                    }
                }
            }
        }
        complete
    }

    fn close(&self, key: &ObjectKey) {
        if let Some((uid, _)) = self.opened.lock().remove(key) {
            self.map.close(&uid);
            info!(object = %key, "The ingest endpoint is closed");
        }
    }

    async fn open(&self, key: &ObjectKey, route: &FileRoute) -> Result<()> {
        let Some(http) = &route.spec.from.http else { return Ok(()) };
        let connection = self.connection(route).await?;
        if connection.spec.driver() != Driver::Connector {
            let why = format!("a route needs a Connection with driver: Connector, not {}", connection.spec.driver());
            return Err(Error::new(Kind::Unsupported, why));
        }
        let credentials = Credentials::read(&self.ctx, &connection).await?;
        let workspace = self.inbox(key, route, &http.inbox.workspace_ref.name).await?;
        let uid = route.uid().unwrap_or_default();
        let spec = serde_json::to_string(http).unwrap_or_default();
        let fingerprint = format!("{} {workspace} {spec}", credentials.fingerprint);
        if self.opened.lock().get(key) == Some(&(uid.clone(), fingerprint.clone())) {
            return Ok(());
        }
        let connector = Connector::new(Arc::new(Transport::new(Settings {
            endpoint: credentials.endpoint,
            credential: credentials.credential,
            http: credentials.http,
            requests_per_second: connection.spec.limits.as_ref().and_then(|limits| limits.requests_per_second),
            concurrency: connection.spec.limits.as_ref().and_then(|limits| limits.concurrency),
            // It carries no fence and ends with the process only.
            stop_writes: CancellationToken::new(),
            observer: self.ctx.metrics.clone(),
        })));
        let folder = connector.item_at(&workspace, &http.inbox.path).await?;
        let missing = || Error::new(Kind::NotFound, format!("the inbox {} is not there", http.inbox.path));
        let folder = folder.ok_or_else(missing)?.id;
        let references = self.references.of(&key.namespace);
        let keys = Keyring::open(references, http.hmac_ref.name.clone(), self.ctx.tuning.secret_interval).await;
        let id = RouteId {
            cluster: self.ctx.cluster_id.to_string(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: uid.clone(),
        };
        let max_size = http.max_size.as_deref().and_then(bytes).unwrap_or(DEFAULT_MAX_SIZE);
        let endpoint = IngestEndpoint::new(Arc::new(id), http.path.clone(), keys, Arc::new(connector), folder, max_size);
        self.map.open(endpoint).map_err(|taken| {
            Error::new(Kind::Conflict, format!("the path {} belongs to FileRoute {}", http.path, taken.0.name))
        })?;
        self.opened.lock().insert(key.clone(), (uid, fingerprint));
        info!(object = %key, path = http.path, "The ingest endpoint is open");
        Ok(())
    }

    /// The route's Connection, if it grants its use (T1).
    async fn connection(&self, route: &FileRoute) -> Result<Connection> {
        let key = file_route::connection_key(route);
        let own = route.namespace().unwrap_or_default();
        let api: Api<Connection> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let connection = api.get_opt(&key.name).await?.ok_or_else(|| grants::not_granted(&own))?;
        let labels = if *own == *key.namespace { BTreeMap::new() } else { super::labels_of(&self.ctx, &own).await? };
        let asking = grants::Asking { namespace: &own, labels: &labels, kind: GrantKind::FileRoute, external_system: None };
        grants::scope(&key.namespace, &connection.spec, &asking)?;
        Ok(connection)
    }

    /// Id of the workspace that receives the files: one that the route's namespace declares over the same Connection.
    async fn inbox(&self, key: &ObjectKey, route: &FileRoute, name: &str) -> Result<String> {
        let api: Api<SecureWorkspace> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let missing = || Error::new(Kind::Unavailable, format!("SecureWorkspace {name} has no workspace yet"));
        let found = api.get_opt(name).await?.ok_or_else(missing)?;
        if super::secure_workspace::pass::connection_key(&found) != file_route::connection_key(route) {
            return Err(Error::new(Kind::Rejected, format!("SecureWorkspace {name} is on another Connection")));
        }
        found.status.and_then(|status| status.workspace_id).ok_or_else(missing)
    }
}
