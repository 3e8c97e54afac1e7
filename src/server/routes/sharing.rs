//! What a sharing rule allows.

use jiff::{SignedDuration, Timestamp};

use crate::file360::model::{Audience, ExternalSharing, SharingRules};
use crate::server::names;
use crate::server::refusal::Refusal;

/// The rule in its stored form: domains as A-labels, sorted, once each.
pub fn normalised(mut rules: SharingRules) -> Result<SharingRules, Refusal> {
    if rules.allowed_domains.len() > 500 {
        return Err(Refusal::invalid("/sharing/allowedDomains", "At most 500 domains."));
    }
    for domain in &mut rules.allowed_domains {
        *domain = names::domain_pattern(domain)
            .ok_or_else(|| Refusal::invalid("/sharing/allowedDomains", format!("`{domain}` is not a domain.")))?;
    }
    rules.allowed_domains.sort();
    rules.allowed_domains.dedup();
    if rules.links.max_days.is_some_and(|days| days == 0 || days > 36_500) {
        return Err(Refusal::invalid("/sharing/links/maxDays", "From 1 to 36500."));
    }
    Ok(rules)
}

/// A link as far as the rule looks at it.
#[derive(Clone, Copy, Debug)]
pub struct LinkShape {
    /// Who may open it.
    pub audience: Audience,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// It has a password.
    pub has_password: bool,
    /// It may download.
    pub download: bool,
}

/// Whether the rule allows such a link; `made_at` is when its life began.
pub fn allows_link(rules: &SharingRules, link: LinkShape, made_at: Timestamp) -> Result<(), Refusal> {
    let limits = &rules.links;
    if link.audience > limits.max_audience {
        return Err(denied("/audience", "The workspace allows only narrower audiences for links."));
    }
    let open = match link.audience {
        Audience::Members | Audience::Company => true,
        Audience::Guests => rules.external != ExternalSharing::Disabled,
        // Whoever has the link has any address: that fits no list of domains.
        Audience::Anyone => rules.external == ExternalSharing::Anyone,
    };
    if !open {
        return Err(denied("/audience", "The workspace is not shared with people outside."));
    }
    if limits.password_required && !link.has_password {
        return Err(denied("/password", "Links in this workspace need a password."));
    }
    if link.download && !limits.download {
        return Err(denied("/download", "Links in this workspace do not download."));
    }
    if let Some(days) = limits.max_days {
        // One minute for clocks that differ and calls that take their time.
        let latest =
            made_at.saturating_add(SignedDuration::from_secs(i64::from(days) * 86_400 + 60)).unwrap_or(Timestamp::MAX);
        if link.expires_at.is_none_or(|at| at > latest) {
            return Err(denied("/expiresAt", format!("Links in this workspace end within {days} days.")));
        }
    }
    Ok(())
}

/// The sharing rule is in the way.
pub fn denied(pointer: &str, detail: impl Into<String>) -> Refusal {
    let detail = detail.into();
    Refusal::new(422, "sharing-policy-denied", detail.clone()).at(pointer, detail).audited()
}

/// An end in the future, in whole milliseconds.
pub fn expiry(at: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
    match at.map(crate::server::clock::to_millis) {
        Some(at) if at <= now => {
            Err(Refusal::new(422, "expiry-in-past", "The end lies in the past.").at("/expiresAt", "In the past."))
        }
        other => Ok(other),
    }
}
