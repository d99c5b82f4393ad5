//! Decides who may do what: keys, sessions of browsers, scopes, and the guard in front of every endpoint.
//!
//! A request passes through these stages: credentials (a key, a token or a session) → [`access::Access`] (the principal with its
//! scopes and its row filter) → [`requirement::Requirement`] of the route → the endpoint, which finds the access in the
//! request. [`key_file`] stores keys as hashes, [`keyring`] reads them again when the file changes, [`session`] holds the
//! sessions, [`token`] verifies tokens of another issuer, [`guard`] joins all of them, [`trail`] records what was done. No layer but serving needs this crate.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod access;
pub mod guard;
pub mod key_file;
pub mod keyring;
pub mod rate;
pub mod requirement;
pub mod scope;
pub mod secret;
pub mod session;
pub mod token;
pub mod trail;

pub use access::{Access, PeerAddress, Principal};
pub use guard::Guard;
pub use requirement::Requirement;
pub use scope::{Action, Scope, Scopes};
