//! One pass over a set: list, make and change, then remove.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use serde_json::Value;
use tokio::time::Instant;

use super::apply::{Refused, Writer};
use super::children::{self, Children, digest};
use crate::api::secure_workspace_set::{DEFAULT_MAX_REMOVALS, GeneratorStatus, ItemFailure, OnItemGone};
use crate::api::{SET_DATA, SecureWorkspace, SecureWorkspaceSet};
use crate::controllers::context::Context;
use crate::error::{Error, Result, clean};
use crate::outbound::http::{Fetched, Validators};
use crate::reconcile::{ObjectKey, backoff};
use crate::sets::child::{self, Child, Origin, Set};
use crate::sets::program::{self, Compiled, Listing, Program, Source};

/// Most items of one generator.
pub const MOST_ITEMS: usize = 10_000;
/// Most pages of one listing.
pub const MOST_PAGES: usize = 1000;
/// SecureWorkspaces of one set that are written at once.
const AT_ONCE: usize = 8;
/// Failures that are told.
const TOLD_FAILURES: usize = 20;
/// Removals that are told.
const TOLD_REMOVALS: usize = 50;
/// What the API server was asked too early is asked again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// A listing of which something could not be written is read again after this long.
const UNFINISHED_AGAIN: Duration = Duration::from_secs(5);
/// What the API server refused is tried again after this long, where no listing is read again anyway.
const REFUSED_AGAIN: Duration = Duration::from_mins(5);

/// What is kept of a set between its passes.
pub struct Run {
    /// Of this generation.
    pub generation: i64,
    /// Compiled.
    pub program: Arc<Program>,
    /// The listings, by generator.
    listed: HashMap<String, Listed>,
}

/// What is known of a listing.
#[derive(Default)]
struct Listed {
    pages: Vec<KnownPage>,
    /// How many items it had, whatever they are.
    seen: usize,
    /// Names of the SecureWorkspaces of its items.
    names: HashSet<u64>,
    /// Those of them that could not be made or changed, by key.
    failures: HashMap<String, (u64, String)>,
    /// Why it is not complete; also before the first time.
    incomplete: Option<String>,
    /// It came back empty, though it had items.
    is_empty: bool,
    /// Why it could not be read.
    error: Option<Error>,
    /// How often in a row.
    errors: u32,
    /// When it is read again.
    due: Option<Instant>,
    /// When it was read.
    read_at: Option<Instant>,
    /// Something could not be written at the moment.
    is_unfinished: bool,
}

impl Listed {
    /// Whether it was read, and what was refused then is not due again.
    fn is_recent(&self) -> bool {
        self.read_at.is_some_and(|at| self.failures.is_empty() || at.elapsed() < REFUSED_AGAIN)
    }
}

struct KnownPage {
    location: Option<String>,
    validators: Validators,
    names: Vec<u64>,
    next: Option<String>,
}

/// What a pass found out.
#[derive(Debug, Default)]
pub struct Findings {
    /// Items of all generators.
    pub items: u32,
    /// Those whose SecureWorkspace is ready.
    pub ready: u32,
    /// Those that failed.
    pub failed: u32,
    /// Some of them.
    pub failures: Vec<ItemFailure>,
    /// The generators.
    pub generators: Vec<GeneratorStatus>,
    /// A listing that could not be read: generator and failure.
    pub error: Option<(String, Error)>,
    /// A listing that is not complete: generator and why.
    pub incomplete: Option<(String, String)>,
    /// A listing that came back empty, though it had items.
    pub empty: Option<String>,
    /// Keys whose removal is blocked, with their number and the limit.
    pub blocked: Option<(Vec<String>, usize, usize)>,
    /// How many removals were begun.
    pub removed: usize,
    /// When to look again.
    pub again: Option<Duration>,
}

impl Run {
    /// Nothing is known yet.
    pub fn new(generation: i64, program: Arc<Program>) -> Self {
        Self { generation, program, listed: HashMap::new() }
    }

    /// Every listing is read as if for the first time.
    pub fn forget(&mut self) {
        for listed in self.listed.values_mut() {
            (listed.pages, listed.due, listed.read_at) = (Vec::new(), None, None);
        }
    }
}

/// One pass.
pub struct Pass<'a> {
    /// What all share.
    pub ctx: &'a Context,
    /// What is generated.
    pub children: &'a Children,
    /// The set.
    pub key: &'a ObjectKey,
    /// Its object.
    pub object: &'a SecureWorkspaceSet,
}

enum Plan {
    Nothing,
    /// It is as wanted; only not known to be.
    Settle,
    Make(Box<Child>),
    Change(Box<Child>, u64),
    Fail(String),
}

impl Pass<'_> {
    /// Runs it.
    pub async fn run(&self, run: &mut Run) -> Result<Findings> {
        let program = run.program.clone();
        for (at, generator) in program.generators.iter().enumerate() {
            let mut listed = run.listed.remove(&generator.id).unwrap_or_default();
            self.bring_up_to_date(&program, at, generator, &mut listed, run).await?;
            run.listed.insert(generator.id.clone(), listed);
        }
        let mut findings = self.count(&program, run);
        self.remove_gone(&program, run, &mut findings).await?;
        Ok(findings)
    }

    async fn bring_up_to_date(
        &self,
        program: &Program,
        at: usize,
        generator: &Compiled,
        listed: &mut Listed,
        run: &Run,
    ) -> Result<()> {
        let batch = Batch { pass: self, program, generator, at, run };
        match &generator.source {
            Source::Events(_) => self.repair_events(program, generator, listed).await,
            Source::List { items, key } => {
                let is_right = listed.is_recent() && !listed.is_unfinished;
                if !is_right || !self.is_settled(&batch, listed) {
                    *listed = Listed { read_at: Some(Instant::now()), ..Listed::default() };
                    let keyed = items.iter().map(|item| (program::key_of(key, item), item.clone())).collect();
                    batch.take(keyed, listed).await;
                }
                Ok(())
            }
            Source::Http(listing) => {
                let is_due = listed.due.is_none_or(|due| due <= Instant::now());
                let is_settled = self.is_settled(&batch, listed);
                // Whoever failed waits for its time; whoever did not repairs soon what others changed.
                let may_repair = !is_settled && listed.errors == 0;
                if is_due || (may_repair && listed.read_at.is_none_or(|at| at.elapsed() >= AGAIN)) {
                    let revalidates = is_settled && listed.failures.is_empty();
                    batch.read(listing, listed, revalidates).await;
                } else if may_repair {
                    listed.due = Some(Instant::now() + AGAIN);
                }
                Ok(())
            }
        }
    }

    /// Whether every item of the listing has its SecureWorkspace as it was left.
    fn is_settled(&self, batch: &Batch<'_>, listed: &Listed) -> bool {
        let id = &batch.generator.id;
        let mut there = HashSet::new();
        let mut settled = true;
        self.children.each(self.key, |name, child| {
            let name = digest(&name);
            there.insert(name);
            settled &= child.deleting || *child.generator != **id || !listed.names.contains(&name) || child.is_settled();
        });
        let failed: HashSet<u64> = listed.failures.values().map(|(name, _)| *name).collect();
        settled
            && listed
                .names
                .iter()
                .all(|name| there.contains(name) || failed.contains(name) || batch.is_listed_earlier(*name))
    }

    /// What events made is made anew from what stands on it, when the template or somebody else changed it.
    async fn repair_events(&self, program: &Program, generator: &Compiled, listed: &mut Listed) -> Result<()> {
        let mut names = HashSet::new();
        let mut wrong = Vec::new();
        self.children.each(self.key, |name, child| {
            if *child.generator != *generator.id {
                return;
            }
            names.insert(digest(&name));
            if child.settled.is_none() && *child.template == *program.fingerprint {
                child.settled = Some(child.live);
            }
            if !child.deleting && (!child.is_settled() || *child.template != *program.fingerprint) {
                wrong.push(name.to_owned());
            }
        });
        // What was refused a moment ago is not asked for with every pass.
        let (refused, read_at) = match listed.read_at {
            Some(at) if listed.is_recent() && !listed.failures.is_empty() => (std::mem::take(&mut listed.failures), at),
            _ => (HashMap::new(), Instant::now()),
        };
        *listed = Listed { names, read_at: Some(read_at), ..Listed::default() };
        for (key, (name, why)) in refused {
            let known = wrong.len();
            wrong.retain(|one| digest(&one.as_str()) != name);
            if wrong.len() < known {
                listed.failures.insert(key, (name, why));
            }
        }
        let writer = Writer::new(self.ctx, &self.key.namespace);
        for name in wrong {
            let Some(object) = writer.read(&name).await? else { continue };
            let key = object.annotations().get(crate::api::SET_ITEM).cloned().unwrap_or_default();
            let result = self.repair(program, generator, &object, &writer).await;
            match result {
                Ok(object) => self.children.settled(&object, 0),
                Err(Refused::Item(why)) => drop(listed.failures.insert(key, (digest(&name.as_str()), why))),
                Err(Refused::Stale) => listed.is_unfinished = true,
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    async fn repair(
        &self,
        program: &Program,
        generator: &Compiled,
        object: &SecureWorkspace,
        writer: &Writer<'_>,
    ) -> Result<SecureWorkspace, Refused> {
        let annotation = |name: &str| object.annotations().get(name).map(String::as_str);
        if !children::is_made_by(object, &self.key.name) || object.metadata.deletion_timestamp.is_some() {
            return Err(Refused::Stale);
        }
        let item: Value = annotation(SET_DATA)
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| Refused::Item("its item is gone from its annotations; send its event again".into()))?;
        let key = annotation(crate::api::SET_ITEM).unwrap_or_default();
        let origin =
            Origin { item: Some(&item), template: &program.fingerprint, events: annotation(crate::api::SET_EVENTS) };
        let child = program.child(self.set(), &generator.id, key, &item, Some(&origin)).map_err(Refused::Item)?;
        writer.change(&child, &object.resource_version().unwrap_or_default()).await
    }

    fn set(&self) -> Set<'_> {
        Set { namespace: &self.key.namespace, name: &self.key.name, connection: &self.object.spec.connection_ref }
    }

    fn count(&self, program: &Program, run: &Run) -> Findings {
        let mut findings = Findings::default();
        let mut names: HashMap<u64, bool> = HashMap::new();
        let mut there: HashMap<Box<str>, u32> = HashMap::new();
        let mut ready = HashSet::new();
        self.children.each(self.key, |name, child| {
            *there.entry(child.generator.clone()).or_default() += 1;
            let name = digest(&name);
            if child.ready && !child.deleting {
                ready.insert(name);
            }
            // Until a listing has been read, what is there counts for it.
            let of = program.generator(&child.generator).and_then(|generator| run.listed.get(&generator.id));
            if of.is_some_and(|listed| listed.names.is_empty() && listed.error.is_some()) {
                names.insert(name, true);
            }
        });
        for generator in &program.generators {
            let Some(listed) = run.listed.get(&generator.id) else { continue };
            names.extend(listed.names.iter().map(|name| (*name, true)));
            self.tell(generator, listed, &there, &mut findings);
        }
        findings.failures.sort();
        findings.failures.truncate(TOLD_FAILURES);
        findings.items = number(names.len());
        findings.ready = number(names.keys().filter(|name| ready.contains(*name)).count());
        findings
    }

    fn tell(&self, generator: &Compiled, listed: &Listed, there: &HashMap<Box<str>, u32>, findings: &mut Findings) {
        findings.failed += number(listed.failures.len());
        let failure =
            |(key, (_, why)): (&String, &(u64, String))| ItemFailure { key: clean(key, 512), message: clean(why, 400) };
        findings.failures.extend(listed.failures.iter().map(failure));
        let mut status = GeneratorStatus {
            name: generator.name.clone(),
            items: number(listed.names.len()),
            ..GeneratorStatus::default()
        };
        if listed.names.is_empty() && listed.error.is_some() {
            status.items = there.get(&*generator.id).copied().unwrap_or_default();
        }
        if let Source::Events(_) = generator.source {
            let declared = self.object.spec.generators.iter().find(|one| one.name == generator.name);
            let path = declared.and_then(|one| one.events.as_ref()).map(|events| events.path.as_str()).unwrap_or_default();
            status.url = self.ctx.public_url.as_ref().map(|url| url.events(&self.key.namespace, path));
        }
        if let Some(error) = &listed.error {
            status.message = Some(clean(&error.to_string(), 400));
            findings.error.get_or_insert_with(|| (generator.name.clone(), error.clone()));
        } else if listed.is_empty {
            status.message = Some("the listing is empty, though it had items".into());
            if self.object.spec.on_item_gone.unwrap_or_default() != OnItemGone::Keep {
                findings.empty.get_or_insert_with(|| generator.name.clone());
            }
        } else if let Some(why) = &listed.incomplete {
            status.message = Some(clean(why, 400));
            findings.incomplete.get_or_insert_with(|| (generator.name.clone(), why.clone()));
        }
        if let (Source::Http(_), Some(due)) = (&generator.source, listed.due) {
            let wait = due.saturating_duration_since(Instant::now());
            findings.again = Some(findings.again.map_or(wait, |again| again.min(wait)));
        }
        let wait = match &generator.source {
            _ if listed.is_unfinished => Some(backoff::jittered(AGAIN)),
            // The API server may think otherwise by then.
            Source::List { .. } | Source::Events(_) if !listed.failures.is_empty() => Some(backoff::jittered(REFUSED_AGAIN)),
            _ => None,
        };
        if let Some(wait) = wait {
            findings.again = Some(findings.again.map_or(wait, |again| again.min(wait)));
        }
        findings.generators.push(status);
    }

    /// C5: only what a complete listing does not have is gone, and only so many at once (C7).
    async fn remove_gone(&self, program: &Program, run: &mut Run, findings: &mut Findings) -> Result<()> {
        let how = self.object.spec.on_item_gone.unwrap_or_default();
        if how == OnItemGone::Keep {
            return Ok(());
        }
        let gone = self.gone(program, run);
        let max = self.object.spec.max_removals.unwrap_or(DEFAULT_MAX_REMOVALS) as usize;
        if gone.len() > max {
            let mut keys: Vec<String> = gone.iter().map(|(_, _, key)| clean(key, 512)).collect();
            keys.sort();
            keys.truncate(TOLD_REMOVALS);
            findings.blocked = Some((keys, gone.len(), max));
            return Ok(());
        }
        let writer = Writer::new(self.ctx, &self.key.namespace);
        for (name, uid, _) in gone {
            if writer.remove(&self.key.name, &name, &uid, how == OnItemGone::Archive).await? {
                self.children.with(&ObjectKey::new(&self.key.namespace, &name), |child| child.deleting = true);
                self.ctx.metrics.set_child("removed");
                findings.removed += 1;
            } else {
                findings.again = Some(AGAIN.min(findings.again.unwrap_or(AGAIN)));
            }
        }
        Ok(())
    }

    /// Name, uid and key of what no complete listing has any more.
    fn gone(&self, program: &Program, run: &Run) -> Vec<(String, String, String)> {
        let is_complete = |listed: &Listed| listed.incomplete.is_none() && listed.error.is_none() && !listed.is_empty;
        let listing = || program.generators.iter().filter(|generator| generator.lists());
        let of = |generator: &Compiled| run.listed.get(&generator.id);
        let all_complete = listing().all(|generator| of(generator).is_some_and(is_complete));
        let mut gone = Vec::new();
        self.children.each(self.key, |name, child| {
            let hash = digest(&name);
            if child.deleting || child.generator.starts_with("events/") || child.generator.is_empty() {
                return;
            }
            if run.listed.values().any(|listed| listed.names.contains(&hash)) {
                return;
            }
            let is_known_to_be_gone = match program.generator(&child.generator) {
                Some(generator) => of(generator).is_some_and(is_complete),
                // Of a generator that is not there any more: another one may still have the item.
                None => all_complete,
            };
            if is_known_to_be_gone {
                gone.push((name.to_owned(), child.uid.to_string(), child.key.to_string()));
            }
        });
        gone
    }
}

/// The items of one generator, some at a time.
struct Batch<'a> {
    pass: &'a Pass<'a>,
    program: &'a Program,
    generator: &'a Compiled,
    /// Its place among the generators.
    at: usize,
    /// The listings of the generators before it.
    run: &'a Run,
}

impl Batch<'_> {
    /// Reads a listing, page by page, and brings the workspaces of each page up to date before the next. What is wrong ends it, and says so.
    async fn read(&self, listing: &Listing, listed: &mut Listed, revalidates: bool) {
        let known = std::mem::take(&mut listed.pages);
        let now = Instant::now();
        let mut next = Listed { due: Some(now + backoff::jittered(listing.every)), read_at: Some(now), ..Listed::default() };
        let failure = self.walk(listing, &known, revalidates, &mut next).await.err();
        if let Some(error) = failure {
            next.errors = listed.errors.saturating_add(1);
            let wait = backoff::delay(next.errors, rand::random()).max(error.retry_after.unwrap_or_default());
            next.due = Some(Instant::now() + wait);
            next.incomplete = Some(error.to_string());
            next.error = Some(error);
            // What it had before, it may still have.
            next.names.extend(&listed.names);
            next.pages.clear();
        } else if next.is_unfinished {
            next.due = Some(Instant::now() + backoff::jittered(UNFINISHED_AGAIN));
        } else if next.names.is_empty() && next.failures.is_empty() && self.has_children() {
            next.is_empty = true;
        }
        self.pass.ctx.metrics.set_listing(match (&next.error, &next.incomplete) {
            (Some(error), _) => error.kind.as_str(),
            (None, Some(_)) => "incomplete",
            (None, None) if next.is_empty => "empty",
            (None, None) => "complete",
        });
        *listed = next;
    }

    async fn walk(&self, listing: &Listing, known: &[KnownPage], revalidates: bool, next: &mut Listed) -> Result<()> {
        let mut location: Option<String> = None;
        let mut visited = HashSet::new();
        loop {
            let at = next.pages.len();
            if at == MOST_PAGES {
                next.incomplete = Some(format!("the listing has more than {MOST_PAGES} pages"));
                return Ok(());
            }
            let url = listing.target.page(location.as_deref())?;
            if !visited.insert(url.to_string()) {
                next.incomplete = Some("a page of the listing names one that was read already".into());
                return Ok(());
            }
            let before = known.get(at).filter(|page| revalidates && page.location == location);
            let page = match (listing.target.fetch(&url, before.map(|page| &page.validators)).await?, before) {
                (Fetched::Page(answer), _) => {
                    answer.body()?;
                    let page = listing.page(&answer.variable());
                    let page = page.map_err(|why| Error::new(crate::error::Kind::Malformed, why))?;
                    let room = MOST_ITEMS.saturating_sub(next.seen);
                    if page.items.len() > room {
                        next.incomplete = Some(format!("the listing has more than {MOST_ITEMS} items"));
                    }
                    let items = page.items.into_iter().take(room);
                    let keyed = items.map(|item| match item {
                        Ok(item) => (listing.key(&item), item),
                        Err(why) => (Err(why), Value::Null),
                    });
                    let keyed = keyed.collect();
                    let names = self.take(keyed, next).await;
                    KnownPage { location: location.clone(), validators: Validators::of(&answer), names, next: page.next }
                }
                (Fetched::Unchanged, Some(before)) => {
                    next.names.extend(&before.names);
                    next.seen += before.names.len();
                    KnownPage {
                        location: location.clone(),
                        validators: before.validators.clone(),
                        names: before.names.clone(),
                        next: before.next.clone(),
                    }
                }
                (Fetched::Unchanged, None) => return Ok(()),
            };
            location.clone_from(&page.next);
            next.pages.push(page);
            if location.is_none() || next.seen >= MOST_ITEMS {
                if location.is_some() {
                    next.incomplete = Some(format!("the listing has more than {MOST_ITEMS} items"));
                }
                return Ok(());
            }
        }
    }

    fn has_children(&self) -> bool {
        let mut found = false;
        self.pass
            .children
            .each(self.pass.key, |_, child| found |= *child.generator == *self.generator.id && !child.deleting);
        found
    }

    /// Brings the workspaces of some items up to date; one that is refused stops no other. Returns the names that they have.
    async fn take(&self, items: Vec<(Result<String, String>, Value)>, listed: &mut Listed) -> Vec<u64> {
        let mut names = Vec::with_capacity(items.len());
        let mut work = Vec::new();
        for (key, item) in items {
            listed.seen += 1;
            let key = match key {
                Ok(key) => key,
                Err(why) => {
                    // Whose item it is cannot be said, so nobody's absence can.
                    listed.incomplete = Some(format!("items have no key: {why}"));
                    listed.failures.insert(format!("item {} of the listing", listed.seen), (0, why));
                    continue;
                }
            };
            let hash = digest(&child::name(&self.pass.key.name, &key).as_str());
            if !listed.names.insert(hash) {
                listed.failures.insert(key, (hash, "the key stands in the listing twice, or two keys have one name".into()));
                continue;
            }
            names.push(hash);
            work.push((key, item, hash));
        }
        let writer = Writer::new(self.pass.ctx, &self.pass.key.namespace);
        let results = futures::stream::iter(work).map(|(key, item, hash)| {
            let writer = &writer;
            async move {
                let result = self.bring(writer, &key, &item).await;
                (key, hash, result)
            }
        });
        let mut results = std::pin::pin!(results.buffer_unordered(AT_ONCE));
        while let Some((key, hash, result)) = results.next().await {
            match result {
                Ok(()) => {}
                Err(Refused::Item(why)) => drop(listed.failures.insert(key, (hash, why))),
                Err(Refused::Stale) => listed.is_unfinished = true,
                Err(Refused::Failed(error)) => {
                    listed.is_unfinished = true;
                    listed.failures.insert(key, (hash, error.to_string()));
                }
            }
        }
        names
    }

    async fn bring(&self, writer: &Writer<'_>, key: &str, item: &Value) -> Result<(), Refused> {
        let made_of = digest(&(&self.program.fingerprint, &self.generator.id, item));
        let set = &self.pass.key.name;
        let name = child::name(set, key);
        let (written, outcome) = match self.plan(&name, key, item, made_of) {
            Plan::Nothing => return Ok(()),
            Plan::Fail(why) => return Err(Refused::Item(why)),
            Plan::Settle => {
                self.pass.children.with(&ObjectKey::new(&self.pass.key.namespace, &name), |child| {
                    child.settled = Some(child.live);
                    child.made_of = made_of;
                });
                return Ok(());
            }
            Plan::Make(child) => (writer.make(set, &child).await, "created"),
            Plan::Change(child, version) => {
                let changed = match writer.change(&child, &version.to_string()).await {
                    // Its status moved on, for example.
                    Err(Refused::Stale) => writer.make(set, &child).await,
                    changed => changed,
                };
                (changed, "changed")
            }
        };
        match written {
            Ok(object) => {
                self.pass.children.settled(&object, made_of);
                self.pass.ctx.metrics.set_child(outcome);
                Ok(())
            }
            Err(why) => {
                self.pass.ctx.metrics.set_child(why.outcome());
                Err(why)
            }
        }
    }

    fn plan(&self, name: &str, key: &str, item: &Value, made_of: u64) -> Plan {
        let pass = self.pass;
        let known = pass.children.get(pass.key, name);
        if let Some(known) = &known {
            if !known.is_made_by(&pass.key.name, name) {
                return Plan::Fail(format!("SecureWorkspace {name} exists and belongs to somebody else"));
            }
            if *known.key != *key {
                return Plan::Fail(format!("its name {name} belongs to the key {}", known.key));
            }
            if known.deleting || (known.made_of == made_of && known.is_settled()) {
                return Plan::Nothing;
            }
            if self.belongs_to_an_earlier_one(&known.generator) {
                return Plan::Nothing;
            }
        }
        if self.is_listed_earlier(digest(&name)) {
            return Plan::Nothing;
        }
        let events = known.as_ref().and_then(|known| known.events.as_deref());
        let origin = Origin { item: None, template: "", events };
        let child = match self.program.child(pass.set(), &self.generator.id, key, item, Some(&origin)) {
            Ok(child) => child,
            Err(why) => return Plan::Fail(why),
        };
        match known {
            None => Plan::Make(Box::new(child)),
            Some(known)
                if known.settled.is_none() && *known.applied == *child.applied && live(&child) == Some(known.live) =>
            {
                Plan::Settle
            }
            Some(known) => Plan::Change(Box::new(child), known.version),
        }
    }

    /// Whether a listing before this one has the item.
    fn is_listed_earlier(&self, name: u64) -> bool {
        let earlier = self.program.generators.iter().take(self.at).filter(|earlier| earlier.lists());
        earlier.filter_map(|earlier| self.run.listed.get(&earlier.id)).any(|listed| listed.names.contains(&name))
    }

    /// Whether a generator that comes first has the item, as far as is known.
    fn belongs_to_an_earlier_one(&self, generator: &str) -> bool {
        let place = self.program.generators.iter().position(|one| one.id == generator && one.lists());
        let listed = self.run.listed.get(generator);
        // A listing that was read and does not have it, does not have it.
        place.is_some_and(|place| place < self.at) && listed.is_none_or(|listed| listed.error.is_some())
    }
}

/// What a SecureWorkspace would be if it were as the manifest says, and nobody had added anything.
fn live(child: &Child) -> Option<u64> {
    let object: SecureWorkspace = serde_json::from_value(child.manifest.clone()).ok()?;
    Some(digest(&(&object.spec, object.labels())))
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
