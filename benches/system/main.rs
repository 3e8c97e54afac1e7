//! Benchmarks of the whole system: the operator and the embedded File 360 as processes of their own, and a real API server.
//!
//! `cargo bench --bench system -- SCENARIO… [--size N]… [--seconds N] [--changes N] [--operator PATH]`
//!
//! Each run prints one JSON line and measures its own limit, so that the result is a ratio. `docs/performance.md` explains them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(clippy::pedantic, reason = "linted with the tests, whose code it is")]
#[path = "../../tests/support/mod.rs"]
mod support;

mod converge;
mod copy;
mod drift;
mod fairness;
mod field;
mod idle;
mod loader;
mod measure;
mod outage;
mod restart;
mod route;
mod rules;
mod server;
mod settled;
mod stage;
mod tenant;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde_json::Value;
use stage::Stage;

#[derive(Parser)]
struct Args {
    /// What to run; `idle`, `restart` and `drift` of one size share a converged world.
    #[arg(value_enum, required = true)]
    scenarios: Vec<Scenario>,
    /// Workspaces; repeat it for several runs.
    #[arg(long = "size", default_values_t = [1_000], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sizes: Vec<u32>,
    /// How long `idle` looks.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Changes that `drift` makes, each in a workspace of its own, and that `fairness` makes in each of its two phases.
    /// Default: 200, and 100.
    #[arg(long)]
    changes: Option<usize>,
    /// Runs of `converge` for one line; of the operator and of the loader the best counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Small files of `route`.
    #[arg(long, default_value_t = 10_000)]
    files: usize,
    /// Large files of `route`, each of `--large-bytes`.
    #[arg(long, default_value_t = 4)]
    large: usize,
    /// Bytes of each large file: a multiple of 1 MiB.
    #[arg(long, default_value_t = 1 << 30)]
    large_bytes: u64,
    /// Program under test. Default: the one that cargo built for this benchmark.
    #[arg(long)]
    operator: Option<PathBuf>,
    /// Cargo says it to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Converge,
    Idle,
    Restart,
    Drift,
    Fairness,
    Outage,
    Server,
    Route,
    Rules,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    support::install_crypto();
    let program = args.operator.clone().unwrap_or_else(|| support::OPERATOR.into());
    if args.wants(&[Scenario::Server]) {
        for size in &args.sizes {
            print(&server::run(&program, *size as usize).await);
        }
    }
    if args.wants(&[Scenario::Rules]) {
        print(&rules::run(3));
    }
    if args.scenarios.iter().all(|scenario| matches!(scenario, Scenario::Server | Scenario::Rules)) {
        return ExitCode::SUCCESS;
    }
    let mut stage = Stage::start(program).await;
    let mut void = false;
    if args.wants(&[Scenario::Route]) {
        let (small, large, large_bytes) = (args.files, args.large, args.large_bytes);
        for line in route::run(&stage, &route::Sizes { small, small_bytes: 8192, large, large_bytes }).await {
            void |= line.get("void").is_some();
            print(&line);
        }
    }
    for size in &args.sizes {
        let size = *size as usize;
        if args.wants(&[Scenario::Converge]) {
            let report = converge::run(&mut stage, size, args.rounds.into()).await;
            void |= report.get("void").is_some();
            print(&report);
        }
        if args.wants(&[Scenario::Idle, Scenario::Restart, Scenario::Drift]) {
            on_a_converged_world(&mut stage, &args, size).await;
        }
        if args.wants(&[Scenario::Fairness]) {
            print(&fairness::run(&stage, size, args.changes.unwrap_or(100)).await);
        }
        if args.wants(&[Scenario::Outage]) {
            print(&outage::run(&mut stage, size).await);
        }
    }
    if void {
        eprintln!("A run is void: see \"void\" in its line.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

impl Args {
    fn wants(&self, any: &[Scenario]) -> bool {
        any.iter().any(|scenario| self.scenarios.contains(scenario))
    }
}

async fn on_a_converged_world(stage: &mut Stage, args: &Args, size: usize) {
    let mut world = settled::settled(stage, size).await;
    if args.wants(&[Scenario::Idle]) {
        print(&idle::run(stage, &world, Duration::from_secs(args.seconds)).await);
    }
    if args.wants(&[Scenario::Restart]) {
        let (next, report) = restart::run(stage, world).await;
        world = next;
        print(&report);
    }
    if args.wants(&[Scenario::Drift]) {
        print(&drift::run(stage, &world, args.changes.unwrap_or(200).min(size)).await);
    }
    world.operator.stop();
    world.field.end().await;
}

fn print(report: &Value) {
    println!("{report}");
}
