//! What comes back, bounded; and what counts as failure.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::auth::Secrets;
use super::client::unreachable;
use crate::error::{Error, Kind, Result, clean};

/// Largest body of an answer that is read, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// Deepest JSON that is read.
const MAX_DEPTH: usize = 64;
/// Of a refusal, only this much is read: it gives one sentence.
const MAX_REFUSAL: usize = 64 * 1024;
/// Most characters of the other side's text in an error.
const MAX_TOLD: usize = 200;
/// Longest header that is kept, in bytes.
const MAX_HEADER: usize = 1024;
/// The other side cannot put a call off for longer than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Headers that are kept: they say what was made, or help to find the call in the other side's logs.
const KEPT: &[&str] = &[
    "content-location",
    "content-type",
    "etag",
    "last-modified",
    "link",
    "location",
    "request-id",
    "traceparent",
    "x-correlation-id",
    "x-request-id",
];

/// The answer to a call that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status, one of the target's `success`.
    pub status: u16,
    /// A few headers, in lower case, each of up to 1 KiB.
    pub headers: BTreeMap<String, String>,
    body: std::result::Result<Value, String>,
}

impl Answer {
    /// The body: JSON if it is some, else a text; null when there is none. A body that exceeds a bound is
    /// [`Kind::Malformed`]: the call itself succeeded all the same.
    pub fn body(&self) -> Result<&Value> {
        self.body.as_ref().map_err(|why| Error::new(Kind::Malformed, format!("the answer {why}")))
    }

    /// What expressions see as `response`: `status`, `headers`, `body`. A body that exceeds a bound is null.
    pub fn variable(&self) -> Value {
        json!({"status": self.status, "headers": self.headers, "body": self.body.as_ref().unwrap_or(&Value::Null)})
    }
}

/// Why a body was not read to its end.
pub(super) enum Unread {
    /// It has more bytes than this.
    TooLarge(usize),
    /// The connection broke.
    BrokeOff(reqwest::Error),
}

impl Unread {
    /// As a failure of the call to `host`.
    pub fn into_failure(self, host: &str) -> Error {
        match self {
            Self::TooLarge(max) => Error::new(Kind::Malformed, format!("the answer of {host} is larger than {max} bytes")),
            Self::BrokeOff(error) => unreachable(&error, host),
        }
    }
}

/// The body, unless it is larger than `max` bytes.
pub(super) async fn bounded(mut response: reqwest::Response, max: usize) -> std::result::Result<Vec<u8>, Unread> {
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(Unread::TooLarge(max));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::BrokeOff)? {
        if body.len() + chunk.len() > max {
            return Err(Unread::TooLarge(max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads the answer of a call that succeeded.
pub(super) async fn read(response: reqwest::Response, secrets: &Secrets, host: &str) -> Result<Answer> {
    let status = response.status().as_u16();
    let headers = kept(response.headers(), secrets);
    let body = match bounded(response, MAX_BODY).await {
        Ok(body) => parsed(&body).map(|body| secrets.strike_document(body)),
        Err(Unread::TooLarge(max)) => Err(format!("is larger than {max} bytes")),
        // It may have said something that matters, and saying it again is safe: the key is the same.
        Err(broken @ Unread::BrokeOff(_)) => return Err(broken.into_failure(host)),
    };
    Ok(Answer { status, headers, body })
}

/// The one place that turns an answer into a failure. `advice` says what to check when the credential is refused.
pub(super) async fn refusal(response: reqwest::Response, secrets: &Secrets, host: &str, advice: &str) -> Error {
    let status = response.status();
    let after = retry_after(response.headers());
    let is_text = is_plain_or_json(response.headers());
    let body = bounded(response, MAX_REFUSAL).await.unwrap_or_default();
    let told = if is_text { said(&body) } else { String::new() };
    let told = clean(secrets.strike(&told).replace(is_misleading, " ").trim(), MAX_TOLD);
    let mut message = format!("{host} answered {}", status.as_u16());
    if !told.is_empty() {
        message = format!("{message}: {told}");
    }
    let kind = kind_of(status);
    match kind {
        Kind::Denied => message = format!("{message}; {advice}"),
        Kind::Rejected if status.is_redirection() => {
            message.push_str("; redirects are not followed, so name the final address in url");
        }
        Kind::Rejected if status.is_success() => message.push_str("; list it under success if that is fine"),
        _ => {}
    }
    let mut error = Error::new(kind, message);
    error.code = status.as_str().into();
    error.retry_after = after;
    error
}

fn kind_of(status: StatusCode) -> Kind {
    match status.as_u16() {
        401 | 403 => Kind::Denied,
        409 => Kind::Conflict,
        429 => Kind::RateLimited,
        408 | 425 | 500..=599 => Kind::Unavailable,
        _ => Kind::Rejected,
    }
}

/// `Retry-After`: seconds or a date; bounded.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            at.duration_since(Timestamp::now()).try_into().unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

fn kept(headers: &HeaderMap, secrets: &Secrets) -> BTreeMap<String, String> {
    let text = |name: &&str| {
        let value = headers.get(*name)?.to_str().ok().filter(|value| value.len() <= MAX_HEADER)?;
        Some(((*name).to_owned(), secrets.strike_answer(value)))
    };
    KEPT.iter().filter_map(text).collect()
}

fn parsed(body: &[u8]) -> std::result::Result<Value, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    if depth(body) > MAX_DEPTH {
        return Err(format!("nests deeper than {MAX_DEPTH}"));
    }
    Ok(serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned())))
}

/// How deep the brackets of a JSON text nest; 0 for what cannot be an array or an object.
fn depth(json: &[u8]) -> usize {
    let json = json.trim_ascii_start();
    if !matches!(json.first(), Some(b'[' | b'{')) {
        return 0;
    }
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What turns text around or breaks lines without being a control character.
fn is_misleading(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Pages for browsers say nothing in 200 characters.
fn is_plain_or_json(headers: &HeaderMap) -> bool {
    let kind =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("text/plain").to_ascii_lowercase();
    kind.starts_with("text/plain") || kind.contains("json")
}

/// The sentence in a refusal: where common APIs put it, else the whole text.
fn said(body: &[u8]) -> String {
    const PLACES: &[&str] = &[
        "/detail",
        "/message",
        "/error_description",
        "/error/message/value",
        "/error/message",
        "/error/detail",
        "/errorMessages/0",
        "/errors/0/message",
        "/errors/0/detail",
        "/0/message",
        "/title",
        "/error",
    ];
    match parsed(body) {
        Ok(Value::String(text)) => text,
        Ok(json) => {
            let found = PLACES.iter().find_map(|place| json.pointer(place)?.as_str().filter(|text| !text.is_empty()));
            found.map(str::to_owned).unwrap_or_default()
        }
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_as_json_up_to_a_depth_and_anything_else_as_text() {
        assert_eq!(parsed(br#" {"id": [7, "]]]"]} "#), Ok(json!({"id": [7, "]]]"]})));
        assert_eq!(parsed(b"OK"), Ok(json!("OK")));
        assert_eq!(parsed(b" \n"), Ok(Value::Null));
        assert_eq!(parsed(b"\xff{"), Ok(json!("\u{fffd}{")));
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parsed(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(parsed(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(parsed("[".repeat(MAX_BODY).as_bytes()).is_err());
        assert_eq!(depth(br#"["[[[\"[["]"#), 1, "brackets in a text do not count");
    }

    #[test]
    fn the_sentence_of_a_refusal_is_found_where_common_apis_put_it() {
        for body in [
            json!({"type": "about:blank", "title": "Bad", "detail": "no such case"}),
            json!([{"message": "no such case", "errorCode": "NOT_FOUND"}]),
            json!({"errorMessages": ["no such case"], "errors": {}}),
            json!({"error": {"message": "no such case", "detail": "ACL"}, "status": "failure"}),
            json!({"error": {"code": "X", "message": {"lang": "en", "value": "no such case"}}}),
            json!({"error": "no such case"}),
            json!("no such case"),
        ] {
            assert_eq!(said(body.to_string().as_bytes()), "no such case", "{body}");
        }
        assert_eq!(said(b"no such case"), "no such case");
        assert_eq!(said(br#"{"a": 1}"#), "", "a document without a sentence is not quoted");
    }

    #[test]
    fn the_other_side_says_when_to_come_back_in_seconds_or_as_a_date() {
        let after = |text: &str| retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO), "a date in the past");
        let soon = Timestamp::now() + Duration::from_secs(90);
        let soon = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).unwrap();
        assert!(after(&soon).is_some_and(|wait| wait > Duration::from_mins(1) && wait <= Duration::from_secs(90)));
        assert_eq!(after("soon"), None);
    }
}
