//! Reports: which Connections have workspaces that report, and one [`Reporter`] for each of them. Where nobody reports, nothing runs.

pub mod reporter;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::context::Context;
use super::references::ReferenceStore;
use super::secure_workspace::SecureWorkspaces;
use crate::api::SecureWorkspace;
use crate::outbound::http::{Clients, Surroundings};
use crate::reconcile::ObjectKey;
use crate::reports::hosts::Hosts;
use crate::session::Session;
use reporter::Reporter;

/// Sessions come and go without a word here; they are looked at this often. Nobody is asked for that.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// See the module.
pub struct Reports {
    ctx: Weak<Context>,
    references: Arc<ReferenceStore>,
    clients: Arc<Clients>,
    declared: Mutex<Declared>,
    reporters: Mutex<HashMap<ObjectKey, Arc<Reporter>>>,
    workspaces: OnceLock<Weak<SecureWorkspaces>>,
    hosts: Hosts,
    changed: Notify,
}

/// Who reports.
#[derive(Default)]
struct Declared {
    /// The Connection of each resource.
    resources: HashMap<ObjectKey, ObjectKey>,
    /// How many there are of each Connection.
    connections: HashMap<ObjectKey, usize>,
    /// The first listing is complete.
    listed: bool,
}

impl Declared {
    fn set(&mut self, key: &ObjectKey, connection: Option<ObjectKey>) -> bool {
        let before = match connection.clone() {
            Some(connection) => self.resources.insert(key.clone(), connection),
            None => self.resources.remove(key),
        };
        if before == connection {
            return false;
        }
        if let Some(count) = before.as_ref().and_then(|before| self.connections.get_mut(before)) {
            *count -= 1;
        }
        if let Some(connection) = connection {
            *self.connections.entry(connection).or_default() += 1;
        }
        self.connections.retain(|_, count| *count > 0);
        true
    }
}

impl Reports {
    /// Nothing runs before [`Reports::run`], or a pass asks for a reporter.
    pub fn new(ctx: &Arc<Context>, references: Arc<ReferenceStore>, clients: Arc<Clients>) -> Arc<Self> {
        Arc::new(Self {
            ctx: Arc::downgrade(ctx),
            references,
            clients,
            declared: Mutex::default(),
            reporters: Mutex::default(),
            workspaces: OnceLock::new(),
            hosts: Hosts::default(),
            changed: Notify::new(),
        })
    }

    /// Tells whom to wake once the last event of a resource that is being deleted was told.
    pub fn serves(&self, workspaces: &Arc<SecureWorkspaces>) {
        let _ = self.workspaces.set(Arc::downgrade(workspaces));
    }

    /// Starts reporters where they are needed, until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let Some(ctx) = self.ctx.upgrade() else { return };
            let (needed, listed): (Vec<ObjectKey>, bool) = {
                let declared = self.declared.lock();
                (declared.connections.keys().cloned().collect(), declared.listed)
            };
            for connection in needed {
                let session = ctx.sessions.peek(&connection).and_then(|lookup| lookup.session.ok());
                if let Some(session) = session.filter(reporter::can_report) {
                    let reporter = self.reporter(&connection, &session);
                    if listed {
                        reporter.may_clear_out();
                    }
                }
            }
            self.reporters.lock().retain(|_, reporter| !reporter.has_ended());
        }
    }

    /// A version of a resource was seen.
    pub fn saw(&self, key: &ObjectKey, object: &SecureWorkspace) {
        let reports = object.spec.report.as_ref().is_some_and(|report| !report.is_empty());
        let connection = reports.then(|| super::secure_workspace::pass::connection_key(object));
        if self.declared.lock().set(key, connection) {
            self.changed.notify_one();
        }
    }

    /// A resource is gone: what it still had to tell goes with it.
    pub fn gone(&self, key: &ObjectKey) {
        let connection = self.declared.lock().resources.get(key).cloned();
        self.declared.lock().set(key, None);
        if let Some(reporter) = connection.and_then(|connection| self.reporters.lock().get(&connection).cloned()) {
            reporter.forget(key);
        }
    }

    /// The first listing of resources is complete.
    pub fn listed(&self) {
        self.declared.lock().listed = true;
        self.changed.notify_one();
    }

    fn is_declared(&self, key: &ObjectKey) -> bool {
        self.declared.lock().resources.contains_key(key)
    }

    /// The reporter of a session of a Connection; it runs until the session ends.
    pub fn reporter(self: &Arc<Self>, connection: &ObjectKey, session: &Arc<Session>) -> Arc<Reporter> {
        let mut reporters = self.reporters.lock();
        if let Some(known) = reporters.get(connection).filter(|known| known.is_of(session)) {
            return known.clone();
        }
        let reporter = Reporter::start(self.clone(), connection, session.clone());
        reporters.insert(connection.clone(), reporter.clone());
        reporter
    }

    /// What the calls of a namespace's reports need. Nothing is read.
    pub fn surroundings(&self, namespace: &str) -> Surroundings {
        Surroundings { references: self.references.of(namespace), clients: self.clients.clone() }
    }

    /// Somebody wants another try now.
    pub fn retry_now(&self, namespace: &str) {
        self.hosts.forget(namespace);
    }

    fn wake(&self, key: &ObjectKey) {
        if let Some(workspaces) = self.workspaces.get().and_then(Weak::upgrade) {
            workspaces.wake([key.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_who_reports_and_are_forgotten_with_the_last() {
        let mut declared = Declared::default();
        let (one, two) = (ObjectKey::new("n", "one"), ObjectKey::new("n", "two"));
        let connection = |name: &str| Some(ObjectKey::new("n", name));
        assert!(declared.set(&one, connection("a")) && declared.set(&two, connection("a")));
        assert!(!declared.set(&one, connection("a")), "nothing new");
        assert!(declared.set(&one, connection("b")));
        assert_eq!((declared.connections.len(), declared.connections[&ObjectKey::new("n", "a")]), (2, 1));
        assert!(declared.set(&one, None) && declared.set(&two, None) && !declared.set(&two, None));
        assert!(declared.connections.is_empty() && declared.resources.is_empty());
    }
}
