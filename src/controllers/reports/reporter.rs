//! The reporter of one session: reads what happened from the change feed into the outboxes of the workspaces, and tells it.
//!
//! An entry of the feed is in its outbox before the position passes it, and leaves it when the other system has it. So whatever the operator
//! dies at, each event is told at least once, with the same id, and in order.

mod feed;
mod telling;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, oneshot};
use tracing::{debug, info};

use super::Reports;
use crate::api::SecureWorkspace;
use crate::api::report::{ReportEvent, ReportSpec, ReportStatus};
use crate::controllers::context::Context;
use crate::error::{Error, Result};
use crate::file360::feature::{Feature, Level};
use crate::hex::hex;
use crate::outbound::http::Target;
use crate::outbound::secrets::References;
use crate::reconcile::ObjectKey;
use crate::reconcile::queue::Queue;
use crate::reports::mailbox::Mailbox;
use crate::reports::outbox::{Maker, Outbox};
use crate::routes::ledger::read_documents;
use crate::session::Session;
use feed::Position;

/// Calls at once, of all workspaces of a Connection.
const WORKERS: usize = 16;

/// Whether the tenant has what reports need: a feed, and a place for what waits.
pub fn can_report(session: &Arc<Session>) -> bool {
    missing_feature(session).is_none()
}

/// What the tenant lacks for reports.
pub fn missing_feature(session: &Session) -> Option<Feature> {
    let needed = [Feature::Changes, Feature::ClientState];
    needed.into_iter().find(|feature| session.enforcement.level(*feature) != Level::Native)
}

/// See the module.
pub struct Reporter {
    reports: Arc<Reports>,
    session: Arc<Session>,
    prefix: String,
    began: OnceCell<()>,
    /// Where the feed goes on; taken by the one who reads it.
    start: Mutex<Option<Position>>,
    boxes: Mutex<HashMap<Box<str>, Arc<Mailbox>>>,
    /// `workspace/sink`, or `workspace/` for its status.
    queue: Queue,
    targets: Mutex<HashMap<[u8; 16], Arc<Target>>>,
    /// Secrets are read at most once a minute: who reads them is kept.
    references: Mutex<HashMap<String, Arc<dyn References>>>,
    cleared_out: AtomicBool,
    ended: AtomicBool,
    /// Who waits until a workspace has told everything.
    awaited: Mutex<HashMap<Box<str>, Vec<oneshot::Sender<()>>>>,
}

/// What a resource declares, once its workspace is as declared.
pub struct Declaration<'a> {
    /// The resource.
    pub key: &'a ObjectKey,
    /// Its uid.
    pub uid: &'a str,
    /// Its generation.
    pub generation: i64,
    /// Somebody asked for a pass, or the spec changed: what waits is tried now.
    pub asked: bool,
    /// Its reports.
    pub specs: &'a [ReportSpec],
    /// The workspace.
    pub workspace: &'a str,
    /// Where people open it.
    pub url: &'a str,
    /// Its revision.
    pub revision: u64,
}

impl Reporter {
    /// Starts one. It ends with the session.
    pub fn start(reports: Arc<Reports>, connection: &ObjectKey, session: Arc<Session>) -> Arc<Self> {
        let name = format!("{}/{connection}", session.cluster_id);
        let this = Arc::new(Self {
            prefix: format!("report/{}/", hex(&Sha256::digest(name)[..8])),
            reports,
            session,
            began: OnceCell::new(),
            start: Mutex::default(),
            boxes: Mutex::default(),
            queue: Queue::new(WORKERS),
            targets: Mutex::default(),
            references: Mutex::default(),
            cleared_out: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            awaited: Mutex::default(),
        });
        let task = this.clone();
        tokio::spawn(async move {
            let shutdown = task.reports.ctx.upgrade().map(|ctx| ctx.shutdown.clone()).unwrap_or_default();
            tokio::select! {
                () = task.session.stop.cancelled() => {}
                () = shutdown.cancelled() => {}
                () = task.work() => {}
            }
            task.queue.close();
            task.uncount();
            task.ended.store(true, Ordering::Release);
            debug!("The reporter of a Connection ended");
        });
        this
    }

    /// Whether it is the reporter of this session.
    pub fn is_of(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(&self.session, session) && !self.has_ended()
    }

    /// Whether it ended with its session.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    async fn work(self: &Arc<Self>) {
        let workers: Vec<_> = (0..WORKERS).map(|_| self.clone().do_jobs()).collect();
        tokio::join!(self.read(), futures::future::join_all(workers));
    }

    async fn do_jobs(self: Arc<Self>) {
        while let Some(key) = self.queue.next().await {
            Box::pin(self.job(&key)).await;
            self.queue.done(&key);
        }
    }

    /// Finds out where the feed goes on and what waits. From then on nothing that happens to a declared workspace is missed.
    pub async fn begin(&self) -> Result<()> {
        let began = self.began.get_or_try_init(|| async {
            let position = self.find_position().await?;
            let mut waiting = Vec::new();
            let prefix = self.outboxes();
            read_documents(&*self.session.driver, &prefix, |key, value| {
                let (Some(workspace), Ok(outbox)) = (key.strip_prefix(&prefix), serde_json::from_value::<Outbox>(value))
                else {
                    return;
                };
                let mailbox = self.mailbox(workspace);
                mailbox.saw(&outbox);
                self.count(mailbox.known.lock().uncounted());
                waiting.extend(outbox.waiting().into_iter().map(|sink| job_key(&outbox.namespace, workspace, &sink)));
            })
            .await?;
            *self.start.lock() = Some(position);
            waiting.into_iter().for_each(|key| self.queue.push(key));
            Ok(())
        });
        began.await.map_err(|error: Error| error.while_doing("begin to report"))?;
        Ok(())
    }

    fn outboxes(&self) -> String {
        format!("{}workspace/", self.prefix)
    }

    fn mailbox(&self, workspace: &str) -> Arc<Mailbox> {
        let mut boxes = self.boxes.lock();
        let new = || Arc::new(Mailbox::new(format!("{}{workspace}", self.outboxes())));
        boxes.entry(workspace.into()).or_insert_with(new).clone()
    }

    fn known(&self, workspace: &str) -> Option<Arc<Mailbox>> {
        self.boxes.lock().get(workspace).cloned()
    }

    /// Brings the outbox of a workspace to what its resource declares. When this returns, everything that happens from now on is told.
    pub async fn declare(&self, declaration: &Declaration<'_>) -> Result<()> {
        let Declaration { key, uid, generation, asked, specs, workspace, url, revision } = *declaration;
        if specs.is_empty() {
            return self.close(workspace).await;
        }
        let mailbox = self.mailbox(workspace);
        if asked {
            self.reports.retry_now(&key.namespace);
            mailbox.known.lock().reported = None;
        }
        let is_known = mailbox.known.lock().generation == Some(generation);
        if !is_known || asked {
            // Whoever reads the feed waits for the write below, instead of passing over what happens meanwhile.
            mailbox.known.lock().wants |= specs.iter().fold(0, |all, spec| all | crate::reports::outbox::wanted(spec));
            let (series, now) = (format!("{:016x}", rand::random::<u64>()), Timestamp::now());
            let change = |outbox: &mut Option<Outbox>| {
                let maker = || Maker {
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                    uid: uid.to_owned(),
                    url: url.to_owned(),
                    series: series.clone(),
                    revision,
                };
                let outbox = outbox.get_or_insert_with(|| Outbox::new(maker()));
                (outbox.namespace, outbox.name) = (key.namespace.to_string(), key.name.to_string());
                (outbox.uid, outbox.url) = (uid.to_owned(), url.to_owned());
                outbox.declare(specs, now);
                mailbox.status(outbox)
            };
            let status = self.with(&mailbox, change).await?;
            mailbox.known.lock().generation = Some(generation);
            self.plan_status(key, workspace, &mailbox, &status);
        }
        if mailbox.known.lock().pending > 0 {
            specs.iter().for_each(|spec| self.queue.push(job_key(&key.namespace, workspace, &spec.name)));
        }
        Ok(())
    }

    /// Takes in a state of the resource, unless it was the last that was taken in: it is told once, also when this is called again after a crash.
    pub async fn tell(&self, workspace: &str, event: ReportEvent, facts: Option<serde_json::Value>) -> Result<()> {
        let Some(mailbox) = self.known(workspace) else { return Ok(()) };
        let fingerprint = hex(&Sha256::digest(facts.as_ref().map(ToString::to_string).unwrap_or_default())[..16]);
        let now = Timestamp::now();
        let change = |outbox: &mut Option<Outbox>| {
            let outbox = outbox.as_mut()?;
            outbox.tell_state(event, &fingerprint, facts.clone(), now);
            Some((outbox.namespace.clone(), outbox.waiting()))
        };
        if let Some((namespace, waiting)) = self.with(&mailbox, change).await? {
            waiting.iter().for_each(|sink| self.queue.push(job_key(&namespace, workspace, sink)));
        }
        Ok(())
    }

    /// What a workspace still has to tell, by sink, with the last error; empty: nothing. Waits a moment for it to become nothing.
    pub async fn unsaid(&self, workspace: &str, patience: Duration) -> Result<Vec<ReportStatus>> {
        let Some(mailbox) = self.known(workspace) else { return Ok(Vec::new()) };
        let (told, all_told) = oneshot::channel();
        {
            let mut awaited = self.awaited.lock();
            let waiting = awaited.entry(workspace.into()).or_default();
            waiting.retain(|told| !told.is_closed());
            waiting.push(told);
        }
        let waiting = self.waiting(&mailbox).await?;
        if waiting.is_empty() {
            return Ok(waiting);
        }
        let _ = tokio::time::timeout(patience, all_told).await;
        self.waiting(&mailbox).await
    }

    async fn waiting(&self, mailbox: &Mailbox) -> Result<Vec<ReportStatus>> {
        let status =
            self.with(mailbox, |outbox: &mut Option<Outbox>| outbox.as_ref().map(|outbox| mailbox.status(outbox))).await?;
        Ok(status.unwrap_or_default().into_iter().filter(|sink| sink.pending > 0).collect())
    }

    /// Nothing of a workspace is told any more; what waits goes.
    pub async fn close(&self, workspace: &str) -> Result<()> {
        let mailbox = self.mailbox(workspace);
        self.with(&mailbox, |outbox: &mut Option<Outbox>| *outbox = None).await?;
        self.boxes.lock().remove(workspace);
        Ok(())
    }

    /// The workspaces of a resource that have an outbox.
    pub fn workspaces_of(&self, key: &ObjectKey) -> Vec<Box<str>> {
        let boxes = self.boxes.lock();
        let of_it = boxes.iter().filter(|(_, mailbox)| mailbox.known.lock().owner.as_ref() == Some(key));
        of_it.map(|(workspace, _)| workspace.clone()).collect()
    }

    /// A resource is gone for good.
    pub fn forget(self: &Arc<Self>, key: &ObjectKey) {
        for workspace in self.workspaces_of(key) {
            let this = self.clone();
            tokio::spawn(async move {
                if let Err(error) = this.close(&workspace).await {
                    debug!(%error, "The outbox of a resource that is gone stays until the next start");
                }
            });
        }
    }

    /// Once all resources are known, outboxes without one are removed: their resource went while nobody looked.
    pub fn may_clear_out(self: &Arc<Self>) {
        if self.began.initialized() && !self.cleared_out.swap(true, Ordering::AcqRel) {
            let this = self.clone();
            tokio::spawn(async move { this.clear_out().await });
        }
    }

    async fn clear_out(&self) {
        let Some(ctx) = self.reports.ctx.upgrade() else { return };
        let boxes: Vec<_> = self.boxes.lock().iter().map(|(id, mailbox)| (id.clone(), mailbox.clone())).collect();
        for (workspace, mailbox) in boxes {
            let Some(owner) = mailbox.known.lock().owner.clone() else { continue };
            let is_elsewhere = ctx.namespace.as_deref().is_some_and(|own| own != &*owner.namespace);
            if is_elsewhere || self.reports.is_declared(&owner) {
                continue;
            }
            // C5: only what the API server itself says is gone is gone.
            let gone = match object(&ctx, &owner).await {
                Ok(object) => object.is_none_or(|object| object.spec.report.is_none_or(|report| report.is_empty())),
                Err(_) => false,
            };
            if gone && self.close(&workspace).await.is_ok() {
                info!(object = %owner, "Removed what a resource that is gone had to report");
            }
        }
    }

    /// Changes an outbox and keeps the number of waiting events.
    async fn with<T>(&self, mailbox: &Mailbox, change: impl Fn(&mut Option<Outbox>) -> T) -> Result<T> {
        let result = mailbox.with(&*self.session.driver, change).await;
        let more = mailbox.known.lock().uncounted();
        self.count(more);
        result
    }

    /// Takes what waits here out of the metric: another reporter may go on with it.
    fn uncount(&self) {
        let less = self.boxes.lock().values().map(|mailbox| mailbox.known.lock().uncount()).sum();
        self.count(less);
    }

    fn count(&self, more: i64) {
        if let Some(ctx) = self.reports.ctx.upgrade() {
            ctx.metrics.report_pending.inc_by(more);
        }
    }
}

fn job_key(namespace: &str, workspace: &str, sink: &str) -> ObjectKey {
    ObjectKey::new(namespace, &format!("{workspace}/{sink}"))
}

async fn object(ctx: &Context, key: &ObjectKey) -> Result<Option<SecureWorkspace>> {
    let api: Api<SecureWorkspace> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let found = api.get_opt(&key.name).await?;
    Ok(found.filter(|object| object.uid().is_some()))
}
