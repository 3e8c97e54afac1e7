//! One pass over what is pending in a tenant.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use super::carry::refusal_key;
use super::register::{Entry, Register};
use super::thing::{Thing, list, read};
use super::{Found, Gates, SHOWN, Tenant};
use crate::api::Approval;
use crate::api::approval::{ApprovalDecision, ApprovalSpec, ApprovalSubject, Requester, SharedThing, SubjectKind};
use crate::api::common::ConnectionRef;
use crate::api::connection::{GrantScope, OrphanedGate};
use crate::api::file_route::FileEvent;
use crate::api::gate::TimeoutThen;
use crate::controllers::approval::tally::Made;
use crate::controllers::approval::{decision_of, is_carried_out, name_of, nobody_can_be_asked};
use crate::controllers::file_route::GatedRoute;
use crate::error::{Error, Kind, Result, clean};
use crate::expression::Variables;
use crate::file360::model::{Decision, ItemKind, Pending};
use crate::hex::hex;
use crate::reconcile::ObjectKey;
use crate::routes::gate::{Gate, ORPHANED};

/// Things that are looked at at once.
const AT_ONCE: usize = 8;
/// Looked at again this soon while something is not known yet.
const SOON: Duration = Duration::from_millis(200);

/// Everything that a pass looks at besides the pending things.
pub(super) struct View<'a> {
    pub connection: &'a ObjectKey,
    pub tenant: &'a Tenant,
    pub register: &'a Register,
    pub routes: HashMap<ObjectKey, GatedRoute>,
    pub now: Timestamp,
    /// Namespaces that have gates, and how far the Connection lets their routes reach; absent: not at all.
    reached: HashMap<String, GrantScope>,
    /// Workspaces that each of them declares.
    own: HashMap<String, HashSet<String>>,
    /// The newest pending version of each file.
    newest: HashMap<String, u64>,
}

/// What one route's gates make of a thing.
enum Verdict {
    /// They do not hold it, or it was approved.
    Let(Option<Arc<Approval>>),
    /// It waits: for a decision, or until more is known.
    Hold,
    /// It was decided otherwise.
    Refuse(Arc<Approval>),
}

impl Gates {
    /// Looks at everything that is pending; returns when to look again, if the clock says so.
    pub(super) async fn pass(&self, connection: &ObjectKey, tenant: &Tenant) -> Result<Option<Duration>> {
        if !self.approvals.is_listed() || !self.routes.is_listed() || !self.workspaces.is_listed() {
            return Ok(Some(SOON));
        }
        let register = self.register_of(connection, &tenant.session).await?;
        if register.is_empty() {
            self.report(connection, tenant, &Found::default());
            return Ok(None);
        }
        // Known before the listing: what is not in the listing is not pending any more.
        let known = self.approvals.all_where(|approval| {
            super::connection_of(&ObjectKey::of(approval), &approval.spec) == *connection && approval.spec.route.is_some()
        });
        let pending = list(&*tenant.session.driver).await?;
        tenant.refusals.keep(&pending.iter().map(refusal_key).collect());
        let mut view = self.view(connection, tenant, &register);
        for one in &pending {
            if let Some(version) = one.version {
                let newest = view.newest.entry(one.item_id.clone()).or_default();
                *newest = version.max(*newest);
            }
        }
        // Before anything is let through: what is opened now was looked at.
        let open = self.verify(&view).await;
        let mut failure = open.or(self.settle_gone(&view, &known, &pending).await);
        let (orphans, unsettled) = self.orphaned(&view, &pending).await;
        failure = failure.or(unsettled);
        let looks: Vec<BoxFuture<'_, Result<Vec<ObjectKey>>>> =
            pending.iter().map(|one| self.look(&view, one).boxed()).collect();
        let looks: Vec<Result<Vec<ObjectKey>>> = futures::stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        let mut found = Found { orphans, ..Found::default() };
        for look in looks {
            match look {
                Ok(holding) => holding.into_iter().for_each(|route| *found.awaiting.entry(route).or_default() += 1),
                // One that cannot be looked at keeps no other waiting (R5); it stays held.
                Err(error) => failure = Some(error),
            }
        }
        self.report(connection, tenant, &found);
        failure.map_or(Ok(tenant.refusals.next()), Err)
    }

    /// What a pass looks at.
    pub(super) fn view<'a>(&self, connection: &'a ObjectKey, tenant: &'a Tenant, register: &'a Register) -> View<'a> {
        let routes = self.routes.gated(connection).into_iter().map(|route| (route.key.clone(), route)).collect();
        let (mut reached, mut own) = (HashMap::new(), HashMap::new());
        let namespaces: HashSet<String> = register.all().into_iter().map(|(_, entry)| entry.namespace).collect();
        for namespace in namespaces {
            if let Some(scope) = self.routes.reached(&namespace, connection) {
                reached.insert(namespace.clone(), scope);
            }
            let declared = self.workspaces.declared(&namespace, connection);
            own.insert(namespace, declared.into_iter().map(|(_, workspace, _)| workspace).collect());
        }
        View { connection, tenant, register, routes, now: self.ctx.now(), reached, own, newest: HashMap::new() }
    }

    /// Looks at one thing: lets it through, refuses it, or says which routes hold it.
    async fn look(&self, view: &View<'_>, pending: &Pending) -> Result<Vec<ObjectKey>> {
        let Some(thing) = read(&*view.tenant.session.driver, pending).await? else { return Ok(Vec::new()) };
        // A gate that does not hold such things says nothing about this one, and lets nothing through that others hold.
        let mut entries = view.register.of(&pending.workspace_id, |entry| thing.is_held_by(entry));
        // One verdict for each route, whatever number of its gates is over the thing.
        entries.sort_by_key(|(_, entry)| (entry.key(), standing(view, entry)));
        entries.dedup_by_key(|(_, entry)| entry.key());
        if entries.is_empty() {
            // Somebody else's policy holds it: it is theirs to decide.
            return Ok(Vec::new());
        }
        let (mut holding, mut let_by, mut refused) = (Vec::new(), Vec::new(), None);
        for (_, entry) in &entries {
            match self.verdict(view, entry, &thing).await? {
                Verdict::Let(approval) => let_by.extend(approval),
                Verdict::Hold => holding.push(entry.key()),
                Verdict::Refuse(approval) => refused = Some(approval),
            }
        }
        let is_done = match refused {
            Some(approval) => self.conclude(view, &thing, &[approval], Decision::Reject).await?,
            None if holding.is_empty() => self.conclude(view, &thing, &let_by, Decision::Release).await?,
            None => return Ok(holding),
        };
        // What File 360 refuses to let through or to end is held on.
        Ok(if is_done { Vec::new() } else { entries.iter().map(|(_, entry)| entry.key()).collect() })
    }

    async fn verdict(&self, view: &View<'_>, entry: &Entry, thing: &Thing) -> Result<Verdict> {
        let spec = spec_of(view, entry, thing);
        let asked = asked_in(view, entry);
        let key = ObjectKey::new(asked, &name_of(&spec));
        let is_old = thing.pending.version.is_some_and(|version| view.newest.get(&thing.item.id) != Some(&version));
        if let Some(known) = self.approvals.get(&key) {
            return match decision_of(&known) {
                // What was held stays so until it is decided, whatever the rules say now (D3).
                None if is_old => Ok(Verdict::Refuse(self.supersede(view, &key, thing).await?)),
                None => Ok(Verdict::Hold),
                Some(ApprovalDecision::Approved) if !self.approvals.is_believed(&known).await => Ok(Verdict::Hold),
                Some(ApprovalDecision::Approved) => Ok(Verdict::Let(Some(known))),
                Some(_) => Ok(Verdict::Refuse(known)),
            };
        }
        let spec = match (standing(view, entry), view.routes.get(&entry.key())) {
            (Standing::Unknown, _) => return Ok(Verdict::Hold),
            (Standing::Declared, Some(route)) => match self.asked(view, route, thing, spec).await? {
                Asked::Yes(spec) => *spec,
                Asked::No => return Ok(Verdict::Let(None)),
                Asked::Unknown => return Ok(Verdict::Hold),
            },
            _ => ApprovalSpec {
                rule: ORPHANED.into(),
                min_approvals: Some(entry.min_approvals),
                separation_of_duties: Some(entry.separates),
                ..spec
            },
        };
        let made = self.approvals.ensure(asked, &spec).await;
        let made = match made {
            Err(error) if nobody_can_be_asked(&error) => {
                // It stays held, and the Connection lists the gate.
                debug!(object = %key, %error, "No Approval can be made");
                return Ok(Verdict::Hold);
            }
            other => other?,
        };
        match decision_of(&made) {
            None if is_old => Ok(Verdict::Refuse(self.supersede(view, &key, thing).await?)),
            _ => Ok(Verdict::Hold),
        }
    }

    /// A later version has come: this one is not decided about any more (A2).
    async fn supersede(&self, view: &View<'_>, key: &ObjectKey, thing: &Thing) -> Result<Arc<Approval>> {
        let newest = view.newest.get(&thing.item.id).copied().unwrap_or_default();
        let by = format!("version {newest}");
        self.approvals.decide(key, &Made { decision: ApprovalDecision::Superseded, by, reason: None }).await
    }

    /// Whether the rules of a route hold it back, and what is asked then.
    async fn asked(&self, view: &View<'_>, route: &GatedRoute, thing: &Thing, spec: ApprovalSpec) -> Result<Asked> {
        // Without its labels a workspace would be judged by rules that are not meant for it.
        let running = route.running.as_ref().filter(|running| running.scope.contains(&thing.item.workspace_id));
        let Some(running) = running else { return Ok(Asked::Unknown) };
        let compiled = &running.engine.route;
        let actions = thing.actions();
        let gate: Option<&Arc<Gate>> = if thing.item.kind == ItemKind::Folder {
            // What is in it may be anything: the first gate that holds such things holds it.
            compiled.gates.iter().flatten().find(|gate| gate.holds(&actions))
        } else if compiled.pattern.matches(&thing.item.path) {
            let variables = self.variables(view, route, thing).await?;
            match compiled.rules.decide(&variables) {
                Ok(verdict) => {
                    let gate = verdict.rule.and_then(|at| compiled.gates.get(at)?.as_ref());
                    gate.filter(|gate| gate.holds(&actions))
                }
                Err(failed) => {
                    debug!(route = %route.key, %failed, "A rule fails: what it may hold stays held");
                    return Ok(Asked::Unknown);
                }
            }
        } else {
            None
        };
        let Some(gate) = gate else { return Ok(Asked::No) };
        let timeout = gate.timeout.filter(|timeout| timeout.then == TimeoutThen::Reject);
        Ok(Asked::Yes(Box::new(ApprovalSpec {
            rule: gate.rule.clone(),
            policy_hash: gate.policy_hash.clone(),
            min_approvals: Some(gate.min_approvals),
            separation_of_duties: Some(gate.separates),
            expires_at: timeout.and_then(|timeout| view.now.checked_add(timeout.after).ok()),
            ttl_after_decision_seconds: gate.ttl.map(|ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)),
            ..spec
        })))
    }

    /// What the route's expressions see of it.
    pub(super) async fn variables(&self, view: &View<'_>, route: &GatedRoute, thing: &Thing) -> Result<Variables> {
        let Some(running) = &route.running else { return Err(Error::new(Kind::Unavailable, "the route does not run")) };
        let event = match &thing.pending {
            Pending { version: Some(1), .. } => FileEvent::Uploaded,
            Pending { version: Some(_), .. } => FileEvent::VersionAdded,
            Pending { delete: true, .. } => FileEvent::MetadataChanged,
            _ => FileEvent::Shared,
        };
        let actor = thing.pending.requested_by.as_ref().map(|by| by.name.clone()).unwrap_or_default();
        let facts = running.items.facts_of(thing.item.clone(), thing.version.as_ref(), event, actor).await?;
        Ok(facts.variables(view.now))
    }

    /// Notes which gates no route declares, asks whether they may be taken away, and takes those away that may. With the last failure: one
    /// gate that cannot be looked at keeps no other waiting (R5).
    async fn orphaned(&self, view: &View<'_>, pending: &[Pending]) -> (Vec<OrphanedGate>, Option<Error>) {
        let (mut shown, mut failure) = (Vec::new(), None);
        for (key, entry) in view.register.all() {
            match self.orphan(view, &key, &entry, pending).await {
                Ok(listed) => shown.extend(listed),
                Err(error) => {
                    warn!(route = %entry.key(), workspace = entry.workspace, %error, "A gate could not be looked at");
                    failure = Some(error);
                }
            }
        }
        shown.sort_by(|one, other| {
            (&one.route, &one.workspace_id, &one.path).cmp(&(&other.route, &other.workspace_id, &other.path))
        });
        shown.truncate(SHOWN);
        (shown, failure)
    }

    async fn orphan(&self, view: &View<'_>, key: &str, entry: &Entry, pending: &[Pending]) -> Result<Option<OrphanedGate>> {
        let tenant = &*view.tenant.session.driver;
        match standing(view, entry) {
            Standing::Unknown => return Ok(None),
            Standing::Declared => {
                if let Some(since) = entry.orphaned_at {
                    self.reclaimed(view, entry, since).await?;
                    view.register.orphan(tenant, key, None).await?;
                }
                return Ok(None);
            }
            Standing::Orphaned => {}
        }
        let Some(since) = entry.orphaned_at else {
            view.register.orphan(tenant, key, Some(view.now)).await?;
            view.tenant.wake.notify_one();
            return Ok(None);
        };
        let approval = match self.reduction(view, entry, since).await {
            Ok(approval) => approval,
            Err(error) => {
                debug!(route = %entry.key(), %error, "Nobody can be asked whether the gate may go");
                return Ok(Some(listed(entry, String::new())));
            }
        };
        if decision_of(&approval) == Some(ApprovalDecision::Approved) && self.approvals.is_believed(&approval).await {
            let is_gone = self.take_away(view, key, entry, &approval, pending).await?;
            return Ok((!is_gone).then(|| listed(entry, approval.name_any())));
        }
        Ok(Some(listed(entry, approval.name_any())))
    }

    /// The Approval that takes an orphaned gate away.
    async fn reduction(&self, view: &View<'_>, entry: &Entry, since: Timestamp) -> Result<Arc<Approval>> {
        self.approvals.ensure(asked_in(view, entry), &reduction_of(view, entry, since)).await
    }

    /// A route declares the gate again: nobody is asked any more whether it may go.
    async fn reclaimed(&self, view: &View<'_>, entry: &Entry, since: Timestamp) -> Result<()> {
        let key = ObjectKey::new(asked_in(view, entry), &name_of(&reduction_of(view, entry, since)));
        if self.approvals.get(&key).is_none_or(|known| decision_of(&known).is_some()) {
            return Ok(());
        }
        let by = "a route that declares the gate again".to_owned();
        let made = self.approvals.decide(&key, &Made { decision: ApprovalDecision::Superseded, by, reason: None }).await?;
        self.without_effect(&made).await
    }

    /// What becomes of a thing whose gate may go: what was decided about it alone stands, and what nobody decided about goes with the gate.
    async fn without_its_gate(&self, single: &ObjectKey, gate: &Arc<Approval>) -> Result<(Arc<Approval>, Decision)> {
        let Some(known) = self.approvals.get(single) else { return Ok((gate.clone(), Decision::Release)) };
        let decision = decision_of(&known);
        let is_believed = decision == Some(ApprovalDecision::Approved) && self.approvals.is_believed(&known).await;
        if decision.is_none() {
            let by = format!("{}, which takes the gate away", gate.name_any());
            let made = Made { decision: ApprovalDecision::Superseded, by, reason: None };
            let ended = self.approvals.decide(single, &made).await?;
            self.without_effect(&ended).await?;
        }
        Ok(match own_fate(decision, is_believed) {
            Some(own) => (known, own),
            None => (gate.clone(), Decision::Release),
        })
    }

    /// Opens the folder and lets through what nothing else holds; whether that is all done.
    async fn take_away(
        &self,
        view: &View<'_>,
        key: &str,
        entry: &Entry,
        approval: &Arc<Approval>,
        pending: &[Pending],
    ) -> Result<bool> {
        let tenant = &*view.tenant.session.driver;
        view.register.open(tenant, key, &super::carry::cause(approval)).await?;
        let mut is_refused = false;
        for one in pending.iter().filter(|one| one.workspace_id == entry.workspace) {
            let Some(thing) = read(tenant, one).await? else { continue };
            let held_by = view.register.of(&one.workspace_id, |entry| thing.is_held_by(entry));
            if !thing.is_held_by(entry) || held_by.iter().any(|(other, _)| other != key) {
                continue;
            }
            let single = ObjectKey::new(asked_in(view, entry), &name_of(&spec_of(view, entry, &thing)));
            let (by, decision) = self.without_its_gate(&single, approval).await?;
            is_refused |= !self.conclude(view, &thing, &[by], decision).await?;
        }
        if is_refused {
            // As long as something is held, its gate is known, and so is that it may go.
            return Ok(false);
        }
        view.register.forget(tenant, key).await?;
        if !is_carried_out(approval) {
            self.without_effect(approval).await?;
        }
        Ok(true)
    }
}

/// What a decision about one thing alone makes of it when its gate goes; `None`: it goes with the gate. That anybody may have written an approval
/// does not make it a rejection.
fn own_fate(decision: Option<ApprovalDecision>, is_believed: bool) -> Option<Decision> {
    match decision? {
        ApprovalDecision::Approved => is_believed.then_some(Decision::Release),
        ApprovalDecision::Rejected | ApprovalDecision::TimedOut => Some(Decision::Reject),
        ApprovalDecision::Superseded => None,
    }
}

/// What is asked of somebody.
enum Asked {
    Yes(Box<ApprovalSpec>),
    No,
    Unknown,
}

/// How a registered gate stands to the routes that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// A route declares it.
    Declared,
    /// Its workspace is not known (yet): what it holds stays held.
    Unknown,
    /// No route declares it any more.
    Orphaned,
}

fn standing(view: &View<'_>, entry: &Entry) -> Standing {
    let Some(route) = view.routes.get(&entry.key()) else { return Standing::Orphaned };
    if super::declared(&route.object).is_none_or(|declared| declared.path != entry.path) {
        return Standing::Orphaned;
    }
    match () {
        () if route.reads.contains(&entry.workspace) => Standing::Declared,
        // Its first pass gates a workspace before its id is in the status of its resource.
        () if !route.declared.contains(&entry.workspace) => Standing::Unknown,
        () => Standing::Orphaned,
    }
}

fn listed(entry: &Entry, approval: String) -> OrphanedGate {
    OrphanedGate {
        route: entry.key().to_string(),
        workspace_id: entry.workspace.clone(),
        path: clean(&entry.path, 1024),
        approval,
    }
}

/// The Approval about a thing, for the route of an entry; without what its rule asks for.
fn spec_of(view: &View<'_>, entry: &Entry, thing: &Thing) -> ApprovalSpec {
    let pending = &thing.pending;
    let kind = match pending {
        Pending { version: Some(_), .. } => SubjectKind::FileVersion,
        Pending { delete: true, .. } => SubjectKind::Deletion,
        _ => SubjectKind::Share,
    };
    let digest = match (&thing.version, &thing.link) {
        (Some(version), _) => Some(version.sha256.clone()),
        // What the link allows: a link that is changed is asked about again.
        (None, Some(link)) => {
            let mut shape = serde_json::to_value(link).unwrap_or(Value::Null);
            if let Some(shape) = shape.as_object_mut() {
                for volatile in ["downloads", "etag", "url", "managed"] {
                    shape.remove(volatile);
                }
            }
            Some(hex(&Sha256::digest(shape.to_string())))
        }
        _ => None,
    };
    let share = SharedThing { link: pending.link.clone(), member: pending.member.clone() };
    let requested_by = pending.requested_by.as_ref().map(|by| Requester {
        kind: format!("{:?}", by.kind),
        id: by.id.clone().unwrap_or_default(),
        name: clean(&by.name, 320),
    });
    let scoped = view.routes.get(&entry.key()).and_then(|route| route.running.as_ref()?.scope.get(&entry.workspace));
    ApprovalSpec {
        connection_ref: connection_ref(view, entry),
        subject: ApprovalSubject {
            kind,
            workspace_id: pending.workspace_id.clone(),
            file_id: pending.item_id.clone(),
            version: pending.version,
            digest,
            share: (kind == SubjectKind::Share).then_some(share),
            since: pending.since,
            date: None,
            path: Some(clean(&thing.item.path, 1024)),
        },
        route: Some(entry.route.clone()),
        workspace: scoped.map(|scoped| scoped.name).filter(|name| !name.is_empty()),
        requirement: None,
        rule: String::new(),
        policy_hash: String::new(),
        min_approvals: None,
        separation_of_duties: None,
        requested_by: requested_by.unwrap_or_default(),
        requested_at: view.now,
        expires_at: None,
        ttl_after_decision_seconds: None,
    }
}

fn reduction_of(view: &View<'_>, entry: &Entry, since: Timestamp) -> ApprovalSpec {
    ApprovalSpec {
        connection_ref: connection_ref(view, entry),
        subject: ApprovalSubject {
            kind: SubjectKind::Reduction,
            workspace_id: entry.workspace.clone(),
            file_id: entry.folder.clone().unwrap_or_default(),
            version: None,
            digest: None,
            share: None,
            since: Some(since),
            date: None,
            path: Some(clean(&entry.path, 1024)),
        },
        route: Some(entry.route.clone()),
        workspace: None,
        requirement: None,
        rule: ORPHANED.into(),
        policy_hash: String::new(),
        min_approvals: Some(entry.min_approvals),
        separation_of_duties: Some(entry.separates),
        requested_by: Requester::default(),
        requested_at: view.now,
        expires_at: None,
        ttl_after_decision_seconds: None,
    }
}

/// The namespace that is asked about what a gate holds: that of its route, while the Connection lets that decide about the workspace; else that of
/// the Connection, whose owner answers for the tenant.
fn asked_in<'a>(view: &'a View<'_>, entry: &'a Entry) -> &'a str {
    let may = match view.reached.get(&entry.namespace) {
        Some(GrantScope::Tenant) => true,
        Some(GrantScope::Declared) => view.own.get(&entry.namespace).is_some_and(|own| own.contains(&entry.workspace)),
        None => false,
    };
    if may { &entry.namespace } else { &view.connection.namespace }
}

fn connection_ref(view: &View<'_>, entry: &Entry) -> ConnectionRef {
    let namespace = (*view.connection.namespace != *asked_in(view, entry)).then(|| view.connection.namespace.to_string());
    ConnectionRef { name: view.connection.name.to_string(), namespace }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d3_taking_a_gate_away_lets_nothing_through_that_was_rejected_by_itself() {
        use ApprovalDecision::{Approved, Rejected, Superseded, TimedOut};
        for (decision, is_believed, fate) in [
            (Some(Rejected), false, Some(Decision::Reject)),
            (Some(TimedOut), true, Some(Decision::Reject)),
            (Some(Approved), true, Some(Decision::Release)),
            (Some(Approved), false, None),
            (Some(Superseded), true, None),
            (None, true, None),
        ] {
            assert_eq!(own_fate(decision, is_believed), fate, "{decision:?}");
        }
    }
}
