//! What SFTP servers and folders must do beyond the suite: both are trees of files, and the tests see these.

use std::path::Path;

use file360_operator::error::Kind;
use file360_operator::outbound::object_store::Store;
use file360_operator::routes::delivery::{Delivery, Destination};
use futures::StreamExt as _;

use super::counterparts::files_below;
use super::suite::{Arrived, delivery, pattern, version_of};

/// Where the operator keeps its notes.
const NOTES: &str = ".file360/";

/// What arrived, without the operator's notes.
pub fn without_notes(files: Vec<(String, Vec<u8>)>) -> Vec<Arrived> {
    let files = files.into_iter().filter(|(name, _)| !name.starts_with(NOTES));
    files.map(|(name, bytes)| Arrived { name, bytes }).collect()
}

fn version(item: &str, version: u64, name: &str, bytes: &[u8]) -> Delivery {
    let whole = delivery(name, bytes);
    Delivery {
        content: whole.content.clone(),
        ..version_of(item, version, name, whole.file.size, whole.file.sha256.clone())
    }
}

/// A place belongs to one file: its versions follow each other there, and no other file gets it.
pub async fn newer_replaces_and_others_do_not(destination: &dyn Destination, root: &Path) {
    let here = || std::fs::read(root.join("report.pdf")).unwrap();
    destination.deliver(&version("item-1", 1, "report.pdf", b"one")).await.unwrap();
    let second = version("item-1", 2, "report.pdf", b"two, which is longer");
    assert!(!destination.deliver(&second).await.unwrap().duplicate);
    assert_eq!(here(), b"two, which is longer");
    let again = destination.deliver(&second).await.unwrap();
    assert!(again.duplicate && again.bytes == 0, "{again:?}");

    let error = destination.deliver(&version("item-2", 1, "report.pdf", b"three")).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (Kind::Conflict, "key-taken"), "{error}");
    assert_eq!(here(), b"two, which is longer", "the file stays as it was");

    std::fs::write(root.join("by-hand.txt"), "by hand").unwrap();
    let error = destination.deliver(&delivery("by-hand.txt", b"another")).await.unwrap_err();
    assert_eq!(error.code, "key-taken", "what nobody delivered is somebody's: {error}");
    assert_eq!(std::fs::read(root.join("by-hand.txt")).unwrap(), b"by hand");
    // A file that somebody took away comes again when it is delivered again.
    std::fs::remove_file(root.join("report.pdf")).unwrap();
    destination.deliver(&second).await.unwrap();
    assert_eq!(here(), b"two, which is longer");
    assert!(!files_below(root).iter().any(|(name, _)| name.ends_with(".part")), "nothing half-done is left");
}

/// Cut off between its last two steps, a delivery finds its own file on the next try.
pub async fn a_cut_off_delivery_is_completed(destination: &dyn Destination, root: &Path) {
    let first = version("item-1", 1, "report.pdf", b"one");
    destination.deliver(&first).await.unwrap();
    let (note, content) = files_below(root).into_iter().find(|(name, _)| name.starts_with(NOTES)).expect("there is a note");
    let text = String::from_utf8(content).unwrap();
    assert!(text.contains(&first.key), "the note names the delivery that is complete: {text}");
    let unfinished = text.replace(&first.key, &"0".repeat(64));
    std::fs::write(root.join(&note), &unfinished).unwrap();
    destination.deliver(&first).await.unwrap();
    assert_eq!(std::fs::read_to_string(root.join(&note)).unwrap(), text);
    // The same when the next version comes before the next try.
    std::fs::write(root.join(&note), &unfinished).unwrap();
    destination.deliver(&version("item-1", 2, "report.pdf", b"two")).await.unwrap();
    assert_eq!(std::fs::read(root.join("report.pdf")).unwrap(), b"two");
}

/// Pages follow each other without gap or repetition; what was listed is what is opened.
pub async fn trees_are_listed_and_opened(store: &dyn Store, root: &Path) {
    let mut wanted = Vec::new();
    for n in 0..10_050 {
        let key = format!("in/{:03}/{n}.txt", n % 50);
        std::fs::create_dir_all(root.join(&key).parent().unwrap()).unwrap();
        std::fs::write(root.join(&key), format!("content {n}")).unwrap();
        wanted.push(key);
    }
    for other in ["in-/x.txt", "input.txt", "other/in/x.txt", ".file360/claims/x", "in/.file360-1-2.part"] {
        std::fs::create_dir_all(root.join(other).parent().unwrap()).unwrap();
        std::fs::write(root.join(other), "x").unwrap();
    }
    wanted.sort_unstable();
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.list("in/", cursor.as_deref()).await.unwrap();
        pages += 1;
        found.extend(page.entries);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(pages, 2);
    let keys: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, wanted);
    assert_eq!(store.list("in/04", None).await.unwrap().entries.len(), 2010, "a prefix may end within a name");
    assert_eq!(store.list("none/", None).await.unwrap().entries, []);

    let entry = found.iter().find(|entry| entry.key == "in/007/7.txt").unwrap();
    let mut opened = store.open(&entry.key, &entry.etag).await.unwrap();
    assert_eq!((opened.size, opened.content.next().await.unwrap().unwrap().as_ref()), (9, &b"content 7"[..]));
    assert!(opened.content.all(async |rest| rest.unwrap().is_empty()).await);

    std::fs::write(root.join(&entry.key), "changed and longer").unwrap();
    assert_eq!(store.open(&entry.key, &entry.etag).await.err().unwrap().kind, Kind::Stale);
    assert_eq!(store.head("in/none.txt").await.unwrap_err().kind, Kind::NotFound);
    for key in ["../x", "/etc/passwd", "in/../x", "in//x", "", ".file360/claims/x"] {
        assert_eq!(store.head(key).await.unwrap_err().kind, Kind::Rejected, "{key:?}");
        assert_eq!(store.open(key, "").await.err().unwrap().kind, Kind::Rejected, "{key:?}");
    }
    for prefix in ["../", "/", "in/../../"] {
        assert_eq!(store.list(prefix, None).await.unwrap_err().kind, Kind::Rejected, "{prefix:?}");
    }

    // Changed while it is read: half of it may be old.
    std::fs::write(root.join("in/007/7.txt"), pattern(5_000_000, 1)).unwrap();
    let entry = store.head("in/007/7.txt").await.unwrap().entry;
    let mut opened = store.open(&entry.key, &entry.etag).await.unwrap();
    opened.content.next().await.unwrap().unwrap();
    std::fs::write(root.join("in/007/7.txt"), pattern(5_000_001, 2)).unwrap();
    let rest: Vec<_> = opened.content.collect().await;
    assert!(rest.iter().any(Result::is_err), "a mix of two versions is no version");
}

/// `way-out` is a link to `outside`, `link.txt` one to `secret.txt` there.
pub async fn links_lead_nowhere(destination: &dyn Destination, store: &dyn Store, outside: &Path) {
    let error = destination.deliver(&delivery("way-out/a.txt", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Rejected, "{error}");
    let error = destination.deliver(&delivery("link.txt", b"x")).await.unwrap_err();
    assert_eq!(error.code, "key-taken", "{error}");
    assert_eq!(files_below(outside), [("secret.txt".to_owned(), b"secret".to_vec())]);
    assert_eq!(store.list("", None).await.unwrap().entries, [], "links are no files");
    assert!(store.open("link.txt", "").await.is_err());
    assert_eq!(store.head("link.txt").await.unwrap_err().kind, Kind::NotFound);
}
