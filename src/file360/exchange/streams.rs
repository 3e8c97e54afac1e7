//! Calls that carry a stream: content on its way in or out. They have no time limit as a whole; silence ends them.
//!
//! A call takes its slot until the head of the answer is there. Content that is read afterwards takes none: a transfer reads
//! here and writes here at once, and would wait for itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::transport::{Answer, Call, Fault, Transport, send_error};
use crate::error::{Error, Kind, Result};
use crate::file360::ByteStream;
use crate::redacted::Redacted;

/// How long a transfer may stand still.
const SILENCE: Duration = Duration::from_mins(1);
/// Rate at which a server is expected to make at least durable what it has received.
const DURABLE_BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;
/// What is kept of an upload so that it can start again with a fresh token. A server refuses a token before it reads more.
const KEPT: usize = 256 * 1024;

/// Content that arrives.
pub(in crate::file360) struct Arriving {
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// Bytes that `content` brings; it ends with an error when it has fewer or more.
    pub size: u64,
    /// The bytes.
    pub content: ByteStream,
}

impl Transport {
    /// Reads content.
    pub(in crate::file360) async fn receive(self: &Arc<Self>, call: Call<'_>) -> Result<Arriving> {
        let response = self.guarded(&call, async { Ok(self.head(&call).await?) }).await?;
        let headers = response.headers().clone();
        let size = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let size = size.ok_or_else(|| {
            Error::new(Kind::Malformed, "the answer does not say how long the content is").while_doing(call.operation)
        })?;
        Ok(Arriving { headers, size, content: arriving(Arc::clone(self), response, size, call.operation) })
    }

    async fn head(&self, call: &Call<'_>) -> Result<reqwest::Response> {
        let token = self.tokens.token(&self.http).await?;
        match self.head_with(call, &token).await {
            Err(error) if error.code == "unauthenticated" && self.tokens.reject(&token).await => {
                let token = self.tokens.token(&self.http).await?;
                self.head_with(call, &token).await
            }
            result => result,
        }
    }

    async fn head_with(&self, call: &Call<'_>, token: &Redacted) -> Result<reqwest::Response> {
        let late = |_| Error::new(Kind::Unavailable, "no answer in time");
        let response = tokio::time::timeout(call.timeout, self.request(call, token).send()).await.map_err(late)?;
        let response = response.map_err(|error| send_error(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let refusal = tokio::time::timeout(call.timeout, self.answer(response, token)).await.map_err(late)?;
        Err(refusal.err().unwrap_or_else(|| Error::new(Kind::Malformed, "the answer changed its mind")))
    }

    /// Sends content. When this returns, nothing is read from it any more.
    pub(in crate::file360) async fn send_content(&self, call: Call<'_>, content: Leaving) -> Result<Answer> {
        let _turn = self.uploads.take().await?;
        let result = self.guarded(&call, self.send_with_fresh_token(&call, &content)).await;
        content.source.lock().give_up();
        result
    }

    async fn send_with_fresh_token(&self, call: &Call<'_>, content: &Leaving) -> Result<Answer, Fault> {
        let token = self.tokens.token(&self.http).await?;
        match self.send_once(call, &token, content, content.body()).await {
            Err(fault) if fault.error.code == "unauthenticated" && self.tokens.reject(&token).await => {
                let Some(body) = content.body_again() else {
                    let why = "the access token was refused in the middle of the content; it is renewed";
                    return Err(Error::new(Kind::Unavailable, why).into());
                };
                let token = self.tokens.token(&self.http).await?;
                self.send_once(call, &token, content, body).await
            }
            result => result,
        }
    }

    async fn send_once(
        &self,
        call: &Call<'_>,
        token: &Redacted,
        content: &Leaving,
        body: Outgoing,
    ) -> Result<Answer, Fault> {
        let mut request = self.request(call, token).header(header::CONTENT_TYPE, content.media_type.clone());
        if let Some(size) = content.size {
            request = request.header(header::CONTENT_LENGTH, size);
        }
        if let Some(digest) = &content.digest {
            request = request.header("repr-digest", digest);
        }
        let exchange = async {
            let response =
                request.body(reqwest::Body::wrap_stream(body)).send().await.map_err(|error| send_error(&error))?;
            self.answer(response, token).await
        };
        let result = tokio::select! {
            result = exchange => result,
            error = silence(&content.source) => Err(error),
        };
        // What the caller's stream says is why; that the connection broke off follows from it.
        match content.source.lock().failure.take() {
            Some(error) => Err(Fault { error, is_theirs: false }),
            None => Ok(result?),
        }
    }
}

/// The body of an answer, with its length checked.
fn arriving(transport: Arc<Transport>, response: reqwest::Response, size: u64, operation: &'static str) -> ByteStream {
    let started = Instant::now();
    let chunks = futures::stream::try_unfold((response, size), |(mut response, left)| async move {
        let chunk = match tokio::time::timeout(SILENCE, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| send_error(&error))?,
            Err(_) => return Err(silent()),
        };
        match chunk {
            None if left == 0 => Ok(None),
            None => Err(Error::new(Kind::Unavailable, format!("the content broke off, {left} bytes before its end"))),
            Some(chunk) => match left.checked_sub(chunk.len() as u64) {
                Some(left) => Ok(Some((chunk, (response, left)))),
                None => Err(Error::new(Kind::Malformed, "the content is longer than the answer says")),
            },
        }
    });
    chunks
        .map(move |chunk| {
            chunk.map_err(|error| {
                transport.broke_off(operation, &error, started.elapsed());
                error.while_doing(operation)
            })
        })
        .boxed()
}

fn silent() -> Error {
    Error::new(Kind::Unavailable, format!("the transfer stood still for {} seconds", SILENCE.as_secs()))
}

/// Content that leaves: the caller's stream and what is known about it.
pub(in crate::file360) struct Leaving {
    media_type: HeaderValue,
    size: Option<u64>,
    digest: Option<String>,
    source: Arc<Mutex<Source>>,
}

impl Leaving {
    /// `size` and `digest` (a `Repr-Digest`) if they are known. A media type that is none is sent as bytes of no known type.
    pub fn new(content: ByteStream, media_type: &str, size: Option<u64>, digest: Option<String>) -> Self {
        let media_type = HeaderValue::from_str(media_type).ok().filter(|value| !value.is_empty());
        let media_type = media_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        Self { media_type, size, digest, source: Arc::new(Mutex::new(Source::new(content, size))) }
    }

    fn body(&self) -> Outgoing {
        self.source.lock().moved = Instant::now();
        Outgoing { source: Arc::clone(&self.source), reading: 0, is_over: false, again: Vec::new().into_iter() }
    }

    /// The same from the start, while little enough has been sent. The body that went before brings nothing more.
    fn body_again(&self) -> Option<Outgoing> {
        let mut source = self.source.lock();
        let again = source.kept.clone()?.into_iter();
        source.end_reading();
        source.moved = Instant::now();
        Some(Outgoing { source: Arc::clone(&self.source), reading: source.reading, is_over: false, again })
    }
}

/// The caller's stream, while a body reads it.
struct Source {
    content: ByteStream,
    size: Option<u64>,
    sent: u64,
    /// What was sent so far, until it is too much.
    kept: Option<Vec<Bytes>>,
    is_done: bool,
    /// Why the caller's stream cannot be sent.
    failure: Option<Error>,
    /// Which body may read; an earlier one may not.
    reading: u32,
    /// When the last chunk left.
    moved: Instant,
    waiting: Option<Waker>,
}

impl Source {
    fn new(content: ByteStream, size: Option<u64>) -> Self {
        let (kept, moved) = (Some(Vec::new()), Instant::now());
        Self { content, size, sent: 0, kept, is_done: false, failure: None, reading: 0, moved, waiting: None }
    }

    /// The body that reads gets no more, and hears it at once: the connection it belongs to ends.
    fn end_reading(&mut self) {
        self.reading += 1;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// The call is over: the stream is dropped, whoever still holds its body.
    fn give_up(&mut self) {
        self.end_reading();
        self.content = futures::stream::empty().boxed();
        self.kept = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = self.content.poll_next_unpin(cx) else {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.moved = Instant::now();
        let next = match next {
            Some(Ok(chunk)) => Some(self.count(chunk)),
            Some(Err(error)) => Some(Err(error)),
            None if self.size.is_some_and(|size| size != self.sent) => Some(Err(self.wrong_length("ended"))),
            None => None,
        };
        self.is_done = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }

    fn count(&mut self, chunk: Bytes) -> Result<Bytes> {
        self.sent += chunk.len() as u64;
        if self.size.is_some_and(|size| self.sent > size) {
            return Err(self.wrong_length("went on"));
        }
        match &mut self.kept {
            Some(kept) if self.sent <= KEPT as u64 => kept.push(chunk.clone()),
            kept => *kept = None,
        }
        Ok(chunk)
    }

    fn wrong_length(&self, what: &str) -> Error {
        let size = self.size.unwrap_or_default();
        let mut error =
            Error::new(Kind::Conflict, format!("the content to send {what} at {} bytes; {size} were announced", self.sent));
        error.code = "size-mismatch".into();
        error
    }

    /// When the other side has been silent for too long, as things stand.
    fn deadline(&self) -> Instant {
        let durable = if self.is_done { Duration::from_secs(self.sent / DURABLE_BYTES_PER_SECOND) } else { Duration::ZERO };
        self.moved + SILENCE + durable
    }
}

/// Ends when nothing has moved for too long.
async fn silence(source: &Mutex<Source>) -> Error {
    loop {
        let deadline = source.lock().deadline();
        if deadline <= Instant::now() {
            return silent();
        }
        tokio::time::sleep_until(deadline).await;
    }
}

/// The body of a request.
struct Outgoing {
    source: Arc<Mutex<Source>>,
    reading: u32,
    is_over: bool,
    again: std::vec::IntoIter<Bytes>,
}

impl Stream for Outgoing {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut source = this.source.lock();
        if this.is_over {
            return Poll::Ready(None);
        }
        if source.reading != this.reading {
            this.is_over = true;
            return Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionAborted.into())));
        }
        if let Some(chunk) = this.again.next() {
            source.moved = Instant::now();
            return Poll::Ready(Some(Ok(chunk)));
        }
        source.poll(cx).map(|next| {
            next.map(|chunk| {
                chunk.map_err(|error| {
                    source.failure = Some(error);
                    std::io::ErrorKind::InvalidData.into()
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(content: impl Stream<Item = Result<Bytes>> + Send + 'static, size: Option<u64>) -> Leaving {
        Leaving::new(content.boxed(), "text/plain", size, None)
    }

    fn chunks(texts: &[&'static str]) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let texts: Vec<_> = texts.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect();
        futures::stream::iter(texts)
    }

    async fn read(body: Outgoing) -> std::io::Result<Vec<u8>> {
        body.fold(Ok(Vec::new()), |read, chunk| async move {
            let (mut read, chunk) = (read?, chunk?);
            read.extend_from_slice(&chunk);
            Ok(read)
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_stands_still_ends_and_one_that_moves_slowly_does_not() {
        let slow = futures::stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_secs(SILENCE.as_secs() - 1)).await;
            (n < 10).then(|| (Ok(Bytes::from_static(b"x")), n + 1))
        });
        let content = leaving(slow, None);
        let moved = tokio::select! {
            read = read(content.body()) => read,
            error = silence(&content.source) => panic!("{error}"),
        };
        assert_eq!(moved.unwrap().len(), 10);
        let stuck = leaving(chunks(&["x"]).chain(futures::stream::pending()), None);
        let started = Instant::now();
        let error = tokio::select! {
            _ = read(stuck.body()) => panic!("it never ends"),
            error = silence(&stuck.source) => error,
        };
        assert_eq!((error.kind, started.elapsed().as_secs()), (Kind::Unavailable, SILENCE.as_secs()));
    }

    #[tokio::test]
    async fn what_was_sent_is_sent_again_from_the_start_and_the_first_body_is_over() {
        let content = leaving(chunks(&["one ", "two ", "three"]), Some(13));
        let mut first = content.body();
        assert_eq!(first.next().await.unwrap().unwrap(), "one ");
        let second = content.body_again().unwrap();
        assert!(first.next().await.unwrap().is_err());
        assert_eq!(read(second).await.unwrap(), b"one two three");
    }

    #[tokio::test]
    async fn content_of_another_length_is_not_sent_to_its_end() {
        for size in [12, 14] {
            let content = leaving(chunks(&["one ", "two ", "three"]), Some(size));
            assert!(read(content.body()).await.is_err());
            assert_eq!(content.source.lock().failure.as_ref().map(|error| error.code.as_str()), Some("size-mismatch"));
        }
    }

    #[tokio::test]
    async fn much_content_is_not_kept_and_none_after_the_call() {
        let block = Bytes::from(vec![0; KEPT]);
        let content = leaving(futures::stream::iter([Ok(block.clone()), Ok(block)]), None);
        let mut body = content.body();
        body.next().await.unwrap().unwrap();
        assert!(content.source.lock().kept.is_some());
        body.next().await.unwrap().unwrap();
        assert!(content.body_again().is_none());
        content.source.lock().give_up();
        assert!(body.next().await.unwrap().is_err());
    }
}
