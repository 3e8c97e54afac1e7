//! Who reaches what. These tests need an operator for all namespaces, so they have a control plane of their own.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::controlplane::ControlPlane;
use crate::support::world::{World, condition};
use crate::support::{eventually, kubernetes};

/// Two worlds on one control plane and one cluster-wide operator: the first has the Connection, the second is a tenant.
pub struct Cluster {
    pub home: World,
    pub tenant: World,
    _plane: ControlPlane,
}

impl Cluster {
    pub async fn new(connection: serde_json::Value) -> Self {
        Self::with_flags(connection, &[]).await
    }

    /// The same; the operator has more flags.
    pub async fn with_flags(connection: serde_json::Value, flags: &[&str]) -> Self {
        let plane = ControlPlane::start(&[]);
        kubernetes::install_crds(&kubernetes::client(&plane.kubeconfig).await).await;
        let mut home = World::without_operator(&plane).await;
        let tenant = World::without_operator(&plane).await;
        home.start_cluster_operator(flags).await;
        home.apply_connection(connection).await;
        home.condition("Connection", "file360", "Ready", "True").await;
        Self { home, tenant, _plane: plane }
    }

    async fn claim(&self, name: &str, more: serde_json::Value) {
        let mut spec =
            json!({"connectionRef": {"name": "file360", "namespace": self.home.namespace}, "displayName": "Tenant's"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.tenant.apply("SecureWorkspace", name, spec).await;
    }
}

#[tokio::test]
async fn t1_a_namespace_reaches_only_what_is_granted_to_it() {
    let label = |value: &str| json!({"metadata": {"labels": {"tier": value}}});
    let grants = json!({"grants": [{"namespaces": {"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}}, "externalSystems": ["s4"]}]});
    let cluster = Cluster::new(grants).await;
    cluster.claim("w", json!({})).await;
    let object = cluster.tenant.reason("SecureWorkspace", "w", "Ready", "ConnectionNotGranted").await;
    let refusal = condition(&object, "Ready")["message"].to_string();

    // A Connection that does not exist looks the same.
    let spec = json!({"connectionRef": {"name": "ghost", "namespace": cluster.home.namespace}, "displayName": "x"});
    cluster.tenant.apply("SecureWorkspace", "ghost", spec).await;
    let object = cluster.tenant.reason("SecureWorkspace", "ghost", "Ready", "ConnectionNotGranted").await;
    assert_eq!(condition(&object, "Ready")["message"].to_string(), refusal);

    cluster.tenant.patch_namespace(label("gold")).await;
    cluster.tenant.condition("SecureWorkspace", "w", "Ready", "True").await;

    // Business keys of systems that the grant does not name cannot be claimed.
    cluster.claim("crm", json!({"externalRef": {"system": "crm", "type": "deal", "id": "1"}})).await;
    cluster.tenant.reason("SecureWorkspace", "crm", "Ready", "ConnectionNotGranted").await;
    cluster.claim("s4", json!({"externalRef": {"system": "s4", "type": "vendor", "id": "1"}})).await;
    cluster.tenant.condition("SecureWorkspace", "s4", "Ready", "True").await;

    // A relabelled namespace loses access at once.
    cluster.tenant.patch_namespace(label("tin")).await;
    cluster.tenant.reason("SecureWorkspace", "w", "Ready", "ConnectionNotGranted").await;
}

#[tokio::test]
async fn t1_a_declared_scope_adopts_nothing_that_nobody_declared() {
    let cluster = Cluster::new(json!({"grants": [{"namespaces": {"from": "All"}}]})).await;
    let body = json!({"displayName": "By people"});
    let (_, made) =
        cluster.home.remote.call("PUT", "/v1/workspaces/by-key/crm/deal%2F1", &[("if-none-match", "*")], Some(body)).await;
    cluster
        .claim("by-key", json!({"externalRef": {"system": "crm", "type": "deal", "id": "1"}, "adoption": "AdoptOrCreate"}))
        .await;
    cluster.tenant.reason("SecureWorkspace", "by-key", "Ready", "ConnectionNotGranted").await;
    cluster.claim("by-id", json!({"workspaceId": made["id"], "adoption": "AdoptOnly"})).await;
    cluster.tenant.reason("SecureWorkspace", "by-id", "Ready", "ConnectionNotGranted").await;
    let state = cluster.home.remote.state().await;
    assert_eq!(state[0]["displayName"], "By people");
    assert_eq!(state[0].get("owner"), None);
    // The scope Tenant reaches it.
    cluster.tenant.delete_and_wait("SecureWorkspace", "by-key").await;
    cluster.home.apply_connection(json!({"grants": [{"namespaces": {"from": "All"}, "scope": "Tenant"}]})).await;
    cluster.tenant.condition("SecureWorkspace", "by-id", "Ready", "True").await;
    assert_eq!(cluster.home.remote.state().await[0]["displayName"], "Tenant's");
}

#[tokio::test]
async fn no_workspace_exceeds_the_connections_ceiling() {
    let ceiling =
        json!({"sharing": {"max": {"external": "AllowListed", "allowedDomains": ["acme.example"], "linkDays": 30}}});
    let cluster = Cluster::new(ceiling).await;
    cluster.home.workspace("undeclared", json!({})).await;
    let again = cluster.home.reconcile_now("undeclared").await;
    assert_eq!(condition(&again, "Ready")["status"], "True", "a rule that nobody declared is closed and exceeds nothing");
    cluster.home.delete_and_wait("SecureWorkspace", "undeclared").await;
    let wide = json!({"sharing": {"external": "Anyone"}});
    cluster.home.apply_workspace("wide", wide).await;
    cluster.home.reason("SecureWorkspace", "wide", "Ready", "SharingCeilingExceeded").await;
    assert_eq!(cluster.home.remote.state().await.as_array().unwrap().len(), 1);
    let narrow = json!({"sharing": {"external": "AllowListed", "allowedDomains": ["acme.example"]}});
    cluster.home.workspace("wide", narrow).await;
}

#[tokio::test]
async fn d2_a_namespace_that_ends_takes_its_outsiders_with_it_and_keeps_the_content() {
    let cluster = Cluster::new(json!({"grants": [{"namespaces": {"from": "All"}}]})).await;
    cluster
        .claim("w", json!({"sharing": {"external": "Anyone"}, "folders": [{"path": "/A"}], "access": {"members": [
            {"kind": "User", "name": "user0", "role": "Viewer"}, {"kind": "Guest", "name": "bob@acme.example", "role": "Viewer"}]}}))
        .await;
    cluster.tenant.condition("SecureWorkspace", "w", "Ready", "True").await;
    cluster.tenant.delete_namespace().await;
    let state = cluster.home.remote.state().await;
    assert_eq!((&state[0]["state"], &state[0]["owner"]["state"]), (&json!("Active"), &json!("Released")));
    let members = state[0]["parts"]["members"].as_array().unwrap();
    assert_eq!(members.iter().map(|member| member["name"].as_str().unwrap()).collect::<Vec<_>>(), ["user0"]);
}

#[tokio::test]
async fn t6_a_tenant_whose_file_360_hangs_holds_up_no_other() {
    let cluster = Cluster::new(json!({})).await;
    cluster.tenant.connect().await;
    // Every call lasts almost as long as the operator waits for one.
    cluster.home.remote.faults(json!({"latencyMs": 29_000})).await;
    for number in 0..80 {
        cluster.home.apply_workspace(&format!("w{number}"), json!({})).await;
    }
    eventually("the passes that hang", || async {
        let calls = cluster.home.remote.calls().await;
        let hanging = calls["requestCounters"]["createWorkspaceByKey"].as_u64().unwrap_or_default();
        if hanging >= 50 { Ok(()) } else { Err(hanging.to_string()) }
    })
    .await;
    let started = Instant::now();
    cluster.tenant.workspace("w", json!({})).await;
    assert!(started.elapsed() < Duration::from_secs(15), "it waited {:?} for the other tenant's passes", started.elapsed());
}
