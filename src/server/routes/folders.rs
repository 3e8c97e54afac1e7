//! Folders of a workspace.

use std::collections::HashMap;

use rusqlite::params;

use super::{Outcome, workspaces as properties};
use crate::file360::model::{ChangeKind, Folder, ItemKind, NewFolder, OnConflict};
use crate::server::authorize::Effect;
use crate::server::call::Answer;
use crate::server::names;
use crate::server::records::{items, workspaces};
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// `GET /v1/workspaces/{id}/folders`
pub fn list(view: &View<'_>) -> Outcome {
    let workspace = workspaces::by_id(view, view.call.param("id"))?;
    workspace.authorize(view)?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let mut folders = all(view, &workspace)?;
    folders.retain(|folder| folder.path > after);
    folders.truncate(limit + 1);
    Answer::page(folders.into_iter().map(|folder| (folder.path.clone(), folder)).collect(), limit)
}

/// Every folder but the root, ordered by path. Folders below one that is in the trash are not reached.
fn all(view: &View<'_>, workspace: &workspaces::Record) -> Result<Vec<Folder>, Refusal> {
    let sql = format!("SELECT {} FROM items WHERE workspace_id = ?1 AND kind = 0 AND trashed_at IS NULL", items::COLUMNS);
    let mut find = view.db.prepare_cached(&sql)?;
    let rows = find.query_map([&workspace.public.id], items::from_row)?;
    let mut by_parent: HashMap<String, Vec<items::Record>> = HashMap::new();
    for row in rows {
        let row = row?;
        if let Some(parent) = row.parent_id.clone() {
            by_parent.entry(parent).or_default().push(row);
        }
    }
    let mut folders = Vec::new();
    let mut open = vec![(workspace.public.root_id.clone(), "/".to_owned())];
    while let Some((id, path)) = open.pop() {
        for child in by_parent.remove(&id).unwrap_or_default() {
            let path = items::join(&path, &child.name);
            folders.push(child.folder(path.clone()));
            open.push((child.id, path));
        }
    }
    folders.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(folders)
}

/// `POST /v1/workspaces/{id}/folders`
pub fn create(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let workspace = workspaces::by_id(tx, tx.call.param("id"))?;
    // Before anything about the path is told, the caller must be somebody in this workspace.
    workspace.authorize_with(tx, crate::server::authorize::Target::default())?;
    let new: NewFolder = tx.call.json()?;
    let mut segments = names::segments(&new.path, "/path")?;
    let Some(name) = segments.pop() else {
        return Err(Refusal::new(422, "name-illegal", "The root folder is always there.").at("/path", "The root."));
    };
    properties::validate_common(new.classification.as_deref(), &new.metadata)?;
    validate_managed_key(new.managed_key.as_deref())?;
    let parent = items::at_path(tx, &workspace, &segments)?.filter(|parent| parent.item.kind == ItemKind::Folder);
    let Some(parent) = parent else {
        return Err(Refusal::new(422, "parent-missing", "The folder above does not exist.").at("/path", "No parent."));
    };
    parent.authorize_as(tx, Effect::AddFolder, |_| ())?;
    let path = items::join(&parent.path(), &name);
    if let Some(existing) = items::child(tx.db, &parent.item.id, &name)? {
        return taken(&existing, items::join(&parent.path(), &existing.name), new.on_conflict);
    }
    let id = tx.id('f');
    insert(tx, &id, &parent.item, &name, &new)?;
    tx.note(|about| {
        about.item_id = Some(id.clone());
        about.path = Some(path.clone());
    });
    tx.changed(&workspace.public.id, ChangeKind::FolderChanged, News::about(&id).at(&path))?;
    let made = items::find(tx.db, &id)?.ok_or_else(|| Refusal::not_found("folder"))?;
    Ok(Answer::json(201, &made.folder(path))?.tagged(&made.etag()))
}

fn taken(existing: &items::Record, path: String, on_conflict: OnConflict) -> Outcome {
    let folder = existing.folder(path);
    match on_conflict {
        OnConflict::Return if existing.kind == ItemKind::Folder => Ok(Answer::ok(&folder)?.tagged(&existing.etag())),
        _ => Err(Refusal::new(409, "name-exists", "The name is taken in this folder.").existing(&folder)),
    }
}

fn insert(tx: &Tx<'_, '_, '_>, id: &str, parent: &items::Record, name: &str, new: &NewFolder) -> Result<(), Refusal> {
    let mut insert = tx.db.prepare_cached(
        "INSERT INTO items (id, workspace_id, kind, parent_id, name, name_fold, rev, classification, metadata, locked, managed_key,
             created_by, creator_id, created_at, modified_at)
         VALUES (?1, ?2, 0, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12)",
    )?;
    insert.execute(params![
        id,
        parent.workspace_id,
        parent.id,
        name,
        names::fold(name),
        new.classification,
        serde_json::to_string(&new.metadata)?,
        new.locked,
        new.managed_key,
        serde_json::to_string(&tx.actor)?,
        tx.actor.id,
        tx.now.as_millisecond(),
    ])?;
    count_children(tx, &parent.id, 1)
}

/// Makes a folder with the properties of another one, but for its lock and its owner's name. Returns its id.
pub fn make(tx: &Tx<'_, '_, '_>, parent: &items::Record, name: &str, like: &items::Record) -> Result<String, Refusal> {
    let id = tx.id('f');
    let new = NewFolder {
        path: String::new(),
        classification: like.classification.clone(),
        metadata: like.metadata.clone(),
        locked: false,
        managed_key: None,
        on_conflict: OnConflict::Fail,
    };
    insert(tx, &id, parent, name, &new)?;
    Ok(id)
}

/// Keeps the number of direct children.
pub fn count_children(tx: &Tx<'_, '_, '_>, folder_id: &str, by: i64) -> Result<(), Refusal> {
    let mut update = tx.db.prepare_cached("UPDATE items SET children = children + ?2 WHERE id = ?1")?;
    update.execute(params![folder_id, by])?;
    Ok(())
}

/// Checks the owner's name for an item.
pub fn validate_managed_key(key: Option<&str>) -> Result<(), Refusal> {
    key.map_or(Ok(()), |key| names::required_text(key, 8192, "/managedKey"))
}
