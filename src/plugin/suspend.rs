//! `suspend` and `resume`.

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::cluster::{Cluster, Target, Waited};
use super::object::Seen;
use super::reconcile::{Waiting, say_ready, too_late};
use super::text::Printer;
use super::{Access, Outcome};

/// Arguments of `suspend`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl file360 suspend -n procurement acme-onboarding --reason 'audit week'
  kubectl file360 suspend -n file360 connection/file360 --reason 'maintenance of the tenant' --until 4h

A suspended SecureWorkspace is still observed. A suspended SecureWorkspaceSet makes and removes nothing. A suspended
FileRoute takes up later what arrives meanwhile. A suspended Connection is not called at all.")]
pub struct SuspendArgs {
    /// NAME, secureworkspace/NAME, secureworkspaceset/NAME, fileroute/NAME or connection/NAME.
    name: Target,
    /// Why; shown in the status.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// When it ends by itself: an RFC 3339 time, or a time from now such as 30m, 4h or 7d.
    #[arg(long, value_name = "TIME", value_parser = until)]
    until: Option<Timestamp>,
    #[command(flatten)]
    waiting: Waiting,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl file360 resume -n procurement acme-onboarding")]
pub struct ResumeArgs {
    /// NAME, secureworkspace/NAME, secureworkspaceset/NAME, fileroute/NAME or connection/NAME.
    name: Target,
    #[command(flatten)]
    waiting: Waiting,
}

fn until(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let at = text.parse::<Timestamp>().ok().or_else(|| {
        let span: jiff::Span = text.parse().ok()?;
        Some(now.to_zoned(jiff::tz::TimeZone::UTC).checked_add(span).ok()?.timestamp())
    });
    let at = at.ok_or_else(|| format!("{text} is neither an RFC 3339 time nor a time from now such as 30m, 4h or 7d"))?;
    if at <= now {
        return Err(format!("{text} is in the past"));
    }
    // Whole seconds, as people write it.
    Timestamp::from_second(at.as_second()).map_err(|error| error.to_string())
}

/// Suspends and waits until the status confirms it.
pub async fn suspend(access: &Access, args: &SuspendArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let seen = cluster.get(&args.name).await?;
    let until = args.until.map(|until| until.to_string());
    let patch = json!({"spec": {"suspend": true, "suspendReason": args.reason, "suspendUntil": until}});
    let written = cluster.patch(&seen, &patch).await?;
    if args.waiting.no_wait {
        printer.print(&format!("{}: to be suspended", seen.title()));
        return Ok(true);
    }
    let confirmed = |now: &Seen| is_after(now, &written) && now.has("Suspended");
    match cluster.wait(&seen, args.waiting.timeout, confirmed).await? {
        Waited::Holds(now) => {
            let message = now.condition("Suspended").map(|condition| condition.message).unwrap_or_default();
            printer.print(&format!("{}: {message}", now.title()));
            Ok(true)
        }
        Waited::TooLate(now) => Err(too_late("confirm the suspension", &now, args.waiting.timeout)),
    }
}

/// Resumes and waits until the status confirms it; whether the resource is ready then.
pub async fn resume(access: &Access, args: &ResumeArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let seen = cluster.get(&args.name).await?;
    if !seen.is_suspended() && !seen.has("Suspended") {
        printer.print(&format!("{} is not suspended", seen.title()));
        return Ok(true);
    }
    let patch = json!({"spec": {"suspend": null, "suspendReason": null, "suspendUntil": null}});
    let written = cluster.patch(&seen, &patch).await?;
    if args.waiting.no_wait {
        printer.print(&format!("{}: to be resumed", seen.title()));
        return Ok(true);
    }
    let confirmed = |now: &Seen| is_after(now, &written) && !now.has("Suspended");
    // A route first looks at what arrived meanwhile.
    let settled = |now: &Seen| confirmed(now) && now.condition("Ready").is_none_or(|ready| ready.reason != "Reading");
    match cluster.wait(&seen, args.waiting.timeout, settled).await? {
        Waited::Holds(now) => Ok(say_ready(&now, printer)),
        Waited::TooLate(now) if confirmed(&now) => Ok(say_ready(&now, printer)),
        Waited::TooLate(now) => Err(too_late("confirm the end of the suspension", &now, args.waiting.timeout)),
    }
}

/// Whether the status speaks of what was written, or of something later.
fn is_after(now: &Seen, written: &Seen) -> bool {
    now.status["observedGeneration"].as_i64().is_some_and(|generation| generation >= written.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_time_or_a_time_from_now() {
        let in_minutes = |text: &str| until(text).unwrap().duration_since(Timestamp::now()).as_mins();
        assert!((28..=30).contains(&in_minutes("30m")));
        assert!((7 * 1440 - 2..=7 * 1440).contains(&in_minutes("7d")));
        assert_eq!(until("2100-01-01T00:00:00Z").unwrap().to_string(), "2100-01-01T00:00:00Z");
        assert!(until("2000-01-01T00:00:00Z").unwrap_err().contains("past"));
        assert!(until("soon").unwrap_err().contains("RFC 3339"));
    }
}
