//! Folders and files as items.

use http::Method;

use super::page;
use crate::error::{Error, Kind, Result};
use crate::file360::connector::Connector;
use crate::file360::connector::workspaces::{found, workspace_path};
use crate::file360::exchange::{Call, segment};
use crate::file360::model::{AccessList, BatchResults, Item, ItemPatch, MetadataBatch, MetadataPatch, Page, Version};
use crate::file360::{Cause, IdempotencyKey};

/// Pages that the versions of one file may have: 100,000 versions.
const MOST_PAGES: usize = 100;

impl Connector {
    pub(super) async fn get_item(&self, id: &str) -> Result<Option<Item>> {
        let operation = "read an item";
        found(self.get(operation, item_path(id), &[]).await)?.map(|answer| answer.json(operation)).transpose()
    }

    pub(super) async fn resolve(&self, workspace: &str, path: &str) -> Result<Option<Item>> {
        let operation = "find an item by its path";
        let answer = self.get(operation, format!("{}/resolve", workspace_path(workspace)), &[("path", path)]).await;
        found(answer)?.map(|answer| answer.json(operation)).transpose()
    }

    pub(super) async fn list_children(&self, folder: &str, cursor: Option<&str>) -> Result<Page<Item>> {
        let operation = "list a folder";
        self.get(operation, format!("{}/children", item_path(folder)), &page(cursor, &[])).await?.json(operation)
    }

    pub(super) async fn list_files(&self, workspace: &str, path: &str, cursor: Option<&str>) -> Result<Page<Item>> {
        let operation = "list files";
        let query = page(cursor, &[("path", path)]);
        self.get(operation, format!("{}/files", workspace_path(workspace)), &query).await?.json(operation)
    }

    pub(super) async fn list_versions(&self, item: &str) -> Result<Vec<Version>> {
        let operation = "list versions";
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let query = page(cursor.as_deref(), &[]);
            let page: Page<Version> =
                self.get(operation, format!("{}/versions", item_path(item)), &query).await?.json(operation)?;
            all.extend(page.items);
            match page.next_cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                Some(_) => return Err(Error::new(Kind::Malformed, "the listing repeats its cursor").while_doing(operation)),
                None => return Ok(all),
            }
        }
        Err(Error::new(Kind::Malformed, format!("the listing has more than {MOST_PAGES} pages")).while_doing(operation))
    }

    pub(super) async fn merge_item(&self, id: &str, etag: &str, patch: &ItemPatch, cause: &Cause) -> Result<Item> {
        let operation = "change an item";
        let call = Call::new(operation, Method::PATCH, item_path(id)).json(patch)?.if_match(etag).cause(cause);
        self.transport.call(call).await?.json(operation)
    }

    pub(super) async fn batch_metadata(
        &self,
        patches: &[MetadataPatch],
        key: &IdempotencyKey,
        cause: &Cause,
    ) -> Result<BatchResults> {
        let operation = "set metadata";
        let batch = MetadataBatch { get: Vec::new(), set: patches.to_vec() };
        let call = Call::new(operation, Method::POST, "/v1/metadata/batch".into()).json(&batch)?.key(key).cause(cause);
        let results: BatchResults = self.transport.call(call).await?.json(operation)?;
        let matches = results.results.len() == patches.len()
            && results.results.iter().zip(patches).all(|(result, patch)| result.item_id == patch.item_id);
        if matches {
            return Ok(results);
        }
        Err(Error::new(Kind::Malformed, "the results are not those of the items that were asked for").while_doing(operation))
    }

    pub(super) async fn trash_item(&self, id: &str, etag: &str, cause: &Cause) -> Result<()> {
        let call = Call::new("delete an item", Method::DELETE, item_path(id)).if_match(etag).cause(cause);
        found(self.transport.call(call).await).map(|_| ())
    }

    pub(super) async fn get_access(&self, item: &str) -> Result<AccessList> {
        let operation = "read who has access";
        self.get(operation, format!("{}/access", item_path(item)), &[]).await?.json(operation)
    }
}

pub(super) fn item_path(id: &str) -> String {
    format!("/v1/items/{}", segment(id))
}
