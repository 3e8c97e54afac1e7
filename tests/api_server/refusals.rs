//! Bad manifests are refused by the API server itself, with a sentence that names the field.

use serde_json::{Value, json};

use crate::support::kubernetes;
use crate::support::world::{World, on_connection};

async fn refused(world: &World, kind: &str, spec: Value, message: &str) {
    let error = world.try_apply(kind, "bad", spec.clone()).await.expect_err(&format!("{kind} {spec} should be refused"));
    let text = error.to_string();
    assert!(text.contains(message), "{spec} is refused with {text:?}, which lacks {message:?}");
}

#[allow(clippy::needless_pass_by_value, reason = "values are written where they are used")]
fn merged(mut one: Value, more: Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        one[name] = value.clone();
    }
    one
}

/// One required document with more fields.
fn document(more: Value) -> Value {
    json!({"requiredDocuments": [merged(json!({"name": "iso", "match": {"path": "/Inbox/**"}}), more)]})
}

#[tokio::test]
async fn every_rule_of_secureworkspace_refuses_with_its_message() {
    let world = World::without_operator(kubernetes::shared().await).await;
    let cases = [
        (json!({"workspaceId": "x"}), "workspaceId needs adoption: AdoptOnly"),
        (
            json!({"workspaceId": "x", "adoption": "AdoptOnly", "externalRef": {"system": "a", "type": "b", "id": "c"}}),
            "workspaceId and externalRef exclude each other",
        ),
        (json!({"approvedPlan": "abc"}), "approvedPlan needs mode: Approve"),
        (json!({"deleteGrace": "P1D"}), "deleteGrace needs deletionPolicy: Delete"),
        (json!({"suspendUntil": "2030-01-01T00:00:00Z"}), "suspendUntil needs suspend: true"),
        (json!({"suspendReason": "why"}), "suspendReason needs suspend: true"),
        (
            json!({"sharing": {"external": "Anyone", "allowedDomains": ["a.example"]}}),
            "allowedDomains needs sharing.external",
        ),
        (json!({"sharing": {"external": "AllowListed"}}), "needs at least one entry in sharing.allowedDomains"),
        (json!({"folders": [{"path": "no-slash"}]}), "spec.folders[0].path"),
        (json!({"folders": [{"path": "/a/../b"}]}), "spec.folders[0].path"),
        (json!({"folders": [{"path": "/a/./b"}]}), "spec.folders[0].path"),
        (json!({"folders": [{"path": "/a//b"}]}), "spec.folders[0].path"),
        (json!({"folders": [{"path": "/a\\b"}]}), "spec.folders[0].path"),
        (json!({"folders": [{"path": "/a\u{0}b"}]}), "spec.folders[0].path"),
        (json!({"folders": [{"path": "/a/"}]}), "spec.folders[0].path"),
        (json!({"displayName": "two\nlines"}), "spec.displayName"),
        (json!({"displayName": ""}), "spec.displayName"),
        (json!({"mode": "Sometimes"}), "spec.mode"),
        (json!({"deletionPolicy": "Delete", "deleteGrace": "30 days"}), "spec.deleteGrace"),
        (json!({"maxRemovals": -1}), "spec.maxRemovals"),
        (json!({"uploadRequests": [{"name": "Not DNS", "path": "/"}]}), "spec.uploadRequests[0].name"),
        (json!({"access": {"members": [{"kind": "Robot", "name": "r", "role": "Viewer"}]}}), "spec.access.members[0].kind"),
        (
            json!({"access": {"members": [{"kind": "User", "name": "a\nb", "role": "Viewer"}]}}),
            "spec.access.members[0].name",
        ),
        (json!({"externalRef": {"system": "UPPER", "type": "t", "id": "1"}}), "spec.externalRef.system"),
        (
            json!({"metadata": (0..65).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>()}),
            "spec.metadata",
        ),
        (json!({"metadata": {"k": "v".repeat(1025)}}), "spec.metadata"),
        (json!({"report": [{"name": "Not DNS", "http": {"url": "https://crm.example.com"}}]}), "spec.report[0].name"),
        (json!({"report": [{"name": "crm", "http": {"url": "ftp://crm.example.com"}}]}), "spec.report[0].http.url"),
        (
            json!({"report": [{"name": "crm", "http": {"url": "https://crm.example.com"}, "events": ["Everything"]}]}),
            "spec.report[0].events",
        ),
        (
            json!({"report": [{"name": "crm", "http": {"url": "https://crm.example.com"}, "events": []}]}),
            "spec.report[0].events",
        ),
        (
            json!({"report": (0..9).map(|n| json!({"name": format!("r{n}"), "http": {"url": "https://crm.example.com"}})).collect::<Vec<_>>()}),
            "spec.report",
        ),
        (document(json!({"validity": {}})), "validity needs exactly one of period and expiresOn"),
        (
            document(json!({"validity": {"period": "P1Y", "from": "x", "expiresOn": "y"}})),
            "validity needs exactly one of period and expiresOn",
        ),
        (document(json!({"validity": {"period": "P1Y"}})), "validity.period and validity.from go together"),
        (document(json!({"warnBefore": "P1D"})), "warnBefore and grace need validity"),
        (document(json!({"grace": "P1D"})), "warnBefore and grace need validity"),
        (document(json!({"name": "Not DNS"})), "spec.requiredDocuments[0].name"),
        (document(json!({"match": {"path": "Inbox"}})), "spec.requiredDocuments[0].match.path"),
        (document(json!({"accept": {"mimeTypes": ["pdf"]}})), "spec.requiredDocuments[0].accept.mimeTypes[0]"),
        (document(json!({"accept": {"maxSize": "20 MB"}})), "spec.requiredDocuments[0].accept.maxSize"),
        (
            document(json!({"waivers": [{"until": "soon", "by": "a", "reason": "b"}]})),
            "spec.requiredDocuments[0].waivers[0].until",
        ),
        (document(json!({"waivers": [{"until": "2030-01-01", "by": "a"}]})), "reason"),
        (json!({"timeZone": "../etc/passwd"}), "spec.timeZone"),
        (json!({"reminders": {"to": ["a@b.example"]}}), "reminders need requiredDocuments"),
        (
            merged(document(json!({})), json!({"reminders": {"to": ["a@b.example"], "uploadRequest": "docs"}})),
            "reminders.uploadRequest names no upload request",
        ),
        (merged(document(json!({})), json!({"reminders": {"to": ["nobody"]}})), "spec.reminders.to[0]"),
    ];
    for (spec, message) in cases {
        refused(&world, "SecureWorkspace", on_connection(spec), message).await;
    }
}

#[tokio::test]
async fn keys_are_immutable_also_when_a_field_comes_or_goes() {
    let world = World::without_operator(kubernetes::shared().await).await;
    let key = |id: &str| json!({"externalRef": {"system": "a", "type": "b", "id": id}});
    world.apply("SecureWorkspace", "bad", on_connection(key("1"))).await;
    refused(&world, "SecureWorkspace", on_connection(key("2")), "externalRef is immutable").await;
    refused(&world, "SecureWorkspace", on_connection(json!({})), "externalRef is immutable").await;
    let mut other = on_connection(key("1"));
    other["connectionRef"] = json!({"name": "another"});
    refused(&world, "SecureWorkspace", other, "connectionRef is immutable").await;
    let mut other = on_connection(key("1"));
    other["connectionRef"]["namespace"] = json!("another");
    refused(&world, "SecureWorkspace", other, "connectionRef is immutable").await;
    world.delete_and_wait("SecureWorkspace", "bad").await;
    world.apply("SecureWorkspace", "bad", on_connection(json!({}))).await;
    refused(&world, "SecureWorkspace", on_connection(key("1")), "externalRef is immutable").await;
    world.delete_and_wait("SecureWorkspace", "bad").await;
    let by_id = |id: &str| on_connection(json!({"adoption": "AdoptOnly", "workspaceId": id}));
    world.apply("SecureWorkspace", "bad", by_id("1")).await;
    refused(&world, "SecureWorkspace", by_id("2"), "workspaceId is immutable").await;
}

#[tokio::test]
async fn every_rule_of_connection_refuses_with_its_message() {
    let world = World::without_operator(kubernetes::shared().await).await;
    let token = json!({"secretRef": {"name": "s", "key": "k"}});
    let reference = json!({"name": "s", "key": "k"});
    let oauth2 = json!({"clientIdRef": reference, "clientSecretRef": reference});
    let spec = |more: Value| {
        let mut spec = json!({"endpoint": "https://f.example", "auth": {"token": token}});
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        spec
    };
    let cases = [
        (json!({"endpoint": "http://f.example"}), "endpoint must use https"),
        (json!({"endpoint": "ftp://f.example"}), "spec.endpoint"),
        (json!({"endpoint": "https://user:pw@f.example"}), "spec.endpoint"),
        (json!({"auth": {}}), "auth needs exactly one of oauth2, token and basic"),
        (
            json!({"auth": {"basic": {"usernameRef": reference, "passwordRef": reference}}}),
            "auth.basic goes with driver: WebDAV",
        ),
        (json!({"auth": {"token": token, "oauth2": oauth2}}), "auth needs exactly one of oauth2, token and basic"),
        (json!({"suspendUntil": "2030-01-01T00:00:00Z"}), "suspendUntil needs suspend: true"),
        (json!({"grants": [{"namespaces": {"from": "Selector"}}]}), "needs namespaces.selector"),
        (json!({"grants": [{"namespaces": {"from": "All", "selector": {}}}]}), "goes with from: Selector only"),
        (json!({"limits": {"requestsPerSecond": 0}}), "spec.limits.requestsPerSecond"),
    ];
    for (more, message) in cases {
        refused(&world, "Connection", spec(more), message).await;
    }
}

#[tokio::test]
async fn a_fresh_object_is_not_taken_for_a_converged_one() {
    let world = World::without_operator(kubernetes::shared().await).await;
    world.apply("SecureWorkspace", "w", on_connection(json!({}))).await;
    let object = world.get("SecureWorkspace", "w").await;
    assert_eq!(object["status"], json!({"observedGeneration": -1}));
}
