//! `multipart/form-data`: text fields, which become metadata, and then one file.
//!
//! The signature covers the whole body, so fields and file name are as proven as the content. Fields come before the file, since a file has its
//! metadata from its first moment.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header;
use multer::{Field, Multipart};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::body::Shared;
use super::digest::Sha256Digest;
use super::disposition;
use super::names::Metadata;
use super::problem::Refusal;
use crate::error::{Error, Result};
use crate::file360::ByteStream;

/// Longest boundary (RFC 2046).
const LONGEST_BOUNDARY: usize = 70;
/// Longest value of a text field, in bytes.
const LONGEST_FIELD: usize = 8 * 1024;
/// What may arrive without a field or file to give it to: the heads of parts, and what stands before the first.
const LONGEST_HEAD: usize = 64 * 1024;

/// A form up to its file.
pub struct Form {
    /// Name of the file: untrusted.
    pub file_name: Option<String>,
    /// Media type of the file: untrusted.
    pub media_type: Option<String>,
    /// The file. Ends well only when the form ends after it and the digest of the whole body is right.
    pub content: ByteStream,
    /// SHA-256 of the file, once it was read to its end.
    pub sha256: Arc<Mutex<Option<Sha256Digest>>>,
}

/// The boundary, if the media type is that of a form.
pub fn boundary(media_type: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(media_type) = media_type else { return Ok(None) };
    if !media_type.trim_start().to_ascii_lowercase().starts_with("multipart/") {
        return Ok(None);
    }
    let boundary = multer::parse_boundary(media_type).ok().filter(|it| (1..=LONGEST_BOUNDARY).contains(&it.len()));
    let why = || Refusal::malformed("A form is multipart/form-data with a boundary of 1 to 70 characters.");
    boundary.map(Some).ok_or_else(why)
}

/// Reads the fields of a form into `metadata`, up to the head of its file.
pub async fn open(arrival: Shared, boundary: &str, metadata: &mut Metadata) -> Result<Form, Refusal> {
    let unparsed = Arc::new(AtomicUsize::new(0));
    let mut parts = Multipart::new(Paced::new(Arc::clone(&arrival), Arc::clone(&unparsed)), boundary);
    let opened = fields(&mut parts, metadata, &unparsed).await;
    let (field, disposition) = match opened {
        Ok(file) => file,
        Err(refusal) => {
            // The parts may still hold the body.
            drop(parts);
            return Err(arrival.lock().await.refusal().cloned().unwrap_or(refusal));
        }
    };
    let media_type = field.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let sha256 = Arc::default();
    let state = Reading { parts, field, arrival, unparsed, hash: Sha256::new(), held: None, sha256: Arc::clone(&sha256) };
    let content = futures::stream::try_unfold(Some(state), |state| async {
        match state {
            Some(state) => state.next().await,
            None => Ok(None),
        }
    });
    Ok(Form {
        file_name: disposition.file_name.filter(|name| !name.is_empty()),
        media_type,
        content: content.boxed(),
        sha256,
    })
}

/// Reads fields until a part is a file.
async fn fields(
    parts: &mut Multipart<'static>,
    metadata: &mut Metadata,
    unparsed: &AtomicUsize,
) -> Result<(Field<'static>, disposition::Disposition), Refusal> {
    while let Some(mut field) = parts.next_field().await.map_err(|_| broken())? {
        unparsed.store(0, Ordering::Relaxed);
        let head = field.headers().get(header::CONTENT_DISPOSITION).map(|value| disposition::parse(value.as_bytes()));
        let head = head.unwrap_or_default();
        if head.file_name.is_some() {
            return Ok((field, head));
        }
        let name = head.name.ok_or_else(|| Refusal::malformed("A part of the form has no name."))?;
        let mut value = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(|_| broken())? {
            unparsed.store(0, Ordering::Relaxed);
            value.extend_from_slice(&chunk);
            if value.len() > LONGEST_FIELD {
                return Err(Refusal::invalid("A field of the form is too long."));
            }
        }
        let value = String::from_utf8(value).map_err(|_| Refusal::invalid("A field of the form is not UTF-8."))?;
        metadata.add(&name, &value).map_err(Refusal::invalid)?;
    }
    Err(Refusal::invalid("The form has no file."))
}

fn broken() -> Refusal {
    Refusal::malformed("The form broke off, or is not multipart/form-data.")
}

/// The file of a form while it is being read.
struct Reading {
    parts: Multipart<'static>,
    field: Field<'static>,
    arrival: Shared,
    unparsed: Arc<AtomicUsize>,
    hash: Sha256,
    held: Option<Bytes>,
    sha256: Arc<Mutex<Option<Sha256Digest>>>,
}

impl Reading {
    /// The bytes before the last that are known; the last ones once the form has ended well.
    async fn next(mut self) -> Result<Option<(Bytes, Option<Self>)>> {
        loop {
            match self.field.chunk().await {
                Ok(Some(chunk)) => {
                    self.unparsed.store(0, Ordering::Relaxed);
                    if chunk.is_empty() {
                        continue;
                    }
                    self.hash.update(&chunk);
                    if let Some(earlier) = self.held.replace(chunk) {
                        return Ok(Some((earlier, Some(self))));
                    }
                }
                Ok(None) => return self.end().await,
                Err(_) => return Err(self.fail(broken()).await),
            }
        }
    }

    async fn end(mut self) -> Result<Option<(Bytes, Option<Self>)>> {
        // Two fields at once would be a failure of the parser.
        drop(self.field);
        let mut parts = self.parts;
        let after = parts.next_field().await;
        let why = match after {
            Ok(None) => None,
            Ok(Some(_)) => Some(Refusal::invalid("Fields come before the file, and a form has one file.")),
            Err(_) => Some(broken()),
        };
        drop(after);
        drop(parts);
        let mut arrival = self.arrival.lock().await;
        if let Some(why) = why {
            arrival.fail(why);
        }
        // What follows the last boundary has no meaning, but is part of the digest.
        while arrival.next().await.map_err(|refusal| Error::from(&refusal))?.is_some() {}
        *self.sha256.lock() = Some(self.hash.finalize().into());
        Ok(self.held.take().map(|last| (last, None)))
    }

    async fn fail(self, why: Refusal) -> Error {
        drop(self.field);
        drop(self.parts);
        let mut arrival = self.arrival.lock().await;
        arrival.fail(why);
        arrival.refusal().map_or_else(|| Error::from(&broken()), Error::from)
    }
}

/// The body for the parser: one chunk at a time, and no more than a head's length that it finds no use for. The parser would otherwise keep
/// whatever is ready, however much.
struct Paced {
    chunks: ByteStream,
    unparsed: Arc<AtomicUsize>,
    has_given: bool,
}

impl Paced {
    fn new(arrival: Shared, unparsed: Arc<AtomicUsize>) -> Self {
        let chunks = futures::stream::try_unfold(arrival, |arrival| async {
            let next = arrival.lock().await.next().await.map_err(|refusal| Error::from(&refusal))?;
            Ok(next.map(|chunk| (chunk, arrival)))
        });
        Self { chunks: chunks.boxed(), unparsed, has_given: false }
    }
}

impl Stream for Paced {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.has_given) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.chunks.poll_next_unpin(cx);
        if let Poll::Ready(Some(Ok(chunk))) = &next {
            self.has_given = true;
            if self.unparsed.fetch_add(chunk.len(), Ordering::Relaxed) > LONGEST_HEAD {
                return Poll::Ready(Some(Err(Error::from(&Refusal::malformed("The head of a part is too long.")))));
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use axum::body::Body;
    use futures::TryStreamExt;

    use super::*;
    use crate::inbound::body::{Arrival, Limits};

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"kind\"\r\n\r\ninvoice\r\n\
                        --b\r\ncontent-disposition: form-data; name=file; filename=\"a.pdf\"\r\ncontent-type: application/pdf\r\n\r\nsome \r\n--, \r\n-bytes\r\n\
                        --b--\r\n";

    fn arrival(text: &str, size: usize) -> Shared {
        arrival_of(text, size, text)
    }

    fn arrival_of(text: &str, size: usize, digest_of: &str) -> Shared {
        let chunks: Vec<Bytes> = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
        let body = Body::from_stream(futures::stream::iter(chunks).map(Ok::<_, std::io::Error>));
        let digest = Sha256::digest(digest_of).into();
        Arc::new(tokio::sync::Mutex::new(Arrival::new(body, 1 << 20, digest, Limits::default())))
    }

    async fn whole(text: &str, size: usize) -> Result<(Metadata, Form, Vec<u8>), String> {
        let (arrival, mut metadata) = (arrival(text, size), Metadata::default());
        let mut form =
            open(Arc::clone(&arrival), "b", &mut metadata).await.map_err(|refusal| refusal.detail.into_owned())?;
        let content = std::mem::replace(&mut form.content, futures::stream::empty().boxed());
        let read: Result<Vec<Bytes>> = content.try_collect().await;
        match read {
            Ok(chunks) => Ok((metadata, form, chunks.concat())),
            Err(_) => Err(arrival.lock().await.refusal().unwrap().detail.clone().into_owned()),
        }
    }

    #[tokio::test]
    async fn fields_become_metadata_and_the_file_passes_unchanged_however_it_is_cut() {
        for size in [1, 2, 3, 7, 50, 100_000] {
            let (metadata, form, content) = whole(FORM, size).await.unwrap();
            assert_eq!(metadata.into_entries().into_iter().collect::<Vec<_>>(), [("kind".to_owned(), "invoice".to_owned())]);
            assert_eq!(form.file_name.as_deref(), Some("a.pdf"));
            assert_eq!(form.media_type.as_deref(), Some("application/pdf"));
            assert_eq!(content, b"some \r\n--, \r\n-bytes", "in chunks of {size}");
            assert_eq!(*form.sha256.lock(), Some(Sha256::digest(content).into()));
        }
    }

    #[tokio::test]
    async fn a_form_that_is_none_is_not_taken_for_whole() {
        let with = |from: &str, to: &str| FORM.replace(from, to);
        for (text, why) in [
            (with("; filename=\"a.pdf\"", "").replace("some \r\n--, \r\n", ""), "has no file"),
            (with("--b--\r\n", ""), "broke off"),
            (with("--b--\r\n", "--b"), "broke off"),
            (with("--b--", "--b\r\nContent-Disposition: form-data; name=x\r\n\r\nlate\r\n--b--"), "before the file"),
            (with("name=\"kind\"", "nome=x"), "no name"),
            (with("invoice", &"x".repeat(9000)), "too long"),
            (with("invoice", "a\0b"), "control characters"),
            (with("Content-Disposition: form-data; name=\"kind\"", &format!("X: {}", "y".repeat(100_000))), "broke off"),
            ("no boundary at all".repeat(10_000), "broke off"),
            (String::new(), "broke off"),
        ] {
            let refused =
                whole(&text, 1000).await.err().unwrap_or_else(|| panic!("taken: {}", &text[..text.len().min(200)]));
            assert!(refused.contains(why), "{refused}: {}", &text[..text.len().min(200)]);
        }
    }

    #[tokio::test]
    async fn r3_a_form_with_a_wrong_digest_never_ends_well_and_its_last_bytes_never_come() {
        for size in [1, 7, 100_000] {
            let arrival = arrival_of(FORM, size, "other");
            let refused = match open(Arc::clone(&arrival), "b", &mut Metadata::default()).await {
                Err(refusal) => refusal,
                Ok(mut form) => {
                    let mut passed = Vec::new();
                    let error = loop {
                        match form.content.next().await {
                            Some(Ok(chunk)) => passed.extend_from_slice(&chunk),
                            Some(Err(error)) => break error,
                            None => panic!("it was taken for whole"),
                        }
                    };
                    assert!(passed.len() < "some \r\n--, \r\n-bytes".len() && error.code == "digest-mismatch");
                    arrival.lock().await.refusal().unwrap().clone()
                }
            };
            assert_eq!(refused.code, "digest-mismatch", "in chunks of {size}");
        }
    }

    #[tokio::test]
    async fn a_preamble_without_end_is_given_up_soon() {
        let given = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&given);
        let endless = futures::stream::repeat_with(move || {
            counted.fetch_add(1000, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1000]))
        });
        let arrival = Arrival::new(Body::from_stream(endless), u64::MAX, Sha256Digest::default(), Limits::default());
        let refused = open(Arc::new(tokio::sync::Mutex::new(arrival)), "b", &mut Metadata::default()).await;
        assert!(refused.is_err());
        assert!(given.load(Ordering::Relaxed) < 100_000);
    }

    #[test]
    fn the_boundary_is_taken_from_forms_only() {
        assert_eq!(boundary(None), Ok(None));
        assert_eq!(boundary(Some("application/pdf")), Ok(None));
        assert_eq!(boundary(Some("Multipart/Form-Data; boundary=abc")), Ok(Some("abc".into())));
        for odd in [
            "multipart/mixed; boundary=abc",
            "multipart/form-data",
            &format!("multipart/form-data; boundary={}", "x".repeat(71)),
        ] {
            assert!(boundary(Some(odd)).is_err(), "{odd}");
        }
    }
}
