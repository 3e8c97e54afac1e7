//! The operations: a file per resource, and the table that says which function runs each.

pub mod access;
pub mod audit_events;
pub mod changes;
pub mod client_state;
pub mod copies;
pub mod downloads;
pub mod facets;
pub mod fences;
pub mod files;
pub mod folders;
pub mod gated;
pub mod holds;
pub mod intake;
pub mod inventory;
pub mod items;
pub mod lifecycle;
pub mod links;
pub mod members;
pub mod metadata;
pub mod notifications;
pub mod principals;
pub mod service;
pub mod sharing;
pub mod trash;
pub mod upload_requests;
pub mod uploads;
pub mod versions;
pub mod workspaces;

use std::future::Future;
use std::pin::Pin;

use axum::body::Body;

use super::App;
use super::call::{Answer, Call};
use super::operation::Operation;
use super::pages;
use super::refusal::Refusal;
use super::tx::{Tx, View};

/// What a call comes to.
pub type Outcome = Result<Answer, Refusal>;

/// A handler that waits or streams.
pub type Waiting = fn(App, Call, Body) -> Pin<Box<dyn Future<Output = super::http::Reply> + Send>>;

/// How an operation runs.
#[derive(Clone, Copy)]
pub enum Run {
    /// On a snapshot.
    Read(fn(&View<'_>) -> Outcome),
    /// In a transaction.
    Write(fn(&mut Tx<'_, '_, '_>) -> Outcome),
    /// On its own terms; uses snapshots and transactions itself.
    Wait(Waiting),
}

/// The function behind an operation.
pub fn run(operation: Operation) -> Run {
    use Operation as O;
    use Run::{Read, Wait, Write};
    match operation {
        O::IssueToken => Wait(|app, call, _| Box::pin(async move { super::oauth::issue(&app, &call) })),
        O::GetHealth => Wait(|app, call, _| Box::pin(service::health(app, call))),
        O::GetService => Wait(|app, call, _| Box::pin(service::describe(app, call))),
        O::WhoAmI => Read(service::me),
        O::ListPrincipals => Read(principals::list),
        O::GetPrincipal => Read(principals::get),
        O::ListGroupMembers => Read(principals::members),
        O::PutGuest => Write(principals::put_guest),
        O::ListWorkspaces => Read(workspaces::list),
        O::CreateWorkspace => Write(workspaces::create),
        O::CreateWorkspaceByKey => Write(workspaces::create_by_key),
        O::GetWorkspaceByKey => Read(workspaces::get_by_key),
        O::GetWorkspace => Read(workspaces::get),
        O::UpdateWorkspace => Write(workspaces::update),
        O::SetOwner => Write(workspaces::set_owner),
        O::TransitionWorkspace => Write(lifecycle::transition),
        O::DeleteWorkspace => Write(lifecycle::delete),
        O::RestoreWorkspace => Write(lifecycle::restore),
        O::PurgeWorkspace => Write(lifecycle::purge),
        O::ListMembers => Read(members::list),
        O::SetMember => Write(members::set),
        O::RemoveMember => Write(members::remove),
        O::ListFolders => Read(folders::list),
        O::CreateFolder => Write(folders::create),
        O::ResolvePath => Read(items::resolve),
        O::GetItem => Read(items::get),
        O::UpdateItem => Write(items::update),
        O::DeleteItem => Write(items::delete),
        O::ListFiles => Read(inventory::list),
        O::GetAccess => Read(access::get),
        O::ListChildren => Read(items::children),
        O::ListUploadRequests => Read(upload_requests::list),
        O::GetUploadRequest => Read(upload_requests::get),
        O::PutUploadRequest => Write(upload_requests::put),
        O::PutChecklist => Write(upload_requests::put_checklist),
        O::DeleteUploadRequest => Write(upload_requests::delete),
        O::CreateLink => Wait(|app, call, _| Box::pin(links::create(app, call))),
        O::ListLinks => Read(links::list),
        O::GetLink => Read(links::get),
        O::UpdateLink => Wait(|app, call, _| Box::pin(links::update(app, call))),
        O::DeleteLink => Write(links::delete),
        O::GetFence => Read(fences::get),
        O::PutFence => Write(fences::put),
        O::GetClientState => Read(client_state::get),
        O::PutClientState => Write(client_state::put),
        O::ListClientState => Read(client_state::list),
        O::BatchClientState => Write(client_state::batch),
        O::DeleteClientState => Write(client_state::delete),
        O::ListChanges => Wait(|app, call, _| Box::pin(changes::list(app, call))),
        O::UploadFile => Wait(|app, call, body| Box::pin(files::upload(app, call, body))),
        O::PutContent => Wait(|app, call, body| Box::pin(files::put_content(app, call, body))),
        O::GetContent => Wait(|app, call, _| Box::pin(downloads::get(app, call))),
        O::ListVersions => Read(versions::list),
        O::DeleteVersion => Write(versions::delete),
        O::RestoreVersion => Wait(|app, call, _| {
            let blobs = app.blobs.clone();
            Box::pin(async move { app.write(call, move |tx| versions::restore(tx, &blobs)).await })
        }),
        O::CreateUpload => Write(uploads::create),
        O::GetUpload => Read(uploads::get),
        O::PutPart => Wait(|app, call, body| Box::pin(uploads::put_part(app, call, body))),
        O::CommitUpload => Wait(|app, call, _| Box::pin(uploads::commit(app, call))),
        O::AbortUpload => Write(uploads::abort),
        O::CopyItem => Wait(|app, call, _| {
            let blobs = app.blobs.clone();
            Box::pin(async move { app.write(call, move |tx| copies::create(tx, &blobs)).await })
        }),
        O::ListTrash => Read(trash::list),
        O::RestoreItem => Write(trash::restore),
        O::BatchMetadata => Write(metadata::batch),
        O::GetFacet => Read(facets::get),
        O::PutFacet => Write(facets::put),
        O::BatchFacets => Write(facets::batch),
        O::QueryFacets => Read(facets::query),
        O::GetIntake => Read(intake::get),
        O::PutIntake => Write(intake::put),
        O::ListPending => Read(intake::list),
        O::Decide => Write(intake::decide),
        O::PutQuarantine => Write(intake::quarantine),
        O::GetRetention => Read(holds::get_retention),
        O::PutRetention => Write(holds::put_retention),
        O::ListHolds => Read(holds::list),
        O::GetHold => Read(holds::get),
        O::PutHold => Write(holds::put),
        O::ListHeldItems => Read(holds::items_of),
        O::AssignHold => Write(holds::assign),
        O::ApplyHold => Write(holds::apply),
        O::ReleaseHold => Write(holds::release),
        O::GetRecord => Read(holds::get_record),
        O::PutRecord => Write(holds::put_record),
        O::ListAuditEvents => Read(audit_events::list),
        O::CreateNotification => Write(notifications::create),
        O::ListNotifications => Read(notifications::list),
        O::OpenUploadPage => Wait(|app, call, _| Box::pin(pages::upload::show(app, call))),
        O::RequestUploadCode => Wait(|app, call, _| Box::pin(pages::upload::request_code(app, call))),
        O::VerifyUploadCode => Wait(|app, call, _| Box::pin(pages::upload::verify_code(app, call))),
        O::UploadThroughPage => Wait(|app, call, body| Box::pin(pages::upload::receive(app, call, body))),
        O::OpenLinkPage => Wait(|app, call, _| Box::pin(pages::download::show(app, call))),
        O::RequestLinkCode => Wait(|app, call, _| Box::pin(pages::download::request_code(app, call))),
        O::GetLinkContent => Wait(|app, call, _| Box::pin(pages::download::content(app, call))),
        O::DownloadThroughLink => Wait(|app, call, _| Box::pin(pages::download::download(app, call))),
        O::GetFaults => Wait(|app, _, _| Box::pin(async move { super::faults::get(&app) })),
        O::PutFaults => Wait(|app, call, _| Box::pin(super::faults::put(app, call))),
    }
}
