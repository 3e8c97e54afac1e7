//! Files into object stores: S3, SFTP, folders.

use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::expression::{Expression, Invalid};
use crate::hex::hex;
use crate::outbound::object_store::names::Key;
use crate::outbound::object_store::{Opened, Source, Store, Upload};
use crate::routes::delivery::{Content, Delivery, Destination, MAX_LISTING, Origin, Receipt, RouteId};
use crate::routes::environment;

/// A store, with the expression that says where in it a file goes.
pub struct ObjectStoreDestination {
    store: Arc<dyn Store>,
    place: String,
    key: Expression,
}

impl ObjectStoreDestination {
    /// Compiles `key`. A bad one is reported with its field.
    pub fn new(store: Arc<dyn Store>, key: &str) -> Result<Self, (String, Invalid)> {
        let key = Expression::compile(key, environment::NAMES).map_err(|invalid| ("key".to_owned(), invalid))?;
        Ok(Self { place: store.describe(), store, key })
    }

    fn key(&self, delivery: &Delivery) -> Result<Key> {
        let unusable = |why: String| {
            let mut error = Error::new(Kind::Rejected, format!("key: {why}"));
            error.code = "key-unusable".into();
            error
        };
        let text = self.key.text(&delivery.variables).map_err(|failed| unusable(failed.message))?;
        Key::new(&text, self.store.rules()).map_err(|why| unusable(why.to_string()))
    }
}

/// What tells the file from every other, whatever its version: 64 hexadecimal digits. In File 360 that takes the workspace, too.
fn identity(origin: &Origin) -> String {
    let mut hash = Sha256::new();
    match origin {
        Origin::Item { workspace, item, .. } => hash.update(format!("item\n{workspace}\n{item}")),
        Origin::Object { store, key, .. } => hash.update(format!("object\n{store}\n{key}")),
    }
    hex(&hash.finalize())
}

/// The content of a delivery, as stores take it.
struct DeliveryContent<'a>(&'a dyn Content);

#[async_trait]
impl Source for DeliveryContent<'_> {
    async fn open(&self) -> Result<Opened> {
        let opened = self.0.open().await?;
        Ok(Opened { size: opened.size, content: opened.content })
    }
}

#[async_trait]
impl Destination for ObjectStoreDestination {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<Receipt> {
        let key = self.key(delivery)?;
        let file = &delivery.file;
        let upload = Upload {
            key: &key,
            size: file.size,
            sha256: file.sha256.as_deref(),
            mime_type: &file.mime_type,
            delivery: &delivery.key,
            file: &identity(&file.origin),
            source: &DeliveryContent(&*delivery.content),
        };
        let stored = self.store.put(upload).await?;
        Ok(Receipt { reference: stored.key, bytes: stored.bytes, duplicate: stored.duplicate, response: None })
    }

    fn place(&self) -> Option<&str> {
        Some(&self.place)
    }

    async fn is_gone(&self, name: &str) -> Result<bool> {
        match self.store.head(name).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind == Kind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Every key of the store: other routes' are among them. `None` when there are more than can be compared.
    async fn listing(&self, _: &RouteId) -> Result<Option<Vec<String>>> {
        let mut keys = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.store.list("", cursor.as_deref()).await?;
            keys.extend(page.entries.into_iter().map(|entry| entry.key));
            if keys.len() > MAX_LISTING {
                return Ok(None);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(Some(keys));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_in_every_version_and_no_other() {
        let item =
            |workspace: &str, item: &str, version| Origin::Item { workspace: workspace.into(), item: item.into(), version };
        assert_eq!(identity(&item("w", "i", 1)), identity(&item("w", "i", 2)));
        assert_ne!(identity(&item("w", "i", 1)), identity(&item("v", "i", 1)));
        let object = Origin::Object { store: "w".into(), key: "i".into(), etag: "e".into() };
        assert_ne!(identity(&item("w", "i", 1)), identity(&object));
    }
}
