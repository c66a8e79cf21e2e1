//! Who counts as one client, wherever clients take turns or have a share.

use std::net::IpAddr;

/// What one client has: an IPv4 address, or the /64 of an IPv6 one. Never 0, which is free for nobody.
#[must_use]
pub fn network(address: IpAddr) -> u64 {
    const IPV4: u64 = 0xFFFF_FFFF << 32; // in the range of multicast, from which nobody speaks
    match address.to_canonical() {
        IpAddr::V4(address) => IPV4 | u64::from(address.to_bits()),
        // The upper half. `::1` and its like have none.
        IpAddr::V6(address) => ((address.to_bits() >> 64) as u64).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_64() {
        let of = |address: &str| network(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"), "as a listener of both families sees it");
        assert_ne!(of("::1"), of("0.0.0.1"));
        assert_ne!(of("::1"), 0);
    }
}
