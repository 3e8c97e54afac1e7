//! SecureWorkspace: one workspace.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ConnectionRef, conditions, date_time, metadata_map};
use super::documents::{DocumentsStatus, Reminders, RequiredDocument, RequirementStatus};
use super::report::{ReportSpec, ReportStatus};
use crate::file360::feature::Feature;
use crate::file360::model::{Audience, ExternalSharing, FieldKind, Role};

/// Removals that one pass makes without asking, when the spec does not say.
pub const DEFAULT_MAX_REMOVALS: u32 = 10;

/// One secure workspace: folders, access, sharing rules, upload requests, required documents.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "file360.io",
    version = "v1alpha1",
    kind = "SecureWorkspace",
    namespaced,
    shortname = "sws",
    category = "file360",
    status = "SecureWorkspaceStatus",
    derive = "PartialEq",
    doc = "SecureWorkspace is one workspace in File 360: its folders, who has access, what may be shared, how outsiders upload, and which documents it must have.",
    selectable = ".spec.connectionRef.name",
    selectable = ".spec.suspend",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Internal", type_ = "integer", json_path = ".status.access.internal"),
    printcolumn(name = "External", type_ = "integer", json_path = ".status.access.external"),
    printcolumn(name = "Docs", type_ = "string", json_path = ".status.documents.summary"),
    printcolumn(name = "Drift", type_ = "integer", json_path = ".status.drift.count"),
    printcolumn(name = "Workspace", type_ = "string", json_path = ".status.workspaceId", priority = 1),
    printcolumn(name = "Connection", type_ = "string", json_path = ".spec.connectionRef.name", priority = 1),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.connectionRef == oldSelf.connectionRef")
        .message("connectionRef is immutable: a workspace does not move between tenants; create another resource"),
    validation = Rule::new("has(self.externalRef) == has(oldSelf.externalRef) && (!has(self.externalRef) || self.externalRef == oldSelf.externalRef)")
        .message("externalRef is immutable: it is the key under which the workspace is found again; create another resource"),
    validation = Rule::new("has(self.workspaceId) == has(oldSelf.workspaceId) && (!has(self.workspaceId) || self.workspaceId == oldSelf.workspaceId)")
        .message("workspaceId is immutable; create another resource"),
    validation = Rule::new("!has(self.workspaceId) || (has(self.adoption) && self.adoption == 'AdoptOnly')")
        .message("workspaceId needs adoption: AdoptOnly"),
    validation = Rule::new("!has(self.externalRef) || self.externalRef.system != 'k8s'")
        .message("externalRef.system k8s is reserved for workspaces without an externalRef"),
    validation = Rule::new("!has(self.metadata) || self.metadata.all(key, key.size() > 0 && key.size() <= 63)")
        .message("metadata keys must have 1 to 63 characters"),
    validation = Rule::new("!has(self.workspaceId) || !has(self.externalRef)")
        .message("workspaceId and externalRef exclude each other: one workspace is found by one of them"),
    validation = Rule::new("!has(self.approvedPlan) || (has(self.mode) && self.mode == 'Approve')")
        .message("approvedPlan needs mode: Approve"),
    validation = Rule::new("!has(self.deleteGrace) || (has(self.deletionPolicy) && self.deletionPolicy == 'Delete')")
        .message("deleteGrace needs deletionPolicy: Delete"),
    validation = Rule::new("!has(self.suspendUntil) || (has(self.suspend) && self.suspend)")
        .message("suspendUntil needs suspend: true"),
    validation = Rule::new("!has(self.suspendReason) || (has(self.suspend) && self.suspend)")
        .message("suspendReason needs suspend: true"),
    validation = Rule::new("!has(self.sharing) || !has(self.sharing.allowedDomains) || self.sharing.external == 'AllowListed'")
        .message("sharing.allowedDomains needs sharing.external: AllowListed"),
    validation = Rule::new("!has(self.sharing) || self.sharing.external != 'AllowListed' || (has(self.sharing.allowedDomains) && self.sharing.allowedDomains.size() > 0)")
        .message("sharing.external: AllowListed needs at least one entry in sharing.allowedDomains"),
    validation = Rule::new("!has(self.requiredDocuments) || self.requiredDocuments.all(d, !has(d.validity) || has(d.validity.period) != has(d.validity.expiresOn))")
        .message("requiredDocuments: validity needs exactly one of period and expiresOn"),
    validation = Rule::new("!has(self.requiredDocuments) || self.requiredDocuments.all(d, !has(d.validity) || has(d.validity.period) == has(d.validity.from))")
        .message("requiredDocuments: validity.period and validity.from go together: the period starts there"),
    validation = Rule::new("!has(self.requiredDocuments) || self.requiredDocuments.all(d, has(d.validity) || (!has(d.warnBefore) && !has(d.grace)))")
        .message("requiredDocuments: warnBefore and grace need validity"),
    validation = Rule::new("!has(self.reminders) || has(self.requiredDocuments)")
        .message("reminders need requiredDocuments"),
    validation = Rule::new("!has(self.reminders) || !has(self.reminders.uploadRequest) || (has(self.uploadRequests) && self.uploadRequests.exists(r, r.name == self.reminders.uploadRequest))")
        .message("reminders.uploadRequest names no upload request of this workspace"),
)]
pub struct SecureWorkspaceSpec {
    /// The Connection, that is: the tenant. Immutable.
    pub connection_ref: ConnectionRef,
    /// Name for people, shown in File 360.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub display_name: String,
    /// Business key in the system the workspace stands for. The workspace is created and found again under it, so it
    /// survives lost clusters and restored backups. Default: system `k8s` with cluster id, namespace and name. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_ref: Option<ExternalRef>,
    /// Id of an existing workspace without a business key; needs `adoption: AdoptOnly`. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._~-]+$"))]
    pub workspace_id: Option<String>,
    /// Classification label. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub classification: Option<String>,
    /// Metadata of the workspace: up to 64 entries of 1,024 characters. Other entries, which people set, are left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "metadata_map")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// `Apply` makes File 360 match. `Plan` writes `status.plan` and changes nothing. `Approve` applies only the plan whose
    /// hash stands in `approvedPlan`. Default: Apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Hash of the plan (`status.plan.hash`) that may be applied, for `mode: Approve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[0-9a-f]+$"))]
    pub approved_plan: Option<String>,
    /// What to do when the workspace already exists and nobody manages it. `CreateOnly` refuses. `AdoptOrCreate` takes it up
    /// or creates it. `AdoptOnly` never creates. Default: CreateOnly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,
    /// What happens to the workspace when this resource is deleted. `Retain` keeps content and internal access. `Archive`
    /// makes it read-only. `Delete` moves it to the trash for `deleteGrace`, and only with the annotation
    /// `file360.io/confirm-delete: <workspaceId>`. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// How long a deleted workspace stays in the trash, as an ISO 8601 period such as `P30D`. Re-creating the resource within
    /// it brings the workspace back. At most 3650 days. Default: P30D.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 32), regex(pattern = r"^P([0-9]{1,4}Y)?([0-9]{1,4}M)?([0-9]{1,4}W)?([0-9]{1,4}D)?$"))]
    pub delete_grace: Option<String>,
    /// What happens to outsiders' access when this resource is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<OnDelete>,
    /// What to do about changes that others make in File 360.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// A pass that would remove more members, grants, folders and upload requests than this stops with the condition
    /// `RemovalBlocked`. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_removals: Option<u32>,
    /// Folders. Parents are made as needed. A folder that is no longer declared is removed when it is empty, else kept and reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub folders: Option<Vec<FolderSpec>>,
    /// Who has access to the whole workspace. Default: whatever is there stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// What may be shared with whom. Default: closed to the outside when the workspace is made, then left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// Ways for outsiders to upload without an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub upload_requests: Option<Vec<UploadRequestSpec>>,
    /// Other systems that are told what happens to the workspace, such as the one that it was made for. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub report: Option<Vec<ReportSpec>>,
    /// Documents that the workspace must have. The condition `DocumentsComplete` says whether all are there, `status.requirements` what
    /// became of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub required_documents: Option<Vec<RequiredDocument>>,
    /// Mails to people outside about required documents that they have to send: an invitation, and reminders. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminders: Option<Reminders>,
    /// Time zone (IANA) in which dates of documents count and periods are calendar periods, such as `Europe/Berlin`. Default: the
    /// Connection's, then UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"))]
    pub time_zone: Option<String>,
    /// Stops all changes; observing goes on, deletion still runs. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Why it is suspended; shown in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub suspend_reason: Option<String>,
    /// When the suspension ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub suspend_until: Option<Timestamp>,
}

/// Business key: which object of which system the workspace stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRef {
    /// The system, such as `s4` or `salesforce`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub system: String,
    /// The type of object there, such as `vendor`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub kind: String,
    /// The object's id there.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub id: String,
}

/// Whether changes are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// File 360 is made to match.
    #[default]
    Apply,
    /// Only planned.
    Plan,
    /// Planned, and applied once approved.
    Approve,
}

/// What to do with a workspace that exists already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Adoption {
    /// Refuse it.
    #[default]
    CreateOnly,
    /// Take it up, or create it.
    AdoptOrCreate,
    /// Take it up, never create.
    AdoptOnly,
}

/// What happens to the workspace when its resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Content and internal access stay.
    #[default]
    Retain,
    /// Read-only.
    Archive,
    /// To the trash.
    Delete,
}

/// What happens besides when the resource is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnDelete {
    /// Guests, share links and upload requests: `Revoke` ends them first, `Keep` leaves them. Default: Revoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalOnDelete>,
}

/// Outsiders' access when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExternalOnDelete {
    /// Ended.
    #[default]
    Revoke,
    /// Left as it is.
    Keep,
}

/// What to do about changes that others make in File 360, by aspect. An absent aspect follows `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// For aspects that are not named. Default: Correct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<DriftPolicy>,
    /// Members and grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<DriftPolicy>,
    /// Folders, their locks, metadata and classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folders: Option<DriftPolicy>,
    /// Name, classification and metadata of the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<DriftPolicy>,
    /// Sharing rule and upload requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<DriftPolicy>,
}

/// What to do about a change that somebody else made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// Put it right.
    #[default]
    Correct,
    /// Report it in `status.drift` and leave it.
    Warn,
    /// Leave it.
    Ignore,
}

/// One folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FolderSpec {
    /// Path in the workspace, such as `/Contracts/Signed`.
    #[schemars(
        length(min = 2, max = 1024),
        regex(
            pattern = r"^(/([^/.\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*|\.[^/.\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*|\.\.[^/\\\x00-\x1f\x7f]+))+$"
        )
    )]
    pub path: String,
    /// Classification label. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub classification: Option<String>,
    /// Metadata of the folder. Other entries are left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "metadata_map")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// People cannot rename, move or delete the folder. Default: not locked when the folder is made, then left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Grants below this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub members: Option<Vec<MemberSpec>>,
}

/// Who has access.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// `Exclusive` removes whoever is not declared. `Additive` never removes what it did not add. Default: Exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AccessMode>,
    /// The members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub members: Option<Vec<MemberSpec>>,
}

/// How the declared members relate to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// They are all there is.
    #[default]
    Exclusive,
    /// Others may be there too.
    Additive,
}

/// One member or grant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberSpec {
    /// User or Group of the organisation, or Guest.
    pub kind: MemberKind,
    /// User name, group name, or the guest's e-mail address.
    #[schemars(length(min = 1, max = 254), regex(pattern = r"^[^\s\x00-\x1f\x7f/\\]+( [^\s\x00-\x1f\x7f/\\]+)*$"))]
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// When the access ends by itself, in File 360.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub expires_at: Option<Timestamp>,
    /// Why; kept in File 360 with the membership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub reason: Option<String>,
}

/// Kinds of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum MemberKind {
    /// A person of the organisation.
    User,
    /// A group of the organisation.
    Group,
    /// An outsider, by e-mail address; invited by File 360.
    Guest,
}

/// What may be shared with whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sharing {
    /// Which outsiders may get access.
    pub external: ExternalSharing,
    /// Domains for `AllowListed`: exact, or `*.example.com` for every subdomain. Compared as A-labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255), regex(pattern = r"^(\*\.)?[^\s*@/\\]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_domains: Option<Vec<String>>,
    /// Guests may share further. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reshare: Option<bool>,
    /// Limits for share links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<LinkLimits>,
}

/// Limits for share links.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkLimits {
    /// Widest audience. Default: Members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_audience: Option<Audience>,
    /// Longest life in days. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub max_days: Option<u32>,
    /// Links need a password. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_required: Option<bool>,
    /// Links may download, not only preview. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<bool>,
}

/// A way for outsiders to upload into one folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadRequestSpec {
    /// Name, unique in this workspace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// Folder that receives the files; must be declared in `folders` or exist.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[^\\\x00-\x1f\x7f]*$"))]
    pub path: String,
    /// The outsider proves an e-mail address by a mailed code before the first upload. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_email: Option<bool>,
    /// When it ends by itself, in File 360.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub expires_at: Option<Timestamp>,
    /// What to ask beside the file; the answers become file metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub fields: Option<Vec<UploadField>>,
    /// A Secret of this namespace, owned by this resource, that receives the address under the key `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_url_to: Option<WriteUrlTo>,
}

/// One question beside the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadField {
    /// Metadata key.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Text beside the input. Default: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub label: Option<String>,
    /// Kind of input. Default: Text.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FieldKind>,
    /// Choices of a Select.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)), extend("x-kubernetes-list-type" = "set"))]
    pub options: Option<Vec<String>>,
    /// Must be filled. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

/// Where the address of an upload request is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriteUrlTo {
    /// Name of the Secret. It is made and owned by this resource; an existing Secret of another owner is not touched.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub secret_name: String,
}

/// What the operator knows about the workspace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecureWorkspaceStatus {
    /// The generation of the spec that the last pass ended for; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` is always there after the first pass; the others only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Id of the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub workspace_id: Option<String>,
    /// Where people open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// Revision of the workspace that the last pass left or found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub revision: Option<i64>,
    /// Fingerprints of what was last applied, by aspect; they tell a change of the spec from a change in File 360.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// What would be done, for `mode: Plan` and `mode: Approve`, or when a pass is blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// Changes that others made and that stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStatus>,
    /// How many have access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessStatus>,
    /// How many required documents there are, by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<DocumentsStatus>,
    /// What became of each required document, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub requirements: Vec<RequirementStatus>,
    /// What the driver of the Connection cannot honour. It takes no part in the plan, and the resource is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["field"]))]
    pub unsupported: Vec<UnsupportedField>,
    /// How far each report is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub reports: Vec<ReportStatus>,
    /// Secrets that this resource wrote addresses of upload requests to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub secrets: Vec<String>,
    /// When the clock alone will change the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub next_change_at: Option<Timestamp>,
    /// The reconcile request that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_reconcile_at: Option<String>,
}

/// Fingerprints of what was last applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Of members and grants.
    #[schemars(length(max = 32))]
    pub access: String,
    /// Of folders.
    #[schemars(length(max = 32))]
    pub folders: String,
    /// Of name, classification and metadata.
    #[schemars(length(max = 32))]
    pub metadata: String,
    /// Of sharing rule and upload requests.
    #[schemars(length(max = 32))]
    pub sharing: String,
}

/// What would be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// Identifies exactly this plan; goes into `spec.approvedPlan`.
    #[schemars(length(max = 64))]
    pub hash: String,
    /// Things to create.
    pub create: u32,
    /// Things to change.
    pub update: u32,
    /// Things to remove.
    pub remove: u32,
    /// The steps in order, one line each; the first 50.
    #[schemars(length(max = 50), inner(length(max = 1200)), extend("x-kubernetes-list-type" = "atomic"))]
    pub actions: Vec<String>,
    /// More steps exist than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Changes that others made and that stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// How many.
    pub count: u32,
    /// The first 20.
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub items: Vec<DriftItem>,
    /// More exist than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// One change that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftItem {
    /// What, such as `access/Guest/bob@acme.com` or `folders/Inbox`.
    #[schemars(length(max = 1400))]
    pub path: String,
    /// What is declared; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1200))]
    pub want: Option<String>,
    /// What is there; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1200))]
    pub have: Option<String>,
    /// Who changed it, if the feed said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub by: Option<String>,
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub since: Option<Timestamp>,
}

/// How many have access.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessStatus {
    /// Users and groups, each counted once.
    pub internal: u32,
    /// Guests, each counted once.
    pub external: u32,
    /// Memberships that end within seven days.
    pub expiring_in7_days: u32,
}

/// A field of the spec that the driver cannot honour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnsupportedField {
    /// The field, such as `spec.access.members`.
    #[schemars(length(max = 253))]
    pub field: String,
    /// The feature that it asks for; `status.enforcement` of the Connection says how far it is there.
    pub feature: Feature,
}
