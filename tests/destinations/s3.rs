//! S3: versitygw, which keeps each object as a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use file360_operator::api::places::{ObjectStore, S3};
use file360_operator::error::{Disposition, Kind};
use file360_operator::outbound::guard::Guard;
use file360_operator::outbound::object_store::{Settings, Store, store};
use file360_operator::routes::delivery::{Delivery, Destination, File};
use file360_operator::routes::destinations::object_store::ObjectStoreDestination;
use futures::StreamExt as _;

use super::counterparts::{S3Server, files_below};
use super::suite::{self, Arrived, Place, Secrets, cases, delivery, pattern, percent_decoded, secret, version_of};

struct Bucket {
    server: S3Server,
    secrets: Arc<Secrets>,
    store: Arc<dyn Store>,
    destination: Arc<dyn Destination>,
}

fn spec(server: &S3Server) -> S3 {
    S3 {
        endpoint: Some(server.endpoint.clone()),
        region: S3Server::REGION.into(),
        bucket: S3Server::BUCKET.into(),
        access_key_id_ref: secret("accessKeyId"),
        secret_access_key_ref: secret("secretAccessKey"),
        session_token_ref: None,
        ca_ref: None,
    }
}

fn open(spec: S3, secrets: &Arc<Secrets>) -> Arc<dyn Store> {
    let guard = Guard::new(&["127.0.0.1".into(), "localhost".into()], &[]).unwrap();
    let settings = Settings { guard: Arc::new(guard), ..Settings::default() };
    let spec = ObjectStore { s3: Some(spec), sftp: None, fs: None };
    store(&spec, "claims", secrets.clone(), &settings).unwrap()
}

fn secrets() -> Arc<Secrets> {
    suite::install_crypto();
    let secrets = Arc::new(Secrets::default());
    secrets.put("store", "accessKeyId", S3Server::KEY_ID);
    secrets.put("store", "secretAccessKey", S3Server::SECRET);
    secrets
}

async fn start() -> Bucket {
    let (server, secrets) = (S3Server::start(), secrets());
    let store = open(spec(&server), &secrets);
    let destination = Arc::new(ObjectStoreDestination::new(store.clone(), "file.name").unwrap());
    Bucket { server, secrets, store, destination }
}

#[async_trait]
impl Place for Bucket {
    fn destination(&self) -> Arc<dyn Destination> {
        self.destination.clone()
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let files = files_below(&self.server.bucket()).into_iter();
        // Where the server keeps what is not yet an object.
        let objects = files.filter(|(name, _)| !name.starts_with(".sgwtmp/"));
        objects.map(|(name, bytes)| Arrived { name, bytes }).collect()
    }

    async fn strays(&self) -> Vec<String> {
        let files = files_below(&self.server.data()).into_iter().map(|(name, _)| name);
        // `.vgwlocks` is how the server keeps two writers apart.
        files
            .filter(|name| !name.starts_with(&format!("{}/", S3Server::BUCKET)) && !name.starts_with(".vgwlocks/"))
            .collect()
    }

    fn decode(&self, shown: &str) -> String {
        percent_decoded(shown)
    }

    async fn stop(&self) {
        self.server.stop();
    }

    async fn start_again(&self) {
        self.server.start_again();
    }

    async fn spoil_credential(&self) -> &'static str {
        self.secrets.put("store", "secretAccessKey", "spoiled");
        self.secrets.forget();
        "secretAccessKey"
    }

    async fn mend_credential(&self) {
        self.secrets.put("store", "secretAccessKey", S3Server::SECRET);
    }
}

cases!(
    start,
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

/// The same of a file whose source does not tell its SHA-256: it goes in parts when it is large.
fn unknown(delivery: Delivery) -> Delivery {
    let file = File { sha256: None, ..(*delivery.file).clone() };
    Delivery { file: Arc::new(file), ..delivery }
}

#[tokio::test]
async fn r1_a_delivery_that_was_made_is_not_made_again() {
    let bucket = start().await;
    for (size, is_known) in [(5000, true), (20 << 20, true), (20 << 20, false)] {
        let made = delivery(&format!("{size}-{is_known}.bin"), &pattern(size, 1));
        let made = if is_known { made } else { unknown(made) };
        assert!(!bucket.destination.deliver(&made).await.unwrap().duplicate);
        let again = bucket.destination.deliver(&made).await.unwrap();
        assert!(again.duplicate && again.bytes == 0, "{size}: {again:?}");
    }
}

#[tokio::test]
async fn r1_a_newer_version_replaces_the_object_and_another_file_does_not() {
    let bucket = start().await;
    for (size, is_known) in [(4000, true), (12 << 20, true), (12 << 20, false)] {
        let name = format!("{size}-{is_known}.bin");
        let version = |item: &str, version: u64, seed: usize| {
            let bytes = pattern(size + seed, seed);
            let whole = delivery(&name, &bytes);
            let of = version_of(item, version, &name, whole.file.size, whole.file.sha256.clone());
            let of = Delivery { content: whole.content, ..of };
            (if is_known { of } else { unknown(of) }, bytes)
        };
        let here = || std::fs::read(bucket.server.bucket().join(&name)).unwrap();
        let (first, bytes) = version("item-1", 1, 1);
        bucket.destination.deliver(&first).await.unwrap();
        assert!(here() == bytes);
        let (second, bytes) = version("item-1", 2, 2);
        assert!(!bucket.destination.deliver(&second).await.unwrap().duplicate);
        assert!(here() == bytes);

        let (stranger, _) = version("item-2", 1, 3);
        let error = bucket.destination.deliver(&stranger).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (Kind::Conflict, "key-taken"), "{error}");
        assert!(here() == bytes, "the object stays as it was");
    }
    bucket.server.put_by_hand("by-hand.txt", "not ours", &[]);
    let error = bucket.destination.deliver(&delivery("by-hand.txt", b"ours")).await.unwrap_err();
    assert_eq!(error.code, "key-taken", "what nobody delivered is somebody's: {error}");
}

#[tokio::test]
async fn r3_nothing_of_an_upload_that_was_given_up_stays_behind() {
    let bucket = start().await;
    let bytes = pattern(20 << 20, 3);
    let content = suite::Staged { fails_at: Some(bytes.len() - 1), ..suite::Staged::of(&bytes) };
    let broken = Delivery { content: Arc::new(content), ..delivery("broken.bin", &bytes) };
    bucket.destination.deliver(&unknown(broken)).await.unwrap_err();
    // Given up by whoever waits, as when the operator stops.
    let stalls =
        || Delivery { content: Arc::new(suite::Stalling { size: bytes.len() as u64 }), ..delivery("stalls.bin", &bytes) };
    for stalls in [stalls(), unknown(stalls())] {
        let given_up = tokio::time::timeout(std::time::Duration::from_secs(2), bucket.destination.deliver(&stalls)).await;
        assert!(given_up.is_err());
    }
    suite::eventually("the parts go", async || {
        let left: Vec<String> = files_below(&bucket.server.bucket()).into_iter().map(|(name, _)| name).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// The suite's own case is about small files and those with a known SHA-256.
#[tokio::test]
async fn r3_wrong_content_in_parts_is_not_delivered() {
    let bucket = start().await;
    let bytes = pattern(20 << 20, 3);
    for said in [bytes.len() as u64 - 1, bytes.len() as u64 + 1] {
        let content = suite::Staged { said, ..suite::Staged::of(&bytes) };
        let wrong = Delivery { content: Arc::new(content), ..suite::delivery_of("wrong.bin", said, None) };
        let error = bucket.destination.deliver(&wrong).await.unwrap_err();
        assert_ne!(error.disposition(), Disposition::Terminal, "{error}");
        assert_eq!(bucket.arrived().await, []);
    }
}

#[tokio::test]
async fn r3_the_server_checks_the_sha256_of_the_source() {
    let bucket = start().await;
    let mut wrong = delivery("wrong.bin", &pattern(5000, 1));
    wrong.content = delivery("other.bin", &pattern(5000, 2)).content;
    let error = bucket.destination.deliver(&wrong).await.unwrap_err();
    assert_ne!(error.disposition(), Disposition::Terminal, "{error}");
    assert_eq!(bucket.arrived().await, []);
}

#[tokio::test]
async fn objects_are_listed_page_by_page_and_opened_as_they_were_listed() {
    let bucket = start().await;
    for n in 0..1005 {
        let folder = bucket.server.bucket().join(format!("in/{:02}", n % 7));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("ä b+{n}.txt")), format!("content {n}")).unwrap();
    }
    std::fs::write(bucket.server.bucket().join("outside.txt"), "x").unwrap();
    let mut entries = BTreeMap::new();
    let (mut cursor, mut pages) = (None, 0);
    loop {
        let page = bucket.store.list("in/", cursor.as_deref()).await.unwrap();
        pages += 1;
        entries.extend(page.entries.into_iter().map(|entry| (entry.key.clone(), entry)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((entries.len(), pages), (1005, 2));
    let entry = &entries["in/03/ä b+3.txt"];
    assert_eq!(entry.size, 9);
    let mut opened = bucket.store.open(&entry.key, &entry.etag).await.unwrap();
    assert_eq!(opened.content.next().await.unwrap().unwrap(), "content 3");
    let stale = bucket.store.open(&entry.key, "\"another\"").await.err().unwrap();
    assert_eq!(stale.kind, Kind::Stale, "{stale}");
    assert_eq!(bucket.store.head("in/none").await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(bucket.store.open("in/../x", "").await.err().unwrap().kind, Kind::Rejected);
}

#[tokio::test]
async fn an_object_says_what_it_is_and_where_it_came_from() {
    let bucket = start().await;
    let made = delivery("described.pdf", b"content");
    bucket.destination.deliver(&made).await.unwrap();
    let object = bucket.store.head("described.pdf").await.unwrap();
    assert_eq!(object.mime_type.as_deref(), Some("application/pdf"));
    assert_eq!(object.metadata["file360-key"], made.key);
    assert_eq!(Some(&object.metadata["file360-sha256"]), made.file.sha256.as_ref());
    assert_eq!(object.entry.size, 7);
    bucket.server.put_by_hand("tagged.txt", "content", &["x-amz-meta-claimId: 4711", "content-type: text/plain"]);
    let object = bucket.store.head("tagged.txt").await.unwrap();
    assert_eq!((object.metadata["claimid"].as_str(), object.mime_type.as_deref()), ("4711", Some("text/plain")));
    assert_eq!(bucket.store.describe(), format!("s3://127.0.0.1:{}/archive", bucket.server.port));
    assert_eq!(bucket.destination.listing(&suite::route()).await.unwrap().unwrap(), ["described.pdf", "tagged.txt"]);
}

#[tokio::test]
async fn t3_the_guard_and_the_authorities_hold_for_s3() {
    let secrets = secrets();
    let server = S3Server::start_with_tls();
    let made = delivery("x.pdf", b"x");
    let deliver =
        async |store: Arc<dyn Store>| ObjectStoreDestination::new(store, "file.name").unwrap().deliver(&made).await;

    let error = deliver(open(spec(&server), &secrets)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Tls, "nobody vouches for the server: {error}");
    secrets.put("store", "ca.crt", server.certificate.as_ref().unwrap());
    let ca = file360_operator::api::connection::CaRef {
        kind: file360_operator::api::connection::CaKind::Secret,
        name: "store".into(),
        key: "ca.crt".into(),
    };
    let trusting = S3 { ca_ref: Some(ca), ..spec(&server) };
    deliver(open(trusting.clone(), &secrets)).await.unwrap();

    // The name resolves to loopback, which nobody allowed here.
    let settings = Settings::default();
    let of = |spec: S3| store(&ObjectStore { s3: Some(spec), sftp: None, fs: None }, "claims", secrets.clone(), &settings);
    let error = deliver(of(trusting.clone()).unwrap()).await.unwrap_err();
    assert!(error.kind == Kind::Rejected && error.to_string().contains("outbound guard"), "{error}");
    for endpoint in ["http://s3.example.com", "https://169.254.169.254", "https://127.0.0.1:1"] {
        assert_eq!(
            of(S3 { endpoint: Some(endpoint.into()), ..trusting.clone() }).err().unwrap().kind,
            Kind::Rejected,
            "{endpoint}"
        );
    }
}

#[tokio::test]
async fn t5_credentials_go_only_where_their_secret_says() {
    let bucket = start().await;
    bucket.secrets.only_for(&["s3.example.com"]);
    let error = bucket.destination.deliver(&delivery("x.pdf", b"x")).await.unwrap_err();
    assert!(error.kind == Kind::Reference && error.to_string().contains("allowedHosts"), "{error}");
    bucket.secrets.only_for(&["127.0.0.1"]);
    bucket.destination.deliver(&delivery("x.pdf", b"x")).await.unwrap();
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let (server, secrets) = (S3Server::start(), secrets());
    let store = open(S3 { bucket: "missing".into(), ..spec(&server) }, &secrets);
    let error =
        ObjectStoreDestination::new(store, "file.name").unwrap().deliver(&delivery("x.pdf", b"x")).await.unwrap_err();
    assert!(error.kind == Kind::Reference && error.to_string().contains("create bucket missing"), "{error}");
}

#[tokio::test]
async fn t5_endless_and_malformed_answers_are_bounded() {
    for answer in [
        suite::Answer::Status(200, "<ListBucketResult><Contents>".into()),
        suite::Answer::Status(200, "not xml".into()),
        suite::Answer::Status(
            503,
            format!("<Error><Code>{}</Code><Message>\u{1b}[31m</Message></Error>", "x".repeat(100_000)),
        ),
        suite::Answer::Endless,
    ] {
        let server = suite::Misbehaving::start(answer).await;
        let secrets = secrets();
        let spec = S3 {
            endpoint: Some(server.url.clone()),
            region: "r".into(),
            bucket: "archive".into(),
            access_key_id_ref: secret("accessKeyId"),
            secret_access_key_ref: secret("secretAccessKey"),
            session_token_ref: None,
            ca_ref: None,
        };
        let error = open(spec, &secrets).list("", None).await.unwrap_err();
        assert!(matches!(error.kind, Kind::Malformed | Kind::Unavailable), "{error}");
        assert!(error.to_string().len() < 1000, "{error}");
        suite::assert_printable(&error.to_string());
    }
}
