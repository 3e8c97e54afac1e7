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

#[tokio::test]
async fn an_expired_token_is_renewed_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let short = crate::support::remote::Remote::start_with(folder.path(), &["--token-lifetime", "1"]).await;
    let mut world = World::without_operator(crate::support::kubernetes::shared().await).await;
    world.endpoint.clone_from(&short.url);
    world.start_operator(&[]).await;
    world.connect().await;
    let operator = world.operator.as_ref().unwrap();
    let start = std::time::Instant::now();
    let mut number = 0;
    while start.elapsed() < std::time::Duration::from_secs(4) {
        world.workspace(&format!("w{number}"), json!({})).await;
        number += 1;
    }
    assert_eq!(operator.metric("file360_retries_total", "").await, 0.0);
}

#[tokio::test]
async fn an_outage_with_many_dependants_causes_no_write_storm() {
    let mut world = World::new().await;
    for number in 0..60 {
        world.apply_workspace(&format!("w{number}"), json!({})).await;
    }
    for number in 0..60 {
        world.condition("SecureWorkspace", &format!("w{number}"), "Ready", "True").await;
    }
    let operator = world.operator.as_ref().unwrap();
    let before = operator.metric("file360_status_writes_total", "SecureWorkspace").await;
    world.remote.kill();
    world.reason("Connection", "file360", "Ready", "Unreachable").await;
    for number in 0..60 {
        let token = json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": "during-the-outage"}}});
        world.patch("SecureWorkspace", &format!("w{number}"), token).await;
    }
    crate::support::eventually("the passes", || async {
        let deferred = operator.metric("file360_reconciles_total", "unavailable").await;
        if deferred >= 60.0 { Ok(()) } else { Err(deferred.to_string()) }
    })
    .await;
    assert_eq!(operator.metric("file360_status_writes_total", "SecureWorkspace").await, before);
    world.remote.restart().await;
    for number in 0..60 {
        world
            .until("SecureWorkspace", &format!("w{number}"), "the request to be handled", |object| {
                object["status"]["lastHandledReconcileAt"] == "during-the-outage"
            })
            .await;
    }
}
