//! Sets: one workspace for each item of a source system, and none less because the source hiccuped.

use serde_json::{Value, json};

use crate::support::crm::{Crm, Mood, deal};
use crate::support::eventually;
use crate::support::world::{World, condition};

/// Applies a SecureWorkspaceSet on the Connection `file360`.
pub async fn apply(world: &World, name: &str, mut spec: Value) {
    spec["connectionRef"] = json!({"name": "file360"});
    world.apply("SecureWorkspaceSet", name, spec).await;
}

/// The same, and waits until everything is generated.
pub async fn generated(world: &World, name: &str, spec: Value) -> Value {
    apply(world, name, spec).await;
    world.condition("SecureWorkspaceSet", name, "Ready", "True").await
}

/// What is made of a deal.
pub fn template() -> Value {
    json!({"metadata": {"labels": {"type": "deal"}}, "spec": {
        "displayName": "${item.name}",
        "externalRef": {"system": "crm", "type": "deal", "id": "${item.id}"},
        "metadata": {"amount": "${string(item.amount)}"},
        "folders": [{"path": "/Contract"}],
    }})
}

/// The deals of a CRM, read every second.
pub fn from_crm(crm: &Crm) -> Value {
    json!({
        "generators": [{"name": "crm", "http": {"url": crm.url, "items": "body.records", "key": "item.id", "next": "body.next", "every": "1s"}}],
        "template": template(),
    })
}

/// These deals.
pub fn from_list(deals: &[Value]) -> Value {
    json!({"generators": [{"name": "deals", "list": {"items": deals, "key": "item.id"}}], "template": template()})
}

/// The SecureWorkspaces that a set made, by key.
pub async fn children(world: &World, set: &str) -> std::collections::BTreeMap<String, Value> {
    let params = kube::api::ListParams::default().labels(&format!("file360.io/set={set}"));
    let list = world.api("SecureWorkspace").list(&params).await.unwrap();
    let object = |object: &kube::api::DynamicObject| serde_json::to_value(object).unwrap();
    let key =
        |object: &Value| object["metadata"]["annotations"]["file360.io/set-item"].as_str().unwrap_or_default().to_owned();
    list.items.iter().map(object).map(|object| (key(&object), object)).collect()
}

/// Waits until these are the keys of the SecureWorkspaces that a set made.
pub async fn keys_become(world: &World, set: &str, keys: &[&str]) {
    eventually(&format!("the set to have {keys:?}"), || async {
        let now: Vec<String> = children(world, set).await.into_keys().collect();
        if now == keys { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

/// Waits until the CRM was asked so many times more.
pub async fn asked_again(crm: &Crm, times: usize) {
    let before = crm.asked();
    eventually("the listing to be read again", || async {
        (crm.asked() >= before + times).then_some(()).ok_or_else(|| crm.asked().to_string())
    })
    .await;
}

/// Name of the SecureWorkspace of a key.
pub async fn name_of(world: &World, set: &str, key: &str) -> String {
    children(world, set).await[key]["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Asks the set to look now, and waits until it did.
pub async fn look_now(world: &World, set: &str) -> Value {
    let token = format!("{:x}", rand::random::<u64>());
    let patch = json!({"metadata": {"annotations": {"reconcile.file360.io/requestedAt": token}}});
    world.patch("SecureWorkspaceSet", set, patch).await;
    world
        .until("SecureWorkspaceSet", set, "the request", |object| {
            object["status"]["lastHandledReconcileAt"] == token.as_str()
        })
        .await
}

#[tokio::test]
async fn each_item_of_a_list_becomes_a_workspace_with_values_of_their_own_types() {
    let world = World::new().await;
    let mut spec = from_list(&[
        deal("ACME 1"),
        deal("bolt"),
        json!({"id": "c", "name": "C", "amount": 1, "limit": 3, "folder": {"path": "/Own", "locked": true}}),
    ]);
    spec["template"]["spec"]["maxRemovals"] = json!("${has(item.limit) ? item.limit : null}");
    spec["template"]["spec"]["folders"] = json!(["${has(item.folder) ? item.folder : {'path': '/Contract'}}"]);
    generated(&world, "deals", spec).await;
    let object = world.condition("SecureWorkspaceSet", "deals", "ChildrenReady", "True").await;
    assert_eq!((&object["status"]["items"], &object["status"]["ready"]), (&json!(3), &json!(3)), "{}", object["status"]);
    let children = children(&world, "deals").await;
    assert_eq!(children.keys().collect::<Vec<_>>(), ["ACME 1", "bolt", "c"]);
    let acme = &children["ACME 1"];
    assert!(acme["metadata"]["name"].as_str().unwrap().starts_with("deals-acme-1-"), "{}", acme["metadata"]);
    assert_eq!(acme["metadata"]["labels"]["type"], "deal");
    assert!(acme["metadata"].get("ownerReferences").is_none(), "d3: it outlives its set");
    assert_eq!(acme["spec"]["connectionRef"], json!({"name": "file360"}));
    assert!(acme["spec"].get("maxRemovals").is_none(), "null leaves the field out");
    assert_eq!(
        (&children["c"]["spec"]["maxRemovals"], &children["c"]["spec"]["folders"][0]["locked"]),
        (&json!(3), &json!(true))
    );
    let state = world.remote.state().await.to_string();
    assert!(["Deal ACME 1", "Deal bolt", "/Own"].iter().all(|text| state.contains(text)), "{state}");
}

#[tokio::test]
async fn c3_a_listing_is_followed_page_by_page_and_an_unchanged_one_costs_no_write() {
    let world = World::new().await;
    let crm = Crm::start(&["a", "b", "c", "d", "e"].map(deal)).await;
    generated(&world, "deals", from_crm(&crm)).await;
    keys_become(&world, "deals", &["a", "b", "c", "d", "e"]).await;
    world.condition("SecureWorkspaceSet", "deals", "ChildrenReady", "True").await;

    // C6: nothing changed, nothing is written, and the source answers 304 for every page.
    asked_again(&crm, 3).await;
    let operator = world.operator.as_ref().unwrap();
    let writes = || async {
        [
            operator.metric("file360_set_children_total", "").await,
            operator.metric("file360_status_writes_total", "Set").await,
        ]
    };
    let (before, unchanged, versions) = (writes().await, crm.unchanged(), children(&world, "deals").await);
    asked_again(&crm, 6).await;
    assert_eq!(writes().await, before);
    assert!(crm.unchanged() >= unchanged + 5, "{} of {}", crm.unchanged(), crm.asked());
    assert_eq!(children(&world, "deals").await, versions);

    // One changes, one comes.
    let mut changed = ["a", "b", "c", "d", "e", "f"].map(deal);
    changed[1]["name"] = json!("Another name");
    crm.lists(&changed);
    keys_become(&world, "deals", &["a", "b", "c", "d", "e", "f"]).await;
    let name = name_of(&world, "deals", "b").await;
    world.until("SecureWorkspace", &name, "the new name", |object| object["spec"]["displayName"] == "Another name").await;
    let written = writes().await[0] - before[0];
    assert!((written - 2.0).abs() < f64::EPSILON, "{written} writes for two items");

    // The template changes: all follow.
    let mut spec = from_crm(&crm);
    spec["template"]["spec"]["folders"] = json!([{"path": "/Offers"}]);
    generated(&world, "deals", spec).await;
    let all = children(&world, "deals").await;
    assert!(all.values().all(|child| child["spec"]["folders"] == json!([{"path": "/Offers"}])), "{all:?}");
}

#[tokio::test]
async fn c5_a_failed_partial_empty_or_odd_listing_removes_nothing() {
    let world = World::new().await;
    let crm = Crm::start(&["a", "b", "c"].map(deal)).await;
    let mut spec = from_crm(&crm);
    spec["onItemGone"] = json!("Delete");
    generated(&world, "deals", spec).await;
    let all = ["a", "b", "c"];
    keys_become(&world, "deals", &all).await;
    let away = |id: &str| json!({"name": "no key", "other": id});
    for (mood, items, reason) in [
        (Mood::Status(500, None), vec![], "SourceUnavailable"),
        (Mood::Until(0), all.map(deal).to_vec(), "SourceUnavailable"),
        (Mood::Page, vec![], "SourceUnavailable"),
        (Mood::Next("https://elsewhere.example/deals".into()), vec![deal("a")], "SourceUnavailable"),
        (Mood::Next("/deals".into()), vec![deal("a")], "ListingIncomplete"),
        (Mood::Well, vec![], "RemovalBlocked"),
        (Mood::Well, vec![deal("a"), away("b")], "ListingIncomplete"),
    ] {
        crm.lists(&items);
        crm.is(mood.clone());
        look_now(&world, "deals").await;
        let object = world.reason("SecureWorkspaceSet", "deals", "Ready", reason).await;
        assert_eq!(children(&world, "deals").await.len(), 3, "{mood:?}: {}", object["status"]);
    }
    let object = world.get("SecureWorkspaceSet", "deals").await;
    assert_eq!(object["status"]["failures"][0]["key"], "item 2 of the listing", "{}", object["status"]);
    // One is really gone.
    crm.lists(&["a", "c"].map(deal));
    crm.is(Mood::Well);
    keys_become(&world, "deals", &["a", "c"]).await;
    look_now(&world, "deals").await;
    world.condition("SecureWorkspaceSet", "deals", "Ready", "True").await;
}

#[tokio::test]
async fn c7_more_removals_than_allowed_wait_for_somebody_and_are_listed() {
    let world = World::new().await;
    let crm = Crm::start(&["a", "b", "c", "d"].map(deal)).await;
    let mut spec = from_crm(&crm);
    spec["onItemGone"] = json!("Delete");
    spec["maxRemovals"] = json!(2);
    generated(&world, "deals", spec.clone()).await;
    keys_become(&world, "deals", &["a", "b", "c", "d"]).await;
    crm.lists(&[deal("d")]);
    let object = world.condition("SecureWorkspaceSet", "deals", "RemovalBlocked", "True").await;
    assert_eq!(object["status"]["removals"], json!(["a", "b", "c"]), "{}", object["status"]);
    assert_eq!(condition(&object, "Ready")["reason"], "RemovalBlocked");
    keys_become(&world, "deals", &["a", "b", "c", "d"]).await;
    spec["maxRemovals"] = json!(3);
    apply(&world, "deals", spec).await;
    keys_become(&world, "deals", &["d"]).await;
    let object = world.condition("SecureWorkspaceSet", "deals", "Ready", "True").await;
    assert!(object["status"].get("removals").is_none() && condition(&object, "RemovalBlocked").is_null());
}

#[tokio::test]
async fn one_refused_item_stops_no_other_and_is_told_by_its_key() {
    let world = World::new().await;
    let mut crooked = deal("crooked");
    crooked["name"] = json!("x".repeat(300));
    let spec = from_list(&[deal("a"), crooked.clone(), json!({"id": "nameless", "amount": 1}), deal("z")]);
    apply(&world, "deals", spec).await;
    keys_become(&world, "deals", &["a", "z"]).await;
    let object = world.reason("SecureWorkspaceSet", "deals", "Ready", "ItemsFailed").await;
    let failures = object["status"]["failures"].as_array().unwrap();
    assert_eq!(failures.iter().map(|one| one["key"].as_str().unwrap()).collect::<Vec<_>>(), ["crooked", "nameless"]);
    assert!(failures[0]["message"].as_str().unwrap().contains("displayName"), "{failures:?}");
    assert!(failures[1]["message"].as_str().unwrap().starts_with("spec.displayName: No such key"), "{failures:?}");
    assert_eq!((&object["status"]["items"], &object["status"]["failed"]), (&json!(4), &json!(2)));
    crooked["name"] = json!("Straight");
    generated(&world, "deals", from_list(&[deal("a"), crooked, deal("z")])).await;
    keys_become(&world, "deals", &["a", "crooked", "z"]).await;
}

#[tokio::test]
async fn c11_what_belongs_to_somebody_else_is_neither_changed_nor_removed() {
    let world = World::new().await;
    let taken = file360_operator::sets::child::name("deals", "a");
    // By hand, under the name that the item would get, and with the label that anybody can set.
    world.workspace(&taken, json!({"displayName": "By hand"})).await;
    world.workspace("by-hand", json!({"displayName": "By hand, too"})).await;
    let marks = json!({"metadata": {"labels": {"file360.io/set": "deals"}, "annotations": {"file360.io/set-item": "gone", "file360.io/set-generator": "list/deals"}}});
    world.patch("SecureWorkspace", "by-hand", marks).await;
    let mut spec = from_list(&[deal("a"), deal("b")]);
    spec["onItemGone"] = json!("Delete");
    apply(&world, "deals", spec).await;
    let object = world.reason("SecureWorkspaceSet", "deals", "Ready", "ItemsFailed").await;
    assert!(
        object["status"]["failures"][0]["message"].as_str().unwrap().contains("belongs to somebody else"),
        "{}",
        object["status"]
    );
    assert_eq!((&object["status"]["items"], &object["status"]["failed"]), (&json!(2), &json!(1)));
    assert_eq!(world.get("SecureWorkspace", &taken).await["spec"]["displayName"], "By hand");
    assert_eq!(world.get("SecureWorkspace", "by-hand").await["spec"]["displayName"], "By hand, too");
}

#[tokio::test]
async fn c4_what_somebody_changes_or_deletes_comes_back_and_what_they_add_stays() {
    let world = World::new().await;
    let crm = Crm::start(&["a", "b"].map(deal)).await;
    let mut spec = from_crm(&crm);
    spec["generators"][0]["http"]["every"] = json!("1h");
    generated(&world, "deals", spec).await;
    let name = name_of(&world, "deals", "a").await;
    world.patch("SecureWorkspace", &name, json!({"spec": {"displayName": "Mine", "classification": "Secret"}})).await;
    let object = world
        .until("SecureWorkspace", &name, "the name of the template", |object| object["spec"]["displayName"] == "Deal a")
        .await;
    assert_eq!(object["spec"]["classification"], "Secret", "nobody else declares it");
    world.patch("SecureWorkspace", &name, json!({"metadata": {"labels": {"type": null}}})).await;
    world.until("SecureWorkspace", &name, "the label", |object| object["metadata"]["labels"]["type"] == "deal").await;
    world.delete_and_wait("SecureWorkspace", &name).await;
    keys_become(&world, "deals", &["a", "b"]).await;
}

#[tokio::test]
async fn d3_an_item_that_is_gone_leaves_a_read_only_workspace_or_waits_for_a_confirmation() {
    let world = World::new().await;
    let crm = Crm::start(&["a", "b"].map(deal)).await;
    let mut spec = from_crm(&crm);
    spec["onItemGone"] = json!("Archive");
    generated(&world, "deals", spec).await;
    world.condition("SecureWorkspaceSet", "deals", "ChildrenReady", "True").await;
    let id = world.workspace_id(&name_of(&world, "deals", "a").await).await;
    crm.lists(&[deal("b")]);
    keys_become(&world, "deals", &["b"]).await;
    assert_eq!(world.remote.get(&format!("/v1/workspaces/{id}")).await["state"], "Archived");

    let crm = Crm::start(&["c", "d"].map(deal)).await;
    let mut spec = from_crm(&crm);
    spec["onItemGone"] = json!("Delete");
    spec["template"]["spec"]["deletionPolicy"] = json!("Delete");
    generated(&world, "others", spec).await;
    world.condition("SecureWorkspaceSet", "others", "ChildrenReady", "True").await;
    let name = name_of(&world, "others", "c").await;
    let id = world.workspace_id(&name).await;
    crm.lists(&[deal("d")]);
    let object = world.reason("SecureWorkspace", &name, "DeletionBlocked", "AwaitingConfirmation").await;
    assert!(object["metadata"]["annotations"].get("file360.io/confirm-delete").is_none());
    assert_eq!(world.remote.get(&format!("/v1/workspaces/{id}")).await["state"], "Active");
}

#[tokio::test]
async fn an_item_that_comes_back_has_its_workspace_as_before() {
    let world = World::new().await;
    let crm = Crm::start(&["a", "b"].map(deal)).await;
    let mut spec = from_crm(&crm);
    spec["onItemGone"] = json!("Delete");
    generated(&world, "deals", spec).await;
    world.condition("SecureWorkspaceSet", "deals", "ChildrenReady", "True").await;
    let id = world.workspace_id(&name_of(&world, "deals", "a").await).await;
    crm.lists(&[deal("b")]);
    keys_become(&world, "deals", &["b"]).await;
    crm.lists(&["a", "b"].map(deal));
    keys_become(&world, "deals", &["a", "b"]).await;
    world.condition("SecureWorkspace", &name_of(&world, "deals", "a").await, "Ready", "True").await;
    assert_eq!(world.workspace_id(&name_of(&world, "deals", "a").await).await, id, "c11: found again by its business key");
}

#[tokio::test]
async fn d3_deleting_a_set_orphans_unless_it_says_otherwise_and_a_new_one_takes_them_up() {
    let world = World::new().await;
    let deals = ["a", "b", "c"].map(deal);
    generated(&world, "deals", from_list(&deals)).await;
    let before = children(&world, "deals").await;
    world.delete_and_wait("SecureWorkspaceSet", "deals").await;
    // Made again under its name, it finds what it made.
    let mut spec = from_list(&deals);
    spec["onDelete"] = json!("DeleteChildren");
    spec["maxRemovals"] = json!(2);
    generated(&world, "deals", spec).await;
    let uids = |all: &std::collections::BTreeMap<String, Value>| {
        all.values().map(|one| one["metadata"]["uid"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(uids(&children(&world, "deals").await), uids(&before));
    world
        .until("SecureWorkspaceSet", "deals", "the finalizer", |object| {
            object["metadata"]["finalizers"][0] == "file360.io/finalizer"
        })
        .await;
    world.delete("SecureWorkspaceSet", "deals").await;
    let object = world
        .until("SecureWorkspaceSet", "deals", "the breaker", |object| {
            condition(object, "RemovalBlocked")["status"] == "True"
        })
        .await;
    assert_eq!(object["status"]["removals"], json!(["a", "b", "c"]));
    assert_eq!(children(&world, "deals").await.len(), 3);
    world.patch("SecureWorkspaceSet", "deals", json!({"spec": {"maxRemovals": 3}})).await;
    world.gone("SecureWorkspaceSet", "deals").await;
    keys_become(&world, "deals", &[]).await;
}

#[tokio::test]
async fn a_suspended_set_does_nothing_and_goes_on_afterwards() {
    let world = World::new().await;
    let crm = Crm::start(&["a"].map(deal)).await;
    generated(&world, "deals", from_crm(&crm)).await;
    world.patch("SecureWorkspaceSet", "deals", json!({"spec": {"suspend": true, "suspendReason": "audit week"}})).await;
    let object = world.condition("SecureWorkspaceSet", "deals", "Suspended", "True").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("audit week"));
    crm.lists(&["a", "b"].map(deal));
    let asked = crm.asked();
    world.patch("SecureWorkspace", &name_of(&world, "deals", "a").await, json!({"spec": {"displayName": "Mine"}})).await;
    look_now(&world, "deals").await;
    assert_eq!(crm.asked(), asked);
    assert_eq!(children(&world, "deals").await["a"]["spec"]["displayName"], "Mine");
    world.patch("SecureWorkspaceSet", "deals", json!({"spec": {"suspend": null, "suspendReason": null}})).await;
    keys_become(&world, "deals", &["a", "b"]).await;
    world
        .until("SecureWorkspace", &name_of(&world, "deals", "a").await, "its name", |object| {
            object["spec"]["displayName"] == "Deal a"
        })
        .await;
}

#[tokio::test]
async fn t5_hostile_items_hurt_nobody_but_themselves() {
    let world = World::new().await;
    let odd = ["../../etc/passwd", "ä 🦀 <script>", "x'; drop table --", "${item.id}", "a/b", "a-b", "A-B"];
    let mut items: Vec<Value> = odd.iter().map(|id| deal(id)).collect();
    items.extend([
        deal("good"),
        json!({"id": "a\nb", "name": "n", "amount": 1}),
        json!({"id": "", "name": "n", "amount": 1}),
    ]);
    items.extend([json!({"id": {"a": 1}, "name": "n", "amount": 1}), json!("no object"), json!(null), deal("good")]);
    items.push(json!({"id": "typed", "name": ["a", "list"], "amount": 1}));
    items.push(json!({"id": "long", "name": "x".repeat(600_000), "amount": 1}));
    items.push(json!({"id": "x".repeat(513), "name": "n", "amount": 1}));
    let crm = Crm::start(&items).await;
    crm.page_size(100);
    let mut spec = from_crm(&crm);
    spec["template"]["spec"].as_object_mut().unwrap().remove("externalRef");
    spec["onItemGone"] = json!("Delete");
    apply(&world, "deals", spec.clone()).await;
    let mut expected: Vec<&str> = odd.to_vec();
    expected.push("good");
    expected.sort_unstable();
    keys_become(&world, "deals", &expected).await;
    let object = world.reason("SecureWorkspaceSet", "deals", "Ready", "ListingIncomplete").await;
    assert_eq!(object["status"]["failed"], 9, "{}", object["status"]);
    assert!(object["status"].to_string().len() < 16_000, "the status stays small");
    // A page that is too large as a whole.
    let mut large = deal("large");
    large["name"] = json!("x".repeat(1 << 20));
    crm.lists(&[deal("good"), large]);
    world.reason("SecureWorkspaceSet", "deals", "Ready", "SourceUnavailable").await;
    keys_become(&world, "deals", &expected).await;
}

#[tokio::test]
async fn a_busy_source_is_asked_when_it_wants_to_be() {
    let world = World::new().await;
    let crm = Crm::start(&[deal("a")]).await;
    generated(&world, "deals", from_crm(&crm)).await;
    crm.is(Mood::Status(429, Some(3600)));
    let object = world.reason("SecureWorkspaceSet", "deals", "Ready", "SourceUnavailable").await;
    assert_eq!(object["status"]["items"], 1, "what is known stays");
    let asked = crm.asked();
    // Whatever happens to the workspaces meanwhile, nobody asks.
    let name = name_of(&world, "deals", "a").await;
    world.delete_and_wait("SecureWorkspace", &name).await;
    world.patch("SecureWorkspaceSet", "deals", json!({"metadata": {"labels": {"x": "y"}}})).await;
    let passes = world.operator.as_ref().unwrap();
    let before = passes.metric("file360_reconciles_total", "SecureWorkspaceSet").await;
    eventually("a pass", || async {
        (passes.metric("file360_reconciles_total", "SecureWorkspaceSet").await > before)
            .then_some(())
            .ok_or_else(String::new)
    })
    .await;
    assert_eq!(crm.asked(), asked);
    // A person may.
    crm.is(Mood::Well);
    look_now(&world, "deals").await;
    keys_become(&world, "deals", &["a"]).await;
}

#[tokio::test]
async fn c2_a_killed_operator_writes_nothing_again_when_it_starts() {
    let mut world = World::new().await;
    let crm = Crm::start(&["a", "b", "c"].map(deal)).await;
    generated(&world, "deals", from_crm(&crm)).await;
    let object = world.condition("SecureWorkspaceSet", "deals", "ChildrenReady", "True").await;
    let before = children(&world, "deals").await;
    world.kill_operator();
    world.start_operator(&[]).await;
    asked_again(&crm, 4).await;
    let operator = world.operator.as_ref().unwrap();
    assert_eq!(operator.metric("file360_set_children_total", "").await, 0.0);
    assert_eq!(children(&world, "deals").await, before);
    let after = world.get("SecureWorkspaceSet", "deals").await;
    assert_eq!(after["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"], "c6: its status neither");
}

#[tokio::test]
async fn the_first_of_two_generators_has_an_item_and_an_absent_one_hands_it_over() {
    let world = World::new().await;
    let crm = Crm::start(&["a", "b"].map(deal)).await;
    let mut spec = from_crm(&crm);
    spec["onItemGone"] = json!("Delete");
    let mut pilot = deal("b");
    pilot["name"] = json!("Pilot");
    spec["generators"] =
        json!([{"name": "pilots", "list": {"items": [pilot, deal("p")], "key": "item.id"}}, spec["generators"][0]]);
    generated(&world, "deals", spec.clone()).await;
    keys_become(&world, "deals", &["a", "b", "p"]).await;
    assert_eq!(children(&world, "deals").await["b"]["spec"]["displayName"], "Pilot");
    spec["generators"].as_array_mut().unwrap().remove(0);
    apply(&world, "deals", spec).await;
    keys_become(&world, "deals", &["a", "b"]).await;
    world
        .until("SecureWorkspace", &name_of(&world, "deals", "b").await, "the CRM's", |object| {
            object["spec"]["displayName"] == "Deal b"
        })
        .await;
}
