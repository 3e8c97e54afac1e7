//! Required documents: from missing to complete and on to expired, by the feed and by the clock.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::plugin;
use crate::routes::{arrived, route};
use crate::support::case_system::{Accepted, CaseSystem};
use crate::support::world::{World, condition};
use crate::support::{eventually, kubernetes};

/// One requirement over the files of `/Inbox` whose `documentType` is its name, with more fields.
#[allow(clippy::needless_pass_by_value, reason = "values are written where they are used")]
pub fn document(name: &str, more: Value) -> Value {
    let mut one =
        json!({"name": name, "match": {"path": "/Inbox/**", "when": format!("file.metadata.documentType == '{name}'")}});
    for (field, value) in more.as_object().into_iter().flatten() {
        one[field] = value.clone();
    }
    one
}

/// A spec with an inbox, an upload request and these requirements.
pub fn asking(documents: &[Value]) -> Value {
    json!({
        "displayName": "Acme",
        "folders": [{"path": "/Inbox"}, {"path": "/Other"}],
        "uploadRequests": [{"name": "docs", "path": "/Inbox"}],
        "requiredDocuments": documents,
    })
}

/// Applies the spec and waits until it was looked at; the workspace's id.
pub async fn asks(world: &World, name: &str, spec: Value) -> String {
    world.workspace(name, spec).await;
    world.workspace_id(name).await
}

/// Uploads a file with metadata; its id.
pub async fn upload(world: &World, workspace: &str, path: &str, mime: &str, metadata: &[(&str, &str)]) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap();
    let folder = world.remote.get(&format!("/v1/workspaces/{workspace}/resolve?path={folder}")).await;
    let mut url = format!("{}/v1/items/{}/files?name={name}", world.remote.url, folder["id"].as_str().unwrap());
    for (key, value) in metadata {
        let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        write!(url, "&metadata[{key}]={value}").unwrap();
    }
    world.remote.send_file("POST", &url, mime, path.as_bytes().to_vec()).await["id"].as_str().unwrap().to_owned()
}

/// Adds a version to a file.
pub async fn new_version(world: &World, file: &str, content: &str) {
    let url = format!("{}/v1/items/{file}/content", world.remote.url);
    world.remote.send_file("PUT", &url, "text/plain", content.as_bytes().to_vec()).await;
}

fn row<'a>(object: &'a Value, name: &str) -> &'a Value {
    let rows = object["status"]["requirements"].as_array();
    rows.into_iter().flatten().find(|row| row["name"] == name).unwrap_or(&Value::Null)
}

/// Waits until a requirement is in a state; the object.
pub async fn becomes(world: &World, workspace: &str, name: &str, state: &str) -> Value {
    world.until("SecureWorkspace", workspace, &format!("{name} {state}"), |object| row(object, name)["state"] == state).await
}

async fn writes(world: &World) -> f64 {
    world.operator.as_ref().unwrap().metric("file360_status_writes_total", "SecureWorkspace").await
}

#[tokio::test]
async fn documents_arrive_one_by_one_until_kubectl_wait_and_the_table_say_that_all_are_there() {
    let world = World::new().await;
    let workspace = asks(&world, "w", asking(&[document("w9", json!({})), document("iso", json!({}))])).await;
    let object = world.condition("SecureWorkspace", "w", "DocumentsComplete", "False").await;
    assert_eq!(condition(&object, "DocumentsComplete")["reason"], "DocumentsOutstanding");
    assert_eq!(condition(&object, "Ready")["status"], "True", "the workspace itself is as declared");
    let plane = kubernetes::shared().await;
    let table = || world.kubectl(plane, &["get", "sws", "w"]);
    assert!(table().contains("DOCS") && table().contains("0/2"), "{}", table());

    upload(&world, &workspace, "/Inbox/w9.txt", "text/plain", &[("documentType", "w9")]).await;
    let object = becomes(&world, "w", "w9", "Approved").await;
    assert_eq!(object["status"]["documents"]["summary"], "1/2");
    assert_eq!(row(&object, "iso")["state"], "Missing");
    upload(&world, &workspace, "/Inbox/iso.txt", "text/plain", &[("documentType", "iso")]).await;
    let wait = ["wait", "--for=condition=DocumentsComplete", "sws/w", "--timeout=60s"];
    assert!(world.kubectl(plane, &wait).contains("condition met"));
    assert!(table().contains("2/2"), "{}", table());
    plugin::run(&world, &["missing"]).await.ends(0);

    let item = world.get("SecureWorkspace", "w").await;
    let file = row(&item, "w9")["fileId"].as_str().unwrap().to_owned();
    world.remote.change("DELETE", &format!("/v1/items/{file}"), json!({})).await;
    becomes(&world, "w", "w9", "Missing").await;
    let missing = plugin::run(&world, &["missing", "-o", "json"]).await.ends(1).json();
    assert_eq!(missing.as_array().unwrap().len(), 1, "{missing}");
    assert_eq!((&missing[0]["document"], &missing[0]["state"]), (&json!("w9"), &json!("Missing")));
    let why = plugin::run(&world, &["why", "w"]).await;
    assert!(why.out.contains("DocumentsOutstanding") && why.out.contains("kubectl file360 missing"), "{}", why.out);
}

#[tokio::test]
async fn a_reviewer_decides_and_the_earlier_version_counts_while_a_new_one_waits() {
    let world = World::new().await;
    let reviewed = json!({"review": {"required": true}, "onApproved": {"lock": true}});
    let workspace = asks(&world, "w", asking(&[document("iso", reviewed)])).await;
    let file = upload(&world, &workspace, "/Inbox/iso.txt", "text/plain", &[("documentType", "iso")]).await;
    becomes(&world, "w", "iso", "InReview").await;
    plugin::run(&world, &["documents", "approve", "w", "iso", "--file", &file, "--version", "7"]).await.ends(1);
    plugin::run(&world, &["documents", "approve", "w", "iso", "--file", "other", "--version", "1"]).await.ends(1);
    plugin::run(&world, &["documents", "approve", "w", "iso"]).await.ends(2);
    let approved =
        plugin::run(&world, &["documents", "approve", "w", "iso", "--file", &file, "--version", "1"]).await.ends(0);
    assert!(approved.out.contains(&file) && approved.out.contains("/Inbox/iso.txt") && approved.out.contains("SHA-256"));
    let object = becomes(&world, "w", "iso", "Approved").await;
    assert!(row(&object, "iso")["decidedBy"].as_str().is_some_and(|by| !by.is_empty()), "{object}");
    eventually("the lock", || async {
        let item = world.remote.get(&format!("/v1/items/{file}")).await;
        (item["locked"] == true).then_some(()).ok_or_else(|| item.to_string())
    })
    .await;

    new_version(&world, &file, "the next one").await;
    let waits = |object: &Value| row(object, "iso")["replacement"]["state"] == "InReview";
    let object = world.until("SecureWorkspace", "w", "the new version", waits).await;
    assert_eq!((&row(&object, "iso")["state"], &row(&object, "iso")["version"]), (&json!("Approved"), &json!(1)));
    assert_eq!(condition(&object, "DocumentsComplete")["status"], "True");
    let listed = plugin::run(&world, &["missing"]).await.ends(0);
    assert!(listed.out.contains("new version InReview"), "{}", listed.out);
    plugin::run(&world, &["documents", "reject", "w", "iso", "--reason", "the seal is missing"]).await.ends(0);
    let rejected = |object: &Value| row(object, "iso")["replacement"]["state"] == "Rejected";
    let object = world.until("SecureWorkspace", "w", "the rejection", rejected).await;
    assert_eq!(row(&object, "iso")["state"], "Approved", "what was approved still counts");
    assert_eq!(row(&object, "iso")["replacement"]["message"], "the seal is missing");
    plugin::run(&world, &["documents", "approve", "w", "iso", "--file", &file, "--version", "2"]).await.ends(1);

    new_version(&world, &file, "a third one").await;
    world.until("SecureWorkspace", "w", "the third version", waits).await;
    let sha256 = world.remote.get(&format!("/v1/items/{file}")).await["sha256"].as_str().unwrap().to_owned();
    plugin::run(&world, &["documents", "approve", "w", "iso", "--file", &file, "--sha256", &sha256]).await.ends(0);
    let third = |object: &Value| row(object, "iso")["version"] == 3 && row(object, "iso")["state"] == "Approved";
    world.until("SecureWorkspace", "w", "the third version approved", third).await;
}

#[tokio::test]
async fn t6_nothing_that_a_tenant_can_set_stands_for_a_decision() {
    let world = World::new().await;
    let reviewed = json!({"review": {"required": true}});
    let workspace = asks(&world, "w", asking(&[document("iso", reviewed)])).await;
    let file = upload(&world, &workspace, "/Inbox/iso.txt", "text/plain", &[("documentType", "iso")]).await;
    let object = becomes(&world, "w", "iso", "InReview").await;
    // Another client of File 360 notes a decision beside the file: it is that client's own.
    let sha256 = world.remote.get(&format!("/v1/items/{file}")).await["sha256"].clone();
    let decision =
        json!({"requirement": "iso", "outcome": "Approved", "by": "me", "at": "2026-01-01T00:00:00Z", "sha256": sha256});
    let put = json!({"items": [{"itemId": file, "version": 1, "name": "decision", "value": decision, "announce": true}]});
    world.remote.change("POST", "/v1/facets/batch", put).await;
    // Somebody who may write everything about workspaces, but read no Secret, sets annotations, labels and the status itself.
    let rules = json!([{"apiGroups": ["file360.io"], "resources": ["secureworkspaces", "secureworkspaces/status", "connections"],
        "verbs": ["get", "list", "watch", "patch", "update"]}]);
    let somebody = plugin::somebody(&world, rules).await;
    plugin::run_as(&world, &somebody, &["documents", "approve", "w", "iso", "--file", &file, "--version", "1"], "")
        .await
        .ends(1);
    let marks = json!({"metadata": {"annotations": {"file360.io/approve": "iso"}, "labels": {"decision": "Approved"}},
        "status": {"requirements": [{"name": "iso", "state": "Approved", "fileId": file, "version": 1}]}});
    world.patch("SecureWorkspace", "w", marks).await;
    world.reconcile_now("w").await;
    let after = becomes(&world, "w", "iso", "InReview").await;
    assert_eq!(row(&after, "iso")["fileId"], row(&object, "iso")["fileId"]);
}

#[tokio::test]
async fn the_clock_alone_warns_expires_and_ends_a_waiver() {
    let world = World::new().await;
    let expiring = json!({"validity": {"expiresOn": "file.metadata.expiry"}, "warnBefore": "P0D"});
    let now = jiff::Timestamp::now();
    let soon = now + jiff::SignedDuration::from_secs(15);
    let waiver = json!({"waivers": [{"until": soon.to_string(), "by": "hr-lead", "reason": "renewal under way"}]});
    let workspace = asks(&world, "w", asking(&[document("iso", expiring), document("w9", waiver)])).await;
    let object = becomes(&world, "w", "w9", "Waived").await;
    assert_eq!(row(&object, "w9")["decidedBy"], "hr-lead");
    upload(&world, &workspace, "/Inbox/iso.txt", "text/plain", &[("documentType", "iso"), ("expiry", &soon.to_string())])
        .await;
    let object = becomes(&world, "w", "iso", "Approved").await;
    let next: jiff::Timestamp = object["status"]["nextChangeAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(next.as_second(), soon.as_second());
    let passes = || async { world.operator.as_ref().unwrap().metric("file360_reconciles_total", "SecureWorkspace").await };
    let before = passes().await;
    let object = becomes(&world, "w", "iso", "Expired").await;
    let since: jiff::Timestamp = row(&object, "iso")["since"].as_str().unwrap().parse().unwrap();
    assert!(since >= soon, "not before its time");
    becomes(&world, "w", "w9", "Missing").await;
    assert_eq!(object["status"]["nextChangeAt"], Value::Null, "nothing changes by itself any more");
    assert!(passes().await - before <= 2.0, "a timer, not polling");
}

#[tokio::test]
async fn a_date_counts_to_the_end_of_its_day_in_the_resources_zone() {
    let world = World::new().await;
    let dated = json!({"validity": {"expiresOn": "file.metadata.expiry"}, "grace": "P1D"});
    let issued = json!({"validity": {"period": "P24M", "from": "file.metadata.issued"}});
    let workspace = asks(&world, "w", asking(&[document("iso", dated.clone()), document("w9", issued)])).await;
    upload(&world, &workspace, "/Inbox/a.txt", "text/plain", &[("documentType", "iso"), ("expiry", "2040-06-30")]).await;
    upload(&world, &workspace, "/Inbox/b.txt", "text/plain", &[("documentType", "w9"), ("issued", "2040-02-29")]).await;
    let valid = |until: &'static str, name: &'static str| move |object: &Value| row(object, name)["validUntil"] == until;
    world.until("SecureWorkspace", "w", "UTC", valid("2040-07-01T00:00:00Z", "iso")).await;
    world.until("SecureWorkspace", "w", "the leap day", valid("2042-03-01T00:00:00Z", "w9")).await;
    world.apply_connection(json!({"timeZone": "America/New_York"})).await;
    world.until("SecureWorkspace", "w", "the Connection's zone", valid("2040-07-01T04:00:00Z", "iso")).await;
    let mut spec = asking(&[document("iso", dated)]);
    spec["timeZone"] = json!("Europe/Berlin");
    world.apply_workspace("w", spec).await;
    let object = world.until("SecureWorkspace", "w", "its own zone", valid("2040-06-30T22:00:00Z", "iso")).await;
    assert_eq!(object["status"]["documents"]["timeZone"], "Europe/Berlin");
    let page = page(&world, &workspace).await;
    assert!(page.contains("valid to 2040-06-30"), "{page}");
}

/// The page of the upload request `docs`, as an outsider sees it.
async fn page(world: &World, workspace: &str) -> String {
    let request = world.remote.get(&format!("/v1/workspaces/{workspace}/upload-requests/docs")).await;
    let answer = reqwest::get(request["url"].as_str().unwrap()).await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    answer.text().await.unwrap()
}

#[tokio::test]
async fn hostile_dates_are_refused_with_a_reason_and_a_correction_helps() {
    let world = World::new().await;
    let dated = json!({"validity": {"period": "P9999Y", "from": "file.metadata.issued"}});
    let workspace = asks(&world, "w", asking(&[document("iso", dated)])).await;
    let file = upload(&world, &workspace, "/Inbox/a.txt", "text/plain", &[("documentType", "iso")]).await;
    let reason = |wanted: &'static str| move |object: &Value| row(object, "iso")["reason"] == wanted;
    world.until("SecureWorkspace", "w", "no date", reason("DateMissing")).await;
    let long = "9".repeat(1000);
    for hostile in ["31.12.2030", "9999-12-31", "0000-00-00", "2030-02-30", "<script>", long.as_str(), "２０３０-01-01"]
    {
        world.remote.change("PATCH", &format!("/v1/items/{file}"), json!({"metadata": {"issued": hostile}})).await;
        world.until("SecureWorkspace", "w", hostile, reason("DateInvalid")).await;
    }
    // A period that leaves the calendar is no validity either.
    world.remote.change("PATCH", &format!("/v1/items/{file}"), json!({"metadata": {"issued": "2030-01-01"}})).await;
    let out =
        |object: &Value| row(object, "iso")["message"].as_str().is_some_and(|message| message.contains("out of range"));
    world.until("SecureWorkspace", "w", "a date out of range", out).await;
    let dated = json!({"validity": {"period": "P24M", "from": "file.metadata.issued"}});
    world.apply_workspace("w", asking(&[document("iso", dated)])).await;
    becomes(&world, "w", "iso", "Approved").await;
}

#[tokio::test]
async fn whether_a_document_is_asked_for_follows_metadata_and_labels() {
    let world = World::new().await;
    let eu = json!({"requiredWhen": "workspace.metadata.region == 'EU'"});
    let vip = json!({"requiredWhen": "has(workspace.labels.tier) && workspace.labels.tier == 'gold'"});
    let mut spec = asking(&[document("iso", eu), document("nda", vip)]);
    spec["metadata"] = json!({"region": "US"});
    asks(&world, "w", spec.clone()).await;
    let object = becomes(&world, "w", "iso", "NotApplicable").await;
    assert_eq!(row(&object, "nda")["state"], "NotApplicable");
    assert_eq!(object["status"]["documents"]["summary"], "0/0");
    assert_eq!(condition(&object, "DocumentsComplete")["status"], "True");
    spec["metadata"] = json!({"region": "EU"});
    world.apply_workspace("w", spec.clone()).await;
    becomes(&world, "w", "iso", "Missing").await;
    world.patch("SecureWorkspace", "w", json!({"metadata": {"labels": {"tier": "gold"}}})).await;
    becomes(&world, "w", "nda", "Missing").await;
    // What cannot be told is asked for, and says why.
    spec.as_object_mut().unwrap().remove("metadata");
    world.apply_workspace("w", spec).await;
    let failed = |object: &Value| row(object, "iso")["reason"] == "ExpressionFailed";
    world.until("SecureWorkspace", "w", "the failure", failed).await;
}

#[tokio::test]
async fn files_that_are_not_accepted_are_refused_at_the_upload_and_rejected_elsewhere() {
    let world = World::new().await;
    let accept = json!({"title": "ISO certificate", "accept": {"mimeTypes": ["application/pdf"], "maxSize": "1Ki"}});
    let mut spec = asking(&[document("iso", accept)]);
    let select = json!({"name": "documentType", "type": "Select", "options": ["iso", "other"], "required": true});
    spec["uploadRequests"] = json!([{"name": "docs", "path": "/Inbox", "fields": [select]}]);
    let workspace = asks(&world, "w", spec).await;
    assert!(page(&world, &workspace).await.contains("ISO certificate"));
    let request = world.remote.get(&format!("/v1/workspaces/{workspace}/upload-requests/docs")).await;
    let files = format!("{}/files", request["url"].as_str().unwrap());
    let send = |kind: &'static str, mime: &'static str, size: usize| {
        let part = reqwest::multipart::Part::bytes(vec![b'x'; size]).file_name("x.pdf").mime_str(mime).unwrap();
        let form = reqwest::multipart::Form::new().text("documentType", kind).part("file", part);
        let request = reqwest::Client::new().post(&files).header("accept", "application/json").multipart(form);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["code"].clone())
        }
    };
    assert_eq!(send("iso", "image/png", 10).await, (422, json!("not-accepted")));
    assert_eq!(send("iso", "application/pdf", 1025).await, (422, json!("not-accepted")));
    assert_eq!(send("other", "image/png", 10).await.0, 201, "the limit is the option's");
    upload(&world, &workspace, "/Inbox/e.txt", "text/plain", &[("documentType", "iso")]).await;
    let object = becomes(&world, "w", "iso", "Rejected").await;
    assert_eq!(row(&object, "iso")["reason"], "NotAccepted");
    eventually("the reason on the page", || async {
        let page = page(&world, &workspace).await;
        page.contains("rejected; please send another one").then_some(()).ok_or(page)
    })
    .await;
    assert_eq!(send("iso", "application/pdf", 1024).await.0, 201);
    becomes(&world, "w", "iso", "Approved").await;
}

#[tokio::test]
async fn c6_one_upload_is_one_status_write_and_what_does_not_matter_is_none() {
    let world = World::new().await;
    let workspace = asks(&world, "w", asking(&[document("iso", json!({})), document("w9", json!({}))])).await;
    let before = writes(&world).await;
    upload(&world, &workspace, "/Inbox/iso.txt", "text/plain", &[("documentType", "iso")]).await;
    becomes(&world, "w", "iso", "Approved").await;
    assert_eq!(writes(&world).await, before + 1.0);
    upload(&world, &workspace, "/Inbox/noise.txt", "text/plain", &[]).await;
    upload(&world, &workspace, "/Other/noise.txt", "text/plain", &[("documentType", "w9")]).await;
    upload(&world, &workspace, "/Inbox/w9.txt", "text/plain", &[("documentType", "w9")]).await;
    becomes(&world, "w", "w9", "Approved").await;
    assert_eq!(writes(&world).await, before + 2.0);
    // The pass that wrote the status ends after that.
    let operator = world.operator.as_ref().unwrap();
    let count = || operator.metric("file360_reconciles_total", "SecureWorkspace");
    let passes = eventually("the end of the last pass", || async {
        let before = count().await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let after = count().await;
        if before.total_cmp(&after).is_eq() { Ok(after) } else { Err(format!("{before} passes, then {after}")) }
    })
    .await;
    let calls = world.remote.calls().await;
    // Long enough for an update loop to show: each turn of one takes milliseconds.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(writes(&world).await, before + 2.0);
    assert_eq!(count().await, passes);
    let after = world.remote.calls().await;
    for operation in ["listFiles", "queryFacets", "batchFacets", "updateItem", "getWorkspace"] {
        assert_eq!(after["requestCounters"][operation], calls["requestCounters"][operation], "{operation}");
    }
}

#[tokio::test]
async fn a_restart_asks_nothing_where_nothing_happened_and_finds_what_did() {
    let mut world = World::new().await;
    let first = asks(&world, "w1", asking(&[document("iso", json!({"onApproved": {"lock": true}}))])).await;
    let second = asks(&world, "w2", asking(&[document("iso", json!({}))])).await;
    upload(&world, &first, "/Inbox/a.txt", "text/plain", &[("documentType", "iso")]).await;
    becomes(&world, "w1", "iso", "Approved").await;
    let settled = |object: &Value| row(object, "iso")["state"] == "Approved";
    world.until("SecureWorkspace", "w1", "the lock", settled).await;
    world.kill_operator();
    upload(&world, &second, "/Inbox/b.txt", "text/plain", &[("documentType", "iso")]).await;
    let before = world.remote.calls().await["requestCounters"]["listFiles"].as_u64().unwrap_or_default();
    world.start_operator(&[]).await;
    becomes(&world, "w2", "iso", "Approved").await;
    let after = world.remote.calls().await["requestCounters"]["listFiles"].as_u64().unwrap_or_default();
    assert_eq!(after - before, 1, "only the workspace with a new file is looked at");
}

#[tokio::test]
async fn c5_what_could_not_be_read_is_not_missing() {
    let world = World::new().await;
    let workspace = asks(&world, "w", asking(&[document("iso", json!({}))])).await;
    upload(&world, &workspace, "/Inbox/a.txt", "text/plain", &[("documentType", "iso")]).await;
    becomes(&world, "w", "iso", "Approved").await;
    for failure in
        [json!({"status": 500}), json!({"status": 403}), json!({"malformed": true}), json!({"truncateBody": true})]
    {
        let mut fault = failure.clone();
        fault["pathPrefix"] = json!(format!("/v1/workspaces/{workspace}/files"));
        fault["count"] = json!(1000);
        world.remote.faults(json!({"failNext": [fault]})).await;
        let failed = world.log().matches("The pass failed").count();
        upload(&world, &workspace, "/Inbox/noise.txt", "text/plain", &[]).await;
        eventually("a failed look", || async {
            let now = world.log().matches("The pass failed").count();
            (now > failed).then_some(()).ok_or_else(|| "no pass has failed".to_owned())
        })
        .await;
        let object = world.get("SecureWorkspace", "w").await;
        assert_eq!(row(&object, "iso")["state"], "Approved", "{failure}");
        assert_eq!(condition(&object, "DocumentsComplete")["status"], "True", "{failure}");
        world.remote.faults(json!({})).await;
        let noise = world.remote.get(&format!("/v1/workspaces/{workspace}/resolve?path=/Inbox/noise.txt")).await;
        world.remote.change("DELETE", &format!("/v1/items/{}", noise["id"].as_str().unwrap()), json!({})).await;
    }
    world.condition("SecureWorkspace", "w", "Ready", "True").await;
}

#[tokio::test]
async fn a_feed_that_lost_its_place_misses_no_document() {
    let world = World::new().await;
    let workspace = asks(&world, "w", asking(&[document("iso", json!({}))])).await;
    world.remote.faults(json!({"expireCursors": true})).await;
    upload(&world, &workspace, "/Inbox/a.txt", "text/plain", &[("documentType", "iso")]).await;
    world.remote.faults(json!({})).await;
    becomes(&world, "w", "iso", "Approved").await;
}

#[tokio::test]
async fn an_expression_that_cannot_be_compiled_stops_before_anything_is_done() {
    let world = World::new().await;
    let broken = json!({"name": "iso", "match": {"path": "/Inbox/**", "when": "file.metadata.("}});
    world.apply_workspace("w", asking(&[broken])).await;
    let object = world.reason("SecureWorkspace", "w", "Stalled", "InvalidExpression").await;
    let ready = condition(&object, "Ready");
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains("spec.requiredDocuments[0].match.when: line 1, column"), "{message}");
    assert!(object["status"]["workspaceId"].is_null(), "nothing was made");
    let mut spec = asking(&[document("iso", json!({}))]);
    spec["timeZone"] = json!("Europe/Atlantis");
    world.apply_workspace("w", spec).await;
    world.reason("SecureWorkspace", "w", "Stalled", "InvalidSpec").await;
}

#[tokio::test]
async fn r8_routes_hear_what_became_of_a_document_once() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let reviewed =
        json!({"review": {"required": true}, "validity": {"expiresOn": "file.metadata.expiry"}, "warnBefore": "P0D"});
    let workspace = asks(&world, "w", asking(&[document("iso", reviewed)])).await;
    let template = json!("{'document': requirement.name, 'state': requirement.state, 'event': event.type}");
    let spec = json!({
        "from": {"workspaces": {"selector": {}, "path": "/Inbox/**",
            "events": ["DocumentApproved", "DocumentRejected", "DocumentExpired"]}},
        "rules": [{"name": "all", "to": [{"name": "hr", "http": {"url": format!("{}/cases", cases.url), "body": "Template", "template": template}}]}],
        "unmatched": {"ignore": {}},
        "delivery": {"backoff": {"initial": "200ms", "max": "1s"}},
    });
    route(&world, "hr", spec).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(25);
    let good = [("documentType", "iso"), ("expiry", &soon.to_string())];
    let file = upload(&world, &workspace, "/Inbox/a.txt", "text/plain", &good).await;
    becomes(&world, "w", "iso", "InReview").await;
    plugin::run(&world, &["documents", "approve", "w", "iso", "--file", &file, "--version", "1"]).await.ends(0);
    arrived(&cases, 1).await;
    becomes(&world, "w", "iso", "Expired").await;
    arrived(&cases, 2).await;
    upload(&world, &workspace, "/Inbox/b.txt", "text/plain", &[("documentType", "iso"), ("expiry", "2040-01-01")]).await;
    becomes(&world, "w", "iso", "InReview").await;
    plugin::run(&world, &["documents", "reject", "w", "iso", "--reason", "blurred"]).await.ends(0);
    arrived(&cases, 3).await;
    let said: Vec<Value> = cases.accepted().iter().map(Accepted::json).collect();
    let told = |event: &str, state: &str| json!({"document": "iso", "state": state, "event": event});
    let wanted =
        [told("DocumentApproved", "Approved"), told("DocumentExpired", "Expired"), told("DocumentRejected", "Rejected")];
    assert_eq!(said, wanted);
    assert_eq!(cases.repeated(), 0);
}

#[tokio::test]
async fn people_outside_are_invited_once_told_of_a_rejection_and_not_disturbed_otherwise() {
    let world = World::new().await;
    let reviewed = json!({"title": "ISO certificate", "review": {"required": true}});
    let mut spec = asking(&[document("iso", reviewed), document("w9", json!({}))]);
    spec["reminders"] = json!({"to": ["vendor@acme.example"], "uploadRequest": "docs", "language": "de"});
    let workspace = asks(&world, "w", spec.clone()).await;
    let mails = || async {
        let all = world.remote.all("/v1/notifications").await;
        let mails: Vec<String> =
            all.iter().map(|mail| format!("{} {} {}", mail["template"], mail["locale"], mail["to"])).collect();
        mails
    };
    let first = "\"document-request\" \"de\" \"vendor@acme.example\"";
    eventually("the invitation", || async { (mails().await == [first]).then_some(()).ok_or("no mail".to_owned()) }).await;
    upload(&world, &workspace, "/Inbox/iso.txt", "text/plain", &[("documentType", "iso")]).await;
    let object = becomes(&world, "w", "iso", "InReview").await;
    assert_eq!(object["status"]["documents"]["reminder"]["count"], 1);
    assert_eq!(mails().await.len(), 1, "what arrives is no reason for a mail");
    assert!(object["status"]["nextChangeAt"].is_string(), "w9 is still missing: they are reminded");
    plugin::run(&world, &["documents", "reject", "w", "iso", "--reason", "the seal is missing"]).await.ends(0);
    becomes(&world, "w", "iso", "Rejected").await;
    let second = "\"document-reminder\" \"de\" \"vendor@acme.example\"";
    assert_eq!(mails().await, [first, second]);
    let object = world.get("SecureWorkspace", "w").await;
    assert_eq!(object["status"]["documents"]["reminder"]["documents"], json!(["iso:Rejected", "w9:Missing"]));
    let page = page(&world, &workspace).await;
    assert!(page.contains("ISO certificate") && page.contains("Reason: the seal is missing"), "{page}");

    // The fields of reminders, one after the other.
    spec["reminders"]["to"] = json!(["other@acme.example"]);
    spec["reminders"]["language"] = json!("en");
    spec["reminders"]["every"] = json!("P1D");
    let before = object["status"]["nextChangeAt"].clone();
    world.apply_workspace("w", spec.clone()).await;
    world.condition("SecureWorkspace", "w", "Ready", "True").await;
    let object = world.get("SecureWorkspace", "w").await;
    assert_ne!(object["status"]["nextChangeAt"], before, "reminded sooner");
    assert_eq!(mails().await.len(), 2, "a change of the spec is no reason for a mail");
    upload(&world, &workspace, "/Inbox/iso2.txt", "text/plain", &[("documentType", "iso")]).await;
    becomes(&world, "w", "iso", "InReview").await;
    plugin::run(&world, &["documents", "reject", "w", "iso", "--reason", "again"]).await.ends(0);
    becomes(&world, "w", "iso", "Rejected").await;
    assert_eq!(mails().await.last().unwrap(), "\"document-reminder\" \"en\" \"other@acme.example\"");
}

#[tokio::test]
async fn mails_carry_the_address_and_name_what_is_asked_for() {
    let world = World::new().await;
    let mut spec = asking(&[document("iso", json!({"title": "ISO certificate"}))]);
    spec["reminders"] = json!({"to": ["vendor@acme.example"]});
    let outbox = world.folder.path().join("data").join("outbox");
    let mail = |containing: String| {
        let outbox = outbox.clone();
        async move {
            eventually("the mail", || async {
                let files: Vec<_> =
                    std::fs::read_dir(&outbox).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
                let texts: Vec<String> = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
                let texts = texts.into_iter().map(|text| text.replace("=\r\n", "")).collect::<Vec<_>>();
                texts.iter().find(|text| text.contains(&containing)).cloned().ok_or_else(|| format!("{texts:?}"))
            })
            .await
        }
    };
    let first = asks(&world, "w1", spec.clone()).await;
    let text = mail(format!("/w/{first}")).await;
    assert!(text.contains("To: vendor@acme.example") && text.contains("ISO certificate"), "{text}");
    spec["reminders"]["uploadRequest"] = json!("docs");
    let second = asks(&world, "w2", spec).await;
    let request = world.remote.get(&format!("/v1/workspaces/{second}/upload-requests/docs")).await;
    let token = request["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    mail(token).await;
}
