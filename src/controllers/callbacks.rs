//! Takes what other systems say about Approvals. Runs in every replica, leader or not: what was said is a vote in the Approval's status, written
//! under its version, so that many replicas at once lose none.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use jiff::Timestamp;
use kube::api::Api;

use super::approval::write_once;
use super::context::Context;
use super::references::ReferenceStore;
use crate::api::approval::{ApprovalStatus, LateVote, MOST_LATE, MOST_VOTES, SubjectKind, Vote, VoteDecision, VoteVia};
use crate::api::file_route::RouteRule;
use crate::api::{Approval, FileRoute};
use crate::error::{Error, Kind};
use crate::inbound::callback::{Decisions, Said, Taken};
use crate::inbound::problem::Refusal;
use crate::inbound::signature::Keys;
use crate::reconcile::{ObjectKey, is_object_name};
use crate::routes::gate::policy_hash;

/// How often a vote is written again after somebody else wrote at the same time.
const TRIES: usize = 16;

/// What is said by callback.
pub struct Callbacks {
    ctx: Arc<Context>,
    references: Arc<ReferenceStore>,
}

impl Callbacks {
    /// Nothing is read yet.
    pub fn new(ctx: Arc<Context>) -> Self {
        let references = ReferenceStore::new(ctx.client.clone(), ctx.guard.clone(), ctx.tuning.secret_interval);
        Self { ctx, references }
    }

    async fn approval(&self, namespace: &str, name: &str) -> Result<Option<Approval>, Refusal> {
        if self.ctx.namespace.as_ref().is_some_and(|own| own != namespace) {
            return Ok(None);
        }
        let api: Api<Approval> = Api::namespaced(self.ctx.client.clone(), namespace);
        api.get_opt(name).await.map_err(|error| away(&error.into()))
    }

    /// The Secret whose keys count, as the route's rule names it now.
    async fn secret(&self, namespace: &str, approval: &Approval) -> Result<Option<String>, Refusal> {
        if approval.spec.subject.kind == SubjectKind::Reduction {
            return Ok(None);
        }
        let Some(route) = approval.spec.route.as_deref().filter(|route| is_object_name(route)) else { return Ok(None) };
        let api: Api<FileRoute> = Api::namespaced(self.ctx.client.clone(), namespace);
        let route = api.get_opt(route).await.map_err(|error| away(&error.into()))?;
        // Whom another version of the rule names was not asked.
        let is_the_same =
            |rule: &RouteRule| rule.name == approval.spec.rule && policy_hash(rule) == approval.spec.policy_hash;
        let rule = route.and_then(|route| route.spec.rules.into_iter().find(is_the_same));
        let decision = rule.and_then(|rule| rule.gate?.request?.decision);
        Ok(decision.and_then(|decision| Some(decision.callback?.hmac_ref.name)))
    }
}

#[async_trait]
impl Decisions for Callbacks {
    async fn keys(&self, namespace: &str, approval: &str) -> Result<Option<Arc<Keys>>, Refusal> {
        let Some(found) = self.approval(namespace, approval).await? else { return Ok(None) };
        let Some(secret) = self.secret(namespace, &found).await? else { return Ok(None) };
        let values = match self.references.of(namespace).keys(&secret).await {
            Ok(values) => values,
            Err(error) if matches!(error.kind, Kind::Reference | Kind::NotFound | Kind::Denied) => return Ok(None),
            Err(error) => return Err(away(&error)),
        };
        let (keys, _) = Keys::new(values.iter().map(|(name, value)| (name.as_str(), value.expose())));
        Ok(Some(Arc::new(keys)))
    }

    async fn take(&self, namespace: &str, approval: &str, said: &Said) -> Result<Taken, Refusal> {
        let key = ObjectKey::new(namespace, approval);
        let now = self.ctx.now();
        for _ in 0..TRIES {
            let Some(object) = self.approval(namespace, approval).await? else { return Err(Refusal::unsigned()) };
            let mut probe = object.status.clone().unwrap_or_default();
            let taken = record(&mut probe, said, now)?;
            let change = |_: &Approval, status: &mut ApprovalStatus| {
                // The same as for the probe: it can be recorded.
                let _ = record(status, said, now);
            };
            match write_once(&self.ctx.client, &key, &object, &change).await {
                Ok(_) => return Ok(taken),
                Err(error) if error.code == "Conflict" => {}
                Err(error) => return Err(away(&error)),
            }
        }
        Err(Refusal::unavailable("The Approval is being written by others.", Duration::from_secs(1)))
    }
}

fn away(_: &Error) -> Refusal {
    Refusal::unavailable("The Approval cannot be read or written now.", Duration::from_secs(2))
}

/// Adds what was said: a vote, or a late decision (A3). The same id, or the same word of the same voter, adds nothing.
fn record(status: &mut ApprovalStatus, said: &Said, now: Timestamp) -> Result<Taken, Refusal> {
    let decision = if said.approves { VoteDecision::Approve } else { VoteDecision::Reject };
    let vote = Vote {
        by: said.by.clone(),
        decision,
        reason: said.reason.clone(),
        at: now,
        via: Some(VoteVia::Callback),
        id: Some(said.id.clone()),
    };
    let reused = || Refusal::new(StatusCode::CONFLICT, "id-reused", "The webhook-id was used for another decision.");
    let is_the_same = |known: &Vote| known.decision == decision && known.by == said.by;
    let late = LateVote { by: said.by.clone(), decision, reason: said.reason.clone(), at: now, id: said.id.clone() };
    if let Some(known) = status.votes.iter().find(|known| known.id.as_ref() == Some(&said.id)) {
        return if is_the_same(known) { Ok(Taken::Recorded) } else { Err(reused()) };
    }
    if let Some(known) = status.late.iter().find(|known| known.id == said.id) {
        return if known.decision == decision && known.by == said.by { Ok(Taken::Late) } else { Err(reused()) };
    }
    let before = status.votes.iter().find(|known| known.by == said.by);
    match (status.decision, before) {
        (None, None) if status.votes.len() < MOST_VOTES => status.votes.push(vote),
        (None, None) => {
            return Err(Refusal::new(StatusCode::CONFLICT, "too-many-votes", "The Approval takes no more votes."));
        }
        (None, Some(known)) if is_the_same(known) => {}
        _ => {
            if status.late.len() < MOST_LATE {
                status.late.push(late);
            }
            return Ok(Taken::Late);
        }
    }
    Ok(Taken::Recorded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::approval::ApprovalDecision;

    fn said(id: &str, by: &str, approves: bool) -> Said {
        Said { id: id.into(), approves, by: by.into(), reason: None }
    }

    fn take(status: &mut ApprovalStatus, said: &Said) -> Result<Taken, &'static str> {
        record(status, said, Timestamp::UNIX_EPOCH).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a3_the_same_id_is_one_decision_and_a_later_one_is_recorded_as_late() {
        let mut status = ApprovalStatus::default();
        assert_eq!(take(&mut status, &said("1", "ann", true)), Ok(Taken::Recorded));
        assert_eq!(take(&mut status, &said("1", "ann", true)), Ok(Taken::Recorded));
        assert_eq!(take(&mut status, &said("1", "ann", false)), Err("id-reused"));
        assert_eq!(take(&mut status, &said("2", "ann", true)), Ok(Taken::Recorded));
        assert_eq!((status.votes.len(), status.late.len()), (1, 0));
        assert_eq!(take(&mut status, &said("3", "ann", false)), Ok(Taken::Late), "who has spoken changes nothing");
        status.decision = Some(ApprovalDecision::Approved);
        assert_eq!(take(&mut status, &said("1", "ann", true)), Ok(Taken::Recorded), "a repeated answer is the same");
        assert_eq!(take(&mut status, &said("4", "bob", false)), Ok(Taken::Late));
        assert_eq!(take(&mut status, &said("4", "bob", false)), Ok(Taken::Late));
        assert_eq!((status.votes.len(), status.late.len()), (1, 2));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut status = ApprovalStatus::default();
        for at in 0..100 {
            let _ = take(&mut status, &said(&at.to_string(), &format!("p{at}"), true));
        }
        status.decision = Some(ApprovalDecision::Approved);
        for at in 100..200 {
            assert_eq!(take(&mut status, &said(&at.to_string(), &format!("p{at}"), true)), Ok(Taken::Late));
        }
        assert_eq!((status.votes.len(), status.late.len()), (MOST_VOTES, MOST_LATE));
    }
}
