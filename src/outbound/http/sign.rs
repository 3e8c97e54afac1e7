//! Signatures as in Standard Webhooks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::redacted::Redacted;

/// Shortest key, in bytes.
const MIN_KEY: usize = 24;

/// A key to sign with.
pub(super) struct Key(Hmac<Sha256>);

/// What is signed.
pub(super) enum Signed<'a> {
    /// A whole body.
    Body(&'a [u8]),
    /// A file's content, by its SHA-256 in lower-case hexadecimal: it is signed before its last byte is read.
    Content(&'a str),
}

impl Key {
    /// `whsec_` and base64, or the bytes of the text. `None` when there are fewer than 24.
    pub fn new(secret: &Redacted) -> Option<Self> {
        let text = secret.expose().trim();
        let bytes = match text.strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).ok()?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.len() < MIN_KEY {
            return None;
        }
        Some(Self(Hmac::new_from_slice(&bytes).ok()?))
    }

    /// The value of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: i64, signed: &Signed<'_>) -> String {
        let (scheme, content) = match signed {
            Signed::Body(body) => ("v1", *body),
            Signed::Content(digest) => ("v1h", digest.as_bytes()),
        };
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(content);
        format!("{scheme},{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_standard_webhooks_libraries_compute() {
        // Test vector of the libraries' own suites.
        let key = Key::new(&Redacted::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, &Signed::Body(br#"{"test": 2432232314}"#));
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_body_that_looks_like_a_digest_is_no_content() {
        let key = Key::new(&Redacted::new("k".repeat(24))).unwrap();
        let digest = "0".repeat(64);
        assert_ne!(key.sign("i", 1, &Signed::Body(digest.as_bytes())), key.sign("i", 1, &Signed::Content(&digest)));
        assert!(key.sign("i", 1, &Signed::Content(&digest)).starts_with("v1h,"));
        assert!(Key::new(&Redacted::new("k".repeat(23))).is_none(), "too short");
        assert!(Key::new(&Redacted::new("whsec_%%%")).is_none());
    }
}
