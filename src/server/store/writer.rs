//! The one writer: it takes what is queued, runs each operation in a savepoint, commits once, and then answers all.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::server::refusal::Refusal;
use crate::server::tail::{Entry, Tail};

/// Most operations in one transaction: bounds how long the first of them waits for its answer.
const BATCH: usize = 256;
/// Most operations waiting: past it, callers wait before they queue.
const QUEUE: usize = 1024;

type Answer = Box<dyn FnOnce(bool) + Send>;
type Work = Box<dyn FnOnce(&mut Ledger<'_>) -> Answer + Send>;

/// Hands operations to the writer's thread.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Work>,
}

/// Positions and chain head, as they will stand after the commit.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    /// Last entry of the change feed.
    pub change: u64,
    /// Last entry of the audit feed.
    pub audit: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// What an operation works on: the open transaction and the heads of both feeds.
pub struct Ledger<'c> {
    /// The connection, inside a transaction.
    pub db: &'c Connection,
    /// The heads so far.
    pub heads: Heads,
    /// Feed entries that become visible with the commit.
    pub entries: Vec<Entry>,
}

impl Ledger<'_> {
    /// Runs `operation`; a refusal undoes everything it did, and nothing else.
    pub fn atomically<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let (heads, entries) = (self.heads.clone(), self.entries.len());
        self.db.prepare_cached("SAVEPOINT operation")?.execute([])?;
        let result = operation(self);
        if result.is_err() {
            self.db.prepare_cached("ROLLBACK TO operation")?.execute([])?;
            self.heads = heads;
            self.entries.truncate(entries);
        }
        self.db.prepare_cached("RELEASE operation")?.execute([])?;
        result
    }
}

impl Writer {
    /// Starts the thread. It ends when the last handle is gone.
    pub fn start(connection: Connection, tail: Arc<Tail>) -> Result<Self, rusqlite::Error> {
        let heads = load(&connection)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || run(&connection, jobs, heads, &tail))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(Self { queue })
    }

    /// Queues `operation` and waits until the transaction it ran in is on disk.
    pub async fn run<T, F>(&self, operation: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&mut Ledger<'_>) -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |ledger| {
            let result = operation(ledger);
            Box::new(move |durable| {
                if durable {
                    // A caller that went away has no use for the answer; the effect stands.
                    let _ = sender.send(result);
                }
            })
        });
        self.queue.send(work).await.map_err(|_| unavailable())?;
        receiver.await.map_err(|_| unavailable())
    }
}

fn unavailable() -> Refusal {
    Refusal::new(503, "unavailable", "The server could not make the change durable; whether it took effect is unknown.")
        .retry_after(1)
}

fn load(db: &Connection) -> Result<Heads, rusqlite::Error> {
    let change = db.query_row("SELECT coalesce(max(sequence), 0) FROM changes", [], |row| row.get(0))?;
    let pruned: Option<String> = super::schema::meta(db, "changesPruned")?;
    let pruned = pruned.and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    let (audit, hash) = db
        .query_row("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .or_else(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Ok((0, [0; 32])),
            other => Err(other),
        })?;
    Ok(Heads { change: pruned.max(change), audit, hash })
}

fn run(db: &Connection, mut jobs: mpsc::Receiver<Work>, mut heads: Heads, tail: &Tail) {
    while let Some(first) = jobs.blocking_recv() {
        let mut ledger = Ledger { db, heads: heads.clone(), entries: Vec::new() };
        let mut answers = Vec::with_capacity(32);
        let durable = transaction(&mut ledger, first, &mut jobs, &mut answers);
        if durable {
            heads = ledger.heads;
            tail.publish(ledger.entries, heads.change);
        } else if let Ok(loaded) = load(db) {
            heads = loaded;
        }
        for answer in answers {
            answer(durable);
        }
    }
}

fn transaction(ledger: &mut Ledger<'_>, first: Work, jobs: &mut mpsc::Receiver<Work>, answers: &mut Vec<Answer>) -> bool {
    let execute = |sql: &str| ledger_execute(ledger.db, sql);
    if !execute("BEGIN IMMEDIATE") {
        return false;
    }
    answers.push(first(ledger));
    while answers.len() < BATCH {
        let Ok(work) = jobs.try_recv() else { break };
        answers.push(work(ledger));
    }
    let durable = ledger_execute(ledger.db, "COMMIT");
    if !durable {
        ledger_execute(ledger.db, "ROLLBACK");
    }
    durable
}

fn ledger_execute(db: &Connection, sql: &str) -> bool {
    let result = db.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
    if let Err(error) = &result {
        tracing::error!(%error, statement = sql, "the writer's transaction failed");
    }
    result.is_ok()
}
