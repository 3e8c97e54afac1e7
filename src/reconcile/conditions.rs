//! Conditions of a status. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::error::clean;

/// Longest message that is kept.
const LONGEST_MESSAGE: usize = 2000;

/// Builds the conditions of the next status from those of the last one.
pub struct Conditions<'a> {
    last: &'a [Condition],
    next: Vec<Condition>,
    generation: i64,
    now: Timestamp,
}

impl<'a> Conditions<'a> {
    /// Starts with no condition; `last` only tells since when something holds.
    pub fn after(last: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self { last, next: Vec::new(), generation, now }
    }

    /// Adds one condition. `lastTransitionTime` moves only when the status flips.
    pub fn set(&mut self, kind: &str, status: bool, reason: &str, message: &str) -> &mut Self {
        self.set_status(kind, if status { "True" } else { "False" }, reason, message)
    }

    /// Adds one condition with a status of `True`, `False` or `Unknown`.
    pub fn set_status(&mut self, kind: &str, status: &str, reason: &str, message: &str) -> &mut Self {
        let since = self
            .last
            .iter()
            .find(|condition| condition.type_ == kind && condition.status == status)
            .map_or_else(|| Time(self.now), |condition| condition.last_transition_time.clone());
        self.next.retain(|condition| condition.type_ != kind);
        self.next.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: clean(message, LONGEST_MESSAGE),
            last_transition_time: since,
            observed_generation: Some(self.generation),
        });
        self
    }

    /// Adds a true condition whose `lastTransitionTime` also moves when its reason changes: since when *this* has been so.
    pub fn set_reason_since(&mut self, kind: &str, reason: &str, message: &str) -> &mut Self {
        self.set(kind, true, reason, message);
        let same = self.last.iter().any(|condition| condition.type_ == kind && condition.reason == reason);
        let now = Time(self.now);
        if let Some(condition) = self.next.iter_mut().find(|condition| condition.type_ == kind).filter(|_| !same) {
            condition.last_transition_time = now;
        }
        self
    }

    /// Keeps a condition of the last status as it is.
    pub fn keep(&mut self, kind: &str) -> &mut Self {
        if let Some(condition) = self.last.iter().find(|condition| condition.type_ == kind) {
            self.next.push(condition.clone());
        }
        self
    }

    /// The conditions, sorted by type with `Ready` first.
    pub fn finish(mut self) -> Vec<Condition> {
        self.next.sort_by_key(|condition| (condition.type_ != "Ready", condition.type_.clone()));
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let mut first = Conditions::after(&[], 1, at(100));
        first.set("Ready", false, "Failed", "no");
        let first = first.finish();
        let mut second = Conditions::after(&first, 2, at(200));
        second.set("Ready", false, "Blocked", "still no");
        let second = second.finish();
        assert_eq!(second[0].last_transition_time, Time(at(100)));
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("Blocked", Some(2)));
        let mut third = Conditions::after(&second, 2, at(300));
        third.set("Ready", true, "Converged", "yes");
        assert_eq!(third.finish()[0].last_transition_time, Time(at(300)));
    }

    #[test]
    fn what_is_not_set_again_is_gone() {
        let mut first = Conditions::after(&[], 1, at(100));
        first.set("Ready", false, "Failed", "no").set("Stalled", true, "Failed", "no");
        let first = first.finish();
        let mut second = Conditions::after(&first, 1, at(200));
        second.set("Ready", true, "Converged", "yes");
        assert_eq!(second.finish().len(), 1);
    }
}
