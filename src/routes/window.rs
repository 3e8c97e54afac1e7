//! Which part of the source is done: the checkpoint never passes work that is neither acknowledged nor recorded (R2).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Batches of the source in order, each with work that is still open.
#[derive(Default)]
pub struct Window {
    batches: Mutex<VecDeque<Batch>>,
    closed: AtomicBool,
    changed: Arc<Notify>,
}

struct Batch {
    cursor: String,
    about: Option<About>,
    open: Arc<AtomicUsize>,
}

/// What a position belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The feed.
    pub feed_epoch: String,
    /// Fingerprint of the scope that is scanned up to here.
    pub scope: String,
}

/// Where to read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The cursor.
    pub cursor: String,
    /// What it belongs to, where that changed.
    pub about: Option<About>,
}

/// One piece of open work. Its batch is not done before it is dropped.
pub struct Token {
    open: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_one();
        }
    }
}

impl Window {
    /// A further batch: reading goes on at `cursor` once it is done. The token stands for the reading itself; work takes a
    /// [`Token::share`] of it.
    pub fn open(&self, cursor: String) -> Token {
        self.push(cursor, None)
    }

    /// The same, with what the position belongs to from then on.
    pub fn open_about(&self, cursor: String, about: About) -> Token {
        self.push(cursor, Some(about))
    }

    fn push(&self, cursor: String, about: Option<About>) -> Token {
        let open = Arc::new(AtomicUsize::new(1));
        self.batches.lock().push_back(Batch { cursor, about, open: open.clone() });
        Token { open, changed: self.changed.clone() }
    }

    /// Reading the batch failed: it is read again, and stands for nothing.
    pub fn withdraw(&self, batch: &Token) {
        self.batches.lock().retain(|known| !Arc::ptr_eq(&known.open, &batch.open));
    }

    /// From now on nothing moves: work that is dropped unfinished looks like work that is done.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Takes away what is done at the front; returns where to read on, if that moved.
    pub fn advance(&self) -> Option<Position> {
        let position = self.pass();
        // Asked afterwards: what was dropped after the closing does not count.
        position.filter(|_| !self.closed.load(Ordering::SeqCst))
    }

    fn pass(&self) -> Option<Position> {
        let mut batches = self.batches.lock();
        let mut position: Option<Position> = None;
        while batches.front().is_some_and(|batch| batch.open.load(Ordering::Acquire) == 0) {
            let Some(Batch { cursor, about, .. }) = batches.pop_front() else { break };
            let about = about.or_else(|| position.take().and_then(|before| before.about));
            position = Some(Position { cursor, about });
        }
        position
    }

    /// Pieces of work that are open.
    pub fn len(&self) -> usize {
        self.batches.lock().iter().map(|batch| batch.open.load(Ordering::Acquire)).sum()
    }

    /// Nothing is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until some work ended.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Token {
    /// Another piece of work of the same batch.
    #[must_use]
    pub fn share(&self) -> Self {
        self.open.fetch_add(1, Ordering::AcqRel);
        Self { open: self.open.clone(), changed: self.changed.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn r2_the_cursor_waits_for_the_oldest_work() {
        let window = Window::default();
        let first = window.open("1".into());
        let second = window.open("2".into());
        let work = first.share();
        drop(first);
        drop(second);
        assert_eq!(window.advance(), None, "work of the first batch is open");
        drop(work);
        assert_eq!(window.advance().map(|position| position.cursor).as_deref(), Some("2"));
        assert_eq!(window.advance(), None);
    }

    #[test]
    fn r2_a_batch_whose_reading_failed_moves_nothing() {
        let window = Window::default();
        let read = window.open("1".into());
        let failed = window.open_about("2".into(), About { feed_epoch: "e".into(), scope: "s".into() });
        let work = failed.share();
        window.withdraw(&failed);
        drop((read, failed, work));
        assert_eq!(window.advance(), Some(Position { cursor: "1".into(), about: None }));
        drop(window.open_about("3".into(), About { feed_epoch: "e".into(), scope: "s".into() }));
        drop(window.open("4".into()));
        let position = window.advance().unwrap();
        assert_eq!((position.cursor.as_str(), position.about.unwrap().scope.as_str()), ("4", "s"));
    }

    proptest! {
        #[test]
        fn r2_whatever_order_work_ends_in_nothing_open_is_passed(sizes in prop::collection::vec(0usize..4, 1..12), order in any::<u64>()) {
            let window = Window::default();
            let mut open: Vec<(usize, Token)> = Vec::new();
            for (batch, size) in sizes.iter().enumerate() {
                let token = window.open(batch.to_string());
                open.extend((0..*size).map(|_| (batch, token.share())));
            }
            let mut seed = order;
            while !open.is_empty() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                open.swap_remove(usize::try_from(seed >> 33).unwrap() % open.len());
                if let Some(position) = window.advance() {
                    let passed: usize = position.cursor.parse().unwrap();
                    prop_assert!(open.iter().all(|(batch, _)| *batch > passed));
                }
            }
            window.advance();
            prop_assert!(window.is_empty());
        }
    }
}
