//! Events: what they stand for is there before the sender has its answer; what is forged, late, repeated or meant for somebody else does nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{KeyInit as _, Mac as _};
use serde_json::{Value, json};

use super::sets::{apply, children, from_crm, generated, keys_become, name_of, template};
use crate::support::crm::{Crm, deal};
use crate::support::world::{World, condition};
use crate::support::{eventually, free_port, kubernetes};

pub const KEY: &str = "the key of the customer system";

/// One request: everything that a sender can get wrong.
#[derive(Clone)]
pub struct Push {
    pub url: String,
    pub key: String,
    pub id: String,
    pub at: i64,
    pub media_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Push {
    /// A CloudEvent about a deal.
    pub fn won(url: &str, id: &str, deal: &Value) -> Self {
        let event = json!({"specversion": "1.0", "id": id, "source": "/crm", "type": "won", "data": deal});
        Self { media_type: "application/cloudevents+json", ..Self::plain(url, id, &event) }
    }

    /// Plain JSON.
    pub fn plain(url: &str, id: &str, body: &Value) -> Self {
        Self {
            url: url.to_owned(),
            key: KEY.to_owned(),
            id: id.to_owned(),
            at: jiff::Timestamp::now().as_second(),
            media_type: "application/json",
            headers: Vec::new(),
            body: body.to_string(),
        }
    }

    /// Sends it: status and body of the answer.
    pub async fn send(&self) -> (u16, Value) {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(self.key.as_bytes()).unwrap();
        mac.update(format!("{}.{}.{}", self.id, self.at, self.body).as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let mut request = reqwest::Client::new()
            .post(&self.url)
            .header("webhook-id", &self.id)
            .header("webhook-timestamp", self.at)
            .header("webhook-signature", format!("v1,{signature}"))
            .header("content-type", self.media_type);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        match request.body(self.body.clone()).send().await {
            Ok(answer) => (answer.status().as_u16(), answer.json().await.unwrap_or_default()),
            Err(_) => (0, Value::Null),
        }
    }
}

pub fn from_events(path: &str) -> Value {
    json!({
        "generators": [{"name": "won", "events": {"path": path, "hmacRef": {"name": "crm"},
            "when": "!has(event.type) || event.type == 'won'", "key": "event.data.id"}}],
        "template": template(),
    })
}

/// A world whose operator has an inbound endpoint; the address of the endpoint `deals` in it.
pub async fn world() -> (World, String) {
    let mut world = World::without_operator(kubernetes::shared().await).await;
    let address = format!("127.0.0.1:{}", free_port());
    world.start_operator(&["--inbound-address", &address, "--public-url", &format!("http://{address}")]).await;
    world.connect().await;
    keys(&world, json!({"2026": KEY})).await;
    let url = format!("http://{address}/events/{}/deals", world.namespace);
    (world, url)
}

pub async fn keys(world: &World, keys: Value) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "crm"}, "stringData": keys});
    kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
}

/// Sends until the endpoint is open.
pub async fn until_taken(push: &Push) -> (u16, Value) {
    eventually("the endpoint to take it", || async {
        let push = Push { at: jiff::Timestamp::now().as_second(), ..push.clone() };
        let answer = push.send().await;
        if (200..300).contains(&answer.0) { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await
}

#[tokio::test]
async fn the_workspace_is_there_before_the_sender_has_its_answer() {
    let (world, url) = world().await;
    let object = generated(&world, "deals", from_events("deals")).await;
    assert_eq!(object["status"]["generators"][0]["url"], url.as_str(), "{}", object["status"]);
    until_taken(&Push::won(&url, "e0", &deal("first"))).await;
    for number in 0..5 {
        let id = format!("d{number}");
        let answer = Push::won(&url, &format!("e{}", number + 1), &deal(&id)).send().await;
        assert_eq!((answer.0, &answer.1["outcome"]), (201, &json!("created")), "{answer:?}");
        let name = answer.1["name"].as_str().unwrap();
        let found = world.get("SecureWorkspace", name).await;
        assert_eq!(found["spec"]["displayName"], format!("Deal {id}"));
    }
    let object = world.condition("SecureWorkspaceSet", "deals", "ChildrenReady", "True").await;
    let object = if object["status"]["items"] == 6 {
        object
    } else {
        world.until("SecureWorkspaceSet", "deals", "six items", |object| object["status"]["ready"] == 6).await
    };
    assert_eq!(object["status"]["items"], 6, "{}", object["status"]);
}

#[tokio::test]
async fn the_same_event_again_does_nothing_even_after_newer_ones_and_others_count() {
    let (world, url) = world().await;
    generated(&world, "deals", from_events("deals")).await;
    let first = Push::won(&url, "e1", &deal("a"));
    until_taken(&first).await;
    assert_eq!(first.send().await.1["outcome"], "unchanged");
    let mut newer = deal("a");
    newer["name"] = json!("Renamed");
    let (status, answer) = Push::won(&url, "e2", &newer).send().await;
    assert_eq!((status, &answer["outcome"]), (200, &json!("changed")));
    // The sender of the first event never heard that it was taken, and sends it in another request.
    let again = Push { id: "another-request".into(), ..first.clone() };
    assert_eq!(again.send().await.1["outcome"], "unchanged");
    assert_eq!(children(&world, "deals").await["a"]["spec"]["displayName"], "Renamed");

    let lost = Push { body: first.body.replace("won", "lost").replace("e1", "e3"), ..first.clone() };
    assert_eq!(lost.send().await.1["outcome"], "ignored");
    let plain = Push::plain(&url, "p1", &deal("plain"));
    assert_eq!(plain.send().await.0, 201);
    assert_eq!(plain.send().await.1["outcome"], "unchanged");
    let binary = Push {
        headers: vec![
            ("ce-specversion", "1.0".into()),
            ("ce-id", "b1".into()),
            ("ce-source", "/crm".into()),
            ("ce-type", "won".into()),
        ],
        ..Push::plain(&url, "b1", &deal("binary"))
    };
    assert_eq!(binary.send().await.0, 201);
    keys_become(&world, "deals", &["a", "binary", "plain"]).await;
}

#[tokio::test]
async fn t4_what_is_forged_late_or_unfit_does_nothing() {
    let (world, url) = world().await;
    keys(&world, json!({"2026": KEY, "2027": "the next key of the same system"})).await;
    generated(&world, "deals", from_events("deals")).await;
    let good = Push::won(&url, "e1", &deal("a"));
    until_taken(&good).await;
    let rotated = Push { key: "the next key of the same system".into(), ..Push::won(&url, "e2", &deal("b")) };
    assert_eq!(rotated.send().await.0, 201, "two keys count");
    let evil = || Push::won(&url, "e3", &deal("evil"));
    let now = evil().at;
    let cases: Vec<(Push, u16, &str)> = vec![
        (Push { key: "somebody else's key, of 24 bytes".into(), ..evil() }, 401, "unauthorized"),
        (Push { at: now - 301, ..evil() }, 401, "untimely"),
        (Push { at: now + 302, ..evil() }, 401, "untimely"),
        (Push { url: url.replace("/deals", "/other"), ..evil() }, 401, "unauthorized"),
        (Push { url: url.replace(&world.namespace, "default"), ..evil() }, 401, "unauthorized"),
        (Push { media_type: "text/plain", ..evil() }, 415, "media-type"),
        (Push { media_type: "application/cloudevents-batch+json", ..evil() }, 415, "media-type"),
        (Push { body: "{".into(), ..evil() }, 422, "invalid"),
        (Push { body: "x".repeat(300 * 1024), ..evil() }, 413, "too-large"),
        (Push::won(&url, "e4", &json!({"name": "no id", "amount": 1})), 422, "invalid"),
        (Push::won(&url, "e5", &json!({"id": "no-name", "amount": 1})), 422, "invalid"),
        (Push::won(&url, "e6", &json!({"id": "long", "name": "x".repeat(300), "amount": 1})), 422, "invalid"),
        (Push::won(&url, "e7", &json!({"id": "fat", "name": "n", "amount": 1, "fat": "x".repeat(40_000)})), 422, "invalid"),
    ];
    for (push, status, code) in cases {
        let answer = push.send().await;
        assert_eq!((answer.0, answer.1["code"].as_str()), (status, Some(code)), "{} {:.200}", push.id, push.body);
    }
    let signed = reqwest::Client::new().post(&url).body("{}").send().await.unwrap();
    assert_eq!(signed.status(), 400, "no headers at all");
    assert_eq!(children(&world, "deals").await.keys().collect::<Vec<_>>(), ["a", "b"]);
    let log = world.log();
    assert!(!log.contains(KEY), "keys are in no log");
}

#[tokio::test]
async fn a_standby_takes_events_too_and_a_leader_makes_them_anew_when_the_template_changes() {
    let (mut world, url) = world().await;
    let mut spec = from_events("deals");
    spec["onItemGone"] = json!("Delete");
    generated(&world, "deals", spec.clone()).await;
    until_taken(&Push::won(&url, "e1", &deal("a"))).await;
    // The same Lease held by nobody that works: this one stands by.
    let address = format!("127.0.0.1:{}", free_port());
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "held"}, "spec": {
        "holderIdentity": "somebody", "leaseDurationSeconds": 3600, "renewTime": "2999-01-01T00:00:00.000000Z", "acquireTime": "2026-01-01T00:00:00.000000Z"}});
    kubernetes::apply(&world.client, &world.namespace, &lease).await.unwrap();
    let namespace = world.namespace.clone();
    let flags =
        ["--inbound-address", &address, "--leader-elect", "true", "--lease-name", "held", "--lease-namespace", &namespace];
    world.kill_operator();
    let standby = world.spawn_operator(&flags);
    let at_standby = format!("http://{address}/events/{}/deals", world.namespace);
    let (status, answer) = until_taken(&Push::won(&at_standby, "e2", &deal("b"))).await;
    assert_eq!((status, &answer["outcome"]), (201, &json!("created")));
    assert_eq!(Push::won(&at_standby, "e1", &deal("a")).send().await.1["outcome"], "unchanged", "what another replica took");
    assert_eq!(standby.metric("file360_leader", "").await, 0.0, "it does not lead");
    standby.kill();

    world.start_operator(&[]).await;
    spec["template"]["spec"]["displayName"] = json!("Room of ${item.name}");
    generated(&world, "deals", spec.clone()).await;
    for key in ["a", "b"] {
        let name = name_of(&world, "deals", key).await;
        world
            .until("SecureWorkspace", &name, "the new name", |object| {
                object["spec"]["displayName"] == format!("Room of Deal {key}")
            })
            .await;
    }
    // Nothing lists these, so nothing tells that they are gone: not even without their generator.
    spec["generators"] = json!([{"name": "x", "list": {"items": [deal("z")], "key": "item.id"}}]);
    generated(&world, "deals", spec).await;
    keys_become(&world, "deals", &["a", "b", "z"]).await;
}

#[tokio::test]
async fn an_event_is_faster_than_a_listing_and_the_listing_takes_the_item_over() {
    let (world, url) = world().await;
    let crm = Crm::start(&[deal("a")]).await;
    let mut spec = from_crm(&crm);
    spec["generators"].as_array_mut().unwrap().push(from_events("deals")["generators"][0].clone());
    spec["onItemGone"] = json!("Delete");
    generated(&world, "deals", spec).await;
    until_taken(&Push::won(&url, "e1", &deal("b"))).await;
    keys_become(&world, "deals", &["a", "b"]).await;
    crm.lists(&["a", "b"].map(deal));
    let name = name_of(&world, "deals", "b").await;
    world
        .until("SecureWorkspace", &name, "the listing's", |object| {
            object["metadata"]["annotations"]["file360.io/set-generator"] == "http/crm"
        })
        .await;
    assert_eq!(Push::won(&url, "e1", &deal("b")).send().await.1["outcome"], "unchanged", "it is remembered all the same");
    crm.lists(&[deal("a")]);
    keys_become(&world, "deals", &["a"]).await;
}

#[tokio::test]
async fn a_suspended_set_a_missing_key_and_a_taken_path_are_told() {
    let (world, url) = world().await;
    generated(&world, "deals", from_events("deals")).await;
    until_taken(&Push::won(&url, "e1", &deal("a"))).await;
    world.patch("SecureWorkspaceSet", "deals", json!({"spec": {"suspend": true}})).await;
    eventually("503", || async {
        let answer = Push::won(&url, "e2", &deal("b")).send().await;
        if answer.0 == 503 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    apply(&world, "younger", from_events("deals")).await;
    let object = world.reason("SecureWorkspaceSet", "younger", "Ready", "InvalidSpec").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("belongs to SecureWorkspaceSet deals"));
    let mut keyless = from_events("keyless");
    keyless["generators"][0]["events"]["hmacRef"]["name"] = json!("nowhere");
    apply(&world, "keyless", keyless).await;
    world.reason("SecureWorkspaceSet", "keyless", "Ready", "ReferenceNotFound").await;
    assert!(!children(&world, "younger").await.contains_key("b"));
    // The path goes to whom it belongs next, and back to none.
    world.delete("SecureWorkspaceSet", "deals").await;
    world.reason("SecureWorkspaceSet", "younger", "Ready", "Generated").await;
    until_taken(&Push::won(&url, "e3", &deal("c"))).await;
    assert!(children(&world, "younger").await.contains_key("c"));
}
