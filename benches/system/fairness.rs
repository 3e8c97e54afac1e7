//! `fairness`: one namespace's thousands must not make another wait (rule T6).
//!
//! A small namespace changes its specs at a steady pace, first alone, then while every workspace of a large namespace waits for its
//! pass: their specs were changed while no operator ran. On a machine that everything shares, the API server and File 360 are
//! slower under load for everybody: what a bare client meets there at the same time is measured beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use http::Request;
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::field::{self, Field};
use crate::measure::{Quantiles, quantiles, round};
use crate::settled::{self, Settled};
use crate::stage::{Gauge, Operator, Stage};
use crate::tenant::Tenant;

/// Workspaces of the small namespace.
const SMALL: usize = 50;
/// Time between two of its changes, and between two calls of the bare client.
const PACE: Duration = Duration::from_millis(100);
/// The large namespace is busy while more of its workspaces wait than could be worked on at once.
const BUSY: f64 = 64.0;
/// A change that is not there after this long never comes.
const PATIENCE: Duration = Duration::from_mins(10);
/// The slowest hundredth may take so many times as long as without the other namespace.
const GOAL: f64 = 2.0;

/// Runs the scenario: `size` workspaces in the large namespace, up to `changes` changes in the small one, twice.
pub async fn run(stage: &Stage, size: usize, changes: usize) -> Value {
    let mut world = settled::settled(stage, size).await;
    let small = world.field.neighbour(&settled::fresh_name("bench-small")).await;
    tokio::join!(small.create(SMALL), small.all_ready(SMALL));
    small.bystander("bystander").await;
    let watch = Watch::start(&small);
    let alone = phase(stage, &world, &small, &watch, 0..changes, None).await;
    world.operator.stop();
    world.field.change_all(size).await;
    world.operator = stage.operator();
    busy(&world.operator).await;
    let depth = world.operator.gauge("file360_queue_depth");
    let loaded = phase(stage, &world, &small, &watch, changes..2 * changes, Some(&depth)).await;
    world.operator.caught_up().await;
    let ratio = |pick: fn(&Phase) -> f64| round(pick(&loaded) / pick(&alone), 2);
    let report = json!({
        "scenario": "fairness",
        "size": size,
        "smallSize": SMALL,
        "changesPerSecond": round(1.0 / PACE.as_secs_f64(), 1),
        "alone": alone.report(),
        "underLoad": loaded.report(),
        "limit": {"p99": GOAL},
        "ratio": {
            "p50": ratio(|phase| phase.changes.p50),
            "p99": ratio(|phase| phase.changes.p99),
            "barePatchP50": ratio(|phase| phase.patches.p50),
            "barePatchP99": ratio(|phase| phase.patches.p99),
            "barePatchShownP50": ratio(|phase| phase.shown.p50),
            "barePatchShownP99": ratio(|phase| phase.shown.p99),
            "bareCallP50": ratio(|phase| phase.calls.p50),
            "bareCallP99": ratio(|phase| phase.calls.p99),
        },
    });
    world.operator.stop();
    small.end().await;
    world.field.end().await;
    report
}

/// What was measured while the small namespace made its changes; milliseconds.
struct Phase {
    /// From sending a change to its being ready, as a watch sees it.
    changes: Quantiles,
    /// A status patch by a bare client, until it is answered and until a watch shows it. A change needs two such writes.
    patches: Quantiles,
    shown: Quantiles,
    /// A GET at File 360 by a bare client.
    calls: Quantiles,
    /// How many changes there were, and how many of the large namespace waited at the last one.
    count: usize,
    waiting: f64,
}

impl Phase {
    fn report(&self) -> Value {
        let report = |times: Quantiles| json!({"p50Ms": round(times.p50, 1), "p99Ms": round(times.p99, 1), "maxMs": round(times.most, 1)});
        json!({"change": report(self.changes), "barePatch": report(self.patches), "barePatchShown": report(self.shown),
            "bareCall": report(self.calls), "changes": self.count, "waitingAtTheEnd": self.waiting})
    }
}

/// One change for each of `rounds`; with `depth`, only while the large namespace is busy.
async fn phase(
    stage: &Stage,
    world: &Settled,
    small: &Field,
    watch: &Watch,
    rounds: std::ops::Range<usize>,
    depth: Option<&Gauge>,
) -> Phase {
    let bare = Bare::start(stage, small, &world.field.tenant, &world.ids[0]);
    let mut sent = tokio::task::JoinSet::new();
    let mut pace = tokio::time::interval(PACE);
    let mut waiting = 0.0;
    for round in rounds {
        pace.tick().await;
        if let Some(depth) = depth {
            let now = depth.read().await;
            if now < BUSY {
                break;
            }
            waiting = now;
        }
        let small = small.clone();
        sent.spawn(async move {
            let started = Instant::now();
            let generation = small.change(round % SMALL, round).await;
            (field::name(round % SMALL), generation, started)
        });
    }
    let sent = sent.join_all().await;
    let changes = watch.times(&sent).await;
    let (count, bare) = (sent.len(), bare.end().await);
    let shown = watch.shown(&bare.marks);
    let [changes, patches, shown, calls] = [changes, bare.patches, shown, bare.calls].map(quantiles);
    Phase { changes, patches, shown, calls, count, waiting }
}

/// When each generation of each workspace was first seen to be ready.
#[derive(Default)]
struct Seen {
    ready: Mutex<HashMap<(String, i64), Instant>>,
    /// When each status of the bare client was seen.
    marks: Mutex<HashMap<String, Instant>>,
    news: Notify,
}

/// Follows the small namespace.
struct Watch {
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(small: &Field) -> Self {
        let seen = Arc::new(Seen::default());
        let (versions, noted) = (small.versions(), seen.clone());
        let task = tokio::spawn(async move {
            let mut versions = std::pin::pin!(versions);
            while let Some(object) = versions.next().await {
                if let Some(mark) = object.workspace_id().filter(|id| id.starts_with("bare-")) {
                    noted.marks.lock().entry(mark.to_owned()).or_insert_with(Instant::now);
                }
                if let Some(generation) = object.ready_for() {
                    let key = (object.name().to_owned(), generation);
                    noted.ready.lock().entry(key).or_insert_with(Instant::now);
                    noted.news.notify_one();
                }
            }
        });
        Self { seen, task }
    }

    /// Milliseconds from each start to the moment when that generation, or a later one, was ready.
    async fn times(&self, sent: &[(String, i64, Instant)]) -> Vec<f64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let times: Option<Vec<f64>> = sent.iter().map(|change| self.time(change)).collect();
            if let Some(times) = times {
                return times;
            }
            assert!(Instant::now() < deadline, "a change never became ready");
            let _ = tokio::time::timeout(Duration::from_millis(100), self.seen.news.notified()).await;
        }
    }

    fn time(&self, (name, generation, started): &(String, i64, Instant)) -> Option<f64> {
        let ready = self.seen.ready.lock();
        let moments = ready.iter().filter(|((ready, at), _)| ready == name && at >= generation).map(|(_, moment)| moment);
        moments.min().map(|moment| millis(moment.duration_since(*started)))
    }

    /// Milliseconds from sending each status of the bare client to its being seen.
    fn shown(&self, marks: &[(String, Instant)]) -> Vec<f64> {
        let seen = self.seen.marks.lock();
        marks.iter().filter_map(|(mark, started)| Some(millis(seen.get(mark)?.duration_since(*started)))).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that makes one status patch and one call at the pace of the small namespace, and notes how long each takes.
struct Bare {
    stop: CancellationToken,
    task: JoinHandle<Taken>,
}

/// What the bare client did: milliseconds of its patches and calls, and when it sent which status.
#[derive(Default)]
struct Taken {
    patches: Vec<f64>,
    calls: Vec<f64>,
    marks: Vec<(String, Instant)>,
}

impl Bare {
    fn start(stage: &Stage, small: &Field, tenant: &Arc<Tenant>, workspace: &str) -> Self {
        let stop = CancellationToken::new();
        let path = format!("{}/status?fieldManager=bare", field::path(&small.namespace, "bystander"));
        let call = format!("/v1/workspaces/{workspace}");
        let (client, tenant, stopped) = (stage.as_operator.clone(), tenant.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut taken = Taken::default();
            let mut pace = tokio::time::interval(PACE);
            while stopped.run_until_cancelled(pace.tick()).await.is_some() {
                let started = Instant::now();
                taken.marks.push((patch_status(&client, &path).await, started));
                taken.patches.push(millis(started.elapsed()));
                let started = Instant::now();
                tenant.get(&call).await;
                taken.calls.push(millis(started.elapsed()));
            }
            taken
        });
        Self { stop, task }
    }

    async fn end(self) -> Taken {
        self.stop.cancel();
        self.task.await.expect("the bare client works")
    }
}

/// Writes another status; what it says.
async fn patch_status(client: &Client, path: &str) -> String {
    // A patch that changes nothing would not be stored.
    let mark = format!("bare-{:016x}", rand::random::<u64>());
    let patch = json!({"status": {"workspaceId": mark}});
    let request = Request::patch(path)
        .header("content-type", "application/merge-patch+json")
        .body(patch.to_string().into_bytes())
        .expect("a request");
    client.request_text(request).await.expect("the status is accepted");
    mark
}

/// Waits until the listing is complete and the large namespace waits.
async fn busy(operator: &Operator) {
    let deadline = Instant::now() + PATIENCE;
    while !operator.is_ready().await || operator.metric("file360_queue_depth").await < BUSY {
        assert!(Instant::now() < deadline, "the large namespace never has to wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
