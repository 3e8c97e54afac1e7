//! Connection: one File 360 tenant.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{LabelSelector, SecretKeyRef, conditions, date_time};
use crate::file360::feature::{Feature, Level};
use crate::file360::model::{Audience, ExternalSharing};

/// One File 360 tenant: where it is, who may use it and how.
///
/// The operator keeps one session for each Connection, shared by every resource that names it: one token, one rate limit,
/// one reader of the change feed.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "file360.io",
    version = "v1alpha1",
    kind = "Connection",
    namespaced,
    shortname = "f3c",
    category = "file360",
    status = "ConnectionStatus",
    derive = "PartialEq",
    doc = "Connection is one File 360 tenant: where it is, how to authenticate, and which namespaces may use it.",
    selectable = ".spec.suspend",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Product", type_ = "string", json_path = ".status.server.product"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint"),
    printcolumn(name = "Feed", type_ = "string", json_path = ".status.feed.state"),
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
    validation = Rule::new("self.endpoint.startsWith('https://') || (has(self.allowInsecure) && self.allowInsecure)")
        .message("endpoint must use https; set allowInsecure: true only for a test server on plain http"),
    validation = Rule::new("[has(self.auth.oauth2), has(self.auth.token), has(self.auth.basic)].filter(given, given).size() == 1")
        .message("auth needs exactly one of oauth2, token and basic"),
    validation = Rule::new("!has(self.auth.basic) || (has(self.driver) && self.driver == 'WebDAV')")
        .message("auth.basic goes with driver: WebDAV"),
    validation = Rule::new("!has(self.sharing) || !has(self.driver) || self.driver != 'WebDAV'")
        .message("sharing: WebDAV has no sharing that could have a ceiling"),
    validation = Rule::new("(has(self.driver) ? self.driver : 'Connector') == (has(oldSelf.driver) ? oldSelf.driver : 'Connector')")
        .message("driver is immutable: another driver is another tenant"),
    validation = Rule::new("!has(self.suspendUntil) || (has(self.suspend) && self.suspend)")
        .message("suspendUntil needs suspend: true"),
    validation = Rule::new("!has(self.suspendReason) || (has(self.suspend) && self.suspend)")
        .message("suspendReason needs suspend: true"),
    validation = Rule::new("!has(self.grants) || self.grants.all(g, g.namespaces.from != 'Selector' || has(g.namespaces.selector))")
        .message("grants: namespaces.from: Selector needs namespaces.selector"),
    validation = Rule::new("!has(self.grants) || self.grants.all(g, g.namespaces.from == 'Selector' || !has(g.namespaces.selector))")
        .message("grants: namespaces.selector goes with from: Selector only"),
)]
pub struct ConnectionSpec {
    /// How the tenant is spoken to. `Connector`: the connector contract, with everything that this project can do.
    /// `WebDAV`: folders and files only (RFC 4918); what else a manifest asks for is named in its status as `Unsupported`.
    /// `status.enforcement` says what is there. Default: Connector. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// Base URL of the File 360 connector endpoint, such as `https://file360.example.com`; with `driver: WebDAV`, the URL of
    /// the collection that holds the workspaces. Must be https (see `allowInsecure`). The Secret with the credential names
    /// the same URL under the key `endpoint`: a credential goes nowhere else.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[A-Za-z0-9\[\]._~%:-]+(/[A-Za-z0-9._~%/-]*)?$"))]
    pub endpoint: String,
    /// Allows `http://` endpoints. For test servers only: credentials travel in clear text. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// How the operator authenticates. Exactly one of `oauth2`, `token` and `basic`.
    pub auth: Auth,
    /// Trust and client certificate. Default: the operator's CA settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Upper limits for the operator's calls. Default: what the server's service document says, else no rate limit and 64 in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Which other namespaces may use this Connection, and for what. Default: none; its own namespace always may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub grants: Option<Vec<Grant>>,
    /// Time zone (IANA) of workspaces that name none: dates of required documents count there. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"))]
    pub time_zone: Option<String>,
    /// A ceiling that no workspace's sharing rule can exceed. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<SharingCeiling>,
    /// Who is who, for approvals: under separation of duties a voter who is not here does not count. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["username"]))]
    pub principals: Option<Vec<PrincipalMapping>>,
    /// Stops every call of the operator to this tenant; dependants keep what they have. Default false.
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

/// Who somebody is in File 360.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalMapping {
    /// The name that the Kubernetes API server knows them by, or the one that another system gives with its decision.
    #[schemars(length(min = 1, max = 256))]
    pub username: String,
    /// Their user name or id in File 360.
    #[schemars(length(min = 1, max = 256))]
    pub file360: String,
}

/// How a tenant is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Driver {
    /// The connector contract.
    #[default]
    Connector,
    /// WebDAV: folders and files only.
    #[serde(rename = "WebDAV")]
    WebDav,
}

impl std::fmt::Display for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connector => "Connector",
            Self::WebDav => "WebDAV",
        })
    }
}

impl ConnectionSpec {
    /// The driver, with its default.
    pub fn driver(&self) -> Driver {
        self.driver.unwrap_or_default()
    }
}

/// Exactly one way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// OAuth2 client credentials (RFC 6749 section 4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2>,
    /// A fixed bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<BearerToken>,
    /// A user name and a password (RFC 7617); goes with `driver: WebDAV`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
}

/// A user name and a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Basic {
    /// Where the user name is kept.
    pub username_ref: SecretKeyRef,
    /// Where the password is kept. The same Secret must have the key `endpoint` with this Connection's endpoint.
    pub password_ref: SecretKeyRef,
}

/// OAuth2 client credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OAuth2 {
    /// Where the client id is kept.
    pub client_id_ref: SecretKeyRef,
    /// Where the client secret is kept. The same Secret must have the key `endpoint` with this Connection's endpoint.
    pub client_secret_ref: SecretKeyRef,
    /// Token endpoint. Default: `/oauth2/token` below the endpoint. On another origin the Secret must name it under `tokenUrl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#@]+$"))]
    pub token_url: Option<String>,
    /// Scopes to ask for. Default: read, write, share, govern, audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub scopes: Option<Vec<String>>,
}

/// A fixed bearer token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BearerToken {
    /// Where the token is kept. The same Secret must have the key `endpoint` with this Connection's endpoint.
    pub secret_ref: SecretKeyRef,
}

/// Trust and client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// PEM bundle of the authorities to trust, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// A `kubernetes.io/tls` Secret with the client certificate (`tls.crt`, `tls.key`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_ref: Option<ClientCertRef>,
}

/// A PEM bundle in a ConfigMap or Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// ConfigMap or Secret.
    pub kind: CaKind,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Where a CA bundle is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// A TLS Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Upper limits for the operator's calls to this tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_second: Option<u32>,
    /// Requests in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: Option<u32>,
    /// Bytes of content a second that all FileRoutes of this Connection read together, such as `100Mi`; with workers, in each of them. A route's own
    /// `delivery.bandwidth` counts besides. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]{0,11}(Ki|Mi|Gi)?$"))]
    pub bandwidth: Option<String>,
}

/// Lets other namespaces use this Connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Which namespaces.
    pub namespaces: GrantNamespaces,
    /// For which kinds. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub kinds: Option<Vec<GrantKind>>,
    /// `Declared`: only workspaces that a resource of the namespace declares. `Tenant`: also workspaces that nobody declares
    /// (adoption by `workspaceId`). Default: Declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<GrantScope>,
    /// Systems whose business keys (`externalRef.system`) the namespace may claim. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub external_systems: Option<Vec<String>>,
}

/// Which namespaces a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantNamespaces {
    /// `All` namespaces, or those that the `selector` matches by their labels.
    pub from: NamespacesFrom,
    /// Labels of the namespaces, for `from: Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// How a grant names namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NamespacesFrom {
    /// Every namespace.
    All,
    /// Namespaces with matching labels.
    Selector,
}

/// Kinds that a grant can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GrantKind {
    /// SecureWorkspace.
    SecureWorkspace,
    /// FileRoute.
    FileRoute,
    /// SecureWorkspaceSet. What it generates needs SecureWorkspace, too.
    SecureWorkspaceSet,
}

/// How far a grant reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GrantScope {
    /// Workspaces declared in the namespace.
    #[default]
    Declared,
    /// Every workspace of the tenant.
    Tenant,
}

/// What no workspace's sharing rule can exceed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SharingCeiling {
    /// The widest sharing that a workspace may declare.
    pub max: MaxSharing,
}

/// The widest sharing that a workspace may declare. What is absent has no ceiling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxSharing {
    /// Widest `sharing.external`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalSharing>,
    /// Domains that `sharing.allowedDomains` may name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_domains: Option<Vec<String>>,
    /// Whether guests may share further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reshare: Option<bool>,
    /// Widest audience of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_audience: Option<Audience>,
    /// Longest life of a link, in days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub link_days: Option<u32>,
}

/// What the operator knows about the tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStatus {
    /// The generation of the spec that the last pass ended for; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`; `Reconciling` and `Stalled` only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// What the server says about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerInfo>,
    /// What the server can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// What the driver does about each feature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["feature"]))]
    pub enforcement: Vec<FeatureLevel>,
    /// The reader of the change feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<FeedStatus>,
    /// Gates that no route declares any more, at most 20: they stay closed until a route declares them again, or their Approval is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub orphaned_gates: Vec<OrphanedGate>,
    /// The reconcile request that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_reconcile_at: Option<String>,
}

/// A gate that no route declares any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrphanedGate {
    /// The route that declared it, as `namespace/name`.
    #[schemars(length(max = 317))]
    pub route: String,
    /// Id of the workspace in File 360.
    #[schemars(length(max = 128))]
    pub workspace_id: String,
    /// The folder that stays gated.
    #[schemars(length(max = 1024))]
    pub path: String,
    /// The Approval, in the namespace of the route, that takes the gate away; empty while it cannot be made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub approval: String,
}

/// How far one feature is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeatureLevel {
    /// What a manifest can ask for, or the operator builds on.
    pub feature: Feature,
    /// `Native`: the server enforces it. `Compensating`: the operator makes up for it. `ObserveOnly`: the operator sees and
    /// reports it. `Unsupported`: it is not there.
    pub level: Level,
}

/// What the server says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// Product name.
    #[schemars(length(max = 253))]
    pub product: String,
    /// Product version.
    #[schemars(length(max = 253))]
    pub version: String,
    /// Version of the connector contract; with `driver: WebDAV`, the compliance classes that the server names.
    #[schemars(length(max = 63))]
    pub contract: String,
    /// Changes when the feed's history was replaced, for example by a restored backup. Empty: there is no feed.
    #[schemars(length(max = 253))]
    pub feed_epoch: String,
}

/// State of the change-feed reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedStatus {
    /// Connected, Interrupted or Polled.
    pub state: FeedState,
}

/// State of the change-feed reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FeedState {
    /// Changes arrive within about a second.
    Connected,
    /// Changes are found by listings only, until the feed answers again.
    Interrupted,
    /// The server has no feed: changes are found by looking, every `--observe-interval`.
    Polled,
}
