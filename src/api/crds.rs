//! The CustomResourceDefinitions, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::{Connection, SecureWorkspace};

/// All CRDs, in the order in which they are listed in the docs.
pub fn all() -> Vec<CustomResourceDefinition> {
    [Connection::crd(), SecureWorkspace::crd()].into_iter().map(finished).collect()
}

/// Adds what the derive cannot say: the guard that makes kstatus wait for the first pass, and the field docs of the root.
fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let kind = crd.spec.names.kind.clone();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else { continue };
        let Some(properties) = root.properties.as_mut() else { continue };
        if let Some(spec) = properties.get_mut("spec") {
            spec.description = Some(format!("What the {kind} should be."));
        }
        if let Some(status) = properties.get_mut("status") {
            status.description = Some(format!("What the operator found and did. Written by the operator only ({kind})."));
            status.nullable = None;
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
        bound_integers(root);
    }
    crd
}

/// `format: uint32` is no format of Kubernetes; the bounds say the same.
fn bound_integers(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = Some("int64".into());
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        bound_integers(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items.as_mut() {
        bound_integers(items);
    }
}
