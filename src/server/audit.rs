//! The audit feed: what happened, who did it, and a chain of hashes that shows whether an event was altered or left out.

use rusqlite::params;
use serde_json::{Value, json};

use super::call::{Call, Caller};
use super::names;
use super::refusal::Refusal;
use super::store::writer::Ledger;
use super::tx::About;
use crate::file360::model::Actor;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Success,
    /// It was refused and had no effect.
    Refused,
}

/// One event before it gets its place in the chain.
#[derive(Debug)]
pub struct Record<'r> {
    /// Who.
    pub actor: Actor,
    /// What it concerned.
    pub about: About,
    /// How it ended.
    pub outcome: Outcome,
    /// Code of the refusal.
    pub code: Option<&'r str>,
    /// More, by kind of event.
    pub details: Option<Value>,
}

/// Appends an event in the open transaction.
pub fn append(ledger: &mut Ledger<'_>, call: &Call, record: &Record<'_>) -> Result<(), Refusal> {
    let client = match &call.caller {
        Caller::Client { id, on_behalf_of: Some(_), .. } => Some(id.as_str()),
        _ => None,
    };
    let mut event = json!({
        "ip": call.ip.to_string(),
        "client": client,
        "causedBy": call.caused_by(),
        "forced": call.forces().then_some(true),
    });
    if let Value::Object(members) = &mut event {
        members.retain(|_, value| !value.is_null());
    }
    append_event(ledger, call.now, call.operation.id(), record, event)
}

/// Appends an event that no call made: what the server does by itself when time passes.
pub fn append_event(
    ledger: &mut Ledger<'_>,
    time: jiff::Timestamp,
    action: &str,
    record: &Record<'_>,
    mut event: Value,
) -> Result<(), Refusal> {
    let sequence = ledger.heads.audit + 1;
    let About { workspace_id, item_id, path, version, subject } = &record.about;
    let common = json!({
        "sequence": sequence,
        "id": format!("a{sequence}-{:08x}", rand::random::<u32>()),
        "time": time,
        "action": action,
        "outcome": match record.outcome { Outcome::Success => "Success", Outcome::Refused => "Refused" },
        "code": record.code,
        "actor": record.actor,
        "workspaceId": workspace_id,
        "itemId": item_id,
        "path": path,
        "version": version,
        "subject": subject,
        "details": record.details,
        "previousHash": names::hex(&ledger.heads.hash),
    });
    if let (Value::Object(into), Value::Object(common)) = (&mut event, common) {
        into.extend(common.into_iter().filter(|(_, value)| !value.is_null()));
    }
    let body = canonical(&event);
    let hash = names::sha256(body.as_bytes());
    ledger
        .db
        .prepare_cached("INSERT INTO audit (sequence, time, action, item_id, workspace_id, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![sequence, time.as_millisecond(), action, item_id, workspace_id, body, hash])?;
    ledger.heads.audit = sequence;
    ledger.heads.hash = hash;
    Ok(())
}

/// JSON without blanks, members sorted by name: the form that is hashed.
pub fn canonical(value: &Value) -> String {
    let mut text = String::with_capacity(512);
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, to: &mut String) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            to.push('{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    to.push(',');
                }
                to.push_str(&Value::from(name.as_str()).to_string());
                to.push(':');
                write_canonical(value, to);
            }
            to.push('}');
        }
        Value::Array(items) => {
            to.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    to.push(',');
                }
                write_canonical(item, to);
            }
            to.push(']');
        }
        scalar => to.push_str(&scalar.to_string()),
    }
}
