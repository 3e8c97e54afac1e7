//! Folders and files: where they are, what state they are in, what protects them.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::workspaces;
use crate::file360::model::{Actor, Folder, Item, ItemKind, ItemState, PrincipalKind, Role};
use crate::server::authorize::{Effect, Gate, ItemFacts, Permit, Strength, Target};
use crate::server::names;
use crate::server::operation::Scope;
use crate::server::refusal::Refusal;
use crate::server::tx::View;

/// An item's row.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the columns of the table")]
pub struct Record {
    pub id: String,
    pub workspace_id: String,
    pub kind: ItemKind,
    pub parent_id: Option<String>,
    pub name: String,
    pub rev: u64,
    pub children: u64,
    pub classification: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub locked: bool,
    pub managed_key: Option<String>,
    /// The visible version.
    pub version: Option<u64>,
    pub last_version: u64,
    pub created_by: Actor,
    pub creator_id: Option<String>,
    pub created_at: i64,
    pub modified_at: i64,
    pub trashed_at: Option<i64>,
    pub quarantined: bool,
    pub retain_until: Option<i64>,
    pub retain_strength: Option<Strength>,
    pub retain_policy: Option<String>,
    pub record: Option<String>,
    pub intake: Option<String>,
    /// Name of the upload request through which it arrived.
    pub upload_request: Option<String>,
}

/// Columns of [`from_row`].
pub const COLUMNS: &str = "id, workspace_id, kind, parent_id, name, rev, children, classification, metadata, locked, managed_key, \
     version, last_version, created_by, creator_id, created_at, modified_at, trashed_at, quarantined, retain_until, \
     retain_strength, retain_policy, record, intake, upload_request";

const KINDS: [ItemKind; 2] = [ItemKind::Folder, ItemKind::File];
const STRENGTHS: [Strength; 2] = [Strength::Governance, Strength::Regulatory];

/// An item from its row.
pub fn from_row(row: &Row<'_>) -> rusqlite::Result<Record> {
    let strength: Option<usize> = row.get(20)?;
    Ok(Record {
        id: row.get(0)?,
        workspace_id: row.get(1)?,
        kind: super::enumerated(2, &KINDS, row.get(2)?)?,
        parent_id: row.get(3)?,
        name: row.get(4)?,
        rev: row.get(5)?,
        children: row.get(6)?,
        classification: row.get(7)?,
        metadata: super::json(8, row.get_ref(8)?.as_str()?)?,
        locked: row.get(9)?,
        managed_key: row.get(10)?,
        version: row.get(11)?,
        last_version: row.get(12)?,
        created_by: super::json(13, row.get_ref(13)?.as_str()?)?,
        creator_id: row.get(14)?,
        created_at: row.get(15)?,
        modified_at: row.get(16)?,
        trashed_at: row.get(17)?,
        quarantined: row.get(18)?,
        retain_until: row.get(19)?,
        retain_strength: strength.map(|number| super::enumerated(20, &STRENGTHS, number)).transpose()?,
        retain_policy: row.get(21)?,
        record: row.get(22)?,
        intake: row.get(23)?,
        upload_request: row.get(24)?,
    })
}

/// The number of an item's kind in the database.
pub fn kind_number(kind: ItemKind) -> u8 {
    match kind {
        ItemKind::Folder => 0,
        ItemKind::File => 1,
    }
}

/// A folder on the way from an item to the root.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its id.
    pub id: String,
    /// Its name; empty for the root.
    pub name: String,
    trashed: bool,
    intake: Option<String>,
}

/// An item and where it is.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The item.
    pub item: Record,
    /// The item itself, then the folders above it, the root last.
    pub way: Vec<Step>,
    /// Its workspace.
    pub workspace: workspaces::Record,
}

/// The item with this id, or 404.
pub fn by_id(view: &View<'_>, id: &str) -> Result<Placed, Refusal> {
    let item = find(view.db, id)?.ok_or_else(|| Refusal::not_found("item"))?;
    let workspace = workspaces::by_id(view, &item.workspace_id).map_err(|_| Refusal::not_found("item"))?;
    let placed = Placed { way: way(view.db, &item)?, item, workspace };
    view.note(|about| {
        about.item_id = Some(placed.item.id.clone());
        about.path = Some(placed.path());
    });
    Ok(placed)
}

/// The row with this id.
pub fn find(db: &Connection, id: &str) -> Result<Option<Record>, Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM items WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([id], from_row).optional()?)
}

/// The item of this name in a folder.
pub fn child(db: &Connection, folder_id: &str, name: &str) -> Result<Option<Record>, Refusal> {
    let sql = format!("SELECT {COLUMNS} FROM items WHERE parent_id = ?1 AND name_fold = ?2 AND trashed_at IS NULL");
    Ok(db.prepare_cached(&sql)?.query_row([folder_id, &names::fold(name)], from_row).optional()?)
}

/// The item at a path, given as segments from the root.
pub fn at_path(view: &View<'_>, workspace: &workspaces::Record, segments: &[String]) -> Result<Option<Placed>, Refusal> {
    let Some(mut item) = find(view.db, &workspace.public.root_id)? else { return Ok(None) };
    for name in segments {
        match child(view.db, &item.id, name)? {
            Some(next) => item = next,
            None => return Ok(None),
        }
    }
    Ok(Some(Placed { way: way(view.db, &item)?, item, workspace: workspace.clone() }))
}

fn way(db: &Connection, item: &Record) -> Result<Vec<Step>, Refusal> {
    let mut steps = vec![Step {
        id: item.id.clone(),
        name: item.name.clone(),
        trashed: item.trashed_at.is_some(),
        intake: item.intake.clone(),
    }];
    let mut find = db.prepare_cached("SELECT parent_id, name, trashed_at IS NOT NULL, intake FROM items WHERE id = ?1")?;
    let mut next = item.parent_id.clone();
    while let Some(id) = next {
        // A loop cannot be made by a move; the bound keeps a damaged database from holding a thread for ever.
        if steps.len() > 4 * names::MAX_DEPTH {
            return Err(Refusal::new(500, "internal", "The folder structure is damaged."));
        }
        let (parent, step) = find.query_row([&id], |row| {
            Ok((row.get(0)?, Step { id: id.clone(), name: row.get(1)?, trashed: row.get(2)?, intake: row.get(3)? }))
        })?;
        steps.push(step);
        next = parent;
    }
    Ok(steps)
}

impl Placed {
    /// Path in the workspace.
    pub fn path(&self) -> String {
        path_of(&self.way)
    }

    /// Ids of the item and of the folders above it.
    pub fn ids(&self) -> Vec<&str> {
        self.way.iter().map(|step| step.id.as_str()).collect()
    }

    /// It, or a folder above it, is in the trash.
    pub fn is_trashed(&self) -> bool {
        self.way.iter().any(|step| step.trashed)
    }

    /// What the intake policies on it and above it hold back.
    pub fn gate(&self) -> Gate {
        self.way.iter().filter_map(|step| step.intake.as_deref()).fold(Gate::default(), |gate, policy| {
            let actions: Vec<String> = serde_json::from_str(policy).unwrap_or_default();
            let has = |action: &str| actions.iter().any(|named| named == action);
            Gate {
                upload: gate.upload || has("Upload"),
                modify: gate.modify || has("Modify"),
                share_external: gate.share_external || has("ShareExternal"),
                share_link: gate.share_link || has("ShareLink"),
                delete: gate.delete || has("Delete"),
            }
        })
    }

    /// What the policies on it and above it hold back, and as far as shares go those below it: a share of a folder opens
    /// what is below.
    fn share_gate(&self, db: &Connection) -> Result<Gate, Refusal> {
        let gate = self.gate();
        if self.item.kind == ItemKind::File {
            return Ok(gate);
        }
        let sql = format!("SELECT {COLUMNS} FROM items WHERE workspace_id = ?1 AND intake IS NOT NULL");
        let mut find = db.prepare_cached(&sql)?;
        let mut all = gate;
        for gated in find.query_map([&self.item.workspace_id], from_row)? {
            let gated = gated?;
            let below = Self { way: way(db, &gated)?, item: gated, workspace: self.workspace.clone() };
            if below.ids().contains(&self.item.id.as_str()) {
                all.share_external |= below.gate().share_external;
                all.share_link |= below.gate().share_link;
            }
        }
        Ok(all)
    }

    /// What holds back a share of it.
    pub fn gate_for(&self, view: &View<'_>, effect: Effect) -> Result<Gate, Refusal> {
        match effect {
            Effect::ShareLink | Effect::ShareMembers => self.share_gate(view.db),
            _ => Ok(self.gate()),
        }
    }

    /// The files with a visible version at or below it, each with its path. Not those that are in the trash by themselves.
    pub fn visible_files(&self, db: &Connection) -> Result<Vec<(Record, String)>, Refusal> {
        let (mut open, mut files) = (vec![(self.item.clone(), self.path())], Vec::new());
        let sql = format!("SELECT {COLUMNS} FROM items WHERE parent_id = ?1 AND trashed_at IS NULL");
        let mut find = db.prepare_cached(&sql)?;
        while let Some((item, path)) = open.pop() {
            if item.kind == ItemKind::Folder {
                for child in find.query_map([&item.id], from_row)? {
                    let child = child?;
                    let path = join(&path, &child.name);
                    open.push((child, path));
                }
            } else if item.version.is_some() {
                files.push((item, path));
            }
        }
        Ok(files)
    }

    /// The role of the acting person here.
    pub fn role(&self, view: &View<'_>) -> Result<Option<Role>, Refusal> {
        self.workspace.role(view, Some(&self.ids()))
    }

    /// What protects the item, or for a folder anything below it.
    pub fn facts(&self, view: &View<'_>, deep: bool) -> Result<ItemFacts, Refusal> {
        let item = &self.item;
        let mut facts = ItemFacts {
            root: item.parent_id.is_none(),
            folder: item.kind == ItemKind::Folder,
            locked: item.locked,
            trashed: self.is_trashed(),
            pending: item.is_pending(),
            quarantined: item.quarantined,
            own: view.person.as_ref().is_some_and(|person| item.creator_id.as_deref() == Some(&person.id)),
            held: !holds(view.db, &self.ids())?.is_empty(),
            retained: item.retained(view.now.as_millisecond()),
            record: item.record.is_some(),
            ..ItemFacts::default()
        };
        if deep && item.kind == ItemKind::Folder && !workspaces::blockers(view, &item.workspace_id)?.is_empty() {
            below(view, &item.id, &mut facts)?;
        }
        Ok(facts)
    }

    /// Asks `authorize` about the operation of the call on this item.
    pub fn authorize(&self, view: &View<'_>) -> Result<Permit, Refusal> {
        self.authorize_as(view, view.call.operation.effect(), |_| ())
    }

    /// Asks `authorize` about an effect on this item, with more facts.
    pub fn authorize_as(
        &self,
        view: &View<'_>,
        effect: Effect,
        more: impl FnOnce(&mut Target<'_>),
    ) -> Result<Permit, Refusal> {
        let deep = matches!(effect, Effect::DeleteItem | Effect::PurgeItem);
        let mut target = Target {
            workspace: Some(self.workspace.facts()),
            item: Some(self.facts(view, deep)?),
            gate: self.gate_for(view, effect)?,
            external: false,
        };
        if let Some(item) = target.item.as_mut().filter(|item| item.folder && !item.root) {
            item.gated = matches!(effect, Effect::DeleteItem | Effect::ChangeItem) && self.is_gated(view.db)?;
        }
        more(&mut target);
        view.authorize_as(effect, self.role(view)?, &target)
    }

    /// Whether an intake policy stands on the folder, or on one below it.
    fn is_gated(&self, db: &Connection) -> Result<bool, Refusal> {
        let mut find = db.prepare_cached(
            "WITH RECURSIVE up (id, parent_id) AS (
                 SELECT id, parent_id FROM items WHERE workspace_id = ?1 AND intake IS NOT NULL
                 UNION SELECT item.id, item.parent_id FROM up CROSS JOIN items AS item ON item.id = up.parent_id)
             SELECT EXISTS (SELECT 1 FROM up WHERE id = ?2)",
        )?;
        Ok(find.query_row([&self.item.workspace_id, &self.item.id], |row| row.get(0))?)
    }

    /// The item as callers see it.
    pub fn public(&self, db: &Connection, decides: bool) -> Result<Item, Refusal> {
        public(db, &self.item, self.path(), self.is_trashed(), holds(db, &self.ids())?, decides)
    }

    /// The item as the caller of this view sees it.
    pub fn shown(&self, view: &View<'_>) -> Result<Item, Refusal> {
        self.public(view.db, decides(view))
    }
}

/// Whether the caller is one that decides about pending content, and therefore sees it.
pub fn decides(view: &View<'_>) -> bool {
    view.person.is_none() && view.call.has_scope(Scope::Govern)
}

fn path_of(way: &[Step]) -> String {
    if way.len() <= 1 {
        return "/".to_owned();
    }
    way.iter().rev().skip(1).fold(String::new(), |path, step| path + "/" + &step.name)
}

/// Adds a name to a folder's path.
pub fn join(folder: &str, name: &str) -> String {
    if folder == "/" { format!("/{name}") } else { format!("{folder}/{name}") }
}

/// Keys of the holds on any of these items.
pub fn holds(db: &Connection, ids: &[&str]) -> Result<Vec<String>, Refusal> {
    let mut find = db.prepare_cached("SELECT hold_key FROM item_holds WHERE item_id = ?1")?;
    let mut keys = Vec::new();
    for id in ids {
        for key in find.query_map([id], |row| row.get::<_, String>(0))? {
            keys.push(key?);
        }
    }
    keys.sort();
    keys.dedup();
    Ok(keys)
}

fn below(view: &View<'_>, folder_id: &str, facts: &mut ItemFacts) -> Result<(), Refusal> {
    let mut find = view.db.prepare_cached(
        "WITH RECURSIVE below (id, retain_until, retain_strength, record) AS (
             SELECT id, retain_until, retain_strength, record FROM items WHERE parent_id = ?1
             UNION ALL
             SELECT item.id, item.retain_until, item.retain_strength, item.record FROM items AS item JOIN below ON item.parent_id = below.id)
         SELECT max(EXISTS (SELECT 1 FROM item_holds WHERE item_id = below.id)), max(record IS NOT NULL),
                max(CASE WHEN retain_until > ?2 THEN retain_strength END)
         FROM below",
    )?;
    let (held, record, strength): (Option<bool>, Option<bool>, Option<usize>) =
        find.query_row(params![folder_id, view.now.as_millisecond()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    facts.held |= held.unwrap_or(false);
    facts.record |= record.unwrap_or(false);
    facts.retained = facts.retained.max(strength.and_then(|number| STRENGTHS.get(number).copied()));
    Ok(())
}

impl Record {
    /// How strongly it is retained now.
    pub fn retained(&self, now_ms: i64) -> Option<Strength> {
        self.retain_until.filter(|until| *until > now_ms).and(self.retain_strength)
    }

    /// A file none of whose versions is released.
    pub fn is_pending(&self) -> bool {
        self.kind == ItemKind::File && self.version.is_none()
    }

    /// Entity tag.
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.rev)
    }

    /// The folder as callers see it.
    pub fn folder(&self, path: String) -> Folder {
        Folder {
            id: self.id.clone(),
            path,
            classification: self.classification.clone(),
            metadata: self.metadata.clone(),
            locked: self.locked,
            managed_key: self.managed_key.clone(),
            children: self.children,
            etag: self.etag(),
        }
    }
}

/// A version's row.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the columns of the table")]
pub struct VersionRecord {
    pub n: u64,
    pub state: u8,
    pub size: u64,
    pub sha256: String,
    pub mime: String,
    pub created_by: Actor,
    pub creator_id: Option<String>,
    pub created_at: i64,
}

/// A version of a file.
pub fn version(db: &Connection, item_id: &str, n: u64) -> Result<Option<VersionRecord>, Refusal> {
    let mut find = db.prepare_cached(
        "SELECT n, state, size, sha256, mime, created_by, creator_id, created_at FROM versions WHERE item_id = ?1 AND n = ?2",
    )?;
    Ok(find.query_row(params![item_id, n], version_from_row).optional()?)
}

/// A version from its row.
pub fn version_from_row(row: &Row<'_>) -> rusqlite::Result<VersionRecord> {
    Ok(VersionRecord {
        n: row.get(0)?,
        state: row.get(1)?,
        size: row.get(2)?,
        sha256: row.get(3)?,
        mime: row.get(4)?,
        created_by: super::json(5, row.get_ref(5)?.as_str()?)?,
        creator_id: row.get(6)?,
        created_at: row.get(7)?,
    })
}

/// An item as callers see it. Whoever decides sees the pending version of an item that has no released one.
pub fn public(
    db: &Connection,
    item: &Record,
    path: String,
    trashed: bool,
    holds: Vec<String>,
    decides: bool,
) -> Result<Item, Refusal> {
    let pending = item.is_pending();
    let n = item.version.or((pending && decides).then_some(item.last_version));
    let version = match n {
        Some(n) => version(db, &item.id, n)?,
        None => None,
    };
    // What was never released is that before it is anything else but trash: its release does not end a quarantine.
    let state = match (trashed, pending, item.quarantined) {
        (true, ..) => ItemState::Trashed,
        (_, true, _) => ItemState::Pending,
        (_, _, true) => ItemState::Quarantined,
        _ => ItemState::Available,
    };
    Ok(Item {
        id: item.id.clone(),
        workspace_id: item.workspace_id.clone(),
        kind: item.kind,
        parent_id: item.parent_id.clone(),
        name: item.name.clone(),
        path,
        state,
        classification: item.classification.clone(),
        metadata: item.metadata.clone(),
        locked: item.locked,
        managed_key: item.managed_key.clone(),
        version: version.as_ref().map(|version| version.n),
        size: version.as_ref().map(|version| version.size),
        sha256: version.as_ref().map(|version| version.sha256.clone()),
        mime_type: version.as_ref().map(|version| version.mime.clone()),
        created_by: Some(version.map_or_else(|| item.created_by.clone(), |version| version.created_by)),
        upload_request: item.upload_request.clone(),
        created_at: super::time(item.created_at),
        modified_at: super::time(item.modified_at),
        holds,
        retain_until: item.retain_until.map(super::time),
        record: item.record.is_some(),
        etag: item.etag(),
    })
}

/// A guest's address is never the name of an internal person, so the kind decides who is outside.
pub fn is_outside(kind: PrincipalKind) -> bool {
    kind == PrincipalKind::Guest
}
