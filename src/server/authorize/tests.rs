//! The table of rights. Each line is one rule of the contract.

use super::super::operation::{Access, Operation, Scope};
use super::{Effect, Gate, ItemFacts, Permit, Principal, Scopes, Strength, Target, Through, WorkspaceFacts, authorize};
use crate::file360::model::{Role, WorkspaceState};

fn client(scopes: &[Scope]) -> Principal<'static> {
    Principal::Client { id: "operator", scopes: scopes.iter().copied().collect() }
}

fn all() -> Principal<'static> {
    Principal::Client { id: "operator", scopes: Scopes::all() }
}

fn ungoverned() -> Principal<'static> {
    client(&[Scope::Read, Scope::Write, Scope::Share])
}

fn person(role: Role) -> Principal<'static> {
    Principal::Person { scopes: Scopes::all(), role: Some(role), guest: false }
}

fn stranger() -> Principal<'static> {
    Principal::Person { scopes: Scopes::all(), role: None, guest: false }
}

fn guest(role: Role) -> Principal<'static> {
    Principal::Person { scopes: Scopes::all(), role: Some(role), guest: true }
}

fn link(download: bool) -> Principal<'static> {
    Principal::Outsider(Through::Link { download })
}

fn request() -> Principal<'static> {
    Principal::Outsider(Through::Request)
}

/// A target in an active workspace that nobody owns, after a change to the item's facts.
fn item(change: impl FnOnce(&mut ItemFacts)) -> Target<'static> {
    let mut facts = ItemFacts::default();
    change(&mut facts);
    let workspace = WorkspaceFacts { state: Some(WorkspaceState::Active), ..WorkspaceFacts::default() };
    Target { workspace: Some(workspace), item: Some(facts), ..Target::default() }
}

fn within(state: WorkspaceState) -> Target<'static> {
    let workspace = WorkspaceFacts { state: Some(state), ..WorkspaceFacts::default() };
    Target { workspace: Some(workspace), ..Target::default() }
}

/// An operation with this effect that needs a token, or the page's operation for outsiders.
fn operation_of(principal: &Principal<'_>, effect: Effect) -> Operation {
    let outside = matches!(principal, Principal::Outsider(_));
    let fits = |operation: &&Operation| operation.effect() == effect && (operation.access() == Access::Open) == outside;
    let found = Operation::ALL.iter().find(fits);
    found.copied().unwrap_or(if outside { Operation::OpenLinkPage } else { Operation::WhoAmI })
}

fn verdict(principal: &Principal<'_>, effect: Effect, target: &Target<'_>) -> Result<Permit, &'static str> {
    authorize(principal, operation_of(principal, effect), effect, target).map_err(|refusal| refusal.code())
}

#[test]
fn the_table_of_rights_holds() {
    use Effect::{
        AddFile, AddFolder, ChangeFile, ChangeItem, DeleteItem, DeleteVersion, DeleteWorkspace, Download, Govern, Lifecycle,
        ManageWorkspace, OwnWorkspace, PurgeItem, PurgeWorkspace, ReadContent, ReadWorkspace, RestoreItem, RestoreWorkspace,
        ShareLink, ShareMembers, ShareRequest, Ungovern,
    };
    use Permit::{Effective, Pending, Preserve};
    use WorkspaceState::{Active, Archived, Trashed};
    let plain = || item(|_| ());
    let held = || item(|item| item.held = true);
    let record = || item(|item| item.record = true);
    let retained = |strength| item(move |item| item.retained = Some(strength));
    let pending = || item(|item| item.pending = true);
    let quarantined = || item(|item| item.quarantined = true);
    let trashed = || item(|item| item.trashed = true);
    let moved = |change: fn(&mut ItemFacts)| {
        item(move |item| {
            item.changes_substance = true;
            change(item);
        })
    };
    let gated = Target {
        gate: Gate { upload: true, modify: true, share_external: true, share_link: true, delete: true },
        ..plain()
    };
    let external = Target { external: true, ..gated.clone() };
    let kept = |holds_inside, kept_inside| {
        let workspace = WorkspaceFacts { state: Some(Trashed), holds_inside, kept_inside, ..WorkspaceFacts::default() };
        Target { workspace: Some(workspace), ..Target::default() }
    };
    let table = [
        // G1: a hold beats everybody.
        (all(), DeleteItem, held(), Err("hold-active")),
        (person(Role::Owner), DeleteItem, held(), Err("hold-active")),
        (all(), DeleteVersion, held(), Err("hold-active")),
        (all(), PurgeItem, item(|item| (item.held, item.trashed) = (true, true)), Err("hold-active")),
        (all(), DeleteWorkspace, kept(true, true), Err("hold-active")),
        (all(), PurgeWorkspace, kept(true, true), Err("hold-active")),
        (
            all(),
            DeleteItem,
            item(|item| (item.held, item.retained) = (true, Some(Strength::Governance))),
            Err("hold-active"),
        ),
        (
            person(Role::Editor),
            DeleteItem,
            item(|item| (item.held, item.retained) = (true, Some(Strength::Governance))),
            Err("hold-active"),
        ),
        // G2, G14: retention beats deletion; a person's delete under Governance hides and preserves.
        (all(), DeleteItem, retained(Strength::Governance), Err("retained")),
        (all(), PurgeItem, item(|item| (item.trashed, item.retained) = (true, Some(Strength::Governance))), Err("retained")),
        (all(), DeleteVersion, retained(Strength::Governance), Err("retained")),
        (person(Role::Editor), DeleteItem, retained(Strength::Governance), Ok(Preserve)),
        (person(Role::Editor), DeleteItem, retained(Strength::Regulatory), Err("retained")),
        (person(Role::Editor), DeleteVersion, retained(Strength::Governance), Err("retained")),
        (all(), DeleteWorkspace, kept(false, true), Err("retained")),
        (all(), ChangeFile, retained(Strength::Regulatory), Ok(Effective)),
        // G11: a record changes neither content nor name nor place; its metadata may.
        (all(), ChangeFile, record(), Err("record")),
        (all(), ChangeItem, moved(|item| item.record = true), Err("record")),
        (all(), ChangeItem, record(), Ok(Effective)),
        (all(), DeleteItem, record(), Err("record")),
        // G11: quarantined content is for those who decide.
        (ungoverned(), Download, quarantined(), Err("quarantined")),
        (ungoverned(), ShareLink, quarantined(), Err("quarantined")),
        (link(true), Download, quarantined(), Err("quarantined")),
        (person(Role::Owner), Download, quarantined(), Err("quarantined")),
        (all(), Download, quarantined(), Ok(Effective)),
        // A1: pending content is for those who decide; a gate holds back what it names.
        (ungoverned(), ReadContent, pending(), Err("not-found")),
        (person(Role::Owner), Download, pending(), Err("not-found")),
        (link(true), Download, pending(), Err("not-found")),
        (ungoverned(), Download, item(|item| item.version_pending = true), Err("not-found")),
        (all(), Download, pending(), Ok(Effective)),
        (all(), AddFile, gated.clone(), Ok(Pending)),
        (request(), AddFile, gated.clone(), Ok(Pending)),
        (person(Role::Editor), ChangeFile, gated.clone(), Ok(Pending)),
        (person(Role::Editor), ShareLink, gated.clone(), Ok(Pending)),
        (person(Role::Editor), DeleteItem, gated.clone(), Ok(Pending)),
        (all(), ShareMembers, external, Ok(Pending)),
        (all(), ShareMembers, gated.clone(), Ok(Effective)),
        (all(), ChangeItem, gated, Ok(Effective)),
        // Workspaces: archived ones are frozen for people and closed to the outside, trashed ones are gone.
        (person(Role::Owner), AddFile, within(Archived), Err("state-conflict")),
        (person(Role::Owner), ShareMembers, within(Archived), Err("state-conflict")),
        (person(Role::Viewer), Download, within(Archived), Ok(Effective)),
        (person(Role::Manager), Lifecycle, within(Archived), Ok(Effective)),
        (guest(Role::Viewer), Download, within(Archived), Err("not-found")),
        (request(), AddFile, within(Archived), Err("not-found")),
        (link(true), Download, within(Archived), Err("not-found")),
        (all(), ManageWorkspace, within(Archived), Ok(Effective)),
        (all(), ShareLink, within(Archived), Err("state-conflict")),
        (all(), ShareRequest, within(Archived), Err("state-conflict")),
        (all(), ReadWorkspace, within(Trashed), Ok(Effective)),
        (all(), Download, within(Trashed), Err("not-found")),
        (all(), AddFile, within(Trashed), Err("state-conflict")),
        (all(), ManageWorkspace, within(Trashed), Err("state-conflict")),
        (all(), RestoreWorkspace, within(Trashed), Ok(Effective)),
        (person(Role::Owner), ReadWorkspace, within(Trashed), Err("not-found")),
        (all(), PurgeWorkspace, within(Active), Err("state-conflict")),
        // Trash: visible to clients, restored or purged, nothing else.
        (person(Role::Owner), ReadContent, trashed(), Err("not-found")),
        (all(), ReadContent, trashed(), Ok(Effective)),
        (all(), Download, trashed(), Err("not-found")),
        (all(), RestoreItem, trashed(), Ok(Effective)),
        (all(), RestoreItem, plain(), Err("state-conflict")),
        (ungoverned(), PurgeItem, trashed(), Err("insufficient-scope")),
        (all(), Govern, trashed(), Ok(Effective)),
        // People: roles.
        (stranger(), ReadWorkspace, within(Active), Err("not-found")),
        (stranger(), Download, plain(), Err("not-found")),
        (person(Role::Viewer), Download, plain(), Ok(Effective)),
        (person(Role::Viewer), AddFile, plain(), Err("forbidden")),
        (person(Role::Uploader), AddFile, plain(), Ok(Effective)),
        (person(Role::Uploader), Download, plain(), Err("forbidden")),
        (person(Role::Uploader), Download, item(|item| item.own = true), Ok(Effective)),
        (person(Role::Contributor), ChangeFile, plain(), Err("forbidden")),
        (person(Role::Contributor), ChangeFile, item(|item| item.own = true), Ok(Effective)),
        (person(Role::Contributor), AddFolder, plain(), Ok(Effective)),
        (person(Role::Editor), DeleteItem, plain(), Ok(Effective)),
        (person(Role::Editor), ShareMembers, within(Active), Err("forbidden")),
        (person(Role::Manager), ShareMembers, within(Active), Ok(Effective)),
        (person(Role::Manager), DeleteWorkspace, within(Active), Err("forbidden")),
        (person(Role::Owner), DeleteWorkspace, within(Active), Ok(Effective)),
        (person(Role::Owner), OwnWorkspace, within(Active), Err("forbidden")),
        (person(Role::Owner), Govern, plain(), Err("forbidden")),
        (person(Role::Owner), Ungovern, plain(), Err("forbidden")),
        (guest(Role::Owner), ShareLink, plain(), Err("forbidden")),
        (guest(Role::Owner), ManageWorkspace, within(Active), Err("forbidden")),
        // Locks and the root.
        (person(Role::Owner), ChangeItem, moved(|item| item.locked = true), Err("locked")),
        (person(Role::Owner), DeleteItem, item(|item| item.locked = true), Err("locked")),
        (person(Role::Owner), ChangeItem, item(|item| item.locked = true), Ok(Effective)),
        (ungoverned(), DeleteItem, item(|item| item.locked = true), Ok(Effective)),
        (all(), DeleteItem, item(|item| item.root = true), Err("state-conflict")),
        (all(), ChangeItem, moved(|item| item.root = true), Err("state-conflict")),
        // Outsiders: what their entrance is for, and nothing else.
        (request(), AddFile, plain(), Ok(Effective)),
        (request(), Download, plain(), Err("forbidden")),
        (link(true), Download, plain(), Ok(Effective)),
        (link(false), Download, plain(), Err("forbidden")),
        (link(true), AddFile, plain(), Err("forbidden")),
        (link(true), DeleteItem, plain(), Err("forbidden")),
    ];
    for (principal, effect, target, expected) in table {
        let found = verdict(&principal, effect, &target);
        assert_eq!(found, expected, "{principal:?} {effect:?} {target:?}");
    }
}

#[test]
fn an_owned_workspace_s_locks_open_for_its_owner_and_admins_only() {
    let mut target = item(|item| item.locked = true);
    if let Some(workspace) = &mut target.workspace {
        workspace.bound_to = Some("operator");
    }
    let neighbour = |scopes: &[Scope]| Principal::Client { id: "neighbour", scopes: scopes.iter().copied().collect() };
    assert_eq!(verdict(&ungoverned(), Effect::DeleteItem, &target), Ok(Permit::Effective));
    assert_eq!(verdict(&neighbour(&[Scope::Write]), Effect::DeleteItem, &target), Err("locked"));
    assert_eq!(verdict(&neighbour(&[Scope::Write, Scope::Admin]), Effect::DeleteItem, &target), Ok(Permit::Effective));
}

#[test]
fn every_operation_needs_its_scope_and_a_token() {
    for operation in Operation::ALL.iter().copied() {
        let target = Target::default();
        let nobody = authorize(&Principal::Nobody, operation, operation.effect(), &target).map_err(|refusal| refusal.code());
        match operation.access() {
            Access::Open => continue,
            Access::Token | Access::Scope(_) => assert_eq!(nobody, Err("unauthenticated"), "{}", operation.id()),
        }
        if let Access::Scope(scope) = operation.access() {
            let others: Vec<Scope> = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
            let found =
                authorize(&client(&others), operation, operation.effect(), &target).map_err(|refusal| refusal.code());
            assert_eq!(found, Err("insufficient-scope"), "{}", operation.id());
        }
    }
}
