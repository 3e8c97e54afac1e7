//! Opens the endpoints for events that sets declare, and takes events. Runs in every replica, leader or not: an event makes or changes one
//! SecureWorkspace under a name that its key gives, whoever takes it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use http::StatusCode;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher::Event as Watched;
use serde_json::Value;
use tracing::{debug, info, warn};

use super::apply::{Refused, Writer};
use super::{children, compile, connection_key, is_suspended, permitted};
use crate::api::{Connection, SET_EVENTS, SET_GENERATOR, SET_ITEM, SecureWorkspace, SecureWorkspaceSet};
use crate::controllers::context::Context;
use crate::controllers::references::ReferenceStore;
use crate::controllers::{api_of, grants, labels_of, watch};
use crate::error::{Result, clean};
use crate::inbound::events::{Effect, Event, EventEndpoint, Receiver, Taken};
use crate::inbound::keyring::Keyring;
use crate::inbound::problem::Refusal;
use crate::inbound::registry::Map;
use crate::outbound::http::{Clients, Surroundings};
use crate::reconcile::ObjectKey;
use crate::sets::child::{self, Origin, Set};
use crate::sets::program::{Program, Source};

/// What could not be opened is tried again after this long.
const AGAIN: Duration = Duration::from_secs(2);
/// Events that a SecureWorkspace remembers: one of them that comes again does nothing.
const REMEMBERED: usize = 16;
/// Locks for names, so that two events of one item do not cross each other in this process.
const LOCKS: usize = 64;
/// How often a change by somebody else in between is met with another try.
const TRIES: usize = 5;

/// Keeps the endpoints as declared until the task is dropped.
pub async fn keep(ctx: Arc<Context>, map: Arc<Map>) {
    let references = ReferenceStore::new(ctx.client.clone(), ctx.guard.clone(), ctx.tuning.secret_interval);
    let clients = Clients::new(ctx.guard.clone(), ctx.extra_ca.clone());
    let mut keeper = Keeper { ctx: ctx.clone(), map, references, clients, opened: HashMap::new() };
    let api: Api<SecureWorkspaceSet> = api_of(&ctx);
    let mut events = std::pin::pin!(watch(api));
    let mut sets: HashMap<ObjectKey, Arc<SecureWorkspaceSet>> = HashMap::new();
    let mut listing = HashMap::new();
    let (mut is_listed, mut wait) = (false, ctx.tuning.secret_interval);
    loop {
        let is_news = match tokio::time::timeout(wait, events.next()).await {
            Err(_) => true,
            Ok(None) => return,
            Ok(Some(Err(error))) => {
                warn!(%error, "The watch of sets with an endpoint failed; it starts again");
                false
            }
            Ok(Some(Ok(Watched::Init))) => {
                listing.clear();
                false
            }
            Ok(Some(Ok(Watched::InitApply(object)))) => {
                listing.insert(ObjectKey::of(&object), Arc::new(object));
                false
            }
            Ok(Some(Ok(Watched::InitDone))) => {
                sets = std::mem::take(&mut listing);
                sets.retain(|_, object| has_endpoint(object));
                is_listed = true;
                true
            }
            Ok(Some(Ok(Watched::Apply(object)))) => saw(&mut sets, object),
            Ok(Some(Ok(Watched::Delete(object)))) => sets.remove(&ObjectKey::of(&object)).is_some(),
        };
        if is_listed && is_news {
            wait = if keeper.refresh(&sets).await { ctx.tuning.secret_interval } else { AGAIN };
            keeper.map.events.all_known();
        }
    }
}

fn has_endpoint(object: &SecureWorkspaceSet) -> bool {
    super::paths(object).next().is_some()
}

fn saw(sets: &mut HashMap<ObjectKey, Arc<SecureWorkspaceSet>>, object: SecureWorkspaceSet) -> bool {
    let key = ObjectKey::of(&object);
    if !has_endpoint(&object) {
        return sets.remove(&key).is_some();
    }
    let identity = |object: &SecureWorkspaceSet| (object.uid(), object.metadata.generation);
    let is_news = sets.get(&key).is_none_or(|known| identity(known) != identity(&object));
    sets.insert(key, Arc::new(object));
    is_news
}

#[derive(PartialEq)]
struct Opened {
    uid: String,
    generation: i64,
    /// Those of its paths that no elder set has.
    paths: Vec<String>,
}

struct Keeper {
    ctx: Arc<Context>,
    map: Arc<Map>,
    references: Arc<ReferenceStore>,
    clients: Arc<Clients>,
    /// What is open.
    opened: HashMap<ObjectKey, Opened>,
}

impl Keeper {
    /// Opens, replaces and closes; whether everything that is declared is open.
    async fn refresh(&mut self, sets: &HashMap<ObjectKey, Arc<SecureWorkspaceSet>>) -> bool {
        let gone: Vec<ObjectKey> = self.opened.keys().filter(|key| !sets.contains_key(*key)).cloned().collect();
        gone.iter().for_each(|key| self.close(key));
        let mut complete = true;
        // The elder has the address, open or not.
        let mut in_order: Vec<_> = sets.iter().collect();
        in_order.sort_by_key(|(_, object)| super::age(object));
        let mut taken = HashSet::new();
        for (key, object) in in_order {
            let own = super::paths(object).filter(|path| taken.insert((&key.namespace, *path)));
            let own = own.map(str::to_owned).collect();
            if let Err(error) = self.open(key, object, own).await {
                complete = false;
                debug!(object = %key, %error, "The endpoint for events is not open yet");
                // What may not be used any more is closed; an outage closes nothing.
                if matches!(error.kind, crate::error::Kind::Reference | crate::error::Kind::Rejected) {
                    self.close(key);
                }
            }
        }
        complete
    }

    fn close(&mut self, key: &ObjectKey) {
        if let Some(opened) = self.opened.remove(key) {
            self.map.events.open(&opened.uid, Vec::new());
            info!(object = %key, "The endpoints for events are closed");
        }
    }

    /// Opens these paths of a set, and no others.
    async fn open(&mut self, key: &ObjectKey, object: &Arc<SecureWorkspaceSet>, paths: Vec<String>) -> Result<()> {
        self.check_grant(key, object).await?;
        let generation = object.metadata.generation.unwrap_or_default();
        let opened = Opened { uid: object.uid().unwrap_or_default(), generation, paths };
        if self.opened.get(key) == Some(&opened) {
            return Ok(());
        }
        if self.opened.get(key).is_some_and(|before| before.uid != opened.uid) {
            self.close(key);
        }
        let references = self.references.of(&key.namespace);
        let surroundings = Surroundings { references: references.clone(), clients: self.clients.clone() };
        let program = Arc::new(compile(&object.spec, &surroundings)?);
        let mut endpoints = Vec::new();
        for generator in &object.spec.generators {
            let Some(events) = generator.events.as_ref().filter(|events| opened.paths.contains(&events.path)) else {
                continue;
            };
            let every = self.ctx.tuning.secret_interval;
            let keys = Keyring::open(references.clone(), events.hmac_ref.name.clone(), every).await;
            let receiver = Arc::new(SetReceiver {
                ctx: self.ctx.clone(),
                key: key.clone(),
                object: object.clone(),
                program: program.clone(),
                generator: format!("events/{}", generator.name),
                locks: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            });
            endpoints.push(EventEndpoint::new(&opened.uid, &key.namespace, &events.path, keys, receiver));
        }
        self.map.events.open(&opened.uid, endpoints);
        info!(object = %key, paths = opened.paths.join(", "), "The endpoints for events are open");
        self.opened.insert(key.clone(), opened);
        Ok(())
    }

    /// Whether the Connection grants its use (T1).
    async fn check_grant(&self, key: &ObjectKey, object: &SecureWorkspaceSet) -> Result<()> {
        let connection = connection_key(object);
        let api: Api<Connection> = Api::namespaced(self.ctx.client.clone(), &connection.namespace);
        let found = api.get_opt(&connection.name).await?.ok_or_else(|| grants::not_granted(&key.namespace))?;
        let labels = if connection.namespace == key.namespace {
            BTreeMap::new()
        } else {
            labels_of(&self.ctx, &key.namespace).await?
        };
        permitted(object, &found, &labels).map(|_| ())
    }
}

/// Takes events for one generator.
struct SetReceiver {
    ctx: Arc<Context>,
    key: ObjectKey,
    object: Arc<SecureWorkspaceSet>,
    program: Arc<Program>,
    generator: String,
    locks: [tokio::sync::Mutex<()>; LOCKS],
}

#[async_trait]
impl Receiver for SetReceiver {
    async fn take(&self, event: Event) -> Result<Taken, Refusal> {
        if is_suspended(&self.object, self.ctx.now()) {
            return Err(Refusal::unavailable("The set is suspended.", Duration::from_mins(1)));
        }
        let Some(Source::Events(events)) = self.program.generator(&self.generator).map(|generator| &generator.source) else {
            return Err(Refusal::unsigned());
        };
        let Some((key, item)) = events.take(&event.value).map_err(|why| Refusal::invalid(clean(&why, 400)))? else {
            return Ok(Taken { outcome: Effect::Ignored, name: None });
        };
        let name = child::name(&self.key.name, &key);
        let lock = usize::try_from(children::digest(&name) % LOCKS as u64).unwrap_or_default();
        let _one_at_a_time = self.locks[lock].lock().await;
        for _ in 0..TRIES {
            match self.bring(&name, &key, &item, &event.identity).await {
                Ok(outcome) => return Ok(Taken { outcome, name: Some(name) }),
                Err(Failure::Refusal(refusal)) => return Err(refusal),
                Err(Failure::Again) => {}
            }
        }
        Err(Refusal::unavailable("Somebody else keeps changing the workspace.", Duration::from_secs(1)))
    }
}

enum Failure {
    Refusal(Refusal),
    /// Somebody else wrote in between.
    Again,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Item(why) => Self::Refusal(Refusal::invalid(why)),
            Refused::Stale => Self::Again,
            Refused::Failed(error) => {
                warn!(%error, "An event was not taken");
                Self::Refusal(Refusal::unavailable("Kubernetes cannot take the workspace now.", Duration::from_secs(5)))
            }
        }
    }
}

impl SetReceiver {
    async fn bring(&self, name: &str, key: &str, item: &Value, identity: &str) -> Result<Effect, Failure> {
        let writer = Writer::new(&self.ctx, &self.key.namespace);
        let Some(object) = writer.read(name).await.map_err(Refused::Failed)? else {
            let child = self.child(&self.generator, key, item, Some(item), identity)?;
            writer.make(&self.key.name, &child).await?;
            self.ctx.metrics.set_child("created");
            return Ok(Effect::Created);
        };
        self.check(&object, key)?;
        let annotation = |name: &str| object.annotations().get(name).map(String::as_str);
        let seen = annotation(SET_EVENTS).unwrap_or_default();
        if seen.split(',').any(|one| one == identity) {
            return Ok(Effect::Unchanged);
        }
        let first = (seen.split(',').filter(|one| !one.is_empty()).count() + 1).saturating_sub(REMEMBERED);
        let kept = seen.split(',').filter(|one| !one.is_empty()).skip(first).chain([identity]);
        let events = kept.collect::<Vec<_>>().join(",");
        // What a listing has stays its own: only a listing tells what is gone.
        let listing = annotation(SET_GENERATOR).and_then(|id| self.program.generator(id)).filter(|one| one.lists());
        let child = match listing {
            Some(listing) => self.child(&listing.id, key, item, None, &events)?,
            None => self.child(&self.generator, key, item, Some(item), &events)?,
        };
        writer.change(&child, &object.resource_version().unwrap_or_default()).await?;
        self.ctx.metrics.set_child("changed");
        Ok(Effect::Changed)
    }

    fn child(
        &self,
        generator: &str,
        key: &str,
        item: &Value,
        kept: Option<&Value>,
        events: &str,
    ) -> Result<child::Child, Failure> {
        let connection = &self.object.spec.connection_ref;
        let set = Set { namespace: &self.key.namespace, name: &self.key.name, connection };
        let origin = Origin { item: kept, template: &self.program.fingerprint, events: Some(events) };
        let child = self.program.child(set, generator, key, item, Some(&origin));
        child.map_err(|why| Failure::Refusal(Refusal::invalid(clean(&why, 400))))
    }

    fn check(&self, object: &SecureWorkspace, key: &str) -> Result<(), Failure> {
        let is_own = children::is_made_by(object, &self.key.name);
        if !is_own || object.annotations().get(SET_ITEM).map(String::as_str) != Some(key) {
            let detail = "The name of the item's SecureWorkspace belongs to something else.";
            return Err(Failure::Refusal(Refusal::new(StatusCode::CONFLICT, "name-taken", detail)));
        }
        if object.metadata.deletion_timestamp.is_some() {
            let detail = "The item's SecureWorkspace is being deleted.";
            return Err(Failure::Refusal(Refusal::unavailable(detail, Duration::from_secs(10))));
        }
        Ok(())
    }
}
