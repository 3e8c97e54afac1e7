//! The marker of a workspace: `.file360/workspace.json` in its collection. It carries what WebDAV has no place for: the business key, the
//! display name, who manages the workspace, and which folders were declared.
//!
//! It is read, changed and written under a lock where the server has locks. Where it has none, it is read again after writing, so that
//! two writers at one moment are noticed, not prevented.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::client::{Client, Depth};
use super::place::{OWN, Place};
use crate::error::{Error, Kind, Result};
use crate::file360::model::{BusinessKey, OwnerMark};

/// Name of the marker.
const FILE: &str = "workspace.json";
/// The form of the marker that this version writes and reads.
const FORM: u32 = 1;
/// Largest marker: 500 folders with long paths.
const MAX_SIZE: usize = 4 * 1024 * 1024;

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// Form of the marker.
    pub form: u32,
    /// Business key; absent on a workspace that was adopted by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<BusinessKey>,
    /// Name for people.
    pub display_name: String,
    /// Grows by one with every change of the marker.
    pub revision: u64,
    /// Differs after every write: tells whose write it was.
    pub tag: String,
    /// Who manages the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerMark>,
    /// See [`Workspace::managed_fields`](crate::file360::model::Workspace::managed_fields).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_fields: Vec<String>,
    /// Declared folders by path, with how the owner knows each. Written before the folder is made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<String, String>,
}

impl Marker {
    /// A marker that was never written.
    pub fn new(display_name: &str) -> Self {
        Self {
            form: FORM,
            key: None,
            display_name: display_name.to_owned(),
            revision: 0,
            tag: String::new(),
            owner: None,
            managed_fields: Vec::new(),
            folders: BTreeMap::new(),
        }
    }

    /// Entity tag of the workspace.
    pub fn etag(&self) -> String {
        format!("\"{}-{}\"", self.revision, self.tag)
    }

    /// Refuses a change that was decided on another state of the workspace.
    pub fn expect(&self, etag: &str) -> Result<()> {
        if etag == "*" || etag == self.etag() {
            return Ok(());
        }
        let mut error = Error::new(Kind::Stale, "somebody else changed the workspace in between");
        error.code = "etag-mismatch".into();
        Err(error)
    }
}

/// Where the marker of a workspace is.
fn place_of(workspace: &Place) -> Place {
    workspace.child(OWN).child(FILE)
}

/// Where uploads of a workspace wait until they are whole.
pub fn own_collection(workspace: &Place) -> Place {
    workspace.child(OWN)
}

/// Reads the marker of a workspace; `None`: it has none. One that cannot be understood is an error, never taken for absent (C5).
pub async fn read(client: &Client, workspace: &Place) -> Result<Option<Marker>> {
    let Some(body) = client.read(&place_of(workspace)).await? else { return Ok(None) };
    // A lock on a marker that is not there yet makes an empty one.
    if body.is_empty() {
        return Ok(None);
    }
    let unreadable = |why: &str| {
        let path = format!("{}/{OWN}/{FILE}", workspace.workspace_id());
        Error::new(
            // About this workspace alone: it stalls, and says why.
            Kind::Rejected,
            format!("the marker {path} {why}; restore it, or remove it to have the workspace adopted again"),
        )
    };
    if body.len() > MAX_SIZE {
        return Err(unreadable("is too large"));
    }
    let form = serde_json::from_slice::<Form>(&body).map_err(|_| unreadable("is no marker"))?.form;
    if form != FORM {
        return Err(Error::new(
            Kind::Unsupported,
            format!("the workspace has a marker of form {form}; this version knows form {FORM}"),
        ));
    }
    serde_json::from_slice(&body).map(Some).map_err(|_| unreadable("is damaged"))
}

#[derive(Deserialize)]
struct Form {
    form: u32,
}

/// What a change of the marker comes to.
pub enum Change<T> {
    /// It is written; its revision and tag are set on the way.
    Write(Box<Marker>, T),
    /// It stays as it is.
    Keep(T),
}

/// Reads the marker, lets `decide` change it, and writes it, while no other client that respects locks does. Returns the marker as it is
/// then.
pub async fn change<T>(
    client: &Client,
    workspace: &Place,
    decide: impl FnOnce(Option<Marker>) -> Result<Change<T>> + Send,
) -> Result<(Option<Marker>, T)> {
    let place = place_of(workspace);
    let lock = client.lock(&place, false, Depth::Zero).await?;
    let result = async {
        let before = read(client, workspace).await?;
        let (mut next, value) = match decide(before.clone())? {
            Change::Keep(value) => return Ok((before, value)),
            Change::Write(next, value) => (*next, value),
        };
        next.revision = before.as_ref().map_or(0, |before| before.revision) + 1;
        next.tag = format!("{:016x}", rand::random::<u64>());
        let body = serde_json::to_vec_pretty(&next).map_err(|error| Error::new(Kind::Rejected, error.to_string()))?;
        if body.len() > MAX_SIZE {
            return Err(Error::new(Kind::Rejected, "the workspace has more folders than its marker can name"));
        }
        let written = client.write(&place, body.into(), before.is_none(), &lock).await;
        if written.is_ok() && client.has_locks() {
            return Ok((Some(next), value));
        }
        // Without a lock somebody may have written, too; and a write whose reply was lost may have been done.
        match read(client, workspace).await {
            Ok(Some(now)) if now.tag == next.tag => Ok((Some(next), value)),
            _ => Err(written.err().unwrap_or_else(|| {
                let mut error = Error::new(Kind::Stale, "somebody else wrote the workspace's marker at the same time");
                error.code = "etag-mismatch".into();
                error
            })),
        }
    }
    .await;
    client.unlock(lock).await;
    result
}
