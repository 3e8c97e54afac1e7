//! SFTP: OpenSSH's server, which keeps each file as a file.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use async_trait::async_trait;
use file360_operator::api::places::{ObjectStore, Sftp};
use file360_operator::error::Kind;
use file360_operator::outbound::guard::Guard;
use file360_operator::outbound::object_store::{Settings, Store, store};
use file360_operator::routes::delivery::{Delivery, Destination};
use file360_operator::routes::destinations::object_store::ObjectStoreDestination;
use futures::StreamExt as _;

use super::counterparts::{SftpServer, files_below, key_pair};
use super::suite::{self, Arrived, Place, Secrets, cases, delivery, pattern, percent_decoded, secret, version_of};
use super::trees;

struct Account {
    server: SftpServer,
    secrets: Arc<Secrets>,
    store: Arc<dyn Store>,
    destination: Arc<dyn Destination>,
}

fn spec(server: &SftpServer) -> Sftp {
    Sftp {
        host: "127.0.0.1".into(),
        port: Some(server.port),
        username: server.username.clone(),
        private_key_ref: Some(secret("privateKey")),
        password_ref: None,
        host_keys: vec![server.host_key.clone()],
        root: Some(server.root().to_str().unwrap().to_owned()),
    }
}

fn open(spec: Sftp, secrets: &Arc<Secrets>) -> Arc<dyn Store> {
    let settings = Settings { guard: Arc::new(Guard::new(&["127.0.0.1".into()], &[]).unwrap()), ..Settings::default() };
    let spec = ObjectStore { s3: None, sftp: Some(spec), fs: None };
    store(&spec, "claims", secrets.clone(), &settings).unwrap()
}

async fn start() -> Account {
    start_with(SftpServer::start())
}

fn start_with(server: SftpServer) -> Account {
    suite::install_crypto();
    let secrets = Arc::new(Secrets::default());
    secrets.put("store", "privateKey", &server.private_key);
    let store = open(spec(&server), &secrets);
    let destination = Arc::new(ObjectStoreDestination::new(store.clone(), "file.name").unwrap());
    Account { server, secrets, store, destination }
}

#[async_trait]
impl Place for Account {
    fn destination(&self) -> Arc<dyn Destination> {
        self.destination.clone()
    }

    async fn arrived(&self) -> Vec<Arrived> {
        trees::without_notes(files_below(&self.server.root()))
    }

    async fn strays(&self) -> Vec<String> {
        let files = files_below(self.server.around()).into_iter().map(|(name, _)| name);
        files.filter(|name| name.contains(".txt") && !name.starts_with("root/")).collect()
    }

    fn decode(&self, shown: &str) -> String {
        percent_decoded(shown)
    }

    async fn stop(&self) {
        self.server.stop();
    }

    async fn start_again(&self) {
        self.server.start_again();
    }

    async fn spoil_credential(&self) -> &'static str {
        self.secrets.put("store", "privateKey", &key_pair().0);
        self.secrets.forget();
        self.server.stop();
        self.server.start_again();
        "privateKey"
    }

    async fn mend_credential(&self) {
        self.secrets.put("store", "privateKey", &self.server.private_key);
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
        t5_a_wrong_credential_is_named_and_a_new_one_works_without_a_restart,
        memory_does_not_grow_with_the_file,
    ]
);

#[tokio::test]
async fn r1_a_newer_version_replaces_the_file_and_another_file_does_not() {
    let account = start().await;
    trees::newer_replaces_and_others_do_not(&*account.destination, &account.server.root()).await;
}

#[tokio::test]
async fn r1_a_cut_off_delivery_is_completed_and_not_taken_for_anothers() {
    let account = start().await;
    trees::a_cut_off_delivery_is_completed(&*account.destination, &account.server.root()).await;
}

/// As in many inboxes: files may be put there, folders not made.
#[tokio::test]
async fn without_the_right_to_keep_notes_nothing_is_replaced() {
    let account = start_with(SftpServer::start_without(&["mkdir"]));
    let root = account.server.root();
    std::fs::create_dir(root.join("in")).unwrap();
    let first = delivery("in/a.txt", b"content");
    account.destination.deliver(&first).await.unwrap();
    account.destination.deliver(&first).await.unwrap();
    let error = account.destination.deliver(&delivery("in/a.txt", b"another")).await.unwrap_err();
    assert_eq!(error.code, "key-taken", "{error}");
    assert_eq!(files_below(&root), [("in/a.txt".to_owned(), b"content".to_vec())]);
    let error = account.destination.deliver(&delivery("new/a.txt", b"content")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "a folder that cannot be made: {error}");
}

/// Servers other than OpenSSH have none of its extensions.
#[tokio::test]
async fn a_server_without_extensions_is_enough() {
    let account = start_with(SftpServer::start_without(&["posix-rename", "fsync", "limits", "hardlink"]));
    trees::newer_replaces_and_others_do_not(&*account.destination, &account.server.root()).await;
}

#[tokio::test]
async fn t3_a_server_with_another_host_key_gets_no_credential() {
    let account = start().await;
    let spec = Sftp { host_keys: vec![key_pair().1], ..spec(&account.server) };
    let error = open(spec, &account.secrets).list("", None).await.unwrap_err();
    assert!(error.kind == Kind::Tls && error.to_string().contains("sftp.hostKeys"), "{error}");
}

#[tokio::test]
async fn t3_the_guard_holds_for_sftp() {
    let account = start().await;
    let of = |host: &str| {
        let spec = ObjectStore { s3: None, sftp: Some(Sftp { host: host.into(), ..spec(&account.server) }), fs: None };
        store(&spec, "claims", account.secrets.clone(), &Settings::default())
    };
    assert_eq!(of("127.0.0.1").err().unwrap().kind, Kind::Rejected);
    let error = of("localhost").unwrap().list("", None).await.unwrap_err();
    assert!(error.kind == Kind::Rejected && error.to_string().contains("outbound guard"), "{error}");
    account.secrets.only_for(&["sftp.example.com"]);
    assert_eq!(account.store.list("", None).await.unwrap_err().kind, Kind::Reference);
}

#[tokio::test]
async fn files_are_listed_in_pages_and_opened_as_they_were_listed() {
    let account = start().await;
    trees::trees_are_listed_and_opened(&*account.store, &account.server.root()).await;
}

#[tokio::test]
async fn r6_links_lead_nowhere() {
    let account = start().await;
    let (root, outside) = (account.server.root(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    symlink(outside.path(), root.join("way-out")).unwrap();
    symlink(outside.path().join("secret.txt"), root.join("link.txt")).unwrap();
    trees::links_lead_nowhere(&*account.destination, &*account.store, outside.path()).await;
}

#[tokio::test]
async fn many_open_files_do_not_confuse_the_server() {
    let account = start().await;
    for n in 0..300 {
        std::fs::write(account.server.root().join(format!("{n}.txt")), format!("content {n}")).unwrap();
    }
    let page = account.store.list("", None).await.unwrap();
    let reads = page.entries.iter().map(async |entry| {
        let mut opened = account.store.open(&entry.key, &entry.etag).await.unwrap();
        (entry.key.clone(), opened.content.next().await.unwrap().unwrap())
    });
    let read: BTreeMap<String, bytes::Bytes> = futures::stream::iter(reads).buffer_unordered(200).collect().await;
    assert_eq!(read.len(), 300);
    for n in 0..300 {
        assert_eq!(read[&format!("{n}.txt")], format!("content {n}"));
    }
}

#[tokio::test]
async fn what_was_given_up_is_removed() {
    let account = start().await;
    let bytes = pattern(1 << 20, 3);
    let stalls =
        Delivery { content: Arc::new(suite::Stalling { size: bytes.len() as u64 }), ..delivery("stalls.bin", &bytes) };
    let given_up = tokio::time::timeout(std::time::Duration::from_secs(2), account.destination.deliver(&stalls)).await;
    assert!(given_up.is_err());
    suite::eventually("the part goes", async || {
        match files_below(&account.server.root()).iter().find(|(name, _)| name.ends_with(".part")) {
            None => Ok(()),
            Some((name, _)) => Err(name.clone()),
        }
    })
    .await;
    let whole = version_of("item", 1, "whole.bin", 7, None);
    account.destination.deliver(&Delivery { content: Arc::new(suite::Staged::of(b"content")), ..whole }).await.unwrap();
}
