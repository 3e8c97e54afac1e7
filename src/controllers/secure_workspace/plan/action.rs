//! One step of a plan: what it does, and how people read it.

use std::fmt;

use crate::controllers::secure_workspace::desired::MemberKey;
use crate::file360::model::{
    ItemPatch, MemberInput, NewFolder, NewWorkspace, PrincipalKind, Role, UploadRequestInput, WorkspacePatch,
};

/// Which part of a workspace a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aspect {
    /// The workspace itself: existence, ownership, state.
    Workspace,
    /// Members and grants.
    Access,
    /// Folders.
    Folders,
    /// Name, classification, metadata.
    Metadata,
    /// Sharing rule and upload requests.
    Sharing,
}

/// Where a difference comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The spec changed since it was last applied.
    Spec,
    /// Somebody changed File 360.
    Drift,
}

/// One step. Run twice it has the effect of running it once.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the workspace with its own properties; the mark is added when it is made.
    Create(Box<NewWorkspace>),
    /// Bring it back from the trash.
    Restore,
    /// Write the ownership mark.
    TakeOwnership,
    /// Make an archived workspace active again.
    Activate,
    /// Change name, classification, metadata or sharing rule.
    Patch {
        /// What changes.
        patch: WorkspacePatch,
        /// For people: what changes, without values.
        what: String,
    },
    /// Make a folder.
    CreateFolder(NewFolder),
    /// Put a renamed or moved folder back.
    MoveFolder {
        /// Its id.
        id: String,
        /// Where it is.
        from: String,
        /// Where it belongs.
        to: String,
    },
    /// Change a folder's properties.
    PatchFolder {
        /// Its id.
        id: String,
        /// Where it is after the moves before.
        path: String,
        /// What changes.
        patch: ItemPatch,
        /// Nothing but the mark changes.
        mark_only: bool,
    },
    /// Remove a folder that is empty.
    DeleteFolder {
        /// Its id.
        id: String,
        /// Where it is.
        path: String,
    },
    /// Add or change a member or grant.
    SetMember {
        /// Who and where.
        key: MemberKey,
        /// Known from the listing; else to be looked up.
        principal_id: Option<String>,
        /// The name as declared.
        name: String,
        /// What.
        input: MemberInput,
        /// The role there is now, if any.
        had: Option<Role>,
    },
    /// Remove a member or grant.
    RemoveMember {
        /// Who and where.
        key: MemberKey,
        /// Id of the principal.
        principal_id: String,
        /// The role there is now.
        had: Role,
    },
    /// Add or change an upload request.
    PutRequest {
        /// Its name.
        name: String,
        /// What.
        input: UploadRequestInput,
        /// It exists and changes.
        exists: bool,
        /// Nothing but the mark changes: somebody else made it just as it is declared.
        mark_only: bool,
    },
    /// Revoke an upload request.
    DeleteRequest {
        /// Its name.
        name: String,
    },
}

/// An action with where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Which part it is about.
    pub aspect: Aspect,
    /// Why.
    pub origin: Origin,
}

impl Action {
    /// Whether somebody or something loses access or existence.
    pub fn is_removal(&self) -> bool {
        matches!(self, Self::RemoveMember { .. } | Self::DeleteFolder { .. } | Self::DeleteRequest { .. })
    }

    /// Whether something new comes to be.
    pub fn is_creation(&self) -> bool {
        match self {
            Self::Create(_) | Self::CreateFolder(_) => true,
            Self::SetMember { had, .. } => had.is_none(),
            Self::PutRequest { exists, .. } => !exists,
            _ => false,
        }
    }

    /// Whether an outsider gets in by it.
    pub fn lets_outsiders_in(&self) -> bool {
        match self {
            Self::SetMember { key, .. } => key.kind == PrincipalKind::Guest,
            Self::PutRequest { mark_only, .. } => !mark_only,
            _ => false,
        }
    }

    /// Stable name for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Restore => "restore",
            Self::TakeOwnership => "take_ownership",
            Self::Activate => "activate",
            Self::Patch { .. } => "patch",
            Self::CreateFolder(_) => "create_folder",
            Self::MoveFolder { .. } => "move_folder",
            Self::PatchFolder { .. } => "patch_folder",
            Self::DeleteFolder { .. } => "delete_folder",
            Self::SetMember { .. } => "set_member",
            Self::RemoveMember { .. } => "remove_member",
            Self::PutRequest { .. } => "put_upload_request",
            Self::DeleteRequest { .. } => "delete_upload_request",
        }
    }

    /// Path of what it is about in `status.drift`.
    pub fn subject(&self) -> String {
        match self {
            Self::Create(_) | Self::Restore | Self::TakeOwnership | Self::Activate => "workspace".into(),
            Self::Patch { what, .. } => format!("workspace/{what}"),
            Self::CreateFolder(folder) => format!("folders{}", folder.path),
            Self::MoveFolder { to, .. } => format!("folders{to}"),
            Self::PatchFolder { path, .. } | Self::DeleteFolder { path, .. } => format!("folders{path}"),
            Self::SetMember { key, .. } | Self::RemoveMember { key, .. } => {
                let path = if key.path == "/" { String::new() } else { format!(" on {}", key.path) };
                format!("access/{:?}/{}{path}", key.kind, key.name)
            }
            Self::PutRequest { name, .. } | Self::DeleteRequest { name } => format!("uploadRequests/{name}"),
        }
    }

    /// What is declared and what is there, for `status.drift`.
    pub fn want_and_have(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::SetMember { input, had, .. } => (Some(format!("{:?}", input.role)), had.map(|role| format!("{role:?}"))),
            Self::RemoveMember { had, .. } => (None, Some(format!("{had:?}"))),
            Self::MoveFolder { from, to, .. } => (Some(to.clone()), Some(from.clone())),
            Self::CreateFolder(_) => (Some("present".into()), None),
            Self::PutRequest { exists, .. } => (Some("as declared".into()), exists.then(|| "different".into())),
            Self::DeleteRequest { .. } | Self::DeleteFolder { .. } => (None, Some("present".into())),
            _ => (Some("as declared".into()), Some("different".into())),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(_) => write!(f, "create the workspace"),
            Self::Restore => write!(f, "restore the workspace from the trash"),
            Self::TakeOwnership => write!(f, "take up the workspace"),
            Self::Activate => write!(f, "make the archived workspace active"),
            Self::Patch { what, .. } => write!(f, "change {what}"),
            Self::CreateFolder(folder) => write!(f, "create folder {}", folder.path),
            Self::MoveFolder { from, to, .. } => write!(f, "move folder {from} back to {to}"),
            Self::PatchFolder { path, mark_only: true, .. } => write!(f, "mark folder {path} as declared"),
            Self::PatchFolder { path, .. } => write!(f, "change folder {path}"),
            Self::DeleteFolder { path, .. } => write!(f, "remove empty folder {path}"),
            Self::SetMember { key, name, input, had: None, .. } => {
                write!(f, "add member {name} ({:?}): {:?} on {}", key.kind, input.role, key.path)?;
                input.expires_at.map_or(Ok(()), |end| write!(f, " until {end}"))
            }
            Self::SetMember { key, name, input, had: Some(role), .. } => {
                write!(f, "change member {name} ({:?}): {role:?} to {:?} on {}", key.kind, input.role, key.path)?;
                input.expires_at.map_or(Ok(()), |end| write!(f, " until {end}"))
            }
            Self::RemoveMember { key, had, .. } => {
                write!(f, "remove member {} ({:?}): {had:?} on {}", key.name, key.kind, key.path)
            }
            Self::PutRequest { name, input, exists: false, .. } => write!(f, "add upload request {name} for {}", input.path),
            Self::PutRequest { name, mark_only: true, .. } => write!(f, "mark upload request {name} as declared"),
            Self::PutRequest { name, .. } => write!(f, "change upload request {name}"),
            Self::DeleteRequest { name } => write!(f, "revoke upload request {name}"),
        }
    }
}
