//! What an event says: to expressions, and as a CloudEvents 1.0 event. Pure.

use kube::ResourceExt;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::outbox::{About, Due, Entry, Missed, Occurrence};
use crate::api::SecureWorkspace;
use crate::api::report::{ReportEvent, ReportSpec};
use crate::expression::{InvalidField, Variables, from_json};
use crate::file360::model::{Actor, Change, ChangeKind, Item, ItemState, Link, Member};
use crate::hex::hex;
use crate::outbound::cloud_event::{Event, source};
use crate::outbound::http::{Surroundings, Target};

/// The variables that the expressions of a report may use.
pub const NAMES: &[&str] = &["event", "workspace", "file", "access", "share", "documents", "missed"];
/// Type of the event that tells what was not told.
pub const MISSED: &str = "io.file360.workspace.eventsmissed";
/// What a caller says about the cause of a change, at most.
const LONGEST_CAUSE: usize = 64;

/// Compiles a report. Nothing is read or sent.
pub fn compile(spec: &ReportSpec, surroundings: &Surroundings) -> Result<Target, InvalidField> {
    if spec.http.multipart.is_some() {
        return Err(InvalidField::value("http.multipart", "goes with the content of a file"));
    }
    Target::new(&spec.http, NAMES, surroundings).map_err(|invalid| invalid.below("http"))
}

/// Compiles all reports; the first field that cannot be used, such as `report[0].http.template`.
pub fn check(specs: &[ReportSpec], surroundings: &Surroundings) -> Result<(), InvalidField> {
    for (at, spec) in specs.iter().enumerate() {
        compile(spec, surroundings).map_err(|invalid| invalid.below(&format!("report[{at}]")))?;
    }
    Ok(())
}

/// What an entry of the feed is to a report; `share_is_there`: of a link, whether it is open.
pub fn of_change(kind: ChangeKind, share_is_there: bool) -> Option<ReportEvent> {
    Some(match kind {
        ChangeKind::MemberSet | ChangeKind::MemberRemoved => ReportEvent::AccessChanged,
        ChangeKind::FileUploaded | ChangeKind::VersionAdded | ChangeKind::FileRestored => ReportEvent::FileUploaded,
        ChangeKind::FileChanged => ReportEvent::FileChanged,
        ChangeKind::FileDeleted => ReportEvent::FileDeleted,
        ChangeKind::LinkChanged if share_is_there => ReportEvent::FileShared,
        ChangeKind::LinkChanged => ReportEvent::ShareEnded,
        _ => return None,
    })
}

/// An entry of the feed as it is kept. `by_operator`: the operator did it.
pub fn occurrence(change: &Change, event: ReportEvent, by_operator: bool) -> Occurrence {
    let is_about_item = matches!(event, ReportEvent::FileUploaded | ReportEvent::FileChanged | ReportEvent::FileDeleted);
    Occurrence {
        id: change.id.clone(),
        event,
        at: change.time,
        by: Some(change.actor.clone()),
        caused_by: change.caused_by.as_deref().map(|cause| crate::error::clean(cause, LONGEST_CAUSE)),
        by_operator,
        item: if is_about_item { change.subject.clone() } else { change.item_id.clone() },
        path: change.path.clone(),
        version: change.version,
        subject: change.subject.clone().filter(|_| !is_about_item),
        facts: (change.kind == ChangeKind::MemberRemoved).then(|| json!({"removed": true})),
    }
}

/// What is looked up when an event is told.
#[derive(Default)]
pub struct Looked {
    /// The file, if it is there and visible.
    pub item: Option<Item>,
    /// The member, if there is one.
    pub member: Option<Member>,
    /// The link, if it is open.
    pub link: Option<Link>,
}

/// One event for one sink.
pub struct Telling {
    /// What expressions see.
    pub variables: Variables,
    /// The event as CloudEvents have it.
    pub envelope: Event,
    /// Attributes beside those of CloudEvents.
    pub extensions: Map<String, Value>,
    /// Its data.
    pub data: Value,
    /// The idempotency key: the same for every try (R1).
    pub key: String,
}

/// Everything about an event of `object` for the report `sink`.
pub fn telling(object: &SecureWorkspace, cluster: &str, about: &About, sink: &str, due: &Due, looked: &Looked) -> Telling {
    let workspace = about.workspace.as_str();
    let mut data = Map::new();
    data.insert("workspace".into(), workspace_facts(object, workspace, &about.url));
    let (kind, id, at, subject, cause) = match due {
        Due::Entry(entry) => {
            data.insert("event".into(), event_facts(entry, &about.uid));
            add_facts(&mut data, &entry.what, looked);
            let what = &entry.what;
            let subject = what.path.clone().unwrap_or_else(|| workspace.to_owned());
            (what.event.cloud_type().to_owned(), what.id.clone(), what.at, subject, what.caused_by.clone())
        }
        Due::Missed(missed) => {
            let id = format!("{}-{}-missed-{}", about.series, sink, missed.up_to);
            let facts = json!({"type": "EventsMissed", "id": id, "at": missed.until.to_string(), "actor": actor_facts(None),
                "causedBy": "", "own": false});
            data.insert("event".into(), facts);
            data.insert("missed".into(), missed_facts(missed));
            (MISSED.to_owned(), id, missed.until, workspace.to_owned(), None)
        }
    };
    let mut variables = Variables::default();
    for name in NAMES {
        variables.set(name, from_json(data.get(*name).unwrap_or(&json!({}))));
    }
    let namespace = object.namespace().unwrap_or_default();
    Telling {
        variables,
        key: key(workspace, &id, sink),
        envelope: Event { kind, source: source(&[cluster, &namespace, &object.name_any()]), id, time: at, subject },
        extensions: cause.map(|cause| ("causedby".to_owned(), json!(cause))).into_iter().collect(),
        data: Value::Object(data),
    }
}

fn key(workspace: &str, id: &str, sink: &str) -> String {
    hex(&Sha256::digest(format!("{workspace}\u{0}{id}\u{0}{sink}"))[..16])
}

fn workspace_facts(object: &SecureWorkspace, id: &str, url: &str) -> Value {
    let spec = &object.spec;
    let external = spec.external_ref.as_ref();
    json!({
        "id": id,
        "namespace": object.namespace(),
        "name": object.name_any(),
        "displayName": spec.display_name,
        "url": url,
        "externalRef": external.map(|key| json!({"system": key.system, "type": key.kind, "id": key.id})).unwrap_or(json!({})),
        "classification": spec.classification.as_deref().unwrap_or_default(),
        "metadata": spec.metadata.clone().unwrap_or_default(),
        "labels": object.labels(),
    })
}

fn event_facts(entry: &Entry, uid: &str) -> Value {
    let what = &entry.what;
    let mut facts = json!({"type": what.event, "id": what.id, "at": what.at.to_string()});
    facts["actor"] = actor_facts(what.by.as_ref());
    facts["causedBy"] = json!(what.caused_by.as_deref().unwrap_or_default());
    // What the resource itself brought about is no news to the system that declared it.
    facts["own"] = json!(what.by_operator && what.caused_by.as_deref() == Some(uid));
    facts
}

/// What the operator itself says is nobody's.
fn actor_facts(actor: Option<&Actor>) -> Value {
    match actor {
        Some(actor) => json!({"kind": actor.kind, "name": actor.name, "emailVerified": actor.email_verified}),
        None => json!({"kind": "", "name": "", "emailVerified": false}),
    }
}

fn add_facts(data: &mut Map<String, Value>, what: &Occurrence, looked: &Looked) {
    if let Some(id) = &what.item {
        data.insert("file".into(), file_facts(id, what, looked.item.as_ref()));
    }
    match what.event {
        ReportEvent::AccessChanged => {
            data.insert("access".into(), access_facts(what, looked.member.as_ref()));
            // A grant stands on a folder, which is no file.
            data.remove("file");
        }
        ReportEvent::FileShared | ReportEvent::ShareEnded => {
            data.insert("share".into(), share_facts(what, looked.link.as_ref()));
        }
        ReportEvent::DocumentsChanged => {
            data.insert("documents".into(), what.facts.clone().unwrap_or_else(|| json!({})));
        }
        _ => {}
    }
}

fn file_facts(id: &str, what: &Occurrence, item: Option<&Item>) -> Value {
    let path = what.path.clone().unwrap_or_default();
    let mut facts = json!({"id": id, "path": path, "name": path.rsplit('/').next(), "version": what.version});
    // What is held back or gone is told by its place alone.
    let Some(item) = item.filter(|item| item.state == ItemState::Available) else { return facts };
    let more = json!({
        "size": item.size, "mimeType": item.mime_type, "sha256": item.sha256, "metadata": item.metadata,
        "classification": item.classification.as_deref().unwrap_or_default(),
        "uploadRequest": item.upload_request.as_deref().unwrap_or_default(),
    });
    if let (Value::Object(facts), Value::Object(more)) = (&mut facts, more) {
        facts.extend(more);
    }
    facts
}

fn access_facts(what: &Occurrence, member: Option<&Member>) -> Value {
    let removed = what.facts.as_ref().is_some_and(|facts| facts["removed"] == true);
    let mut facts = json!({
        "principalId": what.subject.as_deref().unwrap_or_default(),
        "path": what.path.as_deref().unwrap_or("/"),
        "removed": removed,
    });
    if let Some(member) = member.filter(|_| !removed) {
        facts["kind"] = json!(member.kind);
        facts["name"] = json!(member.name);
        facts["role"] = json!(member.role);
        facts["expiresAt"] = json!(member.expires_at.map(|at| at.to_string()).unwrap_or_default());
    }
    facts
}

/// Never the address: who has it, has the file.
fn share_facts(what: &Occurrence, link: Option<&Link>) -> Value {
    let mut facts =
        json!({"id": what.subject.as_deref().unwrap_or_default(), "ended": what.event == ReportEvent::ShareEnded});
    if let Some(link) = link {
        facts["audience"] = json!(link.audience);
        facts["expiresAt"] = json!(link.expires_at.map(|at| at.to_string()).unwrap_or_default());
        facts["hasPassword"] = json!(link.has_password);
        facts["recipients"] = json!(link.recipients);
    }
    facts
}

fn missed_facts(missed: &Missed) -> Value {
    json!({"count": missed.count, "since": missed.since.to_string(), "until": missed.until.to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Identity;

    fn object() -> SecureWorkspace {
        let manifest = json!({
            "apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspace",
            "metadata": {"name": "acme", "namespace": "sales", "labels": {"team": "a"}},
            "spec": {"connectionRef": {"name": "c"}, "displayName": "Acme", "externalRef": {"system": "crm", "type": "deal", "id": "7"}},
        });
        serde_json::from_value(manifest).unwrap()
    }

    fn about() -> About {
        About { workspace: "w".into(), uid: "uid".into(), url: "https://f/w".into(), series: "s".into() }
    }

    fn change(kind: &str, more: &Value) -> Change {
        let mut change = json!({"sequence": 9, "id": "c9", "time": "2026-07-01T10:00:00Z", "type": kind, "workspaceId": "w",
            "actor": {"kind": "Guest", "name": "eve@acme.example", "emailVerified": true}});
        for (name, value) in more.as_object().unwrap() {
            change[name] = value.clone();
        }
        serde_json::from_value(change).unwrap()
    }

    fn identity() -> Identity {
        Identity::of(serde_json::from_value(json!({"id": "operator", "kind": "Client", "name": "operator"})).unwrap())
    }

    fn told(change: &Change, looked: &Looked) -> Telling {
        let event = of_change(change.kind, looked.link.is_some()).unwrap();
        let entry = Entry::new(1, occurrence(change, event, identity().is(&change.actor)), None);
        telling(&object(), "cluster", &about(), "crm", &Due::Entry(Box::new(entry)), looked)
    }

    #[test]
    fn an_upload_names_file_actor_and_business_key_and_has_the_id_of_the_feed() {
        let change = change("fileUploaded", &json!({"subject": "i", "path": "/Inbox/a.pdf", "version": 1}));
        let told = told(&change, &Looked::default());
        assert_eq!((told.envelope.kind.as_str(), told.envelope.id.as_str()), ("io.file360.file.uploaded", "c9"));
        assert_eq!(told.envelope.source, "/file360/cluster/sales/acme");
        assert_eq!(told.data["file"], json!({"id": "i", "path": "/Inbox/a.pdf", "name": "a.pdf", "version": 1}));
        assert_eq!(told.data["workspace"]["externalRef"], json!({"system": "crm", "type": "deal", "id": "7"}));
        assert_eq!(told.data["event"]["actor"]["name"], "eve@acme.example");
        assert_eq!(told.data["event"]["own"], false);
        assert_eq!(told.key.len(), 32);
    }

    #[test]
    fn r8_what_the_resource_caused_itself_is_told_apart() {
        let operator = json!({"kind": "Client", "id": "operator", "name": "operator"});
        let more = json!({"subject": "p", "path": "/", "causedBy": "uid", "actor": operator});
        let own = told(&change("memberSet", &more), &Looked::default());
        assert_eq!((&own.data["event"]["own"], &own.extensions["causedby"]), (&json!(true), &json!("uid")));
        let more = json!({"subject": "p", "path": "/", "causedBy": "uid"});
        let forged = told(&change("memberSet", &more), &Looked::default());
        assert_eq!(forged.data["event"]["own"], false, "somebody else says so");
        let more = json!({"subject": "p", "path": "/", "causedBy": "another"});
        let other = told(&change("memberRemoved", &more), &Looked::default());
        assert_eq!((&other.data["event"]["own"], &other.data["access"]["removed"]), (&json!(false), &json!(true)));
        assert_ne!(own.data["access"], other.data["access"]);
    }

    #[test]
    fn t5_the_address_of_a_share_is_not_told() {
        let link: Link = serde_json::from_value(
            json!({"id": "l", "itemId": "i", "audience": "Anyone", "hasPassword": true, "downloads": 0,
            "download": true, "url": "https://f/s/secret", "etag": "e"}),
        )
        .unwrap();
        let change = change("linkChanged", &json!({"subject": "l", "itemId": "i", "path": "/a.pdf"}));
        let shared = told(&change, &Looked { link: Some(link), ..Looked::default() });
        assert_eq!(shared.envelope.kind, "io.file360.file.shared");
        assert!(!shared.data.to_string().contains("secret"), "{}", shared.data);
        assert_eq!(shared.data["share"]["audience"], "Anyone");
        let ended = told(&change, &Looked::default());
        assert_eq!(ended.envelope.kind, "io.file360.file.shareended");
    }

    #[test]
    fn every_event_has_a_type_and_a_bit_of_its_own() {
        let types: std::collections::BTreeSet<&str> = ReportEvent::ALL.iter().map(|event| event.cloud_type()).collect();
        let bits = ReportEvent::ALL.iter().fold(0, |all, event| all | event.bit());
        assert_eq!((types.len(), bits.count_ones() as usize), (ReportEvent::ALL.len(), ReportEvent::ALL.len()));
    }
}
