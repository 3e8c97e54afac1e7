//! Required documents, as outsiders see them.

use serde::{Deserialize, Serialize};

use super::Accept;

/// State of a required document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DocumentState {
    /// Nothing is there.
    Missing,
    /// Something is there that cannot be read yet, because it is quarantined or held back.
    Received,
    /// Waits for a decision.
    InReview,
    /// Counts.
    Approved,
    /// Counts, but not for long.
    ExpiringSoon,
    /// Does not count any more.
    Expired,
    /// Was refused.
    Rejected,
    /// Not there, and not asked for until a waiver ends.
    Waived,
    /// Not asked for.
    NotApplicable,
}

impl DocumentState {
    /// All states, in the order in which they are counted and shown.
    pub const ALL: [Self; 9] = [
        Self::Missing,
        Self::Received,
        Self::InReview,
        Self::Approved,
        Self::ExpiringSoon,
        Self::Expired,
        Self::Rejected,
        Self::Waived,
        Self::NotApplicable,
    ];
}

/// Body of `PUT /v1/workspaces/{id}/upload-requests/{name}/checklist`: what the page of an upload request tells about required documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Checklist {
    /// The documents, in the order in which they are shown; at most 64.
    pub items: Vec<ChecklistItem>,
}

/// One required document on the page of an upload request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChecklistItem {
    /// Name; unique in the list.
    pub name: String,
    /// What people read.
    pub title: String,
    /// Its state.
    pub state: DocumentState,
    /// The last day on which it counts, where it is asked for; of a waived one, the last day without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<String>,
    /// Why it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Something newer waits for a decision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewal: bool,
    /// What a file must be.
    #[serde(default)]
    pub accept: Accept,
}
