//! Where the work on a file is done: in this process, or elsewhere.

use async_trait::async_trait;
use jiff::Timestamp;

use super::route::{AT_ONCE, Route};
use super::work::{Outcome, Source, Work, attempt};

/// Does the work on files, one try at a time. The engine keeps the rest: order, waits, records, checkpoint.
#[async_trait]
pub trait Attempts: Send + Sync {
    /// One try. Ends only with an outcome; while nobody can do the work, it waits, and [`Attempts::trouble`] says why. Dropping the future gives
    /// the try up; whoever did it meanwhile has done no harm, since deliveries carry their keys (R1).
    async fn attempt(&self, route: &Route, source: &dyn Source, work: &mut Work) -> Attempted;

    /// Files of the route at once.
    fn at_once(&self, route: &Route) -> usize;

    /// Why no work can be done now, if so.
    fn trouble(&self) -> Option<String>;

    /// Waits until [`Attempts::trouble`] may have changed.
    async fn trouble_changed(&self);
}

/// How a try ended.
pub struct Attempted {
    /// The outcome.
    pub outcome: Outcome,
    /// Whoever keeps the outcome meanwhile is told once its record is durable.
    pub receipt: Option<Box<dyn Receipt>>,
}

/// An outcome that somebody keeps until it is recorded. Dropped without a word, it comes again.
#[async_trait]
pub trait Receipt: Send + Sync {
    /// The record is durable, or there is none to make.
    async fn settle(self: Box<Self>);
}

/// Work is done in this process.
pub struct Here;

#[async_trait]
impl Attempts for Here {
    async fn attempt(&self, route: &Route, source: &dyn Source, work: &mut Work) -> Attempted {
        Attempted { outcome: attempt(route, source, work, Timestamp::now()).await, receipt: None }
    }

    fn at_once(&self, route: &Route) -> usize {
        route.concurrency.unwrap_or(AT_ONCE)
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    async fn trouble_changed(&self) {
        std::future::pending::<()>().await;
    }
}
