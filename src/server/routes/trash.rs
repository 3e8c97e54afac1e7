//! The trash of a workspace.

use rusqlite::params;

use super::Outcome;
use super::folders::count_children;
use super::items::{TRASH_MS, announce};
use crate::file360::model::{ChangeKind, ItemKind};
use crate::server::authorize::Effect;
use crate::server::call::Answer;
use crate::server::records::items::{self, Placed};
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// Puts an item into the trash. What is below a folder goes and comes back with it; each file below gets a tombstone.
/// What retention preserves is hidden for people and has no end.
pub fn put(tx: &mut Tx<'_, '_, '_>, placed: &Placed, preserve: bool) -> Result<(), Refusal> {
    tombstones(tx, placed, ChangeKind::FileDeleted)?;
    let now = tx.now.as_millisecond();
    tx.db
        .prepare_cached("UPDATE items SET trashed_at = ?2, purge_at = ?3, trash_root = id, rev = rev + 1 WHERE id = ?1")?
        .execute(params![placed.item.id, now, (!preserve).then_some(now + TRASH_MS)])?;
    count_children(tx, placed.item.parent_id.as_deref().unwrap_or_default(), -1)?;
    if placed.item.kind == ItemKind::Folder {
        announce(tx, placed, ChangeKind::FolderChanged)?;
    }
    Ok(())
}

/// One feed entry per visible file at or below `placed`.
fn tombstones(tx: &mut Tx<'_, '_, '_>, placed: &Placed, kind: ChangeKind) -> Result<(), Refusal> {
    for (item, path) in placed.visible_files(tx.db)? {
        let news = News { version: item.version, ..News::about(&item.id).at(path) };
        tx.announce(News { kind, workspace_id: Some(item.workspace_id), ..news })?;
    }
    Ok(())
}

/// `GET /v1/workspaces/{id}/trash`
pub fn list(view: &View<'_>) -> Outcome {
    let workspace = crate::server::records::workspaces::by_id(view, view.call.param("id"))?;
    workspace.authorize(view)?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let sql = format!(
        "SELECT {} FROM items WHERE workspace_id = ?1 AND trash_root IS NOT NULL AND id > ?2 AND (?4 OR kind = 0 OR version IS NOT NULL)
         ORDER BY id LIMIT ?3",
        items::COLUMNS
    );
    let mut find = view.db.prepare_cached(&sql)?;
    let decides = items::decides(view);
    let rows = find.query_map(params![workspace.public.id, after, limit + 1, decides], items::from_row)?;
    let mut page = Vec::new();
    for row in rows {
        let placed = items::by_id(view, &row?.id)?;
        page.push((placed.item.id.clone(), placed.shown(view)?));
    }
    Answer::page(page, limit)
}

/// `POST /v1/items/{id}/restorations`. What comes back below an intake policy waits for a decision, whoever brings it back:
/// the place may have got its policy since, and a decision may have been made in the trash.
pub fn restore(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    placed.authorize(tx)?;
    if placed.item.trashed_at.is_none() {
        return Err(Refusal::new(409, "state-conflict", "The item is in the trash with a folder above it: restore that."));
    }
    let parent = items::by_id(tx, placed.item.parent_id.as_deref().unwrap_or_default())?;
    tx.note(|about| about.item_id = Some(placed.item.id.clone()));
    if parent.is_trashed() {
        return Err(Refusal::new(409, "state-conflict", "The folder that it was in is in the trash: restore that first."));
    }
    let name = match items::child(tx.db, &parent.item.id, &placed.item.name)? {
        Some(_) => super::files::free_name(tx, &parent.item.id, &placed.item.name)?,
        None => placed.item.name.clone(),
    };
    tx.db
        .prepare_cached(
            "UPDATE items SET trashed_at = NULL, purge_at = NULL, trash_root = NULL, name = ?2, name_fold = ?3, rev = rev + 1 WHERE id = ?1",
        )?
        .execute(params![placed.item.id, name, crate::server::names::fold(&name)])?;
    count_children(tx, &parent.item.id, 1)?;
    super::gated::restored(tx, &items::by_id(tx, &placed.item.id)?)?;
    let back = items::by_id(tx, &placed.item.id)?;
    tombstones(tx, &back, ChangeKind::FileRestored)?;
    if back.item.kind == ItemKind::Folder {
        announce(tx, &back, ChangeKind::FolderChanged)?;
    }
    tx.took_effect();
    let item = back.shown(tx)?;
    Ok(Answer::ok(&item)?.tagged(&item.etag))
}

/// A delete below a gate waits for a decision; until then nothing changes.
pub fn request_delete(tx: &mut Tx<'_, '_, '_>, placed: &Placed) -> Outcome {
    tx.db
        .prepare_cached("INSERT OR IGNORE INTO pending_deletes (item_id, requested_by, requested_at) VALUES (?1, ?2, ?3)")?
        .execute(params![placed.item.id, serde_json::to_string(&tx.actor)?, tx.now.as_millisecond()])?;
    announce(tx, placed, ChangeKind::GovernanceChanged)?;
    Answer::json(202, &serde_json::json!({"state": "Pending", "itemId": placed.item.id}))
}

/// Ends an item in the trash for good.
pub fn purge(tx: &mut Tx<'_, '_, '_>, placed: &Placed) -> Outcome {
    placed.authorize_as(tx, Effect::PurgeItem, |_| ())?;
    tx.call.require_match(&placed.item.etag())?;
    erase(tx.db, &placed.item.id)?;
    tx.took_effect();
    Ok(Answer::empty(204))
}

/// Removes an item and everything below it. The sweep then removes content that nothing refers to.
pub fn erase(db: &rusqlite::Connection, item_id: &str) -> Result<(), Refusal> {
    let mut find = db.prepare_cached(
        "WITH RECURSIVE below (id) AS (SELECT ?1 UNION ALL SELECT item.id FROM items AS item JOIN below ON item.parent_id = below.id)
         SELECT id FROM below",
    )?;
    let ids = find.query_map([item_id], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for id in ids {
        erase_one(db, &id)?;
    }
    Ok(())
}

/// Removes one item and what hangs on it.
pub fn erase_one(db: &rusqlite::Connection, id: &str) -> Result<(), Refusal> {
    for sql in [
        "INSERT OR IGNORE INTO orphans (sha256) SELECT sha256 FROM versions WHERE item_id = ?1",
        "DELETE FROM versions WHERE item_id = ?1",
        "DELETE FROM facets WHERE item_id = ?1",
        "DELETE FROM links WHERE item_id = ?1",
        "DELETE FROM item_holds WHERE item_id = ?1",
        "DELETE FROM pending_deletes WHERE item_id = ?1",
        "DELETE FROM items WHERE id = ?1",
    ] {
        db.prepare_cached(sql)?.execute([id])?;
    }
    Ok(())
}
