//! Refuses requests of the side that a process does not serve: commands, which append events, or queries, which read views.
//! What both need is served in either role: states and events of single entities, streams, health, metrics, documents.

use std::str::FromStr;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use problem::{Code, Problem};

/// The sides that a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    commands: bool,
    queries: bool,
}

/// A text that names no roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoles {
    #[error("unknown role \"{0}\": the roles are commands and queries, separated by a comma")]
    Unknown(String),
    #[error(
        "the role \"{0}\" is not supported yet: all layers run in one process, which may refuse commands or queries only"
    )]
    NotYet(String),
}

/// The side that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Commands,
    Queries,
    Both,
}

impl Default for Roles {
    fn default() -> Roles {
        Roles { commands: true, queries: true }
    }
}

impl FromStr for Roles {
    type Err = InvalidRoles;

    fn from_str(text: &str) -> Result<Roles, InvalidRoles> {
        let mut roles = Roles { commands: false, queries: false };
        for role in text.split(',').map(str::trim) {
            match role {
                "commands" => roles.commands = true,
                "queries" => roles.queries = true,
                "intake" | "speed" | "batch" | "serving" => return Err(InvalidRoles::NotYet(role.to_owned())),
                other => return Err(InvalidRoles::Unknown(other.to_owned())),
            }
        }
        Ok(roles)
    }
}

/// The beginnings of paths that only a process with queries serves.
const QUERIES: [&str; 9] =
    ["/v1/views", "/v1/runs", "/v1/alerts", "/v1/sinks", "/view", "/compare", "/batch", "/alerts", "/sinks"];

/// The side of a method and the pattern of a path.
fn side(method: &Method, path: &str) -> Side {
    let is_change = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let begins = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match path {
        _ if begins("/v1/events") => Side::Commands,
        "/v1/entities/{stream}" if !is_change => Side::Queries,
        _ if begins("/v1/entities") && is_change => Side::Commands,
        "/" => Side::Queries,
        _ if QUERIES.iter().any(|prefix| begins(prefix)) => Side::Queries,
        _ => Side::Both,
    }
}

impl Roles {
    /// Refuses a request of a side that this process does not serve.
    pub(super) fn check(self, request: &Request) -> Result<(), Problem> {
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let (is_served, role, other) = match path.map_or(Side::Both, |path| side(request.method(), path)) {
            Side::Commands => (self.commands, "queries", "commands"),
            Side::Queries => (self.queries, "commands", "queries"),
            Side::Both => (true, "", ""),
        };
        if is_served {
            return Ok(());
        }
        let detail = format!("this process serves {role} only (--roles {role}); send {other} to one that serves them");
        Err(Problem::new(Code::WrongRole, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_layers_are_refused_with_the_reason() {
        assert_eq!("commands".parse(), Ok(Roles { commands: true, queries: false }));
        assert_eq!("queries, commands".parse(), Ok(Roles::default()));
        assert_eq!("intake,speed".parse::<Roles>(), Err(InvalidRoles::NotYet("intake".to_owned())));
        for wrong in ["", "command", "commands,"] {
            assert!(matches!(wrong.parse::<Roles>(), Err(InvalidRoles::Unknown(_))), "{wrong}");
        }
    }

    #[test]
    fn every_change_of_events_is_a_command_and_every_view_a_query() {
        for (method, path, _) in crate::ROUTES {
            let method: Method = method.parse().expect("a method");
            let expected = match *path {
                "/v1/events/{stream}" => Side::Commands,
                "/v1/entities/{stream}" | "/v1/entities/{stream}/{id}/events" if method == Method::POST => {
                    Side::Commands
                }
                "/v1/entities/{stream}/{id}" if method == Method::DELETE => Side::Commands,
                "/v1/entities/{stream}" | "/" | "/batch" => Side::Queries,
                "/alerts" | "/sinks" => Side::Queries,
                path if path.starts_with("/v1/alerts") || path.starts_with("/v1/sinks") => Side::Queries,
                path if path.contains("{view}") || path.contains("/runs") || path == "/v1/views" => Side::Queries,
                _ => Side::Both,
            };
            assert_eq!(side(&method, path), expected, "{method} {path}");
        }
    }
}
