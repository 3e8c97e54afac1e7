//! One empty tenant with a namespace that is connected to it, and the workspaces that are declared there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use file360_operator::api::SecureWorkspace;
use futures::{Stream, StreamExt};
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
/// Objects that are created or changed at once.
const AT_ONCE: usize = 32;

/// See the module.
#[derive(Clone)]
pub struct Field {
    /// The namespace.
    pub namespace: String,
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// Namespace of the Connection.
    home: String,
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
pub struct Slim {
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
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its workspace, as its status says.
    pub fn workspace_id(&self) -> Option<&str> {
        self.status.as_ref()?.workspace_id.as_deref()
    }

    /// The generation that it is ready for, if it is.
    pub fn ready_for(&self) -> Option<i64> {
        self.status.as_ref().filter(|_| self.says("Ready", "True"))?.observed_generation
    }

    fn says(&self, kind: &str, is: &str) -> bool {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.kind == kind && condition.status == is)
    }

    fn is_ready(&self) -> bool {
        self.ready_for().is_some() && self.ready_for() == self.metadata.generation
    }
}

impl Field {
    /// A namespace and a tenant, not connected yet.
    pub async fn new(stage: &Stage, namespace: &str) -> Self {
        stage::namespace(&stage.admin, namespace).await;
        let tenant = Arc::new(Tenant::start(&stage.program, stage.folder.path()).await);
        Self { namespace: namespace.to_owned(), tenant, home: namespace.to_owned(), admin: stage.admin.clone() }
    }

    /// Another namespace whose workspaces are in the same tenant and use the same Connection.
    pub async fn neighbour(&self, namespace: &str) -> Self {
        stage::namespace(&self.admin, namespace).await;
        let (tenant, home, admin) = (self.tenant.clone(), self.home.clone(), self.admin.clone());
        Self { namespace: namespace.to_owned(), tenant, home, admin }
    }

    /// Applies the credential and the Connection.
    pub async fn connect(&self) {
        let metadata = |name: &str| json!({"name": name, "namespace": self.namespace});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("credential"), "stringData":
            {"endpoint": self.tenant.url, "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}});
        let reference = |key: &str| json!({"name": "credential", "key": key});
        // Whoever measures only one namespace has no other that could use it.
        let spec = json!({"endpoint": self.tenant.url, "allowInsecure": true, "grants": [{"namespaces": {"from": "All"}}],
            "auth": {"oauth2": {"clientIdRef": reference("clientId"), "clientSecretRef": reference("clientSecret")}}});
        let connection = json!({"apiVersion": "file360.io/v1alpha1", "kind": "Connection",
            "metadata": metadata("file360"), "spec": spec});
        stage::apply(&self.admin, &secret).await;
        stage::apply(&self.admin, &connection).await;
    }

    /// Creates `count` workspaces, 32 at once; returns them and how long it took.
    pub async fn create(&self, count: usize) -> (Vec<Created>, Duration) {
        let started = Instant::now();
        let home = (self.home != self.namespace).then(|| self.home.clone());
        let (admin, namespace) = (self.admin.clone(), self.namespace.clone());
        let made = in_parallel(count, move |number| {
            let (admin, namespace, home) = (admin.clone(), namespace.clone(), home.clone());
            async move { post(&admin, &namespace, &manifest(number, home.as_deref())).await }
        });
        (made.await, started.elapsed())
    }

    /// Changes the specs of all `count` workspaces, 32 at once.
    pub async fn change_all(&self, count: usize) {
        let (admin, namespace) = (self.admin.clone(), self.namespace.clone());
        let changed = in_parallel(count, move |number| {
            let (admin, namespace) = (admin.clone(), namespace.clone());
            async move { change(&admin, &namespace, number, 1).await }
        });
        changed.await;
    }

    /// Changes the spec of one workspace; the generation that comes of it.
    pub async fn change(&self, number: usize, round: usize) -> i64 {
        change(&self.admin, &self.namespace, number, round).await
    }

    /// A workspace that names a Connection which does not exist: nobody works on it.
    pub async fn bystander(&self, name: &str) {
        let mut manifest = manifest(0, None);
        manifest["metadata"]["name"] = json!(name);
        manifest["spec"]["connectionRef"]["name"] = json!("nowhere");
        post(&self.admin, &self.namespace, &manifest).await;
    }

    /// Every version of every workspace here, from now on.
    pub fn versions(&self) -> impl Stream<Item = Slim> + use<> {
        let api: Api<Slim> = Api::namespaced(self.admin.clone(), &self.namespace);
        watcher(api, watcher::Config::default()).filter_map(|event| {
            std::future::ready(match event.expect("the watch works") {
                Event::Apply(object) | Event::InitApply(object) => Some(object),
                _ => None,
            })
        })
    }

    /// Waits until `count` workspaces are ready; returns their ids in File 360.
    pub async fn all_ready(&self, count: usize) -> Vec<String> {
        let mut versions = std::pin::pin!(self.versions());
        let mut ready = HashMap::with_capacity(count);
        while ready.len() < count {
            let object = versions.next().await.expect("a watch does not end");
            if object.is_ready() {
                let id = object.status.and_then(|status| status.workspace_id).expect("a ready workspace has an id");
                ready.insert(object.metadata.name, id);
            }
        }
        ready.into_values().collect()
    }

    /// Waits until `count` workspaces say that nobody knows whether they are ready.
    pub async fn all_unknown(&self, count: usize) {
        let mut versions = std::pin::pin!(self.versions());
        let mut unknown = HashSet::with_capacity(count);
        while unknown.len() < count {
            let object = versions.next().await.expect("a watch does not end");
            if object.says("Ready", "Unknown") {
                unknown.insert(object.metadata.name);
            }
        }
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

/// Runs `work` for each number below `count`, 32 at once.
async fn in_parallel<T, F>(count: usize, work: impl Fn(usize) -> F + Clone + Send + 'static) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (next, work) = (next.clone(), work.clone());
        tasks.spawn(async move {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return done;
                }
                done.push(work(number).await);
            }
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn post(admin: &Client, namespace: &str, manifest: &Value) -> Created {
    let request = Request::post(path(namespace, ""))
        .header("content-type", "application/json")
        .body(manifest.to_string().into_bytes())
        .expect("a request");
    admin.request(request).await.expect("the workspace is accepted")
}

async fn change(admin: &Client, namespace: &str, number: usize, round: usize) -> i64 {
    let patch = json!({"spec": {"displayName": format!("Vendor {number}, change {round}")}});
    let request = Request::patch(path(namespace, &name(number)))
        .header("content-type", "application/merge-patch+json")
        .body(patch.to_string().into_bytes())
        .expect("a request");
    let object: Slim = admin.request(request).await.expect("the change is accepted");
    object.metadata.generation.expect("a generation")
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

fn manifest(number: usize, home: Option<&str>) -> Value {
    let folders: Vec<Value> = FOLDERS.iter().map(|path| json!({"path": path})).collect();
    let members = MEMBERS.iter().map(|(kind, name, role)| json!({"kind": kind, "name": name, "role": role}));
    let connection = home.map_or_else(|| json!({"name": "file360"}), |home| json!({"name": "file360", "namespace": home}));
    json!({
        "apiVersion": "file360.io/v1alpha1",
        "kind": "SecureWorkspace",
        "metadata": {"name": name(number)},
        "spec": {
            "connectionRef": connection,
            "displayName": format!("Vendor {number}"),
            "metadata": metadata(number),
            "folders": folders,
            "access": {"members": members.collect::<Vec<_>>()},
            "sharing": sharing(),
        },
    })
}
