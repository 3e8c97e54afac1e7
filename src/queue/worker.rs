//! The worker's side: takes jobs, keeps their leases while it works, publishes what became of them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::PullConsumer;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{RwLock, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::leader::pause;
use super::link::{Link, Links, Settings};
use super::message::{Answer, Handled, Heard, Job, SIGNATURE, published};
use crate::error::{Error, Kind, Result, clean};
use crate::routes::work::{Outcome, Work};
use crate::telemetry::http::Readiness;
use crate::telemetry::metrics::Metrics;

/// One request for jobs waits this long for some.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long jobs may take to end once the worker is asked to.
const DRAIN: Duration = Duration::from_secs(20);

/// Why a job comes back untried.
const STALE: &str = "the job came to the queue long after it was said: is the leader's clock right?";

/// A job that was taken more often than this, and never ended, is tried alone.
const SUSPICIOUS: i64 = 4;
/// A job that was taken more often than this, and never ended, is not tried any more: it may be what ends the workers.
const MOST_TAKEN: i64 = 16;

/// Does what a job says.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Does it. `work` is left as the try left it. `None`: the job is about something that is no more, and nobody waits for it.
    async fn handle(&self, job: &Job, work: &mut Work) -> Option<Handled>;
}

/// Takes jobs and has them done.
pub struct Worker {
    links: Links,
    handler: Arc<dyn Handler>,
    /// Who it is, for people.
    name: String,
    concurrency: usize,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
    /// Jobs that run at once share it; a suspicious one has it alone.
    together: RwLock<()>,
}

/// What is known of the taking of a job.
struct Taken {
    times: i64,
    is_stale: bool,
}

/// A job that was taken, until its lease ends.
struct Lease {
    reply: Subject,
    length: Duration,
}

impl Worker {
    /// At most `concurrency` jobs at once. Ends after `stop`.
    pub fn new(
        settings: Settings,
        handler: Arc<dyn Handler>,
        (name, concurrency): (String, usize),
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let links = Links::new(settings, false);
        Arc::new(Self { links, handler, name, concurrency, metrics, readiness, stop, together: RwLock::default() })
    }

    /// Works until it is stopped; then what it is at ends, or goes back.
    pub async fn run(self: Arc<Self>) {
        let slots = Arc::new(Semaphore::new(self.concurrency));
        let tasks = TaskTracker::new();
        let abandon = CancellationToken::new();
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let taken = tokio::select! {
                taken = self.take(&slots, &tasks, &abandon, &mut failures) => taken,
                () = self.stop.cancelled() => break,
            };
            if let Err(error) = taken {
                failures += 1;
                warn!(%error, failures, "Jobs cannot be taken; trying again");
                self.readiness.waits("queue", &clean(&error.to_string(), 300));
                tokio::select! { () = tokio::time::sleep(pause(failures)) => {}, () = self.stop.cancelled() => {} }
            }
        }
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            info!(jobs = tasks.len(), "Jobs that last too long go back to the queue");
            abandon.cancel();
            tasks.wait().await;
        }
    }

    /// Takes jobs until something fails.
    async fn take(
        self: &Arc<Self>,
        slots: &Arc<Semaphore>,
        tasks: &TaskTracker,
        abandon: &CancellationToken,
        failures: &mut u32,
    ) -> Result<()> {
        let link = self.links.get().await?;
        let result = self.take_from(&link, slots, tasks, abandon, failures).await;
        if result.is_err() {
            self.links.discard(&link).await;
        }
        result
    }

    async fn take_from(
        self: &Arc<Self>,
        link: &Arc<Link>,
        slots: &Arc<Semaphore>,
        tasks: &TaskTracker,
        abandon: &CancellationToken,
        failures: &mut u32,
    ) -> Result<()> {
        let consumer = link.workers().await?;
        let length = consumer.cached_info().config.ack_wait;
        self.readiness.is_ready("queue");
        *failures = 0;
        loop {
            // Nothing is taken before there is a slot for it.
            let first = slots.clone().acquire_owned().await;
            let first = first.map_err(|_| Error::new(Kind::Stopping, "the worker is stopping"))?;
            let mut free = vec![first];
            while let Ok(more) = slots.clone().try_acquire_owned() {
                free.push(more);
            }
            let mut jobs = batch(&consumer, free.len()).await?;
            loop {
                let next = tokio::select! {
                    next = jobs.next() => next,
                    () = link.live.lost.cancelled() => return Err(lost(&"the connection was lost")),
                };
                match next {
                    Some(Ok(message)) => {
                        let (this, slot, abandon) = (self.clone(), free.pop(), abandon.clone());
                        tasks.spawn(async move {
                            this.metrics.worker_busy.inc();
                            this.work_on(message, length, &abandon).await;
                            this.metrics.worker_busy.dec();
                            drop(slot);
                        });
                    }
                    Some(Err(error)) => return Err(lost(&error)),
                    None => break,
                }
            }
        }
    }

    async fn work_on(&self, message: Message, length: Duration, abandon: &CancellationToken) {
        let Some(reply) = message.reply.clone() else { return };
        let signature = message.headers.as_ref().and_then(|headers| headers.get(SIGNATURE));
        let signature = signature.map(|value| value.as_str().to_owned()).unwrap_or_default();
        let job = match self.links.settings.keys.job(&message.subject, &message.payload, &signature) {
            Ok(job) => job,
            Err(error) => {
                warn!(subject = %message.subject, %error, "A job was refused");
                self.metrics.queue_refused.inc();
                self.say(&reply, b"+TERM").await;
                return;
            }
        };
        let Ok(info) = message.info() else { return };
        let heard = Heard {
            taken_at: i64::try_from(info.published.unix_timestamp_nanos()).unwrap_or_default(),
            sequence: info.stream_sequence,
        };
        let taken =
            Taken { times: info.delivered, is_stale: published(&message).is_some_and(|published| job.is_stale(published)) };
        let lease = Lease { reply: reply.clone(), length };
        tokio::select! {
            () = self.finish(&job, heard, &taken, &reply) => {}
            () = self.keep(&lease) => {
                self.metrics.worker_ended("lease_lost");
                warn!(route = job.route.name, "The lease of a job could not be kept: another worker may have it now");
            }
            () = abandon.cancelled() => {
                self.metrics.worker_ended("given_back");
                self.say(&reply, b"-NAK").await;
            }
        }
    }

    /// Does the job, publishes the answer, and only then acknowledges.
    async fn finish(&self, job: &Job, heard: Heard, taken: &Taken, reply: &Subject) {
        let mut work = job.work();
        let handled = if taken.is_stale {
            // Only a leader that wants it says it anew.
            warn!(route = job.route.name, file = %work.path, "A job is too old; the leader is asked to say it again");
            Some(Handled::Tried(Outcome::Hold(Instant::now(), Error::new(Kind::Stale, STALE))))
        } else if taken.times > MOST_TAKEN {
            warn!(route = job.route.name, file = %work.path, times = taken.times, "A job was taken again and again and never ended");
            Some(Handled::Unended(taken.times))
        } else if taken.times > SUSPICIOUS {
            // If it ends this process, it takes no other job with it.
            let _alone = self.together.write().await;
            self.handler.handle(job, &mut work).await
        } else {
            let _together = self.together.read().await;
            self.handler.handle(job, &mut work).await
        };
        let Some(handled) = handled else {
            self.metrics.worker_ended("dropped");
            debug!(route = job.route.name, "A job is about what is no more");
            self.say(reply, b"+TERM").await;
            return;
        };
        self.metrics.worker_ended(told(&handled));
        let answer = Answer::of(&job.id, heard, &self.name, &work, &handled);
        let payload = Bytes::from(serde_json::to_vec(&answer).unwrap_or_default());
        let subject = self.links.settings.names.answer(&job.id);
        let mut failures = 0;
        // Until the lease is lost: then another worker does it again, which is no harm.
        while let Err(error) = self.links.publish(&subject, None, payload.clone()).await {
            failures += 1;
            debug!(%error, failures, "An answer could not be published; trying again");
            tokio::time::sleep(pause(failures)).await;
        }
        self.say(reply, b"+ACK").await;
    }

    /// Says that the job is still being worked on; returns when the lease is lost.
    async fn keep(&self, lease: &Lease) {
        let mut kept = Instant::now();
        let mut wait = lease.length / 3;
        loop {
            tokio::time::sleep(wait).await;
            let left = (lease.length * 9 / 10).saturating_sub(kept.elapsed());
            if left.is_zero() {
                return;
            }
            let asked = Instant::now();
            let said = tokio::time::timeout(left, async {
                let link = self.links.get().await?;
                link.confirm(&lease.reply, b"+WPI").await
            });
            if matches!(said.await, Ok(Ok(()))) {
                kept = asked;
                wait = lease.length / 3;
            } else {
                wait = lease.length / 20;
            }
        }
    }

    /// Says a last word about a message. Unheard, the message comes again, which is no harm.
    async fn say(&self, reply: &Subject, word: &'static [u8]) {
        if let Ok(link) = self.links.get().await
            && let Err(error) = link.confirm(reply, word).await
        {
            debug!(%error, "The server did not confirm the last word about a job");
        }
    }
}

async fn batch(consumer: &PullConsumer, most: usize) -> Result<async_nats::jetstream::consumer::pull::Batch> {
    let jobs = consumer.batch().max_messages(most).expires(PATIENCE).heartbeat(PATIENCE / 3).messages().await;
    jobs.map_err(|error| lost(&error))
}

fn lost(error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Unavailable, clean(&format!("the stream of jobs: {error}"), 300))
}

/// The outcome, for metrics.
fn told(handled: &Handled) -> &'static str {
    match handled {
        Handled::Tried(Outcome::Done(_)) => "done",
        Handled::Tried(Outcome::Dead(_)) => "dead",
        Handled::Tried(Outcome::Wait(..)) => "waits",
        Handled::Tried(Outcome::Nothing) => "nothing",
        Handled::Tried(Outcome::Hold(..)) => "held",
        Handled::Unable(..) => "unable",
        Handled::Unended(_) => "unended",
    }
}
