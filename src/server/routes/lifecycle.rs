//! The life of a workspace: archive, trash, restore, purge.

use jiff::SignedDuration;
use rusqlite::params;
use serde::Deserialize;

use super::{Outcome, workspaces};
use crate::file360::model::{ChangeKind, WorkspaceState};
use crate::server::authorize::{Target, WorkspaceFacts};
use crate::server::call::Answer;
use crate::server::records::workspaces as records;
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx};

const DEFAULT_GRACE_SECONDS: u64 = 30 * 86_400;
const LONGEST_GRACE_SECONDS: u64 = 3650 * 86_400;

#[derive(Deserialize)]
struct Transition {
    to: WorkspaceState,
}

/// `POST /v1/workspaces/{id}/transitions`
pub fn transition(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let before = records::by_id(tx, tx.call.param("id"))?;
    before.authorize(tx)?;
    let Transition { to } = tx.call.json()?;
    tx.call.require_match(&before.public.etag)?;
    let state = match to {
        WorkspaceState::Active => 0,
        WorkspaceState::Archived => 1,
        WorkspaceState::Trashed => {
            return Err(Refusal::invalid("/to", "A transition leads to Active or Archived; DELETE leads to the trash."));
        }
    };
    if before.public.state != to {
        tx.db.prepare_cached("UPDATE workspaces SET state = ?2 WHERE id = ?1")?.execute(params![before.public.id, state])?;
        tx.changed(&before.public.id, ChangeKind::WorkspaceUpdated, News::default())?;
    }
    workspaces::answer(tx, 200, &before.public.id)
}

/// `DELETE /v1/workspaces/{id}`
pub fn delete(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let before = records::by_id(tx, tx.call.param("id"))?;
    permit_end(tx, &before)?;
    tx.call.require_match(&before.public.etag)?;
    let grace = tx.call.number("graceSeconds", 0..=LONGEST_GRACE_SECONDS)?.unwrap_or(DEFAULT_GRACE_SECONDS);
    if before.public.state != WorkspaceState::Trashed {
        let grace = SignedDuration::from_secs(i64::try_from(grace).unwrap_or(i64::MAX));
        let purge_at = tx.now.saturating_add(grace).unwrap_or(tx.now);
        tx.db
            .prepare_cached("UPDATE workspaces SET kept_state = state, state = 2, purge_at = ?2 WHERE id = ?1")?
            .execute(params![before.public.id, purge_at.as_millisecond()])?;
        tx.changed(&before.public.id, ChangeKind::WorkspaceTrashed, News::default())?;
    }
    workspaces::answer(tx, 200, &before.public.id)
}

/// Asks `authorize` with what protects the content; a refusal lists what is in the way.
fn permit_end(tx: &Tx<'_, '_, '_>, workspace: &records::Record) -> Result<(), Refusal> {
    let blockers = records::blockers(tx, &workspace.public.id)?;
    let facts = WorkspaceFacts {
        holds_inside: blockers.iter().any(|(_, code)| *code == "hold-active"),
        kept_inside: !blockers.is_empty(),
        ..workspace.facts()
    };
    let role = workspace.role(tx, Some(&[workspace.public.root_id.as_str()]))?;
    let permit = tx.authorize(role, &Target { workspace: Some(facts), ..Target::default() });
    permit.map(drop).map_err(|refusal| blockers.into_iter().fold(refusal, |refusal, (item, code)| refusal.at(&item, code)))
}

/// `POST /v1/workspaces/{id}/restorations`
pub fn restore(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let before = records::by_id(tx, tx.call.param("id"))?;
    before.authorize(tx)?;
    if before.public.state == WorkspaceState::Trashed {
        tx.db
            .prepare_cached(
                "UPDATE workspaces SET state = coalesce(kept_state, 0), kept_state = NULL, purge_at = NULL WHERE id = ?1",
            )?
            .execute([&before.public.id])?;
        tx.changed(&before.public.id, ChangeKind::WorkspaceRestored, News::default())?;
    }
    workspaces::answer(tx, 200, &before.public.id)
}

/// `POST /v1/workspaces/{id}/purge`
pub fn purge(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let before = records::by_id(tx, tx.call.param("id"))?;
    end(tx, &before)?;
    Ok(Answer::empty(204))
}

/// Ends a workspace in the trash, if nothing in it is protected.
pub fn end(tx: &mut Tx<'_, '_, '_>, before: &records::Record) -> Result<(), Refusal> {
    permit_end(tx, before)?;
    let revision = tx.advance(&before.public.id)?;
    remove(tx.db, &before.public.id)?;
    tx.announce(News {
        kind: ChangeKind::WorkspacePurged,
        workspace_id: Some(before.public.id.clone()),
        revision: Some(revision),
        ..News::default()
    })
}

/// Ends a workspace for good. Nothing of it can be addressed any more; the sweep then removes its items piece by piece, so
/// that a workspace with millions of files does not hold up everyone else.
pub fn remove(db: &rusqlite::Connection, workspace_id: &str) -> Result<(), Refusal> {
    for sql in [
        "DELETE FROM members WHERE workspace_id = ?1",
        "DELETE FROM upload_requests WHERE workspace_id = ?1",
        "DELETE FROM links WHERE workspace_id = ?1",
        "DELETE FROM workspaces WHERE id = ?1",
        "INSERT OR IGNORE INTO purges (workspace_id) VALUES (?1)",
    ] {
        db.prepare_cached(sql)?.execute([workspace_id])?;
    }
    Ok(())
}
