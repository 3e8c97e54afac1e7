//! What senders call things: file names, metadata, media types. All of it is untrusted (R6).

use std::collections::BTreeMap;

use http::HeaderMap;
use unicode_normalization::UnicodeNormalization;

/// Longest file name in bytes of UTF-8.
const LONGEST_NAME: usize = 255;
/// Longest extension that a name keeps when it is cut.
const LONGEST_EXTENSION: usize = 32;
/// Most metadata entries.
const MOST_ENTRIES: usize = 64;
/// Longest name of an entry, in characters.
const LONGEST_KEY: usize = 128;
/// Longest value of an entry, in characters.
const LONGEST_VALUE: usize = 1024;
/// What headers with metadata start with.
const PREFIX: &str = "x-metadata-";

/// A name for a file: the last segment of what the sender gave, in Unicode's composed form, without separators, control characters and marks
/// that reorder text, at most 255 bytes. The same for the same input; `fallback` when nothing is left.
pub fn file_name(given: &str, fallback: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.nfc().map(|c| if is_unprintable(c) { '_' } else { c }).collect();
    let plain = plain.trim();
    if plain.is_empty() || plain == "." || plain == ".." {
        // An id has no separators but these.
        return fallback.replace(['/', '\\'], "_");
    }
    shortened(plain)
}

/// Control characters, line separators, and marks that reorder or hide text.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Cut to the longest length, with its extension.
fn shortened(name: &str) -> String {
    if name.len() <= LONGEST_NAME {
        return name.to_owned();
    }
    let extension = name.rfind('.').map_or("", |at| &name[at..]);
    let extension = if extension.len() <= LONGEST_EXTENSION { extension } else { "" };
    let stem = &name[..name.len() - extension.len()];
    let stem = &stem[..stem.floor_char_boundary(LONGEST_NAME - extension.len())];
    format!("{}{extension}", stem.trim_end())
}

/// The media type, if it is one that may stand in a header; else that of bytes.
pub fn media_type(given: Option<&str>) -> String {
    let plain = |value: &&str| {
        value.len() <= 255
            && value.split_once('/').is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty())
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+-._;= \"".contains(&byte))
    };
    given.map(str::trim).filter(plain).unwrap_or("application/octet-stream").to_owned()
}

/// Metadata as it is gathered: bounded, no name twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(BTreeMap<String, String>);

/// Why metadata cannot be taken.
pub type Unfit = String;

impl Metadata {
    /// Adds one entry.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), Unfit> {
        let shown: String = name.chars().filter(|c| !is_unprintable(*c)).take(64).collect();
        if name.trim().is_empty() || name.chars().count() > LONGEST_KEY || name.chars().any(is_unprintable) {
            return Err(format!("`{shown}` cannot be the name of metadata: 1 to {LONGEST_KEY} printable characters."));
        }
        if value.chars().count() > LONGEST_VALUE || value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            return Err(format!("The value of `{shown}` has more than {LONGEST_VALUE} characters, or control characters."));
        }
        if self.0.len() == MOST_ENTRIES {
            return Err(format!("There are more than {MOST_ENTRIES} metadata entries."));
        }
        if self.0.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("`{shown}` is given twice."));
        }
        Ok(())
    }

    /// Adds every header `X-Metadata-<name>`. Names are in lower case, since headers do not tell cases apart; values are UTF-8.
    pub fn add_headers(&mut self, headers: &HeaderMap) -> Result<(), Unfit> {
        for (header, value) in headers {
            let Some(name) = header.as_str().strip_prefix(PREFIX) else { continue };
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| format!("The value of `{name}` is not UTF-8."))?;
            self.add(name, value.trim())?;
        }
        Ok(())
    }

    /// The entries.
    pub fn into_entries(self) -> BTreeMap<String, String> {
        self.0
    }
}

/// Adds what the query says: `metadata[<name>]=<value>`. Returns `name`, the file's name. Other parameters are refused.
pub fn read_query(query: &str, metadata: &mut Metadata) -> Result<Option<String>, Unfit> {
    let mut file_name = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if let Some(key) = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) {
            metadata.add(key, &value)?;
        } else if name == "name" && file_name.is_none() {
            file_name = Some(value.into_owned());
        } else {
            let shown: String = name.chars().filter(|c| !is_unprintable(*c)).take(64).collect();
            return Err(format!("The parameter `{shown}` is unknown or given twice; there are name and metadata[…]."));
        }
    }
    Ok(file_name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::names::file_name as server_takes;

    #[test]
    fn r6_hostile_names_become_plain_ones() {
        let long = format!("{}.pdf", "ä".repeat(200));
        let no_stem = format!("a.{}", "x".repeat(300));
        for (given, expected) in [
            ("invoice.pdf", "invoice.pdf".to_owned()),
            ("../../etc/passwd", "passwd".to_owned()),
            ("C:\\Users\\x\\a.pdf", "a.pdf".to_owned()),
            ("a\0b\r\nc.pdf", "a_b__c.pdf".to_owned()),
            ("\u{202e}fdp.exe", "_fdp.exe".to_owned()),
            ("  a.pdf ", "a.pdf".to_owned()),
            ("e\u{301}t\u{e9}.pdf", "\u{e9}t\u{e9}.pdf".to_owned()),
            ("CON", "CON".to_owned()),
            ("", "msg_1".to_owned()),
            ("/", "msg_1".to_owned()),
            ("..", "msg_1".to_owned()),
            (" . ", "msg_1".to_owned()),
            (&long, format!("{}.pdf", "ä".repeat(125))),
            (&no_stem, no_stem[..255].to_owned()),
        ] {
            assert_eq!(file_name(given, "msg_1"), expected, "{given:?}");
        }
        assert_eq!(file_name("", "a/b\\c"), "a_b_c");
    }

    #[test]
    fn metadata_comes_from_headers_and_query_and_is_bounded() {
        let mut headers = HeaderMap::new();
        headers.append("X-Metadata-Invoice-Number", "47 ".parse().unwrap());
        headers.append("x-metadata-kind", http::HeaderValue::from_bytes("Gebühr".as_bytes()).unwrap());
        headers.append("x-other", "no".parse().unwrap());
        let mut metadata = Metadata::default();
        metadata.add_headers(&headers).unwrap();
        let name =
            read_query("name=a%2Fb.pdf&metadata%5BinvoiceDate%5D=2026-01-01&metadata[x%20y]=%C3%BC", &mut metadata).unwrap();
        assert_eq!(name.as_deref(), Some("a/b.pdf"));
        let entries: Vec<_> = metadata.clone().into_entries().into_iter().collect();
        let expected = [("invoice-number", "47"), ("invoiceDate", "2026-01-01"), ("kind", "Gebühr"), ("x y", "ü")];
        assert_eq!(entries, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for query in
            ["metadata[kind]=twice", "metadata[]=x", "metadata[a]=%00", "nmae=x", "name=a&name=b", "metadata[a%0a]=x"]
        {
            assert!(read_query(query, &mut metadata.clone()).is_err(), "{query}");
        }
        assert!(metadata.add("long", &"x".repeat(1025)).is_err());
        let mut full = Metadata::default();
        (0..64).for_each(|n| full.add(&n.to_string(), "").unwrap());
        assert!(full.add("one more", "").is_err());
        let mut latin = HeaderMap::new();
        latin.append("x-metadata-a", http::HeaderValue::from_bytes(b"\xe9").unwrap());
        assert!(Metadata::default().add_headers(&latin).is_err());
    }

    #[test]
    fn media_types_that_could_disturb_a_header_are_bytes() {
        assert_eq!(media_type(Some("text/plain; charset=utf-8")), "text/plain; charset=utf-8");
        for odd in [None, Some(""), Some("pdf"), Some("/"), Some("a/b\r\nx: y"), Some("text/<script>")] {
            assert_eq!(media_type(odd), "application/octet-stream", "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn r6_every_name_that_comes_out_is_one_that_file_360_takes(given in any::<String>(), fallback in "[A-Za-z0-9/_:~+=@-]{1,128}") {
            prop_assume!(fallback != "." && fallback != "..");
            let name = file_name(&given, &fallback);
            prop_assert!(server_takes(&name, "name").is_ok(), "{:?}", name);
            prop_assert_eq!(file_name(&name, &fallback), name, "cleaning twice is cleaning once");
        }

        #[test]
        fn any_query_is_read_without_panicking(query in ".{0,300}") {
            let _ = read_query(&query, &mut Metadata::default());
        }
    }
}
