//! `worker`: does the work of FileRoutes that a leader puts on a queue.

use std::sync::Arc;

use clap::Args;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::process::{self, ProcessArgs};
use super::queue::{LeadArgs, QueueArgs};
use crate::controllers::context::{Context, Parts, Tuning};
use crate::controllers::file_route::worker::Bench;
use crate::queue::worker::Worker;
use crate::telemetry::http::{self, Readiness};
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;

/// Arguments of `worker`. Each can be given as a flag or in the environment.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    queue: QueueArgs,
    /// Files that this process works on at once.
    #[arg(long, env = "FILE360_WORKER_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    worker_concurrency: u16,
}

/// Works until a termination signal.
pub async fn run(args: WorkerArgs) -> Result<(), String> {
    logs::start(&args.process.log, args.process.log_format)?;
    args.process.check()?;
    if !args.queue.is_set() {
        return Err("--queue is missing: a worker takes its work from there".into());
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outbound = args.process.outbound()?;
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    readiness.waits("queue", "the connection");
    let listener = http::bind(args.process.metrics_address).await?;
    let stop_http = CancellationToken::new();
    let health = tokio::spawn(http::serve(listener, metrics.clone(), readiness.clone(), stop_http.clone()));

    let config = kube::Config::infer().await.map_err(|error| format!("no Kubernetes configuration: {error}"))?;
    let client =
        Client::try_from(config).map_err(|error| format!("the Kubernetes configuration cannot be used: {error}"))?;
    let cluster_id = args.process.own_cluster_id(&client).await?;
    let settings = args
        .queue
        .settings(&LeadArgs::default(), &outbound.trust, &cluster_id, args.process.namespace.as_deref())?
        .ok_or("--queue is missing")?;
    let identity = process::identity();
    let stop = CancellationToken::new();
    let ctx = Context::new(Parts {
        client,
        cluster_id,
        former_cluster_ids: Vec::new(),
        instance: identity.clone(),
        namespace: args.process.namespace.clone(),
        guard: outbound.guard,
        extra_ca: outbound.extra_ca,
        trust: outbound.trust,
        folders: args.process.folders.iter().cloned().collect(),
        queue: None,
        public_url: None,
        approvals_policy: None,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        stop_writes: CancellationToken::new(),
        shutdown: stop.clone(),
        tuning: Tuning { secret_interval: args.process.secret_interval, ..Tuning::default() },
    });
    info!(version = env!("CARGO_PKG_VERSION"), cluster_id = %ctx.cluster_id, queue = settings.names.jobs(), "Working");
    let who = (identity, usize::from(args.worker_concurrency));
    let worker = Worker::new(settings, Arc::new(Bench::new(ctx)), who, metrics, readiness, stop.clone());
    let mut work = tokio::spawn(worker.run());
    tokio::select! {
        () = process::termination() => info!("Stopping: running jobs end first"),
        ended = &mut work => return Err(format!("the worker ended: {ended:?}")),
    }
    stop.cancel();
    let ended = work.await;
    stop_http.cancel();
    let _ = health.await;
    ended.map_err(|error| format!("the worker ended: {error}"))
}
