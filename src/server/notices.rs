//! Mails to outsiders: queued in the transaction of their cause, sent afterwards.

use rusqlite::params;
use serde_json::Value;

use super::refusal::Refusal;
use super::tx::View;

/// Queues a mail. It is sent after the commit, and again after a crash until it was sent once.
pub fn queue(view: &View<'_>, template: &str, locale: &str, to: &str, values: &Value) -> Result<String, Refusal> {
    let id = super::names::id('n', view.now);
    let now = view.now.as_millisecond();
    view.db
        .prepare_cached(
            "INSERT INTO notifications (id, template, locale, recipient, params, created_at, due_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        )?
        .execute(params![id, template, locale, to, values.to_string(), now])?;
    Ok(id)
}
