//! Runs one step after the other; the only file here that changes File 360.

use std::sync::Arc;

use kube::ResourceExt;

use super::observe::Found;
use super::pass::{Pass, business_key};
use super::plan::{Action, Observed, Step, key_of};
use crate::error::{Error, Kind, Result};
use crate::file360::model::{
    Folder, ItemPatch, Member, MemberInput, NewFolder, NewWorkspace, OwnerState, UploadRequestInput, Workspace,
    WorkspacePatch, WorkspaceState,
};
use crate::file360::{Changed, Creation};
use crate::session::Session;

/// Runs the steps of a plan and keeps what is observed up to date with them, so that a pass that stops halfway knows what it made.
pub struct Executor<'p, 'a> {
    pass: &'p mut Pass<'a>,
    session: &'p Arc<Session>,
    observed: Observed,
    done: usize,
    /// Somebody else wrote in between: revisions did not follow each other.
    interleaved: bool,
    /// What routes declare as gated in the workspace is closed.
    are_gates_closed: bool,
}

impl<'p, 'a> Executor<'p, 'a> {
    /// Starts from what was found.
    pub fn new(pass: &'p mut Pass<'a>, session: &'p Arc<Session>, found: Found) -> Self {
        Self { pass, session, observed: found.observed, done: 0, interleaved: false, are_gates_closed: false }
    }

    /// What is there now, how many steps were done, and whether somebody else wrote in between.
    pub fn into_parts(self) -> (Observed, usize, bool) {
        (self.observed, self.done, self.interleaved)
    }

    /// Runs the steps in order; stops at the first failure.
    pub async fn run(&mut self, steps: &[Step]) -> Result<()> {
        self.resolve_principals(steps).await?;
        for step in steps {
            let mut is_late = false;
            if lets_in(&step.action) {
                match self.close_gates().await {
                    // What is in the trash or archived may not be writable: then its gates close right after.
                    Err(error) if brings_back(&step.action) && matches!(error.kind, Kind::NotFound | Kind::Conflict) => {
                        is_late = true;
                    }
                    closed => closed?,
                }
            }
            self.step(&step.action).await.map_err(|error| error.while_doing(step.action.to_string()))?;
            if is_late {
                self.close_gates().await?;
            }
            self.pass.ctx.metrics.step(step.action.name());
            self.done += 1;
            tracing::debug!(object = %self.pass.key, step = step.action.name(), "{}", step.action);
            if self.observed.workspace.is_none() {
                // The creation found an existing workspace. What there is to do is not known before it was observed.
                self.interleaved = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Nobody gets in before what routes declare as gated is closed, even if they do nothing else yet.
    async fn close_gates(&mut self) -> Result<()> {
        let Some(gates) = self.pass.ctx.gates().filter(|_| !self.are_gates_closed) else { return Ok(()) };
        let connection = super::pass::connection_key(&self.pass.object);
        let workspace = self.workspace()?.id.clone();
        let labels = self.pass.object.labels().clone();
        let closed = gates.close_for(&self.pass.key, &labels, &connection, self.session, &workspace).await;
        closed.map_err(|error| error.while_doing("close the gates that routes declare"))?;
        self.are_gates_closed = true;
        Ok(())
    }

    /// An unknown user or group is found out before anything is changed, so that nothing is left half-done.
    async fn resolve_principals(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            if let Action::SetMember { key, principal_id: None, name, .. } = &step.action
                && key.kind != crate::file360::model::PrincipalKind::Guest
            {
                self.session.principal_id(key.kind, name, &self.pass.cause).await?;
            }
        }
        Ok(())
    }

    async fn step(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Create(new) => self.create(new).await,
            Action::Restore => self.restore().await,
            Action::TakeOwnership => self.take_ownership().await,
            Action::Activate => self.activate().await,
            Action::Patch { patch, .. } => self.patch(patch).await,
            Action::CreateFolder(new) => self.create_folder(new).await,
            Action::MoveFolder { id, from, to } => self.move_folder(id, from, to).await,
            Action::PatchFolder { id, patch, .. } => self.patch_folder(id, patch).await,
            Action::DeleteFolder { id, path } => self.delete_folder(id, path).await,
            Action::SetMember { key, principal_id, name, input, .. } => {
                let id = match principal_id {
                    Some(id) => Arc::from(id.as_str()),
                    None => self.session.principal_id(key.kind, name, &self.pass.cause).await?,
                };
                self.set_member(&id, key, input).await
            }
            Action::RemoveMember { key, principal_id, .. } => {
                let changed = self
                    .session
                    .driver
                    .remove_member(self.workspace()?.id.as_str(), principal_id, &key.path, &self.pass.cause)
                    .await?;
                self.observed.members.retain(|member| key_of(member) != *key);
                self.advance(changed.revision)
            }
            Action::PutRequest { name, input, .. } => self.put_request(name, input).await,
            Action::DeleteRequest { name } => {
                let changed =
                    self.session.driver.delete_upload_request(&self.workspace()?.id, name, &self.pass.cause).await?;
                self.observed.requests.retain(|request| request.name != *name);
                self.advance(changed.revision)
            }
        }
    }

    fn workspace(&self) -> Result<&Workspace> {
        self.observed.workspace.as_ref().ok_or_else(|| Error::new(Kind::Stale, "the workspace is not there"))
    }

    /// Notes the revision after a call. Any other than the next one means that somebody else wrote too.
    fn advance(&mut self, revision: u64) -> Result<()> {
        let known = self.workspace()?.revision;
        if revision != known && revision != known + 1 {
            self.interleaved = true;
        }
        if let Some(workspace) = self.observed.workspace.as_mut() {
            workspace.revision = revision.max(known);
        }
        Ok(())
    }

    fn replace(&mut self, changed: Changed<Workspace>) -> Result<()> {
        self.advance(changed.revision)?;
        self.observed.workspace = Some(changed.value);
        Ok(())
    }

    async fn create(&mut self, new: &NewWorkspace) -> Result<()> {
        let new = NewWorkspace { owner: Some(self.pass.mark(OwnerState::Active)), ..new.clone() };
        let key = business_key(&self.pass.object, &self.pass.ctx.cluster_id);
        let creation = self.session.driver.create_workspace(&key, &new, &self.pass.cause).await?;
        let (Creation::Created(workspace) | Creation::Existed(workspace)) = &creation;
        self.pass.report.existed = matches!(creation, Creation::Existed(_));
        if !self.pass.report.existed {
            // From here on the feed tells foreign changes of this workspace apart, even before the pass ends.
            let uid: Arc<str> = self.pass.cause.0.as_str().into();
            self.session.index.belongs(&workspace.id, workspace.revision, &self.pass.key, &uid);
            self.observed.workspace = Some((**workspace).clone());
        }
        Ok(())
    }

    async fn restore(&mut self) -> Result<()> {
        let changed = self.session.driver.restore_workspace(&self.workspace()?.id, &self.pass.cause).await?;
        self.replace(changed)?;
        // Its parts were invisible in the trash.
        self.interleaved = true;
        Ok(())
    }

    async fn take_ownership(&mut self) -> Result<()> {
        let (id, etag) = (self.workspace()?.id.clone(), self.etag().await?);
        let mark = self.pass.mark(OwnerState::Active);
        let changed = self.session.driver.set_owner(&id, &etag, &mark, &self.pass.cause).await?;
        let uid: Arc<str> = self.pass.cause.0.as_str().into();
        self.session.index.belongs(&id, changed.revision, &self.pass.key, &uid);
        self.replace(changed)
    }

    async fn activate(&mut self) -> Result<()> {
        let (id, etag) = (self.workspace()?.id.clone(), self.etag().await?);
        let changed = self.session.driver.transition(&id, &etag, WorkspaceState::Active, &self.pass.cause).await?;
        self.replace(changed)
    }

    async fn patch(&mut self, patch: &WorkspacePatch) -> Result<()> {
        let (id, etag) = (self.workspace()?.id.clone(), self.etag().await?);
        let changed = self.session.driver.patch_workspace(&id, &etag, patch, &self.pass.cause).await?;
        self.replace(changed)
    }

    /// The workspace's tag. Steps on its members and folders may have moved it: then it is read again, and a foreign change
    /// in between shows in the revision.
    async fn etag(&mut self) -> Result<String> {
        if self.done == 0 {
            return Ok(self.workspace()?.etag.clone());
        }
        let now = self.session.driver.workspace(&self.workspace()?.id).await?;
        let now = now.ok_or_else(|| Error::new(Kind::Stale, "the workspace vanished during the pass"))?;
        if now.revision != self.workspace()?.revision {
            self.interleaved = true;
        }
        let etag = now.etag.clone();
        self.observed.workspace = Some(now);
        Ok(etag)
    }

    async fn create_folder(&mut self, new: &NewFolder) -> Result<()> {
        let changed = self.session.driver.create_folder(&self.workspace()?.id, new, &self.pass.cause).await?;
        if changed.value.managed_key != new.managed_key {
            // Somebody made it in the meantime: its properties are looked at again.
            self.interleaved = true;
        }
        self.observed.folders.push(changed.value);
        self.advance(changed.revision)
    }

    async fn move_folder(&mut self, id: &str, from: &str, to: &str) -> Result<()> {
        let (parent, name) = to.rsplit_once('/').unwrap_or(("", to));
        let (old_parent, _) = from.rsplit_once('/').unwrap_or(("", from));
        let parent_id = if parent == old_parent {
            None
        } else if parent.is_empty() {
            Some(self.workspace()?.root_id.clone())
        } else {
            let folder = self.observed.folders.iter().find(|folder| folder.path == parent);
            Some(folder.ok_or_else(|| Error::new(Kind::Stale, format!("folder {parent} is not there yet")))?.id.clone())
        };
        let patch = ItemPatch { name: Some(name.to_owned()), parent_id, ..ItemPatch::default() };
        self.patch_folder(id, &patch).await?;
        for folder in &mut self.observed.folders {
            if let Some(rest) = folder.path.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
                folder.path = format!("{to}{rest}");
            }
        }
        // The paths of grants below it changed with it.
        self.interleaved = true;
        Ok(())
    }

    async fn patch_folder(&mut self, id: &str, patch: &ItemPatch) -> Result<()> {
        let etag = self.folder(id)?.etag.clone();
        let changed = self.session.driver.patch_folder(id, &etag, patch, &self.pass.cause).await?;
        if let Some(folder) = self.observed.folders.iter_mut().find(|folder| folder.id == id) {
            // A second change of the same folder in one pass must not be taken for somebody else's.
            "*".clone_into(&mut folder.etag);
        }
        self.advance(changed.revision)
    }

    async fn delete_folder(&mut self, id: &str, path: &str) -> Result<()> {
        let changed = match self.session.driver.delete_empty_folder(id, "*", &self.pass.cause).await {
            Err(error) if error.kind == Kind::Conflict && error.code == "not-empty" => {
                self.pass.report.plan.kept_folders.push(path.to_owned());
                return Ok(());
            }
            result => result?,
        };
        self.observed.folders.retain(|folder| folder.id != id);
        self.advance(changed.revision)
    }

    fn folder(&self, id: &str) -> Result<&Folder> {
        let folder = self.observed.folders.iter().find(|folder| folder.id == id);
        folder.ok_or_else(|| Error::new(Kind::Stale, "the folder is not there any more"))
    }

    async fn set_member(&mut self, principal: &str, key: &super::desired::MemberKey, input: &MemberInput) -> Result<()> {
        let workspace = self.workspace()?.id.clone();
        let changed = self.session.driver.set_member(&workspace, principal, &key.path, input, &self.pass.cause).await?;
        self.observed.members.retain(|member| key_of(member) != *key);
        self.observed.members.push(Member {
            principal_id: principal.to_owned(),
            kind: key.kind,
            name: key.name.clone(),
            path: key.path.clone(),
            role: input.role,
            expires_at: input.expires_at,
            reason: input.reason.clone(),
            managed: input.managed,
        });
        self.advance(changed.revision)
    }

    async fn put_request(&mut self, name: &str, input: &UploadRequestInput) -> Result<()> {
        let workspace = self.workspace()?.id.clone();
        let changed = self.session.driver.put_upload_request(&workspace, name, input, &self.pass.cause).await?;
        self.observed.requests.retain(|request| request.name != name);
        self.observed.requests.push(changed.value);
        self.advance(changed.revision)
    }
}

/// Whether a step gives those who are members already their workspace back.
fn brings_back(action: &Action) -> bool {
    matches!(action, Action::Restore | Action::Activate)
}

/// Whether a step lets somebody in.
fn lets_in(action: &Action) -> bool {
    match action {
        Action::SetMember { .. } | Action::PutRequest { .. } => true,
        action if brings_back(action) => true,
        Action::Patch { patch, .. } => patch.sharing.is_some(),
        _ => false,
    }
}
