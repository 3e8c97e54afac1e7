//! Members of a workspace, and grants below one folder.

use rusqlite::{OptionalExtension, params};

use super::{Outcome, sharing};
use crate::file360::model::{ChangeKind, Member, MemberInput, Principal, PrincipalKind, Role};
use crate::server::authorize::{Permit, Target};
use crate::server::call::Answer;
use crate::server::names;
use crate::server::records::people::{self, ROLES};
use crate::server::records::{items, workspaces};
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// `GET /v1/workspaces/{id}/members`
pub fn list(view: &View<'_>) -> Outcome {
    let workspace = workspaces::by_id(view, view.call.param("id"))?;
    workspace.authorize(view)?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let (after_principal, after_folder) = after.split_once(' ').unwrap_or_default();
    let folder = match view.call.query("path") {
        None => None,
        Some(path) => Some(folder_at(view, &workspace, path)?.0),
    };
    let mut find = view.db.prepare_cached(
        "SELECT m.principal_id, p.kind, p.name, m.folder_id, m.role, m.expires_at, m.reason, m.managed
         FROM members AS m JOIN principals AS p ON p.id = m.principal_id
         WHERE m.workspace_id = ?1 AND (m.principal_id, m.folder_id) > (?2, ?3) AND (?5 IS NULL OR m.folder_id = ?5) AND m.state = 0
         ORDER BY m.principal_id, m.folder_id LIMIT ?4",
    )?;
    let rows = find.query_map(params![workspace.public.id, after_principal, after_folder, limit + 1, folder], |row| {
        let folder: String = row.get(3)?;
        Ok((folder, member_from_row(row)?))
    })?;
    let mut members = Vec::new();
    for row in rows {
        let (folder, mut member) = row?;
        if folder != workspace.public.root_id {
            member.path = items::by_id(view, &folder)?.path();
        }
        members.push((format!("{} {folder}", member.principal_id), member));
    }
    Answer::page(members, limit)
}

/// Principal, kind, name, (folder), role, expiry, reason, managed. The path is `/` until the caller knows better.
fn member_from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member {
        principal_id: row.get(0)?,
        kind: crate::server::records::enumerated(1, &people::KINDS, row.get(1)?)?,
        name: row.get(2)?,
        path: "/".to_owned(),
        role: crate::server::records::enumerated(4, &ROLES, row.get(4)?)?,
        expires_at: row.get::<_, Option<i64>>(5)?.map(crate::server::records::time),
        reason: row.get(6)?,
        managed: row.get(7)?,
    })
}

/// The folder that a grant's path names: its id and its path as stored.
fn folder_at(view: &View<'_>, workspace: &workspaces::Record, path: &str) -> Result<(String, String), Refusal> {
    let segments = names::segments(path, "path")?;
    if segments.is_empty() {
        return Ok((workspace.public.root_id.clone(), "/".to_owned()));
    }
    let found = items::at_path(view, workspace, &segments)?;
    let folder = found.filter(|found| found.item.kind == crate::file360::model::ItemKind::Folder);
    let folder = folder
        .ok_or_else(|| Refusal::new(422, "path-missing", "There is no folder at the path.").at("path", "No folder."))?;
    Ok((folder.item.id.clone(), folder.path()))
}

fn find(view: &View<'_>, workspace_id: &str, principal_id: &str, folder_id: &str) -> Result<Option<Member>, Refusal> {
    let mut find = view.db.prepare_cached(
        "SELECT m.principal_id, p.kind, p.name, m.folder_id, m.role, m.expires_at, m.reason, m.managed
         FROM members AS m JOIN principals AS p ON p.id = m.principal_id
         WHERE m.workspace_id = ?1 AND m.principal_id = ?2 AND m.folder_id = ?3",
    )?;
    Ok(find.query_row([workspace_id, principal_id, folder_id], member_from_row).optional()?)
}

/// `PUT /v1/workspaces/{id}/members/{principalId}`
pub fn set(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let workspace = workspaces::by_id(tx, tx.call.param("id"))?;
    let principal = people::by_id(tx.db, tx.call.param("principalId"))?;
    let external = principal.as_ref().is_some_and(|principal| items::is_outside(principal.kind));
    workspace.authorize(tx)?;
    let principal = principal.ok_or_else(|| Refusal::not_found("principal"))?;
    let input: MemberInput = tx.call.json()?;
    if let Some(reason) = &input.reason {
        names::text(reason, 1024, "/reason")?;
    }
    let (folder_id, path) = folder_at(tx, &workspace, tx.call.query("path").unwrap_or("/"))?;
    let gate = items::by_id(tx, &folder_id)?.gate_for(tx, tx.call.operation.effect())?;
    let permit = workspace.authorize_with(tx, Target { gate, external, ..Target::default() })?;
    if principal.kind == PrincipalKind::Client {
        return Err(Refusal::invalid("principalId", "Client applications have scopes, not memberships."));
    }
    if external && !workspaces::may_share_with(&workspace.public.sharing, &principal.name) {
        return Err(sharing::denied("principalId", "The workspace's sharing rule does not let this address in."));
    }
    let before = find(tx, &workspace.public.id, &principal.id, &folder_id)?;
    let mut after = Member {
        principal_id: principal.id.clone(),
        kind: principal.kind,
        name: principal.name.clone(),
        path: path.clone(),
        role: input.role,
        expires_at: input.expires_at.map(crate::server::clock::to_millis),
        reason: input.reason,
        managed: input.managed,
    };
    let known = before.map(|before| Member { path: path.clone(), ..before });
    if known.as_ref() == Some(&after) {
        return Answer::ok(&after);
    }
    after.expires_at = sharing::expiry(after.expires_at, tx.now)?;
    if known.as_ref().is_some_and(|known| manages(known.role)) && !manages(after.role) {
        keep_a_manager(tx, &workspace, &principal.id)?;
    }
    if known.is_none() && external && permit == Permit::Effective {
        invite(tx, &workspace, &principal)?;
    }
    store(tx, &workspace, &after, &folder_id, permit)?;
    tx.note(|about| {
        about.subject = Some(principal.id.clone());
        about.path = Some(path.clone());
    });
    tx.details(serde_json::json!({"role": after.role, "principal": principal.name, "kind": principal.kind}));
    tx.changed(&workspace.public.id, ChangeKind::MemberSet, News::about(&principal.id).on(folder_id).at(path))?;
    Answer::json(if known.is_some() { 200 } else { 201 }, &after)
}

fn store(
    tx: &Tx<'_, '_, '_>,
    workspace: &workspaces::Record,
    after: &Member,
    folder: &str,
    permit: Permit,
) -> Result<(), Refusal> {
    let mut upsert = tx.db.prepare_cached(
        "INSERT INTO members (workspace_id, principal_id, folder_id, role, expires_at, reason, managed, state, requested_by, requested_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (workspace_id, principal_id, folder_id)
         DO UPDATE SET role = ?4, expires_at = ?5, reason = ?6, managed = ?7, state = ?8, requested_by = ?9, requested_at = ?10",
    )?;
    upsert.execute(params![
        workspace.public.id,
        after.principal_id,
        folder,
        after.role as u8,
        after.expires_at.map(jiff::Timestamp::as_millisecond),
        after.reason,
        after.managed,
        u8::from(permit == Permit::Pending),
        serde_json::to_string(&tx.actor)?,
        tx.now.as_millisecond(),
    ])?;
    Ok(())
}

fn manages(role: Role) -> bool {
    matches!(role, Role::Owner | Role::Manager)
}

/// Somebody must be able to manage a workspace: its owner mark, or one more manager.
fn keep_a_manager(tx: &Tx<'_, '_, '_>, workspace: &workspaces::Record, leaving: &str) -> Result<(), Refusal> {
    if workspace.public.owner.is_some() {
        return Ok(());
    }
    let mut count = tx.db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM members WHERE workspace_id = ?1 AND principal_id <> ?2 AND folder_id = ?3 AND role <= 1)",
    )?;
    let another: bool =
        count.query_row(params![workspace.public.id, leaving, workspace.public.root_id], |row| row.get(0))?;
    if another {
        return Ok(());
    }
    Err(Refusal::new(409, "last-manager", "The last owner or manager of a workspace that nobody else owns cannot leave.")
        .audited())
}

/// The first membership of a guest in a workspace brings an invitation, in the same transaction.
fn invite(tx: &Tx<'_, '_, '_>, workspace: &workspaces::Record, guest: &Principal) -> Result<(), Refusal> {
    let mut find =
        tx.db.prepare_cached("SELECT EXISTS (SELECT 1 FROM members WHERE workspace_id = ?1 AND principal_id = ?2)")?;
    let member: bool = find.query_row([&workspace.public.id, &guest.id], |row| row.get(0))?;
    if member {
        return Ok(());
    }
    let params = serde_json::json!({"workspace": workspace.public.display_name, "url": workspace.public.url});
    crate::server::notices::queue(tx, "workspace-invitation", "en", &guest.name, &params).map(drop)
}

/// The invitation of a guest whose grant waited for a decision.
pub fn invite_released(tx: &Tx<'_, '_, '_>, workspace: &workspaces::Record, principal: &str) -> Result<(), Refusal> {
    let Some(guest) = people::by_id(tx.db, principal)? else { return Ok(()) };
    let params = serde_json::json!({"workspace": workspace.public.display_name, "url": workspace.public.url});
    crate::server::notices::queue(tx, "workspace-invitation", "en", &guest.name, &params).map(drop)
}

/// `DELETE /v1/workspaces/{id}/members/{principalId}`
pub fn remove(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let workspace = workspaces::by_id(tx, tx.call.param("id"))?;
    let principal = tx.call.param("principalId").to_owned();
    workspace.authorize(tx)?;
    let (folder_id, path) = match folder_at(tx, &workspace, tx.call.query("path").unwrap_or("/")) {
        Ok(folder) => folder,
        // No folder, no grant below it: the same as one that is gone already.
        Err(refusal) if refusal.code() == "path-missing" => return Err(Refusal::not_found("member")),
        Err(refusal) => return Err(refusal),
    };
    let before = find(tx, &workspace.public.id, &principal, &folder_id)?.ok_or_else(|| Refusal::not_found("member"))?;
    if manages(before.role) && path == "/" {
        keep_a_manager(tx, &workspace, &principal)?;
    }
    tx.db
        .prepare_cached("DELETE FROM members WHERE workspace_id = ?1 AND principal_id = ?2 AND folder_id = ?3")?
        .execute([&workspace.public.id, &principal, &folder_id])?;
    tx.note(|about| {
        about.subject = Some(principal.clone());
        about.path = Some(path.clone());
    });
    tx.changed(&workspace.public.id, ChangeKind::MemberRemoved, News::about(principal).on(folder_id).at(path))?;
    Ok(Answer::empty(204))
}
