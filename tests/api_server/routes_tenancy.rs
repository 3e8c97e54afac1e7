//! T1 for routes: what a namespace's routes reach. One operator for all namespaces, on a control plane of its own.

use serde_json::{Value, json};

use super::routes::{arrived, claims, push, to_cases};
use super::tenancy::Cluster;
use crate::support::case_system::CaseSystem;
use crate::support::world::{World, condition};
use crate::support::{free_port, kubernetes};

/// Everybody may use the Connection, for what they declare themselves.
fn declared_only() -> Value {
    json!({"grants": [{"namespaces": {"from": "All"}}]})
}

/// A spec on the Connection of the other namespace.
fn at_home_of(cluster: &Cluster, mut spec: Value) -> Value {
    spec["connectionRef"] = json!({"name": "file360", "namespace": cluster.home.namespace});
    spec
}

/// A workspace that the tenant declares, with an inbox.
async fn own_workspace(cluster: &Cluster, name: &str) -> String {
    let spec = json!({"displayName": name, "folders": [{"path": "/Inbox"}]});
    cluster.tenant.apply("SecureWorkspace", name, at_home_of(cluster, spec)).await;
    cluster.tenant.condition("SecureWorkspace", name, "Ready", "True").await;
    cluster.tenant.workspace_id(name).await
}

/// How often the operator listed the files of a workspace, read records of it, or opened a file.
async fn reads(remote: &World) -> Value {
    let counters = remote.remote.calls().await["requestCounters"].clone();
    json!([counters["listFiles"], counters["getContent"], counters["queryFacets"]])
}

/// What the audit says was downloaded from a workspace.
async fn downloads(world: &World, workspace: &str) -> usize {
    let events = audited(world).await;
    events.iter().filter(|event| event["workspaceId"] == workspace && event["action"] == "getContent").count()
}

async fn audited(world: &World) -> Vec<Value> {
    let mut events = Vec::new();
    let mut cursor = "earliest".to_owned();
    loop {
        let page = world.remote.get(&format!("/v1/audit-events?limit=1000&cursor={cursor}")).await;
        events.extend(page["items"].as_array().cloned().unwrap_or_default());
        if page["hasMore"] != true {
            return events;
        }
        page["nextCursor"].as_str().expect("a cursor").clone_into(&mut cursor);
    }
}

#[tokio::test]
async fn t1_a_route_reaches_no_workspace_that_its_namespace_does_not_declare() {
    let cluster = Cluster::new(declared_only()).await;
    let cases = CaseSystem::start().await;
    let foreign = claims(&cluster.home, "claims").await;
    cluster.home.patch("SecureWorkspace", "claims", json!({"metadata": {"labels": {"type": "claims"}}})).await;
    let secret = cluster.home.remote.upload(&foreign, "/Inbox", "secret.txt", b"not for the neighbour").await;
    let before = reads(&cluster.home).await;

    // By id, which only a grant for the whole tenant allows.
    let mut spec = at_home_of(&cluster, to_cases(&cases, "Content"));
    spec["from"]["workspaces"] = json!({"ids": [foreign]});
    cluster.tenant.apply("FileRoute", "thief", spec.clone()).await;
    let object = cluster.tenant.reason("FileRoute", "thief", "Ready", "ScopeNotGranted").await;
    assert_eq!(condition(&object, "Stalled")["status"], "True", "{}", object["status"]);
    assert_eq!(reads(&cluster.home).await, before, "nothing was read");

    // By label and by name: those of its own namespace, of which there are none.
    spec["from"]["workspaces"] = json!({"selector": {"matchLabels": {"type": "claims"}}, "names": ["claims"]});
    cluster.tenant.apply("FileRoute", "thief", spec.clone()).await;
    cluster.tenant.condition("FileRoute", "thief", "Ready", "True").await;
    // By an empty selector: its own only.
    let own = own_workspace(&cluster, "own").await;
    cluster.tenant.delete_and_wait("FileRoute", "thief").await;
    spec["from"]["workspaces"] = json!({"selector": {}});
    cluster.tenant.apply("FileRoute", "all", spec.clone()).await;
    cluster.tenant.condition("FileRoute", "all", "Ready", "True").await;
    cluster.home.remote.upload(&foreign, "/Inbox", "another.txt", b"not for the neighbour").await;
    cluster.home.remote.upload(&own, "/Inbox", "own.txt", b"the tenant's own").await;
    arrived(&cases, 1).await;
    assert_eq!(cases.accepted()[0].body, b"the tenant's own");
    assert_eq!(downloads(&cluster.home, &foreign).await, 0);
    assert_eq!(downloads(&cluster.home, &own).await, 1, "the audit would show it");
    let item = cluster.home.remote.get(&format!("/v1/items/{secret}")).await;
    assert_eq!((&item["path"], &item["metadata"]), (&json!("/Inbox/secret.txt"), &Value::Null), "{item}");

    // As a destination: a name stands for one of its own, whatever else the text is.
    for (at, reference) in [
        json!({"name": "claims"}),
        json!({"nameFrom": format!("'{}/claims'", cluster.home.namespace)}),
        json!({"nameFrom": format!("'{foreign}'")}),
    ]
    .into_iter()
    .enumerate()
    {
        let to = json!([{"name": "publish", "file360": {"workspaceRef": reference, "path": "'/Planted'"}}]);
        spec["rules"] = json!([{"name": "all", "to": to}]);
        spec["delivery"] = json!({"retries": 0});
        let name = format!("planter-{at}");
        cluster.tenant.apply("FileRoute", &name, spec.clone()).await;
        let object = cluster.tenant.condition("FileRoute", &name, "DeadLetters", "True").await;
        let error = object["status"]["deadLetters"][0]["error"].as_str().unwrap();
        assert!(error.contains("of this namespace has no workspace"), "{error}");
    }
    let folders = cluster.home.remote.all(&format!("/v1/workspaces/{foreign}/folders")).await;
    assert!(folders.iter().all(|folder| folder["path"] != "/Planted"), "{folders:?}");

    // The grant decides: with scope Tenant, the id works.
    cluster.home.apply_connection(json!({"grants": [{"namespaces": {"from": "All"}, "scope": "Tenant"}]})).await;
    let mut spec = at_home_of(&cluster, to_cases(&cases, "Content"));
    spec["from"]["workspaces"] = json!({"ids": [foreign]});
    cluster.tenant.apply("FileRoute", "allowed", spec).await;
    arrived(&cases, 3).await;
    // And its end is the route's end.
    cluster.home.apply_connection(declared_only()).await;
    cluster.tenant.reason("FileRoute", "allowed", "Ready", "ScopeNotGranted").await;
    let opened = downloads(&cluster.home, &foreign).await;
    cluster.home.remote.upload(&foreign, "/Inbox", "late.txt", b"after the end").await;
    cluster.home.remote.upload(&own, "/Inbox", "own-2.txt", b"the tenant's own, again").await;
    arrived(&cases, 4).await;
    assert_eq!(downloads(&cluster.home, &foreign).await, opened);
}

#[tokio::test]
async fn t1_secrets_and_ingest_paths_are_those_of_the_routes_namespace() {
    let address = format!("127.0.0.1:{}", free_port());
    let public = format!("http://{address}");
    let cluster = Cluster::with_flags(declared_only(), &["--inbound-address", &address, "--public-url", &public]).await;
    let (home, tenant) = (&cluster.home, &cluster.tenant);
    let cases = CaseSystem::start().await;
    let secret =
        |values: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "erp"}, "stringData": values});
    let apply_secret = async |world: &World, values: Value| {
        kubernetes::apply(&world.client, &world.namespace, &secret(values)).await.unwrap();
    };
    let (home_key, tenant_key) = ("the key of the home namespace 1", "the key of the tenant namespace");
    apply_secret(home, json!({"2026": home_key, "token": "of the home namespace"})).await;
    let own = own_workspace(&cluster, "own").await;
    home.remote.upload(&own, "/Inbox", "own.txt", b"the tenant's own").await;

    // There is no field for the namespace of a Secret.
    let mut spec = at_home_of(&cluster, to_cases(&cases, "Content"));
    spec["rules"][0]["to"][0]["http"]["auth"] =
        json!({"bearer": {"tokenRef": {"name": "erp", "key": "token", "namespace": home.namespace}}});
    let error = tenant.try_apply("FileRoute", "thief", spec.clone()).await.unwrap_err().to_string();
    assert!(error.contains("namespace"), "{error}");
    // The name alone stands for one of its own, and there is none.
    spec["rules"][0]["to"][0]["http"]["auth"] = json!({"bearer": {"tokenRef": {"name": "erp", "key": "token"}}});
    tenant.apply("FileRoute", "thief", spec.clone()).await;
    let object = tenant.condition("FileRoute", "thief", "Backlogged", "True").await;
    let message = condition(&object, "Backlogged")["message"].to_string();
    assert!(message.contains("Secret erp does not exist in this namespace"), "{message}");
    assert!(cases.accepted().is_empty());
    // Its own works; and goes only to hosts that it names.
    apply_secret(tenant, json!({"2026": tenant_key, "token": "of the tenant"})).await;
    arrived(&cases, 1).await;
    assert_eq!(cases.accepted()[0].headers["authorization"], "Bearer of the tenant");
    let elsewhere = format!("https://localhost:{}/cases", free_port());
    spec["rules"][0]["to"][0]["http"]["url"] = json!(elsewhere);
    tenant.apply("FileRoute", "unbound", spec).await;
    let object = tenant.condition("FileRoute", "unbound", "Backlogged", "True").await;
    let message = condition(&object, "Backlogged")["message"].to_string();
    assert!(message.contains("allowedHosts") && message.contains("localhost"), "{message}");
    assert!(!message.contains("of the tenant"), "t5: {message}");

    // Each namespace has its own paths, its own keys and its own inbox.
    claims(home, "claims").await;
    let ingest = |workspace: &str| {
        let http = json!({"path": "erp", "hmacRef": {"name": "erp"}, "inbox": {"workspaceRef": {"name": workspace}, "path": "/Inbox"}});
        let mut spec = to_cases(&cases, "Content");
        spec["from"] = json!({"http": http});
        at_home_of(&cluster, spec)
    };
    home.apply("FileRoute", "erp", ingest("claims")).await;
    home.condition("FileRoute", "erp", "Ready", "True").await;
    let path = |world: &World| format!("{public}/ingest/{}/erp", world.namespace);
    crate::support::eventually("the endpoint", || async {
        let status = push(&path(home), home_key, "first", b"from the ERP system").await;
        (status == 201).then_some(()).ok_or_else(|| status.to_string())
    })
    .await;
    // The answer does not tell whether there is such a path: the tenant declares none yet.
    for (world, key) in [(tenant, tenant_key), (tenant, home_key), (home, tenant_key)] {
        assert_eq!(push(&path(world), key, "second", b"x").await, 401);
    }
    // The name of the other namespace's workspace is none of its own.
    tenant.apply("FileRoute", "erp", ingest("claims")).await;
    tenant.condition("FileRoute", "erp", "Ready", "True").await;
    let refused = push(&path(tenant), tenant_key, "fourth", b"x").await;
    assert!(refused >= 400, "{refused}");
    tenant.apply("FileRoute", "erp", ingest("own")).await;
    crate::support::eventually("the tenant's endpoint", || async {
        let status = push(&path(tenant), tenant_key, "fifth", b"from the tenant's system").await;
        (status == 201).then_some(()).ok_or_else(|| status.to_string())
    })
    .await;
    let files = |workspace: String| async move {
        let all = home.remote.all(&format!("/v1/workspaces/{workspace}/files")).await;
        all.iter().map(|file| file["name"].as_str().unwrap().to_owned()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(files(home.workspace_id("claims").await).await, ["first.txt".to_owned()].into());
    assert_eq!(files(own).await, ["fifth.txt".to_owned(), "own.txt".to_owned()].into());
}
