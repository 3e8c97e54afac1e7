//! The route engine: files from a source, by rules, to destinations, with nothing lost.

pub mod delivery;
pub mod destinations;
pub mod environment;
pub mod rules;
