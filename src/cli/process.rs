//! What `run` and `worker` have in common: flags, and what is made of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::{Client, ResourceExt};

use crate::outbound::guard::Guard;
use crate::outbound::trust::Trust;
use crate::telemetry::logs::LogFormat;

/// Arguments of every process that works for a cluster.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// Look after this namespace only. Then no cluster-scoped right is needed, and --cluster-id is required.
    #[arg(long, env = "FILE360_NAMESPACE")]
    pub namespace: Option<String>,
    /// Identity of this cluster in File 360. Two operators with one identity take each other's workspaces for their own.
    /// Default: the uid of the namespace kube-system.
    #[arg(long, env = "FILE360_CLUSTER_ID")]
    pub cluster_id: Option<String>,
    /// Address for /livez, /readyz and /metrics.
    #[arg(long, env = "FILE360_METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_address: SocketAddr,
    /// Hosts, addresses and CIDR ranges that manifests may name although they are loopback, link-local or denied.
    #[arg(long, env = "FILE360_OUTBOUND_ALLOW", value_delimiter = ',')]
    pub outbound_allow: Vec<String>,
    /// Addresses and CIDR ranges that manifests may not name: pod, service and node ranges.
    #[arg(long, env = "FILE360_OUTBOUND_DENY", value_delimiter = ',')]
    pub outbound_deny: Vec<String>,
    /// Folders that FileRoutes may read and write, as NAME=PATH. Each namespace has a folder of its own in it: PATH/<namespace>.
    #[arg(long = "folder", env = "FILE360_FOLDERS", value_delimiter = ',', value_parser = folder)]
    pub folders: Vec<(String, PathBuf)>,
    /// PEM bundle of authorities to trust beside the system's, for every Connection without tls.caRef.
    #[arg(long, env = "FILE360_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Secrets in use are read again after this long.
    #[arg(long, env = "FILE360_SECRET_INTERVAL", default_value = "1m", value_parser = duration)]
    pub secret_interval: Duration,
    /// Log level, or directives such as `info,file360_operator=debug`.
    #[arg(long, env = "FILE360_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look.
    #[arg(long, env = "FILE360_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// Whom outbound calls may go to, and whom they trust.
pub struct Outbound {
    /// Which addresses manifests may name.
    pub guard: Guard,
    /// Authorities beside the system's, for HTTP.
    pub extra_ca: Vec<reqwest::Certificate>,
    /// The same for what is not HTTP.
    pub trust: Trust,
}

impl ProcessArgs {
    /// What the types of the arguments do not say.
    pub fn check(&self) -> Result<(), String> {
        if self.namespace.is_some() && self.cluster_id.is_none() {
            return Err("--namespace needs --cluster-id: without cluster-scoped rights it cannot be found out".into());
        }
        named("--cluster-id", self.cluster_id.as_deref())?;
        named("--namespace", self.namespace.as_deref())
    }

    /// Reads what --outbound-allow, --outbound-deny and --ca-file name.
    pub fn outbound(&self) -> Result<Outbound, String> {
        let guard = Guard::new(&trimmed(&self.outbound_allow), &denied(&self.outbound_deny))
            .map_err(|why| format!("--outbound-allow/--outbound-deny: {why}"))?;
        let extra_ca = self.ca_file.as_deref().map(read_ca).transpose()?.unwrap_or_default();
        let pem = self.ca_file.as_deref().map(std::fs::read).transpose().map_err(|error| format!("--ca-file: {error}"))?;
        let trust = Trust::new(&pem.unwrap_or_default()).map_err(|error| format!("--ca-file: {error}"))?;
        Ok(Outbound { guard, extra_ca, trust })
    }

    /// The identity of the cluster: as told, else as found.
    pub async fn own_cluster_id(&self, client: &Client) -> Result<String, String> {
        match &self.cluster_id {
            Some(id) => Ok(id.clone()),
            None => cluster_id(client).await,
        }
    }
}

/// Refuses a name that is empty or cannot be one.
pub fn named(flag: &str, value: Option<&str>) -> Result<(), String> {
    match value {
        Some(value) if value.is_empty() || value.contains(['/', '=', ' ']) => {
            Err(format!("{flag} must not be empty nor contain '/', '=' or a blank; leave it out for the default"))
        }
        _ => Ok(()),
    }
}

fn folder(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or_else(|| format!("{text} is not NAME=PATH"))?;
    let path = PathBuf::from(path);
    if name.is_empty() || !path.is_absolute() {
        return Err(format!("{text} is not NAME=PATH with an absolute path"));
    }
    Ok((name.to_owned(), path))
}

/// A duration, as flags have it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| format!("{text} is no duration such as 30s, 10m or 1h"))?;
    span.try_into().map_err(|_| format!("{text} is negative"))
}

/// Ends with the first termination signal.
pub async fn termination() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
}

/// Identity of this process, for people.
pub fn identity() -> String {
    let host =
        std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "file360-operator".into());
    format!("{host}_{:08x}", rand::random::<u32>())
}

async fn cluster_id(client: &Client) -> Result<String, String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system = namespaces
        .get("kube-system")
        .await
        .map_err(|error| format!("cannot read the uid of namespace kube-system: {error}; set --cluster-id"))?;
    system.uid().ok_or_else(|| "namespace kube-system has no uid".into())
}

/// Entries without blanks around them, and without empty ones.
pub fn trimmed(entries: &[String]) -> Vec<String> {
    entries.iter().map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
}

/// The API server's own address is never a tenant's server.
fn denied(entries: &[String]) -> Vec<String> {
    let api_server = std::env::var("KUBERNETES_SERVICE_HOST").ok().filter(|host| host.parse::<std::net::IpAddr>().is_ok());
    trimmed(entries).into_iter().chain(api_server).collect()
}

fn read_ca(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let pem = std::fs::read(path).map_err(|error| format!("--ca-file {}: {error}", path.display()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if certificates.is_empty() {
        Err(format!("--ca-file {}: no PEM certificate in it", path.display()))
    } else {
        Ok(certificates)
    }
}
