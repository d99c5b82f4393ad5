//! Reads the URL of a server: `sc://host:port/;use_ssl=true;token=..;NAME=VALUE`. Parameters of other names are headers of every
//! request, as `x-databricks-cluster-id` is.

use std::str::FromStr;

use hyper::header::{HeaderName, HeaderValue};

use crate::settings::ConnectionSettings;

/// The port of a URL without one.
const PORT: u16 = 15002;
/// Parameters that other clients understand and that mean nothing here.
const IGNORED: [&str; 3] = ["user_agent", "session_id", "grpc_max_message_size"];

/// Where requests are sent, and with which headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host:port`, or `http://` without TLS.
    pub origin: String,
    /// The name under which Spark lists the sessions.
    pub user: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Endpoint {
    /// Reads the settings of a connection.
    ///
    /// # Errors
    /// What is wrong, and what to do. No message repeats a value of a parameter: it may be a secret.
    pub fn of(settings: &ConnectionSettings) -> Result<Endpoint, String> {
        let form = "url must have the form \"sc://HOST:PORT\", such as \"sc://spark-1:15002\"";
        let rest = settings.url.strip_prefix("sc://").ok_or(form)?;
        let (authority, parameters) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = host_and_port(authority).ok_or(form)?;
        let (mut token, mut is_encrypted, mut user) = (settings.token.clone(), None, "trueup".to_owned());
        let mut headers = Vec::new();
        for parameter in parameters.split(';').filter(|parameter| !parameter.is_empty()) {
            let form = "parameters of url are written \"/;NAME=VALUE;NAME=VALUE\"";
            let (name, value) = parameter.split_once('=').ok_or(form)?;
            let value = decoded(value);
            match name {
                "use_ssl" => {
                    let flag = value.to_ascii_lowercase().parse::<bool>();
                    is_encrypted = Some(flag.map_err(|_| "use_ssl in url must be true or false")?);
                }
                "token" => token = token.or(Some(value)),
                "user_id" => user = value,
                name if IGNORED.contains(&name) || name.starts_with("grpc_keepalive") => {}
                name => headers.push(header(name, &value)?),
            }
        }
        let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        let is_encrypted = is_encrypted.unwrap_or(token.is_some() && !is_local);
        if let Some(token) = token {
            if !is_encrypted && !is_local {
                return Err("a token needs TLS: remove use_ssl=false from url".to_owned());
            }
            headers.push(header("authorization", &format!("Bearer {token}"))?);
        }
        let scheme = if is_encrypted { "https" } else { "http" };
        Ok(Endpoint { origin: format!("{scheme}://{host}:{port}"), user, headers })
    }
}

fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        // The colon is inside of an IPv6 address.
        Some((_, port)) if port.ends_with(']') => (authority, PORT),
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port > 0)?),
        None => (authority, PORT),
    };
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    (!host.is_empty() && host.chars().all(is_allowed)).then_some((host, port))
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("\"{name}\" in url cannot be a header of requests");
    let key = HeaderName::from_str(&name.to_ascii_lowercase()).map_err(|_| wrong())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((key, value))
}

/// Decodes `%41`.
pub fn decoded(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| bytes[at] == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, token: Option<&str>) -> Result<Endpoint, String> {
        Endpoint::of(&ConnectionSettings { url: url.to_owned(), token: token.map(str::to_owned) })
    }

    #[test]
    fn urls_name_host_port_tls_and_headers() {
        for (url, token, origin) in [
            ("sc://spark-1", None, "http://spark-1:15002"),
            ("sc://spark-1:7000/", None, "http://spark-1:7000"),
            ("sc://[::1]", None, "http://[::1]:15002"),
            ("sc://[::1]:7", Some("t"), "http://[::1]:7"),
            ("sc://a:443/;use_ssl=True", None, "https://a:443"),
            ("sc://a:443", Some("t"), "https://a:443"),
            ("sc://a/;token=t", None, "https://a:15002"),
        ] {
            assert_eq!(of(url, token).map(|endpoint| endpoint.origin), Ok(origin.to_owned()), "{url}");
        }
        let full = "sc://a/;user_id=me;token=t%3D1;x-databricks-cluster-id=12;user_agent=x;grpc_keepalive_time_ms=5";
        let endpoint = of(full, None).expect("right");
        let header = |name: &str| {
            let (_, value) = endpoint.headers.iter().find(|(key, _)| key == name)?;
            value.to_str().ok()
        };
        assert_eq!((endpoint.user.as_str(), endpoint.headers.len()), ("me", 2));
        assert_eq!(header("authorization"), Some("Bearer t=1"));
        assert_eq!(header("x-databricks-cluster-id"), Some("12"));
    }

    #[test]
    fn wrong_urls_are_refused_with_advice_and_without_secrets() {
        for (url, token, word) in [
            ("http://a", None, "sc://HOST:PORT"),
            ("sc://", None, "sc://HOST:PORT"),
            ("sc://a:0", None, "sc://HOST:PORT"),
            ("sc://a:99999", None, "sc://HOST:PORT"),
            ("sc://a@b", None, "sc://HOST:PORT"),
            ("sc://a/;hidden", None, "NAME=VALUE"),
            ("sc://a/;use_ssl=hidden", None, "true or false"),
            ("sc://a/;use_ssl=false", Some("hidden"), "needs TLS"),
            ("sc://a/;x y=hidden", None, "\"x y\""),
            ("sc://a/;x=hid%0Aden", None, "\"x\""),
        ] {
            let error = of(url, token).expect_err(url);
            assert!(error.contains(word) && !error.contains("hid"), "{url}: {error}");
        }
    }
}
