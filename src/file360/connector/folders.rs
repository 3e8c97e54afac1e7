//! Folders, and what all listings of a workspace share.

use http::Method;
use serde::de::DeserializeOwned;

use super::Connector;
use super::workspaces::{found, workspace_path};
use crate::error::{Error, Kind, Result};
use crate::file360::exchange::{Answer, Call, segment};
use crate::file360::model::{Folder, ItemPatch, NewFolder, OnConflict, Page};
use crate::file360::{Cause, Changed};

/// Pages that one listing may have: 100,000 entries.
const MOST_PAGES: usize = 100;

impl Connector {
    pub(super) async fn list_folders(&self, workspace: &str) -> Result<Changed<Vec<Folder>>> {
        self.all_pages("list folders", format!("{}/folders", workspace_path(workspace))).await
    }

    pub(super) async fn post_folder(&self, workspace: &str, new: &NewFolder, cause: &Cause) -> Result<Changed<Folder>> {
        let operation = "create a folder";
        let new = NewFolder { on_conflict: OnConflict::Return, ..new.clone() };
        let call =
            Call::new(operation, Method::POST, format!("{}/folders", workspace_path(workspace))).json(&new)?.cause(cause);
        let answer = self.transport.call(call).await?;
        Ok(Changed { value: answer.json(operation)?, revision: answer.revision(operation)? })
    }

    pub(super) async fn merge_folder(&self, id: &str, etag: &str, patch: &ItemPatch, cause: &Cause) -> Result<Changed<()>> {
        let operation = "change a folder";
        let path = format!("/v1/items/{}", segment(id));
        let call = Call::new(operation, Method::PATCH, path).json(patch)?.if_match(etag).cause(cause);
        let revision = self.transport.call(call).await?.revision(operation)?;
        Ok(Changed { value: (), revision })
    }

    pub(super) async fn delete_folder(&self, id: &str, etag: &str, cause: &Cause) -> Result<Changed<()>> {
        let operation = "remove a folder";
        let call = Call::new(operation, Method::DELETE, format!("/v1/items/{}", segment(id)))
            .query(&[("ifEmpty", "true")])
            .if_match(etag)
            .cause(cause);
        let answer = found(self.transport.call(call).await)?;
        let revision = answer.and_then(|answer| answer.revision).unwrap_or_default();
        Ok(Changed { value: (), revision })
    }

    /// Reads a listing of one workspace to its end. All pages must belong to one revision, else it is read again.
    pub(super) async fn all_pages<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        path: String,
    ) -> Result<Changed<Vec<T>>> {
        for _ in 0..3 {
            if let Some(listing) = self.pages_of_one_revision(operation, &path).await? {
                return Ok(listing);
            }
        }
        Err(Error::new(Kind::Unavailable, "the workspace kept changing while it was listed").while_doing(operation))
    }

    async fn pages_of_one_revision<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        path: &str,
    ) -> Result<Option<Changed<Vec<T>>>> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        let mut first_revision = None;
        for _ in 0..MOST_PAGES {
            let mut query = vec![("limit", "1000")];
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let answer = self.get(operation, path.to_owned(), &query).await?;
            let revision = answer.revision(operation)?;
            if *first_revision.get_or_insert(revision) != revision {
                return Ok(None);
            }
            let page: Page<T> = answer.json(operation)?;
            all.extend(page.items);
            match page.next_cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                Some(_) => return Err(Error::new(Kind::Malformed, "the listing repeats its cursor").while_doing(operation)),
                None => return Ok(Some(Changed { value: all, revision })),
            }
        }
        Err(Error::new(Kind::Malformed, format!("the listing has more than {MOST_PAGES} pages")).while_doing(operation))
    }

    /// The revision after a removal; of an object that was gone already, the workspace's own.
    pub(super) async fn gone(
        &self,
        operation: &'static str,
        workspace: &str,
        answer: Option<Answer>,
    ) -> Result<Changed<()>> {
        let revision = match answer {
            Some(answer) => answer.revision(operation)?,
            None => self.get_workspace(workspace).await?.map_or(0, |workspace| workspace.revision),
        };
        Ok(Changed { value: (), revision })
    }
}
