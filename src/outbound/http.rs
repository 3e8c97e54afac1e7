//! The HTTP target: wherever the operator calls somebody else's HTTP API, this is how.
//!
//! A [`Target`] is compiled once from its declaration; expressions are checked then. A call goes to the host of the spec and
//! nowhere else: no expression changes it, redirects are not followed, and the guard checks the address when the connection is made. A
//! credential goes only where its Secret says, and is in no error, log or answer. Everything that comes back is bounded in size, depth and
//! time. `docs/http-target.md` is the reference for people.

mod address;
mod answer;
mod auth;
mod body;
mod client;
mod csrf;
mod fetch;
mod headers;
mod oauth2;
mod sign;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use crate::api::http_target::{HttpBody, HttpMethod, HttpMultipart, HttpTarget, HttpTls};
use crate::error::{Error, Kind, Result};
use crate::expression::{Expression, InvalidField, Variables};
pub use crate::outbound::cloud_event::{Event, cloud_event};
use crate::outbound::secrets::References;
use crate::redacted::Redacted;
use address::Address;
pub use answer::Answer;
use auth::{Auth, Credential, Fingerprint, Held, Secrets};
pub use body::{Body, Source, Upload};
use body::{Prepared, Progress};
pub use client::Clients;
use client::{Trust, unreachable};
use csrf::{Csrf, Session};
pub use fetch::{Fetched, Validators};
use headers::Headers;
use sign::{Key, Signed};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_TIMEOUT: Duration = Duration::from_mins(10);
/// A receiver that takes less than this for long is given up, even though it is not silent.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 * 1024;
const ACCEPTED: &str = "application/json, */*;q=0.1";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a target needs from around it.
#[derive(Clone)]
pub struct Surroundings {
    /// Secrets and bundles of the namespace of the resource that declares the target.
    pub references: Arc<dyn References>,
    /// The HTTP clients, with the guard; shared by all targets.
    pub clients: Arc<Clients>,
}

/// A compiled HTTP target.
pub struct Target {
    address: Address,
    method: Method,
    headers: Headers,
    template: Option<Expression>,
    multipart: Option<HttpMultipart>,
    auth: Auth,
    csrf: Option<Csrf>,
    tls: Option<HttpTls>,
    timeout: Duration,
    success: Vec<RangeInclusive<u16>>,
    surroundings: Surroundings,
}

/// One call, ready to be sent more than once.
struct Call<'a> {
    url: Url,
    headers: HeaderMap,
    body: Prepared,
    key: &'a str,
}

/// With what a call is sent, as the Secrets and bundles are at the moment.
struct Access {
    held: Held,
    client: Arc<reqwest::Client>,
    /// Changes with anything that was read.
    fingerprint: Fingerprint,
}

/// Why a call failed, and what could help at once.
struct Failure {
    error: Error,
    helps: Helps,
}

/// What makes it worth to send a call again at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Helps {
    Nothing,
    /// Another credential or bundle.
    Fresh,
    /// The next token.
    Next,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let helps = if matches!(error.kind, Kind::Denied | Kind::Tls) { Helps::Fresh } else { Helps::Nothing };
        Self { error, helps }
    }
}

impl Target {
    /// Compiles `spec`, whose expressions may use the names in `known`. Nothing is read or sent.
    pub fn new(spec: &HttpTarget, known: &[&str], surroundings: &Surroundings) -> Result<Self, InvalidField> {
        let guard = surroundings.clients.guard();
        let address = Address::new(spec, known, guard)?;
        let method = method(spec.method.unwrap_or_default());
        let has_body = !matches!(method, Method::GET | Method::DELETE);
        let headers = Headers::new(spec, known, has_body && spec.multipart.is_none())?;
        let auth = Auth::new(spec.auth.as_ref(), &address, &headers, guard)?;
        Ok(Self {
            csrf: Csrf::new(spec, &address, &headers, guard)?,
            template: template(spec, known, has_body)?,
            multipart: spec.multipart.clone(),
            tls: trust(spec, &address)?,
            timeout: timeout(spec)?,
            success: success(spec)?,
            surroundings: surroundings.clone(),
            address,
            method,
            headers,
            auth,
        })
    }

    /// The host that is called.
    pub fn host(&self) -> &str {
        self.address.host()
    }

    /// Whether calls can carry a body: GET and DELETE do not.
    pub fn has_body(&self) -> bool {
        !matches!(self.method, Method::GET | Method::DELETE)
    }

    /// What a call without content sends: the template's result, else the event that `event` makes, or nothing with GET and DELETE.
    pub fn document(&self, variables: &Variables, event: impl FnOnce() -> Value) -> Result<Body> {
        if !self.has_body() {
            return Ok(Body::Empty);
        }
        match &self.template {
            Some(template) => Ok(Body::Json(evaluate(template, variables)?)),
            None => Ok(Body::Event(event())),
        }
    }

    /// Sends one call and returns its answer when the status is one of `success`. `key` is the idempotency key: the same for every try of
    /// the same thing (R1).
    ///
    /// A credential that is refused is read again, and the call repeated once if there is another one. What fails is [`Kind::Denied`] (401,
    /// 403), [`Kind::Conflict`] (409), [`Kind::RateLimited`] (429), [`Kind::Unavailable`] (408, 425, 5xx, silence, no connection; with
    /// `Retry-After`), [`Kind::Tls`], [`Kind::Reference`] (a Secret), or [`Kind::Rejected`] (everything that another try does not change).
    pub async fn send(&self, variables: &Variables, body: Body, key: &str) -> Result<Answer> {
        let sent = self.exchange(variables, body, key).await;
        sent.map_err(|error| error.while_doing(format!("{} {}", self.method, self.host())))
    }

    async fn exchange(&self, variables: &Variables, body: Body, key: &str) -> Result<Answer> {
        let call = Call {
            url: self.address.url(variables)?,
            headers: self.headers.evaluate(variables)?,
            body: self.prepare(variables, body).await?,
            key,
        };
        self.dispatch(&call).await
    }

    /// Sends a call; a credential that is refused is read again, and the call repeated once.
    async fn dispatch(&self, call: &Call<'_>) -> Result<Answer> {
        let access = self.access().await.inspect_err(|error| {
            // Who corrects a Secret or bundle that cannot be used is not kept waiting.
            if error.kind == Kind::Reference {
                self.surroundings.references.refused();
            }
        })?;
        let Failure { error, helps } = match self.attempt(call, &access).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        if helps == Helps::Nothing {
            return Err(error);
        }
        self.surroundings.references.refused();
        match self.access().await {
            Ok(fresh) if helps == Helps::Next || fresh.fingerprint != access.fingerprint => {
                self.attempt(call, &fresh).await.map_err(|failure| failure.error)
            }
            _ => Err(error),
        }
    }

    async fn prepare(&self, variables: &Variables, body: Body) -> Result<Prepared> {
        let json = match (&body, &self.multipart, &self.template) {
            (Body::Stream(_), Some(HttpMultipart { json: Some(name), .. }), Some(template)) => {
                Some((name.as_str(), evaluate(template, variables)?))
            }
            _ => None,
        };
        let form = self.multipart.as_ref().map(|form| (form.file.as_str(), json));
        Prepared::new(body, form, matches!(self.auth, Auth::Hmac { .. })).await
    }

    async fn access(&self) -> Result<Access> {
        let references = self.surroundings.references.as_ref();
        let held = self.auth.read(references, self.host()).await?;
        let authorities = self.authorities().await?;
        let identity = match &held.credential {
            Credential::Certificate(certificate) => Some(certificate),
            _ => None,
        };
        let server = self.tls.as_ref().and_then(|tls| tls.server_name.as_deref()).map(|name| (name, self.host()));
        let trust = Trust { authorities: authorities.as_deref(), besides_public: false, identity, server };
        let client = self.surroundings.clients.get(&trust)?;
        let mut hash = Sha256::new();
        auth::absorb(&mut hash, &held.fingerprint);
        auth::absorb(&mut hash, authorities.as_deref().unwrap_or_default());
        Ok(Access { held, client, fingerprint: hash.finalize().into() })
    }

    async fn authorities(&self) -> Result<Option<Vec<u8>>> {
        match self.tls.as_ref().and_then(|tls| tls.ca_ref.as_ref()) {
            Some(reference) => Ok(Some(self.surroundings.references.authorities(reference).await?)),
            None => Ok(None),
        }
    }

    async fn attempt(&self, call: &Call<'_>, access: &Access) -> Result<Answer, Failure> {
        let mut secrets = access.held.secrets.clone();
        if let Some(query) = call.url.query() {
            secrets.add_name(query);
        }
        let token = self.token(access).await?;
        if let Some(token) = &token {
            secrets.add(token.expose());
        }
        let session = match self.session(access, token.as_ref(), &secrets).await {
            Ok(session) => session,
            Err(error) => return Err(self.forget(error, token.as_ref(), None).await),
        };
        session.iter().flat_map(Session::secrets).for_each(|secret| secrets.add(secret));
        let progress = Progress::new();
        let exchange = async {
            let request = self.request(call, access, token.as_ref(), session.as_ref(), &progress).await?;
            request.send().await.map_err(|error| unreachable(&error, self.host()))
        };
        let response = self.watched(&progress, exchange).await;
        // That the connection broke off follows from what the source said.
        if let Some(error) = progress.failure() {
            return Err(Failure { error, helps: Helps::Nothing });
        }
        match self.settle(response?, &secrets).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.forget(error, token.as_ref(), session.as_ref()).await),
        }
    }

    /// Forgets the token or session that the other side does not take any more.
    async fn forget(&self, error: Error, token: Option<&Redacted>, session: Option<&Session>) -> Failure {
        match (error.code.as_str(), &self.auth, token, &self.csrf, session) {
            ("401", Auth::OAuth2(oauth2), Some(token), _, _) => oauth2.reject(token).await,
            ("403", _, _, Some(csrf), Some(session)) => csrf.reject(session).await,
            _ => return error.into(),
        }
        Failure { error, helps: Helps::Next }
    }

    /// Reads the answer and says what it means.
    async fn settle(&self, response: reqwest::Response, secrets: &Secrets) -> Result<Answer> {
        let status = response.status().as_u16();
        let late = |_| Error::new(Kind::Unavailable, format!("{} did not finish its answer in time", self.host()));
        if self.success.iter().any(|range| range.contains(&status)) {
            return tokio::time::timeout(self.timeout, answer::read(response, secrets, self.host())).await.map_err(late)?;
        }
        let advice = self.auth.advice();
        let refusal = answer::refusal(response, secrets, self.host(), &advice);
        Err(tokio::time::timeout(self.timeout, refusal).await.unwrap_or_else(late))
    }

    async fn request(
        &self,
        call: &Call<'_>,
        access: &Access,
        token: Option<&Redacted>,
        session: Option<&Session>,
        progress: &Arc<Progress>,
    ) -> Result<reqwest::RequestBuilder> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPTED));
        let body = match &call.body {
            Prepared::Empty => None,
            Prepared::Document { bytes, media_type } => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
                Some(reqwest::Body::from(bytes.clone()))
            }
            Prepared::Content(content) => {
                let (described, body) = content.open(progress).await?;
                headers.extend(described);
                Some(body)
            }
        };
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        let key =
            HeaderValue::try_from(call.key).map_err(|_| Error::new(Kind::Rejected, "the key cannot stand in a header"))?;
        headers.insert(IDEMPOTENCY_KEY, key);
        if let Credential::Key(key) = &access.held.credential {
            sign_with(key, call, &mut headers);
        }
        if let Some(session) = session {
            session.add_to(&mut headers);
        }
        let request = self.authorized(self.method.clone(), call.url.clone(), headers, access, token)?;
        Ok(match body {
            Some(body) => request.body(body),
            None => request,
        })
    }

    /// A request with what authenticates it.
    fn authorized(
        &self,
        method: Method,
        mut url: Url,
        mut headers: HeaderMap,
        access: &Access,
        token: Option<&Redacted>,
    ) -> Result<reqwest::RequestBuilder> {
        if let Credential::Header(name, value) = &access.held.credential {
            headers.insert(name, value.clone());
        }
        if let Some(name) = self.tls.as_ref().and_then(|tls| tls.server_name.as_deref()) {
            let host = authority(&url).map_err(|_| Error::new(Kind::Rejected, "url: the host cannot stand in a header"))?;
            headers.insert(header::HOST, host);
            url.set_host(Some(name)).map_err(|_| Error::new(Kind::Rejected, "tls.serverName is no DNS name"))?;
        }
        let request = access.client.request(method, url).headers(headers);
        Ok(match token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        })
    }

    async fn token(&self, access: &Access) -> Result<Option<Redacted>> {
        let (Auth::OAuth2(oauth2), Credential::Client(id, secret)) = (&self.auth, &access.held.credential) else {
            return Ok(None);
        };
        // The token endpoint is often somebody else's: the bundle of the target is then one more, not the only one.
        let authorities = self.authorities().await?;
        let besides_public = oauth2.host() != self.host();
        let trust = Trust { authorities: authorities.as_deref(), besides_public, ..Trust::default() };
        let client = self.surroundings.clients.get(&trust)?;
        let held = &access.held;
        oauth2.token(&client, (id, secret), held.fingerprint, &held.secrets).await.map(Some)
    }

    /// The CSRF token to send; fetched when there is none. One asks, everybody else waits for it.
    async fn session(&self, access: &Access, token: Option<&Redacted>, secrets: &Secrets) -> Result<Option<Session>> {
        let Some(csrf) = &self.csrf else { return Ok(None) };
        let mut current = csrf.current.lock().await;
        if let Some((_, session)) = current.as_ref().filter(|(of, _)| *of == access.fingerprint) {
            return Ok(Some(session.clone()));
        }
        let fetch = async {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPTED));
            headers.insert(csrf::TOKEN, HeaderValue::from_static("Fetch"));
            let request = self.authorized(Method::GET, csrf.url.clone(), headers, access, token)?;
            let response = request.timeout(self.timeout).send().await.map_err(|error| unreachable(&error, self.host()))?;
            if !response.status().is_success() {
                return Err(answer::refusal(response, secrets, self.host(), &self.auth.advice()).await);
            }
            Session::of(response.headers())
        };
        let session = fetch.await.map_err(|error| error.while_doing(format!("fetch a CSRF token from {}", self.host())))?;
        *current = Some((access.fingerprint, session.clone()));
        Ok(Some(session))
    }

    /// Gives up on a receiver that is silent, or all too slow.
    async fn watched<T>(&self, progress: &Progress, exchange: impl Future<Output = Result<T>>) -> Result<T> {
        let too_long = async {
            tokio::time::sleep(LONGEST_TIMEOUT + self.timeout).await;
            tokio::time::sleep(Duration::from_secs(progress.length() / SLOWEST_BYTES_PER_SECOND)).await;
        };
        tokio::select! {
            result = exchange => result,
            () = progress.silent_for(self.timeout) => {
                let why = format!("{} was silent for {} s", self.host(), self.timeout.as_secs_f32());
                Err(Error::new(Kind::Unavailable, why))
            }
            () = too_long => Err(Error::new(Kind::Unavailable, format!("{} takes the content too slowly", self.host()))),
        }
    }
}

fn sign_with(key: &Key, call: &Call<'_>, headers: &mut HeaderMap) {
    let now = Timestamp::now().as_second();
    let signature = match &call.body {
        Prepared::Empty => key.sign(call.key, now, &Signed::Body(b"")),
        Prepared::Document { bytes, .. } => key.sign(call.key, now, &Signed::Body(bytes)),
        Prepared::Content(content) => key.sign(call.key, now, &Signed::Content(content.digest().unwrap_or_default())),
    };
    let values =
        [("webhook-id", call.key.to_owned()), ("webhook-timestamp", now.to_string()), ("webhook-signature", signature)];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn authority(url: &Url) -> std::result::Result<HeaderValue, header::InvalidHeaderValue> {
    let host = url.host_str().unwrap_or_default();
    HeaderValue::try_from(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn evaluate(template: &Expression, variables: &Variables) -> Result<Value> {
    let wrong = |why: String| Error::new(Kind::Rejected, format!("template: {why}"));
    let json = template.json(variables).map_err(|failed| wrong(failed.to_string()))?;
    if json.is_object() || json.is_array() { Ok(json) } else { Err(wrong("the result is no map and no list".into())) }
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}

/// Compiles the template, and refuses fields that would change nothing.
fn template(spec: &HttpTarget, known: &[&str], has_body: bool) -> Result<Option<Expression>, InvalidField> {
    let wrong = |field: &str, why: &str| Err(InvalidField::value(field, why));
    if !has_body {
        let declared =
            [("body", spec.body.is_some()), ("template", spec.template.is_some()), ("multipart", spec.multipart.is_some())];
        if let Some((field, _)) = declared.into_iter().find(|(_, is_declared)| *is_declared) {
            return wrong(field, "GET and DELETE send no body");
        }
    }
    let form_document = spec.multipart.as_ref().and_then(|form| form.json.as_ref());
    match (&spec.template, spec.body) {
        (Some(_), Some(HttpBody::CloudEvent)) => wrong("template", "needs body: Template"),
        (None, Some(HttpBody::Template)) => wrong("template", "body: Template needs a template"),
        (None, _) if form_document.is_some() => wrong("template", "multipart.json needs a template"),
        (None, Some(HttpBody::CloudEvent)) if spec.multipart.is_some() => wrong("body", "a form has no CloudEvent in it"),
        (Some(_), _) if spec.multipart.is_some() && form_document.is_none() => {
            wrong("multipart.json", "the template needs a part")
        }
        (Some(text), _) => {
            Expression::compile(text, known).map(Some).map_err(|invalid| InvalidField::expression("template", &invalid))
        }
        (None, _) => Ok(None),
    }
}

fn trust(spec: &HttpTarget, address: &Address) -> Result<Option<HttpTls>, InvalidField> {
    let Some(tls) = &spec.tls else { return Ok(None) };
    if !address.is_https() {
        return Err(InvalidField::value("tls", "needs a url with https"));
    }
    match &tls.server_name {
        Some(name) if !address::is_dns_name(name) => Err(InvalidField::value("tls.serverName", "this is no DNS name")),
        _ => Ok(Some(tls.clone())),
    }
}

fn timeout(spec: &HttpTarget) -> Result<Duration, InvalidField> {
    let Some(text) = &spec.timeout else { return Ok(DEFAULT_TIMEOUT) };
    let timeout = text.parse::<SignedDuration>().ok().and_then(|timeout| Duration::try_from(timeout).ok());
    timeout
        .filter(|timeout| !timeout.is_zero() && *timeout <= LONGEST_TIMEOUT)
        .ok_or_else(|| InvalidField::value("timeout", "needs a duration of up to 10m, such as 30s"))
}

fn success(spec: &HttpTarget) -> Result<Vec<RangeInclusive<u16>>, InvalidField> {
    let Some(declared) = &spec.success else { return Ok(vec![200..=299]) };
    let ranges = declared.iter().enumerate().map(|(at, text)| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if 100 <= first && first <= last && last <= 599 => Ok(first..=last),
            _ => {
                Err(InvalidField::value(format!("success[{at}]"), "needs a status such as 409, or a range such as 200-299"))
            }
        }
    });
    ranges.collect()
}
