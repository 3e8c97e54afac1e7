//! SecureWorkspaceSet: the controller. Who is looked at when; what one pass does stands in [`pass`].

mod apply;
pub mod children;
pub mod events;
pub mod pass;
pub mod status;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::api::connection::{GrantKind, GrantScope};
use crate::api::secure_workspace_set::{DEFAULT_MAX_REMOVALS, OnSetDelete};
use crate::api::{Connection, FINALIZER, REQUESTED_AT, SecureWorkspace, SecureWorkspaceSet, SecureWorkspaceSetSpec};
use crate::controllers::context::Context;
use crate::controllers::references::ReferenceStore;
use crate::controllers::secure_workspace::SecureWorkspaces;
use crate::controllers::{finalizers, grants, until};
use crate::error::{Disposition, Error, Kind, Result};
use crate::outbound::http::{Clients, Surroundings};
use crate::reconcile::queue::Queue;
use crate::reconcile::{ObjectKey, backoff, publish};
use crate::sets::child;
use crate::sets::program::Program;
use apply::Writer;
use children::Children;
use pass::{Findings, Pass, Run};
use status::Outcome;

const KIND: &str = "SecureWorkspaceSet";
/// Passes at once. One that waits for a slow source keeps no other namespace waiting.
const WORKERS: usize = 16;
/// What changed on the generated workspaces is looked at this much later, so that several changes come together.
const GATHER: Duration = Duration::from_millis(500);
/// A terminal failure is looked at again this often, in case the world changed.
const TERMINAL_RESYNC: Duration = Duration::from_mins(30);
/// Keys that are told of a deletion that is blocked.
const TOLD: usize = 50;

/// The controller of SecureWorkspaceSets.
pub struct SecureWorkspaceSets {
    ctx: Arc<Context>,
    queue: Queue,
    sets: Mutex<HashMap<ObjectKey, Entry>>,
    children: Children,
    workspaces: OnceLock<Arc<SecureWorkspaces>>,
    references: Arc<ReferenceStore>,
    clients: Arc<Clients>,
}

struct Entry {
    object: Arc<SecureWorkspaceSet>,
    failures: u32,
    run: Option<Box<Run>>,
    /// Items, ready and failed ones.
    counted: (u32, u32, u32),
}

impl SecureWorkspaceSets {
    /// Nothing runs before [`SecureWorkspaceSets::run`].
    pub fn new(ctx: Arc<Context>, references: Arc<ReferenceStore>, clients: Arc<Clients>) -> Arc<Self> {
        Arc::new(Self {
            ctx,
            queue: Queue::new(WORKERS),
            sets: Mutex::default(),
            children: Children::default(),
            workspaces: OnceLock::new(),
            references,
            clients,
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
        let work = async { tokio::join!(self.watch(), futures::future::join_all(workers)) };
        tokio::select! {
            _ = work => {}
            () = self.ctx.shutdown.cancelled() => self.queue.close(),
        }
    }

    /// A SecureWorkspace as the watch delivers it.
    pub fn saw_workspace(&self, object: &SecureWorkspace) {
        let labels = self.children.saw(object);
        if !labels.is_empty() {
            self.wake(&object.namespace().unwrap_or_default(), &labels);
        }
    }

    /// A SecureWorkspace is gone.
    pub fn workspace_gone(&self, key: &ObjectKey) {
        if let Some(label) = self.children.gone(key) {
            self.wake(&key.namespace, &[label]);
        }
    }

    fn wake(&self, namespace: &str, labels: &[Box<str>]) {
        let sets = self.sets.lock();
        let concerned = sets
            .keys()
            .filter(|key| &*key.namespace == namespace && labels.iter().any(|label| **label == *child::label(&key.name)));
        concerned.for_each(|key| self.queue.push_after(key.clone(), GATHER));
    }

    /// The session, the grants or the ceiling of a Connection changed, or it is gone.
    pub fn connection_changed(&self, connection: &ObjectKey) {
        let sets = self.sets.lock();
        let using = sets.iter().filter(|(_, entry)| connection_key(&entry.object) == *connection);
        using.for_each(|(key, _)| self.queue.push(key.clone()));
    }

    /// The labels of a namespace changed: grants by selector may end or begin.
    pub fn namespace_changed(&self, namespace: &str) {
        let sets = self.sets.lock();
        sets.keys().filter(|key| &*key.namespace == namespace).for_each(|key| self.queue.push(key.clone()));
    }

    async fn watch(&self) {
        self.ctx.readiness.waits("sets", "the first listing");
        let api: Api<SecureWorkspaceSet> = crate::controllers::api_of(&self.ctx);
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
                    let gone: Vec<ObjectKey> =
                        self.sets.lock().keys().filter(|key| !listing.contains(*key)).cloned().collect();
                    gone.iter().for_each(|key| self.gone(key));
                    self.ctx.readiness.is_ready("sets");
                }
                Ok(Event::Apply(object)) => self.saw(object),
                Ok(Event::Delete(object)) => self.gone(&ObjectKey::of(&object)),
                Err(error) => warn!(%error, "The watch of SecureWorkspaceSets failed; it starts again"),
            }
        }
    }

    fn saw(&self, mut object: SecureWorkspaceSet) {
        object.metadata.managed_fields = None;
        let key = ObjectKey::of(&object);
        let mut sets = self.sets.lock();
        match sets.get_mut(&key) {
            Some(entry) if entry.object.uid() == object.uid() => {
                if version(&object) < version(&entry.object) {
                    return;
                }
                let is_news = differs(&entry.object, &object);
                // Whoever asks for a pass wants the listings read now.
                if token(&entry.object) != token(&object)
                    && let Some(run) = &mut entry.run
                {
                    run.forget();
                }
                let before = std::mem::replace(&mut entry.object, Arc::new(object));
                if !is_news {
                    return;
                }
                entry.failures = 0;
                self.tell_rivals(&sets, &key, &before);
            }
            _ => {
                let entry = Entry { object: Arc::new(object), failures: 0, run: None, counted: (0, 0, 0) };
                if let Some(before) = sets.insert(key.clone(), entry) {
                    self.tell_rivals(&sets, &key, &before.object);
                }
            }
        }
        if let Some(entry) = sets.get(&key) {
            self.tell_rivals(&sets, &key, &entry.object);
        }
        drop(sets);
        self.queue.push(key);
    }

    fn gone(&self, key: &ObjectKey) {
        self.queue.cancel(key);
        let mut sets = self.sets.lock();
        if let Some(entry) = sets.remove(key) {
            self.tell_rivals(&sets, key, &entry.object);
        }
        drop(sets);
        self.measure();
    }

    /// Other sets with a path for events that this one has, or had: whose it is may be different now.
    fn tell_rivals(&self, sets: &HashMap<ObjectKey, Entry>, key: &ObjectKey, object: &SecureWorkspaceSet) {
        let declared: HashSet<&str> =
            object.spec.generators.iter().filter_map(|one| one.events.as_ref()).map(|events| events.path.as_str()).collect();
        let others = sets.iter().filter(|(other, _)| other.namespace == key.namespace && other.name != key.name);
        for (other, _) in others.filter(|(_, entry)| paths(&entry.object).any(|path| declared.contains(path))) {
            self.queue.push(other.clone());
        }
    }

    async fn pass(&self, key: &ObjectKey) {
        let Some(object) = self.object(key) else { return };
        let started = Instant::now();
        let mut work = std::pin::pin!(self.converge(key, &object));
        let is_new = object.status.as_ref().and_then(|status| status.observed_generation) != object.metadata.generation;
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            () = tokio::time::sleep(self.ctx.tuning.slow_pass), if is_new => {
                self.say_progressing(key, &object).await;
                work.await
            }
        };
        let outcome = match outcome {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return,
            Err(error) => Outcome::Failed(error),
        };
        self.ctx.metrics.pass_ended(
            KIND,
            if let Outcome::Failed(error) = &outcome { error.kind.as_str() } else { "converged" },
            started.elapsed(),
        );
        if let Some(again) = self.again(key, &object, &outcome) {
            self.queue.push_after(key.clone(), again);
        }
        if let Err(error) = self.report(key, &object, &outcome).await {
            warn!(object = %key, %error, "The status could not be written");
            self.queue.push_after(key.clone(), backoff::jittered(Duration::from_secs(2)));
        }
    }

    fn object(&self, key: &ObjectKey) -> Option<Arc<SecureWorkspaceSet>> {
        self.sets.lock().get(key).map(|entry| entry.object.clone())
    }

    /// When to look again, if nothing happens.
    fn again(&self, key: &ObjectKey, object: &SecureWorkspaceSet, outcome: &Outcome) -> Option<Duration> {
        let mut sets = self.sets.lock();
        let entry = sets.get_mut(key)?;
        if let Outcome::Looked(findings) = outcome {
            entry.counted = (findings.items, findings.ready, findings.failed);
        }
        let Outcome::Failed(error) = outcome else {
            entry.failures = 0;
            return match outcome {
                Outcome::Looked(findings) => findings.again,
                Outcome::Suspended => {
                    object.spec.suspend_until.map(|at| until(at, self.ctx.now()) + Duration::from_millis(100))
                }
                _ => None,
            };
        };
        entry.failures = entry.failures.saturating_add(1);
        warn!(object = %key, %error, failures = entry.failures, "The set does not generate");
        Some(match error.disposition() {
            Disposition::Terminal => backoff::jittered(TERMINAL_RESYNC),
            Disposition::RetryAfter(after) => after,
            Disposition::Retry => backoff::delay(entry.failures, rand::random()),
        })
    }

    /// `None`: it is not known yet what to do.
    async fn converge(&self, key: &ObjectKey, object: &Arc<SecureWorkspaceSet>) -> Result<Option<Outcome>> {
        if !self.workspaces.get().is_some_and(|workspaces| workspaces.is_listed()) {
            // C5: which workspaces there are is not known yet; that is not the same as none.
            self.queue.push_after(key.clone(), GATHER);
            return Ok(None);
        }
        if object.meta().deletion_timestamp.is_some() {
            return self.let_go(key, object).await;
        }
        if is_suspended(object, self.ctx.now()) {
            return Ok(Some(Outcome::Suspended));
        }
        let connection = connection_key(object);
        let Some(lookup) = self.ctx.sessions.peek(&connection) else {
            return self.without_connection(key);
        };
        let labels = self.ctx.namespaces.of(&key.namespace);
        permitted(object, &lookup.connection, &labels)?;
        let program = self.program(key, object)?;
        self.check_endpoints(key, object).await?;
        self.keep_finalizer(key, object).await?;
        let taken = self.sets.lock().get_mut(key).and_then(|entry| entry.run.take());
        let mut run = match taken {
            Some(run) if Arc::ptr_eq(&run.program, &program) => run,
            _ => Box::new(Run::new(object.metadata.generation.unwrap_or_default(), program)),
        };
        let pass = Pass { ctx: &self.ctx, children: &self.children, key, object };
        let result = pass.run(&mut run).await;
        if let Some(entry) = self.sets.lock().get_mut(key) {
            if token(&entry.object) != token(object) {
                run.forget();
            }
            entry.run = Some(run);
        }
        Ok(Some(Outcome::Looked(Box::new(result?))))
    }

    /// The compiled set; the one that is at hand, if it is of this generation.
    fn program(&self, key: &ObjectKey, object: &SecureWorkspaceSet) -> Result<Arc<Program>> {
        let generation = object.metadata.generation.unwrap_or_default();
        let known =
            self.sets.lock().get(key).and_then(|entry| {
                entry.run.as_ref().filter(|run| run.generation == generation).map(|run| run.program.clone())
            });
        match known {
            Some(program) => Ok(program),
            None => {
                let surroundings =
                    Surroundings { references: self.references.of(&key.namespace), clients: self.clients.clone() };
                compile(&object.spec, &surroundings).map(Arc::new)
            }
        }
    }

    /// An endpoint that another set has, or without its keys, takes nothing in: the set says so, instead of waiting for events that cannot come.
    async fn check_endpoints(&self, key: &ObjectKey, object: &SecureWorkspaceSet) -> Result<()> {
        for (at, generator) in object.spec.generators.iter().enumerate() {
            let Some(events) = &generator.events else { continue };
            if let Some(owner) = self.elder_with(key, object, &events.path) {
                let why =
                    format!("spec.generators[{at}].events.path: {} belongs to SecureWorkspaceSet {owner}", events.path);
                let mut error = Error::new(Kind::Rejected, why);
                error.code = "invalid-spec".into();
                return Err(error);
            }
            let secret = &events.hmac_ref.name;
            match self.references.of(&key.namespace).keys(secret).await {
                Ok(keys) if keys.is_empty() => {
                    let why = format!("spec.generators[{at}].events.hmacRef: Secret {secret} has no key to sign with");
                    return Err(Error::new(Kind::Reference, why));
                }
                Err(error) if error.kind == Kind::Reference => {
                    return Err(error.while_doing(format!("read spec.generators[{at}].events.hmacRef")));
                }
                // C5: that it could not be read is not that it is absent.
                _ => {}
            }
        }
        Ok(())
    }

    /// Name of an older set of the namespace with this path.
    fn elder_with(&self, key: &ObjectKey, object: &SecureWorkspaceSet, path: &str) -> Option<Arc<str>> {
        let sets = self.sets.lock();
        let others = sets.iter().filter(|(other, entry)| {
            other.namespace == key.namespace && other.name != key.name && age(&entry.object) < age(object)
        });
        let mut others = others.filter(|(_, entry)| paths(&entry.object).any(|theirs| theirs == path));
        others.next().map(|(other, _)| other.name.clone())
    }

    fn without_connection(&self, key: &ObjectKey) -> Result<Option<Outcome>> {
        let is_first = self.sets.lock().get_mut(key).is_some_and(|entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures == 1
        });
        if is_first {
            // Sets are often applied together with their Connection.
            self.queue.push_after(key.clone(), Duration::from_secs(1));
            return Ok(None);
        }
        Err(grants::not_granted(&key.namespace))
    }

    /// A finalizer is there while deletion has something to do (D1).
    async fn keep_finalizer(&self, key: &ObjectKey, object: &SecureWorkspaceSet) -> Result<()> {
        let has = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
        let needs = object.spec.on_delete == Some(OnSetDelete::DeleteChildren);
        if needs && !has {
            let written = finalizers::add(&self.ctx.client, object).await?;
            self.remember(key, written);
        } else if has && !needs {
            finalizers::remove(&self.ctx.client, object).await?;
        }
        Ok(())
    }

    /// Deletes what goes with the set, unless it is too much at once; then lets the set go. The SecureWorkspaces' own deletion goes on without it.
    async fn let_go(&self, key: &ObjectKey, object: &SecureWorkspaceSet) -> Result<Option<Outcome>> {
        if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(None);
        }
        if object.spec.on_delete == Some(OnSetDelete::DeleteChildren) {
            let mut left = Vec::new();
            self.children.each(key, |name, child| {
                if !child.deleting {
                    left.push((name.to_owned(), child.uid.to_string(), child.key.to_string()));
                }
            });
            let max = object.spec.max_removals.unwrap_or(DEFAULT_MAX_REMOVALS) as usize;
            if left.len() > max {
                let count = left.len();
                let mut keys: Vec<String> = left.into_iter().map(|(_, _, key)| crate::error::clean(&key, 512)).collect();
                keys.sort();
                keys.truncate(TOLD);
                return Ok(Some(Outcome::Kept(keys, count, max)));
            }
            let writer = Writer::new(&self.ctx, &key.namespace);
            for (name, uid, _) in left {
                if !writer.remove(&key.name, &name, &uid, false).await? {
                    self.queue.push_after(key.clone(), GATHER);
                    return Ok(None);
                }
                self.children.with(&ObjectKey::new(&key.namespace, &name), |child| child.deleting = true);
                self.ctx.metrics.set_child("removed");
            }
        }
        finalizers::remove(&self.ctx.client, object).await?;
        info!(object = %key, "The set is gone");
        Ok(None)
    }

    async fn say_progressing(&self, key: &ObjectKey, object: &SecureWorkspaceSet) {
        let next = status::progressing(object, self.ctx.now());
        match publish::publish(&self.ctx.client, object, object.status.as_ref(), &next).await {
            Ok(Some(written)) => {
                self.ctx.metrics.status_written(KIND);
                self.remember(key, written);
            }
            Ok(None) => {}
            Err(error) => debug!(%error, "The slow pass could not be announced"),
        }
    }

    /// The own write is known at once (C10).
    fn remember(&self, key: &ObjectKey, mut written: SecureWorkspaceSet) {
        written.metadata.managed_fields = None;
        if let Some(entry) = self.sets.lock().get_mut(key)
            && entry.object.uid() == written.uid()
            && version(&written) >= version(&entry.object)
        {
            if differs(&entry.object, &written) {
                // Somebody changed it at the same time.
                self.queue.push(key.clone());
            }
            entry.object = Arc::new(written);
        }
    }

    async fn report(&self, key: &ObjectKey, passed: &SecureWorkspaceSet, outcome: &Outcome) -> Result<()> {
        self.measure();
        if let Outcome::Looked(findings) = outcome {
            self.tell_removals(passed, findings).await;
        }
        let Some(object) = self.object(key).filter(|object| !differs(passed, object)) else {
            // The pass was over something older; the next one is due already.
            return Ok(());
        };
        let next = status::after(&object, outcome, self.ctx.now());
        if object.status.as_ref() == Some(&next) {
            return Ok(());
        }
        let events = status::events(object.status.as_ref(), &next);
        let write = publish::publish(&self.ctx.client, &*object, object.status.as_ref(), &next);
        match self.ctx.gate.write(&key.namespace, write).await {
            Ok(Some(written)) => {
                self.ctx.metrics.status_written(KIND);
                self.remember(key, written);
            }
            Ok(None) => {}
            // Gone in between: there is nobody left to tell.
            Err(error) if error.kind == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        for (warning, reason, message) in events {
            self.ctx.event(&*object, warning, &reason, &message).await;
        }
        Ok(())
    }

    async fn tell_removals(&self, object: &SecureWorkspaceSet, findings: &Findings) {
        if findings.removed > 0 {
            let text =
                format!("{} items are gone from their source; their SecureWorkspaces were deleted.", findings.removed);
            self.ctx.event(object, false, "ItemsGone", &text).await;
        }
    }

    /// All sets together.
    fn measure(&self) {
        let sets = self.sets.lock();
        let sum = |of: fn(&(u32, u32, u32)) -> u32| sets.values().map(|entry| i64::from(of(&entry.counted))).sum();
        self.ctx.metrics.set_items.set(sum(|counted| counted.0));
        self.ctx.metrics.set_ready.set(sum(|counted| counted.1));
        self.ctx.metrics.set_failed.set(sum(|counted| counted.2));
    }
}

/// Compiles a spec, with what the operator says of one that cannot be.
fn compile(spec: &SecureWorkspaceSetSpec, surroundings: &Surroundings) -> Result<Program> {
    Program::compile(spec, surroundings).map_err(|invalid| {
        let mut error = Error::new(Kind::Rejected, format!("spec.{invalid}"));
        // Only the place of an expression has a line.
        error.code = if invalid.why.starts_with("line ") { "invalid-expression" } else { "invalid-spec" }.into();
        error
    })
}

/// Orders the sets of a namespace: the elder comes first, and of those of one second the first by name.
fn age(object: &SecureWorkspaceSet) -> (Option<Timestamp>, &str) {
    (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.metadata.name.as_deref().unwrap_or_default())
}

/// Where a set takes events: nowhere any more when it is being deleted.
fn paths(object: &SecureWorkspaceSet) -> impl Iterator<Item = &str> {
    let generators = object.spec.generators.iter().filter(|_| object.metadata.deletion_timestamp.is_none());
    generators.filter_map(|generator| generator.events.as_ref()).map(|events| events.path.as_str())
}

/// The Connection that an object names.
fn connection_key(object: &SecureWorkspaceSet) -> ObjectKey {
    let reference = &object.spec.connection_ref;
    let own = object.namespace().unwrap_or_default();
    ObjectKey::new(reference.namespace.as_deref().unwrap_or(&own), &reference.name)
}

/// Whether the Connection lets the set use it (T1). `labels` are those of the set's namespace.
fn permitted(
    object: &SecureWorkspaceSet,
    connection: &Connection,
    labels: &std::collections::BTreeMap<String, String>,
) -> Result<GrantScope> {
    let home = connection.namespace().unwrap_or_default();
    let namespace = object.namespace().unwrap_or_default();
    let asking =
        grants::Asking { namespace: &namespace, labels, kind: GrantKind::SecureWorkspaceSet, external_system: None };
    grants::scope(&home, &connection.spec, &asking)
}

fn is_suspended(object: &SecureWorkspaceSet, now: Timestamp) -> bool {
    object.spec.suspend == Some(true) && object.spec.suspend_until.is_none_or(|until| until > now)
}

fn token(object: &SecureWorkspaceSet) -> Option<&String> {
    object.annotations().get(REQUESTED_AT)
}

/// Whether two versions differ in something that a pass looks at.
fn differs(last: &SecureWorkspaceSet, next: &SecureWorkspaceSet) -> bool {
    last.uid() != next.uid()
        || last.meta().generation != next.meta().generation
        || last.meta().deletion_timestamp != next.meta().deletion_timestamp
        || token(last) != token(next)
}

fn version(object: &SecureWorkspaceSet) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
