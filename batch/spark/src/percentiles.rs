//! Writes percentiles: the values of a group as a sorted array, and the place in it by the arithmetic of
//! [`shared::partial::sketch::percentile`].

use crate::quote;

/// A percentile of the sorted array in a column.
#[derive(Debug, Clone, Copy)]
pub struct Percentile<'a> {
    /// Distinguishes its columns from those of other percentiles.
    pub number: usize,
    pub values: &'a str,
    /// From 0 to 1.
    pub fraction: f64,
    pub continuous: bool,
    pub descending: bool,
}

/// Writes the array that a group's percentiles read. NaN is ignored like NULL.
pub fn array(input: &str, is_double: bool, filter: &str) -> String {
    let value =
        if is_double { format!("CASE WHEN NOT isnan({input}) THEN {input} + 0D END") } else { input.to_owned() };
    format!("array_sort(collect_list({value}){filter})")
}

impl Percentile<'_> {
    /// Writes the columns that [`Percentile::value`] reads: the place as `__w<number>`, and of a continuous one its two
    /// neighbours as `__b<number>` and `__h<number>`.
    pub fn columns(self) -> Vec<String> {
        let Percentile { number, values, .. } = self;
        if !self.continuous {
            return vec![format!("{} AS __w{number}", self.discrete_place())];
        }
        let place = format!("({} * (size({values}) - 1))", quote::double(self.fraction));
        // A place beyond the array gives NULL.
        let at = |step: u32| format!("CAST(get({values}, CAST(floor({place}) AS INT) + {step}) AS DOUBLE)");
        vec![
            format!("{place} - floor({place}) AS __w{number}"),
            format!("{} AS __b{number}", at(0)),
            format!("coalesce({}, {}) AS __h{number}", at(1), at(0)),
        ]
    }

    /// Writes the value.
    pub fn value(self) -> String {
        let Percentile { number, values, .. } = self;
        if !self.continuous {
            return format!("get({values}, __w{number})");
        }
        let (below, above, share) = (format!("__b{number}"), format!("__h{number}"), format!("__w{number}"));
        format!(
            "(CASE WHEN {share} <= 0D OR {below} = {above} THEN {below} \
             WHEN abs({above} - {below}) < CAST('Infinity' AS DOUBLE) THEN {below} + ({above} - {below}) * {share} \
             ELSE {below} * (1D - {share}) + {above} * {share} END)"
        )
    }

    /// The first value that at least the fraction of all values do not exceed, counted from 0. What floats make of a decimal
    /// fraction does not count.
    fn discrete_place(self) -> String {
        let count = format!("size({})", self.values);
        let share = format!("({} * {count})", quote::double(self.fraction));
        let rank = format!(
            "CASE WHEN abs({share} - round({share})) <= 1e-12D * {share} THEN round({share}) ELSE CAST(ceil({share}) AS DOUBLE) END"
        );
        let rank = format!("CAST(least(greatest({rank}, 1D), {count}) AS INT)");
        if self.descending { format!("{count} - {rank}") } else { format!("{rank} - 1") }
    }
}
