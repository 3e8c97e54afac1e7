//! A few read-only connections that calls take turns with.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::server::refusal::Refusal;

/// The pool. Waiting for a connection never blocks a thread.
#[derive(Clone)]
pub struct Readers {
    free: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    /// A pool of these connections.
    pub fn new(connections: Vec<Connection>) -> Self {
        let turns = Arc::new(Semaphore::new(connections.len()));
        Self { free: Arc::new(Mutex::new(connections)), turns }
    }

    /// Runs `read` with one snapshot for all its statements.
    pub async fn run<T, F>(&self, read: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Refusal> + Send + 'static,
    {
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else { return Err(closing()) };
        let free = Arc::clone(&self.free);
        let work = tokio::task::spawn_blocking(move || {
            let Some(connection) = free.lock().pop() else { return Err(closing()) };
            let result = connection
                .prepare_cached("BEGIN")
                .and_then(|mut begin| begin.execute([]))
                .map_err(Refusal::from)
                .and_then(|_| read(&connection));
            let ended = connection.prepare_cached("ROLLBACK").and_then(|mut end| end.execute([]));
            if ended.is_err() && !connection.is_autocommit() {
                tracing::error!("a read transaction could not be ended");
            }
            free.lock().push(connection);
            drop(turn);
            result
        });
        work.await.unwrap_or_else(|_| Err(Refusal::new(500, "internal", "The call failed inside the server.")))
    }
}

fn closing() -> Refusal {
    Refusal::new(503, "unavailable", "The server is stopping.").retry_after(1)
}
