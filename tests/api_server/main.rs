//! The operator's own process against a real API server and the embedded File 360. Asserts the state of the world, never the
//! calls that were made; runs under the operator's ServiceAccount with the generated role.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::float_cmp)]

#[path = "../support/mod.rs"]
mod support;

mod connection_fields;
mod connections;
mod convergence;
mod crash_points;
mod deletion;
mod documents;
mod documents_crash_points;
mod documents_reviews;
mod drift;
mod faults;
mod fields;
mod fields_routes;
mod fields_sets;
mod gates;
mod gates_crash_points;
mod gates_votes;
mod leadership;
mod moving;
mod plugin;
mod queue;
mod refusals;
mod refusals_routes;
mod reports;
mod reports_crash_points;
mod routes;
mod routes_crash_points;
mod routes_destinations;
mod routes_inventory;
mod routes_kills;
mod routes_tenancy;
mod sets;
mod sets_crash_points;
mod sets_events;
mod silence;
mod tenancy;
mod transitions;
mod webdav;
