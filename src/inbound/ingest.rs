//! `POST|PUT /ingest/{namespace}/{path}`: a file for the inbox of a FileRoute.
//!
//! The sender proves a key over id, time and digest before the first byte of the body is read. The body streams to File 360 and becomes visible
//! there only when its digest is right. The answer 201 says that it is committed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header, request};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, info, warn};

use super::Inbound;
use super::body::{self, Arrival, Shared};
use super::digest::{self, Sha256Digest};
use super::names::{self, Metadata};
use super::problem::{self, Refusal};
use super::registry::{self, IngestEndpoint};
use super::signature::Claim;
use super::{disposition, form};
use crate::error::clean;
use crate::file360::model::{Item, OnConflict};
use crate::file360::{ByteStream, NewFile};
use crate::hex::hex;

/// Name of this kind of endpoint in metrics.
const KIND: &str = "ingest";

/// The answer to a file that is committed.
#[derive(Debug, Serialize)]
struct Committed {
    /// Id of the item in File 360.
    id: String,
    /// Its version.
    version: u64,
    /// SHA-256 of the file, lower-case hexadecimal.
    sha256: String,
}

/// What a request has proven.
struct Admitted {
    endpoint: Arc<IngestEndpoint>,
    id: String,
    digest: Sha256Digest,
    _turns: [OwnedSemaphorePermit; 2],
}

/// Handles one request.
pub(super) async fn handle(
    State(inbound): State<Inbound>,
    address: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let admitted = match address {
        Ok(Path((namespace, path))) => admit(&inbound, &parts, &namespace, &path),
        Err(_) => Err(Refusal::unsigned()),
    };
    let (outcome, received) = match &admitted {
        Ok(admitted) => take(&inbound, admitted, &parts, body).await,
        Err(refusal) => {
            discard(&inbound, &parts, body, refusal).await;
            (Err(refusal.clone()), 0)
        }
    };
    let code = outcome.as_ref().map_or_else(|refusal| refusal.code, |_| "committed");
    inbound.metrics.inbound_ended(KIND, code, received, started.elapsed());
    log(admitted.as_ref().ok(), &parts, code, received, started.elapsed());
    match outcome {
        Ok(committed) => answer(&committed),
        Err(refusal) => refusal.respond(),
    }
}

/// Whether the request may be read: all that can be known without its body. Costs no call and says the same for every address and key that do not
/// fit.
fn admit(inbound: &Inbound, parts: &request::Parts, namespace: &str, path: &str) -> Result<Admitted, Refusal> {
    let claim = Claim::from_headers(&parts.headers)?;
    let digest = digest::from_headers(&parts.headers)?;
    if !claim.is_timely(Timestamp::now()) {
        let detail = "webhook-timestamp is more than five minutes off.";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "untimely", detail));
    }
    if !inbound.endpoints.are_known() {
        return Err(Refusal::unavailable("The endpoints are not known yet.", Duration::from_secs(2)));
    }
    let endpoint = inbound.endpoints.ingest(namespace, path);
    let keys = endpoint.as_ref().map_or_else(|| Arc::clone(&inbound.nobodys), |endpoint| endpoint.keys.keys());
    let is_signed = claim.is_signed(&keys, hex(&digest).as_bytes());
    let Some(endpoint) = endpoint.filter(|_| is_signed) else { return Err(Refusal::unsigned()) };
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        let detail = "The body must not be encoded (Content-Encoding).";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail));
    }
    if declared_length(parts).is_some_and(|length| length > endpoint.max_size) {
        return Err(Refusal::too_large(endpoint.max_size));
    }
    let busy = |_| {
        let detail = "Too many requests at once.";
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(Duration::from_secs(1))
    };
    let own = endpoint.turns().try_acquire_owned().map_err(busy)?;
    let shared = Arc::clone(&inbound.turns).try_acquire_owned().map_err(busy)?;
    Ok(Admitted { endpoint, id: claim.id, digest, _turns: [own, shared] })
}

fn declared_length(parts: &request::Parts) -> Option<u64> {
    parts.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A refused request is not read, but for a little, so that the sender sees the answer before the connection closes. Who waits for leave to send
/// (`Expect`) has nothing to lose.
async fn discard(inbound: &Inbound, parts: &request::Parts, body: Body, refusal: &Refusal) {
    if parts.headers.contains_key(header::EXPECT) {
        return;
    }
    let mut arrival = Arrival::new(body, 0, Sha256Digest::default(), inbound.limits);
    arrival.give_up(refusal.clone()).await;
}

/// Streams the body into the inbox. Also says how many bytes came.
async fn take(
    inbound: &Inbound,
    admitted: &Admitted,
    parts: &request::Parts,
    body: Body,
) -> (Result<Committed, Refusal>, u64) {
    let arrival = Arrival::new(body, admitted.endpoint.max_size, admitted.digest, inbound.limits);
    let arrival = Arc::new(tokio::sync::Mutex::new(arrival));
    let result = commit(admitted, parts, &arrival).await;
    // Whoever has ended does not read any more.
    let Ok(mut arrival) = arrival.try_lock() else { return (result, 0) };
    if let Err(refusal) = &result {
        arrival.give_up(refusal.clone()).await;
    }
    (result, arrival.received())
}

/// A file as it was announced.
struct Announced {
    new: NewFile,
    content: ByteStream,
    /// SHA-256 of the file: known from the start, or once a form has been read.
    sha256: Arc<Mutex<Option<Sha256Digest>>>,
}

async fn commit(admitted: &Admitted, parts: &request::Parts, arrival: &Shared) -> Result<Committed, Refusal> {
    let Announced { new, content, sha256 } = announced(admitted, parts, arrival).await?;
    let endpoint = &admitted.endpoint;
    let key = endpoint.idempotency_key(&admitted.id);
    let cause = registry::ingest_cause(&endpoint.route.uid);
    let result = endpoint.content.upload(&endpoint.folder, &new, content, &key, &cause).await;
    if let Some(refusal) = arrival.try_lock().ok().and_then(|arrival| arrival.refusal().cloned()) {
        // What is wrong with the body is why, whatever the driver makes of it.
        return Err(refusal);
    }
    let item = result.map_err(|error| {
        let refusal = problem::of_file360(&error);
        if refusal.status.is_server_error() {
            warn!(route.namespace = %endpoint.route.namespace, route.name = %endpoint.route.name, "A pushed file was not committed: {error}");
        }
        refusal
    })?;
    let sent = sha256.lock().map(|digest| hex(&digest));
    committed(item, sent)
}

/// The answer for an item. One with other content is that of an earlier request with the same id.
fn committed(item: Item, sent: Option<String>) -> Result<Committed, Refusal> {
    if let (Some(stored), Some(sent)) = (&item.sha256, &sent)
        && stored != sent
    {
        return Err(problem::reused());
    }
    // A file that waits for a decision shows neither version nor digest; it is new, so its version is the first.
    let sha256 = item.sha256.or(sent).unwrap_or_default();
    Ok(Committed { id: item.id, version: item.version.unwrap_or(1), sha256 })
}

/// What the request says about its file, and the file.
async fn announced(admitted: &Admitted, parts: &request::Parts, arrival: &Shared) -> Result<Announced, Refusal> {
    let mut metadata = Metadata::default();
    metadata.add_headers(&parts.headers).map_err(Refusal::invalid)?;
    let queried = names::read_query(parts.uri.query().unwrap_or_default(), &mut metadata).map_err(Refusal::invalid)?;
    let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let name = |given: Option<String>| names::file_name(&queried.or(given).unwrap_or_default(), &admitted.id);
    if let Some(boundary) = form::boundary(media_type)? {
        let form = form::open(Arc::clone(arrival), &boundary, &mut metadata).await?;
        let new = NewFile {
            name: name(form.file_name),
            mime_type: names::media_type(form.media_type.as_deref()),
            size: None,
            sha256: None,
            metadata: metadata.into_entries(),
            on_conflict: OnConflict::Rename,
        };
        return Ok(Announced { new, content: form.content, sha256: form.sha256 });
    }
    let disposition = parts.headers.get(header::CONTENT_DISPOSITION).map(|value| disposition::parse(value.as_bytes()));
    let new = NewFile {
        name: name(disposition.and_then(|it| it.file_name)),
        mime_type: names::media_type(media_type),
        size: declared_length(parts),
        sha256: Some(hex(&admitted.digest)),
        metadata: metadata.into_entries(),
        on_conflict: OnConflict::Rename,
    };
    let sha256 = Arc::new(Mutex::new(Some(admitted.digest)));
    Ok(Announced { new, content: body::content(Arc::clone(arrival)), sha256 })
}

fn answer(committed: &Committed) -> Response {
    let mut response = Response::new(Body::from(serde_json::to_vec(committed).unwrap_or_default()));
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// One line for each request that proved a key; strangers only where somebody looks for them.
fn log(admitted: Option<&Admitted>, parts: &request::Parts, outcome: &'static str, bytes: u64, took: Duration) {
    let peer = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>().map(|ConnectInfo(peer)| peer.to_string());
    let (peer, took_ms) = (peer.unwrap_or_default(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    if let Some(Admitted { endpoint, id, .. }) = admitted {
        let (namespace, name) = (&endpoint.route.namespace, &endpoint.route.name);
        info!(route.namespace = %namespace, route.name = %name, id, outcome, bytes, took_ms, peer, "Pushed file {id}: {outcome}");
    } else {
        let path = clean(parts.uri.path(), 200);
        debug!(path, outcome, took_ms, peer, "Refused a request: {outcome}");
    }
}
