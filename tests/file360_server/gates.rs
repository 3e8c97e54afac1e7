//! A1, A2: what an intake policy holds back is seen by nobody before a decision, however it gets there.

use reqwest::Method;
use serde_json::{Value, json};

use crate::files::with_file;
use crate::support::{Api, Fixture, Reply, id, start};

fn item(file: &Value) -> String {
    format!("/v1/items/{}", id(file))
}

/// A workspace with an ungated `/Inbox` that has `a.txt`, and a folder `/Gated` under an intake policy.
struct Scene {
    fixture: Fixture,
    api: Api,
    reader: Api,
    ws: Value,
    inbox: Value,
    file: Value,
    gated: Value,
}

async fn scene(actions: &[&str]) -> Scene {
    let fixture = start().await;
    let (api, reader) = (fixture.operator().await, fixture.client("neighbour").await);
    let (ws, inbox, file) = with_file(&api, "one", "first").await;
    let gated = api.folder(&ws, "/Gated").await;
    api.put(&format!("{}/intake", item(&gated)), json!({"actions": actions})).send().await.expect(200);
    Scene { fixture, api, reader, ws, inbox, file, gated }
}

impl Scene {
    async fn moves(&self, by: &Api, what: &Value, to: &Value) -> Reply {
        by.patch(&item(what), json!({"parentId": id(to)})).header("if-match", "*").send().await
    }

    async fn share_with_anyone(&self) {
        let links = json!({"maxAudience": "Anyone", "passwordRequired": false, "download": true});
        let sharing = json!({"sharing": {"external": "Anyone", "reshare": false, "links": links}});
        let path = format!("/v1/workspaces/{}", id(&self.ws));
        self.api.patch(&path, sharing).header("if-match", "*").send().await.expect(200);
    }

    async fn decide(&self, about: &Value, body: Value) -> Reply {
        self.api.post(&format!("{}/decisions", item(about)), body).send().await
    }

    /// A file that was released below the gate.
    async fn released(&self, name: &str) -> Value {
        let file = self.reader.upload(&self.gated, name, "text").await.expect(201);
        self.decide(&file, json!({"version": 1, "decision": "Release"})).await.expect(200)
    }

    async fn is_invisible(&self, file: &Value) {
        self.reader.get(&item(file)).send().await.refused(404, "not-found");
        self.reader.get(&format!("{}/content", item(file))).send().await.refused(404, "not-found");
    }

    async fn is_visible(&self, file: &Value) {
        self.reader.get(&format!("{}/content", item(file))).send().await.expect(200);
    }
}

#[tokio::test]
async fn a1_what_is_restored_from_the_trash_below_a_gate_waits_like_what_is_uploaded() {
    let it = scene(&["Upload"]).await;
    let sub = it.api.folder(&it.ws, "/Inbox/sub").await;
    let x = it.reader.upload(&sub, "x.txt", "secret").await.expect(201);
    it.reader.delete(&item(&x)).matching(&x).send().await.expect(204);
    it.moves(&it.reader, &sub, &it.gated).await.expect(200);
    let (_, cursor) = it.reader.changes("now").await;
    let back = it.reader.post(&format!("{}/restorations", item(&x)), json!({})).send().await.expect(200);
    assert_eq!(back["state"], "Pending");
    it.is_invisible(&x).await;
    let (entries, _) = it.reader.changes(&cursor).await;
    assert!(!serde_json::to_string(&entries).unwrap().contains("x.txt"), "{entries:?}");
    assert_eq!(it.api.all("/v1/pending").await[0]["itemId"], x["id"]);

    let deep = it.api.folder(&it.ws, "/Gated/sub/deep").await;
    let y = it.reader.upload(&deep, "y.txt", "y").await.expect(201);
    it.decide(&y, json!({"version": 1, "decision": "Release"})).await.expect(200);
    it.api.delete(&item(&sub)).header("if-match", "*").send().await.expect(204);
    it.api.post(&format!("{}/restorations", item(&sub)), json!({})).send().await.expect(200);
    it.is_invisible(&y).await;
}

#[tokio::test]
async fn a1_what_waits_for_a_decision_is_moved_by_nobody_but_who_decides() {
    let it = scene(&["Upload", "Modify", "Delete", "ShareLink"]).await;
    let sub = it.api.folder(&it.ws, "/Gated/sub").await;
    it.reader.upload(&sub, "new.txt", "new").await.expect(201);
    it.moves(&it.reader, &sub, &it.inbox).await.refused(409, "pending");
    it.moves(&it.api, &sub, &it.inbox).await.expect(200);

    let file = it.released("changed.txt").await;
    let content = format!("{}/content", item(&file));
    it.reader.raw(Method::PUT, &content, "text/plain", "two").header("if-match", "*").send().await.expect(200);
    it.moves(&it.reader, &file, &it.inbox).await.refused(409, "pending");
    let deleted = it.released("deleted.txt").await;
    it.reader.delete(&item(&deleted)).header("if-match", "*").send().await.expect(202);
    it.moves(&it.reader, &deleted, &it.inbox).await.refused(409, "pending");
    let linked = it.released("linked.txt").await;
    it.reader.post(&format!("{}/links", item(&linked)), json!({"audience": "Members"})).send().await.expect(201);
    it.moves(&it.reader, &linked, &it.inbox).await.refused(409, "pending");
    let free = it.released("free.txt").await;
    it.moves(&it.reader, &free, &it.inbox).await.expect(200);
    it.is_visible(&free).await;
}

#[tokio::test]
async fn a1_a_released_file_waits_again_when_its_name_metadata_or_place_changes_below_a_gate() {
    let it = scene(&["Upload"]).await;
    let sub = it.api.folder(&it.ws, "/Gated/sub").await;
    let named = it.released("named.txt").await;
    it.reader.patch(&item(&named), json!({"name": "contract.txt"})).header("if-match", "*").send().await.expect(200);
    it.is_invisible(&named).await;
    let first = it.api.all("/v1/pending").await[0]["since"].clone();
    assert_ne!(first, named["createdAt"], "asked for again, it is another time");
    it.decide(&named, json!({"version": 1, "decision": "Release"})).await.expect(200);
    it.is_visible(&named).await;

    let labelled = it.released("labelled.txt").await;
    it.reader.patch(&item(&labelled), json!({"metadata": {"kind": "x"}})).header("if-match", "*").send().await.expect(200);
    it.is_invisible(&labelled).await;
    let batched = it.released("batched.txt").await;
    let batch = json!({"set": [{"itemId": id(&batched), "metadata": {"kind": "x"}}]});
    it.reader.post("/v1/metadata/batch", batch).send().await.expect(200);
    it.is_invisible(&batched).await;
    let moved = it.released("moved.txt").await;
    it.moves(&it.reader, &moved, &sub).await.expect(200);
    it.is_invisible(&moved).await;
    it.decide(&moved, json!({"version": 1, "decision": "Release"})).await.expect(200);
    it.reader.patch(&item(&sub), json!({"name": "other"})).header("if-match", "*").send().await.expect(200);
    it.is_invisible(&moved).await;

    let own = it.released("own.txt").await;
    it.api.patch(&item(&own), json!({"metadata": {"kind": "x"}})).header("if-match", "*").send().await.expect(200);
    it.moves(&it.api, &own, &sub).await.expect(200);
    it.is_visible(&own).await;
}

#[tokio::test]
async fn a1_a_gate_for_changes_alone_holds_names_and_metadata_and_not_places() {
    let it = scene(&["Modify"]).await;
    let sub = it.api.folder(&it.ws, "/Gated/sub").await;
    it.moves(&it.reader, &it.file, &it.gated).await.expect(200);
    it.moves(&it.reader, &it.file, &sub).await.expect(200);
    it.is_visible(&it.file).await;
    let changed = it.reader.upload(&it.gated, "changed.txt", "one").await.expect(201);
    let content = format!("{}/content", item(&changed));
    it.reader.raw(Method::PUT, &content, "text/plain", "two").header("if-match", "*").send().await.expect(200);
    let rename = json!({"name": "other.txt"});
    it.reader.patch(&item(&changed), rename).header("if-match", "*").send().await.refused(409, "pending");
    it.is_visible(&changed).await;
    it.reader.patch(&item(&it.file), json!({"classification": "Open"})).header("if-match", "*").send().await.expect(200);
    it.is_invisible(&it.file).await;
}

#[tokio::test]
async fn a1_a_folder_that_who_decides_moves_below_a_gate_takes_nothing_visible_along() {
    let it = scene(&["Upload"]).await;
    let deep = it.api.folder(&it.ws, "/Inbox/deep").await;
    let x = it.reader.upload(&deep, "x.txt", "x").await.expect(201);
    let (_, cursor) = it.reader.changes("now").await;
    it.moves(&it.api, &it.inbox, &it.gated).await.expect(200);
    for file in [&x, &it.file] {
        it.is_invisible(file).await;
    }
    let (entries, _) = it.reader.changes(&cursor).await;
    let deleted: Vec<_> = entries.iter().filter(|entry| entry["type"] == "fileDeleted").collect();
    assert_eq!(deleted.len(), 2, "{entries:?}");
    assert!(deleted.iter().all(|entry| entry["path"].as_str().unwrap().starts_with("/Inbox/")), "{deleted:?}");
    assert_eq!(it.api.all("/v1/pending").await.len(), 2);
}

#[tokio::test]
async fn a1_an_item_that_was_never_released_can_be_told_in_the_trash_and_in_quarantine() {
    let it = scene(&["Upload"]).await;
    let new = it.reader.upload(&it.gated, "new.txt", "new").await.expect(201);
    it.api.put(&format!("{}/quarantine", item(&new)), json!({"quarantined": true})).send().await.expect(200);
    assert_eq!(it.api.get(&item(&new)).send().await.expect(200)["state"], "Pending");
    it.api.put(&format!("{}/quarantine", item(&new)), json!({"quarantined": false})).send().await.expect(200);
    it.api.delete(&item(&new)).header("if-match", "*").send().await.expect(204);
    assert_eq!(it.api.get(&item(&new)).send().await.expect(200)["state"], "Trashed");
    let versions = it.api.all(&format!("{}/versions", item(&new))).await;
    assert_eq!((&versions[0]["state"], &versions[0]["visible"]), (&json!("Pending"), &json!(false)));

    let (_, cursor) = it.reader.changes("now").await;
    let decided = it.decide(&new, json!({"version": 1, "decision": "Release"})).await.expect(200);
    assert_eq!(decided["state"], "Trashed");
    let (entries, _) = it.reader.changes(&cursor).await;
    assert!(entries.iter().all(|entry| entry["type"] == "governanceChanged"), "{entries:?}");
    it.reader.post(&format!("{}/restorations", item(&new)), json!({})).send().await.expect(200);
    it.is_invisible(&new).await;
}

#[tokio::test]
async fn a1_a_share_above_a_gate_or_by_a_path_to_it_waits() {
    let it = scene(&["ShareExternal", "ShareLink"]).await;
    it.share_with_anyone().await;
    let guest = it.api.guest("guest@partner.example").await;
    let person = it.api.principal("User", "bob").await;
    let member = |principal: &str, path: &str| {
        let at = format!("/v1/workspaces/{}/members/{principal}?path={path}", id(&it.ws));
        it.reader.put(&at, json!({"role": "Viewer"})).send()
    };
    member(&person, "/").await.expect(201);
    member(&guest, "/Inbox").await.expect(201);
    assert!(it.api.all("/v1/pending").await.is_empty());
    member(&guest, "/Gated").await.expect(201);
    member(&guest, "/").await.expect(201);
    let waiting = it.api.all("/v1/pending").await;
    let mut on: Vec<_> = waiting.iter().map(|one| one["itemId"].as_str().unwrap()).collect();
    on.sort_unstable();
    let mut expected = [id(&it.gated), it.ws["rootId"].as_str().unwrap()];
    expected.sort_unstable();
    assert_eq!(on, expected);
    let root = format!("/v1/items/{}", it.ws["rootId"].as_str().unwrap());
    let link = it.reader.post(&format!("{root}/links"), json!({"audience": "Anyone"})).send().await.expect(201);
    assert!(it.api.all("/v1/pending").await.iter().any(|one| one["link"] == link["id"]));
}

#[tokio::test]
async fn a1_shares_that_are_moved_below_a_gate_or_loosened_there_wait() {
    let it = scene(&["ShareExternal"]).await;
    it.share_with_anyone().await;
    let make = |on: Value, body: Value| {
        let reader = it.reader.clone();
        async move { reader.post(&format!("{}/links", item(&on)), body).send().await.expect(201) }
    };
    let page = |link: &Value| {
        it.reader.get(&format!("{}/content", link["url"].as_str().unwrap().replace(&it.reader.url, ""))).send()
    };
    let open = make(it.file.clone(), json!({"audience": "Anyone"})).await;
    let inside = make(it.file.clone(), json!({"audience": "Members"})).await;
    page(&open).await.expect(200);
    it.moves(&it.api, &it.file, &it.gated).await.expect(200);
    assert_ne!(page(&open).await.status, 200);
    let waiting = it.api.all("/v1/pending").await;
    assert_eq!((waiting.len(), &waiting[0]["link"]), (1, &open["id"]), "{inside} is for members");

    let ends = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string();
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48)).to_string();
    let strict =
        json!({"audience": "Anyone", "password": "correct horse", "expiresAt": ends, "download": false, "maxDownloads": 1});
    for looser in [
        json!({"password": null}),
        json!({"expiresAt": later}),
        json!({"expiresAt": null}),
        json!({"download": true}),
        json!({"maxDownloads": 2}),
    ] {
        let link = make(it.file.clone(), strict.clone()).await;
        it.decide(&it.file, json!({"link": id(&link), "decision": "Release"})).await.expect(200);
        let path = format!("/v1/links/{}", id(&link));
        let waits = || async { it.api.all("/v1/pending").await.iter().any(|one| one["link"] == link["id"]) };
        it.reader.patch(&path, json!({"managed": true})).header("if-match", "*").send().await.expect(200);
        assert!(!waits().await, "nothing is looser");
        it.reader.patch(&path, looser.clone()).header("if-match", "*").send().await.expect(200);
        assert!(waits().await, "{looser}");
    }
}

#[tokio::test]
async fn a1_a_policy_withholds_the_shares_that_it_finds_and_the_files_stay() {
    let it = scene(&["Upload"]).await;
    it.share_with_anyone().await;
    let root = format!("/v1/items/{}", it.ws["rootId"].as_str().unwrap());
    let file = it.released("known.txt").await;
    let share = |at: String, body: Value| {
        let reader = it.reader.clone();
        async move { reader.post(&format!("{at}/links"), body).send().await.expect(201) }
    };
    let beside = share(item(&it.inbox), json!({"audience": "Anyone"})).await;
    let below = share(item(&file), json!({"audience": "Anyone"})).await;
    let above = share(root, json!({"audience": "Guests"})).await;
    let inside = share(item(&it.gated), json!({"audience": "Members"})).await;
    let member = |principal: String, path: &'static str| {
        let at = format!("/v1/workspaces/{}/members/{principal}?path={path}", id(&it.ws));
        it.reader.put(&at, json!({"role": "Viewer"})).send()
    };
    let (near, far) = (it.api.guest("near@partner.example").await, it.api.guest("far@partner.example").await);
    member(it.api.principal("User", "bob").await, "/").await.expect(201);
    member(near.clone(), "/").await.expect(201);
    member(far.clone(), "/Inbox").await.expect(201);
    assert!(it.api.all("/v1/pending").await.is_empty());

    let close =
        || it.api.put(&format!("{}/intake", item(&it.gated)), json!({"actions": ["Upload", "ShareExternal"]})).send();
    close().await.expect(200);
    let waiting = it.api.all("/v1/pending").await;
    let mut what: Vec<&str> =
        waiting.iter().map(|one| one["link"].as_str().or_else(|| one["member"].as_str()).expect("a share")).collect();
    what.sort_unstable();
    let mut expected = [id(&below), id(&above), near.as_str()];
    expected.sort_unstable();
    assert_eq!(what, expected, "not {beside}, {inside}");
    let asked = waiting.iter().find(|one| one["link"] == below["id"]).unwrap();
    assert_eq!(asked["requestedBy"]["name"], "neighbour", "who had shared: {asked}");
    it.is_visible(&file).await;
    close().await.expect(200);
    it.decide(&file, json!({"link": id(&below), "decision": "Release"})).await.expect(200);
    close().await.expect(200);
    assert_eq!(it.api.all("/v1/pending").await.len(), 2, "the same policy again withholds nothing again");
}

#[tokio::test]
async fn a2_another_password_of_a_link_is_no_other_link_and_none_is() {
    let it = scene(&["ShareLink"]).await;
    it.share_with_anyone().await;
    let link = json!({"audience": "Members", "password": "correct horse"});
    let link = it.reader.post(&format!("{}/links", item(&it.gated)), link).send().await.expect(201);
    let seen = it.api.all("/v1/pending").await[0]["since"].clone();
    it.fixture.server.clock().set_offset_seconds(60);
    let path = format!("/v1/links/{}", id(&link));
    let change = |password: Value| it.reader.patch(&path, json!({"password": password})).header("if-match", "*").send();
    change(json!("battery staple")).await.expect(200);
    assert_eq!(it.api.all("/v1/pending").await[0]["since"], seen, "what was asked is what it still is");
    it.decide(&it.gated, json!({"link": id(&link), "decision": "Release", "since": seen})).await.expect(200);
    change(json!("tr0ub4dor")).await.expect(200);
    assert!(it.api.all("/v1/pending").await.is_empty());
    change(Value::Null).await.expect(200);
    assert_ne!(it.api.all("/v1/pending").await[0]["since"], seen);
}

#[tokio::test]
async fn a2_a_decision_about_a_share_is_for_the_state_that_was_decided() {
    let it = scene(&["ShareLink", "ShareExternal"]).await;
    it.share_with_anyone().await;
    let link =
        it.reader.post(&format!("{}/links", item(&it.gated)), json!({"audience": "Members"})).send().await.expect(201);
    let seen = it.api.all("/v1/pending").await[0]["since"].clone();
    it.fixture.server.clock().set_offset_seconds(60);
    let path = format!("/v1/links/{}", id(&link));
    it.reader.patch(&path, json!({"audience": "Company"})).header("if-match", "*").send().await.expect(200);
    let decision = |since: &Value| json!({"link": id(&link), "decision": "Release", "since": since});
    it.decide(&it.gated, decision(&seen)).await.refused(409, "superseded");
    let now = it.api.all("/v1/pending").await[0]["since"].clone();
    assert_ne!(now, seen);
    it.decide(&it.gated, decision(&now)).await.expect(200);
    assert!(it.api.all("/v1/pending").await.is_empty());
}
