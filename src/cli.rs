//! The command line: one file for each subcommand.

pub mod check;
pub mod crds;
mod offline;
mod offline_sets;
pub mod process;
pub mod queue;
pub mod run;
pub mod serve;
pub mod worker;

use clap::{Parser, Subcommand};

use crate::telemetry::logs::{self, LogFormat};

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
    /// Do the work of FileRoutes that `run --queue` puts on a queue; any number of these may run.
    Worker(Box<worker::WorkerArgs>),
    /// Run the embedded File 360: for development, demos, CI and contract tests.
    Serve(Box<serve::ServeArgs>),
    /// Print the CustomResourceDefinitions, or write them to a folder.
    Crds(crds::CrdsArgs),
    /// Validate manifests without a cluster: schemas, rules, and what the operator itself would refuse. Tests of FileRoutes run.
    Check(check::CheckArgs),
}

/// Runs the command; the error is a sentence for people.
pub async fn run(cli: Cli) -> Result<(), String> {
    match cli.command {
        Command::Run(args) => run::run(*args).await,
        Command::Worker(args) => worker::run(*args).await,
        Command::Serve(args) => {
            logs::start("info", LogFormat::Auto)?;
            serve::run(*args).await.map_err(|error| error.to_string())
        }
        Command::Crds(args) => crds::run(&args),
        Command::Check(args) => check::run(&args),
    }
}
