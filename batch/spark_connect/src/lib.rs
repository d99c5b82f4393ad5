//! Sends plans to Apache Spark through Spark Connect, its gRPC interface. It knows nothing about views, files or runs.
//!
//! [`Session::open`] connects; [`Session::execute`] sends one [`Plan`] and waits for its [`Outcome`], also if the connection is
//! lost meanwhile: the operation continues in Spark, and the session attaches to it again.
//!
//! | module | contents |
//! |---|---|
//! | [`settings`], [`endpoint`] | how a server is reached: `[connections.NAME]` with `kind = "spark"` |
//! | [`channel`] | calls of gRPC over HTTP/2 |
//! | [`messages`] | the part of the protocol that is used; Spark ignores and adds fields as Protocol Buffers allow |
//! | [`plan`] | what can be executed |
//! | [`session`] | a session, its operations, their progress, interruption and results |

#![deny(clippy::disallowed_methods)]

mod channel;
mod endpoint;
mod error;
mod messages;
mod plan;
mod session;
pub mod settings;

pub use error::SparkError;
pub use plan::Plan;
pub use session::{Outcome, Progress, Session};
pub use settings::ConnectionSettings;
