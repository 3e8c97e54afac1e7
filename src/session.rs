//! What one Connection shares with every resource that names it: the driver, who is who, which workspace belongs to which
//! resource, and the one reader of the change feed.

mod echo;
mod feed;
mod index;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub use echo::Identity;
pub use feed::{Foreign, Wake};
pub use index::{Index, Row};

use crate::api::Connection;
use crate::error::{Error, Kind, Result};
use crate::file360::feature::{Enforcement, Feature, Level};
use crate::file360::model::{ChangePage, PrincipalKind, Service};
use crate::file360::{Cause, File360};
use crate::reconcile::ObjectKey;

/// One tenant in use.
pub struct Session {
    /// The way to it.
    pub driver: Arc<dyn File360>,
    /// What it says about itself.
    pub service: Service,
    /// Who the operator is there: its own changes come back in the feed.
    pub identity: Identity,
    /// How far each feature is there.
    pub enforcement: Enforcement,
    /// Identity of this cluster there.
    pub cluster_id: Arc<str>,
    /// Which workspace belongs to which resource, with the revision that is known.
    pub index: Index,
    principals: Mutex<HashMap<(PrincipalKind, String), Arc<str>>>,
    /// One look-up at a time: many passes miss the same name at once, and one answer serves them all.
    looking_up: tokio::sync::Mutex<()>,
    /// Resources whose pass met an outage; woken when the feed answers again.
    deferred: Mutex<HashSet<ObjectKey>>,
    connected: AtomicBool,
    /// The feed's epoch, once it differed from the service document's.
    feed_epoch: Mutex<Option<String>>,
    /// What the feed reader reads, for those who follow files. One who does not keep up loses pages and reads them again by itself.
    pages: broadcast::Sender<Arc<ChangePage>>,
    /// Ends the feed reader.
    pub stop: CancellationToken,
}

/// Pages of the feed that a slow follower may be behind.
const PAGES_KEPT: usize = 16;

impl Session {
    /// A session that counts as connected; its feed is read by [`Session::follow`].
    pub fn new(
        driver: Arc<dyn File360>,
        service: Service,
        identity: Identity,
        cluster_id: Arc<str>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            enforcement: driver.enforcement(&service),
            driver,
            service,
            identity,
            cluster_id,
            index: Index::default(),
            principals: Mutex::default(),
            looking_up: tokio::sync::Mutex::default(),
            deferred: Mutex::default(),
            // A session is made once its first listing succeeded.
            connected: AtomicBool::new(true),
            feed_epoch: Mutex::default(),
            pages: broadcast::Sender::new(PAGES_KEPT),
            stop,
        }
    }

    /// What the feed reader reads from now on.
    pub fn pages(&self) -> broadcast::Receiver<Arc<ChangePage>> {
        self.pages.subscribe()
    }

    /// Id of a user, group or guest; guests are made when they are new. Known ids are kept until the feed says that principals changed.
    pub async fn principal_id(&self, kind: PrincipalKind, name: &str, cause: &Cause) -> Result<Arc<str>> {
        let key = (kind, name.to_lowercase());
        if let Some(id) = self.cached_principal(&key) {
            return Ok(id);
        }
        let _turn = self.looking_up.lock().await;
        if let Some(id) = self.cached_principal(&key) {
            return Ok(id);
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

    fn cached_principal(&self, key: &(PrincipalKind, String)) -> Option<Arc<str>> {
        self.principals.lock().get(key).cloned()
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

    /// Whether the tenant has a change feed; without one, it is looked at every now and then.
    pub fn has_feed(&self) -> bool {
        self.enforcement.level(Feature::Changes) == Level::Native
    }

    /// Whether the change feed is being read, or, without one, the tenant answers.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

/// Why a Connection has no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Its first pass has not ended.
    Pending,
    /// `spec.suspend`.
    Suspended,
    /// It cannot be used.
    Because {
        /// A sentence for people.
        why: String,
        /// There is no usable credential; else the tenant is away.
        no_credential: bool,
    },
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pending => f.write_str("its first pass has not ended"),
            Self::Suspended => f.write_str("it is suspended"),
            Self::Because { why, .. } => f.write_str(why),
        }
    }
}

/// What is known about the Connections.
#[derive(Default)]
pub struct Sessions {
    states: RwLock<HashMap<ObjectKey, Lookup>>,
    waiting: Mutex<HashMap<ObjectKey, HashSet<ObjectKey>>>,
}

/// A Connection with its session, or why it has none.
#[derive(Clone)]
pub struct Lookup {
    /// The Connection as last seen.
    pub connection: Arc<Connection>,
    /// Its session.
    pub session: Result<Arc<Session>, Unavailable>,
}

impl Lookup {
    /// Whether the change feed is being read.
    pub fn is_connected(&self) -> bool {
        self.session.as_ref().is_ok_and(|session| session.is_connected())
    }
}

impl Sessions {
    /// The Connection `key` with its session; `None` while it is not known. `dependant` is woken when that changes.
    pub fn get(&self, key: &ObjectKey, dependant: &ObjectKey) -> Option<Lookup> {
        // The lock is held over both steps, so that a change in between cannot be missed.
        let states = self.states.read();
        let found = states.get(key).cloned();
        if found.as_ref().is_none_or(|lookup| lookup.session.is_err()) {
            self.waiting.lock().entry(key.clone()).or_default().insert(dependant.clone());
        }
        found
    }

    /// The same without waiting for it.
    pub fn peek(&self, key: &ObjectKey) -> Option<Lookup> {
        self.states.read().get(key).cloned()
    }

    /// Takes up a version of a Connection; its session stays as it is.
    pub fn saw(&self, connection: &Arc<Connection>) {
        let key = ObjectKey::of(&**connection);
        let mut states = self.states.write();
        match states.get_mut(&key) {
            Some(lookup) => lookup.connection = connection.clone(),
            None => {
                states.insert(key, Lookup { connection: connection.clone(), session: Err(Unavailable::Pending) });
            }
        }
    }

    /// Sets the session of a Connection, or why it has none; returns who waited for that.
    pub fn set(
        &self,
        key: &ObjectKey,
        connection: Arc<Connection>,
        session: Result<Arc<Session>, Unavailable>,
    ) -> HashSet<ObjectKey> {
        let mut states = self.states.write();
        let was_pending = states.get(key).is_none_or(|lookup| lookup.session.as_ref().err() == Some(&Unavailable::Pending));
        let is_news = session.is_ok() || was_pending;
        states.insert(key.clone(), Lookup { connection, session });
        if is_news { self.waiting.lock().remove(key).unwrap_or_default() } else { HashSet::new() }
    }

    /// Forgets a Connection.
    pub fn remove(&self, key: &ObjectKey) {
        if let Some(Lookup { session: Ok(session), .. }) = self.states.write().remove(key) {
            session.stop.cancel();
        }
    }

    /// All Connections that are known.
    pub fn all(&self) -> Vec<(ObjectKey, Lookup)> {
        self.states.read().iter().map(|(key, lookup)| (key.clone(), lookup.clone())).collect()
    }
}
