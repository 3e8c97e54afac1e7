//! What a pass found out → status. Pure.

use jiff::Timestamp;
use kube::ResourceExt;

use super::Outcome;
use crate::api::REQUESTED_AT;
use crate::api::common::condition;
use crate::api::connection::{Connection, ConnectionStatus, Driver, FeatureLevel, FeedState, FeedStatus, ServerInfo};
use crate::error::{Error, Kind};
use crate::reconcile::conditions::Conditions;

/// The reason of the Ready condition for a failure.
pub fn reason_of(error: &Error) -> &'static str {
    match (error.kind, error.code.as_str()) {
        (_, "credential-not-bound") => "CredentialNotBound",
        (_, "unauthenticated") => "AuthenticationFailed",
        (Kind::Reference | Kind::NotFound, _) => "ReferenceNotFound",
        (Kind::Denied, _) => "AccessDenied",
        (Kind::Tls, _) => "TlsFailed",
        (Kind::RateLimited, _) => "RateLimited",
        (Kind::Unsupported, _) => "Unsupported",
        (Kind::Malformed, _) => "InvalidAnswer",
        (Kind::Rejected, _) => "EndpointRefused",
        (Kind::Kubernetes, _) => "KubernetesApiFailed",
        _ => "Unreachable",
    }
}

/// Whether the Connection is suspended now.
pub fn is_suspended(connection: &Connection, now: Timestamp) -> bool {
    connection.spec.suspend == Some(true) && connection.spec.suspend_until.is_none_or(|until| until > now)
}

/// The status after a pass. What an earlier pass learned about the server stays while it cannot be reached.
pub fn after(connection: &Connection, outcome: &Outcome, now: Timestamp) -> ConnectionStatus {
    let last = connection.status.clone().unwrap_or_default();
    let generation = connection.metadata.generation.unwrap_or_default();
    let mut conditions = Conditions::after(&last.conditions, generation, now);
    let mut next = ConnectionStatus {
        observed_generation: Some(generation),
        conditions: Vec::new(),
        server: last.server.clone(),
        capabilities: last.capabilities.clone(),
        enforcement: last.enforcement.clone(),
        feed: None,
        orphaned_gates: last.orphaned_gates.clone(),
        last_handled_reconcile_at: connection
            .annotations()
            .get(REQUESTED_AT)
            .cloned()
            .or(last.last_handled_reconcile_at.clone()),
    };
    match &outcome.session {
        _ if outcome.suspended => {
            let why = connection.spec.suspend_reason.as_deref().unwrap_or("no reason given");
            let until = connection.spec.suspend_until.map(|until| format!(" until {until}")).unwrap_or_default();
            conditions.set("Ready", false, "Suspended", &format!("Suspended{until}: {why}."));
            conditions.set("Suspended", true, "Suspended", &format!("Suspended{until}: {why}."));
        }
        Ok(session) => {
            next.server = Some(ServerInfo {
                product: session.service.product.clone(),
                version: session.service.version.clone(),
                contract: session.service.contract.clone(),
                feed_epoch: session.service.feed_epoch.clone(),
            });
            next.capabilities = session.service.capabilities.iter().map(|capability| format!("{capability:?}")).collect();
            next.capabilities.sort();
            next.capabilities.dedup();
            next.enforcement = session.enforcement.iter().map(|(feature, level)| FeatureLevel { feature, level }).collect();
            let state = match (session.is_connected(), session.has_feed()) {
                (false, _) => FeedState::Interrupted,
                (true, true) => FeedState::Connected,
                (true, false) => FeedState::Polled,
            };
            next.feed = Some(FeedStatus { state });
            let who = match connection.spec.driver() {
                Driver::Connector => "File 360",
                Driver::WebDav => "The WebDAV server",
            };
            conditions.set("Ready", true, "Connected", &format!("{who} answers and the credential works."));
        }
        Err(error) => {
            let reason = reason_of(error);
            next.feed = last.feed.as_ref().map(|_| FeedStatus { state: FeedState::Interrupted });
            conditions.set("Ready", false, reason, &error.to_string());
            if matches!(error.kind, Kind::Unsupported | Kind::Rejected) {
                conditions.set("Stalled", true, reason, &error.to_string());
            } else {
                conditions.set("Reconciling", true, reason, "Trying again.");
            }
        }
    }
    next.conditions = conditions.finish();
    next
}

/// Says that a Connection that is being deleted is still needed.
pub fn say_needed(status: &mut ConnectionStatus, connection: &Connection, needed: usize, now: Timestamp) {
    let generation = connection.metadata.generation.unwrap_or_default();
    let last = status.conditions.clone();
    let mut conditions = Conditions::after(&last, generation, now);
    conditions.keep("Ready");
    let message = format!(
        "{needed} resources with a finalizer still need this Connection; delete them first, or wait until they are gone."
    );
    conditions.set("DeletionBlocked", true, "InUse", &message);
    status.conditions = conditions.finish();
    status.observed_generation = Some(generation);
}

/// The Event for a change of Ready: whether it is a warning, reason and message.
pub fn flipped(last: Option<&ConnectionStatus>, next: &ConnectionStatus) -> Option<(bool, String, String)> {
    let before = last.and_then(|status| condition(&status.conditions, "Ready"));
    let now = condition(&next.conditions, "Ready")?;
    let same = before.is_some_and(|before| before.status == now.status && before.reason == now.reason);
    (!same).then(|| (now.status != "True", now.reason.clone(), now.message.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let spec = serde_json::from_value(serde_json::json!({
            "endpoint": "https://f.example", "auth": {"token": {"secretRef": {"name": "s", "key": "k"}}}
        }))
        .unwrap();
        let mut connection = Connection::new("tenant", spec);
        connection.metadata.generation = Some(3);
        connection
    }

    #[test]
    fn each_failure_has_its_reason_and_keeps_what_was_learned() {
        let mut connection = connection();
        let server = ServerInfo { product: "p".into(), version: "1".into(), contract: "1.0".into(), feed_epoch: "e".into() };
        connection.status = Some(ConnectionStatus { server: Some(server.clone()), ..ConnectionStatus::default() });
        for (kind, reason, stalled) in [
            (Kind::Denied, "AccessDenied", false),
            (Kind::Tls, "TlsFailed", false),
            (Kind::RateLimited, "RateLimited", false),
            (Kind::Unavailable, "Unreachable", false),
            (Kind::Malformed, "InvalidAnswer", false),
            (Kind::Reference, "ReferenceNotFound", false),
            (Kind::Unsupported, "Unsupported", true),
        ] {
            let outcome = Outcome { session: Err(Error::new(kind, "why")), suspended: false };
            let status = after(&connection, &outcome, Timestamp::UNIX_EPOCH);
            let ready = condition(&status.conditions, "Ready").unwrap();
            assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", reason));
            assert_eq!(condition(&status.conditions, "Stalled").is_some(), stalled, "{reason}");
            assert_eq!(status.server.as_ref(), Some(&server));
            assert_eq!(status.observed_generation, Some(3));
        }
    }
}
