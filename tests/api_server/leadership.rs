//! C9: one leader at a time, and an old leader's late write is refused.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::kubernetes;
use crate::support::world::{Operator, World};

const SHORT: [&str; 6] = ["--leader-elect", "true", "--lease-duration", "3s", "--renew-deadline", "2s"];

fn signal(operator: &Operator, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &operator.pid().to_string()]).status().unwrap().success());
}

async fn leads(operator: &Operator) {
    crate::support::eventually("the leadership", || async {
        if operator.try_metric("file360_leader").await == Some(1.0) { Ok(()) } else { Err("standby".into()) }
    })
    .await;
}

#[tokio::test]
async fn c9_a_standby_takes_over_and_the_old_leader_stops_itself() {
    let world = World::without_operator(kubernetes::shared().await).await;
    let first = world.spawn_operator(&SHORT);
    leads(&first).await;
    world.connect().await;
    world.workspace("w", json!({"displayName": "One"})).await;
    let second = world.spawn_operator(&SHORT);
    signal(&first, "STOP");
    leads(&second).await;
    world.workspace("w", json!({"displayName": "Two"})).await;
    let state = world.remote.state().await;
    signal(&first, "CONT");
    assert!(!first.wait(), "the old leader ends with an error");
    // The new leader goes on undisturbed.
    let id = world.workspace_id("w").await;
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Changed"})).await;
    world.remote_becomes(&state).await;
}

#[tokio::test]
async fn c9_an_older_epoch_is_refused_by_file_360_itself() {
    let mut world = World::new().await;
    world.workspace("w", json!({"displayName": "One"})).await;
    // Both believe that they lead: no Lease keeps them apart.
    let old = world.operator.take().unwrap();
    signal(&old, "STOP");
    world.start_operator(&[]).await;
    let operator = world.operator.as_ref().unwrap();
    crate::support::eventually("the new session", || async {
        let calls = operator.metric("file360_api_calls_total", "take_the_fence").await;
        if calls >= 2.0 { Ok(()) } else { Err(calls.to_string()) }
    })
    .await;
    world.workspace("w", json!({"displayName": "Two"})).await;
    world.kill_operator();
    let state = world.remote.state().await;
    signal(&old, "CONT");
    world.apply_workspace("w", json!({"displayName": "Three"})).await;
    let object = world.reason("SecureWorkspace", "w", "Ready", "Fenced").await;
    assert_ne!(object["status"], Value::Null);
    assert_eq!(world.remote.state().await, state, "nothing of the old leader arrives");
    old.kill();
}

#[tokio::test]
async fn a_termination_signal_ends_the_process_well_and_frees_the_lease() {
    let world = World::without_operator(kubernetes::shared().await).await;
    let first = world.spawn_operator(&["--leader-elect", "true", "--lease-duration", "1h", "--renew-deadline", "30m"]);
    leads(&first).await;
    assert!(first.stop(), "the process ends with status 0");
    let second = world.spawn_operator(&["--leader-elect", "true"]);
    leads(&second).await;
}
