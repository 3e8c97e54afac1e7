//! File 360 in domain terms, and the drivers that reach it.
//!
//! [`File360`] is the one way to the other side. Its post-conditions stand at each function; one behaviour suite
//! (`tests/file360_server`) holds every driver to them. A mutating call run twice has the effect of running it once.

pub mod connector;
pub mod content;
pub mod exchange;
pub mod feature;
pub mod model;
pub mod names;
pub mod sharing;
pub mod webdav;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use content::{ByteStream, Content, Download, IdempotencyKey, NewFile};

use crate::api::connection::Driver;
use crate::error::Result;
use exchange::{Settings, Transport};
use feature::Enforcement;
use model::{
    BusinessKey, ChangePage, Checklist, DecisionInput, Folder, Intake, ItemPatch, Link, Member, MemberInput, NewFolder,
    NewWorkspace, OwnerMark, Page, Pending, Principal, PrincipalKind, Service, UploadRequest, UploadRequestInput, Workspace,
    WorkspacePatch, WorkspaceRow, WorkspaceState,
};

/// Why a mutating call is made: the uid of the resource behind it. It comes back in the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause(pub String);

/// What a mutating call left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// The result.
    pub value: T,
    /// Revision of the workspace after the call. One more than before it when the call changed something.
    pub revision: u64,
}

/// Outcome of a creation under a business key.
#[derive(Clone, Debug, PartialEq)]
pub enum Creation {
    /// It did not exist and does now.
    Created(Box<Workspace>),
    /// It existed; nothing was changed.
    Existed(Box<Workspace>),
}

/// The driver of that kind for one tenant, over an exchange with it.
pub fn driver(kind: Driver, settings: Settings) -> (Arc<dyn File360>, Arc<Transport>) {
    match kind {
        Driver::Connector => {
            let transport = Arc::new(Transport::new(settings));
            (Arc::new(connector::Connector::new(transport.clone())), transport)
        }
        Driver::WebDav => {
            let transport = Arc::new(Transport::new(settings).to("the WebDAV server"));
            (Arc::new(webdav::WebDav::new(transport.clone())), transport)
        }
    }
}

/// One File 360 tenant.
#[async_trait]
pub trait File360: Content + Send + Sync {
    /// What the service says about itself. Proves that endpoint, trust and credential work.
    async fn service(&self) -> Result<Service>;

    /// Who the caller is there, as the feed of changes names it; `None`: the tenant does not say.
    async fn identity(&self) -> Result<Option<Principal>>;

    /// How far each feature is there, given what the service said last. What is [`Level::Unsupported`](feature::Level::Unsupported) is
    /// refused by every call that asks for it ([`Kind::Unsupported`](crate::error::Kind::Unsupported)), before anything is done.
    fn enforcement(&self, service: &Service) -> Enforcement;

    /// Raises the fence of `consumer` by one and makes every later mutating call carry it. After it returned, mutating calls
    /// of an earlier holder are refused. Returns the epoch.
    async fn take_fence(&self, cluster_id: &str, consumer: &str, holder: &str) -> Result<u64>;

    /// The principal of that kind and name, if there is one. Names compare without case.
    async fn principal(&self, kind: PrincipalKind, name: &str) -> Result<Option<Principal>>;

    /// The guest with that e-mail address, made if needed.
    async fn ensure_guest(&self, email: &str, cause: &Cause) -> Result<Principal>;

    /// The workspace under a business key, whatever its state.
    async fn workspace_by_key(&self, key: &BusinessKey) -> Result<Option<Workspace>>;

    /// The workspace with an id, whatever its state.
    async fn workspace(&self, id: &str) -> Result<Option<Workspace>>;

    /// Makes a workspace under a business key, or finds it. Many callers at once make one.
    async fn create_workspace(&self, key: &BusinessKey, new: &NewWorkspace, cause: &Cause) -> Result<Creation>;

    /// Changes a workspace, unless somebody changed it since `etag` ([`Kind::Stale`](crate::error::Kind::Stale)).
    async fn patch_workspace(
        &self,
        id: &str,
        etag: &str,
        patch: &WorkspacePatch,
        cause: &Cause,
    ) -> Result<Changed<Workspace>>;

    /// Sets who manages a workspace. An active mark of another client is a conflict, code `owned-by-other`.
    async fn set_owner(&self, id: &str, etag: &str, mark: &OwnerMark, cause: &Cause) -> Result<Changed<Workspace>>;

    /// Makes a workspace active or archived.
    async fn transition(&self, id: &str, etag: &str, to: WorkspaceState, cause: &Cause) -> Result<Changed<Workspace>>;

    /// Moves a workspace to the trash for `grace`. A conflict names up to 20 items that a hold, retention or record
    /// protects.
    async fn trash_workspace(&self, id: &str, etag: &str, grace: Duration, cause: &Cause) -> Result<()>;

    /// Brings a workspace back from the trash.
    async fn restore_workspace(&self, id: &str, cause: &Cause) -> Result<Changed<Workspace>>;

    /// A page of all workspaces whose owner mark names `cluster_id` (all workspaces without it).
    async fn workspaces(&self, cluster_id: Option<&str>, cursor: Option<&str>) -> Result<Page<WorkspaceRow>>;

    /// All members and grants of a workspace, and the revision that they belong to.
    async fn members(&self, workspace: &str) -> Result<Changed<Vec<Member>>>;

    /// Adds or changes one member or grant.
    async fn set_member(
        &self,
        workspace: &str,
        principal: &str,
        path: &str,
        input: &MemberInput,
        cause: &Cause,
    ) -> Result<Changed<()>>;

    /// Removes one member or grant; one that is gone is a success.
    async fn remove_member(&self, workspace: &str, principal: &str, path: &str, cause: &Cause) -> Result<Changed<()>>;

    /// All folders of a workspace except its root.
    async fn folders(&self, workspace: &str) -> Result<Changed<Vec<Folder>>>;

    /// Makes one folder; one that exists under the path is returned unchanged.
    async fn create_folder(&self, workspace: &str, new: &NewFolder, cause: &Cause) -> Result<Changed<Folder>>;

    /// Changes a folder, unless somebody changed it since `etag`.
    async fn patch_folder(&self, id: &str, etag: &str, patch: &ItemPatch, cause: &Cause) -> Result<Changed<()>>;

    /// Removes a folder that is empty. One with content is a conflict, code `not-empty`; one that is gone is a success.
    async fn delete_empty_folder(&self, id: &str, etag: &str, cause: &Cause) -> Result<Changed<()>>;

    /// All upload requests of a workspace.
    async fn upload_requests(&self, workspace: &str) -> Result<Changed<Vec<UploadRequest>>>;

    /// Adds or changes one upload request; its address stays.
    async fn put_upload_request(
        &self,
        workspace: &str,
        name: &str,
        input: &UploadRequestInput,
        cause: &Cause,
    ) -> Result<Changed<UploadRequest>>;

    /// What the page of an upload request tells about required documents. No revision moves, and the feed has no entry.
    async fn put_checklist(&self, workspace: &str, name: &str, checklist: &Checklist, cause: &Cause) -> Result<()>;

    /// Revokes one upload request; one that is gone is a success.
    async fn delete_upload_request(&self, workspace: &str, name: &str, cause: &Cause) -> Result<Changed<()>>;

    /// All share links of a workspace.
    async fn links(&self, workspace: &str) -> Result<Vec<Link>>;

    /// The intake policy of a folder, with the folder's entity tag; `None`: there is no such folder.
    async fn intake(&self, folder: &str) -> Result<Option<(Intake, String)>>;

    /// Sets the intake policy of a folder, unless somebody changed the folder since `etag`. What is pending stays so.
    async fn put_intake(&self, folder: &str, etag: &str, intake: &Intake, cause: &Cause) -> Result<()>;

    /// A page of everything that waits for a decision, in one workspace or in all.
    async fn pending(&self, workspace: Option<&str>, cursor: Option<&str>) -> Result<Page<Pending>>;

    /// Decides about something pending of an item; the first decision stands, and the same one again is a success. Another one is a conflict,
    /// code `already-decided`; what is not pending any more is [`Kind::NotFound`](crate::error::Kind::NotFound). The evidence is in the audit
    /// log when the decision takes effect.
    async fn decide(&self, item: &str, decision: &DecisionInput, key: &IdempotencyKey, cause: &Cause) -> Result<()>;

    /// Revokes one share link; one that is gone is a success.
    async fn revoke_link(&self, id: &str, cause: &Cause) -> Result<()>;

    /// The next entries of the change feed; waits up to `wait` for one. `now` as cursor starts at the end.
    /// [`Kind::Expired`](crate::error::Kind::Expired) when the cursor is too old.
    async fn changes(&self, cursor: &str, wait: Duration) -> Result<ChangePage>;
}
