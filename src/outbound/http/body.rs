//! What is sent: documents, and content that streams.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::file360::content::ByteStream;
use crate::hex::hex;
use crate::outbound::cloud_event::{Event, MEDIA_TYPE};

/// Largest document that is sent, in bytes.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// What RFC 8187 leaves as it is in `filename*`.
const IN_PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a call sends.
pub enum Body {
    /// Nothing.
    Empty,
    /// A CloudEvent in structured mode.
    Event(Value),
    /// Any JSON document.
    Json(Value),
    /// A file's content.
    Stream(Upload),
}

/// Content that can be opened as often as needed: a call is repeated with a fresh credential.
#[async_trait]
pub trait Source: Send + Sync {
    /// Opens it at its beginning: how many bytes will come, and the bytes. What goes wrong is told by the stream.
    async fn open(&self) -> Result<(u64, ByteStream)>;
}

/// A file's content, and what stands in the headers about it. Texts may come from outside.
pub struct Upload {
    /// The content.
    pub source: Arc<dyn Source>,
    /// Media type.
    pub mime_type: String,
    /// Name.
    pub file_name: String,
    /// SHA-256 in lower-case hexadecimal, if known. The source's stream fails when its bytes have another.
    pub sha256: Option<String>,
    /// What happened to the file: a CloudEvent in binary mode, whose data is the content.
    pub event: Event,
}

/// A body, ready to be sent more than once.
pub(super) enum Prepared {
    Empty,
    Document { bytes: Bytes, media_type: &'static str },
    Content(Box<Leaving>),
}

/// The parts of a form around the content.
pub(super) struct Form {
    content_type: HeaderValue,
    before: Bytes,
    after: Bytes,
}

/// Content, ready to be sent.
pub(super) struct Leaving {
    upload: Upload,
    form: Option<Form>,
    /// Digest that was computed by reading the content once before; what is sent must have it, too.
    computed: Option<String>,
}

impl Prepared {
    /// `form` has the names of the file's part and of a part with a document.
    pub async fn new(body: Body, form: Option<(&str, Option<(&str, Value)>)>, needs_digest: bool) -> Result<Self> {
        match body {
            Body::Empty => Ok(Self::Empty),
            Body::Event(event) => document(&event, MEDIA_TYPE),
            Body::Json(json) => document(&json, "application/json"),
            Body::Stream(upload) => {
                let form = form.map(|(file, json)| Form::new(file, json, &upload)).transpose()?;
                let computed = match &upload.sha256 {
                    None if needs_digest => Some(digest_of(upload.source.as_ref()).await?),
                    _ => None,
                };
                Ok(Self::Content(Box::new(Leaving { upload, form, computed })))
            }
        }
    }
}

fn document(json: &Value, media_type: &'static str) -> Result<Prepared> {
    let bytes = serde_json::to_vec(json).map_err(|error| Error::new(Kind::Rejected, error.to_string()))?;
    if bytes.len() > MAX_DOCUMENT {
        return Err(Error::new(Kind::Rejected, format!("the document has more than {MAX_DOCUMENT} bytes")));
    }
    Ok(Prepared::Document { bytes: bytes.into(), media_type })
}

impl Form {
    fn new(file: &str, json: Option<(&str, Value)>, upload: &Upload) -> Result<Self> {
        let boundary = format!("file360-{:032x}", rand::random::<u128>());
        let mut before = String::new();
        if let Some((name, json)) = json {
            let part = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\nContent-Type: application/json\r\n\r\n"
            );
            before = format!("{part}{json}\r\n");
        }
        let name: String = upload.file_name.chars().map(in_form).collect();
        let media_type = media_type(&upload.mime_type);
        let media_type = media_type.to_str().unwrap_or("application/octet-stream");
        before = format!(
            "{before}--{boundary}\r\nContent-Disposition: form-data; name=\"{file}\"; filename=\"{name}\"\r\nContent-Type: {media_type}\r\n\r\n"
        );
        if before.len() > MAX_DOCUMENT {
            return Err(Error::new(Kind::Rejected, format!("the document has more than {MAX_DOCUMENT} bytes")));
        }
        let content_type = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}"))
            .map_err(|_| Error::new(Kind::Rejected, "the form cannot be made"))?;
        Ok(Self { content_type, before: before.into(), after: format!("\r\n--{boundary}--\r\n").into() })
    }
}

/// A character of a file's name in a form, as browsers write it; control characters likewise.
fn in_form(c: char) -> String {
    if c == '"' || c.is_control() {
        utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC).to_string()
    } else {
        c.into()
    }
}

/// A media type that is none is sent as bytes of no known type.
fn media_type(text: &str) -> HeaderValue {
    let is_type = text.len() <= 255 && text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
    let value =
        HeaderValue::from_str(text).ok().filter(|_| is_type && text.bytes().all(|byte| byte.is_ascii() && byte != b'\t'));
    value.unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

async fn digest_of(source: &dyn Source) -> Result<String> {
    let (size, content) = source.open().await?;
    let mut checked = Checked::new(content, size, None);
    let mut hash = Sha256::new();
    while let Some(chunk) = checked.next().await {
        hash.update(chunk?);
    }
    Ok(hex(&hash.finalize()))
}

impl Leaving {
    /// SHA-256 of the content, if known.
    pub fn digest(&self) -> Option<&str> {
        self.computed.as_deref().or(self.upload.sha256.as_deref())
    }

    /// Opens the content: the headers that describe it, and a body that ends with an error instead of its last bytes when the content is not
    /// what its source said. `progress` follows it.
    pub async fn open(&self, progress: &Arc<Progress>) -> Result<(HeaderMap, reqwest::Body)> {
        progress.waits();
        let (size, content) = self.upload.source.open().await.inspect_err(|error| progress.failed(error.clone()))?;
        let mut content = Checked::new(content, size, self.computed.clone());
        let mut headers = self.headers();
        let (before, after) = self.form.as_ref().map(|form| (form.before.clone(), form.after.clone())).unwrap_or_default();
        let length = size + before.len() as u64 + after.len() as u64;
        headers.insert(header::CONTENT_LENGTH, length.into());
        progress.expect(length);
        if length == 0 {
            // Nobody would look into an empty body: that it is one is found out here.
            while let Some(chunk) = content.next().await {
                chunk.inspect_err(|error| progress.failed(error.clone()))?;
            }
            progress.moved();
            return Ok((headers, reqwest::Body::from(Bytes::new())));
        }
        progress.moved();
        let body = Outgoing { before: Some(before), content: Some(content), after: Some(after), progress: progress.clone() };
        Ok((headers, reqwest::Body::wrap_stream(body)))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers: HeaderMap = self.upload.event.binary().into_iter().collect();
        let name = utf8_percent_encode(&self.upload.file_name, IN_PARAMETER);
        if let Some(form) = &self.form {
            headers.insert(header::CONTENT_TYPE, form.content_type.clone());
            return headers;
        }
        headers.insert(header::CONTENT_TYPE, media_type(&self.upload.mime_type));
        if let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename*=UTF-8''{name}")) {
            headers.insert(header::CONTENT_DISPOSITION, disposition);
        }
        if let Some(digest) = self.digest().and_then(representation_digest) {
            headers.insert(HeaderName::from_static("repr-digest"), digest);
        }
        headers
    }
}

/// `Repr-Digest` (RFC 9530).
fn representation_digest(sha256: &str) -> Option<HeaderValue> {
    let byte = |at: usize| u8::from_str_radix(sha256.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..sha256.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    HeaderValue::try_from(format!("sha-256=:{}:", STANDARD.encode(bytes))).ok()
}

/// How a body is getting on: what is needed to tell a silent receiver from a slow source.
pub(super) struct Progress(Mutex<State>);

struct State {
    moved: Instant,
    waits_for_source: bool,
    length: u64,
    failure: Option<Error>,
}

impl Progress {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { moved: Instant::now(), waits_for_source: false, length: 0, failure: None })))
    }

    fn expect(&self, length: u64) {
        self.0.lock().length = length;
    }

    fn moved(&self) {
        let mut state = self.0.lock();
        state.moved = Instant::now();
        state.waits_for_source = false;
    }

    fn waits(&self) {
        self.0.lock().waits_for_source = true;
    }

    /// The source failed.
    fn failed(&self, error: Error) {
        self.0.lock().failure = Some(error);
    }

    /// How many bytes the body has.
    pub fn length(&self) -> u64 {
        self.0.lock().length
    }

    /// What the source said is why; that the connection broke off follows from it.
    pub fn failure(&self) -> Option<Error> {
        self.0.lock().failure.take()
    }

    /// Ends when the receiver has taken nothing for `limit`. Waiting for the source does not count: it has its own limits.
    pub async fn silent_for(&self, limit: Duration) {
        loop {
            let left = {
                let mut state = self.0.lock();
                if state.waits_for_source {
                    state.moved = Instant::now();
                }
                limit.saturating_sub(state.moved.elapsed())
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// Content whose last bytes come only once it is known to be what its source said.
struct Checked {
    content: ByteStream,
    left: u64,
    held: Option<Bytes>,
    expected: Option<(Sha256, String)>,
    is_done: bool,
}

impl Checked {
    fn new(content: ByteStream, size: u64, digest: Option<String>) -> Self {
        Self { content, left: size, held: None, expected: digest.map(|digest| (Sha256::new(), digest)), is_done: false }
    }

    fn accept(&mut self, chunk: Bytes) -> Result<Option<Bytes>> {
        self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(|| changed("it is longer than its source said"))?;
        if let Some((hash, _)) = &mut self.expected {
            hash.update(&chunk);
        }
        Ok(self.held.replace(chunk))
    }

    fn finish(&mut self) -> Result<Option<Bytes>> {
        if self.left > 0 {
            return Err(changed("it is shorter than its source said"));
        }
        if let Some((hash, expected)) = self.expected.take()
            && hex(&hash.finalize()) != expected
        {
            return Err(changed("it has another SHA-256 than when it was signed"));
        }
        Ok(self.held.take())
    }
}

fn changed(how: &str) -> Error {
    Error::new(Kind::Unavailable, format!("the content is not sent: {how}"))
}

impl Stream for Checked {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        while !self.is_done {
            let result = match std::task::ready!(self.content.poll_next_unpin(cx)) {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => self.accept(chunk),
                Some(Err(error)) => Err(error),
                None => {
                    self.is_done = true;
                    self.finish()
                }
            };
            match result {
                Ok(None) => {}
                Ok(Some(chunk)) => return Poll::Ready(Some(Ok(chunk))),
                Err(error) => {
                    self.is_done = true;
                    self.held = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// The body of a request: what stands before the content, the content, what stands after it.
struct Outgoing {
    before: Option<Bytes>,
    content: Option<Checked>,
    after: Option<Bytes>,
    progress: Arc<Progress>,
}

impl Stream for Outgoing {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if let Some(before) = self.before.take().filter(|before| !before.is_empty()) {
            return Poll::Ready(Some(Ok(before)));
        }
        if let Some(content) = &mut self.content {
            match content.poll_next_unpin(cx) {
                Poll::Pending => {
                    self.progress.waits();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(chunk))) => {
                    self.progress.moved();
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.progress.failed(error.clone());
                    self.content = None;
                    self.after = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => self.content = None,
            }
        }
        self.progress.moved();
        Poll::Ready(self.after.take().filter(|after| !after.is_empty()).map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(chunks: &[&'static str], size: u64, digest: Option<&str>) -> (String, Result<()>) {
        let chunks: Vec<Result<Bytes>> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        let mut checked = Checked::new(futures::stream::iter(chunks).boxed(), size, digest.map(str::to_owned));
        let mut sent = String::new();
        while let Some(chunk) = checked.next().await {
            match chunk {
                Ok(chunk) => sent.push_str(std::str::from_utf8(&chunk).unwrap()),
                Err(error) => return (sent, Err(error)),
            }
        }
        (sent, Ok(()))
    }

    #[tokio::test]
    async fn r3_content_that_is_not_what_its_source_said_never_arrives_whole() {
        let whole = sent(&["ab", "", "cd", "e"], 5, None).await;
        assert_eq!((whole.0.as_str(), whole.1.is_ok()), ("abcde", true));
        let (arrived, result) = sent(&["ab", "cd"], 5, None).await;
        assert!(result.is_err() && arrived.len() < 4, "too short: {arrived}");
        let (arrived, result) = sent(&["ab", "cd", "ef"], 5, None).await;
        assert!(result.is_err() && arrived.len() < 5, "too long: {arrived}");
        let (arrived, result) = sent(&["abcde", "x"], 5, None).await;
        assert!(result.is_err() && arrived.is_empty(), "the stated length arrives only with its end: {arrived}");
        let digest = hex(&Sha256::digest("abcde"));
        assert!(sent(&["abcde"], 5, Some(&digest)).await.1.is_ok());
        let (arrived, result) = sent(&["abcdX"], 5, Some(&digest)).await;
        assert!(result.is_err() && arrived.is_empty());
        assert!(sent(&["x"], 0, None).await.1.is_err());
        assert!(sent(&[], 0, None).await.1.is_ok());
    }

    #[test]
    fn r6_what_a_file_says_of_itself_cannot_break_a_header_or_a_form() {
        assert_eq!("a\"b\r\nc.pdf".chars().map(in_form).collect::<String>(), "a%22b%0D%0Ac.pdf");
        assert_eq!(media_type("text/plain; charset=utf-8"), "text/plain; charset=utf-8");
        for hostile in ["text/plain\r\nX: y", "", "/", "text", "text/\u{fc}", "a/b\tc"] {
            assert_eq!(media_type(hostile), "application/octet-stream", "{hostile:?}");
        }
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(representation_digest(empty).unwrap(), "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
        assert_eq!(representation_digest("zz"), None);
        assert_eq!(representation_digest("abc"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_source_is_not_taken_for_a_silent_receiver() {
        let progress = Progress::new();
        progress.waits();
        let silent = progress.silent_for(Duration::from_millis(20));
        let waited = tokio::time::timeout(Duration::from_secs(5), silent).await;
        assert!(waited.is_err(), "the receiver is not to blame while the source is awaited");
    }
}
