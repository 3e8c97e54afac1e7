//! Restores and moves: nothing is made anew and nothing is removed.

use serde_json::{Value, json};

use super::convergence::rich;
use crate::support::controlplane::ControlPlane;
use crate::support::kubernetes;
use crate::support::world::{World, condition};

async fn revisions(world: &World) -> Vec<Value> {
    let mut rows = world.remote.all("/v1/workspaces").await;
    rows.sort_by_key(|row| row["id"].to_string());
    rows.into_iter().map(|row| json!([row["id"], row["revision"]])).collect()
}

#[tokio::test]
async fn a_cluster_restored_from_a_backup_creates_and_removes_nothing() {
    let mut world = World::new().await;
    world.workspace("inside", json!({"folders": [{"path": "/A"}]})).await;
    world.workspace("outside", rich()).await;
    let (state, before) = (world.remote.state().await, revisions(&world).await);
    world.kill_operator();
    // What a backup from before the first pass has: the objects with their uids, and no status.
    for name in ["inside", "outside"] {
        let object = world.get("SecureWorkspace", name).await;
        let mut status: serde_json::Map<String, Value> =
            object["status"].as_object().unwrap().keys().map(|field| (field.clone(), Value::Null)).collect();
        status.insert("observedGeneration".into(), json!(-1));
        let params = kube::api::PatchParams::default();
        let patch = kube::api::Patch::Merge(json!({"status": status}));
        world.api("SecureWorkspace").patch_status(name, &params, &patch).await.unwrap();
    }
    world.start_operator(&[]).await;
    for name in ["inside", "outside"] {
        world.condition("SecureWorkspace", name, "Ready", "True").await;
    }
    assert_eq!(world.remote.state().await, state);
    assert_eq!(revisions(&world).await, before, "File 360 was not written at all");
}

#[tokio::test]
async fn after_a_handover_another_cluster_takes_up_what_there_is() {
    let old = World::new().await;
    let own_key = json!({"folders": [{"path": "/A"}], "displayName": "By its name"});
    old.workspace("named", own_key.clone()).await;
    old.workspace("keyed", rich()).await;
    let state = old.remote.state().await;
    for name in ["named", "keyed"] {
        old.patch(
            "SecureWorkspace",
            name,
            json!({"metadata": {"annotations": {"file360.io/handover": "to the new cluster"}}}),
        )
        .await;
        let object = old.reason("SecureWorkspace", name, "Ready", "HandedOver").await;
        assert_eq!(condition(&object, "HandedOver")["status"], "True");
    }
    let plane = ControlPlane::start(&[]);
    kubernetes::install_crds(&kubernetes::client(&plane.kubeconfig).await).await;
    let mut new = World::without_operator_in(&plane, old.namespace.clone()).await;
    new.endpoint = old.remote.url.clone();
    let operator = new.spawn_as("the-new-cluster", &["--former-cluster-ids", &old.namespace]);
    new.connect().await;
    new.workspace("named", own_key).await;
    new.workspace("keyed", rich()).await;
    let mut now = old.remote.state().await;
    let mut expected = state;
    for workspace in now.as_array_mut().unwrap().iter_mut().chain(expected.as_array_mut().unwrap()) {
        workspace["owner"]["clusterId"].take();
    }
    assert_eq!(now, expected, "nothing was created or removed");
    // The old cluster lets go without touching anything.
    old.delete_and_wait("SecureWorkspace", "keyed").await;
    let mut now = old.remote.state().await;
    now.as_array_mut().unwrap().iter_mut().for_each(|workspace| {
        workspace["owner"]["clusterId"].take();
    });
    assert_eq!(now, expected);
    operator.kill();
}
