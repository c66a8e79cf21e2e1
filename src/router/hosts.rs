//! Host → site.
//!
//! Names are compared in lower case, without port and one trailing dot; IPv6 literals by their value. Exact names come
//! first, then the longest wildcard, then the site for hosts that no other has.

use std::collections::HashMap;

use crate::config::HostPattern;
use crate::http::Host;

/// The hosts of all sites, by the site's place.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, usize>,
    /// `.shop.example` → site, the longest first.
    wildcards: Vec<(Box<str>, usize)>,
    /// Without `hosts`, or with `default: true`.
    any: Option<usize>,
}

impl Hosts {
    /// Of sites in their order: the hosts of each, and whether it also takes hosts that no site has.
    pub(super) fn new<'a>(sites: impl Iterator<Item = (&'a [HostPattern], bool)>) -> Self {
        let mut table = Self::default();
        for (index, (hosts, is_default)) in sites.enumerate() {
            if hosts.is_empty() || is_default {
                table.any.get_or_insert(index);
            }
            for host in hosts {
                match host {
                    HostPattern::Exact(name) => {
                        table.exact.entry(name.as_str().into()).or_insert(index);
                    }
                    HostPattern::Wildcard(suffix) => table.wildcards.push((suffix.as_str().into(), index)),
                }
            }
        }
        table.wildcards.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }

    /// The site for hosts that no other has, and for requests without one.
    pub(super) const fn any(&self) -> Option<usize> {
        self.any
    }

    /// The site that has this host.
    pub(super) fn named(&self, host: &Host) -> Option<usize> {
        if self.exact.is_empty() && self.wildcards.is_empty() {
            return None;
        }
        let name = &*host.compared();
        self.exact.get(name).copied().or_else(|| {
            let matches = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix);
            self.wildcards.iter().find(|(suffix, _)| matches(suffix)).map(|(_, index)| *index)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn exact(name: &str) -> HostPattern {
        HostPattern::Exact(name.into())
    }

    fn wildcard(suffix: &str) -> HostPattern {
        HostPattern::Wildcard(suffix.into())
    }

    fn found(hosts: &Hosts, host: &str) -> Option<usize> {
        hosts.named(&Host::parse(Bytes::copy_from_slice(host.as_bytes())).unwrap()).or(hosts.any())
    }

    #[test]
    fn exact_before_wildcard_before_any() {
        let named: [&[HostPattern]; 3] = [
            &[wildcard(".example")],
            &[exact("a.shop.example"), exact("[::1]"), exact("[2001:db8::1]"), exact("xn--caf-dma.example")],
            &[wildcard(".shop.example")],
        ];
        let sites = |more: Option<(&'static [HostPattern], bool)>| {
            let all: Vec<_> = named.iter().map(|hosts| (*hosts, false)).chain(more).collect();
            Hosts::new(all.into_iter())
        };
        let table = sites(None);
        for (host, site) in [
            ("A.Shop.Example.:8443", Some(1)),
            ("b.shop.example", Some(2)),
            ("c.b.shop.example", Some(2)),
            ("shop.example", Some(0)),
            ("example", None),
            ("shop.example.org", None),
            ("xn--CAF-dma.example", Some(1)),
            ("[::1]:80", Some(1)),
            ("[0:0::1]", Some(1)),
            ("[2001:DB8:0:0::1]:443", Some(1)),
            ("[2001:db8::2]", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(found(&table, host), site, "{host}");
        }
        assert_eq!(table.any(), None);
        for table in [sites(Some((&[], false))), sites(Some((&[], true)))] {
            assert_eq!((found(&table, "unknown.org"), found(&table, "shop.example")), (Some(3), Some(0)));
        }
    }

    #[test]
    fn a_default_site_takes_its_own_hosts_and_those_of_nobody() {
        let (shop, blog) = ([exact("shop.example")], [exact("blog.example")]);
        let table = Hosts::new([(&shop[..], false), (&blog[..], true)].into_iter());
        for (host, site) in [("shop.example", 0), ("blog.example", 1), ("10.0.0.1:80", 1), ("unknown.example", 1)] {
            assert_eq!(found(&table, host), Some(site), "{host}");
        }
        assert_eq!(table.any(), Some(1), "HTTP/1.0 without Host");
    }
}
