//! One file on its way to one destination.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::file_route::FileEvent;
use crate::error::Result;
use crate::expression::Variables;
use crate::file360::content::ByteStream;
use crate::hex::hex;

/// Longest listing of a destination that is compared, in names.
pub const MAX_LISTING: usize = 1_000_000;

/// Which route, for keys, events and records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteId {
    /// Identity of the cluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Where a file comes from, and what tells it and its version from every other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A version of a file in File 360.
    Item {
        /// Id of the workspace.
        workspace: String,
        /// Id of the item.
        item: String,
        /// The version.
        version: u64,
    },
    /// An object of a store.
    Object {
        /// What tells the store from every other: kind, host, bucket.
        store: String,
        /// Its key.
        key: String,
        /// Entity tag, or size and time where the store has none.
        etag: String,
    },
}

impl Origin {
    /// What stays the same for every version of the file.
    pub fn file(&self) -> String {
        match self {
            Self::Item { item, .. } => item.clone(),
            Self::Object { store, key, .. } => format!("{store}/{key}"),
        }
    }

    /// The version, as text.
    pub fn version(&self) -> String {
        match self {
            Self::Item { version, .. } => version.to_string(),
            Self::Object { etag, .. } => etag.clone(),
        }
    }
}

/// What is known about a file.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Where it comes from.
    pub origin: Origin,
    /// Its name: untrusted.
    pub name: String,
    /// Path in the workspace, or key in the store: untrusted.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal, where the source tells it.
    pub sha256: Option<String>,
    /// Media type: untrusted.
    pub mime_type: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub modified_at: Timestamp,
    /// Who made it, for people.
    pub created_by: Option<String>,
    /// Classification label.
    pub classification: Option<String>,
    /// Metadata: untrusted.
    pub metadata: BTreeMap<String, String>,
    /// Name of the workspace for people; the store for objects.
    pub workspace_name: String,
}

/// The content of a file: can be opened as often as needed.
#[async_trait]
pub trait Content: Send + Sync {
    /// Opens it at its beginning.
    async fn open(&self) -> Result<Opened>;
}

/// Content that is being read. The stream ends with an error instead of its last bytes when length or SHA-256 differ from what the source
/// told, so that nothing wrong is ever taken for whole.
pub struct Opened {
    /// Bytes.
    pub size: u64,
    /// The bytes.
    pub content: ByteStream,
}

/// One file for one destination.
pub struct Delivery {
    /// The same for every try of this file, version, rule and destination, and for no other (64 hexadecimal digits).
    pub key: String,
    /// The route.
    pub route: Arc<RouteId>,
    /// The rule that took the file.
    pub rule: Arc<str>,
    /// The destination.
    pub destination: Arc<str>,
    /// What happened to it.
    pub event: FileEvent,
    /// When that happened.
    pub event_at: Timestamp,
    /// When the source was looked at: the delivery tells what it said then. Places that keep one entry for each file compare it, so that a late
    /// write, such as that of an operator that lost its leadership, never takes the place of one that looked later.
    pub as_of: Timestamp,
    /// What is known about it.
    pub file: Arc<File>,
    /// What expressions see.
    pub variables: Arc<Variables>,
    /// Entered by an outsider whose address is not proven: nothing that it says may widen access.
    pub untrusted: bool,
    /// Its content.
    pub content: Arc<dyn Content>,
}

/// What a destination acknowledged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Receipt {
    /// Where the file is there: a key, an id, an address. Goes into the ledger.
    pub reference: String,
    /// Bytes of content that were sent.
    pub bytes: u64,
    /// It was there already.
    pub duplicate: bool,
    /// The answer, for `writeBack`: `status`, `headers`, `body`.
    pub response: Option<Value>,
}

/// A place that files go to.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Kind of destination, for metrics: `file360`, `s3`, `sftp`, `fs`, `http`, `nats`, `opensearch`.
    fn kind(&self) -> &'static str;

    /// Delivers one file. Returns once it is durable there. Run twice with one key, it has the effect of running once (R1).
    async fn deliver(&self, delivery: &Delivery) -> Result<Receipt>;

    /// Whether a delivery gives somebody access who has none yet, so that no unverified outsider may choose it (R9).
    fn widens_access(&self) -> bool {
        false
    }

    /// Whether it wants to know what leaves the source and whose access changes.
    fn mirrors(&self) -> bool {
        false
    }

    /// What tells the place from every other: two destinations with the same one show the same entries, and what is withdrawn from one is gone
    /// from the other. `None`: unlike any other.
    fn place(&self) -> Option<&str> {
        None
    }

    /// The file (see [`Origin::file`]) is gone at the source, or not the route's any more, as the source said `as_of` then: what a
    /// delivery wrote that looked later stays. Only called where [`Destination::mirrors`].
    async fn withdraw(&self, route: &RouteId, file: &str, as_of: Timestamp) -> Result<()> {
        let _ = (route, file, as_of);
        Ok(())
    }

    /// What is there: at least everything that this route delivered, under the names of [`Destination::listed_as`]. `None` when it cannot be
    /// listed; a part is never taken for the whole.
    async fn listing(&self, route: &RouteId) -> Result<Option<Vec<String>>> {
        let _ = route;
        Ok(None)
    }

    /// The name under which a listing has a file (see [`Origin::file`]) that was delivered as `reference` (see [`Receipt::reference`]).
    fn listed_as<'a>(&self, file: &'a str, reference: &'a str) -> &'a str {
        if self.mirrors() { file } else { reference }
    }

    /// Whether a name that a listing lacks is really not there.
    async fn is_gone(&self, name: &str) -> Result<bool> {
        let _ = name;
        Ok(true)
    }
}

/// The idempotency key (R1): 64 hexadecimal digits. `occasion` tells deliveries of one version apart that are not about its content, such as
/// changes of metadata; empty for the delivery of the version itself.
pub fn key(route: &RouteId, origin: &Origin, rule: &str, destination: &str, occasion: &str) -> String {
    let mut hash = Sha256::new();
    for part in
        [&route.cluster, &route.namespace, &route.name, &origin.file(), &origin.version(), rule, destination, occasion]
    {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_one_key_for_a_file_version_rule_and_destination() {
        let route = RouteId { cluster: "c".into(), namespace: "n".into(), name: "r".into(), uid: "u".into() };
        let item = |item: &str, version| Origin::Item { workspace: "w".into(), item: item.into(), version };
        let first = key(&route, &item("i", 1), "rule", "to", "");
        assert_eq!(first.len(), 64);
        assert_eq!(
            first,
            key(&RouteId { uid: "other".into(), ..route.clone() }, &item("i", 1), "rule", "to", ""),
            "a re-created route"
        );
        for other in [
            key(&route, &item("i", 2), "rule", "to", ""),
            key(&route, &item("j", 1), "rule", "to", ""),
            key(&route, &item("i", 1), "rulet", "o", ""),
            key(&route, &item("i", 1), "rule", "to", "c7"),
        ] {
            assert_ne!(first, other);
        }
    }
}
