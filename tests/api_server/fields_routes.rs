//! Every spec field of a FileRoute makes a difference outside: it is set, changed and unset while the route runs, a file arrives each time,
//! and the world is looked at. The list of fields comes from the CRD, so a field without a case fails.

#[path = "fields_routes/bench.rs"]
mod bench;
#[path = "fields_routes/cases.rs"]
mod cases;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use serde_json::{Value, json};

use self::bench::Bench;
use self::cases::{REFERENCES, cases};
use super::fields::fields_of;
use crate::support::eventually;
use crate::support::world::condition;

/// Cases at once.
const AT_ONCE: usize = 6;

/// One field with three specs that differ in it alone. `CASE` in a spec stands for the case's own name.
pub struct Case {
    /// The field, as the CRD names it.
    pub field: &'static str,
    /// Everything else of the spec.
    pub base: Value,
    /// The field in the spec.
    pub pointer: String,
    /// One value.
    pub set: Value,
    /// Another.
    pub changed: Value,
    /// The field is required where it stands: it cannot be unset alone.
    pub required: bool,
    /// What happens at the source.
    pub arrive: Arrive,
    /// That nothing happens, or that a file waits, counts once it has lasted so long.
    pub patience: Duration,
}

/// What happens at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrive {
    /// A file is uploaded to both workspaces.
    Upload,
    /// The same; then somebody labels it.
    Label,
    /// The same; then it is deleted.
    Delete,
    /// The same, and the place where it is published is taken.
    Taken,
    /// Objects with documents beside them.
    Objects,
    /// A system pushes.
    Push,
}

impl Case {
    fn with(&self, value: Option<&Value>) -> Value {
        let mut spec = self.base.clone();
        let (parent, name) = self.pointer.rsplit_once('/').expect("a pointer");
        let parent = spec.pointer_mut(parent).unwrap_or_else(|| panic!("{}: {parent}", self.field));
        if let Some(value) = value {
            parent[name] = value.clone();
        }
        spec
    }
}

/// Fields whose difference another test shows: what it takes is not at hand here.
const ELSEWHERE: [(&str, &str); 35] = [
    ("rules[].gate.actions", "api_server/gates.rs a1_only_the_actions_of_a_gate_are_held_back"),
    (
        "rules[].gate.minApprovals",
        "api_server/gates_votes.rs t6_nobody_votes_as_somebody_else_or_twice_or_decides_or_changes_a_decision",
    ),
    (
        "rules[].gate.separationOfDuties",
        "api_server/gates_votes.rs t6_nobody_votes_as_somebody_else_or_twice_or_decides_or_changes_a_decision",
    ),
    ("rules[].gate.timeout.after", "api_server/gates.rs a4_a_timeout_rejects_and_closes_the_ticket_and_a_poll_decides"),
    (
        "rules[].gate.timeout.remindEvery",
        "api_server/gates.rs a4_a_timeout_rejects_and_closes_the_ticket_and_a_poll_decides",
    ),
    ("rules[].gate.timeout.then", "api_server/gates.rs what_a_gate_asks_and_tells_is_what_its_fields_say"),
    (
        "rules[].gate.onApproved",
        "api_server/gates.rs a2_a_change_supersedes_and_asks_again_while_the_earlier_version_stays_visible",
    ),
    ("rules[].gate.onRejected.moveTo", "api_server/gates.rs a4_a_timeout_rejects_and_closes_the_ticket_and_a_poll_decides"),
    ("rules[].gate.ttlAfterDecision", "api_server/gates.rs an_approval_goes_when_it_is_declared_and_its_file_stays"),
    ("rules[].gate.request.ticket", "api_server/gates.rs what_a_gate_asks_and_tells_is_what_its_fields_say"),
    ("rules[].gate.request.ticketUrl", "api_server/gates.rs what_a_gate_asks_and_tells_is_what_its_fields_say"),
    (
        "rules[].gate.request.decision.callback",
        "api_server/gates.rs a1_what_is_gated_waits_for_the_ticket_and_then_goes_its_way",
    ),
    ("rules[].gate.request.decision.poll.query", "api_server/gates.rs what_a_gate_asks_and_tells_is_what_its_fields_say"),
    (
        "rules[].gate.request.decision.poll",
        "api_server/gates.rs a4_a_timeout_rejects_and_closes_the_ticket_and_a_poll_decides",
    ),
    ("rules[].gate.request.update", "api_server/gates.rs what_a_gate_asks_and_tells_is_what_its_fields_say"),
    ("inventory.every", "api_server/routes_inventory.rs inventories_come_as_often_as_the_spec_says"),
    (
        "inventory.ignoreMissing",
        "api_server/routes_inventory.rs r4_a_copy_that_is_gone_is_told_and_delivered_again_when_asked_for",
    ),
    ("connectionRef.name", "api_server/connections.rs the_named_connection_is_used"),
    (
        "connectionRef.namespace",
        "api_server/routes_tenancy.rs t1_a_route_reaches_no_workspace_that_its_namespace_does_not_declare",
    ),
    ("delivery.concurrency", "api_server/fields_routes.rs limits_of_a_route_hold_it_back"),
    ("delivery.bandwidth", "api_server/fields_routes.rs limits_of_a_route_hold_it_back"),
    ("unmatched.ignore", "api_server/fields_routes.rs what_no_rule_takes_stays_moves_or_goes_elsewhere"),
    ("unmatched.to[]", "api_server/fields_routes.rs what_no_rule_takes_stays_moves_or_goes_elsewhere"),
    ("rules[].to[].http.tls.serverName", "destinations/http.rs a_server_name_is_what_the_certificate_must_have"),
    (
        "rules[].to[].http.tls.caRef.kind",
        "destinations/http.rs a_certificate_must_come_from_the_bundle_and_a_corrected_bundle_works_at_once",
    ),
    ("rules[].to[].index.opensearch.tls.serverName", "destinations/index/failures.rs t3_a_cluster_proves_its_name"),
    ("rules[].to[].index.opensearch.tls.caRef.kind", "destinations/index/failures.rs t3_a_cluster_proves_its_name"),
    ("rules[].to[].broker.nats.caRef.kind", "destinations/nats/login.rs t3_a_server_proves_the_name_that_the_route_gives"),
    ("rules[].to[].objectStore.s3.caRef.kind", "destinations/s3.rs t3_the_guard_and_the_authorities_hold_for_s3"),
    // A way to authenticate that an index refuses, whatever is in it.
    (
        "rules[].to[].index.opensearch.auth.hmac",
        "api_server/fields_routes.rs an_index_refuses_ways_to_authenticate_that_it_cannot_use",
    ),
    (
        "rules[].to[].index.opensearch.auth.oauth2",
        "api_server/fields_routes.rs an_index_refuses_ways_to_authenticate_that_it_cannot_use",
    ),
    (
        "rules[].to[].index.opensearch.auth.apiKey.header",
        "destinations/index/failures.rs every_way_to_authenticate_sends_what_it_should",
    ),
    ("rules[].to[].http.auth.hmac.keyRef", "destinations/http.rs a_receiver_can_verify_who_sent_a_body_and_a_content"),
    ("rules[].to[].http.csrf.url", "destinations/http.rs a_csrf_token_is_fetched_once_and_again_when_it_is_refused"),
    (
        "from.objectStore.metadata.tags",
        "api_server/fields_routes.rs user_defined_metadata_of_objects_counts_where_it_is_asked_for",
    ),
];

fn spec_schema() -> JSONSchemaProps {
    let crd = file360_operator::api::crds::all().into_iter().find(|crd| crd.spec.names.kind == "FileRoute").unwrap();
    let root = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    root.properties.unwrap()["spec"].clone()
}

/// The schema at a path such as `rules[].to[].objectStore`.
fn schema_at(path: &str) -> JSONSchemaProps {
    path.split('.').fold(spec_schema(), |schema, part| {
        let property = schema.properties.as_ref().unwrap()[part.trim_end_matches("[]")].clone();
        match property.items {
            Some(JSONSchemaPropsOrArray::Schema(items)) if part.ends_with("[]") => *items,
            _ => property,
        }
    })
}

fn properties_at(path: &str) -> Option<std::collections::BTreeMap<String, JSONSchemaProps>> {
    schema_at(path).properties
}

#[test]
fn every_field_of_the_crd_has_a_case() {
    // Where one type stands twice, its fields are shown once.
    assert_eq!(schema_at("unmatched.to[]"), schema_at("rules[].to[]"));
    for store in ["s3", "sftp", "fs"] {
        let mut source = schema_at(&format!("from.objectStore.{store}"));
        let mut destination = schema_at(&format!("rules[].to[].objectStore.{store}"));
        (source.description, destination.description) = (None, None);
        assert_eq!(source, destination);
    }
    assert_eq!(properties_at("rules[].gate.request.http"), properties_at("rules[].to[].http"));
    let once = |field: &str| match (field.strip_prefix("unmatched.to[]."), field.strip_prefix("from.objectStore.")) {
        (Some(rest), _) => format!("rules[].to[].{rest}"),
        (_, Some(rest)) if ["s3.", "sftp.", "fs."].iter().any(|store| rest.starts_with(store)) => {
            format!("rules[].to[].objectStore.{rest}")
        }
        _ => field.replace("rules[].gate.request.http.", "rules[].to[].http."),
    };
    let fields: BTreeSet<String> = fields_of("FileRoute").iter().map(|field| once(field)).collect();
    let mut shown: BTreeSet<String> = cases(&Addresses::example()).iter().map(|case| case.field.to_owned()).collect();
    for (field, place) in REFERENCES {
        shown.insert(format!("{field}.name"));
        if place != "name only" {
            shown.insert(format!("{field}.key"));
        }
    }
    let elsewhere =
        |field: &str| ELSEWHERE.iter().any(|(known, _)| field == *known || field.starts_with(&format!("{known}.")));
    let missing: Vec<_> = fields.iter().filter(|field| !shown.contains(*field) && !elsewhere(field)).collect();
    assert!(missing.is_empty(), "no case shows what these fields do: {missing:?}");
    let stale: Vec<_> = shown.iter().filter(|field| !fields.contains(*field)).collect();
    assert!(stale.is_empty(), "there are no such fields: {stale:?}");
}

#[test]
fn what_is_shown_elsewhere_is_shown_there() {
    for (field, place) in ELSEWHERE {
        let (file, test) = place.split_once(' ').unwrap();
        let text = std::fs::read_to_string(format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(text.contains(&format!("fn {test}(")), "{field}: {file} has no test {test}");
    }
}

/// Where the programs at the other end are.
pub struct Addresses {
    pub http: String,
    pub s3: String,
    pub nats: String,
    pub search: [String; 2],
    pub sftp_port: u16,
    pub sftp_user: String,
    pub sftp_host_key: String,
    pub sftp_roots: [String; 2],
    /// Nobody listens there.
    pub nobody: u16,
    /// Ids of two workspaces of the case are known when it starts; these stand for them.
    pub ids: [&'static str; 2],
}

impl Addresses {
    fn example() -> Self {
        let text = || "http://127.0.0.1:1".to_owned();
        Self {
            http: text(),
            s3: text(),
            nats: text(),
            search: [text(), text()],
            sftp_port: 1,
            sftp_user: "u".into(),
            sftp_host_key: "ssh-ed25519 A".into(),
            sftp_roots: [text(), text()],
            nobody: 1,
            ids: ["ID-A", "ID-B"],
        }
    }
}

#[tokio::test]
async fn every_field_makes_a_difference_outside_when_set_changed_and_unset() {
    let bench = Bench::start().await;
    let cases = cases(&bench.addresses);
    let runs = cases.iter().enumerate().map(|(number, case)| show(&bench, number, case));
    let wrong: Vec<String> =
        futures::stream::iter(runs).buffer_unordered(AT_ONCE).filter_map(async |found| found).collect().await;
    assert!(wrong.is_empty(), "{} of {} fields:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// What is wrong with a field, if something is.
async fn show(bench: &Bench, number: usize, case: &Case) -> Option<String> {
    let name = format!("f{number}");
    bench.prepare(&name).await;
    let without = case.with(None);
    let before = if case.required { None } else { Some(bench.step(&name, case, "qz-unset", without.clone()).await) };
    let set = bench.step(&name, case, "qz-set", case.with(Some(&case.set))).await;
    let changed = bench.step(&name, case, "qz-changed", case.with(Some(&case.changed))).await;
    if set == changed {
        return Some(format!("{}: changing it makes no difference: {set}", case.field));
    }
    let before = before?;
    if before == set {
        return Some(format!("{}: setting it makes no difference: {set}", case.field));
    }
    let after = bench.step(&name, case, "qz-again", without).await;
    (after != before).then(|| format!("{}: unsetting it leaves something behind: {after}, before {before}", case.field))
}

#[tokio::test]
async fn every_reference_is_read() {
    let bench = Bench::start().await;
    let runs = REFERENCES.iter().enumerate().map(|(number, (field, place))| reads(&bench, number, field, place));
    let wrong: Vec<String> =
        futures::stream::iter(runs).buffer_unordered(AT_ONCE).filter_map(async |found| found).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A reference to what is not there is named in the status; what is wrong, if it is not.
async fn reads(bench: &Bench, number: usize, field: &'static str, place: &str) -> Option<String> {
    let mut parts = vec!["name"];
    if place != "name only" {
        parts.push("key");
    }
    for part in parts {
        let name = format!("r{number}{part}");
        bench.prepare(&name).await;
        let mut reference = json!({"name": "credential", "key": "good"});
        if field.ends_with("caRef") {
            reference["kind"] = json!("Secret");
        }
        if place == "name only" {
            reference.as_object_mut().unwrap().remove("key");
        }
        reference[part] = json!("ghost");
        let spec = cases::with_reference(&bench.addresses, field, &reference);
        bench.put(&name, spec).await;
        bench.arrive(&name, Arrive::Upload, "a").await;
        let api = bench.world.api("FileRoute");
        let started = Instant::now();
        loop {
            let object = serde_json::to_value(api.get(&name).await.unwrap()).unwrap();
            let said = ["Ready", "Backlogged", "DeadLetters"].map(|kind| condition(&object, kind)["message"].to_string());
            if said.iter().any(|message| message.contains("ghost")) {
                break;
            }
            if started.elapsed() > Duration::from_secs(20) {
                return Some(format!("{field}.{part}: nothing names what is not there: {}", object["status"]));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bench.world.delete("FileRoute", &name).await;
    }
    None
}

#[tokio::test]
async fn an_index_refuses_ways_to_authenticate_that_it_cannot_use() {
    let bench = Bench::start().await;
    let reference = json!({"name": "credential", "key": "good"});
    for (way, value) in [
        ("hmac", json!({"keyRef": reference})),
        (
            "oauth2",
            json!({"tokenUrl": format!("{}/token", bench.addresses.http), "clientIdRef": reference, "clientSecretRef": reference}),
        ),
    ] {
        bench.prepare(way).await;
        let spec = cases::index(&bench.addresses, json!({"auth": {way: value}}));
        bench.put(way, spec).await;
        let object = bench.world.reason("FileRoute", way, "Ready", "InvalidSpec").await;
        let message = condition(&object, "Ready")["message"].to_string();
        assert!(message.contains(&format!("index.opensearch.auth.{way}")), "{message}");
    }
}

#[tokio::test]
async fn what_no_rule_takes_stays_moves_or_goes_elsewhere() {
    let bench = Bench::start().await;
    bench.prepare("u").await;
    let with = |unmatched: Value| {
        let mut spec = cases::http(&bench.addresses, json!({}));
        spec["rules"][0]["when"] = json!("false");
        spec["unmatched"] = unmatched;
        spec
    };
    let elsewhere = cases::http(&bench.addresses, json!({}))["rules"][0]["to"].clone();
    for (step, unmatched, path, requests) in [
        ("qz-one", json!({"ignore": {}}), "/Inbox/STEP.txt", 0),
        ("qz-two", json!({"moveTo": "/U1"}), "/U1/STEP.txt", 0),
        ("qz-three", json!({"to": elsewhere}), "/Inbox/STEP.txt", 1),
    ] {
        bench.put("u", with(unmatched)).await;
        bench.world.condition("FileRoute", "u", "Ready", "True").await;
        bench.arrive("u", Arrive::Upload, step).await;
        eventually(step, || async {
            let seen = bench.look("u", step).await;
            let is_so = seen["item"]["path"] == path && seen["requests"].as_array().unwrap().len() == requests;
            if is_so { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    }
    let object = super::routes::counted(&bench.world, "u", "the last file", |counts| counts["unmatched"] != 0).await;
    assert_eq!(object["status"]["rules"][0]["name"], "unmatched");
}

#[tokio::test]
async fn user_defined_metadata_of_objects_counts_where_it_is_asked_for() {
    let bench = Bench::start().await;
    for (tags, wanted) in [(json!(true), json!("7")), (json!(false), Value::Null)] {
        let name = format!("tags-{tags}");
        bench.prepare(&name).await;
        let mut from = cases::s3(&bench.addresses);
        from["prefix"] = json!(format!("{name}/"));
        from["every"] = json!("100ms");
        from["metadata"] = json!({"tags": tags});
        let mut spec = cases::http(&bench.addresses, json!({}));
        spec["from"] = json!({"objectStore": from});
        bench.s3.put_by_hand(&format!("{name}/qz.txt"), "content", &["x-amz-meta-part: 7"]);
        bench.put(&name, spec).await;
        eventually("the object", || async {
            let seen = bench.look(&name, "qz").await;
            let found = &seen["requests"][0]["body"]["metadata"];
            if found.is_object() && found["part"] == wanted { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    }
}

/// A limit is a promise: of so many at once at most, and of a least duration.
#[tokio::test]
async fn limits_of_a_route_hold_it_back() {
    let bench = Bench::start().await;
    bench.prepare("c").await;
    let slow = |delivery: Value| {
        let mut spec = cases::http(&bench.addresses, json!({"url": format!("{}/CASE/busy", bench.addresses.http)}));
        spec["delivery"] = delivery;
        spec
    };
    for (step, limit) in [("one", Some(1)), ("three", Some(3)), ("many", None)] {
        bench.put("c", slow(limit.map_or(json!({}), |limit| json!({"concurrency": limit})))).await;
        bench.world.condition("FileRoute", "c", "Ready", "True").await;
        bench.recorder.reset_peak();
        for number in 0..8 {
            bench.arrive("c", Arrive::Upload, &format!("{step}-{number}")).await;
        }
        eventually("all files", || async {
            let there = bench.recorder.count("c", step);
            if there >= 8 { Ok(()) } else { Err(there.to_string()) }
        })
        .await;
        let peak = bench.recorder.peak();
        match limit {
            Some(limit) => assert!(peak <= limit, "{peak} at once, with a limit of {limit}"),
            None => assert!(peak > 3, "{peak} at once without a limit"),
        }
    }
    bench.prepare("b").await;
    let mut spec = cases::http(&bench.addresses, json!({}));
    spec["rules"][0]["to"][0]["http"].as_object_mut().unwrap().remove("template");
    spec["rules"][0]["to"][0]["send"] = json!("Content");
    spec["delivery"] = json!({"bandwidth": "64Ki"});
    bench.put("b", spec).await;
    bench.world.condition("FileRoute", "b", "Ready", "True").await;
    let id = bench.world.workspace_id("b").await;
    let started = Instant::now();
    bench.world.remote.upload(&id, "/Inbox", "large.txt", &vec![b'x'; 256 << 10]).await;
    eventually("the large file", || async {
        let there = bench.recorder.count("b", "large");
        if there > 0 { Ok(()) } else { Err("nothing".to_owned()) }
    })
    .await;
    assert!(started.elapsed() >= Duration::from_secs(2), "256 KiB at 64 KiB/s took {:?}", started.elapsed());
}
