//! Message broker: events at a real NATS server with JetStream.

#[path = "nats/login.rs"]
mod login;
#[path = "nats/server.rs"]
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_trait::async_trait;
use file360_operator::api::file_route::FileEvent;
use file360_operator::api::places::Broker;
use file360_operator::error::{Disposition, Kind};
use file360_operator::expression::InvalidField;
use file360_operator::outbound::guard::Guard;
use file360_operator::outbound::trust::Trust;
use file360_operator::routes::delivery::{Delivery, Destination};
use file360_operator::routes::destinations::broker::BrokerDestination;
use futures::StreamExt as _;
use serde_json::{Value, json};

use self::server::Server;
use crate::suite::{self, Arrived, Place, Secrets, cases, delivery, delivery_of, eventually, hostile_names, version_of};

const OPEN: &str = "";
const WITH_TOKEN: &str = "authorization { token: \"correct-horse\" }";

/// What a destination is made of that the tests vary.
pub struct Parts {
    /// The fields.
    pub spec: Value,
    /// The Secrets.
    pub secrets: Arc<Secrets>,
    /// `--outbound-allow`.
    pub allow: Vec<String>,
}

impl Parts {
    /// A destination at `url` for everything under `'files.uploaded'`.
    pub fn at(url: &str) -> Self {
        let spec = json!({"nats": {"url": url, "subject": "'files.uploaded'"}});
        Self { spec, secrets: Arc::default(), allow: vec!["127.0.0.1".into()] }
    }

    fn subject(mut self, expression: &str) -> Self {
        self.spec["nats"]["subject"] = expression.into();
        self
    }

    /// With this login.
    pub fn auth(mut self, auth: &Value) -> Self {
        self.spec["nats"]["auth"] = auth.clone();
        self
    }

    fn try_build(&self) -> Result<BrokerDestination, InvalidField> {
        let spec: Broker = serde_json::from_value(self.spec.clone()).unwrap();
        let guard = Guard::new(&self.allow, &[]).unwrap();
        BrokerDestination::new(&spec, self.secrets.clone(), Arc::new(guard), Trust::default())
    }

    /// The destination.
    pub fn build(&self) -> Arc<BrokerDestination> {
        Arc::new(self.try_build().unwrap())
    }
}

/// A stream for `files.>`.
pub async fn make_stream(
    client: &async_nats::Client,
    change: impl FnOnce(&mut jetstream::stream::Config),
) -> jetstream::stream::Stream {
    let mut config =
        jetstream::stream::Config { name: "FILES".into(), subjects: vec!["files.>".into()], ..Default::default() };
    change(&mut config);
    jetstream::new(client.clone()).create_stream(config).await.unwrap()
}

/// Everything that the stream holds, as the server gives it out: subject, headers, event.
async fn stored(client: &async_nats::Client) -> Vec<(String, async_nats::HeaderMap, Value)> {
    let mut stream = jetstream::new(client.clone()).get_stream("FILES").await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    let mut all = Vec::new();
    if state.messages > 0 {
        for sequence in state.first_sequence..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let event = serde_json::from_slice(&message.payload).unwrap();
            all.push((message.subject.to_string(), message.headers, event));
        }
    }
    all
}

/// A server and a destination for one test.
struct Bus {
    server: Server,
    parts: Parts,
    destination: Arc<BrokerDestination>,
    options: async_nats::ConnectOptions,
}

impl Bus {
    async fn open() -> Self {
        let server = Server::start(OPEN).await;
        make_stream(&server.client(async_nats::ConnectOptions::new()).await, |_| {}).await;
        let parts = Parts::at(&server.url("nats"));
        Self { destination: parts.build(), parts, server, options: async_nats::ConnectOptions::new() }
    }

    async fn client(&self) -> async_nats::Client {
        self.server.client(self.options.clone()).await
    }

    async fn stored(&self) -> Vec<(String, async_nats::HeaderMap, Value)> {
        stored(&self.client().await).await
    }
}

async fn with_token() -> Bus {
    let server = Server::start(WITH_TOKEN).await;
    let options = async_nats::ConnectOptions::new().token("correct-horse".into());
    make_stream(&server.client(options.clone()).await, |_| {}).await;
    let parts = Parts::at(&server.url("nats")).auth(&json!({"tokenRef": {"name": "bus", "key": "token"}}));
    parts.secrets.put("bus", "token", "correct-horse");
    Bus { destination: parts.build(), parts, server, options }
}

#[async_trait]
impl Place for Bus {
    fn destination(&self) -> Arc<dyn Destination> {
        self.destination.clone()
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let all = self.stored().await;
        all.iter()
            .map(|(_, _, event)| Arrived { name: text(&event["data"]["file"]["name"]), bytes: event.to_string().into() })
            .collect()
    }

    async fn stop(&self) {
        self.server.kill();
    }

    async fn start_again(&self) {
        self.server.start_again().await;
    }

    /// The server changes its mind: who is connected stays, so it has to come back.
    async fn spoil_credential(&self) -> &'static str {
        self.server.kill();
        self.server.configure(&WITH_TOKEN.replace("correct-horse", "correct-horse-2"));
        self.server.start_again().await;
        "token"
    }

    async fn mend_credential(&self) {
        self.parts.secrets.put("bus", "token", "correct-horse-2");
    }
}

cases!(
    with_token,
    [down_is_unavailable_and_back_is_back, t5_a_wrong_credential_is_named_and_a_new_one_works_without_a_restart]
);

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_one_event_as_cloudevents_says() {
    let bus = Bus::open().await;
    let delivery =
        Delivery { event: FileEvent::VersionAdded, ..version_of("i-1", 3, "Größe.pdf", 12, Some("ab".repeat(32))) };
    let receipt = bus.destination.deliver(&delivery).await.unwrap();
    assert_eq!((receipt.reference.as_str(), receipt.duplicate, receipt.bytes), ("FILES:1", false, 0));
    let all = bus.stored().await;
    let [(subject, headers, event)] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(subject, "files.uploaded");
    assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), delivery.key);
    assert_eq!(headers.get("Content-Type").unwrap().as_str(), "application/cloudevents+json");
    assert_eq!(
        *event,
        json!({
            "specversion": "1.0",
            "id": delivery.key,
            "source": "/file360/cluster-1/claims/photos",
            "type": "io.file360.file.versionadded",
            "subject": "/Inbox/Größe.pdf",
            "time": "2026-03-04T05:06:07Z",
            "datacontenttype": "application/json",
            "data": {
                "file": {
                    "id": "i-1", "name": "Größe.pdf", "path": "/Inbox/Größe.pdf", "size": 12, "mimeType": "application/pdf",
                    "sha256": "ab".repeat(32), "version": 3, "createdAt": "2026-03-04T05:06:07Z",
                    "modifiedAt": "2026-03-04T05:06:07Z", "classification": null, "metadata": {"claimId": "4711"},
                },
                "workspace": {"id": "workspace-1", "name": "claims"},
                "uploader": {"kind": "User", "emailVerified": true},
                "event": {"type": "VersionAdded", "actor": "Ada"},
                "route": {"namespace": "claims", "name": "photos"},
                "rule": "rule-1",
                "destination": "to-1",
            },
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_the_same_key_twice_is_one_message() {
    let bus = Bus::open().await;
    let first = bus.destination.deliver(&delivery("twice.pdf", b"x")).await.unwrap();
    // An operator that starts anew knows nothing of the first try.
    let second = bus.parts.build().deliver(&delivery("twice.pdf", b"x")).await.unwrap();
    assert_eq!((first.reference.as_str(), first.duplicate), ("FILES:1", false));
    assert_eq!((second.reference.as_str(), second.duplicate), ("FILES:1", true));
    assert_eq!(bus.stored().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_killed_server_loses_and_doubles_nothing() {
    let bus = Bus::open().await;
    let begun = std::sync::atomic::AtomicUsize::new(0);
    let deliveries: Vec<Delivery> = (0..400).map(|n| delivery(&format!("{n}.pdf"), b"x")).collect();
    let all = futures::stream::iter(&deliveries).for_each_concurrent(64, async |delivery| {
        begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        eventually("the acknowledgement", async || match bus.destination.deliver(delivery).await {
            Ok(_) => Ok(()),
            Err(error) if error.disposition() == Disposition::Terminal => {
                panic!("an outage is no reason to give up: {error}")
            }
            Err(error) => Err(error.to_string()),
        })
        .await;
    });
    let kill = async {
        eventually("the deliveries under way", async || {
            let so_far = begun.load(std::sync::atomic::Ordering::Relaxed);
            if so_far > 150 { Ok(()) } else { Err(so_far.to_string()) }
        })
        .await;
        bus.server.kill();
        bus.server.start_again().await;
    };
    tokio::join!(all, kill);
    let mut ids: Vec<String> =
        bus.stored().await.iter().map(|(_, _, event)| event["id"].as_str().unwrap().to_owned()).collect();
    let mut keys: Vec<String> = deliveries.into_iter().map(|delivery| delivery.key).collect();
    ids.sort();
    keys.sort();
    assert_eq!(ids, keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deliveries_at_once_share_one_connection() {
    let bus = Bus::open().await;
    let before = bus.server.connections_so_far().await;
    let deliveries: Vec<Delivery> = (0..300).map(|n| delivery(&format!("{n}.pdf"), b"x")).collect();
    let results = futures::future::join_all(deliveries.iter().map(|delivery| bus.destination.deliver(delivery))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(bus.server.connections_so_far().await - before, 1);
    assert_eq!(bus.stored().await.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_unavailable_within_a_bounded_time() {
    let bus = Bus::open().await;
    bus.destination.deliver(&delivery("before.pdf", b"x")).await.unwrap();
    bus.server.signal("STOP");
    let begun = Instant::now();
    let deliveries: Vec<Delivery> = (0..20).map(|n| delivery(&format!("{n}.pdf"), b"x")).collect();
    let results = futures::future::join_all(deliveries.iter().map(|delivery| bus.destination.deliver(delivery))).await;
    let took = begun.elapsed();
    bus.server.signal("CONT");
    for result in results {
        assert_eq!(result.expect_err("nobody answers").kind, Kind::Unavailable);
    }
    assert!(took < Duration::from_secs(30), "{took:?}");
    eventually("the delivery afterwards", async || {
        bus.destination.deliver(&delivery("after.pdf", b"x")).await.map_err(|error| error.to_string())
    })
    .await;
    assert!(bus.arrived().await.iter().any(|one| one.name == "after.pdf"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_unavailable_at_once() {
    let bus = Bus::open().await;
    bus.server.kill();
    let begun = Instant::now();
    let error = bus.destination.deliver(&delivery("a.pdf", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_without_a_stream_is_refused_and_says_so() {
    let bus = Bus::open().await;
    let destination = Parts { secrets: bus.parts.secrets.clone(), ..Parts::at(&bus.server.url("nats")) }
        .subject("'nowhere.' + file.name")
        .build();
    let error = destination.deliver(&delivery("a", b"x")).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (Kind::Rejected, "no-stream"));
    assert!(error.to_string().contains("no stream takes messages to nowhere.a"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_are_refused_and_a_full_stream_is_waited_for() {
    let server = Server::start("max_payload: 8192").await;
    let client = server.client(async_nats::ConnectOptions::new()).await;
    make_stream(&client, |config| {
        config.max_message_size = 4096;
        config.max_messages = 1;
        config.discard = jetstream::stream::DiscardPolicy::New;
    })
    .await;
    let destination = Parts::at(&server.url("nats")).build();
    let too_large_for_the_server = destination.deliver(&delivery(&"x".repeat(9000), b"x")).await.unwrap_err();
    assert_eq!(too_large_for_the_server.kind, Kind::Rejected);
    assert!(too_large_for_the_server.to_string().contains("8192 bytes"), "{too_large_for_the_server}");
    let too_large_for_the_stream = destination.deliver(&delivery(&"x".repeat(2000), b"x")).await.unwrap_err();
    assert_eq!(too_large_for_the_stream.kind, Kind::Rejected, "{too_large_for_the_stream}");
    destination.deliver(&delivery("first", b"x")).await.unwrap();
    let full = destination.deliver(&delivery("second", b"x")).await.unwrap_err();
    assert_eq!(full.kind, Kind::Unavailable, "{full}");
    assert!(full.to_string().contains("maximum messages"), "{full}");
    let stream = jetstream::new(client).get_stream("FILES").await.unwrap();
    stream.purge().await.unwrap();
    destination.deliver(&delivery("second", b"x")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_no_name_leaves_the_subject_that_the_route_gives() {
    let bus = Bus::open().await;
    let destination = Parts::at(&bus.server.url("nats")).subject("'files.x' + file.name").build();
    let spy = bus.client().await;
    let mut everything = spy.subscribe(">").await.unwrap();
    spy.flush().await.unwrap();
    let mut taken = Vec::new();
    for name in hostile_names().into_iter().chain(["$JS.API.STREAM.DELETE.FILES".into(), "a.b".into(), "*.>".into()]) {
        match destination.deliver(&delivery(&name, b"x")).await {
            Ok(_) => taken.push(name),
            Err(error) => assert_eq!(error.kind, Kind::Rejected, "{name:?}: {error}"),
        }
    }
    let all = bus.stored().await;
    let names: Vec<String> =
        all.iter().map(|(_, _, event)| event["data"]["file"]["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, taken, "each with its exact name in the data");
    for (subject, ..) in &all {
        assert!(subject.starts_with("files.x"), "{subject:?}");
        assert!(!subject.contains(|c: char| c.is_whitespace() || c.is_control() || "*>\u{202e}".contains(c)), "{subject:?}");
    }
    // What the test itself asks, and what the server tells about that.
    let heard = |subject: &str| {
        ["files.x", "_INBOX.", "$JS.API.STREAM.", "$JS.EVENT."].iter().any(|start| subject.starts_with(start))
    };
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(200), everything.next()).await {
        assert!(heard(&message.subject), "{}", message.subject);
        assert!(!message.subject.starts_with("$JS.API.STREAM.DELETE"), "{}", message.subject);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_content_is_never_opened() {
    let bus = Bus::open().await;
    let content = suite::Staged::of(b"secret");
    let opened = content.opened.clone();
    let delivery = Delivery { content: Arc::new(content), ..delivery_of("a.pdf", 6, None) };
    bus.destination.deliver(&delivery).await.unwrap();
    assert_eq!(opened.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_addresses_that_are_not_allowed_get_no_connection() {
    let server = Server::start(OPEN).await;
    let before = server.connections_so_far().await;
    let refused = |parts: Parts| parts.try_build().err().map(|invalid| invalid.to_string());
    let closed = |url: &str| Parts { allow: Vec::new(), ..Parts::at(url) };
    let why = refused(closed(&server.url("tls"))).expect("loopback is refused");
    assert!(why.starts_with("broker.nats.url: outbound guard"), "{why}");
    assert!(refused(closed("nats://nats.example.com:4222")).unwrap().contains("tls://"));
    // A name is only known to be inside once it is resolved.
    let named = closed(&format!("tls://localhost:{}", server.port())).build();
    let error = named.deliver(&delivery("a.pdf", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Rejected, "{error}");
    assert!(error.to_string().contains("outbound guard"), "{error}");
    assert_eq!(server.connections_so_far().await, before);
}

#[test]
fn an_expression_that_cannot_be_used_names_its_field_and_place() {
    let refused = Parts::at("tls://nats.example.com").subject("'a' + fiel.name").try_build().err().unwrap();
    assert_eq!(refused.field, "broker.nats.subject");
    assert!(refused.why.starts_with("line 1, column 7: unknown variable fiel"), "{}", refused.why);
}
