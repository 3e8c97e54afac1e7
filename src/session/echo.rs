//! Which entries of the feed the operator caused itself.
//!
//! `Caused-By` is a header that every client can send. An entry is an echo only if the server also says that the operator's own principal
//! made the change.

use crate::file360::model::{Actor, Change, Principal, PrincipalKind};

/// Who the operator is at a tenant, as the tenant says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity(Option<(PrincipalKind, String)>);

impl Identity {
    /// The operator is this principal; `None`: the tenant does not say, and nothing counts as the operator's own.
    pub fn of(principal: Option<Principal>) -> Self {
        Self(principal.map(|principal| (principal.kind, principal.id)))
    }

    /// Whether the operator did it.
    pub fn is(&self, actor: &Actor) -> bool {
        self.0.as_ref().is_some_and(|(kind, id)| actor.kind == *kind && actor.id.as_ref() == Some(id))
    }

    /// Whether somebody else did it, as far as the tenant says who the operator is.
    pub fn is_not(&self, actor: &Actor) -> bool {
        self.0.is_some() && !self.is(actor)
    }

    /// Whether the operator did it for the resource with this uid.
    pub fn caused(&self, change: &Change, uid: &str) -> bool {
        change.caused_by.as_deref() == Some(uid) && self.is(&change.actor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn identity() -> Identity {
        Identity::of(serde_json::from_value(json!({"id": "operator", "kind": "Client", "name": "operator"})).unwrap())
    }

    fn change(actor: &Value, cause: &str) -> Change {
        serde_json::from_value(json!({"sequence": 1, "id": "c1", "time": "2026-07-01T10:00:00Z", "type": "memberSet",
            "actor": actor, "causedBy": cause}))
        .unwrap()
    }

    #[test]
    fn r8_what_another_principal_says_about_the_cause_makes_no_echo() {
        let operator = json!({"kind": "Client", "id": "operator", "name": "operator"});
        assert!(identity().caused(&change(&operator, "uid"), "uid"));
        assert!(!identity().caused(&change(&operator, "another"), "uid"), "another resource of this operator");
        for stranger in [
            json!({"kind": "Client", "id": "other", "name": "operator"}),
            json!({"kind": "User", "id": "operator", "name": "operator"}),
            json!({"kind": "Guest", "name": "operator"}),
        ] {
            assert!(!identity().caused(&change(&stranger, "uid"), "uid"), "{stranger}");
        }
        assert!(!Identity::default().caused(&change(&operator, "uid"), "uid"), "who the operator is, is not known");
    }
}
