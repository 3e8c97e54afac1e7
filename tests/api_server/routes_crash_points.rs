//! C2 and R1 to R3 for routes: the operator dies before, after and with the lost reply of every mutating request, to File 360, to the API
//! server and to the destination, and starts again without its volumes. Both ends are then as in the undisturbed run: every file at its
//! destination, and no second copy, version, link or notice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::convergence::neutral;
use super::crash_points::scripted;
use super::routes::{apply, push};
use super::routes_destinations::{inboxes_to, objects, secret};
use crate::support::case_system::CaseSystem;
use crate::support::counterparts::{S3Server, files_below};
use crate::support::proxy::{self, MOMENTS, Moment, Script};
use crate::support::search::Fake;
use crate::support::world::World;
use crate::support::{eventually, free_port};

/// Worlds at once.
const AT_ONCE: usize = 4;
/// Longer than the operator waits before it writes checkpoint and status.
const QUIET: Duration = Duration::from_millis(1300);
const KEY: &str = "the key of the system that pushes";

/// The routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Workspaces → HTTP, with metadata set before and from the answer.
    Cases,
    /// Workspaces → S3.
    Bucket,
    /// S3 → workspace, shared, with a notice.
    Publish,
    /// Ingest → workspace → folder.
    Ingest,
    /// Workspaces → search index.
    Index,
}

/// What stands at the other end.
struct Ends {
    cases: CaseSystem,
    search: Fake,
    folder: TempDir,
    bucket: Arc<S3Server>,
    /// Address of the operator's inbound endpoint.
    inbound: String,
    flags: Vec<String>,
}

impl Ends {
    async fn start(bucket: Arc<S3Server>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inbound = format!("127.0.0.1:{}", free_port());
        let flags = ["--folder", &format!("files={}", folder.path().display()), "--inbound-address", &inbound];
        let flags = flags.map(str::to_owned).to_vec();
        Self { cases: CaseSystem::start().await, search: Fake::start(), folder, bucket, inbound, flags }
    }

    /// Starts the operator again where it was.
    async fn start_operator(&self, world: &mut World) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        world.start_operator(&flags).await;
    }
}

impl Kind {
    /// The route, with its destination behind a proxy that follows `script`.
    async fn spec(self, world: &World, ends: &Ends, script: &Arc<Script>) -> Value {
        let plain = reqwest::Client::builder().no_proxy().build().unwrap();
        secret(world, "s3", json!({"id": S3Server::KEY_ID, "secret": S3Server::SECRET})).await;
        let s3 = |endpoint: &str| {
            json!({"s3": {"endpoint": endpoint, "region": S3Server::REGION, "bucket": S3Server::BUCKET,
            "accessKeyIdRef": {"name": "s3", "key": "id"}, "secretAccessKeyRef": {"name": "s3", "key": "secret"}}})
        };
        let mut spec = match self {
            Self::Cases => {
                let url = format!("{}/cases", proxy::start(&ends.cases.url, plain, script.clone()).await);
                let mut spec =
                    inboxes_to(json!({"http": {"url": url}, "send": "Content", "writeBack": {"answer": "response.status"}}));
                spec["rules"][0]["set"] = json!({"routedTo": "'cases'"});
                spec
            }
            Self::Bucket => {
                let endpoint = proxy::start_keeping_host(&ends.bucket.endpoint, plain, script.clone()).await;
                let key = format!("'{}/' + file.name", world.namespace);
                inboxes_to(json!({"objectStore": s3(&endpoint), "key": key}))
            }
            Self::Publish => {
                let mut from = s3(&ends.bucket.endpoint);
                from["prefix"] = json!(format!("{}/", world.namespace));
                from["every"] = json!("200ms");
                from["metadata"] = json!({"sidecar": "{stem}.json"});
                let share = json!({"audience": "Guests", "recipients": "[file.metadata.contact]", "expiresAfter": "P30D", "notify": true});
                let mut spec = inboxes_to(
                    json!({"file360": {"workspaceRef": {"name": "w"}, "path": "'/Invoices/' + file.metadata.year",
                    "metadata": {"year": "file.metadata.year"}, "share": share}}),
                );
                spec["from"] = json!({"objectStore": from});
                spec
            }
            Self::Ingest => {
                secret(world, "sender", json!({"key": KEY})).await;
                let mut spec = inboxes_to(json!({"objectStore": {"fs": {"folder": "files"}}, "key": "'in/' + file.name"}));
                spec["from"] = json!({"http": {"path": "erp", "hmacRef": {"name": "sender"},
                    "inbox": {"workspaceRef": {"name": "w"}, "path": "/Inbox"}}});
                spec
            }
            Self::Index => {
                let url = proxy::start(&ends.search.url(), plain, script.clone()).await;
                inboxes_to(
                    json!({"index": {"opensearch": {"url": url, "index": "files"}, "properties": ["name", "version"]}}),
                )
            }
        };
        spec["delivery"] = json!({"concurrency": 1, "backoff": {"initial": "100ms", "max": "400ms"}});
        spec
    }

    /// A file arrives at the source.
    async fn arrive(self, world: &World, ends: &Ends, workspace: &str, name: &str) {
        match self {
            Self::Cases | Self::Bucket | Self::Index => {
                world.remote.upload(workspace, "/Inbox", &format!("{name}.txt"), name.as_bytes()).await;
            }
            Self::Publish => {
                let sidecar = json!({"contact": format!("{name}@acme.example"), "year": 2026}).to_string();
                ends.bucket.put_by_hand(&format!("{}/{name}.json", world.namespace), &sidecar, &[]);
                ends.bucket.put_by_hand(&format!("{}/{name}.txt", world.namespace), name, &[]);
            }
            Self::Ingest => {
                // The sender asks again until it has its answer.
                let url = format!("http://{}/ingest/{}/erp", ends.inbound, world.namespace);
                let name = name.to_owned();
                tokio::spawn(async move {
                    while push(&url, KEY, &name, name.as_bytes()).await != 201 {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                });
            }
        }
    }

    /// What is at the destination.
    async fn there(self, world: &World, ends: &Ends, workspace: &str) -> Vec<Value> {
        let text = |content: &[u8]| String::from_utf8_lossy(content).into_owned();
        let mut there: Vec<Value> = match self {
            Self::Cases => ends.cases.accepted().iter().map(|one| json!([one.path, text(&one.body)])).collect(),
            Self::Bucket => {
                let own = format!("{}/", world.namespace);
                let all = objects(&ends.bucket).into_iter().filter(|(name, _)| name.starts_with(&own));
                all.map(|(name, content)| json!([name, text(&content)])).collect()
            }
            Self::Publish => {
                let mut links = world.remote.all(&format!("/v1/workspaces/{workspace}/links")).await;
                links.retain(|link| !link["url"].is_null() || !link["id"].is_null());
                let notices = world.remote.all("/v1/notifications").await;
                let links =
                    links.iter().map(|link| json!(["link", link["audience"], link["recipients"], link["maxDownloads"]]));
                links.chain(notices.iter().map(|notice| json!(["notice", notice["template"], notice["to"]]))).collect()
            }
            Self::Ingest => {
                let own = ends.folder.path().join(&world.namespace).join("in");
                let files = if own.exists() { files_below(&own) } else { Vec::new() };
                // A part that a crash leaves behind has a reserved name, which no reader takes for a file (docs/object-stores.md).
                let whole = files.iter().filter(|(name, _)| !name.starts_with(".file360-"));
                whole.map(|(name, content)| json!([name, text(content)])).collect()
            }
            Self::Index => {
                let documents = ends.search.documents("files");
                documents.values().map(|found| json!([found["name"], found["version"], found["acl"]])).collect()
            }
        };
        there.sort_by_key(ToString::to_string);
        there
    }

    /// Entries at the destination for each file.
    fn entries(self) -> usize {
        if self == Self::Publish { 2 } else { 1 }
    }

    /// Both ends.
    async fn state(self, world: &World, ends: &Ends, workspace: &str) -> String {
        let mut files = world.remote.all(&format!("/v1/workspaces/{workspace}/files")).await;
        let shown = ["path", "size", "sha256", "version", "metadata", "state"];
        files.iter_mut().for_each(|file| file.as_object_mut().unwrap().retain(|name, _| shown.contains(&name.as_str())));
        files.sort_by_key(ToString::to_string);
        let folders = world.remote.all(&format!("/v1/workspaces/{workspace}/folders")).await;
        let folders: BTreeSet<String> = folders.iter().map(|folder| folder["path"].to_string()).collect();
        let route = world.get("FileRoute", "r").await;
        let conditions = route["status"]["conditions"].as_array().into_iter().flatten();
        let conditions: Vec<Value> = conditions.map(|one| json!([one["type"], one["status"], one["reason"]])).collect();
        let there = self.there(world, ends, workspace).await;
        neutral(&json!({"there": there, "files": files, "folders": folders, "conditions": conditions}), world)
    }
}

/// Waits until nothing was asked for a while.
/// One run: `expected` is the end of the undisturbed one. The end, and what was asked.
async fn run(
    kind: Kind,
    bucket: Arc<S3Server>,
    crash: Option<(usize, Moment)>,
    expected: Option<&str>,
) -> (String, Vec<String>) {
    let script = Script::new(crash);
    let ends = Ends::start(bucket).await;
    let flags: Vec<&str> = ends.flags.iter().map(String::as_str).collect();
    let mut world = scripted(&script, &flags).await;
    let sharing = json!({"external": "AllowListed", "allowedDomains": ["acme.example"], "links": {"maxAudience": "Guests"}});
    let members = json!([{"kind": "User", "name": "user0", "role": "Viewer"}]);
    let declared =
        json!({"displayName": "W", "folders": [{"path": "/Inbox"}], "access": {"members": members}, "sharing": sharing});
    world.workspace("w", declared).await;
    let workspace = world.workspace_id("w").await;
    let spec = kind.spec(&world, &ends, &script).await;
    kind.arrive(&world, &ends, &workspace, "first").await;
    script.quiet(QUIET).await;
    script.arm();
    apply(&world, "r", spec).await;
    kind.arrive(&world, &ends, &workspace, "second").await;
    let arrived = async |count: usize| {
        eventually(&format!("{count} files at the destination"), || async {
            let there = kind.there(&world, &ends, &workspace).await;
            if there.len() >= count * kind.entries() { Ok(()) } else { Err(format!("{there:?}; {:?}", script.lines.lock())) }
        })
        .await;
    };
    // The number of requests differs a little from run to run: the last ones may not come.
    let done = async {
        arrived(2).await;
        script.quiet(QUIET).await;
    };
    tokio::select! { () = script.die.notified() => {}, () = done => {} }
    let lines = script.lines.lock().clone();
    if crash.is_some() {
        world.kill_operator();
        script.dead.store(true, Ordering::SeqCst);
        script.disarm();
        ends.start_operator(&mut world).await;
    }
    script.disarm();
    world.condition("FileRoute", "r", "Ready", "True").await;
    // It goes on as before.
    kind.arrive(&world, &ends, &workspace, "third").await;
    let end = match expected {
        None => {
            let all = async {
                eventually("3 files at the destination", || async {
                    let there = kind.there(&world, &ends, &workspace).await;
                    if there.len() >= 3 * kind.entries() { Ok(()) } else { Err(format!("{there:?}")) }
                })
                .await;
            };
            all.await;
            script.quiet(QUIET).await;
            kind.state(&world, &ends, &workspace).await
        }
        Some(expected) => {
            let what =
                format!("{kind:?}, killed at {crash:?} ({:?}): the end of the undisturbed run {expected}", lines.last());
            eventually(&what, || async {
                let state = kind.state(&world, &ends, &workspace).await;
                if state == expected { Ok(state) } else { Err(state) }
            })
            .await
        }
    };
    (end, lines)
}

async fn survives(kind: Kind) {
    let bucket = Arc::new(S3Server::start());
    let (undisturbed, lines) = run(kind, bucket.clone(), None, None).await;
    assert!(lines.len() >= 4, "the proxies see too little: {lines:?}");
    println!("{kind:?}: N = {} mutating requests, {} runs", lines.len(), 3 * lines.len());
    let points = (1..=lines.len()).flat_map(|at| MOMENTS.map(|moment| (at, moment)));
    let runs = points.map(|point| run(kind, bucket.clone(), Some(point), Some(&undisturbed)));
    futures::stream::iter(runs).buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
}

#[tokio::test]
async fn c2_files_reach_an_http_system_whatever_request_the_operator_dies_at() {
    survives(Kind::Cases).await;
}

#[tokio::test]
async fn c2_files_reach_a_bucket_whatever_request_the_operator_dies_at() {
    survives(Kind::Bucket).await;
}

#[tokio::test]
async fn c2_objects_are_published_shared_and_announced_once_whatever_request_the_operator_dies_at() {
    survives(Kind::Publish).await;
}

#[tokio::test]
async fn c2_what_is_pushed_reaches_a_folder_whatever_request_the_operator_dies_at() {
    survives(Kind::Ingest).await;
}

#[tokio::test]
async fn c2_an_index_is_complete_whatever_request_the_operator_dies_at() {
    survives(Kind::Index).await;
}
