//! What deletion does, and what it never does.

use serde_json::json;

use super::convergence::rich;
use crate::support::world::{World, condition};

#[tokio::test]
async fn d1_by_default_outsiders_leave_and_everything_else_stays() {
    let world = World::new().await;
    world.workspace("w", rich()).await;
    let before = world.remote.state().await;
    world.delete_and_wait("SecureWorkspace", "w").await;
    let after = world.remote.state().await;
    assert_eq!(after[0]["owner"]["state"], "Released");
    assert_eq!(after[0]["state"], "Active");
    assert_eq!(after[0]["parts"]["folders"], before[0]["parts"]["folders"]);
    assert_eq!(after[0]["parts"]["upload-requests"], json!([]));
    let members = after[0]["parts"]["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member["kind"] != "Guest"));
}

#[tokio::test]
async fn d1_guests_and_requests_stay_when_the_spec_says_so() {
    let world = World::new().await;
    let mut spec = rich();
    spec["onDelete"] = json!({"external": "Keep"});
    world.workspace("w", spec).await;
    let before = world.remote.state().await;
    world.delete_and_wait("SecureWorkspace", "w").await;
    assert_eq!(world.remote.state().await[0]["parts"], before[0]["parts"]);
}

#[tokio::test]
async fn d1_a_workspace_without_outsiders_has_no_finalizer_and_one_with_has_it_first() {
    let world = World::new().await;
    let inside = world.workspace("inside", json!({"folders": [{"path": "/A"}]})).await;
    assert_eq!(inside["metadata"].get("finalizers"), None);
    let outside = world.workspace("outside", rich()).await;
    assert_eq!(outside["metadata"]["finalizers"], json!(["file360.io/finalizer"]));
}

#[tokio::test]
async fn c11_a_re_created_resource_finds_its_workspace_again() {
    let world = World::new().await;
    for spec in [json!({"folders": [{"path": "/A"}]}), rich()] {
        world.workspace("w", spec.clone()).await;
        let state = world.remote.state().await;
        let id = world.workspace_id("w").await;
        world.delete_and_wait("SecureWorkspace", "w").await;
        world.workspace("w", spec).await;
        assert_eq!(world.workspace_id("w").await, id);
        assert_eq!(world.remote.state().await, state);
        world.delete_and_wait("SecureWorkspace", "w").await;
    }
}

#[tokio::test]
async fn d1_archive_makes_it_read_only_and_re_creation_active_again() {
    let world = World::new().await;
    let spec = json!({"deletionPolicy": "Archive", "folders": [{"path": "/A"}]});
    world.workspace("w", spec.clone()).await;
    let state = world.remote.state().await;
    world.delete_and_wait("SecureWorkspace", "w").await;
    assert_eq!(world.remote.state().await[0]["state"], "Archived");
    world.workspace("w", spec).await;
    assert_eq!(world.remote.state().await, state);
}

#[tokio::test]
async fn d3_delete_needs_its_confirmation_and_goes_to_the_trash() {
    let world = World::new().await;
    let mut spec = rich();
    spec["deletionPolicy"] = json!("Delete");
    spec["deleteGrace"] = json!("P7D");
    world.workspace("w", spec.clone()).await;
    let state = world.remote.state().await;
    let id = world.workspace_id("w").await;
    world.delete("SecureWorkspace", "w").await;
    let object = world
        .until("SecureWorkspace", "w", "DeletionBlocked", |object| condition(object, "DeletionBlocked")["status"] == "True")
        .await;
    assert_eq!(condition(&object, "DeletionBlocked")["reason"], "AwaitingConfirmation");
    assert_eq!(world.remote.state().await, state, "nothing is touched before the confirmation");
    let wrong = json!({"metadata": {"annotations": {"file360.io/confirm-delete": "another"}}});
    world.patch("SecureWorkspace", "w", wrong).await;
    world.patch("SecureWorkspace", "w", json!({"metadata": {"annotations": {"file360.io/confirm-delete": id}}})).await;
    world.gone("SecureWorkspace", "w").await;
    let workspace = world.remote.get(&format!("/v1/workspaces/{id}")).await;
    assert_eq!((&workspace["state"], &workspace["owner"]["state"]), (&json!("Trashed"), &json!("Released")));
    // Undone by re-applying within the grace.
    world.workspace("w", spec).await;
    assert_eq!(world.workspace_id("w").await, id);
    let mut now = world.remote.state().await;
    let mut before = state;
    for state in [&mut now, &mut before] {
        state[0]["parts"]["upload-requests"].take();
    }
    assert_eq!(now, before);
}

#[tokio::test]
async fn c11_a_former_objects_deletion_never_touches_its_successor() {
    let mut world = World::new().await;
    world.workspace("w", rich()).await;
    world.kill_operator();
    // Forced away while nobody looked, and made again.
    world.patch("SecureWorkspace", "w", json!({"metadata": {"finalizers": null}})).await;
    world.delete_and_wait("SecureWorkspace", "w").await;
    let state = world.remote.state().await;
    world.apply_workspace("w", rich()).await;
    world.start_operator(&[]).await;
    world.condition("SecureWorkspace", "w", "Ready", "True").await;
    assert_eq!(world.remote.state().await, state);
}

#[tokio::test]
async fn d2_a_missing_connection_says_why_and_yields_after_a_while() {
    let mut world = World::new().await;
    world.workspace("w", rich()).await;
    world.kill_operator();
    world.patch("Connection", "file360", json!({"metadata": {"finalizers": null}})).await;
    world.delete_and_wait("Connection", "file360").await;
    world.start_operator(&["--orphan-after", "3s"]).await;
    let before = world.remote.state().await;
    world.delete("SecureWorkspace", "w").await;
    world
        .until("SecureWorkspace", "w", "DeletionBlocked", |object| {
            condition(object, "DeletionBlocked")["reason"] == "ConnectionNotFound"
        })
        .await;
    world.gone("SecureWorkspace", "w").await;
    assert_eq!(world.remote.state().await, before);
}

#[tokio::test]
async fn d2_a_connection_stays_while_a_finalizer_needs_it() {
    let world = World::new().await;
    world.workspace("w", rich()).await;
    world.delete("Connection", "file360").await;
    world
        .until("Connection", "file360", "DeletionBlocked", |object| {
            condition(object, "DeletionBlocked")["reason"] == "InUse"
        })
        .await;
    world.delete_and_wait("SecureWorkspace", "w").await;
    world.gone("Connection", "file360").await;
    assert_eq!(world.remote.state().await[0]["owner"]["state"], "Released");
}

#[tokio::test]
async fn d2_a_held_file_blocks_deletion_until_the_hold_ends() {
    let world = World::new().await;
    let spec = json!({"deletionPolicy": "Delete", "folders": [{"path": "/A"}]});
    world.workspace("w", spec).await;
    let id = world.workspace_id("w").await;
    let file = world.remote.upload(&id, "/A", "evidence.txt", b"evidence").await;
    world.remote.change("PUT", "/v1/holds/smith", json!({"matter": "2026-CV-17", "reason": "litigation"})).await;
    world.remote.change("PUT", &format!("/v1/items/{file}/holds/smith"), json!({})).await;
    world.patch("SecureWorkspace", "w", json!({"metadata": {"annotations": {"file360.io/confirm-delete": id}}})).await;
    world.delete("SecureWorkspace", "w").await;
    let object = world
        .until("SecureWorkspace", "w", "DeletionBlocked", |object| condition(object, "DeletionBlocked")["status"] == "True")
        .await;
    assert_eq!(condition(&object, "DeletionBlocked")["reason"], "Protected");
    let message = condition(&object, "DeletionBlocked")["message"].to_string();
    assert!(message.contains("evidence.txt"), "{message}");
    let workspace = world.remote.get(&format!("/v1/workspaces/{id}")).await;
    assert_eq!((&workspace["state"], &workspace["owner"]["state"]), (&json!("Active"), &json!("Active")));
}
