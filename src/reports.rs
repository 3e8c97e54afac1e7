//! Reports: what a workspace tells other systems about itself.
//!
//! What happens is read from the change feed, or said by a pass, and kept in an [`outbox`] in File 360 until every system that asked for it has
//! it: one document per workspace, so that nothing depends on this process (R1). Every event has an id of its own that stays, and each system
//! gets the events of a workspace in their order. An outbox is bounded; what gives way is counted and told.

pub mod event;
pub mod hosts;
pub mod mailbox;
pub mod outbox;
