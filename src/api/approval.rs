//! Approval: one decision on one version of one file, one share, or one deletion.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ConnectionRef, conditions, date_time};

/// Votes that one Approval takes.
pub const MOST_VOTES: usize = 32;
/// Late decisions that are kept.
pub const MOST_LATE: usize = 16;

/// One decision on one version of one file, one share, or one deletion.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "file360.io",
    version = "v1alpha1",
    kind = "Approval",
    namespaced,
    shortname = "f3appr",
    category = "file360",
    status = "ApprovalStatus",
    derive = "PartialEq",
    doc = "Approval is one decision on one version of one file, one share, or one deletion. The operator makes it; people and other systems vote.",
    selectable = ".spec.connectionRef.name",
    selectable = ".spec.subject.kind",
    selectable = ".spec.route",
    selectable = ".status.decision",
    printcolumn(name = "Decision", type_ = "string", json_path = ".status.decision"),
    printcolumn(name = "Votes", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "Subject", type_ = "string", json_path = ".spec.subject.kind"),
    printcolumn(name = "File", type_ = "string", json_path = ".spec.subject.path"),
    printcolumn(name = "Requested By", type_ = "string", json_path = ".spec.requestedBy.name"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt"),
    printcolumn(name = "Ticket", type_ = "string", json_path = ".status.ticket.id"),
    printcolumn(name = "Route", type_ = "string", json_path = ".spec.route", priority = 1),
    printcolumn(name = "Workspace", type_ = "string", json_path = ".spec.workspace", priority = 1),
    printcolumn(name = "Rule", type_ = "string", json_path = ".spec.rule", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("an Approval is about one thing: its spec never changes"))]
pub struct ApprovalSpec {
    /// The Connection, that is: the tenant.
    pub connection_ref: ConnectionRef,
    /// What is decided about.
    pub subject: ApprovalSubject,
    /// The FileRoute whose gate asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub route: Option<String>,
    /// The SecureWorkspace that it is in, or whose required document it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub workspace: Option<String>,
    /// The required document that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub requirement: Option<String>,
    /// The rule that asks; for a required document its name.
    #[schemars(length(max = 63))]
    pub rule: String,
    /// SHA-256 over the rule as it was when it asked. Part of the evidence.
    #[schemars(length(max = 64))]
    pub policy_hash: String,
    /// How many people have to approve. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub min_approvals: Option<u32>,
    /// Who brought it cannot approve it, and a voter whom `principals` of the Connection does not name does not count. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation_of_duties: Option<bool>,
    /// Who brought it.
    pub requested_by: Requester,
    /// When the operator asked.
    #[schemars(schema_with = "date_time")]
    pub requested_at: Timestamp,
    /// When it counts as `TimedOut`, if nobody decides. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub expires_at: Option<Timestamp>,
    /// How many seconds after its decision took effect the operator deletes it. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub ttl_after_decision_seconds: Option<u32>,
}

impl ApprovalSpec {
    /// How many people have to approve. Under separation one more when nobody knows who brought it: one of them may have.
    pub fn required(&self) -> u32 {
        self.min_approvals.unwrap_or(1).max(1) + u32::from(self.separates() && !self.requested_by.is_known())
    }

    /// Whether who brought it cannot approve it.
    pub fn separates(&self) -> bool {
        self.separation_of_duties == Some(true)
    }
}

/// What is decided about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalSubject {
    /// What kind of thing.
    pub kind: SubjectKind,
    /// Id of the workspace in File 360.
    #[schemars(length(max = 128))]
    pub workspace_id: String,
    /// Id of the file or folder in File 360.
    #[schemars(length(max = 128))]
    pub file_id: String,
    /// The version. A later one asks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// SHA-256 of that version, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// The share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<SharedThing>,
    /// Since when it waits, in File 360. What is held back or asked for once more is another thing, and is asked about again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub since: Option<Timestamp>,
    /// Of a required document: the date of its validity, as it was written when it was asked for. Another date asks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub date: Option<String>,
    /// Where the file was when it was asked for; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
}

/// Kinds of things that are decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SubjectKind {
    /// A version of a file.
    FileVersion,
    /// A link, or a grant to somebody outside.
    Share,
    /// The deletion of a file or folder.
    Deletion,
    /// The disposal of a file whose retention has ended.
    Disposition,
    /// The release of a legal hold.
    HoldRelease,
    /// Less protection than before: a gate that is taken away, a shorter retention.
    Reduction,
    /// A required document of a workspace.
    Document,
}

/// A share: one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SharedThing {
    /// Id of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub link: Option<String>,
    /// Id of the principal who gets access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub member: Option<String>,
}

/// Who brought what is decided about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// `User`, `Guest`, `Client`; empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub kind: String,
    /// Id in File 360; empty for outsiders without an account.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub id: String,
    /// Name, or the mail address that an outsider gave.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 320))]
    pub name: String,
}

impl Requester {
    /// Whether it says who that is.
    pub fn is_known(&self) -> bool {
        !self.id.trim().is_empty() || !self.name.trim().is_empty()
    }
}

/// What people said and what the operator decided. Everybody but the operator writes at most one entry of `votes`: their own.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(oldSelf.decision) || (has(self.decision) && (self.decision == oldSelf.decision || \
         (self.decision == 'Superseded' && !has(oldSelf.evidence))))"
    )
    .message("a decision is final; until it takes effect, a change of what it is about supersedes it"),
    validation = Rule::new("!has(oldSelf.decidedAt) || (has(self.decidedAt) && self.decidedAt == oldSelf.decidedAt)")
        .message("a decision is final: so is its time"),
)]
pub struct ApprovalStatus {
    /// The generation that the operator has looked at; -1 before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` once it is decided and carried out, `Stalled` while File 360 refuses that; `ApproverUnverified` while votes are ignored because nothing
    /// proves who cast them; `TicketFailed` while the other system cannot be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// One entry for each person or system. People add theirs with `kubectl file360 approve` or `reject`; it cannot be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["by"]))]
    pub votes: Vec<Vote>,
    /// Approvals that count, of those that are needed, such as `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub summary: Option<String>,
    /// What was decided. Final, but that a change of what it is about supersedes it before it takes effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<ApprovalDecision>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub decided_at: Option<Timestamp>,
    /// Who decided, or what made it so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub decided_by: Option<String>,
    /// The reason that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Decisions of other systems that came after the first, which stands; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub late: Vec<LateVote>,
    /// The request in the other system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<TicketStatus>,
    /// What File 360's audit log says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Why File 360 refuses what follows from the decision. Tried again when the thing changes, and once an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub refusal: Option<String>,
}

/// What somebody said. It cannot be changed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a vote cannot be changed"))]
pub struct Vote {
    /// Who: the Kubernetes user name, or the name that another system gave.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
    /// What they said.
    pub decision: VoteDecision,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// When.
    #[schemars(schema_with = "date_time")]
    pub at: Timestamp,
    /// How it came; only the operator sets it. Default: through the Kubernetes API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<VoteVia>,
    /// Id of the message that it came with; the same id is the same decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub id: Option<String>,
}

/// What another system said after the first decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LateVote {
    /// Who.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
    /// What they said.
    pub decision: VoteDecision,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// When.
    #[schemars(schema_with = "date_time")]
    pub at: Timestamp,
    /// Id of the message that it came with.
    #[schemars(length(max = 128))]
    pub id: String,
}

/// What can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum VoteDecision {
    /// It may take effect.
    Approve,
    /// It may not.
    Reject,
}

/// How a vote came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum VoteVia {
    /// By a signed callback.
    Callback,
    /// The operator asked the other system.
    Poll,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalDecision {
    /// It takes effect.
    Approved,
    /// It does not.
    Rejected,
    /// Nobody decided in time: it does not.
    TimedOut,
    /// What it was about changed, or is gone.
    Superseded,
}

/// The request in the other system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TicketStatus {
    /// What the other system calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub id: Option<String>,
    /// Where people find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// When the other system took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub created_at: Option<Timestamp>,
    /// How often it was reminded of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminders: Option<u32>,
    /// When the other system was told how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub closed_at: Option<Timestamp>,
    /// Why the last call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub error: Option<String>,
    /// The system refused that call for good: it is tried again once an hour only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<bool>,
}

/// What File 360's audit log says about a decision: it stays when the Approval and the other system are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// SHA-256 over the evidence as it stands in the audit log.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// When it was recorded there; in the same step the decision took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub recorded_at: Option<Timestamp>,
}
