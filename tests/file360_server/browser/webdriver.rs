//! As much of a WebDriver client as these tests need (W3C WebDriver over HTTP), and the driver as a process.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::counterparts::free_port;
use crate::support::http;

/// The tab key.
pub const TAB: char = '\u{e004}';
/// The enter key.
pub const ENTER: char = '\u{e007}';

/// How long anything may take on a busy machine before it counts as "never".
const PATIENCE: Duration = Duration::from_mins(1);
/// Name of an element in answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A headless Chromium with a session.
pub struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
    /// What it downloads goes here; files to upload can be put there, too.
    pub downloads: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browsers when it is asked to end.
        let _ = Command::new("kill").arg(self.driver.id().to_string()).status();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// Starts one.
    pub async fn start() -> Self {
        let downloads = tempfile::tempdir().unwrap();
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("chromedriver does not start ({error}): run tests/tools.sh, or install the packages chromium and chromium-driver")
            });
        let mut browser = Self { driver, session: format!("http://127.0.0.1:{port}/session"), http: http(), downloads };
        browser.begin(port).await;
        browser
    }

    async fn begin(&mut self, port: u16) {
        let status = format!("http://127.0.0.1:{port}/status");
        let start = Instant::now();
        while self.http.get(&status).send().await.is_err() {
            assert!(start.elapsed() < PATIENCE, "chromedriver does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let profile = self.downloads.path().join("profile");
        let files = self.downloads.path().display().to_string();
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
                     "--disable-background-networking", format!("--user-data-dir={}", profile.display())],
            "prefs": {"download.default_directory": files, "download.prompt_for_download": false},
        });
        let wanted =
            json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let made = self.call("POST", "", json!({"capabilities": {"alwaysMatch": wanted}})).await;
        let id = made["sessionId"].as_str().unwrap_or_else(|| panic!("Chromium does not start: {made}"));
        self.session = format!("{}/{id}", self.session);
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.session));
        if method == reqwest::Method::POST {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.timeout(PATIENCE).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["value"]["error"].is_null(), "{method} {path}: {}", answer["value"]["message"]);
        answer["value"].clone()
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) {
        self.call("POST", "/url", json!({"url": url})).await;
    }

    /// The size of what is seen of a page.
    pub async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.call("POST", "/goog/cdp/execute", command).await;
    }

    /// Sends no more than so many bytes a second.
    pub async fn slow_down(&self, bytes: u64) {
        self.call("POST", "/goog/cdp/execute", json!({"cmd": "Network.enable", "params": {}})).await;
        let conditions = json!({"offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes});
        let command = json!({"cmd": "Network.emulateNetworkConditions", "params": conditions});
        self.call("POST", "/goog/cdp/execute", command).await;
    }

    /// Runs a script in the page and returns what it returns.
    pub async fn run(&self, script: &str, arguments: Value) -> Value {
        self.call("POST", "/execute/sync", json!({"script": script, "args": arguments})).await
    }

    /// Waits until a script returns true.
    pub async fn until(&self, what: &str, script: &str) {
        let start = Instant::now();
        while self.run(script, json!([])).await != json!(true) {
            let text = self.run("return document.body.innerText", json!([])).await;
            assert!(start.elapsed() < PATIENCE, "{what} never came: {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Presses keys, one after the other.
    pub async fn press(&self, keys: &[char]) {
        let strokes: Vec<Value> = keys
            .iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})))
            .collect();
        self.call("POST", "/actions", json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]})).await;
    }

    /// Types a text where the focus is.
    pub async fn type_text(&self, text: &str) {
        self.press(&text.chars().collect::<Vec<_>>()).await;
    }

    /// Where the focus is: the id, else the element's name.
    pub async fn focus(&self) -> String {
        let script = "return document.activeElement.id || document.activeElement.tagName";
        self.run(script, json!([])).await.as_str().unwrap_or_default().to_owned()
    }

    /// Chooses a file in an input: the one thing that a keyboard does in a window of the system.
    pub async fn choose(&self, id: &str, file: &Path) {
        let found = self.call("POST", "/element", json!({"using": "css selector", "value": format!("#{id}")})).await;
        let element = found[ELEMENT].as_str().unwrap().to_owned();
        self.call("POST", &format!("/element/{element}/value"), json!({"text": file.display().to_string()})).await;
    }

    /// What the browser complained about since the last look. That the server refused something is no complaint about a page.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.call("POST", "/se/log", json!({"type": "browser"})).await;
        let messages = log.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned());
        // What it merely suggests, it marks so.
        let passed_over = ["the server responded with a status of", " - [DOM] "];
        messages.filter(|message| !passed_over.iter().any(|text| message.contains(text))).collect()
    }

    /// A picture of what is seen, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let picture = self.call("GET", "/screenshot", json!({})).await;
        base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }
}

/// Looks again until there is something.
pub async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what} never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
