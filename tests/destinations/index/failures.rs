//! A cluster that is busy, away, wrong or hostile. Always against the counterpart, which can be all of that on demand.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum_server::tls_rustls::RustlsConfig;
use file360_operator::error::Kind;
use file360_operator::routes::delivery::{Delivery, Destination, RouteId};
use file360_operator::routes::destinations::index::IndexDestination;
use serde_json::{Value, json};

use super::cluster::Fake;
use super::{Sales, Search, as_of, at, document_id, try_build};
use crate::suite::{Arrived, Place, Secrets, cases, delivery, route};

struct Guarded {
    search: Search,
    secrets: Arc<Secrets>,
    destination: Arc<IndexDestination>,
}

impl Guarded {
    fn fake(&self) -> &Fake {
        self.search.fake.as_ref().unwrap()
    }
}

/// With a bearer token.
async fn guarded() -> Guarded {
    let search = Search::fake();
    search.fake.as_ref().unwrap().want("authorization", "Bearer correct-horse");
    let secrets = Arc::new(Secrets::default());
    secrets.put("search", "token", "correct-horse");
    let mut spec = search.spec();
    spec["opensearch"]["auth"] = json!({"bearer": {"tokenRef": {"name": "search", "key": "token"}}});
    let destination = try_build(spec, secrets.clone(), &["127.0.0.1"], Arc::new(Sales)).unwrap();
    Guarded { search, secrets, destination: Arc::new(destination) }
}

#[async_trait]
impl Place for Guarded {
    fn destination(&self) -> Arc<dyn Destination> {
        self.destination.clone()
    }

    async fn arrived(&self) -> Vec<Arrived> {
        self.fake().want("accept", "*/*");
        let documents = self.search.documents().await;
        self.fake().want("authorization", "Bearer correct-horse");
        let name = |document: &Value| document["name"].as_str().unwrap().to_owned();
        documents.values().map(|document| Arrived { name: name(document), bytes: document.to_string().into() }).collect()
    }

    async fn stop(&self) {
        self.fake().stop().await;
    }

    async fn start_again(&self) {
        self.fake().start_again();
    }

    async fn spoil_credential(&self) -> &'static str {
        self.secrets.put("search", "token", "spoiled");
        file360_operator::outbound::secrets::References::refused(&*self.secrets);
        "token"
    }

    async fn mend_credential(&self) {
        self.secrets.put("search", "token", "correct-horse");
    }
}

cases!(
    guarded,
    [down_is_unavailable_and_back_is_back, t5_a_wrong_credential_is_named_and_a_new_one_works_without_a_restart]
);

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_changed_is_read_again_before_anything_fails() {
    let place = guarded().await;
    place.destination.deliver(&as_of("i-1", 1)).await.unwrap();
    place.secrets.put("search", "token", "another");
    place.fake().want("authorization", "Bearer another");
    place.destination.deliver(&as_of("i-2", 1)).await.expect("one refusal, then the new token");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_authenticate_sends_what_it_should() {
    for (auth, header, value) in [
        (
            json!({"basic": {"usernameRef": {"name": "s", "key": "user"}, "passwordRef": {"name": "s", "key": "secret"}}}),
            "authorization",
            "Basic YWRhOnB3",
        ),
        (json!({"apiKey": {"header": "X-Api-Key", "keyRef": {"name": "s", "key": "secret"}}}), "x-api-key", "pw"),
        (json!({"bearer": {"tokenRef": {"name": "s", "key": "secret"}}}), "authorization", "Bearer pw"),
    ] {
        let search = Search::fake();
        search.fake.as_ref().unwrap().want(header, value);
        let secrets = Arc::new(Secrets::default());
        secrets.put("s", "user", "ada");
        secrets.put("s", "secret", "pw");
        let mut spec = search.spec();
        spec["opensearch"]["auth"] = auth;
        let destination = try_build(spec, secrets, &["127.0.0.1"], Arc::new(Sales)).unwrap();
        destination.deliver(&as_of("i-1", 1)).await.unwrap_or_else(|error| panic!("{header}: {error}"));
    }
    let search = Search::fake();
    let mut spec = search.spec();
    spec["opensearch"]["auth"] = json!({"hmac": {"keyRef": {"name": "s", "key": "k"}}});
    let refused = try_build(spec, Arc::default(), &["127.0.0.1"], Arc::new(Sales)).err().unwrap();
    assert_eq!(refused.field, "index.opensearch.auth.hmac");
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_credential_goes_only_to_the_host_that_its_secret_names() {
    let place = guarded().await;
    place.secrets.only_for(&["search.example.com"]);
    let error = place.destination.deliver(&as_of("i-1", 1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Reference, "{error}");
    assert_eq!(place.fake().requests(""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_item_waits_and_the_others_are_written() {
    let search = Search::fake();
    let destination = search.destination();
    destination.deliver(&as_of("i-0", 1)).await.unwrap();
    search.fake.as_ref().unwrap().busy(3);
    let deliveries: Vec<Delivery> = (1..=10).map(|n| as_of(&format!("i-{n}"), 1)).collect();
    let results = futures::future::join_all(deliveries.iter().map(|delivery| destination.deliver(delivery))).await;
    let busy: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert_eq!(busy.len(), 3);
    assert!(busy.iter().all(|error| error.kind == Kind::RateLimited && error.retry_after.is_some()), "{busy:?}");
    assert_eq!(search.documents().await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_cluster_says_how_long_to_stay_away() {
    let search = Search::fake();
    let destination = search.destination();
    destination.deliver(&as_of("i-0", 1)).await.unwrap();
    let fake = search.fake.as_ref().unwrap();
    fake.rig(
        "_bulk",
        429,
        &[("retry-after", "7")],
        json!({"error": {"type": "circuit_breaking_exception", "reason": "Data too large"}}),
    );
    let error = destination.deliver(&as_of("i-1", 1)).await.unwrap_err();
    assert_eq!((error.kind, error.retry_after), (Kind::RateLimited, Some(Duration::from_secs(7))));
    fake.rig("_bulk", 503, &[("retry-after", "999999999")], json!({"error": {"type": "x", "reason": "y"}}));
    let error = destination.deliver(&as_of("i-1", 1)).await.unwrap_err();
    assert_eq!((error.kind, error.retry_after), (Kind::Unavailable, Some(Duration::from_mins(5))), "bounded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_goes_in_halves() {
    let search = Search::fake();
    let destination = search.destination();
    destination.deliver(&as_of("i-0", 1)).await.unwrap();
    search.fake.as_ref().unwrap().max_request(2_000);
    let deliveries: Vec<Delivery> = (1..=40).map(|n| as_of(&format!("i-{n}"), 1)).collect();
    for result in futures::future::join_all(deliveries.iter().map(|delivery| destination.deliver(delivery))).await {
        result.unwrap();
    }
    assert_eq!(search.documents().await.len(), 41);
    search.fake.as_ref().unwrap().max_request(50);
    let error = destination.deliver(&as_of("i-41", 1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Rejected, "one that is too large by itself: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_make_no_sense_count_as_nothing_written() {
    let search = Search::fake();
    let destination = search.destination();
    destination.deliver(&as_of("i-0", 1)).await.unwrap();
    let wrong_id = json!({"items": [{"index": {"_id": "other", "status": 201}}]});
    let no_status = json!({"items": [{"index": {"_id": document_id("i-1")}}]});
    for body in [
        json!({"items": []}),
        json!({}),
        json!([]),
        json!("ok"),
        Value::Null,
        wrong_id,
        no_status,
        json!({"items": [{}, {}]}),
    ] {
        search.fake.as_ref().unwrap().rig("_bulk", 200, &[], body.clone());
        let error = destination.deliver(&as_of("i-1", 1)).await.expect_err(&body.to_string());
        assert_eq!(error.kind, Kind::Malformed, "{body}");
    }
    // A redirect is not followed: it could lead anywhere, with the credential.
    search.fake.as_ref().unwrap().rig("_bulk", 307, &[("location", "http://127.0.0.1:1/")], Value::Null);
    assert_eq!(destination.deliver(&as_of("i-1", 1)).await.unwrap_err().kind, Kind::Rejected);
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_listing_is_whole_or_an_error() {
    let search = Search::fake();
    let destination = search.destination();
    destination.deliver(&as_of("i-0", 1)).await.unwrap();
    let fake = search.fake.as_ref().unwrap();
    let page = |failed: u64, timed_out: bool, files: &[&str]| {
        let hits: Vec<Value> = files.iter().map(|file| json!({"_source": {"fileId": file}})).collect();
        json!({"timed_out": timed_out, "_shards": {"failed": failed}, "hits": {"hits": hits}})
    };
    let endless: Vec<String> = (0..1001).map(|n| format!("{n:05}")).collect();
    let endless: Vec<&str> = endless.iter().map(String::as_str).collect();
    for body in [
        page(1, false, &[]),
        page(0, true, &[]),
        page(0, false, &["b", "a"]),
        page(0, false, &["a", "a"]),
        page(0, false, &endless),
        json!({"timed_out": false, "_shards": {"failed": 0}}),
        json!({"timed_out": false, "_shards": {"failed": 0}, "hits": {"hits": [{"_source": {}}]}}),
        json!({}),
    ] {
        fake.rig("_search", 200, &[], body.clone());
        assert_eq!(destination.listing(&route()).await.expect_err(&body.to_string()).kind, Kind::Malformed, "{body}");
    }
    // The same page again and again.
    let page = page(0, false, &endless[..1000]);
    fake.rig("_search", 200, &[], page.clone());
    fake.rig("_search", 200, &[], page);
    assert_eq!(destination.listing(&route()).await.unwrap_err().kind, Kind::Malformed);
    fake.rig("_refresh", 403, &[], json!({"error": {"type": "security_exception", "reason": "no permissions"}}));
    assert_eq!(destination.listing(&route()).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(destination.listing(&route()).await.unwrap(), Some(vec!["i-0".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_that_cannot_look_says_so() {
    let search = Search::fake();
    let destination = search.destination();
    destination.deliver(&as_of("i-0", 1)).await.unwrap();
    let fake = search.fake.as_ref().unwrap();
    fake.rig("", 503, &[], json!({"error": {"type": "x", "reason": "no shard available"}}));
    assert_eq!(destination.withdraw(&route(), "i-0", at(2)).await.unwrap_err().kind, Kind::Unavailable);
    fake.rig("", 200, &[], json!({"found": true}));
    assert_eq!(destination.withdraw(&route(), "i-0", at(2)).await.unwrap_err().kind, Kind::Malformed);
    assert_eq!(search.documents().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_a_route_that_lets_go_leaves_what_another_takes_over_in_the_same_moment() {
    let search = Search::fake();
    let destination = search.destination();
    destination.deliver(&as_of("i-1", 5)).await.unwrap();
    let mine = search.ask(reqwest::Method::GET, &format!("/_doc/{}", document_id("i-1")), None).await;
    let others = Arc::new(RouteId { name: "others".into(), ..route() });
    destination.deliver(&Delivery { route: others, ..as_of("i-1", 6) }).await.unwrap();
    // The first route looked just before the second wrote, though it had looked at the file just after.
    search.fake.as_ref().unwrap().rig("", 200, &[], mine);
    destination.withdraw(&route(), "i-1", at(7)).await.unwrap();
    assert_eq!(search.documents().await[&document_id("i-1")]["route"], "cluster-1/claims/others");
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_an_answer_without_end_is_cut_off() {
    let search = Search::fake();
    let destination = search.destination();
    destination.deliver(&as_of("i-0", 1)).await.unwrap();
    search.fake.as_ref().unwrap().rig("_bulk", 200, &[], json!({"items": "x".repeat(40 * 1024 * 1024)}));
    let error = destination.deliver(&as_of("i-1", 1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Malformed);
    assert!(error.to_string().len() < 300, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_addresses_that_are_not_allowed_get_no_connection() {
    let search = Search::fake();
    let refused = |url: &str, allow: &[&str]| {
        let mut spec = search.spec();
        spec["opensearch"]["url"] = url.into();
        try_build(spec, Arc::default(), allow, Arc::new(Sales)).err().map(|invalid| (invalid.field, invalid.why))
    };
    let (field, why) = refused(&search.url, &[]).unwrap();
    assert_eq!(field, "index.opensearch.url");
    assert!(why.contains("outbound guard"), "{why}");
    assert!(refused("http://search.example.com", &[]).unwrap().1.contains("https"));
    let mut spec = search.spec();
    spec["opensearch"]["url"] = format!("https://localhost:{}", search.fake.as_ref().unwrap().port()).into();
    let named = try_build(spec, Arc::default(), &[], Arc::new(Sales)).unwrap();
    let error = named.deliver(&delivery("a.pdf", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Rejected, "{error}");
    assert!(error.to_string().contains("outbound guard"), "{error}");
    assert_eq!(search.fake.as_ref().unwrap().requests(""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_a_cluster_proves_its_name() {
    let certified = rcgen::generate_simple_self_signed(["search.internal".to_owned()]).unwrap();
    let (pem, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = RustlsConfig::from_pem(pem.clone().into(), key.into()).await.unwrap();
    let fake = Fake::start_with(Some(tls));
    let secrets = Arc::new(Secrets::default());
    secrets.put("search", "ca", &pem);
    let with = |tls: Value| {
        let spec = json!({"opensearch": {"url": fake.url(), "index": "files", "tls": tls}, "properties": ["name"]});
        try_build(spec, secrets.clone(), &["127.0.0.1"], Arc::new(Sales)).unwrap()
    };
    let ca = json!({"kind": "Secret", "name": "search", "key": "ca"});
    with(json!({"caRef": ca, "serverName": "search.internal"})).deliver(&as_of("i-1", 1)).await.unwrap();
    let error = with(json!({"caRef": ca})).deliver(&as_of("i-1", 1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Tls, "the certificate is for another name: {error}");
    let error = with(json!({"serverName": "search.internal"})).deliver(&as_of("i-1", 1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Tls, "an authority that is not trusted: {error}");
}
