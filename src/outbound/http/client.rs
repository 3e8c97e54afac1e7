//! The HTTP clients: trust, client certificate, proxy, address guard.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::dns::{Name, Resolve, Resolving};
use sha2::{Digest, Sha256};

use super::auth::{Fingerprint, absorb};
use crate::error::{Error, Kind, Result, clean};
use crate::outbound::guard::{Guard, GuardedResolver};
use crate::redacted::Redacted;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The HTTP clients in use. Targets with the same trust and certificate share one, with its connections; it goes with the last of them.
pub struct Clients {
    guard: Arc<Guard>,
    extra_ca: Vec<reqwest::Certificate>,
    known: Mutex<HashMap<Fingerprint, Weak<reqwest::Client>>>,
}

/// Whom to trust, as whom to appear.
#[derive(Clone, Copy, Default)]
pub(super) struct Trust<'a> {
    /// PEM bundle of `tls.caRef`.
    pub authorities: Option<&'a [u8]>,
    /// The bundle counts besides the public authorities, not instead of them.
    pub besides_public: bool,
    /// Client certificate and key, as PEM.
    pub identity: Option<&'a Redacted>,
    /// `tls.serverName`, and the host it stands for.
    pub server: Option<(&'a str, &'a str)>,
}

impl Clients {
    /// `extra_ca` is trusted besides the public authorities.
    pub fn new(guard: Arc<Guard>, extra_ca: Vec<reqwest::Certificate>) -> Arc<Self> {
        Arc::new(Self { guard, extra_ca, known: Mutex::default() })
    }

    /// Which addresses are fine.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// The client for `trust`.
    pub(super) fn get(&self, trust: &Trust<'_>) -> Result<Arc<reqwest::Client>> {
        let mut known = self.known.lock();
        let fingerprint = trust.fingerprint();
        if let Some(client) = known.get(&fingerprint).and_then(Weak::upgrade) {
            return Ok(client);
        }
        known.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(self.build(trust)?);
        known.insert(fingerprint, Arc::downgrade(&client));
        Ok(client)
    }

    fn build(&self, trust: &Trust<'_>) -> Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("file360-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_mins(1))
            .pool_max_idle_per_host(16)
            .tcp_nodelay(true)
            // An answer that comes before the end of a body is understood, and so is a length that is stated.
            .http1_only()
            .tls_version_min(reqwest::tls::Version::TLS_1_2);
        let resolver = GuardedResolver(self.guard.clone());
        builder = match trust.server {
            None => builder.dns_resolver(resolver),
            Some((_, host)) => builder.no_proxy().dns_resolver(Renamed { resolver, host: host.to_owned() }),
        };
        if let Some(pem) = trust.authorities {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(Error::new(Kind::Reference, "tls.caRef: the bundle has no PEM certificate"));
            }
            builder = if trust.besides_public {
                builder.tls_certs_merge(certificates)
            } else {
                builder.tls_certs_only(certificates)
            };
        }
        if trust.authorities.is_none() || trust.besides_public {
            builder = builder.tls_certs_merge(self.extra_ca.iter().cloned());
        }
        if let Some(pem) = trust.identity {
            let identity = reqwest::Identity::from_pem(pem.expose().as_bytes())
                .map_err(|_| Error::new(Kind::Reference, "auth.mtls: the Secret has no usable tls.crt and tls.key"))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|_| Error::new(Kind::Reference, "the certificates of tls.caRef or auth.mtls cannot be used"))
    }
}

impl Trust<'_> {
    fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        absorb(&mut hash, self.authorities.unwrap_or_default());
        absorb(&mut hash, &[u8::from(self.besides_public)]);
        absorb(&mut hash, self.identity.map(Redacted::expose).unwrap_or_default().as_bytes());
        let (name, host) = self.server.unwrap_or_default();
        absorb(&mut hash, name.as_bytes());
        absorb(&mut hash, host.as_bytes());
        hash.finalize().into()
    }
}

/// Resolves every name as one host: for a certificate with another name than the host's.
struct Renamed {
    resolver: GuardedResolver,
    host: String,
}

impl Resolve for Renamed {
    fn resolve(&self, name: Name) -> Resolving {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        self.resolver.resolve(host.parse().unwrap_or(name))
    }
}

/// What went wrong below HTTP. The URL is left out: its query can carry secrets.
pub(super) fn unreachable(error: &reqwest::Error, host: &str) -> Error {
    let mut root = "the connection failed".to_owned();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            let why = clean(&tls.to_string(), 200);
            let advice = "check tls.caRef, tls.serverName and auth.mtls";
            return Error::new(Kind::Tls, format!("TLS with {host} failed: {why}; {advice}"));
        }
        root = cause.to_string();
        if root.contains("outbound guard") {
            return Error::new(Kind::Rejected, clean(&root, 300));
        }
        let inside = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inside.map(|inside| -> &(dyn std::error::Error + 'static) { inside }).or_else(|| cause.source());
    }
    if error.is_timeout() {
        return Error::new(Kind::Unavailable, format!("{host} did not answer in time"));
    }
    Error::new(Kind::Unavailable, format!("cannot reach {host}: {}", clean(&root, 200)))
}
