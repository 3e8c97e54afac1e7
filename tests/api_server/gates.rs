//! What a gate holds back is visible to nobody before a decision, whatever runs or does not; then it goes its way.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::routes::{apply, arrived, claims, counted};
use crate::support::case_system::{Accepted, CaseSystem};
use crate::support::world::{World, condition};
use crate::support::{eventually, free_port, kubernetes};

/// The key that callbacks are signed with, and another.
pub const KEY: &str = "a-key-of-more-than-24-bytes-for-tests";
const OTHER_KEY: &str = "another-key-of-more-than-24-bytes-for-tests";

/// A world whose operator takes callbacks; where they go.
pub async fn world() -> (World, String) {
    let mut world = World::without_operator(kubernetes::shared().await).await;
    let inbound = start(&mut world, free_port()).await;
    world.connect().await;
    with_key(&world).await;
    (world, inbound)
}

/// The Secret that callbacks are signed with.
pub async fn with_key(world: &World) {
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "callbacks"}, "stringData": {"current": KEY}});
    kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
}

/// Starts the operator with an inbound endpoint on this port.
pub async fn start(world: &mut World, port: u16) -> String {
    let address = format!("127.0.0.1:{port}");
    let url = format!("http://{address}");
    world.start_operator(&["--inbound-address", &address, "--public-url", &url, "--secret-interval", "1s"]).await;
    url
}

/// A gated route: what the pricing rule takes is asked about in a ticket system, everything goes to the case system.
pub fn gated(tickets: &CaseSystem, cases: &CaseSystem, gate: Value) -> Value {
    let mut whole = json!({
        "actions": ["Upload", "Modify"],
        "request": {
            "http": {"url": format!("{}/tickets", tickets.url)},
            "decision": {"callback": {"hmacRef": {"name": "callbacks"}}},
        },
    });
    let Value::Object(gate) = gate else { panic!("not an object: {gate}") };
    for (name, value) in gate {
        if value.is_null() {
            whole.as_object_mut().unwrap().remove(&name);
        } else {
            whole[name] = value;
        }
    }
    let to = json!([{"name": "case", "http": {"url": format!("{}/cases", cases.url)}, "send": "Content"}]);
    json!({
        "from": {"workspaces": {"selector": {}, "path": "/Inbox/**"}},
        "rules": [
            {"name": "pricing", "when": "file.name.startsWith('price')", "gate": whole, "to": to},
            {"name": "other", "to": to},
        ],
        "unmatched": {"ignore": {}},
        "delivery": {"backoff": {"initial": "200ms", "max": "1s"}},
    })
}

async fn route(world: &World, spec: Value) {
    apply(world, "pricing", spec).await;
    world.condition("FileRoute", "pricing", "Ready", "True").await;
}

/// The Approvals of the namespace, once there are so many.
pub async fn approvals(world: &World, count: usize) -> Vec<Value> {
    let mut all = eventually(&format!("{count} Approvals"), || async {
        let list = world.api("Approval").list(&kube::api::ListParams::default()).await.map_err(|error| error.to_string())?;
        let all: Vec<Value> = list.items.iter().map(|one| serde_json::to_value(one).unwrap()).collect();
        (all.len() == count).then_some(()).ok_or_else(|| format!("{} are there", all.len()))?;
        Ok::<_, String>(all)
    })
    .await;
    all.sort_by_key(|one| one["spec"]["subject"]["version"].as_u64());
    all
}

pub fn name_of(approval: &Value) -> String {
    approval["metadata"]["name"].as_str().unwrap().to_owned()
}

pub async fn decided(world: &World, name: &str, decision: &str) -> Value {
    let holds = |object: &Value| object["status"]["decision"] == decision && !object["status"]["evidence"].is_null();
    world.until("Approval", name, decision, holds).await
}

async fn ticket(tickets: &CaseSystem) -> Accepted {
    arrived(tickets, 1).await;
    tickets.accepted()[0].clone()
}

/// What people and outsiders see of a file: nothing at all, or this version.
pub async fn seen(world: &World, workspace: &str, item: &str) -> BTreeMap<&'static str, Value> {
    let person = world.remote.principal("User", "user0").await;
    let headers = [("On-Behalf-Of", person.as_str())];
    let mut seen = BTreeMap::new();
    for (what, path) in [
        ("item", format!("/v1/items/{item}")),
        ("content", format!("/v1/items/{item}/content")),
        ("versions", format!("/v1/items/{item}/versions")),
        ("files", format!("/v1/workspaces/{workspace}/files?path=/Inbox")),
        ("resolve", format!("/v1/workspaces/{workspace}/resolve?path=/Inbox/price.txt")),
    ] {
        let (status, body) = world.remote.call("GET", &path, &headers, None).await;
        let shown = match what {
            "item" | "resolve" => body["version"].clone(),
            "versions" | "files" => json!(body["items"].as_array().map_or(0, Vec::len)),
            _ => Value::Null,
        };
        seen.insert(what, json!([status, shown]));
    }
    seen
}

pub async fn let_in(world: &World, workspace: &str) {
    let person = world.remote.principal("User", "user0").await;
    world.remote.change("PUT", &format!("/v1/workspaces/{workspace}/members/{person}"), json!({"role": "Viewer"})).await;
}

/// Sends a signed callback about the Approval of the address, unless the body names one; the status and the body.
pub async fn call_back(url: &str, key: &str, id: &str, at: i64, body: &Value) -> (u16, Value) {
    try_call_back(url, key, id, at, body).await.unwrap()
}

/// The same, to an operator that may be away.
pub async fn try_call_back(url: &str, key: &str, id: &str, at: i64, body: &Value) -> Result<(u16, Value), reqwest::Error> {
    let mut body = body.clone();
    if body["approval"].is_null() {
        body["approval"] = json!(url.split_once("/callbacks/").unwrap().1);
    }
    let body = body.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let request = reqwest::Client::builder().no_proxy().build().unwrap().post(url);
    let request = request.header("webhook-id", id).header("webhook-timestamp", at.to_string());
    let answer = request.header("webhook-signature", signature).body(body).send().await?;
    let status = answer.status().as_u16();
    Ok((status, serde_json::from_str(&answer.text().await?).unwrap_or_default()))
}

/// Every event of the audit log with this action; of all actions if it is empty.
pub async fn audited(world: &World, action: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), "earliest".to_owned());
    loop {
        let filter = if action.is_empty() { String::new() } else { format!("&type={action}") };
        let page = world.remote.get(&format!("/v1/audit-events?limit=1000{filter}&cursor={cursor}")).await;
        all.extend(page["items"].as_array().cloned().unwrap_or_default());
        if page["hasMore"] != true {
            return all;
        }
        page["nextCursor"].as_str().expect("a cursor").clone_into(&mut cursor);
    }
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[tokio::test]
async fn a1_what_is_gated_waits_for_the_ticket_and_then_goes_its_way() {
    let (world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let_in(&world, &workspace).await;
    route(&world, gated(&tickets, &cases, json!({}))).await;
    let plain = world.remote.upload(&workspace, "/Inbox", "letter.txt", b"no gate is meant for it").await;
    arrived(&cases, 1).await;
    assert_eq!(world.remote.get(&format!("/v1/items/{plain}")).await["state"], "Available");

    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    let asked = ticket(&tickets).await;
    assert_eq!(asked.path, "/tickets");
    let event = asked.json();
    assert_eq!(
        (&event["type"], &event["data"]["file"]["name"]),
        (&json!("io.file360.approval.requested"), &json!("price.txt"))
    );
    let hidden = seen(&world, &workspace, &item).await;
    for what in ["item", "content", "versions", "resolve"] {
        assert_eq!(hidden[what][0], 404, "{what} shows it: {hidden:?}");
    }
    assert_eq!(hidden["files"][1], 1, "the listing shows it");
    let object = counted(&world, "pricing", "one awaits", |counts| counts["awaitingApproval"] == 1).await;
    assert_eq!(condition(&object, "AwaitingApproval")["reason"], "ApprovalsPending");
    let approval = &approvals(&world, 1).await[0];
    assert_eq!(approval["spec"]["subject"]["digest"].as_str().unwrap().len(), 64);
    let recorded = |object: &Value| object["status"]["ticket"]["id"] == "CASE-1";
    world.until("Approval", &name_of(approval), "the ticket's id", recorded).await;

    let url = event["data"]["approval"]["callbackUrl"].as_str().unwrap();
    let body = json!({"decision": "Approved", "by": "ann", "reason": "margin is fine"});
    assert_eq!(call_back(url, KEY, "d-1", now(), &body).await.0, 200);
    decided(&world, &name_of(approval), "Approved").await;
    arrived(&cases, 2).await;
    let shown = seen(&world, &workspace, &item).await;
    assert_eq!((&shown["item"], &shown["content"][0]), (&json!([200, 1]), &json!(200)));
    let object = counted(&world, "pricing", "nothing awaits", |counts| counts["awaitingApproval"].is_null()).await;
    assert_eq!(object["status"]["counts"]["delivered"], 2, "{}", object["status"]);

    // A5: who, what, which rule, when: in File 360's own audit log.
    let events = audited(&world, "decide").await;
    let evidence: Vec<&Value> = events
        .iter()
        .map(|event| &event["details"]["evidence"])
        .filter(|evidence| !evidence["approval"].is_null())
        .collect();
    assert_eq!(evidence.len(), 1, "{events:?}");
    assert_eq!(evidence[0]["decidedBy"], "ann");
    assert_eq!(evidence[0]["digest"], approval["spec"]["subject"]["digest"]);
    assert_eq!(evidence[0]["policyHash"], approval["spec"]["policyHash"]);
    // The other system hears how it ended, once.
    arrived(&tickets, 2).await;
    assert_eq!(tickets.accepted()[1].json()["type"], "io.file360.approval.closed");
    assert_eq!(tickets.repeated(), 0);
}

#[tokio::test]
async fn a1_without_operator_and_ticket_system_nothing_becomes_visible_and_then_all_proceeds() {
    let (mut world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let_in(&world, &workspace).await;
    route(&world, gated(&tickets, &cases, json!({}))).await;
    tickets.stop();
    world.kill_operator();
    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    let hidden = seen(&world, &workspace, &item).await;
    for what in ["item", "content", "versions", "resolve"] {
        assert_eq!(hidden[what][0], 404, "{what} shows it: {hidden:?}");
    }
    assert_eq!(hidden["files"][1], 0);
    // The operator is back, the ticket system is not.
    start(&mut world, free_port()).await;
    let approval = name_of(&approvals(&world, 1).await[0]);
    let failed = |object: &Value| object["status"]["ticket"]["error"].is_string();
    world.until("Approval", &approval, "the failure", failed).await;
    assert_eq!(seen(&world, &workspace, &item).await["item"][0], 404);
    tickets.start_again().await;
    let url = ticket(&tickets).await.json()["data"]["approval"]["callbackUrl"].as_str().unwrap().to_owned();
    assert_eq!(call_back(&url, KEY, "d-1", now(), &json!({"decision": "Approved"})).await.0, 200);
    decided(&world, &approval, "Approved").await;
    arrived(&cases, 1).await;
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]));
}

#[tokio::test]
async fn a3_callbacks_that_prove_nothing_change_nothing_and_late_ones_are_recorded() {
    let (world, inbound) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    route(&world, gated(&tickets, &cases, json!({}))).await;
    world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    let approval = name_of(&approvals(&world, 1).await[0]);
    let url = format!("{inbound}/callbacks/{}/{approval}", world.namespace);
    let yes = json!({"decision": "Approved", "by": "ann"});
    let refused = [
        ("a wrong key", call_back(&url, OTHER_KEY, "f-1", now(), &yes).await),
        ("an old timestamp", call_back(&url, KEY, "f-2", now() - 301, &yes).await),
        ("a timestamp to come", call_back(&url, KEY, "f-3", now() + 301, &yes).await),
        ("another namespace", call_back(&format!("{inbound}/callbacks/default/{approval}"), KEY, "f-4", now(), &yes).await),
        ("an unknown Approval", call_back(&format!("{url}x"), KEY, "f-5", now(), &yes).await),
        ("no name", call_back(&format!("{inbound}/callbacks/{}/..%2Fx", world.namespace), KEY, "f-6", now(), &yes).await),
    ];
    for (what, (status, body)) in refused {
        assert_eq!(status, 401, "{what}: {body}");
    }
    assert_eq!(call_back(&url, KEY, "f-7", now(), &json!({"decision": "perhaps"})).await.0, 422);
    // What was signed for one Approval decides about no other.
    let other = json!({"approval": format!("{}/{approval}x", world.namespace), "decision": "Approved"});
    let (status, body) = call_back(&url, KEY, "f-8", now(), &other).await;
    assert_eq!((status, body["type"].as_str().unwrap_or_default().contains("other-approval")), (422, true), "{body}");
    assert!(world.get("Approval", &approval).await["status"]["votes"].is_null());

    // Two systems at once, and one of them twice: one decision stands.
    let no = json!({"decision": "Rejected", "by": "bob"});
    let at = now();
    let both = tokio::join!(
        call_back(&url, KEY, "d-1", at, &no),
        call_back(&url, KEY, "d-1", at, &no),
        call_back(&url, KEY, "d-1", at, &no)
    );
    assert_eq!((both.0.0, both.1.0, both.2.0), (200, 200, 200));
    decided(&world, &approval, "Rejected").await;
    let (status, body) = call_back(&url, KEY, "d-2", now(), &yes).await;
    assert_eq!((status, &body["outcome"]), (200, &json!("Late")));
    // A recorded request that is sent again is the same decision.
    assert_eq!(call_back(&url, KEY, "d-1", at, &no).await.0, 200);
    let object = world.get("Approval", &approval).await;
    assert_eq!(object["status"]["votes"].as_array().unwrap().len(), 1);
    assert_eq!((&object["status"]["late"][0]["by"], &object["status"]["decision"]), (&json!("ann"), &json!("Rejected")));
    assert!(cases.accepted().is_empty());
}

#[tokio::test]
async fn a2_a_change_supersedes_and_asks_again_while_the_earlier_version_stays_visible() {
    let (world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let_in(&world, &workspace).await;
    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"the first").await;
    route(&world, gated(&tickets, &cases, json!({"onApproved": ["Release", "LockVersion"]}))).await;
    arrived(&cases, 1).await;
    for content in ["the second", "the third"] {
        let path = format!("/v1/items/{item}/content");
        let (status, _) = put(&world, &path, content).await;
        assert!((200..300).contains(&status), "{status}");
        let version = if content == "the second" { 2 } else { 3 };
        let known = |all: &[Value]| all.iter().any(|one| one["spec"]["subject"]["version"] == version);
        eventually("the Approval", || async {
            let all = approvals(&world, version - 1).await;
            known(&all).then_some(()).ok_or_else(|| "not yet".to_owned())
        })
        .await;
    }
    let all = approvals(&world, 2).await;
    decided(&world, &name_of(&all[0]), "Superseded").await;
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]));
    arrived(&tickets, 2).await;
    let old = tickets.accepted()[0].json()["data"]["approval"]["callbackUrl"].as_str().unwrap().to_owned();
    let (_, late) = call_back(&old, KEY, "d-1", now(), &json!({"decision": "Approved"})).await;
    assert_eq!(late["outcome"], "Late", "a decision for the old version decides nothing");
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]));
    let new = old.replace(&name_of(&all[0]), &name_of(&all[1]));
    assert_eq!(call_back(&new, KEY, "d-2", now(), &json!({"decision": "Approved"})).await.0, 200);
    decided(&world, &name_of(&all[1]), "Approved").await;
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 3]));
    assert_eq!(world.remote.get(&format!("/v1/items/{item}")).await["locked"], true);
}

#[tokio::test]
async fn a2_an_approved_file_that_is_renamed_is_hidden_and_asked_about_again() {
    let (world, inbound) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let_in(&world, &workspace).await;
    route(&world, gated(&tickets, &cases, json!({"actions": ["Upload", "Modify"]}))).await;
    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    let first = name_of(&approvals(&world, 1).await[0]);
    let url = |approval: &str| format!("{inbound}/callbacks/{}/{approval}", world.namespace);
    assert_eq!(call_back(&url(&first), KEY, "d-1", now(), &json!({"decision": "Approved"})).await.0, 200);
    decided(&world, &first, "Approved").await;
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]));

    let editor = world.remote.principal("User", "user1").await;
    world.remote.change("PUT", &format!("/v1/workspaces/{workspace}/members/{editor}"), json!({"role": "Editor"})).await;
    let headers = [("On-Behalf-Of", editor.as_str()), ("if-match", "*")];
    let rename = Some(json!({"name": "price list.txt"}));
    let (status, body) = world.remote.call("PATCH", &format!("/v1/items/{item}"), &headers, rename).await;
    assert_eq!(status, 200, "{body}");
    let all = approvals(&world, 2).await;
    assert_eq!(seen(&world, &workspace, &item).await["item"][0], 404, "the earlier approval does not count for it");
    let second = all.iter().map(name_of).find(|name| *name != first).unwrap();
    assert_eq!(call_back(&url(&second), KEY, "d-2", now(), &json!({"decision": "Approved"})).await.0, 200);
    decided(&world, &second, "Approved").await;
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]));
}

#[tokio::test]
async fn what_is_refused_for_good_is_said_and_goes_on_when_its_cause_is_gone() {
    let (world, inbound) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let_in(&world, &workspace).await;
    tickets.answer_with(Some(422));
    route(&world, gated(&tickets, &cases, json!({"actions": ["Delete"]}))).await;
    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"a price").await;
    arrived(&cases, 1).await;
    let (status, _) = world.remote.call("DELETE", &format!("/v1/items/{item}"), &[("if-match", "*")], None).await;
    assert_eq!(status, 202);
    let approval = name_of(&approvals(&world, 1).await[0]);
    let object = world.condition("Approval", &approval, "TicketFailed", "True").await;
    assert_eq!(condition(&object, "TicketFailed")["reason"], "Refused", "{}", object["status"]);

    world.remote.change("PUT", "/v1/holds/smith", json!({"matter": "2026-CV-17"})).await;
    let hold = format!("/v1/items/{item}/holds/smith");
    let (status, body) = world.remote.call("PUT", &hold, &[], None).await;
    assert!((200..300).contains(&status), "{body}");
    let url = format!("{inbound}/callbacks/{}/{approval}", world.namespace);
    assert_eq!(call_back(&url, KEY, "d-1", now(), &json!({"decision": "Approved"})).await.0, 200);
    let object = world.condition("Approval", &approval, "Stalled", "True").await;
    assert_eq!(condition(&object, "Ready")["reason"], "Refused");
    assert!(object["status"]["refusal"].as_str().unwrap().contains("hold"), "{}", object["status"]);
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]), "the hold is stronger than the approval");
    let (status, body) = world.remote.call("DELETE", &format!("{hold}?reason=settled"), &[], None).await;
    assert!((200..300).contains(&status), "{body}");
    let object = decided(&world, &approval, "Approved").await;
    assert!(object["status"]["refusal"].is_null() && condition(&object, "Stalled").is_null(), "{}", object["status"]);
    assert_eq!(seen(&world, &workspace, &item).await["item"][0], 404, "deleted");
}

pub async fn put(world: &World, path: &str, content: &str) -> (u16, Value) {
    // Content is no JSON: the call is made by hand.
    let token = reqwest::Client::builder().no_proxy().build().unwrap();
    let form = [("grant_type", "client_credentials"), ("client_id", "people"), ("client_secret", "people-secret")];
    let answer = token.post(format!("{}/oauth2/token", world.remote.url)).form(&form).send().await.unwrap();
    let bearer: Value = answer.json().await.unwrap();
    let request = token.put(format!("{}{path}", world.remote.url)).bearer_auth(bearer["access_token"].as_str().unwrap());
    let answer = request.header("if-match", "*").header("content-type", "text/plain").body(content.to_owned()).send();
    let answer = answer.await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a4_a_timeout_rejects_and_closes_the_ticket_and_a_poll_decides() {
    let (world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let gate = json!({
        "timeout": {"after": "4s", "remindEvery": "1s"}, "onRejected": {"moveTo": "/Rejected"},
    });
    route(&world, gated(&tickets, &cases, gate)).await;
    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    let approval = name_of(&approvals(&world, 1).await[0]);
    let object = decided(&world, &approval, "TimedOut").await;
    assert!(object["status"]["ticket"]["reminders"].as_u64().unwrap_or_default() >= 1, "{}", object["status"]);
    eventually("the closed ticket", || async {
        let kinds: Vec<Value> = tickets.accepted().iter().map(|one| one.json()["type"].clone()).collect();
        kinds.contains(&json!("io.file360.approval.closed")).then_some(()).ok_or_else(|| format!("{kinds:?}"))
    })
    .await;
    eventually("the move", || async {
        let found = world.remote.get(&format!("/v1/items/{item}")).await;
        (found["path"] == "/Rejected/price.txt").then_some(()).ok_or_else(|| found["path"].to_string())
    })
    .await;
    assert!(cases.accepted().is_empty(), "what timed out goes nowhere");
    // The same with a system that is asked: it answers every request with a case.
    let poll = json!({
        "request": {
            "http": {"url": format!("{}/tickets", tickets.url)},
            "ticket": "response.body.id",
            "decision": {"poll": {"path": ["ticket.id"], "every": "1s", "state": "response.status == 201 ? 'Approved' : 'Open'",
                "by": "'ann'"}},
        },
    });
    route(&world, gated(&tickets, &cases, poll)).await;
    world.remote.upload(&workspace, "/Inbox", "price2.txt", b"another price").await;
    arrived(&cases, 1).await;
    let all = approvals(&world, 2).await;
    let approved = all.iter().find(|one| one["status"]["decision"] == "Approved").expect("one is approved");
    assert_eq!(
        (&approved["status"]["votes"][0]["by"], &approved["status"]["votes"][0]["via"]),
        (&json!("ann"), &json!("Poll"))
    );
}

#[tokio::test]
async fn d3_a_gate_without_its_route_stays_closed_until_its_approval_or_the_route_is_there_again() {
    let (world, inbound) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let_in(&world, &workspace).await;
    let spec = gated(&tickets, &cases, json!({}));
    route(&world, spec.clone()).await;
    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    let held = name_of(&approvals(&world, 1).await[0]);
    world.delete_and_wait("FileRoute", "pricing").await;
    let listed = |object: &Value| object["status"]["orphanedGates"][0]["path"] == "/Inbox";
    let object = world.until("Connection", "file360", "the orphaned gate", listed).await;
    assert_eq!(object["status"]["orphanedGates"][0]["route"], format!("{}/pricing", world.namespace));
    assert_eq!(seen(&world, &workspace, &item).await["item"][0], 404);
    let later = world.remote.upload(&workspace, "/Inbox", "letter.txt", b"nobody says that it may pass").await;
    assert_eq!(seen(&world, &workspace, &later).await["item"][0], 404);

    route(&world, spec).await;
    let listed = |object: &Value| object["status"]["orphanedGates"].is_null();
    world.until("Connection", "file360", "no orphaned gate", listed).await;
    let url = format!("{inbound}/callbacks/{}/{held}", world.namespace);
    assert_eq!(call_back(&url, KEY, "d-1", now(), &json!({"decision": "Approved"})).await.0, 200);
    decided(&world, &held, "Approved").await;
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]));
}

#[tokio::test]
async fn a3_somebody_who_decides_in_file_360_decides() {
    let (world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    route(&world, gated(&tickets, &cases, json!({"request": null}))).await;
    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    let approval = name_of(&approvals(&world, 1).await[0]);
    let body = json!({"version": 1, "decision": "Release", "reason": "seen by a reviewer"});
    world.remote.change("POST", &format!("/v1/items/{item}/decisions"), body).await;
    let object = decided(&world, &approval, "Approved").await;
    assert_eq!(object["status"]["decidedBy"], "a reviewer in File 360");
    arrived(&cases, 1).await;
}

#[tokio::test]
async fn a1_a_new_workspace_lets_nobody_in_before_its_gates_are_closed() {
    let (world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    route(&world, gated(&tickets, &cases, json!({}))).await;
    let spec = json!({"displayName": "late", "folders": [{"path": "/Inbox"}],
        "access": {"members": [{"kind": "User", "name": "user1", "role": "Contributor"}]}});
    world.workspace("late", spec).await;
    let workspace = world.workspace_id("late").await;
    // In the order of the feed: the gate before the member.
    let events = audited(&world, "").await;
    let of = |action: &str| {
        let found = events.iter().find(|event| event["action"] == action && event["workspaceId"] == workspace.as_str());
        found.and_then(|event| event["sequence"].as_u64()).unwrap_or_else(|| panic!("no {action}"))
    };
    assert!(of("putIntake") < of("setMember"));
}

#[tokio::test]
async fn c2_a_ticket_is_made_once_wherever_the_operator_is_killed() {
    let (mut world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    route(&world, gated(&tickets, &cases, json!({}))).await;
    tickets.mute(true);
    world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    arrived(&tickets, 1).await;
    // The ticket is made, and the answer is lost with the process.
    world.kill_operator();
    tickets.mute(false);
    let inbound = start(&mut world, free_port()).await;
    let approval = name_of(&approvals(&world, 1).await[0]);
    let recorded = |object: &Value| object["status"]["ticket"]["createdAt"].is_string();
    world.until("Approval", &approval, "the ticket", recorded).await;
    assert_eq!((tickets.accepted().len(), tickets.repeated()), (1, 1), "one ticket, asked for twice");
    // Killed again between the decision and its effect.
    let url = format!("{inbound}/callbacks/{}/{approval}", world.namespace);
    assert_eq!(call_back(&url, KEY, "d-1", now(), &json!({"decision": "Approved"})).await.0, 200);
    world.kill_operator();
    start(&mut world, free_port()).await;
    decided(&world, &approval, "Approved").await;
    arrived(&cases, 1).await;
    let events = audited(&world, "decide").await;
    assert_eq!(events.iter().filter(|event| event["outcome"] == "Success").count(), 1, "{events:?}");
}

#[tokio::test]
async fn what_a_gate_asks_and_tells_is_what_its_fields_say() {
    let (world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let gate = json!({
        "request": {
            "http": {"url": format!("{}/tickets", tickets.url), "template": "{'title': file.name, 'by': approval.requestedBy}"},
            "ticket": "'T-' + response.body.id",
            "ticketUrl": "'https://tickets.example/' + response.body.id",
            "decision": {"poll": {"path": ["ticket.id"], "query": {"q": "approval.rule"}, "every": "1s", "state": "'Open'"}},
            "update": {"method": "PUT", "path": ["ticket.id", "'events'"], "template": "{'event': approval.event}"},
        },
        "timeout": {"after": "1s", "remindEvery": "1s", "then": "Wait"},
    });
    route(&world, gated(&tickets, &cases, gate)).await;
    world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    assert_eq!(ticket(&tickets).await.json()["title"], "price.txt");
    let approval = name_of(&approvals(&world, 1).await[0]);
    let reminded = |object: &Value| object["status"]["ticket"]["reminders"].as_u64().unwrap_or_default() >= 2;
    let object = world.until("Approval", &approval, "two reminders", reminded).await;
    assert!(object["status"]["decision"].is_null(), "it waits on: {}", object["status"]);
    assert_eq!(object["status"]["ticket"]["id"], "T-CASE-1");
    assert_eq!(object["status"]["ticket"]["url"], "https://tickets.example/CASE-1");
    let told = |path: &str| tickets.accepted().into_iter().find(|one| one.path == path);
    let reminder = told("/tickets/T-CASE-1/events").expect("a reminder");
    assert_eq!(reminder.json(), json!({"event": "Reminder"}));
    eventually("the poll", || async {
        let paths: Vec<String> = tickets.accepted().into_iter().map(|one| format!("{}?{}", one.path, one.query)).collect();
        paths.iter().any(|path| path == "/tickets/T-CASE-1?q=pricing").then_some(()).ok_or_else(|| format!("{paths:?}"))
    })
    .await;
}

#[tokio::test]
async fn a1_only_the_actions_of_a_gate_are_held_back() {
    let (world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let_in(&world, &workspace).await;
    route(&world, gated(&tickets, &cases, json!({"actions": ["Delete", "ShareLink"], "request": null}))).await;
    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"a price").await;
    arrived(&cases, 1).await;
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]), "uploads are not held back");
    let link = json!({"audience": "Members"});
    let (status, link) = world.remote.call("POST", &format!("/v1/items/{item}/links"), &[], Some(link)).await;
    assert_eq!(status, 201, "{link}");
    let path = link["url"].as_str().unwrap().strip_prefix(&world.remote.url).unwrap().to_owned();
    let (status, _) = world.remote.call("GET", &format!("{path}/content"), &[], None).await;
    assert_ne!(status, 200, "the link opens nothing");
    let (status, _) = world.remote.call("DELETE", &format!("/v1/items/{item}"), &[("if-match", "*")], None).await;
    assert_eq!(status, 202, "the deletion waits");
    let all = approvals(&world, 2).await;
    let kinds: std::collections::BTreeSet<&str> =
        all.iter().map(|one| one["spec"]["subject"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Deletion", "Share"].into());
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]));
    // A reviewer says no to the deletion: the file stays.
    world.remote.change("POST", &format!("/v1/items/{item}/decisions"), json!({"delete": true, "decision": "Reject"})).await;
    let deletion = all.iter().find(|one| one["spec"]["subject"]["kind"] == "Deletion").unwrap();
    decided(&world, &name_of(deletion), "Rejected").await;
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]));
}

/// The gate's policy, taken away by somebody who may.
async fn open_gate(world: &World, folder: &str) {
    let path = format!("/v1/items/{folder}/intake");
    eventually("the gate's policy taken away", || async {
        let (status, intake) = world.remote.call("PUT", &path, &[("if-match", "*")], Some(json!({"actions": []}))).await;
        if status < 300 { Ok(()) } else { Err(intake.to_string()) }
    })
    .await;
}

async fn closed(world: &World, folder: &str) {
    eventually("the closed gate", || async {
        let intake = world.remote.get(&format!("/v1/items/{folder}/intake")).await;
        (intake["actions"] == json!(["Upload", "Modify"])).then_some(()).ok_or_else(|| intake.to_string())
    })
    .await;
}

#[tokio::test]
async fn a1_a_gate_that_somebody_opens_is_closed_again_whether_the_operator_ran_or_not() {
    let (mut world, _) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    route(&world, gated(&tickets, &cases, json!({"request": null}))).await;
    let folder = world.remote.get(&format!("/v1/workspaces/{workspace}/resolve?path=/Inbox")).await;
    let folder = folder["id"].as_str().unwrap().to_owned();
    closed(&world, &folder).await;
    open_gate(&world, &folder).await;
    closed(&world, &folder).await;
    eventually("the Event", || async {
        let events = world.api("Event").list(&kube::api::ListParams::default()).await.unwrap().items;
        events.iter().any(|event| event.data["reason"] == "GateRestored").then_some(()).ok_or_else(|| format!("{events:?}"))
    })
    .await;
    world.kill_operator();
    open_gate(&world, &folder).await;
    start(&mut world, free_port()).await;
    closed(&world, &folder).await;
    // What comes now waits.
    world.remote.upload(&workspace, "/Inbox", "price.txt", b"a secret price").await;
    approvals(&world, 1).await;
    assert!(cases.accepted().is_empty());
}

#[tokio::test]
async fn an_approval_goes_when_it_is_declared_and_its_file_stays() {
    let (world, inbound) = world().await;
    let (tickets, cases) = (CaseSystem::start().await, CaseSystem::start().await);
    let workspace = claims(&world, "pricing").await;
    let_in(&world, &workspace).await;
    route(&world, gated(&tickets, &cases, json!({"ttlAfterDecision": "2s"}))).await;
    let item = world.remote.upload(&workspace, "/Inbox", "price.txt", b"a price").await;
    let open = world.remote.upload(&workspace, "/Inbox", "price2.txt", b"another price").await;
    let decided_about = |one: &&Value| one["spec"]["subject"]["fileId"] == item.as_str();
    let name = name_of(approvals(&world, 2).await.iter().find(decided_about).unwrap());
    arrived(&tickets, 2).await;
    let url = format!("{inbound}/callbacks/{}/{name}", world.namespace);
    // While the ticket cannot be closed, it stays.
    tickets.answer_with(Some(503));
    assert_eq!(call_back(&url, KEY, "d-1", now(), &json!({"decision": "Approved"})).await.0, 200);
    let object = decided(&world, &name, "Approved").await;
    let held = |object: &Value| object["status"]["ticket"]["error"].is_string();
    world.until("Approval", &name, "a ticket that is not closed", held).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(world.get("Approval", &name).await["metadata"]["uid"], object["metadata"]["uid"]);
    tickets.answer_with(None);
    let left = approvals(&world, 1).await;
    assert_eq!(left[0]["spec"]["subject"]["fileId"], open.as_str(), "what is not decided stays");
    // Nothing is asked again, what was decided stays in force, and what decided is not known any more.
    assert_eq!(call_back(&url, KEY, "d-2", now(), &json!({"decision": "Rejected"})).await.0, 401);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(approvals(&world, 1).await.len(), 1);
    assert_eq!(seen(&world, &workspace, &item).await["item"], json!([200, 1]));
    assert_eq!(audited(&world, "decide").await.iter().filter(|event| event["outcome"] == "Success").count(), 1);
}
