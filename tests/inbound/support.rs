//! A File 360 with an inbox, endpoints for it, and senders that say what they send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use file360_operator::api::common::SecretKeyRef;
use file360_operator::api::connection::CaRef;
use file360_operator::error::{Error, Kind, Result};
use file360_operator::file360::Content;
use file360_operator::file360::connector::{Connector, Credential, Observer, Settings, Transport};
use file360_operator::inbound::body::Limits;
use file360_operator::inbound::keyring::Keyring;
use file360_operator::inbound::registry::{IngestEndpoint, Map};
use file360_operator::inbound::{self, Running};
use file360_operator::outbound::secrets::References;
use file360_operator::redacted::Redacted;
use file360_operator::routes::delivery::RouteId;
use file360_operator::telemetry::metrics::Metrics;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::file360::{Api, Fixture, http, id, start};

/// Key of the route `legal/erp`.
pub const KEY: &str = "the key of legal, 24 bytes";
/// Key of the route `sales/erp`.
pub const SALES_KEY: &str = "the key of sales, 24 bytes";
/// Largest body of the routes.
pub const MAX_SIZE: u64 = 1 << 20;

/// Secrets of all namespaces.
#[derive(Default)]
pub struct Secrets {
    values: Mutex<BTreeMap<String, Vec<(String, Redacted)>>>,
    reads: AtomicUsize,
}

impl Secrets {
    pub fn set(&self, secret: &str, keys: &[&str]) {
        let keys = keys.iter().enumerate().map(|(n, key)| (format!("key{n}"), Redacted::new(*key))).collect();
        self.values.lock().insert(secret.to_owned(), keys);
    }

    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl References for Secrets {
    async fn credential(&self, _: &SecretKeyRef, _: &str) -> Result<Redacted> {
        panic!("inbound keys are sent nowhere")
    }

    async fn keys(&self, secret: &str) -> Result<Vec<(String, Redacted)>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let known = self.values.lock().get(secret).cloned();
        known.ok_or_else(|| Error::new(Kind::Reference, format!("Secret {secret} is not there")))
    }

    async fn authorities(&self, _: &CaRef) -> Result<Vec<u8>> {
        panic!("inbound keys are sent nowhere")
    }

    async fn client_certificate(&self, _: &str, _: &str) -> Result<Redacted> {
        panic!("inbound keys are sent nowhere")
    }

    fn refused(&self) {}
}

struct Deaf;

impl Observer for Deaf {
    fn call_ended(&self, _: &'static str, _: &'static str, _: Duration) {}
}

/// What a test may change.
pub struct Options {
    pub limits: Limits,
    pub max_size: u64,
    /// How often Secrets are read.
    pub every: Duration,
    pub tls: Option<inbound::transport::CertificateFiles>,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), max_size: MAX_SIZE, every: Duration::from_hours(1), tls: None }
    }
}

/// A tenant with a workspace, and three routes: `legal/erp` and `legal/crm` with one Secret and an inbox each, `sales/erp` with another.
pub struct World {
    pub file360: Fixture,
    pub api: Api,
    pub secrets: Arc<Secrets>,
    pub endpoints: Arc<Map>,
    pub metrics: Arc<Metrics>,
    pub url: String,
    pub address: std::net::SocketAddr,
    pub stop: CancellationToken,
    pub running: Option<Running>,
    pub inbox: Value,
    pub other_inbox: Value,
}

pub async fn world() -> World {
    world_with(Options::default()).await
}

pub async fn world_with(options: Options) -> World {
    let file360 = start().await;
    let api = file360.operator().await;
    let workspace = api.workspace("inbound").await;
    let (inbox, other_inbox) = (api.folder(&workspace, "/Inbox").await, api.folder(&workspace, "/Other").await);
    let secrets = Arc::new(Secrets::default());
    secrets.set("legal-key", &[KEY]);
    secrets.set("sales-key", &[SALES_KEY]);
    let endpoints = Arc::new(Map::default());
    let content = connector(&file360);
    for (namespace, path, secret, folder) in [
        ("legal", "erp", "legal-key", &inbox),
        ("legal", "crm", "legal-key", &other_inbox),
        ("sales", "erp", "sales-key", &other_inbox),
    ] {
        let keys = Keyring::open(secrets.clone(), secret, options.every).await;
        let endpoint =
            IngestEndpoint::new(route(namespace, path), path, keys, content.clone(), id(folder), options.max_size);
        endpoints.open(endpoint).unwrap();
    }
    endpoints.all_known();
    let (metrics, stop) = (Arc::new(Metrics::default()), CancellationToken::new());
    let running = serve(&endpoints, &metrics, &stop, options.limits, options.tls.clone()).await;
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let (url, address) = (format!("{scheme}://localhost:{}", running.address.port()), running.address);
    World { file360, api, secrets, endpoints, metrics, url, address, stop, running: Some(running), inbox, other_inbox }
}

pub fn route(namespace: &str, name: &str) -> Arc<RouteId> {
    Arc::new(RouteId {
        cluster: "c1".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{namespace}-{name}"),
    })
}

/// The operator's way to File 360.
pub fn connector(file360: &Fixture) -> Arc<dyn Content> {
    let settings = Settings {
        endpoint: file360.server.url.parse().unwrap(),
        credential: Credential::OAuth2 {
            client_id: Redacted::new("operator"),
            client_secret: Redacted::new("operator-secret"),
            token_url: format!("{}/oauth2/token", file360.server.url).parse().unwrap(),
            scopes: Vec::new(),
        },
        http: http(),
        requests_per_second: None,
        concurrency: Some(256),
        stop_writes: CancellationToken::new(),
        observer: Arc::new(Deaf),
    };
    Arc::new(Connector::new(Arc::new(Transport::new(settings))))
}

/// One replica.
pub async fn serve(
    endpoints: &Arc<Map>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
    limits: Limits,
    tls: Option<inbound::transport::CertificateFiles>,
) -> Running {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = inbound::Settings { address: ([127, 0, 0, 1], 0).into(), tls, public_url: None, limits };
    inbound::start(settings, endpoints.clone(), metrics.clone(), stop.clone()).await.unwrap()
}

impl World {
    /// A file for `/ingest/legal/erp`, signed as it should be.
    pub fn push(&self, body: impl Into<Vec<u8>>) -> Push {
        Push::new(&self.url, body)
    }

    /// Names of the files in the inbox, and their content.
    pub async fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.files_in(&self.inbox).await
    }

    pub async fn files_in(&self, folder: &Value) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for item in self.api.all(&format!("/v1/items/{}/children", id(folder))).await {
            let content = self.api.get(&format!("/v1/items/{}/content", id(&item))).send().await;
            assert_eq!(content.status, 200);
            files.insert(item["name"].as_str().unwrap().to_owned(), content.bytes);
        }
        files
    }

    /// How many requests ended so.
    pub fn ended(&self, outcome: &str) -> u64 {
        let start = format!("file360_inbound_requests_total{{endpoint=\"ingest\",outcome=\"{outcome}\"}} ");
        let text = self.metrics.text();
        text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or_default()
    }
}

/// Waits until something holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// `v1,` and the signature, made without the operator's code.
pub fn signature(key: &str, id: &str, timestamp: i64, payload: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(format!("{id}.{timestamp}.{payload}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn repr_digest(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes)))
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

static IDS: AtomicUsize = AtomicUsize::new(0);

/// A request that is being put together.
#[derive(Clone)]
pub struct Push {
    pub url: String,
    pub path: String,
    pub query: String,
    pub method: Method,
    pub id: String,
    pub key: String,
    pub at: i64,
    pub body: Vec<u8>,
    /// Whose digest is stated and signed, if not the body's.
    pub digest_of: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub without: Vec<&'static str>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
    pub body: Value,
}

impl Push {
    pub fn new(url: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            url: url.to_owned(),
            path: "/ingest/legal/erp".to_owned(),
            query: String::new(),
            method: Method::POST,
            id: format!("msg_{}", IDS.fetch_add(1, Ordering::Relaxed)),
            key: KEY.to_owned(),
            at: now(),
            body: body.into(),
            digest_of: None,
            headers: Vec::new(),
            without: Vec::new(),
        }
    }

    pub fn to(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub fn id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    pub fn signed_by(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    pub fn at(mut self, timestamp: i64) -> Self {
        self.at = timestamp;
        self
    }

    pub fn named(self, name: &str) -> Self {
        let value = format!(
            "attachment; filename*=UTF-8''{}",
            percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC)
        );
        self.header("content-disposition", &value)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn query(mut self, query: &str) -> Self {
        self.query = format!("?{query}");
        self
    }

    pub fn claiming(mut self, bytes: &[u8]) -> Self {
        self.digest_of = Some(bytes.to_vec());
        self
    }

    pub fn without(mut self, header: &'static str) -> Self {
        self.without.push(header);
        self
    }

    /// Every header of the request but those of the connection.
    pub fn headers(&self) -> Vec<(String, String)> {
        let digested = self.digest_of.as_ref().unwrap_or(&self.body);
        let mut headers = vec![
            ("webhook-id".to_owned(), self.id.clone()),
            ("webhook-timestamp".to_owned(), self.at.to_string()),
            ("webhook-signature".to_owned(), signature(&self.key, &self.id, self.at, &sha256(digested))),
            ("repr-digest".to_owned(), repr_digest(digested)),
        ];
        headers.retain(|(name, _)| !self.without.contains(&name.as_str()));
        headers.extend(self.headers.iter().cloned());
        headers
    }

    pub fn request(&self, client: &reqwest::Client, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let mut request = client.request(self.method.clone(), format!("{}{}{}", self.url, self.path, self.query)).body(body);
        for (name, value) in self.headers() {
            request = request.header(name, reqwest::header::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request
    }

    pub async fn send(&self) -> Reply {
        self.send_with(&http()).await
    }

    pub async fn send_with(&self, client: &reqwest::Client) -> Reply {
        Reply::of(self.request(client, self.body.clone()).send().await.unwrap()).await
    }

    /// The head of the request as it goes over the wire, with these headers about the body.
    pub fn head(&self, about_the_body: &str) -> String {
        let headers: String = self.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!(
            "{} {}{} HTTP/1.1\r\nhost: localhost\r\n{headers}{about_the_body}\r\n\r\n",
            self.method, self.path, self.query
        )
    }
}

impl Reply {
    pub async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.unwrap().to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { status, headers, bytes, body }
    }

    /// Asserts that the file is committed.
    #[track_caller]
    pub fn committed(self) -> Value {
        assert_eq!(self.status, 201, "{}", self.body);
        assert!(
            self.body["id"].is_string() && self.body["version"].is_u64() && self.body["sha256"].is_string(),
            "{}",
            self.body
        );
        self.body
    }

    /// Asserts a problem with this status and code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        self.body
    }
}
