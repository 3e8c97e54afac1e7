//! The HTTP destination, against a real HTTP server of the tests, mostly over TLS.

mod counterpart;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use file360_operator::api::file_route::DestinationSpec;
use file360_operator::error::{Disposition, Error, Kind, Result};
use file360_operator::expression::InvalidField;
use file360_operator::outbound::guard::Guard;
use file360_operator::outbound::http::{Clients, Surroundings};
use file360_operator::routes::delivery::{Content, Delivery, Destination, Opened};
use file360_operator::routes::destinations::http::{Addresses, HttpDestination, compile_write_back, write_back};
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::suite::{self, Arrived, Place, Secrets, cases, delivery, delivery_of, pattern};
use counterpart::{Authority, Counterpart, Seen, endless};

cases!(
    Crm::start,
    [
        delivers_whole,
        r1_the_same_key_twice_has_the_effect_of_one,
        r1_two_tries_at_once_leave_one,
        many_at_once_arrive_each_with_its_bytes,
        r6_hostile_names_stay_apart_below_the_root,
        r3_wrong_content_is_not_delivered,
        down_is_unavailable_and_back_is_back,
        t5_a_wrong_credential_is_named_and_a_new_one_works_without_a_restart,
        memory_does_not_grow_with_the_file,
    ]
);

/// A system that takes files over TLS, once for each idempotency key, from whoever has the token.
struct Crm {
    server: Counterpart,
    world: World,
    destination: Arc<dyn Destination>,
    token: Arc<Mutex<String>>,
    kept: Arc<Mutex<BTreeMap<String, Seen>>>,
}

impl Crm {
    #[allow(clippy::unused_async, reason = "the cases wait for the start of any counterpart")]
    async fn start() -> Self {
        let authority = Authority::new("crm");
        let server = Counterpart::start(Some(authority.server("127.0.0.1", None)));
        let world = World::new();
        world.secrets.put("ca", "ca.crt", &authority.pem);
        world.secrets.put("store", "token", "correct-horse");
        let (token, kept) =
            (Arc::new(Mutex::new("correct-horse".to_owned())), Arc::<Mutex<BTreeMap<String, Seen>>>::default());
        let (expected, files) = (token.clone(), kept.clone());
        server.answers(move |seen| {
            let given = seen.header("authorization").to_owned();
            let is_right = given == format!("Bearer {}", expected.lock());
            let key = seen.header("idempotency-key").to_owned();
            if is_right {
                files.lock().entry(key.clone()).or_insert(seen);
            }
            async move {
                if is_right {
                    (StatusCode::CREATED, [("location", format!("/files/{key}"))]).into_response()
                } else {
                    (StatusCode::UNAUTHORIZED, format!("{given} is not welcome")).into_response()
                }
            }
        });
        let spec = json!({"send": "Content", "http": {
            "url": format!("https://127.0.0.1:{}/files", server.port),
            "auth": {"bearer": {"tokenRef": {"name": "store", "key": "token"}}},
            "tls": {"caRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}},
        }});
        let destination = Arc::new(world.destination(spec).unwrap());
        Self { server, world, destination, token, kept }
    }
}

#[async_trait]
impl Place for Crm {
    fn destination(&self) -> Arc<dyn Destination> {
        self.destination.clone()
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let kept = self.kept.lock();
        kept.values().map(|seen| Arrived { name: seen.header("ce-subject").into(), bytes: seen.body() }).collect()
    }

    fn decode(&self, shown: &str) -> String {
        let path = percent_encoding::percent_decode_str(shown).decode_utf8().unwrap().into_owned();
        suite::composed(path.strip_prefix("/Inbox/").unwrap())
    }

    async fn stop(&self) {
        self.server.stop().await;
    }

    async fn start_again(&self) {
        self.server.start_again();
    }

    async fn spoil_credential(&self) -> &'static str {
        *self.token.lock() = "renewed-horse".into();
        self.world.secrets.put("store", "token", "spoiled");
        "token"
    }

    async fn mend_credential(&self) {
        self.world.secrets.put("store", "token", "renewed-horse");
    }
}

/// What a destination has around it.
struct World {
    secrets: Arc<Secrets>,
    surroundings: Surroundings,
}

impl World {
    /// One in which the loopback address may be called.
    fn new() -> Self {
        Self::guarded(&["127.0.0.1"])
    }

    fn guarded(allow: &[&str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let allow: Vec<String> = allow.iter().map(|&host| host.to_owned()).collect();
        let guard = Arc::new(Guard::new(&allow, &[]).unwrap());
        let secrets = Arc::new(Secrets::default());
        Self {
            surroundings: Surroundings { references: secrets.clone(), clients: Clients::new(guard, Vec::new()) },
            secrets,
        }
    }

    fn destination(&self, mut spec: Value) -> Result<HttpDestination, InvalidField> {
        spec["name"] = json!("crm");
        let spec: DestinationSpec = serde_json::from_value(spec).unwrap();
        HttpDestination::new(&spec, &self.surroundings, Arc::new(Links))
    }

    /// A destination that sends what is known about a file to `server`, with more fields of `http`.
    fn posts(&self, server: &Counterpart, more: Value) -> HttpDestination {
        self.sends(server, "Metadata", more)
    }

    fn sends(&self, server: &Counterpart, send: &str, more: Value) -> HttpDestination {
        let mut http = json!({"url": format!("http://127.0.0.1:{}/api", server.port)});
        let Value::Object(more) = more else { panic!("{more} is no map") };
        http.as_object_mut().unwrap().extend(more);
        self.destination(json!({"send": send, "http": http})).unwrap()
    }
}

struct Links;

#[async_trait]
impl Addresses for Links {
    async fn address(&self, delivery: &Delivery, works_for: Duration) -> Result<String> {
        Ok(format!("https://file360.example.com/l/{}?for={}", delivery.file.size, works_for.as_secs()))
    }
}

fn photo() -> Delivery {
    delivery("photo.jpg", &pattern(3000, 1))
}

fn bearer() -> Value {
    json!({"bearer": {"tokenRef": {"name": "store", "key": "token"}}})
}

async fn failure(destination: &HttpDestination) -> Error {
    destination.deliver(&photo()).await.expect_err("a failure")
}

// ------------------------------------------------------------------------------------------------------------ what is sent

#[tokio::test]
async fn an_event_says_what_is_known_about_a_file_and_where_it_comes_from() {
    let server = Counterpart::start(None);
    server.answers_with(
        202,
        &[("location", "/cases/7?token=x"), ("x-request-id", "r-1"), ("set-cookie", "a=b")],
        r#"{"id": 7}"#,
    );
    let photo = photo();
    let receipt = World::new().posts(&server, json!({})).deliver(&photo).await.unwrap();
    let seen = server.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/api"));
    assert_eq!(seen.header("content-type"), "application/cloudevents+json");
    assert_eq!(seen.header("idempotency-key"), photo.key);
    assert!(!seen.headers.contains_key("authorization"));
    let event = seen.json();
    let attributes = |name: &str| event[name].as_str().unwrap().to_owned();
    assert_eq!(attributes("specversion"), "1.0");
    assert_eq!(attributes("type"), "io.file360.file.uploaded");
    assert_eq!(attributes("source"), "/file360/cluster-1/claims/photos");
    assert_eq!(attributes("id"), photo.key);
    assert_eq!(attributes("time"), "2026-03-04T05:06:07Z");
    assert_eq!(attributes("subject"), "/Inbox/photo.jpg");
    let data = &event["data"];
    assert_eq!((data["file"]["size"].as_u64(), data["file"]["metadata"]["claimId"].as_str()), (Some(3000), Some("4711")));
    assert_eq!(data["uploader"], json!({"kind": "User", "emailVerified": true}), "no address of a person");
    assert_eq!(data["workspace"], json!({"id": "workspace-1", "name": "claims"}));
    assert_eq!((&data["rule"], &data["event"]), (&json!("rule-1"), &json!({"type": "Uploaded", "actor": "Ada"})));
    assert_eq!(receipt.reference, "/cases/7", "without the query");
    let response = receipt.response.unwrap();
    assert_eq!(response["body"], json!({"id": 7}));
    assert_eq!(
        response["headers"],
        json!({"location": "/cases/7?token=x", "x-request-id": "r-1", "content-type": "text/plain; charset=utf-8"})
    );
}

#[tokio::test]
async fn a_template_calls_an_api_as_it_is() {
    let server = Counterpart::start(None);
    let destination = World::new().posts(
        &server,
        json!({
            "method": "PATCH",
            "path": ["'cases'", "file.metadata.claimId", "'a b/c'"],
            "query": {"$expand": "'notes'", "n": "file.size + 1"},
            "headers": {"X-Workspace": "workspace.name", "Content-Type": "'application/vnd.api+json'", "Accept": "'application/xml'"},
            "template": "{'fields': {'summary': file.name, 'labels': ['f360']}}",
        }),
    );
    destination.deliver(&photo()).await.unwrap();
    let seen = server.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PATCH", "/api/cases/4711/a%20b%2Fc?%24expand=notes&n=3001"));
    assert_eq!(seen.headers.get_all("content-type").iter().count(), 1);
    assert_eq!(seen.header("content-type"), "application/vnd.api+json");
    assert_eq!((seen.header("accept"), seen.header("x-workspace")), ("application/xml", "claims"));
    assert_eq!(seen.json(), json!({"fields": {"summary": "photo.jpg", "labels": ["f360"]}}));
}

#[tokio::test]
async fn get_and_delete_send_no_body() {
    let server = Counterpart::start(None);
    for method in ["GET", "DELETE"] {
        World::new().posts(&server, json!({"method": method})).deliver(&photo()).await.unwrap();
        let seen = server.only();
        assert_eq!((seen.method.as_str(), seen.body().len(), seen.header("content-type")), (method, 0, ""));
        server.forget();
    }
}

#[tokio::test]
async fn a_reference_is_an_address_that_works_for_a_while() {
    let server = Counterpart::start(None);
    let world = World::new();
    world.sends(&server, "Reference", json!({})).deliver(&photo()).await.unwrap();
    let event = server.only().json();
    assert_eq!(event["dataref"], "https://file360.example.com/l/3000?for=900");
    assert_eq!(event["data"]["reference"]["url"], event["dataref"]);
    assert!(
        event["data"]["reference"]["expiresAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
            > jiff::Timestamp::now()
    );
    server.forget();
    let http = json!({"url": format!("http://127.0.0.1:{}/", server.port), "template": "{'fetch': reference.url, 'name': file.name}"});
    let destination = world.destination(json!({"send": "Reference", "referenceFor": "2h", "http": http})).unwrap();
    destination.deliver(&photo()).await.unwrap();
    assert_eq!(server.only().json(), json!({"fetch": "https://file360.example.com/l/3000?for=7200", "name": "photo.jpg"}));
}

#[tokio::test]
async fn content_goes_as_it_is_with_its_name_type_digest_and_event_in_headers() {
    let server = Counterpart::start(None);
    let bytes = pattern(3000, 1);
    World::new()
        .sends(&server, "Content", json!({"method": "PUT"}))
        .deliver(&delivery("Übersicht \"1\".pdf", &bytes))
        .await
        .unwrap();
    let seen = server.only();
    assert_eq!(seen.body(), bytes);
    assert_eq!((seen.header("content-length"), seen.header("content-type")), ("3000", "application/pdf"));
    assert_eq!(seen.header("content-disposition"), "attachment; filename*=UTF-8''%C3%9Cbersicht%20%221%22.pdf");
    assert_eq!(seen.header("repr-digest"), format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(&bytes))));
    assert_eq!((seen.header("ce-specversion"), seen.header("ce-type")), ("1.0", "io.file360.file.uploaded"));
    assert_eq!(seen.header("ce-subject"), "/Inbox/%C3%9Cbersicht%20%221%22.pdf");
}

#[tokio::test]
async fn content_goes_as_a_part_of_a_form_beside_a_document() {
    let server = Counterpart::start(None);
    let form = json!({"multipart": {"file": "VersionData", "json": "entity_content"}, "template": "{'Title': file.name}"});
    let bytes = pattern(200_000, 1);
    World::new().sends(&server, "Content", form).deliver(&delivery("a\"\r\nb.pdf", &bytes)).await.unwrap();
    let seen = server.only();
    let boundary = multer::parse_boundary(seen.header("content-type")).unwrap();
    let body = futures::stream::iter([Ok::<_, std::io::Error>(seen.body())]);
    let mut form = multer::Multipart::new(body, boundary);
    let document = form.next_field().await.unwrap().unwrap();
    assert_eq!(
        (document.name(), document.content_type().map(AsRef::as_ref)),
        (Some("entity_content"), Some("application/json"))
    );
    assert_eq!(document.text().await.unwrap(), r#"{"Title":"a\"\r\nb.pdf"}"#);
    let file = form.next_field().await.unwrap().unwrap();
    assert_eq!((file.name(), file.file_name()), (Some("VersionData"), Some("a%22%0D%0Ab.pdf")));
    assert_eq!(file.bytes().await.unwrap(), bytes);
    assert!(form.next_field().await.unwrap().is_none());
}

#[tokio::test]
async fn r6_what_an_expression_gives_leaves_neither_its_header_nor_its_segment() {
    let server = Counterpart::start(None);
    let world = World::new();
    let hostile = [
        (json!({"headers": {"X-Name": "file.name"}}), "a\r\nX-Admin: yes"),
        (json!({"headers": {"X-Name": "file.name"}}), "a\0b"),
        (json!({"path": ["file.name"]}), ".."),
        (json!({"path": ["file.name"]}), "a/../../b"),
        (json!({"path": ["file.name"]}), "a\0b"),
        (json!({"query": {"q": "file.name"}}), "a\0b"),
        (json!({"path": ["file.metadata.missing"]}), "x"),
        (json!({"template": "file.name"}), "no map"),
    ];
    for (http, name) in hostile {
        let destination = world.posts(&server, http.clone());
        let error = destination.deliver(&delivery(name, b"x")).await.expect_err(name);
        assert_eq!((error.kind, error.disposition()), (Kind::Rejected, Disposition::Terminal), "{http}: {error}");
        assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
    }
    assert_eq!(server.begun(), 0);
}

// --------------------------------------------------------------------------------------------------------- what comes back

#[tokio::test]
async fn every_status_says_whether_to_try_again() {
    let server = Counterpart::start(None);
    let destination = World::new().posts(&server, json!({}));
    let after = |seconds| Disposition::RetryAfter(Duration::from_secs(seconds));
    for (status, kind, next) in [
        (400, Kind::Rejected, Disposition::Terminal),
        (403, Kind::Denied, Disposition::Terminal),
        (404, Kind::Rejected, Disposition::Terminal),
        (408, Kind::Unavailable, after(7)),
        (409, Kind::Conflict, Disposition::Retry),
        (413, Kind::Rejected, Disposition::Terminal),
        (425, Kind::Unavailable, after(7)),
        (429, Kind::RateLimited, after(7)),
        (500, Kind::Unavailable, after(7)),
        (503, Kind::Unavailable, after(7)),
    ] {
        server.answers_with(
            status,
            &[("retry-after", "7"), ("content-type", "application/json")],
            r#"{"message": "no luck"}"#,
        );
        let error = failure(&destination).await;
        assert_eq!((error.kind, error.disposition()), (kind, next), "{status}: {error}");
        let told = error.to_string();
        assert!(
            told.starts_with("POST 127.0.0.1: ") && told.contains(&status.to_string()) && told.contains("no luck"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn what_counts_as_success_is_declared() {
    let server = Counterpart::start(None);
    let destination = World::new().posts(&server, json!({"success": ["201", "409-410"]}));
    server.answers_with(409, &[], "there already");
    let receipt = destination.deliver(&photo()).await.unwrap();
    assert!(receipt.duplicate);
    assert_eq!(receipt.response.unwrap()["body"], "there already");
    server.answers_with(200, &[], "fine?");
    assert_eq!(failure(&destination).await.kind, Kind::Rejected);
}

#[tokio::test]
async fn endless_and_deep_answers_are_bounded() {
    let server = Counterpart::start(None);
    let destination = World::new().posts(&server, json!({"timeout": "20s"}));
    server.answers(|_| async { Response::new(endless()) });
    let receipt = destination.deliver(&photo()).await.unwrap();
    assert_eq!(receipt.response.unwrap()["body"], Value::Null, "the call succeeded; what else it said is not read");
    let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    server.answers_with(200, &[("content-type", "application/json")], &deep);
    assert_eq!(destination.deliver(&photo()).await.unwrap().response.unwrap()["body"], Value::Null);
    server.answers(|_| async { (StatusCode::BAD_GATEWAY, endless()).into_response() });
    let error = failure(&destination).await;
    assert_eq!(error.kind, Kind::Unavailable);
    server.answers_with(400, &[("content-type", "text/plain")], &"€\u{202e}\u{1b}[31m".repeat(20_000));
    let told = failure(&destination).await.to_string();
    assert!(told.chars().count() < 260, "{told}");
    assert!(!told.contains('\u{202e}') && !told.contains('\u{1b}'), "{told:?}");
    let headers: Vec<(&'static str, String)> = vec![("etag", "x".repeat(5000))];
    server.answers_with(200, &[(headers[0].0, &headers[0].1)], "{}");
    assert_eq!(destination.deliver(&photo()).await.unwrap().response.unwrap()["headers"].get("etag"), None);
}

#[tokio::test]
async fn a_silent_or_dripping_server_does_not_hold_a_delivery() {
    let server = Counterpart::start(None);
    let destination = World::new().posts(&server, json!({"timeout": "300ms"}));
    server.answers(|_| futures::future::pending());
    let error = failure(&destination).await;
    assert!(error.kind == Kind::Unavailable && error.to_string().contains("silent"), "{error}");
    server.answers(|_| async {
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok::<_, std::io::Error>("x"), ()))
        });
        Response::new(Body::from_stream(drops))
    });
    let error = failure(&destination).await;
    assert!(error.kind == Kind::Unavailable && error.to_string().contains("in time"), "{error}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let server = Counterpart::start(None);
    server.answers(|_| async {
        let broken = futures::stream::iter([Ok("{\"id\":"), Err(std::io::Error::other("gone"))]);
        Response::new(Body::from_stream(broken))
    });
    let error = failure(&World::new().posts(&server, json!({}))).await;
    assert_eq!((error.kind, error.disposition()), (Kind::Unavailable, Disposition::Retry), "{error}");
}

#[tokio::test]
async fn t3_a_redirect_is_not_followed_and_the_credential_goes_nowhere() {
    let (server, thief) = (Counterpart::start(None), Counterpart::start(None));
    let world = World::new();
    world.secrets.put("store", "token", "correct-horse");
    let destination = world.sends(&server, "Content", json!({"auth": bearer()}));
    for status in [301, 302, 303, 307, 308] {
        server.answers_with(status, &[("location", &format!("http://127.0.0.1:{}/", thief.port))], "");
        let error = failure(&destination).await;
        assert_eq!(error.kind, Kind::Rejected, "{error}");
        assert!(error.to_string().contains("redirects are not followed"), "{error}");
    }
    assert_eq!(thief.begun(), 0);
}

#[tokio::test]
async fn an_answer_can_be_written_back_without_the_credential_it_echoes() {
    let server = Counterpart::start(None);
    let world = World::new();
    world.secrets.put("store", "token", "correct-horse");
    server.answers_with(200, &[("location", "/x/correct-horse")], r#"{"id": 17, "echo": {"auth": "Bearer correct-horse"}}"#);
    let receipt = world.posts(&server, json!({"auth": bearer()})).deliver(&photo()).await.unwrap();
    let response = receipt.response.unwrap();
    assert_eq!(response["body"], json!({"id": 17, "echo": {"auth": "Bearer [redacted]"}}));
    assert_eq!((receipt.reference.as_str(), &response["headers"]["location"]), ("/x/[redacted]", &json!("/x/[redacted]")));
    let spec: DestinationSpec = serde_json::from_value(json!({
        "name": "crm", "writeBack": {"claimRef": "response.body.id", "note": "file.name + ' ' + string(response.status)"}
    }))
    .unwrap();
    let compiled = compile_write_back(&spec).unwrap();
    let written = write_back(&compiled, &photo().variables, &response).unwrap();
    assert_eq!(written, BTreeMap::from([("claimRef".into(), "17".into()), ("note".into(), "photo.jpg 200".into())]));
    assert!(write_back(&compiled, &photo().variables, &json!({"status": 200, "body": null})).is_err());
}

// -------------------------------------------------------------------------------------------------------- addresses and TLS

#[tokio::test]
async fn t3_addresses_inside_are_refused_also_behind_a_name() {
    let server = Counterpart::start(None);
    let world = World::guarded(&[]);
    for url in ["https://127.0.0.1/x", "https://[::1]/x", "https://169.254.169.254/latest", "https://2130706433/"] {
        let invalid = world.destination(json!({"http": {"url": url}})).err().expect(url);
        assert_eq!(invalid.field, "http.url", "{invalid}");
        assert!(invalid.why.contains("--outbound-allow"), "{invalid}");
    }
    let destination = world.destination(json!({"http": {"url": format!("https://localhost:{}/x", server.port)}})).unwrap();
    let error = failure(&destination).await;
    assert_eq!((error.kind, error.disposition()), (Kind::Rejected, Disposition::Terminal), "{error}");
    assert!(error.to_string().contains("--outbound-allow"), "{error}");
    let tls = json!({"url": format!("https://localhost:{}/x", server.port), "tls": {"serverName": "crm.example.com"}});
    let error = failure(&world.destination(json!({"http": tls})).unwrap()).await;
    assert_eq!(error.kind, Kind::Rejected, "a server name is no way around: {error}");
    let invalid = world.destination(json!({"http": {"url": "https://crm.example.com", "tls": {"serverName": "127.0.0.1"}}}));
    assert_eq!(invalid.err().unwrap().field, "http.tls.serverName");
    let oauth2 = json!({"tokenUrl": "https://127.0.0.1/token", "clientIdRef": suite::secret("id"), "clientSecretRef": suite::secret("secret")});
    let invalid = world.destination(json!({"http": {"url": "https://crm.example.com", "auth": {"oauth2": oauth2}}}));
    assert_eq!(invalid.err().unwrap().field, "http.auth.oauth2.tokenUrl");
    assert_eq!(server.begun(), 0);
}

#[tokio::test]
async fn a_host_that_is_allowed_by_name_needs_no_tls_and_may_be_inside() {
    let server = Counterpart::start(None);
    let http = json!({"url": format!("http://localhost:{}/x", server.port)});
    World::guarded(&["localhost"]).destination(json!({"http": http})).unwrap().deliver(&photo()).await.unwrap();
    assert!(server.only().header("host").starts_with("localhost:"));
    assert!(
        World::guarded(&["127.0.0.1"]).destination(json!({"http": http})).is_err(),
        "http to a name that is not allowed itself"
    );
}

#[tokio::test]
async fn a_certificate_must_come_from_the_bundle_and_a_corrected_bundle_works_at_once() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let server = Counterpart::start(Some(right.server("127.0.0.1", None)));
    let world = World::new();
    let url = format!("https://127.0.0.1:{}/", server.port);
    let public = world.destination(json!({"http": {"url": url}})).unwrap();
    assert_eq!(failure(&public).await.kind, Kind::Tls);
    world.secrets.put("ca", "ca.crt", &wrong.pem);
    let tls = json!({"caRef": {"kind": "Secret", "name": "ca", "key": "ca.crt"}});
    let destination = world.destination(json!({"http": {"url": url, "tls": tls}})).unwrap();
    let error = failure(&destination).await;
    assert_eq!((error.kind, error.disposition()), (Kind::Tls, Disposition::Retry), "{error}");
    assert!(error.to_string().contains("tls.caRef"), "{error}");
    assert_eq!(server.begun(), 0, "nothing was said to a stranger");
    world.secrets.put("ca", "ca.crt", "no certificate");
    let error = failure(&destination).await;
    assert_eq!(error.kind, Kind::Tls, "{error}");
    assert_eq!(failure(&destination).await.kind, Kind::Reference, "what is no bundle is said to be none");
    world.secrets.put("ca", "ca.crt", &right.pem);
    destination.deliver(&photo()).await.unwrap();
}

#[tokio::test]
async fn a_server_name_is_what_the_certificate_must_have() {
    let authority = Authority::new("crm");
    let server = Counterpart::start(Some(authority.server("crm.internal", None)));
    let world = World::new();
    world.secrets.put("ca", "ca.crt", &authority.pem);
    let destination = |name: Option<&str>| {
        let mut tls = json!({"caRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}});
        if let Some(name) = name {
            tls["serverName"] = json!(name);
        }
        world.destination(json!({"http": {"url": format!("https://127.0.0.1:{}/x", server.port), "tls": tls}})).unwrap()
    };
    assert_eq!(failure(&destination(None)).await.kind, Kind::Tls);
    assert_eq!(failure(&destination(Some("other.internal"))).await.kind, Kind::Tls);
    destination(Some("crm.internal")).deliver(&photo()).await.unwrap();
    let seen = server.only();
    assert_eq!((seen.header("host"), seen.target.as_str()), (format!("127.0.0.1:{}", server.port).as_str(), "/x"));
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_a_renewed_one_works_at_once() {
    let (authority, clients, strangers) = (Authority::new("crm"), Authority::new("clients"), Authority::new("strangers"));
    let server = Counterpart::start(Some(authority.server("127.0.0.1", Some(&clients))));
    let world = World::new();
    world.secrets.put("ca", "ca.crt", &authority.pem);
    let show = |issued: std::collections::HashMap<&'static str, String>| {
        for (key, value) in issued {
            world.secrets.put("client", key, &value);
        }
    };
    show(strangers.issue("operator"));
    let http = json!({
        "url": format!("https://127.0.0.1:{}/x", server.port),
        "auth": {"mtls": {"secretName": "client"}},
        "tls": {"caRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}},
    });
    let destination = world.destination(json!({"http": http})).unwrap();
    let error = failure(&destination).await;
    assert_eq!((error.kind, error.disposition()), (Kind::Tls, Disposition::Retry), "{error}");
    show(clients.issue("operator"));
    destination.deliver(&photo()).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

// -------------------------------------------------------------------------------------------------------------- credentials

#[tokio::test]
async fn each_way_to_authenticate_sends_what_it_should() {
    let server = Counterpart::start(None);
    let world = World::new();
    for (key, value) in [("token", "correct-horse"), ("user", "ada"), ("password", "pass:word"), ("key", "Token abc")] {
        world.secrets.put("store", key, value);
    }
    for (auth, header, value) in [
        (bearer(), "authorization", "Bearer correct-horse".to_owned()),
        (
            json!({"basic": {"usernameRef": suite::secret("user"), "passwordRef": suite::secret("password")}}),
            "authorization",
            format!("Basic {}", STANDARD.encode("ada:pass:word")),
        ),
        (json!({"apiKey": {"header": "X-Api-Key", "keyRef": suite::secret("key")}}), "x-api-key", "Token abc".to_owned()),
        (
            json!({"apiKey": {"header": "Authorization", "keyRef": suite::secret("key")}}),
            "authorization",
            "Token abc".to_owned(),
        ),
    ] {
        world.posts(&server, json!({"auth": auth})).deliver(&photo()).await.unwrap();
        assert_eq!(server.only().header(header), value);
        server.forget();
    }
}

#[tokio::test]
async fn t5_a_credential_whose_secret_does_not_name_the_host_is_not_sent() {
    let server = Counterpart::start(None);
    let world = World::new();
    world.secrets.put("store", "token", "correct-horse");
    world.secrets.only_for(&["crm.example.com"]);
    let error = failure(&world.posts(&server, json!({"auth": bearer()}))).await;
    assert_eq!((error.kind, error.disposition()), (Kind::Reference, Disposition::Retry), "{error}");
    assert!(error.to_string().contains("allowedHosts"), "{error}");
    assert_eq!(server.begun(), 0);
}

#[tokio::test]
async fn a_credential_that_cannot_stand_in_a_header_is_a_wrong_secret() {
    let server = Counterpart::start(None);
    let world = World::new();
    world.secrets.put("store", "token", "correct\r\nX-Admin: horse");
    let error = failure(&world.posts(&server, json!({"auth": bearer()}))).await;
    assert_eq!(error.kind, Kind::Reference);
    assert!(error.to_string().contains("key token of Secret store") && !error.to_string().contains("horse"), "{error}");
    assert_eq!(server.begun(), 0);
}

#[tokio::test]
async fn content_starts_again_from_its_beginning_with_a_fresh_credential() {
    let server = Counterpart::start(None);
    let world = World::new();
    world.secrets.put("store", "token", "old-horse");
    let destination = world.sends(&server, "Content", json!({"auth": bearer()}));
    destination.deliver(&photo()).await.unwrap();
    server.forget();
    world.secrets.put("store", "token", "new-horse");
    server.answers(|seen| async move {
        if seen.header("authorization") == "Bearer new-horse" { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
            .into_response()
    });
    let bytes = pattern(3_000_000, 9);
    destination.deliver(&delivery("large.bin", &bytes)).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].body() == bytes);
    assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
    assert_eq!(
        world.sends(&server, "Content", json!({})).deliver(&photo()).await.expect_err("no credential").kind,
        Kind::Denied
    );
}

/// A token endpoint and an API behind it. Tokens are `token-1`, `token-2` and so on; the API takes only the latest.
struct Tokens {
    server: Counterpart,
    issued: Arc<AtomicUsize>,
    world: World,
    secret: Arc<Mutex<String>>,
}

impl Tokens {
    fn start() -> Self {
        let (server, world) = (Counterpart::start(None), World::new());
        world.secrets.put("store", "id", "client-1");
        world.secrets.put("store", "secret", "s3cr&t horse");
        let (issued, secret) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new("s3cr&t horse".to_owned())));
        let (count, expected) = (issued.clone(), secret.clone());
        server.answers(move |seen| {
            let answer = if seen.target == "/token" {
                let secret: String = url::form_urlencoded::byte_serialize(expected.lock().as_bytes()).collect();
                if seen.header("authorization") == format!("Basic {}", STANDARD.encode(format!("client-1:{secret}"))) {
                    let token = format!("token-{}", count.fetch_add(1, Ordering::SeqCst) + 1);
                    axum::Json(json!({"access_token": token, "token_type": "Bearer", "expires_in": "3600"})).into_response()
                } else {
                    (StatusCode::UNAUTHORIZED, axum::Json(json!({"error": "invalid_client"}))).into_response()
                }
            } else if seen.header("authorization") == format!("Bearer token-{}", count.load(Ordering::SeqCst)) {
                StatusCode::OK.into_response()
            } else {
                (StatusCode::UNAUTHORIZED, "expired").into_response()
            };
            async { answer }
        });
        Self { server, issued, world, secret }
    }

    fn destination(&self) -> HttpDestination {
        let token_url = format!("http://127.0.0.1:{}/token", self.server.port);
        let oauth2 = json!({
            "tokenUrl": token_url, "clientIdRef": suite::secret("id"), "clientSecretRef": suite::secret("secret"),
            "scopes": ["cases", "files"], "parameters": {"audience": "crm"},
        });
        self.world.posts(&self.server, json!({"auth": {"oauth2": oauth2}}))
    }

    fn asked(&self) -> Vec<Seen> {
        self.server.seen().into_iter().filter(|seen| seen.target == "/token").collect()
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_for_many_and_renewed_once_when_it_is_refused() {
    let tokens = Tokens::start();
    let destination = tokens.destination();
    let (first, second) = (photo(), delivery("other.pdf", b"x"));
    let all = (0..20).map(|n| destination.deliver(if n % 2 == 0 { &first } else { &second }));
    for result in futures::future::join_all(all).await {
        result.unwrap();
    }
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1, "one asks, the others wait");
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&asked[0].body()).into_owned().collect();
    let expected = [("grant_type", "client_credentials"), ("scope", "cases files"), ("audience", "crm")];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    // The API forgets the token before its time.
    tokens.issued.fetch_add(1, Ordering::SeqCst);
    destination.deliver(&photo()).await.unwrap();
    assert_eq!(tokens.asked().len(), 2);
    destination.deliver(&photo()).await.unwrap();
    assert_eq!(tokens.asked().len(), 2);
}

#[tokio::test]
async fn a_token_that_is_refused_twice_is_a_denial() {
    let tokens = Tokens::start();
    tokens.server.answers(|seen| async move {
        if seen.target == "/token" {
            axum::Json(json!({"access_token": "canary-token", "expires_in": 3600})).into_response()
        } else {
            (StatusCode::UNAUTHORIZED, format!("{} is expired", seen.header("authorization"))).into_response()
        }
    });
    let error = failure(&tokens.destination()).await;
    assert_eq!((error.kind, tokens.asked().len()), (Kind::Denied, 2), "{error}");
    assert!(error.to_string().contains("Secret store") && !error.to_string().contains("canary-token"), "{error}");
}

#[tokio::test]
async fn a_client_secret_that_changed_is_used_at_once() {
    let tokens = Tokens::start();
    let destination = tokens.destination();
    *tokens.secret.lock() = "renewed horse".into();
    let error = failure(&destination).await;
    assert_eq!((error.kind, error.disposition()), (Kind::Denied, Disposition::Terminal), "{error}");
    for part in ["invalid_client", "keys id and secret of Secret store", "127.0.0.1"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(!error.to_string().contains("horse") && !error.to_string().contains("client-1"), "{error}");
    tokens.world.secrets.put("store", "secret", "renewed horse");
    destination.deliver(&photo()).await.unwrap();
}

#[tokio::test]
async fn a_failing_token_endpoint_is_an_outage_and_nothing_reaches_the_api() {
    let tokens = Tokens::start();
    for (status, body, kind) in [
        (503, "", Kind::Unavailable),
        (429, "", Kind::RateLimited),
        (302, "", Kind::Rejected),
        (200, "<html>", Kind::Malformed),
        (200, r#"{"access_token": "a\nb"}"#, Kind::Malformed),
        (200, r#"{"access_token": "x", "token_type": "mac"}"#, Kind::Malformed),
    ] {
        tokens.server.answers_with(status, &[("retry-after", "9"), ("location", "/elsewhere")], body);
        let error = failure(&tokens.destination()).await;
        assert_eq!(error.kind, kind, "{status} {body}: {error}");
        if matches!(kind, Kind::Unavailable | Kind::RateLimited) {
            assert_eq!(error.disposition(), Disposition::RetryAfter(Duration::from_secs(9)));
        }
    }
    tokens.server.answers(|_| async { Response::new(endless()) });
    assert_eq!(failure(&tokens.destination()).await.kind, Kind::Malformed);
    assert!(tokens.server.seen().iter().all(|seen| seen.target == "/token"));
}

#[tokio::test]
async fn a_client_can_authenticate_in_the_form() {
    let tokens = Tokens::start();
    let oauth2 = json!({
        "tokenUrl": format!("http://127.0.0.1:{}/token", tokens.server.port), "clientAuthentication": "Body",
        "clientIdRef": suite::secret("id"), "clientSecretRef": suite::secret("secret"),
    });
    tokens.server.answers_with(200, &[], r#"{"access_token": "token-1", "instance_url": "https://x.example"}"#);
    tokens.world.posts(&tokens.server, json!({"auth": {"oauth2": oauth2}})).deliver(&photo()).await.unwrap();
    let asked = &tokens.asked()[0];
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&asked.body()).into_owned().collect();
    assert_eq!(
        (form["client_id"].as_str(), form["client_secret"].as_str(), asked.header("authorization")),
        ("client-1", "s3cr&t horse", "")
    );
    assert!(!form.contains_key("scope"));
}

#[tokio::test]
async fn a_csrf_token_is_fetched_once_and_again_when_it_is_refused() {
    let server = Counterpart::start(None);
    let world = World::new();
    world.secrets.put("store", "token", "correct-horse");
    let valid = Arc::new(AtomicUsize::new(1));
    let current = valid.clone();
    server.answers(move |seen| {
        let valid = current.load(Ordering::SeqCst);
        let answer = if seen.header("authorization") != "Bearer correct-horse" {
            StatusCode::UNAUTHORIZED.into_response()
        } else if seen.method == "GET" && seen.header("x-csrf-token") == "Fetch" {
            let mut answer = StatusCode::OK.into_response();
            answer.headers_mut().insert("x-csrf-token", format!("csrf-{valid}").parse().unwrap());
            answer.headers_mut().append("set-cookie", format!("session=s-{valid}; Path=/; HttpOnly").parse().unwrap());
            answer.headers_mut().append("set-cookie", "client=100".parse().unwrap());
            answer
        } else if seen.header("x-csrf-token") == format!("csrf-{valid}")
            && seen.header("cookie") == format!("session=s-{valid}; client=100")
        {
            StatusCode::CREATED.into_response()
        } else {
            (StatusCode::FORBIDDEN, [("x-csrf-token", "Required")], "CSRF token validation failed").into_response()
        };
        async { answer }
    });
    let destination = world.posts(&server, json!({"auth": bearer(), "path": ["'Documents'"], "csrf": {}}));
    let fetched =
        || server.seen().iter().filter(|seen| seen.method == "GET").map(|seen| seen.target.clone()).collect::<Vec<_>>();
    destination.deliver(&photo()).await.unwrap();
    destination.deliver(&photo()).await.unwrap();
    assert_eq!(fetched(), ["/api"]);
    valid.store(2, Ordering::SeqCst);
    destination.deliver(&photo()).await.unwrap();
    assert_eq!(fetched().len(), 2);
    server.answers_with(200, &[], "no token here");
    let error = failure(&world.posts(&server, json!({"csrf": {}}))).await;
    assert!(error.kind == Kind::Rejected && error.to_string().contains("csrf.url"), "{error}");
}

#[tokio::test]
async fn a_source_that_refuses_is_not_taken_for_a_refused_credential() {
    struct Closed;

    #[async_trait]
    impl Content for Closed {
        async fn open(&self) -> Result<Opened> {
            Err(Error::new(Kind::Denied, "the source is closed"))
        }
    }

    let server = Counterpart::start(None);
    let world = World::new();
    world.secrets.put("store", "token", "old-horse");
    let destination = world.sends(&server, "Content", json!({"auth": bearer()}));
    destination.deliver(&photo()).await.unwrap();
    world.secrets.put("store", "token", "new-horse");
    let closed = Delivery { content: Arc::new(Closed), ..photo() };
    let error = destination.deliver(&closed).await.expect_err("closed");
    assert!(error.kind == Kind::Denied && error.to_string().contains("the source is closed"), "{error}");
    destination.deliver(&photo()).await.unwrap();
    assert_eq!(server.seen().last().unwrap().header("authorization"), "Bearer old-horse", "nobody refused it");
}

fn signature(key: &[u8], signed: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(signed);
    STANDARD.encode(mac.finalize().into_bytes())
}

#[tokio::test]
async fn a_receiver_can_verify_who_sent_a_body_and_a_content() {
    let server = Counterpart::start(None);
    let world = World::new();
    world.secrets.put("store", "hmac", &format!("whsec_{}", STANDARD.encode([7; 32])));
    let hmac = json!({"auth": {"hmac": {"keyRef": suite::secret("hmac")}}});
    let photo = photo();
    world.posts(&server, hmac.clone()).deliver(&photo).await.unwrap();
    let seen = server.only();
    let (id, time) = (seen.header("webhook-id"), seen.header("webhook-timestamp"));
    assert_eq!(id, photo.key);
    assert!((time.parse::<i64>().unwrap() - jiff::Timestamp::now().as_second()).abs() < 60);
    let signed = [format!("{id}.{time}.").as_bytes(), &seen.body()].concat();
    assert_eq!(seen.header("webhook-signature"), format!("v1,{}", signature(&[7; 32], &signed)));
    server.forget();
    // With the digest that the source tells, and without one.
    let bytes = pattern(300_000, 3);
    let unknown =
        Delivery { content: Arc::new(suite::Staged::of(&bytes)), ..delivery_of("unknown.bin", bytes.len() as u64, None) };
    for content in [delivery("known.bin", &bytes), unknown] {
        world.sends(&server, "Content", hmac.clone()).deliver(&content).await.unwrap();
        let seen = server.only();
        let digest = suite::hex(&Sha256::digest(seen.body()));
        let signed = format!("{}.{}.{digest}", content.key, seen.header("webhook-timestamp"));
        assert_eq!(seen.header("webhook-signature"), format!("v1h,{}", signature(&[7; 32], signed.as_bytes())));
        assert_eq!(seen.header("repr-digest"), format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(&bytes))));
        server.forget();
    }
    world.secrets.put("short", "hmac", "too-short");
    let short = json!({"auth": {"hmac": {"keyRef": {"name": "short", "key": "hmac"}}}});
    let error = failure(&world.posts(&server, short)).await;
    assert!(error.kind == Kind::Reference && error.to_string().contains("24 bytes"), "{error}");
}

// ------------------------------------------------------------------------------------------------------------- declarations

#[tokio::test]
async fn a_field_that_is_wrong_or_would_change_nothing_is_refused_by_its_path() {
    let world = World::new();
    let url = "https://crm.example.com/api";
    for (spec, field) in [
        (json!({"http": {"url": url, "path": ["'a'", "flie.name"]}}), "http.path[1]"),
        (json!({"http": {"url": url, "query": {"q": "1 +"}}}), "http.query.q"),
        (json!({"http": {"url": url, "headers": {"X-A": "nobody"}}}), "http.headers.X-A"),
        (json!({"http": {"url": url, "headers": {"Authorization": "'x'"}}}), "http.headers.Authorization"),
        (json!({"http": {"url": url, "template": "{'a': reference.url}"}}), "http.template"),
        (json!({"http": {"url": url, "body": "Template"}}), "http.template"),
        (json!({"http": {"url": url, "body": "CloudEvent", "template": "{}"}}), "http.template"),
        (json!({"http": {"url": url, "method": "GET", "template": "{}"}}), "http.template"),
        (json!({"http": {"url": url, "method": "DELETE", "body": "CloudEvent"}}), "http.body"),
        (json!({"http": {"url": url, "timeout": "11m"}}), "http.timeout"),
        (json!({"http": {"url": url, "timeout": "0s"}}), "http.timeout"),
        (json!({"http": {"url": url, "success": ["200", "299-200"]}}), "http.success[1]"),
        (json!({"http": {"url": url, "auth": {}}}), "http.auth"),
        (json!({"http": {"url": url, "auth": {"mtls": {"secretName": "a"}, "bearer": bearer()["bearer"]}}}), "http.auth"),
        (json!({"http": {"url": "http://127.0.0.1/", "auth": {"mtls": {"secretName": "a"}}}}), "http.auth.mtls"),
        (json!({"http": {"url": "http://127.0.0.1/", "tls": {}}}), "http.tls"),
        (
            json!({"http": {"url": url, "auth": {"apiKey": {"header": "Host", "keyRef": suite::secret("k")}}}}),
            "http.auth.apiKey.header",
        ),
        (json!({"http": {"url": "http://crm.example.com/"}}), "http.url"),
        (json!({"http": {"url": "https://ada:pw@crm.example.com/"}}), "http.url"),
        (json!({"http": {"url": url, "multipart": {"file": "f"}}}), "http.multipart"),
        (json!({"http": {"url": url, "csrf": {"url": "https://other.example.com/"}}}), "http.csrf.url"),
        (json!({"http": {"url": url, "csrf": {}, "headers": {"X-Csrf-Token": "'x'"}}}), "http.csrf"),
        (json!({"send": "Content", "http": {"url": url, "method": "GET"}}), "http.method"),
        (json!({"send": "Content", "http": {"url": url, "template": "{}"}}), "http.template"),
        (json!({"send": "Content", "http": {"url": url, "body": "CloudEvent"}}), "http.body"),
        (json!({"send": "Content", "http": {"url": url, "multipart": {"file": "f", "json": "j"}}}), "http.template"),
        (
            json!({"send": "Content", "http": {"url": url, "multipart": {"file": "f"}, "template": "{}"}}),
            "http.multipart.json",
        ),
        (
            json!({"send": "Content", "http": {"url": url, "multipart": {"file": "f"}, "headers": {"Content-Type": "'a/b'"}}}),
            "http.headers.Content-Type",
        ),
        (json!({"send": "Content", "referenceFor": "1h", "http": {"url": url}}), "referenceFor"),
        (json!({"send": "Reference", "referenceFor": "25h", "http": {"url": url}}), "referenceFor"),
    ] {
        let invalid = world.destination(spec.clone()).err().unwrap_or_else(|| panic!("{spec} was taken"));
        assert_eq!(invalid.field, field, "{spec}: {invalid}");
    }
    let spec: DestinationSpec = serde_json::from_value(json!({"name": "x", "writeBack": {"a": "respond.id"}})).unwrap();
    assert_eq!(compile_write_back(&spec).err().unwrap().field, "writeBack.a");
}

// ------------------------------------------------------------------------------------------------------------------ secrecy

/// Everything that is logged in this process, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn t5_secrets_are_in_no_error_and_no_log_at_any_level() {
    let log = Log::default();
    let writer = log.clone();
    let filter = "off,reqwest=trace,hyper=trace,hyper_util=trace,rustls=trace,file360_operator=trace";
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone()).with_ansi(false).init();
    let tokens = Tokens::start();
    let world = &tokens.world;
    for key in ["token", "user", "password", "key", "hmac"] {
        world.secrets.put("canaries", key, &format!("canary-{key}-0123456789abcdef"));
    }
    *tokens.secret.lock() = "canary-client".into();
    world.secrets.put("store", "secret", "canary-client");
    let canary = |key: &str| json!({"name": "canaries", "key": key});
    let ways = [
        json!({"bearer": {"tokenRef": canary("token")}}),
        json!({"basic": {"usernameRef": canary("user"), "passwordRef": canary("password")}}),
        json!({"apiKey": {"header": "X-Key", "keyRef": canary("key")}}),
        json!({"hmac": {"keyRef": canary("hmac")}}),
    ];
    let mut told = Vec::new();
    let destinations =
        ways.iter().map(|auth| world.posts(&tokens.server, json!({"auth": auth, "query": {"q": "'canary-query'"}})));
    let destinations: Vec<HttpDestination> = destinations.chain([tokens.destination()]).collect();
    for destination in &destinations {
        told.push(format!("{:?}", destination.deliver(&photo()).await));
    }
    // The other side repeats all it was sent.
    tokens.server.answers(|seen| async move {
        let basic = seen.header("authorization").strip_prefix("Basic ").and_then(|text| STANDARD.decode(text).ok());
        let basic = String::from_utf8(basic.unwrap_or_default()).unwrap();
        (StatusCode::FORBIDDEN, format!("{basic} {} {} {}", seen.header("authorization"), seen.header("x-key"), seen.target))
            .into_response()
    });
    for destination in &destinations {
        told.push(failure(destination).await.to_string());
    }
    tokens.server.stop().await;
    for destination in &destinations {
        told.push(failure(destination).await.to_string());
    }
    let log = String::from_utf8_lossy(&log.0.lock()).into_owned();
    assert!(log.contains("TRACE") && log.contains("hyper"), "the log works: {log}");
    let encoded = STANDARD.encode("canary-user-0123456789abcdef:canary-password-0123456789abcdef");
    for text in told.iter().chain([&log]) {
        for secret in ["canary-", encoded.as_str(), "Y2FuYXJ5"] {
            let at = text.find(secret).map(|at| text[at.saturating_sub(200)..].chars().take(400).collect::<String>());
            assert_eq!(at, None, "{secret} is told");
        }
    }
}
