//! Who may decide, and what follows from what they said. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::api::approval::{ApprovalDecision, ApprovalSpec, Vote, VoteDecision};
use crate::api::connection::PrincipalMapping;
use crate::file360::names::fold;

/// What decides whether a vote counts.
#[derive(Clone, Copy, Debug)]
pub struct Electorate<'a> {
    /// Who is who.
    pub principals: &'a [PrincipalMapping],
    /// The API server proves that votes through it are their voters' own.
    pub is_verified: bool,
}

/// Why a vote does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Nothing proves who cast it.
    Unverified,
    /// Nobody knows who the voter is in File 360.
    Unmapped,
    /// The voter brought what is decided about.
    OwnThing,
    /// The same person has voted before, under another name.
    Twice,
}

/// What the votes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Approvals that count.
    pub approvals: u32,
    /// The first decision that the votes make, with who made it and the reason given.
    pub decision: Option<Made>,
    /// Votes that do not count.
    pub ignored: Vec<(String, Ignored)>,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What it is.
    pub decision: ApprovalDecision,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// Counts the votes in their order: the first one that counts and rejects ends it, and so does the approval that makes the quorum.
pub fn tally(spec: &ApprovalSpec, votes: &[Vote], electorate: Electorate<'_>) -> Tally {
    let mut result = Tally::default();
    let mut seen = BTreeSet::new();
    let mut approvers: Vec<&str> = Vec::new();
    for vote in votes {
        let person = match counts(spec, vote, electorate) {
            Ok(person) => person,
            Err(why) => {
                result.ignored.push((vote.by.clone(), why));
                continue;
            }
        };
        if !seen.insert(person) {
            result.ignored.push((vote.by.clone(), Ignored::Twice));
            continue;
        }
        if vote.decision == VoteDecision::Approve {
            approvers.push(&vote.by);
            result.approvals += 1;
        }
        let decision = match vote.decision {
            VoteDecision::Reject => ApprovalDecision::Rejected,
            VoteDecision::Approve if result.approvals >= spec.required() => ApprovalDecision::Approved,
            VoteDecision::Approve => continue,
        };
        if result.decision.is_none() {
            let by = if decision == ApprovalDecision::Approved { approvers.join(", ") } else { vote.by.clone() };
            result.decision = Some(Made { decision, by, reason: vote.reason.clone() });
        }
    }
    result
}

/// What votes and clock make of it together. Once the time is over, only votes whose time of arrival the operator itself has written can have come
/// before: whatever else is there by then came late, or may have, and the clock never approves (A4).
pub fn judge(spec: &ApprovalSpec, votes: &[Vote], electorate: Electorate<'_>, now: Timestamp) -> (Tally, Option<Made>) {
    let Some(ended) = spec.expires_at.filter(|at| *at <= now) else {
        let counted = tally(spec, votes, electorate);
        let made = counted.decision.clone();
        return (counted, made);
    };
    let in_time: Vec<Vote> = votes.iter().filter(|vote| vote.via.is_some() && vote.at <= ended).cloned().collect();
    let counted = tally(spec, &in_time, electorate);
    let made = counted.decision.clone().or_else(|| timed_out(spec, now));
    (counted, made)
}

/// Which person the vote is of, if it counts.
fn counts(spec: &ApprovalSpec, vote: &Vote, electorate: Electorate<'_>) -> Result<String, Ignored> {
    if vote.via.is_none() && !electorate.is_verified {
        return Err(Ignored::Unverified);
    }
    let by = fold(&vote.by);
    let known = electorate.principals.iter().find(|known| fold(&known.username) == by);
    let Some(known) = known else {
        if spec.separates() {
            return Err(Ignored::Unmapped);
        }
        // Nobody says that one name is two people, so it is one, however it voted.
        return Ok(by);
    };
    let person = fold(&known.file360);
    let requester = &spec.requested_by;
    let is_own = [&requester.name, &requester.id].iter().any(|name| !name.is_empty() && fold(name) == person);
    if spec.separates() && is_own {
        return Err(Ignored::OwnThing);
    }
    Ok(person)
}

/// What the clock makes of it: a timeout ends it and never approves (A4).
pub fn timed_out(spec: &ApprovalSpec, now: Timestamp) -> Option<Made> {
    let ended = spec.expires_at.filter(|at| *at <= now)?;
    let by = format!("nobody decided until {ended}");
    Some(Made { decision: ApprovalDecision::TimedOut, by, reason: None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::approval::{ApprovalSubject, Requester, SubjectKind, VoteVia};
    use crate::api::common::ConnectionRef;

    fn spec(required: u32, separates: bool) -> ApprovalSpec {
        ApprovalSpec {
            connection_ref: ConnectionRef { name: "f".into(), namespace: None },
            subject: ApprovalSubject {
                kind: SubjectKind::FileVersion,
                workspace_id: "w".into(),
                file_id: "i".into(),
                version: Some(1),
                digest: None,
                share: None,
                since: None,
                date: None,
                path: None,
            },
            route: None,
            workspace: None,
            requirement: None,
            rule: "r".into(),
            policy_hash: String::new(),
            min_approvals: Some(required),
            separation_of_duties: Some(separates),
            requested_by: Requester { kind: "User".into(), id: "p1".into(), name: "Alice".into() },
            requested_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            ttl_after_decision_seconds: None,
        }
    }

    fn vote(by: &str, decision: VoteDecision, via: Option<VoteVia>) -> Vote {
        Vote { by: by.into(), decision, reason: None, at: Timestamp::UNIX_EPOCH, via, id: None }
    }

    fn known(pairs: &[(&str, &str)]) -> Vec<PrincipalMapping> {
        let of = |(username, file360): &(&str, &str)| PrincipalMapping {
            username: (*username).to_owned(),
            file360: (*file360).to_owned(),
        };
        pairs.iter().map(of).collect()
    }

    use ApprovalDecision::{Approved, Rejected};
    use VoteDecision::{Approve, Reject};

    fn decided(tally: &Tally) -> Option<ApprovalDecision> {
        tally.decision.as_ref().map(|made| made.decision)
    }

    #[test]
    fn a_quorum_approves_and_the_first_rejection_that_counts_ends_it() {
        let everybody = Electorate { principals: &[], is_verified: true };
        let two = spec(2, false);
        let votes = [vote("a", Approve, None), vote("b", Approve, None), vote("c", Reject, None)];
        assert_eq!(decided(&tally(&two, &votes[..1], everybody)), None);
        assert_eq!(decided(&tally(&two, &votes[..2], everybody)), Some(Approved));
        assert_eq!(decided(&tally(&two, &votes, everybody)), Some(Approved), "the first decision stands");
        assert_eq!(decided(&tally(&two, &votes[1..], everybody)), Some(Rejected));
        assert_eq!(tally(&two, &votes, everybody).decision.unwrap().by, "a, b");
    }

    #[test]
    fn under_separation_the_uploader_and_unmapped_voters_do_not_count() {
        let principals = known(&[("alice@corp", "alice"), ("al", "P1"), ("bob@corp", "bob")]);
        let electorate = Electorate { principals: &principals, is_verified: true };
        let votes = [
            vote("alice@corp", Approve, None),
            vote("al", Approve, None),
            vote("stranger", Approve, None),
            vote("bob@corp", Approve, None),
        ];
        let counted = tally(&spec(1, true), &votes, electorate);
        let ignored: Vec<Ignored> = counted.ignored.iter().map(|(_, why)| *why).collect();
        assert_eq!(ignored, [Ignored::OwnThing, Ignored::OwnThing, Ignored::Unmapped]);
        assert_eq!(counted.decision.unwrap().by, "bob@corp");
        assert_eq!(decided(&tally(&spec(1, true), &votes[..3], electorate)), None);
    }

    #[test]
    fn under_separation_one_more_approves_what_nobody_knows_who_brought() {
        let principals = known(&[("ann@corp", "ann"), ("bob@corp", "bob")]);
        let electorate = Electorate { principals: &principals, is_verified: true };
        let votes = [vote("ann@corp", Approve, None), vote("bob@corp", Approve, None)];
        for (id, name) in [("", ""), (" ", ""), ("", "\t")] {
            let mut unknown = spec(1, true);
            unknown.requested_by = Requester { kind: "User".into(), id: id.into(), name: name.into() };
            assert_eq!(decided(&tally(&unknown, &votes[..1], electorate)), None, "ann may have brought it");
            assert_eq!(decided(&tally(&unknown, &votes, electorate)), Some(Approved), "one of them has not");
            unknown.separation_of_duties = None;
            assert_eq!(decided(&tally(&unknown, &votes[..1], electorate)), Some(Approved));
        }
    }

    #[test]
    fn one_person_under_two_names_counts_once() {
        let principals = known(&[("bob@corp", "bob"), ("bob", "bob")]);
        let electorate = Electorate { principals: &principals, is_verified: true };
        let votes = [vote("bob@corp", Approve, None), vote("bob", Approve, Some(VoteVia::Callback))];
        let counted = tally(&spec(2, false), &votes, electorate);
        assert_eq!((counted.approvals, counted.decision, counted.ignored[0].1), (1, None, Ignored::Twice));
    }

    #[test]
    fn votes_that_nothing_proves_are_ignored_but_signed_ones_count() {
        let electorate = Electorate { principals: &[], is_verified: false };
        let votes = [vote("a", Approve, None), vote("t", Approve, Some(VoteVia::Callback))];
        let counted = tally(&spec(1, false), &votes, electorate);
        assert_eq!(counted.ignored, [("a".to_owned(), Ignored::Unverified)]);
        assert_eq!(counted.decision.unwrap().by, "t");
    }

    #[test]
    fn a4_the_clock_never_approves() {
        let mut spec = spec(1, false);
        assert_eq!(timed_out(&spec, Timestamp::MAX), None, "without an end it waits");
        spec.expires_at = Some("2026-11-01T00:00:00Z".parse().unwrap());
        assert_eq!(timed_out(&spec, "2026-10-31T23:59:59Z".parse().unwrap()), None);
        let made = timed_out(&spec, "2026-11-01T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(made.decision, ApprovalDecision::TimedOut);
    }

    #[test]
    fn a4_a_vote_that_came_late_or_may_have_does_not_approve() {
        let everybody = Electorate { principals: &[], is_verified: true };
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut spec = spec(1, false);
        spec.expires_at = Some(at(100));
        let decided = |votes: &[Vote], now| judge(&spec, votes, everybody, at(now)).1.map(|made| made.decision);
        let mut signed = vote("a", Approve, Some(VoteVia::Callback));
        signed.at = at(100);
        let claimed = vote("b", Approve, None);
        assert_eq!(decided(std::slice::from_ref(&claimed), 99), Some(Approved));
        assert_eq!(decided(std::slice::from_ref(&claimed), 100), Some(ApprovalDecision::TimedOut), "it says when itself");
        assert_eq!(decided(std::slice::from_ref(&signed), 500), Some(Approved), "it was there in time");
        signed.at = at(101);
        assert_eq!(decided(&[signed, claimed], 500), Some(ApprovalDecision::TimedOut));
    }

    #[test]
    fn names_are_one_person_whatever_their_case_and_way() {
        let principals = known(&[("Bob@Corp", "bob")]);
        let electorate = Electorate { principals: &principals, is_verified: true };
        let votes = [
            vote("bob@corp", Approve, None),
            vote("BOB@CORP", Approve, None),
            vote("Bob", Approve, Some(VoteVia::Poll)),
            vote("eve", Approve, None),
            vote("Eve", Approve, Some(VoteVia::Callback)),
        ];
        assert_eq!(tally(&spec(3, false), &votes, electorate).approvals, 2);
        assert_eq!(tally(&spec(1, true), &votes[..1], electorate).approvals, 1);
    }

    fn votes() -> impl Strategy<Value = Vec<Vote>> {
        let one = ("[a-f]", any::<bool>(), any::<bool>()).prop_map(|(by, approves, signed)| {
            vote(&by, if approves { Approve } else { Reject }, signed.then_some(VoteVia::Callback))
        });
        prop::collection::vec(one, 0..12)
    }

    proptest! {
        #[test]
        fn a3_a_decision_once_made_is_never_changed_by_later_votes(
            votes in votes(), required in 1..4u32, separates: bool, verified: bool
        ) {
            let principals = known(&[("a", "alice"), ("b", "bob"), ("c", "carol"), ("d", "bob")]);
            let electorate = Electorate { principals: &principals, is_verified: verified };
            let spec = spec(required, separates);
            let mut before: Option<Made> = None;
            for end in 0..=votes.len() {
                let now = tally(&spec, &votes[..end], electorate);
                if let Some(before) = &before {
                    prop_assert_eq!(now.decision.as_ref(), Some(before));
                }
                before = now.decision;
            }
        }

        #[test]
        fn an_approval_always_has_its_quorum_of_different_people_who_may_vote(
            votes in votes(), required in 1..4u32, verified: bool
        ) {
            let principals = known(&[("a", "alice"), ("b", "bob"), ("c", "carol"), ("d", "bob")]);
            let electorate = Electorate { principals: &principals, is_verified: verified };
            let result = tally(&spec(required, true), &votes, electorate);
            if decided(&result) == Some(Approved) {
                let people: BTreeSet<&str> = votes
                    .iter()
                    .filter(|vote| vote.decision == Approve && (verified || vote.via.is_some()))
                    .filter_map(|vote| principals.iter().find(|known| known.username == vote.by))
                    .map(|known| known.file360.as_str())
                    .filter(|person| *person != "alice")
                    .collect();
                prop_assert!(people.len() >= required as usize);
            }
        }
    }
}
