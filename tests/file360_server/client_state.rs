use std::collections::BTreeSet;

use file360_operator::error::Kind;
use file360_operator::file360::model::{Capability, ClientStatePut};
use serde_json::{Value, json};

use crate::driver::{connector, failure, key, pages, tenant};

fn put(key: &str, value: Value) -> ClientStatePut {
    ClientStatePut { key: key.to_owned(), value: Some(value) }
}

#[tokio::test]
async fn a_document_changes_only_for_who_has_seen_it() {
    let Some(tenant) = tenant(&[Capability::ClientState]).await else { return };
    let driver = &tenant.driver;
    assert_eq!(driver.client_state("routes/a b").await.unwrap(), None);
    let first = driver.put_client_state("routes/a b", &json!({"cursor": "x"}), None).await.unwrap();
    assert_eq!(failure(driver.put_client_state("routes/a b", &json!(1), None).await).0, Kind::Stale);
    let second = driver.put_client_state("routes/a b", &json!({"cursor": "y"}), Some(&first)).await.unwrap();
    assert_eq!(failure(driver.put_client_state("routes/a b", &json!(1), Some(&first)).await).0, Kind::Stale);
    let found = driver.client_state("routes/a b").await.unwrap().unwrap();
    assert_eq!((found.value, &found.etag), (json!({"cursor": "y"}), &second));
    assert_eq!(connector(&tenant.fixture, "neighbour").client_state("routes/a b").await.unwrap(), None);
    assert_eq!(failure(driver.delete_client_state("routes/a b", &first).await).0, Kind::Stale);
    driver.delete_client_state("routes/a b", &second).await.unwrap();
    driver.delete_client_state("routes/a b", &second).await.unwrap();
    assert_eq!(failure(driver.put_client_state("routes/a b", &json!(1), Some(&second)).await).0, Kind::Stale);
}

#[tokio::test]
async fn a_batch_sets_and_removes_all_or_nothing_and_once() {
    let Some(tenant) = tenant(&[Capability::ClientState]).await else { return };
    let driver = &tenant.driver;
    let keep = driver.put_client_state("p/keep", &json!(0), None).await.unwrap();
    let mut puts: Vec<_> = (0..999).map(|n| put(&format!("p/{n:03}"), json!({"n": n}))).collect();
    puts.push(put("p/keep", Value::Null));
    let once = key();
    driver.put_client_states(&puts, &once).await.unwrap();
    assert_eq!(driver.client_state("p/keep").await.unwrap(), None);
    // A reply that was lost: the same call again changes nothing that was done in between.
    driver.put_client_state("p/keep", &json!(1), None).await.unwrap();
    driver.put_client_states(&puts, &once).await.unwrap();
    assert_eq!(driver.client_state("p/keep").await.unwrap().unwrap().value, json!(1));
    assert_eq!(failure(driver.delete_client_state("p/keep", &keep).await).0, Kind::Stale);

    let broken = [put("p/000", json!("changed")), put("p/new", json!(1)), put(" ", json!(1))];
    assert_eq!(failure(driver.put_client_states(&broken, &key()).await).0, Kind::Rejected);
    let huge = [put("p/000", json!("changed")), put("p/huge", json!("x".repeat(256 * 1024)))];
    assert_eq!(failure(driver.put_client_states(&huge, &key()).await), (Kind::Rejected, "too-large".to_owned()));
    assert_eq!(driver.client_state("p/000").await.unwrap().unwrap().value, json!({"n": 0}));
    assert_eq!(driver.client_state("p/new").await.unwrap(), None);
    let many: Vec<_> = (0..1001).map(|n| put(&format!("q/{n}"), json!(n))).collect();
    assert_eq!(failure(driver.put_client_states(&many, &key()).await).0, Kind::Rejected);
    let absent = ClientStatePut { key: "p/000".into(), value: None };
    driver.put_client_states(&[absent], &key()).await.unwrap();
    assert_eq!(driver.client_state("p/000").await.unwrap(), None);
}

#[tokio::test]
async fn a_listing_has_every_own_document_of_the_prefix_once_in_order() {
    let Some(tenant) = tenant(&[Capability::ClientState]).await else { return };
    let driver = &tenant.driver;
    let keys = ["a", "r", "r/", "r/1", "r/1/x", "r/ä", "r/😀", "r0", "s"];
    let puts: Vec<_> = keys.iter().map(|key| put(key, json!({"key": key}))).collect();
    driver.put_client_states(&puts, &key()).await.unwrap();
    let stranger = connector(&tenant.fixture, "neighbour");
    stranger.put_client_state("r/theirs", &json!(1), None).await.unwrap();
    let listed =
        |prefix: &'static str| pages(move |cursor| async move { driver.client_states(prefix, cursor.as_deref()).await });
    let names = |rows: Vec<file360_operator::file360::model::ClientStateRow>| {
        rows.into_iter().map(|row| row.key).collect::<Vec<_>>()
    };
    assert_eq!(names(listed("r/").await), ["r/", "r/1", "r/1/x", "r/ä", "r/😀"]);
    assert_eq!(names(listed("").await), keys);
    assert!(listed("x").await.is_empty());
    let row = listed("r/1/").await.remove(0);
    assert_eq!(
        (&row.value, driver.client_state("r/1/x").await.unwrap().unwrap().etag),
        (&json!({"key": "r/1/x"}), row.etag)
    );
}

#[tokio::test]
async fn large_documents_come_in_pages_that_can_be_read() {
    let Some(tenant) = tenant(&[Capability::ClientState]).await else { return };
    let driver = &tenant.driver;
    let text = "x".repeat(200 * 1024);
    for n in 0..90 {
        driver.put_client_state(&format!("big/{n:02}"), &json!(text), None).await.unwrap();
    }
    let first = driver.client_states("big/", None).await.unwrap();
    assert!(first.next_cursor.is_some() && first.items.len() < 90, "18 MB are more than one answer");
    let all = pages(|cursor| async move { driver.client_states("big/", cursor.as_deref()).await }).await;
    assert_eq!(all.iter().map(|row| row.key.as_str()).collect::<BTreeSet<_>>().len(), 90);
}
