//! Secrets and ConfigMaps that resources refer to: read one by one, kept for a while, given only to hosts that the Secret names.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::Api;
use parking_lot::Mutex;

use crate::api::common::SecretKeyRef;
use crate::api::connection::{CaKind, CaRef};
use crate::error::{Error, Kind, Result};
use crate::outbound::guard::Guard;
use crate::outbound::secrets::References;
use crate::redacted::Redacted;

/// Key of a Secret that names where its values may go.
const ALLOWED_HOSTS: &str = "allowedHosts";
/// Keys that say where a Secret's values may go, and are no values.
const BINDINGS: [&str; 3] = [ALLOWED_HOSTS, "endpoint", "tokenUrl"];
/// That an object is not there is believed for this long, so that many who ask cost one request, and whoever creates it is soon heard.
const ABSENCE_HOLDS: Duration = Duration::from_secs(2);
/// Refused credentials make objects be read again at once, but no more often than this many times in a row, and once a second after that.
const REFUSALS: NonZeroU32 = NonZeroU32::new(8).unwrap();
/// What nobody asked for during so many intervals is forgotten.
const FORGOTTEN_AFTER: u32 = 5;

/// What the resources of all namespaces refer to.
pub struct ReferenceStore {
    client: Client,
    guard: Arc<Guard>,
    interval: Duration,
    namespaces: Mutex<HashMap<String, Weak<NamespaceReferences>>>,
}

impl ReferenceStore {
    /// Objects are read again `interval` after they were read.
    pub fn new(client: Client, guard: Arc<Guard>, interval: Duration) -> Arc<Self> {
        Arc::new(Self { client, guard, interval, namespaces: Mutex::default() })
    }

    /// What resources of `namespace` may refer to: objects of this namespace, and no others (T1). All who hold it share what was read; it is
    /// forgotten with the last of them.
    pub fn of(&self, namespace: &str) -> Arc<dyn References> {
        let mut namespaces = self.namespaces.lock();
        if let Some(references) = namespaces.get(namespace).and_then(Weak::upgrade) {
            return references;
        }
        namespaces.retain(|_, references| references.strong_count() > 0);
        let references = Arc::new(NamespaceReferences {
            reads: Reads {
                secrets: Api::namespaced(self.client.clone(), namespace),
                config_maps: Api::namespaced(self.client.clone(), namespace),
            },
            guard: self.guard.clone(),
            interval: self.interval,
            kept: Mutex::default(),
            refused_at: Mutex::default(),
            refusals: RateLimiter::direct(Quota::per_second(NonZeroU32::MIN).allow_burst(REFUSALS)),
        });
        namespaces.insert(namespace.to_owned(), Arc::downgrade(&references));
        references
    }
}

/// What one namespace's resources refer to.
struct NamespaceReferences {
    reads: Reads,
    guard: Arc<Guard>,
    interval: Duration,
    kept: Mutex<HashMap<Name, Arc<Slot>>>,
    /// What was read before this is read again.
    refused_at: Mutex<Option<Instant>>,
    refusals: DefaultDirectRateLimiter,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Secret(String),
    ConfigMap(String),
}

/// One object. Who finds it too old reads it, the others wait for that.
struct Slot {
    content: tokio::sync::Mutex<Option<Read>>,
    wanted_at: Mutex<Instant>,
}

struct Read {
    at: Instant,
    /// `None`: there is no such object.
    data: Option<Arc<Data>>,
}

/// Values by key. No `Debug`: it holds secrets.
struct Data(BTreeMap<String, Vec<u8>>);

struct Reads {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
}

impl Reads {
    async fn get(&self, name: &Name) -> Result<Option<Data>> {
        Ok(match name {
            Name::Secret(name) => self.secrets.get_opt(name).await?.map(|secret| {
                Data(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect())
            }),
            Name::ConfigMap(name) => self.config_maps.get_opt(name).await?.map(|map| {
                let texts = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
                Data(
                    texts
                        .chain(map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)))
                        .collect(),
                )
            }),
        })
    }
}

impl NamespaceReferences {
    async fn object(&self, name: Name) -> Result<Arc<Data>> {
        let slot = self.slot(&name);
        let mut content = slot.content.lock().await;
        if let Some(read) = content.as_ref().filter(|read| self.is_fresh(read)) {
            return read.data.clone().ok_or_else(|| missing(&name));
        }
        let at = Instant::now();
        let data =
            self.reads.get(&name).await.map_err(|error| error.while_doing(format!("read {}", name.told())))?.map(Arc::new);
        *content = Some(Read { at, data: data.clone() });
        data.ok_or_else(|| missing(&name))
    }

    fn slot(&self, name: &Name) -> Arc<Slot> {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        let forgotten = self.interval * FORGOTTEN_AFTER;
        kept.retain(|_, slot| now.duration_since(*slot.wanted_at.lock()) < forgotten);
        let slot = kept
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Slot { content: tokio::sync::Mutex::new(None), wanted_at: Mutex::new(now) }));
        *slot.wanted_at.lock() = now;
        slot.clone()
    }

    fn is_fresh(&self, read: &Read) -> bool {
        let holds = if read.data.is_some() { self.interval } else { ABSENCE_HOLDS.min(self.interval) };
        read.at.elapsed() < holds && self.refused_at.lock().is_none_or(|refused| read.at > refused)
    }

    async fn secret(&self, name: &str, host: &str) -> Result<Arc<Data>> {
        let data = self.object(Name::Secret(name.to_owned())).await?;
        if self.guard.is_allowed_host(host) || may_go(data.0.get(ALLOWED_HOSTS).map(Vec::as_slice), host) {
            return Ok(data);
        }
        let why = format!("Secret {name} may not go to {host}: add the host to its key {ALLOWED_HOSTS} if it may");
        let mut error = Error::new(Kind::Reference, why);
        error.code = "credential-not-bound".into();
        Err(error)
    }
}

#[async_trait]
impl References for NamespaceReferences {
    async fn credential(&self, reference: &SecretKeyRef, host: &str) -> Result<Redacted> {
        let data = self.secret(&reference.name, host).await?;
        data.text(&reference.key).map(Redacted::new).ok_or_else(|| lacks_key("Secret", &reference.name, &reference.key))
    }

    async fn keys(&self, secret: &str) -> Result<Vec<(String, Redacted)>> {
        let data = self.object(Name::Secret(secret.to_owned())).await?;
        let keys = data.0.keys().filter(|key| !BINDINGS.contains(&key.as_str()));
        Ok(keys.filter_map(|key| Some((key.clone(), Redacted::new(data.text(key)?)))).collect())
    }

    async fn authorities(&self, reference: &CaRef) -> Result<Vec<u8>> {
        let (kind, name) = match reference.kind {
            CaKind::Secret => ("Secret", Name::Secret(reference.name.clone())),
            CaKind::ConfigMap => ("ConfigMap", Name::ConfigMap(reference.name.clone())),
        };
        let data = self.object(name).await?;
        data.0.get(&reference.key).cloned().ok_or_else(|| lacks_key(kind, &reference.name, &reference.key))
    }

    async fn client_certificate(&self, secret: &str, host: &str) -> Result<Redacted> {
        let data = self.secret(secret, host).await?;
        let part = |key: &str| data.text(key).ok_or_else(|| lacks_key("Secret", secret, key));
        Ok(Redacted::new(format!("{}\n{}\n", part("tls.key")?, part("tls.crt")?)))
    }

    fn refused(&self) {
        if self.refusals.check().is_ok() {
            *self.refused_at.lock() = Some(Instant::now());
        }
    }
}

impl Data {
    /// The text under `key`, without line breaks at its end; `None` when there is none.
    fn text(&self, key: &str) -> Option<String> {
        let text = std::str::from_utf8(self.0.get(key)?).ok()?.trim_end_matches(['\r', '\n']);
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Name {
    fn told(&self) -> String {
        match self {
            Self::Secret(name) => format!("Secret {name}"),
            Self::ConfigMap(name) => format!("ConfigMap {name}"),
        }
    }
}

/// Whether `allowed`, a list of host names and `*.domain` separated by commas or white space, names `host`. A wildcard stands for one label
/// and more, and needs two labels after it.
pub fn may_go(allowed: Option<&[u8]>, host: &str) -> bool {
    let Some(allowed) = allowed.and_then(|allowed| std::str::from_utf8(allowed).ok()) else { return false };
    let host = plain(host);
    allowed.split([',', ' ', '\t', '\r', '\n']).map(plain).filter(|entry| !entry.is_empty()).any(|entry| {
        match entry.strip_prefix("*.") {
            Some(domain) => {
                domain.contains('.')
                    && !domain.contains('*')
                    && host
                        .strip_suffix(domain)
                        .and_then(|start| start.strip_suffix('.'))
                        .is_some_and(|start| !start.is_empty())
            }
            None => entry == host,
        }
    })
}

/// A host in one spelling: lower case, without brackets or a dot at its end.
fn plain(host: &str) -> String {
    host.trim().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_lowercase()
}

fn missing(name: &Name) -> Error {
    Error::new(Kind::Reference, format!("{} does not exist in this namespace; create it", name.told()))
}

fn lacks_key(kind: &str, name: &str, key: &str) -> Error {
    Error::new(Kind::Reference, format!("{kind} {name} has no text under the key {key}; add it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::{Path, State};
    use axum::http::{StatusCode, Uri};
    use axum::{Json, Router, routing};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    const HOST: &str = "crm.example.com";

    /// An API server that has Secrets and ConfigMaps, by path, and counts what it is asked.
    #[derive(Clone, Default)]
    struct Cluster {
        objects: Arc<Mutex<HashMap<String, Value>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Cluster {
        async fn store(&self, interval: Duration) -> Arc<ReferenceStore> {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
            let route = routing::get(|State(cluster): State<Self>, Path(path): Path<String>| async move {
                cluster.asked.lock().push(path.clone());
                match cluster.objects.lock().get(&path) {
                    Some(object) => (StatusCode::OK, Json(object.clone())),
                    None => (
                        StatusCode::NOT_FOUND,
                        Json(
                            json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found"}),
                        ),
                    ),
                }
            });
            let router = Router::new().route("/{*path}", route).with_state(self.clone());
            tokio::spawn(async move { axum::serve(listener, router).await });
            let client = Client::try_from(kube::Config::new(address)).unwrap();
            let guard = Guard::new(&["allowed.example.com".into()], &[]).unwrap();
            ReferenceStore::new(client, Arc::new(guard), interval)
        }

        fn put(&self, namespace: &str, name: &str, values: &[(&str, &str)]) {
            let data: BTreeMap<&str, String> = values.iter().map(|(key, value)| (*key, STANDARD.encode(value))).collect();
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data});
            self.objects.lock().insert(format!("api/v1/namespaces/{namespace}/secrets/{name}"), secret);
        }

        fn asked(&self) -> usize {
            self.asked.lock().len()
        }
    }

    fn token() -> SecretKeyRef {
        SecretKeyRef { name: "crm".into(), key: "token".into() }
    }

    #[tokio::test]
    async fn t5_a_credential_goes_only_to_hosts_that_its_secret_names() {
        let cluster = Cluster::default();
        cluster.put(
            "a",
            "crm",
            &[("token", "t-1\n"), ("tls.crt", "C"), ("tls.key", "K"), (ALLOWED_HOSTS, "crm.example.com")],
        );
        let references = cluster.store(Duration::from_mins(1)).await.of("a");
        assert_eq!(references.credential(&token(), HOST).await.unwrap().expose(), "t-1", "without the line break");
        assert_eq!(references.client_certificate("crm", HOST).await.unwrap().expose(), "K\nC\n");
        for host in ["evil.example.com", "crm.example.com.evil.example", "127.0.0.1"] {
            let error = references.credential(&token(), host).await.unwrap_err();
            assert_eq!((error.kind, error.code.as_str()), (Kind::Reference, "credential-not-bound"));
            assert!(error.to_string().contains("allowedHosts") && error.to_string().contains(host), "{error}");
            assert!(references.client_certificate("crm", host).await.is_err());
        }
        cluster.put("a", "free", &[("token", "t-2")]);
        let free = SecretKeyRef { name: "free".into(), key: "token".into() };
        assert!(references.credential(&free, HOST).await.is_err(), "a Secret that names no host goes nowhere");
        assert!(
            references.credential(&free, "allowed.example.com").await.is_ok(),
            "but to what the operator's owner allows"
        );
        let keys: Vec<String> = references.keys("crm").await.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["tls.crt", "tls.key", "token"], "where it may go is no key");
    }

    #[tokio::test]
    async fn t1_a_namespace_reads_only_its_own_secrets_and_shares_what_it_read() {
        let cluster = Cluster::default();
        cluster.put("a", "crm", &[("token", "of-a"), (ALLOWED_HOSTS, HOST)]);
        let store = cluster.store(Duration::from_mins(1)).await;
        let first = store.of("a");
        for _ in 0..10 {
            let route = store.of("a");
            assert_eq!(route.credential(&token(), HOST).await.unwrap().expose(), "of-a");
        }
        let reference = token();
        let all = futures::future::join_all((0..50).map(|_| first.credential(&reference, HOST))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(cluster.asked(), 1, "ten routes read a Secret once");
        let error = store.of("b").credential(&token(), HOST).await.unwrap_err();
        assert!(error.kind == Kind::Reference && error.to_string().contains("Secret crm does not exist"), "{error}");
        assert_eq!(cluster.asked.lock().last().unwrap(), "api/v1/namespaces/b/secrets/crm");
        drop(first);
        let again = store.of("a");
        again.credential(&token(), HOST).await.unwrap();
        assert_eq!(cluster.asked(), 3, "what nobody holds is forgotten");
    }

    #[tokio::test]
    async fn a_refused_credential_is_read_again_at_once_but_not_without_end() {
        let cluster = Cluster::default();
        cluster.put("a", "crm", &[("token", "old"), (ALLOWED_HOSTS, HOST)]);
        let references = cluster.store(Duration::from_mins(1)).await.of("a");
        assert_eq!(references.credential(&token(), HOST).await.unwrap().expose(), "old");
        cluster.put("a", "crm", &[("token", "new"), (ALLOWED_HOSTS, HOST)]);
        assert_eq!(references.credential(&token(), HOST).await.unwrap().expose(), "old", "still within the interval");
        references.refused();
        assert_eq!(references.credential(&token(), HOST).await.unwrap().expose(), "new");
        for _ in 0..1000 {
            references.refused();
            references.credential(&token(), HOST).await.unwrap();
        }
        assert!(cluster.asked() < 50, "{} requests for a thousand refusals", cluster.asked());
    }

    #[tokio::test]
    async fn what_is_used_is_read_again_after_the_interval_and_what_is_missing_is_found_soon() {
        let cluster = Cluster::default();
        let references = cluster.store(Duration::from_millis(20)).await.of("a");
        assert!(references.credential(&token(), HOST).await.is_err());
        cluster.put("a", "crm", &[("token", "new"), (ALLOWED_HOSTS, HOST)]);
        for value in ["new", "newer"] {
            cluster.put("a", "crm", &[("token", value), (ALLOWED_HOSTS, HOST)]);
            let begun = Instant::now();
            while references.credential(&token(), HOST).await.ok().is_none_or(|found| found.expose() != value) {
                assert!(begun.elapsed() < Duration::from_mins(1), "{value} is never seen");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let gone = SecretKeyRef { name: "crm".into(), key: "other".into() };
        let error = references.credential(&gone, HOST).await.unwrap_err();
        assert!(error.kind == Kind::Reference && error.to_string().contains("key other"), "{error}");
    }

    #[tokio::test]
    async fn bundles_come_from_secrets_and_config_maps() {
        let cluster = Cluster::default();
        cluster.put("a", "ca", &[("ca.crt", "PEM-S")]);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": "PEM-M"},
            "binaryData": {"ca.der": STANDARD.encode("PEM-B")}});
        cluster.objects.lock().insert("api/v1/namespaces/a/configmaps/ca".into(), map);
        let references = cluster.store(Duration::from_mins(1)).await.of("a");
        for (kind, key, expected) in [
            (CaKind::Secret, "ca.crt", "PEM-S"),
            (CaKind::ConfigMap, "ca.crt", "PEM-M"),
            (CaKind::ConfigMap, "ca.der", "PEM-B"),
        ] {
            let reference = CaRef { kind, name: "ca".into(), key: key.into() };
            assert_eq!(references.authorities(&reference).await.unwrap(), expected.as_bytes());
        }
        let missing = CaRef { kind: CaKind::ConfigMap, name: "ca".into(), key: "x".into() };
        assert_eq!(references.authorities(&missing).await.unwrap_err().kind, Kind::Reference);
    }

    #[test]
    fn t5_hosts_are_named_exactly_or_by_a_domain() {
        let may = |allowed: &str, host: &str| may_go(Some(allowed.as_bytes()), host);
        for (allowed, host) in [
            ("crm.example.com", "CRM.example.com"),
            ("a.example.com, crm.example.com.\n", "crm.example.com"),
            ("*.example.com", "crm.example.com"),
            ("*.example.com", "a.b.example.com"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("10.1.2.3", "10.1.2.3"),
        ] {
            assert!(may(allowed, host), "{allowed} names {host}");
        }
        for (allowed, host) in [
            ("", ""),
            (",", ""),
            ("*", "crm.example.com"),
            ("*.com", "example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", "evilexample.com"),
            ("*.*.example.com", "a.b.example.com"),
            ("example.com", "crm.example.com"),
            ("crm.example.com", "crm.example.com.evil.example"),
            ("https://crm.example.com", "crm.example.com"),
        ] {
            assert!(!may(allowed, host), "{allowed:?} does not name {host:?}");
        }
        assert!(!may_go(None, "crm.example.com"));
        assert!(!may_go(Some(b"\xff"), "crm.example.com"));
    }
}
