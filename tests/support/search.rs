//! A search index at the other end: a counterpart that speaks what this project uses of the bulk, document, mapping and search API, or, where
//! `FILE360_OPENSEARCH_URL` is set, a real OpenSearch (tests/counterparts/opensearch/run.sh).
//!
//! The counterpart is strict where it matters: it parses NDJSON line by line, keeps external versions and the versions of what was
//! removed, holds values to the types of the mapping, and lets a search see only what was there at the last refresh.

#![allow(dead_code, missing_docs, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{free_port, listen_again};

/// Largest request that it takes unless told otherwise, as OpenSearch does.
const MAX_REQUEST: usize = 100 * 1024 * 1024;

/// An answer.
pub type Reply = (StatusCode, Vec<(&'static str, String)>, Value);

/// The counterpart.
pub struct Fake {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
    handle: Mutex<Handle<SocketAddr>>,
}

#[derive(Default)]
struct Shared {
    indices: Mutex<BTreeMap<String, Index>>,
    rigged: Mutex<VecDeque<(&'static str, Reply)>>,
    wanted: Mutex<Option<(&'static str, String)>>,
    max_request: Mutex<Option<usize>>,
    busy_items: Mutex<usize>,
    requests: Mutex<Vec<String>>,
}

#[derive(Clone, Default)]
struct Index {
    mapping: Map<String, Value>,
    documents: BTreeMap<String, (u64, Value)>,
    removed: BTreeMap<String, u64>,
    searchable: BTreeMap<String, Value>,
}

impl Fake {
    /// On a free port.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// With TLS.
    pub fn start_with(tls: Option<RustlsConfig>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let fake = Self { shared: Arc::default(), address, tls, handle: Mutex::new(Handle::new()) };
        fake.start_again();
        fake
    }

    /// At the same address, with what it had.
    pub fn start_again(&self) {
        let listener = listen_again(self.address);
        listener.set_nonblocking(true).unwrap();
        let handle = Handle::new();
        *self.handle.lock() = handle.clone();
        let app = Router::new().fallback(answer).with_state(self.shared.clone()).into_make_service();
        match self.tls.clone() {
            None => tokio::spawn(axum_server::from_tcp(listener).unwrap().handle(handle).serve(app)),
            Some(tls) => tokio::spawn(axum_server::from_tcp_rustls(listener, tls).unwrap().handle(handle).serve(app)),
        };
    }

    /// Goes away, with every connection.
    pub async fn stop(&self) {
        let handle = self.handle.lock().clone();
        handle.shutdown();
        while handle.connection_count() > 0 || tokio::net::TcpStream::connect(self.address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next request whose path ends with `endpoint` gets this answer.
    pub fn rig(&self, endpoint: &'static str, status: u16, headers: &[(&'static str, &str)], body: Value) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.shared.rigged.lock().push_back((endpoint, (StatusCode::from_u16(status).unwrap(), headers, body)));
    }

    /// Every request must have this header.
    pub fn want(&self, header: &'static str, value: &str) {
        *self.shared.wanted.lock() = Some((header, value.to_owned()));
    }

    /// Larger requests are answered with 413.
    pub fn max_request(&self, bytes: usize) {
        *self.shared.max_request.lock() = Some(bytes);
    }

    /// That many of the next writes are answered with 429, each by itself.
    pub fn busy(&self, items: usize) {
        *self.shared.busy_items.lock() = items;
    }

    /// Every document of an index as it is now, by id; none while there is no such index.
    pub fn documents(&self, index: &str) -> BTreeMap<String, Value> {
        let indices = self.shared.indices.lock();
        let documents = indices.get(index).map(|index| &index.documents).into_iter().flatten();
        documents.map(|(id, (_, source))| (id.clone(), source.clone())).collect()
    }

    /// What was asked so far: method and path.
    pub fn requests(&self, endpoint: &str) -> usize {
        self.shared.requests.lock().iter().filter(|request| request.ends_with(endpoint)).count()
    }
}

fn failure(status: u16, kind: &str, reason: &str) -> Reply {
    (StatusCode::from_u16(status).unwrap(), Vec::new(), json!({"error": {"type": kind, "reason": reason}, "status": status}))
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> (StatusCode, HeaderMap, Body) {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    shared.requests.lock().push(format!("{} {path}", parts.method));
    let limit = shared.max_request.lock().unwrap_or(MAX_REQUEST);
    let body = axum::body::to_bytes(body, limit).await;
    let rigged = {
        let mut rigged = shared.rigged.lock();
        let at = rigged.iter().position(|(endpoint, _)| path.ends_with(endpoint));
        at.and_then(|at| rigged.remove(at))
    };
    let wanted = shared.wanted.lock().clone();
    let has_it = |(name, value): &(&str, String)| parts.headers.get(*name).is_some_and(|given| given == value);
    let (status, extra, value) = if let Some((_, reply)) = rigged {
        reply
    } else if wanted.as_ref().is_some_and(|wanted| !has_it(wanted)) {
        // Like a careless proxy, it repeats what it was given.
        let given: Vec<String> =
            parts.headers.values().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        failure(401, "security_exception", &format!("no valid credential in {given:?}"))
    } else if let Ok(body) = body {
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        route(&shared, &parts.method, &path, &query, &parts.headers, &body)
    } else {
        failure(413, "content_too_large", "the request is too large")
    };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    for (name, value) in extra {
        headers.insert(name, value.parse().unwrap());
    }
    (status, headers, Body::from(value.to_string()))
}

fn route(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &BTreeMap<String, String>,
    headers: &HeaderMap,
    body: &[u8],
) -> Reply {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let json = || serde_json::from_slice::<Value>(body).unwrap_or_default();
    let mut indices = shared.indices.lock();
    let ok = |value| (StatusCode::OK, Vec::new(), value);
    match (method.as_str(), segments.as_slice()) {
        ("PUT", [name]) => {
            if indices.contains_key(*name) {
                return failure(400, "resource_already_exists_exception", "index already exists");
            }
            let mapping = json().pointer("/mappings/properties").and_then(Value::as_object).cloned().unwrap_or_default();
            indices.insert((*name).to_owned(), Index { mapping, ..Index::default() });
            ok(json!({"acknowledged": true}))
        }
        ("POST", [name, "_bulk"]) => {
            if headers.get("content-type").is_none_or(|media_type| media_type != "application/x-ndjson") {
                return failure(406, "media_type_header_exception", "Content-Type is not supported");
            }
            bulk(indices.entry((*name).to_owned()).or_default(), &mut shared.busy_items.lock(), body)
        }
        (_, [name, ..]) if !indices.contains_key(*name) => failure(404, "index_not_found_exception", "no such index"),
        ("GET", [name, "_mapping"]) => ok(json!({*name: {"mappings": {"properties": indices[*name].mapping}}})),
        ("PUT", [name, "_mapping"]) => {
            merge(&mut indices.get_mut(*name).unwrap().mapping, json()["properties"].as_object().unwrap());
            ok(json!({"acknowledged": true}))
        }
        ("GET", [name, "_doc", id]) => match indices[*name].documents.get(*id) {
            Some((version, source)) => ok(json!({"_id": id, "_version": version, "found": true, "_source": source})),
            None => (StatusCode::NOT_FOUND, Vec::new(), json!({"_id": id, "found": false})),
        },
        ("POST", [name, "_refresh"]) => {
            let index = indices.get_mut(*name).unwrap();
            index.searchable = index.documents.iter().map(|(id, (_, source))| (id.clone(), source.clone())).collect();
            ok(json!({"_shards": {"total": 1, "successful": 1, "failed": 0}}))
        }
        ("POST", [name, "_search"]) => {
            assert!(query.keys().all(|name| name == "allow_partial_search_results"), "{query:?}");
            search(&indices[*name], &json())
        }
        _ => failure(400, "illegal_argument_exception", "no handler found"),
    }
}

fn merge(mapping: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (name, field) in more {
        match (mapping.get_mut(name), field.get("properties").and_then(Value::as_object)) {
            (Some(there), Some(below)) => {
                let properties = there.as_object_mut().unwrap().entry("properties").or_insert_with(|| json!({}));
                merge(properties.as_object_mut().unwrap(), below);
            }
            (Some(there), None) => assert_eq!(there, field, "a type cannot change"),
            (None, _) => drop(mapping.insert(name.clone(), field.clone())),
        }
    }
}

fn bulk(index: &mut Index, busy: &mut usize, body: &[u8]) -> Reply {
    let Some(text) = std::str::from_utf8(body).ok().filter(|text| text.ends_with('\n')) else {
        return failure(400, "illegal_argument_exception", "The bulk request must be terminated by a newline [\\n]");
    };
    let mut lines = text[..text.len() - 1].split('\n');
    let mut items = Vec::new();
    while let Some(line) = lines.next() {
        let Some((action, meta)) = serde_json::from_str::<Map<String, Value>>(line)
            .ok()
            .filter(|line| line.len() == 1)
            .and_then(|line| line.into_iter().next())
        else {
            return failure(400, "illegal_argument_exception", "Malformed action/metadata line");
        };
        let id = meta["_id"].as_str().expect("the id is the file's").to_owned();
        assert_eq!(meta["version_type"], "external_gte");
        let version = meta["version"].as_u64().expect("a version");
        let source = match action.as_str() {
            "index" => Some(serde_json::from_str::<Value>(lines.next().unwrap_or_default()).expect("a document follows")),
            "delete" => None,
            other => panic!("action {other} is not used"),
        };
        let (status, more) = write(index, busy, &id, version, source);
        let mut item = json!({"_index": "index-1", "_id": id, "status": status});
        item.as_object_mut().unwrap().extend(more);
        items.push(json!({action: item}));
    }
    let errors = items.iter().any(|item| item.as_object().unwrap().values().any(|item| item.get("error").is_some()));
    (StatusCode::OK, Vec::new(), json!({"took": 1, "errors": errors, "items": items}))
}

fn write(index: &mut Index, busy: &mut usize, id: &str, version: u64, source: Option<Value>) -> (u16, Map<String, Value>) {
    let error = |status, kind: &str, reason: &str| {
        (status, Map::from_iter([("error".to_owned(), json!({"type": kind, "reason": reason}))]))
    };
    if *busy > 0 {
        *busy -= 1;
        return error(429, "rejected_execution_exception", "rejected execution of coordinating operation");
    }
    let there = index.documents.get(id).map(|(version, _)| *version).or_else(|| index.removed.get(id).copied());
    if there.is_some_and(|there| there > version) {
        return error(409, "version_conflict_engine_exception", "current version is higher than the one provided");
    }
    match source {
        Some(source) => {
            if let Some(field) = misfit(&index.mapping, &source) {
                let reason = format!(
                    "failed to parse field [{field}] in document with id '{id}'. Preview of field's value: '{}'",
                    source[&field]
                );
                return error(400, "mapper_parsing_exception", &reason);
            }
            index.removed.remove(id);
            let status = if index.documents.insert(id.to_owned(), (version, source)).is_some() { 200 } else { 201 };
            (status, Map::from_iter([("_version".to_owned(), version.into())]))
        }
        None => {
            index.removed.insert(id.to_owned(), version);
            match index.documents.remove(id) {
                Some(_) => (200, Map::from_iter([("result".to_owned(), "deleted".into())])),
                None => (404, Map::from_iter([("result".to_owned(), "not_found".into())])),
            }
        }
    }
}

/// A field whose value is not of the type that the mapping says.
fn misfit(mapping: &Map<String, Value>, source: &Value) -> Option<String> {
    let wrong = |(name, value): (&String, &Value)| match mapping.get(name).and_then(|field| field["type"].as_str()) {
        Some("long") => !(value.is_i64() || value.as_str().is_some_and(|text| text.parse::<i64>().is_ok())),
        Some("boolean") => !value.is_boolean(),
        Some("date") => value.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_err()),
        _ => false,
    };
    source.as_object().unwrap().iter().find(|entry| wrong(*entry)).map(|(name, _)| name.clone())
}

fn search(index: &Index, search: &Value) -> Reply {
    let size = search["size"].as_u64().unwrap_or(10);
    assert!(size <= 10_000, "Result window is too large");
    let mut found: Vec<(&String, &Value)> =
        index.searchable.iter().filter(|(_, source)| matches(&search["query"], source)).collect();
    let mut sorted = false;
    if let Some(by) = search.pointer("/sort/0").and_then(Value::as_object).and_then(|sort| sort.keys().next()) {
        assert_eq!(index.mapping.get(by).map(|field| &field["type"]), Some(&json!("keyword")), "texts cannot be sorted by");
        let key = |source: &Value| source[by].as_str().unwrap().to_owned();
        found.sort_by_key(|(_, source)| key(source));
        if let Some(after) = search.pointer("/search_after/0").and_then(Value::as_str) {
            found.retain(|(_, source)| key(source).as_str() > after);
        }
        sorted = true;
    }
    assert!(sorted || search.get("search_after").is_none());
    let hits: Vec<Value> = found
        .into_iter()
        .take(usize::try_from(size).unwrap())
        .map(|(id, source)| {
            let source = match search["_source"].as_array() {
                None => source.clone(),
                Some(names) => {
                    names.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), source[name].clone())).collect()
                }
            };
            json!({"_id": id, "_version": index.documents.get(id).map(|(version, _)| version), "_source": source})
        })
        .collect();
    (StatusCode::OK, Vec::new(), json!({"timed_out": false, "_shards": {"total": 1, "failed": 0}, "hits": {"hits": hits}}))
}

fn matches(query: &Value, source: &Value) -> bool {
    let (kind, inner) = query.as_object().and_then(|query| query.iter().next()).expect("a query");
    let all = |clauses: &Value| -> Vec<Value> { clauses.as_array().cloned().unwrap_or_default() };
    let values = |name: &str| match source.pointer(&format!("/{}", name.replace('.', "/"))) {
        Some(Value::Array(values)) => values.clone(),
        Some(value) => vec![value.clone()],
        None => Vec::new(),
    };
    match kind.as_str() {
        "match_all" => true,
        "term" => inner.as_object().unwrap().iter().all(|(name, wanted)| values(name).contains(wanted)),
        "terms" => inner
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, wanted)| all(wanted).iter().any(|wanted| values(name).contains(wanted))),
        "bool" => {
            all(&inner["filter"]).iter().all(|clause| matches(clause, source))
                && !all(&inner["must_not"]).iter().any(|clause| matches(clause, source))
        }
        other => panic!("query {other} is not used"),
    }
}
