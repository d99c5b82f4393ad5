//! Describes the sender of a request and what it may do. The guard puts it into every request.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use problem::{Code, Problem};

use crate::key_file::{KeyId, StoredKey};
use crate::rate::Rate;
use crate::scope::{Action, Scope, Scopes};

/// The address from which a request came; the listener puts it into every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// The sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Any client: the server asks for no credentials.
    Everyone,
    /// A client without credentials, at an endpoint that needs none.
    Visitor,
    /// The holder of a key.
    Key { id: KeyId, label: Option<String> },
    /// The holder of a token, by its subject.
    Token { subject: String },
}

/// A principal and its permissions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access(Arc<Grants>);

#[derive(Debug)]
struct Grants {
    principal: Principal,
    scopes: Scopes,
    row_filter: Option<Arc<str>>,
    rates: Vec<Rate>,
}

impl Access {
    fn new(principal: Principal, scopes: Scopes) -> Access {
        Access(Arc::new(Grants { principal, scopes, row_filter: None, rates: Vec::new() }))
    }

    /// Returns the access of every client of a server without keys.
    pub fn everything() -> Access {
        Access::new(Principal::Everyone, Scopes(vec![Scope::Admin]))
    }

    /// Returns the access of a client without credentials.
    pub fn visitor() -> Access {
        Access::new(Principal::Visitor, Scopes::default())
    }

    /// Returns the access of a key.
    pub fn of_key(key: &StoredKey) -> Access {
        Access(Arc::new(Grants {
            principal: Principal::Key { id: key.id.clone(), label: key.label.clone() },
            scopes: key.scopes.clone(),
            row_filter: key.row_filter.as_deref().map(Arc::from),
            rates: key.rates.clone(),
        }))
    }

    /// Returns the access of a token, whose subject may send requests at `rates`.
    pub fn of_token(subject: &str, scopes: Scopes, row_filter: Option<&str>, rates: &[Rate]) -> Access {
        let principal = Principal::Token { subject: subject.to_owned() };
        let row_filter = row_filter.map(Arc::from);
        Access(Arc::new(Grants { principal, scopes, row_filter, rates: rates.to_vec() }))
    }

    /// Returns who sent the request.
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// Returns the condition over dimensions that every row has to meet; `None` if there is none.
    pub fn row_filter(&self) -> Option<&Arc<str>> {
        self.0.row_filter.as_ref()
    }

    /// Returns the rates of the principal.
    pub fn rates(&self) -> &[Rate] {
        &self.0.rates
    }

    /// Returns true if `action` is permitted on the view or stream `name`.
    pub fn may(&self, action: Action, name: &str) -> bool {
        self.0.scopes.permit(action, name)
    }

    /// Returns true if the view is visible: it may be read, or its runs may be started.
    pub fn may_see_view(&self, view: &str) -> bool {
        self.may(Action::Read, view) || self.may(Action::Run, view)
    }

    /// Refuses if `action` is not permitted on `name`.
    pub fn require(&self, action: Action, name: &str) -> Result<(), Problem> {
        match self.may(action, name) {
            true => Ok(()),
            false => Err(self.lacks(&Scope::Of(action, name.to_owned()))),
        }
    }

    /// Refuses if `action` is not permitted on all views or streams.
    pub fn require_all(&self, action: Action) -> Result<(), Problem> {
        match self.0.scopes.permit_all(action) {
            true => Ok(()),
            false => Err(self.lacks(&Scope::OfAll(action))),
        }
    }

    /// Refuses if not everything is permitted.
    pub fn require_admin(&self) -> Result<(), Problem> {
        match self.0.scopes.is_admin() {
            true => Ok(()),
            false => Err(self.lacks(&Scope::Admin)),
        }
    }

    /// Refuses a principal with a row filter, at endpoints whose response cannot be filtered.
    pub fn require_all_rows(&self) -> Result<(), Problem> {
        if self.0.row_filter.is_none() {
            return Ok(());
        }
        let detail = format!("{self} has a row filter, which this endpoint cannot apply; use /rows or /live");
        Err(Problem::new(Code::RowFilter, detail))
    }

    fn lacks(&self, scope: &Scope) -> Problem {
        let detail = format!("{self} does not have the scope {scope}; `trueup key create --scope {scope}` makes one");
        Problem::new(Code::MissingScope, detail)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Everyone => f.write_str("everyone"),
            Principal::Visitor => f.write_str("visitor"),
            Principal::Token { subject } => write!(f, "token of {subject}"),
            Principal::Key { id, label: None } => write!(f, "key {id}"),
            Principal::Key { id, label: Some(label) } => write!(f, "key {id} ({label})"),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.principal.fmt(f)
    }
}

impl<S: Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    /// Returns the access that the guard found. Without a guard there is none: the request is refused.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Access, Problem> {
        let found = parts.extensions.get::<Access>().cloned();
        found.ok_or_else(|| Problem::new(Code::Internal, "the request has passed no guard"))
    }
}
