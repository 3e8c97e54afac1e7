//! What every destination must do, whatever it is: one set of cases, run against the real counterpart of each.
//!
//! A destination takes part by implementing [`Place`] and by listing the cases with [`cases!`]:
//!
//! ```ignore
//! cases!(start, [delivers_whole, r1_the_same_key_twice_has_the_effect_of_one, ...]);
//! ```
//!
//! The cases look at the other end through [`Place::arrived`] only, which must not use the product's code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use file360_operator::api::common::SecretKeyRef;
use file360_operator::api::connection::CaRef;
use file360_operator::api::file_route::FileEvent;
use file360_operator::error::{Disposition, Error, Kind, Result};
use file360_operator::outbound::secrets::References;
use file360_operator::redacted::Redacted;
use file360_operator::routes::delivery::{Content, Delivery, Destination, File, Opened, Origin, RouteId, key};
use file360_operator::routes::environment::{Facts, Surroundings, Uploader};
use futures::StreamExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::RwLock;

/// How long anything may take on a busy machine before it counts as "never".
const PATIENCE: Duration = Duration::from_mins(1);
/// What a transfer may add to the memory of the process, whatever the size of the file.
const MEMORY_BOUND: u64 = 64 * 1024 * 1024;

/// One delivery as the other end shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrived {
    /// Name there: the key, path or id, relative to where the destination's root is.
    pub name: String,
    /// Its bytes; for destinations without content, whatever stands for it.
    pub bytes: Vec<u8>,
}

/// One kind of destination with its real counterpart, used by one test. Where the destination has an expression for a key or
/// path, it is `file.name`.
#[async_trait]
pub trait Place: Send + Sync {
    /// The destination under test.
    fn destination(&self) -> Arc<dyn Destination>;

    /// Everything that is there, by the counterpart's own means.
    async fn arrived(&self) -> Vec<Arrived>;

    /// What is outside the destination's root though nobody put it there.
    async fn strays(&self) -> Vec<String> {
        Vec::new()
    }

    /// The text that a name at the other end stands for: undoes the documented encoding, in the test's own code.
    fn decode(&self, shown: &str) -> String {
        shown.to_owned()
    }

    /// Takes the counterpart away, with every connection.
    async fn stop(&self);

    /// Brings it back as it was, at the same address.
    async fn start_again(&self);

    /// Makes the credential in the Secret one that the counterpart refuses; gives the name of the Secret's key.
    async fn spoil_credential(&self) -> &'static str;

    /// Puts the right one into the Secret. Nothing is restarted.
    async fn mend_credential(&self);
}

/// Makes a test of each case: `cases!(start, [case, ...])`, where `start().await` gives a [`Place`].
macro_rules! cases {
    ($start:path, [$($case:ident),* $(,)?]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::suite::$case(&$start().await).await;
            }
        )*
    };
}
pub(crate) use cases;

/// Cases run side by side; the one that measures memory runs alone.
static ALONE: RwLock<()> = RwLock::const_new(());

// ---------------------------------------------------------------------------------------------------------------- cases

/// What is there afterwards has the same bytes: nothing, a little, and more than one part or packet.
pub async fn delivers_whole(place: &impl Place) {
    let _together = ALONE.read().await;
    for (name, size) in [("empty.bin", 0), ("small.pdf", 8 * 1024), ("large.bin", 20 * 1024 * 1024 + 1)] {
        let bytes = pattern(size, 7);
        let receipt = place.destination().deliver(&delivery(name, &bytes)).await.unwrap();
        assert!(!receipt.duplicate, "{name}");
        assert!(!receipt.reference.is_empty(), "{name}: the ledger needs a reference");
        let arrived = place.arrived().await;
        let found = arrived
            .iter()
            .find(|one| place.decode(&one.name) == name)
            .unwrap_or_else(|| panic!("{name}: {}", names(&arrived)));
        assert!(found.bytes == bytes, "{name}: {} bytes arrived, of {size}", found.bytes.len());
    }
}

/// A crash between delivery and ledger repeats the delivery: one is there, with the same bytes.
pub async fn r1_the_same_key_twice_has_the_effect_of_one(place: &impl Place) {
    let _together = ALONE.read().await;
    let bytes = pattern(30_000, 1);
    let delivery = delivery("twice.pdf", &bytes);
    let first = place.destination().deliver(&delivery).await.unwrap();
    let second = place.destination().deliver(&delivery).await.unwrap();
    assert_eq!(first.reference, second.reference);
    let arrived = place.arrived().await;
    assert_eq!(arrived.len(), 1, "{}", names(&arrived));
    assert!(arrived[0].bytes == bytes);
}

/// Two tries at the same time, as an old and a new leader make them.
pub async fn r1_two_tries_at_once_leave_one(place: &impl Place) {
    let _together = ALONE.read().await;
    let bytes = pattern(30_000, 2);
    let (one, two) = (delivery("at-once.pdf", &bytes), delivery("at-once.pdf", &bytes));
    let destination = place.destination();
    let (first, second) = tokio::join!(destination.deliver(&one), destination.deliver(&two));
    assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    for error in [first, second].into_iter().filter_map(Result::err) {
        assert_ne!(error.disposition(), Disposition::Terminal, "the loser may try again: {error}");
    }
    let arrived = place.arrived().await;
    assert_eq!(arrived.len(), 1, "{}", names(&arrived));
    assert!(arrived[0].bytes == bytes);
}

/// Several destinations and routes keep their keys apart; here: several files at once, each with its own bytes.
pub async fn many_at_once_arrive_each_with_its_bytes(place: &impl Place) {
    let _together = ALONE.read().await;
    let files: Vec<(String, Vec<u8>)> = (0..40).map(|n| (format!("many-{n}.bin"), pattern(1000 + n * 97, n))).collect();
    let destination = place.destination();
    let all = files.iter().map(|(name, bytes)| {
        let (destination, delivery) = (destination.clone(), delivery(name, bytes));
        async move { destination.deliver(&delivery).await }
    });
    for result in futures::future::join_all(all).await {
        result.unwrap();
    }
    let arrived: BTreeMap<String, Vec<u8>> =
        place.arrived().await.into_iter().map(|one| (place.decode(&one.name), one.bytes)).collect();
    assert_eq!(arrived, files.into_iter().collect::<BTreeMap<_, _>>());
}

/// R6: whatever a file is called, it stays below the root, takes no other's place, and its name can be read back.
pub async fn r6_hostile_names_stay_apart_below_the_root(place: &impl Place) {
    let _together = ALONE.read().await;
    let mut taken = BTreeMap::new();
    for (n, name) in hostile_names().into_iter().enumerate() {
        let bytes = pattern(50 + n, n);
        match place.destination().deliver(&delivery(&name, &bytes)).await {
            Ok(_) => {
                taken.insert(composed(&name), bytes);
            }
            Err(error) => {
                assert_eq!(error.disposition(), Disposition::Terminal, "{name:?}: refused for good, or taken: {error}");
                assert!(name.len() > 255, "{name:?} can be encoded, so it is taken: {error}");
                assert_printable(&error.to_string());
            }
        }
    }
    assert_eq!(place.strays().await, Vec::<String>::new(), "left the root");
    let arrived = place.arrived().await;
    for one in &arrived {
        assert_printable(&one.name);
    }
    let shown: BTreeSet<&str> = arrived.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(shown.len(), arrived.len());
    let read_back: BTreeMap<String, Vec<u8>> =
        arrived.iter().map(|one| (place.decode(&one.name), one.bytes.clone())).collect();
    for (name, bytes) in &taken {
        assert!(read_back.get(name) == Some(bytes), "{name:?} is not at the other end with its bytes: {}", names(&arrived));
    }
    assert_eq!(read_back.len(), taken.len(), "{}", names(&arrived));
}

/// R3: content that turns out wrong at its end never becomes visible.
pub async fn r3_wrong_content_is_not_delivered(place: &impl Place) {
    let _together = ALONE.read().await;
    for size in [5000, 20 * 1024 * 1024] {
        let bytes = pattern(size, 3);
        for (name, content) in [
            ("ends-with-an-error.bin", Staged { fails_at: Some(size - 1), ..Staged::of(&bytes) }),
            ("is-shorter.bin", Staged { said: size as u64 + 1, ..Staged::of(&bytes) }),
            ("is-longer.bin", Staged { said: size as u64 - 1, ..Staged::of(&bytes) }),
        ] {
            let sha256 = Some(hex(&Sha256::digest(&bytes)));
            let broken = Delivery { content: Arc::new(content.clone()), ..delivery_of(name, content.said, sha256) };
            let error = place.destination().deliver(&broken).await.expect_err(name);
            assert_ne!(error.disposition(), Disposition::Terminal, "{name}: the next try may find it whole: {error}");
            let arrived = place.arrived().await;
            assert!(arrived.is_empty(), "{name}: {}", names(&arrived));
        }
    }
}

/// An outage is `Unavailable`, and over when it is over.
pub async fn down_is_unavailable_and_back_is_back(place: &impl Place) {
    let _together = ALONE.read().await;
    let before = delivery("before.pdf", &pattern(3000, 4));
    place.destination().deliver(&before).await.unwrap();
    place.stop().await;
    let during = delivery("during.pdf", &pattern(3000, 5));
    let error = place.destination().deliver(&during).await.expect_err("nobody is there");
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    place.start_again().await;
    eventually("the delivery after the outage", async || {
        place.destination().deliver(&during).await.map_err(|e| e.to_string())
    })
    .await;
    let arrived: BTreeSet<String> = place.arrived().await.iter().map(|one| place.decode(&one.name)).collect();
    assert!(arrived.contains("before.pdf") && arrived.contains("during.pdf"), "{arrived:?}");
}

/// A wrong credential is named; the right one works at once when the Secret has it.
pub async fn t5_a_wrong_credential_is_named_and_a_new_one_works_without_a_restart(place: &impl Place) {
    let _together = ALONE.read().await;
    let first = delivery("first.pdf", &pattern(3000, 4));
    place.destination().deliver(&first).await.unwrap();
    let key = place.spoil_credential().await;
    let second = delivery("second.pdf", &pattern(3000, 5));
    let error = eventually("the refusal", async || match place.destination().deliver(&second).await {
        Err(error) if error.kind == Kind::Denied => Ok(error),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(error.to_string().contains(key), "names the Secret's key {key}: {error}");
    for secret in ["spoiled", "correct-horse"] {
        assert!(!error.to_string().contains(secret), "{error}");
    }
    place.mend_credential().await;
    place.destination().deliver(&second).await.unwrap();
}

/// The size of a file does not show in the operator's memory.
pub async fn memory_does_not_grow_with_the_file(place: &impl Place) {
    let _alone = ALONE.write().await;
    place.destination().deliver(&delivery("warm-up.bin", &pattern(1024 * 1024, 1))).await.unwrap();
    let size: u64 = 192 * 1024 * 1024;
    let large = Delivery { content: Arc::new(Endless { size }), ..delivery_of("large.bin", size, None) };
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be reset");
    let before = status_kib("VmRSS:") * 1024;
    place.destination().deliver(&large).await.unwrap();
    let grown = (status_kib("VmHWM:") * 1024).saturating_sub(before);
    assert!(grown < MEMORY_BOUND, "the process grew by {} MiB for a file of {} MiB", grown >> 20, size >> 20);
}

// ------------------------------------------------------------------------------------------------------- what cases use

/// Names that a route may meet. Each stands for a different file.
pub fn hostile_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "../up.txt",
        "../../../../../../../../tmp/file360-stray.txt",
        "a/../../b.txt",
        "./dot.txt",
        "/absolute.txt",
        "//double.txt",
        "a//b.txt",
        "folder/",
        "whole/..",
        "whole/.",
        "nul\0byte.txt",
        "cr\r\nX-Injected: yes.txt",
        "tab\tescape\u{1b}[31m.txt",
        "back\\slash.txt",
        "..\\..\\windows.txt",
        "%2e%2e%2fencoded.txt",
        "%2E%2E%2Fencoded.txt",
        "percent%.txt",
        "100% done.txt",
        "%",
        "rtl\u{202e}fdp.exe",
        "zero\u{200b}width.txt",
        "line\u{2028}separator.txt",
        "CON",
        "con.txt",
        "NUL.tar.gz",
        "com1",
        "LPT9.pdf",
        "dot.",
        "dots..",
        "space ",
        " leading",
        "  ",
        "Case.txt",
        "case.txt",
        "CASE.TXT",
        "Straße.txt",
        "cafe\u{301}.txt",
        "über/日本語/файл.txt",
        "emoji 🦀.txt",
        "quote\"'`$(id).txt",
        "question?*<>|:.txt",
        "query?a=b&c=d#e.txt",
        "plus+and space.txt",
        ".file360/claims",
        ".FILE360-x.part",
        ".hidden",
        "-rf",
        "~root",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(200));
    names.push("y".repeat(4096));
    names.push(format!("{}/deep.txt", vec!["d"; 3000].join("/")));
    names
}

/// The composed form: two spellings of one text are one name.
pub fn composed(text: &str) -> String {
    use unicode_normalization::UnicodeNormalization as _;
    text.nfc().collect()
}

/// `size` bytes that differ for each `seed`.
pub fn pattern(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at / 251 + at * 7 + seed * 31) % 256).unwrap()).collect()
}

/// A delivery of a file with this name and content; the same for the same arguments.
pub fn delivery(name: &str, bytes: &[u8]) -> Delivery {
    let content = Arc::new(Staged::of(bytes));
    Delivery { content, ..delivery_of(name, bytes.len() as u64, Some(hex(&Sha256::digest(bytes)))) }
}

/// The delivery of a version of a file: item, version and all; its content is nothing until it is replaced.
pub fn delivery_of(name: &str, size: u64, sha256: Option<String>) -> Delivery {
    let item = hex(&Sha256::digest(name));
    version_of(&item[..16], 1, name, size, sha256)
}

/// The same for a certain item and version.
pub fn version_of(item: &str, version: u64, name: &str, size: u64, sha256: Option<String>) -> Delivery {
    let origin = Origin::Item { workspace: "workspace-1".into(), item: item.into(), version };
    let at: Timestamp = "2026-03-04T05:06:07Z".parse().unwrap();
    let file = Arc::new(File {
        origin: origin.clone(),
        name: name.into(),
        path: format!("/Inbox/{name}"),
        size,
        sha256,
        mime_type: "application/pdf".into(),
        created_at: at,
        modified_at: at,
        created_by: Some("Ada".into()),
        classification: None,
        metadata: BTreeMap::from([("claimId".to_owned(), "4711".to_owned())]),
        workspace_name: "claims".into(),
    });
    let facts = Facts {
        file: file.clone(),
        uploader: Uploader { kind: "User".into(), id: "u1".into(), email: "ada@corp.example".into(), email_verified: true },
        upload_request: None,
        folder: Arc::default(),
        workspace: Arc::new(Surroundings { name: "claims".into(), ..Surroundings::default() }),
        event: FileEvent::Uploaded,
        actor: "Ada".into(),
        requirement: None,
    };
    let route = Arc::new(route());
    Delivery {
        key: key(&route, &origin, "rule-1", "to-1", ""),
        route,
        rule: "rule-1".into(),
        destination: "to-1".into(),
        event: FileEvent::Uploaded,
        event_at: at,
        as_of: at,
        file,
        variables: Arc::new(facts.variables(at)),
        untrusted: false,
        content: Arc::new(Staged::of(&[])),
    }
}

/// The route of every delivery here.
pub fn route() -> RouteId {
    RouteId { cluster: "cluster-1".into(), namespace: "claims".into(), name: "photos".into(), uid: "uid-1".into() }
}

/// Content that may be other than what is said about it.
#[derive(Clone)]
pub struct Staged {
    /// The bytes that come.
    pub bytes: Bytes,
    /// How many are said to come.
    pub said: u64,
    /// After how many it breaks off.
    pub fails_at: Option<usize>,
    /// How often it was opened.
    pub opened: Arc<AtomicUsize>,
}

impl Staged {
    /// Content that is as it says.
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: Bytes::copy_from_slice(bytes), said: bytes.len() as u64, fails_at: None, opened: Arc::default() }
    }
}

#[async_trait]
impl Content for Staged {
    async fn open(&self) -> Result<Opened> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let whole = self.bytes.slice(..self.fails_at.unwrap_or(self.bytes.len()));
        let mut parts: Vec<Result<Bytes>> =
            (0..whole.len()).step_by(64 * 1024).map(|at| Ok(whole.slice(at..whole.len().min(at + 64 * 1024)))).collect();
        if self.fails_at.is_some() {
            parts.push(Err(Error::new(Kind::Unavailable, "the source broke off")));
        }
        Ok(Opened { size: self.said, content: futures::stream::iter(parts).boxed() })
    }
}

/// Content that is made as it is read and kept nowhere.
pub struct Endless {
    /// Bytes.
    pub size: u64,
}

#[async_trait]
impl Content for Endless {
    async fn open(&self) -> Result<Opened> {
        let left = AtomicU64::new(self.size);
        let content = futures::stream::unfold(left, |left| async move {
            let now = left.load(Ordering::Relaxed);
            let length = now.min(256 * 1024);
            left.store(now - length, Ordering::Relaxed);
            (length > 0)
                .then(|| (Ok(Bytes::from(vec![u8::try_from(now % 251).unwrap(); usize::try_from(length).unwrap()])), left))
        });
        Ok(Opened { size: self.size, content: content.boxed() })
    }
}

/// Content that begins and then says nothing more.
pub struct Stalling {
    /// Bytes it is said to have.
    pub size: u64,
}

#[async_trait]
impl Content for Stalling {
    async fn open(&self) -> Result<Opened> {
        let beginning = futures::stream::iter([Ok(Bytes::from(vec![7; usize::try_from(self.size / 2).unwrap()]))]);
        Ok(Opened { size: self.size, content: beginning.chain(futures::stream::pending()).boxed() })
    }
}

/// What a misbehaving server answers to everything.
#[derive(Clone)]
pub enum Answer {
    /// A status and a body.
    Status(u16, String),
    /// 200 and a body without an end.
    Endless,
}

/// A server that answers everything with one thing.
pub struct Misbehaving {
    /// Its address.
    pub url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Misbehaving {
    /// Starts it.
    pub async fn start(answer: Answer) -> Self {
        use axum::body::Body;
        use axum::http::Response;
        let handle = move || {
            let answer = answer.clone();
            async move {
                let (status, body) = match answer {
                    Answer::Status(status, body) => (status, Body::from(body)),
                    Answer::Endless => {
                        let chunk = || Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 64 * 1024]));
                        (200, Body::from_stream(futures::stream::repeat_with(chunk)))
                    }
                };
                Response::builder().status(status).body(body).unwrap()
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handle)).await.unwrap() });
        Self { url, task }
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Chooses the process's cryptography, once.
pub fn install_crypto() {
    static PROVIDER: std::sync::Once = std::sync::Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Secrets and ConfigMaps of one namespace. What was read once is not read again before [`References::refused`], so a
/// destination that does not say when it was refused never sees a new value.
#[derive(Default)]
pub struct Secrets {
    live: Mutex<BTreeMap<(String, String), String>>,
    known: Mutex<BTreeMap<(String, String), String>>,
    hosts: Mutex<Option<BTreeSet<String>>>,
}

impl Secrets {
    /// Puts a value.
    pub fn put(&self, name: &str, key: &str, value: &str) {
        self.live.lock().insert((name.into(), key.into()), value.into());
    }

    /// Credentials may go to these hosts only. Before, they may go anywhere.
    pub fn only_for(&self, hosts: &[&str]) {
        *self.hosts.lock() = Some(hosts.iter().map(|&host| host.to_owned()).collect());
    }

    /// A minute has passed: values are read again.
    pub fn forget(&self) {
        self.known.lock().clear();
    }

    fn get(&self, name: &str, key: &str) -> Result<String> {
        let at = (name.to_owned(), key.to_owned());
        if let Some(known) = self.known.lock().get(&at) {
            return Ok(known.clone());
        }
        let value = self.live.lock().get(&at).cloned();
        let value = value.ok_or_else(|| Error::new(Kind::Reference, format!("Secret {name} has no key {key}")))?;
        self.known.lock().insert(at, value.clone());
        Ok(value)
    }
}

#[async_trait]
impl References for Secrets {
    async fn credential(&self, reference: &SecretKeyRef, host: &str) -> Result<Redacted> {
        if self.hosts.lock().as_ref().is_some_and(|hosts| !hosts.contains(host)) {
            return Err(Error::new(
                Kind::Reference,
                format!("Secret {} does not name {host} under allowedHosts", reference.name),
            ));
        }
        self.get(&reference.name, &reference.key).map(Redacted::new)
    }

    async fn keys(&self, secret: &str) -> Result<Vec<(String, Redacted)>> {
        let live = self.live.lock();
        Ok(live
            .iter()
            .filter(|((name, _), _)| name == secret)
            .map(|((_, key), value)| (key.clone(), Redacted::new(value.as_str())))
            .collect())
    }

    async fn authorities(&self, reference: &CaRef) -> Result<Vec<u8>> {
        self.get(&reference.name, &reference.key).map(String::into_bytes)
    }

    async fn client_certificate(&self, secret: &str, _: &str) -> Result<Redacted> {
        Ok(Redacted::new(format!("{}\n{}", self.get(secret, "tls.key")?, self.get(secret, "tls.crt")?)))
    }

    fn refused(&self) {
        self.forget();
    }
}

/// A reference to a key of the Secret `store`.
pub fn secret(key: &str) -> SecretKeyRef {
    SecretKeyRef { name: "store".into(), key: key.into() }
}

/// Asks again until `check` has an answer; panics with `what` and the last refusal when it never has.
pub async fn eventually<T>(what: &str, check: impl AsyncFn() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        match check().await {
            Ok(value) => return value,
            Err(why) if start.elapsed() > PATIENCE => panic!("{what} never came true: {why}"),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Undoes `%XX` with upper-case digits, and a segment `%` that stands for an empty one.
pub fn percent_decoded(shown: &str) -> String {
    let segments = shown.split('/').map(|segment| if segment == "%" { String::new() } else { segment_decoded(segment) });
    segments.collect::<Vec<_>>().join("/")
}

fn segment_decoded(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut result = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 3)
            .filter(|digits| digits.iter().all(|d| d.is_ascii_digit() || (b'A'..=b'F').contains(d)));
        match digits.filter(|_| bytes[at] == b'%') {
            Some(digits) => {
                result.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
                at += 3;
            }
            None => {
                result.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(result).expect("an encoded name decodes to text")
}

fn names(arrived: &[Arrived]) -> String {
    let names: Vec<String> = arrived.iter().map(|one| format!("{:?} ({} bytes)", one.name, one.bytes.len())).collect();
    format!("there are {}: {}", names.len(), names.join(", "))
}

/// Text that is safe to show: no controls, nothing that changes the direction of text.
pub fn assert_printable(text: &str) {
    let bad =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    assert!(!text.chars().any(bad), "has what a terminal or log would act on: {text:?}");
}

fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
