//! Folders: collections in a workspace.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use super::client::{Depth, taken};
use super::marker::{self, Change, Marker};
use super::multistatus::{Entry, Listing};
use super::place::Place;
use super::workspaces::no_workspace;
use super::{WebDav, refuse};
use crate::error::{Error, Kind, Result, clean};
use crate::file360::Changed;
use crate::file360::model::{Folder, ItemPatch, NewFolder};
use crate::hex::hex;

/// Folders of one workspace that are looked at; a larger one is refused, never taken for smaller than it is (C5).
const MOST_FOLDERS: usize = 10_000;
/// Folders and files of one workspace that are remembered while it is looked at.
const MOST_ENTRIES: usize = 200_000;
/// Collections that are listed at once.
const AT_ONCE: usize = 8;

impl WebDav {
    pub(super) async fn list_folders(&self, workspace: &str) -> Result<Changed<Vec<Folder>>> {
        let place = Place::of_workspace_id(workspace).ok_or_else(|| no_workspace(workspace))?;
        let marker = marker::read(&self.client, &place).await?;
        let known = marker.as_ref().map(|marker| &marker.folders);
        let mut folders = Vec::new();
        for listing in self.collections(&place, false).await?.ok_or_else(|| no_workspace(workspace))? {
            if !listing.own.place.is_workspace() {
                folders.push(folder(&listing, known));
            }
        }
        Ok(Changed { value: folders, revision: marker.map_or(0, |marker| marker.revision) })
    }

    /// A collection and all below it, one level at a time; `None`: it is not there. Files are only counted unless somebody needs them.
    pub(super) async fn collections(&self, top: &Place, keeps_files: bool) -> Result<Option<Vec<Listing>>> {
        let mut all: Vec<Listing> = Vec::new();
        let mut entries = 0;
        let mut level = vec![top.clone()];
        while !level.is_empty() {
            if all.len() + level.len() > MOST_FOLDERS {
                let why = format!("there are more than {MOST_FOLDERS} folders below {}", clean(&top.path(), 300));
                return Err(Error::new(Kind::Rejected, why));
            }
            let listed = futures::stream::iter(level).map(|place| async move { self.client.list(&place).await });
            let listed: Vec<Option<Listing>> = listed.buffered(AT_ONCE).try_collect().await?;
            if all.is_empty() && listed.iter().all(Option::is_none) {
                return Ok(None);
            }
            // One that vanished meanwhile has nothing in it.
            let mut listed: Vec<Listing> = listed.into_iter().flatten().collect();
            if !keeps_files {
                listed.iter_mut().for_each(only_folders);
            }
            entries += listed.iter().map(|listing| listing.entries.len()).sum::<usize>();
            if entries > MOST_ENTRIES {
                let why = format!("there is more than {MOST_ENTRIES} below {}", clean(&top.path(), 300));
                return Err(Error::new(Kind::Rejected, why));
            }
            level = listed
                .iter()
                .flat_map(|listing| &listing.entries)
                .filter(|entry| is_folder(entry))
                .map(|entry| entry.place.clone())
                .collect();
            all.extend(listed);
        }
        Ok(Some(all))
    }

    /// The mark is written before the folder is made: a folder that is there without one is people's (C2).
    pub(super) async fn make_folder(&self, workspace: &str, new: &NewFolder) -> Result<Changed<Folder>> {
        refuse(&[
            (new.classification.is_some(), "classification labels (folders[].classification)"),
            (!new.metadata.is_empty(), "metadata of folders (folders[].metadata)"),
            (new.locked, "locked folders (folders[].locked)"),
        ])?;
        let top = Place::of_workspace_id(workspace).ok_or_else(|| no_workspace(workspace))?;
        let place = top.at_path(&new.path)?;
        if let Some(there) = self.client.list(&place).await? {
            if !there.own.is_collection {
                return Err(taken(&place));
            }
            let marker = marker::read(&self.client, &top).await?;
            let found = folder(&there, marker.as_ref().map(|marker| &marker.folders));
            return Ok(Changed { value: found, revision: marker.map_or(0, |marker| marker.revision) });
        }
        let revision = self.mark(&top, |folders| match &new.managed_key {
            Some(key) => folders.insert(new.path.clone(), key.clone()) != Some(key.clone()),
            None => folders.remove(&new.path).is_some(),
        });
        let revision = revision.await?;
        self.client.make_collection(&place).await.map_err(|error| match error.kind {
            Kind::Conflict if error.code.is_empty() => {
                Error::new(Kind::NotFound, format!("the folder around {} is not there", clean(&new.path, 300)))
            }
            _ => error,
        })?;
        let own =
            Entry { place, is_collection: true, size: None, etag: None, mime_type: None, created: None, modified: None };
        let made = Listing { own, entries: Vec::new(), unnamed: 0 };
        let known = new.managed_key.iter().map(|key| (new.path.clone(), key.clone())).collect();
        Ok(Changed { value: folder(&made, Some(&known)), revision })
    }

    pub(super) async fn change_folder(&self, id: &str, etag: &str, patch: &ItemPatch) -> Result<Changed<()>> {
        refuse_in(patch, "folders[]")?;
        let place = Place::of_id(id).ok_or_else(|| no_folder(id))?;
        let top = place.workspace().ok_or_else(|| no_folder(id))?;
        let there =
            self.client.list(&place).await?.filter(|listing| listing.own.is_collection).ok_or_else(|| no_folder(id))?;
        let marker = marker::read(&self.client, &top).await?;
        if etag != "*" && etag != folder(&there, marker.as_ref().map(|marker| &marker.folders)).etag {
            let mut error = Error::new(Kind::Stale, "somebody else changed the folder in between");
            error.code = "etag-mismatch".into();
            return Err(error);
        }
        let target = target(&place, patch)?;
        if target != place && !self.client.rename(&place, &target, true, false).await? {
            return Err(taken(&target));
        }
        let (from, to) = (place.path(), target.path());
        let revision = self.mark(&top, |folders| {
            let before = folders.clone();
            if from != to {
                *folders = moved(std::mem::take(folders), &from, &to);
            }
            match &patch.managed_key {
                Some(Some(key)) => drop(folders.insert(to.clone(), key.clone())),
                Some(None) => drop(folders.remove(&to)),
                None => {}
            }
            *folders != before
        });
        Ok(Changed { value: (), revision: revision.await? })
    }

    /// Removing a collection removes what is in it. So it is locked with everything in it, looked at, and removed only then.
    pub(super) async fn remove_empty_folder(&self, id: &str) -> Result<Changed<()>> {
        let place = Place::of_id(id).ok_or_else(|| no_folder(id))?;
        let top = place.workspace().filter(|top| *top != place).ok_or_else(|| no_folder(id))?;
        if self.client.list(&place).await?.is_some() {
            if !self.client.has_locks() {
                return super::lacking(
                    "removal that is safe on this server: it has no locks, and WebDAV removes folders with what is in them",
                );
            }
            let lock = self.client.lock(&place, true, Depth::Infinity).await?;
            let removed = async {
                match self.client.list(&place).await? {
                    None => Ok(()),
                    Some(listing) if listing.own.is_collection && listing.entries.is_empty() && listing.unnamed == 0 => {
                        self.client.remove(&place, true, Some(&lock)).await
                    }
                    Some(_) => {
                        let mut error = Error::new(Kind::Conflict, format!("{} is not empty", clean(&place.path(), 300)));
                        error.code = "not-empty".into();
                        Err(error)
                    }
                }
            }
            .await;
            self.client.unlock(lock).await;
            removed?;
        }
        let path = place.path();
        let revision = self.mark(&top, |folders| folders.remove(&path).is_some()).await?;
        Ok(Changed { value: (), revision })
    }

    /// Changes which folders the marker names; returns its revision. `edit` says whether it changed something.
    async fn mark(&self, top: &Place, edit: impl FnOnce(&mut BTreeMap<String, String>) -> bool + Send) -> Result<u64> {
        let changed = marker::change(&self.client, top, |before| {
            let Some(before) = before else {
                // People's workspace: there is nothing to keep in step.
                return Ok(Change::Keep(()));
            };
            let mut folders = before.folders.clone();
            let has_changed = edit(&mut folders);
            Ok(if has_changed { Change::Write(Box::new(Marker { folders, ..before }), ()) } else { Change::Keep(()) })
        });
        Ok(changed.await?.0.map_or(0, |marker| marker.revision))
    }
}

/// Where an item is after a change of its name and folder.
pub(super) fn target(place: &Place, patch: &ItemPatch) -> Result<Place> {
    let around = match &patch.parent_id {
        Some(parent) => Place::of_id(parent).ok_or_else(|| no_folder(parent))?,
        None => place.parent().ok_or_else(|| no_folder("/"))?,
    };
    if place.is_workspace() || around.workspace() != place.workspace() {
        return super::lacking("move from one workspace to another");
    }
    match &patch.name {
        Some(name) => around.with_name(name),
        None => around.with_name(&place.name()),
    }
}

/// Refuses what an item on WebDAV cannot have.
pub(super) fn refuse_in(patch: &ItemPatch, field: &str) -> Result<()> {
    refuse(&[
        (patch.classification.is_some(), &format!("classification labels ({field}.classification)")),
        (!patch.metadata.is_empty(), &format!("metadata of items ({field}.metadata)")),
        (patch.locked.is_some(), &format!("locked items ({field}.locked)")),
    ])
}

/// Whether an entry is a folder for people: the operator's own collection is none.
pub(super) fn is_folder(entry: &Entry) -> bool {
    entry.is_collection && !entry.place.is_own()
}

/// Drops what is no folder; it still counts.
fn only_folders(listing: &mut Listing) {
    let before = listing.entries.iter().filter(|entry| !entry.place.is_own()).count();
    listing.entries.retain(|entry| is_folder(entry) || entry.place.is_own());
    let after = listing.entries.iter().filter(|entry| !entry.place.is_own()).count();
    listing.unnamed += before - after;
}

fn folder(listing: &Listing, marks: Option<&BTreeMap<String, String>>) -> Folder {
    let place = &listing.own.place;
    let path = place.path();
    let managed_key = marks.and_then(|marks| marks.get(&path)).cloned();
    let mut hash = Sha256::new();
    hash.update(&path);
    hash.update([0]);
    hash.update(managed_key.as_deref().unwrap_or_default());
    let tag = hex(&hash.finalize()[..8]);
    Folder {
        id: place.id(),
        classification: None,
        metadata: BTreeMap::new(),
        locked: false,
        children: (listing.entries.iter().filter(|entry| !entry.place.is_own()).count() + listing.unnamed) as u64,
        etag: format!("\"{tag}\""),
        managed_key,
        path,
    }
}

/// The marks after a folder was moved with all below it.
fn moved(folders: BTreeMap<String, String>, from: &str, to: &str) -> BTreeMap<String, String> {
    let rename = |path: String| match path.strip_prefix(from) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{to}{rest}"),
        _ => path,
    };
    folders.into_iter().map(|(path, key)| (rename(path), key)).collect()
}

fn no_folder(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no folder {}", clean(id, 128)))
}
