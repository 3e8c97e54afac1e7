//! A route, ready to run: everything of its spec compiled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::content::Bandwidth;
use super::delivery::{Destination, RouteId};
use super::gate::Gate;
use super::paths::PathPattern;
use super::rules::{Rules, UNMATCHED};
use crate::api::file_route::{FileEvent, FileRouteSpec};
use crate::error::{Error, Kind};
use crate::expression::Expression;
use crate::file360::model::Item;

/// Tries after the first, when the spec does not say.
const DEFAULT_RETRIES: u32 = 8;
const DEFAULT_FIRST_WAIT: Duration = Duration::from_secs(2);
const DEFAULT_LONGEST_WAIT: Duration = Duration::from_mins(5);
/// Files at once in one process, when the spec does not say.
pub const AT_ONCE: usize = 32;
/// Large files among them whose content is sent.
pub const LARGE_AT_ONCE: usize = 8;
/// What is longer is large, in bytes.
const LARGE: u64 = 1 << 20;

/// A route, ready to run.
pub struct Route {
    /// Which one.
    pub id: Arc<RouteId>,
    /// Its rules.
    pub rules: Rules,
    /// Gates of the rules, in their order.
    pub gates: Vec<Option<Arc<Gate>>>,
    /// Destinations of each rule, in the order of the rules.
    pub targets: Vec<Vec<Arc<Target>>>,
    /// What becomes of files that no rule takes.
    pub unmatched: Unmatched,
    /// Which paths it looks at.
    pub pattern: PathPattern,
    /// What makes it look at a file.
    pub events: BTreeSet<FileEvent>,
    /// Tries and waits.
    pub retry: Retry,
    /// Files at once, as the spec says.
    pub concurrency: Option<usize>,
    /// Turns of large files, if content is sent at all.
    pub large: Option<Semaphore>,
    /// Limits of what is read.
    pub bandwidth: Vec<Arc<Bandwidth>>,
    /// Folder for the files of dead letters.
    pub dead_letter_folder: Option<String>,
}

/// A file may be sent as long as this is held.
#[must_use]
pub struct Turn<'a>(#[expect(dead_code, reason = "held, not read")] Option<SemaphorePermit<'a>>);

impl Route {
    /// Waits until a file of this size may be sent.
    pub async fn turn(&self, size: u64) -> Turn<'_> {
        match self.turns_for(size) {
            // It is never closed.
            Some(large) => Turn(large.acquire().await.ok()),
            None => Turn(None),
        }
    }

    /// The same, if it needs no waiting.
    pub fn turn_at_once(&self, size: u64) -> Option<Turn<'_>> {
        match self.turns_for(size) {
            Some(large) => large.try_acquire().ok().map(|permit| Turn(Some(permit))),
            None => Some(Turn(None)),
        }
    }

    fn turns_for(&self, size: u64) -> Option<&Semaphore> {
        self.large.as_ref().filter(|_| size > LARGE)
    }

    /// Every destination.
    pub fn all_targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        let unmatched = match &self.unmatched {
            Unmatched::To(targets) => targets.as_slice(),
            _ => &[],
        };
        self.targets.iter().flatten().chain(unmatched)
    }

    /// Every destination under the name that records have for it: `rule/name`.
    pub fn slots(&self) -> impl Iterator<Item = (String, &Arc<Target>)> {
        let unmatched = match &self.unmatched {
            Unmatched::To(targets) => targets.as_slice(),
            _ => &[],
        };
        let rules = self.rules.names().zip(self.targets.iter().map(Vec::as_slice));
        rules
            .chain([(UNMATCHED, unmatched)])
            .flat_map(|(rule, targets)| targets.iter().map(move |target| (slot(rule, &target.name), target)))
    }

    /// Whether a slot is that of a destination that mirrors.
    pub fn is_mirror(&self, slot: &str) -> bool {
        self.slots().any(|(name, target)| name == slot && target.destination.mirrors())
    }

    /// Whether a file without a record is one that should have one: an event for it is among those that the route follows.
    pub fn takes_up(&self, item: &Item, has_older: bool) -> bool {
        let event = if has_older { FileEvent::VersionAdded } else { FileEvent::Uploaded };
        let is_later = item.version.is_some_and(|version| version > 1);
        self.events.contains(&event) || is_later && self.events.contains(&FileEvent::VersionAdded)
    }

    /// Whether some destination mirrors access and deletions.
    pub fn mirrors(&self) -> bool {
        self.all_targets().any(|target| target.destination.mirrors())
    }
}

/// The name that records have for a destination of a rule.
pub fn slot(rule: &str, target: &str) -> String {
    format!("{rule}/{target}")
}

/// What becomes of files that no rule takes.
pub enum Unmatched {
    /// They stay.
    Ignore,
    /// They move to a folder.
    MoveTo(String),
    /// They go to destinations.
    To(Vec<Arc<Target>>),
}

/// A destination of a rule.
pub struct Target {
    /// Its name in the rule.
    pub name: Arc<str>,
    /// Where files go.
    pub destination: Arc<dyn Destination>,
    /// What comes back into the file's metadata.
    pub write_back: Vec<(String, Expression)>,
    /// Whether it answers.
    pub breaker: Breaker,
}

/// Tries and waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub retries: u32,
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Retry {
    /// Of a spec.
    pub fn of(spec: &FileRouteSpec) -> Self {
        let delivery = spec.delivery.as_ref();
        let wait = |text: Option<&String>, default| text.and_then(|text| duration(text)).unwrap_or(default);
        let backoff = delivery.and_then(|delivery| delivery.backoff.as_ref());
        Self {
            retries: delivery.and_then(|delivery| delivery.retries).unwrap_or(DEFAULT_RETRIES),
            initial: wait(backoff.and_then(|backoff| backoff.initial.as_ref()), DEFAULT_FIRST_WAIT),
            max: wait(backoff.and_then(|backoff| backoff.max.as_ref()), DEFAULT_LONGEST_WAIT),
        }
    }

    /// The wait after the `failures`-th failure in a row: doubling, with jitter of a tenth (`chance` from 0 to 1).
    pub fn delay(&self, failures: u32, chance: f64) -> Duration {
        let doubled = self.initial.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(20)));
        doubled.min(self.max).mul_f64(0.9 + 0.2 * chance)
    }
}

/// Failures in a row, of whichever files, after which a destination counts as away.
const AWAY_AFTER: u32 = 3;

/// Whether a destination answers. While it does not, nothing is tried: files wait without using up their tries. One file that fails among
/// others that succeed never closes it (R5).
#[derive(Default)]
pub struct Breaker {
    state: Mutex<BreakerState>,
}

#[derive(Default)]
struct BreakerState {
    answers: u64,
    failures: u32,
    away_until: Option<Instant>,
    why: Option<Error>,
}

impl Breaker {
    /// When a try makes sense, if not now, and why. One caller at a time finds out whether it answers again.
    pub fn wait(&self, now: Instant, retry: &Retry) -> Option<(Instant, Error)> {
        let mut state = self.state.lock();
        let until = state.away_until?;
        if now < until {
            let why = state.why.clone().unwrap_or_else(|| Error::new(Kind::Unavailable, "the destination does not answer"));
            return Some((until, why));
        }
        // This caller tries; the others wait for what it finds.
        state.away_until = Some(now + retry.initial.max(Duration::from_millis(250)));
        None
    }

    /// It answered: whether it had been away.
    pub fn answered(&self) -> bool {
        let mut state = self.state.lock();
        let was_away = state.away_until.is_some();
        *state = BreakerState { answers: state.answers + 1, ..BreakerState::default() };
        was_away
    }

    /// It failed in a way that every file would meet. Returns until when it counts as away, if it does: at once when it names a time itself or nothing
    /// could be sent at all, else after some failures in a row.
    pub fn failed(&self, error: &Error, now: Instant, retry: &Retry, chance: f64) -> Option<Instant> {
        let mut state = self.state.lock();
        state.failures = state.failures.saturating_add(1);
        let at_once = error.retry_after.is_some() || matches!(error.kind, Kind::Reference | Kind::Stopping);
        if state.failures < AWAY_AFTER && !at_once {
            return None;
        }
        let round = state.failures.saturating_sub(AWAY_AFTER - 1).max(1);
        let until = now + error.retry_after.unwrap_or_else(|| retry.delay(round, chance));
        state.away_until = Some(until);
        state.why = Some(error.clone());
        Some(until)
    }

    /// If it is away, the next caller finds out at once whether it still is.
    pub fn hurry(&self) {
        let mut state = self.state.lock();
        state.away_until = state.away_until.map(|until| until.min(Instant::now()));
    }

    /// How often it answered.
    pub fn answers(&self) -> u64 {
        self.state.lock().answers
    }

    /// Why it counts as away, if it does.
    pub fn why(&self) -> Option<Error> {
        self.state.lock().why.clone()
    }
}

/// A duration such as `30s` or `1h30m`.
pub fn duration(text: &str) -> Option<Duration> {
    text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()
}

/// A size such as `20Mi`.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry { retries: 8, initial: Duration::from_secs(2), max: Duration::from_mins(1) };
        let waits: Vec<u64> = (1..=7).map(|failures| retry.delay(failures, 0.5).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60]);
        assert!(retry.delay(u32::MAX, 1.0) <= Duration::from_secs(66));
    }

    #[test]
    fn a_destination_that_is_away_is_tried_by_one_at_a_time() {
        let retry = Retry { retries: 8, initial: Duration::from_secs(2), max: Duration::from_mins(1) };
        let (breaker, start) = (Breaker::default(), Instant::now());
        let down = Error::new(Kind::Unavailable, "down");
        assert!(breaker.wait(start, &retry).is_none());
        assert_eq!((0..2).find_map(|_| breaker.failed(&down, start, &retry, 0.5)), None);
        let until = breaker.failed(&down, start, &retry, 0.5).unwrap();
        assert_eq!(breaker.wait(start, &retry).unwrap().0, until);
        assert!(breaker.wait(until, &retry).is_none(), "one finds out");
        assert!(breaker.wait(until, &retry).is_some(), "the others wait for it");
        assert!(breaker.answered());
        assert!(breaker.wait(until, &retry).is_none() && breaker.why().is_none());
    }

    #[test]
    fn r5_one_file_that_always_fails_does_not_make_a_destination_away() {
        let retry = Retry { retries: 8, initial: Duration::from_secs(2), max: Duration::from_mins(1) };
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(breaker.failed(&Error::new(Kind::Denied, "not this one"), now, &retry, 0.5), None);
            breaker.answered();
        }
        let mut busy = Error::new(Kind::RateLimited, "slow down");
        busy.retry_after = Some(Duration::from_secs(7));
        assert_eq!(breaker.failed(&busy, now, &retry, 0.5), Some(now + Duration::from_secs(7)), "it says so itself");
    }

    #[test]
    fn sizes_and_durations_as_people_write_them() {
        assert_eq!((bytes("20Mi"), bytes("7"), bytes("1Gi"), bytes("x")), (Some(20 << 20), Some(7), Some(1 << 30), None));
        assert_eq!(
            (duration("1m30s"), duration("250ms")),
            (Some(Duration::from_secs(90)), Some(Duration::from_millis(250)))
        );
        assert_eq!(bytes("999999999999Gi"), None.or(999_999_999_999u64.checked_mul(1 << 30)));
    }
}
