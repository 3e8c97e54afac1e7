//! `rules`: how many conditions of rules one core evaluates in a second.

use std::time::{Duration, Instant};

use file360_operator::api::file_route::FileRouteSpec;
use file360_operator::expression::Expression;
use file360_operator::routes::environment::{NAMES, example};
use file360_operator::routes::rules::Rules;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::measure::{float, round};

/// Rules of the route; the last one takes the file.
const RULES: usize = 10;
const GOAL: f64 = 200_000.0;

/// Runs the scenario on one core.
pub fn run(seconds: u64) -> Value {
    let when = |number: usize| {
        format!("file.metadata.documentType == 'type{number}' && has(file.metadata.claimId) && file.size < 50000000")
    };
    let rules: Vec<Value> = (1..=RULES)
        .map(|number| json!({"name": format!("r{number}"), "when": when(number), "to": [{"name": "t", "http": {"url": "https://example.com"}}]}))
        .collect();
    let spec = json!({"connectionRef": {"name": "c"}, "from": {"workspaces": {"selector": {}}}, "rules": rules, "unmatched": {"ignore": {}}});
    let spec: FileRouteSpec = serde_json::from_value(spec).expect("a spec");
    let rules = Rules::compile(&spec).expect("rules");
    let metadata = json!({"documentType": format!("type{RULES}"), "claimId": "7"});
    let given = json!({"file": {"metadata": metadata, "size": 1000}});
    let now = Timestamp::now();
    let variables = example(&given, now);
    let name = format!("r{RULES}");
    let decided = rate(seconds, || assert_eq!(rules.decide(&variables).expect("a verdict").name, name));
    let fresh = rate(seconds, || assert_eq!(rules.decide(&example(&given, now)).expect("a verdict").name, name));
    let one = Expression::compile(&when(RULES), NAMES).expect("an expression");
    let bare = rate(seconds, || assert!(one.holds(&variables).expect("a boolean")));
    let evaluations = decided * float(RULES as u64);
    json!({"scenario": "rules", "rules": RULES, "evaluationsPerSecond": round(evaluations, 0), "filesPerSecond": round(decided, 0),
        "filesPerSecondWithTheirVariables": round(fresh, 0), "bareExpressionsPerSecond": round(bare, 0),
        "ratio": round(evaluations / bare, 2), "reachesGoal": evaluations >= GOAL})
}

/// Runs of `work` a second.
fn rate(seconds: u64, mut work: impl FnMut()) -> f64 {
    let (started, end) = (Instant::now(), Duration::from_secs(seconds));
    let mut count = 0u64;
    while started.elapsed() < end {
        for _ in 0..100 {
            work();
        }
        count += 100;
    }
    float(count) / started.elapsed().as_secs_f64()
}
