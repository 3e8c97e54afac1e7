//! The route engine: files from a source, by rules, to destinations, with nothing lost.

pub mod attempts;
pub mod build;
pub mod content;
pub mod dead_letters;
pub mod delivery;
pub mod destinations;
pub mod dry_run;
pub mod engine;
pub mod environment;
pub mod gate;
pub mod inventory;
pub mod items;
pub mod ledger;
pub mod objects;
pub mod paths;
pub mod queue;
pub mod reader;
pub mod recorded;
pub mod route;
pub mod rules;
pub mod window;
pub mod work;
