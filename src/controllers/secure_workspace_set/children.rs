//! What is remembered of the SecureWorkspaces that sets generate. Small: there is one for each.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use kube::ResourceExt;
use parking_lot::Mutex;
use serde::Serialize;

use crate::api::common::is_true;
use crate::api::secure_workspace::DeletionPolicy;
use crate::api::{
    FINALIZER, SET_APPLIED, SET_DATA, SET_EVENTS, SET_GENERATOR, SET_ITEM, SET_LABEL, SET_TEMPLATE, SecureWorkspace,
};
use crate::reconcile::ObjectKey;
use crate::sets::child;
use crate::sets::template::is_reserved;

/// One SecureWorkspace with the label of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its uid.
    pub uid: Box<str>,
    /// Its newest known resourceVersion, own writes included.
    pub version: u64,
    /// Key of its item.
    pub key: Box<str>,
    /// Kind and name of the generator that has its item.
    pub generator: Box<str>,
    /// Fingerprint of what was applied.
    pub applied: Box<str>,
    /// Fingerprint of the template, if an event made it.
    pub template: Box<str>,
    /// Fingerprints of events.
    pub events: Option<Box<str>>,
    /// What it is now: spec and labels.
    pub live: u64,
    /// It is ready.
    pub ready: bool,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// Its deletion archives the workspace, and waits for that.
    pub archives: bool,
    /// What it was when it was last known to be as the set wants it.
    pub settled: Option<u64>,
    /// Fingerprint of item and template at that time.
    pub made_of: u64,
}

/// The same number for the same content, within this process.
pub fn digest(content: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(content).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

impl Child {
    fn of(object: &SecureWorkspace) -> Self {
        let annotation = |name: &str| object.annotations().get(name).map(|text| text.as_str().into());
        let text = |name: &str| annotation(name).unwrap_or_default();
        let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let observed = object.status.as_ref().and_then(|status| status.observed_generation);
        Self {
            uid: object.uid().unwrap_or_default().into(),
            version: version(object),
            key: text(SET_ITEM),
            generator: text(SET_GENERATOR),
            applied: text(SET_APPLIED),
            template: text(SET_TEMPLATE),
            events: annotation(SET_EVENTS),
            live: digest(&(&object.spec, object.labels())),
            ready: is_true(conditions, "Ready") && observed == object.metadata.generation,
            deleting: object.metadata.deletion_timestamp.is_some(),
            archives: archives(object),
            settled: None,
            made_of: 0,
        }
    }

    /// Whether it is what a set of this name makes of the item that it names. Anybody can set a label; a SecureWorkspace that only looks so is
    /// somebody else's (T6).
    pub fn is_made_by(&self, set: &str, name: &str) -> bool {
        !self.key.is_empty() && child::name(set, &self.key) == name
    }

    /// Whether it is as it was when it was last right.
    pub fn is_settled(&self) -> bool {
        self.settled == Some(self.live)
    }
}

/// Whether the deletion of an object archives its workspace, and waits for that.
pub fn archives(object: &SecureWorkspace) -> bool {
    object.spec.deletion_policy == Some(DeletionPolicy::Archive)
        && object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// The annotations that a set gave an object: its own marks, and what a template may set.
pub fn marks(object: &SecureWorkspace) -> BTreeMap<String, String> {
    let own = [SET_ITEM, SET_GENERATOR, SET_APPLIED, SET_TEMPLATE, SET_DATA, SET_EVENTS];
    let kept = object.annotations().iter().filter(|(name, _)| own.contains(&name.as_str()) || !is_reserved(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether an object is what a set of this name makes.
pub fn is_made_by(object: &SecureWorkspace, set: &str) -> bool {
    object.labels().get(SET_LABEL).is_some_and(|label| *label == child::label(set))
        && Child::of(object).is_made_by(set, &object.name_any())
}

/// Resource versions of one kind are comparable numbers.
fn version(object: &SecureWorkspace) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

type ByName = HashMap<Box<str>, Child>;
type ByLabel = HashMap<Box<str>, ByName>;

/// The generated SecureWorkspaces of all sets: by namespace, by label, by name.
#[derive(Default)]
pub struct Children {
    known: Mutex<HashMap<Arc<str>, ByLabel>>,
}

impl Children {
    /// Takes up a version of an object. Returns the labels of the sets that it concerns, if something changed that they look at.
    pub fn saw(&self, object: &SecureWorkspace) -> Vec<Box<str>> {
        let key = ObjectKey::of(object);
        let label = object.labels().get(SET_LABEL).map(|label| Box::<str>::from(label.as_str()));
        let mut known = self.known.lock();
        if label.is_none() && !known.contains_key(&key.namespace) {
            return Vec::new();
        }
        let namespace = known.entry(key.namespace.clone()).or_default();
        let mut concerned = Vec::new();
        // One that lost its label, or got another, is gone for the set that it had.
        for (other, children) in namespace.iter_mut().filter(|(other, _)| Some(*other) != label.as_ref()) {
            if children.remove(&*key.name).is_some() {
                concerned.push(other.clone());
            }
        }
        if let Some(label) = label {
            let mut next = Child::of(object);
            let children = namespace.entry(label.clone()).or_default();
            let last = children.get(&*key.name).filter(|last| last.uid == next.uid);
            if last.is_some_and(|last| last.version > next.version) {
                return concerned;
            }
            if let Some(last) = last {
                (next.settled, next.made_of) = (last.settled, last.made_of);
            }
            let is_news = last.is_none_or(|last| Child { version: next.version, ..last.clone() } != next);
            children.insert(key.name.as_ref().into(), next);
            if is_news {
                concerned.push(label);
            }
        }
        concerned
    }

    /// An object is gone. Returns the label of the set that it concerns.
    pub fn gone(&self, key: &ObjectKey) -> Option<Box<str>> {
        let mut known = self.known.lock();
        let namespace = known.get_mut(&key.namespace)?;
        let label = namespace.iter_mut().find_map(|(label, children)| children.remove(&*key.name).map(|_| label.clone()))?;
        namespace.retain(|_, children| !children.is_empty());
        if namespace.is_empty() {
            known.remove(&key.namespace);
        }
        Some(label)
    }

    /// The operator wrote an object: it is as the set wants it, made of this.
    pub fn settled(&self, object: &SecureWorkspace, made_of: u64) {
        self.saw(object);
        self.with(&ObjectKey::of(object), |child| {
            child.settled = Some(child.live);
            child.made_of = made_of;
        });
    }

    /// Changes what is remembered of one object, if it is known.
    pub fn with(&self, key: &ObjectKey, change: impl FnOnce(&mut Child)) {
        let mut known = self.known.lock();
        let mut namespace = known.get_mut(&key.namespace).into_iter().flat_map(HashMap::values_mut);
        if let Some(child) = namespace.find_map(|children| children.get_mut(&*key.name)) {
            change(child);
        }
    }

    /// What is known of one object of a set.
    pub fn get(&self, set: &ObjectKey, name: &str) -> Option<Child> {
        let known = self.known.lock();
        known.get(&set.namespace)?.get(&*child::label(&set.name))?.get(name).cloned()
    }

    /// Looks at all of a set, one after the other.
    pub fn each(&self, set: &ObjectKey, mut look: impl FnMut(&str, &mut Child)) {
        let mut known = self.known.lock();
        let Some(children) =
            known.get_mut(&set.namespace).and_then(|namespace| namespace.get_mut(&*child::label(&set.name)))
        else {
            return;
        };
        for (name, child) in children.iter_mut().filter(|(name, child)| child.is_made_by(&set.name, name)) {
            look(name, child);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: u64, label: Option<&str>, display_name: &str) -> SecureWorkspace {
        let labels = label.map_or_else(|| json!({}), |label| json!({SET_LABEL: label}));
        serde_json::from_value(json!({
            "apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace",
            "metadata": {"name": name, "namespace": "ns", "uid": "u1", "resourceVersion": version.to_string(), "labels": labels,
                "annotations": {SET_ITEM: "k", SET_GENERATOR: "http/crm"}},
            "spec": {"connectionRef": {"name": "c"}, "displayName": display_name},
        }))
        .unwrap()
    }

    #[test]
    fn c10_what_is_older_than_the_operators_own_write_changes_nothing() {
        let (children, name, set) = (Children::default(), child::name("deals", "k"), ObjectKey::new("ns", "deals"));
        assert_eq!(children.saw(&object(&name, 5, Some("deals"), "a")), ["deals".into()]);
        children.settled(&object(&name, 9, Some("deals"), "b"), 7);
        assert!(children.saw(&object(&name, 7, Some("deals"), "a")).is_empty(), "a late watch event");
        let child = children.get(&set, &name).unwrap();
        assert!(child.is_settled() && child.made_of == 7 && child.version == 9);
        assert!(children.saw(&object(&name, 10, Some("deals"), "b")).is_empty(), "nothing that matters");
        assert_eq!(children.saw(&object(&name, 11, Some("deals"), "somebody else's")), ["deals".into()]);
        assert!(!children.get(&set, &name).unwrap().is_settled());
    }

    #[test]
    fn t6_a_label_alone_makes_nothing_a_child() {
        let (children, set) = (Children::default(), ObjectKey::new("ns", "deals"));
        children.saw(&object("by-hand", 5, Some("deals"), "a"));
        let mut seen = 0;
        children.each(&set, |_, _| seen += 1);
        assert_eq!(seen, 0);
        assert!(!is_made_by(&object("by-hand", 5, Some("deals"), "a"), "deals"));
        assert!(is_made_by(&object(&child::name("deals", "k"), 5, Some("deals"), "a"), "deals"));
        assert!(!is_made_by(&object(&child::name("deals", "k"), 5, Some("others"), "a"), "deals"));
    }

    #[test]
    fn one_that_loses_its_label_is_gone_for_its_set() {
        let (children, name, set) = (Children::default(), child::name("deals", "k"), ObjectKey::new("ns", "deals"));
        children.saw(&object(&name, 5, Some("deals"), "a"));
        assert_eq!(children.saw(&object(&name, 6, None, "a")), ["deals".into()]);
        assert!(children.get(&set, &name).is_none());
        children.saw(&object(&name, 7, Some("deals"), "a"));
        assert_eq!(children.gone(&ObjectKey::new("ns", &name)), Some("deals".into()));
        assert_eq!(children.gone(&ObjectKey::new("ns", &name)), None);
    }
}
