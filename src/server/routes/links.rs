//! Share links.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use serde::Deserialize;

use super::Outcome;
use super::sharing::{self, LinkShape};
use crate::file360::model::{Audience, ChangeKind, Link, NewLink, SharingRules};
use crate::server::App;
use crate::server::authorize::{Effect, Permit};
use crate::server::call::{Answer, Call};
use crate::server::http::Reply;
use crate::server::names;
use crate::server::operation::Scope;
use crate::server::passwords;
use crate::server::records::items::{self, Placed};
use crate::server::records::workspaces;
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// Guests that one link can name.
const MOST_RECIPIENTS: usize = 50;

const AUDIENCES: [Audience; 4] = [Audience::Members, Audience::Company, Audience::Guests, Audience::Anyone];

/// A link's row.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the columns of the table")]
pub struct Record {
    pub id: String,
    pub workspace_id: String,
    pub item_id: String,
    pub audience: Audience,
    pub expires_at: Option<Timestamp>,
    pub password_hash: Option<String>,
    pub max_downloads: Option<u32>,
    pub downloads: u32,
    pub download: bool,
    pub managed: bool,
    pub token: String,
    /// Waits for a decision.
    pub pending: bool,
    pub rev: u64,
    /// The guests it is for, in lower case; empty: every guest.
    pub recipients: Vec<String>,
}

const COLUMNS: &str = "id, workspace_id, item_id, audience, expires_at, password_hash, max_downloads, downloads, download, managed, \
     token, state, rev, recipients";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get(0)?,
        workspace_id: row.get(1)?,
        item_id: row.get(2)?,
        audience: crate::server::records::enumerated(3, &AUDIENCES, row.get(3)?)?,
        expires_at: row.get::<_, Option<i64>>(4)?.map(crate::server::records::time),
        password_hash: row.get(5)?,
        max_downloads: row.get(6)?,
        downloads: row.get(7)?,
        download: row.get(8)?,
        managed: row.get(9)?,
        token: row.get(10)?,
        pending: row.get(11)?,
        rev: row.get(12)?,
        recipients: crate::server::records::json(13, row.get_ref(13)?.as_str()?)?,
    })
}

/// The link behind a secret address, alive or not.
pub fn by_token(db: &rusqlite::Connection, token: &str) -> Result<Option<Record>, Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM links WHERE token = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([token], from_row).optional()?)
}

fn by_id(view: &View<'_>, id: &str) -> Result<(Record, Placed), Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM links WHERE id = ?1");
    let found = view.db.prepare_cached(&sql)?.query_row([id], from_row).optional()?;
    let link = found.ok_or_else(|| Refusal::not_found("link"))?;
    let placed = items::by_id(view, &link.item_id).map_err(|_| Refusal::not_found("link"))?;
    view.note(|about| about.subject = Some(link.id.clone()));
    Ok((link, placed))
}

impl Record {
    /// It does not open any more, or not yet.
    pub fn is_closed(&self, now: Timestamp) -> bool {
        self.pending
            || self.expires_at.is_some_and(|at| at <= now)
            || self.max_downloads.is_some_and(|most| self.downloads >= most)
    }

    /// Whether the sharing rule, as it is now, lets it open. The rule's longest life was judged when the link was made.
    pub fn is_allowed(&self, rules: &SharingRules, now: Timestamp) -> bool {
        let shape = LinkShape { expires_at: self.expires_at.map(|_| now), ..self.shape() };
        sharing::allows_link(rules, shape, now).is_ok()
    }

    /// What the sharing rule looks at.
    fn shape(&self) -> LinkShape {
        LinkShape {
            audience: self.audience,
            expires_at: self.expires_at,
            has_password: self.password_hash.is_some(),
            download: self.download,
        }
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.rev)
    }

    fn public(&self, view: &View<'_>) -> Link {
        let shares = view.call.has_scope(Scope::Share);
        Link {
            id: self.id.clone(),
            item_id: self.item_id.clone(),
            audience: self.audience,
            expires_at: self.expires_at,
            has_password: self.password_hash.is_some(),
            max_downloads: self.max_downloads,
            downloads: self.downloads,
            download: self.download,
            managed: self.managed,
            recipients: self.recipients.clone(),
            url: shares.then(|| format!("{}/s/{}", view.call.public_url, self.token)),
            etag: self.etag(),
        }
    }
}

/// `GET /v1/workspaces/{id}/links`
pub fn list(view: &View<'_>) -> Outcome {
    let workspace = workspaces::by_id(view, view.call.param("id"))?;
    workspace.authorize(view)?;
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let sql = format!("SELECT {COLUMNS} FROM links WHERE workspace_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3");
    let mut find = view.db.prepare_cached(&sql)?;
    let rows = find.query_map(params![workspace.public.id, after, limit + 1], from_row)?;
    let page = rows.map(|row| row.map(|link| (link.id.clone(), link.public(view)))).collect::<Result<Vec<_>, _>>()?;
    Answer::page(page, limit)
}

/// `GET /v1/links/{id}`
pub fn get(view: &View<'_>) -> Outcome {
    let (link, placed) = by_id(view, view.call.param("id"))?;
    placed.workspace.authorize(view)?;
    Ok(Answer::ok(&link.public(view))?.tagged(&link.etag()))
}

/// `POST /v1/items/{id}/links`
pub async fn create(app: App, call: Call) -> Reply {
    let new: NewLink = match call.json() {
        Ok(new) => new,
        Err(refusal) => return app.refused_unless_admitted(call, refusal).await,
    };
    let hash = match passwords::hash_optional(new.password.clone()).await {
        Ok(hash) => hash,
        Err(refusal) => return app.refused_unless_admitted(call, refusal).await,
    };
    app.write(call, move |tx| insert(tx, &new, hash.as_deref())).await
}

fn insert(tx: &mut Tx<'_, '_, '_>, new: &NewLink, password_hash: Option<&str>) -> Outcome {
    let placed = items::by_id(tx, tx.call.param("id"))?;
    let external = matches!(new.audience, Audience::Guests | Audience::Anyone);
    let permit = placed.authorize_as(tx, Effect::ShareLink, |target| target.external = external)?;
    let rules = &placed.workspace.public.sharing;
    let expires_at = sharing::expiry(new.expires_at, tx.now)?;
    let download = new.download.unwrap_or(rules.links.download);
    let shape = LinkShape { audience: new.audience, expires_at, has_password: password_hash.is_some(), download };
    sharing::allows_link(rules, shape, tx.now)?;
    if new.max_downloads == Some(0) {
        return Err(Refusal::invalid("/maxDownloads", "At least 1."));
    }
    let recipients = recipients(new)?;
    let id = tx.id('l');
    let mut insert = tx.db.prepare_cached(
        "INSERT INTO links (id, workspace_id, item_id, audience, expires_at, password_hash, max_downloads, download, managed, token,
             state, rev, recipients, requested_by, requested_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 1, ?12, ?13, ?14)",
    )?;
    insert.execute(params![
        id,
        placed.item.workspace_id,
        placed.item.id,
        new.audience as u8,
        expires_at.map(Timestamp::as_millisecond),
        password_hash,
        new.max_downloads,
        download,
        new.managed,
        names::secret(),
        permit == Permit::Pending,
        serde_json::to_string(&recipients)?,
        serde_json::to_string(&tx.actor)?,
        tx.now.as_millisecond(),
    ])?;
    drop(insert);
    tx.details(serde_json::json!({"audience": new.audience, "pending": permit == Permit::Pending}));
    tx.changed(&placed.item.workspace_id, ChangeKind::LinkChanged, news(&id, &placed))?;
    answer(tx, 201, &id)
}

/// The guests that a link is for: addresses in the form in which guests are kept.
fn recipients(new: &NewLink) -> Result<Vec<String>, Refusal> {
    let invalid = |detail: &str| Refusal::invalid("/recipients", detail);
    if new.recipients.is_empty() {
        return Ok(Vec::new());
    }
    if new.audience != Audience::Guests {
        return Err(invalid("Only a link for guests names them."));
    }
    if new.recipients.len() > MOST_RECIPIENTS {
        return Err(invalid("A link is for at most 50 guests."));
    }
    let mut named = Vec::new();
    for address in &new.recipients {
        named.push(names::email(address).ok_or_else(|| invalid("That is not an e-mail address."))?);
    }
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

/// What the feed says about a link to an item.
pub fn news(link: &str, placed: &Placed) -> News {
    News::about(link).on(&placed.item.id).of(placed)
}

/// The audiences to which links on the item or above it open it now, the narrowest first.
pub fn audiences(view: &View<'_>, placed: &Placed) -> Result<Vec<Audience>, Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM links WHERE item_id = ?1 AND state = 0");
    let mut find = view.db.prepare_cached(&sql)?;
    let mut found = Vec::new();
    for id in placed.ids() {
        for link in find.query_map([id], from_row)? {
            let link = link?;
            if !link.is_closed(view.now) && link.is_allowed(&placed.workspace.public.sharing, view.now) {
                found.push(link.audience);
            }
        }
        found.sort_unstable();
        found.dedup();
    }
    Ok(found)
}

fn answer(tx: &Tx<'_, '_, '_>, status: u16, id: &str) -> Outcome {
    let revision = tx.answered_revision(false);
    let (link, _) = by_id(tx, id)?;
    if let Some(revision) = revision {
        tx.concerns(revision);
    }
    Ok(Answer::json(status, &link.public(tx))?.tagged(&link.etag()))
}

/// Merge patch of a link. The outer `None` leaves a member as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(clippy::option_option, reason = "absent, null and a value are three different things in a merge patch")]
struct LinkPatch {
    audience: Option<Audience>,
    #[serde(deserialize_with = "present")]
    expires_at: Option<Option<Timestamp>>,
    #[serde(deserialize_with = "present")]
    password: Option<Option<String>>,
    #[serde(deserialize_with = "present")]
    max_downloads: Option<Option<u32>>,
    download: Option<bool>,
    managed: Option<bool>,
}

#[allow(clippy::option_option, reason = "absent, null and a value are three different things in a merge patch")]
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

/// `PATCH /v1/links/{id}`
pub async fn update(app: App, call: Call) -> Reply {
    let patch: LinkPatch = match call.json() {
        Ok(patch) => patch,
        Err(refusal) => return app.refused_unless_admitted(call, refusal).await,
    };
    let hash = match passwords::hash_optional(patch.password.clone().flatten()).await {
        Ok(hash) => hash,
        Err(refusal) => return app.refused_unless_admitted(call, refusal).await,
    };
    app.write(call, move |tx| change(tx, &patch, hash)).await
}

fn change(tx: &mut Tx<'_, '_, '_>, patch: &LinkPatch, hash: Option<String>) -> Outcome {
    let (before, placed) = by_id(tx, tx.call.param("id"))?;
    let mut after = before.clone();
    after.audience = patch.audience.unwrap_or(before.audience);
    let external = matches!(after.audience, Audience::Guests | Audience::Anyone);
    let permit = placed.authorize_as(tx, Effect::ShareLink, |target| target.external = external)?;
    tx.call.require_match(&before.etag())?;
    if let Some(expires_at) = patch.expires_at {
        after.expires_at = sharing::expiry(expires_at, tx.now)?;
    }
    if patch.password.is_some() {
        after.password_hash = hash;
    }
    after.max_downloads = patch.max_downloads.unwrap_or(before.max_downloads);
    if after.max_downloads == Some(0) {
        return Err(Refusal::invalid("/maxDownloads", "At least 1."));
    }
    after.download = patch.download.unwrap_or(before.download);
    after.managed = patch.managed.unwrap_or(before.managed);
    sharing::allows_link(&placed.workspace.public.sharing, after.shape(), tx.now)?;
    let loosened = permit == Permit::Pending && after.is_looser_than(&before);
    let changed = after.shape_and_more() != before.shape_and_more();
    if changed {
        let mut update = tx.db.prepare_cached(
            "UPDATE links SET audience = ?2, expires_at = ?3, password_hash = ?4, max_downloads = ?5, download = ?6, managed = ?7,
                 state = max(state, ?8), ended = 0, rev = rev + 1, requested_by = CASE WHEN ?11 THEN ?9 ELSE requested_by END,
                 requested_at = CASE WHEN ?11 THEN ?10 ELSE requested_at END WHERE id = ?1",
        )?;
        update.execute(params![
            after.id,
            after.audience as u8,
            after.expires_at.map(Timestamp::as_millisecond),
            after.password_hash,
            after.max_downloads,
            after.download,
            after.managed,
            loosened,
            serde_json::to_string(&tx.actor)?,
            tx.now.as_millisecond(),
            after.opens_as() != before.opens_as(),
        ])?;
        drop(update);
        tx.changed(&after.workspace_id, ChangeKind::LinkChanged, news(&after.id, &placed))?;
    }
    answer(tx, 200, &before.id)
}

impl Record {
    /// It opens for more people, for longer, more often or further than before: another thing than what was decided about.
    fn is_looser_than(&self, before: &Self) -> bool {
        self.audience > before.audience
            || (before.password_hash.is_some() && self.password_hash.is_none())
            || before.expires_at.is_some_and(|end| self.expires_at.is_none_or(|at| at > end))
            || before.max_downloads.is_some_and(|most| self.max_downloads.is_none_or(|now| now > most))
            || (self.download && !before.download)
    }

    /// What a decision about it is for: whom it opens for, how long, how often and how far, and whether it asks for a password; not which.
    fn opens_as(&self) -> (Audience, Option<Timestamp>, bool, Option<u32>, bool) {
        (self.audience, self.expires_at, self.password_hash.is_some(), self.max_downloads, self.download)
    }

    fn shape_and_more(&self) -> (Audience, Option<Timestamp>, Option<&str>, Option<u32>, bool, bool) {
        (self.audience, self.expires_at, self.password_hash.as_deref(), self.max_downloads, self.download, self.managed)
    }
}

/// `DELETE /v1/links/{id}`
pub fn delete(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let (link, placed) = by_id(tx, tx.call.param("id"))?;
    placed.workspace.authorize(tx)?;
    tx.call.allow_match(&link.etag())?;
    tx.db.prepare_cached("DELETE FROM links WHERE id = ?1")?.execute([&link.id])?;
    tx.changed(&link.workspace_id, ChangeKind::LinkChanged, news(&link.id, &placed))?;
    Ok(Answer::empty(204))
}
