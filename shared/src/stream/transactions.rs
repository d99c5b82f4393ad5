//! Says how the changes that one transaction of a source makes to a table become visible.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the changes of a transaction become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transactions {
    /// Each by itself, in their order.
    #[default]
    Parts,
    /// All of them together, in one frame of the log: no reader of the table sees some of them without the others.
    Whole,
}

impl Transactions {
    /// The values of the option `transactions`.
    pub const NAMES: [&str; 2] = ["parts", "whole"];

    /// Returns the value with this name.
    pub fn named(name: &str) -> Option<Transactions> {
        match name {
            "parts" => Some(Transactions::Parts),
            "whole" => Some(Transactions::Whole),
            _ => None,
        }
    }
}

impl fmt::Display for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transactions::Parts => "parts",
            Transactions::Whole => "whole",
        })
    }
}
