//! Users, groups and guests.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::file360::model::{Principal, PrincipalKind, Role};
use crate::server::names;
use crate::server::refusal::Refusal;
use crate::server::tx::View;

/// Kinds by their number in the database.
pub const KINDS: [PrincipalKind; 4] =
    [PrincipalKind::User, PrincipalKind::Group, PrincipalKind::Guest, PrincipalKind::Client];
/// Roles by their number in the database.
pub const ROLES: [Role; 6] = [Role::Owner, Role::Manager, Role::Editor, Role::Contributor, Role::Uploader, Role::Viewer];

/// A person for whom a client calls.
#[derive(Clone, Debug)]
pub struct Person {
    /// Id of the principal.
    pub id: String,
    /// User or guest.
    pub kind: PrincipalKind,
    /// User name or address.
    pub name: String,
}

const COLUMNS: &str = "id, kind, name, display_name, email";

/// A principal from its row.
pub fn from_row(row: &Row<'_>) -> rusqlite::Result<Principal> {
    Ok(Principal {
        id: row.get(0)?,
        kind: super::enumerated(1, &KINDS, row.get(1)?)?,
        name: row.get(2)?,
        display_name: row.get(3)?,
        email: row.get(4)?,
    })
}

/// The principal with this id.
pub fn by_id(db: &Connection, id: &str) -> Result<Option<Principal>, Refusal> {
    let sql = const_format(COLUMNS, "WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([id], from_row).optional()?)
}

/// The principal of this kind with this name.
pub fn by_name(db: &Connection, kind: PrincipalKind, name: &str) -> Result<Option<Principal>, Refusal> {
    let sql = const_format(COLUMNS, "WHERE kind = ?1 AND name_fold = ?2");
    Ok(db.prepare_cached(&sql)?.query_row(params![kind as u8, names::fold(name)], from_row).optional()?)
}

/// Principals after `after` (kind and folded name), in that order.
pub fn list(
    db: &Connection,
    kind: Option<PrincipalKind>,
    name: Option<&str>,
    after: (i64, &str),
    limit: usize,
) -> Result<Vec<(String, Principal)>, Refusal> {
    let found = match name {
        Some(name) => named(db, kind, name, after)?,
        None => following(db, kind, after, limit)?,
    };
    Ok(found
        .into_iter()
        .map(|principal| (format!("{} {}", principal.kind as u8, names::fold(&principal.name)), principal))
        .collect())
}

/// At most one of each kind: one look-up each, however many people there are.
fn named(db: &Connection, kind: Option<PrincipalKind>, name: &str, after: (i64, &str)) -> Result<Vec<Principal>, Refusal> {
    let mut found = Vec::new();
    for known in KINDS.into_iter().filter(|known| kind.is_none_or(|kind| kind == *known)) {
        found.extend(
            by_name(db, known, name)?.filter(|found| (found.kind as i64, names::fold(&found.name).as_str()) > after),
        );
    }
    Ok(found)
}

fn following(
    db: &Connection,
    kind: Option<PrincipalKind>,
    after: (i64, &str),
    limit: usize,
) -> Result<Vec<Principal>, Refusal> {
    let within = if kind.is_some() { "kind = ?4 AND" } else { "?4 IS NULL AND" };
    let sql =
        const_format(COLUMNS, &format!("WHERE {within} (kind, name_fold) > (?1, ?2) ORDER BY kind, name_fold LIMIT ?3"));
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![after.0, after.1, limit + 1, kind.map(|kind| kind as u8)], from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn const_format(columns: &str, rest: &str) -> String {
    format!("SELECT {columns} FROM principals {rest}")
}

/// The user or guest with this id.
pub fn person(db: &Connection, id: &str) -> Result<Option<Person>, Refusal> {
    let found = by_id(db, id)?.filter(|found| matches!(found.kind, PrincipalKind::User | PrincipalKind::Guest));
    Ok(found.map(|found| Person { id: found.id, kind: found.kind, name: found.name }))
}

/// Inserts a principal, or updates display name and address. `None`: nothing changed.
pub fn upsert(db: &Connection, principal: &Principal) -> Result<Option<String>, Refusal> {
    if let Some(known) = by_name(db, principal.kind, &principal.name)? {
        if known.display_name == principal.display_name && known.email == principal.email {
            return Ok(None);
        }
        db.prepare_cached("UPDATE principals SET display_name = ?2, email = ?3 WHERE id = ?1")?.execute(params![
            known.id,
            principal.display_name,
            principal.email
        ])?;
        return Ok(Some(known.id));
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO principals (id, kind, name, name_fold, display_name, email) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let fold = names::fold(&principal.name);
    insert.execute(params![
        principal.id,
        principal.kind as u8,
        principal.name,
        fold,
        principal.display_name,
        principal.email
    ])?;
    Ok(Some(principal.id.clone()))
}

/// The strongest role that the acting person has through any of the `folders` (or anywhere in the workspace: `None`).
pub fn role_at(view: &View<'_>, workspace_id: &str, folders: Option<&[&str]>) -> Result<Option<Role>, Refusal> {
    let Some(person) = &view.person else { return Ok(None) };
    role_of(view, &person.id, workspace_id, folders)
}

/// The strongest role that a person has, by own grants and those of groups, through any of the `folders`.
pub fn role_of(
    view: &View<'_>,
    person_id: &str,
    workspace_id: &str,
    folders: Option<&[&str]>,
) -> Result<Option<Role>, Refusal> {
    let mut find = view.db.prepare_cached(
        "SELECT folder_id, role FROM members
         WHERE workspace_id = ?1 AND state = 0 AND (expires_at IS NULL OR expires_at > ?3)
           AND principal_id IN (SELECT ?2 UNION ALL SELECT group_id FROM group_members WHERE member_id = ?2)",
    )?;
    let rows = find.query_map(params![workspace_id, person_id, view.now.as_millisecond()], |row| {
        Ok((row.get::<_, String>(0)?, super::enumerated(1, &ROLES, row.get(1)?)?))
    })?;
    let mut roles = Vec::new();
    for row in rows {
        let (folder, role) = row?;
        if folders.is_none_or(|folders| folders.contains(&folder.as_str())) {
            roles.push(role);
        }
    }
    Ok(strongest(&roles))
}

/// Rights add up: who may read everything and may also add files is a contributor.
pub fn strongest(roles: &[Role]) -> Option<Role> {
    match roles.iter().min() {
        Some(Role::Uploader) if roles.contains(&Role::Viewer) => Some(Role::Contributor),
        strongest => strongest.copied(),
    }
}

/// What to call the principal on a page or in a mail.
pub fn label(principal: &Principal) -> &str {
    principal.display_name.as_deref().unwrap_or(&principal.name)
}
