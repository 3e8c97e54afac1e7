//! R1 to R5 with many files: the operator is killed at random moments, the destination is away for a whole backlog, one file is poison.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::routes::{arrived, claims, route, to_cases};
use super::routes_destinations::{inboxes_to, objects, s3_store};
use crate::support::case_system::CaseSystem;
use crate::support::counterparts::S3Server;
use crate::support::eventually;
use crate::support::world::{World, condition};

/// Files in all, without the poison.
const FILES: usize = 500;
/// Those that come while the destination is away.
const BACKLOG: usize = 250;
const KILLS: usize = 6;

/// The content of a file: a few sizes, each its own bytes.
fn content(number: usize) -> Vec<u8> {
    format!("file {number} ").into_bytes().into_iter().cycle().take(100 + number * 37 % 20_000).collect()
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn upload(world: &World, workspace: &str, numbers: std::ops::Range<usize>) {
    let uploads = numbers.map(|number| async move {
        world.remote.upload(workspace, "/Inbox", &format!("{number}.bin"), &content(number)).await;
    });
    futures::stream::iter(uploads).buffer_unordered(8).for_each(|()| async {}).await;
}

/// Kills the operator some time after it got ready, and starts it again without its volumes.
async fn kill_soon(world: &mut World) {
    tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % 700)).await;
    world.kill_operator();
    world.start_operator(&[]).await;
}

#[tokio::test]
async fn r2_the_checkpoint_stays_behind_what_no_destination_has_acknowledged() {
    let mut world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    route(&world, "claims", to_cases(&cases, "Content")).await;
    world.remote.upload(&workspace, "/Inbox", "first.txt", b"first").await;
    arrived(&cases, 1).await;
    // Some are under way, some wait for their turn; none is recorded when the operator dies.
    cases.hold(true);
    for number in 0..12 {
        world.remote.upload(&workspace, "/Inbox", &format!("{number}.txt"), format!("file {number}").as_bytes()).await;
    }
    world.remote.upload(&workspace, "/Other", "elsewhere.txt", b"the feed goes on").await;
    eventually("deliveries under way", || async {
        let held = cases.held();
        if held >= 8 { Ok(()) } else { Err(held.to_string()) }
    })
    .await;
    // Long enough for a checkpoint that runs ahead to be written: that happens once a second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.kill_operator();
    cases.hold(false);
    world.start_operator(&[]).await;
    arrived(&cases, 13).await;
}

#[tokio::test]
async fn r1_five_hundred_files_arrive_once_whenever_the_operator_is_killed_and_the_destination_away() {
    let mut world = World::new().await;
    let server = S3Server::start();
    let workspace = claims(&world, "claims").await;
    let key = "file.name == 'poison.bin' ? file.metadata.nothing : 'in/' + file.name";
    let spec = inboxes_to(json!({"objectStore": s3_store(&world, &server).await, "key": key}));
    route(&world, "archive", spec).await;

    // The destination is away for the whole backlog; the operator does not live long either.
    server.stop();
    world.remote.upload(&workspace, "/Inbox", "poison.bin", b"poison").await;
    upload(&world, &workspace, 0..BACKLOG).await;
    world.condition("FileRoute", "archive", "Backlogged", "True").await;
    kill_soon(&mut world).await;
    kill_soon(&mut world).await;
    assert!(objects(&server).is_empty());

    // It is back; more comes, and the operator is killed again and again.
    server.start_again();
    for turn in 0..KILLS {
        let step = (FILES - BACKLOG).div_ceil(KILLS);
        let first = BACKLOG + turn * step;
        upload(&world, &workspace, first..(first + step).min(FILES)).await;
        kill_soon(&mut world).await;
    }
    let wanted: BTreeMap<String, String> =
        (0..FILES).map(|number| (format!("in/{number}.bin"), digest(&content(number)))).collect();
    eventually("every file", || async {
        let there = objects(&server).len();
        if there >= FILES { Ok(()) } else { Err(format!("{there} of {FILES}")) }
    })
    .await;
    let there: BTreeMap<String, String> = objects(&server).into_iter().map(|(name, bytes)| (name, digest(&bytes))).collect();
    assert!(there == wanted, "{} objects, each with the bytes of its file and under its own key", there.len());
    let object = world
        .until("FileRoute", "archive", "nothing waits", |object| {
            condition(object, "Backlogged").is_null() && condition(object, "Ready")["status"] == "True"
        })
        .await;
    let letters = object["status"]["deadLetters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let dead: Vec<&Value> = letters.iter().map(|letter| &letter["file"]).collect();
    assert_eq!(dead, ["/Inbox/poison.bin"], "r5: it blocks nobody, and nobody else is given up: {}", object["status"]);
    let events = super::routes_destinations::audited(&world, "getContent").await;
    println!("{} files, {} kills: {} downloads", FILES, KILLS + 2, events.len());
}
