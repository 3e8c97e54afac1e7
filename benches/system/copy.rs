//! A bare copy between File 360 and an S3 server: the calls that a route makes for a file, its record included, by the same HTTP library, but
//! without a feed, rules, an order, retries or a status. What it reaches is the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use file360_operator::hex::hex;
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use reqwest::{Body, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::measure::float;
use crate::support::counterparts::S3Server;
use crate::tenant::Tenant;

/// Records in one batch, as the operator has it.
const BATCH: usize = 500;
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A file to copy: the item's id and version, or the object's key; and its digest.
#[derive(Clone)]
pub struct File {
    /// Id of the item, or key of the object.
    pub name: String,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Both ends.
#[derive(Clone)]
pub struct Ends {
    /// File 360.
    pub tenant: Arc<Tenant>,
    /// The S3 server's address.
    pub endpoint: String,
    http: reqwest::Client,
    token: Arc<String>,
}

/// Which way.
#[derive(Clone)]
pub enum Way {
    /// From File 360 to objects below this prefix.
    Out(String),
    /// From objects into the folder with this id.
    In(String),
}

impl Ends {
    /// Takes a token; the operator has one, too.
    pub async fn new(tenant: &Arc<Tenant>, server: &S3Server) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let token = Arc::new(tenant.token().await);
        Self { tenant: tenant.clone(), endpoint: server.endpoint.clone(), http, token }
    }

    /// Copies all `files`, so many in flight; files a second.
    pub async fn copy(&self, files: &Arc<Vec<File>>, way: &Way, in_flight: usize) -> f64 {
        let started = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..in_flight {
            let (this, next, files, way) = (self.clone(), next.clone(), files.clone(), way.clone());
            tasks.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(number) else { return };
                    match &way {
                        Way::Out(prefix) => this.send(file, &format!("{prefix}{}", file.name)).await,
                        Way::In(folder) => this.fetch(file, folder).await,
                    }
                    if number % BATCH == BATCH - 1 || number + 1 == files.len() {
                        this.record(&files[number / BATCH * BATCH..=number], &way).await;
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a copy succeeds");
        }
        float(files.len() as u64) / started.elapsed().as_secs_f64()
    }

    /// Looks at an item, streams it to the S3 server, and compares the digest.
    async fn send(&self, file: &File, key: &str) {
        let item = self.file360(Method::GET, &format!("/v1/items/{}", file.name));
        let item: Value = answered(item).await.json().await.expect("an item");
        let sha256 = item["sha256"].as_str().expect("a digest").to_owned();
        let content = answered(self.file360(Method::GET, &format!("/v1/items/{}/content", file.name))).await;
        let (body, digest) = hashed(content, file.size);
        let put = self.s3(Method::PUT, key, &sha256).header("content-length", file.size).body(body);
        answered(put).await;
        assert_eq!(digest.await.expect("a digest"), sha256, "the copy is whole");
    }

    /// Looks at an object, streams it into a folder, and compares the digest.
    async fn fetch(&self, file: &File, folder: &str) {
        answered(self.s3(Method::HEAD, &file.name, EMPTY)).await;
        let content = answered(self.s3(Method::GET, &file.name, EMPTY)).await;
        let (body, digest) = hashed(content, file.size);
        let name = file.name.rsplit('/').next().unwrap_or_default();
        let put = self.file360(Method::POST, &format!("/v1/items/{folder}/files?name={name}&onConflict=newVersion"));
        let put = put.header("idempotency-key", format!("{:x}", rand::random::<u128>()));
        let put = put.header("content-type", "application/octet-stream").header("content-length", file.size).body(body);
        let item: Value = answered(put).await.json().await.expect("an item");
        assert_eq!(item["sha256"], digest.await.expect("a digest"), "the copy is whole");
    }

    async fn record(&self, files: &[File], way: &Way) {
        let value = |file: &File| {
            json!({"state": "Delivered", "rule": "all", "at": Timestamp::now(),
            "to": {"all/there": {"key": file.sha256, "reference": file.name, "at": Timestamp::now()}}})
        };
        let (path, items): (_, Vec<Value>) = match way {
            Way::Out(_) => (
                "/v1/facets/batch",
                files
                    .iter()
                    .map(|file| json!({"itemId": file.name, "version": 1, "name": "copy", "value": value(file)}))
                    .collect(),
            ),
            Way::In(_) => (
                "/v1/client-state/batch",
                files
                    .iter()
                    .map(|file| json!({"key": format!("copy/{}", &file.sha256[..32]), "value": {"key": file.name, "record": value(file)}}))
                    .collect(),
            ),
        };
        let call = self.file360(Method::POST, path).header("idempotency-key", format!("{:x}", rand::random::<u128>()));
        let call = call.header("content-type", "application/json").body(json!({"items": items}).to_string());
        answered(call).await;
    }

    fn file360(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.tenant.url)).bearer_auth(&self.token)
    }

    /// A request of AWS Signature Version 4.
    pub fn s3(&self, method: Method, key: &str, sha256: &str) -> RequestBuilder {
        let at = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let host = self.endpoint.trim_start_matches("http://");
        let path = format!("/{}/{key}", S3Server::BUCKET);
        let scope = format!("{}/{}/s3/aws4_request", &at[..8], S3Server::REGION);
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical =
            format!("{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{sha256}\nx-amz-date:{at}\n\n{names}\n{sha256}");
        let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let secret = format!("AWS4{}", S3Server::SECRET).into_bytes();
        let signing = [&at[..8], S3Server::REGION, "s3", "aws4_request"].iter().fold(secret, |key, part| sign(&key, part));
        let credential = format!("Credential={}/{scope}", S3Server::KEY_ID);
        let signature = hex(&sign(&signing, &text));
        let header = format!("AWS4-HMAC-SHA256 {credential},SignedHeaders={names},Signature={signature}");
        let request = self.http.request(method, format!("{}{path}", self.endpoint)).header("authorization", header);
        request.header("x-amz-content-sha256", sha256).header("x-amz-date", at)
    }

    /// Small calls a second of both servers: reads and writes of the same bytes, 32 in flight.
    pub async fn rates(&self, files: &Arc<Vec<File>>, folder: &str, content: &bytes::Bytes) -> Rates {
        let sha256 = hex(&Sha256::digest(content));
        let run = async |what: What| {
            let started = Instant::now();
            let next = Arc::new(AtomicUsize::new(0));
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..32 {
                let (this, next, files, what) = (self.clone(), next.clone(), files.clone(), what.clone());
                let (folder, content, sha256) = (folder.to_owned(), content.clone(), sha256.clone());
                tasks.spawn(async move {
                    while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let name = &file.name;
                        let request = match what {
                            What::Read => this.file360(Method::GET, &format!("/v1/items/{name}/content")),
                            What::ReadObject => this.s3(Method::GET, &format!("rate/{name}"), EMPTY),
                            What::WriteObject => {
                                this.s3(Method::PUT, &format!("rate/{name}"), &sha256).body(content.clone())
                            }
                            What::Write => this
                                .file360(Method::POST, &format!("/v1/items/{folder}/files?name=rate-{name}"))
                                .header("idempotency-key", format!("{:x}", rand::random::<u128>()))
                                .body(content.clone()),
                        };
                        answered(request).await.bytes().await.expect("a body");
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.expect("a call succeeds");
            }
            float(files.len() as u64) / started.elapsed().as_secs_f64()
        };
        Rates {
            put_object: run(What::WriteObject).await,
            get_object: run(What::ReadObject).await,
            upload: run(What::Write).await,
            download: run(What::Read).await,
        }
    }
}

/// Small calls a second.
pub struct Rates {
    /// GET of the S3 server.
    pub get_object: f64,
    /// PUT of the S3 server.
    pub put_object: f64,
    /// Downloads of File 360.
    pub download: f64,
    /// Uploads of File 360.
    pub upload: f64,
}

#[derive(Clone)]
enum What {
    Read,
    Write,
    ReadObject,
    WriteObject,
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

async fn answered(request: RequestBuilder) -> Response {
    let answer = request.send().await.expect("the server answers");
    let status = answer.status();
    assert!(status.is_success(), "{} {status} {}", answer.url().clone(), answer.text().await.unwrap_or_default());
    answer
}

/// The body to send on, and the digest of what went through it. Whoever sends it stops reading at its length.
fn hashed(answer: Response, size: u64) -> (Body, tokio::sync::oneshot::Receiver<String>) {
    let (tell, digest) = tokio::sync::oneshot::channel();
    let state = (answer.bytes_stream(), Sha256::new(), 0, Some(tell));
    let body = futures::stream::unfold(state, move |(mut content, mut hash, mut read, mut tell)| async move {
        let chunk = content.next().await?;
        if let Ok(chunk) = &chunk {
            hash.update(chunk);
            read += chunk.len() as u64;
        }
        if read == size
            && let Some(tell) = tell.take()
        {
            let _ = tell.send(hex(&hash.clone().finalize()));
        }
        Some((chunk, (content, hash, read, tell)))
    });
    (Body::wrap_stream(body), digest)
}
