//! Where bytes and events go.

pub mod guard;
