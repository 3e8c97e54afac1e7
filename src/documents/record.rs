//! What is kept in File 360 beside a version of a file, as facets that only the operator's client reads and writes.
//!
//! [`Recorded`] is what the operator found. It is written when it changes, before anything else says so; its feed entries are what routes
//! follow, and it keeps what is known of a version that a newer one has hidden. [`Decision`] is what somebody decided about one version and
//! its content. Whoever decides writes it, and nobody changes it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::documents::{DocumentReason, DocumentState};
use crate::api::file_route::FileEvent;

/// Name of the facet with a [`Recorded`].
pub const REQUIREMENT: &str = "requirement";
/// Name of the facet with a [`Decision`].
pub const DECISION: &str = "decision";

/// What was found about one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The requirement that it is for.
    pub name: String,
    /// Its state.
    pub state: DocumentState,
    /// The state before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<DocumentState>,
    /// How often its state changed: tells a state from the same one before it.
    #[serde(default)]
    pub turn: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DocumentReason>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// It is valid before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// The date that its validity was computed from, as it was written then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// When it was first seen.
    pub received_at: Timestamp,
    /// Its content.
    pub sha256: String,
}

impl Recorded {
    /// What routes hear about it: the event, and what tells this event from every other about the version. The same state for the same time is
    /// the same event, however often it is told; the same state again, after another one, is another.
    pub fn tells(&self) -> Option<(FileEvent, String)> {
        let event = FileEvent::of_document(self.state, self.was)?;
        let until = self.valid_until.map(|until| format!("/{until}")).unwrap_or_default();
        Some((event, format!("document/{}/{event:?}/{}{until}", self.name, self.turn)))
    }

    /// It counted once.
    pub fn was_approved(&self) -> bool {
        matches!(self.state, DocumentState::Approved | DocumentState::ExpiringSoon | DocumentState::Expired)
    }
}

/// Which way a decision went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// For it.
    Approved,
    /// Against it.
    Rejected,
}

/// What somebody decided about one version and its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The requirement that it was decided for. For another one, it says nothing.
    pub requirement: String,
    /// Which way.
    pub outcome: Outcome,
    /// Who.
    pub by: String,
    /// Why. Of a rejection, whoever sent the document reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The content that was decided about. Of other content, it says nothing.
    pub sha256: String,
    /// The date of its validity that was decided about, as it was written then. What is written there afterwards does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The Approval that decided it, with its policy: `namespace/name sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
}

/// The content of a facet; `None`: it is not one of these.
pub fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}
