//! Approval: whoever needs a decision makes one here and hears of its end; this controller counts votes, looks at the clock, and decides.
//!
//! An Approval is found again by its name, which follows from its subject alone ([`name_of`]): however often it is asked for, and by whomever,
//! there is one. What follows from a decision is the asker's: it carries the decision out and records the evidence ([`Approvals::carried_out`]).

pub mod status;
pub mod tally;
pub mod verified;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::api::approval::{ApprovalDecision, ApprovalSpec, ApprovalStatus, Evidence};
use crate::api::{Approval, Connection};
use crate::controllers::context::Context;
use crate::controllers::until;
use crate::error::{Error, Kind, Result, clean};
use crate::hex::hex;
use crate::reconcile::publish::{MANAGER, difference};
use crate::reconcile::queue::Queue;
use crate::reconcile::{ObjectKey, backoff};
use status::Judged;
use tally::{Electorate, Made};
use verified::Verifier;

const KIND: &str = "Approval";
const DAY: Duration = Duration::from_hours(24);
/// Passes at once.
const WORKERS: usize = 4;
/// How often a status is written again after somebody else wrote at the same time.
const TRIES: usize = 8;
/// Whoever listens and is behind by more than this looks at everything.
const BEHIND: usize = 1024;

/// All Approvals that this operator looks after.
pub struct Approvals {
    ctx: Arc<Context>,
    queue: Queue,
    known: Mutex<HashMap<ObjectKey, Arc<Approval>>>,
    listed: AtomicBool,
    news: broadcast::Sender<ObjectKey>,
    verifier: Verifier,
}

/// The name of the Approval about a subject. Two subjects never share one; one that is asked for again has the same.
pub fn name_of(spec: &ApprovalSpec) -> String {
    let mut hash = Sha256::new();
    let subject = serde_json::to_value(&spec.subject).map(|mut subject| {
        // Where it was is for people; it may move while it waits.
        subject.as_object_mut().map(|members| members.remove("path"));
        subject.to_string()
    });
    let parts = [
        &spec.connection_ref.name,
        spec.connection_ref.namespace.as_deref().unwrap_or_default(),
        spec.route.as_deref().unwrap_or_default(),
        spec.requirement.as_deref().unwrap_or_default(),
        spec.workspace.as_deref().filter(|_| spec.requirement.is_some()).unwrap_or_default(),
        &subject.unwrap_or_default(),
    ];
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("{}-{}", prefix(spec), hex(&hash.finalize()[..12]))
}

fn prefix(spec: &ApprovalSpec) -> &'static str {
    use crate::api::approval::SubjectKind::{Deletion, Disposition, Document, FileVersion, HoldRelease, Reduction, Share};
    match spec.subject.kind {
        FileVersion => "file",
        Share => "share",
        Deletion => "deletion",
        Disposition => "disposition",
        HoldRelease => "hold-release",
        Reduction => "reduction",
        Document => "document",
    }
}

/// The decision of an Approval, if there is one.
pub fn decision_of(approval: &Approval) -> Option<ApprovalDecision> {
    approval.status.as_ref().and_then(|status| status.decision)
}

/// Whether its decision has been carried out.
pub fn is_carried_out(approval: &Approval) -> bool {
    approval.status.as_ref().is_some_and(|status| status.evidence.is_some())
}

impl Approvals {
    /// Nothing runs before [`Approvals::run`].
    pub fn new(ctx: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            verifier: Verifier::new(ctx.clone()),
            ctx,
            queue: Queue::new(WORKERS),
            known: Mutex::default(),
            listed: AtomicBool::new(false),
            news: broadcast::Sender::new(BEHIND),
        })
    }

    /// Watches and decides until the task is dropped.
    pub async fn run(self: Arc<Self>) {
        let workers = (0..WORKERS).map(|_| {
            let this = self.clone();
            async move {
                while let Some(key) = this.queue.next().await {
                    this.pass(&key).await;
                    this.queue.done(&key);
                    this.ctx.metrics.set_queue_depth(KIND, this.queue.len());
                }
            }
        });
        let work = async { tokio::join!(self.watch(), self.watch_the_policy(), futures::future::join_all(workers)) };
        tokio::select! {
            _ = work => {}
            () = self.ctx.shutdown.cancelled() => self.queue.close(),
        }
    }

    /// Whether the first listing is complete. Before that, one that is not known may exist.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// What changes from now on. One who is behind looks at everything.
    pub fn news(&self) -> broadcast::Receiver<ObjectKey> {
        self.news.subscribe()
    }

    /// One of them, as last seen.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Approval>> {
        self.known.lock().get(key).cloned()
    }

    /// Those that fit, as last seen.
    pub fn all_where(&self, fits: impl Fn(&Approval) -> bool) -> Vec<Arc<Approval>> {
        self.known.lock().values().filter(|approval| fits(approval)).cloned().collect()
    }

    /// The Approval about the subject of `spec` in `namespace`: made if there is none. One that exists stays as it is, whatever else `spec` says.
    pub async fn ensure(&self, namespace: &str, spec: &ApprovalSpec) -> Result<Arc<Approval>> {
        let key = ObjectKey::new(namespace, &name_of(spec));
        if let Some(known) = self.get(&key) {
            return Ok(known);
        }
        let object = Approval {
            metadata: ObjectMeta { name: Some(key.name.to_string()), ..ObjectMeta::default() },
            spec: spec.clone(),
            status: None,
        };
        let api = self.api(&key);
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let made = match api.create(&params, &object).await {
            Ok(made) => {
                info!(object = %key, "Asks for a decision");
                self.ctx.event(&made, false, "DecisionNeeded", &status::asks(spec)).await;
                made
            }
            Err(kube::Error::Api(refused)) if refused.code == 409 => {
                let found = api.get(&key.name).await?;
                if !asks_the_same(&found.spec, spec) {
                    let why =
                        format!("the Approval {key} is there and asks something else; it is not the operator's: delete it");
                    return Err(Error::new(Kind::Conflict, why));
                }
                found
            }
            Err(error) => return Err(Error::from(error).while_doing("make an Approval")),
        };
        Ok(self.saw(made))
    }

    /// Decides, unless it is decided: the decision that stands. For what follows from elsewhere than votes, such as a subject that changed.
    pub async fn decide(&self, key: &ObjectKey, made: &Made) -> Result<Arc<Approval>> {
        let now = self.ctx.now();
        let written = self.write(key, |_, status| status::decide(status, made, now)).await?;
        if let Some(decision) = decision_of(&written) {
            debug!(object = %key, ?decision, "Decided");
        }
        Ok(written)
    }

    /// Ends a decision that could not take effect, because what it was about changed before.
    pub async fn overtaken(&self, key: &ObjectKey) -> Result<Arc<Approval>> {
        self.write(key, |_, status| status::overtake(status)).await
    }

    /// Whether an approval may take effect. While the policy is in force, nobody but the operator writes decisions. Without it, anybody who may write
    /// the status may have: then only what follows once more from what was signed or polled counts. The policy is looked at right before.
    pub async fn is_believed(&self, approval: &Approval) -> bool {
        if self.verifier.looks_in_force().await {
            return true;
        }
        let Some(connection) = self.connection(&ObjectKey::of(approval), &approval.spec) else { return false };
        let principals = connection.spec.principals.clone().unwrap_or_default();
        let electorate = Electorate { principals: &principals, is_verified: false };
        let votes = approval.status.as_ref().map_or(&[][..], |status| &status.votes);
        let (_, made) = tally::judge(&approval.spec, votes, electorate, self.ctx.now());
        let is_believed = made.map(|made| made.decision) == decision_of(approval);
        if !is_believed {
            warn!(object = %ObjectKey::of(approval), "Held: nothing proves its decision while the policy for votes is not in force");
        }
        is_believed
    }

    /// Notes that the decision has been carried out, with the digest of what File 360 keeps about it.
    pub async fn carried_out(&self, key: &ObjectKey, kept: &(impl Serialize + Sync)) -> Result<Arc<Approval>> {
        let now = self.ctx.now();
        let text = serde_json::to_vec(kept).unwrap_or_default();
        let evidence = Evidence { sha256: hex(&Sha256::digest(text)), recorded_at: Some(now) };
        self.write(key, |object, status| {
            status.evidence.get_or_insert_with(|| evidence.clone());
            status.refusal = None;
            status::describe(object, status, None, now);
        })
        .await
    }

    /// Notes why File 360 refuses what follows from the decision.
    pub async fn refused(&self, key: &ObjectKey, why: &str) -> Result<()> {
        let now = self.ctx.now();
        let written = self.write(key, |object, status| {
            status.refusal = Some(clean(why, 512));
            status::describe(object, status, None, now);
        });
        written.await.map(drop)
    }

    /// Changes the status; tried again when somebody else wrote at the same time, so that no vote is lost. Nothing is written when nothing
    /// changes.
    pub async fn write(&self, key: &ObjectKey, change: impl Fn(&Approval, &mut ApprovalStatus)) -> Result<Arc<Approval>> {
        let mut object = match self.get(key) {
            Some(known) => known,
            None => Arc::new(self.api(key).get(&key.name).await?),
        };
        for _ in 0..TRIES {
            match write_once(&self.ctx.client, key, &object, &change).await {
                Ok(None) => return Ok(object),
                Ok(Some(written)) => {
                    self.ctx.metrics.status_written(KIND);
                    return Ok(self.saw(written));
                }
                Err(error) if error.code == "Conflict" => object = Arc::new(self.api(key).get(&key.name).await?),
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Kind::Stale, "somebody else keeps writing the Approval at the same time"))
    }

    fn api(&self, key: &ObjectKey) -> Api<Approval> {
        Api::namespaced(self.ctx.client.clone(), &key.namespace)
    }

    async fn watch(&self) {
        self.ctx.readiness.waits("approvals", "the first listing");
        let api: Api<Approval> = crate::controllers::api_of(&self.ctx);
        let mut events = std::pin::pin!(crate::controllers::watch(api));
        let mut listing = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(object)) => {
                    listing.insert(ObjectKey::of(&object));
                    self.saw(object);
                }
                Ok(Event::InitDone) => {
                    self.known.lock().retain(|key, _| listing.contains(key));
                    self.listed.store(true, Ordering::Release);
                    self.ctx.readiness.is_ready("approvals");
                }
                Ok(Event::Apply(object)) => drop(self.saw(object)),
                Ok(Event::Delete(object)) => {
                    let key = ObjectKey::of(&object);
                    self.queue.cancel(&key);
                    self.known.lock().remove(&key);
                    let _ = self.news.send(key);
                }
                Err(error) => warn!(%error, "The watch of Approvals failed; it starts again"),
            }
        }
    }

    /// Votes may count from now on, or not any more.
    async fn watch_the_policy(&self) {
        loop {
            if self.verifier.look().await {
                let open = self.all_where(|approval| decision_of(approval).is_none());
                open.iter().for_each(|approval| self.queue.push(ObjectKey::of(&**approval)));
            }
            tokio::time::sleep(backoff::jittered(self.ctx.tuning.secret_interval)).await;
        }
    }

    /// Takes up a version, unless a later one is known; returns the latest.
    fn saw(&self, mut object: Approval) -> Arc<Approval> {
        object.metadata.managed_fields = None;
        let key = ObjectKey::of(&object);
        let object = Arc::new(object);
        {
            let mut known = self.known.lock();
            match known.get(&key) {
                Some(last) if last.uid() == object.uid() && version(last) >= version(&object) => return last.clone(),
                _ => known.insert(key.clone(), object.clone()),
            };
        }
        self.queue.push(key.clone());
        // Nobody listens: nobody waits.
        let _ = self.news.send(key);
        object
    }

    async fn pass(&self, key: &ObjectKey) {
        let Some(object) = self.get(key) else { return };
        if object.metadata.deletion_timestamp.is_some() {
            return;
        }
        let started = Instant::now();
        let result = match status::kept_until(&object) {
            Some(at) if at <= self.ctx.now() => self.clean_up(key, &object).await.map(|()| None),
            // A long wait is looked at anew once a day.
            Some(at) => {
                self.judge(key, &object).await.map(|_| Some(until(at, self.ctx.now()).min(DAY) + Duration::from_millis(50)))
            }
            None => self.judge(key, &object).await,
        };
        let outcome = match result {
            Ok(again) => {
                if let Some(again) = again {
                    self.queue.push_after(key.clone(), again);
                }
                "converged"
            }
            Err(error) => {
                warn!(object = %key, %error, "The Approval could not be looked at");
                self.queue.push_after(key.clone(), backoff::jittered(Duration::from_secs(2)));
                error.kind.as_str()
            }
        };
        self.ctx.metrics.pass_ended(KIND, outcome, started.elapsed());
    }

    /// Deletes one whose decision took effect long enough ago, as it was looked at. The audit log of File 360 keeps the decision.
    async fn clean_up(&self, key: &ObjectKey, object: &Approval) -> Result<()> {
        let preconditions = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.api(key).delete(&key.name, &params).await {
            Ok(_) => {
                info!(object = %key, "Its decision took effect long enough ago: deleted");
                Ok(())
            }
            // It changed in the meantime: the watch brings it, and it is looked at again.
            Err(kube::Error::Api(refused)) if matches!(refused.code, 404 | 409) => Ok(()),
            Err(error) => Err(Error::from(error).while_doing("delete an Approval after ttlAfterDecision")),
        }
    }

    /// Counts, looks at the clock, decides; returns when to look again.
    async fn judge(&self, key: &ObjectKey, object: &Approval) -> Result<Option<Duration>> {
        // C5: who is who is not known yet; that is not the same as nobody.
        let Some(connection) = self.connection(key, &object.spec) else {
            let is_open = decision_of(object).is_none();
            return Ok(is_open.then(|| backoff::jittered(Duration::from_secs(2))));
        };
        let principals = connection.spec.principals.clone().unwrap_or_default();
        let is_verified = self.verifier.is_verified();
        let now = self.ctx.now();
        let before = decision_of(object);
        let written = self
            .write(key, |object, status| {
                let electorate = Electorate { principals: &principals, is_verified };
                let (counted, made) = tally::judge(&object.spec, &status.votes, electorate, now);
                if let Some(made) = made {
                    status::decide(status, &made, now);
                }
                status::describe(object, status, Some(&Judged { counted, is_verified }), now);
            })
            .await?;
        if let Some(decision) = decision_of(&written).filter(|_| before.is_none()) {
            let note = status::tells(&written);
            self.ctx.event(&*written, decision != ApprovalDecision::Approved, &format!("{decision:?}"), &note).await;
            return Ok(None);
        }
        let expires = written.spec.expires_at.filter(|_| decision_of(&written).is_none());
        Ok(expires.map(|at| until(at, now) + Duration::from_millis(50)))
    }

    /// The Connection that it names, as far as it is known. Without it nothing is decided: whose vote counts is not known.
    fn connection(&self, key: &ObjectKey, spec: &ApprovalSpec) -> Option<Arc<Connection>> {
        let reference = &spec.connection_ref;
        let key = ObjectKey::new(reference.namespace.as_deref().unwrap_or(&key.namespace), &reference.name);
        self.ctx.sessions.peek(&key).map(|lookup| lookup.connection)
    }

    /// Who is who may have changed, or the Connection became known.
    pub fn connection_changed(&self, connection: &ObjectKey) {
        let open = self.all_where(|approval| {
            let reference = &approval.spec.connection_ref;
            let own = approval.namespace().unwrap_or_default();
            decision_of(approval).is_none()
                && *connection == ObjectKey::new(reference.namespace.as_deref().unwrap_or(&own), &reference.name)
        });
        open.iter().for_each(|approval| self.queue.push(ObjectKey::of(&**approval)));
    }
}

/// Writes what `change` makes of the status, if that is something else, bound to the version that it was made from: of two writers at the same
/// time one is refused with the code `Conflict`. `None`: nothing changes.
pub async fn write_once(
    client: &kube::Client,
    key: &ObjectKey,
    object: &Approval,
    change: &impl Fn(&Approval, &mut ApprovalStatus),
) -> Result<Option<Approval>> {
    let last = object.status.clone().unwrap_or_default();
    let mut next = last.clone();
    change(object, &mut next);
    let (last, next) = (serde_json::to_value(last).unwrap_or_default(), serde_json::to_value(next).unwrap_or_default());
    let Some(difference) = difference(&last, &next) else { return Ok(None) };
    let metadata = json!({"uid": object.uid(), "resourceVersion": object.resource_version()});
    let patch = json!({"metadata": metadata, "status": difference});
    let api: Api<Approval> = Api::namespaced(client.clone(), &key.namespace);
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let written = api.patch_status(&key.name, &params, &Patch::Merge(&patch)).await;
    Ok(Some(written.map_err(|error| Error::from(error).while_doing("write an Approval"))?))
}

/// Whether an Approval could not be made because its namespace is gone or going: nobody can vote there.
pub fn nobody_can_be_asked(error: &Error) -> bool {
    error.kind == Kind::NotFound || error.code == "Forbidden"
}

/// Whether two specs ask the same: when it was asked, until when, and where the file was then do not matter.
fn asks_the_same(found: &ApprovalSpec, wanted: &ApprovalSpec) -> bool {
    let mut same = found.clone();
    same.requested_at = wanted.requested_at;
    same.expires_at = wanted.expires_at;
    same.ttl_after_decision_seconds = wanted.ttl_after_decision_seconds;
    same.subject.path.clone_from(&wanted.subject.path);
    same == *wanted
}

fn version(object: &Approval) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
