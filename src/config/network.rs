//! `trusted_proxies`: networks as the operator writes them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::report::quoted;
use super::values::Fault;

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// The first address; the bits after the prefix are 0. IPv4 is never in the form mapped into IPv6.
    address: IpAddr,
    /// How many bits are the same: up to 32 for IPv4, 128 for IPv6.
    prefix: u8,
}

/// What `private` stands for: this machine (RFC 1122, RFC 4291), private networks (RFC 1918) and unique local addresses
/// (RFC 4193).
const PRIVATE: [Network; 6] = [
    Network::v4([127, 0, 0, 0], 8),
    Network::v4([10, 0, 0, 0], 8),
    Network::v4([172, 16, 0, 0], 12),
    Network::v4([192, 168, 0, 0], 16),
    Network { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
    Network { address: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), prefix: 7 },
];

impl Network {
    const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])), prefix }
    }

    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or a lone address.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        const FORMS: &str = "write an address (10.0.0.5), a network (10.0.0.0/8, \"2001:db8::/32\"), private, or unix";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let no_network = || Fault::new(format!("{} is not an address, nor a network", quoted(text)), FORMS);
        let address: IpAddr = address.parse().map_err(|_| no_network())?;
        let longest = Self::bits(address);
        let prefix = match prefix {
            None => longest,
            Some(digits) => {
                let is_number = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
                let number = digits.parse().ok().filter(|number| is_number && *number <= longest);
                number.ok_or_else(|| {
                    let message = format!("{} has a prefix that is no number of bits", quoted(text));
                    Fault::new(message, format!("after the `/` stands a number from 0 to {longest}"))
                })?
            }
        };
        if address.to_canonical() != address {
            let meant = Self { address: address.to_canonical(), prefix: prefix.saturating_sub(96) };
            let message = format!("{} is IPv4 in the form of IPv6", quoted(text));
            return Err(Fault::new(message, format!("write {meant}: it holds for both forms")));
        }
        let network = Self { address: Self::cut(address, prefix), prefix };
        if network.address != address {
            let message = format!("{} has bits beyond its prefix", quoted(text));
            return Err(Fault::new(
                message,
                format!("write {network} for the network, or {address} for the one address"),
            ));
        }
        Ok(network)
    }

    const fn bits(address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }

    /// The address with 0 for all bits after the prefix.
    fn cut(address: IpAddr, prefix: u8) -> IpAddr {
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
            }
        }
    }

    /// The network of this size that an address is in; the whole family's when the size is larger than that.
    #[must_use]
    pub fn around(address: IpAddr, v4_prefix: u8, v6_prefix: u8) -> Self {
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() { v4_prefix.min(32) } else { v6_prefix.min(128) };
        Self { address: Self::cut(address, prefix), prefix }
    }

    /// Whether an address, in canonical form, is in it.
    fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Self::cut(address, self.prefix) == self.address
    }

    /// Whether it is every address of its family.
    pub(super) fn is_everybody(self) -> bool {
        self.prefix == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == Self::bits(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

/// `trusted_proxies`: whose word about clients is believed. Default nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Peers over TCP; `private` is written out.
    pub(super) networks: Vec<Network>,
    /// Whoever can connect to a unix socket.
    pub(super) unix: bool,
}

impl TrustedProxies {
    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether this peer is trusted; `None` is one on a unix socket.
    #[must_use]
    pub fn is_trusted(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            None => self.unix,
            // Most configurations trust nobody.
            Some(_) if self.networks.is_empty() => false,
            Some(address) => {
                let address = address.to_canonical();
                self.networks.iter().any(|network| network.contains(address))
            }
        }
    }

    /// Adds one entry of the list.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Fault> {
        match text {
            "private" => self.networks.extend(PRIVATE),
            "unix" => self.unix = true,
            _ => self.networks.push(Network::parse(text)?),
        }
        Ok(())
    }

    /// Whether anybody of this kind of listener's peers can be trusted.
    pub(super) fn has_any_for(&self, bind: &super::Bind) -> bool {
        match bind {
            super::Bind::Unix(_) => self.unix,
            super::Bind::Any(_) | super::Bind::Tcp(_) => !self.networks.is_empty(),
            // It may be of either kind.
            super::Bind::Systemd(_) => self.unix || !self.networks.is_empty(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trust(entries: &[&str]) -> TrustedProxies {
        let mut trusted = TrustedProxies::default();
        entries.iter().for_each(|entry| trusted.add(entry).unwrap());
        trusted
    }

    fn is_trusted(trusted: &TrustedProxies, address: &str) -> bool {
        trusted.is_trusted(Some(address.parse().unwrap()))
    }

    #[test]
    fn private_is_what_no_client_of_the_internet_can_be() {
        let private = trust(&["private"]);
        for address in [
            "127.0.0.1",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.1.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_trusted(&private, address), "{address}");
        }
        for address in [
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.169.0.0",
            "100.64.0.1",
            "169.254.0.1",
            "0.0.0.0",
            "::",
            "::2",
            "fe80::1",
            "2001:db8::1",
            "::ffff:11.0.0.1",
        ] {
            assert!(!is_trusted(&private, address), "{address}");
        }
        assert!(!private.is_trusted(None) && trust(&["unix"]).is_trusted(None));
    }

    #[test]
    fn nobody_is_trusted_by_default() {
        let nobody = TrustedProxies::default();
        assert!(nobody.is_empty() && !nobody.is_trusted(None) && !is_trusted(&nobody, "127.0.0.1"));
    }

    #[test]
    fn what_is_no_network_is_explained() {
        for (text, words) in [
            ("10.0.0.1/8", "write 10.0.0.0/8 for the network, or 10.0.0.1 for the one address"),
            ("2001:db8::1/32", "write 2001:db8::/32"),
            ("10.0.0.0/33", "0 to 32"),
            ("::/129", "0 to 128"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.0/255.0.0.0", "0 to 32"),
            ("::ffff:10.0.0.0/104", "write 10.0.0.0/8"),
            ("localhost", "write an address"),
            ("10.0.0", "write an address"),
            ("Private", "private"),
            ("", "write an address"),
        ] {
            let fault = TrustedProxies::default().add(text).unwrap_err();
            assert!(fault.help.contains(words), "{text}: {}", fault.help);
        }
        for text in ["10.0.0.5", "10.0.0.0/8", "2001:db8::/32", "::1", "0.0.0.0/0", "::/0"] {
            assert_eq!(Network::parse(text).unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn an_address_is_in_the_network_around_it_and_in_no_other_of_its_size(bits: u128, other: u128, v4: bool, prefix in 0..=128_u8) {
            let address = |bits: u128| if v4 { IpAddr::from(Ipv4Addr::from(bits as u32)) } else { IpAddr::from(Ipv6Addr::from(bits)) };
            let prefix = if v4 { prefix.min(32) } else { prefix };
            let (one, other) = (address(bits), address(other));
            prop_assume!(one.to_canonical() == one && other.to_canonical() == other);
            let network = Network::around(one, prefix, prefix);
            prop_assert!(network.contains(one));
            prop_assert_eq!(network.contains(other), Network::around(other, prefix, prefix) == network);
            prop_assert_eq!(Network::parse(&format!("{}/{}", network.address, network.prefix)).ok(), Some(network));
        }
    }
}
