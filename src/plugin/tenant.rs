//! The File 360 end of a Connection, for reading unless a command says otherwise: with the Connection's own credential, which the user must have the right
//! to read. No fence is taken, so the operator is not disturbed, and writes are cut off in the transport of those that only read.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::Api;
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, chain, explain};
use super::text::line;
use super::{Failure, failed};
use crate::api::{Connection, SecureWorkspace};
use crate::controllers::connection::credentials::Credentials;
use crate::controllers::context::{Context, Parts, Tuning};
use crate::controllers::secure_workspace::pass::{self, Preview};
use crate::controllers::secure_workspace::status::reason_of;
use crate::error::Error;
use crate::file360::exchange::Settings;
use crate::file360::feature::Enforcement;
use crate::file360::model::Service;
use crate::file360::{self, File360};
use crate::outbound::guard::Guard;
use crate::outbound::trust::Trust;
use crate::reconcile::ObjectKey;
use crate::session::{Identity, Session};
use crate::telemetry::http::Readiness;
use crate::telemetry::metrics::Metrics;

/// Calls in flight, when the Connection does not say.
const CONCURRENCY: u32 = 8;

/// How the tenant is reached.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tenant")]
pub struct TenantArgs {
    /// The operator's --cluster-id. Default: what the workspace's ownership mark says, else the uid of namespace kube-system.
    #[arg(long, env = "FILE360_CLUSTER_ID", value_name = "ID")]
    cluster_id: Option<String>,
    /// PEM bundle of authorities to trust beside the system's, as the operator's --ca-file.
    #[arg(long, env = "FILE360_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// A tenant, open.
pub struct Tenant {
    /// Its Connection.
    pub connection: Arc<Connection>,
    /// The way to it.
    pub driver: Arc<dyn File360>,
    key: ObjectKey,
    service: Service,
    args: TenantArgs,
}

impl Tenant {
    /// Reads the Connection and its Secret, and calls the server once. Nothing can be changed through it.
    pub async fn open(cluster: &Cluster, key: &ObjectKey, args: &TenantArgs) -> Result<Self, Failure> {
        let no_writes = CancellationToken::new();
        no_writes.cancel();
        Self::open_until(cluster, key, args, no_writes).await
    }

    /// The same, and changes are possible.
    pub async fn open_for_changes(cluster: &Cluster, key: &ObjectKey, args: &TenantArgs) -> Result<Self, Failure> {
        Self::open_until(cluster, key, args, CancellationToken::new()).await
    }

    async fn open_until(
        cluster: &Cluster,
        key: &ObjectKey,
        args: &TenantArgs,
        stop_writes: CancellationToken,
    ) -> Result<Self, Failure> {
        let api: Api<Connection> = Api::namespaced(cluster.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await.map_err(|error| explain(&format!("read Connection {key}"), &error))?;
        let connection = found.ok_or_else(|| failed(format!("there is no Connection {key}")))?;
        if is_suspended(&connection) {
            let message =
                format!("Connection {key} is suspended: its tenant is not called; end it with kubectl file360 resume");
            return Err(failed(message));
        }
        let ctx = context(cluster, String::new(), args)?;
        let credentials = Credentials::read(&ctx, &connection).await.map_err(|error| unreadable(key, &error))?;
        let limits = connection.spec.limits.as_ref();
        let settings = Settings {
            endpoint: credentials.endpoint,
            credential: credentials.credential,
            http: credentials.http,
            requests_per_second: limits.and_then(|limits| limits.requests_per_second),
            concurrency: limits.and_then(|limits| limits.concurrency).or(Some(CONCURRENCY)),
            stop_writes,
            observer: ctx.metrics.clone(),
        };
        let (driver, _) = file360::driver(connection.spec.driver(), settings);
        let service = driver.service().await.map_err(|error| refused(&error))?;
        Ok(Self { connection: Arc::new(connection), driver, key: key.clone(), service, args: args.clone() })
    }

    /// How far each feature is there.
    pub fn enforcement(&self) -> Enforcement {
        self.driver.enforcement(&self.service)
    }

    /// What a pass of the operator over `object` would do now.
    pub async fn preview(&self, cluster: &Cluster, object: SecureWorkspace) -> Result<Preview, Failure> {
        let cluster_id = self.cluster_id(cluster, &object).await?;
        let ctx = context(cluster, cluster_id.clone(), &self.args)?;
        let namespace = object.namespace().unwrap_or_default();
        if namespace != *self.key.namespace {
            ctx.namespaces.set(&namespace, labels(cluster, &namespace).await?);
        }
        let stop = CancellationToken::new();
        let session = Session::new(self.driver.clone(), self.service.clone(), Identity::default(), cluster_id.into(), stop);
        ctx.sessions.set(&self.key, self.connection.clone(), Ok(Arc::new(session)));
        Box::pin(pass::preview(&ctx, object)).await.map_err(|error| refused(&error))
    }

    async fn cluster_id(&self, cluster: &Cluster, object: &SecureWorkspace) -> Result<String, Failure> {
        if let Some(id) = &self.args.cluster_id {
            return Ok(id.clone());
        }
        if let Some(id) = object.status.as_ref().and_then(|status| status.workspace_id.as_deref()) {
            let workspace = self.driver.workspace(id).await.map_err(|error| refused(&error))?;
            let mark = workspace.and_then(|workspace| workspace.owner);
            if let Some(mark) = mark.filter(|mark| Some(&mark.uid) == object.uid().as_ref()) {
                return Ok(mark.cluster_id);
            }
        }
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        match namespaces.get("kube-system").await {
            Ok(system) => system.uid().ok_or_else(|| failed("namespace kube-system has no uid; set --cluster-id")),
            Err(error) => Err(failed(format!(
                "the identity of the cluster cannot be read from namespace kube-system ({}); set --cluster-id to the operator's",
                chain(&error)
            ))),
        }
    }
}

fn is_suspended(connection: &Connection) -> bool {
    let spec = &connection.spec;
    spec.suspend == Some(true) && spec.suspend_until.is_none_or(|until| until > Timestamp::now())
}

/// What the product's own code wants to be given. The guard is for manifests that send the operator somewhere; here a person
/// sends their own credential from their own machine, where the Secret says.
fn context(cluster: &Cluster, cluster_id: String, args: &TenantArgs) -> Result<Arc<Context>, Failure> {
    let guard = Guard::new(&["0.0.0.0/0".to_owned(), "::/0".to_owned()], &[]).map_err(failed)?;
    Ok(Context::new(Parts {
        former_cluster_ids: Vec::new(),
        client: cluster.client.clone(),
        cluster_id,
        instance: "kubectl-file360".into(),
        namespace: None,
        guard,
        extra_ca: args.ca_file.as_deref().map(read_ca).transpose()?.unwrap_or_default(),
        trust: Trust::new(&[]).map_err(|error| failed(error.to_string()))?,
        queue: None,
        folders: std::collections::BTreeMap::new(),
        public_url: None,
        approvals_policy: None,
        metrics: Arc::new(Metrics::default()),
        readiness: Arc::new(Readiness::default()),
        stop_writes: CancellationToken::new(),
        shutdown: CancellationToken::new(),
        tuning: Tuning::default(),
    }))
}

fn read_ca(path: &std::path::Path) -> Result<Vec<reqwest::Certificate>, Failure> {
    let pem = std::fs::read(path).map_err(|error| failed(format!("--ca-file {}: {error}", path.display())))?;
    reqwest::Certificate::from_pem_bundle(&pem)
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| failed(format!("--ca-file {}: no PEM certificate in it", path.display())))
}

async fn labels(cluster: &Cluster, namespace: &str) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let found = namespaces.get_opt(namespace).await;
    let found =
        found.map_err(|error| explain(&format!("read namespace {namespace}, whose labels grants look at"), &error))?;
    Ok(found.and_then(|found| found.metadata.labels).unwrap_or_default())
}

fn unreadable(key: &ObjectKey, error: &Error) -> Failure {
    if error.code == "Forbidden" {
        return failed(format!(
            "you lack the right to read the credential of Connection {key}: {}. This command calls File 360 with it, so it needs \
             get on secrets in namespace {}. Without: apply the manifest with mode: Plan, and the operator plans",
            line(&error.to_string(), 500),
            key.namespace
        ));
    }
    failed(format!("the credential of Connection {key} cannot be used: {}", line(&error.to_string(), 1000)))
}

/// What the product's code said, with the reason that the status would have.
pub fn refused(error: &Error) -> Failure {
    failed(format!("{}: {}", reason_of(error), line(&error.to_string(), 2000)))
}
