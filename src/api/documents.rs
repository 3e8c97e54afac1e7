//! Required documents of a SecureWorkspace: what is asked for, and what became of it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::date_time;
pub use crate::file360::model::DocumentState;

/// One document that the workspace must have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredDocument {
    /// Name, unique in this workspace. An option of an upload request's Select field with this name stands for this document.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// What people outside read on the upload page and in mails. Default: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub title: Option<String>,
    /// CEL expression over `workspace` that says whether the document is asked for. What cannot be told counts as asked for. Default: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub required_when: Option<String>,
    /// Which files are meant. A file counts for the first document that takes it.
    #[serde(rename = "match")]
    pub matching: DocumentMatch,
    /// What a file must be. Where an upload request's field names this document, File 360 refuses anything else; elsewhere it is `Rejected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<DocumentAccept>,
    /// How long an approved file counts: `period` with `from`, or `expiresOn`. Default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<DocumentValidity>,
    /// So long before the end of its validity a document is `ExpiringSoon`, as an ISO 8601 period such as `P30D`. Needs `validity`.
    /// Default: P30D.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 32), regex(pattern = r"^P([0-9]{1,4}Y)?([0-9]{1,4}M)?([0-9]{1,4}W)?([0-9]{1,4}D)?$"))]
    pub warn_before: Option<String>,
    /// So long after the end of its validity a document still counts, as an ISO 8601 period such as `P14D`. Needs `validity`. Default: P0D.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 32), regex(pattern = r"^P([0-9]{1,4}Y)?([0-9]{1,4}M)?([0-9]{1,4}W)?([0-9]{1,4}D)?$"))]
    pub grace: Option<String>,
    /// Whether somebody looks at each version before it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<DocumentReview>,
    /// What is done to a file that is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_approved: Option<OnDocumentApproved>,
    /// Times in which the workspace does without the document. The one that ends last counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub waivers: Option<Vec<DocumentWaiver>>,
}

/// Which files are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentMatch {
    /// Which paths: `*` stands for any part of a name, `**` for any folders, such as `/Inbox/**`.
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^\x00-\x1f\x7f]*$"))]
    pub path: String,
    /// CEL expression over `file`, `uploader`, `uploadRequest` and `workspace`. A file without a member that it asks for is not meant.
    /// Default: every file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub when: Option<String>,
}

/// What a file must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentAccept {
    /// Media types, such as `application/pdf` or `image/*`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 127), regex(pattern = r"^[A-Za-z0-9!#$&^_.+-]+/(\*|[A-Za-z0-9!#$&^_.+-]+)$")), extend("x-kubernetes-list-type" = "set"))]
    pub mime_types: Option<Vec<String>>,
    /// Largest size, such as `20Mi`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), regex(pattern = r"^[0-9]{1,12}(Ki|Mi|Gi)?$"))]
    pub max_size: Option<String>,
}

/// How long an approved file counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentValidity {
    /// Calendar period, as ISO 8601, such as `P24M`. Needs `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 32), regex(pattern = r"^P([0-9]{1,4}Y)?([0-9]{1,4}M)?([0-9]{1,4}W)?([0-9]{1,4}D)?$"))]
    pub period: Option<String>,
    /// CEL expression over `file`, `uploader`, `uploadRequest` and `workspace` that gives when the period starts, such as
    /// `file.metadata.issuedOn` or `file.createdAt`. Needs `period`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub from: Option<String>,
    /// CEL expression that gives when the validity ends, such as `file.metadata.expiryDate`. A date counts to the end of that day in
    /// `spec.timeZone`. Excludes `period`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub expires_on: Option<String>,
}

/// Whether somebody looks at each version before it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentReview {
    /// Each version waits `InReview` for a decision. A decision is for one version and its content: a new version waits again, and what was
    /// approved before counts meanwhile. Each has an Approval, on which people vote. Default false: what arrives and fits is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// How many people have to approve; one rejection is enough. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub min_approvals: Option<u32>,
    /// Who uploaded a version cannot approve it, and only voters whom `spec.principals` of the Connection names count. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation_of_duties: Option<bool>,
}

/// What is done to a file that is approved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnDocumentApproved {
    /// Locks the file: people cannot rename, move or delete it. It stays locked. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<bool>,
}

/// A time in which the workspace does without a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentWaiver {
    /// When it ends: a date, which counts to the end of that day in `spec.timeZone`, or an RFC 3339 time.
    #[schemars(
        length(min = 10, max = 40),
        regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})?)?$")
    )]
    pub until: String,
    /// Who grants it.
    #[schemars(length(min = 1, max = 254), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub by: String,
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
}

/// Why a document is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DocumentReason {
    /// It is not what `accept` asks for.
    NotAccepted,
    /// Its validity asks for a date that it lacks.
    DateMissing,
    /// The date of its validity cannot be used.
    DateInvalid,
    /// A reviewer decided against it.
    ReviewRejected,
    /// File 360 holds it back: a scan, or a decision before it is visible.
    HeldBack,
    /// Past the end of its validity, within `grace`.
    InGrace,
    /// An expression gave no answer; the message says which and why.
    ExpressionFailed,
}

/// One required document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequirementStatus {
    /// Its name in the spec.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its state.
    pub state: DocumentState,
    /// Why, where the state alone does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DocumentReason>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// Id of the file that the state is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub file_id: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub version: Option<i64>,
    /// Its path when it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// It is valid before this instant; of a waived document, when the waiver ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub valid_until: Option<Timestamp>,
    /// Who decided, or granted the waiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub decided_by: Option<String>,
    /// In this state since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub since: Option<Timestamp>,
    /// Something newer that does not count (yet), beside what does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
}

/// Something newer that does not count (yet).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// Its state.
    pub state: DocumentState,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DocumentReason>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// Id of the file.
    #[schemars(length(max = 128))]
    pub file_id: String,
    /// Its version.
    #[schemars(range(min = 0))]
    pub version: i64,
}

/// Mails to people outside about documents that they have to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reminders {
    /// Who gets them: e-mail addresses.
    #[schemars(length(min = 1, max = 16), inner(length(min = 3, max = 254), regex(pattern = r"^[^\s@<>\x00-\x1f\x7f]+@[^\s@<>/\\\x00-\x1f\x7f]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub to: Vec<String>,
    /// The upload request whose address the mails carry. Default: the workspace's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub upload_request: Option<String>,
    /// How often they are reminded of the same documents, as an ISO 8601 period such as `P7D`, at least a day. What is newly missing, rejected or
    /// about to expire is told at once. Default: P7D.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 32), regex(pattern = r"^P([0-9]{1,4}Y)?([0-9]{1,4}M)?([0-9]{1,4}W)?([0-9]{1,4}D)?$"))]
    pub every: Option<String>,
    /// Language of the mails. Default: en.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<MailLanguage>,
}

/// Languages of mails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MailLanguage {
    /// English.
    #[default]
    En,
    /// German.
    De,
}

/// The last mails about documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReminderStatus {
    /// How many times the recipients were written to.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// When the last time was.
    #[schemars(schema_with = "date_time")]
    pub last_at: Timestamp,
    /// The documents that it was about, each with its state, such as `iso9001:Missing`.
    #[schemars(length(max = 64), inner(length(max = 80)), extend("x-kubernetes-list-type" = "set"))]
    pub documents: Vec<String>,
}

/// How many required documents there are, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentsStatus {
    /// How many are met of how many that are asked for, such as `7/9`.
    #[schemars(length(max = 16))]
    pub summary: String,
    /// Asked for.
    pub required: u32,
    /// Approved, and not about to expire.
    pub approved: u32,
    /// Missing.
    pub missing: u32,
    /// Expired.
    pub expired: u32,
    /// Still valid, but about to expire.
    pub expiring_soon: u32,
    /// Received or in review.
    pub in_review: u32,
    /// Rejected.
    pub rejected: u32,
    /// Waived.
    pub waived: u32,
    /// The last mails to people outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminder: Option<ReminderStatus>,
    /// Time zone in which dates were read.
    #[schemars(length(max = 64))]
    pub time_zone: String,
    /// Fingerprint of the labels of the SecureWorkspace with which this was computed; tells after a restart whether they changed meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub labels: Option<String>,
    /// State of the workspace's files that this was computed from; tells after a restart whether something happened meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub content_revision: Option<i64>,
}
