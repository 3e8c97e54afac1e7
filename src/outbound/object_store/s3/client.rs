//! One exchange with an S3 server: address, credential, signature, bounds, errors.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{Method, StatusCode, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::super::{Settings, Stream};
use super::sign::{self, Signable};
use crate::api::places::S3;
use crate::error::{Error, Kind, Result, clean};
use crate::hex::hex;
use crate::outbound::guard::{Guard, GuardedResolver};
use crate::outbound::secrets::References;

/// How long an exchange without content may take.
const SHORT: Duration = Duration::from_secs(30);
/// The same for one that carries content or joins parts: 8 MiB at 32 KiB a second.
const LONG: Duration = Duration::from_mins(5);
/// Largest description of an error that is read, in bytes.
const MAX_PROBLEM: usize = 64 * 1024;
/// A server cannot make the operator wait longer than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);

/// A bucket and the way to it.
pub struct Client {
    spec: S3,
    endpoint: Url,
    host: String,
    references: Arc<dyn References>,
    guard: Arc<Guard>,
    extra_ca: Vec<reqwest::Certificate>,
    /// The HTTP client, with the bundle of authorities it was made for.
    http: Mutex<Option<(Option<Vec<u8>>, reqwest::Client)>>,
}

/// A request.
#[derive(Clone)]
pub struct Request<'a> {
    /// Method.
    pub method: Method,
    /// Name of the object; `None`: the bucket.
    pub key: Option<&'a str>,
    /// Query.
    pub query: Vec<(&'a str, &'a str)>,
    /// Headers besides those of every request.
    pub headers: Vec<(&'static str, &'a str)>,
    /// The body.
    pub body: Body,
}

/// A body that can be sent again.
#[derive(Clone)]
pub struct Body {
    /// Its bytes.
    pub chunks: Vec<Bytes>,
    /// How many there are.
    pub size: u64,
    /// Their SHA-256 in hexadecimal, which the server checks.
    pub sha256: String,
}

impl Default for Body {
    fn default() -> Self {
        Self { chunks: Vec::new(), size: 0, sha256: sign::EMPTY.into() }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self { size: bytes.len() as u64, sha256: hex(&Sha256::digest(&bytes)), chunks: vec![bytes.into()] }
    }
}

/// Puts a body together. Large pieces are kept as they come, small ones are copied together: a source that trickles costs no more
/// memory than one that does not.
pub struct Gathering {
    chunks: Vec<Bytes>,
    small: BytesMut,
    size: u64,
    hash: Option<Sha256>,
}

impl Gathering {
    /// `is_hashed`: the SHA-256 is not known from elsewhere.
    pub fn new(is_hashed: bool) -> Self {
        Self { chunks: Vec::new(), small: BytesMut::new(), size: 0, hash: is_hashed.then(Sha256::new) }
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a piece.
    pub fn add(&mut self, chunk: Bytes) {
        const LARGE: usize = 16 * 1024;
        self.size += chunk.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&chunk);
        }
        if chunk.len() < LARGE {
            self.small.extend_from_slice(&chunk);
        }
        if chunk.len() >= LARGE || self.small.len() >= 4 * LARGE {
            self.flush();
        }
        if chunk.len() >= LARGE {
            self.chunks.push(chunk);
        }
    }

    /// The body. `sha256` is what the server will check the bytes against; without it, it is what they have.
    pub fn body(mut self, sha256: Option<&str>) -> Body {
        self.flush();
        let computed = self.hash.map(|hash| hex(&hash.finalize()));
        let sha256 = sha256.map(str::to_owned).or(computed).unwrap_or_default();
        Body { chunks: self.chunks, size: self.size, sha256 }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
    }
}

impl<'a> Request<'a> {
    /// A request without query, headers and body.
    pub fn new(method: Method, key: Option<&'a str>) -> Self {
        Self { method, key, query: Vec::new(), headers: Vec::new(), body: Body::default() }
    }
}

#[derive(PartialEq, Eq)]
struct Credential {
    key_id: String,
    secret: String,
    token: Option<String>,
}

/// What a server says about a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Problem {
    /// A word such as `NoSuchKey`.
    pub code: String,
    /// A sentence.
    pub message: String,
}

impl Client {
    /// Checks the address; sends nothing.
    pub fn new(spec: &S3, references: Arc<dyn References>, settings: &Settings) -> Result<Self> {
        let address = spec.endpoint.clone().unwrap_or_else(|| amazon(&spec.region));
        let invalid = |why: String| Error::new(Kind::Rejected, format!("s3.endpoint: {why}"));
        let endpoint =
            Url::parse(&address).map_err(|error| invalid(format!("{} is no URL: {error}", clean(&address, 200))))?;
        let host = endpoint.host_str().unwrap_or_default().to_owned();
        settings.guard.check_host(&host).map_err(invalid)?;
        if endpoint.scheme() != "https" && !settings.guard.is_allowed_host(&host) {
            return Err(invalid("must use https, unless the host is in the operator's --outbound-allow".into()));
        }
        Ok(Self {
            spec: spec.clone(),
            endpoint,
            host,
            references,
            guard: settings.guard.clone(),
            extra_ca: settings.extra_ca.clone(),
            http: Mutex::new(None),
        })
    }

    /// Host and port of the server, as people write it.
    pub fn authority(&self) -> String {
        self.endpoint.port().map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.spec.bucket
    }

    /// One exchange that succeeds, or an error. A refused credential is read again, and tried once more if it is another by now.
    pub async fn send(&self, request: &Request<'_>) -> Result<reqwest::Response> {
        let credential = self.credential().await?;
        let refused = match self.once(request, &credential).await? {
            Ok(response) => return Ok(response),
            Err(refused) if !refused.is_about_credential() => return Err(self.error(&refused)),
            Err(refused) => refused,
        };
        self.references.refused();
        let renewed = self.credential().await?;
        if renewed == credential {
            return Err(self.error(&refused));
        }
        self.once(request, &renewed).await?.map_err(|refused| self.error(&refused))
    }

    /// The same for an answer in XML of at most `max` bytes. Some operations answer 200 and then say that they failed.
    pub async fn send_for_xml<T: DeserializeOwned>(&self, request: &Request<'_>, max: usize) -> Result<T> {
        let response = self.send(request).await?;
        let body = bounded(response, max).await?;
        let text = std::str::from_utf8(&body).map_err(|_| malformed("it is not UTF-8"))?;
        if let Some(problem) = problem(text) {
            return Err(self.error(&Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, problem, retry_after: None }));
        }
        quick_xml::de::from_str(text).map_err(|error| malformed(&error.to_string()))
    }

    async fn credential(&self) -> Result<Credential> {
        let spec = &self.spec;
        let read = |reference| self.references.credential(reference, &self.host);
        Ok(Credential {
            key_id: read(&spec.access_key_id_ref).await?.expose().trim().to_owned(),
            secret: read(&spec.secret_access_key_ref).await?.expose().trim().to_owned(),
            token: match &spec.session_token_ref {
                Some(reference) => Some(read(reference).await?.expose().trim().to_owned()),
                None => None,
            },
        })
    }

    /// One exchange whose body is read while it is sent, and therefore cannot be sent again; `request.body` says how much it is and what
    /// its SHA-256 is. It may take as long as bytes move. When `content` fails, so does this, and the server keeps nothing.
    pub async fn send_stream(&self, request: &Request<'_>, content: Stream) -> Result<reqwest::Response> {
        let credential = self.credential().await?;
        let progress = Arc::new(Progress::default());
        let noted = progress.clone();
        let body = content.map(move |chunk| noted.note(chunk));
        let sending = self.signed(request, &credential).await?.body(reqwest::Body::wrap_stream(body)).send();
        let sent = tokio::select! {
            sent = sending => sent,
            () = progress.stalls() => return Err(Error::new(Kind::Unavailable, "S3 takes no more of the content")),
        };
        if let Some(error) = progress.failure() {
            return Err(error);
        }
        match self.answered(sent).await? {
            Ok(response) => Ok(response),
            Err(refused) => {
                if refused.is_about_credential() {
                    self.references.refused();
                }
                Err(self.error(&refused))
            }
        }
    }

    async fn once(&self, request: &Request<'_>, credential: &Credential) -> Result<Result<reqwest::Response, Refusal>> {
        let mut builder = self.signed(request, credential).await?;
        if request.method == Method::PUT || request.method == Method::POST {
            builder = builder.body(body(&request.body.chunks)).timeout(LONG);
        } else if request.method != Method::GET || request.key.is_none() {
            builder = builder.timeout(SHORT);
        }
        self.answered(builder.send().await).await
    }

    async fn answered(&self, sent: reqwest::Result<reqwest::Response>) -> Result<Result<reqwest::Response, Refusal>> {
        let response = sent.map_err(|error| {
            let error = send_error(&error);
            if error.kind == Kind::Tls {
                self.references.refused();
            }
            error
        })?;
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        let status = response.status();
        let retry_after =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = bounded(response, MAX_PROBLEM).await.unwrap_or_default();
        let problem = std::str::from_utf8(&body).ok().and_then(problem).unwrap_or_default();
        Ok(Err(Refusal { status, problem, retry_after: retry_after.map(Duration::from_secs) }))
    }

    async fn signed(&self, request: &Request<'_>, credential: &Credential) -> Result<reqwest::RequestBuilder> {
        let path = match request.key {
            Some(key) => sign::path(&format!("{}/{}/{key}", self.endpoint.path().trim_end_matches('/'), self.spec.bucket)),
            None => sign::path(&format!("{}/{}", self.endpoint.path().trim_end_matches('/'), self.spec.bucket)),
        };
        let query = sign::query(&request.query);
        let mut url = self.endpoint.clone();
        url.set_path(&path);
        url.set_query((!query.is_empty()).then_some(&query));
        // A URL that does not say what was signed would reach another object.
        if url.path() != path {
            return Err(Error::new(Kind::Rejected, "the object's name cannot be sent as a URL"));
        }

        let at = Timestamp::now();
        let (time, authority) = (sign::time(at), self.authority());
        let mut headers = request.headers.clone();
        headers.extend([("x-amz-content-sha256", request.body.sha256.as_str()), ("x-amz-date", &time)]);
        headers.extend(credential.token.as_deref().map(|token| ("x-amz-security-token", token)));
        let mut signed: Vec<(&str, &str)> = headers.iter().copied().filter(|(name, _)| name.starts_with("x-amz-")).collect();
        signed.push(("host", &authority));
        let signable = Signable {
            method: request.method.as_str(),
            path: &path,
            query: &query,
            headers: &signed,
            body: &request.body.sha256,
        };
        let authorization = sign::authorization(&signable, at, &self.spec.region, &credential.key_id, &credential.secret);

        let mut builder =
            self.http().await?.request(request.method.clone(), url).header(header::AUTHORIZATION, authorization);
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        if request.method == Method::PUT || request.method == Method::POST {
            builder = builder.header(header::CONTENT_LENGTH, request.body.size);
        }
        Ok(builder)
    }

    /// The HTTP client for the authorities that the manifest names.
    async fn http(&self) -> Result<reqwest::Client> {
        let bundle = match &self.spec.ca_ref {
            Some(reference) => Some(self.references.authorities(reference).await?),
            None => None,
        };
        let mut http = self.http.lock();
        if let Some((_, client)) = http.as_ref().filter(|(known, _)| *known == bundle) {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("file360-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(64)
            .tcp_nodelay(true)
            .dns_resolver(GuardedResolver(self.guard.clone()))
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .tls_certs_merge(self.extra_ca.iter().cloned());
        if let Some(pem) = &bundle {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(Error::new(Kind::Reference, "s3.caRef names no PEM certificate"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let client =
            builder.build().map_err(|_| Error::new(Kind::Tls, "the TLS settings cannot be used; check s3.caRef"))?;
        *http = Some((bundle, client.clone()));
        Ok(client)
    }

    /// What a refusal means, and what to do about it.
    fn error(&self, refusal: &Refusal) -> Error {
        let said = refusal.said();
        let S3 { bucket, region, access_key_id_ref: id, secret_access_key_ref: secret, .. } = &self.spec;
        let (kind, advice) = match (refusal.status.as_u16(), refusal.problem.code.as_str()) {
            (_, "NoSuchBucket") => (Kind::Reference, format!("; create bucket {bucket} or correct s3.bucket")),
            (_, "RequestTimeTooSkewed") => (Kind::Unavailable, "; set the clocks of both machines".to_owned()),
            _ if refusal.is_about_credential() => {
                let keys = format!("key {} of Secret {} and key {} of Secret {}", id.key, id.name, secret.key, secret.name);
                (Kind::Denied, format!("; check {keys}, and what they may do in bucket {bucket}"))
            }
            (404, _) => (Kind::NotFound, String::new()),
            (412, _) => (Kind::Stale, String::new()),
            (429, _) | (_, "SlowDown" | "TooManyRequests") => (Kind::RateLimited, String::new()),
            (409, _) => (Kind::Unavailable, "; another request for the same object is at work".to_owned()),
            (501, _) => (Kind::Unsupported, String::new()),
            (300..=399, _) | (_, "AuthorizationHeaderMalformed") => {
                (Kind::Rejected, format!("; the bucket is not in region {region}, or has another endpoint"))
            }
            (500..=599, _) => (Kind::Unavailable, String::new()),
            (_, "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch" | "NoSuchUpload") => {
                (Kind::Unavailable, String::new())
            }
            _ => (Kind::Rejected, String::new()),
        };
        let mut error = Error::new(kind, format!("S3 at {} answered {said}{advice}", self.authority()));
        error.code = clean(&refusal.problem.code, 64);
        error.retry_after = refusal.retry_after.map(|after| after.min(LONGEST_RETRY_AFTER));
        error
    }
}

/// How a body that is read while it is sent gets on.
#[derive(Default)]
struct Progress {
    moved: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl Progress {
    fn note(&self, chunk: Result<Bytes>) -> Result<Bytes> {
        self.moved.fetch_add(1, Ordering::Relaxed);
        chunk.inspect_err(|error| *self.failure.lock() = Some(error.clone()))
    }

    /// Why the content ended before its end, if it did.
    fn failure(&self) -> Option<Error> {
        self.failure.lock().take()
    }

    /// Ends when nothing has moved for as long as a request may take.
    async fn stalls(&self) {
        let mut before = None;
        loop {
            let now = self.moved.load(Ordering::Relaxed);
            if before.replace(now) == Some(now) {
                return;
            }
            tokio::time::sleep(LONG).await;
        }
    }
}

/// The servers' own address for a region.
fn amazon(region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://s3.{region}.{domain}")
}

/// An answer that is no success.
struct Refusal {
    status: StatusCode,
    problem: Problem,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn is_about_credential(&self) -> bool {
        let code = self.problem.code.as_str();
        // Some say these with 400.
        matches!(
            code,
            "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "TokenRefreshRequired"
        ) || (matches!(self.status.as_u16(), 401 | 403) && code != "RequestTimeTooSkewed")
    }

    fn said(&self) -> String {
        let status = self.status.as_u16();
        match (self.problem.code.as_str(), self.problem.message.as_str()) {
            ("", _) => status.to_string(),
            (code, "") => format!("{status} {}", clean(code, 64)),
            (code, message) => format!("{status} {}: {}", clean(code, 64), clean(message, 200)),
        }
    }
}

fn problem(text: &str) -> Option<Problem> {
    let root = text.trim_start().trim_start_matches('\u{feff}');
    let root = if root.starts_with("<?") { root.split_once("?>")?.1.trim_start() } else { root };
    if root.starts_with("<Error") { quick_xml::de::from_str(root).ok() } else { None }
}

fn body(chunks: &[Bytes]) -> reqwest::Body {
    match chunks {
        [] => reqwest::Body::from(Bytes::new()),
        [whole] => reqwest::Body::from(whole.clone()),
        parts => {
            let parts: Vec<_> = parts.iter().cloned().map(Ok::<_, std::io::Error>).collect();
            reqwest::Body::wrap_stream(futures::stream::iter(parts))
        }
    }
}

/// The body, unless it is larger than `max` bytes.
async fn bounded(mut response: reqwest::Response, max: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let read = async {
        while let Some(chunk) = response.chunk().await.map_err(|error| send_error(&error))? {
            if body.len() + chunk.len() > max {
                return Err(malformed(&format!("it is larger than {max} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(())
    };
    tokio::time::timeout(SHORT, read).await.map_err(|_| malformed("it does not end"))??;
    Ok(body)
}

fn malformed(why: &str) -> Error {
    Error::new(Kind::Malformed, format!("the answer of S3 cannot be understood: {}", clean(why, 200)))
}

/// What a failure below HTTP means. Its text may hold the URL, which has no secret in it, but no more of it than needed is kept.
pub fn send_error(error: &reqwest::Error) -> Error {
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let root = clean(&root.to_string(), 200);
    let text = root.to_lowercase();
    if text.contains("certificate") || text.contains("tls") || text.contains("handshake") {
        return Error::new(
            Kind::Tls,
            format!("TLS failed: {root}; check s3.caRef and that the server's certificate names its host"),
        );
    }
    if text.contains("outbound guard") {
        return Error::new(Kind::Rejected, root);
    }
    if error.is_timeout() {
        return Error::new(Kind::Unavailable, "S3 did not answer in time");
    }
    if error.source().is_none() {
        return Error::new(Kind::Unavailable, "S3 cannot be reached");
    }
    Error::new(Kind::Unavailable, format!("S3 cannot be reached: {root}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_of_an_error_is_found_wherever_it_comes() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>gone</Message><Key>x</Key></Error>";
        assert_eq!(problem(text).unwrap().code, "NoSuchKey");
        assert_eq!(problem(&text[text.find("<Error").unwrap()..]).unwrap().message, "gone");
        assert!(problem("<ListBucketResult/>").is_none());
        assert!(problem("<Error><Code>").is_none());
        assert!(problem("").is_none());
    }

    #[test]
    fn a_trickle_is_gathered_and_what_is_large_is_not_copied() {
        let mut gathering = Gathering::new(true);
        let large = Bytes::from(vec![7; 20_000]);
        for n in 0..1000 {
            gathering.add(Bytes::from(vec![u8::try_from(n % 256).unwrap()]));
        }
        gathering.add(large.clone());
        gathering.add(Bytes::from_static(b"end"));
        let body = gathering.body(None);
        assert_eq!((body.chunks.len(), body.size), (3, 21_003));
        assert_eq!(body.chunks[1].as_ptr(), large.as_ptr());
        assert_eq!(body.sha256, hex(&Sha256::digest(body.chunks.concat())));
    }

    #[test]
    fn the_address_of_a_region() {
        assert_eq!(amazon("eu-central-1"), "https://s3.eu-central-1.amazonaws.com");
        assert_eq!(amazon("cn-north-1"), "https://s3.cn-north-1.amazonaws.com.cn");
    }
}
