//! Workspaces: making, finding, changing, owning.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{Outcome, sharing};
use crate::file360::model::{
    BusinessKey, ChangeKind, NewWorkspace, OwnerMark, OwnerState, SharingRules, Workspace, WorkspacePatch, WorkspaceRow,
    WorkspaceState,
};
use crate::server::call::Answer;
use crate::server::names;
use crate::server::operation::Scope;
use crate::server::records::workspaces::{self as records, STATES};
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx, View};

/// Most metadata entries of a workspace or item.
pub const MAX_METADATA: usize = 64;

/// `GET /v1/workspaces/{id}`
pub fn get(view: &View<'_>) -> Outcome {
    let found = records::by_id(view, view.call.param("id"))?;
    found.authorize(view)?;
    show(view, &found.public)
}

/// `GET /v1/workspaces/by-key/{system}/{key}`
pub fn get_by_key(view: &View<'_>) -> Outcome {
    let found = records::by_key(view, &key_of(view)?)?.ok_or_else(|| Refusal::not_found("workspace"))?;
    found.authorize(view)?;
    show(view, &found.public)
}

fn show(view: &View<'_>, workspace: &Workspace) -> Outcome {
    if view.call.is_unchanged(&workspace.etag) {
        return Ok(Answer::empty(304).tagged(&workspace.etag));
    }
    Ok(Answer::ok(workspace)?.tagged(&workspace.etag))
}

fn key_of(view: &View<'_>) -> Result<BusinessKey, Refusal> {
    let key = BusinessKey { system: view.call.param("system").to_owned(), key: view.call.param("key").to_owned() };
    names::required_text(&key.system, 128, "system")?;
    names::required_text(&key.key, 512, "key")?;
    Ok(key)
}

/// `GET /v1/workspaces`
pub fn list(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let state = match view.call.query("state") {
        None => None,
        Some("Active") => Some(0),
        Some("Archived") => Some(1),
        Some("Trashed") => Some(2),
        Some(_) => return Err(Refusal::malformed("`state` is Active, Archived or Trashed.").at("state", "Not a state.")),
    };
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let cluster = view.call.query("clusterId");
    // One statement per combination, so that each is served by its own index.
    let filter = match (cluster, state) {
        (Some(_), _) => "owner_cluster = ?3 AND (?4 IS NULL OR state = ?4)",
        (None, Some(_)) => "?3 IS NULL AND state = ?4",
        (None, None) => "?3 IS NULL AND ?4 IS NULL",
    };
    let mine = if view.person.is_some() {
        "AND id IN (SELECT workspace_id FROM members WHERE state = 0 AND principal_id IN
                     (SELECT ?5 UNION ALL SELECT group_id FROM group_members WHERE member_id = ?5)) AND state < 2"
    } else {
        "AND ?5 IS NULL"
    };
    let mut find = view.db.prepare_cached(&format!(
        "SELECT id, key_system, key_value, display_name, revision, owner, state, content_revision FROM workspaces
         WHERE id > ?1 AND {filter} {mine} ORDER BY id LIMIT ?2"
    ))?;
    let person = view.person.as_ref().map(|person| person.id.as_str());
    let rows = find.query_map(params![after, limit + 1, cluster, state, person], |row| {
        let key = match (row.get::<_, Option<String>>(1)?, row.get::<_, Option<String>>(2)?) {
            (Some(system), Some(key)) => Some(BusinessKey { system, key }),
            _ => None,
        };
        let owner: Option<String> = row.get(5)?;
        Ok(WorkspaceRow {
            id: row.get(0)?,
            key,
            display_name: row.get(3)?,
            revision: row.get(4)?,
            content_revision: Some(row.get(7)?),
            owner: owner.map(|text| crate::server::records::json(5, &text)).transpose()?,
            state: crate::server::records::enumerated(6, &STATES, row.get(6)?)?,
        })
    })?;
    let rows = rows.map(|row| row.map(|row| (row.id.clone(), row))).collect::<Result<Vec<_>, _>>()?;
    Answer::page(rows, limit)
}

/// `PUT /v1/workspaces/by-key/{system}/{key}`
pub fn create_by_key(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    if !tx.call.creates_only() {
        return Err(Refusal::new(428, "precondition-required", "The call creates and needs `If-None-Match: *`."));
    }
    let key = key_of(tx)?;
    if let Some(existing) = records::by_key(tx, &key)? {
        return Err(Refusal::new(409, "key-exists", "A workspace with this business key exists.").existing(&existing.public));
    }
    insert(tx, Some(&key))
}

/// `POST /v1/workspaces`
pub fn create(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    insert(tx, None)
}

fn insert(tx: &mut Tx<'_, '_, '_>, key: Option<&BusinessKey>) -> Outcome {
    let new: NewWorkspace = tx.call.json()?;
    validate_properties(&new.display_name, new.classification.as_deref(), &new.metadata, &new.managed_fields)?;
    let sharing = new.sharing.map(sharing::normalised).transpose()?.unwrap_or_default();
    if let Some(owner) = &new.owner {
        validate_owner(owner)?;
        if tx.person.is_some() {
            return Err(Refusal::new(403, "forbidden", "Only client applications set ownership marks.").audited());
        }
    }
    let (id, root_id) = (tx.id('w'), tx.id('f'));
    let (now, actor) = (tx.now.as_millisecond(), serde_json::to_string(&tx.actor)?);
    let mut insert = tx.db.prepare_cached(
        "INSERT INTO workspaces (id, key_system, key_value, revision, display_name, classification, metadata, sharing, managed_fields,
             owner, owner_cluster, owner_client, state, root_id, created_at, created_by)
         VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, ?12, ?13, ?14)",
    )?;
    insert.execute(params![
        id,
        key.map(|key| &key.system),
        key.map(|key| &key.key),
        new.display_name,
        new.classification,
        serde_json::to_string(&new.metadata)?,
        serde_json::to_string(&sharing)?,
        serde_json::to_string(&new.managed_fields)?,
        new.owner.as_ref().map(serde_json::to_string).transpose()?,
        new.owner.as_ref().map(|owner| &owner.cluster_id),
        binding(tx, new.owner.as_ref()),
        root_id,
        now,
        actor,
    ])?;
    drop(insert);
    let mut root = tx.db.prepare_cached(
        "INSERT INTO items (id, workspace_id, kind, parent_id, name, name_fold, rev, created_by, created_at, modified_at)
         VALUES (?1, ?2, 0, NULL, '', '', 1, ?3, ?4, ?4)",
    )?;
    root.execute(params![root_id, id, actor, now])?;
    drop(root);
    if let Some(person) = tx.person.clone() {
        tx.db
            .prepare_cached(
                "INSERT INTO members (workspace_id, principal_id, folder_id, role, managed) VALUES (?1, ?2, ?3, 0, 0)",
            )?
            .execute(params![id, person.id, root_id])?;
    }
    tx.note(|about| about.workspace_id = Some(id.clone()));
    tx.changed(&id, ChangeKind::WorkspaceCreated, News::default())?;
    answer(tx, 201, &id)
}

/// The client that an active mark is bound to.
fn binding(tx: &Tx<'_, '_, '_>, owner: Option<&OwnerMark>) -> Option<String> {
    owner.filter(|owner| owner.state == OwnerState::Active).map(|_| tx.call.client_id().to_owned())
}

/// The workspace as it is now, in the answer to a change.
pub fn answer(tx: &Tx<'_, '_, '_>, status: u16, id: &str) -> Outcome {
    let found = records::find(tx.db, id, &tx.call.public_url)?.ok_or_else(|| Refusal::not_found("workspace"))?;
    tx.concerns(found.public.revision);
    Ok(Answer::json(status, &found.public)?.tagged(&found.public.etag))
}

/// `PATCH /v1/workspaces/{id}`
pub fn update(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let before = records::by_id(tx, tx.call.param("id"))?;
    before.authorize(tx)?;
    let patch: WorkspacePatch = tx.call.json()?;
    tx.call.require_match(&before.public.etag)?;
    let mut after = before.public.clone();
    if let Some(name) = patch.display_name {
        after.display_name = name;
    }
    if let Some(classification) = patch.classification {
        after.classification = classification;
    }
    merge(&mut after.metadata, patch.metadata);
    if let Some(rules) = patch.sharing {
        after.sharing = rules.map_or_else(|| Ok(SharingRules::default()), sharing::normalised)?;
    }
    if let Some(fields) = patch.managed_fields {
        after.managed_fields = fields;
    }
    validate_properties(&after.display_name, after.classification.as_deref(), &after.metadata, &after.managed_fields)?;
    if after != before.public {
        let mut update = tx.db.prepare_cached(
            "UPDATE workspaces SET display_name = ?2, classification = ?3, metadata = ?4, sharing = ?5, managed_fields = ?6 WHERE id = ?1",
        )?;
        update.execute(params![
            after.id,
            after.display_name,
            after.classification,
            serde_json::to_string(&after.metadata)?,
            serde_json::to_string(&after.sharing)?,
            serde_json::to_string(&after.managed_fields)?,
        ])?;
        drop(update);
        tx.changed(&after.id, ChangeKind::WorkspaceUpdated, News::default())?;
    }
    answer(tx, 200, &after.id)
}

/// Applies a merge patch to metadata.
pub fn merge(metadata: &mut BTreeMap<String, String>, patch: BTreeMap<String, Option<String>>) {
    for (name, value) in patch {
        match value {
            Some(value) => metadata.insert(name, value),
            None => metadata.remove(&name),
        };
    }
}

/// `PUT /v1/workspaces/{id}/owner`
pub fn set_owner(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    let before = records::by_id(tx, tx.call.param("id"))?;
    before.authorize(tx)?;
    let owner: OwnerMark = tx.call.json()?;
    validate_owner(&owner)?;
    tx.call.require_match(&before.public.etag)?;
    let caller = tx.call.client_id();
    let foreign = before.facts().bound_to.is_some_and(|bound| bound != caller);
    if foreign && !tx.call.has_scope(Scope::Admin) {
        let detail =
            "Another client's active ownership mark stands; only that client, or one with the scope `admin`, changes it.";
        return Err(Refusal::new(409, "owned-by-other", detail).existing(&before.public).audited());
    }
    let binding = binding(tx, Some(&owner));
    if before.public.owner.as_ref() != Some(&owner) || before.owner_client != binding {
        tx.db
            .prepare_cached("UPDATE workspaces SET owner = ?2, owner_cluster = ?3, owner_client = ?4 WHERE id = ?1")?
            .execute(params![before.public.id, serde_json::to_string(&owner)?, owner.cluster_id, binding])?;
        tx.changed(&before.public.id, ChangeKind::WorkspaceUpdated, News::default())?;
    }
    answer(tx, 200, &before.public.id)
}

fn validate_owner(owner: &OwnerMark) -> Result<(), Refusal> {
    names::required_text(&owner.cluster_id, 253, "/owner/clusterId")?;
    names::required_text(&owner.namespace, 253, "/owner/namespace")?;
    names::required_text(&owner.name, 253, "/owner/name")?;
    names::required_text(&owner.uid, 253, "/owner/uid")
}

fn validate_properties(
    display_name: &str,
    classification: Option<&str>,
    metadata: &BTreeMap<String, String>,
    managed_fields: &[String],
) -> Result<(), Refusal> {
    names::required_text(display_name, 255, "/displayName")?;
    validate_common(classification, metadata)?;
    if managed_fields.len() > 256 {
        return Err(Refusal::invalid("/managedFields", "At most 256 names."));
    }
    managed_fields.iter().try_for_each(|field| names::required_text(field, 300, "/managedFields"))
}

/// Checks what workspaces and items share.
pub fn validate_common(classification: Option<&str>, metadata: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if let Some(label) = classification {
        names::required_text(label, 128, "/classification")?;
    }
    if metadata.len() > MAX_METADATA {
        return Err(Refusal::invalid("/metadata", "At most 64 entries."));
    }
    metadata.iter().try_for_each(|(name, value)| {
        names::required_text(name, 128, "/metadata")?;
        names::text(value, 1024, "/metadata")
    })
}

/// A workspace in the trash is addressed only to bring it back or to end it.
pub fn is_trashed(workspace: &Workspace) -> bool {
    workspace.state == WorkspaceState::Trashed
}
