//! Files: versions, upload sessions, copies, metadata in batches, facets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Actor, Audience, Item, OnConflict, PrincipalKind, Problem, Role};

/// Whether a version may be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VersionState {
    /// Visible, or visible in its time.
    Released,
    /// Held back by an intake policy until a decision.
    Pending,
    /// A decision went against it; it never becomes visible.
    Rejected,
}

/// One version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Number, from 1.
    pub version: u64,
    /// Released, pending or rejected.
    pub state: VersionState,
    /// It is the one that readers get. An item none of whose versions is visible is not released, in the trash as well.
    pub visible: bool,
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Media type.
    pub mime_type: String,
    /// Who uploaded it.
    pub created_by: Actor,
    /// When.
    pub created_at: Timestamp,
}

/// Body of `POST /v1/uploads`: a file or version that arrives in parts. Either `parentId` and `name`, or `itemId`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NewUpload {
    /// Folder for a new file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Name of the new file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// File that gets a new version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_id: Option<String>,
    /// Entity tag that the file must still have at the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_etag: Option<String>,
    /// Media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Metadata of the new file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What to do when the name is taken.
    pub on_conflict: OnConflict,
}

/// A part that has arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Number, from 1; parts are put together in this order.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// An upload in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upload {
    /// Opaque id.
    pub id: String,
    /// Parts that have arrived, in order.
    pub parts: Vec<Part>,
    /// What is not committed by then is thrown away.
    pub expires_at: Timestamp,
}

/// Body of `POST /v1/uploads/{id}/commit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UploadCommit {
    /// SHA-256 of the whole file in lower-case hexadecimal; verified if given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Body of `POST /v1/items/{id}/copies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewCopy {
    /// Folder that receives the copy; may be in another workspace.
    pub parent_id: String,
    /// Name of the copy; absent: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What to do when the name is taken.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// Body of `POST /v1/metadata/batch`: up to 1,000 items; every entry stands for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetadataBatch {
    /// Items to read.
    pub get: Vec<String>,
    /// Items to change.
    pub set: Vec<MetadataPatch>,
}

/// Metadata to set on one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataPatch {
    /// The item.
    pub item_id: String,
    /// Only if the item still has this entity tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Entries to set, or to remove with `null`.
    pub metadata: BTreeMap<String, Option<String>>,
}

/// What became of each entry of a batch, in the order of the request: reads first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResults {
    /// One per entry.
    pub results: Vec<BatchResult>,
}

/// What became of one entry of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResult {
    /// The item it was about.
    pub item_id: String,
    /// The item after it, where the operation returns items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Item>,
    /// Why it had no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A facet: a JSON value that one client keeps on one version of a file. Nobody else sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facet {
    /// The file.
    pub item_id: String,
    /// Its version.
    pub version: u64,
    /// Name of the facet.
    pub name: String,
    /// Its content.
    pub value: Value,
    /// Entity tag.
    pub etag: String,
}

/// Body of `PUT /v1/items/{id}/versions/{n}/facets/{name}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FacetInput {
    /// Its content, up to 64 KiB of JSON.
    pub value: Value,
    /// See [`FacetPut::announce`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub announce: bool,
}

/// Body of `POST /v1/facets/batch`: up to 1,000 facets, all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FacetBatch {
    /// What to set.
    pub items: Vec<FacetPut>,
}

/// One facet to set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FacetPut {
    /// The file.
    pub item_id: String,
    /// Its version.
    pub version: u64,
    /// Name of the facet.
    pub name: String,
    /// Its content; absent or `null` removes it.
    #[serde(default)]
    pub value: Option<Value>,
    /// The feed gets an entry ([`ChangeKind::FacetChanged`](super::ChangeKind::FacetChanged)) if this changes the content.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub announce: bool,
}

/// One of a client's own documents, in a listing (`GET /v1/client-state`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientStateRow {
    /// Its key.
    pub key: String,
    /// Its content.
    pub value: Value,
    /// Entity tag.
    pub etag: String,
}

/// Body of `POST /v1/client-state/batch`: up to 1,000 documents, all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientStateBatch {
    /// What to set, in this order.
    pub items: Vec<ClientStatePut>,
}

/// One document to set, whatever it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientStatePut {
    /// Its key.
    pub key: String,
    /// Its content; absent or `null` removes it.
    #[serde(default)]
    pub value: Option<Value>,
}

/// Who can read an item (`GET /v1/items/{id}/access`), as it is now: memberships of the workspace and grants on the folders
/// above it, as far as the sharing rule and the workspace's state let them count. Groups stand for their members. Client
/// applications are not named: their scopes say what they read. Of what is in the trash nobody reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessList {
    /// Who may read, each with the strongest role, ordered by id. An `Uploader` is here only for a file of their own.
    pub items: Vec<AccessEntry>,
    /// Who has a role here that does not read this item (`Uploader`). It takes nothing away from what the same person has
    /// through another entry, such as a group.
    pub denied: Vec<AccessEntry>,
    /// To whom share links on it or on a folder above it open it, the narrowest first.
    pub links: Vec<Audience>,
    /// It has no visible version: whoever is named here reads it once one is released.
    pub pending: bool,
}

/// A principal and a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessEntry {
    /// User, group or guest.
    pub kind: PrincipalKind,
    /// Name of the principal.
    pub name: String,
    /// Id of the principal.
    pub principal_id: String,
    /// The strongest role at the item.
    pub role: Role,
}
