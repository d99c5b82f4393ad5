//! Finds what two definitions of a view have in common: the dimensions and measures by which their rows can be compared.

use std::sync::Arc;

use shared::changes::view::{same_measure, view_changes};
use shared::compare::DefinitionChange;
use shared::stream::Stream;
use shared::view::{Dimension, Measure, View};

/// The served and the exact definition of a view, and what both have.
#[derive(Debug, Clone)]
pub struct Pairing {
    pub served: Arc<View>,
    pub exact: Arc<View>,
    /// The dimensions that both group by, as indices into those of the served view.
    pub served_dimensions: Vec<usize>,
    /// The same, as indices into those of the exact view.
    pub exact_dimensions: Vec<usize>,
    pub measures: Vec<MeasurePair>,
}

/// A measure that both definitions have.
#[derive(Debug, Clone, Copy)]
pub struct MeasurePair {
    /// Its index in the served view.
    pub served: usize,
    /// Its index in the exact view.
    pub exact: usize,
    /// It means the same in both, so that a difference has another cause than the definition.
    pub same: bool,
}

impl Pairing {
    /// Pairs two definitions of a view of `stream`.
    pub fn new(served: &Arc<View>, exact: &Arc<View>, stream: &Stream) -> Pairing {
        let dimension = |(index, dimension): (usize, &Dimension)| {
            let of_served = served.dimensions.iter().position(|served| served == dimension)?;
            Some((of_served, index))
        };
        let (served_dimensions, exact_dimensions): (Vec<usize>, Vec<usize>) =
            exact.dimensions.iter().enumerate().filter_map(dimension).unzip();
        let same_groups = [served, exact].iter().all(|view| view.dimensions.len() == exact_dimensions.len());
        let pair = |(index, measure): (usize, &Measure)| {
            let of_served = served.measure(&measure.name)?;
            let same_type = served.measures[of_served].expression.data_type == measure.expression.data_type;
            let same = same_groups && same_measure(served, of_served, exact, index, stream);
            same_type.then_some(MeasurePair { served: of_served, exact: index, same })
        };
        let measures = exact.measures.iter().enumerate().filter_map(pair).collect();
        Pairing { served: Arc::clone(served), exact: Arc::clone(exact), served_dimensions, exact_dimensions, measures }
    }

    /// Returns why rows of the two definitions cannot be paired; `None`: they can.
    pub fn not_comparable(&self) -> Option<&'static str> {
        if self.served.window != self.exact.window {
            return Some("their windows are not the same");
        }
        self.measures.is_empty().then_some("they have no measure of the same name and type")
    }

    /// Returns whether groups of both views have the same bytes.
    pub fn same_keys(&self) -> bool {
        let all = |view: &View, kept: &[usize]| kept.iter().copied().eq(0..view.dimensions.len());
        all(&self.served, &self.served_dimensions) && all(&self.exact, &self.exact_dimensions)
    }

    /// Returns what the exact definition changed; `None`: both compute the same.
    pub fn change(&self, stream: &Stream, not_comparable: Option<&str>) -> Option<DefinitionChange> {
        let (before, after) = (&self.served, &self.exact);
        if before.definition_hash() == after.definition_hash() {
            return None;
        }
        let name = |index: &usize| after.dimensions[*index].name.clone();
        Some(DefinitionChange {
            before: before.sql.clone(),
            after: after.sql.clone(),
            changes: view_changes(before, after, stream),
            compared_by: self.exact_dimensions.iter().map(name).collect(),
            not_comparable: not_comparable.map(str::to_owned),
        })
    }
}
