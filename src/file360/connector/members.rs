//! Members and grants.

use http::Method;

use super::Connector;
use super::workspaces::{found, workspace_path};
use crate::error::Result;
use crate::file360::exchange::{Call, segment};
use crate::file360::model::{Member, MemberInput};
use crate::file360::{Cause, Changed};

impl Connector {
    pub(super) async fn list_members(&self, workspace: &str) -> Result<Changed<Vec<Member>>> {
        self.all_pages("list members", format!("{}/members", workspace_path(workspace))).await
    }

    pub(super) async fn put_member(
        &self,
        workspace: &str,
        principal: &str,
        path: &str,
        input: &MemberInput,
        cause: &Cause,
    ) -> Result<Changed<()>> {
        let operation = "set a member";
        let query = [("path", path)];
        let call =
            Call::new(operation, Method::PUT, member_path(workspace, principal)).query(&query).json(input)?.cause(cause);
        let revision = self.transport.call(call).await?.revision(operation)?;
        Ok(Changed { value: (), revision })
    }

    pub(super) async fn delete_member(
        &self,
        workspace: &str,
        principal: &str,
        path: &str,
        cause: &Cause,
    ) -> Result<Changed<()>> {
        let operation = "remove a member";
        let query = [("path", path)];
        let call = Call::new(operation, Method::DELETE, member_path(workspace, principal)).query(&query).cause(cause);
        self.gone(operation, workspace, found(self.transport.call(call).await)?).await
    }
}

fn member_path(workspace: &str, principal: &str) -> String {
    format!("{}/members/{}", workspace_path(workspace), segment(principal))
}
