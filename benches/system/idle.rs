//! `idle`: what a converged system costs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measure::{cpu_seconds, float, peak_rss_bytes, round, rss_bytes};
use crate::settled::Settled;
use crate::stage::Stage;
use crate::tenant::difference;

/// Memory that an operator may need at rest: so much, and so much for each workspace.
const RSS_BASE: u64 = 30 * 1024 * 1024;
const RSS_EACH: u64 = 5 * 1024;
/// Part of one core.
const CPU: f64 = 0.01;
/// Calls that a silent system makes: the long poll and the renewal of its token.
const SILENT: [&str; 2] = ["listChanges", "issueToken"];

/// Runs the scenario on a converged world.
pub async fn run(stage: &mut Stage, world: &Settled, duration: Duration) -> Value {
    let (size, pid) = (world.ids.len(), world.operator.pid());
    stage.audit.since_last();
    let (calls, cpu, started) = (world.field.tenant.calls().await, cpu_seconds(pid), Instant::now());
    let passes = world.operator.metric("file360_reconciles_total").await;
    tokio::time::sleep(duration).await;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds(pid) - cpu;
    let mut calls = difference(&calls, &world.field.tenant.calls().await);
    // The benchmark's own token may have been renewed by the last count.
    let total: u64 = calls.values().sum();
    let by_operation = json!(calls);
    calls.retain(|operation, _| !SILENT.contains(&operation.as_str()));
    let requests = stage.audit.since_last();
    let rss = rss_bytes(pid);
    let allowed = RSS_BASE + RSS_EACH * size as u64;
    json!({
        "scenario": "idle",
        "size": size,
        "seconds": round(seconds, 1),
        "rssBytes": rss,
        "emptyRssBytes": world.empty_rss_bytes,
        "peakRssBytes": peak_rss_bytes(pid),
        "cpuSeconds": round(cpu, 2),
        "cpuFraction": round(cpu / seconds, 5),
        "passes": world.operator.metric("file360_reconciles_total").await - passes,
        "apiWrites": requests.writes_besides_leases(),
        "apiWritesByKind": requests.writes,
        "apiReadsByKind": requests.reads,
        "remoteCalls": total,
        "remoteCallsByOperation": by_operation,
        "remoteCallsBesidesPollAndToken": calls.values().sum::<u64>(),
        "limit": {"apiWrites": 0, "remoteCallsBesidesPollAndToken": 0, "cpuFraction": CPU, "rssBytes": allowed},
        "ratio": {"cpu": round(cpu / seconds / CPU, 3), "rss": round(float(rss) / float(allowed), 3)},
    })
}
