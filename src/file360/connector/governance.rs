//! Intake policies, and decisions about what they hold back.

use http::Method;

use super::Connector;
use super::workspaces::found;
use crate::error::{Error, Kind, Result};
use crate::file360::exchange::{Call, segment};
use crate::file360::model::{DecisionInput, Intake, Page, Pending};
use crate::file360::{Cause, IdempotencyKey};

impl Connector {
    pub(super) async fn get_intake(&self, folder: &str) -> Result<Option<(Intake, String)>> {
        let operation = "read an intake policy";
        let Some(answer) = found(self.get(operation, intake_path(folder), &[]).await)? else { return Ok(None) };
        let missing = || Error::new(Kind::Malformed, "the answer has no entity tag").while_doing(operation);
        let etag = answer.etag.clone().ok_or_else(missing)?;
        Ok(Some((answer.json(operation)?, etag)))
    }

    pub(super) async fn set_intake(&self, folder: &str, etag: &str, intake: &Intake, cause: &Cause) -> Result<()> {
        let call = Call::new("set an intake policy", Method::PUT, intake_path(folder));
        self.transport.call(call.json(intake)?.if_match(etag).cause(cause)).await.map(|_| ())
    }

    pub(super) async fn list_pending(&self, workspace: Option<&str>, cursor: Option<&str>) -> Result<Page<Pending>> {
        let operation = "list what is pending";
        let mut query = vec![("limit", "1000")];
        query.extend(workspace.map(|workspace| ("workspaceId", workspace)));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        self.get(operation, "/v1/pending".into(), &query).await?.json(operation)
    }

    pub(super) async fn post_decision(
        &self,
        item: &str,
        decision: &DecisionInput,
        key: &IdempotencyKey,
        cause: &Cause,
    ) -> Result<()> {
        let path = format!("/v1/items/{}/decisions", segment(item));
        let call = Call::new("decide about something pending", Method::POST, path).json(decision)?.key(key).cause(cause);
        self.transport.call(call).await.map(|_| ())
    }
}

fn intake_path(folder: &str) -> String {
    format!("/v1/items/{}/intake", segment(folder))
}
