//! The SecureWorkspace of one item: its name, its marks, its manifest. Pure.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::fingerprint;
use super::template::Rendered;
use crate::api::common::ConnectionRef;
use crate::api::{GROUP, SET_APPLIED, SET_DATA, SET_EVENTS, SET_GENERATOR, SET_ITEM, SET_LABEL, SET_TEMPLATE, VERSION};
use crate::hex::hex;

/// Longest key, in characters.
pub const LONGEST_KEY: usize = 512;
/// Longest part of a name that comes from the set's name.
const LONGEST_SET: usize = 30;
/// Longest part of a name that comes from the key.
const LONGEST_SLUG: usize = 22;
/// Largest manifest, in bytes of JSON.
const LARGEST: usize = 256 * 1024;

/// Which set.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its Connection.
    pub connection: &'a ConnectionRef,
}

/// What an event leaves on the SecureWorkspace that it made.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin<'a> {
    /// The item, to make the workspace anew from when the template changes. `None`: another generator has the item.
    pub item: Option<&'a Value>,
    /// Fingerprint of the template.
    pub template: &'a str,
    /// Fingerprints of the latest events.
    pub events: Option<&'a str>,
}

/// The SecureWorkspace of one item.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// Fingerprint of everything that the item and the template decide.
    pub applied: String,
    /// What is applied: everything that the set declares of it, and nothing else.
    pub manifest: Value,
}

/// The key, if it can be one: 1 to 512 characters, none of them a control character.
pub fn key(text: String) -> Result<String, String> {
    let length = text.chars().count();
    if length == 0 || length > LONGEST_KEY {
        return Err(format!("a key has 1 to {LONGEST_KEY} characters, not {length}"));
    }
    if text.chars().any(char::is_control) {
        return Err("a key has no control characters".into());
    }
    Ok(text)
}

/// The value of the label that names a set. Names of objects can be longer than a label's value.
pub fn label(set: &str) -> String {
    if set.len() <= 63 { set.to_owned() } else { format!("{}.{}", &set[..54], digest(set)) }
}

/// The name of an item's SecureWorkspace: a part of the set's name, a part of the key for people, and 8 digits of the key's SHA-256.
pub fn name(set: &str, key: &str) -> String {
    let parts = [slug(set, LONGEST_SET), slug(key, LONGEST_SLUG), digest(key)];
    parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("-")
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text)[..4])
}

/// What of a text can stand in a name, with single dashes for the rest.
fn slug(text: &str, longest: usize) -> String {
    let mut slug = String::new();
    for c in text.chars().take(4 * longest) {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= longest {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

impl Child {
    /// The SecureWorkspace of the item with this key. `generator` is the kind and the name of who has the item.
    pub fn new(
        set: Set<'_>,
        generator: &str,
        key: &str,
        rendered: Rendered,
        origin: Option<&Origin<'_>>,
    ) -> Result<Self, String> {
        let Rendered { mut labels, mut annotations, mut spec } = rendered;
        let name = name(set.name, key);
        spec.insert("connectionRef".into(), json!(set.connection));
        labels.insert(SET_LABEL.into(), label(set.name).into());
        annotations.insert(SET_ITEM.into(), key.into());
        annotations.insert(SET_GENERATOR.into(), generator.into());
        let decided = [&labels, &annotations, &spec].map(canonical);
        let [labels_text, annotations_text, spec_text] = decided.each_ref().map(String::as_bytes);
        let applied = fingerprint(&[labels_text, annotations_text, spec_text]);
        annotations.insert(SET_APPLIED.into(), applied.clone().into());
        if let Some(origin) = origin {
            if let Some(item) = origin.item {
                annotations.insert(SET_TEMPLATE.into(), origin.template.into());
                annotations.insert(SET_DATA.into(), item.to_string().into());
            }
            if let Some(events) = origin.events {
                annotations.insert(SET_EVENTS.into(), events.into());
            }
        }
        let manifest = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "SecureWorkspace",
            "metadata": {"name": name, "namespace": set.namespace, "labels": labels, "annotations": annotations},
            "spec": spec,
        });
        let size = manifest.to_string().len();
        if size > LARGEST {
            return Err(format!("the workspace's manifest has {size} bytes, more than {LARGEST}"));
        }
        Ok(Self { name, applied, manifest })
    }
}

/// The same text for the same content, whatever the order of its members.
fn canonical(map: &Map<String, Value>) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let mut entries: Vec<_> = members.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                Value::Array(entries.into_iter().map(|(key, value)| json!([key, sorted(value)])).collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    sorted(&Value::Object(map.clone())).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reconcile::is_object_name;

    fn set(connection: &ConnectionRef) -> Set<'_> {
        Set { namespace: "sales", name: "deals", connection }
    }

    fn own() -> ConnectionRef {
        ConnectionRef { name: "file360".into(), namespace: None }
    }

    #[test]
    fn a_name_says_what_it_stands_for_and_keys_that_look_alike_differ() {
        assert_eq!(name("deals", "ACME 4711"), format!("deals-acme-4711-{}", digest("ACME 4711")));
        assert_ne!(name("deals", "a/b"), name("deals", "a-b"));
        assert_ne!(name("deals", "A"), name("deals", "a"));
        assert_eq!(name("deals", "ü"), format!("deals-{}", digest("ü")));
        assert_eq!(name("deals", &"x".repeat(500)).len(), 5 + 1 + LONGEST_SLUG + 1 + 8);
        assert!(label(&"s".repeat(253)).len() <= 63);
    }

    #[test]
    fn t5_what_is_no_key_is_refused() {
        for odd in [String::new(), "a\0b".into(), "a\nb".into(), "x".repeat(LONGEST_KEY + 1)] {
            assert!(key(odd.clone()).is_err(), "{odd:?}");
        }
        assert!(key("ä 🦀 <script> ' \" ${x} ../..".into()).is_ok());
    }

    #[test]
    fn the_fingerprint_tells_what_was_decided_and_not_in_which_order() {
        let (connection, origin) = (own(), Origin { item: Some(&json!({"a": 1})), template: "t", events: Some("e") });
        let rendered = |text: &str| Rendered { spec: serde_json::from_str(text).unwrap(), ..Rendered::default() };
        let child = |text: &str, origin| Child::new(set(&connection), "events/crm", "k", rendered(text), origin).unwrap();
        let first = child(r#"{"displayName": "x", "metadata": {"a": "1", "b": "2"}}"#, None);
        let second = child(r#"{"metadata": {"b": "2", "a": "1"}, "displayName": "x"}"#, Some(&origin));
        assert_eq!(first.applied, second.applied);
        assert_ne!(first.applied, child(r#"{"displayName": "y"}"#, None).applied);
        let annotations = &second.manifest["metadata"]["annotations"];
        assert_eq!((&annotations[SET_DATA], &annotations[SET_EVENTS]), (&json!(r#"{"a":1}"#), &json!("e")));
        assert_eq!(first.manifest["spec"]["connectionRef"], json!({"name": "file360"}));
        assert!(first.manifest["metadata"].get("ownerReferences").is_none(), "d3: it outlives its set");
    }

    #[test]
    fn t5_a_manifest_is_bounded() {
        let spec = json!({"displayName": "x".repeat(LARGEST)});
        let rendered = Rendered { spec: spec.as_object().unwrap().clone(), ..Rendered::default() };
        assert!(Child::new(set(&own()), "list/x", "k", rendered, None).unwrap_err().contains("more than"));
    }

    proptest! {
        #[test]
        fn any_key_gives_a_name_that_kubernetes_takes(set in "[a-z0-9]([a-z0-9.-]{0,80}[a-z0-9])?", key in ".{1,200}") {
            prop_assume!(is_object_name(&set));
            let name = name(&set, &key);
            prop_assert!(is_object_name(&name) && name.len() <= 63 && !name.contains('.'), "{}", name);
            prop_assert!(label(&set).len() <= 63);
        }
    }
}
