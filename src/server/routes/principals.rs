//! Users, groups, guests.

use rusqlite::params;

use super::Outcome;
use crate::file360::model::{ChangeKind, Principal, PrincipalKind};
use crate::server::call::Answer;
use crate::server::names;
use crate::server::records::people;
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// `GET /v1/principals`
pub fn list(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let kind = match view.call.query("kind") {
        None => None,
        Some("User") => Some(PrincipalKind::User),
        Some("Group") => Some(PrincipalKind::Group),
        Some("Guest") => Some(PrincipalKind::Guest),
        Some("Client") => Some(PrincipalKind::Client),
        Some(_) => return Err(Refusal::malformed("`kind` is User, Group, Guest or Client.").at("kind", "Not a kind.")),
    };
    let after = view.call.after()?;
    let (after_kind, after_name) = match after.split_once(' ') {
        Some((kind, name)) => {
            (kind.parse().map_err(|_| Refusal::malformed("The cursor is not one of this server's."))?, name)
        }
        None => (-1, ""),
    };
    let limit = view.call.limit()?;
    Answer::page(people::list(view.db, kind, view.call.query("name"), (after_kind, after_name), limit)?, limit)
}

/// `GET /v1/principals/{id}`
pub fn get(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let found = people::by_id(view.db, view.call.param("id"))?.ok_or_else(|| Refusal::not_found("principal"))?;
    Answer::ok(&found)
}

/// `GET /v1/principals/{id}/members`
pub fn members(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let group = people::by_id(view.db, view.call.param("id"))?.filter(|found| found.kind == PrincipalKind::Group);
    let group = group.ok_or_else(|| Refusal::not_found("group"))?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let mut find = view.db.prepare_cached(
        "SELECT p.id, p.kind, p.name, p.display_name, p.email FROM group_members JOIN principals AS p ON p.id = member_id
         WHERE group_id = ?1 AND member_id > ?2 ORDER BY member_id LIMIT ?3",
    )?;
    let rows = find.query_map(params![group.id, after, limit + 1], people::from_row)?;
    let rows = rows.map(|row| row.map(|member| (member.id.clone(), member))).collect::<Result<Vec<_>, _>>()?;
    Answer::page(rows, limit)
}

/// `PUT /v1/guests/{email}`
pub fn put_guest(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let address = names::email(tx.call.param("email"))
        .ok_or_else(|| Refusal::invalid("email", "Not an e-mail address that can be written to."))?;
    if let Some(known) = people::by_name(tx.db, PrincipalKind::Guest, &address)? {
        return Answer::ok(&known);
    }
    let guest = Principal {
        id: tx.id('p'),
        kind: PrincipalKind::Guest,
        name: address.clone(),
        display_name: None,
        email: Some(address),
    };
    people::upsert(tx.db, &guest)?;
    tx.note(|about| about.subject = Some(guest.id.clone()));
    tx.announce(News { kind: ChangeKind::PrincipalChanged, ..News::about(&guest.id) })?;
    Answer::json(201, &guest)
}
