//! Tests tables through the real binary: figures over rows that change, in both layers, and the rows themselves.

mod alerts;
mod changes;
mod crashes;
mod histories;
mod past;
mod reading;
mod recipes;
mod semantics;
mod sessions;
