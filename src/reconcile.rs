//! What all controllers share: the work queue, back-off, conditions, ownership, and the one place that writes status.

pub mod backoff;
pub mod conditions;
pub mod gate;
pub mod ownership;
pub mod publish;
pub mod queue;

use std::fmt;
use std::sync::Arc;

/// Namespace and name of one object. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a namespaced object.
    pub fn of(object: &impl kube::ResourceExt) -> Self {
        Self::new(&object.namespace().unwrap_or_default(), &object.name_any())
    }
}

/// Whether an object or a namespace can be called so: nothing else may become a part of a request to the API server.
pub fn is_object_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = text.as_bytes().first().zip(text.as_bytes().last());
    text.len() <= 253
        && ends.is_some_and(|(first, last)| is_plain(*first) && is_plain(*last))
        && text.bytes().all(|byte| is_plain(byte) || byte == b'-' || byte == b'.')
        && !text.contains("..")
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t5_what_no_object_is_called_is_no_name() {
        for name in ["a", "claims-2026", "a.b.c", &"x".repeat(253)] {
            assert!(is_object_name(name), "{name}");
        }
        for name in [
            "",
            "A",
            "-a",
            "a.",
            "a/b",
            "../a",
            "a..b",
            "a?watch=true",
            "x/secureworkspaces?a=",
            "a%2Fb",
            "ä",
            &"x".repeat(254),
        ] {
            assert!(!is_object_name(name), "{name}");
        }
    }
}
