//! What a change of place, name or metadata comes to below an intake policy: what nobody decided about as it is now waits.
//!
//! `Upload` is about what is at a place, `Modify` about what becomes of a file there. Whoever decides changes what it has
//! released without asking itself again, but what nobody decided about waits whoever brings it.

use rusqlite::params;

use crate::file360::model::{Audience, ChangeKind, ItemKind};
use crate::server::authorize::Gate;
use crate::server::records::items::{self, Placed};
use crate::server::refusal::Refusal;
use crate::server::tx::{News, Tx};

/// A change of an item, as far as a gate looks at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// It gets another folder.
    pub moved: bool,
    /// It gets another name.
    pub renamed: bool,
    /// It gets other metadata or another classification.
    pub labelled: bool,
}

/// How much of a file waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// It comes from where nobody decided about it.
    EveryVersion,
    /// Its versions were decided about; the one that is read now is asked about again.
    VisibleVersion,
}

/// Withholds what a change of `before` exposes under the gate that is over it afterwards. To be called before the change is
/// stored. `true`: the file itself is withheld, and the feed says so.
pub fn apply(tx: &mut Tx<'_, '_, '_>, before: &Placed, after: Gate, change: Change) -> Result<bool, Refusal> {
    let is_file = before.item.kind == ItemKind::File;
    let (decides, was) = (items::decides(tx), before.gate());
    let other_place = change.moved || change.renamed;
    let other_file = is_file && (change.renamed || change.labelled);
    let again = !decides && ((after.upload && (other_place || other_file)) || (after.modify && other_file));
    if !decides && (change.moved || (again && is_file)) && awaits_decision(tx, before)? {
        let detail = "Something here waits for a decision: until then only who decides moves it or changes the file.";
        return Err(Refusal::new(409, "pending", detail).audited());
    }
    if change.moved {
        let actor = serde_json::to_string(&tx.actor)?;
        withhold_shares(tx, before, if decides { was } else { Gate::default() }, after, Some(&actor))?;
    }
    let arrives = change.moved && after.upload && !was.upload;
    if !arrives && !again {
        return Ok(false);
    }
    let extent = if arrives { Extent::EveryVersion } else { Extent::VisibleVersion };
    let withheld = withhold(tx, before, extent, true)?;
    Ok(is_file && withheld)
}

/// Withholds what is brought back from the trash to a place with a gate: other people decided there, or nobody.
pub fn restored(tx: &mut Tx<'_, '_, '_>, back: &Placed) -> Result<(), Refusal> {
    let (gate, actor) = (back.gate(), serde_json::to_string(&tx.actor)?);
    withhold_shares(tx, back, Gate::default(), gate, Some(&actor))?;
    if gate.upload {
        withhold(tx, back, Extent::EveryVersion, false)?;
    }
    Ok(())
}

/// Makes the visible files at or below an item pending. `shown`: readers know of them and are told that they are gone; the
/// others hear without a name. `true`: there were some.
fn withhold(tx: &mut Tx<'_, '_, '_>, placed: &Placed, extent: Extent, shown: bool) -> Result<bool, Refusal> {
    let files = placed.visible_files(tx.db)?;
    for (file, path) in &files {
        let every = extent == Extent::EveryVersion;
        let mut versions = tx.db.prepare_cached(
            "UPDATE versions SET state = 1, withheld_at = ?4 WHERE item_id = ?1 AND state = 0 AND (?2 OR n = ?3)",
        )?;
        versions.execute(params![file.id, every, file.version, tx.now.as_millisecond()])?;
        tx.db.prepare_cached("UPDATE items SET version = NULL, rev = rev + 1 WHERE id = ?1")?.execute([&file.id])?;
        let news = News { workspace_id: Some(file.workspace_id.clone()), version: file.version, ..News::about(&file.id) };
        if shown {
            tx.announce(News { kind: ChangeKind::FileDeleted, ..news.clone().at(path) })?;
        }
        tx.announce(News { kind: ChangeKind::GovernanceChanged, ..news })?;
    }
    Ok(!files.is_empty())
}

/// Withholds the shares that a policy on a folder, which held back `was` before, finds there: what is below it, and what is above it, because that
/// opens what is below. Who had shared stays who asks. The files that are there stay visible.
pub fn closed(tx: &mut Tx<'_, '_, '_>, folder: &str, was: Gate) -> Result<(), Refusal> {
    let placed = items::by_id(tx, folder)?;
    let gate = placed.gate();
    withhold_shares(tx, &placed, was, gate, None)
}

/// Makes the links and the guests' grants wait that the gate holds back and `was` did not: at or below an item; without an `actor`, who asks for
/// them from now on, also above it.
fn withhold_shares(
    tx: &mut Tx<'_, '_, '_>,
    placed: &Placed,
    was: Gate,
    gate: Gate,
    actor: Option<&str>,
) -> Result<(), Refusal> {
    let (any, outside) = (gate.share_link && !was.share_link, gate.share_external && !was.share_external);
    if !any && !outside {
        return Ok(());
    }
    let (workspace, now) = (placed.item.workspace_id.as_str(), tx.now.as_millisecond());
    let mut find = tx.db.prepare_cached(
        "SELECT id, item_id FROM links WHERE workspace_id = ?1 AND state = 0 AND (?2 OR (?3 AND audience >= ?4))
             AND (expires_at IS NULL OR expires_at > ?5)",
    )?;
    let links = pairs(find.query_map(params![workspace, any, outside, Audience::Guests as u8, now], pair)?)?;
    for (link, item) in links {
        let on = items::by_id(tx, &item)?;
        if is_open_by(&on, placed, actor) {
            let mut hold = tx.db.prepare_cached(
                "UPDATE links SET state = 1, rev = rev + 1, requested_by = coalesce(?2, requested_by), requested_at = ?3 WHERE id = ?1",
            )?;
            hold.execute(params![link, actor, now])?;
            tx.changed(workspace, ChangeKind::LinkChanged, super::links::news(&link, &on))?;
        }
    }
    if outside {
        withhold_guests(tx, placed, actor)?;
    }
    tx.note(|about| {
        about.item_id = Some(placed.item.id.clone());
        about.path = Some(placed.path());
    });
    Ok(())
}

/// Whether a share on an item is one that a change of `placed` is about.
fn is_open_by(on: &Placed, placed: &Placed, actor: Option<&str>) -> bool {
    on.ids().contains(&placed.item.id.as_str()) || (actor.is_none() && placed.ids().contains(&on.item.id.as_str()))
}

fn withhold_guests(tx: &mut Tx<'_, '_, '_>, placed: &Placed, actor: Option<&str>) -> Result<(), Refusal> {
    let (workspace, now) = (placed.item.workspace_id.as_str(), tx.now.as_millisecond());
    let mut find = tx.db.prepare_cached(
        "SELECT m.principal_id, m.folder_id FROM members AS m CROSS JOIN principals AS p ON p.id = m.principal_id
         WHERE m.workspace_id = ?1 AND m.state = 0 AND p.kind = ?2 AND (m.expires_at IS NULL OR m.expires_at > ?3)",
    )?;
    let guest = crate::file360::model::PrincipalKind::Guest as u8;
    let grants = pairs(find.query_map(params![workspace, guest, now], pair)?)?;
    for (guest, folder) in grants {
        let on = items::by_id(tx, &folder)?;
        if is_open_by(&on, placed, actor) {
            let mut hold = tx.db.prepare_cached(
                "UPDATE members SET state = 1, requested_by = coalesce(?4, requested_by), requested_at = ?5
                 WHERE workspace_id = ?1 AND principal_id = ?2 AND folder_id = ?3",
            )?;
            hold.execute(params![workspace, guest, folder, actor, now])?;
            tx.changed(workspace, ChangeKind::MemberRemoved, News::about(&guest).on(&folder).at(on.path()))?;
        }
    }
    Ok(())
}

fn pair(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn pairs(rows: impl Iterator<Item = rusqlite::Result<(String, String)>>) -> Result<Vec<(String, String)>, Refusal> {
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a version, a deletion, a link or a grant at or below the item is pending. What is pending is looked at, not what
/// is below: the one is little, the other may be much.
fn awaits_decision(tx: &Tx<'_, '_, '_>, placed: &Placed) -> Result<bool, Refusal> {
    let mut find = tx.db.prepare_cached(
        "WITH RECURSIVE up (id, parent_id) AS (
             SELECT i.id, i.parent_id FROM versions AS v CROSS JOIN items AS i ON i.id = v.item_id WHERE v.state = 1 AND i.workspace_id = ?1
             UNION SELECT i.id, i.parent_id FROM pending_deletes AS p CROSS JOIN items AS i ON i.id = p.item_id WHERE i.workspace_id = ?1
             UNION SELECT i.id, i.parent_id FROM links AS l CROSS JOIN items AS i ON i.id = l.item_id
                   WHERE l.state = 1 AND i.workspace_id = ?1
             UNION SELECT i.id, i.parent_id FROM members AS m CROSS JOIN items AS i ON i.id = m.folder_id
                   WHERE m.state = 1 AND i.workspace_id = ?1
             UNION SELECT i.id, i.parent_id FROM up CROSS JOIN items AS i ON i.id = up.parent_id)
         SELECT EXISTS (SELECT 1 FROM up WHERE id = ?2)",
    )?;
    Ok(find.query_row([&placed.item.workspace_id, &placed.item.id], |row| row.get(0))?)
}
