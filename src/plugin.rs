//! The kubectl plugin `kubectl file360`: one file for each command.
//!
//! It acts with the rights of whoever runs it, prints no Secret, and cleans every text that comes from a server before it
//! reaches a terminal.

#![allow(clippy::doc_markdown, reason = "doc comments of arguments are their help text")]

mod approve_plan;
mod cluster;
mod documents;
mod import;
mod inventory;
mod missing;
mod object;
mod plan;
mod reasons;
mod reconcile;
mod replay;
mod status;
mod suspend;
mod tenant;
mod text;
mod vote;
mod why;
mod yaml;

use clap::{Args, Parser, Subcommand, ValueEnum};

use text::Printer;

/// Looks after File 360 resources: what is wrong and what to do, what would be changed, run now, suspend, replay, inventory, approve, required documents, import.
///
/// Exit codes: 0 fine, 1 failed or not ready, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "kubectl-file360", bin_name = "kubectl file360", version, max_term_width = 110)]
pub struct Plugin {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

/// Which cluster and namespace.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct Access {
    /// Namespace. Default: the one of the kubeconfig's context.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig. Default: its current one.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Path of the kubeconfig. Default: $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show Connections, SecureWorkspaces and FileRoutes, or everything about one of them.
    Status(status::StatusArgs),
    /// Say why a resource is not ready: cause, evidence, next step.
    Why(why::WhyArgs),
    /// Show what would be done in File 360, without doing it.
    Plan(plan::PlanArgs),
    /// Run a resource now and wait until it was handled.
    Reconcile(reconcile::ReconcileArgs),
    /// Stop changes to a resource's workspace, or a route; the operator goes on observing.
    Suspend(suspend::SuspendArgs),
    /// End a suspension.
    Resume(suspend::ResumeArgs),
    /// Try deliveries of a FileRoute again that were given up.
    Replay(replay::ReplayArgs),
    /// Count both ends of a FileRoute: source, records, destinations.
    Inventory(inventory::InventoryArgs),
    /// Approve the plan of a SecureWorkspace with `mode: Approve`.
    ApprovePlan(approve_plan::ApprovePlanArgs),
    /// List required documents that are outstanding, across workspaces.
    Missing(missing::MissingArgs),
    /// Decide about required documents.
    #[command(subcommand)]
    Documents(documents::DocumentsCommand),
    /// Approve what a gate or a required document holds back: your vote on an Approval.
    Approve(vote::VoteArgs),
    /// Reject what a gate or a required document holds back.
    Reject(vote::VoteArgs),
    /// Print manifests for workspaces that exist in File 360 already.
    Import(import::ImportArgs),
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub enum Failure {
    /// The arguments do not fit together.
    Usage(String),
    /// It failed.
    Failed(String),
}

/// How a command ended: whether everything it looked at is ready.
pub type Outcome = Result<bool, Failure>;

/// A failure with a sentence for people.
fn failed(message: impl Into<String>) -> Failure {
    Failure::Failed(message.into())
}

/// Runs the command; the exit code.
pub async fn run(plugin: Plugin) -> u8 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let printer = Printer::default();
    let access = &plugin.access;
    let outcome = match plugin.command {
        Command::Status(args) => status::run(access, &args, &printer).await,
        Command::Why(args) => why::run(access, &args, &printer).await,
        Command::Plan(args) => Box::pin(plan::run(access, &args, &printer)).await,
        Command::Reconcile(args) => reconcile::run(access, &args, &printer).await,
        Command::Suspend(args) => suspend::suspend(access, &args, &printer).await,
        Command::Resume(args) => suspend::resume(access, &args, &printer).await,
        Command::Replay(args) => replay::run(access, &args, &printer).await,
        Command::Inventory(args) => inventory::run(access, &args, &printer).await,
        Command::ApprovePlan(args) => approve_plan::run(access, &args, &printer).await,
        Command::Missing(args) => missing::run(access, &args, &printer).await,
        Command::Documents(command) => documents::run(access, &command, &printer).await,
        Command::Approve(args) => vote::approve(access, &args, &printer).await,
        Command::Reject(args) => vote::reject(access, &args, &printer).await,
        Command::Import(args) => import::run(access, &args, &printer).await,
    };
    match outcome {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(Failure::Failed(message)) => {
            printer.note(&format!("error: {message}"));
            1
        }
        Err(Failure::Usage(message)) => {
            printer.note(&format!("error: {message}\n\nFor more information, try '--help'."));
            2
        }
    }
}
