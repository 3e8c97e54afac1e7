//! CloudEvents 1.0 in structured JSON.

use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// Media type of an event.
pub const MEDIA_TYPE: &str = "application/cloudevents+json";

/// What stands around the data of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Tells the event from every other of its source; the same when it is sent again.
    pub id: String,
    /// Where it happened: a URI reference, see [`source`].
    pub source: String,
    /// What happened, such as `io.file360.file.uploaded`.
    pub kind: String,
    /// What it happened to. May come from outside; left out where it is empty.
    pub subject: String,
    /// When it happened.
    pub time: Timestamp,
}

impl Event {
    /// The event with `data` as one JSON document.
    ///
    /// Attributes may hold no control characters and no noncharacters, so these are percent-encoded in `subject`; nothing else is. Who needs the
    /// exact text finds it in the data.
    pub fn structured(&self, data: &Value) -> Value {
        let mut event = json!({
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.kind,
            "time": self.time.to_string(),
            "datacontenttype": "application/json",
            "data": data,
        });
        if !self.subject.is_empty() {
            event["subject"] = printable(&self.subject).into();
        }
        event
    }
}

/// A source of these parts: `/file360/` and each part, percent-encoded.
pub fn source(parts: &[&str]) -> String {
    let parts = parts.iter().map(|part| utf8_percent_encode(part, SEGMENT).to_string());
    format!("/file360/{}", parts.collect::<Vec<_>>().join("/"))
}

/// What RFC 3986 calls unreserved stays as it is.
const SEGMENT: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn printable(text: &str) -> String {
    let encoded = |c: char| utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC).to_string();
    text.chars().map(|c| if is_disallowed(c) { encoded(c) } else { c.into() }).collect()
}

/// CloudEvents 1.0, section 3.2, on strings.
fn is_disallowed(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(subject: &str) -> Event {
        Event {
            id: "5f70bf18".into(),
            source: source(&["c1", "claims", "in box"]),
            kind: "io.file360.file.uploaded".into(),
            subject: subject.into(),
            time: "2026-07-01T12:00:00.25+02:00".parse().unwrap(),
        }
    }

    #[test]
    fn an_event_is_as_the_specification_says() {
        assert_eq!(
            event("/Inbox/Größe 100%.pdf").structured(&json!({"size": 7})),
            json!({
                "specversion": "1.0",
                "id": "5f70bf18",
                "source": "/file360/c1/claims/in%20box",
                "type": "io.file360.file.uploaded",
                "subject": "/Inbox/Größe 100%.pdf",
                "time": "2026-07-01T10:00:00.25Z",
                "datacontenttype": "application/json",
                "data": {"size": 7},
            })
        );
        assert!(event("").structured(&json!({})).get("subject").is_none(), "an empty one is not allowed");
    }

    #[test]
    fn r6_attributes_have_no_control_characters() {
        let subject = event("/a\r\nb\0\u{85}\u{fffe}\u{1ffff}").structured(&json!({}))["subject"].clone();
        assert_eq!(subject, "/a%0D%0Ab%00%C2%85%EF%BF%BE%F0%9F%BF%BF");
    }
}
