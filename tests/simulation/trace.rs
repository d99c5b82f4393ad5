//! Records the calls of a scenario and their results: as a hash, to compare two runs, and the last ones as text.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Calls kept as text.
const KEPT: usize = 150;

/// The calls of one scenario so far.
#[derive(Debug, Default)]
pub struct Trace {
    hasher: DefaultHasher,
    calls: u64,
    last: VecDeque<String>,
}

impl Trace {
    /// Records a call with its result.
    pub fn note(&mut self, call: String) {
        call.hash(&mut self.hasher);
        self.calls += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(call);
    }

    /// The number of calls and the hash of all of them.
    pub fn sum(&self) -> (u64, u64) {
        (self.calls, self.hasher.clone().finish())
    }

    /// The last calls, one a line.
    pub fn text(&self) -> String {
        self.last.iter().map(|call| format!("  {call}\n")).collect()
    }
}
