//! The rights that the operator needs, and no others. The chart and the kustomize base are made from this list.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::GROUP;

/// What the operator does with its own kinds and with what they refer to. Bound cluster-wide, or in one namespace with
/// `--namespace`. Secrets and ConfigMaps are read one by one, never listed or watched.
pub fn manager() -> Vec<PolicyRule> {
    vec![
        rule(GROUP, &["connections", "secureworkspaces", "secureworkspacesets"], &["get", "list", "watch", "patch"]),
        // What sets generate.
        rule(GROUP, &["secureworkspaces"], &["create", "delete"]),
        rule(GROUP, &["fileroutes"], &["get", "list", "watch"]),
        rule(GROUP, &["approvals"], &["get", "list", "watch", "create", "delete"]),
        rule(
            GROUP,
            &[
                "approvals/status",
                "connections/status",
                "fileroutes/status",
                "secureworkspaces/status",
                "secureworkspacesets/status",
            ],
            &["patch"],
        ),
        // Lets the operator name a resource as the owner of the Secret it writes.
        rule(GROUP, &["secureworkspaces/finalizers"], &["update"]),
        rule("", &["secrets"], &["get", "create", "patch", "delete"]),
        rule("", &["configmaps"], &["get"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ]
}

/// What needs a cluster-wide binding: the labels of namespaces, for grants by selector, and the identity of the cluster; and whether the policy is
/// in force that proves who votes on an Approval.
pub fn cluster() -> Vec<PolicyRule> {
    vec![
        rule("", &["namespaces"], &["get", "list", "watch"]),
        rule(
            "admissionregistration.k8s.io",
            &["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
            &["get"],
        ),
    ]
}

/// Leader election, in the operator's own namespace.
pub fn leader_election() -> Vec<PolicyRule> {
    vec![rule("coordination.k8s.io", &["leases"], &["get", "create", "update"])]
}

/// What a worker does: it reads what a job names, one object at a time, and writes nothing.
pub fn worker() -> Vec<PolicyRule> {
    vec![
        rule(GROUP, &["connections", "fileroutes", "secureworkspaces"], &["get"]),
        rule("", &["secrets", "configmaps"], &["get"]),
    ]
}

/// What a worker needs of the cluster: the labels of one namespace at a time, and the identity of the cluster.
pub fn worker_cluster() -> Vec<PolicyRule> {
    vec![rule("", &["namespaces"], &["get"])]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t2_secrets_are_never_listed_and_nothing_is_a_wildcard() {
        let all: Vec<PolicyRule> = [manager(), cluster(), leader_election(), worker(), worker_cluster()].concat();
        for rule in &all {
            let resources = rule.resources.clone().unwrap_or_default();
            assert!(rule.verbs.iter().all(|verb| verb != "*") && resources.iter().all(|resource| resource != "*"));
            if resources.iter().any(|resource| resource == "secrets" || resource == "configmaps") {
                assert!(rule.verbs.iter().all(|verb| verb != "list" && verb != "watch"), "{rule:?}");
            }
        }
        assert!([worker(), worker_cluster()].concat().iter().all(|rule| rule.verbs == ["get"]), "a worker only reads");
    }
}
