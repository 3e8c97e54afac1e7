//! From a workspace that is there to the manifest that declares it as it is. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::names::owner;
use super::{Failure, ImportArgs, failed};
use crate::api::common::ConnectionRef;
use crate::api::connection::MaxSharing;
use crate::api::secure_workspace::{
    Access, AccessMode, Adoption, ExternalRef, FolderSpec, LinkLimits, MemberKind, MemberSpec, Mode, SecureWorkspaceSpec,
    Sharing, UploadField, UploadRequestSpec,
};
use crate::api::{Connection, GROUP, VERSION};
use crate::cli::check::Checker;
use crate::controllers::grants;
use crate::controllers::secure_workspace::desired::{Desired, FolderMark};
use crate::controllers::secure_workspace::plan::{Action, Observed, plan};
use crate::controllers::secure_workspace::unsupported;
use crate::file360::feature::Enforcement;
use crate::file360::model::{
    Audience, FieldKind, Folder, Member, OwnerState, PrincipalKind, RequestField, SharingRules, UploadRequest, Workspace,
    WorkspacePatch,
};
use crate::plugin::text::line;
use crate::reconcile::ObjectKey;

/// Most folders that a manifest can declare.
const MOST_FOLDERS: usize = 500;
/// Most members of a workspace that a manifest can declare.
const MOST_MEMBERS: usize = 500;
/// Most grants below one folder that a manifest can declare.
const MOST_GRANTS: usize = 100;
/// Most upload requests that a manifest can declare.
const MOST_REQUESTS: usize = 32;
/// Longest mark that File 360 keeps with a folder.
const LONGEST_MARK: usize = 1024;
/// What etcd takes, with some room for the status.
const LARGEST: usize = 1_000_000;

/// A manifest, and what is to be said about it.
pub struct Manifest {
    /// The document.
    pub document: Value,
    /// Which workspace it is, in one line.
    pub title: String,
    /// What the first apply would change besides bookkeeping, or why it would be refused.
    pub changes: Vec<String>,
    /// What is not declared.
    notes: Vec<String>,
}

impl Manifest {
    /// Name of the object.
    pub fn name(&self) -> &str {
        self.document["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Everything that a person should read before they apply it, a line each.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let changes = self.changes.iter().map(|change| format!("ATTENTION: {}", line(change, 1000)));
        changes.chain(self.notes.iter().map(|note| line(note, 1000)))
    }
}

/// Writes manifests for one Connection.
pub struct Writer<'a> {
    checker: Checker,
    namespace: &'a str,
    connection: ObjectKey,
    ceiling: Option<&'a MaxSharing>,
    enforcement: Enforcement,
    args: &'a ImportArgs,
    now: Timestamp,
}

impl<'a> Writer<'a> {
    /// For manifests in `namespace`.
    pub fn new(
        namespace: &'a str,
        key: &ObjectKey,
        connection: &'a Connection,
        enforcement: Enforcement,
        args: &'a ImportArgs,
    ) -> Result<Self, Failure> {
        let ceiling = connection.spec.sharing.as_ref().map(|sharing| &sharing.max);
        let checker = Checker::new().map_err(failed)?;
        Ok(Self { checker, namespace, connection: key.clone(), ceiling, enforcement, args, now: Timestamp::now() })
    }

    /// The manifest of one workspace; `name` has a namespace when its mark says one.
    pub fn manifest(&self, observed: &Observed, workspace: &Workspace, name: (Option<String>, String)) -> Manifest {
        let (own, name) = name;
        let namespace = own.unwrap_or_else(|| self.namespace.to_owned());
        let mut draft = Draft { writer: self, observed, workspace, notes: Vec::new() };
        // What the driver cannot honour is nothing that the workspace has.
        let (spec, _) = unsupported::split(&draft.spec(&namespace), &self.enforcement);
        let mut notes = draft.notes;
        if let Some(owner) = &workspace.owner {
            let what = if owner.state == OwnerState::Active { "Managed" } else { "Released" };
            notes.insert(0, format!("{what} by {}/{} of cluster {}", owner.namespace, owner.name, owner.cluster_id));
            let lost = "Not known to File 360, and so not here: writeUrlTo, drift, deletionPolicy and other settings of its resource.";
            notes.insert(1, lost.into());
        }
        let mut changes = self.changes(&spec, observed);
        let document = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "SecureWorkspace",
            "metadata": {"namespace": namespace, "name": name}, "spec": spec,
        });
        changes
            .extend(self.checker.findings(&document).into_iter().map(|finding| format!("it would be refused: {finding}")));
        if document.to_string().len() > LARGEST {
            changes.push("it is larger than what the API server takes".into());
        }
        let title = format!("{} ({})", line(&workspace.display_name, 100), line(&workspace.id, 128));
        Manifest { document, title, changes, notes }
    }

    /// What the first pass would do besides bookkeeping.
    fn changes(&self, spec: &SecureWorkspaceSpec, observed: &Observed) -> Vec<String> {
        let desired = match Desired::of(spec, self.now) {
            Ok(desired) => desired,
            Err(error) => return vec![format!("it would be refused: {error}")],
        };
        let mut changes: Vec<String> = plan(&desired, observed, None, None)
            .steps
            .into_iter()
            .filter(|step| !is_bookkeeping(&step.action))
            .map(|step| format!("the first pass would {}", step.action))
            .collect();
        // A rule that nobody declares counts, too, but for the one that every new workspace has.
        let undeclared = observed.workspace.as_ref().map(|workspace| &workspace.sharing);
        let rules = desired.sharing.as_ref().or(undeclared.filter(|rules| **rules != SharingRules::default()));
        let wider = rules.zip(self.ceiling).and_then(|(rules, max)| grants::within_ceiling(rules, max).err());
        changes.extend(wider.map(|error| format!("it would be refused: {error}")));
        changes
    }
}

/// Whether a step changes nothing that people see: only the operator's marks.
fn is_bookkeeping(action: &Action) -> bool {
    match action {
        Action::TakeOwnership | Action::PatchFolder { mark_only: true, .. } | Action::PutRequest { mark_only: true, .. } => {
            true
        }
        Action::Patch { patch, .. } => {
            *patch == WorkspacePatch { managed_fields: patch.managed_fields.clone(), ..WorkspacePatch::default() }
        }
        _ => false,
    }
}

/// One manifest in the making.
struct Draft<'a> {
    writer: &'a Writer<'a>,
    observed: &'a Observed,
    workspace: &'a Workspace,
    notes: Vec<String>,
}

impl Draft<'_> {
    fn spec(&mut self, namespace: &str) -> SecureWorkspaceSpec {
        let mut spec = self.identity(namespace);
        if self.writer.args.plan {
            spec.mode = Some(Mode::Plan);
        }
        self.properties(&mut spec);
        let mut complete = self.folders(&mut spec);
        complete &= self.members(&mut spec);
        self.access_mode(&mut spec, complete);
        self.requests(&mut spec);
        self.sharing(&mut spec);
        spec
    }

    /// Whether what the workspace's owner declared is known from its mark; else everything is declared.
    fn is_managed(&self) -> bool {
        owner(self.workspace).is_some()
    }

    fn bare(&self, namespace: &str) -> SecureWorkspaceSpec {
        let connection = &self.writer.connection;
        let elsewhere = (*connection.namespace != *namespace).then(|| connection.namespace.to_string());
        SecureWorkspaceSpec {
            connection_ref: ConnectionRef { name: connection.name.to_string(), namespace: elsewhere },
            display_name: self.workspace.display_name.clone(),
            external_ref: None,
            workspace_id: None,
            classification: None,
            metadata: None,
            mode: None,
            approved_plan: None,
            adoption: None,
            deletion_policy: None,
            delete_grace: None,
            on_delete: None,
            drift: None,
            max_removals: None,
            folders: None,
            access: None,
            sharing: None,
            report: None,
            upload_requests: None,
            required_documents: None,
            reminders: None,
            time_zone: None,
            suspend: None,
            suspend_reason: None,
            suspend_until: None,
        }
    }

    /// Found again by its business key if that can be declared, else by its id.
    fn identity(&mut self, namespace: &str) -> SecureWorkspaceSpec {
        let mut spec = self.bare(namespace);
        let key = self.workspace.key.as_ref();
        if self.is_managed() && key.is_some_and(|key| key.system == "k8s") {
            // Its key is made of cluster, namespace and name.
            return spec;
        }
        if let Some((key, (kind, id))) =
            key.and_then(|key| Some((key, key.key.split_once('/')?))).filter(|(key, _)| key.system != "k8s")
        {
            let external = ExternalRef { system: key.system.clone(), kind: kind.to_owned(), id: id.to_owned() };
            let candidate = SecureWorkspaceSpec { external_ref: Some(external), ..spec.clone() };
            if self.fits(&candidate) {
                return SecureWorkspaceSpec { adoption: Some(Adoption::AdoptOrCreate), ..candidate };
            }
        }
        if let Some(key) = key {
            self.notes.push(format!("Its key {} {} cannot be an externalRef.", key.system, key.key));
        }
        spec.workspace_id = Some(self.workspace.id.clone());
        spec.adoption = Some(Adoption::AdoptOnly);
        if spec.connection_ref.namespace.is_some() {
            self.notes.push("Adoption by workspaceId from here needs a grant with scope: Tenant.".into());
        }
        spec
    }

    fn fits(&self, spec: &SecureWorkspaceSpec) -> bool {
        let document = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "SecureWorkspace", "metadata": {"name": "x"}, "spec": spec});
        self.writer.checker.findings(&document).is_empty()
    }

    /// The items that a manifest can express, tried together and else one by one; each that cannot be is noted.
    fn expressible<T: Clone>(
        &mut self,
        what: &str,
        items: Vec<T>,
        name: impl Fn(&T) -> String,
        put: impl Fn(&mut SecureWorkspaceSpec, Vec<T>),
    ) -> Vec<T> {
        let fits = |draft: &Self, items: Vec<T>| {
            let mut spec = draft.bare("x");
            put(&mut spec, items);
            draft.fits(&spec)
        };
        if items.is_empty() || fits(self, items.clone()) {
            return items;
        }
        let (good, bad): (Vec<T>, Vec<T>) = items.into_iter().partition(|item| fits(self, vec![item.clone()]));
        self.notes.extend(
            bad.iter().map(|item| format!("Not declared, since a manifest cannot express it: {what} {}", name(item))),
        );
        good
    }

    fn properties(&mut self, spec: &mut SecureWorkspaceSpec) {
        let workspace = self.workspace;
        let is_managed = self.is_managed();
        let is_declared = |field: &str| !is_managed || workspace.managed_fields.iter().any(|known| known == field);
        let metadata: Vec<(String, String)> = workspace
            .metadata
            .iter()
            .filter(|(key, _)| is_declared(&format!("metadata/{key}")))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let metadata = self.expressible(
            "metadata",
            metadata,
            |(key, _)| key.clone(),
            |spec, entries| {
                spec.metadata = Some(entries.into_iter().collect());
            },
        );
        spec.metadata = (!metadata.is_empty()).then(|| metadata.into_iter().collect());
        spec.classification = workspace.classification.clone().filter(|_| is_declared("classification"));
    }

    /// Whether all folders and grants are declared.
    fn folders(&mut self, spec: &mut SecureWorkspaceSpec) -> bool {
        let is_managed = self.is_managed();
        let marked = |folder: &&Folder| !is_managed || FolderMark::parse(folder.managed_key.as_deref()).is_some();
        let mut folders: Vec<FolderSpec> =
            self.observed.folders.iter().filter(marked).map(|folder| self.folder(folder)).collect();
        let declared = folders.len();
        let grants = folders.iter().filter(|folder| folder.members.is_some()).count();
        // What says something comes first; the sort keeps the order of paths.
        folders.sort_by_key(|folder| (folder.members.is_none(), is_plain(folder)));
        let mut folders =
            self.expressible("folder", folders, |folder| folder.path.clone(), |spec, folders| spec.folders = Some(folders));
        if folders.len() > MOST_FOLDERS {
            self.notes.push(format!(
                "Not declared: {} folders beyond the {MOST_FOLDERS} that a manifest can have.",
                declared - MOST_FOLDERS
            ));
            folders.truncate(MOST_FOLDERS);
        }
        let complete = folders.iter().filter(|folder| folder.members.is_some()).count() == grants;
        folders.sort_by(|a, b| a.path.cmp(&b.path));
        let all_grants = folders.iter().map(|folder| folder.members.as_ref().map_or(0, Vec::len)).sum::<usize>();
        let below = |member: &&Member| member.path != "/" && self.is_declared_member(member);
        let complete = complete && all_grants == self.observed.members.iter().filter(below).count();
        spec.folders = (!folders.is_empty()).then_some(folders);
        complete
    }

    fn folder(&mut self, folder: &Folder) -> FolderSpec {
        let mark = FolderMark::parse(folder.managed_key.as_deref()).filter(|_| self.is_managed());
        let is_declared = |field: &str| mark.as_ref().is_none_or(|mark| mark.fields.contains(field));
        let metadata = folder.metadata.iter().filter(|(key, _)| is_declared(&format!("metadata/{key}")));
        let metadata: std::collections::BTreeMap<String, String> =
            metadata.map(|(key, value)| (key.clone(), value.clone())).collect();
        let grants: Vec<MemberSpec> = self.member_specs(&folder.path);
        let grants = self.expressible(
            "grant of",
            grants,
            |member| member.name.clone(),
            |spec, members| {
                spec.folders = Some(vec![FolderSpec {
                    path: "/x".into(),
                    classification: None,
                    metadata: None,
                    locked: None,
                    members: Some(members),
                }]);
            },
        );
        let mut result = FolderSpec {
            path: folder.path.clone(),
            classification: folder.classification.clone().filter(|_| is_declared("classification")),
            metadata: (!metadata.is_empty()).then_some(metadata),
            locked: (mark.as_ref().is_some_and(|mark| mark.fields.contains("locked"))
                || folder.locked && is_declared("locked"))
            .then_some(folder.locked),
            members: (!grants.is_empty() && grants.len() <= MOST_GRANTS).then_some(grants),
        };
        if mark_of(&result) > LONGEST_MARK {
            self.notes.push(format!("Not declared, since the mark would be too long: metadata of folder {}", result.path));
            result.metadata = None;
        }
        result
    }

    /// Whether all members are declared.
    fn members(&mut self, spec: &mut SecureWorkspaceSpec) -> bool {
        let there =
            self.observed.members.iter().filter(|member| member.path == "/" && self.is_declared_member(member)).count();
        let members = self.member_specs("/");
        let mut members = self.expressible(
            "member",
            members,
            |member| member.name.clone(),
            |spec, members| {
                spec.access = Some(Access { mode: None, members: Some(members) });
            },
        );
        if members.len() > MOST_MEMBERS {
            self.notes.push(format!(
                "Not declared: {} members beyond the {MOST_MEMBERS} that a manifest can have.",
                members.len() - MOST_MEMBERS
            ));
            members.truncate(MOST_MEMBERS);
        }
        let complete = members.len() == there;
        spec.access = Some(Access { mode: None, members: (!members.is_empty()).then_some(members) });
        complete
    }

    fn is_declared_member(&self, member: &Member) -> bool {
        member.managed || !self.is_managed()
    }

    fn member_specs(&self, path: &str) -> Vec<MemberSpec> {
        let here = self.observed.members.iter().filter(|member| member.path == path && self.is_declared_member(member));
        let mut specs: Vec<MemberSpec> = here.filter_map(member_spec).collect();
        specs.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        specs
    }

    /// `Exclusive` only where it removes nobody, and on request or because the owner had everything.
    fn access_mode(&mut self, spec: &mut SecureWorkspaceSpec, complete: bool) {
        let all_managed = self.is_managed() && self.observed.members.iter().all(|member| member.managed);
        let wanted = self.writer.args.exclusive || all_managed;
        let all_declared = complete && self.observed.members.iter().all(|member| self.is_declared_member(member));
        if wanted && !all_declared {
            self.notes.push("access.mode is Additive, since not every member and grant is declared.".into());
        }
        let mode = if wanted && all_declared { AccessMode::Exclusive } else { AccessMode::Additive };
        if let Some(access) = spec.access.as_mut() {
            access.mode = Some(mode);
        }
    }

    fn requests(&mut self, spec: &mut SecureWorkspaceSpec) {
        let is_managed = self.is_managed();
        let wanted = self.observed.requests.iter().filter(|request| !is_managed || request.input.managed);
        // The API server refuses a choice that is there twice, which the schema alone does not tell.
        let (requests, twice): (Vec<_>, Vec<_>) = wanted.map(request_spec).partition(has_distinct_options);
        self.notes.extend(
            twice
                .iter()
                .map(|request| format!("Not declared, since a choice is there twice: upload request {}", request.name)),
        );
        let mut requests = self.expressible(
            "upload request",
            requests,
            |request| request.name.clone(),
            |spec, requests| {
                spec.upload_requests = Some(requests);
            },
        );
        if requests.len() > MOST_REQUESTS {
            self.notes.push(format!(
                "Not declared: {} upload requests beyond the {MOST_REQUESTS} that a manifest can have.",
                requests.len() - MOST_REQUESTS
            ));
            requests.truncate(MOST_REQUESTS);
        }
        spec.upload_requests = (!requests.is_empty()).then_some(requests);
    }

    /// Declared when it says something, and when the members fit it; else it stays as it is.
    fn sharing(&mut self, spec: &mut SecureWorkspaceSpec) {
        let rules = &self.workspace.sharing;
        let is_declared = self.workspace.managed_fields.iter().any(|field| field == "sharing");
        if !is_declared && (self.is_managed() || *rules == SharingRules::default()) {
            return;
        }
        spec.sharing = Some(sharing_spec(rules));
        if !self.fits(spec) {
            spec.sharing = None;
            self.notes.push("Not declared, since a manifest cannot express it together with the guests: the sharing rule. It stays as it is.".into());
        }
    }
}

fn is_plain(folder: &FolderSpec) -> bool {
    folder.classification.is_none() && folder.metadata.is_none() && folder.locked.is_none()
}

/// Length of the mark that the operator will put on the folder.
fn mark_of(folder: &FolderSpec) -> usize {
    let mut fields: std::collections::BTreeSet<String> =
        folder.metadata.iter().flatten().map(|(key, _)| format!("metadata/{key}")).collect();
    fields.extend(folder.classification.as_ref().map(|_| "classification".to_owned()));
    fields.extend(folder.locked.map(|_| "locked".to_owned()));
    FolderMark { path: folder.path.clone(), fields, adopted: true }.text().chars().count()
}

fn member_spec(member: &Member) -> Option<MemberSpec> {
    let kind = match member.kind {
        PrincipalKind::User => MemberKind::User,
        PrincipalKind::Group => MemberKind::Group,
        PrincipalKind::Guest => MemberKind::Guest,
        PrincipalKind::Client => return None,
    };
    let reason = member.reason.clone();
    Some(MemberSpec { kind, name: member.name.clone(), role: member.role, expires_at: member.expires_at, reason })
}

fn request_spec(request: &UploadRequest) -> UploadRequestSpec {
    let input = &request.input;
    UploadRequestSpec {
        name: request.name.clone(),
        path: input.path.clone(),
        require_email: input.require_email.then_some(true),
        expires_at: input.expires_at,
        fields: (!input.fields.is_empty()).then(|| input.fields.iter().map(field_spec).collect()),
        write_url_to: None,
    }
}

fn has_distinct_options(request: &UploadRequestSpec) -> bool {
    request.fields.iter().flatten().filter_map(|field| field.options.as_ref()).all(|options| {
        let distinct: std::collections::BTreeSet<&String> = options.iter().collect();
        distinct.len() == options.len()
    })
}

fn field_spec(field: &RequestField) -> UploadField {
    UploadField {
        name: field.name.clone(),
        label: (field.label != field.name).then(|| field.label.clone()),
        kind: (field.kind != FieldKind::Text).then_some(field.kind),
        options: (!field.options.is_empty()).then(|| field.options.clone()),
        required: field.required.then_some(true),
    }
}

fn sharing_spec(rules: &SharingRules) -> Sharing {
    let links = LinkLimits {
        max_audience: (rules.links.max_audience != Audience::Members).then_some(rules.links.max_audience),
        max_days: rules.links.max_days,
        password_required: rules.links.password_required.then_some(true),
        download: (!rules.links.download).then_some(false),
    };
    Sharing {
        external: rules.external,
        allowed_domains: (!rules.allowed_domains.is_empty()).then(|| rules.allowed_domains.clone()),
        reshare: rules.reshare.then_some(true),
        links: (links != LinkLimits::default()).then_some(links),
    }
}
