//! Two writers who keep undoing each other's change. Pure.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

/// Corrections of one thing within [`WINDOW`] that make it a fight.
const MOST_CORRECTIONS: usize = 3;
/// See [`MOST_CORRECTIONS`].
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Corrections that are remembered.
const REMEMBERED: usize = 64;

/// The latest corrections of one workspace.
#[derive(Clone, Debug, Default)]
pub struct Fight {
    corrections: VecDeque<(Timestamp, Box<str>)>,
}

impl Fight {
    /// Notes that `subject` was put right.
    pub fn corrected(&mut self, subject: &str, now: Timestamp) {
        if self.corrections.len() == REMEMBERED {
            self.corrections.pop_front();
        }
        self.corrections.push_back((now, subject.into()));
    }

    /// Whether `subject` was put right so often of late that somebody else must be undoing it.
    pub fn is_on(&self, subject: &str, now: Timestamp) -> bool {
        let recent = self.corrections.iter().filter(|(at, what)| &**what == subject && now.duration_since(*at) < WINDOW);
        recent.count() >= MOST_CORRECTIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c4_three_corrections_in_ten_minutes_are_a_fight_until_the_window_has_passed() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut fight = Fight::default();
        fight.corrected("a", at(0));
        fight.corrected("a", at(10));
        fight.corrected("b", at(11));
        assert!(!fight.is_on("a", at(12)));
        fight.corrected("a", at(20));
        assert!(fight.is_on("a", at(21)));
        assert!(!fight.is_on("b", at(21)));
        assert!(!fight.is_on("a", at(601)), "the first correction is ten minutes old");
    }
}
