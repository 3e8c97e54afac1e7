//! Which folders are gated, and for which route: a client-state document in File 360 for each, written before the folder is.
//!
//! It outlives the route (D3): what no route declares any more stays closed and listed, until a route declares it again or its Approval is given.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::file360::content::IdempotencyKey;
use crate::file360::model::{ClientStatePut, GateAction, Intake};
use crate::file360::names::fold;
use crate::file360::{Cause, File360};
use crate::hex::hex;
use crate::reconcile::ObjectKey;
use crate::routes::items::ensure_folder;
use crate::routes::ledger::read_documents;

/// How often a policy is set again after somebody else changed the folder at the same time.
const TRIES: usize = 5;

/// A gated folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Namespace of the route that declared it.
    pub namespace: String,
    /// Name of the route.
    pub route: String,
    /// Id of the workspace.
    pub workspace: String,
    /// Path of the folder, as declared.
    pub path: String,
    /// Id of the folder, once it is gated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What is held back; it only ever grows.
    pub actions: Vec<GateAction>,
    /// How many had to approve when a route declared it last.
    pub min_approvals: u32,
    /// Who brought it could not approve it then.
    pub separates: bool,
    /// Since when no route declares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphaned_at: Option<Timestamp>,
}

impl Entry {
    /// The route.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.route)
    }

    /// Whether a path of its workspace is in the folder.
    pub fn covers(&self, path: &str) -> bool {
        is_within(path, &self.path)
    }

    /// Whether a share of what is at a path opens something in the folder: what is in it, and the folders above it.
    pub fn is_opened_from(&self, path: &str) -> bool {
        self.covers(path) || is_within(&self.path, path)
    }
}

/// Whether a path is a folder's or below it.
fn is_within(path: &str, folder: &str) -> bool {
    let (folder, path) = (fold(folder.trim_end_matches('/')), fold(path));
    path == folder || path.strip_prefix(&folder).is_some_and(|rest| rest.starts_with('/'))
}

/// What a route's gates hold back in one workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The route.
    pub route: ObjectKey,
    /// Path of the folder.
    pub path: String,
    /// What is held back.
    pub actions: Vec<GateAction>,
    /// The most that one of its gates asks for.
    pub min_approvals: u32,
    /// Whether one of its gates separates duties.
    pub separates: bool,
}

/// The gated folders of one tenant, as one operator declared them.
pub struct Register {
    prefix: String,
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Register {
    /// Reads all of them.
    pub async fn read(tenant: &dyn File360, cluster: &str, connection: &ObjectKey) -> Result<Self> {
        let prefix = format!("gates/{cluster}/{}/{}/", connection.namespace, connection.name);
        let mut entries: serde_json::Result<BTreeMap<String, Entry>> = Ok(BTreeMap::new());
        read_documents(tenant, &prefix, |key, value| match (&mut entries, serde_json::from_value(value)) {
            (Ok(read), Ok(entry)) => drop(read.insert(key.to_owned(), entry)),
            (Ok(_), Err(error)) => entries = Err(error),
            (Err(_), _) => {}
        })
        .await
        .map_err(|error| error.while_doing("read the gates"))?;
        // What cannot be understood may be a gate: it is not passed over.
        let entries = entries.map_err(|_| Error::new(Kind::Malformed, "the record of a gate cannot be understood"))?;
        Ok(Self { prefix, entries: Mutex::new(entries) })
    }

    /// Whether nothing is gated.
    pub fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }

    /// All of them, with their keys.
    pub fn all(&self) -> Vec<(String, Entry)> {
        self.entries.lock().iter().map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// Those in a workspace that `holds` is true of.
    pub fn of(&self, workspace: &str, holds: impl Fn(&Entry) -> bool) -> Vec<(String, Entry)> {
        let entries = self.entries.lock();
        let of = entries.iter().filter(|(_, entry)| entry.workspace == workspace && holds(entry));
        of.map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    fn key(&self, declared: &Declared, workspace: &str) -> String {
        let path = hex(&Sha256::digest(&declared.path)[..6]);
        format!("{}{}/{}/{workspace}/{path}", self.prefix, declared.route.namespace, declared.route.name)
    }

    /// Whether a folder is gated as declared.
    pub fn has(&self, declared: &Declared, workspace: &str) -> bool {
        self.entries.lock().get(&self.key(declared, workspace)).is_some_and(|entry| {
            let is_closed = declared.actions.iter().all(|action| entry.actions.contains(action));
            let is_the_same = entry.min_approvals == declared.min_approvals && entry.separates == declared.separates;
            is_closed && is_the_same && entry.folder.is_some() && entry.orphaned_at.is_none()
        })
    }

    /// Gates the folder in one workspace: recorded first, then closed. The folder is made if it is not there, so that nobody can make it open.
    pub async fn install(&self, tenant: &dyn File360, declared: &Declared, workspace: &str, cause: &Cause) -> Result<()> {
        let key = self.key(declared, workspace);
        let known = self.entries.lock().get(&key).cloned();
        let mut actions = declared.actions.clone();
        actions.extend(known.iter().flat_map(|known| known.actions.iter().copied()));
        actions.sort_unstable();
        actions.dedup();
        let mut entry = Entry {
            namespace: declared.route.namespace.to_string(),
            route: declared.route.name.to_string(),
            workspace: workspace.to_owned(),
            path: declared.path.clone(),
            folder: known.and_then(|known| known.folder),
            actions: actions.clone(),
            min_approvals: declared.min_approvals,
            separates: declared.separates,
            orphaned_at: None,
        };
        if entry.folder.is_none() {
            self.put(tenant, &key, Some(&entry)).await?;
        }
        let folder = match declared.path.as_str() {
            "/" => tenant.item_at(workspace, "/").await?.map(|root| root.id),
            path => Some(ensure_folder(tenant, workspace, path, cause).await?),
        };
        let folder = folder.ok_or_else(|| Error::new(Kind::NotFound, "the workspace is gone"))?;
        close(tenant, &folder, &actions, cause).await?;
        entry.folder = Some(folder);
        self.put(tenant, &key, Some(&entry)).await
    }

    /// Looks whether File 360 still holds back what it should, and puts back what is missing; whether anything was.
    ///
    /// A folder that was moved away is made again where the gate is declared; what no route declares is only kept closed where it is.
    pub async fn verify(&self, tenant: &dyn File360, entry: &Entry, cause: &Cause) -> Result<bool> {
        // Without a folder its installation is not finished: that is done again by who declares it.
        let Some(folder) = &entry.folder else { return Ok(false) };
        let there = tenant.item_at(&entry.workspace, &entry.path).await?;
        if there.is_some_and(|item| item.id == *folder) {
            return close(tenant, folder, &entry.actions, cause).await;
        }
        if entry.orphaned_at.is_some() || tenant.workspace(&entry.workspace).await?.is_none() {
            return match close(tenant, folder, &entry.actions, cause).await {
                Err(error) if error.kind == Kind::NotFound => Ok(false),
                other => other,
            };
        }
        let declared = Declared {
            route: entry.key(),
            path: entry.path.clone(),
            actions: entry.actions.clone(),
            min_approvals: entry.min_approvals,
            separates: entry.separates,
        };
        self.install(tenant, &declared, &entry.workspace, cause).await?;
        Ok(true)
    }

    /// Notes since when no route declares it, or that one does again.
    pub async fn orphan(&self, tenant: &dyn File360, key: &str, since: Option<Timestamp>) -> Result<()> {
        let Some(entry) = self.entries.lock().get(key).cloned() else { return Ok(()) };
        self.put(tenant, key, Some(&Entry { orphaned_at: since, ..entry })).await
    }

    /// Opens the folder, unless another gate keeps it closed. What it held stays pending.
    pub async fn open(&self, tenant: &dyn File360, key: &str, cause: &Cause) -> Result<()> {
        let Some(entry) = self.entries.lock().get(key).cloned() else { return Ok(()) };
        let Some(folder) = &entry.folder else { return Ok(()) };
        let others: Vec<GateAction> = self
            .all()
            .into_iter()
            .filter(|(other, entry)| other != key && entry.folder.as_ref() == Some(folder))
            .flat_map(|(_, entry)| entry.actions)
            .collect();
        for _ in 0..TRIES {
            let Some((intake, etag)) = tenant.intake(folder).await? else { return Ok(()) };
            let kept = intake.actions.iter().copied();
            let kept: Vec<GateAction> =
                kept.filter(|action| others.contains(action) || !entry.actions.contains(action)).collect();
            if kept == intake.actions {
                return Ok(());
            }
            match tenant.put_intake(folder, &etag, &Intake { actions: kept }, cause).await {
                Err(error) if error.kind == Kind::Stale => {}
                other => return other,
            }
        }
        Err(Error::new(Kind::Stale, "somebody else keeps changing the folder at the same time"))
    }

    /// Forgets a gate that has been opened.
    pub async fn forget(&self, tenant: &dyn File360, key: &str) -> Result<()> {
        self.put(tenant, key, None).await
    }

    async fn put(&self, tenant: &dyn File360, key: &str, entry: Option<&Entry>) -> Result<()> {
        if self.entries.lock().get(key) == entry {
            return Ok(());
        }
        let value = entry.map(serde_json::to_value).transpose();
        let value = value.map_err(|_| Error::new(Kind::Malformed, "the record of a gate cannot be written"))?;
        let put = ClientStatePut { key: key.to_owned(), value };
        tenant.put_client_states(&[put], &IdempotencyKey(format!("{:032x}", rand::random::<u128>()))).await?;
        let mut entries = self.entries.lock();
        match entry {
            Some(entry) => drop(entries.insert(key.to_owned(), entry.clone())),
            None => drop(entries.remove(key)),
        }
        Ok(())
    }
}

/// Adds to what a folder holds back; what others hold back stays. Whether anything had to be added.
async fn close(tenant: &dyn File360, folder: &str, actions: &[GateAction], cause: &Cause) -> Result<bool> {
    for _ in 0..TRIES {
        let found = tenant.intake(folder).await?;
        let (intake, etag) = found.ok_or_else(|| Error::new(Kind::NotFound, "the folder is gone"))?;
        let mut wanted = intake.actions.clone();
        wanted.extend(actions);
        wanted.sort_unstable();
        wanted.dedup();
        if wanted == intake.actions {
            return Ok(false);
        }
        match tenant.put_intake(folder, &etag, &Intake { actions: wanted }, cause).await {
            Err(error) if error.kind == Kind::Stale => {}
            other => return other.map(|()| true),
        }
    }
    Err(Error::new(Kind::Stale, "somebody else keeps changing the folder at the same time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_covers_its_folder_and_what_is_below_and_nothing_beside_it() {
        let entry = |path: &str| Entry {
            namespace: "a".into(),
            route: "r".into(),
            workspace: "w".into(),
            path: path.into(),
            folder: None,
            actions: vec![GateAction::Upload],
            min_approvals: 1,
            separates: false,
            orphaned_at: None,
        };
        for (path, file, covered) in [
            ("/", "/a.pdf", true),
            ("/", "/", true),
            ("/Inbox", "/Inbox/a/b.pdf", true),
            ("/Inbox", "/Inbox", true),
            ("/inbox", "/Inbox/a.pdf", true),
            ("/\u{c9}t\u{e9}", "/e\u{301}te\u{301}/a.pdf", true),
            ("/Inbox", "/Inbox2/a.pdf", false),
            ("/Inbox", "/", false),
        ] {
            assert_eq!(entry(path).covers(file), covered, "{path} {file}");
        }
        for (path, shared, opened) in [
            ("/Inbox", "/", true),
            ("/A/Inbox", "/a", true),
            ("/A/Inbox", "/A/Inbox/x.pdf", true),
            ("/A/Inbox", "/A/In", false),
            ("/A/Inbox", "/B", false),
        ] {
            assert_eq!(entry(path).is_opened_from(shared), opened, "a share of {shared} for {path}");
        }
    }
}
