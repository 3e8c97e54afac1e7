//! Client credentials, and the tokens they are exchanged for.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header;
use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use serde_json::json;
use subtle::ConstantTimeEq;

use super::App;
use super::authorize::Scopes;
use super::call::{Answer, Call};
use super::http::Reply;
use super::names;
use super::operation::Scope;
use super::refusal::Refusal;

/// Longest life of a token.
pub const LONGEST_LIFE: Duration = Duration::from_mins(15);
/// Most tokens alive at once; past it, the expired ones are thrown away first and then everything.
const MOST_TOKENS: usize = 100_000;

/// A client application.
#[derive(Clone, Debug)]
pub struct Client {
    /// SHA-256 of its secret.
    pub secret: [u8; 32],
    /// What its tokens may allow.
    pub scopes: Scopes,
}

/// What a token stands for.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Id of the client.
    pub client: String,
    /// What it allows.
    pub scopes: Scopes,
    expires_at: Timestamp,
}

/// Tokens, by their hash: who reads the memory of the server reads no token.
#[derive(Default)]
pub struct Tokens(RwLock<HashMap<[u8; 32], Grant>>);

impl Tokens {
    /// What the token stands for, while it lives.
    pub fn find(&self, token: &str, now: Timestamp) -> Option<Grant> {
        let known = self.0.read();
        known.get(&names::sha256(token.as_bytes())).filter(|grant| grant.expires_at > now).cloned()
    }

    fn issue(&self, grant: Grant, now: Timestamp) -> String {
        let token = names::secret();
        let mut known = self.0.write();
        if known.len() >= MOST_TOKENS {
            known.retain(|_, grant| grant.expires_at > now);
        }
        if known.len() >= MOST_TOKENS {
            known.clear();
        }
        known.insert(names::sha256(token.as_bytes()), grant);
        token
    }
}

/// `POST /oauth2/token`
pub fn issue(app: &App, call: &Call) -> Reply {
    Reply::plain(grant(app, call))
}

fn grant(app: &App, call: &Call) -> Result<Answer, Refusal> {
    let media = call.header(header::CONTENT_TYPE).unwrap_or_default();
    if !media.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
        return failed(400, "invalid_request", "The body is application/x-www-form-urlencoded.");
    }
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&call.body).into_owned().collect();
    let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let credentials = match call.headers.get(header::AUTHORIZATION) {
        Some(value) => value.to_str().ok().and_then(basic),
        None => field("client_id").zip(field("client_secret")).map(|(id, secret)| (id.to_owned(), secret.to_owned())),
    };
    let client = credentials.and_then(|(id, secret)| {
        let client = app.clients.get(&id)?;
        bool::from(client.secret.ct_eq(&names::sha256(secret.as_bytes()))).then_some((id, client))
    });
    let Some((id, client)) = client else {
        let answer = failed(401, "invalid_client", "The client is unknown or its secret is wrong.")?;
        return Ok(answer.with(header::WWW_AUTHENTICATE, "Basic realm=\"file360\""));
    };
    if field("grant_type") != Some("client_credentials") {
        let error = if field("grant_type").is_some() { "unsupported_grant_type" } else { "invalid_request" };
        return failed(400, error, "The grant type is client_credentials.");
    }
    let scopes = match field("scope").map(str::trim).filter(|words| !words.is_empty()) {
        None => client.scopes,
        Some(words) => {
            let asked: Option<Scopes> = words.split_ascii_whitespace().map(Scope::parse).collect();
            match asked.filter(|asked| client.scopes.covers(*asked)) {
                Some(asked) => asked,
                None => return failed(400, "invalid_scope", "The client does not have every scope it asks for."),
            }
        }
    };
    let life = app.config.token_lifetime.min(LONGEST_LIFE);
    let expires_at =
        call.now.saturating_add(SignedDuration::try_from(life).unwrap_or(SignedDuration::ZERO)).unwrap_or(call.now);
    let token = app.tokens.issue(Grant { client: id, scopes, expires_at }, call.now);
    let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": life.as_secs(), "scope": scopes.words()});
    Ok(Answer::ok(&body)?.with(header::CACHE_CONTROL, "no-store"))
}

/// Errors of this endpoint have the form that OAuth 2 gives them.
fn failed(status: u16, error: &str, description: &str) -> Result<Answer, Refusal> {
    let body = json!({"error": error, "error_description": description});
    Ok(Answer::json(status, &body)?.with(header::CACHE_CONTROL, "no-store"))
}

/// Id and secret of an `Authorization: Basic` header; both are form-encoded within it.
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((form_decoded(id)?, form_decoded(secret)?))
}

fn form_decoded(text: &str) -> Option<String> {
    let blanks = text.replace('+', " ");
    percent_encoding::percent_decode_str(&blanks).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
