//! `POST /callbacks/{namespace}/{approval}`: another system says how an Approval ends.
//!
//! The sender proves a key of that Approval's gate over id, time and body. What it says is durable in Kubernetes before the answer. A request that
//! proves nothing gets the same answer whatever is at the address.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::Inbound;
use super::problem::Refusal;
use super::signature::{Claim, Keys};
use crate::error::clean;
use crate::reconcile::is_object_name;

/// Name of this kind of endpoint in metrics.
const KIND: &str = "callback";
/// Largest body in bytes.
const LARGEST: usize = 64 * 1024;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest name and reason.
const LONGEST_BY: usize = 256;
const LONGEST_REASON: usize = 1024;

/// Knows who may decide about an Approval, and takes what they say.
#[async_trait]
pub trait Decisions: Send + Sync {
    /// The keys that decisions about an Approval are signed with; `None`: nobody decides about such a one by callback.
    async fn keys(&self, namespace: &str, approval: &str) -> Result<Option<Arc<Keys>>, Refusal>;

    /// Takes what was said; it is durable when this returns. The same id is the same decision.
    async fn take(&self, namespace: &str, approval: &str, said: &Said) -> Result<Taken, Refusal>;
}

/// What another system said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Id of the message.
    pub id: String,
    /// Whether it may take effect.
    pub approves: bool,
    /// Who decided there.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Taken {
    /// It is recorded, and counts if its voter does.
    Recorded,
    /// It came after the first decision, which stands; recorded as late.
    Late,
}

#[derive(Debug, Deserialize)]
struct Message {
    approval: String,
    decision: Word,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[serde(alias = "Approved", alias = "approve", alias = "Approve")]
    Approved,
    #[serde(alias = "Rejected", alias = "reject", alias = "Reject")]
    Rejected,
}

#[derive(Debug, Serialize)]
struct Answer {
    outcome: Taken,
}

/// Handles one request.
pub(super) async fn handle(
    State(inbound): State<Inbound>,
    address: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let mut received = 0;
    let outcome = match address {
        _ if request.method() != Method::POST => {
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Use POST."))
        }
        Ok(Path((namespace, approval))) => {
            let outcome = take(&inbound, &namespace, &approval, request, &mut received).await;
            let code = outcome.as_ref().map_or_else(|refusal| refusal.code, |_| "taken");
            let (namespace, approval) = (clean(&namespace, 63), clean(&approval, 253));
            match &outcome {
                Ok(taken) => info!(namespace, approval, outcome = ?taken, "Another system decided"),
                Err(_) => info!(namespace, approval, code, "Refused a decision: {code}"),
            }
            outcome
        }
        Err(_) => Err(Refusal::unsigned()),
    };
    let code = outcome.as_ref().map_or_else(|refusal| refusal.code, |_| "taken");
    inbound.metrics.inbound_ended(KIND, code, received, started.elapsed());
    match outcome {
        Ok(outcome) => respond(&Answer { outcome }),
        Err(refusal) => refusal.respond(),
    }
}

async fn take(
    inbound: &Inbound,
    namespace: &str,
    approval: &str,
    request: Request,
    received: &mut u64,
) -> Result<Taken, Refusal> {
    let (parts, body) = request.into_parts();
    let claim = Claim::from_headers(&parts.headers)?;
    if !claim.is_timely(Timestamp::now()) {
        let detail = "webhook-timestamp is more than five minutes off.";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "untimely", detail));
    }
    let busy = |_| {
        let detail = "Too many requests at once.";
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(Duration::from_secs(1))
    };
    let _turn = Arc::clone(&inbound.turns).try_acquire_owned().map_err(busy)?;
    let body = read(body).await?;
    *received = body.len() as u64;
    let decisions = inbound.endpoints.decisions();
    let keys = match &decisions {
        // Only what an object can be called becomes part of a request.
        Some(decisions) if is_object_name(namespace) && is_object_name(approval) => {
            decisions.keys(namespace, approval).await?
        }
        _ => None,
    };
    let is_signed = claim.is_signed(keys.as_ref().unwrap_or(&inbound.nobodys), &body);
    let (Some(decisions), Some(_), true) = (decisions, keys, is_signed) else { return Err(Refusal::unsigned()) };
    decisions.take(namespace, approval, &said(claim.id, &format!("{namespace}/{approval}"), &body)?).await
}

async fn read(body: Body) -> Result<Vec<u8>, Refusal> {
    let whole = tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, LARGEST)).await;
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body did not arrive in time.");
    let whole = whole.map_err(late)?.map_err(|_| Refusal::too_large(LARGEST as u64))?;
    Ok(whole.to_vec())
}

/// What the body says. It names the Approval, so that what was signed for one decides about no other.
fn said(id: String, approval: &str, body: &[u8]) -> Result<Said, Refusal> {
    let form = "The body is JSON: {\"approval\": \"<namespace>/<name>\", \"decision\": \"Approved\" or \"Rejected\", \"by\": WHO, \
                \"reason\": WHY}.";
    let message: Message = serde_json::from_slice(body).map_err(|_| Refusal::invalid(form))?;
    if message.approval != approval {
        let detail = "`approval` in the body is not the Approval of this address.";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "other-approval", detail));
    }
    let by = message.by.map(|by| clean(by.trim(), LONGEST_BY + 1)).filter(|by| !by.is_empty());
    let by = by.unwrap_or_else(|| "callback".to_owned());
    if by.chars().count() > LONGEST_BY {
        return Err(Refusal::invalid("`by` has more than 256 characters."));
    }
    let reason = message.reason.map(|reason| clean(&reason, LONGEST_REASON)).filter(|reason| !reason.is_empty());
    Ok(Said { id, approves: message.decision == Word::Approved, by, reason })
}

fn respond(answer: &Answer) -> Response {
    let mut response = Response::new(Body::from(serde_json::to_vec(answer).unwrap_or_default()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_one_of_two_words_and_nothing_else() {
        let parse = |text: &str| said("id".into(), "a/b", text.replacen('{', r#"{"approval": "a/b", "#, 1).as_bytes());
        let approved = parse(r#"{"decision": "Approved", "by": " ann ", "reason": "fine"}"#).unwrap();
        assert_eq!((approved.approves, approved.by.as_str(), approved.reason.as_deref()), (true, "ann", Some("fine")));
        assert!(!parse(r#"{"decision": "rejected"}"#).unwrap().approves);
        for wrong in ["", "{}", r#"{"decision": "yes"}"#, r#"{"decision": true}"#, r#"{"decision": null}"#, "[]"] {
            assert_eq!(parse(wrong).unwrap_err().code, "invalid", "{wrong}");
        }
        let bound = |text: &str| said("id".into(), "a/b", text.as_bytes()).unwrap_err().code;
        assert_eq!(bound(r#"{"decision": "Approved"}"#), "invalid", "it says what it decides about");
        assert_eq!(bound(r#"{"approval": "a/c", "decision": "Approved"}"#), "other-approval");
        let long = format!(r#"{{"decision": "Approved", "by": "{}"}}"#, "x".repeat(257));
        assert_eq!(parse(&long).unwrap_err().code, "invalid");
    }
}
