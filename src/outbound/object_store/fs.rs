//! Folders that are mounted into the operator.
//!
//! Every path is walked from the root, one folder at a time, by handles that follow no link: whoever can write into the folder cannot
//! lead the operator out of it, not even between a check and its use.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use super::tree::{Is, MAX_NAMES, NO_PERMISSION, Node, Tree, TreeStore};
use super::{Settings, Stream};
use crate::api::places::Folder;
use crate::error::{Error, Kind, Result, clean};

/// Bytes that are read or written at a time.
const CHUNK: usize = 256 * 1024;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The folder of a namespace below one that the operator was given.
pub struct FolderTree {
    name: String,
    namespace: String,
    root: PathBuf,
}

/// The store for a folder of the operator's; nothing is touched yet.
pub fn store(spec: &Folder, namespace: &str, settings: &Settings) -> Result<TreeStore<FolderTree>> {
    let Some(root) = settings.folders.get(&spec.folder) else {
        let known: Vec<&str> = settings.folders.keys().map(String::as_str).collect();
        let known =
            if known.is_empty() { "it was given none".to_owned() } else { format!("there are: {}", known.join(", ")) };
        return Err(Error::new(
            Kind::Reference,
            format!("fs.folder: the operator was given no folder {} with --folder; {known}", clean(&spec.folder, 63)),
        ));
    };
    // A namespace is a DNS label; the check keeps a mistake elsewhere from becoming a way out.
    if namespace.is_empty() || namespace.contains(['/', '.', '\0']) {
        return Err(Error::new(Kind::Rejected, "the namespace gives no folder"));
    }
    Ok(TreeStore(Arc::new(FolderTree { name: spec.folder.clone(), namespace: namespace.to_owned(), root: root.clone() })))
}

impl FolderTree {
    /// Runs `work` where waiting for a disk stops nobody.
    async fn blocking<R, W>(&self, work: W) -> Result<R>
    where
        R: Send + 'static,
        W: FnOnce(&Walk) -> io::Result<R> + Send + 'static,
    {
        let walk = Walk { root: self.root.clone(), namespace: self.namespace.clone() };
        let result = tokio::task::spawn_blocking(move || work(&walk)).await;
        let result = result.map_err(|_| Error::new(Kind::Stopping, "the operator is stopping"))?;
        result.map_err(|error| self.error(&error))
    }

    fn error(&self, error: &io::Error) -> Error {
        let what = format!("folder {}: {error}", self.name);
        match error.kind() {
            io::ErrorKind::NotFound => Error::new(Kind::NotFound, what),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                let mut error = Error::new(Kind::Denied, format!("{what}; let the operator's user write there"));
                error.code = NO_PERMISSION.into();
                error
            }
            _ if is(error, Errno::LOOP) || is(error, Errno::NOTDIR) => Error::new(
                Kind::Rejected,
                format!("folder {}: a link or a file is in the way where a folder is needed", self.name),
            ),
            io::ErrorKind::InvalidFilename => Error::new(Kind::Rejected, what),
            _ => Error::new(Kind::Unavailable, what),
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// The way from the root to a place.
struct Walk {
    root: PathBuf,
    namespace: String,
}

impl Walk {
    /// The root folder itself; `makes` it if it is not there.
    fn root(&self, makes: bool) -> io::Result<OwnedFd> {
        // The folder that the operator's owner named may be a link; what is below may not.
        let given = rustix::fs::open(&self.root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| {
                io::Error::new(io::ErrorKind::NotConnected, format!("it cannot be opened: {}", io::Error::from(error)))
            })?;
        down(&given, &self.namespace, makes)
    }

    fn folder(&self, path: &str, makes: bool) -> io::Result<OwnedFd> {
        let root = self.root(makes)?;
        path.split('/').filter(|segment| !segment.is_empty()).try_fold(root, |folder, segment| down(&folder, segment, makes))
    }

    /// The folder of a file, and its name there.
    fn parent<'a>(&self, path: &'a str, makes: bool) -> io::Result<(OwnedFd, &'a str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.folder(folder, makes)?, name))
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let (folder, name) = self.parent(path, flags.contains(OFlags::CREATE))?;
        // Not to wait for a writer when somebody put a pipe there.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o644))?))
    }
}

fn down(folder: &OwnedFd, segment: &str, makes: bool) -> io::Result<OwnedFd> {
    debug_assert!(!matches!(segment, "." | "..") && !segment.contains('/'), "names are made safe before they come here");
    match rustix::fs::openat(folder, segment, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) if makes => {
            match rustix::fs::mkdirat(folder, segment, Mode::from_raw_mode(0o755)) {
                Ok(()) => rustix::fs::fsync(folder)?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(rustix::fs::openat(folder, segment, FOLDER, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Renames without replacing anything, on file systems old and new.
fn rename_new(folder: &OwnedFd, from: &str, to: &str) -> io::Result<bool> {
    match rustix::fs::renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(true),
        Err(Errno::EXIST) => return Ok(false),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::linkat(folder, from, folder, to, AtFlags::empty()) {
        Ok(()) => {
            rustix::fs::unlinkat(folder, from, AtFlags::empty())?;
            return Ok(true);
        }
        Err(Errno::EXIST) => return Ok(false),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::statat(folder, to, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(false),
        Err(Errno::NOENT) => Ok(rustix::fs::renameat(folder, from, folder, to).map(|()| true)?),
        Err(error) => Err(error.into()),
    }
}

fn node(stat: &Stat) -> Node {
    let is = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Is::File,
        FileType::Directory => Is::Folder,
        _ => Is::Other,
    };
    let nanos = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let modified_at = Timestamp::new(stat.st_mtime, nanos).unwrap_or(Timestamp::UNIX_EPOCH);
    Node { is, size: u64::try_from(stat.st_size).unwrap_or(0), modified_at }
}

fn node_of(file: &impl AsFd) -> io::Result<Node> {
    Ok(node(&rustix::fs::fstat(file)?))
}

#[async_trait]
impl Tree for FolderTree {
    fn kind(&self) -> &'static str {
        "fs"
    }

    fn describe(&self) -> String {
        format!("fs://{}/{}", self.name, self.namespace)
    }

    async fn look(&self, path: &str) -> Result<Option<Node>> {
        let path = path.to_owned();
        let found = self.blocking(move |walk| {
            let (folder, name) = walk.parent(&path, false)?;
            Ok(node(&rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?))
        });
        match found.await {
            Ok(node) => Ok(Some(node)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, path: &str, mut content: Stream) -> Result<u64> {
        let path = path.to_owned();
        let opened = self.blocking(move |walk| walk.open(&path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL));
        let mut file = tokio::fs::File::from_std(opened.await?);
        file.set_max_buf_size(CHUNK);
        while let Some(chunk) = content.next().await.transpose()? {
            file.write_all(&chunk).await.map_err(|error| self.error(&error))?;
        }
        file.flush().await.map_err(|error| self.error(&error))?;
        file.sync_all().await.map_err(|error| self.error(&error))?;
        let metadata = file.metadata().await.map_err(|error| self.error(&error))?;
        Ok(metadata.len())
    }

    async fn rename(&self, from: &str, to: &str, replaces: bool) -> Result<bool> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.blocking(move |walk| {
            let (folder, to) = walk.parent(&to, true)?;
            let from = from.rsplit('/').next().unwrap_or_default();
            let is_done = if replaces {
                rustix::fs::renameat(&folder, from, &folder, to).map(|()| true)?
            } else {
                rename_new(&folder, from, to)?
            };
            rustix::fs::fsync(&folder)?;
            Ok(is_done)
        })
        .await
    }

    async fn amend(&self, path: &str, offset: u64, content: &[u8]) -> Result<()> {
        let path = path.to_owned();
        let opened = self.blocking(move |walk| walk.open(&path, OFlags::WRONLY));
        let mut file = tokio::fs::File::from_std(opened.await?);
        let written = async {
            file.seek(io::SeekFrom::Start(offset)).await?;
            file.write_all(content).await?;
            file.flush().await?;
            file.sync_data().await
        };
        written.await.map_err(|error| self.error(&error))
    }

    async fn remove(&self, path: &str) -> Result<()> {
        let path = path.to_owned();
        let removed = self.blocking(move |walk| {
            let (folder, name) = walk.parent(&path, false)?;
            Ok(rustix::fs::unlinkat(&folder, name, AtFlags::empty())?)
        });
        match removed.await {
            Err(error) if error.kind != Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn open(&self, path: &str) -> Result<(Node, Stream)> {
        let path = path.to_owned();
        let opened = self.blocking(move |walk| {
            let file = walk.open(&path, OFlags::RDONLY)?;
            let node = node_of(&file)?;
            Ok((node, file))
        });
        let (node, file) = opened.await?;
        if node.is != Is::File {
            return Err(Error::new(Kind::Rejected, format!("folder {}: what has this name is no file", self.name)));
        }
        let name = self.name.clone();
        let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK);
        let failed = move |error: io::Error| Error::new(Kind::Unavailable, format!("folder {name}: {error}"));
        Ok((node, chunks.map(move |chunk| chunk.map_err(&failed)).boxed()))
    }

    async fn names(&self, folder: &str) -> Result<Vec<(String, Node)>> {
        let path = folder.to_owned();
        let read = self.blocking(move |walk| {
            let folder = walk.folder(&path, false)?;
            let mut names = Vec::new();
            for entry in Dir::read_from(&folder)? {
                let entry = entry?;
                // A name that is no text cannot be a key.
                let Ok(name) = entry.file_name().to_str() else { continue };
                if matches!(name, "." | "..") {
                    continue;
                }
                if names.len() == MAX_NAMES {
                    return Err(io::Error::other(format!("a folder has more than {MAX_NAMES} names")));
                }
                match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => names.push((name.to_owned(), node(&stat))),
                    // It went meanwhile.
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(names)
        });
        match read.await {
            Err(error) if error.kind == Kind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn t1_a_namespace_gets_its_own_folder_of_one_that_was_given() {
        let folders = BTreeMap::from([("archive".to_owned(), PathBuf::from("/srv/archive"))]);
        let settings = Settings { folders, ..Settings::default() };
        let spec = |folder: &str| Folder { folder: folder.into() };
        assert_eq!(store(&spec("archive"), "claims", &settings).unwrap().0.describe(), "fs://archive/claims");
        let unknown = store(&spec("etc"), "claims", &settings).err().unwrap();
        assert!(unknown.kind == Kind::Reference && unknown.to_string().contains("there are: archive"), "{unknown}");
        for namespace in ["", "..", "a/b", "../x"] {
            assert!(store(&spec("archive"), namespace, &settings).is_err(), "{namespace:?}");
        }
    }
}
