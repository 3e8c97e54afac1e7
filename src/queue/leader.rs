//! The leader's side: publishes jobs, waits for answers, and publishes again what is neither.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::link::{Link, Links, Published, Settings};
use super::message::{Answer, Handled, Job, SIGNATURE, published};
use crate::error::{Error, Kind, Result, clean};
use crate::routes::attempts::{Attempted, Attempts, Receipt};
use crate::routes::delivery::RouteId;
use crate::routes::route::{Route, Target};
use crate::routes::work::{Outcome, Source, Work, give_up, is_about_the_destination};
use crate::telemetry::metrics::Metrics;

/// Answers to an earlier leader that are kept for whoever asks.
const KEPT: usize = 10_000;
/// How long they are kept.
const KEPT_FOR: Duration = Duration::from_mins(10);
/// Longest wait before the queue is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A route that starts anew within this time keeps its jobs.
const RESTART: Duration = Duration::from_secs(2);
/// Answers that are fetched at once.
const BATCH: usize = 500;

/// What all routes of the leader share.
pub struct Leader {
    links: Links,
    /// Tells this process from every other.
    nonce: String,
    /// Open tries of one route at once, when its spec does not say.
    open: usize,
    state: Mutex<State>,
    /// Since when this process reads answers, in nanoseconds by the server's clock. Nothing is published before, so that what an earlier leader
    /// published is told from its own.
    began: watch::Sender<Option<i64>>,
    trouble: watch::Sender<Trouble>,
    /// An answer came: there is room for another job.
    room: Notify,
    metrics: Arc<Metrics>,
    /// The process ends, or does not lead any more.
    ending: [CancellationToken; 2],
}

#[derive(Default)]
struct State {
    pending: HashMap<String, Pending>,
    serial: u64,
    /// Answers to jobs of an earlier leader.
    earlier: HashMap<String, (Instant, Answer, Subject)>,
    /// Which of them were used.
    used: HashSet<String>,
    /// Jobs of an earlier leader that were on the stream when this one began.
    left: HashSet<String>,
    /// Routes that run, by uid and generation, with how many there are of each.
    running: HashMap<(String, i64), usize>,
}

struct Pending {
    serial: u64,
    since: Instant,
    /// Looks in a row that found no such job on the stream.
    missed: u32,
    /// Dropped when the job is gone without an answer. `None`: the answer is being recorded.
    waiting: Option<oneshot::Sender<(Box<Answer>, Kept)>>,
}

/// Why work does not go on. Each has its own way to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trouble {
    /// Messages cannot be published.
    publishing: Option<String>,
    /// Answers cannot be read.
    reading: Option<String>,
    /// Jobs lie there, and no worker takes any.
    idle: bool,
}

impl Trouble {
    fn text(&self) -> Option<String> {
        let idle = || self.idle.then(|| "no worker takes work from the queue; is one running?".to_owned());
        self.reading.clone().or_else(|| self.publishing.clone()).or_else(idle)
    }
}

/// An answer that the stream keeps until its record is durable.
struct Kept {
    leader: Arc<Leader>,
    id: String,
    serial: u64,
    reply: Subject,
}

#[async_trait]
impl Receipt for Kept {
    async fn settle(self: Box<Self>) {
        self.leader.acknowledge(&self.reply).await;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.leader.forget(&self.id, self.serial);
    }
}

/// A wait for an answer; it ends when dropped.
struct Wait {
    leader: Arc<Leader>,
    id: String,
    serial: u64,
    answer: oneshot::Receiver<(Box<Answer>, Kept)>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.leader.state.lock();
        if state.pending.get(&self.id).is_some_and(|pending| pending.serial == self.serial && pending.waiting.is_some()) {
            state.pending.remove(&self.id);
        }
    }
}

impl Leader {
    /// Nothing is connected before [`Leader::run`]. `open`: tries of one route at once, when its spec does not say. `ending`: the process ends, or
    /// does not lead any more.
    pub fn new(settings: Settings, open: usize, metrics: Arc<Metrics>, ending: [CancellationToken; 2]) -> Arc<Self> {
        Arc::new(Self {
            links: Links::new(settings, true),
            nonce: format!("{:016x}", rand::random::<u64>()),
            open,
            state: Mutex::default(),
            began: watch::Sender::new(None),
            trouble: watch::Sender::new(Trouble::default()),
            room: Notify::new(),
            metrics,
            ending,
        })
    }

    /// The way of one route to the queue.
    pub fn route(self: &Arc<Self>, id: &Arc<RouteId>, generation: i64) -> Arc<dyn Attempts> {
        *self.state.lock().running.entry((id.uid.clone(), generation)).or_default() += 1;
        Arc::new(Elsewhere {
            leader: self.clone(),
            id: id.clone(),
            generation,
            trouble: tokio::sync::Mutex::new(self.trouble.subscribe()),
            unable: Mutex::new(None),
            unable_changed: Notify::new(),
        })
    }

    /// Reads answers and looks after the streams until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::select! {
            () = self.clone().read() => {}
            () = self.look_after() => {}
            () = self.ending[0].cancelled() => {}
            () = self.ending[1].cancelled() => {}
        }
    }

    fn lease(&self) -> Duration {
        self.links.settings.lease
    }

    async fn read(self: Arc<Self>) {
        let mut failures = 0;
        let mut is_first = true;
        loop {
            let error = match self.read_on(&mut is_first, &mut failures).await {
                Ok(()) => continue,
                Err(error) => error,
            };
            failures += 1;
            warn!(%error, failures, "The queue's answers cannot be read; trying again");
            self.say(|trouble| trouble.reading = Some(clean(&error.to_string(), 300)));
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Reads until the connection is lost or the stream is gone.
    async fn read_on(self: &Arc<Self>, is_first: &mut bool, failures: &mut u32) -> Result<()> {
        let link = self.links.get().await?;
        let gone = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Unavailable, clean(&format!("the stream of answers: {error}"), 300))
        };
        let consumer = match link.leader(self.lease(), *is_first).await {
            Ok(consumer) => consumer,
            Err(error) => {
                self.links.discard(&link).await;
                return Err(error);
            }
        };
        if std::mem::replace(is_first, false) {
            let left = self.jobs_on_stream(&link).await;
            self.state.lock().left = left.unwrap_or_default();
            let began = consumer.cached_info().created.unix_timestamp_nanos();
            self.began.send_replace(Some(i64::try_from(began).unwrap_or(i64::MAX)));
            info!(queue = self.links.settings.names.jobs(), "Work of routes goes to the queue");
        }
        let messages = consumer.stream().max_messages_per_batch(BATCH).heartbeat(Duration::from_secs(5)).messages().await;
        let mut messages = messages.map_err(|error| gone(&error))?;
        *failures = 0;
        self.say(|trouble| trouble.reading = None);
        loop {
            let next = tokio::select! {
                next = messages.next() => next,
                () = link.live.lost.cancelled() => return Err(gone(&"the connection was lost")),
            };
            match next {
                Some(Ok(message)) => self.take(message).await,
                Some(Err(error)) => {
                    self.links.discard(&link).await;
                    return Err(gone(&error));
                }
                None => return Ok(()),
            }
        }
    }

    /// Gives an answer to whoever waits for it.
    async fn take(self: &Arc<Self>, message: async_nats::jetstream::Message) {
        let Some(reply) = message.reply.clone() else { return };
        let signature = message.headers.as_ref().and_then(|headers| headers.get(SIGNATURE));
        let signature = signature.map(|value| value.as_str().to_owned()).unwrap_or_default();
        let answer = match self.links.settings.keys.answer(&message.subject, &message.payload, &signature) {
            Ok(answer)
                if message.subject.as_str() == self.links.settings.names.answer(&answer.id)
                    && !published(&message).is_some_and(|published| answer.is_stale(published)) =>
            {
                answer
            }
            other => {
                let error = other.err().map_or_else(
                    || "it came long after it was said: is the worker's clock right?".to_owned(),
                    |error| error.to_string(),
                );
                warn!(subject = %message.subject, error, "An answer on the queue was refused");
                self.metrics.queue_refused.inc();
                self.acknowledge(&reply).await;
                return;
            }
        };
        self.metrics.queue_answers.inc();
        self.room.notify_one();
        if self.hand_over(answer, &reply) {
            return;
        }
        self.acknowledge(&reply).await;
    }

    /// Whether somebody has use for the answer; else it can go.
    fn hand_over(self: &Arc<Self>, answer: Answer, reply: &Subject) -> bool {
        let mut state = self.state.lock();
        if let Some(pending) = state.pending.get_mut(&answer.id) {
            let Some(waiting) = pending.waiting.take() else {
                // It came again while it is being recorded; who records it acknowledges it.
                return true;
            };
            let (id, serial) = (answer.id.clone(), pending.serial);
            let kept = Kept { leader: self.clone(), id, serial, reply: reply.clone() };
            drop(state);
            // Nobody may wait any more: then it comes again and is let go.
            drop(waiting.send((Box::new(answer), kept)));
            return true;
        }
        // This leader's own jobs have somebody who waits, or had. An earlier leader's are asked for once the checkpoint is read up to them.
        let is_earlier = self.began.borrow().is_some_and(|began| answer.to.taken_at < began);
        if !is_earlier || state.used.contains(&answer.id) || state.earlier.len() >= KEPT {
            return false;
        }
        state.earlier.insert(answer.id.clone(), (Instant::now(), answer, reply.clone()));
        true
    }

    async fn acknowledge(&self, reply: &Subject) {
        if let Ok(link) = self.links.get().await {
            link.acknowledge(reply).await;
        }
    }

    fn forget(&self, id: &str, serial: u64) {
        let mut state = self.state.lock();
        if state.pending.get(id).is_some_and(|pending| pending.serial == serial) {
            state.pending.remove(id);
        }
    }

    /// Waits for the answer to a job that is about to be published; `None` while another one with this id is on its way to its record.
    fn expect(self: &Arc<Self>, id: &str) -> Option<Wait> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.pending.contains_key(id) {
            return None;
        }
        state.serial += 1;
        let serial = state.serial;
        let pending = Pending { serial, since: Instant::now(), missed: 0, waiting: Some(sender) };
        state.pending.insert(id.to_owned(), pending);
        drop(state);
        Some(Wait { leader: self.clone(), id: id.to_owned(), serial, answer: receiver })
    }

    /// The answer to an earlier leader's job with this id is this one's.
    fn inherit(self: &Arc<Self>, id: &str) {
        let mut state = self.state.lock();
        if let Some((_, answer, reply)) = state.earlier.remove(id) {
            state.used.insert(id.to_owned());
            drop(state);
            self.hand_over(answer, &reply);
        }
    }

    /// Whether an earlier leader's job with this id was on the stream when this one began. Asked once for each.
    async fn was_left(&self, id: &str) -> bool {
        // The sender lives as long as this does.
        let _ = self.began.subscribe().wait_for(Option::is_some).await;
        self.state.lock().left.remove(id)
    }

    /// Publishes until the stream has it. While it cannot, the work waits here, and with it whatever comes behind.
    async fn publish(&self, subject: &str, job: &Job) -> Published {
        let payload = Bytes::from(serde_json::to_vec(job).unwrap_or_default());
        // The sender lives as long as this does.
        let _ = self.began.subscribe().wait_for(Option::is_some).await;
        let mut failures = 0;
        loop {
            match self.links.publish(subject, Some(&job.id), payload.clone()).await {
                Ok(published) => {
                    self.say(|trouble| trouble.publishing = None);
                    self.metrics.queue_jobs.inc();
                    return published;
                }
                Err(error) => {
                    failures += 1;
                    debug!(%error, failures, "A job could not be put on the queue; trying again");
                    self.say(|trouble| trouble.publishing = Some(clean(&error.to_string(), 300)));
                    tokio::select! { () = tokio::time::sleep(pause(failures)) => {}, () = self.room.notified() => {} }
                }
            }
        }
    }

    /// Whether a job that the stream says it had before is still there, or its answer.
    async fn is_under_way(&self, subject: &str, id: &str) -> bool {
        // What cannot be found out is found out by the regular look.
        let Ok(link) = self.links.get().await else { return true };
        match link.jobs.get_last_raw_message_by_subject(subject).await {
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            _ => return true,
        }
        let answer = self.links.settings.names.answer(id);
        let found = link.answers.get_last_raw_message_by_subject(&answer).await;
        !matches!(found, Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound)
    }

    /// Looks every so often whether what is waited for is still there.
    async fn look_after(&self) {
        loop {
            tokio::time::sleep(self.lease() / 2).await;
            self.forget_earlier().await;
            let Ok(link) = self.links.get().await else { continue };
            if let Err(error) = self.look(&link).await {
                debug!(%error, "The queue could not be looked at");
                self.links.discard(&link).await;
            }
        }
    }

    /// Answers that nobody asked for are let go.
    async fn forget_earlier(&self) {
        let old: Vec<Subject> = {
            let mut state = self.state.lock();
            let old = state.earlier.iter().filter(|(_, (since, ..))| since.elapsed() > KEPT_FOR);
            let ids: Vec<String> = old.map(|(id, _)| id.clone()).collect();
            ids.iter().filter_map(|id| state.earlier.remove(id)).map(|(_, _, reply)| reply).collect()
        };
        for reply in old {
            self.acknowledge(&reply).await;
        }
    }

    async fn look(&self, link: &Link) -> Result<()> {
        let unread = link.answers_unread().await?;
        let workers = link.workers().await?;
        let told = workers.cached_info();
        let is_idle = told.num_pending > 0 && told.num_waiting == 0 && told.num_ack_pending == 0;
        self.metrics.queue_open.set(i64::try_from(told.num_pending).unwrap_or(i64::MAX));
        self.metrics.queue_taken.set(i64::try_from(told.num_ack_pending).unwrap_or(i64::MAX));
        self.say(|trouble| trouble.idle = is_idle);
        let is_old = |pending: &Pending| pending.waiting.is_some() && pending.since.elapsed() > self.lease() / 2;
        if unread > 0 || !self.state.lock().pending.values().any(is_old) {
            return Ok(());
        }
        let there = self.jobs_on_stream(link).await?;
        self.state.lock().pending.retain(|id, pending| {
            if !is_old(pending) {
                return true;
            }
            pending.missed = if there.contains(id) { 0 } else { pending.missed + 1 };
            // Twice: an answer may be on its way.
            if pending.missed < 2 {
                return true;
            }
            // Whoever waits hears that nothing comes.
            self.metrics.queue_lost.inc();
            false
        });
        Ok(())
    }

    /// Ids of the jobs that are on the stream.
    async fn jobs_on_stream(&self, link: &Link) -> Result<HashSet<String>> {
        let subjects = link.jobs.info_with_subjects(self.links.settings.names.all_jobs()).await;
        let failed = || Error::new(Kind::Unavailable, "the stream of jobs does not answer");
        let subjects = subjects.map_err(|_| failed())?;
        let ids = subjects.map_ok(|(subject, _)| subject.rsplit('.').next().unwrap_or_default().to_owned());
        ids.try_collect().await.map_err(|_| failed())
    }

    fn say(&self, change: impl FnOnce(&mut Trouble)) {
        self.trouble.send_if_modified(|trouble| {
            let before = trouble.clone();
            change(trouble);
            *trouble != before
        });
    }
}

/// One route's way to the queue.
struct Elsewhere {
    leader: Arc<Leader>,
    id: Arc<RouteId>,
    generation: i64,
    trouble: tokio::sync::Mutex<watch::Receiver<Trouble>>,
    /// Why a worker could not even try.
    unable: Mutex<Option<String>>,
    unable_changed: Notify,
}

#[async_trait]
impl Attempts for Elsewhere {
    async fn attempt(&self, route: &Route, source: &dyn Source, work: &mut Work) -> Attempted {
        let (answer, kept) = self.answer(route, source, work).await;
        let before = work.to.clone();
        match answer.apply(work) {
            Handled::Tried(outcome) => {
                self.say_unable(None);
                if let Outcome::Done(finished) | Outcome::Dead(finished) | Outcome::Wait(_, finished) = &outcome {
                    learn(route, &before, work, &finished.errors);
                }
                // In another state it has another id by itself; in the same one, the next try is another one all the same.
                work.sent = if work.to == before { work.sent + 1 } else { 0 };
                Attempted { outcome, receipt: Some(Box::new(kept)) }
            }
            Handled::Unended(taken) => {
                let why =
                    format!("{taken} times a worker took this file and was not heard of again; does it end the workers?");
                let outcome = give_up(route, work, Error::new(Kind::Rejected, why));
                Attempted { outcome, receipt: Some(Box::new(kept)) }
            }
            Handled::Unable(after, error) => {
                self.say_unable(Some(clean(&error.to_string(), 300)));
                work.sent += 1;
                Attempted { outcome: Outcome::Hold(Instant::now() + after, error), receipt: Some(Box::new(kept)) }
            }
        }
    }

    fn at_once(&self, route: &Route) -> usize {
        route.concurrency.unwrap_or(self.leader.open)
    }

    fn trouble(&self) -> Option<String> {
        let queue = self.leader.trouble.borrow().text();
        queue.or_else(|| self.unable.lock().as_ref().map(|why| format!("a worker cannot do its work: {why}")))
    }

    async fn trouble_changed(&self) {
        let mut trouble = self.trouble.lock().await;
        tokio::select! {
            _ = trouble.changed() => {}
            () = self.unable_changed.notified() => {}
        }
    }
}

impl Elsewhere {
    /// Publishes the try and waits for its answer; published again, under another id, when neither is there any more.
    async fn answer(&self, route: &Route, source: &dyn Source, work: &mut Work) -> (Answer, Kept) {
        loop {
            let answered = answered_since(route, work);
            let place = source.whereabouts(&work.origin);
            let job = Job::of(&self.id, self.generation, work, answered, place, &self.leader.nonce);
            let Some(mut wait) = self.leader.expect(&job.id) else {
                work.sent += 1;
                continue;
            };
            let subject = self.leader.links.settings.names.job(&self.id.uid, self.generation, &job.id);
            self.leader.inherit(&job.id);
            if let Ok((answer, kept)) = wait.answer.try_recv() {
                return (*answer, kept);
            }
            if self.leader.was_left(&job.id).await {
                // An earlier leader said it, and it is still to be done or being done.
                if let Ok((answer, kept)) = (&mut wait.answer).await {
                    return (*answer, kept);
                }
                work.sent += 1;
                continue;
            }
            let published = self.leader.publish(&subject, &job).await;
            if published.duplicate && !self.leader.is_under_way(&subject, &job.id).await {
                // Its answer came just now, or was recorded by an earlier leader.
                self.leader.inherit(&job.id);
                if let Ok((answer, kept)) = wait.answer.try_recv() {
                    return (*answer, kept);
                }
                work.sent += 1;
                continue;
            }
            match (&mut wait.answer).await {
                Ok((answer, kept)) if answer.to.sequence == published.sequence => return (*answer, kept),
                Ok((_, kept)) => {
                    // Somebody said an answer to an earlier message about the same work again.
                    warn!(route = %self.id.name, file = %work.path, "An old answer on the queue was refused");
                    self.leader.metrics.queue_refused.inc();
                    Box::new(kept).settle().await;
                }
                Err(_) => {
                    debug!(route = %self.id.name, file = %work.path, "A job is gone from the queue; it is published again");
                }
            }
            work.sent += 1;
        }
    }

    fn say_unable(&self, why: Option<String>) {
        let mut unable = self.unable.lock();
        if *unable != why {
            *unable = why;
            drop(unable);
            self.unable_changed.notify_one();
        }
    }
}

/// The route stopped: what no worker has taken yet need not be done. A leader that ends leaves it for the next one.
impl Drop for Elsewhere {
    fn drop(&mut self) {
        let key = (self.id.uid.clone(), self.generation);
        let leader = self.leader.clone();
        if let Some(count) = leader.state.lock().running.get_mut(&key) {
            *count = count.saturating_sub(1);
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // It may only have started anew, as when a Connection changed: then its jobs stand.
            tokio::time::sleep(RESTART).await;
            {
                let mut state = leader.state.lock();
                if state.running.get(&key).is_some_and(|count| *count > 0) {
                    return;
                }
                state.running.remove(&key);
            }
            if leader.ending.iter().any(CancellationToken::is_cancelled) {
                return;
            }
            let subjects = leader.links.settings.names.jobs_of(&key.0, key.1);
            if let Ok(link) = leader.links.get().await
                && let Err(error) = link.jobs.purge().filter(subjects).await
            {
                debug!(%error, "Jobs of a route that stopped could not be taken back");
            }
        });
    }
}

/// The wait after some failures in a row: from a quarter of a second.
pub fn pause(failures: u32) -> Duration {
    let doubled = Duration::from_millis(250).saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(8)));
    doubled.min(LONGEST_WAIT).mul_f64(0.8 + 0.4 * rand::random::<f64>())
}

/// Destinations of earlier failures that have answered somebody since.
fn answered_since(route: &Route, work: &Work) -> Vec<String> {
    let failed = work.to.iter().filter(|(_, entry)| entry.tries > 0);
    let answered =
        failed.filter(|(slot, entry)| target(route, slot).is_some_and(|target| target.breaker.answers() > entry.answers));
    answered.map(|(slot, _)| slot.clone()).collect()
}

/// Counts what destinations answered, all workers together: for the status, and because a file is given up only when others were answered.
fn learn(
    route: &Route,
    before: &std::collections::BTreeMap<String, crate::routes::ledger::Entry>,
    work: &mut Work,
    errors: &[(String, Error)],
) {
    for (slot, entry) in &mut work.to {
        let Some(target) = target(route, slot) else { continue };
        let was = before.get(slot).and_then(|entry| entry.at);
        if entry.at.is_some() && entry.at != was {
            target.breaker.answered();
        }
    }
    for (slot, error) in errors {
        let Some(target) = target(route, slot) else { continue };
        if is_about_the_destination(error) {
            target.breaker.failed(error, Instant::now(), &route.retry, rand::random());
        } else {
            target.breaker.answered();
        }
        if let Some(entry) = work.to.get_mut(slot) {
            entry.answers = target.breaker.answers();
        }
    }
}

/// The destination behind `rule/name`.
fn target<'a>(route: &'a Route, slot: &str) -> Option<&'a Arc<Target>> {
    let (rule, name) = slot.split_once('/')?;
    let of_rule = route.rules.position(rule).and_then(|at| route.targets.get(at));
    match of_rule {
        Some(targets) => targets.iter().find(|target| &*target.name == name),
        None => route.all_targets().find(|target| &*target.name == name),
    }
}
