//! What the cases need: one world with every program at the other end, and a look at all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::routes::push;
use super::{Addresses, Arrive, Case};
use crate::support::counterparts::{NatsServer, S3Server, SftpServer, files_below};
use crate::support::search::Fake;
use crate::support::world::{World, condition};
use crate::support::{eventually, free_port, kubernetes};

/// Key of the system that pushes.
const KEY: &str = "the key of the system that pushes";
/// How long everything must stay as it is before it is taken for the outcome.
const STABLE: Duration = Duration::from_millis(700);
/// An outcome of some kind comes within this time.
const LONG: Duration = Duration::from_secs(30);

/// See the module.
pub struct Bench {
    pub world: World,
    pub addresses: Addresses,
    pub recorder: Recorder,
    pub s3: S3Server,
    _nats: NatsServer,
    bus: async_nats::Client,
    sftp: SftpServer,
    search: [Fake; 2],
    folders: TempDir,
    inbound: String,
}

impl Bench {
    pub async fn start() -> Self {
        let mut world = World::without_operator(kubernetes::shared().await).await;
        let folders = tempfile::tempdir().unwrap();
        let inbound = format!("127.0.0.1:{}", free_port());
        let folder = |name: &str| format!("{name}={}", folders.path().join(name).display());
        for name in ["one", "two", "sftp-1", "sftp-2"] {
            std::fs::create_dir(folders.path().join(name)).unwrap();
        }
        let flags = ["--folder", &folder("one"), "--folder", &folder("two"), "--inbound-address", &inbound, "--public-url"];
        world.start_operator(&[&flags[..], &[&format!("http://{inbound}")]].concat()).await;
        world.connect().await;
        let (s3, nats, sftp) = (S3Server::start(), NatsServer::start(), SftpServer::start());
        let url = format!("nats://127.0.0.1:{}", nats.port);
        let bus = async_nats::connect(&url).await.unwrap();
        let config =
            async_nats::jetstream::stream::Config { name: "ALL".into(), subjects: vec!["s.>".into()], ..Default::default() };
        async_nats::jetstream::new(bus.clone()).create_stream(config).await.unwrap();
        let search = [Fake::start(), Fake::start()];
        let recorder = Recorder::start().await;
        let root = |name: &str| folders.path().join(name).display().to_string();
        let addresses = Addresses {
            http: recorder.url.clone(),
            s3: s3.endpoint.clone(),
            nats: url,
            search: [search[0].url(), search[1].url()],
            sftp_port: sftp.port,
            sftp_user: sftp.username.clone(),
            sftp_host_key: sftp.host_key.clone(),
            sftp_roots: [root("sftp-1"), root("sftp-2")],
            nobody: free_port(),
            ids: ["ID-A", "ID-B"],
        };
        let bench = Self { world, addresses, recorder, s3, _nats: nats, bus, sftp, search, folders, inbound };
        bench.secrets().await;
        let sharing = json!({"external": "Anyone", "links": {"maxAudience": "Anyone"}});
        for name in ["target", "target-2"] {
            bench.world.workspace(name, json!({"displayName": name, "sharing": sharing})).await;
        }
        bench
    }

    async fn secret(&self, name: &str, values: Value) {
        let manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values});
        kubernetes::apply(&self.world.client, &self.world.namespace, &manifest).await.unwrap();
    }

    async fn secrets(&self) {
        let secrets = [
            ("credential", json!({"good": "a-good-credential-of-24-bytes"})),
            ("s3", json!({"id": S3Server::KEY_ID, "secret": S3Server::SECRET})),
            ("sftp", json!({"key": self.sftp.private_key})),
        ];
        for (name, values) in secrets {
            self.secret(name, values).await;
        }
    }

    /// Two workspaces for a case, and a place in each folder.
    pub async fn prepare(&self, name: &str) {
        for (suffix, team) in [("", "a"), ("b", "b")] {
            let workspace = format!("{name}{suffix}");
            let sharing = json!({"external": "Anyone", "links": {"maxAudience": "Anyone"}});
            let spec = json!({"displayName": "W", "folders": [{"path": "/Inbox"}, {"path": "/Other"}], "sharing": sharing});
            let mut manifest = json!({"apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace",
                "metadata": {"name": workspace, "labels": {"case": name, "team": team}}, "spec": spec});
            manifest["spec"]["connectionRef"] = json!({"name": "file360"});
            kubernetes::apply(&self.world.client, &self.world.namespace, &manifest).await.unwrap();
        }
        for suffix in ["", "b"] {
            self.world.condition("SecureWorkspace", &format!("{name}{suffix}"), "Ready", "True").await;
        }
        // An id of a push counts once for each Secret.
        self.secret(&format!("sender-{name}"), json!({"key": KEY})).await;
        for folder in ["one", "two"] {
            std::fs::create_dir_all(self.folder(folder, name)).unwrap();
        }
    }

    fn folder(&self, folder: &str, name: &str) -> std::path::PathBuf {
        self.folders.path().join(folder).join(&self.world.namespace).join(name)
    }

    /// Replaces the spec of a route, whoever owned which field.
    pub async fn put(&self, name: &str, spec: Value) {
        let mut text = spec.to_string().replace("CASE", name);
        if text.contains(self.addresses.ids[0]) {
            text = text.replace(self.addresses.ids[0], &self.world.workspace_id(name).await);
            text = text.replace(self.addresses.ids[1], &self.world.workspace_id(&format!("{name}b")).await);
        }
        let spec: Value = serde_json::from_str(&text).unwrap();
        let api = self.world.api("FileRoute");
        if api.get_opt(name).await.unwrap().is_some() {
            let replace = json!([{"op": "replace", "path": "/spec", "value": spec}]);
            let patch = Patch::Json::<()>(serde_json::from_value(replace).unwrap());
            api.patch(name, &PatchParams::default(), &patch).await.unwrap_or_else(|error| panic!("{name} {spec}: {error}"));
        } else {
            let manifest =
                json!({"apiVersion": "file360.io/v1alpha1", "kind": "FileRoute", "metadata": {"name": name}, "spec": spec});
            let object = serde_json::from_value(manifest).unwrap();
            api.create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{name} {spec}: {error}"));
        }
    }

    /// Something happens at the source of a case; `step` is the file's name.
    pub async fn arrive(&self, name: &str, arrive: Arrive, step: &str) -> u16 {
        let file = format!("{step}.txt");
        match arrive {
            Arrive::Objects => {
                let folder = self.folder("one", name);
                for part in ["a", "b"] {
                    std::fs::create_dir_all(folder.join(part)).unwrap();
                    let write = |name: &str, text: &str| std::fs::write(folder.join(part).join(name), text).unwrap();
                    write(&format!("{file}.json"), r#"{"from": "json"}"#);
                    write(&format!("{step}.meta"), r#"{"from": "meta"}"#);
                    write(&file, "content");
                }
                0
            }
            Arrive::Push => self.push(name, step).await,
            _ => {
                if arrive == Arrive::Taken {
                    let target = self.world.workspace_id("target").await;
                    for path in [format!("/{name}"), format!("/{name}/{file}")] {
                        let folder = json!({"path": path, "onConflict": "return"});
                        self.world.remote.change("POST", &format!("/v1/workspaces/{target}/folders"), folder).await;
                    }
                    self.world.remote.upload(&target, &format!("/{name}/{file}"), "same.txt", b"other").await;
                }
                for workspace in [name.to_owned(), format!("{name}b")] {
                    let id = self.world.workspace_id(&workspace).await;
                    for folder in ["/Inbox", "/Other"] {
                        let item = self.world.remote.upload(&id, folder, &file, b"content").await;
                        if arrive == Arrive::Label {
                            // Something that no request shows: the route may look at the upload only after it.
                            let label = json!({"classification": "Internal"});
                            self.world.remote.change("PATCH", &format!("/v1/items/{item}"), label).await;
                        }
                    }
                }
                0
            }
        }
    }

    /// How often the endpoint of a route was opened, as the log says.
    fn opened(&self, name: &str) -> usize {
        let object = format!("{}/{name}", self.world.namespace);
        let is_it = |line: &&str| {
            let rest = line.split_once(&object).map(|(_, rest)| rest);
            line.contains("The ingest endpoint is open") && rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        };
        self.world.log().lines().filter(is_it).count()
    }

    /// Pushes until there is an answer about the file.
    async fn push(&self, name: &str, step: &str) -> u16 {
        let url = format!("http://{}/ingest/{}/{name}-a", self.inbound, self.world.namespace);
        let started = Instant::now();
        loop {
            let status = push(&url, KEY, step, &[b'x'; 2_000]).await;
            if matches!(status, 201 | 413) || started.elapsed() > Duration::from_secs(4) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Deletes the uploaded file once its document is there.
    async fn delete_once_indexed(&self, name: &str, step: &str) {
        let index = |search: &Fake| search.documents(name).values().any(|found| found["name"] == format!("{step}.txt"));
        eventually("the document", || async {
            if self.search.iter().any(index) { Ok(()) } else { Err("it is not there".to_owned()) }
        })
        .await;
        let id = self.world.workspace_id(name).await;
        let item = self.world.remote.get(&format!("/v1/workspaces/{id}/resolve?path=/Inbox/{step}.txt")).await;
        let path = format!("/v1/items/{}", item["id"].as_str().unwrap());
        let (status, answer) = self.world.remote.call("DELETE", &path, &[("if-match", "*")], None).await;
        assert!((200..300).contains(&status), "{answer}");
    }

    /// Applies a spec, lets a file arrive, waits for an outcome, and looks.
    pub async fn step(&self, name: &str, case: &Case, step: &str, spec: Value) -> Value {
        let opened = self.opened(name);
        self.put(name, spec).await;
        let route = self.world.until("FileRoute", name, "an answer", |object| {
            let settled = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            settled && !matches!(condition(object, "Ready")["reason"].as_str(), None | Some("Reading"))
        });
        route.await;
        if case.arrive == Arrive::Push {
            eventually("the endpoint", || async {
                if self.opened(name) > opened { Ok(()) } else { Err("it was not opened again".to_owned()) }
            })
            .await;
        }
        let pushed = self.arrive(name, case.arrive, step).await;
        if case.arrive == Arrive::Delete {
            self.delete_once_indexed(name, step).await;
        }
        let started = Instant::now();
        let (mut last, mut since) = (Value::Null, Instant::now());
        loop {
            let mut seen = self.look(name, step).await;
            if case.arrive == Arrive::Push {
                seen["pushed"] = json!(pushed);
            }
            if seen != last {
                (last, since) = (seen, Instant::now());
            }
            let is_outcome =
                has_ended(&last) || started.elapsed() >= if case.patience.is_zero() { LONG } else { case.patience };
            if is_outcome && since.elapsed() >= STABLE {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    /// What can be seen of one file of a case.
    pub async fn look(&self, name: &str, step: &str) -> Value {
        let file = format!("{step}.txt");
        let route = self.world.get("FileRoute", name).await;
        let ready = condition(&route, "Ready");
        let letters = route["status"]["deadLetters"].as_array().into_iter().flatten();
        let dead: Vec<Value> = letters
            .filter(|letter| letter["file"].as_str().is_some_and(|path| path.ends_with(&file)))
            .map(|letter| letter["error"].clone())
            .collect();
        let id = self.world.workspace_id(name).await;
        let (mut item, mut links) = (Value::Null, Vec::new());
        for found in self.world.remote.all(&format!("/v1/workspaces/{id}/files")).await {
            if found["name"] == file && found["path"] != format!("/Other/{file}") {
                links = self.links(&id, &found["id"]).await;
                item = json!({"path": found["path"], "metadata": found["metadata"]});
            }
        }
        // How far it looked back, not how many files there were.
        let dry_run =
            route["status"]["dryRun"]["summary"].as_str().and_then(|text| text.split(',').next()?.split("files").nth(1));
        let seen = json!({
            "ready": if ready["status"] == "True" { json!([ready["reason"], dry_run]) } else {
                json!([ready["reason"], ready["message"]]) },
            "dead": dead,
            "waits": condition(&route, "Backlogged")["message"],
            "ingest": route["status"]["ingestUrl"],
            "item": item,
            "links": links,
            "requests": self.recorder.requests(name, &file),
            "files": self.files(name, step),
            "objects": self.objects(name, step),
            "events": self.events(name, &file).await,
            "documents": self.documents(name, &file),
            "published": self.published(name, &file).await,
        });
        serde_json::from_str(&seen.to_string().replace(step, "STEP")).expect("a step's name is no other word")
    }

    async fn links(&self, workspace: &str, item: &Value) -> Vec<Value> {
        let links = self.world.remote.all(&format!("/v1/workspaces/{workspace}/links")).await;
        let minutes = |link: &Value| -> Option<i64> {
            let ends: jiff::Timestamp = link["expiresAt"].as_str()?.parse().ok()?;
            // To the hour, and to the quarter of one below that.
            let minutes = (ends.as_second() - jiff::Timestamp::now().as_second()) / 60;
            Some(if minutes > 120 { (minutes + 59) / 1_440 * 24 * 60 + 1 } else { (minutes + 14) / 15 * 15 })
        };
        let shown = links.iter().filter(|link| link["itemId"] == *item);
        shown
            .map(|link| {
                json!([link["audience"], link["recipients"], minutes(link), link["maxDownloads"], link["hasPassword"]])
            })
            .collect()
    }

    fn files(&self, name: &str, step: &str) -> Vec<String> {
        let mut found = Vec::new();
        for place in ["one", "two"] {
            let own = self.folder(place, name);
            found.extend(files_below(&own).into_iter().map(|(path, _)| format!("{place}/{path}")));
        }
        for place in ["sftp-1", "sftp-2"] {
            let all = files_below(&self.folders.path().join(place)).into_iter();
            found.extend(all.filter(|(path, _)| path.starts_with(name)).map(|(path, _)| format!("{place}/{path}")));
        }
        found.retain(|path| path.contains(&format!("{step}.txt")) && !path.contains(".file360"));
        found
    }

    fn objects(&self, name: &str, step: &str) -> Vec<String> {
        let all = files_below(&self.s3.bucket()).into_iter().map(|(path, _)| path);
        all.filter(|path| path.starts_with(&format!("{name}/")) && path.contains(step) && !path.contains(".sgwtmp"))
            .collect()
    }

    async fn events(&self, name: &str, file: &str) -> Vec<String> {
        let stream = async_nats::jetstream::new(self.bus.clone()).get_stream("ALL").await.unwrap();
        let last = stream.cached_info().state.last_sequence;
        let mut found = Vec::new();
        for sequence in 1..=last {
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            let event: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
            if message.subject.starts_with(&format!("s.{name}.")) && event["data"]["file"]["name"] == file {
                found.push(message.subject.to_string());
            }
        }
        found
    }

    fn documents(&self, name: &str, file: &str) -> Vec<Value> {
        let mut found = Vec::new();
        for (at, search) in self.search.iter().enumerate() {
            for index in [name.to_owned(), format!("{name}-2")] {
                for mut document in search.documents(&index).into_values().filter(|document| document["name"] == file) {
                    let document = document.as_object_mut().unwrap();
                    document.remove("fileId");
                    found.push(json!([at, index, document]));
                }
            }
        }
        found
    }

    async fn published(&self, name: &str, file: &str) -> Vec<Value> {
        let mut found = Vec::new();
        for target in ["target", "target-2"] {
            let id = self.world.workspace_id(target).await;
            for item in self.world.remote.all(&format!("/v1/workspaces/{id}/files")).await {
                if item["path"].as_str().is_some_and(|path| path.starts_with(&format!("/{name}/")) && path.contains(file)) {
                    let links = self.links(&id, &item["id"]).await;
                    found.push(json!([target, item["path"], item["version"], item["metadata"], links]));
                }
            }
        }
        let notices = self.world.remote.all("/v1/notifications").await;
        let own = notices
            .iter()
            .filter(|notice| notice["to"].as_str().is_some_and(|to| to.starts_with(&format!("{name}-{file}"))));
        found.extend(own.map(|notice| json!([notice["to"], notice["locale"]])));
        found
    }
}

/// Whether something became of the file.
fn has_ended(seen: &Value) -> bool {
    let is_some = |name: &str| seen[name].as_array().is_some_and(|found| !found.is_empty());
    let stands_still = matches!(
        seen["ready"][0].as_str(),
        Some(
            "InvalidSpec"
                | "InvalidExpression"
                | "TestsFailed"
                | "Suspended"
                | "DryRun"
                | "SourceUnavailable"
                | "ReferenceNotFound"
        )
    );
    ["dead", "requests", "files", "objects", "events", "documents", "published"].iter().any(|name| is_some(name))
        || stands_still
}

/// A server that records what it gets, by the first segment of the path, and answers as the next one says: `reject` with 422, `conflict` with 409,
/// `once` with 409 the first time, `silent` late; it fetches tokens for whoever asks.
pub struct Recorder {
    pub url: String,
    state: Arc<Recorded>,
}

#[derive(Default)]
struct Recorded {
    requests: Mutex<Vec<Value>>,
    open: Mutex<(usize, usize)>,
}

impl Recorder {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Recorded::default());
        let app = axum::Router::new().fallback(record).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, state }
    }

    /// What was accepted for a file of a case.
    pub fn requests(&self, case: &str, file: &str) -> Vec<Value> {
        let all = self.state.requests.lock();
        let own = all.iter().filter(|seen| seen["case"] == case && seen["step"] == file && seen["accepted"] == true);
        let mut own: Vec<Value> = own.cloned().collect();
        own.sort_by_key(ToString::to_string);
        own.dedup();
        own
    }

    /// How many were accepted for files whose name begins so.
    pub fn count(&self, case: &str, prefix: &str) -> usize {
        let all = self.state.requests.lock();
        let begins = |seen: &Value| seen["step"].as_str().is_some_and(|step| step.starts_with(prefix));
        all.iter().filter(|seen| seen["case"] == case && begins(seen) && seen["accepted"] == true).count()
    }

    pub fn reset_peak(&self) {
        *self.state.open.lock() = (0, 0);
    }

    /// Most requests at once.
    pub fn peak(&self) -> usize {
        self.state.open.lock().1
    }
}

async fn record(State(state): State<Arc<Recorded>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 8 << 20).await.unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    if path.ends_with("/token") {
        let token = format!("{}|{}", header("authorization"), String::from_utf8_lossy(&body)).replace(' ', "+");
        let token: String = token.bytes().map(|byte| format!("{byte:02x}")).collect();
        return axum::Json(
            json!({"access_token": format!("{path}-{token}").replace('/', "."), "token_type": "Bearer", "expires_in": 3600}),
        )
        .into_response();
    }
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (case, how) = (segments.first().copied().unwrap_or_default(), segments.get(1).copied().unwrap_or_default());
    let step = header("x-step");
    let known = state.requests.lock().iter().any(|seen| seen["case"] == case && seen["step"] == step);
    let status = match how {
        "reject" => StatusCode::UNPROCESSABLE_ENTITY,
        "conflict" => StatusCode::CONFLICT,
        "once" if !known => StatusCode::CONFLICT,
        _ => StatusCode::CREATED,
    };
    {
        let mut open = state.open.lock();
        open.0 += 1;
        open.1 = open.1.max(open.0);
    }
    match how {
        "silent" => tokio::time::sleep(Duration::from_secs(2)).await,
        "busy" => tokio::time::sleep(Duration::from_millis(600)).await,
        _ => {}
    }
    state.open.lock().0 -= 1;
    let headers: BTreeMap<String, String> = ["authorization", "content-type", "x-a", "x-b"]
        .into_iter()
        .map(|name| (name.to_owned(), header(name).split("boundary=").next().unwrap_or_default().to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let seen = json!({"case": case, "step": step, "accepted": status.is_success() || how == "reject", "method": parts.method.as_str(), "path": path,
        "query": parts.uri.query(), "headers": headers, "body": shown(&body)});
    state.requests.lock().push(seen);
    (status, axum::Json(json!({"id": "CASE"}))).into_response()
}

/// A body without what differs from file to file.
fn shown(body: &[u8]) -> Value {
    match serde_json::from_slice::<Value>(body) {
        Ok(event) if event.get("specversion").is_some() => {
            json!([event["type"], event["data"]["rule"], event["data"]["destination"]])
        }
        Ok(value) => value,
        // The parts of a form, by name.
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            let parts: Vec<&str> =
                text.lines().filter(|line| line.to_lowercase().starts_with("content-disposition")).collect();
            if parts.is_empty() { json!(text) } else { json!(parts) }
        }
    }
}
