//! SFTP with a password, at ProFTPD: an implementation other than OpenSSH's.

use std::sync::Arc;

use async_trait::async_trait;
use file360_operator::api::places::{ObjectStore, Sftp};
use file360_operator::outbound::guard::Guard;
use file360_operator::outbound::object_store::{Settings, Store, store};
use file360_operator::routes::delivery::Destination;
use file360_operator::routes::destinations::object_store::ObjectStoreDestination;

use super::counterparts::{ProFtpd, files_below};
use super::suite::{self, Arrived, Place, Secrets, cases, percent_decoded, secret};
use super::trees;

struct Account {
    server: ProFtpd,
    secrets: Arc<Secrets>,
    store: Arc<dyn Store>,
    destination: Arc<dyn Destination>,
}

async fn start() -> Account {
    suite::install_crypto();
    let (server, secrets) = (ProFtpd::start(), Arc::new(Secrets::default()));
    secrets.put("store", "password", ProFtpd::PASSWORD);
    let sftp = Sftp {
        host: "127.0.0.1".into(),
        port: Some(server.port),
        username: ProFtpd::USERNAME.into(),
        private_key_ref: None,
        password_ref: Some(secret("password")),
        host_keys: vec![server.host_key.clone()],
        root: None,
    };
    let settings = Settings { guard: Arc::new(Guard::new(&["127.0.0.1".into()], &[]).unwrap()), ..Settings::default() };
    let spec = ObjectStore { s3: None, sftp: Some(sftp), fs: None };
    let store = store(&spec, "claims", secrets.clone(), &settings).unwrap();
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
        self.secrets.put("store", "password", "spoiled");
        self.secrets.forget();
        self.server.stop();
        self.server.start_again();
        "password"
    }

    async fn mend_credential(&self) {
        self.secrets.put("store", "password", ProFtpd::PASSWORD);
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
    ]
);

#[tokio::test]
async fn r1_a_newer_version_replaces_the_file_and_another_file_does_not() {
    let account = start().await;
    trees::newer_replaces_and_others_do_not(&*account.destination, &account.server.root()).await;
}

#[tokio::test]
async fn files_are_listed_in_pages_and_opened_as_they_were_listed() {
    let account = start().await;
    trees::trees_are_listed_and_opened(&*account.store, &account.server.root()).await;
}
