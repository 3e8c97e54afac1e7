//! `/livez`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Router, routing::get};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;

/// What the process still waits for before it is ready.
#[derive(Default)]
pub struct Readiness {
    waiting: Mutex<BTreeMap<String, String>>,
}

impl Readiness {
    /// `who` waits for `what`.
    pub fn waits(&self, who: &str, what: &str) {
        self.waiting.lock().insert(who.to_owned(), what.to_owned());
    }

    /// `who` waits no more.
    pub fn is_ready(&self, who: &str) {
        self.waiting.lock().remove(who);
    }

    /// One line for each that waits; empty when all are ready.
    pub fn report(&self) -> String {
        self.waiting.lock().iter().map(|(who, what)| format!("{who}: waiting for {what}\n")).collect()
    }
}

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

/// Serves the three paths on `listener` until `stop`.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, readiness: Arc<Readiness>, stop: CancellationToken) {
    let app = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(exposition))
        .with_state(Shared { metrics, readiness });
    let result = axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await;
    if let Err(error) = result {
        tracing::error!(%error, "The health and metrics server ended");
    }
}

/// Binds the address that health and metrics are served on.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on --metrics-address {address}: {error}"))
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let report = shared.readiness.report();
    if report.is_empty() { (StatusCode::OK, "ok\n".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, report) }
}

async fn exposition(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text())
}
