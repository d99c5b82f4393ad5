//! Suggests the valid name nearest to a misspelt one.

/// ` (did you mean "x"?)` for the candidate nearest to `name`; nothing if none is near.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or_else(String::new, |candidate| format!(" (did you mean \"{candidate}\"?)"))
}

/// The candidate with the fewest edits to `name` (a swap of neighbours is one), if it is plausibly meant.
fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A text this long is no misspelt name, and the distance costs time quadratic in it.
    if name.len() > 100 {
        return None;
    }
    let name = name.to_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
    let (edits, nearest) = candidates.into_iter().map(|c| (distance(c), c)).min_by_key(|(edits, _)| *edits)?;
    (edits <= (name.chars().count() / 3).max(1)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let names = ["group_by", "order_by", "limit"];
        assert_eq!(did_you_mean("groupby", names), " (did you mean \"group_by\"?)");
        assert_eq!(did_you_mean("Limit", names), " (did you mean \"limit\"?)");
        assert_eq!(did_you_mean("banana", names), "");
        assert_eq!(did_you_mean("x", []), "");
    }
}
