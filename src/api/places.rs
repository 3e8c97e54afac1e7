//! Places outside File 360 that files come from and go to: object stores, brokers, search indexes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::SecretKeyRef;
use super::connection::CaRef;
use super::http_target::{HttpAuth, HttpTls};

/// Exactly one object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [{"required": ["s3"]}, {"required": ["sftp"]}, {"required": ["fs"]}]))]
pub struct ObjectStore {
    /// Amazon S3 or a server that speaks its API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// A server that speaks SFTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sftp: Option<Sftp>,
    /// A folder that is mounted into the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs: Option<Folder>,
}

/// An S3 bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// Address of the server. Default: Amazon's for the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#@]+$"))]
    pub endpoint: Option<String>,
    /// Region, such as `eu-central-1`.
    #[schemars(length(min = 1, max = 63))]
    pub region: String,
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// Where the access key id is kept.
    pub access_key_id_ref: SecretKeyRef,
    /// Where the secret access key is kept. The same Secret names under `allowedHosts` the host of the endpoint, unless the host is in the
    /// operator's `--outbound-allow`.
    pub secret_access_key_ref: SecretKeyRef,
    /// Where a session token is kept. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token_ref: Option<SecretKeyRef>,
    /// PEM bundle of the authorities to trust, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
}

/// An SFTP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sftp {
    /// Host name or address.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9\[\]._:-]+$"))]
    pub host: String,
    /// Port. Default: 22.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
    /// User name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub username: String,
    /// Where the private key is kept, in OpenSSH's format. Exactly one of `privateKeyRef` and `passwordRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_ref: Option<SecretKeyRef>,
    /// Where the password is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_ref: Option<SecretKeyRef>,
    /// Keys that the server may prove, as in `known_hosts` without the host: `ssh-ed25519 AAAA...`. Any other server is refused.
    #[schemars(length(min = 1, max = 8), inner(length(min = 16, max = 2048)), extend("x-kubernetes-list-type" = "set"))]
    pub host_keys: Vec<String>,
    /// Folder on the server below which everything stays. Default: the folder the server starts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub root: Option<String>,
}

/// A folder that the operator was given with `--folder`. Each namespace has a folder of its own in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Folder {
    /// Name of the folder in `--folder NAME=PATH`; files are below `PATH/<namespace>`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub folder: String,
}

/// Exactly one message broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Broker {
    /// NATS with JetStream.
    pub nats: Nats,
}

/// A NATS server with JetStream. A message counts as delivered when a stream has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nats {
    /// Address, such as `tls://nats.example.com:4222`. `nats://` only where the host is in the operator's `--outbound-allow`.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^(nats|tls)://[^\s?#@]+$"))]
    pub url: String,
    /// Subject: a CEL expression that gives a string. Dots separate its parts; an empty part, more than 255 bytes and a leading `$` are refused.
    /// `*`, `>`, blanks, control and invisible characters become `_`.
    #[schemars(length(min = 1, max = 1024))]
    pub subject: String,
    /// How the operator authenticates. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<NatsAuth>,
    /// PEM bundle of the authorities to trust, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
}

/// Exactly one way to authenticate at NATS. The Secret names under `allowedHosts` the host, unless it is in `--outbound-allow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [{"required": ["tokenRef"]}, {"required": ["credentialsRef"]}, {"required": ["usernameRef", "passwordRef"]}]))]
pub struct NatsAuth {
    /// Where a token is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ref: Option<SecretKeyRef>,
    /// Where a credentials file (JWT and seed) is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretKeyRef>,
    /// Where the user name is kept; goes with `passwordRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_ref: Option<SecretKeyRef>,
    /// Where the password is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_ref: Option<SecretKeyRef>,
}

/// A search index. It never gets a file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchIndex {
    /// OpenSearch or Elasticsearch, through the bulk API.
    pub opensearch: OpenSearch,
    /// Properties of a file that the index may get: `name`, `path`, `size`, `mimeType`, `sha256`, `version`, `createdAt`, `modifiedAt`, `createdBy`,
    /// `classification`, `workspace`, `metadata.<key>`, or `metadata.*`.
    #[schemars(
        length(min = 1, max = 64),
        inner(
            length(min = 1, max = 128),
            regex(pattern = r"^(name|path|size|mimeType|sha256|version|createdAt|modifiedAt|createdBy|classification|workspace|metadata\..+)$")
        ),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub properties: Vec<String>,
    /// `Mirror` writes who may read the file (`acl.allow`, `acl.deny`: `user:alice`, `group:sales`, `guest:bob@acme.com`, `link:anyone`) and keeps
    /// it up to date. `Omit` writes none; objects of a store need it. Default: Mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<IndexAcl>,
    /// `Propagate` removes what is deleted, moved out of scope or no longer matched. `Keep` leaves it, marked `deleted: true` and readable by
    /// nobody. Default: Propagate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletes: Option<IndexDeletes>,
}

/// An OpenSearch or Elasticsearch index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenSearch {
    /// Base URL of the cluster. Must be https unless the host is in the operator's `--outbound-allow`.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#@]+$"))]
    pub url: String,
    /// Name of one index, or of an alias of one index. An index that does not exist is made.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9][a-z0-9._-]*$"))]
    pub index: String,
    /// How the operator authenticates: `bearer`, `basic`, `apiKey` or `mtls`. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,
    /// Trust. Default: the public authorities and the operator's CA settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
}

/// Whether the index gets access lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IndexAcl {
    /// It does.
    #[default]
    Mirror,
    /// It does not.
    Omit,
}

/// What happens to documents whose file is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IndexDeletes {
    /// They are removed.
    #[default]
    Propagate,
    /// They stay, marked.
    Keep,
}
