//! Documents that a client keeps here, so that it needs no storage of its own. Each client has a namespace of its own.

use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::Outcome;
use super::metadata::MOST;
use crate::file360::model::{ClientState, ClientStateBatch, ClientStateRow};
use crate::server::call::{Answer, MAX_PAGE};
use crate::server::names;
use crate::server::refusal::Refusal;
use crate::server::tx::{Tx, View};

/// Largest document, in bytes of its JSON.
const MAX_VALUE: usize = 256 * 1024;

fn find(view: &View<'_>) -> Result<Option<ClientState>, Refusal> {
    let key = view.call.param("key");
    names::required_text(key, 512, "key")?;
    let mut find = view.db.prepare_cached("SELECT value, rev FROM client_state WHERE client_id = ?1 AND key = ?2")?;
    let found = find
        .query_row([view.call.client_id(), key], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    found
        .map(|(value, rev)| Ok(ClientState { value: serde_json::from_str(&value)?, etag: format!("\"{rev}\"") }))
        .transpose()
}

/// `GET /v1/client-state/{key}`
pub fn get(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let found = find(view)?.ok_or_else(|| Refusal::not_found("client-state document"))?;
    if view.call.is_unchanged(&found.etag) {
        return Ok(Answer::empty(304).tagged(&found.etag));
    }
    Ok(Answer::ok(&found)?.tagged(&found.etag))
}

#[derive(serde::Deserialize)]
struct Input {
    value: Option<Value>,
}

/// `PUT /v1/client-state/{key}`
pub fn put(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let value = tx.call.json::<Input>()?.value.ok_or_else(|| Refusal::invalid("/value", "The value is missing or null."))?;
    let before = find(tx)?;
    match &before {
        Some(_) if tx.call.creates_only() => return Err(Refusal::etag_mismatch()),
        Some(before) => tx.call.require_match(&before.etag)?,
        None if tx.call.creates_only() => {}
        None if tx.call.headers.contains_key(http::header::IF_MATCH) => return Err(Refusal::etag_mismatch()),
        None => {
            return Err(Refusal::new(
                428,
                "precondition-required",
                "The document is new: the call needs `If-None-Match: *`.",
            ));
        }
    }
    let rev = store(tx, tx.call.param("key"), &value)?;
    let state = ClientState { value, etag: format!("\"{rev}\"") };
    Ok(Answer::json(if before.is_some() { 200 } else { 201 }, &state)?.tagged(&state.etag))
}

/// Keeps a document, whatever there was; returns what its entity tag is made of.
fn store(tx: &Tx<'_, '_, '_>, key: &str, value: &Value) -> Result<String, Refusal> {
    let text = serde_json::to_string(value)?;
    if text.len() > MAX_VALUE {
        return Err(Refusal::new(413, "too-large", "A document has at most 256 KiB."));
    }
    // Random, so that a document that was deleted and made again never has a tag that an older reader still holds.
    let rev = format!("{:016x}", rand::random::<u64>());
    tx.db
        .prepare_cached(
            "INSERT INTO client_state (client_id, key, value, rev) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (client_id, key) DO UPDATE SET value = ?3, rev = ?4",
        )?
        .execute(params![tx.call.client_id(), key, text, rev])?;
    Ok(rev)
}

fn remove(tx: &Tx<'_, '_, '_>, key: &str) -> Result<(), Refusal> {
    tx.db
        .prepare_cached("DELETE FROM client_state WHERE client_id = ?1 AND key = ?2")?
        .execute([tx.call.client_id(), key])?;
    Ok(())
}

/// `DELETE /v1/client-state/{key}`
pub fn delete(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let before = find(tx)?.ok_or_else(|| Refusal::not_found("client-state document"))?;
    tx.call.require_match(&before.etag)?;
    remove(tx, tx.call.param("key"))?;
    Ok(Answer::empty(204))
}

/// `GET /v1/client-state`, ordered by key.
pub fn list(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let prefix = view.call.query("prefix").unwrap_or_default();
    names::text(prefix, 512, "prefix")?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    // The first text that can come after the last key.
    let from = if after.is_empty() { prefix.to_owned() } else { format!("{after}\0") };
    let mut find = view.db.prepare_cached(
        "SELECT key, value, rev FROM client_state WHERE client_id = ?1 AND key >= ?2 ORDER BY key LIMIT ?3",
    )?;
    let mut rows = find.query(params![view.call.client_id(), from, limit + 1])?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let key: String = row.get(0)?;
        if !key.starts_with(prefix) {
            break;
        }
        let text = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        if page.len() == limit || bytes > MAX_PAGE {
            let next = page.last().map(|(key, _): &(String, _)| key.clone());
            return Answer::page_until(&page, next);
        }
        bytes += text.len();
        let value = serde_json::from_str(text)?;
        let etag = format!("\"{}\"", row.get::<_, String>(2)?);
        page.push((key.clone(), ClientStateRow { key, value, etag }));
    }
    Answer::page_until(&page, None)
}

/// `POST /v1/client-state/batch`
pub fn batch(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let batch: ClientStateBatch = tx.call.json()?;
    if batch.items.len() > MOST {
        return Err(Refusal::invalid("/items", "A batch has at most 1000 entries."));
    }
    for put in &batch.items {
        names::required_text(&put.key, 512, "/items/key")?;
        if put.key == "batch" {
            return Err(Refusal::invalid("/items/key", "The key `batch` could not be read again."));
        }
        match put.value.as_ref().filter(|value| !value.is_null()) {
            Some(value) => store(tx, &put.key, value).map(drop)?,
            None => remove(tx, &put.key)?,
        }
    }
    Ok(Answer::empty(204))
}
