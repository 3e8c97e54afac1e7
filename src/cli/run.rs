//! `run`: the operator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::process::{ProcessArgs, duration, identity, named, termination, trimmed};
use super::queue::{LeadArgs, QueueArgs};
use crate::controllers;
use crate::controllers::context::{Context, Parts, Tuning};
use crate::inbound::registry::Map;
use crate::inbound::transport::CertificateFiles;
use crate::inbound::{self, PublicUrl};
use crate::leader::{self, Leader};
use crate::queue;
use crate::telemetry::http::{self, Readiness};
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;

/// How long running passes may take to end after a termination signal.
const DRAIN: Duration = Duration::from_secs(20);

/// Arguments of `run`. Each can be given as a flag or in the environment.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    lead: LeadArgs,
    /// Identities of clusters that handed their workspaces over to this one. Needed for workspaces without externalRef, whose
    /// business key has the former cluster's identity; keep it set.
    #[arg(long, env = "FILE360_FORMER_CLUSTER_IDS", value_delimiter = ',')]
    former_cluster_ids: Vec<String>,
    /// Address for what other systems send: files for FileRoutes with `from.http`, events for SecureWorkspaceSets. Every replica serves it, leader or not.
    /// Default: none; then nothing is listened at. The chart uses 0.0.0.0:8443.
    #[arg(long, env = "FILE360_INBOUND_ADDRESS")]
    inbound_address: Option<SocketAddr>,
    /// Certificate chain in PEM for --inbound-address, read again when it changes. Default: plain HTTP, for behind a proxy that ends TLS.
    #[arg(long, env = "FILE360_INBOUND_TLS_CERT", requires = "inbound_tls_key")]
    inbound_tls_cert: Option<PathBuf>,
    /// Key of that certificate in PEM.
    #[arg(long, env = "FILE360_INBOUND_TLS_KEY", requires = "inbound_tls_cert")]
    inbound_tls_key: Option<PathBuf>,
    /// Where other systems reach --inbound-address, such as https://files.example.com.
    #[arg(long, env = "FILE360_PUBLIC_URL")]
    public_url: Option<PublicUrl>,
    /// Name of the ValidatingAdmissionPolicy, and of its binding, that keep votes on Approvals honest. While they are not there as shipped, votes
    /// through the Kubernetes API are ignored. With --namespace they always are.
    #[arg(long, env = "FILE360_APPROVALS_POLICY", default_value = crate::api::admission::NAME)]
    approvals_policy: String,
    /// Only one of several replicas works; `false` for a single process.
    #[arg(long, env = "FILE360_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Name of the Lease.
    #[arg(long, env = "FILE360_LEASE_NAME", default_value = "file360-operator")]
    lease_name: String,
    /// Namespace of the Lease. Default: --namespace, else the pod's.
    #[arg(long, env = "FILE360_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Without renewal for this long, another replica takes over.
    #[arg(long, env = "FILE360_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,
    /// Without renewal for this long, the leader stops all writes and exits. Must be shorter than --lease-duration.
    #[arg(long, env = "FILE360_RENEW_DEADLINE", default_value = "10s", value_parser = duration)]
    renew_deadline: Duration,
    /// A resource that is being deleted while its Connection has no usable credential goes after this long.
    #[arg(long, env = "FILE360_ORPHAN_AFTER", default_value = "1h", value_parser = duration)]
    orphan_after: Duration,
    /// An outage of a Connection that lasts longer than this is written to the resources that depend on it.
    #[arg(long, env = "FILE360_OUTAGE_GRACE", default_value = "10m", value_parser = duration)]
    outage_grace: Duration,
    /// Workspaces of a tenant without a change feed (driver WebDAV) are looked at once in this time, spread over it.
    #[arg(long, env = "FILE360_OBSERVE_INTERVAL", default_value = "5m", value_parser = duration)]
    observe_interval: Duration,
    /// Objects of one kind that are worked on at once.
    #[arg(long, env = "FILE360_WORKERS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
}

/// Runs the operator until a termination signal, or until the leadership is lost.
pub async fn run(args: RunArgs) -> Result<(), String> {
    logs::start(&args.process.log, args.process.log_format)?;
    args.check()?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outbound = args.process.outbound()?;
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    readiness.waits("operator", "the Kubernetes API");
    let listener = http::bind(args.process.metrics_address).await?;
    let stop_http = CancellationToken::new();
    let health = tokio::spawn(http::serve(listener, metrics.clone(), readiness.clone(), stop_http.clone()));

    let config = kube::Config::infer().await.map_err(|error| format!("no Kubernetes configuration: {error}"))?;
    let default_namespace = config.default_namespace.clone();
    let client =
        Client::try_from(config).map_err(|error| format!("the Kubernetes configuration cannot be used: {error}"))?;
    let identity = identity();
    let leader = args.leader(&client, &identity, default_namespace);
    let cluster_id = args.process.own_cluster_id(&client).await?;
    let (stop_writes, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let queue = args.queue.settings(&args.lead, &outbound.trust, &cluster_id, args.process.namespace.as_deref())?;
    let ending = [shutdown.clone(), stop_writes.clone()];
    let ctx = Context::new(Parts {
        cluster_id,
        client,
        former_cluster_ids: trimmed(&args.former_cluster_ids),
        instance: identity,
        namespace: args.process.namespace.clone(),
        guard: outbound.guard,
        extra_ca: outbound.extra_ca,
        trust: outbound.trust,
        queue: queue.map(|settings| queue::leader::Leader::new(settings, args.lead.open(), metrics.clone(), ending)),
        folders: args.process.folders.iter().cloned().collect(),
        public_url: args.inbound_address.and(args.public_url.clone()),
        approvals_policy: args.process.namespace.is_none().then(|| args.approvals_policy.clone()),
        metrics: metrics.clone(),
        readiness,
        stop_writes,
        shutdown,
        tuning: args.tuning(),
    });
    info!(version = env!("CARGO_PKG_VERSION"), cluster_id = %ctx.cluster_id, "Starting");
    let endpoints = Arc::new(Map::default());
    endpoints.decides(Arc::new(controllers::callbacks::Callbacks::new(ctx.clone())));
    let inbound = match args.inbound() {
        Some(settings) => Some(inbound::start(settings, endpoints.clone(), metrics, ctx.shutdown.clone()).await?),
        None => None,
    };
    let ingest = inbound.is_some().then(|| tokio::spawn(controllers::ingest::keep(ctx.clone(), endpoints.clone())));
    let events =
        inbound.is_some().then(|| tokio::spawn(controllers::secure_workspace_set::events::keep(ctx.clone(), endpoints)));
    let shutdown = ctx.shutdown.clone();
    let result = lead(ctx, leader).await;
    shutdown.cancel();
    if let Some(inbound) = inbound {
        inbound.ended().await;
    }
    for keeper in [ingest, events].into_iter().flatten() {
        keeper.abort();
    }
    stop_http.cancel();
    let _ = health.await;
    result
}

impl RunArgs {
    /// What the types of the arguments do not say.
    fn check(&self) -> Result<(), String> {
        if self.renew_deadline >= self.lease_duration {
            return Err("--renew-deadline must be shorter than --lease-duration".into());
        }
        self.process.check()?;
        named("--lease-namespace", self.lease_namespace.as_deref())
    }

    fn leader(&self, client: &Client, identity: &str, default_namespace: String) -> Option<Leader> {
        let lease = leader::Settings {
            namespace: self.lease_namespace.clone().or_else(|| self.process.namespace.clone()).unwrap_or(default_namespace),
            name: self.lease_name.clone(),
            identity: identity.to_owned(),
            duration: self.lease_duration,
            renew_deadline: self.renew_deadline,
        };
        self.leader_elect.then(|| Leader::new(client.clone(), lease))
    }

    fn tuning(&self) -> Tuning {
        Tuning {
            workers: usize::from(self.workers),
            outage_grace: self.outage_grace,
            orphan_after: self.orphan_after,
            secret_interval: self.process.secret_interval,
            // Never without a pause.
            observe_interval: self.observe_interval.max(Duration::from_secs(1)),
            ..Tuning::default()
        }
    }

    fn inbound(&self) -> Option<inbound::Settings> {
        let files = self.inbound_tls_cert.clone().zip(self.inbound_tls_key.clone());
        self.inbound_address.map(|address| inbound::Settings {
            address,
            tls: files.map(|(certificate, key)| CertificateFiles { certificate, key }),
            public_url: self.public_url.clone(),
            limits: inbound::body::Limits::default(),
        })
    }
}

/// Waits for the leadership, then runs the controllers until the end of either.
async fn lead(ctx: Arc<Context>, leader: Option<Leader>) -> Result<(), String> {
    let (stop_writes, shutdown, readiness) = (ctx.stop_writes.clone(), ctx.shutdown.clone(), ctx.readiness.clone());
    let mut terminated = std::pin::pin!(termination());
    ctx.metrics.leader.set(0);
    if let Some(leader) = &leader {
        tokio::select! {
            // A standby that can read the Lease is ready: it is there to take over.
            () = leader.acquire(|| readiness.is_ready("operator")) => {}
            () = &mut terminated => return Ok(()),
        }
    }
    ctx.metrics.leader.set(1);
    readiness.waits("connections", "the first listing");
    readiness.waits("workspaces", "the first listing");
    readiness.waits("routes", "the first listing");
    readiness.waits("sets", "the first listing");
    readiness.waits("approvals", "the first listing");
    readiness.is_ready("operator");
    let mut controllers = tokio::spawn(controllers::run(ctx));
    let lost = async {
        match &leader {
            Some(leader) => leader.keep().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = lost => {
            stop_writes.cancel();
            controllers.abort();
            error!("Not the leader any more: all writes are stopped");
            Err("the leadership was lost".into())
        }
        () = &mut terminated => {
            info!("Stopping: running passes end first");
            shutdown.cancel();
            let _ = tokio::time::timeout(DRAIN, &mut controllers).await;
            stop_writes.cancel();
            controllers.abort();
            if let Some(leader) = &leader {
                leader.release().await;
            }
            Ok(())
        }
        ended = &mut controllers => Err(format!("the controllers ended: {ended:?}")),
    }
}
