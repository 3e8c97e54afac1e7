//! Versions of a file.

use rusqlite::params;

use super::Outcome;
use super::files::add_version;
use crate::file360::model::{ChangeKind, ItemKind, Version, VersionState};
use crate::server::authorize::Effect;
use crate::server::blobs::Blobs;
use crate::server::call::Answer;
use crate::server::records::items::{self, Placed, VersionRecord};
use crate::server::refusal::Refusal;
use crate::server::tx::{Tx, View};

const STATES: [VersionState; 3] = [VersionState::Released, VersionState::Pending, VersionState::Rejected];

fn public(record: VersionRecord, visible: Option<u64>) -> Version {
    Version {
        version: record.n,
        state: STATES.get(usize::from(record.state)).copied().unwrap_or(VersionState::Rejected),
        visible: visible == Some(record.n),
        size: record.size,
        sha256: record.sha256,
        mime_type: record.mime,
        created_by: record.created_by,
        created_at: crate::server::records::time(record.created_at),
    }
}

/// `GET /v1/items/{id}/versions`, the newest first. Only those who decide see pending and rejected ones.
pub fn list(view: &View<'_>) -> Outcome {
    let placed = items::by_id(view, view.call.param("id"))?;
    placed.authorize(view)?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let before: u64 =
        if after.is_empty() { i64::MAX as u64 } else { after.parse().map_err(|_| Refusal::malformed("Not a cursor."))? };
    let mut find = view.db.prepare_cached(
        "SELECT n, state, size, sha256, mime, created_by, creator_id, created_at FROM versions
         WHERE item_id = ?1 AND n < ?2 AND (?4 OR state = 0) ORDER BY n DESC LIMIT ?3",
    )?;
    let rows = find.query_map(params![placed.item.id, before, limit + 1, items::decides(view)], items::version_from_row)?;
    let rows = rows
        .map(|row| row.map(|row| (row.n.to_string(), public(row, placed.item.version))))
        .collect::<Result<Vec<_>, _>>()?;
    Answer::page(rows, limit)
}

/// The version that the path names, if the caller may know of it.
pub fn named(view: &View<'_>, placed: &Placed) -> Result<VersionRecord, Refusal> {
    let n = view.call.param("version").parse().map_err(|_| Refusal::not_found("version"))?;
    let found = items::version(view.db, &placed.item.id, n)?;
    let found =
        found.filter(|version| version.state == 0 || items::decides(view)).ok_or_else(|| Refusal::not_found("version"))?;
    view.note(|about| about.version = Some(n));
    Ok(found)
}

/// `DELETE /v1/items/{id}/versions/{version}`
pub fn delete(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize(tx)?;
    let version = named(tx, &placed)?;
    tx.call.require_match(&placed.item.etag())?;
    if placed.item.version == Some(version.n) {
        return Err(Refusal::new(409, "state-conflict", "The visible version is deleted with the file, or replaced first."));
    }
    for sql in [
        "INSERT OR IGNORE INTO orphans (sha256) SELECT sha256 FROM versions WHERE item_id = ?1 AND n = ?2",
        "DELETE FROM facets WHERE item_id = ?1 AND version = ?2",
        "DELETE FROM versions WHERE item_id = ?1 AND n = ?2",
        "UPDATE items SET rev = rev + 1 WHERE id = ?1 AND ?2 > 0",
    ] {
        tx.db.prepare_cached(sql)?.execute(params![placed.item.id, version.n])?;
    }
    super::items::announce(tx, &placed, ChangeKind::FileChanged)?;
    Ok(Answer::empty(204))
}

/// `POST /v1/items/{id}/versions/{version}/restorations`: the old bytes become a new version.
pub fn restore(tx: &mut Tx<'_, '_, '_>, blobs: &Blobs) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize_as(tx, Effect::ChangeFile, |_| ())?;
    if placed.item.kind != ItemKind::File {
        return Err(Refusal::not_found("version"));
    }
    let version = named(tx, &placed)?;
    tx.call.allow_match(&placed.item.etag())?;
    let blob = blobs.pin(version.sha256.clone(), version.size);
    add_version(tx, &placed, &version.mime, &blob, 201)
}
