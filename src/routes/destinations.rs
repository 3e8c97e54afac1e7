//! The places that files go to: one module each, behind one trait, held to one behaviour suite (`tests/destinations`).

pub mod object_store;
