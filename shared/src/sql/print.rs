//! Writes expressions and names back as SQL, with the casts that were inserted, for plans and messages.

use sqlparser::ast::Expr;
use sqlparser::keywords::ALL_KEYWORDS;

use super::cursor::Cursor;
use super::dialect::tokens;
use super::source::Source;
use crate::scalar::{ArithmeticOp, Function, Literal, Node, Scalar};
use crate::time::{Day, MICROS_PER_SECOND, Micros};
use crate::types::DataType;

/// The expression as SQL; `column` gives the name of the column at an index, see [`print_name`].
pub fn print(scalar: &Scalar, column: &dyn Fn(usize) -> String) -> String {
    Printer { column }.text(scalar, 0)
}

/// The name of a column as it stands in SQL: in quotes unless it reads back without them.
pub fn print_name(name: &str) -> String {
    if reads_back(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Returns whether the unquoted `name` is a column, and not a keyword or something else.
fn reads_back(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() || !name.chars().all(plain) {
        return false;
    }
    if ALL_KEYWORDS.binary_search(&name.to_uppercase().as_str()).is_err() {
        return true;
    }
    // Keywords are names in some places only: each place has to read them so.
    let alone = matches!(expression(name), Some(Expr::Identifier(ident)) if ident.value == name);
    let places = [format!("{name} > 1"), format!("1 + {name}"), format!("MAX({name})")];
    alone && !name.eq_ignore_ascii_case("primary") && places.iter().all(|text| expression(text).is_some())
}

/// The tree of a text that is one expression.
fn expression(text: &str) -> Option<Expr> {
    let source = Source::new("name", text);
    let tokens = tokens(&source).ok()?;
    let mut cursor = Cursor::new(&source, &tokens);
    let tree = cursor.expression().ok()?.expression;
    cursor.peek().is_none().then_some(tree)
}

struct Printer<'a> {
    column: &'a dyn Fn(usize) -> String,
}

impl Printer<'_> {
    /// In parentheses if it binds less tightly than its place wants.
    fn text(&self, scalar: &Scalar, wanted: u8) -> String {
        let text = self.bare(scalar);
        if precedence(&scalar.node) < wanted { format!("({text})") } else { text }
    }

    fn list(&self, items: &[Scalar]) -> String {
        items.iter().map(|item| self.text(item, 0)).collect::<Vec<_>>().join(", ")
    }

    fn bare(&self, scalar: &Scalar) -> String {
        let own = precedence(&scalar.node);
        match &scalar.node {
            Node::Column(index) => (self.column)(*index),
            Node::Literal(value) => literal(value, scalar.data_type),
            Node::Arithmetic(op, a, b) => format!("{} {} {}", self.text(a, own), op.symbol(), self.text(b, own + 1)),
            Node::Compare(op, a, b) => format!("{} {} {}", self.text(a, own + 1), op.symbol(), self.text(b, own + 1)),
            Node::And(a, b) => format!("{} AND {}", self.text(a, own), self.text(b, own)),
            Node::Or(a, b) => format!("{} OR {}", self.text(a, own), self.text(b, own)),
            Node::Not(a) => format!("NOT {}", self.text(a, own)),
            Node::Negate(a) => format!("-{}", self.text(a, own + 1)),
            Node::IsNull(a) => format!("{} IS NULL", self.text(a, own + 1)),
            Node::Case(branches, otherwise) => {
                let mut text = "CASE".to_owned();
                for (condition, result) in branches {
                    text += &format!(" WHEN {} THEN {}", self.text(condition, 0), self.text(result, 0));
                }
                if let Some(otherwise) = otherwise {
                    text += &format!(" ELSE {}", self.text(otherwise, 0));
                }
                text + " END"
            }
            Node::Cast(a) => format!("CAST({} AS {})", self.text(a, 0), scalar.data_type),
            Node::In(a, list) => {
                let list: Vec<String> = list.iter().map(|item| literal(item, a.data_type)).collect();
                format!("{} IN ({})", self.text(a, own + 1), list.join(", "))
            }
            Node::Like { text, pattern, escape, ignore_case } => {
                let like = if *ignore_case { "ILIKE" } else { "LIKE" };
                let escape = escape.map_or(String::new(), |c| format!(" ESCAPE {}", quoted(&c.to_string())));
                format!("{} {like} {}{escape}", self.text(text, own + 1), quoted(pattern))
            }
            Node::Coalesce(items) => format!("COALESCE({})", self.list(items)),
            Node::Shift(a, micros) => {
                let sign = if *micros < 0 { '-' } else { '+' };
                format!("{} {sign} {}", self.text(a, own), interval(micros.saturating_abs()))
            }
            Node::Call(function, items) => self.call(*function, items),
        }
    }

    fn call(&self, function: Function, items: &[Scalar]) -> String {
        let name = match function {
            Function::Year => "EXTRACT(YEAR FROM ",
            Function::Quarter => "EXTRACT(QUARTER FROM ",
            Function::Month => "EXTRACT(MONTH FROM ",
            Function::Week => "EXTRACT(WEEK FROM ",
            Function::Day => "EXTRACT(DAY FROM ",
            Function::DayOfWeek => "EXTRACT(DOW FROM ",
            Function::DayOfYear => "EXTRACT(DOY FROM ",
            Function::Hour => "EXTRACT(HOUR FROM ",
            Function::Minute => "EXTRACT(MINUTE FROM ",
            Function::Second => "EXTRACT(SECOND FROM ",
            Function::Epoch => "EXTRACT(EPOCH FROM ",
            Function::TruncateToSecond => "DATE_TRUNC('second', ",
            Function::TruncateToMinute => "DATE_TRUNC('minute', ",
            Function::TruncateToHour => "DATE_TRUNC('hour', ",
            Function::TruncateToDay => "DATE_TRUNC('day', ",
            Function::TruncateToWeek => "DATE_TRUNC('week', ",
            Function::TruncateToMonth => "DATE_TRUNC('month', ",
            Function::TruncateToQuarter => "DATE_TRUNC('quarter', ",
            Function::TruncateToYear => "DATE_TRUNC('year', ",
            Function::TrimStart => "LTRIM(",
            Function::TrimEnd => "RTRIM(",
            Function::StartsWith => "STARTS_WITH(",
            Function::EndsWith => "ENDS_WITH(",
            Function::Upper => "UPPER(",
            Function::Lower => "LOWER(",
            Function::Length => "LENGTH(",
            Function::Trim => "TRIM(",
            Function::Substring => "SUBSTRING(",
            Function::Left => "LEFT(",
            Function::Right => "RIGHT(",
            Function::Concat => "CONCAT(",
            Function::Replace => "REPLACE(",
            Function::Contains => "CONTAINS(",
            Function::Reverse => "REVERSE(",
            Function::Abs => "ABS(",
            Function::Sign => "SIGN(",
            Function::Round => "ROUND(",
            Function::Floor => "FLOOR(",
            Function::Ceil => "CEIL(",
            Function::Sqrt => "SQRT(",
            Function::Exp => "EXP(",
            Function::Ln => "LN(",
            Function::Power => "POWER(",
            Function::Greatest => "GREATEST(",
            Function::Least => "LEAST(",
            Function::NullIf => "NULLIF(",
        };
        format!("{name}{})", self.list(items))
    }
}

/// Higher binds more tightly.
fn precedence(node: &Node) -> u8 {
    match node {
        Node::Or(..) => 1,
        Node::And(..) => 2,
        Node::Not(..) => 3,
        Node::Compare(..) | Node::IsNull(..) | Node::In(..) | Node::Like { .. } => 4,
        Node::Arithmetic(ArithmeticOp::Add | ArithmeticOp::Subtract, ..) | Node::Shift(..) => 6,
        Node::Arithmetic(..) => 7,
        Node::Negate(..) => 8,
        Node::Literal(Literal::BigInt(..) | Literal::Double(..) | Literal::Decimal(..)) => 8,
        Node::Column(..)
        | Node::Literal(..)
        | Node::Case(..)
        | Node::Cast(..)
        | Node::Coalesce(..)
        | Node::Call(..) => 10,
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn literal(value: &Literal, data_type: DataType) -> String {
    match value {
        Literal::Null => "NULL".to_owned(),
        Literal::Boolean(value) => value.to_string().to_uppercase(),
        Literal::BigInt(value) => value.to_string(),
        Literal::Double(value) => format!("{value:?}"),
        Literal::Decimal(unscaled) => {
            let scale = if let DataType::Decimal { scale, .. } = data_type { scale.max(0) as usize } else { 0 };
            let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let sign = if *unscaled < 0 { "-" } else { "" };
            if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
        }
        Literal::String(text) => quoted(text),
        Literal::Date(day) => format!("DATE '{}'", Day(*day)),
        Literal::Timestamp(micros) => format!("TIMESTAMP '{}'", Micros(*micros)),
    }
}

/// `INTERVAL '1' HOUR`, in the largest unit that divides it.
pub(crate) fn interval(micros: i64) -> String {
    const UNITS: [(i64, &str); 5] = [
        (86_400 * MICROS_PER_SECOND, "DAY"),
        (3600 * MICROS_PER_SECOND, "HOUR"),
        (60 * MICROS_PER_SECOND, "MINUTE"),
        (MICROS_PER_SECOND, "SECOND"),
        (1000, "MILLISECOND"),
    ];
    match UNITS.iter().find(|(unit, _)| micros % unit == 0) {
        Some((unit, name)) => format!("INTERVAL '{}' {name}", micros / unit),
        None => format!("INTERVAL '{micros}' MICROSECOND"),
    }
}
