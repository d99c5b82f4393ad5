//! Counts what the server did with the lines of a file, and keeps the first rejections with their line numbers.

use std::fmt::Write;
use std::time::Duration;

use crate::human_units::{bytes, grouped};
use crate::line_batch::LineBatch;
use crate::sender::Receipt;

/// Number of rejections kept; further ones are only counted.
const REJECTIONS_KEPT: usize = 20;

/// The sum of all receipts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub lines: u64,
    pub bytes: u64,
    pub accepted: u64,
    pub duplicates: u64,
    pub late: u64,
    pub rejected: u64,
    /// Line number in the file, from 1, and reason.
    pub first_rejections: Vec<(u64, String)>,
}

impl Tally {
    /// Counts a batch and its receipt.
    pub fn add(&mut self, batch: &LineBatch, receipt: Receipt) {
        self.lines += batch.lines;
        self.bytes += batch.body.len() as u64;
        self.accepted += receipt.accepted;
        self.duplicates += receipt.duplicates;
        self.late += receipt.late;
        self.rejected += receipt.rejected;
        let room = REJECTIONS_KEPT - self.first_rejections.len();
        let rejections = receipt.rejections.into_iter().take(room);
        let in_file = |line: u64| batch.first_line + line.saturating_sub(1);
        self.first_rejections.extend(rejections.map(|rejection| (in_file(rejection.line), rejection.reason)));
    }

    /// Returns the first rejections, one per line.
    pub fn rejections(&self, file: &str) -> String {
        let mut text = String::new();
        for (line, reason) in &self.first_rejections {
            writeln!(text, "{file}:{line}: {reason}").expect("a String takes any text");
        }
        let more = self.rejected.saturating_sub(self.first_rejections.len() as u64);
        if more > 0 {
            writeln!(text, "... and {} more rejected lines", grouped(more)).expect("a String takes any text");
        }
        text
    }

    /// Returns all counts in one line.
    pub fn summary(&self, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(0.001);
        format!(
            "accepted {}, duplicates {}, late {}, rejected {} ({} in {seconds:.1} s, {} rows/s)",
            grouped(self.accepted),
            grouped(self.duplicates),
            grouped(self.late),
            grouped(self.rejected),
            bytes(self.bytes),
            grouped((self.lines as f64 / seconds) as u64),
        )
    }
}
