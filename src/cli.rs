//! The command line: one file for each subcommand.

pub mod check;
pub mod crds;
pub mod run;

use clap::{Parser, Subcommand};

/// Makes OpenText File 360 match what Kubernetes manifests declare.
#[derive(Debug, Parser)]
#[command(name = "file360-operator", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator.
    Run(Box<run::RunArgs>),
    /// Print the CustomResourceDefinitions, or write them to a folder.
    Crds(crds::CrdsArgs),
    /// Validate manifests without a cluster: schemas, rules, and what the operator itself would refuse.
    Check(check::CheckArgs),
}

/// Runs the command; the error is a sentence for people.
pub async fn run(cli: Cli) -> Result<(), String> {
    match cli.command {
        Command::Run(args) => run::run(*args).await,
        Command::Crds(args) => crds::run(&args),
        Command::Check(args) => check::run(&args),
    }
}
