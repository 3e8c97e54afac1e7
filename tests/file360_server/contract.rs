//! The contract document and the server's table of operations say the same.

use std::collections::BTreeMap;

use file360_operator::server::operation::{Access, Operation};
use serde_json::Value;

/// Operations that work without a token, and why.
const OPEN: [&str; 10] = [
    "issueToken",          // hands out tokens
    "getHealth",           // says only that the server runs
    "openUploadPage",      // outsiders: their secret address is judged by authorize in the transaction
    "requestUploadCode",   // outsiders
    "verifyUploadCode",    // outsiders
    "uploadThroughPage",   // outsiders
    "openLinkPage",        // outsiders
    "requestLinkCode",     // outsiders
    "getLinkContent",      // outsiders
    "downloadThroughLink", // outsiders
];

fn document() -> Value {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/file360/openapi.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// Every operation of the document by its id: method, path, object.
fn operations() -> BTreeMap<String, (String, String, Value)> {
    let document = document();
    let mut found = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            found.insert(id, (method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    found
}

#[test]
fn every_operation_of_the_contract_is_one_that_authorize_judges() {
    for (id, (method, path, document)) in operations() {
        let operation = Operation::from_id(&id).unwrap_or_else(|| panic!("{id} is not in the table"));
        assert_eq!((operation.method().as_str(), operation.path()), (method.as_str(), path.as_str()), "{id}");
        match operation.access() {
            Access::Open => assert!(OPEN.contains(&id.as_str()), "{id} works without a token and is not listed"),
            Access::Token => assert_eq!(document["security"][0]["clientCredentials"], serde_json::json!([]), "{id}"),
            Access::Scope(scope) => {
                assert_eq!(document["security"][0]["clientCredentials"], serde_json::json!([scope.name()]), "{id}");
            }
        }
    }
}

#[test]
fn every_operation_of_the_server_is_in_the_contract() {
    let known = operations();
    for operation in Operation::ALL.iter().filter(|operation| !operation.is_test_only()) {
        assert!(known.contains_key(operation.id()), "{} is not in openapi.yaml", operation.id());
    }
}

#[test]
fn the_contract_names_every_query_parameter() {
    let shared = document()["components"]["parameters"].clone();
    for (id, (_, _, document)) in operations() {
        let parameters = document["parameters"].as_array().cloned().unwrap_or_default();
        let mut named: Vec<String> = parameters
            .iter()
            .map(|parameter| match parameter["$ref"].as_str() {
                Some(reference) => shared[reference.rsplit('/').next().unwrap()].clone(),
                None => parameter.clone(),
            })
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| {
                if parameter["style"] == "deepObject" {
                    "metadata[]".to_owned()
                } else {
                    parameter["name"].as_str().unwrap().to_owned()
                }
            })
            .collect();
        let mut taken: Vec<_> = Operation::from_id(&id).unwrap().query().iter().map(|name| (*name).to_owned()).collect();
        named.sort();
        taken.sort();
        assert_eq!(named, taken, "{id}");
    }
}
