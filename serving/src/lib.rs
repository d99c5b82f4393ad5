//! What does the reader see? Queries over batch and speed as one table, in several formats, over HTTP and on a page.
//!
//! Reading order: [`query`] says what may be asked, [`pin`] which state answers, [`answer`] what the answer is,
//! [`queries`] what making it may take, [`shares`] what is known of it already, [`formats`] how it is written, [`push`] how readers hear of changes; [`http`] puts doors in front, [`page`] a dashboard. Nothing here changes a figure.

pub mod admission;
pub mod answer;
mod approximate;
mod batch_merge_cache;
mod entity_tag;
mod figures;
pub mod finality;
pub mod formats;
pub mod http;
mod live;
mod nearest;
mod order;
mod page;
pub mod pin;
pub mod push;
pub mod query;
mod reach;
mod routes;
mod state;
mod window_text;

pub use routes::routes;
pub use state::ServingState;
