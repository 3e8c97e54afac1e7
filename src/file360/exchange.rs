//! One HTTP exchange with a tenant, as every driver needs it: limits, credential, breaker, bounds, streams, typed errors.

mod auth;
mod rate_limit;
mod slots;
mod streams;
mod transport;

pub use auth::Credential;
pub use transport::{Observer, Settings, Transport};

pub(in crate::file360) use streams::{Arriving, Leaving};
pub(in crate::file360) use transport::{Answer, Call, segment};
