//! Gates are looked at again: a policy that somebody else took away is put back.
//!
//! All of them when a session begins and once an hour; those of a workspace when the feed tells of a change to one of its policies or folders.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;
use tracing::warn;

use super::pass::View;
use super::register::Entry;
use super::{AT_ONCE, Gates};
use crate::error::{Error, Result, clean};
use crate::file360::Cause;
use crate::file360::model::{Change, ChangeKind};

/// All gates are looked at this often, whatever was heard.
const EVERYTHING: Duration = Duration::from_hours(1);

/// Which gates have to be looked at. At first: all.
#[derive(Debug, Default)]
pub(super) struct Unverified {
    /// When all of them were looked at; `None`: they have to be.
    all: Option<Instant>,
    /// Workspaces in which something changed.
    workspaces: HashSet<String>,
}

/// What a pass takes upon itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    All,
    Of(HashSet<String>),
}

impl Due {
    fn has(&self, workspace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(workspaces) => workspaces.contains(workspace),
        }
    }
}

impl Unverified {
    /// Takes up what the feed says; whether a gate may have been opened.
    pub fn heard(&mut self, changes: &[Change]) -> bool {
        let mut may_open = false;
        for change in changes.iter().filter(|change| may_open_a_gate(change.kind)) {
            may_open = true;
            match &change.workspace_id {
                Some(workspace) => drop(self.workspaces.insert(workspace.clone())),
                None => self.all = None,
            }
        }
        may_open
    }

    /// Something was not heard.
    pub fn everything(&mut self) {
        self.all = None;
    }

    /// What has to be looked at now. It does not have to be after that, unless it is given back.
    pub fn take(&mut self, now: Instant) -> Due {
        let workspaces = std::mem::take(&mut self.workspaces);
        if self.all.is_some_and(|then| now.saturating_duration_since(then) < EVERYTHING) {
            return Due::Of(workspaces);
        }
        self.all = Some(now);
        Due::All
    }

    fn again(&mut self, workspace: String) {
        self.workspaces.insert(workspace);
    }
}

fn may_open_a_gate(kind: ChangeKind) -> bool {
    matches!(
        kind,
        ChangeKind::GovernanceChanged | ChangeKind::FolderChanged | ChangeKind::WorkspaceRestored | ChangeKind::Unknown
    )
}

impl Gates {
    /// Looks at the gates that have to be looked at, and closes those that are open; the last failure. One that fails is looked at by the next pass
    /// again and keeps no other waiting.
    pub(super) async fn verify(&self, view: &View<'_>) -> Option<Error> {
        let due = view.tenant.unverified.lock().take(Instant::now());
        let gates = view.register.all().into_iter().map(|(_, entry)| entry).filter(|entry| due.has(&entry.workspace));
        let looks: Vec<BoxFuture<'_, Option<Error>>> = gates
            .map(|entry| {
                async move {
                    let error = self.look_at(view, &entry).await.err()?;
                    warn!(route = %entry.key(), workspace = entry.workspace, %error, "It is not known whether a gate is closed");
                    view.tenant.unverified.lock().again(entry.workspace);
                    Some(error.while_doing("look whether a gate is closed"))
                }
                .boxed()
            })
            .collect();
        futures::stream::iter(looks).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect::<Vec<_>>().await.pop()
    }

    async fn look_at(&self, view: &View<'_>, entry: &Entry) -> Result<()> {
        let cause = Cause("gate/verify".to_owned());
        if !view.register.verify(&*view.tenant.session.driver, entry, &cause).await? {
            return Ok(());
        }
        self.ctx.metrics.gates_restored.inc();
        let (route, workspace, path) = (entry.key(), &entry.workspace, clean(&entry.path, 256));
        warn!(%route, workspace, path, "A gate was open and is closed again");
        if let Some(route) = view.routes.get(&route) {
            let note = format!(
                "somebody had opened the gate on {path} of workspace {workspace}; it is closed again. What came in between did not wait: File \
                 360's audit log has it"
            );
            self.ctx.event(&*route.object, true, "GateRestored", &note).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(kind: &str, workspace: Option<&str>) -> Change {
        let change = json!({"sequence": 1, "id": "c", "time": "2026-01-01T00:00:00Z", "type": kind, "workspaceId": workspace,
            "actor": {"kind": "User", "name": "mallory"}});
        serde_json::from_value(change).expect("a change")
    }

    #[tokio::test(start_paused = true)]
    async fn a1_all_gates_are_looked_at_first_then_those_that_the_feed_names_and_all_again_after_an_hour() {
        let mut unverified = Unverified::default();
        assert_eq!(unverified.take(Instant::now()), Due::All);
        assert_eq!(unverified.take(Instant::now()), Due::Of(HashSet::new()));
        assert!(!unverified.heard(&[change("fileUploaded", Some("a")), change("linkChanged", Some("b"))]));
        assert!(unverified.heard(&[change("fileUploaded", Some("a")), change("governanceChanged", Some("b"))]));
        assert!(unverified.heard(&[change("folderChanged", Some("c"))]));
        let due = unverified.take(Instant::now());
        assert!(!due.has("a") && due.has("b") && due.has("c"));
        unverified.again("b".into());
        assert!(unverified.take(Instant::now()).has("b"), "one that could not be looked at");
        assert!(unverified.heard(&[change("governanceChanged", None)]));
        assert_eq!(unverified.take(Instant::now()), Due::All, "nobody says where");
        unverified.everything();
        assert_eq!(unverified.take(Instant::now()), Due::All, "a page was missed");
        tokio::time::advance(EVERYTHING).await;
        assert_eq!(unverified.take(Instant::now()), Due::All);
    }
}
