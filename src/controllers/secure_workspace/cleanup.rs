//! What happens when a resource is deleted: outsiders out, then the deletion policy, then the mark is released.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use tracing::info;

use super::Next;
use super::desired::delete_grace;
use super::observe::locate;
use super::pass::{Pass, connection_key, permitted};
use super::reports;
use crate::api::common::condition;
use crate::api::secure_workspace::{DeletionPolicy, ExternalOnDelete};
use crate::api::{CONFIRM_DELETE, FINALIZER};
use crate::controllers::finalizers;
use crate::error::{Error, Kind, Result};
use crate::file360::feature::Feature;
use crate::file360::model::{Audience, OwnerState, PrincipalKind, Workspace, WorkspaceState};
use crate::reconcile::ownership::{Claim, claim};
use crate::session::{Session, Unavailable};

/// A blocked deletion is looked at again this often; holds end without a word.
const BLOCKED_RESYNC: Duration = Duration::from_mins(5);

/// What stands in the way of a deletion.
pub struct Obstacle {
    /// Reason of `DeletionBlocked`.
    pub reason: &'static str,
    /// What to do.
    pub message: String,
    /// There is no usable credential: after `--orphan-after` the resource goes without its last steps.
    pub yields: bool,
}

/// Runs the cleanup of an object that is being deleted.
pub async fn run(pass: &mut Pass<'_>) -> Result<Next> {
    if !pass.object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Next::Rest(None));
    }
    let obstacle = match session(pass) {
        Ok(session) => match all_steps(pass, &session).await {
            Ok(None) => return leave(pass, Some(&session)).await,
            Ok(Some(obstacle)) if obstacle.yields && orphaned(pass, obstacle.reason) => {
                reports::abandon(pass, &session).await?;
                let note = format!("Went after --orphan-after without telling everything. {}", obstacle.message);
                pass.ctx.event(&*pass.object, true, "ReportsAbandoned", &note).await;
                return leave(pass, Some(&session)).await;
            }
            Ok(Some(obstacle)) => obstacle,
            Err(error) => {
                let obstacle = Obstacle { reason: reason_of(&error), message: error.to_string(), yields: false };
                say(pass, obstacle).await?;
                if error.is_outage() {
                    session.defer(pass.key.clone());
                }
                return Err(error);
            }
        },
        Err(obstacle) => {
            if obstacle.yields && orphaned(pass, obstacle.reason) {
                let note = format!(
                    "{} Went after --orphan-after; the workspace and its outsiders' access stay as they are.",
                    obstacle.message
                );
                pass.ctx.event(&*pass.object, true, "Orphaned", &note).await;
                return leave(pass, None).await;
            }
            obstacle
        }
    };
    say(pass, obstacle).await?;
    Ok(Next::Rest(Some(BLOCKED_RESYNC.min(pass.ctx.tuning.orphan_after))))
}

fn session(pass: &Pass<'_>) -> Result<Arc<Session>, Obstacle> {
    let key = connection_key(&pass.object);
    let lookup = pass.ctx.sessions.get(&key, &pass.key).ok_or_else(|| Obstacle {
        reason: "ConnectionNotFound",
        message: format!("Connection {} does not exist; re-create it, or wait for --orphan-after.", key.name),
        yields: true,
    })?;
    permitted(pass.ctx, &pass.object, &lookup).map_err(|error| Obstacle {
        reason: "ConnectionNotGranted",
        message: error.to_string(),
        yields: true,
    })?;
    lookup.session.map_err(|why| {
        let no_credential = matches!(why, Unavailable::Because { no_credential: true, .. });
        Obstacle {
            reason: if no_credential { "CredentialUnusable" } else { "ConnectionUnavailable" },
            message: format!("Connection {} is not usable: {why}", key.name),
            yields: no_credential,
        }
    })
}

/// Whether the same obstacle has stood for `--orphan-after`, as the status tells: that outlives the operator.
fn orphaned(pass: &Pass<'_>, reason: &str) -> bool {
    let blocked = pass.object.status.iter().find_map(|status| condition(&status.conditions, "DeletionBlocked"));
    let since = blocked.filter(|blocked| blocked.reason == reason).map(|blocked| blocked.last_transition_time.0);
    since.is_some_and(|since| pass.now.duration_since(since) >= pass.ctx.tuning.orphan_after.try_into().unwrap_or_default())
}

async fn leave(pass: &mut Pass<'_>, session: Option<&Arc<Session>>) -> Result<Next> {
    finalizers::remove(&pass.ctx.client, &*pass.object).await?;
    if let (Some(session), Some(id)) =
        (session, pass.object.status.as_ref().and_then(|status| status.workspace_id.as_deref()))
    {
        session.index.forget(id);
    }
    info!(object = %pass.key, "Let go of the workspace");
    Ok(Next::Gone)
}

async fn say(pass: &mut Pass<'_>, obstacle: Obstacle) -> Result<()> {
    pass.report.obstacle = Some(obstacle);
    pass.publish().await
}

/// The steps, and at last that everything was told.
async fn all_steps(pass: &mut Pass<'_>, session: &Arc<Session>) -> Result<Option<Obstacle>> {
    match steps(pass, session).await? {
        None => reports::unsaid(pass, session).await,
        obstacle => Ok(obstacle),
    }
}

/// What deletion has to do, in an order that can be repeated from the start. `Some`: it cannot go on.
async fn steps(pass: &mut Pass<'_>, session: &Arc<Session>) -> Result<Option<Obstacle>> {
    let Some(workspace) = locate(pass, session).await? else { return Ok(None) };
    if claim(workspace.owner.as_ref(), &pass.mark(OwnerState::Active)) != Claim::Mine {
        return Ok(None);
    }
    let policy = pass.object.spec.deletion_policy.unwrap_or_default();
    let needed = match policy {
        DeletionPolicy::Retain => None,
        DeletionPolicy::Archive => Some(Feature::Archive),
        DeletionPolicy::Delete => Some(Feature::Trash),
    };
    if let Some(feature) = needed.filter(|feature| !session.enforcement.has(*feature)) {
        return Ok(Some(Obstacle {
            reason: "Unsupported",
            message: format!(
                "deletionPolicy: {policy:?} needs {feature:?}, which the driver of the Connection does not have; nothing was removed. Set deletionPolicy: Retain to let the resource go and keep the content."
            ),
            yields: false,
        }));
    }
    if policy == DeletionPolicy::Delete && !is_confirmed(pass, &workspace) {
        return Ok(Some(Obstacle {
            reason: "AwaitingConfirmation",
            message: format!(
                "deletionPolicy: Delete moves the workspace to the trash only with the annotation {CONFIRM_DELETE}: {}; add it, or set deletionPolicy: Retain.",
                workspace.id
            ),
            yields: false,
        }));
    }
    let external = pass.object.spec.on_delete.as_ref().and_then(|on_delete| on_delete.external).unwrap_or_default();
    if external == ExternalOnDelete::Revoke && workspace.state != WorkspaceState::Trashed {
        revoke_outsiders(pass, session, &workspace).await?;
    }
    if let Some(obstacle) = apply_policy(pass, session, &workspace.id, policy).await? {
        return Ok(Some(obstacle));
    }
    reports::farewell(pass, session, &workspace.id, policy).await?;
    release(pass, session, &workspace.id).await?;
    Ok(None)
}

fn is_confirmed(pass: &Pass<'_>, workspace: &Workspace) -> bool {
    pass.object.annotations().get(CONFIRM_DELETE) == Some(&workspace.id)
}

/// Ends every outsider's access: what the resource gave and what people gave.
async fn revoke_outsiders(pass: &Pass<'_>, session: &Session, workspace: &Workspace) -> Result<()> {
    let driver = &session.driver;
    let has = |feature| session.enforcement.has(feature);
    if has(Feature::UploadRequests) {
        for request in driver.upload_requests(&workspace.id).await?.value {
            driver.delete_upload_request(&workspace.id, &request.name, &pass.cause).await?;
        }
    }
    if has(Feature::Sharing) {
        for link in driver.links(&workspace.id).await? {
            if matches!(link.audience, Audience::Guests | Audience::Anyone) {
                driver.revoke_link(&link.id, &pass.cause).await?;
            }
        }
    }
    if !has(Feature::Members) {
        return Ok(());
    }
    for member in driver.members(&workspace.id).await?.value {
        if member.kind == PrincipalKind::Guest {
            driver.remove_member(&workspace.id, &member.principal_id, &member.path, &pass.cause).await?;
        }
    }
    Ok(())
}

async fn apply_policy(pass: &Pass<'_>, session: &Session, id: &str, policy: DeletionPolicy) -> Result<Option<Obstacle>> {
    let driver = &session.driver;
    let Some(now) = driver.workspace(id).await? else { return Ok(None) };
    match policy {
        DeletionPolicy::Archive if now.state == WorkspaceState::Active => {
            driver.transition(id, &now.etag, WorkspaceState::Archived, &pass.cause).await?;
        }
        DeletionPolicy::Delete if now.state != WorkspaceState::Trashed => {
            let grace = delete_grace(&pass.object.spec, pass.now)?;
            match driver.trash_workspace(id, &now.etag, grace, &pass.cause).await {
                Err(error) if error.kind == Kind::Conflict && is_protection(&error.code) => {
                    return Ok(Some(Obstacle {
                        reason: "Protected",
                        message: format!("{error} Protected: {}.", error.details.join(", ")),
                        yields: false,
                    }));
                }
                result => result?,
            }
        }
        _ => {}
    }
    Ok(None)
}

fn is_protection(code: &str) -> bool {
    matches!(code, "hold-active" | "retained" | "record")
}

/// Releases the mark of a workspace.
pub async fn release(pass: &Pass<'_>, session: &Session, id: &str) -> Result<()> {
    let Some(now) = session.driver.workspace(id).await? else { return Ok(()) };
    session.driver.set_owner(id, &now.etag, &pass.mark(OwnerState::Released), &pass.cause).await?;
    Ok(())
}

fn reason_of(error: &Error) -> &'static str {
    if error.is_outage() { "ConnectionUnavailable" } else { "CleanupFailed" }
}
