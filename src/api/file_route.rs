//! FileRoute: files from one place, by rules, to others.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::{ConnectionRef, LabelSelector, SecretKeyRef, conditions, date_time, is_default};
use super::documents::DocumentState;
use super::gate::Gate;
use super::http_target::{HttpTarget, expression_map};
use super::places::{Broker, ObjectStore, SearchIndex};
use crate::file360::model::Audience;

/// Files from one place, by rules, to others.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "file360.io",
    version = "v1alpha1",
    kind = "FileRoute",
    namespaced,
    shortname = "froute",
    category = "file360",
    status = "FileRouteStatus",
    derive = "PartialEq",
    doc = "FileRoute moves files and what is known about them: from workspaces, object stores or an HTTP endpoint, by rules, to destinations.",
    selectable = ".spec.connectionRef.name",
    selectable = ".spec.suspend",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Delivered", type_ = "integer", json_path = ".status.counts.delivered"),
    printcolumn(name = "Unmatched", type_ = "integer", json_path = ".status.counts.unmatched"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(name = "Awaiting", type_ = "integer", json_path = ".status.counts.awaitingApproval"),
    printcolumn(name = "Unaccounted", type_ = "integer", json_path = ".status.inventory.unaccounted", priority = 1),
    printcolumn(name = "Connection", type_ = "string", json_path = ".spec.connectionRef.name", priority = 1),
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
        .message("connectionRef is immutable: a route does not move between tenants; create another resource"),
    validation = Rule::new("[has(self.from.workspaces), has(self.from.objectStore), has(self.from.http)].filter(x, x).size() == 1")
        .message("from needs exactly one of workspaces, objectStore and http"),
    validation = Rule::new("[has(self.unmatched.ignore), has(self.unmatched.moveTo), has(self.unmatched.to)].filter(x, x).size() == 1")
        .message("unmatched needs exactly one of ignore, moveTo and to"),
    validation = Rule::new("!has(self.unmatched.moveTo) || !has(self.from.objectStore)")
        .message("unmatched.moveTo moves files within File 360; with from.objectStore use ignore or to"),
    validation = Rule::new("!has(self.from.workspaces) || has(self.from.workspaces.names) || has(self.from.workspaces.selector) || has(self.from.workspaces.ids)")
        .message("from.workspaces needs names, selector or ids; an empty selector ({}) means all declared in the namespace"),
    validation = Rule::new("!has(self.lookback) || (has(self.mode) && self.mode == 'DryRun')")
        .message("lookback needs mode: DryRun"),
    validation = Rule::new("!has(self.delivery) || !has(self.delivery.deadLetter) || !has(self.from.objectStore)")
        .message("delivery.deadLetter.moveTo moves files within File 360; from.objectStore leaves a failed object where it is"),
    validation = Rule::new("!has(self.from.objectStore) || !self.rules.exists(r, has(r.gate))")
        .message("gate holds back what arrives in File 360; objects of a store do not arrive there"),
    validation = Rule::new("!self.rules.exists(r, has(r.gate)) || !has(self.mode) || self.mode != 'DryRun'")
        .message("gate does not go with mode: DryRun, which touches nothing"),
    validation = Rule::new("self.rules.all(r, !has(r.gate) || !has(r.gate.onApproved) || 'Release' in r.gate.onApproved)")
        .message("gate.onApproved needs Release: what is approved takes effect"),
    validation = Rule::new("!has(self.suspendUntil) || (has(self.suspend) && self.suspend)")
        .message("suspendUntil needs suspend: true"),
    validation = Rule::new("!has(self.suspendReason) || (has(self.suspend) && self.suspend)")
        .message("suspendReason needs suspend: true"),
)]
pub struct FileRouteSpec {
    /// The Connection, that is: the tenant. Immutable.
    pub connection_ref: ConnectionRef,
    /// Where files come from: exactly one source.
    pub from: Source,
    /// Rules in order; the first that matches takes the file.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub rules: Vec<RouteRule>,
    /// What becomes of files that no rule matches: exactly one of `ignore`, `moveTo` and `to`.
    pub unmatched: Unmatched,
    /// Retries, limits, dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// How often both ends are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// Examples that must route as they say. They run offline in `file360-operator check` and on every generation; a failing one stops the
    /// route with reason `TestsFailed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tests: Option<Vec<RouteTest>>,
    /// `Apply` delivers. `DryRun` reports what would be routed where and touches nothing. Default: Apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RouteMode>,
    /// For `mode: DryRun`: how far back files count, as an ISO 8601 period such as `P7D`. Default: P7D.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 32), regex(pattern = r"^P([0-9]{1,4}Y)?([0-9]{1,4}M)?([0-9]{1,4}W)?([0-9]{1,4}D)?$"))]
    pub lookback: Option<String>,
    /// Stops taking files up; what arrives meanwhile is taken up afterwards. Default false.
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

/// Exactly one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Files in workspaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspaces: Option<WorkspaceSource>,
    /// Objects of a bucket or folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStoreSource>,
    /// What systems push to the operator's ingest endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
}

/// Files in workspaces. `names`, `selector` and `ids` add up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceSource {
    /// SecureWorkspaces of this namespace by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub names: Option<Vec<String>>,
    /// SecureWorkspaces of this namespace by label. An empty selector matches all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Workspaces of the tenant by id. Needs a grant with `scope: Tenant`, or the Connection's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub ids: Option<Vec<String>>,
    /// Which paths: `*` stands for any part of a name, `**` for any folders, such as `/Inbox/**`. Default: `/**`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^\x00-\x1f\x7f]*$"))]
    pub path: Option<String>,
    /// What makes the route look at a file. Default: Uploaded, VersionAdded. `index` destinations follow every change of a file and of who may
    /// read it, whatever stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub events: Option<Vec<FileEvent>>,
}

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum FileEvent {
    /// A file arrived, or became visible by a release, a restore or a move into the path.
    Uploaded,
    /// A version was added.
    VersionAdded,
    /// Its metadata, classification or name changed.
    MetadataChanged,
    /// A share link to it was made or changed.
    Shared,
    /// It counts now for a required document of its SecureWorkspace; expressions see `requirement`.
    DocumentApproved,
    /// It was rejected for one.
    DocumentRejected,
    /// It does not count any more for one.
    DocumentExpired,
}

impl FileEvent {
    /// The event of a required document that comes into this state from another one.
    pub fn of_document(state: DocumentState, was: Option<DocumentState>) -> Option<Self> {
        match state {
            DocumentState::Approved => Some(Self::DocumentApproved),
            // It was approved so late that it expires soon; otherwise its approval was told before.
            DocumentState::ExpiringSoon if was != Some(DocumentState::Approved) => Some(Self::DocumentApproved),
            DocumentState::Rejected => Some(Self::DocumentRejected),
            DocumentState::Expired => Some(Self::DocumentExpired),
            _ => None,
        }
    }

    /// Whether it is about a required document.
    pub fn is_about_a_document(self) -> bool {
        matches!(self, Self::DocumentApproved | Self::DocumentRejected | Self::DocumentExpired)
    }
}

/// Objects of a bucket or folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStoreSource {
    /// Which store.
    #[serde(flatten)]
    pub store: ObjectStore,
    /// Only keys that start with this. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefix: Option<String>,
    /// An object is taken up once it has not changed for this long. Default: 30s; 0s for S3, whose objects appear whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(ms|s|m|h))+$"))]
    pub settle: Option<String>,
    /// How often the store is listed. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(ms|s|m|h))+$"))]
    pub every: Option<String>,
    /// Where an object's metadata comes from. Default: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ObjectMetadata>,
}

/// Where an object's metadata comes from. Later ones win: tags, sidecar, key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMetadata {
    /// User-defined metadata of the object (`x-amz-meta-*`). S3 only. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<bool>,
    /// Key of a JSON document beside the object: `{key}` stands for the object's key, `{stem}` for the key without its extension. The object waits
    /// for its sidecar. Sidecars themselves are not routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 256))]
    pub sidecar: Option<String>,
    /// Regular expression over the key (RE2 syntax); its named groups become metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub from_key: Option<String>,
}

/// What systems push to `/ingest/<namespace>/<path>` of the operator's inbound endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpSource {
    /// Last segment of the address; unique in the namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub path: String,
    /// Keys that requests are signed with: every key of this Secret counts, so that one can be rotated. At least 24 bytes each.
    pub hmac_ref: SecretName,
    /// Where the files are committed before the sender gets its answer.
    pub inbox: Inbox,
    /// Largest body, such as `100Mi`. Default: 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]{1,12}(Ki|Mi|Gi)?$"))]
    pub max_size: Option<String>,
}

/// Names a Secret in the namespace of the resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A folder of a workspace that receives what is pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Inbox {
    /// A SecureWorkspace of this namespace.
    pub workspace_ref: WorkspaceRef,
    /// The folder. It must exist.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[^\x00-\x1f\x7f]*$"))]
    pub path: String,
}

/// Names a SecureWorkspace of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceRef {
    /// Name of the SecureWorkspace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// Name, unique in the route; recorded with each delivery.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// CEL expression that says whether the rule takes the file (docs/kinds/fileroute.md has the variables). Default: every file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub when: Option<String>,
    /// Metadata to set on the file: names with CEL expressions that give strings. Set before delivery; destinations see it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression_map")]
    pub set: Option<BTreeMap<String, String>>,
    /// What of the files that the rule takes waits for a decision. The route's whole path is gated in File 360 before the route is Ready; what no
    /// gate is meant for is let through as soon as the operator has seen it. Taking the gate away opens nothing. Default: nothing waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// Where the file goes: to each of them.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub to: Vec<DestinationSpec>,
}

/// One destination: exactly one of `file360`, `objectStore`, `http`, `broker` and `index`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["file360"]}, {"required": ["objectStore", "key"]}, {"required": ["http"]}, {"required": ["broker"]}, {"required": ["index"]}
]))]
pub struct DestinationSpec {
    /// Name, unique in the rule; part of each delivery's idempotency key.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// A workspace of the same tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file360: Option<File360Destination>,
    /// A bucket or folder; needs `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStore>,
    /// For `objectStore`: CEL expression that gives the object's key. Names are made safe for the store; no key leaves its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub key: Option<String>,
    /// Another system's HTTP API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTarget>,
    /// For `http`: `Content` sends the file itself, `Reference` a short-lived download address, `Metadata` neither. Default: Metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<Send>,
    /// For `send: Reference`: how long the address works, such as `15m`; at most 24h. Default: 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(s|m|h))+$"))]
    pub reference_for: Option<String>,
    /// For `http`: metadata to set on the file from the answer: names with CEL expressions over `response{status, headers, body}`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression_map")]
    pub write_back: Option<BTreeMap<String, String>>,
    /// A message broker. The message is a CloudEvents 1.0 event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<Broker>,
    /// A search index. It never gets content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<SearchIndex>,
}

/// What an HTTP destination gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Send {
    /// The file itself.
    Content,
    /// An address to fetch it from.
    Reference,
    /// What is known about it.
    #[default]
    Metadata,
}

/// A folder of a workspace of the same tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct File360Destination {
    /// A SecureWorkspace of this namespace: a name, or a CEL expression that gives one.
    pub workspace_ref: WorkspaceChoice,
    /// CEL expression that gives the folder, such as `'/Invoices/' + file.metadata.year`. Folders are made as needed.
    #[schemars(length(min = 1, max = 4096))]
    pub path: String,
    /// CEL expression that gives the name of the file there. Default: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub file_name: Option<String>,
    /// What happens when the name is taken. Default: NewVersionIfChanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<PublishConflict>,
    /// Metadata of the file there: names with CEL expressions that give strings. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression_map")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Shares the file. Default: it is not shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// A SecureWorkspace of this namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [{"required": ["name"]}, {"required": ["nameFrom"]}]))]
pub struct WorkspaceChoice {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// CEL expression that gives its name. Refused where it depends on what an outsider without a verified address entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub name_from: Option<String>,
}

/// What happens when the name is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PublishConflict {
    /// A new version, unless the content is the same.
    #[default]
    NewVersionIfChanged,
    /// A new version.
    NewVersion,
    /// A free name.
    Rename,
    /// The delivery fails.
    Fail,
}

/// How a published file is shared. It stays within the workspace's sharing rule and the Connection's ceiling; what exceeds them is refused, and so
/// is a share whose recipients, or whose rule, depend on what an outsider without a verified address entered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Who may open the link.
    pub audience: Audience,
    /// CEL expression that gives a list of e-mail addresses; each gets a notice with `notify`. For `audience: Guests` they are who may open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub recipients: Option<String>,
    /// When the link ends, as an ISO 8601 period after the delivery such as `P30D`. Default: the workspace's longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 32), regex(pattern = r"^P([0-9]{1,4}Y)?([0-9]{1,4}M)?([0-9]{1,4}W)?([0-9]{1,4}D)?$"))]
    pub expires_after: Option<String>,
    /// Where the password is kept. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_ref: Option<SecretKeyRef>,
    /// How often it can be downloaded. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_downloads: Option<u32>,
    /// File 360 mails the address of the link to the recipients. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<bool>,
    /// Language of the notice: `en` or `de`. Default: en.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 8))]
    pub locale: Option<String>,
}

/// What becomes of files that no rule matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unmatched {
    /// They stay where they are; counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<Nothing>,
    /// They move to this folder of their workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^\x00-\x1f\x7f]*$"))]
    pub move_to: Option<String>,
    /// They go to these destinations, under the rule name `unmatched`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub to: Option<Vec<DestinationSpec>>,
}

/// Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("maxProperties" = 0))]
pub struct Nothing {}

/// Retries, limits, dead letters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// How often a failed delivery is tried again before it becomes a dead letter. Failures that another try cannot change become one at once.
    /// Default: 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub retries: Option<u32>,
    /// Waits between tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Files that are transferred at once, by the leader or by all workers together. Default: 32, of which 8 may be larger than 1 MiB if content is sent; with
    /// workers, what `--queue-open` says, and 8 of these in each worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<u32>,
    /// Bytes a second that this route reads, such as `20Mi`; with workers, each of them. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]{1,12}(Ki|Mi|Gi)?$"))]
    pub bandwidth: Option<String>,
    /// What happens to the source file of a dead letter. Default: it stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
}

/// Waits between tries: doubling, with jitter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// The first wait. Default: 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(ms|s|m|h))+$"))]
    pub initial: Option<String>,
    /// The longest wait. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(ms|s|m|h))+$"))]
    pub max: Option<String>,
}

/// What happens to the source file of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// It moves to this folder of its workspace.
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^\x00-\x1f\x7f]*$"))]
    pub move_to: String,
}

/// An example file and the rule that must take it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteTest {
    /// Name, unique in the route.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Variables of the expressions, as far as they matter: `file`, `uploader`, `uploadRequest`, `folder`, `workspace`, `event`. What is left out of
    /// `file` has an example value.
    #[schemars(schema_with = "given")]
    pub given: Value,
    /// Name of the rule that must take it; `unmatched` when none may.
    #[schemars(length(min = 1, max = 63))]
    pub expect_rule: String,
    /// Metadata that the rule's `set` must give. Default: not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::common::metadata_map")]
    pub expect_set: Option<BTreeMap<String, String>>,
}

fn given(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "maxProperties": 16})
}

/// Every so often the operator lists the source, its own records and each destination that can be listed, and compares them: files without a
/// record are taken up, search indexes are brought up to date, and copies that are gone are reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// How often, from `10s` to `8760h`. Default: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(s|m|h))+$"))]
    pub every: Option<String>,
    /// Names of destinations whose files are taken away by whoever they are for, such as a drop folder: what is gone there is not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub ignore_missing: Option<Vec<String>>,
}

/// Whether files are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteMode {
    /// They are.
    #[default]
    Apply,
    /// Only what would happen is reported.
    DryRun,
}

/// What the operator did and found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileRouteStatus {
    /// The generation of the spec that the last pass ended for; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`; `Reconciling` and `Stalled` only while true; `Backlogged` while files wait; `DeadLetters` while there are some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Totals since the route was made; written when something else changes or once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<RouteCounts>,
    /// How many files each rule took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 65), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub rules: Vec<RuleCount>,
    /// Where the source is read on after a restart. Opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub checkpoint: Option<String>,
    /// Deliveries that were given up, the latest first; at most 20. `kubectl file360 replay` tries them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub dead_letters: Vec<DeadLetterStatus>,
    /// What the last inventory found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<InventoryStatus>,
    /// For `mode: DryRun`: what would happen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<DryRunStatus>,
    /// Where systems push files, for `from.http`: a path below the operator's public address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub ingest_url: Option<String>,
    /// The reconcile request that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_reconcile_at: Option<String>,
}

/// Totals of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteCounts {
    /// Files and versions that were looked at.
    pub seen: u64,
    /// Deliveries that a destination acknowledged.
    pub delivered: u64,
    /// Files that no rule matched.
    pub unmatched: u64,
    /// Deliveries that were given up.
    pub failed: u64,
    /// Deliveries that turned out to be there already.
    pub duplicates: u64,
    /// What is held back until a decision; absent: nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub awaiting_approval: u64,
    /// Bytes of content that were delivered.
    pub bytes: u64,
}

/// How many files a rule took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleCount {
    /// The rule.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Files it took.
    pub matched: u64,
}

/// A delivery that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterStatus {
    /// Path or key of the file.
    #[schemars(length(max = 1024))]
    pub file: String,
    /// Its version, or the object's entity tag.
    #[schemars(length(max = 128))]
    pub version: String,
    /// The rule that took it.
    #[schemars(length(max = 63))]
    pub rule: String,
    /// The destination.
    #[schemars(length(max = 63))]
    pub destination: String,
    /// Why.
    #[schemars(length(max = 512))]
    pub error: String,
    /// When.
    #[schemars(schema_with = "date_time")]
    pub at: Timestamp,
}

/// What an inventory found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryStatus {
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub last_at: Option<Timestamp>,
    /// The request that it answered, from the annotation `inventory.file360.io/requestedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub requested: Option<String>,
    /// Files of the source.
    pub files: u64,
    /// Of these, those that every destination acknowledged.
    pub delivered: u64,
    /// Of these, those that no rule took.
    pub unmatched: u64,
    /// Of these, those that are on their way or wait for another try.
    pub waiting: u64,
    /// Of these, those that were given up.
    pub dead_lettered: u64,
    /// Files that nothing was known about, which have been taken up now, and acknowledged copies that are gone. 0: every file is accounted for.
    pub unaccounted: u64,
    /// The destinations that copies were looked for in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub destinations: Vec<InventoryDestination>,
    /// What was found, as examples; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub findings: Vec<InventoryFinding>,
    /// Why a later one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub last_error: Option<String>,
}

/// A destination in an inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryDestination {
    /// `rule/destination`.
    #[schemars(length(max = 127))]
    pub name: String,
    /// Whether what is there was compared.
    pub state: InventoryState,
    /// Acknowledged copies that are not there.
    pub missing: u64,
    /// Entries of a search index for files that are gone; they are removed.
    pub surplus: u64,
}

/// Whether what is at a destination was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InventoryState {
    /// It was listed.
    #[default]
    Compared,
    /// It cannot be listed, or has more than a million names: its acknowledgements count.
    Acknowledged,
    /// It could not be listed this time: its acknowledgements count.
    Unreachable,
}

/// One thing that an inventory found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryFinding {
    /// Path or key of the file.
    #[schemars(length(max = 1024))]
    pub file: String,
    /// What was found.
    pub found: Finding,
    /// Where, as `rule/destination`; empty for the source.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 127))]
    pub destination: String,
}

/// What an inventory can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Finding {
    /// Nothing was recorded of the file. It is taken up.
    NotRouted,
    /// The copy was acknowledged and is not there. A search index gets it again; elsewhere `kubectl file360 inventory --redeliver` does that.
    Missing,
    /// A search index had an entry for a file that is gone. It is removed.
    Surplus,
}

/// What a dry run found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRunStatus {
    /// A sentence such as `of 412 files of the last 7 days, 9 would change route, 1 would be unmatched`.
    #[schemars(length(max = 512))]
    pub summary: String,
    /// Files that were looked at.
    pub files: u64,
    /// Files that another rule would take than the one that is recorded.
    pub would_change: u64,
    /// Files that no rule would take.
    pub would_be_unmatched: u64,
    /// Some of the files that would change; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub examples: Vec<DryRunExample>,
}

/// One file of a dry run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRunExample {
    /// Path or key of the file.
    #[schemars(length(max = 1024))]
    pub file: String,
    /// The rule that is recorded; empty: none.
    #[schemars(length(max = 63))]
    pub from: String,
    /// The rule that would take it; `unmatched`: none.
    #[schemars(length(max = 63))]
    pub to: String,
}
