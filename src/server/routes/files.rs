//! Files: upload, new versions, download.

use std::collections::BTreeMap;

use axum::body::Body;
use http::header;
use rusqlite::params;

use super::folders::count_children;
use super::{Outcome, workspaces as properties};
use crate::file360::model::{ChangeKind, ItemKind, OnConflict};
use crate::server::App;
use crate::server::authorize::{Effect, Permit};
use crate::server::blobs::{self, Blob};
use crate::server::call::{Answer, Call};
use crate::server::http::Reply;
use crate::server::names;
use crate::server::records::items::{self, Placed};
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// What a new file is made of, beside its bytes.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its name.
    pub name: String,
    /// Media type.
    pub mime: String,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// What to do when the name is taken.
    pub on_conflict: OnConflict,
    /// Name of the upload request through which it comes.
    pub upload_request: Option<String>,
}

/// `POST /v1/items/{id}/files`
pub async fn upload(app: App, mut call: Call, body: Body) -> Reply {
    let arrival = match arrival(&call) {
        Ok(arrival) => arrival,
        Err(refusal) => return app.refused_unless_admitted(call, refusal).await,
    };
    let judged = judged_first(&app, &call, |view| folder(view, view.call.param("id")).map(|_| Answer::empty(204))).await;
    if judged.outcome.is_err() {
        return judged;
    }
    let blob = match receive(&app, &call, body).await {
        Ok(blob) => blob,
        Err(refusal) => return app.refused(call, refusal).await,
    };
    call.body = blob.sha256.clone().into();
    app.write(call, move |tx| {
        let folder = folder(tx, tx.call.param("id"))?;
        add(tx, &folder, &arrival, &blob)
    })
    .await
}

/// A call with content is judged before a byte is read, and again in the transaction. What is announced as small costs less
/// to read than to judge: there, only token and scope come first.
async fn judged_first<F>(app: &App, call: &Call, judge: F) -> Reply
where
    F: FnOnce(&View<'_>) -> Outcome + Send + 'static,
{
    let announced = call.header(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_none_or(|length| length > blobs::SMALL) {
        return app.read(call.clone(), judge).await;
    }
    match app.admit_scope(call) {
        Ok(()) => Reply::plain(Ok(Answer::empty(204))),
        Err(refusal) => app.refused(call.clone(), refusal).await,
    }
}

async fn receive(app: &App, call: &Call, body: Body) -> Result<Blob, Refusal> {
    let blob = app.blobs.receive(body, app.config.max_file_bytes).await?;
    blobs::verify_digest(&call.headers, &blob)?;
    Ok(blob)
}

fn arrival(call: &Call) -> Result<Arrival, Refusal> {
    let name = call.query("name").ok_or_else(|| Refusal::malformed("`name` is missing.").at("name", "Missing."))?;
    let on_conflict = match call.query("onConflict") {
        None | Some("fail") => OnConflict::Fail,
        Some("return") => OnConflict::Return,
        Some("newVersion") => OnConflict::NewVersion,
        Some("rename") => OnConflict::Rename,
        Some(_) => {
            return Err(
                Refusal::malformed("`onConflict` is fail, return, newVersion or rename.").at("onConflict", "Unknown.")
            );
        }
    };
    let metadata = call
        .query
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("metadata[")?.strip_suffix(']')?.to_owned(), value.clone())))
        .collect();
    let (name, mime) = (names::file_name(name, "name")?, media_type(call));
    let arrival = Arrival { name, mime, metadata, on_conflict, upload_request: None };
    properties::validate_common(None, &arrival.metadata)?;
    Ok(arrival)
}

/// The request's media type, if it is one that can be sent back as a header.
pub fn media_type(call: &Call) -> String {
    plain_media_type(call.header(header::CONTENT_TYPE).unwrap_or_default())
}

/// The media type without what could disturb a header or a page.
pub fn plain_media_type(value: &str) -> String {
    let plain = value.len() <= 255
        && value.split_once('/').is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "/+-._;= \"".contains(c));
    if plain { value.to_owned() } else { "application/octet-stream".to_owned() }
}

/// The folder that receives a file, if the caller may add one.
pub fn folder(view: &View<'_>, id: &str) -> Result<Placed, Refusal> {
    let folder = items::by_id(view, id)?;
    folder.authorize_as(view, Effect::AddFile, |_| ())?;
    if folder.item.kind != ItemKind::Folder {
        return Err(Refusal::new(409, "state-conflict", "Files are added to folders."));
    }
    Ok(folder)
}

/// Adds a file to a folder, or a version where the name is taken and the caller asked for it.
pub fn add(tx: &mut Tx<'_, '_, '_>, folder: &Placed, arrival: &Arrival, blob: &Blob) -> Outcome {
    let mut name = arrival.name.clone();
    if let Some(existing) = items::child(tx.db, &folder.item.id, &name)? {
        let visible = existing.kind == ItemKind::Folder || existing.version.is_some() || items::decides(tx);
        match arrival.on_conflict {
            OnConflict::NewVersion if existing.kind == ItemKind::File => {
                let placed = items::by_id(tx, &existing.id)?;
                return add_version(tx, &placed, &arrival.mime, blob, 200);
            }
            OnConflict::Return if existing.kind == ItemKind::File && visible => {
                let item = items::by_id(tx, &existing.id)?.shown(tx)?;
                return Ok(Answer::ok(&item)?.tagged(&item.etag));
            }
            OnConflict::Rename => name = free_name(tx, &folder.item.id, &name)?,
            _ => {
                let refusal = Refusal::new(409, "name-exists", "The name is taken in this folder.");
                let shown = items::by_id(tx, &existing.id)?.shown(tx)?;
                return Err(if visible { refusal.existing(&shown) } else { refusal });
            }
        }
    }
    let permit = folder.authorize_as(tx, Effect::AddFile, |_| ())?;
    let id = tx.id('i');
    let now = tx.now.as_millisecond();
    let actor = serde_json::to_string(&tx.actor)?;
    let mut insert = tx.db.prepare_cached(
        "INSERT INTO items (id, workspace_id, kind, parent_id, name, name_fold, rev, metadata, created_by, creator_id, created_at,
             modified_at, upload_request)
         VALUES (?1, ?2, 1, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?9, ?10)",
    )?;
    let metadata = serde_json::to_string(&arrival.metadata)?;
    let fold = names::fold(&name);
    insert.execute(params![
        id,
        folder.item.workspace_id,
        folder.item.id,
        name,
        fold,
        metadata,
        actor,
        tx.actor.id,
        now,
        arrival.upload_request
    ])?;
    drop(insert);
    count_children(tx, &folder.item.id, 1)?;
    store_version(tx, &id, 1, &arrival.mime, blob, permit)?;
    let placed = items::by_id(tx, &id)?;
    arrived(tx, &placed, 1, permit, ChangeKind::FileUploaded)?;
    answer(tx, &placed, 201)
}

/// Adds a version to a file.
pub fn add_version(tx: &mut Tx<'_, '_, '_>, placed: &Placed, mime: &str, blob: &Blob, status: u16) -> Outcome {
    let permit = placed.authorize_as(tx, Effect::ChangeFile, |_| ())?;
    if placed.item.kind != ItemKind::File {
        return Err(Refusal::new(409, "state-conflict", "A folder has no content."));
    }
    // A file that was never released stays pending, whatever the policy says about later versions.
    let permit = if placed.item.version.is_none() { Permit::Pending } else { permit };
    let n = placed.item.last_version + 1;
    store_version(tx, &placed.item.id, n, mime, blob, permit)?;
    let after = items::by_id(tx, &placed.item.id)?;
    arrived(tx, &after, n, permit, ChangeKind::VersionAdded)?;
    answer(tx, &after, status)
}

fn answer(tx: &Tx<'_, '_, '_>, placed: &Placed, status: u16) -> Outcome {
    let item = placed.shown(tx)?;
    Ok(Answer::json(status, &item)?.tagged(&item.etag))
}

fn store_version(
    tx: &Tx<'_, '_, '_>,
    item_id: &str,
    n: u64,
    mime: &str,
    blob: &Blob,
    permit: Permit,
) -> Result<(), Refusal> {
    let pending = permit == Permit::Pending;
    blob.keep(tx.db)?;
    let mut insert = tx.db.prepare_cached(
        "INSERT INTO versions (item_id, n, state, size, sha256, mime, created_by, creator_id, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let now = tx.now.as_millisecond();
    let actor = serde_json::to_string(&tx.actor)?;
    insert.execute(params![item_id, n, pending, blob.size, blob.sha256, mime, actor, tx.actor.id, now])?;
    let mut update = tx.db.prepare_cached(
        "UPDATE items SET last_version = ?2, version = CASE WHEN ?3 THEN version ELSE ?2 END, modified_at = ?4, rev = rev + 1 WHERE id = ?1",
    )?;
    update.execute(params![item_id, n, pending, now])?;
    Ok(())
}

/// Announces an arrival. What is pending is announced to those who decide, without its name.
fn arrived(tx: &mut Tx<'_, '_, '_>, placed: &Placed, n: u64, permit: Permit, kind: ChangeKind) -> Result<(), Refusal> {
    let (id, workspace) = (&placed.item.id, Some(placed.item.workspace_id.clone()));
    tx.note(|about| {
        about.item_id = Some(id.clone());
        about.path = Some(placed.path());
        about.version = Some(n);
    });
    let news = News { version: Some(n), workspace_id: workspace, ..News::about(id) };
    if permit == Permit::Pending {
        tx.details(serde_json::json!({"state": "Pending"}));
        return tx.announce(News { kind: ChangeKind::GovernanceChanged, ..news });
    }
    tx.announce(News { kind, ..news.at(placed.path()) })
}

/// `name (2).ext`, or the first such name that is free.
pub fn free_name(view: &View<'_>, folder_id: &str, name: &str) -> Result<String, Refusal> {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    let numbered = |tag: &str| {
        let room = names::MAX_NAME.saturating_sub(tag.len() + extension.len() + 3);
        let cut = stem.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= room).last().unwrap_or(0);
        format!("{} ({tag}){extension}", &stem[..cut])
    };
    for number in 2..100 {
        let candidate = numbered(&number.to_string());
        if items::child(view.db, folder_id, &candidate)?.is_none() {
            return names::file_name(&candidate, "name");
        }
    }
    // A hundred files of one name: a random tag costs one look-up instead of thousands.
    names::file_name(&numbered(&names::id('n', view.now)[1..21]), "name")
}

/// `PUT /v1/items/{id}/content`
pub async fn put_content(app: App, mut call: Call, body: Body) -> Reply {
    let judge = |view: &View<'_>| {
        let placed = items::by_id(view, view.call.param("id"))?;
        placed.authorize_as(view, Effect::ChangeFile, |_| ())?;
        require_content_match(view, &placed)?;
        Ok(placed)
    };
    let judged = judged_first(&app, &call, move |view| judge(view).map(|_| Answer::empty(204))).await;
    if judged.outcome.is_err() {
        return judged;
    }
    let blob = match receive(&app, &call, body).await {
        Ok(blob) => blob,
        Err(refusal) => return app.refused(call, refusal).await,
    };
    call.body = blob.sha256.clone().into();
    let mime = media_type(&call);
    app.write(call, move |tx| {
        let placed = judge(tx)?;
        add_version(tx, &placed, &mime, &blob, 200)
    })
    .await
}

/// `If-Match` of a content write: the item's entity tag, or that of the content it replaces.
fn require_content_match(view: &View<'_>, placed: &Placed) -> Result<(), Refusal> {
    let by_item = view.call.require_match(&placed.item.etag());
    match (&by_item, placed.item.version) {
        (Err(refusal), Some(n)) if refusal.code() == "etag-mismatch" => match items::version(view.db, &placed.item.id, n)? {
            Some(version) => view.call.require_match(&content_tag(&version.sha256)),
            None => by_item,
        },
        _ => by_item,
    }
}

/// Entity tag of content: two versions with the same bytes are the same representation.
pub fn content_tag(sha256: &str) -> String {
    format!("\"sha256-{sha256}\"")
}
