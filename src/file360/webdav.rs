//! The driver for WebDAV servers (RFC 4918): folders and files, and workspaces made of them.
//!
//! The endpoint's path is the tenant. A workspace is a collection directly below it, named after its business key; folders are collections
//! in it, files are resources. What WebDAV has no place for and the operator cannot do without stands in a marker beside the content
//! (`marker.rs`). Everything else that a manifest can ask for is [`Kind::Unsupported`](crate::error::Kind::Unsupported) before anything is
//! done: [`File360::enforcement`] says what is what.

mod client;
mod content;
mod files;
mod folders;
mod marker;
mod multistatus;
mod place;
mod workspaces;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::exchange::Transport;
use super::feature::{Enforcement, Feature, Level};
use super::model::{
    BusinessKey, ChangePage, Checklist, DecisionInput, Folder, Intake, ItemPatch, Link, Member, MemberInput, NewFolder,
    NewWorkspace, OwnerMark, Page, Pending, Principal, PrincipalKind, Service, UploadRequest, UploadRequestInput, Workspace,
    WorkspacePatch, WorkspaceRow, WorkspaceState,
};
use super::{Cause, Changed, Creation, File360, IdempotencyKey};
use crate::error::{Error, Kind, Result};
use client::Client;
use files::Uploads;

/// A WebDAV server as a tenant.
pub struct WebDav {
    client: Client,
    endpoint: url::Url,
    uploads: Uploads,
}

impl WebDav {
    /// Nothing is sent before the first call.
    pub fn new(transport: Arc<Transport>) -> Self {
        let endpoint = transport.endpoint().clone();
        Self { client: Client::new(transport), endpoint, uploads: Uploads::default() }
    }
}

/// How far each feature is there on a server with or without locks (class 2).
pub fn enforcement(has_locks: bool) -> Enforcement {
    Enforcement::of(|feature| match feature {
        Feature::Folders | Feature::Files => Level::Native,
        Feature::Workspaces | Feature::Conditions | Feature::Digests | Feature::Changes => Level::Compensating,
        Feature::Ownership if has_locks => Level::Compensating,
        // Without locks, a second writer at the same moment is noticed after the fact. Where an item went is never told; that it is
        // not where it was, is.
        Feature::Ownership | Feature::ItemIds => Level::ObserveOnly,
        _ => Level::Unsupported,
    })
}

/// What a call for something that WebDAV does not have comes to.
fn lacking<T>(what: &str) -> Result<T> {
    let mut error = Error::new(Kind::Unsupported, format!("WebDAV has no {what}"));
    error.code = "unsupported".into();
    Err(error)
}

/// Refuses the parts of a request that WebDAV cannot carry, by name.
fn refuse(asked: &[(bool, &str)]) -> Result<()> {
    asked.iter().find(|(is_asked, _)| *is_asked).map_or(Ok(()), |(_, what)| lacking(what))
}

#[async_trait]
impl File360 for WebDav {
    fn enforcement(&self, _: &Service) -> Enforcement {
        enforcement(self.client.has_locks())
    }

    async fn service(&self) -> Result<Service> {
        self.describe().await
    }

    async fn identity(&self) -> Result<Option<Principal>> {
        Ok(None)
    }

    async fn take_fence(&self, _: &str, _: &str, _: &str) -> Result<u64> {
        lacking("fences")
    }

    async fn principal(&self, _: PrincipalKind, _: &str) -> Result<Option<Principal>> {
        lacking("users and groups")
    }

    async fn ensure_guest(&self, _: &str, _: &Cause) -> Result<Principal> {
        lacking("guests")
    }

    async fn workspace_by_key(&self, key: &BusinessKey) -> Result<Option<Workspace>> {
        self.find_by_key(key).await
    }

    async fn workspace(&self, id: &str) -> Result<Option<Workspace>> {
        self.find_by_id(id).await
    }

    async fn create_workspace(&self, key: &BusinessKey, new: &NewWorkspace, _: &Cause) -> Result<Creation> {
        self.make_workspace(key, new).await
    }

    async fn patch_workspace(&self, id: &str, etag: &str, patch: &WorkspacePatch, _: &Cause) -> Result<Changed<Workspace>> {
        self.change_workspace(id, etag, patch).await
    }

    async fn set_owner(&self, id: &str, etag: &str, mark: &OwnerMark, _: &Cause) -> Result<Changed<Workspace>> {
        self.write_owner(id, etag, mark).await
    }

    async fn transition(&self, _: &str, _: &str, _: WorkspaceState, _: &Cause) -> Result<Changed<Workspace>> {
        lacking("archive: nothing keeps people from writing")
    }

    async fn trash_workspace(&self, _: &str, _: &str, _: Duration, _: &Cause) -> Result<()> {
        lacking("trash: what is removed is gone")
    }

    async fn restore_workspace(&self, _: &str, _: &Cause) -> Result<Changed<Workspace>> {
        lacking("trash")
    }

    async fn workspaces(&self, cluster_id: Option<&str>, cursor: Option<&str>) -> Result<Page<WorkspaceRow>> {
        self.list_workspaces(cluster_id, cursor).await
    }

    async fn members(&self, _: &str) -> Result<Changed<Vec<Member>>> {
        lacking("members")
    }

    async fn set_member(&self, _: &str, _: &str, _: &str, _: &MemberInput, _: &Cause) -> Result<Changed<()>> {
        lacking("members")
    }

    async fn remove_member(&self, _: &str, _: &str, _: &str, _: &Cause) -> Result<Changed<()>> {
        lacking("members")
    }

    async fn folders(&self, workspace: &str) -> Result<Changed<Vec<Folder>>> {
        self.list_folders(workspace).await
    }

    async fn create_folder(&self, workspace: &str, new: &NewFolder, _: &Cause) -> Result<Changed<Folder>> {
        self.make_folder(workspace, new).await
    }

    async fn patch_folder(&self, id: &str, etag: &str, patch: &ItemPatch, _: &Cause) -> Result<Changed<()>> {
        self.change_folder(id, etag, patch).await
    }

    async fn delete_empty_folder(&self, id: &str, _: &str, _: &Cause) -> Result<Changed<()>> {
        self.remove_empty_folder(id).await
    }

    async fn upload_requests(&self, _: &str) -> Result<Changed<Vec<UploadRequest>>> {
        lacking("upload requests")
    }

    async fn put_upload_request(
        &self,
        _: &str,
        _: &str,
        _: &UploadRequestInput,
        _: &Cause,
    ) -> Result<Changed<UploadRequest>> {
        lacking("upload requests")
    }

    async fn put_checklist(&self, _: &str, _: &str, _: &Checklist, _: &Cause) -> Result<()> {
        lacking("upload requests")
    }

    async fn delete_upload_request(&self, _: &str, _: &str, _: &Cause) -> Result<Changed<()>> {
        lacking("upload requests")
    }

    async fn links(&self, _: &str) -> Result<Vec<Link>> {
        lacking("share links")
    }

    async fn intake(&self, _: &str) -> Result<Option<(Intake, String)>> {
        lacking("intake policies")
    }

    async fn put_intake(&self, _: &str, _: &str, _: &Intake, _: &Cause) -> Result<()> {
        lacking("intake policies")
    }

    async fn pending(&self, _: Option<&str>, _: Option<&str>) -> Result<Page<Pending>> {
        lacking("intake policies")
    }

    async fn decide(&self, _: &str, _: &DecisionInput, _: &IdempotencyKey, _: &Cause) -> Result<()> {
        lacking("intake policies")
    }

    async fn revoke_link(&self, _: &str, _: &Cause) -> Result<()> {
        lacking("share links")
    }

    async fn changes(&self, _: &str, _: Duration) -> Result<ChangePage> {
        lacking("change feed")
    }
}
