//! From an HTTP request to a call, and from what became of it to an HTTP response.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::App;
use super::authorize::{self, Principal, Target};
use super::call::{Answer, Call, Caller};
use super::faults::Fault;
use super::linger::lingering;
use super::operation::{Access, Operation};
use super::refusal::Refusal;
use super::routes::{self, Run};
use super::tx::{self, About, Tx, View};
use crate::file360::model::headers;

/// Largest JSON body, in bytes.
pub const MAX_JSON: usize = 1024 * 1024;
/// How long a client may take to send a JSON body.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// How long a call waits for its turn when the server is full.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
const ON_BEHALF_OF: &str = "on-behalf-of";

/// What became of a call.
pub struct Reply {
    /// Answer or refusal.
    pub outcome: Result<Answer, Refusal>,
    /// Revision of the workspace it is about.
    pub revision: Option<u64>,
}

impl Reply {
    /// Not about one workspace.
    pub fn plain(outcome: Result<Answer, Refusal>) -> Self {
        Self { outcome, revision: None }
    }

    /// The HTTP response.
    pub fn respond(self) -> Response {
        match self.outcome {
            Ok(answer) => answer.respond(self.revision),
            Err(refusal) => refusal.respond(self.revision),
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::plain(Err(refusal))
    }
}

/// Where a request came from; set by the transport.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Tells the transport to close the connection without an answer.
#[derive(Clone, Copy, Debug)]
pub struct DropConnection;

/// The router of every operation in the table.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    let mut paths: Vec<&str> = Operation::ALL.iter().map(|operation| operation.path()).collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        let mut methods: MethodRouter<App> = MethodRouter::new();
        for operation in Operation::ALL.iter().copied().filter(|operation| operation.path() == path) {
            if operation.is_test_only() && !app.config.test_faults {
                continue;
            }
            let handler = move |State(app): State<App>, params: Result<RawPathParams, _>, request: Request| async move {
                let params =
                    params.map(|params| params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
                match params {
                    Ok(params) => serve(app, operation, params, request).await,
                    Err::<_, axum::extract::rejection::RawPathParamsRejection>(_) => {
                        Refusal::malformed("The path is not valid UTF-8.").respond(None)
                    }
                }
            };
            methods = methods.on(filter(&operation.method()), handler);
        }
        router = router.route(path, methods.fallback(no_method));
    }
    router.fallback(no_path).with_state(app)
}

fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE)
}

async fn no_method() -> Response {
    Refusal::new(405, "method-not-allowed", "The path does not have this method.").respond(None)
}

async fn no_path() -> Response {
    Refusal::not_found("path").respond(None)
}

async fn serve(app: App, operation: Operation, params: Vec<(String, String)>, request: Request) -> Response {
    let fault = app.faults.admit(operation, request.method(), request.uri().path()).await;
    if let Some(fault) = fault.as_ref().filter(|fault| !fault.runs_the_operation()) {
        return fault.respond();
    }
    let turn = if operation == Operation::ListChanges {
        // Long polls wait without doing anything, so they do not count.
        None
    } else {
        match tokio::time::timeout(TURN_PATIENCE, Arc::clone(&app.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Some(turn),
            _ => return Refusal::new(503, "unavailable", "The server is full.").retry_after(1).respond(None),
        }
    };
    let limits = app.config.requests_per_second;
    let (mut response, quota) = answer(&app, operation, params, request).await;
    drop(turn);
    if let (Some(limit), Some(quota)) = (limits, quota) {
        super::limits::describe(response.headers_mut(), limit, quota);
    }
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    match fault {
        Some(fault) => fault.distort(response).await,
        None => response,
    }
}

async fn answer(
    app: &App,
    operation: Operation,
    params: Vec<(String, String)>,
    request: Request,
) -> (Response, Option<super::limits::Quota>) {
    let (call, body) = match prepare(app, operation, params, request) {
        Ok(prepared) => prepared,
        Err(refusal) => return (refusal.respond(None), None),
    };
    let quota = match app.limits.take(call.client_id()) {
        Ok(quota) => quota,
        Err(quota) => {
            let refusal = Refusal::new(429, "rate-limited", "The client sends too many requests.").retry_after(quota.reset);
            return (refusal.respond(None), Some(quota));
        }
    };
    let reply = run(app, call, body).await;
    (reply.respond(), Some(quota))
}

async fn run(app: &App, mut call: Call, body: Body) -> Reply {
    let body = if call.operation.streams() {
        body
    } else {
        if call.operation.is_mutating() {
            // Strangers send no bodies: the token is judged before a byte is read.
            if let Err(refusal) = app.admit_scope(&call) {
                return app.refused(call, refusal).await;
            }
            match collect(&call.headers, body).await {
                Ok(bytes) => call.body = bytes,
                Err(refusal) => return refusal.into(),
            }
        }
        Body::empty()
    };
    match routes::run(call.operation) {
        Run::Read(handler) => app.read(call, handler).await,
        Run::Write(handler) => app.write(call, handler).await,
        Run::Wait(handler) => handler(app.clone(), call, body).await,
    }
}

fn prepare(
    app: &App,
    operation: Operation,
    params: Vec<(String, String)>,
    request: Request,
) -> Result<(Call, Body), Refusal> {
    let (parts, body) = request.into_parts();
    let body = if operation.streams() { lingering(body) } else { body };
    let target = parts.uri.path_and_query().map_or_else(|| parts.uri.path().to_owned(), |target| target.as_str().to_owned());
    let query = parse_query(operation, parts.uri.query().unwrap_or_default())?;
    let caller = caller(app, operation, &parts.headers)?;
    check_headers(&parts.headers)?;
    let ip = parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    let call = Call {
        operation,
        target,
        params,
        query,
        headers: parts.headers,
        body: Bytes::new(),
        caller,
        ip,
        now: app.config.clock.now(),
        public_url: Arc::clone(&app.public_url),
    };
    call.fence()?;
    Ok((call, body))
}

/// What the contract says about its headers, before anything else looks at them.
fn check_headers(sent: &HeaderMap) -> Result<(), Refusal> {
    for (name, most) in
        [("if-match", 4096), ("if-none-match", 4096), (headers::CAUSED_BY, 200), (headers::IDEMPOTENCY_KEY, 255)]
    {
        for value in sent.get_all(name) {
            let plain = value.to_str().is_ok_and(|text| {
                (name == headers::CAUSED_BY || !text.is_empty())
                    && text.len() <= most
                    && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            });
            if !plain {
                let detail = format!("The header {name} is plain text of at most {most} characters.");
                return Err(Refusal::malformed(detail).at(name, "Not plain text."));
            }
        }
    }
    Ok(())
}

fn parse_query(operation: Operation, query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut parsed: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        // `metadata[]` in the table stands for `metadata[<key>]`, one parameter per entry.
        let known = if name.starts_with("metadata[") && name.ends_with(']') { "metadata[]" } else { name.as_ref() };
        if !operation.query().contains(&known) {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(Refusal::new(400, "unknown-parameter", format!("The operation has no parameter `{shown}`."))
                .at(&shown, "Unknown."));
        }
        if parsed.iter().any(|(known, _)| *known == name) {
            return Err(Refusal::malformed(format!("`{name}` is given twice.")).at(&name, "Given twice."));
        }
        if value.contains('\0') || value.contains('\u{fffd}') {
            return Err(Refusal::malformed(format!("`{name}` is not plain text.")).at(&name, "Not plain text."));
        }
        parsed.push((name.into_owned(), value.into_owned()));
    }
    Ok(parsed)
}

fn caller(app: &App, operation: Operation, headers: &HeaderMap) -> Result<Caller, Refusal> {
    if operation.access() == Access::Open {
        return Ok(Caller::Nobody);
    }
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Caller::Nobody) };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let grant =
        token.filter(|_| !app.faults.tokens_are_rejected()).and_then(|token| app.tokens.find(token, app.config.clock.now()));
    let Some(grant) = grant else {
        return Err(Refusal::new(401, "unauthenticated", "The token is unknown or has expired.")
            .header(header::WWW_AUTHENTICATE, "Bearer realm=\"file360\", error=\"invalid_token\""));
    };
    let on_behalf_of = headers.get(ON_BEHALF_OF).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Caller::Client { id: grant.client, scopes: grant.scopes, on_behalf_of })
}

async fn collect(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let too_large = || Refusal::new(413, "too-large", "A JSON body has at most 1 MiB.");
    if declared.is_some_and(|length: usize| length > MAX_JSON) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_PATIENCE, axum::body::to_bytes(body, MAX_JSON)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(Refusal::new(408, "timeout", "The body did not arrive in time.")),
    }
}

impl App {
    /// Runs a handler on a snapshot.
    pub async fn read<F>(&self, call: Call, handler: F) -> Reply
    where
        F: FnOnce(&View<'_>) -> Result<Answer, Refusal> + Send + 'static,
    {
        let call = Arc::new(call);
        let seen = Arc::clone(&call);
        let read = move |db: &rusqlite::Connection| {
            let view = View::open(db, &seen)?;
            let outcome = handler(&view).and_then(|answer| view.insist().map(|()| answer));
            let revision = view.answered_revision(false);
            Ok((Reply { outcome, revision }, view.about()))
        };
        match self.store.read(read).await {
            Ok((Reply { outcome: Err(refusal), revision }, about)) if refusal.is_audited() => {
                self.record(call, refusal, about, revision).await
            }
            Ok((reply, _)) => reply,
            Err(refusal) if refusal.is_audited() => self.record(call, refusal, About::default(), None).await,
            Err(refusal) => refusal.into(),
        }
    }

    /// Runs a handler in a transaction. A success is durable when this returns.
    pub async fn write<F>(&self, call: Call, handler: F) -> Reply
    where
        F: FnOnce(&mut Tx<'_, '_, '_>) -> Result<Answer, Refusal> + Send + 'static,
    {
        match self.store.write(move |ledger| tx::perform(ledger, &call, handler)).await {
            Ok(ended) => Reply { outcome: ended.outcome, revision: ended.revision },
            Err(refusal) => refusal.into(),
        }
    }

    /// Whether the caller may call the operation, for operations without a target.
    pub fn admit(&self, call: &Call) -> Result<(), Refusal> {
        let principal = principal(call);
        authorize::authorize(&principal, call.operation, call.operation.effect(), &Target::default()).map(drop)
    }

    /// Whether token and scope let the caller call the operation at all.
    pub fn admit_scope(&self, call: &Call) -> Result<(), Refusal> {
        authorize::admit(&principal(call), call.operation)
    }

    /// Answers with a refusal, recording it where the audit feed wants it.
    pub async fn refused(&self, call: Call, refusal: Refusal) -> Reply {
        if refusal.is_audited() {
            return self.record(Arc::new(call), refusal, About::default(), None).await;
        }
        refusal.into()
    }

    /// Answers with a refusal of the request's form; whoever may not call at all hears that instead.
    pub async fn refused_unless_admitted(&self, call: Call, refusal: Refusal) -> Reply {
        match self.admit_scope(&call) {
            Ok(()) => self.refused(call, refusal).await,
            Err(stranger) => self.refused(call, stranger).await,
        }
    }

    async fn record(&self, call: Arc<Call>, refusal: Refusal, about: About, revision: Option<u64>) -> Reply {
        let recorded = self.store.write(move |ledger| {
            tx::record_refusal(ledger, &call, &refusal, about);
            refusal
        });
        match recorded.await {
            Ok(refusal) => Reply { outcome: Err(refusal), revision },
            Err(unavailable) => unavailable.into(),
        }
    }
}

fn principal(call: &Call) -> Principal<'_> {
    match &call.caller {
        Caller::Nobody => Principal::Nobody,
        Caller::Outsider { through, .. } => Principal::Outsider(*through),
        Caller::Server => Principal::Client { id: "file360", scopes: authorize::Scopes::all() },
        Caller::Client { scopes, on_behalf_of: Some(_), .. } => {
            Principal::Person { scopes: *scopes, role: None, guest: false }
        }
        Caller::Client { id, scopes, on_behalf_of: None } => Principal::Client { id, scopes: *scopes },
    }
}

/// The status of a response that a fault replaces.
pub fn replaced(status: StatusCode, retry_after: Option<u64>) -> Response {
    let refusal = Refusal::new(status.as_u16(), "injected-fault", "The fault switchboard answers.");
    match retry_after {
        Some(seconds) => refusal.retry_after(seconds),
        None => refusal,
    }
    .respond(None)
}

/// Whether a fault lets the operation run.
impl Fault {
    fn runs_the_operation(&self) -> bool {
        self.after_commit || self.truncate_body
    }
}
