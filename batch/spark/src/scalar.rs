//! Writes expressions. Every operation is total, as in the dialect: what does not fit is NULL, never an error.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};
use shared::limits::SPARK_QUERY_CHARS_MAX;
use shared::scalar::{ArithmeticOp, CompareOp, Function, Literal, Node, Scalar};
use shared::types::DataType;

use crate::casts::cast;
use crate::moments::of_moment;
use crate::numbers;
use crate::quote;
use crate::refusal::Unsupported;
use crate::texts::of_text;

/// Writes `scalar`; `column` writes the column at an index.
pub fn write(scalar: &Scalar, column: &dyn Fn(usize) -> String) -> Result<String, Unsupported> {
    let to = |scalar: &Scalar| write(scalar, column);
    let all = |scalars: &[Scalar]| scalars.iter().map(to).collect::<Result<Vec<_>, _>>();
    let written = match &scalar.node {
        Node::Column(index) => column(*index),
        Node::Literal(value) => quote::literal(value, scalar.data_type),
        Node::Arithmetic(op, a, b) => arithmetic(*op, a, b, scalar.data_type, column)?,
        Node::Compare(op, a, b) => format!("({} {} {})", to(a)?, symbol(*op), to(b)?),
        Node::And(a, b) => format!("({} AND {})", to(a)?, to(b)?),
        Node::Or(a, b) => format!("({} OR {})", to(a)?, to(b)?),
        Node::Not(a) => format!("(NOT {})", to(a)?),
        Node::Negate(a) => numbers::negate(&to(a)?, scalar.data_type),
        Node::IsNull(a) => format!("({} IS NULL)", to(a)?),
        Node::Case(branches, otherwise) => {
            let mut text = String::from("CASE");
            for (condition, result) in branches {
                text += &format!(" WHEN {} THEN {}", to(condition)?, to(result)?);
            }
            let otherwise = match otherwise {
                Some(otherwise) => to(otherwise)?,
                None => quote::literal(&Literal::Null, scalar.data_type),
            };
            format!("({text} ELSE {otherwise} END)")
        }
        Node::Cast(a) => cast(&to(a)?, a.data_type, scalar.data_type)?,
        Node::In(a, list) => is_in(&to(a)?, list, a.data_type),
        Node::Like { text, pattern, escape, ignore_case } => {
            let regex = regex_of(pattern, *escape, *ignore_case);
            format!("regexp_like({}, {})", to(text)?, quote::text(&regex))
        }
        Node::Coalesce(items) => format!("coalesce({})", all(items)?.join(", ")),
        Node::Shift(a, by) => format!("timestamp_micros(try_add(unix_micros({}), {}))", to(a)?, quote::long(*by)),
        Node::Call(function, arguments) => call(*function, arguments, all(arguments)?, scalar.data_type),
    };
    // Some operations write an operand several times.
    if written.len() > SPARK_QUERY_CHARS_MAX { Err(Unsupported::TooLong) } else { Ok(written) }
}

/// Returns whether the value may differ in its last digit, because libraries of mathematics do.
pub fn is_inexact(scalar: &Scalar) -> bool {
    if matches!(scalar.node, Node::Call(Function::Exp | Function::Ln | Function::Power, _)) {
        return true;
    }
    let mut inexact = false;
    scalar.for_each_child(&mut |child| inexact |= is_inexact(child));
    inexact
}

/// Returns whether a last digit may change more than the last digits of the value: it is compared, rounded or converted.
pub fn is_unstable(scalar: &Scalar) -> bool {
    let passes_through = match &scalar.node {
        Node::Column(_) | Node::Literal(_) | Node::Negate(_) | Node::Coalesce(_) => true,
        Node::Arithmetic(op, ..) => *op != ArithmeticOp::Modulo,
        Node::Call(function, _) => matches!(
            function,
            Function::Exp
                | Function::Ln
                | Function::Power
                | Function::Sqrt
                | Function::Abs
                | Function::Greatest
                | Function::Least
        ),
        _ => false,
    };
    if !passes_through && is_inexact(scalar) {
        return true;
    }
    let mut unstable = false;
    scalar.for_each_child(&mut |child| unstable |= is_unstable(child));
    unstable
}

fn symbol(op: CompareOp) -> &'static str {
    op.symbol()
}

fn arithmetic(
    op: ArithmeticOp,
    a: &Scalar,
    b: &Scalar,
    data_type: DataType,
    column: &dyn Fn(usize) -> String,
) -> Result<String, Unsupported> {
    let divisor = match &b.node {
        Node::Literal(Literal::BigInt(value)) => Some(*value),
        _ => None,
    };
    let (a, b) = (write(a, column)?, write(b, column)?);
    Ok(match data_type {
        DataType::Double => numbers::of_doubles(op, &a, &b),
        DataType::Decimal { .. } => numbers::of_decimals(op, &a, &b, data_type),
        _ => numbers::of_integers(op, &a, &b, divisor),
    })
}

fn is_in(a: &str, list: &[Literal], data_type: DataType) -> String {
    let items: Vec<String> = list.iter().map(|item| quote::literal(item, data_type)).collect();
    match data_type {
        // Long lists become a set there, in which the two zeros differ.
        DataType::Double => {
            let equals: Vec<String> = items.iter().map(|item| format!("{a} = {item}")).collect();
            format!("({})", equals.join(" OR "))
        }
        _ => format!("({a} IN ({}))", items.join(", ")),
    }
}

fn call(function: Function, arguments: &[Scalar], items: Vec<String>, output: DataType) -> String {
    let input = arguments.first().map_or(output, |argument| argument.data_type);
    match function {
        Function::Upper
        | Function::Lower
        | Function::Length
        | Function::Trim
        | Function::TrimStart
        | Function::TrimEnd
        | Function::Substring
        | Function::Left
        | Function::Right
        | Function::Concat
        | Function::Replace
        | Function::StartsWith
        | Function::EndsWith
        | Function::Contains
        | Function::Reverse => of_text(function, arguments, &items),
        Function::Abs | Function::Sign | Function::Floor | Function::Ceil => {
            numbers::of_number(function, &items[0], input, output)
        }
        Function::Round => {
            let digits = match arguments.get(1).map(|digits| &digits.node) {
                Some(Node::Literal(Literal::BigInt(digits))) => *digits,
                _ => 0,
            };
            numbers::round(&items[0], digits, output)
        }
        Function::Sqrt => format!("sqrt({})", items[0]),
        Function::Exp => format!("exp({})", items[0]),
        Function::Ln => numbers::ln(&items[0]),
        Function::Power => numbers::power(&items[0], &items[1]),
        Function::Greatest | Function::Least if items.len() == 1 => items.into_iter().next().unwrap_or_default(),
        Function::Greatest => format!("greatest({})", items.join(", ")),
        Function::Least => format!("least({})", items.join(", ")),
        Function::NullIf => format!("nullif({})", items.join(", ")),
        Function::Year
        | Function::Quarter
        | Function::Month
        | Function::Week
        | Function::Day
        | Function::DayOfWeek
        | Function::DayOfYear
        | Function::Hour
        | Function::Minute
        | Function::Second
        | Function::Epoch
        | Function::TruncateToSecond
        | Function::TruncateToMinute
        | Function::TruncateToHour
        | Function::TruncateToDay
        | Function::TruncateToWeek
        | Function::TruncateToMonth
        | Function::TruncateToQuarter
        | Function::TruncateToYear => of_moment(function, &items[0]),
    }
}

/// Returns the pattern of LIKE as a regular expression of Java over the whole text. Letters of any case are listed, since Java
/// folds cases by other rules.
fn regex_of(pattern: &str, escape: Option<char>, ignore_case: bool) -> String {
    let mut regex = String::from("(?s)\\A");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => chars.next().into_iter().for_each(|c| push_char(&mut regex, c, ignore_case)),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            c => push_char(&mut regex, c, ignore_case),
        }
    }
    regex.push_str("\\z");
    regex
}

fn push_char(regex: &mut String, c: char, ignore_case: bool) {
    let mut same = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
    if ignore_case {
        same.case_fold_simple();
    }
    regex.push('[');
    for c in same.iter().flat_map(|range| range.start()..=range.end()) {
        regex.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
    }
    regex.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_list_the_letters_of_both_cases() {
        assert_eq!(regex_of("a%_", None, false), "(?s)\\A[\\x{61}].*.\\z");
        assert_eq!(regex_of("k!%", Some('!'), true), "(?s)\\A[\\x{4B}\\x{6B}\\x{212A}][\\x{25}]\\z");
    }

    #[test]
    fn constants_of_in_are_compared_one_by_one_if_they_are_doubles() {
        let list = [Literal::Double(0.0), Literal::Null];
        assert_eq!(is_in("x", &list, DataType::Double), "(x = 0e0D OR x = CAST(NULL AS DOUBLE))");
        assert_eq!(is_in("x", &[Literal::BigInt(1)], DataType::BigInt), "(x IN (1L))");
    }
}
