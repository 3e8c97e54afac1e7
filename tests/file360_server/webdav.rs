//! The WebDAV driver against rclone, and against a server that lies. What holds for every driver is in `trees`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use file360_operator::error::Kind;
use file360_operator::file360::connector::Credential;
use file360_operator::file360::model::{
    BusinessKey, ItemPatch, NewFolder, NewWorkspace, OnConflict, OwnerMark, OwnerState, WorkspacePatch, WorkspaceState,
};
use file360_operator::file360::{File360, NewFile};
use file360_operator::redacted::Redacted;
use futures::StreamExt as _;
use parking_lot::Mutex;
use reqwest::Method;
use tokio_util::sync::CancellationToken;

use crate::counterparts::WebDavServer;
use crate::driver::{Which, cause, failure, file, key, rclone, read, stream, webdav, webdav_as};
use crate::support::http;

/// Answers with what a test says, and keeps what it was asked.
#[derive(Clone)]
struct Liar {
    answer: Arc<dyn Fn(&Request) -> Response + Send + Sync>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// A server whose every answer is the test's; its URL and what it was asked.
async fn liar(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let liar = Liar { answer: Arc::new(answer), asked: Arc::default() };
    let asked = liar.asked.clone();
    let app = Router::new().fallback(tell).with_state(liar);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, asked)
}

async fn tell(State(liar): State<Liar>, request: Request) -> Response {
    let credential = request.headers().get("authorization").map(|value| value.to_str().unwrap_or("?").to_owned());
    liar.asked.lock().push(format!("{} {} {}", request.method(), request.uri(), credential.unwrap_or_default()));
    (liar.answer)(&request)
}

fn answer(status: u16, body: impl Into<Body>) -> Response {
    Response::builder().status(status).header("dav", "1, 2").body(body.into()).unwrap()
}

fn driver(url: &str) -> Arc<dyn File360> {
    webdav(url, http(), CancellationToken::new())
}

fn multistatus(responses: &str) -> String {
    format!("<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\">{responses}</D:multistatus>")
}

fn collection(href: &str) -> String {
    format!(
        "<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop>\
         <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
    )
}

#[tokio::test]
async fn t3_a_hostile_listing_is_refused_and_nothing_else_is_asked() {
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]><D:multistatus xmlns:D=\"DAV:\">&b;</D:multistatus>";
    let own = collection("/base/ws/");
    for (what, body) in [
        ("an entity bomb", bomb.to_owned()),
        ("deep XML", multistatus(&format!("{own}{}", "<D:a>".repeat(100_000)))),
        ("a path outside", multistatus(&format!("{own}{}", collection("/base/ws/../../etc")))),
        ("an encoded path outside", multistatus(&format!("{own}{}", collection("/base/ws/%2e%2e/%2e%2e/etc")))),
        ("another collection", multistatus(&format!("{own}{}", collection("/base/other/a")))),
        ("another host", multistatus(&format!("{own}{}", collection("http://evil.example/base/ws/a")))),
        ("nothing", multistatus("")),
        ("no XML", "<html>welcome".to_owned()),
        ("another element", own.clone()),
    ] {
        let (url, asked) = liar(move |request| match request.method().as_str() {
            "PROPFIND" => answer(207, body.clone()),
            _ => answer(404, ""),
        })
        .await;
        let error = driver(&url).folders("ws").await.unwrap_err();
        assert_eq!(error.kind, Kind::Malformed, "{what}: {error}");
        assert!(error.to_string().len() < 600, "{what}: what is said stays short");
        let asked = asked.lock();
        assert!(asked.iter().all(|line| line.contains(" /base/ws")), "{what}: {asked:?}");
    }
}

#[tokio::test]
async fn t5_an_endless_answer_is_read_to_a_bound_and_no_further() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let (url, _) = liar(move |_| {
        let counter = counter.clone();
        let block = Bytes::from(format!("<D:x>{}</D:x>", "y".repeat(64 << 10)));
        let endless = futures::stream::repeat_with(move || {
            counter.fetch_add(block.len(), Ordering::Relaxed);
            Ok::<_, std::io::Error>(block.clone())
        });
        answer(207, Body::from_stream(endless))
    })
    .await;
    assert_eq!(failure(driver(&url).item_at("ws", "/a").await).0, Kind::Malformed);
    assert!(sent.load(Ordering::Relaxed) < 64 << 20, "{sent:?} bytes were taken");
}

#[tokio::test]
async fn t3_a_collection_that_goes_down_for_ever_ends_at_a_bound() {
    let (url, asked) = liar(|request| {
        let own = request.uri().path().trim_end_matches('/').to_owned();
        let below: String = (0..60).map(|n| collection(&format!("{own}/{n}/"))).collect();
        match request.method().as_str() {
            "PROPFIND" => answer(207, multistatus(&format!("{}{below}", collection(&own)))),
            _ => answer(404, ""),
        }
    })
    .await;
    let error = driver(&url).folders("ws").await.unwrap_err();
    assert!(error.kind == Kind::Rejected && error.to_string().contains("there is more than 200000 below /"), "{error}");
    assert!(asked.lock().len() < 10_001, "it ends before it is all asked for");
}

#[tokio::test]
async fn c5_a_folder_with_something_the_server_does_not_tell_about_is_not_removed() {
    let hidden = "<D:response><D:href>/base/ws/A/secret</D:href><D:status>HTTP/1.1 403 Forbidden</D:status></D:response>";
    let (url, asked) = liar(move |request| match (request.method().as_str(), request.uri().path()) {
        ("PROPFIND", "/base/ws/A/") => answer(207, multistatus(&format!("{}{hidden}", collection("/base/ws/A/")))),
        ("PROPFIND", path) => answer(207, multistatus(&collection(path))),
        ("LOCK", _) => {
            let mut locked = answer(200, "");
            locked.headers_mut().insert("lock-token", "<urn:x>".parse().unwrap());
            locked
        }
        _ => answer(204, ""),
    })
    .await;
    let driver = driver(&url);
    driver.service().await.unwrap();
    let folder = driver.folders("ws").await;
    assert!(folder.is_ok(), "{folder:?}");
    let id = driver.item_at("ws", "/A").await.unwrap().unwrap().id;
    assert_eq!(failure(driver.delete_empty_folder(&id, "*", &cause()).await), (Kind::Conflict, "not-empty".to_owned()));
    assert!(!asked.lock().iter().any(|line| line.starts_with("DELETE")), "{asked:?}");
}

#[tokio::test]
async fn t3_credentials_follow_no_redirect() {
    let (other, reached) = liar(|_| answer(207, "")).await;
    let (url, asked) = liar(move |_| {
        let mut redirect = answer(307, "");
        redirect.headers_mut().insert("location", other.parse().unwrap());
        redirect
    })
    .await;
    // As the operator makes its clients (controllers/connection/credentials.rs).
    let strict = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let error = webdav(&url, strict, CancellationToken::new()).service().await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (Kind::Rejected, "redirected"), "{error}");
    assert!(error.to_string().contains("spec.endpoint"), "{error}");
    assert!(asked.lock()[0].contains("Basic "), "the server itself got them");
    assert!(reached.lock().is_empty(), "nobody else did");
}

#[tokio::test]
async fn what_is_no_webdav_says_so() {
    let (url, _) = liar(|_| Response::new(Body::from("hello"))).await;
    let error = driver(&url).service().await.unwrap_err();
    assert!(error.kind == Kind::Unsupported && error.to_string().contains("does not speak WebDAV"), "{error}");
    let missing = driver(&format!("{}/nowhere", rclone().endpoint)).service().await.unwrap_err();
    assert!(missing.kind == Kind::NotFound && missing.to_string().contains("spec.endpoint"), "{missing}");
}

#[tokio::test]
async fn t5_a_wrong_password_is_a_denial_that_names_the_way_out_and_not_the_password() {
    for credential in [
        Credential::Basic { username: Redacted::new("operator"), password: Redacted::new("canary-1") },
        Credential::Bearer(Redacted::new("canary-2")),
    ] {
        let driver = webdav_as(&rclone().endpoint, credential, http(), CancellationToken::new());
        let error = driver.service().await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (Kind::Denied, "unauthenticated"));
        assert!(error.to_string().contains("Secret") && !format!("{error:?}").contains("canary"), "{error:?}");
    }
}

#[tokio::test]
async fn tls_is_verified_with_the_authority_that_is_named() {
    let server = WebDavServer::start_with_tls();
    let authority = reqwest::Certificate::from_pem(server.certificate.as_ref().unwrap().as_bytes()).unwrap();
    let trusting = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
    webdav(&server.endpoint, trusting.clone(), CancellationToken::new()).service().await.unwrap();
    assert_eq!(failure(webdav(&server.endpoint, http(), CancellationToken::new()).service().await).0, Kind::Tls);
    let other_name = format!("https://127.0.0.1:{}", server.port);
    assert_eq!(failure(webdav(&other_name, trusting, CancellationToken::new()).service().await).0, Kind::Tls);
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_and_back_when_it_is_back() {
    let server = WebDavServer::start();
    let driver = driver(&server.endpoint);
    driver.service().await.unwrap();
    server.stop();
    assert_eq!(failure(driver.service().await).0, Kind::Unavailable);
    assert_eq!(failure(driver.workspace("ws").await).0, Kind::Unavailable, "c5: it is not said to be absent");
    server.start_again();
    driver.service().await.unwrap();
}

#[tokio::test]
async fn c9_a_leader_that_lost_its_place_writes_nothing() {
    let subject = Which::WebDav.subject().await;
    subject.workspace("one").await;
    let stop = CancellationToken::new();
    let (url, asked) = liar(|_| answer(404, "")).await;
    let late = webdav(&url, http(), stop.clone());
    stop.cancel();
    let new = NewFolder {
        path: "/A".into(),
        classification: None,
        metadata: BTreeMap::new(),
        locked: false,
        managed_key: Some("k".into()),
        on_conflict: OnConflict::Return,
    };
    assert_eq!(failure(late.create_folder("ws", &new, &cause()).await).0, Kind::Stopping);
    assert!(asked.lock().iter().all(|line| line.starts_with("PROPFIND") || line.starts_with("GET")), "{asked:?}");
}

/// Why conditions are compensated: when this fails, rclone has learned them.
#[tokio::test]
async fn rclone_passes_over_conditions_and_existing_collections_and_honours_locks_and_overwrite() {
    let url = format!("{}/conditions.txt", rclone().endpoint);
    let call = |method: &str, headers: &[(&str, &str)], body: &'static str| {
        let mut request = http().request(Method::from_bytes(method.as_bytes()).unwrap(), &url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request = request.basic_auth(WebDavServer::USER, Some(WebDavServer::PASSWORD)).body(body);
        async move { request.send().await.unwrap() }
    };
    assert_eq!(call("PUT", &[], "first").await.status(), 201);
    assert_eq!(call("PUT", &[("if-none-match", "*")], "second").await.status(), 201);
    assert_eq!(call("PUT", &[("if-match", "\"nonsense\"")], "third").await.status(), 201);
    let collection = format!("{}/there", rclone().endpoint);
    for _ in 0..2 {
        let request = http().request(Method::from_bytes(b"MKCOL").unwrap(), &collection);
        let request = request.basic_auth(WebDavServer::USER, Some(WebDavServer::PASSWORD));
        assert_eq!(request.send().await.unwrap().status(), 201, "the standard has 405 for the second");
    }
    let lock = "<?xml version=\"1.0\"?><lockinfo xmlns=\"DAV:\"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    let held = call("LOCK", &[("timeout", "Second-20"), ("depth", "0")], lock).await;
    let token = held.headers()["lock-token"].to_str().unwrap().to_owned();
    assert_eq!(call("PUT", &[], "refused").await.status(), 423);
    assert_eq!(call("PUT", &[("if", &format!("({token})"))], "with it").await.status(), 201);
    assert_eq!(call("UNLOCK", &[("lock-token", &token)], "").await.status(), 204);
    let target = format!("{}/taken.txt", rclone().endpoint);
    let taken = http().put(&target).basic_auth(WebDavServer::USER, Some(WebDavServer::PASSWORD)).body("kept");
    assert_eq!(taken.send().await.unwrap().status(), 201);
    assert_eq!(call("MOVE", &[("destination", &target), ("overwrite", "F")], "").await.status(), 412);
    assert_eq!(std::fs::read_to_string(rclone().root().join("taken.txt")).unwrap(), "kept");
}

/// A server before rclone that does what it is asked, and loses the replies to one method.
async fn forgetful(method: &'static str, times: usize) -> (String, Arc<AtomicUsize>) {
    let left = Arc::new(AtomicUsize::new(times));
    let state = (left.clone(), http());
    let app = Router::new()
        .fallback(move |State((left, http)): State<(Arc<AtomicUsize>, reqwest::Client)>, request: Request| async move {
            let (parts, body) = request.into_parts();
            let mut headers = parts.headers;
            let host = headers.remove("host").unwrap();
            if let Some(destination) = headers.get("destination") {
                let there =
                    destination.to_str().unwrap().replace(host.to_str().unwrap(), &format!("127.0.0.1:{}", rclone().port));
                headers.insert("destination", there.parse().unwrap());
            }
            let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
            let url = format!("{}{}", rclone().endpoint, parts.uri);
            let is_lost = parts.method.as_str() == method
                && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            let answer = http.request(parts.method, url).headers(headers).body(body).send().await.unwrap();
            if is_lost {
                return Response::builder().status(503).body(Body::empty()).unwrap();
            }
            let mut response = Response::builder().status(answer.status());
            for (name, value) in answer.headers() {
                response = response.header(name, value);
            }
            response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
        })
        .with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, left)
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_lost_reply_to_any_method_and_another_try_end_as_if_nothing_was_lost() {
    for method in ["MKCOL", "PUT", "MOVE", "DELETE", "LOCK", "UNLOCK"] {
        let tenant = format!("lost {method}");
        std::fs::create_dir(rclone().root().join(&tenant)).unwrap();
        let (url, left) = forgetful(method, 1).await;
        let driver = driver(&format!("{url}/{}", tenant.replace(' ', "%20")));
        driver.service().await.unwrap();
        let (business, folder) = (BusinessKey { system: "s".into(), key: "k".into() }, new_folder("/A"));
        let workspace = loop {
            if let Ok(creation) = driver.create_workspace(&business, &new_workspace(), &cause()).await {
                let (file360_operator::file360::Creation::Created(workspace)
                | file360_operator::file360::Creation::Existed(workspace)) = creation;
                break workspace;
            }
        };
        let made = loop {
            if let Ok(made) = driver.create_folder(&workspace.id, &folder, &cause()).await {
                break made.value;
            }
        };
        let once = key();
        let item = loop {
            if let Ok(item) = driver.upload(&made.id, &file("a.txt"), stream("hello"), &once, &cause()).await {
                break item;
            }
        };
        assert_eq!(read(driver.download(&item.id, 1).await.unwrap()).await.unwrap(), b"hello", "{method}");
        let patch = ItemPatch { parent_id: Some(workspace.root_id.clone()), ..ItemPatch::default() };
        driver.patch_item(&item.id, "*", &patch, &cause()).await.unwrap();
        while driver.delete_empty_folder(&made.id, "*", &cause()).await.is_err() {}
        assert_eq!(left.load(Ordering::SeqCst), 0, "{method}: a reply was lost");
        let files: Vec<String> =
            driver.files(&workspace.id, "/", None).await.unwrap().items.into_iter().map(|item| item.path).collect();
        assert_eq!(files, ["/a.txt"], "{method}");
        assert!(driver.folders(&workspace.id).await.unwrap().value.is_empty(), "{method}");
        let own: Vec<_> = std::fs::read_dir(rclone().root().join(&tenant).join(&workspace.id).join(".file360"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(own, ["workspace.json"], "{method}: no half upload is left");
    }
}

fn new_workspace() -> NewWorkspace {
    NewWorkspace {
        display_name: "Acme".into(),
        classification: None,
        metadata: BTreeMap::new(),
        sharing: None,
        managed_fields: Vec::new(),
        owner: None,
    }
}

fn new_folder(path: &str) -> NewFolder {
    NewFolder {
        path: path.into(),
        classification: None,
        metadata: BTreeMap::new(),
        locked: false,
        managed_key: Some("k".into()),
        on_conflict: OnConflict::Return,
    }
}

#[tokio::test]
async fn what_webdav_does_not_have_is_refused_by_name_before_anything_is_done() {
    let (url, asked) = liar(|_| answer(404, "")).await;
    let driver = driver(&url);
    let business = BusinessKey { system: "s".into(), key: "k".into() };
    let labelled = NewWorkspace { classification: Some("Secret".into()), ..new_workspace() };
    let described = NewWorkspace { metadata: [("a".to_owned(), "b".to_owned())].into(), ..new_workspace() };
    let locked = NewFolder { locked: true, ..new_folder("/A") };
    let annotated = NewFile { metadata: [("a".to_owned(), "b".to_owned())].into(), ..file("a") };
    let patch = WorkspacePatch { classification: Some(Some("x".into())), ..WorkspacePatch::default() };
    let refusals = [
        driver.create_workspace(&business, &labelled, &cause()).await.err(),
        driver.create_workspace(&business, &described, &cause()).await.err(),
        driver.patch_workspace("ws", "*", &patch, &cause()).await.err(),
        driver.create_folder("ws", &locked, &cause()).await.err(),
        driver.upload("d3M", &annotated, stream("x"), &key(), &cause()).await.err(),
        driver.members("ws").await.err(),
        driver.links("ws").await.err(),
        driver.upload_requests("ws").await.err(),
        driver.transition("ws", "*", WorkspaceState::Archived, &cause()).await.err(),
        driver.trash_workspace("ws", "*", std::time::Duration::from_secs(1), &cause()).await.err(),
        driver.delete_item("d3M", "*", &cause()).await.err(),
        driver.versions("d3M").await.err(),
        driver.client_state("k").await.err(),
        driver.facets("f", None, None).await.err(),
        driver.changes("now", std::time::Duration::ZERO).await.err(),
        driver.take_fence("c", "o", "p").await.err(),
    ];
    for (at, error) in refusals.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("call {at} is not refused"));
        assert_eq!(error.kind, Kind::Unsupported, "call {at}: {error}");
        assert!(error.to_string().contains("WebDAV has no "), "call {at}: {error}");
    }
    assert!(asked.lock().is_empty(), "{asked:?}");
}

#[tokio::test]
async fn c11_an_active_mark_of_another_cluster_stays() {
    let subject = Which::WebDav.subject().await;
    let ws = subject.workspace("one").await;
    let of = |cluster: &str, state| OwnerMark {
        cluster_id: cluster.into(),
        namespace: "n".into(),
        name: "w".into(),
        uid: "u".into(),
        state,
    };
    let owned = subject.driver.set_owner(&ws.id, &ws.etag, &of("c1", OwnerState::Active), &cause()).await.unwrap().value;
    let taken = subject.driver.set_owner(&ws.id, &owned.etag, &of("c2", OwnerState::Active), &cause()).await;
    assert_eq!(failure(taken), (Kind::Conflict, "owned-by-other".to_owned()));
    let freed =
        subject.driver.set_owner(&ws.id, &owned.etag, &of("c1", OwnerState::Released), &cause()).await.unwrap().value;
    subject.driver.set_owner(&ws.id, &freed.etag, &of("c2", OwnerState::Active), &cause()).await.unwrap();
}

#[tokio::test]
async fn c5_a_damaged_marker_is_an_error_and_never_an_absent_workspace() {
    let server = WebDavServer::start();
    let driver = driver(&server.endpoint);
    driver.service().await.unwrap();
    let business = BusinessKey { system: "s".into(), key: "k".into() };
    let (file360_operator::file360::Creation::Created(ws) | file360_operator::file360::Creation::Existed(ws)) =
        driver.create_workspace(&business, &new_workspace(), &cause()).await.unwrap();
    let good = std::fs::read(server.root().join(&ws.id).join(".file360/workspace.json")).unwrap();
    let url = format!("{}/{}/.file360/workspace.json", server.endpoint, ws.id);
    let write = |content: Vec<u8>| {
        let request = http().put(&url).basic_auth(WebDavServer::USER, Some(WebDavServer::PASSWORD)).body(content);
        async move { assert!(request.send().await.unwrap().status().is_success()) }
    };
    for bad in ["{", "[]", "{\"form\": 1}", "not JSON at all"] {
        write(bad.into()).await;
        let error = driver.workspace_by_key(&business).await.unwrap_err();
        assert!(error.kind == Kind::Rejected && error.to_string().contains("workspace.json"), "{bad}: {error}");
        assert!(driver.create_workspace(&business, &new_workspace(), &cause()).await.is_err(), "{bad}");
        assert_eq!(driver.workspaces(None, None).await.unwrap().items.len(), 1, "{bad}: it stops no listing");
    }
    write("{\"form\": 2, \"more\": true}".into()).await;
    assert_eq!(failure(driver.workspace_by_key(&business).await).0, Kind::Unsupported);
    write(good).await;
    assert_eq!(driver.workspace_by_key(&business).await.unwrap().map(|found| found.id), Some(ws.id));
}

#[tokio::test]
async fn r3_half_a_file_is_never_seen_under_its_name() {
    let subject = Which::WebDav.subject().await;
    let ws = subject.workspace("one").await;
    let (driver, root, id) = (subject.driver.clone(), ws.root_id.clone(), ws.id.clone());
    let (halfway, go_on) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (reached, released) = (halfway.clone(), go_on.clone());
    let content = futures::stream::iter([0, 1]).then(move |n| {
        let (reached, released) = (reached.clone(), released.clone());
        async move {
            if n == 1 {
                reached.notify_one();
                released.notified().await;
            }
            Ok(Bytes::from(vec![7; 1 << 20]))
        }
    });
    let upload = tokio::spawn(async move { driver.upload(&root, &file("a.bin"), content.boxed(), &key(), &cause()).await });
    halfway.notified().await;
    assert!(subject.files(&ws, "/").await.is_empty());
    assert_eq!(subject.driver.item_at(&id, "/a.bin").await.unwrap(), None);
    go_on.notify_one();
    assert_eq!(upload.await.unwrap().unwrap().size, Some(2 << 20));
}
