//! `/s/{token}`: somebody opens a share link.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header;
use parking_lot::Mutex;

use super::{codes, field, finish, html, wants_json};
use crate::file360::model::{Audience, ChangeKind, ItemKind, PrincipalKind};
use crate::server::App;
use crate::server::authorize::{Effect, Through};
use crate::server::call::{Answer, Call, Caller};
use crate::server::http::Reply;
use crate::server::names;
use crate::server::operation::Operation;
use crate::server::passwords;
use crate::server::records::items::{self, Placed};
use crate::server::records::{people, workspaces};
use crate::server::refusal::Refusal;
use crate::server::routes::downloads::{self, Source};
use crate::server::routes::links::{self, Record};
use crate::server::tx::{Tx, View};

/// Most files of a folder that its page lists.
const LISTED: usize = 500;

/// The link behind the address, if it is alive, the sharing rule still allows it, and the caller may use it.
fn open(view: &View<'_>) -> Result<(Record, Placed), Refusal> {
    let gone = || Refusal::not_found("link");
    let link =
        links::by_token(view.db, view.call.param("token"))?.filter(|link| !link.is_closed(view.now)).ok_or_else(gone)?;
    let placed = items::by_id(view, &link.item_id).map_err(|_| gone())?;
    view.note(|about| about.subject = Some(link.id.clone()));
    if !link.is_allowed(&placed.workspace.public.sharing, view.now) {
        return Err(gone());
    }
    placed.authorize_as(view, Effect::ReadContent, |_| ()).map_err(|_| gone())?;
    Ok((link, placed))
}

/// The outsider of this link; whether it downloads is known only after the link was read, so it is read first.
async fn outsider(app: &App, mut call: Call, email: Option<String>, verified: bool) -> Call {
    let token = call.param("token").to_owned();
    let found = app.store.read(move |db| links::by_token(db, &token)).await;
    let download = matches!(found, Ok(Some(link)) if link.download);
    call.caller = Caller::Outsider { through: Through::Link { download }, email, verified };
    call
}

/// `GET /s/{token}`
pub async fn show(app: App, call: Call) -> Reply {
    let call = outsider(&app, call, None, false).await;
    let reply = app
        .write(call.clone(), |tx| {
            let (link, placed) = open(tx)?;
            tx.took_effect();
            let name =
                if placed.item.parent_id.is_none() { &placed.workspace.public.display_name } else { &placed.item.name };
            Ok(html::page(200, name, &form(tx, &link, &placed)?, tx.call))
        })
        .await;
    finish(&app, call, reply).await
}

fn form(view: &View<'_>, link: &Record, placed: &Placed) -> Result<String, Refusal> {
    if matches!(link.audience, Audience::Members | Audience::Company) {
        return Ok(
            "<p>This link is for people of the organisation. Please sign in to File 360 and open it there.</p>".to_owned()
        );
    }
    if !link.download {
        return Ok("<p>This link does not allow downloads.</p>".to_owned());
    }
    let mut form = String::new();
    if link.audience == Audience::Guests {
        form.push_str(
            "<form method=\"post\" action=\"{base}/code\"><label for=\"address\">E-mail address</label>\
             <input id=\"address\" name=\"email\" type=\"email\" autocomplete=\"email\" required>\
             <button type=\"submit\">Send me a code</button></form>",
        );
    }
    form.push_str("<form method=\"post\" action=\"{base}/download\">");
    if link.audience == Audience::Guests {
        form.push_str(
            "<label for=\"email\">E-mail address</label><input id=\"email\" name=\"email\" type=\"email\" required>\
             <label for=\"code\">Code</label><input id=\"code\" name=\"code\" inputmode=\"numeric\" autocomplete=\"one-time-code\" required>",
        );
    }
    if link.password_hash.is_some() {
        form.push_str(
            "<label for=\"password\">Password</label><input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required>",
        );
    }
    if placed.item.kind == ItemKind::Folder {
        form.push_str(&choices(view, placed)?);
    }
    form.push_str("<button type=\"submit\">Download</button></form>");
    Ok(form)
}

fn choices(view: &View<'_>, folder: &Placed) -> Result<String, Refusal> {
    let mut find = view.db.prepare_cached(
        "SELECT id, name FROM items WHERE parent_id = ?1 AND kind = 1 AND trashed_at IS NULL AND version IS NOT NULL AND quarantined = 0
         ORDER BY name_fold LIMIT ?2",
    )?;
    let rows = find.query_map(rusqlite::params![folder.item.id, LISTED], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut options = String::from("<label for=\"item\">File</label><select id=\"item\" name=\"item\" required>");
    for row in rows {
        let (id, name) = row?;
        let _ = write!(options, "<option value=\"{}\">{}</option>", html::escape(&id), html::escape(&name));
    }
    options.push_str("</select>");
    Ok(options)
}

/// `POST /s/{token}/code`
pub async fn request_code(app: App, call: Call) -> Reply {
    let call = outsider(&app, call, None, false).await;
    let token = call.param("token").to_owned();
    if let Err(refusal) = app.guesses.check(call.ip, &token, call.now) {
        return finish(&app, call, refusal.into()).await;
    }
    app.guesses.failed(call.ip, &token, call.now);
    let email = field(&call, "email").and_then(|email| names::email(&email));
    let reply = app
        .write(call.clone(), move |tx| {
            let (link, placed) = open(tx)?;
            let email = email.ok_or_else(|| Refusal::invalid("email", "That is not an e-mail address."))?;
            if link.audience == Audience::Guests && is_named_guest(tx, &link, &placed, &email)? {
                codes::mail(tx, tx.call.param("token"), &email)?;
            }
            // The same answer for everybody: it does not tell who is a guest.
            if wants_json(tx.call) {
                return Ok(Answer::empty(202));
            }
            let text = "<p>If the link is for this address, a code is on its way.</p><p><a href=\"{base}\">Back to the page</a>, where it is entered.</p>";
            Ok(html::page(200, "Code requested", text, tx.call))
        })
        .await;
    finish(&app, call, reply).await
}

fn is_named_guest(view: &View<'_>, link: &Record, placed: &Placed, email: &str) -> Result<bool, Refusal> {
    if !(link.recipients.is_empty() || link.recipients.iter().any(|named| named == email)) {
        return Ok(false);
    }
    let known = people::by_name(view.db, PrincipalKind::Guest, email)?.is_some();
    Ok(known && workspaces::may_share_with(&placed.workspace.public.sharing, email))
}

/// `POST /s/{token}/download`
pub async fn download(app: App, call: Call) -> Reply {
    let email = field(&call, "email").and_then(|email| names::email(&email));
    let call = outsider(&app, call, email, false).await;
    give(app, call).await
}

/// `GET /s/{token}/content`: the same for programs, without a form. A password comes as that of HTTP Basic authentication.
pub async fn content(app: App, call: Call) -> Reply {
    let call = outsider(&app, call, None, false).await;
    give(app, call).await
}

fn is_for_programs(call: &Call) -> bool {
    call.operation == Operation::GetLinkContent
}

/// The password that was sent, if any.
fn password(call: &Call) -> Option<String> {
    if !is_for_programs(call) {
        return field(call, "password");
    }
    let (scheme, credentials) = call.header(header::AUTHORIZATION)?.split_once(' ')?;
    let decoded = STANDARD.decode(credentials.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    String::from_utf8(decoded).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

/// Which file of a folder was asked for.
fn chosen(call: &Call) -> Option<String> {
    if is_for_programs(call) { call.query("item").map(str::to_owned) } else { field(call, "item") }
}

async fn give(app: App, call: Call) -> Reply {
    let token = call.param("token").to_owned();
    if let Err(refusal) = app.guesses.check(call.ip, &token, call.now) {
        return finish(&app, call, refusal.into()).await;
    }
    if let Err(refusal) = check_password(&app, &call).await {
        if refusal.code() == "wrong-password" {
            app.guesses.failed(call.ip, &token, call.now);
        }
        let reply = app.refused(call.clone(), refusal).await;
        return finish(&app, call, reply).await;
    }
    let found = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&found);
    let reply = app.write(call.clone(), move |tx| take(tx).map(|source| keep(&slot, source))).await;
    let source = found.lock().take();
    let reply = match (source, reply.outcome) {
        (Some(source), Ok(_)) => Reply::plain(downloads::send(&app, &call.headers, &source).await),
        (_, outcome) => Reply::plain(outcome),
    };
    if reply.outcome.as_ref().is_ok_and(|answer| answer.status == http::StatusCode::FORBIDDEN) {
        app.guesses.failed(call.ip, &token, call.now);
    }
    finish(&app, call, reply).await
}

fn keep(slot: &Mutex<Option<Source>>, source: Option<Source>) -> Answer {
    match source {
        Some(source) => {
            *slot.lock() = Some(source);
            Answer::empty(200)
        }
        // The code did not match. An answer, not a refusal: the count of wrong tries must stay.
        None => Answer::empty(403),
    }
}

async fn check_password(app: &App, call: &Call) -> Result<(), Refusal> {
    let token = call.param("token").to_owned();
    let link = app.store.read(move |db| links::by_token(db, &token)).await?;
    let Some(hash) = link.and_then(|link| link.password_hash) else { return Ok(()) };
    let password = password(call).unwrap_or_default();
    if passwords::verify(password, hash).await {
        return Ok(());
    }
    Err(Refusal::new(403, "wrong-password", "The password is wrong.").audited())
}

/// Takes one download from the link. `None`: the mailed code did not match.
fn take(tx: &mut Tx<'_, '_, '_>) -> Result<Option<Source>, Refusal> {
    let (link, placed) = open(tx)?;
    let email = match &tx.call.caller {
        Caller::Outsider { email, .. } => email.clone().unwrap_or_default(),
        _ => String::new(),
    };
    match link.audience {
        Audience::Anyone => {}
        Audience::Guests if is_for_programs(tx.call) => {
            return Err(Refusal::new(403, "forbidden", "This link is for guests, who open it with a mailed code.").audited());
        }
        Audience::Guests => {
            let code = field(tx.call, "code").unwrap_or_default();
            let token = tx.call.param("token").to_owned();
            if !is_named_guest(tx, &link, &placed, &email)? || !codes::redeem(tx, &token, &email, &code)? {
                return Ok(None);
            }
        }
        Audience::Members | Audience::Company => {
            return Err(Refusal::new(403, "forbidden", "This link is for people of the organisation.").audited());
        }
    }
    let target = match chosen(tx.call) {
        Some(id) if placed.item.kind == ItemKind::Folder => {
            let child = items::by_id(tx, &id).map_err(|_| Refusal::not_found("item"))?;
            if child.ids().contains(&placed.item.id.as_str()) { child } else { return Err(Refusal::not_found("item")) }
        }
        _ => placed.clone(),
    };
    let source = downloads::permit(tx, &target, None)?;
    tx.db.prepare_cached("UPDATE links SET downloads = downloads + 1 WHERE id = ?1")?.execute([&link.id])?;
    if link.max_downloads == Some(link.downloads + 1) {
        tx.changed(&link.workspace_id, ChangeKind::LinkChanged, links::news(&link.id, &placed))?;
    }
    tx.took_effect();
    Ok(Some(source))
}
