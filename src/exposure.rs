//! Refuses to serve other machines without keys and encryption, unless the operator insists.

use std::net::SocketAddr;

use crate::exit::{Failure, USAGE};

/// What protects a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// Requests need credentials.
    pub has_keys: bool,
    pub has_tls: bool,
    /// The operator accepts that one of them is missing.
    pub is_waived: bool,
}

impl Protection {
    /// Refuses an address that other machines reach, if keys or TLS are missing.
    pub fn check(self, listen: SocketAddr) -> Result<(), Failure> {
        let missing = match (self.has_keys, self.has_tls) {
            (true, true) => return Ok(()),
            (false, true) => "no key: every client could read and change all data",
            (true, false) => "no TLS: the network could read keys and data",
            (false, false) => "neither a key nor TLS: every client could read and change all data",
        };
        if listen.ip().is_loopback() {
            return Ok(());
        }
        if self.is_waived {
            eprintln!("warning: {listen} is reachable from other machines, and there is {missing} (--insecure-open)");
            return Ok(());
        }
        let ways = "listen on 127.0.0.1 and put a proxy or an SSH tunnel in front; \
                    or create a key (trueup key create --scope admin) and name a certificate ([tls] in trueup.toml); \
                    or accept it with --insecure-open (docs/security.md)";
        let what = format!("cannot listen on {listen}, which other machines reach: there is {missing}");
        Err(Failure::new(USAGE, what).next_step(ways))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_protected_servers_are_open_to_other_machines() {
        let protection = |has_keys, has_tls, is_waived| Protection { has_keys, has_tls, is_waived };
        let check = |address: &str, protection: Protection| {
            protection.check(address.parse().expect("an address")).map_err(|failure| failure.code)
        };
        for local in ["127.0.0.1:8080", "127.9.9.9:0", "[::1]:8080"] {
            assert_eq!(check(local, protection(false, false, false)), Ok(()), "{local}");
        }
        for open in ["0.0.0.0:8080", "[::]:8080", "10.0.0.7:8080"] {
            for (has_keys, has_tls) in [(false, false), (true, false), (false, true)] {
                assert_eq!(check(open, protection(has_keys, has_tls, false)), Err(USAGE), "{open}");
                assert_eq!(check(open, protection(has_keys, has_tls, true)), Ok(()), "{open}");
            }
            assert_eq!(check(open, protection(true, true, false)), Ok(()), "{open}");
        }
    }
}
