//! The kubectl plugin: parses the arguments, runs the command, turns its end into an exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use file360_operator::plugin::{self, Plugin};

fn main() -> ExitCode {
    let plugin = Plugin::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    ExitCode::from(runtime.block_on(plugin::run(plugin)))
}
