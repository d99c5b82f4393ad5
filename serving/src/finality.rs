//! How settled is a row? From the watermark, the end of its window and the layers it came from.

use std::time::Duration;

use shared::time::{Micros, micros_of};

/// How settled a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finality {
    /// Events of its window are still expected.
    Open,
    /// The watermark has passed the end of its window; late events may still change it, and batch may true it up.
    Closed,
    /// The watermark has passed allowed lateness too, and all of it comes from batch.
    Final,
}

impl Finality {
    /// As answers show it.
    pub fn name(self) -> &'static str {
        match self {
            Finality::Open => "open",
            Finality::Closed => "closed",
            Finality::Final => "final",
        }
    }
}

/// What is needed to judge the rows of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Judge {
    pub watermark: Option<Micros>,
    pub allowed_lateness: Duration,
}

impl Judge {
    /// Judges a row whose window ends at `end` (microseconds; `None`: never), `live` if speed has a part in it.
    pub fn judge(self, end: Option<i64>, live: bool) -> Finality {
        let (Some(watermark), Some(end)) = (self.watermark, end) else { return Finality::Open };
        if watermark.0 < end {
            Finality::Open
        } else if live || watermark.0 < end.saturating_add(micros_of(self.allowed_lateness)) {
            Finality::Closed
        } else {
            Finality::Final
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_final_once_lateness_is_over_and_batch_has_all_of_it() {
        let at = |watermark| Judge { watermark, allowed_lateness: Duration::from_micros(5) };
        let cases = [
            (None, Some(10), false, Finality::Open),
            (Some(9), Some(10), false, Finality::Open),
            (Some(10), Some(10), false, Finality::Closed),
            (Some(14), Some(10), false, Finality::Closed),
            (Some(15), Some(10), false, Finality::Final),
            (Some(15), Some(10), true, Finality::Closed),
            (Some(i64::MAX), None, false, Finality::Open),
        ];
        for (watermark, end, live, expected) in cases {
            assert_eq!(at(watermark.map(Micros)).judge(end, live), expected, "{watermark:?} {end:?} {live}");
        }
    }
}
