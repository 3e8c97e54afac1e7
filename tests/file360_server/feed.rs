use std::time::Duration;

use serde_json::json;

use crate::support::{at_once, id, start};

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_has_no_holes_under_parallel_writers() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let writer = api.clone();
    at_once(200, move |n| {
        let api = writer.clone();
        async move {
            let ws = api.workspace(&format!("w{n}")).await;
            // Every third call is refused: it must not leave a hole.
            if n % 3 == 0 {
                api.put(&format!("/v1/workspaces/by-key/test/w{n}"), json!({"displayName": "x"}))
                    .header("if-none-match", "*")
                    .send()
                    .await
                    .refused(409, "key-exists");
            }
            api.folder(&ws, "/A").await;
        }
    })
    .await;
    let (entries, _) = api.changes("earliest").await;
    let sequences: Vec<_> = entries.iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (1..=entries.len() as u64).collect();
    assert_eq!(sequences, expected);
    assert!(entries.len() >= 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_wakes_who_waits() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, cursor) = api.changes("now").await;
    let waiting = {
        let api = api.clone();
        let path = format!("/v1/changes?cursor={cursor}&wait=30");
        tokio::spawn(async move { api.get(&path).send().await.expect(200) })
    };
    // Wherever the poll has got to, the entry reaches it long before its thirty seconds are over.
    let ws = api.workspace("one").await;
    let page = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("woken").unwrap();
    assert_eq!(page["items"][0]["workspaceId"], id(&ws));
    assert_eq!(page["hasMore"], false);
}

#[tokio::test]
async fn entries_say_who_and_why() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let create = api.put("/v1/workspaces/by-key/test/one", json!({"displayName": "One"})).header("if-none-match", "*");
    create.header("caused-by", "sws/team/acme/uid-1").send().await.expect(201);
    let (entries, _) = api.changes("earliest").await;
    let last = entries.last().unwrap();
    assert_eq!(last["causedBy"], "sws/team/acme/uid-1");
    assert_eq!((&last["actor"]["kind"], &last["actor"]["name"]), (&json!("Client"), &json!("operator")));
}

#[tokio::test]
async fn an_old_cursor_and_one_of_another_history_have_expired() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, cursor) = api.changes("earliest").await;
    let before = api.get("/v1/service").send().await.expect(200)["feedEpoch"].clone();
    api.faults(json!({"feedEpochBump": true})).await;
    api.get(&format!("/v1/changes?cursor={cursor}")).send().await.refused(410, "cursor-expired");
    assert_ne!(api.get("/v1/service").send().await.expect(200)["feedEpoch"], before);
    let (_, cursor) = api.changes("now").await;
    api.faults(json!({"expireCursors": true})).await;
    api.get(&format!("/v1/changes?cursor={cursor}")).send().await.refused(410, "cursor-expired");
    api.faults(json!({})).await;
    api.get(&format!("/v1/changes?cursor={cursor}")).send().await.expect(200);
    api.workspace("one").await;
    fixture.server.clock().set_offset_seconds(15 * 86_400);
    fixture.server.sweep().await;
    let api = fixture.operator().await;
    api.get(&format!("/v1/changes?cursor={cursor}")).send().await.refused(410, "cursor-expired");
    let (entries, _) = api.changes("earliest").await;
    assert!(entries.is_empty());
    api.workspace("two").await;
    let (entries, _) = api.changes("earliest").await;
    assert!(entries[0]["sequence"].as_u64().unwrap() > 1, "positions are never given twice");
}
