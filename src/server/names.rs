//! Names that come from outside: file names, paths, addresses; and the ids and secrets the server makes.

use std::fmt::Write as _;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use super::refusal::Refusal;

/// Longest file or folder name, in bytes of UTF-8.
pub const MAX_NAME: usize = 255;
/// Longest path, in characters.
pub const MAX_PATH: usize = 1024;
/// Deepest folder.
pub const MAX_DEPTH: usize = 64;

/// The name as it is stored (NFC), or why it cannot be one.
pub fn file_name(name: &str, pointer: &str) -> Result<String, Refusal> {
    let name: String = name.nfc().collect();
    let wrong = match name.as_str() {
        "" => "A name cannot be empty.",
        "." | ".." => "A name cannot be `.` or `..`.",
        _ if name.len() > MAX_NAME => "A name has at most 255 bytes.",
        _ if name.contains(['/', '\\']) => "A name has no slash and no backslash.",
        _ if name.chars().any(is_unprintable) => "A name has no control characters.",
        _ => return Ok(name),
    };
    Err(Refusal::new(422, "name-illegal", wrong).at(pointer, wrong))
}

/// Control characters, line separators, and the marks that reorder the text around them.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// How names compare: without case, and with equal results for equivalent sequences.
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    // Through upper case first: `ß` and `SS`, or final and inner sigma, meet only there.
    name.nfc().collect::<String>().to_uppercase().to_lowercase().nfc().collect()
}

/// The segments of an absolute path. `/` has none.
pub fn segments(path: &str, pointer: &str) -> Result<Vec<String>, Refusal> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(Refusal::invalid(pointer, "A path starts with `/`."));
    };
    if path.chars().count() > MAX_PATH {
        return Err(Refusal::invalid(pointer, "A path has at most 1024 characters."));
    }
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let segments = rest.split('/').map(|name| file_name(name, pointer)).collect::<Result<Vec<_>, _>>()?;
    if segments.len() > MAX_DEPTH {
        return Err(Refusal::invalid(pointer, "A path has at most 64 segments."));
    }
    Ok(segments)
}

/// Text for people: bounded, without control characters.
pub fn text(value: &str, max: usize, pointer: &str) -> Result<(), Refusal> {
    if value.chars().count() > max {
        return Err(Refusal::invalid(pointer, format!("At most {max} characters.")));
    }
    if value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(Refusal::invalid(pointer, "No control characters."));
    }
    Ok(())
}

/// Text that must not be empty.
pub fn required_text(value: &str, max: usize, pointer: &str) -> Result<(), Refusal> {
    if value.trim().is_empty() {
        return Err(Refusal::invalid(pointer, "Must not be empty."));
    }
    text(value, max, pointer)
}

/// The address in its one stored form: lower case, domain as A-label.
pub fn email(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let local_is_plain = !local.is_empty()
        && local.len() <= 64
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && local.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c));
    let domain = domain_name(domain)?;
    (local_is_plain && domain.contains('.')).then(|| format!("{}@{domain}", local.to_ascii_lowercase()))
}

/// A domain as A-label in lower case.
pub fn domain_name(domain: &str) -> Option<String> {
    let ascii = idna::domain_to_ascii_strict(domain).ok()?;
    let well_formed = !ascii.is_empty()
        && ascii.len() <= 253
        && ascii.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        });
    well_formed.then(|| ascii.to_ascii_lowercase())
}

/// A domain pattern of a sharing rule: a domain, or `*.` and a domain.
pub fn domain_pattern(pattern: &str) -> Option<String> {
    match pattern.strip_prefix("*.") {
        Some(rest) => domain_name(rest).map(|domain| format!("*.{domain}")),
        None => domain_name(pattern),
    }
}

/// Whether the address's domain is one of the patterns.
pub fn domain_matches(patterns: &[String], address: &str) -> bool {
    let Some((_, domain)) = address.rsplit_once('@') else { return false };
    patterns.iter().any(|pattern| match pattern.strip_prefix('*') {
        Some(suffix) => domain.len() > suffix.len() && domain.ends_with(suffix),
        None => domain == pattern,
    })
}

/// An opaque id: a letter for the kind, the time, and 80 random bits, so that ids of one kind sort by age.
pub fn id(kind: char, now: Timestamp) -> String {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or_default() & 0xffff_ffff_ffff;
    let random: u128 = rand::random();
    format!("{kind}{millis:012x}{:020x}", random >> 48)
}

/// 256 random bits as URL-safe text.
pub fn secret() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused_and_equivalent_ones_meet() {
        for name in ["", ".", "..", "a/b", "a\\b", "a\0b", "a\nb", "\u{202e}fdp.exe", &"x".repeat(256)] {
            assert_eq!(file_name(name, "/name").unwrap_err().code(), "name-illegal", "{name:?}");
        }
        assert_eq!(file_name("e\u{301}t\u{e9}.pdf", "/name").unwrap(), "\u{e9}t\u{e9}.pdf");
        assert_eq!(fold("STRASSE"), fold("straße"));
        assert_eq!(fold("E\u{301}"), fold("\u{e9}"));
    }

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(email("Bob@BÜCHER.example").as_deref(), Some("bob@xn--bcher-kva.example"));
        for wrong in ["bob", "@acme.com", "bob@", "bob@acme", "b ob@acme.com", "bob@acme.com\r\nBcc: x@y.z", "a..b@acme.com"]
        {
            assert_eq!(email(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_star_means_subdomains_only() {
        let patterns = ["acme.com".to_owned(), "*.corp.example".to_owned()];
        assert!(domain_matches(&patterns, "a@acme.com"));
        assert!(domain_matches(&patterns, "a@x.corp.example"));
        for other in ["a@evilacme.com", "a@corp.example", "a@x.acme.com", "a@evilcorp.example"] {
            assert!(!domain_matches(&patterns, other), "{other}");
        }
    }
}
