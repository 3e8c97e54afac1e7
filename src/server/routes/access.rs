//! Who can read an item.

use std::collections::BTreeMap;

use rusqlite::params;

use super::Outcome;
use super::links;
use crate::file360::model::{AccessEntry, AccessList, ItemKind, PrincipalKind, Role, WorkspaceState};
use crate::server::call::Answer;
use crate::server::records::items::{self, Placed};
use crate::server::records::people::{self, KINDS, ROLES};
use crate::server::records::workspaces;
use crate::server::refusal::Refusal;
use crate::server::tx::View;

/// `GET /v1/items/{id}/access`
pub fn get(view: &View<'_>) -> Outcome {
    let placed = items::by_id(view, view.call.param("id"))?;
    placed.authorize(view)?;
    if placed.is_trashed() {
        return Answer::ok(&AccessList::default());
    }
    let (mut readers, mut denied): (BTreeMap<_, _>, BTreeMap<_, _>) =
        holders(view, &placed)?.into_iter().partition(|(_, entry)| entry.role != Role::Uploader);
    if let Some(creator) = own_reader(view, &placed, &readers)? {
        denied.remove(&creator.principal_id);
        readers.insert(creator.principal_id.clone(), creator);
    }
    let links = if counts(&placed, PrincipalKind::Guest, None) { links::audiences(view, &placed)? } else { Vec::new() };
    Answer::ok(&AccessList {
        items: readers.into_values().collect(),
        denied: denied.into_values().collect(),
        links,
        pending: placed.item.is_pending(),
    })
}

/// Everybody with a membership or a grant here, by id, with what their own grants add up to.
fn holders(view: &View<'_>, placed: &Placed) -> Result<BTreeMap<String, AccessEntry>, Refusal> {
    let mut find = view.db.prepare_cached(
        "SELECT m.principal_id, p.kind, p.name, m.folder_id, m.role FROM members AS m JOIN principals AS p ON p.id = m.principal_id
         WHERE m.workspace_id = ?1 AND m.state = 0 AND (m.expires_at IS NULL OR m.expires_at > ?2)",
    )?;
    let here = placed.ids();
    let mut held: BTreeMap<String, (PrincipalKind, String, Vec<Role>)> = BTreeMap::new();
    let mut rows = find.query(params![placed.item.workspace_id, view.now.as_millisecond()])?;
    while let Some(row) = rows.next()? {
        if !here.contains(&row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?) {
            continue;
        }
        let kind = crate::server::records::enumerated(1, &KINDS, row.get(1)?)?;
        let role = crate::server::records::enumerated(4, &ROLES, row.get(4)?)?;
        held.entry(row.get(0)?).or_insert((kind, row.get(2)?, Vec::new())).2.push(role);
    }
    let counted = held.into_iter().filter(|(_, (kind, name, _))| counts(placed, *kind, Some(name)));
    Ok(counted
        .filter_map(|(principal_id, (kind, name, roles))| {
            let role = people::strongest(&roles)?;
            Some((principal_id.clone(), AccessEntry { kind, name, principal_id, role }))
        })
        .collect())
}

/// Whether rights of this principal count, as the workspace is now. The same holds for whoever comes through a link.
fn counts(placed: &Placed, kind: PrincipalKind, address: Option<&str>) -> bool {
    let workspace = &placed.workspace.public;
    if kind != PrincipalKind::Guest {
        return true;
    }
    workspace.state == WorkspaceState::Active
        && address.is_none_or(|address| workspaces::may_share_with(&workspace.sharing, address))
}

/// Whoever made a file reads it, also with a role that reads nothing else.
fn own_reader(
    view: &View<'_>,
    placed: &Placed,
    readers: &BTreeMap<String, AccessEntry>,
) -> Result<Option<AccessEntry>, Refusal> {
    let Some(id) = placed.item.creator_id.as_ref().filter(|_| placed.item.kind == ItemKind::File) else {
        return Ok(None);
    };
    if readers.contains_key(id) {
        return Ok(None);
    }
    let Some(person) = people::by_id(view.db, id)?.filter(|person| counts(placed, person.kind, Some(&person.name))) else {
        return Ok(None);
    };
    let role = people::role_of(view, &person.id, &placed.item.workspace_id, Some(&placed.ids()))?;
    let entry = AccessEntry { kind: person.kind, name: person.name, principal_id: person.id, role: Role::Uploader };
    Ok(role.filter(|role| *role == Role::Uploader).map(|_| entry))
}
