//! `documents`: decides about a version of a required document.
//!
//! The decision is written to File 360 with the Connection's own credential, as something that only this client reads and writes. Who may
//! decide this way is who may read that Secret; no annotation, label or spec of a workspace can stand for a decision (T6).

use clap::{Args, Subcommand};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, PostParams};
use serde_json::Value;

use super::cluster::{Cluster, Target, Waited, chain};
use super::object::{Kind, Seen};
use super::reconcile::{Waiting, too_late};
use super::tenant::{Tenant, TenantArgs, refused};
use super::text::{Printer, line};
use super::{Access, Failure, Outcome, failed};
use crate::documents::record::{DECISION, Decision, Outcome as Way};
use crate::file360::content::IdempotencyKey;
use crate::file360::model::{FacetPut, Item};
use crate::reconcile::ObjectKey;

/// Commands about required documents.
#[derive(Debug, Subcommand)]
pub enum DocumentsCommand {
    /// Approve the version of a document that waits in review.
    Approve(DecideArgs),
    /// Reject the version of a document that waits in review. Whoever sent it reads the reason.
    Reject(RejectArgs),
}

/// Arguments of `documents approve`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubectl file360 documents approve -n procurement acme iso9001 --version 3

Needs the right to read the credential of the workspace's Connection: the decision is written to File 360 with it.
A decision is for one version and its content, and is not taken back. Exit code 1: it was not decided.")]
pub struct DecideArgs {
    /// NAME of a SecureWorkspace.
    workspace: Target,
    /// Name of the required document.
    document: String,
    /// Decide only if this is the version that waits.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    waiting: Waiting,
}

/// Arguments of `documents reject`.
#[derive(Debug, Args)]
pub struct RejectArgs {
    /// Why. Whoever sent the document reads it.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    decide: DecideArgs,
}

/// Decides and waits until the operator has seen it; whether it was decided.
pub async fn run(access: &Access, command: &DocumentsCommand, printer: &Printer) -> Outcome {
    match command {
        DocumentsCommand::Approve(args) => decide(access, args, Way::Approved, None, printer).await,
        DocumentsCommand::Reject(args) => {
            decide(access, &args.decide, Way::Rejected, Some(line(&args.reason, 500)), printer).await
        }
    }
}

async fn decide(access: &Access, args: &DecideArgs, way: Way, reason: Option<String>, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let seen = cluster.get(&args.workspace.clone().workspace()?).await?;
    let (file, version) = waiting_version(&seen, &args.document)?;
    if args.version.is_some_and(|wanted| wanted != version) {
        return Err(failed(format!("version {version} waits, not the one that was reviewed; nothing is decided")));
    }
    let by = who_am_i(&cluster).await?;
    let (namespace, name) = seen.connection();
    let tenant = Tenant::open_for_changes(&cluster, &ObjectKey::new(&namespace, &name), &args.tenant).await?;
    let item = tenant.driver.item(&file).await.map_err(|error| refused(&error))?;
    let item = item.filter(|item| item.version == Some(version));
    let item = item.ok_or_else(|| failed("the file changed meanwhile; look again, then decide"))?;
    record(&tenant, &item, version, &args.document, way, reason, &by).await?;
    let said = match way {
        Way::Approved => "approved",
        Way::Rejected => "rejected",
    };
    printer.print(&format!(
        "{}: {} ({}, version {version}) {said} as {by}",
        seen.title(),
        args.document,
        line(&item.path, 200)
    ));
    if args.waiting.no_wait {
        return Ok(true);
    }
    let is_seen = |now: &Seen| waiting_version(now, &args.document).ok() != Some((file.clone(), version));
    match cluster.wait(&seen, args.waiting.timeout, is_seen).await? {
        Waited::Holds(now) => {
            let complete = now.condition("DocumentsComplete");
            let text = complete.map_or_else(String::new, |now| format!("DocumentsComplete={}: {}", now.status, now.message));
            printer.print(&format!("{}: {text}", now.title()));
            Ok(true)
        }
        Waited::TooLate(now) => Err(too_late("see the decision", &now, args.waiting.timeout)),
    }
}

/// File and version that wait in review for a document.
fn waiting_version(seen: &Seen, document: &str) -> Result<(String, u64), Failure> {
    debug_assert_eq!(seen.kind, Kind::SecureWorkspace);
    let rows = seen.status["requirements"].as_array();
    let row = rows.into_iter().flatten().find(|row| row["name"] == document);
    let row = row.ok_or_else(|| failed(format!("{} has no required document {}", seen.title(), line(document, 63))))?;
    let candidates = [row, &row["replacement"]];
    let waiting = candidates.into_iter().find(|one| one["state"] == "InReview");
    let found = waiting.and_then(|one| Some((one["fileId"].as_str()?.to_owned(), one["version"].as_u64()?)));
    found.ok_or_else(|| {
        let state = line(row["state"].as_str().unwrap_or("unknown"), 40);
        failed(format!("nothing of {} waits in review for {}: it is {state}", seen.title(), line(document, 63)))
    })
}

/// The first decision about a version stands.
async fn record(
    tenant: &Tenant,
    item: &Item,
    version: u64,
    document: &str,
    way: Way,
    reason: Option<String>,
    by: &str,
) -> Result<(), Failure> {
    let made = tenant.driver.facet(&item.id, version, DECISION).await.map_err(|error| refused(&error))?;
    if let Some(made) = made {
        let by = line(made.value["by"].as_str().unwrap_or("somebody"), 254);
        return Err(failed(format!("version {version} was decided before, by {by}; a decision is not taken back")));
    }
    let decision = Decision {
        requirement: document.to_owned(),
        outcome: way,
        by: by.to_owned(),
        reason,
        at: Timestamp::now(),
        sha256: item.sha256.clone().unwrap_or_default(),
    };
    let value: Option<Value> = serde_json::to_value(&decision).ok();
    let put = FacetPut { item_id: item.id.clone(), version, name: DECISION.into(), value, announce: true };
    let key = IdempotencyKey(format!("{:032x}", rand::random::<u128>()));
    tenant.driver.put_facets(&[put], &key).await.map_err(|error| refused(&error))
}

/// The name that the API server knows the user by.
async fn who_am_i(cluster: &Cluster) -> Result<String, Failure> {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let review = review.map_err(|error| failed(format!("the cluster does not say who you are: {}", chain(&error))))?;
    let name = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
    name.map(|name| line(&name, 254)).ok_or_else(|| failed("the cluster does not say who you are"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_waits_in_review_can_be_decided() {
        let object = json!({"apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace",
        "metadata": {"name": "acme", "namespace": "ns"}, "status": {"requirements": [
            {"name": "first", "state": "InReview", "fileId": "f1", "version": 1},
            {"name": "renewed", "state": "Approved", "fileId": "f2", "version": 1,
                "replacement": {"state": "InReview", "fileId": "f2", "version": 2}},
            {"name": "missing", "state": "Missing"},
        ]}});
        let seen = Seen::of(Kind::SecureWorkspace, &serde_json::from_value(object).unwrap());
        assert_eq!(waiting_version(&seen, "first").unwrap(), ("f1".into(), 1));
        assert_eq!(waiting_version(&seen, "renewed").unwrap(), ("f2".into(), 2));
        for name in ["missing", "other"] {
            assert!(waiting_version(&seen, name).is_err(), "{name}");
        }
    }
}
