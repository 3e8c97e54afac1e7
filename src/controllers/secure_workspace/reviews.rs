//! Reviews of required documents: each version that waits has an Approval, and what its votes decide is written down beside the version.
//!
//! The decision beside the version is what counts (it outlives the cluster); the Approval is how people come to it. Both are found again, so
//! a crash in between asks and decides once.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, info, warn};

use super::SecureWorkspaces;
use super::pass::Pass;
use crate::api::Approval;
use crate::api::approval::{ApprovalDecision, ApprovalSpec, ApprovalSubject, Requester, SubjectKind};
use crate::controllers::approval::tally::Made as Ended;
use crate::controllers::approval::{Approvals, decision_of, is_carried_out, nobody_can_be_asked};
use crate::documents::decisions::{self, Made};
use crate::documents::judge::{Judgement, Library, Review};
use crate::documents::record::{Decision, Outcome};
use crate::documents::rules::{Rule, Rules};
use crate::error::{Result, clean};
use crate::reconcile::ObjectKey;
use crate::session::Session;

/// What was decided and not carried out is looked for this often, whatever was heard of it.
const SWEEP: Duration = Duration::from_mins(1);

/// Wakes workspaces whose reviews were decided, until the task is dropped.
pub async fn follow(approvals: Arc<Approvals>, workspaces: Arc<SecureWorkspaces>) {
    let mut news = approvals.news();
    loop {
        let heard = tokio::select! {
            heard = news.recv() => heard,
            () = tokio::time::sleep(SWEEP) => Err(RecvError::Lagged(0)),
        };
        match heard {
            Ok(key) => workspaces.wake(approvals.get(&key).and_then(|approval| awaited_by(&approval))),
            Err(RecvError::Lagged(_)) => {
                let decided = approvals.all_where(|approval| awaited_by(approval).is_some());
                workspaces.wake(decided.iter().filter_map(|approval| awaited_by(approval)));
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// The workspace that has to carry out what was decided.
fn awaited_by(approval: &Approval) -> Option<ObjectKey> {
    let is_awaited = approval.spec.subject.kind == SubjectKind::Document
        && !is_carried_out(approval)
        && decision_of(approval).is_some_and(|decision| decision != ApprovalDecision::Superseded);
    let workspace = approval.spec.workspace.as_ref().filter(|_| is_awaited)?;
    Some(ObjectKey::new(&approval.namespace().unwrap_or_default(), workspace))
}

/// Asks about what waits, writes down what was decided, and ends what is not asked about any more. One failure keeps none of the others; the
/// first is returned.
pub async fn pursue(
    pass: &Pass<'_>,
    session: &Session,
    rules: &Rules,
    judgement: &Judgement,
    library: &Library,
) -> Result<()> {
    let Some(approvals) = pass.ctx.approvals().filter(|_| rules.have_reviews()) else { return Ok(()) };
    let mut first = Ok(());
    for review in &judgement.reviews {
        let done = one(pass, session, &rules.rules[review.rule], &approvals, review).await;
        first = first.and(done.map_err(|error| error.while_doing("review a document")));
    }
    first.and(end_others(pass, &approvals, library).await)
}

async fn one(pass: &Pass<'_>, session: &Session, rule: &Rule, approvals: &Approvals, review: &Review) -> Result<()> {
    let Some(workspace) = &pass.report.observed.workspace else { return Ok(()) };
    let spec = spec_of(pass, &workspace.id, rule, review);
    let namespace = pass.object.namespace().unwrap_or_default();
    let approval = match approvals.ensure(&namespace, &spec).await {
        Err(error) if nobody_can_be_asked(&error) => {
            debug!(object = %pass.key, %error, "No Approval can be made");
            return Ok(());
        }
        other => other?,
    };
    let key = ObjectKey::of(&*approval);
    let Some(decision) = decision(&approval, rule, review) else { return Ok(()) };
    if is_looser(&approval.spec, &spec) {
        warn!(object = %key, "Held: the review asks for more now; delete the Approval, so that it is asked again");
        return Ok(());
    }
    if !approvals.is_believed(&approval).await {
        return Ok(());
    }
    if let Made::Before(by) = decisions::make(&*session.driver, &review.file, review.version, &decision).await? {
        info!(object = %key, by = %clean(&by, 254), "It was decided another way before; that stands");
    }
    approvals.carried_out(&key, &decision).await.map(drop)
}

/// The Approval about a version.
fn spec_of(pass: &Pass<'_>, workspace: &str, rule: &Rule, review: &Review) -> ApprovalSpec {
    let requested_by = review.by.as_ref().map(|by| Requester {
        kind: format!("{:?}", by.kind),
        id: by.id.clone().unwrap_or_default(),
        name: clean(&by.name, 320),
    });
    ApprovalSpec {
        connection_ref: pass.object.spec.connection_ref.clone(),
        subject: ApprovalSubject {
            kind: SubjectKind::Document,
            workspace_id: workspace.to_owned(),
            file_id: review.file.clone(),
            version: Some(review.version),
            digest: Some(review.sha256.clone()),
            share: None,
            since: None,
            date: review.date.clone(),
            path: Some(clean(&review.path, 1024)),
        },
        route: None,
        workspace: Some(pass.object.name_any()),
        requirement: Some(rule.name.clone()),
        rule: rule.name.clone(),
        policy_hash: rule.policy_hash.clone(),
        min_approvals: Some(rule.min_approvals),
        separation_of_duties: Some(rule.separates),
        requested_by: requested_by.unwrap_or_default(),
        requested_at: pass.now,
        expires_at: None,
        ttl_after_decision_seconds: None,
    }
}

/// Whether fewer, or others, could decide than the review asks for now.
fn is_looser(found: &ApprovalSpec, wanted: &ApprovalSpec) -> bool {
    found.required() < wanted.required()
        || (wanted.separates() && (!found.separates() || found.requested_by != wanted.requested_by))
        || found.subject.digest != wanted.subject.digest
}

/// What an Approval decided about the version that it asks about; `None`: nothing (yet).
fn decision(approval: &Approval, rule: &Rule, review: &Review) -> Option<Decision> {
    let status = approval.status.as_ref()?;
    let outcome = match status.decision? {
        ApprovalDecision::Approved => Outcome::Approved,
        ApprovalDecision::Rejected | ApprovalDecision::TimedOut => Outcome::Rejected,
        ApprovalDecision::Superseded => return None,
    };
    let key = ObjectKey::of(approval);
    Some(Decision {
        requirement: rule.name.clone(),
        outcome,
        by: clean(status.decided_by.as_deref().unwrap_or_default(), 254),
        reason: status.reason.as_deref().map(|reason| clean(reason, 500)),
        at: status.decided_at?,
        sha256: review.sha256.clone(),
        date: review.date.clone(),
        approval: Some(format!("{key} {}", approval.spec.policy_hash)),
    })
}

/// Ends Approvals of versions that were decided another way, or that a newer one has hidden (A2).
async fn end_others(pass: &Pass<'_>, approvals: &Approvals, library: &Library) -> Result<()> {
    let (namespace, name) = (pass.object.namespace().unwrap_or_default(), pass.object.name_any());
    let open = approvals.all_where(|approval| {
        approval.spec.subject.kind == SubjectKind::Document
            && decision_of(approval).is_none()
            && approval.namespace().as_deref() == Some(&namespace)
            && approval.spec.workspace.as_ref() == Some(&name)
    });
    let mut first = Ok(());
    for approval in open {
        if let Some(by) = ended_by(&approval.spec.subject, library) {
            let made = Ended { decision: ApprovalDecision::Superseded, by, reason: None };
            first = first.and(approvals.decide(&ObjectKey::of(&*approval), &made).await.map(drop));
        }
    }
    first
}

/// What made a question pointless.
fn ended_by(subject: &ApprovalSubject, library: &Library) -> Option<String> {
    let version = subject.version?;
    if let Some(decision) = library.decisions.get(&subject.file_id).and_then(|versions| versions.get(&version)) {
        return Some(clean(&decision.by, 254));
    }
    let file = library.files.iter().find(|file| file.item.id == subject.file_id)?;
    let newer = file.item.version.filter(|shown| *shown > version)?;
    Some(format!("version {newer}"))
}
