//! `restart`: what a killed operator costs when it comes back.

use std::time::{Duration, Instant};

use http::Request;
use serde_json::{Value, json};

use crate::drift::Watch;
use crate::field;
use crate::measure::{cpu_seconds, float, peak_rss_bytes, round, rss_bytes};
use crate::settled::Settled;
use crate::stage::Stage;
use crate::tenant::{Tenant, difference};

/// The allocator has given back what the listings took after this long.
const AT_REST: Duration = Duration::from_secs(30);

/// Runs the scenario on a converged world; the operator is another process afterwards.
pub async fn run(stage: &mut Stage, mut world: Settled) -> (Settled, Value) {
    let size = world.ids.len();
    let bare = bare_listing(stage, &world).await;
    let Settled { operator, field, ids, empty_rss_bytes } = world;
    operator.kill();
    stage.audit.since_last();
    let calls = field.tenant.calls().await;
    let operator = stage.operator();
    operator.leads().await;
    let (leading, led_after) = (Instant::now(), operator.started.elapsed());
    operator.caught_up().await;
    let seconds = leading.elapsed().as_secs_f64();
    let calls = difference(&calls, &field.tenant.calls().await);
    let requests = stage.audit.since_last();
    let (cpu, rss) = (cpu_seconds(operator.pid()), rss_bytes(operator.pid()));
    let proof = Watch::start(&field.tenant).await.correction(&field.tenant, &ids[size / 2], 0).await;
    tokio::time::sleep(AT_REST).await;
    let total: u64 = calls.values().sum();
    let allowed = size as u64 / 1000 + 20;
    world = Settled { field, ids, operator, empty_rss_bytes };
    let report = json!({
        "scenario": "restart",
        "size": size,
        "seconds": round(seconds, 3),
        "rate": round(float(size as u64) / seconds, 0),
        "leaseSeconds": round(led_after.as_secs_f64(), 3),
        "firstCorrectionMs": round(proof, 1),
        "peakRssBytes": peak_rss_bytes(world.operator.pid()),
        "rssBytes": rss,
        "rssAtRestBytes": rss_bytes(world.operator.pid()),
        "cpuSeconds": round(cpu, 2),
        "cpuMsPerWorkspace": round(cpu * 1000.0 / float(size as u64), 4),
        "apiWrites": requests.writes_besides_leases(),
        "apiWritesByKind": requests.writes,
        "apiReadsByKind": requests.reads,
        "remoteCalls": total,
        "remoteCallsByOperation": calls,
        "limit": {"listingSeconds": round(bare, 3), "apiWrites": 0, "remoteCalls": allowed},
        "ratio": {"seconds": round(bare / seconds, 3), "remoteCalls": round(float(total) / float(allowed), 3)},
    });
    (world, report)
}

/// Seconds that the two listings take by themselves: all objects by pages of 500, all workspaces by pages of 1,000.
async fn bare_listing(stage: &Stage, world: &Settled) -> f64 {
    let started = Instant::now();
    let mut next = String::new();
    loop {
        let path = format!("{}?limit=500&continue={next}", field::path(&world.field.namespace, ""));
        let request = Request::get(path).body(Vec::new()).expect("a request");
        let page = stage.as_operator.request_text(request).await.expect("a page");
        let page: Value = serde_json::from_str(&page).expect("a page");
        match page["metadata"]["continue"].as_str().filter(|next| !next.is_empty()) {
            Some(more) => more.clone_into(&mut next),
            None => break,
        }
    }
    pages_of_workspaces(&world.field.tenant).await;
    started.elapsed().as_secs_f64()
}

async fn pages_of_workspaces(tenant: &Tenant) {
    let mut cursor = String::new();
    loop {
        let page = tenant.get(&format!("/v1/workspaces?limit=1000{cursor}")).await;
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return,
        }
    }
}
