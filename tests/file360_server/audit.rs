use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::files::with_file;
use crate::support::{Api, id, start};

async fn events(api: &Api) -> Vec<Value> {
    let (mut events, mut cursor) = (Vec::new(), "earliest".to_owned());
    loop {
        let page = api.get(&format!("/v1/audit-events?limit=3&cursor={cursor}")).send().await.expect(200);
        events.extend(page["items"].as_array().unwrap().iter().cloned());
        page["nextCursor"].as_str().unwrap().clone_into(&mut cursor);
        if page["hasMore"] == false {
            return events;
        }
    }
}

/// Canonical JSON, written again here: what checks the chain shares nothing with what made it.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut names: Vec<_> = members.keys().collect();
            names.sort();
            let members: Vec<_> =
                names.iter().map(|name| format!("{}:{}", json!(name), canonical(&members[*name]))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

#[tokio::test]
async fn every_change_access_and_refusal_is_in_one_unbroken_chain() {
    let fixture = start().await;
    let (api, reader) = (fixture.operator().await, fixture.client("reader").await);
    let (ws, _, file) = with_file(&api, "one", "hello").await;
    reader.get(&format!("/v1/items/{}/content", id(&file))).send().await.expect(200);
    reader.delete(&format!("/v1/items/{}", id(&file))).matching(&file).send().await.refused(403, "insufficient-scope");
    let patch = json!({"displayName": "New"});
    let forced =
        api.patch(&format!("/v1/workspaces/{}", id(&ws)), patch.clone()).header("if-match", "*").header("caused-by", "me");
    forced.send().await.expect(200);
    api.patch(&format!("/v1/workspaces/{}", id(&ws)), patch).header("if-match", "*").send().await.expect(200);
    let events = events(&api).await;
    let summary: Vec<_> = events
        .iter()
        .map(|event| format!("{} {}", event["action"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
        .collect();
    let expected = [
        "createWorkspaceByKey Success",
        "createFolder Success",
        "uploadFile Success",
        "getContent Success",
        "deleteItem Refused",
        "updateWorkspace Success",
    ];
    assert_eq!(summary, expected);
    assert_eq!(
        (&events[3]["actor"]["name"], &events[3]["path"], &events[3]["version"]),
        (&json!("reader"), &json!("/Inbox/a.txt"), &json!(1))
    );
    assert_eq!(
        (&events[4]["code"], &events[5]["forced"], &events[5]["causedBy"]),
        (&json!("insufficient-scope"), &json!(true), &json!("me"))
    );
    let mut previous = "0".repeat(64);
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event["sequence"], at + 1);
        assert_eq!(event["previousHash"], json!(previous));
        let mut hashed = event.clone();
        hashed.as_object_mut().unwrap().remove("hash");
        let hash = file360_operator::server::names::hex(&Sha256::digest(canonical(&hashed)));
        assert_eq!(event["hash"], json!(hash));
        previous = hash;
    }
    let of_file = api.get(&format!("/v1/audit-events?item={}", id(&file))).send().await.expect(200);
    assert_eq!(of_file["items"].as_array().unwrap().len(), 2);
    let downloads = api.get("/v1/audit-events?type=getContent").send().await.expect(200);
    assert_eq!(downloads["items"].as_array().unwrap().len(), 1);
    let none = api.get("/v1/audit-events?from=2090-01-01T00:00:00Z").send().await.expect(200);
    assert!(none["items"].as_array().unwrap().is_empty());
    reader.get("/v1/audit-events").send().await.refused(403, "insufficient-scope");
}

#[tokio::test]
async fn the_chain_goes_on_after_a_restart() {
    let fixture = start().await;
    let api = fixture.operator().await;
    api.workspace("one").await;
    let before = events(&api).await;
    let crate::support::Fixture { server, folder } = fixture;
    server.stop(std::time::Duration::from_secs(5)).await.unwrap();
    let seed = serde_saphyr::from_str(crate::support::SEED).unwrap();
    let config =
        file360_operator::server::ServerConfig { seed, ..file360_operator::server::ServerConfig::new(folder.path()) };
    let server = file360_operator::server::Server::start(config).await.unwrap();
    let api = Api::sign_in(&server.url, "operator").await;
    api.workspace("two").await;
    let after = events(&api).await;
    assert_eq!(after[..before.len()], before);
    assert_eq!(after[before.len()]["previousHash"], before[before.len() - 1]["hash"]);
    let (entries, _) = api.changes("earliest").await;
    let sequences: Vec<_> = entries.iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=entries.len() as u64).collect::<Vec<_>>());
}
