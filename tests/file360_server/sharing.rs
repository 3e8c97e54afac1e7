use serde_json::json;

use crate::support::{id, start};

#[tokio::test]
async fn links_stay_within_the_sharing_rule() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let rules = json!({"external": "AllowListed", "allowedDomains": ["acme.com"], "reshare": false,
        "links": {"maxAudience": "Guests", "maxDays": 30, "passwordRequired": true, "download": false}});
    let ws = api.workspace_with("one", json!({"displayName": "One", "sharing": rules})).await;
    let folder = api.folder(&ws, "/A").await;
    let path = format!("/v1/items/{}/links", id(&folder));
    let days = |days: i64| jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
    for body in [
        json!({"audience": "Anyone", "password": "x", "expiresAt": days(1)}),
        json!({"audience": "Guests", "expiresAt": days(1)}),
        json!({"audience": "Guests", "password": "x"}),
        json!({"audience": "Guests", "password": "x", "expiresAt": days(31)}),
        json!({"audience": "Guests", "password": "x", "expiresAt": days(1), "download": true}),
    ] {
        api.post(&path, body).send().await.refused(422, "sharing-policy-denied");
    }
    let made =
        api.post(&path, json!({"audience": "Guests", "password": "x", "expiresAt": days(1)})).send().await.expect(201);
    assert_eq!((made["download"].as_bool(), made["hasPassword"].as_bool()), (Some(false), Some(true)));
    let url = made["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/s/", fixture.server.url)) && url.len() > 60);
    let link = format!("/v1/links/{}", id(&made));
    assert!(fixture.client("reader").await.get(&link).send().await.expect(200).get("url").is_none());
    api.patch(&link, json!({"password": null})).matching(&made).send().await.refused(422, "sharing-policy-denied");
    let changed = api.patch(&link, json!({"maxDownloads": 3})).matching(&made).send().await.expect(200);
    assert_eq!((&changed["maxDownloads"], &changed["url"]), (&json!(3), &made["url"]));
    api.delete(&link).send().await.expect(204);
    assert!(api.all(&format!("/v1/workspaces/{}/links", id(&ws))).await.is_empty());
}

#[tokio::test]
async fn an_upload_request_keeps_its_address_when_it_changes() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    api.folder(&ws, "/Inbox").await;
    let path = format!("/v1/workspaces/{}/upload-requests/docs", id(&ws));
    api.put(&path, json!({"path": "/Nowhere"})).send().await.refused(422, "path-missing");
    let field = json!({"name": "documentType", "label": "Document", "type": "Select", "options": ["w9"], "required": true});
    let first = api.put(&path, json!({"path": "/Inbox", "fields": [field]})).send().await.expect(201);
    let changed = api.put(&path, json!({"path": "/Inbox", "requireEmail": true})).send().await.expect(200);
    assert_eq!(first["url"], changed["url"]);
    assert_ne!(first["etag"], changed["etag"]);
    let listed = api.all(&format!("/v1/workspaces/{}/upload-requests", id(&ws))).await;
    assert_eq!(listed, [changed]);
    api.delete(&path).send().await.expect(204);
    api.get(&path).send().await.refused(404, "not-found");
    let reborn = api.put(&path, json!({"path": "/Inbox"})).send().await.expect(201);
    assert_ne!(first["url"], reborn["url"]);
}
