//! Values as JSON and YAML that survive a terminal, a file and `kubectl apply`: what is not printable is escaped.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::text::is_hostile;
use super::{Failure, Output, failed};

/// What people look for first stands first; the rest in the order of the alphabet.
const FIRST: [&str; 13] = [
    "apiVersion",
    "kind",
    "path",
    "name",
    "namespace",
    "role",
    "connectionRef",
    "displayName",
    "system",
    "type",
    "id",
    "metadata",
    "spec",
];

/// `value` as JSON or YAML.
pub fn render(value: &impl Serialize, output: Output) -> Result<String, Failure> {
    let value = serde_json::to_value(value).map_err(|error| failed(error.to_string()))?;
    Ok(match output {
        Output::Yaml => yaml(&value),
        _ => json(&value),
    })
}

/// JSON with two spaces; hostile characters as `\uXXXX`.
pub fn json(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    // Outside strings the only one is the line break.
    text.chars().fold(String::with_capacity(text.len()), |mut text, c| {
        if c != '\n' && is_hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
        text
    })
}

/// A YAML document without its `---`.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut text),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut text),
        scalar => {
            text.push_str(&inline(scalar));
            text.push('\n');
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
            for (key, value) in entries {
                let _ = write!(text, "{pad}{}:", scalar(key));
                nested(value, depth + 1, text);
            }
        }
        Value::Array(list) => {
            for item in list {
                if is_block(item) {
                    let mut inner = String::new();
                    block(item, depth + 1, &mut inner);
                    // The first line of the item stands beside its dash.
                    let _ = write!(text, "{pad}- {}", inner.trim_start_matches(' '));
                } else {
                    let _ = writeln!(text, "{pad}- {}", inline(item));
                }
            }
        }
        _ => {}
    }
}

fn nested(value: &Value, depth: usize, text: &mut String) {
    if is_block(value) {
        text.push('\n');
        // A list stands as far in as its key.
        block(value, depth - usize::from(value.is_array()), text);
    } else {
        let _ = writeln!(text, " {}", inline(value));
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => scalar(value),
        Value::Array(_) => "[]".into(),
        Value::Object(_) => "{}".into(),
    }
}

/// Plain when no reader can take it for anything but this text; else in double quotes.
fn scalar(value: &str) -> String {
    let starts_well = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_plain = value.chars().all(|c| c.is_ascii_alphanumeric() || " ._/@-".contains(c)) && !value.ends_with(' ');
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if starts_well && is_plain && !reserved.contains(&value.to_ascii_lowercase().as_str()) {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if is_hostile(c) && u32::from(c) > 0xffff => {
                let _ = write!(text, "\\U{:08x}", u32::from(c));
            }
            c if is_hostile(c) => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_reads_as_people_write_it() {
        let value =
            json!({"kind": "List", "empty": {}, "items": [{"name": "a b", "when": "2030-01-01", "tags": ["x", "no"]}, [1]]});
        assert_eq!(
            yaml(&value),
            "kind: List\nempty: {}\nitems:\n- name: a b\n  tags:\n  - x\n  - \"no\"\n  when: \"2030-01-01\"\n- - 1"
        );
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            any::<String>(),
            "[ -~]{0,8}",
            Just("0x1f".to_owned()),
            Just("~".to_owned()),
            Just("\u{1b}[2J\u{9b}\u{202e}\u{e0041}".to_owned()),
            Just(": # - {[&*!|>%@`".to_owned()),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read_and_nothing_hostile_is_in_it(value in values()) {
            for text in [yaml(&value), json(&value)] {
                prop_assert!(!text.chars().any(|c| c != '\n' && is_hostile(c)), "{text:?}");
                let read: Value = serde_saphyr::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
                prop_assert_eq!(read, value.clone());
            }
        }
    }
}
