//! C2: the operator dies before, after and with the lost reply of every request by which a document is recorded, locked, told and written.
//! The end is that of the undisturbed run, and nobody outside gets a second mail.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::crash_points::scripted;
use crate::documents::{asking, becomes, document, upload};
use crate::support::eventually;
use crate::support::proxy::{MOMENTS, Moment, Script};
use crate::support::world::{World, condition};

fn spec() -> Value {
    let mut spec = asking(&[document("iso", json!({"onApproved": {"lock": true}})), document("w9", json!({}))]);
    spec["reminders"] = json!({"to": ["vendor@acme.example"], "uploadRequest": "docs"});
    spec
}

/// What both ends hold, without what differs from run to run.
async fn end(world: &World, file: &str) -> String {
    let object = becomes(world, "w", "iso", "Approved").await;
    let item = world.remote.get(&format!("/v1/items/{file}")).await;
    let requests =
        world.remote.all(&format!("/v1/workspaces/{}/upload-requests", item["workspaceId"].as_str().unwrap())).await;
    let mut mails: Vec<Value> = world.remote.all("/v1/notifications").await;
    mails.iter_mut().for_each(|mail| *mail = json!([mail["template"], mail["to"]]));
    let changes = world.remote.get("/v1/changes?cursor=earliest&limit=1000").await;
    let told = changes["items"].as_array().into_iter().flatten().filter(|change| change["type"] == "facetChanged").count();
    let rows: Vec<Value> =
        object["status"]["requirements"].as_array().unwrap().iter().map(|row| json!([row["name"], row["state"]])).collect();
    json!({
        "rows": rows, "summary": object["status"]["documents"]["summary"], "locked": item["locked"], "mails": mails,
        "checklist": requests[0]["checklist"], "told": told, "complete": condition(&object, "DocumentsComplete")["reason"],
    })
    .to_string()
}

async fn run(crash: Option<(usize, Moment)>) -> (String, Arc<Script>) {
    let script = Script::new(crash);
    let mut world = scripted(&script, &[]).await;
    world.workspace("w", asking(&[])).await;
    let workspace = world.workspace_id("w").await;
    let file = upload(&world, &workspace, "/Inbox/iso.txt", "text/plain", &[("documentType", "iso")]).await;
    script.arm();
    world.apply_workspace("w", spec()).await;
    if crash.is_some() {
        eventually("the crash", || async {
            tokio::select! {
                () = script.die.notified() => Ok(()),
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => Err(format!("{:?}", script.lines.lock())),
            }
        })
        .await;
        world.kill_operator();
        script.dead.store(true, Ordering::SeqCst);
        script.disarm();
        world.start_operator(&[]).await;
    }
    (end(&world, &file).await, script)
}

#[tokio::test]
async fn c2_recording_locking_telling_and_writing_survive_every_crash_point() {
    let (undisturbed, script) = run(None).await;
    let lines = script.lines.lock().clone();
    println!("documents: N = {} mutating requests, {} runs", lines.len(), 3 * lines.len());
    assert!(lines.len() >= 4, "the proxies see too little: {lines:?}");
    assert!(undisturbed.contains("document-request") && undisturbed.contains("\"locked\":true"), "{undisturbed}");
    for (at, line) in lines.iter().enumerate() {
        for moment in MOMENTS {
            let (end, _) = run(Some((at + 1, moment))).await;
            assert_eq!(end, undisturbed, "killed {moment:?} request {} ({line})", at + 1);
        }
    }
}
