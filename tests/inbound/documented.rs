//! The commands that docs/inbound.md shows, as they stand there.

use std::process::Command;

use crate::support::{KEY, world};

/// The code blocks of the page that a comment in front of them names.
fn example(name: &str) -> String {
    let page = include_str!("../../docs/inbound.md");
    let (_, rest) =
        page.split_once(&format!("<!-- example: {name} -->\n```sh\n")).unwrap_or_else(|| panic!("no example {name}"));
    rest.split_once("\n```").unwrap().0.to_owned()
}

fn run(folder: &std::path::Path, url: &str, script: &str) -> String {
    let script = script.replace("https://files.example.com", url);
    let output =
        Command::new("bash").args(["-euo", "pipefail", "-c", &script]).env("KEY", KEY).current_dir(folder).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_commands_work() {
    let world = world().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("invoice-4711.pdf"), b"%PDF-1.7 an invoice").unwrap();
    for name in ["file", "form"] {
        let (url, script, at) = (world.url.clone(), example(name), folder.path().to_owned());
        let answer = tokio::task::spawn_blocking(move || run(&at, &url, &script)).await.unwrap();
        assert!(answer.contains("\"sha256\""), "{answer}");
    }
    let files = world.files().await;
    assert_eq!(files.keys().collect::<Vec<_>>(), ["invoice-4711 (2).pdf", "invoice-4711.pdf"]);
    assert!(files.values().all(|content| content == b"%PDF-1.7 an invoice"));
}
