//! How many objects of one tenant are worked on at once while others share the API server (T6).
//!
//! Where the API server answers in time, a tenant may hold as many workers as the queue lends it. Where the operator's own status
//! writes become slow, more of them at once only make everybody wait, the other tenants first of all: then each gets fewer,
//! until the writes are fast again. With one tenant there is nobody to protect, and nothing is held back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// A write that takes longer is slow, unless the API server never answers faster.
const SLOW: f64 = 0.05;
/// On such a server, a write is slow that takes so many times as long as the fastest.
const TIMES_THE_FASTEST: f64 = 4.0;
/// The memory of the fastest write fades by this part with each write: slowly, since under load all are slow.
const FADES: f64 = 0.0001;
/// What a slow write takes away, and what a fast one gives: so a sixth of the writes may be slow.
const TAKES: f64 = 0.5;
const GIVES: f64 = 0.1;
/// The part of the workers that a tenant has at the start, and the part that it always has.
const FIRST: f64 = 0.125;
const LEAST: f64 = 0.0625;

/// See the module.
pub struct Pressure {
    workers: f64,
    several: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// Workers that one tenant may hold.
    most: f64,
    /// Seconds of the fastest write of late.
    fastest: f64,
}

impl Pressure {
    /// Nothing was written yet; there are so many workers.
    pub fn new(workers: usize) -> Self {
        let workers = f64::from(u32::try_from(workers).unwrap_or(u32::MAX));
        let state = State { most: (workers * FIRST).max(1.0), fastest: f64::INFINITY };
        Self { workers, several: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Whether several tenants have objects.
    pub fn is_shared(&self, several: bool) {
        self.several.store(several, Ordering::Relaxed);
    }

    /// A status write took so long.
    pub fn wrote(&self, took: Duration) {
        let took = took.as_secs_f64();
        let mut state = self.state.lock();
        state.fastest = (state.fastest * (1.0 + FADES)).min(took);
        let is_slow = took > SLOW.max(TIMES_THE_FASTEST * state.fastest);
        let next = if is_slow { state.most - TAKES } else { state.most + GIVES };
        state.most = next.clamp((self.workers * LEAST).max(1.0), self.workers);
    }

    /// Workers that one tenant may hold now.
    pub fn most(&self) -> usize {
        if !self.several.load(Ordering::Relaxed) {
            return usize::MAX;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the number of workers")]
        let most = self.state.lock().most as usize;
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(writes: &[(u64, usize)]) -> usize {
        let pressure = Pressure::new(64);
        pressure.is_shared(true);
        for (millis, times) in writes {
            (0..*times).for_each(|_| pressure.wrote(Duration::from_millis(*millis)));
        }
        pressure.most()
    }

    #[test]
    fn t6_slow_writes_take_workers_away_and_fast_ones_give_them_back() {
        assert_eq!(after(&[]), 8);
        assert_eq!(after(&[(5, 1000)]), 64);
        assert_eq!(after(&[(5, 1000), (200, 60)]), 34);
        assert_eq!(after(&[(5, 1000), (200, 1000)]), 4, "some are always left");
        assert_eq!(after(&[(5, 1000), (200, 1000), (5, 1000)]), 64);
    }

    #[test]
    fn a_server_that_is_never_fast_is_not_taken_for_one_that_is_busy() {
        assert_eq!(after(&[(150, 1000)]), 64);
        assert_eq!(after(&[(150, 1000), (900, 1000)]), 4);
    }

    #[test]
    fn a_single_tenant_is_not_held_back() {
        let pressure = Pressure::new(64);
        (0..1000).for_each(|_| pressure.wrote(Duration::from_secs(1)));
        assert_eq!(pressure.most(), usize::MAX);
    }
}
