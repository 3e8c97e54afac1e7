//! Which part of the source is done: the checkpoint never passes work that is neither acknowledged nor recorded (R2).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Batches of the source in order, each with work that is still open.
#[derive(Default)]
pub struct Window {
    batches: Mutex<VecDeque<Batch>>,
    changed: Arc<Notify>,
}

struct Batch {
    cursor: String,
    open: Arc<AtomicUsize>,
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
        let open = Arc::new(AtomicUsize::new(1));
        self.batches.lock().push_back(Batch { cursor, open: open.clone() });
        Token { open, changed: self.changed.clone() }
    }

    /// Takes away what is done at the front; returns where to read on, if that moved.
    pub fn advance(&self) -> Option<String> {
        let mut batches = self.batches.lock();
        let mut cursor = None;
        while batches.front().is_some_and(|batch| batch.open.load(Ordering::Acquire) == 0) {
            cursor = batches.pop_front().map(|batch| batch.cursor);
        }
        cursor
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
        assert_eq!(window.advance().as_deref(), Some("2"));
        assert_eq!(window.advance(), None);
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
                if let Some(cursor) = window.advance() {
                    let passed: usize = cursor.parse().unwrap();
                    prop_assert!(open.iter().all(|(batch, _)| *batch > passed));
                }
            }
            window.advance();
            prop_assert!(window.is_empty());
        }
    }
}
