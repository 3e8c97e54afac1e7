//! What is reported of a set. Pure.

use jiff::Timestamp;
use kube::ResourceExt;

use super::pass::Findings;
use crate::api::common::condition;
use crate::api::secure_workspace_set::SecureWorkspaceSetStatus;
use crate::api::{REQUESTED_AT, SecureWorkspaceSet};
use crate::error::{Disposition, Error, Kind};
use crate::reconcile::conditions::Conditions;

/// What a pass came to.
pub enum Outcome {
    /// Items were looked at.
    Looked(Box<Findings>),
    /// Suspended.
    Suspended,
    /// It cannot generate.
    Failed(Error),
    /// It is being deleted, and its SecureWorkspaces are too many to go with it: keys, their number, the limit.
    Kept(Vec<String>, usize, usize),
}

/// The status after a pass.
pub fn after(object: &SecureWorkspaceSet, outcome: &Outcome, now: Timestamp) -> SecureWorkspaceSetStatus {
    let last = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let mut conditions = Conditions::after(&last.conditions, generation, now);
    let mut next = SecureWorkspaceSetStatus {
        observed_generation: Some(generation),
        last_handled_reconcile_at: object.annotations().get(REQUESTED_AT).cloned(),
        conditions: Vec::new(),
        removals: Vec::new(),
        ..last.clone()
    };
    match outcome {
        Outcome::Looked(findings) => looked(&mut conditions, &mut next, findings),
        Outcome::Suspended => {
            let why = object.spec.suspend_reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let message = format!("suspended{why}; nothing is generated or removed meanwhile");
            conditions.set("Ready", false, "Suspended", &message);
            conditions.set("Suspended", true, "Suspended", &message);
        }
        Outcome::Failed(error) => failed(&mut conditions, error),
        Outcome::Kept(keys, count, max) => {
            let message = too_many(*count, *max, keys);
            conditions.set("Ready", false, "RemovalBlocked", &message);
            conditions.set("RemovalBlocked", true, "TooManyRemovals", &message);
            next.removals.clone_from(keys);
        }
    }
    next.conditions = conditions.finish();
    next
}

/// The status while the first pass over a generation takes long.
pub fn progressing(object: &SecureWorkspaceSet, now: Timestamp) -> SecureWorkspaceSetStatus {
    let last = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let mut conditions = Conditions::after(&last.conditions, generation, now);
    conditions.set_status("Ready", "Unknown", "Progressing", "the items are being listed and their workspaces made");
    conditions.set("Reconciling", true, "Progressing", "the items are being listed and their workspaces made");
    SecureWorkspaceSetStatus { conditions: conditions.finish(), ..last }
}

fn looked(conditions: &mut Conditions<'_>, next: &mut SecureWorkspaceSetStatus, findings: &Findings) {
    next.items = Some(findings.items);
    next.ready = Some(findings.ready);
    next.failed = Some(findings.failed);
    next.failures.clone_from(&findings.failures);
    next.generators.clone_from(&findings.generators);
    let all_ready = findings.ready == findings.items && findings.failed == 0;
    let ratio = format!("{} of {} items are ready", findings.ready, findings.items);
    conditions.set("ChildrenReady", all_ready, if all_ready { "AllReady" } else { "NotAllReady" }, &ratio);
    let mut trouble = |reason: &str, message: &str| {
        conditions.set("Ready", false, reason, message);
        conditions.set("Reconciling", true, reason, message);
    };
    if let Some((name, error)) = &findings.error {
        let reason = if error.kind == Kind::Reference { "ReferenceNotFound" } else { "SourceUnavailable" };
        trouble(reason, &format!("generator {name}: {error}; nothing is removed meanwhile, and it is tried again"));
    } else if let Some((keys, count, max)) = &findings.blocked {
        let message = too_many(*count, *max, keys);
        conditions.set("Ready", false, "RemovalBlocked", &message);
        conditions.set("RemovalBlocked", true, "TooManyRemovals", &message);
        next.removals.clone_from(keys);
    } else if let Some(name) = &findings.empty {
        let message = format!(
            "generator {name}: its listing is empty, though it had items; none is removed. If they are really gone, delete their SecureWorkspaces"
        );
        conditions.set("Ready", false, "RemovalBlocked", &message);
        conditions.set("RemovalBlocked", true, "EmptyListing", &message);
    } else if let Some((name, why)) = &findings.incomplete {
        trouble("ListingIncomplete", &format!("generator {name}: {why}; nothing is removed meanwhile"));
    } else if findings.failed > 0 {
        let first = findings.failures.first();
        let example = first.map(|failure| format!("; {}: {}", failure.key, failure.message)).unwrap_or_default();
        trouble("ItemsFailed", &format!("{} items have no workspace as declared{example}", findings.failed));
    } else {
        conditions.set("Ready", true, "Generated", "every item has its SecureWorkspace");
    }
}

fn too_many(count: usize, max: usize, keys: &[String]) -> String {
    let first: Vec<&str> = keys.iter().take(5).map(String::as_str).collect();
    format!(
        "{count} SecureWorkspaces would be removed, and spec.maxRemovals is {max}; none was. The first: {}; status.removals lists more",
        first.join(", ")
    )
}

fn failed(conditions: &mut Conditions<'_>, error: &Error) {
    let reason = match (error.code.as_str(), error.kind) {
        ("connection-not-granted", _) => "ConnectionNotGranted",
        ("invalid-expression", _) => "InvalidExpression",
        ("invalid-spec", _) => "InvalidSpec",
        (_, Kind::Reference) => "ReferenceNotFound",
        (_, Kind::Kubernetes) => "KubernetesApiFailed",
        _ => "Failed",
    };
    let message = error.to_string();
    conditions.set("Ready", false, reason, &message);
    let next = if error.disposition() == Disposition::Terminal { "Stalled" } else { "Reconciling" };
    conditions.set(next, true, reason, &message);
}

/// Events: on transitions only. Each with whether it is a warning.
pub fn events(last: Option<&SecureWorkspaceSetStatus>, next: &SecureWorkspaceSetStatus) -> Vec<(bool, String, String)> {
    let before = last.map(|last| last.conditions.as_slice()).unwrap_or_default();
    let told = |kind: &str| condition(before, kind).map(|condition| (condition.status.clone(), condition.reason.clone()));
    let changed = next
        .conditions
        .iter()
        .filter(|now| now.type_ == "Ready" && told(&now.type_) != Some((now.status.clone(), now.reason.clone())));
    changed
        .map(|now| {
            let warning = now.status == "False" && now.reason != "Suspended";
            (warning, now.reason.clone(), now.message.clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::common::is_true;

    fn object() -> SecureWorkspaceSet {
        serde_json::from_value(json!({
            "apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspaceSet",
            "metadata": {"name": "deals", "namespace": "sales", "generation": 3},
            "spec": {"connectionRef": {"name": "c"}, "generators": [{"name": "l", "list": {"items": [{"id": "a"}], "key": "item.id"}}],
                "template": {"spec": {"displayName": "x"}}},
        }))
        .unwrap()
    }

    fn reason(outcome: &Outcome) -> (String, String, bool) {
        let status = after(&object(), outcome, Timestamp::UNIX_EPOCH);
        let ready = condition(&status.conditions, "Ready").unwrap();
        assert_eq!(status.observed_generation, Some(3));
        (ready.status.clone(), ready.reason.clone(), is_true(&status.conditions, "RemovalBlocked"))
    }

    #[test]
    fn what_keeps_the_set_from_being_right_is_told_first() {
        let looked = |findings: Findings| reason(&Outcome::Looked(Box::new(findings)));
        let down = || Some(("crm".to_owned(), Error::new(Kind::Unavailable, "down")));
        let cases = [
            (Findings::default(), ("True", "Generated", false)),
            (Findings { failed: 1, ..Findings::default() }, ("False", "ItemsFailed", false)),
            (
                Findings { incomplete: Some(("crm".into(), "too many".into())), failed: 1, ..Findings::default() },
                ("False", "ListingIncomplete", false),
            ),
            (Findings { empty: Some("crm".into()), ..Findings::default() }, ("False", "RemovalBlocked", true)),
            (
                Findings { blocked: Some((vec!["a".into()], 12, 10)), ..Findings::default() },
                ("False", "RemovalBlocked", true),
            ),
            (Findings { error: down(), failed: 1, ..Findings::default() }, ("False", "SourceUnavailable", false)),
        ];
        for (findings, (status, expected, blocked)) in cases {
            assert_eq!(looked(findings), (status.to_owned(), expected.to_owned(), blocked));
        }
        assert_eq!(reason(&Outcome::Suspended), ("False".into(), "Suspended".into(), false));
        assert_eq!(reason(&Outcome::Kept(vec![], 12, 10)), ("False".into(), "RemovalBlocked".into(), true));
    }

    #[test]
    fn c6_the_same_findings_give_the_same_status() {
        let outcome = Outcome::Looked(Box::new(Findings { items: 3, ready: 2, ..Findings::default() }));
        let mut object = object();
        let first = after(&object, &outcome, Timestamp::UNIX_EPOCH);
        object.status = Some(first.clone());
        assert_eq!(after(&object, &outcome, Timestamp::MAX), first);
        assert!(events(Some(&first), &first).is_empty());
        assert_eq!(events(None, &first).len(), 1);
    }
}
