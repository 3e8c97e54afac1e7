//! The change feed: ordered, without holes, with a long poll that the writer's commit wakes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::service::MAX_WAIT_SECONDS;
use crate::server::App;
use crate::server::call::{Answer, Call, Payload};
use crate::server::http::Reply;
use crate::server::refusal::Refusal;
use crate::server::tail::Entry;

/// `GET /v1/changes`
pub async fn list(app: App, call: Call) -> Reply {
    // Token and scope first; the rest needs no snapshot while memory has the entries.
    let admitted = app.admit(&call);
    let waited = match admitted {
        Ok(()) => wait(&app, &call).await,
        Err(refusal) => Err(refusal),
    };
    match waited {
        Ok(answer) => Reply::plain(Ok(answer)),
        Err(refusal) => app.refused(call, refusal).await,
    }
}

async fn wait(app: &App, call: &Call) -> Result<Answer, Refusal> {
    let limit = call.limit()?;
    let wait = call.number("wait", 0..=u64::from(MAX_WAIT_SECONDS))?.unwrap_or(0);
    let mut head = app.store.tail.watch();
    let position = start(app, call)?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait);
    loop {
        head.mark_unchanged();
        let entries = after(app, position, limit).await?;
        if !entries.is_empty() || wait == 0 {
            return Ok(page(app, position, &entries, limit));
        }
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return Ok(page(app, position, &[], limit)) },
            () = tokio::time::sleep_until(deadline) => return Ok(page(app, position, &[], limit)),
            () = app.stopping.cancelled() => return Ok(page(app, position, &[], limit)),
        }
        if let Some(cursor) = call.query("cursor").filter(|cursor| !is_word(cursor)) {
            // The epoch may have changed while this call waited.
            parse(app, cursor)?;
        }
    }
}

fn is_word(cursor: &str) -> bool {
    matches!(cursor, "now" | "earliest")
}

fn start(app: &App, call: &Call) -> Result<u64, Refusal> {
    match call.query("cursor") {
        None | Some("earliest") => Ok(app.store.tail.floor()),
        Some("now") => Ok(app.store.tail.head()),
        Some(cursor) => {
            let position = parse(app, cursor)?;
            if app.faults.cursors_are_expired() || position < app.store.tail.floor() {
                return Err(expired("Entries after the cursor are no longer kept."));
            }
            Ok(position)
        }
    }
}

fn expired(detail: &str) -> Refusal {
    Refusal::new(410, "cursor-expired", format!("{detail} Read the workspaces again and go on from `now`."))
}

fn parse(app: &App, cursor: &str) -> Result<u64, Refusal> {
    let decoded = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let parts = decoded.as_deref().and_then(|text| text.rsplit_once(':'));
    let position = parts.and_then(|(epoch, position)| Some((epoch, position.parse::<u64>().ok()?)));
    let wrong = || Refusal::malformed("The cursor is not one of this server's.").at("cursor", "Not a cursor.");
    let (epoch, position) = position.ok_or_else(wrong)?;
    if epoch != app.store.tail.epoch() || position > app.store.tail.head() {
        return Err(expired("The feed has another history than the cursor."));
    }
    Ok(position)
}

async fn after(app: &App, position: u64, limit: usize) -> Result<Vec<Entry>, Refusal> {
    if let Some(entries) = app.store.tail.after(position, limit) {
        return Ok(entries);
    }
    app.store
        .read(move |db| {
            let mut find =
                db.prepare_cached("SELECT sequence, body FROM changes WHERE sequence > ?1 ORDER BY sequence LIMIT ?2")?;
            let rows = find.query_map(rusqlite::params![position, limit], |row| {
                Ok(Entry { sequence: row.get(0)?, body: row.get_ref(1)?.as_str()?.into() })
            })?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })
        .await
}

/// The entries are kept as JSON, so the page is put together without parsing them.
fn page(app: &App, position: u64, entries: &[Entry], limit: usize) -> Answer {
    let epoch = app.store.tail.epoch();
    let last = entries.last().map_or(position, |entry| entry.sequence);
    let cursor = URL_SAFE_NO_PAD.encode(format!("{epoch}:{last}"));
    let more = entries.len() == limit && app.store.tail.head() > last;
    let mut body = String::with_capacity(128 + entries.iter().map(|entry| entry.body.len() + 1).sum::<usize>());
    body.push_str("{\"items\":[");
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        body.push_str(&entry.body);
    }
    let rest = serde_json::json!({"nextCursor": cursor, "hasMore": more, "feedEpoch": epoch}).to_string();
    body.push_str("],");
    body.push_str(&rest[1..]);
    let mut answer = Answer::empty(200);
    answer.body = Payload::Json(Bytes::from(body));
    answer
}
