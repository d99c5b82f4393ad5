//! Turns the trees of `sqlparser` into typed [`Scalar`]s. A form that is not named here is an error.

use sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType as SqlType, DateTimeField, Expr, ExtractSyntax, Ident, Spanned,
    TrimWhereField, UnaryOperator, Value,
};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::aggregate;
use super::cursor::{ExpressionTree, is_word};
use super::data_type::parse_data_type;
use super::error::SqlError;
use super::literal;
use super::operators::{Chain, can_cast, settle};
use super::scope::{Clause, Scope};
use super::source::Source;
use crate::limits::{SQL_DEPTH_MAX, SQL_NODES_MAX};
use crate::scalar::{Function, Literal, Node, Scalar};
use crate::types::DataType;

/// One expression on its way to a [`Scalar`].
pub(super) struct Lowering<'t, 's, 'c> {
    pub(super) source: &'t Source,
    pub(super) scope: &'s mut Scope<'c>,
    tokens: &'t [TokenWithSpan],
    depth: usize,
    nodes: usize,
}

/// Lowers a whole expression.
pub(super) fn lower(source: &Source, scope: &mut Scope, parsed: &ExpressionTree) -> Result<Scalar, SqlError> {
    let mut lowering = Lowering::new(source, scope, parsed.tokens);
    Ok(settle(lowering.expr(&parsed.expression)?))
}

/// Lowers a whole expression that has to be BOOLEAN. `what` it is for goes into the error.
pub(super) fn lower_condition(
    source: &Source,
    scope: &mut Scope,
    parsed: &ExpressionTree,
    what: &str,
) -> Result<Scalar, SqlError> {
    let mut lowering = Lowering::new(source, scope, parsed.tokens);
    lowering.condition(&parsed.expression, what)
}

/// Returns whether the tokens call an aggregate.
pub(super) fn has_aggregate(tokens: &[TokenWithSpan]) -> bool {
    tokens.windows(2).any(|pair| match (&pair[0].token, &pair[1].token) {
        (Token::Word(word), Token::LParen) => aggregate::is_aggregate(&word.value.to_lowercase()),
        _ => false,
    })
}

impl<'t, 's, 'c> Lowering<'t, 's, 'c> {
    pub(super) fn new(source: &'t Source, scope: &'s mut Scope<'c>, tokens: &'t [TokenWithSpan]) -> Self {
        Lowering { source, scope, tokens, depth: 0, nodes: 0 }
    }
}

impl Lowering<'_, '_, '_> {
    /// Lowers an expression. A literal with a decimal point is still DECIMAL; see [`settle`].
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<Scalar, SqlError> {
        if self.depth >= SQL_DEPTH_MAX {
            let message = format!("the expression is nested more than {SQL_DEPTH_MAX} levels deep");
            return Err(self.error(expr, message));
        }
        self.depth += 1;
        self.grow(1, expr)?;
        let result = self.step(expr);
        self.depth -= 1;
        result
    }

    fn step(&mut self, expr: &Expr) -> Result<Scalar, SqlError> {
        match expr {
            Expr::Identifier(name) if self.scope.clause == Clause::Having => {
                let measure = self.scope.measure(self.source, &name.value, name.span)?;
                self.copy(measure, expr)
            }
            Expr::Identifier(name) => self.column(name),
            Expr::CompoundIdentifier(parts) => self.qualified_column(expr, parts),
            Expr::Nested(inner) => self.expr(inner),
            Expr::Value(value) => self.value(expr, &value.value),
            Expr::TypedString(typed) if !typed.uses_odbc_syntax => {
                let Value::SingleQuotedString(text) = &typed.value.value else { return Err(self.unsupported(expr)) };
                let wanted = match &typed.data_type {
                    SqlType::Date => DataType::Date,
                    SqlType::Timestamp(None, sqlparser::ast::TimezoneInfo::None) => DataType::Timestamp,
                    other => {
                        let error = self.error(expr, format!("constants of type {other} are not supported"));
                        return Err(error.help("write CAST('..' AS ..)"));
                    }
                };
                literal::moment(text, wanted).map_err(|message| self.source.error(typed.value.span, message))
            }
            Expr::BinaryOp { left, op, right } => self.binary(expr, left, op, right),
            Expr::UnaryOp { op, expr: operand } => self.unary(expr, op, operand),
            Expr::IsNull(operand) => self.is_null(operand),
            Expr::IsNotNull(operand) => self.is_null(operand).map(not),
            Expr::IsUnknown(operand) => {
                self.condition(operand, "IS UNKNOWN").map(|a| boolean(Node::IsNull(Box::new(a))))
            }
            Expr::IsNotUnknown(operand) => {
                self.condition(operand, "IS NOT UNKNOWN").map(|a| not(boolean(Node::IsNull(Box::new(a)))))
            }
            Expr::IsTrue(operand) => self.condition(operand, "IS TRUE").map(known),
            Expr::IsNotTrue(operand) => self.condition(operand, "IS NOT TRUE").map(known).map(not),
            Expr::IsFalse(operand) => self.condition(operand, "IS FALSE").map(not).map(known),
            Expr::IsNotFalse(operand) => self.condition(operand, "IS NOT FALSE").map(not).map(known).map(not),
            Expr::Between { expr: operand, negated, low, high } => {
                self.between(operand, low, high).map(maybe_not(*negated))
            }
            Expr::InList { expr: operand, list, negated } => self.in_list(operand, list).map(maybe_not(*negated)),
            Expr::Like { negated, any: false, expr: text, pattern, escape_char } => {
                self.like(text, pattern, escape_char.as_ref(), false).map(maybe_not(*negated))
            }
            Expr::ILike { negated, any: false, expr: text, pattern, escape_char } => {
                self.like(text, pattern, escape_char.as_ref(), true).map(maybe_not(*negated))
            }
            Expr::Case { operand, conditions, else_result, case_token: _, end_token: _ } => {
                self.case(expr, operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::TryCast | CastKind::DoubleColon,
                expr: operand,
                data_type,
                array: false,
                format: None,
            } => self.cast(expr, operand, data_type),
            Expr::Extract { field, syntax: ExtractSyntax::From, expr: operand } => self.extract(expr, field, operand),
            Expr::Ceil { expr: operand, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.numeric_call(Function::Ceil, "CEIL", operand)
            }
            Expr::Floor { expr: operand, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.numeric_call(Function::Floor, "FLOOR", operand)
            }
            Expr::Substring { expr: text, substring_from: Some(from), substring_for, special: _, shorthand: _ } => {
                self.substring(text, from, substring_for.as_deref())
            }
            Expr::Trim { expr: text, trim_where, trim_what: None, trim_characters: None } => {
                let function = match trim_where {
                    None | Some(TrimWhereField::Both) => Function::Trim,
                    Some(TrimWhereField::Leading) => Function::TrimStart,
                    Some(TrimWhereField::Trailing) => Function::TrimEnd,
                };
                Ok(call(function, vec![self.text(text, "TRIM")?], DataType::String))
            }
            Expr::Interval(_) => {
                let error = self.error(expr, "a span of time can only be added to or subtracted from a TIMESTAMP");
                Err(error.help("write `ts + INTERVAL '1' HOUR`"))
            }
            Expr::Function(function) => self.function(expr, function),
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                Err(self.error(expr, "subqueries are not supported yet"))
            }
            _ => Err(self.unsupported(expr)),
        }
    }

    fn column(&mut self, name: &Ident) -> Result<Scalar, SqlError> {
        self.scope.column(self.source, &name.value, name.span)
    }

    fn qualified_column(&mut self, expr: &Expr, parts: &[Ident]) -> Result<Scalar, SqlError> {
        match parts {
            [owner, name] if self.scope.has_owner(&owner.value) => {
                self.scope.column_of(self.source, Some(&owner.value), &name.value, name.span)
            }
            [owner, ..] => {
                let error = self.source.error(owner.span, format!("unknown name `{}` before the point", owner.value));
                Err(error.maybe_help(self.scope.owners()))
            }
            [] => Err(self.unsupported(expr)),
        }
    }

    fn value(&self, expr: &Expr, value: &Value) -> Result<Scalar, SqlError> {
        match value {
            Value::Number(text, false) => literal::number(text).map_err(|message| self.error(expr, message)),
            Value::SingleQuotedString(text) => Ok(literal::text(text)),
            Value::Boolean(value) => Ok(boolean(Node::Literal(Literal::Boolean(*value)))),
            // The type of a bare NULL is settled by what stands beside it.
            Value::Null => Ok(Scalar { node: Node::Literal(Literal::Null), data_type: DataType::String }),
            _ => Err(self.error(expr, format!("this kind of constant is not supported: {value}"))),
        }
    }

    fn unary(&mut self, expr: &Expr, op: &UnaryOperator, operand: &Expr) -> Result<Scalar, SqlError> {
        match (op, operand) {
            (UnaryOperator::Minus, Expr::Value(value)) => {
                if let Value::Number(text, false) = &value.value {
                    return literal::number(&format!("-{text}")).map_err(|message| self.error(expr, message));
                }
                Err(self.error(operand, "`-` needs a number"))
            }
            (UnaryOperator::Minus, _) => self.negate(operand),
            (UnaryOperator::Plus, _) => {
                let scalar = self.expr(operand)?;
                self.need_number(&scalar, operand, "`+`")?;
                Ok(scalar)
            }
            (UnaryOperator::Not, _) => self.condition(operand, "NOT").map(not),
            _ => Err(self.error(expr, format!("the operator `{op}` is not supported"))),
        }
    }

    fn binary(&mut self, expr: &Expr, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Scalar, SqlError> {
        match op {
            BinaryOperator::And => self.chain(expr, Chain::And),
            BinaryOperator::Or => self.chain(expr, Chain::Or),
            BinaryOperator::StringConcat => self.chain(expr, Chain::Concat),
            _ => self.compare_or_compute(expr, left, op, right),
        }
    }

    fn is_null(&mut self, operand: &Expr) -> Result<Scalar, SqlError> {
        let operand = settle(self.expr(operand)?);
        Ok(boolean(Node::IsNull(Box::new(operand))))
    }

    fn cast(&mut self, expr: &Expr, operand: &Expr, wanted: &SqlType) -> Result<Scalar, SqlError> {
        let wanted = parse_data_type(&wanted.to_string())
            .map_err(|(message, help)| self.error(expr, message).maybe_help(help))?;
        let scalar = self.expr(operand)?;
        if let Node::Literal(Literal::Null) = scalar.node {
            return Ok(Scalar { data_type: wanted, ..scalar });
        }
        if !can_cast(scalar.data_type, wanted) {
            return Err(self.error(operand, format!("{} cannot be cast to {wanted}", scalar.data_type)));
        }
        // A bare literal adapts to its neighbours; behind a CAST it must not.
        let adapts = matches!(scalar.node, Node::Literal(_));
        if scalar.data_type == wanted && !adapts {
            return Ok(scalar);
        }
        Ok(Scalar { node: Node::Cast(Box::new(scalar)), data_type: wanted })
    }

    /// Lowers an operand that has to be BOOLEAN. `what` wants it goes into the error.
    pub(super) fn condition(&mut self, expr: &Expr, what: &str) -> Result<Scalar, SqlError> {
        let scalar = self.expr(expr)?;
        match (&scalar.node, scalar.data_type) {
            (Node::Literal(Literal::Null), _) => Ok(boolean(scalar.node)),
            (_, DataType::Boolean) => Ok(scalar),
            (_, other) => Err(self.error(expr, format!("{what} needs a BOOLEAN, this is {other}"))),
        }
    }

    /// Lowers an operand that has to be STRING.
    pub(super) fn text(&mut self, expr: &Expr, what: &str) -> Result<Scalar, SqlError> {
        let scalar = self.expr(expr)?;
        match scalar.data_type {
            DataType::String => Ok(scalar),
            other => {
                let error = self.error(expr, format!("{what} needs a STRING, this is {other}"));
                Err(error.help("write CAST(.. AS STRING)"))
            }
        }
    }

    /// The type has to be a number's.
    pub(super) fn need_number(&self, scalar: &Scalar, expr: &Expr, what: &str) -> Result<(), SqlError> {
        let is_null = matches!(scalar.node, Node::Literal(Literal::Null));
        match scalar.data_type.is_numeric() || is_null {
            true => Ok(()),
            false => Err(self.error(expr, format!("{what} needs a number, this is {}", scalar.data_type))),
        }
    }

    /// A second copy of an operand; copies count towards the size of the expression.
    pub(super) fn copy(&mut self, scalar: &Scalar, expr: &Expr) -> Result<Scalar, SqlError> {
        self.grow(size(scalar), expr)?;
        Ok(scalar.clone())
    }

    fn grow(&mut self, by: usize, expr: &Expr) -> Result<(), SqlError> {
        self.nodes += by;
        match self.nodes <= SQL_NODES_MAX {
            true => Ok(()),
            false => Err(self.error(expr, format!("the expression has more than {SQL_NODES_MAX} steps"))),
        }
    }

    /// An error at `expr`.
    pub(super) fn error(&self, expr: &Expr, message: impl Into<String>) -> SqlError {
        self.source.error(self.span_of(expr), message)
    }

    /// An expression outside of the dialect.
    pub(super) fn unsupported(&self, expr: &Expr) -> SqlError {
        self.error(expr, "this form of expression is not supported")
    }

    /// Where `expr` stands. `sqlparser` leaves out leading words (`CAST`, `NOT`, `(`); they are found in the tokens.
    pub(super) fn span_of(&self, expr: &Expr) -> Span {
        let inner = match expr {
            Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => self.before(self.span_of(inner), |_| true),
            Expr::Cast { kind: CastKind::Cast | CastKind::TryCast, expr: inner, .. } => {
                self.before(self.span_of(inner), |token| is_word(token, "cast") || is_word(token, "try_cast"))
            }
            Expr::Extract { expr: inner, .. } => self.before(self.span_of(inner), |token| is_word(token, "extract")),
            Expr::Substring { expr: inner, .. } | Expr::Trim { expr: inner, .. } => {
                let starts = |token: &Token| ["substring", "substr", "trim"].iter().any(|word| is_word(token, word));
                self.before(self.span_of(inner), starts)
            }
            Expr::Ceil { expr: inner, .. } | Expr::Floor { expr: inner, .. } => {
                self.before(self.span_of(inner), |token| is_word(token, "ceil") || is_word(token, "floor"))
            }
            Expr::Interval(interval) => self.before(self.span_of(&interval.value), |token| is_word(token, "interval")),
            Expr::TypedString(_) => self.before(expr.span(), |_| true),
            Expr::BinaryOp { left, right, .. } => Span::new(self.span_of(left).start, self.span_of(right).end),
            Expr::IsNull(inner) | Expr::IsNotNull(inner) | Expr::IsTrue(inner) | Expr::IsNotTrue(inner) => {
                self.span_of(inner)
            }
            Expr::Like { expr: inner, .. } | Expr::ILike { expr: inner, .. } => {
                Span::new(self.span_of(inner).start, expr.span().end)
            }
            _ => expr.span(),
        };
        match (inner.start.line, self.tokens.first()) {
            (0, Some(first)) => first.span,
            _ => inner,
        }
    }

    /// `span` extended back to the nearest token that fits.
    fn before(&self, span: Span, fits: impl Fn(&Token) -> bool) -> Span {
        let at = self.tokens.partition_point(|token| token.span.start < span.start);
        let found = self.tokens[..at].iter().rfind(|token| fits(&token.token));
        found.map_or(span, |token| Span::new(token.span.start, span.end))
    }
}

/// A BOOLEAN step.
pub(super) fn boolean(node: Node) -> Scalar {
    Scalar { node, data_type: DataType::Boolean }
}

/// `NOT a`.
pub(super) fn not(scalar: Scalar) -> Scalar {
    boolean(Node::Not(Box::new(scalar)))
}

fn maybe_not(negated: bool) -> impl Fn(Scalar) -> Scalar {
    move |scalar| if negated { not(scalar) } else { scalar }
}

/// False instead of NULL.
fn known(scalar: Scalar) -> Scalar {
    boolean(Node::Coalesce(vec![scalar, boolean(Node::Literal(Literal::Boolean(false)))]))
}

/// A function's call.
pub(super) fn call(function: Function, arguments: Vec<Scalar>, data_type: DataType) -> Scalar {
    Scalar { node: Node::Call(function, arguments), data_type }
}

/// Number of steps.
fn size(scalar: &Scalar) -> usize {
    1 + match &scalar.node {
        Node::Column(_) | Node::Literal(_) => 0,
        Node::Arithmetic(_, a, b) | Node::Compare(_, a, b) | Node::And(a, b) | Node::Or(a, b) => size(a) + size(b),
        Node::Not(a) | Node::Negate(a) | Node::IsNull(a) | Node::Cast(a) | Node::Shift(a, _) => size(a),
        Node::In(a, list) => size(a) + list.len(),
        Node::Like { text, .. } => size(text),
        Node::Case(branches, otherwise) => {
            branches.iter().map(|(a, b)| size(a) + size(b)).sum::<usize>() + otherwise.as_deref().map_or(0, size)
        }
        Node::Coalesce(items) | Node::Call(_, items) => items.iter().map(size).sum(),
    }
}
