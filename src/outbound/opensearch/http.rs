//! One HTTP exchange with a search cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use crate::api::common::SecretKeyRef;
use crate::api::http_target::{HttpAuth, HttpTls};
use crate::error::{Error, Kind, Result, clean};
use crate::outbound::guard::{Guard, GuardedResolver};
use crate::outbound::secrets::References;
use crate::outbound::trust::{Trust, tls_failure};
use crate::redacted::Redacted;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
const CONNECT: Duration = Duration::from_secs(5);
/// Longest duration of one exchange.
const EXCHANGE: Duration = Duration::from_mins(1);
/// A server cannot make the operator wait longer than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);

/// Which cluster, and how to talk to it.
pub struct Settings {
    /// Base URL.
    pub url: Url,
    /// How to authenticate: bearer, basic, API key or client certificate.
    pub auth: Option<HttpAuth>,
    /// Trust.
    pub tls: Option<HttpTls>,
    /// Where credentials come from.
    pub references: Arc<dyn References>,
    /// Which addresses are fine.
    pub guard: Arc<Guard>,
    /// The operator's trust.
    pub trust: Trust,
}

/// Checks the base URL: https, unless the host is in `--outbound-allow`; no address that the guard refuses.
pub fn base_url(text: &str, guard: &Guard) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    let host = url.host_str().ok_or("has no host")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must start with https://".into());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must not carry a user name, password, query or fragment".into());
    }
    guard.check_host(host)?;
    if url.scheme() == "http" && !guard.is_allowed_host(host) {
        return Err(format!("must start with https:// unless {host} is in --outbound-allow"));
    }
    Ok(url)
}

/// What came back, whatever the status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body, as far as it is JSON.
    pub body: Value,
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// Requests below a base URL.
pub struct Http {
    settings: Settings,
    client: Mutex<Option<(Material, reqwest::Client)>>,
}

/// What a client is made of that can change.
#[derive(PartialEq)]
struct Material {
    authorities: Option<Vec<u8>>,
    identity: Option<Redacted>,
}

/// A header with a credential, and the texts that must not show in any message.
#[derive(Default)]
struct Credential {
    header: Option<(HeaderName, HeaderValue)>,
    secrets: Vec<Redacted>,
}

impl Http {
    /// Nothing is sent before the first call.
    pub fn new(settings: Settings) -> Self {
        Self { settings, client: Mutex::new(None) }
    }

    /// One exchange with `path` (segments that are safe in a URL) below the base URL. Answers of every status but 401 and 403 come back;
    /// [`refusal`] says what they mean. A 401 makes credentials be read again once.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Answer> {
        let first = self.exchange(&method, path, query, body.clone()).await;
        match first {
            Err(error) if error.code == "unauthenticated" => {
                self.settings.references.refused();
                self.exchange(&method, path, query, body).await
            }
            Err(error) if error.kind == Kind::Tls => {
                self.settings.references.refused();
                Err(error)
            }
            other => other,
        }
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Answer> {
        let client = self.client().await?;
        let credential = self.credential().await?;
        let mut url = self.settings.url.clone();
        url.set_path(&format!("{}/{path}", self.settings.url.path().trim_end_matches('/')));
        let mut request = client.request(method.clone(), url).query(query).timeout(EXCHANGE);
        if let Some((name, value)) = credential.header {
            request = request.header(name, value);
        }
        if let Some((media_type, bytes)) = body {
            request = request.header(header::CONTENT_TYPE, media_type).body(bytes);
        }
        let response = request.send().await.map_err(|error| self.send_error(&error))?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let body = self.bounded(response).await?;
        let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
        scrub(&mut body, &credential.secrets);
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && !is_block(&body) {
            return Err(self.denied(status, &body));
        }
        Ok(Answer { status, body, retry_after })
    }

    /// A client with the trust and the client certificate that the references hold now.
    async fn client(&self) -> Result<reqwest::Client> {
        let Settings { url, auth, tls, references, guard, trust } = &self.settings;
        let authorities = match tls.as_ref().and_then(|tls| tls.ca_ref.as_ref()) {
            Some(reference) => Some(references.authorities(reference).await?),
            None => None,
        };
        let identity = match auth.as_ref().and_then(|auth| auth.mtls.as_ref()) {
            Some(mtls) => Some(references.client_certificate(&mtls.secret_name, url.host_str().unwrap_or_default()).await?),
            None => None,
        };
        let material = Material { authorities, identity };
        let mut current = self.client.lock().await;
        if let Some((made_of, client)) = current.as_ref()
            && *made_of == material
        {
            return Ok(client.clone());
        }
        let name = tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let identity = material.identity.as_ref().map(Redacted::expose);
        let config = trust.settings(material.authorities.as_deref(), name, identity)?;
        let client = reqwest::Client::builder()
            .user_agent(concat!("file360-operator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_mins(1))
            .tcp_nodelay(true)
            .dns_resolver(GuardedResolver(guard.clone()))
            .tls_backend_preconfigured(config)
            .build()
            .map_err(|_| Error::new(Kind::Tls, "the TLS settings cannot be used; check tls.caRef"))?;
        *current = Some((material, client.clone()));
        Ok(client)
    }

    async fn credential(&self) -> Result<Credential> {
        let Settings { url, auth, references, .. } = &self.settings;
        let Some(auth) = auth else { return Ok(Credential::default()) };
        let host = url.host_str().unwrap_or_default();
        if let Some(bearer) = &auth.bearer {
            let token = references.credential(&bearer.token_ref, host).await?;
            let text = format!("Bearer {}", token.expose());
            return Ok(Credential {
                header: Some((header::AUTHORIZATION, value(&text, &bearer.token_ref)?)),
                secrets: vec![token],
            });
        }
        if let Some(basic) = &auth.basic {
            use base64::Engine as _;
            let user = references.credential(&basic.username_ref, host).await?;
            let password = references.credential(&basic.password_ref, host).await?;
            let both = Redacted::new(base64::engine::general_purpose::STANDARD.encode(format!(
                "{}:{}",
                user.expose(),
                password.expose()
            )));
            let header = value(&format!("Basic {}", both.expose()), &basic.password_ref)?;
            return Ok(Credential { header: Some((header::AUTHORIZATION, header)), secrets: vec![password, both] });
        }
        if let Some(key) = &auth.api_key {
            let secret = references.credential(&key.key_ref, host).await?;
            let name = HeaderName::from_bytes(key.header.as_bytes())
                .map_err(|_| Error::new(Kind::Rejected, "auth.apiKey.header is no name of a header"))?;
            return Ok(Credential { header: Some((name, value(secret.expose(), &key.key_ref)?)), secrets: vec![secret] });
        }
        Ok(Credential::default())
    }

    fn host(&self) -> &str {
        self.settings.url.host_str().unwrap_or_default()
    }

    fn denied(&self, status: StatusCode, body: &Value) -> Error {
        let advice = match self.settings.auth.as_ref() {
            None => "it wants a credential; set auth".to_owned(),
            Some(auth) => {
                let keys = [
                    auth.bearer.as_ref().map(|bearer| &bearer.token_ref),
                    auth.basic.as_ref().map(|basic| &basic.username_ref),
                    auth.basic.as_ref().map(|basic| &basic.password_ref),
                    auth.api_key.as_ref().map(|key| &key.key_ref),
                ];
                let keys = keys
                    .into_iter()
                    .flatten()
                    .map(|reference| format!("key {} of Secret {}", reference.key, reference.name));
                let keys = keys.chain(auth.mtls.iter().map(|mtls| format!("Secret {}", mtls.secret_name)));
                format!("check {}, and what it may do", keys.collect::<Vec<_>>().join(" and "))
            }
        };
        let why = reason(body).map(|why| format!(" ({why})")).unwrap_or_default();
        let mut error = Error::new(Kind::Denied, format!("{} answered {}{why}; {advice}", self.host(), status.as_u16()));
        if status == StatusCode::UNAUTHORIZED {
            error.code = "unauthenticated".into();
        }
        error
    }

    async fn bounded(&self, mut response: reqwest::Response) -> Result<Vec<u8>> {
        let too_large =
            || Error::new(Kind::Malformed, format!("the answer of {} is larger than {MAX_ANSWER} bytes", self.host()));
        if response.content_length().is_some_and(|length| length > MAX_ANSWER as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.send_error(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What went wrong below HTTP. The URL is left out.
    fn send_error(&self, error: &reqwest::Error) -> Error {
        let host = self.host();
        if let Some(why) = tls_failure(error) {
            let advice = "check tls.caRef and that the certificate names the host";
            return Error::new(Kind::Tls, format!("TLS with {host} failed: {why}; {advice}"));
        }
        if error.is_timeout() {
            return Error::new(Kind::Unavailable, format!("{host} did not answer in time"));
        }
        let mut root: &dyn std::error::Error = error;
        while let Some(cause) = root.source() {
            root = cause;
        }
        let root = clean(&root.to_string(), 200);
        if root.contains("outbound guard") {
            return Error::new(Kind::Rejected, root);
        }
        Error::new(Kind::Unavailable, format!("cannot reach {host}: {root}"))
    }
}

fn value(text: &str, reference: &SecretKeyRef) -> Result<HeaderValue> {
    let wrong = |_| {
        Error::new(
            Kind::Reference,
            format!("key {} of Secret {} has characters that no header can carry", reference.key, reference.name),
        )
    };
    let mut value = HeaderValue::from_str(text).map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The one place that turns an answer without success into a kind of failure.
pub fn refusal(answer: &Answer, host: &str) -> Error {
    let kind = match answer.status.as_u16() {
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        429 => Kind::RateLimited,
        403 if is_block(&answer.body) => Kind::Unavailable,
        401 | 403 => Kind::Denied,
        300..=499 => Kind::Rejected,
        _ => Kind::Unavailable,
    };
    let why = reason(&answer.body).map(|why| format!(": {why}")).unwrap_or_default();
    let mut error = Error::new(kind, format!("{host} answered {}{why}", answer.status.as_u16()));
    error.code = clean(answer.body.pointer("/error/type").and_then(Value::as_str).unwrap_or_default(), 60);
    error.retry_after = answer.retry_after;
    error
}

/// Why, from an answer or from an item of one: type and reason of its `error`, bounded. Values of documents are cut off.
pub fn reason(body: &Value) -> Option<String> {
    let error = body.get("error")?;
    let text = match (error.get("type").and_then(Value::as_str), error.get("reason").and_then(Value::as_str)) {
        (Some(kind), Some(reason)) => format!("{kind}: {reason}"),
        (Some(kind), None) => kind.to_owned(),
        _ => error.as_str()?.to_owned(),
    };
    let told = text.split("Preview of field's value").next().unwrap_or_default().trim_end();
    Some(clean(told, 300))
}

/// A block, such as that of a full disk, comes as 403 and goes away: no matter of rights.
pub fn is_block(body: &Value) -> bool {
    body.pointer("/error/type").and_then(Value::as_str) == Some("cluster_block_exception")
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// Replaces credentials that the other side sent back, in everything that may be shown.
fn scrub(body: &mut Value, secrets: &[Redacted]) {
    match body {
        Value::String(text) => {
            for secret in secrets.iter().map(Redacted::expose).filter(|secret| !secret.is_empty()) {
                if text.contains(secret) {
                    *text = text.replace(secret, "[redacted]");
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| scrub(item, secrets)),
        Value::Object(members) => members.values_mut().for_each(|member| scrub(member, secrets)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn t3_clusters_without_tls_and_addresses_inside_are_refused() {
        let open = Guard::default();
        assert!(base_url("https://search.example.com:9200/base/", &open).is_ok());
        for url in [
            "http://search.example.com",
            "https://127.0.0.1:9200",
            "https://[::ffff:169.254.169.254]",
            "https://user:password@search.example.com",
            "https://search.example.com/?x=1",
            "ftp://search.example.com",
            "search",
        ] {
            assert!(base_url(url, &open).is_err(), "{url}");
        }
        let allowing = Guard::new(&["127.0.0.1".into()], &[]).unwrap();
        assert!(base_url("http://127.0.0.1:9200", &allowing).is_ok());
    }

    #[test]
    fn t5_what_the_other_side_says_is_bounded_and_holds_no_credential_and_no_value() {
        let mut body = json!({"error": {"type": "mapper_parsing_exception", "reason":
            "token s3cret: failed to parse field [size].\r\n Preview of field's value: 'confidential'"}});
        scrub(&mut body, &[Redacted::new("s3cret"), Redacted::new("")]);
        assert_eq!(reason(&body).unwrap(), "mapper_parsing_exception: token [redacted]: failed to parse field [size].");
        assert_eq!(reason(&json!({"error": {"type": "x".repeat(900)}})).unwrap().chars().count(), 300);
        assert_eq!(reason(&json!({"error": "plain"})).unwrap(), "plain");
        assert_eq!(reason(&json!({"error": ["?"]})), None);
    }

    #[test]
    fn an_answer_says_what_next() {
        let kind = |status, body: Value| {
            refusal(&Answer { status: StatusCode::from_u16(status).unwrap(), body, retry_after: None }, "h").kind
        };
        for (status, expected) in [
            (400, Kind::Rejected),
            (301, Kind::Rejected),
            (404, Kind::NotFound),
            (429, Kind::RateLimited),
            (500, Kind::Unavailable),
            (503, Kind::Unavailable),
        ] {
            assert_eq!(kind(status, Value::Null), expected, "{status}");
        }
        assert_eq!(kind(403, json!({"error": {"type": "cluster_block_exception"}})), Kind::Unavailable, "a full disk");
    }
}
