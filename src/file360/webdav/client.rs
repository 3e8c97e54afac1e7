//! The requests of RFC 4918 that the driver makes. A change made twice has the effect of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::multistatus::{self, Entry, Listing};
use super::place::Place;
use crate::error::{Error, Kind, Result, clean};
use crate::file360::exchange::{Answer, Arriving, Call, Leaving, Transport};

/// The properties that are asked for.
const WANTED: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><propfind xmlns=\"DAV:\"><prop><resourcetype/><getcontentlength/>\
    <getetag/><getcontenttype/><creationdate/><getlastmodified/></prop></propfind>";
const LOCK: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><lockinfo xmlns=\"DAV:\"><lockscope><exclusive/></lockscope>\
    <locktype><write/></locktype><owner>file360-operator</owner></lockinfo>";
/// A lock that nobody gives back ends after this long.
const LOCK_SECONDS: u32 = 15;
/// How long a lock that somebody else has is waited for, and how long between two tries.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// What a lock covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The resource alone.
    Zero,
    /// A collection with everything in it.
    Infinity,
}

/// What the server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The `Server` header.
    pub product: Option<String>,
    /// The compliance classes of the `DAV` header.
    pub classes: Vec<String>,
}

/// One WebDAV server.
pub struct Client {
    transport: Arc<Transport>,
    /// The server has locks (class 2).
    has_locks: AtomicBool,
}

/// A lock that is held. [`Client::unlock`] gives it back; else it ends by itself.
pub struct Lock {
    place: Address,
    /// `None`: the server has no locks.
    token: Option<HeaderValue>,
}

/// What a URL names.
#[derive(Clone)]
struct Address {
    place: Place,
    is_collection: bool,
}

/// A resource in a workspace that is the operator's own has a fixed name there; everything else is a place.
impl Client {
    /// Nothing is sent before the first call.
    pub fn new(transport: Arc<Transport>) -> Self {
        Self { transport, has_locks: AtomicBool::new(false) }
    }

    /// Whether the server has locks, as it said last.
    pub fn has_locks(&self) -> bool {
        self.has_locks.load(Ordering::Relaxed)
    }

    /// Asks the server what it is. One that does not speak WebDAV is [`Kind::Unsupported`].
    pub async fn options(&self) -> Result<Server> {
        let operation = "ask what the server can do";
        let answer = self.transport.call(Call::new(operation, Method::OPTIONS, Place::root().address(true))).await;
        let answer = answer.map_err(explained)?;
        let classes: Vec<String> = values(&answer, "dav")
            .flat_map(|line| line.split(',').map(|class| clean(class.trim(), 60)).collect::<Vec<_>>())
            .collect();
        if !classes.iter().any(|class| class == "1") {
            return Err(Error::new(
                Kind::Unsupported,
                "the endpoint does not speak WebDAV: its answer to OPTIONS has no DAV header with class 1; correct spec.endpoint",
            ));
        }
        self.has_locks.store(classes.iter().any(|class| class == "2"), Ordering::Relaxed);
        let product = values(&answer, "server").next().map(|product| clean(product, 200));
        Ok(Server { product, classes })
    }

    /// What is at a place; `None`: nothing.
    pub async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
        let operation = "look at an item";
        let found = match self.find(operation, place, "0", place.depth() == 0).await {
            // Some servers want collections asked for by their own address, with a slash at the end.
            Err(error) if error.code == "redirected" && place.depth() > 0 => self.find(operation, place, "0", true).await,
            found => found,
        };
        Ok(found?.map(|listing| listing.own))
    }

    /// A collection and what is directly in it; `None`: nothing is there.
    pub async fn list(&self, place: &Place) -> Result<Option<Listing>> {
        self.find("list a collection", place, "1", true).await
    }

    async fn find(
        &self,
        operation: &'static str,
        place: &Place,
        depth: &'static str,
        is_collection: bool,
    ) -> Result<Option<Listing>> {
        let mut call = Call::new(operation, method("PROPFIND")?, place.address(is_collection))
            .header(name("depth"), HeaderValue::from_static(depth))
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"));
        call.body = Some(Bytes::from_static(WANTED.as_bytes()));
        match self.transport.call(call).await {
            Ok(answer) => {
                let read = multistatus::read(&answer.body, place, self.transport.endpoint());
                read.map(Some).map_err(|error| error.while_doing(operation))
            }
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(explained(error)),
        }
    }

    /// Makes a collection, or leaves the one that is there: servers differ in whether they tell. Its parent must be there
    /// ([`Kind::Conflict`]). Some servers lock a place while they make something of it: one who asks meanwhile waits a moment.
    pub async fn make_collection(&self, place: &Place) -> Result<()> {
        let began = tokio::time::Instant::now();
        let mut orphaned = 0;
        loop {
            match self.try_make_collection(place).await {
                // Where a parent was made a moment ago, a server that remembers listings may not see it yet.
                Err(error) if is_orphaned(&error) && orphaned < 3 && self.has_parent(place).await => {
                    orphaned += 1;
                    tokio::time::sleep(LOCK_WAIT).await;
                }
                Err(error) if error.code == "locked" && began.elapsed() < LOCK_PATIENCE => {
                    tokio::time::sleep(LOCK_WAIT.mul_f64(0.5 + rand::random::<f64>())).await;
                }
                result => return result,
            }
        }
    }

    async fn has_parent(&self, place: &Place) -> bool {
        let Some(parent) = place.parent() else { return false };
        matches!(self.stat(&parent).await, Ok(Some(entry)) if entry.is_collection)
    }

    async fn try_make_collection(&self, place: &Place) -> Result<()> {
        let call = Call::new("make a collection", method("MKCOL")?, place.address(true)).mutating();
        match self.transport.call(call).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == "method-not-allowed" => match self.stat(place).await? {
                Some(entry) if entry.is_collection => Ok(()),
                Some(_) => Err(taken(place)),
                None => Err(explained(error)),
            },
            Err(error) => Err(explained(error)),
        }
    }

    /// Moves what is at `from` to `to`; whether it did: `false` when something is there already and it may not be replaced.
    pub async fn rename(&self, from: &Place, to: &Place, is_collection: bool, replace: bool) -> Result<bool> {
        let mut destination = self.transport.endpoint().clone();
        destination.set_path(&format!("{}{}", destination.path().trim_end_matches('/'), to.address(is_collection)));
        let destination = HeaderValue::from_str(destination.as_str())
            .map_err(|_| Error::new(Kind::Rejected, "the destination cannot be written into a header"))?;
        let call = Call::new("move an item", method("MOVE")?, from.address(is_collection))
            .header(name("destination"), destination)
            .header(name("overwrite"), HeaderValue::from_static(if replace { "T" } else { "F" }))
            .mutating();
        match self.transport.call(call).await {
            Ok(answer) => whole(&answer).map(|()| true),
            Err(error) if error.kind == Kind::Stale => Ok(false),
            // The reply may be lost, not the move: what is there now tells.
            Err(error) if error.is_outage() => match (self.stat(from).await, self.stat(to).await) {
                (Ok(None), Ok(Some(_))) => Ok(true),
                _ => Err(error),
            },
            Err(error) => Err(explained(error)),
        }
    }

    /// Removes what is at a place, a collection with everything in it; one that is gone is a success.
    pub async fn remove(&self, place: &Place, is_collection: bool, lock: Option<&Lock>) -> Result<()> {
        let call = Call::new("remove an item", Method::DELETE, place.address(is_collection)).mutating();
        match self.transport.call(under(call, lock)).await {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            result => whole(&result.map_err(explained)?),
        }
    }

    /// A small file, read whole; `None`: it is not there.
    pub async fn read(&self, place: &Place) -> Result<Option<Bytes>> {
        match self.transport.call(Call::new("read the workspace's marker", Method::GET, place.address(false))).await {
            Ok(answer) => Ok(Some(answer.body)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(explained(error)),
        }
    }

    /// Writes a small file whole. `is_new`: a server that honours conditions makes it only if it is not there.
    pub async fn write(&self, place: &Place, content: Bytes, is_new: bool, lock: &Lock) -> Result<()> {
        let mut call = Call::new("write the workspace's marker", Method::PUT, place.address(false))
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .mutating();
        // A lock on a resource that was not there has made it (RFC 4918, 7.3): then the condition would be wrong.
        call.create_only = is_new && lock.token.is_none();
        call.body = Some(content);
        self.transport.call(under(call, Some(lock))).await.map(|_| ()).map_err(explained)
    }

    /// The content of a file.
    pub async fn receive(&self, operation: &'static str, place: &Place) -> Result<Arriving> {
        self.transport.receive(Call::new(operation, Method::GET, place.address(false))).await.map_err(explained)
    }

    /// Stores content at a place that is nobody else's.
    pub async fn send(&self, operation: &'static str, place: &Place, content: Leaving) -> Result<()> {
        let call = Call::new(operation, Method::PUT, place.address(false)).mutating();
        self.transport.send_content(call, content).await.map(|_| ()).map_err(explained)
    }

    /// Keeps every other client that respects locks from changing a place. Waits a moment for one that is held. Where the server has no
    /// locks, nothing is held.
    pub async fn lock(&self, place: &Place, is_collection: bool, depth: Depth) -> Result<Lock> {
        let address = Address { place: place.clone(), is_collection };
        if !self.has_locks() {
            return Ok(Lock { place: address, token: None });
        }
        let began = tokio::time::Instant::now();
        loop {
            match self.try_lock(&address, depth).await {
                Err(error) if error.code == "locked" && began.elapsed() < LOCK_PATIENCE => {
                    tokio::time::sleep(LOCK_WAIT.mul_f64(0.5 + rand::random::<f64>())).await;
                }
                result => return result,
            }
        }
    }

    async fn try_lock(&self, address: &Address, depth: Depth) -> Result<Lock> {
        let depth = match depth {
            Depth::Zero => "0",
            Depth::Infinity => "infinity",
        };
        let timeout = HeaderValue::from_str(&format!("Second-{LOCK_SECONDS}"));
        let mut call = Call::new("lock an item", method("LOCK")?, address.place.address(address.is_collection))
            .header(name("depth"), HeaderValue::from_static(depth))
            .header(name("timeout"), timeout.unwrap_or(HeaderValue::from_static("Second-15")))
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"))
            .mutating();
        call.body = Some(Bytes::from_static(LOCK.as_bytes()));
        let answer = self.transport.call(call).await.map_err(explained)?;
        let token =
            answer.headers.get("lock-token").filter(|token| token.as_bytes().starts_with(b"<") && token.len() <= 512);
        let token = token.cloned().ok_or_else(|| Error::new(Kind::Malformed, "the answer to LOCK has no Lock-Token"))?;
        Ok(Lock { place: address.clone(), token: Some(token) })
    }

    /// Gives a lock back. One that cannot be given back ends by itself.
    pub async fn unlock(&self, lock: Lock) {
        let (Some(token), Ok(method)) = (lock.token, method("UNLOCK")) else { return };
        let call = Call::new("unlock an item", method, lock.place.place.address(lock.place.is_collection))
            .header(name("lock-token"), token)
            .mutating();
        if let Err(error) = self.transport.call(call).await
            && error.kind != Kind::NotFound
        {
            tracing::debug!(%error, seconds = LOCK_SECONDS, "A lock was not given back; it ends by itself");
        }
    }
}

/// The call under a lock.
fn under<'a>(call: Call<'a>, lock: Option<&Lock>) -> Call<'a> {
    let condition = lock.and_then(|lock| lock.token.as_ref()).and_then(|token| {
        let text = [b"(", token.as_bytes(), b")"].concat();
        HeaderValue::from_bytes(&text).ok()
    });
    match condition {
        Some(condition) => call.header(name("if"), condition),
        None => call,
    }
}

/// A change of a collection that some of its members resisted is answered with 207, and is no success.
fn whole(answer: &Answer) -> Result<()> {
    if answer.status == StatusCode::MULTI_STATUS {
        return Err(Error::new(
            Kind::Conflict,
            "the server did a part of it only; something in the collection is locked or protected",
        ));
    }
    Ok(())
}

/// The server says that there is no collection to make something in (RFC 4918, 9.3.1).
fn is_orphaned(error: &Error) -> bool {
    error.kind == Kind::Conflict && error.code.is_empty()
}

/// Something else than a collection is there.
pub fn taken(place: &Place) -> Error {
    let mut error = Error::new(Kind::Conflict, format!("something else is at {}", clean(&place.path(), 300)));
    error.code = "name-exists".into();
    error
}

/// The same failure with what people can do about it.
fn explained(error: Error) -> Error {
    let (why, kind) = match error.code.as_str() {
        "redirected" => {
            ("the server redirects; credentials follow no redirect: set spec.endpoint to the address itself", Kind::Rejected)
        }
        "insufficient-storage" => ("the server has no space left", Kind::Unavailable),
        "locked" => ("another client has locked it", Kind::Conflict),
        "unauthenticated" => {
            ("the server refused the credential (401); check the Secret that spec.auth names", Kind::Denied)
        }
        _ => return error,
    };
    let mut explained = Error::new(kind, why);
    explained.code.clone_from(&error.code);
    explained.retry_after = error.retry_after;
    explained
}

fn values<'a>(answer: &'a Answer, header: &str) -> impl Iterator<Item = &'a str> {
    answer.headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok())
}

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

fn method(text: &'static str) -> Result<Method> {
    Method::from_bytes(text.as_bytes()).map_err(|_| Error::new(Kind::Rejected, format!("{text} is no HTTP method")))
}
