//! Decides what a run reads and what it replaces. Works on lists of files and cuts; opens no file.

pub mod planner;
pub mod retention;
pub mod sessions;
