//! One test's world: a namespace, an embedded File 360 and an operator that looks after this namespace only, under its
//! ServiceAccount with the generated role.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::controlplane::ControlPlane;
use super::remote::{CLIENT_ID, CLIENT_SECRET, Remote};
use super::{OPERATOR, eventually, free_port, kubernetes};

/// See the module.
pub struct World {
    /// Administrator's client.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    /// File 360.
    pub remote: Remote,
    /// Where the operator finds File 360: the server itself, or a proxy before it.
    pub endpoint: String,
    /// The operator, while it runs.
    pub operator: Option<Operator>,
    /// Access of the operator's ServiceAccount.
    pub kubeconfig: PathBuf,
    /// Everything on disk.
    pub folder: TempDir,
}

/// A running operator.
pub struct Operator {
    child: Child,
    /// Where `/metrics` and `/readyz` are.
    pub address: String,
    /// Its log.
    pub log: PathBuf,
}

impl Operator {
    /// Kills it (-9).
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits; whether it ended well.
    pub fn stop(mut self) -> bool {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// Waits until it ends by itself; whether it ended well.
    pub fn wait(mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// The value of a metric without labels; `None` while it does not answer.
    pub async fn try_metric(&self, name: &str) -> Option<f64> {
        let answer = reqwest::Client::new()
            .get(format!("http://{}/metrics", self.address))
            .timeout(std::time::Duration::from_secs(1));
        let text = answer.send().await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))?.parse().ok())
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The value of a metric, summed over its labels that contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text =
            reqwest::get(format!("http://{}/metrics", self.address)).await.expect("metrics").text().await.expect("text");
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    /// A world with a running operator and a Connection that is ready.
    pub async fn new() -> Self {
        let mut world = Self::without_operator(kubernetes::shared().await).await;
        world.start_operator(&[]).await;
        world.connect().await;
        world
    }

    /// A world on `plane` in which nothing runs but File 360.
    pub async fn without_operator(plane: &ControlPlane) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("t{}-{:08x}", NUMBER.fetch_add(1, Ordering::Relaxed), rand::random::<u32>());
        Self::without_operator_in(plane, namespace).await
    }

    /// The same in a namespace of this name.
    pub async fn without_operator_in(plane: &ControlPlane, namespace: String) -> Self {
        let client = kubernetes::client(&plane.kubeconfig).await;
        let folder = tempfile::tempdir().expect("a folder");
        let namespaces: Api<DynamicObject> = Api::all_with(client.clone(), &kubernetes::resource("v1", "Namespace"));
        let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        namespaces.patch(&namespace, &PatchParams::apply("tests"), &Patch::Apply(&manifest)).await.expect("a namespace");
        let remote = Remote::start(folder.path()).await;
        let kubeconfig = folder.path().join("operator.kubeconfig");
        let world = Self { client, namespace, endpoint: remote.url.clone(), remote, operator: None, kubeconfig, folder };
        world.grant_rights(plane).await;
        world
    }

    async fn grant_rights(&self, plane: &ControlPlane) {
        use file360_operator::api::rbac;
        let rules = [rbac::manager(), rbac::leader_election()].concat();
        let group = "rbac.authorization.k8s.io";
        let role =
            json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "operator"}, "rules": rules});
        let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "operator"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "operator"},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": self.namespace}]});
        let token = kubernetes::service_account_token(&self.client, &self.namespace, "operator").await;
        for manifest in [role, binding] {
            kubernetes::apply(&self.client, &self.namespace, &manifest).await.expect("the rights are granted");
        }
        self.write_kubeconfig(&plane.kubeconfig, &token, None);
    }

    /// Writes the operator's kubeconfig; `server` puts something else in the API server's place.
    fn write_kubeconfig(&self, admin: &Path, token: &str, server: Option<&str>) {
        let text = std::fs::read_to_string(admin).expect("the administrator's kubeconfig");
        let mut config: Value = serde_saphyr::from_str(&text).expect("YAML");
        config["users"][0]["user"] = json!({"token": token});
        if let Some(server) = server {
            config["clusters"][0]["cluster"] = json!({"server": server});
        }
        std::fs::write(&self.kubeconfig, config.to_string()).expect("the kubeconfig is written");
    }

    /// Puts `server` in the API server's place for the operator.
    pub fn api_server_through(&self, server: &str) {
        let text = std::fs::read_to_string(&self.kubeconfig).expect("a kubeconfig");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config["clusters"][0]["cluster"] = json!({"server": server});
        std::fs::write(&self.kubeconfig, config.to_string()).expect("the kubeconfig is written");
    }

    /// Starts the operator, with more flags, and waits until it is ready.
    pub async fn start_operator(&mut self, flags: &[&str]) {
        let operator = self.spawn_operator(flags);
        self.await_ready(operator).await;
    }

    async fn await_ready(&mut self, operator: Operator) {
        let url = format!("http://{}/readyz", operator.address);
        eventually("the operator's readiness", || async {
            let log = || self.log().lines().rev().take(5).map(str::to_owned).collect::<Vec<_>>();
            let answer = reqwest::get(&url).await.map_err(|error| format!("{error}; last lines: {:?}", log()))?;
            let ready = answer.status().is_success();
            let text = answer.text().await.unwrap_or_default();
            ready.then_some(()).ok_or(text)
        })
        .await;
        self.operator = Some(operator);
    }

    /// Starts an operator for all namespaces, with more flags, under a ClusterRole with the generated rules.
    pub async fn start_cluster_operator(&mut self, flags: &[&str]) {
        use file360_operator::api::rbac;
        let rules = [rbac::manager(), rbac::cluster(), rbac::leader_election()].concat();
        let group = "rbac.authorization.k8s.io";
        let name = format!("operator-{}", self.namespace);
        let role =
            json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
        let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": self.namespace}]});
        for manifest in [role, binding] {
            let resource = kubernetes::resource(&format!("{group}/v1"), manifest["kind"].as_str().expect("a kind"));
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            api.patch(&name, &PatchParams::apply("tests"), &Patch::Apply(&manifest)).await.expect("the rights are granted");
        }
        let operator = self.spawn(&[&["--lease-namespace", self.namespace.as_str()], flags].concat());
        self.await_ready(operator).await;
    }

    /// Changes this world's namespace.
    pub async fn patch_namespace(&self, patch: Value) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kubernetes::resource("v1", "Namespace"));
        api.patch(&self.namespace, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("the patch is accepted");
    }

    /// Deletes this world's namespace and waits until it is gone.
    pub async fn delete_namespace(&self) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kubernetes::resource("v1", "Namespace"));
        api.delete(&self.namespace, &DeleteParams::default()).await.expect("it can be deleted");
        eventually("the namespace to be gone", || async {
            match api.get_opt(&self.namespace).await.map_err(|error| error.to_string())? {
                None => Ok(()),
                Some(namespace) => Err(namespace.data["status"].to_string()),
            }
        })
        .await;
    }

    /// What `kubectl` prints.
    pub fn kubectl(&self, plane: &ControlPlane, args: &[&str]) -> String {
        let output = Command::new(super::controlplane::bin_dir().join("kubectl"))
            .arg("--kubeconfig")
            .arg(&plane.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(args)
            .output()
            .expect("kubectl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Starts the operator without waiting.
    pub fn spawn_operator(&self, flags: &[&str]) -> Operator {
        let own = ["--namespace", self.namespace.as_str(), "--cluster-id", self.namespace.as_str()];
        self.spawn(&[&own, flags].concat())
    }

    /// The same, but nothing on loopback is allowed unless `flags` say so.
    pub fn spawn_plain(&self, flags: &[&str]) -> Operator {
        let own = ["--namespace", self.namespace.as_str(), "--cluster-id", self.namespace.as_str()];
        self.spawn_exactly(&[&own, flags].concat())
    }

    /// Starts an operator for this namespace under another cluster identity.
    pub fn spawn_as(&self, cluster_id: &str, flags: &[&str]) -> Operator {
        let own = ["--namespace", self.namespace.as_str(), "--cluster-id", cluster_id];
        self.spawn(&[&own, flags].concat())
    }

    fn spawn(&self, flags: &[&str]) -> Operator {
        let own = ["--outbound-allow", "127.0.0.1"];
        self.spawn_exactly(&[&own, flags].concat())
    }

    fn spawn_exactly(&self, flags: &[&str]) -> Operator {
        let log = self.folder.path().join("operator.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log");
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new(OPERATOR)
            .args(["run", "--metrics-address", &address])
            .args(flags)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("FILE360_LOG", "debug")
            .env("FILE360_LEADER_ELECT", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the operator starts");
        Operator { child, address, log }
    }

    /// Kills the operator (-9).
    pub fn kill_operator(&mut self) {
        self.operator.take().expect("an operator runs").kill();
    }

    /// The text of the operator's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("operator.log")).unwrap_or_default()
    }

    /// Applies the Secret and the Connection `file360`, and waits until it is ready.
    pub async fn connect(&self) {
        self.apply_connection(json!({})).await;
        self.condition("Connection", "file360", "Ready", "True").await;
    }

    /// Applies the Secret and the Connection `file360` with more fields in its spec.
    pub async fn apply_connection(&self, more: Value) {
        self.apply_secret("credential", CLIENT_ID, CLIENT_SECRET).await;
        let mut spec = json!({
            "endpoint": self.endpoint,
            "allowInsecure": true,
            "auth": {"oauth2": {
                "clientIdRef": {"name": "credential", "key": "clientId"},
                "clientSecretRef": {"name": "credential", "key": "clientSecret"},
            }},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        self.apply("Connection", "file360", spec).await;
    }

    /// Applies a credential that is bound to the endpoint.
    pub async fn apply_secret(&self, name: &str, client_id: &str, client_secret: &str) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"endpoint": self.endpoint, "clientId": client_id, "clientSecret": client_secret}});
        kubernetes::apply(&self.client, &self.namespace, &secret).await.expect("the Secret is accepted");
    }

    /// Applies a resource of this project.
    pub async fn apply(&self, kind: &str, name: &str, spec: Value) -> DynamicObject {
        self.try_apply(kind, name, spec).await.unwrap_or_else(|error| panic!("{kind} {name} is refused: {error}"))
    }

    /// Applies a resource of this project; the refusal of the API server.
    pub async fn try_apply(&self, kind: &str, name: &str, spec: Value) -> Result<DynamicObject, kube::Error> {
        let manifest = json!({"apiVersion": "file360.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        kubernetes::apply(&self.client, &self.namespace, &manifest).await
    }

    /// Applies a SecureWorkspace on the Connection `file360` and waits until this generation is ready.
    pub async fn workspace(&self, name: &str, spec: Value) -> Value {
        self.apply_workspace(name, spec).await;
        self.condition("SecureWorkspace", name, "Ready", "True").await
    }

    /// Applies a SecureWorkspace on the Connection `file360`.
    pub async fn apply_workspace(&self, name: &str, spec: Value) {
        self.apply("SecureWorkspace", name, on_connection(spec)).await;
    }

    /// The API of a kind in this namespace.
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let version = match kind {
            "Secret" | "ConfigMap" => "v1",
            "Event" => "events.k8s.io/v1",
            _ => "file360.io/v1alpha1",
        };
        kubernetes::api(&self.client, &self.namespace, version, kind)
    }

    /// The object as JSON.
    pub async fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::to_value(self.api(kind).get(name).await.expect("it exists")).expect("JSON")
    }

    /// Waits until the condition of the current generation has `status`; the object as JSON.
    pub async fn condition(&self, kind: &str, name: &str, condition: &str, status: &str) -> Value {
        self.until(kind, name, &format!("{condition}={status}"), |object| {
            let settled = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            settled && self::condition(object, condition)["status"] == status
        })
        .await
    }

    /// Waits until the condition of the current generation has `reason`; the object as JSON.
    pub async fn reason(&self, kind: &str, name: &str, condition: &str, reason: &str) -> Value {
        self.until(kind, name, &format!("{condition} with reason {reason}"), |object| {
            let settled = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            settled && self::condition(object, condition)["reason"] == reason
        })
        .await
    }

    /// Waits until `holds` of the object; the object as JSON.
    pub async fn until(&self, kind: &str, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let api = self.api(kind);
        eventually(&format!("{kind} {name}: {what}"), || async {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            let object = serde_json::to_value(object).expect("JSON");
            if holds(&object) { Ok(object) } else { Err(object["status"].to_string()) }
        })
        .await
    }

    /// Waits until File 360 has this state.
    pub async fn remote_becomes(&self, state: &Value) {
        eventually("File 360 to be as declared", || async {
            let now = self.remote.state().await;
            if now == *state { Ok(()) } else { Err(format!("{now:#}")) }
        })
        .await;
    }

    /// Asks for deletion.
    pub async fn delete(&self, kind: &str, name: &str) {
        self.api(kind).delete(name, &DeleteParams::default()).await.expect("it can be deleted");
    }

    /// Asks for deletion and waits until the object is gone.
    pub async fn delete_and_wait(&self, kind: &str, name: &str) {
        self.delete(kind, name).await;
        self.gone(kind, name).await;
    }

    /// Waits until the object is gone.
    pub async fn gone(&self, kind: &str, name: &str) {
        let api = self.api(kind);
        eventually(&format!("{kind} {name} to be gone"), || async {
            match api.get_opt(name).await.map_err(|error| error.to_string())? {
                None => Ok(()),
                Some(object) => Err(object.data["status"].to_string()),
            }
        })
        .await;
    }

    /// Merges a patch into an object.
    pub async fn patch(&self, kind: &str, name: &str, patch: Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("the patch is accepted");
    }

    /// Runs a pass now and waits until it ended.
    pub async fn reconcile_now(&self, name: &str) -> Value {
        let token = format!("{:x}", rand::random::<u64>());
        self.patch(
            "SecureWorkspace",
            name,
            json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": token}}}),
        )
        .await;
        self.until("SecureWorkspace", name, "the request to be handled", |object| {
            object["status"]["lastHandledReconcileAt"] == token
        })
        .await
    }

    /// Id of the workspace of a resource.
    pub async fn workspace_id(&self, name: &str) -> String {
        let object = self.get("SecureWorkspace", name).await;
        object["status"]["workspaceId"].as_str().expect("a workspace").to_owned()
    }
}

/// A spec on the Connection `file360`.
pub fn on_connection(mut spec: Value) -> Value {
    spec["connectionRef"] = json!({"name": "file360"});
    if spec.get("displayName").is_none() {
        spec["displayName"] = json!("A workspace");
    }
    spec
}

/// A condition of an object; null when it is not there.
pub fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}
