//! The queries that views become on Apache Spark, run by a real one: every window with every measure against the oracle, and every
//! expression against the values of Trueup's own batch layer. Batch runs that Spark computes, with faults in between, and of joined views.

mod archive;
mod connect;
mod driver;
mod expressions;
mod faults;
mod kills;
mod lookups;
mod object_store;
mod recipes;
mod runs;
mod sail;
mod verify;
mod views;
