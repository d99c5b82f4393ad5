//! Admits requests by the name under which they reached this server.
//!
//! A page of any site can have its own name resolve to this server's address (DNS rebinding). To the browser the server then
//! belongs to that site, and neither CORS nor the origin stops the page. Such requests carry the site's name in `Host`, so
//! only addresses, `localhost` and the configured names are admitted.

use std::net::Ipv6Addr;

use axum::extract::Request;
use axum::http::header;
use axum::http::uri::Authority;
use problem::{Code, Problem};

/// The names of this server, beside its addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    /// In lower case, without a port.
    named: Vec<String>,
    all: bool,
}

/// A text that is not the name of a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not the name of a host: use a name without scheme and port, such as figures.example, or * for all")]
pub struct WrongHost(String);

impl Hosts {
    /// Parses names; `*` stands for all.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Hosts, WrongHost> {
        let mut hosts = Hosts::default();
        for text in texts {
            if text == "*" {
                hosts.all = true;
                continue;
            }
            let is_name = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c);
            if text.is_empty() || !text.chars().all(is_name) {
                return Err(WrongHost(text.to_owned()));
            }
            hosts.named.push(text.to_ascii_lowercase());
        }
        Ok(hosts)
    }

    /// Returns true if `authority`, a host with or without a port, is a name of this server.
    fn admit(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let is_address = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<std::net::Ipv4Addr>().is_ok(),
        };
        self.all || is_address || host == "localhost" || host.ends_with(".localhost") || self.named.contains(&host)
    }

    /// Refuses a request that reached this server under another name. HTTP/1.0 has requests without one; browsers send it.
    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        let given = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
        let target = request.uri().authority().map(Authority::as_str);
        let Some(host) = given.chain(target).find(|host| !self.admit(host)) else { return Ok(()) };
        let detail = format!(
            "this server is not known as \"{host}\"; use its address, or add the name to allowed_hosts of the settings"
        );
        Err(Problem::new(Code::UnknownHost, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_admitted() {
        let hosts = Hosts::parse(["Figures.example"]).expect("a name");
        for admitted in [
            "127.0.0.1:8080",
            "10.0.0.7",
            "[::1]:8080",
            "[::1]",
            "localhost",
            "LOCALHOST:80",
            "a.localhost:1",
            "figures.EXAMPLE:443",
            "figures.example.",
        ] {
            assert!(hosts.admit(admitted), "{admitted}");
        }
        for refused in [
            "",
            "evil.example:8080",
            "figures.example.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "localhost.evil.example",
            "1.2.3.4.5",
            "0x7f.1",
        ] {
            assert!(!hosts.admit(refused), "{refused}");
        }
        assert!(Hosts::parse(["*"]).expect("all").admit("evil.example"));
    }

    #[test]
    fn names_have_neither_scheme_nor_port() {
        for wrong in ["", "http://figures.example", "figures.example:80", "a b", "*.example"] {
            assert!(Hosts::parse([wrong]).is_err(), "{wrong}");
        }
    }
}
