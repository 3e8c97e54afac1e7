//! A delivery as a CloudEvents 1.0 event: the same wherever events go.

use serde_json::{Value, json};

use crate::api::file_route::FileEvent;
use crate::expression::{Expression, InvalidField};
use crate::outbound::cloud_event::{Event, source};
use crate::routes::delivery::{Delivery, Origin};
use crate::routes::environment::NAMES;

/// Makes events.
pub struct Events {
    /// Facts that only the expressions' variables have.
    context: Expression,
}

impl Events {
    /// Ready to make some.
    pub fn new() -> Result<Self, InvalidField> {
        let context = "{'uploader': {'kind': uploader.kind, 'emailVerified': uploader.emailVerified}, 'actor': event.actor, \
                       'externalRef': has(workspace.externalRef) ? workspace.externalRef : {}}";
        let context = Expression::compile(context, NAMES).map_err(|invalid| InvalidField::expression("event", &invalid))?;
        Ok(Self { context })
    }

    /// What stands around the data. The id is the idempotency key, so that it is the same when the delivery is tried again (R1).
    pub fn event(&self, delivery: &Delivery) -> Event {
        let kind = match delivery.event {
            FileEvent::Uploaded => "uploaded",
            FileEvent::VersionAdded => "versionadded",
            FileEvent::MetadataChanged => "metadatachanged",
            FileEvent::Shared => "shared",
            FileEvent::DocumentApproved => "documentapproved",
            FileEvent::DocumentRejected => "documentrejected",
            FileEvent::DocumentExpired => "documentexpired",
        };
        let route = &delivery.route;
        Event {
            kind: format!("io.file360.file.{kind}"),
            source: source(&[&route.cluster, &route.namespace, &route.name]),
            id: delivery.key.clone(),
            time: delivery.event_at,
            subject: delivery.file.path.clone(),
        }
    }

    /// What an event says about a file.
    pub fn data(&self, delivery: &Delivery) -> Value {
        let file = &delivery.file;
        let (id, version) = match &file.origin {
            Origin::Item { item, version, .. } => (item.clone(), json!(version)),
            Origin::Object { key, etag, .. } => (key.clone(), json!(etag)),
        };
        let mut data = json!({
            "file": {
                "id": id,
                "name": file.name,
                "path": file.path,
                "size": file.size,
                "mimeType": file.mime_type,
                "sha256": file.sha256,
                "version": version,
                "createdAt": file.created_at.to_string(),
                "modifiedAt": file.modified_at.to_string(),
                "classification": file.classification,
                "metadata": file.metadata,
            },
            "workspace": {"name": file.workspace_name},
            "event": {"type": format!("{:?}", delivery.event)},
            "route": {"namespace": delivery.route.namespace, "name": delivery.route.name},
            "rule": &*delivery.rule,
            "destination": &*delivery.destination,
        });
        if let Origin::Item { workspace, .. } = &file.origin {
            data["workspace"]["id"] = json!(workspace);
        }
        if let Ok(context) = self.context.json(&delivery.variables) {
            data["uploader"] = context["uploader"].clone();
            data["event"]["actor"] = context["actor"].clone();
            if context["externalRef"].as_object().is_some_and(|reference| !reference.is_empty()) {
                data["workspace"]["externalRef"] = context["externalRef"].clone();
            }
        }
        data
    }
}
