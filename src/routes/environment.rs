//! What a route's expressions see.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube_cel::cel::Value;
use serde_json::{Value as Json, json};

use super::delivery::{File, Origin};
use crate::api::file_route::FileEvent;
use crate::documents::record::Recorded;
use crate::expression::{Expression, Variables, from_json, map, string, text_map, timestamp};

/// The variables that a route's expressions may use.
pub const NAMES: &[&str] = &["file", "uploader", "uploadRequest", "folder", "workspace", "event", "requirement", "now"];
/// The same with the answer of a destination, for `writeBack`.
pub const NAMES_WITH_RESPONSE: &[&str] =
    &["file", "uploader", "uploadRequest", "folder", "workspace", "event", "requirement", "now", "response"];

/// What somebody who uploads decides: the file with its name, metadata and content, who they say they are, which upload request they chose.
/// What File 360 finds out by itself, such as `uploader.emailVerified`, is not among it.
const ENTERED: &[&[&str]] =
    &[&["file"], &["uploader", "id"], &["uploader", "email"], &["uploadRequest"], &["event"], &["requirement"]];

/// Whether the result depends on what the one who uploaded the file entered (R9).
pub fn depends_on_uploader(expression: &Expression) -> bool {
    ENTERED.iter().any(|path| expression.reads(path))
}

/// Who brought a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uploader {
    /// `User`, `Guest`, `Client`; `System` for objects of a store.
    pub kind: String,
    /// Id in File 360; empty for outsiders without an account.
    pub id: String,
    /// Mail address of outsiders; the name of others.
    pub email: String,
    /// The address was proven by a mailed code, or the person signed in.
    pub email_verified: bool,
}

/// The workspace around a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Name of the SecureWorkspace, else of the workspace.
    pub name: String,
    /// Labels of the SecureWorkspace.
    pub labels: BTreeMap<String, String>,
    /// Metadata of the workspace.
    pub metadata: BTreeMap<String, String>,
    /// System and key of the business key.
    pub external_ref: Option<(String, String)>,
    /// Classification label.
    pub classification: Option<String>,
}

/// Everything that expressions see of one file.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The file.
    pub file: Arc<File>,
    /// Who brought it.
    pub uploader: Uploader,
    /// Name of the upload request it came through.
    pub upload_request: Option<String>,
    /// Metadata of its folder.
    pub folder: Arc<BTreeMap<String, String>>,
    /// Its workspace.
    pub workspace: Arc<Surroundings>,
    /// What happened.
    pub event: FileEvent,
    /// Who did it.
    pub actor: String,
    /// The required document that the file is for, where the event is about that.
    pub requirement: Option<Recorded>,
}

impl Facts {
    /// The variables, at the time `now`.
    pub fn variables(&self, now: Timestamp) -> Variables {
        let uploader = map([
            ("kind", string(&self.uploader.kind)),
            ("id", string(&self.uploader.id)),
            ("email", string(&self.uploader.email)),
            ("emailVerified", Value::Bool(self.uploader.email_verified)),
        ]);
        let event = map([("type", string(&format!("{:?}", self.event))), ("actor", string(&self.actor))]);
        Variables::default()
            .with("file", file_value(&self.file))
            .with("uploader", uploader)
            .with("uploadRequest", self.upload_request.as_deref().map_or(Value::Null, |name| map([("name", string(name))])))
            .with("folder", map([("metadata", text_map(&self.folder))]))
            .with("workspace", workspace_value(&self.workspace))
            .with("event", event)
            .with("requirement", self.requirement.as_ref().map_or(Value::Null, requirement_value))
            .with("now", timestamp(now))
    }

    /// Whether an outsider without a proven address entered it, or somebody whom the server does not name.
    pub fn is_untrusted(&self) -> bool {
        !self.uploader.email_verified && matches!(self.uploader.kind.as_str(), "Guest" | "")
    }
}

fn requirement_value(requirement: &Recorded) -> Value {
    let valid_until = requirement.valid_until.map_or(Value::Null, timestamp);
    map([
        ("name", string(&requirement.name)),
        ("state", string(&format!("{:?}", requirement.state))),
        ("message", string(requirement.message.as_deref().unwrap_or_default())),
        ("decidedBy", string(requirement.decided_by.as_deref().unwrap_or_default())),
        ("validUntil", valid_until),
    ])
}

fn file_value(file: &File) -> Value {
    let id = match &file.origin {
        Origin::Item { item, .. } => item,
        Origin::Object { key, .. } => key,
    };
    let version = match &file.origin {
        Origin::Item { version, .. } => Value::Int(i64::try_from(*version).unwrap_or(i64::MAX)),
        Origin::Object { etag, .. } => string(etag),
    };
    map([
        ("id", string(id)),
        ("name", string(&file.name)),
        ("path", string(&file.path)),
        ("size", Value::Int(i64::try_from(file.size).unwrap_or(i64::MAX))),
        ("mimeType", string(&file.mime_type)),
        ("sha256", string(file.sha256.as_deref().unwrap_or_default())),
        ("version", version),
        ("createdAt", timestamp(file.created_at)),
        ("modifiedAt", timestamp(file.modified_at)),
        ("classification", string(file.classification.as_deref().unwrap_or_default())),
        ("metadata", text_map(&file.metadata)),
    ])
}

/// The workspace, as expressions see it.
pub fn workspace_value(workspace: &Surroundings) -> Value {
    let mut members = vec![
        ("name", string(&workspace.name)),
        ("labels", text_map(&workspace.labels)),
        ("metadata", text_map(&workspace.metadata)),
        ("classification", string(workspace.classification.as_deref().unwrap_or_default())),
    ];
    if let Some((system, key)) = &workspace.external_ref {
        members.push(("externalRef", map([("system", string(system)), ("key", string(key))])));
    }
    map(members)
}

/// The variables of a test inside a resource: what it gives, over an example of everything else.
pub fn example(given: &Json, now: Timestamp) -> Variables {
    let mut whole = json!({
        "file": {
            "id": "example", "name": "example.pdf", "path": "/example.pdf", "size": 1024, "mimeType": "application/pdf",
            "sha256": "0".repeat(64), "version": 1, "classification": "", "metadata": {}
        },
        "uploader": {"kind": "User", "id": "example", "email": "someone@example.com", "emailVerified": true},
        "uploadRequest": null,
        "folder": {"metadata": {}},
        "workspace": {"name": "example", "labels": {}, "metadata": {}, "classification": ""},
        "event": {"type": "Uploaded", "actor": "someone"},
        "requirement": null
    });
    merge(&mut whole, given);
    let mut variables = Variables::default().with("now", timestamp(now));
    for (name, value) in whole.as_object().into_iter().flatten() {
        if name == "file" {
            variables.set(name, with_times(value, now));
        } else if NAMES.contains(&name.as_str()) {
            variables.set(name, from_json(value));
        }
    }
    variables
}

/// Times come as text in a manifest and as times in expressions.
fn with_times(file: &Json, now: Timestamp) -> Value {
    let members = file.as_object().into_iter().flatten().filter(|(name, _)| !name.ends_with("At"));
    let mut values: Vec<(&str, Value)> = members.map(|(name, value)| (name.as_str(), from_json(value))).collect();
    for name in ["createdAt", "modifiedAt"] {
        let given = file.get(name).and_then(Json::as_str).and_then(|text| text.parse().ok());
        values.push((name, timestamp(given.unwrap_or(now))));
    }
    map(values)
}

fn merge(base: &mut Json, over: &Json) {
    match (base, over) {
        (Json::Object(base), Json::Object(over)) => {
            for (name, value) in over {
                merge(base.entry(name.clone()).or_insert(Json::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9_what_an_uploader_enters_is_told_from_what_file_360_finds_out() {
        let depends = |text: &str| depends_on_uploader(&Expression::compile(text, NAMES).unwrap());
        for text in [
            "file.metadata.email",
            "'x' + file.name",
            "uploader.email",
            "uploader['email']",
            "[uploader].map(u, u.email)[0]",
            "has(uploadRequest.name)",
            "event.actor",
            "requirement.message",
            "[workspace.metadata.mail].map(m, m + file.sha256)",
        ] {
            assert!(depends(text), "{text}");
        }
        for text in [
            "[workspace.metadata.billingEmail]",
            "uploader.emailVerified && uploader.kind == 'Guest'",
            "folder.metadata.customer",
            "workspace.labels.team + string(now)",
        ] {
            assert!(!depends(text), "{text}");
        }
    }
}
