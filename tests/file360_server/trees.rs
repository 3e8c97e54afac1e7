//! Workspaces, folders and files as every driver has them.

use std::collections::BTreeMap;

use file360_operator::error::Kind;
use file360_operator::file360::model::{
    BusinessKey, Folder, ItemKind, ItemPatch, NewFolder, NewWorkspace, OnConflict, OwnerMark, OwnerState, Workspace,
    WorkspacePatch,
};
use file360_operator::file360::{Creation, NewFile};

use crate::driver::{Subject, behaviours, cause, failure, file, key, pages, read, stream};

behaviours! {
    c2_a_workspace_is_made_once_under_its_key_and_found_again: [Workspaces],
    c2_many_who_make_one_workspace_at_once_make_one: [Workspaces],
    c1_keys_that_look_alike_are_workspaces_of_their_own: [Workspaces],
    c8_a_change_applies_only_to_the_workspace_that_was_seen_and_moves_its_revision_by_one: [Workspaces, Conditions],
    c11_the_mark_says_who_manages_a_workspace_and_listings_find_it: [Workspaces],
    folders_are_made_found_marked_and_stay_when_made_again: [Folders],
    d1_a_folder_with_content_is_not_removed_and_an_empty_one_is_once: [Folders],
    r6_hostile_names_stay_inside_and_come_back_as_they_were: [Folders, Files],
    files_come_back_byte_for_byte_and_are_found_by_path_and_id: [Files],
    a_taken_name_is_a_conflict_the_file_or_another_name: [Files],
    content_is_replaced_only_where_the_writer_has_seen_it: [Files, Conditions],
    a_file_moves_within_its_workspace_and_not_over_another: [Files, Conditions],
    what_is_not_there_is_none_and_never_an_error: [Workspaces],
}

fn of(key: &str) -> BusinessKey {
    BusinessKey { system: "trees".to_owned(), key: key.to_owned() }
}

fn named(display_name: &str) -> NewWorkspace {
    NewWorkspace {
        display_name: display_name.to_owned(),
        classification: None,
        metadata: BTreeMap::new(),
        sharing: None,
        managed_fields: Vec::new(),
        owner: None,
    }
}

fn mark(name: &str, state: OwnerState) -> OwnerMark {
    OwnerMark { cluster_id: "c1".into(), namespace: "legal".into(), name: name.into(), uid: format!("uid-{name}"), state }
}

fn made(creation: Creation) -> (bool, Workspace) {
    match creation {
        Creation::Created(workspace) => (true, *workspace),
        Creation::Existed(workspace) => (false, *workspace),
    }
}

async fn declared(tenant: &Subject, workspace: &Workspace, path: &str, managed_key: &str) -> Folder {
    let new = NewFolder {
        path: path.to_owned(),
        classification: None,
        metadata: BTreeMap::new(),
        locked: false,
        managed_key: Some(managed_key.to_owned()),
        on_conflict: OnConflict::Return,
    };
    tenant.driver.create_folder(&workspace.id, &new, &cause()).await.unwrap().value
}

async fn c2_a_workspace_is_made_once_under_its_key_and_found_again(tenant: Subject) {
    let driver = &tenant.driver;
    assert_eq!(driver.workspace_by_key(&of("acme/1")).await.unwrap(), None);
    let new = NewWorkspace { owner: Some(mark("acme", OwnerState::Active)), ..named("Acme – Verträge") };
    let (is_new, first) = made(driver.create_workspace(&of("acme/1"), &new, &cause()).await.unwrap());
    assert!(is_new);
    assert_eq!(
        (first.display_name.as_str(), first.key.as_ref(), &first.owner),
        ("Acme – Verträge", Some(&of("acme/1")), &new.owner)
    );
    let (is_new, again) = made(driver.create_workspace(&of("acme/1"), &named("Other"), &cause()).await.unwrap());
    assert!(!is_new);
    assert_eq!(again, first, "nothing was changed");
    assert_eq!(driver.workspace_by_key(&of("acme/1")).await.unwrap().as_ref(), Some(&first));
    assert_eq!(driver.workspace(&first.id).await.unwrap(), Some(first));
}

async fn c2_many_who_make_one_workspace_at_once_make_one(tenant: Subject) {
    let driver = &tenant.driver;
    let (key, cause) = (of("acme"), cause());
    let new: Vec<_> = (0..8).map(|n| named(&format!("by {n}"))).collect();
    let calls = new.iter().map(|new| driver.create_workspace(&key, new, &cause));
    let results = futures::future::join_all(calls).await;
    let all: Vec<_> = results.into_iter().map(|result| made(result.unwrap())).collect();
    assert_eq!(all.iter().filter(|(is_new, _)| *is_new).count(), 1, "{all:?}");
    assert!(all.iter().all(|(_, workspace)| *workspace == all[0].1));
}

async fn c1_keys_that_look_alike_are_workspaces_of_their_own(tenant: Subject) {
    let driver = &tenant.driver;
    let keys = ["a/b", "a-b", "A/B", "a b", "ä/b", "a/b/", "../a/b", "a%2Fb", "a/b\u{202e}"];
    let mut ids = std::collections::BTreeSet::new();
    for text in keys {
        let (is_new, workspace) = made(driver.create_workspace(&of(text), &named(text), &cause()).await.unwrap());
        assert!(is_new, "{text}");
        assert!(ids.insert(workspace.id), "{text}");
    }
    for text in keys {
        assert_eq!(driver.workspace_by_key(&of(text)).await.unwrap().unwrap().display_name, text);
    }
    let listed = pages(|cursor| async move { driver.workspaces(None, cursor.as_deref()).await }).await;
    assert_eq!(listed.into_iter().map(|row| row.id).collect::<std::collections::BTreeSet<_>>(), ids);
}

async fn c8_a_change_applies_only_to_the_workspace_that_was_seen_and_moves_its_revision_by_one(tenant: Subject) {
    let (driver, first) = (&tenant.driver, tenant.workspace("one").await);
    let rename = |name: &str| WorkspacePatch { display_name: Some(name.to_owned()), ..WorkspacePatch::default() };
    let second = driver.patch_workspace(&first.id, &first.etag, &rename("second"), &cause()).await.unwrap();
    assert_eq!((second.value.display_name.as_str(), second.revision), ("second", first.revision + 1));
    let stale = driver.patch_workspace(&first.id, &first.etag, &rename("lost"), &cause()).await;
    assert_eq!(failure(stale).0, Kind::Stale);
    let same = driver.patch_workspace(&first.id, &second.value.etag, &rename("second"), &cause()).await.unwrap();
    assert_eq!(same.revision, second.revision, "nothing changed");
    let folder = declared(&tenant, &second.value, "/A", "k").await;
    let now = driver.workspace(&first.id).await.unwrap().unwrap();
    assert_eq!((now.revision, folder.path.as_str()), (second.revision + 1, "/A"));
    assert_eq!(driver.folders(&first.id).await.unwrap().revision, now.revision);
    let next = driver.patch_workspace(&first.id, &now.etag, &rename("third"), &cause()).await.unwrap();
    assert_eq!(next.revision, now.revision + 1);
    assert_eq!(driver.folders(&first.id).await.unwrap().value, [folder], "the folder's mark stands");
}

async fn c11_the_mark_says_who_manages_a_workspace_and_listings_find_it(tenant: Subject) {
    let (driver, one, two) = (&tenant.driver, tenant.workspace("one").await, tenant.workspace("two").await);
    assert_eq!(one.owner, None);
    let owned = driver.set_owner(&one.id, &one.etag, &mark("acme", OwnerState::Active), &cause()).await.unwrap().value;
    assert_eq!(owned.owner, Some(mark("acme", OwnerState::Active)));
    let late = driver.set_owner(&one.id, &one.etag, &mark("late", OwnerState::Active), &cause()).await;
    assert_eq!(failure(late).0, Kind::Stale, "two who take one workspace at once: one does");
    let rows = driver.workspaces(Some("c1"), None).await.unwrap().items;
    assert_eq!(
        rows.iter().map(|row| (row.id.as_str(), row.revision)).collect::<Vec<_>>(),
        [(one.id.as_str(), owned.revision)]
    );
    assert!(driver.workspaces(Some("c2"), None).await.unwrap().items.is_empty());
    let all = driver.workspaces(None, None).await.unwrap().items;
    assert_eq!(all.iter().filter(|row| row.id == two.id || row.id == one.id).count(), 2);
    let freed = driver.set_owner(&one.id, &owned.etag, &mark("acme", OwnerState::Released), &cause()).await.unwrap().value;
    driver.set_owner(&one.id, &freed.etag, &mark("acme", OwnerState::Active), &cause()).await.unwrap();
}

async fn folders_are_made_found_marked_and_stay_when_made_again(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let orphan = NewFolder { path: "/No/Parent".into(), managed_key: Some("x".into()), ..new_folder() };
    assert!(driver.create_folder(&ws.id, &orphan, &cause()).await.is_err());
    let (a, b) = (declared(&tenant, &ws, "/Verträge", "a").await, declared(&tenant, &ws, "/Verträge/2026 Q1", "b").await);
    assert_eq!(declared(&tenant, &ws, "/Verträge/2026 Q1", "other").await, b, "what is there is returned unchanged");
    tenant.file(&b.id, "one.txt", "1").await;
    let mut listed = driver.folders(&ws.id).await.unwrap().value;
    listed.sort_by(|one, other| one.path.cmp(&other.path));
    let seen: Vec<_> =
        listed.iter().map(|one| (one.id.as_str(), one.path.as_str(), one.managed_key.as_deref(), one.children)).collect();
    assert_eq!(seen, [(a.id.as_str(), "/Verträge", Some("a"), 1), (b.id.as_str(), "/Verträge/2026 Q1", Some("b"), 1)]);
    let patch = ItemPatch { managed_key: Some(Some("new".into())), ..ItemPatch::default() };
    driver.patch_folder(&a.id, &listed[0].etag, &patch, &cause()).await.unwrap();
    assert_eq!(failure(driver.patch_folder(&a.id, &listed[0].etag, &patch, &cause()).await).0, Kind::Stale);
    let item = driver.item_at(&ws.id, "/Verträge").await.unwrap().unwrap();
    assert_eq!((item.kind, item.id, item.parent_id), (ItemKind::Folder, a.id.clone(), Some(ws.root_id.clone())));
    let folders = driver.folders(&ws.id).await.unwrap().value;
    assert!(folders.iter().any(|one| one.id == a.id && one.managed_key.as_deref() == Some("new")));
}

fn new_folder() -> NewFolder {
    NewFolder {
        path: "/".to_owned(),
        classification: None,
        metadata: BTreeMap::new(),
        locked: false,
        managed_key: None,
        on_conflict: OnConflict::Return,
    }
}

async fn d1_a_folder_with_content_is_not_removed_and_an_empty_one_is_once(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let (full, empty) = (declared(&tenant, &ws, "/Full", "f").await, declared(&tenant, &ws, "/Empty", "e").await);
    let content = tenant.file(&full.id, "keep.txt", "precious").await;
    let refused = driver.delete_empty_folder(&full.id, "*", &cause()).await;
    assert_eq!(failure(refused), (Kind::Conflict, "not-empty".to_owned()));
    assert_eq!(driver.item(&content.id).await.unwrap().map(|item| item.path), Some("/Full/keep.txt".to_owned()));
    for _ in 0..2 {
        driver.delete_empty_folder(&empty.id, "*", &cause()).await.unwrap();
    }
    let left: Vec<String> = driver.folders(&ws.id).await.unwrap().value.into_iter().map(|folder| folder.path).collect();
    assert_eq!(left, ["/Full"]);
    let again = declared(&tenant, &ws, "/Empty", "second").await;
    assert_eq!(again.managed_key.as_deref(), Some("second"));
}

async fn r6_hostile_names_stay_inside_and_come_back_as_they_were(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let names = [
        "100% a#?&;=.txt",
        "%2e%2e",
        "CON",
        "a:b",
        "..a",
        "spaces  in ",
        "ends.",
        ".hidden",
        ".file360",
        "日本語 – ü.pdf",
        "e\u{301}.txt",
        "<x>\"'",
    ];
    for name in names {
        tenant.file(&ws.root_id, name, "x").await;
        let found = driver.item_at(&ws.id, &format!("/{name}")).await.unwrap().unwrap_or_else(|| panic!("{name:?}"));
        assert_eq!(driver.item(&found.id).await.unwrap().as_ref(), Some(&found), "{name:?}");
    }
    let composed: Vec<String> = names.iter().map(|name| name.replace("e\u{301}", "\u{e9}")).collect();
    let mut listed: Vec<String> = tenant.files(&ws, "/").await.into_iter().map(|item| item.name).collect();
    let mut wanted = composed;
    listed.sort();
    wanted.sort();
    assert_eq!(listed, wanted);
    for name in ["", ".", "..", "a/b", "../x", "a\\b", "a\0b", "a\r\nb"] {
        let result = driver.upload(&ws.root_id, &file(name), stream("x"), &key(), &cause()).await;
        assert_eq!(failure(result).0, Kind::Rejected, "{name:?}");
    }
    for path in ["/..", "/../x", "/a/../../x"] {
        let new = NewFolder { path: path.to_owned(), ..new_folder() };
        assert_eq!(failure(driver.create_folder(&ws.id, &new, &cause()).await).0, Kind::Rejected, "{path}");
    }
    assert_eq!(tenant.files(&ws, "/").await.len(), names.len());
}

async fn files_come_back_byte_for_byte_and_are_found_by_path_and_id(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let folder = tenant.folder(&ws, "/In").await;
    for size in [0, 1, 32 << 10, 3 << 20] {
        let content: Vec<u8> = (0..size).map(|at: usize| u8::try_from(at * 31 % 251).unwrap()).collect();
        let new = NewFile {
            size: Some(size as u64),
            sha256: Some(crate::driver::sha256(&content)),
            ..file(&format!("{size}.bin"))
        };
        let item = driver.upload(&folder.id, &new, stream(content.clone()), &key(), &cause()).await.unwrap();
        assert_eq!((item.size, item.sha256.as_ref(), item.version), (Some(size as u64), new.sha256.as_ref(), Some(1)));
        assert_eq!((item.path, item.parent_id.as_ref()), (format!("/In/{size}.bin"), Some(&folder.id)));
        let download = driver.download(&item.id, 1).await.unwrap();
        assert_eq!(download.size, size as u64);
        assert!(read(download).await.unwrap() == content, "{size} bytes");
    }
    let children = pages(|cursor| {
        let (driver, id) = (driver.clone(), folder.id.clone());
        async move { driver.children(&id, cursor.as_deref()).await }
    })
    .await;
    assert_eq!(children.len(), 4);
    assert_eq!(failure(driver.download(&children[0].id, 7).await).0, Kind::NotFound);
}

async fn a_taken_name_is_a_conflict_the_file_or_another_name(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let first = tenant.file(&ws.root_id, "a.txt", "first").await;
    let upload = |on_conflict, content: &'static str| {
        let (new, root) = (NewFile { on_conflict, ..file("a.txt") }, ws.root_id.clone());
        async move { driver.upload(&root, &new, stream(content), &key(), &cause()).await }
    };
    assert_eq!(failure(upload(OnConflict::Fail, "first").await), (Kind::Conflict, "name-exists".to_owned()));
    assert_eq!(upload(OnConflict::Return, "x").await.unwrap().id, first.id);
    assert_eq!(upload(OnConflict::Rename, "second").await.unwrap().name, "a (2).txt");
    assert_eq!(upload(OnConflict::Rename, "third").await.unwrap().name, "a (3).txt");
    assert_eq!(read(driver.download(&first.id, 1).await.unwrap()).await.unwrap(), b"first");
}

async fn content_is_replaced_only_where_the_writer_has_seen_it(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let first = tenant.file(&ws.root_id, "a.txt", "first").await;
    let put = |etag: String, content: &'static str| {
        let id = first.id.clone();
        async move { driver.put_content(&id, &etag, "text/plain", None, None, stream(content), &cause()).await }
    };
    let second = put(first.etag.clone(), "second").await.unwrap();
    assert_ne!(second.etag, first.etag);
    assert_eq!(failure(put(first.etag.clone(), "lost").await), (Kind::Stale, "etag-mismatch".to_owned()));
    put(format!("\"sha256-{}\"", crate::driver::sha256(b"second")), "third").await.unwrap();
    assert_eq!(failure(put(format!("\"sha256-{}\"", crate::driver::sha256(b"second")), "lost").await).0, Kind::Stale);
    let now = driver.item(&first.id).await.unwrap().unwrap();
    assert_eq!(read(driver.download(&now.id, now.version.unwrap()).await.unwrap()).await.unwrap(), b"third");
}

async fn a_file_moves_within_its_workspace_and_not_over_another(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    let done = tenant.folder(&ws, "/Done").await;
    let (one, two) = (tenant.file(&ws.root_id, "one.txt", "1").await, tenant.file(&ws.root_id, "two.txt", "2").await);
    let patch = ItemPatch { parent_id: Some(done.id.clone()), name: Some("uno.txt".into()), ..ItemPatch::default() };
    let moved = driver.patch_item(&one.id, &one.etag, &patch, &cause()).await.unwrap();
    assert_eq!(moved.path, "/Done/uno.txt");
    assert_eq!(driver.item_at(&ws.id, "/one.txt").await.unwrap(), None);
    let over = driver.patch_item(&two.id, &two.etag, &patch, &cause()).await;
    assert_eq!(failure(over), (Kind::Conflict, "name-exists".to_owned()));
    let stale = driver.patch_item(&two.id, "\"other\"", &patch, &cause()).await;
    assert_eq!(failure(stale).0, Kind::Stale);
    let left: Vec<String> = tenant.files(&ws, "/").await.into_iter().map(|file| file.path).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

async fn what_is_not_there_is_none_and_never_an_error(tenant: Subject) {
    let (driver, ws) = (&tenant.driver, tenant.workspace("one").await);
    for id in ["nobody", "x", "0"] {
        assert_eq!(driver.workspace(id).await.unwrap(), None);
        assert_eq!(driver.item(id).await.unwrap(), None);
        assert_eq!(failure(driver.download(id, 1).await).0, Kind::NotFound);
        assert_eq!(failure(driver.folders(id).await).0, Kind::NotFound);
    }
    assert_eq!(driver.item_at(&ws.id, "/nothing/here").await.unwrap(), None);
    assert_eq!(failure(driver.files(&ws.id, "/nothing", None).await).0, Kind::NotFound);
}
