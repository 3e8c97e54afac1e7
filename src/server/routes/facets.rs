//! Facets: what a client notes on a version of a file. Only that client sees it.

use rusqlite::{OptionalExtension, Row, params};

use super::Outcome;
use super::metadata::MOST;
use crate::file360::model::{ChangeKind, Facet, FacetBatch, FacetInput, FacetPut};
use crate::server::call::{Answer, MAX_PAGE};
use crate::server::names;
use crate::server::records::items;
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

const MAX_VALUE: usize = 64 * 1024;
const COLUMNS: &str = "item_id, version, name, value, rev";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Facet> {
    Ok(Facet {
        item_id: row.get(0)?,
        version: row.get(1)?,
        name: row.get(2)?,
        value: crate::server::records::json(3, row.get_ref(3)?.as_str()?)?,
        etag: format!("\"{}\"", row.get::<_, String>(4)?),
    })
}

fn find(view: &View<'_>, item_id: &str, version: u64, name: &str) -> Result<Option<Facet>, Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM facets WHERE client_id = ?1 AND name = ?2 AND item_id = ?3 AND version = ?4");
    let mut find = view.db.prepare_cached(&sql)?;
    Ok(find.query_row(params![view.call.client_id(), name, item_id, version], from_row).optional()?)
}

fn named(view: &View<'_>) -> Result<(String, u64, String), Refusal> {
    let version = view.call.param("version").parse().map_err(|_| Refusal::not_found("version"))?;
    Ok((view.call.param("id").to_owned(), version, view.call.param("name").to_owned()))
}

/// `GET /v1/items/{id}/versions/{version}/facets/{name}`
pub fn get(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let (item, version, name) = named(view)?;
    let found = find(view, &item, version, &name)?.ok_or_else(|| Refusal::not_found("facet"))?;
    Ok(Answer::ok(&found)?.tagged(&found.etag))
}

/// `PUT /v1/items/{id}/versions/{version}/facets/{name}`
pub fn put(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let (item_id, version, name) = named(tx)?;
    let FacetInput { value, announce } = tx.call.json()?;
    let before = find(tx, &item_id, version, &name)?;
    match &before {
        Some(_) if tx.call.creates_only() => return Err(Refusal::etag_mismatch()),
        Some(before) => tx.call.allow_match(&before.etag)?,
        None if tx.call.headers.contains_key(http::header::IF_MATCH) => return Err(Refusal::etag_mismatch()),
        None => {}
    }
    let facet = FacetPut { item_id: item_id.clone(), version, name: name.clone(), value: Some(value), announce };
    store(tx, &facet)?;
    let after = find(tx, &item_id, version, &name)?.ok_or_else(|| Refusal::invalid("/value", "A facet is not null."))?;
    Ok(Answer::json(if before.is_some() { 200 } else { 201 }, &after)?.tagged(&after.etag))
}

/// `POST /v1/facets/batch`
pub fn batch(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let batch: FacetBatch = tx.call.json()?;
    if batch.items.len() > MOST {
        return Err(Refusal::invalid("/items", "A batch has at most 1000 entries."));
    }
    for facet in &batch.items {
        store(tx, facet)?;
    }
    Ok(Answer::empty(204))
}

fn store(tx: &mut Tx<'_, '_, '_>, facet: &FacetPut) -> Result<(), Refusal> {
    names::required_text(&facet.name, 128, "/name")?;
    let client = tx.call.client_id().to_owned();
    let before: Option<String> = tx
        .db
        .prepare_cached("SELECT value FROM facets WHERE client_id = ?1 AND name = ?2 AND item_id = ?3 AND version = ?4")?
        .query_row(params![client, facet.name, facet.item_id, facet.version], |row| row.get(0))
        .optional()?;
    let Some(value) = facet.value.as_ref().filter(|value| !value.is_null()) else {
        tx.db
            .prepare_cached("DELETE FROM facets WHERE client_id = ?1 AND name = ?2 AND item_id = ?3 AND version = ?4")?
            .execute(params![client, facet.name, facet.item_id, facet.version])?;
        return if before.is_some() { announce(tx, facet) } else { Ok(()) };
    };
    let text = value.to_string();
    if text.len() > MAX_VALUE {
        return Err(Refusal::new(413, "too-large", "A facet has at most 64 KiB."));
    }
    let item = items::find(tx.db, &facet.item_id)?.ok_or_else(|| Refusal::not_found("item"))?;
    items::version(tx.db, &item.id, facet.version)?.ok_or_else(|| Refusal::not_found("version"))?;
    tx.db
        .prepare_cached(
            "INSERT OR REPLACE INTO facets (client_id, name, item_id, version, workspace_id, value, rev) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![client, facet.name, item.id, facet.version, item.workspace_id, &text, format!("{:016x}", rand::random::<u64>())])?;
    if before.as_ref() == Some(&text) { Ok(()) } else { announce(tx, facet) }
}

/// Tells that a facet changed, if its client asked for that.
fn announce(tx: &mut Tx<'_, '_, '_>, facet: &FacetPut) -> Result<(), Refusal> {
    if !facet.announce {
        return Ok(());
    }
    // Of what is gone there is nothing to follow.
    let Ok(placed) = items::by_id(tx, &facet.item_id) else { return Ok(()) };
    tx.announce(News {
        kind: ChangeKind::FacetChanged,
        workspace_id: Some(placed.item.workspace_id.clone()),
        version: Some(facet.version),
        facet: Some(facet.name.clone()),
        ..News::about(&placed.item.id).at(placed.path())
    })
}

/// `GET /v1/facets`
pub fn query(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let name = view.call.query("name").ok_or_else(|| Refusal::malformed("`name` is missing.").at("name", "Missing."))?;
    names::required_text(name, 128, "name")?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let (after_item, after_version) = after.split_once(' ').unwrap_or(("", "0"));
    let after_version: u64 =
        after_version.parse().map_err(|_| Refusal::malformed("The cursor is not one of this server's."))?;
    let workspace = view.call.query("workspaceId");
    let within = if workspace.is_some() { "workspace_id = ?6" } else { "?6 IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM facets WHERE client_id = ?1 AND name = ?2 AND (item_id, version) > (?3, ?4) AND {within}
         ORDER BY item_id, version LIMIT ?5"
    );
    let mut find = view.db.prepare_cached(&sql)?;
    let mut rows = find.query(params![view.call.client_id(), name, after_item, after_version, limit + 1, workspace])?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        if page.len() == limit || bytes > MAX_PAGE {
            let next = page.last().map(|(key, _): &(String, _)| key.clone());
            return Answer::page_until(&page, next);
        }
        bytes += row.get_ref(3)?.as_str().map_or(0, str::len);
        let facet = from_row(row)?;
        page.push((format!("{} {}", facet.item_id, facet.version), facet));
    }
    Answer::page_until(&page, None)
}
