//! Who votes on an Approval, and what nobody can do to one: against the shipped ValidatingAdmissionPolicy in a real API server.

use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::gates::approvals;
use super::routes::{apply, claims};
use crate::support::case_system::CaseSystem;
use crate::support::controlplane::ControlPlane;
use crate::support::world::{World, condition};
use crate::support::{eventually, kubernetes};
use file360_operator::api::admission;

/// A client that acts as somebody who may vote in the namespace.
pub async fn voter(world: &World, plane: &ControlPlane, name: &str) -> Api<DynamicObject> {
    let group = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "approver"}, "rules": [
        {"apiGroups": ["file360.io"], "resources": ["approvals"], "verbs": ["get", "list", "create", "update", "patch"]},
        {"apiGroups": ["file360.io"], "resources": ["approvals/status"], "verbs": ["patch", "update"]},
    ]});
    let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": format!("approver-{name}")},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "approver"},
        "subjects": [{"kind": "User", "name": name, "apiGroup": group}]});
    for manifest in [role, binding] {
        kubernetes::apply(&world.client, &world.namespace, &manifest).await.unwrap();
    }
    let kubeconfig = Kubeconfig::read_from(&plane.kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(name.to_owned());
    let client = Client::try_from(config).unwrap();
    let api = kubernetes::api(&client, &world.namespace, "file360.io/v1alpha1", "Approval");
    eventually("the right to read", || async {
        api.list(&ListParams::default()).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    api
}

pub fn vote(by: &str, decision: &str) -> Value {
    json!({"by": by, "decision": decision, "at": "2026-11-01T00:00:00Z"})
}

pub async fn try_status(api: &Api<DynamicObject>, name: &str, status: Value) -> Result<(), String> {
    let patch = json!({"status": status});
    let written = api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    written.map(drop).map_err(|error| error.to_string())
}

pub async fn install_policy(world: &World) {
    let operator = format!("system:serviceaccount:{}:operator", world.namespace);
    let version = "admissionregistration.k8s.io/v1";
    let policy = serde_json::to_value(admission::policy(admission::NAME, &operator)).unwrap();
    let binding = serde_json::to_value(admission::binding(admission::NAME)).unwrap();
    for (kind, manifest) in [("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding)] {
        let api: Api<DynamicObject> = Api::all_with(world.client.clone(), &kubernetes::resource(version, kind));
        api.patch(admission::NAME, &PatchParams::apply("tests"), &Patch::Apply(&manifest)).await.unwrap();
    }
}

/// A route whose gate asks two people and separates duties, without a ticket system.
fn gated(cases: &CaseSystem) -> Value {
    json!({
        "from": {"workspaces": {"selector": {}, "path": "/Inbox/**"}},
        "rules": [{"name": "all", "gate": {"actions": ["Upload"], "minApprovals": 2, "separationOfDuties": true},
            "to": [{"name": "case", "http": {"url": format!("{}/cases", cases.url)}}]}],
        "unmatched": {"ignore": {}},
    })
}

#[tokio::test]
async fn t6_nobody_votes_as_somebody_else_or_twice_or_decides_or_changes_a_decision() {
    let plane = ControlPlane::start(&[]);
    kubernetes::install_crds(&kubernetes::client(&plane.kubeconfig).await).await;
    let mut world = World::without_operator(&plane).await;
    world.start_cluster_operator(&["--secret-interval", "1s"]).await;
    world
        .apply_connection(json!({"principals": [
            {"username": "ann@corp", "file360": "user0"}, {"username": "bob@corp", "file360": "user1"},
        ]}))
        .await;
    world.condition("Connection", "file360", "Ready", "True").await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "pricing").await;
    apply(&world, "pricing", gated(&cases)).await;
    world.condition("FileRoute", "pricing", "Ready", "True").await;
    world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    let name = approvals(&world, 1).await[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let (ann, bob) = (voter(&world, &plane, "ann@corp").await, voter(&world, &plane, "bob@corp").await);
    let eve = voter(&world, &plane, "eve@corp").await;

    // Without the policy nothing proves who voted: the vote is ignored, and that is said.
    try_status(&eve, &name, json!({"votes": [vote("ann@corp", "Approve")]})).await.unwrap();
    let object = world.condition("Approval", &name, "ApproverUnverified", "True").await;
    assert_eq!(object["status"]["summary"], "0/2");
    assert!(object["status"]["decision"].is_null());
    // What was cast before may be anybody's: a new file, under the policy.
    install_policy(&world).await;
    world.remote.upload(&workspace, "/Inbox", "price2.txt", b"another price").await;
    let all = approvals(&world, 2).await;
    let second = all.iter().find(|one| one["metadata"]["name"] != name.as_str()).unwrap();
    let name = second["metadata"]["name"].as_str().unwrap().to_owned();
    eventually("the policy to be in force", || async {
        match try_status(&eve, &name, json!({"reason": format!("{:x}", rand::random::<u64>())})).await {
            Err(_) => Ok(()),
            Ok(()) => Err("it is not".to_owned()),
        }
    })
    .await;

    let refused = [
        ("as somebody else", json!({"votes": [vote("ann@corp", "Approve")]})),
        ("two at once", json!({"votes": [vote("eve@corp", "Approve"), vote("bob@corp", "Approve")]})),
        (
            "as a system",
            json!({"votes": [{"by": "eve@corp", "decision": "Approve", "at": "2026-11-01T00:00:00Z", "via": "Callback"}]}),
        ),
        ("a decision", json!({"decision": "Approved", "decidedAt": "2026-11-01T00:00:00Z"})),
        ("a decision with a vote", json!({"decision": "Approved", "votes": [vote("eve@corp", "Approve")]})),
        ("evidence", json!({"evidence": {"sha256": "0".repeat(64)}})),
        ("a ticket", json!({"ticket": {"createdAt": "2026-11-01T00:00:00Z"}})),
        ("conditions", json!({"conditions": []})),
    ];
    for (what, status) in refused {
        let error = try_status(&eve, &name, status).await.expect_err(what);
        assert!(error.contains("denied") || error.contains("Invalid") || error.contains("invalid"), "{what}: {error}");
    }
    let made = json!({"apiVersion": "file360.io/v1alpha1", "kind": "Approval", "metadata": {"name": "mine"}, "spec": second["spec"]});
    let made: DynamicObject = serde_json::from_value(made).unwrap();
    assert!(eve.create(&PostParams::default(), &made).await.is_err(), "Approvals are made by the operator");
    let patch = json!({"spec": {"minApprovals": 1}});
    assert!(eve.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.is_err(), "the spec never changes");

    // One's own vote is taken; it cannot be changed or taken back, and an unmapped one does not count.
    try_status(&eve, &name, json!({"votes": [vote("eve@corp", "Approve")]})).await.unwrap();
    try_status(&eve, &name, json!({"votes": [vote("eve@corp", "Reject")]})).await.expect_err("a changed vote");
    try_status(&eve, &name, json!({"votes": []})).await.expect_err("a vote taken back");
    let ignored = |object: &Value| object["status"]["summary"] == "0/2";
    world.until("Approval", &name, "a count", ignored).await;
    let ahead = json!({"votes": [vote("ann@corp", "Approve"), vote("eve@corp", "Approve")]});
    try_status(&ann, &name, ahead).await.expect_err("a vote ahead of another");
    try_status(&ann, &name, json!({"votes": [vote("eve@corp", "Approve"), vote("ann@corp", "Approve")]})).await.unwrap();
    let moved = json!({"votes": [vote("ann@corp", "Approve"), vote("eve@corp", "Approve"), vote("bob@corp", "Approve")]});
    try_status(&bob, &name, moved).await.expect_err("votes in another order");
    let again = json!({"votes": [vote("eve@corp", "Approve"), vote("ann@corp", "Approve"), vote("ann@corp", "Approve")]});
    try_status(&ann, &name, again).await.expect_err("a second vote");
    world.until("Approval", &name, "one of two", |object| object["status"]["summary"] == "1/2").await;
    assert!(cases.accepted().is_empty());
    let votes = json!([vote("eve@corp", "Approve"), vote("ann@corp", "Approve"), vote("bob@corp", "Approve")]);
    try_status(&bob, &name, json!({"votes": votes})).await.unwrap();
    let object = world.until("Approval", &name, "the decision", |object| object["status"]["decision"] == "Approved").await;
    assert_eq!(object["status"]["decidedBy"], "ann@corp, bob@corp");
    world.condition("Approval", &name, "Ready", "True").await;

    // Final for everybody: the policy for people, the CRD for whoever the policy lets through.
    try_status(&eve, &name, json!({"decision": "Rejected"})).await.expect_err("a changed decision");
    let admin = world.api("Approval");
    let error = try_status(&admin, &name, json!({"decision": "Rejected"})).await.expect_err("a changed decision");
    assert!(error.contains("final") || error.contains("operator") || error.contains("their own"), "{error}");
    let late = json!({"votes": [vote("eve@corp", "Approve"), vote("ann@corp", "Approve"), vote("bob@corp", "Approve"), vote("kim", "Reject")]});
    try_status(&voter(&world, &plane, "kim").await, &name, late).await.expect_err("a vote after the decision");
    let first = world
        .get(
            "Approval",
            approvals(&world, 2)
                .await
                .iter()
                .map(|one| one["metadata"]["name"].as_str().unwrap())
                .find(|other| *other != name)
                .unwrap(),
        )
        .await;
    assert!(condition(&first, "Ready")["status"] == "False", "the other file still waits: {first}");
}
