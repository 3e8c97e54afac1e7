//! A small CRM: lists deals page by page, with ETags; counts what it is asked; can be told to fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How the CRM answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// With this status; for 429 and 503 with this `Retry-After`.
    Status(u16, Option<u64>),
    /// Only pages up to this one; later ones are 500.
    Until(usize),
    /// With a text that is no JSON.
    Page,
    /// With this address of the next page, always.
    Next(String),
}

struct Kept {
    items: Mutex<Vec<Value>>,
    mood: Mutex<Mood>,
    page_size: AtomicUsize,
    has_etags: AtomicBool,
    asked: AtomicUsize,
    unchanged: AtomicUsize,
    last: Mutex<BTreeMap<String, String>>,
}

/// See the module.
pub struct Crm {
    /// Address of the listing.
    pub url: String,
    kept: Arc<Kept>,
}

impl Crm {
    /// Starts on a free port, with these deals.
    pub async fn start(items: &[Value]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/deals", listener.local_addr().expect("an address"));
        let kept = Arc::new(Kept {
            items: Mutex::new(items.to_vec()),
            mood: Mutex::new(Mood::Well),
            page_size: AtomicUsize::new(2),
            has_etags: AtomicBool::new(true),
            asked: AtomicUsize::new(0),
            unchanged: AtomicUsize::new(0),
            last: Mutex::default(),
        });
        let app = axum::Router::new().fallback(answer).with_state(kept.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, kept }
    }

    /// It lists these from now on.
    pub fn lists(&self, items: &[Value]) {
        *self.kept.items.lock() = items.to_vec();
    }

    /// How it answers from now on.
    pub fn is(&self, mood: Mood) {
        *self.kept.mood.lock() = mood;
    }

    /// Deals on a page.
    pub fn page_size(&self, size: usize) {
        self.kept.page_size.store(size, Ordering::SeqCst);
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.kept.asked.load(Ordering::SeqCst)
    }

    /// Those of them that were answered with 304.
    pub fn unchanged(&self) -> usize {
        self.kept.unchanged.load(Ordering::SeqCst)
    }

    /// Headers and query (under `?`) of the last request for the first page.
    pub fn last(&self) -> BTreeMap<String, String> {
        self.kept.last.lock().clone()
    }
}

/// One deal.
pub fn deal(id: &str) -> Value {
    json!({"id": id, "name": format!("Deal {id}"), "owner": "user0", "amount": 7})
}

async fn answer(State(kept): State<Arc<Kept>>, request: Request) -> Response {
    kept.asked.fetch_add(1, Ordering::SeqCst);
    let query = request.uri().query().unwrap_or_default().to_owned();
    let page = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "page");
    let page: usize = page.and_then(|(_, value)| value.parse().ok()).unwrap_or_default();
    if page == 0 {
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let mut last: BTreeMap<_, _> =
            request.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        last.insert("?".into(), query);
        *kept.last.lock() = last;
    }
    let mood = kept.mood.lock().clone();
    match mood {
        Mood::Status(status, after) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let headers = after.map(|after| (header::RETRY_AFTER, after.to_string()));
            return (status, HeaderMap::from_iter(headers.map(|(name, value)| (name, value.parse().unwrap()))), "as told")
                .into_response();
        }
        Mood::Until(last) if page > last => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mood::Page => return "<html>maintenance</html>".into_response(),
        _ => {}
    }
    let size = kept.page_size.load(Ordering::SeqCst);
    let items = kept.items.lock();
    let records: Vec<Value> = items.iter().skip(page * size).take(size).cloned().collect();
    let next = match &mood {
        Mood::Next(next) => json!(next),
        _ if items.len() > (page + 1) * size => json!(format!("/deals?page={}", page + 1)),
        _ => Value::Null,
    };
    let body = json!({"records": records, "next": next}).to_string();
    let etag = format!("\"{}\"", Sha256::digest(&body).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>());
    if kept.has_etags.load(Ordering::SeqCst) && request.headers().get(header::IF_NONE_MATCH).is_some_and(|it| *it == *etag) {
        kept.unchanged.fetch_add(1, Ordering::SeqCst);
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(header::ETAG, etag), (header::CONTENT_TYPE, "application/json".to_owned())], body).into_response()
}
