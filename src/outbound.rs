//! Where the operator calls out to: which addresses are fine, with which credentials.

pub mod guard;
pub mod http;
pub mod object_store;
pub mod secrets;
