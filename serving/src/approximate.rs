//! Finds the measures that speed estimates and batch computes exactly: distinct counts, rankings and quantiles.

use shared::view::{View, ViewLayers};

/// Returns true if the measure with this index reads an aggregate that speed keeps as a sketch once its group is large.
pub fn reads_estimates(view: &View, measure: usize) -> bool {
    let mut reads = false;
    view.measures[measure].expression.for_each_column(&mut |aggregate| {
        reads |= view.aggregates[aggregate].is_estimated();
    });
    reads
}

/// Returns the layer in which the measure is exact, as responses show it: `none` of a view of the speed layer alone. `None` if it is
/// exact in all.
pub fn exact_in(view: &View, measure: usize) -> Option<&'static str> {
    let layer = match view.layers {
        ViewLayers::Both => "batch",
        ViewLayers::Speed => "none",
    };
    reads_estimates(view, measure).then_some(layer)
}
