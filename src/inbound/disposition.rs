//! `Content-Disposition` (RFC 6266, RFC 7578, RFC 8187): the names that senders give to parts and files.

use percent_encoding::percent_decode_str;

/// What the header says. Names are untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disposition {
    /// `name`: of a form's field.
    pub name: Option<String>,
    /// `filename*` if it can be read, else `filename`.
    pub file_name: Option<String>,
}

/// Most parameters that are looked at.
const MOST_PARAMETERS: usize = 16;

/// Reads a header's value. What cannot be read is absent.
pub fn parse(value: &[u8]) -> Disposition {
    // Browsers send UTF-8, older programs ISO 8859-1.
    let value = std::str::from_utf8(value).map_or_else(|_| value.iter().copied().map(char::from).collect(), str::to_owned);
    let Some((_, mut rest)) = value.split_once(';') else { return Disposition::default() };
    let mut found = Disposition::default();
    let mut extended = None;
    for _ in 0..MOST_PARAMETERS {
        let Some((name, parameter, after)) = next(rest) else { break };
        match name.as_str() {
            "name" if found.name.is_none() => found.name = Some(parameter),
            "filename" if found.file_name.is_none() => found.file_name = Some(parameter),
            "filename*" if extended.is_none() => extended = extended_value(&parameter),
            _ => {}
        }
        rest = after;
    }
    found.file_name = extended.or(found.file_name);
    found
}

/// The next parameter: its name in lower case, its value, and what follows.
fn next(rest: &str) -> Option<(String, String, &str)> {
    let rest = rest.trim_start_matches([';', ' ', '\t']);
    let (name, rest) = rest.split_once('=')?;
    let rest = rest.trim_start_matches([' ', '\t']);
    let (value, rest) = match rest.strip_prefix('"') {
        Some(rest) => quoted(rest)?,
        None => {
            let (value, rest) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
            (value.trim().to_owned(), rest)
        }
    };
    Some((name.trim().to_ascii_lowercase(), value, rest))
}

/// A quoted string up to its end. A backslash before anything but `"` and `\` stands for itself: some senders quote whole Windows paths.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    None
}

/// `UTF-8'language'percent-encoded`, or with ISO-8859-1.
fn extended_value(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file_name(value: &str) -> Option<String> {
        parse(value.as_bytes()).file_name
    }

    #[test]
    fn file_names_are_read_as_programs_send_them() {
        for (value, expected) in [
            ("attachment; filename=a.pdf", "a.pdf"),
            ("attachment;filename=\"a b.pdf\"", "a b.pdf"),
            ("attachment; FileName = \"a.pdf\" ; x=y", "a.pdf"),
            (r#"attachment; filename="a \"b\" \\ c.pdf""#, r#"a "b" \ c.pdf"#),
            (r#"form-data; name="f"; filename="C:\dir\a.pdf""#, r"C:\dir\a.pdf"),
            ("attachment; filename=\"Gebühr;x.pdf\"", "Gebühr;x.pdf"),
            ("attachment; filename=\"EURO.pdf\"; filename*=UTF-8''%e2%82%ac.pdf", "€.pdf"),
            ("attachment; filename*=utf-8'de'%e2%82%ac.pdf; filename=x", "€.pdf"),
            ("attachment; filename*=iso-8859-1''%A3.pdf", "£.pdf"),
            ("attachment; filename*=koi8-r''%A3.pdf; filename=b", "b"),
            ("attachment; filename*=UTF-8''%ff; filename=b", "b"),
            ("attachment; filename=../../etc/passwd", "../../etc/passwd"),
        ] {
            assert_eq!(file_name(value).as_deref(), Some(expected), "{value}");
        }
        assert_eq!(parse(b"attachment; filename=\"caf\xe9.pdf\"").file_name.as_deref(), Some("café.pdf"));
    }

    #[test]
    fn a_field_has_a_name_and_what_is_broken_is_absent() {
        let field = parse(br#"form-data; name="documentType""#);
        assert_eq!(field, Disposition { name: Some("documentType".into()), file_name: None });
        for value in ["", "attachment", "attachment;", "attachment; filename", "attachment; filename=\"a", "filename=a.pdf"]
        {
            assert_eq!(file_name(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panicking(value in any::<Vec<u8>>(), text in "form-data(; ?(file)?name\\*?=[\"'%a-f0-9\\\\;é]{0,9}){0,20}") {
            let _ = parse(&value);
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn every_name_survives_quoting(name in "[^\"\\\\\\p{C}]{0,40}") {
            prop_assert_eq!(file_name(&format!("attachment; filename=\"{name}\"")), Some(name));
        }
    }
}
