//! `crds`: the CustomResourceDefinitions and the roles, as files of this project are made from them.

use std::path::PathBuf;

use clap::Args;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::ObjectMeta;
use serde::Serialize;

use crate::api::{admission, crds, rbac};

/// Arguments of `crds`.
#[derive(Debug, Args)]
pub struct CrdsArgs {
    /// Write one file for each kind into this folder instead of printing.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The operator's roles instead of the CRDs.
    #[arg(long)]
    rbac: bool,
    /// The policy that keeps votes on Approvals honest, instead of the CRDs.
    #[arg(long, conflicts_with = "rbac")]
    admission: bool,
}

/// Prints or writes the documents.
pub fn run(args: &CrdsArgs) -> Result<(), String> {
    let documents = match (args.rbac, args.admission) {
        (true, _) => role_documents()?,
        (_, true) => admission_documents()?,
        _ => documents()?,
    };
    for (name, text) in documents {
        match &args.out {
            None => println!("---\n{text}"),
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
                let path = folder.join(name);
                std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// File name and YAML text of each CRD.
pub fn documents() -> Result<Vec<(String, String)>, String> {
    crds::all().iter().map(|crd| Ok((format!("file360.io_{}.yaml", crd.spec.names.plural), yaml(crd)?))).collect()
}

/// File name and YAML text of each role: for all namespaces, and for the operator's own.
pub fn role_documents() -> Result<Vec<(String, String)>, String> {
    let cluster = |name: &str, rules: Vec<PolicyRule>| {
        yaml(&ClusterRole { metadata: named(name), rules: Some(rules), ..ClusterRole::default() })
    };
    Ok(vec![
        ("manager-role.yaml".into(), cluster("file360-operator", [rbac::manager(), rbac::cluster()].concat())?),
        ("worker-role.yaml".into(), cluster("file360-operator-worker", [rbac::worker(), rbac::worker_cluster()].concat())?),
        (
            "leader-election-role.yaml".into(),
            yaml(&Role { metadata: named("file360-operator-leader-election"), rules: Some(rbac::leader_election()) })?,
        ),
    ])
}

/// File name and YAML text of the policy for votes and its binding.
pub fn admission_documents() -> Result<Vec<(String, String)>, String> {
    let policy = yaml(&admission::policy(admission::NAME, admission::DEFAULT_OPERATOR))?;
    let binding = yaml(&admission::binding(admission::NAME))?;
    Ok(vec![("approvals.yaml".into(), format!("{policy}---\n{binding}"))])
}

fn named(name: &str) -> ObjectMeta {
    let labels = [("app.kubernetes.io/name".to_owned(), "file360-operator".to_owned())];
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() }
}

fn yaml(value: &impl Serialize) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| error.to_string())
}
