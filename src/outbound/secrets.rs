//! What outbound calls need from the cluster: credentials and authorities to trust, of one namespace.

use async_trait::async_trait;

use crate::api::common::SecretKeyRef;
use crate::api::connection::CaRef;
use crate::error::Result;
use crate::redacted::Redacted;

/// Reads what a resource's references name, in the resource's own namespace. Every Secret and ConfigMap in use is read at most once a
/// minute, and again at once after [`References::refused`].
#[async_trait]
pub trait References: Send + Sync {
    /// The value of one key of a Secret, for use at `host` and nowhere else: unless the host is in `--outbound-allow`, the Secret must
    /// name it under `allowedHosts` ([`Kind::Reference`](crate::error::Kind::Reference)).
    async fn credential(&self, reference: &SecretKeyRef, host: &str) -> Result<Redacted>;

    /// Every value of a Secret, by key, without those that say where it may go. For keys that are checked here and sent nowhere.
    async fn keys(&self, secret: &str) -> Result<Vec<(String, Redacted)>>;

    /// The PEM bundle that a reference names.
    async fn authorities(&self, reference: &CaRef) -> Result<Vec<u8>>;

    /// Client certificate and key (PEM) of a `kubernetes.io/tls` Secret, for use at `host` and nowhere else.
    async fn client_certificate(&self, secret: &str, host: &str) -> Result<Redacted>;

    /// The other side refused a credential, or TLS failed: what is known is read again before its next use.
    fn refused(&self);
}
