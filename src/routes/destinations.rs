//! The places that files go to: one module each, behind one trait, held to one behaviour suite (`tests/destinations`).

pub mod broker;
pub mod event;
pub mod file360;
pub mod http;
pub mod index;
pub mod object_store;
