//! Names of objects, made safe for the store they go to. Pure.
//!
//! A key comes from an expression over untrusted names. It is cut at `/`, put into Unicode's composed form (NFC), and what could leave
//! the root, mislead a reader or clash is written as `%` and two upper-case hexadecimal digits of its UTF-8 bytes. [`decode`] gives the text
//! back, so nobody loses a name, and two texts never get one name.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;

/// Longest key, in bytes of its encoded form: what S3 takes.
pub const MAX_KEY: usize = 1024;
/// Longest segment for file systems, in bytes of its encoded form.
pub const MAX_SEGMENT: usize = 255;
/// What files of the operator's own start with, in any case. No key's segment does.
pub const RESERVED: &str = ".file360";

/// What the store can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Object stores: names are text, and case counts.
    Object,
    /// File systems of any operating system.
    Portable,
}

/// The name of an object: relative, without `.`, `..`, empty segments and controls.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

/// Why a text gives no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Nothing is left.
    #[error("the key is empty")]
    Empty,
    /// Too long as a whole.
    #[error("the key has {0} bytes when encoded; at most {MAX_KEY} are possible")]
    TooLong(usize),
    /// One part is too long.
    #[error("one part of the key has {0} bytes when encoded; file systems take at most {MAX_SEGMENT}")]
    SegmentTooLong(usize),
}

impl Key {
    /// The name for `text`. `decode` of it is `text` in composed form.
    pub fn new(text: &str, rules: Rules) -> Result<Self, Unusable> {
        if text.is_empty() {
            return Err(Unusable::Empty);
        }
        // Before any work is done on it: composing never shortens a text to less than a third.
        if text.len() > MAX_KEY * 3 {
            return Err(Unusable::TooLong(text.len()));
        }
        let composed: String = text.nfc().collect();
        let mut encoded = String::with_capacity(composed.len() + 16);
        for (n, segment) in composed.split('/').enumerate() {
            if n > 0 {
                encoded.push('/');
            }
            let before = encoded.len();
            encode_segment(segment, rules, &mut encoded);
            let length = encoded.len() - before;
            if rules == Rules::Portable && length > MAX_SEGMENT {
                return Err(Unusable::SegmentTooLong(length));
            }
        }
        if encoded.len() > MAX_KEY { Err(Unusable::TooLong(encoded.len())) } else { Ok(Self(encoded)) }
    }

    /// The name as the store gets it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same for all names that a file system without case would take for one.
    pub fn folded(&self) -> String {
        self.0.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfc().collect()
    }

    /// Another name for the same text, for when a name that differs only in case is taken: capitals of the last segment are encoded; where
    /// there are none, its first letter. [`decode`] gives the same text. `None` when that gets too long, or nothing has case.
    pub fn apart(&self) -> Option<Self> {
        let at = self.0.rfind('/').map_or(0, |at| at + 1);
        let (folder, name) = self.0.split_at(at);
        let has_capitals = letters(name).any(|(c, escaped)| !escaped && c.is_uppercase());
        let mut result = folder.to_owned();
        let mut done = false;
        for (c, escaped) in letters(name) {
            let has_case = c.is_uppercase() || c.to_uppercase().next() != Some(c);
            if !escaped && (if has_capitals { c.is_uppercase() } else { has_case && !done }) {
                escape(c, &mut result);
                done = true;
            } else {
                result.push(c);
            }
        }
        let fits = result.len() <= MAX_KEY && result.len() - at <= MAX_SEGMENT;
        (done && fits).then_some(Self(result))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The text that an encoded name stands for: the inverse of [`Key::new`]. What no encoding made stays as it is.
pub fn decode(name: &str) -> String {
    let segments: Vec<String> = name.split('/').map(decode_segment).collect();
    segments.join("/")
}

/// Whether a name that a store listed can be asked for: it has no `.` or `..` segment, which programs on the way would resolve, and no
/// NUL. Names with a reserved segment are the operator's own.
pub fn is_addressable(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0') && !name.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether a segment is for files of the operator's own.
pub fn is_reserved(segment: &str) -> bool {
    segment.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

fn encode_segment(segment: &str, rules: Rules, out: &mut String) {
    match segment {
        // A lone `%` is never literal: see `must_escape`.
        "" => return out.push('%'),
        "." => return out.push_str("%2E"),
        ".." => return out.push_str("%2E%2E"),
        _ => {}
    }
    let first = rules == Rules::Portable && (is_device(segment) || is_reserved(segment));
    let last = segment.len() - segment.chars().next_back().map_or(0, char::len_utf8);
    for (at, c) in segment.char_indices() {
        let ends_badly = rules == Rules::Portable && at == last && matches!(c, '.' | ' ');
        if must_escape(c, &segment[at..], segment.len() == 1, rules) || (first && at == 0) || ends_badly {
            escape(c, out);
        } else {
            out.push(c);
        }
    }
}

/// `rest` begins with `c`; `alone`: the segment is nothing but `c`.
fn must_escape(c: char, rest: &str, alone: bool, rules: Rules) -> bool {
    match c {
        // Only where it would read as an encoding; `100% done` stays as it is.
        '%' => alone || rest.as_bytes().get(1..3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => rules == Rules::Portable,
        _ => c.is_control() || misleads(c),
    }
}

/// Characters without a shape that change how the text around them reads: bidirectional controls, separators, invisible ones.
fn misleads(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' | '\u{fffe}' | '\u{ffff}')
}

/// Names that Windows takes for devices, whatever follows the first dot.
fn is_device(segment: &str) -> bool {
    let stem = segment.split('.').next().unwrap_or_default().trim_end_matches(' ').to_ascii_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let number = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    number.is_some_and(|number| {
        let mut digits = number.chars();
        matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    })
}

fn escape(c: char, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut bytes = [0; 4];
    for &byte in c.encode_utf8(&mut bytes).as_bytes() {
        out.push('%');
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// The characters of an encoded name, each with whether it belongs to an escape.
fn letters(name: &str) -> impl Iterator<Item = (char, bool)> {
    let mut escaped_until = 0;
    name.char_indices().map(move |(at, c)| {
        if at >= escaped_until && escape_at(name.as_bytes(), at).is_some() {
            escaped_until = at + 3;
        }
        (c, at < escaped_until)
    })
}

fn escape_at(name: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| match name.get(at)? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    if name.get(at) == Some(&b'%') { Some((digit(at + 1)? << 4) | digit(at + 2)?) } else { None }
}

fn decode_segment(segment: &str) -> String {
    if segment == "%" {
        return String::new();
    }
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if let Some(byte) = escape_at(bytes, at) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    // Somebody else's name may decode to no text; then it stands for itself.
    String::from_utf8(decoded).unwrap_or_else(|_| segment.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn portable(text: &str) -> String {
        Key::new(text, Rules::Portable).unwrap().0
    }

    fn object(text: &str) -> String {
        Key::new(text, Rules::Object).unwrap().0
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in [
            "claims/4711/Foto 1.jpg",
            "100% done.pdf",
            "Straße/日本語.txt",
            ".hidden",
            "a.b.c",
            "-rf",
            "%.txt",
            "console.log",
        ] {
            assert_eq!(portable(name), name);
            assert_eq!(object(name), name);
        }
        assert_eq!(object("a\\b:c?.txt"), "a\\b:c?.txt", "object stores take what file systems do not");
    }

    #[test]
    fn r6_no_name_leaves_the_root() {
        for (text, name) in [
            ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
            ("/etc/passwd", "%/etc/passwd"),
            ("a//b", "a/%/b"),
            ("a/", "a/%"),
            ("./a", "%2E/a"),
            ("..%2f..%2Fx", "..%252f..%252Fx"),
            ("a\0b", "a%00b"),
            ("a\r\nb", "a%0D%0Ab"),
            ("a\u{202e}b", "a%E2%80%AEb"),
        ] {
            assert_eq!(object(text), name);
            assert_eq!(portable(text), name);
            assert_eq!(decode(name), text);
        }
    }

    #[test]
    fn r6_names_that_windows_cannot_hold_are_encoded() {
        for (text, name) in [
            ("CON", "%43ON"),
            ("nul.tar.gz", "%6Eul.tar.gz"),
            ("com1 .txt", "%63om1 .txt"),
            ("LPT³", "%4CPT³"),
            ("dot.", "dot%2E"),
            ("space ", "space%20"),
            ("..\\x", "..%5Cx"),
            ("a:b", "a%3Ab"),
            (".file360/claims", "%2Efile360/claims"),
            (".FILE360-x.part", "%2EFILE360-x.part"),
        ] {
            assert_eq!(portable(text), name);
            assert_eq!(decode(name), text);
        }
    }

    #[test]
    fn r6_names_that_differ_in_case_get_names_that_do_not() {
        let keys: Vec<Key> =
            ["d/Case.txt", "d/case.txt", "d/CASE.txt"].map(|text| Key::new(text, Rules::Portable).unwrap()).into();
        assert!(keys.iter().all(|key| key.folded() == keys[0].folded()));
        let apart: Vec<Key> = keys.iter().map(|key| key.apart().unwrap()).collect();
        assert_eq!(
            apart.iter().map(Key::as_str).collect::<Vec<_>>(),
            ["d/%43ase.txt", "d/%63ase.txt", "d/%43%41%53%45.txt"]
        );
        assert!(Key::new("1234", Rules::Portable).unwrap().apart().is_none(), "nothing has case");
    }

    #[test]
    fn what_is_too_long_is_refused_and_not_shortened() {
        assert_eq!(Key::new("", Rules::Object), Err(Unusable::Empty));
        assert_eq!(Key::new(&"x".repeat(1025), Rules::Object), Err(Unusable::TooLong(1025)));
        assert_eq!(Key::new(&"x".repeat(256), Rules::Portable), Err(Unusable::SegmentTooLong(256)));
        assert!(Key::new(&"x".repeat(1024), Rules::Object).is_ok());
        assert!(matches!(Key::new(&"d/".repeat(100_000), Rules::Object), Err(Unusable::TooLong(_))));
        assert!(matches!(Key::new(&"\u{1}".repeat(100), Rules::Portable), Err(Unusable::SegmentTooLong(300))));
    }

    #[test]
    fn what_a_store_lists_is_asked_for_only_when_it_stays_what_it_is() {
        assert!(is_addressable("a//b/ c"));
        for name in ["", "a/../b", "./a", "..", "a\0"] {
            assert!(!is_addressable(name), "{name:?}");
        }
    }

    /// Texts with many of the characters that matter.
    fn hostile() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => "[a-cA-C%/. \\\\0-9]{0,6}",
            2 => prop::sample::select(vec!["..", ".", "/", "//", "%2F", "%2e", "CON", "nul.", "\0", "\r\n", "\u{202e}", "e\u{301}", ".file360", "ẞß"]).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn r6_every_name_decodes_to_its_text(text in hostile()) {
            for rules in [Rules::Object, Rules::Portable] {
                if let Ok(key) = Key::new(&text, rules) {
                    let composed: String = text.nfc().collect();
                    prop_assert_eq!(decode(key.as_str()), composed.clone());
                    if let Some(apart) = key.apart() {
                        prop_assert_eq!(decode(apart.as_str()), composed);
                        prop_assert_ne!(apart.folded(), key.folded());
                    }
                }
            }
        }

        #[test]
        fn r6_every_name_is_safe(text in hostile()) {
            for rules in [Rules::Object, Rules::Portable] {
                let Ok(key) = Key::new(&text, rules) else { continue };
                prop_assert!(key.as_str().len() <= MAX_KEY);
                prop_assert!(!key.as_str().chars().any(|c| c.is_control() || misleads(c)));
                for segment in key.as_str().split('/') {
                    prop_assert!(!matches!(segment, "" | "." | ".."));
                    if rules == Rules::Portable {
                        prop_assert!(segment.len() <= MAX_SEGMENT && !segment.ends_with(['.', ' ']));
                        prop_assert!(!segment.contains(['\\', ':', '*', '?', '"', '<', '>', '|']));
                        prop_assert!(!is_device(segment) && !is_reserved(segment));
                    }
                }
            }
        }

        #[test]
        fn r6_names_that_clash_without_case_do_not_clash_when_kept_apart(a in "[aAbB]{1,4}", b in "[aAbB]{1,4}") {
            let (one, two) = (Key::new(&a, Rules::Portable).unwrap(), Key::new(&b, Rules::Portable).unwrap());
            if a != b {
                let (one, two) = (one.apart().unwrap(), two.apart().unwrap());
                prop_assert_ne!(one.folded(), two.folded());
            }
        }

        #[test]
        fn decoding_never_fails(name in any::<String>()) {
            decode(&name);
        }
    }
}
