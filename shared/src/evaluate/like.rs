//! Evaluates LIKE: translates a pattern to a regular expression over the whole text.

use std::sync::Arc;

use polars::prelude::arity::unary_elementwise;
use polars::prelude::{BooleanChunked, Expr, IntoSeries, PolarsError};
use regex::Regex;

use super::kernel::metered;
use super::meter::Meter;
use crate::types::DataType;

/// Tests whether a text matches `regex`. The regular expression is compiled here and dropped with the expression: Polars would
/// keep it in each thread that evaluates it, and patterns come from queries.
pub(super) fn like(meter: &Arc<Meter>, text: Expr, regex: &str) -> Expr {
    let compiled = Regex::new(regex).map_err(|error| error.to_string());
    metered(meter, vec![text], DataType::Boolean, move |_, texts| {
        let compiled = compiled.as_ref().map_err(|error| PolarsError::ComputeError(error.clone().into()))?;
        let matches: BooleanChunked =
            unary_elementwise(texts[0].str()?, |text: Option<&str>| text.map(|text| compiled.is_match(text)));
        Ok(matches.into_series())
    })
}

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
