//! What can be wrong with a Connection: each has its condition with a sentence that says what to do, and recovers by itself.

use serde_json::json;

use crate::support::remote::CLIENT_SECRET;
use crate::support::world::{World, condition};

#[tokio::test]
async fn wrong_credentials_are_named_and_a_corrected_secret_is_taken_up() {
    let mut world = World::without_operator(crate::support::kubernetes::shared().await).await;
    world.start_operator(&["--secret-interval", "1s"]).await;
    world.apply_connection(json!({})).await;
    world.condition("Connection", "file360", "Ready", "True").await;
    world.apply_secret("credential", "operator", "wrong").await;
    let object = world.reason("Connection", "file360", "Ready", "AuthenticationFailed").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("Secret"));
    world.apply_secret("credential", "operator", CLIENT_SECRET).await;
    world.condition("Connection", "file360", "Ready", "True").await;
}

#[tokio::test]
async fn t5_a_secret_that_names_another_endpoint_is_not_used() {
    let world = World::new().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credential"},
        "stringData": {"endpoint": "https://elsewhere.example", "clientId": "operator", "clientSecret": CLIENT_SECRET}});
    crate::support::kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
    world
        .patch("Connection", "file360", json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": "1"}}}))
        .await;
    let object = world.reason("Connection", "file360", "Ready", "CredentialNotBound").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("endpoint"));
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let world = World::new().await;
    let auth = json!({"auth": {"token": {"secretRef": {"name": "nowhere", "key": "token"}}}});
    world
        .apply("Connection", "other", json!({"endpoint": world.endpoint, "allowInsecure": true, "auth": auth["auth"]}))
        .await;
    let object = world.reason("Connection", "other", "Ready", "ReferenceNotFound").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("nowhere"));
}

#[tokio::test]
async fn an_outage_is_said_by_the_connection_and_not_by_its_dependants() {
    let mut world = World::new().await;
    let before = world.workspace("w", json!({"displayName": "One"})).await;
    world.remote.kill();
    world.reason("Connection", "file360", "Ready", "Unreachable").await;
    world.apply_workspace("w", json!({"displayName": "Two"})).await;
    let during = world.get("SecureWorkspace", "w").await;
    assert_eq!(during["status"], before["status"], "a dependant keeps its last status");
    world.remote.restart().await;
    world.condition("Connection", "file360", "Ready", "True").await;
    world.condition("SecureWorkspace", "w", "Ready", "True").await;
    assert_eq!(world.remote.state().await[0]["displayName"], "Two");
}

#[tokio::test]
async fn a_long_outage_is_written_to_the_dependants_and_taken_back() {
    let mut world = World::without_operator(crate::support::kubernetes::shared().await).await;
    world.start_operator(&["--outage-grace", "1s"]).await;
    world.connect().await;
    world.workspace("w", json!({})).await;
    world.remote.kill();
    world.reason("SecureWorkspace", "w", "Ready", "ConnectionUnavailable").await;
    world.remote.restart().await;
    world.condition("SecureWorkspace", "w", "Ready", "True").await;
}

#[tokio::test]
async fn t1_a_resource_cannot_use_a_connection_that_is_not_there_for_it() {
    let world = World::new().await;
    let mut spec = crate::support::world::on_connection(json!({}));
    spec["connectionRef"] = json!({"name": "file360", "namespace": "somewhere-else"});
    world.apply("SecureWorkspace", "w", spec).await;
    let object = world.reason("SecureWorkspace", "w", "Ready", "ConnectionNotGranted").await;
    assert!(
        !condition(&object, "Ready")["message"].as_str().unwrap().contains("somewhere-else"),
        "nothing is told about it"
    );
}

#[tokio::test]
async fn the_named_connection_is_used() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let other = crate::support::remote::Remote::start(folder.path()).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"},
        "stringData": {"endpoint": other.url, "clientId": "operator", "clientSecret": CLIENT_SECRET}});
    crate::support::kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
    let auth = json!({"oauth2": {"clientIdRef": {"name": "other", "key": "clientId"}, "clientSecretRef": {"name": "other", "key": "clientSecret"}}});
    world.apply("Connection", "other", json!({"endpoint": other.url, "allowInsecure": true, "auth": auth})).await;
    let spec = json!({"connectionRef": {"name": "other"}, "displayName": "Over there"});
    world.apply("SecureWorkspace", "w", spec).await;
    world.condition("SecureWorkspace", "w", "Ready", "True").await;
    assert_eq!(world.remote.state().await, json!([]));
    assert_eq!(other.state().await[0]["displayName"], "Over there");
}
