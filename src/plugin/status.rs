//! `status`: what there is, and everything about one resource.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::cluster::{Cluster, Target};
use super::object::{Kind, Seen};
use super::reasons::next_step;
use super::text::{Printer, age, indented, line, span, table};
use super::{Access, Failure, Outcome, Output, yaml};

/// Messages of a table are cut to this length.
const SHORT: usize = 100;
/// Events that are shown.
const EVENTS: usize = 10;

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl file360 status -A
  kubectl file360 status -n procurement acme-onboarding
  kubectl file360 status -n file360 connection/file360 -o yaml

Exit code 1: something that is shown is not ready.")]
pub struct StatusArgs {
    /// One resource: NAME, secureworkspace/NAME, secureworkspaceset/NAME, fileroute/NAME or connection/NAME. Default: all of the namespace.
    name: Option<Target>,
    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Prints; whether everything is ready.
pub async fn run(access: &Access, args: &StatusArgs, printer: &Printer) -> Outcome {
    let cluster = Cluster::connect(access).await?;
    match &args.name {
        Some(target) => one(&cluster, target, args.output, printer).await,
        None => all(&cluster, args, printer).await,
    }
}

async fn all(cluster: &Cluster, args: &StatusArgs, printer: &Printer) -> Outcome {
    let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    let mut seen = Vec::new();
    for kind in Kind::ALL {
        seen.extend(cluster.list(kind, namespace).await?);
    }
    seen.sort_by(|a, b| (&a.namespace, a.kind, &a.name).cmp(&(&b.namespace, b.kind, &b.name)));
    let now = Timestamp::now();
    if args.output == Output::Table {
        if seen.is_empty() {
            printer.note(&namespace.map_or_else(
                || "No resources found.".to_owned(),
                |namespace| format!("No resources found in namespace {namespace}."),
            ));
        } else {
            printer.print(&overview(&seen, args.all_namespaces, now));
        }
    } else {
        let rows: Vec<Value> = seen.iter().map(row).collect();
        printer.print(&yaml::render(&rows, args.output)?);
    }
    Ok(seen.iter().all(Seen::is_ready))
}

fn overview(seen: &[Seen], with_namespace: bool, now: Timestamp) -> String {
    let mut header = vec!["NAME", "READY", "REASON", "DRIFT", "SUSPENDED", "SINCE", "MESSAGE"];
    if with_namespace {
        header.insert(0, "NAMESPACE");
    }
    let rows: Vec<Vec<String>> = seen
        .iter()
        .map(|seen| {
            let ready = seen.condition("Ready");
            let focus = seen.focus();
            let message = focus.map_or_else(|| "No pass has ended yet.".to_owned(), |focus| focus.message);
            let outdated = if seen.is_current() || ready.is_none() { "" } else { "(of an older spec) " };
            let mut row = vec![
                format!("{}/{}", seen.kind.prefix(), seen.name),
                ready.as_ref().map_or_else(|| "Unknown".to_owned(), |ready| ready.status.clone()),
                ready.as_ref().map_or_else(String::new, |ready| ready.reason.clone()),
                seen.drift().to_string(),
                if seen.is_suspended() { "yes" } else { "no" }.to_owned(),
                age(ready.and_then(|ready| ready.since), now),
                line(&format!("{outdated}{message}"), SHORT),
            ];
            if with_namespace {
                row.insert(0, seen.namespace.clone());
            }
            row
        })
        .collect();
    table(&header, &rows)
}

/// One resource as data.
fn row(seen: &Seen) -> Value {
    let ready = seen.condition("Ready");
    json!({
        "kind": seen.kind.name(),
        "namespace": seen.namespace,
        "name": seen.name,
        "ready": seen.is_ready(),
        "reason": ready.as_ref().map(|ready| ready.reason.clone()),
        "drift": seen.drift(),
        "suspended": seen.is_suspended(),
        "since": ready.as_ref().and_then(|ready| ready.since),
        "message": seen.focus().map(|focus| focus.message),
        "nextStep": next_step(seen),
    })
}

async fn one(cluster: &Cluster, target: &Target, output: Output, printer: &Printer) -> Outcome {
    let seen = cluster.get(target).await?;
    let events = events(cluster, &seen).await;
    let now = Timestamp::now();
    if output == Output::Table {
        printer.print(&details(&seen, events.as_deref(), now));
    } else {
        let mut data = row(&seen);
        data["status"] = seen.status.clone();
        data["events"] = json!(events.unwrap_or_default().iter().map(Happening::data).collect::<Vec<_>>());
        printer.print(&yaml::render(&data, output)?);
    }
    Ok(seen.is_ready())
}

fn details(seen: &Seen, events: Result<&[Happening], &String>, now: Timestamp) -> String {
    let mut parts = vec![head(seen, now), conditions(seen, now)];
    parts.extend(seen.plan().map(|plan| format!("Plan (what would be done)\n{}", indented(&super::plan::lines(&plan)))));
    parts.extend(drift(seen, now));
    parts.extend(dead_letters(seen, now));
    let happenings = match events {
        Err(why) => format!("Events: {why}"),
        Ok([]) => "Events: none".to_owned(),
        Ok(events) => format!("Events\n{}", indented(&happened(events, now))),
    };
    parts.push(happenings);
    parts.push(format!("Next step: {}", next_step(seen)));
    parts.join("\n\n")
}

fn head(seen: &Seen, now: Timestamp) -> String {
    let mut facts = match seen.kind {
        Kind::SecureWorkspace => workspace_facts(seen),
        Kind::SecureWorkspaceSet => set_facts(seen),
        Kind::FileRoute => route_facts(seen),
        Kind::Connection => connection_facts(seen),
    };
    facts.push(("Suspended", seen.is_suspended().then(|| suspension(seen))));
    facts.push(("Next change", next_change(seen, now)));
    facts.push(("Age", Some(age(seen.created, now))));
    facts.push(("Deletion", seen.is_deleting.then(|| "under way".to_owned())));
    if !seen.is_current() {
        let looked_at = seen.status["observedGeneration"].as_i64().unwrap_or(-1);
        facts.push(("Generation", Some(format!("{}; the operator has looked at {looked_at}", seen.generation))));
    }
    let rows: Vec<Vec<String>> =
        facts.into_iter().filter_map(|(name, value)| value.map(|value| vec![format!("  {name}"), value])).collect();
    // The title is longer than the names of the facts and must not push them apart.
    format!("{}\n{}", seen.title(), table(&["", ""], &rows).trim_start_matches('\n'))
}

type Fact = (&'static str, Option<String>);

fn workspace_facts(seen: &Seen) -> Vec<Fact> {
    let (namespace, name) = seen.connection();
    vec![
        ("Display name", seen.spec_text("/displayName")),
        ("Connection", Some(format!("{namespace}/{name}"))),
        ("Workspace", seen.status_text("/workspaceId")),
        ("Address", seen.status_text("/url")),
        ("Mode", seen.spec_text("/mode").or_else(|| Some("Apply".into()))),
        ("Access", access(&seen.status)),
        ("Unsupported", unsupported(&seen.status)),
    ]
}

fn set_facts(seen: &Seen) -> Vec<Fact> {
    let (namespace, name) = seen.connection();
    let number = |name: &str| seen.status[name].as_u64().unwrap_or_default();
    let items = format!("{}, {} ready, {} failed", number("items"), number("ready"), number("failed"));
    let list = |name: &str, of: fn(&Value) -> String| {
        let entries: Vec<String> = seen.status[name].as_array()?.iter().map(of).collect();
        (!entries.is_empty()).then(|| entries.join("; "))
    };
    vec![
        ("Connection", Some(format!("{namespace}/{name}"))),
        ("Items", Some(items)),
        ("Generators", list("generators", generator)),
        ("Failures", list("failures", |one| format!("{}: {}", told(one, "key"), told(one, "message")))),
        ("Would remove", list("removals", |key| line(key.as_str().unwrap_or_default(), 512))),
    ]
}

fn told(value: &Value, name: &str) -> String {
    line(value[name].as_str().unwrap_or_default(), 400)
}

/// One generator of a set in one line.
fn generator(one: &Value) -> String {
    let more = ["url", "message"].map(|name| told(one, name)).into_iter().filter(|text| !text.is_empty());
    let more: String = more.map(|text| format!(" ({text})")).collect();
    format!("{} {}{more}", told(one, "name"), one["items"].as_u64().unwrap_or_default())
}

fn route_facts(seen: &Seen) -> Vec<Fact> {
    let (namespace, name) = seen.connection();
    vec![
        ("Connection", Some(format!("{namespace}/{name}"))),
        ("Mode", seen.spec_text("/mode").or_else(|| Some("Apply".into()))),
        ("Files", counts(&seen.status)),
        ("Inventory", inventoried(&seen.status)),
        ("Rules", rules(&seen.status)),
        ("Dry run", seen.status_text("/dryRun/summary")),
        ("Push to", seen.status_text("/ingestUrl")),
    ]
}

fn connection_facts(seen: &Seen) -> Vec<Fact> {
    let server = ["product", "version"].map(|name| seen.status_text(&format!("/server/{name}")).unwrap_or_default());
    vec![
        ("Driver", seen.spec_text("/driver").or_else(|| Some("Connector".into()))),
        ("Endpoint", seen.spec_text("/endpoint")),
        ("Server", Some(server.join(" ").trim().to_owned()).filter(|text| !text.is_empty())),
        ("Contract", seen.status_text("/server/contract")),
        ("Change feed", seen.status_text("/feed/state")),
        ("Compensating", features(&seen.status, "Compensating")),
        ("Observe only", features(&seen.status, "ObserveOnly")),
        ("Unsupported", features(&seen.status, "Unsupported")),
    ]
}

/// Features of one level, if there are any.
fn features(status: &Value, level: &str) -> Option<String> {
    let of_level = status["enforcement"].as_array()?.iter().filter(|one| one["level"] == level);
    let names: Vec<String> = of_level.map(|one| line(one["feature"].as_str().unwrap_or_default(), 63)).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Fields that the driver cannot honour, if there are any.
fn unsupported(status: &Value) -> Option<String> {
    let fields = status["unsupported"].as_array()?.iter();
    let names: Vec<String> = fields.map(|one| line(one["field"].as_str().unwrap_or_default(), 253)).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Totals of a route.
fn inventoried(status: &Value) -> Option<String> {
    let found = status.get("inventory")?;
    let at = found["lastAt"].as_str().map(|at| format!(" ({})", line(at, 40))).unwrap_or_default();
    Some(format!("{}{at}", super::inventory::summary(found)))
}

fn counts(status: &Value) -> Option<String> {
    let counts = status.get("counts")?;
    let count = |name: &str| counts[name].as_u64().unwrap_or_default();
    Some(format!(
        "{} seen, {} delivered ({} bytes), {} unmatched, {} given up",
        count("seen"),
        count("delivered"),
        count("bytes"),
        count("unmatched"),
        count("failed")
    ))
}

/// How many files each rule took.
fn rules(status: &Value) -> Option<String> {
    let rules = status["rules"].as_array()?.iter();
    let told = rules.map(|rule| {
        format!("{} {}", line(rule["name"].as_str().unwrap_or_default(), 63), rule["matched"].as_u64().unwrap_or_default())
    });
    Some(told.collect::<Vec<_>>().join(", "))
}

/// Deliveries that were given up, if any.
pub fn dead_letters(seen: &Seen, now: Timestamp) -> Option<String> {
    let letters = seen.dead_letters().filter(|letters| !letters.is_empty())?;
    let text = |letter: &Value, name: &str| line(letter[name].as_str().unwrap_or("-"), 200);
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|letter| {
            let at = age(letter["at"].as_str().and_then(|at| at.parse().ok()), now);
            let to = format!("{}/{}", text(letter, "rule"), text(letter, "destination"));
            vec![text(letter, "file"), text(letter, "version"), to, at, text(letter, "error")]
        })
        .collect();
    let table = table(&["FILE", "VERSION", "TO", "AGE", "ERROR"], &rows);
    Some(format!("Given up (the last {})\n{}", rows.len(), indented(&table)))
}

fn access(status: &Value) -> Option<String> {
    let count = |name: &str| status["access"][name].as_u64();
    let expiring = count("expiringIn7Days").filter(|n| *n > 0).map(|n| format!("; {n} end within 7 days"));
    Some(format!("{} internal, {} external{}", count("internal")?, count("external")?, expiring.unwrap_or_default()))
}

fn suspension(seen: &Seen) -> String {
    let until = seen.spec_text("/suspendUntil").map_or_else(String::new, |until| format!("until {until}: "));
    format!("{until}{}", seen.spec_text("/suspendReason").unwrap_or_else(|| "no reason given".into()))
}

fn next_change(seen: &Seen, now: Timestamp) -> Option<String> {
    let at: Timestamp = seen.status_text("/nextChangeAt")?.parse().ok()?;
    Some(format!("{at}, in {}, by the clock alone", span(at.duration_since(now).as_secs())))
}

fn conditions(seen: &Seen, now: Timestamp) -> String {
    let rows: Vec<Vec<String>> = seen
        .conditions()
        .into_iter()
        .map(|condition| {
            vec![condition.kind, condition.status, condition.reason, age(condition.since, now), condition.message]
        })
        .collect();
    if rows.is_empty() {
        return "Conditions: none; no pass has ended yet".into();
    }
    format!("Conditions\n{}", indented(&table(&["TYPE", "STATUS", "REASON", "AGE", "MESSAGE"], &rows)))
}

/// The differences that stand, if any.
pub fn drift(seen: &Seen, now: Timestamp) -> Option<String> {
    let items = seen.status.pointer("/drift/items")?.as_array()?;
    let text = |item: &Value, name: &str| line(item[name].as_str().unwrap_or("-"), 200);
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            let since = age(item["since"].as_str().and_then(|since| since.parse().ok()), now);
            vec![text(item, "path"), text(item, "want"), text(item, "have"), text(item, "by"), since]
        })
        .collect();
    let listed =
        if seen.status["drift"]["truncated"] == true { format!(", the first {}", rows.len()) } else { String::new() };
    let table = table(&["WHAT", "DECLARED", "IN FILE 360", "BY", "SINCE"], &rows);
    Some(format!("Drift ({}{listed})\n{}", seen.drift(), indented(&table)))
}

/// One Event.
pub struct Happening {
    at: Option<Timestamp>,
    /// It says that something is wrong.
    pub is_warning: bool,
    reason: String,
    note: String,
    count: i32,
}

impl Happening {
    fn of(event: &Event) -> Self {
        let series = event.series.as_ref();
        let at = series.map(|series| series.last_observed_time.0).or_else(|| event.event_time.as_ref().map(|time| time.0));
        let text = |text: &Option<String>| line(text.as_deref().unwrap_or_default(), 1000);
        Self {
            at: at.or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0)),
            is_warning: event.type_.as_deref() == Some("Warning"),
            reason: text(&event.reason),
            note: text(&event.note),
            count: series.map_or(1, |series| series.count),
        }
    }

    fn data(&self) -> Value {
        let kind = if self.is_warning { "Warning" } else { "Normal" };
        json!({"at": self.at, "type": kind, "reason": self.reason, "note": self.note, "count": self.count})
    }
}

/// The last Events of an object, the newest first; or why they cannot be read.
pub async fn events(cluster: &Cluster, seen: &Seen) -> Result<Vec<Happening>, String> {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), &seen.namespace);
    let fields = format!("regarding.kind={},regarding.name={}", seen.kind.name(), seen.name);
    match api.list(&ListParams::default().fields(&fields)).await {
        Ok(list) => {
            let mut events: Vec<Happening> = list.items.iter().map(Happening::of).collect();
            events.sort_by_key(|event| std::cmp::Reverse(event.at));
            events.truncate(EVENTS);
            Ok(events)
        }
        Err(error) => match super::cluster::explain("list events", &error) {
            Failure::Failed(why) | Failure::Usage(why) => Err(why),
        },
    }
}

/// Events as a table.
pub fn happened(events: &[Happening], now: Timestamp) -> String {
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|event| {
            let times = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
            let kind = if event.is_warning { "Warning" } else { "Normal" };
            vec![age(event.at, now) + &times, kind.to_owned(), event.reason.clone(), event.note.clone()]
        })
        .collect();
    table(&["AGE", "TYPE", "REASON", "NOTE"], &rows)
}
