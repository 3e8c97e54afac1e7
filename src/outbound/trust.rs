//! Which servers are believed to be who they say they are: TLS of outbound connections.

use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, Kind, Result};

/// The public authorities, as the system knows them. Read once.
static PUBLIC: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

/// The authorities that count where a target names none: the public ones and the operator's own.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    own: Arc<[CertificateDer<'static>]>,
}

impl Trust {
    /// `pem` is the bundle of the operator's own CA setting; may be empty.
    pub fn new(pem: &[u8]) -> Result<Self> {
        Ok(Self { own: certificates(pem)?.into() })
    }

    /// Settings for one target. `authorities` (PEM) replace the public ones and the operator's. `name` is the name that the certificate must
    /// have, where it is not the one that is connected to. `identity` (PEM) is the client's certificate and key.
    ///
    /// Certificates are verified always: there is no switch.
    pub fn settings(&self, authorities: Option<&[u8]>, name: Option<&str>, identity: Option<&str>) -> Result<ClientConfig> {
        let unusable = |what: &str| Error::new(Kind::Tls, what.to_owned());
        let mut roots = RootCertStore::empty();
        match authorities {
            None => roots.add_parsable_certificates(PUBLIC.iter().chain(self.own.iter()).cloned()),
            Some(pem) => roots.add_parsable_certificates(certificates(pem)?),
        };
        if roots.is_empty() {
            let what = if authorities.is_some() {
                "caRef has no PEM certificate"
            } else {
                "this system has no public authorities; set caRef"
            };
            return Err(Error::new(Kind::Reference, what));
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|_| unusable("the authorities cannot be used"))?;
        let verifier: Arc<dyn ServerCertVerifier> = match name {
            None => verifier,
            Some(name) => {
                let name =
                    ServerName::try_from(name.to_owned()).map_err(|_| unusable("the server's name is no host name"))?;
                Arc::new(Named { verifier, name })
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| unusable("TLS cannot be set up"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
        let wrong = || Error::new(Kind::Reference, "the client certificate has no usable tls.crt and tls.key");
        let key = PrivateKeyDer::from_pem_slice(identity.as_bytes()).map_err(|_| wrong())?;
        builder.with_client_auth_cert(certificates(identity.as_bytes())?, key).map_err(|_| wrong())
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |_| Error::new(Kind::Reference, "the CA bundle is no PEM");
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(wrong)
}

/// Verifies like the one inside, for a fixed name, whatever address was connected to. What the address guard has checked can so be
/// connected to by address, and the certificate still has to be the host's.
#[derive(Debug)]
struct Named {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _connected_to: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Whether `error`, or what caused it, is a failure of TLS; then in words.
pub fn tls_failure(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref::<rustls::Error>() {
            return Some(crate::error::clean(&failure.to_string(), 200));
        }
        // An I/O error shows what it wraps only here, not as its source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t3_trust_needs_an_authority_and_a_client_certificate_its_key() {
        let authority = rcgen::generate_simple_self_signed(["nats.example.com".to_owned()]).unwrap();
        let pem = authority.cert.pem();
        let trust = Trust::default();
        assert!(trust.settings(Some(pem.as_bytes()), Some("nats.example.com"), None).is_ok());
        assert_eq!(trust.settings(Some(b""), None, None).unwrap_err().kind, Kind::Reference);
        assert_eq!(trust.settings(Some(pem.as_bytes()), None, Some(&pem)).unwrap_err().kind, Kind::Reference, "no key");
        let identity = format!("{}{pem}", authority.signing_key.serialize_pem());
        assert!(trust.settings(Some(pem.as_bytes()), None, Some(&identity)).is_ok());
    }
}
