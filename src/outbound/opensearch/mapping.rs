//! What the index has to keep as it is: texts that are compared whole must not be taken apart into words.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Cluster;
use super::http::refusal;
use crate::error::{Error, Kind, Result};

/// Members that the operator and access checks compare, with the type that this needs.
const FIELDS: [(&str, &str, &str); 5] = [
    ("route", "/properties/route/type", "keyword"),
    ("fileId", "/properties/fileId/type", "keyword"),
    ("deleted", "/properties/deleted/type", "boolean"),
    ("acl.allow", "/properties/acl/properties/allow/type", "keyword"),
    ("acl.deny", "/properties/acl/properties/deny/type", "keyword"),
];

/// Makes sure that the index is one index and has these fields: adds those that it lacks, makes the index where there is none, and refuses
/// one with other types.
pub async fn prepare(cluster: &Cluster) -> Result<()> {
    if add_missing(cluster).await? {
        return Ok(());
    }
    let made = cluster.try_ask(Method::PUT, &cluster.index, &[], Some(&json!({"mappings": whole()}))).await?;
    let error = refusal(&made, &cluster.host);
    if made.status.is_success() {
        return Ok(());
    }
    // Another replica or route made it in between.
    if error.code == "resource_already_exists_exception" && add_missing(cluster).await? {
        return Ok(());
    }
    Err(error.while_doing(format!("make index {}", cluster.index)))
}

/// False where there is no such index.
async fn add_missing(cluster: &Cluster) -> Result<bool> {
    let doing = |error: Error| error.while_doing(format!("look at index {}", cluster.index));
    let answer = cluster.try_ask(Method::GET, &cluster.path("_mapping"), &[], None).await.map_err(doing)?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(false);
    }
    if !answer.status.is_success() {
        return Err(doing(refusal(&answer, &cluster.host)));
    }
    let missing = missing_from(&answer.body, &cluster.index)?;
    if missing != json!({}) {
        let fields = json!({ "properties": missing });
        cluster.ask(Method::PUT, &cluster.path("_mapping"), &[], Some(&fields)).await.map_err(doing)?;
    }
    Ok(true)
}

/// The fields that the mapping lacks, as `properties`.
fn missing_from(answer: &Value, index: &str) -> Result<Value> {
    let indices = answer.as_object().map(serde_json::Map::len).unwrap_or_default();
    let Some(mapping) = answer.as_object().and_then(|indices| indices.values().next()).filter(|_| indices == 1) else {
        let what = format!(
            "{index} stands for {indices} indices; documents are replaced by id, so it must be one index, or an alias of one"
        );
        return Err(Error::new(Kind::Rejected, what));
    };
    let mapping = mapping.get("mappings").unwrap_or(&Value::Null);
    let mut missing = json!({});
    for (name, pointer, wanted) in FIELDS {
        match mapping.pointer(pointer).and_then(Value::as_str) {
            Some(there) if there == wanted => {}
            Some(there) => {
                let there = crate::error::clean(there, 60);
                let what = format!(
                    "field {name} of index {index} has type {there} and needs {wanted}; use another index or make this one anew"
                );
                return Err(Error::new(Kind::Rejected, what));
            }
            None => match name.split_once('.') {
                None => missing[name] = json!({ "type": wanted }),
                Some((parent, name)) => missing[parent]["properties"][name] = json!({ "type": wanted }),
            },
        }
    }
    Ok(missing)
}

/// The mapping of an index that the operator makes: every property of a file, and metadata as texts, whatever they look like.
fn whole() -> Value {
    let words = json!({"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 1024}}});
    let whole = json!({"type": "keyword", "ignore_above": 1024});
    json!({
        "date_detection": false,
        "dynamic_templates": [{"metadata": {"path_match": "metadata.*", "mapping": words}}],
        "properties": {
            "route": {"type": "keyword"},
            "fileId": {"type": "keyword"},
            "deleted": {"type": "boolean"},
            "acl": {"properties": {"allow": {"type": "keyword"}, "deny": {"type": "keyword"}}},
            "name": words,
            "path": words,
            "workspace": words,
            "createdBy": words,
            "size": {"type": "long"},
            "mimeType": whole,
            "sha256": whole,
            "version": whole,
            "classification": whole,
            "createdAt": {"type": "date"},
            "modifiedAt": {"type": "date"},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(properties: &Value) -> Value {
        json!({"files-1": {"mappings": {"properties": properties}}})
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let keyword = json!({"type": "keyword"});
        let all = json!({"route": keyword, "fileId": keyword, "deleted": {"type": "boolean"}, "acl": {"properties": {"allow": keyword, "deny": keyword}}});
        assert_eq!(missing_from(&index(&all), "files").unwrap(), json!({}));
        assert_eq!(missing_from(&json!({"files-1": {"mappings": {}}}), "files").unwrap(), all);
        assert_eq!(
            missing_from(&json!({"files-1": {"mappings": whole()}}), "files").unwrap(),
            json!({}),
            "what the operator makes is whole"
        );
        let some = json!({"route": keyword, "acl": {"properties": {"allow": {"type": "keyword", "ignore_above": 9}}}});
        let missing = missing_from(&index(&some), "files").unwrap();
        assert_eq!(
            missing,
            json!({"fileId": keyword, "deleted": {"type": "boolean"}, "acl": {"properties": {"deny": keyword}}})
        );
    }

    #[test]
    fn an_index_that_takes_principals_apart_into_words_is_refused() {
        let error = missing_from(&index(&json!({"acl": {"properties": {"allow": {"type": "text"}}}})), "files").unwrap_err();
        assert_eq!(error.kind, Kind::Rejected);
        assert!(error.to_string().contains("acl.allow of index files has type text"), "{error}");
        assert!(missing_from(&json!({"a": {}, "b": {}}), "files").unwrap_err().to_string().contains("2 indices"));
        assert!(missing_from(&Value::Null, "files").is_err());
    }
}
