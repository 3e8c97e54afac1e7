//! Behaviour of the embedded File 360, over real HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod feed;
mod fencing;
mod folders;
mod idempotency;
mod members;
mod sharing;
mod tokens;
mod workspaces;
