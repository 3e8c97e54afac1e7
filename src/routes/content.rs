//! The bytes of a file: opened as often as a delivery is tried, checked to the last one.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::delivery::{Content, Opened};
use crate::error::{Error, Kind, Result};
use crate::file360::content::{ByteStream, Content as Files};
use crate::hex::hex;

/// Largest piece that is waited for at once, so that a small limit stays smooth.
const PIECE: usize = 64 * 1024;

/// How many bytes a second may be read; shared by all that hold it.
pub struct Bandwidth {
    limiter: DefaultDirectRateLimiter,
}

impl Bandwidth {
    /// `bytes_per_second`, with a burst of one second.
    pub fn new(bytes_per_second: u64) -> Option<Arc<Self>> {
        let rate = NonZeroU32::new(u32::try_from(bytes_per_second).unwrap_or(u32::MAX))?;
        let burst = rate.max(NonZeroU32::new(u32::try_from(PIECE).ok()?)?);
        Some(Arc::new(Self { limiter: RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)) }))
    }

    async fn take(&self, bytes: usize) {
        for piece in std::iter::repeat_n(PIECE, bytes / PIECE).chain([bytes % PIECE]) {
            if let Some(piece) = u32::try_from(piece).ok().and_then(NonZeroU32::new) {
                // A piece never exceeds the burst, so this only ever waits.
                let _ = self.limiter.until_n_ready(piece).await;
            }
        }
    }
}

/// A version of a file in File 360.
pub struct ItemContent {
    /// The tenant.
    pub files: Arc<dyn Files>,
    /// The item.
    pub item: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 that its record states.
    pub sha256: Option<String>,
    /// Limits, the route's and the Connection's.
    pub bandwidth: Vec<Arc<Bandwidth>>,
}

#[async_trait]
impl Content for ItemContent {
    async fn open(&self) -> Result<Opened> {
        let download = self.files.download(&self.item, self.version).await?;
        let expected = self.sha256.clone().unwrap_or(download.sha256);
        let content = verified(throttled(download.content, self.bandwidth.clone()), download.size, Some(expected));
        Ok(Opened { size: download.size, content })
    }
}

/// Limits that several routes share, by name. One that nobody uses any more is forgotten.
#[derive(Default)]
pub struct SharedBandwidth {
    limits: Mutex<HashMap<String, (u64, Weak<Bandwidth>)>>,
}

impl SharedBandwidth {
    /// The limit of that name; another one than before when it is of another size. `None`: it would be 0.
    pub fn of(&self, name: &str, bytes_a_second: u64) -> Option<Arc<Bandwidth>> {
        let mut limits = self.limits.lock();
        limits.retain(|_, (_, limit)| limit.strong_count() > 0);
        let known = limits.get(name).filter(|(size, _)| *size == bytes_a_second).and_then(|(_, limit)| limit.upgrade());
        if known.is_some() {
            return known;
        }
        let made = Bandwidth::new(bytes_a_second)?;
        limits.insert(name.to_owned(), (bytes_a_second, Arc::downgrade(&made)));
        Some(made)
    }
}

/// Slows a stream down to every limit.
pub fn throttled(content: ByteStream, limits: Vec<Arc<Bandwidth>>) -> ByteStream {
    if limits.is_empty() {
        return content;
    }
    content
        .then(move |chunk| {
            let limits = limits.clone();
            async move {
                if let Ok(chunk) = &chunk {
                    for limit in &limits {
                        limit.take(chunk.len()).await;
                    }
                }
                chunk
            }
        })
        .boxed()
}

struct Verifying {
    content: ByteStream,
    hash: Option<(Sha256, String)>,
    left: u64,
    /// Given on only once what follows is known to be right.
    held: Option<Bytes>,
    ended: bool,
}

/// The same stream, held back by one chunk: its last bytes come only if length and SHA-256 are as told, else an error comes instead (R3).
pub fn verified(content: ByteStream, size: u64, sha256: Option<String>) -> ByteStream {
    let hash = sha256.filter(|hex| !hex.is_empty()).map(|hex| (Sha256::new(), hex));
    let state = Verifying { content, hash, left: size, held: None, ended: false };
    futures::stream::unfold(state, |mut state| async move {
        if state.ended {
            return None;
        }
        loop {
            match state.next().await {
                Ok(Some(chunk)) => {
                    if let Some(before) = state.held.replace(chunk) {
                        return Some((Ok(before), state));
                    }
                }
                Ok(None) => {
                    state.ended = true;
                    return state.held.take().map(|last| (Ok(last), state));
                }
                Err(error) => {
                    state.ended = true;
                    return Some((Err(error), state));
                }
            }
        }
    })
    .boxed()
}

impl Verifying {
    /// The next chunk, or the end if everything is right.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.content.next().await {
            Some(Ok(chunk)) if chunk.is_empty() => Ok(Some(chunk)),
            Some(Ok(chunk)) => {
                let length = chunk.len() as u64;
                self.left = self.left.checked_sub(length).ok_or_else(|| mismatch("more bytes came than the source told"))?;
                if let Some((hash, _)) = &mut self.hash {
                    hash.update(&chunk);
                }
                Ok(Some(chunk))
            }
            Some(Err(error)) => Err(error),
            None if self.left > 0 => Err(mismatch("fewer bytes came than the source told")),
            None => match self.hash.take().map(|(hash, expected)| (hex(&hash.finalize()), expected)) {
                Some((found, expected)) if !found.eq_ignore_ascii_case(&expected) => {
                    Err(mismatch("the content has another SHA-256 than the source told"))
                }
                _ => Ok(None),
            },
        }
    }
}

fn mismatch(why: &str) -> Error {
    Error::new(Kind::Malformed, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(chunks: &[&'static str], size: u64, sha256: Option<&str>) -> (String, bool) {
        let source =
            futures::stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect::<Vec<_>>());
        let mut stream = verified(source.boxed(), size, sha256.map(str::to_owned));
        let (mut text, mut whole) = (String::new(), true);
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => text.push_str(std::str::from_utf8(&chunk).unwrap()),
                Err(_) => whole = false,
            }
        }
        (text, whole)
    }

    #[tokio::test]
    async fn r3_the_last_bytes_come_only_when_everything_is_right() {
        let sha = hex(&Sha256::digest("abcdef"));
        assert_eq!(read(&["abc", "", "def"], 6, Some(&sha)).await, ("abcdef".into(), true));
        assert_eq!(read(&["abc", "deg"], 6, Some(&sha)).await, ("abc".into(), false), "another digest");
        assert_eq!(read(&["abc", "def"], 7, None).await, ("abc".into(), false), "too short");
        assert_eq!(read(&["abc", "def"], 5, None).await, (String::new(), false), "too long");
        assert_eq!(read(&[], 0, Some(&hex(&Sha256::digest("")))).await, (String::new(), true), "an empty file");
    }
}
