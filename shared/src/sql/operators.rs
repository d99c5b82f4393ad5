//! Lowers operators: logic, comparison, arithmetic, IN, LIKE, BETWEEN and CASE, each with the types it takes.

use sqlparser::ast::{BinaryOperator, CaseWhen, Expr, Value, ValueWithSpan};

use super::coerce::{bring_to, common_type, is_null, scale_of};
pub(super) use super::coerce::{can_cast, settle};
use super::data_type::DECIMAL_DIGITS_MAX;
use super::duration::{BadDuration, TimeSpan, parse_span, span_of_units};
use super::error::SqlError;
use super::lower::{Lowering, boolean, call};
use crate::limits::SQL_PATTERN_CHARS_MAX;
use crate::scalar::{ArithmeticOp, CompareOp, Function, Literal, Node, Scalar};
use crate::types::DataType;

/// Operators whose chains are read as one list: they may be long without being deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    And,
    Or,
    Concat,
}

impl Chain {
    fn is(self, op: &BinaryOperator) -> bool {
        matches!(
            (self, op),
            (Chain::And, BinaryOperator::And)
                | (Chain::Or, BinaryOperator::Or)
                | (Chain::Concat, BinaryOperator::StringConcat)
        )
    }
}

impl Lowering<'_, '_, '_> {
    /// `a op b op c ...`
    pub(super) fn chain(&mut self, expr: &Expr, kind: Chain) -> Result<Scalar, SqlError> {
        let mut links = Vec::new();
        let mut rest = expr;
        while let Expr::BinaryOp { left, op, right } = rest
            && kind.is(op)
        {
            links.push(&**right);
            rest = left;
        }
        links.push(rest);
        links.reverse();
        let mut operands = Vec::with_capacity(links.len());
        for link in links {
            operands.push(match kind {
                Chain::And => self.condition(link, "AND")?,
                Chain::Or => self.condition(link, "OR")?,
                Chain::Concat => self.text(link, "||")?,
            });
        }
        Ok(match kind {
            Chain::And => balanced(operands, |a, b| boolean(Node::And(Box::new(a), Box::new(b)))),
            Chain::Or => balanced(operands, |a, b| boolean(Node::Or(Box::new(a), Box::new(b)))),
            Chain::Concat => call(Function::Concat, operands, DataType::String),
        })
    }

    pub(super) fn compare_or_compute(
        &mut self,
        expr: &Expr,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
    ) -> Result<Scalar, SqlError> {
        if let BinaryOperator::Plus | BinaryOperator::Minus = op {
            let forward = matches!(op, BinaryOperator::Plus);
            if let Some(micros) = self.fixed_interval(right)? {
                return self.shift(left, right, if forward { Some(micros) } else { micros.checked_neg() });
            }
            if let (true, Some(micros)) = (forward, self.fixed_interval(left)?) {
                return self.shift(right, left, Some(micros));
            }
        }
        let compare = match op {
            BinaryOperator::Eq => Some(CompareOp::Equal),
            BinaryOperator::NotEq => Some(CompareOp::NotEqual),
            BinaryOperator::Lt => Some(CompareOp::Less),
            BinaryOperator::LtEq => Some(CompareOp::LessOrEqual),
            BinaryOperator::Gt => Some(CompareOp::Greater),
            BinaryOperator::GtEq => Some(CompareOp::GreaterOrEqual),
            _ => None,
        };
        if let Some(compare) = compare {
            let (a, b) = (self.expr(left)?, self.expr(right)?);
            let [a, b] = self.unify([a, b], &[left, right], "compared")?;
            return Ok(boolean(Node::Compare(compare, Box::new(a), Box::new(b))));
        }
        let op = match op {
            BinaryOperator::Plus => ArithmeticOp::Add,
            BinaryOperator::Minus => ArithmeticOp::Subtract,
            BinaryOperator::Multiply => ArithmeticOp::Multiply,
            BinaryOperator::Divide => ArithmeticOp::Divide,
            BinaryOperator::Modulo => ArithmeticOp::Modulo,
            other => return Err(self.error(expr, format!("the operator `{other}` is not supported"))),
        };
        self.arithmetic(expr, left, op, right)
    }

    fn arithmetic(&mut self, expr: &Expr, left: &Expr, op: ArithmeticOp, right: &Expr) -> Result<Scalar, SqlError> {
        let (a, b) = (self.expr(left)?, self.expr(right)?);
        let symbol = format!("`{}`", op.symbol());
        for (operand, at) in [(&a, left), (&b, right)] {
            if let (DataType::Date | DataType::Timestamp, false) = (operand.data_type, is_null(operand)) {
                let error = self.error(at, format!("{symbol} needs a number, this is {}", operand.data_type));
                return Err(error.help("move by an INTERVAL, or compute with EXTRACT(EPOCH FROM ..)"));
            }
            self.need_number(operand, at, &symbol)?;
        }
        let items = [a, b];
        let common = match common_type(&items) {
            // Two bare NULLs.
            Some(DataType::String) | None => DataType::BigInt,
            Some(DataType::Int) => DataType::BigInt,
            Some(other) => other,
        };
        let [a, b] = items;
        let DataType::Decimal { .. } = common else {
            let (a, b) = (self.bring(a, common, left)?, self.bring(b, common, right)?);
            return Ok(Scalar { node: Node::Arithmetic(op, Box::new(a), Box::new(b)), data_type: common });
        };
        let whole = DECIMAL_DIGITS_MAX;
        let (scale_a, scale_b) = (scale_of(a.data_type), scale_of(b.data_type));
        let (to_a, to_b, result) = match op {
            ArithmeticOp::Add | ArithmeticOp::Subtract => {
                let common = DataType::Decimal { precision: whole, scale: scale_a.max(scale_b) };
                (common, common, common)
            }
            ArithmeticOp::Multiply => {
                let scale = scale_a + scale_b;
                if scale > whole as i8 {
                    let message =
                        format!("the product would have {scale} digits behind the point, at most {whole} fit");
                    return Err(self.error(expr, message).help("CAST one side to fewer digits"));
                }
                let with = |scale| DataType::Decimal { precision: whole, scale };
                (with(scale_a), with(scale_b), with(scale))
            }
            ArithmeticOp::Divide => (DataType::Double, DataType::Double, DataType::Double),
            ArithmeticOp::Modulo => {
                let error = self.error(expr, "`%` of DECIMAL is not supported yet");
                return Err(error.help("CAST both sides to BIGINT or DOUBLE"));
            }
        };
        let (a, b) = (self.bring(a, to_a, left)?, self.bring(b, to_b, right)?);
        Ok(Scalar { node: Node::Arithmetic(op, Box::new(a), Box::new(b)), data_type: result })
    }

    pub(super) fn negate(&mut self, operand: &Expr) -> Result<Scalar, SqlError> {
        let scalar = settle(self.expr(operand)?);
        self.need_number(&scalar, operand, "`-`")?;
        let data_type = match scalar.data_type {
            DataType::Int | DataType::String => DataType::BigInt,
            other => other,
        };
        let scalar = self.bring(scalar, data_type, operand)?;
        Ok(Scalar { node: Node::Negate(Box::new(scalar)), data_type })
    }

    /// The microseconds of `INTERVAL ..`, if `expr` is one. Errors: months have no fixed length.
    pub(super) fn fixed_interval(&self, expr: &Expr) -> Result<Option<i64>, SqlError> {
        let Some(span) = self.interval(expr)? else { return Ok(None) };
        span.fixed().map(Some).map_err(|bad| self.bad_interval(expr, bad))
    }

    /// An error at an INTERVAL.
    pub(super) fn bad_interval(&self, expr: &Expr, bad: BadDuration) -> SqlError {
        self.error(expr, bad.message).maybe_help(bad.help)
    }

    /// The span of `INTERVAL ..`, if `expr` is one.
    pub(super) fn interval(&self, expr: &Expr) -> Result<Option<TimeSpan>, SqlError> {
        let interval = match expr {
            Expr::Interval(interval) => interval,
            Expr::Nested(inner) => return self.interval(inner),
            _ => return Ok(None),
        };
        let plain = interval.leading_precision.is_none()
            && interval.last_field.is_none()
            && interval.fractional_seconds_precision.is_none();
        let Expr::Value(ValueWithSpan { value, .. }) = &*interval.value else { return Err(self.unsupported(expr)) };
        let text = match value {
            Value::SingleQuotedString(text) | Value::Number(text, false) if plain => text,
            _ => {
                return Err(self.error(expr, "this form of INTERVAL is not supported").help("write INTERVAL '1' HOUR"));
            }
        };
        let span = match &interval.leading_field {
            Some(unit) => span_of_units(text, &unit.to_string()),
            None => parse_span(text),
        };
        span.map(Some).map_err(|bad| self.bad_interval(expr, bad))
    }

    fn shift(&mut self, moment: &Expr, interval: &Expr, micros: Option<i64>) -> Result<Scalar, SqlError> {
        let micros = micros.ok_or_else(|| self.error(interval, "a span of time this long does not fit"))?;
        let moment = self.moment(moment, "INTERVAL")?;
        Ok(Scalar { node: Node::Shift(Box::new(moment), micros), data_type: DataType::Timestamp })
    }

    /// Lowers an operand that has to be TIMESTAMP; a DATE becomes its midnight.
    pub(super) fn moment(&mut self, expr: &Expr, what: &str) -> Result<Scalar, SqlError> {
        let scalar = self.expr(expr)?;
        match scalar.data_type {
            DataType::Timestamp | DataType::Date => self.bring(scalar, DataType::Timestamp, expr),
            _ if is_null(&scalar) => self.bring(scalar, DataType::Timestamp, expr),
            other => {
                let error = self.error(expr, format!("{what} needs a TIMESTAMP, this is {other}"));
                let text = matches!(scalar.node, Node::Literal(Literal::String(_)));
                Err(error.maybe_help(text.then(|| "write TIMESTAMP '..'".to_owned())))
            }
        }
    }

    pub(super) fn between(&mut self, operand: &Expr, low: &Expr, high: &Expr) -> Result<Scalar, SqlError> {
        let items = [self.expr(operand)?, self.expr(low)?, self.expr(high)?];
        let [a, low, high] = self.unify(items, &[operand, low, high], "compared")?;
        let again = self.copy(&a, operand)?;
        let from = boolean(Node::Compare(CompareOp::GreaterOrEqual, Box::new(a), Box::new(low)));
        let to = boolean(Node::Compare(CompareOp::LessOrEqual, Box::new(again), Box::new(high)));
        Ok(boolean(Node::And(Box::new(from), Box::new(to))))
    }

    pub(super) fn in_list(&mut self, operand: &Expr, list: &[Expr]) -> Result<Scalar, SqlError> {
        let mut items = vec![self.expr(operand)?];
        let mut at = vec![operand];
        for item in list {
            let scalar = self.expr(item)?;
            if !matches!(scalar.node, Node::Literal(_)) {
                return Err(self.error(item, "IN takes a list of constants"));
            }
            items.push(scalar);
            at.push(item);
        }
        let mut items = self.unify_all(items, &at, "compared")?.into_iter();
        let operand = items.next().expect("the operand is the first item");
        let mut constants = Vec::with_capacity(list.len());
        for (item, at) in items.zip(list) {
            match item.node {
                Node::Literal(literal) => constants.push(literal),
                _ => return Err(self.error(at, format!("this constant does not fit {}", item.data_type))),
            }
        }
        Ok(boolean(Node::In(Box::new(operand), constants)))
    }

    pub(super) fn like(
        &mut self,
        text: &Expr,
        pattern: &Expr,
        escape: Option<&ValueWithSpan>,
        ignore_case: bool,
    ) -> Result<Scalar, SqlError> {
        let text = Box::new(self.text(text, if ignore_case { "ILIKE" } else { "LIKE" })?);
        let Scalar { node: Node::Literal(Literal::String(like)), .. } = self.expr(pattern)? else {
            return Err(self.error(pattern, "the pattern of LIKE is a constant text"));
        };
        if like.chars().count() > SQL_PATTERN_CHARS_MAX {
            let message = format!("a pattern has at most {SQL_PATTERN_CHARS_MAX} characters");
            return Err(self.error(pattern, message));
        }
        let escape = match escape {
            None => None,
            Some(ValueWithSpan { value, span }) => {
                let one = match value {
                    Value::SingleQuotedString(text) => text.chars().next().filter(|c| text.len() == c.len_utf8()),
                    _ => None,
                };
                Some(one.ok_or_else(|| self.source.error(*span, "ESCAPE is followed by one character in quotes"))?)
            }
        };
        if let Some(escape) = escape {
            let mut escaped = false;
            like.chars().for_each(|c| escaped = !escaped && c == escape);
            if escaped {
                return Err(self.error(pattern, "the pattern ends with its escape character"));
            }
        }
        Ok(boolean(Node::Like { text, pattern: like, escape, ignore_case }))
    }

    pub(super) fn case(
        &mut self,
        expr: &Expr,
        operand: Option<&Expr>,
        whens: &[CaseWhen],
        otherwise: Option<&Expr>,
    ) -> Result<Scalar, SqlError> {
        let subject = operand.map(|operand| self.expr(operand)).transpose()?;
        let mut conditions = Vec::with_capacity(whens.len());
        let (mut results, mut at) = (Vec::new(), Vec::new());
        for when in whens {
            let CaseWhen { condition, result } = when;
            conditions.push(match (operand, &subject) {
                (Some(operand), Some(subject)) => {
                    let subject = self.copy(subject, operand)?;
                    let value = self.expr(condition)?;
                    let [a, b] = self.unify([subject, value], &[operand, condition], "compared")?;
                    boolean(Node::Compare(CompareOp::Equal, Box::new(a), Box::new(b)))
                }
                _ => self.condition(condition, "WHEN")?,
            });
            results.push(self.expr(result)?);
            at.push(result);
        }
        if let Some(otherwise) = otherwise {
            results.push(self.expr(otherwise)?);
            at.push(otherwise);
        }
        if results.iter().all(is_null) {
            return Err(self.error(expr, "every result of this CASE is NULL").help("write CAST(NULL AS ..)"));
        }
        let mut results = self.unify_all(results, &at, "results of one CASE")?;
        let data_type = results[0].data_type;
        let otherwise = if otherwise.is_some() { results.pop().map(Box::new) } else { None };
        let branches = conditions.into_iter().zip(results).collect();
        Ok(Scalar { node: Node::Case(branches, otherwise), data_type })
    }

    /// Brings a fixed number of operands to their common type.
    pub(super) fn unify<const N: usize>(
        &self,
        items: [Scalar; N],
        at: &[&Expr; N],
        what: &str,
    ) -> Result<[Scalar; N], SqlError> {
        let items = self.unify_all(items.into(), at, what)?;
        Ok(items.try_into().expect("as many come out as go in"))
    }

    /// Brings operands to their common type. Errors point at the first that has none with those before it.
    pub(super) fn unify_all(&self, items: Vec<Scalar>, at: &[&Expr], what: &str) -> Result<Vec<Scalar>, SqlError> {
        let Some(common) = common_type(&items) else {
            let first = items.iter().position(|item| !is_null(item)).unwrap_or(0);
            let odd = (first + 1..items.len()).find(|end| common_type(&items[..=*end]).is_none()).unwrap_or(first);
            let before = common_type(&items[..odd]).unwrap_or(DataType::String);
            let message = match what {
                "compared" => format!("{before} and {} cannot be compared", items[odd].data_type),
                what => format!("{before} and {} cannot be {what}", items[odd].data_type),
            };
            let quoted = matches!(items[odd].node, Node::Literal(Literal::String(_))) && before.is_numeric();
            let help =
                if quoted { "write the number without quotes" } else { "write CAST(.. AS ..) to say what is meant" };
            return Err(self.error(at[odd], message).help(help));
        };
        items.into_iter().zip(at).map(|(item, at)| self.bring(item, common, at)).collect()
    }

    /// Brings an operand to a type it can have.
    pub(super) fn bring(&self, scalar: Scalar, to: DataType, at: &Expr) -> Result<Scalar, SqlError> {
        bring_to(scalar, to).map_err(|message| self.error(at, message))
    }
}

/// A tree of `join` over `items` in their order, as flat as can be.
pub(super) fn balanced(mut items: Vec<Scalar>, join: impl Fn(Scalar, Scalar) -> Scalar) -> Scalar {
    while items.len() > 1 {
        let mut pairs = Vec::with_capacity(items.len().div_ceil(2));
        let mut rest = items.into_iter();
        while let Some(a) = rest.next() {
            pairs.push(match rest.next() {
                Some(b) => join(a, b),
                None => a,
            });
        }
        items = pairs;
    }
    items.pop().expect("a chain has operands")
}
