//! Passwords of links: Argon2id, in the PHC string format, away from the threads that serve calls.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};

use super::refusal::Refusal;

/// Longest password.
const MAX_LENGTH: usize = 256;

/// The hash of a new password, if there is one.
pub async fn hash_optional(password: Option<String>) -> Result<Option<String>, Refusal> {
    let Some(password) = password else { return Ok(None) };
    if password.is_empty() || password.len() > MAX_LENGTH {
        return Err(Refusal::invalid("/password", "From 1 to 256 bytes."));
    }
    let work = move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string());
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(hash)) => Ok(Some(hash)),
        _ => Err(Refusal::new(500, "internal", "The password could not be hashed.")),
    }
}

/// Whether the password is the one of the hash.
pub async fn verify(password: String, hash: String) -> bool {
    if password.len() > MAX_LENGTH {
        return false;
    }
    let work = move || {
        PasswordHash::new(&hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    };
    tokio::task::spawn_blocking(work).await.unwrap_or(false)
}
