//! Runs the real program for integration tests and computes what it must return.
//!
//! [`World`] is a server over a temporary folder, [`program`] runs commands, [`requests`] sends bytes as written, [`browser`] reads pages, [`demo`], [`s3`] and
//! [`webhook_receiver`] start what else a test needs. The [`oracle`] computes results without any of the system's code; [`oracle_check`]
//! compares a server with it, along random [`scenarios`] or changing definitions ([`changing_view`]); [`joined_views`] does both for joins.
//!
//! All of it is compiled once. It depends on no crate of the product.

pub mod browser;
pub mod changing_view;
pub mod demo;
pub mod joined_views;
pub mod oracle;
pub mod oracle_check;
pub mod program;
pub mod recipes;
pub mod requests;
pub mod s3;
pub mod scenarios;
mod server;
pub mod webhook_receiver;

use std::path::{Path, PathBuf};

pub use server::{Answer, Elsewhere, World, encoded};

/// Returns the root of the source tree. Tests read there and write elsewhere.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two folders below the root")
}

/// Returns the flights that come with the project.
pub fn flights_file() -> PathBuf {
    root().join("examples/flights/flights.parquet")
}
