//! The HTTP target: wherever the operator calls somebody else's HTTP API, it is declared with these fields.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::common::SecretKeyRef;
use super::connection::CaRef;

/// An HTTP call to another system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpTarget {
    /// Where the call goes, such as `https://crm.example.com/api/cases`. Must be https unless the host is in the operator's
    /// `--outbound-allow`. Loopback, link-local and cluster addresses are refused, and redirects are not followed. A fixed text: no
    /// expression changes the host.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#@]+$"))]
    pub url: String,
    /// HTTP method. Default: POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
    /// Path segments below `url`, each a CEL expression that gives a string, a number or a boolean; each is percent-encoded. A result that is
    /// empty, `.` or `..`, or would step out behind a decoding proxy, is refused. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub path: Option<Vec<String>>,
    /// Query parameters: names with CEL expressions that give strings, numbers or booleans. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression_map")]
    pub query: Option<BTreeMap<String, String>>,
    /// Headers: names with CEL expressions that give strings. Line breaks and other control characters in a result are refused. What frames or
    /// authenticates the call is set by the operator: `Authorization`, `Host`, `Content-Length`, `Idempotency-Key`, `ce-*`, `webhook-*` and
    /// others. `Content-Type` can be set but for forms. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "expression_map")]
    pub headers: Option<BTreeMap<String, String>>,
    /// What is sent. `CloudEvent`: a CloudEvents 1.0 event in structured JSON. `Template`: the result of `template` as JSON. Default:
    /// Template where there is one, else CloudEvent. Where a file's content is sent, the content is the body. GET and DELETE send none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<HttpBody>,
    /// For `body: Template`: a CEL expression that gives a map or a list; it is sent as JSON. With `multipart` it is the form's JSON part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16_384))]
    pub template: Option<String>,
    /// Where a file's content is sent: as one part of a `multipart/form-data` form. Default: the content is the whole body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multipart: Option<HttpMultipart>,
    /// How the operator authenticates. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,
    /// Fetches a CSRF token before calls and sends it with them, as SAP's OData services ask for. Default: no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<HttpCsrf>,
    /// Trust. Default: the public authorities and the operator's CA settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
    /// How long the other side may be silent, as a duration such as `30s`; at most 10m. Once its answer begins, it must be complete within the
    /// same time. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,4}(ms|s|m))+$"))]
    pub timeout: Option<String>,
    /// Status codes that count as success: codes and ranges. Default: `["200-299"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 3, max = 7), regex(pattern = r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub success: Option<Vec<String>>,
}

/// HTTP methods that a target may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// Reads.
    Get,
    /// Creates.
    #[default]
    Post,
    /// Replaces.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

/// What the body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpBody {
    /// A CloudEvents 1.0 event.
    #[default]
    CloudEvent,
    /// The result of the template.
    Template,
}

/// Where a CSRF token comes from: a GET with `X-CSRF-Token: Fetch`, whose answer has the token and the cookies that go with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCsrf {
    /// What is fetched; on the host of `url`. Default: `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#@]+$"))]
    pub url: Option<String>,
}

/// The parts of a form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpMultipart {
    /// Name of the part with the file, such as `file`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
    pub file: String,
    /// Name of a part before the file, with the result of `template` as JSON. Needs `template`. Default: no such part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
    pub json: Option<String>,
}

/// Exactly one way to authenticate. A Secret with a credential names under `allowedHosts` (comma-separated host names) where the credential
/// may go, unless the host is in the operator's `--outbound-allow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["bearer"]}, {"required": ["basic"]}, {"required": ["apiKey"]}, {"required": ["oauth2"]}, {"required": ["mtls"]},
    {"required": ["hmac"]}
]))]
pub struct HttpAuth {
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerAuth>,
    /// User name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// A key in a header of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyAuth>,
    /// OAuth2 client credentials (RFC 6749 section 4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<HttpOAuth2>,
    /// A client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MtlsAuth>,
    /// A signature over time and body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<HmacAuth>,
}

/// `Authorization: Bearer <token>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BearerAuth {
    /// Where the token is kept.
    pub token_ref: SecretKeyRef,
}

/// `Authorization: Basic`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// Where the user name is kept.
    pub username_ref: SecretKeyRef,
    /// Where the password is kept.
    pub password_ref: SecretKeyRef,
}

/// A key in a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyAuth {
    /// Name of the header, such as `X-Api-Key`. The key is the whole value, so a scheme before it (`Token abc`) stands in the Secret.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub header: String,
    /// Where the key is kept.
    pub key_ref: SecretKeyRef,
}

/// OAuth2 client credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpOAuth2 {
    /// Token endpoint. Its host must be in the Secret's `allowedHosts`, too. Where it is not the host of `url`, the public authorities are
    /// trusted besides `tls.caRef`.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#@]+$"))]
    pub token_url: String,
    /// Where the client id is kept.
    pub client_id_ref: SecretKeyRef,
    /// Where the client secret is kept.
    pub client_secret_ref: SecretKeyRef,
    /// Scopes to ask for. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub scopes: Option<Vec<String>>,
    /// How the client authenticates at the token endpoint. `Basic`: in the `Authorization` header. `Body`: in the form. Default: Basic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_authentication: Option<ClientAuthentication>,
    /// Further parameters of the token request, such as `audience` or `resource`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "parameter_map")]
    pub parameters: Option<BTreeMap<String, String>>,
}

/// How an OAuth2 client authenticates at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAuthentication {
    /// In the `Authorization` header.
    #[default]
    Basic,
    /// As `client_id` and `client_secret` in the form.
    Body,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MtlsAuth {
    /// Name of a `kubernetes.io/tls` Secret (`tls.crt`, `tls.key`, and `allowedHosts`).
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// A signature as in Standard Webhooks: `webhook-id` (the idempotency key), `webhook-timestamp` and `webhook-signature`. Of a JSON body it is
/// `v1,` and the base64 HMAC-SHA256 over `id.timestamp.body`; of a file's content `v1h,` and that over `id.timestamp.` and the content's SHA-256 in
/// lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HmacAuth {
    /// Where the key is kept: at least 24 bytes; `whsec_` and base64, or the bytes as they are.
    pub key_ref: SecretKeyRef,
}

/// Trust for an HTTP target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpTls {
    /// PEM bundle of the authorities to trust, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
    /// DNS name that the certificate must have and that is asked for (SNI), where it is not the host of the URL. Such a target is called
    /// directly, past any proxy. Default: the host of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"))]
    pub server_name: Option<String>,
}

/// Schema of a map from names to CEL expressions.
pub fn expression_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 4096},
    })
}

fn parameter_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 1024},
    })
}
