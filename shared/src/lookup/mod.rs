//! Joins events with rows of tables as of the time of the event: `FROM orders JOIN customers ON orders.customer = customers.id`.
//!
//! [`definition`] describes the joins of a view; the joined columns have indexes of their own, behind those of every stream.
//! [`table`] keeps the versions of the rows of one table: by their keys ([`index`]), each with its time ([`history`]), and their values
//! ([`values`], [`texts`]).
//! [`join`] adds the joined columns to batches of events. Both layers join with the same code: speed with the versions that it knows
//! when it folds, batch with those before its cut. [`instant`] finds the version of one row in the same way, for `as_of`.

pub mod definition;
mod history;
mod index;
pub mod instant;
pub mod join;
mod key_table;
pub mod table;
mod texts;
mod values;

#[cfg(test)]
mod tests;
