//! Everything that a set changes in Kubernetes, but its own status.

use std::sync::Arc;

use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, ValidationDirective};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::children;
use crate::api::SecureWorkspace;
use crate::controllers::context::Context;
use crate::error::{Error, Kind, Result, clean};
use crate::sets::child::Child;

/// Field manager of what sets declare.
const MANAGER: &str = "file360-operator-sets";

/// Why a SecureWorkspace was not made or changed.
#[derive(Debug)]
pub enum Refused {
    /// It cannot be, as the item and the template are; a sentence for people.
    Item(String),
    /// Somebody else changed it in between, or it is being deleted: look again.
    Stale,
    /// The API server could not be asked.
    Failed(Error),
}

impl Refused {
    /// Its name in metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Item(_) => "refused",
            Self::Stale => "stale",
            Self::Failed(_) => "failed",
        }
    }
}

/// Makes, changes and removes the SecureWorkspaces of one namespace.
pub struct Writer<'a> {
    ctx: &'a Context,
    namespace: Arc<str>,
}

impl<'a> Writer<'a> {
    /// For sets of `namespace`.
    pub fn new(ctx: &'a Context, namespace: &Arc<str>) -> Self {
        Self { ctx, namespace: namespace.clone() }
    }

    fn api(&self) -> Api<SecureWorkspace> {
        let client: Client = self.ctx.client.clone();
        Api::namespaced(client, &self.namespace)
    }

    /// The object as the API server has it.
    pub async fn read(&self, name: &str) -> Result<Option<SecureWorkspace>> {
        Ok(self.api().get_opt(name).await?)
    }

    /// Makes a SecureWorkspace that is not known yet. It is tried with a dry run, which tells at once whether the API server takes it and
    /// whether the name is taken. One that the set made before is changed; one of somebody else stays as it is.
    pub async fn make(&self, set: &str, child: &Child) -> Result<SecureWorkspace, Refused> {
        let tried = self.apply(child, None, true).await;
        let refusal = match tried {
            Ok(tried) => {
                // What would be new has no version yet.
                if tried.metadata.resource_version.as_deref().is_none_or(str::is_empty) {
                    return self.apply(child, None, false).await;
                }
                Refused::Stale
            }
            // Somebody else's may not be changed like this, and that is not why.
            Err(refused @ Refused::Item(_)) => refused,
            Err(other) => return Err(other),
        };
        let Some(object) = self.read(&child.name).await.map_err(Refused::Failed)? else { return Err(refusal) };
        if !children::is_made_by(&object, set) {
            return Err(Refused::Item(format!("SecureWorkspace {} exists and belongs to somebody else", child.name)));
        }
        if object.metadata.deletion_timestamp.is_some() {
            return Err(Refused::Stale);
        }
        self.change(child, &object.resource_version().unwrap_or_default()).await
    }

    /// Changes a SecureWorkspace of the set from exactly this version.
    pub async fn change(&self, child: &Child, version: &str) -> Result<SecureWorkspace, Refused> {
        self.apply(child, Some(version), false).await
    }

    async fn apply(&self, child: &Child, version: Option<&str>, dry_run: bool) -> Result<SecureWorkspace, Refused> {
        let mut manifest = child.manifest.clone();
        if let Some(version) = version {
            manifest["metadata"]["resourceVersion"] = json!(version);
        }
        let params = PatchParams {
            dry_run,
            force: true,
            field_manager: Some(MANAGER.into()),
            field_validation: Some(ValidationDirective::Strict),
        };
        self.patch(&child.name, &manifest, &params).await
    }

    async fn patch(&self, name: &str, manifest: &Value, params: &PatchParams) -> Result<SecureWorkspace, Refused> {
        let api = self.api();
        let patch = Patch::Apply(manifest);
        let write = api.patch(name, params, &patch);
        let written = if params.dry_run { write.await } else { self.ctx.gate.write(&self.namespace, write).await };
        written.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 409 => Refused::Stale,
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 413 | 422) => {
                Refused::Item(clean(&status.message, 400))
            }
            _ => Refused::Failed(error.into()),
        })
    }

    /// One step of a removal: `true` when the deletion has been asked for. With `archive`, the SecureWorkspace first gets `deletionPolicy: Archive` and
    /// is deleted once its finalizer is there, so that the deletion waits for the archiving. Nothing confirms a deletion here (D3).
    pub async fn remove(&self, set: &str, name: &str, uid: &str, archive: bool) -> Result<bool> {
        let Some(object) = self.read(name).await? else { return Ok(true) };
        let is_it = object.uid().as_deref() == Some(uid) && children::is_made_by(&object, set);
        if !is_it || object.metadata.deletion_timestamp.is_some() {
            return Ok(true);
        }
        if archive && !children::archives(&object) {
            self.prepare_archive(&object).await?;
            return Ok(false);
        }
        let preconditions = Preconditions { uid: object.uid(), resource_version: object.metadata.resource_version.clone() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.api().delete(name, &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            // Changed in between: the next pass looks at it again.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(Error::from(error).while_doing(format!("delete SecureWorkspace {name}"))),
        }
    }

    /// Declares the whole spec as it is, with `deletionPolicy: Archive`: should the item come back, all of it is the template's again.
    async fn prepare_archive(&self, object: &SecureWorkspace) -> Result<()> {
        if object.spec.deletion_policy == Some(crate::api::secure_workspace::DeletionPolicy::Archive) {
            // The finalizer follows with the workspace's next pass.
            return Ok(());
        }
        let mut spec = serde_json::to_value(&object.spec).unwrap_or_default();
        spec["deletionPolicy"] = json!("Archive");
        let manifest = json!({
            "apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace",
            "metadata": {"name": object.name_any(), "uid": object.uid(), "resourceVersion": object.resource_version(),
                "labels": object.labels(), "annotations": children::marks(object)},
            "spec": spec,
        });
        let params = PatchParams { force: true, field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        match self.patch(&object.name_any(), &manifest, &params).await {
            Ok(_) | Err(Refused::Stale) => Ok(()),
            Err(Refused::Failed(error)) => Err(error),
            Err(Refused::Item(why)) => Err(Error::new(Kind::Rejected, why)),
        }
    }
}
