//! Mailed codes that prove an address, and what keeps them and passwords from being guessed.

use std::collections::HashMap;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::{OptionalExtension, params};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::server::names;
use crate::server::notices;
use crate::server::refusal::Refusal;
use crate::server::tx::Tx;

const CODE_LIFE_MS: i64 = 15 * 60_000;
const PASS_LIFE_MS: i64 = 2 * 3_600_000;
const TRIES: u32 = 5;
const RESEND_AFTER_MS: i64 = 30_000;

/// Counts failures per address and secret link; too many within ten minutes close the door for that time.
#[derive(Default)]
pub struct Guesses(Mutex<HashMap<(IpAddr, String), (u32, i64)>>);

const MOST_GUESSES: u32 = 10;
const GUESS_WINDOW_MS: i64 = 600_000;

impl Guesses {
    /// Refuses who has guessed too often.
    pub fn check(&self, ip: IpAddr, token: &str, now: Timestamp) -> Result<(), Refusal> {
        let guesses = self.0.lock();
        match guesses.get(&(ip, token.to_owned())) {
            Some((count, since)) if *count >= MOST_GUESSES && now.as_millisecond() - since < GUESS_WINDOW_MS => {
                Err(Refusal::new(429, "rate-limited", "Too many tries.").retry_after(600))
            }
            _ => Ok(()),
        }
    }

    /// Counts one failure.
    pub fn failed(&self, ip: IpAddr, token: &str, now: Timestamp) {
        let now = now.as_millisecond();
        let mut guesses = self.0.lock();
        if guesses.len() > 100_000 {
            guesses.retain(|_, (_, since)| now - *since < GUESS_WINDOW_MS);
        }
        let entry = guesses.entry((ip, token.to_owned())).or_insert((0, now));
        if now - entry.1 >= GUESS_WINDOW_MS {
            *entry = (0, now);
        }
        entry.0 += 1;
    }
}

/// Mails a new code, unless one was mailed just now.
pub fn mail(tx: &mut Tx<'_, '_, '_>, token: &str, email: &str) -> Result<(), Refusal> {
    let now = tx.now.as_millisecond();
    let mut find = tx.db.prepare_cached("SELECT expires_at FROM codes WHERE token = ?1 AND email = ?2")?;
    let expires_at: Option<i64> = find.query_row([token, email], |row| row.get(0)).optional()?;
    if expires_at.is_some_and(|at| at - CODE_LIFE_MS + RESEND_AFTER_MS > now) {
        return Ok(());
    }
    let code = format!("{:06}", rand::random_range(0..1_000_000_u32));
    tx.db
        .prepare_cached(
            "INSERT OR REPLACE INTO codes (token, email, code_hash, tries, expires_at) VALUES (?1, ?2, ?3, 0, ?4)",
        )?
        .execute(params![token, email, hash(token, email, &code), now + CODE_LIFE_MS])?;
    notices::queue(tx, "verification-code", "en", email, &serde_json::json!({"code": code}))?;
    tx.took_effect();
    Ok(())
}

fn hash(token: &str, email: &str, code: &str) -> [u8; 32] {
    names::sha256(format!("{token}\n{email}\n{code}").as_bytes())
}

/// Whether the code is the mailed one. A code works once, and not after five wrong tries.
pub fn redeem(tx: &Tx<'_, '_, '_>, token: &str, email: &str, code: &str) -> Result<bool, Refusal> {
    let mut find =
        tx.db.prepare_cached("SELECT code_hash, tries FROM codes WHERE token = ?1 AND email = ?2 AND expires_at > ?3")?;
    let found: Option<([u8; 32], u32)> =
        find.query_row(params![token, email, tx.now.as_millisecond()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((expected, tries)) = found.filter(|(_, tries)| *tries < TRIES) else { return Ok(false) };
    if bool::from(expected.ct_eq(&hash(token, email, code.trim()))) {
        tx.db.prepare_cached("DELETE FROM codes WHERE token = ?1 AND email = ?2")?.execute([token, email])?;
        return Ok(true);
    }
    tx.db.prepare_cached("UPDATE codes SET tries = ?3 WHERE token = ?1 AND email = ?2")?.execute(params![
        token,
        email,
        tries + 1
    ])?;
    Ok(false)
}

/// What a verified address gets: a signed note for the form, so that nothing has to be kept for it.
pub fn pass(key: &[u8], token: &str, email: &str, now: Timestamp) -> String {
    let until = now.as_millisecond() + PASS_LIFE_MS;
    format!("{until}.{}", names::hex(&sign(key, token, email, until)))
}

/// Whether the note is one of ours for this address, and still valid.
pub fn is_pass(key: &[u8], token: &str, email: &str, pass: &str, now: Timestamp) -> bool {
    let Some((until, signature)) = pass.split_once('.') else { return false };
    let Ok(until) = until.parse::<i64>() else { return false };
    until > now.as_millisecond()
        && bool::from(names::hex(&sign(key, token, email, until)).as_bytes().ct_eq(signature.as_bytes()))
}

fn sign(key: &[u8], token: &str, email: &str, until: i64) -> Vec<u8> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(format!("{token}\n{email}\n{until}").as_bytes());
    mac.finalize().into_bytes().to_vec()
}
