//! Connections: TLS and its renewal, heads that are too large, paths that are none, and the end of the server.

use std::time::Duration;

use file360_operator::inbound::body::Limits;
use file360_operator::inbound::keyring::Keyring;
use file360_operator::inbound::registry::{Endpoints, IngestEndpoint, Map, Taken};
use file360_operator::inbound::transport::CertificateFiles;
use file360_operator::telemetry::metrics::Metrics;
use reqwest::{Certificate, Method};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::file360::{http, id};
use crate::support::{Options, Push, Reply, Secrets, connector, route, serve, until, world, world_with};

struct Authority {
    certificate: String,
    key: String,
}

fn self_signed() -> Authority {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Authority { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

fn trusting(authority: &Authority) -> reqwest::Client {
    let certificate = Certificate::from_pem(authority.certificate.as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap()
}

fn write(files: &CertificateFiles, certificate: &str, key: &str) {
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_and_a_renewed_certificate_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
    let (first, second) = (self_signed(), self_signed());
    write(&files, &first.certificate, &first.key);
    let world = world_with(Options { tls: Some(files.clone()), ..Options::default() }).await;
    world.push("over TLS").send_with(&trusting(&first)).await.committed();
    assert!(world.push("x").request(&trusting(&second), "x").send().await.is_err(), "the second is not served yet");

    write(&files, &second.certificate, &second.key);
    until("the second is served", async || world.push("x").request(&trusting(&second), "x").send().await.is_ok()).await;
    world.push("over new TLS").send_with(&trusting(&second)).await.committed();
    assert!(world.push("x").request(&trusting(&first), "x").send().await.is_err());
}

#[tokio::test]
async fn a_key_that_does_not_fit_and_files_that_are_gone_change_nothing_until_they_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (first, second) = (self_signed(), self_signed());
    write(&files, &first.certificate, &first.key);
    let (served, mut renewal) = files.clone().open().await.unwrap();
    let before = served.get_inner();
    assert_eq!(renewal.look().await, Ok(false));
    write(&files, &second.certificate, &first.key);
    assert!(renewal.look().await.is_err());
    std::fs::remove_file(&files.key).unwrap();
    assert!(renewal.look().await.is_err());
    assert!(Arc::ptr_eq(&before, &served.get_inner()), "the former certificate stays");
    write(&files, &second.certificate, &second.key);
    assert_eq!((renewal.look().await, renewal.look().await), (Ok(true), Ok(false)));
    assert!(!Arc::ptr_eq(&before, &served.get_inner()));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_certificate_are_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
    let missing = files.clone().open().await.err().unwrap();
    assert!(missing.contains("tls.crt"), "{missing}");
    let (one, other) = (self_signed(), self_signed());
    for (certificate, key) in [("", one.key.as_str()), (&one.certificate, ""), (&one.certificate, &other.key), ("x", "y")] {
        write(&files, certificate, key);
        let _ = rustls::crypto::ring::default_provider().install_default();
        assert!(files.clone().open().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_are_refused_as_problems() {
    let world = world().await;
    world.push("x").to("/").send().await.refused(404, "not-found");
    world.push("x").to("/ingest/legal").send().await.refused(404, "not-found");
    world.push("x").to("/ingest/legal/erp/more").send().await.refused(404, "not-found");
    world.push("x").to("/metrics").send().await.refused(404, "not-found");
    for method in [Method::GET, Method::DELETE, Method::PATCH] {
        let mut push = world.push("");
        push.method = method;
        let reply = push.send().await;
        assert_eq!(reply.headers["allow"], "POST, PUT");
        assert_eq!(
            (&reply.headers["cache-control"], &reply.headers["x-content-type-options"]),
            (&"no-store".parse().unwrap(), &"nosniff".parse().unwrap())
        );
        reply.refused(405, "method-not-allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let world = world().await;
    let mut connection = TcpStream::connect(world.address).await.unwrap();
    let _ =
        connection.write_all(format!("POST /ingest/legal/erp HTTP/1.1\r\nx-long: {}", "x".repeat(100_000)).as_bytes()).await;
    let mut text = [0; 12];
    connection.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"HTTP/1.1 431");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_say_what_it_wants_is_closed() {
    let world = world().await;
    for start in ["", "POST /ingest/legal/erp HTTP/1.1\r\nwebhook-id: a"] {
        let mut connection = TcpStream::connect(world.address).await.unwrap();
        connection.write_all(start.as_bytes()).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(40), connection.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "still open after 40 seconds: {start:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_turned_away_before_the_endpoints_are_known() {
    let (endpoints, metrics, stop) = (Arc::new(Map::default()), Arc::new(Metrics::default()), CancellationToken::new());
    let running = serve(&endpoints, &metrics, &stop, Limits::default(), None).await;
    let url = format!("http://{}", running.address);
    let reply = Push::new(&url, "x").send().await;
    assert_eq!(reply.headers["retry-after"], "2");
    reply.refused(503, "unavailable");
    endpoints.all_known();
    Push::new(&url, "x").send().await.refused(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_being_read_ends_well_when_the_server_stops_and_no_other_starts() {
    let mut world = world().await;
    let push = world.push("12345").named("last.txt");
    let mut connection = TcpStream::connect(world.address).await.unwrap();
    connection.write_all(push.head("content-length: 5").as_bytes()).await.unwrap();
    connection.write_all(b"123").await.unwrap();
    // Only a request that a turn was given to is being read.
    until("it is being read", async || world.file360.server.counters().get("uploadFile").is_some_and(|calls| *calls > 0))
        .await;
    world.stop.cancel();
    until("no connection is taken", async || TcpStream::connect(world.address).await.is_err()).await;
    connection.write_all(b"45").await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 201"), "{text}");
    world.running.take().unwrap().ended().await;
    assert_eq!(world.files().await["last.txt"], b"12345");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_belongs_to_the_route_that_had_it_first() {
    let world = world().await;
    let secrets = Arc::new(Secrets::default());
    secrets.set("s", &["a key of twenty-four bytes"]);
    let endpoint = async |name: &str, path: &str| {
        let keys = Keyring::open(secrets.clone(), "s", Duration::from_hours(1)).await;
        IngestEndpoint::new(route("legal", name), path, keys, connector(&world.file360), id(&world.inbox), 10)
    };
    let taken = world.endpoints.open(endpoint("intruder", "erp").await);
    assert_eq!(taken, Err(Taken(route("legal", "erp"))));
    world.push("still the first").send().await.committed();

    world.endpoints.open(endpoint("erp", "moved").await).unwrap();
    assert!(world.endpoints.ingest("legal", "erp").is_none(), "a route has one address");
    world.push("x").send().await.refused(401, "unauthorized");
    world.push("x").to("/ingest/legal/moved").signed_by("a key of twenty-four bytes").send().await.committed();
    let too_long = world.push("12345678901").to("/ingest/legal/moved").signed_by("a key of twenty-four bytes");
    too_long.send().await.refused(413, "too-large");

    world.endpoints.close("uid-legal-erp");
    world
        .push("x")
        .to("/ingest/legal/moved")
        .signed_by("a key of twenty-four bytes")
        .send()
        .await
        .refused(401, "unauthorized");
    let _ = Reply::of(http().get(format!("{}/x", world.url)).send().await.unwrap()).await;
}
