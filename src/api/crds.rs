//! The CustomResourceDefinitions, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::{
    Approval, ApprovalSpec, ApprovalStatus, Connection, ConnectionSpec, ConnectionStatus, FileRoute, FileRouteSpec,
    FileRouteStatus, SecureWorkspace, SecureWorkspaceSet, SecureWorkspaceSetSpec, SecureWorkspaceSetStatus,
    SecureWorkspaceSpec, SecureWorkspaceStatus,
};

/// All CRDs, in the order in which they are listed in the docs.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        finished::<ConnectionSpec, ConnectionStatus>(Connection::crd()),
        finished::<SecureWorkspaceSpec, SecureWorkspaceStatus>(SecureWorkspace::crd()),
        finished::<SecureWorkspaceSetSpec, SecureWorkspaceSetStatus>(SecureWorkspaceSet::crd()),
        finished::<FileRouteSpec, FileRouteStatus>(FileRoute::crd()),
        finished::<ApprovalSpec, ApprovalStatus>(Approval::crd()),
    ]
}

/// Adds what the derive cannot say: the guard that makes kstatus wait for the first pass, and the docs of fields whose type has
/// docs of its own.
fn finished<Spec: JsonSchema, Status: JsonSchema>(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let kind = crd.spec.names.kind.clone();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else { continue };
        let Some(properties) = root.properties.as_mut() else { continue };
        if let Some(spec) = properties.get_mut("spec") {
            document(spec, raw::<Spec>().as_value());
            spec.description = Some(format!("What the {kind} should be."));
        }
        if let Some(status) = properties.get_mut("status") {
            document(status, raw::<Status>().as_value());
            status.description = Some(match kind.as_str() {
                "Approval" => {
                    "What people and systems said, and what the operator decided. People write their own vote only.".into()
                }
                _ => format!("What the operator found and did. Written by the operator only ({kind})."),
            });
            status.nullable = None;
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
        bound_integers(root);
    }
    crd
}

fn raw<T: JsonSchema>() -> Schema {
    SchemaSettings::openapi3()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>()
}

/// Gives every property the docs of its field. Where the field's type is an enum, the derive keeps the docs of the type instead.
fn document(schema: &mut JSONSchemaProps, raw: &Value) {
    // An optional field is `anyOf` its type and null.
    let options = raw.get("anyOf").and_then(Value::as_array);
    let inner = options.and_then(|options| options.first()).unwrap_or(raw);
    for (name, property) in schema.properties.iter_mut().flatten() {
        let Some(raw_property) = inner.pointer(&format!("/properties/{name}")) else { continue };
        if let Some(text) = raw_property.get("description").and_then(Value::as_str) {
            property.description = Some(text.to_owned());
        }
        document(property, raw_property);
    }
    if let (Some(JSONSchemaPropsOrArray::Schema(items)), Some(raw_items)) = (schema.items.as_mut(), inner.get("items")) {
        document(items, raw_items);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(schema: &JSONSchemaProps, path: &str, check: &mut impl FnMut(&str, &JSONSchemaProps)) {
        check(path, schema);
        for (name, property) in schema.properties.iter().flatten() {
            walk(property, &format!("{path}.{name}"), check);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items.as_ref() {
            walk(items, &format!("{path}[]"), check);
        }
    }

    fn every_schema(mut check: impl FnMut(&str, &JSONSchemaProps)) {
        for crd in all() {
            let root = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
            for part in ["spec", "status"] {
                walk(&root.properties.as_ref().unwrap()[part], &format!("{}.{part}", crd.spec.names.kind), &mut check);
            }
        }
    }

    #[test]
    fn every_field_is_described_and_bounded() {
        every_schema(|path, schema| {
            if !path.ends_with("[]") {
                assert!(schema.description.as_ref().is_some_and(|text| !text.is_empty()), "{path} has no description");
            }
            match schema.type_.as_deref() {
                Some("string") => {
                    assert!(schema.max_length.is_some() || schema.enum_.is_some(), "{path} is an unbounded string");
                }
                Some("array") => {
                    assert!(schema.max_items.is_some(), "{path} is an unbounded list");
                    assert!(schema.x_kubernetes_list_type.is_some(), "{path} has no list type");
                }
                Some("object") => {
                    assert!(schema.properties.is_some() || schema.max_properties.is_some(), "{path} is an unbounded map");
                }
                _ => {}
            }
        });
    }

    #[test]
    fn an_enum_field_has_its_own_docs() {
        let mut found = false;
        every_schema(|path, schema| {
            if path == "SecureWorkspace.spec.mode" {
                found = true;
                assert!(schema.description.as_ref().unwrap().contains("Default: Apply"));
            }
        });
        assert!(found);
    }

    #[test]
    fn nothing_nested_has_a_default_and_no_key_is_a_yaml_boolean() {
        every_schema(|path, schema| {
            assert!(schema.default.is_none() || path.ends_with(".status"), "{path} has a default");
            let name = path.rsplit('.').next().unwrap();
            assert!(!["on", "off", "yes", "no", "y", "n"].contains(&name), "{path}");
        });
    }

    #[test]
    fn crds_stay_small_and_selectable() {
        for crd in all() {
            let text = serde_json::to_string(&crd).unwrap();
            assert!(text.len() < 100_000, "{} has {} bytes", crd.spec.names.kind, text.len());
            assert!(!crd.spec.versions[0].selectable_fields.as_ref().unwrap().is_empty());
            assert_eq!(crd.spec.names.categories.as_deref(), Some(["file360".to_owned()].as_slice()));
            assert!(crd.spec.versions[0].additional_printer_columns.as_ref().unwrap().len() >= 5);
        }
    }
}
