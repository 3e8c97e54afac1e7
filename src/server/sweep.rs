//! What happens because time passes: memberships, links and upload requests end, trash is emptied, old entries go.
//!
//! Every step finds its work through an index on the due time and takes a bounded amount of it, so that the writer is
//! never held up. Each end of a thing passes `authorize` like any other effect.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use rusqlite::params;

use super::App;
use super::authorize::Effect;
use super::call::{Answer, Call, Caller};
use super::operation::Operation;
use super::records::{items, workspaces};
use super::refusal::Refusal;
use super::routes::{lifecycle, links, trash, uploads};
use super::store::writer::Ledger;
use super::tx::{self, News, Tx};
use crate::file360::model::ChangeKind;

/// How much of each kind one step takes.
const STEP: usize = 200;
/// How long something protected is left alone before it is looked at again.
const POSTPONE_MS: i64 = 86_400_000;

/// Does everything that is due.
pub async fn run(app: &App) {
    while remove_orphans(app).await.is_ok_and(|removed| removed > 0) {}
    loop {
        let step_app = app.clone();
        match app.store.write(move |ledger| step(ledger, &step_app)).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(refusal) => {
                tracing::warn!(%refusal, "the sweep could not run");
                break;
            }
        }
    }
}

fn step(ledger: &mut Ledger<'_>, app: &App) -> usize {
    let now = app.config.clock.now();
    let mut done = 0;
    let due: [(&str, Operation, Ending); 5] = [
        (
            "SELECT workspace_id, principal_id, folder_id FROM members WHERE expires_at <= ?1 LIMIT ?2",
            Operation::RemoveMember,
            end_member,
        ),
        (
            "SELECT id, workspace_id, item_id FROM links WHERE expires_at <= ?1 AND ended = 0 LIMIT ?2",
            Operation::DeleteLink,
            end_link,
        ),
        (
            "SELECT id, workspace_id, folder_id FROM upload_requests WHERE expires_at <= ?1 AND ended = 0 LIMIT ?2",
            Operation::DeleteUploadRequest,
            end_request,
        ),
        ("SELECT id, '', '' FROM workspaces WHERE purge_at <= ?1 LIMIT ?2", Operation::PurgeWorkspace, end_workspace),
        ("SELECT id, '', '' FROM items WHERE purge_at <= ?1 LIMIT ?2", Operation::DeleteItem, end_item),
    ];
    for (sql, operation, ending) in due {
        let rows = rows(ledger, sql, now.as_millisecond()).unwrap_or_default();
        done += rows.len();
        for row in rows {
            let call = call(app, operation, now);
            let ended = tx::perform(ledger, &call, |tx| ending(tx, &row).map(|()| Answer::empty(204)));
            if let Err(refusal) = ended.outcome {
                postpone(ledger, operation, &row.0, now.as_millisecond(), &refusal);
            }
        }
    }
    done + forget(ledger, app, now.as_millisecond()).unwrap_or_default()
}

type Row = (String, String, String);
type Ending = fn(&mut Tx<'_, '_, '_>, &Row) -> Result<(), Refusal>;

fn rows(ledger: &Ledger<'_>, sql: &str, now: i64) -> Result<Vec<Row>, rusqlite::Error> {
    let mut find = ledger.db.prepare_cached(sql)?;
    let rows = find.query_map(params![now, STEP], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

fn call(app: &App, operation: Operation, now: jiff::Timestamp) -> Call {
    Call {
        operation,
        target: String::new(),
        params: Vec::new(),
        query: Vec::new(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        caller: Caller::Server,
        ip: std::net::IpAddr::from([127, 0, 0, 1]),
        now,
        public_url: Arc::clone(&app.public_url),
    }
}

fn end_member(tx: &mut Tx<'_, '_, '_>, (workspace, principal, folder): &Row) -> Result<(), Refusal> {
    let path = items::by_id(tx, folder)?.path();
    tx.authorize_alone()?;
    tx.db
        .prepare_cached("DELETE FROM members WHERE workspace_id = ?1 AND principal_id = ?2 AND folder_id = ?3")?
        .execute([workspace, principal, folder])?;
    tx.changed(workspace, ChangeKind::MemberRemoved, News::about(principal).on(folder).at(path)).map(drop)
}

fn end_link(tx: &mut Tx<'_, '_, '_>, (link, workspace, item): &Row) -> Result<(), Refusal> {
    tx.authorize_alone()?;
    let placed = items::by_id(tx, item)?;
    tx.db.prepare_cached("UPDATE links SET ended = 1, rev = rev + 1 WHERE id = ?1")?.execute([link])?;
    tx.changed(workspace, ChangeKind::LinkChanged, links::news(link, &placed)).map(drop)
}

fn end_request(tx: &mut Tx<'_, '_, '_>, (request, workspace, folder): &Row) -> Result<(), Refusal> {
    tx.authorize_alone()?;
    let folder = items::by_id(tx, folder)?;
    tx.db.prepare_cached("UPDATE upload_requests SET ended = 1, rev = rev + 1 WHERE id = ?1")?.execute([request])?;
    let news = News::about(request).on(&folder.item.id).of(&folder);
    tx.changed(workspace, ChangeKind::UploadRequestChanged, news).map(drop)
}

fn end_workspace(tx: &mut Tx<'_, '_, '_>, (id, ..): &Row) -> Result<(), Refusal> {
    let workspace = workspaces::by_id(tx, id)?;
    lifecycle::end(tx, &workspace)
}

fn end_item(tx: &mut Tx<'_, '_, '_>, (id, ..): &Row) -> Result<(), Refusal> {
    let placed = items::by_id(tx, id)?;
    placed.authorize_as(tx, Effect::PurgeItem, |_| ())?;
    trash::erase(tx.db, id)?;
    tx.took_effect();
    Ok(())
}

/// What is protected, or broken, comes up again tomorrow and holds up nothing meanwhile.
fn postpone(ledger: &mut Ledger<'_>, operation: Operation, id: &str, now: i64, refusal: &Refusal) {
    tracing::info!(%refusal, operation = operation.id(), id, "what was due is left alone");
    let sql = match operation {
        Operation::PurgeWorkspace => "UPDATE workspaces SET purge_at = ?2 WHERE id = ?1",
        Operation::DeleteItem => "UPDATE items SET purge_at = ?2 WHERE id = ?1",
        Operation::DeleteLink => "UPDATE links SET ended = 1 WHERE id = ?1 AND ?2 > 0",
        Operation::DeleteUploadRequest => "UPDATE upload_requests SET ended = 1 WHERE id = ?1 AND ?2 > 0",
        _ => "DELETE FROM members WHERE workspace_id = ?1 AND expires_at < ?2 - 86400000",
    };
    let postponed = ledger.db.prepare_cached(sql).and_then(|mut update| update.execute(params![id, now + POSTPONE_MS]));
    if let Err(error) = postponed {
        tracing::error!(%error, "the sweep could not postpone");
    }
}

/// Removes what nobody asks for any more.
fn forget(ledger: &mut Ledger<'_>, app: &App, now: i64) -> Result<usize, Refusal> {
    let db = ledger.db;
    let mut done = 0;
    for sql in [
        "DELETE FROM answers WHERE (client_id, key) IN (SELECT client_id, key FROM answers WHERE expires_at <= ?1 LIMIT ?2)",
        "DELETE FROM codes WHERE (token, email) IN (SELECT token, email FROM codes WHERE expires_at <= ?1 LIMIT ?2)",
    ] {
        done += db.prepare_cached(sql)?.execute(params![now, STEP])?;
    }
    let mut expired = db.prepare_cached("SELECT id FROM uploads WHERE expires_at <= ?1 LIMIT ?2")?;
    let expired = expired.query_map(params![now, STEP], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for upload in &expired {
        uploads::forget(db, upload)?;
    }
    done += expired.len();
    let kept_ms = i64::try_from(app.config.changes_retention.as_millis()).unwrap_or(i64::MAX);
    // Positions and times grow together, so the oldest entries say all: no search through those that stay.
    let mut oldest = db.prepare_cached("SELECT sequence, time FROM changes ORDER BY sequence LIMIT ?1")?;
    let oldest = oldest
        .query_map([STEP], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, i64>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    let pruned =
        oldest.into_iter().take_while(|(_, time)| *time < now.saturating_sub(kept_ms)).map(|(sequence, _)| sequence);
    let pruned = pruned.collect::<Vec<_>>();
    if let Some(last) = pruned.iter().max() {
        db.prepare_cached("DELETE FROM changes WHERE sequence <= ?1")?.execute([last])?;
        super::store::schema::set_meta(db, "changesPruned", &last.to_string())?;
        app.store.tail.pruned(*last);
    }
    done += pruned.len();
    let purged: Option<String> =
        db.prepare_cached("SELECT workspace_id FROM purges LIMIT 1")?.query_row([], |row| row.get(0)).ok();
    if let Some(workspace) = purged {
        done += 1 + purge_some(db, &workspace)?;
    }
    Ok(done)
}

/// Removes content that no version and no upload refers to any more. A reference that is about to be made has pinned it.
/// Only what a committed transaction left behind counts: a purge that is undone keeps its content.
async fn remove_orphans(app: &App) -> Result<usize, Refusal> {
    let candidates = app.store.read(|db| {
        let mut find = db.prepare_cached("SELECT sha256 FROM orphans LIMIT ?1")?;
        Ok(find.query_map([STEP], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?)
    });
    let candidates = candidates.await?;
    if candidates.is_empty() {
        return Ok(0);
    }
    let blobs = app.blobs.clone();
    app.store.write(move |ledger| candidates.iter().map(|sha256| remove_orphan(ledger.db, &blobs, sha256)).sum()).await?
}

fn remove_orphan(db: &rusqlite::Connection, blobs: &super::blobs::Blobs, sha256: &str) -> Result<usize, Refusal> {
    let mut find = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM versions WHERE sha256 = ?1) OR EXISTS (SELECT 1 FROM upload_parts WHERE sha256 = ?1)",
    )?;
    let needed: bool = find.query_row([sha256], |row| row.get(0))?;
    if !needed && !blobs.remove_unpinned(sha256) {
        return Ok(0);
    }
    if !needed {
        db.prepare_cached("DELETE FROM contents WHERE sha256 = ?1")?.execute([sha256])?;
    }
    Ok(db.prepare_cached("DELETE FROM orphans WHERE sha256 = ?1")?.execute([sha256])?)
}

fn purge_some(db: &rusqlite::Connection, workspace: &str) -> Result<usize, Refusal> {
    let mut find = db.prepare_cached("SELECT id FROM items WHERE workspace_id = ?1 LIMIT ?2")?;
    let ids = find.query_map(params![workspace, STEP], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for id in &ids {
        trash::erase_one(db, id)?;
    }
    if ids.is_empty() {
        db.prepare_cached("DELETE FROM purges WHERE workspace_id = ?1")?.execute([workspace])?;
    }
    Ok(ids.len())
}
