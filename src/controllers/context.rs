//! What all controllers share.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::reports::Reports;
use crate::controllers::approval::Approvals;
use crate::controllers::gates::Gates;
use crate::inbound::PublicUrl;
use crate::outbound::guard::Guard;
use crate::outbound::trust::Trust;
use crate::queue::leader::Leader;
use crate::reconcile::gate::Gate;
use crate::routes::content::SharedBandwidth;
use crate::session::Sessions;
use crate::telemetry::http::Readiness;
use crate::telemetry::metrics::Metrics;

/// Status writes a second about an outage or its end, all objects together.
const OUTAGE_MARKS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// How the controllers behave.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Objects of one kind that are worked on at once.
    pub workers: usize,
    /// A pass that lasts longer than this says `Reconciling`.
    pub slow_pass: Duration,
    /// An outage that lasts longer than this is written to the resources that depend on the Connection.
    pub outage_grace: Duration,
    /// After this long without a credential, a resource that is being deleted goes without its last steps.
    pub orphan_after: Duration,
    /// Secrets in use are read again after this long.
    pub secret_interval: Duration,
    /// Workspaces of a tenant without a change feed are looked at once in this time.
    pub observe_interval: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            workers: 64,
            slow_pass: Duration::from_secs(2),
            outage_grace: Duration::from_mins(10),
            orphan_after: Duration::from_hours(1),
            secret_interval: Duration::from_mins(1),
            observe_interval: Duration::from_mins(5),
        }
    }
}

/// What all controllers share.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// Identity of this cluster in File 360.
    pub cluster_id: Arc<str>,
    /// Identities of clusters whose workspaces this one takes up after a handover.
    pub former_cluster_ids: Vec<String>,
    /// Identity of this process, for people.
    pub instance: String,
    /// Watch only this namespace; `None`: all.
    pub namespace: Option<String>,
    /// The Connections in use.
    pub sessions: Sessions,
    /// Labels of the namespaces, for grants by selector.
    pub namespaces: NamespaceLabels,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Who waits for what.
    pub readiness: Arc<Readiness>,
    /// Which addresses a manifest may name.
    pub guard: Arc<Guard>,
    /// PEM bundle to trust in addition, from the operator's own settings.
    pub extra_ca: Vec<reqwest::Certificate>,
    /// The same for connections that are not HTTP.
    pub trust: Trust,
    /// Folders that manifests may name, by name.
    pub folders: BTreeMap<String, PathBuf>,
    /// Where the work of routes is done, if not in this process.
    pub queue: Option<Arc<Leader>>,
    /// Where senders reach the inbound endpoint, if it is on.
    pub public_url: Option<PublicUrl>,
    /// Name of the policy that proves who votes on an Approval; `None`: nothing proves it.
    pub approvals_policy: Option<String>,
    /// Cancelled when the leadership is lost.
    pub stop_writes: CancellationToken,
    /// Cancelled when the process is asked to end: running passes end, no new one starts.
    pub shutdown: CancellationToken,
    /// How the controllers behave.
    pub tuning: Tuning,
    /// Shared by all status writes about an outage or its end.
    pub outage_marks: DefaultDirectRateLimiter,
    /// What the status writes of all objects pass.
    pub gate: Gate,
    /// What the routes of one Connection may read together.
    pub bandwidths: SharedBandwidth,
    /// Who tells other systems about workspaces; only where controllers run.
    pub reports: OnceLock<Arc<Reports>>,
    gates: OnceLock<Weak<Gates>>,
    approvals: OnceLock<Weak<Approvals>>,
    recorder: Recorder,
}

/// What a context is made from.
pub struct Parts {
    /// See [`Context::client`].
    pub client: Client,
    /// See [`Context::cluster_id`].
    pub cluster_id: String,
    /// See [`Context::former_cluster_ids`].
    pub former_cluster_ids: Vec<String>,
    /// See [`Context::instance`].
    pub instance: String,
    /// See [`Context::namespace`].
    pub namespace: Option<String>,
    /// See [`Context::guard`].
    pub guard: Guard,
    /// See [`Context::extra_ca`].
    pub extra_ca: Vec<reqwest::Certificate>,
    /// See [`Context::trust`].
    pub trust: Trust,
    /// See [`Context::folders`].
    pub folders: BTreeMap<String, PathBuf>,
    /// See [`Context::queue`].
    pub queue: Option<Arc<Leader>>,
    /// See [`Context::public_url`].
    pub public_url: Option<PublicUrl>,
    /// See [`Context::approvals_policy`].
    pub approvals_policy: Option<String>,
    /// See [`Context::metrics`].
    pub metrics: Arc<Metrics>,
    /// See [`Context::readiness`].
    pub readiness: Arc<Readiness>,
    /// See [`Context::stop_writes`].
    pub stop_writes: CancellationToken,
    /// See [`Context::shutdown`].
    pub shutdown: CancellationToken,
    /// See [`Context::tuning`].
    pub tuning: Tuning,
}

impl Context {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        let reporter = Reporter { controller: "file360-operator".into(), instance: Some(parts.instance.clone()) };
        Arc::new(Self {
            recorder: Recorder::new(parts.client.clone(), reporter),
            client: parts.client,
            cluster_id: parts.cluster_id.into(),
            former_cluster_ids: parts.former_cluster_ids,
            instance: parts.instance,
            namespace: parts.namespace,
            sessions: Sessions::default(),
            namespaces: NamespaceLabels::default(),
            metrics: parts.metrics,
            readiness: parts.readiness,
            guard: Arc::new(parts.guard),
            extra_ca: parts.extra_ca,
            trust: parts.trust,
            folders: parts.folders,
            queue: parts.queue,
            public_url: parts.public_url,
            approvals_policy: parts.approvals_policy,
            stop_writes: parts.stop_writes,
            shutdown: parts.shutdown,
            gate: Gate::default(),
            bandwidths: SharedBandwidth::default(),
            reports: OnceLock::new(),
            gates: OnceLock::new(),
            approvals: OnceLock::new(),
            tuning: parts.tuning,
            // No burst: the first second is like the others.
            outage_marks: RateLimiter::direct(Quota::per_second(OUTAGE_MARKS_PER_SECOND).allow_burst(NonZeroU32::MIN)),
        })
    }

    /// Tells who looks after Approvals.
    pub fn approvals_are(&self, approvals: &Arc<Approvals>) {
        let _ = self.approvals.set(Arc::downgrade(approvals));
    }

    /// Who looks after Approvals, where controllers run.
    pub fn approvals(&self) -> Option<Arc<Approvals>> {
        self.approvals.get().and_then(Weak::upgrade)
    }

    /// Tells who looks after gates.
    pub fn gates_are(&self, gates: &Arc<Gates>) {
        let _ = self.gates.set(Arc::downgrade(gates));
    }

    /// Who looks after gates, once somebody does.
    pub fn gates(&self) -> Option<Arc<Gates>> {
        self.gates.get().and_then(Weak::upgrade)
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Writes an Event. A failure is no failure of the pass: events cannot be made in a namespace that is being deleted.
    pub async fn event(&self, object: &impl Resource<DynamicType = ()>, warning: bool, reason: &str, note: &str) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(crate::error::clean(note, 900)),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            debug!(%error, reason, "An event could not be written");
        }
    }
}

/// Labels of the namespaces of the cluster, kept by a watch.
#[derive(Default)]
pub struct NamespaceLabels {
    listed: AtomicBool,
    labels: RwLock<HashMap<String, BTreeMap<String, String>>>,
}

impl NamespaceLabels {
    /// The labels of `namespace`; empty when it is not known.
    pub fn of(&self, namespace: &str) -> BTreeMap<String, String> {
        self.labels.read().get(namespace).cloned().unwrap_or_default()
    }

    /// Sets the labels; returns whether they changed.
    pub fn set(&self, namespace: &str, labels: BTreeMap<String, String>) -> bool {
        self.labels.write().insert(namespace.to_owned(), labels.clone()) != Some(labels)
    }

    /// The first listing is complete.
    pub fn listed(&self) {
        self.listed.store(true, Ordering::Release);
    }

    /// Whether the first listing is complete.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Forgets a namespace.
    pub fn remove(&self, namespace: &str) {
        self.labels.write().remove(namespace);
    }
}
