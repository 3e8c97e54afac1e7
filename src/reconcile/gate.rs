//! How many status writes of one tenant are under way at once while others share the API server (T6).
//!
//! Where the API server answers in time, nobody waits here. Where the writes become slow, more of them at once only make
//! everybody wait, the other tenants first of all: then those of one tenant wait here for each other, until writes are fast again.
//! With one tenant there is nobody to protect, and nothing is held back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A write that takes longer is slow, unless the API server never answers faster.
const SLOW: f64 = 0.05;
/// On such a server, a write is slow that takes so many times as long as the fastest.
const TIMES_THE_FASTEST: f64 = 4.0;
/// The memory of the fastest write fades by this part with each write: slowly, since under load all are slow.
const FADES: f64 = 0.0001;
/// What a slow write takes away, and what a fast one gives: so a fifth of the writes may be slow.
const TAKES: f64 = 0.5;
const GIVES: f64 = 0.125;
/// Writes of one tenant at once: at the start, at least, at most.
const FIRST: f64 = 8.0;
const LEAST: f64 = 2.0;
const MOST: f64 = 256.0;

/// See the module.
pub struct Gate {
    several: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// Writes of one tenant that may be under way.
    most: f64,
    /// Seconds of the fastest write of late.
    fastest: f64,
    lines: HashMap<Arc<str>, Line>,
}

/// The writes of one tenant.
#[derive(Default)]
struct Line {
    running: usize,
    waiting: usize,
    freed: Arc<Notify>,
}

impl Default for Gate {
    fn default() -> Self {
        let state = State { most: FIRST, fastest: f64::INFINITY, lines: HashMap::new() };
        Self { several: AtomicBool::new(false), state: Mutex::new(state) }
    }
}

impl Gate {
    /// Whether several tenants have objects.
    pub fn is_shared(&self, several: bool) {
        self.several.store(several, Ordering::Relaxed);
    }

    /// Runs a write of `tenant` when its turn comes, and learns from how long it takes.
    pub async fn write<T>(&self, tenant: &Arc<str>, write: impl Future<Output = T>) -> T {
        let _turn = self.turn(tenant).await;
        let started = Instant::now();
        let result = write.await;
        self.state.lock().learn(started.elapsed());
        result
    }

    async fn turn<'a>(&'a self, tenant: &'a Arc<str>) -> Turn<'a> {
        let mut waited = false;
        loop {
            let freed = {
                let mut state = self.state.lock();
                let most = if self.several.load(Ordering::Relaxed) { state.most() } else { usize::MAX };
                let line = state.lines.entry(tenant.clone()).or_default();
                line.waiting -= usize::from(waited);
                if line.running < most {
                    line.running += 1;
                    if line.waiting > 0 && line.running < most {
                        // The gate has become wider meanwhile.
                        line.freed.notify_one();
                    }
                    return Turn { gate: self, tenant };
                }
                line.waiting += 1;
                line.freed.clone()
            };
            waited = true;
            freed.notified().await;
        }
    }
}

impl State {
    fn learn(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.fastest = (self.fastest * (1.0 + FADES)).min(took);
        let is_slow = took > SLOW.max(TIMES_THE_FASTEST * self.fastest);
        let next = if is_slow { self.most - TAKES } else { self.most + GIVES };
        self.most = next.clamp(LEAST, MOST);
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between LEAST and MOST")]
    fn most(&self) -> usize {
        self.most as usize
    }
}

/// One write that is under way.
struct Turn<'a> {
    gate: &'a Gate,
    tenant: &'a Arc<str>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        let Some(line) = state.lines.get_mut(self.tenant) else { return };
        line.running -= 1;
        if line.running + line.waiting == 0 {
            state.lines.remove(self.tenant);
        } else {
            line.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn after(writes: &[(u64, usize)]) -> usize {
        let gate = Gate::default();
        let mut state = gate.state.lock();
        for (millis, times) in writes {
            (0..*times).for_each(|_| state.learn(Duration::from_millis(*millis)));
        }
        state.most()
    }

    #[test]
    fn t6_slow_writes_narrow_the_gate_and_fast_ones_widen_it() {
        assert_eq!(after(&[]), 8);
        assert_eq!(after(&[(5, 10_000)]), 256);
        assert_eq!(after(&[(5, 448), (200, 60)]), 34);
        assert_eq!(after(&[(5, 1000), (200, 1000)]), 2, "some always pass");
        assert_eq!(after(&[(5, 1000), (200, 1000), (5, 496)]), 64);
    }

    #[test]
    fn a_server_that_is_never_fast_is_not_taken_for_one_that_is_busy() {
        assert_eq!(after(&[(150, 448)]), 64);
        assert_eq!(after(&[(150, 448), (900, 1000)]), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn t6_a_tenants_writes_wait_for_each_other_and_not_for_anothers() {
        let gate = Arc::new(Gate::default());
        gate.is_shared(true);
        let (big, small): (Arc<str>, Arc<str>) = ("big".into(), "small".into());
        let under_way = |gate: &Gate| gate.state.lock().lines.get("big").map_or(0, |line| line.running);
        let mut writes = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (gate, big) = (gate.clone(), big.clone());
            writes.spawn(async move { gate.write(&big, tokio::time::sleep(Duration::from_secs(1))).await });
        }
        tokio::task::yield_now().await;
        assert_eq!(under_way(&gate), 8);
        assert!(gate.write(&small, async {}).now_or_never().is_some(), "the small one does not wait");
        writes.join_all().await;
        assert!(gate.state.lock().lines.is_empty(), "nothing is remembered of who does not write");
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_tenant_is_not_held_back() {
        let gate = Arc::new(Gate::default());
        let mut writes = tokio::task::JoinSet::new();
        let started = Instant::now();
        for _ in 0..100 {
            let gate = gate.clone();
            writes.spawn(async move { gate.write(&"only".into(), tokio::time::sleep(Duration::from_secs(1))).await });
        }
        writes.join_all().await;
        assert_eq!(started.elapsed(), Duration::from_secs(1));
    }
}
