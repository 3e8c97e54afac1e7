use std::collections::BTreeSet;

use file360_operator::error::Kind;
use file360_operator::file360::model::{Capability, Item, ItemPatch};
use serde_json::json;

use crate::driver::{Subject, behaviours, cause, connector, failure, tenant};

fn paths(files: &[Item]) -> BTreeSet<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

behaviours! {
    every_file_below_a_path_is_listed_once_by_id_with_its_path: [Folders, Files],
}

async fn every_file_below_a_path_is_listed_once_by_id_with_its_path(tenant: Subject) {
    let ws = tenant.workspace("one").await;
    let (a, b, c) = (tenant.folder(&ws, "/A").await, tenant.folder(&ws, "/A/B").await, tenant.folder(&ws, "/C").await);
    for (folder, name) in [(&ws.root_id, "0"), (&a.id, "1"), (&b.id, "2"), (&c.id, "3"), (&b.id, "4"), (&a.id, "5")] {
        tenant.file(folder, name, "x").await;
    }
    let all = tenant.files(&ws, "/").await;
    assert_eq!(paths(&all), ["/0", "/A/1", "/A/B/2", "/C/3", "/A/B/4", "/A/5"].into());
    assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id));
    for file in &all {
        assert_eq!(tenant.driver.item(&file.id).await.unwrap().as_ref(), Some(file));
    }
    assert_eq!(paths(&tenant.files(&ws, "/A").await), ["/A/1", "/A/B/2", "/A/B/4", "/A/5"].into());
    assert_eq!(paths(&tenant.files(&ws, "/A/B").await), ["/A/B/2", "/A/B/4"].into());
    assert_eq!(failure(tenant.driver.files(&ws.id, "/Nowhere", None).await).0, Kind::NotFound);
    assert_eq!(failure(tenant.driver.files(&ws.id, "/0", None).await).0, Kind::Conflict);
}

#[tokio::test]
async fn a_listing_of_files_in_small_pages_has_all_of_them_and_names_compare_without_case() {
    let Some(tenant) = tenant(&[]).await else { return };
    let ws = tenant.workspace("one").await;
    let folder = tenant.folder(&ws, "/A").await;
    for name in ["1", "2", "3", "4"] {
        tenant.file(&folder.id, name, "x").await;
    }
    let api = tenant.fixture.operator().await;
    let small = api.all(&format!("/v1/workspaces/{}/files?path=/a&limit=1", ws.id)).await;
    assert_eq!(small.len(), 4);
}

#[tokio::test]
async fn what_is_in_the_trash_or_pending_is_not_listed_for_readers() {
    let Some(tenant) = tenant(&[Capability::Trash, Capability::Intake]).await else { return };
    let ws = tenant.workspace("one").await;
    let api = tenant.fixture.operator().await;
    let (gone, gated) = (tenant.folder(&ws, "/Gone").await, tenant.folder(&ws, "/Gated").await);
    let below = tenant.folder(&ws, "/Gone/Below").await;
    tenant.file(&below.id, "1", "x").await;
    let single = tenant.file(&ws.root_id, "2", "x").await;
    tenant.file(&ws.root_id, "3", "x").await;
    tenant.driver.delete_item(&gone.id, "*", &cause()).await.unwrap();
    tenant.driver.delete_item(&single.id, &single.etag, &cause()).await.unwrap();
    api.put(&format!("/v1/items/{}/intake", gated.id), json!({"actions": ["Upload"]})).send().await.expect(200);
    tenant.file(&gated.id, "4", "x").await;
    assert_eq!(paths(&tenant.files(&ws, "/").await), ["/3", "/Gated/4"].into(), "who decides sees what is pending");
    let plain = connector(&tenant.fixture, "neighbour");
    assert_eq!(paths(&plain.files(&ws.id, "/", None).await.unwrap().items), ["/3"].into());
}

#[tokio::test]
async fn a_file_that_moves_during_the_listing_is_still_listed_once() {
    let Some(tenant) = tenant(&[]).await else { return };
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let (a, b) = (tenant.folder(&ws, "/A").await, tenant.folder(&ws, "/B").await);
    let mut made = Vec::new();
    for n in 0..6 {
        made.push(tenant.file(&a.id, &n.to_string(), "x").await);
    }
    let api = tenant.fixture.operator().await;
    let path = format!("/v1/workspaces/{}/files?limit=3", ws.id);
    let first = api.get(&path).send().await.expect(200);
    for file in [&made[0], &made[5]] {
        let patch = ItemPatch { parent_id: Some(b.id.clone()), ..ItemPatch::default() };
        driver.patch_item(&file.id, &file.etag, &patch, &cause()).await.unwrap();
    }
    let second = api.get(&format!("{path}&cursor={}", first["nextCursor"].as_str().unwrap())).send().await.expect(200);
    let listed: Vec<_> = [first, second]
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap().clone())
        .map(|file| file["id"].clone())
        .collect();
    assert_eq!(listed, made.iter().map(|file| json!(file.id)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subtree_of_very_many_folders_is_listed_like_a_small_one() {
    let Some(tenant) = tenant(&[]).await else { return };
    let ws = tenant.workspace("one").await;
    let top = tenant.folder(&ws, "/Top").await;
    tenant.file(&ws.root_id, "elsewhere", "x").await;
    let api = tenant.fixture.operator().await;
    let workspace = json!({"id": ws.id});
    crate::support::at_once(1_100, move |n| {
        let (api, workspace) = (api.clone(), workspace.clone());
        async move { api.folder(&workspace, &format!("/Top/{n}")).await }
    })
    .await;
    let deep = tenant.folder(&ws, "/Top/7/Deep").await;
    tenant.file(&deep.id, "f1", "x").await;
    tenant.file(&top.id, "f2", "x").await;
    let trashed = tenant.driver.item_at(&ws.id, "/Top/8").await.unwrap().unwrap();
    tenant.file(&trashed.id, "f3", "x").await;
    tenant.driver.delete_item(&trashed.id, "*", &cause()).await.unwrap();
    assert_eq!(paths(&tenant.files(&ws, "/Top").await), ["/Top/7/Deep/f1", "/Top/f2"].into());
    assert_eq!(paths(&tenant.files(&ws, "/Top/7").await), ["/Top/7/Deep/f1"].into());
    assert_eq!(tenant.files(&ws, "/").await.len(), 3);
}

#[tokio::test]
async fn an_uploader_lists_only_own_files_and_holds_show() {
    let Some(tenant) = tenant(&[Capability::Members, Capability::Holds]).await else { return };
    let ws = tenant.workspace("one").await;
    let api = tenant.fixture.operator().await;
    let folder = tenant.folder(&ws, "/Inbox").await;
    let ada = api.principal("User", "ada").await;
    api.put(&format!("/v1/workspaces/{}/members/{ada}", ws.id), json!({"role": "Uploader"})).send().await.expect(201);
    tenant.file(&folder.id, "theirs", "x").await;
    let person = tenant.fixture.person("ada").await;
    let path = format!("/v1/items/{}/files?name=hers", folder.id);
    person.raw(reqwest::Method::POST, &path, "text/plain", "x").send().await.expect(201);
    let own = person.all(&format!("/v1/workspaces/{}/files", ws.id)).await;
    assert_eq!(own.iter().map(|file| file["name"].as_str().unwrap()).collect::<Vec<_>>(), ["hers"]);
    api.put("/v1/holds/h", json!({"matter": "m"})).send().await.expect(201);
    api.ask(reqwest::Method::PUT, &format!("/v1/items/{}/holds/h", folder.id)).send().await.expect(201);
    assert!(tenant.files(&ws, "/").await.iter().all(|file| file.holds == ["h"]));
    let eve = tenant.fixture.person("eve").await;
    eve.get(&format!("/v1/workspaces/{}/files", ws.id)).send().await.refused(404, "not-found");
}
