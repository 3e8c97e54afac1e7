//! Reports: what a workspace tells other systems about itself.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::date_time;
use super::http_target::HttpTarget;

/// Another system that is told what happens to the workspace: a CRM, an ERP, a ticketing system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportSpec {
    /// Name, unique in this workspace. A report under a new name starts with `Provisioned`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// The call that tells one event. Its expressions see `event`, `workspace`, `file`, `access`, `share`, `documents` and `missed`
    /// (docs/reports.md); without a template it sends a CloudEvents 1.0 event.
    pub http: HttpTarget,
    /// What is told. Default: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 11), extend("x-kubernetes-list-type" = "set"))]
    pub events: Option<Vec<ReportEvent>>,
}

/// What a report tells. `EventsMissed`, which tells that older events gave way because there were too many, is always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ReportEvent {
    /// The workspace is as declared for the first time, or the report is new: id, address and business key.
    Provisioned,
    /// The state of a required document changed.
    DocumentsChanged,
    /// A member or grant was added, changed or removed, by whomever.
    AccessChanged,
    /// A file or a new version arrived and is visible, or came back from the trash.
    FileUploaded,
    /// A file was renamed, moved, copied, or its metadata changed.
    FileChanged,
    /// A file was deleted.
    FileDeleted,
    /// A share link was made or changed.
    FileShared,
    /// A share link was revoked or expired.
    ShareEnded,
    /// The resource was deleted with `deletionPolicy: Archive`.
    Archived,
    /// The resource was deleted with `deletionPolicy: Delete`: the workspace is in the trash.
    Deleted,
    /// The resource was deleted with `deletionPolicy: Retain`: the workspace stays, nobody manages it.
    Released,
}

impl ReportEvent {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Provisioned,
        Self::DocumentsChanged,
        Self::AccessChanged,
        Self::FileUploaded,
        Self::FileChanged,
        Self::FileDeleted,
        Self::FileShared,
        Self::ShareEnded,
        Self::Archived,
        Self::Deleted,
        Self::Released,
    ];

    /// Type of its CloudEvents.
    pub fn cloud_type(self) -> &'static str {
        match self {
            Self::Provisioned => "io.file360.workspace.provisioned",
            Self::DocumentsChanged => "io.file360.workspace.documentschanged",
            Self::AccessChanged => "io.file360.workspace.accesschanged",
            Self::FileUploaded => "io.file360.file.uploaded",
            Self::FileChanged => "io.file360.file.changed",
            Self::FileDeleted => "io.file360.file.deleted",
            Self::FileShared => "io.file360.file.shared",
            Self::ShareEnded => "io.file360.file.shareended",
            Self::Archived => "io.file360.workspace.archived",
            Self::Deleted => "io.file360.workspace.deleted",
            Self::Released => "io.file360.workspace.released",
        }
    }

    /// A bit of its own, for sets of events.
    pub fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// How far one report is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportStatus {
    /// The report.
    #[schemars(length(max = 63))]
    pub name: String,
    /// When the other system last acknowledged an event. Written at most once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub last_delivered_at: Option<Timestamp>,
    /// Events that wait to be told.
    pub pending: u32,
    /// Why the last try failed; absent once one succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub last_error: Option<String>,
}
