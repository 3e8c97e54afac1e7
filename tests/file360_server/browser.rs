//! The pages that outsiders meet, in a real browser: by keyboard alone, on a narrow screen, with nothing that the browser complains about.
//!
//! Needs Chromium and its driver, which `tests/tools.sh` installs. `FILE360_SCREENSHOTS=docs/pages` keeps a picture of each page there.

#[path = "browser/webdriver.rs"]
mod webdriver;

use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::webdriver::{Browser, ENTER, TAB};
use crate::files::with_file;
use crate::support::{Api, Fixture, id, start};

/// A name that a careless page would run.
const HOSTILE: &str = "<img src=x onerror=document.title=1>{base}&amp;.txt";

/// What a page must hold, whatever it shows; returns what it does not.
const JUDGE: &str = r"
const wrong = [];
const luminance = (color) => {
  const [r, g, b] = color.map((c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = parse(getComputedStyle(e).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color.slice(0, 3);
  }
  return [255, 255, 255];
};
const shown = (element) => element.getClientRects().length > 0;
for (const element of document.querySelectorAll('body *')) {
  const hasText = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || element.matches('input,select');
  if (!shown(element) || !hasText) continue;
  const [a, b] = [luminance(parse(getComputedStyle(element).color).slice(0, 3)), luminance(behind(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) wrong.push(`contrast ${ratio.toFixed(2)} of ${element.outerHTML.slice(0, 80)}`);
}
for (const input of document.querySelectorAll('input:not([type=hidden]),select,textarea')) {
  const edge = luminance(parse(getComputedStyle(input).borderTopColor).slice(0, 3));
  const ratio = 1.05 / (edge + 0.05);
  if (input.type !== 'file' && ratio < 3) wrong.push(`edge of ${input.id}: ${ratio.toFixed(2)}`);
  if (!input.labels.length) wrong.push(`no label: ${input.outerHTML}`);
}
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) wrong.push(`scrolls sideways: ${root.scrollWidth} of ${root.clientWidth}`);
if (!root.lang) wrong.push('no language');
if (document.querySelectorAll('h1').length !== 1 || !document.querySelector('main')) wrong.push('no heading or main');
if (!document.title) wrong.push('no title');
for (const entry of performance.getEntriesByType('resource')) {
  if (new URL(entry.name).origin !== location.origin) wrong.push(`from elsewhere: ${entry.name}`);
}
for (const element of document.querySelectorAll('[src],link[href]')) {
  const at = new URL(element.src || element.href, location.href);
  if (at.origin !== location.origin) wrong.push(`names elsewhere: ${at}`);
}
return wrong;
";

/// One browser, one server.
struct Stage {
    browser: Browser,
    fixture: Fixture,
    api: Api,
}

impl Stage {
    async fn start() -> Self {
        let fixture = start().await;
        let api = fixture.operator().await;
        Self { browser: Browser::start().await, fixture, api }
    }

    /// Judges the page on a desk and in a hand, and keeps its picture.
    async fn judge(&self, page: &str) {
        for (width, height) in [(1024, 768), (360, 640)] {
            self.browser.resize(width, height).await;
            let wrong = self.browser.run(JUDGE, json!([])).await;
            assert_eq!(wrong, json!([]), "{page} at {width} px");
        }
        let complaints = self.browser.complaints().await;
        assert!(complaints.is_empty(), "{page}: {complaints:?}");
        if let Some(folder) = std::env::var_os("FILE360_SCREENSHOTS").map(PathBuf::from) {
            std::fs::create_dir_all(&folder).unwrap();
            self.browser.resize(480, 560).await;
            std::fs::write(folder.join(format!("{page}.png")), self.browser.screenshot().await).unwrap();
        }
    }

    /// A workspace, its inbox and the address of an upload request for it.
    async fn request(&self, input: Value) -> (Value, String) {
        let ws = self.api.workspace_with("one", json!({"displayName": "Acme - vendor onboarding"})).await;
        self.api.folder(&ws, "/Inbox").await;
        let made = self.api.put(&format!("/v1/workspaces/{}/upload-requests/docs", id(&ws)), input).send().await;
        (ws, made.body["url"].as_str().unwrap().to_owned())
    }

    /// A file and the address of a link to it.
    async fn link(&self, link: Value) -> (Value, String) {
        let (ws, _, file) = with_file(&self.api, "one", "hello").await;
        let rules = json!({"sharing": {"external": "Anyone", "reshare": false,
            "links": {"maxAudience": "Anyone", "passwordRequired": false, "download": true}}});
        self.api.patch(&format!("/v1/workspaces/{}", id(&ws)), rules).header("if-match", "*").send().await.expect(200);
        let made = self.api.post(&format!("/v1/items/{}/links", id(&file)), link).send().await.expect(201);
        (file, made["url"].as_str().unwrap().to_owned())
    }

    fn mailed_code(&self) -> String {
        let folder = self.fixture.folder.path().join("outbox");
        let mail = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(mail).unwrap();
        text.split("code is ").nth(1).unwrap().chars().take(6).collect()
    }
}

fn fields() -> Value {
    json!([
        {"name": "documentType", "label": "Document", "type": "Select", "options": ["iso9001", "w9"], "required": true},
        {"name": "issuedOn", "label": "Issued on", "type": "Date"},
        {"name": "note", "label": "Note", "type": "Text"},
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_file_is_fetched_with_its_password_by_keyboard_alone() {
    let stage = Stage::start().await;
    let (_, url) = stage.link(json!({"audience": "Anyone", "password": "open sesame"})).await;
    let browser = &stage.browser;
    browser.open(&url).await;
    stage.judge("share-link").await;
    // The first stop of the tab key is the password, the next the button; where one is, is seen.
    browser.press(&[TAB]).await;
    assert_eq!(browser.focus().await, "password");
    let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle", json!([])).await;
    assert_ne!(outline, "none", "where the keyboard is can be seen");
    browser.type_text("wrong").await;
    browser.press(&[ENTER]).await;
    browser.until("the refusal", "return document.querySelector('[role=alert]') !== null").await;
    stage.judge("share-link-refused").await;
    // A way back that the keyboard reaches.
    browser.press(&[TAB, ENTER]).await;
    browser.until("the form", "return document.getElementById('password') !== null").await;
    browser.press(&[TAB]).await;
    browser.type_text("open sesame").await;
    browser.press(&[TAB, ENTER]).await;
    let folder = browser.downloads.path().to_owned();
    let found = webdriver::eventually("the download", || {
        let mut files = std::fs::read_dir(&folder).unwrap().filter_map(|entry| std::fs::read(entry.ok()?.path()).ok());
        files.find(|content| content == b"hello")
    });
    assert_eq!(found.await, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_uploaded_with_their_fields_by_keyboard_and_a_hostile_name_is_text() {
    let stage = Stage::start().await;
    let (ws, url) = stage.request(json!({"path": "/Inbox", "fields": fields()})).await;
    let browser = &stage.browser;
    browser.open(&url).await;
    stage.judge("upload-request").await;
    // The tab key goes through the form in its order; a date has a stop for each of its parts.
    let mut order = Vec::new();
    for _ in 0..12 {
        browser.press(&[TAB]).await;
        let focus = browser.focus().await;
        if order.last() != Some(&focus) {
            order.push(focus);
        }
        if order.last().is_some_and(|last| last == "BUTTON") {
            break;
        }
    }
    assert_eq!(order, ["email", "f0", "f1", "f2", "file", "BUTTON"]);
    let path = browser.downloads.path().join("source").join(HOSTILE);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, b"content").unwrap();
    browser.choose("file", &path).await;
    browser.run("document.getElementById('f0').focus()", json!([])).await;
    browser.type_text("w9").await;
    browser.run("document.querySelector('button').focus()", json!([])).await;
    browser.press(&[ENTER]).await;
    browser.until("the thanks", "return document.title === 'Thank you'").await;
    assert_eq!(browser.focus().await, "H1", "whoever cannot see is told that the page is another one");
    let shown = browser.run("return document.querySelector('li bdi').textContent", json!([])).await;
    assert_eq!(shown, HOSTILE, "text, not markup");
    stage.judge("upload-request-done").await;
    let files = stage.api.all(&format!("/v1/workspaces/{}/files", id(&ws))).await;
    assert_eq!((&files[0]["name"], &files[0]["metadata"]), (&json!(HOSTILE), &json!({"documentType": "w9"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_shows_its_progress_and_arrives_whole() {
    let stage = Stage::start().await;
    let (ws, url) = stage.request(json!({"path": "/Inbox"})).await;
    let browser = &stage.browser;
    browser.open(&url).await;
    let content: Vec<u8> = (0..48_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let path = browser.downloads.path().join("large.bin");
    std::fs::write(&path, &content).unwrap();
    browser.choose("file", &path).await;
    let watch = "window.said = []; window.values = [];
        new MutationObserver(() => window.said.push(document.getElementById('state').textContent))
            .observe(document.getElementById('state'), {childList: true, characterData: true, subtree: true});
        new MutationObserver(() => window.values.push(document.querySelector('progress').value))
            .observe(document.querySelector('progress'), {attributes: true});";
    browser.run(watch, json!([])).await;
    browser.slow_down(24 << 20).await;
    browser.run("document.querySelector('button').focus()", json!([])).await;
    browser.press(&[ENTER]).await;
    browser.until("some progress", "return window.values.some((value) => value > 0 && value < 1)").await;
    stage.judge("upload-progress").await;
    browser.until("the thanks", "return document.title === 'Thank you'").await;
    let said = browser.run("return window.said", json!([])).await;
    let said: Vec<&str> = said.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(said.first() == Some(&"Uploading.") && said.iter().any(|text| text.ends_with("% uploaded.")), "{said:?}");
    assert!(said.len() <= 14, "not a word for every packet: {said:?}");
    let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let files = stage.api.all(&format!("/v1/workspaces/{}/files", id(&ws))).await;
    assert_eq!((&files[0]["sha256"], &files[0]["size"]), (&json!(digest), &json!(content.len())));
    let shown = browser.run("return document.querySelector('li').textContent", json!([])).await;
    assert!(shown.as_str().unwrap().contains(&digest), "who uploaded it can compare: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_says_why_and_keeps_what_was_entered() {
    let stage = Stage::start().await;
    let (ws, url) = stage.request(json!({"path": "/Inbox", "fields": fields()})).await;
    let browser = &stage.browser;
    browser.open(&url).await;
    let path = browser.downloads.path().join("a.txt");
    std::fs::write(&path, b"a").unwrap();
    browser.choose("file", &path).await;
    // What the browser itself would catch is taken away: the server says it.
    browser
        .run("document.querySelector('form').noValidate = true; document.getElementById('f2').value = 'kept'", json!([]))
        .await;
    browser.run("document.querySelector('button').focus()", json!([])).await;
    browser.press(&[ENTER]).await;
    browser.until("the problem", "const p = document.getElementById('problem'); return p && !p.hidden").await;
    let problem = browser.run("return document.getElementById('problem').textContent", json!([])).await;
    assert!(problem.as_str().unwrap().contains("Document"), "{problem}");
    assert_eq!(browser.focus().await, "problem", "it is read out and in view");
    let kept = browser.run("return document.getElementById('f2').value", json!([])).await;
    assert_eq!(kept, "kept");
    stage.judge("upload-refused").await;
    // The request ends while the form is open.
    stage.api.delete(&format!("/v1/workspaces/{}/upload-requests/docs", id(&ws))).header("if-match", "*").send().await;
    browser.run("document.getElementById('f0').value = 'w9'; document.querySelector('button').focus()", json!([])).await;
    browser.press(&[ENTER]).await;
    browser.until("the end", "return document.getElementById('problem').textContent.includes('ended')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_proven_with_a_mailed_code_by_keyboard_alone() {
    let stage = Stage::start().await;
    let (ws, url) = stage.request(json!({"path": "/Inbox", "requireEmail": true})).await;
    let browser = &stage.browser;
    browser.open(&url).await;
    stage.judge("email").await;
    browser.press(&[TAB]).await;
    browser.type_text("carl@vendor.example").await;
    browser.press(&[ENTER]).await;
    browser.until("the code's form", "return document.getElementById('code') !== null").await;
    stage.judge("code").await;
    stage.fixture.server.deliver_mail().await;
    browser.press(&[TAB]).await;
    browser.type_text(&stage.mailed_code()).await;
    browser.press(&[ENTER]).await;
    browser.until("the upload form", "return document.getElementById('file') !== null").await;
    stage.judge("upload-verified").await;
    let path = browser.downloads.path().join("a.txt");
    std::fs::write(&path, b"a").unwrap();
    browser.choose("file", &path).await;
    browser.run("document.querySelector('button').focus()", json!([])).await;
    browser.press(&[ENTER]).await;
    browser.until("the thanks", "return document.title === 'Thank you'").await;
    let files = stage.api.all(&format!("/v1/workspaces/{}/files", id(&ws))).await;
    assert_eq!(files[0]["createdBy"], json!({"kind": "Guest", "name": "carl@vendor.example", "emailVerified": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_over_and_one_for_others_say_so() {
    let stage = Stage::start().await;
    let (_, url) = stage.link(json!({"audience": "Company"})).await;
    stage.browser.open(&url).await;
    stage.judge("share-link-company").await;
    let never = format!("{}/s/{}", stage.fixture.server.url, "A".repeat(43));
    stage.browser.open(&never).await;
    stage.judge("ended").await;
}
