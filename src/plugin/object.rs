//! A resource as it is shown: read leniently, so that an older plugin can show what a newer operator wrote.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use super::text::line;
use crate::api::secure_workspace::PlanStatus;

/// Longest text that is shown of a message.
const LONGEST: usize = 2000;

/// Kinds that the plugin knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A tenant.
    Connection,
    /// A workspace.
    SecureWorkspace,
    /// Many workspaces.
    SecureWorkspaceSet,
    /// A route for files.
    FileRoute,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Connection, Self::SecureWorkspace, Self::SecureWorkspaceSet, Self::FileRoute];

    /// As in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "Connection",
            Self::SecureWorkspace => "SecureWorkspace",
            Self::SecureWorkspaceSet => "SecureWorkspaceSet",
            Self::FileRoute => "FileRoute",
        }
    }

    /// As in a path of the API.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Connection => "connections",
            Self::SecureWorkspace => "secureworkspaces",
            Self::SecureWorkspaceSet => "secureworkspacesets",
            Self::FileRoute => "fileroutes",
        }
    }

    /// As kubectl prints it before a name.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::SecureWorkspace => "secureworkspace",
            Self::SecureWorkspaceSet => "secureworkspaceset",
            Self::FileRoute => "fileroute",
        }
    }
}

/// One object as the API server has it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Generation of its spec.
    pub generation: i64,
    /// Its deletion was asked for.
    pub is_deleting: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Its spec.
    pub spec: Value,
    /// Its status.
    pub status: Value,
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// What is observed.
    pub kind: String,
    /// True, False, Unknown.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Since when.
    pub since: Option<Timestamp>,
}

impl Condition {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.status == "True"
    }
}

impl Seen {
    /// Reads an object.
    pub fn of(kind: Kind, object: &DynamicObject) -> Self {
        let part = |name: &str| object.data.get(name).cloned().unwrap_or_default();
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            generation: object.metadata.generation.unwrap_or_default(),
            is_deleting: object.metadata.deletion_timestamp.is_some(),
            created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
            spec: part("spec"),
            status: part("status"),
        }
    }

    /// Kind, namespace and name, for people.
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind.name(), self.namespace, self.name)
    }

    /// A text of the status in one line.
    pub fn status_text(&self, pointer: &str) -> Option<String> {
        self.status.pointer(pointer).and_then(Value::as_str).map(|text| line(text, LONGEST))
    }

    /// A text of the spec in one line.
    pub fn spec_text(&self, pointer: &str) -> Option<String> {
        self.spec.pointer(pointer).and_then(Value::as_str).map(|text| line(text, LONGEST))
    }

    /// All conditions, in their order.
    pub fn conditions(&self) -> Vec<Condition> {
        let list = self.status["conditions"].as_array();
        list.into_iter().flatten().map(condition).collect()
    }

    /// The condition of that type.
    pub fn condition(&self, kind: &str) -> Option<Condition> {
        self.conditions().into_iter().find(|condition| condition.kind == kind)
    }

    /// Whether a condition is there and true.
    pub fn has(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.holds())
    }

    /// Whether the status speaks of the spec as it is now.
    pub fn is_current(&self) -> bool {
        self.status["observedGeneration"].as_i64() == Some(self.generation)
    }

    /// Ready, for this spec.
    pub fn is_ready(&self) -> bool {
        self.is_current() && self.has("Ready")
    }

    /// `spec.suspend`.
    pub fn is_suspended(&self) -> bool {
        self.spec["suspend"] == true
    }

    /// Differences that stand.
    pub fn drift(&self) -> u64 {
        self.status.pointer("/drift/count").and_then(Value::as_u64).unwrap_or_default()
    }

    /// The plan that waits, if any.
    pub fn plan(&self) -> Option<PlanStatus> {
        serde_json::from_value(self.status.get("plan")?.clone()).ok()
    }

    /// The deliveries of a FileRoute that the status lists as given up.
    pub fn dead_letters(&self) -> Option<&Vec<Value>> {
        self.status.get("deadLetters")?.as_array()
    }

    /// Namespace and name of its Connection; its own for a Connection.
    pub fn connection(&self) -> (String, String) {
        if self.kind == Kind::Connection {
            return (self.namespace.clone(), self.name.clone());
        }
        let namespace = self.spec_text("/connectionRef/namespace").unwrap_or_else(|| self.namespace.clone());
        (namespace, self.spec_text("/connectionRef/name").unwrap_or_default())
    }

    /// The condition that says most about what is the matter.
    pub fn focus(&self) -> Option<Condition> {
        let first = |kind: &str| self.condition(kind).filter(Condition::holds);
        first("DeletionBlocked")
            .or_else(|| self.condition("Ready").filter(|ready| !ready.holds()))
            .or_else(|| first("DeadLetters"))
            .or_else(|| first("Backlogged"))
            .or_else(|| self.condition("DocumentsComplete").filter(|documents| !documents.holds()))
            .or_else(|| first("Drifted"))
            .or_else(|| first("Suspended"))
            .or_else(|| self.condition("Ready"))
    }
}

fn condition(value: &Value) -> Condition {
    let text = |name: &str| line(value[name].as_str().unwrap_or_default(), LONGEST);
    Condition {
        kind: text("type"),
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
        since: text("lastTransitionTime").parse().ok(),
    }
}
