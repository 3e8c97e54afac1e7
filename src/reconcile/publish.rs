//! The one place that writes status.

use kube::api::{Api, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::ObjectKey;
use crate::error::Result;

/// Field manager of everything the operator writes.
pub const MANAGER: &str = "file360-operator";

/// Writes the difference between two statuses of one object, bound to its uid: a re-created object is never written by a pass
/// for its predecessor. Returns the object as the API server has it now; `None` when nothing differs.
pub async fn publish<K, S>(client: &Client, object: &K, last: Option<&S>, next: &S) -> Result<Option<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let last = serde_json::to_value(last).unwrap_or_default();
    let next = serde_json::to_value(next).unwrap_or_default();
    let Some(difference) = difference(&last, &next) else { return Ok(None) };
    let key = ObjectKey::of(object);
    let patch = json!({"metadata": {"uid": object.uid()}, "status": difference});
    let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    Ok(Some(api.patch_status(&key.name, &params, &Patch::Merge(&patch)).await?))
}

/// The merge patch (RFC 7396) that turns `last` into `next`; `None` when they are equal.
pub fn difference(last: &Value, next: &Value) -> Option<Value> {
    match (last, next) {
        _ if last == next => None,
        (Value::Object(last), Value::Object(next)) => {
            let mut patch = Map::new();
            for (key, value) in next {
                let before = last.get(key).unwrap_or(&Value::Null);
                if let Some(change) = difference(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            for key in last.keys().filter(|key| !next.contains_key(*key)) {
                patch.insert(key.clone(), Value::Null);
            }
            Some(Value::Object(patch))
        }
        _ => Some(next.clone()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merge(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = if let Value::Object(map) = target { map } else { Map::new() };
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                let old = target.remove(key).unwrap_or(Value::Null);
                target.insert(key.clone(), merge(old, value));
            }
        }
        Value::Object(target)
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..5i64).prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn statuses() -> impl Strategy<Value = Value> {
        prop::collection::hash_map("[a-d]", documents(), 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn the_difference_applied_to_the_old_gives_the_new(old in statuses(), new in statuses()) {
            match difference(&old, &new) {
                Some(patch) => prop_assert_eq!(merge(old, &patch), new),
                None => prop_assert_eq!(old, new),
            }
        }
    }
}
