//! `why`: cause, evidence, next step.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::{Cluster, Target};
use super::object::{Kind, Seen};
use super::reasons::{entry, next_step};
use super::status::{dead_letters, drift, events, happened};
use super::text::{Printer, age, indented};
use super::{Access, Outcome, Output, yaml};

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl file360 why -n procurement acme-onboarding

Exit code 1: it is not ready.")]
pub struct WhyArgs {
    /// NAME, secureworkspace/NAME, secureworkspaceset/NAME, fileroute/NAME or connection/NAME.
    name: Target,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Prints; whether it is ready.
pub async fn run(access: &Access, args: &WhyArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let seen = cluster.get(&args.name).await?;
    let cause = cause(&seen);
    let evidence = evidence(&cluster, &seen).await;
    let next = next_step(&seen);
    if args.output == Output::Table {
        let evidence = indented(&evidence.join("\n"));
        printer.print(&format!(
            "{}: {}\n\nCause\n{}\n\nEvidence\n{evidence}\n\nNext step\n{}",
            seen.title(),
            verdict(&seen),
            indented(&cause),
            indented(&next)
        ));
    } else {
        let data: Value = json!({
            "kind": seen.kind.name(), "namespace": seen.namespace, "name": seen.name, "ready": seen.is_ready(),
            "reason": seen.focus().map(|focus| focus.reason), "cause": cause, "evidence": evidence, "nextStep": next,
        });
        printer.print(&yaml::render(&data, args.output)?);
    }
    Ok(seen.is_ready())
}

fn verdict(seen: &Seen) -> String {
    let state = if seen.is_deleting {
        "is being deleted"
    } else if seen.is_ready() {
        "is ready"
    } else {
        "is not ready"
    };
    seen.focus().map_or_else(|| state.to_owned(), |focus| format!("{state} ({})", focus.reason))
}

fn cause(seen: &Seen) -> String {
    let Some(focus) = seen.focus() else { return "The operator has not ended a pass over this resource yet.".to_owned() };
    entry(seen.kind, &focus).map_or_else(|| focus.message.clone(), |entry| entry.cause.to_owned())
}

async fn evidence(cluster: &Cluster, seen: &Seen) -> Vec<String> {
    let now = Timestamp::now();
    let mut lines: Vec<String> = Vec::new();
    for condition in seen.conditions() {
        let since = age(condition.since, now);
        lines.push(format!(
            "{}={} {} for {since}: {}",
            condition.kind, condition.status, condition.reason, condition.message
        ));
    }
    if !seen.is_current() {
        let looked_at = seen.status["observedGeneration"].as_i64().unwrap_or(-1);
        lines.push(format!("The spec is at generation {}; the operator has looked at {looked_at}.", seen.generation));
    }
    lines.extend(seen.plan().map(|plan| format!("Plan {}", super::plan::lines(&plan))));
    lines.extend(drift(seen, now));
    lines.extend(dead_letters(seen, now));
    if seen.kind != Kind::Connection && !seen.is_ready() {
        lines.push(connection(cluster, seen).await);
    }
    if let Ok(events) = events(cluster, seen).await {
        let warnings: Vec<_> = events.into_iter().filter(|event| event.is_warning).take(3).collect();
        if !warnings.is_empty() {
            lines.push(format!("Last warnings\n{}", indented(&happened(&warnings, now))));
        }
    }
    lines
}

async fn connection(cluster: &Cluster, seen: &Seen) -> String {
    let (namespace, name) = seen.connection();
    match cluster.find(Kind::Connection, &namespace, &name).await {
        Ok(Some(connection)) => connection.condition("Ready").map_or_else(
            || format!("Connection {namespace}/{name}: no pass has ended yet."),
            |ready| format!("Connection {namespace}/{name}: Ready={} {}: {}", ready.status, ready.reason, ready.message),
        ),
        Ok(None) => format!("Connection {namespace}/{name} does not exist."),
        Err(_) => format!("Connection {namespace}/{name} cannot be read with your rights."),
    }
}
