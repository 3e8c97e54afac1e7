//! One id is one file: whoever repeats it, whichever replica hears it, whatever was lost in between.

use std::time::Duration;

use file360_operator::inbound::body::Limits;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::file360::at_once;
use crate::support::{serve, until, world};

#[tokio::test(flavor = "multi_thread")]
async fn t4_a_request_that_comes_again_gets_the_same_answer_and_makes_no_second_file() {
    let world = world().await;
    let push = world.push("once").named("a.txt");
    let first = push.send().await.committed();
    assert_eq!(push.send().await.committed(), first);
    // A sender's own second try has a new time and signature.
    assert_eq!(push.clone().at(push.at + 1).send().await.committed(), first);
    assert_eq!(world.files().await.len(), 1);
    world.push("once").named("a.txt").send().await.committed();
    assert_eq!(world.files().await.len(), 2, "another id is another file");
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_another_replica_and_a_restarted_one_know_the_id_as_well() {
    let world = world().await;
    let push = world.push("once").named("a.txt");
    let first = push.send().await.committed();
    let stop = CancellationToken::new();
    let other = serve(&world.endpoints, &world.metrics, &stop, Limits::default(), None).await;
    let mut again = push.clone();
    again.url = format!("http://{}", other.address);
    assert_eq!(again.send().await.committed(), first);
    assert_eq!(world.files().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_an_id_that_was_used_for_something_else_is_refused() {
    let world = world().await;
    let push = world.push("once").named("a.txt");
    push.send().await.committed();
    let mut other_bytes = push.clone();
    other_bytes.body = b"other".to_vec();
    other_bytes.send().await.refused(409, "id-reused");
    push.clone().header("x-metadata-a", "b").send().await.refused(409, "id-reused");
    let mut other_name = push.clone();
    other_name.headers.clear();
    other_name.named("b.txt").send().await.refused(409, "id-reused");
    assert_eq!(world.files().await.into_iter().collect::<Vec<_>>(), [("a.txt".to_owned(), b"once".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_a_recorded_request_is_good_for_no_other_path_with_the_same_key() {
    let world = world().await;
    let push = world.push("once");
    push.send().await.committed();
    push.clone().to("/ingest/legal/crm").send().await.refused(409, "id-reused");
    assert!(world.files_in(&world.other_inbox).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_with_one_id_make_one_file() {
    let world = world().await;
    let push = world.push("once").named("a.txt");
    let replies = at_once(8, move |_| {
        let push = push.clone();
        async move { push.send().await.committed() }
    })
    .await;
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    assert_eq!(world.files().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_an_answer_of_file_360_that_is_lost_after_the_commit_costs_a_second_try_and_no_second_file() {
    let world = world().await;
    let push = world.push("once").named("a.txt");
    world.api.faults(json!({"failNext": [{"method": "POST", "pathPrefix": "/v1/items", "afterCommit": true}]})).await;
    let reply = push.send().await;
    assert!(reply.headers.contains_key("retry-after"));
    reply.refused(503, "unavailable");
    assert_eq!(world.files().await.len(), 1, "it is there all the same");
    push.send().await.committed();
    assert_eq!(world.files().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_file_360_is_away_senders_hear_when_to_come_again() {
    let world = world().await;
    world.push("before").send().await.committed();
    let push = world.push("later");
    let fault = json!({"status": 503, "retryAfter": 7, "pathPrefix": "/v1/items", "count": 1});
    world.api.faults(json!({"failNext": [fault]})).await;
    let reply = push.send().await;
    assert_eq!(reply.headers["retry-after"], "7");
    reply.refused(503, "unavailable");
    until("File 360 is back", async || push.send().await.status == 201).await;
    assert_eq!(world.files().await.len(), 2);
    // An inbox that is gone is for a person to put right: the file stays with its sender, who learns no more than that.
    let inbox = world.api.get(&format!("/v1/items/{}", crate::file360::id(&world.inbox))).send().await.expect(200);
    let path = format!("/v1/items/{}", crate::file360::id(&inbox));
    let removed = world.api.delete(&path).matching(&inbox).send().await;
    assert!(removed.status.is_success(), "{removed:?}");
    let reply = world.push("nowhere to go").send().await;
    assert_eq!(Duration::from_secs(reply.headers["retry-after"].to_str().unwrap().parse().unwrap()), Duration::from_mins(1));
    reply.refused(503, "unavailable");
}
