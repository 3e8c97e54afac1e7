use serde_json::json;

use crate::support::{id, owner, start};

#[tokio::test]
async fn a_grant_follows_its_folder() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let bob = api.principal("User", "bob").await;
    let folder = api.folder(&ws, "/Contracts").await;
    let members = format!("/v1/workspaces/{}/members", id(&ws));
    let grant = api.put(&format!("{members}/{bob}?path=/Contracts"), json!({"role": "Editor"})).send().await.expect(201);
    assert_eq!(grant["path"], "/Contracts");
    api.put(&format!("{members}/{bob}?path=/Nowhere"), json!({"role": "Editor"})).send().await.refused(422, "path-missing");
    let rename = api.patch(&format!("/v1/items/{}", id(&folder)), json!({"name": "Deals"})).matching(&folder);
    rename.send().await.expect(200);
    assert_eq!(api.all(&members).await[0]["path"], "/Deals");
    let person = fixture.person("bob").await;
    person.get(&format!("/v1/items/{}", id(&folder))).send().await.expect(200);
    person.get(&format!("/v1/items/{}", ws["rootId"].as_str().unwrap())).send().await.refused(404, "not-found");
}

#[tokio::test]
async fn guests_come_in_only_where_the_sharing_rule_lets_them_and_are_invited_once() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let guest = api.guest("bob@acme.com").await;
    api.member(&ws, &guest, "Viewer").await.refused(422, "sharing-policy-denied");
    let rules = json!({"sharing": {"external": "AllowListed", "allowedDomains": ["ACME.com", "*.corp.example"], "reshare": false,
        "links": {"maxAudience": "Guests", "passwordRequired": false, "download": true}}});
    let path = format!("/v1/workspaces/{}", id(&ws));
    let patched = api.patch(&path, rules).matching(&ws).send().await.expect(200);
    assert_eq!(patched["sharing"]["allowedDomains"], json!(["*.corp.example", "acme.com"]));
    api.member(&ws, &guest, "Viewer").await.expect(201);
    let other = api.guest("bob@evilacme.com").await;
    api.member(&ws, &other, "Viewer").await.refused(422, "sharing-policy-denied");
}

#[tokio::test]
async fn the_last_manager_stays_unless_somebody_else_owns_the_workspace() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ada = api.principal("User", "ada").await;
    let orphan = api.workspace("one").await;
    api.member(&orphan, &ada, "Manager").await.expect(201);
    let path = format!("/v1/workspaces/{}/members/{ada}", id(&orphan));
    api.delete(&path).send().await.refused(409, "last-manager");
    api.put(&path, json!({"role": "Viewer"})).send().await.refused(409, "last-manager");
    let owned = api.workspace_with("two", json!({"displayName": "Two", "owner": owner("u")})).await;
    api.member(&owned, &ada, "Manager").await.expect(201);
    api.delete(&format!("/v1/workspaces/{}/members/{ada}", id(&owned))).send().await.expect(204);
}

#[tokio::test]
async fn an_end_in_the_past_is_refused() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let ada = api.principal("User", "ada").await;
    let input = json!({"role": "Viewer", "expiresAt": "2001-01-01T00:00:00Z"});
    let reply = api.put(&format!("/v1/workspaces/{}/members/{ada}", id(&ws)), input).send().await;
    reply.refused(422, "expiry-in-past");
}

#[tokio::test]
async fn people_have_the_rights_of_their_roles() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    let legal = api.principal("Group", "legal").await;
    api.member(&ws, &legal, "Viewer").await.expect(201);
    let (ada, eve) = (fixture.person("ada").await, fixture.person("eve").await);
    let path = format!("/v1/workspaces/{}", id(&ws));
    ada.get(&path).send().await.expect(200);
    eve.get(&path).send().await.refused(404, "not-found");
    ada.post(&format!("{path}/folders"), json!({"path": "/A"})).send().await.refused(403, "forbidden");
    let ada_id = api.principal("User", "ada").await;
    ada.member(&ws, &ada_id, "Owner").await.refused(403, "forbidden");
    api.member(&ws, &ada_id, "Editor").await.expect(201);
    ada.folder(&ws, "/A").await;
    assert_eq!(ada.all("/v1/workspaces").await.len(), 1);
    assert!(eve.all("/v1/workspaces").await.is_empty());
    ada.get("/v1/changes").send().await.refused(403, "forbidden");
}
