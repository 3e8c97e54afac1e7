//! From what there is to what it means: the state of each requirement, what is recorded of each version, and what is locked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use super::calendar::NoDate;
use super::machine::{self, Candidate, Situation, Stage};
use super::record::{Decision, Outcome, Recorded};
use super::rules::{Asked, Rule, Rules};
use crate::api::documents::{DocumentReason, DocumentState, Replacement, RequirementStatus};
use crate::error::clean;
use crate::expression::Failed;
use crate::file360::model::{Actor, Item, ItemState};

/// Longest message of a requirement.
const MESSAGE: usize = 500;

/// A file that some requirement takes.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Position of the requirement.
    pub rule: usize,
    /// The file.
    pub item: Item,
    /// The date that its validity asks for, as it is written now.
    pub date: Option<Result<String, Failed>>,
}

/// What there is in File 360.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// Files that some requirement takes.
    pub files: Vec<Claimed>,
    /// What was found before, by file and version.
    pub recorded: HashMap<String, BTreeMap<u64, Recorded>>,
    /// What was decided, by file and version.
    pub decisions: HashMap<String, BTreeMap<u64, Decision>>,
}

/// What it means.
#[derive(Debug, Default, PartialEq)]
pub struct Judgement {
    /// Each requirement, in the order of the spec. `since` is not known here.
    pub requirements: Vec<RequirementStatus>,
    /// What differs from what is recorded: file, version, and what to record.
    pub records: Vec<(String, u64, Recorded)>,
    /// Versions that wait for a decision.
    pub reviews: Vec<Review>,
    /// Files to lock, with their entity tags.
    pub locks: Vec<(String, String)>,
    /// When the clock alone changes it.
    pub next_change_at: Option<Timestamp>,
}

/// A version that waits for a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// Position of the requirement.
    pub rule: usize,
    /// The file.
    pub file: String,
    /// The version.
    pub version: u64,
    /// Its content.
    pub sha256: String,
    /// The date of its validity, as it is written now.
    pub date: Option<String>,
    /// Where it is.
    pub path: String,
    /// Who uploaded it.
    pub by: Option<Actor>,
}

/// Everything that follows at `now`.
pub fn judge(rules: &Rules, asked: &Asked, library: &Library, now: Timestamp) -> Judgement {
    let mut judgement = Judgement::default();
    let mut claimed: Vec<Vec<&Claimed>> = vec![Vec::new(); rules.rules.len()];
    for file in &library.files {
        claimed[file.rule].push(file);
    }
    for (at, rule) in rules.rules.iter().enumerate() {
        let mut candidates = Vec::new();
        for &file in &claimed[at] {
            let found = versions(rules, rule, file, library);
            for one in found.iter().chain(&refused(rule, file, library)) {
                judgement.note(library, one, now);
            }
            judgement.reviews.extend(found.iter().find_map(|one| one.waits(at, &file.item)).filter(|_| asked.required[at]));
            if rule.lock && !file.item.locked && found.iter().any(|one| one.counts_as_shown(&file.item, now)) {
                judgement.locks.push((file.item.id.clone(), file.item.etag.clone()));
            }
            candidates.extend(found);
        }
        let situation = Situation {
            required: asked.required[at],
            waived_until: rule.waiver.as_ref().map(|(until, _)| *until),
            candidates: candidates.iter().map(|one| one.candidate.clone()).collect(),
        };
        let mut row = row(rule, &candidates, &situation, now);
        if let (DocumentState::Missing, Some(failure)) = (row.state, &asked.failures[at]) {
            row.reason = Some(DocumentReason::ExpressionFailed);
            row.message = Some(clean(failure, MESSAGE));
        }
        judgement.requirements.push(row);
        let next = machine::next_change(&situation, now);
        judgement.next_change_at = judgement.next_change_at.into_iter().chain(next).min();
    }
    judgement
}

/// One version, with what is recorded of it.
struct Known {
    candidate: Candidate,
    name: String,
    path: String,
    sha256: String,
    date: Option<String>,
}

impl Known {
    /// It is the version that readers see, and it counts.
    fn counts_as_shown(&self, item: &Item, now: Timestamp) -> bool {
        let counts = matches!(self.candidate.state(now), DocumentState::Approved | DocumentState::ExpiringSoon);
        counts && item.version == Some(self.candidate.version)
    }

    /// It waits for a decision.
    fn waits(&self, rule: usize, item: &Item) -> Option<Review> {
        (self.candidate.stage == Stage::Undecided).then(|| Review {
            rule,
            file: item.id.clone(),
            version: self.candidate.version,
            sha256: self.sha256.clone(),
            date: self.date.clone(),
            path: self.path.clone(),
            by: item.created_by.clone(),
        })
    }

    fn reason_and_message(&self, in_grace: bool) -> (Option<DocumentReason>, Option<String>) {
        match &self.candidate.stage {
            Stage::Held => (Some(DocumentReason::HeldBack), None),
            Stage::Unfit(reason, message) => (Some(*reason), Some(clean(message, MESSAGE))),
            Stage::Rejected { why, .. } => {
                (Some(DocumentReason::ReviewRejected), Some(clean(why, MESSAGE)).filter(|why| !why.is_empty()))
            }
            Stage::Approved { .. } if in_grace => (Some(DocumentReason::InGrace), None),
            Stage::Undecided | Stage::Approved { .. } => (None, None),
        }
    }

    fn decided_by(&self) -> Option<String> {
        match &self.candidate.stage {
            Stage::Approved { by, .. } => by.clone(),
            Stage::Rejected { by, .. } => Some(by.clone()),
            _ => None,
        }
    }

    fn valid_until(&self) -> Option<Timestamp> {
        match &self.candidate.stage {
            Stage::Approved { term, .. } => term.map(|term| term.valid_until),
            _ => None,
        }
    }
}

impl Judgement {
    /// Notes what is to be recorded of a version, if that differs from what is.
    fn note(&mut self, library: &Library, one: &Known, now: Timestamp) {
        let Candidate { file, version, received_at, .. } = &one.candidate;
        if *version == 0 {
            return;
        }
        let (reason, message) = one.reason_and_message(false);
        let before = library.recorded.get(file).and_then(|versions| versions.get(version));
        let state = one.candidate.state(now);
        let (was, turn) = match before {
            Some(before) if before.name == one.name && before.state == state => (before.was, before.turn),
            // What another document was told about it is no news of this one.
            Some(before) => (Some(before.state).filter(|_| before.name == one.name), before.turn + 1),
            None => (None, 1),
        };
        let record = Recorded {
            name: one.name.clone(),
            state,
            was,
            turn,
            reason,
            message,
            valid_until: one.valid_until(),
            date: one.date.clone(),
            decided_by: one.decided_by(),
            received_at: *received_at,
            sha256: one.sha256.clone(),
        };
        if before != Some(&record) {
            self.records.push((file.clone(), *version, record));
        }
    }
}

/// The version that readers see, and before it the approved ones that still matter.
fn versions(rules: &Rules, rule: &Rule, file: &Claimed, library: &Library) -> Vec<Known> {
    let shown = shown(rules, rule, file, library);
    let mut found = if shown.counted { Vec::new() } else { earlier(rules, rule, file, &shown.known, library) };
    found.push(shown.known);
    found
}

/// A version, and whether it ever counted: then it took the place of those before it.
struct Weighed {
    known: Known,
    counted: bool,
}

/// Whether something approved at `since` counted for a moment.
fn ever_counted(stage: &Stage, since: Timestamp) -> bool {
    matches!(stage, Stage::Approved { term, .. } if term.is_none_or(|term| since < term.ends_at))
}

/// What was decided about a version for this requirement and this content; `None` as content: it is not known any more.
fn decided<'a>(library: &'a Library, rule: &Rule, file: &str, version: u64, sha256: Option<&str>) -> Option<&'a Decision> {
    let decision = library.decisions.get(file)?.get(&version)?;
    let fits = decision.requirement == rule.name && sha256.is_none_or(|sha256| decision.sha256 == sha256);
    fits.then_some(decision)
}

/// The date of a version: a reviewer looked at it, too, and what somebody writes there afterwards does not count.
fn approved_date(decision: &Decision, recorded: Option<&Recorded>) -> Option<String> {
    if decision.outcome == Outcome::Rejected {
        return None;
    }
    let recorded = || recorded.filter(|recorded| recorded.was_approved())?.date.clone();
    decision.date.clone().or_else(recorded)
}

/// The version that readers see, or that waits to be seen.
fn shown(rules: &Rules, rule: &Rule, file: &Claimed, library: &Library) -> Weighed {
    let item = &file.item;
    let (version, sha256) = (item.version.unwrap_or_default(), item.sha256.clone().unwrap_or_default());
    let of_version = library.recorded.get(&item.id).and_then(|versions| versions.get(&version));
    let recorded = of_version.filter(|recorded| recorded.name == rule.name && recorded.sha256 == sha256);
    let decision = decided(library, rule, &item.id, version, Some(&sha256));
    let is_visible = item.state == ItemState::Available && version > 0;
    let pinned = decision.and_then(|decision| approved_date(decision, recorded));
    let date = match (pinned, &file.date) {
        (_, None) => None,
        (Some(pinned), Some(_)) => Some(Ok(pinned)),
        (None, Some(date)) => Some(date.clone()),
    };
    let stage = if is_visible { stage(rules, rule, item, date.as_ref(), decision) } else { Stage::Held };
    let received_at = recorded.map_or(item.modified_at, |recorded| recorded.received_at);
    let since = decision.map_or(received_at, |decision| received_at.max(decision.at));
    let counted = ever_counted(&stage, since);
    let known = Known {
        candidate: Candidate { file: item.id.clone(), version, received_at, stage },
        name: rule.name.clone(),
        path: item.path.clone(),
        sha256,
        date: date.and_then(Result::ok),
    };
    Weighed { known, counted }
}

fn stage(
    rules: &Rules,
    rule: &Rule,
    item: &Item,
    date: Option<&Result<String, Failed>>,
    decision: Option<&Decision>,
) -> Stage {
    if let Some(Decision { outcome: Outcome::Rejected, by, reason, .. }) = decision {
        return Stage::Rejected { by: by.clone(), why: reason.clone().unwrap_or_default() };
    }
    if let Some(why) = rule.refuses(item) {
        return Stage::Unfit(DocumentReason::NotAccepted, why);
    }
    let term = match date {
        None => Ok(None),
        Some(Err(failed)) => return Stage::Unfit(DocumentReason::ExpressionFailed, format!("validity: {failed}")),
        Some(Ok(date)) => rule.term(date, &rules.zone),
    };
    let term = match term {
        Ok(term) => term,
        Err(NoDate::Missing) => return Stage::Unfit(DocumentReason::DateMissing, NoDate::Missing.to_string()),
        Err(why) => return Stage::Unfit(DocumentReason::DateInvalid, why.to_string()),
    };
    match decision {
        Some(decision) => Stage::Approved { term, by: Some(decision.by.clone()) },
        None if rule.review => Stage::Undecided,
        None => Stage::Approved { term, by: None },
    }
}

/// The approved versions before `shown`, the oldest first: down to the newest that ever counted. Their dates are the ones of then.
fn earlier(rules: &Rules, rule: &Rule, file: &Claimed, shown: &Known, library: &Library) -> Vec<Known> {
    let limit = if shown.candidate.version == 0 { u64::MAX } else { shown.candidate.version };
    let id = &file.item.id;
    let recorded = library.recorded.get(id).into_iter().flat_map(BTreeMap::keys);
    let decided = library.decisions.get(id).into_iter().flat_map(BTreeMap::keys);
    let versions: BTreeSet<u64> = recorded.chain(decided).copied().filter(|version| *version < limit).collect();
    let mut found = Vec::new();
    for version in versions.into_iter().rev() {
        let Some(one) = hidden(rules, rule, file, version, library) else { continue };
        found.push(one.known);
        if one.counted {
            break;
        }
    }
    found.reverse();
    found
}

/// A version that is not shown any more, if it is approved.
fn hidden(rules: &Rules, rule: &Rule, file: &Claimed, version: u64, library: &Library) -> Option<Weighed> {
    let id = &file.item.id;
    let of_version = library.recorded.get(id).and_then(|versions| versions.get(&version));
    let decision = decided(library, rule, id, version, of_version.map(|recorded| recorded.sha256.as_str()));
    let recorded = of_version.filter(|recorded| recorded.name == rule.name);
    let (date, received_at, since, by) = match (decision, recorded) {
        (Some(decision), _) if decision.outcome == Outcome::Rejected => return None,
        (Some(decision), recorded) => {
            let received_at = recorded.map_or(decision.at, |recorded| recorded.received_at);
            let since = received_at.max(decision.at);
            (approved_date(decision, recorded), received_at, since, Some(decision.by.clone()))
        }
        (None, Some(recorded)) if !rule.review && recorded.was_approved() => {
            (recorded.date.clone(), recorded.received_at, recorded.received_at, recorded.decided_by.clone())
        }
        _ => return None,
    };
    // The requirement may have got a validity since: without a date, nothing can be said for it.
    let term = rule.term(date.as_deref().unwrap_or_default(), &rules.zone).ok()?;
    let stage = Stage::Approved { term, by };
    let counted = ever_counted(&stage, since);
    let sha256 = of_version.map(|recorded| &recorded.sha256).or(decision.map(|decision| &decision.sha256));
    let known = Known {
        candidate: Candidate { file: id.clone(), version, received_at, stage },
        name: rule.name.clone(),
        path: file.item.path.clone(),
        sha256: sha256.cloned().unwrap_or_default(),
        date,
    };
    Some(Weighed { known, counted })
}

/// Versions that are not shown any more, and that somebody decided against. They stand for nothing, but whoever follows the document hears it.
fn refused(rule: &Rule, file: &Claimed, library: &Library) -> Vec<Known> {
    let id = &file.item.id;
    let shown = file.item.version.unwrap_or(u64::MAX);
    let of_file = library.decisions.get(id).into_iter().flatten().map(|(version, _)| *version);
    let refused = of_file.filter(|version| *version < shown).filter_map(|version| {
        let recorded = library.recorded.get(id).and_then(|versions| versions.get(&version));
        let decision = decided(library, rule, id, version, recorded.map(|recorded| recorded.sha256.as_str()))?;
        let stage = match decision.outcome {
            Outcome::Rejected => {
                Stage::Rejected { by: decision.by.clone(), why: decision.reason.clone().unwrap_or_default() }
            }
            Outcome::Approved => return None,
        };
        let received_at = recorded.map_or(decision.at, |recorded| recorded.received_at);
        Some(Known {
            candidate: Candidate { file: id.clone(), version, received_at, stage },
            name: rule.name.clone(),
            path: file.item.path.clone(),
            sha256: decision.sha256.clone(),
            date: recorded.and_then(|recorded| recorded.date.clone()),
        })
    });
    refused.collect()
}

fn row(rule: &Rule, known: &[Known], situation: &Situation, now: Timestamp) -> RequirementStatus {
    let verdict = machine::verdict(situation, now);
    let about = verdict.about.and_then(|at| known.get(at));
    let (reason, message) = about.map_or((None, None), |one| one.reason_and_message(verdict.in_grace));
    let mut row = RequirementStatus {
        name: rule.name.clone(),
        state: verdict.state,
        reason,
        message,
        file_id: about.map(|one| clean(&one.candidate.file, 128)),
        version: about.and_then(|one| i64::try_from(one.candidate.version).ok()),
        path: about.map(|one| clean(&one.path, 1024)),
        valid_until: about.and_then(Known::valid_until),
        decided_by: about.and_then(Known::decided_by).map(|by| clean(&by, 320)),
        since: None,
        replacement: None,
    };
    if let (DocumentState::Waived, Some((until, waiver))) = (verdict.state, &rule.waiver) {
        row.valid_until = Some(*until);
        row.decided_by = Some(clean(&waiver.by, 320));
        row.message = Some(clean(&waiver.reason, MESSAGE));
    }
    row.replacement = verdict.replacement.and_then(|at| known.get(at)).map(|one| {
        let (reason, message) = one.reason_and_message(false);
        Replacement {
            state: one.candidate.state(now),
            reason,
            message,
            file_id: clean(&one.candidate.file, 128),
            version: i64::try_from(one.candidate.version).unwrap_or(i64::MAX),
        }
    });
    row
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::documents::RequiredDocument;
    use crate::api::file_route::FileEvent;
    use crate::routes::environment::Surroundings;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn rules(documents: Value) -> Rules {
        let documents: Vec<RequiredDocument> = serde_json::from_value(documents).unwrap();
        Rules::compile(&documents, None, None).unwrap()
    }

    #[allow(clippy::needless_pass_by_value, reason = "metadata is written where it is used")]
    fn item(id: &str, version: u64, metadata: Value) -> Item {
        serde_json::from_value(json!({
            "id": id, "workspaceId": "w", "kind": "File", "name": "a.pdf", "path": "/Inbox/a.pdf", "state": "Available",
            "metadata": metadata, "version": version, "size": 10, "sha256": format!("sha-{id}-{version}"),
            "mimeType": "application/pdf", "createdAt": "2027-01-01T00:00:00Z", "modifiedAt": "2027-01-01T00:00:00Z", "etag": "e",
        }))
        .unwrap()
    }

    /// What there is, as the controller reads it.
    struct Shelf {
        rules: Rules,
        asked: Asked,
        library: Library,
    }

    impl Shelf {
        fn of(documents: Value) -> Self {
            let rules = rules(documents);
            let asked = rules.asked(&Surroundings::default());
            Self { rules, asked, library: Library::default() }
        }

        /// Puts a file there, in place of what it was.
        fn put(&mut self, item: Item) {
            self.library.files.retain(|file| file.item.id != item.id);
            let around = Arc::new(Surroundings::default());
            if let Some((rule, variables)) = self.rules.claim(&mut self.asked, &item, &around) {
                let date = self.rules.rules[rule].date(&variables);
                self.library.files.push(Claimed { rule, item, date });
            }
        }

        fn decide(&mut self, file: &str, version: u64, outcome: Outcome) {
            self.decide_on(file, version, outcome, None);
        }

        /// Decides about a version with the date that the reviewer saw.
        fn decide_on(&mut self, file: &str, version: u64, outcome: Outcome, date: Option<&str>) {
            let decision = Decision {
                requirement: "iso".into(),
                outcome,
                by: "ada".into(),
                reason: Some("because".into()),
                at: at("2027-01-01T00:00:00Z"),
                sha256: format!("sha-{file}-{version}"),
                date: date.map(Into::into),
                approval: None,
            };
            self.library.decisions.entry(file.into()).or_default().insert(version, decision);
        }

        /// One look, with what it records.
        fn look(&mut self, now: &str) -> Judgement {
            let judgement = judge(&self.rules, &self.asked, &self.library, at(now));
            for (file, version, record) in &judgement.records {
                self.library.recorded.entry(file.clone()).or_default().insert(*version, record.clone());
            }
            judgement
        }
    }

    const NOW: &str = "2027-06-01T00:00:00Z";

    fn reviewed() -> Value {
        json!([{"name": "iso", "match": {"path": "/Inbox/**"}, "review": {"required": true}, "onApproved": {"lock": true},
            "validity": {"expiresOn": "file.metadata.expiry"}}])
    }

    #[test]
    fn what_was_approved_keeps_the_date_of_its_approval() {
        let mut shelf = Shelf::of(reviewed());
        shelf.put(item("f", 1, json!({"expiry": "2028-01-31"})));
        assert_eq!(shelf.look(NOW).requirements[0].state, DocumentState::InReview);
        shelf.decide("f", 1, Outcome::Approved);
        let approved = shelf.look(NOW);
        assert_eq!(approved.locks.len(), 1);
        shelf.put(item("f", 1, json!({"expiry": "2099-01-31"})));
        let later = shelf.look(NOW);
        assert_eq!(later.requirements[0].valid_until, Some(at("2028-02-01T00:00:00Z")), "the metadata is no new approval");
        assert!(later.records.is_empty());
        // A new version whose metadata says more does not prolong the old one either.
        shelf.put(item("f", 2, json!({"expiry": "2099-01-31"})));
        let renewed = shelf.look(NOW);
        let row = &renewed.requirements[0];
        assert_eq!(
            (row.state, row.version, row.valid_until),
            (DocumentState::Approved, Some(1), Some(at("2028-02-01T00:00:00Z")))
        );
        assert_eq!(row.replacement.as_ref().map(|newer| (newer.state, newer.version)), Some((DocumentState::InReview, 2)));
        assert!(renewed.locks.is_empty(), "what readers see now is not approved");
    }

    #[test]
    fn a_decision_says_nothing_about_other_content_or_another_document() {
        let mut shelf = Shelf::of(reviewed());
        shelf.put(item("f", 1, json!({"expiry": "2028-01-31"})));
        shelf.decide("f", 1, Outcome::Approved);
        let mut other = item("f", 1, json!({"expiry": "2028-01-31"}));
        other.sha256 = Some("forged".into());
        shelf.put(other);
        assert_eq!(shelf.look(NOW).requirements[0].state, DocumentState::InReview);
        let mut shelf = Shelf::of(json!([{"name": "other", "match": {"path": "/**"}, "review": {"required": true}}]));
        shelf.put(item("f", 1, json!({})));
        shelf.decide("f", 1, Outcome::Approved);
        assert_eq!(shelf.look(NOW).requirements[0].state, DocumentState::InReview);
    }

    #[test]
    fn a_rejection_counts_without_review_too_and_tells_why() {
        let mut shelf = Shelf::of(json!([{"name": "iso", "match": {"path": "/**"}}]));
        shelf.put(item("f", 1, json!({})));
        assert_eq!(shelf.look(NOW).requirements[0].state, DocumentState::Approved);
        shelf.decide("f", 1, Outcome::Rejected);
        let row = &shelf.look(NOW).requirements[0];
        assert_eq!((row.state, row.reason), (DocumentState::Rejected, Some(DocumentReason::ReviewRejected)));
        assert_eq!((row.message.as_deref(), row.decided_by.as_deref()), (Some("because"), Some("ada")));
    }

    #[test]
    fn a_file_counts_for_the_first_document_that_takes_it() {
        use DocumentState as S;
        let mut shelf = Shelf::of(json!([
            {"name": "not-asked", "requiredWhen": "false", "match": {"path": "/**"}},
            {"name": "other", "match": {"path": "/**", "when": "file.metadata.kind == 'other'"}},
            {"name": "iso", "match": {"path": "/**"}},
            {"name": "late", "match": {"path": "/**"}},
        ]));
        shelf.put(item("f", 1, json!({})));
        let states: Vec<_> = shelf.look(NOW).requirements.iter().map(|row| row.state).collect();
        assert_eq!(states, [S::NotApplicable, S::Missing, S::Approved, S::Missing]);
    }

    #[test]
    fn what_is_held_back_is_received_and_nothing_is_recorded_of_it() {
        let mut shelf = Shelf::of(reviewed());
        let mut held = item("f", 1, json!({}));
        (held.state, held.version) = (ItemState::Pending, None);
        shelf.put(held);
        let look = shelf.look(NOW);
        assert_eq!((look.requirements[0].state, look.records.len()), (DocumentState::Received, 0));
    }

    #[test]
    fn a_detour_of_the_metadata_does_not_prolong_what_was_reviewed() {
        let mut shelf = Shelf::of(reviewed());
        shelf.put(item("f", 1, json!({"expiry": "2028-01-31"})));
        shelf.look(NOW);
        shelf.decide_on("f", 1, Outcome::Approved, Some("2028-01-31"));
        // Whatever is written before and after the operator sees the decision, in between even no date, or another place.
        for expiry in [json!({"expiry": "2099-01-31"}), json!({"expiry": "?"}), json!({}), json!({"expiry": "2099-01-31"})] {
            shelf.put(item("f", 1, expiry.clone()));
            let row = &shelf.look(NOW).requirements[0];
            let wanted = (DocumentState::Approved, Some(at("2028-02-01T00:00:00Z")));
            assert_eq!((row.state, row.valid_until), wanted, "{expiry}");
            shelf.library.files.clear();
            shelf.library.recorded.get_mut("f").unwrap().get_mut(&1).unwrap().state = DocumentState::Rejected;
        }
        shelf.put(item("f", 2, json!({"expiry": "2099-01-31"})));
        assert_eq!(shelf.look(NOW).requirements[0].valid_until, Some(at("2028-02-01T00:00:00Z")));
    }

    #[test]
    fn a_decision_counts_though_a_newer_version_arrived_before_it_was_seen() {
        let v1 = || item("f", 1, json!({"expiry": "2028-01-31"}));
        let v2 = || item("f", 2, json!({"expiry": "2099-01-31"}));
        let mut shelf = Shelf::of(reviewed());
        shelf.put(v1());
        shelf.look(NOW);
        shelf.decide_on("f", 1, Outcome::Approved, Some("2028-01-31"));
        shelf.put(v2());
        let row = shelf.look(NOW).requirements.remove(0);
        assert_eq!((row.state, row.version, row.decided_by.as_deref()), (DocumentState::Approved, Some(1), Some("ada")));
        assert_eq!(row.valid_until, Some(at("2028-02-01T00:00:00Z")));
        assert_eq!(row.replacement.map(|newer| newer.version), Some(2));
        // Even if nothing was ever recorded of it.
        shelf.library.recorded.clear();
        assert_eq!(shelf.look(NOW).requirements[0].version, Some(1));
        // What was decided about other content says nothing.
        let mut forged = Shelf::of(reviewed());
        forged.put(v1());
        forged.look(NOW);
        forged.decide_on("f", 1, Outcome::Approved, Some("2028-01-31"));
        forged.library.recorded.get_mut("f").unwrap().get_mut(&1).unwrap().sha256 = "other".into();
        forged.put(v2());
        assert_eq!(forged.look(NOW).requirements[0].state, DocumentState::InReview);
    }

    #[test]
    fn what_was_rejected_does_not_count_though_a_newer_version_hides_it() {
        let mut shelf = Shelf::of(json!([{"name": "iso", "match": {"path": "/**"}, "accept": {"maxSize": "10"}}]));
        shelf.put(item("f", 1, json!({})));
        assert_eq!(shelf.look(NOW).requirements[0].state, DocumentState::Approved);
        shelf.decide("f", 1, Outcome::Rejected);
        let mut large = item("f", 2, json!({}));
        large.size = Some(11);
        shelf.put(large);
        let row = &shelf.look(NOW).requirements[0];
        assert_eq!((row.state, row.version), (DocumentState::Rejected, Some(2)));
    }

    #[test]
    fn a_rejection_is_recorded_though_a_newer_version_hides_what_was_rejected() {
        let mut shelf = Shelf::of(reviewed());
        shelf.put(item("f", 1, json!({"expiry": "2028-01-31"})));
        shelf.look(NOW);
        shelf.decide("f", 1, Outcome::Rejected);
        shelf.put(item("f", 2, json!({"expiry": "2029-01-31"})));
        let look = shelf.look(NOW);
        let of_first = look.records.iter().find(|(_, version, _)| *version == 1).map(|(_, _, record)| record);
        let record = of_first.expect("the rejection of the hidden version");
        assert_eq!((record.state, record.message.as_deref()), (DocumentState::Rejected, Some("because")));
        assert_eq!(record.tells().map(|(event, _)| event), Some(FileEvent::DocumentRejected));
        assert_eq!((look.requirements[0].state, look.requirements[0].version), (DocumentState::InReview, Some(2)));
        assert!(shelf.look(NOW).records.is_empty(), "told once");
    }

    #[test]
    fn a_state_that_comes_back_is_told_as_another_event() {
        use FileEvent::{DocumentApproved as Approved, DocumentExpired as Expired, DocumentRejected as Rejected};
        let mut open = reviewed();
        open[0]["review"]["required"] = json!(false);
        let mut shelf = Shelf::of(open);
        let mut told = Vec::new();
        for expiry in ["2028-01-31", "2028-01-31", "?", "2028-01-31", "2020-01-31", "2028-01-31", "2020-01-31"] {
            shelf.put(item("f", 1, json!({"expiry": expiry})));
            shelf.look(NOW);
            told.push(shelf.library.recorded["f"][&1].tells().unwrap());
        }
        let events: Vec<FileEvent> = told.iter().map(|(event, _)| *event).collect();
        assert_eq!(events, [Approved, Approved, Rejected, Approved, Expired, Approved, Expired]);
        assert_eq!(told[0], told[1], "nothing happened");
        let occasions: BTreeSet<&String> = told.iter().map(|(_, occasion)| occasion).collect();
        assert_eq!(occasions.len(), 6, "{occasions:?}");
    }

    #[test]
    fn what_was_let_in_without_review_needs_a_decision_once_there_is_one() {
        let mut open = reviewed();
        open[0]["review"]["required"] = json!(false);
        let mut shelf = Shelf::of(open);
        shelf.put(item("f", 1, json!({"expiry": "2028-01-31"})));
        assert_eq!(shelf.look(NOW).requirements[0].state, DocumentState::Approved);
        shelf.rules = rules(reviewed());
        shelf.put(item("f", 2, json!({"expiry": "2028-01-31"})));
        assert_eq!(shelf.look(NOW).requirements[0].state, DocumentState::InReview);
        shelf.decide_on("f", 1, Outcome::Approved, Some("2028-01-31"));
        assert_eq!(shelf.look(NOW).requirements[0].version, Some(1));
    }

    #[test]
    fn what_has_expired_already_takes_nobodys_place() {
        let mut open = reviewed();
        open[0]["review"]["required"] = json!(false);
        let mut shelf = Shelf::of(open);
        shelf.put(item("f", 1, json!({"expiry": "2028-01-31"})));
        shelf.look(NOW);
        shelf.put(item("f", 2, json!({"expiry": "2026-06-30"})));
        for version in [2, 3] {
            let row = &shelf.look(NOW).requirements[0];
            assert_eq!((row.state, row.version), (DocumentState::Approved, Some(1)), "below {version}");
            shelf.put(item("f", 3, json!({"expiry": "?"})));
        }
        // What counted for a while did: it is no mistake that the earlier one said more.
        shelf.put(item("f", 4, json!({"expiry": "2027-02-28"})));
        assert_eq!(shelf.look("2027-02-01T00:00:00Z").requirements[0].version, Some(4));
        let row = &shelf.look(NOW).requirements[0];
        assert_eq!((row.state, row.version), (DocumentState::Expired, Some(4)));
    }

    /// What can happen to a shelf.
    #[derive(Clone, Debug)]
    enum Event {
        Put { file: u8, version: u64, expiry: Option<u16> },
        Decide { file: u8, version: u64, approve: bool },
        Look { day: u16 },
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..3u8, 1..4u64, prop::option::of(0..60u16)).prop_map(|(file, version, expiry)| Event::Put {
                file,
                version,
                expiry
            }),
            (0..3u8, 1..4u64, any::<bool>()).prop_map(|(file, version, approve)| Event::Decide { file, version, approve }),
            (0..60u16).prop_map(|day| Event::Look { day }),
        ]
    }

    fn day(number: u16) -> String {
        let first: jiff::civil::Date = "2027-01-01".parse().unwrap();
        first.checked_add(jiff::Span::new().days(i64::from(number))).unwrap().to_string()
    }

    proptest! {
        #[test]
        fn c6_a_second_look_at_the_same_time_records_and_changes_nothing(
            happened in prop::collection::vec(events(), 0..20), now in 0..60u16,
        ) {
            let mut shelf = Shelf::of(reviewed());
            for event in happened {
                match event {
                    Event::Put { file, version, expiry } => {
                        let metadata = expiry.map_or_else(|| json!({}), |expiry| json!({"expiry": day(expiry)}));
                        shelf.put(item(&format!("f{file}"), version, metadata));
                    }
                    Event::Decide { file, version, approve } => {
                        let outcome = if approve { Outcome::Approved } else { Outcome::Rejected };
                        shelf.decide(&format!("f{file}"), version, outcome);
                    }
                    Event::Look { day: at } => drop(shelf.look(&format!("{}T12:00:00Z", day(at)))),
                }
            }
            let now = format!("{}T12:00:00Z", day(now));
            let first = shelf.look(&now);
            let second = shelf.look(&now);
            prop_assert!(second.records.is_empty(), "{:?}", second.records);
            prop_assert_eq!(&second.requirements, &first.requirements);
            prop_assert_eq!(second.next_change_at, first.next_change_at);
        }

        #[test]
        fn nothing_counts_longer_than_the_reviewer_saw(
            happened in prop::collection::vec(events(), 0..20), now in 10..60u16,
        ) {
            let mut shelf = Shelf::of(reviewed());
            for event in happened {
                match event {
                    Event::Put { file, version, expiry } => {
                        let metadata = expiry.map_or_else(|| json!({}), |expiry| json!({"expiry": day(expiry)}));
                        shelf.put(item(&format!("f{file}"), version, metadata));
                    }
                    Event::Decide { file, version, .. } => {
                        shelf.decide_on(&format!("f{file}"), version, Outcome::Approved, Some(&day(9)));
                    }
                    Event::Look { day: at } => drop(shelf.look(&format!("{}T12:00:00Z", day(at)))),
                }
            }
            let state = shelf.look(&format!("{}T12:00:00Z", day(now))).requirements[0].state;
            prop_assert!(!machine::is_met(state), "{state:?}");
        }

        #[test]
        fn nothing_counts_that_nobody_approved(
            happened in prop::collection::vec(events(), 0..20), now in 0..60u16,
        ) {
            let mut shelf = Shelf::of(reviewed());
            for event in happened {
                match event {
                    Event::Put { file, version, expiry } => {
                        let metadata = expiry.map_or_else(|| json!({}), |expiry| json!({"expiry": day(expiry)}));
                        shelf.put(item(&format!("f{file}"), version, metadata));
                    }
                    Event::Decide { file, version, .. } => shelf.decide(&format!("f{file}"), version, Outcome::Rejected),
                    Event::Look { day: at } => drop(shelf.look(&format!("{}T12:00:00Z", day(at)))),
                }
            }
            let state = shelf.look(&format!("{}T12:00:00Z", day(now))).requirements[0].state;
            prop_assert!(!machine::is_met(state), "{state:?}");
        }
    }
}
