//! What of a spec the driver of its Connection cannot honour. Pure.
//!
//! Such a field is named in the status and takes no part in the plan; everything else converges. The resource is not ready then: what it
//! declares is not so, and whoever reads `Ready` must not believe that access is restricted where nobody restricts it.

use crate::api::connection::Driver;
use crate::api::secure_workspace::{DeletionPolicy, SecureWorkspaceSpec, UnsupportedField};
use crate::file360::feature::{Enforcement, Feature, Level};

/// Fields that the status names.
const LISTED: usize = 64;

/// The part of a spec that the driver can honour, and the fields that it cannot.
pub fn split(spec: &SecureWorkspaceSpec, enforcement: &Enforcement) -> (SecureWorkspaceSpec, Vec<UnsupportedField>) {
    let mut rest = spec.clone();
    let mut refusals = Refusals { enforcement, found: Vec::new() };
    refusals.drop("spec.classification", Feature::Classification, &mut rest.classification);
    refusals.drop("spec.metadata", Feature::Metadata, &mut rest.metadata);
    for (n, folder) in rest.folders.iter_mut().flatten().enumerate() {
        let at = |field: &str| format!("spec.folders[{n}].{field}");
        refusals.drop(&at("classification"), Feature::Classification, &mut folder.classification);
        refusals.drop(&at("metadata"), Feature::Metadata, &mut folder.metadata);
        refusals.drop(&at("locked"), Feature::FolderLocks, &mut folder.locked);
        refusals.drop(&at("members"), Feature::Members, &mut folder.members);
    }
    // An empty access mode says something, too: `Exclusive` that nobody enforces must not look as if somebody did.
    if let Some(access) = &rest.access
        && !enforcement.has(Feature::Members)
    {
        let fields = [("mode", access.mode.is_some()), ("members", access.members.is_some())];
        let named: Vec<&str> = fields.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
        let named = if named.is_empty() {
            vec!["spec.access".to_owned()]
        } else {
            named.iter().map(|name| format!("spec.access.{name}")).collect()
        };
        refusals.found.extend(named.into_iter().map(|field| UnsupportedField { field, feature: Feature::Members }));
        rest.access = None;
    }
    refusals.drop("spec.sharing", Feature::Sharing, &mut rest.sharing);
    refusals.drop("spec.uploadRequests", Feature::UploadRequests, &mut rest.upload_requests);
    let missing =
        [Feature::Changes, Feature::ClientState].into_iter().find(|needed| enforcement.level(*needed) != Level::Native);
    if let Some(feature) = missing.filter(|_| rest.report.as_ref().is_some_and(|report| !report.is_empty())) {
        rest.report = None;
        refusals.found.push(UnsupportedField { field: "spec.report".to_owned(), feature });
    }
    refusals.drop("spec.reminders", Feature::Notifications, &mut rest.reminders);
    refusals.drop("spec.requiredDocuments", Feature::Facets, &mut rest.required_documents);
    let policy = match rest.deletion_policy {
        Some(DeletionPolicy::Archive) => Some(Feature::Archive),
        Some(DeletionPolicy::Delete) => Some(Feature::Trash),
        _ => None,
    };
    if let Some(feature) = policy {
        refusals.drop("spec.deletionPolicy", feature, &mut rest.deletion_policy);
    }
    let mut found = refusals.found;
    found.truncate(LISTED);
    (rest, found)
}

/// The fields of a spec that a driver never honours, whatever its server can do: what can be told without a server.
pub fn of_driver(spec: &SecureWorkspaceSpec, driver: Driver) -> Vec<UnsupportedField> {
    match driver {
        Driver::Connector => Vec::new(),
        Driver::WebDav => split(spec, &crate::file360::webdav::enforcement(true)).1,
    }
}

/// One line for people.
pub fn line(found: &[UnsupportedField]) -> String {
    found.iter().map(|one| format!("{} ({:?})", one.field, one.feature)).collect::<Vec<_>>().join(", ")
}

struct Refusals<'a> {
    enforcement: &'a Enforcement,
    found: Vec<UnsupportedField>,
}

impl Refusals<'_> {
    /// Takes a field out of the spec if it asks for a feature that is not there.
    fn drop<T>(&mut self, field: &str, feature: Feature, value: &mut Option<T>) {
        if value.is_some() && !self.enforcement.has(feature) {
            *value = None;
            self.found.push(UnsupportedField { field: field.to_owned(), feature });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "specs are written where they are used")]
    fn spec(more: serde_json::Value) -> SecureWorkspaceSpec {
        let mut spec =
            json!({"connectionRef": {"name": "c"}, "displayName": "Acme", "folders": [{"path": "/A"}, {"path": "/B"}]});
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    fn fields(more: serde_json::Value) -> Vec<String> {
        let (rest, found) = split(&spec(more), &crate::file360::webdav::enforcement(true));
        assert!(split(&rest, &crate::file360::webdav::enforcement(true)).1.is_empty(), "what is left can be honoured");
        assert_eq!(rest.folders.unwrap().len(), 2, "folders stay");
        found.into_iter().map(|one| one.field).collect()
    }

    #[test]
    fn every_field_that_webdav_cannot_honour_is_named_and_folders_stay() {
        let member = json!({"kind": "User", "name": "ada", "role": "Viewer"});
        for (more, expected) in [
            (json!({}), &[][..]),
            (json!({"deletionPolicy": "Retain", "drift": {"access": "Warn"}, "maxRemovals": 3}), &[]),
            (json!({"classification": "Secret", "metadata": {"a": "b"}}), &["spec.classification", "spec.metadata"]),
            (json!({"access": {"mode": "Exclusive"}}), &["spec.access.mode"]),
            (json!({"access": {"members": [member]}}), &["spec.access.members"]),
            (json!({"access": {}}), &["spec.access"]),
            (json!({"sharing": {"external": "Disabled"}}), &["spec.sharing"]),
            (json!({"uploadRequests": [{"name": "a", "path": "/A"}]}), &["spec.uploadRequests"]),
            (json!({"report": [{"name": "crm", "http": {"url": "https://crm.example.com"}}]}), &["spec.report"]),
            (json!({"deletionPolicy": "Delete"}), &["spec.deletionPolicy"]),
            (json!({"deletionPolicy": "Archive"}), &["spec.deletionPolicy"]),
            (
                json!({"folders": [{"path": "/A"}, {"path": "/B", "locked": true, "classification": "x", "metadata": {"a": "b"}, "members": [member]}]}),
                &[
                    "spec.folders[1].classification",
                    "spec.folders[1].metadata",
                    "spec.folders[1].locked",
                    "spec.folders[1].members",
                ],
            ),
        ] {
            assert_eq!(fields(more.clone()), expected, "{more}");
        }
    }

    #[test]
    fn nothing_is_named_where_everything_is_enforced() {
        let all = Enforcement::of(|_| crate::file360::feature::Level::Native);
        let spec =
            spec(json!({"access": {"mode": "Exclusive"}, "sharing": {"external": "Disabled"}, "deletionPolicy": "Delete"}));
        let (rest, found) = split(&spec, &all);
        assert_eq!((rest, found), (spec, Vec::new()));
    }
}
