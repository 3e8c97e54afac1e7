//! Every kind of destination and source, end to end: resources at the API server, files in File 360, real programs at the other end.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::routes::{claims, counted, route, upload_with};
use crate::support::counterparts::{NatsServer, S3Server, SftpServer, files_below};
use crate::support::search::Fake;
use crate::support::world::{World, condition};
use crate::support::{eventually, kubernetes};

/// Applies a Secret.
pub async fn secret(world: &World, name: &str, values: Value) {
    let manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values});
    kubernetes::apply(&world.client, &world.namespace, &manifest).await.expect("the Secret is accepted");
}

/// `objectStore` for an S3 server; its credential is in the Secret `s3`.
pub async fn s3_store(world: &World, server: &S3Server) -> Value {
    secret(world, "s3", json!({"id": S3Server::KEY_ID, "secret": S3Server::SECRET})).await;
    json!({"s3": {"endpoint": server.endpoint, "region": S3Server::REGION, "bucket": S3Server::BUCKET,
        "accessKeyIdRef": {"name": "s3", "key": "id"}, "secretAccessKeyRef": {"name": "s3", "key": "secret"}}})
}

/// `objectStore` for an SFTP server; its credential is in the Secret `sftp`.
pub async fn sftp_store(world: &World, server: &SftpServer) -> Value {
    secret(world, "sftp", json!({"key": server.private_key})).await;
    json!({"sftp": {"host": "127.0.0.1", "port": server.port, "username": server.username,
        "privateKeyRef": {"name": "sftp", "key": "key"}, "hostKeys": [server.host_key], "root": server.root()}})
}

/// A route from the inboxes of the namespace to one destination.
pub fn inboxes_to(mut destination: Value) -> Value {
    destination["name"] = json!("there");
    json!({
        "from": {"workspaces": {"selector": {}, "path": "/Inbox/**"}},
        "rules": [{"name": "all", "to": [destination]}],
        "unmatched": {"ignore": {}},
        "delivery": {"backoff": {"initial": "200ms", "max": "1s"}},
    })
}

/// Waits until the files at the other end are these, by name.
pub async fn become_files(what: &str, look: impl Fn() -> Vec<(String, Vec<u8>)>, wanted: &[(&str, &[u8])]) {
    let wanted: BTreeMap<String, Vec<u8>> =
        wanted.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
    eventually(what, || async {
        let files: BTreeMap<String, Vec<u8>> = look().into_iter().collect();
        if files == wanted { Ok(()) } else { Err(format!("{:?}", files.keys())) }
    })
    .await;
}

/// Objects of the bucket.
pub fn objects(server: &S3Server) -> Vec<(String, Vec<u8>)> {
    files_below(&server.bucket()).into_iter().filter(|(name, _)| !name.starts_with(".sgwtmp")).collect()
}

/// What the audit has of one action.
pub async fn audited(world: &World, action: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut cursor = "earliest".to_owned();
    loop {
        let page = world.remote.get(&format!("/v1/audit-events?limit=1000&type={action}&cursor={cursor}")).await;
        events.extend(page["items"].as_array().cloned().unwrap_or_default());
        if page["hasMore"] != true {
            return events;
        }
        page["nextCursor"].as_str().expect("a cursor").clone_into(&mut cursor);
    }
}

#[tokio::test]
async fn files_are_archived_in_a_bucket_each_version_under_its_key() {
    let world = World::new().await;
    let server = S3Server::start();
    let workspace = claims(&world, "claims").await;
    let mut destination = json!({"objectStore": s3_store(&world, &server).await});
    destination["key"] = json!("'claims/' + file.metadata.claim + '/' + string(file.version) + '-' + file.name");
    route(&world, "archive", inboxes_to(destination)).await;
    let first = upload_with(&world, &workspace, "a.txt", &[("claim", "7")]).await;
    upload_with(&world, &workspace, "b.txt", &[("claim", "7/../../up")]).await;
    let path = format!("/v1/items/{first}/content");
    let (status, item) = world.remote.call("PUT", &path, &[("if-match", "*")], Some(json!("second"))).await;
    assert!((200..300).contains(&status), "{status} {item}");
    become_files(
        "the archive",
        || objects(&server),
        &[
            ("claims/7/1-a.txt", b"a.txt"),
            ("claims/7/%2E%2E/%2E%2E/up/1-b.txt", b"b.txt"),
            ("claims/7/2-a.txt", b"\"second\""),
        ],
    )
    .await;
    let object = counted(&world, "archive", "three deliveries", |counts| counts["delivered"] == 3).await;
    assert_eq!(object["status"]["counts"]["bytes"], 5 + 5 + 8, "{}", object["status"]);
}

#[tokio::test]
async fn files_reach_an_sftp_server() {
    let world = World::new().await;
    let server = SftpServer::start();
    let workspace = claims(&world, "claims").await;
    let destination = json!({"objectStore": sftp_store(&world, &server).await, "key": "'in/' + file.name"});
    world.remote.upload(&workspace, "/Inbox", "a.txt", b"was there").await;
    route(&world, "archive", inboxes_to(destination)).await;
    world.remote.upload(&workspace, "/Inbox", "b.txt", b"came later").await;
    let look = || {
        let all = files_below(&server.root()).into_iter();
        // Notes with idempotency keys are kept beside the files.
        all.filter(|(name, _)| !name.starts_with(".file360/")).collect()
    };
    become_files("the files", look, &[("in/a.txt", b"was there"), ("in/b.txt", b"came later")]).await;
}

#[tokio::test]
async fn events_reach_a_stream_one_message_for_each_file_with_the_key_as_its_id() {
    let world = World::new().await;
    let server = NatsServer::start();
    let client = async_nats::connect(format!("nats://127.0.0.1:{}", server.port)).await.unwrap();
    let stream = async_nats::jetstream::stream::Config {
        name: "FILES".into(),
        subjects: vec!["files.>".into()],
        ..Default::default()
    };
    let mut stream = async_nats::jetstream::new(client).create_stream(stream).await.unwrap();
    let workspace = claims(&world, "claims").await;
    let url = format!("nats://127.0.0.1:{}", server.port);
    let broker = json!({"broker": {"nats": {"url": url, "subject": "'files.' + file.metadata.claim"}}});
    route(&world, "bus", inboxes_to(broker)).await;
    for name in ["a.txt", "b.txt", "c.txt"] {
        upload_with(&world, &workspace, name, &[("claim", "7")]).await;
    }
    counted(&world, "bus", "three deliveries", |counts| counts["delivered"] == 3).await;
    let state = stream.info().await.unwrap().state.clone();
    assert_eq!(state.messages, 3);
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let id = message.headers.get("Nats-Msg-Id").unwrap().to_string();
        assert_eq!((&event["id"], id.len()), (&json!(id), 64), "r1: {event}");
        assert_eq!(
            (&event["specversion"], &event["type"], message.subject.as_str()),
            (&json!("1.0"), &json!("io.file360.file.uploaded"), "files.7")
        );
        names.insert(event["data"]["file"]["name"].as_str().unwrap().to_owned());
        ids.insert(id);
    }
    assert_eq!((names.len(), ids.len()), (3, 3), "{names:?} {ids:?}");
    assert!(audited(&world, "getContent").await.is_empty(), "the content is not sent, so it is not read");
}

/// What a reader finds with the query of docs/search-indexes.md.
async fn found_by(search: &Fake, index: &str, principals: &[&str]) -> Vec<String> {
    let query = json!({"size": 100, "query": {"bool": {
        "filter": [{"terms": {"acl.allow": principals}}],
        "must_not": [{"terms": {"acl.deny": principals}}, {"term": {"deleted": true}}],
    }}});
    let http = reqwest::Client::new();
    let post = |path: &str, body: Value| {
        let request = http.post(format!("{}/{index}/{path}", search.url())).header("content-type", "application/json");
        request.body(body.to_string()).send()
    };
    post("_refresh", json!({})).await.unwrap();
    let found: Value = serde_json::from_str(&post("_search", query).await.unwrap().text().await.unwrap()).unwrap();
    let hits = found["hits"]["hits"].as_array().unwrap_or_else(|| panic!("{found}"));
    let mut names: Vec<String> = hits.iter().map(|hit| hit["_source"]["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn r7_an_index_has_properties_and_readers_follows_both_and_gets_no_content() {
    let world = World::new().await;
    let search = Fake::start();
    let member = |kind: &str, name: &str| json!({"kind": kind, "name": name, "role": "Viewer"});
    let workspace_spec = |members: Value| json!({"displayName": "Project", "folders": [{"path": "/Inbox"}, {"path": "/Other"}], "access": {"members": members}});
    world.workspace("project", workspace_spec(json!([member("User", "user0"), member("Group", "group0")]))).await;
    let workspace = world.workspace_id("project").await;
    let index = json!({"index": {"opensearch": {"url": search.url(), "index": "files"},
        "properties": ["name", "path", "metadata.part"]}});
    let first = upload_with(&world, &workspace, "drawing.dwg", &[("part", "7"), ("salary", "100")]).await;
    route(&world, "search", inboxes_to(index)).await;
    let second = upload_with(&world, &workspace, "notes.txt", &[]).await;
    let became = async |what: &str, principals: &[&str], names: &[&str]| {
        eventually(what, || async {
            let found = found_by(&search, "files", principals).await;
            if found == names { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    eventually("two documents", || async {
        let documents = search.documents("files");
        if documents.len() == 2 { Ok(()) } else { Err(format!("{documents:?}")) }
    })
    .await;
    let documents = search.documents("files");
    let drawing = documents.values().find(|document| document["name"] == "drawing.dwg").unwrap();
    assert_eq!(
        (&drawing["fileId"], &drawing["path"], &drawing["metadata"]),
        (&json!(first), &json!("/Inbox/drawing.dwg"), &json!({"part": "7"})),
        "only what is allowed: {drawing}"
    );
    assert_eq!(drawing["acl"], json!({"allow": ["group:group0", "user:user0"], "deny": []}));
    became("both for a member", &["user:user0"], &["drawing.dwg", "notes.txt"]).await;
    became("both for the group", &["user:user5", "group:group0"], &["drawing.dwg", "notes.txt"]).await;
    became("nothing for a stranger", &["user:user5"], &[]).await;

    // A permission that is taken away leaves the index; one that is given comes.
    let members = json!([member("Group", "group0"), member("User", "user3")]);
    world.workspace("project", workspace_spec(members)).await;
    became("nothing for whoever lost access", &["user:user0"], &[]).await;
    became("both for the new member", &["user:user3"], &["drawing.dwg", "notes.txt"]).await;

    // What changes is changed, what goes is gone: deleted, or moved out of the route's paths.
    let patch = json!({"metadata": {"part": "8"}});
    world.remote.change("PATCH", &format!("/v1/items/{first}"), patch).await;
    eventually("the new part number", || async {
        let parts: Vec<Value> = search.documents("files").values().map(|found| found["metadata"]["part"].clone()).collect();
        if parts.contains(&json!("8")) { Ok(()) } else { Err(format!("{parts:?}")) }
    })
    .await;
    let (status, answer) = world.remote.call("DELETE", &format!("/v1/items/{first}"), &[("if-match", "*")], None).await;
    assert!((200..300).contains(&status), "{status} {answer}");
    became("the deleted file gone", &["group:group0"], &["notes.txt"]).await;
    let other = world.remote.get(&format!("/v1/workspaces/{workspace}/resolve?path=/Other")).await;
    world.remote.change("PATCH", &format!("/v1/items/{second}"), json!({"parentId": other["id"]})).await;
    became("the moved file gone", &["group:group0"], &[]).await;
    assert!(search.documents("files").is_empty());
    assert_eq!(audited(&world, "getContent").await, Vec::<Value>::new(), "no content was read");
}

/// A workspace that files are published into; who it may be shared with.
async fn customer(world: &World, name: &str, sharing: Value) -> String {
    world.workspace(name, json!({"displayName": name, "sharing": sharing})).await;
    world.workspace_id(name).await
}

#[tokio::test]
async fn an_invoice_from_a_bucket_is_published_and_shared_with_whom_its_sidecar_names() {
    let world = World::new().await;
    let server = S3Server::start();
    let links = json!({"maxAudience": "Guests", "maxDays": 30, "passwordRequired": true});
    let sharing = json!({"external": "AllowListed", "allowedDomains": ["acme.example"], "links": links});
    let workspace = customer(&world, "customer", sharing).await;
    secret(&world, "share", json!({"password": "canary-share-password"})).await;
    let mut from = s3_store(&world, &server).await;
    from["prefix"] = json!("final/");
    from["every"] = json!("200ms");
    from["metadata"] = json!({"sidecar": "{stem}.json"});
    let share = json!({"audience": "Guests", "recipients": "[file.metadata.contact]", "expiresAfter": "P7D", "maxDownloads": 5,
        "passwordRef": {"name": "share", "key": "password"}, "notify": true, "locale": "de"});
    let publish = json!({"name": "publish", "file360": {"workspaceRef": {"name": "customer"}, "path": "'/Invoices/' + file.metadata.year",
        "metadata": {"number": "file.metadata.number"}, "share": share}});
    let spec = json!({"from": {"objectStore": from}, "rules": [{"name": "invoice", "to": [publish]}], "unmatched": {"ignore": {}},
        "delivery": {"retries": 0}});
    server.put_by_hand("final/a.pdf", "an invoice", &[]);
    server.put_by_hand("final/a.json", r#"{"contact": "Bob@Acme.example", "year": 2026, "number": "17"}"#, &[]);
    server.put_by_hand("draft/b.pdf", "not final", &[]);
    route(&world, "publish", spec).await;
    counted(&world, "publish", "the delivery", |counts| counts["delivered"] == 1).await;
    let item = world.remote.get(&format!("/v1/workspaces/{workspace}/resolve?path=/Invoices/2026/a.pdf")).await;
    assert_eq!((&item["metadata"], &item["version"], &item["size"]), (&json!({"number": "17"}), &json!(1), &json!(10)));
    let links = world.remote.all(&format!("/v1/workspaces/{workspace}/links")).await;
    let [link] = links.as_slice() else { panic!("{links:?}") };
    assert_eq!(
        (&link["itemId"], &link["audience"], &link["hasPassword"], &link["maxDownloads"]),
        (&item["id"], &json!("Guests"), &json!(true), &json!(5))
    );
    assert_eq!(link["recipients"], json!(["bob@acme.example"]));
    let ends: jiff::Timestamp = link["expiresAt"].as_str().unwrap().parse().unwrap();
    let hours = (ends - jiff::Timestamp::now()).total(jiff::Unit::Hour).unwrap();
    assert!((166.9..=168.0).contains(&hours), "seven days from the hour that began: {hours}");
    let notices = world.remote.all("/v1/notifications").await;
    let [notice] = notices.as_slice() else { panic!("{notices:?}") };
    assert_eq!(
        (&notice["template"], &notice["to"], &notice["locale"]),
        (&json!("share-notice"), &json!("bob@acme.example"), &json!("de"))
    );
    let outbox = world.folder.path().join("data/outbox");
    let mail = eventually("the mail", || async {
        let mails = std::fs::read_dir(&outbox).map_err(|error| error.to_string())?;
        let texts: Vec<String> = mails.map(|mail| std::fs::read_to_string(mail.unwrap().path()).unwrap()).collect();
        texts.into_iter().next().ok_or_else(|| "no mail".to_owned())
    })
    .await;
    assert!(mail.to_lowercase().contains("to: bob@acme.example") && !mail.contains("canary-share-password"), "{mail}");
    assert!(!world.log().contains("canary-share-password"), "t5: the password stays out of the log");

    // An invoice for somebody whom the workspace's rule does not let in is refused; nothing is shared.
    server.put_by_hand("final/c.json", r#"{"contact": "eve@other.example", "year": 2026, "number": "18"}"#, &[]);
    server.put_by_hand("final/c.pdf", "another invoice", &[]);
    let object = world.condition("FileRoute", "publish", "DeadLetters", "True").await;
    let letter = &object["status"]["deadLetters"][0];
    assert_eq!(letter["file"], "final/c.pdf");
    assert!(letter["error"].as_str().unwrap().contains("not allowed by the workspace's sharing rule"), "{letter}");
    assert_eq!(world.remote.all(&format!("/v1/workspaces/{workspace}/links")).await.len(), 1);
    assert_eq!(world.remote.all(&format!("/v1/workspaces/{workspace}/files")).await.len(), 1, "it is not even published");
    assert_eq!(world.remote.all("/v1/notifications").await.len(), 1);
}

#[tokio::test]
async fn a_name_that_is_taken_gets_a_version_only_for_other_bytes() {
    let world = World::new().await;
    let server = S3Server::start();
    let workspace = customer(&world, "customer", json!({"external": "Disabled"})).await;
    let mut from = s3_store(&world, &server).await;
    from["every"] = json!("200ms");
    let to = json!([{"name": "publish", "file360": {"workspaceRef": {"name": "customer"}, "path": "'/'", "fileName": "'invoice.pdf'"}}]);
    let spec = json!({"from": {"objectStore": from}, "rules": [{"name": "all", "to": to}], "unmatched": {"ignore": {}}});
    route(&world, "publish", spec).await;
    for (key, content, delivered, version) in
        [("a", "first", 1, 1), ("b", "first", 2, 1), ("c", "other", 3, 2), ("d", "other", 4, 2), ("e", "first", 5, 3)]
    {
        server.put_by_hand(key, content, &[]);
        counted(&world, "publish", key, |counts| counts["delivered"] == delivered).await;
        let item = world.remote.get(&format!("/v1/workspaces/{workspace}/resolve?path=/invoice.pdf")).await;
        assert_eq!(item["version"], version, "after {key}");
    }
    let object = counted(&world, "publish", "the duplicates", |counts| counts["duplicates"] == 2).await;
    assert!(object["status"]["deadLetters"].is_null());
}

/// An outsider uploads through the page of an upload request, without an account and without proving an address.
async fn upload_as_outsider(world: &World, workspace: &str, name: &str, contact: &str) {
    let request = world.remote.get(&format!("/v1/workspaces/{workspace}/upload-requests/docs")).await;
    let file = Part::bytes(name.as_bytes().to_vec()).file_name(name.to_owned()).mime_str("text/plain").unwrap();
    let form = Form::new().text("contact", contact.to_owned()).text("email", "mallory@evil.example").part("file", file);
    let url = format!("{}/files", request["url"].as_str().expect("an address"));
    let answer = reqwest::Client::new().post(url).header("accept", "application/json").multipart(form).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
}

#[tokio::test]
async fn r9_who_gets_access_is_not_what_an_unverified_outsider_entered() {
    let world = World::new().await;
    world
        .workspace(
            "inbox",
            json!({"displayName": "Inbox", "folders": [{"path": "/Inbox"}], "sharing": {"external": "Anyone"},
                "uploadRequests": [{"name": "docs", "path": "/Inbox", "fields": [{"name": "contact", "label": "Contact"}]}]}),
        )
        .await;
    let inbox = world.workspace_id("inbox").await;
    let rule = json!({"external": "AllowListed", "allowedDomains": ["acme.example"], "links": {"maxAudience": "Guests"}});
    let target = customer(&world, "customer", rule).await;
    let publication = |name: &str, when: Option<&str>, reference: Value, share: Value| {
        let mut publish = json!({"workspaceRef": reference, "path": format!("'/{name}'")});
        if !share.is_null() {
            publish["share"] = share;
        }
        let mut rule = json!({"name": "all", "to": [{"name": "publish", "file360": publish}]});
        if let Some(when) = when {
            rule["when"] = json!(when);
        }
        let workspaces = json!({"names": ["inbox"], "path": "/Inbox/**"});
        json!({"from": {"workspaces": workspaces}, "rules": [rule], "unmatched": {"ignore": {}}})
    };
    let fixed = || json!({"name": "customer"});
    let guests = |recipients: &str| json!({"audience": "Guests", "recipients": recipients});
    let bob = "['bob@acme.example']";
    let entered = "an outsider without a verified address entered";
    let refused = [
        ("recipients", None, fixed(), guests("[file.metadata.contact]"), entered),
        ("uploader", None, fixed(), guests("[uploader.email]"), entered),
        ("chosen", Some("file.metadata.contact != 'nobody'"), fixed(), guests(bob), entered),
        ("named", None, json!({"nameFrom": "file.metadata.contact == '' ? 'inbox' : 'customer'"}), Value::Null, entered),
        ("stranger", None, fixed(), guests("['eve@other.example']"), "the workspace's sharing rule"),
        ("public", None, fixed(), json!({"audience": "Anyone"}), "maxAudience"),
    ];
    for (name, when, reference, share, _) in &refused {
        route(&world, name, publication(name, *when, reference.clone(), share.clone())).await;
    }
    // The same where the manifest alone decides, and for files of people who are known.
    route(&world, "fixed", publication("fixed", Some("!uploader.emailVerified"), fixed(), guests(bob))).await;
    route(&world, "internal", publication("internal", Some("file.metadata.contact != 'nobody'"), fixed(), Value::Null))
        .await;
    upload_as_outsider(&world, &inbox, "claim.txt", "accomplice@acme.example").await;
    for (name, .., why) in &refused {
        let object = world.condition("FileRoute", name, "DeadLetters", "True").await;
        let letter = &object["status"]["deadLetters"][0];
        assert!(letter["error"].as_str().unwrap().contains(why), "{name}: {letter}");
    }
    counted(&world, "fixed", "the share that the manifest decides", |counts| counts["delivered"] == 1).await;
    counted(&world, "internal", "the publication without a share", |counts| counts["delivered"] == 1).await;
    let at = |files: &[Value]| files.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
    let published = at(&world.remote.all(&format!("/v1/workspaces/{target}/files")).await);
    assert_eq!(published, ["/fixed/claim.txt".to_owned(), "/internal/claim.txt".to_owned()].into());
    let links = world.remote.all(&format!("/v1/workspaces/{target}/links")).await;
    assert_eq!(links.len(), 1, "{links:?}");
    assert_eq!(links[0]["recipients"], json!(["bob@acme.example"]));

    // What somebody known entered counts.
    world.remote.upload(&inbox, "/Inbox", "known.txt&metadata[contact]=carl@acme.example", b"known").await;
    for name in ["recipients", "chosen", "named"] {
        counted(&world, name, "the file of somebody known", |counts| counts["delivered"] == 1).await;
    }
    let links = world.remote.all(&format!("/v1/workspaces/{target}/links")).await;
    let carls = links.iter().filter(|link| link["recipients"] == json!(["carl@acme.example"])).count();
    assert_eq!(carls, 1, "{links:?}");
}

#[tokio::test]
async fn r9_no_share_exceeds_the_connections_ceiling() {
    let world = World::new().await;
    let wide = json!({"external": "Anyone", "links": {"maxAudience": "Anyone"}});
    let target = customer(&world, "customer", wide).await;
    let source = claims(&world, "claims").await;
    world.remote.upload(&source, "/Inbox", "a.txt", b"content").await;
    let cases = [
        (
            "domain",
            json!({"allowedDomains": ["acme.example"]}),
            json!({"audience": "Guests", "recipients": "['eve@other.example']"}),
        ),
        ("anyone", json!({"allowedDomains": ["acme.example"]}), json!({"audience": "Anyone"})),
        (
            "audience",
            json!({"linkAudience": "Company"}),
            json!({"audience": "Guests", "recipients": "['bob@acme.example']"}),
        ),
        ("outside", json!({"external": "Disabled"}), json!({"audience": "Guests", "recipients": "['bob@acme.example']"})),
        ("listed", json!({"external": "AllowListed"}), json!({"audience": "Anyone"})),
        ("days", json!({"linkDays": 7}), json!({"audience": "Anyone", "expiresAfter": "P8D"})),
    ];
    for (name, max, share) in cases {
        world.apply_connection(json!({"sharing": {"max": max}})).await;
        world.condition("Connection", "file360", "Ready", "True").await;
        let to = json!([{"name": "publish", "file360": {"workspaceRef": {"name": "customer"}, "path": format!("'/{name}'"), "share": share}}]);
        let spec = json!({"from": {"workspaces": {"names": ["claims"], "path": "/Inbox/**"}}, "rules": [{"name": "all", "to": to}],
            "unmatched": {"ignore": {}}});
        super::routes::apply(&world, name, spec).await;
        let object = world.condition("FileRoute", name, "DeadLetters", "True").await;
        let error = object["status"]["deadLetters"][0]["error"].as_str().unwrap();
        assert!(error.starts_with("share") || error.contains("share"), "{name}: {error}");
        world.delete_and_wait("FileRoute", name).await;
    }
    let object = world.get("SecureWorkspace", "customer").await;
    assert_eq!(
        condition(&object, "Ready")["reason"],
        "SharingCeilingExceeded",
        "the rule that exceeds it stands and is reported"
    );
    assert!(world.remote.all(&format!("/v1/workspaces/{target}/links")).await.is_empty());
}
