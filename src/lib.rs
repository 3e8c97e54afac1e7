//! file360-operator: makes OpenText File 360 match what Kubernetes manifests declare.
//!
//! Modules depend on each other in one direction: `cli` → `controllers` → `reconcile`, `session` → `file360`; `server` is the
//! embedded File 360 and shares only [`file360::model`] with the rest.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod api;
pub mod cli;
pub mod controllers;
pub mod documents;
pub mod error;
pub mod expression;
pub mod file360;
pub mod hex;
pub mod inbound;
pub mod leader;
pub mod outbound;
pub mod plugin;
pub mod queue;
pub mod reconcile;
pub mod redacted;
pub mod reports;
pub mod routes;
pub mod server;
pub mod session;
pub mod sets;
pub mod telemetry;
