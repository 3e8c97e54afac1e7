//! Bodies that are too long, too slow, cut off or other than announced; and memory, which does not grow with them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use file360_operator::inbound::body::Limits;
use futures::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::file360::http;
use crate::support::{MAX_SIZE, Options, Reply, SALES_KEY, repr_digest, until, world, world_with};

/// Sends bytes as they are and reads the answer until the connection closes or a whole answer is there.
async fn raw(address: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    // The server may have heard enough before the end.
    let _ = connection.write_all(body).await;
    answer(&mut connection).await
}

async fn answer(connection: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    let reading = async {
        while !text.ends_with(b"}") {
            match connection.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("an answer, or the end of the connection");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_says_it_is_too_long_is_refused_before_it_is_read() {
    let world = world().await;
    let push = world.push("");
    let head = push.head(&format!("content-length: {}\r\nexpect: 100-continue", MAX_SIZE + 1));
    let text = raw(world.address, &head, b"").await;
    assert!(text.starts_with("HTTP/1.1 413") && text.contains("too-large"), "{text}");
    assert!(!text.contains("100 Continue"));
    let exact = world.push(vec![b'x'; usize::try_from(MAX_SIZE).unwrap()]).named("exact");
    exact.send().await.committed();
    assert_eq!(world.files().await.keys().collect::<Vec<_>>(), ["exact"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_body_is_stopped_at_the_bound_and_leaves_nothing() {
    let world = world().await;
    let given = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&given);
    let endless = futures::stream::repeat_with(move || {
        counted.fetch_add(16 * 1024, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 * 1024]))
    });
    // Whether the sender sees the answer or a closed connection is a matter of luck; that it ends is not.
    if let Ok(response) = world.push("").request(&http(), reqwest::Body::wrap_stream(endless)).send().await {
        Reply::of(response).await.refused(413, "too-large");
    }
    until("the request has ended", async || world.ended("too-large") == 1).await;
    assert!(given.load(Ordering::Relaxed) < 32 << 20, "{} bytes were taken", given.load(Ordering::Relaxed));
    assert!(world.files().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_sender_and_a_trickling_one_are_given_up() {
    let limits = Limits { silence: Duration::from_millis(150), patience: Duration::from_millis(400), slowest: 1 << 20 };
    let world = world_with(Options { limits, ..Options::default() }).await;
    let silent = raw(world.address, &world.push("12345").head("content-length: 5"), b"123").await;
    assert!(silent.starts_with("HTTP/1.1 408") && silent.contains("too-slow"), "{silent}");

    let mut trickle = TcpStream::connect(world.address).await.unwrap();
    trickle.write_all(world.push(vec![b'x'; 1000]).head("content-length: 1000").as_bytes()).await.unwrap();
    for _ in 0..1000 {
        if world.ended("too-slow") == 2 || trickle.write_all(b"x").await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(answer(&mut trickle).await.starts_with("HTTP/1.1 408"));
    assert_eq!(world.ended("too-slow"), 2);
    assert!(world.files().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_halfway_leaves_nothing_and_the_file_can_come_again() {
    let world = world().await;
    let push = world.push(vec![b'x'; 500_000]).named("half.bin");
    for head in [push.head("content-length: 500000"), push.head("transfer-encoding: chunked")] {
        let before = world.ended("malformed");
        let mut connection = TcpStream::connect(world.address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        let start: &[u8] = if head.contains("chunked") { b"3D090\r\n" } else { b"" };
        connection.write_all(start).await.unwrap();
        connection.write_all(&vec![b'x'; 250_000]).await.unwrap();
        drop(connection);
        until("the request has ended", async || world.ended("malformed") == before + 1).await;
        assert!(world.files().await.is_empty());
    }
    push.send().await.committed();
    assert_eq!(world.files().await["half.bin"].len(), 500_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_fewer_more_and_other_bytes_than_announced_leave_nothing() {
    let world = world().await;
    for (body, claimed) in [("hello", "hell"), ("hello", "hello!"), ("hello", ""), ("", "hello"), ("hello", "HELLO")] {
        world.push(body).claiming(claimed.as_bytes()).send().await.refused(422, "digest-mismatch");
        // Without a length, too.
        let push = world.push(body).claiming(claimed.as_bytes());
        let chunks = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(body))]);
        let response = push.request(&http(), reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
        Reply::of(response).await.refused(422, "digest-mismatch");
    }
    let zipped = world.push("hello").header("content-encoding", "gzip");
    zipped.send().await.refused(415, "media-type");
    assert!(world.files().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_is_taken() {
    let world = world().await;
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).take(1_000_000).collect();
    let chunks: Vec<_> = content.chunks(7919).map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk))).collect();
    let push = world.push("").claiming(&content).named("a.bin");
    let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    Reply::of(push.request(&http(), body).send().await.unwrap()).await.committed();
    assert!(world.files().await["a.bin"] == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_hear_when_to_come_again_and_other_routes_are_not_disturbed() {
    let world = world().await;
    let mut busy = Vec::new();
    for _ in 0..32 {
        let mut connection = TcpStream::connect(world.address).await.unwrap();
        connection.write_all(world.push("12345").head("content-length: 5").as_bytes()).await.unwrap();
        busy.push(connection);
    }
    // The heads arrive when they arrive: asked until the place is full.
    until("every turn is taken", async || {
        let reply = world.push("x").send().await;
        reply.status == 429 && reply.headers["retry-after"] == "1" && reply.body["code"] == "busy"
    })
    .await;
    world.push("x").to("/ingest/sales/erp").signed_by(SALES_KEY).send().await.committed();
    for connection in &mut busy {
        connection.write_all(b"12345").await.unwrap();
        assert!(answer(connection).await.starts_with("HTTP/1.1 201"));
    }
    world.push("x").send().await.committed();
}

/// A body of so many MiB, and how much of it has been asked for.
fn mebibytes(count: usize) -> (reqwest::Body, String, Arc<AtomicUsize>) {
    use sha2::Digest;
    static BLOCK: [u8; 64 * 1024] = [b'z'; 64 * 1024];
    let mut hash = sha2::Sha256::new();
    (0..count * 16).for_each(|_| hash.update(BLOCK));
    let given = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&given);
    let blocks = futures::stream::iter(0..count * 16).map(move |_| {
        counted.fetch_add(BLOCK.len(), Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from_static(&BLOCK))
    });
    let digest: Vec<u8> = hash.finalize().to_vec();
    (reqwest::Body::wrap_stream(blocks), file360_operator::hex::hex(&digest), given)
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A push of that body, signed for its digest.
fn large(world: &crate::support::World, digest: &str) -> crate::support::Push {
    use base64::Engine as _;
    let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).unwrap()).collect();
    let mut push = world.push("").without("repr-digest").without("webhook-signature");
    let signature = crate::support::signature(&push.key, &push.id, push.at, digest);
    push = push.header("webhook-signature", &signature);
    push.header("repr-digest", &format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(bytes)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_streams_through_without_growing_memory() {
    let world = world_with(Options { max_size: 1 << 30, ..Options::default() }).await;
    let (body, digest, _) = mebibytes(256);
    let push = large(&world, &digest);
    assert_ne!(push.headers().iter().find(|(name, _)| name == "repr-digest").unwrap().1, repr_digest(b""));
    let before = resident();
    let sending = tokio::spawn(push.request(&http(), body).send());
    let mut most = 0;
    while !sending.is_finished() {
        most = most.max(resident());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let committed = Reply::of(sending.await.unwrap().unwrap()).await.committed();
    assert_eq!(committed["sha256"], digest);
    // Other tests run beside this one, so the bound is generous; a body that is gathered would show as 256 MiB and more.
    assert!(most.saturating_sub(before) < 128 << 20, "{} MiB more than before", (most - before) >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_a_slow_file_360_slows_its_senders_down_and_nothing_piles_up_in_between() {
    let world = world_with(Options { max_size: 1 << 30, ..Options::default() }).await;
    world.push("a token is there").send().await.committed();
    world.api.faults(json!({"latencyMs": 3000})).await;
    let (body, digest, given) = mebibytes(128);
    let sending = tokio::spawn(large(&world, &digest).request(&http(), body).send());
    let mut last = usize::MAX;
    until("the sender stands still", async || {
        let now = given.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(400)).await;
        now > 0 && now == given.load(Ordering::Relaxed)
    })
    .await;
    last = last.min(given.load(Ordering::Relaxed));
    assert!(last < 64 << 20, "{} MiB left the sender while nobody read them", last >> 20);
    Reply::of(sending.await.unwrap().unwrap()).await.committed();
}
