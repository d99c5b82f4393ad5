//! Defines scopes: what a key may do, and with which view or stream.
//!
//! `read:departures`, `run:*`, `ingest:flights`, `admin`. `admin` includes everything.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de};

/// What a scope permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Send events to a stream.
    Ingest,
    /// Read the rows, the state and the runs of a view.
    Read,
    /// Start and cancel batch runs of a view.
    Run,
}

/// One permission.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everything.
    Admin,
    /// An action on the view or stream with this name.
    Of(Action, String),
    /// An action on all views or streams.
    OfAll(Action),
}

/// A text that is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a scope: use read:VIEW, run:VIEW, ingest:STREAM (or * for all of them) or admin")]
pub struct WrongScope(String);

/// The permissions of a principal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(pub Vec<Scope>);

impl Action {
    /// Every action, by name.
    const NAMES: [(Action, &'static str); 3] =
        [(Action::Ingest, "ingest"), (Action::Read, "read"), (Action::Run, "run")];

    /// Returns the name in scopes.
    pub fn name(self) -> &'static str {
        Action::NAMES.iter().find(|(action, _)| *action == self).map_or("", |(_, name)| name)
    }
}

impl Scopes {
    /// Returns true if `action` is permitted on `name`.
    pub fn permit(&self, action: Action, name: &str) -> bool {
        self.0.iter().any(|scope| match scope {
            Scope::Admin => true,
            Scope::OfAll(permitted) => *permitted == action,
            Scope::Of(permitted, of) => *permitted == action && of == name,
        })
    }

    /// Returns true if `action` is permitted on all views or streams, those of the future included.
    pub fn permit_all(&self, action: Action) -> bool {
        self.0.iter().any(|scope| *scope == Scope::Admin || *scope == Scope::OfAll(action))
    }

    /// Returns true if everything is permitted.
    pub fn is_admin(&self) -> bool {
        self.0.contains(&Scope::Admin)
    }
}

impl FromStr for Scope {
    type Err = WrongScope;

    fn from_str(text: &str) -> Result<Scope, WrongScope> {
        let wrong = || WrongScope(text.to_owned());
        if text == "admin" {
            return Ok(Scope::Admin);
        }
        let (action, name) = text.split_once(':').ok_or_else(wrong)?;
        let (action, _) = Action::NAMES.into_iter().find(|(_, known)| *known == action).ok_or_else(wrong)?;
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        match name {
            "*" => Ok(Scope::OfAll(action)),
            _ if is_name => Ok(Scope::Of(action, name.to_owned())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Admin => f.write_str("admin"),
            Scope::Of(action, name) => write!(f, "{}:{name}", action.name()),
            Scope::OfAll(action) => write!(f, "{}:*", action.name()),
        }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.0.iter().enumerate() {
            write!(f, "{}{scope}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Scope, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(texts: &[&str]) -> Scopes {
        Scopes(texts.iter().map(|text| text.parse().expect("a scope")).collect())
    }

    #[test]
    fn scopes_permit_what_they_name_and_nothing_else() {
        let some = scopes(&["read:departures", "ingest:*"]);
        assert_eq!(some.to_string(), "read:departures ingest:*");
        assert!(some.permit(Action::Read, "departures") && some.permit(Action::Ingest, "flights"));
        assert!(!some.permit(Action::Read, "delays") && !some.permit(Action::Run, "departures") && !some.is_admin());
        assert!(some.permit_all(Action::Ingest) && !some.permit_all(Action::Read));
        let admin = scopes(&["admin"]);
        assert!(admin.permit(Action::Run, "x") && admin.permit_all(Action::Read) && admin.is_admin());
        assert!(!Scopes::default().permit(Action::Read, "departures"));
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in ["", "read", "read:", "write:x", "read:a b", "Admin", "read:a*", "*", "read:../x"] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong}");
        }
    }
}
