//! SecureWorkspaceSet: many workspaces, one for each item of a source system.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::common::{ConnectionRef, conditions, date_time};
use super::file_route::SecretName;
use super::http_target::{HttpAuth, HttpTls, expression_map};

/// Removals that one pass makes without asking, when the spec does not say.
pub const DEFAULT_MAX_REMOVALS: u32 = 10;

/// Many workspaces, generated from a source system.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "file360.io",
    version = "v1alpha1",
    kind = "SecureWorkspaceSet",
    namespaced,
    shortname = "swset",
    category = "file360",
    status = "SecureWorkspaceSetStatus",
    derive = "PartialEq",
    doc = "SecureWorkspaceSet makes one SecureWorkspace for each item of a source system: from a paged HTTP listing, from events, or from a list.",
    selectable = ".spec.connectionRef.name",
    selectable = ".spec.suspend",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Items", type_ = "integer", json_path = ".status.items"),
    printcolumn(name = "ItemsReady", type_ = "integer", json_path = ".status.ready"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
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
        .message("connectionRef is immutable: workspaces do not move between tenants; create another resource"),
    validation = Rule::new("self.generators.all(g, [has(g.http), has(g.events), has(g.list)].filter(x, x).size() == 1)")
        .message("every generator needs exactly one of http, events and list"),
    validation = Rule::new("!has(self.suspendUntil) || (has(self.suspend) && self.suspend)")
        .message("suspendUntil needs suspend: true"),
    validation = Rule::new("!has(self.suspendReason) || (has(self.suspend) && self.suspend)")
        .message("suspendReason needs suspend: true"),
)]
pub struct SecureWorkspaceSetSpec {
    /// The Connection of all generated workspaces. Immutable.
    pub connection_ref: ConnectionRef,
    /// Where items come from. A key that several generators have belongs to the first of them.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub generators: Vec<Generator>,
    /// What is made of each item.
    pub template: Template,
    /// What happens to the workspace of an item that a complete listing does not have any more. `Keep` leaves it. `Archive` deletes the
    /// SecureWorkspace with `deletionPolicy: Archive`, so that the workspace becomes read-only. `Delete` deletes the SecureWorkspace; what becomes
    /// of the workspace is what its own `deletionPolicy` says. Items of an `events` generator never go by absence. Default: Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_item_gone: Option<OnItemGone>,
    /// What happens to the SecureWorkspaces when this resource is deleted. `Orphan` leaves them. `DeleteChildren` deletes them, unless they are
    /// more than `maxRemovals`. Default: Orphan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<OnSetDelete>,
    /// A pass that would remove more SecureWorkspaces than this removes none and says `RemovalBlocked`. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_removals: Option<u32>,
    /// Stops generating: nothing is listed, made, changed or removed, and events are answered with 503 so that their senders keep them. The
    /// workspaces themselves go on. Default false.
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

/// One source of items: exactly one of `http`, `events` and `list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Generator {
    /// Name, unique in this resource. Its items belong to it by this name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// A listing over HTTP, read again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpGenerator>,
    /// Events that a system pushes to the operator's inbound endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsGenerator>,
    /// Items that stand here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<ListGenerator>,
}

/// A listing over HTTP: GET, JSON, page by page. Up to 10,000 items in 1,000 pages of 1 MiB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGenerator {
    /// Where the listing is, such as `https://crm.example.com/api/deals`. Must be https unless the host is in the operator's
    /// `--outbound-allow`. Loopback, link-local and cluster addresses are refused, and redirects are not followed.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#@]+$"))]
    pub url: String,
    /// Query parameters of the first page: names with CEL expressions that give strings, numbers or booleans, such as `"'won'"`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression_map")]
    pub query: Option<BTreeMap<String, String>>,
    /// Headers: names with CEL expressions that give strings. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression_map")]
    pub headers: Option<BTreeMap<String, String>>,
    /// How the operator authenticates. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,
    /// Trust. Default: the public authorities and the operator's CA settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
    /// How long the other side may be silent, as a duration such as `30s`; at most 10m. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,4}(ms|s|m))+$"))]
    pub timeout: Option<String>,
    /// CEL expression over `body` and `response` that gives the list of a page's items, such as `body.records`.
    #[schemars(length(min = 1, max = 4096))]
    pub items: String,
    /// CEL expression over `item` that gives its key: what the item is called at the source, for ever. 1 to 512 characters.
    #[schemars(length(min = 1, max = 4096))]
    pub key: String,
    /// CEL expression over `body` and `response` that gives the address of the next page (an URL, or a path with query), or null or an empty text
    /// after the last one. It must stay on the scheme, host and port of `url`. Default: there is one page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub next: Option<String>,
    /// How often it is read, as a duration of at least `1s`. An unchanged page costs one answer 304 where the source sends `ETag` or
    /// `Last-Modified`. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(ms|s|m|h))+$"))]
    pub every: Option<String>,
}

/// What systems push to `/events/<namespace>/<path>` of the operator's inbound endpoint: CloudEvents or plain JSON, signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventsGenerator {
    /// Last segment of the address; unique in the namespace. Of several sets with it, the oldest gets the events; the others are not ready,
    /// with reason `InvalidSpec`, until it is gone.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub path: String,
    /// Keys that requests are signed with: every key of this Secret counts, so that one can be rotated. At least 24 bytes each.
    pub hmac_ref: SecretName,
    /// CEL condition over `event`; events for which it does not hold are acknowledged and change nothing. Default: all events count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub when: Option<String>,
    /// CEL expression over `event` that gives the item's key, such as `event.data.id`. 1 to 512 characters.
    #[schemars(length(min = 1, max = 4096))]
    pub key: String,
    /// CEL expression over `event` that gives the item. At most 32 KiB of JSON. Default: `event.data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub item: Option<String>,
}

/// Items that stand in the resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListGenerator {
    /// The items: objects with any fields.
    #[schemars(schema_with = "free_objects")]
    pub items: Vec<Value>,
    /// CEL expression over `item` that gives its key, such as `item.id`. 1 to 512 characters.
    #[schemars(length(min = 1, max = 4096))]
    pub key: String,
}

/// What is made of each item. In texts, `${expression}` stands for the result of a CEL expression over `item` and `key`; a text that is
/// one `${expression}` takes the type of the result, and null leaves the field out. `$${` stands for `${`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Labels and annotations of the SecureWorkspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// The spec of the SecureWorkspace, without `connectionRef`. Fields that are CEL expressions themselves are taken as they are.
    #[schemars(schema_with = "free_object")]
    pub spec: Map<String, Value>,
}

/// Labels and annotations. Those of `file360.io`, `kubernetes.io` and `k8s.io` are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels; values may have `${expression}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text_map")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations; values may have `${expression}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text_map")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What happens to the workspace of an item that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnItemGone {
    /// Nothing.
    #[default]
    Keep,
    /// The SecureWorkspace is deleted, and its workspace becomes read-only.
    Archive,
    /// The SecureWorkspace is deleted.
    Delete,
}

/// What happens to the SecureWorkspaces when the set is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnSetDelete {
    /// Nothing.
    #[default]
    Orphan,
    /// They are deleted, too.
    DeleteChildren,
}

/// What the operator generated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecureWorkspaceSetStatus {
    /// The generation of the spec that the last pass ended for; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` is always there after the first pass; the others only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Items that the generators have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub items: Option<u32>,
    /// Items whose SecureWorkspace is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ready: Option<u32>,
    /// Items whose SecureWorkspace could not be made or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failed: Option<u32>,
    /// The first 20 of them, by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub failures: Vec<ItemFailure>,
    /// Keys whose SecureWorkspaces would be removed, while `RemovalBlocked` holds; the first 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub removals: Vec<String>,
    /// What each generator has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub generators: Vec<GeneratorStatus>,
    /// The reconcile request that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_reconcile_at: Option<String>,
}

/// One item that failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    /// Its key; its place in the listing where it has none.
    #[schemars(length(max = 512))]
    pub key: String,
    /// Why.
    #[schemars(length(max = 400))]
    pub message: String,
}

/// One generator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeneratorStatus {
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its items.
    pub items: u32,
    /// Where events are sent to, for `events`; only when the operator knows its public address (`--public-url`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// Why its listing is not complete, while it is not. Then nothing is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 400))]
    pub message: Option<String>,
}

fn free_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 500, "x-kubernetes-list-type": "atomic",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "maxProperties": 64},
    })
}

fn free_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "maxProperties": 32})
}

fn text_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
}
