//! What is reported of a route. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::Outcome;
use crate::api::common::condition;
use crate::api::file_route::{FileRouteStatus, RuleCount};
use crate::api::{FileRoute, REQUESTED_AT};
use crate::error::{Disposition, Error, Kind};
use crate::reconcile::conditions::Conditions;
use crate::routes::engine::Snapshot;

/// The status after a pass.
pub fn after(object: &FileRoute, outcome: &Outcome, ingest_url: Option<String>, now: Timestamp) -> FileRouteStatus {
    let last = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let mut conditions = Conditions::after(&last.conditions, generation, now);
    let mut next = FileRouteStatus {
        observed_generation: Some(generation),
        last_handled_reconcile_at: object.annotations().get(REQUESTED_AT).cloned(),
        conditions: Vec::new(),
        dry_run: None,
        ingest_url,
        ..last.clone()
    };
    match outcome {
        Outcome::Runs(snapshot) => runs(&mut conditions, &mut next, snapshot, &object.name_any()),
        Outcome::Tried(found) => {
            conditions.set("Ready", true, "DryRun", &found.summary);
            next.dry_run = Some((**found).clone());
        }
        Outcome::Suspended => {
            let why = object.spec.suspend_reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let message = format!("suspended{why}; what arrives meanwhile is taken up afterwards");
            conditions.set("Ready", false, "Suspended", &message);
            conditions.set("Suspended", true, "Suspended", &message);
        }
        Outcome::Failed(error) => failed(&mut conditions, error),
    }
    next.conditions = conditions.finish();
    next
}

fn runs(conditions: &mut Conditions<'_>, next: &mut FileRouteStatus, snapshot: &Snapshot, name: &str) {
    next.counts = Some(snapshot.counts);
    next.rules = snapshot.rules.iter().map(|(name, matched)| RuleCount { name: name.clone(), matched: *matched }).collect();
    next.checkpoint.clone_from(&snapshot.checkpoint);
    next.dead_letters.clone_from(&snapshot.dead_letters);
    next.inventory.clone_from(&snapshot.inventory);
    match &snapshot.trouble {
        Some(why) => {
            conditions.set("Ready", false, "SourceUnavailable", &format!("the source cannot be read: {why}; trying again"));
            conditions.set("Reconciling", true, "SourceUnavailable", "reading goes on once the source answers");
        }
        None if snapshot.stuck.is_some() => {
            let why = snapshot.stuck.as_deref().unwrap_or_default();
            conditions.set("Ready", false, "QueueUnavailable", &format!("files wait: {why}; trying again"));
            conditions.set("Reconciling", true, "QueueUnavailable", "work goes on once the queue or a worker takes it");
        }
        None if !snapshot.is_caught_up => {
            conditions.set("Ready", false, "Reading", "files that were there before are being looked at");
            conditions.set("Reconciling", true, "Reading", "files that were there before are being looked at");
        }
        None => {
            conditions.set("Ready", true, "Running", "files are taken up as they come");
        }
    }
    if snapshot.waiting > 0 {
        let why = match snapshot.away.first() {
            Some((name, why)) => format!("destination {name} does not answer: {why}"),
            None => "a delivery failed and is tried again".to_owned(),
        };
        conditions.set("Backlogged", true, "DeliveriesWait", &format!("files wait for another try; {why}"));
    }
    if let Some(found) = snapshot.inventory.as_ref().filter(|found| found.unaccounted > 0) {
        let first = found.findings.first();
        let example = first.map(|finding| format!("; {}: {:?} {}", finding.file, finding.found, finding.destination));
        let message = format!(
            "the inventory found {} of {} files that are not accounted for{}",
            found.unaccounted,
            found.files,
            example.unwrap_or_default().trim_end()
        );
        conditions.set("Unaccounted", true, "FilesUnaccounted", &message);
    }
    if snapshot.dead > 0 {
        let first = snapshot.dead_letters.first();
        let example = first.map(|letter| format!("; {}: {}", letter.file, letter.error)).unwrap_or_default();
        let message = format!(
            "{} deliveries were given up{example}. Correct the cause, then run: kubectl file360 replay {name}",
            snapshot.dead
        );
        conditions.set("DeadLetters", true, "DeliveriesGivenUp", &message);
    }
}

fn failed(conditions: &mut Conditions<'_>, error: &Error) {
    let reason = reason(error);
    let message = error.to_string();
    conditions.set("Ready", false, reason, &message);
    if error.disposition() == Disposition::Terminal {
        conditions.set("Stalled", true, reason, &message);
    } else {
        conditions.set("Reconciling", true, reason, &message);
    }
}

/// The reason of a failure: a closed set (docs/reasons.md).
fn reason(error: &Error) -> &'static str {
    match (error.code.as_str(), error.kind) {
        ("connection-not-granted", _) => "ConnectionNotGranted",
        ("invalid-expression", _) => "InvalidExpression",
        ("tests-failed", _) => "TestsFailed",
        ("tenant-scope-needed", _) => "ScopeNotGranted",
        ("invalid-spec", _) => "InvalidSpec",
        (_, Kind::Unsupported) => "Unsupported",
        (_, Kind::Reference) => "ReferenceNotFound",
        (_, Kind::Unavailable | Kind::RateLimited | Kind::Tls) => "ConnectionUnavailable",
        _ => "Failed",
    }
}

/// Adds what the route's gates hold back.
pub fn await_approval(object: &FileRoute, next: &mut FileRouteStatus, awaiting: u64, now: Timestamp) {
    let known = next.counts.map(|counts| counts.awaiting_approval).unwrap_or_default();
    if awaiting == 0 && known == 0 {
        return;
    }
    next.counts.get_or_insert_default().awaiting_approval = awaiting;
    if awaiting == 0 {
        return;
    }
    let last = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let message = format!(
        "{awaiting} held back until a decision: kubectl get approvals --field-selector spec.route={}",
        object.name_any()
    );
    let mut conditions = Conditions::after(last, object.metadata.generation.unwrap_or_default(), now);
    conditions.set("AwaitingApproval", true, "ApprovalsPending", &message);
    next.conditions.extend(conditions.finish());
}

/// Whether two statuses differ in nothing but totals and positions.
pub fn differ_in_numbers_only(last: Option<&FileRouteStatus>, next: &FileRouteStatus) -> bool {
    let Some(last) = last else { return false };
    let same = FileRouteStatus {
        counts: next.counts,
        rules: next.rules.clone(),
        checkpoint: next.checkpoint.clone(),
        conditions: with_messages_of(&last.conditions, &next.conditions),
        ..last.clone()
    };
    same == *next && last.counts.is_some()
}

/// Messages carry numbers, too: one that alone changed waits with them.
fn with_messages_of(last: &[Condition], next: &[Condition]) -> Vec<Condition> {
    let message = |condition: &Condition| {
        let same = next.iter().find(|other| other.type_ == condition.type_);
        same.map_or_else(|| condition.message.clone(), |same| same.message.clone())
    };
    last.iter().map(|condition| Condition { message: message(condition), ..condition.clone() }).collect()
}

/// Events: on transitions only. Each with whether it is a warning.
pub fn events(last: Option<&FileRouteStatus>, next: &FileRouteStatus) -> Vec<(bool, String, String)> {
    let before = last.map(|last| last.conditions.as_slice()).unwrap_or_default();
    let told = |kind: &str| condition(before, kind).map(|condition| (condition.status.clone(), condition.reason.clone()));
    let changed = next.conditions.iter().filter(|now| {
        matches!(now.type_.as_str(), "Ready" | "DeadLetters" | "Backlogged" | "Unaccounted")
            && told(&now.type_) != Some((now.status.clone(), now.reason.clone()))
    });
    changed
        .map(|now| {
            let warning =
                (now.type_ == "Ready") == (now.status == "False") && now.reason != "Suspended" && now.reason != "Reading";
            (warning, now.reason.clone(), now.message.clone())
        })
        .collect()
}
