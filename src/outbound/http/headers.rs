//! Headers that a spec declares.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::address::text;
use crate::api::http_target::HttpTarget;
use crate::error::{Error, Kind, Result};
use crate::expression::{Expression, InvalidField, Variables};

/// Longest value of a header, in bytes.
const MAX_VALUE: usize = 8 * 1024;

/// What frames, routes or authenticates the call; the operator alone sets it.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "cookie",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "repr-digest",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const RESERVED_BEGINNINGS: &[&str] = &["ce-", "proxy-", "sec-", "webhook-", "x-forwarded-"];

/// The compiled headers of a target.
pub(super) struct Headers(Vec<(HeaderName, Expression)>);

impl Headers {
    /// Compiles `headers`. `sets_type` says whether `Content-Type` may be among them.
    pub fn new(spec: &HttpTarget, known: &[&str], sets_type: bool) -> Result<Self, InvalidField> {
        let mut headers: Vec<(HeaderName, Expression)> = Vec::new();
        for (name, expression) in spec.headers.iter().flatten() {
            let field = format!("headers.{name}");
            let header =
                name.parse::<HeaderName>().map_err(|_| InvalidField::value(&field, "this is no name of a header"))?;
            if is_reserved(&header) {
                return Err(InvalidField::value(&field, "this header is set by the operator"));
            }
            if header == header::CONTENT_TYPE && !sets_type {
                return Err(InvalidField::value(
                    &field,
                    "a form has a Content-Type of its own, and a call without a body has none",
                ));
            }
            if headers.iter().any(|(known, _)| *known == header) {
                return Err(InvalidField::value(&field, "this header is there twice: case does not tell headers apart"));
            }
            let compiled = Expression::compile(expression, known);
            headers.push((header, compiled.map_err(|invalid| InvalidField::expression(field, &invalid))?));
        }
        Ok(Self(headers))
    }

    /// Whether `name` is declared.
    pub fn has(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|(declared, _)| declared == name)
    }

    /// The headers for `variables`.
    pub fn evaluate(&self, variables: &Variables) -> Result<HeaderMap> {
        let values = self.0.iter().map(|(name, expression)| {
            let field = format!("headers.{name}");
            let value = text(expression, &field, variables)?;
            let value = value_of(&value).map_err(|why| Error::new(Kind::Rejected, format!("{field}: the result {why}")))?;
            Ok((name.clone(), value))
        });
        values.collect()
    }
}

/// Whether only the operator sets this header.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(&name.as_str()) || RESERVED_BEGINNINGS.iter().any(|beginning| name.as_str().starts_with(beginning))
}

/// `text` as a header's value, if nothing in it can end the header.
pub(super) fn value_of(text: &str) -> std::result::Result<HeaderValue, &'static str> {
    if text.len() > MAX_VALUE {
        return Err("is too long for a header");
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character, which cannot stand in a header");
    }
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "cannot stand in a header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::string;
    use serde_json::{Value, json};

    fn headers(spec: &Value, sets_type: bool) -> Result<Headers, InvalidField> {
        let spec = serde_json::from_value(json!({"url": "https://crm.example.com", "headers": spec})).unwrap();
        Headers::new(&spec, &["x"], sets_type)
    }

    #[test]
    fn r6_a_result_cannot_end_its_header() {
        let headers = headers(&json!({"X-Name": "x"}), true).unwrap();
        let with = |x: &str| headers.evaluate(&Variables::default().with("x", string(x)));
        assert_eq!(with("Müller \"a\".pdf").unwrap()["x-name"].as_bytes(), "Müller \"a\".pdf".as_bytes());
        for hostile in ["a\r\nAuthorization: x", "a\nb", "a\0b", "a\u{85}b", "a\tb"] {
            assert_eq!(with(hostile).unwrap_err().kind, Kind::Rejected, "{hostile:?}");
        }
        assert!(with(&"x".repeat(MAX_VALUE + 1)).is_err());
    }

    #[test]
    fn what_frames_or_authenticates_the_call_cannot_be_declared() {
        for name in
            ["Authorization", "HOST", "content-length", "Transfer-Encoding", "Idempotency-Key", "ce-id", "webhook-id", "a b"]
        {
            let refused = headers(&json!({name: "'x'"}), true).err().map(|invalid| invalid.field);
            assert_eq!(refused, Some(format!("headers.{name}")));
        }
        assert!(headers(&json!({"Content-Type": "'application/vnd.api+json'"}), true).is_ok());
        assert!(headers(&json!({"Content-Type": "'text/plain'"}), false).is_err());
        assert!(headers(&json!({"X-A": "'1'", "x-a": "'2'"}), true).is_err());
        assert!(headers(&json!({"X-A": "y"}), true).err().unwrap().why.contains("unknown variable"));
    }
}
