//! The states of a required document, as functions of what there is and of the time. Nothing here remembers anything: a clock that goes
//! back gives what it gave then.

use jiff::Timestamp;

use crate::api::documents::{DocumentReason, DocumentState};

/// How long an approved version counts. `warn_at` ≤ `valid_until` ≤ `ends_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// From then on it expires soon.
    pub warn_at: Timestamp,
    /// It is valid before this instant.
    pub valid_until: Timestamp,
    /// It counts before this instant: the end of the grace.
    pub ends_at: Timestamp,
}

impl Term {
    /// A term with its parts in order, whatever was given.
    pub fn new(warn_at: Timestamp, valid_until: Timestamp, ends_at: Timestamp) -> Self {
        Self { warn_at: warn_at.min(valid_until), valid_until, ends_at: ends_at.max(valid_until) }
    }
}

/// How far one version of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is there, but not to be read yet.
    Held,
    /// It does not fit what the requirement accepts.
    Unfit(DocumentReason, String),
    /// Somebody has to decide about it.
    Undecided,
    /// It counts; without a term, for ever.
    Approved {
        /// How long.
        term: Option<Term>,
        /// Who decided.
        by: Option<String>,
    },
    /// Somebody decided against it.
    Rejected {
        /// Who.
        by: String,
        /// Why, for whoever sent it.
        why: String,
    },
}

/// One version of a file that is meant for the requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub file: String,
    /// Its version; 0: none is readable yet.
    pub version: u64,
    /// When it was first seen.
    pub received_at: Timestamp,
    /// How far it is.
    pub stage: Stage,
}

impl Candidate {
    /// Its state.
    pub fn state(&self, now: Timestamp) -> DocumentState {
        #[cfg(test)]
        tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
        match &self.stage {
            Stage::Held => DocumentState::Received,
            Stage::Unfit(..) | Stage::Rejected { .. } => DocumentState::Rejected,
            Stage::Undecided => DocumentState::InReview,
            Stage::Approved { term: Some(term), .. } if now >= term.ends_at => DocumentState::Expired,
            Stage::Approved { term: Some(term), .. } if now >= term.warn_at => DocumentState::ExpiringSoon,
            Stage::Approved { .. } => DocumentState::Approved,
        }
    }

    fn counts(&self, now: Timestamp) -> bool {
        matches!(self.state(now), DocumentState::Approved | DocumentState::ExpiringSoon)
    }

    fn term(&self) -> Option<Term> {
        match &self.stage {
            Stage::Approved { term, .. } => *term,
            _ => None,
        }
    }

    /// Newer versions and later arrivals come last.
    fn age(&self) -> (Timestamp, &str, u64) {
        (self.received_at, &self.file, self.version)
    }

    /// Is over after all others; among equals the newer one.
    fn reach(&self) -> (Timestamp, (Timestamp, &str, u64)) {
        (self.term().map_or(Timestamp::MAX, |term| term.ends_at), self.age())
    }
}

/// What is known about one requirement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// It is asked for at all.
    pub required: bool,
    /// It is waived before this instant.
    pub waived_until: Option<Timestamp>,
    /// What there is for it. Of each file at most one version that ever counted: the newest.
    pub candidates: Vec<Candidate>,
}

/// What follows at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state of the requirement.
    pub state: DocumentState,
    /// Position of the candidate that it is about.
    pub about: Option<usize>,
    /// Position of a newer candidate that does not count (yet), beside one that does.
    pub replacement: Option<usize>,
    /// It counts only by its grace.
    pub in_grace: bool,
}

/// The state of a requirement at `now`.
///
/// An approved version counts until its end, whatever arrives after it. Without one, a waiver does; then the newest that somebody can still
/// approve; then the newest of all, with what is wrong about it.
pub fn verdict(situation: &Situation, now: Timestamp) -> Verdict {
    let of = |state, about| Verdict { state, about, replacement: None, in_grace: false };
    if !situation.required {
        return of(DocumentState::NotApplicable, None);
    }
    let numbered = || situation.candidates.iter().enumerate();
    let standing = numbered().filter(|(_, one)| one.counts(now)).max_by_key(|(_, one)| one.reach());
    let newest = numbered().max_by_key(|(_, one)| one.age());
    let open = numbered().filter(|(_, one)| is_open(one.state(now))).max_by_key(|(_, one)| one.age());
    if let Some((at, one)) = standing {
        let newer = |(other_at, other): &(usize, &Candidate)| {
            *other_at != at && !other.counts(now) && other.age() > one.age() && other.state(now) != DocumentState::Expired
        };
        let replacement = open.filter(newer).or_else(|| newest.filter(newer)).map(|(at, _)| at);
        let in_grace = one.term().is_some_and(|term| now >= term.valid_until);
        return Verdict { state: one.state(now), about: Some(at), replacement, in_grace };
    }
    if situation.waived_until.is_some_and(|until| now < until) {
        let replacement = open.or(newest).map(|(at, _)| at);
        return Verdict { replacement, ..of(DocumentState::Waived, None) };
    }
    match open.or(newest) {
        Some((at, one)) => of(one.state(now), Some(at)),
        None => of(DocumentState::Missing, None),
    }
}

fn is_open(state: DocumentState) -> bool {
    matches!(state, DocumentState::Received | DocumentState::InReview)
}

/// When the clock alone changes the verdict next.
///
/// The clock only ends what counts, so whatever stands now stands until its own end, and what does not count now never will. Beside what
/// stands, what waits or is wrong stays so. Without it, only the end of a waiver is left.
pub fn next_change(situation: &Situation, now: Timestamp) -> Option<Timestamp> {
    let current = verdict(situation, now);
    match (current.state, current.about) {
        (DocumentState::Waived, _) => situation.waived_until,
        (DocumentState::Approved | DocumentState::ExpiringSoon, Some(at)) => {
            let term = situation.candidates[at].term()?;
            [term.warn_at, term.valid_until, term.ends_at].into_iter().filter(|at| *at > now).min()
        }
        _ => None,
    }
}

/// Whether a requirement in this state is met.
pub fn is_met(state: DocumentState) -> bool {
    use DocumentState as S;
    matches!(state, S::Approved | S::ExpiringSoon | S::Waived | S::NotApplicable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    thread_local! {
        /// How often the state of a candidate was asked for.
        pub(in crate::documents) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[allow(clippy::unnecessary_wraps, reason = "a term that is there, beside those that are not")]
    fn term(warn: i64, valid: i64, ends: i64) -> Option<Term> {
        Some(Term::new(t(warn), t(valid), t(ends)))
    }

    fn approved(term: Option<Term>) -> Stage {
        Stage::Approved { term, by: None }
    }

    fn candidate(file: &str, version: u64, received: i64, stage: Stage) -> Candidate {
        Candidate { file: file.into(), version, received_at: t(received), stage }
    }

    fn required(candidates: Vec<Candidate>) -> Situation {
        Situation { required: true, waived_until: None, candidates }
    }

    fn state(situation: &Situation, now: i64) -> DocumentState {
        verdict(situation, t(now)).state
    }

    fn rejected() -> Stage {
        Stage::Rejected { by: "hr".into(), why: "blurred".into() }
    }

    #[test]
    fn a_document_goes_its_way_from_missing_to_expired() {
        assert_eq!(state(&required(vec![]), 0), DocumentState::Missing);
        let with = |stage| required(vec![candidate("a", 1, 0, stage)]);
        assert_eq!(state(&with(Stage::Held), 0), DocumentState::Received);
        assert_eq!(state(&with(Stage::Undecided), 0), DocumentState::InReview);
        assert_eq!(state(&with(rejected()), 0), DocumentState::Rejected);
        let timed = with(approved(term(10, 20, 25)));
        let course = [(0, DocumentState::Approved), (9, DocumentState::Approved), (10, DocumentState::ExpiringSoon)];
        let end = [(20, DocumentState::ExpiringSoon), (24, DocumentState::ExpiringSoon), (25, DocumentState::Expired)];
        for (now, expected) in course.into_iter().chain(end) {
            assert_eq!(state(&timed, now), expected, "at {now}");
        }
        assert_eq!(next_change(&timed, t(0)), Some(t(10)));
        assert_eq!(next_change(&timed, t(10)), Some(t(20)), "the grace begins");
        assert_eq!(next_change(&timed, t(20)), Some(t(25)));
        assert_eq!(next_change(&timed, t(25)), None);
        assert_eq!(next_change(&with(approved(None)), t(0)), None);
    }

    #[test]
    fn the_earlier_version_stays_valid_while_a_new_one_is_in_review_or_was_rejected() {
        for stage in [Stage::Undecided, Stage::Held, rejected(), Stage::Unfit(DocumentReason::NotAccepted, String::new())] {
            let both = required(vec![candidate("a", 1, 0, approved(term(90, 100, 100))), candidate("a", 2, 5, stage)]);
            let now = verdict(&both, t(50));
            assert_eq!((now.state, now.about, now.replacement), (DocumentState::Approved, Some(0), Some(1)));
            let after = verdict(&both, t(100));
            assert_eq!(after.about, Some(1), "once it has expired, the new one is what there is");
        }
    }

    #[test]
    fn a_waiver_counts_until_it_ends_and_gives_way_to_a_document() {
        let mut one = Situation { waived_until: Some(t(50)), ..required(vec![]) };
        assert_eq!((state(&one, 49), state(&one, 50)), (DocumentState::Waived, DocumentState::Missing));
        assert_eq!(next_change(&one, t(0)), Some(t(50)));
        one.candidates.push(candidate("a", 1, 0, rejected()));
        assert_eq!((state(&one, 49), state(&one, 50)), (DocumentState::Waived, DocumentState::Rejected));
        one.candidates.push(candidate("b", 1, 1, approved(None)));
        assert_eq!(state(&one, 10), DocumentState::Approved);
        assert_eq!(next_change(&one, t(10)), None, "the end of a waiver that nobody needs changes nothing");
    }

    #[test]
    fn what_is_not_asked_for_is_not_applicable_whatever_is_there() {
        let mut one = required(vec![candidate("a", 1, 0, approved(term(1, 2, 3)))]);
        one.required = false;
        assert_eq!(state(&one, 0), DocumentState::NotApplicable);
        assert_eq!(next_change(&one, t(0)), None);
    }

    #[test]
    fn of_several_that_count_the_one_that_counts_longest_stands() {
        let short = candidate("a", 1, 9, approved(term(10, 20, 20)));
        let long = candidate("b", 1, 0, approved(term(30, 40, 40)));
        let now = verdict(&required(vec![short, long]), t(5));
        assert_eq!((now.about, now.replacement), (Some(1), None));
    }

    #[test]
    fn ten_times_the_files_are_ten_times_the_work() {
        let looks = |files: i64| {
            let term = |at: i64| approved(term(files + at, 2 * files + at, 3 * files + at));
            let many = (0..files).map(|at| candidate(&format!("f{at}"), 1, at, term(at))).collect();
            let before = LOOKS.get();
            assert!(next_change(&required(many), t(0)).is_some());
            LOOKS.get() - before
        };
        assert!(looks(1000) <= 10 * looks(100), "{} and {}", looks(1000), looks(100));
        assert!(looks(1000) <= 4 * 1000, "{}", looks(1000));
    }

    fn stages() -> impl Strategy<Value = Stage> {
        prop_oneof![
            Just(Stage::Held),
            Just(Stage::Undecided),
            Just(rejected()),
            Just(Stage::Unfit(DocumentReason::DateInvalid, "x".into())),
            Just(approved(None)),
            (0..100i64, 0..100i64, 0..100i64).prop_map(|(warn, valid, ends)| approved(term(warn, valid, ends))),
        ]
    }

    fn candidates() -> impl Strategy<Value = Candidate> {
        ("[a-d]", 1..4u64, 0..100i64, stages()).prop_map(|(file, version, at, stage)| candidate(&file, version, at, stage))
    }

    fn situations() -> impl Strategy<Value = Situation> {
        (any::<bool>(), prop::option::of(0..100i64), prop::collection::vec(candidates(), 0..6))
            .prop_map(|(required, waived, candidates)| Situation { required, waived_until: waived.map(t), candidates })
    }

    proptest! {
        #[test]
        fn it_is_met_exactly_if_something_counts(one in situations(), now in 0..110i64) {
            let counts = one.candidates.iter().any(|candidate| match &candidate.stage {
                Stage::Approved { term, .. } => term.is_none_or(|term| t(now) < term.ends_at),
                _ => false,
            });
            let waived = one.waived_until.is_some_and(|until| t(now) < until);
            prop_assert_eq!(is_met(state(&one, now)), !one.required || counts || waived);
        }

        #[test]
        fn the_clock_changes_the_verdict_when_it_was_said_and_not_before(one in situations(), now in 0..110i64) {
            let current = verdict(&one, t(now));
            let next = next_change(&one, t(now));
            let last = next.map_or(200, Timestamp::as_second);
            for second in now..last {
                prop_assert_eq!(&verdict(&one, t(second)), &current);
            }
            if let Some(next) = next {
                prop_assert!(next > t(now));
                prop_assert_ne!(verdict(&one, next), current);
            }
        }

        #[test]
        fn a_clock_that_goes_back_gives_what_it_gave(one in situations(), early in 0..110i64, late in 0..110i64) {
            let before = verdict(&one, t(early));
            let _ = verdict(&one, t(late));
            prop_assert_eq!(verdict(&one, t(early)), before);
        }

        #[test]
        fn what_arrives_never_undoes_what_counts(one in situations(), more in candidates(), now in 0..110i64) {
            let before = is_met(state(&one, now));
            let mut after = one;
            after.candidates.push(more);
            prop_assert!(!before || is_met(state(&after, now)));
        }

        #[test]
        fn the_order_of_listings_does_not_matter(one in situations(), now in 0..110i64) {
            let shown = |situation: &Situation| {
                let now = verdict(situation, t(now));
                let name = |at: Option<usize>| at.map(|at| situation.candidates[at].clone());
                (now.state, name(now.about).map(|one| one.age().0), now.replacement.is_some())
            };
            let mut turned = one.clone();
            turned.candidates.reverse();
            prop_assert_eq!(shown(&turned).0, shown(&one).0);
        }
    }
}
