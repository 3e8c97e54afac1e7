//! More than one machine: the leader puts the tries of files on a JetStream stream, workers do them (docs/scaling.md).
//!
//! Two streams, both work queues. On one the leader publishes jobs; a worker that takes one keeps its lease until it has published the answer on
//! the other, and only then acknowledges the job. The leader acknowledges an answer once its record is durable. So at every moment a piece of work
//! is in the checkpoint's window or a record, and besides it is a job, an answer, or neither; what is neither is published again.

pub mod leader;
pub mod link;
pub mod message;
pub mod worker;
