//! R6: names and metadata are the sender's; what they can do is not.

use crate::support::world;

#[tokio::test(flavor = "multi_thread")]
async fn r6_hostile_names_stay_in_the_inbox_and_never_replace_a_file() {
    let world = world().await;
    let hostile = [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a\\b\\passwd",
        "nul\0byte",
        "line\r\nbreak",
        "\u{202e}fdp.exe",
        "CON",
        "trailing. ",
        "A.txt",
        "a.txt",
        "a.txt",
        "e\u{301}.txt",
        "\u{e9}.txt",
    ];
    let long = format!("{}.pdf", "x".repeat(4096));
    for (n, name) in hostile.iter().copied().chain([long.as_str()]).enumerate() {
        let committed = world.push(format!("content {n}")).named(name).send().await.committed();
        let item = world.api.get(&format!("/v1/items/{}", committed["id"].as_str().unwrap())).send().await.expect(200);
        assert_eq!(item["parentId"], world.inbox["id"], "{name:?}");
        let stored = item["name"].as_str().unwrap();
        assert!(
            stored.len() <= 255 && !stored.chars().any(|c| c.is_control() || "/\\\u{202e}".contains(c)),
            "{name:?}: {stored:?}"
        );
    }
    let files = world.files().await;
    assert_eq!(files.len(), hostile.len() + 1, "{:?}", files.keys());
    for n in 0..files.len() {
        assert!(files.values().any(|content| *content == format!("content {n}").into_bytes()), "content {n} is there");
    }
    assert!(files.keys().any(|name| name.len() > 200 && name.ends_with("x.pdf")), "a cut name keeps its extension");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_name_is_called_by_its_id() {
    let world = world().await;
    world.push("x").id("msg_2b~9:c/d").send().await.committed();
    assert_eq!(world.files().await.keys().collect::<Vec<_>>(), ["msg_2b~9:c_d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_metadata_come_in_the_query_as_well() {
    let world = world().await;
    let push = world
        .push("x")
        .query("name=a%20b.pdf&metadata%5BinvoiceNumber%5D=4711")
        .header("X-Metadata-Sender", "Müller & Söhne");
    let committed = push.send().await.committed();
    let item = world.api.get(&format!("/v1/items/{}", committed["id"].as_str().unwrap())).send().await.expect(200);
    assert_eq!(item["name"], "a b.pdf");
    assert_eq!(item["metadata"], serde_json::json!({"invoiceNumber": "4711", "sender": "Müller & Söhne"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_cannot_be_kept_is_refused_and_leaves_nothing() {
    let world = world().await;
    let many: String = (0..65).map(|n| format!("metadata[k{n}]=v&")).collect();
    for push in [
        world.push("x").header("x-metadata-a", &"v".repeat(1025)),
        world.push("x").header("x-metadata-a", "1").header("x-metadata-a", "2"),
        world.push("x").header("x-metadata-", "1"),
        world.push("x").query(&many),
        world.push("x").query("nmae=typo.pdf"),
        world.push("x").query("metadata[a]=%1b"),
    ] {
        push.send().await.refused(422, "invalid");
    }
    assert!(world.files().await.is_empty());
    // Much metadata, within the limits, takes another way to File 360.
    let most: String = (0..64).map(|n| format!("&metadata[k{n}]={}", "ü".repeat(80))).collect();
    let push = world.push("x").query(&format!("name=m.txt{most}"));
    let first = push.send().await.committed();
    assert_eq!(push.send().await.committed(), first);
    assert_eq!(world.files().await.len(), 1);
    let mut other = push;
    other.body = b"y".to_vec();
    other.send().await.refused(409, "id-reused");
    assert_eq!(world.files().await.into_values().collect::<Vec<_>>(), [b"x"]);
}
