//! The gate of a rule: what waits for a decision, who is asked, and what follows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file_route::SecretName;
use super::http_target::{HttpMethod, HttpTarget, expression_map};
use crate::file360::model::GateAction;

/// What waits for a decision. File 360 holds it back itself, from its first byte, whether the operator runs or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// What is held back of the files that the rule takes: new files, new versions, shares with guests, links, deletions.
    #[schemars(length(min = 1, max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub actions: Vec<GateAction>,
    /// The system that is asked. Default: none; then people decide with `kubectl file360 approve` or in File 360.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<GateRequest>,
    /// How many people have to approve; one rejection is enough. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub min_approvals: Option<u32>,
    /// Who brought it cannot approve it, and only voters whom `spec.principals` of the Connection names count. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation_of_duties: Option<bool>,
    /// What happens when nobody decides. Default: it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GateTimeout>,
    /// What follows an approval. `Release`: it takes effect; always among them. `LockVersion`: people cannot change the file any more.
    /// Default: Release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub on_approved: Option<Vec<OnApproved>>,
    /// What follows a rejection or a timeout. Default: nothing; the rejected version never becomes visible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_rejected: Option<OnRejected>,
    /// How long an Approval is kept after its decision took effect, such as `30d`; then the operator deletes it. The audit log of File 360 keeps
    /// what was decided. While its ticket cannot be closed it stays. Default: as long as its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = r"^([0-9]{1,5}(s|m|h|d))+$"))]
    pub ttl_after_decision: Option<String>,
}

/// The system that is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateRequest {
    /// The call that asks. Its expressions also see `approval` and `ticket`; without a template it sends a CloudEvent of type
    /// `io.file360.approval.requested`. Every try has the same `Idempotency-Key`.
    pub http: HttpTarget,
    /// CEL expression over `response{status, headers, body}` that gives the ticket's id. Default: `response.body.id`, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub ticket: Option<String>,
    /// CEL expression over the same that gives the ticket's address, for people. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub ticket_url: Option<String>,
    /// How the decision comes. Default: by kubectl or in File 360 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<GateDecision>,
    /// The call that tells the system later events: a reminder, and how it ended, so that it can close its ticket. Default: with CloudEvents the
    /// same call with type `io.file360.approval.reminded` or `io.file360.approval.closed`; with a template none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<GateUpdate>,
}

/// How the decision comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateDecision {
    /// The system calls back, signed: `approval.callbackUrl` says where. docs/inbound.md has the form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<GateCallback>,
    /// The operator asks every so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<GatePoll>,
}

/// A signed callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateCallback {
    /// Keys that callbacks are signed with: every key of this Secret counts, so that one can be rotated. At least 24 bytes each.
    pub hmac_ref: SecretName,
}

/// Asks the system for the state of its ticket: the host, credentials, trust and headers of `http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatePoll {
    /// Path segments below `http.url`, each a CEL expression, such as `ticket.id`.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub path: Vec<String>,
    /// Query parameters: names with CEL expressions. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression_map")]
    pub query: Option<BTreeMap<String, String>>,
    /// How often, from 1s. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(s|m|h))+$"))]
    pub every: Option<String>,
    /// CEL expression over `response{status, headers, body}` that gives `Approved` or `Rejected`; everything else means that it is open.
    #[schemars(length(min = 1, max = 4096))]
    pub state: String,
    /// CEL expression over the same that gives who decided. Default: the host that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub by: Option<String>,
}

/// Tells the system later events: the host, credentials, trust and headers of `http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateUpdate {
    /// HTTP method. Default: that of `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
    /// Path segments below `http.url`, each a CEL expression, such as `ticket.id`. Default: those of `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub path: Option<Vec<String>>,
    /// CEL expression that gives a map or a list, sent as JSON; `approval.event` is `Reminder` or how it ended. Default: a CloudEvent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16_384))]
    pub template: Option<String>,
}

/// What happens when nobody decides. It never approves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateTimeout {
    /// When it is over, such as `5d` or `12h`.
    #[schemars(length(min = 2, max = 16), regex(pattern = r"^([0-9]{1,5}(s|m|h|d))+$"))]
    pub after: String,
    /// How often the system is reminded until then. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = r"^([0-9]{1,5}(s|m|h|d))+$"))]
    pub remind_every: Option<String>,
    /// `Reject` counts as a rejection and tells the system to close its ticket. `Wait` goes on waiting and says so. Default: Reject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<TimeoutThen>,
}

/// What follows a timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TimeoutThen {
    /// It is rejected.
    #[default]
    Reject,
    /// It waits on.
    Wait,
}

/// What follows an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnApproved {
    /// It takes effect.
    Release,
    /// People cannot change the file any more.
    LockVersion,
}

/// What follows a rejection or a timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnRejected {
    /// A new file that is rejected moves to this folder of its workspace, where only those see it who decide.
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^\x00-\x1f\x7f]*$"))]
    pub move_to: String,
}
