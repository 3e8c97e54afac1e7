//! What a document of the index holds. Pure.

use std::collections::BTreeSet;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::file360::model::{AccessEntry, AccessList, Audience, PrincipalKind};
use crate::routes::delivery::File;

/// Which properties of a file a document may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    names: BTreeSet<String>,
    metadata: Metadata,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Metadata {
    All,
    Keys(BTreeSet<String>),
}

impl Properties {
    /// From `index.properties`.
    pub fn new(allowed: &[String]) -> Self {
        let (keys, names): (Vec<&String>, Vec<&String>) = allowed.iter().partition(|name| name.starts_with("metadata."));
        let keys: BTreeSet<String> =
            keys.into_iter().filter_map(|name| name.strip_prefix("metadata.")).map(str::to_owned).collect();
        let metadata = if keys.contains("*") { Metadata::All } else { Metadata::Keys(keys) };
        Self { names: names.into_iter().cloned().collect(), metadata }
    }

    /// The document of `file`: what is allowed, `route`, `fileId`, and `acl` where access is mirrored.
    pub fn document(&self, file: &File, route: &str, acl: Option<&Acl>) -> Map<String, Value> {
        let allowed = facts(file).filter(|(name, _)| self.names.contains(*name));
        let mut document: Map<String, Value> = allowed.map(|(name, value)| (name.to_owned(), value)).collect();
        let metadata: Map<String, Value> = file
            .metadata
            .iter()
            .filter(|(key, _)| match &self.metadata {
                Metadata::All => true,
                Metadata::Keys(keys) => keys.contains(*key),
            })
            .map(|(key, value)| (field(key), value.clone().into()))
            .collect();
        if !metadata.is_empty() {
            document.insert("metadata".into(), metadata.into());
        }
        document.insert("route".into(), route.into());
        document.insert("fileId".into(), file.origin.file().into());
        if let Some(acl) = acl {
            document.insert("acl".into(), serde_json::to_value(acl).unwrap_or_default());
        }
        document
    }
}

/// What is known about a file, by its name in `index.properties`; metadata aside. `version` is a text: of a file in File 360 its number, of
/// an object its entity tag.
fn facts(file: &File) -> impl Iterator<Item = (&'static str, Value)> {
    let told = [
        ("name", file.name.clone().into()),
        ("path", file.path.clone().into()),
        ("size", file.size.into()),
        ("mimeType", file.mime_type.clone().into()),
        ("version", file.origin.version().into()),
        ("createdAt", file.created_at.to_string().into()),
        ("modifiedAt", file.modified_at.to_string().into()),
        ("workspace", file.workspace_name.clone().into()),
    ];
    let known = [("sha256", &file.sha256), ("createdBy", &file.created_by), ("classification", &file.classification)];
    told.into_iter().chain(known.into_iter().filter_map(|(name, value)| Some((name, value.clone()?.into()))))
}

/// A metadata key as the name of a field: dots, which would nest fields in each other, control characters and `%` are percent-encoded, and
/// so are blanks where there is nothing else. An empty key is `%`.
fn field(key: &str) -> String {
    if key.is_empty() {
        return "%".into();
    }
    let is_blank = key.trim().is_empty();
    let encoded = |c: char| utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC).to_string();
    key.chars().map(|c| if is_blank || matches!(c, '.' | '%') || c.is_control() { encoded(c) } else { c.into() }).collect()
}

/// Who finds a file. A reader finds it if one of the reader's principals is in `allow` and none is in `deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Acl {
    /// Who may.
    pub allow: BTreeSet<String>,
    /// Who may not, whatever else allows it.
    pub deny: BTreeSet<String>,
}

impl Acl {
    /// What File 360 says, as principals: `user:alice`, `group:sales`, `guest:bob@acme.com`; in lower case, because names compare without
    /// case. A link that opens the file is `link:members`, `link:company`, `link:guests` or `link:anyone`: having the link is not being able to find
    /// the file, so a search counts these only if it wants to.
    ///
    /// Rights in File 360 add up: a role that does not read takes nothing away from what another role or a group gives. `deny` is
    /// therefore empty. A file without a visible version is found by nobody.
    pub fn of(list: &AccessList) -> Self {
        if list.pending {
            return Self::default();
        }
        let links = list.links.iter().map(|audience| format!("link:{}", link(*audience)));
        Self { allow: list.items.iter().filter_map(principal).chain(links).collect(), deny: BTreeSet::new() }
    }
}

fn principal(entry: &AccessEntry) -> Option<String> {
    let kind = match entry.kind {
        PrincipalKind::User => "user",
        PrincipalKind::Group => "group",
        PrincipalKind::Guest => "guest",
        // Applications read by their scopes and do not search.
        PrincipalKind::Client => return None,
    };
    Some(format!("{kind}:{}", entry.name.to_lowercase()))
}

fn link(audience: Audience) -> &'static str {
    match audience {
        Audience::Members => "members",
        Audience::Company => "company",
        Audience::Guests => "guests",
        Audience::Anyone => "anyone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file360::model::Role;
    use crate::routes::delivery::Origin;
    use serde_json::json;

    fn file() -> File {
        let metadata = [("region", "EU"), ("customer.id", "7"), ("secret", "x"), ("", "empty"), ("Größe", "L")];
        File {
            origin: Origin::Item { workspace: "w1".into(), item: "i1".into(), version: 3 },
            name: "a.pdf".into(),
            path: "/Inbox/a.pdf".into(),
            size: 7,
            sha256: Some("00ff".into()),
            mime_type: "application/pdf".into(),
            created_at: "2026-07-01T10:00:00Z".parse().unwrap(),
            modified_at: "2026-07-02T10:00:00Z".parse().unwrap(),
            created_by: Some("ada".into()),
            classification: None,
            metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            workspace_name: "Claims".into(),
        }
    }

    fn document(allowed: &[&str]) -> Value {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        Properties::new(&allowed).document(&file(), "c/n/r", None).into()
    }

    #[test]
    fn r7_a_document_has_what_is_allowed_and_nothing_else() {
        assert_eq!(document(&["name"]), json!({"route": "c/n/r", "fileId": "i1", "name": "a.pdf"}));
        assert_eq!(
            document(&["path", "version", "classification", "metadata.region", "metadata.customer.id", "metadata.absent"]),
            json!({"route": "c/n/r", "fileId": "i1", "path": "/Inbox/a.pdf", "version": "3", "metadata": {"region": "EU", "customer%2Eid": "7"}})
        );
        assert_eq!(
            document(&["metadata.*"])["metadata"],
            json!({"region": "EU", "customer%2Eid": "7", "secret": "x", "%": "empty", "Größe": "L"})
        );
        assert!(document(&["metadata.reg"]).get("metadata").is_none(), "a key is no prefix");
    }

    #[test]
    fn every_property_of_the_schema_is_one_that_a_document_can_have() {
        let all =
            ["name", "path", "size", "mimeType", "sha256", "version", "createdAt", "modifiedAt", "createdBy", "workspace"];
        let document = document(&all);
        for name in all {
            assert!(document.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn r6_no_metadata_key_nests_fields_or_is_mistaken_for_another() {
        let keys = ["a.b", "a%2Eb", ".", "..", " ", "  ", "", "a\nb", "a b", "ü.", "%"];
        let fields: BTreeSet<String> = keys.iter().map(|key| field(key)).collect();
        assert_eq!(fields.len(), keys.len(), "{fields:?}");
        assert!(fields.iter().all(|field| !field.contains('.') && !field.trim().is_empty()), "{fields:?}");
    }

    fn entry(kind: PrincipalKind, name: &str, role: Role) -> AccessEntry {
        AccessEntry { kind, name: name.into(), principal_id: format!("p-{name}"), role }
    }

    #[test]
    fn r7_who_may_read_is_who_finds() {
        let list = AccessList {
            items: vec![
                entry(PrincipalKind::User, "Alice", Role::Owner),
                entry(PrincipalKind::Group, "sales", Role::Viewer),
                entry(PrincipalKind::Guest, "Bob@acme.com", Role::Viewer),
                entry(PrincipalKind::Client, "erp", Role::Editor),
            ],
            denied: vec![entry(PrincipalKind::User, "carol", Role::Uploader)],
            links: vec![Audience::Company, Audience::Anyone],
            pending: false,
        };
        assert_eq!(
            serde_json::to_value(Acl::of(&list)).unwrap(),
            json!({"allow": ["group:sales", "guest:bob@acme.com", "link:anyone", "link:company", "user:alice"], "deny": []}),
            "carol may be in sales: her own role takes nothing away"
        );
        assert_eq!(Acl::of(&AccessList { pending: true, ..list }), Acl::default(), "nobody reads what is held back");
    }
}
