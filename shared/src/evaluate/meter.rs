//! Bounds the texts that one evaluation builds, in bytes, and stops the evaluation with its query.
//!
//! Functions that build texts ask before they build: a text over [`TextBounds::value_bytes_max`] becomes NULL and its row is
//! noted, and texts that are too large together stop the evaluation. So memory is bounded whatever the expression.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use polars::prelude::{PolarsResult, Series, StringChunkedBuilder, polars_bail};

use crate::limits::{EVALUATED_TEXT_BYTES_MAX, EVALUATION_BYTES_MAX};
use crate::partial::query_budget::{Exceeded, QueryBudget};

/// Limits of the texts that an evaluation may build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextBounds {
    /// Bytes of one text.
    pub value_bytes_max: usize,
    /// Bytes of all texts of the rows that are evaluated at once, intermediate ones included.
    pub piece_bytes_max: usize,
}

impl TextBounds {
    /// The bounds of every expression that could build texts of any length.
    pub const DEFAULT: TextBounds =
        TextBounds { value_bytes_max: EVALUATED_TEXT_BYTES_MAX, piece_bytes_max: EVALUATION_BYTES_MAX };
    /// Bounds the rows that are evaluated at once, but no single row: for expressions that cannot outgrow their input.
    pub const OF_PIECES: TextBounds = TextBounds { value_bytes_max: usize::MAX, ..TextBounds::DEFAULT };
    /// No bounds.
    pub const NONE: TextBounds = TextBounds { value_bytes_max: usize::MAX, piece_bytes_max: usize::MAX };
}

impl TextBounds {
    /// Returns whether no row may fail by the length of its texts.
    pub fn may_not_fail(self) -> bool {
        self.value_bytes_max == usize::MAX
    }
}

/// The rows whose texts were too long.
#[derive(Debug, Default)]
struct OutgrownRows {
    /// Row numbers, perhaps repeated.
    rows: Vec<u32>,
    /// A constant was too long: every row has it.
    all: bool,
}

/// Counts the texts of one evaluation.
#[derive(Debug)]
pub(super) struct Meter {
    bounds: TextBounds,
    query: QueryBudget,
    rows: usize,
    built_bytes: AtomicUsize,
    is_full: AtomicBool,
    outgrown: Mutex<OutgrownRows>,
    stopped: Mutex<Option<Exceeded>>,
}

impl Meter {
    /// Returns a meter for an evaluation of `rows` rows on behalf of `query`.
    pub fn new(bounds: TextBounds, query: &QueryBudget, rows: usize) -> Meter {
        Meter {
            bounds,
            query: query.clone(),
            rows,
            built_bytes: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            outgrown: Mutex::default(),
            stopped: Mutex::default(),
        }
    }

    /// Returns a meter that stops nothing.
    pub fn unlimited() -> Meter {
        Meter::new(TextBounds::NONE, &QueryBudget::unlimited(), usize::MAX)
    }

    /// Fails if the query is over. Called before each step of an expression.
    pub fn check(&self) -> PolarsResult<()> {
        if let Err(exceeded) = self.query.check(0) {
            *self.stopped.lock() = Some(exceeded);
            polars_bail!(ComputeError: "{exceeded}");
        }
        Ok(())
    }

    /// Returns why the query is over, if that stopped the evaluation.
    pub fn stopped(&self) -> Option<Exceeded> {
        *self.stopped.lock()
    }

    /// Returns whether the texts were too large together.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Returns the rows whose texts were too long, ascending.
    pub fn outgrown_rows(&self) -> Vec<u32> {
        let OutgrownRows { mut rows, all } = std::mem::take(&mut *self.outgrown.lock());
        if all {
            return (0..self.rows as u32).collect();
        }
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    fn note(&self, row: usize, rows: usize) {
        let mut outgrown = self.outgrown.lock();
        if rows == self.rows {
            outgrown.rows.push(row as u32);
        } else {
            outgrown.all = true;
        }
    }

    /// Counts the bytes of texts that have been built. Fails if they are too many.
    fn count(&self, bytes: usize) -> PolarsResult<()> {
        let before = self.built_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.bounds.piece_bytes_max {
            self.is_full.store(true, Ordering::Relaxed);
            polars_bail!(ComputeError: "the texts of an expression exceed {} bytes", self.bounds.piece_bytes_max);
        }
        Ok(())
    }
}

/// Bytes of texts after which a [`TextColumn`] counts them.
const COUNTED_AT_ONCE: usize = 1 << 20;

/// A column of texts that grows row by row within the bounds of an evaluation.
pub(super) struct TextColumn<'a> {
    meter: &'a Meter,
    builder: StringChunkedBuilder,
    rows: usize,
    row: usize,
    uncounted_bytes: usize,
}

impl<'a> TextColumn<'a> {
    /// Returns an empty column that will have as many rows as `like`, and its name.
    pub fn new(meter: &'a Meter, like: &Series) -> TextColumn<'a> {
        let builder = StringChunkedBuilder::new(like.name().clone(), like.len());
        TextColumn { meter, builder, rows: like.len(), row: 0, uncounted_bytes: 0 }
    }

    /// Returns the bytes that a text may have at most.
    pub fn value_bytes_max(&self) -> usize {
        self.meter.bounds.value_bytes_max
    }

    /// Adds a text.
    pub fn push(&mut self, text: &str) -> PolarsResult<()> {
        self.uncounted_bytes += text.len();
        if self.uncounted_bytes >= COUNTED_AT_ONCE {
            self.count()?;
        }
        self.builder.append_value(text);
        self.row += 1;
        Ok(())
    }

    /// Adds NULL.
    pub fn push_null(&mut self) {
        self.builder.append_null();
        self.row += 1;
    }

    /// Adds NULL in place of a text that would be too long, and notes the row.
    pub fn push_outgrown(&mut self) {
        self.meter.note(self.row, self.rows);
        self.push_null();
    }

    /// Returns the column.
    pub fn finish(mut self) -> PolarsResult<Series> {
        use polars::prelude::IntoSeries;
        self.count()?;
        Ok(self.builder.finish().into_series())
    }

    fn count(&mut self) -> PolarsResult<()> {
        self.meter.count(std::mem::take(&mut self.uncounted_bytes))
    }
}
