//! What is measured. Labels come from closed sets; object names never become labels.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::api::documents::DocumentState;
use crate::file360::connector::Observer;

/// Labels of a reconcile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reconcile {
    kind: &'static str,
    outcome: &'static str,
}

/// Label of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByKind {
    kind: &'static str,
}

/// Label of a document's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByState {
    state: String,
}

/// Labels of a call to File 360.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiCall {
    operation: String,
    outcome: &'static str,
}

/// Label of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOperation {
    operation: String,
}

/// Label of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByStep {
    step: &'static str,
}

/// Labels of an inbound request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InboundRequest {
    endpoint: &'static str,
    outcome: &'static str,
}

/// Label of an inbound endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByEndpoint {
    endpoint: &'static str,
}

/// Labels of a retry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Retry {
    kind: &'static str,
    reason: &'static str,
}

/// Label of an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOutcome {
    outcome: &'static str,
}

/// Label of a reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    reason: &'static str,
}

type SecondsFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Reconcile, Counter>,
    reconcile_seconds: SecondsFamily<ByKind>,
    api_calls: Family<ApiCall, Counter>,
    api_call_seconds: SecondsFamily<ByOperation>,
    steps: Family<ByStep, Counter>,
    retries: Family<Retry, Counter>,
    status_writes: Family<ByKind, Counter>,
    inbound_requests: Family<InboundRequest, Counter>,
    inbound_received: Family<ByEndpoint, Counter>,
    inbound_seconds: SecondsFamily<ByEndpoint>,
    /// Differences corrected because somebody else changed File 360.
    pub drift_corrected: Counter,
    /// Differences that stand by policy.
    pub drift_standing: Gauge<i64, AtomicI64>,
    required_documents: Family<ByState, Gauge<i64, AtomicI64>>,
    /// Keys that wait for a worker.
    pub queue_depth: Family<ByKind, Gauge<i64, AtomicI64>>,
    /// Seconds from a change in File 360 to its entry being handled; the last entry's.
    pub feed_lag_seconds: Gauge<f64, AtomicU64>,
    /// Connections whose feed is being read.
    pub feeds_connected: Gauge<i64, AtomicI64>,
    /// 1 on the leader.
    pub leader: Gauge<i64, AtomicI64>,
    route_file_seconds: SecondsFamily<ByOutcome>,
    route_deliveries: Counter,
    route_bytes: Counter,
    route_failures: Family<ByReason, Counter>,
    /// Files that wait for another try, all routes together.
    pub route_waiting: Gauge<i64, AtomicI64>,
    /// Files and copies that the last inventories could not account for.
    pub route_unaccounted: Gauge<i64, AtomicI64>,
    route_inventories: Family<ByOutcome, Counter>,
    /// Dead letters, all routes together.
    pub route_dead_letters: Gauge<i64, AtomicI64>,
    set_children: Family<ByOutcome, Counter>,
    set_listings: Family<ByOutcome, Counter>,
    /// Items of all sets.
    pub set_items: Gauge<i64, AtomicI64>,
    /// Items of all sets whose SecureWorkspace is ready.
    pub set_ready: Gauge<i64, AtomicI64>,
    /// Items of all sets that failed.
    pub set_failed: Gauge<i64, AtomicI64>,
    report_deliveries: Counter,
    report_failures: Family<ByReason, Counter>,
    report_missed: Counter,
    /// Events that wait to be told, all reports together.
    pub report_pending: Gauge<i64, AtomicI64>,
    /// Things that gates hold back until a decision.
    pub approvals_awaited: Gauge<i64, AtomicI64>,
    /// Gates that somebody had opened and that were closed again.
    pub gates_restored: Counter,
    /// Jobs that a leader put on the queue.
    pub queue_jobs: Counter,
    /// Answers that a leader read.
    pub queue_answers: Counter,
    /// Jobs that were gone from the queue without an answer, and published again.
    pub queue_lost: Counter,
    /// Messages on the queue that were refused: unsigned, forged, or not understood.
    pub queue_refused: Counter,
    /// Jobs that no worker has taken.
    pub queue_open: Gauge<i64, AtomicI64>,
    /// Jobs that are with workers.
    pub queue_taken: Gauge<i64, AtomicI64>,
    /// Jobs that this worker ended, by outcome.
    pub worker_jobs: Family<ByOutcome, Counter>,
    /// Jobs that this worker is at.
    pub worker_busy: Gauge<i64, AtomicI64>,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.5, 12))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("file360"),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(seconds),
            api_calls: Family::default(),
            api_call_seconds: Family::new_with_constructor(seconds),
            steps: Family::default(),
            retries: Family::default(),
            status_writes: Family::default(),
            inbound_requests: Family::default(),
            inbound_received: Family::default(),
            inbound_seconds: Family::new_with_constructor(seconds),
            drift_corrected: Counter::default(),
            drift_standing: Gauge::default(),
            required_documents: Family::default(),
            queue_depth: Family::default(),
            feed_lag_seconds: Gauge::default(),
            feeds_connected: Gauge::default(),
            leader: Gauge::default(),
            route_file_seconds: Family::new_with_constructor(seconds),
            route_deliveries: Counter::default(),
            route_bytes: Counter::default(),
            route_failures: Family::default(),
            route_waiting: Gauge::default(),
            route_unaccounted: Gauge::default(),
            route_inventories: Family::default(),
            route_dead_letters: Gauge::default(),
            set_children: Family::default(),
            set_listings: Family::default(),
            set_items: Gauge::default(),
            set_ready: Gauge::default(),
            set_failed: Gauge::default(),
            report_deliveries: Counter::default(),
            report_failures: Family::default(),
            report_missed: Counter::default(),
            report_pending: Gauge::default(),
            approvals_awaited: Gauge::default(),
            gates_restored: Counter::default(),
            queue_jobs: Counter::default(),
            queue_answers: Counter::default(),
            queue_lost: Counter::default(),
            queue_refused: Counter::default(),
            queue_open: Gauge::default(),
            queue_taken: Gauge::default(),
            worker_jobs: Family::default(),
            worker_busy: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("reconciles", "Passes by kind and outcome", self.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of a pass",
            Unit::Seconds,
            self.reconcile_seconds.clone(),
        );
        registry.register("api_calls", "Calls to File 360 by operation and outcome", self.api_calls.clone());
        registry.register_with_unit("api_call_duration", "Duration of a call", Unit::Seconds, self.api_call_seconds.clone());
        registry.register("steps", "Steps run, by name", self.steps.clone());
        registry.register("retries", "Passes that are tried again, by kind and reason", self.retries.clone());
        registry.register("status_writes", "Status writes to the Kubernetes API by kind", self.status_writes.clone());
        registry.register("inbound_requests", "Inbound requests by outcome", self.inbound_requests.clone());
        registry.register_with_unit("inbound_received", "Bodies received", Unit::Bytes, self.inbound_received.clone());
        registry.register_with_unit(
            "inbound_request_duration",
            "Duration of an inbound request, its body included",
            Unit::Seconds,
            self.inbound_seconds.clone(),
        );
        registry.register("drift_corrected", "Changes of others that were put right", self.drift_corrected.clone());
        registry.register("drift_items", "Changes of others that stand by policy", self.drift_standing.clone());
        registry.register(
            "required_documents",
            "Required documents of all workspaces, by state",
            self.required_documents.clone(),
        );
        registry.register("queue_depth", "Objects that wait for a worker, by kind", self.queue_depth.clone());
        registry.register_with_unit(
            "feed_lag",
            "Age of the last change feed entry when it was handled",
            Unit::Seconds,
            self.feed_lag_seconds.clone(),
        );
        registry.register("feeds_connected", "Connections whose change feed is being read", self.feeds_connected.clone());
        registry.register(
            "gates_restored",
            "Gates that somebody else had opened and that were closed again",
            self.gates_restored.clone(),
        );
        registry.register(
            "approvals_awaited",
            "Things that gates hold back until a decision",
            self.approvals_awaited.clone(),
        );
        registry.register("leader", "1 on the leader, else 0", self.leader.clone());
        self.register_routes();
        self.register_reports();
        self.register_queue();
        self.register_sets();
    }

    fn register_routes(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("route");
        registry.register_with_unit(
            "file_duration",
            "Time that the last try of a file took, by how the file ended",
            Unit::Seconds,
            self.route_file_seconds.clone(),
        );
        registry.register("deliveries", "Deliveries that a destination acknowledged", self.route_deliveries.clone());
        registry.register_with_unit("delivered", "Content that was delivered", Unit::Bytes, self.route_bytes.clone());
        registry.register("delivery_failures", "Tries of a delivery that failed, by reason", self.route_failures.clone());
        registry.register("waiting", "Files that wait for another try", self.route_waiting.clone());
        registry.register(
            "unaccounted",
            "Files and copies that the last inventories could not account for",
            self.route_unaccounted.clone(),
        );
        registry.register("inventories", "Inventories of routes, by outcome", self.route_inventories.clone());
        registry.register("dead_letters", "Files whose delivery was given up", self.route_dead_letters.clone());
    }

    fn register_sets(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("set");
        registry.register("children", "Writes of generated SecureWorkspaces, by outcome", self.set_children.clone());
        registry.register("listings", "Readings of HTTP listings, by outcome", self.set_listings.clone());
        registry.register("items", "Items of all sets", self.set_items.clone());
        registry.register("items_ready", "Items whose SecureWorkspace is ready", self.set_ready.clone());
        registry.register(
            "items_failed",
            "Items whose SecureWorkspace could not be made or changed",
            self.set_failed.clone(),
        );
    }

    fn register_reports(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("report");
        registry.register("deliveries", "Events that a system acknowledged", self.report_deliveries.clone());
        registry.register("failures", "Tries to tell an event that failed, by reason", self.report_failures.clone());
        registry.register(
            "missed",
            "Events that gave way because too many waited; their number was told instead",
            self.report_missed.clone(),
        );
        registry.register("pending", "Events that wait to be told", self.report_pending.clone());
    }

    fn register_queue(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("queue");
        registry.register("jobs", "Tries of files that the leader put on the queue", self.queue_jobs.clone());
        registry.register("answers", "Answers that the leader read from the queue", self.queue_answers.clone());
        registry.register("lost", "Jobs gone from the queue without an answer, published again", self.queue_lost.clone());
        registry.register("refused", "Messages that were not signed, or not understood", self.queue_refused.clone());
        registry.register("open", "Jobs that no worker has taken", self.queue_open.clone());
        registry.register("taken", "Jobs that are with workers", self.queue_taken.clone());
        let registry = self.registry.sub_registry_with_prefix("worker");
        registry.register("jobs", "Jobs that this worker ended, by outcome", self.worker_jobs.clone());
        registry.register("busy", "Jobs that this worker is at", self.worker_busy.clone());
    }

    /// A system acknowledged an event of a report.
    pub fn report_delivered(&self) {
        self.report_deliveries.inc();
    }

    /// A try to tell an event failed, for such a reason.
    pub fn report_failed(&self, reason: &'static str) {
        self.report_failures.get_or_create(&ByReason { reason }).inc();
    }

    /// A system acknowledged that it missed so many events.
    pub fn report_missed(&self, events: u64) {
        self.report_missed.inc_by(events);
    }

    /// A worker ended a job.
    pub fn worker_ended(&self, outcome: &'static str) {
        self.worker_jobs.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// A file's way through a route ended.
    pub fn route_file_ended(&self, outcome: &'static str, took: Duration) {
        self.route_file_seconds.get_or_create(&ByOutcome { outcome }).observe(took.as_secs_f64());
    }

    /// Destinations acknowledged so many deliveries of so many bytes.
    pub fn route_delivered(&self, deliveries: u64, bytes: u64) {
        self.route_deliveries.inc_by(deliveries);
        self.route_bytes.inc_by(bytes);
    }

    /// A try of a delivery failed.
    pub fn route_inventory_ended(&self, outcome: &'static str) {
        self.route_inventories.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// A delivery failed, for such a reason.
    pub fn route_delivery_failed(&self, reason: &'static str) {
        self.route_failures.get_or_create(&ByReason { reason }).inc();
    }

    /// A generated SecureWorkspace was written, or not.
    pub fn set_child(&self, outcome: &'static str) {
        self.set_children.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// The listing of a generator was read, or not.
    pub fn set_listing(&self, outcome: &'static str) {
        self.set_listings.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// One pass ended.
    pub fn pass_ended(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).inc();
        self.reconcile_seconds.get_or_create(&ByKind { kind }).observe(took.as_secs_f64());
    }

    /// One pass is going to be tried again.
    pub fn retry(&self, kind: &'static str, reason: &'static str) {
        self.retries.get_or_create(&Retry { kind, reason }).inc();
    }

    /// One step was run.
    pub fn step(&self, step: &'static str) {
        self.steps.get_or_create(&ByStep { step }).inc();
    }

    /// One status was written.
    pub fn status_written(&self, kind: &'static str) {
        self.status_writes.get_or_create(&ByKind { kind }).inc();
    }

    /// One inbound request was answered, after so many bytes of its body.
    pub fn inbound_ended(&self, endpoint: &'static str, outcome: &'static str, bytes: u64, took: Duration) {
        self.inbound_requests.get_or_create(&InboundRequest { endpoint, outcome }).inc();
        self.inbound_received.get_or_create(&ByEndpoint { endpoint }).inc_by(bytes);
        self.inbound_seconds.get_or_create(&ByEndpoint { endpoint }).observe(took.as_secs_f64());
    }

    /// How many objects of a kind wait for a worker.
    pub fn set_queue_depth(&self, kind: &'static str, depth: usize) {
        self.queue_depth.get_or_create(&ByKind { kind }).set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// How many required documents there are, in the order of [`DocumentState::ALL`].
    pub fn required_documents(&self, counts: &[i64; DocumentState::ALL.len()]) {
        for (state, count) in DocumentState::ALL.iter().zip(counts) {
            self.required_documents.get_or_create(&ByState { state: format!("{state:?}") }).set(*count);
        }
    }

    /// The text that `/metrics` answers.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Observer for Metrics {
    fn call_ended(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        let operation = operation.replace(' ', "_");
        self.api_call_seconds.get_or_create(&ByOperation { operation: operation.clone() }).observe(took.as_secs_f64());
        self.api_calls.get_or_create(&ApiCall { operation, outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_named_after_the_operator() {
        let metrics = Metrics::default();
        metrics.call_ended("list members", "ok", Duration::from_millis(3));
        metrics.pass_ended("SecureWorkspace", "converged", Duration::from_millis(9));
        let text = metrics.text();
        assert!(text.contains(r#"file360_api_calls_total{operation="list_members",outcome="ok"} 1"#), "{text}");
        assert!(text.lines().filter(|line| !line.starts_with('#')).all(|line| line.starts_with("file360_")));
    }
}
