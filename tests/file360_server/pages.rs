use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::files::with_file;
use crate::support::{Api, Fixture, Reply, http, id, start};

const OPEN: &str = "Anyone";

async fn reply(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.unwrap().to_vec();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Reply { status, headers, bytes, body }
}

async fn request(api: &Api, input: Value) -> (Value, String) {
    let ws = api.workspace_with("one", json!({"displayName": "Acme <docs>"})).await;
    api.folder(&ws, "/Inbox").await;
    let path = format!("/v1/workspaces/{}/upload-requests/docs", id(&ws));
    let made = api.put(&path, input).send().await;
    assert_eq!(made.status, 201, "{}", made.body);
    (ws, made.body["url"].as_str().unwrap().to_owned())
}

fn form() -> Form {
    Form::new()
        .text("documentType", "w9")
        .text("email", "Carl@Vendor.example")
        .part("file", Part::bytes(b"hello".to_vec()).file_name("C:\\tmp\\x.pdf").mime_str("application/pdf").unwrap())
}

fn mails(fixture: &Fixture) -> Vec<String> {
    let folder = fixture.folder.path().join("outbox");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

#[tokio::test]
async fn an_outsider_uploads_with_a_form_and_its_fields_become_metadata() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let fields = json!([{"name": "documentType", "label": "Kind <b>", "type": "Select", "options": ["w9", "iso"], "required": true},
        {"name": "issuedOn", "label": "Issued on", "type": "Date"}]);
    let (ws, url) = request(&api, json!({"path": "/Inbox", "fields": fields})).await;
    let page = reply(http().get(&url)).await;
    let text = String::from_utf8(page.bytes.clone()).unwrap();
    assert_eq!(page.status, 200);
    assert!(text.contains("Acme &lt;docs&gt;") && text.contains("Kind &lt;b&gt;") && !text.contains("<b>"), "{text}");
    assert!(text.contains("<label for=\"f0\">") && text.contains("multipart/form-data"));
    assert_eq!(text.matches("<script>").count(), 1, "the one that shows the progress, named by its hash: {text}");
    let policy = page.header("content-security-policy").unwrap();
    assert!(!policy.contains("unsafe") && policy.contains("script-src 'sha256-"), "{policy}");
    assert!(policy.starts_with("default-src 'none'") && page.header("referrer-policy") == Some("no-referrer"));

    let files = format!("{url}/files");
    let json_form = |form: Form| http().post(&files).header("accept", "application/json").multipart(form);
    let made = reply(json_form(form())).await.expect(201);
    assert_eq!(made["files"][0]["name"], "x.pdf");
    let twice = reply(json_form(form())).await.expect(201);
    assert_eq!(twice["files"][0]["name"], "x (2).pdf");
    let html = reply(http().post(&files).multipart(form())).await;
    assert!(html.status == 201 && String::from_utf8_lossy(&html.bytes).contains("Thank you"));
    let missing = Form::new().part("file", Part::bytes(b"x".to_vec()).file_name("y"));
    reply(json_form(missing)).await.refused(422, "validation-failed");
    let other = form().text("documentType", "passport");
    reply(json_form(other)).await.refused(422, "validation-failed");
    let file = api.get(&format!("/v1/workspaces/{}/resolve?path=/Inbox/x.pdf", id(&ws))).send().await.expect(200);
    assert_eq!(file["metadata"], json!({"documentType": "w9"}));
    assert_eq!(file["createdBy"], json!({"kind": "Guest", "name": "carl@vendor.example"}));
}

#[tokio::test]
async fn a_proven_address_is_marked_as_proven_and_guessing_is_stopped() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let (ws, url) = request(&api, json!({"path": "/Inbox", "requireEmail": true})).await;
    let files = format!("{url}/files");
    let upload = |form: Form| http().post(&files).header("accept", "application/json").multipart(form);
    reply(upload(form())).await.refused(403, "email-not-verified");
    let address = [("email", "carl@vendor.example")];
    assert_eq!(reply(http().post(format!("{url}/code")).form(&address)).await.status, 200);
    fixture.server.deliver_mail().await;
    let mail = mails(&fixture).pop().unwrap();
    assert!(mail.contains("To: carl@vendor.example"), "{mail}");
    let code: String = mail.split("code is ").nth(1).unwrap().chars().take(6).collect();
    let verify = |code: &str| {
        let fields = [("email", "carl@vendor.example".to_owned()), ("code", code.to_owned())];
        http().post(format!("{url}/verify")).header("accept", "application/json").form(&fields)
    };
    let wrong = if code == "000000" { "000001" } else { "000000" };
    assert_eq!(reply(verify(wrong)).await.status, 403);
    let pass = reply(verify(&code)).await.expect(200)["pass"].as_str().unwrap().to_owned();
    assert_eq!(reply(verify(&code)).await.status, 403, "a code works once");
    reply(upload(form().text("pass", pass.clone()))).await.expect(201);
    let file = api.get(&format!("/v1/workspaces/{}/resolve?path=/Inbox/x.pdf", id(&ws))).send().await.expect(200);
    assert_eq!(file["createdBy"]["emailVerified"], true);
    let other = Form::new().text("email", "eve@vendor.example").text("pass", pass);
    reply(upload(other.part("file", Part::bytes(b"x".to_vec()).file_name("y")))).await.refused(403, "email-not-verified");
    let mut last = 0;
    for _ in 0..12 {
        last = reply(verify(wrong)).await.status.as_u16();
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn addresses_that_never_were_and_those_that_ended_look_alike() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let (ws, url) = request(&api, json!({"path": "/Inbox", "expiresAt": soon})).await;
    let never = reply(http().get(format!("{}/u/{}", fixture.server.url, "A".repeat(43)))).await;
    assert_eq!(never.status, 404);
    fixture.server.clock().set_offset_seconds(3700);
    let over = reply(http().get(&url)).await;
    assert_eq!((over.status, &over.bytes), (never.status, &never.bytes));
    assert_eq!(reply(http().post(format!("{url}/files")).multipart(form())).await.status, 404);
    fixture.server.clock().set_offset_seconds(0);
    assert_eq!(reply(http().get(&url)).await.status, 200);
    let api = fixture.operator().await;
    let archive = api.post(&format!("/v1/workspaces/{}/transitions", id(&ws)), json!({"to": "Archived"}));
    archive.header("if-match", "*").send().await.expect(200);
    assert_eq!(reply(http().get(&url)).await.status, 404);
}

async fn shared(fixture: &Fixture, link: Value) -> (Value, Value, String) {
    let api = fixture.operator().await;
    let (ws, _, file) = with_file(&api, "one", "hello").await;
    let rules = json!({"sharing": {"external": "Anyone", "reshare": false,
        "links": {"maxAudience": OPEN, "passwordRequired": false, "download": true}}});
    api.patch(&format!("/v1/workspaces/{}", id(&ws)), rules).header("if-match", "*").send().await.expect(200);
    let made = api.post(&format!("/v1/items/{}/links", id(&file)), link).send().await.expect(201);
    let url = made["url"].as_str().unwrap().to_owned();
    (ws, file, url)
}

#[tokio::test]
async fn a_link_opens_with_its_password_as_often_as_it_may() {
    let fixture = start().await;
    let (ws, file, url) =
        shared(&fixture, json!({"audience": "Anyone", "password": "open sesame", "maxDownloads": 2})).await;
    assert!(String::from_utf8(reply(http().get(&url)).await.bytes).unwrap().contains("type=\"password\""));
    let open = |password: &str| http().post(format!("{url}/download")).form(&[("password", password)]);
    assert_eq!(reply(open("wrong")).await.status, 403);
    let first = reply(open("open sesame")).await;
    assert_eq!((first.status.as_u16(), first.bytes.as_slice()), (200, b"hello".as_slice()));
    let api = fixture.operator().await;
    api.put(&format!("/v1/items/{}/quarantine", id(&file)), json!({"quarantined": true})).send().await.expect(200);
    assert_eq!(reply(open("open sesame")).await.status, 409);
    api.put(&format!("/v1/items/{}/quarantine", id(&file)), json!({"quarantined": false})).send().await.expect(200);
    assert_eq!(reply(open("open sesame")).await.status, 200);
    assert_eq!(reply(open("open sesame")).await.status, 404);
    let links = api.all(&format!("/v1/workspaces/{}/links", id(&ws))).await;
    assert_eq!(links[0]["downloads"], 2);
    let events = api.get("/v1/audit-events?type=downloadThroughLink").send().await.expect(200);
    assert!(events["items"].as_array().unwrap().iter().any(|event| event["outcome"] == "Refused"));
}

#[tokio::test]
async fn passwords_are_not_guessed() {
    let fixture = start().await;
    let (_, _, url) = shared(&fixture, json!({"audience": "Anyone", "password": "open sesame"})).await;
    for _ in 0..10 {
        let wrong = http().post(format!("{url}/download")).form(&[("password", "guess")]);
        assert_eq!(reply(wrong).await.status, 403);
    }
    let right = http().post(format!("{url}/download")).form(&[("password", "open sesame")]);
    assert_eq!(reply(right).await.status, 429);
}

#[tokio::test]
async fn a_narrower_sharing_rule_closes_links_that_are_out() {
    let fixture = start().await;
    let (ws, _, url) = shared(&fixture, json!({"audience": "Anyone"})).await;
    assert_eq!(reply(http().get(&url)).await.status, 200);
    let api = fixture.operator().await;
    api.patch(&format!("/v1/workspaces/{}", id(&ws)), json!({"sharing": null}))
        .header("if-match", "*")
        .send()
        .await
        .expect(200);
    assert_eq!(reply(http().get(&url)).await.status, 404);
    assert_eq!(reply(http().post(format!("{url}/download")).form(&[("a", "b")])).await.status, 404);
}

#[tokio::test]
async fn a_link_for_guests_asks_for_a_mailed_code() {
    let fixture = start().await;
    let (_, _, url) = shared(&fixture, json!({"audience": "Guests"})).await;
    let api = fixture.operator().await;
    api.guest("carl@vendor.example").await;
    for address in ["carl@vendor.example", "stranger@vendor.example"] {
        assert_eq!(reply(http().post(format!("{url}/code")).form(&[("email", address)])).await.status, 200);
    }
    fixture.server.deliver_mail().await;
    let mails = mails(&fixture);
    assert_eq!(mails.len(), 1, "only the guest gets one");
    let code: String = mails[0].split("code is ").nth(1).unwrap().chars().take(6).collect();
    let open = |code: &str| http().post(format!("{url}/download")).form(&[("email", "carl@vendor.example"), ("code", code)]);
    assert_eq!(reply(open("")).await.status, 403);
    assert_eq!(reply(open(&code)).await.bytes, b"hello");
}

#[tokio::test]
async fn guests_are_invited_once_and_notifications_are_sent_once_in_their_language() {
    let fixture = start().await;
    let (api, admin) = (fixture.operator().await, fixture.client("admin").await);
    let rules = json!({"external": "Anyone", "reshare": false,
        "links": {"maxAudience": "Guests", "passwordRequired": false, "download": true}});
    let ws = api.workspace_with("one", json!({"displayName": "Übernahme\tX", "sharing": rules})).await;
    let guest = api.guest("bob@acme.com").await;
    api.member(&ws, &guest, "Viewer").await.expect(201);
    api.member(&ws, &guest, "Editor").await.expect(200);
    let body = json!({"template": "reminder", "locale": "de-AT", "to": "Ann@acme.com", "params": {"subject": "Zertifikat", "url": "https://x.example"}});
    let path = "/v1/notifications";
    let ask = || api.ask(reqwest::Method::POST, path).json(&body).header("idempotency-key", "n1");
    ask().send().await.expect(202);
    assert_eq!(ask().send().await.header("idempotency-replayed"), Some("true"));
    api.post(path, json!({"template": "spam", "to": "a@b.example"})).send().await.refused(422, "validation-failed");
    let hostile =
        json!({"template": "reminder", "to": "a@b.example\r\nBcc: c@d.example", "params": {"subject": "x", "url": "y"}});
    api.post(path, hostile).send().await.refused(422, "validation-failed");
    fixture.server.deliver_mail().await;
    fixture.server.deliver_mail().await;
    let mails = mails(&fixture);
    assert_eq!(mails.len(), 2);
    assert!(mails.iter().any(|mail| mail.contains("bob@acme.com")) && mails.iter().any(|mail| mail.contains("Erinnerung")));
    let outbox = admin.all(path).await;
    assert!(outbox.iter().all(|mail| mail["sentAt"].is_string() && mail["attempts"] == 1));
}

/// As much of an SMTP server as one mail needs; returns the mail.
async fn receive_mail(listener: tokio::net::TcpListener) -> String {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let (stream, _) = listener.accept().await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 test\r\n").await.unwrap();
    let (mut mail, mut in_data) = (String::new(), false);
    while let Some(line) = lines.next_line().await.unwrap() {
        if in_data {
            if line == "." {
                write.write_all(b"250 kept\r\n").await.unwrap();
                return mail;
            }
            mail.push_str(&line);
            mail.push('\n');
            continue;
        }
        in_data = line == "DATA";
        write.write_all(if in_data { b"354 go on\r\n".as_slice() } else { b"250 ok\r\n".as_slice() }).await.unwrap();
    }
    panic!("the mail broke off");
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_through_the_relay_and_wait_while_it_is_away() {
    let port = crate::counterparts::free_port();
    let fixture = crate::support::start_with(|config| {
        config.smtp_url = Some(format!("smtp://127.0.0.1:{port}"));
        config.sweep_every = std::time::Duration::from_hours(1);
    })
    .await;
    let (api, admin) = (fixture.operator().await, fixture.client("admin").await);
    let body = json!({"template": "share-notice", "to": "ann@acme.com", "params": {"item": "Vertrag \u{e4}", "url": "https://x.example"}});
    api.post("/v1/notifications", body).send().await.expect(202);
    fixture.server.deliver_mail().await;
    let waiting = admin.all("/v1/notifications").await;
    assert!(waiting[0].get("sentAt").is_none() && waiting[0]["failure"].is_string());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let received = tokio::spawn(receive_mail(listener));
    fixture.server.clock().set_offset_seconds(60);
    fixture.server.deliver_mail().await;
    let mail = received.await.unwrap();
    assert!(mail.contains("To: ann@acme.com") && mail.contains("Message-ID: <n"), "{mail}");
    let sent = admin.all("/v1/notifications").await;
    assert!(sent[0]["sentAt"].is_string() && sent[0]["attempts"] == 2, "{}", sent[0]);
}
