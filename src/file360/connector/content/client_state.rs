//! Documents that this client keeps on the other side.

use http::Method;
use serde_json::{Value, json};

use super::page;
use crate::error::Result;
use crate::file360::IdempotencyKey;
use crate::file360::connector::Connector;
use crate::file360::connector::workspaces::found;
use crate::file360::exchange::{Call, segment};
use crate::file360::model::{ClientState, ClientStateBatch, ClientStatePut, ClientStateRow, Page};

impl Connector {
    pub(super) async fn get_client_state(&self, key: &str) -> Result<Option<ClientState>> {
        let operation = "read a client-state document";
        found(self.get(operation, document_path(key), &[]).await)?.map(|answer| answer.json(operation)).transpose()
    }

    pub(super) async fn swap_client_state(&self, key: &str, value: &Value, etag: Option<&str>) -> Result<String> {
        let operation = "set a client-state document";
        let mut call = Call::new(operation, Method::PUT, document_path(key)).json(&json!({"value": value}))?.mutating();
        call.if_match = etag;
        call.create_only = etag.is_none();
        Ok(self.transport.call(call).await?.json::<ClientState>(operation)?.etag)
    }

    pub(super) async fn remove_client_state(&self, key: &str, etag: &str) -> Result<()> {
        let operation = "remove a client-state document";
        let call = Call::new(operation, Method::DELETE, document_path(key)).if_match(etag).mutating();
        found(self.transport.call(call).await).map(|_| ())
    }

    pub(super) async fn list_client_state(&self, prefix: &str, cursor: Option<&str>) -> Result<Page<ClientStateRow>> {
        let operation = "list client-state documents";
        self.get(operation, "/v1/client-state".into(), &page(cursor, &[("prefix", prefix)])).await?.json(operation)
    }

    pub(super) async fn batch_client_state(&self, puts: &[ClientStatePut], key: &IdempotencyKey) -> Result<()> {
        let batch = ClientStateBatch { items: puts.to_vec() };
        let operation = "set client-state documents";
        let call = Call::new(operation, Method::POST, "/v1/client-state/batch".into()).json(&batch)?.key(key).mutating();
        self.transport.call(call).await.map(|_| ())
    }
}

fn document_path(key: &str) -> String {
    format!("/v1/client-state/{}", segment(key))
}
