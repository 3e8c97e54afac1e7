//! How many calls may be in flight.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, Kind, Result};

/// A number of slots that can change while they are in use.
pub struct Slots {
    turns: Semaphore,
    capacity: AtomicUsize,
}

impl Slots {
    /// At least one.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
        Self { turns: Semaphore::new(capacity), capacity: AtomicUsize::new(capacity) }
    }

    /// From now on there are `wanted`; slots in use stay so until they are given back.
    pub fn resize(&self, wanted: usize) {
        let wanted = wanted.clamp(1, Semaphore::MAX_PERMITS);
        let now = self.capacity.swap(wanted, Ordering::Relaxed);
        if wanted > now {
            self.turns.add_permits(wanted - now);
        } else {
            self.turns.forget_permits(now - wanted);
        }
    }

    /// Waits for a slot, in order of arrival; it is given back when the permit is dropped.
    pub async fn take(&self) -> Result<SemaphorePermit<'_>> {
        self.turns.acquire().await.map_err(|_| Error::new(Kind::Stopping, "the session is closed"))
    }
}
