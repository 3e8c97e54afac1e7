//! The Kubernetes end, with the rights of whoever runs the plugin.

use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Client, Config};
use serde_json::Value;

use super::object::{Kind, Seen};
use super::{Access, Failure, failed};
use crate::api::{GROUP, VERSION};

/// Field manager of what the plugin writes.
pub const MANAGER: &str = "kubectl-file360";
/// Most objects in one answer of a listing.
const PAGE: u32 = 500;

/// A cluster and a namespace in it.
pub struct Cluster {
    /// Client with the user's rights.
    pub client: Client,
    /// `-n`, or the context's namespace.
    pub namespace: String,
}

impl Cluster {
    /// Connects as the kubeconfig says; nothing is sent yet.
    pub async fn connect(access: &Access) -> Result<Self, Failure> {
        let read = match &access.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let kubeconfig = read.map_err(|error| failed(format!("the kubeconfig cannot be read: {}", chain(&error))))?;
        let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| failed(format!("the kubeconfig cannot be used: {}", chain(&error))))?;
        let namespace = access.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client =
            Client::try_from(config).map_err(|error| failed(format!("the kubeconfig cannot be used: {}", chain(&error))))?;
        Ok(Self { client, namespace })
    }

    fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind.name()));
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// All objects of a kind; `None`: of all namespaces.
    pub async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Vec<Seen>, Failure> {
        let api = self.api(kind, namespace);
        let mut seen = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await.map_err(|error| explain(&format!("list {}", kind.plural()), &error))?;
            seen.extend(page.items.iter().map(|object| Seen::of(kind, object)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(seen),
            }
        }
    }

    /// One object, if it exists.
    pub async fn find(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Seen>, Failure> {
        let found = self.api(kind, Some(namespace)).get_opt(name).await;
        let found = found.map_err(|error| explain(&format!("read {} {namespace}/{name}", kind.name()), &error))?;
        Ok(found.map(|object| Seen::of(kind, &object)))
    }

    /// The object that an argument such as `acme` or `connection/file360` names.
    pub async fn get(&self, target: &Target) -> Result<Seen, Failure> {
        let mut known = Vec::new();
        for kind in target.kinds() {
            known.extend(self.find(kind, &self.namespace, &target.name).await?);
        }
        let kinds: Vec<&str> = known.iter().map(|seen| seen.kind.name()).collect();
        let names: Vec<String> = known.iter().map(|seen| format!("{}/{}", seen.kind.prefix(), target.name)).collect();
        let several = format!("there is a {} named {}; say {}", kinds.join(" and a "), target.name, names.join(" or "));
        match (known.len(), known.pop()) {
            (_, None) => Err(failed(format!("no {target} in namespace {}", self.namespace))),
            (1, Some(seen)) => Ok(seen),
            _ => Err(Failure::Usage(several)),
        }
    }

    /// Merges `patch` into an object.
    pub async fn patch(&self, seen: &Seen, patch: &Value) -> Result<Seen, Failure> {
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let api = self.api(seen.kind, Some(&seen.namespace));
        let written = api.patch(&seen.name, &params, &Patch::Merge(patch)).await;
        written
            .map(|object| Seen::of(seen.kind, &object))
            .map_err(|error| explain(&format!("change {}", seen.title()), &error))
    }

    /// Reads the object until `holds`, or until `timeout` has passed; what it was then.
    pub async fn wait(&self, seen: &Seen, timeout: Duration, holds: impl Fn(&Seen) -> bool) -> Result<Waited, Failure> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let now = self.find(seen.kind, &seen.namespace, &seen.name).await?;
            let Some(now) = now else { return Err(failed(format!("{} was deleted meanwhile", seen.title()))) };
            if holds(&now) {
                return Ok(Waited::Holds(now));
            }
            if start.elapsed() >= timeout {
                return Ok(Waited::TooLate(now));
            }
            tokio::time::sleep(pause.min(timeout.saturating_sub(start.elapsed()))).await;
            pause = (pause * 3 / 2).min(Duration::from_secs(1));
        }
    }
}

/// What came of waiting.
pub enum Waited {
    /// It came true.
    Holds(Seen),
    /// It did not in time; the object as it was last.
    TooLate(Seen),
}

/// What an argument names.
#[derive(Clone, Debug)]
pub struct Target {
    kind: Option<Kind>,
    /// Name of the object.
    pub name: String,
}

impl Target {
    /// The kinds that it can be.
    pub fn kinds(&self) -> Vec<Kind> {
        let all = || vec![Kind::SecureWorkspace, Kind::SecureWorkspaceSet, Kind::FileRoute, Kind::Connection];
        self.kind.map_or_else(all, |kind| vec![kind])
    }

    /// The same, restricted to SecureWorkspaces.
    pub fn workspace(self) -> Result<Self, Failure> {
        self.of(Kind::SecureWorkspace)
    }

    /// The same, restricted to FileRoutes.
    pub fn route(self) -> Result<Self, Failure> {
        self.of(Kind::FileRoute)
    }

    fn of(self, kind: Kind) -> Result<Self, Failure> {
        if self.kind.is_some_and(|named| named != kind) {
            return Err(Failure::Usage(format!("{self} is no {}", kind.name())));
        }
        Ok(Self { kind: Some(kind), ..self })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{} {}", kind.name(), self.name),
            None => write!(f, "SecureWorkspace, SecureWorkspaceSet, FileRoute or Connection {}", self.name),
        }
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((kind, name)) = text.split_once('/') else {
            return Ok(Self { kind: None, name: text.to_owned() });
        };
        let kind = match kind.to_lowercase().trim_end_matches(".file360.io") {
            "secureworkspace" | "secureworkspaces" | "sws" => Kind::SecureWorkspace,
            "secureworkspaceset" | "secureworkspacesets" | "swset" => Kind::SecureWorkspaceSet,
            "fileroute" | "fileroutes" | "froute" => Kind::FileRoute,
            "connection" | "connections" | "f3c" => Kind::Connection,
            _ => {
                let known = "secureworkspace/NAME, secureworkspaceset/NAME, fileroute/NAME or connection/NAME";
                return Err(format!("{kind} is no kind of this plugin; use {known}"));
            }
        };
        Ok(Self { kind: Some(kind), name: name.to_owned() })
    }
}

/// A failed call to the Kubernetes API, for people: a missing right is called so.
pub fn explain(doing: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            failed(format!("you lack the right to {doing}: {}", super::text::line(&status.message, 500)))
        }
        kube::Error::Api(status)
            if status.code == 404 && status.message.contains("could not find the requested resource") =>
        {
            failed(format!("cannot {doing}: the cluster does not know the kinds of {GROUP}; are the CRDs installed?"))
        }
        kube::Error::Api(status) => failed(format!("cannot {doing}: {}", super::text::line(&status.message, 1000))),
        other => failed(format!("cannot {doing}: {}", chain(other))),
    }
}

/// An error with what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        if !text.contains(&line) {
            text = format!("{text}: {line}");
        }
        next = cause.source();
    }
    super::text::line(&text, 500)
}

/// Reads `30s`, `10m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| format!("{text} is no duration such as 30s, 10m or 1h"))?;
    span.try_into().map_err(|_| format!("{text} is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_names_a_kind_or_leaves_it_open() {
        let read = |text: &str| text.parse::<Target>().map(|target| (target.kinds(), target.name));
        assert_eq!(read("acme").unwrap().0.len(), 4);
        assert_eq!(read("sws/acme"), Ok((vec![Kind::SecureWorkspace], "acme".into())));
        assert_eq!(read("froute/acme"), Ok((vec![Kind::FileRoute], "acme".into())));
        assert_eq!(read("swset/deals"), Ok((vec![Kind::SecureWorkspaceSet], "deals".into())));
        assert_eq!(read("Connection/file360"), Ok((vec![Kind::Connection], "file360".into())));
        assert!(read("pod/x").unwrap_err().contains("pod"));
        assert!("froute/x".parse::<Target>().unwrap().workspace().is_err());
        assert!("sws/x".parse::<Target>().unwrap().route().is_err());
        assert_eq!("x".parse::<Target>().unwrap().route().unwrap().kinds(), [Kind::FileRoute]);
    }
}
