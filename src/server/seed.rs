//! The seed file: clients, users and groups that are there from the start.

use std::collections::HashMap;

use rusqlite::Connection;
use serde::Deserialize;

use super::authorize::Scopes;
use super::names;
use super::oauth::Client;
use super::operation::Scope;
use super::records::people;
use super::refusal::Refusal;
use super::store::writer::Ledger;
use super::tx::{News, announce};
use crate::file360::model::{Actor, ChangeKind, Principal, PrincipalKind};

/// Content of the seed file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Seed {
    /// Client applications. They are known as long as the seed names them.
    pub clients: Vec<SeedClient>,
    /// Users. One that the seed no longer names stays.
    pub users: Vec<SeedUser>,
    /// Groups with exactly these members.
    pub groups: Vec<SeedGroup>,
}

/// A client application.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeedClient {
    /// Its id.
    pub id: String,
    /// Its secret.
    #[serde(default)]
    pub secret: Option<String>,
    /// SHA-256 of its secret in hexadecimal, so that the file holds no secret.
    #[serde(default)]
    pub secret_sha256: Option<String>,
    /// What its tokens may allow.
    pub scopes: Vec<String>,
}

/// A user.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeedUser {
    /// User name.
    pub name: String,
    /// Name for people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Mail address.
    #[serde(default)]
    pub email: Option<String>,
}

/// A group.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeedGroup {
    /// Group name.
    pub name: String,
    /// Name for people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Names of users.
    #[serde(default)]
    pub members: Vec<String>,
}

/// The clients of the seed, by id, or what is wrong with one.
pub fn clients(seed: &Seed) -> Result<HashMap<String, Client>, String> {
    seed.clients.iter().map(|client| Ok((client.id.clone(), client_of(client)?))).collect()
}

fn client_of(client: &SeedClient) -> Result<Client, String> {
    let about = |what: &str| format!("client `{}`: {what}", client.id);
    let secret = match (&client.secret, &client.secret_sha256) {
        (Some(secret), None) if !secret.is_empty() => names::sha256(secret.as_bytes()),
        (None, Some(hash)) => unhex(hash).ok_or_else(|| about("secretSha256 has 64 hexadecimal digits"))?,
        _ => return Err(about("give either secret or secretSha256")),
    };
    let scopes: Option<Scopes> = client.scopes.iter().map(|word| Scope::parse(word)).collect();
    Ok(Client { secret, scopes: scopes.ok_or_else(|| about("scopes are read, write, share, govern, audit, admin"))? })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Writes users, groups and clients. Applied twice it changes nothing the second time.
pub fn apply(ledger: &mut Ledger<'_>, seed: &Seed, now: jiff::Timestamp) -> Result<(), Refusal> {
    let mut changed = Vec::new();
    for user in &seed.users {
        let (display, email) = (user.display_name.clone(), user.email.as_deref().and_then(names::email));
        changed.extend(upsert(ledger.db, now, PrincipalKind::User, &user.name, display, email)?);
    }
    for group in &seed.groups {
        changed.extend(upsert(ledger.db, now, PrincipalKind::Group, &group.name, group.display_name.clone(), None)?);
        changed.extend(set_members(ledger.db, group)?);
    }
    for client in &seed.clients {
        upsert(ledger.db, now, PrincipalKind::Client, &client.id, None, None)?;
    }
    changed.dedup();
    for id in changed {
        let actor = Actor { kind: PrincipalKind::Client, id: None, name: "seed".to_owned(), email_verified: false };
        announce(ledger, now, actor, None, News { kind: ChangeKind::PrincipalChanged, ..News::about(id) })?;
    }
    Ok(())
}

fn upsert(
    db: &Connection,
    now: jiff::Timestamp,
    kind: PrincipalKind,
    name: &str,
    display_name: Option<String>,
    email: Option<String>,
) -> Result<Option<String>, Refusal> {
    names::required_text(name, 255, "name")?;
    let id = if kind == PrincipalKind::Client { name.to_owned() } else { names::id('p', now) };
    people::upsert(db, &Principal { id, kind, name: name.to_owned(), display_name, email })
}

fn set_members(db: &Connection, group: &SeedGroup) -> Result<Option<String>, Refusal> {
    let id = |kind, name: &str| -> Result<String, Refusal> {
        let found = people::by_name(db, kind, name)?;
        found.map(|found| found.id).ok_or_else(|| Refusal::invalid("groups", format!("`{name}` is not a user of the seed.")))
    };
    let group_id = id(PrincipalKind::Group, &group.name)?;
    let mut wanted = group.members.iter().map(|name| id(PrincipalKind::User, name)).collect::<Result<Vec<_>, _>>()?;
    wanted.sort();
    wanted.dedup();
    let mut find = db.prepare("SELECT member_id FROM group_members WHERE group_id = ?1 ORDER BY member_id")?;
    let present = find.query_map([&group_id], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    if present == wanted {
        return Ok(None);
    }
    db.execute("DELETE FROM group_members WHERE group_id = ?1", [&group_id])?;
    for member in wanted {
        db.execute("INSERT INTO group_members (group_id, member_id) VALUES (?1, ?2)", [&group_id, &member])?;
    }
    Ok(Some(group_id))
}
