//! Computes windows with Polars where every measure is a reduction that Polars has.

pub mod column_stats;
pub mod group_by;
pub mod partial_rows;
pub mod reductions;
