//! CloudEvents 1.0.

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

/// Media type of an event in structured mode.
pub const MEDIA_TYPE: &str = "application/cloudevents+json";

/// What the HTTP binding (section 3.1.3.2) encodes in a header: all but printable ASCII, and space, double quote and percent.
const IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// What RFC 3986 calls unreserved stays as it is.
const IN_SOURCE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The attributes of an event. Texts may come from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened, such as `io.file360.file.uploaded`.
    pub kind: String,
    /// Where: a URI reference.
    pub source: String,
    /// Tells the event from every other of its source; the same when it is sent again.
    pub id: String,
    /// When it happened.
    pub time: Timestamp,
    /// What it happened to.
    pub subject: String,
}

impl Event {
    /// The event as one JSON document. Members of `extensions` stand beside the attributes.
    pub fn structured(&self, extensions: Map<String, Value>, data: Value) -> Value {
        let mut event = extensions;
        let attributes = json!({
            "specversion": "1.0",
            "type": self.kind,
            "source": self.source,
            "id": self.id,
            "time": self.time.to_string(),
            "subject": printable(&self.subject),
            "datacontenttype": "application/json",
        });
        if let Value::Object(attributes) = attributes {
            event.extend(attributes);
        }
        event.insert("data".into(), data);
        Value::Object(event)
    }

    /// The attributes as headers, for a body that is the data itself (binary mode).
    pub fn binary(&self) -> Vec<(HeaderName, HeaderValue)> {
        let time = self.time.to_string();
        let attributes = [
            ("ce-specversion", "1.0"),
            ("ce-type", &self.kind),
            ("ce-source", &self.source),
            ("ce-id", &self.id),
            ("ce-time", &time),
            ("ce-subject", &self.subject),
        ];
        let headers = attributes.into_iter().filter_map(|(name, value)| {
            let value = utf8_percent_encode(value, IN_HEADER).to_string();
            Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
        });
        headers.collect()
    }
}

/// The event as one JSON document; see [`Event`].
pub fn cloud_event(kind: &str, source: &str, id: &str, time: Timestamp, subject: &str, data: Value) -> Value {
    let event = Event { kind: kind.into(), source: source.into(), id: id.into(), time, subject: subject.into() };
    event.structured(Map::new(), data)
}

/// A source of these parts: `/file360/` and each part, percent-encoded.
pub fn source(parts: &[&str]) -> String {
    let parts = parts.iter().map(|part| utf8_percent_encode(part, IN_SOURCE).to_string());
    format!("/file360/{}", parts.collect::<Vec<_>>().join("/"))
}

/// Attributes have no control characters and no noncharacters (section 3.2). The data has the text as it is.
fn printable(text: &str) -> String {
    let encoded = |c: char| utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC).to_string();
    text.chars().map(|c| if is_disallowed(c) { encoded(c) } else { c.into() }).collect()
}

fn is_disallowed(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            kind: "io.file360.file.uploaded".into(),
            source: "/file360/c/n/r".into(),
            id: "k".into(),
            time: "2026-07-01T10:00:00Z".parse().unwrap(),
            subject: "/Inbox/Müller 100%\r\n\".pdf".into(),
        }
    }

    #[test]
    fn an_event_in_structured_mode_has_every_attribute_and_no_control_character() {
        let extensions = Map::from_iter([("dataref".to_owned(), json!("https://f/1")), ("id".to_owned(), json!("forged"))]);
        assert_eq!(
            event().structured(extensions, json!({"a": 1})),
            json!({
                "specversion": "1.0", "type": "io.file360.file.uploaded", "source": "/file360/c/n/r", "id": "k",
                "time": "2026-07-01T10:00:00Z", "subject": "/Inbox/Müller 100%%0D%0A\".pdf", "dataref": "https://f/1",
                "datacontenttype": "application/json", "data": {"a": 1},
            })
        );
    }

    #[test]
    fn r6_attributes_have_no_character_that_they_may_not_have() {
        let event = Event { subject: "/a\u{85}\u{fffe}\u{1ffff}\u{fdd0}ü".into(), ..event() };
        assert_eq!(event.structured(Map::new(), Value::Null)["subject"], "/a%C2%85%EF%BF%BE%F0%9F%BF%BF%EF%B7%90ü");
        assert_eq!(source(&["c1", "claims", "in/box ü"]), "/file360/c1/claims/in%2Fbox%20%C3%BC");
    }

    #[test]
    fn r6_in_binary_mode_a_name_is_encoded_reversibly() {
        let headers = event().binary();
        let (_, subject) = headers.iter().find(|(name, _)| name == "ce-subject").unwrap();
        assert_eq!(subject, "/Inbox/M%C3%BCller%20100%25%0D%0A%22.pdf");
        let decoded = percent_encoding::percent_decode(subject.as_bytes()).decode_utf8().unwrap().into_owned();
        assert_eq!(decoded, event().subject);
    }
}
