//! Files, and what a client notes beside them.

mod client_state;
mod facets;
mod files;
mod items;
mod shares;

use async_trait::async_trait;
use serde_json::Value;

use super::Connector;
use crate::error::Result;
use crate::file360::model::{
    AccessList, BatchResults, ClientState, ClientStatePut, ClientStateRow, Facet, FacetPut, Item, ItemPatch, Link,
    MetadataPatch, NewLink, NewNotification, Notification, Page, Version,
};
use crate::file360::{ByteStream, Cause, Content, Download, IdempotencyKey, NewFile};

#[async_trait]
impl Content for Connector {
    async fn item(&self, id: &str) -> Result<Option<Item>> {
        self.get_item(id).await
    }

    async fn item_at(&self, workspace: &str, path: &str) -> Result<Option<Item>> {
        self.resolve(workspace, path).await
    }

    async fn children(&self, folder: &str, cursor: Option<&str>) -> Result<Page<Item>> {
        self.list_children(folder, cursor).await
    }

    async fn files(&self, workspace: &str, path: &str, cursor: Option<&str>) -> Result<Page<Item>> {
        self.list_files(workspace, path, cursor).await
    }

    async fn versions(&self, item: &str) -> Result<Vec<Version>> {
        self.list_versions(item).await
    }

    async fn download(&self, item: &str, version: u64) -> Result<Download> {
        self.get_content(item, version).await
    }

    async fn upload(
        &self,
        folder: &str,
        new: &NewFile,
        content: ByteStream,
        key: &IdempotencyKey,
        cause: &Cause,
    ) -> Result<Item> {
        self.post_file(folder, new, content, key, cause).await
    }

    async fn put_content(
        &self,
        item: &str,
        etag: &str,
        mime_type: &str,
        size: Option<u64>,
        sha256: Option<&str>,
        content: ByteStream,
        cause: &Cause,
    ) -> Result<Item> {
        let content = files::leaving(content, mime_type, size, sha256)?;
        self.replace_content(item, etag, content, cause).await
    }

    async fn patch_item(&self, id: &str, etag: &str, patch: &ItemPatch, cause: &Cause) -> Result<Item> {
        self.merge_item(id, etag, patch, cause).await
    }

    async fn set_metadata(&self, patches: &[MetadataPatch], key: &IdempotencyKey, cause: &Cause) -> Result<BatchResults> {
        self.batch_metadata(patches, key, cause).await
    }

    async fn delete_item(&self, id: &str, etag: &str, cause: &Cause) -> Result<()> {
        self.trash_item(id, etag, cause).await
    }

    async fn put_facets(&self, facets: &[FacetPut], key: &IdempotencyKey) -> Result<()> {
        self.batch_facets(facets, key).await
    }

    async fn create_facet(&self, facet: &FacetPut) -> Result<()> {
        self.put_new_facet(facet).await
    }

    async fn facet(&self, item: &str, version: u64, name: &str) -> Result<Option<Facet>> {
        self.get_facet(item, version, name).await
    }

    async fn facets(&self, name: &str, workspace: Option<&str>, cursor: Option<&str>) -> Result<Page<Facet>> {
        self.query_facets(name, workspace, cursor).await
    }

    async fn client_state(&self, key: &str) -> Result<Option<ClientState>> {
        self.get_client_state(key).await
    }

    async fn put_client_state(&self, key: &str, value: &Value, etag: Option<&str>) -> Result<String> {
        self.swap_client_state(key, value, etag).await
    }

    async fn delete_client_state(&self, key: &str, etag: &str) -> Result<()> {
        self.remove_client_state(key, etag).await
    }

    async fn client_states(&self, prefix: &str, cursor: Option<&str>) -> Result<Page<ClientStateRow>> {
        self.list_client_state(prefix, cursor).await
    }

    async fn put_client_states(&self, puts: &[ClientStatePut], key: &IdempotencyKey) -> Result<()> {
        self.batch_client_state(puts, key).await
    }

    async fn create_link(&self, item: &str, new: &NewLink, key: &IdempotencyKey, cause: &Cause) -> Result<Link> {
        self.post_link(item, new, key, cause).await
    }

    async fn notify(&self, new: &NewNotification, key: &IdempotencyKey) -> Result<Notification> {
        self.post_notification(new, key).await
    }

    async fn access(&self, item: &str) -> Result<AccessList> {
        self.get_access(item).await
    }
}

/// Query of one page of a listing.
fn page<'a>(cursor: Option<&'a str>, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut query = vec![("limit", "1000")];
    query.extend_from_slice(more);
    query.extend(cursor.map(|cursor| ("cursor", cursor)));
    query
}
