//! The custom resources of group `file360.io`, version `v1alpha1`.

pub mod admission;
pub mod approval;
pub mod common;
pub mod connection;
pub mod crds;
pub mod file_route;
pub mod gate;
pub mod http_target;
pub mod places;
pub mod rbac;
pub mod secure_workspace;

pub use approval::{Approval, ApprovalSpec, ApprovalStatus};
pub use connection::{Connection, ConnectionSpec, ConnectionStatus};
pub use file_route::{FileRoute, FileRouteSpec, FileRouteStatus};
pub use secure_workspace::{SecureWorkspace, SecureWorkspaceSpec, SecureWorkspaceStatus};

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
/// Confirms `deletionPolicy: Delete`; its value is the workspace id.
pub const CONFIRM_DELETE: &str = "file360.io/confirm-delete";
