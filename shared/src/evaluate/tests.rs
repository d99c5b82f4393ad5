//! Compares expressions with an interpreter that works row by row and does not use Polars.

mod interpreter;
mod random;
mod table;
