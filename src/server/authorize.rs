//! The one place that says whether an effect may happen. Pure: everything it looks at is an argument.
//!
//! Every operation calls it inside the transaction of its effect; the store refuses to commit an effect that did not pass.

use super::operation::{Access, Operation, Scope};
use super::refusal::Refusal;
use crate::file360::model::{Role, WorkspaceState};

/// What an operation does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// No target: service document, token, health, pages before they know their target.
    Nothing,
    /// Reads users, groups, guests.
    ReadDirectory,
    /// Makes a guest known.
    InviteGuest,
    /// Lists workspaces; people see their own.
    ListWorkspaces,
    /// Makes a workspace.
    CreateWorkspace,
    /// Reads a workspace, its members, links and upload requests.
    ReadWorkspace,
    /// Changes name, classification, metadata, sharing rule.
    ManageWorkspace,
    /// Changes the ownership mark.
    OwnWorkspace,
    /// Archives or reopens.
    Lifecycle,
    /// Sends a workspace to the trash.
    DeleteWorkspace,
    /// Brings it back.
    RestoreWorkspace,
    /// Ends it for good.
    PurgeWorkspace,
    /// Adds or changes members.
    ShareMembers,
    /// Removes members.
    EndMembers,
    /// Makes or changes an upload request.
    ShareRequest,
    /// Makes or changes a link.
    ShareLink,
    /// Ends a link or an upload request.
    EndShare,
    /// Reads names and properties of items.
    ReadContent,
    /// Reads what is in the trash.
    ReadTrash,
    /// Reads bytes.
    Download,
    /// Makes a folder.
    AddFolder,
    /// Makes a file.
    AddFile,
    /// Adds a version to a file.
    ChangeFile,
    /// Ends one version of a file.
    DeleteVersion,
    /// Renames, moves, sets metadata or lock.
    ChangeItem,
    /// Sends an item to the trash.
    DeleteItem,
    /// Ends an item in the trash for good.
    PurgeItem,
    /// Brings an item back from the trash.
    RestoreItem,
    /// Sets intake, retention, hold, record; only ever adds protection or says who decides.
    Govern,
    /// Takes protection away: releases a hold or a quarantine, decides about pending versions.
    Ungovern,
    /// Only for client applications: feeds, fences, client state, facets, notifications.
    ClientOnly,
}

/// Who calls, as far as rights are concerned.
#[derive(Clone, Debug)]
pub enum Principal<'a> {
    /// Nobody known.
    Nobody,
    /// A client application.
    Client {
        /// Its id.
        id: &'a str,
        /// What its token allows.
        scopes: Scopes,
    },
    /// A user or guest, for whom a client with the `admin` scope calls.
    Person {
        /// What the token of the calling client allows.
        scopes: Scopes,
        /// The strongest role at the target, if any.
        role: Option<Role>,
        /// Guest instead of user.
        guest: bool,
    },
    /// Somebody with a link or an upload request, which has been checked to be alive.
    Outsider(Through),
}

/// What an outsider came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// A share link.
    Link {
        /// It may download.
        download: bool,
    },
    /// An upload request.
    Request,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// The set with one more.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u8)
    }

    /// Whether it is in.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Whether all of these are in.
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// The words, separated by blanks.
    pub fn words(self) -> String {
        let words: Vec<&str> = Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::name).collect();
        words.join(" ")
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::default(), Self::with)
    }
}

/// How strongly retention binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Strength {
    /// A person's delete hides and preserves.
    Governance,
    /// A person's delete is refused; nothing ever gets shorter.
    Regulatory,
}

/// What an intake policy holds back until a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// New files.
    pub upload: bool,
    /// New versions.
    pub modify: bool,
    /// Shares with guests.
    pub share_external: bool,
    /// Links.
    pub share_link: bool,
    /// Deletes.
    pub delete: bool,
}

/// The workspace of the target.
#[derive(Clone, Debug, Default)]
pub struct WorkspaceFacts<'a> {
    /// Active, archived, trashed. `None`: the operation makes it.
    pub state: Option<WorkspaceState>,
    /// The client that an active ownership mark is bound to.
    pub bound_to: Option<&'a str>,
    /// Some file in it is held.
    pub holds_inside: bool,
    /// Some file in it is retained or a record.
    pub kept_inside: bool,
    /// Guests may share further.
    pub reshare: bool,
}

/// The item of the target.
#[derive(Clone, Debug, Default)]
pub struct ItemFacts {
    /// It is the root folder.
    pub root: bool,
    /// It is a folder.
    pub folder: bool,
    /// It is locked.
    pub locked: bool,
    /// It, or a folder above it, is in the trash.
    pub trashed: bool,
    /// No version of it is released.
    pub pending: bool,
    /// The version that is asked for is not released.
    pub version_pending: bool,
    /// It is quarantined.
    pub quarantined: bool,
    /// The acting person made it.
    pub own: bool,
    /// A hold is on it, on a folder above it, or on something below it.
    pub held: bool,
    /// Retention is on it, or on something below it.
    pub retained: Option<Strength>,
    /// It is a record, or something below it is.
    pub record: bool,
    /// The call changes content, name or place (not only metadata).
    pub changes_substance: bool,
    /// An intake policy stands on it, or on a folder below it.
    pub gated: bool,
}

/// What an effect would touch.
#[derive(Clone, Debug, Default)]
pub struct Target<'a> {
    /// Its workspace.
    pub workspace: Option<WorkspaceFacts<'a>>,
    /// Its item.
    pub item: Option<ItemFacts>,
    /// The intake policies over it.
    pub gate: Gate,
    /// The share is with guests.
    pub external: bool,
}

/// How an allowed effect takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// At once.
    Effective,
    /// It is recorded, and waits for a decision.
    Pending,
    /// The item disappears for people and is preserved (Governance retention).
    Preserve,
}

/// Whether the caller may call the operation at all: token and scope, before any target is known.
pub fn admit(principal: &Principal<'_>, operation: Operation) -> Result<(), Refusal> {
    let scopes = match principal {
        Principal::Client { scopes, .. } | Principal::Person { scopes, .. } => *scopes,
        Principal::Nobody | Principal::Outsider(_) => Scopes::default(),
    };
    match operation.access() {
        Access::Open => Ok(()),
        _ if matches!(principal, Principal::Nobody | Principal::Outsider(_)) => Err(unauthenticated()),
        Access::Token => Ok(()),
        Access::Scope(scope) if scopes.has(scope) => Ok(()),
        Access::Scope(scope) => {
            Err(refuse(403, "insufficient-scope", format!("The call needs the scope `{}`.", scope.name())))
        }
    }
}

/// Whether the effect may happen, and how.
pub fn authorize(
    principal: &Principal<'_>,
    operation: Operation,
    effect: Effect,
    target: &Target<'_>,
) -> Result<Permit, Refusal> {
    admit(principal, operation)?;
    if let Some(workspace) = &target.workspace {
        by_workspace_state(principal, effect, workspace)?;
    }
    by_role(principal, effect, target)?;
    by_finality(principal, effect)?;
    if let Some(item) = &target.item {
        by_visibility(principal, effect, item)?;
        by_lock(principal, effect, item, target.workspace.as_ref())?;
        by_quarantine(principal, effect, item)?;
    }
    by_protection(principal, effect, target).map(|preserve| preserve.unwrap_or_else(|| by_gate(effect, target)))
}

fn refuse(status: u16, code: &'static str, detail: impl Into<String>) -> Refusal {
    Refusal::new(status, code, detail).audited()
}

fn unauthenticated() -> Refusal {
    Refusal::new(401, "unauthenticated", "The call needs a bearer token.")
        .header(http::header::WWW_AUTHENTICATE, "Bearer realm=\"file360\"")
}

/// Content as people know it: what the state of the workspace freezes or hides.
fn touches_content(effect: Effect) -> bool {
    use Effect::{
        AddFile, AddFolder, ChangeFile, ChangeItem, DeleteItem, DeleteVersion, Download, ReadContent, RestoreItem,
    };
    matches!(
        effect,
        ReadContent | Download | AddFolder | AddFile | ChangeFile | DeleteVersion | ChangeItem | DeleteItem | RestoreItem
    )
}

fn by_workspace_state(principal: &Principal<'_>, effect: Effect, workspace: &WorkspaceFacts<'_>) -> Result<(), Refusal> {
    use Effect::{EndMembers, EndShare, ManageWorkspace, ReadWorkspace, ShareLink, ShareMembers, ShareRequest};
    let outside = matches!(principal, Principal::Outsider(_) | Principal::Person { guest: true, .. });
    let person = outside || matches!(principal, Principal::Person { .. });
    let reads = matches!(effect, Effect::ReadContent | Effect::Download | ReadWorkspace);
    match workspace.state {
        Some(WorkspaceState::Archived) if outside => Err(Refusal::not_found("workspace")),
        Some(WorkspaceState::Archived) if person && !reads && effect != Effect::Lifecycle => {
            Err(refuse(409, "state-conflict", "The workspace is archived: people can read it and change nothing."))
        }
        Some(WorkspaceState::Archived) if matches!(effect, ShareLink | ShareRequest) => {
            Err(refuse(409, "state-conflict", "The workspace is archived: nothing new can be shared with people outside."))
        }
        Some(WorkspaceState::Trashed) if person => Err(Refusal::not_found("workspace")),
        Some(WorkspaceState::Trashed) if matches!(effect, Effect::ReadContent | Effect::Download) => {
            Err(Refusal::not_found("item"))
        }
        Some(WorkspaceState::Trashed)
            if touches_content(effect)
                || matches!(
                    effect,
                    ManageWorkspace | Effect::Lifecycle | ShareMembers | EndMembers | ShareLink | ShareRequest | EndShare
                ) =>
        {
            Err(refuse(409, "state-conflict", "The workspace is in the trash: restore it first."))
        }
        Some(state) if effect == Effect::PurgeWorkspace && state != WorkspaceState::Trashed => {
            Err(refuse(409, "state-conflict", "Only a workspace in the trash can be purged."))
        }
        _ => Ok(()),
    }
}

fn by_role(principal: &Principal<'_>, effect: Effect, target: &Target<'_>) -> Result<(), Refusal> {
    match principal {
        Principal::Nobody if effect == Effect::Nothing => Ok(()),
        Principal::Nobody => Err(unauthenticated()),
        Principal::Client { .. } => Ok(()),
        Principal::Outsider(through) => by_entrance(*through, effect),
        Principal::Person { role, guest, .. } => by_person(*role, *guest, effect, target),
    }
}

/// What cannot be undone needs the strongest scope.
fn by_finality(principal: &Principal<'_>, effect: Effect) -> Result<(), Refusal> {
    let admin = matches!(principal, Principal::Client { scopes, .. } if scopes.has(Scope::Admin));
    if matches!(effect, Effect::PurgeItem | Effect::PurgeWorkspace) && !admin {
        return Err(refuse(403, "insufficient-scope", "The call needs the scope `admin`."));
    }
    Ok(())
}

fn by_entrance(through: Through, effect: Effect) -> Result<(), Refusal> {
    match (through, effect) {
        (_, Effect::ReadContent) | (Through::Request, Effect::AddFile) => Ok(()),
        (Through::Link { download: true }, Effect::Download) => Ok(()),
        _ => Err(refuse(403, "forbidden", "The link or upload request does not allow this.")),
    }
}

fn by_person(role: Option<Role>, guest: bool, effect: Effect, target: &Target<'_>) -> Result<(), Refusal> {
    use Role::{Contributor, Editor, Manager, Owner, Uploader, Viewer};
    let own = target.item.as_ref().is_some_and(|item| item.own);
    let folderish = target.item.as_ref().is_none_or(|item| item.folder);
    let reshare = target.workspace.as_ref().is_some_and(|workspace| workspace.reshare);
    let Some(role) = role else {
        return match effect {
            Effect::Nothing | Effect::ReadDirectory | Effect::ListWorkspaces => Ok(()),
            Effect::CreateWorkspace if !guest => Ok(()),
            Effect::CreateWorkspace | Effect::InviteGuest | Effect::ClientOnly => Err(forbidden()),
            // Whoever has no role learns nothing, not even that the thing exists.
            _ => Err(Refusal::not_found("object").audited()),
        };
    };
    let allowed = match effect {
        Effect::Nothing | Effect::ReadDirectory | Effect::ListWorkspaces | Effect::ReadWorkspace => true,
        Effect::CreateWorkspace => !guest,
        Effect::ReadContent | Effect::Download => role != Uploader || own || (folderish && effect == Effect::ReadContent),
        Effect::AddFile => role != Viewer,
        Effect::AddFolder => matches!(role, Owner | Manager | Editor | Contributor),
        Effect::ChangeFile => matches!(role, Owner | Manager | Editor) || (own && role == Contributor),
        Effect::ChangeItem | Effect::DeleteItem | Effect::DeleteVersion | Effect::RestoreItem => {
            matches!(role, Owner | Manager | Editor) || (own && role == Contributor)
        }
        Effect::ShareLink | Effect::ShareRequest | Effect::EndShare | Effect::InviteGuest => {
            matches!(role, Owner | Manager | Editor) && (!guest || reshare)
        }
        Effect::ShareMembers | Effect::EndMembers => matches!(role, Owner | Manager) && (!guest || reshare),
        Effect::ManageWorkspace | Effect::Lifecycle => matches!(role, Owner | Manager) && !guest,
        Effect::DeleteWorkspace | Effect::RestoreWorkspace => role == Owner && !guest,
        Effect::ReadTrash => matches!(role, Owner | Manager | Editor),
        Effect::OwnWorkspace
        | Effect::PurgeWorkspace
        | Effect::PurgeItem
        | Effect::Govern
        | Effect::Ungovern
        | Effect::ClientOnly => false,
    };
    if allowed { Ok(()) } else { Err(forbidden()) }
}

fn forbidden() -> Refusal {
    refuse(403, "forbidden", "The caller's role does not allow this.")
}

/// Pending and quarantined items are there for whoever decides about them, and for nobody else.
fn by_visibility(principal: &Principal<'_>, effect: Effect, item: &ItemFacts) -> Result<(), Refusal> {
    let decides = matches!(principal, Principal::Client { scopes, .. } if scopes.has(Scope::Govern));
    if (item.pending || item.version_pending) && !decides {
        return Err(Refusal::not_found("item").audited());
    }
    let in_trash = matches!(effect, Effect::RestoreItem | Effect::PurgeItem | Effect::Govern | Effect::Ungovern);
    match (item.trashed, effect) {
        (true, _) if in_trash => Ok(()),
        (true, Effect::ReadContent) if matches!(principal, Principal::Client { .. }) => Ok(()),
        (true, _) => Err(Refusal::not_found("item")),
        (false, Effect::RestoreItem | Effect::PurgeItem) => {
            Err(refuse(409, "state-conflict", "The item is not in the trash."))
        }
        (false, _) => Ok(()),
    }
}

fn by_lock(
    principal: &Principal<'_>,
    effect: Effect,
    item: &ItemFacts,
    workspace: Option<&WorkspaceFacts<'_>>,
) -> Result<(), Refusal> {
    let moves = match effect {
        Effect::DeleteItem => true,
        Effect::ChangeItem => item.changes_substance,
        _ => false,
    };
    if item.root && moves {
        return Err(refuse(409, "state-conflict", "The root folder cannot be renamed, moved or deleted."));
    }
    let decides = matches!(principal, Principal::Client { scopes, .. } if scopes.has(Scope::Govern));
    if item.gated && moves && !decides {
        // Whoever could put another folder in its place would get around the policy.
        let why = "An intake policy stands on the folder or below it: only who decides renames, moves or deletes it.";
        return Err(refuse(409, "locked", why));
    }
    let holder = match principal {
        Principal::Client { id, scopes } => {
            scopes.has(Scope::Admin) || workspace.and_then(|workspace| workspace.bound_to).is_none_or(|bound| bound == *id)
        }
        _ => false,
    };
    if item.locked && (moves || effect == Effect::ChangeFile) && !holder {
        return Err(refuse(409, "locked", "The item is locked: only the workspace's owner changes it."));
    }
    Ok(())
}

fn by_quarantine(principal: &Principal<'_>, effect: Effect, item: &ItemFacts) -> Result<(), Refusal> {
    let approver = matches!(principal, Principal::Client { scopes, .. } if scopes.has(Scope::Govern));
    if item.quarantined && !approver && matches!(effect, Effect::Download | Effect::ShareLink) {
        return Err(refuse(409, "quarantined", "The content is quarantined: it cannot be downloaded or shared."));
    }
    Ok(())
}

/// Holds beat everything, records and retention beat deletion (G1, G2, G11, G14).
fn by_protection(principal: &Principal<'_>, effect: Effect, target: &Target<'_>) -> Result<Option<Permit>, Refusal> {
    if matches!(effect, Effect::DeleteWorkspace | Effect::PurgeWorkspace)
        && let Some(workspace) = &target.workspace
    {
        if workspace.holds_inside {
            return Err(refuse(409, "hold-active", "A file in the workspace is under a legal hold."));
        }
        if workspace.kept_inside {
            return Err(refuse(409, "retained", "A file in the workspace is retained or a record."));
        }
    }
    let Some(item) = &target.item else { return Ok(None) };
    let destroys = matches!(effect, Effect::DeleteItem | Effect::PurgeItem | Effect::DeleteVersion);
    if destroys && item.held {
        return Err(refuse(409, "hold-active", "The item, or something in it, is under a legal hold."));
    }
    let alters = effect == Effect::ChangeFile || (effect == Effect::ChangeItem && item.changes_substance);
    if item.record && (destroys || alters) {
        return Err(refuse(409, "record", "A declared record can neither change nor be deleted."));
    }
    match item.retained {
        Some(Strength::Governance) if effect == Effect::DeleteItem && matches!(principal, Principal::Person { .. }) => {
            Ok(Some(Permit::Preserve))
        }
        Some(_) if destroys => Err(refuse(409, "retained", "The item, or something in it, is retained.")),
        _ => Ok(None),
    }
}

fn by_gate(effect: Effect, target: &Target<'_>) -> Permit {
    let held_back = match effect {
        Effect::AddFile => target.gate.upload,
        Effect::ChangeFile => target.gate.modify,
        Effect::ShareLink => target.gate.share_link || (target.external && target.gate.share_external),
        Effect::ShareMembers => target.external && target.gate.share_external,
        Effect::DeleteItem => target.gate.delete,
        _ => false,
    };
    if held_back { Permit::Pending } else { Permit::Effective }
}

#[cfg(test)]
mod tests;
