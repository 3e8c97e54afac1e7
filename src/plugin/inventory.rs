//! `inventory`: both ends of a FileRoute are counted now.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::{Cluster, Target, Waited};
use super::object::Seen;
use super::reconcile::{Waiting, say_ready, too_late};
use super::replay::{runs, stands_still};
use super::text::{Printer, indented, line, table};
use super::{Access, Outcome, failed};
use crate::api::{INVENTORY_AT, REQUESTED_AT};

/// Arguments of `inventory`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl file360 inventory -n claims froute/uploads

Every file of the source is looked at, and every destination that can be listed. Files that nothing was known of are taken up, and search
indexes are brought up to date.
Exit code 1: something is not accounted for.")]
pub struct InventoryArgs {
    /// NAME or fileroute/NAME.
    name: Target,
    /// Deliver copies again that were acknowledged and are gone.
    #[arg(long)]
    redeliver: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Asks and waits; whether everything is accounted for.
pub async fn run(access: &Access, args: &InventoryArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let seen = cluster.get(&args.name.clone().route()?).await?;
    if let Some(why) = stands_still(&seen) {
        return Err(failed(format!("{} {why}: nothing is counted", seen.title())));
    }
    let token = Timestamp::now().to_string();
    let request = if args.redeliver { format!("{token} redeliver") } else { token.clone() };
    cluster.patch(&seen, &json!({"metadata": {"annotations": {INVENTORY_AT: request, REQUESTED_AT: token}}})).await?;
    if args.waiting.no_wait {
        printer.print(&format!("{}: asked for an inventory ({token})", seen.title()));
        return Ok(true);
    }
    let counted = |now: &Seen| now.status["inventory"]["requested"].as_str() == Some(request.as_str());
    let handled = |now: &Seen| now.status["lastHandledReconcileAt"].as_str() == Some(token.as_str());
    let ended = |now: &Seen| counted(now) || handled(now) && !runs(now);
    match cluster.wait(&seen, args.waiting.timeout, ended).await? {
        Waited::Holds(now) if counted(&now) => Ok(say(&now, printer)),
        Waited::Holds(now) => Ok(say_ready(&now, printer)),
        Waited::TooLate(now) => Err(too_late("take the inventory", &now, args.waiting.timeout)),
    }
}

/// Prints what was found; whether everything is accounted for.
fn say(now: &Seen, printer: &Printer) -> bool {
    let found = &now.status["inventory"];
    printer.print(&format!("{}: {}", now.title(), summary(found)));
    findings(found).iter().for_each(|table| printer.print(&indented(table)));
    found["unaccounted"] == 0
}

/// What an inventory found, in one line.
pub fn summary(found: &Value) -> String {
    let number = |name: &str| found[name].as_u64().unwrap_or_default();
    format!(
        "{} files: {} delivered, {} unmatched, {} waiting, {} given up; {} not accounted for",
        number("files"),
        number("delivered"),
        number("unmatched"),
        number("waiting"),
        number("deadLettered"),
        number("unaccounted")
    )
}

fn findings(found: &Value) -> Option<String> {
    let listed = found["findings"].as_array().filter(|listed| !listed.is_empty())?;
    let text = |finding: &Value, name: &str| line(finding[name].as_str().unwrap_or("-"), 200);
    let row = |finding: &Value| vec![text(finding, "file"), text(finding, "found"), text(finding, "destination")];
    Some(table(&["FILE", "FOUND", "AT"], &listed.iter().map(row).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_in_one_line() {
        let found =
            json!({"files": 412, "delivered": 400, "unmatched": 9, "waiting": 2, "deadLettered": 0, "unaccounted": 1});
        assert_eq!(summary(&found), "412 files: 400 delivered, 9 unmatched, 2 waiting, 0 given up; 1 not accounted for");
    }
}
