//! What is remembered of each object between its passes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;

use super::fight::Fight;
use crate::api::documents::DocumentState;
use crate::api::{CONFIRM_DELETE, FINALIZER, HANDOVER, REQUESTED_AT, SecureWorkspace};
use crate::documents::rules::{is_below, roots};
use crate::reconcile::ObjectKey;
use crate::routes::paths::PathPattern;
use crate::session::Foreign;

/// What is remembered of one object. Small: there is one for each.
pub struct Entry {
    /// Its uid.
    pub uid: Arc<str>,
    /// Its Connection.
    pub connection: ObjectKey,
    /// Its workspace, once known.
    pub workspace: Option<Box<str>>,
    /// Its labels; shared by all that have the same.
    pub labels: Arc<Labels>,
    /// Failures in a row.
    pub failures: u32,
    /// It has the operator's finalizer.
    pub has_finalizer: bool,
    /// Its status tells of an outage.
    pub marked: bool,
    /// Changes of others that stand, as its status tells.
    pub drift: u32,
    /// Folders in which required documents are looked for; shared by all that have the same.
    folders: Arc<Folders>,
    /// Required documents by state, as its status tells.
    documents: [u8; DocumentState::ALL.len()],
    /// It was looked at before its Connection was known.
    missed_connection: bool,
    seen: Seen,
    /// resourceVersion of the newest version that is known, own writes included.
    version: u64,
    /// A version that a pass has not looked at yet.
    pending: Option<Box<SecureWorkspace>>,
    /// The latest change of somebody else.
    foreign: Option<Box<Foreign>>,
    fight: Option<Box<Fight>>,
    round: u32,
}

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Folders, none below another.
type Folders = Vec<String>;

/// What of an object starts a pass when it changes. The operator's own status writes change none of it.
#[derive(PartialEq, Eq)]
struct Seen {
    generation: i64,
    deleting: bool,
    token: Option<Box<str>>,
    confirmation: Option<Box<str>>,
    handed_over: bool,
}

impl Seen {
    fn of(object: &SecureWorkspace) -> Self {
        let annotation = |name: &str| object.annotations().get(name).map(|value| value.as_str().into());
        Self {
            generation: object.metadata.generation.unwrap_or_default(),
            deleting: object.metadata.deletion_timestamp.is_some(),
            token: annotation(REQUESTED_AT),
            confirmation: annotation(CONFIRM_DELETE),
            handed_over: object.annotations().contains_key(HANDOVER),
        }
    }
}

/// What a watch event amounts to.
pub enum Verdict {
    /// Nothing that matters changed.
    Nothing,
    /// The first sight of an object that is as it should be.
    UpToDate {
        /// The clock changes it then.
        again: Option<Duration>,
    },
    /// A pass is due.
    Work,
}

/// All objects of the kind.
#[derive(Default)]
pub struct Store {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<ObjectKey, Entry>,
    /// Every set of labels once: thousands of objects often have the same.
    labels: HashSet<Arc<Labels>>,
    /// The same for folders of required documents.
    folders: HashSet<Arc<Folders>>,
    /// Objects whose labels or workspace changed since somebody asked.
    relabelled: HashSet<Arc<str>>,
    /// How many objects each namespace has.
    namespaces: HashMap<Arc<str>, usize>,
    round: u32,
    listed: bool,
}

impl Store {
    /// A listing begins.
    pub fn begin_listing(&self) {
        self.state.lock().round += 1;
    }

    /// A listing is complete; returns what was not in it.
    pub fn end_listing(&self) -> Vec<ObjectKey> {
        let mut state = self.state.lock();
        state.listed = true;
        let round = state.round;
        state.entries.iter().filter(|(_, entry)| entry.round != round).map(|(key, _)| key.clone()).collect()
    }

    /// Whether the first listing is complete.
    pub fn is_listed(&self) -> bool {
        self.state.lock().listed
    }

    /// Takes up a version of an object. `is_up_to_date` judges an object that is seen for the first time.
    pub fn saw(
        &self,
        key: &ObjectKey,
        mut object: SecureWorkspace,
        is_up_to_date: impl Fn(&SecureWorkspace) -> bool,
    ) -> Verdict {
        // Who wrote which field is half of an object's size, and nobody here asks.
        object.metadata.managed_fields = None;
        let uid = object.uid().unwrap_or_default();
        let seen = Seen::of(&object);
        let version = version_of(&object);
        let mut guard = self.state.lock();
        let State { entries, labels: labels_of, folders: folders_of, relabelled, round, .. } = &mut *guard;
        let round = *round;
        if let Some(entry) = entries.get_mut(key).filter(|entry| *entry.uid == *uid) {
            entry.round = round;
            if version < entry.version {
                // Older than the operator's own last write.
                return Verdict::Nothing;
            }
            entry.version = version;
            // Whether a document is asked for may depend on labels.
            let relabelled_documents = !entry.folders.is_empty() && *entry.labels != *object.labels();
            if *entry.labels != *object.labels() {
                let labels = interned(labels_of, object.labels());
                relabelled.insert(key.namespace.clone());
                entry.labels = labels;
            }
            entry.has_finalizer = has_finalizer(&object);
            let matters = entry.seen != seen || relabelled_documents;
            if entry.seen.generation != seen.generation {
                entry.folders = interned_folders(folders_of, folders_of_documents(&object));
            }
            entry.seen = seen;
            if matters || entry.pending.is_some() {
                entry.pending = Some(Box::new(object));
            }
            return if matters { Verdict::Work } else { Verdict::Nothing };
        }
        drop(guard);
        let up_to_date = is_up_to_date(&object);
        let again = object
            .status
            .as_ref()
            .and_then(|status| status.next_change_at)
            .map(|at| super::super::until(at, Timestamp::now()));
        let mut state = self.state.lock();
        state.relabelled.insert(key.namespace.clone());
        let entry = Entry {
            labels: interned(&mut state.labels, object.labels()),
            folders: interned_folders(&mut state.folders, folders_of_documents(&object)),
            documents: documents_by_state(&object),
            uid: uid.into(),
            connection: super::pass::connection_key(&object),
            workspace: object.status.as_ref().and_then(|status| status.workspace_id.as_deref()).map(Into::into),
            failures: 0,
            missed_connection: false,
            drift: standing_drift(&object),
            has_finalizer: has_finalizer(&object),
            marked: super::status::tells_of_outage(&object),
            seen,
            version,
            foreign: None,
            fight: None,
            round,
            pending: (!up_to_date).then(|| Box::new(object)),
        };
        if state.entries.insert(key.clone(), entry).is_none() {
            *state.namespaces.entry(key.namespace.clone()).or_default() += 1;
        }
        if up_to_date { Verdict::UpToDate { again } } else { Verdict::Work }
    }

    /// The version that waits for a pass, if it is the newest that is known.
    pub fn take(&self, key: &ObjectKey) -> Option<Box<SecureWorkspace>> {
        let mut state = self.state.lock();
        let entry = state.entries.get_mut(key)?;
        let object = entry.pending.take()?;
        (version_of(&object) >= entry.version).then_some(object)
    }

    /// The operator wrote the object: older versions are not looked at any more.
    pub fn wrote(&self, key: &ObjectKey, object: &SecureWorkspace) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(key) else { return };
        entry.version = entry.version.max(version_of(object));
        entry.has_finalizer = has_finalizer(object);
        entry.drift = standing_drift(object);
        entry.documents = documents_by_state(object);
    }

    /// Whether a file at `path` (`None`: anywhere) may matter to an object.
    pub fn looks_at(&self, key: &ObjectKey, path: Option<&str>) -> bool {
        let state = self.state.lock();
        let Some(entry) = state.entries.get(key) else { return false };
        entry.folders.iter().any(|folder| path.is_none_or(|path| is_below(path, folder)))
    }

    /// Required documents by state, all objects together.
    pub fn documents(&self) -> [i64; DocumentState::ALL.len()] {
        let mut sums = [0; DocumentState::ALL.len()];
        for entry in self.state.lock().entries.values() {
            for (sum, count) in sums.iter_mut().zip(entry.documents) {
                *sum += i64::from(count);
            }
        }
        sums
    }

    /// Changes of others that stand, all objects together.
    pub fn standing_drift(&self) -> i64 {
        self.state.lock().entries.values().map(|entry| i64::from(entry.drift)).sum()
    }

    /// Notes the workspace of an object.
    pub fn found_workspace(&self, key: &ObjectKey, workspace: &str) {
        let mut state = self.state.lock();
        let State { entries, relabelled, .. } = &mut *state;
        if let Some(entry) = entries.get_mut(key).filter(|entry| entry.workspace.as_deref() != Some(workspace)) {
            entry.workspace = Some(workspace.into());
            relabelled.insert(key.namespace.clone());
        }
    }

    /// Workspace of an object that uses a Connection.
    pub fn declared_workspace(&self, key: &ObjectKey, connection: &ObjectKey) -> Option<String> {
        let state = self.state.lock();
        let entry = state.entries.get(key).filter(|entry| entry.connection == *connection)?;
        entry.workspace.as_deref().map(str::to_owned)
    }

    /// Namespaces in which labels or workspaces changed since the last call.
    pub fn take_relabelled(&self) -> HashSet<Arc<str>> {
        std::mem::take(&mut self.state.lock().relabelled)
    }

    /// Name, workspace and labels of the objects in a namespace that use a Connection and have a workspace.
    pub fn declared(&self, namespace: &str, connection: &ObjectKey) -> Vec<(String, String, Arc<Labels>)> {
        let state = self.state.lock();
        let fitting =
            state.entries.iter().filter(|(key, entry)| &*key.namespace == namespace && entry.connection == *connection);
        let row = |(key, entry): (&ObjectKey, &Entry)| {
            Some((key.name.to_string(), entry.workspace.as_deref()?.to_owned(), entry.labels.clone()))
        };
        fitting.filter_map(row).collect()
    }

    /// Workspace and uid of an object.
    pub fn workspace_of(&self, key: &ObjectKey) -> Option<(Box<str>, Arc<str>)> {
        let state = self.state.lock();
        let entry = state.entries.get(key)?;
        Some((entry.workspace.clone()?, entry.uid.clone()))
    }

    /// Somebody else changed the workspace.
    pub fn remote_changed(&self, key: &ObjectKey, change: Option<Foreign>) {
        if let (Some(entry), Some(change)) = (self.state.lock().entries.get_mut(key), change) {
            entry.foreign = Some(Box::new(change));
        }
    }

    /// The latest change of somebody else that no pass has looked at.
    pub fn take_foreign(&self, key: &ObjectKey) -> Option<Foreign> {
        self.state.lock().entries.get_mut(key)?.foreign.take().map(|change| *change)
    }

    /// Runs `f` on the memory of drift corrections of an object.
    pub fn with_fight<T>(&self, key: &ObjectKey, f: impl FnOnce(&mut Option<Box<Fight>>) -> T) -> Option<T> {
        self.state.lock().entries.get_mut(key).map(|entry| f(&mut entry.fight))
    }

    /// Whether this is the first time that an object does without its Connection.
    pub fn misses_its_connection(&self, key: &ObjectKey) -> bool {
        self.state.lock().entries.get_mut(key).is_some_and(|entry| !std::mem::replace(&mut entry.missed_connection, true))
    }

    /// A pass failed; returns how many did in a row.
    pub fn failed(&self, key: &ObjectKey) -> u32 {
        self.state.lock().entries.get_mut(key).map_or(1, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures
        })
    }

    /// A pass succeeded.
    pub fn succeeded(&self, key: &ObjectKey) {
        if let Some(entry) = self.state.lock().entries.get_mut(key) {
            entry.failures = 0;
            entry.marked = false;
        }
    }

    /// The status tells of an outage now.
    pub fn marked(&self, key: &ObjectKey) {
        if let Some(entry) = self.state.lock().entries.get_mut(key) {
            entry.marked = true;
        }
    }

    /// Up to `most` objects of a Connection whose status tells of an outage, and whether there are more. They count as unmarked:
    /// whoever asks has them looked at.
    pub fn unmark(&self, connection: &ObjectKey, most: usize) -> (Vec<ObjectKey>, bool) {
        let mut state = self.state.lock();
        let mut marked = state.entries.iter_mut().filter(|(_, entry)| entry.marked && entry.connection == *connection);
        let keys = marked.by_ref().take(most).map(|(key, entry)| {
            entry.marked = false;
            key.clone()
        });
        (keys.collect(), marked.next().is_some())
    }

    /// Forgets an object.
    pub fn forget(&self, key: &ObjectKey) -> Option<Entry> {
        let mut state = self.state.lock();
        state.relabelled.insert(key.namespace.clone());
        let entry = state.entries.remove(key)?;
        if let Some(count) = state.namespaces.get_mut(&key.namespace) {
            *count -= 1;
            if *count == 0 {
                state.namespaces.remove(&key.namespace);
            }
        }
        Some(entry)
    }

    /// How many namespaces have objects.
    pub fn namespaces(&self) -> usize {
        self.state.lock().namespaces.len()
    }

    /// The objects that `wanted` picks.
    pub fn keys_where(&self, wanted: impl Fn(&ObjectKey, &Entry) -> bool) -> Vec<ObjectKey> {
        let state = self.state.lock();
        state.entries.iter().filter(|(key, entry)| wanted(key, entry)).map(|(key, _)| key.clone()).collect()
    }
}

fn folders_of_documents(object: &SecureWorkspace) -> Folders {
    let documents = object.spec.required_documents.iter().flatten();
    roots(documents.map(|document| PathPattern::new(&document.matching.path).root()))
}

fn documents_by_state(object: &SecureWorkspace) -> [u8; DocumentState::ALL.len()] {
    let rows = object.status.iter().flat_map(|status| &status.requirements);
    let mut counts = [0; DocumentState::ALL.len()];
    for row in rows {
        let count: &mut u8 = &mut counts[row.state as usize];
        *count = count.saturating_add(1);
    }
    counts
}

fn interned_folders(known: &mut HashSet<Arc<Folders>>, folders: Folders) -> Arc<Folders> {
    if let Some(same) = known.get(&folders) {
        return same.clone();
    }
    if known.len() > 1024 {
        known.retain(|kept| Arc::strong_count(kept) > 1);
    }
    let folders = Arc::new(folders);
    known.insert(folders.clone());
    folders
}

/// The one copy of these labels.
fn interned(known: &mut HashSet<Arc<Labels>>, labels: &Labels) -> Arc<Labels> {
    if let Some(same) = known.get(labels) {
        return same.clone();
    }
    if known.len() > 1024 {
        known.retain(|labels| Arc::strong_count(labels) > 1);
    }
    let labels = Arc::new(labels.clone());
    known.insert(labels.clone());
    labels
}

fn standing_drift(object: &SecureWorkspace) -> u32 {
    object.status.as_ref().and_then(|status| status.drift.as_ref()).map_or(0, |drift| drift.count)
}

fn has_finalizer(object: &SecureWorkspace) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Resource versions of one kind are comparable numbers (guaranteed since Kubernetes 1.35, true before); anything else is
/// taken as newer than everything.
fn version_of(object: &SecureWorkspace) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: u64, generation: i64) -> SecureWorkspace {
        let mut object: SecureWorkspace = serde_json::from_value(serde_json::json!({
            "apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace",
            "metadata": {"name": "w", "namespace": "ns", "uid": "u1", "resourceVersion": version.to_string()},
            "spec": {"connectionRef": {"name": "c"}, "displayName": "w"},
        }))
        .unwrap();
        object.metadata.generation = Some(generation);
        object
    }

    fn key() -> ObjectKey {
        ObjectKey::new("ns", "w")
    }

    #[test]
    fn c10_a_pass_never_starts_from_a_version_older_than_the_operators_own_last_write() {
        let store = Store::default();
        assert!(matches!(store.saw(&key(), object(5, 1), |_| false), Verdict::Work));
        store.wrote(&key(), &object(9, 1));
        assert!(store.take(&key()).is_none(), "version 5 is older than the own write 9: it is read again");
        assert!(matches!(store.saw(&key(), object(7, 2), |_| false), Verdict::Nothing), "a late watch event");
        assert!(matches!(store.saw(&key(), object(11, 2), |_| false), Verdict::Work));
        assert_eq!(store.take(&key()).unwrap().metadata.resource_version.as_deref(), Some("11"));
    }

    #[test]
    fn the_operators_own_status_write_starts_no_pass() {
        let store = Store::default();
        let _ = store.saw(&key(), object(5, 1), |_| false);
        store.wrote(&key(), &object(6, 1));
        assert!(matches!(store.saw(&key(), object(6, 1), |_| false), Verdict::Nothing));
        assert!(
            matches!(store.saw(&key(), object(8, 1), |_| false), Verdict::Nothing),
            "somebody else's status write either"
        );
    }

    #[test]
    fn a_re_created_object_is_a_new_one() {
        let store = Store::default();
        let _ = store.saw(&key(), object(5, 1), |_| true);
        let mut successor = object(9, 1);
        successor.metadata.uid = Some("u2".into());
        assert!(matches!(store.saw(&key(), successor, |_| false), Verdict::Work));
        assert_eq!(&*store.workspace_of(&key()).map_or_else(|| "none".into(), |(_, uid)| uid), "none");
    }

    #[test]
    fn what_a_listing_does_not_name_is_gone() {
        let store = Store::default();
        store.begin_listing();
        let _ = store.saw(&key(), object(5, 1), |_| true);
        assert!(store.end_listing().is_empty());
        store.begin_listing();
        assert_eq!(store.end_listing(), [key()]);
    }
}
