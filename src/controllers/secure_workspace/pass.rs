//! One pass, top to bottom: permitted? observe, plan, guard, execute, report.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use parking_lot::Mutex;
use tracing::{debug, info};

use super::desired::Desired;
use super::execute::Executor;
use super::observe::{self, Found};
use super::plan::{Action, Observed, Origin, Plan, Step, next_expiry, plan, take_up};
use super::status::{self, Blocked, Report};
use super::store::Store;
use super::{KIND, Next, cleanup, documents, reminders, reports, secrets, unsupported};
use crate::api::connection::{GrantKind, GrantScope};
use crate::api::secure_workspace::{DEFAULT_MAX_REMOVALS, DeletionPolicy, Mode, SecureWorkspaceStatus};
use crate::api::{FINALIZER, HANDOVER, SecureWorkspace};
use crate::controllers::context::Context;
use crate::controllers::{finalizers, grants, until};
use crate::documents::rules::Rules;
use crate::error::{Error, Kind, Result};
use crate::file360::Cause;
use crate::file360::feature::Feature;
use crate::file360::model::{Audience, BusinessKey, OwnerMark, OwnerState, PrincipalKind, WorkspaceState};
use crate::reconcile::ownership::{Claim, claim};
use crate::reconcile::{ObjectKey, publish};
use crate::session::{Foreign, Lookup, Session, Unavailable};

/// Times that a pass looks again because somebody else was writing at the same time.
const MOST_ROUNDS: u32 = 3;
/// A Connection that is still unknown after this long is missing.
const FIRST_SIGHT: Duration = Duration::from_secs(1);

/// The Connection that an object names.
pub fn connection_key(object: &SecureWorkspace) -> ObjectKey {
    let reference = &object.spec.connection_ref;
    let own = object.namespace().unwrap_or_default();
    ObjectKey::new(reference.namespace.as_deref().unwrap_or(&own), &reference.name)
}

/// The business key of an object: its `externalRef`, else its own name in this cluster.
pub fn business_key(object: &SecureWorkspace, cluster_id: &str) -> BusinessKey {
    match &object.spec.external_ref {
        Some(external) => BusinessKey { system: external.system.clone(), key: format!("{}/{}", external.kind, external.id) },
        None => BusinessKey {
            system: "k8s".into(),
            key: format!("{cluster_id}/{}/{}", object.namespace().unwrap_or_default(), object.name_any()),
        },
    }
}

/// Whether the Connection grants its use to the object, and its sharing rule stays below the ceiling.
pub fn permitted(ctx: &Context, object: &SecureWorkspace, lookup: &Lookup) -> Result<GrantScope> {
    let home = lookup.connection.namespace().unwrap_or_default();
    let namespace = object.namespace().unwrap_or_default();
    let labels = ctx.namespaces.of(&namespace);
    let asking = grants::Asking {
        namespace: &namespace,
        labels: &labels,
        kind: GrantKind::SecureWorkspace,
        external_system: object.spec.external_ref.as_ref().map(|external| external.system.as_str()),
    };
    grants::scope(&home, &lookup.connection.spec, &asking)
}

/// The time zone in which an object's dates count.
pub fn zone_name(object: &SecureWorkspace, connection: &crate::api::Connection) -> String {
    let named = object.spec.time_zone.as_ref().or(connection.spec.time_zone.as_ref());
    named.cloned().unwrap_or_else(|| "UTC".to_owned())
}

/// One pass over one object.
pub struct Pass<'a> {
    pub(super) ctx: &'a Context,
    pub(super) store: &'a Store,
    pub(super) key: ObjectKey,
    pub(super) object: Arc<SecureWorkspace>,
    pub(super) cause: Cause,
    pub(super) now: Timestamp,
    pub(super) report: Report,
    /// The object as it is since it was said that the pass is slow.
    announced: Arc<Mutex<Option<SecureWorkspace>>>,
}

impl<'a> Pass<'a> {
    /// Prepares a pass; nothing is read or written.
    pub fn new(ctx: &'a Context, store: &'a Store, key: ObjectKey, object: SecureWorkspace) -> Self {
        let cause = Cause(object.uid().unwrap_or_default());
        let (object, announced) = (Arc::new(object), Arc::default());
        Self { ctx, store, key, cause, now: ctx.now(), object, report: Report::default(), announced }
    }

    /// Runs the pass and reports.
    pub async fn run(&mut self) -> Result<Next> {
        if self.object.metadata.deletion_timestamp.is_some() {
            return cleanup::run(self).await;
        }
        let slow = tokio::time::sleep(self.ctx.tuning.slow_pass);
        let result = {
            let (ctx, store, before, announced) = (self.ctx, self.store, self.object.clone(), self.announced.clone());
            let mut work = std::pin::pin!(self.converge());
            tokio::select! {
                result = &mut work => result,
                () = slow => {
                    // The pass stands still meanwhile: it must not write the object at the same time.
                    *announced.lock() = say_reconciling(ctx, store, &before).await;
                    work.await
                }
            }
        };
        self.finish(result).await
    }

    /// Builds on what was written about the slow pass. The spec stays the one that the pass works on.
    fn take_up_announcement(&mut self) {
        let Some(written) = self.announced.lock().take() else { return };
        let object = Arc::make_mut(&mut self.object);
        object.metadata.resource_version = written.metadata.resource_version;
        object.metadata.finalizers = written.metadata.finalizers;
        object.status = written.status;
    }

    async fn finish(&mut self, result: Result<Option<Arc<Session>>>) -> Result<Next> {
        let session = match result {
            Ok(session) => session,
            Err(error) if error.is_outage() => return self.outage(error).await,
            Err(error) => {
                self.report.error = Some(error.clone());
                self.publish().await?;
                return Err(error);
            }
        };
        let Some(session) = session else { return Ok(Next::Deferred(FIRST_SIGHT)) };
        if let Some(workspace) = &self.report.observed.workspace {
            let uid: Arc<str> = self.cause.0.as_str().into();
            session.index.belongs(&workspace.id, workspace.revision, &self.key, &uid);
            let looked_at = self.report.documents.as_ref().map(|documents| documents.content_revision);
            session.index.looked_at_files(&workspace.id, looked_at);
            self.store.found_workspace(&self.key, &workspace.id);
        }
        self.publish().await?;
        Ok(Next::Rest(self.look_again()))
    }

    /// When the clock alone makes another pass worth while.
    fn look_again(&self) -> Option<Duration> {
        let fight = self.report.fighting.then_some(Duration::from_mins(5));
        let change = self.report.next_change_at.map(|at| until(at, self.now) + Duration::from_millis(200));
        fight.into_iter().chain(change).min()
    }

    /// The tenant is away. What was reported stays; a resource that never said anything says that it waits.
    async fn outage(&mut self, error: Error) -> Result<Next> {
        if let Some(next) = status::doubtful(&self.object, self.now) {
            self.publish_status(next).await?;
        }
        let connection = connection_key(&self.object);
        let is_fresh = self.object.status.as_ref().is_none_or(|status| status.conditions.is_empty());
        if is_fresh && self.ctx.outage_marks.check().is_ok() {
            self.report.error = Some(error.clone());
            self.publish().await?;
        }
        match self.ctx.sessions.get(&connection, &self.key).map(|lookup| lookup.session) {
            Some(Ok(session)) => {
                session.defer(self.key.clone());
                // An answer that cannot be understood or a limit for one call says nothing about the feed: come back anyway.
                Err(error)
            }
            _ => Ok(Next::Deferred(self.ctx.tuning.outage_grace)),
        }
    }

    /// Brings the workspace to what the spec says. `None`: the Connection has no session yet.
    async fn converge(&mut self) -> Result<Option<Arc<Session>>> {
        let Some((lookup, session)) = self.session()? else { return Ok(None) };
        let scope = permitted(self.ctx, &self.object, &lookup)?;
        self.report.suspended = status::is_suspended(&self.object, self.now);
        if self.object.annotations().contains_key(HANDOVER) {
            self.hand_over(&session).await?;
            return Ok(Some(session));
        }
        reports::check(self)?;
        let (honoured, unsupported) = unsupported::split(&self.object.spec, &session.enforcement);
        self.report.unsupported = Some(unsupported);
        self.report.sees_access = session.enforcement.has(Feature::Members);
        let desired = Desired::of(&honoured, self.now)?;
        let rules = documents::rules(&honoured, lookup.connection.spec.time_zone.as_deref())?;
        let ceiling = lookup.connection.spec.sharing.as_ref().map(|sharing| &sharing.max);
        reminders::check(honoured.reminders.as_ref(), desired.sharing.as_ref(), ceiling)?;
        if let (Some(sharing), Some(ceiling)) = (&desired.sharing, &lookup.connection.spec.sharing) {
            grants::within_ceiling(sharing, &ceiling.max)?;
        }
        let foreign = self.store.take_foreign(&self.key);
        self.report.foreign.clone_from(&foreign);
        let converged = self.rounds(&session, &lookup, scope, &desired).await;
        match (&rules, converged) {
            (Some(rules), Err(error)) => {
                // What fails at the workspace itself makes no document valid. An outage, or a newer leader, is another matter.
                if !error.is_outage() && error.code != "fenced" && self.is_mine() {
                    let looked = self.look_at_documents(&session, rules).await;
                    let _ = looked
                        .inspect_err(|error| debug!(object = %self.key, %error, "Nor could the documents be looked at"));
                }
                return Err(error);
            }
            (Some(rules), Ok(())) => self.look_at_documents(&session, rules).await?,
            (None, converged) => {
                converged?;
                if self.may_change_documents() {
                    documents::forget(self, &session).await?;
                }
            }
        }
        self.note_times(&desired);
        Ok(Some(session))
    }

    /// Looks, plans and acts until nobody else writes in between.
    async fn rounds(&mut self, session: &Arc<Session>, lookup: &Lookup, scope: GrantScope, desired: &Desired) -> Result<()> {
        for round in 1..=MOST_ROUNDS {
            if !self.round(session, lookup, scope, desired).await? {
                return Ok(());
            }
            debug!(object = %self.key, round, "Somebody else wrote at the same time; looking again");
        }
        Err(Error::new(Kind::Stale, "somebody else keeps changing the workspace at the same time"))
    }

    /// The workspace carries the mark of this very object.
    fn is_mine(&self) -> bool {
        let owner = self.report.observed.workspace.as_ref().and_then(|workspace| workspace.owner.as_ref());
        claim(owner, &self.mark(OwnerState::Active)) == Claim::Mine
    }

    /// Looks at the required documents, once the workspace is there. What stops changes of the workspace stops theirs. The states are
    /// reported even if what follows from them fails.
    async fn look_at_documents(&mut self, session: &Arc<Session>, rules: &Rules) -> Result<()> {
        let Some(workspace) = self.report.observed.workspace.clone() else { return Ok(()) };
        if workspace.state == WorkspaceState::Trashed {
            return Ok(());
        }
        let may_change = self.may_change_documents();
        let (mut found, judgement, library) = documents::look(self, session, rules, &workspace, may_change).await?;
        let followed = if may_change {
            documents::follow(self, session, rules, &judgement, &library, &mut found).await
        } else {
            Ok(())
        };
        self.report.documents = Some(found);
        followed
    }

    /// When the clock alone changes something, although the pass failed.
    pub fn due_after_failure(&self) -> Option<Duration> {
        let next = self.object.status.as_ref().and_then(|status| status.next_change_at)?;
        (next > self.now).then(|| until(next, self.now) + Duration::from_millis(200))
    }

    /// Whether files may be recorded and locked, pages changed and mails sent.
    fn may_change_documents(&self) -> bool {
        let held_back = matches!(self.report.blocked, Some(Blocked::AwaitingApproval | Blocked::PlanChanged));
        let only_looks = self.report.suspended || self.object.spec.mode == Some(Mode::Plan) || held_back;
        let is_active = |workspace: &crate::file360::model::Workspace| workspace.state == WorkspaceState::Active;
        !only_looks && self.report.observed.workspace.as_ref().is_some_and(is_active)
    }

    /// Observes, plans, guards and executes once. Returns whether somebody else wrote in between.
    async fn round(
        &mut self,
        session: &Arc<Session>,
        lookup: &Lookup,
        scope: GrantScope,
        desired: &Desired,
    ) -> Result<bool> {
        let found = observe::observe(self, session, scope).await?;
        if let (None, Some(workspace), Some(ceiling)) =
            (&desired.sharing, &found.observed.workspace, &lookup.connection.spec.sharing)
        {
            grants::within_ceiling(&workspace.sharing, &ceiling.max)?;
        }
        self.report.observed.clone_from(&found.observed);
        let mut plan = self.plan(desired, &found);
        self.tolerate_fights(&mut plan);
        let allowed = self.guard(&plan);
        self.report.plan = plan;
        if !allowed || self.report.plan.is_empty() {
            if self.report.plan.is_empty() {
                self.report.applied = Some(desired.applied.clone());
                self.after_convergence(lookup, desired).await?;
            }
            return Ok(false);
        }
        self.ensure_finalizer(lookup, desired).await?;
        let steps = self.report.plan.steps.clone();
        let mut executor = Executor::new(self, session, found);
        let outcome = executor.run(&steps).await;
        let (observed, done, interleaved) = executor.into_parts();
        self.report.observed = observed;
        self.note_corrections(&steps[..done]).await;
        outcome?;
        if interleaved {
            return Ok(true);
        }
        self.report.applied = Some(desired.applied.clone());
        self.report.plan.steps.clear();
        self.after_convergence(lookup, desired).await?;
        Ok(false)
    }

    /// Gives the workspace up; it stays as it is.
    async fn hand_over(&mut self, session: &Arc<Session>) -> Result<()> {
        self.report.handed_over = true;
        let Some(workspace) = observe::locate(self, session).await? else { return Ok(()) };
        if claim(workspace.owner.as_ref(), &self.mark(OwnerState::Active)) == Claim::Mine {
            cleanup::release(self, session, &workspace.id).await?;
            self.ctx
                .event(
                    &*self.object,
                    false,
                    "HandedOver",
                    "Released the workspace; the same namespace and name on another cluster may take it up.",
                )
                .await;
        }
        session.index.forget(&workspace.id);
        Ok(())
    }

    fn session(&self) -> Result<Option<(Lookup, Arc<Session>)>> {
        let key = connection_key(&self.object);
        let Some(lookup) = self.ctx.sessions.get(&key, &self.key) else {
            // Applied together, the workspace can be seen before its Connection: that is no news yet.
            if self.store.misses_its_connection(&self.key) {
                return Ok(None);
            }
            return Err(grants::not_granted(&self.key.namespace));
        };
        permitted(self.ctx, &self.object, &lookup)?;
        match &lookup.session {
            Ok(session) => {
                let session = session.clone();
                Ok(Some((lookup, session)))
            }
            Err(Unavailable::Pending) => Ok(None),
            Err(why) => {
                let mut error = Error::new(Kind::Unavailable, format!("Connection {} is not usable: {why}", key.name));
                error.code = "connection-unavailable".into();
                Err(error)
            }
        }
    }

    fn plan(&self, desired: &Desired, found: &Found) -> Plan {
        let applied = self.object.status.as_ref().and_then(|status| status.applied.as_ref());
        if let Some(workspace) =
            found.observed.workspace.as_ref().filter(|workspace| workspace.state == WorkspaceState::Trashed)
        {
            // What else there is to do shows once it is back.
            return Plan { steps: take_up(workspace, found.is_mine), ..Plan::default() };
        }
        let mut plan = plan(desired, &found.observed, applied, self.object.spec.drift.as_ref());
        if let Some(workspace) = &found.observed.workspace {
            plan.steps.splice(0..0, take_up(workspace, found.is_mine));
        }
        plan
    }

    /// What somebody keeps undoing is left alone for a while, and said.
    fn tolerate_fights(&mut self, plan: &mut Plan) {
        let now = self.now;
        let mut fighting = Vec::new();
        self.store.with_fight(&self.key, |fight| {
            let Some(fight) = fight else { return };
            let is_fight = |step: &Step| step.origin == Origin::Drift && fight.is_on(&step.action.subject(), now);
            fighting.extend(plan.steps.extract_if(.., |step| is_fight(step)));
        });
        self.report.fighting = !fighting.is_empty();
        plan.tolerated.extend(fighting);
    }

    /// Whether the plan may be run; says why not.
    fn guard(&mut self, plan: &Plan) -> bool {
        let spec = &self.object.spec;
        let approved = spec.mode == Some(Mode::Approve) && spec.approved_plan.as_deref() == Some(&*plan.hash());
        let max = spec.max_removals.unwrap_or(DEFAULT_MAX_REMOVALS) as usize;
        self.report.blocked = if plan.is_empty() {
            None
        } else if self.report.suspended {
            Some(Blocked::Suspended)
        } else if spec.mode == Some(Mode::Plan) {
            Some(Blocked::PlanOnly)
        } else if spec.mode == Some(Mode::Approve) && !approved {
            Some(if spec.approved_plan.is_some() { Blocked::PlanChanged } else { Blocked::AwaitingApproval })
        } else if plan.removals() > max && !approved {
            Some(Blocked::TooManyRemovals { removals: plan.removals(), max })
        } else {
            None
        };
        self.report.blocked.is_none()
    }

    /// The finalizer is there before the first step that deletion has to undo (D1).
    async fn ensure_finalizer(&mut self, lookup: &Lookup, desired: &Desired) -> Result<()> {
        self.take_up_announcement();
        let has = self.object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
        if has || !self.needs_finalizer(desired) {
            return Ok(());
        }
        if !lookup.connection.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            self.keep_connection(lookup).await?;
        }
        self.object = Arc::new(finalizers::add(&self.ctx.client, &*self.object).await?);
        self.store.wrote(&self.key, &self.object);
        Ok(())
    }

    /// Reads the Connection live: many objects need it at once, and one write is enough.
    async fn keep_connection(&self, lookup: &Lookup) -> Result<()> {
        let key = ObjectKey::of(&*lookup.connection);
        let api: Api<crate::api::Connection> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let Some(connection) = api.get_opt(&key.name).await? else { return Ok(()) };
        if connection.metadata.deletion_timestamp.is_some() {
            return Err(Error::new(Kind::Reference, format!("Connection {} is being deleted", key.name)));
        }
        match finalizers::add(&self.ctx.client, &connection).await {
            // Another pass was faster.
            Err(error) if error.code == "Conflict" => Ok(()),
            result => result.map(|_| ()),
        }
    }

    fn needs_finalizer(&self, desired: &Desired) -> bool {
        let observed = &self.report.observed;
        matches!(self.object.spec.deletion_policy, Some(DeletionPolicy::Archive | DeletionPolicy::Delete))
            || desired.has_outsiders()
            || !reports::declared(self).is_empty()
            || has_outsiders(observed)
    }

    /// What is due once File 360 is as declared: the finalizer for outsiders that others let in, the Secrets, and the reports.
    async fn after_convergence(&mut self, lookup: &Lookup, desired: &Desired) -> Result<()> {
        if self.report.suspended || matches!(self.object.spec.mode, Some(Mode::Plan)) {
            return Ok(());
        }
        self.ensure_finalizer(lookup, desired).await?;
        self.report.secrets = secrets::write(self).await?;
        match &lookup.session {
            Ok(session) => reports::declare(self, session).await,
            Err(_) => Ok(()),
        }
    }

    async fn note_corrections(&mut self, done: &[Step]) {
        let by = self.report.foreign.as_ref().map_or_else(|| "somebody".to_owned(), |foreign: &Foreign| foreign.by.clone());
        let mut lines = Vec::new();
        for step in done.iter().filter(|step| step.origin == Origin::Drift) {
            let subject = step.action.subject();
            self.store.with_fight(&self.key, |fight| fight.get_or_insert_default().corrected(&subject, self.now));
            self.ctx.metrics.drift_corrected.inc();
            lines.push(step.action.to_string());
        }
        if !lines.is_empty() {
            let text = format!("{by} changed the workspace in File 360; put right: {}.", lines.join("; "));
            info!(object = %self.key, by, corrections = lines.len(), "Drift corrected");
            self.ctx.event(&*self.object, false, "DriftCorrected", &text).await;
        }
        let outsiders = done.iter().filter(|step| step.action.lets_outsiders_in()).count();
        let removed = done.iter().filter(|step| step.origin == Origin::Spec && step.action.is_removal()).count();
        if outsiders + removed > 0 {
            let text = done.iter().filter(|step| step.action.lets_outsiders_in() || step.action.is_removal());
            let text: Vec<String> = text.map(|step| step.action.to_string()).collect();
            self.ctx.event(&*self.object, false, "AccessChanged", &format!("{}.", text.join("; "))).await;
        }
        if done.iter().any(|step| matches!(step.action, Action::TakeOwnership)) {
            self.ctx.event(&*self.object, false, "Adopted", "Took up an existing workspace.").await;
        }
    }

    fn note_times(&mut self, desired: &Desired) {
        let suspend_end = self.object.spec.suspend_until.filter(|until| self.report.suspended && *until > self.now);
        let documents = self.report.documents.as_ref().and_then(|documents| documents.next_change_at);
        let ends = [desired.next_change_at, next_expiry(&self.report.observed, self.now), suspend_end, documents];
        self.report.next_change_at = ends.into_iter().flatten().min();
    }

    /// Writes the status when it changed.
    pub(super) async fn publish(&mut self) -> Result<()> {
        self.take_up_announcement();
        self.publish_status(status::after(&self.object, &self.report, self.now)).await
    }

    async fn publish_status(&mut self, next: SecureWorkspaceStatus) -> Result<()> {
        self.take_up_announcement();
        if self.object.status.as_ref() == Some(&next) {
            return Ok(());
        }
        let flipped = status::flipped(self.object.status.as_ref(), &next);
        let completed = status::completed(self.object.status.as_ref(), &next);
        let write = publish::publish(&self.ctx.client, &*self.object, self.object.status.as_ref(), &next);
        let written = self.ctx.gate.write(&self.key.namespace, write).await;
        match written {
            Ok(None) => {}
            Ok(Some(object)) => {
                self.ctx.metrics.status_written(KIND);
                self.store.wrote(&self.key, &object);
                for (warning, reason, message) in flipped.into_iter().chain(completed) {
                    self.ctx.event(&*self.object, warning, &reason, &message).await;
                }
                self.object = Arc::new(object);
            }
            // Gone in between: there is nobody left to tell.
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => return Err(error.while_doing("write the status")),
        }
        Ok(())
    }

    /// The mark of this very object.
    pub(super) fn mark(&self, state: OwnerState) -> OwnerMark {
        OwnerMark {
            cluster_id: self.ctx.cluster_id.to_string(),
            namespace: self.key.namespace.to_string(),
            name: self.key.name.to_string(),
            uid: self.cause.0.clone(),
            state,
        }
    }
}

/// Whether people outside have access now: guests, upload requests, or links that are open to them.
pub(super) fn has_outsiders(observed: &Observed) -> bool {
    observed.members.iter().any(|member| member.kind == PrincipalKind::Guest)
        || !observed.requests.is_empty()
        || observed.links.iter().any(|link| matches!(link.audience, Audience::Guests | Audience::Anyone))
}

/// Tells that the pass over an object is slow; the object as it is then, if it had to be written.
async fn say_reconciling(ctx: &Context, store: &Store, object: &SecureWorkspace) -> Option<SecureWorkspace> {
    let next = status::reconciling(object, ctx.now());
    match publish::publish(&ctx.client, object, object.status.as_ref(), &next).await {
        Ok(written) => {
            let written = written?;
            ctx.metrics.status_written(KIND);
            store.wrote(&ObjectKey::of(&written), &written);
            Some(written)
        }
        Err(error) => {
            debug!(%error, "The slow pass could not be announced");
            None
        }
    }
}

/// Tells one object that its Connection has been away for long.
pub async fn mark_outage(ctx: &Context, store: &Store, key: &ObjectKey, why: &str) -> Result<()> {
    let api: Api<SecureWorkspace> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let Some(object) = api.get_opt(&key.name).await? else { return Ok(()) };
    let next = status::away(&object, why, ctx.now());
    if let Some(written) = publish::publish(&ctx.client, &object, object.status.as_ref(), &next).await? {
        ctx.metrics.status_written(KIND);
        store.wrote(key, &written);
    }
    Ok(())
}

/// What a pass would do now.
pub struct Preview {
    /// The steps, and what differs and stays.
    pub plan: Plan,
    /// Why the operator would not run them.
    pub blocked: Option<Blocked>,
    /// Fields that the driver cannot honour; no step is about them.
    pub unsupported: Vec<crate::api::secure_workspace::UnsupportedField>,
}

/// What a pass over `object` would do now. It runs as if the object were suspended: everything is read, checked and planned,
/// nothing is changed here or there, and no status is written.
pub async fn preview(ctx: &Context, object: SecureWorkspace) -> Result<Preview> {
    if object.annotations().contains_key(HANDOVER) {
        // Giving a workspace up is not planned, and must not be tried here.
        let message = format!("the resource gives its workspace up (annotation {HANDOVER}); nothing is planned");
        return Err(Error::new(Kind::Conflict, message));
    }
    let store = Store::default();
    let declared = object.spec.clone();
    let key = ObjectKey::of(&object);
    let mut pass = Pass::new(ctx, &store, key, object);
    let suspended = Arc::make_mut(&mut pass.object);
    suspended.spec.suspend = Some(true);
    suspended.spec.suspend_until = None;
    if pass.converge().await?.is_none() {
        return Err(Error::new(Kind::Unavailable, "the Connection has no session"));
    }
    Arc::make_mut(&mut pass.object).spec = declared;
    pass.report.suspended = false;
    let plan = std::mem::take(&mut pass.report.plan);
    pass.guard(&plan);
    let unsupported = pass.report.unsupported.take().unwrap_or_default();
    Ok(Preview { plan, blocked: pass.report.blocked, unsupported })
}
