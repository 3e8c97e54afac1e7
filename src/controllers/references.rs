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
