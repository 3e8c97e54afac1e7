//! Files as documents of a search index. Their content stays where it is.

mod document;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use self::document::{Acl, Properties};
use crate::api::http_target::HttpAuth;
use crate::api::places::{IndexAcl, IndexDeletes, SearchIndex};
use crate::error::{Error, Kind, Result};
use crate::expression::InvalidField;
use crate::file360::model::AccessList;
use crate::hex::hex;
use crate::outbound::guard::Guard;
use crate::outbound::opensearch::bulk::Written;
use crate::outbound::opensearch::http::{Settings, base_url};
use crate::outbound::opensearch::{OpenSearch, Withdrawal};
use crate::outbound::secrets::References;
use crate::outbound::trust::Trust;
use crate::routes::delivery::{Delivery, Destination, Origin, Receipt, RouteId};

/// Tells who may read a file.
#[async_trait]
pub trait Readers: Send + Sync {
    /// Who may read the item, as it is now.
    async fn readers(&self, item: &str) -> Result<AccessList>;
}

/// A search index (R7): one document for each file, with the properties that the route allows and nothing else, and who may read the file.
/// It never opens the content.
pub struct IndexDestination {
    client: OpenSearch,
    properties: Properties,
    /// Where access lists come from; `None`: documents have none.
    readers: Option<Arc<dyn Readers>>,
    withdrawal: Withdrawal,
    place: String,
}

impl IndexDestination {
    /// Checks address and authentication; connects to nothing yet. Field names are below the destination.
    pub fn new(
        spec: &SearchIndex,
        references: Arc<dyn References>,
        guard: Arc<Guard>,
        trust: Trust,
        readers: Arc<dyn Readers>,
    ) -> Result<Self, InvalidField> {
        let target = &spec.opensearch;
        let invalid = |field: &str, why: String| InvalidField { field: format!("index.opensearch.{field}"), why };
        let url = base_url(&target.url, &guard).map_err(|why| invalid("url", why))?;
        if let Some(field) = target.auth.as_ref().and_then(unsupported) {
            return Err(invalid(field, "does not work with a search index; use bearer, basic, apiKey or mtls".into()));
        }
        let place = format!("{url} {}", target.index);
        let settings = Settings { url, auth: target.auth.clone(), tls: target.tls.clone(), references, guard, trust };
        let mirrors_access = spec.acl.unwrap_or_default() == IndexAcl::Mirror;
        let withdrawal = match spec.deletes.unwrap_or_default() {
            IndexDeletes::Propagate => Withdrawal::Remove,
            IndexDeletes::Keep => Withdrawal::Mark(marks(mirrors_access)),
        };
        Ok(Self {
            client: OpenSearch::new(settings, &target.index),
            properties: Properties::new(&spec.properties),
            readers: mirrors_access.then_some(readers),
            withdrawal,
            place,
        })
    }

    async fn acl(&self, origin: &Origin) -> Result<Option<Acl>> {
        match (&self.readers, origin) {
            (None, _) => Ok(None),
            (Some(readers), Origin::Item { item, .. }) => Ok(Some(Acl::of(&readers.readers(item).await?))),
            (Some(_), Origin::Object { .. }) => {
                Err(Error::new(Kind::Unsupported, "objects of a store have no access lists; set index.acl: Omit"))
            }
        }
    }
}

/// What marks a document whose file is gone. Nobody's access to it is known any more, so nobody finds it by access.
fn marks(mirrors_access: bool) -> Map<String, Value> {
    let mut marks = Map::from_iter([("deleted".to_owned(), true.into())]);
    if mirrors_access {
        marks.insert("acl".into(), json!(Acl::default()));
    }
    marks
}

/// The way to authenticate that this destination cannot use.
fn unsupported(auth: &HttpAuth) -> Option<&'static str> {
    if auth.oauth2.is_some() {
        return Some("auth.oauth2");
    }
    auth.hmac.is_some().then_some("auth.hmac")
}

/// Id of a file's document: 64 hexadecimal digits, the same for every version, rule and route.
pub fn document_id(file: &str) -> String {
    hex(&Sha256::digest(file))
}

/// The value of a document's `route`. A route that is made anew under the same name finds its documents again.
pub fn route_name(route: &RouteId) -> String {
    format!("{}/{}/{}", route.cluster, route.namespace, route.name)
}

#[async_trait]
impl Destination for IndexDestination {
    fn kind(&self) -> &'static str {
        "opensearch"
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<Receipt> {
        let file = delivery.file.origin.file();
        let acl = self.acl(&delivery.file.origin).await.map_err(|error| error.while_doing("read who may read the file"))?;
        let document = self.properties.document(&delivery.file, &route_name(&delivery.route), acl.as_ref());
        let id = document_id(&file);
        let written = self.client.put(&id, delivery.as_of, document).await?;
        Ok(Receipt { reference: id, bytes: 0, duplicate: written != Written::Done, response: None })
    }

    fn mirrors(&self) -> bool {
        true
    }

    fn place(&self) -> Option<&str> {
        Some(&self.place)
    }

    async fn withdraw(&self, route: &RouteId, file: &str, as_of: Timestamp) -> Result<()> {
        self.client.withdraw(&document_id(file), &route_name(route), as_of, &self.withdrawal).await
    }

    async fn listing(&self, route: &RouteId) -> Result<Option<Vec<String>>> {
        self.client.listing(&route_name(route)).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_document_whatever_its_version() {
        let version = |version| Origin::Item { workspace: "w".into(), item: "i".into(), version };
        assert_eq!(document_id(&version(1).file()), document_id(&version(2).file()));
        assert_ne!(document_id("i"), document_id("j"));
        assert_eq!(document_id("i").len(), 64);
    }
}
