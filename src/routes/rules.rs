//! Rules: which takes a file, and what it sets. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::environment::{NAMES, depends_on_uploader, example};
use crate::api::file_route::{FileRouteSpec, RouteTest};
pub use crate::expression::InvalidField;
use crate::expression::{Expression, Failed, Variables};

/// The name under which files go that no rule takes.
pub const UNMATCHED: &str = "unmatched";

/// The rules of a route, compiled.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    when: Option<Expression>,
    set: Vec<(String, Expression)>,
}

/// Which rule takes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Position in the spec; `None`: no rule takes it.
    pub rule: Option<usize>,
    /// Name of the rule, or [`UNMATCHED`].
    pub name: String,
    /// Metadata to set on the file.
    pub set: BTreeMap<String, String>,
}

impl Rules {
    /// Compiles every expression of the rules themselves; those of destinations are compiled with them.
    pub fn compile(spec: &FileRouteSpec) -> Result<Self, InvalidField> {
        let rules = spec.rules.iter().enumerate().map(|(at, rule)| {
            if rule.name == UNMATCHED {
                return Err(InvalidField::value(
                    format!("rules[{at}].name"),
                    "`unmatched` stands for files that no rule takes",
                ));
            }
            let compiled = |field: String, text: &str| {
                Expression::compile(text, NAMES).map_err(|invalid| InvalidField::expression(field, &invalid))
            };
            let when = rule.when.as_deref().map(|text| compiled(format!("rules[{at}].when"), text)).transpose()?;
            let set = rule.set.iter().flatten().map(|(name, text)| {
                if name.is_empty() || name.len() > 63 {
                    let why = "a metadata key has 1 to 63 characters".to_owned();
                    return Err(InvalidField { field: format!("rules[{at}].set"), why });
                }
                Ok((name.clone(), compiled(format!("rules[{at}].set.{name}"), text)?))
            });
            Ok(Rule { name: rule.name.clone(), when, set: set.collect::<Result<_, InvalidField>>()? })
        });
        Ok(Self { rules: rules.collect::<Result<_, InvalidField>>()? })
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }

    /// The first rule that takes the file. A condition that looks at a member which the file lacks does not hold; any other failure is one.
    pub fn decide(&self, variables: &Variables) -> Result<Verdict, Failed> {
        for (at, rule) in self.rules.iter().enumerate() {
            let takes = match rule.when.as_ref().map(|when| when.holds(variables)) {
                None => true,
                Some(Ok(holds)) => holds,
                Some(Err(failed)) if failed.is_missing_key => false,
                Some(Err(failed)) => return Err(named(&failed, &format!("rule {}: when", rule.name))),
            };
            if takes {
                let set = rule.set.iter().map(|(name, expression)| {
                    let value = expression
                        .text(variables)
                        .map_err(|failed| named(&failed, &format!("rule {}: set.{name}", rule.name)))?;
                    Ok((name.clone(), value))
                });
                return Ok(Verdict { rule: Some(at), name: rule.name.clone(), set: set.collect::<Result<_, Failed>>()? });
            }
        }
        Ok(Verdict { rule: None, name: UNMATCHED.into(), set: BTreeMap::new() })
    }

    /// Whether what the uploader entered decides that `rule` takes a file; `None`: that no rule does. Every condition up to the rule's own counts.
    pub fn is_chosen_by_uploader(&self, rule: Option<usize>) -> bool {
        let asked = rule.map_or(self.rules.len(), |at| at + 1);
        self.rules.iter().take(asked).filter_map(|rule| rule.when.as_ref()).any(depends_on_uploader)
    }

    /// Position of the rule with this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.name == name)
    }

    /// Runs the tests of the resource: what fails, in words.
    pub fn failing(&self, tests: &[RouteTest], now: Timestamp) -> Vec<String> {
        tests.iter().filter_map(|test| self.fails(test, now)).collect()
    }

    fn fails(&self, test: &RouteTest, now: Timestamp) -> Option<String> {
        let verdict = match self.decide(&example(&test.given, now)) {
            Ok(verdict) => verdict,
            Err(failed) => return Some(format!("test {}: {failed}", test.name)),
        };
        if verdict.name != test.expect_rule {
            return Some(format!("test {}: {} takes it, not {}", test.name, verdict.name, test.expect_rule));
        }
        let wrong = test.expect_set.iter().flatten().find(|(name, value)| verdict.set.get(*name) != Some(value));
        wrong.map(|(name, value)| {
            let got = verdict.set.get(name).map_or("nothing".to_owned(), |got| format!("`{got}`"));
            format!("test {}: set.{name} gives {got}, not `{value}`", test.name)
        })
    }
}

fn named(failed: &Failed, place: &str) -> Failed {
    Failed { message: format!("{place}: {}", failed.message), is_missing_key: failed.is_missing_key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(rules: &serde_json::Value, tests: &serde_json::Value) -> FileRouteSpec {
        let to = json!([{"name": "x", "objectStore": {"fs": {"folder": "out"}}, "key": "file.name"}]);
        let rules: Vec<_> = rules
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| {
                let mut rule = rule.clone();
                rule["to"] = to.clone();
                rule
            })
            .collect();
        serde_json::from_value(json!({
            "connectionRef": {"name": "c"}, "from": {"workspaces": {"selector": {}}}, "rules": rules, "unmatched": {"ignore": {}}, "tests": tests
        }))
        .unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_takes_the_file() {
        let rules = json!([
            {"name": "photo", "when": "file.metadata.documentType == 'photo' && has(file.metadata.claimId)", "set": {"routedTo": "'claims'"}},
            {"name": "big", "when": "file.size > 1000"},
        ]);
        let tests = json!([
            {"name": "photo", "given": {"file": {"metadata": {"documentType": "photo", "claimId": "7"}}}, "expectRule": "photo",
             "expectSet": {"routedTo": "claims"}},
            {"name": "no claim", "given": {"file": {"size": 5, "metadata": {"documentType": "photo"}}}, "expectRule": "unmatched"},
            {"name": "no type", "given": {"file": {"size": 2000}}, "expectRule": "big"},
        ]);
        let spec = spec(&rules, &tests);
        let compiled = Rules::compile(&spec).unwrap();
        assert_eq!(compiled.failing(spec.tests.as_deref().unwrap(), Timestamp::UNIX_EPOCH), Vec::<String>::new());
    }

    #[test]
    fn a_failing_test_says_what_happened_instead() {
        let tests = json!([
            {"name": "a", "given": {}, "expectRule": "other"},
            {"name": "b", "given": {}, "expectRule": "all", "expectSet": {"k": "w"}},
        ]);
        let spec = spec(&json!([{"name": "all", "set": {"k": "'v'"}}]), &tests);
        let failing = Rules::compile(&spec).unwrap().failing(spec.tests.as_deref().unwrap(), Timestamp::UNIX_EPOCH);
        assert_eq!(failing, ["test a: all takes it, not other", "test b: set.k gives `v`, not `w`"]);
    }

    #[test]
    fn a_condition_that_fails_is_no_silent_mismatch() {
        let spec = spec(&json!([{"name": "broken", "when": "file.name + 1 == 'x'"}]), &json!([]));
        let failed = Rules::compile(&spec).unwrap().decide(&example(&json!({}), Timestamp::UNIX_EPOCH)).unwrap_err();
        assert!(failed.message.starts_with("rule broken: when: "), "{failed}");
    }

    #[test]
    fn r9_a_rule_is_chosen_by_every_condition_before_it_and_its_own() {
        let rules = json!([
            {"name": "a", "when": "workspace.name == 'x'"},
            {"name": "b", "when": "uploader.emailVerified"},
            {"name": "c", "when": "file.metadata.type == 'x'"},
            {"name": "d"},
        ]);
        let rules = Rules::compile(&spec(&rules, &json!([]))).unwrap();
        let chosen: Vec<bool> = (0..4).map(|at| rules.is_chosen_by_uploader(Some(at))).collect();
        assert_eq!(chosen, [false, false, true, true]);
        assert!(rules.is_chosen_by_uploader(None));
    }

    #[test]
    fn a_bad_expression_names_field_line_and_column() {
        let spec = spec(&json!([{"name": "a"}, {"name": "b", "when": "fil.size > 1"}]), &json!([]));
        let invalid = Rules::compile(&spec).unwrap_err();
        assert!(invalid.to_string().starts_with("rules[1].when: line 1, column 1: unknown variable fil"), "{invalid}");
    }
}
