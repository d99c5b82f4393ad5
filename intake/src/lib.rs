//! How does an event enter, become durable and reach the lake?

pub mod archive;
