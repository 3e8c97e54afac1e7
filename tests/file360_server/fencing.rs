use serde_json::json;

use crate::support::{id, start};

#[tokio::test]
async fn an_older_epoch_is_refused_in_the_transaction_of_its_effect() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let fence = "/v1/fences/c1/controllers";
    api.put(fence, json!({"epoch": 3})).send().await.refused(428, "precondition-required");
    let first = api.put(fence, json!({"epoch": 3, "holder": "pod-a"})).header("if-none-match", "*").send().await;
    let etag = first.header("etag").unwrap().to_owned();
    first.expect(201);
    api.put(fence, json!({"epoch": 9})).header("if-none-match", "*").send().await.refused(412, "etag-mismatch");
    api.put(fence, json!({"epoch": 3})).header("if-match", &etag).send().await.refused(412, "fenced");
    api.put(fence, json!({"epoch": 4})).header("if-match", &etag).send().await.expect(200);

    let ws = api.workspace("one").await;
    let path = format!("/v1/workspaces/{}", id(&ws));
    let late = api.patch(&path, json!({"displayName": "late"})).matching(&ws).header("fencing-epoch", "c1/controllers=3");
    late.send().await.refused(412, "fenced");
    assert_eq!(api.revision(&ws).await, 1);
    for epoch in ["c1/controllers=4", "c1/controllers=5", "c1/other=1"] {
        let rename = api.patch(&path, json!({"displayName": epoch})).header("if-match", "*").header("fencing-epoch", epoch);
        rename.send().await.expect(200);
    }
    let odd = api.patch(&path, json!({"displayName": "x"})).header("if-match", "*").header("fencing-epoch", "nonsense");
    odd.send().await.refused(400, "malformed");
}

#[tokio::test]
async fn a_state_document_changes_by_compare_and_swap_and_belongs_to_its_client() {
    let fixture = start().await;
    let (api, neighbour) = (fixture.operator().await, fixture.client("neighbour").await);
    let path = "/v1/client-state/routes%2Ffeed-cursor";
    api.get(path).send().await.refused(404, "not-found");
    api.put(path, json!({"value": 1})).send().await.refused(428, "precondition-required");
    let first = api.put(path, json!({"value": {"cursor": "a"}})).header("if-none-match", "*").send().await.expect(201);
    api.put(path, json!({"value": 2})).header("if-none-match", "*").send().await.refused(412, "etag-mismatch");
    let second = api.put(path, json!({"value": {"cursor": "b"}})).matching(&first).send().await.expect(200);
    api.put(path, json!({"value": 3})).matching(&first).send().await.refused(412, "etag-mismatch");
    assert_eq!(api.get(path).send().await.expect(200)["value"]["cursor"], "b");
    neighbour.get(path).send().await.refused(404, "not-found");
    api.put("/v1/fences/c1/x", json!({"epoch": 2})).header("if-none-match", "*").send().await.expect(201);
    let late = api.put(path, json!({"value": 3})).matching(&second).header("fencing-epoch", "c1/x=1");
    late.send().await.refused(412, "fenced");
    api.delete(path).matching(&second).send().await.expect(204);
    let reborn = api.put(path, json!({"value": {"cursor": "a"}})).header("if-none-match", "*").send().await.expect(201);
    assert_ne!(reborn["etag"], first["etag"]);
    let huge = json!({"value": "x".repeat(256 * 1024)});
    api.put(path, huge).matching(&reborn).send().await.refused(413, "too-large");
}
