//! The Kubernetes end, as an administrator sees it.

use std::path::Path;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::controlplane::ControlPlane;

/// Field manager of what tests apply.
const MANAGER: &str = "tests";

/// A client with the rights of `kubeconfig`.
pub async fn client(kubeconfig: &Path) -> Client {
    super::install_crypto();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}

/// Installs the CRDs once for each control plane of this process.
pub async fn install_crds(client: &Client) {
    let api: Api<DynamicObject> =
        Api::all_with(client.clone(), &resource("apiextensions.k8s.io/v1", "CustomResourceDefinition"));
    for crd in file360_operator::api::crds::all() {
        let name = crd.metadata.name.clone().expect("a CRD has a name");
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&crd)).await.expect("the CRD is accepted");
        super::eventually(&format!("CRD {name} to be established"), || async {
            let crd = api.get(&name).await.map_err(|error| error.to_string())?;
            let conditions = crd.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let established = conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True");
            established.then_some(()).ok_or_else(|| format!("{conditions:?}"))
        })
        .await;
    }
}

/// The shared control plane with the CRDs installed.
pub async fn shared() -> &'static ControlPlane {
    static CRDS: OnceCell<()> = OnceCell::const_new();
    let plane = ControlPlane::shared();
    CRDS.get_or_init(|| async { install_crds(&client(&plane.kubeconfig).await).await }).await;
    plane
}

/// The resource of a kind.
pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The API of a kind in a namespace.
pub fn api(client: &Client, namespace: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(api_version, kind))
}

/// Applies a manifest as Argo CD would: server-side, as the owner of the fields it names.
pub async fn apply(client: &Client, namespace: &str, manifest: &Value) -> Result<DynamicObject, kube::Error> {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let api = api(client, namespace, &text("/apiVersion"), &text("/kind"));
    api.patch(&text("/metadata/name"), &PatchParams::apply(MANAGER).force(), &Patch::Apply(manifest)).await
}

/// A token of a ServiceAccount, made if needed.
pub async fn service_account_token(client: &Client, namespace: &str, name: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a ServiceAccount");
    let _ = accounts.create(&PostParams::default(), &account).await;
    let request: TokenRequest =
        serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 86_400}}))
            .expect("a request");
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await.expect("a token");
    answer.status.expect("a status").token
}
