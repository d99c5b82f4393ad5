//! Compares expressions with an interpreter that works row by row and does not use Polars, and tests the bounds of texts.

mod bounds;
mod interpreter;
mod null_checks;
mod random;
mod table;
