//! Work on files: one piece at a time for each file, in the order in which it came; many files at once.
//!
//! A file has two lanes. What only tells mirrors how the file is now does not wait until another destination of an earlier piece is back.

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

/// Within a lane, a piece that waits for its time holds up what came behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Versions, one after the other.
    Versions,
    /// What mirrors are told of a file: it may overtake a version that waits for its time.
    Mirrors,
}

/// When a piece is due, and its place among those that are due then.
type Turn = (Instant, u64);

struct State<T> {
    files: HashMap<Arc<str>, Line<T>>,
    /// Files that are not worked on, by the turn of their next piece.
    turns: BTreeMap<Turn, Arc<str>>,
    tie: u64,
    length: usize,
    closed: bool,
}

/// Work of one file.
struct Line<T> {
    versions: VecDeque<(Turn, T)>,
    mirrors: VecDeque<(Turn, T)>,
    /// Its entry among the turns; none while it is worked on.
    turn: Option<Turn>,
}

impl<T> Default for FileQueue<T> {
    fn default() -> Self {
        let state = State { files: HashMap::new(), turns: BTreeMap::new(), tie: 0, length: 0, closed: false };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<T> FileQueue<T> {
    /// Adds work behind what the lane of the file has already.
    pub fn push(&self, file: &Arc<str>, lane: Lane, work: T) {
        let mut state = self.state.lock();
        let turn = state.turn(Instant::now());
        state.length += 1;
        let is_known = state.files.contains_key(file);
        let line = state.files.entry(file.clone()).or_default();
        line.lane(lane).push_back((turn, work));
        // Who works on a known file schedules what is next.
        if is_known && line.turn.is_none() {
            return;
        }
        state.schedule(file);
        drop(state);
        self.changed.notify_one();
    }

    /// The next piece that is due; `None` once the queue is closed. The caller says [`done`](Self::done) or [`later`](Self::later) afterwards.
    pub async fn next(&self) -> Option<(Arc<str>, Lane, T)> {
        loop {
            let changed = self.changed.notified();
            let due = {
                let mut state = self.state.lock();
                if state.closed {
                    return None;
                }
                let now = Instant::now();
                if let Some(taken) = state.take(now) {
                    let more = state.turns.first_key_value().is_some_and(|((at, _), _)| *at <= now);
                    drop(state);
                    if more {
                        self.changed.notify_one();
                    }
                    return Some(taken);
                }
                state.turns.first_key_value().map(|((at, _), _)| *at)
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
        state.schedule(file);
        drop(state);
        self.changed.notify_one();
    }

    /// The work on `file` is tried again at `at`, before everything else of its lane.
    pub fn later(&self, file: &Arc<str>, lane: Lane, work: T, at: Instant) {
        let mut state = self.state.lock();
        let turn = state.turn(at);
        state.length += 1;
        state.files.entry(file.clone()).or_default().lane(lane).push_front((turn, work));
        state.schedule(file);
        drop(state);
        self.changed.notify_one();
    }

    /// Everything that waits for its time is due now, also behind what is being worked on.
    pub fn hurry(&self) {
        let mut state = self.state.lock();
        let State { files, turns, .. } = &mut *state;
        let now = Instant::now();
        for (file, line) in files {
            for ((at, _), _) in [&mut line.versions, &mut line.mirrors].into_iter().filter_map(VecDeque::front_mut) {
                *at = now.min(*at);
            }
            if let Some(before) = line.turn {
                turns.remove(&before);
                line.turn = line.next().map(|(turn, _)| turn);
                turns.extend(line.turn.map(|turn| (turn, file.clone())));
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Shows the last version that stands behind one that waits for its time, if there is one.
    pub fn newest_behind<R>(&self, file: &str, show: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut state = self.state.lock();
        let versions = &mut state.files.get_mut(file)?.versions;
        let ((due, _), _) = versions.front()?;
        (versions.len() > 1 && *due > Instant::now()).then(|| versions.back_mut().map(|(_, work)| show(work)))?
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
    fn turn(&mut self, at: Instant) -> Turn {
        self.tie += 1;
        (at, self.tie)
    }

    /// Gives a file that is not worked on the turn of its next piece; forgets one that has none.
    fn schedule(&mut self, file: &Arc<str>) {
        let Some(line) = self.files.get_mut(file) else { return };
        if let Some(before) = line.turn.take() {
            self.turns.remove(&before);
        }
        line.turn = line.next().map(|(turn, _)| turn);
        match line.turn {
            Some(turn) => {
                self.turns.insert(turn, file.clone());
            }
            None => {
                self.files.remove(file);
            }
        }
    }

    fn take(&mut self, now: Instant) -> Option<(Arc<str>, Lane, T)> {
        let first = self.turns.first_entry().filter(|first| first.key().0 <= now)?;
        let file = first.remove();
        let line = self.files.get_mut(&file)?;
        line.turn = None;
        let (_, lane) = line.next()?;
        let (_, work) = line.lane(lane).pop_front()?;
        self.length -= 1;
        Some((file, lane, work))
    }
}

impl<T> Line<T> {
    fn lane(&mut self, lane: Lane) -> &mut VecDeque<(Turn, T)> {
        match lane {
            Lane::Versions => &mut self.versions,
            Lane::Mirrors => &mut self.mirrors,
        }
    }

    /// The piece whose turn comes first.
    fn next(&self) -> Option<(Turn, Lane)> {
        let turn = |lane: &VecDeque<(Turn, T)>| lane.front().map(|(turn, _)| *turn);
        let version = turn(&self.versions).map(|turn| (turn, Lane::Versions));
        let mirror = turn(&self.mirrors).map(|turn| (turn, Lane::Mirrors));
        version.into_iter().chain(mirror).min_by_key(|(turn, _)| *turn)
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { versions: VecDeque::new(), mirrors: VecDeque::new(), turn: None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::Lane::{Mirrors, Versions};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn r5_one_file_at_a_time_in_order_and_others_pass_by() {
        let queue = FileQueue::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        queue.push(&a, Versions, 1);
        queue.push(&a, Versions, 2);
        queue.push(&b, Versions, 3);
        let (file, _, work) = queue.next().await.unwrap();
        assert_eq!((&*file, work), ("a", 1));
        assert_eq!(queue.next().await.unwrap().2, 3, "the second piece of a waits for the first");
        // The first piece fails and is tried again later; what came behind it stays behind it.
        queue.later(&a, Versions, 1, Instant::now() + Duration::from_secs(5));
        queue.push(&a, Versions, 4);
        queue.done(&b);
        let start = Instant::now();
        assert_eq!(queue.next().await.unwrap().2, 1);
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.done(&a);
        assert_eq!(queue.next().await.unwrap().2, 2);
        queue.done(&a);
        assert_eq!(queue.next().await.unwrap().2, 4);
        queue.done(&a);
        assert!(queue.is_empty() && !queue.contains("a"));
        queue.push(&a, Versions, 5);
        assert_eq!(queue.next().await.unwrap().2, 5, "a file that was done starts over");
    }

    #[tokio::test(start_paused = true)]
    async fn r7_what_mirrors_are_told_overtakes_a_version_that_waits_but_not_one_that_is_due() {
        let queue = FileQueue::default();
        let a: Arc<str> = "a".into();
        queue.push(&a, Versions, 1);
        queue.push(&a, Mirrors, 2);
        assert_eq!(queue.next().await.unwrap().2, 1, "both are due: the first that came");
        queue.later(&a, Versions, 1, Instant::now() + Duration::from_secs(5));
        let start = Instant::now();
        assert_eq!(queue.next().await.unwrap().2, 2);
        queue.push(&a, Mirrors, 3);
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.next()).await.is_err(), "one piece at a time");
        // The mirror is away, too, and longer: the version does not wait for that.
        queue.later(&a, Mirrors, 2, Instant::now() + Duration::from_secs(10));
        assert_eq!(queue.next().await.unwrap().2, 1);
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.done(&a);
        assert_eq!(queue.next().await.unwrap().2, 2);
        queue.done(&a);
        assert_eq!(queue.next().await.unwrap().2, 3);
        queue.done(&a);
        assert!(!queue.contains("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn r7_the_newest_version_is_shown_only_while_it_stands_behind_one_that_waits() {
        let queue = FileQueue::default();
        let a: Arc<str> = "a".into();
        let newest = || queue.newest_behind("a", |work| *work);
        queue.push(&a, Versions, 1);
        queue.push(&a, Versions, 2);
        assert_eq!(newest(), None, "it is due");
        let (_, _, one) = queue.next().await.unwrap();
        queue.push(&a, Versions, 3);
        assert_eq!(newest(), None, "what is in hand is not waiting");
        queue.later(&a, Versions, one, Instant::now() + Duration::from_secs(5));
        assert_eq!(newest(), Some(3));
        assert_eq!(queue.newest_behind("b", |work| *work), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_can_be_hurried_and_closing_frees_everybody() {
        let queue = Arc::new(FileQueue::default());
        let file: Arc<str> = "a".into();
        queue.later(&file, Versions, 1, Instant::now() + Duration::from_hours(1));
        queue.later(&file, Mirrors, 2, Instant::now() + Duration::from_hours(2));
        queue.hurry();
        assert_eq!(queue.next().await.unwrap().2, 1);
        queue.done(&file);
        assert_eq!(queue.next().await.unwrap().2, 2);
        // One lane is in hand when the other is hurried.
        let start = Instant::now();
        queue.later(&file, Mirrors, 2, start);
        assert_eq!(queue.next().await.unwrap().2, 2);
        queue.push(&file, Versions, 3);
        queue.done(&file);
        assert_eq!(queue.next().await.unwrap().2, 3);
        queue.push(&file, Mirrors, 4);
        queue.later(&file, Versions, 3, start + Duration::from_hours(1));
        assert_eq!(queue.next().await.unwrap().2, 4);
        queue.hurry();
        queue.done(&file);
        assert_eq!(queue.next().await.unwrap().2, 3);
        assert_eq!(start.elapsed(), Duration::ZERO);
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::task::yield_now().await;
        queue.close();
        assert!(waiting.await.unwrap().is_none());
    }

    proptest! {
        /// Whatever happens in whatever order: nothing is lost, no file is worked on twice at once, each lane stays in order.
        #[test]
        fn r5_every_piece_comes_out_once_and_each_lane_in_order(
            steps in proptest::collection::vec((0usize..3, any::<bool>(), 0u8..4), 1..60)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let names: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
                let queue = FileQueue::default();
                let mut pushed = 0;
                let mut ended = Vec::new();
                let mut in_hand: Vec<(Arc<str>, Lane, usize)> = Vec::new();
                for (file, is_mirror, step) in steps {
                    match step {
                        0 => {
                            queue.push(&names[file], if is_mirror { Mirrors } else { Versions }, pushed);
                            pushed += 1;
                        }
                        1 => {
                            if let Ok(taken) = tokio::time::timeout(Duration::from_millis(1), queue.next()).await {
                                let taken = taken.unwrap();
                                prop_assert!(in_hand.iter().all(|(file, ..)| *file != taken.0));
                                in_hand.push(taken);
                            }
                        }
                        2 => {
                            if let Some((file, lane, work)) = in_hand.pop() {
                                queue.later(&file, lane, work, Instant::now() + Duration::from_secs(1 + work as u64 % 3));
                            }
                        }
                        _ => {
                            if let Some((file, lane, work)) = in_hand.pop() {
                                ended.push((file.clone(), lane, work));
                                queue.done(&file);
                            }
                        }
                    }
                }
                for (file, lane, work) in in_hand.drain(..) {
                    ended.push((file.clone(), lane, work));
                    queue.done(&file);
                }
                while !queue.is_empty() {
                    let (file, lane, work) = queue.next().await.unwrap();
                    ended.push((file.clone(), lane, work));
                    queue.done(&file);
                }
                prop_assert_eq!(ended.len(), pushed);
                for name in &names {
                    prop_assert!(!queue.contains(name));
                    for lane in [Versions, Mirrors] {
                        let works: Vec<usize> =
                            ended.iter().filter(|(file, of, _)| file == name && *of == lane).map(|(.., work)| *work).collect();
                        prop_assert!(works.is_sorted());
                    }
                }
                Ok(())
            })?;
        }
    }
}
