//! The controllers: one pass observes, plans, executes and reports.

pub mod approval;
pub mod callbacks;
pub mod connection;
pub mod context;
pub mod file_route;
pub mod finalizers;
pub mod gates;
pub mod grants;
pub mod ingest;
pub mod references;
pub mod reports;
pub mod secure_workspace;
pub mod secure_workspace_set;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::outbound::http::Clients;
use approval::Approvals;
use connection::Connections;
use context::Context;
use file_route::FileRoutes;
use gates::Gates;
use references::ReferenceStore;
use reports::Reports;
use secure_workspace::SecureWorkspaces;
use secure_workspace_set::SecureWorkspaceSets;

/// How long the first listing of workspaces waits for the Connections' sessions.
const PATIENCE: Duration = Duration::from_secs(10);

/// Objects in one page of a listing; what one page needs in memory is given back before the next.
const PAGE: u32 = 200;

/// Runs all controllers until the task is dropped.
pub async fn run(ctx: Arc<Context>) {
    let connections = Connections::new(ctx.clone());
    let workspaces = SecureWorkspaces::new(ctx.clone());
    let references = ReferenceStore::new(ctx.client.clone(), ctx.guard.clone(), ctx.tuning.secret_interval);
    let clients = Clients::new(ctx.guard.clone(), ctx.extra_ca.clone());
    let reports = Reports::new(&ctx, references.clone(), clients.clone());
    reports.serves(&workspaces);
    let _ = ctx.reports.set(reports.clone());
    let routes = FileRoutes::new(ctx.clone(), references.clone(), clients.clone());
    let sets = SecureWorkspaceSets::new(ctx.clone(), references, clients);
    let approvals = Approvals::new(ctx.clone());
    ctx.approvals_are(&approvals);
    connections.serves(workspaces.clone(), routes.clone(), sets.clone(), approvals.clone());
    routes.reads(workspaces.clone());
    sets.reads(workspaces.clone());
    workspaces.tells(sets.clone());
    let gates = Gates::new(ctx.clone(), approvals.clone(), routes.clone(), workspaces.clone(), connections.clone());
    ctx.gates_are(&gates);
    ctx.readiness.waits("workspaces", "the first listing");
    let after_connections = {
        let (ctx, connections, workspaces) = (ctx.clone(), connections.clone(), workspaces.clone());
        let (routes, sets) = (routes.clone(), sets.clone());
        let reviews = secure_workspace::reviews::follow(approvals.clone(), workspaces.clone());
        async move {
            connections.settled(PATIENCE).await;
            while !ctx.namespaces.is_listed() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::select! {
                _ = async { tokio::join!(workspaces.run(), routes.run(), sets.run(), approvals.run(), gates.run(), reviews) } => {}
                () = reports.run() => {}
            }
        }
    };
    // At shutdown the workspaces' running passes end first; they need the Connections until then.
    tokio::select! {
        () = after_connections => {}
        _ = async { tokio::join!(connections.run(), watch_namespaces(ctx.clone(), workspaces, routes, sets), run_queue(ctx)) } => {}
    }
}

/// Reads what workers answer, if there are any.
async fn run_queue(ctx: Arc<Context>) {
    if let Some(queue) = &ctx.queue {
        queue.clone().run().await;
    }
}

/// All objects of a kind that this operator looks after.
fn api_of<K>(ctx: &Context) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match &ctx.namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    }
}

/// Labels of one namespace, read now: for processes that do not watch them. Empty where the operator looks after one namespace only.
async fn labels_of(ctx: &Context, namespace: &str) -> crate::error::Result<BTreeMap<String, String>> {
    if ctx.namespace.is_some() {
        return Ok(BTreeMap::new());
    }
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    Ok(api.get_metadata(namespace).await?.labels().clone())
}

/// A watch that starts again after failures, with back-off.
fn watch<K>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff()
}

/// How long it is until `at`.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    at.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

/// Grants name namespaces by label, so their labels are watched; nothing else of them is read.
async fn watch_namespaces(
    ctx: Arc<Context>,
    workspaces: Arc<SecureWorkspaces>,
    routes: Arc<FileRoutes>,
    sets: Arc<SecureWorkspaceSets>,
) {
    if ctx.namespace.is_some() {
        ctx.namespaces.listed();
        return;
    }
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(ctx.client.clone());
    let mut events = std::pin::pin!(watch(api));
    let changed = |namespace: PartialObjectMeta<Namespace>| {
        if ctx.namespaces.set(&namespace.name_any(), namespace.labels().clone()) {
            workspaces.namespace_changed(&namespace.name_any());
            routes.namespace_changed(&namespace.name_any());
            sets.namespace_changed(&namespace.name_any());
        }
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(namespace) | Event::Apply(namespace)) => changed(namespace),
            Ok(Event::Delete(namespace)) => ctx.namespaces.remove(&namespace.name_any()),
            Ok(Event::InitDone) => ctx.namespaces.listed(),
            Ok(Event::Init) => {}
            Err(error) => warn!(%error, "The watch of namespaces failed; it starts again"),
        }
    }
}
