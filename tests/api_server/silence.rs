//! A converged system is silent, and a restarted operator catches up from a listing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::world::World;

async fn many(world: &World, count: usize) {
    for n in 0..count {
        let members: Vec<Value> =
            (0..3).map(|m| json!({"kind": "User", "name": format!("user{m}"), "role": "Viewer"})).collect();
        let spec =
            json!({"displayName": format!("Workspace {n}"), "folders": [{"path": "/A/B"}], "access": {"members": members}});
        world.apply_workspace(&format!("w{n}"), spec).await;
    }
    for n in 0..count {
        world.condition("SecureWorkspace", &format!("w{n}"), "Ready", "True").await;
    }
}

async fn versions(world: &World) -> Vec<String> {
    let all = world.api("SecureWorkspace").list(&kube::api::ListParams::default()).await.unwrap();
    all.items.iter().map(|object| format!("{:?}", object.metadata.resource_version)).collect()
}

#[tokio::test]
async fn c6_a_restart_of_a_converged_system_writes_nothing_and_asks_little() {
    let mut world = World::new().await;
    many(&world, 20).await;
    let (state, before) = (world.remote.state().await, versions(&world).await);
    world.kill_operator();
    world.start_operator(&[]).await;
    world.condition("Connection", "file360", "Ready", "True").await;
    // A change that is handled shows that the operator has caught up.
    let id = world.workspace_id("w7").await;
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Changed"})).await;
    world.remote_becomes(&state).await;
    let operator = world.operator.as_ref().unwrap();
    assert!(operator.metric("file360_reconciles_total", "SecureWorkspace").await <= 3.0, "only what changed is looked at");
    let after = versions(&world).await;
    let written = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!(written <= 1, "{written} objects were written");
    assert_eq!(operator.metric("file360_status_writes_total", "Connection").await, 0.0);
}

#[tokio::test]
async fn c6_a_change_made_while_the_operator_was_down_is_found_by_the_listing() {
    let mut world = World::new().await;
    many(&world, 3).await;
    let state = world.remote.state().await;
    let id = world.workspace_id("w1").await;
    world.kill_operator();
    let stranger = world.remote.principal("User", "user9").await;
    world.remote.change("PUT", &format!("/v1/workspaces/{id}/members/{stranger}?path=/"), json!({"role": "Owner"})).await;
    world.start_operator(&[]).await;
    world.remote_becomes(&state).await;
}

#[tokio::test]
async fn c8_a_converged_workspace_is_not_touched_again() {
    let world = World::new().await;
    world.workspace("w", super::convergence::rich()).await;
    let operator = world.operator.as_ref().unwrap();
    let (before, passes) = (versions(&world).await, operator.metric("file360_reconciles_total", "SecureWorkspace").await);
    let was = world.get("SecureWorkspace", "w").await;
    // Long enough for an update loop to show: each turn of one takes milliseconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(versions(&world).await, before, "was: {was}\nis: {}", world.get("SecureWorkspace", "w").await);
    assert_eq!(operator.metric("file360_reconciles_total", "SecureWorkspace").await, passes);
}
