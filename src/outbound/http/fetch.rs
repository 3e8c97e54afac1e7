//! Reading a listing: pages of one origin, asked for only if they changed.

use http::{HeaderValue, header};
use url::Url;

use super::body::Prepared;
use super::{Answer, Call, Target};
use crate::error::{Error, Kind, Result};
use crate::expression::Variables;

/// Longest address of a page.
const LONGEST: usize = 8 * 1024;
/// What the other side knows a read by; reading again is the same read.
const KEY: &str = "listing";

/// What a page was known by when it was read last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Validators {
    /// What an answer says about itself.
    pub fn of(answer: &Answer) -> Self {
        let header = |name: &str| answer.headers.get(name).cloned();
        Self { etag: header("etag"), last_modified: header("last-modified") }
    }
}

/// A page.
pub enum Fetched {
    /// It is what it was.
    Unchanged,
    /// It is new.
    Page(Answer),
}

impl Target {
    /// The address of a page: that of the spec with its query, or `next`, which must stay on the scheme, host and port of the spec.
    pub fn page(&self, next: Option<&str>) -> Result<Url> {
        let Some(next) = next else { return self.address.url(&Variables::default()) };
        let wrong = |why: &str| Error::new(Kind::Rejected, format!("the address of the next page {why}"));
        if next.len() > LONGEST || next.chars().any(char::is_control) {
            return Err(wrong("is too long, or has control characters"));
        }
        let url = self.address.base().join(next).map_err(|_| wrong("is no URL"))?;
        if url.origin() != self.address.base().origin() || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(&format!("leaves {}", self.host())));
        }
        Ok(url)
    }

    /// Reads one page. With `known`, a page that has not changed since is not sent again. Fails as [`Target::send`] does.
    pub async fn fetch(&self, url: &Url, known: Option<&Validators>) -> Result<Fetched> {
        let mut headers = self.headers.evaluate(&Variables::default())?;
        if let Some(known) = known {
            for (name, value) in [(header::IF_NONE_MATCH, &known.etag), (header::IF_MODIFIED_SINCE, &known.last_modified)] {
                if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                    headers.insert(name, value);
                }
            }
        }
        let call = Call { url: url.clone(), headers, body: Prepared::Empty, key: KEY };
        let answer = self.dispatch(&call).await.map_err(|error| error.while_doing(format!("GET {}", self.host())))?;
        match (answer.status, known) {
            (304, Some(_)) => Ok(Fetched::Unchanged),
            (304, None) => Err(Error::new(Kind::Malformed, format!("{} answered 304 without being asked", self.host()))),
            _ => Ok(Fetched::Page(answer)),
        }
    }
}
