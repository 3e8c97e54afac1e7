//! Work on files: one piece at a time for each file, in the order in which it came; many files at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// See the module. `T` is a piece of work.
pub struct FileQueue<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    /// Work of each file, the next one first. A file that is worked on or waits for its time is here, too.
    files: HashMap<Arc<str>, VecDeque<T>>,
    ready: VecDeque<Arc<str>>,
    later: BTreeMap<(Instant, u64), Arc<str>>,
    tie: u64,
    length: usize,
    closed: bool,
}

impl<T> Default for FileQueue<T> {
    fn default() -> Self {
        let state = State {
            files: HashMap::new(),
            ready: VecDeque::new(),
            later: BTreeMap::new(),
            tie: 0,
            length: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<T> FileQueue<T> {
    /// Adds work behind what the file has already.
    pub fn push(&self, file: &Arc<str>, work: T) {
        self.add(file, work, None);
    }

    /// Adds work that is not due before `at`. What comes for the same file meanwhile waits behind it.
    pub fn push_at(&self, file: &Arc<str>, work: T, at: Instant) {
        self.add(file, work, Some(at));
    }

    fn add(&self, file: &Arc<str>, work: T, at: Option<Instant>) {
        let mut state = self.state.lock();
        state.length += 1;
        match state.files.get_mut(file) {
            Some(line) => line.push_back(work),
            None => {
                state.files.insert(file.clone(), VecDeque::from([work]));
                state.schedule(file, at);
                drop(state);
                self.changed.notify_one();
            }
        }
    }

    /// The next piece that is due; `None` once the queue is closed. The caller says [`done`](Self::done) or [`later`](Self::later) afterwards.
    pub async fn next(&self) -> Option<(Arc<str>, T)> {
        loop {
            let changed = self.changed.notified();
            let due = {
                let mut state = self.state.lock();
                if state.closed {
                    return None;
                }
                let due = state.fire(Instant::now());
                if let Some(taken) = state.take() {
                    let more = !state.ready.is_empty();
                    drop(state);
                    if more {
                        self.changed.notify_one();
                    }
                    return Some(taken);
                }
                due
            };
            match due {
                Some(at) => tokio::select! { () = changed => {}, () = tokio::time::sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// The work on `file` ended; its next piece may start.
    pub fn done(&self, file: &Arc<str>) {
        let mut state = self.state.lock();
        if state.files.get(file).is_some_and(VecDeque::is_empty) {
            state.files.remove(file);
        } else {
            state.schedule(file, None);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The work on `file` is tried again at `at`, before everything else of the file.
    pub fn later(&self, file: &Arc<str>, work: T, at: Instant) {
        let mut state = self.state.lock();
        state.length += 1;
        state.files.entry(file.clone()).or_default().push_front(work);
        state.schedule(file, Some(at));
        drop(state);
        self.changed.notify_one();
    }

    /// Everything that waits for its time is due now.
    pub fn hurry(&self) {
        let mut state = self.state.lock();
        let later = std::mem::take(&mut state.later);
        state.ready.extend(later.into_values());
        drop(state);
        self.changed.notify_one();
    }

    /// Ends the queue: every worker gets `None`.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Whether a file has work that waits or is being done.
    pub fn contains(&self, file: &str) -> bool {
        self.state.lock().files.contains_key(file)
    }

    /// Pieces of work that wait.
    pub fn len(&self) -> usize {
        self.state.lock().length
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> State<T> {
    fn schedule(&mut self, file: &Arc<str>, at: Option<Instant>) {
        match at {
            None => self.ready.push_back(file.clone()),
            Some(at) => {
                self.tie += 1;
                self.later.insert((at, self.tie), file.clone());
            }
        }
    }

    /// Moves what is due to the ready line; returns when the next one is.
    fn fire(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                return Some(entry.key().0);
            }
            self.ready.push_back(entry.remove());
        }
        None
    }

    fn take(&mut self) -> Option<(Arc<str>, T)> {
        while let Some(file) = self.ready.pop_front() {
            if let Some(work) = self.files.get_mut(&file).and_then(VecDeque::pop_front) {
                self.length -= 1;
                return Some((file, work));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn r5_one_file_at_a_time_in_order_and_others_pass_by() {
        let queue = FileQueue::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        queue.push(&a, 1);
        queue.push(&a, 2);
        queue.push(&b, 3);
        let (file, work) = queue.next().await.unwrap();
        assert_eq!((&*file, work), ("a", 1));
        assert_eq!(queue.next().await.unwrap().1, 3, "the second piece of a waits for the first");
        // The first piece fails and is tried again later; what came behind it stays behind it.
        queue.later(&a, 1, Instant::now() + Duration::from_secs(5));
        queue.push(&a, 4);
        queue.done(&b);
        let start = Instant::now();
        assert_eq!(queue.next().await.unwrap().1, 1);
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.done(&a);
        assert_eq!(queue.next().await.unwrap().1, 2);
        queue.done(&a);
        assert_eq!(queue.next().await.unwrap().1, 4);
        queue.done(&a);
        assert!(queue.is_empty());
        queue.push(&a, 5);
        assert_eq!(queue.next().await.unwrap().1, 5, "a file that was done starts over");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_can_be_hurried_and_closing_frees_everybody() {
        let queue = Arc::new(FileQueue::default());
        let file: Arc<str> = "a".into();
        queue.push_at(&file, 1, Instant::now() + Duration::from_hours(1));
        queue.hurry();
        assert_eq!(queue.next().await.unwrap().1, 1);
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::task::yield_now().await;
        queue.close();
        assert!(waiting.await.unwrap().is_none());
    }
}
