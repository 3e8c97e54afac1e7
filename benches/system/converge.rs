//! `converge`: from declared to ready, against the bare loader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::field::{self, Field};
use crate::loader::{self, IN_FLIGHT, Loader, Sweep, Work};
use crate::measure::{CpuClock, cpu_seconds, float, peak_rss_bytes, round};
use crate::settled;
use crate::stage::{Operator, Stage};
use crate::tenant::{Tenant, difference};

/// A run in which the embedded server alone is slower than this is void: it would make the ratio shine.
const CAPACITY: f64 = 5_000.0;
/// The number in flight is searched with at most so many workspaces.
const SAMPLE: usize = 1_000;

/// The API server and etcd are watched so long while nobody asks them anything.
const BASELINE: Duration = Duration::from_secs(5);

/// What the bare loader reached.
#[derive(Default)]
struct Limit {
    everything: Sweep,
    status_only: Sweep,
    creates: f64,
    /// Processor time of everybody for one workspace, and of each program in all, in the run that needed least.
    cpu: Option<(f64, Value)>,
    /// The least for one workspace by the number in flight: with few in flight each costs more.
    cpu_ms: BTreeMap<usize, f64>,
}

/// Runs the scenario. The report says `void` when it does not count.
pub async fn run(stage: &mut Stage, size: usize, rounds: usize) -> Value {
    let alone = Arc::new(Tenant::start(&stage.program, stage.folder.path()).await);
    let capacity = loader::capacity(&alone).await;
    drop(alone);
    let status = Arc::new(a_status(stage).await);
    stage.baseline = baseline(stage).await;
    let mut limit = Limit::default();
    for in_flight in IN_FLIGHT {
        load(stage, size.min(SAMPLE), in_flight, &status, &mut limit).await;
    }
    let (in_flight, sampled) = limit.everything.best();
    let sweep = limit.everything.rates.clone();
    // A large tenant may be slower than a small one: only the size that the operator meets counts.
    (limit.everything, limit.cpu) = (Sweep::default(), None);
    let mut runs = Vec::new();
    for _ in 0..rounds {
        load(stage, size, in_flight, &status, &mut limit).await;
        runs.push(declared_first(stage, size, &mut limit).await);
    }
    load(stage, size, in_flight, &status, &mut limit).await;
    let live = declared_while_running(stage, size).await;
    let rates: Vec<f64> = runs.iter().map(rate).collect();
    let mut report = runs.into_iter().max_by(|a, b| rate(a).total_cmp(&rate(b))).expect("a round");
    let best = limit.everything.best().1;
    let serial = 1.0 / (1.0 / best + 1.0 / limit.creates);
    let (cpu_ms, cpu_seconds) = limit.cpu.take().unwrap_or_default();
    report["limit"] = json!({
        "smallCallsPerSecond": round(capacity, 0),
        "loaderInFlight": in_flight,
        "loaderRate": best,
        "loaderSampleRate": sampled,
        "loaderRates": sweep,
        "loaderCpuMsPerWorkspace": round(cpu_ms, 3),
        "loaderCpuSeconds": cpu_seconds,
        "loaderCpuMsByInFlight": limit.cpu_ms,
        "baselineCores": round(stage.baseline, 3),
        "statusPatchRates": limit.status_only.rates,
        "createRate": round(limit.creates, 1),
        "createThenLoadRate": round(serial, 1),
    });
    report["rates"] = json!(rates);
    report["ratio"] = json!(round(rate(&report) / best, 3));
    report["cpuRatio"] = json!(round(cpu_ms / report["allCpuMsPerWorkspace"].as_f64().unwrap_or_default(), 3));
    report["liveRatio"] = json!(round(rate(&live) / serial, 3));
    report["live"] = live;
    if capacity < CAPACITY {
        report["void"] = json!(format!("the embedded server alone answered {capacity:.0} of {CAPACITY:.0} small calls/s"));
    }
    report
}

fn rate(report: &Value) -> f64 {
    report["rate"].as_f64().unwrap_or_default()
}

/// Cores that the API server and etcd use while nobody asks them anything.
async fn baseline(stage: &Stage) -> f64 {
    let clock = CpuClock::start(stage.pids.clone());
    tokio::time::sleep(BASELINE).await;
    clock.read().values().sum::<f64>() / BASELINE.as_secs_f64()
}

/// A status as the operator writes it, for the loader to write.
async fn a_status(stage: &Stage) -> Value {
    let field = Field::new(stage, "bench-template").await;
    field.connect().await;
    let operator = stage.operator();
    field.create(1).await;
    field.all_ready(1).await;
    let status = field.status(&field::name(0)).await;
    operator.stop();
    field.end().await;
    status
}

/// One run of the bare loader on an empty tenant and fresh objects, then the status writes alone.
async fn load(stage: &Stage, count: usize, in_flight: usize, status: &Arc<Value>, limit: &mut Limit) {
    let field = Field::new(stage, &settled::fresh_name("bench-load")).await;
    let (objects, took) = field.create(count).await;
    limit.creates = limit.creates.max(float(count as u64) / took.as_secs_f64());
    let objects = Arc::new(objects);
    let loader = Loader::new(stage.as_operator.clone(), &field, status.clone()).await;
    let clock = clock(stage, &field);
    let started = Instant::now();
    // The same watch sees the end that will see the operator's: it costs the API server something.
    tokio::join!(loader.run(&objects, in_flight, Work::Everything), field.all_ready(count));
    limit.everything.note(in_flight, float(count as u64) / started.elapsed().as_secs_f64());
    let cpu = (clock.ms_each(count, stage.baseline), json!(clock.read()));
    let least = limit.cpu_ms.entry(in_flight).or_insert(f64::MAX);
    *least = least.min(round(cpu.0, 3));
    limit.cpu = limit.cpu.take().filter(|least| least.0 < cpu.0).or(Some(cpu));
    limit.status_only.note(in_flight, loader.run(&objects, in_flight, Work::StatusOnly).await);
    field.end().await;
}

/// Everything is declared, then the operator starts.
async fn declared_first(stage: &mut Stage, size: usize, limit: &mut Limit) -> Value {
    let field = Field::new(stage, &settled::fresh_name("bench-converge")).await;
    field.connect().await;
    let (_, took) = field.create(size).await;
    limit.creates = limit.creates.max(float(size as u64) / took.as_secs_f64());
    stage.audit.since_last();
    let calls = field.tenant.calls().await;
    let clock = clock(stage, &field);
    let operator = stage.operator();
    field.all_ready(size).await;
    let seconds = operator.started.elapsed();
    let (others, others_each) = (clock.read(), clock.ms_each(size, stage.baseline));
    let mut report = account(stage, &operator, size, seconds, 0.0).await;
    let own = report["cpuMsPerWorkspace"].as_f64().unwrap_or_default();
    report["allCpuMsPerWorkspace"] = json!(round(others_each + own, 3));
    report["othersCpuSeconds"] = json!(others);
    add_calls(&mut report, &difference(&calls, &field.tenant.calls().await), size);
    report["scenario"] = json!("converge");
    report["size"] = json!(size);
    operator.stop();
    field.end().await;
    report
}

/// The operator runs, then everything is declared, 32 at once.
async fn declared_while_running(stage: &mut Stage, size: usize) -> Value {
    let field = Field::new(stage, &settled::fresh_name("bench-live")).await;
    field.connect().await;
    let operator = stage.operator();
    operator.leads().await;
    operator.caught_up().await;
    stage.audit.since_last();
    let calls = field.tenant.calls().await;
    let (clock, cpu) = (clock(stage, &field), cpu_seconds(operator.pid()));
    let started = Instant::now();
    let ((_, created), _) = tokio::join!(field.create(size), field.all_ready(size));
    let (seconds, others) = (started.elapsed(), clock.read());
    let mut report = account(stage, &operator, size, seconds, cpu).await;
    report["createSeconds"] = json!(round(created.as_secs_f64(), 3));
    report["othersCpuSeconds"] = json!(others);
    add_calls(&mut report, &difference(&calls, &field.tenant.calls().await), size);
    operator.stop();
    field.end().await;
    report
}

fn clock(stage: &Stage, field: &Field) -> CpuClock {
    let mut pids = stage.pids.clone();
    pids.push(("file360", field.tenant.pid()));
    pids.push(("benchmark", std::process::id()));
    CpuClock::start(pids)
}

/// Time, processor, memory and API writes of the operator; `cpu_before` is what it had used when the clock started.
async fn account(stage: &mut Stage, operator: &Operator, size: usize, took: Duration, cpu_before: f64) -> Value {
    let cpu = cpu_seconds(operator.pid()) - cpu_before;
    let peak = peak_rss_bytes(operator.pid());
    // The watch may tell of the last write before the audit log does.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let requests = stage.audit.since_last();
    let writes = requests.writes_besides_leases();
    let count = float(size as u64);
    json!({
        "seconds": round(took.as_secs_f64(), 3),
        "rate": round(count / took.as_secs_f64(), 1),
        "peakRssBytes": peak,
        "cpuSeconds": round(cpu, 2),
        "cpuMsPerWorkspace": round(cpu * 1000.0 / count, 3),
        "apiWrites": writes,
        "apiWritesPerWorkspace": round(float(writes) / count, 3),
        "apiWritesByKind": requests.writes,
        "apiReadsByKind": requests.reads,
    })
}

fn add_calls(report: &mut Value, calls: &BTreeMap<String, u64>, size: usize) {
    let total: u64 = calls.values().sum();
    report["remoteCalls"] = json!(total);
    report["remoteCallsPerWorkspace"] = json!(round(float(total) / float(size as u64), 3));
    report["remoteCallsByOperation"] = json!(calls);
}
