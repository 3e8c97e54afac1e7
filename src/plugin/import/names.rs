//! Names of objects, from the names that people gave. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::file360::model::{BusinessKey, OwnerState, Workspace};
use crate::hex::hex;

/// Longest name that is made of a display name.
const LONGEST: usize = 50;

/// Objects that are there already.
#[derive(Default)]
pub struct Existing {
    /// Their names.
    pub names: BTreeSet<String>,
    /// Names by `spec.workspaceId`, or by `spec.externalRef` as a business key.
    pub by_workspace: BTreeMap<Reference, String>,
}

/// How an object names its workspace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// By its id.
    Id(String),
    /// By its business key.
    Key(BusinessKey),
}

impl Existing {
    /// The object that is for this workspace already, though it may not have taken it up.
    fn object_for(&self, workspace: &Workspace) -> Option<&String> {
        let by_key = workspace.key.clone().and_then(|key| self.by_workspace.get(&Reference::Key(key)));
        by_key.or_else(|| self.by_workspace.get(&Reference::Id(workspace.id.clone())))
    }
}

/// Namespace (when the workspace's mark says one) and name of each object. The name of a workspace that nobody manages is that of
/// the object that is for it already, else a new one; which of them get a hash does not depend on their order.
pub fn of(workspaces: &[&Workspace], existing: &Existing) -> Vec<(Option<String>, String)> {
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for workspace in workspaces.iter().filter(|workspace| owner(workspace).is_none()) {
        *uses.entry(slug(&workspace.display_name)).or_default() += 1;
    }
    let name = |workspace: &&Workspace| {
        if let Some((namespace, name)) = owner(workspace) {
            return (Some(namespace), name);
        }
        if let Some(name) = existing.object_for(workspace) {
            return (None, name.clone());
        }
        let slug = slug(&workspace.display_name);
        let is_unique = uses.get(&slug) == Some(&1) && !existing.names.contains(&slug);
        (None, if is_unique { slug } else { format!("{slug}-{}", hash(&workspace.id)) })
    };
    workspaces.iter().map(name).collect()
}

/// Namespace and name of the object that manages the workspace, if they can be ones.
pub fn owner(workspace: &Workspace) -> Option<(String, String)> {
    let owner = workspace.owner.as_ref().filter(|owner| owner.state == OwnerState::Active)?;
    let can_be = |name: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        name.len() <= 253 && ends(name.chars().next()) && ends(name.chars().last()) && name.chars().all(inner)
    };
    (can_be(&owner.namespace) && can_be(&owner.name)).then(|| (owner.namespace.clone(), owner.name.clone()))
}

/// A DNS label of what is left of a name without accents and other characters.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.nfkd().flat_map(char::to_lowercase) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !unicode_normalization::char::is_combining_mark(c) && !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    slug.truncate(LONGEST);
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "workspace".into() } else { slug.to_owned() }
}

fn hash(id: &str) -> String {
    hex(&Sha256::digest(id)[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(id: &str, name: &str) -> Workspace {
        serde_json::from_value(serde_json::json!({
            "id": id, "revision": 1, "displayName": name, "state": "Active", "rootId": "f", "url": "", "etag": "",
            "sharing": {"external": "Disabled", "reshare": false,
                "links": {"maxAudience": "Members", "passwordRequired": false, "download": true}},
        }))
        .unwrap()
    }

    #[test]
    fn a_name_is_dns_safe_and_unique_whatever_people_wrote() {
        let all = [
            workspace("1", "Acme - Vendor Onboarding"),
            workspace("2", "Bücher & Söhne"),
            workspace("3", "bucher/sohne"),
            workspace("4", "\u{202e}文書: #1"),
            workspace("5", "日本"),
            workspace("6", &"x".repeat(80)),
            workspace("7", "Taken"),
            workspace("8", "Mine"),
        ];
        let existing = Existing {
            names: ["taken", "mine"].map(str::to_owned).into(),
            by_workspace: [(Reference::Id("8".into()), "mine".to_owned())].into(),
        };
        let names = of(&all.iter().collect::<Vec<_>>(), &existing);
        let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names[0], "acme-vendor-onboarding");
        assert_eq!(names[1], format!("bucher-sohne-{}", hash("2")));
        assert_eq!(names[2], format!("bucher-sohne-{}", hash("3")));
        assert_eq!(names[3..5], ["1", "workspace"]);
        assert_eq!(names[5].len(), LONGEST);
        assert_eq!(names[6], format!("taken-{}", hash("7")));
        assert_eq!(names[7], "mine");
    }
}
