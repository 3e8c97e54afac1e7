//! How a call authenticates: what the spec declares, and what the Secrets hold at the moment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::address::Address;
use super::headers::{Headers, is_reserved};
use super::oauth2::OAuth2;
use super::sign::Key;
use crate::api::common::SecretKeyRef;
use crate::api::http_target::HttpAuth;
use crate::error::{Error, Kind, Result};
use crate::expression::InvalidField;
use crate::outbound::guard::Guard;
use crate::outbound::secrets::References;
use crate::redacted::Redacted;

/// Shorter secrets are not searched for in answers: they would be found in what they have nothing to do with.
const MIN_STRUCK: usize = 8;

/// A digest of everything that a Secret or bundle gave.
pub(super) type Fingerprint = [u8; 32];

/// The declared way to authenticate.
pub(super) enum Auth {
    /// Not at all.
    None,
    /// A header whose value is `prefix` and a key.
    Header { name: HeaderName, prefix: &'static str, key: SecretKeyRef },
    /// `Authorization: Basic`.
    Basic { username: SecretKeyRef, password: SecretKeyRef },
    /// A token that is fetched with client credentials.
    OAuth2(Box<OAuth2>),
    /// A client certificate.
    Certificate { secret: String },
    /// A signature.
    Hmac { key: SecretKeyRef },
}

/// What to authenticate with.
pub(super) enum Credential {
    /// Nothing.
    None,
    /// A header.
    Header(HeaderName, HeaderValue),
    /// Client id and client secret, for a token.
    Client(Redacted, Redacted),
    /// A client certificate and its key, as PEM.
    Certificate(Redacted),
    /// A key to sign with.
    Key(Key),
}

/// A credential as the Secrets hold it at the moment.
pub(super) struct Held {
    /// What to authenticate with.
    pub credential: Credential,
    /// What must not be told on.
    pub secrets: Secrets,
    /// Changes with the credential.
    pub fingerprint: Fingerprint,
}

impl Auth {
    /// Compiles `auth`.
    pub fn new(spec: Option<&HttpAuth>, address: &Address, headers: &Headers, guard: &Guard) -> Result<Self, InvalidField> {
        let Some(spec) = spec else { return Ok(Self::None) };
        let HttpAuth { bearer, basic, api_key, oauth2, mtls, hmac } = spec;
        match (bearer, basic, api_key, oauth2, mtls, hmac) {
            (Some(bearer), None, None, None, None, None) => {
                Ok(Self::Header { name: header::AUTHORIZATION, prefix: "Bearer ", key: bearer.token_ref.clone() })
            }
            (None, Some(basic), None, None, None, None) => {
                Ok(Self::Basic { username: basic.username_ref.clone(), password: basic.password_ref.clone() })
            }
            (None, None, Some(api_key), None, None, None) => {
                let wrong = |why: &str| InvalidField::value("auth.apiKey.header", why);
                let name: HeaderName = api_key.header.parse().map_err(|_| wrong("this is no name of a header"))?;
                if name != header::AUTHORIZATION && (is_reserved(&name) || name == header::CONTENT_TYPE) {
                    return Err(wrong("this header is set by the operator"));
                }
                if headers.has(&name) {
                    return Err(wrong("this header is declared under headers, too"));
                }
                Ok(Self::Header { name, prefix: "", key: api_key.key_ref.clone() })
            }
            (None, None, None, Some(oauth2), None, None) => Ok(Self::OAuth2(Box::new(OAuth2::new(oauth2, guard)?))),
            (None, None, None, None, Some(mtls), None) if address.is_https() => {
                Ok(Self::Certificate { secret: mtls.secret_name.clone() })
            }
            (None, None, None, None, Some(_), None) => Err(InvalidField::value("auth.mtls", "needs a url with https")),
            (None, None, None, None, None, Some(hmac)) => Ok(Self::Hmac { key: hmac.key_ref.clone() }),
            _ => Err(InvalidField::value("auth", "needs exactly one of bearer, basic, apiKey, oauth2, mtls and hmac")),
        }
    }

    /// Reads the credential, for use at `host`.
    pub async fn read(&self, references: &dyn References, host: &str) -> Result<Held> {
        let mut secrets = Secrets::default();
        let mut hash = Sha256::new();
        let credential = match self {
            Self::None => Credential::None,
            Self::Header { name, prefix, key } => {
                let secret = secrets.read(references, key, host, &mut hash).await?;
                Credential::Header(name.clone(), sensitive(&format!("{prefix}{}", secret.expose()), key)?)
            }
            Self::Basic { username, password } => {
                let name = secrets.read_name(references, username, host, &mut hash).await?;
                let secret = secrets.read(references, password, host, &mut hash).await?;
                if name.expose().contains(':') {
                    let why =
                        format!("key {} of Secret {} has a colon, which no user name has here", username.key, username.name);
                    return Err(Error::new(Kind::Reference, why));
                }
                let both = STANDARD.encode(format!("{}:{}", name.expose(), secret.expose()));
                secrets.add(&both);
                Credential::Header(header::AUTHORIZATION, sensitive(&format!("Basic {both}"), password)?)
            }
            Self::OAuth2(oauth2) => {
                let token_host = oauth2.host();
                let id = secrets.read_name(references, &oauth2.client_id, token_host, &mut hash).await?;
                let secret = secrets.read(references, &oauth2.client_secret, token_host, &mut hash).await?;
                // The token that it gives goes to the target: the Secret has a say in that, too.
                references.credential(&oauth2.client_secret, host).await?;
                Credential::Client(id, secret)
            }
            Self::Certificate { secret } => {
                let certificate = references.client_certificate(secret, host).await?;
                absorb(&mut hash, certificate.expose().as_bytes());
                Credential::Certificate(certificate)
            }
            Self::Hmac { key } => {
                let secret = secrets.read(references, key, host, &mut hash).await?;
                let usable = Key::new(&secret).ok_or_else(|| {
                    let why = format!(
                        "key {} of Secret {} has fewer than 24 bytes, or is no base64 after whsec_",
                        key.key, key.name
                    );
                    Error::new(Kind::Reference, why)
                })?;
                Credential::Key(usable)
            }
        };
        Ok(Held { credential, secrets, fingerprint: hash.finalize().into() })
    }

    /// What to check when the other side refuses.
    pub fn advice(&self) -> String {
        let key = |reference: &SecretKeyRef| format!("check key {} of Secret {}", reference.key, reference.name);
        match self {
            Self::None => "the target declares no auth".into(),
            Self::Header { key: reference, .. } | Self::Hmac { key: reference } => key(reference),
            Self::Basic { username, password } if username.name == password.name => {
                format!("check keys {} and {} of Secret {}", username.key, password.key, password.name)
            }
            Self::Basic { username, password } => format!("{}, and {}", key(username), key(password)),
            Self::OAuth2(oauth2) => oauth2.advice(),
            Self::Certificate { secret } => format!("check the certificate in Secret {secret}"),
        }
    }
}

/// A header's value that is not printed.
fn sensitive(value: &str, reference: &SecretKeyRef) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(value).map_err(|_| {
        let why = format!("key {} of Secret {} has characters that cannot stand in a header", reference.key, reference.name);
        Error::new(Kind::Reference, why)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Adds one part to a fingerprint, so that neighbours cannot be mixed up.
pub(super) fn absorb(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// What must not be told on: neither in errors nor in what is written back.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    secrets: Vec<Redacted>,
    /// User names, client ids, queries: struck out of errors only, since they can be common words.
    names: Vec<Redacted>,
}

impl Secrets {
    /// Adds a secret, also in the spellings it travels in.
    pub fn add(&mut self, secret: &str) {
        self.secrets.push(Redacted::new(secret));
        let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        if encoded != secret {
            self.secrets.push(Redacted::new(encoded));
        }
    }

    /// Adds what is no secret, but is not for an error's text either.
    pub fn add_name(&mut self, name: &str) {
        self.names.push(Redacted::new(name));
    }

    async fn read(
        &mut self,
        references: &dyn References,
        reference: &SecretKeyRef,
        host: &str,
        hash: &mut Sha256,
    ) -> Result<Redacted> {
        let secret = references.credential(reference, host).await?;
        absorb(hash, secret.expose().as_bytes());
        self.add(secret.expose());
        Ok(secret)
    }

    async fn read_name(
        &mut self,
        references: &dyn References,
        reference: &SecretKeyRef,
        host: &str,
        hash: &mut Sha256,
    ) -> Result<Redacted> {
        let name = references.credential(reference, host).await?;
        absorb(hash, name.expose().as_bytes());
        self.add_name(name.expose());
        Ok(name)
    }

    /// `text` for an error, without any of them.
    pub fn strike(&self, text: &str) -> String {
        strike(text, self.secrets.iter().chain(&self.names))
    }

    /// `text`, which came back and may be written elsewhere, without any secret in it.
    pub fn strike_answer(&self, text: &str) -> String {
        strike(text, self.grave().into_iter())
    }

    /// The same for a document.
    pub fn strike_document(&self, document: Value) -> Value {
        let grave = self.grave();
        if grave.is_empty() { document } else { strike_value(document, &grave) }
    }

    fn grave(&self) -> Vec<&Redacted> {
        self.secrets.iter().filter(|secret| secret.expose().len() >= MIN_STRUCK).collect()
    }
}

fn strike<'a>(text: &str, secrets: impl Iterator<Item = &'a Redacted>) -> String {
    secrets
        .filter(|secret| !secret.expose().is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "[redacted]"))
}

fn strike_value(value: Value, secrets: &[&Redacted]) -> Value {
    match value {
        Value::String(text) => Value::String(strike(&text, secrets.iter().copied())),
        Value::Array(items) => items.into_iter().map(|item| strike_value(item, secrets)).collect(),
        Value::Object(members) => {
            let member =
                |(name, value): (String, Value)| (strike(&name, secrets.iter().copied()), strike_value(value, secrets));
            members.into_iter().map(member).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn t5_what_the_other_side_echoes_is_struck_out() {
        let mut secrets = Secrets::default();
        secrets.add("p&ss word");
        secrets.add("pw");
        secrets.names.push(Redacted::new("case"));
        assert_eq!(secrets.strike("case p&ss word p%26ss+word pw"), "[redacted] [redacted] [redacted] [redacted]");
        assert_eq!(
            secrets.strike_document(json!({"p&ss word": ["case-17", {"a": "x p%26ss+word"}], "n": 1})),
            json!({"[redacted]": ["case-17", {"a": "x [redacted]"}], "n": 1}),
            "a user name may be part of an honest answer"
        );
    }
}
