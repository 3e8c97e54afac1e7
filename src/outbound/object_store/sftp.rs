//! Servers that speak SFTP (version 3, as OpenSSH does), without an `ssh` program.

mod lenient;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, FuturesUnordered};
use jiff::Timestamp;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, FileType, OpenFlags, Packet, StatusCode};

use self::session::{Handle, Pool, Session};
use super::tree::{Is, MAX_NAMES, Node, Tree, TreeStore};
use super::{Settings, Stream};
use crate::api::places::Sftp;
use crate::error::{Error, Kind, Result};
use crate::outbound::secrets::References;

/// Bytes on their way in each direction for one file.
const WINDOW: usize = 2 * 1024 * 1024;
/// Folders that are remembered as being there.
const KNOWN_FOLDERS: usize = 10_000;

/// Everything below a folder of an SFTP server.
pub struct SftpTree {
    pool: Pool,
    root: Option<String>,
}

/// The store for a server; nothing is sent yet.
pub fn store(spec: &Sftp, references: Arc<dyn References>, settings: &Settings) -> Result<TreeStore<SftpTree>> {
    let root = spec.root.as_ref().map(|root| root.trim_end_matches('/').to_owned());
    Ok(TreeStore(Arc::new(SftpTree { pool: Pool::new(spec, references, settings)?, root })))
}

impl SftpTree {
    /// The path as the server gets it.
    fn full(&self, path: &str) -> String {
        match (&self.root, path) {
            (Some(root), "") if root.is_empty() => "/".to_owned(),
            (Some(root), "") => root.clone(),
            (Some(root), path) => format!("{root}/{path}"),
            (None, "") => ".".to_owned(),
            (None, path) => path.to_owned(),
        }
    }

    /// Makes the folders on the way to a file. A link among them is refused.
    async fn make_folders(&self, session: &Session, path: &str) -> Result<()> {
        for (at, _) in path.match_indices('/') {
            let folder = &path[..at];
            if session.folders.lock().contains(folder) {
                continue;
            }
            if !self.is_folder(session, folder).await? {
                let made = session.raw.mkdir(self.full(folder), FileAttributes::empty()).await;
                // Somebody else may have made it meanwhile.
                if let Err(error) = session.heard(made)
                    && !self.is_folder(session, folder).await?
                {
                    return Err(error);
                }
            }
            let mut known = session.folders.lock();
            if known.len() >= KNOWN_FOLDERS {
                known.clear();
            }
            known.insert(folder.to_owned());
        }
        Ok(())
    }

    async fn is_folder(&self, session: &Session, folder: &str) -> Result<bool> {
        match self.look_at(session, folder).await?.map(|node| node.is) {
            None => Ok(false),
            Some(Is::Folder) => Ok(true),
            Some(_) => Err(Error::new(Kind::Rejected, "a link or a file is in the way where a folder is needed")),
        }
    }

    async fn look_at(&self, session: &Session, path: &str) -> Result<Option<Node>> {
        match session.heard(session.raw.lstat(self.full(path)).await) {
            Ok(found) => Ok(Some(node(&found.attrs))),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new file, with its folders.
    async fn make(&self, session: &Arc<Session>, path: &str) -> Result<Handle> {
        let flags = OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::WRITE;
        self.make_folders(session, path).await?;
        match session.open(&self.full(path), flags).await {
            // A folder that was there is gone.
            Err(error) if error.kind == Kind::NotFound => {
                session.folders.lock().clear();
                self.make_folders(session, path).await?;
                session.open(&self.full(path), flags).await
            }
            other => other,
        }
    }
}

/// Sends all of `content`, several requests at a time.
async fn send(handle: &Handle, mut content: Stream) -> Result<()> {
    let session = handle.session();
    let write =
        |offset: u64, data: Vec<u8>| async move { session.heard(session.raw.write(handle.id(), offset, data).await) };
    let in_flight = (WINDOW / session.request_size).max(1);
    let mut writes = FuturesUnordered::new();
    let mut offset = 0;
    let mut waiting = Vec::with_capacity(session.request_size);
    let mut is_over = false;
    while !is_over {
        let mut chunk = match content.next().await.transpose()? {
            Some(chunk) => chunk,
            None => {
                is_over = true;
                Bytes::new()
            }
        };
        while !chunk.is_empty() || (is_over && !waiting.is_empty()) {
            let taken = chunk.split_to(chunk.len().min(session.request_size - waiting.len()));
            waiting.extend_from_slice(&taken);
            if waiting.len() < session.request_size && !is_over {
                break;
            }
            let data = std::mem::replace(&mut waiting, Vec::with_capacity(session.request_size));
            let length = data.len() as u64;
            writes.push(write(offset, data));
            offset += length;
            while writes.len() >= in_flight {
                writes.next().await.transpose()?;
            }
            // A request goes out when its answer is first asked for.
            if let Some(Some(done)) = futures::FutureExt::now_or_never(writes.next()) {
                done?;
            }
        }
    }
    while writes.next().await.transpose()?.is_some() {}
    Ok(())
}

/// `length` bytes from `offset` on, fewer at the end of the file. Servers may answer with less than was asked for.
async fn receive(handle: Arc<Handle>, offset: u64, length: usize) -> Result<Bytes> {
    let session = handle.session();
    let mut bytes: Vec<u8> = Vec::new();
    while bytes.len() < length {
        let wanted = u32::try_from(length - bytes.len()).unwrap_or(32 * 1024);
        match session.raw.read(handle.id(), offset + bytes.len() as u64, wanted).await {
            Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => break,
            answer => {
                let data = session.heard(answer)?.data;
                if data.is_empty() || data.len() > length - bytes.len() {
                    return Err(Error::new(
                        Kind::Malformed,
                        "the SFTP server answered with another length than was asked for",
                    ));
                }
                if bytes.is_empty() { bytes = data } else { bytes.extend_from_slice(&data) }
            }
        }
    }
    Ok(bytes.into())
}

fn node(attributes: &FileAttributes) -> Node {
    let is = match attributes.file_type() {
        FileType::File => Is::File,
        FileType::Dir => Is::Folder,
        FileType::Symlink | FileType::Other => Is::Other,
    };
    let seconds = i64::from(attributes.mtime.unwrap_or_default());
    let modified_at = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    Node { is, size: attributes.size.unwrap_or_default(), modified_at }
}

/// Two texts as the protocol writes them.
fn two_texts(one: &str, other: &str) -> Vec<u8> {
    let mut data = Vec::with_capacity(one.len() + other.len() + 8);
    for text in [one, other] {
        data.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    data
}

#[async_trait]
impl Tree for SftpTree {
    fn kind(&self) -> &'static str {
        "sftp"
    }

    fn describe(&self) -> String {
        format!("sftp://{}@{}/{}", self.pool.username(), self.pool.authority(), self.root.as_deref().unwrap_or("."))
    }

    async fn look(&self, path: &str) -> Result<Option<Node>> {
        let session = self.pool.session().await?;
        self.look_at(&session, path).await
    }

    async fn write(&self, path: &str, content: Stream) -> Result<u64> {
        let session = self.pool.session().await?;
        let handle = self.make(&session, path).await?;
        send(&handle, content).await?;
        if session.syncs {
            session.heard(session.raw.fsync(handle.id()).await)?;
        }
        let found = session.heard(session.raw.fstat(handle.id()).await)?;
        handle.close().await?;
        found.attrs.size.ok_or_else(|| Error::new(Kind::Malformed, "the SFTP server does not say how large a file is"))
    }

    async fn rename(&self, from: &str, to: &str, replaces: bool) -> Result<bool> {
        let session = self.pool.session().await?;
        let (from, full) = (self.full(from), self.full(to));
        if replaces && session.replaces {
            let answer = session.heard(session.raw.extended("posix-rename@openssh.com", two_texts(&from, &full)).await)?;
            return match answer {
                Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(true),
                Packet::Status(status) => session.heard(Err(SftpError::Status(status))),
                _ => Err(Error::new(Kind::Malformed, "the SFTP server answered something else")),
            };
        }
        if replaces {
            self.remove(to).await?;
        }
        match session.heard(session.raw.rename(from, full).await) {
            Ok(_) => Ok(true),
            // Version 3 of the protocol has no code of its own for this.
            Err(error) => {
                if self.look_at(&session, to).await?.is_some() {
                    Ok(false)
                } else {
                    Err(error)
                }
            }
        }
    }

    async fn amend(&self, path: &str, offset: u64, content: &[u8]) -> Result<()> {
        let session = self.pool.session().await?;
        let handle = session.open(&self.full(path), OpenFlags::WRITE).await?;
        session.heard(session.raw.write(handle.id(), offset, content.to_vec()).await)?;
        handle.close().await
    }

    async fn remove(&self, path: &str) -> Result<()> {
        let session = self.pool.session().await?;
        match session.heard(session.raw.remove(self.full(path)).await) {
            Err(error) if error.kind != Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn open(&self, path: &str) -> Result<(Node, Stream)> {
        let session = self.pool.session().await?;
        // Opening follows links, so what is no file is not opened.
        if self.look_at(&session, path).await?.is_some_and(|node| node.is != Is::File) {
            return Err(Error::new(Kind::Rejected, "what has this name is no file"));
        }
        let handle = Arc::new(session.open(&self.full(path), OpenFlags::READ).await?);
        let node = node(&session.heard(session.raw.fstat(handle.id()).await)?.attrs);
        let (size, request_size) = (node.size, session.request_size as u64);
        let offsets = stream::iter((0..size.div_ceil(request_size)).map(move |n| n * request_size));
        let chunks = offsets.map(move |offset| {
            let length = usize::try_from(request_size.min(size - offset)).unwrap_or(usize::MAX);
            receive(handle.clone(), offset, length)
        });
        Ok((node, chunks.buffered((WINDOW / session.request_size).max(1)).boxed()))
    }

    async fn names(&self, folder: &str) -> Result<Vec<(String, Node)>> {
        let session = self.pool.session().await?;
        let handle = match session.open_folder(&self.full(folder)).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        loop {
            let part = match session.raw.readdir(handle.id()).await {
                Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => break,
                answer => session.heard(answer)?.files,
            };
            // A name that is no text has U+FFFD here and cannot be asked for; one with `/` is an attack.
            let usable = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(['/', '\0', '\u{fffd}']);
            names.extend(
                part.into_iter().filter(|file| usable(&file.filename)).map(|file| (file.filename, node(&file.attrs))),
            );
            if names.len() > MAX_NAMES {
                return Err(Error::new(Kind::Malformed, format!("a folder has more than {MAX_NAMES} names")));
            }
        }
        handle.close().await?;
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_with_their_length() {
        assert_eq!(two_texts("ab", "ü"), [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 2, 0xc3, 0xbc]);
    }
}
