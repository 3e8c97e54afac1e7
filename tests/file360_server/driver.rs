//! The drivers under test, and what they reach.
//!
//! `behaviours!` runs a test against every driver that has what the test needs, and says which it does not run against. Such tests know
//! only the trait. Tests with a [`Tenant`] are about the connector alone: what people and administrators do on the other side, they do
//! over plain HTTP.

use std::any::Any;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use file360_operator::api::connection::Driver;
use file360_operator::error::{Error, Kind, Result};
use file360_operator::file360::connector::{Connector, Credential, Observer, Settings, Transport};
use file360_operator::file360::feature::{Enforcement, Feature, Level};
use file360_operator::file360::model::{
    BusinessKey, Capability, Folder, Item, NewFolder, NewWorkspace, OnConflict, Page, Workspace,
};
use file360_operator::file360::{ByteStream, Cause, Creation, Download, File360, IdempotencyKey, NewFile};
use file360_operator::redacted::Redacted;
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::counterparts::WebDavServer;
use crate::support::{Fixture, http, start};

/// A driver, and a tenant of its own that it reaches.
pub struct Subject {
    pub driver: Arc<dyn File360>,
    /// The tenant; gone with this.
    _other_side: Box<dyn Any + Send + Sync>,
}

/// A tenant of the embedded server, the connector that reaches it, and the server itself.
pub struct Tenant {
    subject: Subject,
    pub fixture: Fixture,
}

impl Deref for Tenant {
    type Target = Subject;

    fn deref(&self) -> &Subject {
        &self.subject
    }
}

/// The drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The connector against the embedded server.
    Connector,
    /// WebDAV against rclone.
    WebDav,
}

impl Which {
    pub const ALL: [Self; 2] = [Self::Connector, Self::WebDav];

    /// A tenant with nothing in it.
    pub async fn subject(self) -> Subject {
        match self {
            Self::Connector => {
                let fixture = start().await;
                Subject { driver: connector(&fixture, "operator"), _other_side: Box::new(fixture) }
            }
            Self::WebDav => {
                static NUMBER: AtomicU64 = AtomicU64::new(0);
                let server = rclone();
                let name = format!("tenant {}", NUMBER.fetch_add(1, Ordering::Relaxed));
                std::fs::create_dir(server.root().join(&name)).unwrap();
                let url = format!("{}/{}", server.endpoint, name.replace(' ', "%20"));
                Subject { driver: webdav(&url, http(), CancellationToken::new()), _other_side: Box::new(()) }
            }
        }
    }
}

/// The one rclone of this process; its tenants are folders.
pub fn rclone() -> &'static WebDavServer {
    static SERVER: OnceLock<WebDavServer> = OnceLock::new();
    SERVER.get_or_init(WebDavServer::start)
}

/// The WebDAV driver for an endpoint, as rclone's user.
pub fn webdav(url: &str, http: reqwest::Client, stop_writes: CancellationToken) -> Arc<dyn File360> {
    let credential =
        Credential::Basic { username: Redacted::new(WebDavServer::USER), password: Redacted::new(WebDavServer::PASSWORD) };
    webdav_as(url, credential, http, stop_writes)
}

/// The same with another credential.
pub fn webdav_as(
    url: &str,
    credential: Credential,
    http: reqwest::Client,
    stop_writes: CancellationToken,
) -> Arc<dyn File360> {
    let settings = Settings {
        endpoint: url.parse().unwrap(),
        credential,
        http,
        requests_per_second: None,
        concurrency: None,
        stop_writes,
        observer: Arc::new(Deaf),
    };
    file360_operator::file360::driver(Driver::WebDav, settings).0
}

/// What stands in the way of running a test with these needs against a driver.
pub fn missing(needs: &[Feature], enforcement: &Enforcement) -> Option<(Feature, Level)> {
    needs.iter().find(|feature| !enforcement.has(**feature)).map(|feature| (*feature, enforcement.level(*feature)))
}

/// Runs one test against one driver, if the driver has what it needs.
pub async fn run<T: Future<Output = ()>>(which: Which, needs: &[Feature], name: &str, test: impl FnOnce(Subject) -> T) {
    let subject = which.subject().await;
    let service = subject.driver.service().await.unwrap();
    match missing(needs, &subject.driver.enforcement(&service)) {
        None => test(subject).await,
        Some((feature, level)) => println!("{which:?}: {name} is not run: {feature:?} is {level:?}"),
    }
}

/// Runs each test against every driver that has the features it needs. `BEHAVIOURS` has them all.
macro_rules! behaviours {
    ($($name:ident: [$($need:ident),*],)*) => {
        /// The tests of this module that hold for every driver, each with what it needs.
        pub const BEHAVIOURS: crate::driver::Behaviours =
            &[$((stringify!($name), &[$(file360_operator::file360::feature::Feature::$need),*])),*];

        mod over_the_connector {
            $(crate::driver::behaviour!(Connector, $name, [$($need),*]);)*
        }

        mod over_webdav {
            $(crate::driver::behaviour!(WebDav, $name, [$($need),*]);)*
        }
    };
}

macro_rules! behaviour {
    ($which:ident, $name:ident, [$($need:ident),*]) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let needs = &[$(file360_operator::file360::feature::Feature::$need),*];
            crate::driver::run(crate::driver::Which::$which, needs, stringify!($name), super::$name).await;
        }
    };
}

pub(crate) use {behaviour, behaviours};

/// Tests of one module with what each needs.
pub type Behaviours = &'static [(&'static str, &'static [Feature])];

struct Deaf;

impl Observer for Deaf {
    fn call_ended(&self, _: &'static str, _: &'static str, _: Duration) {}
}

/// The connector against the embedded server, if it can do all of this.
pub async fn tenant(needs: &[Capability]) -> Option<Tenant> {
    let fixture = start().await;
    let driver = connector(&fixture, "operator");
    let service = driver.service().await.unwrap();
    let able = needs.iter().all(|capability| service.capabilities.contains(capability));
    able.then(|| Tenant { subject: Subject { driver, _other_side: Box::new(()) }, fixture })
}

/// A client application of the seed.
pub fn connector(fixture: &Fixture, client: &str) -> Arc<dyn File360> {
    let settings = Settings {
        endpoint: fixture.server.url.parse().unwrap(),
        credential: Credential::OAuth2 {
            client_id: Redacted::new(client),
            client_secret: Redacted::new(format!("{client}-secret")),
            token_url: format!("{}/oauth2/token", fixture.server.url).parse().unwrap(),
            scopes: Vec::new(),
        },
        http: http(),
        requests_per_second: None,
        concurrency: None,
        stop_writes: CancellationToken::new(),
        observer: Arc::new(Deaf),
    };
    Arc::new(Connector::new(Arc::new(Transport::new(settings))))
}

static KEYS: AtomicU64 = AtomicU64::new(0);

/// A key that no other call has.
pub fn key() -> IdempotencyKey {
    IdempotencyKey(format!("driver-{}", KEYS.fetch_add(1, Ordering::Relaxed)))
}

/// Why these tests write.
pub fn cause() -> Cause {
    Cause("test".to_owned())
}

/// Bytes as a stream of uneven chunks.
pub fn stream(content: impl Into<Bytes>) -> ByteStream {
    let mut left: Bytes = content.into();
    let mut size = 0;
    futures::stream::iter(std::iter::from_fn(move || {
        size = (size * 3 + 1) % 60_000;
        let chunk = left.split_to(left.len().min(size.max(1)));
        (!chunk.is_empty()).then_some(Ok(chunk))
    }))
    .boxed()
}

pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text file of that name; size and digest are not announced.
pub fn file(name: &str) -> NewFile {
    NewFile {
        name: name.to_owned(),
        mime_type: "text/plain".to_owned(),
        size: None,
        sha256: None,
        metadata: std::collections::BTreeMap::new(),
        on_conflict: OnConflict::Fail,
    }
}

pub async fn read(download: Download) -> Result<Vec<u8>> {
    download
        .content
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

impl Subject {
    pub async fn workspace(&self, name: &str) -> Workspace {
        let new = NewWorkspace {
            display_name: format!("Workspace {name}"),
            classification: None,
            metadata: std::collections::BTreeMap::new(),
            sharing: None,
            managed_fields: Vec::new(),
            owner: None,
        };
        let key = BusinessKey { system: "driver".to_owned(), key: name.to_owned() };
        match self.driver.create_workspace(&key, &new, &cause()).await.unwrap() {
            Creation::Created(workspace) | Creation::Existed(workspace) => *workspace,
        }
    }

    pub async fn folder(&self, workspace: &Workspace, path: &str) -> Folder {
        let new = NewFolder {
            path: path.to_owned(),
            classification: None,
            metadata: std::collections::BTreeMap::new(),
            locked: false,
            managed_key: None,
            on_conflict: OnConflict::Fail,
        };
        self.driver.create_folder(&workspace.id, &new, &cause()).await.unwrap().value
    }

    /// A file with a text in it.
    pub async fn file(&self, folder: &str, name: &str, content: &'static str) -> Item {
        self.driver.upload(folder, &file(name), stream(content.as_bytes()), &key(), &cause()).await.unwrap()
    }

    /// All files below a path.
    pub async fn files(&self, workspace: &Workspace, path: &str) -> Vec<Item> {
        pages(|cursor| async move { self.driver.files(&workspace.id, path, cursor.as_deref()).await }).await
    }
}

/// Every entry of a listing. A listing that does not end fails.
pub async fn pages<T, F, W>(read: W) -> Vec<T>
where
    F: Future<Output = Result<Page<T>>>,
    W: Fn(Option<String>) -> F,
{
    let (mut all, mut cursor) = (Vec::new(), None);
    for _ in 0..10_000 {
        let page = read(cursor).await.unwrap();
        all.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
    panic!("the listing does not end");
}

/// What kind of failure and which code.
#[track_caller]
pub fn failure<T: std::fmt::Debug>(result: Result<T>) -> (Kind, String) {
    let Error { kind, code, .. } = result.unwrap_err();
    (kind, code)
}
