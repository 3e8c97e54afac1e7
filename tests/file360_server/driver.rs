//! A driver under test, and what it reaches. The tests that use it know only the trait; what people and administrators do on
//! the other side, they do over plain HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use file360_operator::error::{Error, Kind, Result};
use file360_operator::file360::connector::{Connector, Credential, Observer, Settings, Transport};
use file360_operator::file360::model::{
    BusinessKey, Capability, Folder, Item, NewFolder, NewWorkspace, OnConflict, Page, Workspace,
};
use file360_operator::file360::{ByteStream, Cause, Creation, Download, File360, IdempotencyKey, NewFile};
use file360_operator::redacted::Redacted;
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, http, start};

/// A tenant and the driver that reaches it.
pub struct Tenant {
    pub driver: Arc<dyn File360>,
    pub fixture: Fixture,
}

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
    able.then_some(Tenant { driver, fixture })
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

impl Tenant {
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
