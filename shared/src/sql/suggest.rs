//! Which valid name was meant by a misspelt one?

/// `did you mean `x`?` for the candidate nearest to `name`, if one is near.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// The candidate nearest to `name` by edit distance (a swap of neighbours is one edit), ignoring case.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    // A text this long is no misspelt name, and the distance costs time quadratic in it.
    if name.len() > 100 {
        return None;
    }
    let most = (name.chars().count() / 3).max(1);
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
    let near = candidates.into_iter().min_by_key(distance)?;
    let edits = distance(&near);
    // Of a very short name every letter could be wrong: `x` is not a misspelt `y`.
    (edits > 0 && edits <= most && edits < name.chars().count()).then_some(near)
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
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
    }
}
