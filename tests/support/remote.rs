//! The File 360 end, as people's own client sees it: plain HTTP, none of the product's code.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{OPERATOR, eventually, free_port};

/// Client of the operator.
pub const CLIENT_ID: &str = "operator";
/// Its secret: a canary that must never show up anywhere.
pub const CLIENT_SECRET: &str = "canary-operator-secret-7f3a";

/// An embedded File 360 in a process of its own.
pub struct Remote {
    /// Its base URL.
    pub url: String,
    folder: PathBuf,
    child: Child,
    flags: Vec<String>,
    http: reqwest::Client,
    token: String,
}

impl Remote {
    /// Starts one with its data in `folder`.
    pub async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[]).await
    }

    /// The same with more flags.
    pub async fn start_with(folder: &Path, flags: &[&str]) -> Self {
        let names =
            |prefix: &str, count: usize| (0..count).map(|n| json!({"name": format!("{prefix}{n}")})).collect::<Vec<_>>();
        let seed = json!({
            "clients": [
                {"id": CLIENT_ID, "secret": CLIENT_SECRET, "scopes": ["read", "write", "share", "govern", "audit"]},
                {"id": "second", "secret": "canary-second-secret-91bc", "scopes": ["read", "write", "share", "govern", "audit"]},
                {"id": "people", "secret": "people-secret", "scopes": ["read", "write", "share", "govern", "audit", "admin"]},
            ],
            "users": names("user", 12),
            "groups": names("group", 12),
        });
        std::fs::write(folder.join("seed.json"), seed.to_string()).expect("the seed is written");
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let port = free_port();
        super::install_crypto();
        let child = spawn(folder, port, &flags);
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut remote = Self {
            url: format!("http://127.0.0.1:{port}"),
            folder: folder.to_owned(),
            child,
            flags,
            http,
            token: String::new(),
        };
        remote.come_up().await;
        remote
    }

    async fn come_up(&mut self) {
        let url = format!("{}/oauth2/token", self.url);
        self.token = eventually("the embedded File 360", || async {
            let form = [("grant_type", "client_credentials"), ("client_id", "people"), ("client_secret", "people-secret")];
            let answer = self.http.post(&url).form(&form).send().await.map_err(|error| error.to_string())?;
            let body: Value = answer.json().await.map_err(|error| error.to_string())?;
            body["access_token"].as_str().map(str::to_owned).ok_or_else(|| body.to_string())
        })
        .await;
    }

    /// Kills it (-9).
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Starts it again on the same port with the same data.
    pub async fn restart(&mut self) {
        let port = self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        self.child = spawn(&self.folder, port, &self.flags);
        self.come_up().await;
    }

    /// One call; the status and the JSON body.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.url)).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if method == reqwest::Method::POST {
            request = request.header("idempotency-key", format!("{:x}", rand::random::<u128>()));
        }
        if let Some(body) = body {
            let kind = if method == reqwest::Method::PATCH { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", kind).body(body.to_string());
        }
        let answer = request.send().await.expect("File 360 answers");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A GET that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, &[], None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// A mutating call that must succeed.
    pub async fn change(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, &[("if-match", "*")], Some(body)).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Id of a principal.
    pub async fn principal(&self, kind: &str, name: &str) -> String {
        let page = self.get(&format!("/v1/principals?kind={kind}&name={name}")).await;
        page["items"][0]["id"].as_str().unwrap_or_else(|| panic!("no {kind} {name}: {page}")).to_owned()
    }

    /// Uploads a file into a folder; its id.
    pub async fn upload(&self, workspace: &str, folder: &str, name: &str, content: &[u8]) -> String {
        let folder = self.get(&format!("/v1/workspaces/{workspace}/resolve?path={folder}")).await;
        let url = format!("{}/v1/items/{}/files?name={name}", self.url, folder["id"].as_str().expect("an id"));
        let request = self.http.post(url).bearer_auth(&self.token).header("content-type", "text/plain");
        let key = format!("{:x}", rand::random::<u128>());
        let answer = request.header("idempotency-key", key).body(content.to_vec()).send().await.expect("File 360 answers");
        let body: Value = answer.json().await.expect("JSON");
        body["id"].as_str().unwrap_or_else(|| panic!("the upload is refused: {body}")).to_owned()
    }

    /// Sends content, whatever is there; the item.
    pub async fn send_file(&self, method: &str, url: &str, mime: &str, content: Vec<u8>) -> Value {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method.clone(), url).bearer_auth(&self.token).header("content-type", mime);
        request = match method {
            reqwest::Method::POST => request.header("idempotency-key", format!("{:x}", rand::random::<u128>())),
            _ => request.header("if-match", "*"),
        };
        let answer = request.body(content).send().await.expect("File 360 answers");
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        assert!(status.is_success(), "{url}: {status} {body}");
        body
    }

    /// Every entry of a listing.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let glue = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{glue}limit=1000{cursor}")).await;
            all.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// Everything that a manifest can say something about, of every workspace, without what differs from run to run.
    pub async fn state(&self) -> Value {
        let mut workspaces = Vec::new();
        for row in self.all("/v1/workspaces").await {
            let id = row["id"].as_str().expect("an id");
            workspaces.push(self.workspace_state(id).await);
        }
        workspaces.sort_by_key(|workspace| workspace["key"].to_string());
        Value::Array(workspaces)
    }

    /// The same of one workspace.
    pub async fn workspace_state(&self, id: &str) -> Value {
        let mut workspace = self.get(&format!("/v1/workspaces/{id}")).await;
        let is_trashed = workspace["state"] == "Trashed";
        let mut parts = json!({});
        if !is_trashed {
            for part in ["folders", "members", "upload-requests", "links"] {
                let mut entries = self.all(&format!("/v1/workspaces/{id}/{part}")).await;
                entries.iter_mut().for_each(|entry| strip(entry, &["id", "principalId", "etag", "url", "itemId"]));
                entries.sort_by_key(ToString::to_string);
                parts[part] = Value::Array(entries);
            }
        }
        strip(&mut workspace, &["id", "rootId", "etag", "url", "revision", "contentRevision", "purgeAt"]);
        if let Some(owner) = workspace.get_mut("owner") {
            strip(owner, &["uid"]);
        }
        workspace["parts"] = parts;
        workspace
    }

    /// Calls by operation since the start, from the switchboard.
    pub async fn calls(&self) -> Value {
        self.get("/test/faults").await
    }

    /// Sets the fault switchboard.
    pub async fn faults(&self, faults: Value) {
        let (status, body) = self.call("PUT", "/test/faults", &[], Some(faults)).await;
        assert!((200..300).contains(&status), "PUT /test/faults: {status} {body}");
    }
}

/// A process that ends with this value.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An embedded File 360 that serves HTTPS with a certificate; its URL.
pub async fn start_tls(folder: &Path, flags: &[&str], certificate: &[u8]) -> (Running, String) {
    let seed = json!({"clients": [{"id": CLIENT_ID, "secret": CLIENT_SECRET, "scopes": ["read", "write", "share", "govern", "audit"]}]});
    std::fs::write(folder.join("seed.json"), seed.to_string()).expect("the seed is written");
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let port = free_port();
    let running = Running(spawn(folder, port, &flags));
    let url = format!("https://127.0.0.1:{port}");
    let certificate = reqwest::Certificate::from_pem(certificate).expect("a certificate");
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().expect("a client");
    eventually("the embedded File 360 over TLS", || async {
        http.get(format!("{url}/healthz")).send().await.map(|_| ()).map_err(|error| format!("{error:?}"))
    })
    .await;
    (running, url)
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn strip(value: &mut Value, names: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|name, _| !names.contains(&name.as_str()));
    }
}

fn spawn(folder: &Path, port: u16, flags: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("serve.log")).expect("a log");
    Command::new(OPERATOR)
        .args(["serve", "--test-faults", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
        .arg(folder.join("data"))
        .arg("--seed")
        .arg(folder.join("seed.json"))
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the embedded File 360 starts")
}
