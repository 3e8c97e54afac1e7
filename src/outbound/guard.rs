//! Which addresses the operator may be sent to by a manifest.
//!
//! Refused: loopback, link-local (cloud metadata among it), unspecified, multicast and broadcast addresses, the API server, and
//! whatever `--outbound-deny` names: pod, service and node ranges, which only the cluster's owner knows. `--outbound-allow` lifts this for
//! single hosts and ranges. The address is checked when the connection is made, so a name that resolves to something else
//! later gains nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::error::{Error, Kind};

/// Which addresses and hosts are fine.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allowed_hosts: Vec<String>,
    allowed_ranges: Vec<IpNet>,
    denied_ranges: Vec<IpNet>,
}

impl Guard {
    /// `allow` has host names, addresses and CIDR ranges; `deny` has addresses and CIDR ranges.
    pub fn new(allow: &[String], deny: &[String]) -> Result<Self, String> {
        let mut guard = Self::default();
        for entry in allow {
            match range(entry) {
                Some(net) => guard.allowed_ranges.push(net),
                None if entry.contains('/') => return Err(format!("{entry} is no host name, address or CIDR range")),
                None => guard.allowed_hosts.push(entry.to_lowercase()),
            }
        }
        for entry in deny {
            guard.denied_ranges.push(range(entry).ok_or_else(|| format!("{entry} is no address or CIDR range"))?);
        }
        Ok(guard)
    }

    /// Whether a manifest may send the operator to `host`, as far as that can be told without resolving it.
    pub fn check_host(&self, host: &str) -> Result<(), String> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) if !self.allows(address) => Err(refusal(host)),
            _ => Ok(()),
        }
    }

    /// Whether `host` itself, a name or an address, is in `--outbound-allow`. Such a host may be called without TLS and with credentials
    /// whose Secrets do not name it. A name that merely resolves into an allowed range is not meant.
    pub fn is_allowed_host(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => self.allowed_ranges.iter().any(|net| net.contains(&address.to_canonical())),
            Err(_) => self.allows_host(bare),
        }
    }

    /// The addresses of `host` that are fine, with the system's resolver: for connections that are not HTTP.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, port)).await;
        let found = found.map_err(|error| Error::new(Kind::Unavailable, format!("{host} has no address: {error}")))?;
        let fine: Vec<SocketAddr> = found.filter(|address| self.allows_host(bare) || self.allows(address.ip())).collect();
        if fine.is_empty() { Err(Error::new(Kind::Rejected, refusal(host))) } else { Ok(fine) }
    }

    fn allows_host(&self, host: &str) -> bool {
        self.allowed_hosts.contains(&host.to_lowercase())
    }

    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed_ranges.iter().any(|net| net.contains(&address))
            || !(is_special(address) || self.denied_ranges.iter().any(|net| net.contains(&address)))
    }
}

fn range(entry: &str) -> Option<IpNet> {
    entry.parse::<IpNet>().ok().or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from))
}

fn refusal(host: &str) -> String {
    format!("outbound guard: {host} is a loopback, link-local or otherwise refused address; allow it with --outbound-allow")
}

/// Addresses that are never a tenant's server by accident. Also what wraps an IPv4 address in IPv6 (NAT64, 6to4).
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
        }
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            let embedded = match (segments[0], segments[1]) {
                (0x64, 0xff9b) => Some([segments[6], segments[7]]),
                (0x2002, _) => Some([segments[1], segments[2]]),
                _ => None,
            };
            let embedded = embedded.map(|[high, low]| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || segments == [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254]
                || embedded.is_some_and(|v4| is_special(IpAddr::V4(v4)))
        }
    }
}

/// Resolves names with the system's resolver and drops refused addresses.
#[derive(Clone)]
pub struct GuardedResolver(pub Arc<Guard>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let allowed = guard.resolve(name.as_str(), 0).await?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t3_addresses_inside_are_refused_in_every_spelling() {
        let guard = Guard::new(&[], &["10.96.0.0/12".into()]).unwrap();
        for host in [
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "fe80::1",
            "10.96.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "224.0.0.1",
            "::",
        ] {
            assert!(guard.check_host(host).is_err(), "{host} should be refused");
        }
        for host in ["10.1.2.3", "203.0.113.7", "2001:db8::1", "file360.example.com"] {
            assert!(guard.check_host(host).is_ok(), "{host} should be fine");
        }
    }

    #[test]
    fn what_is_allowed_by_name_or_range_passes() {
        let guard =
            Guard::new(&["127.0.0.1".into(), "fd00::/8".into(), "File360.local".into()], &["fd00::/8".into()]).unwrap();
        assert!(guard.check_host("127.0.0.1").is_ok());
        assert!(guard.check_host("127.0.0.2").is_err());
        assert!(guard.check_host("fd00::1").is_ok());
        assert!(guard.allows_host("file360.LOCAL"));
        for host in ["127.0.0.1", "::ffff:127.0.0.1", "[fd00::1]", "FILE360.local"] {
            assert!(guard.is_allowed_host(host), "{host} is named");
        }
        for host in ["127.0.0.2", "localhost", "203.0.113.7", "x.file360.local", ""] {
            assert!(!guard.is_allowed_host(host), "{host} is not named");
        }
        assert!(Guard::new(&["10.0.0.0/99".into()], &[]).is_err());
    }

    #[tokio::test]
    async fn t3_a_name_or_address_is_resolved_only_to_what_is_fine() {
        let refused = Guard::default().resolve("localhost", 1).await.unwrap_err();
        assert!(refused.to_string().contains("outbound guard"), "{refused}");
        assert!(Guard::default().resolve("[::1]", 1).await.is_err());
        let allowing = Guard::new(&["localhost".into()], &[]).unwrap();
        assert!(allowing.resolve("localhost", 1).await.unwrap().iter().all(|address| address.ip().is_loopback()));
    }
}
