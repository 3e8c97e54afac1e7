//! Folders and files as items: read, rename, move, label, delete.

use rusqlite::params;

use super::copies::hold;
use super::folders::{count_children, validate_managed_key};
use super::gated::{self, Change};
use super::{Outcome, workspaces as properties};
use crate::file360::model::{ChangeKind, ItemKind, ItemPatch};
use crate::server::authorize::{Effect, Gate, Permit};
use crate::server::call::Answer;
use crate::server::names;
use crate::server::records::items::{self, Placed};
use crate::server::records::workspaces;
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// How long a deleted item stays in the trash.
pub const TRASH_MS: i64 = 30 * 86_400_000;

/// `GET /v1/items/{id}`
pub fn get(view: &View<'_>) -> Outcome {
    let placed = items::by_id(view, view.call.param("id"))?;
    placed.authorize(view)?;
    show(view, &placed)
}

fn show(view: &View<'_>, placed: &Placed) -> Outcome {
    let item = placed.shown(view)?;
    if view.call.is_unchanged(&item.etag) {
        return Ok(Answer::empty(304).tagged(&item.etag));
    }
    Ok(Answer::ok(&item)?.tagged(&item.etag))
}

/// `GET /v1/workspaces/{id}/resolve`
pub fn resolve(view: &View<'_>) -> Outcome {
    let workspace = workspaces::by_id(view, view.call.param("id"))?;
    let path = view.call.query("path").ok_or_else(|| Refusal::malformed("`path` is missing.").at("path", "Missing."))?;
    let found = items::at_path(view, &workspace, &names::segments(path, "path")?)?;
    let Some(placed) = found else {
        workspace.authorize(view)?;
        return Err(Refusal::not_found("item"));
    };
    placed.authorize(view)?;
    show(view, &placed)
}

/// `GET /v1/items/{id}/children`
pub fn children(view: &View<'_>) -> Outcome {
    let folder = items::by_id(view, view.call.param("id"))?;
    folder.authorize(view)?;
    if folder.item.kind != ItemKind::Folder {
        return Err(Refusal::new(409, "state-conflict", "A file has no children."));
    }
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let decides = items::decides(view);
    // An uploader sees only what is their own.
    let own = match (&view.person, folder.role(view)?) {
        (Some(person), Some(crate::file360::model::Role::Uploader)) => Some(person.id.clone()),
        _ => None,
    };
    let sql = format!(
        "SELECT {} FROM items WHERE parent_id = ?1 AND name_fold > ?2 AND trashed_at IS NULL
           AND (?4 OR kind = 0 OR version IS NOT NULL) AND (?5 IS NULL OR creator_id = ?5)
         ORDER BY name_fold LIMIT ?3",
        items::COLUMNS
    );
    let mut find = view.db.prepare_cached(&sql)?;
    let rows = find.query_map(params![folder.item.id, after, limit + 1, decides, own], items::from_row)?;
    let (path, mut inherited) = (folder.path(), items::holds(view.db, &folder.ids())?);
    inherited.dedup();
    let mut page = Vec::new();
    for row in rows {
        let row = row?;
        let mut holds = items::holds(view.db, &[&row.id])?;
        holds.extend(inherited.iter().cloned());
        holds.sort();
        holds.dedup();
        let key = names::fold(&row.name);
        page.push((key, items::public(view.db, &row, items::join(&path, &row.name), folder.is_trashed(), holds, decides)?));
    }
    Answer::page(page, limit)
}

/// `PATCH /v1/items/{id}`
pub fn update(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let before = items::by_id(tx, tx.call.param("id"))?;
    let patch: ItemPatch = tx.call.json()?;
    let name = patch.name.as_deref().map(|name| names::file_name(name, "/name")).transpose()?;
    let moved = patch.parent_id.as_ref().is_some_and(|parent| before.item.parent_id.as_ref() != Some(parent));
    let renamed = name.as_ref().is_some_and(|name| *name != before.item.name);
    let relocked = patch.locked.is_some_and(|locked| locked != before.item.locked);
    before.authorize_as(tx, Effect::ChangeItem, |target| {
        if let Some(item) = &mut target.item {
            item.changes_substance = moved || renamed || relocked;
        }
    })?;
    tx.call.require_match(&before.item.etag())?;
    let mut after = before.item.clone();
    if let Some(classification) = patch.classification {
        after.classification = classification;
    }
    properties::merge(&mut after.metadata, patch.metadata);
    after.locked = patch.locked.unwrap_or(after.locked);
    if let Some(key) = patch.managed_key {
        validate_managed_key(key.as_deref())?;
        after.managed_key = key;
    }
    properties::validate_common(after.classification.as_deref(), &after.metadata)?;
    after.name = name.unwrap_or(after.name);
    let gate = if moved {
        relocate(tx, &before, &mut after, patch.parent_id.as_deref().unwrap_or_default())?
    } else {
        before.gate()
    };
    if renamed || moved {
        check_free(tx, &after)?;
    }
    let labelled = after.classification != before.item.classification || after.metadata != before.item.metadata;
    if moved || renamed || relocked || labelled || after.managed_key != before.item.managed_key {
        let withheld = gated::apply(tx, &before, gate, Change { moved, renamed, labelled })?;
        store(tx, &after)?;
        if !withheld {
            announce_change(tx, &items::by_id(tx, &after.id)?)?;
        }
    }
    let item = items::by_id(tx, &after.id)?.shown(tx)?;
    Ok(Answer::ok(&item)?.tagged(&item.etag))
}

fn announce_change(tx: &mut Tx<'_, '_, '_>, placed: &Placed) -> Result<(), Refusal> {
    let is_file = placed.item.kind == ItemKind::File;
    announce(tx, placed, if is_file { ChangeKind::FileChanged } else { ChangeKind::FolderChanged })
}

/// Merges metadata into an item that the caller may change. Nothing happens if nothing changes.
pub fn set_metadata(
    tx: &mut Tx<'_, '_, '_>,
    placed: &Placed,
    patch: std::collections::BTreeMap<String, Option<String>>,
) -> Result<(), Refusal> {
    let mut after = placed.item.clone();
    properties::merge(&mut after.metadata, patch);
    properties::validate_common(None, &after.metadata)?;
    if after.metadata == placed.item.metadata {
        return Ok(());
    }
    let withheld = gated::apply(tx, placed, placed.gate(), Change { labelled: true, ..Change::default() })?;
    store(tx, &after)?;
    if withheld { Ok(()) } else { announce_change(tx, placed) }
}

/// Folders count in the workspace's revision, files do not. Of a file that was never released only those who decide hear.
pub fn announce(tx: &mut Tx<'_, '_, '_>, placed: &Placed, kind: ChangeKind) -> Result<(), Refusal> {
    let news = News { version: placed.item.version, ..News::about(&placed.item.id).of(placed) };
    if placed.item.kind == ItemKind::Folder {
        let revision = tx.changed(&placed.item.workspace_id, kind, news)?;
        tx.concerns(revision);
        return Ok(());
    }
    let kind = if placed.item.is_pending() { ChangeKind::GovernanceChanged } else { kind };
    tx.announce(News { kind, ..news })
}

/// Gives an item another folder. Returns the gate there.
fn relocate(tx: &Tx<'_, '_, '_>, before: &Placed, after: &mut items::Record, parent_id: &str) -> Result<Gate, Refusal> {
    let target = items::by_id(tx, parent_id).map_err(|_| missing_parent())?;
    tx.note(|about| about.item_id = Some(before.item.id.clone()));
    if target.item.kind != ItemKind::Folder || target.is_trashed() {
        return Err(missing_parent());
    }
    if target.item.workspace_id != before.item.workspace_id {
        return Err(Refusal::invalid("/parentId", "An item moves within its workspace; copy it to bring it to another."));
    }
    if target.ids().contains(&before.item.id.as_str()) {
        return Err(Refusal::invalid("/parentId", "A folder cannot move into itself."));
    }
    if target.way.len() + 1 > names::MAX_DEPTH {
        return Err(Refusal::invalid("/parentId", "The path would have more than 64 segments."));
    }
    let arrives = if before.item.kind == ItemKind::Folder { Effect::AddFolder } else { Effect::AddFile };
    target.authorize_as(tx, arrives, |_| ())?;
    let gate = target.gate();
    let gated = before.item.kind == ItemKind::Folder && gate.upload && !before.gate().upload && before.item.children > 0;
    if gated && !items::decides(tx) {
        let detail =
            "A folder with content cannot be moved below an intake policy: its files would have to be decided one by one.";
        return Err(Refusal::new(409, "state-conflict", detail).audited());
    }
    // What held it through the folders above holds it wherever it goes.
    for key in items::holds(tx.db, &before.ids())? {
        hold(tx, &key, &before.item.id)?;
    }
    count_children(tx, before.item.parent_id.as_deref().unwrap_or_default(), -1)?;
    count_children(tx, parent_id, 1)?;
    after.parent_id = Some(parent_id.to_owned());
    Ok(gate)
}

fn missing_parent() -> Refusal {
    Refusal::new(422, "parent-missing", "The new folder does not exist.").at("/parentId", "No such folder.")
}

fn check_free(tx: &Tx<'_, '_, '_>, after: &items::Record) -> Result<(), Refusal> {
    let parent = after.parent_id.as_deref().unwrap_or_default();
    match items::child(tx.db, parent, &after.name)? {
        Some(other) if other.id != after.id => {
            let path = items::by_id(tx, &other.id)?;
            tx.note(|about| about.item_id = Some(after.id.clone()));
            let refusal = Refusal::new(409, "name-exists", "The name is taken in this folder.");
            Err(refusal.existing(&path.shown(tx)?))
        }
        _ => Ok(()),
    }
}

fn store(tx: &Tx<'_, '_, '_>, after: &items::Record) -> Result<(), Refusal> {
    let mut update = tx.db.prepare_cached(
        "UPDATE items SET parent_id = ?2, name = ?3, name_fold = ?4, classification = ?5, metadata = ?6, locked = ?7, managed_key = ?8,
             modified_at = ?9, rev = rev + 1 WHERE id = ?1",
    )?;
    update.execute(params![
        after.id,
        after.parent_id,
        after.name,
        names::fold(&after.name),
        after.classification,
        serde_json::to_string(&after.metadata)?,
        after.locked,
        after.managed_key,
        tx.now.as_millisecond(),
    ])?;
    Ok(())
}

/// `DELETE /v1/items/{id}`
pub fn delete(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    if tx.call.flag("purge")? {
        return super::trash::purge(tx, &placed);
    }
    let permit = placed.authorize_as(tx, Effect::DeleteItem, |_| ())?;
    tx.call.require_match(&placed.item.etag())?;
    if tx.call.flag("ifEmpty")? && placed.item.children > 0 {
        return Err(Refusal::new(409, "not-empty", "The folder is not empty."));
    }
    if permit == Permit::Pending {
        return super::trash::request_delete(tx, &placed);
    }
    super::trash::put(tx, &placed, permit == Permit::Preserve)?;
    Ok(Answer::empty(204))
}
