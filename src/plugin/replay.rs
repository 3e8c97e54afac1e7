//! `replay`: dead letters of a FileRoute are tried again.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::{Cluster, Target, Waited};
use super::object::Seen;
use super::reasons::next_step;
use super::reconcile::{Waiting, say_ready, too_late};
use super::status::dead_letters;
use super::text::Printer;
use super::{Access, Outcome, failed};
use crate::api::{REPLAY_AT, REQUESTED_AT};

/// The status lists this many; more are only counted.
const LISTED: usize = crate::routes::engine::DEAD_SHOWN;
/// Reasons of Ready with which a route's engine runs.
const RUNS: [&str; 4] = ["Running", "Reading", "SourceUnavailable", "QueueUnavailable"];

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl file360 replay -n claims froute/uploads

Correct first what made the deliveries fail; `why` shows it. A file is delivered under the same idempotency key as before.
Exit code 1: something was given up again, or still waits.")]
pub struct ReplayArgs {
    /// NAME or fileroute/NAME.
    name: Target,
    #[command(flatten)]
    waiting: Waiting,
}

/// Asks and waits; whether nothing is left.
pub async fn run(access: &Access, args: &ReplayArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let seen = cluster.get(&args.name.clone().route()?).await?;
    let before = letters(&seen);
    if before.is_empty() {
        printer.print(&format!("{} has no dead letters", seen.title()));
        return Ok(true);
    }
    if let Some(why) = stands_still(&seen) {
        return Err(failed(format!("{} {why}: nothing is tried", seen.title())));
    }
    // The status repeats the token of a request to reconcile: that tells one from before the replay from one after it.
    let token = Timestamp::now().to_string();
    cluster.patch(&seen, &json!({"metadata": {"annotations": {REPLAY_AT: token, REQUESTED_AT: token}}})).await?;
    let count = counted(before.len());
    if let Some(folder) = seen.spec_text("/delivery/deadLetter/moveTo") {
        printer.note(&format!(
            "Files in {folder} of their workspace are not the route's any more: those are not delivered before they are moved back."
        ));
    }
    if args.waiting.no_wait {
        printer.print(&format!("{}: asked to try {count} again ({token})", seen.title()));
        return Ok(true);
    }
    let handled = |now: &Seen| now.status["lastHandledReconcileAt"].as_str() == Some(token.as_str());
    let taken_up = |now: &Seen| handled(now) && !letters(now).iter().any(|letter| before.contains(letter));
    let ended = |now: &Seen| handled(now) && !runs(now) || taken_up(now) && !now.has("Backlogged");
    let now = match cluster.wait(&seen, args.waiting.timeout, ended).await? {
        Waited::Holds(now) if !runs(&now) => return Ok(say_ready(&now, printer)),
        Waited::Holds(now) => now,
        Waited::TooLate(now) if taken_up(&now) => now,
        Waited::TooLate(now) => return Err(too_late("take up the dead letters", &now, args.waiting.timeout)),
    };
    Ok(say_what_is_left(&now, &count, printer))
}

/// Prints how it ended; whether nothing is left.
fn say_what_is_left(now: &Seen, count: &str, printer: &Printer) -> bool {
    let left = letters(now).len();
    let waits = now.condition("Backlogged").filter(super::object::Condition::holds);
    printer.print(&match (left, &waits) {
        (0, None) => format!("{}: {count} tried again; nothing is left", now.title()),
        (0, Some(waits)) => format!("{}: {count} tried again; {}", now.title(), waits.message),
        (left, _) => format!("{}: {count} tried again; {} given up again", now.title(), counted(left)),
    });
    if left > 0 {
        dead_letters(now, Timestamp::now()).iter().for_each(|table| printer.print(table));
        printer.print(&format!("Next step: {}", next_step(now)));
    }
    left == 0 && waits.is_none()
}

fn letters(seen: &Seen) -> Vec<Value> {
    seen.dead_letters().cloned().unwrap_or_default()
}

/// Why the route does not try anything, as its spec says.
pub fn stands_still(seen: &Seen) -> Option<&'static str> {
    if seen.has("Suspended") {
        return Some("is suspended");
    }
    (seen.spec["mode"] == "DryRun").then_some("has mode: DryRun")
}

/// Whether the route's engine runs.
pub fn runs(seen: &Seen) -> bool {
    seen.condition("Ready").is_some_and(|ready| RUNS.contains(&ready.reason.as_str()))
}

fn counted(letters: usize) -> String {
    match letters {
        1 => "1 dead letter".to_owned(),
        number if number < LISTED => format!("{number} dead letters"),
        number => format!("{number} or more dead letters"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_status_does_not_list_is_not_counted_as_absent() {
        assert_eq!([counted(1), counted(19)], ["1 dead letter", "19 dead letters"]);
        assert_eq!(counted(20), "20 or more dead letters");
    }
}
