//! Files of a WebDAV tenant; what a client notes beside them has no place there.

use async_trait::async_trait;
use serde_json::Value;

use super::{WebDav, lacking};
use crate::error::Result;
use crate::file360::model::{
    AccessList, BatchResults, ClientState, ClientStatePut, ClientStateRow, Facet, FacetPut, Item, ItemPatch, Link,
    MetadataPatch, NewLink, NewNotification, Notification, Page, Version,
};
use crate::file360::{ByteStream, Cause, Content, Download, IdempotencyKey, NewFile};

#[async_trait]
impl Content for WebDav {
    async fn item(&self, id: &str) -> Result<Option<Item>> {
        self.find_item(id).await
    }

    async fn item_at(&self, workspace: &str, path: &str) -> Result<Option<Item>> {
        self.find_item_at(workspace, path).await
    }

    async fn children(&self, folder: &str, cursor: Option<&str>) -> Result<Page<Item>> {
        self.list_children(folder, cursor).await
    }

    async fn files(&self, workspace: &str, path: &str, cursor: Option<&str>) -> Result<Page<Item>> {
        self.list_files(workspace, path, cursor).await
    }

    async fn versions(&self, _: &str) -> Result<Vec<Version>> {
        lacking("versions: a file has one, number 1")
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
        _: &Cause,
    ) -> Result<Item> {
        self.store(folder, new, content, key).await
    }

    async fn put_content(
        &self,
        item: &str,
        etag: &str,
        mime_type: &str,
        size: Option<u64>,
        sha256: Option<&str>,
        content: ByteStream,
        _: &Cause,
    ) -> Result<Item> {
        self.replace(item, etag, mime_type, size, sha256, content).await
    }

    async fn patch_item(&self, id: &str, etag: &str, patch: &ItemPatch, _: &Cause) -> Result<Item> {
        self.change_item(id, etag, patch).await
    }

    async fn set_metadata(&self, _: &[MetadataPatch], _: &IdempotencyKey, _: &Cause) -> Result<BatchResults> {
        lacking("metadata")
    }

    async fn delete_item(&self, _: &str, _: &str, _: &Cause) -> Result<()> {
        lacking("trash: what is removed is gone, so nothing is")
    }

    async fn put_facets(&self, _: &[FacetPut], _: &IdempotencyKey) -> Result<()> {
        lacking("facets")
    }

    async fn create_facet(&self, _: &FacetPut) -> Result<()> {
        lacking("facets")
    }

    async fn facet(&self, _: &str, _: u64, _: &str) -> Result<Option<Facet>> {
        lacking("facets")
    }

    async fn facets(&self, _: &str, _: Option<&str>, _: Option<&str>) -> Result<Page<Facet>> {
        lacking("facets")
    }

    async fn client_state(&self, _: &str) -> Result<Option<ClientState>> {
        lacking("client-state documents")
    }

    async fn put_client_state(&self, _: &str, _: &Value, _: Option<&str>) -> Result<String> {
        lacking("client-state documents")
    }

    async fn delete_client_state(&self, _: &str, _: &str) -> Result<()> {
        lacking("client-state documents")
    }

    async fn client_states(&self, _: &str, _: Option<&str>) -> Result<Page<ClientStateRow>> {
        lacking("client-state documents")
    }

    async fn put_client_states(&self, _: &[ClientStatePut], _: &IdempotencyKey) -> Result<()> {
        lacking("client-state documents")
    }

    async fn create_link(&self, _: &str, _: &NewLink, _: &IdempotencyKey, _: &Cause) -> Result<Link> {
        lacking("share links")
    }

    async fn notify(&self, _: &NewNotification, _: &IdempotencyKey) -> Result<Notification> {
        lacking("mails")
    }

    async fn access(&self, _: &str) -> Result<AccessList> {
        lacking("access lists")
    }
}
