//! Workspaces: collections directly below the root, each with a marker.

use futures::{StreamExt as _, TryStreamExt as _};

use super::marker::{self, Change, Marker};
use super::place::{OWN, Place};
use super::{WebDav, refuse};
use crate::error::{Error, Kind, Result};
use crate::file360::model::{
    BusinessKey, Capability, Limits, NewWorkspace, OwnerMark, OwnerState, Page, Service, SharingRules, Workspace,
    WorkspacePatch, WorkspaceRow, WorkspaceState,
};
use crate::file360::{Changed, Creation};

/// Workspaces of one page, and markers that are read at once for it.
const PAGE: usize = 200;
const AT_ONCE: usize = 8;
/// Entity tag of a workspace without a marker.
const UNMARKED: &str = "\"unmarked\"";

impl WebDav {
    pub(super) async fn describe(&self) -> Result<Service> {
        let server = self.client.options().await?;
        let root = self.client.stat(&Place::root()).await?;
        match root {
            Some(entry) if entry.is_collection => {}
            Some(_) => return Err(Error::new(Kind::Rejected, "the endpoint is a file; set spec.endpoint to a collection")),
            None => {
                return Err(Error::new(
                    Kind::NotFound,
                    "nothing is at the path of the endpoint; make the collection, or correct spec.endpoint",
                ));
            }
        }
        let product = server.product.unwrap_or_else(|| "WebDAV".to_owned());
        let (product, version) = product.split_once('/').unwrap_or((product.as_str(), "unknown"));
        Ok(Service {
            product: product.to_owned(),
            version: version.to_owned(),
            contract: format!("WebDAV {}", server.classes.join(", ")).chars().take(63).collect(),
            feed_epoch: String::new(),
            capabilities: vec![Capability::BusinessKeys],
            limits: Limits {
                requests_per_second: None,
                concurrency: None,
                page_size: 1000,
                max_wait_seconds: 0,
                changes_retention_seconds: 0,
                max_body_bytes: 0,
            },
        })
    }

    pub(super) async fn find_by_key(&self, key: &BusinessKey) -> Result<Option<Workspace>> {
        let place = Place::of_key(key);
        match marker::read(&self.client, &place).await? {
            Some(marker) if marker.key.as_ref().is_none_or(|known| known == key) => Ok(Some(self.marked(&place, marker))),
            Some(_) => Err(of_another_key(&place)),
            // A collection that is empty is a creation that broke off.
            None => Ok(self.unmarked(&place).await?.filter(|(_, is_empty)| !is_empty).map(|(workspace, _)| workspace)),
        }
    }

    pub(super) async fn find_by_id(&self, id: &str) -> Result<Option<Workspace>> {
        let Some(place) = Place::of_workspace_id(id) else { return Ok(None) };
        match marker::read(&self.client, &place).await? {
            Some(marker) => Ok(Some(self.marked(&place, marker))),
            None => Ok(self.unmarked(&place).await?.map(|(workspace, _)| workspace)),
        }
    }

    /// A workspace without a marker, if there is one, and whether it is empty.
    async fn unmarked(&self, place: &Place) -> Result<Option<(Workspace, bool)>> {
        let Some(listing) = self.client.list(place).await?.filter(|listing| listing.own.is_collection) else {
            return Ok(None);
        };
        let is_empty = listing.unnamed == 0 && listing.entries.iter().all(|entry| entry.place.is_own());
        let workspace = Workspace { etag: UNMARKED.to_owned(), ..self.marked(place, Marker::new(&place.name())) };
        Ok(Some((workspace, is_empty)))
    }

    fn marked(&self, place: &Place, marker: Marker) -> Workspace {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}{}", url.path().trim_end_matches('/'), place.address(true)));
        Workspace {
            id: place.workspace_id(),
            etag: marker.etag(),
            revision: marker.revision,
            content_revision: None,
            key: marker.key,
            display_name: marker.display_name,
            classification: None,
            metadata: std::collections::BTreeMap::new(),
            sharing: SharingRules::default(),
            managed_fields: marker.managed_fields,
            owner: marker.owner,
            state: WorkspaceState::Active,
            purge_at: None,
            root_id: place.id(),
            url: url.to_string(),
        }
    }

    /// The collection first, the marker second, anything else after: so a collection with content and without a marker is people's.
    pub(super) async fn make_workspace(&self, key: &BusinessKey, new: &NewWorkspace) -> Result<Creation> {
        refuse(&[
            (new.classification.is_some(), "classification labels (spec.classification)"),
            (!new.metadata.is_empty(), "metadata of workspaces (spec.metadata)"),
            (new.sharing.is_some(), "sharing rules (spec.sharing)"),
        ])?;
        let place = Place::of_key(key);
        self.client.make_collection(&place).await?;
        if let Some(workspace) = self.find_by_key(key).await? {
            return Ok(Creation::Existed(Box::new(workspace)));
        }
        self.client.make_collection(&marker::own_collection(&place)).await?;
        let first = Marker {
            key: Some(key.clone()),
            owner: new.owner.clone(),
            managed_fields: new.managed_fields.clone(),
            ..Marker::new(&new.display_name)
        };
        let written = marker::change(&self.client, &place, |before| {
            Ok(match before {
                Some(_) => Change::Keep(false),
                None => Change::Write(Box::new(first), true),
            })
        });
        let (marker, is_new) = written.await?;
        let marker = marker.ok_or_else(|| Error::new(Kind::Stale, "the workspace vanished while it was made"))?;
        if marker.key.as_ref().is_some_and(|known| known != key) {
            return Err(of_another_key(&place));
        }
        let workspace = Box::new(self.marked(&place, marker));
        Ok(if is_new { Creation::Created(workspace) } else { Creation::Existed(workspace) })
    }

    pub(super) async fn change_workspace(&self, id: &str, etag: &str, patch: &WorkspacePatch) -> Result<Changed<Workspace>> {
        refuse(&[
            (patch.classification.is_some(), "classification labels (spec.classification)"),
            (!patch.metadata.is_empty(), "metadata of workspaces (spec.metadata)"),
            (patch.sharing.is_some(), "sharing rules (spec.sharing)"),
        ])?;
        self.change_marker(id, etag, |marker| {
            if let Some(name) = &patch.display_name {
                marker.display_name.clone_from(name);
            }
            if let Some(fields) = &patch.managed_fields {
                marker.managed_fields.clone_from(fields);
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn write_owner(&self, id: &str, etag: &str, mark: &OwnerMark) -> Result<Changed<Workspace>> {
        let place = Place::of_workspace_id(id).ok_or_else(|| no_workspace(id))?;
        if etag == UNMARKED {
            self.client.make_collection(&marker::own_collection(&place)).await?;
        }
        self.change_marker(id, etag, |marker| {
            let other = marker
                .owner
                .as_ref()
                .filter(|owner| owner.state == OwnerState::Active && owner.cluster_id != mark.cluster_id);
            if let Some(other) = other {
                let mut error = Error::new(
                    Kind::Conflict,
                    format!("the workspace is managed by {}/{} of another cluster", other.namespace, other.name),
                );
                error.code = "owned-by-other".into();
                return Err(error);
            }
            marker.owner = Some(mark.clone());
            Ok(())
        })
        .await
    }

    /// Changes the marker of a workspace that is still as `etag` says; one that stays the same is not written.
    async fn change_marker(
        &self,
        id: &str,
        etag: &str,
        edit: impl FnOnce(&mut Marker) -> Result<()> + Send,
    ) -> Result<Changed<Workspace>> {
        let place = Place::of_workspace_id(id).ok_or_else(|| no_workspace(id))?;
        let changed = marker::change(&self.client, &place, |before| {
            let mut next = match &before {
                Some(marker) => {
                    marker.expect(etag)?;
                    marker.clone()
                }
                None if etag == UNMARKED || etag == "*" => Marker::new(&place.name()),
                None => return Err(no_workspace(id)),
            };
            edit(&mut next)?;
            Ok(if before.as_ref() == Some(&next) { Change::Keep(()) } else { Change::Write(Box::new(next), ()) })
        });
        let (marker, ()) = changed.await?;
        let marker = marker.ok_or_else(|| no_workspace(id))?;
        let revision = marker.revision;
        Ok(Changed { value: self.marked(&place, marker), revision })
    }

    pub(super) async fn list_workspaces(
        &self,
        cluster_id: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<Page<WorkspaceRow>> {
        let root = self.client.list(&Place::root()).await?;
        let root = root.ok_or_else(|| Error::new(Kind::NotFound, "nothing is at the path of the endpoint"))?;
        let is_next = |place: &Place| cursor.is_none_or(|cursor| place.workspace_id().as_str() > cursor);
        let mut places: Vec<Place> = root
            .entries
            .into_iter()
            .filter(|entry| entry.is_collection && !entry.place.is_own() && is_next(&entry.place))
            .map(|entry| entry.place)
            .collect();
        places.sort_by_cached_key(Place::workspace_id);
        let has_more = places.len() > PAGE;
        places.truncate(PAGE);
        let next_cursor = places.last().filter(|_| has_more).map(Place::workspace_id);
        let rows = futures::stream::iter(places).map(|place| async move {
            let marker = marker::read(&self.client, &place).await;
            // One damaged marker is that workspace's trouble, and its own pass says so.
            let marker = match marker {
                Err(error)
                    if error.code != "unauthenticated"
                        && matches!(
                            error.kind,
                            Kind::Malformed | Kind::Unsupported | Kind::Rejected | Kind::Conflict | Kind::Denied
                        ) =>
                {
                    None
                }
                result => result?,
            };
            Ok::<_, Error>(self.marked(&place, marker.unwrap_or_else(|| Marker::new(&place.name()))))
        });
        let rows: Vec<Workspace> = rows.buffered(AT_ONCE).try_collect().await?;
        let wanted = |row: &Workspace| match cluster_id {
            Some(cluster) => row.owner.as_ref().is_some_and(|owner| owner.cluster_id == cluster),
            None => true,
        };
        let items = rows.into_iter().filter(wanted).map(row).collect();
        Ok(Page { items, next_cursor })
    }
}

fn row(workspace: Workspace) -> WorkspaceRow {
    let Workspace { id, key, display_name, revision, owner, state, .. } = workspace;
    WorkspaceRow { id, key, display_name, revision, content_revision: None, owner, state }
}

pub(super) fn no_workspace(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no workspace {}", crate::error::clean(id, 128)))
}

fn of_another_key(place: &Place) -> Error {
    let mut error = Error::new(
        Kind::Conflict,
        format!(
            "{}/{OWN} names another business key; the workspace was copied or its marker was changed by hand",
            place.workspace_id()
        ),
    );
    error.code = "owned-by-other".into();
    error
}
