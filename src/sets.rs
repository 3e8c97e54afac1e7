//! Sets: from an item of a source system to the SecureWorkspace that stands for it. Knows neither the Kubernetes API nor who calls.
//!
//! A [`Program`](program::Program) is compiled once for each generation of a SecureWorkspaceSet; a bad expression is refused then, with its field.
//! [`child::Child`] is what it makes of one item.

pub mod child;
pub mod program;
pub mod template;

use sha2::{Digest, Sha256};

use crate::hex::hex;

/// The first 16 hexadecimal digits of a SHA-256: stable across versions of the operator, since it stands on objects.
pub fn fingerprint(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..8])
}
