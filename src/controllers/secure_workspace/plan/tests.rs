//! The planner against a model of File 360.

use proptest::prelude::*;

use super::*;
use crate::api::SecureWorkspaceSpec;
use crate::file360::model::{PrincipalKind, Role, WorkspaceState};

fn desired(spec: &serde_json::Value) -> Desired {
    let mut whole = serde_json::json!({"connectionRef": {"name": "c"}, "displayName": "w"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let spec: SecureWorkspaceSpec = serde_json::from_value(whole).unwrap();
    Desired::of(&spec, Timestamp::UNIX_EPOCH).unwrap()
}

/// A workspace as the operator leaves it for `desired`: a model of File 360 that the steps are run against.
#[derive(Clone)]
struct Model(Observed);

impl Model {
    fn empty() -> Self {
        Self(Observed::nothing())
    }

    fn named(name: &str) -> Self {
        let mut model = Self::empty();
        model.create(&NewWorkspace {
            display_name: name.into(),
            classification: None,
            metadata: BTreeMap::new(),
            sharing: None,
            managed_fields: Vec::new(),
            owner: None,
        });
        model
    }

    fn create(&mut self, new: &NewWorkspace) {
        self.0.workspace = Some(Workspace {
            id: "w1".into(),
            key: None,
            revision: 1,
            content_revision: None,
            display_name: new.display_name.clone(),
            classification: new.classification.clone(),
            metadata: new.metadata.clone(),
            sharing: new.sharing.clone().unwrap_or_default(),
            managed_fields: new.managed_fields.clone(),
            owner: None,
            state: WorkspaceState::Active,
            purge_at: None,
            root_id: "root".into(),
            url: String::new(),
            etag: String::new(),
        });
    }

    fn with_member(mut self, name: &str, role: Role, managed: bool) -> Self {
        self.0.members.push(Member {
            principal_id: name.into(),
            kind: PrincipalKind::User,
            name: name.into(),
            path: "/".into(),
            role,
            expires_at: None,
            reason: None,
            managed,
        });
        self
    }

    fn with_folder(mut self, path: &str, mark: Option<&str>, children: u64) -> Self {
        let mark = mark.map(|path| FolderMark { path: path.into(), fields: BTreeSet::new(), adopted: false }.text());
        self.0.folders.push(Folder {
            id: format!("id of {path}"),
            path: path.into(),
            classification: None,
            metadata: BTreeMap::new(),
            locked: false,
            managed_key: mark,
            children,
            etag: String::new(),
        });
        self.0.folders.sort_by(|a, b| a.path.cmp(&b.path));
        self
    }

    fn run(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.step(&step.action));
        self.0.folders.sort_by(|a, b| a.path.cmp(&b.path));
    }

    fn step(&mut self, action: &Action) {
        match action {
            Action::Create(new) => self.create(new),
            Action::Patch { patch, .. } => self.patch(patch),
            Action::CreateFolder(new) => self.0.folders.push(Folder {
                id: format!("id of {}", new.path),
                path: new.path.clone(),
                classification: new.classification.clone(),
                metadata: new.metadata.clone(),
                locked: new.locked,
                managed_key: new.managed_key.clone(),
                children: 0,
                etag: String::new(),
            }),
            Action::PatchFolder { id, patch, .. } => {
                let folder = self.0.folders.iter_mut().find(|folder| folder.id == *id).unwrap();
                apply_metadata(&mut folder.metadata, &patch.metadata);
                if let Some(classification) = &patch.classification {
                    folder.classification.clone_from(classification);
                }
                folder.locked = patch.locked.unwrap_or(folder.locked);
                if let Some(mark) = &patch.managed_key {
                    folder.managed_key.clone_from(mark);
                }
            }
            Action::DeleteFolder { id, .. } => self.0.folders.retain(|folder| folder.id != *id),
            Action::SetMember { key, input, .. } => {
                self.0.members.retain(|member| key_of(member) != *key);
                self.0.members.push(Member {
                    principal_id: key.name.clone(),
                    kind: key.kind,
                    name: key.name.clone(),
                    path: key.path.clone(),
                    role: input.role,
                    expires_at: input.expires_at,
                    reason: input.reason.clone(),
                    managed: input.managed,
                });
            }
            Action::RemoveMember { key, .. } => self.0.members.retain(|member| key_of(member) != *key),
            other => panic!("the model does not know {other}"),
        }
    }

    fn patch(&mut self, patch: &WorkspacePatch) {
        let workspace = self.0.workspace.as_mut().unwrap();
        if let Some(name) = &patch.display_name {
            workspace.display_name.clone_from(name);
        }
        if let Some(classification) = &patch.classification {
            workspace.classification.clone_from(classification);
        }
        apply_metadata(&mut workspace.metadata, &patch.metadata);
        if let Some(sharing) = &patch.sharing {
            workspace.sharing = sharing.clone().unwrap_or_default();
        }
        if let Some(fields) = &patch.managed_fields {
            workspace.managed_fields.clone_from(fields);
        }
    }
}

fn apply_metadata(metadata: &mut BTreeMap<String, String>, patch: &BTreeMap<String, Option<String>>) {
    for (key, value) in patch {
        match value {
            Some(value) => metadata.insert(key.clone(), value.clone()),
            None => metadata.remove(key),
        };
    }
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.action.to_string()).collect()
}

fn members(names: &[&str]) -> serde_json::Value {
    let members: Vec<_> =
        names.iter().map(|name| serde_json::json!({"kind": "User", "name": name, "role": "Viewer"})).collect();
    serde_json::json!({"access": {"members": members}})
}

#[test]
fn a_stranger_is_revoked_before_anyone_is_granted() {
    let observed = Model::named("w").with_member("mallory", Role::Owner, false).0;
    let plan = plan(&desired(&members(&["ada"])), &observed, None, None);
    assert_eq!(lines(&plan), ["remove member mallory (User): Owner on /", "add member ada (User): Viewer on /"]);
}

#[test]
fn c5_an_undeclared_aspect_removes_nothing() {
    let observed = Model::named("w").with_member("ada", Role::Owner, false).with_folder("/Theirs", None, 0).0;
    assert!(plan(&desired(&serde_json::json!({})), &observed, None, None).is_empty());
}

#[test]
fn names_compare_without_case() {
    let observed = Model::named("w").with_member("Ada", Role::Viewer, true).0;
    assert!(plan(&desired(&members(&["ADA"])), &observed, None, None).is_empty());
}

#[test]
fn a_renamed_folder_is_moved_back_and_not_made_anew() {
    let observed = Model::named("w").with_folder("/Renamed", Some("/Inbox"), 7).0;
    let plan = plan(&desired(&serde_json::json!({"folders": [{"path": "/Inbox"}]})), &observed, None, None);
    assert_eq!(lines(&plan), ["move folder /Renamed back to /Inbox"]);
}

#[test]
fn a_request_that_people_made_just_so_is_marked_and_lets_nobody_in() {
    let spec = serde_json::json!({"folders": [{"path": "/In"}], "uploadRequests": [{"name": "docs", "path": "/In"}]});
    let desired = desired(&spec);
    let wanted = desired.requests["docs"].clone();
    let of_people = |change: fn(&mut UploadRequestInput)| {
        let mut observed = Model::named("w").with_folder("/In", Some("/In"), 0).0;
        let mut input = UploadRequestInput { managed: false, ..wanted.clone() };
        change(&mut input);
        observed.requests = vec![UploadRequest {
            id: "r1".into(),
            name: "docs".into(),
            input,
            checklist: Vec::new(),
            url: None,
            etag: String::new(),
        }];
        plan(&desired, &observed, None, None)
    };
    let lets_in = |plan: &Plan| plan.steps.iter().any(|step| step.action.lets_outsiders_in());
    let same = of_people(|_| {});
    assert_eq!(lines(&same), ["mark upload request docs as declared"]);
    assert!(!lets_in(&same), "whoever gets in by it got in before");
    let other = of_people(|input| input.require_email = !input.require_email);
    assert_eq!(lines(&other), ["change upload request docs"]);
    assert!(lets_in(&other));
}

#[test]
fn only_empty_own_folders_are_removed_children_first() {
    let observed = Model::named("w")
        .with_folder("/A", Some("/A"), 1)
        .with_folder("/A/B", Some("/A/B"), 0)
        .with_folder("/C", Some("/C"), 1)
        .with_folder("/C/file", None, 0)
        .with_folder("/D", None, 0)
        .0;
    let plan = plan(&desired(&serde_json::json!({})), &observed, None, None);
    assert_eq!(lines(&plan), ["remove empty folder /A/B", "remove empty folder /A"]);
    assert_eq!(plan.kept_folders, ["/C"]);
    assert_eq!(plan.removals(), 2);
}

#[test]
fn the_drift_policy_tells_spec_changes_from_others_changes() {
    let desired = desired(&members(&["ada"]));
    let observed = Model::named("w").with_member("mallory", Role::Viewer, false).0;
    let warn = Drift { access: Some(DriftPolicy::Warn), ..Drift::default() };
    let fresh = plan(&desired, &observed, None, Some(&warn));
    assert_eq!(lines(&fresh), ["add member ada (User): Viewer on /"], "the spec changed: what it declares is applied");
    assert_eq!(fresh.tolerated.len(), 1, "the stranger was not the spec's");
    let known = plan(&desired, &observed, Some(&desired.applied), Some(&warn));
    assert!(known.is_empty());
    assert_eq!(known.tolerated.len(), 2);
}

#[test]
fn the_hash_covers_what_the_lines_do_not_show() {
    let hash = |name: &str, value: &str| {
        let desired = desired(&serde_json::json!({"displayName": name, "metadata": {"a": value}}));
        plan(&desired, &Observed::nothing(), None, None).hash()
    };
    assert_eq!(hash("w", "1"), hash("w", "1"));
    assert_ne!(hash("w", "1"), hash("w", "2"));
    assert_ne!(hash("w", "1"), hash("v", "1"));
}

fn specs() -> impl Strategy<Value = serde_json::Value> {
    let member = (0..3u8, prop::sample::select(vec!["Viewer", "Editor"]));
    let members = prop::collection::btree_map("[ab]", member, 0..3).prop_map(|members| {
        let members: Vec<_> = members
            .into_iter()
            .map(|(name, (kind, role))| {
                let kind = ["User", "Group", "User"][usize::from(kind)];
                serde_json::json!({"kind": kind, "name": name, "role": role})
            })
            .collect();
        serde_json::Value::from(members)
    });
    let folders = prop::sample::subsequence(vec!["/A", "/A/B", "/C"], 0..4);
    let locked = prop::option::of(any::<bool>());
    let mode = prop::option::of(prop::sample::select(vec!["Additive", "Exclusive"]));
    let metadata = prop::option::of(prop::collection::btree_map("[xy]", "[12]", 0..3));
    (members, folders, locked, mode, metadata, any::<bool>()).prop_map(
        |(members, folders, locked, mode, metadata, sharing)| {
            let folders: Vec<_> = folders
                .into_iter()
                .map(|path| match locked {
                    Some(locked) => serde_json::json!({"path": path, "locked": locked, "members": members}),
                    None => serde_json::json!({"path": path}),
                })
                .collect();
            let mut spec = serde_json::json!({"folders": folders});
            if let Some(mode) = mode {
                spec["access"] = serde_json::json!({"mode": mode, "members": members});
            }
            if let Some(metadata) = metadata {
                spec["metadata"] = serde_json::json!(metadata);
            }
            if sharing {
                spec["sharing"] = serde_json::json!({"external": "Anyone"});
            }
            spec
        },
    )
}

proptest! {
    #[test]
    fn c8_after_a_plan_has_run_the_next_one_is_empty(spec in specs(), before in specs()) {
        let mut model = Model::empty();
        let before = desired(&before);
        model.run(&plan(&before, &model.0, None, None).steps);
        let after = desired(&spec);
        model.run(&plan(&after, &model.0, Some(&before.applied), None).steps);
        let again = plan(&after, &model.0, Some(&after.applied), None);
        prop_assert!(again.is_empty(), "{:?}", lines(&again));
    }

    #[test]
    fn c3_from_a_to_b_is_as_b_alone(a in specs(), b in specs()) {
        let (a, b) = (desired(&a), desired(&b));
        let mut changed = Model::empty();
        changed.run(&plan(&a, &changed.0, None, None).steps);
        changed.run(&plan(&b, &changed.0, Some(&a.applied), None).steps);
        let mut fresh = Model::empty();
        fresh.run(&plan(&b, &fresh.0, None, None).steps);
        for model in [&mut changed, &mut fresh] {
            model.0.members.sort_by_key(key_of);
        }
        prop_assert_eq!(changed.0, fresh.0);
    }
}
