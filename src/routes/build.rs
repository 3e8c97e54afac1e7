//! From a spec to a route that is ready to run. Everything that can be known to be wrong is found here, without a call to anybody.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::content::Bandwidth;
use super::delivery::{Destination, RouteId};
use super::destinations::broker::BrokerDestination;
use super::destinations::file360::{self, Publication};
use super::destinations::http::{Addresses, HttpDestination};
use super::destinations::index::{IndexDestination, Readers};
use super::destinations::object_store::ObjectStoreDestination;
use super::environment::NAMES_WITH_RESPONSE;
use super::gate::Gate;
use super::objects::ObjectSource;
use super::paths::PathPattern;
use super::route::{Breaker, LARGE_AT_ONCE, Retry, Route, Target, Unmatched, bytes};
use super::rules::Rules;
use crate::api::file_route::{DestinationSpec, FileEvent, FileRouteSpec, Send};
use crate::api::places::ObjectStore;
use crate::error::Result;
use crate::expression::{Expression, InvalidField};
use crate::outbound::guard::Guard;
use crate::outbound::http;
use crate::outbound::object_store::Store;
use crate::outbound::secrets::References;
use crate::outbound::trust::Trust;

/// What destinations are made with.
pub trait Workshop {
    /// For HTTP destinations.
    fn http(&self) -> http::Surroundings;
    /// Makes download addresses.
    fn addresses(&self) -> Arc<dyn Addresses>;
    /// For publications.
    fn publication(&self) -> file360::Surroundings;
    /// For connections that are not HTTP.
    fn network(&self) -> Network;
    /// Tells who may read a file.
    fn readers(&self) -> Arc<dyn Readers>;
    /// Opens an object store; nothing is sent yet.
    fn store(&self, spec: &ObjectStore) -> Result<Arc<dyn Store>>;
}

/// What connections to brokers and indexes are made with.
pub struct Network {
    /// Secrets of the namespace.
    pub references: Arc<dyn References>,
    /// Which addresses are fine.
    pub guard: Arc<Guard>,
    /// Whom to trust.
    pub trust: Trust,
}

/// Compiles everything of `spec`.
pub fn route(id: Arc<RouteId>, spec: &FileRouteSpec, workshop: &dyn Workshop) -> Result<Route, InvalidField> {
    let rules = Rules::compile(spec)?;
    let targets = spec.rules.iter().enumerate().map(|(at, rule)| targets(&rule.to, &format!("rules[{at}].to"), workshop));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let gates = spec.rules.iter().enumerate().map(|(at, rule)| {
        let gate = Gate::compile(rule, &workshop.http()).map_err(|invalid| invalid.below(&format!("rules[{at}]")));
        Ok(gate?.map(Arc::new))
    });
    let gates = gates.collect::<Result<Vec<_>, InvalidField>>()?;
    let unmatched = match (&spec.unmatched.move_to, &spec.unmatched.to) {
        (Some(folder), _) => Unmatched::MoveTo(folder.clone()),
        (None, Some(to)) => Unmatched::To(self::targets(to, "unmatched.to", workshop)?),
        (None, None) => Unmatched::Ignore,
    };
    let delivery = spec.delivery.as_ref();
    let bandwidth = delivery.and_then(|delivery| delivery.bandwidth.as_deref());
    let bandwidth = match bandwidth.map(|text| bytes(text).and_then(Bandwidth::new)) {
        Some(Some(limit)) => vec![limit],
        Some(None) => return Err(InvalidField::value("delivery.bandwidth", "is not a size above 0, such as 20Mi")),
        None => Vec::new(),
    };
    let stated = delivery.and_then(|delivery| delivery.concurrency).and_then(|number| usize::try_from(number).ok());
    Ok(Route {
        id,
        rules,
        gates,
        pattern: pattern(spec),
        events: events(spec),
        retry: Retry::of(spec),
        concurrency: stated,
        large: sends_content(spec).then(|| Semaphore::new(stated.unwrap_or(LARGE_AT_ONCE))),
        bandwidth,
        dead_letter_folder: delivery.and_then(|delivery| Some(delivery.dead_letter.as_ref()?.move_to.clone())),
        targets,
        unmatched,
    })
}

/// The source of a route that reads an object store; `None` for every other.
pub fn objects(spec: &FileRouteSpec, route: &Route, workshop: &dyn Workshop) -> Result<Option<ObjectSource>, InvalidField> {
    let Some(from) = &spec.from.object_store else { return Ok(None) };
    let store = workshop.store(&from.store);
    let store = store.map_err(|error| InvalidField::value("from.objectStore", error.to_string()))?;
    ObjectSource::new(from, store, route.bandwidth.clone()).map(Some)
}

fn destinations(spec: &FileRouteSpec) -> impl Iterator<Item = &DestinationSpec> {
    spec.rules.iter().flat_map(|rule| &rule.to).chain(spec.unmatched.to.iter().flatten())
}

fn sends_content(spec: &FileRouteSpec) -> bool {
    destinations(spec).any(|to| to.file360.is_some() || to.object_store.is_some() || to.send == Some(Send::Content))
}

/// The paths that a route looks at.
pub fn pattern(spec: &FileRouteSpec) -> PathPattern {
    let path = match (&spec.from.workspaces, &spec.from.http) {
        (Some(workspaces), _) => workspaces.path.clone(),
        (None, Some(http)) => Some(format!("{}/**", http.inbox.path.trim_end_matches('/'))),
        (None, None) => None,
    };
    PathPattern::new(path.as_deref().unwrap_or("/**"))
}

fn events(spec: &FileRouteSpec) -> BTreeSet<FileEvent> {
    let stated = spec.from.workspaces.as_ref().and_then(|workspaces| workspaces.events.as_ref());
    stated.map_or_else(
        || BTreeSet::from([FileEvent::Uploaded, FileEvent::VersionAdded]),
        |stated| stated.iter().copied().collect(),
    )
}

fn targets(specs: &[DestinationSpec], field: &str, workshop: &dyn Workshop) -> Result<Vec<Arc<Target>>, InvalidField> {
    let made = specs.iter().enumerate().map(|(at, spec)| {
        let field = format!("{field}[{at}]");
        target(spec, workshop).map_err(|invalid| invalid.below(&field))
    });
    made.collect()
}

fn target(spec: &DestinationSpec, workshop: &dyn Workshop) -> Result<Arc<Target>, InvalidField> {
    let write_back = spec.write_back.iter().flatten().map(|(name, text)| {
        let compiled = Expression::compile(text, NAMES_WITH_RESPONSE);
        let compiled = compiled.map_err(|invalid| InvalidField::expression(format!("writeBack.{name}"), &invalid))?;
        Ok((name.clone(), compiled))
    });
    let write_back = write_back.collect::<Result<Vec<_>, InvalidField>>()?;
    misplaced(spec)?;
    let destination = destination(spec, workshop)?;
    Ok(Arc::new(Target { name: spec.name.as_str().into(), destination, write_back, breaker: Breaker::default() }))
}

/// Fields that go with another kind of destination would change nothing.
fn misplaced(spec: &DestinationSpec) -> Result<(), InvalidField> {
    let wrong = |field: &str, kind: &str| Err(InvalidField::value(field, format!("goes with {kind} only")));
    if spec.http.is_none() {
        for (field, is_there) in [
            ("send", spec.send.is_some()),
            ("referenceFor", spec.reference_for.is_some()),
            ("writeBack", spec.write_back.is_some()),
        ] {
            if is_there {
                return wrong(field, "http");
            }
        }
    }
    if spec.object_store.is_none() && spec.key.is_some() {
        return wrong("key", "objectStore");
    }
    Ok(())
}

fn destination(spec: &DestinationSpec, workshop: &dyn Workshop) -> Result<Arc<dyn Destination>, InvalidField> {
    if spec.http.is_some() {
        return Ok(Arc::new(HttpDestination::new(spec, &workshop.http(), workshop.addresses())?));
    }
    if let Some(file360) = &spec.file360 {
        return Ok(Arc::new(Publication::new(file360, workshop.publication())?));
    }
    if let (Some(store), Some(key)) = (&spec.object_store, &spec.key) {
        let store = workshop.store(store).map_err(|error| InvalidField::value("objectStore", error.to_string()))?;
        let made = ObjectStoreDestination::new(store, key);
        return Ok(Arc::new(made.map_err(|(field, invalid)| InvalidField::expression(field, &invalid))?));
    }
    if let Some(broker) = &spec.broker {
        let Network { references, guard, trust } = workshop.network();
        return Ok(Arc::new(BrokerDestination::new(broker, references, guard, trust)?));
    }
    if let Some(index) = &spec.index {
        let Network { references, guard, trust } = workshop.network();
        return Ok(Arc::new(IndexDestination::new(index, references, guard, trust, workshop.readers())?));
    }
    Err(InvalidField::value("", "needs exactly one of file360, objectStore, http, broker and index"))
}
