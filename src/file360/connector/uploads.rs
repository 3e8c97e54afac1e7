//! Upload requests and share links.

use http::Method;

use super::Connector;
use super::workspaces::{found, workspace_path};
use crate::error::Result;
use crate::file360::exchange::{Call, segment};
use crate::file360::model::{Checklist, Link, UploadRequest, UploadRequestInput};
use crate::file360::{Cause, Changed};

impl Connector {
    pub(super) async fn list_upload_requests(&self, workspace: &str) -> Result<Changed<Vec<UploadRequest>>> {
        self.all_pages("list upload requests", format!("{}/upload-requests", workspace_path(workspace))).await
    }

    pub(super) async fn put_request(
        &self,
        workspace: &str,
        name: &str,
        input: &UploadRequestInput,
        cause: &Cause,
    ) -> Result<Changed<UploadRequest>> {
        let operation = "set an upload request";
        let call = Call::new(operation, Method::PUT, request_path(workspace, name)).json(input)?.cause(cause);
        let answer = self.transport.call(call).await?;
        Ok(Changed { value: answer.json(operation)?, revision: answer.revision(operation)? })
    }

    pub(super) async fn set_checklist(
        &self,
        workspace: &str,
        name: &str,
        checklist: &Checklist,
        cause: &Cause,
    ) -> Result<()> {
        let path = format!("{}/checklist", request_path(workspace, name));
        let call = Call::new("set a checklist", Method::PUT, path).json(checklist)?.cause(cause);
        self.transport.call(call).await.map(|_| ())
    }

    pub(super) async fn delete_request(&self, workspace: &str, name: &str, cause: &Cause) -> Result<Changed<()>> {
        let operation = "revoke an upload request";
        let call = Call::new(operation, Method::DELETE, request_path(workspace, name)).cause(cause);
        self.gone(operation, workspace, found(self.transport.call(call).await)?).await
    }

    pub(super) async fn list_links(&self, workspace: &str) -> Result<Vec<Link>> {
        Ok(self.all_pages("list share links", format!("{}/links", workspace_path(workspace))).await?.value)
    }

    pub(super) async fn delete_link(&self, id: &str, cause: &Cause) -> Result<()> {
        let call = Call::new("revoke a share link", Method::DELETE, format!("/v1/links/{}", segment(id))).cause(cause);
        found(self.transport.call(call).await).map(|_| ())
    }
}

fn request_path(workspace: &str, name: &str) -> String {
    format!("{}/upload-requests/{}", workspace_path(workspace), segment(name))
}
