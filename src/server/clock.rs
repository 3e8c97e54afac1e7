//! The server's time: the machine's, moved by an offset that tests control.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// A clock in whole milliseconds. Clones share the offset.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now().as_millisecond().saturating_add(self.offset_ms.load(Ordering::Relaxed));
        Timestamp::from_millisecond(now).unwrap_or_default()
    }

    /// Sets how far the clock is ahead of the machine's.
    pub fn set_offset_seconds(&self, seconds: i64) {
        self.offset_ms.store(seconds.saturating_mul(1000), Ordering::Relaxed);
    }

    /// How far the clock is ahead of the machine's.
    pub fn offset_seconds(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed) / 1000
    }
}

/// Times are kept in milliseconds; finer parts are cut off, so that what was sent compares equal to what was kept.
pub fn to_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}
