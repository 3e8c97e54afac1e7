//! The data types of the File 360 connector contract, in domain terms.
//!
//! They are the one thing that the operator and the embedded server share. Every type is the JSON shape of the
//! contract (`config/file360/openapi.yaml`): camelCase members, RFC 3339 times in UTC, opaque string ids. Unknown members
//! are ignored when reading, so that a newer server stays readable.

mod accept;
mod content;
mod documents;
mod governance;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::accept::*;
pub use self::content::*;
pub use self::documents::*;
pub use self::governance::*;

/// Names of the HTTP headers that the contract adds to the standard ones.
pub mod headers {
    /// On answers that concern one workspace: its revision after the call (a decimal number).
    pub const WORKSPACE_REVISION: &str = "workspace-revision";
    /// On mutating calls of leader-run work: `<clusterId>/<consumer>=<epoch>`; an older epoch is answered with 412 `fenced`.
    pub const FENCING_EPOCH: &str = "fencing-epoch";
    /// On mutating calls: which resource causes them; comes back in the feed entry, so that each drops only its own echo.
    pub const CAUSED_BY: &str = "caused-by";
    /// On every creating POST: a repeated key replays the first answer.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    /// `true` on an answer that was replayed for a repeated idempotency key.
    pub const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";
}

/// What the service says about itself (`GET /v1/service`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Product name, such as `File 360 (embedded)`.
    pub product: String,
    /// Version of the product.
    pub version: String,
    /// Version of the contract, `MAJOR.MINOR`.
    pub contract: String,
    /// Changes when the feed's history was replaced, for example by a restored backup. Cursors of another epoch are void.
    pub feed_epoch: String,
    /// What this server can do.
    pub capabilities: Vec<Capability>,
    /// What a client may ask of it.
    pub limits: Limits,
}

/// One thing a driver or a server can or cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Capability {
    /// Workspaces found by a business key.
    BusinessKeys,
    /// Members with a role, a path and an expiry.
    Members,
    /// Sharing rules, share links.
    Sharing,
    /// Upload requests for people without an account.
    UploadRequests,
    /// Typed metadata on workspaces and items.
    Metadata,
    /// An ordered feed of changes with long poll.
    Changes,
    /// An ordered, hash-chained feed of audit events.
    Audit,
    /// Client-state documents.
    ClientState,
    /// Operator-only facets on file versions.
    Facets,
    /// Fencing epochs on mutating calls.
    Fencing,
    /// Trash with restore and purge.
    Trash,
    /// Intake policies: what arrives is pending from its first byte.
    Intake,
    /// Native retention.
    Retention,
    /// Native legal holds.
    Holds,
    /// Native records.
    Records,
    /// Mails to outsiders: invitations, notices, codes, reminders.
    Notifications,
    /// A capability that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Limits that a server states and enforces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Sustained requests a second for one client; absent: no limit stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Requests in flight for one client; absent: no limit stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Most entries a page may have.
    pub page_size: u32,
    /// Longest `wait` of the change feed, in seconds.
    pub max_wait_seconds: u32,
    /// How long the feed keeps entries, in seconds.
    pub changes_retention_seconds: u64,
    /// Largest JSON body, in bytes.
    pub max_body_bytes: u64,
}

/// What kind of principal somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PrincipalKind {
    /// A person of the organisation.
    User,
    /// A group of the organisation.
    Group,
    /// An outsider, known by e-mail address.
    Guest,
    /// A client application.
    Client,
}

/// Somebody who can hold rights. Names are unique within their kind and compare without case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// Opaque id.
    pub id: String,
    /// User, group, guest or client.
    pub kind: PrincipalKind,
    /// User name, group name, or the guest's e-mail address in lower case.
    pub name: String,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Mail address, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// Rights in a workspace or below a folder, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Role {
    /// Everything, including deletion of the workspace.
    Owner,
    /// Members, sharing rules and content.
    Manager,
    /// Reads and changes content, shares within the sharing rule.
    Editor,
    /// Reads all, adds new files and versions of own files.
    Contributor,
    /// Adds files, sees only own ones.
    Uploader,
    /// Reads.
    Viewer,
}

/// Which object outside stands for a workspace: the business key under which it is found again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BusinessKey {
    /// The system that owns the key, such as `s4` or `k8s`.
    pub system: String,
    /// The key there. Opaque to the server; up to 512 characters.
    pub key: String,
}

/// Whether an ownership mark is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerState {
    /// A resource manages the workspace.
    Active,
    /// The resource is gone; the same namespace and name may take the workspace up again.
    Released,
}

/// Who manages a workspace. The server binds an active mark to the client that set it: no other client (without the
/// `admin` scope) can change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerMark {
    /// Identity of the cluster.
    pub cluster_id: String,
    /// Namespace of the resource.
    pub namespace: String,
    /// Name of the resource.
    pub name: String,
    /// UID of the resource: tells a re-created object from its predecessor.
    pub uid: String,
    /// In force or released.
    pub state: OwnerState,
}

/// Life of a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WorkspaceState {
    /// In use.
    Active,
    /// Read-only, kept.
    Archived,
    /// In the trash until `purgeAt`; content is invisible and can be restored.
    Trashed,
}

/// Which outsiders a workspace can be shared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum ExternalSharing {
    /// Nobody outside.
    Disabled,
    /// Addresses of the allowed domains.
    AllowListed,
    /// Everybody.
    Anyone,
}

/// Who may open a share link, the narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Audience {
    /// Members of the workspace.
    Members,
    /// Everyone of the organisation.
    Company,
    /// Named guests, who prove their address.
    Guests,
    /// Whoever has the link.
    Anyone,
}

/// Limits for share links in a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkRules {
    /// Widest audience a link may have.
    pub max_audience: Audience,
    /// Longest life of a link in days; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_days: Option<u32>,
    /// Links need a password.
    pub password_required: bool,
    /// Links may download, not only preview.
    pub download: bool,
}

/// The sharing rule of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharingRules {
    /// Which outsiders may get access.
    pub external: ExternalSharing,
    /// Domains for `AllowListed`: A-labels in lower case, exact or `*.` for every subdomain. Sorted.
    #[serde(default)]
    pub allowed_domains: Vec<String>,
    /// Guests may share further.
    pub reshare: bool,
    /// Limits for links.
    pub links: LinkRules,
}

impl Default for SharingRules {
    /// What a workspace has when nobody said anything: closed to the outside.
    fn default() -> Self {
        Self {
            external: ExternalSharing::Disabled,
            allowed_domains: Vec::new(),
            reshare: false,
            links: LinkRules { max_audience: Audience::Members, max_days: None, password_required: false, download: true },
        }
    }
}

/// A workspace, without its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workspace {
    /// Opaque id.
    pub id: String,
    /// Business key; absent on workspaces that people made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<BusinessKey>,
    /// Grows by exactly one with every effective change of name, classification, metadata, sharing, state, owner, folders,
    /// members, links and upload requests. Files do not count.
    pub revision: u64,
    /// Grows by exactly one with every entry of the feed about a file of the workspace. Absent: the server does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_revision: Option<u64>,
    /// Name for people.
    pub display_name: String,
    /// Classification label, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// Metadata of the workspace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Sharing rule in force.
    pub sharing: SharingRules,
    /// Names of the properties that the owner declared (`classification`, `sharing`, `metadata/<key>`), as the owner keeps
    /// them; opaque to the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_fields: Vec<String>,
    /// Who manages it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerMark>,
    /// Active, archived or trashed.
    pub state: WorkspaceState,
    /// When a trashed workspace ends for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_at: Option<Timestamp>,
    /// The root folder.
    pub root_id: String,
    /// Where people open it.
    pub url: String,
    /// Entity tag, also in the `ETag` header.
    pub etag: String,
}

/// Body of `PUT /v1/workspaces/by-key/{system}/{key}` with `If-None-Match: *`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewWorkspace {
    /// Name for people.
    pub display_name: String,
    /// Classification label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// Metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Sharing rule; absent: closed to the outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<SharingRules>,
    /// See [`Workspace::managed_fields`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_fields: Vec<String>,
    /// Who manages it from the first moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerMark>,
}

/// Merge patch (RFC 7396) for a workspace: an absent member stays, `null` resets to the server's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspacePatch {
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// New classification; inner `None` removes it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "double_option")]
    pub classification: Option<Option<String>>,
    /// Metadata to set, or to remove with `None`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Option<String>>,
    /// New sharing rule; inner `None` closes to the outside.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "double_option")]
    pub sharing: Option<Option<SharingRules>>,
    /// Replaces the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_fields: Option<Vec<String>>,
}

/// Keeps "absent" and "null" apart in a merge patch.
mod double_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::option_option, reason = "absent, null and a value are three different things in a merge patch")]
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
        Option::<T>::deserialize(from).map(Some)
    }

    #[allow(clippy::option_option, clippy::ref_option, reason = "serde fixes the signature")]
    pub fn serialize<T: Serialize, S: Serializer>(value: &Option<Option<T>>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(Some(inner)) => to.serialize_some(inner),
            _ => to.serialize_none(),
        }
    }
}

/// One row of the workspace listing: enough to see what changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceRow {
    /// Opaque id.
    pub id: String,
    /// Business key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<BusinessKey>,
    /// Name for people.
    pub display_name: String,
    /// See [`Workspace::revision`].
    pub revision: u64,
    /// See [`Workspace::content_revision`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_revision: Option<u64>,
    /// Who manages it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerMark>,
    /// Active, archived or trashed.
    pub state: WorkspaceState,
}

/// A page of a listing. `next_cursor` is absent on the last page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Opaque; ask again with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A member of a workspace, or a grant below one folder of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Id of the principal.
    pub principal_id: String,
    /// Kind of the principal.
    pub kind: PrincipalKind,
    /// Name of the principal.
    pub name: String,
    /// `/` for the whole workspace, else the folder below which the role holds.
    pub path: String,
    /// The role.
    pub role: Role,
    /// When the server ends the membership by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Added by the workspace's owner (not by people).
    #[serde(default)]
    pub managed: bool,
}

/// Body of `PUT /v1/workspaces/{id}/members/{principalId}?path=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberInput {
    /// The role.
    pub role: Role,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// See [`Member::managed`].
    #[serde(default)]
    pub managed: bool,
}

/// A folder of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Folder {
    /// Opaque id.
    pub id: String,
    /// Path in the workspace, starting with `/`.
    pub path: String,
    /// Classification label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// Metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// People cannot rename, move or delete it.
    #[serde(default)]
    pub locked: bool,
    /// How the owner knows it; absent on folders that people made. It stays when the folder is renamed or moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_key: Option<String>,
    /// Number of files and folders directly in it.
    pub children: u64,
    /// Entity tag.
    pub etag: String,
}

/// Body of `POST /v1/workspaces/{id}/folders`: creates one folder. Its parent must exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewFolder {
    /// Path in the workspace, starting with `/`.
    pub path: String,
    /// Classification label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// Metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// See [`Folder::locked`].
    #[serde(default)]
    pub locked: bool,
    /// See [`Folder::managed_key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_key: Option<String>,
    /// What to do when the path is taken.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// What a create does when the name is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnConflict {
    /// 409 `name-exists` with the existing object.
    #[default]
    Fail,
    /// 200 with the existing object, unchanged (folders).
    Return,
    /// A new version of the existing file (files).
    NewVersion,
    /// A free name is chosen (files).
    Rename,
}

/// Merge patch for a folder or file (`PATCH /v1/items/{id}`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemPatch {
    /// New name in the same folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New parent folder in the same workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// New classification; inner `None` removes it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "double_option")]
    pub classification: Option<Option<String>>,
    /// Metadata to set, or to remove with `None`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Option<String>>,
    /// Lock or unlock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Mark as managed; inner `None` gives it up.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "double_option")]
    pub managed_key: Option<Option<String>>,
}

/// State of an item, enforced on every path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ItemState {
    /// Readable by who has the right.
    Available,
    /// Held back by a scan.
    Quarantined,
    /// Held back by an intake policy until a decision; also when it is quarantined besides.
    Pending,
    /// In the trash, released or not.
    Trashed,
}

/// What kind of item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ItemKind {
    /// A folder.
    Folder,
    /// A file.
    File,
}

/// A folder or a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Opaque id.
    pub id: String,
    /// Its workspace.
    pub workspace_id: String,
    /// Folder or file.
    pub kind: ItemKind,
    /// Its folder; absent for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Name in its folder.
    pub name: String,
    /// Path in the workspace.
    pub path: String,
    /// State.
    pub state: ItemState,
    /// Classification label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// Metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// People cannot rename, move or delete it.
    #[serde(default)]
    pub locked: bool,
    /// See [`Folder::managed_key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_key: Option<String>,
    /// Visible version of a file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Bytes of the visible version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// SHA-256 of the visible version, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Media type of the visible version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Who uploaded the visible version; of a folder, who made it. Kind `Guest` without an `id` is an outsider, whose
    /// address is proven only with `emailVerified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Actor>,
    /// Name of the upload request through which the file arrived. It stays whatever versions follow, because the metadata
    /// that the outsider entered stays too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_request: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub modified_at: Timestamp,
    /// Names of the legal holds on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
    /// Kept at least until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_until: Option<Timestamp>,
    /// A declared record.
    #[serde(default)]
    pub record: bool,
    /// Entity tag.
    pub etag: String,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// Kind of the actor.
    pub kind: PrincipalKind,
    /// Id of the principal; absent for an outsider without an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name, or the e-mail address that an outsider gave.
    pub name: String,
    /// The e-mail address was proven by a mailed code.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub email_verified: bool,
}

/// What an upload request asks for beside the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestField {
    /// Metadata key.
    pub name: String,
    /// Text beside the input.
    pub label: String,
    /// Text or select.
    #[serde(rename = "type")]
    pub kind: FieldKind,
    /// Choices of a select.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Must be filled.
    #[serde(default)]
    pub required: bool,
    /// By option of a select: what the files sent with it must be.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub accept: BTreeMap<String, Accept>,
}

/// Kind of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum FieldKind {
    /// A line of text.
    Text,
    /// One of the options.
    Select,
    /// A calendar date, `YYYY-MM-DD`.
    Date,
}

/// Body of `PUT /v1/workspaces/{id}/upload-requests/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadRequestInput {
    /// Folder that receives the files.
    pub path: String,
    /// The outsider proves an e-mail address by a mailed code first.
    #[serde(default)]
    pub require_email: bool,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What to ask; becomes file metadata.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<RequestField>,
    /// Made by the workspace's owner.
    #[serde(default)]
    pub managed: bool,
}

/// Outsiders upload into one folder without an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadRequest {
    /// Opaque id.
    pub id: String,
    /// Name, unique in the workspace.
    pub name: String,
    /// What was asked for.
    #[serde(flatten)]
    pub input: UploadRequestInput,
    /// What its page tells about required documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checklist: Vec<ChecklistItem>,
    /// The secret address for outsiders; only for callers with the `share` scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Entity tag.
    pub etag: String,
}

/// Body of `POST /v1/items/{id}/links`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewLink {
    /// Who may open it.
    pub audience: Audience,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Password, kept as a salted hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// How often it can be downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downloads: Option<u32>,
    /// Download, not only preview. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<bool>,
    /// For audience `Guests`: the addresses of the guests who may open it, up to 50. Empty: every guest whom the sharing rule lets in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// Made by the workspace's owner.
    #[serde(default)]
    pub managed: bool,
}

/// A share link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Opaque id.
    pub id: String,
    /// What it opens.
    pub item_id: String,
    /// Who may open it.
    pub audience: Audience,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Needs a password.
    pub has_password: bool,
    /// How often it can be downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downloads: Option<u32>,
    /// How often it was.
    pub downloads: u32,
    /// Download, not only preview.
    pub download: bool,
    /// The guests who may open it, in lower case and sorted. Empty: every guest whom the sharing rule lets in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// Made by the workspace's owner.
    #[serde(default)]
    pub managed: bool,
    /// The secret address; only for callers with the `share` scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Entity tag.
    pub etag: String,
}

/// Which side of a workspace or item changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    /// A workspace was made.
    WorkspaceCreated,
    /// Name, classification, metadata, sharing, state or owner changed.
    WorkspaceUpdated,
    /// A workspace went to the trash.
    WorkspaceTrashed,
    /// A workspace came back from the trash.
    WorkspaceRestored,
    /// A workspace ended for good.
    WorkspacePurged,
    /// A member was added or changed.
    MemberSet,
    /// A member was removed or expired.
    MemberRemoved,
    /// A folder was made, changed, moved or deleted.
    FolderChanged,
    /// A share link was made, changed, revoked or expired.
    LinkChanged,
    /// An upload request was made, changed, revoked or expired.
    UploadRequestChanged,
    /// A file arrived.
    FileUploaded,
    /// A file got a new version.
    VersionAdded,
    /// A file was renamed, moved, copied, or its metadata changed.
    FileChanged,
    /// A file was deleted (tombstone with the last known path).
    FileDeleted,
    /// A file came back from the trash.
    FileRestored,
    /// Hold, retention or record status changed.
    GovernanceChanged,
    /// A client changed a facet of a version, and asked for it to be known ([`FacetPut::announce`]).
    FacetChanged,
    /// A principal was made, changed or removed.
    PrincipalChanged,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One entry of the change feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Position: starts at 1, no holes.
    pub sequence: u64,
    /// Unique id of the entry.
    pub id: String,
    /// When.
    pub time: Timestamp,
    /// What.
    #[serde(rename = "type")]
    pub kind: ChangeKind,
    /// Which workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// Its revision after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Which item, principal, link or request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The item that a link opens, the folder of a grant or of an upload request. Of entries about an item, `subject` is it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_id: Option<String>,
    /// Path of that item after the change; of a deleted one the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// File version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Name of the facet that changed. Its content is for the client that keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facet: Option<String>,
    /// Who.
    pub actor: Actor,
    /// The `Caused-By` header of the call, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caused_by: Option<String>,
}

/// A page of the change feed. `next_cursor` is always there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangePage {
    /// Entries in order.
    pub items: Vec<Change>,
    /// Where to go on.
    pub next_cursor: String,
    /// More entries are there now.
    pub has_more: bool,
    /// See [`Service::feed_epoch`].
    pub feed_epoch: String,
}

/// A client-state document (`/v1/client-state/{key}`): a JSON value that one client keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientState {
    /// The content.
    pub value: serde_json::Value,
    /// Entity tag.
    pub etag: String,
}

/// A fence (`/v1/fences/{clusterId}/{consumer}`): the epoch that mutating calls of its consumer must carry at least.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// Only grows.
    pub epoch: u64,
    /// Who holds it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

/// RFC 9457 problem with the contract's members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// URI of the problem type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short title.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Stable code, such as `name-exists`.
    pub code: String,
    /// Which members of the request are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// The object in the way, on 409.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing: Option<serde_json::Value>,
}

/// One wrong member of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// JSON pointer into the body, or a parameter's name.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}
