//! Retention, legal holds, records. What is here only ever adds protection, but for the release of a hold.

use rusqlite::{OptionalExtension, params};

use super::Outcome;
use super::copies::hold;
use super::intake::announce;
use super::metadata::{MOST, problem};
use crate::file360::model::{
    BatchResult, BatchResults, HeldItem, Hold, HoldAssignments, ItemKind, RecordStatus, Retention, RetentionStrength,
};
use crate::server::authorize::{Effect, Strength};
use crate::server::call::Answer;
use crate::server::names;
use crate::server::records::items::{self, Placed};
use crate::server::refusal::Refusal;
use crate::server::tx::{Tx, View};

fn retention_of(placed: &Placed) -> Option<Retention> {
    let (until, strength) = placed.item.retain_until.zip(placed.item.retain_strength)?;
    let strength = match strength {
        Strength::Governance => RetentionStrength::Governance,
        Strength::Regulatory => RetentionStrength::Regulatory,
    };
    let policy_id = placed.item.retain_policy.clone().unwrap_or_default();
    Some(Retention { until: crate::server::records::time(until), strength, policy_id })
}

/// `GET /v1/items/{id}/retention`
pub fn get_retention(view: &View<'_>) -> Outcome {
    let placed = items::by_id(view, view.call.param("id"))?;
    placed.authorize(view)?;
    let retention = retention_of(&placed).ok_or_else(|| Refusal::not_found("retention"))?;
    Ok(Answer::ok(&retention)?.tagged(&placed.item.etag()))
}

/// `PUT /v1/items/{id}/retention`
pub fn put_retention(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize(tx)?;
    let mut wanted: Retention = tx.call.json()?;
    tx.call.allow_match(&placed.item.etag())?;
    if placed.item.kind != ItemKind::File {
        return Err(Refusal::new(409, "state-conflict", "Files are retained, folders are not."));
    }
    wanted.until = crate::server::clock::to_millis(wanted.until);
    names::required_text(&wanted.policy_id, 512, "/policyId")?;
    let before = retention_of(&placed);
    if before.as_ref().is_some_and(|before| wanted.until < before.until || wanted.strength < before.strength) {
        let refusal = Refusal::new(409, "reduction-refused", "Retention is only ever extended.").audited();
        return Err(refusal.existing(&before));
    }
    if before.as_ref() != Some(&wanted) {
        tx.db
            .prepare_cached(
                "UPDATE items SET retain_until = ?2, retain_strength = ?3, retain_policy = ?4, rev = rev + 1 WHERE id = ?1",
            )?
            .execute(params![placed.item.id, wanted.until.as_millisecond(), wanted.strength as u8, wanted.policy_id])?;
        tx.details(serde_json::json!(wanted));
        announce(tx, &placed, placed.item.version)?;
    }
    let after = items::by_id(tx, &placed.item.id)?;
    Ok(Answer::ok(&wanted)?.tagged(&after.item.etag()))
}

fn find(view: &View<'_>, key: &str) -> Result<Option<Hold>, Refusal> {
    let mut find = view.db.prepare_cached("SELECT definition, rev FROM holds WHERE key = ?1")?;
    let found = find.query_row([key], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?))).optional()?;
    found.map(|(definition, rev)| parse(key, &definition, rev)).transpose()
}

fn parse(key: &str, definition: &str, rev: u64) -> Result<Hold, Refusal> {
    let hold: Hold = serde_json::from_str(definition)?;
    Ok(Hold { key: key.to_owned(), etag: format!("\"{rev}\""), ..hold })
}

/// `GET /v1/holds`
pub fn list(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let mut find = view.db.prepare_cached("SELECT key, definition, rev FROM holds WHERE key > ?1 ORDER BY key LIMIT ?2")?;
    let rows = find.query_map(params![after, limit + 1], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u64>(2)?))
    })?;
    let mut page = Vec::new();
    for row in rows {
        let (key, definition, rev) = row?;
        let hold = parse(&key, &definition, rev)?;
        page.push((key, hold));
    }
    Answer::page(page, limit)
}

/// `GET /v1/holds/{key}`
pub fn get(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let hold = find(view, view.call.param("key"))?.ok_or_else(|| Refusal::not_found("hold"))?;
    Ok(Answer::ok(&hold)?.tagged(&hold.etag))
}

/// `PUT /v1/holds/{key}`
pub fn put(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let key = tx.call.param("key").to_owned();
    names::required_text(&key, 512, "key")?;
    let before = find(tx, &key)?;
    let wanted: Hold = tx.call.json()?;
    if let Some(before) = &before {
        tx.call.allow_match(&before.etag)?;
    }
    names::required_text(&wanted.matter, 255, "/matter")?;
    names::text(wanted.description.as_deref().unwrap_or_default(), 4096, "/description")?;
    let wanted = Hold { key: String::new(), etag: String::new(), ..wanted };
    let text = serde_json::to_string(&wanted)?;
    if text.len() > 256 * 1024 {
        return Err(Refusal::new(413, "too-large", "A definition has at most 256 KiB."));
    }
    let same =
        before.as_ref().is_some_and(|before| Hold { key: String::new(), etag: String::new(), ..before.clone() } == wanted);
    if !same {
        tx.db
            .prepare_cached(
                "INSERT INTO holds (key, definition, rev, created_at) VALUES (?1, ?2, 1, ?3)
                 ON CONFLICT (key) DO UPDATE SET definition = ?2, rev = rev + 1",
            )?
            .execute(params![key, text, tx.now.as_millisecond()])?;
        tx.note(|about| about.subject = Some(key.clone()));
        tx.took_effect();
    }
    let after = find(tx, &key)?.ok_or_else(|| Refusal::not_found("hold"))?;
    Ok(Answer::json(if before.is_some() { 200 } else { 201 }, &after)?.tagged(&after.etag))
}

/// `GET /v1/holds/{key}/items`
pub fn items_of(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let key = view.call.param("key");
    find(view, key)?.ok_or_else(|| Refusal::not_found("hold"))?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let mut find = view.db.prepare_cached(
        "SELECT item_id, workspace_id, since FROM item_holds WHERE hold_key = ?1 AND item_id > ?2 ORDER BY item_id LIMIT ?3",
    )?;
    let rows = find.query_map(params![key, after, limit + 1], |row| {
        let since = crate::server::records::time(row.get(2)?);
        Ok(HeldItem { item_id: row.get(0)?, workspace_id: row.get(1)?, since })
    })?;
    let page = rows.map(|row| row.map(|held| (held.item_id.clone(), held))).collect::<Result<Vec<_>, _>>()?;
    Answer::page(page, limit)
}

/// `PUT /v1/items/{id}/holds/{key}`
pub fn apply(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize(tx)?;
    let key = tx.call.param("key").to_owned();
    find(tx, &key)?.ok_or_else(|| Refusal::not_found("hold"))?;
    let new = apply_one(tx, &placed, &key)?;
    let item = items::by_id(tx, &placed.item.id)?.shown(tx)?;
    Ok(Answer::json(if new { 201 } else { 200 }, &item)?.tagged(&item.etag))
}

fn apply_one(tx: &mut Tx<'_, '_, '_>, placed: &Placed, key: &str) -> Result<bool, Refusal> {
    if !hold(tx, key, &placed.item.id)? {
        return Ok(false);
    }
    touch(tx, placed, key)?;
    Ok(true)
}

fn touch(tx: &mut Tx<'_, '_, '_>, placed: &Placed, key: &str) -> Result<(), Refusal> {
    tx.db.prepare_cached("UPDATE items SET rev = rev + 1 WHERE id = ?1")?.execute([&placed.item.id])?;
    tx.note(|about| about.subject = Some(key.to_owned()));
    announce(tx, placed, placed.item.version)
}

/// `DELETE /v1/items/{id}/holds/{key}`
pub fn release(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize(tx)?;
    let key = tx.call.param("key").to_owned();
    let reason = tx.call.query("reason").map(str::to_owned);
    names::text(reason.as_deref().unwrap_or_default(), 1024, "reason")?;
    tx.details(serde_json::json!({"reason": reason}));
    if release_one(tx, &placed, &key)? { Ok(Answer::empty(204)) } else { Err(Refusal::not_found("hold on this item")) }
}

fn release_one(tx: &mut Tx<'_, '_, '_>, placed: &Placed, key: &str) -> Result<bool, Refusal> {
    let released = tx
        .db
        .prepare_cached("DELETE FROM item_holds WHERE hold_key = ?1 AND item_id = ?2")?
        .execute([key, &placed.item.id])?
        > 0;
    if released {
        touch(tx, placed, key)?;
    }
    Ok(released)
}

/// `POST /v1/holds/{key}/assignments`
pub fn assign(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.admitted()?;
    let key = tx.call.param("key").to_owned();
    find(tx, &key)?.ok_or_else(|| Refusal::not_found("hold"))?;
    let wanted: HoldAssignments = tx.call.json()?;
    if wanted.apply.len() + wanted.release.len() > MOST {
        return Err(Refusal::invalid("", "A batch has at most 1000 entries."));
    }
    let mut results = Vec::new();
    let applied = wanted.apply.iter().map(|id| (id, true));
    for (id, add) in applied.chain(wanted.release.iter().map(|id| (id, false))) {
        let outcome = items::by_id(tx, id).and_then(|placed| {
            placed.authorize_as(tx, if add { Effect::Govern } else { Effect::Ungovern }, |_| ())?;
            if add { apply_one(tx, &placed, &key) } else { release_one(tx, &placed, &key) }
        });
        let problem = outcome.err().map(|refusal| problem(&refusal));
        results.push(BatchResult { item_id: id.clone(), item: None, problem });
    }
    tx.note(|about| {
        about.item_id = None;
        about.path = None;
    });
    tx.details(serde_json::json!({"apply": wanted.apply, "release": wanted.release, "reason": wanted.reason}));
    Answer::ok(&BatchResults { results })
}

fn record_of(placed: &Placed) -> Result<RecordStatus, Refusal> {
    Ok(placed.item.record.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default())
}

/// `GET /v1/items/{id}/record`
pub fn get_record(view: &View<'_>) -> Outcome {
    let placed = items::by_id(view, view.call.param("id"))?;
    placed.authorize(view)?;
    Ok(Answer::ok(&record_of(&placed)?)?.tagged(&placed.item.etag()))
}

/// `PUT /v1/items/{id}/record`
pub fn put_record(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize(tx)?;
    let wanted: RecordStatus = tx.call.json()?;
    tx.call.require_match(&placed.item.etag())?;
    if placed.item.kind != ItemKind::File || placed.item.version.is_none() {
        return Err(Refusal::new(409, "state-conflict", "Released files become records."));
    }
    names::text(wanted.class.as_deref().unwrap_or_default(), 255, "/class")?;
    let before = record_of(&placed)?;
    if before.declared && !wanted.declared {
        return Err(Refusal::new(409, "record", "The declaration of a record is not taken back.")
            .existing(&before)
            .audited());
    }
    let after = RecordStatus { declared_at: before.declared_at.or(wanted.declared.then_some(tx.now)), ..wanted };
    if after.declared && after != before {
        tx.db
            .prepare_cached("UPDATE items SET record = ?2, rev = rev + 1 WHERE id = ?1")?
            .execute(params![placed.item.id, serde_json::to_string(&after)?])?;
        tx.details(serde_json::json!(after));
        announce(tx, &placed, placed.item.version)?;
    }
    let placed = items::by_id(tx, &placed.item.id)?;
    Ok(Answer::ok(&record_of(&placed)?)?.tagged(&placed.item.etag()))
}
