//! Where the operator calls out to: which addresses are fine, with which credentials.

pub mod broker;
pub mod cloud_event;
pub mod guard;
pub mod http;
pub mod object_store;
pub mod opensearch;
pub mod secrets;
pub mod shared;
pub mod trust;
