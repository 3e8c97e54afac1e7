//! `check`: manifests are validated without a cluster.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::{offline, offline_sets};
use crate::api::connection::Driver;
use crate::api::{GROUP, SecureWorkspace, VERSION, crds};
use crate::controllers::secure_workspace::desired::Desired;
use crate::controllers::secure_workspace::{documents, reminders, unsupported};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// YAML or JSON files with one or more manifests; `-` reads standard input. Other groups' manifests are passed over.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Checks every file; the error counts what is wrong, after each finding was printed.
pub fn run(args: &CheckArgs) -> Result<(), String> {
    let checker = Checker::new()?;
    let mut findings = 0;
    let mut manifests = Vec::new();
    for file in &args.files {
        let text = read(file)?;
        let name = file.display().to_string();
        match documents(&text) {
            Ok(found) => {
                manifests.extend(found.into_iter().filter(is_ours).map(|manifest| (name.clone(), manifest)));
            }
            Err(error) => {
                println!("{name}: {error}");
                findings += 1;
            }
        }
    }
    let checked = manifests.len();
    let drivers = Drivers::of(manifests.iter().map(|(_, manifest)| manifest));
    for (name, manifest) in &manifests {
        let what = format!("{} {}", text_at(manifest, "/kind"), text_at(manifest, "/metadata/name"));
        for finding in checker.findings(manifest).into_iter().chain(drivers.findings(manifest)) {
            println!("{name}: {what}: {finding}");
            findings += 1;
        }
    }
    if findings > 0 {
        return Err(format!("{findings} findings in {checked} manifests"));
    }
    println!("{checked} manifests, no findings");
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let result = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(path).map(|content| text = content)
    };
    result.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text)
}

/// The documents of a YAML stream; a `List` counts as its items.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    Ok(documents
        .into_iter()
        .flat_map(|document| match document.pointer("/items") {
            Some(Value::Array(items)) if text_at(&document, "/kind").ends_with("List") => items.clone(),
            _ => vec![document],
        })
        .collect())
}

fn is_ours(manifest: &Value) -> bool {
    text_at(manifest, "/apiVersion").starts_with(&format!("{GROUP}/"))
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The drivers of the Connections among the manifests, by namespace and name.
pub struct Drivers(HashMap<(String, String), Driver>);

impl Drivers {
    /// Looks at all manifests.
    pub fn of<'a>(manifests: impl Iterator<Item = &'a Value>) -> Self {
        let connections = manifests.filter(|manifest| text_at(manifest, "/kind") == "Connection");
        Self(connections.filter_map(|manifest| Some((named(manifest, "/metadata", ""), driver(manifest)?))).collect())
    }

    /// What of a manifest the driver of its Connection cannot honour, if the Connection is among the manifests.
    pub fn findings(&self, manifest: &Value) -> Vec<String> {
        let own = text_at(manifest, "/metadata/namespace");
        let Some(driver) = self.0.get(&named(manifest, "/spec/connectionRef", own)).copied() else { return Vec::new() };
        match text_at(manifest, "/kind") {
            "SecureWorkspace" => {
                let Ok(workspace) = serde_json::from_value::<SecureWorkspace>(manifest.clone()) else { return Vec::new() };
                let found = unsupported::of_driver(&workspace.spec, driver).into_iter();
                found.map(|one| format!("{}: driver {driver} has no {:?}", one.field, one.feature)).collect()
            }
            "FileRoute" if driver != Driver::Connector => {
                vec![format!(
                    "spec.connectionRef: a route cannot run over driver {driver}: it has no change feed and keeps no records"
                )]
            }
            _ => Vec::new(),
        }
    }
}

fn named(manifest: &Value, pointer: &str, otherwise: &str) -> (String, String) {
    let namespace = text_at(manifest, &format!("{pointer}/namespace"));
    let namespace = if namespace.is_empty() { otherwise } else { namespace };
    (namespace.to_owned(), text_at(manifest, &format!("{pointer}/name")).to_owned())
}

fn driver(connection: &Value) -> Option<Driver> {
    match connection.pointer("/spec/driver") {
        None => Some(Driver::default()),
        Some(driver) => serde_json::from_value(driver.clone()).ok(),
    }
}

/// Validates manifests against the CRDs and against what the operator itself refuses.
pub struct Checker {
    kinds: Vec<Kind>,
    rules: kube_cel::Validator,
}

struct Kind {
    name: String,
    schema: Value,
    structure: jsonschema::Validator,
}

impl Checker {
    /// Compiles the schemas of all kinds.
    pub fn new() -> Result<Self, String> {
        let kinds = crds::all().iter().map(Kind::of).collect::<Result<_, _>>()?;
        Ok(Self { kinds, rules: kube_cel::Validator::new() })
    }

    /// What is wrong with a manifest; empty: nothing.
    pub fn findings(&self, manifest: &Value) -> Vec<String> {
        let version = text_at(manifest, "/apiVersion");
        if version != format!("{GROUP}/{VERSION}") {
            return vec![format!("apiVersion {version} is not served; use {GROUP}/{VERSION}")];
        }
        let kind = text_at(manifest, "/kind");
        let Some(kind) = self.kinds.iter().find(|known| known.name == kind) else {
            return vec![format!("kind {kind} does not exist in {GROUP}/{VERSION}")];
        };
        let mut findings: Vec<String> = kind
            .structure
            .iter_errors(manifest)
            .map(|error| {
                format!("{}: {}", dotted(&error.instance_path().to_string()), crate::error::clean(&error.to_string(), 300))
            })
            .collect();
        findings.extend(unknown_fields(&kind.schema, manifest, ""));
        if findings.is_empty()
            && let Err(errors) = self.rules.validate(&kind.schema, manifest, None)
        {
            findings.extend(errors.iter().map(|error| format!("{}: {}", error.field_path, error.message)));
        }
        if findings.is_empty() {
            findings.extend(refused_by_the_operator(&kind.name, manifest));
            if kind.name == "SecureWorkspaceSet" {
                findings.extend(self.generated_findings(manifest));
            }
        }
        findings
    }

    /// What is wrong with a set, and with what its lists generate.
    fn generated_findings(&self, manifest: &Value) -> Vec<String> {
        let generated = offline_sets::generate(manifest);
        let of_child = |(field, child): (String, Value)| {
            let findings = self.findings(&child).into_iter();
            findings.map(move |finding| format!("{field}: {finding}")).collect::<Vec<_>>()
        };
        generated.findings.into_iter().chain(generated.children.into_iter().flat_map(of_child)).collect()
    }
}

impl Kind {
    fn of(crd: &CustomResourceDefinition) -> Result<Self, String> {
        let version = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
        let props = version.and_then(|schema| schema.open_api_v3_schema.as_ref()).ok_or("a CRD lacks its schema")?;
        let mut schema = serde_json::to_value(props).map_err(|error| error.to_string())?;
        // The defaults of the status are the API server's business.
        if let Some(properties) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
            properties.remove("status");
        }
        let structure =
            jsonschema::options().should_validate_formats(true).build(&schema).map_err(|error| error.to_string())?;
        Ok(Self { name: crd.spec.names.kind.clone(), schema, structure })
    }
}

fn dotted(pointer: &str) -> String {
    let path = pointer.trim_start_matches('/').replace('/', ".");
    if path.is_empty() { "the manifest".into() } else { path }
}

/// Fields that the API server would drop (or refuse with strict validation).
fn unknown_fields(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    match value {
        _ if schema["x-kubernetes-preserve-unknown-fields"] == true => Vec::new(),
        Value::Object(map) => map
            .iter()
            .filter(|(name, _)| !(path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status")))
            .flat_map(|(name, inner)| {
                let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match schema.pointer(&format!("/properties/{name}")).or_else(|| schema.get("additionalProperties")) {
                    Some(inner_schema) => unknown_fields(inner_schema, inner, &here),
                    None => vec![format!("{here}: unknown field")],
                }
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(at, item)| {
                unknown_fields(schema.get("items").unwrap_or(&Value::Null), item, &format!("{path}[{at}]"))
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn refused_by_the_operator(kind: &str, manifest: &Value) -> Vec<String> {
    match kind {
        "SecureWorkspace" => workspace(manifest).err().into_iter().collect(),
        "FileRoute" => offline::refused(manifest),
        _ => Vec::new(),
    }
}

fn workspace(manifest: &Value) -> Result<(), String> {
    let workspace: SecureWorkspace = serde_json::from_value(manifest.clone()).map_err(|error| error.to_string())?;
    let looked_at = Desired::of(&workspace.spec, Timestamp::now())
        .and_then(|_| documents::rules(&workspace.spec, None))
        .and_then(|_| reminders::check(workspace.spec.reminders.as_ref(), None, None));
    looked_at.map_err(|error| error.to_string())?;
    offline::reports(manifest, workspace.spec.report.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_with_required_documents_is_found_without_a_cluster() {
        let findings = |document: &str, reminders: &str| {
            let text = format!(
                "{{connectionRef: {{name: f}}, displayName: A, requiredDocuments: [{document}], reminders: {{to: [{reminders}]}}}}"
            );
            let spec: Value = serde_saphyr::from_str(&text).unwrap();
            refused_by_the_operator(
                "SecureWorkspace",
                &json!({"apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace", "metadata": {"name": "w"}, "spec": spec}),
            )
        };
        assert_eq!(findings("{name: iso, match: {path: /a}}", "a@b.example"), Vec::<String>::new());
        let broken = findings("{name: iso, match: {path: /a, when: 'file.'}}", "a@b.example");
        assert!(broken[0].contains("spec.requiredDocuments[0].match.when: line 1"), "{broken:?}");
        let nobody = findings("{name: iso, match: {path: /a}}", "\"a b@c\"");
        assert!(nobody[0].contains("is no e-mail address"), "{nobody:?}");
    }

    #[test]
    fn what_the_driver_of_a_connection_cannot_do_is_found_without_a_cluster() {
        let connection = |name: &str, spec: Value| json!({"apiVersion": "file360.io/v1alpha1", "kind": "Connection", "metadata": {"name": name, "namespace": "shared"}, "spec": spec});
        let using = |kind: &str, connection: &str, more: Value| {
            let mut spec = json!({"connectionRef": {"name": connection, "namespace": "shared"}, "displayName": "Acme"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"apiVersion": "file360.io/v1alpha1", "kind": kind, "metadata": {"name": "w", "namespace": "legal"}, "spec": spec})
        };
        let all = [connection("dav", json!({"driver": "WebDAV"})), connection("full", json!({}))];
        let drivers = Drivers::of(all.iter());
        let asking = json!({"access": {"mode": "Exclusive"}, "folders": [{"path": "/A"}]});
        let found = drivers.findings(&using("SecureWorkspace", "dav", asking.clone()));
        assert_eq!(found, ["spec.access.mode: driver WebDAV has no Members"]);
        assert_eq!(drivers.findings(&using("FileRoute", "dav", json!({}))).len(), 1);
        for quiet in [
            using("SecureWorkspace", "dav", json!({"folders": [{"path": "/A"}]})),
            using("SecureWorkspace", "full", asking.clone()),
            using("SecureWorkspace", "elsewhere", asking),
            using("FileRoute", "full", json!({})),
        ] {
            assert_eq!(drivers.findings(&quiet), Vec::<String>::new());
        }
    }
}
