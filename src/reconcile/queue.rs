//! The work queue of a controller.
//!
//! Promises: a key is worked on by one worker at a time; a key that is pushed while it is worked on comes once more
//! afterwards; of several times for one key the earliest wins. Memory is O(keys that wait).
//!
//! One tenant's thousands do not make another wait (T6): namespaces take turns, and a namespace never holds more than
//! [`SHARE`] times as many workers as are left. So there is always a worker for one more namespace, however slowly the
//! others' passes go, and nothing has to be known about who will come.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ObjectKey;

/// How many times as many workers as are free one namespace may hold: alone, four fifths of all.
const SHARE: usize = 4;

/// See the module.
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    workers: usize,
    /// Workers that each namespace holds.
    held: HashMap<Arc<str>, usize>,
    /// Namespaces that have something ready, in turn.
    turns: VecDeque<Arc<str>>,
    ready: HashMap<Arc<str>, VecDeque<ObjectKey>>,
    queued: HashSet<ObjectKey>,
    running: HashSet<ObjectKey>,
    /// Pushed while running.
    again: HashSet<ObjectKey>,
    timers: BTreeSet<(Instant, ObjectKey)>,
    due: HashMap<ObjectKey, Instant>,
    closed: bool,
}

impl State {
    fn enqueue(&mut self, key: ObjectKey) {
        if let Some(at) = self.due.remove(&key) {
            self.timers.remove(&(at, key.clone()));
        }
        if self.running.contains(&key) {
            self.again.insert(key);
            return;
        }
        if !self.queued.insert(key.clone()) {
            return;
        }
        let line = self.ready.entry(key.namespace.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(key.namespace.clone());
        }
        line.push_back(key);
    }

    fn pop(&mut self) -> Option<ObjectKey> {
        let free = self.workers.saturating_sub(self.running.len());
        let may_take = |namespace| self.held.get(namespace).copied().unwrap_or_default() < SHARE * free;
        let turn = self.turns.iter().position(may_take)?;
        let namespace = self.turns.remove(turn)?;
        let line = self.ready.get_mut(&namespace)?;
        let key = line.pop_front()?;
        if line.is_empty() {
            self.ready.remove(&namespace);
        } else {
            self.turns.push_back(namespace.clone());
        }
        *self.held.entry(namespace).or_default() += 1;
        self.queued.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn release(&mut self, key: &ObjectKey) {
        if self.running.remove(key)
            && let Some(held) = self.held.get_mut(&key.namespace)
        {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&key.namespace);
            }
        }
    }

    /// Moves what is due to the ready lines; returns when the next one is.
    fn fire(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                return Some(at);
            }
            self.timers.pop_first();
            self.due.remove(&key);
            self.enqueue(key);
        }
        None
    }
}

impl Queue {
    /// An empty queue for so many workers: each calls [`next`](Self::next) and [`done`](Self::done) in turn.
    pub fn new(workers: usize) -> Self {
        Self { state: Mutex::new(State { workers, ..State::default() }), changed: Notify::new() }
    }

    /// Work on `key` as soon as its turn comes.
    pub fn push(&self, key: ObjectKey) {
        self.state.lock().enqueue(key);
        self.changed.notify_one();
    }

    /// Work on `key` after `delay`, unless an earlier time is set already.
    pub fn push_after(&self, key: ObjectKey, delay: Duration) {
        let mut state = self.state.lock();
        let at = Instant::now() + delay;
        if state.queued.contains(&key) || state.due.get(&key).is_some_and(|set| *set <= at) {
            return;
        }
        if let Some(later) = state.due.insert(key.clone(), at) {
            state.timers.remove(&(later, key.clone()));
        }
        state.timers.insert((at, key));
        drop(state);
        self.changed.notify_one();
    }

    /// Those of `keys` that are worked on now come once more afterwards: what they are worked on with is out of date.
    pub fn repeat(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        let mut state = self.state.lock();
        let State { running, again, .. } = &mut *state;
        again.extend(keys.into_iter().filter(|key| running.contains(key)));
    }

    /// Forgets the time that is set for `key`.
    pub fn cancel(&self, key: &ObjectKey) {
        let mut state = self.state.lock();
        if let Some(at) = state.due.remove(key) {
            state.timers.remove(&(at, key.clone()));
        }
    }

    /// The next key; `None` once the queue is closed. The caller says [`done`](Self::done) afterwards.
    pub async fn next(&self) -> Option<ObjectKey> {
        loop {
            let changed = self.changed.notified();
            let next_timer = {
                let mut state = self.state.lock();
                if state.closed {
                    return None;
                }
                let next_timer = state.fire(Instant::now());
                if let Some(key) = state.pop() {
                    let more = !state.turns.is_empty();
                    drop(state);
                    if more {
                        self.changed.notify_one();
                    }
                    return Some(key);
                }
                next_timer
            };
            match next_timer {
                Some(at) => tokio::select! { () = changed => {}, () = tokio::time::sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// The work on `key` ended.
    pub fn done(&self, key: &ObjectKey) {
        let mut state = self.state.lock();
        state.release(key);
        if state.again.remove(key) {
            state.enqueue(key.clone());
        }
        let more = !state.turns.is_empty();
        drop(state);
        if more {
            // What waited because its namespace held too many may come now.
            self.changed.notify_one();
        }
    }

    /// Ends the queue: every worker gets `None`.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Keys that wait for a worker now (timers not counted).
    pub fn len(&self) -> usize {
        self.state.lock().queued.len()
    }

    /// Nothing waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::new(namespace, name)
    }

    #[tokio::test]
    async fn what_is_worked_on_is_repeated_before_a_time_that_its_pass_sets() {
        let queue = Queue::new(8);
        let (busy, idle) = (key("a", "busy"), key("a", "idle"));
        queue.push(busy.clone());
        assert_eq!(queue.next().await, Some(busy.clone()));
        queue.repeat([busy.clone(), idle]);
        queue.push_after(busy.clone(), Duration::from_hours(1));
        queue.done(&busy);
        assert_eq!(queue.next().await, Some(busy));
        assert_eq!(queue.len(), 0, "what rests is left alone");
    }

    #[tokio::test]
    async fn t6_namespaces_take_turns() {
        let queue = Queue::new(8);
        for n in 0..100 {
            queue.push(key("big", &n.to_string()));
        }
        queue.push(key("small", "one"));
        let first = queue.next().await.unwrap();
        let second = queue.next().await.unwrap();
        assert_eq!((&*first.namespace, &*second.namespace), ("big", "small"));
    }

    /// What workers can take now.
    async fn take_all(queue: &Queue) -> Vec<ObjectKey> {
        let mut taken = Vec::new();
        while let Ok(Some(key)) = tokio::time::timeout(Duration::ZERO, queue.next()).await {
            taken.push(key);
        }
        taken
    }

    #[tokio::test]
    async fn t6_a_namespace_whose_passes_never_end_leaves_workers_to_others() {
        let queue = Queue::new(10);
        for n in 0..100 {
            queue.push(key("big", &n.to_string()));
        }
        let held = take_all(&queue).await;
        assert_eq!(held.len(), 8, "four fifths");
        for namespace in ["small", "second"] {
            queue.push(key(namespace, "one"));
            assert_eq!(take_all(&queue).await, [key(namespace, "one")], "it waits for nobody");
        }
        queue.done(&key("second", "one"));
        assert!(take_all(&queue).await.is_empty(), "what is free stays free for others");
        for key in &held {
            queue.done(key);
        }
        assert_eq!(take_all(&queue).await.len(), 8, "the rest of the big one goes on");
    }

    #[tokio::test]
    async fn every_worker_is_used_when_there_are_few() {
        let queue = Queue::new(1);
        queue.push(key("a", "x"));
        queue.push(key("a", "y"));
        assert_eq!(take_all(&queue).await, [key("a", "x")]);
        queue.done(&key("a", "x"));
        assert_eq!(take_all(&queue).await, [key("a", "y")]);
    }

    #[tokio::test]
    async fn a_key_pushed_while_it_runs_comes_once_more() {
        let queue = Queue::new(8);
        queue.push(key("a", "x"));
        let running = queue.next().await.unwrap();
        queue.push(key("a", "x"));
        queue.push(key("a", "x"));
        assert!(queue.is_empty());
        queue.done(&running);
        assert_eq!(queue.next().await.unwrap(), running);
        queue.done(&running);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_wins_and_a_push_replaces_it() {
        let queue = Queue::new(8);
        queue.push_after(key("a", "x"), Duration::from_mins(1));
        queue.push_after(key("a", "x"), Duration::from_secs(5));
        queue.push_after(key("a", "x"), Duration::from_secs(30));
        let start = Instant::now();
        queue.next().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.done(&key("a", "x"));
        queue.push_after(key("a", "y"), Duration::from_mins(1));
        queue.push(key("a", "y"));
        queue.next().await.unwrap();
        queue.done(&key("a", "y"));
        assert!(tokio::time::timeout(Duration::from_mins(2), queue.next()).await.is_err(), "the timer went with the push");
    }

    #[tokio::test]
    async fn closing_frees_every_worker() {
        let queue = Arc::new(Queue::new(8));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        for worker in workers {
            assert_eq!(worker.await.unwrap(), None);
        }
    }
}
