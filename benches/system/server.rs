//! `server`: does the embedded File 360 answer as fast with many workspaces as with few? Both run at once and are asked in turn,
//! so that whatever else the machine does, it does to both.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::measure::{Quantiles, float, peak_rss_bytes, quantiles, round};
use crate::tenant::{RawConnection, Tenant};

/// Workspaces of the tenant that the large one is compared with.
const FEW: usize = 1_000;
/// Members of each workspace.
const MEMBERS: usize = 3;
/// Calls in flight while the workspaces are made.
const IN_FLIGHT: usize = 32;
/// Calls of each operation that are timed, but for pages.
const CALLS: usize = 2_000;
/// Pages that are timed, of each feed and listing.
const PAGES: usize = 200;
/// Pages of the feed that count as the latest.
const LATEST: usize = 3;
/// Half of the calls may take so many times as long as with few workspaces.
const GOAL: f64 = 2.0;

/// One tenant with what is needed to ask it something.
struct Filled {
    tenant: Arc<Tenant>,
    ids: Vec<String>,
    /// Cursors of every page of the listing, and of the feed.
    listing: Vec<String>,
    feed: Vec<String>,
    connection: RawConnection,
    seconds: f64,
}

/// Runs the scenario with `size` workspaces; nothing else of the product runs.
pub async fn run(program: &Path, size: usize) -> Value {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut few = Filled::new(program, folder.path(), FEW).await;
    let mut many = Filled::new(program, folder.path(), size).await;
    // The server has closed the first one while the second was filled.
    few.connection = RawConnection::open(&few.tenant).await;
    let mut operations = serde_json::Map::new();
    let mut worst: f64 = 0.0;
    for question in Question::ALL {
        let (mut from_few, mut from_many) = (Vec::new(), Vec::new());
        for number in 0..question.calls() {
            from_few.push(few.ask(*question, number).await);
            from_many.push(many.ask(*question, number).await);
        }
        let (few, many) = (quantiles(from_few), quantiles(from_many));
        if *question != Question::OldFeedPage {
            worst = worst.max(many.p50 / few.p50);
        }
        operations.insert(question.name().to_owned(), report(&few, &many));
    }
    json!({
        "scenario": "server",
        "size": size,
        "comparedWith": FEW,
        "createSeconds": round(many.seconds, 1),
        "createCallsPerSecond": round(float((size * (1 + MEMBERS)) as u64) / many.seconds, 0),
        "databaseBytes": many.tenant.database_bytes(),
        "peakRssBytes": peak_rss_bytes(many.tenant.pid()),
        "operations": operations,
        "limit": {"p50": GOAL},
        "ratio": {"p50": round(worst, 2)},
    })
}

fn report(few: &Quantiles, many: &Quantiles) -> Value {
    json!({
        "p50Ms": round(many.p50, 3),
        "p99Ms": round(many.p99, 3),
        "fewP50Ms": round(few.p50, 3),
        "fewP99Ms": round(few.p99, 3),
        "ratio": round(many.p50 / few.p50, 2),
    })
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    ByKey,
    ById,
    Members,
    Patch,
    ListingPage,
    /// One of the latest pages of the feed.
    FeedPage,
    /// Any page of the feed. The server keeps the latest 10,000 entries in memory: all there are with few workspaces, so this
    /// is no comparison.
    OldFeedPage,
}

impl Question {
    const ALL: &[Self] =
        &[Self::ByKey, Self::ById, Self::Members, Self::Patch, Self::ListingPage, Self::FeedPage, Self::OldFeedPage];

    fn name(self) -> &'static str {
        match self {
            Self::ByKey => "getWorkspaceByKey",
            Self::ById => "getWorkspace",
            Self::Members => "listMembers",
            Self::Patch => "updateWorkspace",
            Self::ListingPage => "listWorkspaces",
            Self::FeedPage => "listChanges",
            Self::OldFeedPage => "listChangesFromDisk",
        }
    }

    fn calls(self) -> usize {
        if matches!(self, Self::ListingPage | Self::FeedPage | Self::OldFeedPage) { PAGES } else { CALLS }
    }
}

impl Filled {
    async fn new(program: &Path, folder: &Path, size: usize) -> Self {
        let tenant = Arc::new(Tenant::start(program, folder).await);
        let mut principals = Vec::new();
        for number in 0..MEMBERS {
            principals.push(tenant.principal("User", &format!("user{number}")).await);
        }
        let started = Instant::now();
        let ids = fill(&tenant, size, &Arc::new(principals)).await;
        let seconds = started.elapsed().as_secs_f64();
        let mut connection = RawConnection::open(&tenant).await;
        let listing = cursors(&mut connection, "/v1/workspaces?clusterId=load&limit=1000", None).await;
        let feed = cursors(&mut connection, "/v1/changes?wait=0&limit=1000", Some("earliest")).await;
        Self { tenant, ids, listing, feed, connection, seconds }
    }

    /// Asks about one workspace or page of all; milliseconds.
    async fn ask(&mut self, question: Question, number: usize) -> f64 {
        // Steps through all of them in an order that is neither that of creation nor that of the ids.
        let pick = |count: usize| (number * 7_919 + 13) % count;
        let at = pick(self.ids.len());
        let (method, path, body) = match question {
            Question::ByKey => ("GET", format!("/v1/workspaces/by-key/load/{at}"), ""),
            Question::ById => ("GET", format!("/v1/workspaces/{}", self.ids[at]), ""),
            Question::Members => ("GET", format!("/v1/workspaces/{}/members?limit=1000", self.ids[at]), ""),
            Question::Patch => ("PATCH", format!("/v1/workspaces/{}", self.ids[at]), "{\"displayName\":\"Changed\"}"),
            Question::ListingPage => ("GET", self.listing[pick(self.listing.len())].clone(), ""),
            Question::FeedPage => ("GET", self.feed[self.feed.len() - 1 - pick(LATEST)].clone(), ""),
            Question::OldFeedPage => ("GET", self.feed[pick(self.feed.len())].clone(), ""),
        };
        let headers = if question == Question::Patch { "if-match: *\r\n" } else { "" };
        let started = Instant::now();
        self.connection.call(method, &path, headers, body).await;
        started.elapsed().as_secs_f64() * 1000.0
    }
}

/// Makes the workspaces, so many in flight; their ids by number.
async fn fill(tenant: &Arc<Tenant>, size: usize, principals: &Arc<Vec<String>>) -> Vec<String> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (tenant, principals, next) = (tenant.clone(), principals.clone(), next.clone());
        tasks.spawn(async move {
            let mut connection = RawConnection::open(&tenant).await;
            let mut made = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= size {
                    return made;
                }
                made.push((number, make(&mut connection, number, &principals).await));
            }
        });
    }
    let mut made: Vec<(usize, String)> = tasks.join_all().await.into_iter().flatten().collect();
    made.sort_unstable();
    made.into_iter().map(|(_, id)| id).collect()
}

async fn make(connection: &mut RawConnection, number: usize, principals: &[String]) -> String {
    let owner = json!({"clusterId": "load", "namespace": "load", "name": format!("vendor-{number}"),
        "uid": format!("{number:032x}"), "state": "Active"});
    let new = json!({"displayName": format!("Vendor {number}"), "owner": owner});
    let path = format!("/v1/workspaces/by-key/load/{number}");
    let body = connection.call("PUT", &path, "if-none-match: *\r\n", &new.to_string()).await;
    let workspace: Value = serde_json::from_str(&body).expect("a workspace");
    let id = workspace["id"].as_str().expect("an id").to_owned();
    for principal in principals {
        let path = format!("/v1/workspaces/{id}/members/{principal}?path=%2F");
        connection.call("PUT", &path, "", "{\"role\":\"Editor\",\"managed\":true}").await;
    }
    id
}

/// Addresses of all pages that are full.
async fn cursors(connection: &mut RawConnection, first: &str, start: Option<&str>) -> Vec<String> {
    let mut pages = Vec::new();
    let mut cursor = start.map(str::to_owned);
    loop {
        let path = cursor.as_ref().map_or_else(|| first.to_owned(), |cursor| format!("{first}&cursor={cursor}"));
        let page: Value = serde_json::from_str(&connection.call("GET", &path, "", "").await).expect("a page");
        let full = page["items"].as_array().is_some_and(|items| items.len() == 1000);
        if full {
            pages.push(path);
        }
        match page["nextCursor"].as_str() {
            Some(next) if full => cursor = Some(next.to_owned()),
            _ => return pages,
        }
    }
}
