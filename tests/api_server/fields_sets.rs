//! Every spec field of a SecureWorkspaceSet makes a difference outside: it is set, changed and unset, and the world is looked at each time. The list of
//! fields comes from the CRD, so a field without a case fails. Bad sets are refused by the API server itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fields::fields_of;
use super::sets::{children, from_list};
use super::sets_events::{KEY, Push, world};
use crate::support::crm::{Crm, deal};
use crate::support::eventually;
use crate::support::world::{World, condition};

/// One field with three specs that differ in it alone.
struct Case {
    field: &'static str,
    base: Value,
    pointer: &'static str,
    set: Value,
    changed: Value,
    required: bool,
}

fn case(field: &'static str, base: &Value, pointer: &'static str, set: Value, changed: Value) -> Case {
    Case { field, base: base.clone(), pointer, set, changed, required: false }
}

fn required(field: &'static str, base: &Value, pointer: &'static str, set: Value, changed: Value) -> Case {
    Case { required: true, ..case(field, base, pointer, set, changed) }
}

impl Case {
    fn with(&self, value: Option<&Value>) -> Value {
        let mut spec = self.base.clone();
        let (parent, name) = self.pointer.rsplit_once('/').expect("a pointer");
        let parent = spec.pointer_mut(parent).unwrap_or_else(|| panic!("{}: {parent}", self.field)).as_object_mut().unwrap();
        parent.remove(name);
        if let Some(value) = value {
            parent.insert(name.to_owned(), value.clone());
        }
        spec
    }
}

fn cases(crm: &str, other: &str) -> Vec<Case> {
    let spec = |generator: Value| json!({"generators": [generator], "template": {"metadata": {}, "spec": {"displayName": "${item.name}"}}});
    let list = spec(json!({"name": "l", "list": {"items": [deal("a")], "key": "item.id"}}));
    let http = spec(json!({"name": "h", "http": {"url": crm, "items": "body.records", "key": "item.id", "every": "1h"}}));
    let events =
        spec(json!({"name": "e", "events": {"path": "fields", "hmacRef": {"name": "crm"}, "key": "event.data.id"}}));
    let suspended = {
        let mut suspended = list.clone();
        suspended["suspend"] = json!(true);
        suspended
    };
    vec![
        required("generators[].name", &list, "/generators/0/name", json!("one"), json!("two")),
        required(
            "generators[].list.items",
            &list,
            "/generators/0/list/items",
            json!([deal("a")]),
            json!([deal("a"), deal("b")]),
        ),
        required("generators[].list.key", &list, "/generators/0/list/key", json!("item.id"), json!("item.owner")),
        required("generators[].http.url", &http, "/generators/0/http/url", json!(crm), json!(other)),
        case("generators[].http.query", &http, "/generators/0/http/query", json!({"q": "'1'"}), json!({"q": "'2'"})),
        case("generators[].http.headers", &http, "/generators/0/http/headers", json!({"X-Q": "'1'"}), json!({"X-Q": "'2'"})),
        required(
            "generators[].http.items",
            &http,
            "/generators/0/http/items",
            json!("body.records"),
            json!("body.records.filter(r, r.id == 'a')"),
        ),
        required("generators[].http.key", &http, "/generators/0/http/key", json!("item.id"), json!("item.name")),
        case(
            "generators[].http.next",
            &http,
            "/generators/0/http/next",
            json!("body.next"),
            json!("''+string(body.next)+'&x=1'"),
        ),
        required("generators[].events.path", &events, "/generators/0/events/path", json!("fields"), json!("others")),
        required(
            "generators[].events.hmacRef.name",
            &events,
            "/generators/0/events/hmacRef/name",
            json!("crm"),
            json!("other"),
        ),
        case(
            "generators[].events.when",
            &events,
            "/generators/0/events/when",
            json!("event.data.id == 'x'"),
            json!("event.data.amount > 5"),
        ),
        required(
            "generators[].events.key",
            &events,
            "/generators/0/events/key",
            json!("event.data.id"),
            json!("event.data.owner"),
        ),
        case(
            "generators[].events.item",
            &events,
            "/generators/0/events/item",
            json!("{'name': 'One'}"),
            json!("{'name': 'Two'}"),
        ),
        case("template.metadata.labels", &list, "/template/metadata/labels", json!({"a": "${key}"}), json!({"a": "2"})),
        case(
            "template.metadata.annotations",
            &list,
            "/template/metadata/annotations",
            json!({"a": "${key}"}),
            json!({"a": "2"}),
        ),
        required("template.spec", &list, "/template/spec", json!({"displayName": "One"}), json!({"displayName": "Two"})),
        case("suspend", &list, "/suspend", json!(true), json!(false)),
        case("suspendReason", &suspended, "/suspendReason", json!("a"), json!("b")),
    ]
}

/// Fields whose difference another test shows.
const ELSEWHERE: [(&str, &str); 8] = [
    ("connectionRef.name", "fields_sets.rs t1_a_set_uses_only_what_is_granted_to_its_namespace"),
    ("connectionRef.namespace", "fields_sets.rs t1_a_set_uses_only_what_is_granted_to_its_namespace"),
    ("generators[].http.every", "sets.rs c3 (every second) and c4 (every hour)"),
    ("generators[].http.timeout", "destinations/http.rs: the shared HTTP target"),
    ("onItemGone", "sets.rs d3_an_item_that_is_gone_leaves_a_read_only_workspace_or_waits_for_a_confirmation"),
    ("onDelete", "sets.rs d3_deleting_a_set_orphans_unless_it_says_otherwise_and_a_new_one_takes_them_up"),
    ("maxRemovals", "sets.rs c7_more_removals_than_allowed_wait_for_somebody_and_are_listed"),
    ("suspendUntil", "fields_sets.rs a_suspension_ends_by_itself"),
];

#[test]
fn every_field_of_the_crd_has_a_case() {
    let all = cases("x", "y");
    let covered: BTreeSet<&str> = all.iter().map(|case| case.field).chain(ELSEWHERE.map(|(field, _)| field)).collect();
    let routes = fields_of("FileRoute");
    let is_shared = |field: &str| {
        // Authentication and trust are those of the shared HTTP target, whose every field routes show.
        let of_target =
            field.strip_prefix("generators[].http.").filter(|rest| rest.starts_with("auth.") || rest.starts_with("tls."));
        of_target.is_some_and(|rest| routes.contains(&format!("rules[].to[].http.{rest}")))
    };
    let missing: Vec<String> = fields_of("SecureWorkspaceSet")
        .into_iter()
        .filter(|field| !covered.contains(&**field) && !is_shared(field))
        .collect();
    assert!(missing.is_empty(), "no case shows what these fields do: {missing:?}");
}

/// Applies a spec and looks.
async fn show(world: &World, crm: &Crm, events: &str, name: &str, mut spec: Value) -> Value {
    let (has_events, is_suspended) = (spec["generators"][0].get("events").is_some(), spec["suspend"] == true);
    let is_http = spec["generators"][0].get("http").is_some();
    spec["connectionRef"] = json!({"name": "file360"});
    let asked = crm.asked();
    world.apply("SecureWorkspaceSet", name, spec.clone()).await;
    world
        .until("SecureWorkspaceSet", name, "an answer", |object| {
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
                && !condition(object, "Ready").is_null()
        })
        .await;
    let pushed = if has_events && !is_suspended { push(events, name, &spec).await } else { Value::Null };
    let object = world.get("SecureWorkspaceSet", name).await;
    let ready = condition(&object, "Ready");
    let generators: Vec<Value> = object["status"]["generators"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| json!([one["name"], one["url"], one["message"]]))
        .collect();
    let shown = |child: &Value| {
        let mut annotations = child["metadata"]["annotations"].clone();
        annotations.as_object_mut().unwrap().retain(|name, _| !name.starts_with("file360.io/"));
        json!([child["spec"], child["metadata"]["labels"], annotations])
    };
    let children: Vec<Value> = children(world, name).await.iter().map(|(key, child)| json!([key, shown(child)])).collect();
    let request =
        if is_http && crm.asked() > asked { json!([crm.last().get("?"), crm.last().get("x-q")]) } else { Value::Null };
    json!({"children": children, "ready": [ready["reason"], ready["message"]], "generators": generators, "request": request, "pushed": pushed})
}

/// Pushes an event with each of the two keys until one is taken; which, and what became of it.
async fn push(events: &str, name: &str, spec: &Value) -> Value {
    let url = events.replace("/deals", &format!("/{}", spec["generators"][0]["events"]["path"].as_str().unwrap()));
    let fingerprint: String =
        spec.to_string().bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte))).to_string();
    eventually("an event to be taken", || async {
        for key in [KEY, "the key of another system, too"] {
            let push = Push { key: key.into(), ..Push::won(&url, &format!("{name}-{fingerprint}"), &deal("a")) };
            let (status, answer) = push.send().await;
            if (200..300).contains(&status) {
                let outcome = if answer["outcome"] == "ignored" { "ignored" } else { "taken" };
                return Ok(json!([key, outcome]));
            }
        }
        Err(url.clone())
    })
    .await
}

#[tokio::test]
async fn every_field_makes_a_difference_outside_when_set_changed_and_unset() {
    let (world, events) = world().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}, "stringData": {"k": "the key of another system, too"}});
    crate::support::kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
    let (crm, other) = (Crm::start(&["a", "b", "c"].map(deal)).await, Crm::start(&[deal("x")]).await);
    for (number, case) in cases(&crm.url, &other.url).iter().enumerate() {
        // Each a set of its own: what an earlier value made would stay.
        let name = |step: &str| format!("f{number}-{step}");
        let looked = async |step: &str, value: Option<&Value>| {
            let name = name(step);
            let seen = show(&world, &crm, &events, &name, case.with(value)).await;
            world.delete_and_wait("SecureWorkspaceSet", &name).await;
            // Names of sets stand in labels.
            serde_json::from_str::<Value>(&seen.to_string().replace(&name, "SET")).unwrap()
        };
        let set = looked("set", Some(&case.set)).await;
        let changed = looked("changed", Some(&case.changed)).await;
        assert_ne!(set, changed, "{}: changing it makes no difference", case.field);
        if !case.required {
            let unset = looked("unset", None).await;
            assert_ne!(unset, set, "{}: setting it makes no difference", case.field);
        }
    }
}

#[tokio::test]
async fn a_suspension_ends_by_itself() {
    let world = World::new().await;
    let mut spec = from_list(&[deal("a")]);
    spec["connectionRef"] = json!({"name": "file360"});
    (spec["suspend"], spec["suspendUntil"]) = (json!(true), json!("2099-01-01T00:00:00Z"));
    world.apply("SecureWorkspaceSet", "s", spec.clone()).await;
    world.condition("SecureWorkspaceSet", "s", "Suspended", "True").await;
    spec["suspendUntil"] = json!((jiff::Timestamp::now() + std::time::Duration::from_secs(2)).to_string());
    world.apply("SecureWorkspaceSet", "s", spec).await;
    world.condition("SecureWorkspaceSet", "s", "Ready", "True").await;
    assert_eq!(children(&world, "s").await.len(), 1);
}

#[tokio::test]
async fn bad_sets_are_refused_by_the_api_server_or_say_what_is_wrong() {
    let world = World::new().await;
    let good = || {
        let mut spec = from_list(&[deal("a")]);
        spec["connectionRef"] = json!({"name": "file360"});
        spec
    };
    let with = |pointer: &str, value: Value| {
        let mut spec = good();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match spec.pointer_mut(parent).unwrap() {
            Value::Array(entries) => entries[name.parse::<usize>().unwrap()] = value,
            object => object[name] = value,
        }
        spec
    };
    let refused = async |spec: Value, message: &str| {
        let error = world
            .try_apply("SecureWorkspaceSet", "bad", spec.clone())
            .await
            .expect_err(&format!("{spec} should be refused"));
        assert!(error.to_string().contains(message), "{spec}: {error}");
    };
    let list = json!({"items": [{"id": "a"}], "key": "item.id"});
    refused(with("/generators", json!([{"name": "x"}])), "exactly one of http, events and list").await;
    let two = json!([{"name": "x", "list": list, "events": {"path": "p", "hmacRef": {"name": "s"}, "key": "event.id"}}]);
    refused(with("/generators", two), "exactly one of http, events and list").await;
    refused(with("/generators", json!([])), "should have at least 1 items").await;
    refused(with("/generators", json!([{"name": "x", "list": list}, {"name": "x", "list": list}])), "").await;
    refused(with("/generators/0/list", json!({"items": [], "key": "item.id"})), "at least 1 items").await;
    refused(with("/suspendReason", json!("why")), "suspendReason needs suspend: true").await;
    refused(with("/suspendUntil", json!("2030-01-01T00:00:00Z")), "suspendUntil needs suspend: true").await;
    world.apply("SecureWorkspaceSet", "bad", good()).await;
    refused(with("/connectionRef", json!({"name": "other"})), "connectionRef is immutable").await;

    for (pointer, value, reason, message) in [
        (
            "/template/spec/displayName",
            json!("${itm.id}"),
            "InvalidExpression",
            "spec.template.spec.displayName: line 1, column 1",
        ),
        ("/generators/0/list/key", json!("item."), "InvalidExpression", "spec.generators[0].list.key: line 1"),
        ("/template/spec/connectionRef", json!({"name": "other"}), "InvalidSpec", "spec.template.spec.connectionRef"),
        (
            "/template/metadata/annotations",
            json!({"file360.io/confirm-delete": "${item.id}"}),
            "InvalidSpec",
            "spec.template.metadata.annotations",
        ),
        (
            "/generators/0",
            json!({"name": "h", "http": {"url": "https://127.0.0.2/", "items": "body", "key": "item.id"}}),
            "InvalidSpec",
            "spec.generators[0].http.url",
        ),
    ] {
        world.apply("SecureWorkspaceSet", "bad", with(pointer, value)).await;
        let object = world.reason("SecureWorkspaceSet", "bad", "Ready", reason).await;
        let ready = condition(&object, "Ready");
        assert!(ready["message"].as_str().unwrap().contains(message), "{ready}");
        assert_eq!(condition(&object, "Stalled")["status"], "True");
    }
}

#[tokio::test]
async fn t1_a_set_uses_only_what_is_granted_to_its_namespace() {
    use super::tenancy::Cluster;
    let grant =
        |kinds: Value| json!({"grants": [{"namespaces": {"from": "All"}, "kinds": kinds, "externalSystems": ["crm"]}]});
    let cluster = Cluster::new(grant(json!(["SecureWorkspace"]))).await;
    let crm = Crm::start(&[deal("a")]).await;
    let mut spec = from_list(&[deal("a")]);
    spec["connectionRef"] = json!({"name": "file360", "namespace": cluster.home.namespace});
    cluster.tenant.apply("SecureWorkspaceSet", "deals", spec.clone()).await;
    cluster.tenant.reason("SecureWorkspaceSet", "deals", "Ready", "ConnectionNotGranted").await;
    assert!(children(&cluster.tenant, "deals").await.is_empty());
    cluster.home.apply_connection(grant(json!(["SecureWorkspace", "SecureWorkspaceSet"]))).await;
    cluster.tenant.condition("SecureWorkspaceSet", "deals", "ChildrenReady", "True").await;
    assert!(children(&cluster.home, "deals").await.is_empty(), "what it makes is its own namespace's");

    // What it makes has the rights of its namespace, and no others.
    let mut other = spec.clone();
    other["template"]["spec"]["externalRef"]["system"] = json!("s4");
    cluster.tenant.apply("SecureWorkspaceSet", "claims", other).await;
    let name = file360_operator::sets::child::name("claims", "a");
    eventually("the child", || async {
        cluster.tenant.api("SecureWorkspace").get(&name).await.map_err(|error| error.to_string())
    })
    .await;
    cluster.tenant.reason("SecureWorkspace", &name, "Ready", "ConnectionNotGranted").await;

    // A Secret of the other namespace is none of its own.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"token": "of the home namespace", "allowedHosts": "127.0.0.1"}});
    crate::support::kubernetes::apply(&cluster.home.client, &cluster.home.namespace, &secret).await.unwrap();
    spec["generators"] = json!([{"name": "crm", "http": {"url": crm.url, "items": "body.records", "key": "item.id", "every": "1s",
        "auth": {"bearer": {"tokenRef": {"name": "token", "key": "token"}}}}}]);
    cluster.tenant.apply("SecureWorkspaceSet", "thief", spec.clone()).await;
    cluster.tenant.reason("SecureWorkspaceSet", "thief", "Ready", "ReferenceNotFound").await;
    assert_eq!(crm.asked(), 0, "t5: nothing was sent");
    spec["connectionRef"] = json!({"name": "file360"});
    cluster.home.apply("SecureWorkspaceSet", "owner", spec).await;
    cluster.home.condition("SecureWorkspaceSet", "owner", "Ready", "True").await;
    assert_eq!(crm.last().get("authorization").map(String::as_str), Some("Bearer of the home namespace"));
}
