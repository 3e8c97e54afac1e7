//! Structured logs: text on a terminal, JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is a level, or directives such as `info,file360_operator=debug`.
pub fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log {filter}: {error}"))?;
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !std::io::stderr().is_terminal());
    let result = if json {
        fmt().with_env_filter(filter).with_writer(std::io::stderr).json().flatten_event(true).try_init()
    } else {
        fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init()
    };
    result.map_err(|error| error.to_string())
}
