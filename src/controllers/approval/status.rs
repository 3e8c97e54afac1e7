//! What is reported of an Approval. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::tally::{Ignored, Made, Tally};
use crate::api::Approval;
use crate::api::approval::{ApprovalDecision, ApprovalSpec, ApprovalStatus, SubjectKind};
use crate::api::common::condition;
use crate::error::clean;
use crate::reconcile::conditions::Conditions;

/// What a pass found out.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What the votes say.
    pub counted: Tally,
    /// Votes through the Kubernetes API count.
    pub is_verified: bool,
}

/// Sets the decision, unless there is one: the first one stands (A3).
pub fn decide(status: &mut ApprovalStatus, made: &Made, now: Timestamp) {
    if status.decision.is_some() {
        return;
    }
    status.decision = Some(made.decision);
    status.decided_at = Some(now);
    status.decided_by = Some(clean(&made.by, 1024));
    status.reason = made.reason.as_deref().map(|reason| clean(reason, 1024));
}

/// Ends a decision that has not taken effect: what it was about changed before. Nothing else ever changes a decision, and this one lets nothing
/// through. Who had decided stays.
pub fn overtake(status: &mut ApprovalStatus) {
    let Some(decision) = status.decision.filter(|found| *found != ApprovalDecision::Superseded) else { return };
    if status.evidence.is_some() {
        return;
    }
    let before = status.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let reason = format!("it changed before this could take effect ({decision:?}{before})");
    status.decision = Some(ApprovalDecision::Superseded);
    status.refusal = None;
    status.reason = Some(clean(&reason, 1024));
}

/// What is asked, for people.
pub fn asks(spec: &ApprovalSpec) -> String {
    let what = match spec.subject.kind {
        SubjectKind::FileVersion => "a version",
        SubjectKind::Share => "a share",
        SubjectKind::Deletion => "the deletion",
        SubjectKind::Disposition => "the disposal",
        SubjectKind::HoldRelease => "the release of a hold on",
        SubjectKind::Reduction => "less protection of",
        SubjectKind::Document => "a required document",
    };
    let of = if matches!(spec.subject.kind, SubjectKind::HoldRelease | SubjectKind::Reduction) { "" } else { " of" };
    let path = spec.subject.path.as_deref().unwrap_or(&spec.subject.file_id);
    let who = if spec.requested_by.name.is_empty() { "somebody" } else { &spec.requested_by.name };
    format!("{what}{of} {path}, brought by {who}, needs {} approval(s); rule {}", spec.required(), spec.rule)
}

/// Until when it is kept: for good unless its decision took effect, and as long as its ticket waits to be closed.
pub fn kept_until(object: &Approval) -> Option<Timestamp> {
    let ttl = jiff::SignedDuration::from_secs(object.spec.ttl_after_decision_seconds?.into());
    let status = object.status.as_ref()?;
    let waits = status.ticket.as_ref().is_some_and(|ticket| ticket.error.is_some() && ticket.closed_at.is_none());
    let done_at = status.evidence.as_ref()?.recorded_at?;
    if waits { None } else { done_at.checked_add(ttl).ok() }
}

/// How it ended, for people.
pub fn tells(object: &Approval) -> String {
    let Some(status) = &object.status else { return String::new() };
    let decision = status.decision.map(|decision| format!("{decision:?}")).unwrap_or_default();
    let by = status.decided_by.as_deref().unwrap_or_default();
    let reason = status.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{decision} by {by}{reason}")
}

/// Conditions and summary; `judged` is what a pass found out, if one did.
pub fn describe(object: &Approval, status: &mut ApprovalStatus, judged: Option<&Judged>, now: Timestamp) {
    let generation = object.metadata.generation.unwrap_or_default();
    status.observed_generation = Some(generation);
    let last = std::mem::take(&mut status.conditions);
    let mut conditions = Conditions::after(&last, generation, now);
    match (status.decision, &status.evidence) {
        (None, _) => ready(&mut conditions, false, "AwaitingDecision", &waiting(object, &last, judged)),
        (Some(decision), None) => match &status.refusal {
            None => ready(&mut conditions, false, "BeingCarriedOut", &format!("{decision:?}; it is being carried out")),
            Some(why) => {
                let message = format!("{decision:?}, and File 360 refuses what follows from it: {why}");
                ready(&mut conditions, false, "Refused", &message);
                conditions.set("Stalled", true, "Refused", &message);
            }
        },
        (Some(decision), Some(_)) => {
            let by = status.decided_by.as_deref().unwrap_or_default();
            ready(&mut conditions, true, reason_of(decision), &format!("{decision:?} by {by}; carried out"));
        }
    }
    if let Some((ticket, why)) = status.ticket.as_ref().and_then(|ticket| Some((ticket, ticket.error.as_deref()?))) {
        let reason = if ticket.refused == Some(true) { "Refused" } else { "Unreachable" };
        conditions.set("TicketFailed", true, reason, why);
    }
    match judged {
        Some(judged) => {
            status.summary = Some(format!("{}/{}", judged.counted.approvals, object.spec.required()));
            if !judged.is_verified && ignored(judged, Ignored::Unverified) && status.decision.is_none() {
                let message = "votes through the Kubernetes API are ignored: the ValidatingAdmissionPolicy that proves who cast them is \
                               missing or changed; install it (docs/kinds/approval.md), or decide in the other system";
                conditions.set("ApproverUnverified", true, "PolicyMissing", message);
            }
        }
        None => {
            conditions.keep("ApproverUnverified");
        }
    }
    status.conditions = conditions.finish();
}

fn ready(conditions: &mut Conditions<'_>, is_ready: bool, reason: &str, message: &str) {
    conditions.set("Ready", is_ready, reason, message);
}

fn reason_of(decision: ApprovalDecision) -> &'static str {
    match decision {
        ApprovalDecision::Approved => "Approved",
        ApprovalDecision::Rejected => "Rejected",
        ApprovalDecision::TimedOut => "TimedOut",
        ApprovalDecision::Superseded => "Superseded",
    }
}

fn ignored(judged: &Judged, why: Ignored) -> bool {
    judged.counted.ignored.iter().any(|(_, found)| *found == why)
}

fn waiting(object: &Approval, last: &[Condition], judged: Option<&Judged>) -> String {
    let Some(judged) = judged else {
        return condition(last, "Ready").map_or_else(|| asks(&object.spec), |ready| ready.message.clone());
    };
    let mut text = format!("{} of {} approvals", judged.counted.approvals, object.spec.required());
    if object.spec.separates() && !object.spec.requested_by.is_known() {
        text.push_str(" (one more than the rule says: nobody knows who brought it, and that may be one of them)");
    }
    let whys = judged.counted.ignored.iter().take(4).map(|(by, why)| {
        let why = match why {
            Ignored::Unverified => "nothing proves who cast it",
            Ignored::Unmapped => "spec.principals of the Connection does not say who that is in File 360",
            Ignored::OwnThing => "who brought it cannot decide about it",
            Ignored::Twice => "the same person has voted before",
        };
        format!("the vote of {by} does not count: {why}")
    });
    for why in whys {
        text.push_str("; ");
        text.push_str(&why);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::approval::TicketStatus;

    #[test]
    fn a2_a_decision_is_overtaken_by_a_change_only_until_it_takes_effect() {
        let approved = || ApprovalStatus {
            decision: Some(ApprovalDecision::Approved),
            decided_by: Some("ann".into()),
            reason: Some("fine".into()),
            ..ApprovalStatus::default()
        };
        let mut status = approved();
        overtake(&mut status);
        overtake(&mut status);
        assert_eq!((status.decision, status.decided_by.as_deref()), (Some(ApprovalDecision::Superseded), Some("ann")));
        assert_eq!(status.reason.as_deref(), Some("it changed before this could take effect (Approved: fine)"));
        let mut status = ApprovalStatus { evidence: Some(crate::api::approval::Evidence::default()), ..approved() };
        overtake(&mut status);
        assert_eq!(status.decision, Some(ApprovalDecision::Approved), "it has taken effect");
        let mut open = ApprovalStatus::default();
        overtake(&mut open);
        assert_eq!(open.decision, None, "nobody decided");
    }

    #[test]
    fn that_nobody_knows_who_brought_it_is_said() {
        let object = |name: &str| -> Approval {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "a", "namespace": "n"},
                "spec": {"connectionRef": {"name": "f"}, "rule": "r", "policyHash": "", "requestedBy": {"name": name},
                    "separationOfDuties": true, "requestedAt": "2026-11-01T00:00:00Z",
                    "subject": {"kind": "FileVersion", "workspaceId": "w", "fileId": "i", "version": 1}},
            }))
            .unwrap()
        };
        let said = |name: &str| {
            let judged = Judged { counted: Tally::default(), is_verified: true };
            waiting(&object(name), &[], Some(&judged))
        };
        assert!(said("").starts_with("0 of 2 approvals (one more than the rule says"), "{}", said(""));
        assert_eq!(said("ann"), "0 of 1 approvals");
    }

    #[test]
    fn what_is_refused_for_good_is_said_by_a_condition_that_goes_with_its_cause() {
        let object: Approval = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {"connectionRef": {"name": "f"}, "rule": "r", "policyHash": "", "requestedBy": {},
                "requestedAt": "2026-11-01T00:00:00Z",
                "subject": {"kind": "FileVersion", "workspaceId": "w", "fileId": "i", "version": 1}},
        }))
        .unwrap();
        let reasons = |status: &ApprovalStatus| {
            let mut status = status.clone();
            describe(&object, &mut status, None, Timestamp::UNIX_EPOCH);
            let of = |one: &Condition| format!("{}={} {}", one.type_, one.status, one.reason);
            status.conditions.iter().map(of).collect::<Vec<_>>()
        };
        let mut status = ApprovalStatus { decision: Some(ApprovalDecision::Approved), ..ApprovalStatus::default() };
        status.refusal = Some("it is under a hold".into());
        status.ticket = Some(TicketStatus { error: Some("404".into()), refused: Some(true), ..TicketStatus::default() });
        assert_eq!(reasons(&status), ["Ready=False Refused", "Stalled=True Refused", "TicketFailed=True Refused"]);
        status.refusal = None;
        status.ticket = Some(TicketStatus { error: Some("503".into()), ..TicketStatus::default() });
        assert_eq!(reasons(&status), ["Ready=False BeingCarriedOut", "TicketFailed=True Unreachable"]);
        status.ticket = Some(TicketStatus::default());
        assert_eq!(reasons(&status), ["Ready=False BeingCarriedOut"]);
    }

    #[test]
    fn a3_the_first_decision_stands() {
        let made = |decision, by: &str| Made { decision, by: by.into(), reason: None };
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut status = ApprovalStatus::default();
        decide(&mut status, &made(ApprovalDecision::Rejected, "ann"), at(1));
        decide(&mut status, &made(ApprovalDecision::Approved, "bob"), at(2));
        assert_eq!((status.decision, status.decided_at), (Some(ApprovalDecision::Rejected), Some(at(1))));
        assert_eq!(status.decided_by.as_deref(), Some("ann"));
    }
}
