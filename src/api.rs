//! The custom resources of group `file360.io`, version `v1alpha1`.

pub mod admission;
pub mod approval;
pub mod common;
pub mod connection;
pub mod crds;
pub mod documents;
pub mod file_route;
pub mod gate;
pub mod http_target;
pub mod places;
pub mod rbac;
pub mod report;
pub mod secure_workspace;
pub mod secure_workspace_set;

pub use approval::{Approval, ApprovalSpec, ApprovalStatus};
pub use connection::{Connection, ConnectionSpec, ConnectionStatus};
pub use file_route::{FileRoute, FileRouteSpec, FileRouteStatus};
pub use secure_workspace::{SecureWorkspace, SecureWorkspaceSpec, SecureWorkspaceStatus};
pub use secure_workspace_set::{SecureWorkspaceSet, SecureWorkspaceSetSpec, SecureWorkspaceSetStatus};

/// API group of all kinds.
pub const GROUP: &str = "file360.io";
/// Served version of all kinds.
pub const VERSION: &str = "v1alpha1";
/// Finalizer of every kind.
pub const FINALIZER: &str = "file360.io/finalizer";
/// A new value runs the resource now; it returns in `status.lastHandledReconcileAt`.
pub const REQUESTED_AT: &str = "reconcile.file360.io/requestedAt";
/// A new value tries the dead letters of a FileRoute again.
pub const REPLAY_AT: &str = "replay.file360.io/requestedAt";
/// A new value counts both ends of a FileRoute; with `redeliver` after it, copies that are gone are delivered again.
pub const INVENTORY_AT: &str = "inventory.file360.io/requestedAt";
/// Gives the workspace up: its mark is released, and the same namespace and name on another cluster may take it up.
pub const HANDOVER: &str = "file360.io/handover";
/// Label of a generated SecureWorkspace: which SecureWorkspaceSet of its namespace generates it.
pub const SET_LABEL: &str = "file360.io/set";
/// Annotation of a generated SecureWorkspace: the key of its item.
pub const SET_ITEM: &str = "file360.io/set-item";
/// Annotation of a generated SecureWorkspace: kind and name of the generator that has its item.
pub const SET_GENERATOR: &str = "file360.io/set-generator";
/// Annotation of a generated SecureWorkspace: fingerprint of what was applied.
pub const SET_APPLIED: &str = "file360.io/set-applied";
/// Annotation of a SecureWorkspace that an event made: fingerprint of the template that it was made with.
pub const SET_TEMPLATE: &str = "file360.io/set-template";
/// Annotation of a SecureWorkspace that an event made: the item.
pub const SET_DATA: &str = "file360.io/set-data";
/// Annotation of a SecureWorkspace that an event made or changed: fingerprints of the latest events.
pub const SET_EVENTS: &str = "file360.io/set-events";
/// Confirms `deletionPolicy: Delete`; its value is the workspace id.
pub const CONFIRM_DELETE: &str = "file360.io/confirm-delete";
