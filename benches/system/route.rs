//! `route`: files through a route, from File 360 to an S3 server and back, many small and few large ones, against a bare copy of the same bytes
//! between the same two servers; and how long a single file takes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::copy::{Ends, File, Rates, Way};
use crate::field::Field;
use crate::measure::{cpu_seconds, float, peak_rss_bytes, quantiles, round, rss_bytes};
use crate::settled::fresh_name;
use crate::stage::{Operator, Stage, apply};
use crate::support::counterparts::S3Server;

/// Copies in flight that are tried, of small files and of large ones.
const SMALL_IN_FLIGHT: [usize; 4] = [8, 16, 32, 64];
const LARGE_IN_FLIGHT: [usize; 3] = [1, 2, 4];
/// The embedded server must reach this part of the S3 server's rates, else the run is void.
const ENOUGH: f64 = 0.8;
/// Files whose way is timed one by one, and how many a second.
const SINGLE: usize = 200;
const SINGLES_A_SECOND: u64 = 10;

/// What a run is made of.
pub struct Sizes {
    /// Small files.
    pub small: usize,
    /// Bytes of each.
    pub small_bytes: usize,
    /// Large files.
    pub large: usize,
    /// Bytes of each.
    pub large_bytes: u64,
}

struct Scene<'a> {
    stage: &'a Stage,
    field: Field,
    ends: Ends,
    server: S3Server,
    operator: Operator,
    workspace: String,
    name: String,
}

/// Runs the scenario; one line for each kind of files.
pub async fn run(stage: &Stage, sizes: &Sizes) -> Vec<Value> {
    let scene = Scene::new(stage).await;
    let mut lines = vec![scene.singles().await];
    let small: Vec<Bytes> = (0..sizes.small).map(|number| content(number, sizes.small_bytes)).collect();
    lines.push(scene.measure("small", &small, sizes.small_bytes as u64, &SMALL_IN_FLIGHT).await);
    if sizes.large > 0 {
        let block = content(0, 1 << 20);
        let count = usize::try_from(sizes.large_bytes >> 20).expect("a number of blocks");
        lines.push(scene.measure_large(&block, sizes.large, count).await);
    }
    scene.operator.stop();
    scene.field.end().await;
    lines
}

/// Bytes that no other file has.
fn content(number: usize, bytes: usize) -> Bytes {
    let mut seed = Sha256::digest(number.to_string());
    let mut content = Vec::with_capacity(bytes + 32);
    while content.len() < bytes {
        content.extend_from_slice(&seed);
        seed = Sha256::digest(seed);
    }
    content.truncate(bytes);
    content.into()
}

impl<'a> Scene<'a> {
    async fn new(stage: &'a Stage) -> Self {
        let field = Field::new(stage, &fresh_name("bench-route")).await;
        field.connect().await;
        let operator = stage.operator();
        operator.leads().await;
        operator.caught_up().await;
        let (made, ids) = tokio::join!(field.create(1), field.all_ready(1));
        let server = S3Server::start();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": field.namespace},
            "stringData": {"id": S3Server::KEY_ID, "secret": S3Server::SECRET}});
        apply(&stage.admin, &secret).await;
        let ends = Ends::new(&field.tenant, &server).await;
        let name = made.0[0].metadata.name.clone();
        Self { stage, ends, server, operator, workspace: ids[0].clone(), name, field }
    }

    async fn folder(&self, path: &str) -> String {
        let call = format!("/v1/workspaces/{}/folders", self.workspace);
        let key = format!("{:x}", rand::random::<u128>());
        let new = json!({"path": path, "onConflict": "return"});
        let folder = self.field.tenant.call("POST", &call, &[("idempotency-key", &key)], Some(&new)).await;
        folder["id"].as_str().expect("an id").to_owned()
    }

    /// Uploads files; what they are.
    async fn upload(&self, folder: &str, files: Vec<(String, Bytes, usize)>) -> Vec<File> {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let token = self.field.tenant.token().await;
        let uploads = files.into_iter().map(|(name, block, repeats)| {
            let url = format!("{}/v1/items/{folder}/files?name={name}", self.field.tenant.url);
            let size = (block.len() * repeats) as u64;
            let body = reqwest::Body::wrap_stream(futures::stream::iter(
                std::iter::repeat_n(block, repeats).map(Ok::<_, std::io::Error>),
            ));
            let request =
                http.post(url).bearer_auth(&token).header("idempotency-key", format!("{:x}", rand::random::<u128>()));
            let request =
                request.header("content-length", size).header("content-type", "application/octet-stream").body(body);
            async move {
                let item: Value = request.send().await.expect("an answer").json().await.expect("an item");
                let text = |name: &str| item[name].as_str().unwrap_or_else(|| panic!("{item}")).to_owned();
                File { name: text("id"), sha256: text("sha256"), size }
            }
        });
        futures::stream::iter(uploads).buffer_unordered(16).collect().await
    }

    fn store(&self) -> Value {
        json!({"s3": {"endpoint": self.server.endpoint, "region": S3Server::REGION, "bucket": S3Server::BUCKET,
            "accessKeyIdRef": {"name": "s3", "key": "id"}, "secretAccessKeyRef": {"name": "s3", "key": "secret"}}})
    }

    /// Applies a route with default limits and waits until it delivered so many; seconds.
    async fn through(&self, name: &str, from: Value, mut to: Value, count: usize) -> f64 {
        let before = self.operator.metric("file360_route_deliveries_total").await;
        to["name"] = json!("there");
        let spec = json!({"connectionRef": {"name": "file360"}, "from": from, "unmatched": {"ignore": {}},
            "rules": [{"name": "all", "when": "file.size >= 0", "to": [to]}]});
        let manifest = json!({"apiVersion": "file360.io/v1alpha1", "kind": "FileRoute", "spec": spec,
            "metadata": {"name": name, "namespace": self.field.namespace}});
        let started = Instant::now();
        apply(&self.stage.admin, &manifest).await;
        let delivered = self.operator.gauge("file360_route_deliveries_total");
        while delivered.read().await - before < float(count as u64) {
            assert!(started.elapsed() < Duration::from_mins(30), "the route never ends");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        started.elapsed().as_secs_f64()
    }

    async fn measure(&self, kind: &str, files: &[Bytes], bytes: u64, in_flight: &[usize]) -> Value {
        let named = files.iter().enumerate().map(|(number, content)| (format!("f{number}"), content.clone(), 1)).collect();
        let folder = self.folder("/Small").await;
        let items = Arc::new(self.upload(&folder, named).await);
        let probe = Arc::new(items.iter().take(2_000).cloned().collect::<Vec<_>>());
        let rates = self.ends.rates(&probe, &self.folder("/Rates").await, &files[0]).await;
        self.both(kind, "/Small", &items, bytes, in_flight, Some(rates)).await
    }

    async fn measure_large(&self, block: &Bytes, count: usize, blocks: usize) -> Value {
        let folder = self.folder("/Large").await;
        // Each begins with bytes of its own, so that none is stored as a copy of another.
        let mut items = Vec::new();
        for number in 0..count {
            let block = [content(number + 1, 64), block.slice(64..)].concat();
            items.extend(self.upload(&folder, vec![(format!("f{number}"), block.into(), blocks)]).await);
        }
        let bytes = (block.len() * blocks) as u64;
        self.both("large", "/Large", &Arc::new(items), bytes, &LARGE_IN_FLIGHT, None).await
    }

    /// Out, and in again.
    async fn both(
        &self,
        kind: &str,
        path: &str,
        items: &Arc<Vec<File>>,
        bytes: u64,
        in_flight: &[usize],
        rates: Option<Rates>,
    ) -> Value {
        let out = |prefix: &str| Way::Out(format!("{kind}-{prefix}/"));
        let (best, first) = self.best(items, in_flight, &out("try")).await;
        let cpu = cpu_seconds(self.operator.pid());
        let from = json!({"workspaces": {"selector": {}, "path": format!("{path}/**")}});
        let to = json!({"objectStore": self.store(), "key": format!("'{kind}-route/' + file.id")});
        let seconds = self.through(&format!("{kind}-out"), from, to, items.len()).await;
        let out_cpu = cpu_seconds(self.operator.pid()) - cpu;
        let again = self.ends.copy(items, &out("again"), best).await;
        let out_line = line(items.len(), bytes, seconds, first.max(again), best, out_cpu);

        let objects: Vec<File> =
            items.iter().map(|file| File { name: format!("{kind}-route/{}", file.name), ..file.clone() }).collect();
        let objects = Arc::new(objects);
        let (best, first) = self.best(&objects, in_flight, &Way::In(self.folder(&format!("/{kind}-try")).await)).await;
        let cpu = cpu_seconds(self.operator.pid());
        let mut from = self.store();
        from["prefix"] = json!(format!("{kind}-route/"));
        let to = json!({"file360": {"workspaceRef": {"name": self.name}, "path": format!("'/{kind}-in'"), "onConflict": "NewVersion"}});
        let seconds = self.through(&format!("{kind}-in"), json!({"objectStore": from}), to, objects.len()).await;
        let in_cpu = cpu_seconds(self.operator.pid()) - cpu;
        let again = self.ends.copy(&objects, &Way::In(self.folder(&format!("/{kind}-again")).await), best).await;
        let in_line = line(objects.len(), bytes, seconds, first.max(again), best, in_cpu);

        let mut report = json!({"scenario": "route", "kind": kind, "files": items.len(), "bytesEach": bytes, "out": out_line, "in": in_line,
            "peakRssBytes": peak_rss_bytes(self.operator.pid()), "rssBytes": rss_bytes(self.operator.pid())});
        if let Some(rates) = rates {
            let (reads, writes) = (rates.download / rates.get_object, rates.upload / rates.put_object);
            report["server"] = json!({"downloads": round(rates.download, 0), "getObject": round(rates.get_object, 0),
                "uploads": round(rates.upload, 0), "putObject": round(rates.put_object, 0)});
            if reads < ENOUGH || writes < ENOUGH {
                report["void"] = json!(format!(
                    "the embedded File 360 reaches {reads:.2} of the S3 server's reads and {writes:.2} of its writes"
                ));
            }
        }
        self.check(&format!("{kind}-route"), items.len());
        report
    }

    /// What the route delivered is there, once each.
    fn check(&self, prefix: &str, count: usize) {
        let there = std::fs::read_dir(self.server.bucket().join(prefix)).map_or(0, Iterator::count);
        assert_eq!(there, count, "every file is there");
    }

    /// The best number in flight and its rate.
    async fn best(&self, files: &Arc<Vec<File>>, in_flight: &[usize], way: &Way) -> (usize, f64) {
        let part =
            Arc::new(files.iter().take((files.len() / 4).clamp(1, 2_500).max(in_flight.len())).cloned().collect::<Vec<_>>());
        let mut best = (in_flight[0], 0.0);
        for number in in_flight {
            let rate = self.ends.copy(&part, way, *number).await;
            if rate > best.1 {
                best = (*number, rate);
            }
        }
        best
    }

    /// Single files on an idle machine: from the upload's answer until the object is there.
    async fn singles(&self) -> Value {
        let folder = self.folder("/Single").await;
        let from = json!({"workspaces": {"selector": {}, "path": "/Single/**"}});
        let to = json!({"objectStore": self.store(), "key": "'single/' + file.name"});
        self.upload(&folder, vec![("warm-up".to_owned(), content(0, 8192), 1)]).await;
        self.through("single", from, to, 1).await;
        let bucket = self.server.bucket().join("single");
        let mut times = Vec::new();
        for number in 0..SINGLE {
            let pace = tokio::time::sleep(Duration::from_millis(1000 / SINGLES_A_SECOND));
            self.upload(&folder, vec![(format!("s{number}"), content(number, 8192), 1)]).await;
            let started = Instant::now();
            appears(&bucket.join(format!("s{number}"))).await;
            times.push(started.elapsed().as_secs_f64() * 1000.0);
            pace.await;
        }
        let found = quantiles(times);
        json!({"scenario": "route", "kind": "single", "files": SINGLE, "feedToDeliveredP50Ms": round(found.p50, 1),
            "feedToDeliveredP99Ms": round(found.p99, 1)})
    }
}

async fn appears(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < Duration::from_mins(1), "{} never appears", path.display());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn line(files: usize, bytes: u64, seconds: f64, bare: f64, in_flight: usize, cpu: f64) -> Value {
    let rate = float(files as u64) / seconds;
    let megabytes = float(bytes) / 1e6;
    json!({"seconds": round(seconds, 2), "filesPerSecond": round(rate, 1), "megabytesPerSecond": round(rate * megabytes, 1),
        "bareFilesPerSecond": round(bare, 1), "bareMegabytesPerSecond": round(bare * megabytes, 1), "bareInFlight": in_flight,
        "ratio": round(rate / bare, 2), "cpuMsPerFile": round(cpu * 1000.0 / float(files as u64), 3)})
}
