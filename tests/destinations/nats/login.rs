//! Who may publish, and to which server: tokens, passwords, credentials files, permissions, TLS.

use async_nats::ConnectOptions;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use file360_operator::error::Kind;
use file360_operator::routes::delivery::Destination as _;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::server::Server;
use super::{Parts, make_stream, stored};
use crate::suite::delivery;

const USERS: &str = r#"authorization { users = [
    { user: "admin", password: "admin" },
    { user: "operator", password: "correct-horse", permissions: { publish: ["files.mine.>"], subscribe: ["_INBOX.>"] } },
    { user: "deaf", password: "correct-horse", permissions: { publish: [">"], subscribe: ["nothing"] } },
] }"#;

fn password(parts: Parts, user: &str) -> Parts {
    let parts = parts.auth(&json!({
        "usernameRef": {"name": "bus", "key": "user"}, "passwordRef": {"name": "bus", "key": "password"}
    }));
    parts.secrets.put("bus", "user", user);
    parts.secrets.put("bus", "password", "correct-horse");
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_publishes_what_it_may_and_is_denied_the_rest_at_once() {
    let server = Server::start(USERS).await;
    let admin = server.client(ConnectOptions::with_user_and_password("admin".into(), "admin".into())).await;
    make_stream(&admin, |_| {}).await;
    let mine = password(Parts::at(&server.url("nats")).subject("'files.mine.' + file.name"), "operator").build();
    mine.deliver(&delivery("a", b"x")).await.unwrap();
    assert_eq!(stored(&admin).await.len(), 1);

    let others = password(Parts::at(&server.url("nats")).subject("'files.others.' + file.name"), "operator").build();
    let begun = std::time::Instant::now();
    let error = others.deliver(&delivery("a", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(error.to_string().contains("publish to files.others.a"), "{error}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "the server said so; nothing is waited for");

    let deaf = password(Parts::at(&server.url("nats")).subject("'files.mine.' + file.name"), "deaf").build();
    let error = deaf.deliver(&delivery("b", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_credential_goes_only_to_the_host_that_its_secret_names() {
    let server = Server::start(USERS).await;
    let before = server.connections_so_far().await;
    let parts = password(Parts::at(&server.url("nats")), "operator");
    parts.secrets.only_for(&["nats.example.com"]);
    let error = parts.build().deliver(&delivery("a", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Reference, "{error}");
    assert_eq!(server.connections_so_far().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_login_is_told_apart_from_one_that_is_away() {
    let server = Server::start(USERS).await;
    let error = Parts::at(&server.url("nats")).build().deliver(&delivery("a", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(error.to_string().contains("set auth"), "{error}");
}

/// A certificate for `name` by an authority of its own, and the authority's PEM.
fn certificate(server: &Server, name: &str) -> String {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let leaf = rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(server.path("cert.pem"), leaf.pem()).unwrap();
    std::fs::write(server.path("key.pem"), key.serialize_pem()).unwrap();
    authority_certificate.pem()
}

const TLS: &str = "tls { cert_file: \"{folder}/cert.pem\", key_file: \"{folder}/key.pem\" }";

#[tokio::test(flavor = "multi_thread")]
async fn t3_a_server_proves_the_name_that_the_route_gives() {
    let server = Server::start("").await;
    make_stream(&server.client(ConnectOptions::new()).await, |_| {}).await;
    let authority = certificate(&server, "localhost");
    server.kill();
    server.configure(TLS);
    server.start_again().await;

    let at = |host: &str, scheme: &str| {
        let mut parts = Parts::at(&format!("{scheme}://{host}:{}", server.port()));
        parts.allow.push("localhost".into());
        parts.spec["nats"]["caRef"] = json!({"kind": "Secret", "name": "bus", "key": "ca"});
        parts.secrets.put("bus", "ca", &authority);
        parts
    };
    at("localhost", "tls").build().deliver(&delivery("a", b"x")).await.unwrap();
    at("localhost", "nats").build().deliver(&delivery("b", b"x")).await.expect("TLS where the server wants it");

    let error = at("127.0.0.1", "tls").build().deliver(&delivery("c", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Tls, "the certificate is for another name: {error}");
    let stranger = at("localhost", "tls");
    stranger.secrets.put("bus", "ca", &certificate(&server, "localhost"));
    let error = stranger.build().deliver(&delivery("d", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Tls, "an authority that is not trusted: {error}");
    assert!(error.to_string().contains("caRef"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_a_server_without_tls_gets_nothing_where_tls_is_asked_for() {
    let server = Server::start("").await;
    let parts = Parts::at(&server.url("tls")).auth(&json!({"tokenRef": {"name": "bus", "key": "token"}}));
    parts.secrets.put("bus", "token", "correct-horse");
    let error = parts.build().deliver(&delivery("a", b"x")).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Tls | Kind::Unavailable), "{error}");
    let log = std::fs::read_to_string(server.path("log")).unwrap();
    assert!(!log.contains("correct-horse"));
}

/// A JWT as NATS wants it.
fn jwt(issuer: &KeyPair, subject: &str, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = json!({"jti": format!("id-{subject}"), "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject, "name": "test", "nats": claims});
    let text = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(&body));
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credentials_file_logs_in() {
    let (operator, account, system, user) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
    let limits = json!({"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1, "wildcards": true,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let of_account = jwt(&operator, &account.public_key(), &json!({"type": "account", "version": 2, "limits": limits}));
    let of_system = jwt(
        &operator,
        &system.public_key(),
        &json!({"type": "account", "version": 2, "limits": {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1, "wildcards": true}}),
    );
    let of_operator = jwt(
        &operator,
        &operator.public_key(),
        &json!({"type": "operator", "version": 2, "system_account": system.public_key()}),
    );
    let of_user =
        jwt(&account, &user.public_key(), &json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}));
    let file = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    let server = Server::start(&format!(
        "operator: \"{of_operator}\"\nsystem_account: \"{}\"\nresolver: MEMORY\nresolver_preload: {{ {}: \"{of_account}\", {}: \"{of_system}\" }}",
        system.public_key(),
        account.public_key(),
        system.public_key(),
    ))
    .await;
    let client = server.client(ConnectOptions::with_credentials(&file).unwrap()).await;
    make_stream(&client, |_| {}).await;

    let parts = Parts::at(&server.url("nats")).auth(&json!({"credentialsRef": {"name": "bus", "key": "file.creds"}}));
    parts.secrets.put("bus", "file.creds", "no credentials at all: correct-horse");
    let destination = parts.build();
    let error = destination.deliver(&delivery("a", b"x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Reference, "{error}");
    assert!(!error.to_string().contains("correct-horse"), "{error}");
    parts.secrets.put("bus", "file.creds", &file);
    file360_operator::outbound::secrets::References::refused(&*parts.secrets);
    destination.deliver(&delivery("a", b"x")).await.unwrap();
    assert_eq!(stored(&client).await.len(), 1);
}
