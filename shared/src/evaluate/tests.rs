//! Do expressions mean what the dialect says? Against an interpreter that works row by row and knows nothing of Polars.

mod interpreter;
mod random;
mod table;
