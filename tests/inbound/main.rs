//! The operator's inbound endpoint over real connections, in front of the real embedded File 360.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::needless_pass_by_value, reason = "bodies are written where they are sent")]

#[allow(dead_code, reason = "shared with the tests of the embedded File 360")]
#[path = "../file360_server/support.rs"]
mod file360;
mod support;

mod bodies;
mod documented;
mod forms;
mod names;
mod replays;
mod signatures;
mod transport;
