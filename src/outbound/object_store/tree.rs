//! What SFTP servers and folders have in common: a tree of files without metadata of ours.
//!
//! A file is written beside its place under a name of the operator's own, and renamed when it is whole. Which file has which place is
//! noted in a claim, a small file below `.file360/claims`: so a newer version replaces an older one, nothing replaces another file, a delivery
//! that was made is not made again, and names that differ only in case stay apart on every file system.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::names::{self, Key, Rules};
use super::{Entry, Object, Opened, Page, Store, Stored, Stream, Upload, key_taken, opened};
use crate::error::{Error, Kind, Result};
use crate::hex::hex;

/// Code of a refusal by the file system, as opposed to a wrong credential.
pub const NO_PERMISSION: &str = "permission-denied";
/// Files in one page of a listing.
const PAGE: usize = 10_000;
/// Names in one folder that are read.
pub const MAX_NAMES: usize = 200_000;
/// Folders inside folders that a listing follows.
const MAX_DEPTH: usize = 64;
/// Largest claim, in bytes.
const MAX_CLAIM: usize = 4096;

/// What a name stands for. Links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A link, device, socket, pipe.
    Other,
}

/// What is known about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub is: Is,
    /// Bytes.
    pub size: u64,
    /// When it was changed.
    pub modified_at: Timestamp,
}

impl Node {
    /// Changes when the content does, as far as a file system tells.
    pub fn etag(&self) -> String {
        format!("{}-{}", self.modified_at.as_nanosecond(), self.size)
    }
}

/// A tree of files. Paths are relative to its root, cut at `/`, without `.` and `..`. Nothing is written through a link, and what is read is
/// no link itself. A folder on the way may be one on SFTP servers, where the account's rights are the bound; in mounted folders none may.
#[async_trait]
pub trait Tree: Send + Sync + 'static {
    /// `sftp` or `fs`.
    fn kind(&self) -> &'static str;

    /// See [`Store::describe`].
    fn describe(&self) -> String;

    /// What `path` stands for, if anything.
    async fn look(&self, path: &str) -> Result<Option<Node>>;

    /// Makes a file with its folders from `content`; durable. Gives its size as the file system tells it afterwards.
    async fn write(&self, path: &str, content: Stream) -> Result<u64>;

    /// Renames a file within its folder; durable. Without `replaces`, false: there is something already, and both stay.
    async fn rename(&self, from: &str, to: &str, replaces: bool) -> Result<bool>;

    /// Overwrites a part of a file.
    async fn amend(&self, path: &str, offset: u64, content: &[u8]) -> Result<()>;

    /// Removes a file; fine if it is not there.
    async fn remove(&self, path: &str) -> Result<()>;

    /// Opens a file; [`Kind::NotFound`] if it is not there.
    async fn open(&self, path: &str) -> Result<(Node, Stream)>;

    /// Names in a folder, at most [`MAX_NAMES`]; nothing if it is not there.
    async fn names(&self, folder: &str) -> Result<Vec<(String, Node)>>;
}

/// A tree as a store.
pub struct TreeStore<T>(pub Arc<T>);

/// Who has a place: a line of text of fixed length, then the name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    /// The file.
    file: String,
    /// The delivery that is complete there; zeros before the first.
    delivery: String,
    /// The name; another one may have the same place where case does not count.
    key: String,
}

/// What may be done at a place.
enum Place {
    /// It is the file's, from now on or since an earlier delivery.
    Own { claim: Claim, is_new: bool },
    /// A name that differs in case only has it.
    CaseClash,
    /// Notes cannot be kept here: only what is not there yet is written.
    Unnoted,
}

impl<T: Tree> TreeStore<T> {
    async fn put_file(&self, upload: &Upload<'_>) -> Result<Stored> {
        let (key, place) = self.place(upload).await?;
        let (claim, replaces) = match place {
            Place::Own { claim, is_new } => (Some(claim), !is_new),
            Place::CaseClash => return Err(key_taken(key.as_str())),
            Place::Unnoted => (None, false),
        };
        let stored = Stored { key: key.to_string(), bytes: upload.size, duplicate: false };
        let duplicate = Stored { bytes: 0, duplicate: true, ..stored.clone() };
        let lying = self.0.look(key.as_str()).await?;
        if lying.as_ref().is_some_and(|node| node.is != Is::File) {
            return Err(key_taken(key.as_str()));
        }
        let is_delivered = claim.as_ref().is_some_and(|claim| claim.delivery == upload.delivery);
        if is_delivered && lying.is_some_and(|node| node.size == upload.size) {
            return Ok(duplicate);
        }

        let (temporary, sha256) = self.write_beside(&key, upload).await?;
        if self.0.rename(temporary.path(), key.as_str(), replaces).await? {
            temporary.keep();
        } else {
            temporary.remove().await;
            // A try that was cut off after its last step, or somebody else's file.
            if !self.has_content(key.as_str(), upload.size, &sha256).await? {
                return Err(key_taken(key.as_str()));
            }
        }
        if claim.is_some() {
            self.0.amend(&claim_path(&key), Claim::DELIVERY_AT, upload.delivery.as_bytes()).await?;
        }
        Ok(stored)
    }

    /// Where the file goes: its name, or the one that keeps it apart from a name that differs in case only.
    async fn place(&self, upload: &Upload<'_>) -> Result<(Key, Place)> {
        match self.claim(upload.key, upload).await? {
            Place::CaseClash => {
                let apart = upload.key.apart().ok_or_else(|| key_taken(upload.key.as_str()))?;
                let place = self.claim(&apart, upload).await?;
                Ok((apart, place))
            }
            place => Ok((upload.key.clone(), place)),
        }
    }

    async fn claim(&self, key: &Key, upload: &Upload<'_>) -> Result<Place> {
        let path = claim_path(key);
        let new = Claim { file: upload.file.to_owned(), delivery: Claim::UNUSED.to_owned(), key: key.to_string() };
        // The second round is for a claim that was made between reading and making it.
        for _ in 0..2 {
            match self.noted(&path).await {
                Err(error) if error.code == NO_PERMISSION => return Ok(Place::Unnoted),
                Err(error) => return Err(error),
                Ok(Some(found)) if found.key != new.key => return Ok(Place::CaseClash),
                Ok(Some(found)) if found.file != new.file => return Err(key_taken(key.as_str())),
                Ok(Some(claim)) => return Ok(Place::Own { claim, is_new: false }),
                Ok(None) => {}
            }
            if self.0.look(key.as_str()).await?.is_some() {
                // Not of our making, or from a time when no notes could be kept.
                return Ok(Place::Unnoted);
            }
            match self.note(&path, &new).await {
                Ok(true) => return Ok(Place::Own { claim: new, is_new: true }),
                Ok(false) => {}
                Err(error) if error.code == NO_PERMISSION => return Ok(Place::Unnoted),
                Err(error) => return Err(error),
            }
        }
        Err(unreadable(&path))
    }

    async fn noted(&self, path: &str) -> Result<Option<Claim>> {
        let mut content = match self.0.open(path).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            other => other?.1,
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = content.next().await.transpose()? {
            if bytes.len() + chunk.len() > MAX_CLAIM {
                return Err(unreadable(path));
            }
            bytes.extend_from_slice(&chunk);
        }
        Claim::read(&bytes).map(Some).ok_or_else(|| unreadable(path))
    }

    /// Makes a note, whole from the first moment. False: there is one already.
    async fn note(&self, path: &str, claim: &Claim) -> Result<bool> {
        let temporary = Temporary { tree: self.0.clone(), path: Some(format!("{path}-{:016x}", rand::random::<u64>())) };
        let content = futures::stream::iter([Ok(bytes::Bytes::from(claim.to_string()))]).boxed();
        let made = match self.0.write(temporary.path(), content).await {
            Ok(_) => self.0.rename(temporary.path(), path, false).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(true) => temporary.keep(),
            _ => temporary.remove().await,
        }
        made
    }

    /// Writes the content under a name of its own in the folder where it goes; gives its SHA-256, too.
    async fn write_beside(&self, key: &Key, upload: &Upload<'_>) -> Result<(Temporary<T>, String)> {
        let content = opened(upload).await?;
        let folder = key.as_str().rfind('/').map_or("", |at| &key.as_str()[..=at]);
        let unique = rand::random::<u64>();
        let path =
            format!("{folder}{}-{}-{unique:016x}.part", names::RESERVED, &upload.delivery[..upload.delivery.len().min(16)]);
        let temporary = Temporary { tree: self.0.clone(), path: Some(path.clone()) };
        let hash = Arc::new(parking_lot::Mutex::new(Sha256::new()));
        let content = if upload.sha256.is_some() { content } else { hashed(content, hash.clone()) };
        let size = match self.0.write(&path, content).await {
            Ok(size) => size,
            Err(error) => {
                temporary.remove().await;
                return Err(error);
            }
        };
        if size != upload.size {
            temporary.remove().await;
            return Err(Error::new(Kind::Unavailable, format!("{size} bytes were stored instead of {}", upload.size)));
        }
        let sha256 = upload.sha256.map_or_else(|| hex(&hash.lock().clone().finalize()), str::to_owned);
        Ok((temporary, sha256))
    }

    async fn has_content(&self, path: &str, size: u64, sha256: &str) -> Result<bool> {
        let (node, mut content) = self.0.open(path).await?;
        if node.size != size {
            return Ok(false);
        }
        let mut hash = Sha256::new();
        while let Some(chunk) = content.next().await.transpose()? {
            hash.update(&chunk);
        }
        Ok(hex(&hash.finalize()) == sha256)
    }

    /// Files below `folder` in the order of their segments, those after `cursor` only, until `page` is full.
    async fn walk(&self, prefix: &str, cursor: Option<&str>) -> Result<Page> {
        let mut page = Page::default();
        // What is still to be looked at: the last is next.
        let start = prefix.rfind('/').map_or("", |at| &prefix[..at]);
        let mut folders: Vec<Vec<(String, Node)>> = vec![self.sorted(start, prefix, cursor).await?];
        while let Some(folder) = folders.last_mut() {
            let Some((path, node)) = folder.pop() else {
                folders.pop();
                continue;
            };
            match node.is {
                Is::Folder if folders.len() < MAX_DEPTH => folders.push(self.sorted(&path, prefix, cursor).await?),
                Is::File if page.entries.len() == PAGE => {
                    page.next = page.entries.last().map(|entry| entry.key.clone());
                    return Ok(page);
                }
                Is::File => {
                    page.entries.push(Entry {
                        etag: node.etag(),
                        size: node.size,
                        modified_at: node.modified_at,
                        key: path,
                    });
                }
                Is::Folder | Is::Other => {}
            }
        }
        Ok(page)
    }

    /// What is in a folder and may be part of the page, the first at the end.
    async fn sorted(&self, folder: &str, prefix: &str, cursor: Option<&str>) -> Result<Vec<(String, Node)>> {
        let names = self.0.names(folder).await?;
        let mut found: Vec<(String, Node)> = names
            .into_iter()
            .filter(|(name, _)| !names::is_reserved(name))
            .map(|(name, node)| (if folder.is_empty() { name } else { format!("{folder}/{name}") }, node))
            .filter(|(path, node)| concerns(path, node.is, prefix, cursor))
            .collect();
        found.sort_unstable_by(|(one, _), (other, _)| other.split('/').cmp(one.split('/')));
        Ok(found)
    }
}

/// Whether a file, or something in a folder, can begin with `prefix` and come after `cursor`.
fn concerns(path: &str, is: Is, prefix: &str, cursor: Option<&str>) -> bool {
    let in_prefix = match is {
        Is::Folder => path.starts_with(prefix) || prefix.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')),
        _ => path.starts_with(prefix),
    };
    let after = cursor.is_none_or(|cursor| {
        let is_above = is == Is::Folder && cursor.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        is_above || path.split('/').gt(cursor.split('/'))
    });
    in_prefix && after
}

#[async_trait]
impl<T: Tree> Store for TreeStore<T> {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn rules(&self) -> Rules {
        Rules::Portable
    }

    async fn put(&self, upload: Upload<'_>) -> Result<Stored> {
        let result = self.put_file(&upload).await;
        result.map_err(|error| error.while_doing(format!("put {} bytes to {}", upload.size, self.describe())))
    }

    async fn head(&self, key: &str) -> Result<Object> {
        addressable(key)?;
        let node = self.0.look(key).await?.filter(|node| node.is == Is::File);
        let node = node.ok_or_else(|| Error::new(Kind::NotFound, "the file is not there"))?;
        let entry = Entry { key: key.to_owned(), size: node.size, etag: node.etag(), modified_at: node.modified_at };
        Ok(Object { entry, mime_type: None, metadata: std::collections::BTreeMap::new() })
    }

    async fn open(&self, key: &str, etag: &str) -> Result<Opened> {
        addressable(key)?;
        let (node, content) = self.0.open(key).await?;
        if node.is != Is::File || node.etag() != etag {
            return Err(Error::new(Kind::Stale, "the file was changed since it was listed"));
        }
        let content = unchanged(self.0.clone(), key.to_owned(), node.etag(), super::exactly(node.size, content));
        Ok(Opened { size: node.size, content })
    }

    async fn list(&self, prefix: &str, cursor: Option<&str>) -> Result<Page> {
        if prefix.split('/').any(|segment| matches!(segment, "." | "..")) || prefix.starts_with('/') || prefix.contains('\0')
        {
            return Err(Error::new(Kind::Rejected, "the prefix has a part that leaves the root"));
        }
        self.walk(prefix, cursor).await
    }
}

fn addressable(key: &str) -> Result<()> {
    let is_fine =
        names::is_addressable(key) && !key.split('/').any(|segment| segment.is_empty() || names::is_reserved(segment));
    if is_fine { Ok(()) } else { Err(Error::new(Kind::Rejected, "the name is none that a listing gives")) }
}

/// The stream with an error at its end when the file was changed meanwhile: half of it may be old.
fn unchanged<T: Tree>(tree: Arc<T>, path: String, etag: String, content: Stream) -> Stream {
    let check = futures::stream::once(async move {
        match tree.look(&path).await? {
            Some(node) if node.etag() == etag => Ok(bytes::Bytes::new()),
            _ => Err(Error::new(Kind::Stale, "the file was changed while it was read")),
        }
    });
    content.chain(check).boxed()
}

fn hashed(content: Stream, hash: Arc<parking_lot::Mutex<Sha256>>) -> Stream {
    content
        .inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                hash.lock().update(chunk);
            }
        })
        .boxed()
}

/// A file that is removed unless it gets its place, also when the task that writes it is given up.
struct Temporary<T: Tree> {
    tree: Arc<T>,
    path: Option<String>,
}

impl<T: Tree> Temporary<T> {
    fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    /// It has its place.
    fn keep(mut self) {
        self.path = None;
    }

    async fn remove(mut self) {
        if let Some(path) = self.path.take() {
            discard(&*self.tree, &path).await;
        }
    }
}

impl<T: Tree> Drop for Temporary<T> {
    fn drop(&mut self) {
        if let (Some(path), Ok(runtime)) = (self.path.take(), tokio::runtime::Handle::try_current()) {
            let tree = self.tree.clone();
            runtime.spawn(async move { discard(&*tree, &path).await });
        }
    }
}

async fn discard<T: Tree>(tree: &T, path: &str) {
    if let Err(error) = tree.remove(path).await {
        tracing::warn!(%error, "A part of a file stays behind at {}", tree.describe());
    }
}

fn claim_path(key: &Key) -> String {
    let hash = hex(&Sha256::digest(key.folded()));
    format!("{}/claims/{}/{}", names::RESERVED, &hash[..2], &hash[2..])
}

fn unreadable(path: &str) -> Error {
    Error::new(Kind::Conflict, format!("the note {path} cannot be read; remove it if no delivery is at work"))
}

impl Claim {
    const HEAD: &'static str = "file360-claim 1 ";
    const UNUSED: &'static str = "0000000000000000000000000000000000000000000000000000000000000000";
    /// Where the delivery stands, in bytes.
    const DELIVERY_AT: u64 = Self::HEAD.len() as u64 + 64 + 1;

    fn read(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let (line, key) = text.strip_prefix(Self::HEAD)?.split_once('\n')?;
        let (file, delivery) = line.split_once(' ')?;
        let is_whole = file.len() == 64 && delivery.len() == 64 && key.ends_with('\n');
        is_whole.then(|| Self { file: file.into(), delivery: delivery.into(), key: key.trim_end_matches('\n').into() })
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, delivery, key } = self;
        writeln!(f, "{}{file} {delivery}\n{key}", Self::HEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read_as_it_was_written_and_amended_in_place() {
        let claim = Claim { file: "a".repeat(64), delivery: Claim::UNUSED.into(), key: "d/x y.txt".into() };
        let mut bytes = claim.to_string().into_bytes();
        assert_eq!(Claim::read(&bytes), Some(claim.clone()));
        let at = usize::try_from(Claim::DELIVERY_AT).unwrap();
        bytes[at..at + 64].copy_from_slice("b".repeat(64).as_bytes());
        let amended = Claim::read(&bytes).unwrap();
        assert_eq!(amended, Claim { delivery: "b".repeat(64), ..claim });
        for cut in [0, 10, 100, bytes.len() - 1] {
            assert_eq!(Claim::read(&bytes[..cut]), None, "a claim that was cut off");
        }
    }

    #[test]
    fn a_listing_goes_into_what_it_has_to_and_goes_on_where_it_was() {
        assert!(concerns("final", Is::Folder, "final/2026", None));
        assert!(!concerns("finals", Is::Folder, "final/2026", None));
        assert!(concerns("final/2026-x", Is::Folder, "final/2026", None));
        assert!(!concerns("final/2025.txt", Is::File, "final/2026", None));
        assert!(concerns("a", Is::Folder, "", Some("a/b")));
        assert!(!concerns("a/b", Is::File, "", Some("a/b")));
        assert!(concerns("a/c", Is::File, "", Some("a/b")));
        assert!(!concerns("a", Is::Folder, "", Some("a-b/c")) || concerns("a", Is::Folder, "", Some("a/z")));
        assert!(concerns("a-b", Is::Folder, "", Some("a/z")), "by segments: a before a-b");
    }
}
