//! The queries that views become on Apache Spark, run by a real one: every window with every measure against the oracle, and every
//! expression against the values of Trueup's own batch layer.

mod archive;
mod driver;
mod expressions;
mod recipes;
mod views;
