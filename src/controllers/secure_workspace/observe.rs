//! Reads File 360 and who owns what into one value.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::Api;

use super::pass::{Pass, business_key};
use super::plan::Observed;
use crate::api::SecureWorkspace;
use crate::api::connection::GrantScope;
use crate::api::secure_workspace::{Adoption, Mode};
use crate::error::{Error, Kind, Result};
use crate::file360::Changed;
use crate::file360::feature::Feature;
use crate::file360::model::{OwnerState, Workspace, WorkspaceState};
use crate::reconcile::is_object_name;
use crate::reconcile::ownership::{Claim, claim};
use crate::session::Session;

/// Attempts to read all parts of a workspace at one revision.
const ATTEMPTS: u32 = 4;

/// What was found.
pub struct Found {
    /// What is there.
    pub observed: Observed,
    /// It carries this object's mark.
    pub is_mine: bool,
}

/// Reads the workspace of an object with all its parts, and decides whether the object may manage it.
pub async fn observe(pass: &Pass<'_>, session: &Arc<Session>, scope: GrantScope) -> Result<Found> {
    if may_assume_absent(pass) {
        return Ok(Found { observed: Observed::nothing(), is_mine: true });
    }
    for _ in 0..ATTEMPTS {
        let Some(workspace) = locate(pass, session).await? else {
            return absent(pass);
        };
        let is_mine = may_manage(pass, &workspace, scope).await?;
        if let Some(observed) = parts(session, workspace).await? {
            return Ok(Found { observed, is_mine });
        }
    }
    Err(Error::new(Kind::Stale, "the workspace keeps changing while it is read"))
}

/// A new object's first step is a creation that changes nothing when the workspace exists: no need to look first.
fn may_assume_absent(pass: &Pass<'_>) -> bool {
    let spec = &pass.object.spec;
    let knows = pass.object.status.as_ref().is_some_and(|status| status.workspace_id.is_some());
    !knows
        && !pass.report.existed
        && !pass.report.suspended
        && spec.workspace_id.is_none()
        && matches!(spec.mode, None | Some(Mode::Apply))
        && spec.adoption != Some(Adoption::AdoptOnly)
        && pass.ctx.former_cluster_ids.is_empty()
}

/// The workspace of an object: by its id, by its business key, or by the key that it had on a former cluster.
pub async fn locate(pass: &Pass<'_>, session: &Session) -> Result<Option<Workspace>> {
    if let Some(id) = &pass.object.spec.workspace_id {
        return session.driver.workspace(id).await;
    }
    let own = [&*pass.ctx.cluster_id];
    let clusters = own.into_iter().chain(pass.ctx.former_cluster_ids.iter().map(String::as_str));
    let mut asked = std::collections::HashSet::new();
    for cluster in clusters {
        let key = business_key(&pass.object, cluster);
        if asked.insert(key.clone())
            && let Some(workspace) = session.driver.workspace_by_key(&key).await?
        {
            return Ok(Some(workspace));
        }
    }
    Ok(None)
}

fn absent(pass: &Pass<'_>) -> Result<Found> {
    if pass.object.spec.adoption == Some(Adoption::AdoptOnly) {
        let mut error = Error::new(
            Kind::Reference,
            "there is no workspace to adopt; correct spec.workspaceId or spec.externalRef, or set spec.adoption: AdoptOrCreate",
        );
        error.code = "workspace-not-found".into();
        return Err(error);
    }
    Ok(Found { observed: Observed::nothing(), is_mine: true })
}

/// Whether this object may manage the workspace: `true` when it carries its mark already.
pub async fn may_manage(pass: &Pass<'_>, workspace: &Workspace, scope: GrantScope) -> Result<bool> {
    let me = pass.mark(OwnerState::Active);
    let spec = &pass.object.spec;
    let by_id = spec.workspace_id.is_some() && scope == GrantScope::Tenant;
    match claim(workspace.owner.as_ref(), &me) {
        Claim::Mine => Ok(true),
        Claim::TakeUp => Ok(false),
        Claim::Unmanaged if scope != GrantScope::Tenant => Err(refused_as(
            Kind::Reference,
            "connection-not-granted",
            "a workspace exists that nobody manages, and the Connection grants this namespace only those that it declares; \
             adoption needs a grant with scope: Tenant"
                .into(),
        )),
        Claim::Unmanaged if matches!(spec.adoption, Some(Adoption::AdoptOrCreate | Adoption::AdoptOnly)) => Ok(false),
        Claim::Unmanaged => Err(refused(
            "already-exists",
            format!(
                "a workspace with this business key exists (id {}) and nobody manages it; set spec.adoption: AdoptOrCreate to take it up",
                workspace.id
            ),
        )),
        Claim::Other { namespace, name, uid } => {
            if owner_exists(pass, &namespace, &name, &uid).await? {
                return Err(owned_by_other(&format!("{namespace}/{name} of this cluster")));
            }
            if by_id {
                return Ok(false);
            }
            Err(owned_by_other(&format!(
                "{namespace}/{name}, which no longer exists; re-create it there, or adopt the workspace by spec.workspaceId"
            )))
        }
        Claim::Foreign(_) if by_id && workspace.owner.as_ref().is_some_and(|mark| mark.state == OwnerState::Released) => {
            Ok(false)
        }
        Claim::Foreign(who) => Err(owned_by_other(&who)),
    }
}

/// Asks the API server itself: a cache could be older than the owner's deletion.
async fn owner_exists(pass: &Pass<'_>, namespace: &str, name: &str, uid: &str) -> Result<bool> {
    // The mark is what the other side says. What no object can be called must not become a part of a request.
    if !is_object_name(namespace) || !is_object_name(name) {
        return Ok(false);
    }
    let api: Api<SecureWorkspace> = Api::namespaced(pass.ctx.client.clone(), namespace);
    Ok(api.get_opt(name).await?.is_some_and(|owner| owner.uid().as_deref() == Some(uid)))
}

fn owned_by_other(who: &str) -> Error {
    refused("owned-by-other", format!("the workspace is managed by {who}; two resources cannot manage one workspace"))
}

fn refused(code: &str, message: String) -> Error {
    refused_as(Kind::Conflict, code, message)
}

fn refused_as(kind: Kind, code: &str, message: String) -> Error {
    let mut error = Error::new(kind, message);
    error.code = code.into();
    error
}

/// What `read` gives, or nothing where there is no such thing.
pub async fn when<T>(
    is_there: bool,
    read: impl Future<Output = Result<Changed<Vec<T>>>>,
    revision: u64,
) -> Result<Changed<Vec<T>>> {
    if is_there { read.await } else { Ok(Changed { value: Vec::new(), revision }) }
}

/// All parts of one revision; `None` when it changed while being read.
async fn parts(session: &Session, workspace: Workspace) -> Result<Option<Observed>> {
    let driver = &session.driver;
    if workspace.state == WorkspaceState::Trashed {
        // Its parts are invisible until it is restored.
        return Ok(Some(Observed { workspace: Some(workspace), ..Observed::nothing() }));
    }
    let (id, revision) = (workspace.id.as_str(), workspace.revision);
    let has = |feature| session.enforcement.has(feature);
    // What the driver does not have, nobody has there.
    let (folders, members, requests, links) = tokio::try_join!(
        driver.folders(id),
        when(has(Feature::Members), driver.members(id), revision),
        when(has(Feature::UploadRequests), driver.upload_requests(id), revision),
        async { if has(Feature::Sharing) { driver.links(id).await } else { Ok(Vec::new()) } },
    )?;
    if [folders.revision, members.revision, requests.revision].iter().any(|revision| *revision != workspace.revision) {
        return Ok(None);
    }
    let mut folders = folders.value;
    folders.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Some(Observed { workspace: Some(workspace), folders, members: members.value, requests: requests.value, links }))
}
