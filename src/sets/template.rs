//! Templates: JSON with `${expression}` in its texts.
//!
//! A text that is one expression takes the expression's type; inside a text, results become text. What is a CEL expression itself for the
//! SecureWorkspace is no template: it is taken as it stands. Keys of maps are never expressions, so an item decides which values there are, and
//! not which labels, annotations or fields.

use serde_json::{Map, Value};

use crate::api::common::ConnectionRef;
use crate::api::secure_workspace_set::Template as Declared;
use crate::expression::{Expression, Failed, InvalidField, Variables};

/// Most parts of one text.
const MOST_PARTS: usize = 64;
/// How deep a template may nest.
const DEEPEST: usize = 24;

/// Fields of a SecureWorkspace whose texts are CEL expressions: they see the item through the workspace's metadata.
const EXPRESSIONS: [&str; 8] = [
    "requiredDocuments[].requiredWhen",
    "requiredDocuments[].match.when",
    "requiredDocuments[].validity.from",
    "requiredDocuments[].validity.expiresOn",
    "report[].http.path[]",
    "report[].http.query.*",
    "report[].http.headers.*",
    "report[].http.template",
];

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    labels: Vec<(String, Node)>,
    annotations: Vec<(String, Node)>,
    spec: Vec<(String, Node)>,
}

/// What a template gives for one item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// Labels.
    pub labels: Map<String, Value>,
    /// Annotations.
    pub annotations: Map<String, Value>,
    /// The spec, without `connectionRef`.
    pub spec: Map<String, Value>,
}

#[derive(Debug)]
enum Node {
    Fixed(Value),
    Typed(Expression),
    Text(Vec<Part>),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

#[derive(Debug)]
enum Part {
    Fixed(String),
    Expression(Expression),
}

/// A field of an item's workspace that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Unfit {
    /// The field, below `template`.
    pub field: String,
    /// Why.
    pub why: String,
}

impl Template {
    /// Compiles a template whose expressions may use the names in `known`. One that names another Connection, or sets what belongs to the operator
    /// or to Kubernetes, is refused.
    pub fn compile(declared: &Declared, connection: &ConnectionRef, known: &[&str]) -> Result<Self, InvalidField> {
        let compiler = Compiler { known };
        let metadata = declared.metadata.clone().unwrap_or_default();
        let texts = |part: &str, entries: Option<std::collections::BTreeMap<String, String>>| {
            let entries = entries.unwrap_or_default().into_iter().map(|(key, text)| {
                let field = format!("metadata.{part}.{key}");
                if is_reserved(&key) {
                    let why = "keys of file360.io, kubernetes.io and k8s.io cannot be set by a template";
                    return Err(InvalidField::value(field, why));
                }
                let node = match compiler.text(&text, &field)? {
                    // Labels and annotations are texts whatever the expression gives.
                    Node::Typed(expression) => Node::Text(vec![Part::Expression(expression)]),
                    node => node,
                };
                Ok((key, node))
            });
            entries.collect::<Result<Vec<_>, _>>()
        };
        let labels = texts("labels", metadata.labels)?;
        let annotations = texts("annotations", metadata.annotations)?;
        let mut spec = declared.spec.clone();
        if let Some(named) = spec.remove("connectionRef") {
            let own = serde_json::to_value(connection).unwrap_or_default();
            if named != own {
                let why = "a template uses the set's own Connection; leave it out";
                return Err(InvalidField::value("spec.connectionRef", why));
            }
        }
        let Node::Map(spec) = compiler.map(&spec, "spec", "", 0)? else {
            return Err(InvalidField::value("spec", "needs fields"));
        };
        Ok(Self { labels, annotations, spec })
    }

    /// What it gives for one item.
    pub fn render(&self, variables: &Variables) -> Result<Rendered, Unfit> {
        Ok(Rendered {
            labels: entries(&self.labels, "metadata.labels", variables)?,
            annotations: entries(&self.annotations, "metadata.annotations", variables)?,
            spec: entries(&self.spec, "spec", variables)?,
        })
    }
}

/// Whether a key of a label or annotation belongs to the operator or to Kubernetes: nothing that a source system says may confirm a deletion,
/// hand a workspace over, or pretend to be somebody else's (T6).
pub fn is_reserved(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let domain = domain.to_ascii_lowercase();
    ["file360.io", "kubernetes.io", "k8s.io"]
        .iter()
        .any(|own| domain == *own || domain.strip_suffix(own).is_some_and(|before| before.ends_with('.')))
}

struct Compiler<'a> {
    known: &'a [&'a str],
}

impl Compiler<'_> {
    /// `field` is for people; `path` is the same without indexes, below `spec`.
    fn node(&self, value: &Value, field: &str, path: &str, depth: usize) -> Result<Node, InvalidField> {
        if depth > DEEPEST {
            return Err(InvalidField::value(field, format!("nests deeper than {DEEPEST}")));
        }
        match value {
            Value::String(text) if is_expression(path) => Ok(Node::Fixed(Value::String(text.clone()))),
            Value::String(text) => self.text(text, field),
            Value::Array(items) => {
                let path = format!("{path}[]");
                let nodes =
                    items.iter().enumerate().map(|(at, item)| self.node(item, &format!("{field}[{at}]"), &path, depth + 1));
                Ok(Node::List(nodes.collect::<Result<_, _>>()?))
            }
            Value::Object(members) => self.map(members, field, path, depth),
            other => Ok(Node::Fixed(other.clone())),
        }
    }

    fn map(&self, members: &Map<String, Value>, field: &str, path: &str, depth: usize) -> Result<Node, InvalidField> {
        let nodes = members.iter().map(|(key, value)| {
            let field = format!("{field}.{key}");
            if key.contains("${") {
                return Err(InvalidField::value(field, "the name of a field cannot be an expression"));
            }
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            Ok((key.clone(), self.node(value, &field, &path, depth + 1)?))
        });
        Ok(Node::Map(nodes.collect::<Result<_, _>>()?))
    }

    fn text(&self, text: &str, field: &str) -> Result<Node, InvalidField> {
        let raw = split(text).map_err(|why| InvalidField::value(field, why))?;
        let mut parts = Vec::new();
        for part in raw {
            parts.push(match part {
                Raw::Fixed(text) => Part::Fixed(text),
                Raw::Expression(text) => {
                    let compiled = Expression::compile(&text, self.known);
                    Part::Expression(compiled.map_err(|invalid| InvalidField::expression(field, &invalid))?)
                }
            });
        }
        Ok(match parts.as_slice() {
            [] => Node::Fixed(Value::String(String::new())),
            [Part::Fixed(text)] => Node::Fixed(Value::String(text.clone())),
            [Part::Expression(_)] => match parts.pop() {
                Some(Part::Expression(expression)) => Node::Typed(expression),
                _ => Node::Fixed(Value::Null),
            },
            _ => Node::Text(parts),
        })
    }
}

/// Whether the texts at `path` are expressions of the SecureWorkspace.
fn is_expression(path: &str) -> bool {
    EXPRESSIONS.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(map) => path.strip_prefix(map).is_some_and(|key| !key.is_empty()),
        None => path == *pattern,
    })
}

fn entries(nodes: &[(String, Node)], field: &str, variables: &Variables) -> Result<Map<String, Value>, Unfit> {
    let mut map = Map::new();
    for (key, node) in nodes {
        if let Some(value) = render(node, &format!("{field}.{key}"), variables)? {
            map.insert(key.clone(), value);
        }
    }
    Ok(map)
}

/// `None`: null, which leaves the field out.
fn render(node: &Node, field: &str, variables: &Variables) -> Result<Option<Value>, Unfit> {
    let unfit = |failed: Failed| Unfit { field: field.to_owned(), why: failed.message };
    Ok(match node {
        Node::Fixed(Value::Null) => None,
        Node::Fixed(value) => Some(value.clone()),
        Node::Typed(expression) => Some(expression.json(variables).map_err(unfit)?).filter(|value| !value.is_null()),
        Node::Text(parts) => {
            let mut text = String::new();
            for part in parts {
                match part {
                    Part::Fixed(fixed) => text.push_str(fixed),
                    Part::Expression(expression) => text.push_str(&expression.text(variables).map_err(unfit)?),
                }
            }
            Some(Value::String(text))
        }
        Node::List(nodes) => {
            let mut list = Vec::new();
            for (at, node) in nodes.iter().enumerate() {
                list.extend(render(node, &format!("{field}[{at}]"), variables)?);
            }
            Some(Value::Array(list))
        }
        Node::Map(nodes) => Some(Value::Object(entries(nodes, field, variables)?)),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Raw {
    Fixed(String),
    Expression(String),
}

/// Takes a text apart at its `${…}`. Braces and quotes inside an expression are its own.
fn split(text: &str) -> Result<Vec<Raw>, String> {
    let mut parts = Vec::new();
    let mut fixed = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            fixed.push_str(&rest[..at]);
            fixed.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        fixed.push_str(&rest[..at]);
        if !fixed.is_empty() {
            parts.push(Raw::Fixed(std::mem::take(&mut fixed)));
        }
        let inner = &rest[at + 2..];
        let end = end_of_expression(inner).ok_or("${ without its }")?;
        parts.push(Raw::Expression(inner[..end].to_owned()));
        rest = &inner[end + 1..];
        if parts.len() > MOST_PARTS {
            return Err(format!("more than {MOST_PARTS} expressions in one text"));
        }
    }
    fixed.push_str(rest);
    if !fixed.is_empty() {
        parts.push(Raw::Fixed(fixed));
    }
    Ok(parts)
}

/// Where the `}` is that belongs to nobody inside.
fn end_of_expression(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::expression::{from_json, string};

    fn declared(template: Value) -> Declared {
        serde_json::from_value(template).unwrap()
    }

    fn compile(template: Value) -> Result<Template, InvalidField> {
        let own = ConnectionRef { name: "file360".into(), namespace: None };
        Template::compile(&declared(template), &own, &["item", "key"])
    }

    fn rendered(template: Value, item: &Value) -> Result<Rendered, Unfit> {
        let variables = Variables::default().with("item", from_json(item)).with("key", string("k"));
        compile(template).unwrap().render(&variables)
    }

    #[test]
    fn a_text_that_is_one_expression_takes_its_type_and_others_become_text() {
        let spec = json!({
            "displayName": "Deal ${item.name} (${item.n + 1})",
            "maxRemovals": "${item.n}",
            "metadata": {"a": "${item.name}", "fixed": "$${item.name}", "brace": "${{'x': '}'}.x + \"{\"}", "none": "${item.none}"},
            "folders": [{"path": "/${item.name}"}, "${item.folder}", "${null}"],
            "suspend": true,
        });
        let item = json!({"name": "Acme", "n": 4, "none": null, "folder": {"path": "/B", "locked": true}});
        let expected = json!({
            "displayName": "Deal Acme (5)",
            "maxRemovals": 4,
            "metadata": {"a": "Acme", "fixed": "${item.name}", "brace": "}{"},
            "folders": [{"path": "/Acme"}, {"path": "/B", "locked": true}],
            "suspend": true,
        });
        assert_eq!(Value::Object(rendered(json!({"spec": spec}), &item).unwrap().spec), expected);
    }

    #[test]
    fn fields_that_are_expressions_themselves_are_taken_as_they_stand() {
        let spec = json!({"requiredDocuments": [{
            "name": "${item.name}", "requiredWhen": "workspace.metadata.a == '${x}'", "match": {"when": "${", "path": "/${item.name}"},
            "validity": {"from": "file.metadata.${", "period": "P1Y"},
        }], "report": [{"http": {"url": "https://${item.name}.example", "headers": {"a": "'${'"}, "path": ["'${'"]}}]});
        let found = rendered(json!({"spec": spec}), &json!({"name": "acme"})).unwrap().spec;
        let document = &found["requiredDocuments"][0];
        assert_eq!(document["requiredWhen"], "workspace.metadata.a == '${x}'");
        assert_eq!((&document["name"], &document["match"]["path"]), (&json!("acme"), &json!("/acme")));
        assert_eq!((&document["match"]["when"], &document["validity"]["from"]), (&json!("${"), &json!("file.metadata.${")));
        let http = &found["report"][0]["http"];
        assert_eq!(
            (&http["url"], &http["headers"]["a"], &http["path"][0]),
            (&json!("https://acme.example"), &json!("'${'"), &json!("'${'"))
        );
    }

    #[test]
    fn t6_a_template_sets_nothing_that_the_operator_or_kubernetes_reads() {
        for key in [
            "file360.io/confirm-delete",
            "FILE360.io/handover",
            "reconcile.file360.io/requestedAt",
            "file360.io/set",
            "app.kubernetes.io/name",
            "x.k8s.io/y",
        ] {
            for part in ["labels", "annotations"] {
                let field =
                    compile(json!({"metadata": {part: {key: "x"}}, "spec": {"displayName": "x"}})).unwrap_err().field;
                assert_eq!(field, format!("metadata.{part}.{key}"));
            }
        }
        for key in ["team", "example.com/team", "notfile360.io/x"] {
            assert!(compile(json!({"metadata": {"labels": {key: "x"}}, "spec": {"displayName": "x"}})).is_ok(), "{key}");
        }
        assert!(compile(json!({"spec": {"metadata": {"${item.key}": "x"}}})).is_err(), "no name comes from an item");
    }

    #[test]
    fn t1_a_template_uses_the_sets_own_connection() {
        assert!(compile(json!({"spec": {"connectionRef": {"name": "file360"}, "displayName": "x"}})).is_ok());
        for other in [
            json!({"name": "other"}),
            json!({"name": "file360", "namespace": "b"}),
            json!("${item.connection}"),
            json!({"name": "${item.c}"}),
        ] {
            let refused = compile(json!({"spec": {"connectionRef": other, "displayName": "x"}})).unwrap_err();
            assert_eq!(refused.field, "spec.connectionRef");
        }
    }

    #[test]
    fn a_bad_expression_is_refused_with_its_field() {
        let refused = |spec: Value| compile(json!({"spec": spec})).unwrap_err();
        let found = refused(json!({"folders": [{"path": "/A"}, {"path": "/${itm.x}"}]}));
        assert_eq!(found.field, "spec.folders[1].path");
        assert!(found.why.contains("line 1, column 1") && found.why.contains("item, key"), "{}", found.why);
        assert!(refused(json!({"displayName": "${item.name"})).why.contains("without its }"));
        assert!(refused(json!({"displayName": "${}"})).field == "spec.displayName");
        assert!(refused(json!({"displayName": "${item.a}".repeat(65)})).why.contains("64 expressions"));
    }

    #[test]
    fn what_an_item_lacks_or_has_in_another_type_names_the_field() {
        let failed = |text: &str| rendered(json!({"spec": {"displayName": text}}), &json!({"list": [1]})).unwrap_err();
        assert!(failed("x ${item.name}").why.contains("No such key"), "{}", failed("x ${item.name}"));
        assert_eq!(failed("x ${item.list}").field, "spec.displayName");
        let label = rendered(json!({"metadata": {"labels": {"n": "${item.n}"}}, "spec": {}}), &json!({"n": 7})).unwrap();
        assert_eq!(label.labels["n"], "7", "a label is a text");
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused_without_panicking(text in ".{0,80}") {
            let _ = split(&text);
        }

        #[test]
        fn a_text_without_an_expression_stays_as_it_is(text in "[^$]{0,40}") {
            let joined = split(&text).unwrap();
            prop_assert_eq!(joined, if text.is_empty() { vec![] } else { vec![Raw::Fixed(text)] });
        }
    }
}
