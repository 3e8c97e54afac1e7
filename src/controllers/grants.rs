//! Who may use a Connection, and what no workspace can exceed. Pure.

use std::collections::BTreeMap;

use crate::api::connection::{ConnectionSpec, Grant, GrantKind, GrantScope, MaxSharing, NamespacesFrom};
use crate::error::{Error, Kind, Result};
use crate::file360::model::{Audience, ExternalSharing, SharingRules};
use crate::file360::sharing::domain_matches;

/// Who asks to use a Connection.
pub struct Asking<'a> {
    /// Namespace of the resource.
    pub namespace: &'a str,
    /// Labels of that namespace.
    pub labels: &'a BTreeMap<String, String>,
    /// Kind of the resource.
    pub kind: GrantKind,
    /// System of its business key, if it claims one.
    pub external_system: Option<&'a str>,
}

/// How far a resource may reach through a Connection in `home`. Refused without telling whether the Connection exists.
pub fn scope(home: &str, spec: &ConnectionSpec, asking: &Asking<'_>) -> Result<GrantScope> {
    if asking.namespace == home {
        return Ok(GrantScope::Tenant);
    }
    let fitting = spec.grants.iter().flatten().filter(|grant| fits(grant, asking));
    let widest = fitting.map(|grant| grant.scope.unwrap_or_default()).max_by_key(|scope| *scope == GrantScope::Tenant);
    widest.ok_or_else(|| not_granted(asking.namespace))
}

/// The refusal for a Connection that does not exist or does not grant its use: the two look alike.
pub fn not_granted(namespace: &str) -> Error {
    let mut error = Error::new(
        Kind::Reference,
        format!(
            "no such Connection is granted to namespace {namespace}; ask its owner for an entry in spec.grants, or correct spec.connectionRef"
        ),
    );
    error.code = "connection-not-granted".into();
    error
}

fn fits(grant: &Grant, asking: &Asking<'_>) -> bool {
    let namespace = match grant.namespaces.from {
        NamespacesFrom::All => true,
        NamespacesFrom::Selector => {
            grant.namespaces.selector.as_ref().is_some_and(|selector| selector.matches(asking.labels))
        }
    };
    let kind = grant.kinds.as_ref().is_none_or(|kinds| kinds.contains(&asking.kind));
    let system = match (asking.external_system, &grant.external_systems) {
        (Some(system), Some(allowed)) => allowed.iter().any(|name| name == system),
        _ => true,
    };
    namespace && kind && system
}

/// Refuses a sharing rule that is wider than the Connection's ceiling; names the field and the ceiling.
pub fn within_ceiling(rules: &SharingRules, max: &MaxSharing) -> Result<()> {
    let exceeded = |field: &str, limit: String| {
        let mut error = Error::new(
            Kind::Rejected,
            format!(
                "sharing.{field} of the workspace exceeds the Connection's ceiling ({limit}); narrow spec.sharing, or ask the Connection's owner"
            ),
        );
        error.code = "sharing-ceiling-exceeded".into();
        Err(error)
    };
    if let Some(external) = max.external.filter(|max| rules.external > *max) {
        return exceeded("external", format!("{external:?}"));
    }
    if let (Some(domains), ExternalSharing::AllowListed) = (&max.allowed_domains, rules.external) {
        let outside = rules.allowed_domains.iter().find(|domain| !domains.iter().any(|allowed| covers(allowed, domain)));
        if let Some(domain) = outside {
            return exceeded("allowedDomains", format!("{domain} is not among its domains"));
        }
    }
    if max.allowed_domains.is_some() && rules.external == ExternalSharing::Anyone {
        return exceeded("external", "only listed domains".into());
    }
    if max.reshare == Some(false) && rules.reshare {
        return exceeded("reshare", "false".into());
    }
    if let Some(audience) = max.link_audience.filter(|max| rules.links.max_audience > *max) {
        return exceeded("links.maxAudience", format!("{audience:?}"));
    }
    // Links that only members can open are no sharing.
    let shares_links = rules.links.max_audience > Audience::Members;
    if let Some(days) = max.link_days.filter(|max| shares_links && rules.links.max_days.is_none_or(|days| days > *max)) {
        return exceeded("links.maxDays", format!("{days}"));
    }
    Ok(())
}

/// Whether a domain is one of those that a list allows.
pub fn lists(domains: &[String], domain: &str) -> bool {
    domains.iter().any(|allowed| covers(allowed, domain))
}

/// Whether every domain that `domain` stands for is covered by `allowed`.
fn covers(allowed: &str, domain: &str) -> bool {
    let (prefix, name) = allowed.strip_prefix("*.").map_or(("", allowed), |name| ("*.", name));
    let label = idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_lowercase());
    let allowed = format!("{prefix}{label}");
    allowed == domain || (allowed.starts_with("*.") && domain_matches(&allowed, domain.trim_start_matches("*.")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::common::LabelSelector;
    use crate::api::connection::GrantNamespaces;
    use crate::file360::model::LinkRules;

    fn spec(grants: Vec<Grant>) -> ConnectionSpec {
        let mut spec: ConnectionSpec = serde_json::from_value(serde_json::json!({
            "endpoint": "https://f.example", "auth": {"token": {"secretRef": {"name": "s", "key": "k"}}}
        }))
        .unwrap();
        spec.grants = Some(grants);
        spec
    }

    fn grant(label: Option<(&str, &str)>) -> Grant {
        let selector = label.map(|(key, value)| LabelSelector {
            match_labels: Some([(key.to_owned(), value.to_owned())].into()),
            ..LabelSelector::default()
        });
        let from = if selector.is_some() { NamespacesFrom::Selector } else { NamespacesFrom::All };
        Grant { namespaces: GrantNamespaces { from, selector }, kinds: None, scope: None, external_systems: None }
    }

    fn ask(namespace: &str, labels: &[(&str, &str)], system: Option<&str>, grants: Vec<Grant>) -> Result<GrantScope> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let asking = Asking { namespace, labels: &labels, kind: GrantKind::SecureWorkspace, external_system: system };
        scope("home", &spec(grants), &asking)
    }

    #[test]
    fn t1_another_namespace_needs_a_grant_and_gets_what_it_declares() {
        assert_eq!(ask("home", &[], None, vec![]).unwrap(), GrantScope::Tenant);
        assert!(ask("tenant", &[], None, vec![]).is_err());
        assert_eq!(ask("tenant", &[], None, vec![grant(None)]).unwrap(), GrantScope::Declared);
        let gold = || vec![grant(Some(("tier", "gold")))];
        assert_eq!(ask("tenant", &[("tier", "gold")], None, gold()).unwrap(), GrantScope::Declared);
        assert!(ask("tenant", &[("tier", "tin")], None, gold()).is_err());
    }

    #[test]
    fn t1_business_keys_of_other_systems_cannot_be_claimed() {
        let limited = || vec![Grant { external_systems: Some(vec!["s4".into()]), ..grant(None) }];
        assert!(ask("tenant", &[], Some("s4"), limited()).is_ok());
        assert!(ask("tenant", &[], Some("crm"), limited()).is_err());
        assert!(ask("tenant", &[], None, limited()).is_ok());
    }

    #[test]
    fn a_ceiling_names_the_field_that_exceeds_it() {
        let rules = SharingRules {
            external: ExternalSharing::AllowListed,
            allowed_domains: vec!["*.acme.com".into(), "acme.com".into()],
            reshare: true,
            links: LinkRules {
                max_audience: Audience::Anyone,
                max_days: Some(30),
                password_required: false,
                download: true,
            },
        };
        let check = |max: MaxSharing| within_ceiling(&rules, &max).map_err(|error| error.to_string());
        assert!(check(MaxSharing::default()).is_ok());
        assert!(
            check(MaxSharing { external: Some(ExternalSharing::Disabled), ..Default::default() })
                .unwrap_err()
                .contains("external")
        );
        assert!(check(MaxSharing { allowed_domains: Some(vec!["acme.com".into()]), ..Default::default() }).is_err());
        let both = vec!["acme.com".into(), "*.acme.com".into()];
        assert!(check(MaxSharing { allowed_domains: Some(both), ..Default::default() }).is_ok());
        assert!(check(MaxSharing { reshare: Some(false), ..Default::default() }).unwrap_err().contains("reshare"));
        assert!(check(MaxSharing { link_audience: Some(Audience::Company), ..Default::default() }).is_err());
        assert!(check(MaxSharing { link_days: Some(7), ..Default::default() }).unwrap_err().contains("links.maxDays"));
        assert!(check(MaxSharing { link_days: Some(30), ..Default::default() }).is_ok());
        let closed = SharingRules::default();
        let tight = MaxSharing {
            external: Some(ExternalSharing::Disabled),
            link_days: Some(1),
            reshare: Some(false),
            ..Default::default()
        };
        assert!(within_ceiling(&closed, &tight).is_ok(), "what is closed exceeds nothing");
    }
}
