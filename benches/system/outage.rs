//! `outage`: File 360 is away for long, everything that depends on it says so, and comes back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measure::{float, round};
use crate::settled;
use crate::stage::Stage;
use crate::tenant::difference;

/// An outage that is longer is written to the workspaces.
const GRACE: &str = "5s";
/// Status writes a second about an outage.
const GOAL: u64 = 20;
/// The Connection's own writes and Events about the outage, which come besides.
const CONNECTION: u64 = 4;
/// The audit log tells of a write after the watch does; and whatever else the operator wants to write comes within this time.
const QUIET: Duration = Duration::from_secs(5);

/// Runs the scenario with `size` workspaces.
pub async fn run(stage: &mut Stage, size: usize) -> Value {
    let world = settled::settled_with(stage, size, &["--outage-grace", GRACE]).await;
    let tenant = world.field.tenant.clone();
    stage.audit.since_last();
    tenant.kill();
    let away = Instant::now();
    world.field.all_unknown(size).await;
    let marked = away.elapsed();
    tokio::time::sleep(QUIET).await;
    let during = stage.audit.since_last();
    tenant.restart().await;
    let (back, calls) = (Instant::now(), tenant.calls().await);
    let recovered = world.field.all_ready(size).await.len();
    let ready = back.elapsed();
    tokio::time::sleep(QUIET).await;
    let after = stage.audit.since_last();
    let calls = difference(&calls, &tenant.calls().await);
    let total: u64 = calls.values().sum();
    let (most, most_after) = (during.most_writes_in_a_second(), after.most_writes_in_a_second());
    let report = json!({
        "scenario": "outage",
        "size": size,
        "grace": GRACE,
        "seconds": round((marked + ready).as_secs_f64(), 1),
        "markedAfterSeconds": round(marked.as_secs_f64(), 1),
        "recoveredAfterSeconds": round(ready.as_secs_f64(), 1),
        "recovered": recovered,
        "mostWritesInASecond": most,
        "mostWritesInASecondAfter": most_after,
        "apiWrites": during.writes_besides_leases(),
        "apiWritesByKind": during.writes,
        "apiWritesAfter": after.writes_besides_leases(),
        "apiWritesAfterByKind": after.writes,
        "remoteCallsAfter": total,
        "remoteCallsAfterByOperation": calls,
        "limit": {"writesInASecond": GOAL, "connectionWrites": CONNECTION, "apiWritesAfter": size as u64 + CONNECTION},
        "ratio": {
            "writesInASecond": round(float(most) / float(GOAL + CONNECTION), 2),
            "writesInASecondAfter": round(float(most_after) / float(GOAL + CONNECTION), 2),
        },
    });
    world.operator.stop();
    world.field.end().await;
    report
}
