//! Upload sessions: a file arrives in parts, in any order and more than once, and becomes visible with one commit.

use axum::body::Body;
use bytes::Bytes;
use jiff::SignedDuration;
use rusqlite::{OptionalExtension, params};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::Sender;

use super::files::{self, Arrival};
use super::{Outcome, workspaces as properties};
use crate::file360::model::{NewUpload, Part, Upload, UploadCommit};
use crate::server::App;
use crate::server::authorize::Effect;
use crate::server::blobs::{self, Blob};
use crate::server::call::{Answer, Call};
use crate::server::http::Reply;
use crate::server::names;
use crate::server::records::items;
use crate::server::refusal::Refusal;
use crate::server::tx::{Tx, View};

/// How long a session waits for its commit.
const LIFE_HOURS: i64 = 24;
/// Most parts.
const MOST_PARTS: u64 = 10_000;

/// `POST /v1/uploads`
pub fn create(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let new: NewUpload = tx.call.json()?;
    judge(tx, &new)?;
    let id = tx.id('s');
    let expires_at = tx.now.saturating_add(SignedDuration::from_hours(LIFE_HOURS)).unwrap_or(tx.now);
    tx.db
        .prepare_cached(
            "INSERT INTO uploads (id, client_id, definition, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            id,
            owner(tx),
            serde_json::to_string(&new)?,
            tx.now.as_millisecond(),
            expires_at.as_millisecond()
        ])?;
    Answer::json(201, &Upload { id, parts: Vec::new(), expires_at })
}

/// Sessions belong to the client, and to the person for whom it calls.
fn owner(view: &View<'_>) -> String {
    view.person
        .as_ref()
        .map_or_else(|| view.call.client_id().to_owned(), |person| format!("{} {}", view.call.client_id(), person.id))
}

/// Whether the caller may do at the commit what the session says.
fn judge(view: &View<'_>, new: &NewUpload) -> Result<(), Refusal> {
    match (&new.parent_id, &new.item_id) {
        (Some(parent), None) => {
            files::folder(view, parent)?;
            names::file_name(new.name.as_deref().unwrap_or_default(), "/name")?;
            properties::validate_common(None, &new.metadata)
        }
        (None, Some(item)) => items::by_id(view, item)?.authorize_as(view, Effect::ChangeFile, |_| ()).map(drop),
        _ => {
            view.authorize_alone()?;
            Err(Refusal::invalid("/parentId", "Either parentId and name, or itemId."))
        }
    }
}

struct Session {
    new: NewUpload,
    public: Upload,
}

fn find(view: &View<'_>, id: &str) -> Result<Session, Refusal> {
    let mut find = view
        .db
        .prepare_cached("SELECT definition, expires_at FROM uploads WHERE id = ?1 AND client_id = ?2 AND expires_at > ?3")?;
    let found = find
        .query_row(params![id, owner(view), view.now.as_millisecond()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let (definition, expires_at) = found.ok_or_else(|| Refusal::not_found("upload"))?;
    let mut parts = view.db.prepare_cached("SELECT n, size, sha256 FROM upload_parts WHERE upload_id = ?1 ORDER BY n")?;
    let rows = parts.query_map([id], |row| Ok(Part { number: row.get(0)?, size: row.get(1)?, sha256: row.get(2)? }))?;
    let parts = rows.collect::<Result<Vec<_>, _>>()?;
    let public = Upload { id: id.to_owned(), parts, expires_at: crate::server::records::time(expires_at) };
    Ok(Session { new: serde_json::from_str(&definition)?, public })
}

/// `GET /v1/uploads/{id}`
pub fn get(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    Answer::ok(&find(view, view.call.param("id"))?.public)
}

/// `PUT /v1/uploads/{id}/parts/{number}`
pub async fn put_part(app: App, call: Call, body: Body) -> Reply {
    let number = call.param("number").parse::<u32>().ok().filter(|number| (1..=MOST_PARTS).contains(&u64::from(*number)));
    let Some(number) = number else {
        let refusal = Refusal::invalid("number", "A part's number is from 1 to 10000.");
        return app.refused_unless_admitted(call, refusal).await;
    };
    let judged = app
        .read(call.clone(), |view| {
            view.authorize_alone()?;
            find(view, view.call.param("id")).map(|_| Answer::empty(204))
        })
        .await;
    if judged.outcome.is_err() {
        return judged;
    }
    let blob = match app.blobs.receive(body, app.config.max_file_bytes).await {
        Ok(blob) => blob,
        Err(refusal) => return app.refused(call, refusal).await,
    };
    if let Err(refusal) = blobs::verify_digest(&call.headers, &blob) {
        return app.refused(call, refusal).await;
    }
    app.write(call, move |tx| keep_part(tx, number, &blob)).await
}

/// A part is content like any other until the commit; the session's rows keep it from being removed.
fn keep_part(tx: &mut Tx<'_, '_, '_>, number: u32, blob: &Blob) -> Outcome {
    tx.authorize_alone()?;
    let id = tx.call.param("id");
    find(tx, id)?;
    blob.keep(tx.db)?;
    tx.db
        .prepare_cached(
            "INSERT OR IGNORE INTO orphans (sha256) SELECT sha256 FROM upload_parts WHERE upload_id = ?1 AND n = ?2",
        )?
        .execute(params![id, number])?;
    tx.db
        .prepare_cached(
            "INSERT OR REPLACE INTO upload_parts (upload_id, n, size, sha256, file) VALUES (?1, ?2, ?3, ?4, ?4)",
        )?
        .execute(params![id, number, blob.size, blob.sha256])?;
    Answer::ok(&Part { number, size: blob.size, sha256: blob.sha256.clone() })
}

/// `POST /v1/uploads/{id}/commit`
pub async fn commit(app: App, call: Call) -> Reply {
    let commit: UploadCommit = match call.json() {
        Ok(commit) => commit,
        Err(refusal) => return app.refused_unless_admitted(call, refusal).await,
    };
    let found = std::sync::Arc::new(parking_lot::Mutex::new(None));
    let slot = std::sync::Arc::clone(&found);
    let judged = app
        .read(call.clone(), move |view| {
            view.authorize_alone()?;
            // A session that is gone may have been committed: the repeated key knows.
            if let Ok(session) = find(view, view.call.param("id")) {
                judge(view, &session.new)?;
                *slot.lock() = Some(session);
            }
            Ok(Answer::empty(204))
        })
        .await;
    if judged.outcome.is_err() {
        return judged;
    }
    let session = found.lock().take();
    let blob = match &session {
        Some(session) => match assemble(&app, session, &commit).await {
            Ok(blob) => Some(blob),
            Err(refusal) => return app.refused(call, refusal).await,
        },
        None => None,
    };
    app.write(call, move |tx| finish(tx, blob.as_ref())).await
}

async fn assemble(app: &App, session: &Session, commit: &UploadCommit) -> Result<Blob, Refusal> {
    let complete = session.public.parts.iter().zip(1..).all(|(part, expected)| part.number == expected);
    if session.public.parts.is_empty() || !complete {
        return Err(Refusal::new(409, "state-conflict", "Parts are missing: their numbers must run from 1 without a hole."));
    }
    let blob = match session.public.parts.as_slice() {
        // One part is the file already.
        [part] => app.blobs.pin(part.sha256.clone(), part.size),
        _ => joined(app, session).await?,
    };
    match &commit.sha256 {
        Some(claimed) if !claimed.eq_ignore_ascii_case(&blob.sha256) => {
            Err(Refusal::new(422, "digest-mismatch", "The parts do not have the digest that the request states."))
        }
        _ => Ok(blob),
    }
}

/// The parts as one blob.
async fn joined(app: &App, session: &Session) -> Result<Blob, Refusal> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, String>>(4);
    let parts: Vec<_> = session.public.parts.iter().map(|part| (part.sha256.clone(), part.size)).collect();
    let reader = app.clone();
    let reading = tokio::spawn(async move {
        for (sha256, size) in parts {
            if let Err(error) = send_part(&reader, sha256, size, &sender).await {
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
    });
    let chunks =
        futures::stream::unfold(
            receiver,
            |mut receiver| async move { receiver.recv().await.map(|chunk| (chunk, receiver)) },
        );
    let blob = app.blobs.receive_stream(Box::pin(chunks), app.config.max_file_bytes).await;
    reading.abort();
    blob
}

async fn send_part(app: &App, sha256: String, size: u64, to: &Sender<Result<Bytes, String>>) -> Result<(), String> {
    let path = app.blobs.path(&sha256);
    let small = app.store.read(move |db| blobs::small(db, &sha256, size)).await.map_err(|refusal| refusal.to_string())?;
    match small {
        // A receiver that went away has said why.
        Some(bytes) => to.send(Ok(bytes)).await.or(Ok(())),
        None => send_file(&path, to).await.map_err(|error| error.to_string()),
    }
}

async fn send_file(path: &std::path::Path, to: &Sender<Result<Bytes, String>>) -> std::io::Result<()> {
    let mut file = tokio::fs::File::open(path).await?;
    loop {
        let mut chunk = bytes::BytesMut::with_capacity(128 * 1024);
        if file.read_buf(&mut chunk).await? == 0 {
            return Ok(());
        }
        if to.send(Ok(chunk.freeze())).await.is_err() {
            return Ok(());
        }
    }
}

fn finish(tx: &mut Tx<'_, '_, '_>, blob: Option<&Blob>) -> Outcome {
    tx.authorize_alone()?;
    let id = tx.call.param("id");
    let session = find(tx, id)?;
    let blob = blob.ok_or_else(|| Refusal::not_found("upload"))?;
    let mime = files::plain_media_type(session.new.mime_type.as_deref().unwrap_or_default());
    let answer = if let Some(item) = &session.new.item_id {
        let placed = items::by_id(tx, item)?;
        if session.new.item_etag.as_ref().is_some_and(|etag| *etag != placed.item.etag()) {
            return Err(Refusal::etag_mismatch());
        }
        files::add_version(tx, &placed, &mime, blob, 201)?
    } else {
        let folder = files::folder(tx, session.new.parent_id.as_deref().unwrap_or_default())?;
        let name = names::file_name(session.new.name.as_deref().unwrap_or_default(), "/name")?;
        let (metadata, on_conflict) = (session.new.metadata.clone(), session.new.on_conflict);
        files::add(tx, &folder, &Arrival { name, mime, metadata, on_conflict, upload_request: None }, blob)?
    };
    forget(tx.db, id)?;
    Ok(answer)
}

/// Ends a session; the sweep then removes parts that nothing else refers to.
pub fn forget(db: &rusqlite::Connection, id: &str) -> Result<(), Refusal> {
    for sql in [
        "INSERT OR IGNORE INTO orphans (sha256) SELECT sha256 FROM upload_parts WHERE upload_id = ?1",
        "DELETE FROM upload_parts WHERE upload_id = ?1",
        "DELETE FROM uploads WHERE id = ?1",
    ] {
        db.prepare_cached(sql)?.execute([id])?;
    }
    Ok(())
}

/// `DELETE /v1/uploads/{id}`
pub fn abort(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let id = tx.call.param("id");
    find(tx, id)?;
    forget(tx.db, id)?;
    Ok(Answer::empty(204))
}
