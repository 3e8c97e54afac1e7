//! Which addresses a sharing rule lets in. Pure.

use super::model::{Audience, ExternalSharing, SharingRules};

/// Whether `domain` is `allowed`, or below it when it starts with `*.`.
pub fn domain_matches(allowed: &str, domain: &str) -> bool {
    match allowed.strip_prefix("*.") {
        Some(parent) => domain.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => allowed == domain,
    }
}

/// The domain of a mail address, as an A-label in lower case.
pub fn domain_of(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>,;\"".contains(c);
    if local.is_empty() || local.contains('@') || !local.chars().all(is_plain) {
        return None;
    }
    idna::domain_to_ascii_strict(domain).ok().filter(|domain| domain.contains('.'))
}

/// Whether a share for `audience` stays within `external`: guests need some sharing outside, whoever has the link needs all of it.
pub fn lets_out(external: ExternalSharing, audience: Audience) -> bool {
    match audience {
        Audience::Members | Audience::Company => true,
        Audience::Guests => external != ExternalSharing::Disabled,
        Audience::Anyone => external == ExternalSharing::Anyone,
    }
}

/// Whether the rule lets somebody outside with this address in.
pub fn lets_in(rules: &SharingRules, address: &str) -> bool {
    let Some(domain) = domain_of(address) else { return false };
    match rules.external {
        ExternalSharing::Disabled => false,
        ExternalSharing::Anyone => true,
        ExternalSharing::AllowListed => rules.allowed_domains.iter().any(|allowed| domain_matches(allowed, &domain)),
    }
}
