//! Behaviour of the embedded File 360, over real HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::needless_pass_by_value, reason = "bodies are written where they are sent")]

mod driver;
mod support;

mod access;
mod audit;
mod client_state;
mod content;
mod contract;
mod durability;
mod feed;
mod fencing;
mod files;
mod folders;
mod governance;
mod idempotency;
mod listing;
mod members;
mod pages;
mod sharing;
mod tokens;
mod workspaces;
