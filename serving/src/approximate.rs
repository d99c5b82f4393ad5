//! Which measures are estimated by speed and exact in batch? Those that count distinct values, rank them or take quantiles.

use shared::view::{AggregateFunction, View};

/// Does the measure with this index read an aggregate that speed keeps as a sketch once its group is large?
pub fn reads_estimates(view: &View, measure: usize) -> bool {
    let mut reads = false;
    view.measures[measure].expression.for_each_column(&mut |aggregate| {
        let function = view.aggregates[aggregate].function;
        reads |= matches!(
            function,
            AggregateFunction::CountDistinct | AggregateFunction::Percentile { .. } | AggregateFunction::TopK { .. }
        );
    });
    reads
}

/// The layer in which the measure is exact, if it is not so in all: as answers show it.
pub fn exact_in(view: &View, measure: usize) -> Option<&'static str> {
    reads_estimates(view, measure).then_some("batch")
}
