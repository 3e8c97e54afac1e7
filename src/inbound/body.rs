//! A body as it arrives: counted, hashed, and given up when it is too long, too slow or other than announced.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::digest::Sha256Digest;
use super::problem::{self, Refusal};
use crate::error::Error;
use crate::file360::ByteStream;

/// How long and how slow a body may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest silence of the sender.
    pub silence: Duration,
    /// How long the sender may keep the server waiting in all, whatever the length.
    pub patience: Duration,
    /// Bytes that earn another second of patience.
    pub slowest: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { silence: Duration::from_secs(30), patience: Duration::from_mins(1), slowest: 16 * 1024 }
    }
}

/// A body that is being read.
pub struct Arrival {
    body: BodyDataStream,
    limits: Limits,
    most: u64,
    expected: Sha256Digest,
    hash: Sha256,
    received: u64,
    waited: Duration,
    end: Option<Result<(), Refusal>>,
}

/// The same body for those who read it one after the other.
pub type Shared = Arc<Mutex<Arrival>>;

impl Arrival {
    /// A body of at most `most` bytes whose SHA-256 must be `expected`.
    pub fn new(body: Body, most: u64, expected: Sha256Digest, limits: Limits) -> Self {
        Self {
            body: body.into_data_stream(),
            limits,
            most,
            expected,
            hash: Sha256::new(),
            received: 0,
            waited: Duration::ZERO,
            end: None,
        }
    }

    /// Bytes that have arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Why it was given up; `None` while it is being read and when it was whole.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.end.as_ref()?.as_ref().err()
    }

    /// The next bytes. `None`: it was whole, and the digest is right.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| None);
        }
        let next = self.read().await;
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => self.end = Some(Ok(())),
            Err(refusal) => self.end = Some(Err(refusal.clone())),
        }
        next
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Refusal> {
        // Only the sender's time counts: when File 360 is slow, nobody reads here.
        let earned = self.limits.patience + Duration::from_secs(self.received / self.limits.slowest);
        let wait = self.limits.silence.min(earned.saturating_sub(self.waited));
        let started = Instant::now();
        let next = tokio::time::timeout(wait, self.body.next()).await;
        self.waited += started.elapsed();
        match next {
            Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body did not arrive in time.")),
            Ok(Some(Err(_))) => Err(Refusal::malformed("The body broke off.")),
            Ok(Some(Ok(chunk))) => {
                self.received += chunk.len() as u64;
                if self.received > self.most {
                    return Err(Refusal::too_large(self.most));
                }
                self.hash.update(&chunk);
                Ok(Some(chunk))
            }
            Ok(None) => {
                let digest: Sha256Digest = std::mem::take(&mut self.hash).finalize().into();
                if digest == self.expected { Ok(None) } else { Err(problem::mismatch()) }
            }
        }
    }

    /// Notes why it is given up, unless it has been already. A body can be whole and still make no sense.
    pub fn fail(&mut self, why: Refusal) {
        if self.refusal().is_none() {
            self.end = Some(Err(why));
        }
    }

    /// Gives up what is left. Reads a little more of it, so that the sender has a chance to see the answer before the connection closes.
    pub async fn give_up(&mut self, why: Refusal) {
        self.fail(why);
        let mut left = 256 * 1024_usize;
        let discard = async {
            while let Some(Ok(chunk)) = self.body.next().await {
                left = left.saturating_sub(chunk.len());
                if left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), discard).await;
    }
}

/// The body as content for File 360. The last bytes come only once the whole body has proven right, and an error comes in their place when it
/// has not: what is wrong is never taken for whole.
pub fn content(arrival: Shared) -> ByteStream {
    let state = (arrival, None::<Bytes>);
    futures::stream::try_unfold(state, |(arrival, held)| async move {
        let mut held = held;
        loop {
            let next = arrival.lock().await.next().await.map_err(|refusal| Error::from(&refusal));
            match (next?, held.take()) {
                (Some(chunk), None) => held = Some(chunk),
                (Some(chunk), Some(earlier)) => return Ok(Some((earlier, (arrival, Some(chunk))))),
                (None, Some(last)) => return Ok(Some((last, (arrival, None)))),
                (None, None) => return Ok(None),
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn arrival(chunks: Vec<&'static str>, most: u64, of: &str) -> Shared {
        let body = Body::from_stream(futures::stream::iter(chunks).map(Ok::<_, std::io::Error>));
        Arc::new(Mutex::new(Arrival::new(body, most, Sha256::digest(of).into(), Limits::default())))
    }

    #[tokio::test]
    async fn a_body_with_the_right_digest_passes_unchanged() {
        let chunks: Vec<Bytes> = content(arrival(vec!["ab", "", "cd"], 4, "abcd")).try_collect().await.unwrap();
        assert_eq!(chunks.concat(), b"abcd");
        let none: Vec<Bytes> = content(arrival(vec![], 0, "")).try_collect().await.unwrap();
        assert!(none.is_empty());
    }

    #[tokio::test]
    async fn r3_the_last_bytes_of_a_wrong_body_never_come() {
        for (chunks, of, code) in [
            (vec!["ab", "cd"], "abcx", "digest-mismatch"),
            (vec!["abcd"], "abc", "digest-mismatch"),
            (vec![], "a", "digest-mismatch"),
            (vec!["abc", "de"], "abcde", "too-large"),
        ] {
            let arrival = arrival(chunks.clone(), 4, of);
            let mut stream = content(Arc::clone(&arrival));
            let mut passed = 0;
            let error = loop {
                match stream.next().await {
                    Some(Ok(chunk)) => passed += chunk.len(),
                    Some(Err(error)) => break error,
                    None => panic!("{chunks:?} was taken for whole"),
                }
            };
            assert_eq!(error.code, code, "{chunks:?}");
            assert!(passed < chunks.concat().len().max(1));
            assert_eq!(arrival.lock().await.refusal().map(|refusal| refusal.code), Some(code));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_trickle_are_given_up() {
        let silent = Body::from_stream(futures::stream::pending::<std::io::Result<Bytes>>());
        let mut silent = Arrival::new(silent, 100, Sha256Digest::default(), Limits::default());
        assert_eq!(silent.next().await.unwrap_err().code, "too-slow");

        let trickle = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        let started = tokio::time::Instant::now();
        let mut slow = Arrival::new(Body::from_stream(trickle), 100, Sha256Digest::default(), Limits::default());
        let refusal = loop {
            if let Err(refusal) = slow.next().await {
                break refusal;
            }
        };
        assert_eq!(refusal.code, "too-slow");
        assert!(started.elapsed() < Duration::from_secs(90), "{:?}", started.elapsed());
        assert_eq!(slow.next().await.unwrap_err().code, "too-slow", "it stays so");
    }
}
