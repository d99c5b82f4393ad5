//! Writes the stages of TOP_K: the most frequent values per window and group, counted before they are ranked.
//!
//! The result is an array of structures `value, count`, most frequent first, equal counts by value. Trueup writes it as JSON.

/// Writes the stage of the most frequent values of the column `input`, as `__top`. `groups` are the columns of a group.
pub fn stage(input: &str, k: u16, filter: Option<&str>, groups: &[String]) -> String {
    let by = |more: &[&str]| {
        let columns: Vec<&str> = groups.iter().map(String::as_str).chain(more.iter().copied()).collect();
        columns.join(", ")
    };
    let filter = filter.map_or_else(String::new, |filter| format!(" AND {filter}"));
    let partition = if groups.is_empty() { String::new() } else { format!("PARTITION BY {} ", groups.join(", ")) };
    let group_by = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
    let counted = format!(
        "SELECT {}, count(*) AS __n FROM __placed WHERE {input} IS NOT NULL{filter} GROUP BY {}",
        by(&[input]),
        by(&[input])
    );
    let ranked =
        format!("SELECT *, row_number() OVER ({partition}ORDER BY __n DESC, {input}) AS __rank FROM ({counted})");
    let listed = format!(
        "transform(array_sort(collect_list(struct(__rank, {input} AS value, __n AS count))), \
         item -> struct(item.value AS value, item.count AS count)) AS __top"
    );
    format!("SELECT {} FROM ({ranked}) WHERE __rank <= {k}{group_by}", by(&[&listed]))
}
