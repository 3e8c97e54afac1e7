//! T4: who may send, and how little is told to everybody else.

use std::time::Duration;

use crate::support::{KEY, Options, SALES_KEY, now, sha256, until, world, world_with};

#[tokio::test(flavor = "multi_thread")]
async fn t4_a_signed_file_is_in_the_inbox_when_its_sender_hears_so() {
    let world = world().await;
    let push = world.push("hello").named("a.txt").header("content-type", "text/plain").header("x-metadata-kind", "letter");
    let committed = push.send().await.committed();
    assert_eq!(committed["sha256"], sha256(b"hello"));
    assert_eq!(committed["version"], 1);
    let item = world.api.get(&format!("/v1/items/{}", committed["id"].as_str().unwrap())).send().await.expect(200);
    assert_eq!((item["name"].as_str(), item["metadata"]["kind"].as_str()), (Some("a.txt"), Some("letter")));
    assert_eq!((item["mimeType"].as_str(), item["sha256"].as_str()), (Some("text/plain"), Some(sha256(b"hello").as_str())));
    assert_eq!(world.files().await["a.txt"], b"hello");
    assert_eq!(world.ended("committed"), 1);
    let mut put = world.push("");
    put.method = reqwest::Method::PUT;
    put.send().await.committed();
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_forged_requests_and_addresses_that_nobody_listens_at_get_one_and_the_same_answer() {
    let world = world().await;
    let strangers = [
        world.push("x").signed_by("a key that nobody has, 24 bytes"),
        world.push("x").signed_by(SALES_KEY),
        world.push("x").to("/ingest/sales/erp"),
        world.push("x").to("/ingest/sales/crm").signed_by(SALES_KEY),
        world.push("x").to("/ingest/legal/nothing"),
        world.push("x").to("/ingest/nobody/erp"),
        world.push("x").to("/ingest/legal/%ff"),
        world.push("x").to("/ingest/legal%2Ferp/x"),
        world.push("x").to("/ingest/LEGAL/erp"),
    ];
    let mut answers = Vec::new();
    for stranger in &strangers {
        let reply = stranger.send().await;
        assert_eq!(reply.status, 401, "{}", stranger.path);
        let headers: Vec<_> =
            reply.headers.iter().filter(|(name, _)| *name != "date").map(|(n, v)| (n.clone(), v.clone())).collect();
        answers.push((headers, reply.bytes));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(world.files().await.is_empty() && world.files_in(&world.other_inbox).await.is_empty());
    world.push("x").to("/ingest/sales/erp").signed_by(SALES_KEY).send().await.committed();
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_a_signature_is_for_its_id_its_time_and_its_bytes() {
    let world = world().await;
    let good = world.push("pay 10").id("msg_a");
    for (name, value) in [
        ("webhook-id", "msg_b".to_owned()),
        ("webhook-timestamp", (good.at + 1).to_string()),
        ("repr-digest", crate::support::repr_digest(b"pay 99")),
    ] {
        let mut changed = good.clone().without(match name {
            "webhook-id" => "webhook-id",
            "webhook-timestamp" => "webhook-timestamp",
            _ => "repr-digest",
        });
        changed.headers.push((name.to_owned(), value));
        changed.send().await.refused(401, "unauthorized");
    }
    let mut swapped = good.clone().claiming(b"pay 10");
    swapped.body = b"pay 99".to_vec();
    swapped.send().await.refused(422, "digest-mismatch");
    assert!(world.files().await.is_empty());
    good.send().await.committed();
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_what_was_signed_more_than_five_minutes_ago_or_ahead_is_refused() {
    let world = world().await;
    for off in [-301, 302, -86_400, 86_400] {
        world.push("x").at(now() + off).send().await.refused(401, "untimely");
    }
    for off in [-290, 290] {
        world.push("x").at(now() + off).send().await.committed();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_what_proves_it_says_what_is_missing() {
    let world = world().await;
    for missing in ["webhook-id", "webhook-timestamp", "webhook-signature", "repr-digest"] {
        // The same at an address that is none: nothing is told about it.
        for path in ["/ingest/legal/erp", "/ingest/nobody/nothing"] {
            let problem = world.push("x").to(path).without(missing).send().await.refused(400, "malformed");
            assert!(problem["detail"].as_str().unwrap().to_lowercase().contains(missing), "{problem}");
        }
    }
    let content_digest = world.push("x").without("repr-digest").header("content-digest", &crate::support::repr_digest(b"x"));
    content_digest.send().await.committed();
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_two_keys_count_while_one_takes_the_others_place() {
    let world = world_with(Options { every: Duration::from_millis(20), ..Options::default() }).await;
    let new = "the next key of legal, 24 bytes";
    world.push("1").signed_by(new).send().await.refused(401, "unauthorized");
    world.secrets.set("legal-key", &[KEY, new]);
    until("the new key counts", async || world.push("2").signed_by(new).send().await.status == 201).await;
    world.push("3").signed_by(KEY).send().await.committed();
    world.secrets.set("legal-key", &[new]);
    until("the old key does not count any more", async || world.push("4").signed_by(KEY).send().await.status == 401).await;
    world.push("5").signed_by(new).send().await.committed();
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_no_request_makes_the_operator_read_a_secret_or_call_file_360_before_it_is_proven() {
    let world = world().await;
    let (reads, calls) = (world.secrets.reads(), world.file360.server.counters());
    for n in 0..50 {
        let path = if n % 2 == 0 { "/ingest/legal/erp" } else { "/ingest/nobody/erp" };
        world.push("x").to(path).signed_by("a key that nobody has, 24 bytes").send().await.refused(401, "unauthorized");
    }
    assert_eq!((world.secrets.reads(), world.file360.server.counters()), (reads, calls));
    assert_eq!(world.ended("unauthorized"), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_a_secret_without_a_usable_key_opens_nothing() {
    let world = world_with(Options { every: Duration::from_millis(20), ..Options::default() }).await;
    world.secrets.set("legal-key", &[]);
    until("no key counts", async || world.push("x").send().await.status == 401).await;
    world.push("x").signed_by("").send().await.refused(401, "unauthorized");
    world.secrets.set("legal-key", &["short"]);
    world.secrets.set("sales-key", &["short"]);
    until("the short key was read", async || {
        world.push("x").to("/ingest/sales/erp").signed_by(SALES_KEY).send().await.status == 401
    })
    .await;
    world.push("x").signed_by("short").send().await.refused(401, "unauthorized");
    world.push("x").to("/ingest/sales/erp").signed_by("short").send().await.refused(401, "unauthorized");
}
