//! What a handler works with: a snapshot that it reads ([`View`]), or a transaction in which it takes effect ([`Tx`]).
//!
//! Both know the caller and insist that `authorize` was asked: an effect that did not pass it is not committed, and an
//! answer that did not pass it is not sent.

use std::cell::{Cell, RefCell};
use std::ops::Deref;

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::audit::{self, Outcome, Record};
use super::authorize::{self, Effect, Permit, Principal, Target};
use super::call::{Answer, Call, Caller, Payload};
use super::names;
use super::operation::{Operation, Repeat};
use super::records::items::Placed;
use super::records::people::{self, Person};
use super::refusal::Refusal;
use super::store::writer::Ledger;
use super::tail::Entry;
use crate::file360::model::{Actor, Change, ChangeKind, PrincipalKind, headers};

/// How long answers to keyed calls are kept.
const ANSWERS_KEPT_MS: i64 = 24 * 3600 * 1000;

/// How the server calls itself in the feeds.
pub const SERVER: &str = "file360";

/// A snapshot, as one caller sees it.
pub struct View<'a> {
    /// The database.
    pub db: &'a Connection,
    /// The request.
    pub call: &'a Call,
    /// The time of the call.
    pub now: Timestamp,
    /// Who acts.
    pub actor: Actor,
    /// The person for whom a client calls.
    pub person: Option<Person>,
    permitted: Cell<bool>,
    loaded_revision: Cell<Option<u64>>,
    revision: Cell<Option<u64>>,
    about: RefCell<About>,
}

/// What a call is about, for the audit feed.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The workspace.
    pub workspace_id: Option<String>,
    /// The item.
    pub item_id: Option<String>,
    /// Its path, or the path of a grant.
    pub path: Option<String>,
    /// Version of a file.
    pub version: Option<u64>,
    /// A principal, link, request, hold or key.
    pub subject: Option<String>,
}

impl<'a> View<'a> {
    /// Resolves the caller and checks token and scope.
    pub fn open(db: &'a Connection, call: &'a Call) -> Result<Self, Refusal> {
        let (actor, person) = resolve(db, call)?;
        let view = Self {
            db,
            call,
            now: call.now,
            actor,
            person,
            permitted: Cell::new(false),
            loaded_revision: Cell::new(None),
            revision: Cell::new(None),
            about: RefCell::default(),
        };
        authorize::admit(&view.principal(None), call.operation)?;
        Ok(view)
    }

    /// The caller, as `authorize` sees it, with the person's role at the target.
    pub fn principal(&self, role: Option<crate::file360::model::Role>) -> Principal<'_> {
        match (&self.call.caller, &self.person) {
            (Caller::Nobody, _) => Principal::Nobody,
            (Caller::Server, _) => Principal::Client { id: SERVER, scopes: authorize::Scopes::all() },
            (Caller::Outsider { through, .. }, _) => Principal::Outsider(*through),
            (Caller::Client { scopes, .. }, Some(person)) => {
                Principal::Person { scopes: *scopes, role, guest: person.kind == PrincipalKind::Guest }
            }
            (Caller::Client { id, scopes, .. }, None) => Principal::Client { id, scopes: *scopes },
        }
    }

    /// Asks `authorize` about the operation of this call.
    pub fn authorize(&self, role: Option<crate::file360::model::Role>, target: &Target<'_>) -> Result<Permit, Refusal> {
        self.authorize_as(self.call.operation.effect(), role, target)
    }

    /// Asks `authorize` about one of several effects of this call.
    pub fn authorize_as(
        &self,
        effect: Effect,
        role: Option<crate::file360::model::Role>,
        target: &Target<'_>,
    ) -> Result<Permit, Refusal> {
        let permit = authorize::authorize(&self.principal(role), self.call.operation, effect, target)?;
        self.permitted.set(true);
        Ok(permit)
    }

    /// Token and scope have been judged (when the view was opened); a batch asks `authorize` again for each of its targets.
    pub fn admitted(&self) -> Result<(), Refusal> {
        authorize::admit(&self.principal(None), self.call.operation)?;
        self.permitted.set(true);
        Ok(())
    }

    /// Asks `authorize` about an operation without a target.
    pub fn authorize_alone(&self) -> Result<(), Refusal> {
        self.authorize(None, &Target::default()).map(drop)
    }

    /// Notes which workspace the answer is about.
    pub fn concerns(&self, revision: u64) {
        self.loaded_revision.set(Some(revision));
        self.revision.set(Some(revision));
    }

    /// Notes what the call is about, for the audit feed.
    pub fn note(&self, change: impl FnOnce(&mut About)) {
        change(&mut self.about.borrow_mut());
    }

    /// What the call is about so far.
    pub fn about(&self) -> About {
        self.about.borrow().clone()
    }

    /// The revision for the answer's header.
    pub fn answered_revision(&self, refused: bool) -> Option<u64> {
        if refused { self.loaded_revision.get() } else { self.revision.get() }
    }

    /// Refuses an answer that did not pass `authorize`.
    pub fn insist(&self) -> Result<(), Refusal> {
        if self.permitted.get() {
            return Ok(());
        }
        tracing::error!(operation = self.call.operation.id(), "an operation did not ask authorize");
        Err(Refusal::new(500, "internal", "The operation is not available."))
    }
}

fn resolve(db: &Connection, call: &Call) -> Result<(Actor, Option<Person>), Refusal> {
    match &call.caller {
        Caller::Nobody => {
            Ok((Actor { kind: PrincipalKind::Guest, id: None, name: String::new(), email_verified: false }, None))
        }
        Caller::Server => {
            Ok((Actor { kind: PrincipalKind::Client, id: None, name: SERVER.to_owned(), email_verified: false }, None))
        }
        Caller::Outsider { email, verified, .. } => {
            let name = email.clone().unwrap_or_default();
            Ok((Actor { kind: PrincipalKind::Guest, id: None, name, email_verified: *verified }, None))
        }
        Caller::Client { id, on_behalf_of: None, .. } => {
            Ok((Actor { kind: PrincipalKind::Client, id: Some(id.clone()), name: id.clone(), email_verified: false }, None))
        }
        Caller::Client { on_behalf_of: Some(person), .. } => {
            if !call.has_scope(super::operation::Scope::Admin) {
                return Err(Refusal::new(403, "insufficient-scope", "On-Behalf-Of needs the scope `admin`.").audited());
            }
            let person =
                people::person(db, person)?.ok_or_else(|| Refusal::new(403, "forbidden", "On-Behalf-Of names nobody."))?;
            let actor =
                Actor { kind: person.kind, id: Some(person.id.clone()), name: person.name.clone(), email_verified: false };
            Ok((actor, Some(person)))
        }
    }
}

/// A transaction in which one call takes effect.
pub struct Tx<'a, 'l, 'c> {
    view: View<'a>,
    ledger: &'l mut Ledger<'c>,
    effects: u32,
    details: Option<serde_json::Value>,
}

impl<'a> Deref for Tx<'a, '_, '_> {
    type Target = View<'a>;

    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

/// What becomes of a call: its answer, and the revision of the workspace it is about.
pub struct Ended {
    /// Answer or refusal.
    pub outcome: Result<Answer, Refusal>,
    /// For the header.
    pub revision: Option<u64>,
}

/// Runs a handler that takes effect: idempotency, fencing, the handler, its audit event, all in one savepoint. The audit
/// event of a refusal is kept although the effect is not.
pub fn perform<F>(ledger: &mut Ledger<'_>, call: &Call, handler: F) -> Ended
where
    F: FnOnce(&mut Tx<'_, '_, '_>) -> Result<Answer, Refusal>,
{
    let mut revision = None;
    let mut about = About::default();
    let outcome = ledger.atomically(|ledger| {
        let db = ledger.db;
        let view = View::open(db, call)?;
        let mut tx = Tx { view, ledger, effects: 0, details: None };
        let outcome = tx.run(handler);
        revision = tx.answered_revision(outcome.is_err());
        about = tx.about();
        outcome
    });
    if let Err(refusal) = &outcome
        && refusal.is_audited()
    {
        record_refusal(ledger, call, refusal, about);
    }
    Ended { outcome, revision }
}

/// Records a refusal in a savepoint of its own.
pub fn record_refusal(ledger: &mut Ledger<'_>, call: &Call, refusal: &Refusal, about: About) {
    let unresolved = || Actor {
        kind: PrincipalKind::Client,
        id: Some(call.client_id().to_owned()),
        name: call.client_id().to_owned(),
        email_verified: false,
    };
    let actor = resolve(ledger.db, call).map_or_else(|_| unresolved(), |(actor, _)| actor);
    let recorded = ledger.atomically(|ledger| {
        let record = Record { actor, about, outcome: Outcome::Refused, code: Some(refusal.code()), details: None };
        audit::append(ledger, call, &record)
    });
    if let Err(error) = recorded {
        tracing::error!(%error, "a refusal could not be recorded");
    }
}

impl<'a> Tx<'a, '_, '_> {
    fn run<F>(&mut self, handler: F) -> Result<Answer, Refusal>
    where
        F: FnOnce(&mut Self) -> Result<Answer, Refusal>,
    {
        let call = self.call;
        let key = self.idempotency_key()?;
        if let Some(key) = key
            && let Some(answer) = self.replay(key)?
        {
            return Ok(answer);
        }
        self.check_fence()?;
        let answer = handler(self)?;
        self.insist()?;
        if self.effects > 0 {
            let (actor, about) = (self.actor.clone(), self.about());
            let details = self.details.take();
            audit::append(self.ledger, call, &Record { actor, about, outcome: Outcome::Success, code: None, details })?;
        }
        if let Some(key) = key {
            self.remember(key, &answer)?;
        }
        Ok(answer)
    }

    fn idempotency_key(&self) -> Result<Option<&'a str>, Refusal> {
        let call: &'a Call = self.call;
        let key = call.header(headers::IDEMPOTENCY_KEY);
        if matches!(call.caller, Caller::Server) {
            return Ok(None);
        }
        match (call.operation.repeat(), key) {
            (Repeat::Natural, _) => Ok(None),
            (Repeat::Keyed, Some(key)) if (1..=255).contains(&key.len()) => Ok(Some(key)),
            (Repeat::Keyed, _) => Err(Refusal::new(
                400,
                "idempotency-key-required",
                "The call needs an Idempotency-Key of 1 to 255 characters.",
            )),
        }
    }

    fn replay(&self, key: &str) -> Result<Option<Answer>, Refusal> {
        let mut find = self.db.prepare_cached(
            "SELECT request, status, headers, body FROM answers WHERE client_id = ?1 AND key = ?2 AND expires_at > ?3",
        )?;
        let found = find
            .query_row(params![self.call.client_id(), key, self.now.as_millisecond()], |row| {
                Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, u16>(1)?, row.get::<_, String>(2)?, row.get::<_, Vec<u8>>(3)?))
            })
            .optional()?;
        let Some((request, status, kept, body)) = found else { return Ok(None) };
        if request != self.call.fingerprint() {
            return Err(Refusal::new(422, "idempotency-mismatch", "The Idempotency-Key was used for another request."));
        }
        let mut answer = Answer::empty(status).with(HeaderName::from_static(headers::IDEMPOTENCY_REPLAYED), "true");
        for (name, value) in serde_json::from_str::<Vec<(String, String)>>(&kept)? {
            match (HeaderName::try_from(name), value) {
                (Ok(name), value) if name == headers::WORKSPACE_REVISION => {
                    if let Ok(revision) = value.parse() {
                        self.concerns(revision);
                    }
                }
                (Ok(name), value) => answer = answer.with(name, &value),
                (Err(_), _) => {}
            }
        }
        if !body.is_empty() {
            answer.body = Payload::Json(body.into());
        }
        Ok(Some(answer))
    }

    /// Only successes are kept: a refused call had no effect, so a repeat is judged by the state it meets.
    fn remember(&self, key: &str, answer: &Answer) -> Result<(), Refusal> {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let mut kept: Vec<(String, String)> =
            answer.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        if let Some(revision) = self.answered_revision(false) {
            kept.push((headers::WORKSPACE_REVISION.to_owned(), revision.to_string()));
        }
        let body: &[u8] = if let Payload::Json(bytes) = &answer.body { bytes } else { &[] };
        let mut insert = self.db.prepare_cached(
            "INSERT OR REPLACE INTO answers (client_id, key, request, status, headers, body, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        insert.execute(params![
            self.call.client_id(),
            key,
            self.call.fingerprint(),
            answer.status.as_u16(),
            serde_json::to_string(&kept)?,
            body,
            self.now.as_millisecond() + ANSWERS_KEPT_MS
        ])?;
        Ok(())
    }

    fn check_fence(&self) -> Result<(), Refusal> {
        let Some(claim) = self.call.fence()? else { return Ok(()) };
        let mut find = self.db.prepare_cached("SELECT epoch FROM fences WHERE cluster_id = ?1 AND consumer = ?2")?;
        let epoch: Option<u64> = find.query_row([&claim.cluster, &claim.consumer], |row| row.get(0)).optional()?;
        match epoch {
            Some(epoch) if claim.epoch < epoch => {
                let detail = format!("The fence stands at epoch {epoch}; the call carries {}.", claim.epoch);
                Err(Refusal::new(412, "fenced", detail).audited())
            }
            _ => Ok(()),
        }
    }

    /// A new id.
    pub fn id(&self, kind: char) -> String {
        names::id(kind, self.now)
    }

    /// Says that the call had an effect, which the audit feed records.
    pub fn took_effect(&mut self) {
        self.effects += 1;
    }

    /// Adds to the audit event of this call.
    pub fn details(&mut self, details: serde_json::Value) {
        self.details = Some(details);
    }

    /// Advances the revision of a workspace by one: call it once per effective change.
    pub fn advance(&mut self, workspace_id: &str) -> Result<u64, Refusal> {
        let mut advance =
            self.db.prepare_cached("UPDATE workspaces SET revision = revision + 1 WHERE id = ?1 RETURNING revision")?;
        let revision = advance.query_row([workspace_id], |row| row.get(0))?;
        self.view.revision.set(Some(revision));
        self.effects += 1;
        Ok(revision)
    }

    /// Adds an entry to the change feed.
    pub fn announce(&mut self, news: News) -> Result<(), Refusal> {
        self.effects += 1;
        let (now, actor, caused_by) = (self.now, self.actor.clone(), self.call.caused_by());
        announce(self.ledger, now, actor, caused_by, news)
    }

    /// Advances the workspace and announces why.
    pub fn changed(&mut self, workspace_id: &str, kind: ChangeKind, news: News) -> Result<u64, Refusal> {
        let revision = self.advance(workspace_id)?;
        self.announce(News { kind, workspace_id: Some(workspace_id.to_owned()), revision: Some(revision), ..news })?;
        Ok(revision)
    }

    /// Records something beside the call's own audit event.
    pub fn record(&mut self, record: &Record<'_>) -> Result<(), Refusal> {
        audit::append(self.ledger, self.view.call, record)
    }

    /// The operation of this call.
    pub fn operation(&self) -> Operation {
        self.call.operation
    }
}

/// What a feed entry says beside time and actor.
#[derive(Clone, Debug)]
pub struct News {
    /// What happened.
    pub kind: ChangeKind,
    /// Which workspace.
    pub workspace_id: Option<String>,
    /// Its revision after the change.
    pub revision: Option<u64>,
    /// Which item, principal, link or request.
    pub subject: Option<String>,
    /// The item of a link, the folder of a grant or request.
    pub item_id: Option<String>,
    /// Path of the item or grant.
    pub path: Option<String>,
    /// File version.
    pub version: Option<u64>,
    /// Name of a facet.
    pub facet: Option<String>,
}

impl Default for News {
    fn default() -> Self {
        Self {
            kind: ChangeKind::Unknown,
            workspace_id: None,
            revision: None,
            subject: None,
            item_id: None,
            path: None,
            version: None,
            facet: None,
        }
    }
}

impl News {
    /// About one subject.
    pub fn about(subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..Self::default() }
    }

    /// At a path.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Where an item is, unless its name is not for everyone: a file without a released version.
    #[must_use]
    pub fn of(mut self, placed: &Placed) -> Self {
        self.workspace_id = Some(placed.item.workspace_id.clone());
        self.path = (!placed.item.is_pending()).then(|| placed.path());
        self
    }

    /// On an item, which the subject is not.
    #[must_use]
    pub fn on(mut self, item_id: impl Into<String>) -> Self {
        self.item_id = Some(item_id.into());
        self
    }
}

/// Whether an entry of this kind counts for [`Workspace::content_revision`](crate::file360::model::Workspace::content_revision).
fn is_about_a_file(kind: ChangeKind) -> bool {
    matches!(
        kind,
        ChangeKind::FileUploaded
            | ChangeKind::VersionAdded
            | ChangeKind::FileChanged
            | ChangeKind::FileDeleted
            | ChangeKind::FileRestored
            | ChangeKind::GovernanceChanged
            | ChangeKind::FacetChanged
    )
}

/// Appends an entry to the change feed. Its position is assigned here, in the transaction, so the feed has no holes.
pub fn announce(
    ledger: &mut Ledger<'_>,
    time: Timestamp,
    actor: Actor,
    caused_by: Option<String>,
    news: News,
) -> Result<(), Refusal> {
    let sequence = ledger.heads.change + 1;
    let change = Change {
        sequence,
        id: format!("c{sequence}-{:08x}", rand::random::<u32>()),
        time,
        kind: news.kind,
        workspace_id: news.workspace_id,
        revision: news.revision,
        subject: news.subject,
        item_id: news.item_id,
        path: news.path,
        version: news.version,
        facet: news.facet,
        actor,
        caused_by,
    };
    if let Some(workspace) = change.workspace_id.as_deref().filter(|_| is_about_a_file(change.kind)) {
        ledger
            .db
            .prepare_cached("UPDATE workspaces SET content_revision = content_revision + 1 WHERE id = ?1")?
            .execute([workspace])?;
    }
    let body = serde_json::to_string(&change)?;
    ledger.db.prepare_cached("INSERT INTO changes (sequence, time, body) VALUES (?1, ?2, ?3)")?.execute(params![
        sequence,
        time.as_millisecond(),
        body
    ])?;
    ledger.heads.change = sequence;
    ledger.entries.push(Entry { sequence, body: body.into() });
    Ok(())
}
