use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Fixture, id, start};

/// A workspace with a folder and a file in it.
pub async fn with_file(api: &Api, key: &str, content: &'static str) -> (Value, Value, Value) {
    let ws = api.workspace(key).await;
    let folder = api.folder(&ws, "/Inbox").await;
    let file = api.upload(&folder, "a.txt", content).await.expect(201);
    (ws, folder, file)
}

fn item(file: &Value) -> String {
    format!("/v1/items/{}", id(file))
}

#[tokio::test]
async fn what_was_uploaded_comes_back_whole_and_in_ranges() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, folder, file) = with_file(&api, "one", "hello, world").await;
    assert_eq!((&file["size"], &file["mimeType"], &file["version"]), (&json!(12), &json!("text/plain"), &json!(1)));
    let whole = api.get(&format!("{}/content", item(&file))).send().await;
    assert_eq!((whole.bytes.as_slice(), whole.header("accept-ranges")), (b"hello, world".as_slice(), Some("bytes")));
    assert!(whole.header("repr-digest").unwrap().starts_with("sha-256=:"));
    assert!(whole.header("content-disposition").unwrap().starts_with("attachment"));
    let part = api.get(&format!("{}/content", item(&file))).header("range", "bytes=7-").send().await;
    assert_eq!((part.status.as_u16(), part.bytes.as_slice()), (206, b"world".as_slice()));
    assert_eq!(part.header("content-range"), Some("bytes 7-11/12"));
    let beyond = api.get(&format!("{}/content", item(&file))).header("range", "bytes=99-").send().await;
    beyond.refused(416, "range-not-satisfiable");
    let etag = whole.header("etag").unwrap();
    assert_eq!(api.get(&format!("{}/content", item(&file))).header("if-none-match", etag).send().await.status, 304);
    api.upload(&folder, "a.txt", "again").await.refused(409, "name-exists");
    api.upload(&folder, "../a.txt", "x").await.refused(422, "name-illegal");
}

#[tokio::test]
async fn content_with_another_digest_is_refused_and_leaves_nothing() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, folder, _) = with_file(&api, "one", "hello").await;
    let path = format!("/v1/items/{}/files?name=b.txt", id(&folder));
    let wrong = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
    let ask = |digest: &str| api.raw(Method::POST, &path, "text/plain", "hello").header("repr-digest", digest);
    ask(wrong).send().await.refused(422, "digest-mismatch");
    ask("nonsense").send().await.refused(400, "malformed");
    assert_eq!(api.all(&format!("/v1/items/{}/children", id(&folder))).await.len(), 1);
    ask("sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:").send().await.expect(201);
}

#[tokio::test]
async fn metadata_arrives_with_the_file_and_names_are_found_free() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, folder, first) = with_file(&api, "one", "hello").await;
    let path = format!("/v1/items/{}/files?name=a.txt", id(&folder));
    let named = format!("{path}&onConflict=rename&metadata%5BdocumentType%5D=w9");
    let second = api.raw(Method::POST, &named, "text/plain", "x").send().await.expect(201);
    assert_eq!((second["name"].as_str(), &second["metadata"]["documentType"]), (Some("a (2).txt"), &json!("w9")));
    let version =
        api.raw(Method::POST, &format!("{path}&onConflict=newVersion"), "text/plain", "v2").send().await.expect(200);
    assert_eq!((&version["id"], &version["version"]), (&first["id"], &json!(2)));
    let same = api.raw(Method::POST, &format!("{path}&onConflict=return"), "text/plain", "v3").send().await.expect(200);
    assert_eq!(same["version"], 2);
}

#[tokio::test]
async fn versions_are_kept_restored_and_deleted_one_by_one() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, _, file) = with_file(&api, "one", "first").await;
    let content = format!("{}/content", item(&file));
    api.raw(Method::PUT, &content, "text/plain", "second").send().await.refused(428, "precondition-required");
    let second = api.raw(Method::PUT, &content, "text/plain", "second").matching(&file).send().await.expect(200);
    api.raw(Method::PUT, &content, "text/plain", "lost").matching(&file).send().await.refused(412, "etag-mismatch");
    assert_eq!(api.get(&format!("{content}?version=1")).send().await.bytes, b"first");
    let versions = format!("{}/versions", item(&file));
    api.delete(&format!("{versions}/2")).matching(&second).send().await.refused(409, "state-conflict");
    let third = api.post(&format!("{versions}/1/restorations"), json!({})).send().await.expect(201);
    assert_eq!((third["version"].as_u64(), &third["sha256"]), (Some(3), &file["sha256"]));
    api.delete(&format!("{versions}/2")).matching(&third).send().await.expect(204);
    let numbers: Vec<_> = api.all(&versions).await.iter().map(|version| version["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [3, 1]);
    api.get(&format!("{content}?version=2")).send().await.refused(404, "not-found");
}

#[tokio::test]
async fn parts_arrive_in_any_order_and_become_one_file_with_one_commit() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, folder, _) = with_file(&api, "one", "x").await;
    let new = json!({"parentId": id(&folder), "name": "big.bin", "mimeType": "application/x-big", "metadata": {"k": "v"}});
    let upload = api.post("/v1/uploads", new).send().await.expect(201);
    let path = format!("/v1/uploads/{}", id(&upload));
    for (number, text) in [(2, "world"), (1, "hullo "), (1, "hello ")] {
        api.raw(Method::PUT, &format!("{path}/parts/{number}"), "application/octet-stream", text).send().await.expect(200);
    }
    fixture.client("neighbour").await.get(&path).send().await.refused(404, "not-found");
    let wrong = json!({"sha256": "00".repeat(32)});
    api.post(&format!("{path}/commit"), wrong).send().await.refused(422, "digest-mismatch");
    let commit = || api.ask(Method::POST, &format!("{path}/commit")).json(&json!({})).header("idempotency-key", "c");
    let made = commit().send().await.expect(201);
    assert_eq!(
        (&made["size"], &made["mimeType"], &made["metadata"]["k"]),
        (&json!(11), &json!("application/x-big"), &json!("v"))
    );
    let replayed = commit().send().await;
    assert_eq!((replayed.header("idempotency-replayed"), &replayed.body["id"]), (Some("true"), &made["id"]));
    assert_eq!(api.get(&format!("{}/content", item(&made))).send().await.bytes, b"hello world");
    api.get(&path).send().await.refused(404, "not-found");
    let hole = api.post("/v1/uploads", json!({"parentId": id(&folder), "name": "h"})).send().await.expect(201);
    let hole = format!("/v1/uploads/{}", id(&hole));
    api.raw(Method::PUT, &format!("{hole}/parts/2"), "application/octet-stream", "x").send().await.expect(200);
    api.post(&format!("{hole}/commit"), json!({})).send().await.refused(409, "state-conflict");
    api.delete(&hole).send().await.expect(204);
}

#[tokio::test]
async fn small_and_large_parts_become_one_file() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, folder, _) = with_file(&api, "one", "x").await;
    let new = json!({"parentId": id(&folder), "name": "joined"});
    let upload = api.post("/v1/uploads", new).send().await.expect(201);
    let path = format!("/v1/uploads/{}", id(&upload));
    let texts: [&'static str; 3] = ["small ", Box::leak("large ".repeat(10_000).into_boxed_str()), "end"];
    for (number, text) in (1..).zip(texts) {
        api.raw(Method::PUT, &format!("{path}/parts/{number}"), "text/plain", text).send().await.expect(200);
    }
    let made = api.post(&format!("{path}/commit"), json!({})).send().await.expect(201);
    let content = format!("{}/content", item(&made));
    assert_eq!(api.get(&content).send().await.bytes, texts.concat().as_bytes());
    let tail = api.get(&content).header("range", "bytes=60003-").send().await;
    assert_eq!((tail.status.as_u16(), tail.bytes.as_slice()), (206, b"ge end".as_slice()));
}

#[tokio::test]
async fn trash_keeps_files_until_they_come_back_or_their_time_is_over() {
    let fixture = start().await;
    let (api, admin) = (fixture.operator().await, fixture.client("admin").await);
    let (ws, folder, file) = with_file(&api, "one", "hello").await;
    api.delete(&item(&file)).matching(&file).send().await.expect(204);
    api.get(&format!("{}/content", item(&file))).send().await.refused(404, "not-found");
    let trash = format!("/v1/workspaces/{}/trash", id(&ws));
    assert_eq!(api.all(&trash).await[0]["state"], "Trashed");
    api.upload(&folder, "a.txt", "another").await.expect(201);
    let back = api.post(&format!("{}/restorations", item(&file)), json!({})).send().await.expect(200);
    assert_eq!((back["name"].as_str(), back["state"].as_str()), (Some("a (2).txt"), Some("Available")));
    api.delete(&item(&file)).matching(&back).send().await.expect(204);
    let purge = || format!("{}?purge=true", item(&file));
    api.delete(&purge()).header("if-match", "*").send().await.refused(403, "insufficient-scope");
    admin.delete(&purge()).header("if-match", "*").send().await.expect(204);
    api.get(&item(&file)).send().await.refused(404, "not-found");
    let other = api.upload(&folder, "c.txt", "only here").await.expect(201);
    let large = api.upload(&folder, "d.txt", Box::leak("much".repeat(20_000).into_boxed_str())).await.expect(201);
    assert!(blob_exists(&fixture, &other) && blob_exists(&fixture, &large));
    for file in [&other, &large] {
        api.delete(&item(file)).matching(file).send().await.expect(204);
    }
    fixture.server.clock().set_offset_seconds(31 * 86_400);
    // Once for the item, once for the bytes that nothing refers to any more.
    fixture.server.sweep().await;
    fixture.server.sweep().await;
    let api = fixture.operator().await;
    api.get(&item(&other)).send().await.refused(404, "not-found");
    assert!(!blob_exists(&fixture, &other) && !blob_exists(&fixture, &large), "the bytes are gone");
    let kept = api.all(&format!("/v1/items/{}/children", id(&folder))).await;
    assert!(blob_exists(&fixture, &kept[0]), "bytes that are in use stay");
}

/// Small content is a row, large content a file.
fn blob_exists(fixture: &Fixture, file: &Value) -> bool {
    let sha256 = file["sha256"].as_str().unwrap();
    let database = rusqlite::Connection::open(fixture.folder.path().join("file360.db")).unwrap();
    let row = "SELECT EXISTS (SELECT 1 FROM contents WHERE sha256 = ?1)";
    database.query_row(row, [sha256], |row| row.get(0)).unwrap()
        || fixture.folder.path().join("blobs").join(&sha256[..2]).join(&sha256[2..]).exists()
}

#[tokio::test]
async fn copies_bring_content_and_metadata_to_another_workspace() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, folder, file) = with_file(&api, "one", "hello").await;
    api.patch(&item(&file), json!({"metadata": {"a": "1"}})).matching(&file).send().await.expect(200);
    let other = api.workspace("two").await;
    let copy = json!({"parentId": other["rootId"]});
    let made = api.post(&format!("{}/copies", item(&folder)), copy).send().await.expect(201);
    assert_eq!(made["path"], "/Inbox");
    let children = api.all(&format!("{}/children", item(&made))).await;
    assert_eq!((&children[0]["name"], &children[0]["metadata"]["a"]), (&json!("a.txt"), &json!("1")));
    assert_eq!(api.get(&format!("{}/content", item(&children[0]))).send().await.bytes, b"hello");
    let inside = json!({"parentId": id(&folder), "name": "x"});
    api.post(&format!("{}/copies", item(&folder)), inside).send().await.refused(422, "validation-failed");
}

#[tokio::test]
async fn a_batch_of_metadata_says_of_each_entry_what_became_of_it() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (_, folder, file) = with_file(&api, "one", "hello").await;
    let batch = json!({"get": [id(&folder), "nobody"], "set": [
        {"itemId": id(&file), "metadata": {"a": "1"}},
        {"itemId": id(&file), "etag": file["etag"], "metadata": {"a": "2"}},
        {"itemId": id(&file), "metadata": {"a": "x".repeat(2000)}}]});
    let results = api.post("/v1/metadata/batch", batch).send().await.expect(200)["results"].clone();
    assert_eq!(results[0]["item"]["path"], "/Inbox");
    let codes: Vec<_> = (1..5).map(|at| results[at]["problem"]["code"].as_str()).collect();
    assert_eq!(codes, [Some("not-found"), None, Some("etag-mismatch"), Some("validation-failed")]);
    assert_eq!(api.get(&item(&file)).send().await.expect(200)["metadata"]["a"], "1");
}

#[tokio::test]
async fn facets_are_seen_by_their_client_only_and_found_by_name() {
    let fixture = start().await;
    let (api, neighbour) = (fixture.operator().await, fixture.client("neighbour").await);
    let (ws, _, file) = with_file(&api, "one", "hello").await;
    let path = format!("{}/versions/1/facets/route", item(&file));
    let facet = api.put(&path, json!({"value": {"acknowledged": true}})).send().await.expect(201);
    neighbour.get(&path).send().await.refused(404, "not-found");
    api.put(&path, json!({"value": 2})).header("if-match", "\"other\"").send().await.refused(412, "etag-mismatch");
    api.put(&path, json!({"value": 2})).matching(&facet).send().await.expect(200);
    let batch = json!({"items": [{"itemId": id(&file), "version": 1, "name": "audit", "value": 1},
        {"itemId": id(&file), "version": 7, "name": "audit", "value": 1}]});
    api.post("/v1/facets/batch", batch).send().await.refused(404, "not-found");
    assert!(api.all("/v1/facets?name=audit").await.is_empty(), "all or nothing");
    let found = api.all(&format!("/v1/facets?name=route&workspaceId={}", id(&ws))).await;
    assert_eq!(found[0]["value"], 2);
    let remove = json!({"items": [{"itemId": id(&file), "version": 1, "name": "route"}]});
    api.post("/v1/facets/batch", remove).send().await.expect(204);
    assert!(api.all("/v1/facets?name=route").await.is_empty());
}

#[tokio::test]
async fn people_work_with_files_as_their_roles_say() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (ws, folder, file) = with_file(&api, "one", "hello").await;
    for (name, role) in [("ada", "Contributor"), ("bob", "Uploader"), ("eve", "Viewer")] {
        let person = api.principal("User", name).await;
        api.member(&ws, &person, role).await.expect(201);
    }
    let (ada, bob, eve) = (fixture.person("ada").await, fixture.person("bob").await, fixture.person("eve").await);
    let hers = ada.upload(&folder, "hers.txt", "x").await.expect(201);
    assert_eq!(hers["createdBy"]["name"], "ada");
    ada.delete(&item(&file)).matching(&file).send().await.refused(403, "forbidden");
    ada.raw(Method::PUT, &format!("{}/content", item(&hers)), "text/plain", "y").matching(&hers).send().await.expect(200);
    let his = bob.upload(&folder, "his.txt", "x").await.expect(201);
    bob.get(&format!("{}/content", item(&his))).send().await.expect(200);
    bob.get(&format!("{}/content", item(&file))).send().await.refused(403, "forbidden");
    assert_eq!(bob.all(&format!("/v1/items/{}/children", id(&folder))).await.len(), 1);
    eve.get(&format!("{}/content", item(&file))).send().await.expect(200);
    eve.upload(&folder, "no.txt", "x").await.refused(403, "forbidden");
}
