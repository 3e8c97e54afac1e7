//! Adding and removing the finalizer, bound to the version that was seen.

use kube::api::{Api, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::FINALIZER;
use crate::error::{Error, Kind, Result};
use crate::reconcile::publish::MANAGER;

/// Adds the finalizer. Returns the object as it is now.
pub async fn add<K>(client: &Client, object: &K) -> Result<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(object.clone());
    }
    finalizers.push(FINALIZER.to_owned());
    write(client, object, &finalizers).await
}

/// Removes the finalizer; an object that is gone is a success.
pub async fn remove<K>(client: &Client, object: &K) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let finalizers: Vec<String> = object.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    match write(client, object, &finalizers).await {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        result => result.map(|_| ()),
    }
}

async fn write<K>(client: &Client, object: &K, finalizers: &[String]) -> Result<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    // The resourceVersion makes the write fail when somebody else changed the list in between.
    let patch = json!({"metadata": {
        "uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": finalizers,
    }});
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    api.patch(&object.name_any(), &params, &Patch::Merge(&patch))
        .await
        .map_err(|error| Error::from(error).while_doing("write the finalizer"))
}
