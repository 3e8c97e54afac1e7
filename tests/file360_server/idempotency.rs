use reqwest::Method;
use serde_json::json;

use crate::support::{id, start};

#[tokio::test]
async fn a_repeated_key_replays_the_first_answer() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let path = format!("/v1/workspaces/{}/folders", id(&ws));
    let ask = |body: serde_json::Value| api.ask(Method::POST, &path).json(&body).header("idempotency-key", "k1");
    let first = ask(json!({"path": "/A"})).send().await;
    let again = ask(json!({"path": "/A"})).send().await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, Some("true")));
    assert_eq!((&again.body, again.header("etag"), again.revision()), (&first.body, first.header("etag"), first.revision()));
    ask(json!({"path": "/B"})).send().await.refused(422, "idempotency-mismatch");
    api.ask(Method::POST, &path).json(&json!({"path": "/C"})).send().await.refused(400, "idempotency-key-required");
    assert_eq!(api.revision(&ws).await, 2);
    let neighbour = fixture.client("neighbour").await;
    let theirs =
        neighbour.ask(Method::POST, &path).json(&json!({"path": "/D"})).header("idempotency-key", "k1").send().await;
    assert_eq!((theirs.status.as_u16(), theirs.header("idempotency-replayed")), (201, None));
}

#[tokio::test]
async fn a_refusal_is_not_replayed_once_its_cause_is_gone() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let path = format!("/v1/workspaces/{}/folders", id(&ws));
    let ask = || api.ask(Method::POST, &path).json(&json!({"path": "/A/B"})).header("idempotency-key", "k1");
    ask().send().await.refused(422, "parent-missing");
    api.folder(&ws, "/A").await;
    ask().send().await.expect(201);
}

#[tokio::test]
async fn a_lost_reply_is_found_again_by_its_key() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let path = format!("/v1/workspaces/{}/folders", id(&ws));
    api.faults(json!({"failNext": [{"method": "POST", "pathPrefix": path, "afterCommit": true}]})).await;
    let ask = || api.ask(Method::POST, &path).json(&json!({"path": "/A"})).header("idempotency-key", "k1");
    assert!(ask().try_send().await.is_err(), "the connection is closed without an answer");
    let found = ask().send().await;
    assert_eq!(found.header("idempotency-replayed"), Some("true"));
    assert_eq!(api.revision(&ws).await, 2);
    api.faults(
        json!({"failNext": [{"status": 429, "retryAfter": 7, "count": 2}, {"truncateBody": true}, {"malformed": true}]}),
    )
    .await;
    for _ in 0..2 {
        let reply = api.get("/v1/me").send().await;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, Some("7")));
    }
    assert!(api.get("/v1/me").try_send().await.is_err());
    let malformed = api.get("/v1/me").send().await;
    assert!(malformed.status == 200 && malformed.body.is_null());
    let counters = api.get("/test/faults").send().await.expect(200)["requestCounters"].clone();
    assert_eq!(counters["whoAmI"], 4);
}
