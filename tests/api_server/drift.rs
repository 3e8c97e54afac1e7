//! What others change in File 360 is seen and put right, or reported.

use serde_json::json;

use crate::support::eventually;
use crate::support::world::{World, condition};

#[tokio::test]
async fn c4_a_stranger_is_removed_and_the_event_names_who_let_them_in() {
    let world = World::new().await;
    world.workspace("w", json!({"access": {"members": [{"kind": "User", "name": "user0", "role": "Viewer"}]}})).await;
    let state = world.remote.state().await;
    let id = world.workspace_id("w").await;
    let stranger = world.remote.principal("User", "user9").await;
    world.remote.change("PUT", &format!("/v1/workspaces/{id}/members/{stranger}?path=/"), json!({"role": "Owner"})).await;
    world.remote_becomes(&state).await;
    eventually("the event", || async {
        let events = world.api("Event").list(&kube::api::ListParams::default()).await.map_err(|error| error.to_string())?;
        let notes: Vec<String> = events.items.iter().map(|event| event.data["note"].to_string()).collect();
        let told = notes.iter().any(|note| note.contains("people") && note.contains("user9"));
        told.then_some(()).ok_or_else(|| format!("{notes:?}"))
    })
    .await;
}

#[tokio::test]
async fn c4_every_kind_of_change_is_put_right() {
    let world = World::new().await;
    world.workspace("w", super::convergence::rich()).await;
    let state = world.remote.state().await;
    let id = world.workspace_id("w").await;
    let folders = world.remote.all(&format!("/v1/workspaces/{id}/folders")).await;
    let folder = |path: &str| folders.iter().find(|f| f["path"] == path).unwrap()["id"].as_str().unwrap().to_owned();
    let user0 = world.remote.principal("User", "user0").await;

    let changes = [
        ("PATCH", format!("/v1/workspaces/{id}"), json!({"displayName": "Changed", "metadata": {"region": "US"}})),
        ("PATCH", format!("/v1/workspaces/{id}"), json!({"sharing": null})),
        ("PATCH", format!("/v1/items/{}", folder("/Inbox")), json!({"name": "Renamed"})),
        ("PATCH", format!("/v1/items/{}", folder("/Contracts/Signed")), json!({"locked": false})),
        ("PUT", format!("/v1/workspaces/{id}/members/{user0}?path=/"), json!({"role": "Viewer"})),
        ("DELETE", format!("/v1/workspaces/{id}/members/{user0}?path=/"), json!({})),
        ("DELETE", format!("/v1/workspaces/{id}/upload-requests/docs"), json!({})),
        ("POST", format!("/v1/workspaces/{id}/transitions"), json!({"to": "Archived"})),
    ];
    for (method, path, body) in changes {
        world.remote.change(method, &path, body).await;
        world.remote_becomes(&state).await;
    }
    world.condition("SecureWorkspace", "w", "Ready", "True").await;
    let inbox = world.remote.get(&format!("/v1/workspaces/{id}/resolve?path=/Inbox")).await;
    assert_eq!(inbox["id"], folder("/Inbox").as_str(), "a renamed folder comes back with its content, it is not made anew");
}

#[tokio::test]
async fn c4_a_trashed_workspace_comes_back() {
    let world = World::new().await;
    world.workspace("w", super::convergence::rich()).await;
    let state = world.remote.state().await;
    let id = world.workspace_id("w").await;
    world.remote.change("DELETE", &format!("/v1/workspaces/{id}"), json!({})).await;
    world.remote_becomes(&state).await;
}

#[tokio::test]
async fn drift_that_only_warns_is_reported_and_left() {
    let world = World::new().await;
    let spec = json!({"displayName": "Declared", "drift": {"metadata": "Warn", "access": "Ignore"},
        "access": {"members": [{"kind": "User", "name": "user0", "role": "Viewer"}]}});
    world.workspace("w", spec).await;
    let id = world.workspace_id("w").await;
    let stranger = world.remote.principal("User", "user9").await;
    world.remote.change("PUT", &format!("/v1/workspaces/{id}/members/{stranger}?path=/"), json!({"role": "Viewer"})).await;
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Changed"})).await;
    let object = world.reason("SecureWorkspace", "w", "Drifted", "Tolerated").await;
    assert_eq!(condition(&object, "Ready")["status"], "True");
    assert_eq!(object["status"]["drift"]["count"], 1);
    let item = &object["status"]["drift"]["items"][0];
    assert_eq!(item["path"], "workspace/displayName");
    assert_eq!(item["by"], "Client people");
    let state = world.remote.state().await;
    assert_eq!(state[0]["displayName"], "Changed");
    assert_eq!(state[0]["parts"]["members"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn c4_two_writers_are_told_apart_and_not_looped() {
    let world = World::new().await;
    world.workspace("w", json!({"displayName": "Declared"})).await;
    let state = world.remote.state().await;
    let id = world.workspace_id("w").await;
    for round in 0..3 {
        world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": format!("Mine {round}")})).await;
        world.remote_becomes(&state).await;
    }
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Mine at last"})).await;
    let object = world.reason("SecureWorkspace", "w", "Drifted", "DriftFight").await;
    assert!(condition(&object, "Drifted")["message"].as_str().unwrap().contains("Client people"));
    assert_eq!(world.remote.state().await[0]["displayName"], "Mine at last");
}

#[tokio::test]
async fn c5_a_listing_that_fails_or_stops_halfway_removes_nothing() {
    let world = World::new().await;
    world.workspace("w", super::convergence::rich()).await;
    let state = world.remote.state().await;
    let id = world.workspace_id("w").await;
    for part in ["members", "folders", "upload-requests"] {
        let path = format!("/v1/workspaces/{id}/{part}");
        for fault in
            [json!({"status": 500}), json!({"truncateBody": true}), json!({"malformed": true}), json!({"status": 404})]
        {
            let mut fault = fault;
            fault["method"] = json!("GET");
            fault["pathPrefix"] = json!(path);
            world.remote.faults(json!({"failNext": [fault]})).await;
            let token = format!("{part}-{fault}").replace(['{', '}', '"', ':', ',', '/'], "-");
            let request =
                json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": token[..60.min(token.len())]}}});
            world.patch("SecureWorkspace", "w", request).await;
            world.condition("SecureWorkspace", "w", "Ready", "True").await;
            world.remote.faults(json!({})).await;
            assert_eq!(world.remote.state().await, state, "after {fault}");
        }
    }
}
