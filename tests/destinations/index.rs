//! Search index: documents at an OpenSearch, real where there is one.

#[path = "../support/search.rs"]
mod cluster;
#[path = "index/failures.rs"]
mod failures;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use file360_operator::api::places::SearchIndex;
use file360_operator::error::{Disposition, Error, Kind, Result};
use file360_operator::expression::InvalidField;
use file360_operator::file360::model::{AccessEntry, AccessList, Audience, PrincipalKind, Role};
use file360_operator::outbound::guard::Guard;
use file360_operator::outbound::trust::Trust;
use file360_operator::routes::delivery::{Delivery, Destination, File, Origin};
use file360_operator::routes::destinations::index::{IndexDestination, Readers, document_id};
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};

use self::cluster::Fake;
use crate::counterparts::{free_port, listen_again};
use crate::suite::{self, Secrets, delivery, delivery_of, hostile_names, route, version_of};

/// Who reads what, as File 360 would tell.
#[derive(Default)]
pub struct Access {
    lists: Mutex<BTreeMap<String, AccessList>>,
}

impl Access {
    fn set(&self, item: &str, list: AccessList) {
        self.lists.lock().insert(item.to_owned(), list);
    }
}

#[async_trait]
impl Readers for Access {
    async fn readers(&self, item: &str) -> Result<AccessList> {
        self.lists.lock().get(item).cloned().ok_or_else(|| Error::new(Kind::NotFound, "no such item"))
    }
}

/// Everybody in sales, and alice.
struct Sales;

#[async_trait]
impl Readers for Sales {
    async fn readers(&self, _: &str) -> Result<AccessList> {
        Ok(readers(&[(PrincipalKind::Group, "sales"), (PrincipalKind::User, "alice")]))
    }
}

fn readers(names: &[(PrincipalKind, &str)]) -> AccessList {
    let entry = |(kind, name): &(PrincipalKind, &str)| AccessEntry {
        kind: *kind,
        name: (*name).to_owned(),
        principal_id: format!("id of {name}"),
        role: Role::Viewer,
    };
    AccessList { items: names.iter().map(entry).collect(), ..AccessList::default() }
}

/// One index of the counterpart or of a real cluster, for one test.
pub struct Search {
    url: String,
    index: String,
    fake: Option<Fake>,
    http: reqwest::Client,
}

impl Search {
    /// At the real cluster if there is one.
    fn start() -> Self {
        match std::env::var("FILE360_OPENSEARCH_URL") {
            Ok(url) => Self::at(url, None),
            Err(_) => Self::fake(),
        }
    }

    fn fake() -> Self {
        let fake = Fake::start();
        Self::at(fake.url(), Some(fake))
    }

    fn at(url: String, fake: Option<Fake>) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let index = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { url, index, fake, http: reqwest::Client::new() }
    }

    /// Asks the cluster by the test's own means.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self.http.request(method, format!("{}/{}{path}", self.url, self.index));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        request.send().await.unwrap().json().await.unwrap()
    }

    /// Every document: id and content.
    async fn documents(&self) -> BTreeMap<String, Value> {
        self.find(json!({"match_all": {}})).await
    }

    async fn find(&self, query: Value) -> BTreeMap<String, Value> {
        self.ask(Method::POST, "/_refresh", None).await;
        let found = self.ask(Method::POST, "/_search", Some(json!({"size": 10_000, "query": query}))).await;
        let hits = found.pointer("/hits/hits").and_then(Value::as_array).unwrap_or_else(|| panic!("{found}"));
        hits.iter().map(|hit| (hit["_id"].as_str().unwrap().to_owned(), hit["_source"].clone())).collect()
    }

    /// Sorted names of what a query finds.
    async fn names(&self, query: Value) -> Vec<String> {
        let mut names: Vec<String> =
            self.find(query).await.values().map(|found| found["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    fn spec(&self) -> Value {
        json!({
            "opensearch": {"url": self.url, "index": self.index},
            "properties": ["name", "path", "size", "version", "createdAt", "metadata.*"],
        })
    }

    fn destination(&self) -> Arc<IndexDestination> {
        build(self.spec())
    }
}

fn build(spec: Value) -> Arc<IndexDestination> {
    build_for(spec, Arc::new(Sales))
}

fn build_for(spec: Value, readers: Arc<dyn Readers>) -> Arc<IndexDestination> {
    Arc::new(try_build(spec, Arc::default(), &["127.0.0.1"], readers).unwrap())
}

/// A destination of these fields.
pub fn try_build(
    spec: Value,
    secrets: Arc<Secrets>,
    allow: &[&str],
    readers: Arc<dyn Readers>,
) -> Result<IndexDestination, InvalidField> {
    let spec: SearchIndex = serde_json::from_value(spec).unwrap();
    let allow: Vec<String> = allow.iter().map(|&host| host.to_owned()).collect();
    IndexDestination::new(&spec, secrets, Arc::new(Guard::new(&allow, &[]).unwrap()), Trust::default(), readers)
}

fn changed(delivery: Delivery, change: impl FnOnce(&mut File)) -> Delivery {
    let mut file = (*delivery.file).clone();
    change(&mut file);
    Delivery { file: Arc::new(file), ..delivery }
}

/// A time of this day.
fn at(second: i64) -> Timestamp {
    "2026-03-04T00:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(second.try_into().unwrap())
}

/// The file `item` as the source said at this second.
fn as_of(item: &str, second: i64) -> Delivery {
    Delivery { as_of: at(second), ..version_of(item, second.try_into().unwrap(), &format!("v{second}.pdf"), 1, None) }
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_a_document_has_what_is_allowed_and_who_may_read_and_no_content() {
    let search = Search::start();
    let mut spec = search.spec();
    spec["properties"] = json!(["name", "size", "metadata.claimId"]);
    let content = suite::Staged::of(b"secret");
    let opened = content.opened.clone();
    let delivery = changed(Delivery { content: Arc::new(content), ..version_of("i-1", 3, "a.pdf", 6, None) }, |file| {
        file.metadata.insert("salary".into(), "100".into());
    });
    let receipt = build(spec).deliver(&delivery).await.unwrap();
    assert_eq!((receipt.reference.clone(), receipt.bytes, receipt.duplicate), (document_id("i-1"), 0, false));
    let expected = json!({
        "route": "cluster-1/claims/photos", "fileId": "i-1", "name": "a.pdf", "size": 6, "metadata": {"claimId": "4711"},
        "acl": {"allow": ["group:sales", "user:alice"], "deny": []},
    });
    assert_eq!(search.documents().await, BTreeMap::from([(receipt.reference, expected)]));
    assert_eq!(opened.load(Ordering::Relaxed), 0, "content is never read");
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_newer_version_takes_the_place_of_the_older_and_never_the_other_way_round() {
    let search = Search::start();
    let destination = search.destination();
    assert!(!destination.deliver(&as_of("i-1", 5)).await.unwrap().duplicate);
    assert!(!destination.deliver(&as_of("i-1", 5)).await.unwrap().duplicate, "the same again");
    assert!(!destination.deliver(&as_of("i-1", 7)).await.unwrap().duplicate);
    // What an operator that lost its leadership still had under way.
    let late = destination.deliver(&as_of("i-1", 6)).await.unwrap();
    assert!(late.duplicate, "it is acknowledged: what it says is known to be old");
    let documents = search.documents().await;
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[&document_id("i-1")]["name"], "v7.pdf");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_from_the_future_is_a_failure_that_names_the_clock() {
    let search = Search::start();
    let destination = search.destination();
    let ahead = Delivery { as_of: Timestamp::now() + Duration::from_hours(1), ..as_of("i-1", 1) };
    destination.deliver(&ahead).await.unwrap();
    let error = destination.deliver(&Delivery { as_of: Timestamp::now(), ..as_of("i-1", 2) }).await.unwrap_err();
    assert_eq!((error.kind, error.disposition()), (Kind::Conflict, Disposition::Retry), "not taken for acknowledged");
    assert!(error.to_string().contains("clock"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_what_is_withdrawn_is_gone_and_a_late_write_does_not_bring_it_back() {
    let search = Search::start();
    let destination = search.destination();
    for item in ["i-1", "i-2"] {
        destination.deliver(&as_of(item, 5)).await.unwrap();
    }
    destination.withdraw(&route(), "i-1", at(9)).await.unwrap();
    assert!(destination.deliver(&as_of("i-1", 5)).await.unwrap().duplicate, "late");
    assert_eq!(search.documents().await.into_keys().collect::<Vec<_>>(), [document_id("i-2")]);
    destination.withdraw(&route(), "i-1", at(9)).await.expect("what is gone is fine");
    destination.withdraw(&route(), "i-never", at(9)).await.expect("what never was is fine");
    destination.deliver(&as_of("i-1", 10)).await.unwrap();
    assert_eq!(search.documents().await.len(), 2, "the file came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_a_withdrawal_leaves_what_is_newer_and_what_another_route_has_taken_over() {
    let search = Search::start();
    let destination = search.destination();
    destination.deliver(&as_of("i-1", 5)).await.unwrap();
    destination.withdraw(&route(), "i-1", at(4)).await.unwrap();
    assert_eq!(search.documents().await.len(), 1, "the withdrawal is older than the document");

    let other = Arc::new(file360_operator::routes::delivery::RouteId { name: "others".into(), ..route() });
    let taken_over = Delivery { route: other.clone(), ..as_of("i-1", 6) };
    destination.deliver(&taken_over).await.unwrap();
    destination.withdraw(&route(), "i-1", at(6)).await.unwrap();
    assert_eq!(search.documents().await[&document_id("i-1")]["route"], "cluster-1/claims/others");
    // The other way round: the first route lets go before the second writes.
    destination.withdraw(&other, "i-1", at(8)).await.unwrap();
    destination.deliver(&as_of("i-1", 8)).await.unwrap();
    assert_eq!(search.documents().await[&document_id("i-1")]["route"], "cluster-1/claims/photos");
    // A route that changes its mind at once.
    destination.withdraw(&route(), "i-1", at(8)).await.unwrap();
    assert_eq!(search.documents().await.len(), 0);
    assert!(!destination.deliver(&as_of("i-1", 9)).await.unwrap().duplicate);
    assert_eq!(search.documents().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_documents_are_marked_and_found_by_nobody() {
    let search = Search::start();
    let mut spec = search.spec();
    spec["deletes"] = "Keep".into();
    let destination = build(spec);
    destination.deliver(&as_of("i-1", 5)).await.unwrap();
    destination.withdraw(&route(), "i-1", at(6)).await.unwrap();
    let document = search.documents().await.remove(&document_id("i-1")).unwrap();
    assert_eq!((&document["deleted"], &document["name"]), (&json!(true), &json!("v5.pdf")));
    assert_eq!(document["acl"], json!({"allow": [], "deny": []}));
    assert_eq!(destination.listing(&route()).await.unwrap(), Some(vec![]), "an inventory does not miss its file");
    destination.withdraw(&route(), "i-1", at(6)).await.unwrap();
    assert!(destination.deliver(&as_of("i-1", 5)).await.unwrap().duplicate, "late");
    destination.deliver(&as_of("i-1", 7)).await.unwrap();
    let document = search.documents().await.remove(&document_id("i-1")).unwrap();
    assert!(document.get("deleted").is_none(), "the file came back: {document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_a_listing_has_every_document_of_the_route_and_no_other() {
    let search = Search::start();
    let destination = search.destination();
    assert_eq!(destination.listing(&route()).await.unwrap(), Some(vec![]), "before the first document");
    let other = Arc::new(file360_operator::routes::delivery::RouteId { name: "photos-2".into(), ..route() });
    let deliveries: Vec<Delivery> = (0..2_300)
        .map(|n| {
            if n < 2_200 {
                as_of(&format!("i-{n}"), 1)
            } else {
                Delivery { route: other.clone(), ..as_of(&format!("i-{n}"), 1) }
            }
        })
        .collect();
    for result in futures::future::join_all(deliveries.iter().map(|delivery| destination.deliver(delivery))).await {
        result.unwrap();
    }
    let mut expected: Vec<String> = (0..2_200).map(|n| format!("i-{n}")).collect();
    expected.sort();
    let listed = destination.listing(&route()).await.unwrap().unwrap();
    assert!(listed == expected, "{} listed, just written ones among them", listed.len());
    if let Some(fake) = &search.fake {
        let requests = fake.requests("_bulk");
        assert!(requests <= 100, "{requests} requests for {} documents", deliveries.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_the_documented_query_finds_what_its_reader_may_read() {
    let search = Search::start();
    let access = Arc::new(Access::default());
    let list = |names: &[(PrincipalKind, &str)]| readers(names);
    access.set("i-1", list(&[(PrincipalKind::User, "Alice")]));
    access.set("i-2", list(&[(PrincipalKind::Group, "sales")]));
    access.set("i-3", AccessList { links: vec![Audience::Anyone], ..list(&[(PrincipalKind::Guest, "bob@acme.com")]) });
    access.set("i-4", AccessList { pending: true, ..list(&[(PrincipalKind::User, "alice")]) });
    access.set("i-5", list(&[(PrincipalKind::User, "alice smith"), (PrincipalKind::User, "malice")]));
    let destination = build_for(search.spec(), access.clone());
    for n in 1..=5 {
        destination.deliver(&version_of(&format!("i-{n}"), 1, &format!("{n}.pdf"), 1, None)).await.unwrap();
    }
    // As docs/search-indexes.md says.
    let reader = |principals: &[&str]| {
        json!({"bool": {
            "filter": [{"terms": {"acl.allow": principals}}],
            "must_not": [{"terms": {"acl.deny": principals}}, {"term": {"deleted": true}}],
        }})
    };
    assert_eq!(search.names(reader(&["user:alice", "group:sales"])).await, ["1.pdf", "2.pdf"]);
    assert_eq!(search.names(reader(&["user:alice"])).await, ["1.pdf"], "no other name that contains hers");
    assert_eq!(search.names(reader(&["guest:bob@acme.com"])).await, ["3.pdf"]);
    assert_eq!(search.names(reader(&["user:carol"])).await, [""; 0], "a link alone makes nothing findable");
    assert_eq!(search.names(reader(&["user:carol", "link:anyone"])).await, ["3.pdf"], "unless the search wants it");

    access.set("i-2", list(&[(PrincipalKind::Group, "legal")]));
    destination.deliver(&Delivery { as_of: Timestamp::now(), ..version_of("i-2", 1, "2.pdf", 1, None) }).await.unwrap();
    assert_eq!(search.names(reader(&["user:alice", "group:sales"])).await, ["1.pdf"], "access that was taken away");
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_hostile_names_and_keys_are_kept_to_the_letter() {
    let search = Search::start();
    let destination = search.destination();
    let names = hostile_names();
    let deliveries: Vec<Delivery> = names
        .iter()
        .map(|name| {
            changed(delivery_of(name, 1, None), |file| {
                file.metadata =
                    [("a", "2026-01-01"), ("a.b", "x"), (".", "\r\n{\"delete\":{}}"), (" ", "y"), ("__proto__", name)]
                        .map(|(key, value)| (key.to_owned(), value.chars().take(1000).collect()))
                        .into();
            })
        })
        .collect();
    for (result, name) in
        futures::future::join_all(deliveries.iter().map(|delivery| destination.deliver(delivery))).await.iter().zip(&names)
    {
        assert!(result.is_ok(), "{name:?}: {result:?}");
    }
    let documents = search.documents().await;
    assert_eq!(documents.len(), names.len());
    for (delivery, name) in deliveries.iter().zip(&names) {
        let document = &documents[&document_id(&delivery.file.origin.file())];
        assert_eq!(document["name"], json!(name));
        assert_eq!(document["metadata"]["a%2Eb"], "x");
        assert_eq!(document["metadata"]["%2E"], "\r\n{\"delete\":{}}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_looks_like_a_date_once_need_not_look_so_always() {
    let search = Search::start();
    let destination = search.destination();
    for (n, value) in ["2026-01-01", "unknown", "7", "true"].into_iter().enumerate() {
        let delivery =
            changed(delivery(&format!("{n}.pdf"), b"x"), |file| drop(file.metadata.insert("issuedOn".into(), value.into())));
        destination.deliver(&delivery).await.unwrap();
    }
    assert_eq!(search.documents().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_one_document_that_does_not_fit_stops_no_other() {
    let search = Search::start();
    // Somebody's own index, in which names are numbers.
    search.ask(Method::PUT, "", Some(json!({"mappings": {"properties": {"name": {"type": "long"}}}}))).await;
    let destination = search.destination();
    let deliveries: Vec<Delivery> =
        (0..20).map(|n| delivery_of(&if n == 7 { "hidden.pdf".to_owned() } else { n.to_string() }, 1, None)).collect();
    let results = futures::future::join_all(deliveries.iter().map(|delivery| destination.deliver(delivery))).await;
    for (n, result) in results.into_iter().enumerate() {
        if n == 7 {
            let error = result.unwrap_err();
            assert_eq!(error.kind, Kind::Rejected, "{error}");
            assert!(error.to_string().contains("[name]") && !error.to_string().contains("hidden.pdf"), "{error}");
        } else {
            result.unwrap();
        }
    }
    assert_eq!(search.documents().await.len(), 19);
    let mapping = search.ask(Method::GET, "/_mapping", None).await;
    let properties = mapping.as_object().unwrap().values().next().unwrap()["mappings"]["properties"].clone();
    assert_eq!(properties["route"]["type"], "keyword", "what was missing is added");
    assert_eq!(properties["acl"]["properties"]["allow"]["type"], "keyword");
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_an_index_that_would_take_principals_apart_is_refused_before_anything_is_written() {
    let search = Search::start();
    let text = json!({"mappings": {"properties": {"acl": {"properties": {"allow": {"type": "text"}}}}}});
    search.ask(Method::PUT, "", Some(text)).await;
    let error = search.destination().deliver(&delivery("a.pdf", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Rejected);
    assert!(error.to_string().contains("acl.allow"), "{error}");
    assert!(search.documents().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_store_have_no_access_lists_to_mirror() {
    let search = Search::start();
    let origin = Origin::Object { store: "s3/host/bucket".into(), key: "a.pdf".into(), etag: "e".into() };
    let object = changed(delivery("a.pdf", b"x"), |file| file.origin = origin);
    let error = search.destination().deliver(&object).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unsupported, "{error}");
    let mut spec = search.spec();
    spec["acl"] = "Omit".into();
    build(spec).deliver(&object).await.unwrap();
    let documents = search.documents().await;
    let document = documents.values().next().unwrap();
    assert_eq!(document["fileId"], "s3/host/bucket/a.pdf");
    assert!(document.get("acl").is_none());
}
