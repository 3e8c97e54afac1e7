//! `approve-plan`: lets exactly one plan run.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use serde_json::json;

use super::cluster::{Cluster, Target, Waited};
use super::object::Seen;
use super::reconcile::{Waiting, say_ready, too_late};
use super::text::Printer;
use super::{Access, Failure, Outcome, failed};
use crate::api::secure_workspace::PlanStatus;

/// Arguments of `approve-plan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl file360 approve-plan -n sales project-falcon
  kubectl file360 approve-plan -n sales project-falcon --hash 1f0c... --yes

Exit code 1: nothing waits for approval, it is another plan, or the resource is not ready afterwards.")]
pub struct ApprovePlanArgs {
    /// NAME of a SecureWorkspace with `mode: Approve`.
    name: Target,
    /// Hash of the plan that was reviewed; another plan is not approved.
    #[arg(long, value_name = "HASH")]
    hash: Option<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Shows the plan, asks, approves and waits; whether the resource is ready then.
pub async fn run(access: &Access, args: &ApprovePlanArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let seen = cluster.get(&args.name.clone().workspace()?).await?;
    let plan = waiting_plan(&seen)?;
    printer.print(&format!("{} would\n{}", seen.title(), super::text::indented(&super::plan::lines(&plan))));
    if args.hash.as_ref().is_some_and(|hash| *hash != plan.hash) {
        let message = format!("the plan is {}, not the one that was reviewed; nothing is approved", plan.hash);
        return Err(failed(message));
    }
    if !args.yes && !asked()? {
        printer.note("Not approved.");
        return Ok(false);
    }
    let written = cluster.patch(&seen, &json!({"spec": {"approvedPlan": plan.hash}})).await?;
    if args.waiting.no_wait {
        printer.print(&format!("{}: approved {}", seen.title(), plan.hash));
        return Ok(true);
    }
    let looked_at =
        |now: &Seen| now.status["observedGeneration"].as_i64().is_some_and(|generation| generation >= written.generation);
    match cluster.wait(&seen, args.waiting.timeout, looked_at).await? {
        Waited::Holds(now) => Ok(say_ready(&now, printer)),
        Waited::TooLate(now) => Err(too_late("apply the plan", &now, args.waiting.timeout)),
    }
}

fn waiting_plan(seen: &Seen) -> Result<PlanStatus, Failure> {
    if seen.spec_text("/mode").as_deref() != Some("Approve") {
        let message = format!("{} has not mode: Approve; its plans need no approval", seen.title());
        return Err(failed(message));
    }
    if !seen.is_current() {
        let message =
            format!("the operator has not planned generation {} of {} yet; try again", seen.generation, seen.title());
        return Err(failed(message));
    }
    let plan = seen.plan().ok_or_else(|| failed(format!("no plan of {} waits for approval", seen.title())))?;
    // It goes into a patch and comes from a status that others can write.
    if plan.hash.is_empty() || !plan.hash.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(failed("status.plan.hash is no hash"));
    }
    Ok(plan)
}

fn asked() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "there is nobody to ask: approve with --yes, and with --hash for a plan that was reviewed".into(),
        ));
    }
    eprint!("Approve this plan? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| failed(error.to_string()))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
