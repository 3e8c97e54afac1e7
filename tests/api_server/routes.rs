//! Files move as declared: each arrives once, is accounted for, and nothing is lost when something goes away.

use serde_json::{Value, json};

use crate::support::case_system::CaseSystem;
use crate::support::eventually;
use crate::support::world::{World, condition};

/// A workspace with an inbox that routes of these tests read.
pub async fn claims(world: &World, name: &str) -> String {
    let spec = json!({"displayName": name, "folders": [{"path": "/Inbox"}, {"path": "/Other"}]});
    world.workspace(name, spec).await;
    world.workspace_id(name).await
}

/// Applies a FileRoute on the Connection `file360`.
pub async fn apply(world: &World, name: &str, mut spec: Value) {
    spec["connectionRef"] = json!({"name": "file360"});
    world.apply("FileRoute", name, spec).await;
}

/// The same, and waits until it runs.
pub async fn route(world: &World, name: &str, spec: Value) {
    apply(world, name, spec).await;
    world.condition("FileRoute", name, "Ready", "True").await;
}

/// One rule that sends everything to the case system.
pub fn to_cases(cases: &CaseSystem, send: &str) -> Value {
    json!({
        "from": {"workspaces": {"selector": {}, "path": "/Inbox/**"}},
        "rules": [{"name": "all", "to": [{"name": "case", "http": {"url": format!("{}/cases", cases.url)}, "send": send}]}],
        "unmatched": {"ignore": {}},
        "delivery": {"backoff": {"initial": "200ms", "max": "1s"}},
    })
}

/// Waits until the route's totals are so. Numbers alone are written once a minute; a request to reconcile brings them at once.
pub async fn counted(world: &World, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || async {
        let token = format!("{:x}", rand::random::<u64>());
        world
            .patch("FileRoute", name, json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": token}}}))
            .await;
        let handled = |object: &Value| object["status"]["lastHandledReconcileAt"] == token.as_str();
        let object = world.until("FileRoute", name, "the request", handled).await;
        if holds(&object["status"]["counts"]) { Ok(object) } else { Err(object["status"]["counts"].to_string()) }
    })
    .await
}

/// Waits until the case system has this many.
pub async fn arrived(cases: &CaseSystem, count: usize) {
    eventually(&format!("{count} arrivals"), || async {
        let there = cases.accepted().len();
        (there >= count).then_some(()).ok_or_else(|| format!("{there} are there"))
    })
    .await;
}

#[tokio::test]
async fn an_upload_reaches_the_case_system_whole_and_once() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    world.remote.upload(&workspace, "/Inbox", "before.txt", b"was there before the route").await;
    route(&world, "claims", to_cases(&cases, "Content")).await;
    arrived(&cases, 1).await;
    world.remote.upload(&workspace, "/Inbox", "after.txt", b"came after it").await;
    world.remote.upload(&workspace, "/Other", "elsewhere.txt", b"not the route's").await;
    world.remote.upload(&workspace, "/Inbox", "last.txt", b"the last").await;
    arrived(&cases, 3).await;
    let mut bodies: Vec<Vec<u8>> = cases.accepted().into_iter().map(|accepted| accepted.body).collect();
    bodies.sort();
    assert_eq!(bodies, [&b"came after it"[..], b"the last", b"was there before the route"]);
    assert_eq!(cases.repeated(), 0);
    let object = counted(&world, "claims", "three deliveries", |counts| counts["delivered"] == 3).await;
    assert_eq!(object["status"]["counts"]["seen"], 3, "{}", object["status"]);
    assert_eq!(object["status"]["rules"], json!([{"name": "all", "matched": 3}]));
}

#[tokio::test]
async fn rules_choose_by_metadata_and_what_none_takes_is_accounted_for() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    let mut spec = to_cases(&cases, "Metadata");
    spec["rules"] = json!([{
        "name": "photo",
        "when": "file.metadata.documentType == 'photo' && file.size < 50000000",
        "set": {"routedTo": "'claims'"},
        "to": [{"name": "case", "http": {"url": format!("{}/cases", cases.url)}, "writeBack": {"claimRef": "response.body.id"}}],
    }]);
    spec["unmatched"] = json!({"moveTo": "/Unrouted"});
    route(&world, "claims", spec).await;
    let photo = upload_with(&world, &workspace, "photo.jpg", &[("documentType", "photo")]).await;
    let other = upload_with(&world, &workspace, "letter.txt", &[]).await;
    arrived(&cases, 1).await;
    let event = cases.accepted()[0].json();
    assert_eq!(event["data"]["file"]["name"], "photo.jpg", "{event}");
    assert_eq!(event["specversion"], "1.0");
    eventually("the answer on the file", || async {
        let item = world.remote.get(&format!("/v1/items/{photo}")).await;
        let wanted = json!({"documentType": "photo", "routedTo": "claims", "claimRef": "CASE-1"});
        (item["metadata"] == wanted).then_some(()).ok_or_else(|| item["metadata"].to_string())
    })
    .await;
    eventually("the move", || async {
        let item = world.remote.get(&format!("/v1/items/{other}")).await;
        (item["path"] == "/Unrouted/letter.txt").then_some(()).ok_or_else(|| item["path"].to_string())
    })
    .await;
    let object = counted(&world, "claims", "the unmatched file", |counts| counts["unmatched"] == 1).await;
    assert_eq!(
        object["status"]["counts"]["delivered"], 1,
        "r8: the route's own metadata and move start nothing: {}",
        object["status"]
    );
    assert_eq!(cases.accepted().len(), 1);
}

/// Uploads a file with metadata into the inbox; its id.
pub async fn upload_with(world: &World, workspace: &str, name: &str, metadata: &[(&str, &str)]) -> String {
    let query: String = metadata.iter().map(|(key, value)| format!("&metadata[{key}]={value}")).collect();
    world.remote.upload(workspace, "/Inbox", &format!("{name}{query}"), name.as_bytes()).await
}

#[tokio::test]
async fn r2_the_destination_is_away_for_the_whole_backlog_and_then_everything_arrives() {
    let mut world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    let mut spec = to_cases(&cases, "Content");
    spec["delivery"]["retries"] = json!(1);
    route(&world, "claims", spec).await;
    cases.stop();
    for number in 0..30 {
        world.remote.upload(&workspace, "/Inbox", &format!("{number}.txt"), format!("file {number}").as_bytes()).await;
    }
    let object = world.condition("FileRoute", "claims", "Backlogged", "True").await;
    assert_eq!(condition(&object, "Ready")["status"], "True", "the route itself runs");
    // The wait survives the operator: what is parked is recorded.
    world.kill_operator();
    world.start_operator(&[]).await;
    cases.start_again().await;
    arrived(&cases, 30).await;
    let object = world
        .until("FileRoute", "claims", "nothing waits", |object| {
            object["status"]["conditions"].as_array().is_some_and(|all| all.iter().all(|one| one["type"] != "Backlogged"))
        })
        .await;
    assert!(object["status"]["deadLetters"].is_null(), "an outage makes no dead letters: {}", object["status"]);
    let mut keys: Vec<String> = cases.accepted().into_iter().map(|accepted| accepted.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 30);
}

#[tokio::test]
async fn r4_a_file_that_came_while_the_operator_was_down_is_tried_again_when_it_fails_once() {
    let mut world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    route(&world, "claims", to_cases(&cases, "Content")).await;
    world.remote.upload(&workspace, "/Inbox", "before.txt", b"before").await;
    arrived(&cases, 1).await;
    world.kill_operator();
    cases.answer_with(Some(409));
    world.remote.upload(&workspace, "/Inbox", "meanwhile.txt", b"meanwhile").await;
    world.start_operator(&[]).await;
    world.condition("FileRoute", "claims", "Backlogged", "True").await;
    // Tried again, and refused again: its record says that it waits, and that is not taken for the work of somebody else.
    eventually("another try", || async {
        let failed = world.log().matches("A delivery failed").count();
        (failed >= 2).then_some(()).ok_or_else(|| format!("{failed} tries"))
    })
    .await;
    cases.answer_with(None);
    arrived(&cases, 2).await;
    assert_eq!(cases.accepted()[1].body, b"meanwhile");
}

#[tokio::test]
async fn r4_a_file_from_before_the_route_that_fails_at_first_is_tried_until_it_arrives() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    // Looking at such files asks whether they have a record; the one of their own failure must not count.
    for number in 0..5 {
        world.remote.upload(&workspace, "/Inbox", &format!("{number}.txt"), format!("file {number}").as_bytes()).await;
    }
    cases.stop();
    apply(&world, "claims", to_cases(&cases, "Content")).await;
    world.condition("FileRoute", "claims", "Backlogged", "True").await;
    cases.start_again().await;
    arrived(&cases, 5).await;
}

#[tokio::test]
async fn r5_a_poisonous_file_becomes_a_dead_letter_and_blocks_nobody_and_can_be_replayed() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    cases.refuse(Some("poison"));
    let mut spec = to_cases(&cases, "Content");
    spec["delivery"]["deadLetter"] = json!({"moveTo": "/Failed"});
    route(&world, "claims", spec).await;
    let bad = world.remote.upload(&workspace, "/Inbox", "bad.txt", b"this is poison").await;
    for number in 0..5 {
        world.remote.upload(&workspace, "/Inbox", &format!("{number}.txt"), b"good").await;
    }
    arrived(&cases, 5).await;
    let object = world.condition("FileRoute", "claims", "DeadLetters", "True").await;
    let letter = &object["status"]["deadLetters"][0];
    assert_eq!(
        (&letter["file"], &letter["rule"], &letter["destination"]),
        (&json!("/Inbox/bad.txt"), &json!("all"), &json!("case"))
    );
    assert!(letter["error"].as_str().unwrap().contains("not wanted"), "the reason is kept: {letter}");
    eventually("the move", || async {
        let item = world.remote.get(&format!("/v1/items/{bad}")).await;
        (item["path"] == "/Failed/bad.txt").then_some(()).ok_or_else(|| item["path"].to_string())
    })
    .await;
    cases.refuse(None);
    // Moved back, it can be delivered; the annotation is what `kubectl file360 replay` sets.
    let inbox = world.remote.get(&format!("/v1/workspaces/{workspace}/resolve?path=/Inbox")).await;
    world.remote.change("PATCH", &format!("/v1/items/{bad}"), json!({"parentId": inbox["id"]})).await;
    world.patch("FileRoute", "claims", json!({"metadata": {"annotations": {"replay.file360.io/requestedAt": "1"}}})).await;
    arrived(&cases, 6).await;
    world.until("FileRoute", "claims", "no dead letters", |object| object["status"]["deadLetters"].is_null()).await;
}

#[tokio::test]
async fn r4_a_dead_letter_is_moved_away_in_the_end_also_by_the_next_process() {
    let mut world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    cases.refuse(Some("poison"));
    let mut spec = to_cases(&cases, "Content");
    spec["delivery"]["deadLetter"] = json!({"moveTo": "/Failed"});
    route(&world, "claims", spec).await;
    let stuck = json!({"failNext": [{"method": "PATCH", "pathPrefix": "/v1/items/", "status": 503, "count": 1_000_000}]});
    world.remote.faults(stuck).await;
    let bad = world.remote.upload(&workspace, "/Inbox", "bad.txt", b"this is poison").await;
    let newer = world.remote.upload(&workspace, "/Inbox", "newer.txt", b"this is poison, too").await;
    world
        .until("FileRoute", "claims", "two dead letters", |object| {
            object["status"]["deadLetters"].as_array().is_some_and(|letters| letters.len() == 2)
        })
        .await;
    eventually("a second try to move", || async {
        let tries = world.log().matches("could not be moved yet").count();
        (tries >= 2).then_some(()).ok_or_else(|| format!("{tries} tries"))
    })
    .await;
    world.kill_operator();
    // A version that came since is not what was given up.
    let path = format!("/v1/items/{newer}/content");
    let (status, item) = world.remote.call("PUT", &path, &[("if-match", "*")], Some(json!("fine"))).await;
    assert!((200..300).contains(&status), "{status} {item}");
    world.remote.faults(json!({})).await;
    world.start_operator(&[]).await;
    let place = async |item: &str| world.remote.get(&format!("/v1/items/{item}")).await["path"].clone();
    eventually("the move", || async {
        let path = place(&bad).await;
        (path == "/Failed/bad.txt").then_some(()).ok_or_else(|| path.to_string())
    })
    .await;
    arrived(&cases, 1).await;
    assert_eq!(place(&newer).await, "/Inbox/newer.txt");
}

#[tokio::test]
async fn a_wrong_route_says_where_and_why_and_touches_nothing() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    world.remote.upload(&workspace, "/Inbox", "a.txt", b"a").await;
    let mut wrong = to_cases(&cases, "Content");
    wrong["rules"][0]["when"] = json!("fil.size > 1");
    apply(&world, "claims", wrong).await;
    let object = world.condition("FileRoute", "claims", "Stalled", "True").await;
    let ready = condition(&object, "Ready");
    assert_eq!(ready["reason"], "InvalidExpression");
    assert!(ready["message"].as_str().unwrap().starts_with("spec.rules[0].when: line 1, column 1"), "{ready}");
    let mut failing = to_cases(&cases, "Content");
    failing["tests"] = json!([{"name": "small", "given": {"file": {"size": 1}}, "expectRule": "unmatched"}]);
    apply(&world, "claims", failing.clone()).await;
    let object = world.reason("FileRoute", "claims", "Ready", "TestsFailed").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("test small: all takes it, not unmatched"));
    assert!(cases.accepted().is_empty(), "nothing runs before the tests pass");
    failing["tests"][0]["expectRule"] = json!("all");
    route(&world, "claims", failing).await;
    arrived(&cases, 1).await;
}

#[tokio::test]
async fn a_dry_run_counts_what_would_change_and_touches_nothing() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    for number in 0..4 {
        world.remote.upload(&workspace, "/Inbox", &format!("{number}.txt"), b"x").await;
    }
    route(&world, "claims", to_cases(&cases, "Content")).await;
    arrived(&cases, 4).await;
    // What arrived is compared once it is recorded: then the checkpoint is behind it.
    eventually("the checkpoint", || async {
        let object = counted(&world, "claims", "four deliveries", |counts| counts["delivered"] == 4).await;
        object["status"]["checkpoint"].is_string().then_some(()).ok_or_else(|| object["status"].to_string())
    })
    .await;
    let mut spec = to_cases(&cases, "Content");
    spec["mode"] = json!("DryRun");
    spec["rules"] = json!([
        {"name": "none", "when": "file.name == '0.txt'", "to": spec["rules"][0]["to"]},
        {"name": "all", "when": "file.name != '1.txt'", "to": spec["rules"][0]["to"]},
    ]);
    apply(&world, "claims", spec).await;
    let object = world.reason("FileRoute", "claims", "Ready", "DryRun").await;
    let found = &object["status"]["dryRun"];
    assert_eq!(found["summary"], "of 4 files of the last 7 days, 2 would change route, 1 would be unmatched", "{found}");
    assert_eq!(cases.accepted().len(), 4);
}

#[tokio::test]
async fn files_go_to_a_folder_and_objects_come_from_one() {
    let mut world = World::without_operator(crate::support::kubernetes::shared().await).await;
    let out = tempfile::tempdir().unwrap();
    let folder = format!("files={}", out.path().display());
    world.start_operator(&["--folder", &folder]).await;
    world.connect().await;
    let workspace = claims(&world, "claims").await;
    let mut spec = to_cases(&CaseSystem::start().await, "Content");
    spec["rules"] = json!([{"name": "all", "to": [
        {"name": "archive", "objectStore": {"fs": {"folder": "files"}}, "key": "'out/' + file.metadata.claim + '/' + file.name"}]}]);
    route(&world, "archive", spec).await;
    upload_with(&world, &workspace, "a.txt", &[("claim", "7")]).await;
    let own = out.path().join(&world.namespace);
    eventually("the file", || async {
        let found = tokio::fs::read(own.join("out/7/a.txt")).await.map_err(|error| error.to_string())?;
        (found == b"a.txt").then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
    // R6: what a sender says never leads out of the namespace's folder.
    upload_with(&world, &workspace, "b.txt", &[("claim", "..%2F..%2Fescaped")]).await;
    counted(&world, "archive", "two deliveries or a dead letter", |counts| {
        counts["delivered"] == 2 || counts["failed"] == 1
    })
    .await;
    assert!(!out.path().join("escaped").exists() && !out.path().parent().unwrap().join("escaped").exists());

    std::fs::create_dir_all(own.join("in/invoices")).unwrap();
    std::fs::write(own.join("in/invoices/42-march.pdf"), b"an invoice").unwrap();
    std::fs::write(own.join("in/invoices/42-march.pdf.json"), br#"{"year": 2026}"#).unwrap();
    route(&world, "publish", json!({
        "from": {"objectStore": {"fs": {"folder": "files"}, "prefix": "in/", "settle": "0s", "every": "200ms",
            "metadata": {"sidecar": "{key}.json", "fromKey": "in/invoices/(?P<customer>[0-9]+)-.*"}}},
        "rules": [{"name": "invoice", "when": "file.metadata.customer == '42'", "to": [{"name": "publish", "file360": {
            "workspaceRef": {"name": "claims"}, "path": "'/Invoices/' + file.metadata.year", "metadata": {"customer": "file.metadata.customer"}}}]}],
        "unmatched": {"ignore": {}},
    })).await;
    let published = format!("/v1/workspaces/{workspace}/resolve?path=/Invoices/2026/42-march.pdf");
    let item = eventually("the publication", || async {
        let (status, item) = world.remote.call("GET", &published, &[], None).await;
        (status == 200).then_some(item).ok_or_else(|| format!("{status}"))
    })
    .await;
    assert_eq!((&item["metadata"], &item["version"]), (&json!({"customer": "42"}), &json!(1)));
    // The same content again is no new version; other content is.
    std::fs::write(own.join("in/invoices/42-march.pdf"), b"an invoice, corrected").unwrap();
    eventually("the second version", || async {
        let item = world.remote.get(&published).await;
        (item["version"] == 2).then_some(()).ok_or_else(|| item.to_string())
    })
    .await;
    // A restart takes nothing up again.
    world.kill_operator();
    world.start_operator(&["--folder", &folder]).await;
    std::fs::write(own.join("in/invoices/42-april.pdf"), b"the next").unwrap();
    std::fs::write(own.join("in/invoices/42-april.pdf.json"), br#"{"year": 2026}"#).unwrap();
    eventually("the next invoice", || async {
        let path = format!("/v1/workspaces/{workspace}/resolve?path=/Invoices/2026/42-april.pdf");
        let (status, _) = world.remote.call("GET", &path, &[], None).await;
        (status == 200).then_some(()).ok_or_else(|| format!("{status}"))
    })
    .await;
    assert_eq!(world.remote.get(&published).await["version"], 2);
}

/// A signed push of one file; the status of the answer.
pub async fn push(url: &str, key: &str, id: &str, content: &[u8]) -> u16 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hmac::{KeyInit as _, Mac as _};
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(content);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let timestamp = jiff::Timestamp::now().as_second();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(format!("{id}.{timestamp}.{hex}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let request = reqwest::Client::new()
        .put(url)
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", format!("v1,{signature}"))
        .header("repr-digest", format!("sha-256=:{}:", STANDARD.encode(digest)))
        .header("content-type", "text/plain")
        .header("content-disposition", format!("attachment; filename=\"{id}.txt\""))
        .body(content.to_vec());
    request.send().await.map_or(0, |answer| answer.status().as_u16())
}

#[tokio::test]
async fn what_a_system_pushes_is_committed_before_it_gets_its_answer_and_then_routed() {
    let mut world = World::without_operator(crate::support::kubernetes::shared().await).await;
    let address = format!("127.0.0.1:{}", crate::support::free_port());
    world.start_operator(&["--inbound-address", &address, "--public-url", &format!("http://{address}")]).await;
    world.connect().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    let key = "0123456789abcdef0123456789abcdef";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "erp"}, "stringData": {"2026": key}});
    crate::support::kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
    let mut spec = to_cases(&cases, "Content");
    spec["from"] = json!({"http": {"path": "erp", "hmacRef": {"name": "erp"}, "inbox": {"workspaceRef": {"name": "claims"}, "path": "/Inbox"}}});
    route(&world, "erp", spec).await;
    let url = world.get("FileRoute", "erp").await["status"]["ingestUrl"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("http://{address}/ingest/{}/erp", world.namespace));
    eventually("the endpoint", || async {
        let status = push(&url, key, "first", b"from the ERP system").await;
        (status == 201).then_some(()).ok_or_else(|| status.to_string())
    })
    .await;
    let path = format!("/v1/workspaces/{workspace}/resolve?path=/Inbox/first.txt");
    assert_eq!(world.remote.get(&path).await["size"], 19, "it is committed when the answer comes");
    arrived(&cases, 1).await;
    assert_eq!(push(&url, key, "first", b"from the ERP system").await, 201, "the same id again is answered as before");
    let forged = push(&url, "another key that is long enough", "second", b"forged").await;
    assert!((400..500).contains(&forged), "t4: {forged}");
    assert_eq!(push(&url, key, "third", b"the third").await, 201);
    arrived(&cases, 2).await;
    assert_eq!(cases.accepted().len(), 2, "one file for one id");
}

#[tokio::test]
async fn r4_a_workspace_that_joins_is_read_to_its_end_although_reading_it_fails_for_a_while() {
    let (world, cases) = (World::new().await, CaseSystem::start().await);
    let workspace = claims(&world, "late").await;
    world.remote.upload(&workspace, "/Inbox", "before.txt", b"before").await;
    let mut spec = to_cases(&cases, "Content");
    spec["from"]["workspaces"]["selector"] = json!({"matchLabels": {"type": "claims"}});
    route(&world, "claims", spec).await;
    let failures = 30;
    world
        .remote
        .faults(json!({"failNext": [
            {"method": "GET", "pathPrefix": "/v1/facets", "truncateBody": true, "count": 3},
            {"method": "GET", "pathPrefix": format!("/v1/workspaces/{workspace}/"), "status": 503, "count": failures},
        ]}))
        .await;
    world.patch("SecureWorkspace", "late", json!({"metadata": {"labels": {"type": "claims"}}})).await;
    world.reason("FileRoute", "claims", "Ready", "SourceUnavailable").await;
    assert!(cases.accepted().is_empty());
    world.remote.faults(json!({})).await;
    arrived(&cases, 1).await;
    world.condition("FileRoute", "claims", "Ready", "True").await;
}
