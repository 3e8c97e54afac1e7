//! What waits for a decision in a tenant: listed, read, and told which actions of a gate hold it.

use super::register::Entry;
use crate::api::Approval;
use crate::api::approval::SubjectKind;
use crate::error::{Error, Kind, Result};
use crate::file360::File360;
use crate::file360::model::{Audience, GateAction, Item, ItemKind, Link, Pending, Version};

/// Pages of pending things that are read at most.
const MOST_PAGES: usize = 1_000;

/// Something pending, as it was read.
pub(super) struct Thing {
    pub pending: Pending,
    pub item: Item,
    pub version: Option<Version>,
    pub link: Option<Link>,
    /// A version of the file is visible, or was when the file went to the trash.
    pub is_shown: bool,
}

impl Thing {
    /// Which actions of a gate hold such a thing.
    pub fn actions(&self) -> Vec<GateAction> {
        match &self.pending {
            Pending { version: Some(_), .. } => match (self.is_shown, self.was_withheld()) {
                // A place holds back what comes to it with all its versions, and a name or a label the one that was visible.
                (_, true) => vec![GateAction::Upload, GateAction::Modify],
                (true, false) => vec![GateAction::Modify],
                (false, false) => vec![GateAction::Upload],
            },
            Pending { delete: true, .. } => vec![GateAction::Delete],
            Pending { member: Some(_), .. } => vec![GateAction::ShareExternal],
            _ => {
                let is_outside =
                    self.link.as_ref().is_none_or(|link| matches!(link.audience, Audience::Guests | Audience::Anyone));
                let mut actions = vec![GateAction::ShareLink];
                actions.extend(is_outside.then_some(GateAction::ShareExternal));
                actions
            }
        }
    }

    /// Whether a registered gate holds it back. A share of a folder opens what is below: a gate there holds it too.
    pub fn is_held_by(&self, entry: &Entry) -> bool {
        let is_share = self.pending.link.is_some() || self.pending.member.is_some();
        let is_there = if is_share && self.item.kind == ItemKind::Folder {
            entry.is_opened_from(&self.item.path)
        } else {
            entry.covers(&self.item.path)
        };
        is_there && self.actions().iter().any(|action| entry.actions.contains(action))
    }

    /// The version was visible in its time: it waits since later than it arrived.
    fn was_withheld(&self) -> bool {
        let arrived = self.version.as_ref().map(|version| version.created_at);
        arrived.zip(self.pending.since).is_some_and(|(arrived, since)| since > arrived)
    }
}

/// Everything that is pending.
pub(super) async fn list(tenant: &dyn File360) -> Result<Vec<Pending>> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let page = tenant.pending(None, cursor.as_deref()).await?;
        all.extend(page.items);
        match page.next_cursor {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            Some(_) => return Err(Error::new(Kind::Malformed, "the listing of pending things repeats its cursor")),
            None => return Ok(all),
        }
    }
    Err(Error::new(Kind::Malformed, "the listing of pending things does not end"))
}

/// What went away between two reads is not there.
fn gone_is_none<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Reads what a pending entry is about; `None`: it is gone.
pub(super) async fn read(tenant: &dyn File360, pending: &Pending) -> Result<Option<Thing>> {
    let Some(item) = tenant.item(&pending.item_id).await? else { return Ok(None) };
    let (mut version, mut is_shown) = (None, true);
    if let Some(number) = pending.version {
        let Some(versions) = gone_is_none(tenant.versions(&item.id).await)? else { return Ok(None) };
        is_shown = versions.iter().any(|found| found.visible);
        version = versions.into_iter().find(|found| found.version == number);
        if version.is_none() {
            return Ok(None);
        }
    }
    let link = match &pending.link {
        Some(id) => match gone_is_none(tenant.links(&pending.workspace_id).await)? {
            Some(links) => match links.into_iter().find(|link| link.id == *id) {
                Some(link) => Some(link),
                None => return Ok(None),
            },
            None => return Ok(None),
        },
        None => None,
    };
    Ok(Some(Thing { pending: pending.clone(), item, version, link, is_shown }))
}

/// What an Approval is about, as it is now; `None`: it is gone.
pub(super) async fn thing_of(tenant: &dyn File360, approval: &Approval) -> Result<Option<Thing>> {
    let subject = &approval.spec.subject;
    let share = subject.share.clone().unwrap_or_default();
    let pending = Pending {
        workspace_id: subject.workspace_id.clone(),
        item_id: subject.file_id.clone(),
        version: subject.version,
        delete: subject.kind == SubjectKind::Deletion,
        link: share.link,
        member: share.member,
        requested_by: None,
        since: subject.since,
    };
    read(tenant, &pending).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use GateAction::{Modify, Upload};

    /// Version `n` of a file, pending `since` so many seconds after it arrived.
    fn version(n: u64, state: &str, is_shown: bool, since: i64) -> Thing {
        let at = |second| jiff::Timestamp::from_second(second).unwrap().to_string();
        let item = json!({"id": "i", "workspaceId": "w", "kind": "File", "name": "a", "path": "/a", "state": state,
            "createdAt": at(0), "modifiedAt": at(0), "etag": "\"1\""});
        let version = json!({"version": n, "state": "Pending", "visible": false, "size": 1, "sha256": "0", "mimeType": "text/plain",
            "createdBy": {"kind": "User", "id": "u", "name": "u"}, "createdAt": at(100)});
        let pending = json!({"workspaceId": "w", "itemId": "i", "version": n, "since": at(100 + since)});
        Thing {
            pending: serde_json::from_value(pending).unwrap(),
            item: serde_json::from_value(item).unwrap(),
            version: Some(serde_json::from_value(version).unwrap()),
            link: None,
            is_shown,
        }
    }

    #[test]
    fn a1_a_file_without_a_visible_version_is_an_upload_wherever_it_is() {
        for state in ["Pending", "Quarantined", "Trashed"] {
            assert_eq!(version(1, state, false, 0).actions(), [Upload], "{state}");
            assert_eq!(version(2, state, false, 0).actions(), [Upload], "{state}: its first version was refused");
        }
    }

    #[test]
    fn a1_a_version_behind_a_visible_one_is_a_change_wherever_the_file_is() {
        for state in ["Available", "Quarantined", "Trashed"] {
            assert_eq!(version(2, state, true, 0).actions(), [Modify], "{state}");
        }
    }

    #[test]
    fn a1_what_was_visible_and_is_withheld_again_belongs_to_gates_for_places_and_for_changes() {
        for (n, is_shown) in [(1, false), (3, false), (1, true), (3, true)] {
            assert_eq!(version(n, "Pending", is_shown, 60).actions(), [Upload, Modify], "{n} {is_shown}");
        }
    }

    #[test]
    fn a1_a_guest_of_the_whole_workspace_is_held_by_the_gates_below_and_a_version_is_not() {
        let entry = |path: &str, action| Entry {
            namespace: "a".into(),
            route: "r".into(),
            workspace: "w".into(),
            path: path.into(),
            folder: None,
            actions: vec![action],
            min_approvals: 1,
            separates: false,
            orphaned_at: None,
        };
        let mut guest = version(1, "Available", true, 0);
        guest.pending.version = None;
        guest.pending.member = Some("p".into());
        guest.item.path = "/".into();
        guest.item.kind = ItemKind::Folder;
        assert!(guest.is_held_by(&entry("/Inbox", GateAction::ShareExternal)));
        assert!(!guest.is_held_by(&entry("/Inbox", GateAction::ShareLink)), "a grant is no link");
        guest.item.path = "/Other".into();
        assert!(!guest.is_held_by(&entry("/Inbox", GateAction::ShareExternal)));
        let file = version(1, "Pending", false, 0);
        assert!(!file.is_held_by(&entry("/Inbox", Upload)), "it is at /a");
        assert!(file.is_held_by(&entry("/", Upload)));
    }
}
