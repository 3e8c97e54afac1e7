//! Which endpoints there are. Standby replicas know them as well as the leader.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::callback::Decisions;
use super::events::EventMap;
use super::keyring::Keyring;
use crate::file360::{Cause, Content, IdempotencyKey};
use crate::hex::hex;
use crate::routes::delivery::RouteId;

/// Requests of one endpoint at once.
pub const AT_ONCE: usize = 32;

/// What is listening, by address.
pub trait Endpoints: Send + Sync {
    /// Whether all endpoints are known. Before that no sender is told that there is none.
    fn are_known(&self) -> bool;

    /// The ingest endpoint `/ingest/{namespace}/{path}`.
    fn ingest(&self, namespace: &str, path: &str) -> Option<Arc<IngestEndpoint>>;

    /// The endpoints `/events/{namespace}/{path}`; `None`: there are none and will be none.
    fn events(&self) -> Option<&EventMap>;

    /// Who takes decisions about Approvals; `None`: nobody.
    fn decisions(&self) -> Option<Arc<dyn Decisions>> {
        None
    }
}

/// What `from.http` of a FileRoute declares, ready for use.
pub struct IngestEndpoint {
    /// The route.
    pub route: Arc<RouteId>,
    /// Last segment of its address.
    pub path: String,
    /// Keys that requests are signed with.
    pub keys: Keyring,
    /// The tenant. Its calls carry no fence: a file is made under its key, whoever leads.
    pub content: Arc<dyn Content>,
    /// Id of the folder that files are committed to.
    pub folder: String,
    /// Largest body in bytes.
    pub max_size: u64,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for IngestEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, path, folder, max_size, .. } = self;
        f.debug_struct("IngestEndpoint")
            .field("route", route)
            .field("path", path)
            .field("folder", folder)
            .field("max_size", max_size)
            .finish_non_exhaustive()
    }
}

impl IngestEndpoint {
    /// An endpoint at `/ingest/{namespace of the route}/{path}` that commits files to `folder`.
    pub fn new(
        route: Arc<RouteId>,
        path: impl Into<String>,
        keys: Keyring,
        content: Arc<dyn Content>,
        folder: impl Into<String>,
        max_size: u64,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { route, path: path.into(), keys, content, folder: folder.into(), max_size, turns }
    }

    /// Turns of its requests.
    pub(super) fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turns)
    }

    /// The key under which File 360 makes a file once, for an id of a sender. An id counts once for each Secret, so that a request that
    /// was recorded at one path is good for no other path with the same keys.
    pub fn idempotency_key(&self, id: &str) -> IdempotencyKey {
        let mut hash = Sha256::new();
        for part in [&self.route.cluster, &self.route.namespace, self.keys.secret(), id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        IdempotencyKey(format!("ingest-{}", hex(&hash.finalize())))
    }
}

/// The cause of a file that came in through a route's endpoint. It differs from the cause of the route's own writes, which is its uid: a route
/// passes over its own writes, but takes up what came in through it.
pub fn ingest_cause(uid: &str) -> Cause {
    Cause(format!("ingest/{uid}"))
}

/// Endpoints in memory.
#[derive(Default)]
pub struct Map {
    /// Endpoints for events.
    pub events: EventMap,
    ingest: RwLock<HashMap<String, Arc<IngestEndpoint>>>,
    known: AtomicBool,
    decisions: OnceLock<Arc<dyn Decisions>>,
}

/// The address belongs to another route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken(pub Arc<RouteId>);

impl Map {
    /// Opens or replaces the endpoint of a route; a former one of the same route closes. An address that another route has stays with it.
    pub fn open(&self, endpoint: IngestEndpoint) -> Result<(), Taken> {
        let address = address(&endpoint.route.namespace, &endpoint.path);
        let mut ingest = self.ingest.write();
        if let Some(other) = ingest.get(&address).filter(|other| other.route.uid != endpoint.route.uid) {
            return Err(Taken(Arc::clone(&other.route)));
        }
        ingest.retain(|_, other| other.route.uid != endpoint.route.uid);
        ingest.insert(address, Arc::new(endpoint));
        Ok(())
    }

    /// Tells who takes decisions about Approvals.
    pub fn decides(&self, decisions: Arc<dyn Decisions>) {
        let _ = self.decisions.set(decisions);
    }

    /// Closes the endpoint of a route. Requests that it has taken end undisturbed.
    pub fn close(&self, uid: &str) {
        self.ingest.write().retain(|_, endpoint| endpoint.route.uid != uid);
    }

    /// Says that every endpoint has been opened that there is.
    pub fn all_known(&self) {
        self.known.store(true, Ordering::Release);
    }
}

impl Endpoints for Map {
    fn are_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    fn ingest(&self, namespace: &str, path: &str) -> Option<Arc<IngestEndpoint>> {
        self.ingest.read().get(&address(namespace, path)).cloned()
    }

    fn events(&self) -> Option<&EventMap> {
        Some(&self.events)
    }

    fn decisions(&self) -> Option<Arc<dyn Decisions>> {
        self.decisions.get().cloned()
    }
}

/// Neither part has a slash where it is declared, so two addresses never meet.
fn address(namespace: &str, path: &str) -> String {
    format!("{namespace}/{path}")
}
