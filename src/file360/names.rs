//! How File 360 compares names of files, folders and people.

use unicode_normalization::UnicodeNormalization;

/// Two names are the same to File 360 if their folded forms are: without case, and with equal results for equivalent sequences (NFC).
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    // Through upper case first: `ß` and `SS`, or final and inner sigma, meet only there.
    name.nfc().collect::<String>().to_uppercase().to_lowercase().nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_names_meet() {
        for (one, other) in [("INBOX", "Inbox"), ("E\u{301}TE\u{301}", "\u{e9}t\u{e9}"), ("STRASSE", "straße")] {
            assert_eq!(fold(one), fold(other));
        }
        assert_ne!(fold("a"), fold("\u{e1}"));
    }
}
