//! `check`: manifests are validated without a cluster.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::offline;
use crate::api::{GROUP, SecureWorkspace, VERSION, crds};
use crate::controllers::secure_workspace::desired::Desired;

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
    let mut checked = 0;
    let mut findings = 0;
    for file in &args.files {
        let text = read(file)?;
        let name = file.display();
        let manifests = match documents(&text) {
            Ok(manifests) => manifests,
            Err(error) => {
                println!("{name}: {error}");
                findings += 1;
                continue;
            }
        };
        for manifest in manifests.iter().filter(|manifest| is_ours(manifest)) {
            checked += 1;
            let what = format!("{} {}", text_at(manifest, "/kind"), text_at(manifest, "/metadata/name"));
            for finding in checker.findings(manifest) {
                println!("{name}: {what}: {finding}");
                findings += 1;
            }
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
        }
        findings
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
    Desired::of(&workspace.spec, Timestamp::now()).map(|_| ()).map_err(|error| error.to_string())
}
