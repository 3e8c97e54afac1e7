//! Workspaces.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::people;
use crate::file360::model::{
    BusinessKey, ExternalSharing, OwnerMark, OwnerState, PrincipalKind, Role, SharingRules, Workspace, WorkspaceState,
};
use crate::server::authorize::{Permit, Target, WorkspaceFacts};
use crate::server::names;
use crate::server::refusal::Refusal;
use crate::server::tx::View;

/// States by their number in the database.
pub const STATES: [WorkspaceState; 3] = [WorkspaceState::Active, WorkspaceState::Archived, WorkspaceState::Trashed];

/// A workspace, and what callers do not see of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// What callers see.
    pub public: Workspace,
    /// The client that the ownership mark is bound to.
    pub owner_client: Option<String>,
    /// The state it had before it went to the trash.
    pub kept_state: WorkspaceState,
}

const COLUMNS: &str = "id, key_system, key_value, revision, display_name, classification, metadata, sharing, managed_fields, owner, \
                       owner_client, state, purge_at, root_id, kept_state, content_revision";

fn from_row(row: &Row<'_>, public_url: &str) -> rusqlite::Result<Record> {
    let id: String = row.get(0)?;
    let revision: u64 = row.get(3)?;
    let key = match (row.get::<_, Option<String>>(1)?, row.get::<_, Option<String>>(2)?) {
        (Some(system), Some(key)) => Some(BusinessKey { system, key }),
        _ => None,
    };
    let owner: Option<OwnerMark> = row.get::<_, Option<String>>(9)?.map(|text| super::json(9, &text)).transpose()?;
    let public = Workspace {
        key,
        revision,
        content_revision: Some(row.get(15)?),
        display_name: row.get(4)?,
        classification: row.get(5)?,
        metadata: super::json(6, row.get_ref(6)?.as_str()?)?,
        sharing: super::json(7, row.get_ref(7)?.as_str()?)?,
        managed_fields: super::json(8, row.get_ref(8)?.as_str()?)?,
        owner,
        state: super::enumerated(11, &STATES, row.get(11)?)?,
        purge_at: row.get::<_, Option<i64>>(12)?.map(super::time),
        root_id: row.get(13)?,
        url: format!("{public_url}/w/{id}"),
        etag: etag(revision),
        id,
    };
    let kept_state = row.get::<_, Option<usize>>(14)?.unwrap_or_default();
    Ok(Record { public, owner_client: row.get(10)?, kept_state: super::enumerated(14, &STATES, kept_state)? })
}

/// The entity tag of a workspace: its revision, because every part of the representation moves with it.
pub fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The workspace with this id, or 404.
pub fn by_id(view: &View<'_>, id: &str) -> Result<Record, Refusal> {
    find(view.db, id, &view.call.public_url)?
        .ok_or_else(|| Refusal::not_found("workspace"))
        .inspect(|record| seen(view, record))
}

/// The workspace with this id.
pub fn find(db: &Connection, id: &str, public_url: &str) -> Result<Option<Record>, Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM workspaces WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([id], |row| from_row(row, public_url)).optional()?)
}

/// The workspace with this business key.
pub fn by_key(view: &View<'_>, key: &BusinessKey) -> Result<Option<Record>, Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM workspaces WHERE key_system = ?1 AND key_value = ?2");
    let found = view
        .db
        .prepare_cached(&sql)?
        .query_row([&key.system, &key.key], |row| from_row(row, &view.call.public_url))
        .optional()?;
    Ok(found.inspect(|record| seen(view, record)))
}

fn seen(view: &View<'_>, record: &Record) {
    view.concerns(record.public.revision);
    view.note(|about| about.workspace_id = Some(record.public.id.clone()));
}

impl Record {
    /// The facts that need no query.
    pub fn facts(&self) -> WorkspaceFacts<'_> {
        let active = self.public.owner.as_ref().is_some_and(|owner| owner.state == OwnerState::Active);
        WorkspaceFacts {
            state: Some(self.public.state),
            bound_to: self.owner_client.as_deref().filter(|_| active),
            reshare: self.public.sharing.reshare,
            ..WorkspaceFacts::default()
        }
    }

    /// The role of the acting person. `folders`: the folders whose grants count; `None`: a grant anywhere in the workspace.
    /// A guest's role ends where the sharing rule ends.
    pub fn role(&self, view: &View<'_>, folders: Option<&[&str]>) -> Result<Option<Role>, Refusal> {
        match &view.person {
            Some(person) if person.kind == PrincipalKind::Guest && !may_share_with(&self.public.sharing, &person.name) => {
                Ok(None)
            }
            _ => people::role_at(view, &self.public.id, folders),
        }
    }

    /// Asks `authorize` about the workspace as a whole.
    pub fn authorize(&self, view: &View<'_>) -> Result<Permit, Refusal> {
        self.authorize_with(view, Target::default())
    }

    /// Asks `authorize` about the workspace, with more about the target.
    pub fn authorize_with(&self, view: &View<'_>, target: Target<'_>) -> Result<Permit, Refusal> {
        let reads = matches!(view.call.operation.effect(), crate::server::authorize::Effect::ReadWorkspace);
        let root = [self.public.root_id.as_str()];
        let role = self.role(view, (!reads).then_some(root.as_slice()))?;
        view.authorize(role, &Target { workspace: Some(self.facts()), ..target })
    }
}

/// Whether the sharing rule lets this address in.
pub fn may_share_with(rules: &SharingRules, address: &str) -> bool {
    match rules.external {
        ExternalSharing::Disabled => false,
        ExternalSharing::AllowListed => names::domain_matches(&rules.allowed_domains, address),
        ExternalSharing::Anyone => true,
    }
}

/// What keeps a workspace from being deleted: ids of up to 20 items with the reason, held ones first.
pub fn blockers(view: &View<'_>, workspace_id: &str) -> Result<Vec<(String, &'static str)>, Refusal> {
    let mut find = view.db.prepare_cached(
        "SELECT item_id, 0 FROM item_holds WHERE workspace_id = ?1
         UNION ALL SELECT id, 1 FROM items WHERE workspace_id = ?1 AND retain_until > ?2
         UNION ALL SELECT id, 2 FROM items WHERE workspace_id = ?1 AND record IS NOT NULL
         LIMIT 20",
    )?;
    let rows = find.query_map(params![workspace_id, view.now.as_millisecond()], |row| {
        Ok((row.get(0)?, super::enumerated(1, &["hold-active", "retained", "record"], row.get(1)?)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
