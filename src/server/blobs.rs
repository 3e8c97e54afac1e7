//! Content by its SHA-256. Large content is a file each, `blobs/ab/cdef…`, on disk under its final name before any metadata
//! refers to it. Small content is a row, written in the transaction that refers to it: thousands of small files a second
//! share one sync.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::names;
use super::refusal::Refusal;

/// Chunks between the network and the disk: bounds the memory of one upload.
const CHUNKS: usize = 8;
/// How long a sender may be silent.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

/// Largest content that is a row.
pub const SMALL: u64 = 32 * 1024;

/// The folder of all large content.
#[derive(Clone)]
pub struct Blobs {
    folder: Arc<PathBuf>,
    pins: Arc<Mutex<HashMap<String, usize>>>,
}

/// Content on disk. While it is held, the sweep leaves it alone.
pub struct Blob {
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Small content that has arrived and is not a row yet.
    arrived: Option<Bytes>,
    pins: Arc<Mutex<HashMap<String, usize>>>,
}

impl Blob {
    /// Makes small content a row, in the transaction that refers to it.
    pub fn keep(&self, db: &Connection) -> Result<(), Refusal> {
        if let Some(bytes) = &self.arrived {
            db.prepare_cached("INSERT OR IGNORE INTO contents (sha256, bytes) VALUES (?1, ?2)")?
                .execute(params![self.sha256, bytes.as_ref()])?;
        }
        Ok(())
    }
}

/// Small content; `None`: it is a file.
pub fn small(db: &Connection, sha256: &str, size: u64) -> Result<Option<Bytes>, Refusal> {
    if size > SMALL {
        return Ok(None);
    }
    let mut find = db.prepare_cached("SELECT bytes FROM contents WHERE sha256 = ?1")?;
    Ok(find.query_row([sha256], |row| row.get::<_, Vec<u8>>(0)).optional()?.map(Bytes::from))
}

impl Drop for Blob {
    fn drop(&mut self) {
        let mut pins = self.pins.lock();
        if let Some(count) = pins.get_mut(&self.sha256) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.sha256);
            }
        }
    }
}

impl Blobs {
    /// Opens the folder and removes what uploads left behind that a crash cut off.
    pub fn open(data: &Path) -> std::io::Result<Self> {
        let folder = data.join("blobs");
        let unfinished = folder.join("tmp");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        Ok(Self { folder: Arc::new(folder), pins: Arc::default() })
    }

    /// Where content of this hash is.
    pub fn path(&self, sha256: &str) -> PathBuf {
        let (first, rest) = sha256.split_at(sha256.len().min(2));
        self.folder.join(first).join(rest)
    }

    /// Streams a body to disk.
    pub async fn receive(&self, body: Body, most: u64) -> Result<Blob, Refusal> {
        self.receive_stream(body.into_data_stream().map(|chunk| chunk.map_err(|error| error.to_string())), most).await
    }

    /// Keeps small content and streams large content to disk. An error in the stream leaves nothing behind.
    pub async fn receive_stream<S>(&self, mut chunks: S, most: u64) -> Result<Blob, Refusal>
    where
        S: Stream<Item = Result<Bytes, String>> + Unpin,
    {
        let mut first = Vec::new();
        while let Some(chunk) = next(&mut chunks).await? {
            first.extend_from_slice(&chunk);
            if first.len() as u64 > SMALL.min(most) {
                let begun = futures::stream::iter([Ok(Bytes::from(first))]);
                return self.receive_large(begun.chain(chunks), most).await;
            }
        }
        let mut blob = self.pin(names::hex(&names::sha256(&first)), first.len() as u64);
        blob.arrived = Some(first.into());
        Ok(blob)
    }

    async fn receive_large<S>(&self, mut chunks: S, most: u64) -> Result<Blob, Refusal>
    where
        S: Stream<Item = Result<Bytes, String>> + Unpin,
    {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let this = self.clone();
        let writing = tokio::task::spawn_blocking(move || this.write(receiver));
        let mut arrived = 0_u64;
        let outcome = loop {
            match next(&mut chunks).await {
                Ok(Some(chunk)) => {
                    arrived += chunk.len() as u64;
                    if arrived > most {
                        break Err(Refusal::new(413, "too-large", format!("A file has at most {most} bytes.")));
                    }
                    if sender.send(Some(chunk)).await.is_err() {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(refusal) => break Err(refusal),
            }
        };
        if outcome.is_ok() {
            // Only this says that the body is complete; without it the writer throws everything away.
            let _ = sender.send(None).await;
        }
        drop(sender);
        let written = writing.await.map_err(|_| Refusal::new(500, "internal", "The content could not be stored."))?;
        outcome.and_then(|()| Ok(written?))
    }

    fn write(&self, mut chunks: mpsc::Receiver<Option<Bytes>>) -> std::io::Result<Blob> {
        let temporary = self.folder.join("tmp").join(names::secret());
        let result = self.write_to(&temporary, &mut chunks);
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn write_to(&self, temporary: &Path, chunks: &mut mpsc::Receiver<Option<Bytes>>) -> std::io::Result<Blob> {
        let mut file = File::create_new(temporary)?;
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        loop {
            match chunks.blocking_recv() {
                Some(Some(chunk)) => {
                    hash.update(&chunk);
                    size += chunk.len() as u64;
                    file.write_all(&chunk)?;
                }
                Some(None) => break,
                None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let sha256 = names::hex(&hash.finalize());
        let blob = self.pin(sha256, size);
        let target = self.path(&blob.sha256);
        if target.exists() {
            fs::remove_file(temporary)?;
            return Ok(blob);
        }
        file.sync_all()?;
        let parent = target.parent().unwrap_or(&self.folder);
        if !parent.exists() {
            fs::create_dir_all(parent)?;
            File::open(self.folder.as_path())?.sync_all()?;
        }
        fs::rename(temporary, &target)?;
        File::open(parent)?.sync_all()?;
        Ok(blob)
    }

    /// Keeps the sweep away from content that is about to be referred to.
    pub fn pin(&self, sha256: String, size: u64) -> Blob {
        *self.pins.lock().entry(sha256.clone()).or_default() += 1;
        Blob { sha256, size, arrived: None, pins: Arc::clone(&self.pins) }
    }

    /// Removes content that nothing refers to and nobody is about to refer to.
    pub fn remove_unpinned(&self, sha256: &str) -> bool {
        let pins = self.pins.lock();
        if pins.contains_key(sha256) {
            return false;
        }
        fs::remove_file(self.path(sha256)).is_ok() || !self.path(sha256).exists()
    }
}

/// The next chunk of a body whose sender may not be silent for long.
async fn next<S>(chunks: &mut S) -> Result<Option<Bytes>, Refusal>
where
    S: Stream<Item = Result<Bytes, String>> + Unpin,
{
    match tokio::time::timeout(PATIENCE, chunks.next()).await {
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => Err(Refusal::malformed(format!("The body broke off: {error}"))),
        Err(_) => Err(Refusal::new(408, "timeout", "The body did not arrive in time.")),
    }
}

/// Whether the header `Repr-Digest` or `Content-Digest` agrees with what arrived.
pub fn verify_digest(headers: &http::HeaderMap, blob: &Blob) -> Result<(), Refusal> {
    for name in ["repr-digest", "content-digest"] {
        let Some(value) = headers.get(name) else { continue };
        let claimed = value.to_str().ok().and_then(sha256_of_digest);
        let Some(claimed) = claimed else {
            return Err(
                Refusal::malformed(format!("`{name}` needs an entry `sha-256=:<base64>:`.")).at(name, "Not a digest.")
            );
        };
        if claimed != blob.sha256 {
            return Err(Refusal::new(
                422,
                "digest-mismatch",
                "The content does not have the digest that the request states.",
            ));
        }
    }
    Ok(())
}

fn sha256_of_digest(value: &str) -> Option<String> {
    use base64::Engine as _;
    let entry = value.split(',').map(str::trim).find_map(|entry| entry.strip_prefix("sha-256="))?;
    let encoded = entry.strip_prefix(':')?.strip_suffix(':')?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    (bytes.len() == 32).then(|| names::hex(&bytes))
}

/// The header `Repr-Digest` of content.
pub fn digest_header(sha256: &str) -> String {
    use base64::Engine as _;
    let bytes: Vec<u8> =
        (0..sha256.len() / 2).filter_map(|at| u8::from_str_radix(sha256.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(bytes))
}
