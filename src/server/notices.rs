//! Mails to outsiders: queued in the transaction of their cause, sent afterwards, tried again until they are gone.

use std::path::PathBuf;

use jiff::Timestamp;
use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use rusqlite::params;
use serde_json::{Map, Value};

use super::App;
use super::refusal::Refusal;
use super::tx::View;

/// Where mails go.
pub enum Relay {
    /// An SMTP server.
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
    /// A folder of `.eml` files, for development and tests.
    Outbox(PathBuf),
}

/// How the mails are sent.
pub struct Sender {
    /// Where to.
    pub relay: Relay,
    /// From whom.
    pub from: Mailbox,
}

/// One mail: name, languages with subject and text, and the values it needs.
struct Template {
    name: &'static str,
    needs: &'static [&'static str],
    en: (&'static str, &'static str),
    de: (&'static str, &'static str),
}

const TEMPLATES: [Template; 6] = [
    Template {
        name: "workspace-invitation",
        needs: &["workspace", "url"],
        en: (
            "You are invited to the workspace {workspace}",
            "Hello,\n\nyou now have access to the workspace \"{workspace}\".\n\nOpen it here:\n{url}\n",
        ),
        de: (
            "Einladung in den Arbeitsbereich {workspace}",
            "Guten Tag,\n\nSie haben jetzt Zugriff auf den Arbeitsbereich „{workspace}“.\n\nHier öffnen Sie ihn:\n{url}\n",
        ),
    },
    Template {
        name: "verification-code",
        needs: &["code"],
        en: (
            "Your code: {code}",
            "Hello,\n\nyour code is {code}. It is valid for 15 minutes.\n\nIf you did not ask for it, you need not do anything.\n",
        ),
        de: (
            "Ihr Code: {code}",
            "Guten Tag,\n\nIhr Code lautet {code}. Er gilt 15 Minuten.\n\nWenn Sie ihn nicht angefordert haben, müssen Sie nichts tun.\n",
        ),
    },
    Template {
        name: "share-notice",
        needs: &["item", "url"],
        en: ("{item} was shared with you", "Hello,\n\n\"{item}\" was shared with you.\n\nOpen it here:\n{url}\n"),
        de: (
            "{item} wurde für Sie freigegeben",
            "Guten Tag,\n\n„{item}“ wurde für Sie freigegeben.\n\nHier öffnen Sie es:\n{url}\n",
        ),
    },
    Template {
        name: "document-request",
        needs: &["workspace", "documents", "url"],
        en: (
            "Documents needed for {workspace}",
            "Hello,\n\nplease send these documents for \"{workspace}\":\n\n{documents}\n\nYou can upload them here:\n{url}\n",
        ),
        de: (
            "Unterlagen für {workspace} benötigt",
            "Guten Tag,\n\nbitte senden Sie uns diese Unterlagen für „{workspace}“:\n\n{documents}\n\nHier können Sie sie hochladen:\n{url}\n",
        ),
    },
    Template {
        name: "document-reminder",
        needs: &["workspace", "documents", "url"],
        en: (
            "Reminder: documents needed for {workspace}",
            "Hello,\n\nthese documents are still needed for \"{workspace}\":\n\n{documents}\n\nYou can upload them here:\n{url}\n",
        ),
        de: (
            "Erinnerung: Unterlagen für {workspace} fehlen noch",
            "Guten Tag,\n\nfür „{workspace}“ fehlen noch diese Unterlagen:\n\n{documents}\n\nHier können Sie sie hochladen:\n{url}\n",
        ),
    },
    Template {
        name: "reminder",
        needs: &["subject", "url"],
        en: ("Reminder: {subject}", "Hello,\n\nthis is a reminder: {subject}.\n\nMore is here:\n{url}\n"),
        de: ("Erinnerung: {subject}", "Guten Tag,\n\nwir erinnern Sie an: {subject}.\n\nMehr dazu hier:\n{url}\n"),
    },
];

/// Checks that the template is known and has what it needs.
pub fn check(template: &str, values: &Map<String, Value>) -> Result<(), Refusal> {
    let known = TEMPLATES.iter().find(|known| known.name == template);
    let known = known.ok_or_else(|| Refusal::invalid("/template", "There is no such template."))?;
    for name in known.needs {
        if !values.get(*name).is_some_and(Value::is_string) {
            return Err(Refusal::invalid("/params", format!("The template needs `{name}`.")));
        }
    }
    Ok(())
}

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

struct Due {
    id: String,
    template: String,
    locale: String,
    to: String,
    values: String,
    attempts: u32,
    created_at: i64,
}

/// Sends what is due. A mail that fails is tried again later, a little later each time.
pub async fn deliver(app: &App) {
    let now = app.config.clock.now();
    let due = app.store.read(move |db| {
        let mut find = db.prepare_cached(
            "SELECT id, template, locale, recipient, params, attempts, created_at FROM notifications WHERE due_at <= ?1 ORDER BY due_at LIMIT 50",
        )?;
        let rows = find.query_map([now.as_millisecond()], |row| {
            Ok(Due {
                id: row.get(0)?,
                template: row.get(1)?,
                locale: row.get(2)?,
                to: row.get(3)?,
                values: row.get(4)?,
                attempts: row.get(5)?,
                created_at: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    });
    for mail in due.await.unwrap_or_default() {
        let sent = send(app, &mail).await;
        if let Err(error) = &sent {
            tracing::warn!(notification = mail.id, error, "a mail could not be sent");
        }
        note(app, mail, sent.err(), now).await;
    }
}

async fn note(app: &App, mail: Due, failure: Option<String>, now: Timestamp) {
    let later = now.as_millisecond() + 5_000 * (1_i64 << mail.attempts.min(10));
    let noted = app.store.write(move |ledger| {
        let sent = failure.is_none();
        let mut update = ledger.db.prepare_cached(
            "UPDATE notifications SET attempts = attempts + 1, failure = ?2, sent_at = CASE WHEN ?3 THEN ?4 END,
                 due_at = CASE WHEN ?3 THEN NULL ELSE ?5 END WHERE id = ?1",
        )?;
        let failure = failure.map(|text| text.chars().take(500).collect::<String>());
        update.execute(params![mail.id, failure, sent, now.as_millisecond(), later])
    });
    if !matches!(noted.await, Ok(Ok(_))) {
        tracing::error!("a mail's state could not be kept");
    }
}

async fn send(app: &App, mail: &Due) -> Result<(), String> {
    let message = render(app, mail)?;
    match &app.mail.relay {
        Relay::Smtp(transport) => transport.send(message).await.map(drop).map_err(|error| error.to_string()),
        Relay::Outbox(folder) => {
            // The same name on a repeat: a crash between sending and noting leaves one file, not two.
            let (file, unfinished) = (folder.join(format!("{}.eml", mail.id)), folder.join(format!(".{}", mail.id)));
            tokio::fs::create_dir_all(folder).await.map_err(|error| error.to_string())?;
            tokio::fs::write(&unfinished, message.formatted()).await.map_err(|error| error.to_string())?;
            tokio::fs::rename(&unfinished, &file).await.map_err(|error| error.to_string())
        }
    }
}

fn render(app: &App, mail: &Due) -> Result<Message, String> {
    let template = TEMPLATES.iter().find(|known| known.name == mail.template).ok_or("the template is unknown")?;
    let values: Map<String, Value> = serde_json::from_str(&mail.values).map_err(|error| error.to_string())?;
    let (subject, text) = if mail.locale.starts_with("de") { template.de } else { template.en };
    let to = mail.to.parse().map_err(|_| "the address cannot be written to".to_owned())?;
    let created =
        std::time::UNIX_EPOCH + std::time::Duration::from_millis(u64::try_from(mail.created_at).unwrap_or_default());
    Message::builder()
        .from(app.mail.from.clone())
        .to(Mailbox::new(None, to))
        .subject(fill(subject, &values, true))
        .message_id(Some(format!("<{}@{}>", mail.id, app.mail.from.email.domain())))
        .date(created)
        .header(lettre::message::header::ContentType::TEXT_PLAIN)
        .body(fill(text, &values, false))
        .map_err(|error| error.to_string())
}

/// Puts values in. In one pass, so that a value cannot bring in another one; without control characters, so that it cannot
/// bring in a header.
fn fill(template: &str, values: &Map<String, Value>, is_header: bool) -> String {
    let mut filled = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((name, tail)) = after.split_once('}') else { break };
        let value = values.get(name).and_then(Value::as_str).unwrap_or_default();
        let most = if is_header { 120 } else { 2000 };
        filled.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most));
        rest = tail;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_brings_in_neither_headers_nor_other_values() {
        let values = serde_json::json!({"workspace": "x\r\nBcc: eve@evil.example {url}", "url": "secret"});
        let filled = fill("Invitation to {workspace}", values.as_object().unwrap(), true);
        assert_eq!(filled, "Invitation to x  Bcc: eve@evil.example {url}");
    }
}
