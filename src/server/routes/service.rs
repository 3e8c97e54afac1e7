//! Who answers, who asks.

use super::Outcome;
use crate::file360::model::{Capability, Limits, Principal, PrincipalKind, Service};
use crate::server::App;
use crate::server::call::{Answer, Call};
use crate::server::http::Reply;
use crate::server::tx::View;

/// The version of the contract that this server implements.
pub const CONTRACT: &str = "1.0";
/// Longest `wait` of the change feed.
pub const MAX_WAIT_SECONDS: u32 = 30;

/// `GET /healthz`
pub async fn health(app: App, _call: Call) -> Reply {
    let alive = app.store.read(|db| Ok(db.query_row("SELECT 1", [], |_| Ok(()))?)).await;
    Reply::plain(alive.and_then(|()| Answer::ok(&serde_json::json!({"status": "ok"}))))
}

/// `GET /v1/service`
pub async fn describe(app: App, call: Call) -> Reply {
    let service = Service {
        product: "File 360 (embedded)".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        contract: CONTRACT.to_owned(),
        feed_epoch: app.store.tail.epoch(),
        capabilities: vec![
            Capability::BusinessKeys,
            Capability::Members,
            Capability::Sharing,
            Capability::UploadRequests,
            Capability::Metadata,
            Capability::Changes,
            Capability::ClientState,
            Capability::Fencing,
            Capability::Trash,
            Capability::Facets,
            Capability::Audit,
            Capability::Intake,
            Capability::Retention,
            Capability::Holds,
            Capability::Records,
            Capability::Notifications,
        ],
        limits: Limits {
            requests_per_second: app.config.requests_per_second,
            concurrency: None,
            page_size: 1000,
            max_wait_seconds: MAX_WAIT_SECONDS,
            changes_retention_seconds: app.config.changes_retention.as_secs(),
            max_body_bytes: crate::server::http::MAX_JSON as u64,
        },
    };
    app.read(call, move |view| {
        view.authorize_alone()?;
        Answer::ok(&service)
    })
    .await
}

/// `GET /v1/me`
pub fn me(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    if let Some(person) = &view.person {
        let principal = crate::server::records::people::by_id(view.db, &person.id)?;
        return Answer::ok(&principal);
    }
    Answer::ok(&Principal {
        id: view.call.client_id().to_owned(),
        kind: PrincipalKind::Client,
        name: view.call.client_id().to_owned(),
        display_name: None,
        email: None,
    })
}
