//! Files: resources in a workspace. Content streams through; its SHA-256 is taken on the way.
//!
//! A PUT that breaks off leaves half a file on many servers. So content goes into the operator's own collection first, is checked there,
//! and is moved to its name when it is whole.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::header;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::client::taken;
use super::folders::{is_folder, refuse_in, target};
use super::marker;
use super::multistatus::Entry;
use super::place::Place;
use super::workspaces::no_workspace;
use super::{WebDav, lacking, refuse};
use crate::error::{Error, Kind, Result, clean};
use crate::file360::exchange::Leaving;
use crate::file360::model::{Item, ItemKind, ItemPatch, ItemState, OnConflict, Page};
use crate::file360::{ByteStream, Download, IdempotencyKey, NewFile};
use crate::hex::hex;

/// Entries of one page.
const PAGE: usize = 1000;
/// Repeatable uploads that are remembered.
const REMEMBERED: usize = 1000;
/// Names that are tried for a file whose name is taken.
const MOST_NAMES: u32 = 100;
/// The one version that a file has.
const ONLY_VERSION: u64 = 1;
const UPLOAD: &str = "upload a file";
const REPLACE: &str = "replace the content of a file";

/// What was stored under which key, in this process: WebDAV has no place for keys.
#[derive(Default)]
pub struct Uploads(Mutex<(HashMap<IdempotencyKey, Stored>, VecDeque<IdempotencyKey>)>);

/// A file that was stored, or was about to be when the reply was lost.
#[derive(Clone)]
struct Stored {
    place: Place,
    tally: Tally,
}

/// What went through a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tally {
    size: u64,
    sha256: String,
}

impl Uploads {
    fn get(&self, key: &IdempotencyKey) -> Option<Stored> {
        self.0.lock().0.get(key).cloned()
    }

    fn note(&self, key: &IdempotencyKey, stored: Stored) {
        let mut guard = self.0.lock();
        let (known, order) = &mut *guard;
        if known.insert(key.clone(), stored).is_none() {
            order.push_back(key.clone());
        }
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }
}

impl WebDav {
    pub(super) async fn find_item(&self, id: &str) -> Result<Option<Item>> {
        let Some(place) = Place::of_id(id) else { return Ok(None) };
        Ok(self.client.stat(&place).await?.map(|entry| item(entry, None)))
    }

    pub(super) async fn find_item_at(&self, workspace: &str, path: &str) -> Result<Option<Item>> {
        let Some(top) = Place::of_workspace_id(workspace) else { return Ok(None) };
        Ok(self.client.stat(&top.at_path(path)?).await?.map(|entry| item(entry, None)))
    }

    pub(super) async fn list_children(&self, folder: &str, cursor: Option<&str>) -> Result<Page<Item>> {
        let place = Place::of_id(folder).ok_or_else(|| no_item(folder))?;
        let listing = self.client.list(&place).await?.ok_or_else(|| no_item(folder))?;
        if !listing.own.is_collection {
            return Err(no_folder(&place));
        }
        let after = cursor.map(|cursor| Place::of_id(cursor).ok_or_else(|| no_item(cursor))).transpose()?;
        let is_next = |entry: &Entry| !entry.place.is_own() && after.as_ref().is_none_or(|after| entry.place > *after);
        Ok(page(listing.entries.into_iter().filter(is_next).map(|entry| item(entry, None))))
    }

    /// The whole tree is read for every page: WebDAV has no other way to list it.
    pub(super) async fn list_files(&self, workspace: &str, path: &str, cursor: Option<&str>) -> Result<Page<Item>> {
        let top = Place::of_workspace_id(workspace).ok_or_else(|| no_workspace(workspace))?;
        let place = top.at_path(path)?;
        match self.client.stat(&place).await? {
            Some(entry) if entry.is_collection => {}
            Some(_) => return Err(no_folder(&place)),
            None => return Err(no_item(path)),
        }
        let listings = self.collections(&place, true).await?.unwrap_or_default();
        let files = listings.into_iter().flat_map(|listing| listing.entries);
        let files = files.filter(|entry| !entry.is_collection && !entry.place.is_own() && !is_folder(entry));
        let mut files: Vec<Item> = files.map(|entry| item(entry, None)).collect();
        files.retain(|file| cursor.is_none_or(|cursor| file.id.as_str() > cursor));
        files.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(page(files.into_iter()))
    }

    pub(super) async fn get_content(&self, id: &str, version: u64) -> Result<Download> {
        let place = Place::of_id(id).filter(|_| version == ONLY_VERSION).ok_or_else(|| no_item(id))?;
        let arriving = self.client.receive("download a file", &place).await?;
        let mime_type = arriving.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let mime_type = clean(mime_type.unwrap_or("application/octet-stream"), 255);
        Ok(Download { size: arriving.size, sha256: String::new(), mime_type, content: arriving.content })
    }

    pub(super) async fn store(
        &self,
        folder: &str,
        new: &NewFile,
        content: ByteStream,
        key: &IdempotencyKey,
    ) -> Result<Item> {
        self.try_store(folder, new, content, key).await.map_err(|error| error.while_doing(UPLOAD))
    }

    async fn try_store(&self, folder: &str, new: &NewFile, content: ByteStream, key: &IdempotencyKey) -> Result<Item> {
        refuse(&[(!new.metadata.is_empty(), "metadata of files")])?;
        let around = Place::of_id(folder).ok_or_else(|| no_item(folder))?;
        let target = around.with_name(&new.name)?;
        match self.client.stat(&around).await? {
            Some(entry) if entry.is_collection => {}
            Some(_) => return Err(no_folder(&around)),
            None => return Err(no_item(folder)),
        }
        let earlier = self.uploads.get(key);
        if let (None, Some(there)) = (&earlier, self.client.stat(&target).await?) {
            match new.on_conflict {
                OnConflict::Fail => return Err(taken(&target)),
                OnConflict::Return if !there.is_collection => return Ok(item(there, None)),
                OnConflict::Return => return Err(taken(&target)),
                OnConflict::NewVersion => return lacking("versions: the content that is there would be lost"),
                OnConflict::Rename => {}
            }
        }
        let part = part(&around, &key.0)?;
        let tally = self.put_part(UPLOAD, &part, &new.mime_type, new.size, new.sha256.as_deref(), content).await?;
        if let Some(stored) = earlier {
            if stored.tally != tally {
                self.discard(&part).await;
                let mut error = Error::new(Kind::Rejected, "the same idempotency key came with other content");
                error.code = "idempotency-mismatch".into();
                return Err(error);
            }
            if let Some(there) = self.client.stat(&stored.place).await?.filter(|there| there.size == Some(tally.size)) {
                self.discard(&part).await;
                return Ok(item(there, Some(&tally)));
            }
        }
        let result = self.name_it(&part, &target, new.on_conflict, key, &tally).await;
        if result.is_err() {
            self.discard(&part).await;
        }
        result
    }

    /// Moves content that is whole to its name, or to the next free one.
    async fn name_it(
        &self,
        part: &Place,
        target: &Place,
        on_conflict: OnConflict,
        key: &IdempotencyKey,
        tally: &Tally,
    ) -> Result<Item> {
        let mut place = target.clone();
        for n in 2..MOST_NAMES {
            self.uploads.note(key, Stored { place: place.clone(), tally: tally.clone() });
            if self.client.rename(part, &place, false, false).await? {
                return self.kept(&place, tally).await;
            }
            if on_conflict != OnConflict::Rename {
                return Err(taken(target));
            }
            let around = target.parent().ok_or_else(|| no_item("/"))?;
            place = around.with_name(&numbered(&target.name(), n))?;
        }
        Err(taken(target))
    }

    #[allow(clippy::too_many_arguments, reason = "what a version is made of, and what guards it")]
    pub(super) async fn replace(
        &self,
        id: &str,
        etag: &str,
        mime_type: &str,
        size: Option<u64>,
        sha256: Option<&str>,
        content: ByteStream,
    ) -> Result<Item> {
        let replaced = async {
            let place = Place::of_id(id).ok_or_else(|| no_item(id))?;
            let seen = self.client.stat(&place).await?.filter(|entry| !entry.is_collection).ok_or_else(|| no_item(id))?;
            self.expect(&seen, etag).await?;
            let around = place.parent().ok_or_else(|| no_item(id))?;
            let part = part(&around, &format!("{}{:032x}", place.id(), rand::random::<u128>()))?;
            let tally = self.put_part(REPLACE, &part, mime_type, size, sha256, content).await?;
            let result = async {
                // Content took its time: what was seen before it may be gone.
                let now = self.client.stat(&place).await?;
                if etag != "*" && now.is_none_or(|now| tag(&now) != tag(&seen)) {
                    return Err(stale());
                }
                self.client.rename(&part, &place, false, true).await?;
                self.kept(&place, &tally).await
            }
            .await;
            if result.is_err() {
                self.discard(&part).await;
            }
            result
        };
        replaced.await.map_err(|error| error.while_doing(REPLACE))
    }

    pub(super) async fn change_item(&self, id: &str, etag: &str, patch: &ItemPatch) -> Result<Item> {
        refuse_in(patch, "item")?;
        let place = Place::of_id(id).ok_or_else(|| no_item(id))?;
        let seen = self.client.stat(&place).await?.ok_or_else(|| no_item(id))?;
        let target = target(&place, patch)?;
        if seen.is_collection {
            self.change_folder(id, etag, patch).await?;
        } else {
            refuse(&[(patch.managed_key.is_some(), "marks on files")])?;
            self.expect(&seen, etag).await?;
            if target != place && !self.client.rename(&place, &target, false, false).await? {
                return Err(taken(&target));
            }
        }
        let there = self.client.stat(&target).await?.ok_or_else(|| no_item(id))?;
        Ok(item(there, None))
    }

    /// Refuses a change that was decided on something else than what is there.
    async fn expect(&self, there: &Entry, etag: &str) -> Result<()> {
        if etag == "*" || etag == tag(there) {
            return Ok(());
        }
        let wanted = etag.strip_prefix("\"sha256-").and_then(|rest| rest.strip_suffix('"'));
        let is_same = match wanted {
            None => false,
            Some(wanted) => self.digest(&there.place).await? == wanted,
        };
        if is_same { Ok(()) } else { Err(stale()) }
    }

    /// SHA-256 of what is stored, by reading it.
    async fn digest(&self, place: &Place) -> Result<String> {
        let content = self.client.receive("read a file for its digest", place).await?.content;
        let hash = content.try_fold(Sha256::new(), |mut hash, chunk| async move {
            hash.update(&chunk);
            Ok(hash)
        });
        Ok(hex(&hash.await?.finalize()))
    }

    /// Stores content where nobody looks, and checks that it is whole and what it should be. What fails leaves nothing behind.
    async fn put_part(
        &self,
        operation: &'static str,
        part: &Place,
        mime_type: &str,
        size: Option<u64>,
        sha256: Option<&str>,
        content: ByteStream,
    ) -> Result<Tally> {
        if sha256.is_some_and(|text| text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err(Error::new(Kind::Rejected, "a SHA-256 has 64 hexadecimal digits"));
        }
        if let Some(workspace) = part.workspace() {
            self.client.make_collection(&marker::own_collection(&workspace)).await?;
        }
        let counter = Arc::new(Mutex::new((Sha256::new(), 0)));
        let counted = counted(content, Arc::clone(&counter));
        let sent = self.client.send(operation, part, Leaving::new(counted, mime_type, size, None)).await;
        let checked = async {
            sent?;
            let (hash, size) = std::mem::take(&mut *counter.lock());
            let tally = Tally { size, sha256: hex(&hash.finalize()) };
            if sha256.is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&tally.sha256)) {
                let mut error = Error::new(Kind::Rejected, "the content has another SHA-256 than was announced");
                error.code = "digest-mismatch".into();
                return Err(error);
            }
            self.kept(part, &tally).await?;
            Ok(tally)
        };
        let result = checked.await;
        if result.is_err() {
            self.discard(part).await;
        }
        result
    }

    /// What is at a place after content was stored there; it must have its length.
    async fn kept(&self, place: &Place, tally: &Tally) -> Result<Item> {
        match self.client.stat(place).await? {
            Some(there) if there.size == Some(tally.size) => Ok(item(there, Some(tally))),
            there => {
                let kept = there.and_then(|there| there.size).unwrap_or_default();
                let why = format!("the server kept {kept} of {} bytes", tally.size);
                Err(Error::new(Kind::Unavailable, why))
            }
        }
    }

    /// Removes content that did not become a file. What cannot be removed is overwritten by the next try, or stays where nobody looks.
    async fn discard(&self, part: &Place) {
        if let Err(error) = self.client.remove(part, false, None).await {
            tracing::debug!(%error, "An upload that broke off was not removed");
        }
    }
}

/// Where the content of one upload waits.
fn part(around: &Place, key: &str) -> Result<Place> {
    let workspace = around.workspace().ok_or_else(|| no_item("/"))?;
    let name = hex(&Sha256::digest(key)[..16]);
    Ok(marker::own_collection(&workspace).child(&format!("{name}.part")))
}

fn counted(content: ByteStream, counter: Arc<Mutex<(Sha256, u64)>>) -> ByteStream {
    let count = move |chunk: &Result<Bytes>| {
        if let Ok(chunk) = chunk {
            let mut counter = counter.lock();
            counter.0.update(chunk);
            counter.1 += chunk.len() as u64;
        }
    };
    content.inspect(count).boxed()
}

/// Entity tag of a file: the server's, else one that follows from what it says.
fn tag(entry: &Entry) -> String {
    entry.etag.clone().unwrap_or_else(|| {
        let modified = entry.modified.map_or(0, Timestamp::as_millisecond);
        format!("\"{}-{modified}\"", entry.size.unwrap_or_default())
    })
}

fn item(entry: Entry, tally: Option<&Tally>) -> Item {
    let etag = tag(&entry);
    let Entry { place, is_collection, size, mime_type, created, modified, .. } = entry;
    let modified_at = modified.or(created).unwrap_or(Timestamp::UNIX_EPOCH);
    Item {
        id: place.id(),
        workspace_id: place.workspace_id(),
        kind: if is_collection { ItemKind::Folder } else { ItemKind::File },
        parent_id: place.parent().filter(|_| !place.is_workspace()).map(|parent| parent.id()),
        name: if place.is_workspace() { String::new() } else { place.name() },
        path: place.path(),
        state: ItemState::Available,
        classification: None,
        metadata: std::collections::BTreeMap::new(),
        locked: false,
        managed_key: None,
        version: (!is_collection).then_some(ONLY_VERSION),
        size: size.filter(|_| !is_collection),
        sha256: tally.map(|tally| tally.sha256.clone()),
        mime_type: mime_type.filter(|_| !is_collection),
        created_by: None,
        upload_request: None,
        created_at: created.unwrap_or(modified_at),
        modified_at,
        holds: Vec::new(),
        retain_until: None,
        record: false,
        etag,
    }
}

/// The first page of what is left.
fn page(items: impl Iterator<Item = Item>) -> Page<Item> {
    let mut items: Vec<Item> = items.take(PAGE + 1).collect();
    let has_more = items.len() > PAGE;
    items.truncate(PAGE);
    let next_cursor = items.last().filter(|_| has_more).map(|last| last.id.clone());
    Page { items, next_cursor }
}

/// `a.txt` with a number: `a (2).txt`.
fn numbered(name: &str, n: u32) -> String {
    match name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) {
        Some((stem, extension)) => format!("{stem} ({n}).{extension}"),
        None => format!("{name} ({n})"),
    }
}

fn stale() -> Error {
    let mut error = Error::new(Kind::Stale, "somebody else changed the item in between");
    error.code = "etag-mismatch".into();
    error
}

fn no_item(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no item {}", clean(id, 128)))
}

fn no_folder(place: &Place) -> Error {
    let mut error = Error::new(Kind::Conflict, format!("{} is no folder", clean(&place.path(), 300)));
    error.code = "not-a-folder".into();
    error
}
