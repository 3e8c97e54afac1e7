//! Credentials and the access token that is made from them.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::transport::{bounded_body, send_error};
use crate::error::{Error, Kind, Result, clean};
use crate::redacted::Redacted;

/// How to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// OAuth2 client credentials.
    OAuth2 {
        /// Client id.
        client_id: Redacted,
        /// Client secret.
        client_secret: Redacted,
        /// Token endpoint.
        token_url: Url,
        /// Scopes to ask for.
        scopes: Vec<String>,
    },
    /// A fixed bearer token.
    Bearer(Redacted),
    /// A user name and a password (RFC 7617).
    Basic {
        /// User name.
        username: Redacted,
        /// Password.
        password: Redacted,
    },
}

/// Keeps the access token fresh. One renewal at a time; everybody else waits for it.
pub struct TokenSource {
    credential: Credential,
    current: Mutex<Option<Token>>,
}

struct Token {
    text: Redacted,
    /// Renewed from then on, a while before it ends.
    renew_at: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Renewed when this part of its life is left.
const RENEW_EARLY: f64 = 0.2;
const LONGEST_LIFE: Duration = Duration::from_hours(24);

fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

impl TokenSource {
    /// Nothing is fetched before the first call.
    pub fn new(credential: Credential) -> Self {
        Self { credential, current: Mutex::new(None) }
    }

    /// The token to send; fetched or renewed when needed.
    pub async fn token(&self, http: &reqwest::Client) -> Result<Redacted> {
        let (client_id, client_secret, token_url, scopes) = match &self.credential {
            Credential::Bearer(token) => return Ok(token.clone()),
            Credential::Basic { password, .. } => return Ok(password.clone()),
            Credential::OAuth2 { client_id, client_secret, token_url, scopes } => {
                (client_id, client_secret, token_url, scopes)
            }
        };
        let mut current = self.current.lock().await;
        if let Some(token) = current.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token.text.clone());
        }
        let response = http
            .post(token_url.clone())
            // RFC 6749 section 2.3.1: both are form-encoded before they are joined.
            .basic_auth(form_encoded(client_id.expose()), Some(form_encoded(client_secret.expose())))
            .form(&[("grant_type", "client_credentials"), ("scope", &scopes.join(" "))])
            .timeout(Duration::from_secs(20))
            .send()
            .await
            .map_err(|error| send_error(&error).while_doing("fetch an access token"))?;
        let status = response.status();
        let retry_after = super::transport::retry_after(response.headers());
        let body = bounded_body(response, 64 * 1024).await?;
        if !status.is_success() {
            return Err(self.refused(status, retry_after, &body));
        }
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| Error::new(Kind::Malformed, "the token endpoint did not answer with a token; check tokenUrl"))?;
        let life = answer.expires_in.map_or(Duration::from_mins(5), Duration::from_secs).min(LONGEST_LIFE);
        let text = Redacted::new(answer.access_token);
        *current = Some(Token { text: text.clone(), renew_at: Instant::now() + life.mul_f64(1.0 - RENEW_EARLY) });
        Ok(text)
    }

    /// `request` with the credential: `token` is what [`TokenSource::token`] gave.
    pub fn authorize(&self, request: reqwest::RequestBuilder, token: &Redacted) -> reqwest::RequestBuilder {
        match &self.credential {
            Credential::Basic { username, .. } => request.basic_auth(username.expose(), Some(token.expose())),
            Credential::Bearer(_) | Credential::OAuth2 { .. } => request.bearer_auth(token.expose()),
        }
    }

    /// Forgets `token` if it is still the current one. Returns whether asking again can help.
    pub async fn reject(&self, token: &Redacted) -> bool {
        if !matches!(self.credential, Credential::OAuth2 { .. }) {
            return false;
        }
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|now| now.text == *token) {
            *current = None;
        }
        true
    }

    /// `text` without any secret of this source in it.
    pub fn scrub(&self, text: &str, token: Option<&Redacted>) -> String {
        let secrets: Vec<&Redacted> = match &self.credential {
            Credential::Bearer(token) => vec![token],
            Credential::Basic { password, .. } => vec![password],
            Credential::OAuth2 { client_id, client_secret, .. } => vec![client_id, client_secret],
        };
        secrets
            .into_iter()
            .chain(token)
            .filter(|secret| !secret.expose().is_empty())
            .fold(self.without_basic(text), |text, secret| text.replace(secret.expose(), "[redacted]"))
    }

    /// `text` without user name and password as they stand in a header.
    fn without_basic(&self, text: &str) -> String {
        let Credential::Basic { username, password } = &self.credential else { return text.to_owned() };
        let pair = STANDARD.encode(format!("{}:{}", username.expose(), password.expose()));
        text.replace(&pair, "[redacted]")
    }

    fn refused(&self, status: reqwest::StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Error {
        #[derive(Deserialize, Default)]
        struct OAuthError {
            #[serde(default)]
            error: String,
        }
        let code = serde_json::from_slice::<OAuthError>(body).unwrap_or_default().error;
        let code = clean(&self.scrub(&code, None), 60);
        let mut error = match status.as_u16() {
            429 => Error::new(Kind::RateLimited, "the token endpoint is busy (429)"),
            500..=599 => Error::new(Kind::Unavailable, format!("the token endpoint answered {status}")),
            _ => Error::new(
                Kind::Denied,
                format!(
                    "the token endpoint refused the client credentials ({status} {code}); check the Secret that auth.oauth2 names"
                ),
            ),
        };
        if error.kind == Kind::Denied {
            error.code = "unauthenticated".into();
        }
        error.retry_after = retry_after;
        error
    }
}
