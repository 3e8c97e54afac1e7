//! C2, A1 and A3 for gates: the operator dies before, after and with the lost reply of every request by which a gate is closed, asked about,
//! decided and followed, to File 360, to the API server and to the ticket system. The end is that of the undisturbed run, and nobody sees
//! what nobody approved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::crash_points::scripted;
use super::gates::{self, KEY, approvals, audited, decided, gated, let_in, name_of, now, put, seen, try_call_back};
use super::routes::{apply, arrived, claims};
use crate::support::case_system::CaseSystem;
use crate::support::proxy::{self, MOMENTS, Moment, Script};
use crate::support::world::World;
use crate::support::{eventually, free_port};

/// Worlds at once.
const AT_ONCE: usize = 4;

struct Life {
    world: World,
    tickets: CaseSystem,
    cases: CaseSystem,
    /// Where the ticket system is reached, through the proxy.
    asked_at: String,
    inbound: String,
    workspace: String,
    item: Mutex<Option<String>>,
    /// The newest version that somebody may see; 0: none.
    allowed: AtomicU64,
}

impl Life {
    /// A file arrives and is approved; a second version of it is refused.
    async fn run(&self) {
        let world = &self.world;
        let mut spec = gated(&self.tickets, &self.cases, json!({"onApproved": ["Release", "LockVersion"]}));
        spec["rules"][0]["gate"]["request"]["http"]["url"] = json!(format!("{}/tickets", self.asked_at));
        apply(world, "pricing", spec).await;
        world.condition("FileRoute", "pricing", "Ready", "True").await;
        let item = world.remote.upload(&self.workspace, "/Inbox", "price.txt", b"the first").await;
        *self.item.lock() = Some(item.clone());
        let first = self.asked_about(1).await;
        self.allowed.store(1, Ordering::SeqCst);
        self.answer(&first, "d-1", "Approved").await;
        decided(world, &first, "Approved").await;
        arrived(&self.cases, 1).await;
        eventually("the lock", || async {
            let found = world.remote.get(&format!("/v1/items/{item}")).await;
            (found["locked"] == true).then_some(()).ok_or_else(|| found.to_string())
        })
        .await;
        world.remote.change("PATCH", &format!("/v1/items/{item}"), json!({"locked": false})).await;
        let (status, answer) = put(world, &format!("/v1/items/{item}/content"), "the second").await;
        assert!((200..300).contains(&status), "{status} {answer}");
        let second = self.asked_about(2).await;
        self.answer(&second, "d-2", "Rejected").await;
        decided(world, &second, "Rejected").await;
    }

    /// Name of the Approval of this version, once its ticket is recorded.
    async fn asked_about(&self, version: u64) -> String {
        let all = approvals(&self.world, usize::try_from(version).unwrap()).await;
        let one = all.iter().find(|one| one["spec"]["subject"]["version"] == version).expect("one for each version");
        let name = name_of(one);
        let recorded = |object: &Value| object["status"]["ticket"]["createdAt"].is_string();
        self.world.until("Approval", &name, "the ticket", recorded).await;
        name
    }

    /// The ticket system calls back until it has an answer.
    async fn answer(&self, approval: &str, id: &str, decision: &str) {
        let url = format!("{}/callbacks/{}/{approval}", self.inbound, self.world.namespace);
        eventually("the callback to be taken", || async {
            match try_call_back(&url, KEY, id, now(), &json!({"decision": decision, "by": "ann"})).await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Nobody sees what was not approved.
    async fn check_nothing_leaks(&self) {
        let Some(item) = self.item.lock().clone() else { return };
        let shown = seen(&self.world, &self.workspace, &item).await;
        let allowed = self.allowed.load(Ordering::SeqCst);
        let version = shown["item"][1].as_u64().unwrap_or_default();
        assert!(version <= allowed, "version {version} is visible: {shown:?}");
        if allowed == 0 {
            assert_eq!(shown["content"][0], 404, "{shown:?}");
        }
    }

    /// What all sides hold, without what differs from run to run.
    async fn end(&self) -> String {
        let item = self.item.lock().clone().unwrap();
        let rows: Vec<Value> = approvals(&self.world, 2).await.iter().map(row).collect();
        let mut asked: Vec<Value> = self.tickets.accepted().iter().map(|one| one.json()["type"].clone()).collect();
        asked.sort_by_key(ToString::to_string);
        let delivered: Vec<Value> =
            self.cases.accepted().iter().map(|one| json!(String::from_utf8_lossy(&one.body))).collect();
        let events = audited(&self.world, "decide").await;
        let taken = events.iter().filter(|event| event["outcome"] == "Success").count();
        let shown = seen(&self.world, &self.workspace, &item).await;
        let path = self.world.remote.get(&format!("/v1/items/{item}")).await["path"].clone();
        json!({"rows": rows, "asked": asked, "delivered": delivered, "decided": taken, "seen": shown, "path": path})
            .to_string()
    }
}

fn row(approval: &Value) -> Value {
    let status = &approval["status"];
    let votes: Vec<Value> =
        status["votes"].as_array().into_iter().flatten().map(|vote| json!([vote["by"], vote["decision"]])).collect();
    json!([
        approval["spec"]["subject"]["version"],
        status["decision"],
        status["evidence"]["sha256"].is_string(),
        votes,
        status["late"]
    ])
}

/// One run: `expected` is the end of the undisturbed one. The end, and what was asked.
async fn run(crash: Option<(usize, Moment)>, expected: Option<&str>) -> (String, Vec<String>) {
    let script = Script::new(crash);
    let address = format!("127.0.0.1:{}", free_port());
    let inbound = format!("http://{address}");
    let flags = ["--inbound-address", &address, "--public-url", &inbound, "--secret-interval", "1s"];
    let mut world = scripted(&script, &flags).await;
    let mut operator = world.operator.take().unwrap();
    gates::with_key(&world).await;
    let workspace = claims(&world, "pricing").await;
    let_in(&world, &workspace).await;
    let tickets = CaseSystem::start().await;
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked_at = proxy::start(&tickets.url, plain, script.clone()).await;
    let cases = CaseSystem::start().await;
    let (item, allowed) = (Mutex::new(None), AtomicU64::new(0));
    let life = Arc::new(Life { world, tickets, cases, asked_at, inbound: inbound.clone(), workspace, item, allowed });
    script.arm();
    let mut run = std::pin::pin!(life.run());
    let died = tokio::select! {
        () = script.die.notified() => true,
        () = &mut run => false,
    };
    if died {
        operator.kill();
        script.dead.store(true, Ordering::SeqCst);
        script.disarm();
        life.check_nothing_leaks().await;
        operator = life.world.spawn_operator(&flags);
        run.await;
    }
    let end = match expected {
        None => {
            script.quiet(Duration::from_millis(1300)).await;
            life.end().await
        }
        Some(expected) => {
            let what =
                format!("killed at {crash:?} ({:?}): the end of the undisturbed run {expected}", script.lines.lock().last());
            eventually(&what, || async {
                let end = life.end().await;
                if end == expected { Ok(end) } else { Err(end) }
            })
            .await
        }
    };
    drop(operator);
    let lines = script.lines.lock().clone();
    (end, lines)
}

#[tokio::test]
async fn c2_closing_asking_deciding_and_following_survive_every_crash_point() {
    let (undisturbed, lines) = run(None, None).await;
    println!("gates: N = {} mutating requests, {} runs\n{undisturbed}", lines.len(), 3 * lines.len());
    for part in ["/tickets", "/decision", "/approvals", "/intake"] {
        assert!(lines.iter().any(|line| line.contains(part)), "no request to {part}: {lines:#?}");
    }
    assert!(undisturbed.contains("\"Approved\"") && undisturbed.contains("\"Rejected\""), "{undisturbed}");
    let crashes = (1..=lines.len()).flat_map(|at| MOMENTS.map(|moment| (at, moment)));
    let runs = crashes.map(|crash| run(Some(crash), Some(&undisturbed)));
    futures::stream::iter(runs).buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
}
