//! One file's way through a route: look at it, let the rules decide, deliver, record.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::attempts::Receipt as Kept;
use super::delivery::{Content, Delivery, File, Origin, Receipt, key};
use super::environment::Facts;
use super::ledger::{Entry, Record, State};
use super::route::{Route, Target, Turn, Unmatched, slot};
use super::rules::{UNMATCHED, Verdict};
use super::window::Token;
use crate::api::file_route::FileEvent;
use crate::error::{Disposition, Error, Kind, Result, clean};
use crate::expression::from_json;

/// Longest error that a record keeps.
const MAX_ERROR: usize = 300;

/// Which destinations of the rule a piece of work is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Concerns {
    /// All of them.
    #[default]
    All,
    /// Those that mirror; the others, too, if the version was never routed.
    Unrouted,
    /// Those that mirror: what the others have is not touched.
    Mirrors,
}

/// A piece of work on one file.
pub struct Work {
    /// Which version of which file.
    pub origin: Origin,
    /// Its path or key, as far as known.
    pub path: String,
    /// What happened.
    pub event: FileEvent,
    /// When.
    pub event_at: Timestamp,
    /// Who did it.
    pub actor: String,
    /// Tells deliveries of one version apart that are not about its content; see [`key`].
    pub occasion: String,
    /// Which destinations it is for.
    pub concerns: Concerns,
    /// What is recorded of the version, where `concerns` asks for it.
    pub recorded: Option<Record>,
    /// What was achieved so far, by `rule/destination`.
    pub to: BTreeMap<String, Entry>,
    /// Failed tries that count.
    pub attempts: u32,
    /// It is gone at the source: destinations that mirror forget it.
    pub is_gone: bool,
    /// Destinations that mirror were told ahead of it; see [`Work::ahead`].
    pub is_told: bool,
    /// It may have been worked on before: whoever has a record already is left alone.
    pub may_be_recorded: bool,
    /// A document says that it waits.
    pub is_parked: bool,
    /// Holds the checkpoint back.
    pub token: Option<Token>,
    /// Its place among what may be open at once.
    pub permit: Option<OwnedSemaphorePermit>,
    /// How often it was sent elsewhere in this state; see [`crate::queue`].
    pub sent: u32,
    /// Is told once the outcome of its last try is recorded.
    pub receipt: Option<Box<dyn Kept>>,
}

impl Work {
    /// Work on a file that nobody has looked at yet.
    pub fn new(origin: Origin, path: String, event: FileEvent, event_at: Timestamp, actor: String) -> Self {
        Self {
            origin,
            path,
            event,
            event_at,
            actor,
            occasion: String::new(),
            concerns: Concerns::All,
            recorded: None,
            to: BTreeMap::new(),
            attempts: 0,
            is_gone: false,
            is_told: false,
            may_be_recorded: false,
            is_parked: false,
            token: None,
            permit: None,
            sent: 0,
            receipt: None,
        }
    }

    /// Work that tells destinations that mirror about this version while it stands behind one that waits; once.
    pub fn ahead(&mut self) -> Option<Self> {
        if std::mem::replace(&mut self.is_told, true) || self.is_gone || self.concerns == Concerns::Mirrors {
            return None;
        }
        let mut ahead = Self::new(self.origin.clone(), self.path.clone(), self.event, self.event_at, self.actor.clone());
        "ahead".clone_into(&mut ahead.occasion);
        ahead.concerns = Concerns::Mirrors;
        Some(ahead)
    }
}

/// A file as the source shows it now.
pub struct Loaded {
    /// What expressions see.
    pub facts: Facts,
    /// Its bytes.
    pub content: Arc<dyn Content>,
    /// It is what the source shows now, not an earlier version of it.
    pub is_current: bool,
}

/// What the source says about a piece of work.
pub enum Look {
    /// Here it is.
    Here(Box<Loaded>),
    /// It is not the route's (any more): gone, out of scope, not visible. What comes later comes with an entry of its own.
    NotOurs,
    /// Another version or an earlier try took care of it.
    Superseded,
    /// It cannot be taken up before this time.
    Later(Instant),
}

/// What the source knows about the place of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Whereabouts {
    /// The route reads that place now.
    pub is_read: bool,
    /// Name of the SecureWorkspace; empty for a workspace that no resource declares, and for objects.
    pub workspace: String,
    /// Changes when what is remembered of workspaces and folders has to be read again.
    pub revision: u64,
}

/// Where files come from, as far as the work on one file needs it.
#[async_trait]
pub trait Source: Send + Sync {
    /// What whoever works on the file elsewhere has to know about where it is.
    fn whereabouts(&self, origin: &Origin) -> Whereabouts;

    /// Looks at the file.
    async fn look(&self, work: &Work) -> Result<Look>;

    /// Sets metadata on the file at its source, if it has any there.
    async fn label(&self, origin: &Origin, metadata: &BTreeMap<String, String>) -> Result<()>;

    /// Moves the file to a folder of its workspace.
    async fn move_to(&self, origin: &Origin, folder: &str) -> Result<()>;
}

/// How the work on a file ended.
pub enum Outcome {
    /// Done: everything is acknowledged, or no rule took it.
    Done(Box<Finished>),
    /// Some destination is tried again at this time.
    Wait(Instant, Box<Finished>),
    /// Some destination was given up.
    Dead(Box<Finished>),
    /// There was nothing to do.
    Nothing,
    /// The source is away: the same again at this time, with nothing recorded.
    Hold(Instant, Error),
}

/// What is recorded, and what is counted.
pub struct Finished {
    /// The record.
    pub record: Record,
    /// Path or key, for people.
    pub path: String,
    /// Acknowledged in this try.
    pub delivered: u64,
    /// Of these, what was there already.
    pub duplicates: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What failed in this try, by `rule/destination`.
    pub errors: Vec<(String, Error)>,
}

/// Works on one file, one try. `now` is when it is looked at.
pub async fn attempt(route: &Route, source: &dyn Source, work: &mut Work, now: Timestamp) -> Outcome {
    let (mut turn, mut now) = (None, now);
    loop {
        let look = source.look(work).await;
        if work.is_gone {
            return match look {
                Ok(Look::NotOurs) => withdraw(route, work, now).await,
                // It is back: what came with it tells.
                Ok(_) => Outcome::Nothing,
                Err(error) => hold(route, work, error),
            };
        }
        let loaded = match look {
            Ok(Look::Here(loaded)) => *loaded,
            Ok(Look::NotOurs) if route.mirrors() => return withdraw(route, work, now).await,
            Ok(Look::NotOurs | Look::Superseded) => return Outcome::Nothing,
            Ok(Look::Later(at)) => return Outcome::Hold(at, Error::new(Kind::Conflict, "the file is not complete yet")),
            Err(error) => return hold(route, work, error),
        };
        if let Some(outcome) = deliver(route, source, work, loaded, &mut turn, now).await {
            return outcome;
        }
        now = Timestamp::now();
    }
}

/// The source does not answer, or answers wrongly: nothing can be said about the file.
pub(super) fn hold(route: &Route, work: &mut Work, error: Error) -> Outcome {
    work.attempts = work.attempts.saturating_add(1);
    let delay = error.retry_after.unwrap_or_else(|| route.retry.delay(work.attempts, rand::random()));
    Outcome::Hold(Instant::now() + delay, error)
}

/// Something at the source failed after the rules decided: for good, or for now.
fn failed(route: &Route, work: &mut Work, rule: &str, error: Error, now: Timestamp) -> Outcome {
    match error.disposition() {
        Disposition::Terminal => dead_at_once(route, work, rule, error, now),
        _ => hold(route, work, error),
    }
}

/// Lets the rules decide and delivers. `None`: the file is large and waited for its `turn`, which it has now; what was seen of it before that
/// may have changed.
async fn deliver<'r>(
    route: &'r Route,
    source: &dyn Source,
    work: &mut Work,
    mut loaded: Loaded,
    turn: &mut Option<Turn<'r>>,
    now: Timestamp,
) -> Option<Outcome> {
    work.path.clone_from(&loaded.facts.file.path);
    let variables = loaded.facts.variables(now);
    let verdict = match route.rules.decide(&variables) {
        Ok(verdict) => verdict,
        // That was told when the version was routed.
        Err(_) if work.recorded.as_ref().is_some_and(|record| record.state == State::Dead) => return Some(Outcome::Nothing),
        Err(failed) => return Some(dead_at_once(route, work, "", Error::new(Kind::Rejected, failed.message), now)),
    };
    if let Err(error) = set(source, &mut loaded, &verdict).await {
        return Some(failed(route, work, &verdict.name, error.while_doing("set metadata"), now));
    }
    let targets: &[Arc<Target>] = match (verdict.rule, &route.unmatched) {
        (Some(rule), _) => route.targets.get(rule).map_or(&[], Vec::as_slice),
        (None, Unmatched::To(targets)) => targets,
        (None, Unmatched::Ignore) => &[],
        (None, Unmatched::MoveTo(_)) if work.concerns != Concerns::All => &[],
        (None, Unmatched::MoveTo(folder)) => {
            if let Err(error) = source.move_to(&work.origin, folder).await {
                return Some(failed(route, work, UNMATCHED, error.while_doing("move to unmatched.moveTo"), now));
            }
            &[]
        }
    };
    let concerned = |target: &&Arc<Target>| work.concerns == Concerns::All || target.destination.mirrors();
    let targets: Vec<Arc<Target>> = targets.iter().filter(concerned).cloned().collect();
    if route.mirrors() {
        // A destination of another rule may still show the file as that rule had it.
        if let Some(outcome) = withdraw_elsewhere(route, work, &targets, now).await {
            return Some(outcome);
        }
    }
    if verdict.rule.is_none() && targets.is_empty() {
        return Some(done(route, work, State::Unmatched, UNMATCHED, Tries::default(), now));
    }
    if !targets.is_empty() && turn.is_none() {
        let size = loaded.facts.file.size;
        *turn = route.turn_at_once(size);
        if turn.is_none() {
            *turn = Some(route.turn(size).await);
            return None;
        }
    }
    let variables = Arc::new(loaded.facts.variables(now));
    let chosen_by_outsider = loaded.facts.is_untrusted() && route.rules.is_chosen_by_uploader(verdict.rule);
    let rule = verdict.name.as_str().into();
    let base = Base { route, work, loaded: &loaded, rule, chosen_by_outsider, variables, as_of: now };
    let tries = join_all(targets.iter().map(|target| base.try_target(target))).await;
    let tries = Tries::of(tries);
    let tries = write_back(source, &loaded, &targets, tries).await;
    Some(conclude(route, work, &verdict.name, tries, now))
}

/// Sets what the rule says, unless it is so already; destinations see it.
async fn set(source: &dyn Source, loaded: &mut Loaded, verdict: &Verdict) -> Result<()> {
    let file = &loaded.facts.file;
    if verdict.set.iter().all(|(name, value)| file.metadata.get(name) == Some(value)) {
        return Ok(());
    }
    source.label(&file.origin, &verdict.set).await?;
    let mut changed: File = (**file).clone();
    changed.metadata.extend(verdict.set.clone());
    loaded.facts.file = Arc::new(changed);
    Ok(())
}

struct Base<'a> {
    route: &'a Route,
    work: &'a Work,
    loaded: &'a Loaded,
    rule: Arc<str>,
    /// What an outsider without a verified address entered decides that this rule takes the file.
    chosen_by_outsider: bool,
    variables: Arc<crate::expression::Variables>,
    as_of: Timestamp,
}

/// What a try of one destination gave.
struct Try {
    slot: String,
    key: String,
    /// How often the destination has answered.
    answers: u64,
    result: Tried,
}

enum Tried {
    /// It was acknowledged before.
    Before,
    /// It was given up before.
    GivenUp,
    Acknowledged(Receipt),
    /// The destination is away until then; that is not the file's failure.
    Away(Instant, Error),
    Failed(Error),
}

impl Base<'_> {
    async fn try_target(&self, target: &Target) -> Try {
        let slot = slot(&self.rule, &target.name);
        let key = key(&self.route.id, &self.work.origin, &self.rule, &target.name, &self.work.occasion);
        // Who may read the file can change while another destination is away: an index is told again with each try.
        let may_be_stale = self.work.is_parked && target.destination.mirrors();
        if !may_be_stale && self.work.to.get(&slot).is_some_and(|entry| entry.at.is_some() && entry.key == key) {
            return Try { slot, key, answers: target.breaker.answers(), result: Tried::Before };
        }
        if target.destination.mirrors() && !self.loaded.is_current {
            // A mirror shows the present, which comes with a newer version of its own.
            let receipt = Receipt { duplicate: true, ..Receipt::default() };
            return Try { slot, key, answers: target.breaker.answers(), result: Tried::Acknowledged(receipt) };
        }
        if self.work.to.get(&slot).is_some_and(|entry| entry.given_up && entry.key == key) {
            return Try { slot, key, answers: target.breaker.answers(), result: Tried::GivenUp };
        }
        let retry = &self.route.retry;
        if let Some((until, why)) = target.breaker.wait(Instant::now(), retry) {
            return Try { slot, key, answers: target.breaker.answers(), result: Tried::Away(until, why) };
        }
        let delivery = Delivery {
            key: key.clone(),
            route: self.route.id.clone(),
            rule: self.rule.clone(),
            destination: target.name.clone(),
            event: self.work.event,
            event_at: self.work.event_at,
            as_of: self.as_of,
            file: self.loaded.facts.file.clone(),
            variables: self.variables.clone(),
            untrusted: self.loaded.facts.is_untrusted(),
            content: self.loaded.content.clone(),
        };
        let delivered = match self.refuses(target) {
            Some(why) => Err(why),
            None => target.destination.deliver(&delivery).await,
        };
        let result = match delivered {
            Ok(receipt) => {
                target.breaker.answered();
                Tried::Acknowledged(receipt)
            }
            Err(error) if is_about_the_destination(&error) => {
                match target.breaker.failed(&error, Instant::now(), retry, rand::random()) {
                    Some(until) => Tried::Away(until, error),
                    None => Tried::Failed(error),
                }
            }
            Err(error) => {
                target.breaker.answered();
                Tried::Failed(error)
            }
        };
        Try { slot, key, answers: target.breaker.answers(), result }
    }
}

impl Base<'_> {
    /// R9: who gets access is not decided by what an unverified outsider entered, not even by choosing the rule.
    fn refuses(&self, target: &Target) -> Option<Error> {
        let why = "share: which rule takes the file depends on what an outsider without a verified address entered; set requireEmail on \
                   the upload request, or ask for uploader.emailVerified first";
        (self.chosen_by_outsider && target.destination.widens_access()).then(|| Error::new(Kind::Rejected, why))
    }
}

/// A failure that every file would meet, not this one alone.
pub fn is_about_the_destination(error: &Error) -> bool {
    matches!(error.kind, Kind::Unavailable | Kind::Tls | Kind::RateLimited | Kind::Denied | Kind::Reference | Kind::Stopping)
}

/// All tries of one file, added up.
#[derive(Default)]
struct Tries {
    tries: Vec<Try>,
    errors: Vec<(String, Error)>,
}

impl Tries {
    fn of(tries: Vec<Try>) -> Self {
        Self { tries, errors: Vec::new() }
    }
}

/// Sets what the answers say on the file; a failure counts as the destination's, whose key makes the repeated call a no-op there.
async fn write_back(source: &dyn Source, loaded: &Loaded, targets: &[Arc<Target>], mut tries: Tries) -> Tries {
    for (target, tried) in targets.iter().zip(&mut tries.tries) {
        let Tried::Acknowledged(receipt) = &tried.result else { continue };
        if target.write_back.is_empty() {
            continue;
        }
        let response = receipt.response.clone().unwrap_or_else(|| json!({}));
        let variables = loaded.facts.variables(Timestamp::now()).with("response", from_json(&response));
        let values = target.write_back.iter().map(|(name, expression)| {
            let value = expression
                .text(&variables)
                .map_err(|failed| Error::new(Kind::Rejected, format!("writeBack.{name}: {}", failed.message)))?;
            Ok((name.clone(), value))
        });
        let written = match values.collect::<Result<BTreeMap<_, _>>>() {
            Ok(values) => source.label(&loaded.facts.file.origin, &values).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tried.result = Tried::Failed(error.while_doing("write back"));
        }
    }
    tries
}

fn conclude(route: &Route, work: &mut Work, rule: &str, tries: Tries, now: Timestamp) -> Outcome {
    let mut finished = Tally::default();
    let mut again: Option<Instant> = None;
    let mut dead = false;
    for tried in tries.tries {
        let entry = work.to.entry(tried.slot.clone()).or_default();
        if entry.key != tried.key {
            *entry = Entry { key: tried.key, ..Entry::default() };
        }
        match tried.result {
            Tried::Before => {}
            Tried::GivenUp => dead = true,
            Tried::Acknowledged(receipt) => {
                finished.acknowledged(&receipt);
                entry.at = Some(now);
                entry.error = None;
                entry.reference = Some(clean(&receipt.reference, 1024));
            }
            Tried::Away(until, error) => {
                entry.error = Some(clean(&error.to_string(), MAX_ERROR));
                // Whoever failed often comes after those that did not, so that they find out first.
                let own = Instant::now() + route.retry.delay(entry.tries, rand::random());
                let at = if entry.tries == 0 { until } else { until.max(own) };
                again = Some(again.map_or(at, |known| known.min(at)));
                finished.errors.push((tried.slot, error));
            }
            Tried::Failed(error) => {
                // A destination that answers nobody says nothing about the file: what counts is that others were answered in between.
                let others_answered = entry.others_answered || tried.answers > entry.answers;
                let is_the_files = !is_about_the_destination(&error) || (entry.tries > 0 && others_answered);
                entry.attempts = entry.attempts.saturating_add(u32::from(is_the_files));
                entry.answers = tried.answers;
                entry.tries = entry.tries.saturating_add(1);
                entry.error = Some(clean(&error.to_string(), MAX_ERROR));
                let is_final = error.disposition() == Disposition::Terminal && !is_about_the_destination(&error);
                if is_final || entry.attempts > route.retry.retries {
                    dead = true;
                    entry.given_up = true;
                } else {
                    let delay = error.retry_after.unwrap_or_else(|| route.retry.delay(entry.tries, rand::random()));
                    let at = Instant::now() + delay;
                    again = Some(again.map_or(at, |known| known.min(at)));
                }
                finished.errors.push((tried.slot, error));
            }
        }
    }
    let state = match (again, dead) {
        (Some(_), _) => State::Waiting,
        (None, true) => State::Dead,
        (None, false) if rule == UNMATCHED => State::Unmatched,
        (None, false) => State::Delivered,
    };
    let finished = Box::new(finished.into_finished(route, work, state, rule, now));
    match (state, again) {
        (State::Waiting, Some(at)) => Outcome::Wait(at, finished),
        (State::Dead, _) => Outcome::Dead(finished),
        _ => Outcome::Done(finished),
    }
}

#[derive(Default)]
struct Tally {
    delivered: u64,
    duplicates: u64,
    bytes: u64,
    errors: Vec<(String, Error)>,
}

impl Tally {
    fn acknowledged(&mut self, receipt: &Receipt) {
        self.delivered += 1;
        self.duplicates += u64::from(receipt.duplicate);
        self.bytes += receipt.bytes;
    }

    fn into_finished(self, route: &Route, work: &Work, state: State, rule: &str, now: Timestamp) -> Finished {
        let mut record = Record { state, rule: rule.to_owned(), at: now, to: work.to.clone() };
        if work.concerns != Concerns::All
            && let Some(before) = &work.recorded
        {
            record.goes_on_from(before, |slot| !route.is_mirror(slot));
        }
        let Self { delivered, duplicates, bytes, errors } = self;
        Finished { record, path: work.path.clone(), delivered, duplicates, bytes, errors }
    }
}

fn done(route: &Route, work: &Work, state: State, rule: &str, tries: Tries, now: Timestamp) -> Outcome {
    let tally = Tally { errors: tries.errors, ..Tally::default() };
    Outcome::Done(Box::new(tally.into_finished(route, work, state, rule, now)))
}

/// The file is given up before a rule was found for it.
pub fn give_up(route: &Route, work: &mut Work, error: Error) -> Outcome {
    dead_at_once(route, work, "", error, Timestamp::now())
}

/// Nothing about the file can change by another try.
fn dead_at_once(route: &Route, work: &mut Work, rule: &str, error: Error, now: Timestamp) -> Outcome {
    let slot = format!("{rule}/");
    let entry = work.to.entry(slot.clone()).or_default();
    entry.given_up = true;
    entry.error = Some(clean(&error.to_string(), MAX_ERROR));
    let tally = Tally { errors: vec![(slot, error)], ..Tally::default() };
    Outcome::Dead(Box::new(tally.into_finished(route, work, State::Dead, rule, now)))
}

/// Takes the file out of every destination that mirrors.
async fn withdraw(route: &Route, work: &mut Work, now: Timestamp) -> Outcome {
    match withdraw_elsewhere(route, work, &[], now).await {
        Some(outcome) => outcome,
        None => Outcome::Nothing,
    }
}

/// Takes the file out of every destination that mirrors and is not among `kept`, nor the same place as one of them. A failure waits like any
/// other.
async fn withdraw_elsewhere(route: &Route, work: &mut Work, kept: &[Arc<Target>], now: Timestamp) -> Option<Outcome> {
    let file = work.origin.file();
    let others: Vec<&Arc<Target>> = route
        .all_targets()
        .filter(|target| target.destination.mirrors() && !kept.iter().any(|kept| is_same_place(kept, target)))
        .collect();
    for target in others {
        if let Some((until, why)) = target.breaker.wait(Instant::now(), &route.retry) {
            return Some(waits(route, work, until, &target.name, &why, now));
        }
        match target.destination.withdraw(&route.id, &file, now).await {
            Ok(()) => {
                target.breaker.answered();
            }
            Err(error) => {
                // What cannot be taken out is tried until it can: a document that stays shows what nobody may see.
                let away = target.breaker.failed(&error, Instant::now(), &route.retry, rand::random());
                work.attempts = work.attempts.saturating_add(1);
                let until = away.unwrap_or_else(|| Instant::now() + route.retry.delay(work.attempts, rand::random()));
                return Some(waits(route, work, until, &target.name, &error, now));
            }
        }
    }
    None
}

fn is_same_place(one: &Arc<Target>, other: &Arc<Target>) -> bool {
    let place = one.destination.place();
    Arc::ptr_eq(one, other) || place.is_some() && place == other.destination.place()
}

fn waits(route: &Route, work: &mut Work, until: Instant, target: &str, why: &Error, now: Timestamp) -> Outcome {
    let slot = format!("withdraw/{target}");
    work.to.entry(slot.clone()).or_default().error = Some(clean(&why.to_string(), MAX_ERROR));
    let tally = Tally { errors: vec![(slot, why.clone())], ..Tally::default() };
    Outcome::Wait(until, Box::new(tally.into_finished(route, work, State::Waiting, "", now)))
}
