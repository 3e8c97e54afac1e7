//! What one workspace has to tell, and to whom. Pure.
//!
//! Each system (sink) has a place in the common order of entries. An entry goes once every sink that wants it has it. When the outbox is full,
//! the oldest entries go, and every sink that still wanted one of them is told how many it missed, in their place: a system that is away
//! holds nobody else up, and nothing is dropped without a word.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::report::{ReportEvent, ReportSpec};
use crate::file360::model::Actor;

/// Entries that an outbox holds at most.
pub const MOST: usize = 500;
/// Bytes of entries that an outbox holds at most; a document has 256 KiB.
pub const LARGEST: usize = 180 * 1024;
/// Bytes that the facts of one entry may have.
pub const LARGEST_FACTS: usize = 32 * 1024;

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outbox {
    /// Namespace of the resource.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: what it caused itself is told as such.
    pub uid: String,
    /// Where people open the workspace.
    pub url: String,
    /// Begins the ids of the resource's own events; never used twice.
    pub series: String,
    /// Epoch of the feed that `sequence` belongs to.
    pub epoch: String,
    /// Entries of the feed up to here are in the outbox.
    pub sequence: u64,
    /// Changes of members and links up to this revision were there when the outbox was made; `Provisioned` stands for them.
    pub revision: u64,
    /// Place of the next entry.
    pub next: u64,
    /// Who is told, by name.
    pub sinks: BTreeMap<String, Sink>,
    /// What waits, in order.
    pub entries: VecDeque<Entry>,
    /// Fingerprints of states that were put in: the same state is not told twice.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: BTreeMap<ReportEvent, String>,
}

/// One system that is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sink {
    /// The last entry that it has, or that is not for it any more.
    pub has: u64,
    /// Events that it wants, as a set of [`ReportEvent::bit`]s.
    pub wants: u16,
    /// What gave way before it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// When it last acknowledged something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
}

/// Entries that gave way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Missed {
    /// How many; 0: nobody knows, because the feed does not reach back.
    pub count: u64,
    /// Time of the first.
    pub since: Timestamp,
    /// Time of the last.
    pub until: Timestamp,
    /// Place of the last; a later one makes it another event.
    pub up_to: u64,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its place in the order.
    pub n: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: Occurrence,
    /// The one sink that it is for; `None`: all that want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// Bytes that it has as JSON; 0: not counted yet.
    #[serde(skip)]
    length: usize,
}

impl Entry {
    /// An entry at a place in the order.
    pub fn new(n: u64, what: Occurrence, only: Option<String>) -> Self {
        Self { n, what, only, length: 0 }
    }

    fn bytes(&mut self) -> usize {
        if self.length == 0 {
            self.length = serde_json::to_string(self).map_or(LARGEST, |text| text.len() + 1);
        }
        self.length
    }
}

/// What happened, before it has a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Occurrence {
    /// Tells it from every other; the same whenever it is told.
    pub id: String,
    /// What.
    pub event: ReportEvent,
    /// When.
    pub at: Timestamp,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// Uid of the resource that caused it, or what else the caller said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caused_by: Option<String>,
    /// The operator did it: the server says so, not the caller.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_operator: bool,
    /// The item it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// Path of that item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Version of that item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The principal or link it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What else is to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Value>,
}

/// What a sink is to be told next.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// Something happened.
    Entry(Box<Entry>),
    /// Something gave way.
    Missed(Missed),
}

/// What the events of an outbox have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The workspace.
    pub workspace: String,
    /// See [`Outbox::uid`].
    pub uid: String,
    /// See [`Outbox::url`].
    pub url: String,
    /// See [`Outbox::series`].
    pub series: String,
}

/// Who makes an outbox.
pub struct Maker {
    /// See [`Outbox::namespace`].
    pub namespace: String,
    /// See [`Outbox::name`].
    pub name: String,
    /// See [`Outbox::uid`].
    pub uid: String,
    /// See [`Outbox::url`].
    pub url: String,
    /// See [`Outbox::series`].
    pub series: String,
    /// See [`Outbox::revision`].
    pub revision: u64,
}

impl Outbox {
    /// An empty one.
    pub fn new(maker: Maker) -> Self {
        Self {
            namespace: maker.namespace,
            name: maker.name,
            uid: maker.uid,
            url: maker.url,
            series: maker.series,
            epoch: String::new(),
            sequence: 0,
            revision: maker.revision,
            next: 1,
            sinks: BTreeMap::new(),
            entries: VecDeque::new(),
            told: BTreeMap::new(),
        }
    }

    /// Brings the sinks to what is declared. A new one is told `Provisioned` first; one that is gone takes what it was to be told with it.
    pub fn declare(&mut self, specs: &[ReportSpec], now: Timestamp) {
        self.sinks.retain(|name, _| specs.iter().any(|spec| spec.name == *name));
        for spec in specs {
            let wants = wanted(spec);
            if let Some(sink) = self.sinks.get_mut(&spec.name) {
                sink.wants = wants;
                continue;
            }
            self.sinks.insert(spec.name.clone(), Sink { has: self.next - 1, wants, ..Sink::default() });
            self.tell(ReportEvent::Provisioned, None, Some(&spec.name), now);
        }
        self.tidy();
    }

    /// Takes in what the resource itself has to tell.
    fn tell(&mut self, event: ReportEvent, facts: Option<Value>, only: Option<&str>, at: Timestamp) {
        let id = format!("{}-{}", self.series, self.next);
        let caused_by = Some(self.uid.clone());
        let facts = facts.filter(|facts| facts.to_string().len() <= LARGEST_FACTS);
        let what = Occurrence {
            id,
            event,
            at,
            by: None,
            caused_by,
            by_operator: true,
            item: None,
            path: None,
            version: None,
            subject: None,
            facts,
        };
        self.put(what, only.map(str::to_owned));
    }

    /// Takes in a state of the resource, unless it is the one that was told last. Told again after a crash it is still one event.
    pub fn tell_state(&mut self, event: ReportEvent, fingerprint: &str, facts: Option<Value>, now: Timestamp) {
        if self.told.get(&event).is_some_and(|told| told == fingerprint) {
            return;
        }
        self.told.insert(event, fingerprint.to_owned());
        self.tell(event, facts, None, now);
    }

    /// Takes in an entry of the feed, unless it is in already.
    pub fn take_in(&mut self, epoch: &str, sequence: u64, what: Option<Occurrence>) {
        if self.epoch != epoch {
            epoch.clone_into(&mut self.epoch);
            self.sequence = 0;
        }
        if sequence <= self.sequence {
            return;
        }
        self.sequence = sequence;
        if let Some(what) = what {
            self.put(what, None);
        }
    }

    /// The feed could not be read between these times: nobody knows what happened. Told before what still waits.
    pub fn lost_track(&mut self, since: Timestamp, until: Timestamp) {
        let up_to = self.next;
        self.next += 1;
        for sink in self.sinks.values_mut() {
            let missed = sink.missed.get_or_insert(Missed { count: 0, since, until, up_to });
            (missed.until, missed.up_to) = (missed.until.max(until), up_to);
        }
    }

    fn put(&mut self, what: Occurrence, only: Option<String>) {
        let entry = Entry::new(self.next, what, only);
        self.next += 1;
        if !self.sinks.iter().any(|(name, sink)| sink.is_waiting_for(name, &entry)) {
            return;
        }
        self.entries.push_back(entry);
        while self.entries.len() > MOST || (self.entries.len() > 1 && self.bytes() > LARGEST) {
            self.give_way();
        }
    }

    fn bytes(&mut self) -> usize {
        self.entries.iter_mut().map(Entry::bytes).sum()
    }

    /// The oldest entry goes.
    fn give_way(&mut self) {
        let Some(oldest) = self.entries.pop_front() else { return };
        let (at, n) = (oldest.what.at, oldest.n);
        for (name, sink) in &mut self.sinks {
            if !sink.is_waiting_for(name, &oldest) {
                continue;
            }
            sink.has = n;
            let missed = sink.missed.get_or_insert(Missed { count: 0, since: at, until: at, up_to: n });
            missed.count += 1;
            (missed.until, missed.up_to) = (missed.until.max(at), n);
        }
    }

    /// What a sink is to be told next.
    pub fn due(&self, name: &str) -> Option<Due> {
        let sink = self.sinks.get(name)?;
        if let Some(missed) = &sink.missed {
            return Some(Due::Missed(missed.clone()));
        }
        let entry = self.entries.iter().find(|entry| sink.is_waiting_for(name, entry))?;
        Some(Due::Entry(Box::new(entry.clone())))
    }

    /// A sink has what was due.
    pub fn acknowledge(&mut self, name: &str, due: &Due, now: Timestamp) {
        let Some(sink) = self.sinks.get_mut(name) else { return };
        sink.delivered_at = Some(now);
        match due {
            Due::Entry(entry) => sink.has = sink.has.max(entry.n),
            // More gave way meanwhile: that is told as an event of its own.
            Due::Missed(missed) if sink.missed.as_ref().is_some_and(|now| now.up_to == missed.up_to) => sink.missed = None,
            Due::Missed(_) => {}
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        let sinks = &self.sinks;
        self.entries.retain(|entry| sinks.iter().any(|(name, sink)| sink.is_waiting_for(name, entry)));
    }

    /// How much a sink is still to be told.
    pub fn pending(&self, name: &str) -> usize {
        let Some(sink) = self.sinks.get(name) else { return 0 };
        let entries = self.entries.iter().filter(|entry| sink.is_waiting_for(name, entry)).count();
        entries + usize::from(sink.missed.is_some())
    }

    /// Everything was told.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.sinks.values().all(|sink| sink.missed.is_none())
    }

    /// Who is to be told something.
    pub fn waiting(&self) -> Vec<String> {
        self.sinks.keys().filter(|name| self.pending(name) > 0).cloned().collect()
    }

    /// What its events have in common; it is the outbox of `workspace`.
    pub fn about(&self, workspace: &str) -> About {
        let (uid, url, series) = (self.uid.clone(), self.url.clone(), self.series.clone());
        About { workspace: workspace.to_owned(), uid, url, series }
    }

    /// The events that somebody wants.
    pub fn wants(&self) -> u16 {
        self.sinks.values().fold(0, |all, sink| all | sink.wants)
    }
}

impl Sink {
    fn is_waiting_for(&self, name: &str, entry: &Entry) -> bool {
        entry.n > self.has
            && self.wants & entry.what.event.bit() != 0
            && entry.only.as_deref().is_none_or(|only| only == name)
    }
}

/// The events that a report tells, as a set of [`ReportEvent::bit`]s.
pub fn wanted(spec: &ReportSpec) -> u16 {
    let all = spec.events.as_deref().unwrap_or(&ReportEvent::ALL);
    all.iter().fold(0, |set, event| set | event.bit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-07-01T10:00:00Z".parse().unwrap()
    }

    fn spec(name: &str, events: Option<&[ReportEvent]>) -> ReportSpec {
        let http = serde_json::from_value(json!({"url": "https://crm.example.com"})).unwrap();
        ReportSpec { name: name.into(), http, events: events.map(<[ReportEvent]>::to_vec) }
    }

    fn outbox(specs: &[ReportSpec]) -> Outbox {
        let mut outbox = Outbox::new(Maker {
            namespace: "n".into(),
            name: "w".into(),
            uid: "u".into(),
            url: String::new(),
            series: "s".into(),
            revision: 0,
        });
        outbox.declare(specs, now());
        outbox
    }

    fn upload(number: u64) -> Occurrence {
        let id = format!("change-{number}");
        Occurrence {
            id,
            event: ReportEvent::FileUploaded,
            at: now(),
            by: None,
            caused_by: None,
            by_operator: false,
            item: Some("i".into()),
            path: Some("/a".into()),
            version: Some(1),
            subject: None,
            facts: None,
        }
    }

    /// Tells a sink everything; the ids in their order, and how many it missed.
    fn drain(outbox: &mut Outbox, name: &str) -> (Vec<String>, u64) {
        let (mut ids, mut missed) = (Vec::new(), 0);
        while let Some(due) = outbox.due(name) {
            match &due {
                Due::Entry(entry) => ids.push(entry.what.id.clone()),
                Due::Missed(some) => missed += some.count,
            }
            outbox.acknowledge(name, &due, now());
        }
        (ids, missed)
    }

    #[test]
    fn a_new_report_begins_with_provisioned_and_another_one_learns_nothing_of_it() {
        let mut outbox = outbox(&[spec("crm", None)]);
        outbox.take_in("e", 1, Some(upload(1)));
        assert_eq!(drain(&mut outbox, "crm").0, ["s-1", "change-1"]);
        outbox.declare(&[spec("crm", None), spec("sap", None)], now());
        assert_eq!((outbox.pending("crm"), outbox.pending("sap")), (0, 1));
        assert_eq!(drain(&mut outbox, "sap").0, ["s-3"]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_same_entry_and_the_same_state_are_taken_in_once() {
        let mut outbox = outbox(&[spec("crm", None)]);
        for _ in 0..2 {
            outbox.take_in("e", 7, Some(upload(7)));
            outbox.tell_state(ReportEvent::DocumentsChanged, "7/9", Some(json!({"summary": "7/9"})), now());
        }
        outbox.tell_state(ReportEvent::DocumentsChanged, "8/9", None, now());
        outbox.tell_state(ReportEvent::DocumentsChanged, "7/9", None, now());
        assert_eq!(drain(&mut outbox, "crm").0, ["s-1", "change-7", "s-3", "s-4", "s-5"]);
        outbox.take_in("another epoch", 1, Some(upload(1)));
        assert_eq!(outbox.pending("crm"), 1, "the numbers of another feed begin anew");
    }

    #[test]
    fn what_nobody_wants_is_not_kept() {
        let mut outbox = outbox(&[spec("crm", Some(&[ReportEvent::FileShared]))]);
        outbox.take_in("e", 1, Some(upload(1)));
        assert!(outbox.is_empty(), "Provisioned is not wanted either");
        outbox.declare(&[], now());
        assert!(outbox.sinks.is_empty() && outbox.is_empty());
    }

    #[test]
    fn a_sink_that_is_away_loses_the_oldest_and_is_told_and_the_other_loses_nothing() {
        let mut outbox = outbox(&[spec("away", None), spec("here", None)]);
        let mut here = Vec::new();
        let total = MOST as u64 + 40;
        for number in 1..=total {
            outbox.take_in("e", number, Some(upload(number)));
            here.extend(drain(&mut outbox, "here").0);
        }
        assert_eq!(here.len() as u64, total + 1, "with Provisioned");
        assert_eq!(outbox.entries.len(), MOST);
        let Some(Due::Missed(missed)) = outbox.due("away") else { panic!("it is told first") };
        assert_eq!(missed.count, 41, "Provisioned and 40 uploads");
        let (ids, count) = drain(&mut outbox, "away");
        assert_eq!((ids.len(), count), (MOST, 41));
        assert_eq!(ids[0], "change-41");
        assert!(outbox.is_empty());
    }

    #[test]
    fn more_that_gives_way_while_a_sink_is_told_is_told_again() {
        let mut outbox = outbox(&[spec("away", None)]);
        for number in 1..=MOST as u64 {
            outbox.take_in("e", number, Some(upload(number)));
        }
        let due = outbox.due("away").unwrap();
        outbox.take_in("e", 10_000, Some(upload(10_000)));
        outbox.acknowledge("away", &due, now());
        let Some(Due::Missed(missed)) = outbox.due("away") else { panic!("it is not forgotten") };
        assert_eq!(missed.count, 2);
    }

    #[test]
    fn a_gap_in_the_feed_is_told() {
        let mut outbox = outbox(&[spec("crm", None)]);
        drain(&mut outbox, "crm");
        outbox.lost_track(now(), now());
        let Some(Due::Missed(missed)) = outbox.due("crm") else { panic!("it is told") };
        assert_eq!(missed.count, 0, "nobody knows");
        drain(&mut outbox, "crm");
        assert!(outbox.is_empty());
    }

    #[test]
    fn large_facts_do_not_make_a_document_too_large() {
        let mut outbox = outbox(&[spec("crm", None)]);
        for number in 0..40 {
            let facts = json!({"text": "x".repeat(20_000)});
            outbox.tell_state(ReportEvent::DocumentsChanged, &number.to_string(), Some(facts), now());
        }
        assert!(serde_json::to_string(&outbox).unwrap().len() < 250 * 1024);
        outbox.tell_state(ReportEvent::DocumentsChanged, "too large", Some(json!("x".repeat(LARGEST_FACTS))), now());
        assert_eq!(outbox.entries.back().unwrap().what.facts, None, "the event stays, what is too large does not");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn r1_every_sink_gets_everything_in_order_or_is_told_how_much_it_missed(
            steps in prop::collection::vec((0u8..3, 1usize..90), 1..40),
        ) {
            let mut outbox = outbox(&[spec("a", None), spec("b", None)]);
            let mut got: BTreeMap<&str, (Vec<String>, u64)> = BTreeMap::new();
            let mut sequence = 0;
            for (what, count) in steps {
                match what {
                    0 => for _ in 0..count * 5 {
                        sequence += 1;
                        outbox.take_in("e", sequence, Some(upload(sequence)));
                        // Read again after a crash.
                        outbox.take_in("e", sequence, Some(upload(sequence)));
                    },
                    one => {
                        let name = if one == 1 { "a" } else { "b" };
                        for _ in 0..count {
                            let Some(due) = outbox.due(name) else { break };
                            let entry = got.entry(name).or_default();
                            match &due {
                                Due::Entry(one) => entry.0.push(one.what.id.clone()),
                                Due::Missed(missed) => entry.1 += missed.count,
                            }
                            outbox.acknowledge(name, &due, now());
                        }
                        // The operator is killed and reads what it kept.
                        {
                            let kept = serde_json::to_value(&outbox).unwrap();
                            outbox = serde_json::from_value(kept).unwrap();
                        }
                    }
                }
                prop_assert!(outbox.entries.len() <= MOST);
            }
            for name in ["a", "b"] {
                let (mut ids, mut missed) = got.remove(name).unwrap_or_default();
                let rest = drain(&mut outbox, name);
                ids.extend(rest.0);
                missed += rest.1;
                prop_assert_eq!(ids.len() as u64 + missed, sequence + 1);
                let order: Vec<u64> = ids.iter().map(|id| id.rsplit('-').next().unwrap().parse().unwrap()).collect();
                let uploads = &order[usize::from(ids.first().is_some_and(|id| id == "s-1" || id == "s-2"))..];
                prop_assert!(uploads.is_sorted_by(|a, b| a < b), "{:?}", ids);
            }
            prop_assert!(outbox.is_empty());
        }
    }
}
