//! Translates a LIKE pattern to a regular expression over the whole text.

/// `%` is any text, `_` any character, also a line's end; everything else stands for itself.
pub(super) fn regex_of(pattern: &str, escape: Option<char>, ignore_case: bool) -> String {
    let mut regex = String::with_capacity(pattern.len() + 16);
    regex.push_str(if ignore_case { "(?is)^" } else { "(?s)^" });
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => chars.next().into_iter().for_each(|c| push_escaped(&mut regex, c)),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            c => push_escaped(&mut regex, c),
        }
    }
    regex.push('$');
    regex
}

fn push_escaped(regex: &mut String, c: char) {
    // Only ASCII punctuation means something in a regular expression, and all of it may be escaped.
    if c.is_ascii_punctuation() {
        regex.push('\\');
    }
    regex.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wildcards_are_special() {
        assert_eq!(regex_of("a%_", None, false), "(?s)^a.*.$");
        assert_eq!(regex_of("a.c(", None, true), "(?is)^a\\.c\\($");
        assert_eq!(regex_of("10!%", Some('!'), false), "(?s)^10\\%$");
    }
}
