//! Suggests the valid name that a misspelt one probably meant. Every refusal of a name uses it.

/// "did you mean `x`?" for the candidate nearest to `name`, if one is near.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// The candidate nearest to `name` by edit distance (a swap of neighbours is one edit), ignoring case.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A text this long is not a misspelt name, and the distance costs time quadratic in it.
    if name.len() > 100 {
        return None;
    }
    let lower = name.to_lowercase();
    let most = (lower.chars().count() / 3).max(1);
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
    let (edits, near) = candidates.into_iter().map(|c| (distance(c), c)).min_by_key(|(edits, _)| *edits)?;
    // Of a very short name every letter could be wrong: `x` is not a misspelt `y`.
    (near != name && edits <= most && edits < lower.chars().count()).then_some(near)
}

/// `` (did you mean "x"?)``, to follow a message, for the candidate nearest to `name`; empty if none is near.
pub fn in_parentheses<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or_else(String::new, |candidate| format!(" (did you mean \"{candidate}\"?)"))
}

/// `a, b or c`.
pub(super) fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["origin", "destination", "delay_min"];
        assert_eq!(nearest("orgin", names), Some("origin"));
        assert_eq!(nearest("roigin", names), Some("origin"));
        assert_eq!(nearest("DELAY", names), None);
        assert_eq!(nearest("delaymin", names), Some("delay_min"));
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("origin", names), None);
        assert_eq!(nearest("Origin", names), Some("origin"));
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
    }
}
