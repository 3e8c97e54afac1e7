//! A real process is killed under load; what it acknowledged must be there afterwards. The checker knows only what the
//! clients heard.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, SEED, http, id};

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn serve(folder: &Path) -> (Process, String) {
    let seed = folder.join("seed.yaml");
    std::fs::write(&seed, SEED).unwrap();
    let port = crate::counterparts::free_port();
    let child = Command::new(env!("CARGO_BIN_EXE_file360-operator"))
        .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--seed"])
        .arg(&seed)
        .arg("--data-dir")
        .arg(folder.join("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(child);
    let url = format!("http://127.0.0.1:{port}");
    let up = async {
        while http().get(format!("{url}/healthz")).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), up).await.expect("the server comes up");
    (process, url)
}

/// What the clients heard: workspaces, the highest revision of each, files with their digests.
#[derive(Default)]
struct Heard {
    revisions: BTreeMap<String, u64>,
    files: BTreeMap<String, Value>,
    calls: usize,
}

async fn work(api: Api, worker: usize, round: usize, heard: Arc<Mutex<Heard>>) {
    for n in 0.. {
        let key = format!("k{round}-{worker}-{n}");
        let create =
            api.put(&format!("/v1/workspaces/by-key/test/{key}"), json!({"displayName": key})).header("if-none-match", "*");
        let Ok(created) = create.try_send().await else { return };
        let ws = created.expect(201);
        note(&heard, &ws, 1);
        let Ok(folder) = api.post(&format!("/v1/workspaces/{}/folders", id(&ws)), json!({"path": "/A"})).try_send().await
        else {
            return;
        };
        note(&heard, &ws, folder.revision());
        let path = format!("/v1/items/{}/files?name=a.txt", id(&folder.body));
        let content: &'static str = Box::leak(format!("content of {key}").into_boxed_str());
        let Ok(file) = api.raw(Method::POST, &path, "text/plain", content).try_send().await else { return };
        let file = file.expect(201);
        heard.lock().files.insert(id(&file).to_owned(), file["sha256"].clone());
        heard.lock().calls += 1;
    }
}

fn note(heard: &Mutex<Heard>, ws: &Value, revision: u64) {
    let mut heard = heard.lock();
    heard.calls += 1;
    let known = heard.revisions.entry(id(ws).to_owned()).or_default();
    *known = revision.max(*known);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_under_load_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let heard = Arc::new(Mutex::new(Heard::default()));
    for round in 0..3 {
        let (mut process, url) = serve(folder.path()).await;
        let api = Api::sign_in(&url, "operator").await;
        let wanted = heard.lock().calls + 100;
        let workers: Vec<_> =
            (0..8).map(|worker| tokio::spawn(work(api.clone(), worker, round, Arc::clone(&heard)))).collect();
        // The kill falls into the middle of whatever the eight are doing.
        while heard.lock().calls < wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        for worker in workers {
            worker.await.unwrap();
        }
    }
    let (_process, url) = serve(folder.path()).await;
    let api = Api::sign_in(&url, "operator").await;
    let found = api.all("/v1/workspaces?limit=1000").await;
    let found: BTreeMap<_, _> = found.iter().map(|row| (id(row).to_owned(), row["revision"].as_u64().unwrap())).collect();
    let heard = std::mem::take(&mut *heard.lock());
    let lost: Vec<_> =
        heard.revisions.iter().filter(|(id, revision)| found.get(*id).is_none_or(|found| found < revision)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    for (file, sha256) in heard.files {
        let content = api.get(&format!("/v1/items/{file}/content")).send().await;
        assert_eq!(
            json!(file360_operator::server::names::hex(&file360_operator::server::names::sha256(&content.bytes))),
            sha256
        );
    }
    let (entries, _) = api.changes("earliest").await;
    let sequences: Vec<_> = entries.iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=entries.len() as u64).collect::<Vec<_>>());
}
