use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, http, id, start, start_with};

#[tokio::test]
async fn a_call_needs_a_token_and_its_scope() {
    let fixture = start().await;
    let reader = fixture.client("reader").await;
    let stranger = Api { token: "nonsense".to_owned(), ..reader.clone() };
    let refused = stranger.get("/v1/me").send().await;
    assert!(refused.header("www-authenticate").unwrap().contains("invalid_token"));
    refused.refused(401, "unauthenticated");
    let nobody = http().get(format!("{}/v1/service", fixture.server.url)).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    assert_eq!(reader.get("/v1/me").send().await.expect(200)["kind"], "Client");
    let service = reader.get("/v1/service").send().await.expect(200);
    assert_eq!(service["limits"]["pageSize"], 1000);
    let create = reader.put("/v1/workspaces/by-key/a/b", json!({"displayName": "x"})).header("if-none-match", "*");
    create.send().await.refused(403, "insufficient-scope");
    assert_eq!(http().get(format!("{}/healthz", fixture.server.url)).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_gets_only_its_own_scopes_and_only_with_its_secret() {
    let fixture = start().await;
    let ask = |secret: &'static str, scope: &'static str| {
        let form =
            [("grant_type", "client_credentials"), ("client_id", "reader"), ("client_secret", secret), ("scope", scope)];
        let request = http().post(format!("{}/oauth2/token", fixture.server.url)).form(&form);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let (status, body) = ask("reader-secret", "read").await;
    assert_eq!((status, body["token_type"].as_str()), (200, Some("Bearer")));
    assert!(body["expires_in"].as_u64().unwrap() <= 900);
    assert_eq!(ask("reader-secret", "write").await.1["error"], "invalid_scope");
    let (status, body) = ask("wrong", "read").await;
    assert_eq!((status, body["error"].as_str()), (401, Some("invalid_client")));
}

#[tokio::test]
async fn tokens_end() {
    let fixture = start().await;
    let api = fixture.operator().await;
    api.get("/v1/me").send().await.expect(200);
    fixture.server.clock().set_offset_seconds(901);
    api.get("/v1/me").send().await.refused(401, "unauthenticated");
    fixture.operator().await.get("/v1/me").send().await.expect(200);
}

#[tokio::test]
async fn only_an_admin_acts_for_people() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let ada = api.principal("User", "ada").await;
    let pretender = Api { on_behalf_of: Some(ada), ..api };
    pretender.get("/v1/me").send().await.refused(403, "insufficient-scope");
    assert_eq!(fixture.person("ada").await.get("/v1/me").send().await.expect(200)["name"], "ada");
}

#[tokio::test]
async fn guests_have_one_form_and_hostile_addresses_are_refused() {
    let fixture = start().await;
    let api = fixture.operator().await;
    let first = api.ask(Method::PUT, "/v1/guests/Bob%40ACME.com").send().await;
    assert_eq!((first.status.as_u16(), first.body["name"].as_str()), (201, Some("bob@acme.com")));
    let second = api.ask(Method::PUT, "/v1/guests/bob%40acme.COM").send().await;
    assert_eq!((second.status.as_u16(), id(&second.body)), (200, id(&first.body)));
    for hostile in ["bob", "bob%40acme.com%0d%0aBcc%3a%20x%40y.z", "%22a%20b%22%40acme.com", "a%40b%40c.com"] {
        api.ask(Method::PUT, &format!("/v1/guests/{hostile}")).send().await.refused(422, "validation-failed");
    }
}

#[tokio::test]
async fn a_client_over_its_rate_hears_when_to_come_again() {
    let fixture = start_with(|config| config.requests_per_second = Some(5)).await;
    let api = fixture.operator().await;
    let mut refused = None;
    for _ in 0..50 {
        let reply = api.get("/v1/me").send().await;
        assert!(reply.header("ratelimit").is_some());
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("fifty calls at once are more than five a second");
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.refused(429, "rate-limited");
}

#[tokio::test]
async fn the_server_speaks_tls_with_the_certificate_it_is_given() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let fixture = start_with(|config| config.tls = Some((certificate, key))).await;
    assert!(fixture.server.url.starts_with("https://"));
    let _ = http();
    let trusting = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()])
        .build()
        .unwrap();
    let health = format!("{}/healthz", fixture.server.url);
    assert_eq!(trusting.get(&health).send().await.unwrap().status(), 200);
    assert!(http().get(&health).send().await.is_err(), "nobody else trusts it");
}
