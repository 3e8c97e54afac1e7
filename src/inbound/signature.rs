//! Signatures of requests, in the headers of Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
//!
//! What is signed is `<id>.<timestamp>.<payload>` with HMAC-SHA256. Nothing here reads a clock, a body or a Secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Seconds that a timestamp may be off, in either direction.
pub const WINDOW: i64 = 5 * 60;
/// Longest id.
pub const LONGEST_ID: usize = 128;
/// Most keys that count at once.
pub const MOST_KEYS: usize = 8;
/// Shortest key, in bytes.
pub const SHORTEST_KEY: usize = 24;
/// Most signatures that one request may carry.
const MOST_SIGNATURES: usize = 16;
/// Bytes of a SHA-256.
const DIGEST: usize = 32;
/// Bytes that SHA-256 takes at once.
const BLOCK: usize = 64;

/// What a request claims: who it is, when it was sent, and signatures over that and a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The id: the same for every try to deliver the same thing.
    pub id: String,
    timestamp: i64,
    signatures: Vec<[u8; DIGEST]>,
}

/// The headers are not what they should be; the text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl Claim {
    /// Reads the three headers.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Malformed> {
        let id = one(headers, "webhook-id")
            .ok_or(Malformed("The header webhook-id is missing, given twice, or not plain text."))?;
        let timestamp = one(headers, "webhook-timestamp")
            .ok_or(Malformed("The header webhook-timestamp is missing, given twice, or not plain text."))?;
        let signatures = one(headers, "webhook-signature")
            .ok_or(Malformed("The header webhook-signature is missing, given twice, or not plain text."))?;
        Self::parse(id, timestamp, signatures)
    }

    /// Reads the values of the three headers. Signatures of other versions than `v1` do not count.
    pub fn parse(id: &str, timestamp: &str, signatures: &str) -> Result<Self, Malformed> {
        // No full stop: it separates the id from the timestamp in what is signed.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:~+/=@".contains(&byte);
        if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(plain) {
            return Err(Malformed("webhook-id is 1 to 128 letters, digits and -_:~+/=@."));
        }
        let digits = (1..=15).contains(&timestamp.len()) && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let seconds =
            if digits && (timestamp == "0" || !timestamp.starts_with('0')) { timestamp.parse().ok() } else { None };
        let Some(timestamp) = seconds else {
            return Err(Malformed("webhook-timestamp is a number: seconds since 1970-01-01."));
        };
        let given: Vec<&str> = signatures.split(' ').filter(|entry| !entry.is_empty()).take(MOST_SIGNATURES + 1).collect();
        if given.len() > MOST_SIGNATURES {
            return Err(Malformed("webhook-signature has too many signatures."));
        }
        let signatures: Vec<[u8; DIGEST]> = given.iter().filter_map(|entry| decode(entry.strip_prefix("v1,")?)).collect();
        if signatures.is_empty() {
            return Err(Malformed("webhook-signature has no signature of the form v1,<base64 of 32 bytes>."));
        }
        Ok(Self { id: id.to_owned(), timestamp, signatures })
    }

    /// Whether it was sent within five minutes of `now`.
    pub fn is_timely(&self, now: Timestamp) -> bool {
        (now.as_second() - self.timestamp).abs() <= WINDOW
    }

    /// Whether one of the signatures is one of the keys' over id, timestamp and `payload`. Takes the same time for every set of
    /// keys and whatever matches.
    pub fn is_signed(&self, keys: &Keys, payload: &[u8]) -> bool {
        let mut found = Choice::from(0);
        for key in &keys.0 {
            let expected = message(key.clone(), &self.id, self.timestamp, payload);
            for signature in &self.signatures {
                found |= expected.ct_eq(signature);
            }
        }
        found.into()
    }
}

/// The value of a header that is there once, as plain text.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

fn decode(text: &str) -> Option<[u8; DIGEST]> {
    // 32 bytes are 44 characters.
    (text.len() == 44).then(|| STANDARD.decode(text).ok()?.try_into().ok()).flatten()
}

fn message(mut mac: Hmac<Sha256>, id: &str, timestamp: i64, payload: &[u8]) -> [u8; 32] {
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(payload);
    mac.finalize().into_bytes().into()
}

/// Keys that requests are signed with. Always the same number: those that are missing are random and match nothing.
#[derive(Clone)]
pub struct Keys([Hmac<Sha256>; MOST_KEYS]);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys([redacted])")
    }
}

impl Keys {
    /// Keys that nobody has.
    pub fn nobodys() -> Self {
        Self(std::array::from_fn(|_| keyed(&rand::random::<[u8; 32]>())))
    }

    /// The keys with these values, each by a name for people. `whsec_` and base64 is the form of Standard Webhooks; every other text is
    /// the key as it stands. Those that cannot be used are named in the second result and match nothing.
    pub fn new<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<String>) {
        let (mut keys, mut count, mut problems) = (Self::nobodys(), 0, Vec::new());
        for (name, value) in values {
            match bytes(value) {
                Ok(key) => match keys.0.get_mut(count) {
                    Some(slot) => {
                        *slot = keyed(&key);
                        count += 1;
                    }
                    None => problems.push(format!("{name}: only {MOST_KEYS} keys count")),
                },
                Err(why) => problems.push(format!("{name}: {why}")),
            }
        }
        if count == 0 && problems.is_empty() {
            problems.push("there is no key in it".to_owned());
        }
        (keys, problems)
    }
}

fn bytes(value: &str) -> Result<Vec<u8>, &'static str> {
    let value = value.trim_end_matches(['\r', '\n']);
    let key = match value.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| "what follows whsec_ is not base64")?,
        None => value.as_bytes().to_vec(),
    };
    if key.len() < SHORTEST_KEY { Err("a key has at least 24 bytes") } else { Ok(key) }
}

/// HMAC with a key of any length (RFC 2104): a long one counts by its hash, a short one as if zeros followed.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; BLOCK];
    match block.get_mut(..key.len()) {
        Some(start) => start.copy_from_slice(key),
        None => block[..DIGEST].copy_from_slice(&Sha256::digest(key)),
    }
    Hmac::new(&block.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn keys(values: &[&str]) -> Keys {
        let (keys, problems) = Keys::new(values.iter().map(|value| ("key", *value)));
        assert!(problems.is_empty(), "{problems:?}");
        keys
    }

    fn sign(key: &str, id: &str, timestamp: i64, payload: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(message(keyed(&bytes(key).unwrap()), id, timestamp, payload)))
    }

    #[test]
    fn t4_the_example_of_standard_webhooks_verifies() {
        let claim =
            Claim::parse("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let claim = claim.unwrap();
        assert!(claim.is_signed(&keys(&[KEY]), br#"{"test": 2432232314}"#));
        assert!(!claim.is_signed(&keys(&[KEY]), br#"{"test": 2432232315}"#));
        assert!(!claim.is_signed(&Keys::nobodys(), br#"{"test": 2432232314}"#));
    }

    #[test]
    fn t4_every_key_counts_and_every_signature_is_tried() {
        let (old, new) = ("an old key of twenty-four bytes", "a new key of twenty-four bytes");
        let signed_by = |key: &str| sign(key, "a", 7, b"x");
        let both = keys(&[old, new]);
        for signatures in [
            signed_by(old),
            signed_by(new),
            format!("v1a,xx {} {}", sign("k".repeat(24).as_str(), "a", 7, b"x"), signed_by(new)),
        ] {
            assert!(Claim::parse("a", "7", &signatures).unwrap().is_signed(&both, b"x"), "{signatures}");
        }
        assert!(
            !Claim::parse("a", "7", &signed_by(old)).unwrap().is_signed(&keys(&[new]), b"x"),
            "a key that was taken out"
        );
    }

    #[test]
    fn t4_id_timestamp_and_payload_are_covered() {
        let signature = sign(KEY, "a", 7, b"x");
        for (id, timestamp, payload) in [("b", "7", "x"), ("a", "8", "x"), ("a", "7", "y"), ("a", "7", "")] {
            let claim = Claim::parse(id, timestamp, &signature).unwrap();
            assert!(!claim.is_signed(&keys(&[KEY]), payload.as_bytes()), "{id} {timestamp} {payload}");
        }
    }

    #[test]
    fn t4_five_minutes_are_the_window_in_both_directions() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |second: i64| Claim::parse("a", &second.to_string(), &sign(KEY, "a", second, b"")).unwrap().is_timely(now);
        assert!(at(1_800_000_000 - 300) && at(1_800_000_000 + 300));
        assert!(!at(1_800_000_000 - 301) && !at(1_800_000_000 + 301) && !at(0));
    }

    #[test]
    fn headers_that_are_none_are_refused() {
        let good = sign(KEY, "a", 7, b"x");
        let many = format!("{good} ").repeat(17);
        let long = "i".repeat(129);
        for (id, timestamp, signature) in [
            ("", "7", good.as_str()),
            ("a.b", "7", &good),
            ("a b", "7", &good),
            ("ä", "7", &good),
            (&long, "7", &good),
            ("a", "", &good),
            ("a", "+7", &good),
            ("a", "-7", &good),
            ("a", "07", &good),
            ("a", "7.0", &good),
            ("a", "9999999999999999", &good),
            ("a", "7", ""),
            ("a", "7", "v1"),
            ("a", "7", "v1,"),
            ("a", "7", "v1,AAAA"),
            ("a", "7", &good.replace("v1,", "v2,")),
            ("a", "7", &many),
        ] {
            assert!(Claim::parse(id, timestamp, signature).is_err(), "{id:?} {timestamp:?} {signature:?}");
        }
    }

    #[test]
    fn a_header_given_twice_is_refused() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("webhook-id", "a"), ("webhook-timestamp", "7"), ("webhook-signature", &sign(KEY, "a", 7, b"x"))]
        {
            headers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        assert!(Claim::from_headers(&headers).is_ok());
        headers.append("webhook-id", "b".parse().unwrap());
        assert!(Claim::from_headers(&headers).is_err());
    }

    #[test]
    fn short_broken_and_surplus_keys_are_named_and_never_count() {
        let (keys, problems) = Keys::new([("short", "x"), ("odd", "whsec_!"), ("brief", "whsec_AAAA"), ("good", KEY)]);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(["short", "odd", "brief"].iter().all(|name| problems.iter().any(|problem| problem.starts_with(name))));
        assert!(!problems.iter().any(|problem| problem.contains("AAAA")));
        assert!(Claim::parse("a", "7", &sign(KEY, "a", 7, b"x")).unwrap().is_signed(&keys, b"x"));
        assert_eq!(Keys::new([]).1.len(), 1, "an empty Secret is a problem");
        let nine: Vec<String> = (0..9).map(|n| format!("key number {n} of twenty-four")).collect();
        assert_eq!(Keys::new(nine.iter().map(|key| ("k", key.as_str()))).1, ["k: only 8 keys count"]);
        assert_eq!(format!("{:?}", Keys::nobodys()), "Keys([redacted])");
    }

    #[test]
    fn keys_of_every_length_give_what_other_implementations_give() {
        for length in [24, 63, 64, 65, 200] {
            let key = "k".repeat(length);
            let theirs = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap().chain_update("a.7.x").finalize();
            assert_eq!(
                message(keyed(key.as_bytes()), "a", 7, b"x"),
                <[u8; 32]>::from(theirs.into_bytes()),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_line_end_that_an_editor_left_is_not_part_of_the_key() {
        let signature = sign(KEY, "a", 7, b"x");
        assert!(Claim::parse("a", "7", &signature).unwrap().is_signed(&keys(&[&format!("{KEY}\n")]), b"x"));
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panicking(id in ".{0,140}", timestamp in ".{0,20}", signatures in ".{0,300}") {
            let _ = Claim::parse(&id, &timestamp, &signatures);
        }

        #[test]
        fn t4_only_who_has_the_key_can_sign(key in "[ -~]{24,40}", other in "[ -~]{24,40}", id in "[a-z]{1,9}", at in 0..9_999_999_i64, payload in any::<Vec<u8>>()) {
            prop_assume!(key != other);
            let claim = Claim::parse(&id, &at.to_string(), &sign(&key, &id, at, &payload)).unwrap();
            prop_assert!(claim.is_signed(&keys(&[&key]), &payload));
            prop_assert!(!claim.is_signed(&keys(&[&other]), &payload));
        }
    }
}
