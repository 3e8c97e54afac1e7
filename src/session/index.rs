//! Which workspace belongs to which resource.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::reconcile::ObjectKey;

/// What is known about one workspace. Kept small: there is one for each workspace of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Revision last seen.
    pub revision: u64,
    /// Revision of its files that the last listing told, or the last look at them found.
    pub content: Option<u64>,
    /// Its resource says something about its files.
    pub has_documents: bool,
    /// The resource, once one is known.
    pub resource: Option<(ObjectKey, Arc<str>)>,
}

/// The workspaces that this cluster manages.
#[derive(Default)]
pub struct Index {
    rows: Mutex<HashMap<Box<str>, Row>>,
}

impl Index {
    /// Notes the revision that a listing or the feed told; it never goes back.
    pub fn saw(&self, workspace: &str, revision: u64) {
        self.note(workspace, |row| row.revision = row.revision.max(revision));
    }

    /// Notes which resource (key and uid) manages a workspace.
    pub fn belongs(&self, workspace: &str, revision: u64, key: &ObjectKey, uid: &Arc<str>) {
        self.note(workspace, |row| {
            row.revision = row.revision.max(revision);
            if row.resource.as_ref().is_none_or(|(known, known_uid)| known != key || known_uid != uid) {
                row.resource = Some((key.clone(), uid.clone()));
            }
        });
    }

    /// Notes that the resource looked at the workspace's files at this revision of theirs; `None`: it has nothing to do with them.
    pub fn looked_at_files(&self, workspace: &str, at: Option<Option<u64>>) {
        self.note(workspace, |row| {
            row.has_documents = at.is_some();
            row.content = at.flatten().or(row.content);
        });
    }

    /// Changes the row of a workspace, a new one if it has none.
    fn note(&self, workspace: &str, change: impl FnOnce(&mut Row)) {
        let mut rows = self.rows.lock();
        // Nearly always there is one: then its name is not copied.
        if let Some(row) = rows.get_mut(workspace) {
            return change(row);
        }
        let mut row = Row { revision: 0, content: None, has_documents: false, resource: None };
        change(&mut row);
        rows.insert(workspace.into(), row);
    }

    /// What is known about a workspace.
    pub fn get(&self, workspace: &str) -> Option<Row> {
        self.rows.lock().get(workspace).cloned()
    }

    /// Forgets a workspace.
    pub fn forget(&self, workspace: &str) {
        self.rows.lock().remove(workspace);
    }

    /// The resources whose workspaces are known.
    pub fn resources(&self) -> Vec<ObjectKey> {
        self.rows.lock().values().filter_map(|row| row.resource.as_ref().map(|(key, _)| key.clone())).collect()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.rows.lock().len()
    }

    /// None is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes up a complete listing: returns the resources whose workspace has another revision than was known, or is not in
    /// the listing any more.
    /// The same goes for the files of those whose resource says something about files.
    pub fn compare(&self, listing: &HashMap<String, (u64, Option<u64>)>) -> Vec<ObjectKey> {
        let mut rows = self.rows.lock();
        let mut changed = Vec::new();
        for (workspace, row) in rows.iter_mut() {
            let now = listing.get(&**workspace);
            let is_same = now.is_some_and(|(revision, content)| {
                *revision == row.revision && !(row.has_documents && (content.is_none() || *content != row.content))
            });
            if let Some((key, _)) = row.resource.as_ref().filter(|_| !is_same) {
                changed.push(key.clone());
            }
            if let Some((revision, content)) = now {
                (row.revision, row.content) = (*revision, *content);
            }
        }
        for (workspace, (revision, content)) in listing {
            if !rows.contains_key(workspace.as_str()) {
                let row = Row { revision: *revision, content: *content, has_documents: false, resource: None };
                rows.insert(workspace.as_str().into(), row);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_wakes_those_that_changed_or_vanished_and_nobody_else() {
        let index = Index::default();
        let uid: Arc<str> = "u".into();
        for (workspace, revision) in [("w1", 1), ("w2", 5), ("w3", 9)] {
            index.belongs(workspace, revision, &ObjectKey::new("ns", workspace), &uid);
        }
        index.saw("w4", 3);
        let listing =
            [("w1", 1), ("w2", 6), ("w4", 4), ("w5", 1)].map(|(id, revision)| (id.to_owned(), (revision, Some(7))));
        let mut woken = index.compare(&listing.into_iter().collect());
        woken.sort();
        assert_eq!(woken, [ObjectKey::new("ns", "w2"), ObjectKey::new("ns", "w3")]);
        assert_eq!(index.get("w5").unwrap().revision, 1);
    }

    #[test]
    fn a_listing_wakes_those_whose_files_changed_if_they_say_something_about_files() {
        let index = Index::default();
        let uid: Arc<str> = "u".into();
        for workspace in ["same", "changed", "uninterested", "uncounted"] {
            index.belongs(workspace, 1, &ObjectKey::new("ns", workspace), &uid);
        }
        for (workspace, at) in [("same", Some(5)), ("changed", Some(5)), ("uncounted", None)] {
            index.looked_at_files(workspace, Some(at));
        }
        let listing = [("same", Some(5)), ("changed", Some(6)), ("uninterested", Some(9)), ("uncounted", None)];
        let listing = listing.map(|(id, content)| (id.to_owned(), (1, content))).into_iter().collect();
        let mut woken = index.compare(&listing);
        woken.sort();
        assert_eq!(woken, [ObjectKey::new("ns", "changed"), ObjectKey::new("ns", "uncounted")]);
        assert_eq!(index.compare(&listing), [ObjectKey::new("ns", "uncounted")], "told once");
    }
}
