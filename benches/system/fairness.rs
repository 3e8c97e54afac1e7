//! `fairness`: one namespace's thousands must not make another wait (rule T6).
//!
//! A small namespace changes its specs at a steady pace, first alone, then while every workspace of a large namespace was changed
//! at once and waits for its pass. On a machine that everything shares, the API server and File 360 are slower under load for
//! everybody: what a bare client meets there at the same time is measured beside it.

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
use crate::stage::{Operator, Stage};
use crate::tenant::Tenant;

/// Workspaces of the small namespace.
const SMALL: usize = 50;
/// Time between two of its changes, and between two calls of the bare client.
const PACE: Duration = Duration::from_millis(200);
/// The large namespace is busy while more of its workspaces wait than could be worked on at once.
const BUSY: f64 = 64.0;
/// A change that is not there after this long never comes.
const PATIENCE: Duration = Duration::from_mins(10);
/// The slowest hundredth may take so many times as long as without the other namespace.
const GOAL: f64 = 2.0;

/// Runs the scenario: `size` workspaces in the large namespace, `changes` changes in the small one.
pub async fn run(stage: &Stage, size: usize, changes: usize) -> Value {
    let world = settled::settled(stage, size).await;
    let small = world.field.neighbour(&settled::fresh_name("bench-small")).await;
    tokio::join!(small.create(SMALL), small.all_ready(SMALL));
    small.bystander("bystander").await;
    let watch = Watch::start(&small);
    let alone = phase(stage, &world, &small, &watch, 0..changes).await;
    let load = Load::start(&world, size).await;
    let loaded = phase(stage, &world, &small, &watch, changes..2 * changes).await;
    let depths = load.end().await;
    let passes = world.operator.metric("file360_reconciles_total").await;
    world.operator.caught_up().await;
    let ratio = |pick: fn(&Phase) -> f64| round(pick(&loaded) / pick(&alone), 2);
    let report = json!({
        "scenario": "fairness",
        "size": size,
        "smallSize": SMALL,
        "changes": changes,
        "changesPerSecond": round(1.0 / PACE.as_secs_f64(), 1),
        "alone": alone.report(),
        "underLoad": loaded.report(),
        "queueDepth": {"least": depths.first(), "p50": depths.get(depths.len() / 2), "samples": depths.len()},
        "passes": passes,
        "limit": {"p99": GOAL},
        "ratio": {
            "p50": ratio(|phase| phase.changes.p50),
            "p99": ratio(|phase| phase.changes.p99),
            "barePatchP50": ratio(|phase| phase.patches.p50),
            "barePatchP99": ratio(|phase| phase.patches.p99),
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
    /// A status patch by a bare client.
    patches: Quantiles,
    /// A GET at File 360 by a bare client.
    calls: Quantiles,
}

impl Phase {
    fn report(&self) -> Value {
        let shown = |times: Quantiles| json!({"p50Ms": round(times.p50, 1), "p99Ms": round(times.p99, 1), "maxMs": round(times.most, 1)});
        json!({"change": shown(self.changes), "barePatch": shown(self.patches), "bareCall": shown(self.calls)})
    }
}

async fn phase(stage: &Stage, world: &Settled, small: &Field, watch: &Watch, rounds: std::ops::Range<usize>) -> Phase {
    let bare = Bare::start(stage, small, &world.field.tenant, &world.ids[0]);
    let mut sent = tokio::task::JoinSet::new();
    let mut pace = tokio::time::interval(PACE);
    for round in rounds {
        pace.tick().await;
        let small = small.clone();
        sent.spawn(async move {
            let started = Instant::now();
            let generation = small.change(round % SMALL, round).await;
            (field::name(round % SMALL), generation, started)
        });
    }
    let sent = sent.join_all().await;
    let changes = watch.times(&sent).await;
    let (patches, calls) = bare.end().await;
    Phase { changes: quantiles(changes), patches: quantiles(patches), calls: quantiles(calls) }
}

/// When each generation of each workspace was first seen to be ready.
#[derive(Default)]
struct Seen {
    ready: Mutex<HashMap<(String, i64), Instant>>,
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
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that makes one status patch and one call at the pace of the small namespace, and notes how long each takes.
struct Bare {
    stop: CancellationToken,
    task: JoinHandle<(Vec<f64>, Vec<f64>)>,
}

impl Bare {
    fn start(stage: &Stage, small: &Field, tenant: &Arc<Tenant>, workspace: &str) -> Self {
        let stop = CancellationToken::new();
        let path = format!("{}/status?fieldManager=bare", field::path(&small.namespace, "bystander"));
        let call = format!("/v1/workspaces/{workspace}");
        let (client, tenant, stopped) = (stage.as_operator.clone(), tenant.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut patches, mut calls) = (Vec::new(), Vec::new());
            let mut pace = tokio::time::interval(PACE);
            while stopped.run_until_cancelled(pace.tick()).await.is_some() {
                let started = Instant::now();
                patch_status(&client, &path).await;
                patches.push(millis(started.elapsed()));
                let started = Instant::now();
                tenant.get(&call).await;
                calls.push(millis(started.elapsed()));
            }
            (patches, calls)
        });
        Self { stop, task }
    }

    async fn end(self) -> (Vec<f64>, Vec<f64>) {
        self.stop.cancel();
        self.task.await.expect("the bare client works")
    }
}

async fn patch_status(client: &Client, path: &str) {
    // A patch that changes nothing would not be stored.
    let patch = json!({"status": {"workspaceId": format!("bare-{:016x}", rand::random::<u64>())}});
    let request = Request::patch(path)
        .header("content-type", "application/merge-patch+json")
        .body(patch.to_string().into_bytes())
        .expect("a request");
    client.request_text(request).await.expect("the status is accepted");
}

/// Every workspace of the large namespace is changed, again as soon as few of them wait.
struct Load {
    stop: CancellationToken,
    task: JoinHandle<Vec<u64>>,
}

impl Load {
    /// Returns once more of them wait than can be worked on at once.
    async fn start(world: &Settled, size: usize) -> Self {
        let stop = CancellationToken::new();
        let (field, depth, stopped) = (world.field.clone(), world.operator.gauge("file360_queue_depth"), stop.clone());
        let task = tokio::spawn(async move {
            let mut depths = Vec::new();
            let mut round = 0;
            while !stopped.is_cancelled() {
                round += 1;
                let changing = tokio::spawn({
                    let field = field.clone();
                    async move { field.change_all(size, round).await }
                });
                // The next round begins before the line is empty.
                loop {
                    let now = depth.read().await;
                    if !depths.is_empty() || now >= BUSY {
                        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of objects")]
                        depths.push(now as u64);
                    }
                    if stopped.is_cancelled() || (changing.is_finished() && now < 2.0 * BUSY) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                changing.await.expect("the changes are accepted");
            }
            depths.sort_unstable();
            depths
        });
        busy(&world.operator).await;
        Self { stop, task }
    }

    /// How many waited, by size, at each look.
    async fn end(self) -> Vec<u64> {
        self.stop.cancel();
        self.task.await.expect("the load works")
    }
}

async fn busy(operator: &Operator) {
    let deadline = Instant::now() + PATIENCE;
    while operator.metric("file360_queue_depth").await < BUSY {
        assert!(Instant::now() < deadline, "the large namespace never has to wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
