//! A server in this process, and a client that says what it sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use file360_operator::server::seed::Seed;
use file360_operator::server::{RunningServer, Server, ServerConfig};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Clients, users and groups that every test finds.
pub const SEED: &str = "
clients:
- {id: operator, secret: operator-secret, scopes: [read, write, share, govern, audit]}
- {id: neighbour, secret: neighbour-secret, scopes: [read, write, share]}
- {id: reader, secret: reader-secret, scopes: [read]}
- {id: admin, secret: admin-secret, scopes: [read, write, share, govern, audit, admin]}
users:
- {name: ada, displayName: Ada L., email: ada@corp.example}
- {name: bob}
- {name: eve}
groups:
- {name: legal, members: [ada, bob]}
";

/// A running server and its data.
pub struct Fixture {
    pub server: RunningServer,
    pub folder: tempfile::TempDir,
}

/// Starts a server with the usual seed and the fault switchboard.
pub async fn start() -> Fixture {
    start_with(|_| ()).await
}

/// Starts a server after a change to its settings.
pub async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let seed: Seed = serde_saphyr::from_str(SEED).unwrap();
    let mut config = ServerConfig { seed, test_faults: true, ..ServerConfig::new(folder.path()) };
    change(&mut config);
    Fixture { server: Server::start(config).await.unwrap(), folder }
}

impl Fixture {
    /// A client with a token of its own.
    pub async fn client(&self, id: &str) -> Api {
        Api::sign_in(&self.server.url, id).await
    }

    /// The operator's client.
    pub async fn operator(&self) -> Api {
        self.client("operator").await
    }

    /// A client that acts for a user.
    pub async fn person(&self, name: &str) -> Api {
        let admin = self.client("admin").await;
        let id = admin.principal("User", name).await;
        Api { on_behalf_of: Some(id), ..admin }
    }
}

pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A client with a token.
#[derive(Clone)]
pub struct Api {
    pub url: String,
    pub token: String,
    pub on_behalf_of: Option<String>,
    pub http: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
    pub body: Value,
}

/// A request that is being put together.
pub struct Ask {
    request: reqwest::RequestBuilder,
}

static KEYS: AtomicU64 = AtomicU64::new(0);

impl Api {
    pub async fn sign_in(url: &str, id: &str) -> Self {
        let http = http();
        let form = [("grant_type", "client_credentials")];
        let answer = http
            .post(format!("{url}/oauth2/token"))
            .basic_auth(id, Some(format!("{id}-secret")))
            .form(&form)
            .send()
            .await
            .unwrap();
        let body: Value = answer.json().await.unwrap();
        let token = body["access_token"].as_str().unwrap().to_owned();
        Self { url: url.to_owned(), token, on_behalf_of: None, http }
    }

    pub fn ask(&self, method: Method, path: &str) -> Ask {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some(person) = &self.on_behalf_of {
            request = request.header("on-behalf-of", person);
        }
        Ask { request }
    }

    pub fn get(&self, path: &str) -> Ask {
        self.ask(Method::GET, path)
    }

    pub fn put(&self, path: &str, body: Value) -> Ask {
        self.ask(Method::PUT, path).json(&body)
    }

    pub fn delete(&self, path: &str) -> Ask {
        self.ask(Method::DELETE, path)
    }

    pub fn patch(&self, path: &str, body: Value) -> Ask {
        let ask = self.ask(Method::PATCH, path);
        Ask { request: ask.request.header("content-type", "application/merge-patch+json").body(body.to_string()) }
    }

    /// A POST with a fresh idempotency key.
    pub fn post(&self, path: &str, body: Value) -> Ask {
        let key = format!("key-{}", KEYS.fetch_add(1, Ordering::Relaxed));
        self.ask(Method::POST, path).json(&body).header("idempotency-key", &key)
    }

    /// A call whose body is not JSON; a POST gets a fresh idempotency key.
    pub fn raw(&self, method: Method, path: &str, mime: &str, body: &'static str) -> Ask {
        let key = format!("key-{}", KEYS.fetch_add(1, Ordering::Relaxed));
        self.ask(method, path).bytes(body).header("content-type", mime).header("idempotency-key", &key)
    }

    /// A new file in a folder.
    pub async fn upload(&self, folder: &Value, name: &str, content: &'static str) -> Reply {
        let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        self.raw(Method::POST, &format!("/v1/items/{}/files?name={name}", id(folder)), "text/plain", content).send().await
    }

    /// A new workspace under a key of system `test`.
    pub async fn workspace(&self, key: &str) -> Value {
        self.workspace_with(key, json!({"displayName": format!("Workspace {key}")})).await
    }

    pub async fn workspace_with(&self, key: &str, body: Value) -> Value {
        let reply = self.put(&format!("/v1/workspaces/by-key/test/{key}"), body).header("if-none-match", "*").send().await;
        reply.expect(201)
    }

    pub async fn folder(&self, workspace: &Value, path: &str) -> Value {
        let path_of = format!("/v1/workspaces/{}/folders", id(workspace));
        self.post(&path_of, json!({"path": path})).send().await.expect(201)
    }

    pub async fn principal(&self, kind: &str, name: &str) -> String {
        let page = self.get(&format!("/v1/principals?kind={kind}&name={name}")).send().await.expect(200);
        page["items"][0]["id"].as_str().unwrap_or_else(|| panic!("no {kind} {name}")).to_owned()
    }

    pub async fn guest(&self, email: &str) -> String {
        let reply = self.ask(Method::PUT, &format!("/v1/guests/{email}")).send().await;
        assert!(reply.status.is_success(), "{reply:?}");
        id(&reply.body).to_owned()
    }

    pub async fn member(&self, workspace: &Value, principal: &str, role: &str) -> Reply {
        self.put(&format!("/v1/workspaces/{}/members/{principal}", id(workspace)), json!({"role": role})).send().await
    }

    /// The workspace as it is now.
    pub async fn read(&self, workspace: &Value) -> Value {
        self.get(&format!("/v1/workspaces/{}", id(workspace))).send().await.expect(200)
    }

    pub async fn revision(&self, workspace: &Value) -> u64 {
        self.read(workspace).await["revision"].as_u64().unwrap()
    }

    /// Every entry of the feed from `cursor` on, and the cursor after it.
    pub async fn changes(&self, cursor: &str) -> (Vec<Value>, String) {
        let (mut entries, mut cursor) = (Vec::new(), cursor.to_owned());
        loop {
            let page = self.get(&format!("/v1/changes?cursor={cursor}&limit=1000")).send().await.expect(200);
            entries.extend(page["items"].as_array().unwrap().iter().cloned());
            page["nextCursor"].as_str().unwrap().clone_into(&mut cursor);
            if page["hasMore"] == false {
                return (entries, cursor);
            }
        }
    }

    /// Every item of a listing.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let after = if cursor.is_empty() { String::new() } else { format!("{separator}cursor={cursor}") };
            let page = self.get(&format!("{path}{after}")).send().await.expect(200);
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => return items,
            }
        }
    }

    /// Sets the fault switchboard.
    pub async fn faults(&self, switches: Value) {
        self.put("/test/faults", switches).send().await.expect(200);
    }
}

impl Ask {
    pub fn json(self, body: &Value) -> Self {
        Self { request: self.request.json(body) }
    }

    pub fn bytes(self, body: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.body(body) }
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value) }
    }

    /// With `If-Match` on the object's entity tag.
    pub fn matching(self, object: &Value) -> Self {
        let etag = object["etag"].as_str().unwrap();
        self.header("if-match", etag)
    }

    pub async fn try_send(self) -> reqwest::Result<Reply> {
        let response = self.request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?.to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Reply { status, headers, bytes, body })
    }

    pub async fn send(self) -> Reply {
        self.try_send().await.unwrap()
    }
}

impl Reply {
    /// The body, if the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{} {}", self.body, String::from_utf8_lossy(&self.bytes));
        self.body
    }

    /// Asserts a refusal with this status and code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        self.body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn revision(&self) -> u64 {
        self.header("workspace-revision").and_then(|text| text.parse().ok()).expect("the answer carries Workspace-Revision")
    }
}

/// The id of an object.
#[track_caller]
pub fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap_or_else(|| panic!("no id in {object}"))
}

/// An ownership mark.
pub fn owner(uid: &str) -> Value {
    json!({"clusterId": "c1", "namespace": "team", "name": "acme", "uid": uid, "state": "Active"})
}

/// Runs `work` `times` times at once.
pub async fn at_once<T, F, W>(times: usize, work: W) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
    W: Fn(usize) -> F + Send + Sync + 'static,
{
    let work = Arc::new(work);
    let tasks: Vec<_> = (0..times).map(|n| tokio::spawn(work(n))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
