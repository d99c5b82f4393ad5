//! Writes what a view computes as a query of Apache Spark, from the typed tree of its definition, never from its text.
//!
//! The query gives the rows that batch computes: for every view and every set of events, equal values where the type is exact,
//! and DOUBLEs that differ in the last digits only. Where an operation of Spark means something else, the query says what the
//! dialect means; where it cannot, the view is refused with a reason ([`Refusal`]). Nothing is sent to Spark here.
//!
//! | module | writes |
//! |---|---|
//! | [`mod@statement`] | the whole query, stage by stage |
//! | [`mod@states`] | the query of a batch run, whose rows are mergeable states |
//! | [`events`] | the columns that the query reads, without duplicates |
//! | [`lookups`] | the joins of events with the versions of the rows of tables |
//! | [`windows`], [`calendar`] | the windows of each event; cells of calendars as tables, by our own rules of time zones |
//! | [`aggregates`], [`percentiles`], [`spread`], [`top`] | values per window and group |
//! | [`scalar`], [`numbers`], [`texts`], [`moments`], [`casts`] | expressions |
//! | [`quote`] | names, constants and types |

#![deny(clippy::disallowed_methods)]

mod aggregates;
mod calendar;
mod casts;
mod events;
mod lookups;
mod moments;
mod numbers;
mod percentiles;
mod quote;
mod refusal;
mod scalar;
mod spread;
mod statement;
mod states;
#[cfg(test)]
mod tests;
mod texts;
mod top;
mod windows;

pub use self::calendar::CalendarTables;
pub use self::lookups::{FIRST, KEY, LAST, VersionColumn, VersionTable};
pub use self::refusal::Refusal;
pub use self::statement::{EVENTS, SETTINGS, Statement, schema, statement};
pub use self::states::{DATE, RUN_SETTINGS, Scope, copies, states};
