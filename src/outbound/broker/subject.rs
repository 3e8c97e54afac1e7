//! Subjects of messages.

use std::fmt;

use crate::error::{Error, Kind, Result};

/// Longest subject, in bytes.
const MAX_LENGTH: usize = 255;

/// A subject that a message can be published under: no wildcard, no blank, no empty token, not one of the server's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(String);

impl Subject {
    /// Makes one of a text that is not trusted. What means something to the server, blanks, control and invisible characters become `_`. Tokens are
    /// separated by `.`; an empty one, and more than 255 bytes, are refused. So are subjects whose first token starts with `$`: they
    /// address the server itself, such as its JetStream API.
    pub fn new(text: &str) -> Result<Self> {
        let refused = |why: &str| Err(Error::new(Kind::Rejected, format!("the subject {why}")));
        let clean: String = text.chars().map(|c| if is_special(c) { '_' } else { c }).collect();
        if clean.is_empty() {
            return refused("is empty");
        }
        if clean.len() > MAX_LENGTH {
            return refused(&format!("has {} bytes; {MAX_LENGTH} are allowed", clean.len()));
        }
        if clean.split('.').any(str::is_empty) {
            return refused("has an empty part: it starts or ends with a dot, or has two in a row");
        }
        if clean.starts_with('$') {
            return refused("starts with $, which addresses the server itself");
        }
        Ok(Self(clean))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_special(c: char) -> bool {
    matches!(c, '*' | '>' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || c.is_whitespace()
        || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn r6_what_means_something_to_the_server_becomes_an_underscore() {
        for (text, subject) in [
            ("files.uploaded", "files.uploaded"),
            ("files.a b", "files.a_b"),
            ("files.*", "files._"),
            ("files.>", "files._"),
            ("files.x\r\nPUB other 3\r\nabc", "files.x__PUB_other_3__abc"),
            ("files.\u{202e}fdp", "files._fdp"),
            ("files.a\0b", "files.a_b"),
            ("files.\u{a0}x\u{2028}", "files._x_"),
            ("files.Übersicht-2026_final", "files.Übersicht-2026_final"),
            ("files.$x", "files.$x"),
        ] {
            assert_eq!(Subject::new(text).unwrap().as_str(), subject, "{text:?}");
        }
    }

    #[test]
    fn r6_subjects_with_empty_parts_or_of_the_server_itself_are_refused() {
        let long = "x".repeat(256);
        for text in ["", ".", "a.", ".a", "a..b", "$JS.API.STREAM.DELETE.files", "$SYS.x", &long] {
            assert_eq!(Subject::new(text).unwrap_err().kind, Kind::Rejected, "{text:?}");
        }
        assert!(Subject::new(&"x".repeat(255)).is_ok());
    }

    proptest! {
        #[test]
        fn r6_no_text_gives_a_subject_that_the_server_reads_otherwise(text in "\\PC{0,80}|[.*>$ a\\r\\n\\t]{0,12}") {
            if let Ok(subject) = Subject::new(&text) {
                prop_assert!(!subject.as_str().contains(['*', '>', ' ', '\r', '\n', '\t', '\0']));
                prop_assert!(subject.as_str().split('.').all(|token| !token.is_empty()));
                prop_assert_eq!(subject.as_str().split('.').count(), text.split('.').count(), "no token is added or lost");
            }
        }
    }
}
