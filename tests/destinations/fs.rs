//! Folders that are mounted into the operator.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use file360_operator::api::places::{Folder, ObjectStore};
use file360_operator::error::Kind;
use file360_operator::outbound::object_store::{Settings, Store, store};
use file360_operator::routes::delivery::{Delivery, Destination};
use file360_operator::routes::destinations::object_store::ObjectStoreDestination;

use super::counterparts::files_below;
use super::suite::{self, Arrived, Place, Secrets, cases, delivery, pattern, percent_decoded};
use super::trees;

struct Mounted {
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    destination: Arc<dyn Destination>,
}

impl Mounted {
    fn given(&self) -> PathBuf {
        self.folder.path().join("given")
    }

    fn root(&self) -> PathBuf {
        self.given().join("claims")
    }
}

fn open(path: PathBuf, namespace: &str) -> Arc<dyn Store> {
    let settings = Settings { folders: BTreeMap::from([("archive".to_owned(), path)]), ..Settings::default() };
    let spec = ObjectStore { s3: None, sftp: None, fs: Some(Folder { folder: "archive".into() }) };
    store(&spec, namespace, Arc::new(Secrets::default()), &settings).unwrap()
}

async fn start() -> Mounted {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("given")).unwrap();
    let store = open(folder.path().join("given"), "claims");
    let destination = Arc::new(ObjectStoreDestination::new(store.clone(), "file.name").unwrap());
    Mounted { folder, store, destination }
}

#[async_trait]
impl Place for Mounted {
    fn destination(&self) -> Arc<dyn Destination> {
        self.destination.clone()
    }

    async fn arrived(&self) -> Vec<Arrived> {
        if self.root().is_dir() { trees::without_notes(files_below(&self.root())) } else { Vec::new() }
    }

    async fn strays(&self) -> Vec<String> {
        let files = files_below(self.folder.path()).into_iter().map(|(name, _)| name);
        files.filter(|name| !name.starts_with("given/claims/")).collect()
    }

    fn decode(&self, shown: &str) -> String {
        percent_decoded(shown)
    }

    /// The mount goes away.
    async fn stop(&self) {
        std::fs::rename(self.given(), self.folder.path().join("unmounted")).unwrap();
    }

    async fn start_again(&self) {
        std::fs::rename(self.folder.path().join("unmounted"), self.given()).unwrap();
    }

    async fn spoil_credential(&self) -> &'static str {
        unreachable!("a folder has no credential")
    }

    async fn mend_credential(&self) {
        unreachable!("a folder has no credential")
    }
}

cases!(
    start,
    [
        delivers_whole,
        r1_the_same_key_twice_has_the_effect_of_one,
        r1_two_tries_at_once_leave_one,
        many_at_once_arrive_each_with_its_bytes,
        r6_hostile_names_stay_apart_below_the_root,
        r3_wrong_content_is_not_delivered,
        down_is_unavailable_and_back_is_back,
        memory_does_not_grow_with_the_file,
    ]
);

#[tokio::test]
async fn r1_a_newer_version_replaces_the_file_and_another_file_does_not() {
    let mounted = start().await;
    std::fs::create_dir(mounted.root()).unwrap();
    trees::newer_replaces_and_others_do_not(&*mounted.destination, &mounted.root()).await;
}

#[tokio::test]
async fn r1_a_cut_off_delivery_is_completed_and_not_taken_for_anothers() {
    let mounted = start().await;
    std::fs::create_dir(mounted.root()).unwrap();
    trees::a_cut_off_delivery_is_completed(&*mounted.destination, &mounted.root()).await;
}

#[tokio::test]
async fn files_are_listed_in_pages_and_opened_as_they_were_listed() {
    let mounted = start().await;
    std::fs::create_dir(mounted.root()).unwrap();
    trees::trees_are_listed_and_opened(&*mounted.store, &mounted.root()).await;
}

#[tokio::test]
async fn r6_links_lead_nowhere() {
    let mounted = start().await;
    let (root, outside) = (mounted.root(), tempfile::tempdir().unwrap());
    std::fs::create_dir(&root).unwrap();
    std::fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    symlink(outside.path(), root.join("way-out")).unwrap();
    symlink(outside.path().join("secret.txt"), root.join("link.txt")).unwrap();
    trees::links_lead_nowhere(&*mounted.destination, &*mounted.store, outside.path()).await;

    // The folder of the namespace itself is no exception.
    symlink(outside.path(), mounted.given().join("sneaky")).unwrap();
    let sneaky = open(mounted.given(), "sneaky");
    assert_eq!(sneaky.list("", None).await.unwrap_err().kind, Kind::Rejected);
}

#[tokio::test]
async fn t1_namespaces_do_not_see_each_other() {
    let mounted = start().await;
    mounted.destination.deliver(&delivery("mine.txt", b"mine")).await.unwrap();
    let others = open(mounted.given(), "hr");
    assert_eq!(others.list("", None).await.unwrap().entries, []);
    for key in ["../claims/mine.txt", "/claims/mine.txt", "x/../../claims/mine.txt"] {
        assert_eq!(others.head(key).await.unwrap_err().kind, Kind::Rejected, "{key}");
    }
}

#[tokio::test]
async fn what_was_given_up_is_removed() {
    let mounted = start().await;
    let bytes = pattern(1 << 20, 3);
    let stalls =
        Delivery { content: Arc::new(suite::Stalling { size: bytes.len() as u64 }), ..delivery("stalls.bin", &bytes) };
    let given_up = tokio::time::timeout(std::time::Duration::from_secs(1), mounted.destination.deliver(&stalls)).await;
    assert!(given_up.is_err());
    suite::eventually("the part goes", async || {
        match files_below(&mounted.root()).iter().find(|(name, _)| name.ends_with(".part")) {
            None => Ok(()),
            Some((name, _)) => Err(name.clone()),
        }
    })
    .await;
}
