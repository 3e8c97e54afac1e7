//! Required documents: what counts as one, for how long, and in which state a requirement is. Pure, but for [`decisions`], which writes one down.
//!
//! [`calendar`] turns dates and periods into instants, [`machine`] says what follows from them at a given time, [`rules`] compiles what a
//! spec asks for, [`record`] is what is kept in File 360 beside each version, and [`judge`] puts them together.

pub mod calendar;
pub mod decisions;
pub mod judge;
pub mod machine;
pub mod record;
pub mod rules;
