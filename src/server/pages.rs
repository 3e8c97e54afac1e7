//! Pages for outsiders: upload through an upload request, download through a link. Plain HTML; they work without script.

pub mod checklist;
pub mod codes;
pub mod download;
pub mod html;
pub mod upload;

use http::header;

use super::App;
use super::call::{Answer, Call};
use super::http::Reply;
use super::operation::Operation;
use super::refusal::Refusal;

/// A form field that was sent.
pub fn field(call: &Call, name: &str) -> Option<String> {
    url::form_urlencoded::parse(&call.body)
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .filter(|value| !value.is_empty())
}

/// Whether the caller is a program that reads JSON rather than a person with a browser.
pub fn wants_json(call: &Call) -> bool {
    call.operation == Operation::GetLinkContent
        || call.header(header::ACCEPT).is_some_and(|accept| accept.contains("application/json"))
}

/// What somebody reads who guessed wrong; markup.
pub const TRY_AGAIN: &str = "<p role=\"alert\">Please try again.</p><p><a href=\"{base}\">Back to the page</a></p>";

/// A refusal as a page, for people. What is unknown, over or not for them looks the same.
pub fn refused(call: &Call, refusal: &Refusal) -> Answer {
    let (title, text) = match refusal.code() {
        "not-found" => ("This address is not valid", "It does not exist, it has ended, or it was taken back."),
        "rate-limited" => ("Too many tries", "Please wait some minutes and try again."),
        "wrong-password" => return html::page(refusal.status().as_u16(), "That did not match", TRY_AGAIN, call),
        _ => ("That did not work", refusal.detail()),
    };
    html::page(refusal.status().as_u16(), title, &format!("<p role=\"alert\">{}</p>", html::escape(text)), call)
}

/// Turns a refusal into a page for people and leaves it a problem for programs. The refusal is recorded either way.
pub async fn finish(app: &App, call: Call, reply: Reply) -> Reply {
    match reply.outcome {
        Err(refusal) if !wants_json(&call) => Reply::plain(Ok(refused(&call, &refusal))),
        Err(refusal) if refusal.code() == "rate-limited" => app.refused(call, refusal).await,
        outcome => Reply { outcome, revision: None },
    }
}
