//! What happened → status. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::cleanup::Obstacle;
use super::documents::Documents;
use super::plan::{Observed, Plan, Step};
use super::unsupported::line;
use crate::api::common::{condition, is_true};
use crate::api::documents::{DocumentReason, DocumentState, DocumentsStatus, RequirementStatus};
use crate::api::secure_workspace::{AccessStatus, Applied, DriftItem, DriftStatus, SecureWorkspaceStatus, UnsupportedField};
use crate::api::{HANDOVER, REQUESTED_AT, SecureWorkspace};
use crate::documents::machine::is_met;
use crate::error::{Disposition, Error, Kind, clean};
use crate::file360::model::PrincipalKind;
use crate::reconcile::conditions::Conditions;
use crate::session::Foreign;

/// Changes that the status lists.
const LISTED_DRIFT: usize = 20;
/// The condition that says whether all required documents are there.
pub const DOCUMENTS_COMPLETE: &str = "DocumentsComplete";
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Reason for a resource whose Connection has been away for long.
pub const CONNECTION_UNAVAILABLE: &str = "ConnectionUnavailable";

/// Why a plan is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// `spec.suspend`.
    Suspended,
    /// `mode: Plan`.
    PlanOnly,
    /// `mode: Approve` without `approvedPlan`.
    AwaitingApproval,
    /// `approvedPlan` names another plan.
    PlanChanged,
    /// More removals than `maxRemovals`.
    TooManyRemovals {
        /// How many.
        removals: usize,
        /// How many are allowed.
        max: usize,
    },
}

/// What a pass found and did.
#[derive(Default)]
pub struct Report {
    /// What is there, as far as known.
    pub observed: Observed,
    /// What is to be done, and what differs and stays.
    pub plan: Plan,
    /// Set when File 360 is as declared.
    pub applied: Option<Applied>,
    /// Why the plan is not run.
    pub blocked: Option<Blocked>,
    /// The resource is suspended.
    pub suspended: bool,
    /// What failed.
    pub error: Option<Error>,
    /// What stands in the way of the deletion.
    pub obstacle: Option<Obstacle>,
    /// Who changed File 360 last.
    pub foreign: Option<Foreign>,
    /// Somebody keeps undoing corrections.
    pub fighting: bool,
    /// The clock alone changes the state then.
    pub next_change_at: Option<Timestamp>,
    /// Secrets that carry addresses.
    pub secrets: Vec<String>,
    /// The creation found an existing workspace.
    pub existed: bool,
    /// The workspace was given up.
    pub handed_over: bool,
    /// Fields that the driver cannot honour; `None`: the pass did not come that far.
    pub unsupported: Option<Vec<UnsupportedField>>,
    /// The driver tells who has access.
    pub sees_access: bool,
    /// What became of the required documents; `None`: there are none, or they were not looked at.
    pub documents: Option<Documents>,
}

impl Default for Observed {
    fn default() -> Self {
        Self::nothing()
    }
}

/// The status after a pass. A pass that failed keeps what earlier passes and its own finished steps learned.
pub fn after(object: &SecureWorkspace, report: &Report, now: Timestamp) -> SecureWorkspaceStatus {
    let last = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let token = object.annotations().get(REQUESTED_AT).cloned();
    let mut next = SecureWorkspaceStatus {
        observed_generation: Some(generation),
        last_handled_reconcile_at: token.or(last.last_handled_reconcile_at.clone()),
        conditions: Vec::new(),
        plan: None,
        ..last.clone()
    };
    if let Some(workspace) = &report.observed.workspace {
        next.workspace_id = Some(workspace.id.clone());
        next.url = Some(clean(&workspace.url, 2048));
        next.revision = i64::try_from(workspace.revision).ok();
        next.access = report.sees_access.then(|| access(&report.observed, now));
    }
    let declared = |name: &str| object.spec.report.iter().flatten().any(|spec| spec.name == name);
    next.reports.retain(|status| declared(&status.name));
    if let Some(unsupported) = &report.unsupported {
        next.unsupported.clone_from(unsupported);
    }
    let mut conditions = Conditions::after(&last.conditions, generation, now);
    if let Some(obstacle) = &report.obstacle {
        conditions.keep("Ready").keep(DOCUMENTS_COMPLETE);
        conditions.set_reason_since("DeletionBlocked", obstacle.reason, &obstacle.message);
    } else if let Some(error) = &report.error {
        match &report.documents {
            Some(documents) => {
                documented(&mut next, &mut conditions, documents, now);
                let ahead = last.next_change_at.filter(|at| *at > now);
                next.next_change_at = documents.next_change_at.into_iter().chain(ahead).min();
            }
            // C5: what could not be read is neither there nor missing.
            None => keep_documents(&mut conditions, &last, generation, now),
        }
        failed(&mut conditions, error);
    } else if report.handed_over {
        let message = "The workspace was given up and stays as it is. Delete this resource, or remove the annotation file360.io/handover to take it up again.";
        conditions.set("Ready", false, "HandedOver", message);
        conditions.set("HandedOver", true, "HandedOver", message);
        next.drift = None;
        next.documents = None;
        next.requirements = Vec::new();
        next.next_change_at = None;
    } else {
        next.drift = drift(&last, report, now);
        next.next_change_at = report.next_change_at;
        if let Some(applied) = &report.applied {
            next.applied = Some(applied.clone());
            next.secrets.clone_from(&report.secrets);
        }
        next.plan = report.blocked.as_ref().map(|_| report.plan.status());
        judged(&mut conditions, object, report, next.drift.as_ref());
        let asks = object.spec.required_documents.as_ref().is_some_and(|documents| !documents.is_empty());
        let unsupported = next.unsupported.iter().any(|one| one.field == "spec.requiredDocuments");
        match &report.documents {
            Some(documents) => documented(&mut next, &mut conditions, documents, now),
            None if asks && !unsupported => keep_documents(&mut conditions, &last, generation, now),
            None => {
                next.documents = None;
                next.requirements = Vec::new();
            }
        }
        if report.blocked.is_none() && !next.unsupported.is_empty() {
            let message = format!(
                "What the driver can do is as declared, but it cannot honour {}. Remove these fields, or use a Connection whose driver can (its status.enforcement).",
                line(&next.unsupported)
            );
            conditions.set("Ready", false, "Unsupported", &message);
            conditions.set("Stalled", true, "Unsupported", &message);
        }
    }
    next.conditions = conditions.finish();
    next
}

/// Keeps what was said about the documents while it can still be true: for this spec, and not after the end of something that counted.
fn keep_documents(conditions: &mut Conditions<'_>, last: &SecureWorkspaceStatus, generation: i64, now: Timestamp) {
    let Some(known) = condition(&last.conditions, DOCUMENTS_COMPLETE) else { return };
    let why = if known.observed_generation != Some(generation) {
        "the spec changed, and the documents could not be looked at since"
    } else if is_overdue(last, now) {
        "the end of a document that counted has passed, and the documents could not be looked at since"
    } else {
        conditions.keep(DOCUMENTS_COMPLETE);
        return;
    };
    conditions.set_status(DOCUMENTS_COMPLETE, "Unknown", "NotLookedAt", &format!("Not known: {why}."));
}

/// Something that counted at the last look has come to its end by now. In its grace, only the next change tells.
fn is_overdue(last: &SecureWorkspaceStatus, now: Timestamp) -> bool {
    let met = last.requirements.iter().filter(|row| is_met(row.state));
    met.filter_map(|row| row.valid_until.map(|until| (row, until))).any(|(row, until)| {
        let end = if row.reason == Some(DocumentReason::InGrace) { last.next_change_at } else { Some(until) };
        end.is_some_and(|end| end <= now)
    })
}

/// The status of an object whose tenant is away while a document came to its end; `None`: what it says can still be true.
pub fn doubtful(object: &SecureWorkspace, now: Timestamp) -> Option<SecureWorkspaceStatus> {
    let last = object.status.as_ref()?;
    let known = condition(&last.conditions, DOCUMENTS_COMPLETE)?;
    if known.status == "Unknown" || !is_overdue(last, now) {
        return None;
    }
    let generation = known.observed_generation.unwrap_or_default();
    let mut conditions = Conditions::after(&last.conditions, generation, now);
    for other in last.conditions.iter().filter(|other| other.type_ != DOCUMENTS_COMPLETE) {
        conditions.keep(&other.type_);
    }
    keep_documents(&mut conditions, last, generation, now);
    Some(SecureWorkspaceStatus { conditions: conditions.finish(), ..last.clone() })
}

/// The part of the status about required documents.
fn documented(next: &mut SecureWorkspaceStatus, conditions: &mut Conditions<'_>, documents: &Documents, now: Timestamp) {
    let mut rows = documents.requirements.clone();
    for row in &mut rows {
        let before = next.requirements.iter().find(|before| before.name == row.name && before.state == row.state);
        row.since = Some(before.and_then(|before| before.since).unwrap_or(now));
    }
    let mut counts = counted(&rows);
    counts.time_zone.clone_from(&documents.zone);
    counts.labels = Some(documents.labels.clone());
    counts.reminder.clone_from(&documents.reminder);
    let last = next.documents.as_ref();
    let known = last.and_then(|last| last.content_revision);
    counts.content_revision = known;
    // It goes along with other news: what happens to files that do not matter here is no reason to write.
    if last != Some(&counts) || next.requirements != rows || known.is_none() {
        counts.content_revision = documents.content_revision.and_then(|revision| i64::try_from(revision).ok());
    }
    let open: Vec<&RequirementStatus> = rows.iter().filter(|row| !is_met(row.state)).collect();
    if open.is_empty() {
        let message = format!("{} documents are there.", counts.summary);
        conditions.set(DOCUMENTS_COMPLETE, true, "DocumentsComplete", &message);
    } else {
        let named: Vec<String> = open.iter().map(|row| outstanding(row)).collect();
        let message = format!("{} documents are there. Outstanding: {}.", counts.summary, named.join("; "));
        conditions.set(DOCUMENTS_COMPLETE, false, "DocumentsOutstanding", &message);
    }
    next.documents = Some(counts);
    next.requirements = rows;
}

/// One outstanding document, for people.
fn outstanding(row: &RequirementStatus) -> String {
    let reason = row.reason.map(|reason| format!(", {reason:?}")).unwrap_or_default();
    let message = row.message.as_ref().map(|message| format!(": {}", clean(message, 120))).unwrap_or_default();
    format!("{} ({:?}{reason}{message})", row.name, row.state)
}

/// How many documents there are, by state.
pub(super) fn counted(rows: &[RequirementStatus]) -> DocumentsStatus {
    use DocumentState as S;
    let of = |states: &[DocumentState]| {
        u32::try_from(rows.iter().filter(|row| states.contains(&row.state)).count()).unwrap_or(u32::MAX)
    };
    let required = u32::try_from(rows.len()).unwrap_or(u32::MAX) - of(&[S::NotApplicable]);
    DocumentsStatus {
        summary: format!("{}/{required}", of(&[S::Approved, S::ExpiringSoon, S::Waived])),
        required,
        approved: of(&[S::Approved]),
        missing: of(&[S::Missing]),
        expired: of(&[S::Expired]),
        expiring_soon: of(&[S::ExpiringSoon]),
        in_review: of(&[S::Received, S::InReview]),
        rejected: of(&[S::Rejected]),
        waived: of(&[S::Waived]),
        reminder: None,
        time_zone: String::new(),
        labels: None,
        content_revision: None,
    }
}

/// The Event for a change of `DocumentsComplete`: whether it is a warning, reason and message. That documents are outstanding at first is
/// no news.
pub fn completed(last: Option<&SecureWorkspaceStatus>, next: &SecureWorkspaceStatus) -> Option<(bool, String, String)> {
    let now = condition(&next.conditions, DOCUMENTS_COMPLETE)?;
    let before = last.and_then(|last| condition(&last.conditions, DOCUMENTS_COMPLETE));
    let is_good = now.status == "True";
    let is_news = before.map_or(is_good, |before| before.status != now.status);
    is_news.then(|| (!is_good, now.reason.clone(), now.message.clone()))
}

fn failed(conditions: &mut Conditions<'_>, error: &Error) {
    let reason = reason_of(error);
    conditions.set("Ready", false, reason, &error.to_string());
    if error.disposition() == Disposition::Terminal && !error.is_outage() {
        conditions.set("Stalled", true, reason, &error.to_string());
    } else {
        conditions.set("Reconciling", true, reason, "Trying again.");
    }
}

/// The conditions of a pass that did not fail.
fn judged(conditions: &mut Conditions<'_>, object: &SecureWorkspace, report: &Report, drift: Option<&DriftStatus>) {
    match &report.blocked {
        None => {
            let message = match drift {
                None => "The workspace is as declared.",
                Some(_) => "The workspace is as declared but for what status.drift lists.",
            };
            conditions.set("Ready", true, "Converged", message);
        }
        Some(blocked) => held_back(conditions, blocked, &report.plan),
    }
    if report.suspended {
        let spec = &object.spec;
        let until = spec.suspend_until.map(|until| format!(" until {until}")).unwrap_or_default();
        let why = spec.suspend_reason.as_deref().unwrap_or("no reason given");
        conditions.set("Suspended", true, "Suspended", &format!("Suspended{until}: {why}."));
    }
    if let Some(drift) = drift {
        let (reason, message) = drifted(report, drift);
        conditions.set("Drifted", true, reason, &message);
    }
}

/// The conditions of a plan that is not run.
fn held_back(conditions: &mut Conditions<'_>, blocked: &Blocked, plan: &Plan) {
    let (reason, message) = match blocked {
        Blocked::Suspended => ("Suspended", "Suspended with changes outstanding; see status.plan.".to_owned()),
        Blocked::PlanOnly => ("Planned", "mode: Plan; status.plan says what would be done.".to_owned()),
        Blocked::AwaitingApproval => {
            ("AwaitingApproval", format!("The plan waits for approval: set spec.approvedPlan: {}.", plan.hash()))
        }
        Blocked::PlanChanged => {
            let message = format!(
                "The approved plan is not what would be done now; review status.plan and set spec.approvedPlan: {}.",
                plan.hash()
            );
            ("PlanChanged", message)
        }
        Blocked::TooManyRemovals { removals, max } => {
            let listed = plan.steps.iter().filter(|step| step.action.is_removal()).take(10);
            let listed: Vec<String> = listed.map(|step| step.action.to_string()).collect();
            let message = format!(
                "The plan removes {removals}, more than spec.maxRemovals ({max}): {}{}. If that is meant, raise spec.maxRemovals, or set spec.mode: Approve and approve the plan.",
                listed.join("; "),
                if *removals > 10 { "; …" } else { "" }
            );
            conditions.set("RemovalBlocked", true, "TooManyRemovals", &message);
            conditions.set("Stalled", true, "RemovalBlocked", &message);
            ("RemovalBlocked", message)
        }
    };
    conditions.set("Ready", false, reason, &message);
}

/// Reason and message of `Drifted`.
fn drifted(report: &Report, drift: &DriftStatus) -> (&'static str, String) {
    let items: Vec<&str> = drift.items.iter().take(5).map(|item| item.path.as_str()).collect();
    let items = items.join(", ");
    if report.fighting {
        let by = drift.items.iter().find_map(|item| item.by.as_deref()).unwrap_or("somebody");
        let message =
            format!("{by} keeps undoing what this resource declares ({items}); corrections pause. Settle who owns it.");
        ("DriftFight", message)
    } else if report.plan.tolerated.is_empty() {
        ("FolderNotEmpty", format!("No longer declared, but not empty: {items}. Move the content or declare the folder."))
    } else {
        ("Tolerated", format!("File 360 differs and is left so by spec.drift: {items}."))
    }
}

/// The reason of the Ready condition for a failure.
pub fn reason_of(error: &Error) -> &'static str {
    match (error.code.as_str(), error.kind) {
        ("invalid-spec", _) => "InvalidSpec",
        ("invalid-expression", _) => "InvalidExpression",
        ("principal-not-found", _) => "PrincipalNotFound",
        ("connection-not-granted", _) => "ConnectionNotGranted",
        ("connection-unavailable", _) => CONNECTION_UNAVAILABLE,
        ("sharing-ceiling-exceeded", _) => "SharingCeilingExceeded",
        ("sharing-policy-denied", _) => "SharingDenied",
        ("already-exists", _) => "AlreadyExists",
        ("owned-by-other", _) => "OwnedByOther",
        ("workspace-not-found", _) => "WorkspaceNotFound",
        ("secret-not-owned", _) => "SecretNotOwned",
        ("fenced", _) => "Fenced",
        ("unauthenticated", _) => CONNECTION_UNAVAILABLE,
        (_, Kind::Denied) => "AccessDenied",
        (_, Kind::Rejected) => "Rejected",
        (_, Kind::Unsupported) => "Unsupported",
        (_, Kind::Conflict) => "Conflict",
        (_, Kind::Stale) => "ChangedMeanwhile",
        (_, Kind::Reference | Kind::NotFound) => "ReferenceNotFound",
        (_, Kind::Kubernetes) => "KubernetesApiFailed",
        _ => CONNECTION_UNAVAILABLE,
    }
}

fn access(observed: &Observed, now: Timestamp) -> AccessStatus {
    let of_kind = |external: bool| {
        let members = observed.members.iter().filter(|member| (member.kind == PrincipalKind::Guest) == external);
        let distinct: BTreeSet<&str> = members.map(|member| member.principal_id.as_str()).collect();
        u32::try_from(distinct.len()).unwrap_or(u32::MAX)
    };
    let soon = |end: Timestamp| end > now && end.duration_since(now) <= WEEK;
    let expiring = observed.members.iter().filter(|member| member.expires_at.is_some_and(soon)).count();
    AccessStatus {
        internal: of_kind(false),
        external: of_kind(true),
        expiring_in7_days: u32::try_from(expiring).unwrap_or(u32::MAX),
    }
}

fn drift(last: &SecureWorkspaceStatus, report: &Report, now: Timestamp) -> Option<DriftStatus> {
    let known = |path: &str| last.drift.iter().flat_map(|drift| &drift.items).find(|item| item.path == path);
    let item = |path: String, want: Option<String>, have: Option<String>, by: Option<String>| {
        let before = known(&path);
        DriftItem {
            since: Some(before.and_then(|item| item.since).unwrap_or(now)),
            by: before.and_then(|item| item.by.clone()).or(by),
            path: clean(&path, 1400),
            want: want.map(|text| clean(&text, 1200)),
            have: have.map(|text| clean(&text, 1200)),
        }
    };
    let by = || report.foreign.as_ref().map(|foreign| foreign.by.clone());
    let tolerated = report.plan.tolerated.iter().map(|step: &Step| {
        let (want, have) = step.action.want_and_have();
        item(step.action.subject(), want, have, by())
    });
    let kept =
        report.plan.kept_folders.iter().map(|path| item(format!("folders{path}"), None, Some("has content".into()), None));
    let mut items: Vec<DriftItem> = tolerated.chain(kept).collect();
    let count = items.len();
    items.truncate(LISTED_DRIFT);
    (count > 0).then(|| DriftStatus {
        count: u32::try_from(count).unwrap_or(u32::MAX),
        items,
        truncated: count > LISTED_DRIFT,
    })
}

/// Whether a pass would find nothing to do, given the workspace's revision now.
pub fn is_settled(object: &SecureWorkspace, revision: u64, now: Timestamp) -> bool {
    let Some(status) = &object.status else { return false };
    object.metadata.deletion_timestamp.is_none()
        && status.observed_generation == object.metadata.generation
        && is_true(&status.conditions, "Ready")
        && condition(&status.conditions, "Reconciling").is_none()
        && status.revision == i64::try_from(revision).ok()
        && status.next_change_at.is_none_or(|at| at > now)
        && object
            .annotations()
            .get(REQUESTED_AT)
            .is_none_or(|token| Some(token) == status.last_handled_reconcile_at.as_ref())
        && !object.annotations().contains_key(HANDOVER)
        && is_suspended(object, now) == is_true(&status.conditions, "Suspended")
}

/// Whether somebody asked for a pass: by the spec, or by the annotation.
pub fn is_asked_for(object: &SecureWorkspace) -> bool {
    let status = object.status.as_ref();
    let token = object.annotations().get(REQUESTED_AT);
    status.and_then(|status| status.observed_generation) != object.metadata.generation
        || token.is_some_and(|token| Some(token) != status.and_then(|status| status.last_handled_reconcile_at.as_ref()))
}

/// Whether the resource is suspended now.
pub fn is_suspended(object: &SecureWorkspace, now: Timestamp) -> bool {
    object.spec.suspend == Some(true) && object.spec.suspend_until.is_none_or(|until| until > now)
}

/// Whether the status tells of an outage.
pub fn tells_of_outage(object: &SecureWorkspace) -> bool {
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition(conditions, "Ready").is_some_and(|ready| ready.status == "Unknown" && ready.reason == CONNECTION_UNAVAILABLE)
}

/// The status of an object whose pass takes long.
pub fn reconciling(object: &SecureWorkspace, now: Timestamp) -> SecureWorkspaceStatus {
    let last = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let mut conditions = Conditions::after(&last.conditions, generation, now);
    for known in &last.conditions {
        conditions.keep(&known.type_);
    }
    if condition(&last.conditions, "Ready").is_none() {
        conditions.set("Ready", false, "Progressing", "The first pass is under way.");
    }
    conditions.set("Reconciling", true, "Progressing", "A pass is under way.");
    SecureWorkspaceStatus { conditions: conditions.finish(), ..last }
}

/// The status of an object whose Connection has been away for long.
pub fn away(object: &SecureWorkspace, why: &str, now: Timestamp) -> SecureWorkspaceStatus {
    let last = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let mut conditions = Conditions::after(&last.conditions, generation, now);
    for known in last.conditions.iter().filter(|known| !matches!(&*known.type_, "Ready" | "Stalled" | DOCUMENTS_COMPLETE)) {
        conditions.keep(&known.type_);
    }
    keep_documents(&mut conditions, &last, generation, now);
    let message = format!("The Connection has been away for long; what is declared may differ from File 360. {why}");
    conditions.set_status("Ready", "Unknown", CONNECTION_UNAVAILABLE, &message);
    SecureWorkspaceStatus { conditions: conditions.finish(), ..last }
}

/// The Event for a change of Ready: whether it is a warning, reason and message. The first success is no news.
pub fn flipped(last: Option<&SecureWorkspaceStatus>, next: &SecureWorkspaceStatus) -> Option<(bool, String, String)> {
    let blocked =
        |status: &SecureWorkspaceStatus| condition(&status.conditions, "DeletionBlocked").map(|c| c.reason.clone());
    if let Some(now) = condition(&next.conditions, "DeletionBlocked") {
        let same = last.and_then(blocked).is_some_and(|reason| reason == now.reason);
        return (!same).then(|| (true, now.reason.clone(), now.message.clone()));
    }
    let before = last.and_then(|status| condition(&status.conditions, "Ready"));
    let now = condition(&next.conditions, "Ready")?;
    let is_good = now.status == "True";
    match before {
        None if is_good => None,
        Some(before) if before.status == now.status && before.reason == now.reason => None,
        // The end of an outage is the Connection's news; thousands of Events would say the same.
        Some(before) if before.status == "Unknown" && is_good => None,
        _ => Some((!is_good, now.reason.clone(), now.message.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// An object of a generation whose last look, at generation 1, found a document that counts until July.
    fn object(generation: i64, row: &Value) -> SecureWorkspace {
        let complete = json!({"type": "DocumentsComplete", "status": "True", "reason": "DocumentsComplete", "message": "",
            "observedGeneration": 1, "lastTransitionTime": "2027-01-01T00:00:00Z"});
        let mut row = row.clone();
        row["name"] = json!("iso");
        row["validUntil"] = json!("2027-07-01T00:00:00Z");
        serde_json::from_value(json!({
            "apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace",
            "metadata": {"name": "w", "namespace": "ns", "generation": generation},
            "spec": {"connectionRef": {"name": "c"}, "displayName": "W",
                "requiredDocuments": [{"name": "iso", "match": {"path": "/**"}}]},
            "status": {"observedGeneration": 1, "conditions": [complete], "requirements": [row],
                "nextChangeAt": "2027-07-11T00:00:00Z"},
        }))
        .unwrap()
    }

    fn after_a_failure(object: &SecureWorkspace, now: &str) -> String {
        let report = Report { error: Some(Error::new(Kind::Denied, "no")), ..Report::default() };
        let next = after(object, &report, at(now));
        condition(&next.conditions, DOCUMENTS_COMPLETE).map(|known| known.status.clone()).unwrap_or_default()
    }

    #[test]
    fn c5_a_failure_keeps_what_was_known_only_while_it_can_be_true() {
        let (before, later) = ("2027-06-30T23:59:59Z", "2027-07-01T00:00:00Z");
        let approved = json!({"state": "Approved"});
        assert_eq!(after_a_failure(&object(1, &approved), before), "True");
        assert_eq!(after_a_failure(&object(1, &approved), later), "Unknown");
        assert_eq!(after_a_failure(&object(2, &approved), before), "Unknown", "of another spec nothing is known");
        assert_eq!(after_a_failure(&object(1, &json!({"state": "Waived"})), later), "Unknown");
        let in_grace = json!({"state": "ExpiringSoon", "reason": "InGrace"});
        assert_eq!(after_a_failure(&object(1, &in_grace), later), "True", "its grace has not ended");
        assert_eq!(after_a_failure(&object(1, &in_grace), "2027-07-11T00:00:00Z"), "Unknown");
    }

    #[test]
    fn an_outage_says_nothing_new_until_a_document_comes_to_its_end() {
        let object = object(1, &json!({"state": "Approved"}));
        assert!(doubtful(&object, at("2027-06-30T00:00:00Z")).is_none());
        let next = doubtful(&object, at("2027-07-01T00:00:00Z")).unwrap();
        assert_eq!(condition(&next.conditions, DOCUMENTS_COMPLETE).unwrap().status, "Unknown");
        let told = SecureWorkspace { status: Some(next), ..object };
        assert!(doubtful(&told, at("2027-07-02T00:00:00Z")).is_none(), "once");
        let away = away(&told, "away", at("2027-07-02T00:00:00Z"));
        assert_eq!(condition(&away.conditions, DOCUMENTS_COMPLETE).unwrap().status, "Unknown");
    }

    #[test]
    fn a_pass_that_failed_after_the_look_says_what_the_look_found() {
        let object = object(1, &json!({"state": "Approved"}));
        let expired: RequirementStatus = serde_json::from_value(json!({"name": "iso", "state": "Expired"})).unwrap();
        let found = Documents {
            requirements: vec![expired],
            reminder: None,
            zone: "UTC".into(),
            labels: String::new(),
            content_revision: None,
            next_change_at: None,
        };
        let error = Some(Error::new(Kind::Denied, "a step"));
        let report = Report { error, documents: Some(found), ..Report::default() };
        let next = after(&object, &report, at("2027-07-02T00:00:00Z"));
        assert_eq!(condition(&next.conditions, DOCUMENTS_COMPLETE).unwrap().status, "False");
        assert_eq!(condition(&next.conditions, "Ready").unwrap().reason, "AccessDenied");
    }
}
