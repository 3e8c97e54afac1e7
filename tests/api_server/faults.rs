//! What File 360 can do wrong: each has its condition with a sentence that says what to do, and recovers without a restart.

use serde_json::{Value, json};

use super::convergence::{neutral, rich};
use crate::support::remote::CLIENT_SECRET;
use crate::support::world::{World, condition};
use crate::support::{eventually, kubernetes};

/// The end state of the rich workspace in a world where nothing goes wrong.
async fn undisturbed() -> String {
    let world = World::new().await;
    world.workspace("w", rich()).await;
    neutral(&world.remote.state().await, &world)
}

#[tokio::test]
async fn c2_storms_of_errors_lost_replies_and_broken_answers_end_in_the_same_state() {
    let expected = undisturbed().await;
    let storms = [
        json!({"status": 429, "retryAfter": 1, "count": 5}),
        json!({"status": 503, "retryAfter": 1, "count": 3}),
        json!({"status": 500, "count": 4}),
        json!({"method": "PUT", "afterCommit": true, "count": 2}),
        json!({"method": "POST", "afterCommit": true, "count": 2}),
        json!({"method": "PUT", "truncateBody": true, "count": 2}),
        json!({"method": "PUT", "malformed": true, "count": 2}),
    ];
    // Each waits for back-offs most of the time, so they wait together.
    let runs = storms.map(|mut storm| {
        let expected = &expected;
        async move {
            let world = World::new().await;
            storm["pathPrefix"] = json!("/v1/workspaces");
            world.remote.faults(json!({"failNext": [storm]})).await;
            world.workspace("w", rich()).await;
            assert_eq!(&neutral(&world.remote.state().await, &world), expected, "after {storm}");
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn a_slow_pass_says_so_and_leaves_no_trace() {
    let world = World::new().await;
    world.workspace("w", json!({})).await;
    world.remote.faults(json!({"latencyMs": 1500})).await;
    let request = json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": "now"}}});
    world.patch("SecureWorkspace", "w", request).await;
    world.reason("SecureWorkspace", "w", "Reconciling", "Progressing").await;
    let is_handled = |object: &Value| object["status"]["lastHandledReconcileAt"] == "now";
    let object = world.until("SecureWorkspace", "w", "the end of the pass", is_handled).await;
    assert_eq!(condition(&object, "Reconciling"), Value::Null, "it found nothing to do, and is over");

    // A finalizer that is due after the announcement is no conflict with it.
    world.workspace("w", json!({"uploadRequests": [{"name": "docs", "path": "/"}]})).await;
    let object = world.get("SecureWorkspace", "w").await;
    assert_eq!(condition(&object, "Reconciling"), Value::Null);
    assert!(object["metadata"]["finalizers"].is_array());
    assert!(!world.log().contains("The pass failed"), "{}", world.log());
}

#[tokio::test]
async fn an_expired_cursor_leads_to_a_listing_and_nothing_is_missed() {
    let world = World::new().await;
    world.workspace("w", json!({"displayName": "Declared"})).await;
    let state = world.remote.state().await;
    let id = world.workspace_id("w").await;
    world.remote.faults(json!({"expireCursors": true})).await;
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Changed"})).await;
    world.remote.faults(json!({})).await;
    world.remote_becomes(&state).await;
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Changed again"})).await;
    world.remote_becomes(&state).await;
}

#[tokio::test]
async fn a_replaced_feed_history_leads_to_a_listing() {
    let world = World::new().await;
    world.workspace("w", json!({"displayName": "Declared"})).await;
    let state = world.remote.state().await;
    let id = world.workspace_id("w").await;
    world.remote.faults(json!({"feedEpochBump": true})).await;
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Changed"})).await;
    world.remote_becomes(&state).await;
}

#[tokio::test]
async fn rejected_tokens_are_named_and_recover() {
    let world = World::new().await;
    world.remote.faults(json!({"rejectTokens": true})).await;
    let object = world.reason("Connection", "file360", "Ready", "AuthenticationFailed").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().len() > 20);
    // The switchboard itself takes no token.
    let answer = reqwest::Client::new()
        .put(format!("{}/test/faults", world.remote.url))
        .body("{}")
        .header("content-type", "application/json");
    answer.send().await.unwrap();
    world.condition("Connection", "file360", "Ready", "True").await;
    world.workspace("w", json!({})).await;
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_and_named() {
    let mut world = World::without_operator(kubernetes::shared().await).await;
    world.remote.faults(json!({"failNext": [{"pathPrefix": "/v1/service", "endless": true, "count": 3}]})).await;
    world.start_operator(&[]).await;
    world.apply_connection(json!({})).await;
    world.reason("Connection", "file360", "Ready", "InvalidAnswer").await;
    world.condition("Connection", "file360", "Ready", "True").await;
    let metrics = world.operator.as_ref().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", metrics.pid())).unwrap();
    let peak: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 400 * 1024, "the operator grew to {peak} KiB over an endless answer");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_named_and_a_corrected_bundle_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();

    let mut world = World::without_operator(kubernetes::shared().await).await;
    world.start_operator(&["--secret-interval", "1s"]).await;
    let tls_folder = tempfile::tempdir().unwrap();
    let flags = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let (_server, url) = crate::support::remote::start_tls(tls_folder.path(), &flags, made.cert.pem().as_bytes()).await;
    world.endpoint = url;
    let bundle =
        |pem: String| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": pem}});
    kubernetes::apply(&world.client, &world.namespace, &bundle(other.cert.pem())).await.unwrap();
    world.apply_connection(json!({"tls": {"caRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}}})).await;
    let object = world.reason("Connection", "file360", "Ready", "TlsFailed").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("caRef"));
    kubernetes::apply(&world.client, &world.namespace, &bundle(made.cert.pem())).await.unwrap();
    world.condition("Connection", "file360", "Ready", "True").await;
}

#[tokio::test]
async fn t3_an_endpoint_inside_the_cluster_is_refused_unless_it_is_allowed() {
    let world = World::without_operator(kubernetes::shared().await).await;
    let operator = world.spawn_plain(&["--outbound-allow", "192.0.2.1"]);
    world.apply_connection(json!({})).await;
    let object = world.reason("Connection", "file360", "Ready", "EndpointRefused").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("--outbound-allow"));
    operator.kill();
}

#[tokio::test]
async fn no_secret_shows_up_anywhere_even_at_trace_level() {
    let mut world = World::without_operator(kubernetes::shared().await).await;
    world.start_operator(&["--log", "trace"]).await;
    world.connect().await;
    world.workspace("w", rich()).await;
    // A server that throws the credential back into the operator's face.
    world.apply_secret("credential", "operator", "wrong-canary-5d1e").await;
    world
        .patch("Connection", "file360", json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": "1"}}}))
        .await;
    world.reason("Connection", "file360", "Ready", "AuthenticationFailed").await;
    world.apply_secret("credential", "operator", CLIENT_SECRET).await;
    world.delete_and_wait("SecureWorkspace", "w").await;
    let operator = world.operator.as_ref().unwrap();
    let metrics = reqwest::get(format!("http://{}/metrics", operator.address)).await.unwrap().text().await.unwrap();
    let mut seen = vec![("log", world.log()), ("metrics", metrics)];
    for kind in ["Connection", "SecureWorkspace", "Event"] {
        let all = world.api(kind).list(&kube::api::ListParams::default()).await.unwrap();
        seen.push((kind, serde_json::to_string(&all.items).unwrap()));
    }
    let token = std::fs::read_to_string(&world.kubeconfig).unwrap();
    let token: Value = serde_json::from_str(&token).unwrap();
    let service_account = token["users"][0]["user"]["token"].as_str().unwrap().to_owned();
    for (place, text) in seen {
        assert!(text.len() > 100 || place == "SecureWorkspace", "{place} was looked at");
        for canary in [CLIENT_SECRET, "wrong-canary-5d1e", service_account.as_str(), "access_token"] {
            assert!(!text.contains(canary), "{canary} shows up in {place}");
        }
        assert!(!text.to_lowercase().contains("bearer ey"), "a token shows up in {place}");
    }
}

#[tokio::test]
async fn a_paused_api_server_and_a_restarted_one_lose_nothing() {
    let plane = crate::support::controlplane::ControlPlane::start(&[]);
    kubernetes::install_crds(&kubernetes::client(&plane.kubeconfig).await).await;
    let mut world = World::without_operator(&plane).await;
    world.start_operator(&[]).await;
    world.connect().await;
    world.workspace("before", json!({"displayName": "Before"})).await;
    plane.command("restart kube-apiserver");
    plane.command("restart etcd");
    let spec = crate::support::world::on_connection(json!({"displayName": "After"}));
    eventually("the API server", || async {
        world.try_apply("SecureWorkspace", "after", spec.clone()).await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    world.condition("SecureWorkspace", "after", "Ready", "True").await;
    let id = world.workspace_id("before").await;
    let state = world.remote.state().await;
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Changed"})).await;
    world.remote_becomes(&state).await;
}
