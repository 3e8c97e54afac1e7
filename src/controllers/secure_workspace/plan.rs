//! From what is declared and what is there to the steps that make them equal. Pure.

mod action;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::desired::{Desired, DesiredFolder, DesiredMember, FolderMark, MemberKey, parents};
pub use action::{Action, Aspect, Origin, Step};

use crate::api::secure_workspace::{AccessMode, Applied, Drift, DriftPolicy, PlanStatus};
use crate::file360::model::{
    Folder, ItemPatch, Link, Member, MemberInput, NewFolder, NewWorkspace, SharingRules, UploadRequest, UploadRequestInput,
    Workspace, WorkspacePatch, WorkspaceState,
};
use crate::hex::hex;

/// What is there: one workspace with everything that a spec can say something about.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The workspace; `None`: it does not exist.
    pub workspace: Option<Workspace>,
    /// Its folders.
    pub folders: Vec<Folder>,
    /// Its members and grants.
    pub members: Vec<Member>,
    /// Its upload requests.
    pub requests: Vec<UploadRequest>,
    /// Its share links.
    pub links: Vec<Link>,
}

impl Observed {
    /// Nothing is there.
    pub fn nothing() -> Self {
        Self { workspace: None, folders: Vec::new(), members: Vec::new(), requests: Vec::new(), links: Vec::new() }
    }
}

/// What the differences amount to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be run, in order.
    pub steps: Vec<Step>,
    /// Differences that stay, by the drift policy `Warn`.
    pub tolerated: Vec<Step>,
    /// Folders that are no longer declared but have content.
    pub kept_folders: Vec<String>,
}

/// The steps that bring `observed` to `desired`. `applied` tells what was applied last, `drift` what to do about others' changes.
pub fn plan(desired: &Desired, observed: &Observed, applied: Option<&Applied>, drift: Option<&Drift>) -> Plan {
    let none = Applied::default();
    let planner = Planner { desired, observed, applied: applied.unwrap_or(&none) };
    let mut result = Plan::default();
    for step in planner.steps(&mut result.kept_folders) {
        match policy(step.aspect, step.origin, drift) {
            DriftPolicy::Correct => result.steps.push(step),
            DriftPolicy::Warn => result.tolerated.push(step),
            DriftPolicy::Ignore => {}
        }
    }
    result
}

fn policy(aspect: Aspect, origin: Origin, drift: Option<&Drift>) -> DriftPolicy {
    let Some(drift) = drift.filter(|_| origin == Origin::Drift) else { return DriftPolicy::Correct };
    let own = match aspect {
        Aspect::Workspace => Some(DriftPolicy::Correct),
        Aspect::Access => drift.access,
        Aspect::Folders => drift.folders,
        Aspect::Metadata => drift.metadata,
        Aspect::Sharing => drift.sharing,
    };
    own.or(drift.default).unwrap_or_default()
}

struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    applied: &'a Applied,
}

impl Planner<'_> {
    fn steps(&self, kept: &mut Vec<String>) -> Vec<Step> {
        let mut steps = Vec::new();
        match &self.observed.workspace {
            None => steps.push(step(Action::Create(Box::new(new_workspace(self.desired))), Aspect::Workspace, Origin::Spec)),
            Some(workspace) => {
                // Revoke first: a person never holds the old and the new rights at once.
                steps.extend(self.removed_members());
                steps.extend(self.removed_requests());
                steps.extend(self.patches(workspace));
            }
        }
        steps.extend(self.folder_steps());
        steps.extend(self.set_members());
        steps.extend(self.set_requests());
        steps.extend(self.removed_folders(kept));
        steps
    }

    fn access_origin(&self) -> Origin {
        origin(&self.desired.applied.access, &self.applied.access)
    }

    fn folders_origin(&self) -> Origin {
        origin(&self.desired.applied.folders, &self.applied.folders)
    }

    fn sharing_origin(&self) -> Origin {
        origin(&self.desired.applied.sharing, &self.applied.sharing)
    }

    fn patches(&self, workspace: &Workspace) -> Vec<Step> {
        let desired = self.desired;
        let managed: BTreeSet<String> = workspace.managed_fields.iter().cloned().collect();
        let is_metadata = |field: &String| field == "classification" || field.starts_with("metadata/");
        let mut steps = Vec::new();

        let wanted = desired.metadata_fields();
        let mut patch = WorkspacePatch::default();
        let mut what = Vec::new();
        if workspace.display_name != desired.display_name {
            patch.display_name = Some(desired.display_name.clone());
            what.push("displayName".to_owned());
        }
        if desired.classification.is_some() && workspace.classification != desired.classification {
            patch.classification = Some(desired.classification.clone());
            what.push("classification".into());
        } else if desired.classification.is_none()
            && managed.contains("classification")
            && workspace.classification.is_some()
        {
            patch.classification = Some(None);
            what.push("classification (reset)".into());
        }
        let metadata = metadata_patch(&desired.metadata, &workspace.metadata, &managed);
        what.extend(metadata.keys().map(|key| format!("metadata/{key}")));
        patch.metadata = metadata;
        let kept: BTreeSet<String> = managed.iter().filter(|field| !is_metadata(field)).cloned().collect();
        let fields: BTreeSet<String> = wanted.union(&kept).cloned().collect();
        if fields != managed {
            patch.managed_fields = Some(fields.iter().cloned().collect());
        }
        if patch != WorkspacePatch::default() {
            let origin = origin(&desired.applied.metadata, &self.applied.metadata);
            steps.push(step(Action::Patch { patch, what: listed(&what, "bookkeeping") }, Aspect::Metadata, origin));
        }

        let mut patch = WorkspacePatch::default();
        if let Some(sharing) = desired.sharing.as_ref().filter(|sharing| **sharing != workspace.sharing) {
            patch.sharing = Some(Some(sharing.clone()));
        } else if desired.sharing.is_none() && managed.contains("sharing") && workspace.sharing != SharingRules::default() {
            patch.sharing = Some(None);
        }
        let has_mark = managed.contains("sharing");
        if has_mark != desired.sharing.is_some() {
            let mut all = fields;
            if desired.sharing.is_some() {
                all.insert("sharing".into())
            } else {
                all.remove("sharing")
            };
            patch.managed_fields = Some(all.into_iter().collect());
        }
        if patch != WorkspacePatch::default() {
            let what = if patch.sharing.is_some() { "sharing rule" } else { "bookkeeping" };
            steps.push(step(Action::Patch { patch, what: what.into() }, Aspect::Sharing, self.sharing_origin()));
        }
        steps
    }

    fn folder_steps(&self) -> Vec<Step> {
        let origin = self.folders_origin();
        let mut steps = Vec::new();
        let by_path: BTreeMap<String, &Folder> =
            self.observed.folders.iter().map(|folder| (folder.path.to_lowercase(), folder)).collect();
        for (path, wanted) in &self.desired.folders {
            let (folder, moved) = match by_path.get(&path.to_lowercase()) {
                Some(folder) => (*folder, false),
                None => match self.strayed(path) {
                    Some(folder) => (folder, true),
                    None => {
                        steps.push(step(Action::CreateFolder(new_folder(path, wanted)), Aspect::Folders, origin));
                        continue;
                    }
                },
            };
            if moved && !moved_along(&self.desired.folders, &self.observed.folders, folder, path) {
                let action = Action::MoveFolder { id: folder.id.clone(), from: folder.path.clone(), to: path.clone() };
                steps.push(step(action, Aspect::Folders, Origin::Drift));
            }
            if let Some((patch, mark_only)) = folder_patch(path, wanted, folder) {
                let action = Action::PatchFolder { id: folder.id.clone(), path: path.clone(), patch, mark_only };
                steps.push(step(action, Aspect::Folders, origin));
            }
        }
        steps
    }

    /// The folder that is declared as `path` but was renamed or moved.
    fn strayed(&self, path: &str) -> Option<&Folder> {
        let declared = |candidate: &str| self.desired.folders.keys().any(|known| known.eq_ignore_ascii_case(candidate));
        self.observed
            .folders
            .iter()
            .filter(|folder| !declared(&folder.path))
            .find(|folder| FolderMark::parse(folder.managed_key.as_deref()).is_some_and(|mark| mark.path == path))
    }

    fn removed_folders(&self, kept: &mut Vec<String>) -> Vec<Step> {
        let gone: Vec<&Folder> = self
            .observed
            .folders
            .iter()
            .filter(|folder| {
                let taken = self.desired.folders.keys().any(|path| path.to_lowercase() == folder.path.to_lowercase());
                let mark = FolderMark::parse(folder.managed_key.as_deref());
                !taken && mark.is_some_and(|mark| !mark.adopted && !self.desired.folders.contains_key(&mark.path))
            })
            .collect();
        let mut left: BTreeMap<&str, u64> = gone.iter().map(|folder| (folder.path.as_str(), folder.children)).collect();
        let mut steps = Vec::new();
        // Deepest first, so that a parent is empty once its children are gone.
        for folder in gone.iter().rev() {
            if left.get(folder.path.as_str()).is_some_and(|children| *children > 0) {
                kept.push(folder.path.clone());
                continue;
            }
            if let Some(children) = folder.path.rsplit_once('/').and_then(|(parent, _)| left.get_mut(parent)) {
                *children = children.saturating_sub(1);
            }
            let action = Action::DeleteFolder { id: folder.id.clone(), path: folder.path.clone() };
            steps.push(step(action, Aspect::Folders, Origin::Spec));
        }
        steps
    }

    fn removed_members(&self) -> Vec<Step> {
        let exclusive = self.desired.access_mode == Some(AccessMode::Exclusive);
        self.observed
            .members
            .iter()
            .filter(|member| (member.managed || exclusive) && !self.desired.members.contains_key(&key_of(member)))
            .map(|member| {
                let action = Action::RemoveMember {
                    key: key_of(member),
                    principal_id: member.principal_id.clone(),
                    had: member.role,
                };
                let origin = if member.managed { Origin::Spec } else { Origin::Drift };
                step(action, Aspect::Access, origin)
            })
            .collect()
    }

    fn set_members(&self) -> Vec<Step> {
        let observed: BTreeMap<MemberKey, &Member> =
            self.observed.members.iter().map(|member| (key_of(member), member)).collect();
        let mut steps = Vec::new();
        for (key, wanted) in &self.desired.members {
            let there = observed.get(key).copied();
            if there.is_some_and(|member| holds(member, wanted)) {
                continue;
            }
            // Somebody else's membership that is changed becomes ours only where everything is ours.
            let exclusive = self.desired.access_mode == Some(AccessMode::Exclusive);
            let managed = there.is_none_or(|member| member.managed || exclusive);
            let action = Action::SetMember {
                key: key.clone(),
                principal_id: there.map(|member| member.principal_id.clone()),
                name: wanted.name.clone(),
                input: MemberInput {
                    role: wanted.role,
                    expires_at: wanted.expires_at,
                    reason: wanted.reason.clone(),
                    managed,
                },
                had: there.map(|member| member.role),
            };
            steps.push(step(action, Aspect::Access, self.access_origin()));
        }
        steps
    }

    fn removed_requests(&self) -> Vec<Step> {
        self.observed
            .requests
            .iter()
            .filter(|request| request.input.managed && !self.desired.requests.contains_key(&request.name))
            .map(|request| step(Action::DeleteRequest { name: request.name.clone() }, Aspect::Sharing, Origin::Spec))
            .collect()
    }

    fn set_requests(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (name, wanted) in &self.desired.requests {
            let there = self.observed.requests.iter().find(|request| request.name == *name);
            if there.is_some_and(|request| request.input == *wanted) {
                continue;
            }
            let mark_only = there
                .is_some_and(|request| UploadRequestInput { managed: wanted.managed, ..request.input.clone() } == *wanted);
            let (name, input) = (name.clone(), wanted.clone());
            let action = Action::PutRequest { name, input, exists: there.is_some(), mark_only };
            steps.push(step(action, Aspect::Sharing, self.sharing_origin()));
        }
        steps
    }
}

/// A difference in an aspect that is declared as it was last applied comes from somebody else.
fn origin(now: &str, last: &str) -> Origin {
    if now == last { Origin::Drift } else { Origin::Spec }
}

fn step(action: Action, aspect: Aspect, origin: Origin) -> Step {
    Step { action, aspect, origin }
}

fn listed(what: &[String], otherwise: &str) -> String {
    if what.is_empty() { otherwise.to_owned() } else { what.join(", ") }
}

/// What identifies an observed member.
pub fn key_of(member: &Member) -> MemberKey {
    MemberKey { kind: member.kind, name: member.name.to_lowercase(), path: member.path.clone() }
}

fn holds(member: &Member, wanted: &DesiredMember) -> bool {
    member.role == wanted.role && member.expires_at == wanted.expires_at && member.reason == wanted.reason
}

/// Declared entries that differ are set; entries that were declared once and are not any more are removed.
fn metadata_patch(
    wanted: &BTreeMap<String, String>,
    there: &BTreeMap<String, String>,
    managed: &BTreeSet<String>,
) -> BTreeMap<String, Option<String>> {
    let set = wanted
        .iter()
        .filter(|(key, value)| there.get(*key) != Some(*value))
        .map(|(key, value)| (key.clone(), Some(value.clone())));
    let removed = managed
        .iter()
        .filter_map(|field| field.strip_prefix("metadata/"))
        .filter(|key| !wanted.contains_key(*key) && there.contains_key(*key))
        .map(|key| (key.to_owned(), None));
    set.chain(removed).collect()
}

fn new_workspace(desired: &Desired) -> NewWorkspace {
    let mut managed_fields = desired.metadata_fields();
    managed_fields.extend(desired.sharing.as_ref().map(|_| "sharing".to_owned()));
    NewWorkspace {
        display_name: desired.display_name.clone(),
        classification: desired.classification.clone(),
        metadata: desired.metadata.clone(),
        sharing: desired.sharing.clone(),
        managed_fields: managed_fields.into_iter().collect(),
        owner: None,
    }
}

fn new_folder(path: &str, wanted: &DesiredFolder) -> NewFolder {
    let mark = FolderMark { path: path.to_owned(), fields: wanted.fields(), adopted: false };
    NewFolder {
        path: path.to_owned(),
        classification: wanted.classification.clone(),
        metadata: wanted.metadata.clone(),
        locked: wanted.locked.unwrap_or(false),
        managed_key: Some(mark.text()),
        on_conflict: crate::file360::model::OnConflict::Return,
    }
}

/// What changes on an existing folder, and whether that is its mark only.
fn folder_patch(path: &str, wanted: &DesiredFolder, folder: &Folder) -> Option<(ItemPatch, bool)> {
    let there = FolderMark::parse(folder.managed_key.as_deref());
    let managed = there.as_ref().map(|mark| mark.fields.clone()).unwrap_or_default();
    let mark = FolderMark {
        path: path.to_owned(),
        fields: wanted.fields(),
        adopted: there.as_ref().is_none_or(|mark| mark.adopted),
    };
    let mut patch =
        ItemPatch { metadata: metadata_patch(&wanted.metadata, &folder.metadata, &managed), ..ItemPatch::default() };
    if wanted.classification.is_some() && wanted.classification != folder.classification {
        patch.classification = Some(wanted.classification.clone());
    } else if wanted.classification.is_none() && managed.contains("classification") && folder.classification.is_some() {
        patch.classification = Some(None);
    }
    match wanted.locked {
        Some(locked) if locked != folder.locked => patch.locked = Some(locked),
        None if managed.contains("locked") && folder.locked => patch.locked = Some(false),
        _ => {}
    }
    let mark_only = patch == ItemPatch::default();
    if there.as_ref() != Some(&mark) {
        patch.managed_key = Some(Some(mark.text()));
    }
    (patch != ItemPatch::default()).then_some((patch, mark_only))
}

/// Whether a strayed folder comes back by itself, because a strayed parent is put back.
fn moved_along(desired: &BTreeMap<String, DesiredFolder>, folders: &[Folder], folder: &Folder, path: &str) -> bool {
    parents(path).filter(|parent| desired.contains_key(*parent)).any(|parent| {
        let strayed_parent = folders.iter().find(|candidate| {
            !desired.contains_key(&candidate.path)
                && FolderMark::parse(candidate.managed_key.as_deref()).is_some_and(|mark| mark.path == parent)
        });
        strayed_parent.is_some_and(|candidate| {
            folder.path.strip_prefix(candidate.path.as_str()).is_some_and(|rest| path.strip_prefix(parent) == Some(rest))
        })
    })
}

/// Steps that the status lists of a plan.
const LISTED: usize = 50;

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// How many members, grants, folders and upload requests it removes.
    pub fn removals(&self) -> usize {
        self.steps.iter().filter(|step| step.action.is_removal()).count()
    }

    /// Identifies exactly these steps: the full content of each counts, not only its line.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for step in &self.steps {
            hash.update(format!("{:?}\n", step.action));
        }
        hex(&hash.finalize()[..16])
    }

    /// The plan as shown in the status.
    pub fn status(&self) -> PlanStatus {
        let count = |wanted: fn(&Action) -> bool| {
            u32::try_from(self.steps.iter().filter(|step| wanted(&step.action)).count()).unwrap_or(u32::MAX)
        };
        PlanStatus {
            hash: self.hash(),
            create: count(Action::is_creation),
            update: count(|action| !action.is_creation() && !action.is_removal()),
            remove: count(Action::is_removal),
            actions: self
                .steps
                .iter()
                .take(LISTED)
                .map(|step| crate::error::clean(&step.action.to_string(), 1200))
                .collect(),
            truncated: self.steps.len() > LISTED,
        }
    }
}

/// Steps that come before all others for a workspace that was found: out of the trash, out of the archive, under our mark.
pub fn take_up(workspace: &Workspace, mine: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if workspace.state == WorkspaceState::Trashed {
        steps.push(step(Action::Restore, Aspect::Workspace, Origin::Spec));
    }
    if !mine {
        steps.push(step(Action::TakeOwnership, Aspect::Workspace, Origin::Spec));
    }
    if workspace.state == WorkspaceState::Archived {
        steps.push(step(Action::Activate, Aspect::Workspace, Origin::Spec));
    }
    steps
}

/// When the earliest membership or request that stands in `observed` ends.
pub fn next_expiry(observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let members = observed.members.iter().filter_map(|member| member.expires_at);
    let requests = observed.requests.iter().filter_map(|request| request.input.expires_at);
    members.chain(requests).filter(|end| *end > now).min()
}

#[cfg(test)]
mod tests;
