//! What a driver does about each thing that a manifest can ask for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{Capability, Service};

/// Something that a manifest can ask for, or that the operator builds on. The order is the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Feature {
    /// Workspaces that are found again by their business key.
    Workspaces,
    /// A mark that says which resource manages a workspace, and keeps others from taking it.
    Ownership,
    /// Folders.
    Folders,
    /// Files, streamed in and out.
    Files,
    /// Changes that apply only to what the writer has seen.
    Conditions,
    /// Ids of items that stay when the item is renamed or moved.
    ItemIds,
    /// SHA-256 of content that is stored.
    Digests,
    /// Versions of a file.
    Versions,
    /// Members of workspaces and grants on folders.
    Members,
    /// Sharing rules and share links.
    Sharing,
    /// Upload requests for people without an account.
    UploadRequests,
    /// Classification labels.
    Classification,
    /// Metadata on workspaces, folders and files.
    Metadata,
    /// Folders that people cannot rename, move or delete.
    FolderLocks,
    /// Workspaces that are kept but read-only.
    Archive,
    /// Trash with restore.
    Trash,
    /// Changes of others are known within about a second.
    Changes,
    /// A feed of audit events.
    Audit,
    /// Client-state documents: where routes and exports keep their position.
    ClientState,
    /// Operator-only facets on file versions: where routes keep their deliveries.
    Facets,
    /// Late writes of a former leader are refused.
    Fencing,
    /// What arrives waits for a decision.
    Intake,
    /// Retention.
    Retention,
    /// Legal holds.
    Holds,
    /// Records.
    Records,
    /// Mails to people outside.
    Notifications,
}

/// How far a feature is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// The other side enforces it.
    Native,
    /// The operator makes up for it, with the limits that docs/drivers.md states.
    Compensating,
    /// The operator sees and reports it, but cannot enforce it.
    ObserveOnly,
    /// It is not there. What asks for it is refused and named.
    Unsupported,
}

impl Feature {
    /// All features, in their order.
    pub const ALL: [Self; 26] = [
        Self::Workspaces,
        Self::Ownership,
        Self::Folders,
        Self::Files,
        Self::Conditions,
        Self::ItemIds,
        Self::Digests,
        Self::Versions,
        Self::Members,
        Self::Sharing,
        Self::UploadRequests,
        Self::Classification,
        Self::Metadata,
        Self::FolderLocks,
        Self::Archive,
        Self::Trash,
        Self::Changes,
        Self::Audit,
        Self::ClientState,
        Self::Facets,
        Self::Fencing,
        Self::Intake,
        Self::Retention,
        Self::Holds,
        Self::Records,
        Self::Notifications,
    ];

    /// The capability of the connector contract that stands for it; `None`: every server of the contract has it.
    fn capability(self) -> Option<Capability> {
        match self {
            Self::Workspaces => Some(Capability::BusinessKeys),
            Self::Members => Some(Capability::Members),
            Self::Sharing => Some(Capability::Sharing),
            Self::UploadRequests => Some(Capability::UploadRequests),
            Self::Metadata => Some(Capability::Metadata),
            Self::Trash => Some(Capability::Trash),
            Self::Changes => Some(Capability::Changes),
            Self::Audit => Some(Capability::Audit),
            Self::ClientState => Some(Capability::ClientState),
            Self::Facets => Some(Capability::Facets),
            Self::Fencing => Some(Capability::Fencing),
            Self::Intake => Some(Capability::Intake),
            Self::Retention => Some(Capability::Retention),
            Self::Holds => Some(Capability::Holds),
            Self::Records => Some(Capability::Records),
            Self::Notifications => Some(Capability::Notifications),
            Self::Ownership
            | Self::Folders
            | Self::Files
            | Self::Conditions
            | Self::ItemIds
            | Self::Digests
            | Self::Versions
            | Self::Classification
            | Self::FolderLocks
            | Self::Archive => None,
        }
    }
}

/// A level for every feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforcement(BTreeMap<Feature, Level>);

impl Enforcement {
    /// What `level` says of each feature.
    pub fn of(level: impl Fn(Feature) -> Level) -> Self {
        Self(Feature::ALL.into_iter().map(|feature| (feature, level(feature))).collect())
    }

    /// What a server of the connector contract enforces, as its service document says.
    pub fn of_connector(service: &Service) -> Self {
        Self::of(|feature| match feature.capability() {
            Some(capability) if !service.capabilities.contains(&capability) => Level::Unsupported,
            _ => Level::Native,
        })
    }

    /// How far a feature is there.
    pub fn level(&self, feature: Feature) -> Level {
        self.0.get(&feature).copied().unwrap_or(Level::Unsupported)
    }

    /// Whether what asks for a feature is carried out.
    pub fn has(&self, feature: Feature) -> bool {
        matches!(self.level(feature), Level::Native | Level::Compensating)
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Feature, Level)> {
        self.0.iter().map(|(feature, level)| (*feature, *level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_features_is_complete_and_in_order() {
        assert!(Feature::ALL.is_sorted());
        let last = Feature::Notifications;
        assert_eq!(Feature::ALL.len(), last as usize + 1);
        assert_eq!(Feature::ALL.last(), Some(&last));
    }
}
