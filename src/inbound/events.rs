//! `POST|PUT /events/{namespace}/{path}`: an event for a SecureWorkspaceSet.
//!
//! The signature covers the body itself, as in Standard Webhooks, so the body is read first: little of it, by few at once. The answer 2xx says
//! that what the event stands for is durable in Kubernetes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header, request};
use jiff::Timestamp;
use parking_lot::RwLock;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::{Map as Members, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info};

use super::Inbound;
use super::keyring::Keyring;
use super::problem::Refusal;
use super::signature::Claim;
use crate::error::clean;
use crate::sets::fingerprint;

/// Name of this kind of endpoint in metrics.
const KIND: &str = "events";
/// Largest body.
pub const LARGEST: usize = 256 * 1024;
/// Shared turns that one request takes: so a quarter as many events are read at once as files, and their bodies stay few.
const TURNS: u32 = 4;
/// Requests of one endpoint at once.
const AT_ONCE: usize = 16;
/// Longest value of an attribute.
const LONGEST_ATTRIBUTE: usize = 4096;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The same for every try to deliver the same event, and for no other.
    pub identity: String,
    /// What expressions see.
    pub value: Value,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// What happened.
    pub outcome: Effect,
    /// Name of the SecureWorkspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// There is a SecureWorkspace now.
    Created,
    /// Its SecureWorkspace was changed.
    Changed,
    /// It had been taken before.
    Unchanged,
    /// It does not count.
    Ignored,
}

impl Effect {
    fn code(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Ignored => "ignored",
        }
    }
}

/// Who takes events.
#[async_trait]
pub trait Receiver: Send + Sync {
    /// Takes one: when this returns, what it stands for is durable. The same event again does nothing.
    async fn take(&self, event: Event) -> Result<Taken, Refusal>;
}

/// An endpoint, ready for use.
pub struct EventEndpoint {
    /// Uid of the resource that declares it.
    pub owner: String,
    /// Its namespace.
    pub namespace: String,
    /// Last segment of its address.
    pub path: String,
    keys: Keyring,
    receiver: Arc<dyn Receiver>,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for EventEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, namespace, path, .. } = self;
        f.debug_struct("EventEndpoint")
            .field("owner", owner)
            .field("namespace", namespace)
            .field("path", path)
            .finish_non_exhaustive()
    }
}

impl EventEndpoint {
    /// An endpoint at `/events/{namespace}/{path}`.
    pub fn new(owner: &str, namespace: &str, path: &str, keys: Keyring, receiver: Arc<dyn Receiver>) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { owner: owner.to_owned(), namespace: namespace.to_owned(), path: path.to_owned(), keys, receiver, turns }
    }
}

/// The endpoints for events, by address.
#[derive(Default)]
pub struct EventMap {
    open: RwLock<HashMap<String, Arc<EventEndpoint>>>,
    known: AtomicBool,
}

impl EventMap {
    /// Opens these endpoints of a resource, also where another resource has the address, and closes its others.
    pub fn open(&self, owner: &str, endpoints: Vec<EventEndpoint>) {
        let mut open = self.open.write();
        open.retain(|_, endpoint| endpoint.owner != owner);
        open.extend(endpoints.into_iter().map(|endpoint| {
            let address = format!("{}/{}", endpoint.namespace, endpoint.path);
            (address, Arc::new(endpoint))
        }));
    }

    /// Says that every endpoint has been opened that there is.
    pub fn all_known(&self) {
        self.known.store(true, Ordering::Release);
    }

    fn get(&self, namespace: &str, path: &str) -> Option<Arc<EventEndpoint>> {
        self.open.read().get(&format!("{namespace}/{path}")).cloned()
    }
}

/// Handles one request.
pub(super) async fn handle(
    State(inbound): State<Inbound>,
    address: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let (outcome, received) = match address {
        Ok(Path((namespace, path))) => take(&inbound, &parts, body, &namespace, &path).await,
        Err(_) => (Err(Refusal::unsigned()), 0),
    };
    let code = outcome.as_ref().map_or_else(|refusal| refusal.code, |taken| taken.outcome.code());
    inbound.metrics.inbound_ended(KIND, code, received as u64, started.elapsed());
    let path = clean(parts.uri.path(), 200);
    match &outcome {
        Ok(taken) => info!(path, name = taken.name.as_deref().unwrap_or_default(), outcome = code, "Event: {code}"),
        Err(refusal) => debug!(path, outcome = code, "Refused an event: {}", refusal.detail),
    }
    match outcome {
        Ok(taken) => answer(&taken),
        Err(refusal) => refusal.respond(),
    }
}

async fn take(
    inbound: &Inbound,
    parts: &request::Parts,
    body: Body,
    namespace: &str,
    path: &str,
) -> (Result<Taken, Refusal>, usize) {
    let (admitted, _turns) = match admit(inbound, parts) {
        Ok(admitted) => admitted,
        Err(refusal) => return (Err(refusal), 0),
    };
    let body = match read(body, inbound.limits.silence).await {
        Ok(body) => body,
        Err(refusal) => return (Err(refusal), 0),
    };
    let endpoint = inbound.endpoints.events().and_then(|events| events.get(namespace, path));
    let keys = endpoint.as_ref().map_or_else(|| Arc::clone(&inbound.nobodys), |endpoint| endpoint.keys.keys());
    let is_signed = admitted.is_signed(&keys, &body);
    let Some(endpoint) = endpoint.filter(|_| is_signed) else { return (Err(Refusal::unsigned()), body.len()) };
    let Ok(_own) = Arc::clone(&endpoint.turns).try_acquire_owned() else { return (Err(busy()), body.len()) };
    let result = match parse(&parts.headers, &body, &admitted.id) {
        Ok(event) => endpoint.receiver.take(event).await,
        Err(refusal) => Err(refusal),
    };
    (result, body.len())
}

/// All that can be known without the body.
fn admit(inbound: &Inbound, parts: &request::Parts) -> Result<(Claim, OwnedSemaphorePermit), Refusal> {
    let claim = Claim::from_headers(&parts.headers)?;
    if !claim.is_timely(Timestamp::now()) {
        let detail = "webhook-timestamp is more than five minutes off.";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "untimely", detail));
    }
    if !inbound.endpoints.events().is_some_and(|events| events.known.load(Ordering::Acquire)) {
        return Err(Refusal::unavailable("The endpoints are not known yet.", Duration::from_secs(2)));
    }
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        let detail = "The body must not be encoded (Content-Encoding).";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail));
    }
    let turns = Arc::clone(&inbound.turns).try_acquire_many_owned(TURNS).map_err(|_| busy())?;
    Ok((claim, turns))
}

fn busy() -> Refusal {
    let detail = "Too many requests at once.";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(Duration::from_secs(1))
}

/// The body, if it is small and comes in time.
async fn read(body: Body, patience: Duration) -> Result<Vec<u8>, Refusal> {
    let mut stream = body.into_data_stream();
    let whole = async {
        let mut body = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| Refusal::malformed("The body broke off."))?;
            if body.len() + chunk.len() > LARGEST {
                return Err(Refusal::too_large(LARGEST as u64));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    };
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body did not arrive in time.");
    tokio::time::timeout(patience, whole).await.map_err(late)?
}

/// Reads an event: a CloudEvent in structured or binary mode, or any JSON.
///
/// What identifies it is always something that the signature covers: source and id of a structured CloudEvent, else the id of the request.
fn parse(headers: &HeaderMap, body: &[u8], request: &str) -> Result<Event, Refusal> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = |body: &[u8]| {
        serde_json::from_slice::<Value>(body).map_err(|_| Refusal::invalid("The body is no JSON that can be read."))
    };
    let by_request = || fingerprint(&[b"request", request.as_bytes()]);
    match media_type.as_str() {
        "application/cloudevents+json" => structured(json(body)?),
        "application/json" | "" if headers.contains_key("ce-specversion") => {
            let mut event = attributes(headers)?;
            event.insert("data".into(), json(body)?);
            check(&event)?;
            Ok(Event { identity: by_request(), value: Value::Object(event) })
        }
        "application/json" => {
            let event = [("id".to_owned(), Value::from(request)), ("data".to_owned(), json(body)?)];
            Ok(Event { identity: by_request(), value: Value::Object(event.into_iter().collect()) })
        }
        _ => {
            let detail = "Send application/cloudevents+json or application/json.";
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail))
        }
    }
}

fn structured(event: Value) -> Result<Event, Refusal> {
    let Value::Object(mut event) = event else { return Err(Refusal::invalid("A CloudEvent is a JSON object.")) };
    check(&event)?;
    if event.contains_key("data_base64") {
        return Err(Refusal::invalid("The data of the event must be JSON, in data."));
    }
    event.entry("data").or_insert(Value::Null);
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let identity = fingerprint(&[b"event", text("source").as_bytes(), text("id").as_bytes()]);
    Ok(Event { identity, value: Value::Object(event) })
}

/// What CloudEvents 1.0 asks for.
fn check(event: &Members<String, Value>) -> Result<(), Refusal> {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    if !text("specversion").starts_with("1.") {
        return Err(Refusal::invalid("specversion must be 1.0."));
    }
    for name in ["id", "source", "type"] {
        if text(name).is_empty() || text(name).len() > LONGEST_ATTRIBUTE {
            return Err(Refusal::invalid(format!("The attribute {name} is missing or too long.")));
        }
    }
    Ok(())
}

/// The attributes of a CloudEvent in binary mode.
fn attributes(headers: &HeaderMap) -> Result<Members<String, Value>, Refusal> {
    let mut event = Members::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let value = value.to_str().ok().filter(|value| value.len() <= LONGEST_ATTRIBUTE);
        let value = value.and_then(|value| percent_decode_str(value).decode_utf8().ok());
        let value = value.ok_or_else(|| Refusal::invalid(format!("The attribute {} cannot be read.", clean(name, 60))))?;
        if event.insert(name.to_owned(), value.into()).is_some() {
            return Err(Refusal::invalid(format!("The attribute {} is given twice.", clean(name, 60))));
        }
    }
    Ok(event)
}

fn answer(taken: &Taken) -> Response {
    let mut response = Response::new(Body::from(serde_json::to_vec(taken).unwrap_or_default()));
    *response.status_mut() = if taken.outcome == Effect::Created { StatusCode::CREATED } else { StatusCode::OK };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        entries.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_three_forms_look_alike_to_expressions() {
        let structured =
            json!({"specversion": "1.0", "id": "1", "source": "/crm", "type": "won", "subject": "d1", "data": {"id": "d1"}});
        let found = parse(
            &headers(&[("content-type", "application/cloudevents+json; charset=utf-8")]),
            structured.to_string().as_bytes(),
            "r",
        );
        assert_eq!(found.unwrap().value, structured);
        let binary = headers(&[
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/crm"),
            ("ce-type", "won"),
            ("ce-subject", "d%C3%BC1"),
        ]);
        let found = parse(&binary, br#"{"id": "d1"}"#, "r").unwrap().value;
        assert_eq!(
            (&found["subject"], &found["data"], &found["type"]),
            (&json!("dü1"), &json!({"id": "d1"}), &json!("won"))
        );
        let plain = parse(&headers(&[("content-type", "application/json")]), br#"{"id": "d1"}"#, "r").unwrap().value;
        assert_eq!(plain, json!({"id": "r", "data": {"id": "d1"}}));
    }

    #[test]
    fn t4_an_event_is_known_by_what_is_signed() {
        let event = |id: &str, request: &str| {
            let event = json!({"specversion": "1.0", "id": id, "source": "/crm", "type": "won"});
            parse(&headers(&[("content-type", "application/cloudevents+json")]), event.to_string().as_bytes(), request)
                .unwrap()
        };
        assert_eq!(event("1", "a").identity, event("1", "b").identity, "the same event in another request");
        assert_ne!(event("1", "a").identity, event("2", "a").identity);
        let binary = |id: &str, request: &str| {
            let headers = headers(&[
                ("content-type", "application/json"),
                ("ce-specversion", "1.0"),
                ("ce-id", id),
                ("ce-source", "/crm"),
                ("ce-type", "won"),
            ]);
            parse(&headers, b"{}", request).unwrap().identity
        };
        assert_eq!(binary("1", "a"), binary("2", "a"), "headers are not signed: nobody makes a new event of an old one");
        assert_ne!(binary("1", "a"), binary("1", "b"));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let structured = |event: Value| {
            let headers = headers(&[("content-type", "application/cloudevents+json")]);
            parse(&headers, event.to_string().as_bytes(), "r").map_err(|refusal| refusal.status.as_u16())
        };
        let good = json!({"specversion": "1.0", "id": "1", "source": "/crm", "type": "won"});
        assert!(structured(good.clone()).is_ok());
        for (name, value) in [
            ("specversion", json!("0.3")),
            ("id", json!("")),
            ("source", json!(7)),
            ("type", Value::Null),
            ("data_base64", json!("AA==")),
        ] {
            let mut event = good.clone();
            event[name] = value;
            assert_eq!(structured(event), Err(422), "{name}");
        }
        assert_eq!(structured(json!([])), Err(422));
        let other = |media_type: &str| parse(&headers(&[("content-type", media_type)]), b"{}", "r").map_err(|it| it.code);
        assert_eq!(other("application/cloudevents-batch+json"), Err("media-type"));
        assert_eq!(other("text/plain"), Err("media-type"));
        assert_eq!(
            parse(&headers(&[("content-type", "application/json")]), b"{", "r").map_err(|it| it.code),
            Err("invalid")
        );
        let deep = "[".repeat(10_000);
        assert!(parse(&headers(&[("content-type", "application/json")]), deep.as_bytes(), "r").is_err());
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panicking(body in proptest::collection::vec(any::<u8>(), 0..200), structured in any::<bool>()) {
            let media_type = if structured { "application/cloudevents+json" } else { "application/json" };
            let _ = parse(&headers(&[("content-type", media_type)]), &body, "r");
        }
    }
}
