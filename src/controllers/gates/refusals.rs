//! What is refused for good: not tried again until it changes, or a long time has passed.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{Error, Kind};

/// What is refused is tried again after this long: its cause may have gone where nothing is heard of it.
pub(super) const AGAIN: Duration = Duration::from_hours(1);

/// Whether another try of the same changes nothing. A credential that is refused may be replaced at any time: that is not for good.
pub(super) fn is_for_good(error: &Error) -> bool {
    matches!(error.kind, Kind::Rejected | Kind::Conflict | Kind::Unsupported)
}

/// What was refused, in which state.
pub(super) struct Refusals<K>(Mutex<HashMap<K, (String, Instant)>>);

impl<K> Default for Refusals<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Refusals<K> {
    /// It was refused in this state.
    pub fn add(&self, key: K, state: String) {
        self.0.lock().insert(key, (state, Instant::now() + AGAIN));
    }

    /// It was not.
    pub fn remove(&self, key: &K) {
        self.0.lock().remove(key);
    }

    /// Whether it was refused in this very state not long ago.
    pub fn has(&self, key: &K, state: &str) -> bool {
        self.0.lock().get(key).is_some_and(|(known, until)| known == state && *until > Instant::now())
    }

    /// Forgets all but these.
    pub fn keep(&self, keys: &HashSet<K>) {
        self.0.lock().retain(|key, _| keys.contains(key));
    }

    /// When the next one is tried again.
    pub fn next(&self) -> Option<Duration> {
        let refusals = self.0.lock();
        refusals.values().map(|(_, until)| until.saturating_duration_since(Instant::now())).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_good_waits_until_it_changes_or_an_hour_has_passed() {
        let refusals = Refusals::default();
        refusals.add("file", "1".to_owned());
        assert!(refusals.has(&"file", "1") && !refusals.has(&"file", "2") && !refusals.has(&"other", "1"));
        tokio::time::advance(Duration::from_secs(3_599)).await;
        assert_eq!((refusals.has(&"file", "1"), refusals.next()), (true, Some(Duration::from_secs(1))));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!refusals.has(&"file", "1"));
        refusals.keep(&HashSet::new());
        assert_eq!(refusals.next(), None, "nothing is remembered of what is not pending any more");
    }

    #[test]
    fn only_what_another_try_does_not_change_is_for_good() {
        for (kind, expected) in [
            (Kind::Rejected, true),
            (Kind::Conflict, true),
            (Kind::Unsupported, true),
            (Kind::Denied, false),
            (Kind::Stale, false),
            (Kind::RateLimited, false),
            (Kind::Unavailable, false),
            (Kind::Kubernetes, false),
        ] {
            assert_eq!(is_for_good(&Error::new(kind, "")), expected, "{kind:?}");
        }
    }
}
