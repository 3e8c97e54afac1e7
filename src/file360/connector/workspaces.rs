//! Service document, fences, principals and workspaces.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use super::Connector;
use crate::error::{Error, Kind, Result};
use crate::file360::exchange::{Answer, Call, segment};
use crate::file360::model::{
    BusinessKey, Fence, NewWorkspace, OwnerMark, Page, Principal, PrincipalKind, Service, Workspace, WorkspacePatch,
    WorkspaceRow, WorkspaceState,
};
use crate::file360::{Cause, Changed, Creation};

/// Attempts to raise a fence while others raise it too.
const FENCE_ATTEMPTS: u32 = 10;

impl Connector {
    pub(super) async fn who_am_i(&self) -> Result<Option<Principal>> {
        let operation = "ask who the operator is";
        match self.get(operation, "/v1/me".into(), &[]).await {
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            reply => reply?.json(operation).map(Some),
        }
    }

    pub(super) async fn read_service(&self) -> Result<Service> {
        let service: Service =
            self.get("read the service document", "/v1/service".into(), &[]).await?.json("read the service document")?;
        if service.contract.split('.').next() != Some("1") {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "the server speaks contract version {}; this operator speaks 1.x",
                    crate::error::clean(&service.contract, 20)
                ),
            ));
        }
        Ok(service)
    }

    pub(super) async fn raise_fence(&self, cluster_id: &str, consumer: &str, holder: &str) -> Result<u64> {
        let operation = "take the fence";
        let path = format!("/v1/fences/{}/{}", segment(cluster_id), segment(consumer));
        let mut outcome = Err(Error::new(Kind::Conflict, "others keep raising the fence"));
        for _ in 0..FENCE_ATTEMPTS {
            let current = found(self.get(operation, path.clone(), &[]).await)?;
            let (epoch, etag) = match &current {
                Some(answer) => (answer.json::<Fence>(operation)?.epoch, answer.etag.clone()),
                None => (0, None),
            };
            let fence = Fence { epoch: epoch + 1, holder: Some(holder.to_owned()) };
            let mut call = Call::new(operation, Method::PUT, path.clone()).json(&fence)?;
            call.if_match = etag.as_deref();
            call.create_only = etag.is_none();
            match self.transport.call(call).await {
                Ok(_) => {
                    self.transport.carry_fence(cluster_id, consumer, fence.epoch);
                    return Ok(fence.epoch);
                }
                Err(error) if matches!(error.kind, Kind::Stale | Kind::Conflict) => outcome = Err(error),
                Err(error) => return Err(error),
            }
        }
        outcome
    }

    pub(super) async fn find_principal(&self, kind: PrincipalKind, name: &str) -> Result<Option<Principal>> {
        let operation = "find a principal";
        let kind_name = match kind {
            PrincipalKind::User => "User",
            PrincipalKind::Group => "Group",
            PrincipalKind::Guest => "Guest",
            PrincipalKind::Client => "Client",
        };
        let answer = self.get(operation, "/v1/principals".into(), &[("kind", kind_name), ("name", name)]).await?;
        let page: Page<Principal> = answer.json(operation)?;
        Ok(page.items.into_iter().find(|principal| principal.name.to_lowercase() == name.to_lowercase()))
    }

    pub(super) async fn put_guest(&self, email: &str, cause: &Cause) -> Result<Principal> {
        let operation = "make a guest";
        let call =
            Call::new(operation, Method::PUT, format!("/v1/guests/{}", segment(email))).json(&json!({}))?.cause(cause);
        self.transport.call(call).await?.json(operation)
    }

    pub(super) async fn get_by_key(&self, key: &BusinessKey) -> Result<Option<Workspace>> {
        let operation = "find the workspace by key";
        found(self.get(operation, key_path(key), &[]).await)?.map(|answer| answer.json(operation)).transpose()
    }

    pub(super) async fn get_workspace(&self, id: &str) -> Result<Option<Workspace>> {
        let operation = "read the workspace";
        found(self.get(operation, workspace_path(id), &[]).await)?.map(|answer| answer.json(operation)).transpose()
    }

    pub(super) async fn put_by_key(&self, key: &BusinessKey, new: &NewWorkspace, cause: &Cause) -> Result<Creation> {
        let operation = "create the workspace";
        let mut call = Call::new(operation, Method::PUT, key_path(key)).json(new)?.cause(cause);
        call.create_only = true;
        match self.transport.call(call).await {
            Ok(answer) if answer.status == StatusCode::CREATED => Ok(Creation::Created(Box::new(answer.json(operation)?))),
            Ok(answer) => Ok(Creation::Existed(Box::new(answer.json(operation)?))),
            Err(error) if error.kind == Kind::Conflict && error.code == "key-exists" => {
                let existing = self.get_by_key(key).await?.ok_or(error)?;
                Ok(Creation::Existed(Box::new(existing)))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn merge_workspace(
        &self,
        id: &str,
        etag: &str,
        patch: &WorkspacePatch,
        cause: &Cause,
    ) -> Result<Changed<Workspace>> {
        let operation = "change the workspace";
        let call = Call::new(operation, Method::PATCH, workspace_path(id)).json(patch)?.if_match(etag).cause(cause);
        changed(operation, &self.transport.call(call).await?)
    }

    pub(super) async fn put_owner(
        &self,
        id: &str,
        etag: &str,
        mark: &OwnerMark,
        cause: &Cause,
    ) -> Result<Changed<Workspace>> {
        let operation = "mark the workspace's owner";
        let call = Call::new(operation, Method::PUT, format!("{}/owner", workspace_path(id)))
            .json(mark)?
            .if_match(etag)
            .cause(cause);
        changed(operation, &self.transport.call(call).await?)
    }

    pub(super) async fn post_transition(
        &self,
        id: &str,
        etag: &str,
        to: WorkspaceState,
        cause: &Cause,
    ) -> Result<Changed<Workspace>> {
        let operation = "change the workspace's state";
        let call = Call::new(operation, Method::POST, format!("{}/transitions", workspace_path(id)))
            .json(&json!({"to": to}))?
            .if_match(etag)
            .cause(cause);
        changed(operation, &self.transport.call(call).await?)
    }

    pub(super) async fn delete_workspace(&self, id: &str, etag: &str, grace: Duration, cause: &Cause) -> Result<()> {
        let operation = "move the workspace to the trash";
        let seconds = grace.as_secs().to_string();
        let query = [("graceSeconds", seconds.as_str())];
        let call = Call::new(operation, Method::DELETE, workspace_path(id)).query(&query).if_match(etag).cause(cause);
        found(self.transport.call(call).await).map(|_| ())
    }

    pub(super) async fn post_restoration(&self, id: &str, cause: &Cause) -> Result<Changed<Workspace>> {
        let operation = "restore the workspace";
        let call = Call::new(operation, Method::POST, format!("{}/restorations", workspace_path(id)))
            .json(&json!({}))?
            .cause(cause);
        changed(operation, &self.transport.call(call).await?)
    }

    pub(super) async fn list_workspaces(
        &self,
        cluster_id: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<Page<WorkspaceRow>> {
        let operation = "list workspaces";
        let mut query = vec![("limit", "1000")];
        query.extend(cluster_id.map(|id| ("clusterId", id)));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        self.get(operation, "/v1/workspaces".into(), &query).await?.json(operation)
    }

    pub(super) async fn get(&self, operation: &'static str, path: String, query: &[(&str, &str)]) -> Result<Answer> {
        self.transport.call(Call::new(operation, Method::GET, path).query(query)).await
    }
}

/// `NotFound` is an observation, not a failure.
pub(super) fn found(result: Result<Answer>) -> Result<Option<Answer>> {
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn workspace_path(id: &str) -> String {
    format!("/v1/workspaces/{}", segment(id))
}

fn key_path(key: &BusinessKey) -> String {
    format!("/v1/workspaces/by-key/{}/{}", segment(&key.system), segment(&key.key))
}

fn changed(operation: &'static str, answer: &Answer) -> Result<Changed<Workspace>> {
    let value: Workspace = answer.json(operation)?;
    Ok(Changed { revision: value.revision, value })
}
