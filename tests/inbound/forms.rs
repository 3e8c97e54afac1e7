//! `multipart/form-data`: what HTML forms and many integration tools send.

use crate::support::{Push, sha256, world};

const BOUNDARY: &str = "----boundary7MA4";

fn field(name: &str, value: &str) -> String {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(name: &str, content: &str) -> String {
    let head = "Content-Type: application/pdf\r\n\r\n";
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n{head}{content}\r\n")
}

fn form(push: Push) -> Push {
    push.header("content-type", &format!("multipart/form-data; boundary={BOUNDARY}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_becomes_a_file_with_metadata() {
    let world = world().await;
    let content = "%PDF \r\n--not a boundary\r\n".repeat(10_000);
    let body =
        format!("{}{}{}--{BOUNDARY}--\r\n", field("project", "P-7"), field("kind", "Gebühr"), file("b.pdf", &content));
    let push = form(world.push(body));
    let committed = push.send().await.committed();
    assert_eq!(committed["sha256"], sha256(content.as_bytes()));
    let item = world.api.get(&format!("/v1/items/{}", committed["id"].as_str().unwrap())).send().await.expect(200);
    assert_eq!((item["name"].as_str(), item["mimeType"].as_str()), (Some("b.pdf"), Some("application/pdf")));
    assert_eq!(item["metadata"], serde_json::json!({"project": "P-7", "kind": "Gebühr"}));
    assert_eq!(world.files().await["b.pdf"], content.as_bytes());
    assert_eq!(push.send().await.committed(), committed, "a second try");
    assert_eq!(world.files().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_form_with_one_file_leaves_nothing() {
    let world = world().await;
    let end = format!("--{BOUNDARY}--\r\n");
    let long = "x".repeat(300_000);
    for (body, status, code) in [
        (format!("{}{end}", field("a", "b")), 422, "invalid"),
        (format!("{}{}{end}", file("a.pdf", "x"), field("late", "b")), 422, "invalid"),
        (format!("{}{}{end}", file("a.pdf", "x"), file("b.pdf", "y")), 422, "invalid"),
        (format!("{}{}{end}", file("a.pdf", &long), file("b.pdf", &long)), 422, "invalid"),
        (file("a.pdf", "x"), 400, "malformed"),
        (file("a.pdf", &long), 400, "malformed"),
        (format!("{}{}{end}", field("a", "b"), field("a", "c")), 422, "invalid"),
        (format!("{}{end}", field("a", &long)), 422, "invalid"),
        (long.clone(), 400, "malformed"),
        (String::new(), 400, "malformed"),
    ] {
        let shown: String = body.chars().take(300).collect();
        let reply = form(world.push(body)).send().await;
        assert_eq!((reply.status.as_u16(), reply.body["code"].as_str()), (status, Some(code)), "{shown} {}", reply.body);
    }
    world.push("x").header("content-type", "multipart/mixed; boundary=b").send().await.refused(400, "malformed");
    assert!(world.files().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_the_signature_covers_fields_and_file_name_of_a_form() {
    let world = world().await;
    let body =
        |project: &str, name: &str| format!("{}{}--{BOUNDARY}--\r\n", field("project", project), file(name, "content"));
    let original = body("P-7", "a.pdf");
    for changed in [body("P-8", "a.pdf"), body("P-7", "b.pdf"), body("P-7", "a.pdf").replace("content", "CONTENT")] {
        form(world.push(changed).claiming(original.as_bytes())).send().await.refused(422, "digest-mismatch");
    }
    assert!(world.files().await.is_empty());
    form(world.push(original)).send().await.committed();
}
