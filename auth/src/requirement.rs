//! Defines what an endpoint asks of a request. Each route has one requirement, from one table.

use problem::{Code, Problem};

use crate::access::Access;
use crate::scope::Action;

/// What a route asks for. A scope is one over the view or stream that the path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: probes, the login page, and the files of pages.
    Public,
    /// Valid credentials. The endpoint shows only what the principal may see, or checks a name that is not in the path.
    Authenticated,
    /// The scope for an action. The endpoint applies the row filter, or has no rows.
    Scope(Action),
    /// The scope for an action, and no row filter: the endpoint shows rows or sums of all tenants.
    ScopeOfAllRows(Action),
    /// The scope for an action on everything, and no row filter.
    ScopeOfAll(Action),
    /// The scope `admin`, and no row filter.
    Admin,
}

impl Requirement {
    /// Refuses the request if it does not meet the requirement. `names` are the values in the path.
    pub fn check<'a>(self, access: &Access, names: impl IntoIterator<Item = &'a str>) -> Result<(), Problem> {
        match self {
            Requirement::Public | Requirement::Authenticated => Ok(()),
            Requirement::Scope(action) => access.require(action, first(names)?),
            Requirement::ScopeOfAllRows(action) => {
                access.require(action, first(names)?)?;
                access.require_all_rows()
            }
            Requirement::ScopeOfAll(action) => {
                access.require_all(action)?;
                access.require_all_rows()
            }
            Requirement::Admin => {
                access.require_admin()?;
                access.require_all_rows()
            }
        }
    }
}

fn first<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<&'a str, Problem> {
    let missing = || Problem::new(Code::Internal, "the path names neither a view nor a stream");
    names.into_iter().next().ok_or_else(missing)
}
