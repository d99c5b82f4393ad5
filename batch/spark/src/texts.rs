//! Writes functions of texts. Positions count characters, from 1; a NULL argument gives NULL.

use shared::scalar::{Function, Literal, Node, Scalar};

/// Longest text of Spark; positions beyond it are as good as this one.
const POSITION_MAX: i64 = i32::MAX as i64;

/// Writes a function whose first argument is a text; `items` are the written `arguments`.
pub fn of_text(function: Function, arguments: &[Scalar], items: &[String]) -> String {
    let name = match function {
        Function::Length => return format!("CAST(char_length({}) AS BIGINT)", items[0]),
        Function::Left | Function::Right => return edge(function, items),
        Function::Substring => return substring(arguments, items),
        Function::Upper => "upper",
        Function::Lower => "lower",
        Function::Trim => "trim",
        Function::TrimStart => "ltrim",
        Function::TrimEnd => "rtrim",
        Function::Concat => "concat",
        Function::Replace => "replace",
        Function::StartsWith => "startswith",
        Function::EndsWith => "endswith",
        Function::Contains => "contains",
        _ => "reverse",
    };
    format!("{name}({})", items.join(", "))
}

/// Writes LEFT or RIGHT: a negative length gives NULL.
fn edge(function: Function, items: &[String]) -> String {
    let (text, length) = (&items[0], &items[1]);
    let name = if function == Function::Left { "left" } else { "right" };
    format!("(CASE WHEN {length} >= 0L THEN {name}({text}, CAST(least({length}, {POSITION_MAX}L) AS INT)) END)")
}

/// Writes SUBSTRING: positions before the first character count towards the length, a negative length gives NULL.
fn substring(arguments: &[Scalar], items: &[String]) -> String {
    let constant = |index: usize| match arguments.get(index).map(|argument| &argument.node) {
        Some(Node::Literal(Literal::BigInt(value))) => Some(*value),
        _ => None,
    };
    let clamp = |value: i128| value.clamp(0, i128::from(POSITION_MAX));
    let text = &items[0];
    match (constant(1), items.get(2), constant(2)) {
        (Some(from), None, _) => format!("substring({text}, {})", clamp(from.max(1).into())),
        (Some(_), Some(_), Some(length)) if length < 0 => "CAST(NULL AS STRING)".to_owned(),
        (Some(from), Some(_), Some(length)) => {
            let first = i128::from(from.max(1));
            let length = clamp(i128::from(from) + i128::from(length) - first);
            format!("substring({text}, {}, {length})", clamp(first))
        }
        (_, None, _) => format!("substring({text}, {})", first_of(&items[1])),
        (_, Some(length), _) => {
            let (from, first) = (&items[1], first_of(&items[1]));
            // As decimals, which do not overflow.
            let length_left =
                format!("CAST({from} AS DECIMAL(19,0)) + CAST({length} AS DECIMAL(19,0)) - greatest({from}, 1L)");
            let clamped = format!("CAST(least(greatest({length_left}, 0), {POSITION_MAX}) AS INT)");
            // LEAST and GREATEST ignore NULLs.
            format!("(CASE WHEN {length} >= 0L AND {from} IS NOT NULL THEN substring({text}, {first}, {clamped}) END)")
        }
    }
}

/// Writes the position of the first character, NULL for NULL.
fn first_of(from: &str) -> String {
    format!("(CASE WHEN {from} IS NOT NULL THEN CAST(least(greatest({from}, 1L), {POSITION_MAX}L) AS INT) END)")
}
