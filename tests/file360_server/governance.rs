use reqwest::Method;
use serde_json::{Value, json};

use crate::files::with_file;
use crate::support::{Api, id, start};

fn item(file: &Value) -> String {
    format!("/v1/items/{}", id(file))
}

async fn hold(api: &Api, key: &str, on: &Value) {
    api.put(&format!("/v1/holds/{key}"), json!({"matter": "2026-CV-17"})).send().await;
    api.ask(Method::PUT, &format!("{}/holds/{key}", item(on))).send().await.expect(201);
}

async fn retain(api: &Api, file: &Value, days: i64, strength: &str) -> crate::support::Reply {
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
    let body = json!({"until": until, "strength": strength, "policyId": "p"});
    api.put(&format!("{}/retention", item(file)), body).send().await
}

/// Every way to make the file, a version of it, or what contains it go away.
async fn nothing_removes(api: &Api, ws: &Value, folder: &Value, file: &Value, code: &str) {
    for path in [item(file), item(folder), format!("{}/versions/1", item(file)), format!("/v1/workspaces/{}", id(ws))] {
        let refused = api.delete(&path).header("if-match", "*").send().await.refused(409, code);
        assert_eq!(refused["status"], 409, "{path}");
    }
}

#[tokio::test]
async fn a_hold_beats_every_way_to_delete_and_what_is_in_the_trash_stays_there() {
    let fixture = start().await;
    let (api, admin) = (fixture.operator().await, fixture.client("admin").await);
    let (ws, folder, file) = with_file(&api, "one", "hello").await;
    let v2 = api
        .raw(Method::PUT, &format!("{}/content", item(&file)), "text/plain", "two")
        .matching(&file)
        .send()
        .await
        .expect(200);
    hold(&api, "smith-v-acme", &file).await;
    nothing_removes(&api, &ws, &folder, &file, "hold-active").await;
    nothing_removes(&admin, &ws, &folder, &file, "hold-active").await;
    let refused =
        api.delete(&format!("/v1/workspaces/{}", id(&ws))).header("if-match", "*").send().await.refused(409, "hold-active");
    assert_eq!(refused["errors"][0]["pointer"], file["id"]);
    let held = api.get(&item(&file)).send().await.expect(200);
    assert_eq!(held["holds"], json!(["smith-v-acme"]));
    assert_eq!(api.all("/v1/holds/smith-v-acme/items").await[0]["itemId"], v2["id"]);

    let other = api.upload(&folder, "b.txt", "b").await.expect(201);
    api.delete(&item(&other)).matching(&other).send().await.expect(204);
    hold(&api, "smith-v-acme", &other).await;
    admin.delete(&format!("{}?purge=true", item(&other))).header("if-match", "*").send().await.refused(409, "hold-active");
    fixture.server.clock().set_offset_seconds(40 * 86_400);
    fixture.server.sweep().await;
    let api = fixture.operator().await;
    assert_eq!(api.get(&item(&other)).send().await.expect(200)["state"], "Trashed");
    api.delete(&format!("{}/holds/smith-v-acme?reason=settled", item(&file))).send().await.expect(204);
    api.delete(&item(&file)).header("if-match", "*").send().await.expect(204);
}

#[tokio::test]
async fn a_held_folder_protects_what_is_in_it_and_what_arrives_later() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (ws, folder, _) = with_file(&api, "one", "hello").await;
    hold(&api, "h", &folder).await;
    let late = api.upload(&folder, "late.txt", "late").await.expect(201);
    assert_eq!(late["holds"], json!(["h"]));
    api.delete(&item(&late)).matching(&late).send().await.refused(409, "hold-active");
    let free = api.folder(&ws, "/Free").await;
    let moved = api.patch(&item(&late), json!({"parentId": id(&free)})).matching(&late).send().await.expect(200);
    assert_eq!(moved["holds"], json!(["h"]), "moving out of the folder does not shake the hold off");
    let copy = api
        .post(&format!("{}/copies", item(&late)), json!({"parentId": id(&free), "name": "copy.txt"}))
        .send()
        .await
        .expect(201);
    assert_eq!(copy["holds"], json!(["h"]));
}

#[tokio::test]
async fn retention_only_grows_and_beats_deletion_until_its_day() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (ws, folder, file) = with_file(&api, "one", "hello").await;
    let v2 = api
        .raw(Method::PUT, &format!("{}/content", item(&file)), "text/plain", "two")
        .matching(&file)
        .send()
        .await
        .expect(200);
    retain(&api, &file, 10, "Regulatory").await.expect(200);
    retain(&api, &file, 9, "Regulatory").await.refused(409, "reduction-refused");
    retain(&api, &file, 11, "Governance").await.refused(409, "reduction-refused");
    retain(&api, &file, 12, "Regulatory").await.expect(200);
    nothing_removes(&api, &ws, &folder, &file, "retained").await;
    let copy = api
        .post(&format!("{}/copies", item(&file)), json!({"parentId": id(&folder), "name": "copy.txt"}))
        .send()
        .await
        .expect(201);
    assert_eq!(copy["retainUntil"], api.get(&item(&file)).send().await.expect(200)["retainUntil"]);
    let _ = v2;
    fixture.server.clock().set_offset_seconds(13 * 86_400);
    let api = fixture.operator().await;
    api.delete(&item(&file)).header("if-match", "*").send().await.expect(204);
}

#[tokio::test]
async fn a_person_s_delete_hides_and_preserves_what_governance_retains() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (ws, folder, file) = with_file(&api, "one", "hello").await;
    let person = api.principal("User", "ada").await;
    api.member(&ws, &person, "Editor").await.expect(201);
    let ada = fixture.person("ada").await;
    retain(&api, &file, 400, "Governance").await.expect(200);
    api.delete(&item(&file)).header("if-match", "*").send().await.refused(409, "retained");
    ada.delete(&item(&file)).header("if-match", "*").send().await.expect(204);
    ada.get(&item(&file)).send().await.refused(404, "not-found");
    fixture.server.clock().set_offset_seconds(300 * 86_400);
    fixture.server.sweep().await;
    let api = fixture.operator().await;
    assert_eq!(api.get(&item(&file)).send().await.expect(200)["state"], "Trashed");
    let strict = api.upload(&folder, "strict.txt", "x").await.expect(201);
    let until = "2099-01-01T00:00:00Z";
    let body = json!({"until": until, "strength": "Regulatory", "policyId": "p"});
    api.put(&format!("{}/retention", item(&strict)), body).send().await.expect(200);
    let ada = fixture.person("ada").await;
    ada.delete(&item(&strict)).header("if-match", "*").send().await.refused(409, "retained");
}

#[tokio::test]
async fn a_record_changes_neither_content_nor_name_and_stays_one() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (ws, folder, file) = with_file(&api, "one", "hello").await;
    let v2 = api
        .raw(Method::PUT, &format!("{}/content", item(&file)), "text/plain", "two")
        .matching(&file)
        .send()
        .await
        .expect(200);
    let record = format!("{}/record", item(&file));
    api.put(&record, json!({"declared": true, "class": "10-1"})).matching(&v2).send().await.expect(200);
    assert_eq!(api.get(&item(&file)).send().await.expect(200)["record"], true);
    let force = |ask: crate::support::Ask| ask.header("if-match", "*").send();
    force(api.raw(Method::PUT, &format!("{}/content", item(&file)), "text/plain", "x")).await.refused(409, "record");
    force(api.patch(&item(&file), json!({"name": "b.txt"}))).await.refused(409, "record");
    force(api.patch(&item(&file), json!({"parentId": ws["rootId"]}))).await.refused(409, "record");
    api.post(&format!("{}/versions/1/restorations", item(&file)), json!({})).send().await.refused(409, "record");
    let again = format!("/v1/items/{}/files?name=a.txt&onConflict=newVersion", id(&folder));
    api.raw(Method::POST, &again, "text/plain", "x").send().await.refused(409, "record");
    for path in [item(&file), item(&folder), format!("{}/versions/1", item(&file))] {
        api.delete(&path).header("if-match", "*").send().await.refused(409, "record");
    }
    api.delete(&format!("/v1/workspaces/{}", id(&ws))).header("if-match", "*").send().await.refused(409, "retained");
    force(api.put(&record, json!({"declared": false}))).await.refused(409, "record");
    force(api.patch(&item(&file), json!({"metadata": {"note": "fine"}}))).await.expect(200);
}

#[tokio::test]
async fn quarantined_content_reaches_nobody_but_who_decides() {
    let fixture = start().await;
    let (api, reader) = (fixture.operator().await, fixture.client("neighbour").await);
    let (_, folder, file) = with_file(&api, "one", "virus").await;
    api.put(&format!("{}/quarantine", item(&file)), json!({"quarantined": true, "reason": "EICAR"}))
        .send()
        .await
        .expect(200);
    assert_eq!(reader.get(&item(&file)).send().await.expect(200)["state"], "Quarantined");
    reader.get(&format!("{}/content", item(&file))).send().await.refused(409, "quarantined");
    reader.post(&format!("{}/links", item(&file)), json!({"audience": "Members"})).send().await.refused(409, "quarantined");
    reader
        .post(&format!("{}/copies", item(&file)), json!({"parentId": id(&folder), "name": "x"}))
        .send()
        .await
        .refused(409, "quarantined");
    api.get(&format!("{}/content", item(&file))).send().await.expect(200);
    let copy =
        api.post(&format!("{}/copies", item(&file)), json!({"parentId": id(&folder), "name": "x"})).send().await.expect(201);
    assert_eq!(copy["state"], "Quarantined");
}

#[tokio::test]
async fn what_arrives_under_a_gate_is_invisible_from_its_first_byte_until_it_is_released() {
    let fixture = start().await;
    let (api, reader, admin) = (fixture.operator().await, fixture.client("neighbour").await, fixture.client("admin").await);
    let (ws, folder, file) = with_file(&api, "one", "first").await;
    let person = api.principal("User", "ada").await;
    api.member(&ws, &person, "Editor").await.expect(201);
    let ada = fixture.person("ada").await;
    let actions = json!({"actions": ["Upload", "Modify", "ShareLink", "Delete"]});
    api.put(&format!("{}/intake", item(&folder)), actions).send().await.expect(200);
    let (_, cursor) = reader.changes("now").await;

    let new = ada.upload(&folder, "new.txt", "secret").await.expect(201);
    assert_eq!(new["state"], "Pending");
    for caller in [&reader, &ada] {
        caller.get(&item(&new)).send().await.refused(404, "not-found");
        caller.get(&format!("{}/content", item(&new))).send().await.refused(404, "not-found");
        caller.get(&format!("{}/versions", item(&new))).send().await.refused(404, "not-found");
        caller
            .get(&format!("/v1/workspaces/{}/resolve?path=/Inbox/new.txt", id(&ws)))
            .send()
            .await
            .refused(404, "not-found");
        assert_eq!(caller.all(&format!("/v1/items/{}/children", id(&folder))).await.len(), 1);
        caller
            .post(&format!("{}/copies", item(&new)), json!({"parentId": ws["rootId"]}))
            .send()
            .await
            .refused(404, "not-found");
    }
    let (entries, _) = reader.changes(&cursor).await;
    assert!(!serde_json::to_string(&entries).unwrap().contains("new.txt"), "not even its name is told");

    let v2 = ada
        .raw(Method::PUT, &format!("{}/content", item(&file)), "text/plain", "second")
        .matching(&file)
        .send()
        .await
        .expect(200);
    assert_eq!(v2["version"], 1);
    assert_eq!(ada.get(&format!("{}/content", item(&file))).send().await.bytes, b"first");
    ada.get(&format!("{}/content?version=2", item(&file))).send().await.refused(404, "not-found");
    let link = ada.post(&format!("{}/links", item(&file)), json!({"audience": "Members"})).send().await.expect(201);
    ada.delete(&item(&file)).header("if-match", "*").send().await.expect(202);
    assert_eq!(ada.get(&item(&file)).send().await.expect(200)["state"], "Available");
    assert_eq!(api.all("/v1/pending").await.len(), 4);
    assert_eq!(api.all(&format!("/v1/pending?workspaceId={}", id(&ws))).await.len(), 4);

    let decide = |file: &Value, body: Value| api.post(&format!("{}/decisions", item(file)), body);
    let wrong = json!({"version": 1, "sha256": "00".repeat(32), "decision": "Release"});
    decide(&new, wrong).send().await.refused(422, "digest-mismatch");
    reader
        .post(&format!("{}/decisions", item(&new)), json!({"version": 1, "decision": "Release"}))
        .send()
        .await
        .refused(403, "insufficient-scope");
    decide(&new, json!({"version": 1, "decision": "Release", "reason": "ok"})).send().await.expect(200);
    assert_eq!(ada.get(&format!("{}/content", item(&new))).send().await.bytes, b"secret");
    decide(&new, json!({"version": 1, "decision": "Reject"})).send().await.refused(409, "already-decided");
    decide(&file, json!({"version": 2, "decision": "Reject"})).send().await.expect(200);
    assert_eq!(ada.get(&format!("{}/content", item(&file))).send().await.bytes, b"first");
    decide(&file, json!({"link": id(&link), "decision": "Reject"})).send().await.expect(200);
    decide(&file, json!({"delete": true, "decision": "Release"})).send().await.expect(200);
    ada.get(&item(&file)).send().await.refused(404, "not-found");
    assert!(api.all("/v1/pending").await.is_empty());
    let held = ada.upload(&folder, "held.txt", "x").await.expect(201);
    api.put(&format!("{}/intake", item(&folder)), json!({"actions": []})).send().await.expect(200);
    ada.get(&item(&held)).send().await.refused(404, "not-found");
    admin.get(&item(&held)).send().await.expect(200);
}

#[tokio::test]
async fn what_is_moved_under_a_gate_waits_like_what_is_uploaded() {
    let fixture = start().await;
    let (api, reader) = (fixture.operator().await, fixture.client("neighbour").await);
    let (ws, folder, file) = with_file(&api, "one", "first").await;
    let gated = api.folder(&ws, "/Gated").await;
    api.put(&format!("{}/intake", item(&gated)), json!({"actions": ["Upload"]})).send().await.expect(200);
    reader
        .patch(&item(&folder), json!({"parentId": id(&gated)}))
        .matching(&folder)
        .header("if-match", "*")
        .send()
        .await
        .refused(409, "state-conflict");
    reader.patch(&item(&file), json!({"parentId": id(&gated)})).matching(&file).send().await.expect(200);
    reader.get(&item(&file)).send().await.refused(404, "not-found");
    assert_eq!(api.get(&item(&file)).send().await.expect(200)["state"], "Pending");
}

#[tokio::test]
async fn holds_are_set_and_released_in_batches() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, folder, file) = with_file(&api, "one", "a").await;
    let other = api.upload(&folder, "b.txt", "b").await.expect(201);
    api.put("/v1/holds/h", json!({"matter": "m", "scope": {"when": "true"}})).send().await.expect(201);
    let again = api.put("/v1/holds/h", json!({"matter": "m", "scope": {"when": "true"}})).send().await.expect(200);
    assert_eq!(again["etag"], "\"1\"");
    let batch = json!({"apply": [id(&file), id(&other), "nobody"], "reason": "matter m"});
    let results = api.post("/v1/holds/h/assignments", batch).send().await.expect(200)["results"].clone();
    assert_eq!(results[2]["problem"]["code"], "not-found");
    assert_eq!(api.all("/v1/holds/h/items").await.len(), 2);
    api.post("/v1/holds/h/assignments", json!({"release": [id(&file)]})).send().await.expect(200);
    assert_eq!(api.all("/v1/holds/h/items").await.len(), 1);
    api.ask(Method::PUT, &format!("{}/holds/unknown", item(&file))).send().await.refused(404, "not-found");
}
