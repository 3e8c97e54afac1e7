//! One HTTP exchange with a tenant: limits, credential, bounds and errors.

use std::time::{Duration, Instant};

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::auth::{Credential, TokenSource};
use super::rate_limit::Pause;
use super::slots::Slots;
use crate::error::{Error, Kind, Result, clean};
use crate::file360::model::{Problem, headers};
use crate::file360::{Cause, IdempotencyKey};
use crate::redacted::Redacted;

/// Calls in flight when neither the Connection nor the server says otherwise.
const DEFAULT_CONCURRENCY: usize = 64;
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Failures in a row that open the breaker.
const BREAKER_FAILURES: u32 = 5;
const BREAKER_FIRST: Duration = Duration::from_secs(1);
const BREAKER_LONGEST: Duration = Duration::from_secs(15);
/// A server cannot make the operator wait longer than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);
/// A call waits so long for the end of a pause that the server asked for; a longer one is told to the caller.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Hears of every call.
pub trait Observer: Send + Sync {
    /// One call ended: operation of the contract, outcome from a closed set, duration.
    fn call_ended(&self, operation: &'static str, outcome: &'static str, took: Duration);
}

/// How to reach the server.
pub struct Settings {
    /// Base URL, without a trailing slash.
    pub endpoint: Url,
    /// How to authenticate.
    pub credential: Credential,
    /// The HTTP client: trust, client certificate, proxy, address guard.
    pub http: reqwest::Client,
    /// Requests a second, if limited.
    pub requests_per_second: Option<u32>,
    /// Requests in flight, if limited.
    pub concurrency: Option<u32>,
    /// Ends mutating calls, also those in flight: the leadership is lost.
    pub stop_writes: CancellationToken,
    /// Hears of every call.
    pub observer: std::sync::Arc<dyn Observer>,
}

/// One server, with its limits, token and breaker, shared by every call.
pub struct Transport {
    /// Who is at the other end, as messages say it.
    peer: &'static str,
    endpoint: Url,
    pub(super) http: reqwest::Client,
    pub(super) tokens: TokenSource,
    slots: Slots,
    /// Uploads take one of these as well: half as many, so that long ones leave room for the calls that work.
    pub(super) uploads: Slots,
    bucket: RwLock<Option<DefaultDirectRateLimiter>>,
    pause: Pause,
    fence: RwLock<Option<String>>,
    breaker: Mutex<Breaker>,
    stop_writes: CancellationToken,
    observer: std::sync::Arc<dyn Observer>,
}

/// One call.
pub struct Call<'a> {
    /// Operation of the contract.
    pub operation: &'static str,
    /// HTTP method.
    pub method: Method,
    /// Path below the endpoint; variable parts encoded with [`segment`].
    pub path: String,
    /// Query parameters.
    pub query: &'a [(&'a str, &'a str)],
    /// JSON body.
    pub body: Option<Bytes>,
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match: *`.
    pub create_only: bool,
    /// Headers of one driver's own protocol.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Why, on mutating calls.
    pub cause: Option<&'a Cause>,
    /// It changes something without a cause to name: it carries the fence and ends with the leadership all the same.
    pub mutates: bool,
    /// The key of a repeatable POST; without one it gets a fresh one.
    pub key: Option<&'a IdempotencyKey>,
    /// Longest duration.
    pub timeout: Duration,
    /// It waits for something to happen, and takes no slot from the calls that work.
    pub is_long_poll: bool,
}

impl<'a> Call<'a> {
    /// A call without body or conditions.
    pub fn new(operation: &'static str, method: Method, path: String) -> Self {
        Self {
            operation,
            method,
            path,
            query: &[],
            body: None,
            if_match: None,
            create_only: false,
            headers: Vec::new(),
            cause: None,
            mutates: false,
            key: None,
            timeout: CALL_TIMEOUT,
            is_long_poll: false,
        }
    }

    /// Adds query parameters.
    #[must_use]
    pub fn query(mut self, query: &'a [(&'a str, &'a str)]) -> Self {
        self.query = query;
        self
    }

    /// Adds a JSON body.
    pub fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let bytes = serde_json::to_vec(body).map_err(|error| Error::new(Kind::Rejected, error.to_string()))?;
        self.body = Some(bytes.into());
        Ok(self)
    }

    /// Adds a header of the driver's own protocol; a content type takes the place of JSON's.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `If-Match`.
    #[must_use]
    pub fn if_match(mut self, etag: &'a str) -> Self {
        self.if_match = Some(etag);
        self
    }

    /// Adds why.
    #[must_use]
    pub fn cause(mut self, cause: &'a Cause) -> Self {
        self.cause = Some(cause);
        self.mutates = true;
        self
    }

    /// Says that it changes something, without a cause to name.
    #[must_use]
    pub fn mutating(mut self) -> Self {
        self.mutates = true;
        self
    }

    /// Adds the key that makes it repeatable.
    #[must_use]
    pub fn key(mut self, key: &'a IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status; always 2xx.
    pub status: StatusCode,
    /// Revision of the workspace, where the answer concerns one.
    pub revision: Option<u64>,
    /// Entity tag.
    pub etag: Option<String>,
    /// It is the answer to an earlier call under the same key.
    pub is_replay: bool,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; bounded.
    pub body: Bytes,
}

impl Answer {
    /// The JSON body.
    pub fn json<T: DeserializeOwned>(&self, operation: &'static str) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::new(
                Kind::Malformed,
                format!("the answer is not what the contract says (line {}, column {})", error.line(), error.column()),
            )
            .while_doing(operation)
        })
    }

    /// The revision, which the contract promises here.
    pub fn revision(&self, operation: &'static str) -> Result<u64> {
        self.revision.ok_or_else(|| {
            Error::new(Kind::Malformed, "the answer lacks the Workspace-Revision header").while_doing(operation)
        })
    }
}

/// A failure of an exchange, and whose it is.
pub(super) struct Fault {
    /// What went wrong.
    pub error: Error,
    /// File 360 or the way to it failed; otherwise the caller's own stream, which says nothing about File 360.
    pub is_theirs: bool,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { error, is_theirs: true }
    }
}

#[derive(Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
    opened_times: u32,
}

impl Transport {
    /// Nothing is sent before the first call.
    pub fn new(settings: Settings) -> Self {
        let concurrency = settings.concurrency.map_or(DEFAULT_CONCURRENCY, |n| n as usize);
        let transport = Self {
            peer: "File 360",
            endpoint: settings.endpoint,
            http: settings.http,
            tokens: TokenSource::new(settings.credential),
            slots: Slots::new(concurrency),
            uploads: Slots::new(concurrency / 2),
            bucket: RwLock::new(None),
            pause: Pause::default(),
            fence: RwLock::new(None),
            breaker: Mutex::default(),
            stop_writes: settings.stop_writes,
            observer: settings.observer,
        };
        transport.limit_rate(settings.requests_per_second);
        transport
    }

    /// The same, with another name for who is at the other end.
    #[must_use]
    pub fn to(mut self, peer: &'static str) -> Self {
        self.peer = peer;
        self
    }

    /// Base URL.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Sets the rate limit, for example to what the service document says.
    pub fn limit_rate(&self, requests_per_second: Option<u32>) {
        let quota = requests_per_second.and_then(std::num::NonZeroU32::new).map(Quota::per_second);
        *self.bucket.write() = quota.map(RateLimiter::direct);
    }

    /// Sets how many calls may be in flight, for example to what the service document says.
    pub fn limit_concurrency(&self, concurrency: Option<u32>) {
        let Some(wanted) = concurrency.map(|n| n as usize) else { return };
        self.slots.resize(wanted);
        self.uploads.resize(wanted / 2);
    }

    /// Every later mutating call carries this fence.
    pub fn carry_fence(&self, cluster_id: &str, consumer: &str, epoch: u64) {
        *self.fence.write() = Some(format!("{cluster_id}/{consumer}={epoch}"));
    }

    /// One exchange. A 401 renews the token once. Errors carry what was asked, never a secret.
    pub async fn call(&self, call: Call<'_>) -> Result<Answer> {
        self.guarded(&call, async { Ok(self.exchange(&call).await?) }).await
    }

    /// Breaker, limits, leadership and metrics around one exchange.
    pub(super) async fn guarded<T>(&self, call: &Call<'_>, exchange: impl Future<Output = Result<T, Fault>>) -> Result<T> {
        let started = Instant::now();
        let result = self.limited(call, exchange).await;
        let outcome = result.as_ref().map_or_else(|error| error.kind.as_str(), |_| "ok");
        self.observer.call_ended(call.operation, outcome, started.elapsed());
        result.map_err(|error| error.while_doing(call.operation))
    }

    async fn limited<T>(&self, call: &Call<'_>, exchange: impl Future<Output = Result<T, Fault>>) -> Result<T> {
        self.check_breaker()?;
        let _slot = if call.is_long_poll { None } else { Some(self.slots.take().await?) };
        self.take_turn(call).await?;
        let result = if call.mutates {
            tokio::select! {
                biased;
                () = self.stop_writes.cancelled() =>
                    Err(Error::new(Kind::Stopping, "not the leader any more: the write was given up").into()),
                result = exchange => result,
            }
        } else {
            exchange.await
        };
        match &result {
            Ok(_) => self.note(None),
            Err(fault) if fault.is_theirs => self.note(Some(&fault.error)),
            Err(_) => {}
        }
        result.map_err(|fault| fault.error)
    }

    /// Waits until the limits allow one more request.
    async fn take_turn(&self, call: &Call<'_>) -> Result<()> {
        loop {
            let wait = match self.pause.rest() {
                // Nobody waits for the feed's reader, and an ended feed would look like an outage.
                Some(rest) if rest > LONGEST_PAUSE && !call.is_long_poll => {
                    let mut error =
                        Error::new(Kind::RateLimited, format!("{} says that its rate limit is used up", self.peer));
                    error.retry_after = Some(rest);
                    return Err(error);
                }
                Some(rest) => rest,
                None => match self.next_in_bucket() {
                    Some(wait) => wait,
                    None => return Ok(()),
                },
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes one request out of the bucket; `Some`: there is none before so long.
    fn next_in_bucket(&self) -> Option<Duration> {
        let bucket = self.bucket.read();
        let not_until = bucket.as_ref()?.check().err()?;
        Some(not_until.wait_time_from(governor::clock::Clock::now(&governor::clock::DefaultClock::default())))
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Answer> {
        let token = self.tokens.token(&self.http).await?;
        match self.send(call, &token).await {
            Err(error) if error.code == "unauthenticated" && self.tokens.reject(&token).await => {
                let token = self.tokens.token(&self.http).await?;
                self.send(call, &token).await
            }
            result => result,
        }
    }

    async fn send(&self, call: &Call<'_>, token: &Redacted) -> Result<Answer> {
        let mut request = self.request(call, token).timeout(call.timeout);
        if let Some(body) = &call.body {
            if !call.headers.iter().any(|(name, _)| name == header::CONTENT_TYPE) {
                let is_patch = call.method == Method::PATCH;
                let media_type = if is_patch { "application/merge-patch+json" } else { "application/json" };
                request = request.header(header::CONTENT_TYPE, media_type);
            }
            request = request.body(body.clone());
        }
        let response = request.send().await.map_err(|error| send_error(&error))?;
        self.answer(response, token).await
    }

    /// A request without body and time limit.
    pub(super) fn request(&self, call: &Call<'_>, token: &Redacted) -> reqwest::RequestBuilder {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}{}", self.endpoint.path().trim_end_matches('/'), call.path));
        let mut request = self.http.request(call.method.clone(), url);
        request = self.tokens.authorize(request, token);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if !call.query.is_empty() {
            request = request.query(call.query);
        }
        if let Some(etag) = call.if_match {
            request = request.header(header::IF_MATCH, etag);
        }
        if call.create_only {
            request = request.header(header::IF_NONE_MATCH, "*");
        }
        if call.method == Method::POST {
            let fresh = || format!("{:032x}", rand::random::<u128>());
            let key = call.key.map_or_else(fresh, |IdempotencyKey(key)| key.clone());
            request = request.header(headers::IDEMPOTENCY_KEY, key);
        }
        if let Some(Cause(cause)) = call.cause {
            request = request.header(headers::CAUSED_BY, cause);
        }
        if !call.mutates {
            return request;
        }
        if let Some(fence) = self.fence.read().as_deref() {
            request = request.header(headers::FENCING_EPOCH, fence);
        }
        request
    }

    /// Reads the answer to its end.
    pub(super) async fn answer(&self, response: reqwest::Response, token: &Redacted) -> Result<Answer> {
        self.pause.heed(response.headers());
        let status = response.status();
        let etag = text_header(response.headers(), header::ETAG.as_str());
        let revision = text_header(response.headers(), headers::WORKSPACE_REVISION).and_then(|text| text.parse().ok());
        let is_replay = response.headers().contains_key(headers::IDEMPOTENCY_REPLAYED);
        let all = response.headers().clone();
        let retry_after = retry_after(response.headers());
        let body = bounded_body(response, MAX_ANSWER).await?;
        if status.is_success() {
            return Ok(Answer { status, revision, etag, is_replay, headers: all, body });
        }
        Err(self.problem(status, retry_after, &body, token))
    }

    /// The one place that turns an HTTP answer into a kind of failure.
    fn problem(&self, status: StatusCode, retry_after: Option<Duration>, body: &[u8], token: &Redacted) -> Error {
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        let kind = match status.as_u16() {
            404 => Kind::NotFound,
            401 | 403 => Kind::Denied,
            409 => Kind::Conflict,
            410 => Kind::Expired,
            412 => Kind::Stale,
            429 => Kind::RateLimited,
            501 => Kind::Unsupported,
            300..=499 => Kind::Rejected,
            _ => Kind::Unavailable,
        };
        let said = problem.detail.as_deref().filter(|detail| !detail.is_empty()).unwrap_or(&problem.title);
        let said = clean(&self.tokens.scrub(said, Some(token)), 300);
        let message = if said.is_empty() {
            format!("{} answered {status}", self.peer)
        } else {
            format!("{} answered {} {}: {said}", self.peer, status.as_u16(), clean(&problem.code, 60))
        };
        let mut error = Error::new(kind, message);
        error.code = match (status, problem.code.as_str()) {
            (StatusCode::UNAUTHORIZED, _) => "unauthenticated".into(),
            // What servers say without a problem document.
            (_, "") if status.is_redirection() => "redirected".into(),
            (StatusCode::METHOD_NOT_ALLOWED, "") => "method-not-allowed".into(),
            (StatusCode::LOCKED, "") => "locked".into(),
            (StatusCode::INSUFFICIENT_STORAGE, "") => "insufficient-storage".into(),
            (_, code) => clean(code, 60),
        };
        error.retry_after = retry_after;
        error.details = problem
            .errors
            .iter()
            .take(20)
            .map(|field| clean(&self.tokens.scrub(&format!("{} {}", field.pointer, field.detail), Some(token)), 300))
            .collect();
        error
    }

    fn check_breaker(&self) -> Result<()> {
        let mut breaker = self.breaker.lock();
        let Some(until) = breaker.open_until else { return Ok(()) };
        let now = Instant::now();
        if now < until {
            let why = format!("{} failed several times in a row; waiting before the next try", self.peer);
            let mut error = Error::new(Kind::Unavailable, why);
            error.retry_after = Some(until - now);
            return Err(error);
        }
        // One caller probes; the others keep waiting until it is back.
        breaker.open_until = Some(now + BREAKER_FIRST);
        Ok(())
    }

    /// Content broke off after the exchange that opened it.
    pub(super) fn broke_off(&self, operation: &'static str, error: &Error, after: Duration) {
        self.note(Some(error));
        self.observer.call_ended(operation, error.kind.as_str(), after);
    }

    /// Counts how an exchange ended.
    fn note(&self, failure: Option<&Error>) {
        let mut breaker = self.breaker.lock();
        match failure {
            Some(error) if matches!(error.kind, Kind::Unavailable | Kind::Tls | Kind::RateLimited) => {
                breaker.failures += 1;
                let asked =
                    error.retry_after.filter(|_| error.kind != Kind::Tls).map(|after| after.min(LONGEST_RETRY_AFTER));
                if asked.is_some() || breaker.failures >= BREAKER_FAILURES {
                    let own = BREAKER_FIRST * 2u32.saturating_pow(breaker.opened_times.min(5));
                    breaker.open_until =
                        Some(Instant::now() + asked.unwrap_or(own).max(own.min(BREAKER_LONGEST)).min(LONGEST_RETRY_AFTER));
                    breaker.opened_times += 1;
                }
            }
            Some(error) if error.kind == Kind::Stopping => {}
            _ => *breaker = Breaker::default(),
        }
    }
}

/// `text` as one path segment.
pub fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The body, unless it is larger than `max` bytes.
pub async fn bounded_body(mut response: reqwest::Response, max: usize) -> Result<Bytes> {
    let too_large = || Error::new(Kind::Malformed, format!("the answer is larger than {max} bytes"));
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| send_error(&error))? {
        if body.len() + chunk.len() > max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// `Retry-After` in seconds, bounded.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = text_header(headers, header::RETRY_AFTER.as_str())?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// What went wrong below HTTP. The URL is left out: it can carry secrets.
pub fn send_error(error: &reqwest::Error) -> Error {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let root = clean(causes.last().map_or("connection failed", String::as_str), 200);
    let text = causes.join(": ").to_lowercase();
    if error.is_timeout() {
        return Error::new(Kind::Unavailable, "no answer in time");
    }
    if error.is_builder() {
        return Error::new(Kind::Rejected, "the request cannot be written: a header has characters that it cannot have");
    }
    if text.contains("certificate")
        || text.contains("tls")
        || text.contains("handshake")
        || text.contains("invalidcontenttype")
    {
        return Error::new(
            Kind::Tls,
            format!("TLS failed: {root}; check tls.caRef and that the endpoint's certificate names its host"),
        );
    }
    if text.contains("outbound guard") {
        return Error::new(Kind::Rejected, root);
    }
    if error.is_body() || error.is_decode() {
        return Error::new(Kind::Unavailable, format!("the answer broke off: {root}"));
    }
    Error::new(Kind::Unavailable, format!("cannot reach the server: {root}"))
}
