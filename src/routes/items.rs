//! Files in workspaces as a source.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::content::{Bandwidth, ItemContent};
use super::delivery::{File, Origin};
use super::environment::{Facts, Surroundings, Uploader};
use super::paths::PathPattern;
use super::work::{Loaded, Look, Source, Whereabouts, Work};
use crate::api::documents::DocumentState;
use crate::api::file_route::FileEvent;
use crate::documents::record::{REQUIREMENT, Recorded, parse};
use crate::error::{Error, Kind, Result};
use crate::file360::content::IdempotencyKey;
use crate::file360::model::{
    Actor, Item, ItemKind, ItemPatch, ItemState, MetadataPatch, NewFolder, OnConflict, PrincipalKind, Version,
};
use crate::file360::{Cause, File360};

/// Workspaces and folders that are remembered.
const REMEMBERED: usize = 10_000;

/// A workspace that a route looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scoped {
    /// Name of its SecureWorkspace; empty for one that no resource declares.
    pub name: String,
    /// Labels of its SecureWorkspace.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// The workspaces that a route looks at. Changes while the route runs.
#[derive(Default)]
pub struct Scope {
    workspaces: RwLock<HashMap<String, Scoped>>,
    joined: Mutex<Vec<String>>,
    changed: Notify,
}

impl Scope {
    /// Replaces the set; what joins is scanned.
    pub fn set(&self, workspaces: HashMap<String, Scoped>) {
        let mut known = self.workspaces.write();
        let joined: Vec<String> = workspaces.keys().filter(|id| !known.contains_key(*id)).cloned().collect();
        *known = workspaces;
        drop(known);
        if !joined.is_empty() {
            self.joined.lock().extend(joined);
            self.changed.notify_one();
        }
    }

    /// Adds one; it is not scanned.
    pub fn put(&self, workspace: &str, scoped: Scoped) {
        self.workspaces.write().insert(workspace.to_owned(), scoped);
    }

    /// Whether it contains a workspace.
    pub fn contains(&self, workspace: &str) -> bool {
        self.workspaces.read().contains_key(workspace)
    }

    /// All ids, in order.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.workspaces.read().keys().cloned().collect();
        ids.sort_unstable();
        ids
    }

    /// What is known of one.
    pub fn get(&self, workspace: &str) -> Option<Scoped> {
        self.workspaces.read().get(workspace).cloned()
    }

    /// What joined since the last call.
    pub fn take_joined(&self) -> Vec<String> {
        std::mem::take(&mut *self.joined.lock())
    }

    /// What joined could not be scanned: it joins again.
    pub fn rejoin(&self, workspaces: &[String]) {
        self.joined.lock().extend_from_slice(workspaces);
        self.changed.notify_one();
    }

    /// Waits until something joined.
    pub async fn joined(&self) {
        self.changed.notified().await;
    }
}

/// Files in workspaces.
pub struct ItemSource {
    /// The tenant.
    pub tenant: Arc<dyn File360>,
    /// The workspaces.
    pub scope: Arc<Scope>,
    /// The paths.
    pub pattern: PathPattern,
    /// Comes back in the feed with the route's own changes.
    pub cause: Cause,
    /// Limits of what is read.
    pub bandwidth: Vec<Arc<Bandwidth>>,
    known: Arc<Known>,
}

#[derive(Default)]
struct Known {
    workspaces: Mutex<HashMap<String, Arc<Surroundings>>>,
    folders: Mutex<HashMap<String, Arc<BTreeMap<String, String>>>>,
    /// How often something was forgotten.
    revision: AtomicU64,
}

impl ItemSource {
    /// A source of the files of `scope` whose path fits `pattern`.
    pub fn new(
        tenant: Arc<dyn File360>,
        scope: Arc<Scope>,
        pattern: PathPattern,
        cause: Cause,
        bandwidth: Vec<Arc<Bandwidth>>,
    ) -> Self {
        Self { tenant, scope, pattern, cause, bandwidth, known: Arc::default() }
    }

    /// The same source for other workspaces; what is remembered is shared.
    #[must_use]
    pub fn within(&self, scope: Arc<Scope>) -> Self {
        Self {
            tenant: self.tenant.clone(),
            scope,
            pattern: self.pattern.clone(),
            cause: self.cause.clone(),
            bandwidth: self.bandwidth.clone(),
            known: self.known.clone(),
        }
    }

    /// A workspace changed: what is remembered of it is read again.
    pub fn forget_workspace(&self, workspace: &str) {
        self.known.workspaces.lock().remove(workspace);
        self.known.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// Some folder changed.
    pub fn forget_folders(&self) {
        self.known.folders.lock().clear();
        self.known.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// Everything may have changed.
    pub fn forget_all(&self) {
        self.known.workspaces.lock().clear();
        self.forget_folders();
    }

    /// Whether an item is a file that readers see and that the route looks at.
    pub fn is_ours(&self, item: &Item) -> bool {
        item.kind == ItemKind::File
            && item.state == ItemState::Available
            && item.version.is_some()
            && self.scope.contains(&item.workspace_id)
            && self.pattern.matches(&item.path)
    }

    /// What is recorded of a version as a required document.
    pub async fn recorded_document(&self, item: &str, version: u64) -> Result<Option<Recorded>> {
        let facet = self.tenant.facet(item, version, REQUIREMENT).await?;
        Ok(facet.and_then(|facet| parse(&facet.value)))
    }

    /// The same, if it is what `event` tells.
    async fn requirement_of(&self, item: &Item, event: FileEvent) -> Result<Option<Recorded>> {
        if !event.is_about_a_document() {
            return Ok(None);
        }
        let recorded = self.recorded_document(&item.id, item.version.unwrap_or_default()).await?;
        // What expires soon was approved, and is.
        let tells = |recorded: &Recorded| match recorded.state {
            DocumentState::ExpiringSoon => event == FileEvent::DocumentApproved,
            state => FileEvent::of_document(state, recorded.was) == Some(event),
        };
        Ok(recorded.filter(tells))
    }

    async fn surroundings(&self, workspace: &str) -> Result<Arc<Surroundings>> {
        if let Some(known) = self.known.workspaces.lock().get(workspace) {
            return Ok(known.clone());
        }
        let found = self.tenant.workspace(workspace).await?;
        let found = found.ok_or_else(|| Error::new(Kind::NotFound, "the workspace is gone"))?;
        let scoped = self.scope.get(workspace).unwrap_or_default();
        let surroundings = Arc::new(Surroundings {
            name: if scoped.name.is_empty() { found.display_name } else { scoped.name },
            labels: (*scoped.labels).clone(),
            metadata: found.metadata,
            external_ref: found.key.map(|key| (key.system, key.key)),
            classification: found.classification,
        });
        let mut known = self.known.workspaces.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(workspace.to_owned(), surroundings.clone());
        Ok(surroundings)
    }

    async fn folder(&self, id: Option<&str>) -> Result<Arc<BTreeMap<String, String>>> {
        let Some(id) = id else { return Ok(Arc::default()) };
        if let Some(known) = self.known.folders.lock().get(id) {
            return Ok(known.clone());
        }
        let metadata = Arc::new(self.tenant.item(id).await?.map(|folder| folder.metadata).unwrap_or_default());
        let mut known = self.known.folders.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(id.to_owned(), metadata.clone());
        Ok(metadata)
    }

    /// The item as it was when it had `version`; `None` when that version is gone or not visible.
    async fn at_version(&self, mut item: Item, version: u64) -> Result<Option<Item>> {
        if item.version == Some(version) {
            return Ok(Some(item));
        }
        let versions = self.tenant.versions(&item.id).await?;
        let released = crate::file360::model::VersionState::Released;
        let Some(found) = versions.into_iter().find(|found| found.version == version && found.state == released) else {
            return Ok(None);
        };
        item.version = Some(version);
        item.size = Some(found.size);
        item.sha256 = Some(found.sha256);
        item.mime_type = Some(found.mime_type);
        item.created_by = Some(found.created_by);
        item.modified_at = found.created_at;
        Ok(Some(item))
    }

    /// What expressions see of an item that is not visible yet, or of a folder. `version`: the one that they are about, if it is not the item's.
    pub async fn facts_of(
        &self,
        mut item: Item,
        version: Option<&Version>,
        event: FileEvent,
        actor: String,
    ) -> Result<Facts> {
        if let Some(found) = version {
            item.version = Some(found.version);
            item.size = Some(found.size);
            item.sha256 = Some(found.sha256.clone());
            item.mime_type = Some(found.mime_type.clone());
            item.created_by = Some(found.created_by.clone());
            item.modified_at = found.created_at;
        }
        let folder = self.folder(item.parent_id.as_deref()).await?;
        let workspace = self.surroundings(&item.workspace_id).await?;
        let uploader = item.created_by.as_ref().map(uploader).unwrap_or_default();
        let upload_request = item.upload_request.clone();
        let file = Arc::new(file(item, &workspace.name));
        Ok(Facts { file, uploader, upload_request, folder, workspace, event, actor, requirement: None })
    }

    fn loaded(
        &self,
        item: Item,
        work: &Work,
        folder: Arc<BTreeMap<String, String>>,
        workspace: Arc<Surroundings>,
        requirement: Option<Recorded>,
    ) -> Loaded {
        let version = item.version.unwrap_or_default();
        let content = ItemContent {
            files: self.tenant.clone(),
            item: item.id.clone(),
            version,
            sha256: item.sha256.clone(),
            bandwidth: self.bandwidth.clone(),
        };
        let uploader = item.created_by.as_ref().map(uploader).unwrap_or_default();
        let upload_request = item.upload_request.clone();
        let file = Arc::new(file(item, &workspace.name));
        let actor = work.actor.clone();
        let facts = Facts { file, uploader, upload_request, folder, workspace, event: work.event, actor, requirement };
        Loaded { facts, content: Arc::new(content), is_current: true }
    }
}

/// Who brought a file, as expressions see it.
pub fn uploader(actor: &Actor) -> Uploader {
    Uploader {
        kind: format!("{:?}", actor.kind),
        id: actor.id.clone().unwrap_or_default(),
        email: actor.name.clone(),
        email_verified: actor.email_verified || actor.id.is_some() || actor.kind != PrincipalKind::Guest,
    }
}

/// A file, as expressions see it.
pub fn file(item: Item, workspace_name: &str) -> File {
    File {
        origin: Origin::Item { workspace: item.workspace_id, item: item.id, version: item.version.unwrap_or_default() },
        name: item.name,
        path: item.path,
        size: item.size.unwrap_or_default(),
        sha256: item.sha256,
        mime_type: item.mime_type.unwrap_or_else(|| "application/octet-stream".into()),
        created_at: item.created_at,
        modified_at: item.modified_at,
        created_by: item.created_by.map(|actor| actor.name),
        classification: item.classification,
        metadata: item.metadata,
        workspace_name: workspace_name.to_owned(),
    }
}

#[async_trait]
impl Source for ItemSource {
    fn whereabouts(&self, origin: &Origin) -> Whereabouts {
        let Origin::Item { workspace, .. } = origin else { return Whereabouts::default() };
        let scoped = self.scope.get(workspace);
        let revision = self.known.revision.load(Ordering::Acquire);
        Whereabouts { is_read: scoped.is_some(), workspace: scoped.map(|scoped| scoped.name).unwrap_or_default(), revision }
    }

    async fn look(&self, work: &Work) -> Result<Look> {
        let Origin::Item { item: id, version, .. } = &work.origin else { return Ok(Look::NotOurs) };
        let Some(item) = self.tenant.item(id).await? else { return Ok(Look::NotOurs) };
        if !self.is_ours(&item) {
            return Ok(Look::NotOurs);
        }
        let is_current = item.version == Some(*version);
        let Some(item) = self.at_version(item, *version).await? else { return Ok(Look::Superseded) };
        let requirement = match self.requirement_of(&item, work.event).await? {
            // By now it is in another state, whose own entry tells.
            None if work.event.is_about_a_document() => return Ok(Look::Superseded),
            requirement => requirement,
        };
        let folder = self.folder(item.parent_id.as_deref()).await?;
        let workspace = self.surroundings(&item.workspace_id).await?;
        Ok(Look::Here(Box::new(Loaded { is_current, ..self.loaded(item, work, folder, workspace, requirement) })))
    }

    async fn label(&self, origin: &Origin, metadata: &BTreeMap<String, String>) -> Result<()> {
        let Origin::Item { item, .. } = origin else { return Ok(()) };
        let metadata = metadata.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
        let patch = MetadataPatch { item_id: item.clone(), etag: None, metadata };
        let key = IdempotencyKey(format!("{:032x}", rand::random::<u128>()));
        let results = self.tenant.set_metadata(&[patch], &key, &self.cause).await?;
        match results.results.into_iter().find_map(|result| result.problem) {
            Some(problem) => {
                let why = problem.detail.unwrap_or(problem.title);
                Err(Error::new(Kind::Rejected, format!("File 360 refused it: {}", crate::error::clean(&why, 200))))
            }
            None => Ok(()),
        }
    }

    async fn move_to(&self, origin: &Origin, folder: &str) -> Result<()> {
        let Origin::Item { workspace, item, version } = origin else { return Ok(()) };
        // A newer version has a fate of its own.
        let found = self.tenant.item(item).await?.filter(|found| found.version == Some(*version));
        let Some(found) = found else { return Ok(()) };
        let folder = ensure_folder(&*self.tenant, workspace, folder, &self.cause).await?;
        if found.parent_id.as_deref() == Some(&folder) {
            return Ok(());
        }
        let mut patch = ItemPatch { parent_id: Some(folder), ..ItemPatch::default() };
        match self.tenant.patch_item(item, &found.etag, &patch, &self.cause).await {
            Err(error) if error.kind == Kind::Conflict && error.code == "name-exists" => {
                patch.name = Some(other_name(&found.name, item, *version));
                self.tenant.patch_item(item, &found.etag, &patch, &self.cause).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }
}

/// The same name with something that no other file has, before the extension.
fn other_name(name: &str, item: &str, version: u64) -> String {
    let short: String = item.chars().filter(char::is_ascii_alphanumeric).rev().take(8).collect();
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem} ({short}-{version}).{extension}"),
        _ => format!("{name} ({short}-{version})"),
    }
}

/// Id of the folder at `path`, made as needed.
pub async fn ensure_folder(tenant: &dyn File360, workspace: &str, path: &str, cause: &Cause) -> Result<String> {
    if let Some(found) = tenant.item_at(workspace, path).await? {
        return match found.kind {
            ItemKind::Folder => Ok(found.id),
            ItemKind::File => {
                Err(Error::new(Kind::Rejected, format!("{} is a file, not a folder", crate::error::clean(path, 200))))
            }
        };
    }
    let mut made = String::new();
    let mut id = None;
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        made = format!("{made}/{segment}");
        let new = NewFolder {
            path: made.clone(),
            classification: None,
            metadata: BTreeMap::new(),
            locked: false,
            managed_key: None,
            on_conflict: OnConflict::Return,
        };
        id = Some(tenant.create_folder(workspace, &new, cause).await?.value.id);
    }
    id.ok_or_else(|| Error::new(Kind::Rejected, "the path names no folder"))
}
