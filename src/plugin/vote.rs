//! `approve` and `reject`: one's own vote on an Approval.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::cluster::{Cluster, MANAGER, explain};
use super::text::{Printer, line};
use super::{Access, Failure, Outcome, failed};
use crate::api::Approval;
use crate::api::approval::{Vote, VoteDecision};
use crate::reconcile::is_object_name;

/// How often the vote is written again after somebody else wrote at the same time.
const TRIES: usize = 8;

/// Arguments of `approve` and `reject`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl get approvals -n pricing
  kubectl file360 approve -n pricing file-0123456789abcdef01234567
  kubectl file360 reject -n pricing file-0123456789abcdef01234567 --reason 'below cost'

It needs patch on approvals/status, as the ClusterRole file360-approver has it. A vote cannot be changed. The operator counts it; status.decision
says how it ends.")]
pub struct VoteArgs {
    /// NAME of an Approval.
    name: String,
    /// Why; it goes into the audit log.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Approves.
pub async fn approve(access: &Access, args: &VoteArgs, printer: &Printer) -> Outcome {
    vote(access, args, VoteDecision::Approve, printer).await
}

/// Rejects.
pub async fn reject(access: &Access, args: &VoteArgs, printer: &Printer) -> Outcome {
    vote(access, args, VoteDecision::Reject, printer).await
}

async fn vote(access: &Access, args: &VoteArgs, decision: VoteDecision, printer: &Printer) -> Outcome {
    let name = args.name.rsplit('/').next().unwrap_or_default();
    if !is_object_name(name) {
        return Err(Failure::Usage(format!("{name} is no name of an Approval")));
    }
    if args.reason.as_ref().is_some_and(|reason| reason.chars().count() > 1024) {
        return Err(Failure::Usage("--reason has at most 1,024 characters".into()));
    }
    let cluster = Cluster::connect(access).await?;
    let by = whoami(&cluster).await?;
    let api: Api<Approval> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    for _ in 0..TRIES {
        let found = api.get_opt(name).await.map_err(|error| explain(&format!("read Approval {name}"), &error))?;
        let approval = found.ok_or_else(|| failed(format!("no Approval {name} in namespace {}", cluster.namespace)))?;
        let status = approval.status.clone().unwrap_or_default();
        if let Some(decided) = status.decision {
            let by = status.decided_by.as_deref().map(|by| line(by, 256)).unwrap_or_default();
            return Err(failed(format!("{name} is decided: {decided:?} by {by}")));
        }
        if let Some(known) = status.votes.iter().find(|known| known.by == by) {
            if known.decision == decision {
                printer.print(&format!("Approval {}/{name}: {by} has voted so already", cluster.namespace));
                return Ok(true);
            }
            return Err(failed(format!("{by} has voted {:?}; a vote cannot be changed", known.decision)));
        }
        let mut votes = status.votes.clone();
        votes.push(Vote {
            by: by.clone(),
            decision,
            reason: args.reason.clone(),
            at: Timestamp::now(),
            via: None,
            id: None,
        });
        let metadata = json!({"resourceVersion": approval.metadata.resource_version, "uid": approval.metadata.uid});
        let patch = json!({"metadata": metadata, "status": {"votes": votes}});
        match api.patch_status(name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => {
                let said = if decision == VoteDecision::Approve { "approved" } else { "rejected" };
                printer.print(&format!("Approval {}/{name}: {said} as {by}; the operator counts it", cluster.namespace));
                return Ok(true);
            }
            Err(kube::Error::Api(refused)) if refused.code == 409 => {}
            Err(error) => return Err(explain(&format!("vote on Approval {name}"), &error)),
        }
    }
    Err(failed("somebody else keeps writing the Approval at the same time; try again"))
}

/// The name under which the API server knows whoever runs this.
async fn whoami(cluster: &Cluster) -> Result<String, Failure> {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let review = review.map_err(|error| explain("ask the API server who you are", &error))?;
    let name = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
    name.filter(|name| !name.is_empty()).ok_or_else(|| failed("the API server does not say who you are"))
}
