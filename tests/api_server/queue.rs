//! More than one machine: a leader, workers and a real NATS server between them. Whoever of them goes away, whenever, every file arrives once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use file360_operator::queue::message::{Keys, SIGNATURE};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::routes::{apply, arrived, claims, counted, route, to_cases};
use crate::routes_destinations::{become_files, objects, s3_store, sftp_store};
use crate::support::case_system::CaseSystem;
use crate::support::counterparts::{NatsServer, S3Server, SftpServer, files_below};
use crate::support::remote::{CLIENT_ID, CLIENT_SECRET};
use crate::support::search::Fake;
use crate::support::world::{World, condition};
use crate::support::{OPERATOR, eventually, free_port, kubernetes};

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";
/// The leader may do everything; a worker what docs/scaling.md says and nothing else.
const LOGINS: &str = r#"authorization { users: [
    {user: leader, password: "of-the-leader"},
    {user: worker, password: "of-the-workers", permissions: {
        publish: ["file360.test.answer.>", "$JS.ACK.file360-test-jobs.>", "$JS.API.STREAM.INFO.*",
            "$JS.API.CONSUMER.INFO.*.workers", "$JS.API.CONSUMER.MSG.NEXT.*.workers"],
        subscribe: ["_INBOX.>"]}}] }"#;

/// A worker process under its own ServiceAccount and role.
struct Worker {
    child: Child,
    address: String,
}

impl Worker {
    /// Ends at once (-9).
    fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Is asked to end (SIGTERM); whether it ended well.
    fn stop(mut self) -> bool {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// The sum of a metric over its labels; `None` while it does not answer.
    async fn metric(&self, name: &str) -> Option<f64> {
        let text = reqwest::get(format!("http://{}/metrics", self.address)).await.ok()?.text().await.ok()?;
        let mine = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        Some(text.lines().filter(mine).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    async fn ready(self) -> Self {
        let url = format!("http://{}/readyz", self.address);
        eventually("the worker's readiness", || async {
            let answer = reqwest::get(&url).await.map_err(|error| error.to_string())?;
            let ready = answer.status().is_success();
            let text = answer.text().await.unwrap_or_default();
            ready.then_some(()).ok_or(text)
        })
        .await;
        self
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A world whose leader puts its work on a queue.
struct Queued {
    world: World,
    nats: NatsServer,
    cases: CaseSystem,
    workspace: String,
    key: PathBuf,
    kubeconfig: PathBuf,
    url: String,
    /// For TLS.
    more: Vec<String>,
}

impl Queued {
    async fn new() -> Self {
        Self::at(NatsServer::start_with(LOGINS), "nats://127.0.0.1", Vec::new()).await
    }

    /// The server proves its name, and wants a certificate from everybody.
    async fn over_tls(folder: &Path) -> Self {
        let path = |name: &str| text(&folder.join(name));
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(path("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        for name in ["localhost", "operator"] {
            let key = rcgen::KeyPair::generate().unwrap();
            let leaf = rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
            std::fs::write(path(&format!("{name}.pem")), leaf.pem()).unwrap();
            std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let tls = format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
            path("localhost.pem"),
            path("localhost.key"),
            path("ca.pem")
        );
        let more = [
            ["--queue-ca-file".to_owned(), path("ca.pem")],
            ["--queue-tls-cert".to_owned(), path("operator.pem")],
            ["--queue-tls-key".to_owned(), path("operator.key")],
        ];
        Self::at(NatsServer::start_with(&format!("{LOGINS}\n{tls}")), "tls://localhost", more.concat()).await
    }

    async fn at(nats: NatsServer, address: &str, more: Vec<String>) -> Self {
        let world = World::without_operator(kubernetes::shared().await).await;
        let key = world.folder.path().join("queue.key");
        std::fs::write(&key, KEY).unwrap();
        for (user, password) in [("leader", "of-the-leader\n"), ("worker", "of-the-workers\n")] {
            std::fs::write(world.folder.path().join(user), password).unwrap();
        }
        let kubeconfig = worker_kubeconfig(&world).await;
        let url = format!("{address}:{}", nats.port);
        let cases = CaseSystem::start().await;
        let mut queued = Self { world, nats, cases, workspace: String::new(), key, kubeconfig, url, more };
        queued.start_leader().await;
        queued.world.connect().await;
        queued.workspace = claims(&queued.world, "claims").await;
        queued
    }

    async fn start_leader(&mut self) {
        let mut flags = self.flags("leader");
        flags.extend(["--queue-lease", "2s", "--queue-max-jobs", "300"].map(str::to_owned));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.world.start_operator(&flags).await;
    }

    fn flags(&self, user: &str) -> Vec<String> {
        let (key, password) = (text(&self.key), text(&self.world.folder.path().join(user)));
        let flags = ["--queue", &self.url, "--queue-name", "test", "--queue-key-file", &key];
        let login = ["--queue-user", user, "--queue-password-file", &password];
        flags.iter().chain(&login).map(|flag| (*flag).to_owned()).chain(self.more.clone()).collect()
    }

    /// Starts a worker without waiting for it.
    fn worker(&self) -> Worker {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = std::fs::File::create(self.world.folder.path().join(format!("worker-{number}.log"))).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let namespace = self.world.namespace.as_str();
        let child = Command::new(OPERATOR)
            .args(["worker", "--metrics-address", &address, "--namespace", namespace, "--cluster-id", namespace])
            .args(["--outbound-allow", "127.0.0.1", "--worker-concurrency", "8"])
            .args(self.flags("worker"))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("FILE360_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the worker starts");
        Worker { child, address }
    }

    async fn upload(&self, names: &[String]) {
        let uploads = names.iter().map(|name| async move {
            self.world.remote.upload(&self.workspace, "/Inbox", name, content(name).as_bytes()).await
        });
        futures::stream::iter(uploads).buffer_unordered(8).collect::<Vec<_>>().await;
    }

    async fn jetstream(&self) -> jetstream::Context {
        let options = async_nats::ConnectOptions::with_user_and_password("leader".into(), "of-the-leader".into());
        jetstream::new(options.connect(&self.url).await.unwrap())
    }

    /// The stream of jobs, once it holds `count` of them.
    async fn jobs(&self, count: u64) -> jetstream::stream::Stream {
        let context = self.jetstream().await;
        let stream = eventually("the stream of jobs", || async {
            context.get_stream("file360-test-jobs").await.map_err(|error| error.to_string())
        })
        .await;
        eventually("the jobs", || async {
            let there = stream.get_info().await.map_err(|error| error.to_string())?.state.messages;
            (there >= count).then_some(()).ok_or_else(|| format!("{there} are there"))
        })
        .await;
        stream
    }

    /// Everything arrived whole, under one key each.
    fn assert_all_arrived(&self, names: &[String]) {
        let accepted = self.cases.accepted();
        let bodies: BTreeSet<Vec<u8>> = accepted.iter().map(|accepted| accepted.body.clone()).collect();
        let expected: BTreeSet<Vec<u8>> = names.iter().map(|name| content(name).into_bytes()).collect();
        assert!(bodies == expected, "what arrived is not what was sent: {} of {}", bodies.len(), expected.len());
        assert_eq!(accepted.len(), names.len(), "a file arrived under two keys");
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn content(name: &str) -> String {
    format!("the content of {name}, and of no other file\n")
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number}.txt")).collect()
}

/// Access of the workers' ServiceAccount, which has the worker's role and nothing else.
async fn worker_kubeconfig(world: &World) -> PathBuf {
    use file360_operator::api::rbac;
    let group = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "worker"}, "rules": rbac::worker()});
    let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "worker"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "worker"},
        "subjects": [{"kind": "ServiceAccount", "name": "worker", "namespace": world.namespace}]});
    let token = kubernetes::service_account_token(&world.client, &world.namespace, "worker").await;
    for manifest in [role, binding] {
        kubernetes::apply(&world.client, &world.namespace, &manifest).await.expect("the rights are granted");
    }
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&world.kubeconfig).unwrap()).unwrap();
    config["users"][0]["user"] = json!({"token": token});
    let path = world.folder.path().join("worker.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// The files that the route's checkpoint has not passed; every other one is done, or recorded as waiting.
async fn not_passed(world: &World) -> BTreeSet<String> {
    // Documents belong to the client that wrote them.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let form = [("grant_type", "client_credentials"), ("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
    let token = http.post(format!("{}/oauth2/token", world.remote.url)).form(&form).send().await.unwrap();
    let token: Value = token.json().await.unwrap();
    let states = http.get(format!("{}/v1/client-state?prefix=route/", world.remote.url));
    let states = states.bearer_auth(token["access_token"].as_str().unwrap()).send().await.unwrap();
    let states: Value = states.json().await.unwrap();
    let mut states = states["items"].as_array().unwrap().iter();
    let checkpoint = states.find(|state| state["key"].as_str().is_some_and(|key| key.ends_with("/checkpoint")));
    // Without a checkpoint, nothing is passed.
    let cursor = checkpoint.map_or("earliest", |checkpoint| checkpoint["value"]["cursor"].as_str().expect("a cursor"));
    uploaded_after(world, cursor).await
}

async fn uploaded_after(world: &World, cursor: &str) -> BTreeSet<String> {
    let mut cursor = cursor.to_owned();
    let mut open = BTreeSet::new();
    loop {
        let page = world.remote.get(&format!("/v1/changes?cursor={cursor}&limit=500")).await;
        for change in page["items"].as_array().unwrap() {
            if change["type"] == "fileUploaded" {
                open.extend(change["subject"].as_str().map(str::to_owned));
            }
        }
        if page["hasMore"] != true {
            return open;
        }
        page["nextCursor"].as_str().unwrap().clone_into(&mut cursor);
    }
}

#[tokio::test]
async fn r1_r2_workers_and_the_leader_are_killed_over_and_over_and_every_file_arrives_once() {
    const FILES: usize = 2_000;
    let mut queued = Queued::new().await;
    let mut workers = vec![queued.worker(), queued.worker()];
    route(&queued.world, "claims", to_cases(&queued.cases, "Content")).await;
    let names = names(FILES);
    let by_id: BTreeMap<String, String> = {
        let queued = &queued;
        let uploads = names.iter().map(|name| async move {
            let id = queued.world.remote.upload(&queued.workspace, "/Inbox", name, content(name).as_bytes()).await;
            (id, name.clone())
        });
        let uploading = futures::stream::iter(uploads).buffer_unordered(8).collect();
        let killing = async {
            // A worker dies whenever another 150 files arrived, whatever it is at.
            for round in 1..=6 {
                arrived(&queued.cases, round * 150).await;
                workers.remove(0).kill();
                workers.push(queued.worker());
            }
        };
        tokio::join!(uploading, killing).0
    };
    arrived(&queued.cases, FILES / 2).await;
    queued.world.kill_operator();
    let open = not_passed(&queued.world).await;
    // What workers have in hand still arrives; what the checkpoint has passed is there already.
    let bodies: BTreeSet<Vec<u8>> = queued.cases.accepted().into_iter().map(|accepted| accepted.body).collect();
    assert_eq!(uploaded_after(&queued.world, "earliest").await.len(), FILES, "the feed is read rightly");
    let lost = by_id.iter().filter(|(id, name)| !open.contains(*id) && !bodies.contains(content(name).as_bytes()));
    assert_eq!(lost.count(), 0, "the checkpoint is ahead of what arrived");
    queued.start_leader().await;
    for round in 1..=3 {
        arrived(&queued.cases, FILES / 2 + round * 200).await;
        workers.remove(0).kill();
        workers.push(queued.worker());
    }
    arrived(&queued.cases, FILES).await;
    queued.assert_all_arrived(&names);
    println!("{} repetitions, all dropped by their key", queued.cases.repeated());
    let object = queued.world.condition("FileRoute", "claims", "Ready", "True").await;
    assert!(object["status"]["deadLetters"].is_null(), "a worker's death is not the file's failure: {}", object["status"]);
    eventually("the checkpoint behind everything", || async {
        let open = not_passed(&queued.world).await;
        let open = by_id.keys().filter(|id| open.contains(*id)).count();
        (open == 0).then_some(()).ok_or_else(|| format!("{open} are open"))
    })
    .await;
}

#[tokio::test]
async fn r4_the_queue_goes_away_and_is_emptied_and_deleted_and_nothing_is_lost() {
    let queued = Queued::new().await;
    let worker = queued.worker().ready().await;
    route(&queued.world, "claims", to_cases(&queued.cases, "Content")).await;
    let names = names(25);
    queued.upload(&names[..5]).await;
    arrived(&queued.cases, 5).await;

    queued.nats.stop();
    queued.upload(&names[5..10]).await;
    let object = queued.world.reason("FileRoute", "claims", "Ready", "QueueUnavailable").await;
    assert_eq!(condition(&object, "Reconciling")["status"], "True", "{}", object["status"]);
    queued.nats.start_again();
    arrived(&queued.cases, 10).await;
    queued.world.condition("FileRoute", "claims", "Ready", "True").await;

    // Nobody takes the work: the route says so. Then somebody empties the stream.
    assert!(worker.stop(), "a worker ends well");
    queued.upload(&names[10..18]).await;
    let jobs = queued.jobs(8).await;
    let object = queued.world.reason("FileRoute", "claims", "Ready", "QueueUnavailable").await;
    let ready = condition(&object, "Ready");
    assert!(ready["message"].as_str().unwrap().contains("no worker takes work"), "{ready}");
    jobs.purge().await.unwrap();
    let worker = queued.worker().ready().await;
    arrived(&queued.cases, 18).await;

    worker.kill();
    queued.upload(&names[18..]).await;
    let jobs = queued.jobs(7).await;
    queued.jetstream().await.delete_stream(jobs.cached_info().config.name.clone()).await.unwrap();
    let _worker = queued.worker();
    arrived(&queued.cases, 25).await;
    queued.assert_all_arrived(&names);
    queued.world.condition("FileRoute", "claims", "Ready", "True").await;
}

#[tokio::test]
async fn r4_a_full_queue_holds_routes_back_and_throws_nothing_away() {
    let queued = Queued::new().await;
    for name in ["one", "two"] {
        let mut spec = to_cases(&queued.cases, "Content");
        spec["rules"][0]["name"] = json!(name);
        apply(&queued.world, name, spec).await;
    }
    // Each route may have 256 open; together they are more than the 300 that fit.
    let names = names(200);
    queued.upload(&names).await;
    queued.jobs(300).await;
    eventually("the refusal", || async {
        queued.world.log().contains("maximum messages").then_some(()).ok_or_else(|| "not in the log".to_owned())
    })
    .await;
    queued.world.reason("FileRoute", "two", "Ready", "QueueUnavailable").await;
    let _workers = [queued.worker(), queued.worker()];
    arrived(&queued.cases, 400).await;
    let bodies: BTreeSet<Vec<u8>> = queued.cases.accepted().into_iter().map(|accepted| accepted.body).collect();
    assert_eq!((bodies.len(), queued.cases.accepted().len()), (200, 400), "every file once for each route");
    for name in ["one", "two"] {
        queued.world.condition("FileRoute", name, "Ready", "True").await;
    }
}

#[tokio::test]
async fn r1_a_new_leader_says_the_same_jobs_and_takes_up_the_answers_to_the_former_one() {
    let mut queued = Queued::new().await;
    apply(&queued.world, "claims", to_cases(&queued.cases, "Content")).await;
    let names = names(20);
    queued.upload(&names).await;
    let jobs = queued.jobs(20).await;
    queued.world.kill_operator();
    queued.start_leader().await;
    let operator = queued.world.operator.as_ref().unwrap();
    eventually("the jobs that the former leader left", || async {
        let open = operator.metric("file360_queue_open", "").await;
        (open >= 20.0).then_some(()).ok_or_else(|| format!("{open} jobs"))
    })
    .await;
    assert!(operator.metric("file360_queue_jobs_total", "").await < 1.0, "they are not said again");
    assert_eq!(jobs.get_info().await.unwrap().state.messages, 20, "the stream has each job once");
    // Without any leader, workers do what is there; the answers wait.
    queued.world.kill_operator();
    let worker = queued.worker().ready().await;
    arrived(&queued.cases, 20).await;
    eventually("the last answer", || async {
        let left = jobs.get_info().await.map_err(|error| error.to_string())?.state.messages;
        (left == 0).then_some(()).ok_or_else(|| format!("{left} jobs"))
    })
    .await;
    queued.start_leader().await;
    eventually("the checkpoint behind everything", || async {
        let open = not_passed(&queued.world).await.len();
        (open == 0).then_some(()).ok_or_else(|| format!("{open} are open"))
    })
    .await;
    assert_eq!(queued.cases.repeated(), 0, "nothing was moved twice");
    assert_eq!(worker.metric("file360_worker_jobs_total").await, Some(20.0), "no job was done twice");
    queued.assert_all_arrived(&names);
}

#[tokio::test]
async fn t1_t4_a_forged_job_is_refused_and_a_signed_one_reaches_no_further_than_the_route() {
    let queued = Queued::new().await;
    let world = &queued.world;
    world.workspace("secret", json!({"displayName": "secret", "folders": [{"path": "/Inbox"}]})).await;
    let secret = world.workspace_id("secret").await;
    let item = world.remote.upload(&secret, "/Inbox", "secret.txt", b"not for the route").await;
    let mut spec = to_cases(&queued.cases, "Content");
    spec["from"]["workspaces"] = json!({"names": ["claims"], "path": "/Inbox/**"});
    apply(world, "claims", spec).await;
    queued.upload(&["0.txt".to_owned()]).await;
    let jobs = queued.jobs(1).await;
    let real = jobs.get_raw_message(1).await.unwrap();
    let signature = real.headers.get(SIGNATURE).expect("it is signed").as_str().to_owned();
    let (start, _) = real.subject.rsplit_once('.').unwrap();

    let keys = Keys::read(KEY.as_bytes()).unwrap();
    let strangers = Keys::read(b"another-key-another-key-another-key").unwrap();
    let mut job: Value = serde_json::from_slice(&real.payload).unwrap();
    job["id"] = json!("f0f0");
    job["origin"] = json!({"kind": "item", "workspace": secret, "item": item, "version": 1});
    let forged = serde_json::to_vec(&job).unwrap();
    let subject = |id: &str| format!("{start}.{id}");
    let context = queued.jetstream().await;
    let publish = async |subject: String, signature: Option<String>, payload: Vec<u8>| {
        let mut headers = async_nats::HeaderMap::new();
        if let Some(signature) = signature {
            headers.insert(SIGNATURE, signature.as_str());
        }
        context.publish_with_headers(subject, headers, payload.into()).await.unwrap().await.unwrap();
    };
    publish(subject("unsigned"), None, real.payload.to_vec()).await;
    publish(subject("moved"), Some(signature.clone()), real.payload.to_vec()).await;
    publish(subject("changed"), Some(signature), forged.clone()).await;
    publish(subject("stranger"), Some(strangers.sign(&subject("stranger"), &forged)), forged.clone()).await;
    // Even a job that is signed names no workspace that the route does not read.
    for (id, place) in [("mine", "claims"), ("theirs", "secret"), ("nobodys", "")] {
        job["place"]["workspace"] = json!(place);
        job["id"] = json!(id);
        let payload = serde_json::to_vec(&job).unwrap();
        publish(subject(id), Some(keys.sign(&subject(id), &payload)), payload).await;
    }
    // One that was signed, long ago: whoever kept it cannot have the file moved once more.
    let mut old: Value = serde_json::from_slice(&real.payload).unwrap();
    let said_at: jiff::Timestamp = old["saidAt"].as_str().expect("it has a time").parse().unwrap();
    old["saidAt"] = json!(said_at - jiff::SignedDuration::from_hours(13));
    old["id"] = json!("old");
    let payload = serde_json::to_vec(&old).unwrap();
    publish(subject("old"), Some(keys.sign(&subject("old"), &payload)), payload).await;
    let worker = queued.worker().ready().await;
    eventually("the refusals", || async {
        let (refused, ended) =
            (worker.metric("file360_queue_refused_total").await, worker.metric("file360_worker_jobs_total").await);
        (refused == Some(4.0) && ended >= Some(5.0)).then_some(()).ok_or_else(|| format!("{refused:?} {ended:?}"))
    })
    .await;
    arrived(&queued.cases, 1).await;
    queued.assert_all_arrived(&names(1));
    eventually("nothing left", || async {
        let left = jobs.get_info().await.map_err(|error| error.to_string())?.state.messages;
        (left == 0).then_some(()).ok_or_else(|| format!("{left} jobs"))
    })
    .await;
    assert_eq!(queued.cases.repeated(), 0, "nothing was moved twice");
}

/// An answer somebody kept, said again when the same work is asked for anew.
#[tokio::test]
async fn t4_an_answer_that_is_too_old_does_not_count() {
    let mut queued = Queued::new().await;
    apply(&queued.world, "claims", to_cases(&queued.cases, "Content")).await;
    queued.upload(&["0.txt".to_owned()]).await;
    let jobs = queued.jobs(1).await;
    let real = jobs.get_raw_message(1).await.unwrap();
    queued.world.kill_operator();
    // "Nothing is to be done" is what would make the next leader forget the file.
    let job: Value = serde_json::from_slice(&real.payload).unwrap();
    let id = job["id"].as_str().unwrap();
    let said_at: jiff::Timestamp = job["saidAt"].as_str().unwrap().parse().unwrap();
    let answer = |said_at: jiff::Timestamp| {
        json!({"version": job["version"], "id": id, "to": {"takenAt": 1, "sequence": 1}, "saidAt": said_at, "worker": "kept",
            "attempts": 0, "path": "/Inbox/0.txt", "told": {"kind": "Nothing"}})
    };
    let (start, _) = real.subject.split_once(".job.").unwrap();
    let subject = format!("{start}.answer.{id}");
    let payload = serde_json::to_vec(&answer(said_at - jiff::SignedDuration::from_hours(13))).unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(SIGNATURE, Keys::read(KEY.as_bytes()).unwrap().sign(&subject, &payload).as_str());
    queued.jetstream().await.publish_with_headers(subject, headers, payload.into()).await.unwrap().await.unwrap();
    queued.start_leader().await;
    let operator = queued.world.operator.as_ref().unwrap();
    eventually("the refusal", || async {
        let refused = operator.metric("file360_queue_refused_total", "").await;
        (refused >= 1.0).then_some(()).ok_or_else(|| format!("{refused}"))
    })
    .await;
    let _worker = queued.worker().ready().await;
    arrived(&queued.cases, 1).await;
    queued.assert_all_arrived(&names(1));
}

#[tokio::test]
async fn r3_a_transfer_that_lasts_longer_than_the_lease_is_done_once() {
    let queued = Queued::new().await;
    let worker = queued.worker().ready().await;
    let mut spec = to_cases(&queued.cases, "Content");
    spec["delivery"]["bandwidth"] = json!("256Ki");
    route(&queued.world, "claims", spec).await;
    // A burst and five seconds more, with a lease of two.
    let content = vec![b'x'; 6 * 256 * 1024];
    queued.world.remote.upload(&queued.workspace, "/Inbox", "long.txt", &content).await;
    arrived(&queued.cases, 1).await;
    eventually("the end of the job", || async {
        let ended = worker.metric("file360_worker_jobs_total").await;
        (ended == Some(1.0)).then_some(()).ok_or_else(|| format!("{ended:?}"))
    })
    .await;
    let jobs = queued.jobs(0).await;
    let consumer: jetstream::consumer::PullConsumer = jobs.get_consumer("workers").await.unwrap();
    assert_eq!(consumer.cached_info().delivered.consumer_sequence, 1, "the job was given out once");
    assert_eq!(queued.cases.repeated(), 0);
    assert!(queued.cases.accepted()[0].body == content);
    assert!(worker.stop());
}

#[tokio::test]
async fn workers_deliver_to_every_kind_of_destination_and_speak_tls_with_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let queued = Queued::over_tls(folder.path()).await;
    let world = &queued.world;
    let (s3, sftp, search) = (S3Server::start(), SftpServer::start(), Fake::start());
    let destinations = [
        ("bucket", json!({"objectStore": s3_store(world, &s3).await, "key": "'in/' + file.name"})),
        ("host", json!({"objectStore": sftp_store(world, &sftp).await, "key": "'in/' + file.name"})),
        ("search", json!({"index": {"opensearch": {"url": search.url(), "index": "files"}, "properties": ["name"]}})),
        ("case", json!({"http": {"url": format!("{}/cases", queued.cases.url)}, "send": "Content"})),
        ("copy", json!({"file360": {"workspaceRef": {"name": "claims"}, "path": "'/Other'"}})),
    ];
    let to: Vec<Value> = destinations
        .into_iter()
        .map(|(name, mut destination)| {
            destination["name"] = json!(name);
            destination
        })
        .collect();
    let mut spec = to_cases(&queued.cases, "Content");
    spec["rules"][0]["to"] = json!(to);
    let worker = queued.worker().ready().await;
    route(world, "claims", spec).await;
    let names = names(5);
    queued.upload(&names).await;
    arrived(&queued.cases, 5).await;
    let contents: Vec<(String, String)> = names.iter().map(|name| (format!("in/{name}"), content(name))).collect();
    let files: Vec<(&str, &[u8])> = contents.iter().map(|(name, content)| (name.as_str(), content.as_bytes())).collect();
    become_files("the bucket", || objects(&s3), &files).await;
    let host = || files_below(&sftp.root()).into_iter().filter(|(name, _)| !name.starts_with(".file360/")).collect();
    become_files("the host", host, &files).await;
    eventually("the index", || async {
        let there = search.documents("files").len();
        (there == 5).then_some(()).ok_or_else(|| format!("{there} documents"))
    })
    .await;
    let object = counted(world, "claims", "five times five deliveries", |counts| counts["delivered"] == 25).await;
    assert_eq!(object["status"]["counts"]["duplicates"], 0, "{}", object["status"]);
    assert_eq!(worker.metric("file360_worker_jobs_total").await, Some(5.0));
    // Without a certificate nobody gets in.
    let plain = async_nats::ConnectOptions::with_user_and_password("leader".into(), "of-the-leader".into());
    let authority = folder.path().join("ca.pem");
    let refused = plain.add_root_certificates(authority).max_reconnects(1).connect(&queued.url).await;
    assert!(refused.is_err(), "the server asks for certificates");
}

#[tokio::test]
async fn r5_a_job_that_no_worker_ever_ends_becomes_a_dead_letter() {
    let queued = Queued::new().await;
    apply(&queued.world, "claims", to_cases(&queued.cases, "Content")).await;
    queued.upload(&["0.txt".to_owned()]).await;
    let jobs = queued.jobs(1).await;
    let consumer: jetstream::consumer::PullConsumer = jobs.get_consumer("workers").await.unwrap();
    for _ in 0..16 {
        let taken = consumer.batch().max_messages(1).expires(Duration::from_secs(30));
        let mut taken = taken.messages().await.unwrap();
        let message = taken.next().await.expect("the job comes again").unwrap();
        message.ack_with(jetstream::AckKind::Nak(None)).await.unwrap();
    }
    let worker = queued.worker().ready().await;
    let object = queued.world.condition("FileRoute", "claims", "DeadLetters", "True").await;
    let letter = &object["status"]["deadLetters"][0];
    assert!(letter["error"].as_str().unwrap().contains("17 times a worker took this file"), "{letter}");
    assert!(queued.cases.accepted().is_empty());
    // Whoever found out why asks for it again.
    let again = json!({"metadata": {"annotations": {"replay.file360.io/requestedAt": "1"}}});
    queued.world.patch("FileRoute", "claims", again).await;
    arrived(&queued.cases, 1).await;
    assert!(worker.stop());
}
