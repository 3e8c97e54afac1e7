//! The driver for the connector contract (`config/file360/openapi.yaml`).

mod content;
mod feed;
mod folders;
mod governance;
mod members;
mod uploads;
mod workspaces;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use super::exchange::{Credential, Observer, Settings, Transport};

use super::feature::Enforcement;
use super::model::{
    BusinessKey, ChangePage, Checklist, DecisionInput, Folder, Intake, ItemPatch, Link, Member, MemberInput, NewFolder,
    NewWorkspace, OwnerMark, Page, Pending, Principal, PrincipalKind, Service, UploadRequest, UploadRequestInput, Workspace,
    WorkspacePatch, WorkspaceRow, WorkspaceState,
};
use super::{Cause, Changed, Creation, File360, IdempotencyKey};
use crate::error::Result;

/// A tenant that is reached through the connector contract.
#[derive(Clone)]
pub struct Connector {
    transport: Arc<Transport>,
}

impl Connector {
    /// Speaks the contract over `transport`.
    pub fn new(transport: Arc<Transport>) -> Self {
        Self { transport }
    }
}

#[async_trait]
impl File360 for Connector {
    async fn service(&self) -> Result<Service> {
        self.read_service().await
    }

    async fn identity(&self) -> Result<Option<Principal>> {
        self.who_am_i().await
    }

    fn enforcement(&self, service: &Service) -> Enforcement {
        Enforcement::of_connector(service)
    }

    async fn take_fence(&self, cluster_id: &str, consumer: &str, holder: &str) -> Result<u64> {
        self.raise_fence(cluster_id, consumer, holder).await
    }

    async fn principal(&self, kind: PrincipalKind, name: &str) -> Result<Option<Principal>> {
        self.find_principal(kind, name).await
    }

    async fn ensure_guest(&self, email: &str, cause: &Cause) -> Result<Principal> {
        self.put_guest(email, cause).await
    }

    async fn workspace_by_key(&self, key: &BusinessKey) -> Result<Option<Workspace>> {
        self.get_by_key(key).await
    }

    async fn workspace(&self, id: &str) -> Result<Option<Workspace>> {
        self.get_workspace(id).await
    }

    async fn create_workspace(&self, key: &BusinessKey, new: &NewWorkspace, cause: &Cause) -> Result<Creation> {
        self.put_by_key(key, new, cause).await
    }

    async fn patch_workspace(
        &self,
        id: &str,
        etag: &str,
        patch: &WorkspacePatch,
        cause: &Cause,
    ) -> Result<Changed<Workspace>> {
        self.merge_workspace(id, etag, patch, cause).await
    }

    async fn set_owner(&self, id: &str, etag: &str, mark: &OwnerMark, cause: &Cause) -> Result<Changed<Workspace>> {
        self.put_owner(id, etag, mark, cause).await
    }

    async fn transition(&self, id: &str, etag: &str, to: WorkspaceState, cause: &Cause) -> Result<Changed<Workspace>> {
        self.post_transition(id, etag, to, cause).await
    }

    async fn trash_workspace(&self, id: &str, etag: &str, grace: Duration, cause: &Cause) -> Result<()> {
        self.delete_workspace(id, etag, grace, cause).await
    }

    async fn restore_workspace(&self, id: &str, cause: &Cause) -> Result<Changed<Workspace>> {
        self.post_restoration(id, cause).await
    }

    async fn workspaces(&self, cluster_id: Option<&str>, cursor: Option<&str>) -> Result<Page<WorkspaceRow>> {
        self.list_workspaces(cluster_id, cursor).await
    }

    async fn members(&self, workspace: &str) -> Result<Changed<Vec<Member>>> {
        self.list_members(workspace).await
    }

    async fn set_member(
        &self,
        workspace: &str,
        principal: &str,
        path: &str,
        input: &MemberInput,
        cause: &Cause,
    ) -> Result<Changed<()>> {
        self.put_member(workspace, principal, path, input, cause).await
    }

    async fn remove_member(&self, workspace: &str, principal: &str, path: &str, cause: &Cause) -> Result<Changed<()>> {
        self.delete_member(workspace, principal, path, cause).await
    }

    async fn folders(&self, workspace: &str) -> Result<Changed<Vec<Folder>>> {
        self.list_folders(workspace).await
    }

    async fn create_folder(&self, workspace: &str, new: &NewFolder, cause: &Cause) -> Result<Changed<Folder>> {
        self.post_folder(workspace, new, cause).await
    }

    async fn patch_folder(&self, id: &str, etag: &str, patch: &ItemPatch, cause: &Cause) -> Result<Changed<()>> {
        self.merge_folder(id, etag, patch, cause).await
    }

    async fn delete_empty_folder(&self, id: &str, etag: &str, cause: &Cause) -> Result<Changed<()>> {
        self.delete_folder(id, etag, cause).await
    }

    async fn upload_requests(&self, workspace: &str) -> Result<Changed<Vec<UploadRequest>>> {
        self.list_upload_requests(workspace).await
    }

    async fn put_upload_request(
        &self,
        workspace: &str,
        name: &str,
        input: &UploadRequestInput,
        cause: &Cause,
    ) -> Result<Changed<UploadRequest>> {
        self.put_request(workspace, name, input, cause).await
    }

    async fn put_checklist(&self, workspace: &str, name: &str, checklist: &Checklist, cause: &Cause) -> Result<()> {
        self.set_checklist(workspace, name, checklist, cause).await
    }

    async fn delete_upload_request(&self, workspace: &str, name: &str, cause: &Cause) -> Result<Changed<()>> {
        self.delete_request(workspace, name, cause).await
    }

    async fn links(&self, workspace: &str) -> Result<Vec<Link>> {
        self.list_links(workspace).await
    }

    async fn intake(&self, folder: &str) -> Result<Option<(Intake, String)>> {
        self.get_intake(folder).await
    }

    async fn put_intake(&self, folder: &str, etag: &str, intake: &Intake, cause: &Cause) -> Result<()> {
        self.set_intake(folder, etag, intake, cause).await
    }

    async fn pending(&self, workspace: Option<&str>, cursor: Option<&str>) -> Result<Page<Pending>> {
        self.list_pending(workspace, cursor).await
    }

    async fn decide(&self, item: &str, decision: &DecisionInput, key: &IdempotencyKey, cause: &Cause) -> Result<()> {
        self.post_decision(item, decision, key, cause).await
    }

    async fn revoke_link(&self, id: &str, cause: &Cause) -> Result<()> {
        self.delete_link(id, cause).await
    }

    async fn changes(&self, cursor: &str, wait: Duration) -> Result<ChangePage> {
        self.read_changes(cursor, wait).await
    }
}
