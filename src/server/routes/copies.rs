//! Copies. They inherit what protects their source.

use rusqlite::params;

use super::files::{self, Arrival};
use super::{Outcome, folders};
use crate::file360::model::{ChangeKind, ItemKind, NewCopy, OnConflict};
use crate::server::authorize::Effect;
use crate::server::blobs::Blobs;
use crate::server::call::{Answer, Payload};
use crate::server::names;
use crate::server::records::items::{self, Placed};
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx};

/// Most items in one copy.
const MOST: usize = 1000;

/// `POST /v1/items/{id}/copies`
pub fn create(tx: &mut Tx<'_, '_, '_>, blobs: &Blobs) -> Outcome {
    let source = items::by_id(tx, tx.call.param("id"))?;
    source.authorize_as(tx, Effect::ReadContent, |_| ())?;
    let new: NewCopy = tx.call.json()?;
    let name = names::file_name(new.name.as_deref().unwrap_or(&source.item.name), "/name")?;
    let target = items::by_id(tx, &new.parent_id).map_err(|_| missing())?;
    if target.item.kind != ItemKind::Folder {
        return Err(missing());
    }
    if target.ids().contains(&source.item.id.as_str()) {
        return Err(Refusal::invalid("/parentId", "A folder cannot be copied into itself."));
    }
    if source.item.kind == ItemKind::File {
        return copy_file(tx, blobs, &source, &target, name, new.on_conflict);
    }
    let mut left = MOST;
    let id = copy_folder(tx, blobs, &source, &target, &name, &mut left)?;
    let item = items::by_id(tx, &id)?.shown(tx)?;
    Ok(Answer::json(201, &item)?.tagged(&item.etag))
}

fn missing() -> Refusal {
    Refusal::new(422, "parent-missing", "The folder that receives the copy does not exist.")
        .at("/parentId", "No such folder.")
}

fn copy_file(
    tx: &mut Tx<'_, '_, '_>,
    blobs: &Blobs,
    source: &Placed,
    target: &Placed,
    name: String,
    on_conflict: OnConflict,
) -> Outcome {
    // Reading the bytes is part of copying them: what cannot be downloaded cannot be copied away either.
    source.authorize_as(tx, Effect::Download, |_| ())?;
    let n = source.item.version.ok_or_else(|| Refusal::not_found("item"))?;
    let version = items::version(tx.db, &source.item.id, n)?.ok_or_else(|| Refusal::not_found("version"))?;
    let blob = blobs.pin(version.sha256, version.size);
    let arrival =
        Arrival { name, mime: version.mime, metadata: source.item.metadata.clone(), on_conflict, upload_request: None };
    target.authorize_as(tx, Effect::AddFile, |_| ())?;
    let answer = files::add(tx, target, &arrival, &blob)?;
    if let Payload::Json(body) = &answer.body {
        let made: crate::file360::model::Item = serde_json::from_slice(body)?;
        inherit(tx, source, &made.id)?;
        let item = items::by_id(tx, &made.id)?.shown(tx)?;
        return Ok(Answer::json(answer.status.as_u16(), &item)?.tagged(&item.etag));
    }
    Ok(answer)
}

/// Retention, holds and quarantine go along; being a record does not, because that is declared of one document.
fn inherit(tx: &Tx<'_, '_, '_>, source: &Placed, copy_id: &str) -> Result<(), Refusal> {
    let item = &source.item;
    tx.db
        .prepare_cached(
            "UPDATE items SET classification = coalesce(?2, classification), quarantined = max(quarantined, ?3),
                 retain_policy = CASE WHEN ?4 > coalesce(retain_until, 0) THEN ?6 ELSE retain_policy END,
                 retain_until = max(coalesce(retain_until, ?4), coalesce(?4, retain_until)),
                 retain_strength = max(coalesce(retain_strength, ?5), coalesce(?5, retain_strength))
             WHERE id = ?1",
        )?
        .execute(params![
            copy_id,
            item.classification,
            item.quarantined,
            item.retain_until,
            item.retain_strength.map(|strength| strength as u8),
            item.retain_policy,
        ])?;
    for key in items::holds(tx.db, &source.ids())? {
        hold(tx, &key, copy_id)?;
    }
    Ok(())
}

/// Puts an item under a hold. `true`: it was not before.
pub fn hold(tx: &Tx<'_, '_, '_>, key: &str, item_id: &str) -> Result<bool, Refusal> {
    let mut insert = tx.db.prepare_cached(
        "INSERT OR IGNORE INTO item_holds (hold_key, item_id, workspace_id, since) SELECT ?1, id, workspace_id, ?3 FROM items WHERE id = ?2",
    )?;
    Ok(insert.execute(params![key, item_id, tx.now.as_millisecond()])? > 0)
}

fn copy_folder(
    tx: &mut Tx<'_, '_, '_>,
    blobs: &Blobs,
    source: &Placed,
    target: &Placed,
    name: &str,
    left: &mut usize,
) -> Result<String, Refusal> {
    target.authorize_as(tx, Effect::AddFolder, |_| ())?;
    if let Some(existing) = items::child(tx.db, &target.item.id, name)? {
        let path = items::join(&target.path(), &existing.name);
        return Err(Refusal::new(409, "name-exists", "The name is taken in this folder.").existing(&existing.folder(path)));
    }
    let id = folders::make(tx, &target.item, name, &source.item)?;
    let path = items::join(&target.path(), name);
    tx.changed(&target.item.workspace_id, ChangeKind::FolderChanged, News::about(&id).at(path))?;
    for key in items::holds(tx.db, &source.ids())? {
        hold(tx, &key, &id)?;
    }
    let copy = items::by_id(tx, &id)?;
    let mut find = tx
        .db
        .prepare_cached("SELECT id FROM items WHERE parent_id = ?1 AND trashed_at IS NULL ORDER BY name_fold LIMIT ?2")?;
    let children =
        find.query_map(params![source.item.id, *left + 1], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    drop(find);
    for child in children {
        *left = left.checked_sub(1).ok_or_else(|| Refusal::new(422, "too-many-items", "A copy has at most 1000 items."))?;
        let child = items::by_id(tx, &child)?;
        let name = child.item.name.clone();
        if child.item.kind == ItemKind::Folder {
            copy_folder(tx, blobs, &child, &copy, &name, left)?;
        } else if child.item.version.is_some() {
            copy_file(tx, blobs, &child, &copy, name, OnConflict::Fail)?;
        }
    }
    Ok(id)
}
