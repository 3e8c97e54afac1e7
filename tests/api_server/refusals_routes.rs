//! Bad FileRoutes are refused by the API server itself, with a sentence that names the field. The rules come from the CRD: one without an
//! example fails.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::support::kubernetes;
use crate::support::world::World;

/// The schema of the spec, as JSON.
fn schema() -> Value {
    let crd = file360_operator::api::crds::all().into_iter().find(|crd| crd.spec.names.kind == "FileRoute").unwrap();
    let crd = serde_json::to_value(crd).unwrap();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap().clone()
}

/// Calls `found` with the path and the schema of everything in a schema.
fn walk(schema: &Value, path: &str, found: &mut dyn FnMut(&str, &Map<String, Value>)) {
    let Some(here) = schema.as_object() else { return };
    found(path, here);
    for (name, property) in here.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), found);
    }
    if let Some(items) = here.get("items") {
        walk(items, &format!("{path}[]"), found);
    }
}

/// A route that is fine.
fn good() -> Value {
    json!({
        "connectionRef": {"name": "file360"},
        "from": {"workspaces": {"selector": {}}},
        "rules": [{"name": "all", "to": [{"name": "x", "objectStore": {"fs": {"folder": "out"}}, "key": "file.name"}]}],
        "unmatched": {"ignore": {}},
    })
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut spec = good();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match spec.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}")) {
            Value::Array(entries) => entries[name.parse::<usize>().unwrap()] = value.clone(),
            object => object[name] = value.clone(),
        }
    }
    spec
}

async fn refused(world: &World, spec: Value, message: &str) {
    let error = world.try_apply("FileRoute", "bad", spec.clone()).await.expect_err(&format!("{spec} should be refused"));
    let text = error.to_string();
    assert!(text.contains(message), "{spec} is refused with {text:?}, which lacks {message:?}");
}

fn objects() -> Value {
    json!({"objectStore": {"fs": {"folder": "in"}}})
}

#[tokio::test]
async fn every_rule_of_fileroute_refuses_with_its_message() {
    let world = World::without_operator(kubernetes::shared().await).await;
    let until = json!("2030-01-01T00:00:00Z");
    let cases = [
        (with(&[("/from", json!({}))]), "from needs exactly one of workspaces, objectStore and http"),
        (
            with(&[("/from/objectStore", json!({"fs": {"folder": "in"}}))]),
            "from needs exactly one of workspaces, objectStore and http",
        ),
        (with(&[("/unmatched", json!({}))]), "unmatched needs exactly one of ignore, moveTo and to"),
        (with(&[("/unmatched/moveTo", json!("/A"))]), "unmatched needs exactly one of ignore, moveTo and to"),
        (
            with(&[("/from", objects()), ("/unmatched", json!({"moveTo": "/A"}))]),
            "unmatched.moveTo moves files within File 360",
        ),
        (with(&[("/from/workspaces", json!({"path": "/A/**"}))]), "from.workspaces needs names, selector or ids"),
        (with(&[("/lookback", json!("P7D"))]), "lookback needs mode: DryRun"),
        (with(&[("/mode", json!("Apply")), ("/lookback", json!("P7D"))]), "lookback needs mode: DryRun"),
        (
            with(&[("/from", objects()), ("/delivery", json!({"deadLetter": {"moveTo": "/A"}}))]),
            "delivery.deadLetter.moveTo moves files within File 360",
        ),
        (
            with(&[
                ("/from", objects()),
                ("/unmatched", json!({"ignore": {}})),
                ("/rules/0/gate", json!({"actions": ["Upload"]})),
            ]),
            "gate holds back what arrives in File 360",
        ),
        (
            with(&[("/mode", json!("DryRun")), ("/rules/0/gate", json!({"actions": ["Upload"]}))]),
            "gate does not go with mode: DryRun",
        ),
        (
            with(&[("/rules/0/gate", json!({"actions": ["Upload"], "onApproved": ["LockVersion"]}))]),
            "gate.onApproved needs Release",
        ),
        (with(&[("/suspendUntil", until)]), "suspendUntil needs suspend: true"),
        (with(&[("/suspendReason", json!("why"))]), "suspendReason needs suspend: true"),
    ];
    for (spec, message) in &cases {
        refused(&world, spec.clone(), message).await;
    }
    world.apply("FileRoute", "bad", good()).await;
    let immutable = "connectionRef is immutable";
    refused(&world, with(&[("/connectionRef/name", json!("another"))]), immutable).await;
    refused(&world, with(&[("/connectionRef/namespace", json!("another"))]), immutable).await;

    let mut rules = BTreeSet::new();
    walk(&schema(), "spec", &mut |_, schema| {
        let here = schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
        rules.extend(here.map(|rule| rule["message"].as_str().expect("every rule has a message").to_owned()));
    });
    let shown = |rule: &String| rule.starts_with(immutable) || cases.iter().any(|(_, message)| rule.starts_with(message));
    let missing: Vec<_> = rules.iter().filter(|rule| !shown(rule)).collect();
    assert!(missing.is_empty(), "no example breaks these rules: {missing:?}");
}

/// What goes into each place where exactly one of several members is asked for: with none, and with two.
fn choices() -> Vec<(&'static str, Value, &'static str)> {
    let at = "/rules/0/to/0";
    let destination = |value: Value| with(&[(at, value)]);
    let key = || json!({"name": "s", "key": "k"});
    let http = |auth: Value| destination(json!({"name": "x", "http": {"url": "https://a.example/", "auth": auth}}));
    let index = |auth: Value| {
        let target = json!({"url": "https://a.example/", "index": "i", "auth": auth});
        destination(json!({"name": "x", "index": {"opensearch": target, "properties": ["name"]}}))
    };
    let nats = |auth: Value| {
        destination(json!({"name": "x", "broker": {"nats": {"url": "tls://a.example", "subject": "'x'", "auth": auth}}}))
    };
    let publish =
        |reference: Value| destination(json!({"name": "x", "file360": {"workspaceRef": reference, "path": "'/'"}}));
    let fs = || json!({"folder": "out"});
    let sftp = || json!({"host": "a.example", "username": "u", "hostKeys": ["ssh-ed25519 AAAAAAAA"]});
    let two_ways = || json!({"bearer": {"tokenRef": key()}, "mtls": {"secretName": "s"}});
    let to = "spec.rules[0].to[0]";
    vec![
        ("spec.rules[].to[]", destination(json!({"name": "x"})), to),
        ("spec.rules[].to[]", destination(json!({"name": "x", "key": "'x'"})), to),
        (
            "spec.rules[].to[]",
            destination(
                json!({"name": "x", "key": "'x'", "objectStore": {"fs": fs()}, "http": {"url": "https://a.example/"}}),
            ),
            to,
        ),
        ("spec.unmatched.to[]", with(&[("/unmatched", json!({"to": [{"name": "x"}]}))]), "spec.unmatched.to[0]"),
        ("spec.from.objectStore", with(&[("/from", json!({"objectStore": {}}))]), "spec.from.objectStore"),
        (
            "spec.from.objectStore",
            with(&[("/from", json!({"objectStore": {"fs": fs(), "sftp": sftp()}}))]),
            "spec.from.objectStore",
        ),
        ("spec.rules[].to[].objectStore", destination(json!({"name": "x", "key": "'x'", "objectStore": {}})), "objectStore"),
        (
            "spec.rules[].to[].objectStore",
            destination(json!({"name": "x", "key": "'x'", "objectStore": {"fs": fs(), "sftp": sftp()}})),
            "objectStore",
        ),
        ("spec.rules[].to[].file360.workspaceRef", publish(json!({})), "workspaceRef"),
        ("spec.rules[].to[].file360.workspaceRef", publish(json!({"name": "a", "nameFrom": "'b'"})), "workspaceRef"),
        ("spec.rules[].to[].http.auth", http(json!({})), "http.auth"),
        ("spec.rules[].to[].http.auth", http(two_ways()), "http.auth"),
        ("spec.rules[].to[].index.opensearch.auth", index(json!({})), "opensearch.auth"),
        ("spec.rules[].to[].index.opensearch.auth", index(two_ways()), "opensearch.auth"),
        ("spec.rules[].to[].broker.nats.auth", nats(json!({})), "nats.auth"),
        ("spec.rules[].to[].broker.nats.auth", nats(json!({"usernameRef": key()})), "nats.auth"),
        ("spec.rules[].to[].broker.nats.auth", nats(json!({"tokenRef": key(), "credentialsRef": key()})), "nats.auth"),
    ]
}

#[tokio::test]
async fn where_one_of_several_is_asked_for_none_and_two_are_refused() {
    let world = World::without_operator(kubernetes::shared().await).await;
    for (_, spec, field) in choices() {
        refused(&world, spec, field).await;
    }
    // `unmatched.to` has the type of `rules[].to`.
    let shown: BTreeSet<String> = choices().iter().map(|(place, ..)| (*place).to_owned()).collect();
    let mut missing = Vec::new();
    walk(&schema(), "spec", &mut |path, schema| {
        let once = path.replace("spec.unmatched.to[].", "spec.rules[].to[].");
        // So has `gate.request.http`: that of `rules[].to[].http`.
        let once = once.replace("spec.rules[].gate.request.http", "spec.rules[].to[].http");
        if schema.contains_key("oneOf") && !shown.contains(&once) {
            missing.push(path.to_owned());
        }
    });
    assert!(missing.is_empty(), "no example breaks the choice at {missing:?}");
}

#[tokio::test]
async fn values_that_cannot_be_are_refused_by_the_name_of_their_field() {
    let world = World::without_operator(kubernetes::shared().await).await;
    let to = "/rules/0/to/0";
    let destination = |value: Value| with(&[(to, value)]);
    let http = |url: &str| destination(json!({"name": "x", "http": {"url": url}}));
    let index = |properties: Value| {
        destination(
            json!({"name": "x", "index": {"opensearch": {"url": "https://a.example/", "index": "i"}, "properties": properties}}),
        )
    };
    let many = |count: usize, make: &dyn Fn(usize) -> Value| Value::Array((0..count).map(make).collect());
    let rule = |name: String| json!({"name": name, "to": good()["rules"][0]["to"]});
    let cases = [
        (with(&[("/rules", json!([]))]), "spec.rules"),
        (with(&[("/rules", many(65, &|n| rule(format!("r{n}"))))]), "spec.rules"),
        (with(&[("/rules", json!([rule("a".into()), rule("a".into())]))]), "rules"),
        (with(&[("/rules/0/name", json!("Not DNS"))]), "spec.rules[0].name"),
        (with(&[("/rules/0/when", json!(""))]), "spec.rules[0].when"),
        (with(&[("/rules/0/when", json!("x".repeat(4_097)))]), "spec.rules[0].when"),
        (with(&[("/rules/0/to", json!([]))]), "spec.rules[0].to"),
        (with(&[("/rules/0/gate", json!({}))]), "spec.rules[0].gate.actions"),
        (with(&[("/rules/0/gate", json!({"actions": []}))]), "spec.rules[0].gate.actions"),
        (with(&[("/rules/0/gate", json!({"actions": ["Read"]}))]), "spec.rules[0].gate.actions[0]"),
        (with(&[("/rules/0/gate", json!({"actions": ["Upload"], "minApprovals": 0}))]), "gate.minApprovals"),
        (with(&[("/rules/0/gate", json!({"actions": ["Upload"], "timeout": {"after": "soon"}}))]), "gate.timeout.after"),
        (with(&[("/rules/0/gate", json!({"actions": ["Upload"], "ttlAfterDecision": "30"}))]), "gate.ttlAfterDecision"),
        (
            with(&[("/rules/0/gate", json!({"actions": ["Upload"], "onRejected": {"moveTo": "Rejected"}}))]),
            "onRejected.moveTo",
        ),
        (with(&[("/from/workspaces/path", json!("no-slash"))]), "spec.from.workspaces.path"),
        (with(&[("/from/workspaces/events", json!(["Seen"]))]), "spec.from.workspaces.events"),
        (with(&[("/from/workspaces/events", json!([]))]), "spec.from.workspaces.events"),
        (with(&[("/from", json!({"objectStore": {"fs": {"folder": "../etc"}}}))]), "spec.from.objectStore.fs.folder"),
        (
            with(&[("/from", json!({"objectStore": {"fs": {"folder": "in"}, "every": "often"}}))]),
            "spec.from.objectStore.every",
        ),
        (
            with(&[(
                "/from",
                json!({"http": {"path": "A/B", "hmacRef": {"name": "s"}, "inbox": {"workspaceRef": {"name": "w"}, "path": "/"}}}),
            )]),
            "spec.from.http.path",
        ),
        (http("ftp://a.example/"), "spec.rules[0].to[0].http.url"),
        (http("https://user:pw@a.example/"), "spec.rules[0].to[0].http.url"),
        (http("https://a.example/?q=1"), "spec.rules[0].to[0].http.url"),
        (index(json!([])), "index.properties"),
        (index(json!(["content"])), "index.properties[0]"),
        (with(&[("/delivery", json!({"retries": 101}))]), "spec.delivery.retries"),
        (with(&[("/delivery", json!({"concurrency": 0}))]), "spec.delivery.concurrency"),
        (with(&[("/delivery", json!({"bandwidth": "fast"}))]), "spec.delivery.bandwidth"),
        (with(&[("/delivery", json!({"backoff": {"initial": "soon"}}))]), "spec.delivery.backoff.initial"),
        (with(&[("/mode", json!("Perhaps"))]), "spec.mode"),
        (with(&[("/mode", json!("DryRun")), ("/lookback", json!("7 days"))]), "spec.lookback"),
        (with(&[("/unmatched", json!({"moveTo": "Unrouted"}))]), "spec.unmatched.moveTo"),
        (with(&[("/unmatched", json!({"ignore": {"x": 1}}))]), "ignore"),
        (
            with(&[("/tests", many(65, &|n| json!({"name": format!("t{n}"), "given": {}, "expectRule": "all"})))]),
            "spec.tests",
        ),
    ];
    for (spec, field) in cases {
        refused(&world, spec, field).await;
    }
    world.apply("FileRoute", "bad", good()).await;
}
