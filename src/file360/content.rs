//! Files in domain terms: what is there, its bytes, and what a client notes beside it.
//!
//! [`Content`] is the second half of [`File360`](super::File360). Bytes stream in both directions: no call holds a file in
//! memory, and none has a time limit of its own; what ends a transfer is silence between two chunks.
//!
//! A file is *visible* when its item is [`Available`](super::model::ItemState::Available). Whoever follows the feed and
//! meets an item that is not visible leaves it: a `fileUploaded` or `versionAdded` entry comes when it becomes so.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use super::Cause;
use super::model::{
    AccessList, BatchResults, ClientState, ClientStatePut, ClientStateRow, Facet, FacetPut, Item, ItemPatch, Link,
    MetadataPatch, NewLink, NewNotification, Notification, OnConflict, Page, Version,
};
use crate::error::Result;

/// Bytes as they come.
pub type ByteStream = futures::stream::BoxStream<'static, Result<bytes::Bytes>>;

/// The content of one version of a file.
pub struct Download {
    /// How many bytes will come. The stream ends with an error when it has fewer or more.
    pub size: u64,
    /// SHA-256 that the other side states, lower-case hexadecimal. Whoever stores the bytes compares. Empty: it states none.
    pub sha256: String,
    /// Media type.
    pub mime_type: String,
    /// The bytes.
    pub content: ByteStream,
}

impl std::fmt::Debug for Download {
    /// Without the content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size, sha256, mime_type, content: _ } = self;
        f.debug_struct("Download")
            .field("size", size)
            .field("sha256", sha256)
            .field("mime_type", mime_type)
            .finish_non_exhaustive()
    }
}

/// A file to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Its name in the folder.
    pub name: String,
    /// Media type.
    pub mime_type: String,
    /// How many bytes there are, if known. A stream with fewer or more leaves nothing behind
    /// ([`Kind::Conflict`](crate::error::Kind::Conflict), code `size-mismatch`).
    pub size: Option<u64>,
    /// SHA-256 in lower-case hexadecimal, if known. Other content leaves nothing behind
    /// ([`Kind::Rejected`](crate::error::Kind::Rejected), code `digest-mismatch`).
    pub sha256: Option<String>,
    /// Metadata; there from the first moment.
    pub metadata: BTreeMap<String, String>,
    /// What to do when the name is taken.
    pub on_conflict: OnConflict,
}

/// One repeatable call: a call repeated under the same key within 24 hours has the effect of one and returns the first
/// answer. 1 to 200 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub String);

/// Files, facets, client-state documents, shares and notices of one tenant.
#[async_trait]
pub trait Content: Send + Sync {
    /// The folder or file with an id, also one in the trash.
    async fn item(&self, id: &str) -> Result<Option<Item>>;

    /// The folder or file at a path of a workspace.
    async fn item_at(&self, workspace: &str, path: &str) -> Result<Option<Item>>;

    /// A page of what is directly in a folder.
    async fn children(&self, folder: &str, cursor: Option<&str>) -> Result<Page<Item>>;

    /// A page of all files at any depth below `path`, ordered by id, so that each file that is there from the first page to
    /// the last is returned exactly once, moved or not within `path`. A page can be short, or empty, and still have a next
    /// one.
    async fn files(&self, workspace: &str, path: &str, cursor: Option<&str>) -> Result<Page<Item>>;

    /// The versions of a file, the newest first. Pending and rejected ones only for who decides about them.
    async fn versions(&self, item: &str) -> Result<Vec<Version>>;

    /// The bytes of one version. What is not visible to the caller is [`Kind::NotFound`](crate::error::Kind::NotFound); what
    /// is quarantined is a conflict, code `quarantined`. The length is checked while it streams.
    async fn download(&self, item: &str, version: u64) -> Result<Download>;

    /// Adds a file to a folder: it is there when the whole of it is durable, or not at all.
    async fn upload(
        &self,
        folder: &str,
        new: &NewFile,
        content: ByteStream,
        key: &IdempotencyKey,
        cause: &Cause,
    ) -> Result<Item>;

    /// Adds a version to a file, unless somebody changed it since `etag`: the item's, or `"sha256-<hex>"` for the content
    /// that it replaces ([`Kind::Stale`](crate::error::Kind::Stale)). Below an intake policy the item comes back as it is
    /// for readers.
    #[allow(clippy::too_many_arguments, reason = "what a version is made of, and what guards it")]
    async fn put_content(
        &self,
        item: &str,
        etag: &str,
        mime_type: &str,
        size: Option<u64>,
        sha256: Option<&str>,
        content: ByteStream,
        cause: &Cause,
    ) -> Result<Item>;

    /// Renames, moves, labels, locks; unless somebody changed the item since `etag`.
    async fn patch_item(&self, id: &str, etag: &str, patch: &ItemPatch, cause: &Cause) -> Result<Item>;

    /// Merges metadata into up to 1,000 items, together at most 1 MiB of JSON. Every entry stands for itself; results are in
    /// the order of `patches`.
    async fn set_metadata(&self, patches: &[MetadataPatch], key: &IdempotencyKey, cause: &Cause) -> Result<BatchResults>;

    /// Moves an item to the trash, unless somebody changed it since `etag`; one that is gone is a success. Below an intake
    /// policy for deletes it stays until that is decided.
    async fn delete_item(&self, id: &str, etag: &str, cause: &Cause) -> Result<()>;

    /// Sets or removes up to 1,000 facets, together at most 1 MiB of JSON: all or nothing. One about a file or version that
    /// is gone is [`Kind::NotFound`](crate::error::Kind::NotFound) for all.
    async fn put_facets(&self, facets: &[FacetPut], key: &IdempotencyKey) -> Result<()>;

    /// Makes a facet with a content, unless there is one: then nothing changes ([`Kind::Stale`](crate::error::Kind::Stale)). Of many at once, one does.
    async fn create_facet(&self, facet: &FacetPut) -> Result<()>;

    /// The caller's facet of that name on a version.
    async fn facet(&self, item: &str, version: u64, name: &str) -> Result<Option<Facet>>;

    /// A page of the caller's facets of one name, in one workspace or in all, ordered by item and version.
    async fn facets(&self, name: &str, workspace: Option<&str>, cursor: Option<&str>) -> Result<Page<Facet>>;

    /// One of the caller's own documents.
    async fn client_state(&self, key: &str) -> Result<Option<ClientState>>;

    /// Replaces a document that still has `etag`, or makes one that is not there (`None`); otherwise
    /// [`Kind::Stale`](crate::error::Kind::Stale). Returns the new entity tag.
    async fn put_client_state(&self, key: &str, value: &Value, etag: Option<&str>) -> Result<String>;

    /// Removes a document that still has `etag`; one that is gone is a success.
    async fn delete_client_state(&self, key: &str, etag: &str) -> Result<()>;

    /// A page of the caller's own documents whose keys start with `prefix`, ordered by key. A page can be short and still
    /// have a next one.
    async fn client_states(&self, prefix: &str, cursor: Option<&str>) -> Result<Page<ClientStateRow>>;

    /// Sets or removes up to 1,000 documents, together at most 1 MiB of JSON, whatever they were: all or nothing.
    async fn put_client_states(&self, puts: &[ClientStatePut], key: &IdempotencyKey) -> Result<()>;

    /// Makes a share link. One that the sharing rule does not allow is [`Kind::Rejected`](crate::error::Kind::Rejected),
    /// code `sharing-policy-denied`. Programs download from its address with `/content` added.
    async fn create_link(&self, item: &str, new: &NewLink, key: &IdempotencyKey, cause: &Cause) -> Result<Link>;

    /// Has a mail sent. It is durable, not yet delivered, when this returns.
    async fn notify(&self, new: &NewNotification, key: &IdempotencyKey) -> Result<Notification>;

    /// Who can read an item now; see [`AccessList`].
    async fn access(&self, item: &str) -> Result<AccessList>;
}
