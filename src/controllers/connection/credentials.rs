//! What a Connection's references hold: credential, trust, client certificate. Read by GET, never listed.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::api::Api;
use sha2::{Digest, Sha256};
use url::Url;

use crate::api::connection::{Basic, CaKind, CaRef, Connection, OAuth2};
use crate::controllers::context::Context;
use crate::error::{Error, Kind, Result};
use crate::file360::connector::Credential;
use crate::hex::hex;
use crate::outbound::guard::GuardedResolver;
use crate::redacted::Redacted;

const DEFAULT_SCOPES: [&str; 5] = ["read", "write", "share", "govern", "audit"];

/// Everything that a session is built from.
pub struct Credentials {
    /// Base URL.
    pub endpoint: Url,
    /// How to authenticate.
    pub credential: Credential,
    /// Client with trust, client certificate, proxy and address guard.
    pub http: reqwest::Client,
    /// Changes when any of it changes.
    pub fingerprint: String,
}

impl Credentials {
    /// Reads the references of `connection`, all in its own namespace.
    pub async fn read(ctx: &Context, connection: &Connection) -> Result<Self> {
        let namespace = connection.namespace().unwrap_or_default();
        let reader = Reader { secrets: Api::namespaced(ctx.client.clone(), &namespace), ctx, namespace: &namespace };
        let spec = &connection.spec;
        let mut hash = Sha256::new();
        hash.update(
            serde_json::to_vec(&(spec.driver(), &spec.endpoint, &spec.auth, &spec.tls, &spec.limits, spec.allow_insecure))
                .unwrap_or_default(),
        );
        hash.update(connection.uid().unwrap_or_default());

        let endpoint = parse_endpoint(&spec.endpoint, "endpoint", spec.allow_insecure == Some(true))?;
        guard_host(ctx, &endpoint, "endpoint")?;
        let credential = match (&spec.auth.oauth2, &spec.auth.token, &spec.auth.basic) {
            (Some(oauth2), None, None) => reader.oauth2(connection, oauth2, &endpoint, &mut hash).await?,
            (None, Some(token), None) => {
                let data = reader.secret(&token.secret_ref.name).await?;
                bound_to(&data, &token.secret_ref.name, "endpoint", &spec.endpoint)?;
                let text = value(&data, &token.secret_ref.name, &token.secret_ref.key)?;
                hash.update(&text);
                Credential::Bearer(Redacted::new(text))
            }
            (None, None, Some(basic)) => reader.basic(basic, &spec.endpoint, &mut hash).await?,
            _ => return Err(Error::new(Kind::Rejected, "spec.auth needs exactly one of oauth2, token and basic")),
        };
        let http = reader.http_client(connection, &mut hash).await?;
        let fingerprint = hex(&hash.finalize()[..16]);
        Ok(Self { endpoint, credential, http, fingerprint })
    }
}

struct Reader<'a> {
    secrets: Api<Secret>,
    ctx: &'a Context,
    namespace: &'a str,
}

impl Reader<'_> {
    async fn secret(&self, name: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let secret = self.secrets.get_opt(name).await?.ok_or_else(|| missing("Secret", name))?;
        Ok(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect())
    }

    async fn basic(&self, basic: &Basic, endpoint: &str, hash: &mut Sha256) -> Result<Credential> {
        let secret = &basic.password_ref.name;
        let data = self.secret(secret).await?;
        bound_to(&data, secret, "endpoint", endpoint)?;
        let password = value(&data, secret, &basic.password_ref.key)?;
        let user = &basic.username_ref;
        let username = if user.name == *secret {
            value(&data, secret, &user.key)?
        } else {
            value(&self.secret(&user.name).await?, &user.name, &user.key)?
        };
        if username.contains(':') {
            let why = format!("Secret {} has a user name with a colon, which basic authentication cannot carry", user.name);
            return Err(Error::new(Kind::Reference, why));
        }
        hash.update(&username);
        hash.update([0]);
        hash.update(&password);
        Ok(Credential::Basic { username: Redacted::new(username), password: Redacted::new(password) })
    }

    async fn oauth2(
        &self,
        connection: &Connection,
        oauth2: &OAuth2,
        endpoint: &Url,
        hash: &mut Sha256,
    ) -> Result<Credential> {
        let secret_name = &oauth2.client_secret_ref.name;
        let data = self.secret(secret_name).await?;
        bound_to(&data, secret_name, "endpoint", &connection.spec.endpoint)?;
        let token_url = match &oauth2.token_url {
            None => {
                let mut url = endpoint.clone();
                url.set_path(&format!("{}/oauth2/token", endpoint.path().trim_end_matches('/')));
                url
            }
            Some(text) => {
                let url = parse_endpoint(text, "auth.oauth2.tokenUrl", connection.spec.allow_insecure == Some(true))?;
                if url.origin() != endpoint.origin() {
                    bound_to(&data, secret_name, "tokenUrl", text)?;
                }
                guard_host(self.ctx, &url, "auth.oauth2.tokenUrl")?;
                url
            }
        };
        let client_secret = value(&data, secret_name, &oauth2.client_secret_ref.key)?;
        let id_ref = &oauth2.client_id_ref;
        let client_id = if id_ref.name == *secret_name {
            value(&data, secret_name, &id_ref.key)?
        } else {
            value(&self.secret(&id_ref.name).await?, &id_ref.name, &id_ref.key)?
        };
        hash.update(&client_id);
        hash.update([0]);
        hash.update(&client_secret);
        let scopes = oauth2.scopes.clone().unwrap_or_else(|| DEFAULT_SCOPES.map(str::to_owned).to_vec());
        Ok(Credential::OAuth2 {
            client_id: Redacted::new(client_id),
            client_secret: Redacted::new(client_secret),
            token_url,
            scopes,
        })
    }

    async fn http_client(&self, connection: &Connection, hash: &mut Sha256) -> Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("file360-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_mins(1))
            .pool_max_idle_per_host(64)
            .tcp_nodelay(true)
            .dns_resolver(GuardedResolver(self.ctx.guard.clone()))
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .tls_certs_merge(self.ctx.extra_ca.iter().cloned());
        let tls = connection.spec.tls.as_ref();
        if let Some(reference) = tls.and_then(|tls| tls.ca_ref.as_ref()) {
            let pem = self.ca(reference).await?;
            hash.update(&pem);
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(Error::new(
                    Kind::Reference,
                    format!(
                        "tls.caRef: key {} of {:?} {} has no PEM certificate",
                        reference.key, reference.kind, reference.name
                    ),
                ));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let Some(reference) = tls.and_then(|tls| tls.client_cert_ref.as_ref()) {
            let data = self.secret(&reference.name).await?;
            let mut pem = value(&data, &reference.name, "tls.key")?.into_bytes();
            pem.push(b'\n');
            pem.extend(value(&data, &reference.name, "tls.crt")?.into_bytes());
            hash.update(&pem);
            let identity = reqwest::Identity::from_pem(&pem).map_err(|_| {
                Error::new(
                    Kind::Reference,
                    format!("tls.clientCertRef: Secret {} has no usable tls.crt and tls.key", reference.name),
                )
            })?;
            builder = builder.identity(identity);
        }
        builder
            .build()
            .map_err(|_| Error::new(Kind::Tls, "the TLS settings cannot be used; check tls.caRef and tls.clientCertRef"))
    }

    async fn ca(&self, reference: &CaRef) -> Result<Vec<u8>> {
        match reference.kind {
            CaKind::Secret => Ok(value(&self.secret(&reference.name).await?, &reference.name, &reference.key)?.into_bytes()),
            CaKind::ConfigMap => {
                let maps: Api<ConfigMap> = Api::namespaced(self.ctx.client.clone(), self.namespace);
                let map = maps.get_opt(&reference.name).await?.ok_or_else(|| missing("ConfigMap", &reference.name))?;
                let text = map.data.unwrap_or_default().remove(&reference.key);
                text.map(String::into_bytes).ok_or_else(|| lacks_key("ConfigMap", &reference.name, &reference.key))
            }
        }
    }
}

fn parse_endpoint(text: &str, field: &str, allow_insecure: bool) -> Result<Url> {
    let url = Url::parse(text).map_err(|error| Error::new(Kind::Rejected, format!("spec.{field} is no URL: {error}")))?;
    if url.scheme() != "https" && !(allow_insecure && url.scheme() == "http") {
        return Err(Error::new(Kind::Rejected, format!("spec.{field} must use https")));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(Error::new(
            Kind::Rejected,
            format!("spec.{field} must not carry a user name, password, query or fragment"),
        ));
    }
    Ok(url)
}

fn guard_host(ctx: &Context, url: &Url, field: &str) -> Result<()> {
    ctx.guard
        .check_host(url.host_str().unwrap_or_default())
        .map_err(|why| Error::new(Kind::Rejected, format!("spec.{field}: {why}")))
}

/// A credential goes only where its Secret says (T5): whoever can edit the Connection alone cannot redirect it.
fn bound_to(data: &BTreeMap<String, Vec<u8>>, secret: &str, key: &str, url: &str) -> Result<()> {
    let bound =
        data.get(key).and_then(|value| std::str::from_utf8(value).ok()).map(|value| value.trim().trim_end_matches('/'));
    if bound == Some(url.trim_end_matches('/')) {
        return Ok(());
    }
    let what = if bound.is_some() { "names another one" } else { "does not name it" };
    let mut error = Error::new(
        Kind::Reference,
        format!(
            "the credential is for the {key} that its Secret names, and Secret {secret} {what}; set its key {key} to {url} if the credential may go there"
        ),
    );
    error.code = "credential-not-bound".into();
    Err(error)
}

fn value(data: &BTreeMap<String, Vec<u8>>, secret: &str, key: &str) -> Result<String> {
    let text = data.get(key).and_then(|value| String::from_utf8(value.clone()).ok());
    let text = text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()).filter(|text| !text.is_empty());
    text.ok_or_else(|| lacks_key("Secret", secret, key))
}

fn missing(kind: &str, name: &str) -> Error {
    Error::new(Kind::Reference, format!("{kind} {name} does not exist in this namespace; create it"))
}

fn lacks_key(kind: &str, name: &str, key: &str) -> Error {
    Error::new(Kind::Reference, format!("{kind} {name} has no text under the key {key}; add it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t5_a_credential_goes_only_to_the_endpoint_its_secret_names() {
        let data = |endpoint: &str| [("endpoint".to_owned(), endpoint.as_bytes().to_vec())].into();
        assert!(bound_to(&data("https://f.example/"), "s", "endpoint", "https://f.example").is_ok());
        assert!(bound_to(&data("https://f.example"), "s", "endpoint", "https://evil.example").is_err());
        assert!(bound_to(&BTreeMap::new(), "s", "endpoint", "https://f.example").is_err());
    }

    #[test]
    fn endpoints_with_credentials_or_without_tls_are_refused() {
        assert!(parse_endpoint("https://f.example/base", "endpoint", false).is_ok());
        assert!(parse_endpoint("http://f.example", "endpoint", false).is_err());
        assert!(parse_endpoint("http://f.example", "endpoint", true).is_ok());
        assert!(parse_endpoint("https://user:pw@f.example", "endpoint", true).is_err());
        assert!(parse_endpoint("https://f.example/?x=1", "endpoint", true).is_err());
    }
}
