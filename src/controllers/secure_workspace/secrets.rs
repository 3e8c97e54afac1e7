//! The Secrets that carry the addresses of upload requests.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::pass::Pass;
use crate::error::{Error, Kind, Result};
use crate::file360::model::UploadRequest;
use crate::reconcile::publish::MANAGER;

/// Key of the address in the Secret.
const URL_KEY: &str = "url";

/// Writes the declared Secrets and removes those that are no longer declared. Returns the names of those that exist.
pub async fn write(pass: &Pass<'_>) -> Result<Vec<String>> {
    let mut wanted: BTreeMap<&str, &UploadRequest> = BTreeMap::new();
    for request in pass.object.spec.upload_requests.iter().flatten() {
        let observed = pass.report.observed.requests.iter().find(|observed| observed.name == request.name);
        if let (Some(target), Some(observed)) = (&request.write_url_to, observed) {
            wanted.insert(&target.secret_name, observed);
        }
    }
    let last = pass.object.status.iter().flat_map(|status| &status.secrets);
    let gone: BTreeSet<&String> = last.filter(|name| !wanted.contains_key(name.as_str())).collect();
    if wanted.is_empty() && gone.is_empty() {
        return Ok(Vec::new());
    }
    let api: Api<Secret> = Api::namespaced(pass.ctx.client.clone(), &pass.key.namespace);
    for name in gone {
        remove(pass, &api, name).await?;
    }
    for (name, request) in &wanted {
        let url = request.url.as_deref().ok_or_else(|| {
            Error::new(
                Kind::Denied,
                "File 360 does not tell the address of the upload request; the credential needs the scope share",
            )
        })?;
        put(pass, &api, name, url).await.map_err(|error| error.while_doing(format!("write Secret {name}")))?;
    }
    Ok(wanted.into_keys().map(str::to_owned).collect())
}

async fn put(pass: &Pass<'_>, api: &Api<Secret>, name: &str, url: &str) -> Result<()> {
    let Some(existing) = api.get_opt(name).await? else {
        api.create(&PostParams::default(), &new(pass, name, url)).await?;
        return Ok(());
    };
    if !is_ours(pass, &existing) {
        let mut error = Error::new(
            Kind::Reference,
            format!("Secret {name} exists and is not this resource's; choose another writeUrlTo.secretName or delete it"),
        );
        error.code = "secret-not-owned".into();
        return Err(error);
    }
    let has = existing.data.as_ref().and_then(|data| data.get(URL_KEY));
    if has.is_some_and(|value| value.0 == url.as_bytes()) {
        return Ok(());
    }
    let patch = json!({"metadata": {"resourceVersion": existing.resource_version()}, "stringData": {URL_KEY: url}});
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    api.patch(name, &params, &Patch::Merge(&patch)).await?;
    Ok(())
}

fn new(pass: &Pass<'_>, name: &str, url: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(pass.key.namespace.to_string()),
            owner_references: pass.object.controller_owner_ref(&()).map(|reference| vec![reference]),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        data: Some([(URL_KEY.to_owned(), ByteString(url.as_bytes().to_vec()))].into()),
        ..Secret::default()
    }
}

fn is_ours(pass: &Pass<'_>, secret: &Secret) -> bool {
    secret.owner_references().iter().any(|reference| reference.uid == pass.cause.0 && reference.controller == Some(true))
}

async fn remove(pass: &Pass<'_>, api: &Api<Secret>, name: &str) -> Result<()> {
    let Some(existing) = api.get_opt(name).await? else { return Ok(()) };
    if !is_ours(pass, &existing) {
        return Ok(());
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: existing.uid(), resource_version: existing.resource_version() }),
        ..DeleteParams::default()
    };
    match api.delete(name, &params).await.map_err(Error::from) {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        result => result.map(|_| ()),
    }
}
