//! What is declared becomes so, whatever was there before.

use serde_json::{Value, json};

use crate::support::world::{World, condition};

/// A spec that uses much of what there is.
pub fn rich() -> Value {
    json!({
        "displayName": "Rich",
        "externalRef": {"system": "s4", "type": "vendor", "id": "50031/ä 1"},
        "classification": "Confidential",
        "metadata": {"customerId": "50031", "region": "EU"},
        "folders": [
            {"path": "/Contracts/Signed", "locked": true, "members": [{"kind": "Group", "name": "group1", "role": "Editor"}]},
            {"path": "/Inbox", "classification": "Internal", "metadata": {"purpose": "uploads"}},
        ],
        "access": {"members": [
            {"kind": "Group", "name": "group0", "role": "Editor"},
            {"kind": "User", "name": "user0", "role": "Manager"},
            {"kind": "Guest", "name": "Bob@Acme.example", "role": "Viewer", "expiresAt": "2031-01-31T00:00:00Z", "reason": "RFP 12"},
        ]},
        "sharing": {"external": "AllowListed", "allowedDomains": ["acme.example", "*.bücher.example"], "links": {"maxDays": 30}},
        "uploadRequests": [{"name": "docs", "path": "/Inbox", "fields": [
            {"name": "documentType", "type": "Select", "options": ["iso9001", "w9"], "required": true}]}],
    })
}

#[tokio::test]
async fn a_declared_workspace_becomes_real_in_every_detail() {
    let world = World::new().await;
    world.workspace("rich", rich()).await;
    let state = world.remote.state().await;
    let workspace = &state[0];
    assert_eq!(state.as_array().unwrap().len(), 1);
    assert_eq!(workspace["key"], json!({"system": "s4", "key": "vendor/50031/ä 1"}));
    assert_eq!(workspace["displayName"], "Rich");
    assert_eq!(workspace["classification"], "Confidential");
    assert_eq!(workspace["metadata"], json!({"customerId": "50031", "region": "EU"}));
    assert_eq!(workspace["sharing"]["allowedDomains"], json!(["*.xn--bcher-kva.example", "acme.example"]));
    assert_eq!(workspace["sharing"]["links"]["maxDays"], 30);
    assert_eq!(workspace["owner"]["namespace"], world.namespace.as_str());
    let folders: Vec<&str> =
        workspace["parts"]["folders"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(folders.len(), 3);
    assert!(["/Contracts", "/Contracts/Signed", "/Inbox"].iter().all(|path| folders.contains(path)), "{folders:?}");
    let members: Vec<String> = workspace["parts"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| format!("{} {} {} {}", m["kind"], m["name"], m["role"], m["path"]).replace('"', ""))
        .collect();
    for expected in [
        "Group group0 Editor /",
        "User user0 Manager /",
        "Guest bob@acme.example Viewer /",
        "Group group1 Editor /Contracts/Signed",
    ] {
        assert!(members.iter().any(|member| member == expected), "{expected} is missing in {members:?}");
    }
    assert_eq!(members.len(), 4);
    assert_eq!(workspace["parts"]["upload-requests"][0]["fields"][0]["options"], json!(["iso9001", "w9"]));
    let object = world.get("SecureWorkspace", "rich").await;
    assert_eq!(object["status"]["access"], json!({"internal": 3, "external": 1, "expiringIn7Days": 0}));
}

#[tokio::test]
async fn c1_applying_the_same_manifests_again_changes_nothing() {
    let world = World::new().await;
    world.workspace("rich", rich()).await;
    let state = world.remote.state().await;
    let before = world.get("SecureWorkspace", "rich").await;
    world.workspace("rich", rich()).await;
    world.reconcile_now("rich").await;
    assert_eq!(world.remote.state().await, state);
    let after = world.get("SecureWorkspace", "rich").await;
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(after["status"]["revision"], before["status"]["revision"]);
}

#[tokio::test]
async fn c3_what_a_had_and_b_has_not_is_gone() {
    let world = World::new().await;
    world.workspace("w", rich()).await;
    let b = json!({
        "displayName": "Poor",
        "externalRef": {"system": "s4", "type": "vendor", "id": "50031/ä 1"},
        "metadata": {"region": "US"},
        "folders": [{"path": "/Inbox"}],
        "access": {"members": [{"kind": "User", "name": "user0", "role": "Viewer"}]},
    });
    world.workspace("w", b.clone()).await;
    let changed = world.remote.state().await;
    let fresh = World::new().await;
    fresh.workspace("w", b).await;
    assert_eq!(neutral(&changed, &world), neutral(&fresh.remote.state().await, &fresh));
}

/// A state without the name of its world.
pub fn neutral(state: &Value, world: &World) -> String {
    serde_json::to_string_pretty(state).unwrap().replace(&world.namespace, "WORLD")
}

#[tokio::test]
async fn a_folder_with_content_is_kept_and_reported() {
    let world = World::new().await;
    world.workspace("w", json!({"folders": [{"path": "/Old"}, {"path": "/Empty"}]})).await;
    let id = world.workspace_id("w").await;
    world.remote.change("POST", &format!("/v1/workspaces/{id}/folders"), json!({"path": "/Old/by people"})).await;
    world.apply_workspace("w", json!({"folders": []})).await;
    let object = world.reason("SecureWorkspace", "w", "Drifted", "FolderNotEmpty").await;
    assert_eq!(condition(&object, "Ready")["status"], "True");
    assert_eq!(object["status"]["drift"]["items"][0]["path"], "folders/Old");
    let folders = world.remote.all(&format!("/v1/workspaces/{id}/folders")).await;
    let paths: Vec<&str> = folders.iter().map(|folder| folder["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/Old", "/Old/by people"]);
}

#[tokio::test]
async fn c7_a_plan_is_shown_and_nothing_is_changed() {
    let world = World::new().await;
    world
        .apply_workspace(
            "w",
            json!({"mode": "Plan", "folders": [{"path": "/A"}], "access": {"members": [
        {"kind": "User", "name": "user1", "role": "Viewer"}]}}),
        )
        .await;
    let object = world.reason("SecureWorkspace", "w", "Ready", "Planned").await;
    assert_eq!(
        object["status"]["plan"]["actions"],
        json!(["create the workspace", "create folder /A", "add member user1 (User): Viewer on /"])
    );
    assert_eq!(world.remote.state().await, json!([]));
}

#[tokio::test]
async fn c7_only_the_approved_plan_is_applied() {
    let world = World::new().await;
    let spec = |approved: Option<&str>, folder: &str| {
        let mut spec = json!({"mode": "Approve", "folders": [{"path": folder}]});
        if let Some(hash) = approved {
            spec["approvedPlan"] = json!(hash);
        }
        spec
    };
    world.apply_workspace("w", spec(None, "/A")).await;
    let object = world.reason("SecureWorkspace", "w", "Ready", "AwaitingApproval").await;
    let hash = object["status"]["plan"]["hash"].as_str().unwrap().to_owned();
    world.apply_workspace("w", spec(Some(&hash), "/B")).await;
    world.reason("SecureWorkspace", "w", "Ready", "PlanChanged").await;
    assert_eq!(world.remote.state().await, json!([]));
    world.workspace("w", spec(Some(&hash), "/A")).await;
    assert_eq!(world.remote.state().await[0]["parts"]["folders"][0]["path"], "/A");
}

#[tokio::test]
async fn c7_a_breaker_stops_too_many_removals_and_says_which() {
    let world = World::new().await;
    let members = |range: std::ops::Range<u32>| -> Vec<Value> {
        range.map(|n| json!({"kind": "User", "name": format!("user{n}"), "role": "Viewer"})).collect()
    };
    world.workspace("w", json!({"maxRemovals": 3, "access": {"members": members(0..6)}})).await;
    let state = world.remote.state().await;
    world.apply_workspace("w", json!({"maxRemovals": 3, "access": {"members": members(0..2)}})).await;
    let object = world.condition("SecureWorkspace", "w", "RemovalBlocked", "True").await;
    let message = condition(&object, "RemovalBlocked")["message"].to_string();
    assert!((2..6).all(|n| message.contains(&format!("user{n}"))), "{message}");
    assert_eq!(condition(&object, "Ready")["status"], "False");
    assert_eq!(world.remote.state().await, state);
    world.workspace("w", json!({"maxRemovals": 4, "access": {"members": members(0..2)}})).await;
    assert_eq!(world.remote.state().await[0]["parts"]["members"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn c11_a_second_resource_cannot_take_a_workspace() {
    let world = World::new().await;
    let spec = json!({"externalRef": {"system": "crm", "type": "deal", "id": "1"}, "displayName": "First"});
    world.workspace("first", spec.clone()).await;
    let state = world.remote.state().await;
    let mut second = spec;
    second["displayName"] = json!("Second");
    second["adoption"] = json!("AdoptOrCreate");
    world.apply_workspace("second", second).await;
    let object = world.reason("SecureWorkspace", "second", "Ready", "OwnedByOther").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains(&format!("{}/first", world.namespace)));
    assert_eq!(world.remote.state().await, state);
}

#[tokio::test]
async fn an_existing_workspace_is_adopted_only_when_asked() {
    let world = World::new().await;
    world
        .remote
        .call(
            "PUT",
            "/v1/workspaces/by-key/crm/deal%2F7",
            &[("if-none-match", "*")],
            Some(json!({"displayName": "By people"})),
        )
        .await;
    let spec = json!({"externalRef": {"system": "crm", "type": "deal", "id": "7"}, "displayName": "Declared"});
    world.apply_workspace("w", spec.clone()).await;
    world.reason("SecureWorkspace", "w", "Ready", "AlreadyExists").await;
    assert_eq!(world.remote.state().await[0]["displayName"], "By people");
    let mut adopting = spec;
    adopting["adoption"] = json!("AdoptOrCreate");
    world.workspace("w", adopting).await;
    let state = world.remote.state().await;
    assert_eq!((state.as_array().unwrap().len(), &state[0]["displayName"]), (1, &json!("Declared")));
    assert_eq!(state[0]["owner"]["name"], "w");
}

#[tokio::test]
async fn adopt_only_never_creates_and_finds_a_workspace_by_its_id() {
    let world = World::new().await;
    let made = world.remote.change("POST", "/v1/workspaces", json!({"displayName": "By people"})).await;
    world.apply_workspace("none", json!({"adoption": "AdoptOnly", "workspaceId": "nope"})).await;
    world.reason("SecureWorkspace", "none", "Ready", "WorkspaceNotFound").await;
    world.workspace("w", json!({"adoption": "AdoptOnly", "workspaceId": made["id"], "displayName": "Declared"})).await;
    let state = world.remote.state().await;
    assert_eq!((state.as_array().unwrap().len(), &state[0]["displayName"]), (1, &json!("Declared")));
}

#[tokio::test]
async fn an_unknown_group_is_named_and_nothing_is_half_done() {
    let world = World::new().await;
    world
        .apply_workspace(
            "w",
            json!({"folders": [{"path": "/A"}], "access": {"members": [
            {"kind": "User", "name": "user1", "role": "Viewer"}, {"kind": "Group", "name": "ghosts", "role": "Viewer"}]}}),
        )
        .await;
    let object = world.reason("SecureWorkspace", "w", "Ready", "PrincipalNotFound").await;
    assert!(condition(&object, "Ready")["message"].as_str().unwrap().contains("ghosts"));
    assert_eq!(world.remote.state().await, json!([]));
}

#[tokio::test]
async fn a_suspended_workspace_is_left_alone_and_says_so() {
    let world = World::new().await;
    world.workspace("w", json!({"displayName": "One"})).await;
    world.apply_workspace("w", json!({"displayName": "Two", "suspend": true, "suspendReason": "audit week"})).await;
    let object = world.condition("SecureWorkspace", "w", "Suspended", "True").await;
    assert!(condition(&object, "Suspended")["message"].as_str().unwrap().contains("audit week"));
    assert_eq!(object["status"]["plan"]["actions"], json!(["change displayName"]));
    assert_eq!(world.remote.state().await[0]["displayName"], "One");
    world.workspace("w", json!({"displayName": "Two"})).await;
    assert_eq!(world.remote.state().await[0]["displayName"], "Two");
}

#[tokio::test]
async fn an_additive_workspace_removes_only_what_it_added() {
    let world = World::new().await;
    let spec = |names: &[&str]| {
        let members: Vec<Value> = names.iter().map(|name| json!({"kind": "User", "name": name, "role": "Viewer"})).collect();
        json!({"access": {"mode": "Additive", "members": members}})
    };
    world.workspace("w", spec(&["user0", "user1"])).await;
    let id = world.workspace_id("w").await;
    let user5 = world.remote.principal("User", "user5").await;
    world.remote.change("PUT", &format!("/v1/workspaces/{id}/members/{user5}?path=/"), json!({"role": "Editor"})).await;
    world.workspace("w", spec(&["user0"])).await;
    let members = world.remote.all(&format!("/v1/workspaces/{id}/members")).await;
    let mut names: Vec<&str> = members.iter().map(|member| member["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["user0", "user5"]);
}

#[tokio::test]
async fn the_address_of_an_upload_request_goes_to_an_owned_secret_and_leaves_with_it() {
    let world = World::new().await;
    let spec = |target: Option<&str>| {
        let mut request = json!({"name": "docs", "path": "/Inbox"});
        if let Some(name) = target {
            request["writeUrlTo"] = json!({"secretName": name});
        }
        json!({"folders": [{"path": "/Inbox"}], "uploadRequests": [request]})
    };
    world.workspace("w", spec(Some("first"))).await;
    let secret = world.get("Secret", "first").await;
    assert_eq!(secret["metadata"]["ownerReferences"][0]["name"], "w");
    assert!(secret["data"]["url"].is_string());
    world.workspace("w", spec(Some("second"))).await;
    world.gone("Secret", "first").await;
    let foreign =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "foreign"}, "stringData": {"url": "mine"}});
    crate::support::kubernetes::apply(&world.client, &world.namespace, &foreign).await.unwrap();
    world.apply_workspace("w", spec(Some("foreign"))).await;
    world.reason("SecureWorkspace", "w", "Ready", "SecretNotOwned").await;
    assert_eq!(world.get("Secret", "foreign").await["data"]["url"], "bWluZQ==");
}

#[tokio::test]
async fn the_tables_of_kubectl_tell_the_story() {
    let plane = crate::support::kubernetes::shared().await;
    let world = World::new().await;
    let mut spec = rich();
    spec["drift"] = json!({"metadata": "Warn"});
    spec["requiredDocuments"] = json!([{"name": "iso", "match": {"path": "/Inbox/**"}}]);
    world.workspace("rich", spec).await;
    let id = world.workspace_id("rich").await;
    world.remote.change("PATCH", &format!("/v1/workspaces/{id}"), json!({"displayName": "Changed"})).await;
    world.reason("SecureWorkspace", "rich", "Drifted", "Tolerated").await;
    let cells = |kind: &str| {
        let table = world.kubectl(plane, &["get", kind, "-o", "wide"]);
        let mut lines = table.lines().map(str::to_owned);
        let (head, row) = (lines.next().unwrap(), lines.next().unwrap());
        // Columns start where their titles do.
        let titles: Vec<&str> = head.split_whitespace().collect();
        let starts: Vec<usize> = titles.iter().map(|title| head.find(title).unwrap()).collect();
        let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
        let cell = |(start, end): (usize, usize)| row[start.min(row.len())..end.min(row.len())].trim().to_owned();
        titles.iter().map(|title| (*title).to_owned()).zip(starts.iter().copied().zip(ends).map(cell)).collect::<Vec<_>>()
    };
    let workspaces = cells("sws");
    let is = |title: &str, value: &str| workspaces.contains(&(title.to_owned(), value.to_owned()));
    assert!(
        is("READY", "True") && is("REASON", "Converged") && is("INTERNAL", "3") && is("EXTERNAL", "1"),
        "{workspaces:?}"
    );
    assert!(is("DOCS", "0/1") && is("DRIFT", "1") && is("WORKSPACE", &id) && is("CONNECTION", "file360"), "{workspaces:?}");
    for (kind, table) in [("sws", workspaces.clone()), ("f3c", cells("f3c"))] {
        assert!(table.iter().all(|(_, cell)| !cell.is_empty() && cell != "<none>"), "{kind}: {table:?}");
    }
}
