//! A SecureWorkspaceSet without a cluster: everything is compiled, and what its lists generate is made.

use serde_json::Value;

use super::offline;
use crate::api::SecureWorkspaceSet;
use crate::sets::child::Set;
use crate::sets::program::{self, Program, Source};

/// What a set generates as far as can be known, each with the field of its item; or what the operator would refuse of it.
pub struct Generated {
    /// Findings about the set itself.
    pub findings: Vec<String>,
    /// Manifests of SecureWorkspaces, with the field of the item that each comes from.
    pub children: Vec<(String, Value)>,
}

/// Compiles a set and makes what its lists generate.
pub fn generate(manifest: &Value) -> Generated {
    let mut generated = Generated { findings: Vec::new(), children: Vec::new() };
    if let Err(finding) = generate_into(manifest, &mut generated) {
        generated.findings.push(finding);
    }
    generated
}

fn generate_into(manifest: &Value, generated: &mut Generated) -> Result<(), String> {
    let object: SecureWorkspaceSet = serde_json::from_value(manifest.clone()).map_err(|error| error.to_string())?;
    let surroundings = offline::surroundings(manifest)?;
    let program = Program::compile(&object.spec, &surroundings).map_err(|invalid| format!("spec.{invalid}"))?;
    let set = Set {
        namespace: object.metadata.namespace.as_deref().unwrap_or("default"),
        name: object.metadata.name.as_deref().unwrap_or_default(),
        connection: &object.spec.connection_ref,
    };
    for (at, generator) in program.generators.iter().enumerate() {
        let Source::List { items, key } = &generator.source else { continue };
        let mut keys = std::collections::HashSet::new();
        for (number, item) in items.iter().enumerate() {
            let field = format!("spec.generators[{at}].list.items[{number}]");
            let made = program::key_of(key, item).and_then(|key| {
                if keys.insert(key.clone()) {
                    program.child(set, &generator.id, &key, item, None)
                } else {
                    Err(format!("the key {key} stands in the list twice"))
                }
            });
            match made {
                Ok(child) => generated.children.push((field, child.manifest)),
                Err(why) => generated.findings.push(format!("{field}: {why}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::cli::check::Checker;

    fn findings(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut spec = json!({
            "connectionRef": {"name": "file360"},
            "generators": [
                {"name": "pilots", "list": {"items": [{"id": "acme", "owner": "ada"}, {"id": "bolt", "owner": "bob"}], "key": "item.id"}},
                {"name": "crm", "http": {"url": "http://127.0.0.1:1/deals", "items": "body.records", "key": "item.Id", "next": "body.next"}},
                {"name": "won", "events": {"path": "deals", "hmacRef": {"name": "crm"}, "when": "event.type == 'won'", "key": "event.data.id"}},
            ],
            "template": {"spec": {"displayName": "Deal ${item.id}", "access": {"members": [{"kind": "User", "name": "${item.owner}", "role": "Editor"}]}}},
        });
        change(&mut spec);
        let manifest = json!({"apiVersion": "file360.io/v1alpha1", "kind": "SecureWorkspaceSet", "metadata": {"name": "deals"}, "spec": spec});
        Checker::new().unwrap().findings(&manifest)
    }

    #[test]
    fn a_set_that_the_operator_would_run_has_no_findings() {
        assert_eq!(findings(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn every_expression_is_compiled_and_a_bad_one_is_named_with_its_field() {
        for (pointer, text, expected) in [
            ("/generators/0/list/key", "itm.id", "spec.generators[0].list.key: line 1, column 1"),
            ("/generators/1/http/items", "bdy.records", "spec.generators[1].http.items: line 1, column 1"),
            ("/generators/1/http/next", "body.\n+", "spec.generators[1].http.next: line 2"),
            ("/generators/2/events/when", "evnt.type == 'x'", "spec.generators[2].events.when: line 1, column 1"),
            ("/generators/2/events/key", "item.id", "spec.generators[2].events.key: line 1, column 1"),
            ("/template/spec/displayName", "Deal ${itm.id}", "spec.template.spec.displayName: line 1, column 1"),
            (
                "/template/spec/access/members/0/name",
                "${item.owner",
                "spec.template.spec.access.members[0].name: ${ without",
            ),
        ] {
            let found = findings(|spec| *spec.pointer_mut(pointer).unwrap() = json!(text));
            assert!(found[0].starts_with(expected), "{found:?}");
        }
    }

    #[test]
    fn what_a_list_generates_is_checked_like_any_other_manifest() {
        let found = findings(|spec| spec["template"]["spec"]["access"]["members"][0]["role"] = json!("King"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("spec.generators[0].list.items[0]: spec.access.members.0.role"), "{found:?}");
        let found = findings(|spec| spec["template"]["spec"]["unheardOf"] = json!("${item.id}"));
        assert!(found[0].contains("spec.unheardOf: unknown field"), "{found:?}");
        let found = findings(|spec| spec["generators"][0]["list"]["items"][1] = json!({"id": "acme"}));
        assert_eq!(found, ["spec.generators[0].list.items[1]: the key acme stands in the list twice"]);
        let found = findings(|spec| spec["generators"][0]["list"]["items"][1] = json!({"id": "bolt"}));
        assert!(
            found[0].starts_with("spec.generators[0].list.items[1]: spec.access.members[0].name: No such key"),
            "{found:?}"
        );
    }

    #[test]
    fn t1_t6_another_connection_and_reserved_annotations_are_found() {
        let found = findings(|spec| spec["template"]["spec"]["connectionRef"] = json!({"name": "other"}));
        assert!(found[0].starts_with("spec.template.spec.connectionRef: "), "{found:?}");
        let found = findings(|spec| {
            spec["template"]["metadata"] = json!({"annotations": {"file360.io/confirm-delete": "${item.id}"}});
        });
        assert!(found[0].starts_with("spec.template.metadata.annotations.file360.io/confirm-delete: "), "{found:?}");
    }
}
