//! The bare loader: the calls that the operator makes for a workspace, and its status write, by the same HTTP libraries and as
//! the same `ServiceAccount`, but without a watch, a queue, a plan or a report. What it reaches is the limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::field::{self, Created, FOLDERS, Field, MEMBERS};
use crate::measure::{float, round};
use crate::tenant::{RawConnection, Tenant};

/// Calls in flight that are tried.
pub const IN_FLIGHT: [usize; 4] = [8, 16, 32, 64];
/// Calls in flight against the embedded server alone.
const CAPACITY_IN_FLIGHT: usize = 32;
/// Calls made to measure it.
const CAPACITY_CALLS: usize = 40_000;

/// Durable small calls a second that the embedded server answers when nothing else runs: 1 workspace, 6 folders, 3 members.
pub async fn capacity(tenant: &Arc<Tenant>) -> f64 {
    let mut users = Vec::new();
    for number in 0..3 {
        users.push(tenant.principal("User", &format!("user{number}")).await);
    }
    let users = Arc::new(users);
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..CAPACITY_IN_FLIGHT {
        let (tenant, users) = (tenant.clone(), users.clone());
        tasks.spawn(async move { small_calls(&tenant, &users, worker).await });
    }
    let calls: u64 = tasks.join_all().await.into_iter().sum();
    float(calls) / started.elapsed().as_secs_f64()
}

async fn small_calls(tenant: &Tenant, users: &[String], worker: usize) -> u64 {
    let mut connection = RawConnection::open(tenant).await;
    let rounds = CAPACITY_CALLS / CAPACITY_IN_FLIGHT / 10;
    for round in 0..rounds {
        let path = format!("/v1/workspaces/by-key/load/{worker}-{round}");
        let body = connection.call("PUT", &path, "if-none-match: *\r\n", "{\"displayName\":\"Load\"}").await;
        let workspace: Value = serde_json::from_str(&body).expect("a workspace");
        let id = workspace["id"].as_str().expect("an id");
        for folder in 0..6 {
            let key = format!("idempotency-key: {worker}-{round}-{folder}\r\n");
            let body = format!("{{\"path\":\"/Folder {folder}\",\"managedKey\":\"folders/{folder}\"}}");
            connection.call("POST", &format!("/v1/workspaces/{id}/folders"), &key, &body).await;
        }
        for user in users {
            let path = format!("/v1/workspaces/{id}/members/{user}");
            connection.call("PUT", &path, "", "{\"role\":\"Editor\",\"managed\":true}").await;
        }
    }
    rounds as u64 * 10
}

/// What one loader task needs.
#[derive(Clone)]
pub struct Loader {
    tenant: Arc<Tenant>,
    kubernetes: Client,
    http: reqwest::Client,
    token: String,
    namespace: String,
    principals: Arc<Vec<String>>,
    fence: String,
    /// A status as the operator wrote it.
    status: Arc<Value>,
}

/// What part of the work a run makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The calls to File 360 and the status write.
    Everything,
    /// The status write only.
    StatusOnly,
}

impl Loader {
    /// Prepares: token, principals, fence. The operator keeps them, too.
    pub async fn new(kubernetes: Client, field: &Field, status: Arc<Value>) -> Self {
        let mut principals = Vec::new();
        for (kind, name, _) in MEMBERS {
            principals.push(field.tenant.principal(kind, name).await);
        }
        let fence = json!({"epoch": 1, "holder": "loader"});
        field.tenant.call("PUT", "/v1/fences/loader/operator", &[("if-none-match", "*")], Some(&fence)).await;
        Self {
            kubernetes,
            http: reqwest::Client::builder().no_proxy().build().expect("a client"),
            token: field.tenant.token().await,
            namespace: field.namespace.clone(),
            principals: Arc::new(principals),
            fence: "loader/operator=1".to_owned(),
            status,
            tenant: field.tenant.clone(),
        }
    }

    /// Works on all `objects`, so many in flight; workspaces a second.
    pub async fn run(&self, objects: &Arc<Vec<Created>>, in_flight: usize, work: Work) -> f64 {
        let started = Instant::now();
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..in_flight {
            let (this, next, objects) = (self.clone(), next.clone(), objects.clone());
            tasks.spawn(async move {
                while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if work == Work::Everything {
                        this.workspace(object).await;
                    }
                    this.patch_status(object).await;
                }
            });
        }
        tasks.join_all().await;
        float(objects.len() as u64) / started.elapsed().as_secs_f64()
    }

    /// The 12 calls for one workspace, one after the other.
    async fn workspace(&self, object: &Created) {
        let number: usize = object.metadata.name.rsplit('-').next().and_then(|text| text.parse().ok()).expect("a number");
        let key = format!("loader%2F{}%2F{}", self.namespace, object.metadata.name);
        let owner = json!({"clusterId": "loader", "namespace": self.namespace, "name": object.metadata.name,
            "uid": object.metadata.uid, "state": "Active"});
        let sharing = json!({"external": "AllowListed", "allowedDomains": ["acme.example"], "reshare": false,
            "links": {"maxAudience": "Members", "maxDays": 30, "passwordRequired": false, "download": true}});
        let fields = ["metadata/project", "metadata/region", "metadata/vendor", "sharing"];
        let new = json!({"displayName": format!("Vendor {number}"), "metadata": field::metadata(number),
            "sharing": sharing, "managedFields": fields, "owner": owner});
        let path = format!("/v1/workspaces/by-key/k8s/{key}");
        let made = self.send("PUT", &path, &[("if-none-match", "*")], &new, object).await;
        let made: Value = serde_json::from_str(&made).expect("a workspace");
        let id = made["id"].as_str().expect("an id");
        for (at, path) in FOLDERS.iter().enumerate() {
            let key = format!("{}-{at}", object.metadata.uid);
            let new = json!({"path": path, "locked": false, "onConflict": "return",
                "managedKey": json!({"path": path}).to_string()});
            self.send("POST", &format!("/v1/workspaces/{id}/folders"), &[("idempotency-key", &key)], &new, object).await;
        }
        for ((_, _, role), principal) in MEMBERS.iter().zip(self.principals.iter()) {
            let path = format!("/v1/workspaces/{id}/members/{principal}?path=%2F");
            self.send("PUT", &path, &[], &json!({"role": role, "managed": true}), object).await;
        }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value, object: &Created) -> String {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.tenant.url))
            .bearer_auth(&self.token)
            .header("content-type", "application/json")
            .header("caused-by", &object.metadata.uid)
            .header("fencing-epoch", &self.fence)
            .body(body.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("File 360 answers");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert_eq!(status.as_u16(), 201, "{path}: {text}");
        text
    }

    /// One merge patch, bound to the object's uid.
    async fn patch_status(&self, object: &Created) {
        let mut status = (*self.status).clone();
        // A patch that changes nothing would not be stored.
        status["workspaceId"] = json!(format!("load-{:016x}", rand::random::<u64>()));
        let patch = json!({"metadata": {"uid": object.metadata.uid}, "status": status});
        let url = format!("{}/status?fieldManager=loader", field::path(&self.namespace, &object.metadata.name));
        let request = Request::patch(url)
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string().into_bytes())
            .expect("a request");
        self.kubernetes.request_text(request).await.expect("the status is accepted");
    }
}

/// Rates by calls in flight, and the best.
#[derive(Default)]
pub struct Sweep {
    /// Rate for each number in flight.
    pub rates: BTreeMap<usize, f64>,
}

impl Sweep {
    /// Notes a rate; of several for one number the best counts.
    pub fn note(&mut self, in_flight: usize, rate: f64) {
        let best = self.rates.entry(in_flight).or_default();
        *best = best.max(round(rate, 1));
    }

    /// Calls in flight and rate of the best.
    pub fn best(&self) -> (usize, f64) {
        let best = self.rates.iter().max_by(|a, b| a.1.total_cmp(b.1));
        best.map(|(in_flight, rate)| (*in_flight, *rate)).unwrap_or_default()
    }
}
