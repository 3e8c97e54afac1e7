//! Why a call has no effect: an RFC 9457 problem with a stable code.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use crate::file360::model::{FieldProblem, Problem, headers};

/// A refused call. Boxed, so that results stay small.
#[derive(Debug)]
pub struct Refusal(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldProblem>,
    existing: Option<Value>,
    retry_after: Option<u64>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
    audited: bool,
}

impl Refusal {
    /// A refusal with a status, a stable code and a sentence for people.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            detail: detail.into(),
            errors: Vec::new(),
            existing: None,
            retry_after: None,
            headers: Vec::new(),
            audited: false,
        }))
    }

    /// 400: the request is not of the contract's form.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(400, "malformed", detail)
    }

    /// 422 with the member that is wrong.
    pub fn invalid(pointer: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self::new(422, "validation-failed", detail.clone()).at(pointer, detail)
    }

    /// 404, also for what the caller may not see.
    pub fn not_found(what: &str) -> Self {
        Self::new(404, "not-found", format!("There is no such {what}, or it is not visible to the caller."))
    }

    /// 412: the object is not at the expected state any more.
    pub fn etag_mismatch() -> Self {
        Self::new(412, "etag-mismatch", "The object has another entity tag than If-Match or If-None-Match allows.")
    }

    /// Names a wrong member.
    #[must_use]
    pub fn at(mut self, pointer: &str, detail: impl Into<String>) -> Self {
        self.0.errors.push(FieldProblem { pointer: pointer.to_owned(), detail: detail.into() });
        self
    }

    /// Carries the object in the way.
    #[must_use]
    pub fn existing(mut self, object: &impl serde::Serialize) -> Self {
        self.0.existing = serde_json::to_value(object).ok();
        self
    }

    /// Says when to come again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.push((name, value));
        }
        self
    }

    /// Marks the refusal as one that the audit feed records.
    #[must_use]
    pub fn audited(mut self) -> Self {
        self.0.audited = true;
        self
    }

    /// Whether the audit feed records it.
    pub fn is_audited(&self) -> bool {
        self.0.audited
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The sentence for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The answer. `revision` goes into its header, if one workspace is concerned.
    pub fn respond(self, revision: Option<u64>) -> Response {
        let Inner { status, code, detail, errors, existing, retry_after, headers: extra, .. } = *self.0;
        let problem = Problem {
            kind: format!("urn:file360:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Refused").to_owned(),
            status: status.as_u16(),
            detail: Some(detail),
            code: code.to_owned(),
            errors,
            existing,
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
        *response.status_mut() = status;
        let into = response.headers_mut();
        into.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        into.extend(extra);
        if let Some(seconds) = retry_after {
            into.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(revision) = revision {
            into.insert(headers::WORKSPACE_REVISION, HeaderValue::from(revision));
        }
        response
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{} {}: {}", self.0.status.as_u16(), self.0.code, self.0.detail)
    }
}

impl std::error::Error for Refusal {}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        tracing::error!(%error, "the database refused a statement");
        Self::new(500, "internal", "The server could not read or write its database.")
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        tracing::error!(%error, "stored JSON is not readable");
        Self::new(500, "internal", "The server could not read its own data.")
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        tracing::error!(%error, "the blob store failed");
        Self::new(500, "internal", "The server could not read or write file content.")
    }
}
