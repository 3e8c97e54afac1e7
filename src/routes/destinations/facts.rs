//! What is told about a file: in events, and in an index.

use serde_json::{Map, Value};

use crate::api::file_route::FileEvent;
use crate::outbound::cloud_event::{Event, source};
use crate::routes::delivery::{Delivery, File, Origin};

/// Everything that is known about a file, by its name in events and in `index.properties`. What is not known is left out.
///
/// `version` is a text: of a file in File 360 its number, of an object its entity tag.
pub fn facts(file: &File) -> Map<String, Value> {
    let mut facts = Map::new();
    let mut tell = |name: &str, value: Value| facts.insert(name.to_owned(), value);
    tell("name", file.name.clone().into());
    tell("path", file.path.clone().into());
    tell("size", file.size.into());
    tell("mimeType", file.mime_type.clone().into());
    tell("version", file.origin.version().into());
    tell("createdAt", file.created_at.to_string().into());
    tell("modifiedAt", file.modified_at.to_string().into());
    tell("workspace", file.workspace_name.clone().into());
    tell("metadata", file.metadata.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect());
    for (name, known) in [("sha256", &file.sha256), ("createdBy", &file.created_by), ("classification", &file.classification)] {
        if let Some(value) = known {
            tell(name, value.clone().into());
        }
    }
    facts
}

/// A delivery as an event: its id is the idempotency key, so that it is the same when the delivery is tried again (R1).
pub fn event(delivery: &Delivery) -> (Event, Value) {
    let (route, file) = (&delivery.route, &delivery.file);
    let what = match delivery.event {
        FileEvent::Uploaded => "uploaded",
        FileEvent::VersionAdded => "versionadded",
        FileEvent::MetadataChanged => "metadatachanged",
        FileEvent::Shared => "shared",
    };
    let event = Event {
        id: delivery.key.clone(),
        source: source(&[&route.cluster, &route.namespace, &route.name]),
        kind: format!("io.file360.file.{what}"),
        subject: file.path.clone(),
        time: delivery.event_at,
    };
    let mut data = facts(file);
    data.insert("fileId".into(), file.origin.file().into());
    if let Origin::Item { workspace, .. } = &file.origin {
        data.insert("workspaceId".into(), workspace.clone().into());
    }
    (event, data.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_known_is_left_out() {
        let file = File {
            origin: Origin::Object { store: "s3/host/bucket".into(), key: "in/a.pdf".into(), etag: "e1".into() },
            name: "a.pdf".into(),
            path: "in/a.pdf".into(),
            size: 7,
            sha256: None,
            mime_type: "application/pdf".into(),
            created_at: "2026-07-01T10:00:00Z".parse().unwrap(),
            modified_at: "2026-07-02T10:00:00Z".parse().unwrap(),
            created_by: None,
            classification: Some("Secret".into()),
            metadata: [("region".to_owned(), "EU".to_owned())].into(),
            workspace_name: "bucket".into(),
        };
        assert_eq!(
            Value::from(facts(&file)),
            json!({
                "name": "a.pdf", "path": "in/a.pdf", "size": 7, "mimeType": "application/pdf", "version": "e1",
                "createdAt": "2026-07-01T10:00:00Z", "modifiedAt": "2026-07-02T10:00:00Z", "workspace": "bucket",
                "classification": "Secret", "metadata": {"region": "EU"},
            })
        );
    }
}
