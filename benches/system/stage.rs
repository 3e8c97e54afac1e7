//! A control plane with the operator's `ServiceAccount`, and the operator as a process of its own with the flags of a plain
//! installation: all namespaces, leader election, default limits.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use file360_operator::api::rbac;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::measure::{AuditLog, pid_of};
use crate::support::controlplane::ControlPlane;
use crate::support::{free_port, kubernetes};

/// Where the operator and its Lease live.
const HOME: &str = "file360-system";
/// Longest wait for anything: a limit against hanging, not a measure.
const PATIENCE: Duration = Duration::from_hours(1);

/// What all scenarios of one run share.
pub struct Stage {
    /// Administrator's client.
    pub admin: Client,
    /// A client with the operator's own `ServiceAccount`: the API server queues by who asks, so the bare loader asks as the same.
    pub as_operator: Client,
    /// The program under test.
    pub program: PathBuf,
    /// Requests of the operator's `ServiceAccount`.
    pub audit: AuditLog,
    /// Everything on disk.
    pub folder: TempDir,
    kubeconfig: PathBuf,
    /// Cores that these two use while nobody asks them anything, once measured.
    pub baseline: f64,
    /// kube-apiserver and etcd.
    pub pids: Vec<(&'static str, u32)>,
    _plane: ControlPlane,
}

impl Stage {
    /// Starts a control plane and installs the CRDs and the operator's rights.
    pub async fn start(program: PathBuf) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let log = folder.path().join("audit.log");
        let plane = ControlPlane::start(&["--audit-log", log.to_str().expect("a path")]);
        let admin = kubernetes::client(&plane.kubeconfig).await;
        kubernetes::install_crds(&admin).await;
        namespace(&admin, HOME).await;
        grant_rights(&admin).await;
        let token = kubernetes::service_account_token(&admin, HOME, "operator").await;
        let kubeconfig = folder.path().join("operator.kubeconfig");
        write_kubeconfig(&plane.kubeconfig, &kubeconfig, &token);
        let server = pid_of("kube-apiserver", log.to_str().expect("a path")).expect("the API server runs");
        let data = plane.kubeconfig.with_file_name("etcd");
        let etcd = pid_of("etcd", data.to_str().expect("a path")).expect("etcd runs");
        Self {
            as_operator: kubernetes::client(&kubeconfig).await,
            admin,
            program,
            audit: AuditLog::new(log, format!("system:serviceaccount:{HOME}:operator")),
            folder,
            kubeconfig,
            baseline: 0.0,
            pids: vec![("apiServer", server), ("etcd", etcd)],
            _plane: plane,
        }
    }

    /// Starts the operator.
    pub fn operator(&self) -> Operator {
        self.operator_with(&[])
    }

    /// Starts the operator with more flags.
    pub fn operator_with(&self, flags: &[&str]) -> Operator {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("operator.log"));
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new(&self.program)
            .args(["run", "--outbound-allow", "127.0.0.1", "--lease-namespace", HOME, "--metrics-address", &address])
            .args(flags)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("POD_NAME", "operator-0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("the operator starts");
        Operator { child, address, started: Instant::now() }
    }
}

/// Applies a manifest, in its namespace or in none.
pub async fn apply(client: &Client, manifest: &Value) {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let resource = kubernetes::resource(text("/apiVersion"), text("/kind"));
    let api: Api<DynamicObject> = match text("/metadata/namespace") {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    let params = PatchParams::apply("benchmark").force();
    api.patch(text("/metadata/name"), &params, &Patch::Apply(manifest)).await.expect("the manifest is accepted");
}

/// Makes a namespace.
pub async fn namespace(admin: &Client, name: &str) {
    apply(admin, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
}

async fn grant_rights(admin: &Client) {
    let group = "rbac.authorization.k8s.io";
    let rules = [rbac::manager(), rbac::cluster()].concat();
    let subjects = json!([{"kind": "ServiceAccount", "name": "operator", "namespace": HOME}]);
    let manifests = [
        json!({"kind": "ClusterRole", "metadata": {"name": "operator"}, "rules": rules}),
        json!({"kind": "ClusterRoleBinding", "metadata": {"name": "operator"}, "subjects": subjects,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "operator"}}),
        json!({"kind": "Role", "metadata": {"name": "leader", "namespace": HOME}, "rules": rbac::leader_election()}),
        json!({"kind": "RoleBinding", "metadata": {"name": "leader", "namespace": HOME}, "subjects": subjects,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "leader"}}),
    ];
    for mut manifest in manifests {
        manifest["apiVersion"] = json!(format!("{group}/v1"));
        apply(admin, &manifest).await;
    }
}

fn write_kubeconfig(admin: &Path, to: &Path, token: &str) {
    let text = std::fs::read_to_string(admin).expect("the administrator's kubeconfig");
    let mut config: Value = serde_saphyr::from_str(&text).expect("YAML");
    config["users"][0]["user"] = json!({"token": token});
    std::fs::write(to, config.to_string()).expect("the kubeconfig is written");
}

/// A running operator.
pub struct Operator {
    child: Child,
    address: String,
    /// When it was started.
    pub started: Instant,
}

impl Operator {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (-9): its Lease stays.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM), so that the next one need not wait for the Lease.
    pub fn stop(mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }

    /// A metric that can be read while others use the operator.
    pub fn gauge(&self, name: &'static str) -> Gauge {
        Gauge { address: self.address.clone(), name }
    }

    /// The sum of a metric over its labels; 0 when it is not there.
    pub async fn metric(&self, name: &'static str) -> f64 {
        self.gauge(name).read().await
    }

    /// Waits until it leads.
    pub async fn leads(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric("file360_leader").await < 1.0 {
            assert!(Instant::now() < deadline, "the operator never leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether its listings are complete.
    pub async fn is_ready(&self) -> bool {
        read(&self.address, "/readyz").await.is_some_and(|(ready, _)| ready)
    }

    /// Waits until its listings are complete and nothing waits for a worker.
    pub async fn caught_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.is_ready().await && self.metric("file360_queue_depth").await < 1.0 {
                return;
            }
            assert!(Instant::now() < deadline, "the operator never catches up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// One metric of a running operator.
pub struct Gauge {
    address: String,
    name: &'static str,
}

impl Gauge {
    /// Its sum over its labels; 0 when it is not there.
    pub async fn read(&self) -> f64 {
        let text = read(&self.address, "/metrics").await.map(|(_, text)| text).unwrap_or_default();
        let lines =
            text.lines().filter(|line| line.strip_prefix(self.name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

async fn read(address: &str, path: &str) -> Option<(bool, String)> {
    let answer = reqwest::get(format!("http://{address}{path}")).await.ok()?;
    Some((answer.status().is_success(), answer.text().await.ok()?))
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
