//! CSRF tokens, as SAP's OData services ask for: fetched by a GET, sent with the call, together with the session's cookies.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::sync::Mutex;
use url::Url;

use super::address::{Address, fixed_url};
use super::auth::Fingerprint;
use super::headers::Headers;
use crate::api::http_target::HttpTarget;
use crate::error::{Error, Kind, Result};
use crate::expression::InvalidField;
use crate::outbound::guard::Guard;

/// Name of the header in both directions.
pub(super) const TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
/// Longest token, and longest list of cookies, in bytes.
const MAX: usize = 4 * 1024;

/// Where tokens come from, and the current one.
pub(super) struct Csrf {
    pub url: Url,
    pub current: Mutex<Option<(Fingerprint, Session)>>,
}

/// What a call sends along.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Session {
    token: HeaderValue,
    cookies: Option<HeaderValue>,
}

impl Csrf {
    /// Compiles `csrf`.
    pub fn new(
        spec: &HttpTarget,
        address: &Address,
        headers: &Headers,
        guard: &Guard,
    ) -> Result<Option<Self>, InvalidField> {
        let Some(csrf) = &spec.csrf else { return Ok(None) };
        if headers.has(&TOKEN) {
            return Err(InvalidField::value("csrf", "the header X-CSRF-Token is declared under headers, too"));
        }
        let url = match &csrf.url {
            Some(url) => fixed_url(url, "csrf.url", guard)?,
            None => address.base().clone(),
        };
        if url.origin() != address.base().origin() {
            return Err(InvalidField::value("csrf.url", "must have scheme, host and port of url"));
        }
        Ok(Some(Self { url, current: Mutex::default() }))
    }

    /// Forgets `session`, if it is still the current one.
    pub async fn reject(&self, session: &Session) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|(_, held)| held == session) {
            *current = None;
        }
    }
}

impl Session {
    /// The session that an answer gives.
    pub fn of(answer: &HeaderMap) -> Result<Self> {
        let token = answer.get(TOKEN).filter(|token| !token.is_empty() && token.len() <= MAX).cloned();
        let mut token = token
            .ok_or_else(|| Error::new(Kind::Rejected, "the answer has no X-CSRF-Token; correct csrf.url, or remove csrf"))?;
        token.set_sensitive(true);
        let pairs = answer.get_all(header::SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
        let pairs: Vec<&str> = pairs.map(str::trim).filter(|pair| pair.contains('=')).collect();
        let cookies =
            HeaderValue::try_from(pairs.join("; ")).ok().filter(|cookies| !cookies.is_empty() && cookies.len() <= MAX);
        let cookies = cookies.map(|mut cookies| {
            cookies.set_sensitive(true);
            cookies
        });
        Ok(Self { token, cookies })
    }

    /// Adds it to the headers of a call.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.insert(TOKEN, self.token.clone());
        if let Some(cookies) = &self.cookies {
            headers.insert(header::COOKIE, cookies.clone());
        }
    }

    /// What must not be told on.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let cookies = self.cookies.as_ref().and_then(|cookies| cookies.to_str().ok()).unwrap_or_default();
        let values = cookies.split("; ").filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
        self.token.to_str().ok().into_iter().chain(values).filter(|secret| secret.len() >= 8)
    }
}
