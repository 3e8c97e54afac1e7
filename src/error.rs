//! What can go wrong, and what to do next.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is; callers match on it. The set is closed: the kinds are label values of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The object is not there.
    NotFound,
    /// The caller has no right, or the credential is wrong.
    Denied,
    /// The request is wrong and stays wrong.
    Rejected,
    /// The driver or the server cannot do it.
    Unsupported,
    /// The state of the object does not allow it (409).
    Conflict,
    /// Somebody else changed the object in between (412), or a newer leader is at work.
    Stale,
    /// The cursor is too old (410).
    Expired,
    /// Too many requests (429).
    RateLimited,
    /// The other side is down, slow or unreachable.
    Unavailable,
    /// TLS could not be established.
    Tls,
    /// The answer cannot be understood, or exceeds a bound.
    Malformed,
    /// A referenced object, such as a Secret, is missing or wrong.
    Reference,
    /// A call to the Kubernetes API failed.
    Kubernetes,
    /// The operator is stopping or lost the leadership.
    Stopping,
}

impl Kind {
    /// Stable name for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Rejected => "rejected",
            Self::Unsupported => "unsupported",
            Self::Conflict => "conflict",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Tls => "tls",
            Self::Malformed => "malformed",
            Self::Reference => "reference",
            Self::Kubernetes => "kubernetes",
            Self::Stopping => "stopping",
        }
    }
}

/// What next?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try again with back-off.
    Retry,
    /// Try again no earlier than this.
    RetryAfter(Duration),
    /// Trying again changes nothing; wait for a change or the next resync.
    Terminal,
}

/// A failure: what was being done, what came back, what next.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{message}", .doing.as_ref().map(|doing| format!("{doing}: ")).unwrap_or_default())]
pub struct Error {
    /// What kind.
    pub kind: Kind,
    /// Stable code of the other side, such as `name-exists`; empty when it gave none.
    pub code: String,
    /// What was being done, such as `set member bob@acme.com`.
    doing: Option<String>,
    /// A sentence for people; filtered and bounded.
    message: String,
    /// When the other side wants to be asked again.
    pub retry_after: Option<Duration>,
    /// Details of the refusal, such as the items that a hold protects; at most 20.
    pub details: Box<[String]>,
}

impl Error {
    /// A failure of `kind` with a sentence for people.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, code: String::new(), doing: None, message: message.into(), retry_after: None, details: Box::default() }
    }

    /// The same with what was being done; the innermost description stays.
    #[must_use]
    pub fn while_doing(mut self, doing: impl Into<String>) -> Self {
        self.doing.get_or_insert_with(|| doing.into());
        self
    }

    /// What next?
    pub fn disposition(&self) -> Disposition {
        match (self.kind, self.retry_after) {
            (Kind::RateLimited | Kind::Unavailable, Some(after)) => Disposition::RetryAfter(after),
            (Kind::Denied | Kind::Rejected | Kind::Unsupported, _) => Disposition::Terminal,
            _ => Disposition::Retry,
        }
    }

    /// Whether the failure is about the whole tenant, not about one object.
    pub fn is_outage(&self) -> bool {
        matches!(self.kind, Kind::RateLimited | Kind::Unavailable | Kind::Tls | Kind::Malformed | Kind::Stopping)
            || self.code == "unauthenticated"
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        let message = match &error {
            kube::Error::Api(status) => format!("Kubernetes API: {}", status.message),
            other => format!("Kubernetes API: {other}"),
        };
        let mut result = Self::new(Kind::Kubernetes, clean(&message, 500));
        if let kube::Error::Api(status) = &error {
            result.code.clone_from(&status.reason);
            if status.code == 404 {
                result.kind = Kind::NotFound;
            }
        }
        result
    }
}

/// `text` for a status, event or log: control characters become spaces, and at most `max` characters stay.
pub fn clean(text: &str, max: usize) -> String {
    let mut result: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max + 1).collect();
    if result.chars().count() > max {
        result = result.chars().take(max.saturating_sub(1)).collect();
        result.push('…');
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_side_says_when_to_come_back_and_a_denial_is_final() {
        let mut busy = Error::new(Kind::RateLimited, "slow down");
        busy.retry_after = Some(Duration::from_secs(7));
        assert_eq!(busy.disposition(), Disposition::RetryAfter(Duration::from_secs(7)));
        assert_eq!(Error::new(Kind::Denied, "no").disposition(), Disposition::Terminal);
        assert_eq!(Error::new(Kind::Unavailable, "down").disposition(), Disposition::Retry);
    }

    #[test]
    fn text_from_outside_is_bounded_and_has_no_control_characters() {
        assert_eq!(clean("a\r\nb\u{1b}[31m", 100), "a  b [31m");
        assert_eq!(clean(&"x".repeat(50), 10).chars().count(), 10);
    }
}
