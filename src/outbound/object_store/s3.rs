//! Amazon S3 and what speaks its API.
//!
//! A small object is one request: a `PUT` that succeeds only where nothing lies, with the content's SHA-256 in its signature, which the
//! server checks. A larger one whose SHA-256 is known goes in one request as well, after a look at what lies there, and nothing of it is held.
//! The rest goes in parts and appears when all are there. The requests are made here and not by a general storage library:
//! those put keys into a form of their own (`a//b` becomes `a/b`, a space at the end goes), and then read or overwrite another object.

mod client;
mod multipart;
mod sign;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use http::{HeaderMap, Method, header};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::Semaphore;

use self::client::{Body, Client, Gathering, Request, send_error};
use super::names::{self, Rules};
use super::{Entry, Object, Opened, Page, Settings, Store, Stored, Stream, Upload, exactly, key_taken, opened};
use crate::api::places::S3;
use crate::error::{Error, Kind, Result};
use crate::outbound::secrets::References;

/// Largest object that is held in memory while it goes, and usual size of a part, in bytes.
const PART: u64 = 8 * 1024 * 1024;
/// Largest object that S3 takes in one request, in bytes.
const LARGEST_PUT: u64 = 5 * 1024 * 1024 * 1024;
/// Content of all uploads to S3 that the process holds at a time, in KiB. An upload waits for its share.
const BUDGET_KIB: usize = 128 * 1024;
/// Largest page of a listing that is read, in bytes: 1,000 keys of 1,024 bytes, each byte encoded.
const MAX_LISTING: usize = 8 * 1024 * 1024;
/// Silence that ends a download.
const SILENCE: Duration = Duration::from_mins(1);

/// User-defined metadata: which delivery an object came from.
const DELIVERY: &str = "x-amz-meta-file360-key";
/// Which file it is, whatever its version.
const FILE: &str = "x-amz-meta-file360-file";
/// SHA-256 of the whole.
const SHA256: &str = "x-amz-meta-file360-sha256";

static BUDGET: Semaphore = Semaphore::const_new(BUDGET_KIB);

/// A bucket.
pub struct S3Store {
    client: Arc<Client>,
    /// The server does not know conditions on writing; it is asked before instead.
    lacks_conditions: AtomicBool,
}

/// When an object may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// Nothing lies there.
    Absent,
    /// What lies there is still this.
    Still(String),
    /// Always: the server knows no conditions.
    None,
}

impl Condition {
    fn header(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Absent => Some(("if-none-match", "*")),
            Self::Still(etag) => Some(("if-match", etag)),
            Self::None => None,
        }
    }
}

/// What lies where an upload goes.
enum Standing {
    Nothing,
    /// This very delivery.
    Delivered,
    /// Another version of the same file.
    Earlier(String),
}

impl S3Store {
    /// Checks the address; sends nothing.
    pub fn new(spec: &S3, references: Arc<dyn References>, settings: &Settings) -> Result<Self> {
        let client = Arc::new(Client::new(spec, references, settings)?);
        Ok(Self { client, lacks_conditions: AtomicBool::new(false) })
    }

    /// A small object: one request, unless something lies there.
    async fn put_whole(&self, upload: &Upload<'_>) -> Result<Stored> {
        let _share = share(upload.size).await?;
        let body = gathered(opened(upload).await?, upload).await?;
        if !self.lacks_conditions.load(Ordering::Relaxed) {
            match self.put_once(upload, &body, &Condition::Absent).await {
                Err(error) if error.kind == Kind::Stale => {}
                Err(error) if error.kind == Kind::Unsupported => self.lacks_conditions.store(true, Ordering::Relaxed),
                other => return other.map(|()| stored(upload)),
            }
        }
        match self.condition(upload).await? {
            None => Ok(duplicate(upload)),
            Some(condition) => self.put_once(upload, &body, &condition).await.map(|()| stored(upload)),
        }
    }

    /// A large object whose SHA-256 is known: one request, too, but nothing of it is held.
    async fn put_streamed(&self, upload: &Upload<'_>, sha256: &str) -> Result<Stored> {
        let Some(condition) = self.condition(upload).await? else { return Ok(duplicate(upload)) };
        let mut request = Request::new(Method::PUT, Some(upload.key.as_str()));
        request.headers = description(upload, Some(sha256));
        request.headers.extend(condition.header());
        request.body = Body { chunks: Vec::new(), size: upload.size, sha256: sha256.to_owned() };
        match self.client.send_stream(&request, opened(upload).await?).await {
            Ok(_) => Ok(stored(upload)),
            // Another try was faster: what lies there now says whether it was this delivery.
            Err(error) if error.kind == Kind::Stale && self.condition(upload).await?.is_none() => Ok(duplicate(upload)),
            Err(error) if error.kind == Kind::Unsupported && condition != Condition::None => {
                self.lacks_conditions.store(true, Ordering::Relaxed);
                Err(Error::new(Kind::Unavailable, "the server knows no conditions on writing; the next try goes without"))
            }
            Err(error) => Err(error),
        }
    }

    async fn put_once(&self, upload: &Upload<'_>, body: &Body, condition: &Condition) -> Result<()> {
        let mut request = Request::new(Method::PUT, Some(upload.key.as_str()));
        request.headers = description(upload, Some(&body.sha256));
        request.headers.extend(condition.header());
        request.body = body.clone();
        self.client.send(&request).await.map(drop)
    }

    /// What has to hold when the upload is written; `None`: it is there.
    async fn condition(&self, upload: &Upload<'_>) -> Result<Option<Condition>> {
        let condition = match self.standing(upload).await? {
            Standing::Delivered => return Ok(None),
            Standing::Nothing => Condition::Absent,
            Standing::Earlier(etag) => Condition::Still(etag),
        };
        Ok(Some(if self.lacks_conditions.load(Ordering::Relaxed) { Condition::None } else { condition }))
    }

    async fn standing(&self, upload: &Upload<'_>) -> Result<Standing> {
        let object = match self.head(upload.key.as_str()).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(Standing::Nothing),
            other => other?,
        };
        let tag = |name: &str| object.metadata.get(name.trim_start_matches("x-amz-meta-")).map(String::as_str);
        if tag(DELIVERY) == Some(upload.delivery) && object.entry.size == upload.size {
            return Ok(Standing::Delivered);
        }
        if tag(FILE) == Some(upload.file) {
            Ok(Standing::Earlier(object.entry.etag))
        } else {
            Err(key_taken(upload.key.as_str()))
        }
    }
}

#[async_trait]
impl Store for S3Store {
    fn kind(&self) -> &'static str {
        "s3"
    }

    fn describe(&self) -> String {
        format!("s3://{}/{}", self.client.authority(), self.client.bucket())
    }

    fn rules(&self) -> Rules {
        Rules::Object
    }

    async fn put(&self, upload: Upload<'_>) -> Result<Stored> {
        let result = match upload.sha256 {
            _ if upload.size <= PART => self.put_whole(&upload).await,
            Some(sha256) if upload.size <= LARGEST_PUT => self.put_streamed(&upload, sha256).await,
            _ => self.put_in_parts(&upload).await,
        };
        result.map_err(|error| error.while_doing(format!("put {} bytes to {}", upload.size, self.describe())))
    }

    async fn head(&self, key: &str) -> Result<Object> {
        addressable(key)?;
        let response = self.client.send(&Request::new(Method::HEAD, Some(key))).await?;
        object(key, response.headers())
    }

    async fn open(&self, key: &str, etag: &str) -> Result<Opened> {
        addressable(key)?;
        let mut request = Request::new(Method::GET, Some(key));
        request.headers.push(("if-match", etag));
        let sent = tokio::time::timeout(SILENCE, self.client.send(&request)).await;
        let response = sent.map_err(|_| silent())??;
        let size = response
            .content_length()
            .ok_or_else(|| Error::new(Kind::Malformed, "the answer of S3 does not say its length"))?;
        let chunks = response.bytes_stream().map(|chunk| chunk.map_err(|error| send_error(&error))).boxed();
        Ok(Opened { size, content: exactly(size, with_patience(chunks)) })
    }

    async fn list(&self, prefix: &str, cursor: Option<&str>) -> Result<Page> {
        let mut request = Request::new(Method::GET, None);
        request.query = vec![("list-type", "2"), ("max-keys", "1000"), ("encoding-type", "url"), ("prefix", prefix)];
        request.query.extend(cursor.map(|cursor| ("start-after", cursor)));
        let listing: Listing = self.client.send_for_xml(&request, MAX_LISTING).await?;
        listing.page(cursor)
    }
}

/// An upload's share of the memory that all may use.
async fn share(size: u64) -> Result<tokio::sync::SemaphorePermit<'static>> {
    let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX).min(u32::try_from(BUDGET_KIB).unwrap_or(u32::MAX));
    BUDGET.acquire_many(kib.max(1)).await.map_err(|_| Error::new(Kind::Stopping, "the operator is stopping"))
}

/// All of a small object. Where its SHA-256 is known, that is what the server will check the bytes against.
async fn gathered(mut content: Stream, upload: &Upload<'_>) -> Result<Body> {
    let mut gathering = Gathering::new(upload.sha256.is_none());
    while let Some(chunk) = content.next().await.transpose()? {
        gathering.add(chunk);
    }
    Ok(gathering.body(upload.sha256))
}

/// What an object is described with.
fn description<'a>(upload: &Upload<'a>, sha256: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
    let mut headers = vec![(DELIVERY, upload.delivery), (FILE, upload.file)];
    headers.extend(sha256.or(upload.sha256).map(|sha256| (SHA256, sha256)));
    // What is no media type is left out rather than sent as a header.
    let is_type =
        |text: &str| text.len() <= 127 && text.contains('/') && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    headers.push(("content-type", if is_type(upload.mime_type) { upload.mime_type } else { "application/octet-stream" }));
    headers
}

fn stored(upload: &Upload<'_>) -> Stored {
    Stored { key: upload.key.to_string(), bytes: upload.size, duplicate: false }
}

fn duplicate(upload: &Upload<'_>) -> Stored {
    Stored { key: upload.key.to_string(), bytes: 0, duplicate: true }
}

fn addressable(key: &str) -> Result<()> {
    if names::is_addressable(key) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Rejected,
        "an object whose name has a `.` or `..` segment cannot be asked for without reaching another one",
    ))
}

fn object(key: &str, headers: &HeaderMap) -> Result<Object> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let lacks = |what: &str| Error::new(Kind::Malformed, format!("the answer of S3 lacks {what}"));
    let modified_at = text(header::LAST_MODIFIED.as_str()).and_then(|text| jiff::fmt::rfc2822::parse(&text).ok());
    let size = text(header::CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
    let metadata: BTreeMap<String, String> = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix("x-amz-meta-")?, value)))
        .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    Ok(Object {
        entry: Entry {
            key: key.to_owned(),
            size: size.ok_or_else(|| lacks("Content-Length"))?,
            etag: text(header::ETAG.as_str()).ok_or_else(|| lacks("ETag"))?,
            modified_at: modified_at.ok_or_else(|| lacks("Last-Modified"))?.timestamp(),
        },
        mime_type: text(header::CONTENT_TYPE.as_str()),
        metadata,
    })
}

/// The stream with an error when nothing comes for long.
fn with_patience(content: Stream) -> Stream {
    futures::stream::try_unfold(content, |mut content| async move {
        let next = tokio::time::timeout(SILENCE, content.next()).await.map_err(|_| silent())?;
        Ok(next.transpose()?.map(|chunk| (chunk, content)))
    })
    .boxed()
}

fn silent() -> Error {
    Error::new(Kind::Unavailable, "S3 fell silent")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    encoding_type: String,
    #[serde(default)]
    contents: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    key: String,
    last_modified: String,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
}

impl Listing {
    fn page(self, cursor: Option<&str>) -> Result<Page> {
        let is_encoded = self.encoding_type == "url";
        let mut page = Page::default();
        let mut last = None;
        for listed in self.contents {
            let key = if is_encoded { url_decoded(&listed.key)? } else { listed.key };
            last = Some(key.clone());
            // What consoles make to show an empty folder is no file.
            if key.ends_with('/') && listed.size == 0 {
                continue;
            }
            let modified_at: Timestamp = listed
                .last_modified
                .parse()
                .map_err(|_| Error::new(Kind::Malformed, "a time in the listing of S3 is none"))?;
            page.entries.push(Entry { key, size: listed.size, etag: listed.etag, modified_at });
        }
        page.next = last.filter(|_| self.is_truncated);
        if page.next.is_some() && page.next.as_deref() == cursor {
            return Err(Error::new(Kind::Malformed, "the listing of S3 does not move on"));
        }
        Ok(page)
    }
}

/// `+` stands for a space here.
fn url_decoded(text: &str) -> Result<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Error::new(Kind::Malformed, "a key in the listing of S3 is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_and_goes_on_after_its_last_key() {
        let text = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><IsTruncated>true</IsTruncated>\
            <EncodingType>url</EncodingType><Contents><Key>a+b%2Fc%01</Key><LastModified>2026-03-04T05:06:07.000Z</LastModified>\
            <ETag>&quot;1&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents><Contents><Key>folder/</Key>\
            <LastModified>2026-03-04T05:06:07.000Z</LastModified><ETag>x</ETag><Size>0</Size></Contents></ListBucketResult>";
        let read = || quick_xml::de::from_str::<Listing>(text).unwrap();
        let page = read().page(None).unwrap();
        assert_eq!(page.entries.len(), 1, "markers of folders are no files");
        assert_eq!(
            (page.entries[0].key.as_str(), page.entries[0].etag.as_str(), page.entries[0].size),
            ("a b/c\u{1}", "\"1\"", 7)
        );
        assert_eq!(page.next.as_deref(), Some("folder/"));
        assert!(read().page(Some("folder/")).is_err(), "a listing that does not move on is no listing");
        let empty: Listing = quick_xml::de::from_str("<ListBucketResult/>").unwrap();
        assert_eq!(empty.page(None).unwrap(), Page::default());
    }

    #[test]
    fn metadata_of_an_object_has_lower_case_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-length", "12"),
            ("etag", "\"x\""),
            ("last-modified", "Wed, 04 Mar 2026 05:06:07 GMT"),
            ("x-amz-meta-claimid", "4711"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let found = object("k", &headers).unwrap();
        assert_eq!(found.metadata, BTreeMap::from([("claimid".to_owned(), "4711".to_owned())]));
        assert_eq!(found.entry.modified_at.to_string(), "2026-03-04T05:06:07Z");
        headers.remove("etag");
        assert!(object("k", &headers).is_err());
    }
}
