//! `crds`: the CustomResourceDefinitions and the roles, as files of this project are made from them.

use std::path::PathBuf;

use clap::Args;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::ObjectMeta;
use serde::Serialize;

use crate::api::{crds, rbac};

/// Arguments of `crds`.
#[derive(Debug, Args)]
pub struct CrdsArgs {
    /// Write one file for each kind into this folder instead of printing.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The operator's roles instead of the CRDs.
    #[arg(long)]
    rbac: bool,
}

/// Prints or writes the documents.
pub fn run(args: &CrdsArgs) -> Result<(), String> {
    let documents = if args.rbac { role_documents()? } else { documents()? };
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

fn named(name: &str) -> ObjectMeta {
    let labels = [("app.kubernetes.io/name".to_owned(), "file360-operator".to_owned())];
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() }
}

fn yaml(value: &impl Serialize) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| error.to_string())
}
