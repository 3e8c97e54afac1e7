//! Facets: what this client notes on versions of files.

use http::Method;

use super::items::item_path;
use super::page;
use crate::error::Result;
use crate::file360::IdempotencyKey;
use crate::file360::connector::Connector;
use crate::file360::connector::workspaces::found;
use crate::file360::exchange::{Call, segment};
use crate::file360::model::{Facet, FacetBatch, FacetInput, FacetPut, Page};

fn facet_path(item: &str, version: u64, name: &str) -> String {
    format!("{}/versions/{version}/facets/{}", item_path(item), segment(name))
}

impl Connector {
    pub(super) async fn batch_facets(&self, facets: &[FacetPut], key: &IdempotencyKey) -> Result<()> {
        let batch = FacetBatch { items: facets.to_vec() };
        let call = Call::new("set facets", Method::POST, "/v1/facets/batch".into()).json(&batch)?.key(key).mutating();
        self.transport.call(call).await.map(|_| ())
    }

    pub(super) async fn put_new_facet(&self, facet: &FacetPut) -> Result<()> {
        let path = facet_path(&facet.item_id, facet.version, &facet.name);
        let input = FacetInput { value: facet.value.clone().unwrap_or_default(), announce: facet.announce };
        let mut call = Call::new("make a facet", Method::PUT, path).json(&input)?.mutating();
        call.create_only = true;
        self.transport.call(call).await.map(|_| ())
    }

    pub(super) async fn get_facet(&self, item: &str, version: u64, name: &str) -> Result<Option<Facet>> {
        let operation = "read a facet";
        found(self.get(operation, facet_path(item, version, name), &[]).await)?
            .map(|answer| answer.json(operation))
            .transpose()
    }

    pub(super) async fn query_facets(
        &self,
        name: &str,
        workspace: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<Page<Facet>> {
        let operation = "list facets";
        let mut query = page(cursor, &[("name", name)]);
        query.extend(workspace.map(|workspace| ("workspaceId", workspace)));
        self.get(operation, "/v1/facets".into(), &query).await?.json(operation)
    }
}
