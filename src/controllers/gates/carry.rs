//! Carries decisions out: the evidence goes to File 360's audit log in the step in which the decision takes effect (A5).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kube::ResourceExt;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::Gates;
use super::pass::View;
use super::refusals::is_for_good;
use super::thing::{Thing, thing_of};
use crate::api::Approval;
use crate::api::approval::{ApprovalDecision, SubjectKind, VoteDecision};
use crate::api::gate::OnApproved;
use crate::controllers::approval::tally::Made;
use crate::controllers::approval::{decision_of, is_carried_out};
use crate::error::{Error, Kind, Result, clean};
use crate::file360::content::IdempotencyKey;
use crate::file360::model::{Decision, DecisionInput, Item, ItemPatch, ItemState, Pending, VersionState};
use crate::file360::{Cause, File360};
use crate::hex::hex;
use crate::reconcile::ObjectKey;
use crate::routes::gate::Gate;
use crate::routes::items::ensure_folder;

/// Why the operator writes: not the route's uid, so that the route takes up what is released.
pub(super) fn cause(approval: &Approval) -> Cause {
    Cause(format!("approval/{}", approval.uid().unwrap_or_default()))
}

impl Gates {
    /// Releases or rejects a thing, unless File 360 refuses that: then the Approvals say so, and it is not tried again as long as nothing changes.
    /// Whether it was carried out.
    pub(super) async fn conclude(
        &self,
        view: &View<'_>,
        thing: &Thing,
        approvals: &[Arc<Approval>],
        decision: Decision,
    ) -> Result<bool> {
        let (key, state) = (refusal_key(&thing.pending), state_of(thing, approvals, decision));
        let refusals = &view.tenant.refusals;
        if refusals.has(&key, &state) {
            return Ok(false);
        }
        let done = match decision {
            Decision::Release => self.release(view, thing, approvals).await,
            Decision::Reject => self.carry_out(view, thing, approvals, decision).await,
        };
        match done {
            Err(error) if is_for_good(&error) => {
                warn!(item = %thing.item.id, path = thing.item.path, %error, "File 360 refuses a decision");
                refusals.add(key, state);
                for approval in approvals.iter().filter(|approval| !is_carried_out(approval)) {
                    let text = error.to_string();
                    self.approvals.refused(&ObjectKey::of(&**approval), &text).await?;
                    self.ctx.event(&**approval, true, "Refused", &clean(&text, 512)).await;
                }
                Ok(false)
            }
            done => {
                refusals.remove(&key);
                done.map(|()| true)
            }
        }
    }

    /// Lets a thing take effect: no gate holds it, or every gate that holds it has its Approval.
    async fn release(&self, view: &View<'_>, thing: &Thing, approvals: &[Arc<Approval>]) -> Result<()> {
        let tenant = &*view.tenant.session.driver;
        for approval in approvals {
            if locks(view, approval) && thing.pending.version.is_some() {
                // Before it is visible: nobody changes it in between.
                lock(tenant, &thing.item.id, &cause(approval)).await?;
            }
        }
        self.carry_out(view, thing, approvals, Decision::Release).await
    }

    /// A new file that was rejected moves where the gate says.
    async fn put_aside(&self, view: &View<'_>, thing: &Thing, approval: &Approval) -> Result<()> {
        let is_final = matches!(decision_of(approval), Some(ApprovalDecision::Rejected | ApprovalDecision::TimedOut));
        let folder = spec_of_gate(view, approval).and_then(|gate| Some(gate.on_rejected.as_ref()?.move_to.clone()));
        let folder = folder.filter(|_| is_final);
        match folder.filter(|_| thing.pending.version.is_some() && thing.item.state == ItemState::Pending) {
            Some(folder) => move_to(&*view.tenant.session.driver, thing, &folder, &cause(approval)).await,
            None => Ok(()),
        }
    }

    async fn carry_out(
        &self,
        view: &View<'_>,
        thing: &Thing,
        approvals: &[Arc<Approval>],
        decision: Decision,
    ) -> Result<()> {
        let tenant = &*view.tenant.session.driver;
        let evidence: BTreeMap<String, String> = match approvals {
            [] => BTreeMap::from([("evaluation".to_owned(), "no gate is meant for it".to_owned())]),
            [one] => evidence_of(one),
            several => several
                .iter()
                .take(8)
                .enumerate()
                .flat_map(|(at, approval)| {
                    let evidence = evidence_of(approval);
                    let part = ["approval", "decidedBy", "policyHash", "decidedAt"];
                    let parts = evidence.into_iter().filter(move |(name, _)| part.contains(&name.as_str()));
                    parts.map(move |(name, value)| (format!("{name}.{}", at + 1), value))
                })
                .collect(),
        };
        let input = decision_about(&thing.pending, thing.version.as_ref().map(|version| version.sha256.clone()), decision);
        let input = DecisionInput { reason: reason_of(approvals), evidence: evidence.clone(), ..input };
        let because = approvals.first().map_or_else(|| Cause("gate/evaluation".to_owned()), |approval| cause(approval));
        let result = tenant.decide(&thing.item.id, &input, &key_of(thing, &input), &because).await;
        match result {
            Ok(()) => {}
            // Somebody who decides in File 360 was faster, or it is gone.
            Err(error) if error.kind == Kind::NotFound || error.code == "already-decided" => {
                warn!(item = %thing.item.id, %error, "It was decided in File 360 already; that stands");
            }
            // It was changed or asked for again since it was listed: that is another thing, and nobody has decided about it (A2).
            Err(error) if error.code == "superseded" => return self.overtaken(thing, approvals, error).await,
            Err(error) => return Err(error.while_doing("decide about something pending")),
        }
        for approval in approvals {
            self.put_aside(view, thing, approval).await?;
            self.note(approval, &evidence).await?;
        }
        Ok(())
    }

    /// A decision came too late for what it was about. What it was made for alone ends with it; one that is about more, such as that a gate goes,
    /// fails, so that the next pass lists anew.
    async fn overtaken(&self, thing: &Thing, approvals: &[Arc<Approval>], error: Error) -> Result<()> {
        let (single, wider): (Vec<_>, Vec<_>) =
            approvals.iter().partition(|approval| is_about_pending(approval.spec.subject.kind));
        for approval in single {
            let key = ObjectKey::of(&**approval);
            info!(object = %key, item = %thing.item.id, "It changed before the decision took effect: superseded");
            let ended = self.approvals.overtaken(&key).await?;
            self.without_effect(&ended).await?;
        }
        if wider.is_empty() { Ok(()) } else { Err(error.while_doing("decide about something pending")) }
    }

    /// Notes that a decision has been carried out that changes nothing in File 360.
    pub(super) async fn without_effect(&self, approval: &Approval) -> Result<()> {
        self.note(approval, &evidence_of(approval)).await
    }

    async fn note(&self, approval: &Approval, evidence: &BTreeMap<String, String>) -> Result<()> {
        let key = ObjectKey::of(approval);
        match self.approvals.carried_out(&key, evidence).await {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            other => {
                info!(object = %key, decision = ?decision_of(approval), "Carried out");
                other.map(drop)
            }
        }
    }

    /// What is not pending any more: it was decided in File 360, it is gone, or its decision was carried out and not noted. Returns the last
    /// failure: one that cannot be settled keeps no other waiting (R5).
    pub(super) async fn settle_gone(&self, view: &View<'_>, known: &[Arc<Approval>], pending: &[Pending]) -> Option<Error> {
        let open: HashSet<_> = pending.iter().map(identity).collect();
        let mut failure = None;
        for approval in known.iter().filter(|approval| !is_carried_out(approval)) {
            if !is_about_pending(approval.spec.subject.kind) || open.contains(&identity_of(approval)) {
                continue;
            }
            if let Err(error) = self.settle(view, approval, pending).await {
                warn!(object = %ObjectKey::of(&**approval), %error, "What became of its subject cannot be told");
                failure = Some(error);
            }
        }
        failure
    }

    async fn settle(&self, view: &View<'_>, approval: &Arc<Approval>, pending: &[Pending]) -> Result<()> {
        let decided = match decision_of(approval) {
            Some(_) => {
                // It was carried out up to here.
                if let Some(thing) = thing_of(&*view.tenant.session.driver, approval).await? {
                    self.put_aside(view, &thing, approval).await?;
                }
                approval.clone()
            }
            None => {
                let decision = if pending.iter().any(|one| is_asked_again(approval, one)) {
                    ApprovalDecision::Superseded
                } else {
                    became(&*view.tenant.session.driver, approval).await?
                };
                let by = match decision {
                    ApprovalDecision::Superseded => "a change in File 360",
                    _ => "a reviewer in File 360",
                };
                let made = Made { decision, by: by.to_owned(), reason: None };
                self.approvals.decide(&ObjectKey::of(&**approval), &made).await?
            }
        };
        self.without_effect(&decided).await
    }
}

/// The gate of an Approval as its route declares it, whether the route runs or not; `None`: it is not declared any more.
fn spec_of_gate<'a>(view: &'a View<'_>, approval: &Approval) -> Option<&'a crate::api::gate::Gate> {
    let key = ObjectKey::new(&approval.namespace().unwrap_or_default(), approval.spec.route.as_deref()?);
    let rules = &view.routes.get(&key)?.object.spec.rules;
    rules.iter().find(|rule| rule.name == approval.spec.rule)?.gate.as_ref()
}

fn locks(view: &View<'_>, approval: &Approval) -> bool {
    let gate = spec_of_gate(view, approval);
    gate.is_some_and(|gate| gate.on_approved.as_ref().is_some_and(|after| after.contains(&OnApproved::LockVersion)))
}

/// The gate that asked for an Approval, if its route runs and has it unchanged: whom another version of the rule names was not asked.
pub(super) fn gate_of(view: &View<'_>, approval: &Approval) -> Option<Arc<Gate>> {
    let spec = &approval.spec;
    if spec.subject.kind == SubjectKind::Reduction {
        return None;
    }
    let key = ObjectKey::new(&approval.namespace().unwrap_or_default(), spec.route.as_deref()?);
    let running = view.routes.get(&key)?.running.as_ref()?;
    let mut gates = running.engine.route.gates.iter().flatten();
    gates.find(|gate| gate.rule == spec.rule && gate.policy_hash == spec.policy_hash).cloned()
}

/// Names something pending.
pub(super) fn refusal_key(pending: &Pending) -> String {
    format!("{:?}", identity(pending))
}

/// What File 360's answer to a decision depends on, as far as it is seen.
fn state_of(thing: &Thing, approvals: &[Arc<Approval>], decision: Decision) -> String {
    let link = thing.link.as_ref().map(|link| &link.etag);
    let by: Vec<Option<String>> = approvals.iter().map(|approval| approval.uid()).collect();
    let Item { etag, holds, retain_until, record, .. } = &thing.item;
    format!("{decision:?} {etag} {holds:?} {retain_until:?} {record} {link:?} {by:?}")
}

/// What makes something pending the same thing.
type Identity<'a> = (&'a str, Option<u64>, bool, Option<&'a str>, Option<&'a str>, Option<jiff::Timestamp>);

fn identity(pending: &Pending) -> Identity<'_> {
    (&pending.item_id, pending.version, pending.delete, pending.link.as_deref(), pending.member.as_deref(), pending.since)
}

fn identity_of(approval: &Approval) -> Identity<'_> {
    let subject = &approval.spec.subject;
    let share = subject.share.as_ref();
    let (link, member) = (share.and_then(|share| share.link.as_deref()), share.and_then(|share| share.member.as_deref()));
    (&subject.file_id, subject.version, subject.kind == SubjectKind::Deletion, link, member, subject.since)
}

/// Whether something pending is what an Approval is about, asked for again: nobody has approved the first.
fn is_asked_again(approval: &Approval, pending: &Pending) -> bool {
    let (item, version, is_deletion, link, member, _) = identity_of(approval);
    let is_same = (version, is_deletion) == (pending.version, pending.delete)
        && (link, member) == (pending.link.as_deref(), pending.member.as_deref());
    // A link has its id wherever it is.
    is_same && (item == pending.item_id || link.is_some())
}

fn is_about_pending(kind: SubjectKind) -> bool {
    matches!(kind, SubjectKind::FileVersion | SubjectKind::Share | SubjectKind::Deletion)
}

/// What became of something that is not pending any more.
async fn became(tenant: &dyn File360, approval: &Approval) -> Result<ApprovalDecision> {
    use ApprovalDecision::{Approved, Rejected, Superseded};
    let subject = &approval.spec.subject;
    let share = subject.share.clone().unwrap_or_default();
    match (subject.version, share.link, share.member) {
        (Some(number), ..) => {
            let versions = match tenant.versions(&subject.file_id).await {
                Ok(versions) => versions,
                Err(error) if error.kind == Kind::NotFound => return Ok(Superseded),
                Err(error) => return Err(error),
            };
            let state = versions.into_iter().find(|found| found.version == number).map(|found| found.state);
            Ok(match state {
                Some(VersionState::Released) => Approved,
                Some(VersionState::Rejected) => Rejected,
                Some(VersionState::Pending) => return Err(Error::new(Kind::Stale, "it is pending after all")),
                None => Superseded,
            })
        }
        (None, Some(link), _) => {
            let links = match tenant.links(&subject.workspace_id).await {
                Err(error) if error.kind == Kind::NotFound => return Ok(Superseded),
                links => links?,
            };
            let is_there = links.iter().any(|found| found.id == link);
            Ok(if is_there { Approved } else { Superseded })
        }
        (None, None, Some(member)) => {
            let members = match tenant.members(&subject.workspace_id).await {
                Err(error) if error.kind == Kind::NotFound => return Ok(Superseded),
                members => members?.value,
            };
            Ok(if members.iter().any(|found| found.principal_id == member) { Approved } else { Superseded })
        }
        _ => {
            let item = tenant.item(&subject.file_id).await?;
            Ok(if item.is_none_or(|item| item.state == ItemState::Trashed) { Approved } else { Rejected })
        }
    }
}

fn decision_about(pending: &Pending, sha256: Option<String>, decision: Decision) -> DecisionInput {
    DecisionInput {
        version: pending.version,
        sha256,
        delete: pending.delete,
        link: pending.link.clone(),
        member: pending.member.clone(),
        since: pending.since,
        decision,
        reason: None,
        evidence: BTreeMap::new(),
    }
}

/// The same decision about the same thing is one call, however often it is sent.
fn key_of(thing: &Thing, input: &DecisionInput) -> IdempotencyKey {
    let mut hash = Sha256::new();
    let body = serde_json::to_string(input).unwrap_or_default();
    for part in [&thing.item.id, &body, &thing.pending.since.map(|since| since.to_string()).unwrap_or_default()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    IdempotencyKey(format!("decision-{}", hex(&hash.finalize()[..20])))
}

fn reason_of(approvals: &[Arc<Approval>]) -> Option<String> {
    let told = approvals.iter().map(|approval| {
        let status = approval.status.clone().unwrap_or_default();
        let reason = status.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let decision = status.decision.map(|decision| format!("{decision:?}")).unwrap_or_default();
        format!("{decision} by {}{reason}", status.decided_by.unwrap_or_default())
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| clean(&told.join("; "), 1024))
}

/// What proves a decision without Kubernetes and without the other system: who, what digest and version, which rule, when.
fn evidence_of(approval: &Approval) -> BTreeMap<String, String> {
    let (spec, status) = (&approval.spec, approval.status.clone().unwrap_or_default());
    let key = ObjectKey::of(approval);
    let votes: Vec<String> = status
        .votes
        .iter()
        .map(|vote| {
            let via = vote.via.map_or_else(|| "Kubernetes".to_owned(), |via| format!("{via:?}"));
            let said = if vote.decision == VoteDecision::Approve { "approved" } else { "rejected" };
            format!("{} {said} at {} ({via})", vote.by, vote.at)
        })
        .collect();
    let entries = [
        ("approval", key.to_string()),
        ("approvalUid", approval.uid().unwrap_or_default()),
        ("subject", format!("{:?}", spec.subject.kind)),
        ("version", spec.subject.version.map(|version| version.to_string()).unwrap_or_default()),
        ("digest", spec.subject.digest.clone().unwrap_or_default()),
        ("route", spec.route.clone().unwrap_or_default()),
        ("rule", spec.rule.clone()),
        ("policyHash", spec.policy_hash.clone()),
        ("required", spec.required().to_string()),
        ("separationOfDuties", spec.separates().to_string()),
        ("requestedBy", format!("{} {} {}", spec.requested_by.kind, spec.requested_by.id, spec.requested_by.name)),
        ("requestedAt", spec.requested_at.to_string()),
        ("decision", status.decision.map(|decision| format!("{decision:?}")).unwrap_or_default()),
        ("decidedBy", status.decided_by.unwrap_or_default()),
        ("decidedAt", status.decided_at.map(|at| at.to_string()).unwrap_or_default()),
        ("reason", status.reason.unwrap_or_default()),
        ("votes", votes.join("; ")),
        ("ticket", status.ticket.and_then(|ticket| ticket.id).unwrap_or_default()),
    ];
    let entries = entries.into_iter().filter(|(_, value)| !value.trim().is_empty());
    entries.map(|(name, value)| (name.to_owned(), clean(&value, 1024))).collect()
}

async fn lock(tenant: &dyn File360, item: &str, cause: &Cause) -> Result<()> {
    let Some(found) = tenant.item(item).await?.filter(|found| !found.locked) else { return Ok(()) };
    let patch = ItemPatch { locked: Some(true), ..ItemPatch::default() };
    tenant.patch_item(item, &found.etag, &patch, cause).await.map(drop)
}

async fn move_to(tenant: &dyn File360, thing: &Thing, folder: &str, cause: &Cause) -> Result<()> {
    let Some(found) = tenant.item(&thing.item.id).await? else { return Ok(()) };
    let folder = ensure_folder(tenant, &thing.item.workspace_id, folder, cause).await?;
    if found.parent_id.as_deref() == Some(&folder) {
        return Ok(());
    }
    let mut patch = ItemPatch { parent_id: Some(folder), ..ItemPatch::default() };
    match tenant.patch_item(&found.id, &found.etag, &patch, cause).await {
        Err(error) if error.kind == Kind::Conflict && error.code == "name-exists" => {
            let short: String = found.id.chars().filter(char::is_ascii_alphanumeric).rev().take(8).collect();
            patch.name = Some(format!("{short} {}", found.name));
            tenant.patch_item(&found.id, &found.etag, &patch, cause).await.map(drop)
        }
        other => other.map(drop),
    }
}
