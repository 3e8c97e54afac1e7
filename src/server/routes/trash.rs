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
use crate::server::tx::{News, Tx};

/// Puts an item into the trash. What is below a folder goes and comes back with it; each file below gets a tombstone.
pub fn put(tx: &mut Tx<'_, '_, '_>, placed: &Placed) -> Result<(), Refusal> {
    tombstones(tx, placed, ChangeKind::FileDeleted)?;
    let now = tx.now.as_millisecond();
    tx.db
        .prepare_cached("UPDATE items SET trashed_at = ?2, purge_at = ?3, trash_root = id, rev = rev + 1 WHERE id = ?1")?
        .execute(params![placed.item.id, now, now + TRASH_MS])?;
    count_children(tx, placed.item.parent_id.as_deref().unwrap_or_default(), -1)?;
    if placed.item.kind == ItemKind::Folder {
        announce(tx, placed, ChangeKind::FolderChanged)?;
    }
    Ok(())
}

/// One feed entry per file at or below `placed`.
fn tombstones(tx: &mut Tx<'_, '_, '_>, placed: &Placed, kind: ChangeKind) -> Result<(), Refusal> {
    let mut open = vec![(placed.item.clone(), placed.path())];
    while let Some((item, path)) = open.pop() {
        if item.kind == ItemKind::File {
            if item.version.is_some() {
                let news = News { version: item.version, ..News::about(&item.id).at(path) };
                tx.announce(News { kind, workspace_id: Some(item.workspace_id.clone()), ..news })?;
            }
            continue;
        }
        let sql = format!("SELECT {} FROM items WHERE parent_id = ?1 AND trashed_at IS NULL", items::COLUMNS);
        let mut find = tx.db.prepare_cached(&sql)?;
        for child in find.query_map([&item.id], items::from_row)? {
            let child = child?;
            let path = items::join(&path, &child.name);
            open.push((child, path));
        }
    }
    Ok(())
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
