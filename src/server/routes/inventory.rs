//! Every file below a path, at any depth, ordered by id.
//!
//! Items know their folder, not their path, so what is below a path is found in one of two ways: a subtree of few folders is
//! read folder by folder, merged by id; in a large one the files of the workspace are read by id, and those elsewhere are
//! passed over. Either takes work in proportion to the page: a page is cut short rather than looked for too long.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;

use rusqlite::params;

use super::Outcome;
use crate::file360::model::{Item, ItemKind, Role};
use crate::server::call::Answer;
use crate::server::names;
use crate::server::records::items::{self, Placed, Record};
use crate::server::records::workspaces;
use crate::server::refusal::Refusal;
use crate::server::tx::View;

/// Folders that are merged; a larger subtree is searched by id.
const MOST_FOLDERS: usize = 1_000;
/// Files that one page looks at.
const MOST_LOOKED_AT: usize = 20_000;
/// Files that are read ahead, of all folders together.
const AHEAD: usize = 2_000;

/// `GET /v1/workspaces/{id}/files`
pub fn list(view: &View<'_>) -> Outcome {
    let workspace = workspaces::by_id(view, view.call.param("id"))?;
    let path = view.call.query("path").unwrap_or("/");
    let Some(top) = items::at_path(view, &workspace, &names::segments(path, "path")?)? else {
        workspace.authorize(view)?;
        return Err(Refusal::not_found("item"));
    };
    top.authorize(view)?;
    if top.item.kind != ItemKind::Folder {
        return Err(Refusal::new(409, "state-conflict", "A file has no files below it."));
    }
    let (after, limit) = (view.call.after()?, view.call.limit()?);
    let mut inventory = Inventory::open(view, &top, &after)?;
    let (mut page, mut looked_at) = (Vec::new(), 0);
    while let Some((row, place)) = inventory.next()? {
        looked_at += 1;
        let id = row.id.clone();
        if page.len() == limit {
            let next = page.last().map(|(id, _): &(String, Item)| id.clone());
            return Answer::page_until(&page, next);
        }
        if let Some(place) = place.filter(|_| inventory.shows(&row)) {
            page.push((id.clone(), inventory.item(&row, &place)?));
        }
        if looked_at == MOST_LOOKED_AT {
            return Answer::page_until(&page, Some(id));
        }
    }
    Answer::page_until(&page, None)
}

/// A file, and its folder if that is below the path.
type Found = (Record, Option<Rc<Place>>);

/// A folder that is not in the trash, below the path or the path's own.
struct Place {
    path: String,
    holds: Vec<String>,
}

struct Inventory<'v, 'a> {
    view: &'v View<'a>,
    workspace_id: String,
    /// What is known about folders; `None`: in the trash, or elsewhere.
    places: HashMap<String, Option<Rc<Place>>>,
    source: Source,
    /// Files that are read at once, of one folder or of the workspace.
    ahead: usize,
    decides: bool,
    /// An uploader sees only what is their own.
    own: Option<String>,
}

enum Source {
    /// The next files of each folder, and the smallest id of each.
    Folders { ahead: HashMap<String, VecDeque<Record>>, heads: BinaryHeap<Reverse<(String, String)>> },
    /// The next files of the workspace, and the last id that was read.
    Workspace { ahead: VecDeque<Record>, after: String, is_over: bool },
}

impl<'v, 'a> Inventory<'v, 'a> {
    fn open(view: &'v View<'a>, top: &Placed, after: &str) -> Result<Self, Refusal> {
        let own = match (&view.person, top.role(view)?) {
            (Some(person), Some(Role::Uploader)) => Some(person.id.clone()),
            _ => None,
        };
        let place = Place { path: top.path(), holds: items::holds(view.db, &top.ids())? };
        let mut inventory = Self {
            view,
            workspace_id: top.item.workspace_id.clone(),
            places: HashMap::from([(top.item.id.clone(), Some(Rc::new(place)))]),
            source: Source::Workspace { ahead: VecDeque::new(), after: after.to_owned(), is_over: false },
            ahead: 100,
            decides: items::decides(view),
            own,
        };
        if let Some(folders) = inventory.folders_below(&top.item.id)? {
            inventory.ahead = (AHEAD / folders.len()).clamp(2, 100);
            inventory.source = inventory.merged(folders, after)?;
        }
        Ok(inventory)
    }

    /// The folder and all below it, unless there are too many.
    fn folders_below(&mut self, top: &str) -> Result<Option<Vec<String>>, Refusal> {
        let mut find = self
            .view
            .db
            .prepare_cached("SELECT id FROM items WHERE parent_id = ?1 AND kind = 0 AND trashed_at IS NULL LIMIT ?2")?;
        let (mut found, mut at) = (vec![top.to_owned()], 0);
        while let Some(folder) = found.get(at).cloned() {
            for id in find.query_map(params![folder, MOST_FOLDERS], |row| row.get(0))? {
                found.push(id?);
            }
            if found.len() > MOST_FOLDERS {
                return Ok(None);
            }
            at += 1;
        }
        Ok(Some(found))
    }

    fn merged(&self, folders: Vec<String>, after: &str) -> Result<Source, Refusal> {
        let (mut ahead, mut heads) = (HashMap::new(), BinaryHeap::new());
        for folder in folders {
            let files = self.files_of(&folder, after)?;
            if let Some(first) = files.front() {
                heads.push(Reverse((first.id.clone(), folder.clone())));
                ahead.insert(folder, files);
            }
        }
        Ok(Source::Folders { ahead, heads })
    }

    fn files_of(&self, folder: &str, after: &str) -> Result<VecDeque<Record>, Refusal> {
        self.read(
            "items INDEXED BY items_parent WHERE parent_id = ?1 AND id > ?2 AND kind = 1 AND trashed_at IS NULL",
            folder,
            after,
        )
    }

    fn read(&self, from: &str, of: &str, after: &str) -> Result<VecDeque<Record>, Refusal> {
        let sql = format!("SELECT {} FROM {from} ORDER BY id LIMIT ?3", items::COLUMNS);
        let mut find = self.view.db.prepare_cached(&sql)?;
        let rows = find.query_map(params![of, after, self.ahead], items::from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The next file by id, and where it is, if that is below the path.
    fn next(&mut self) -> Result<Option<Found>, Refusal> {
        let row = match &mut self.source {
            Source::Folders { heads, .. } => match heads.pop() {
                Some(Reverse((_, folder))) => self.next_of(folder)?,
                None => None,
            },
            Source::Workspace { .. } => self.next_of_workspace()?,
        };
        let Some(row) = row else { return Ok(None) };
        let place = self.place(row.parent_id.as_deref().unwrap_or_default(), 0)?;
        Ok(Some((row, place)))
    }

    fn next_of(&mut self, folder: String) -> Result<Option<Record>, Refusal> {
        let Source::Folders { ahead, .. } = &mut self.source else { return Ok(None) };
        let Some(files) = ahead.get_mut(&folder) else { return Ok(None) };
        let Some(row) = files.pop_front() else { return Ok(None) };
        if files.is_empty() {
            let more = self.files_of(&folder, &row.id)?;
            if let Source::Folders { ahead, .. } = &mut self.source {
                ahead.insert(folder.clone(), more);
            }
        }
        if let Source::Folders { ahead, heads } = &mut self.source
            && let Some(first) = ahead.get(&folder).and_then(VecDeque::front)
        {
            heads.push(Reverse((first.id.clone(), folder)));
        }
        Ok(Some(row))
    }

    fn next_of_workspace(&mut self) -> Result<Option<Record>, Refusal> {
        if let Source::Workspace { ahead, after, is_over: false } = &self.source
            && ahead.is_empty()
        {
            let more = self.read(
                "items INDEXED BY items_workspace WHERE workspace_id = ?1 AND id > ?2 AND kind = 1 AND trashed_at IS NULL",
                &self.workspace_id,
                after,
            )?;
            let (last, is_over) = (more.back().map(|row| row.id.clone()), more.len() < self.ahead);
            self.source = Source::Workspace { ahead: more, after: last.unwrap_or_default(), is_over };
        }
        let Source::Workspace { ahead, .. } = &mut self.source else { return Ok(None) };
        Ok(ahead.pop_front())
    }

    /// Where a folder is, if that is below the path; each folder is looked up once.
    fn place(&mut self, folder: &str, depth: usize) -> Result<Option<Rc<Place>>, Refusal> {
        if let Some(known) = self.places.get(folder) {
            return Ok(known.clone());
        }
        let mut find =
            self.view.db.prepare_cached("SELECT parent_id, name, trashed_at IS NOT NULL FROM items WHERE id = ?1")?;
        let (parent, name, trashed): (Option<String>, String, bool) =
            find.query_row([folder], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        drop(find);
        let above = match parent.filter(|_| !trashed && depth < 4 * names::MAX_DEPTH) {
            Some(parent) => self.place(&parent, depth + 1)?,
            None => None,
        };
        let place = match above {
            Some(above) => {
                let mut holds = items::holds(self.view.db, &[folder])?;
                holds.extend(above.holds.iter().cloned());
                Some(Rc::new(Place { path: items::join(&above.path, &name), holds }))
            }
            None => None,
        };
        self.places.insert(folder.to_owned(), place.clone());
        Ok(place)
    }

    fn shows(&self, row: &Record) -> bool {
        (self.decides || !row.is_pending()) && self.own.as_ref().is_none_or(|own| row.creator_id.as_ref() == Some(own))
    }

    fn item(&self, row: &Record, place: &Place) -> Result<Item, Refusal> {
        let mut holds = items::holds(self.view.db, &[&row.id])?;
        holds.extend(place.holds.iter().cloned());
        holds.sort();
        holds.dedup();
        items::public(self.view.db, row, items::join(&place.path, &row.name), false, holds, self.decides)
    }
}
