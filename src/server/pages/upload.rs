//! `/u/{token}`: somebody without an account uploads into the folder of an upload request.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::body::Body;
use http::header;
use serde_json::json;

use super::{checklist, codes, field, finish, html, wants_json};
use crate::file360::model::{FieldKind, ItemKind, OnConflict, RequestField};
use crate::server::App;
use crate::server::authorize::{Effect, Through};
use crate::server::blobs::Blob;
use crate::server::call::{Answer, Call, Caller, Payload};
use crate::server::http::Reply;
use crate::server::names;
use crate::server::records::items::{self, Placed};
use crate::server::refusal::Refusal;
use crate::server::routes::files::{self, Arrival};
use crate::server::routes::upload_requests::{self, Record};
use crate::server::tx::{Tx, View};

/// Most files in one form.
const MOST_FILES: usize = 20;
/// Longest value of a field.
const LONGEST: usize = 1024;

/// The upload request behind the address, if it is alive and the caller may use it.
fn open(view: &View<'_>) -> Result<(Record, Placed), Refusal> {
    let gone = || Refusal::not_found("upload request");
    let request = upload_requests::by_token(view.db, view.call.param("token"))?.filter(|request| !request.is_over(view.now));
    let request = request.ok_or_else(gone)?;
    let folder = items::by_id(view, &request.folder_id).map_err(|_| gone())?;
    view.note(|about| about.subject = Some(request.id.clone()));
    folder.authorize_as(view, Effect::ReadContent, |_| ()).map_err(|_| gone())?;
    Ok((request, folder))
}

fn outsider(mut call: Call, email: Option<String>, verified: bool) -> Call {
    call.caller = Caller::Outsider { through: Through::Request, email, verified };
    call
}

/// `GET /u/{token}`
pub async fn show(app: App, call: Call) -> Reply {
    let call = outsider(call, None, false);
    let reply = app
        .write(call.clone(), |tx| {
            let (request, folder) = open(tx)?;
            tx.took_effect();
            let title = format!("Upload to {}", folder.workspace.public.display_name);
            if request.input.require_email {
                return Ok(html::page(200, &title, &email_form(), tx.call));
            }
            Ok(html::page_with_progress(200, &title, &upload_form(&request, None), tx.call))
        })
        .await;
    finish(&app, call, reply).await
}

/// Forms name their targets below the page's own address, which ends in the token.
fn email_form() -> String {
    "<p>Please prove your e-mail address first. A code will be mailed to you.</p>\
     <form method=\"post\" action=\"\" data-step=\"code\"><label for=\"email\">E-mail address</label>\
     <input id=\"email\" name=\"email\" type=\"email\" autocomplete=\"email\" required>\
     <button type=\"submit\" formaction=\"{base}/code\">Send the code</button></form>"
        .to_owned()
}

fn code_form(email: &str) -> String {
    let email = html::escape(email);
    format!(
        "<p>If the address can receive mail, a code is on its way to <b>{email}</b>.</p>\
         <form method=\"post\" action=\"{{base}}/verify\"><input type=\"hidden\" name=\"email\" value=\"{email}\">\
         <label for=\"code\">Code</label><input id=\"code\" name=\"code\" inputmode=\"numeric\" autocomplete=\"one-time-code\" required>\
         <button type=\"submit\">Go on</button></form>"
    )
}

fn upload_form(request: &Record, verified: Option<(&str, &str)>) -> String {
    let mut form = checklist::section(&request.checklist.items);
    form.push_str("<form method=\"post\" action=\"{base}/files\" enctype=\"multipart/form-data\" data-progress>");
    match verified {
        Some((email, pass)) => {
            let (email, pass) = (html::escape(email), html::escape(pass));
            let _ = write!(
                form,
                "<input type=\"hidden\" name=\"email\" value=\"{email}\"><input type=\"hidden\" name=\"pass\" value=\"{pass}\">"
            );
        }
        None => form.push_str(
            "<label for=\"email\">Your e-mail address <small>(optional)</small></label>\
             <input id=\"email\" name=\"email\" type=\"email\" autocomplete=\"email\">",
        ),
    }
    for (number, field) in request.input.fields.iter().enumerate() {
        form.push_str(&input(number, field));
    }
    form.push_str("<label for=\"file\">Files</label><input id=\"file\" name=\"file\" type=\"file\" multiple required>");
    form.push_str("<p id=\"problem\" role=\"alert\" tabindex=\"-1\" hidden></p>");
    form.push_str("<progress max=\"1\" value=\"0\" aria-label=\"Upload\" hidden></progress>");
    form.push_str("<p id=\"state\" role=\"status\"></p><button type=\"submit\">Upload</button></form>");
    form
}

fn input(number: usize, field: &RequestField) -> String {
    let (name, label) = (html::escape(&field.name), html::escape(&field.label));
    let required = if field.required { " required" } else { "" };
    let control = match field.kind {
        FieldKind::Text => format!("<input id=\"f{number}\" name=\"{name}\" maxlength=\"1024\"{required}>"),
        FieldKind::Date => format!("<input id=\"f{number}\" name=\"{name}\" type=\"date\"{required}>"),
        FieldKind::Select => {
            let options = listed(field.options.iter().map(String::as_str), "option");
            format!("<select id=\"f{number}\" name=\"{name}\"{required}><option value=\"\"></option>{options}</select>")
        }
    };
    let optional = if field.required { "" } else { " <small>(optional)</small>" };
    format!("<label for=\"f{number}\">{label}{optional}</label>{control}")
}

/// Texts as elements, one each.
fn listed<'a>(texts: impl Iterator<Item = &'a str>, element: &str) -> String {
    texts.fold(String::new(), |mut list, text| {
        let _ = write!(list, "<{element}>{}</{element}>", html::escape(text));
        list
    })
}

/// `POST /u/{token}/code`
pub async fn request_code(app: App, call: Call) -> Reply {
    let call = outsider(call, None, false);
    let token = call.param("token").to_owned();
    if let Err(refusal) = app.guesses.check(call.ip, &token, call.now) {
        return finish(&app, call, refusal.into()).await;
    }
    // Each request counts, so that nobody's mailbox is filled from here.
    app.guesses.failed(call.ip, &token, call.now);
    let email = field(&call, "email").and_then(|email| names::email(&email));
    let reply = app
        .write(call.clone(), move |tx| {
            open(tx)?;
            let email = email.ok_or_else(|| Refusal::invalid("email", "That is not an e-mail address."))?;
            codes::mail(tx, tx.call.param("token"), &email)?;
            if wants_json(tx.call) {
                return Ok(Answer::empty(202));
            }
            Ok(html::page(200, "Enter your code", &code_form(&email), tx.call))
        })
        .await;
    finish(&app, call, reply).await
}

/// `POST /u/{token}/verify`
pub async fn verify_code(app: App, call: Call) -> Reply {
    let token = call.param("token").to_owned();
    if let Err(refusal) = app.guesses.check(call.ip, &token, call.now) {
        return finish(&app, outsider(call, None, false), refusal.into()).await;
    }
    let email = field(&call, "email").and_then(|email| names::email(&email));
    let code = field(&call, "code").unwrap_or_default();
    let call = outsider(call, email.clone(), false);
    let key = app.page_key.clone();
    let reply = app
        .write(call.clone(), move |tx| {
            let (request, folder) = open(tx)?;
            let email = email.ok_or_else(|| Refusal::invalid("email", "That is not an e-mail address."))?;
            let token = tx.call.param("token").to_owned();
            if !codes::redeem(tx, &token, &email, &code)? {
                // An answer, not a refusal: the count of wrong tries must stay.
                return Ok(html::page(403, "That did not match", super::TRY_AGAIN, tx.call));
            }
            tx.took_effect();
            let pass = codes::pass(&key, &token, &email, tx.now);
            if wants_json(tx.call) {
                return Answer::ok(&json!({"email": email, "pass": pass}));
            }
            let form = upload_form(&request, Some((&email, &pass)));
            Ok(html::page_with_progress(200, &format!("Upload to {}", folder.workspace.public.display_name), &form, tx.call))
        })
        .await;
    if reply.outcome.as_ref().is_ok_and(|answer| answer.status == http::StatusCode::FORBIDDEN) {
        app.guesses.failed(call.ip, &token, call.now);
    }
    finish(&app, call, reply).await
}

/// `POST /u/{token}/files`
pub async fn receive(app: App, call: Call, body: Body) -> Reply {
    let call = outsider(call, None, false);
    let judged = app
        .read(call.clone(), |view| {
            let (_, folder) = open(view)?;
            folder.authorize_as(view, Effect::AddFile, |_| ()).map(|_| Answer::empty(204))
        })
        .await;
    if judged.outcome.is_err() {
        return finish(&app, call, judged).await;
    }
    let form = match read_form(&app, &call, body).await {
        Ok(form) => form,
        Err(refusal) => return finish(&app, call, refusal.into()).await,
    };
    let email = form.fields.get("email").and_then(|email| names::email(email));
    let pass = form.fields.get("pass").map(String::as_str).unwrap_or_default();
    let verified =
        email.as_deref().is_some_and(|email| codes::is_pass(&app.page_key, call.param("token"), email, pass, call.now));
    let call = outsider(call, email, verified);
    let reply = app.write(call.clone(), move |tx| keep(tx, &form, verified)).await;
    finish(&app, call, reply).await
}

/// What the form brought.
struct Form {
    fields: BTreeMap<String, String>,
    files: Vec<(String, String, Blob)>,
}

async fn read_form(app: &App, call: &Call, body: Body) -> Result<Form, Refusal> {
    let media = call.header(header::CONTENT_TYPE).unwrap_or_default();
    let boundary =
        multer::parse_boundary(media).map_err(|_| Refusal::new(415, "media-type", "The form is multipart/form-data."))?;
    let mut parts = multer::Multipart::new(body.into_data_stream(), boundary);
    let mut form = Form { fields: BTreeMap::new(), files: Vec::new() };
    let broken = |error: multer::Error| Refusal::malformed(format!("The form broke off: {error}"));
    while let Some(mut part) = parts.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        if let Some(file_name) = part.file_name().map(str::to_owned) {
            if form.files.len() == MOST_FILES {
                return Err(Refusal::new(413, "too-large", "At most 20 files at once."));
            }
            let mime = files::plain_media_type(part.content_type().map(AsRef::as_ref).unwrap_or_default());
            let chunks = futures::stream::unfold(&mut part, |part| async move {
                let chunk = part.chunk().await.map_err(|error| error.to_string()).transpose()?;
                Some((chunk, part))
            });
            let blob = app.blobs.receive_stream(Box::pin(chunks), app.config.max_file_bytes).await?;
            // Browsers send an empty part for an input without a file.
            if !(file_name.is_empty() && blob.size == 0) {
                form.files.push((last_segment(&file_name), mime, blob));
            }
            continue;
        }
        let mut value = Vec::new();
        while let Some(chunk) = part.chunk().await.map_err(broken)? {
            value.extend_from_slice(&chunk);
            if value.len() > 4 * LONGEST || form.fields.len() > 64 {
                return Err(Refusal::new(413, "too-large", "A field is too long, or there are too many."));
            }
        }
        let value = String::from_utf8(value).map_err(|_| Refusal::malformed("A field is not text."))?;
        form.fields.insert(name, value);
    }
    Ok(form)
}

/// Some browsers send the whole path.
fn last_segment(name: &str) -> String {
    name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned()
}

fn keep(tx: &mut Tx<'_, '_, '_>, form: &Form, verified: bool) -> Result<Answer, Refusal> {
    let (request, folder) = open(tx)?;
    if request.input.require_email && !verified {
        return Err(Refusal::new(403, "email-not-verified", "Please prove your e-mail address first."));
    }
    if folder.item.kind != ItemKind::Folder || form.files.is_empty() {
        return Err(Refusal::invalid("file", "Please choose a file."));
    }
    let metadata = metadata(&request.input.fields, &form.fields)?;
    accepted(&request.input.fields, &metadata, form)?;
    let mut made = Vec::new();
    for (name, mime, blob) in &form.files {
        let name = names::file_name(name, "file")?;
        let arrival = Arrival {
            name,
            mime: mime.clone(),
            metadata: metadata.clone(),
            on_conflict: OnConflict::Rename,
            upload_request: Some(request.name.clone()),
        };
        let answer = files::add(tx, &folder, &arrival, blob)?;
        if let Payload::Json(body) = &answer.body {
            let item: crate::file360::model::Item = serde_json::from_slice(body)?;
            made.push(json!({"name": item.name, "size": blob.size, "sha256": blob.sha256}));
        }
    }
    tx.note(|about| about.subject = Some(request.id.clone()));
    tx.details(json!({"uploadRequest": request.name, "files": made}));
    if wants_json(tx.call) {
        return Answer::json(201, &json!({"files": made}));
    }
    let arrived = form.files.iter().fold(String::new(), |mut list, (name, _, blob)| {
        let (name, digest) = (html::escape(name), html::escape(&blob.sha256));
        let _ = write!(list, "<li><bdi>{name}</bdi> <small>{} bytes, SHA-256 {digest}</small></li>", blob.size);
        list
    });
    Ok(html::page(201, "Thank you", &format!("<p>These files have arrived:</p><ul>{arrived}</ul>"), tx.call))
}

/// Refuses files that are not what the chosen options ask for: all or none of a form is kept.
fn accepted(asked: &[RequestField], chosen: &BTreeMap<String, String>, form: &Form) -> Result<(), Refusal> {
    let limits = asked.iter().filter_map(|field| field.accept.get(chosen.get(&field.name)?));
    for accept in limits {
        for (name, mime, blob) in &form.files {
            if let Some(why) = accept.refuses(mime, blob.size) {
                return Err(Refusal::new(422, "not-accepted", format!("{name}: {why}.")));
            }
        }
    }
    Ok(())
}

/// The values of the request's own fields; whatever else the form brought is dropped.
fn metadata(asked: &[RequestField], sent: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Refusal> {
    let mut metadata = BTreeMap::new();
    for field in asked {
        let value = sent.get(&field.name).map(|value| value.trim()).unwrap_or_default();
        let wrong = |detail: &str| Err(Refusal::invalid(&field.name, format!("{}: {detail}", field.label)));
        if value.is_empty() {
            if field.required {
                return wrong("Please fill this in.");
            }
            continue;
        }
        names::text(value, LONGEST, &field.name)?;
        match field.kind {
            FieldKind::Select if !field.options.iter().any(|option| option == value) => {
                return wrong("Please choose one of the list.");
            }
            FieldKind::Date if value.parse::<jiff::civil::Date>().is_err() || value.len() != 10 => {
                return wrong("That is not a date.");
            }
            _ => {}
        }
        metadata.insert(field.name.clone(), value.to_owned());
    }
    Ok(metadata)
}
