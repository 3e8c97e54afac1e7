//! Intake, retention, holds, records, the audit feed, mails.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Actor;

/// What an intake policy holds back until a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum GateAction {
    /// New files.
    Upload,
    /// New versions.
    Modify,
    /// Shares with guests.
    ShareExternal,
    /// Links.
    ShareLink,
    /// Deletes.
    Delete,
}

/// The intake policy of a folder. It holds for everything below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intake {
    /// What is held back. Empty: nothing new; what is pending stays so.
    pub actions: Vec<GateAction>,
}

/// How a decision ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Decision {
    /// It takes effect.
    Release,
    /// It never does.
    Reject,
}

/// Body of `POST /v1/items/{id}/decisions`. Exactly one of `version`, `delete`, `link` and `member`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionInput {
    /// A pending version of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// SHA-256 that the version must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The pending delete of the item.
    #[serde(default)]
    pub delete: bool,
    /// A pending link of the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The pending grant of this principal on the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// [`Pending::since`] of what was decided about: what was asked for again since then is refused, 409 `superseded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How it ends.
    pub decision: Decision,
    /// Why; goes into the audit feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who decided, under which rule, when: whatever proves the decision later. It goes into the audit feed in the step in which the decision takes
    /// effect. Up to 32 entries of up to 1,024 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evidence: BTreeMap<String, String>,
}

/// Something that waits for a decision (`GET /v1/pending`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// The workspace.
    pub workspace_id: String,
    /// The item on whose `decisions` it is decided.
    pub item_id: String,
    /// A version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Its deletion.
    #[serde(default)]
    pub delete: bool,
    /// A link to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// A grant on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Who asked for it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Actor>,
    /// When they did, where that is known: asked for again, it is another time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Body and answer of `PUT /v1/items/{id}/quarantine`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// Held back by a scan.
    pub quarantined: bool,
    /// Why; goes into the audit feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How strongly retention binds, the weaker first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RetentionStrength {
    /// A person's delete hides and preserves.
    Governance,
    /// A person's delete is refused.
    Regulatory,
}

/// Retention of a file. Date and strength only ever grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Kept at least until then.
    pub until: Timestamp,
    /// How strongly.
    pub strength: RetentionStrength,
    /// Which policy says so.
    pub policy_id: String,
}

/// Definition of a legal hold (`/v1/holds/{key}`). It stays when its items are released.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hold {
    /// The key; ignored in requests.
    pub key: String,
    /// The matter it belongs to.
    pub matter: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it covers, as the client keeps it; opaque to the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Value>,
    /// Entity tag; ignored in requests.
    pub etag: String,
}

/// An item under a hold (`GET /v1/holds/{key}/items`), ordered by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldItem {
    /// The item. A folder stands for everything below it.
    pub item_id: String,
    /// Its workspace.
    pub workspace_id: String,
    /// Since when.
    pub since: Timestamp,
}

/// Body of `POST /v1/holds/{key}/assignments`: up to 1,000 items; every entry stands for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HoldAssignments {
    /// Items to hold.
    pub apply: Vec<String>,
    /// Items to release.
    pub release: Vec<String>,
    /// Why; goes into the audit feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Record status of a file (`/v1/items/{id}/record`). A declaration is not taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordStatus {
    /// It is a record.
    pub declared: bool,
    /// Class in the records plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// When it was declared; ignored in requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared_at: Option<Timestamp>,
}

/// How an audited call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuditOutcome {
    /// It took effect.
    Success,
    /// It was refused and had no effect.
    Refused,
    /// An outcome that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One event of the audit feed. `hash` is the SHA-256 of the event's canonical JSON (members sorted by name, no blanks)
/// without `hash` itself; `previousHash` is the hash of the event before, 64 zeros for the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// Position: starts at 1, no holes.
    pub sequence: u64,
    /// Unique id.
    pub id: String,
    /// When.
    pub time: Timestamp,
    /// The `operationId` of the call.
    pub action: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// Code of the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Who.
    pub actor: Actor,
    /// The client that called on behalf of the actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Which workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// Which item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_id: Option<String>,
    /// Its path, or the path of a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Version of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Which principal, link, request, hold or key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The `Caused-By` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caused_by: Option<String>,
    /// The call overrode the state it met (`If-Match: *`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// More, by kind of event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// Hash of the event before.
    pub previous_hash: String,
    /// Hash of this event.
    pub hash: String,
}

/// A page of the audit feed. `next_cursor` is always there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    /// Events in order.
    pub items: Vec<AuditEvent>,
    /// Where to go on.
    pub next_cursor: String,
    /// More events are there now.
    pub has_more: bool,
}

/// Body of `POST /v1/notifications`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewNotification {
    /// `workspace-invitation`, `verification-code`, `share-notice`, `reminder`, `document-request` or `document-reminder`.
    pub template: String,
    /// `en` or `de`; any other language falls back to English.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The address.
    pub to: String,
    /// Values for the template: text only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

/// A mail and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Opaque id; also the local part of the mail's `Message-ID`.
    pub id: String,
    /// Which template.
    pub template: String,
    /// Which language.
    pub locale: String,
    /// The address.
    pub to: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// How often that was tried.
    pub attempts: u32,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
