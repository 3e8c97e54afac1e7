//! `crds`: the CustomResourceDefinitions.

use std::path::PathBuf;

use clap::Args;

use crate::api::crds;

/// Arguments of `crds`.
#[derive(Debug, Args)]
pub struct CrdsArgs {
    /// Write one file for each kind into this folder instead of printing.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints or writes the CRDs.
pub fn run(args: &CrdsArgs) -> Result<(), String> {
    for (name, text) in documents()? {
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
    crds::all()
        .iter()
        .map(|crd| {
            let name = format!("file360.io_{}.yaml", crd.spec.names.plural);
            let text = serde_saphyr::to_string(crd).map_err(|error| error.to_string())?;
            Ok((name, text))
        })
        .collect()
}
