//! What one Connection shares with every resource that names it: the driver, who is who, which workspace belongs to which
//! resource, and the one reader of the change feed.

mod feed;
mod index;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

pub use feed::{Foreign, Wake};
pub use index::{Index, Row};

use crate::error::{Error, Kind, Result};
use crate::file360::model::{PrincipalKind, Service};
use crate::file360::{Cause, File360};
use crate::reconcile::ObjectKey;

/// One tenant in use.
pub struct Session {
    /// The way to it.
    pub driver: Arc<dyn File360>,
    /// What it says about itself.
    pub service: Service,
    /// Identity of this cluster there.
    pub cluster_id: Arc<str>,
    /// Which workspace belongs to which resource, with the revision that is known.
    pub index: Index,
    principals: Mutex<HashMap<(PrincipalKind, String), Arc<str>>>,
    /// Resources whose pass met an outage; woken when the feed answers again.
    deferred: Mutex<HashSet<ObjectKey>>,
    connected: AtomicBool,
    /// The feed's epoch, once it differed from the service document's.
    feed_epoch: Mutex<Option<String>>,
    /// Sequence of the newest feed entry that was handled.
    pub feed_position: AtomicU64,
    /// Ends the feed reader.
    pub stop: CancellationToken,
}

impl Session {
    /// A session that reads no feed yet; see [`Session::follow`].
    pub fn new(driver: Arc<dyn File360>, service: Service, cluster_id: Arc<str>, stop: CancellationToken) -> Self {
        Self {
            driver,
            service,
            cluster_id,
            index: Index::default(),
            principals: Mutex::default(),
            deferred: Mutex::default(),
            connected: AtomicBool::new(false),
            feed_epoch: Mutex::default(),
            feed_position: AtomicU64::new(0),
            stop,
        }
    }

    /// Id of a user, group or guest; guests are made when they are new. Known ids are kept until the feed says that principals changed.
    pub async fn principal_id(&self, kind: PrincipalKind, name: &str, cause: &Cause) -> Result<Arc<str>> {
        let key = (kind, name.to_lowercase());
        if let Some(id) = self.principals.lock().get(&key) {
            return Ok(id.clone());
        }
        let id: Arc<str> = if kind == PrincipalKind::Guest {
            self.driver.ensure_guest(&key.1, cause).await?.id.into()
        } else {
            self.known_principal(kind, name).await?.ok_or_else(|| {
                let mut error = Error::new(
                    Kind::Reference,
                    format!(
                        "File 360 knows no {} named {name}; create it there or correct the member",
                        if kind == PrincipalKind::Group { "group" } else { "user" }
                    ),
                );
                error.code = "principal-not-found".into();
                error
            })?
        };
        self.principals.lock().insert(key, id.clone());
        Ok(id)
    }

    async fn known_principal(&self, kind: PrincipalKind, name: &str) -> Result<Option<Arc<str>>> {
        Ok(self.driver.principal(kind, name).await?.map(|principal| principal.id.into()))
    }

    /// Forgets who is who.
    fn forget_principals(&self) {
        self.principals.lock().clear();
    }

    /// Wakes `key` when the tenant answers again.
    pub fn defer(&self, key: ObjectKey) {
        self.deferred.lock().insert(key);
    }

    fn take_deferred(&self) -> HashSet<ObjectKey> {
        std::mem::take(&mut *self.deferred.lock())
    }

    /// Whether the change feed is being read.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

/// Why a Connection has no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Reason of its Ready condition.
    pub reason: String,
    /// Message of its Ready condition.
    pub message: String,
}

/// What is known about the Connections.
#[derive(Default)]
pub struct Sessions {
    states: RwLock<HashMap<ObjectKey, Link>>,
    waiting: Mutex<HashMap<ObjectKey, HashSet<ObjectKey>>>,
}

#[derive(Clone)]
struct Link {
    session: Result<Arc<Session>, Unavailable>,
    connection: Arc<crate::api::Connection>,
}

/// A Connection with its session, or why it has none.
#[derive(Clone)]
pub struct Lookup {
    /// The Connection as last seen.
    pub connection: Arc<crate::api::Connection>,
    /// Its session.
    pub session: Result<Arc<Session>, Unavailable>,
}

impl Sessions {
    /// The Connection `key` with its session; `None` while it is not known. `dependant` is woken when that changes.
    pub fn get(&self, key: &ObjectKey, dependant: &ObjectKey) -> Option<Lookup> {
        let found = self.peek(key);
        if found.as_ref().is_none_or(|lookup| lookup.session.is_err()) {
            self.waiting.lock().entry(key.clone()).or_default().insert(dependant.clone());
        }
        found
    }

    /// The same without waiting for it.
    pub fn peek(&self, key: &ObjectKey) -> Option<Lookup> {
        let states = self.states.read();
        states.get(key).map(|link| Lookup { connection: link.connection.clone(), session: link.session.clone() })
    }

    /// Sets what is known about a Connection; returns who waited for it, when a session is there.
    pub fn set(
        &self,
        key: &ObjectKey,
        connection: Arc<crate::api::Connection>,
        session: Result<Arc<Session>, Unavailable>,
    ) -> HashSet<ObjectKey> {
        let is_ready = session.is_ok();
        self.states.write().insert(key.clone(), Link { session, connection });
        if is_ready { self.waiting.lock().remove(key).unwrap_or_default() } else { HashSet::new() }
    }

    /// Forgets a Connection; returns who used it.
    pub fn remove(&self, key: &ObjectKey) {
        if let Some(Link { session: Ok(session), .. }) = self.states.write().remove(key) {
            session.stop.cancel();
        }
    }

    /// All Connections that are known.
    pub fn all(&self) -> Vec<(ObjectKey, Lookup)> {
        let states = self.states.read();
        states
            .iter()
            .map(|(key, link)| (key.clone(), Lookup { connection: link.connection.clone(), session: link.session.clone() }))
            .collect()
    }
}
