//! C2: the operator dies before, after and with the lost reply of every single mutating request, to File 360 and to the API
//! server, and starts again without its volumes. The end state is that of the undisturbed run.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};

use super::convergence::{neutral, rich};
use crate::support::proxy::{self, MOMENTS, Moment, Script};
use crate::support::world::{World, condition};
use crate::support::{eventually, kubernetes};

/// What happens to a workspace while the operator may die.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    Create,
    Change,
    Delete,
    Adopt,
}

fn changed() -> Value {
    json!({
        "displayName": "Changed",
        "externalRef": {"system": "s4", "type": "vendor", "id": "50031/ä 1"},
        "metadata": {"region": "US", "new": "1"},
        "folders": [{"path": "/Inbox", "metadata": {"purpose": "other"}}, {"path": "/New/Deep"}],
        "access": {"members": [
            {"kind": "Group", "name": "group0", "role": "Viewer"},
            {"kind": "User", "name": "user7", "role": "Manager"},
            {"kind": "Guest", "name": "eve@acme.example", "role": "Viewer"},
        ]},
        "sharing": {"external": "AllowListed", "allowedDomains": ["acme.example"]},
        "uploadRequests": [{"name": "more", "path": "/New/Deep", "writeUrlTo": {"secretName": "more"}}],
    })
}

impl Scenario {
    async fn prepare(self, world: &World) {
        match self {
            Self::Create => {}
            Self::Change | Self::Delete => {
                world.workspace("w", rich()).await;
            }
            Self::Adopt => {
                let body = json!({"displayName": "By people", "metadata": {"region": "APAC"}});
                let path = "/v1/workspaces/by-key/s4/vendor%2F50031%2F%C3%A4%201";
                let (status, made) = world.remote.call("PUT", path, &[("if-none-match", "*")], Some(body)).await;
                assert_eq!(status, 201, "{made}");
                let folders = format!("/v1/workspaces/{}/folders", made["id"].as_str().unwrap());
                world.remote.change("POST", &folders, json!({"path": "/Inbox"})).await;
                world.remote.change("POST", &folders, json!({"path": "/Theirs"})).await;
            }
        }
    }

    async fn begin(self, world: &World) {
        match self {
            Self::Create => world.apply_workspace("w", rich()).await,
            Self::Change => world.apply_workspace("w", changed()).await,
            Self::Delete => world.delete("SecureWorkspace", "w").await,
            Self::Adopt => {
                let mut spec = rich();
                spec["adoption"] = json!("AdoptOrCreate");
                world.apply_workspace("w", spec).await;
            }
        }
    }

    async fn end(self, world: &World) -> String {
        let object = match self {
            Self::Delete => {
                world.gone("SecureWorkspace", "w").await;
                json!(null)
            }
            _ => world.condition("SecureWorkspace", "w", "Ready", "True").await,
        };
        let mut notices = world.remote.all("/v1/notifications").await;
        notices.iter_mut().for_each(|notice| *notice = json!([notice["template"], notice["to"]]));
        notices.sort_by_key(ToString::to_string);
        let secrets = world.api("Secret").list(&kube::api::ListParams::default()).await.unwrap();
        let secrets: Vec<_> = secrets.items.iter().map(|secret| secret.metadata.name.clone()).collect();
        let status = json!({
            "ready": condition(&object, "Ready")["reason"], "access": object["status"]["access"],
            "drift": object["status"]["drift"], "finalizers": object["metadata"]["finalizers"],
        });
        let state = world.remote.state().await;
        neutral(&json!({"remote": state, "status": status, "secrets": secrets, "notices": notices}), world)
    }
}

/// A world in which both ends are reached through proxies that follow `script`; the operator has these flags.
pub async fn scripted(script: &Arc<Script>, flags: &[&str]) -> World {
    let plane = kubernetes::shared().await;
    let mut world = World::without_operator(plane).await;
    let text = std::fs::read_to_string(&world.kubeconfig).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let cluster = &config["clusters"][0]["cluster"];
    let pem =
        base64::engine::general_purpose::STANDARD.decode(cluster["certificate-authority-data"].as_str().unwrap()).unwrap();
    let authority = reqwest::Certificate::from_pem(&pem).unwrap();
    let tls = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    let api_server = proxy::start(cluster["server"].as_str().unwrap(), tls, script.clone()).await;
    world.api_server_through(&api_server);
    world.endpoint = proxy::start(&world.remote.url, plain, script.clone()).await;
    world.start_operator(flags).await;
    world.connect().await;
    world
}

/// One run; the end state.
async fn run(scenario: Scenario, crash: Option<(usize, Moment)>) -> (String, Arc<Script>) {
    let script = Script::new(crash);
    let mut world = scripted(&script, &[]).await;
    scenario.prepare(&world).await;
    script.arm();
    scenario.begin(&world).await;
    if crash.is_some() {
        eventually("the crash", || async {
            tokio::select! {
                () = script.die.notified() => Ok(()),
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => Err(format!("{:?}", script.lines.lock())),
            }
        })
        .await;
        world.kill_operator();
        script.dead.store(true, std::sync::atomic::Ordering::SeqCst);
        script.disarm();
        world.start_operator(&[]).await;
    }
    let end = scenario.end(&world).await;
    (end, script)
}

async fn every_crash_point(scenario: Scenario) {
    let (undisturbed, script) = run(scenario, None).await;
    let lines = script.lines.lock().clone();
    println!("{scenario:?}: N = {} mutating requests, {} runs", lines.len(), 3 * lines.len());
    assert!(lines.len() >= 4, "the proxies see too little: {lines:?}");
    for (at, line) in lines.iter().enumerate() {
        for moment in MOMENTS {
            let (end, _) = run(scenario, Some((at + 1, moment))).await;
            assert_eq!(end, undisturbed, "{scenario:?}: killed {moment:?} request {} ({line})", at + 1);
        }
    }
}

#[tokio::test]
async fn c2_creating_survives_every_crash_point() {
    every_crash_point(Scenario::Create).await;
}

#[tokio::test]
async fn c2_changing_survives_every_crash_point() {
    every_crash_point(Scenario::Change).await;
}

#[tokio::test]
async fn c2_deleting_survives_every_crash_point() {
    every_crash_point(Scenario::Delete).await;
}

#[tokio::test]
async fn c2_adopting_survives_every_crash_point() {
    every_crash_point(Scenario::Adopt).await;
}
