//! Where passes and reports meet: what is declared is compiled first, the outbox is made once the workspace is as declared, and a resource that
//! is deleted tells so before it goes.

use std::sync::Arc;

use serde_json::Value;

use super::cleanup::Obstacle;
use super::pass::{Pass, connection_key};
use super::status::is_asked_for;
use crate::api::report::{ReportEvent, ReportSpec, ReportStatus};
use crate::api::secure_workspace::DeletionPolicy;
use crate::controllers::reports::reporter::{Declaration, Reporter, missing_feature};
use crate::error::{Error, Kind, Result};
use crate::reports::event;
use crate::session::Session;

/// Reason of `DeletionBlocked` while the last events wait.
pub const PENDING: &str = "ReportsPending";

/// The reports that an object declares.
pub fn declared<'a>(pass: &'a Pass<'_>) -> &'a [ReportSpec] {
    pass.object.spec.report.as_deref().unwrap_or_default()
}

/// Refuses a report that cannot be compiled, before anything is done. Nothing is read or sent.
pub fn check(pass: &Pass<'_>) -> Result<()> {
    let specs = declared(pass);
    let Some(reports) = pass.ctx.reports.get().filter(|_| !specs.is_empty()) else { return Ok(()) };
    event::check(specs, &reports.surroundings(&pass.key.namespace)).map_err(|invalid| {
        let mut error = Error::new(Kind::Rejected, format!("spec.{invalid}"));
        let is_expression = invalid.why.starts_with("line ");
        error.code = if is_expression { "invalid-expression".into() } else { "invalid-spec".into() };
        error
    })
}

async fn reporter(pass: &Pass<'_>, session: &Arc<Session>) -> Result<Option<Arc<Reporter>>> {
    let Some(reports) = pass.ctx.reports.get().filter(|_| missing_feature(session).is_none()) else { return Ok(None) };
    let reporter = reports.reporter(&connection_key(&pass.object), session);
    reporter.begin().await?;
    Ok(Some(reporter))
}

/// Has everything told that happens to the workspace from now on; a report that is new begins with `Provisioned`.
pub async fn declare(pass: &Pass<'_>, session: &Arc<Session>) -> Result<()> {
    let specs = declared(pass);
    let had = pass.object.status.as_ref().is_some_and(|status| !status.reports.is_empty());
    let Some(workspace) = pass.report.observed.workspace.as_ref().filter(|_| had || !specs.is_empty()) else {
        return Ok(());
    };
    let Some(reporter) = reporter(pass, session).await? else { return Ok(()) };
    let declaration = Declaration {
        key: &pass.key,
        uid: &pass.cause.0,
        generation: pass.object.metadata.generation.unwrap_or_default(),
        asked: is_asked_for(&pass.object),
        specs,
        workspace: &workspace.id,
        url: &workspace.url,
        revision: workspace.revision,
    };
    reporter.declare(&declaration).await
}

/// Has a state of the resource told, unless it is the one that was told last: it is told once, also when this is called again after a crash.
/// `facts` are what the event says (up to 32 KiB). Nothing is done where nobody reports.
async fn tell(
    pass: &Pass<'_>,
    session: &Arc<Session>,
    workspace: &str,
    event: ReportEvent,
    facts: Option<Value>,
) -> Result<()> {
    if declared(pass).is_empty() {
        return Ok(());
    }
    match reporter(pass, session).await? {
        Some(reporter) => reporter.tell(workspace, event, facts).await,
        None => Ok(()),
    }
}

/// The states of the required documents of `workspace` changed: `facts` are what receivers see as `documents`. Called after [`declare`] and
/// before the status is written, so that a crash in between tells it all the same.
pub async fn documents_changed(pass: &Pass<'_>, session: &Arc<Session>, workspace: &str, facts: Value) -> Result<()> {
    tell(pass, session, workspace, ReportEvent::DocumentsChanged, Some(facts)).await
}

/// Puts the last event in: how the resource ended. Durable before the mark is released.
pub async fn farewell(pass: &Pass<'_>, session: &Arc<Session>, workspace: &str, policy: DeletionPolicy) -> Result<()> {
    let event = match policy {
        DeletionPolicy::Retain => ReportEvent::Released,
        DeletionPolicy::Archive => ReportEvent::Archived,
        DeletionPolicy::Delete => ReportEvent::Deleted,
    };
    tell(pass, session, workspace, event, None).await
}

/// What stands in the way of letting the resource go: events that are still to be told.
pub async fn unsaid(pass: &Pass<'_>, session: &Arc<Session>) -> Result<Option<Obstacle>> {
    let Some((reporter, workspace)) = outbox(pass, session).await? else { return Ok(None) };
    let waiting = reporter.unsaid(&workspace, pass.ctx.tuning.slow_pass).await?;
    if waiting.is_empty() {
        reporter.close(&workspace).await?;
        return Ok(None);
    }
    let message = format!(
        "Events are still to be told: {}. The resource goes when they are, or after --orphan-after without them.",
        waiting.iter().map(line).collect::<Vec<_>>().join("; ")
    );
    Ok(Some(Obstacle { reason: PENDING, message, yields: true }))
}

fn line(status: &ReportStatus) -> String {
    let why = status.last_error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
    format!("{} to {}{why}", status.pending, status.name)
}

/// Lets what is still to be told go, for good.
pub async fn abandon(pass: &Pass<'_>, session: &Arc<Session>) -> Result<()> {
    if let Some((reporter, workspace)) = outbox(pass, session).await? {
        reporter.close(&workspace).await?;
    }
    Ok(())
}

/// The reporter and the workspace of an object that is being deleted; the operator may have died before it knew its id.
async fn outbox(pass: &Pass<'_>, session: &Arc<Session>) -> Result<Option<(Arc<Reporter>, Box<str>)>> {
    if declared(pass).is_empty() {
        return Ok(None);
    }
    let Some(reporter) = reporter(pass, session).await? else { return Ok(None) };
    let known = pass.object.status.as_ref().and_then(|status| status.workspace_id.as_deref()).map(Box::from);
    let workspace = known.or_else(|| reporter.workspaces_of(&pass.key).pop());
    Ok(workspace.map(|workspace| (reporter, workspace)))
}
