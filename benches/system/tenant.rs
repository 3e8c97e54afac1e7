//! The embedded File 360 as a process of its own, and the benchmark's own ways to talk to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::support::free_port;

/// The operator's client there.
pub const CLIENT_ID: &str = "operator";
/// Its secret.
pub const CLIENT_SECRET: &str = "operator-secret";
/// Users and groups, each.
pub const PRINCIPALS: usize = 12;
/// Tokens last 15 minutes; a run may last longer.
const TOKEN_AGE: Duration = Duration::from_mins(5);

/// One empty tenant.
pub struct Tenant {
    /// Its base URL.
    pub url: String,
    program: PathBuf,
    port: u16,
    child: parking_lot::Mutex<Child>,
    http: reqwest::Client,
    token: Mutex<Option<(String, Instant)>>,
    folder: TempDir,
}

impl Tenant {
    /// Starts one with its data below `folder`, which must be on a real disk: every call is durable.
    pub async fn start(operator: &Path, folder: &Path) -> Self {
        let folder = tempfile::tempdir_in(folder).expect("a folder");
        let port = free_port();
        seed(folder.path());
        let child = parking_lot::Mutex::new(spawn(operator, folder.path(), port));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (url, program) = (format!("http://127.0.0.1:{port}"), operator.to_owned());
        let tenant = Self { url, program, port, child, http, token: Mutex::default(), folder };
        tenant.come_up().await;
        tenant
    }

    async fn come_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.http.get(format!("{}/healthz", self.url)).send().await.is_err() {
            assert!(Instant::now() < deadline, "the embedded File 360 does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().id()
    }

    /// Kills it (-9); its data stay.
    pub fn kill(&self) {
        let mut child = self.child.lock();
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Starts it again after [`kill`](Self::kill), at the same address with the same data. Tokens from before are void.
    pub async fn restart(&self) {
        *self.child.lock() = spawn(&self.program, self.folder.path(), self.port);
        *self.token.lock().await = None;
        self.come_up().await;
    }

    /// Bytes of its database.
    pub fn database_bytes(&self) -> u64 {
        let files = std::fs::read_dir(self.folder.path().join("data")).expect("its data");
        let files = files.filter_map(Result::ok).filter(|file| file.file_name().to_string_lossy().contains(".db"));
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    }

    /// A token of the client `people`, who may do everything.
    pub async fn token(&self) -> String {
        let mut token = self.token.lock().await;
        if let Some((text, since)) = token.as_ref()
            && since.elapsed() < TOKEN_AGE
        {
            return text.clone();
        }
        let form = [("grant_type", "client_credentials"), ("client_id", "people"), ("client_secret", "people-secret")];
        let answer = self.http.post(format!("{}/oauth2/token", self.url)).form(&form).send().await.expect("a token");
        let body: Value = answer.json().await.expect("a token");
        let text = body["access_token"].as_str().expect("a token").to_owned();
        *token = Some((text.clone(), Instant::now()));
        text
    }

    /// One call with the headers given; the JSON body of the answer, which must be a success.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Value {
        let url = format!("{}{path}", self.url);
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, url).bearer_auth(self.token().await);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.expect("File 360 answers");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, &[], None).await
    }

    /// Id of a principal.
    pub async fn principal(&self, kind: &str, name: &str) -> String {
        let page = self.get(&format!("/v1/principals?kind={kind}&name={name}")).await;
        page["items"][0]["id"].as_str().unwrap_or_else(|| panic!("no {kind} {name}: {page}")).to_owned()
    }

    /// Calls by operation since the start, as the server counted them; looking does not count.
    pub async fn calls(&self) -> BTreeMap<String, u64> {
        let switches = self.get("/test/faults").await;
        let mut calls: BTreeMap<String, u64> =
            serde_json::from_value(switches["requestCounters"].clone()).expect("counters");
        calls.retain(|operation, _| operation != "getFaults" && operation != "getHealth");
        calls
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn seed(folder: &Path) {
    let names = |prefix: &str| (0..PRINCIPALS).map(|n| json!({"name": format!("{prefix}{n}")})).collect::<Vec<_>>();
    let seed = json!({
        "clients": [
            {"id": CLIENT_ID, "secret": CLIENT_SECRET, "scopes": ["read", "write", "share", "govern", "audit"]},
            {"id": "people", "secret": "people-secret", "scopes": ["read", "write", "share", "govern", "audit", "admin"]},
        ],
        "users": names("user"),
        "groups": names("group"),
    });
    std::fs::write(folder.join("seed.json"), seed.to_string()).expect("the seed is written");
}

fn spawn(operator: &Path, folder: &Path, port: u16) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("serve.log")).expect("a log");
    // The switchboard is on for its counters; no fault is ever set.
    Command::new(operator)
        .args(["serve", "--test-faults", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
        .arg(folder.join("data"))
        .arg("--seed")
        .arg(folder.join("seed.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the embedded File 360 starts")
}

/// What was called between two counts.
pub fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let since = |(operation, count): (&String, &u64)| {
        let count = count - before.get(operation).copied().unwrap_or_default();
        (count > 0).then(|| (operation.clone(), count))
    };
    after.iter().filter_map(since).collect()
}

/// HTTP/1.1 with as little work as possible, so that a measurement of the server alone does not measure its client.
pub struct RawConnection {
    stream: TcpStream,
    token: String,
    buffer: Vec<u8>,
}

impl RawConnection {
    /// One connection with the rights of `people`.
    pub async fn open(tenant: &Tenant) -> Self {
        let address = tenant.url.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, token: tenant.token().await, buffer: vec![0; 64 * 1024] }
    }

    /// One call that must succeed; the body of the answer.
    pub async fn call(&mut self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: load\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.expect("the server reads");
        let mut filled = 0;
        let mut wanted = None;
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(2 * filled, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..]).await.expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            filled += read;
            let Some((start, length)) = wanted.or_else(|| body_of(&self.buffer[..filled])) else { continue };
            wanted = Some((start, length));
            if filled >= start + length {
                let text = |range: std::ops::Range<usize>| std::str::from_utf8(&self.buffer[range]).expect("text");
                assert!(text(0..filled).starts_with("HTTP/1.1 20"), "{method} {path}: {}", text(0..filled.min(1000)));
                return text(start..start + length).to_owned();
            }
        }
    }
}

/// Where the body of an answer starts, and its length; `None` while its head is not complete.
fn body_of(answer: &[u8]) -> Option<(usize, usize)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).expect("text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    Some((end + 4, length.unwrap_or_default()))
}
