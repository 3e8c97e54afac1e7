//! Why a request is refused: an RFC 9457 problem with a stable code.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use super::signature::Malformed;
use crate::error::{Error, Kind};
use crate::file360::model::Problem;

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable code; also the outcome in metrics, so the set is closed.
    pub code: &'static str,
    /// A sentence for people. Never says which endpoints exist to who has not proven a key.
    pub detail: Cow<'static, str>,
    /// When to come again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with a status, a stable code and a sentence for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None }
    }

    /// 400: the request does not have the form that it needs.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// 401: the same for a wrong signature, another namespace's key, and an address that nobody listens at.
    pub fn unsigned() -> Self {
        let detail = "No endpoint of this address takes the request: the address or the signature is wrong.";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 413.
    pub fn too_large(most: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", format!("The body has more than {most} bytes."))
    }

    /// 422: what was sent cannot be taken as it is.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// 503.
    pub fn unavailable(detail: &'static str, after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(after)
    }

    /// Says when to come again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The HTTP response.
    pub fn respond(&self) -> Response {
        let problem = Problem {
            kind: format!("urn:file360:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Refused").to_owned(),
            status: self.status.as_u16(),
            detail: Some(self.detail.clone().into_owned()),
            code: self.code.to_owned(),
            errors: Vec::new(),
            existing: None,
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: never earlier than was asked for.
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)),
            );
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Webhook realm=\"file360\""));
        }
        response
    }
}

impl From<Malformed> for Refusal {
    fn from(Malformed(why): Malformed) -> Self {
        Self::malformed(why)
    }
}

impl From<&Refusal> for Error {
    fn from(refusal: &Refusal) -> Self {
        let mut error = Self::new(Kind::Rejected, refusal.detail.clone());
        refusal.code.clone_into(&mut error.code);
        error
    }
}

/// How soon a sender may come again when a person has to put something right first.
const AFTER_A_PERSON: Duration = Duration::from_mins(1);
/// How soon a sender may come again when File 360 does not say.
const AFTER_AN_OUTAGE: Duration = Duration::from_secs(10);

/// What the sender hears when File 360 did not take a file. What a sender cannot change is 503: the file stays with the sender, and comes
/// again. Details of File 360 reach only the log.
pub fn of_file360(error: &Error) -> Refusal {
    match (error.kind, error.code.as_str()) {
        (_, "idempotency-mismatch") => reused(),
        (_, "too-large") => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The file is larger than File 360 takes.")
        }
        (_, "digest-mismatch") => mismatch(),
        (Kind::Rejected, "name-illegal" | "validation-failed") => {
            Refusal::invalid("File 360 does not take the file's name or metadata.")
        }
        (Kind::RateLimited | Kind::Unavailable | Kind::Tls | Kind::Malformed | Kind::Stopping | Kind::Stale, _) => {
            Refusal::unavailable("File 360 cannot take the file now.", error.retry_after.unwrap_or(AFTER_AN_OUTAGE))
        }
        _ => Refusal::unavailable("The inbox cannot take files at present.", AFTER_A_PERSON),
    }
}

/// 409: the id belongs to something else.
pub fn reused() -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "id-reused", "The webhook-id was used for another file, name or metadata.")
}

/// 422: other bytes than announced.
pub fn mismatch() -> Refusal {
    Refusal::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "digest-mismatch",
        "The body does not have the digest that the request states.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sender_cannot_change_is_worth_another_try() {
        for kind in [
            Kind::NotFound,
            Kind::Denied,
            Kind::Unsupported,
            Kind::Conflict,
            Kind::Reference,
            Kind::Kubernetes,
            Kind::Rejected,
        ] {
            let refusal = of_file360(&Error::new(kind, "the workspace of ada@corp.example is gone"));
            assert_eq!((refusal.status.as_u16(), refusal.retry_after), (503, Some(AFTER_A_PERSON)), "{kind:?}");
            assert!(!refusal.detail.contains("ada"), "details of File 360 stay here");
        }
        let mut busy = Error::new(Kind::RateLimited, "slow down");
        busy.retry_after = Some(Duration::from_millis(1500));
        let refusal = of_file360(&busy);
        assert_eq!(refusal.respond().headers()[header::RETRY_AFTER], "2");
        assert_eq!(refusal.code, "unavailable");
        let mut reused = Error::new(Kind::Rejected, "used");
        reused.code = "idempotency-mismatch".into();
        assert_eq!(of_file360(&reused).status, StatusCode::CONFLICT);
    }

    #[test]
    fn a_refusal_is_a_problem_document() {
        let response = Refusal::unsigned().respond();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
