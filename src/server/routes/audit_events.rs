//! The audit feed. Reading it is not an audited event.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::types::Value as Sql;

use super::Outcome;
use crate::server::call::{Answer, Payload};
use crate::server::names;
use crate::server::refusal::Refusal;
use crate::server::tx::View;

/// `GET /v1/audit-events`
pub fn list(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let limit = view.call.limit()?;
    let after = position(view)?;
    let (mut sql, mut values) =
        ("SELECT sequence, body, hash FROM audit WHERE sequence > ?".to_owned(), vec![Sql::from(after)]);
    for (parameter, condition) in [("from", " AND time >= ?"), ("to", " AND time < ?")] {
        if let Some(text) = view.call.query(parameter) {
            let time: Timestamp = text.parse().map_err(|_| {
                Refusal::malformed(format!("`{parameter}` is an RFC 3339 time.")).at(parameter, "Not a time.")
            })?;
            sql.push_str(condition);
            values.push(Sql::from(time.as_millisecond()));
        }
    }
    for (parameter, condition) in [("item", " AND item_id = ?"), ("type", " AND action = ?")] {
        if let Some(text) = view.call.query(parameter) {
            sql.push_str(condition);
            values.push(Sql::from(text.to_owned()));
        }
    }
    sql.push_str(" ORDER BY sequence LIMIT ?");
    values.push(Sql::from(i64::try_from(limit + 1).unwrap_or(i64::MAX)));
    let mut find = view.db.prepare_cached(&sql)?;
    let rows = find.query_map(rusqlite::params_from_iter(values), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, [u8; 32]>(2)?))
    })?;
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().map_or(after, |(sequence, ..)| *sequence);
    let mut body = String::from("{\"items\":[");
    for (at, (_, event, hash)) in rows.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        // The stored text is what was hashed; its hash is put in front of its closing brace.
        body.push_str(&event[..event.len() - 1]);
        body.push_str(",\"hash\":\"");
        body.push_str(&names::hex(hash));
        body.push_str("\"}");
    }
    let rest = serde_json::json!({"nextCursor": URL_SAFE_NO_PAD.encode(last.to_string()), "hasMore": more}).to_string();
    body.push_str("],");
    body.push_str(&rest[1..]);
    let mut answer = Answer::empty(200);
    answer.body = Payload::Json(Bytes::from(body));
    Ok(answer)
}

fn position(view: &View<'_>) -> Result<i64, Refusal> {
    match view.call.query("cursor") {
        None | Some("earliest") => Ok(0),
        Some("now") => Ok(view.db.query_row("SELECT coalesce(max(sequence), 0) FROM audit", [], |row| row.get(0))?),
        Some(_) => {
            let wrong = || Refusal::malformed("The cursor is not one of this server's.").at("cursor", "Not a cursor.");
            view.call.after()?.parse().ok().filter(|position| *position >= 0).ok_or_else(wrong)
        }
    }
}
