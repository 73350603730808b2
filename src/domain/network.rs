//! Where a request comes from: networks of addresses, and which of the addresses that a request names is to be believed.
//!
//! Absent: sockets, and the names of headers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

/// An address, or all that begin alike: `127.0.0.1`, `140.82.112.0/20`, `2606:50c0::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// A text that is no network, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor a network.
    #[error("is neither an address nor a network")]
    Syntax,
    /// An address and a length that do not go together, one of which is a slip.
    #[error("has bits beyond its length: the network is `{0}`")]
    Bits(Network),
}

impl Network {
    /// Reads an address, or a network in the usual notation. IPv4 in the clothes of IPv6 is IPv4.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address.to_canonical()),
            Err(_) => canonical(text.parse().map_err(|_| NetworkError::Syntax)?),
        };
        if network != network.trunc() {
            return Err(NetworkError::Bits(Self(network.trunc())));
        }
        Ok(Self(network))
    }

    /// Whether an address, in whatever clothes, is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// IPv4 in the clothes of IPv6 is IPv4, if the whole network is.
fn canonical(network: IpNet) -> IpNet {
    let mapped = |address: Ipv6Addr| address.to_ipv4_mapped();
    let IpNet::V6(v6) = network else { return network };
    let plain = |address: Ipv4Addr, length: u8| Ipv4Net::new(address, length).ok();
    let v4 = mapped(v6.addr()).zip(v6.prefix_len().checked_sub(MAPPED_BITS));
    v4.and_then(|(address, length)| plain(address, length)).map_or(network, IpNet::V4)
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(formatter)
        } else {
            self.0.fmt(formatter)
        }
    }
}

/// Tells who sent a request, as far as somebody says so who is trusted.
///
/// `forwarded` are the values of `X-Forwarded-For`, in the order they came: together one list, to whose end each proxy adds
/// whom it got the request from. So it is read from the right, beginning with the peer itself, for as long as the last
/// address is one of ours: who stands further left was named by somebody unknown. What is no address ends the walk.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[Network],
) -> IpAddr {
    let mut client = peer.to_canonical();
    for entry in forwarded.rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
        if !trusted.iter().any(|network| network.contains(client)) {
            break;
        }
        let Some(before) = std::str::from_utf8(entry).ok().and_then(address_of) else { break };
        client = before;
    }
    client
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address_of(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim_matches([' ', '\t']);
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let bracketed = bare.and_then(|bare| bare.parse::<Ipv6Addr>().ok()).map(IpAddr::V6);
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = bracketed.or_else(|| entry.parse().ok()).or_else(with_port);
    address.map(|address| address.to_canonical())
}

/// How many bits of an IPv6 address say that the others are an IPv4 address.
const MAPPED_BITS: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn networks_are_read_in_one_spelling() {
        let table = [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1/32", "127.0.0.1"),
            ("140.82.112.0/20", "140.82.112.0/20"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1"),
            ("2606:50C0::/32", "2606:50c0::/32"),
            ("2606:50c0:0:0::/32", "2606:50c0::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::/0", "::/0"),
        ];
        for (text, expected) in table {
            assert_eq!(Network::parse(text).map(|network| network.to_string()).as_deref(), Ok(expected), "{text}");
        }
        let slip = |text| Network::parse(text).unwrap_err().to_string();
        assert_eq!(slip("140.82.113.7/20"), "has bits beyond its length: the network is `140.82.112.0/20`");
        assert_eq!(slip("2606:50c0::1/32"), "has bits beyond its length: the network is `2606:50c0::/32`");
        for text in ["", "localhost", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", " 10.0.0.1", "::/129", "*"] {
            assert_eq!(Network::parse(text), Err(NetworkError::Syntax), "{text}");
        }
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        let table = [
            ("140.82.112.0/20", "140.82.112.0", true),
            ("140.82.112.0/20", "140.82.127.255", true),
            ("140.82.112.0/20", "140.82.128.0", false),
            ("140.82.112.0/20", "140.82.111.255", false),
            ("140.82.112.0/20", "::ffff:140.82.112.1", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("2606:50c0::/32", "2606:50c0:ffff::1", true),
            ("2606:50c0::/32", "2606:50c1::", false),
            ("0.0.0.0/0", "2606:50c0::1", false),
            ("::/0", "10.0.0.1", false),
            ("127.0.0.1", "127.0.0.2", false),
        ];
        for (network, inside, expected) in table {
            let network = Network::parse(network).expect("a network");
            assert_eq!(network.contains(address(inside)), expected, "{network} {inside}");
        }
    }

    #[test]
    fn the_client_is_whom_the_last_trusted_proxy_names() {
        let trusted = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"].map(|text| Network::parse(text).expect("a network"));
        let table: [(&str, &[&str], &str); 27] = [
            // Nobody says anything.
            ("192.0.2.1", &[], "192.0.2.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &[""], "127.0.0.1"),
            // Strangers may say what they want.
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("192.0.2.1", &["127.0.0.1"], "192.0.2.1"),
            // A proxy names whom it got it from; what that one claimed stands to the left of it.
            ("127.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["140.82.112.1, 198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["127.0.0.1,10.0.0.1,198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["140.82.112.1, 198.51.100.7, 10.0.0.1"], "198.51.100.7"),
            ("127.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.9.9.9", &["198.51.100.7"], "198.51.100.7"),
            // Several lines are one list.
            ("127.0.0.1", &["140.82.112.1", "198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["198.51.100.7", "10.0.0.1"], "198.51.100.7"),
            ("127.0.0.1", &["140.82.112.1, 198.51.100.7", "10.0.0.2,10.0.0.1"], "198.51.100.7"),
            // What is no address ends the walk.
            ("127.0.0.1", &["198.51.100.7, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.7, unknown, 10.0.0.1"], "10.0.0.1"),
            ("127.0.0.1", &["198.51.100.7,"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.7", ""], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.7:port"], "127.0.0.1"),
            ("127.0.0.1", &["\u{e9}"], "127.0.0.1"),
            // Ports, brackets and clothes.
            ("127.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("127.0.0.1", &["[2606:50c0::1]:4711"], "2606:50c0::1"),
            ("127.0.0.1", &["[2606:50c0::1]"], "2606:50c0::1"),
            ("127.0.0.1", &["2606:50c0::1"], "2606:50c0::1"),
            ("::ffff:127.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("2001:db8::1", &["\t198.51.100.7 , ::ffff:10.0.0.1"], "198.51.100.7"),
            ("127.0.0.1", &["[198.51.100.7]"], "127.0.0.1"),
        ];
        for (peer, forwarded, expected) in table {
            let values = forwarded.iter().map(|value| value.as_bytes());
            assert_eq!(client_address(address(peer), values, &trusted), address(expected), "{peer} {forwarded:?}");
            let values = forwarded.iter().map(|value| value.as_bytes());
            assert_eq!(
                client_address(address(peer), values, &[]),
                address(peer).to_canonical(),
                "{peer} {forwarded:?}"
            );
        }
    }
}
