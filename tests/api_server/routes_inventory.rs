//! Inventories: both ends of a route are counted, and nothing is unaccounted for (R4, R7).

use std::collections::BTreeSet;

use file360_operator::routes::delivery::RouteId;
use file360_operator::routes::destinations::index::document_id;
use file360_operator::routes::ledger::Names;
use serde_json::{Value, json};

use super::routes::{arrived, claims, counted, route, to_cases, upload_with};
use super::routes_destinations::{become_files, inboxes_to, objects, s3_store};
use crate::support::case_system::CaseSystem;
use crate::support::counterparts::S3Server;
use crate::support::search::Fake;
use crate::support::world::{World, condition};
use crate::support::{eventually, remote};

/// Asks for an inventory and waits for what it found.
async fn inventory(world: &World, name: &str, more: &str) -> Value {
    let token = format!("{:x}{more}", rand::random::<u64>());
    let request = json!({"metadata": {"annotations": {"inventory.file360.io/requestedAt": token}}});
    world.patch("FileRoute", name, request).await;
    let answered = |object: &Value| object["status"]["inventory"]["requested"] == token.as_str();
    world.until("FileRoute", name, "the inventory", answered).await["status"].clone()
}

/// Removes what is recorded of a file, as if the operator had never heard of it.
async fn forget(world: &World, route: &str, item: &str, version: u64) {
    let uid = world.get("FileRoute", route).await["metadata"]["uid"].as_str().unwrap().to_owned();
    let (cluster, namespace) = (world.namespace.clone(), world.namespace.clone());
    let names = Names::of(&RouteId { cluster, namespace, name: route.to_owned(), uid });
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let form =
        [("grant_type", "client_credentials"), ("client_id", remote::CLIENT_ID), ("client_secret", remote::CLIENT_SECRET)];
    let answer = http.post(format!("{}/oauth2/token", world.remote.url)).form(&form).send().await.unwrap();
    let token: Value = answer.json().await.unwrap();
    // A record that is still on its way would come back.
    let facet = format!("{}/v1/items/{item}/versions/{version}/facets/{}", world.remote.url, names.facet);
    eventually("the record", || async {
        let answer = http.get(&facet).bearer_auth(token["access_token"].as_str().unwrap()).send().await;
        let status = answer.map_err(|error| error.to_string())?.status();
        status.is_success().then_some(()).ok_or_else(|| status.to_string())
    })
    .await;
    let put = json!({"items": [{"itemId": item, "version": version, "name": names.facet, "value": null}]});
    let request =
        http.post(format!("{}/v1/facets/batch", world.remote.url)).bearer_auth(token["access_token"].as_str().unwrap());
    let request = request.header("idempotency-key", format!("{:x}", rand::random::<u128>()));
    let answer = request.header("content-type", "application/json").body(put.to_string()).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 204, "{}", answer.text().await.unwrap());
}

#[tokio::test]
async fn r4_a_copy_that_is_gone_is_told_and_delivered_again_when_asked_for() {
    let world = World::new().await;
    let server = S3Server::start();
    let workspace = claims(&world, "claims").await;
    let destination = json!({"objectStore": s3_store(&world, &server).await, "key": "'in/' + file.name"});
    route(&world, "archive", inboxes_to(destination)).await;
    for name in ["a.txt", "b.txt", "c.txt"] {
        world.remote.upload(&workspace, "/Inbox", name, name.as_bytes()).await;
    }
    let all: [(&str, &[u8]); 3] = [("in/a.txt", b"a.txt"), ("in/b.txt", b"b.txt"), ("in/c.txt", b"c.txt")];
    become_files("the archive", || objects(&server), &all).await;
    counted(&world, "archive", "three deliveries", |counts| counts["delivered"] == 3).await;
    let status = inventory(&world, "archive", "").await;
    let found = &status["inventory"];
    assert_eq!((&found["files"], &found["delivered"], &found["unaccounted"]), (&json!(3), &json!(3), &json!(0)), "{found}");
    assert_eq!(found["destinations"][0]["state"], "Compared", "{found}");

    // Acknowledgements that are too young are not held against a listing, so the copy goes once they are old enough.
    eventually("a missing copy", || async {
        let _ = std::fs::remove_file(server.bucket().join("in/b.txt"));
        let status = inventory(&world, "archive", "").await;
        if status["inventory"]["unaccounted"] == 1 { Ok(()) } else { Err(status["inventory"].to_string()) }
    })
    .await;
    let object = world.condition("FileRoute", "archive", "Unaccounted", "True").await;
    assert_eq!(condition(&object, "Unaccounted")["reason"], "FilesUnaccounted");
    let finding = &object["status"]["inventory"]["findings"][0];
    assert_eq!(*finding, json!({"file": "/Inbox/b.txt", "found": "Missing", "destination": "all/there"}));
    assert_eq!(objects(&server).len(), 2, "nothing is delivered again unasked: it may have been taken away");

    inventory(&world, "archive", " redeliver").await;
    become_files("the archive again", || objects(&server), &all).await;
    let object = counted(&world, "archive", "one more delivery", |counts| counts["delivered"] == 4).await;
    assert_eq!(object["status"]["counts"]["duplicates"], 0, "the others were not touched");
    let status = inventory(&world, "archive", "").await;
    assert_eq!(status["inventory"]["unaccounted"], 0, "{}", status["inventory"]);
    assert!(condition(&json!({"status": status}), "Unaccounted").is_null());

    // Where somebody takes files away, that is no finding.
    let mut spec = world.get("FileRoute", "archive").await["spec"].clone();
    spec["inventory"] = json!({"ignoreMissing": ["there"]});
    std::fs::remove_file(server.bucket().join("in/a.txt")).unwrap();
    route(&world, "archive", spec).await;
    let status = inventory(&world, "archive", "").await;
    assert_eq!(status["inventory"]["unaccounted"], 0, "{}", status["inventory"]);
}

#[tokio::test]
async fn inventories_come_as_often_as_the_spec_says() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    claims(&world, "claims").await;
    let mut spec = to_cases(&cases, "Metadata");
    route(&world, "seldom", spec.clone()).await;
    spec["inventory"] = json!({"every": "10s"});
    route(&world, "often", spec).await;
    let mut last = json!(null);
    for _ in 0..2 {
        let is_later = |object: &Value| object["status"]["inventory"]["lastAt"] != last;
        let object = world.until("FileRoute", "often", "the next inventory", is_later).await;
        last = object["status"]["inventory"]["lastAt"].clone();
    }
    assert!(world.get("FileRoute", "seldom").await["status"].get("inventory").is_none());
}

#[tokio::test]
async fn r4_a_file_that_nothing_is_known_of_is_found_and_taken_up_under_its_key() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    route(&world, "claims", to_cases(&cases, "Metadata")).await;
    let mut items = Vec::new();
    for name in ["a.txt", "b.txt"] {
        items.push(world.remote.upload(&workspace, "/Inbox", name, b"x").await);
    }
    // The first checkpoint is there once both are recorded.
    eventually("the records", || async {
        let object = counted(&world, "claims", "two deliveries", |counts| counts["delivered"] == 2).await;
        object["status"]["checkpoint"].is_string().then_some(()).ok_or_else(|| object["status"].to_string())
    })
    .await;
    forget(&world, "claims", &items[1], 1).await;
    let status = inventory(&world, "claims", "").await;
    let found = &status["inventory"];
    assert_eq!((&found["files"], &found["unaccounted"]), (&json!(2), &json!(1)), "{found}");
    assert_eq!(found["findings"][0], json!({"file": "/Inbox/b.txt", "found": "NotRouted"}));
    assert_eq!(found["destinations"][0]["state"], "Acknowledged", "{found}");
    eventually("the same key again", || async { (cases.repeated() == 1).then_some(()).ok_or("not yet".to_owned()) }).await;
    assert_eq!(cases.accepted().len(), 2);
    counted(&world, "claims", "the record", |counts| counts["delivered"] == 3).await;
    let status = inventory(&world, "claims", "").await;
    assert_eq!(status["inventory"]["unaccounted"], 0, "{}", status["inventory"]);
}

#[tokio::test]
async fn r4_objects_of_a_bucket_are_counted_and_records_of_those_that_went_are_forgotten() {
    let world = World::new().await;
    let server = S3Server::start();
    let cases = CaseSystem::start().await;
    let mut spec = to_cases(&cases, "Content");
    let mut from = s3_store(&world, &server).await;
    from["every"] = json!("200ms");
    from["prefix"] = json!("out/");
    spec["from"] = json!({"objectStore": from});
    for name in ["a", "b", "c"] {
        server.put_by_hand(&format!("out/{name}.txt"), name, &[]);
    }
    route(&world, "objects", spec).await;
    counted(&world, "objects", "three deliveries", |counts| counts["delivered"] == 3).await;
    let status = inventory(&world, "objects", "").await;
    assert_eq!((&status["inventory"]["files"], &status["inventory"]["unaccounted"]), (&json!(3), &json!(0)), "{status}");
    std::fs::remove_file(server.bucket().join("out/c.txt")).unwrap();
    let status = inventory(&world, "objects", "").await;
    assert_eq!((&status["inventory"]["files"], &status["inventory"]["unaccounted"]), (&json!(2), &json!(0)), "{status}");
    // Its record is gone: the same object, once more, is delivered once more, under the same key.
    server.put_by_hand("out/c.txt", "c", &[]);
    eventually("the delivery under its key", || async { (cases.repeated() == 1).then_some(()).ok_or("not yet".to_owned()) })
        .await;
    assert_eq!(cases.accepted().len(), 3);
}

/// An index, and a rule that also sends everything to the case system.
async fn indexed(world: &World, search: &Fake, cases: &CaseSystem, name: &str) {
    let index = json!({"index": {"opensearch": {"url": search.url(), "index": "files"}, "properties": ["name", "path"]}});
    let mut spec = inboxes_to(index);
    let case = json!({"name": "case", "http": {"url": format!("{}/cases", cases.url)}, "send": "Metadata"});
    spec["rules"][0]["to"].as_array_mut().unwrap().push(case);
    route(world, name, spec).await;
}

fn shown(search: &Fake) -> BTreeSet<String> {
    search.documents("files").values().map(|document| document["name"].as_str().unwrap().to_owned()).collect()
}

async fn becomes(search: &Fake, what: &str, names: &[&str]) {
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    eventually(what, || async {
        let there = shown(search);
        if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

#[tokio::test]
async fn r7_an_inventory_leaves_no_difference_between_index_and_file_360() {
    let (world, search, cases) = (World::new().await, Fake::start(), CaseSystem::start().await);
    let workspace = claims(&world, "claims").await;
    let mut items = Vec::new();
    for name in ["a.txt", "b.txt", "c.txt"] {
        items.push(upload_with(&world, &workspace, name, &[]).await);
    }
    indexed(&world, &search, &cases, "search").await;
    arrived(&cases, 3).await;
    becomes(&search, "three documents", &["a.txt", "b.txt", "c.txt"]).await;
    counted(&world, "search", "six deliveries", |counts| counts["delivered"] == 6).await;
    // Somebody else changes the index: one document is lost, one is left over, one says something wrong.
    let documents = search.documents("files");
    let id = |name: &str| documents.iter().find(|(_, document)| document["name"] == name).unwrap().0.clone();
    let http = reqwest::Client::new();
    let put = async |id: &str, document: &Value| {
        let version = jiff::Timestamp::now().as_microsecond() * 2;
        let url = format!("{}/files/_bulk", search.url());
        let action = json!({"index": {"_id": id, "version": version, "version_type": "external_gte"}});
        let body = format!("{action}\n{document}\n");
        let answer = http.post(url).header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    };
    let mut left_over = documents[&id("a.txt")].clone();
    left_over["fileId"] = json!("gone-long-ago");
    left_over["name"] = json!("gone.txt");
    put(&document_id("gone-long-ago"), &left_over).await;
    let mut wrong = documents[&id("b.txt")].clone();
    wrong["acl"]["allow"] = json!(["user:mallory"]);
    put(&id("b.txt"), &wrong).await;
    let action = json!({"delete": {"_id": id("c.txt"), "version": jiff::Timestamp::now().as_microsecond() * 2, "version_type": "external_gte"}});
    let answer = http.post(format!("{}/files/_bulk", search.url())).header("content-type", "application/x-ndjson");
    answer.body(format!("{action}\n")).send().await.unwrap();
    becomes(&search, "the disturbed index", &["a.txt", "b.txt", "gone.txt"]).await;

    let status = inventory(&world, "search", "").await;
    let place = &status["inventory"]["destinations"][0];
    assert_eq!((&place["state"], &place["surplus"]), (&json!("Compared"), &json!(1)), "{}", status["inventory"]);
    becomes(&search, "the same as in File 360", &["a.txt", "b.txt", "c.txt"]).await;
    eventually("the right readers", || async {
        let there = search.documents("files")[&id("b.txt")]["acl"].clone();
        if there == documents[&id("b.txt")]["acl"] { Ok(()) } else { Err(there.to_string()) }
    })
    .await;
    assert_eq!((cases.accepted().len(), cases.repeated()), (3, 0), "the case system heard of nothing of this");
}

#[tokio::test]
async fn r7_what_changed_while_the_feed_was_lost_reaches_the_index() {
    let (mut world, search, cases) = (World::new().await, Fake::start(), CaseSystem::start().await);
    let workspace = claims(&world, "claims").await;
    let mut items = Vec::new();
    for name in ["a.txt", "b.txt"] {
        items.push(upload_with(&world, &workspace, name, &[]).await);
    }
    indexed(&world, &search, &cases, "search").await;
    becomes(&search, "two documents", &["a.txt", "b.txt"]).await;
    counted(&world, "search", "four deliveries", |counts| counts["delivered"] == 4).await;
    world.kill_operator();
    let (status, answer) = world.remote.call("DELETE", &format!("/v1/items/{}", items[0]), &[("if-match", "*")], None).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    upload_with(&world, &workspace, "c.txt", &[]).await;
    world.remote.faults(json!({"expireCursors": true})).await;
    world.start_operator(&[]).await;
    // The new file is found by looking at every file; whatever else happened, the feed does not tell any more.
    arrived(&cases, 3).await;
    world.remote.faults(json!({})).await;
    becomes(&search, "what is there now", &["b.txt", "c.txt"]).await;
    assert_eq!((cases.accepted().len(), cases.repeated()), (3, 0));
}

#[tokio::test]
async fn r4_a_file_that_an_index_shows_already_still_reaches_everybody_else() {
    let (mut world, search, cases) = (World::new().await, Fake::start(), CaseSystem::start().await);
    let workspace = claims(&world, "claims").await;
    indexed(&world, &search, &cases, "search").await;
    upload_with(&world, &workspace, "a.txt", &[]).await;
    arrived(&cases, 1).await;
    world.kill_operator();
    // The change of access is read first, and sees the file that comes after it.
    let guest = world.remote.principal("User", "user3").await;
    let path = format!("/v1/workspaces/{workspace}/members/{guest}?path=%2FInbox");
    world.remote.change("PUT", &path, json!({"role": "Viewer"})).await;
    upload_with(&world, &workspace, "b.txt", &[]).await;
    world.start_operator(&[]).await;
    becomes(&search, "both", &["a.txt", "b.txt"]).await;
    arrived(&cases, 2).await;
}

#[tokio::test]
async fn r4_a_request_that_was_handled_is_not_handled_again_after_a_restart() {
    let mut world = World::new().await;
    let server = S3Server::start();
    let workspace = claims(&world, "claims").await;
    let destination = json!({"objectStore": s3_store(&world, &server).await, "key": "'in/' + file.name"});
    route(&world, "archive", inboxes_to(destination)).await;
    world.remote.upload(&workspace, "/Inbox", "a.txt", b"a").await;
    become_files("the archive", || objects(&server), &[("in/a.txt", b"a")]).await;
    inventory(&world, "archive", " redeliver").await;
    // Old enough that a listing without it counts.
    eventually("a copy that is gone", || async {
        let _ = std::fs::remove_file(server.bucket().join("in/a.txt"));
        let status = inventory(&world, "archive", "").await;
        if status["inventory"]["unaccounted"] == 1 { Ok(()) } else { Err(status["inventory"].to_string()) }
    })
    .await;
    inventory(&world, "archive", " redeliver").await;
    become_files("the archive again", || objects(&server), &[("in/a.txt", b"a")]).await;
    counted(&world, "archive", "the second delivery", |counts| counts["delivered"] == 2).await;
    world.kill_operator();
    std::fs::remove_file(server.bucket().join("in/a.txt")).unwrap();
    world.start_operator(&[]).await;
    world.condition("FileRoute", "archive", "Ready", "True").await;
    // Somebody took it, and nobody asked for it since.
    eventually("the missing copy", || async {
        let status = inventory(&world, "archive", "").await;
        if status["inventory"]["unaccounted"] == 1 { Ok(()) } else { Err(status["inventory"].to_string()) }
    })
    .await;
    assert!(objects(&server).is_empty());
}

#[tokio::test]
async fn r1_a_change_of_access_brings_the_index_up_to_date_and_nothing_else() {
    let (world, search, cases) = (World::new().await, Fake::start(), CaseSystem::start().await);
    let members = |names: &[&str]| {
        names.iter().map(|name| json!({"kind": "User", "name": name, "role": "Viewer"})).collect::<Vec<_>>()
    };
    let spec =
        |names: &[&str]| json!({"displayName": "w", "folders": [{"path": "/Inbox"}], "access": {"members": members(names)}});
    world.workspace("w", spec(&["user0"])).await;
    let workspace = world.workspace_id("w").await;
    indexed(&world, &search, &cases, "search").await;
    let item = upload_with(&world, &workspace, "a.txt", &[]).await;
    arrived(&cases, 1).await;
    becomes(&search, "the document", &["a.txt"]).await;
    let readers = async |what: &str, wanted: Value| {
        eventually(what, || async {
            let there = search.documents("files").values().next().map(|document| document["acl"]["allow"].clone());
            if there == Some(wanted.clone()) { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    };
    readers("the first reader", json!(["user:user0"])).await;
    world.workspace("w", spec(&["user1"])).await;
    readers("the other reader", json!(["user:user1"])).await;
    world.remote.change("PATCH", &format!("/v1/items/{item}"), json!({"name": "b.txt"})).await;
    becomes(&search, "the new name", &["b.txt"]).await;
    // A file from elsewhere is new to the route: everybody gets it.
    let other = world.remote.upload(&workspace, "/", "c.txt", b"x").await;
    let inbox = world.remote.get(&format!("/v1/workspaces/{workspace}/resolve?path=/Inbox")).await;
    world.remote.change("PATCH", &format!("/v1/items/{other}"), json!({"parentId": inbox["id"]})).await;
    arrived(&cases, 2).await;
    becomes(&search, "both", &["b.txt", "c.txt"]).await;
    assert_eq!((cases.accepted().len(), cases.repeated()), (2, 0), "one delivery for each file");
    let object = counted(&world, "search", "two files", |counts| counts["seen"] == 2).await;
    assert_eq!(object["status"]["rules"], json!([{"name": "all", "matched": 2}]));
}

/// The principals that may read the only document of the index.
async fn readers_become(search: &Fake, what: &str, wanted: &[&str]) {
    let wanted = json!(wanted);
    eventually(what, || async {
        let there = search.documents("files").values().next().map(|document| document["acl"]["allow"].clone());
        if there.as_ref() == Some(&wanted) { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

#[tokio::test]
async fn r7_an_index_follows_while_another_destination_is_away_for_long() {
    let (world, search, cases) = (World::new().await, Fake::start(), CaseSystem::start().await);
    let spec = |reader: &str| {
        json!({"displayName": "w", "folders": [{"path": "/Inbox"}],
            "access": {"members": [{"kind": "User", "name": reader, "role": "Viewer"}]}})
    };
    world.workspace("w", spec("user0")).await;
    let workspace = world.workspace_id("w").await;
    let index =
        json!({"index": {"opensearch": {"url": search.url(), "index": "files"}, "properties": ["name", "path", "version"]}});
    let mut route_spec = inboxes_to(index);
    let case = json!({"name": "case", "http": {"url": format!("{}/cases", cases.url)}, "send": "Metadata"});
    route_spec["rules"][0]["to"].as_array_mut().unwrap().push(case);
    // Longer than the test waits for anything.
    route_spec["delivery"] = json!({"backoff": {"initial": "1h", "max": "1h"}});
    cases.answer_with(Some(503));
    route(&world, "search", route_spec).await;
    let item = upload_with(&world, &workspace, "a.txt", &[]).await;
    readers_become(&search, "the first reader", &["user:user0"]).await;
    eventually("the file waits for the case system", || async {
        if world.log().contains("A delivery failed") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    world.workspace("w", spec("user1")).await;
    readers_become(&search, "the other reader", &["user:user1"]).await;
    world.remote.change("PATCH", &format!("/v1/items/{item}"), json!({"name": "b.txt"})).await;
    becomes(&search, "the new name", &["b.txt"]).await;
    // A version stands behind the one that waits: the index shows it all the same.
    let path = format!("/v1/items/{item}/content");
    let (status, answer) = world.remote.call("PUT", &path, &[("if-match", "*")], Some(json!("second"))).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    eventually("the second version", || async {
        let there = search.documents("files").values().next().map(|document| document["version"].clone());
        if there == Some(json!("2")) { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    let (status, answer) = world.remote.call("DELETE", &format!("/v1/items/{item}"), &[("if-match", "*")], None).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    becomes(&search, "nothing", &[]).await;
    let (status, answer) = world.remote.call("POST", &format!("/v1/items/{item}/restorations"), &[], None).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    becomes(&search, "what was restored", &["b.txt"]).await;
    assert!(cases.accepted().is_empty(), "it still waits");
    // Every destination is tried now.
    cases.answer_with(None);
    let now = json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": "now"}}});
    world.patch("FileRoute", "search", now).await;
    arrived(&cases, 2).await;
    counted(&world, "search", "two versions", |counts| counts["seen"] == 2).await;
    assert_eq!((cases.accepted().len(), cases.repeated()), (2, 0));
}
