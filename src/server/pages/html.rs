//! The frame of every page.

use std::sync::LazyLock;

use axum::body::Body;
use base64::Engine as _;
use http::{HeaderName, StatusCode, header};

use crate::server::call::{Answer, Call, Payload};
use crate::server::names;

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;color:#1b1b1f;background:#fff;\
overflow-wrap:anywhere}h1{font-size:1.4rem}label{display:block;margin-top:1rem;font-weight:600}input,select{font:inherit;padding:.4rem;width:100%;\
box-sizing:border-box;border:1px solid #767680;border-radius:.3rem}button{font:inherit;margin-top:1.5rem;padding:.5rem 1.2rem;border:0;\
border-radius:.3rem;background:#1d4f91;color:#fff}button:disabled{background:#5c5c66}small{color:#4a4a52;font-weight:400}li{margin:.5rem 0}\
:focus-visible{outline:3px solid #1d4f91;outline-offset:2px}progress{width:100%;margin-top:1rem}[role=alert]{color:#8c1d18;font-weight:600}\
a{color:#1d4f91}";

/// Shows how far an upload is; the only script there is.
const SCRIPT: &str = include_str!("upload.js");

/// Nothing from elsewhere, no script, no frame around it; the one style sheet is named by its hash.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = hash(STYLE);
    format!("default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
});

/// The same with the one script, named by its hash, which calls nobody but this server.
static POLICY_WITH_SCRIPT: LazyLock<String> =
    LazyLock::new(|| format!("{}; script-src 'sha256-{}'; connect-src 'self'", *POLICY, hash(SCRIPT)));

fn hash(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(names::sha256(text.as_bytes()))
}

/// A whole page. `body` is markup; whatever came from outside must have been escaped.
pub fn page(status: u16, title: &str, body: &str, call: &Call) -> Answer {
    framed(status, title, body, "", &POLICY, call)
}

/// The same with the script that shows the progress of the upload form in it.
pub fn page_with_progress(status: u16, title: &str, body: &str, call: &Call) -> Answer {
    framed(status, title, body, &format!("<script>{SCRIPT}</script>"), &POLICY_WITH_SCRIPT, call)
}

fn framed(status: u16, title: &str, body: &str, script: &str, policy: &str, call: &Call) -> Answer {
    let title = escape(title);
    let body = body.replace("{base}", &base(call));
    let text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>\n{body}\n</main>{script}</body></html>\n"
    );
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Answer { status, headers: Vec::new(), body: Payload::Other(Body::from(text)) }
        .with(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .with(header::CONTENT_SECURITY_POLICY, policy)
        .with(header::REFERRER_POLICY, "no-referrer")
        .with(HeaderName::from_static("x-robots-tag"), "noindex")
}

/// The path of this page's own address, below which its forms are answered.
fn base(call: &Call) -> String {
    let prefix = call.public_url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default();
    let kind = if call.operation.path().starts_with("/u/") { "u" } else { "s" };
    // Tokens are URL-safe text; anything else in the path was never one of ours.
    let token: String = call.param("token").chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    format!("{prefix}/{kind}/{token}")
}

/// Text as markup that shows it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Nothing that came from outside is a place to be filled in.
            '{' => escaped.push_str("&#123;"),
            other => escaped.push(other),
        }
    }
    escaped
}
