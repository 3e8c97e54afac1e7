//! `reconcile`: run now, and wait until it was handled.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::cluster::{Cluster, Target, Waited, duration};
use super::object::Seen;
use super::reasons::next_step;
use super::text::Printer;
use super::{Access, Failure, Outcome, failed};
use crate::api::REQUESTED_AT;

/// Arguments of `reconcile`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl file360 reconcile -n procurement acme-onboarding --timeout 30s

Exit code 1: it was not handled in time, or it is not ready.")]
pub struct ReconcileArgs {
    /// NAME, secureworkspace/NAME, secureworkspaceset/NAME, fileroute/NAME or connection/NAME.
    name: Target,
    #[command(flatten)]
    waiting: Waiting,
}

/// How long to wait.
#[derive(Debug, Args)]
pub struct Waiting {
    /// How long to wait for the operator.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// Do not wait.
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
}

/// Asks and waits; whether it is ready.
pub async fn run(access: &Access, args: &ReconcileArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let seen = cluster.get(&args.name).await?;
    let token = Timestamp::now().to_string();
    cluster.patch(&seen, &json!({"metadata": {"annotations": {REQUESTED_AT: token}}})).await?;
    if args.waiting.no_wait {
        printer.print(&format!("{}: asked for a reconcile ({token})", seen.title()));
        return Ok(true);
    }
    let handled = |seen: &Seen| seen.status["lastHandledReconcileAt"].as_str() == Some(token.as_str());
    match cluster.wait(&seen, args.waiting.timeout, handled).await? {
        Waited::Holds(now) => Ok(say_ready(&now, printer)),
        Waited::TooLate(now) => Err(too_late("handle the request", &now, args.waiting.timeout)),
    }
}

/// Prints the Ready condition, and what to do if it is not true; whether it is.
pub fn say_ready(seen: &Seen, printer: &Printer) -> bool {
    let ready = seen.condition("Ready");
    let text = ready.map_or_else(
        || "Ready=Unknown".to_owned(),
        |ready| format!("Ready={} {}: {}", ready.status, ready.reason, ready.message),
    );
    printer.print(&format!("{}: {text}", seen.title()));
    if !seen.is_ready() {
        printer.print(&format!("Next step: {}", next_step(seen)));
    }
    seen.is_ready()
}

/// The operator did not do what was waited for.
pub fn too_late(what: &str, seen: &Seen, timeout: Duration) -> Failure {
    let state = seen.focus().map_or_else(
        || "no pass has ended yet".to_owned(),
        |focus| format!("{}={} {}: {}", focus.kind, focus.status, focus.reason, focus.message),
    );
    failed(format!(
        "the operator did not {what} within {}s; it may not run, not look after namespace {}, or wait for its Connection. {}: {state}",
        timeout.as_secs(),
        seen.namespace,
        seen.title(),
    ))
}
