//! Reviews of required documents by Approval: several people vote, under the shipped policy.

use serde_json::{Value, json};

use crate::documents::{asking, asks, becomes, document, new_version, upload};
use crate::gates::approvals;
use crate::gates_votes::{install_policy, try_status, vote, voter};
use crate::plugin;
use crate::support::controlplane::ControlPlane;
use crate::support::world::World;
use crate::support::{eventually, kubernetes};

fn name_of(approval: &Value) -> String {
    approval["metadata"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a2_several_people_decide_about_one_version_and_a_newer_one_asks_again() {
    let plane = ControlPlane::start(&[]);
    kubernetes::install_crds(&kubernetes::client(&plane.kubeconfig).await).await;
    let mut world = World::without_operator(&plane).await;
    world.start_cluster_operator(&["--secret-interval", "1s"]).await;
    let people = [("ann@corp", "user0"), ("bob@corp", "user1")];
    let principals: Vec<Value> = people.iter().map(|(name, user)| json!({"username": name, "file360": user})).collect();
    world.apply_connection(json!({"principals": principals})).await;
    world.condition("Connection", "file360", "Ready", "True").await;
    install_policy(&world).await;
    let review = json!({"required": true, "minApprovals": 2, "separationOfDuties": true});
    let dated = json!({"review": review, "validity": {"expiresOn": "file.metadata.expiry"}});
    let workspace = asks(&world, "w", asking(&[document("iso", dated)])).await;
    let metadata = [("documentType", "iso"), ("expiry", "2041-06-30")];
    let file = upload(&world, &workspace, "/Inbox/iso.txt", "text/plain", &metadata).await;
    becomes(&world, "w", "iso", "InReview").await;
    let first = approvals(&world, 1).await.remove(0);
    let subject = &first["spec"]["subject"];
    assert_eq!((&subject["kind"], &subject["fileId"], &subject["version"]), (&json!("Document"), &json!(file), &json!(1)));
    assert_eq!((&subject["date"], &first["spec"]["requirement"]), (&json!("2041-06-30"), &json!("iso")));
    plugin::run(&world, &["documents", "approve", "w", "iso", "--file", &file, "--version", "1"]).await.ends(1);

    let (ann, bob, eve) = (
        voter(&world, &plane, "ann@corp").await,
        voter(&world, &plane, "bob@corp").await,
        voter(&world, &plane, "eve@corp").await,
    );
    let name = name_of(&first);
    eventually("the policy to be in force", || async {
        match try_status(&eve, &name, json!({"reason": format!("{:x}", rand::random::<u64>())})).await {
            Err(_) => Ok(()),
            Ok(()) => Err("it is not".to_owned()),
        }
    })
    .await;
    try_status(&eve, &name, json!({"votes": [vote("eve@corp", "Approve")]})).await.unwrap();
    try_status(&ann, &name, json!({"votes": [vote("eve@corp", "Approve"), vote("ann@corp", "Approve")]})).await.unwrap();
    world
        .until("Approval", &name, "one of two: nobody knows who eve is", |object| object["status"]["summary"] == "1/2")
        .await;
    becomes(&world, "w", "iso", "InReview").await;
    let votes = [vote("eve@corp", "Approve"), vote("ann@corp", "Approve"), vote("bob@corp", "Approve")];
    try_status(&bob, &name, json!({"votes": votes})).await.unwrap();
    let object = becomes(&world, "w", "iso", "Approved").await;
    assert_eq!(object["status"]["requirements"][0]["validUntil"], "2041-07-01T00:00:00Z");
    assert!(object["status"]["requirements"][0]["decidedBy"].as_str().is_some_and(|by| by.contains("bob@corp")), "{object}");
    world.until("Approval", &name, "the evidence", |object| object["status"]["evidence"].is_object()).await;

    // A newer version asks again, and the one after it ends that question.
    new_version(&world, &file, "the next one").await;
    let second = approvals(&world, 2).await.remove(1);
    new_version(&world, &file, "a third one").await;
    let superseded = |object: &Value| object["status"]["decision"] == "Superseded";
    world.until("Approval", &name_of(&second), "its end", superseded).await;
    let third = name_of(&approvals(&world, 3).await[2]);
    try_status(
        &ann,
        &third,
        json!({"votes": [{"by": "ann@corp", "decision": "Reject", "reason": "no seal", "at": "2026-11-01T00:00:00Z"}]}),
    )
    .await
    .unwrap();
    let rejected = |object: &Value| object["status"]["requirements"][0]["replacement"]["message"] == "no seal";
    let object = world.until("SecureWorkspace", "w", "the rejection", rejected).await;
    assert_eq!(object["status"]["requirements"][0]["state"], "Approved", "what was approved still counts");
}
