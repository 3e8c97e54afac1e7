//! A Connection with `driver: WebDAV`: workspaces are directories behind rclone, and what WebDAV cannot do is said.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::support::counterparts::WebDavServer;
use crate::support::proxy::{self, Moment, Script};
use crate::support::world::{World, condition};
use crate::support::{eventually, kubernetes};

/// A world whose Connection `file360` leads to rclone.
struct Dav {
    world: World,
    server: WebDavServer,
}

/// Rounds of observation are short in tests.
const OFTEN: [&str; 2] = ["--observe-interval", "2s"];

fn basic(secret: &str) -> Value {
    json!({"basic": {"usernameRef": {"name": secret, "key": "username"}, "passwordRef": {"name": secret, "key": "password"}}})
}

impl Dav {
    async fn new() -> Self {
        Self::behind(None).await
    }

    /// With a proxy before rclone that follows `script`.
    async fn behind(script: Option<&Arc<Script>>) -> Self {
        let mut world = World::without_operator(kubernetes::shared().await).await;
        let server = WebDavServer::start();
        std::fs::create_dir(server.root().join("teams")).unwrap();
        let endpoint = match script {
            None => server.endpoint.clone(),
            Some(script) => {
                let plain = reqwest::Client::builder().no_proxy().build().unwrap();
                proxy::start(&server.endpoint, plain, script.clone()).await
            }
        };
        world.endpoint = format!("{endpoint}/teams");
        world.start_operator(&OFTEN).await;
        let dav = Self { world, server };
        dav.secret("dav", WebDavServer::USER, WebDavServer::PASSWORD).await;
        dav.apply_connection(json!({})).await;
        dav.world.condition("Connection", "file360", "Ready", "True").await;
        dav
    }

    async fn secret(&self, name: &str, username: &str, password: &str) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"endpoint": self.world.endpoint, "username": username, "password": password}});
        kubernetes::apply(&self.world.client, &self.world.namespace, &secret).await.unwrap();
    }

    async fn apply_connection(&self, more: Value) {
        let mut spec =
            json!({"driver": "WebDAV", "endpoint": self.world.endpoint, "allowInsecure": true, "auth": basic("dav")});
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        self.world.apply("Connection", "file360", spec).await;
    }

    /// The directory of a workspace.
    async fn directory(&self, name: &str) -> PathBuf {
        self.server.root().join("teams").join(self.world.workspace_id(name).await)
    }

    /// All directories below the tenant's root but the operator's own, relative to it.
    fn directories(&self) -> BTreeSet<String> {
        let root = self.server.root().join("teams");
        let mut found = BTreeSet::new();
        let mut left = vec![root.clone()];
        while let Some(folder) = left.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
                if entry.file_name() != ".file360" {
                    found.insert(entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                    left.push(entry.path());
                }
            }
        }
        found
    }
}

fn folders(paths: &[&str]) -> Value {
    json!({"folders": paths.iter().map(|path| json!({"path": path})).collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_workspace_is_a_directory_with_its_folders_and_the_connection_says_what_it_is_worth() {
    let dav = Dav::new().await;
    let object = dav.world.workspace("w", folders(&["/Contracts/2026", "/Inbox ü"])).await;
    let id = object["status"]["workspaceId"].as_str().unwrap();
    let wanted = ["", "/Contracts", "/Contracts/2026", "/Inbox ü"].map(|path| format!("{id}{path}"));
    assert_eq!(dav.directories(), wanted.into());
    assert_eq!(object["status"]["url"], format!("{}/{id}/", dav.world.endpoint));
    assert_eq!(object["status"].get("access"), None, "nobody knows who has access");
    assert_eq!(object["status"].get("unsupported"), None);
    let marker = std::fs::read(dav.directory("w").await.join(".file360/workspace.json")).unwrap();
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    assert_eq!((&marker["owner"]["name"], &marker["owner"]["state"]), (&json!("w"), &json!("Active")));

    let connection = dav.world.get("Connection", "file360").await;
    assert_eq!(connection["status"]["feed"]["state"], "Polled");
    assert_eq!(connection["status"]["capabilities"], json!(["BusinessKeys"]));
    let level = |feature: &str| {
        let all = connection["status"]["enforcement"].as_array().unwrap();
        all.iter().find(|one| one["feature"] == feature).unwrap_or_else(|| panic!("{feature}"))["level"].clone()
    };
    for (feature, expected) in [
        ("Folders", "Native"),
        ("Ownership", "Compensating"),
        ("Changes", "Compensating"),
        ("ItemIds", "ObserveOnly"),
        ("Members", "Unsupported"),
        ("Facets", "Unsupported"),
    ] {
        assert_eq!(level(feature), expected, "{feature}");
    }
    let told: Vec<&str> =
        connection["status"]["enforcement"].as_array().unwrap().iter().map(|one| one["feature"].as_str().unwrap()).collect();
    assert_eq!(told.first(), Some(&"Workspaces"), "the order is that of the documentation");
}

#[tokio::test]
async fn c4_a_folder_that_somebody_removed_or_renamed_comes_back_and_c6_rest_writes_nothing() {
    let dav = Dav::new().await;
    dav.world.workspace("w", folders(&["/Contracts/2026", "/Inbox"])).await;
    let (directory, wanted) = (dav.directory("w").await, dav.directories());
    std::fs::remove_dir_all(directory.join("Contracts")).unwrap();
    eventually("the folders to come back", || async {
        let now = dav.directories();
        if now == wanted { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    std::fs::write(directory.join("Inbox/kept.txt"), "content").unwrap();
    std::fs::rename(directory.join("Inbox"), directory.join("Moved")).unwrap();
    eventually("the folder under its name", || async {
        directory.join("Inbox").is_dir().then_some(()).ok_or_else(|| format!("{:?}", dav.directories()))
    })
    .await;
    assert_eq!(
        std::fs::read_to_string(directory.join("Moved/kept.txt")).unwrap(),
        "content",
        "nothing of people's is touched"
    );
    dav.world.condition("SecureWorkspace", "w", "Ready", "True").await;

    let operator = dav.world.operator.as_ref().unwrap();
    let seen = operator.metric("file360_reconciles_total", "SecureWorkspace").await;
    let version = dav.world.get("SecureWorkspace", "w").await["metadata"]["resourceVersion"].clone();
    let marker = std::fs::read(directory.join(".file360/workspace.json")).unwrap();
    eventually("several more rounds", || async {
        let now = operator.metric("file360_reconciles_total", "SecureWorkspace").await;
        (now >= seen + 4.0).then_some(()).ok_or_else(|| format!("{now} after {seen}"))
    })
    .await;
    assert_eq!(dav.world.get("SecureWorkspace", "w").await["metadata"]["resourceVersion"], version);
    assert_eq!(std::fs::read(directory.join(".file360/workspace.json")).unwrap(), marker);
}

#[tokio::test]
async fn what_webdav_cannot_honour_is_named_and_never_looks_as_if_it_were() {
    let dav = Dav::new().await;
    let member = json!({"kind": "User", "name": "ada", "role": "Viewer"});
    let asking = json!({
        "folders": [{"path": "/Contracts", "locked": true, "members": [member]}],
        "classification": "Secret",
        "metadata": {"region": "EU"},
        "access": {"mode": "Exclusive", "members": [member]},
        "sharing": {"external": "Disabled"},
        "uploadRequests": [{"name": "docs", "path": "/Contracts"}],
    });
    dav.world.apply_workspace("w", asking).await;
    let object = dav.world.condition("SecureWorkspace", "w", "Stalled", "True").await;
    let ready = condition(&object, "Ready");
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("Unsupported")));
    let fields: Vec<&str> =
        object["status"]["unsupported"].as_array().unwrap().iter().map(|one| one["field"].as_str().unwrap()).collect();
    let expected = [
        "spec.classification",
        "spec.metadata",
        "spec.folders[0].locked",
        "spec.folders[0].members",
        "spec.access.mode",
        "spec.access.members",
        "spec.sharing",
        "spec.uploadRequests",
    ];
    assert_eq!(fields, expected);
    let message = ready["message"].as_str().unwrap();
    assert!(expected.iter().all(|field| message.contains(field)), "{message}");
    assert!(dav.directory("w").await.join("Contracts").is_dir(), "folders converge all the same");
    let object = dav.world.workspace("w", folders(&["/Contracts"])).await;
    assert_eq!(object["status"].get("unsupported"), None);
}

#[tokio::test]
async fn a_route_over_webdav_stalls_and_says_what_is_missing() {
    let dav = Dav::new().await;
    dav.world.workspace("w", folders(&["/Inbox"])).await;
    let spec = json!({
        "connectionRef": {"name": "file360"},
        "from": {"workspaces": {"selector": {}}},
        "rules": [{"name": "all", "to": [{"name": "case", "http": {"url": "http://127.0.0.1:1/cases"}}]}],
        "unmatched": {"ignore": {}},
    });
    dav.world.apply("FileRoute", "r", spec).await;
    let object = dav.world.reason("FileRoute", "r", "Stalled", "Unsupported").await;
    let message = condition(&object, "Ready")["message"].to_string();
    for part in ["driver WebDAV", "Changes, ClientState, Facets", "status.enforcement"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn d1_deletion_keeps_content_and_a_re_created_resource_finds_its_workspace() {
    let dav = Dav::new().await;
    let before = dav.world.workspace("w", folders(&["/Contracts"])).await;
    let directory = dav.directory("w").await;
    std::fs::write(directory.join("Contracts/precious.txt"), "kept").unwrap();
    dav.world.delete_and_wait("SecureWorkspace", "w").await;
    let after = dav.world.workspace("w", folders(&["/Contracts"])).await;
    assert_eq!(after["status"]["workspaceId"], before["status"]["workspaceId"]);

    let mut spec = folders(&["/Contracts"]);
    spec["deletionPolicy"] = json!("Delete");
    dav.world.apply_workspace("w", spec).await;
    dav.world.reason("SecureWorkspace", "w", "Ready", "Unsupported").await;
    let annotation = json!({"metadata": {"annotations": {"file360.io/confirm-delete": before["status"]["workspaceId"]}}});
    dav.world.patch("SecureWorkspace", "w", annotation).await;
    // A step puts the finalizer there: deletion has something to say.
    std::fs::remove_dir_all(directory.join("Contracts")).unwrap();
    std::fs::create_dir(directory.join("Kept")).unwrap();
    std::fs::write(directory.join("Kept/precious.txt"), "kept").unwrap();
    dav.world.until("SecureWorkspace", "w", "the finalizer", |object| object["metadata"]["finalizers"].is_array()).await;
    dav.world.delete("SecureWorkspace", "w").await;
    dav.world.reason("SecureWorkspace", "w", "DeletionBlocked", "Unsupported").await;
    dav.world.patch("SecureWorkspace", "w", json!({"spec": {"deletionPolicy": "Retain"}})).await;
    dav.world.gone("SecureWorkspace", "w").await;
    assert_eq!(std::fs::read_to_string(directory.join("Kept/precious.txt")).unwrap(), "kept");
    let marker: Value = serde_json::from_slice(&std::fs::read(directory.join(".file360/workspace.json")).unwrap()).unwrap();
    assert_eq!(marker["owner"]["state"], "Released");
}

#[tokio::test]
async fn c11_one_directory_has_one_owner_and_peoples_is_taken_up_only_on_request() {
    let dav = Dav::new().await;
    let mut spec = folders(&["/Contracts"]);
    spec["externalRef"] = json!({"system": "s4", "type": "vendor", "id": "50031"});
    dav.world.workspace("first", spec.clone()).await;
    dav.world.apply_workspace("second", spec.clone()).await;
    let object = dav.world.reason("SecureWorkspace", "second", "Ready", "OwnedByOther").await;
    assert!(condition(&object, "Ready")["message"].to_string().contains("/first"), "{object}");
    dav.world.delete_and_wait("SecureWorkspace", "second").await;

    // The marker is lost, such as in a restore that left hidden files out.
    let directory = dav.directory("first").await;
    dav.world.delete_and_wait("SecureWorkspace", "first").await;
    std::fs::remove_dir_all(directory.join(".file360")).unwrap();
    dav.world.apply_workspace("third", spec.clone()).await;
    dav.world.reason("SecureWorkspace", "third", "Ready", "AlreadyExists").await;
    spec["adoption"] = json!("AdoptOrCreate");
    dav.world.workspace("third", spec).await;
    assert_eq!(dav.directory("third").await, directory);
}

#[tokio::test]
async fn t5_a_wrong_password_names_the_way_out_and_goes_nowhere_its_secret_does_not_name() {
    let dav = Dav::new().await;
    dav.secret("wrong", WebDavServer::USER, "canary-password-5c1d").await;
    dav.apply_connection(json!({"auth": basic("wrong")})).await;
    let object = dav.world.reason("Connection", "file360", "Ready", "AuthenticationFailed").await;
    let message = condition(&object, "Ready")["message"].to_string();
    assert!(message.contains("spec.auth") && !message.contains("canary"), "{message}");
    let parts = |user: (&str, &str), password: (&str, &str)| {
        let reference = |(name, key): (&str, &str)| json!({"name": name, "key": key});
        json!({"auth": {"basic": {"usernameRef": reference(user), "passwordRef": reference(password)}}})
    };
    let (user, password) = (("dav", "username"), ("dav", "password"));
    for wrong in [
        parts(("ghost", "username"), password),
        parts(("dav", "ghost"), password),
        parts(user, ("ghost", "password")),
        parts(user, ("dav", "ghost")),
    ] {
        dav.apply_connection(wrong.clone()).await;
        let object = dav.world.reason("Connection", "file360", "Ready", "ReferenceNotFound").await;
        assert!(condition(&object, "Ready")["message"].to_string().contains("ghost"), "{wrong}");
        dav.apply_connection(json!({})).await;
        dav.world.condition("Connection", "file360", "Ready", "True").await;
    }
    let elsewhere = dav.world.endpoint.replace("/teams", "/others");
    dav.apply_connection(json!({"endpoint": elsewhere})).await;
    dav.world.reason("Connection", "file360", "Ready", "CredentialNotBound").await;
    assert!(!dav.world.log().contains("canary"), "the log is silent about passwords");
}

#[tokio::test]
async fn a_server_that_goes_away_is_said_and_work_goes_on_when_it_is_back() {
    let dav = Dav::new().await;
    let before = dav.world.workspace("w", folders(&["/A"])).await;
    dav.server.stop();
    dav.world
        .patch("Connection", "file360", json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": "1"}}}))
        .await;
    dav.world.apply_workspace("w", folders(&["/A", "/B"])).await;
    dav.world
        .until("Connection", "file360", "the outage", |object| object["status"]["feed"]["state"] == "Interrupted")
        .await;
    assert_eq!(
        condition(&dav.world.get("SecureWorkspace", "w").await, "Ready"),
        condition(&before, "Ready"),
        "it keeps what it said"
    );
    dav.server.start_again();
    dav.world
        .until("Connection", "file360", "the end of the outage", |object| object["status"]["feed"]["state"] == "Polled")
        .await;
    dav.world.condition("SecureWorkspace", "w", "Ready", "True").await;
    assert!(dav.directory("w").await.join("B").is_dir());
}

/// What is there in the end: directories, declared folders and owner, without what differs between runs.
async fn end_state(dav: &Dav) -> Value {
    dav.world.condition("SecureWorkspace", "w", "Ready", "True").await;
    let marker = std::fs::read(dav.directory("w").await.join(".file360/workspace.json")).unwrap();
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    let id = dav.world.workspace_id("w").await;
    let directories: Vec<String> = dav.directories().into_iter().map(|path| path.replace(&id, "w")).collect();
    let own: BTreeSet<_> = std::fs::read_dir(dav.directory("w").await.join(".file360"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    json!({"directories": directories, "folders": marker["folders"], "name": marker["displayName"], "state": marker["owner"]["state"],
        "own": own.len()})
}

/// Makes a workspace and changes it while the operator may die at one request; the end state.
async fn run(crash: Option<(usize, Moment)>) -> (Value, Arc<Script>) {
    let script = Script::new(crash);
    let mut dav = Dav::behind(Some(&script)).await;
    script.arm();
    dav.world.apply_workspace("w", folders(&["/Contracts/2026", "/Old"])).await;
    if crash.is_some() {
        script.die.notified().await;
        dav.world.kill_operator();
        script.dead.store(true, std::sync::atomic::Ordering::SeqCst);
        script.disarm();
        dav.world.start_operator(&OFTEN).await;
    }
    dav.world.condition("SecureWorkspace", "w", "Ready", "True").await;
    if crash.is_none() {
        script.disarm();
    }
    let mut spec = folders(&["/Contracts/2026", "/New"]);
    spec["displayName"] = json!("Changed");
    dav.world.apply_workspace("w", spec).await;
    (end_state(&dav).await, script)
}

#[tokio::test]
async fn c2_the_operator_dies_at_every_request_to_webdav_and_the_end_is_the_same() {
    let (wanted, script) = run(None).await;
    let lines = script.lines.lock().clone();
    let moments = [Moment::Before, Moment::ReplyLost];
    let all: Vec<(usize, Moment)> = (1..=lines.len()).flat_map(|at| moments.map(|moment| (at, moment))).collect();
    assert!(all.len() > 20, "{lines:?}");
    // A lock that nobody gives back holds the next one up: several at once, not one after the other.
    let outcomes = futures::stream::iter(all).map(|crash| async move { (crash, run(Some(crash)).await.0) });
    let outcomes: Vec<_> = outcomes.buffer_unordered(8).collect().await;
    for ((at, moment), outcome) in outcomes {
        assert_eq!(outcome, wanted, "dead {moment:?} request {at}, {}", lines[at - 1]);
    }
}

#[tokio::test]
async fn rules_of_the_driver_are_refused_at_the_api_server() {
    let world = World::without_operator(kubernetes::shared().await).await;
    let endpoint = "https://dav.example/teams";
    let token = json!({"token": {"secretRef": {"name": "s", "key": "k"}}});
    for (spec, expected) in [
        (json!({"endpoint": endpoint, "auth": basic("s")}), "auth.basic goes with driver: WebDAV"),
        (json!({"endpoint": endpoint, "driver": "WebDAV", "auth": token, "sharing": {"max": {}}}), "WebDAV has no sharing"),
        (json!({"endpoint": endpoint, "driver": "FTP", "auth": token}), "spec.driver"),
    ] {
        let refusal = world.try_apply("Connection", "c", spec).await.unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    world.apply("Connection", "c", json!({"endpoint": endpoint, "auth": token})).await;
    let refusal = world.try_apply("Connection", "c", json!({"endpoint": endpoint, "auth": token, "driver": "WebDAV"})).await;
    assert!(refusal.unwrap_err().to_string().contains("driver is immutable"));
    world.apply("Connection", "c", json!({"endpoint": endpoint, "auth": token, "driver": "Connector"})).await;
}
