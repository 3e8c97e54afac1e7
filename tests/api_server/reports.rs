//! What a workspace tells other systems about itself: everything, in order, with an id that stays, whatever is away meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::documents::{asking, asks, becomes, document, upload};
use crate::support::case_system::{Accepted, CaseSystem};
use crate::support::world::{World, condition};
use crate::support::{eventually, kubernetes};

/// A report to a path of the case system.
fn report(cases: &CaseSystem, name: &str, more: Value) -> Value {
    let mut http = json!({"url": format!("{}/{name}", cases.url)});
    let Value::Object(more) = more else { panic!("not an object: {more}") };
    for (field, value) in more {
        http[field] = value;
    }
    json!({"name": name, "http": http})
}

fn deal(reports: &[Value]) -> Value {
    json!({
        "displayName": "Acme deal",
        "externalRef": {"system": "crm", "type": "opportunity", "id": "006-1"},
        "metadata": {"region": "EU"},
        "folders": [{"path": "/Inbox"}],
        "sharing": {"external": "Anyone", "links": {"maxAudience": "Anyone"}},
        "report": reports,
    })
}

/// What arrived at a path, in order.
fn told(cases: &CaseSystem, name: &str) -> Vec<Value> {
    let path = format!("/{name}");
    cases.accepted().iter().filter(|one| one.path == path).map(Accepted::json).collect()
}

fn types(events: &[Value]) -> Vec<String> {
    let name = |event: &Value| event["type"].as_str().unwrap_or_default().rsplit('.').next().unwrap().to_owned();
    events.iter().map(name).collect()
}

/// Waits until so many events arrived at a path.
async fn arrived(cases: &CaseSystem, name: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} events at {name}"), || async {
        let there = told(cases, name);
        if there.len() >= count { Ok(there) } else { Err(format!("{:?}", types(&there))) }
    })
    .await
}

/// Waits until the status of a report is so. Numbers alone are written once a minute; a request to reconcile brings them at once.
async fn reported(world: &World, workspace: &str, sink: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || async {
        world.reconcile_now(workspace).await;
        let object = world.get("SecureWorkspace", workspace).await;
        let all = object["status"]["reports"].as_array().cloned().unwrap_or_default();
        let one = all.into_iter().find(|report| report["name"] == sink).unwrap_or_default();
        if holds(&one) { Ok(one) } else { Err(object["status"].to_string()) }
    })
    .await
}

#[tokio::test]
async fn a_workspace_tells_what_happens_to_it_in_order_and_who_did_it() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let mut spec = deal(&[report(&cases, "crm", json!({}))]);
    spec["access"] = json!({"mode": "Additive", "members": [{"kind": "User", "name": "user0", "role": "Viewer"}]});
    world.workspace("w", spec.clone()).await;
    let id = world.workspace_id("w").await;
    let first = &arrived(&cases, "crm", 1).await[0];
    assert_eq!(first["type"], "io.file360.workspace.provisioned", "what was made before is not told: {first}");
    let about = &first["data"]["workspace"];
    assert_eq!(
        (&about["id"], &about["externalRef"]["id"], &about["name"], &about["metadata"]),
        (&json!(id), &json!("006-1"), &json!("w"), &json!({"region": "EU"}))
    );

    let item = world.remote.upload(&id, "/Inbox", "offer.txt&metadata[kind]=offer", b"an offer").await;
    let link = json!({"audience": "Anyone", "password": "a long password"});
    let link = world.remote.change("POST", &format!("/v1/items/{item}/links"), link).await;
    let user = world.remote.principal("User", "user3").await;
    let member = format!("/v1/workspaces/{id}/members/{user}?path=/");
    world.remote.change("PUT", &member, json!({"role": "Editor"})).await;
    world.remote.change("PATCH", &format!("/v1/items/{item}"), json!({"name": "final offer.txt"})).await;
    let events = arrived(&cases, "crm", 5).await;
    // What the operator does itself is told, too, and told apart.
    spec["access"]["members"] = json!([{"kind": "User", "name": "user1", "role": "Viewer"}]);
    world.workspace("w", spec).await;
    let all = arrived(&cases, "crm", 7).await;
    world.remote.change("DELETE", &format!("/v1/links/{}", link["id"].as_str().unwrap()), json!({})).await;
    world.remote.change("DELETE", &format!("/v1/items/{item}"), json!({})).await;
    let ended = arrived(&cases, "crm", 9).await;

    let expected = ["provisioned", "uploaded", "shared", "accesschanged", "changed"];
    assert_eq!(types(&events), expected);
    let (uploaded, shared, access) = (&events[1], &events[2], &events[3]);
    assert_eq!(uploaded["subject"], "/Inbox/offer.txt");
    assert_eq!(uploaded["data"]["file"]["metadata"], json!({"kind": "offer"}));
    assert_eq!(uploaded["data"]["event"]["actor"]["name"], "people");
    assert_eq!(
        (&shared["data"]["share"]["audience"], &shared["data"]["share"]["hasPassword"]),
        (&json!("Anyone"), &json!(true))
    );
    assert!(!all.iter().any(|event| event.to_string().contains("/s/")), "t5: nobody learns the address of a link");
    assert_eq!((&access["data"]["access"]["name"], &access["data"]["access"]["role"]), (&json!("user3"), &json!("Editor")));
    assert_eq!(types(&all)[5..], ["accesschanged", "accesschanged"]);
    let own = |event: &Value| event["data"]["event"]["own"] == true;
    assert_eq!(all.iter().map(own).collect::<Vec<_>>(), [true, false, false, false, false, true, true], "r8");
    assert_eq!(types(&ended)[7..], ["shareended", "deleted"]);
    let ids: BTreeSet<String> = ended.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 9);
    let status = reported(&world, "w", "crm", "nothing waits", |one| one["pending"] == 0).await;
    assert!(status["lastDeliveredAt"].is_string() && status["lastError"].is_null(), "{status}");
    assert_eq!(cases.repeated(), 0);
}

#[tokio::test]
async fn a_report_hears_how_the_required_documents_stand() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let mut crm = report(&cases, "crm", json!({}));
    crm["events"] = json!(["DocumentsChanged"]);
    let mut spec = asking(&[document("w9", json!({})), document("iso", json!({}))]);
    spec["report"] = json!([crm]);
    let id = asks(&world, "w", spec).await;
    upload(&world, &id, "/Inbox/w9.txt", "text/plain", &[("documentType", "w9")]).await;
    becomes(&world, "w", "w9", "Approved").await;
    upload(&world, &id, "/Inbox/noise.txt", "text/plain", &[]).await;
    upload(&world, &id, "/Inbox/iso.txt", "text/plain", &[("documentType", "iso")]).await;
    becomes(&world, "w", "iso", "Approved").await;
    let events = arrived(&cases, "crm", 3).await;
    assert_eq!(types(&events), ["documentschanged", "documentschanged", "documentschanged"]);
    let told = |at: usize| events[at]["data"]["documents"].clone();
    assert_eq!([&told(0)["summary"], &told(1)["summary"], &told(2)["summary"]], ["0/2", "1/2", "2/2"]);
    assert_eq!((&told(1)["missing"], &told(1)["complete"], &told(2)["complete"]), (&json!(1), &json!(false), &json!(true)));
    assert_eq!(told(1)["requirements"][1]["state"], "Missing");
}

#[tokio::test]
async fn only_what_was_asked_for_is_told_and_a_new_report_begins_with_provisioned() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let mut files = report(&cases, "files", json!({}));
    files["events"] = json!(["FileUploaded"]);
    world.workspace("w", deal(&[files.clone(), report(&cases, "all", json!({}))])).await;
    let id = world.workspace_id("w").await;
    let item = world.remote.upload(&id, "/Inbox", "a.txt", b"a").await;
    world.remote.change("DELETE", &format!("/v1/items/{item}"), json!({})).await;
    assert_eq!(types(&arrived(&cases, "all", 3).await), ["provisioned", "uploaded", "deleted"]);
    assert_eq!(types(&arrived(&cases, "files", 1).await), ["uploaded"]);
    // Wanting more begins now; a report under a new name begins at the beginning; one that is gone is told nothing more.
    files["events"] = json!(["FileUploaded", "FileDeleted"]);
    world.workspace("w", deal(&[files, report(&cases, "late", json!({}))])).await;
    assert_eq!(types(&arrived(&cases, "late", 1).await), ["provisioned"]);
    let item = world.remote.upload(&id, "/Inbox", "b.txt", b"b").await;
    world.remote.change("DELETE", &format!("/v1/items/{item}"), json!({})).await;
    assert_eq!(types(&arrived(&cases, "files", 3).await), ["uploaded", "uploaded", "deleted"]);
    assert_eq!(types(&arrived(&cases, "late", 3).await), ["provisioned", "uploaded", "deleted"]);
    assert_eq!(told(&cases, "all").len(), 3);
    let names = |object: &Value| -> Vec<Value> {
        object["status"]["reports"].as_array().into_iter().flatten().map(|one| one["name"].clone()).collect()
    };
    world.until("SecureWorkspace", "w", "its two reports", |object| names(object) == ["files", "late"]).await;
}

#[tokio::test]
async fn a_call_is_what_the_other_system_takes_as_it_is() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "crm"}, "stringData": {"token": "canary-crm-token-55"}});
    kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
    // A CRM: one record is changed, its id is a part of the path.
    let mut crm = report(
        &cases,
        "opportunities",
        json!({
            "method": "PATCH", "path": ["workspace.externalRef.id"], "query": {"v": "'61'"}, "headers": {"X-What": "event.type"},
            "template": "{'Stage__c': event.type == 'Provisioned' ? 'Room open' : 'Active', 'Room__c': workspace.url}",
            "auth": {"bearer": {"tokenRef": {"name": "crm", "key": "token"}}},
        }),
    );
    crm["events"] = json!(["Provisioned"]);
    // A ticketing system: a work note about a file.
    let mut tickets = report(
        &cases,
        "incident",
        json!({"template": "{'correlation_id': event.id, 'work_notes': event.actor.name + ' uploaded ' + file.name}"}),
    );
    tickets["events"] = json!(["FileUploaded"]);
    world.workspace("w", deal(&[crm, tickets])).await;
    let id = world.workspace_id("w").await;
    world.remote.upload(&id, "/Inbox", "a.txt", b"a").await;
    arrived(&cases, "incident", 1).await;
    arrived(&cases, "opportunities/006-1", 1).await;
    let all = cases.accepted();
    let crm = all.iter().find(|one| one.path == "/opportunities/006-1").unwrap();
    let object = world.get("SecureWorkspace", "w").await;
    assert_eq!(crm.json(), json!({"Stage__c": "Room open", "Room__c": object["status"]["url"]}));
    assert_eq!(crm.headers["authorization"], "Bearer canary-crm-token-55");
    assert_eq!(crm.headers["x-what"], "Provisioned");
    let note = told(&cases, "incident")[0].clone();
    assert_eq!(note["work_notes"], "people uploaded a.txt");
    assert!(all.iter().all(|one| !one.key.is_empty()), "every call has its key");
}

#[tokio::test]
async fn a_report_that_cannot_be_compiled_is_refused_before_anything_is_done() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    world.apply_workspace("w", deal(&[report(&cases, "crm", json!({"template": "{'a': item.id}"}))])).await;
    let object = world.reason("SecureWorkspace", "w", "Ready", "InvalidExpression").await;
    let message = condition(&object, "Ready")["message"].to_string();
    assert!(message.contains("spec.report[0].http.template: line 1, column"), "{message}");
    assert_eq!(condition(&object, "Stalled")["status"], "True");
    assert_eq!(world.remote.state().await, json!([]));
    // T3: an address that nobody may call.
    let metadata = json!({"name": "crm", "http": {"url": "https://169.254.169.254/latest"}});
    world.apply_workspace("w", deal(&[metadata])).await;
    let object = world.reason("SecureWorkspace", "w", "Ready", "InvalidSpec").await;
    let message = condition(&object, "Ready")["message"].to_string();
    assert!(message.contains("spec.report[0].http.url"), "{message}");
}

#[tokio::test]
async fn t5_a_refusal_is_told_without_what_it_was_asked_with_and_blocks_nobody_else() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "crm"}, "stringData": {"token": "canary-crm-token-55"}});
    kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
    cases.refuse(Some("poison"));
    let auth = json!({"auth": {"bearer": {"tokenRef": {"name": "crm", "key": "token"}}}});
    // One of the two cannot take this file's name.
    let plain = report(&cases, "plain", json!({"template": "{'id': event.id}"}));
    world.workspace("w", deal(&[report(&cases, "crm", auth), plain])).await;
    let id = world.workspace_id("w").await;
    arrived(&cases, "crm", 1).await;
    world.remote.upload(&id, "/Inbox", "poison.txt", b"a").await;
    world.remote.upload(&id, "/Inbox", "after.txt", b"b").await;
    arrived(&cases, "plain", 3).await;
    let status = reported(&world, "w", "crm", "the refusal", |one| one["lastError"].is_string()).await;
    assert_eq!(status["pending"], 2, "order: what comes after waits");
    let error = status["lastError"].as_str().unwrap();
    assert!(error.contains("not wanted") && error.contains("422"), "{error}");
    let object = world.get("SecureWorkspace", "w").await;
    assert_eq!(condition(&object, "Ready")["status"], "True", "the workspace is as declared all the same");
    assert!(!object.to_string().contains("canary") && !world.log().contains("canary-crm"), "{object}");
    // Once it is taken, the rest follows in order.
    cases.refuse(None);
    world.reconcile_now("w").await;
    let events = arrived(&cases, "crm", 3).await;
    assert_eq!(events[1]["subject"], "/Inbox/poison.txt");
    assert_eq!(events[2]["subject"], "/Inbox/after.txt");
    reported(&world, "w", "crm", "the error is over", |one| one["lastError"].is_null() && one["pending"] == 0).await;
}

#[tokio::test]
async fn t1_a_secret_of_another_namespace_cannot_be_named_and_a_missing_one_is_said() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let reference = |more: Value| {
        let mut token = json!({"name": "ghost", "key": "token"});
        for (field, value) in more.as_object().unwrap() {
            token[field] = value.clone();
        }
        deal(&[report(&cases, "crm", json!({"auth": {"bearer": {"tokenRef": token}}}))])
    };
    let error = world
        .try_apply(
            "SecureWorkspace",
            "w",
            crate::support::world::on_connection(reference(json!({"namespace": "kube-system"}))),
        )
        .await
        .unwrap_err();
    assert!(error.to_string().contains("namespace"), "{error}");
    world.workspace("w", reference(json!({}))).await;
    let status = reported(&world, "w", "crm", "the missing Secret", |one| one["lastError"].is_string()).await;
    assert!(status["lastError"].as_str().unwrap().contains("Secret ghost does not exist in this namespace"), "{status}");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ghost"}, "stringData": {"token": "t"}});
    kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
    arrived(&cases, "crm", 1).await;
}

#[tokio::test]
async fn r1_a_system_that_is_away_for_long_gets_everything_in_order_and_holds_nobody_up() {
    let mut world = World::new().await;
    let (away, here) = (CaseSystem::start().await, CaseSystem::start().await);
    away.stop();
    let spec = deal(&[report(&away, "away", json!({})), report(&here, "here", json!({}))]);
    world.workspace("w", spec).await;
    let id = world.workspace_id("w").await;
    for number in 0..20 {
        world.remote.upload(&id, "/Inbox", &format!("{number}.txt"), format!("{number}").as_bytes()).await;
    }
    arrived(&here, "here", 21).await;
    let status =
        reported(&world, "w", "away", "the backlog", |one| one["pending"] == 21 && one["lastError"].is_string()).await;
    assert!(status["lastDeliveredAt"].is_null(), "{status}");
    // What waits survives the operator.
    world.kill_operator();
    for number in 20..40 {
        world.remote.upload(&id, "/Inbox", &format!("{number}.txt"), format!("{number}").as_bytes()).await;
    }
    away.start_again().await;
    world.start_operator(&[]).await;
    let subjects = |events: &[Value]| -> Vec<String> {
        events.iter().filter_map(|event| event["subject"].as_str()).map(str::to_owned).collect()
    };
    let expected: Vec<String> =
        std::iter::once(id.clone()).chain((0..40).map(|number| format!("/Inbox/{number}.txt"))).collect();
    assert_eq!(subjects(&arrived(&away, "away", 41).await), expected);
    assert_eq!(subjects(&arrived(&here, "here", 41).await), expected);
    assert_eq!(types(&told(&away, "away")[..1]), ["provisioned"]);
    reported(&world, "w", "away", "nothing waits", |one| one["pending"] == 0 && one["lastError"].is_null()).await;
}

#[tokio::test]
async fn r1_events_arrive_once_and_in_order_whenever_the_operator_is_killed() {
    let mut world = World::new().await;
    let cases = CaseSystem::start().await;
    world.workspace("w", deal(&[report(&cases, "crm", json!({}))])).await;
    let id = world.workspace_id("w").await;
    for turn in 0..5 {
        for number in 0..8 {
            world.remote.upload(&id, "/Inbox", &format!("{turn}-{number}.txt"), b"x").await;
        }
        tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % 300)).await;
        world.kill_operator();
        world.start_operator(&[]).await;
    }
    let events = arrived(&cases, "crm", 41).await;
    let names: Vec<&str> = events[1..].iter().filter_map(|event| event["data"]["file"]["name"].as_str()).collect();
    let expected: Vec<String> = (0..5).flat_map(|turn| (0..8).map(move |number| format!("{turn}-{number}.txt"))).collect();
    assert_eq!(names, expected);
    let keys: BTreeSet<String> = cases.accepted().into_iter().map(|one| one.key).collect();
    assert_eq!(keys.len(), 41, "each event has one key, however often it was told");
}

#[tokio::test]
async fn r4_when_too_much_waits_the_oldest_gives_way_and_that_is_told() {
    let world = World::new().await;
    let (away, here) = (CaseSystem::start().await, CaseSystem::start().await);
    away.answer_with(Some(503));
    world.workspace("w", deal(&[report(&away, "away", json!({})), report(&here, "here", json!({}))])).await;
    let id = world.workspace_id("w").await;
    let item = world.remote.upload(&id, "/Inbox", "a.txt", b"a").await;
    for number in 0..520 {
        world.remote.change("PATCH", &format!("/v1/items/{item}"), json!({"metadata": {"n": number.to_string()}})).await;
    }
    arrived(&here, "here", 522).await;
    away.answer_with(None);
    world.reconcile_now("w").await;
    let events = arrived(&away, "away", 501).await;
    assert_eq!(events[0]["type"], "io.file360.workspace.eventsmissed", "{}", events[0]);
    assert_eq!(events[0]["data"]["missed"]["count"], 22);
    assert_eq!(events[1]["id"], told(&here, "here")[22]["id"], "then the rest, in order");
}

#[tokio::test]
async fn a_feed_that_does_not_reach_back_is_told() {
    let mut world = World::new().await;
    let cases = CaseSystem::start().await;
    world.workspace("w", deal(&[report(&cases, "crm", json!({}))])).await;
    let id = world.workspace_id("w").await;
    arrived(&cases, "crm", 1).await;
    world.kill_operator();
    world.remote.upload(&id, "/Inbox", "lost.txt", b"a").await;
    world.remote.faults(json!({"feedEpochBump": true})).await;
    world.start_operator(&[]).await;
    let events = arrived(&cases, "crm", 2).await;
    assert_eq!(events[1]["type"], "io.file360.workspace.eventsmissed", "{}", events[1]);
    world.remote.faults(json!({})).await;
    world.remote.upload(&id, "/Inbox", "next.txt", b"a").await;
    let events = arrived(&cases, "crm", 3).await;
    assert_eq!(events[2]["subject"], "/Inbox/next.txt");
}

#[tokio::test]
async fn d1_a_deleted_resource_tells_how_it_ended_before_it_goes() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    for (policy, ended) in [("Retain", "released"), ("Archive", "archived"), ("Delete", "deleted")] {
        let name = policy.to_lowercase();
        let mut spec = deal(&[report(&cases, &name, json!({}))]);
        spec["deletionPolicy"] = json!(policy);
        spec["externalRef"]["id"] = json!(policy);
        let object = world.workspace(&name, spec).await;
        assert_eq!(object["metadata"]["finalizers"], json!(["file360.io/finalizer"]));
        let id = world.workspace_id(&name).await;
        world.patch("SecureWorkspace", &name, json!({"metadata": {"annotations": {"file360.io/confirm-delete": id}}})).await;
        world.delete_and_wait("SecureWorkspace", &name).await;
        let events = told(&cases, &name);
        assert_eq!(types(&events), ["provisioned", ended], "told before it was gone");
        assert!(events[1]["type"].as_str().unwrap().starts_with("io.file360.workspace."));
    }
    // Made again, the resource begins anew, with ids of its own.
    let mut spec = deal(&[report(&cases, "retain", json!({}))]);
    spec["externalRef"]["id"] = json!("Retain");
    world.workspace("retain", spec).await;
    let events = arrived(&cases, "retain", 3).await;
    assert_eq!(types(&events), ["provisioned", "released", "provisioned"]);
}

#[tokio::test]
async fn d2_a_system_that_is_away_keeps_the_resource_only_for_so_long() {
    let mut world = World::without_operator(kubernetes::shared().await).await;
    world.start_operator(&["--orphan-after", "6s"]).await;
    world.connect().await;
    let cases = CaseSystem::start().await;
    world.workspace("w", deal(&[report(&cases, "crm", json!({}))])).await;
    arrived(&cases, "crm", 1).await;
    cases.stop();
    world.delete("SecureWorkspace", "w").await;
    let object = world
        .until("SecureWorkspace", "w", "the reason", |object| {
            condition(object, "DeletionBlocked")["reason"] == "ReportsPending"
        })
        .await;
    let message = condition(&object, "DeletionBlocked")["message"].to_string();
    assert!(message.contains("1 to crm"), "{message}");
    assert_eq!(world.remote.state().await[0]["owner"]["state"], "Released", "everything else is done");
    world.gone("SecureWorkspace", "w").await;
    let events = world.api("Event").list(&kube::api::ListParams::default()).await.unwrap();
    assert!(events.items.iter().any(|event| event.data["reason"] == "ReportsAbandoned"), "it is not silent");
    let pending = world.operator.as_ref().unwrap().metric("file360_report_pending", "").await;
    assert_eq!(pending, 0.0, "nothing is left behind");
}

#[tokio::test]
async fn a_suspended_resource_keeps_what_happens_and_tells_it_afterwards() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let mut spec = deal(&[report(&cases, "crm", json!({}))]);
    world.workspace("w", spec.clone()).await;
    let id = world.workspace_id("w").await;
    arrived(&cases, "crm", 1).await;
    spec["suspend"] = json!(true);
    world.workspace("w", spec.clone()).await;
    world.remote.upload(&id, "/Inbox", "a.txt", b"a").await;
    let operator = world.operator.as_ref().unwrap();
    eventually("the event waits", || async {
        let pending = operator.metric("file360_report_pending", "").await;
        if pending > 0.0 { Ok(()) } else { Err(pending.to_string()) }
    })
    .await;
    assert_eq!(told(&cases, "crm").len(), 1);
    spec["suspend"] = json!(false);
    world.workspace("w", spec).await;
    assert_eq!(types(&arrived(&cases, "crm", 2).await), ["provisioned", "uploaded"]);
}

#[tokio::test]
async fn c6_at_rest_nothing_is_asked_or_written_and_who_does_not_report_pays_nothing() {
    let mut world = World::new().await;
    world.workspace("quiet", json!({"folders": [{"path": "/A"}]})).await;
    let state_calls = |world: &World| {
        let address = world.operator.as_ref().unwrap().address.clone();
        async move {
            let text = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
            let is_call = |line: &&str| line.starts_with("file360_api_calls_total") && line.contains("client-state");
            text.lines().filter(is_call).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        }
    };
    assert_eq!(state_calls(&world).await, 0.0, "no report, no document");
    let cases = CaseSystem::start().await;
    world.workspace("w", deal(&[report(&cases, "crm", json!({}))])).await;
    arrived(&cases, "crm", 1).await;
    reported(&world, "w", "crm", "nothing waits", |one| one["pending"] == 0 && one["lastDeliveredAt"].is_string()).await;
    world.kill_operator();
    world.start_operator(&[]).await;
    let id = world.workspace_id("w").await;
    world.remote.upload(&id, "/Inbox", "a.txt", b"a").await;
    arrived(&cases, "crm", 2).await;
    reported(&world, "w", "crm", "nothing waits", |one| one["pending"] == 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let version = async || world.get("SecureWorkspace", "w").await["metadata"]["resourceVersion"].clone();
    let (calls, before) = (state_calls(&world).await, version().await);
    // Long enough for a loop to show.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((state_calls(&world).await, version().await), (calls, before));
    assert_eq!((cases.accepted().len(), cases.repeated()), (2, 0), "a restart tells nothing twice");
}
