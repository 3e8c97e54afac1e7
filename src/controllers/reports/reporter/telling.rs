//! Tells what is due, and writes how far that is.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Reporter, job_key, object};
use crate::api::SecureWorkspace;
use crate::api::report::{ReportEvent, ReportSpec, ReportStatus};
use crate::controllers::context::Context;
use crate::controllers::secure_workspace::status::is_suspended;
use crate::error::{Error, Kind, Result};
use crate::outbound::http::Target;
use crate::reconcile::{ObjectKey, backoff, publish};
use crate::reports::event::{self, Looked};
use crate::reports::hosts::pause;
use crate::reports::mailbox::Mailbox;
use crate::reports::outbox::{About, Due, Outbox};

/// Numbers alone are written at most this often.
const NUMBERS_EVERY: Duration = Duration::from_mins(1);
/// What changed important is written this much later, so that several changes come together.
const SOON: Duration = Duration::from_millis(200);
/// Compiled calls that are kept.
const MOST_TARGETS: usize = 256;

impl Reporter {
    /// Does one piece of work.
    pub(super) async fn job(&self, key: &ObjectKey) {
        let Some(ctx) = self.reports.ctx.upgrade() else { return };
        let Some((workspace, sink)) = key.name.split_once('/') else { return };
        let Some(mailbox) = self.known(workspace) else { return };
        let job = Job { reporter: self, ctx: &ctx, workspace, mailbox: &mailbox };
        let result = if sink.is_empty() { job.write_status().await.map(|()| None) } else { job.deliver(sink).await };
        match result {
            Ok(None) => {}
            Ok(Some(again)) => self.queue.push_after(key.clone(), again),
            Err(error) => {
                debug!(%error, workspace, "What is to be reported could not be looked at; trying again");
                self.queue.push_after(key.clone(), error.retry_after.unwrap_or_else(|| pause(1)));
            }
        }
    }

    /// Plans the next status: soon when something important changed, else once a minute.
    pub(super) fn plan_status(&self, owner: &ObjectKey, workspace: &str, mailbox: &Mailbox, now: &[ReportStatus]) {
        let troubles = |all: &[ReportStatus]| -> Vec<(String, bool)> {
            all.iter().map(|one| (one.name.clone(), one.last_error.is_some())).collect()
        };
        let wait = match &mailbox.known.lock().reported {
            Some((last, _)) if last == now => return,
            Some((last, at)) if troubles(last) == troubles(now) => NUMBERS_EVERY.saturating_sub(at.elapsed()).max(SOON),
            _ => SOON,
        };
        self.queue.push_after(job_key(&owner.namespace, workspace, ""), wait);
    }

    /// The compiled call of a report. Workspaces of a namespace that declare the same share it, with its tokens.
    fn target(&self, namespace: &str, spec: &ReportSpec) -> Result<Arc<Target>> {
        let declared = serde_json::to_string(&spec.http).unwrap_or_default();
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&Sha256::digest(format!("{namespace}\u{0}{declared}"))[..16]);
        let mut targets = self.targets.lock();
        if let Some(known) = targets.get(&fingerprint) {
            return Ok(known.clone());
        }
        if targets.len() >= MOST_TARGETS {
            targets.clear();
        }
        let surroundings = self.reports.surroundings(namespace);
        self.references.lock().insert(namespace.to_owned(), surroundings.references.clone());
        let target = event::compile(spec, &surroundings)
            .map_err(|invalid| Error::new(Kind::Rejected, format!("spec.report[{}].{invalid}", spec.name)))?;
        let target = Arc::new(target);
        targets.insert(fingerprint, target.clone());
        Ok(target)
    }
}

/// One piece of work on one workspace.
struct Job<'a> {
    reporter: &'a Reporter,
    ctx: &'a Context,
    workspace: &'a str,
    mailbox: &'a Mailbox,
}

impl Job<'_> {
    /// Tells a sink what is due, one after the other, until nothing is left or a try fails. Returns when to try again.
    async fn deliver(&self, sink: &str) -> Result<Option<Duration>> {
        let Some(owner) = self.mailbox.known.lock().owner.clone() else { return Ok(None) };
        let Some(object) = object(self.ctx, &owner).await? else { return Ok(None) };
        let Some(spec) = object.spec.report.iter().flatten().find(|spec| spec.name == sink) else { return Ok(None) };
        // `suspend` keeps what happens; the pass that ends it has it told.
        if is_suspended(&object, self.ctx.now()) && object.metadata.deletion_timestamp.is_none() {
            return Ok(None);
        }
        let target = match self.reporter.target(&owner.namespace, spec) {
            Ok(target) => target,
            Err(error) => return self.failed(&object, &owner, sink, None, &error).await.map(Some),
        };
        let mut again = None;
        while let Some((due, about)) = self.due(sink).await? {
            if let Err(wait) = self.reporter.reports.hosts.enter(&owner.namespace, &spec.http.url) {
                again = Some(wait + backoff::jittered(SOON));
                break;
            }
            let looked = self.look_up(&due).await?;
            let told = event::telling(&object, &self.ctx.cluster_id, &about, sink, &due, &looked);
            let sent = match target.document(&told.variables, || told.envelope.structured(told.extensions, told.data)) {
                Ok(body) => target.send(&told.variables, body, &told.key).await,
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                return self.failed(&object, &owner, sink, Some(&spec.http.url), &error).await.map(Some);
            }
            self.reporter.reports.hosts.is_here(&owner.namespace, &spec.http.url);
            self.acknowledge(sink, &due).await?;
        }
        self.progressed(&owner).await?;
        Ok(again)
    }

    async fn due(&self, sink: &str) -> Result<Option<(Due, About)>> {
        let due = |outbox: &mut Option<Outbox>| {
            let outbox = outbox.as_ref()?;
            Some((outbox.due(sink)?, outbox.about(self.workspace)))
        };
        self.reporter.with(self.mailbox, due).await
    }

    async fn acknowledge(&self, sink: &str, due: &Due) -> Result<()> {
        let now = Timestamp::now();
        self.mailbox.succeeded(sink);
        let acknowledge = |outbox: &mut Option<Outbox>| {
            if let Some(outbox) = outbox {
                outbox.acknowledge(sink, due, now);
            }
        };
        self.reporter.with(self.mailbox, acknowledge).await?;
        match due {
            Due::Entry(_) => self.ctx.metrics.report_delivered(),
            Due::Missed(missed) => self.ctx.metrics.report_missed(missed.count),
        }
        Ok(())
    }

    /// Notes a failure; when to try again.
    async fn failed(
        &self,
        object: &SecureWorkspace,
        owner: &ObjectKey,
        sink: &str,
        host: Option<&str>,
        error: &Error,
    ) -> Result<Duration> {
        let failures = self.mailbox.failed(sink, error);
        self.ctx.metrics.report_failed(error.kind.as_str());
        let is_away = matches!(error.kind, Kind::Unavailable | Kind::Tls | Kind::RateLimited);
        let hosts = &self.reporter.reports.hosts;
        let wait = match host {
            Some(host) if is_away => hosts.is_away(&owner.namespace, host, error.retry_after),
            host => {
                host.into_iter().for_each(|host| hosts.is_here(&owner.namespace, host));
                error.retry_after.unwrap_or_else(|| pause(failures))
            }
        };
        warn!(object = %owner, sink, %error, failures, "A report could not be delivered; trying again");
        // That a system is away is its own news, and thousands of workspaces would say the same. A refusal is about this one.
        if failures == 1 && !is_away {
            let note = format!("Report {sink}: {error}. It is tried again; what happens meanwhile is kept.");
            self.ctx.event(object, true, "ReportFailing", &note).await;
        }
        self.progressed(owner).await?;
        Ok(wait)
    }

    /// Reads what an event is about. What is gone is told by what the feed said.
    async fn look_up(&self, due: &Due) -> Result<Looked> {
        let Due::Entry(entry) = due else { return Ok(Looked::default()) };
        let (what, driver) = (&entry.what, &self.reporter.session.driver);
        let mut looked = Looked::default();
        match (what.event, &what.item) {
            (ReportEvent::AccessChanged, _) => {
                let there = driver.members(self.workspace).await;
                let path = what.path.as_deref().unwrap_or("/");
                looked.member = present(there)?.and_then(|members| {
                    let mut members = members.value.into_iter();
                    members.find(|one| Some(&one.principal_id) == what.subject.as_ref() && one.path == path)
                });
            }
            (ReportEvent::FileDeleted, _) | (_, None) => {}
            (event, Some(item)) => {
                looked.item = present(driver.item(item).await)?.flatten();
                if event == ReportEvent::FileShared {
                    let mut links = self.reporter.links(self.workspace).await?.into_iter();
                    looked.link = links.find(|link| Some(&link.id) == what.subject.as_ref());
                }
            }
        }
        Ok(looked)
    }

    async fn progressed(&self, owner: &ObjectKey) -> Result<()> {
        let status =
            |outbox: &mut Option<Outbox>| outbox.as_ref().map(|outbox| (self.mailbox.status(outbox), outbox.is_empty()));
        let Some((status, is_empty)) = self.reporter.with(self.mailbox, status).await? else { return Ok(()) };
        self.reporter.plan_status(owner, self.workspace, self.mailbox, &status);
        if is_empty && let Some(waiting) = self.reporter.awaited.lock().remove(self.workspace) {
            for told in waiting {
                // Who gave up waiting is not told.
                let _ = told.send(());
            }
            self.reporter.reports.wake(owner);
        }
        Ok(())
    }

    async fn write_status(&self) -> Result<()> {
        let Some(owner) = self.mailbox.known.lock().owner.clone() else { return Ok(()) };
        let status = |outbox: &mut Option<Outbox>| outbox.as_ref().map(|outbox| self.mailbox.status(outbox));
        let Some(reports) = self.reporter.with(self.mailbox, status).await? else { return Ok(()) };
        let Some(object) = object(self.ctx, &owner).await? else { return Ok(()) };
        let mut next = object.status.clone().unwrap_or_default();
        next.reports.clone_from(&reports);
        let write = publish::publish(&self.ctx.client, &object, object.status.as_ref(), &next);
        match self.ctx.gate.write(&owner.namespace, write).await {
            Ok(Some(_)) => self.ctx.metrics.status_written("SecureWorkspace"),
            Ok(None) => {}
            Err(error) if error.kind == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error.while_doing("write how far the reports are")),
        }
        self.mailbox.known.lock().reported = Some((reports, Instant::now()));
        Ok(())
    }
}

fn present<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
