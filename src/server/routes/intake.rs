//! Intake policies, what waits for a decision, and decisions; quarantine.

use rusqlite::{OptionalExtension, params};

use super::{Outcome, trash};
use crate::file360::model::{ChangeKind, Decision, DecisionInput, Intake, ItemKind, Pending, Quarantine};
use crate::server::call::Answer;
use crate::server::names;
use crate::server::records::{
    self,
    items::{self, Placed},
};
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// `GET /v1/items/{id}/intake`
pub fn get(view: &View<'_>) -> Outcome {
    let placed = items::by_id(view, view.call.param("id"))?;
    placed.authorize(view)?;
    Ok(Answer::ok(&policy(&placed)?)?.tagged(&placed.item.etag()))
}

fn policy(placed: &Placed) -> Result<Intake, Refusal> {
    let actions = placed.item.intake.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default();
    Ok(Intake { actions })
}

/// `PUT /v1/items/{id}/intake`. Less than before holds back less of what is to come; what is pending stays pending. More than before withholds the
/// shares that are there.
pub fn put(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize(tx)?;
    let mut wanted: Intake = tx.call.json()?;
    tx.call.allow_match(&placed.item.etag())?;
    if placed.item.kind != ItemKind::Folder {
        return Err(Refusal::new(409, "state-conflict", "Intake policies stand on folders."));
    }
    wanted.actions.sort_unstable();
    wanted.actions.dedup();
    if policy(&placed)? != wanted {
        let was = placed.gate();
        let text = (!wanted.actions.is_empty()).then(|| serde_json::to_string(&wanted.actions)).transpose()?;
        tx.db
            .prepare_cached("UPDATE items SET intake = ?2, rev = rev + 1 WHERE id = ?1")?
            .execute(params![placed.item.id, text])?;
        tx.details(serde_json::json!({"actions": wanted.actions}));
        announce(tx, &placed, None)?;
        super::gated::closed(tx, &placed.item.id, was)?;
    }
    let after = items::by_id(tx, &placed.item.id)?;
    Ok(Answer::ok(&wanted)?.tagged(&after.item.etag()))
}

/// An entry about governance. It moves no revision: it is not one of the things that a revision counts.
pub fn announce(tx: &mut Tx<'_, '_, '_>, placed: &Placed, version: Option<u64>) -> Result<(), Refusal> {
    let news = News { version, ..News::about(&placed.item.id).of(placed) };
    tx.announce(News { kind: ChangeKind::GovernanceChanged, ..news })
}

/// `GET /v1/pending`
pub fn list(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let workspace = view.call.query("workspaceId");
    // CROSS JOIN: what is pending comes first, and its items are looked up; never the other way round.
    let mut find = view.db.prepare_cached(
        "SELECT * FROM (
           SELECT 'v' || v.item_id || printf('%012d', v.n) AS sort, i.workspace_id AS workspace, v.item_id, v.n, 0, NULL, NULL,
               v.created_by, coalesce(v.withheld_at, v.created_at)
             FROM versions AS v CROSS JOIN items AS i ON i.id = v.item_id WHERE v.state = 1
           UNION ALL SELECT 'd' || p.item_id, i.workspace_id, p.item_id, NULL, 1, NULL, NULL, p.requested_by, p.requested_at
             FROM pending_deletes AS p CROSS JOIN items AS i ON i.id = p.item_id
           UNION ALL SELECT 'l' || id, workspace_id, item_id, NULL, 0, id, NULL, requested_by, requested_at FROM links WHERE state = 1
           UNION ALL SELECT 'm' || folder_id || principal_id, workspace_id, folder_id, NULL, 0, NULL, principal_id, requested_by, requested_at
             FROM members WHERE state = 1
         ) WHERE sort > ?1 AND (?2 IS NULL OR workspace = ?2) ORDER BY sort LIMIT ?3",
    )?;
    let rows = find.query_map(params![after, workspace, limit + 1], |row| {
        let pending = Pending {
            workspace_id: row.get(1)?,
            item_id: row.get(2)?,
            version: row.get(3)?,
            delete: row.get(4)?,
            link: row.get(5)?,
            member: row.get(6)?,
            requested_by: row.get::<_, Option<String>>(7)?.as_deref().map(|text| records::json(7, text)).transpose()?,
            since: row.get::<_, Option<i64>>(8)?.map(records::time),
        };
        Ok((row.get::<_, String>(0)?, pending))
    })?;
    Answer::page(rows.collect::<Result<Vec<_>, _>>()?, limit)
}

/// `POST /v1/items/{id}/decisions`
pub fn decide(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize(tx)?;
    let input: DecisionInput = tx.call.json()?;
    if let Some(reason) = &input.reason {
        names::text(reason, 1024, "/reason")?;
    }
    if input.evidence.len() > 32 {
        return Err(Refusal::invalid("/evidence", "At most 32 entries."));
    }
    for (name, value) in &input.evidence {
        names::required_text(name, 63, "/evidence")?;
        names::text(value, 1024, "/evidence")?;
    }
    let mut details = serde_json::json!({"decision": input.decision, "reason": input.reason});
    if !input.evidence.is_empty() {
        details["evidence"] = serde_json::to_value(&input.evidence)?;
    }
    tx.details(details);
    match (input.version, input.delete, &input.link, &input.member) {
        (Some(n), false, None, None) => decide_version(tx, &placed, n, &input)?,
        (None, true, None, None) => decide_delete(tx, &placed, &input)?,
        (None, false, Some(link), None) => decide_link(tx, &placed, link, &input)?,
        (None, false, None, Some(member)) => decide_member(tx, &placed, member, &input)?,
        _ => return Err(Refusal::invalid("", "Exactly one of version, delete, link and member.")),
    }
    tx.took_effect();
    let item = items::by_id(tx, &placed.item.id)?.shown(tx)?;
    Ok(Answer::ok(&item)?.tagged(&item.etag))
}

fn settled() -> Refusal {
    Refusal::new(409, "already-decided", "It was decided otherwise; the first decision stands.").audited()
}

/// A decision is for what was pending when it was made: what was asked for again since is another thing.
fn require_since(input: &DecisionInput, since: Option<i64>) -> Result<(), Refusal> {
    match input.since {
        Some(seen) if Some(seen.as_millisecond()) != since => {
            let detail = "It was asked for again since; the decision was for what was pending before.";
            Err(Refusal::new(409, "superseded", detail).audited())
        }
        _ => Ok(()),
    }
}

fn decide_version(tx: &mut Tx<'_, '_, '_>, placed: &Placed, n: u64, input: &DecisionInput) -> Result<(), Refusal> {
    let version = items::version(tx.db, &placed.item.id, n)?.ok_or_else(|| Refusal::not_found("version"))?;
    tx.note(|about| about.version = Some(n));
    if input.sha256.as_ref().is_some_and(|claimed| !claimed.eq_ignore_ascii_case(&version.sha256)) {
        return Err(Refusal::new(422, "digest-mismatch", "The version has another digest than the decision was made for."));
    }
    match (version.state, input.decision) {
        (0, Decision::Release) | (2, Decision::Reject) => return Ok(()),
        (0 | 2, _) => return Err(settled()),
        _ => {}
    }
    let mut find =
        tx.db.prepare_cached("SELECT coalesce(withheld_at, created_at) FROM versions WHERE item_id = ?1 AND n = ?2")?;
    require_since(input, find.query_row(params![placed.item.id, n], |row| row.get(0))?)?;
    let released = input.decision == Decision::Release;
    tx.db.prepare_cached("UPDATE versions SET state = ?3 WHERE item_id = ?1 AND n = ?2")?.execute(params![
        placed.item.id,
        n,
        if released { 0 } else { 2 }
    ])?;
    if !released {
        tx.db.prepare_cached("UPDATE items SET rev = rev + 1 WHERE id = ?1")?.execute([&placed.item.id])?;
        return announce(tx, placed, Some(n));
    }
    // An older version that is released late does not hide a newer one.
    tx.db
        .prepare_cached("UPDATE items SET version = max(coalesce(version, 0), ?2), rev = rev + 1 WHERE id = ?1")?
        .execute(params![placed.item.id, n])?;
    if placed.is_trashed() {
        return announce(tx, placed, Some(n));
    }
    let kind = if placed.item.version.is_none() { ChangeKind::FileUploaded } else { ChangeKind::VersionAdded };
    let news =
        News { version: Some(n), workspace_id: Some(placed.item.workspace_id.clone()), ..News::about(&placed.item.id) };
    tx.announce(News { kind, ..news.at(placed.path()) })
}

fn decide_delete(tx: &mut Tx<'_, '_, '_>, placed: &Placed, input: &DecisionInput) -> Result<(), Refusal> {
    let mut find = tx.db.prepare_cached("SELECT requested_at FROM pending_deletes WHERE item_id = ?1")?;
    let since: Option<i64> = find.query_row([&placed.item.id], |row| row.get(0)).optional()?;
    require_since(input, Some(since.ok_or_else(|| Refusal::not_found("pending delete"))?))?;
    tx.db.prepare_cached("DELETE FROM pending_deletes WHERE item_id = ?1")?.execute([&placed.item.id])?;
    if input.decision == Decision::Reject {
        return announce(tx, placed, None);
    }
    // Protection may have come since it was asked for.
    placed.authorize_as(tx, crate::server::authorize::Effect::DeleteItem, |_| ())?;
    trash::put(tx, placed, false)
}

/// Whether a share is pending: 0 or 1, and when it was asked for.
type Asked = Option<(u8, Option<i64>)>;

/// The state of a share, if the decision is for it as it is now.
fn share_state(input: &DecisionInput, found: Asked) -> Result<Option<u8>, Refusal> {
    if let Some((1, since)) = found {
        require_since(input, since)?;
    }
    Ok(found.map(|(state, _)| state))
}

fn decide_link(tx: &mut Tx<'_, '_, '_>, placed: &Placed, link: &str, input: &DecisionInput) -> Result<(), Refusal> {
    let mut find = tx.db.prepare_cached("SELECT state, requested_at FROM links WHERE id = ?1 AND item_id = ?2")?;
    let found: Asked = find.query_row([link, &placed.item.id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match (share_state(input, found)?, input.decision) {
        (None, _) => return Err(Refusal::not_found("link")),
        (Some(0), Decision::Release) => return Ok(()),
        (Some(0), Decision::Reject) => return Err(settled()),
        (Some(_), Decision::Release) => {
            tx.db.prepare_cached("UPDATE links SET state = 0, rev = rev + 1 WHERE id = ?1")?.execute([link])?;
        }
        (Some(_), Decision::Reject) => {
            tx.db.prepare_cached("DELETE FROM links WHERE id = ?1")?.execute([link])?;
        }
    }
    let news = News::about(link).on(&placed.item.id).of(placed);
    tx.changed(&placed.item.workspace_id, ChangeKind::LinkChanged, news).map(drop)
}

fn decide_member(tx: &mut Tx<'_, '_, '_>, placed: &Placed, member: &str, input: &DecisionInput) -> Result<(), Refusal> {
    let mut find = tx.db.prepare_cached(
        "SELECT state, requested_at FROM members WHERE folder_id = ?1 AND principal_id = ?2 AND workspace_id = ?3",
    )?;
    let names = [placed.item.id.as_str(), member, placed.item.workspace_id.as_str()];
    let found: Asked = find.query_row(names, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let kind = match (share_state(input, found)?, input.decision) {
        (None, _) => return Err(Refusal::not_found("member")),
        (Some(0), Decision::Release) => return Ok(()),
        (Some(0), Decision::Reject) => return Err(settled()),
        (Some(_), Decision::Release) => {
            tx.db
                .prepare_cached(
                    "UPDATE members SET state = 0 WHERE folder_id = ?1 AND principal_id = ?2 AND workspace_id = ?3",
                )?
                .execute(names)?;
            super::members::invite_released(tx, &placed.workspace, member)?;
            ChangeKind::MemberSet
        }
        (Some(_), Decision::Reject) => {
            tx.db
                .prepare_cached("DELETE FROM members WHERE folder_id = ?1 AND principal_id = ?2 AND workspace_id = ?3")?
                .execute(names)?;
            ChangeKind::MemberRemoved
        }
    };
    tx.changed(&placed.item.workspace_id, kind, News::about(member).on(&placed.item.id).of(placed)).map(drop)
}

/// What leaves quarantine arrives for whoever left it alone before: its visible version is announced as on its first day.
fn tell_of_release(tx: &mut Tx<'_, '_, '_>, placed: &Placed) -> Result<(), Refusal> {
    let Some(n) = placed.item.version.filter(|_| !placed.is_trashed()) else { return Ok(()) };
    let kind = if n == 1 { ChangeKind::FileUploaded } else { ChangeKind::VersionAdded };
    tx.announce(News { kind, version: Some(n), ..News::about(&placed.item.id).of(placed) })
}

/// `PUT /v1/items/{id}/quarantine`
pub fn quarantine(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize(tx)?;
    let wanted: Quarantine = tx.call.json()?;
    tx.call.allow_match(&placed.item.etag())?;
    if placed.item.kind != ItemKind::File {
        return Err(Refusal::new(409, "state-conflict", "Files are quarantined, folders are not."));
    }
    if placed.item.quarantined != wanted.quarantined {
        tx.db
            .prepare_cached("UPDATE items SET quarantined = ?2, rev = rev + 1 WHERE id = ?1")?
            .execute(params![placed.item.id, wanted.quarantined])?;
        tx.details(serde_json::json!({"quarantined": wanted.quarantined, "reason": wanted.reason}));
        announce(tx, &placed, placed.item.version)?;
        if !wanted.quarantined {
            tell_of_release(tx, &placed)?;
        }
    }
    let after = items::by_id(tx, &placed.item.id)?;
    Ok(Answer::ok(&wanted)?.tagged(&after.item.etag()))
}
