//! Decides whether expressions could build texts far longer than those they read.
//!
//! The length of a text is bounded by a linear function of the lengths of the columns, `Σ factor(c) · bytes(c) + constant`,
//! which follows from the expression alone. REPLACE whose third argument reads a column has no such bound. Views with small
//! factors are computed without further checks, since no event can outgrow memory there.

use std::collections::BTreeMap;

use crate::scalar::{Function, Literal, Node, Scalar};
use crate::types::DataType;

/// Largest sum of factors of a column that needs no checks.
const FACTOR_MAX: u64 = 16;
/// Largest sum of constants that needs no checks, in bytes.
const CONSTANT_BYTES_MAX: u64 = 1024;
/// Bytes of the longest text that CAST makes of a value that is not a text.
const CAST_BYTES_MAX: u64 = 64;

/// An upper bound on the bytes of texts.
#[derive(Debug, Clone, Default)]
struct TextLength {
    factors: BTreeMap<usize, u64>,
    constant: u64,
}

/// Returns whether the texts of `scalars`, intermediate ones included, may be long for short events.
pub fn may_outgrow<'a>(scalars: impl IntoIterator<Item = &'a Scalar>) -> bool {
    let mut total = TextLength::default();
    for scalar in scalars {
        let length = length(scalar, &mut total);
        total.add(&length);
    }
    total.constant > CONSTANT_BYTES_MAX || total.factors.values().any(|factor| *factor > FACTOR_MAX)
}

/// Returns the bound of the value of `scalar`; adds the bounds of the texts built on the way to `total`.
fn length(scalar: &Scalar, total: &mut TextLength) -> TextLength {
    let mut lengths = Vec::new();
    scalar.for_each_child(&mut |child| lengths.push(length(child, total)));
    let is_text = matches!(scalar.data_type, DataType::String | DataType::Json);
    if !is_text {
        return TextLength::default();
    }
    let built = match &scalar.node {
        Node::Column(index) => return TextLength { factors: BTreeMap::from([(*index, 1)]), constant: 0 },
        Node::Literal(Literal::String(text)) => return TextLength::constant(text.len() as u64),
        Node::Cast(from) if !matches!(from.data_type, DataType::String | DataType::Json) => {
            TextLength::constant(CAST_BYTES_MAX)
        }
        Node::Call(Function::Upper | Function::Lower, _) => lengths[0].times(3),
        Node::Call(Function::Concat, _) => {
            let mut sum = TextLength::default();
            lengths.iter().for_each(|length| sum.add(length));
            sum
        }
        Node::Call(Function::Replace, arguments) => replaced(&lengths, &arguments[1]),
        Node::Call(
            Function::Trim
            | Function::TrimStart
            | Function::TrimEnd
            | Function::Reverse
            | Function::Left
            | Function::Right
            | Function::Substring,
            _,
        ) => lengths[0].clone(),
        // A choice among values, which are not copied.
        _ => return lengths.iter().fold(TextLength::default(), |longest, length| longest.max(length)),
    };
    total.add(&built);
    built
}

/// The bound of `REPLACE(text, from, to)`.
fn replaced(lengths: &[TextLength], from: &Scalar) -> TextLength {
    let from_bytes = match &from.node {
        Node::Literal(Literal::String(from)) => (from.len() as u64).max(1),
        _ => 1,
    };
    let to = &lengths[2];
    match to.factors.is_empty() {
        true => lengths[0].times(to.constant.div_ceil(from_bytes).max(1)),
        false => TextLength::constant(u64::MAX),
    }
}

impl TextLength {
    fn constant(bytes: u64) -> TextLength {
        TextLength { factors: BTreeMap::new(), constant: bytes }
    }

    fn add(&mut self, other: &TextLength) {
        self.constant = self.constant.saturating_add(other.constant);
        for (column, factor) in &other.factors {
            let ours = self.factors.entry(*column).or_default();
            *ours = ours.saturating_add(*factor);
        }
    }

    fn times(&self, by: u64) -> TextLength {
        let factors = self.factors.iter().map(|(column, factor)| (*column, factor.saturating_mul(by))).collect();
        TextLength { factors, constant: self.constant.saturating_mul(by) }
    }

    fn max(mut self, other: &TextLength) -> TextLength {
        self.constant = self.constant.max(other.constant);
        for (column, factor) in &other.factors {
            let ours = self.factors.entry(*column).or_default();
            *ours = (*ours).max(*factor);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse_predicate;

    fn outgrows(text: &str) -> bool {
        let columns = ["a", "b", "c"].map(|name| (name.to_owned(), DataType::String));
        let condition = parse_predicate(&format!("LENGTH({text}) > 0"), &columns).expect("a condition");
        may_outgrow([&condition])
    }

    #[test]
    fn usual_expressions_are_bounded_by_their_input() {
        for text in [
            "a",
            "UPPER(TRIM(a))",
            "CONCAT(UPPER(a), '-', LOWER(b), c)",
            "REPLACE(a, ' ', '')",
            "REPLACE(a, 'ab', 'abcd')",
            "CASE WHEN a = 'x' THEN 'early' ELSE b END",
            "COALESCE(a, b, 'none')",
            "CAST(LENGTH(a) AS STRING)",
        ] {
            assert!(!outgrows(text), "{text}");
        }
    }

    #[test]
    fn products_of_lengths_and_large_factors_are_not() {
        let long = "x".repeat(2_000);
        for text in [
            "REPLACE(a, b, c)".to_owned(),
            "REPLACE(a, 'x', b)".to_owned(),
            "REPLACE(a, 'x', '12345678901234567')".to_owned(),
            "REPLACE(REPLACE(REPLACE(a, 'x', '123'), 'x', '123'), 'x', '123')".to_owned(),
            format!("CONCAT(CASE WHEN a = 'x' THEN '{long}' ELSE b END, '')"),
            format!("CONCAT({})", vec!["a"; 17].join(", ")),
        ] {
            assert!(outgrows(&text), "{text}");
        }
    }
}
