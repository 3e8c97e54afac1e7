//! The request in the other system: made once, reminded of, asked about, and closed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::ResourceExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{debug, info};

use super::pass::View;
use super::refusals::{AGAIN, is_for_good};
use super::{Gates, Tenant, connection_of};
use crate::api::Approval;
use crate::api::approval::{ApprovalDecision, ApprovalStatus, MOST_VOTES, TicketStatus, Vote, VoteVia};
use crate::controllers::approval::decision_of;
use crate::controllers::until;
use crate::error::{Error, Result, clean};
use crate::expression::Variables;
use crate::hex::hex;
use crate::outbound::cloud_event::{Event, source};
use crate::reconcile::{ObjectKey, backoff};
use crate::routes::environment::example;
use crate::routes::gate::{Gate, Polled, Request, Ticket, with_approval};

/// Calls to other systems at once.
const AT_ONCE: usize = 8;
/// Systems that do not answer are tried again at the latest after this long.
const LONGEST_WAIT: Duration = Duration::from_mins(2);

/// What is to be told: another thing is not refused because one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ask,
    Follow,
    Close,
}

/// A call that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Later {
    stage: Stage,
    failures: u32,
    /// When it is tried again.
    at: Instant,
}

/// An Approval whose gate asks another system.
struct Case {
    approval: Arc<Approval>,
    key: ObjectKey,
    gate: Arc<Gate>,
    variables: Variables,
    data: Value,
}

impl Gates {
    /// Makes the calls that are due; returns when the next one is.
    pub(super) async fn tickets(&self, connection: &ObjectKey, tenant: &Tenant) -> Result<Option<Duration>> {
        if !self.approvals.is_listed() || !self.routes.is_listed() {
            return Ok(Some(Duration::from_millis(200)));
        }
        let register = self.register_of(connection, &tenant.session).await?;
        let view = self.view(connection, tenant, &register);
        let known = self.approvals.all_where(|approval| {
            connection_of(&ObjectKey::of(approval), &approval.spec) == *connection && is_unfinished(approval)
        });
        let view = &view;
        let calls: Vec<BoxFuture<'_, Option<Duration>>> =
            known.into_iter().map(|approval| self.ticket(view, approval).boxed()).collect();
        let waits: Vec<Option<Duration>> = futures::stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
        Ok(waits.into_iter().flatten().min())
    }

    /// One of them; returns when to look again.
    async fn ticket(&self, view: &View<'_>, approval: Arc<Approval>) -> Option<Duration> {
        let key = ObjectKey::of(&*approval);
        let gate = super::carry::gate_of(view, &approval)?;
        let request = gate.request.as_ref()?;
        let (stage, now) = (stage_of(&approval), Instant::now());
        if let Some(later) = self.later.lock().get(&key).filter(|later| later.at > now && later.stage == stage) {
            return Some(later.at.saturating_duration_since(now));
        }
        let (variables, data) = match self.told(view, &approval).await {
            Ok(told) => told,
            Err(error) => {
                debug!(object = %key, %error, "What the Approval is about cannot be read");
                return Some(Duration::from_secs(5));
            }
        };
        let case = Case { approval, key: key.clone(), gate: gate.clone(), variables, data };
        match self.advance(&case, request).await {
            Ok(again) => {
                self.later.lock().remove(&key);
                again
            }
            Err(error) => Some(self.failed(&case, &error).await),
        }
    }

    /// Does what is due: asks, reminds, polls or closes.
    async fn advance(&self, case: &Case, request: &Request) -> Result<Option<Duration>> {
        let now = self.ctx.now();
        let status = case.approval.status.clone().unwrap_or_default();
        let ticket = status.ticket.clone().unwrap_or_default();
        let requested_at = case.approval.spec.requested_at;
        match (status.decision, ticket.created_at) {
            (None, None) => {
                self.ask(case, request).await?;
                Ok(Some(Duration::from_millis(100)))
            }
            (None, Some(_)) => {
                let timeout = case.gate.timeout;
                let due = timeout.map_or(0, |timeout| timeout.reminders_due(requested_at, now));
                if due > ticket.reminders.unwrap_or_default() && request.updates() {
                    self.remind(case, request, due).await?;
                }
                let polled = self.ask_for_decision(case, request).await?;
                let reminder = timeout.and_then(|timeout| timeout.next_reminder(requested_at, now));
                Ok(polled.into_iter().chain(reminder.map(|at| until(at, now) + Duration::from_millis(50))).min())
            }
            (Some(decision), Some(_)) if ticket.closed_at.is_none() && request.updates() => {
                self.close(case, request, decision).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The same key whoever asks and however often: a system that honours it makes one ticket (C2).
    async fn ask(&self, case: &Case, request: &Request) -> Result<()> {
        let (variables, event, data) = self.message(case, "Requested", "requested", &Ticket::default());
        let made = request.ask(&variables, &event, &data, &event.id).await?;
        let now = self.ctx.now();
        self.set_ticket(case, |ticket| {
            ticket.id.clone_from(&made.id);
            ticket.url.clone_from(&made.url);
            ticket.created_at = Some(now);
            works(ticket);
        })
        .await?;
        let id = made.id.as_deref().unwrap_or("without an id");
        info!(object = %case.key, ticket = id, "Asked for a decision");
        self.ctx.event(&*case.approval, false, "TicketCreated", &format!("asked for a decision: ticket {id}")).await;
        Ok(())
    }

    async fn remind(&self, case: &Case, request: &Request, number: u32) -> Result<()> {
        let (variables, mut event, data) = self.message(case, "Reminder", "reminded", &known_ticket(&case.approval));
        event.id = format!("{}-reminder-{number}", event.id);
        request.update(&variables, &event, &data, &event.id).await?;
        self.set_ticket(case, |ticket| {
            ticket.reminders = Some(number);
            works(ticket);
        })
        .await
    }

    async fn close(&self, case: &Case, request: &Request, decision: ApprovalDecision) -> Result<()> {
        let name = format!("{decision:?}");
        let (variables, mut event, data) = self.message(case, &name, "closed", &known_ticket(&case.approval));
        event.id = format!("{}-closed", event.id);
        request.update(&variables, &event, &data, &event.id).await?;
        let now = self.ctx.now();
        self.set_ticket(case, |ticket| {
            ticket.closed_at = Some(now);
            works(ticket);
        })
        .await
    }

    /// Polls when that is due; returns when it is due again.
    async fn ask_for_decision(&self, case: &Case, request: &Request) -> Result<Option<Duration>> {
        let Some(every) = request.polls_every() else { return Ok(None) };
        let last = self.polled.lock().get(&case.key).copied();
        if let Some(rest) = last.and_then(|last| every.checked_sub(last.elapsed())).filter(|rest| !rest.is_zero()) {
            return Ok(Some(rest));
        }
        let (variables, event, _) = self.message(case, "Poll", "polled", &known_ticket(&case.approval));
        // Every look is another: a system that honours keys must not repeat its first answer.
        let key = format!("{}-poll-{}", event.id, self.ctx.now().as_millisecond());
        let polled = request.poll(&variables, &key).await?;
        self.polled.lock().insert(case.key.clone(), Instant::now());
        self.set_ticket(case, works).await?;
        if let Some(Polled { decision, by }) = polled {
            let vote = Vote { by, decision, reason: None, at: self.ctx.now(), via: Some(VoteVia::Poll), id: None };
            self.approvals.write(&case.key, |_, status| cast(status, &vote)).await?;
        }
        Ok(Some(every))
    }

    async fn set_ticket(&self, case: &Case, change: impl Fn(&mut TicketStatus)) -> Result<()> {
        let written = self.approvals.write(&case.key, |_, status| change(status.ticket.get_or_insert_default())).await;
        written.map(drop)
    }

    /// Waits longer with every failure, and says why.
    async fn failed(&self, case: &Case, error: &Error) -> Duration {
        let stage = stage_of(&case.approval);
        let before = self.later.lock().get(&case.key).filter(|later| later.stage == stage).map_or(0, |later| later.failures);
        let failures = before.saturating_add(1);
        let is_refused = is_for_good(error);
        let wait = if is_refused { AGAIN } else { wait_after(failures, error) };
        self.later.lock().insert(case.key.clone(), Later { stage, failures, at: Instant::now() + wait });
        info!(object = %case.key, %error, failures, is_refused, "The system that decides could not be told");
        let text = clean(&error.to_string(), 512);
        let noted = self.set_ticket(case, |ticket| {
            ticket.error = Some(text.clone());
            ticket.refused = is_refused.then_some(true);
        });
        if let Err(error) = noted.await {
            debug!(object = %case.key, %error, "The failure could not be noted");
        }
        wait
    }

    /// What is said: variables, event, data. The id of the event is the idempotency key of the request.
    fn message(&self, case: &Case, what: &str, kind: &str, ticket: &Ticket) -> (Variables, Event, Value) {
        let (spec, status) = (&case.approval.spec, case.approval.status.clone().unwrap_or_default());
        let callback = self.ctx.public_url.as_ref().map(|url| url.callback(&case.key.namespace, &case.key.name));
        let approval = json!({
            "name": &*case.key.name,
            "namespace": &*case.key.namespace,
            "event": what,
            "kind": format!("{:?}", spec.subject.kind),
            "rule": spec.rule,
            "path": spec.subject.path.as_deref().unwrap_or_default(),
            "requestedBy": spec.requested_by.name,
            "requestedAt": spec.requested_at.to_string(),
            "expiresAt": spec.expires_at.map(|at| at.to_string()).unwrap_or_default(),
            "minApprovals": spec.required(),
            "callbackUrl": callback.unwrap_or_default(),
            "decision": status.decision.map(|decision| format!("{decision:?}")).unwrap_or_default(),
            "decidedBy": status.decided_by.unwrap_or_default(),
            "reason": status.reason.unwrap_or_default(),
        });
        let variables = with_approval(&case.variables, &approval, ticket);
        let event = Event {
            kind: format!("io.file360.approval.{kind}"),
            source: source(&[&self.ctx.cluster_id, &case.key.namespace, spec.route.as_deref().unwrap_or_default()]),
            id: self.idempotency_key(&case.key),
            time: spec.requested_at,
            subject: spec.subject.path.clone().unwrap_or_else(|| spec.subject.file_id.clone()),
        };
        let mut data = case.data.clone();
        data["approval"] = approval;
        data["ticket"] = json!({"id": ticket.id, "url": ticket.url});
        (variables, event, data)
    }

    fn idempotency_key(&self, key: &ObjectKey) -> String {
        let mut hash = Sha256::new();
        for part in [&*self.ctx.cluster_id, &*key.namespace, &*key.name] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        format!("approval-{}", hex(&hash.finalize()[..16]))
    }

    /// What expressions see of the thing, and what an event says of it. Of what is gone, the Approval knows enough.
    async fn told(&self, view: &View<'_>, approval: &Approval) -> Result<(Variables, Value)> {
        let subject = &approval.spec.subject;
        let path = subject.path.clone().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut file = json!({
            "id": subject.file_id, "path": path, "name": name, "version": subject.version, "sha256": subject.digest,
        });
        let route = approval.spec.route.as_deref().unwrap_or_default();
        let route = view.routes.get(&ObjectKey::new(&approval.namespace().unwrap_or_default(), route));
        let thing = super::thing::thing_of(&*view.tenant.session.driver, approval).await?;
        let data =
            |file: Value| json!({"file": file, "workspace": {"id": subject.workspace_id, "name": approval.spec.workspace}});
        if let (Some(thing), Some(route)) = (thing, route) {
            let version = thing.version.as_ref();
            file["size"] = json!(version.map(|version| version.size));
            file["mimeType"] = json!(version.map(|version| version.mime_type.clone()));
            file["metadata"] = json!(thing.item.metadata);
            return Ok((self.variables(view, route, &thing).await?, data(file)));
        }
        file["version"] = json!(subject.version.unwrap_or_default());
        file["sha256"] = json!(subject.digest.clone().unwrap_or_default());
        let requester = &approval.spec.requested_by;
        let given = json!({
            "file": file,
            "uploader": {"kind": requester.kind, "id": requester.id, "email": requester.name, "emailVerified": false},
            "workspace": {"name": approval.spec.workspace.clone().unwrap_or_default()},
        });
        Ok((example(&given, self.ctx.now()), data(file)))
    }
}

/// Whether there is something to tell, or to ask, another system about it.
fn is_unfinished(approval: &Approval) -> bool {
    let ticket = approval.status.as_ref().and_then(|status| status.ticket.as_ref());
    approval.spec.route.is_some()
        && match decision_of(approval) {
            None => true,
            Some(_) => ticket.is_some_and(|ticket| ticket.created_at.is_some() && ticket.closed_at.is_none()),
        }
}

fn known_ticket(approval: &Approval) -> Ticket {
    let ticket = approval.status.as_ref().and_then(|status| status.ticket.clone()).unwrap_or_default();
    Ticket { id: ticket.id, url: ticket.url }
}

/// The last call succeeded.
fn works(ticket: &mut TicketStatus) {
    (ticket.error, ticket.refused) = (None, None);
}

fn stage_of(approval: &Approval) -> Stage {
    let ticket = approval.status.as_ref().and_then(|status| status.ticket.as_ref());
    match (decision_of(approval), ticket.and_then(|ticket| ticket.created_at)) {
        (Some(_), _) => Stage::Close,
        (None, Some(_)) => Stage::Follow,
        (None, None) => Stage::Ask,
    }
}

/// How long a call that failed waits, unless it is refused for good.
fn wait_after(failures: u32, error: &Error) -> Duration {
    let own = || backoff::delay(failures, rand::random()).min(LONGEST_WAIT);
    error.retry_after.map_or_else(own, |asked| asked.min(AGAIN))
}

/// Adds what somebody said, unless it is decided or they have said something before.
fn cast(status: &mut ApprovalStatus, vote: &Vote) {
    let has_said = status.votes.iter().any(|known| known.by == vote.by);
    if status.decision.is_none() && !has_said && status.votes.len() < MOST_VOTES {
        status.votes.push(vote.clone());
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::approval::VoteDecision;

    #[test]
    fn a3_what_a_system_says_twice_counts_once_and_nothing_is_added_to_a_decision() {
        let vote = |by: &str, decision| Vote {
            by: by.into(),
            decision,
            reason: None,
            at: Timestamp::UNIX_EPOCH,
            via: Some(VoteVia::Poll),
            id: None,
        };
        let mut status = ApprovalStatus::default();
        cast(&mut status, &vote("jira", VoteDecision::Approve));
        cast(&mut status, &vote("jira", VoteDecision::Reject));
        assert_eq!((status.votes.len(), status.votes[0].decision), (1, VoteDecision::Approve));
        status.decision = Some(ApprovalDecision::Approved);
        cast(&mut status, &vote("late", VoteDecision::Reject));
        assert_eq!(status.votes.len(), 1);
    }
}
