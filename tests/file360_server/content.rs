use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use file360_operator::error::{Error, Kind};
use file360_operator::file360::model::{
    Audience, Capability, Change, ChangeKind, FacetPut, ItemPatch, ItemState, MetadataPatch, NewLink, NewNotification,
    OnConflict, PrincipalKind, VersionState,
};
use file360_operator::file360::{File360, NewFile};
use futures::StreamExt;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::driver::{
    Subject, Tenant, behaviours, cause, connector, failure, file, key, pages, read, sha256, stream, tenant,
};
use crate::support::{Api, http};

behaviours! {
    what_is_uploaded_comes_back_byte_for_byte_with_its_digest_and_type: [Files, Digests, Metadata],
    r3_content_of_another_digest_or_length_leaves_nothing: [Files],
    a_source_that_fails_leaves_nothing_and_says_nothing_about_file_360: [Files],
    an_upload_repeated_under_its_key_makes_one_file: [Files],
    a_taken_name_is_a_conflict_a_version_the_file_or_another_name_as_asked: [Files, Versions],
    a_refusal_reaches_whoever_still_sends_and_the_rest_is_not_sent: [Files, Conditions],
    memory_does_not_grow_with_the_size_of_a_file: [Files],
    a_version_is_added_only_to_what_the_writer_has_seen: [Files, Versions, Conditions],
    items_are_found_changed_and_deleted: [Metadata, ItemIds, Trash],
}

fn blocks(count: usize, size: usize) -> Vec<u8> {
    (0..count * size).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

async fn entries(driver: &Arc<dyn File360>, from: &str) -> Vec<Change> {
    driver.changes(from, std::time::Duration::ZERO).await.unwrap().items
}

async fn now(driver: &Arc<dyn File360>) -> String {
    driver.changes("now", std::time::Duration::ZERO).await.unwrap().next_cursor
}

/// Sets what arrives below a folder to wait for a decision.
async fn gate(api: &Api, folder: &str) {
    api.put(&format!("/v1/items/{folder}/intake"), json!({"actions": ["Upload", "Modify"]})).send().await.expect(200);
}

async fn quarantine(api: &Api, item: &str, quarantined: bool) {
    api.put(&format!("/v1/items/{item}/quarantine"), json!({"quarantined": quarantined})).send().await.expect(200);
}

async fn what_is_uploaded_comes_back_byte_for_byte_with_its_digest_and_type(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    // Around 32 KiB the server keeps content in another way.
    let sizes = [0, 1, (32 << 10) - 1, 32 << 10, (32 << 10) + 1, 100_000, 3 << 20];
    for (n, content) in sizes.into_iter().map(|size| blocks(1, size)).enumerate() {
        for known in [true, false] {
            let new = NewFile {
                mime_type: "application/x-odd; v=1".to_owned(),
                size: known.then_some(content.len() as u64),
                sha256: known.then(|| sha256(&content)),
                metadata: [("kind".to_owned(), "ä & = ?".to_owned())].into(),
                ..file(&format!("f{n} {known} ü.bin"))
            };
            let item = driver.upload(&ws.root_id, &new, stream(content.clone()), &key(), &cause()).await.unwrap();
            assert_eq!((item.size, item.sha256.as_deref()), (Some(content.len() as u64), Some(sha256(&content).as_str())));
            assert_eq!((&item.metadata, item.name.as_str()), (&new.metadata, new.name.as_str()));
            let download = driver.download(&item.id, 1).await.unwrap();
            assert_eq!((download.size, &download.sha256), (content.len() as u64, &sha256(&content)));
            assert_eq!(download.mime_type, "application/x-odd; v=1");
            assert!(read(download).await.unwrap() == content, "file {n}, announced: {known}");
        }
    }
}

async fn r3_content_of_another_digest_or_length_leaves_nothing(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let content = blocks(1, 50_000);
    let upload = |new: NewFile| {
        let content = content.clone();
        let root = ws.root_id.clone();
        async move { driver.upload(&root, &new, stream(content), &key(), &cause()).await }
    };
    let wrong = NewFile { sha256: Some("0".repeat(64)), ..file("digest") };
    assert_eq!(failure(upload(wrong).await), (Kind::Rejected, "digest-mismatch".to_owned()));
    let nonsense = NewFile { sha256: Some("no digest".to_owned()), ..file("nonsense") };
    assert_eq!(failure(upload(nonsense).await).0, Kind::Rejected);
    for size in [49_999, 50_001] {
        let wrong = NewFile { size: Some(size), ..file("size") };
        assert_eq!(failure(upload(wrong).await), (Kind::Conflict, "size-mismatch".to_owned()));
    }
    assert!(tenant.files(&ws, "/").await.is_empty());
    upload(file("as it is")).await.unwrap();
}

async fn a_source_that_fails_leaves_nothing_and_says_nothing_about_file_360(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    for n in 0..8 {
        let broken = stream(blocks(1, 20_000))
            .chain(futures::stream::iter([Err(Error::new(Kind::Unavailable, "the bucket went away"))]))
            .boxed();
        let new = NewFile { size: Some(40_000), ..file(&format!("f{n}")) };
        let error = driver.upload(&ws.root_id, &new, broken, &key(), &cause()).await.unwrap_err();
        assert_eq!(error.to_string(), "upload a file: the bucket went away");
    }
    // Eight such failures in a row of File 360 itself would have opened the breaker.
    assert!(tenant.files(&ws, "/").await.is_empty());
}

async fn an_upload_repeated_under_its_key_makes_one_file(tenant: Subject) {
    let (driver, ws, key) = (&tenant.driver, tenant.workspace("one").await, key());
    let new = NewFile { on_conflict: OnConflict::Rename, ..file("a.txt") };
    let first = driver.upload(&ws.root_id, &new, stream("hello"), &key, &cause()).await.unwrap();
    let second = driver.upload(&ws.root_id, &new, stream("hello"), &key, &cause()).await.unwrap();
    assert_eq!(first, second);
    let other = driver.upload(&ws.root_id, &new, stream("other"), &key, &cause()).await;
    assert_eq!(failure(other), (Kind::Rejected, "idempotency-mismatch".to_owned()));
    assert_eq!(tenant.files(&ws, "/").await.len(), 1);
}

async fn a_taken_name_is_a_conflict_a_version_the_file_or_another_name_as_asked(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let first = tenant.file(&ws.root_id, "a.txt", "first").await;
    let upload = |on_conflict, content: &'static str| {
        let (new, root) = (NewFile { on_conflict, ..file("A.TXT") }, ws.root_id.clone());
        async move { driver.upload(&root, &new, stream(content), &key(), &cause()).await }
    };
    assert_eq!(failure(upload(OnConflict::Fail, "x").await), (Kind::Conflict, "name-exists".to_owned()));
    let kept = upload(OnConflict::Return, "x").await.unwrap();
    assert_eq!((&kept.id, kept.version), (&first.id, Some(1)));
    let newer = upload(OnConflict::NewVersion, "second").await.unwrap();
    assert_eq!((&newer.id, newer.version), (&first.id, Some(2)));
    assert_eq!(upload(OnConflict::Rename, "x").await.unwrap().name, "A (2).TXT");
    let versions = driver.versions(&first.id).await.unwrap();
    let numbers: Vec<_> = versions.iter().map(|version| (version.version, version.visible, version.state)).collect();
    assert_eq!(numbers, [(2, true, VersionState::Released), (1, false, VersionState::Released)]);
    assert_eq!(read(driver.download(&first.id, 1).await.unwrap()).await.unwrap(), b"first");
}

#[tokio::test]
async fn metadata_too_long_for_an_address_arrives_with_the_file_all_the_same() {
    let Some(tenant) = tenant(&[Capability::Metadata]).await else { return };
    let (driver, ws, key) = (&tenant.driver, tenant.workspace("one").await, key());
    let metadata = (0..64).map(|n| (format!("field {n}"), "ü".repeat(1000))).collect();
    let content = blocks(1, 300_000);
    let new = NewFile { metadata, sha256: Some(sha256(&content)), ..file("a.txt") };
    // The answer is lost once at each step; the same call again finishes what was begun.
    for path in ["/v1/uploads", "/v1/uploads", "/v1/uploads"] {
        let api = tenant.fixture.operator().await;
        api.faults(json!({"failNext": [{"pathPrefix": path, "afterCommit": true}]})).await;
        let lost = driver.upload(&ws.root_id, &new, stream(content.clone()), &key, &cause()).await;
        assert_eq!(failure(lost).0, Kind::Unavailable);
    }
    let made = driver.upload(&ws.root_id, &new, stream(content.clone()), &key, &cause()).await.unwrap();
    assert_eq!((&made.metadata, &made.sha256), (&new.metadata, &new.sha256));
    let again = driver.upload(&ws.root_id, &new, stream(content), &key, &cause()).await.unwrap();
    assert_eq!(again, made);
    assert_eq!(tenant.files(&ws, "/").await, [made]);
}

async fn a_refusal_reaches_whoever_still_sends_and_the_rest_is_not_sent(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    tenant.file(&ws.root_id, "taken", "x").await;
    tenant.file(&ws.root_id, "locked", "x").await;
    let asked = Arc::new(AtomicU64::new(0));
    let block = Bytes::from(vec![1; 1 << 20]);
    let counter = Arc::clone(&asked);
    let endless = futures::stream::repeat_with(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(block.clone())
    });
    let stale = driver.item_at(&ws.id, "/locked").await.unwrap().unwrap();
    let error =
        driver.put_content(&stale.id, "\"other\"", "text/plain", None, None, endless.boxed(), &cause()).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (Kind::Stale, "etag-mismatch"));
    assert!(asked.load(Ordering::Relaxed) < 200, "{asked:?} MiB were asked for");
    let after = asked.load(Ordering::Relaxed);
    // The stream is gone with the call: nothing reads on behind its back.
    driver.service().await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_ended_is_renewed_and_little_content_is_sent_again() {
    let Some(tenant) = tenant(&[]).await else { return };
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let file_1 = tenant.file(&ws.root_id, "one", "first").await;
    tenant.fixture.server.clock().set_offset_seconds(16 * 60);
    let small = NewFile { size: Some(6), ..file("two") };
    driver.upload(&ws.root_id, &small, stream("second"), &key(), &cause()).await.unwrap();
    tenant.fixture.server.clock().set_offset_seconds(32 * 60);
    assert_eq!(read(driver.download(&file_1.id, 1).await.unwrap()).await.unwrap(), b"first");
    tenant.fixture.server.clock().set_offset_seconds(48 * 60);
    let (content, key) = (blocks(32, 1 << 20), key());
    let first = driver.upload(&ws.root_id, &file("big"), stream(content.clone()), &key, &cause()).await;
    if let Err(error) = first {
        // More was sent than is kept: the caller, who has the source, sends it again.
        assert_eq!((error.kind, error.code.as_str()), (Kind::Unavailable, ""), "{error}");
        driver.upload(&ws.root_id, &file("big"), stream(content), &key, &cause()).await.unwrap();
    }
    assert_eq!(tenant.files(&ws, "/").await.len(), 3);
}

#[tokio::test]
async fn r3_a_download_that_breaks_off_ends_with_an_error() {
    let Some(tenant) = tenant(&[]).await else { return };
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let item = driver.upload(&ws.root_id, &file("a"), stream(blocks(4, 1 << 20)), &key(), &cause()).await.unwrap();
    let path = format!("/v1/items/{}/content", item.id);
    let api = tenant.fixture.operator().await;
    api.faults(json!({"failNext": [{"pathPrefix": path, "truncateBody": true}]})).await;
    let download = driver.download(&item.id, 1).await.unwrap();
    assert_eq!(download.size, 4 << 20);
    assert_eq!(failure(read(download).await).0, Kind::Unavailable);
    assert_eq!(failure(driver.download(&item.id, 2).await).0, Kind::NotFound);
    assert_eq!(failure(driver.download("nobody", 1).await).0, Kind::NotFound);
}

async fn memory_does_not_grow_with_the_size_of_a_file(tenant: Subject) {
    const SIZE: u64 = 384 << 20;
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let block = Bytes::from(vec![5; 1 << 20]);
    let before = resident();
    let content = futures::stream::iter((0..SIZE >> 20).map(move |_| Ok(block.clone()))).boxed();
    let new = NewFile { size: Some(SIZE), ..file("big") };
    let item = driver.upload(&ws.root_id, &new, content, &key(), &cause()).await.unwrap();
    let download = driver.download(&item.id, 1).await.unwrap();
    // From one place to another, as a route does it.
    let stated = Some(download.sha256.clone()).filter(|digest| !digest.is_empty());
    let copy = NewFile { size: Some(SIZE), sha256: stated, ..file("copy") };
    let peak = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&peak);
    let watched = download.content.inspect(move |_| {
        seen.fetch_max(resident(), Ordering::Relaxed);
    });
    driver.upload(&ws.root_id, &copy, watched.boxed(), &key(), &cause()).await.unwrap();
    let grown = peak.load(Ordering::Relaxed).saturating_sub(before);
    assert!(grown < SIZE / 2, "{} MiB more than before", grown >> 20);
}

async fn a_version_is_added_only_to_what_the_writer_has_seen(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let first = tenant.file(&ws.root_id, "a.txt", "first").await;
    let put = |etag: String, content: &'static str| {
        let id = first.id.clone();
        async move {
            let digest = sha256(content.as_bytes());
            let size = Some(content.len() as u64);
            driver.put_content(&id, &etag, "text/html", size, Some(&digest), stream(content), &cause()).await
        }
    };
    let second = put(first.etag.clone(), "second").await.unwrap();
    assert_eq!((second.version, second.mime_type.as_deref()), (Some(2), Some("text/html")));
    assert_eq!(failure(put(first.etag.clone(), "lost").await), (Kind::Stale, "etag-mismatch".to_owned()));
    let third = put(format!("\"sha256-{}\"", sha256(b"second")), "third").await.unwrap();
    assert_eq!(third.version, Some(3));
    assert_eq!(failure(put(format!("\"sha256-{}\"", sha256(b"second")), "lost").await).0, Kind::Stale);
}

async fn items_are_found_changed_and_deleted(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let (inbox, done) = (tenant.folder(&ws, "/Inbox").await, tenant.folder(&ws, "/Done").await);
    let made = tenant.file(&inbox.id, "a b.txt", "x").await;
    assert_eq!(driver.item_at(&ws.id, "/inbox/A B.txt").await.unwrap().as_ref(), Some(&made));
    assert_eq!(driver.item_at(&ws.id, "/Inbox/other").await.unwrap(), None);
    assert_eq!(driver.item("nobody").await.unwrap(), None);
    let patch = ItemPatch { parent_id: Some(done.id.clone()), name: Some("c.txt".into()), ..ItemPatch::default() };
    let moved = driver.patch_item(&made.id, &made.etag, &patch, &cause()).await.unwrap();
    assert_eq!((moved.path.as_str(), &moved.id), ("/Done/c.txt", &made.id));
    assert_eq!(failure(driver.patch_item(&made.id, &made.etag, &patch, &cause()).await).0, Kind::Stale);
    let root = ws.root_id.as_str();
    let children = pages(|cursor| async move { driver.children(root, cursor.as_deref()).await }).await;
    assert_eq!(children.iter().map(|child| child.name.as_str()).collect::<Vec<_>>(), ["Done", "Inbox"]);

    let set = |item: &str, etag: Option<&str>, value: &str| MetadataPatch {
        item_id: item.to_owned(),
        etag: etag.map(str::to_owned),
        metadata: [("k".to_owned(), Some(value.to_owned()))].into(),
    };
    let patches = [set(&moved.id, None, "1"), set(&moved.id, Some(&moved.etag), "2"), set("nobody", None, "3")];
    let results = driver.set_metadata(&patches, &key(), &cause()).await.unwrap().results;
    let codes: Vec<_> = results.iter().map(|one| one.problem.as_ref().map(|problem| problem.code.as_str())).collect();
    assert_eq!(codes, [None, Some("etag-mismatch"), Some("not-found")]);
    let labelled = results[0].item.clone().unwrap();
    assert_eq!(labelled.metadata["k"], "1");
    assert_eq!(failure(driver.delete_item(&made.id, &moved.etag, &cause()).await).0, Kind::Stale);
    driver.delete_item(&made.id, &labelled.etag, &cause()).await.unwrap();
    assert_eq!(driver.item(&made.id).await.unwrap().unwrap().state, ItemState::Trashed);
    driver.delete_item(&made.id, "*", &cause()).await.unwrap();
    driver.delete_item("nobody", "*", &cause()).await.unwrap();
}

#[tokio::test]
async fn facets_are_set_all_or_nothing_and_listed_by_name() {
    let Some(tenant) = tenant(&[Capability::Facets]).await else { return };
    let (driver, ws, other) = (&tenant.driver, tenant.workspace("one").await, tenant.workspace("two").await);
    let mut puts = Vec::new();
    for n in 0..3 {
        let item = tenant.file(&ws.root_id, &format!("f{n}"), "x").await;
        puts.push(FacetPut {
            item_id: item.id,
            version: 1,
            name: "route".into(),
            value: Some(json!({"n": n})),
            announce: false,
        });
    }
    let elsewhere = tenant.file(&other.root_id, "f", "x").await;
    puts.push(FacetPut {
        item_id: elsewhere.id.clone(),
        version: 1,
        name: "route".into(),
        value: Some(json!(9)),
        announce: false,
    });
    let broken: Vec<_> = puts.iter().cloned().chain([FacetPut { version: 2, ..puts[0].clone() }]).collect();
    assert_eq!(failure(driver.put_facets(&broken, &key()).await).0, Kind::NotFound);
    assert_eq!(driver.facet(&puts[0].item_id, 1, "route").await.unwrap(), None);
    let (once, count) = (key(), puts.len());
    driver.put_facets(&puts, &once).await.unwrap();
    driver.put_facets(&puts, &once).await.unwrap();
    let all = pages(|cursor| async move { driver.facets("route", None, cursor.as_deref()).await }).await;
    assert_eq!(all.len(), count);
    let here = driver.facets("route", Some(&other.id), None).await.unwrap().items;
    assert_eq!((here[0].item_id.as_str(), &here[0].value), (elsewhere.id.as_str(), &json!(9)));
    assert_eq!(driver.facet(&puts[1].item_id, 1, "route").await.unwrap().unwrap().value, json!({"n": 1}));
    // Only one of those who make the same facet does.
    let new =
        |by: usize| FacetPut { version: 1, name: "decision".into(), value: Some(json!({"by": by})), ..puts[0].clone() };
    let made = futures::future::join_all((0..8).map(|by| async move { (by, driver.create_facet(&new(by)).await) })).await;
    let winner = made.iter().find(|(_, made)| made.is_ok()).map(|(by, _)| *by).unwrap();
    let losers = made.into_iter().filter(|(by, _)| *by != winner);
    assert!(losers.map(|(_, made)| failure(made).0).all(|kind| kind == Kind::Stale));
    assert_eq!(driver.facet(&puts[0].item_id, 1, "decision").await.unwrap().unwrap().value, json!({"by": winner}));
    let removal = FacetPut { value: None, ..puts[1].clone() };
    driver.put_facets(&[removal], &key()).await.unwrap();
    assert_eq!(driver.facet(&puts[1].item_id, 1, "route").await.unwrap(), None);
    let stranger = connector(&tenant.fixture, "neighbour");
    assert_eq!(stranger.facet(&puts[0].item_id, 1, "route").await.unwrap(), None);
}

#[tokio::test]
async fn c9_nothing_that_an_earlier_leader_writes_takes_effect() {
    let Some(tenant) = tenant(&[Capability::Fencing, Capability::Facets, Capability::ClientState]).await else { return };
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let item = tenant.file(&ws.root_id, "a", "x").await;
    let tag = driver.put_client_state("k", &json!(1), None).await.unwrap();
    driver.take_fence("c1", "operator", "pod-a").await.unwrap();
    let later = connector(&tenant.fixture, "operator");
    later.take_fence("c1", "operator", "pod-b").await.unwrap();

    let facet =
        FacetPut { item_id: item.id.clone(), version: 1, name: "route".into(), value: Some(json!(1)), announce: false };
    let put = file360_operator::file360::model::ClientStatePut { key: "k".into(), value: None };
    let link = NewLink {
        recipients: Vec::new(),
        audience: Audience::Members,
        expires_at: None,
        password: None,
        max_downloads: None,
        download: None,
        managed: true,
    };
    let mail = NewNotification {
        template: "reminder".into(),
        locale: None,
        to: "a@acme.com".into(),
        params: [("subject".into(), "x".into()), ("url".into(), "x".into())].into(),
    };
    let metadata = MetadataPatch { item_id: item.id.clone(), etag: None, metadata: [("a".into(), None)].into() };
    let refused = [
        failure(driver.upload(&ws.root_id, &file("b"), stream("x"), &key(), &cause()).await),
        failure(driver.put_content(&item.id, "*", "text/plain", None, None, stream("y"), &cause()).await),
        failure(driver.patch_item(&item.id, "*", &ItemPatch { locked: Some(true), ..ItemPatch::default() }, &cause()).await),
        failure(driver.set_metadata(&[metadata], &key(), &cause()).await),
        failure(driver.delete_item(&item.id, "*", &cause()).await),
        failure(driver.put_facets(&[facet], &key()).await),
        failure(driver.put_client_state("k", &json!(2), Some(&tag)).await),
        failure(driver.delete_client_state("k", &tag).await),
        failure(driver.put_client_states(&[put], &key()).await),
        failure(driver.create_link(&item.id, &link, &key(), &cause()).await),
        failure(driver.notify(&mail, &key()).await),
    ];
    for (at, refusal) in refused.into_iter().enumerate() {
        assert_eq!(refusal, (Kind::Stale, "fenced".to_owned()), "call {at}");
    }
    assert_eq!(later.item(&item.id).await.unwrap().unwrap(), item);
    assert_eq!(later.client_state("k").await.unwrap().unwrap().value, json!(1));
    later.upload(&ws.root_id, &file("b"), stream("x"), &key(), &cause()).await.unwrap();
}

#[tokio::test]
async fn a1_what_waits_for_a_decision_is_not_downloaded_and_its_release_is_told() {
    let Some(tenant) = tenant(&[Capability::Intake]).await else { return };
    let (decider, ws) = (&tenant.driver, tenant.workspace("one").await);
    let plain = connector(&tenant.fixture, "neighbour");
    let api = tenant.fixture.operator().await;
    let inbox = tenant.folder(&ws, "/Inbox").await;
    let old = tenant.file(&inbox.id, "old.txt", "first").await;
    gate(&api, &inbox.id).await;
    let cursor = now(&plain).await;

    let new = tenant.file(&inbox.id, "salary.txt", "secret").await;
    assert_eq!(new.state, ItemState::Pending);
    let newer = decider.put_content(&old.id, &old.etag, "text/plain", None, None, stream("second"), &cause()).await.unwrap();
    assert_eq!(newer.version, Some(1));
    assert_eq!(failure(plain.download(&new.id, 1).await).0, Kind::NotFound);
    assert_eq!(failure(plain.download(&old.id, 2).await).0, Kind::NotFound);
    assert_eq!(plain.item(&new.id).await.unwrap(), None);
    assert_eq!(plain.files(&ws.id, "/", None).await.unwrap().items.len(), 1);
    assert_eq!(plain.versions(&old.id).await.unwrap().len(), 1);
    assert_eq!(read(decider.download(&new.id, 1).await.unwrap()).await.unwrap(), b"secret");
    // A route that labels a file before its release does not tell its name.
    let label = MetadataPatch { item_id: new.id.clone(), etag: None, metadata: [("a".into(), Some("b".into()))].into() };
    decider.set_metadata(&[label], &key(), &cause()).await.unwrap();
    quarantine(&api, &new.id, true).await;
    quarantine(&api, &new.id, false).await;
    let told = entries(&plain, &cursor).await;
    assert!(told.iter().all(|entry| entry.kind == ChangeKind::GovernanceChanged), "{told:?}");
    assert!(!format!("{told:?}").contains("salary"), "{told:?}");

    let cursor = now(&plain).await;
    for (item, version) in [(&new, 1), (&old, 2)] {
        let decision = json!({"version": version, "decision": "Release"});
        api.post(&format!("/v1/items/{}/decisions", item.id), decision).send().await.expect(200);
    }
    let told: Vec<_> =
        entries(&plain, &cursor).await.into_iter().map(|entry| (entry.kind, entry.subject, entry.version)).collect();
    let expected = [
        (ChangeKind::FileUploaded, Some(new.id.clone()), Some(1)),
        (ChangeKind::VersionAdded, Some(old.id.clone()), Some(2)),
    ];
    assert_eq!(told, expected);
    assert_eq!(read(plain.download(&new.id, 1).await.unwrap()).await.unwrap(), b"secret");
    assert_eq!(read(plain.download(&old.id, 2).await.unwrap()).await.unwrap(), b"second");
}

#[tokio::test]
async fn g11_quarantined_content_is_not_downloaded_and_its_release_is_told() {
    let Some(tenant) = tenant(&[Capability::Intake]).await else { return };
    let (decider, ws) = (&tenant.driver, tenant.workspace("one").await);
    let plain = connector(&tenant.fixture, "neighbour");
    let api = tenant.fixture.operator().await;
    let item = tenant.file(&ws.root_id, "a.txt", "first").await;
    quarantine(&api, &item.id, true).await;
    assert_eq!(failure(plain.download(&item.id, 1).await), (Kind::Conflict, "quarantined".to_owned()));
    assert_eq!(plain.item(&item.id).await.unwrap().unwrap().state, ItemState::Quarantined);
    assert_eq!(read(decider.download(&item.id, 1).await.unwrap()).await.unwrap(), b"first");
    let cursor = now(&plain).await;
    quarantine(&api, &item.id, false).await;
    let told: Vec<_> = entries(&plain, &cursor).await.into_iter().map(|entry| (entry.kind, entry.path)).collect();
    let path = Some("/a.txt".to_owned());
    assert_eq!(told, [(ChangeKind::GovernanceChanged, path.clone()), (ChangeKind::FileUploaded, path)]);
    plain.download(&item.id, 1).await.unwrap();
}

#[tokio::test]
async fn an_item_says_through_which_request_it_came_and_whether_its_sender_is_proven() {
    let Some(tenant) = tenant(&[Capability::UploadRequests]).await else { return };
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    tenant.folder(&ws, "/Inbox").await;
    let api = tenant.fixture.operator().await;
    let made = api.put(&format!("/v1/workspaces/{}/upload-requests/acme-docs", ws.id), json!({"path": "/Inbox"}));
    let url = made.send().await.expect(201)["url"].as_str().unwrap().to_owned();
    let form = Form::new()
        .text("email", "carl@vendor.example")
        .part("file", Part::bytes(b"hello".to_vec()).file_name("x.pdf").mime_str("application/pdf").unwrap());
    let sent = http().post(format!("{url}/files")).multipart(form).send().await.unwrap();
    assert_eq!(sent.status(), 201);
    let item = driver.item_at(&ws.id, "/Inbox/x.pdf").await.unwrap().unwrap();
    let by = item.created_by.clone().unwrap();
    assert_eq!(item.upload_request.as_deref(), Some("acme-docs"));
    assert_eq!(
        (by.kind, by.id, by.name.as_str(), by.email_verified),
        (PrincipalKind::Guest, None, "carl@vendor.example", false)
    );
    let next = driver.put_content(&item.id, &item.etag, "text/plain", None, None, stream("ours"), &cause()).await.unwrap();
    assert_eq!(next.created_by.unwrap().kind, PrincipalKind::Client);
    assert_eq!(next.upload_request.as_deref(), Some("acme-docs"), "what the outsider entered is still there");
    assert_eq!(tenant.file(&ws.root_id, "own", "x").await.upload_request, None);
}

#[tokio::test]
async fn the_feed_says_enough_to_follow_folders_links_and_grants() {
    use ChangeKind::{FileDeleted, FileRestored, FolderChanged, LinkChanged, MemberSet};
    let Some(tenant) = tenant(&[Capability::Changes, Capability::Sharing]).await else { return };
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let api = tenant.fixture.operator().await;
    let (top, below) = (tenant.folder(&ws, "/A").await, tenant.folder(&ws, "/A/B").await);
    let (one, two) = (tenant.file(&top.id, "1", "x").await, tenant.file(&below.id, "2", "x").await);
    let cursor = now(driver).await;
    let link = NewLink {
        recipients: Vec::new(),
        audience: Audience::Members,
        expires_at: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)),
        password: None,
        max_downloads: None,
        download: None,
        managed: true,
    };
    let link = driver.create_link(&two.id, &link, &key(), &cause()).await.unwrap();
    let ada = api.principal("User", "ada").await;
    let grant = api.put(&format!("/v1/workspaces/{}/members/{ada}?path=/A/B", ws.id), json!({"role": "Viewer"}));
    grant.send().await.expect(201);
    let folder = driver.item(&top.id).await.unwrap().unwrap();
    let rename = ItemPatch { name: Some("Z".into()), ..ItemPatch::default() };
    let folder = driver.patch_item(&top.id, &folder.etag, &rename, &cause()).await.unwrap();
    driver.delete_item(&top.id, &folder.etag, &cause()).await.unwrap();
    api.post(&format!("/v1/items/{}/restorations", top.id), json!({})).send().await.expect(200);
    tenant.fixture.server.clock().set_offset_seconds(3700);
    tenant.fixture.server.sweep().await;

    let mut told: Vec<_> = entries(driver, &cursor)
        .await
        .into_iter()
        .map(|entry| (entry.kind, entry.subject.unwrap(), entry.item_id, entry.path.unwrap()))
        .collect();
    // Tombstones of one folder come in no particular order.
    told[3..5].sort_by(|one, other| one.3.cmp(&other.3));
    told[6..8].sort_by(|one, other| one.3.cmp(&other.3));
    let entry = |kind, subject: &str, item: Option<&str>, path: &str| {
        (kind, subject.to_owned(), item.map(str::to_owned), path.to_owned())
    };
    let expected = [
        entry(LinkChanged, &link.id, Some(&two.id), "/A/B/2"),
        entry(MemberSet, &ada, Some(&below.id), "/A/B"),
        entry(FolderChanged, &top.id, None, "/Z"),
        entry(FileDeleted, &one.id, None, "/Z/1"),
        entry(FileDeleted, &two.id, None, "/Z/B/2"),
        entry(FolderChanged, &top.id, None, "/Z"),
        entry(FileRestored, &one.id, None, "/Z/1"),
        entry(FileRestored, &two.id, None, "/Z/B/2"),
        entry(FolderChanged, &top.id, None, "/Z"),
        entry(LinkChanged, &link.id, Some(&two.id), "/Z/B/2"),
    ];
    assert_eq!(told, expected);
}

/// Lets a workspace be shared with anyone.
async fn open(tenant: &Tenant, workspace: &str) {
    let rules = json!({"sharing": {"external": "Anyone", "reshare": false,
        "links": {"maxAudience": "Anyone", "passwordRequired": false, "download": true}}});
    let api = tenant.fixture.operator().await;
    api.patch(&format!("/v1/workspaces/{workspace}"), rules).header("if-match", "*").send().await.expect(200);
}

#[tokio::test]
async fn a_link_opens_for_programs_with_its_password_as_often_as_it_may() {
    let Some(tenant) = tenant(&[Capability::Sharing]).await else { return };
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let item = tenant.file(&ws.root_id, "a.txt", "hello, world").await;
    let new = NewLink {
        recipients: Vec::new(),
        audience: Audience::Anyone,
        expires_at: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)),
        password: Some("open sesame".into()),
        max_downloads: Some(2),
        download: Some(true),
        managed: true,
    };
    let denied = driver.create_link(&item.id, &new, &key(), &cause()).await;
    assert_eq!(failure(denied), (Kind::Rejected, "sharing-policy-denied".to_owned()));
    open(&tenant, &ws.id).await;
    let once = key();
    let link = driver.create_link(&item.id, &new, &once, &cause()).await.unwrap();
    assert_eq!(driver.create_link(&item.id, &new, &once, &cause()).await.unwrap(), link);
    let content = format!("{}/content", link.url.as_deref().unwrap());
    let get = |password: Option<&'static str>| http().get(&content).basic_auth("", password);
    for wrong in [None, Some("wrong")] {
        let refused = get(wrong).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), refused.headers()["content-type"].to_str().unwrap()),
            (403, "application/problem+json")
        );
    }
    let part = get(Some("open sesame")).header("range", "bytes=7-").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert!(part.headers()["repr-digest"].to_str().unwrap().starts_with("sha-256=:"));
    assert_eq!(part.bytes().await.unwrap(), "world");
    assert_eq!(get(Some("open sesame")).send().await.unwrap().bytes().await.unwrap(), "hello, world");
    assert_eq!(get(Some("open sesame")).send().await.unwrap().status(), 404, "twice was the limit");
    let links = driver.links(&ws.id).await.unwrap();
    assert_eq!(links[0].downloads, 2);
}

#[tokio::test]
async fn a_link_gives_programs_nothing_that_its_page_would_not_give() {
    let Some(tenant) = tenant(&[Capability::Sharing]).await else { return };
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    open(&tenant, &ws.id).await;
    let folder = tenant.folder(&ws, "/Out").await;
    let (inside, outside) =
        (tenant.file(&folder.id, "inside", "in").await, tenant.file(&ws.root_id, "outside", "out").await);
    let made = |audience, download, item: &str| {
        let new = NewLink {
            recipients: Vec::new(),
            audience,
            expires_at: None,
            password: None,
            max_downloads: None,
            download: Some(download),
            managed: true,
        };
        let item = item.to_owned();
        async move { format!("{}/content", driver.create_link(&item, &new, &key(), &cause()).await.unwrap().url.unwrap()) }
    };
    let get = |url: String| async move {
        let answer = http().get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap())
    };
    for (audience, download) in [(Audience::Guests, true), (Audience::Members, true), (Audience::Anyone, false)] {
        assert_eq!(get(made(audience, download, &inside.id).await).await.0, 403, "{audience:?}");
    }
    let link = made(Audience::Anyone, true, &folder.id).await;
    assert_eq!(get(format!("{link}?item={}", inside.id)).await, (200, "in".into()));
    assert_eq!(get(format!("{link}?item={}", outside.id)).await.0, 404);
    assert_eq!(get(link.clone()).await.0, 409, "a folder has no content of its own");
    quarantine(&tenant.fixture.operator().await, &inside.id, true).await;
    assert_eq!(get(format!("{link}?item={}", inside.id)).await.0, 409);
    let api = tenant.fixture.operator().await;
    api.patch(&format!("/v1/workspaces/{}", ws.id), json!({"sharing": null}))
        .header("if-match", "*")
        .send()
        .await
        .expect(200);
    assert_eq!(get(link).await.0, 404, "the sharing rule closed it");
}

#[tokio::test]
async fn a_mail_asked_for_twice_under_one_key_is_one_mail() {
    let Some(tenant) = tenant(&[Capability::Notifications]).await else { return };
    let mail = NewNotification {
        template: "reminder".into(),
        locale: Some("de".into()),
        to: "ann@acme.com".into(),
        params: [("subject".into(), "Zertifikat".into()), ("url".into(), "https://x.example".into())].into(),
    };
    let once = key();
    let first = tenant.driver.notify(&mail, &once).await.unwrap();
    assert_eq!(tenant.driver.notify(&mail, &once).await.unwrap(), first);
    let listed = tenant.fixture.client("admin").await.all("/v1/notifications").await;
    assert_eq!(listed.len(), 1);
    let unknown = NewNotification { template: "nonsense".into(), ..mail };
    assert_eq!(failure(tenant.driver.notify(&unknown, &key()).await).0, Kind::Rejected);
}

#[tokio::test]
async fn a_header_that_cannot_be_written_is_a_wrong_request_and_no_outage() {
    let Some(tenant) = tenant(&[]).await else { return };
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let new = NewFile { mime_type: "text/plain\r\nx-evil: 1".into(), ..file("a") };
    let item = driver.upload(&ws.root_id, &new, stream("x"), &key(), &cause()).await.unwrap();
    assert_eq!(item.mime_type.as_deref(), Some("application/octet-stream"));
    let put = driver.put_content(&item.id, "\"a\r\nb\"", "text/plain", None, None, stream("x"), &cause()).await;
    assert_eq!(failure(put).0, Kind::Rejected);
    let api = tenant.fixture.operator().await;
    api.ask(Method::GET, &format!("/v1/items/{}", item.id)).send().await.expect(200);
}
