use std::collections::BTreeSet;

use file360_operator::file360::model::{AccessEntry, Audience, Capability, PrincipalKind, Role, Workspace};
use serde_json::json;

use crate::driver::{Tenant, tenant};
use crate::support::{Api, id};

fn named(entries: &[AccessEntry]) -> BTreeSet<(PrincipalKindName, &str, Role)> {
    entries.iter().map(|entry| (kind(entry.kind), entry.name.as_str(), entry.role)).collect()
}

type PrincipalKindName = &'static str;

fn kind(kind: PrincipalKind) -> PrincipalKindName {
    match kind {
        PrincipalKind::User => "User",
        PrincipalKind::Group => "Group",
        PrincipalKind::Guest => "Guest",
        PrincipalKind::Client => "Client",
    }
}

async fn grant(api: &Api, workspace: &Workspace, principal: &str, path: &str, role: &str) {
    let path = format!("/v1/workspaces/{}/members/{principal}?path={path}", workspace.id);
    let reply = api.put(&path, json!({"role": role})).send().await;
    assert!(reply.status.is_success(), "{}", reply.body);
}

async fn share_with_everyone(api: &Api, workspace: &Workspace) {
    let rules = json!({"sharing": {"external": "Anyone", "reshare": false,
        "links": {"maxAudience": "Anyone", "passwordRequired": false, "download": true}}});
    api.patch(&format!("/v1/workspaces/{}", workspace.id), rules).header("if-match", "*").send().await.expect(200);
}

async fn link(api: &Api, item: &str, body: serde_json::Value) {
    api.post(&format!("/v1/items/{item}/links"), body).send().await.expect(201);
}

async fn shared() -> Option<(Tenant, Api, Workspace)> {
    let tenant = tenant(&[Capability::Members, Capability::Sharing]).await?;
    let api = tenant.fixture.operator().await;
    let ws = tenant.workspace("one").await;
    share_with_everyone(&api, &ws).await;
    Some((tenant, api, ws))
}

#[tokio::test]
async fn members_and_grants_on_the_way_add_up_and_those_elsewhere_do_not_count() {
    let Some((tenant, api, ws)) = shared().await else { return };
    let (ada, bob, legal) =
        (api.principal("User", "ada").await, api.principal("User", "bob").await, api.principal("Group", "legal").await);
    let (guest, other) = (api.guest("carl@vendor.example").await, api.guest("dora@vendor.example").await);
    let (inbox, deep) = (tenant.folder(&ws, "/Inbox").await, tenant.folder(&ws, "/Inbox/Deep").await);
    tenant.folder(&ws, "/Other").await;
    grant(&api, &ws, &ada, "/", "Viewer").await;
    grant(&api, &ws, &ada, "/Inbox", "Editor").await;
    grant(&api, &ws, &legal, "/Inbox", "Contributor").await;
    grant(&api, &ws, &bob, "/Other", "Owner").await;
    grant(&api, &ws, &guest, "/Inbox/Deep", "Viewer").await;
    grant(&api, &ws, &other, "/", "Uploader").await;
    let file = tenant.file(&deep.id, "a", "x").await;

    let access = tenant.driver.access(&file.id).await.unwrap();
    let expected = [
        ("User", "ada", Role::Editor),
        ("Group", "legal", Role::Contributor),
        ("Guest", "carl@vendor.example", Role::Viewer),
    ];
    assert_eq!(named(&access.items), expected.into());
    assert_eq!(named(&access.denied), [("Guest", "dora@vendor.example", Role::Uploader)].into());
    assert_eq!((access.links.as_slice(), access.pending), ([].as_slice(), false));
    let above = tenant.driver.access(&inbox.id).await.unwrap();
    assert_eq!(named(&above.items), [("User", "ada", Role::Editor), ("Group", "legal", Role::Contributor)].into());
    grant(&api, &ws, &other, "/Inbox", "Viewer").await;
    let access = tenant.driver.access(&file.id).await.unwrap();
    assert!(named(&access.items).contains(&("Guest", "dora@vendor.example", Role::Contributor)), "both roles together");
    assert!(access.denied.is_empty());
}

#[tokio::test]
async fn the_list_agrees_with_what_each_person_can_download() {
    let Some((tenant, api, ws)) = shared().await else { return };
    let folder = tenant.folder(&ws, "/Inbox").await;
    for (name, path, role) in [("ada", "/", "Uploader"), ("bob", "/Inbox", "Viewer")] {
        grant(&api, &ws, &api.principal("User", name).await, path, role).await;
    }
    let ada = tenant.fixture.person("ada").await;
    let hers = ada.raw(reqwest::Method::POST, &format!("/v1/items/{}/files?name=hers", folder.id), "text/plain", "x");
    let hers = hers.send().await.expect(201);
    let theirs = tenant.file(&folder.id, "theirs", "x").await;
    for item in [id(&hers), theirs.id.as_str()] {
        let access = tenant.driver.access(item).await.unwrap();
        for name in ["ada", "bob", "eve"] {
            let person = tenant.fixture.person(name).await;
            let reads = person.get(&format!("/v1/items/{item}/content")).send().await.status == 200;
            assert_eq!(access.items.iter().any(|entry| entry.name == name), reads, "{name}: {access:?}");
        }
    }
    let own = tenant.driver.access(id(&hers)).await.unwrap();
    assert!(named(&own.items).contains(&("User", "ada", Role::Uploader)) && own.denied.is_empty());
    let other = tenant.driver.access(&theirs.id).await.unwrap();
    assert_eq!(named(&other.denied), [("User", "ada", Role::Uploader)].into());
}

#[tokio::test]
async fn links_count_by_audience_while_they_open() {
    let Some((tenant, api, ws)) = shared().await else { return };
    let folder = tenant.folder(&ws, "/Out").await;
    let (file, other) = (tenant.file(&folder.id, "a", "x").await, tenant.file(&ws.root_id, "b", "x").await);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    link(&api, &folder.id, json!({"audience": "Anyone", "expiresAt": soon})).await;
    link(&api, &file.id, json!({"audience": "Company"})).await;
    link(&api, &file.id, json!({"audience": "Company", "password": "x"})).await;
    let links = |item: String| {
        let driver = tenant.driver.clone();
        async move { driver.access(&item).await.unwrap().links }
    };
    assert_eq!(links(file.id.clone()).await, [Audience::Company, Audience::Anyone]);
    assert!(links(other.id.clone()).await.is_empty());
    tenant.fixture.server.clock().set_offset_seconds(3700);
    assert_eq!(links(file.id.clone()).await, [Audience::Company]);
    tenant.fixture.server.clock().set_offset_seconds(0);
    let api = tenant.fixture.operator().await;
    api.patch(&format!("/v1/workspaces/{}", ws.id), json!({"sharing": null}))
        .header("if-match", "*")
        .send()
        .await
        .expect(200);
    assert!(links(file.id).await.is_empty(), "a closed workspace opens through no link");
}

#[tokio::test]
async fn the_sharing_rule_the_archive_the_trash_and_the_clock_take_access_away() {
    let Some((tenant, api, ws)) = shared().await else { return };
    let (ada, guest) = (api.principal("User", "ada").await, api.guest("carl@vendor.example").await);
    let file = tenant.file(&ws.root_id, "a", "x").await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    grant(&api, &ws, &guest, "/", "Viewer").await;
    let member = api.put(&format!("/v1/workspaces/{}/members/{ada}", ws.id), json!({"role": "Viewer", "expiresAt": soon}));
    member.send().await.expect(201);
    link(&api, &file.id, json!({"audience": "Anyone"})).await;
    let names = || {
        let (driver, item) = (tenant.driver.clone(), file.id.clone());
        async move {
            let access = driver.access(&item).await.unwrap();
            (access.items.into_iter().map(|entry| entry.name).collect::<BTreeSet<_>>(), access.links.len())
        }
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names().await, (set(&["ada", "carl@vendor.example"]), 1));
    let to = |state: &'static str| {
        let (api, path) = (api.clone(), format!("/v1/workspaces/{}/transitions", ws.id));
        async move { api.post(&path, json!({"to": state})).header("if-match", "*").send().await.expect(200) }
    };
    to("Archived").await;
    assert_eq!(names().await, (set(&["ada"]), 0));
    to("Active").await;
    tenant.fixture.server.clock().set_offset_seconds(3700);
    assert_eq!(names().await, (set(&["carl@vendor.example"]), 1));
    tenant.fixture.server.clock().set_offset_seconds(0);
    let narrower = json!({"sharing": {"external": "AllowListed", "allowedDomains": ["acme.com"], "reshare": false,
        "links": {"maxAudience": "Guests", "passwordRequired": false, "download": true}}});
    let api = tenant.fixture.operator().await;
    api.patch(&format!("/v1/workspaces/{}", ws.id), narrower).header("if-match", "*").send().await.expect(200);
    assert_eq!(names().await, (set(&["ada"]), 0));
    tenant.driver.delete_item(&file.id, "*", &crate::driver::cause()).await.unwrap();
    assert_eq!(names().await, (set(&[]), 0));
}

#[tokio::test]
async fn a_pending_file_says_so() {
    let Some((tenant, api, ws)) = shared().await else { return };
    api.put(&format!("/v1/items/{}/intake", ws.root_id), json!({"actions": ["Upload"]})).send().await.expect(200);
    grant(&api, &ws, &api.principal("User", "ada").await, "/", "Viewer").await;
    let file = tenant.file(&ws.root_id, "a", "x").await;
    let access = tenant.driver.access(&file.id).await.unwrap();
    assert!(access.pending && named(&access.items).contains(&("User", "ada", Role::Viewer)));
    let plain = crate::driver::connector(&tenant.fixture, "neighbour");
    assert_eq!(crate::driver::failure(plain.access(&file.id).await).0, file360_operator::error::Kind::NotFound);
}
