//! The database: one writer that commits many operations at once, and readers that never wait for it.

#[cfg(test)]
mod plans;
pub mod readers;
pub mod schema;
pub mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use self::readers::Readers;
use self::writer::Writer;
use super::refusal::Refusal;

/// The database of one server.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
    readers: Readers,
    /// What the readers of the feed wait on and read from.
    pub tail: Arc<super::tail::Tail>,
}

impl Store {
    /// Opens or creates the database below `folder`.
    pub fn open(folder: &Path) -> Result<Self, rusqlite::Error> {
        let file = folder.join("file360.db");
        let connection = open(&file, false)?;
        schema::migrate(&connection)?;
        let tail = Arc::new(super::tail::Tail::load(&connection)?);
        let readers = (0..READERS).map(|_| open(&file, true)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { writer: Writer::start(connection, Arc::clone(&tail))?, readers: Readers::new(readers), tail })
    }

    /// Runs `read` on a snapshot.
    pub async fn read<T, F>(&self, read: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Refusal> + Send + 'static,
    {
        self.readers.run(read).await
    }

    /// Runs `write` in the next transaction. `Ok` means that its effects are on disk.
    pub async fn write<T, F>(&self, write: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&mut writer::Ledger<'_>) -> T + Send + 'static,
    {
        self.writer.run(write).await
    }
}

/// Two cores read what one writes; more only adds contention.
const READERS: usize = 4;

fn open(file: &Path, read_only: bool) -> Result<Connection, rusqlite::Error> {
    let flags = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX
    };
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(256);
    if !read_only {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    }
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.pragma_update(None, "mmap_size", 268_435_456_i64)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}
