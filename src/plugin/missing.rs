//! `missing`: required documents that are outstanding, across workspaces.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster::{Cluster, Target};
use super::object::{Kind, Seen};
use super::text::{Printer, age, line, table};
use super::{Access, Outcome, Output, yaml};
use crate::api::documents::DocumentState;
use crate::documents::machine::is_met;

/// Texts of a table are cut to this length.
const SHORT: usize = 100;

/// Arguments of `missing`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl file360 missing -A
  kubectl file360 missing -n procurement acme --expiring
  kubectl file360 missing -A -o json

Lists what is Missing, Received, InReview, Rejected or Expired, and new versions that wait beside one that still counts.
Exit code 1: something is outstanding.")]
pub struct MissingArgs {
    /// One SecureWorkspace. Default: all of the namespace.
    name: Option<Target>,
    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// Also what expires soon.
    #[arg(long)]
    expiring: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Prints; whether nothing is outstanding.
pub async fn run(access: &Access, args: &MissingArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    let mut seen = match &args.name {
        Some(target) => vec![cluster.get(&target.clone().workspace()?).await?],
        None => {
            let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
            cluster.list(Kind::SecureWorkspace, namespace).await?
        }
    };
    seen.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let rows: Vec<Row> = seen.iter().flat_map(|seen| rows(seen, args.expiring)).collect();
    if args.output == Output::Table {
        if rows.is_empty() {
            printer.note("Nothing is outstanding.");
        } else {
            printer.print(&listed(&rows, args.all_namespaces, Timestamp::now()));
        }
    } else {
        let data: Vec<Value> = rows.iter().map(Row::json).collect();
        printer.print(&yaml::render(&data, args.output)?);
    }
    Ok(!rows.iter().any(|row| row.is_outstanding))
}

/// One requirement.
struct Row {
    namespace: String,
    workspace: String,
    document: String,
    state: String,
    reason: Option<String>,
    since: Option<Timestamp>,
    valid_until: Option<String>,
    file: Option<String>,
    version: Option<i64>,
    message: String,
    is_outstanding: bool,
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "namespace": self.namespace, "workspace": self.workspace, "document": self.document, "state": self.state,
            "reason": self.reason, "since": self.since, "validUntil": self.valid_until, "fileId": self.file,
            "version": self.version, "message": self.message,
        })
    }
}

/// What a status tells; a state that this plugin does not know is shown, and counts as outstanding.
fn rows(seen: &Seen, expiring: bool) -> Vec<Row> {
    let requirements = seen.status["requirements"].as_array();
    requirements.into_iter().flatten().filter_map(|one| row(seen, one, expiring)).collect()
}

fn row(seen: &Seen, one: &Value, expiring: bool) -> Option<Row> {
    let state: Option<DocumentState> = serde_json::from_value(one["state"].clone()).ok();
    let replacement = one.get("replacement").filter(|replacement| replacement.is_object());
    let waits = replacement.is_some_and(|replacement| replacement["state"] == "InReview");
    let is_outstanding = state.is_none_or(|state| !is_met(state));
    let is_shown = is_outstanding || waits || expiring && state == Some(DocumentState::ExpiringSoon);
    // Beside one that counts, the new version is what there is to do.
    let about = if is_outstanding { one } else { replacement.filter(|_| waits).unwrap_or(one) };
    let text = |value: &Value, name: &str| value[name].as_str().map(|text| line(text, 512));
    let state_text = text(one, "state").unwrap_or_default();
    is_shown.then(|| Row {
        namespace: seen.namespace.clone(),
        workspace: seen.name.clone(),
        document: text(one, "name").unwrap_or_default(),
        state: if waits && !is_outstanding { format!("{state_text} (new version InReview)") } else { state_text },
        reason: text(about, "reason"),
        since: text(one, "since").and_then(|since| since.parse().ok()),
        valid_until: text(one, "validUntil"),
        file: text(about, "fileId"),
        version: about["version"].as_i64(),
        message: text(about, "message").unwrap_or_default(),
        is_outstanding,
    })
}

fn listed(rows: &[Row], with_namespace: bool, now: Timestamp) -> String {
    let mut header = vec!["WORKSPACE", "DOCUMENT", "STATE", "REASON", "SINCE", "VALID UNTIL", "FILE", "MESSAGE"];
    if with_namespace {
        header.insert(0, "NAMESPACE");
    }
    let cells = |row: &Row| {
        let file = row.file.as_ref().map(|file| match row.version {
            Some(version) => format!("{file}@{version}"),
            None => file.clone(),
        });
        let mut cells = vec![
            row.workspace.clone(),
            row.document.clone(),
            row.state.clone(),
            row.reason.clone().unwrap_or_default(),
            age(row.since, now),
            row.valid_until.clone().unwrap_or_default(),
            file.unwrap_or_default(),
            line(&row.message, SHORT),
        ];
        if with_namespace {
            cells.insert(0, row.namespace.clone());
        }
        cells
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(requirements: &Value) -> Seen {
        let object = json!({"apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace",
            "metadata": {"name": "acme", "namespace": "ns"}, "status": {"requirements": requirements}});
        Seen::of(Kind::SecureWorkspace, &serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_is_outstanding_is_listed_and_what_counts_is_not() {
        let seen = seen(&json!([
            {"name": "a", "state": "Approved", "fileId": "f1", "version": 1},
            {"name": "b", "state": "Missing"},
            {"name": "c", "state": "Rejected", "reason": "NotAccepted", "fileId": "f2", "version": 2, "message": "too\u{1b} large"},
            {"name": "d", "state": "ExpiringSoon", "fileId": "f3", "version": 1},
            {"name": "e", "state": "Approved", "fileId": "f4", "version": 1,
                "replacement": {"state": "InReview", "fileId": "f4", "version": 2}},
            {"name": "f", "state": "Waived"},
            {"name": "g", "state": "SomethingNew"},
        ]));
        let listed = |expiring| rows(&seen, expiring).iter().map(|row| row.document.clone()).collect::<Vec<_>>();
        assert_eq!(listed(false), ["b", "c", "e", "g"]);
        assert_eq!(listed(true), ["b", "c", "d", "e", "g"]);
        let rows = rows(&seen, false);
        assert_eq!((rows[2].version, rows[2].is_outstanding), (Some(2), false), "the new version is what there is to do");
        assert_eq!(rows[1].message, "too  large");
    }
}
