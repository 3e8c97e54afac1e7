//! A converged world, shared by the scenarios that begin with one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::field::Field;
use crate::measure::rss_bytes;
use crate::stage::{Operator, Stage};

/// Echoes of the last writes have come back after this long.
const SETTLE: Duration = Duration::from_secs(10);

/// Workspaces that are ready, and the operator that made them.
pub struct Settled {
    /// Tenant and namespace.
    pub field: Field,
    /// Ids of the workspaces.
    pub ids: Vec<String>,
    /// The operator.
    pub operator: Operator,
    /// Its memory before there was any workspace.
    pub empty_rss_bytes: u64,
}

/// Makes one.
pub async fn settled(stage: &Stage, size: usize) -> Settled {
    settled_with(stage, size, &[]).await
}

/// Makes one whose operator has more flags.
pub async fn settled_with(stage: &Stage, size: usize, flags: &[&str]) -> Settled {
    let field = Field::new(stage, &fresh_name("bench-settled")).await;
    field.connect().await;
    let operator = stage.operator_with(flags);
    operator.leads().await;
    operator.caught_up().await;
    let empty_rss_bytes = rss_bytes(operator.pid());
    let (_, ids) = tokio::join!(field.create(size), field.all_ready(size));
    tokio::time::sleep(SETTLE).await;
    Settled { field, ids, operator, empty_rss_bytes }
}

/// A name that no other namespace of this run has.
pub fn fresh_name(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}
