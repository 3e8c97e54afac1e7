use serde_json::json;

use crate::support::{id, owner, start};

#[tokio::test]
async fn hostile_names_are_refused_and_equivalent_names_clash() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let path = format!("/v1/workspaces/{}/folders", id(&ws));
    for hostile in
        ["/..", "/a/../b", "/.", "//", "/a\u{0}b", "/a\\b", "/a\nb", "/\u{202e}gpj.exe", &format!("/{}", "x".repeat(256))]
    {
        let reply = api.post(&path, json!({"path": hostile})).send().await;
        assert_eq!(reply.body["code"], "name-illegal", "{hostile:?}: {}", reply.body);
    }
    api.post(&path, json!({"path": "relative"})).send().await.refused(422, "validation-failed");
    api.post(&path, json!({"path": "/A/B"})).send().await.refused(422, "parent-missing");
    let first = api.post(&path, json!({"path": "/Cafe\u{301}"})).send().await.expect(201);
    assert_eq!(first["path"], "/Caf\u{e9}");
    let clash = api.post(&path, json!({"path": "/CAF\u{c9}"})).send().await.refused(409, "name-exists");
    assert_eq!(clash["existing"]["id"], first["id"]);
    let returned = api.post(&path, json!({"path": "/caf\u{e9}", "onConflict": "return"})).send().await.expect(200);
    assert_eq!(returned["id"], first["id"]);
}

#[tokio::test]
async fn folders_move_with_everything_below_and_never_into_themselves() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let (a, b, c) = (api.folder(&ws, "/A").await, api.folder(&ws, "/A/B").await, api.folder(&ws, "/C").await);
    let item = |folder: &serde_json::Value| format!("/v1/items/{}", id(folder));
    let into_itself = api.patch(&item(&a), json!({"parentId": id(&b)})).matching(&a).send().await;
    into_itself.refused(422, "validation-failed");
    api.patch(&item(&a), json!({"parentId": id(&c), "name": "Moved"})).header("if-match", "*").send().await.expect(200);
    let folders = api.all(&format!("/v1/workspaces/{}/folders?limit=2", id(&ws))).await;
    let paths: Vec<_> = folders.iter().map(|folder| folder["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/C", "/C/Moved", "/C/Moved/B"]);
    let found = api.get(&format!("/v1/workspaces/{}/resolve?path=/c/moved/b", id(&ws))).send().await.expect(200);
    assert_eq!(found["id"], b["id"]);
    let other = api.workspace("two").await;
    let across = api.patch(&item(&b), json!({"parentId": other["rootId"]})).header("if-match", "*").send().await;
    across.refused(422, "validation-failed");
    let not_empty = api.delete(&format!("{}?ifEmpty=true", item(&c))).header("if-match", "*").send().await;
    not_empty.refused(409, "not-empty");
    api.delete(&item(&c)).header("if-match", "*").send().await.expect(204);
    assert!(api.all(&format!("/v1/workspaces/{}/folders", id(&ws))).await.is_empty());
    assert_eq!(api.get(&item(&b)).send().await.expect(200)["state"], "Trashed");
    api.folder(&ws, "/C").await;
}

#[tokio::test]
async fn a_locked_folder_moves_only_for_the_client_that_owns_the_workspace() {
    let fixture = start().await;
    let (api, neighbour, ada) = (fixture.operator().await, fixture.client("neighbour").await, fixture.person("ada").await);
    let ws = api.workspace_with("one", json!({"displayName": "One", "owner": owner("u")})).await;
    let person = api.principal("User", "ada").await;
    api.member(&ws, &person, "Owner").await.expect(201);
    let path = format!("/v1/workspaces/{}/folders", id(&ws));
    let body = json!({"path": "/Locked", "locked": true, "managedKey": "folders/0"});
    let folder = api.post(&path, body).send().await.expect(201);
    let item = format!("/v1/items/{}", id(&folder));
    for other in [&ada, &neighbour] {
        other.patch(&item, json!({"name": "x"})).matching(&folder).send().await.refused(409, "locked");
        other.patch(&item, json!({"locked": false})).matching(&folder).send().await.refused(409, "locked");
        other.delete(&item).matching(&folder).send().await.refused(409, "locked");
    }
    ada.patch(&item, json!({"metadata": {"note": "fine"}})).matching(&folder).send().await.expect(200);
    api.patch(&item, json!({"name": "x"})).header("if-match", "*").send().await.expect(200);
    let root = format!("/v1/items/{}", ws["rootId"].as_str().unwrap());
    api.delete(&root).header("if-match", "*").send().await.refused(409, "state-conflict");
}
