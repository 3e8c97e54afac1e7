//! Every spec field makes a difference outside: it is set, changed and unset, and the world is looked at each time. The list of
//! fields comes from the CRD, so a field without a case fails.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use serde_json::{Value, json};

use crate::support::world::{World, condition};

/// What is done to the workspace once it is converged, before the world is looked at.
#[derive(Clone, Copy)]
enum Then {
    /// Nothing.
    Look,
    /// Somebody changes name, members, folders and sharing rule in File 360.
    Tamper,
    /// The resource is deleted (confirmed where needed).
    Delete,
    /// A file with metadata arrives in `/Inbox`.
    Upload,
}

/// One field with three specs that differ in it alone. `None`: the field is left out.
struct Case {
    field: &'static str,
    base: Value,
    pointer: &'static str,
    set: Value,
    changed: Value,
    /// The field is required where it stands: it cannot be unset alone.
    required: bool,
    then: Then,
    /// The difference shows only on a fresh object: each spec is a resource of its own.
    fresh: bool,
}

fn case(field: &'static str, base: Value, pointer: &'static str, set: Value, changed: Value) -> Case {
    Case { field, base, pointer, set, changed, required: false, then: Then::Look, fresh: false }
}

impl Case {
    fn required(self) -> Self {
        Self { required: true, ..self }
    }

    fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }

    fn fresh(self) -> Self {
        Self { fresh: true, ..self }
    }

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

fn user(name: &str) -> Value {
    json!({"kind": "User", "name": name, "role": "Viewer"})
}

fn cases() -> Vec<Case> {
    let empty = || json!({});
    let members = |more: Value| json!({"access": {"members": [merged(user("user0"), more)]}});
    let grants = |more: Value| json!({"folders": [{"path": "/A", "members": [merged(user("user0"), more)]}]});
    let folder = |more: Value| json!({"folders": [merged(json!({"path": "/A"}), more)]});
    let open = |more: Value| json!({"sharing": merged(json!({"external": "Anyone"}), more)});
    let request = |more: Value| json!({"uploadRequests": [merged(json!({"name": "docs", "path": "/"}), more)]});
    let field = |more: Value| request(json!({"fields": [merged(json!({"name": "kind"}), more)]}));
    let tampered = || {
        json!({"displayName": "Declared", "sharing": {"external": "Disabled"},
        "access": {"members": [user("user0")]}, "folders": [{"path": "/A"}], "drift": {}})
    };
    // A workspace with one required document, for which a file arrives.
    let asks = |more: Value| {
        let one = merged(json!({"name": "iso", "match": {"path": "/Inbox/**"}}), more);
        json!({"folders": [{"path": "/Inbox"}], "uploadRequests": [{"name": "docs", "path": "/"}], "requiredDocuments": [one],
            "metadata": {"region": "EU"}})
    };
    let valid = |validity: Value, more: Value| asks(merged(json!({"validity": validity}), more));
    let ends = || json!({"expiresOn": "file.metadata.expiry"});
    let waived = |more: Value| {
        let one = merged(json!({"until": "2041-01-31", "by": "a", "reason": "b"}), more);
        asks(json!({"match": {"path": "/Elsewhere/**"}, "waivers": [one]}))
    };
    let without = |mut spec: Value, pointer: &str, name: &str| {
        spec.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object").remove(name);
        spec
    };
    let document = "/requiredDocuments/0";
    let later = "2033-01-01T00:00:00Z";
    let latest = "2034-01-01T00:00:00Z";
    vec![
        case("displayName", empty(), "/displayName", json!("One"), json!("Two")).required(),
        case(
            "externalRef.system",
            json!({"externalRef": {"type": "t", "id": "1"}}),
            "/externalRef/system",
            json!("a"),
            json!("b"),
        )
        .required()
        .fresh(),
        case(
            "externalRef.type",
            json!({"externalRef": {"system": "s", "id": "1"}}),
            "/externalRef/type",
            json!("a"),
            json!("b"),
        )
        .required()
        .fresh(),
        case(
            "externalRef.id",
            json!({"externalRef": {"system": "s", "type": "t"}}),
            "/externalRef/id",
            json!("1"),
            json!("2"),
        )
        .required()
        .fresh(),
        case("classification", empty(), "/classification", json!("Internal"), json!("Secret")),
        case("metadata", empty(), "/metadata", json!({"a": "1"}), json!({"a": "2", "b": "3"})),
        case("mode", json!({"folders": [{"path": "/A"}]}), "/mode", json!("Plan"), json!("Approve")).fresh(),
        case("deletionPolicy", empty(), "/deletionPolicy", json!("Archive"), json!("Delete")).then(Then::Delete).fresh(),
        case("deleteGrace", json!({"deletionPolicy": "Delete"}), "/deleteGrace", json!("P7D"), json!("P14D"))
            .then(Then::Delete)
            .fresh(),
        case(
            "onDelete.external",
            json!({"onDelete": {}, "uploadRequests": [{"name": "docs", "path": "/"}]}),
            "/onDelete/external",
            json!("Keep"),
            json!("Revoke"),
        )
        .then(Then::Delete)
        .fresh(),
        case("drift.default", tampered(), "/drift/default", json!("Warn"), json!("Ignore")).then(Then::Tamper).fresh(),
        case("drift.access", tampered(), "/drift/access", json!("Warn"), json!("Ignore")).then(Then::Tamper).fresh(),
        case("drift.folders", tampered(), "/drift/folders", json!("Warn"), json!("Ignore")).then(Then::Tamper).fresh(),
        case("drift.metadata", tampered(), "/drift/metadata", json!("Warn"), json!("Ignore")).then(Then::Tamper).fresh(),
        case("drift.sharing", tampered(), "/drift/sharing", json!("Warn"), json!("Ignore")).then(Then::Tamper).fresh(),
        case("folders[].path", json!({"folders": [{}]}), "/folders/0/path", json!("/A"), json!("/B")).required(),
        case("folders[].classification", folder(empty()), "/folders/0/classification", json!("Internal"), json!("Secret")),
        case("folders[].metadata", folder(empty()), "/folders/0/metadata", json!({"a": "1"}), json!({"a": "2"})),
        case("folders[].locked", folder(empty()), "/folders/0/locked", json!(true), json!(false)),
        case(
            "folders[].members[].kind",
            grants(json!({"name": "nobody"})),
            "/folders/0/members/0/kind",
            json!("User"),
            json!("Group"),
        )
        .required(),
        case("folders[].members[].name", grants(empty()), "/folders/0/members/0/name", json!("user1"), json!("user2"))
            .required(),
        case("folders[].members[].role", grants(empty()), "/folders/0/members/0/role", json!("Editor"), json!("Uploader"))
            .required(),
        case(
            "folders[].members[].expiresAt",
            grants(empty()),
            "/folders/0/members/0/expiresAt",
            json!(later),
            json!(latest),
        ),
        case("folders[].members[].reason", grants(empty()), "/folders/0/members/0/reason", json!("a"), json!("b")),
        case("access.mode", members(empty()), "/access/mode", json!("Additive"), json!("Exclusive"))
            .then(Then::Tamper)
            .fresh(),
        case(
            "access.members[].kind",
            members(json!({"name": "nobody"})),
            "/access/members/0/kind",
            json!("User"),
            json!("Group"),
        )
        .required(),
        case("access.members[].name", members(empty()), "/access/members/0/name", json!("user1"), json!("user2")).required(),
        case("access.members[].role", members(empty()), "/access/members/0/role", json!("Editor"), json!("Manager"))
            .required(),
        case("access.members[].expiresAt", members(empty()), "/access/members/0/expiresAt", json!(later), json!(latest)),
        case("access.members[].reason", members(empty()), "/access/members/0/reason", json!("a"), json!("b")),
        case("sharing.external", json!({"sharing": {}}), "/sharing/external", json!("Anyone"), json!("Disabled")).required(),
        case(
            "sharing.allowedDomains",
            json!({"sharing": {"external": "AllowListed"}}),
            "/sharing/allowedDomains",
            json!(["a.example"]),
            json!(["b.example"]),
        )
        .required(),
        case("sharing.reshare", open(empty()), "/sharing/reshare", json!(true), json!(false)),
        case(
            "sharing.links.maxAudience",
            open(json!({"links": {}})),
            "/sharing/links/maxAudience",
            json!("Company"),
            json!("Guests"),
        ),
        case("sharing.links.maxDays", open(json!({"links": {}})), "/sharing/links/maxDays", json!(7), json!(8)),
        case(
            "sharing.links.passwordRequired",
            open(json!({"links": {}})),
            "/sharing/links/passwordRequired",
            json!(true),
            json!(false),
        ),
        case("sharing.links.download", open(json!({"links": {}})), "/sharing/links/download", json!(false), json!(true)),
        case(
            "uploadRequests[].name",
            json!({"uploadRequests": [{"path": "/"}]}),
            "/uploadRequests/0/name",
            json!("a"),
            json!("b"),
        )
        .required(),
        case(
            "uploadRequests[].path",
            json!({"folders": [{"path": "/A"}, {"path": "/B"}], "uploadRequests": [{"name": "docs"}]}),
            "/uploadRequests/0/path",
            json!("/A"),
            json!("/B"),
        )
        .required(),
        case("uploadRequests[].requireEmail", request(empty()), "/uploadRequests/0/requireEmail", json!(true), json!(false)),
        case("uploadRequests[].expiresAt", request(empty()), "/uploadRequests/0/expiresAt", json!(later), json!(latest)),
        case("uploadRequests[].fields[].name", field(empty()), "/uploadRequests/0/fields/0/name", json!("a"), json!("b"))
            .required(),
        case("uploadRequests[].fields[].label", field(empty()), "/uploadRequests/0/fields/0/label", json!("A"), json!("B")),
        case(
            "uploadRequests[].fields[].type",
            field(empty()),
            "/uploadRequests/0/fields/0/type",
            json!("Date"),
            json!("Text"),
        ),
        case(
            "uploadRequests[].fields[].options",
            field(json!({"type": "Select"})),
            "/uploadRequests/0/fields/0/options",
            json!(["a"]),
            json!(["a", "b"]),
        )
        .required(),
        case(
            "uploadRequests[].fields[].required",
            field(empty()),
            "/uploadRequests/0/fields/0/required",
            json!(true),
            json!(false),
        ),
        case(
            "uploadRequests[].writeUrlTo.secretName",
            request(json!({"writeUrlTo": {}})),
            "/uploadRequests/0/writeUrlTo/secretName",
            json!("one"),
            json!("two"),
        )
        .required(),
        case(
            "requiredDocuments[].name",
            without(asks(empty()), document, "name"),
            "/requiredDocuments/0/name",
            json!("a"),
            json!("b"),
        )
        .required()
        .then(Then::Upload)
        .fresh(),
        case("requiredDocuments[].title", asks(empty()), "/requiredDocuments/0/title", json!("A"), json!("B"))
            .then(Then::Upload)
            .fresh(),
        case(
            "requiredDocuments[].requiredWhen",
            asks(empty()),
            "/requiredDocuments/0/requiredWhen",
            json!("workspace.metadata.region == 'US'"),
            json!("workspace.metadata.region"),
        )
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].match.path",
            asks(json!({"match": {}})),
            "/requiredDocuments/0/match/path",
            json!("/Inbox/*"),
            json!("/Other/*"),
        )
        .required()
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].match.when",
            asks(empty()),
            "/requiredDocuments/0/match/when",
            json!("file.metadata.kind == 'b'"),
            json!("file.metadata.kind + 1 == 'b'"),
        )
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].accept.mimeTypes",
            asks(json!({"accept": {}})),
            "/requiredDocuments/0/accept/mimeTypes",
            json!(["image/*"]),
            json!(["text/plain"]),
        )
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].accept.maxSize",
            asks(json!({"accept": {}})),
            "/requiredDocuments/0/accept/maxSize",
            json!("1"),
            json!("1Mi"),
        )
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].validity.period",
            valid(json!({"from": "file.metadata.issued"}), empty()),
            "/requiredDocuments/0/validity/period",
            json!("P1Y"),
            json!("P4Y"),
        )
        .required()
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].validity.from",
            valid(json!({"period": "P1Y"}), empty()),
            "/requiredDocuments/0/validity/from",
            json!("file.metadata.issued"),
            json!("file.metadata.expiry"),
        )
        .required()
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].validity.expiresOn",
            valid(empty(), empty()),
            "/requiredDocuments/0/validity/expiresOn",
            json!("file.metadata.expiry"),
            json!("file.metadata.issued"),
        )
        .required()
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].warnBefore",
            valid(ends(), empty()),
            "/requiredDocuments/0/warnBefore",
            json!("P100Y"),
            json!("P1D"),
        )
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].grace",
            valid(json!({"expiresOn": "'2020-01-01'"}), empty()),
            "/requiredDocuments/0/grace",
            json!("P100Y"),
            json!("P1D"),
        )
        .required()
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].review.required",
            asks(json!({"review": {}})),
            "/requiredDocuments/0/review/required",
            json!(true),
            json!(false),
        )
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].onApproved.lock",
            asks(json!({"onApproved": {}})),
            "/requiredDocuments/0/onApproved/lock",
            json!(true),
            json!(false),
        )
        .then(Then::Upload)
        .fresh(),
        case(
            "requiredDocuments[].waivers[].until",
            without(waived(empty()), "/requiredDocuments/0/waivers/0", "until"),
            "/requiredDocuments/0/waivers/0/until",
            json!("2040-01-31"),
            json!("2041-01-31T12:00:00Z"),
        )
        .required(),
        case(
            "requiredDocuments[].waivers[].by",
            without(waived(empty()), "/requiredDocuments/0/waivers/0", "by"),
            "/requiredDocuments/0/waivers/0/by",
            json!("a"),
            json!("b"),
        )
        .required(),
        case(
            "requiredDocuments[].waivers[].reason",
            without(waived(empty()), "/requiredDocuments/0/waivers/0", "reason"),
            "/requiredDocuments/0/waivers/0/reason",
            json!("a"),
            json!("b"),
        )
        .required(),
        case("timeZone", waived(empty()), "/timeZone", json!("Asia/Tokyo"), json!("America/New_York")),
        case("suspend", empty(), "/suspend", json!(true), json!(false)),
        case("suspendReason", json!({"suspend": true}), "/suspendReason", json!("a"), json!("b")),
        case("suspendUntil", json!({"suspend": true}), "/suspendUntil", json!(later), json!(latest)),
    ]
}

/// Fields whose difference another test shows, because one workspace on one Connection cannot.
const ELSEWHERE: [(&str, &str); 15] = [
    ("connectionRef.name", "connections::the_named_connection_is_used"),
    ("connectionRef.namespace", "tenancy::t1_a_namespace_reaches_only_what_is_granted_to_it"),
    ("workspaceId", "convergence::adopt_only_never_creates_and_finds_a_workspace_by_its_id"),
    ("adoption", "convergence::an_existing_workspace_is_adopted_only_when_asked"),
    ("approvedPlan", "convergence::c7_only_the_approved_plan_is_applied"),
    ("maxRemovals", "convergence::c7_a_breaker_stops_too_many_removals_and_says_which"),
    ("access.members", "its parts have cases of their own"),
    ("report[].name", "reports::only_what_was_asked_for_is_told_and_a_new_report_begins_with_provisioned"),
    ("report[].events", "reports::only_what_was_asked_for_is_told_and_a_new_report_begins_with_provisioned"),
    (
        "requiredDocuments[].review.minApprovals",
        "documents_reviews::a2_several_people_decide_about_one_version_and_a_newer_one_asks_again",
    ),
    (
        "requiredDocuments[].review.separationOfDuties",
        "documents_reviews::a2_several_people_decide_about_one_version_and_a_newer_one_asks_again",
    ),
    ("reminders.to", "documents::people_outside_are_invited_once_told_of_a_rejection_and_not_disturbed_otherwise"),
    ("reminders.uploadRequest", "documents::mails_carry_the_address_and_name_what_is_asked_for"),
    ("reminders.every", "documents::people_outside_are_invited_once_told_of_a_rejection_and_not_disturbed_otherwise"),
    ("reminders.language", "documents::people_outside_are_invited_once_told_of_a_rejection_and_not_disturbed_otherwise"),
];

fn merged(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(mut one), Value::Object(other)) => {
            one.extend(other);
            Value::Object(one)
        }
        (one, other) => panic!("{one} and {other} are no objects"),
    }
}

/// The paths of all leaf fields of the spec.
fn fields(schema: &JSONSchemaProps, path: &str, all: &mut BTreeSet<String>) {
    for (name, property) in schema.properties.iter().flatten() {
        let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match &property.items {
            Some(JSONSchemaPropsOrArray::Schema(items)) if items.properties.is_some() => {
                fields(items, &format!("{here}[]"), all);
            }
            _ if property.properties.is_some() => fields(property, &here, all),
            _ => {
                all.insert(here);
            }
        }
    }
}

/// The schema at a path of the spec of a kind, such as `rules[].to[].http`.
fn schema_at(kind: &str, path: &str) -> JSONSchemaProps {
    let crd = file360_operator::api::crds::all().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let root = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    path.split('.').fold(root.properties.unwrap()["spec"].clone(), |schema, part| {
        let property = schema.properties.as_ref().unwrap()[part.trim_end_matches("[]")].clone();
        match property.items {
            Some(JSONSchemaPropsOrArray::Schema(items)) if part.ends_with("[]") => *items,
            _ => property,
        }
    })
}

/// A schema without what stands around its fields.
fn without_text(schema: &JSONSchemaProps) -> JSONSchemaProps {
    JSONSchemaProps { description: None, nullable: None, ..schema.clone() }
}

/// The paths of all leaf fields of the spec of a kind.
pub fn fields_of(kind: &str) -> BTreeSet<String> {
    let crd = file360_operator::api::crds::all().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let root = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
    let mut all = BTreeSet::new();
    fields(&root.properties.unwrap()["spec"], "", &mut all);
    all
}

#[test]
fn every_field_of_the_crd_has_a_case() {
    // The call of a report is that of a route's destination, whose fields have cases there; reports::a_call_is_what_the_other_system_takes_as_it_is
    // shows that it is made.
    assert_eq!(
        without_text(&schema_at("SecureWorkspace", "report[].http")),
        without_text(&schema_at("FileRoute", "rules[].to[].http"))
    );
    let mut in_crd = fields_of("SecureWorkspace");
    in_crd.retain(|field| !field.starts_with("report[].http."));
    let covered: BTreeSet<String> =
        cases().iter().map(|case| case.field).chain(ELSEWHERE.map(|(field, _)| field)).map(str::to_owned).collect();
    let missing: Vec<_> = in_crd.difference(&covered).collect();
    assert!(missing.is_empty(), "no case shows what these fields do: {missing:?}");
}

/// What the world looks like from outside, without what differs between resources.
async fn look(world: &World, name: &str, id: Option<&str>) -> Value {
    let object = world.api("SecureWorkspace").get_opt(name).await.unwrap();
    let object = object.map_or(Value::Null, |object| serde_json::to_value(object).unwrap());
    let known = object["status"]["workspaceId"].as_str().or(id).map(str::to_owned);
    let mut remote = match &known {
        Some(id) => world.remote.workspace_state(id).await,
        None => Value::Null,
    };
    if let (Some(id), Some(map)) = (&known, remote.as_object_mut()) {
        let whole = world.remote.get(&format!("/v1/workspaces/{id}")).await;
        let day = whole["purgeAt"].as_str().map(|time| time[..10].to_owned());
        map.insert("purgeDay".into(), json!(day));
        map.remove("owner");
        if remote["key"]["system"] == "k8s" {
            remote["key"].take();
        }
    }
    let conditions: Vec<Value> = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|condition| json!([condition["type"], condition["status"], condition["reason"], condition["message"]]))
        .collect();
    let secrets = object["status"]["secrets"].clone();
    let mut documents = object["status"]["requirements"].clone();
    for row in documents.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        row.retain(|name, _| !["fileId", "since", "replacement"].contains(&name.as_str()));
    }
    let mut locked = Vec::new();
    if let (Some(id), true) = (&known, !remote.is_null() && remote["state"] != "Trashed") {
        let files = world.remote.all(&format!("/v1/workspaces/{id}/files")).await;
        locked.extend(files.into_iter().map(|file| file["locked"].clone()));
    }
    let drift: Vec<Value> =
        object["status"]["drift"]["items"].as_array().into_iter().flatten().map(|item| item["path"].clone()).collect();
    json!({"remote": remote, "conditions": conditions, "secrets": secrets, "drift": drift, "documents": documents, "locked": locked})
}

async fn tamper(world: &World, id: &str) {
    let stranger = world.remote.principal("User", "user9").await;
    let folders = world.remote.all(&format!("/v1/workspaces/{id}/folders")).await;
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Tampered"})).await;
    world
        .remote
        .change(
            "PATCH",
            &format!("/v1/workspaces/{id}"),
            json!({"sharing": {"external": "Anyone", "allowedDomains": [],
        "reshare": false, "links": {"maxAudience": "Members", "passwordRequired": false, "download": true}}}),
        )
        .await;
    world.remote.change("PUT", &format!("/v1/workspaces/{id}/members/{stranger}?path=/"), json!({"role": "Viewer"})).await;
    if let Some(folder) = folders.first() {
        world
            .remote
            .change("PATCH", &format!("/v1/items/{}", folder["id"].as_str().unwrap()), json!({"name": "Moved"}))
            .await;
    }
}

/// Applies a spec, lets happen what the case says, and looks.
async fn show(world: &World, case: &Case, name: &str, spec: Value) -> Value {
    world.apply_workspace(name, spec).await;
    let settled = world
        .until("SecureWorkspace", name, "an answer", |object| {
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
                && !condition(object, "Ready").is_null()
                && (condition(object, "Reconciling").is_null()
                    || condition(object, "Ready")["reason"] == "PrincipalNotFound")
        })
        .await;
    let id = settled["status"]["workspaceId"].as_str().map(str::to_owned);
    match case.then {
        Then::Look => {}
        Then::Tamper => {
            tamper(world, id.as_deref().unwrap()).await;
            world.reconcile_now(name).await;
        }
        Then::Upload => {
            let metadata = [("kind", "a"), ("issued", "2040-02-29"), ("expiry", "2041-06-30")];
            let id = id.as_deref().unwrap();
            super::documents::upload(world, id, "/Inbox/document.txt", "text/plain", &metadata).await;
            world.reconcile_now(name).await;
        }
        Then::Delete => {
            let confirm = json!({"metadata": {"annotations": {"file360.io/confirm-delete": id}}});
            world.patch("SecureWorkspace", name, confirm).await;
            world.delete_and_wait("SecureWorkspace", name).await;
        }
    }
    look(world, name, id.as_deref()).await
}

#[tokio::test]
async fn every_field_makes_a_difference_outside_when_set_changed_and_unset() {
    let world = World::new().await;
    for (number, case) in cases().iter().enumerate() {
        let name = |step: &str| if case.fresh { format!("f{number}-{step}") } else { format!("f{number}") };
        let without = case.with(None);
        let before = if case.required { None } else { Some(show(&world, case, &name("unset"), without.clone()).await) };
        let set = show(&world, case, &name("set"), case.with(Some(&case.set))).await;
        let changed = show(&world, case, &name("changed"), case.with(Some(&case.changed))).await;
        assert_ne!(set, changed, "{}: changing it makes no difference", case.field);
        let Some(before) = before else { continue };
        assert_ne!(before, set, "{}: setting it makes no difference", case.field);
        if !case.fresh {
            let after = show(&world, case, &name("again"), without).await;
            assert_eq!(after, before, "{}: unsetting it leaves something behind", case.field);
        }
    }
}
