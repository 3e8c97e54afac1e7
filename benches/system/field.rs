//! One empty tenant with a namespace that is connected to it, and the workspaces that are declared there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use file360_operator::api::SecureWorkspace;
use futures::StreamExt;
use http::Request;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::stage::{self, Stage};
use crate::tenant::{CLIENT_ID, CLIENT_SECRET, Tenant};

/// Folders of each workspace.
pub const FOLDERS: [&str; 6] =
    ["/Contracts", "/Contracts/Signed", "/Invoices", "/Certificates", "/Correspondence", "/Inbox"];
/// Members of each workspace: kind, name, role.
pub const MEMBERS: [(&str, &str, &str); 5] = [
    ("Group", "group0", "Manager"),
    ("Group", "group1", "Editor"),
    ("Group", "group2", "Viewer"),
    ("User", "user0", "Editor"),
    ("User", "user1", "Viewer"),
];
/// Objects that are created at once.
const CREATORS: usize = 32;

/// See the module.
pub struct Field {
    /// The namespace.
    pub namespace: String,
    /// The tenant.
    pub tenant: Arc<Tenant>,
    admin: Client,
}

/// What is known of an object that was created.
#[derive(Clone, Deserialize)]
pub struct Created {
    /// Name and uid.
    pub metadata: Identity,
}

/// Name and uid of an object.
#[derive(Clone, Deserialize)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// An object without what the wait for `Ready` does not need.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = SecureWorkspace)]
struct Slim {
    metadata: ObjectMeta,
    #[serde(default)]
    status: Option<SlimStatus>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimStatus {
    observed_generation: Option<i64>,
    workspace_id: Option<String>,
    #[serde(default)]
    conditions: Vec<SlimCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Slim {
    fn is_ready(&self) -> bool {
        self.status.as_ref().is_some_and(|status| {
            status.observed_generation == self.metadata.generation
                && status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
        })
    }
}

impl Field {
    /// A namespace and a tenant, not connected yet.
    pub async fn new(stage: &Stage, namespace: &str) -> Self {
        stage::namespace(&stage.admin, namespace).await;
        let tenant = Arc::new(Tenant::start(&stage.program, stage.folder.path()).await);
        Self { namespace: namespace.to_owned(), tenant, admin: stage.admin.clone() }
    }

    /// Applies the credential and the Connection.
    pub async fn connect(&self) {
        let metadata = |name: &str| json!({"name": name, "namespace": self.namespace});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("credential"), "stringData":
            {"endpoint": self.tenant.url, "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}});
        let reference = |key: &str| json!({"name": "credential", "key": key});
        let spec = json!({"endpoint": self.tenant.url, "allowInsecure": true,
            "auth": {"oauth2": {"clientIdRef": reference("clientId"), "clientSecretRef": reference("clientSecret")}}});
        let connection = json!({"apiVersion": "file360.io/v1alpha1", "kind": "Connection",
            "metadata": metadata("file360"), "spec": spec});
        stage::apply(&self.admin, &secret).await;
        stage::apply(&self.admin, &connection).await;
    }

    /// Creates `count` workspaces, 32 at once; returns them and how long it took.
    pub async fn create(&self, count: usize) -> (Vec<Created>, Duration) {
        let started = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..CREATORS {
            let (next, admin, namespace) = (next.clone(), self.admin.clone(), self.namespace.clone());
            tasks.spawn(async move {
                let mut made = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return made;
                    }
                    made.push(post(&admin, &namespace, number).await);
                }
            });
        }
        let made = tasks.join_all().await.into_iter().flatten().collect();
        (made, started.elapsed())
    }

    /// Waits until `count` workspaces are ready; returns their ids in File 360.
    pub async fn all_ready(&self, count: usize) -> Vec<String> {
        let api: Api<Slim> = Api::namespaced(self.admin.clone(), &self.namespace);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        let mut ready = std::collections::HashMap::with_capacity(count);
        while ready.len() < count {
            let event = events.next().await.expect("a watch does not end");
            let (Event::Apply(object) | Event::InitApply(object)) = event.expect("the watch works") else { continue };
            if object.is_ready() {
                let id = object.status.and_then(|status| status.workspace_id).expect("a ready workspace has an id");
                ready.insert(object.metadata.name, id);
            }
        }
        ready.into_values().collect()
    }

    /// The status of one workspace as the operator wrote it.
    pub async fn status(&self, name: &str) -> Value {
        let request = Request::get(path(&self.namespace, name)).body(Vec::new()).expect("a request");
        self.admin.request::<Value>(request).await.expect("the object")["status"].clone()
    }

    /// Deletes what is declared here, so that the next measurement does not meet it.
    pub async fn end(self) {
        let workspaces: Api<Slim> = Api::namespaced(self.admin.clone(), &self.namespace);
        let connections: Api<file360_operator::api::Connection> = Api::namespaced(self.admin.clone(), &self.namespace);
        let everything = ListParams::default();
        workspaces.delete_collection(&DeleteParams::default(), &everything).await.expect("deletion");
        connections.delete_collection(&DeleteParams::default(), &everything).await.expect("deletion");
    }
}

async fn post(admin: &Client, namespace: &str, number: usize) -> Created {
    let request = Request::post(path(namespace, ""))
        .header("content-type", "application/json")
        .body(manifest(number).to_string().into_bytes())
        .expect("a request");
    admin.request(request).await.expect("the workspace is accepted")
}

/// Path of an object, or of all.
pub fn path(namespace: &str, name: &str) -> String {
    let all = format!("/apis/file360.io/v1alpha1/namespaces/{namespace}/secureworkspaces");
    if name.is_empty() { all } else { format!("{all}/{name}") }
}

/// Name of a workspace's object.
pub fn name(number: usize) -> String {
    format!("vendor-{number:06}")
}

/// Metadata of a workspace.
pub fn metadata(number: usize) -> Value {
    json!({"vendor": format!("{number}"), "region": "EU", "project": "framework agreement"})
}

/// The sharing rule of every workspace.
pub fn sharing() -> Value {
    json!({"external": "AllowListed", "allowedDomains": ["acme.example"], "links": {"maxDays": 30}})
}

fn manifest(number: usize) -> Value {
    let folders: Vec<Value> = FOLDERS.iter().map(|path| json!({"path": path})).collect();
    let members = MEMBERS.iter().map(|(kind, name, role)| json!({"kind": kind, "name": name, "role": role}));
    json!({
        "apiVersion": "file360.io/v1alpha1",
        "kind": "SecureWorkspace",
        "metadata": {"name": name(number)},
        "spec": {
            "connectionRef": {"name": "file360"},
            "displayName": format!("Vendor {number}"),
            "metadata": metadata(number),
            "folders": folders,
            "access": {"members": members.collect::<Vec<_>>()},
            "sharing": sharing(),
        },
    })
}
