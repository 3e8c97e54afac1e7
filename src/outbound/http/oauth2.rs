//! OAuth2 client credentials: one token, kept until a while before it ends.

use std::time::{Duration, Instant};

use http::{StatusCode, header};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::address::fixed_url;
use super::answer::{bounded, retry_after};
use super::auth::{Fingerprint, Secrets};
use super::client::unreachable;
use crate::api::common::SecretKeyRef;
use crate::api::http_target::{ClientAuthentication, HttpOAuth2};
use crate::error::{Error, Kind, Result, clean};
use crate::expression::InvalidField;
use crate::outbound::guard::Guard;
use crate::redacted::Redacted;

/// How long the token endpoint may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest answer of a token endpoint, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Renewed when this part of its life is left.
const RENEW_EARLY: f64 = 0.2;
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// Where the answer does not say how long a token lives.
const USUAL_LIFE: Duration = Duration::from_mins(5);
/// Who comes this soon after a failure gets the same failure, so that a dead endpoint does not make everybody wait in turn.
const FAILURE_HOLDS: Duration = Duration::from_secs(2);

/// A client, and its token.
pub(super) struct OAuth2 {
    token_url: Url,
    pub client_id: SecretKeyRef,
    pub client_secret: SecretKeyRef,
    authentication: ClientAuthentication,
    parameters: Vec<(String, String)>,
    current: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    Nothing,
    Token {
        text: Redacted,
        renew_at: Instant,
        of: Fingerprint,
    },
    Failed {
        error: Error,
        until: Instant,
        of: Fingerprint,
    },
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    token_type: Option<String>,
    /// Some servers send it as a text.
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    error: String,
}

impl OAuth2 {
    /// Compiles `auth.oauth2`. Nothing is fetched.
    pub fn new(spec: &HttpOAuth2, guard: &Guard) -> Result<Self, InvalidField> {
        let mut parameters = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        if let Some(scopes) = spec.scopes.as_ref().filter(|scopes| !scopes.is_empty()) {
            parameters.push(("scope".into(), scopes.join(" ")));
        }
        for (name, value) in spec.parameters.iter().flatten() {
            if ["grant_type", "scope", "client_id", "client_secret"].contains(&name.as_str()) {
                let field = format!("auth.oauth2.parameters.{name}");
                return Err(InvalidField::value(field, "this parameter is set by the operator"));
            }
            parameters.push((name.clone(), value.clone()));
        }
        Ok(Self {
            token_url: fixed_url(&spec.token_url, "auth.oauth2.tokenUrl", guard)?,
            client_id: spec.client_id_ref.clone(),
            client_secret: spec.client_secret_ref.clone(),
            authentication: spec.client_authentication.unwrap_or_default(),
            parameters,
            current: Mutex::default(),
        })
    }

    /// Host of the token endpoint.
    pub fn host(&self) -> &str {
        self.token_url.host_str().unwrap_or_default()
    }

    /// What to check when the client is refused.
    pub fn advice(&self) -> String {
        format!("check keys {} and {} of Secret {}", self.client_id.key, self.client_secret.key, self.client_secret.name)
    }

    /// The token of this client; fetched or renewed when needed. One asks, everybody else waits for it.
    pub async fn token(
        &self,
        http: &reqwest::Client,
        client: (&Redacted, &Redacted),
        of: Fingerprint,
        secrets: &Secrets,
    ) -> Result<Redacted> {
        let mut current = self.current.lock().await;
        match &*current {
            State::Token { text, renew_at, of: held } if *held == of && Instant::now() < *renew_at => {
                return Ok(text.clone());
            }
            State::Failed { error, until, of: held } if *held == of && Instant::now() < *until => return Err(error.clone()),
            _ => {}
        }
        let fetched = self.fetch(http, client, secrets).await;
        match fetched {
            Ok((text, life)) => {
                let renew_at = Instant::now() + life.mul_f64(1.0 - RENEW_EARLY);
                *current = State::Token { text: text.clone(), renew_at, of };
                Ok(text)
            }
            Err(error) => {
                let error = error.while_doing(format!("fetch an access token from {}", self.host()));
                *current = State::Failed { error: error.clone(), until: Instant::now() + FAILURE_HOLDS, of };
                Err(error)
            }
        }
    }

    /// The other side does not take `token`: forgets it, if it is still the current one.
    pub async fn reject(&self, token: &Redacted) {
        let mut current = self.current.lock().await;
        if matches!(&*current, State::Token { text, .. } if text == token) {
            *current = State::Nothing;
        }
    }

    async fn fetch(
        &self,
        http: &reqwest::Client,
        (id, secret): (&Redacted, &Redacted),
        secrets: &Secrets,
    ) -> Result<(Redacted, Duration)> {
        let mut form: Vec<(&str, &str)> =
            self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut request = http.post(self.token_url.clone()).header(header::ACCEPT, "application/json").timeout(PATIENCE);
        match self.authentication {
            ClientAuthentication::Basic => {
                // RFC 6749 section 2.3.1: both are form-encoded before they are joined.
                request = request.basic_auth(form_encoded(id), Some(form_encoded(secret)));
            }
            ClientAuthentication::Body => form.extend([("client_id", id.expose()), ("client_secret", secret.expose())]),
        }
        let response = request.form(&form).send().await.map_err(|error| unreachable(&error, self.host()))?;
        let status = response.status();
        let after = retry_after(response.headers());
        let body = bounded(response, MAX_ANSWER).await.map_err(|error| error.into_failure(self.host()))?;
        if !status.is_success() {
            return Err(self.refusal(status, after, &body, secrets));
        }
        let malformed = |why: &str| Error::new(Kind::Malformed, format!("the answer {why}; check auth.oauth2.tokenUrl"));
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| malformed("has no access token"))?;
        if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(malformed("has a token of another type than Bearer"));
        }
        if answer.access_token.is_empty() || !answer.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed("has a token that cannot stand in a header"));
        }
        let seconds = answer.expires_in.as_ref().and_then(|life| life.as_u64().or_else(|| life.as_str()?.parse().ok()));
        let life = seconds.map_or(USUAL_LIFE, Duration::from_secs).min(LONGEST_LIFE);
        Ok((Redacted::new(answer.access_token), life))
    }

    fn refusal(&self, status: StatusCode, after: Option<Duration>, body: &[u8], secrets: &Secrets) -> Error {
        let code = serde_json::from_slice::<Refusal>(body).unwrap_or_default().error;
        let code = clean(&secrets.strike(&code), 60);
        let number = status.as_u16();
        let mut error = match number {
            429 => Error::new(Kind::RateLimited, "the token endpoint is busy (429)"),
            408 | 425 | 500..=599 => Error::new(Kind::Unavailable, format!("the token endpoint answered {number}")),
            300..=399 => {
                Error::new(Kind::Rejected, format!("the token endpoint answered {number}: redirects are not followed"))
            }
            _ => {
                let told = if code.is_empty() { number.to_string() } else { format!("{number} {code}") };
                Error::new(Kind::Denied, format!("the token endpoint refused the client ({told}); {}", self.advice()))
            }
        };
        error.retry_after = after;
        error
    }
}

fn form_encoded(secret: &Redacted) -> String {
    url::form_urlencoded::byte_serialize(secret.expose().as_bytes()).collect()
}
