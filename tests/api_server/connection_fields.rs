//! Every field of a Connection makes a difference outside. The list of fields comes from the CRD.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fields::fields_of;
use super::routes::{arrived, claims, route, to_cases};
use crate::support::case_system::CaseSystem;
use crate::support::kubernetes;
use crate::support::remote::{CLIENT_ID, CLIENT_SECRET};
use crate::support::world::World;

/// Where each field is shown to make a difference.
const SHOWN: [(&str, &str); 44] = [
    ("principals[].username", "gates_votes::t6_nobody_votes_as_somebody_else_or_twice_or_decides_or_changes_a_decision"),
    ("principals[].file360", "gates_votes::t6_nobody_votes_as_somebody_else_or_twice_or_decides_or_changes_a_decision"),
    ("endpoint", "connections::the_named_connection_is_used"),
    ("allowInsecure", "refusals::every_rule_of_connection_refuses_with_its_message"),
    ("auth.oauth2.clientIdRef.name", "every_reference_is_read"),
    ("auth.oauth2.clientIdRef.key", "every_reference_is_read"),
    ("auth.oauth2.clientSecretRef.name", "every_reference_is_read"),
    ("auth.oauth2.clientSecretRef.key", "every_reference_is_read"),
    ("auth.oauth2.tokenUrl", "a_token_comes_from_where_the_spec_says_and_may_what_it_says"),
    ("auth.oauth2.scopes", "a_token_comes_from_where_the_spec_says_and_may_what_it_says"),
    ("auth.token.secretRef.name", "a_fixed_token_works_in_place_of_a_client"),
    ("auth.token.secretRef.key", "a_fixed_token_works_in_place_of_a_client"),
    ("tls.caRef.kind", "every_reference_is_read"),
    ("tls.caRef.name", "every_reference_is_read"),
    ("tls.caRef.key", "every_reference_is_read"),
    ("tls.clientCertRef.name", "every_reference_is_read"),
    ("limits.requestsPerSecond", "limits_hold_the_operator_back"),
    ("limits.concurrency", "limits_hold_the_operator_back"),
    ("limits.bandwidth", "routes_of_a_connection_share_its_bandwidth"),
    ("grants[].namespaces.from", "tenancy::t1_a_declared_scope_adopts_nothing_that_nobody_declared"),
    ("grants[].namespaces.selector.matchLabels", "tenancy::t1_a_namespace_reaches_only_what_is_granted_to_it"),
    ("grants[].namespaces.selector.matchExpressions[].key", "api::common (a_selector_matches_as_in_kubernetes)"),
    ("grants[].namespaces.selector.matchExpressions[].operator", "api::common (a_selector_matches_as_in_kubernetes)"),
    ("grants[].namespaces.selector.matchExpressions[].values", "api::common (a_selector_matches_as_in_kubernetes)"),
    ("grants[].kinds", "it has one value so far, which is also the default"),
    ("grants[].scope", "tenancy::t1_a_declared_scope_adopts_nothing_that_nobody_declared"),
    ("grants[].externalSystems", "tenancy::t1_a_namespace_reaches_only_what_is_granted_to_it"),
    ("timeZone", "documents::a_date_counts_to_the_end_of_its_day_in_the_resources_zone"),
    ("sharing.max.external", "every_part_of_the_ceiling_holds"),
    ("sharing.max.allowedDomains", "every_part_of_the_ceiling_holds"),
    ("sharing.max.reshare", "every_part_of_the_ceiling_holds"),
    ("sharing.max.linkAudience", "every_part_of_the_ceiling_holds"),
    ("sharing.max.linkDays", "every_part_of_the_ceiling_holds"),
    ("suspend", "a_suspended_connection_makes_no_call_and_says_why"),
    ("suspendReason", "a_suspended_connection_makes_no_call_and_says_why"),
    ("suspendUntil", "a_suspended_connection_makes_no_call_and_says_why"),
    ("auth.oauth2", "its parts have lines of their own"),
    ("auth.token", "its parts have lines of their own"),
    ("auth.basic", "its parts have lines of their own"),
    (
        "auth.basic.usernameRef.name",
        "webdav::t5_a_wrong_password_names_the_way_out_and_goes_nowhere_its_secret_does_not_name",
    ),
    (
        "auth.basic.usernameRef.key",
        "webdav::t5_a_wrong_password_names_the_way_out_and_goes_nowhere_its_secret_does_not_name",
    ),
    (
        "auth.basic.passwordRef.name",
        "webdav::t5_a_wrong_password_names_the_way_out_and_goes_nowhere_its_secret_does_not_name",
    ),
    (
        "auth.basic.passwordRef.key",
        "webdav::t5_a_wrong_password_names_the_way_out_and_goes_nowhere_its_secret_does_not_name",
    ),
    ("driver", "webdav::a_workspace_is_a_directory_with_its_folders_and_the_connection_says_what_it_is_worth"),
];

#[test]
fn every_field_of_the_crd_is_shown_somewhere() {
    let shown: BTreeSet<String> = SHOWN.iter().map(|(field, _)| (*field).to_owned()).collect();
    let missing: Vec<String> = fields_of("Connection").difference(&shown).cloned().collect();
    assert!(missing.is_empty(), "no test shows what these fields do: {missing:?}");
}

fn oauth2(id: (&str, &str), secret: (&str, &str)) -> Value {
    let reference = |(name, key): (&str, &str)| json!({"name": name, "key": key});
    json!({"oauth2": {"clientIdRef": reference(id), "clientSecretRef": reference(secret)}})
}

#[tokio::test]
async fn every_reference_is_read() {
    let world = World::new().await;
    let good = ("credential", "clientId");
    let secret = ("credential", "clientSecret");
    let bundle = |kind: &str, name: &str, key: &str| json!({"tls": {"caRef": {"kind": kind, "name": name, "key": key}}});
    let wrong = [
        (json!({"auth": oauth2(("ghost", "clientId"), secret)}), "ghost"),
        (json!({"auth": oauth2(("credential", "ghost"), secret)}), "ghost"),
        (json!({"auth": oauth2(good, ("ghost", "clientSecret"))}), "ghost"),
        (json!({"auth": oauth2(good, ("credential", "ghost"))}), "ghost"),
        (bundle("ConfigMap", "ghost", "ca.crt"), "ConfigMap ghost"),
        (bundle("Secret", "ghost", "ca.crt"), "Secret ghost"),
        (bundle("Secret", "credential", "ghost"), "ghost"),
        (bundle("Secret", "credential", "clientId"), "PEM"),
        (json!({"tls": {"clientCertRef": {"name": "ghost"}}}), "ghost"),
    ];
    for (more, expected) in wrong {
        world.apply_connection(more.clone()).await;
        let object = world.reason("Connection", "file360", "Ready", "ReferenceNotFound").await;
        let message = crate::support::world::condition(&object, "Ready")["message"].to_string();
        assert!(message.contains(expected), "{more}: {message}");
        world.connect().await;
    }
}

#[tokio::test]
async fn a_token_comes_from_where_the_spec_says_and_may_what_it_says() {
    let world = World::new().await;
    let with = |more: Value| {
        let mut auth = oauth2(("credential", "clientId"), ("credential", "clientSecret"));
        auth["oauth2"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"auth": auth})
    };
    world.apply_connection(with(json!({"tokenUrl": format!("{}/nowhere", world.endpoint)}))).await;
    world.reason("Connection", "file360", "Ready", "AuthenticationFailed").await;
    let elsewhere = format!("http://127.0.0.1:{}/token", crate::support::free_port());
    world.apply_connection(with(json!({"tokenUrl": elsewhere}))).await;
    world.reason("Connection", "file360", "Ready", "CredentialNotBound").await;
    world.apply_connection(with(json!({"scopes": ["read", "write"]}))).await;
    world.condition("Connection", "file360", "Ready", "True").await;
    let members = json!({"access": {"members": [{"kind": "User", "name": "user0", "role": "Viewer"}]}});
    world.apply_workspace("w", members).await;
    world.reason("SecureWorkspace", "w", "Ready", "AccessDenied").await;
    world.connect().await;
    world.condition("SecureWorkspace", "w", "Ready", "True").await;
}

#[tokio::test]
async fn a_fixed_token_works_in_place_of_a_client() {
    let world = World::new().await;
    let form = [("grant_type", "client_credentials"), ("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
    let answer = reqwest::Client::new().post(format!("{}/oauth2/token", world.endpoint)).form(&form).send().await.unwrap();
    let token = answer.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "fixed"},
        "stringData": {"endpoint": world.endpoint, "token": token, "bad": "wrong"}});
    kubernetes::apply(&world.client, &world.namespace, &secret).await.unwrap();
    let connection = |name: &str, key: &str| json!({"endpoint": world.endpoint, "allowInsecure": true, "auth": {"token": {"secretRef": {"name": name, "key": key}}}});
    world.apply("Connection", "fixed", connection("fixed", "token")).await;
    world.condition("Connection", "fixed", "Ready", "True").await;
    world.apply("Connection", "fixed", connection("fixed", "bad")).await;
    world.reason("Connection", "fixed", "Ready", "AuthenticationFailed").await;
    world.apply("Connection", "fixed", connection("ghost", "token")).await;
    world.reason("Connection", "fixed", "Ready", "ReferenceNotFound").await;
}

/// How long it takes to make `count` workspaces.
async fn making(world: &World, prefix: &str, count: usize) -> Duration {
    let start = Instant::now();
    for number in 0..count {
        world.apply_workspace(&format!("{prefix}{number}"), json!({"folders": [{"path": "/A/B/C/D/E/F"}]})).await;
    }
    for number in 0..count {
        world.condition("SecureWorkspace", &format!("{prefix}{number}"), "Ready", "True").await;
    }
    start.elapsed()
}

/// A limit is a promise of a least duration, whatever the machine does.
#[tokio::test]
async fn limits_hold_the_operator_back() {
    let world = World::new().await;
    world.apply_connection(json!({"limits": {"requestsPerSecond": 2}})).await;
    world.condition("Connection", "file360", "Ready", "True").await;
    // Seven calls, two of them at once.
    assert!(making(&world, "rate", 1).await >= Duration::from_secs(2));
    world.apply_connection(json!({"limits": {"concurrency": 1}})).await;
    world.condition("Connection", "file360", "Ready", "True").await;
    world.remote.faults(json!({"latencyMs": 50})).await;
    // Four times seven calls of 50 ms, one after the other.
    assert!(making(&world, "single", 4).await >= Duration::from_millis(28 * 50));
}

#[tokio::test]
async fn routes_of_a_connection_share_its_bandwidth() {
    let world = World::new().await;
    let cases = CaseSystem::start().await;
    let workspace = claims(&world, "claims").await;
    for name in ["one", "two"] {
        route(&world, name, to_cases(&cases, "Content")).await;
    }
    world.apply_connection(json!({"limits": {"bandwidth": "64Ki"}})).await;
    world.condition("Connection", "file360", "Ready", "True").await;
    for name in ["one", "two"] {
        world.condition("FileRoute", name, "Ready", "True").await;
    }
    let started = Instant::now();
    world.remote.upload(&workspace, "/Inbox", "large.txt", &vec![b'x'; 160 << 10]).await;
    arrived(&cases, 2).await;
    // What the first second allows comes at once; the rest of twice 160 KiB takes its time.
    assert!(started.elapsed() >= Duration::from_secs(3), "320 KiB at 64 KiB/s took {:?}", started.elapsed());
}

#[tokio::test]
async fn every_part_of_the_ceiling_holds() {
    let world = World::new().await;
    let wide = json!({"sharing": {"external": "AllowListed", "allowedDomains": ["acme.example"], "reshare": true,
        "links": {"maxAudience": "Anyone", "maxDays": 60}}});
    let cases = [
        (json!({"external": "Disabled"}), json!({"external": "AllowListed"})),
        (json!({"allowedDomains": ["other.example"]}), json!({"allowedDomains": ["acme.example"]})),
        (json!({"reshare": false}), json!({"reshare": true})),
        (json!({"linkAudience": "Company"}), json!({"linkAudience": "Anyone"})),
        (json!({"linkDays": 59}), json!({"linkDays": 60})),
    ];
    world.workspace("w", wide).await;
    for (tight, loose) in cases {
        for (max, reason) in [(&tight, "SharingCeilingExceeded"), (&loose, "Converged")] {
            world.apply_connection(json!({"sharing": {"max": max}})).await;
            world.reason("SecureWorkspace", "w", "Ready", reason).await;
        }
    }
    world.apply_connection(json!({})).await;
    world.reason("SecureWorkspace", "w", "Ready", "Converged").await;
}

#[tokio::test]
async fn a_suspended_connection_makes_no_call_and_says_why() {
    let world = World::new().await;
    let before = world.workspace("w", json!({"displayName": "One"})).await;
    let until = "2033-01-01T00:00:00Z";
    world.apply_connection(json!({"suspend": true, "suspendReason": "audit week", "suspendUntil": until})).await;
    let object = world.reason("Connection", "file360", "Ready", "Suspended").await;
    let message = crate::support::world::condition(&object, "Ready")["message"].to_string();
    assert!(message.contains("audit week") && message.contains("2033"), "{message}");
    world.apply_workspace("w", json!({"displayName": "Two"})).await;
    assert_eq!(world.remote.state().await[0]["displayName"], "One");
    assert_eq!(world.get("SecureWorkspace", "w").await["status"], before["status"]);
    world.apply_connection(json!({})).await;
    world.condition("SecureWorkspace", "w", "Ready", "True").await;
    assert_eq!(world.remote.state().await[0]["displayName"], "Two");
}
