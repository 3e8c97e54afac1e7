//! Where a call goes: a fixed host, with path segments and query from expressions.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::{Host, Url};

use crate::api::http_target::HttpTarget;
use crate::error::{Error, Kind, Result};
use crate::expression::{Expression, InvalidField, Variables};
use crate::outbound::guard::Guard;

/// Longest URL that is sent, in bytes.
const MAX_URL: usize = 16 * 1024;

/// What RFC 3986 calls unreserved stays as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The compiled address of a target.
pub(super) struct Address {
    base: Url,
    path: Vec<Expression>,
    query: Vec<(String, Expression)>,
}

impl Address {
    /// Compiles `url`, `path` and `query`.
    pub fn new(spec: &HttpTarget, known: &[&str], guard: &Guard) -> Result<Self, InvalidField> {
        let compiled = |field: String, text: &str| {
            Expression::compile(text, known).map_err(|invalid| InvalidField::expression(field, &invalid))
        };
        let path = spec.path.iter().flatten().enumerate().map(|(at, text)| compiled(format!("path[{at}]"), text));
        let query =
            spec.query.iter().flatten().map(|(name, text)| Ok((name.clone(), compiled(format!("query.{name}"), text)?)));
        Ok(Self {
            base: fixed_url(&spec.url, "url", guard)?,
            path: path.collect::<Result<_, _>>()?,
            query: query.collect::<Result<_, _>>()?,
        })
    }

    /// The host, as people write it.
    pub fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// The URL of the spec.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Whether the call goes over TLS.
    pub fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// The URL for `variables`. It has the host and begins with the path of the spec, whatever the expressions give.
    pub fn url(&self, variables: &Variables) -> Result<Url> {
        let mut url = self.base.clone();
        if !self.path.is_empty() {
            let mut path = self.base.path().trim_end_matches('/').to_owned();
            for (at, expression) in self.path.iter().enumerate() {
                let field = format!("path[{at}]");
                let segment = text(expression, &field, variables)?;
                harmless(&segment).map_err(|why| Error::new(Kind::Rejected, format!("{field}: the result {why}")))?;
                path.push('/');
                path.extend(utf8_percent_encode(&segment, SEGMENT));
            }
            url.set_path(&path);
            if url.path() != path {
                return Err(Error::new(Kind::Rejected, "path: the results do not make a path below url"));
            }
        }
        for (name, expression) in &self.query {
            let value = text(expression, &format!("query.{name}"), variables)?;
            if value.contains('\0') {
                return Err(Error::new(Kind::Rejected, format!("query.{name}: the result has a NUL character")));
            }
            url.query_pairs_mut().append_pair(name, &value);
        }
        if url.as_str().len() > MAX_URL {
            return Err(Error::new(Kind::Rejected, format!("the URL has more than {MAX_URL} bytes")));
        }
        Ok(url)
    }
}

/// The text that an expression gives, with the field in what goes wrong.
pub(super) fn text(expression: &Expression, field: &str, variables: &Variables) -> Result<String> {
    expression.text(variables).map_err(|failed| Error::new(Kind::Rejected, format!("{field}: {failed}")))
}

/// A URL that a manifest names: https unless its host is in `--outbound-allow`, no address that the guard refuses, and nothing in it that
/// would end up in logs elsewhere.
pub(super) fn fixed_url(text: &str, field: &str, guard: &Guard) -> Result<Url, InvalidField> {
    let wrong = |why: String| InvalidField::value(field, why);
    let url = Url::parse(text).map_err(|error| wrong(format!("this is no URL: {error}")))?;
    let host = url.host_str().unwrap_or_default();
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("a URL here must not carry a user name, password, query or fragment".into()));
    }
    match url.scheme() {
        "https" => {}
        "http" if guard.is_allowed_host(host) => {}
        "http" => return Err(wrong(format!("must use https, unless {host} is in the operator's --outbound-allow"))),
        _ => return Err(wrong("must use https".into())),
    }
    guard.check_host(host).map_err(wrong)?;
    Ok(url)
}

/// Whether `name` is a host name, and no address in any spelling.
pub(super) fn is_dns_name(name: &str) -> bool {
    matches!(Host::parse(name), Ok(Host::Domain(domain)) if domain.eq_ignore_ascii_case(name))
}

/// Refuses what is no name of one segment: also what becomes several where a proxy decodes `%2F`.
fn harmless(segment: &str) -> std::result::Result<(), &'static str> {
    if segment.is_empty() {
        return Err("is empty");
    }
    if segment.contains('\0') {
        return Err("has a NUL character");
    }
    if segment.split(['/', '\\']).any(|part| part == "." || part == "..") {
        return Err("has a `.` or `..` segment");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::string;

    fn address(url: &str) -> Result<Address, InvalidField> {
        let spec = serde_json::json!({"url": url, "path": ["x"], "query": {"q": "x"}});
        Address::new(&serde_json::from_value(spec).unwrap(), &["x"], &Guard::new(&["crm.local".into()], &[]).unwrap())
    }

    fn with(x: &str) -> Variables {
        Variables::default().with("x", string(x))
    }

    #[test]
    fn r6_a_result_stays_one_segment_below_the_path_of_the_spec() {
        let address = address("https://crm.example.com/api/cases/").unwrap();
        for (given, segment) in [
            ("17", "17"),
            ("a/b", "a%2Fb"),
            ("a b?c#d%2e", "a%20b%3Fc%23d%252e"),
            ("ü\r\n", "%C3%BC%0D%0A"),
            ("https://evil.example", "https%3A%2F%2Fevil.example"),
            ("@evil.example", "%40evil.example"),
            ("...", "..."),
            ("%2e%2e", "%252e%252e"),
        ] {
            let url = address.url(&with(given)).unwrap();
            assert_eq!(url.path(), format!("/api/cases/{segment}"));
            assert_eq!(url.host_str(), Some("crm.example.com"));
            assert_eq!(url.query_pairs().collect::<Vec<_>>(), [("q".into(), given.into())]);
        }
        for given in ["", ".", "..", "../x", "a/../../b", "..\\x", "a\0b"] {
            assert_eq!(address.url(&with(given)).unwrap_err().kind, Kind::Rejected, "{given:?} should be refused");
        }
        assert!(address.url(&with(&"x".repeat(MAX_URL))).is_err());
    }

    #[test]
    fn t3_a_url_without_tls_or_into_the_machine_is_refused() {
        for url in [
            "http://crm.example.com/",
            "https://127.0.0.1/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://169.254.169.254/latest",
            "ftp://crm.local/",
            "https://user:secret@crm.example.com/",
            "https://crm.example.com/?token=x",
        ] {
            assert_eq!(address(url).err().map(|invalid| invalid.field).as_deref(), Some("url"), "{url} should be refused");
        }
        assert!(address("http://crm.local/api").is_ok(), "what is allowed by name needs no TLS");
    }

    #[test]
    fn a_server_name_is_no_address() {
        assert!(is_dns_name("crm.example.com"));
        for name in ["127.0.0.1", "0x7f.1", "2130706433", "[::1]", "a b", ""] {
            assert!(!is_dns_name(name), "{name}");
        }
    }
}
