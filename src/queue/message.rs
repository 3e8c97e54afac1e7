//! What the leader and the workers say to each other, and how each knows that the other said it.

use std::collections::BTreeMap;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::api::file_route::FileEvent;
use crate::error::{Error, Kind, Result, clean};
use crate::hex::{hex, unhex};
use crate::routes::delivery::{Origin, RouteId};
use crate::routes::ledger::{Entry, ParkedOrigin, Record};
use crate::routes::work::{Concerns, Finished, Outcome, Whereabouts, Work};

/// Version of the messages. A reader refuses every other.
const VERSION: u32 = 2;
/// How long after it was said a message may come to the stream. Less than File 360 keeps idempotency keys (24 h), so that a job that somebody says
/// again has no second effect there.
const LIFE: SignedDuration = SignedDuration::from_hours(12);
/// Largest message that is read.
pub const MAX_MESSAGE: usize = 512 * 1024;
/// Longest error text that is sent.
const MAX_ERROR: usize = 600;
/// Shortest key.
const MIN_KEY: usize = 32;
/// Most keys of one file.
const MAX_KEYS: usize = 4;
/// Header with the signature.
pub const SIGNATURE: &str = "File360-Signature";

/// Which route, and which version of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteVersion {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
}

/// One try of one piece of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    version: u32,
    /// What tells this try from every other.
    pub id: String,
    /// When it was said, by the leader's clock.
    said_at: Timestamp,
    /// Identity of the cluster.
    pub cluster: String,
    /// The route.
    pub route: RouteVersion,
    origin: ParkedOrigin,
    path: String,
    event: FileEvent,
    event_at: Timestamp,
    actor: String,
    occasion: String,
    concerns: Concerns,
    recorded: Option<Record>,
    is_gone: bool,
    is_parked: bool,
    attempts: u32,
    to: BTreeMap<String, Entry>,
    /// Of `to`: destinations that have answered somebody since this file failed there.
    answered: Vec<String>,
    /// Where the leader sees the file.
    pub place: Whereabouts,
    /// Changes when what is remembered of workspaces and folders has to be read again.
    pub memory: String,
}

impl Job {
    /// The message about `work`. `answered`: see [`Job`]; `memory` identifies the leader.
    pub fn of(
        route: &RouteId,
        generation: i64,
        work: &Work,
        answered: Vec<String>,
        place: Whereabouts,
        leader: &str,
    ) -> Self {
        let memory = format!("{leader}-{}", place.revision);
        Self {
            version: VERSION,
            id: id(route, generation, work),
            said_at: Timestamp::now(),
            cluster: route.cluster.clone(),
            route: RouteVersion {
                namespace: route.namespace.clone(),
                name: route.name.clone(),
                uid: route.uid.clone(),
                generation,
            },
            origin: (&work.origin).into(),
            path: work.path.clone(),
            event: work.event,
            event_at: work.event_at,
            actor: work.actor.clone(),
            occasion: work.occasion.clone(),
            concerns: work.concerns,
            recorded: work.recorded.clone(),
            is_gone: work.is_gone,
            is_parked: work.is_parked,
            attempts: work.attempts,
            to: work.to.clone(),
            answered,
            place,
            memory,
        }
    }

    /// Whether it came to the stream long after it was said: somebody says it again, or the leader's clock is wrong.
    pub fn is_stale(&self, published: Timestamp) -> bool {
        is_stale(self.said_at, published)
    }

    /// The piece of work, as the leader has it.
    pub fn work(&self) -> Work {
        let origin = Origin::from(&self.origin);
        let mut work = Work::new(origin, self.path.clone(), self.event, self.event_at, self.actor.clone());
        work.occasion.clone_from(&self.occasion);
        work.concerns = self.concerns;
        work.recorded.clone_from(&self.recorded);
        work.is_gone = self.is_gone;
        work.is_parked = self.is_parked;
        work.attempts = self.attempts;
        work.to = self.to.clone();
        for (slot, entry) in &mut work.to {
            // Whom this process saw answer says nothing: the leader counts for all.
            entry.answers = u64::MAX;
            entry.others_answered = self.answered.contains(slot);
        }
        work
    }
}

fn is_stale(said_at: Timestamp, published: Timestamp) -> bool {
    published.duration_since(said_at).abs() > LIFE
}

/// When the stream took a message.
pub fn published(message: &async_nats::jetstream::Message) -> Option<Timestamp> {
    let published = message.info().ok()?.published;
    Timestamp::from_nanosecond(published.unix_timestamp_nanos()).ok()
}

/// The same for the same piece of work in the same state sent as often, whichever process asks: a leader that takes over says it again, and the
/// stream drops what it has already.
fn id(route: &RouteId, generation: i64, work: &Work) -> String {
    let place = match &work.origin {
        Origin::Item { workspace, .. } => workspace.as_str(),
        Origin::Object { .. } => "",
    };
    let mut hash = Sha256::new();
    for part in [
        route.cluster.as_str(),
        &route.uid,
        &generation.to_string(),
        place,
        &work.origin.file(),
        &work.origin.version(),
        &work.occasion,
        &format!("{:?}", work.concerns),
        &format!("{:?}", work.event),
        &work.event_at.to_string(),
        if work.is_gone { "gone" } else { "" },
        &work.attempts.to_string(),
        &work.sent.to_string(),
        &serde_json::to_string(&work.to).unwrap_or_default(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..16])
}

/// Where a job stood on the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// When the stream took it, in nanoseconds since 1970 by the server's clock.
    pub taken_at: i64,
    /// Its number there.
    pub sequence: u64,
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    version: u32,
    /// Of which try.
    pub id: String,
    /// Which message it answers.
    pub to: Heard,
    /// When it was said, by the worker's clock.
    said_at: Timestamp,
    /// Which worker, for people.
    pub worker: String,
    attempts: u32,
    path: String,
    told: Told,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
enum Told {
    Done {
        finished: Ended,
    },
    Dead {
        finished: Ended,
    },
    #[serde(rename_all = "camelCase")]
    Wait {
        after_ms: u64,
        finished: Ended,
    },
    Nothing,
    #[serde(rename_all = "camelCase")]
    Hold {
        after_ms: u64,
        error: Failure,
    },
    #[serde(rename_all = "camelCase")]
    Unable {
        after_ms: u64,
        error: Failure,
    },
    Unended {
        taken: i64,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    record: Record,
    delivered: u64,
    duplicates: u64,
    bytes: u64,
    errors: Vec<(String, Failure)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    kind: Kind,
    code: String,
    text: String,
    retry_after_ms: Option<u64>,
}

/// What a worker did with a job.
pub enum Handled {
    /// It was tried.
    Tried(Outcome),
    /// This worker could not try it, such as when a right is missing; again after this long.
    Unable(Duration, Error),
    /// It was taken so often, and whoever took it was not heard of again.
    Unended(i64),
}

impl Answer {
    /// The message about a try. `work` is as the try left it.
    pub fn of(id: &str, to: Heard, worker: &str, work: &Work, handled: &Handled) -> Self {
        let until = |at: Instant| millis(at.saturating_duration_since(Instant::now()));
        let told = match handled {
            Handled::Tried(Outcome::Done(finished)) => Told::Done { finished: (&**finished).into() },
            Handled::Tried(Outcome::Dead(finished)) => Told::Dead { finished: (&**finished).into() },
            Handled::Tried(Outcome::Wait(at, finished)) => {
                Told::Wait { after_ms: until(*at), finished: (&**finished).into() }
            }
            Handled::Tried(Outcome::Nothing) => Told::Nothing,
            Handled::Tried(Outcome::Hold(at, error)) => Told::Hold { after_ms: until(*at), error: error.into() },
            Handled::Unable(after, error) => Told::Unable { after_ms: millis(*after), error: error.into() },
            Handled::Unended(taken) => Told::Unended { taken: *taken },
        };
        Self {
            version: VERSION,
            id: id.to_owned(),
            to,
            said_at: Timestamp::now(),
            worker: worker.to_owned(),
            attempts: work.attempts,
            path: work.path.clone(),
            told,
        }
    }

    /// Whether it came to the stream long after it was said: somebody says it again, or the worker's clock is wrong.
    pub fn is_stale(&self, published: Timestamp) -> bool {
        is_stale(self.said_at, published)
    }

    /// Brings `work` to where the try left it; what the worker did.
    pub fn apply(self, work: &mut Work) -> Handled {
        work.attempts = self.attempts;
        work.path.clone_from(&self.path);
        let at = |after_ms| Instant::now() + Duration::from_millis(after_ms);
        let mut ended = |ended: Ended| Box::new(ended.finished(self.path.clone(), work));
        match self.told {
            Told::Done { finished } => Handled::Tried(Outcome::Done(ended(finished))),
            Told::Dead { finished } => Handled::Tried(Outcome::Dead(ended(finished))),
            Told::Wait { after_ms, finished } => Handled::Tried(Outcome::Wait(at(after_ms), ended(finished))),
            Told::Nothing => Handled::Tried(Outcome::Nothing),
            Told::Hold { after_ms, error } => Handled::Tried(Outcome::Hold(at(after_ms), error.into())),
            Told::Unable { after_ms, error } => Handled::Unable(Duration::from_millis(after_ms), error.into()),
            Told::Unended { taken } => Handled::Unended(taken),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(86_400_000)
}

impl Ended {
    fn finished(self, path: String, work: &mut Work) -> Finished {
        work.to.clone_from(&self.record.to);
        let errors = self.errors.into_iter().map(|(slot, failure)| (slot, failure.into())).collect();
        let Self { record, delivered, duplicates, bytes, .. } = self;
        Finished { record, path, delivered, duplicates, bytes, errors }
    }
}

impl From<&Finished> for Ended {
    fn from(finished: &Finished) -> Self {
        Self {
            record: finished.record.clone(),
            delivered: finished.delivered,
            duplicates: finished.duplicates,
            bytes: finished.bytes,
            errors: finished.errors.iter().map(|(slot, error)| (slot.clone(), error.into())).collect(),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let retry_after_ms = error.retry_after.map(millis);
        Self { kind: error.kind, code: error.code.clone(), text: clean(&error.to_string(), MAX_ERROR), retry_after_ms }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let mut error = Error::new(failure.kind, clean(&failure.text, MAX_ERROR));
        error.code = clean(&failure.code, 100);
        error.retry_after = failure.retry_after_ms.map(Duration::from_millis);
        error
    }
}

/// What signs and verifies messages. Leader and workers have the same.
pub struct Keys {
    /// The first one signs.
    keys: Vec<Hmac<Sha256>>,
}

impl Keys {
    /// Of a file: one key of at least 32 bytes a line, at most 4. The first signs, each verifies.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let lines: Vec<&[u8]> = lines.collect();
        if lines.is_empty() || lines.len() > MAX_KEYS {
            return Err(format!("needs 1 to {MAX_KEYS} lines, each with one key"));
        }
        if lines.iter().any(|line| line.len() < MIN_KEY) {
            return Err(format!("has a key of less than {MIN_KEY} bytes; `openssl rand -hex 32` makes a good one"));
        }
        let keyed = |line: &&[u8]| Hmac::new_from_slice(line).map_err(|_| "has a key that cannot be used".to_owned());
        Ok(Self { keys: lines.iter().map(keyed).collect::<Result<_, _>>()? })
    }

    /// Signature of a message on a subject: moved to another subject, it does not fit.
    pub fn sign(&self, subject: &str, payload: &[u8]) -> String {
        self.keys.first().map(|key| hex(&authenticated(key, subject, payload).finalize().into_bytes())).unwrap_or_default()
    }

    /// Whether some key made the signature. In constant time.
    pub fn verify(&self, subject: &str, payload: &[u8], signature: &str) -> bool {
        let Some(signature) = unhex(signature) else { return false };
        self.keys.iter().any(|key| authenticated(key, subject, payload).verify_slice(&signature).is_ok())
    }

    /// The job in a message that was signed for this subject.
    pub fn job(&self, subject: &str, payload: &[u8], signature: &str) -> Result<Job> {
        let job: Job = self.open(subject, payload, signature)?;
        if job.version != VERSION {
            return Err(Error::new(Kind::Malformed, format!("the message has version {}, not {VERSION}", job.version)));
        }
        Ok(job)
    }

    /// The answer in a message that was signed for this subject.
    pub fn answer(&self, subject: &str, payload: &[u8], signature: &str) -> Result<Answer> {
        let answer: Answer = self.open(subject, payload, signature)?;
        if answer.version != VERSION {
            return Err(Error::new(Kind::Malformed, format!("the message has version {}, not {VERSION}", answer.version)));
        }
        Ok(answer)
    }

    fn open<T: serde::de::DeserializeOwned>(&self, subject: &str, payload: &[u8], signature: &str) -> Result<T> {
        if payload.len() > MAX_MESSAGE {
            return Err(Error::new(Kind::Malformed, "the message is too long"));
        }
        if !self.verify(subject, payload, signature) {
            return Err(Error::new(Kind::Denied, "the message is not signed with a key of --queue-key-file"));
        }
        serde_json::from_slice(payload).map_err(|_| Error::new(Kind::Malformed, "the message cannot be understood"))
    }
}

fn authenticated(key: &Hmac<Sha256>, subject: &str, payload: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    mac.update(&(subject.len() as u64).to_be_bytes());
    mac.update(subject.as_bytes());
    mac.update(payload);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::ledger::State;

    fn keys(text: &str) -> Keys {
        Keys::read(text.as_bytes()).unwrap()
    }

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    fn route() -> RouteId {
        RouteId { cluster: "c".into(), namespace: "n".into(), name: "r".into(), uid: "u".into() }
    }

    fn work() -> Work {
        let origin = Origin::Item { workspace: "w".into(), item: "i".into(), version: 3 };
        Work::new(origin, "/Inbox/a".into(), FileEvent::Uploaded, Timestamp::UNIX_EPOCH, "ada".into())
    }

    fn job(work: &Work) -> Job {
        Job::of(&route(), 1, work, Vec::new(), Whereabouts::default(), "l")
    }

    #[test]
    fn r1_one_id_for_one_piece_of_work_in_one_state() {
        let first = job(&work()).id;
        let mut restarted = work();
        restarted.may_be_recorded = true;
        restarted.path = "/elsewhere".into();
        assert_eq!(job(&restarted).id, first, "a leader that takes over says the same");
        let changes: [fn(&mut Work); 6] = [
            |work| work.sent = 1,
            |work| work.concerns = Concerns::Mirrors,
            |work| work.attempts = 1,
            |work| work.occasion = "c7".into(),
            |work| work.is_gone = true,
            |work| drop(work.to.insert("all/case".into(), Entry { tries: 1, ..Entry::default() })),
        ];
        for change in changes {
            let mut other = work();
            change(&mut other);
            assert_ne!(job(&other).id, first);
        }
        assert_ne!(Job::of(&route(), 2, &work(), Vec::new(), Whereabouts::default(), "l").id, first, "another generation");
    }

    #[test]
    fn t4_what_was_said_long_ago_does_not_count() {
        let job = job(&work());
        let answer = Answer::of(&job.id, Heard::default(), "w-1", &work(), &Handled::Tried(Outcome::Nothing));
        let now = Timestamp::now();
        for (away, is_stale) in [(0, false), (11, false), (-11, false), (13, true), (-13, true)] {
            let then = now + SignedDuration::from_hours(away);
            assert_eq!((job.is_stale(then), answer.is_stale(then)), (is_stale, is_stale), "{away} h");
        }
    }

    #[test]
    fn t4_a_message_is_believed_only_under_its_subject_and_signature() {
        let said = job(&work());
        let payload = serde_json::to_vec(&said).unwrap();
        let old = keys(OLD);
        let signature = old.sign("work.a", &payload);
        assert_eq!(old.job("work.a", &payload, &signature).unwrap(), said);
        let both = keys(&format!("{NEW}\n{OLD}\n"));
        assert!(both.job("work.a", &payload, &signature).is_ok(), "while keys are changed, both are known");
        for (keys, subject, payload, signature) in [
            (keys(NEW), "work.a", payload.clone(), signature.clone()),
            (keys(OLD), "work.b", payload.clone(), signature.clone()),
            (keys(OLD), "work.a", [payload.clone(), b" ".to_vec()].concat(), signature.clone()),
            (keys(OLD), "work.a", payload.clone(), String::new()),
            (keys(OLD), "work.a", payload.clone(), "é".repeat(32)),
        ] {
            assert_eq!(keys.job(subject, &payload, &signature).unwrap_err().kind, Kind::Denied);
        }
        for wrong in ["", "\n", "short", &[OLD; 5].join("\n")] {
            assert!(Keys::read(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_answer_brings_the_work_to_where_the_try_left_it() {
        let mut tried = job(&work()).work();
        tried.path = "/Inbox/renamed".into();
        tried.attempts = 2;
        tried.to.insert("all/case".into(), Entry { key: "k".into(), tries: 1, ..Entry::default() });
        let record = Record { state: State::Waiting, rule: "all".into(), at: Timestamp::UNIX_EPOCH, to: tried.to.clone() };
        let mut busy = Error::new(Kind::RateLimited, "slow down");
        busy.retry_after = Some(Duration::from_secs(7));
        let errors = vec![("all/case".to_owned(), busy)];
        let finished = Finished { record, path: tried.path.clone(), delivered: 1, duplicates: 0, bytes: 9, errors };
        let handled = Handled::Tried(Outcome::Wait(Instant::now() + Duration::from_secs(9), Box::new(finished)));
        let sent = serde_json::to_vec(&Answer::of("id", Heard::default(), "w-1", &tried, &handled)).unwrap();
        let mut kept = work();
        let answer: Answer = serde_json::from_slice(&sent).unwrap();
        let Handled::Tried(Outcome::Wait(at, finished)) = answer.apply(&mut kept) else { panic!("it waits") };
        let left = at.saturating_duration_since(Instant::now());
        assert!(left > Duration::from_secs(5) && left <= Duration::from_secs(9), "{left:?}");
        assert_eq!((kept.path.as_str(), kept.attempts, &kept.to), ("/Inbox/renamed", 2, &finished.record.to));
        assert_eq!(finished.errors[0].1.retry_after, Some(Duration::from_secs(7)));
        assert_eq!((finished.delivered, finished.bytes), (1, 9));
    }

    #[test]
    fn r5_whether_a_destination_answered_others_is_the_leaders_knowledge() {
        let mut failed = work();
        failed.to.insert("all/a".into(), Entry { tries: 1, answers: 4, ..Entry::default() });
        failed.to.insert("all/b".into(), Entry { tries: 1, answers: 4, ..Entry::default() });
        let there = Job::of(&route(), 1, &failed, vec!["all/b".into()], Whereabouts::default(), "l").work();
        assert!(!there.to["all/a"].others_answered && there.to["all/b"].others_answered);
    }
}
