//! OpenSearch and Elasticsearch: documents by the bulk API, one for each file.

pub mod bulk;
pub mod http;
mod mapping;

use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, StatusCode};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::bulk::{Bulk, Sender, Write, Written};
use self::http::{Answer, Http, Settings, refusal};
use crate::error::{Error, Kind, Result};
use crate::outbound::shared::Shared;

/// How long an index that was looked at counts as fine. An index that somebody removes and a write makes anew would lack its mapping.
const LOOKED_AT: Duration = Duration::from_mins(5);
/// Documents on a page of a listing.
const PAGE: usize = 1_000;
/// Most pages of a listing.
const MAX_PAGES: usize = 20_000;
/// How far the clocks of two replicas may differ before it counts as wrong.
const FUTURE: Duration = Duration::from_mins(5);
/// How often a withdrawal is decided anew because the document changes under it.
const WITHDRAWAL_TRIES: usize = 5;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// One index of one cluster. Every document has the members `route` and `fileId`.
pub struct OpenSearch {
    cluster: Arc<Cluster>,
    bulk: Arc<Bulk<Cluster>>,
}

struct Cluster {
    http: Http,
    host: String,
    index: String,
    /// When the index was last looked at.
    prepared: Shared<Instant>,
}

/// How a document goes away.
#[derive(Clone, Debug, PartialEq)]
pub enum Withdrawal {
    /// It is removed.
    Remove,
    /// It stays, with these members set.
    Mark(Map<String, Value>),
}

/// A document as it was looked at.
struct Seen {
    version: u64,
    route: String,
    document: Map<String, Value>,
}

/// The version of a document that is put `as_of` a time: an odd number. Even ones are left for withdrawals, see [`OpenSearch::withdraw`].
fn version_of(as_of: Timestamp) -> u64 {
    u64::try_from(as_of.as_microsecond()).unwrap_or_default() * 2 + 1
}

impl OpenSearch {
    /// `index` consists of lower-case letters, digits, `.`, `_` and `-`, and starts with a letter or digit. Nothing is sent before it is needed.
    pub fn new(settings: Settings, index: &str) -> Self {
        let host = settings.url.host_str().unwrap_or_default().to_owned();
        let cluster =
            Arc::new(Cluster { http: Http::new(settings), host, index: index.to_owned(), prepared: Shared::default() });
        Self { bulk: Bulk::new(cluster.clone()), cluster }
    }

    /// Makes or replaces a document with what was so `as_of` then. One that tells of a later time stays ([`Written::Superseded`]), but one of
    /// the future is a failure, so that a clock that was wrong does not go unseen. Returns once it is durable; it can be found after the
    /// index's next refresh.
    pub async fn put(&self, id: &str, as_of: Timestamp, document: Map<String, Value>) -> Result<Written> {
        let written = self
            .bulk
            .write(Write { id: id.to_owned(), version: version_of(as_of), document: Some(document.into()) })
            .await?;
        if written == Written::Superseded
            && let Some(seen) = self.cluster.look(id).await?
            && seen.version > version_of(Timestamp::now() + FUTURE)
        {
            let what = "the index has a document that was written with a later time than now; correct the clock, or remove the document";
            return Err(Error::new(Kind::Conflict, what));
        }
        Ok(written)
    }

    /// Withdraws the document of `route`, with what was so `as_of` then. What is another route's, or tells of a later time, stays; what is
    /// gone is fine.
    pub async fn withdraw(&self, id: &str, route: &str, as_of: Timestamp, how: &Withdrawal) -> Result<()> {
        for _ in 0..WITHDRAWAL_TRIES {
            let Some(seen) = self.cluster.look(id).await? else { return Ok(()) };
            let is_marked = matches!(how, Withdrawal::Mark(_)) && seen.document.get("deleted") == Some(&Value::Bool(true));
            if seen.route != route || seen.version > version_of(as_of) || is_marked {
                return Ok(());
            }
            // Between what was seen and any later put: when another route takes the file over in this moment, its document stays, although
            // that route may have looked at the file a moment earlier.
            let version = seen.version + 1;
            let document = match how {
                Withdrawal::Remove => None,
                Withdrawal::Mark(members) => {
                    let mut document = seen.document;
                    document.extend(members.clone());
                    Some(document.into())
                }
            };
            match self.bulk.write(Write { id: id.to_owned(), version, document }).await? {
                Written::Done | Written::Gone => return Ok(()),
                // Somebody wrote in between: what is there now decides.
                Written::Superseded => {}
            }
        }
        Err(Error::new(Kind::Conflict, "the document changes faster than it can be withdrawn"))
    }

    /// The `fileId` of every document of `route` that is not marked `deleted`, including what was written just now. Fails rather than
    /// returning a part.
    pub async fn listing(&self, route: &str) -> Result<Vec<String>> {
        let cluster = &self.cluster;
        cluster.prepare().await?;
        cluster.ask(Method::POST, &cluster.path("_refresh"), &[], None).await?;
        let mut found: Vec<String> = Vec::new();
        for _ in 0..MAX_PAGES {
            let page = cluster.page(route, found.last()).await?;
            let is_last = page.len() < PAGE;
            let mut before = found.last();
            for next in &page {
                if before.is_some_and(|before| next <= before) {
                    return Err(Error::new(Kind::Malformed, format!("{} lists documents out of order", cluster.host)));
                }
                before = Some(next);
            }
            found.extend(page);
            if is_last {
                return Ok(found);
            }
        }
        Err(Error::new(Kind::Malformed, format!("{} lists more than {} documents", cluster.host, MAX_PAGES * PAGE)))
    }
}

impl Cluster {
    /// Path of the index's `endpoint`.
    fn path(&self, endpoint: &str) -> String {
        format!("{}/{endpoint}", self.index)
    }

    /// One exchange whose answer has to be a success.
    async fn ask(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<&Value>) -> Result<Value> {
        let answer = self.try_ask(method, path, query, body).await?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(refusal(&answer, &self.host)) }
    }

    async fn try_ask(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<&Value>) -> Result<Answer> {
        let body = body.map(|body| (JSON, body.to_string().into()));
        self.http.call(method, path, query, body).await
    }

    /// Looks at the index, unless that was done lately: it has to keep `route`, `fileId` and access lists as they are. An index that is
    /// not there is made.
    async fn prepare(&self) -> Result<()> {
        self.prepared
            .get(|at| at.elapsed() < LOOKED_AT, async { mapping::prepare(self).await.map(|()| Instant::now()) })
            .await?;
        Ok(())
    }

    /// The document, if there is one.
    async fn look(&self, id: &str) -> Result<Option<Seen>> {
        let mut answer = self.try_ask(Method::GET, &self.path(&format!("_doc/{id}")), &[], None).await?;
        if answer.status == StatusCode::NOT_FOUND && answer.body.get("error").is_none() {
            return Ok(None);
        }
        if !answer.status.is_success() {
            let error = refusal(&answer, &self.host);
            return if error.code == "index_not_found_exception" { Ok(None) } else { Err(error) };
        }
        let version = answer.body.get("_version").and_then(Value::as_u64);
        let (Some(version), Some(Value::Object(document))) = (version, answer.body.get_mut("_source").map(Value::take))
        else {
            return Err(Error::new(Kind::Malformed, format!("{} does not say which document is there", self.host)));
        };
        let route = document.get("route").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Some(Seen { version, route, document }))
    }

    async fn page(&self, route: &str, after: Option<&String>) -> Result<Vec<String>> {
        let mut search = json!({
            "size": PAGE,
            "query": {"bool": {"filter": [{"term": {"route": route}}], "must_not": [{"term": {"deleted": true}}]}},
            "sort": [{"fileId": "asc"}],
            "_source": ["fileId"],
            "track_total_hits": false,
        });
        if let Some(after) = after {
            search["search_after"] = json!([after]);
        }
        let query = [("allow_partial_search_results", "false")];
        let answer = self.ask(Method::POST, &self.path("_search"), &query, Some(&search)).await?;
        let malformed = |what: &str| Error::new(Kind::Malformed, format!("the listing of {} {what}", self.host));
        let failed = answer.pointer("/_shards/failed").and_then(Value::as_u64);
        if failed != Some(0) || answer.get("timed_out").and_then(Value::as_bool) != Some(false) {
            return Err(malformed("is only a part"));
        }
        let hits = answer.pointer("/hits/hits").and_then(Value::as_array).ok_or_else(|| malformed("has no hits"))?;
        if hits.len() > PAGE {
            return Err(malformed("has more hits than were asked for"));
        }
        let file = |hit: &Value| hit.pointer("/_source/fileId").and_then(Value::as_str).map(str::to_owned);
        hits.iter().map(|hit| file(hit).ok_or_else(|| malformed("has a document without fileId"))).collect()
    }
}

#[async_trait]
impl Sender for Cluster {
    async fn send(&self, lines: String) -> Result<Answer> {
        self.prepare().await?;
        self.http.call(Method::POST, &self.path("_bulk"), &[], Some((NDJSON, lines.into()))).await
    }

    fn refusal(&self, answer: &Answer) -> Error {
        refusal(answer, &self.host)
    }
}
