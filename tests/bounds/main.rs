//! Drives the real server to its bounds from outside, and measures its memory: it stays below the sum of the budgets that
//! the attack can fill, and a good client is served.
//!
//! [`budget`] adds up the budgets, [`sockets`] holds the connections of attackers. Every other module is one attack.
//! `docs/limits.md` names the test that drives each limit.

mod budget;
mod compressed_responses;
mod dripping_senders;
mod endless_bodies;
mod heavy_queries;
mod http2;
mod lake_away;
mod large_events;
mod live_subscribers;
mod many_connections;
mod many_dates;
mod sockets;
mod unread_responses;

/// Returns a number that an environment variable sets for longer runs.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
