//! `documents`: decides about a version of a required document.
//!
//! The decision is written to File 360 with the Connection's own credential, as something that only this client reads and writes. Who may
//! decide this way is who may read that Secret; no annotation, label or spec of a workspace can stand for a decision (T6).

use clap::{ArgGroup, Args, Subcommand};
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
use crate::api::documents::DocumentState;
use crate::documents::decisions::{self, Made};
use crate::documents::record::{Decision, Outcome as Way, REQUIREMENT, Recorded, parse};
use crate::file360::model::Item;
use crate::reconcile::ObjectKey;

/// Commands about required documents.
#[derive(Debug, Subcommand)]
pub enum DocumentsCommand {
    /// Approve the version of a document that waits in review.
    Approve(ApproveArgs),
    /// Reject the version of a document that waits in review. Whoever sent it reads the reason.
    Reject(RejectArgs),
}

/// What both decisions need.
#[derive(Debug, Args)]
pub struct DecideArgs {
    /// NAME of a SecureWorkspace.
    workspace: Target,
    /// Name of the required document.
    document: String,
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    waiting: Waiting,
}

/// Arguments of `documents approve`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("content").args(["version", "sha256"]).required(true).multiple(true)))]
#[command(after_help = "Example:
  kubectl file360 documents approve -n procurement acme iso9001 --file i01k2x7q --version 3

kubectl file360 missing lists what waits, as FILE@VERSION. Name what was reviewed: nothing else is approved.
Needs the right to read the credential of the workspace's Connection: the decision is written to File 360 with it.
A decision is for one version, its content and the date of its validity, and is not taken back. Exit code 1: it was not decided.")]
pub struct ApproveArgs {
    #[command(flatten)]
    decide: DecideArgs,
    /// The file that was reviewed.
    #[arg(long, value_name = "ID")]
    file: String,
    /// The version that was reviewed.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// The SHA-256 of the content that was reviewed.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
}

/// Arguments of `documents reject`.
#[derive(Debug, Args)]
pub struct RejectArgs {
    /// Why. Whoever sent the document reads it.
    #[arg(long)]
    reason: String,
    /// Reject only if this is the file that waits.
    #[arg(long, value_name = "ID")]
    file: Option<String>,
    /// Reject only if this is the version that waits.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    decide: DecideArgs,
}

/// What somebody says they looked at.
#[derive(Debug, Default)]
struct Reviewed<'a> {
    file: Option<&'a str>,
    version: Option<u64>,
    sha256: Option<&'a str>,
}

impl Reviewed<'_> {
    /// Whether it is what waits.
    fn check(&self, file: &str, version: u64, sha256: &str) -> Result<(), Failure> {
        let is_it = self.file.is_none_or(|wanted| wanted == file)
            && self.version.is_none_or(|wanted| wanted == version)
            && self.sha256.is_none_or(|wanted| wanted.eq_ignore_ascii_case(sha256));
        is_it.then_some(()).ok_or_else(|| {
            let (file, sha256) = (line(file, 128), line(sha256, 64));
            failed(format!("{file}, version {version}, SHA-256 {sha256} waits, not what was reviewed; nothing is decided"))
        })
    }
}

/// Decides and waits until the operator has seen it; whether it was decided.
pub async fn run(access: &Access, command: &DocumentsCommand, printer: &Printer) -> Outcome {
    match command {
        DocumentsCommand::Approve(args) => {
            let reviewed = Reviewed { file: Some(&args.file), version: args.version, sha256: args.sha256.as_deref() };
            decide(access, &args.decide, &reviewed, Way::Approved, None, printer).await
        }
        DocumentsCommand::Reject(args) => {
            let reviewed = Reviewed { file: args.file.as_deref(), version: args.version, sha256: None };
            let reason = Some(line(&args.reason, 500));
            decide(access, &args.decide, &reviewed, Way::Rejected, reason, printer).await
        }
    }
}

async fn decide(
    access: &Access,
    args: &DecideArgs,
    reviewed: &Reviewed<'_>,
    way: Way,
    reason: Option<String>,
    printer: &Printer,
) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let seen = cluster.get(&args.workspace.clone().workspace()?).await?;
    may_decide_alone(&seen, &args.document)?;
    let (file, version) = waiting_version(&seen, &args.document)?;
    let by = who_am_i(&cluster).await?;
    let (namespace, name) = seen.connection();
    let tenant = Tenant::open_for_changes(&cluster, &ObjectKey::new(&namespace, &name), &args.tenant).await?;
    let item = tenant.driver.item(&file).await.map_err(|error| refused(&error))?;
    let workspace = seen.status["workspaceId"].as_str().unwrap_or_default();
    let item = item.filter(|item| item.version == Some(version) && item.workspace_id == workspace);
    let item = item.ok_or_else(|| failed("the file changed meanwhile; look again, then decide"))?;
    let sha256 = item.sha256.as_deref().unwrap_or_default();
    reviewed.check(&file, version, sha256)?;
    let shown = tenant.driver.facet(&item.id, version, REQUIREMENT).await.map_err(|error| refused(&error))?;
    let shown = in_review(shown.as_ref().map(|facet| &facet.value), &args.document, sha256)?;
    let date = shown.date.as_deref().map(|date| format!(", date {}", line(date, 80))).unwrap_or_default();
    let path = line(&item.path, 200);
    printer.print(&format!("{}: {file}, {path}, version {version}, SHA-256 {}{date}", seen.title(), line(sha256, 64)));
    let decision = Decision {
        requirement: args.document.clone(),
        outcome: way,
        by: by.clone(),
        reason,
        at: Timestamp::now(),
        sha256: sha256.to_owned(),
        date: shown.date,
        approval: None,
    };
    record(&tenant, &item, version, &decision).await?;
    let said = match way {
        Way::Approved => "approved",
        Way::Rejected => "rejected",
    };
    printer.print(&format!("{}: {} ({path}, version {version}) {said} as {by}", seen.title(), args.document));
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

/// Who may decide alone, may: not where several have to, or who uploaded it may not.
fn may_decide_alone(seen: &Seen, document: &str) -> Result<(), Failure> {
    let asked = seen.spec["requiredDocuments"].as_array().into_iter().flatten().find(|one| one["name"] == document);
    let review = asked.map_or(&Value::Null, |one| &one["review"]);
    if review["minApprovals"].as_u64().unwrap_or(1) > 1 || review["separationOfDuties"] == true {
        return Err(failed(format!(
            "the review of {} asks for votes; see kubectl get approvals, then kubectl file360 approve or reject NAME",
            line(document, 63)
        )));
    }
    Ok(())
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

/// What the operator recorded of a version, if that is in review for the document with this content. The status alone is no proof: others
/// may write it.
fn in_review(recorded: Option<&Value>, document: &str, sha256: &str) -> Result<Recorded, Failure> {
    let recorded: Option<Recorded> = recorded.and_then(parse);
    let waits = |one: &Recorded| one.name == document && one.state == DocumentState::InReview && one.sha256 == sha256;
    recorded.filter(waits).ok_or_else(|| {
        failed(format!("the operator has no such version of {} in review; look again, then decide", line(document, 63)))
    })
}

/// The first decision about a version stands: File 360 takes one only while there is none, so that of two at the same time one counts.
async fn record(tenant: &Tenant, item: &Item, version: u64, decision: &Decision) -> Result<(), Failure> {
    let made = decisions::make(&*tenant.driver, &item.id, version, decision).await.map_err(|error| refused(&error))?;
    match made {
        Made::New => Ok(()),
        Made::Before(by) => {
            let by = line(&by, 254);
            Err(failed(format!("version {version} was decided before, by {by}; a decision is not taken back")))
        }
    }
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

    #[test]
    fn nobody_decides_alone_where_several_have_to_or_the_uploader_may_not() {
        let may = |review: Value| {
            let object = json!({"apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace", "metadata": {"name": "acme", "namespace": "ns"},
                "spec": {"requiredDocuments": [{"name": "iso", "match": {"path": "/**"}, "review": review}]}});
            may_decide_alone(&Seen::of(Kind::SecureWorkspace, &serde_json::from_value(object).unwrap()), "iso").is_ok()
        };
        assert!(may(json!({"required": true})) && may(json!({"required": true, "minApprovals": 1})));
        assert!(!may(json!({"required": true, "minApprovals": 2})));
        assert!(!may(json!({"required": true, "separationOfDuties": true})));
    }

    #[test]
    fn only_what_was_reviewed_is_decided() {
        let check = |reviewed: Reviewed<'_>| reviewed.check("f1", 2, "ab12").is_ok();
        let all = || Reviewed { file: Some("f1"), version: Some(2), sha256: Some("AB12") };
        assert!(check(all()) && check(Reviewed::default()));
        assert!(!check(Reviewed { file: Some("f2"), ..all() }));
        assert!(!check(Reviewed { version: Some(1), ..all() }));
        assert!(!check(Reviewed { sha256: Some("ab13"), ..all() }));
    }

    #[test]
    fn t6_only_what_the_operator_recorded_as_in_review_is_decided() {
        let recorded = |name: &str, state: &str| json!({"name": name, "state": state, "date": "2028-01-31", "receivedAt": "2027-01-01T00:00:00Z", "sha256": "ab"});
        let waits = |value: Option<&Value>| in_review(value, "iso", "ab").ok();
        assert_eq!(waits(Some(&recorded("iso", "InReview"))).unwrap().date.as_deref(), Some("2028-01-31"));
        assert!(waits(Some(&recorded("other", "InReview"))).is_none());
        assert!(waits(Some(&recorded("iso", "Approved"))).is_none());
        assert!(waits(Some(&json!({"state": "InReview"}))).is_none() && waits(None).is_none());
        assert!(in_review(Some(&recorded("iso", "InReview")), "iso", "other content").is_err());
    }
}
