//! Upload requests: outsiders upload into one folder without an account.
//!
//! They give no access to anything that is there, so the sharing rule's `external` does not bind them: the owner declares
//! each of them explicitly.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{Outcome, sharing};
use crate::file360::model::{ChangeKind, Checklist, FieldKind, ItemKind, UploadRequest, UploadRequestInput};
use crate::server::call::Answer;
use crate::server::names;
use crate::server::operation::Scope;
use crate::server::records::{items, workspaces};
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// An upload request's row.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the columns of the table")]
pub struct Record {
    pub id: String,
    pub workspace_id: String,
    pub name: String,
    pub folder_id: String,
    pub input: UploadRequestInput,
    pub token: String,
    pub rev: u64,
    pub checklist: Checklist,
}

const COLUMNS: &str = "id, workspace_id, name, folder_id, input, token, rev, checklist";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get(0)?,
        workspace_id: row.get(1)?,
        name: row.get(2)?,
        folder_id: row.get(3)?,
        input: crate::server::records::json(4, row.get_ref(4)?.as_str()?)?,
        token: row.get(5)?,
        rev: row.get(6)?,
        checklist: crate::server::records::json(7, row.get_ref(7)?.as_str()?)?,
    })
}

/// The upload request behind a secret address, alive or not.
pub fn by_token(db: &rusqlite::Connection, token: &str) -> Result<Option<Record>, Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM upload_requests WHERE token = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([token], from_row).optional()?)
}

fn find(view: &View<'_>, workspace_id: &str, name: &str) -> Result<Option<Record>, Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM upload_requests WHERE workspace_id = ?1 AND name = ?2");
    Ok(view.db.prepare_cached(&sql)?.query_row([workspace_id, name], from_row).optional()?)
}

impl Record {
    /// Its end has passed.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.input.expires_at.is_some_and(|at| at <= now)
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.rev)
    }

    /// As callers see it: the path is where the folder is now, the address is for those who share.
    fn public(&self, view: &View<'_>) -> UploadRequest {
        let mut input = self.input.clone();
        if let Ok(folder) = items::by_id(view, &self.folder_id) {
            input.path = folder.path();
        }
        let shares = view.call.has_scope(Scope::Share);
        UploadRequest {
            id: self.id.clone(),
            name: self.name.clone(),
            input,
            checklist: self.checklist.items.clone(),
            url: shares.then(|| format!("{}/u/{}", view.call.public_url, self.token)),
            etag: self.etag(),
        }
    }
}

/// `GET /v1/workspaces/{id}/upload-requests`
pub fn list(view: &View<'_>) -> Outcome {
    let workspace = workspaces::by_id(view, view.call.param("id"))?;
    workspace.authorize(view)?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let sql = format!("SELECT {COLUMNS} FROM upload_requests WHERE workspace_id = ?1 AND name > ?2 ORDER BY name LIMIT ?3");
    let mut find = view.db.prepare_cached(&sql)?;
    let rows = find.query_map(params![workspace.public.id, after, limit + 1], from_row)?;
    let mut page = Vec::new();
    for row in rows {
        let row = row?;
        page.push((row.name.clone(), row.public(view)));
    }
    Answer::page(page, limit)
}

/// `GET /v1/workspaces/{id}/upload-requests/{name}`
pub fn get(view: &View<'_>) -> Outcome {
    let workspace = workspaces::by_id(view, view.call.param("id"))?;
    workspace.authorize(view)?;
    let found =
        find(view, &workspace.public.id, view.call.param("name"))?.ok_or_else(|| Refusal::not_found("upload request"))?;
    Ok(Answer::ok(&found.public(view))?.tagged(&found.etag()))
}

/// `PUT /v1/workspaces/{id}/upload-requests/{name}`
pub fn put(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let workspace = workspaces::by_id(tx, tx.call.param("id"))?;
    workspace.authorize(tx)?;
    let name = tx.call.param("name").to_owned();
    names::required_text(&name, 128, "name")?;
    let mut input: UploadRequestInput = tx.call.json()?;
    validate(&input)?;
    let segments = names::segments(&input.path, "/path")?;
    let folder = items::at_path(tx, &workspace, &segments)?.filter(|folder| folder.item.kind == ItemKind::Folder);
    let folder = folder
        .ok_or_else(|| Refusal::new(422, "path-missing", "There is no folder at the path.").at("/path", "No folder."))?;
    input.path = folder.path();
    input.expires_at = input.expires_at.map(crate::server::clock::to_millis);
    let known = find(tx, &workspace.public.id, &name)?;
    if let Some(known) = &known {
        tx.call.allow_match(&known.etag())?;
        let same = UploadRequestInput { path: input.path.clone(), ..known.input.clone() };
        if known.folder_id == folder.item.id && same == input {
            return Ok(Answer::ok(&known.public(tx))?.tagged(&known.etag()));
        }
    }
    sharing::expiry(input.expires_at, tx.now)?;
    let (id, token) =
        known.as_ref().map_or_else(|| (tx.id('u'), names::secret()), |known| (known.id.clone(), known.token.clone()));
    let mut upsert = tx.db.prepare_cached(
        "INSERT INTO upload_requests (id, workspace_id, name, folder_id, input, token, expires_at, ended, rev)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 1)
         ON CONFLICT (id) DO UPDATE SET folder_id = ?4, input = ?5, expires_at = ?7, ended = 0, rev = rev + 1",
    )?;
    let expires_at = input.expires_at.map(Timestamp::as_millisecond);
    upsert.execute(params![
        id,
        workspace.public.id,
        name,
        folder.item.id,
        serde_json::to_string(&input)?,
        token,
        expires_at
    ])?;
    drop(upsert);
    tx.note(|about| {
        about.item_id = None;
        about.subject = Some(id.clone());
        about.path = Some(input.path.clone());
    });
    let news = News::about(&id).on(&folder.item.id).at(&input.path);
    tx.changed(&workspace.public.id, ChangeKind::UploadRequestChanged, news)?;
    let revision = tx.answered_revision(false);
    let stored = find(tx, &workspace.public.id, &name)?.ok_or_else(|| Refusal::not_found("upload request"))?;
    let answer = Answer::json(if known.is_some() { 200 } else { 201 }, &stored.public(tx))?.tagged(&stored.etag());
    if let Some(revision) = revision {
        tx.concerns(revision);
    }
    Ok(answer)
}

/// `PUT /v1/workspaces/{id}/upload-requests/{name}/checklist`
///
/// What outsiders read is no part of the request itself: no revision moves, and the feed has no entry.
pub fn put_checklist(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let workspace = workspaces::by_id(tx, tx.call.param("id"))?;
    workspace.authorize(tx)?;
    let found =
        find(tx, &workspace.public.id, tx.call.param("name"))?.ok_or_else(|| Refusal::not_found("upload request"))?;
    let checklist: Checklist = tx.call.json()?;
    if checklist.items.len() > 64 {
        return Err(Refusal::invalid("/items", "At most 64 documents."));
    }
    for item in &checklist.items {
        names::required_text(&item.name, 63, "/items/name")?;
        names::required_text(&item.title, 255, "/items/title")?;
        item.valid_to.iter().try_for_each(|text| names::text(text, 32, "/items/validTo"))?;
        item.message.iter().try_for_each(|text| names::text(text, 512, "/items/message"))?;
    }
    if checklist != found.checklist {
        let mut update = tx.db.prepare_cached("UPDATE upload_requests SET checklist = ?2 WHERE id = ?1")?;
        update.execute(params![found.id, serde_json::to_string(&checklist)?])?;
        drop(update);
        tx.note(|about| about.subject = Some(found.id.clone()));
        tx.took_effect();
    }
    Ok(Answer::empty(204))
}

fn validate(input: &UploadRequestInput) -> Result<(), Refusal> {
    if input.fields.len() > 32 {
        return Err(Refusal::invalid("/fields", "At most 32 fields."));
    }
    let mut names_seen: Vec<&str> = Vec::new();
    for field in &input.fields {
        names::required_text(&field.name, 128, "/fields/name")?;
        names::required_text(&field.label, 255, "/fields/label")?;
        if field.options.len() > 200 {
            return Err(Refusal::invalid("/fields/options", "At most 200 options."));
        }
        field.options.iter().try_for_each(|option| names::required_text(option, 255, "/fields/options"))?;
        if field.kind == FieldKind::Select && field.options.is_empty() {
            return Err(Refusal::invalid("/fields/options", "A select needs options."));
        }
        for (option, accept) in &field.accept {
            if !field.options.contains(option) {
                return Err(Refusal::invalid("/fields/accept", format!("`{option}` is no option.")));
            }
            if accept.mime_types.len() > 32 {
                return Err(Refusal::invalid("/fields/accept", "At most 32 media types."));
            }
            accept.mime_types.iter().try_for_each(|one| names::required_text(one, 127, "/fields/accept/mimeTypes"))?;
        }
        // These are the names of the form's own inputs.
        if names_seen.contains(&field.name.as_str()) || ["file", "email", "code"].contains(&field.name.as_str()) {
            return Err(Refusal::invalid("/fields/name", format!("`{}` is taken.", field.name)));
        }
        names_seen.push(&field.name);
    }
    Ok(())
}

/// `DELETE /v1/workspaces/{id}/upload-requests/{name}`
pub fn delete(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let workspace = workspaces::by_id(tx, tx.call.param("id"))?;
    workspace.authorize(tx)?;
    let found =
        find(tx, &workspace.public.id, tx.call.param("name"))?.ok_or_else(|| Refusal::not_found("upload request"))?;
    tx.call.allow_match(&found.etag())?;
    tx.db.prepare_cached("DELETE FROM upload_requests WHERE id = ?1")?.execute([&found.id])?;
    tx.note(|about| about.subject = Some(found.id.clone()));
    let news = News::about(&found.id).on(&found.folder_id).at(&found.input.path);
    tx.changed(&workspace.public.id, ChangeKind::UploadRequestChanged, news)?;
    Ok(Answer::empty(204))
}
