//! Who manages a workspace. Pure.

use crate::file360::model::{OwnerMark, OwnerState};

/// What an ownership mark means for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It names this very object.
    Mine,
    /// It may be taken up without asking: a released mark, or one of a former object of this namespace and name.
    TakeUp,
    /// Nobody manages it: `spec.adoption` decides.
    Unmanaged,
    /// Another object of this cluster; it counts only while that object exists.
    Other {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Another cluster, or released by somebody else: never taken up without `workspaceId`.
    Foreign(String),
}

/// Compares the mark of a workspace with `me`.
pub fn claim(mark: Option<&OwnerMark>, me: &OwnerMark) -> Claim {
    let Some(mark) = mark else { return Claim::Unmanaged };
    let same_name = mark.namespace == me.namespace && mark.name == me.name;
    match (mark.state, mark.cluster_id == me.cluster_id, same_name) {
        (OwnerState::Active, true, true) if mark.uid == me.uid => Claim::Mine,
        (OwnerState::Active, true, true) | (OwnerState::Released, _, true) => Claim::TakeUp,
        (OwnerState::Active, true, false) => {
            Claim::Other { namespace: mark.namespace.clone(), name: mark.name.clone(), uid: mark.uid.clone() }
        }
        (OwnerState::Active, false, _) => {
            Claim::Foreign(format!("{}/{} of cluster {}", mark.namespace, mark.name, mark.cluster_id))
        }
        (OwnerState::Released, _, false) => Claim::Foreign(format!("{}/{}, which released it", mark.namespace, mark.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(cluster: &str, name: &str, uid: &str, state: OwnerState) -> OwnerMark {
        OwnerMark { cluster_id: cluster.into(), namespace: "team".into(), name: name.into(), uid: uid.into(), state }
    }

    #[test]
    fn c11_a_second_owner_is_told_apart() {
        let me = mark("c1", "acme", "u1", OwnerState::Active);
        assert_eq!(claim(None, &me), Claim::Unmanaged);
        assert_eq!(claim(Some(&me), &me), Claim::Mine);
        assert_eq!(claim(Some(&mark("c1", "acme", "u0", OwnerState::Active)), &me), Claim::TakeUp);
        assert_eq!(claim(Some(&mark("c9", "acme", "u0", OwnerState::Released)), &me), Claim::TakeUp);
        assert!(matches!(claim(Some(&mark("c1", "other", "u2", OwnerState::Active)), &me), Claim::Other { .. }));
        assert!(matches!(claim(Some(&mark("c2", "acme", "u1", OwnerState::Active)), &me), Claim::Foreign(_)));
        assert!(matches!(claim(Some(&mark("c1", "other", "u2", OwnerState::Released)), &me), Claim::Foreign(_)));
    }
}
