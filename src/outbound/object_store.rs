//! Object stores: S3, SFTP and folders behind one trait, for files that go there and files that come from there.
//!
//! An object appears whole or not at all, and only with the bytes that its source stands for. What lies there already is replaced by a newer
//! version of the same file and by nothing else. docs/object-stores.md says what each store guarantees, and how.

pub mod fs;
pub mod names;
pub mod s3;
pub mod sftp;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;

use self::names::{Key, Rules};
use super::guard::Guard;
use super::secrets::References;
use crate::api::places::ObjectStore;
use crate::error::{Error, Kind, Result};

/// Bytes as they come.
pub type Stream = BoxStream<'static, Result<Bytes>>;

/// Code of the failure to put an object where another file's lies.
pub const KEY_TAKEN: &str = "key-taken";

/// Where the operator may call, whom it trusts, and which folders it was given.
#[derive(Clone, Default)]
pub struct Settings {
    /// Which addresses are fine.
    pub guard: Arc<Guard>,
    /// Authorities that are trusted besides the public ones.
    pub extra_ca: Vec<reqwest::Certificate>,
    /// The folders of `--folder NAME=PATH`.
    pub folders: BTreeMap<String, PathBuf>,
}

/// Something to put into a store.
pub struct Upload<'a> {
    /// Its name there, made with the store's [`Store::rules`].
    pub key: &'a Key,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the whole in lower-case hexadecimal, where it is known.
    pub sha256: Option<&'a str>,
    /// Media type: untrusted.
    pub mime_type: &'a str,
    /// Tells this delivery from every other: 64 hexadecimal digits.
    pub delivery: &'a str,
    /// Tells the file from every other, whatever its version: 64 hexadecimal digits.
    pub file: &'a str,
    /// Where the bytes come from; opened only when they are needed.
    pub source: &'a dyn Source,
}

/// Content that can be opened at its beginning, as often as needed.
#[async_trait]
pub trait Source: Send + Sync {
    /// Opens it.
    async fn open(&self) -> Result<Opened>;
}

/// Content that is being read.
pub struct Opened {
    /// Bytes.
    pub size: u64,
    /// The bytes. The stream ends with an error when there are fewer or more.
    pub content: Stream,
}

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The name it has there.
    pub key: String,
    /// Bytes that were sent.
    pub bytes: u64,
    /// It was there already, from this delivery.
    pub duplicate: bool,
}

/// An object, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: untrusted.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Changes when the content does.
    pub etag: String,
    /// When it was written last.
    pub modified_at: Timestamp,
}

/// An object, with what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// As in a listing.
    pub entry: Entry,
    /// Media type, where the store keeps one: untrusted.
    pub mime_type: Option<String>,
    /// User-defined metadata, where the store keeps some, with lower-case names: untrusted.
    pub metadata: BTreeMap<String, String>,
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects; there may be none though more pages come.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// An object store.
#[async_trait]
pub trait Store: Send + Sync {
    /// `s3`, `sftp` or `fs`.
    fn kind(&self) -> &'static str;

    /// What tells the store from every other: kind, host, bucket or folder. Never a credential.
    fn describe(&self) -> String;

    /// What names are like there.
    fn rules(&self) -> Rules;

    /// Puts an object. Returns once it is durable. Run twice for one delivery, it has the effect of running once. Where another file's
    /// object lies: [`Kind::Conflict`] with code [`KEY_TAKEN`], and it stays. Content that ends with an error or has another length
    /// than it said never becomes visible.
    async fn put(&self, upload: Upload<'_>) -> Result<Stored>;

    /// One object; [`Kind::NotFound`] if it is not there.
    async fn head(&self, key: &str) -> Result<Object>;

    /// Opens the content that `etag` stands for; [`Kind::Stale`] when it is another by now. A change while it is read ends the stream
    /// with an error where the store can tell.
    async fn open(&self, key: &str, etag: &str) -> Result<Opened>;

    /// Objects whose name starts with `prefix`, from `cursor` on, in an order of the store's that stays the same.
    async fn list(&self, prefix: &str, cursor: Option<&str>) -> Result<Page>;
}

/// The store that a manifest of `namespace` names. Nothing is sent yet.
pub fn store(
    spec: &ObjectStore,
    namespace: &str,
    references: Arc<dyn References>,
    settings: &Settings,
) -> Result<Arc<dyn Store>> {
    match (&spec.s3, &spec.sftp, &spec.fs) {
        (Some(s3), None, None) => Ok(Arc::new(s3::S3Store::new(s3, references, settings)?)),
        (None, Some(sftp), None) => Ok(Arc::new(sftp::store(sftp, references, settings)?)),
        (None, None, Some(folder)) => Ok(Arc::new(fs::store(folder, namespace, settings)?)),
        _ => Err(Error::new(Kind::Rejected, "objectStore needs exactly one of s3, sftp and fs")),
    }
}

/// The stream with an error instead of its last bytes when it has not exactly `size` of them; nothing beyond `size` is handed out. What is held back
/// keeps a server that takes a broken request for a whole one from storing anything: it never has all the bytes.
fn exactly(size: u64, content: Stream) -> Stream {
    stream::try_unfold((content.fuse(), size, None::<Bytes>), |(mut content, mut left, mut held)| async move {
        while let Some(chunk) = content.next().await.transpose()? {
            left = left.checked_sub(chunk.len() as u64).ok_or_else(|| wrong_length("more"))?;
            if chunk.is_empty() {
                continue;
            }
            if let Some(before) = held.replace(chunk) {
                return Ok(Some((before, (content, left, held))));
            }
        }
        if left > 0 {
            return Err(wrong_length("fewer"));
        }
        Ok(held.take().map(|last| (last, (content, left, None))))
    })
    .boxed()
}

/// Opens the source of an upload and holds it to the length that was said.
async fn opened(upload: &Upload<'_>) -> Result<Stream> {
    let opened = upload.source.open().await?;
    if opened.size != upload.size {
        return Err(Error::new(
            Kind::Stale,
            format!("the file has {} bytes by now, not the {} that were seen", opened.size, upload.size),
        ));
    }
    Ok(exactly(opened.size, opened.content))
}

fn wrong_length(what: &str) -> Error {
    Error::new(Kind::Unavailable, format!("the content has {what} bytes than its source said; nothing was stored"))
}

fn key_taken(key: &str) -> Error {
    let mut error = Error::new(
        Kind::Conflict,
        format!(
            "`{}` is there already and is not an earlier version of this file; it was left alone. Let the key expression tell files apart",
            crate::error::clean(key, 200)
        ),
    );
    error.code = KEY_TAKEN.into();
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn through(size: u64, chunks: &[&'static str]) -> Result<String> {
        let content =
            stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect::<Vec<_>>()).boxed();
        let mut text = String::new();
        let mut content = exactly(size, content);
        while let Some(chunk) = content.next().await.transpose()? {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        Ok(text)
    }

    #[tokio::test]
    async fn r3_content_of_another_length_ends_with_an_error() {
        assert_eq!(through(5, &["ab", "", "cde"]).await.unwrap(), "abcde");
        assert_eq!(through(0, &[]).await.unwrap(), "");
        assert!(through(6, &["ab", "cde"]).await.unwrap_err().to_string().contains("fewer"));
        assert!(through(4, &["ab", "cde"]).await.unwrap_err().to_string().contains("more"));
    }
}
