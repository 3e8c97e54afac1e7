//! C2 for sets: the operator dies before, after and with the lost reply of every mutating request while it generates, changes, archives and deletes,
//! and starts again. The end is that of the undisturbed run: every item its one workspace, and none that nobody asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use serde_json::{Value, json};

use super::convergence::neutral;
use super::crash_points::scripted;
use super::sets::{apply, children, from_crm, generated};
use super::sets_events::{KEY, Push, from_events, keys, until_taken};
use crate::support::crm::{Crm, deal};
use crate::support::proxy::{MOMENTS, Moment, Script};
use crate::support::world::World;
use crate::support::{eventually, free_port};

/// Worlds at once.
const AT_ONCE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// Two items become workspaces.
    Generate,
    /// One changes, one comes, one is archived.
    Change,
    /// The set goes with its workspaces.
    Delete,
    /// An event is pushed until it is taken.
    Event,
}

struct Ends {
    crm: Crm,
    inbound: String,
}

impl Ends {
    async fn start_operator(&self, world: &mut World) {
        world.start_operator(&["--inbound-address", &self.inbound]).await;
    }
}

fn spec(crm: &Crm) -> Value {
    let mut spec = from_crm(crm);
    spec["template"] = json!({"spec": {"displayName": "${item.name}", "externalRef": {"system": "crm", "type": "deal", "id": "${item.id}"}}});
    spec["onItemGone"] = json!("Archive");
    spec["onDelete"] = json!("DeleteChildren");
    spec
}

impl Scenario {
    async fn prepare(self, world: &World, ends: &Ends) {
        if matches!(self, Self::Change | Self::Delete) {
            generated(world, "deals", spec(&ends.crm)).await;
            world.condition("SecureWorkspaceSet", "deals", "ChildrenReady", "True").await;
        }
        if self == Self::Event {
            keys(world, json!({"2026": KEY})).await;
            generated(world, "deals", from_events("deals")).await;
        }
    }

    async fn begin(self, world: &World, ends: &Ends) {
        match self {
            Self::Generate => apply(world, "deals", spec(&ends.crm)).await,
            Self::Change => {
                let mut changed = deal("b");
                changed["name"] = json!("Renamed");
                ends.crm.lists(&[changed, deal("c")]);
            }
            Self::Delete => world.delete("SecureWorkspaceSet", "deals").await,
            Self::Event => {
                let url = format!("http://{}/events/{}/deals", ends.inbound, world.namespace);
                tokio::spawn(async move { until_taken(&Push::won(&url, "e1", &deal("a"))).await });
            }
        }
    }

    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Generate => &["a", "b"],
            Self::Change => &["b", "c"],
            Self::Delete => &[],
            Self::Event => &["a"],
        }
    }

    /// Both ends, once everything is as it should be.
    async fn end(self, world: &World) -> String {
        let what = format!("{self:?}: the end");
        eventually(&what, || async {
            let children = children(world, "deals").await;
            if children.keys().map(String::as_str).collect::<Vec<_>>() != self.keys() {
                return Err(format!("{:?}", children.keys()));
            }
            let set = world.api("SecureWorkspaceSet").get_opt("deals").await.unwrap();
            let set = set.map_or(Value::Null, |set| serde_json::to_value(set).unwrap());
            let is_done = match self {
                Self::Delete => set.is_null(),
                _ => set["status"]["ready"] == self.keys().len() && set["status"]["items"] == self.keys().len(),
            };
            if is_done { Ok(()) } else { Err(set["status"].to_string()) }
        })
        .await;
        let set = world.api("SecureWorkspaceSet").get_opt("deals").await.unwrap();
        let set = set.map_or(Value::Null, |set| serde_json::to_value(set).unwrap());
        let conditions: Vec<Value> = set["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| json!([one["type"], one["status"], one["reason"]]))
            .collect();
        let shown = |child: &Value| {
            let annotations = &child["metadata"]["annotations"];
            let marks = ["set-item", "set-generator", "set-applied", "set-events"]
                .map(|name| annotations[format!("file360.io/{name}")].clone());
            json!([child["metadata"]["name"], marks, child["spec"], child["metadata"]["finalizers"]])
        };
        let children: Vec<Value> = children(world, "deals").await.values().map(shown).collect();
        let remote = world.remote.state().await;
        neutral(&json!({"remote": remote, "children": children, "conditions": conditions}), world)
    }
}

/// One run; the end state, and what was asked.
async fn run(scenario: Scenario, crash: Option<(usize, Moment)>, expected: Option<&str>) -> (String, Vec<String>) {
    let script = Script::new(crash);
    let ends = Ends { crm: Crm::start(&["a", "b"].map(deal)).await, inbound: format!("127.0.0.1:{}", free_port()) };
    let mut world = scripted(&script, &["--inbound-address", &ends.inbound]).await;
    scenario.prepare(&world, &ends).await;
    script.arm();
    scenario.begin(&world, &ends).await;
    // The number of requests differs a little from run to run: the last ones may not come.
    tokio::select! { () = script.die.notified() => {}, _ = scenario.end(&world) => {} }
    let lines = script.lines.lock().clone();
    if crash.is_some() {
        world.kill_operator();
        script.dead.store(true, Ordering::SeqCst);
        script.disarm();
        ends.start_operator(&mut world).await;
    }
    script.disarm();
    let end = match expected {
        None => scenario.end(&world).await,
        Some(expected) => {
            let what =
                format!("{scenario:?}, killed at {crash:?} ({:?}): the end of the undisturbed run {expected}", lines.last());
            eventually(&what, || async {
                let state = scenario.end(&world).await;
                if state == expected { Ok(state) } else { Err(state) }
            })
            .await
        }
    };
    (end, lines)
}

async fn survives(scenario: Scenario) {
    let (undisturbed, lines) = run(scenario, None, None).await;
    println!("{scenario:?}: N = {} mutating requests, {} runs", lines.len(), 3 * lines.len());
    assert!(lines.len() >= 3, "the proxies see too little: {lines:?}");
    let undisturbed = Arc::new(undisturbed);
    let points = (1..=lines.len()).flat_map(|at| MOMENTS.map(|moment| (at, moment)));
    let runs = points.map(|point| {
        let undisturbed = undisturbed.clone();
        async move { run(scenario, Some(point), Some(&undisturbed)).await }
    });
    futures::stream::iter(runs).buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
}

#[tokio::test]
async fn c2_items_become_workspaces_whatever_request_the_operator_dies_at() {
    survives(Scenario::Generate).await;
}

#[tokio::test]
async fn c2_items_change_come_and_go_whatever_request_the_operator_dies_at() {
    survives(Scenario::Change).await;
}

#[tokio::test]
async fn c2_a_set_takes_its_workspaces_with_it_whatever_request_the_operator_dies_at() {
    survives(Scenario::Delete).await;
}

#[tokio::test]
async fn c2_an_event_that_was_acknowledged_has_its_workspace_whatever_request_the_operator_dies_at() {
    survives(Scenario::Event).await;
}
