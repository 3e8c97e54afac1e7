//! C2 and R1 for reports: the operator dies before, after and with the lost reply of every mutating request, to File 360, to the API server and
//! to the system that is told, and starts again without its volumes. Everything is told, in order, and each event has one id and one key.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};

use super::crash_points::scripted;
use crate::support::case_system::{Accepted, CaseSystem};
use crate::support::eventually;
use crate::support::proxy::{self, MOMENTS, Moment, Script};

/// Worlds at once.
const AT_ONCE: usize = 4;
/// Longer than the operator waits before it writes anything.
const QUIET: Duration = Duration::from_millis(1300);

/// What was told: the types in order.
fn told(cases: &CaseSystem) -> Vec<String> {
    let types = |one: &Accepted| one.json()["type"].as_str().unwrap_or_default().rsplit('.').next().unwrap().to_owned();
    cases.accepted().iter().map(types).collect()
}

/// One run: a workspace is made, something happens, it is deleted. What was told, and what was asked.
async fn run(crash: Option<(usize, Moment)>) -> (Vec<String>, Vec<String>) {
    let script = Script::new(crash);
    let mut world = scripted(&script, &[]).await;
    let mut operator = world.operator.take().unwrap();
    let cases = CaseSystem::start().await;
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/crm", proxy::start(&cases.url, plain, script.clone()).await);
    script.arm();
    let spec =
        json!({"displayName": "W", "folders": [{"path": "/Inbox"}], "report": [{"name": "crm", "http": {"url": url}}]});
    let life = async {
        world.apply_workspace("w", spec).await;
        world.condition("SecureWorkspace", "w", "Ready", "True").await;
        let id = world.workspace_id("w").await;
        world.remote.upload(&id, "/Inbox", "a.txt", b"a").await;
        let item = world.remote.upload(&id, "/Inbox", "b.txt", b"b").await;
        world.remote.change("DELETE", &format!("/v1/items/{item}"), json!({})).await;
        eventually("four events", || async {
            let there = told(&cases);
            if there.len() >= 4 { Ok(()) } else { Err(format!("{there:?}; {:?}", script.lines.lock())) }
        })
        .await;
        world.delete_and_wait("SecureWorkspace", "w").await;
    };
    if crash.is_none() {
        life.await;
        script.quiet(QUIET).await;
    } else {
        // The operator dies somewhere in this life; the number of requests differs a little from run to run.
        let mut life = std::pin::pin!(life);
        let died = tokio::select! {
            () = script.die.notified() => true,
            () = &mut life => false,
        };
        if died {
            operator.kill();
            script.dead.store(true, Ordering::SeqCst);
            script.disarm();
            operator = world.spawn_operator(&[]);
            life.await;
        }
    }
    drop(operator);
    let lines = script.lines.lock().clone();
    let ids: Vec<Value> = cases.accepted().iter().map(|one| one.json()["id"].clone()).collect();
    let mut distinct = ids.clone();
    distinct.sort_by_key(ToString::to_string);
    distinct.dedup();
    assert_eq!(distinct.len(), ids.len(), "killed at {crash:?} ({:?}): one event has one key: {ids:?}", lines.last());
    (told(&cases), lines)
}

#[tokio::test]
async fn c2_everything_is_told_whatever_request_the_operator_dies_at() {
    let (undisturbed, lines) = run(None).await;
    assert_eq!(undisturbed, ["provisioned", "uploaded", "uploaded", "deleted", "released"]);
    assert!(lines.len() >= 10, "the proxies see too little: {lines:?}");
    println!("N = {} mutating requests, {} runs", lines.len(), 3 * lines.len());
    let points = (1..=lines.len()).flat_map(|at| MOMENTS.map(|moment| (at, moment)));
    let runs = points.map(|point| async move {
        let (told, lines) = run(Some(point)).await;
        assert_eq!(
            told,
            ["provisioned", "uploaded", "uploaded", "deleted", "released"],
            "killed at {point:?}: {:?}",
            lines.last()
        );
    });
    futures::stream::iter(runs).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
}
