//! Mails that clients ask for, and what became of them.

use rusqlite::params;
use serde_json::{Map, Value};

use super::Outcome;
use crate::file360::model::{NewNotification, Notification};
use crate::server::call::Answer;
use crate::server::names;
use crate::server::notices;
use crate::server::refusal::Refusal;
use crate::server::tx::{Tx, View};

/// `POST /v1/notifications`
pub fn create(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let new: NewNotification = tx.call.json()?;
    let to =
        names::email(&new.to).ok_or_else(|| Refusal::invalid("/to", "Not an e-mail address that can be written to."))?;
    if new.params.len() > 32 {
        return Err(Refusal::invalid("/params", "At most 32 values."));
    }
    new.params.values().try_for_each(|value| names::text(value, 2000, "/params"))?;
    let values: Map<String, Value> = new.params.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
    notices::check(&new.template, &values)?;
    let locale =
        if new.locale.as_deref().is_some_and(|locale| locale.to_ascii_lowercase().starts_with("de")) { "de" } else { "en" };
    let id = notices::queue(tx, &new.template, locale, &to, &Value::Object(values))?;
    tx.note(|about| about.subject = Some(id.clone()));
    tx.details(serde_json::json!({"template": new.template, "to": to}));
    tx.took_effect();
    let locale = locale.to_owned();
    let made = Notification {
        id,
        template: new.template,
        locale,
        to,
        created_at: tx.now,
        sent_at: None,
        attempts: 0,
        failure: None,
    };
    Answer::json(202, &made)
}

/// `GET /v1/notifications`
pub fn list(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let mut find = view.db.prepare_cached(
        "SELECT id, template, locale, recipient, created_at, sent_at, attempts, failure FROM notifications WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let rows = find.query_map(params![after, limit + 1], |row| {
        Ok(Notification {
            id: row.get(0)?,
            template: row.get(1)?,
            locale: row.get(2)?,
            to: row.get(3)?,
            created_at: crate::server::records::time(row.get(4)?),
            sent_at: row.get::<_, Option<i64>>(5)?.map(crate::server::records::time),
            attempts: row.get(6)?,
            failure: row.get(7)?,
        })
    })?;
    let page = rows.map(|row| row.map(|mail| (mail.id.clone(), mail))).collect::<Result<Vec<_>, _>>()?;
    Answer::page(page, limit)
}
