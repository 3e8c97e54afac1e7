//! Documents that a client keeps here, so that it needs no storage of its own. Each client has a namespace of its own.

use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::Outcome;
use crate::file360::model::ClientState;
use crate::server::call::Answer;
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
    let text = serde_json::to_string(&value)?;
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
        .execute(params![tx.call.client_id(), tx.call.param("key"), text, rev])?;
    let state = ClientState { value, etag: format!("\"{rev}\"") };
    Ok(Answer::json(if before.is_some() { 200 } else { 201 }, &state)?.tagged(&state.etag))
}

/// `DELETE /v1/client-state/{key}`
pub fn delete(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let before = find(tx)?.ok_or_else(|| Refusal::not_found("client-state document"))?;
    tx.call.require_match(&before.etag)?;
    tx.db
        .prepare_cached("DELETE FROM client_state WHERE client_id = ?1 AND key = ?2")?
        .execute([tx.call.client_id(), tx.call.param("key")])?;
    Ok(Answer::empty(204))
}
