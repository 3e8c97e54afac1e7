//! What the server has for required documents: announced facets, the count of what happens to files, checklists, limits by option.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::files::with_file;
use crate::support::{Api, http, id, start};

async fn content_revision(api: &Api, workspace: &Value) -> u64 {
    api.read(workspace).await["contentRevision"].as_u64().unwrap()
}

async fn set(api: &Api, file: &Value, value: Value, announce: bool) {
    let put = json!({"items": [{"itemId": id(file), "version": 1, "name": "state", "value": value, "announce": announce}]});
    api.post("/v1/facets/batch", put).send().await.expect(204);
}

#[tokio::test]
async fn an_announced_facet_is_told_once_for_each_change_and_its_content_stays_the_clients() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (ws, _, file) = with_file(&api, "one", "hello").await;
    let (_, cursor) = api.changes("now").await;
    let before = content_revision(&api, &ws).await;
    set(&api, &file, json!({"secret": 1}), false).await;
    set(&api, &file, json!({"secret": 2}), true).await;
    set(&api, &file, json!({"secret": 2}), true).await;
    set(&api, &file, Value::Null, true).await;
    set(&api, &file, Value::Null, true).await;
    let (entries, _) = api.changes(&cursor).await;
    let told: Vec<_> =
        entries.iter().map(|entry| (entry["type"].clone(), entry["facet"].clone(), entry["subject"].clone())).collect();
    let one = (json!("facetChanged"), json!("state"), file["id"].clone());
    assert_eq!(told, [one.clone(), one]);
    assert!(!entries[0].to_string().contains("secret"), "{}", entries[0]);
    assert_eq!(content_revision(&api, &ws).await, before + 2);
}

#[tokio::test]
async fn the_content_revision_grows_by_one_with_each_entry_about_a_file_and_with_nothing_else() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (ws, folder, file) = with_file(&api, "one", "hello").await;
    let (_, cursor) = api.changes("now").await;
    let before = content_revision(&api, &ws).await;
    assert_eq!(before, 1, "the upload");
    let item = format!("/v1/items/{}", id(&file));
    api.patch(&item, json!({"metadata": {"a": "1"}})).header("if-match", "*").send().await.expect(200);
    api.patch(&item, json!({"locked": true})).header("if-match", "*").send().await.expect(200);
    api.patch(&item, json!({"locked": true})).header("if-match", "*").send().await.expect(200);
    api.upload(&folder, "b.txt", "more").await.expect(201);
    api.folder(&ws, "/Else").await;
    let (entries, _) = api.changes(&cursor).await;
    let files = entries.iter().filter(|entry| entry["type"].as_str().unwrap().starts_with("file")).count() as u64;
    assert_eq!(content_revision(&api, &ws).await, before + files);
    assert_eq!(files, 3, "what changed nothing has no entry: {entries:?}");
    let listed = api.all("/v1/workspaces").await;
    assert_eq!(listed[0]["contentRevision"], before + files);
}

#[tokio::test]
async fn a_checklist_is_on_the_page_and_no_part_of_the_request() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    api.folder(&ws, "/Inbox").await;
    let path = format!("/v1/workspaces/{}/upload-requests/docs", id(&ws));
    let made = api.put(&path, json!({"path": "/Inbox"})).send().await.expect(201);
    let url = made["url"].as_str().unwrap().to_owned();
    let page = || async { http().get(&url).send().await.unwrap().text().await.unwrap() };
    assert!(!page().await.contains("<section"));
    let (_, cursor) = api.changes("now").await;
    let revision = api.revision(&ws).await;
    let items = json!([
        {"name": "iso", "title": "ISO <b>9001</b>", "state": "Rejected", "message": "The \"seal\" <img src=x> is missing"},
        {"name": "nda", "title": "NDA", "state": "Approved", "validTo": "2030-06-30"},
        {"name": "w9", "title": "W-9", "state": "Missing", "accept": {"mimeTypes": ["application/pdf"], "maxSize": 1024}},
    ]);
    let checklist = format!("{path}/checklist");
    for _ in 0..2 {
        api.put(&checklist, json!({"items": items})).send().await.expect(204);
    }
    let text = page().await;
    assert!(text.contains("2 documents are still needed") && text.contains("valid to 2030-06-30"), "{text}");
    assert!(text.contains("The &quot;seal&quot; &lt;img src=x&gt; is missing") && !text.contains("<img"), "{text}");
    assert!(text.contains("application/pdf; at most 1 KiB"), "{text}");
    assert_eq!(api.get(&path).send().await.expect(200)["checklist"].as_array().unwrap().len(), 3);
    assert!(api.changes(&cursor).await.0.is_empty());
    assert_eq!(api.revision(&ws).await, revision);
    // A change of the request keeps what was told.
    api.put(&path, json!({"path": "/Inbox", "requireEmail": true})).header("if-match", "*").send().await.expect(200);
    assert!(!page().await.contains("documents"), "nothing is told before the address is proven");
    api.put(&path, json!({"path": "/Inbox"})).header("if-match", "*").send().await.expect(200);
    assert!(page().await.contains("2 documents are still needed"));
    let many: Vec<_> = (0..65).map(|n| json!({"name": format!("d{n}"), "title": "x", "state": "Missing"})).collect();
    api.put(&checklist, json!({"items": many})).send().await.refused(422, "validation-failed");
    let person = fixture.person("eve").await;
    person.put(&checklist, json!({"items": []})).send().await;
    assert!(page().await.contains("2 documents are still needed"), "only who shares tells");
}

#[tokio::test]
async fn a_form_keeps_all_of_its_files_or_none() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ws = api.workspace("one").await;
    api.folder(&ws, "/Inbox").await;
    let field = |accept: Value| json!({"path": "/Inbox", "fields": [{"name": "kind", "label": "Kind", "type": "Select", "options": ["iso", "other"], "accept": accept}]});
    let path = format!("/v1/workspaces/{}/upload-requests/docs", id(&ws));
    api.put(&path, field(json!({"unknown": {}}))).send().await.refused(422, "validation-failed");
    let made = api.put(&path, field(json!({"iso": {"mimeTypes": ["image/*"], "maxSize": 4}}))).send().await.expect(201);
    let files = format!("{}/files", made["url"].as_str().unwrap());
    let send = |kind: &'static str, parts: &'static [(&'static str, &'static str)]| {
        let mut form = Form::new().text("kind", kind);
        for (mime, content) in parts {
            form = form.part("file", Part::bytes(content.as_bytes()).file_name("f").mime_str(mime).unwrap());
        }
        let request = http().post(&files).header("accept", "application/json").multipart(form);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["code"].clone())
        }
    };
    let refused = (422, json!("not-accepted"));
    assert_eq!(send("iso", &[("image/png", "1234"), ("application/pdf", "1")]).await, refused);
    assert_eq!(send("iso", &[("image/png", "12345")]).await, refused);
    assert!(api.all(&format!("/v1/workspaces/{}/files", id(&ws))).await.is_empty());
    assert_eq!(send("iso", &[("image/png", "1234"), ("image/jpeg", "1")]).await.0, 201);
    assert_eq!(send("other", &[("application/pdf", "12345")]).await.0, 201);
}
