use serde_json::json;

use crate::support::{at_once, id, owner, start};

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_creators_of_one_key_exactly_one_creates() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let replies = at_once(50, move |n| {
        let api = api.clone();
        async move {
            let body = json!({"displayName": format!("by {n}")});
            api.put("/v1/workspaces/by-key/s4/vendor%2F50031", body).header("if-none-match", "*").send().await
        }
    })
    .await;
    let created: Vec<_> = replies.iter().filter(|reply| reply.status == 201).collect();
    assert_eq!(created.len(), 1);
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        let problem = reply.clone().refused(409, "key-exists");
        assert_eq!(problem["existing"]["id"], created[0].body["id"]);
    }
    assert_eq!(created[0].body["key"], json!({"system": "s4", "key": "vendor/50031"}));
    assert_eq!(created[0].revision(), 1);
}

#[tokio::test]
async fn creation_needs_if_none_match_and_leaves_nothing_without_it() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let path = "/v1/workspaces/by-key/s4/1";
    api.put(path, json!({"displayName": "One"})).send().await.refused(428, "precondition-required");
    api.get(path).send().await.refused(404, "not-found");
}

#[tokio::test]
async fn every_effective_change_advances_the_revision_by_one_and_others_are_silent() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let path = format!("/v1/workspaces/{}", id(&ws));
    let ada = api.principal("User", "ada").await;
    let (_, cursor) = api.changes("now").await;

    let patched = api.patch(&path, json!({"classification": "Secret", "metadata": {"a": "1"}})).matching(&ws).send().await;
    assert_eq!(patched.revision(), 2);
    let same = api.patch(&path, json!({"classification": "Secret"})).header("if-match", "*").send().await;
    assert_eq!(same.revision(), 2);
    assert_eq!(api.member(&ws, &ada, "Editor").await.revision(), 3);
    assert_eq!(api.member(&ws, &ada, "Editor").await.revision(), 3);
    let folder = api.folder(&ws, "/Inbox").await;
    assert_eq!(api.revision(&ws).await, 4);
    let request = json!({"path": "/Inbox", "managed": true});
    let request_path = format!("{path}/upload-requests/docs");
    let first = api.put(&request_path, request.clone()).send().await;
    assert_eq!((first.status.as_u16(), first.revision()), (201, 5));
    let second = api.put(&request_path, request).send().await;
    assert_eq!((second.status.as_u16(), second.revision()), (200, 5));
    assert_eq!(first.body["url"], second.body["url"]);
    let link = api.post(&format!("/v1/items/{}/links", id(&folder)), json!({"audience": "Members"})).send().await;
    assert_eq!(link.revision(), 6);
    let deleted = api.delete(&format!("/v1/links/{}", id(&link.body))).send().await;
    assert_eq!((deleted.status.as_u16(), deleted.revision()), (204, 7));
    assert_eq!(api.delete(&format!("{path}/members/{ada}")).send().await.revision(), 8);
    api.delete(&format!("{path}/members/{ada}")).send().await.refused(404, "not-found");

    let (entries, _) = api.changes(&cursor).await;
    let kinds: Vec<_> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    let expected = [
        "workspaceUpdated",
        "memberSet",
        "folderChanged",
        "uploadRequestChanged",
        "linkChanged",
        "linkChanged",
        "memberRemoved",
    ];
    assert_eq!(kinds, expected);
    let revisions: Vec<_> = entries.iter().map(|entry| entry["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, [2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn a_stale_writer_is_refused_and_loses_nothing() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let path = format!("/v1/workspaces/{}", id(&ws));
    api.patch(&path, json!({"displayName": "A"})).send().await.refused(428, "precondition-required");
    api.patch(&path, json!({"displayName": "A"})).matching(&ws).send().await.expect(200);
    let late = api.patch(&path, json!({"displayName": "B"})).matching(&ws).send().await;
    assert_eq!(late.revision(), 2);
    late.refused(412, "etag-mismatch");
    let now = api.get(&path).send().await;
    assert_eq!(now.body["displayName"], "A");
    assert_eq!(now.header("etag"), now.body["etag"].as_str());
    let etag = now.header("etag").unwrap().to_owned();
    assert_eq!(api.get(&path).header("if-none-match", &etag).send().await.status, 304);
}

#[tokio::test]
async fn an_active_mark_belongs_to_the_client_that_set_it() {
    let fixture = start().await;
    let (api, neighbour, admin) =
        (fixture.operator().await, fixture.client("neighbour").await, fixture.client("admin").await);
    let ws = api.workspace_with("one", json!({"displayName": "One", "owner": owner("u1")})).await;
    let path = format!("/v1/workspaces/{}/owner", id(&ws));
    let problem = neighbour.put(&path, owner("u2")).matching(&ws).send().await.refused(409, "owned-by-other");
    assert_eq!(problem["existing"]["owner"]["uid"], "u1");
    let mut released = owner("u1");
    released["state"] = json!("Released");
    let ws = api.put(&path, released).matching(&ws).send().await.expect(200);
    let ws = neighbour.put(&path, owner("u2")).matching(&ws).send().await.expect(200);
    let problem = api.put(&path, owner("u1")).matching(&ws).send().await.refused(409, "owned-by-other");
    assert_eq!(problem["existing"]["owner"]["uid"], "u2");
    admin.put(&path, owner("u3")).matching(&ws).send().await.expect(200);
}

#[tokio::test]
async fn trash_keeps_the_key_and_comes_back_until_it_is_purged() {
    let fixture = start().await;
    let (api, admin) = (fixture.operator().await, fixture.client("admin").await);
    let ws = api.workspace("one").await;
    let folder = api.folder(&ws, "/A").await;
    let path = format!("/v1/workspaces/{}", id(&ws));
    let trashed = api.delete(&format!("{path}?graceSeconds=60")).header("if-match", "*").send().await.expect(200);
    assert_eq!(trashed["state"], "Trashed");
    assert_eq!(api.get("/v1/workspaces/by-key/test/one").send().await.expect(200)["state"], "Trashed");
    let again =
        api.put("/v1/workspaces/by-key/test/one", json!({"displayName": "x"})).header("if-none-match", "*").send().await;
    again.refused(409, "key-exists");
    api.get(&format!("/v1/items/{}", id(&folder))).send().await.refused(404, "not-found");
    api.patch(&path, json!({"displayName": "x"})).header("if-match", "*").send().await.refused(409, "state-conflict");
    let back = api.post(&format!("{path}/restorations"), json!({})).send().await.expect(200);
    assert_eq!(back["state"], "Active");
    api.get(&format!("/v1/items/{}", id(&folder))).send().await.expect(200);
    admin.post(&format!("{path}/purge"), json!({})).send().await.refused(409, "state-conflict");
    api.delete(&path).header("if-match", "*").send().await.expect(200);
    api.post(&format!("{path}/purge"), json!({})).send().await.refused(403, "insufficient-scope");
    admin.post(&format!("{path}/purge"), json!({})).send().await.expect(204);
    api.get(&path).send().await.refused(404, "not-found");
}

#[tokio::test]
async fn the_clock_ends_what_has_an_end_with_one_revision_each() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace_with("one", json!({"displayName": "One", "owner": owner("u1")})).await;
    let ada = api.principal("User", "ada").await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let member = json!({"role": "Viewer", "expiresAt": soon});
    api.put(&format!("/v1/workspaces/{}/members/{ada}", id(&ws)), member).send().await.expect(201);
    let trash = api.workspace("two").await;
    api.delete(&format!("/v1/workspaces/{}?graceSeconds=3600", id(&trash))).matching(&trash).send().await.expect(200);
    let (_, cursor) = api.changes("now").await;
    fixture.server.clock().set_offset_seconds(3601);
    fixture.server.sweep().await;
    let api = fixture.operator().await;
    let (entries, _) = api.changes(&cursor).await;
    let kinds: Vec<_> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["memberRemoved", "workspacePurged"]);
    assert_eq!(entries[0]["subject"], json!(ada));
    assert_eq!(api.revision(&ws).await, 3);
    api.get("/v1/workspaces/by-key/test/two").send().await.refused(404, "not-found");
}

#[tokio::test]
async fn pages_cover_everything_once_and_filters_hold() {
    let fixture = start().await;
    let api = fixture.operator().await;
    for n in 0..7 {
        let owner = if n < 4 { owner("u") } else { json!(null) };
        api.workspace_with(&format!("k{n}"), json!({"displayName": "x", "owner": owner})).await;
    }
    assert_eq!(api.all("/v1/workspaces?limit=3").await.len(), 7);
    assert_eq!(api.all("/v1/workspaces?limit=3&clusterId=c1").await.len(), 4);
    assert_eq!(api.all("/v1/workspaces?state=Trashed").await.len(), 0);
    api.get("/v1/workspaces?limit=0").send().await.refused(400, "malformed");
    api.get("/v1/workspaces?colour=red").send().await.refused(400, "unknown-parameter");
    api.get("/v1/workspaces?cursor=%21").send().await.refused(400, "malformed");
}

#[tokio::test]
async fn an_archived_workspace_is_readable_and_frozen_for_people() {
    let fixture = start().await;
    let (api, ada) = (fixture.operator().await, fixture.person("ada").await);
    let ws = api.workspace("one").await;
    let person = api.principal("User", "ada").await;
    api.member(&ws, &person, "Manager").await.expect(201);
    let path = format!("/v1/workspaces/{}", id(&ws));
    ada.folder(&ws, "/A").await;
    api.post(&format!("{path}/transitions"), json!({"to": "Archived"})).header("if-match", "*").send().await.expect(200);
    ada.get(&path).send().await.expect(200);
    ada.post(&format!("{path}/folders"), json!({"path": "/B"})).send().await.refused(409, "state-conflict");
    ada.delete(&format!("{path}/members/{person}")).send().await.refused(409, "state-conflict");
    fixture.person("eve").await.get(&path).send().await.refused(404, "not-found");
}
