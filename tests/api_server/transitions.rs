//! C3 at scale: a resource that goes from A to B ends where a fresh B ends, for generated pairs of specs.

use futures::stream::{self, StreamExt as _};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use crate::support::world::World;

/// Pairs when `FILE360_TRANSITIONS` does not say.
const PAIRS: usize = 200;

fn optional(strategy: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    prop_oneof![1 => Just(None), 2 => strategy.prop_map(Some)].boxed()
}

fn object(fields: Vec<(&'static str, BoxedStrategy<Option<Value>>)>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    values
        .prop_map(move |values| {
            let present = names.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
            Value::Object(present.collect::<Map<_, _>>())
        })
        .boxed()
}

fn one_of(values: &'static [&'static str]) -> BoxedStrategy<Value> {
    prop::sample::select(values).prop_map(Value::from).boxed()
}

fn metadata() -> BoxedStrategy<Value> {
    prop::collection::btree_map("[a-c]", "[x-z]", 0..3).prop_map(|map| json!(map)).boxed()
}

/// Members with distinct names. Guests are of one domain, which every generated sharing rule with guests allows.
fn members(guests: bool) -> BoxedStrategy<Value> {
    let names = prop::sample::subsequence((0..4).collect::<Vec<u32>>(), 0..4);
    let role = one_of(&["Editor", "Contributor", "Uploader", "Viewer"]);
    let end = optional(one_of(&["2033-01-01T00:00:00Z", "2034-01-01T00:00:00Z"]));
    let reason = optional(one_of(&["because", "why not"]));
    (names, prop::collection::vec((0..3u32, role, end, reason), 4))
        .prop_map(move |(names, details)| {
            let members = names.into_iter().zip(details).map(|(number, (kind, role, end, reason))| {
                let (kind, name) = match kind {
                    0 => ("User", format!("user{number}")),
                    1 => ("Group", format!("group{number}")),
                    _ if guests => ("Guest", format!("guest{number}@acme.example")),
                    _ => ("User", format!("user{number}")),
                };
                let mut member = json!({"kind": kind, "name": name, "role": role});
                if let Some(end) = end {
                    member["expiresAt"] = end;
                }
                if let Some(reason) = reason {
                    member["reason"] = reason;
                }
                member
            });
            members.collect::<Vec<_>>().into()
        })
        .boxed()
}

fn folders() -> BoxedStrategy<Value> {
    let paths = prop::sample::subsequence(vec!["/A", "/A/B", "/A/B/C", "/D", "/E/F", "/ü ñ"], 0..5);
    let details = object(vec![
        ("classification", optional(one_of(&["Internal", "Secret"]))),
        ("metadata", optional(metadata())),
        ("locked", optional(any::<bool>().prop_map(Value::from))),
        ("members", optional(members(false))),
    ]);
    (paths, prop::collection::vec(details, 6))
        .prop_map(|(paths, details)| {
            let folders = paths.into_iter().zip(details).map(|(path, mut folder)| {
                folder["path"] = json!(path);
                folder
            });
            folders.collect::<Vec<_>>().into()
        })
        .boxed()
}

fn sharing() -> BoxedStrategy<Value> {
    let domains = prop_oneof![Just(json!(["acme.example"])), Just(json!(["acme.example", "*.more.example"]))];
    let links = object(vec![
        ("maxAudience", optional(one_of(&["Members", "Company", "Guests", "Anyone"]))),
        ("maxDays", optional((1..60i64).prop_map(Value::from))),
        ("passwordRequired", optional(any::<bool>().prop_map(Value::from))),
        ("download", optional(any::<bool>().prop_map(Value::from))),
    ]);
    let reshare = optional(any::<bool>().prop_map(Value::from));
    (any::<bool>(), domains, reshare, optional(links))
        .prop_map(|(anyone, domains, reshare, links)| {
            let mut sharing = if anyone {
                json!({"external": "Anyone"})
            } else {
                json!({"external": "AllowListed", "allowedDomains": domains})
            };
            if let Some(reshare) = reshare {
                sharing["reshare"] = reshare;
            }
            if let Some(links) = links {
                sharing["links"] = links;
            }
            sharing
        })
        .boxed()
}

fn requests() -> BoxedStrategy<Value> {
    let names = prop::sample::subsequence(vec!["one", "two"], 0..3);
    let end = optional(one_of(&["2033-01-01T00:00:00Z"]));
    (names, prop::collection::vec((any::<bool>(), any::<bool>(), end), 2))
        .prop_map(|(names, details)| {
            let requests = names.into_iter().zip(details).map(|(name, (email, fields, end))| {
                let mut request = json!({"name": name, "path": "/", "requireEmail": email});
                if fields {
                    request["fields"] = json!([{"name": "kind", "type": "Select", "options": ["a", "b"]}]);
                }
                if let Some(end) = end {
                    request["expiresAt"] = end;
                }
                request
            });
            requests.collect::<Vec<_>>().into()
        })
        .boxed()
}

/// A valid spec. Guests come only with a sharing rule that lets them in.
fn specs() -> BoxedStrategy<Value> {
    let base = object(vec![
        ("displayName", one_of(&["One", "Two"]).prop_map(Some).boxed()),
        ("classification", optional(one_of(&["Internal", "Secret"]))),
        ("metadata", optional(metadata())),
        ("folders", optional(folders())),
        ("uploadRequests", optional(requests())),
    ]);
    let access = |guests| {
        object(vec![("mode", optional(one_of(&["Exclusive", "Additive"]))), ("members", optional(members(guests)))])
    };
    (base, optional(sharing()), optional(access(true)), optional(access(false)))
        .prop_map(|(mut spec, sharing, open, closed)| {
            let access = if sharing.is_some() { open } else { closed };
            if let Some(sharing) = sharing {
                spec["sharing"] = sharing;
            }
            if let Some(access) = access {
                spec["access"] = access;
            }
            spec["maxRemovals"] = json!(100);
            spec
        })
        .boxed()
}

async fn end_of(world: &World, name: &str) -> Value {
    let mut state = world.remote.workspace_state(&world.workspace_id(name).await).await;
    state["key"].take();
    state["owner"].take();
    state
}

#[tokio::test]
async fn c3_from_a_to_b_ends_where_a_fresh_b_ends_for_generated_pairs() {
    let pairs = std::env::var("FILE360_TRANSITIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(PAIRS);
    let seed = std::env::var("FILE360_SEED_NUMBER").ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(360);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let world = World::new().await;
    let strategy = (specs(), specs());
    let generated: Vec<(Value, Value)> = (0..pairs).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let world = &world;
    stream::iter(generated.into_iter().enumerate())
        .for_each_concurrent(8, |(number, (a, b))| async move {
            let (changed, fresh) = (format!("changed-{number}"), format!("fresh-{number}"));
            world.workspace(&changed, a.clone()).await;
            tokio::join!(world.workspace(&changed, b.clone()), world.workspace(&fresh, b.clone()));
            let (one, other) = (end_of(world, &changed).await, end_of(world, &fresh).await);
            assert_eq!(one, other, "pair {number} of seed {seed}:\nA = {a:#}\nB = {b:#}");
        })
        .await;
    println!("{pairs} pairs of seed {seed}");
}
