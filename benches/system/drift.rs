//! `drift`: from a change that somebody makes in File 360 to its correction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::field::MEMBERS;
use crate::measure::{cpu_seconds, float, peak_rss_bytes, percentile, round};
use crate::settled::Settled;
use crate::stage::Stage;
use crate::tenant::{PRINCIPALS, Tenant, difference};

/// Changes a second. They come from outside at their own pace, whether or not earlier ones are put right.
const PER_SECOND: u32 = 10;
/// Goal for the slowest hundredth.
const GOAL_MS: f64 = 1_000.0;
/// A correction that is not there after this long never comes.
const PATIENCE: Duration = Duration::from_mins(1);

/// Follows the change feed as a client of its own, so that corrections are seen without asking for them.
pub struct Watch {
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

/// When the change and the correction of a workspace were seen.
#[derive(Default)]
struct Times {
    changed: Option<Instant>,
    corrected: Option<Instant>,
}

#[derive(Default)]
struct Seen {
    times: Mutex<HashMap<String, Times>>,
    changed: Notify,
    /// Pages asked for.
    pages: AtomicU64,
}

impl Watch {
    /// Starts at the feed's end.
    pub async fn start(tenant: &Arc<Tenant>) -> Self {
        let seen = Arc::new(Seen::default());
        let page = tenant.get("/v1/changes?cursor=now&wait=0").await;
        let cursor = page["nextCursor"].as_str().expect("a cursor").to_owned();
        let task = tokio::spawn(follow(tenant.clone(), seen.clone(), cursor));
        Self { seen, task }
    }

    /// Waits until `count` workspaces are put right; returns milliseconds from each start to the change being seen and to the
    /// correction being seen.
    async fn corrections(&self, starts: &HashMap<String, Instant>, count: usize) -> (Vec<f64>, Vec<f64>) {
        let deadline = Instant::now() + PATIENCE;
        while self.seen.times.lock().values().filter(|times| times.corrected.is_some()).count() < count {
            assert!(Instant::now() < deadline, "a change was never put right");
            let _ = tokio::time::timeout(Duration::from_millis(100), self.seen.changed.notified()).await;
        }
        let times = self.seen.times.lock();
        let since = |pick: fn(&Times) -> Option<Instant>| {
            let taken = starts.iter().filter_map(|(id, start)| Some(pick(times.get(id)?)?.duration_since(*start)));
            let mut taken: Vec<f64> = taken.map(|taken| taken.as_secs_f64() * 1000.0).collect();
            taken.sort_by(f64::total_cmp);
            taken
        };
        (since(|times| times.changed), since(|times| times.corrected))
    }

    /// Makes one change and waits for its correction; milliseconds.
    pub async fn correction(&self, tenant: &Tenant, workspace: &str, number: usize) -> f64 {
        let principals = principals(tenant).await;
        let starts = HashMap::from([(workspace.to_owned(), Instant::now())]);
        meddle(tenant, workspace, number, &principals).await;
        self.corrections(&starts, 1).await.1[0]
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(tenant: Arc<Tenant>, seen: Arc<Seen>, mut cursor: String) {
    loop {
        seen.pages.fetch_add(1, Ordering::Relaxed);
        let page = tenant.get(&format!("/v1/changes?cursor={cursor}&wait=25&limit=1000")).await;
        page["nextCursor"].as_str().expect("a cursor").clone_into(&mut cursor);
        let now = Instant::now();
        let mut times = seen.times.lock();
        for entry in page["items"].as_array().into_iter().flatten() {
            let Some(workspace) = entry["workspaceId"].as_str() else { continue };
            let times = times.entry(workspace.to_owned()).or_default();
            // Only the operator says what caused a call.
            let time = if entry["causedBy"].is_string() { &mut times.corrected } else { &mut times.changed };
            time.get_or_insert(now);
        }
        drop(times);
        seen.changed.notify_one();
    }
}

/// Ids of a stranger and of a declared member.
async fn principals(tenant: &Tenant) -> [String; 2] {
    let (kind, name, _) = MEMBERS[1];
    [tenant.principal("User", &format!("user{}", PRINCIPALS - 1)).await, tenant.principal(kind, name).await]
}

/// Lets a stranger in, or changes the role of a member, in turn.
async fn meddle(tenant: &Tenant, workspace: &str, number: usize, principals: &[String; 2]) {
    let principal = &principals[number % 2];
    let path = format!("/v1/workspaces/{workspace}/members/{principal}?path=%2F");
    tenant.call("PUT", &path, &[], Some(&json!({"role": "Viewer"}))).await;
}

/// Runs the scenario: one change in each of `changes` workspaces.
pub async fn run(stage: &mut Stage, world: &Settled, changes: usize) -> Value {
    let tenant = &world.field.tenant;
    let ids: Vec<&String> = world.ids.iter().step_by((world.ids.len() / changes).max(1)).take(changes).collect();
    let principals = principals(tenant).await;
    let watch = Watch::start(tenant).await;
    stage.audit.since_last();
    let (calls, cpu) = (tenant.calls().await, cpu_seconds(world.operator.pid()));
    let started = Instant::now();
    let mut starts = HashMap::new();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    for (number, id) in ids.iter().enumerate() {
        pace.tick().await;
        starts.insert((*id).clone(), Instant::now());
        meddle(tenant, id, number, &principals).await;
    }
    let (seen, corrected) = watch.corrections(&starts, ids.len()).await;
    let seconds = started.elapsed().as_secs_f64();
    // The status write follows the correction.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut calls = difference(&calls, &tenant.calls().await);
    // What the benchmark did itself: its changes, and following the feed.
    let own = [("setMember", ids.len() as u64), ("listChanges", watch.seen.pages.load(Ordering::Relaxed))];
    for (operation, count) in own {
        *calls.entry(operation.to_owned()).or_default() -= count;
    }
    let requests = stage.audit.since_last();
    let cpu = cpu_seconds(world.operator.pid()) - cpu;
    report(world, &calls, &requests, seconds, cpu, [&seen, &corrected])
}

fn report(
    world: &Settled,
    calls: &std::collections::BTreeMap<String, u64>,
    requests: &crate::measure::Requests,
    seconds: f64,
    cpu: f64,
    [seen, corrected]: [&Vec<f64>; 2],
) -> Value {
    let count = float(corrected.len() as u64);
    let total: u64 = calls.values().sum();
    let writes = requests.writes_besides_leases();
    let at = |sorted: &Vec<f64>, percent| round(percentile(sorted, percent), 1);
    json!({
        "scenario": "drift",
        "size": world.ids.len(),
        "changes": corrected.len(),
        "changesPerSecond": PER_SECOND,
        "seconds": round(seconds, 2),
        "p50Ms": at(corrected, 50),
        "p99Ms": at(corrected, 99),
        "maxMs": at(corrected, 100),
        "cpuSeconds": round(cpu, 2),
        "cpuMsPerChange": round(cpu * 1000.0 / count, 2),
        "peakRssBytes": peak_rss_bytes(world.operator.pid()),
        "apiWrites": writes,
        "apiWritesPerChange": round(float(writes) / count, 2),
        "apiWritesByKind": requests.writes,
        "remoteCalls": total,
        "remoteCallsPerChange": round(float(total) / count, 2),
        "remoteCallsByOperation": calls,
        "limit": {"goalP99Ms": GOAL_MS, "feedP50Ms": at(seen, 50), "feedP99Ms": at(seen, 99)},
        "ratio": {"p99ToGoal": round(percentile(corrected, 99) / GOAL_MS, 3)},
    })
}
