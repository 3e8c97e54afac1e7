//! One request, parsed: parameters, preconditions, headers of the contract. And the answer to it.

use std::net::IpAddr;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::authorize::{Scopes, Through};
use super::operation::Operation;
use super::refusal::Refusal;
use crate::file360::model::headers;

/// Bytes of a page beyond which it is cut: readers take answers of up to 16 MiB.
pub const MAX_PAGE: usize = 8 * 1024 * 1024;

/// Who sent the request, before the database was asked.
#[derive(Clone, Debug)]
pub enum Caller {
    /// No token.
    Nobody,
    /// The server itself, when time has passed.
    Server,
    /// A client, perhaps on behalf of a person.
    Client {
        /// Its id.
        id: String,
        /// What its token allows.
        scopes: Scopes,
        /// `On-Behalf-Of`: id of the person.
        on_behalf_of: Option<String>,
    },
    /// Somebody with a link or an upload request.
    Outsider {
        /// What they came through.
        through: Through,
        /// The address they gave, if any.
        email: Option<String>,
        /// The address was proven.
        verified: bool,
    },
}

/// The `Fencing-Epoch` header.
#[derive(Clone, Debug)]
pub struct FenceClaim {
    /// Identity of the cluster.
    pub cluster: String,
    /// Whose fence it is.
    pub consumer: String,
    /// The epoch the caller believes in.
    pub epoch: u64,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is called.
    pub operation: Operation,
    /// Path and query as sent.
    pub target: String,
    /// Path parameters, decoded.
    pub params: Vec<(String, String)>,
    /// Query parameters, decoded.
    pub query: Vec<(String, String)>,
    /// Headers.
    pub headers: HeaderMap,
    /// Body of JSON operations; empty where it is streamed.
    pub body: Bytes,
    /// Who sent it.
    pub caller: Caller,
    /// From where.
    pub ip: IpAddr,
    /// When.
    pub now: Timestamp,
    /// Where the server is reached, for the addresses that people open.
    pub public_url: std::sync::Arc<str>,
}

impl Call {
    /// A path parameter. The router has checked that it is there.
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// A query parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A query parameter that is `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.query(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Refusal::malformed(format!("`{name}` is `true` or `false`.")).at(name, "Not a boolean.")),
        }
    }

    /// A query parameter that is a number.
    pub fn number(&self, name: &str, allowed: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.query(name) else { return Ok(None) };
        // Digits only: `parse` also takes a sign.
        let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match number {
            Some(number) if allowed.contains(&number) => Ok(Some(number)),
            _ => Err(Refusal::malformed(format!("`{name}` is a number from {} to {}.", allowed.start(), allowed.end()))
                .at(name, "Not in range.")),
        }
    }

    /// Entries a page may have.
    pub fn limit(&self) -> Result<usize, Refusal> {
        Ok(self.number("limit", 1..=1000)?.and_then(|number| usize::try_from(number).ok()).unwrap_or(100))
    }

    /// The sort key after which the page starts; empty at the start.
    pub fn after(&self) -> Result<String, Refusal> {
        let Some(cursor) = self.query("cursor") else { return Ok(String::new()) };
        let decoded = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        decoded.ok_or_else(|| Refusal::malformed("The cursor is not one of this server's.").at("cursor", "Not a cursor."))
    }

    /// A header as text.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The JSON body.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let media = self.header(header::CONTENT_TYPE).unwrap_or_default();
        let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let patch = self.operation.method() == http::Method::PATCH;
        if essence != "application/json" && !(patch && essence == "application/merge-patch+json") {
            let wanted = if patch { "application/merge-patch+json" } else { "application/json" };
            return Err(Refusal::new(415, "media-type", format!("The body's media type must be {wanted}.")));
        }
        let value: serde_json::Value = serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::malformed(format!("The body is not JSON: {error}")))?;
        if !value.is_object() {
            return Err(Refusal::invalid("", "The body must be a JSON object."));
        }
        serde_json::from_value(value).map_err(|error| Refusal::invalid("", error.to_string()))
    }

    /// `If-Match`, which the operation needs: refused unless `current` is one of its tags.
    pub fn require_match(&self, current: &str) -> Result<(), Refusal> {
        if !self.headers.contains_key(header::IF_MATCH) {
            return Err(Refusal::new(428, "precondition-required", "The call needs If-Match with the object's entity tag."));
        }
        if self.tags(&header::IF_MATCH, current) { Ok(()) } else { Err(Refusal::etag_mismatch()) }
    }

    /// `If-Match` where it is optional.
    pub fn allow_match(&self, current: &str) -> Result<(), Refusal> {
        if self.headers.contains_key(header::IF_MATCH) { self.require_match(current) } else { Ok(()) }
    }

    /// Whether `If-None-Match` is `*`: the object must not exist.
    pub fn creates_only(&self) -> bool {
        self.header(header::IF_NONE_MATCH).is_some_and(|value| value.trim() == "*")
    }

    /// Whether `If-None-Match` names the current state, so that the answer is 304.
    pub fn is_unchanged(&self, current: &str) -> bool {
        self.headers.contains_key(header::IF_NONE_MATCH) && self.tags(&header::IF_NONE_MATCH, current)
    }

    /// Whether `If-Match` is `*`: the caller overrides whatever is there.
    pub fn forces(&self) -> bool {
        self.header(header::IF_MATCH).is_some_and(|value| value.trim() == "*")
    }

    fn tags(&self, name: &HeaderName, current: &str) -> bool {
        let values = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim).any(|tag| tag == "*" || tag == current)
    }

    /// The `Caused-By` header.
    pub fn caused_by(&self) -> Option<String> {
        self.header(headers::CAUSED_BY).map(|text| text.chars().take(200).collect())
    }

    /// The `Fencing-Epoch` header.
    pub fn fence(&self) -> Result<Option<FenceClaim>, Refusal> {
        let Some(value) = self.headers.get(headers::FENCING_EPOCH) else { return Ok(None) };
        let claim = value.to_str().ok().and_then(|text| {
            let (fence, epoch) = text.rsplit_once('=')?;
            let (cluster, consumer) = fence.split_once('/')?;
            Some(FenceClaim { cluster: cluster.to_owned(), consumer: consumer.to_owned(), epoch: epoch.parse().ok()? })
        });
        let expected = "Fencing-Epoch is `<clusterId>/<consumer>=<epoch>`.";
        claim.map(Some).ok_or_else(|| Refusal::malformed(expected).at("Fencing-Epoch", expected))
    }

    /// What a repeated idempotency key must repeat: method, path, query and body.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.operation.method().as_str());
        hash.update([0]);
        hash.update(&self.target);
        hash.update([0]);
        hash.update(&self.body);
        hash.finalize().into()
    }

    /// Id of the client that calls, or the empty string.
    pub fn client_id(&self) -> &str {
        if let Caller::Client { id, .. } = &self.caller { id } else { "" }
    }

    /// Whether the token of the calling client allows this.
    pub fn has_scope(&self, scope: super::operation::Scope) -> bool {
        matches!(&self.caller, Caller::Client { scopes, .. } if scopes.has(scope))
    }
}

/// The answer to a call that was not refused.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers beside the content type.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Payload,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Payload {
    /// None.
    Empty,
    /// JSON.
    Json(Bytes),
    /// Anything else, perhaps long; the content type is among the headers.
    Other(Body),
}

impl Answer {
    /// An answer with a JSON body.
    pub fn json(status: u16, body: &impl Serialize) -> Result<Self, Refusal> {
        Ok(Self { status: code(status), headers: Vec::new(), body: Payload::Json(serde_json::to_vec(body)?.into()) })
    }

    /// 200 with a JSON body.
    pub fn ok(body: &impl Serialize) -> Result<Self, Refusal> {
        Self::json(200, body)
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status: code(status), headers: Vec::new(), body: Payload::Empty }
    }

    /// A page of a listing, whose items carry their sort keys. One item more than `limit` says that there is another page.
    pub fn page<T: Serialize>(mut rows: Vec<(String, T)>, limit: usize) -> Result<Self, Refusal> {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|(key, _)| key.clone());
        Self::page_until(&rows, next)
    }

    /// A page of a listing that goes on after the sort key `next`. One that would be too large for its reader is cut.
    pub fn page_until<T: Serialize>(rows: &[(String, T)], mut next: Option<String>) -> Result<Self, Refusal> {
        let mut body = Vec::from(b"{\"items\":[");
        for (at, (key, item)) in rows.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            serde_json::to_writer(&mut body, item)?;
            if body.len() > MAX_PAGE && at + 1 < rows.len() {
                next = Some(key.clone());
                break;
            }
        }
        body.push(b']');
        if let Some(next) = next {
            body.extend_from_slice(format!(",\"nextCursor\":\"{}\"", URL_SAFE_NO_PAD.encode(next)).as_bytes());
        }
        body.push(b'}');
        Ok(Self { status: StatusCode::OK, headers: Vec::new(), body: Payload::Json(body.into()) })
    }

    /// With a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// With the entity tag.
    #[must_use]
    pub fn tagged(self, etag: &str) -> Self {
        self.with(header::ETAG, etag)
    }

    /// The HTTP response.
    pub fn respond(self, revision: Option<u64>) -> Response {
        let (body, json) = match self.body {
            Payload::Empty => (Body::empty(), false),
            Payload::Json(bytes) => (Body::from(bytes), true),
            Payload::Other(body) => (body, false),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let into = response.headers_mut();
        if json {
            into.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        into.extend(self.headers);
        if let Some(revision) = revision {
            into.insert(headers::WORKSPACE_REVISION, HeaderValue::from(revision));
        }
        response
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::OK)
}
