//! Reads calls of scalar functions: their names and arguments. [`super::aggregate`] reads aggregates.

use sqlparser::ast::{
    DateTimeField, DuplicateTreatment, Expr, Function as SqlFunction, FunctionArg, FunctionArgExpr, FunctionArguments,
    ObjectNamePart, OrderByExpr, Value,
};

use super::aggregate;
use super::coerce::{is_null, settle};
use super::error::SqlError;
use super::lower::{Lowering, call};
use super::scope::{Clause, MeasureFunction};
use super::source::Source;
use super::suggest::did_you_mean;
use super::window;
use crate::alert::has_previous;
use crate::scalar::{Function, Literal, Node, Scalar};
use crate::types::DataType;

/// Digits that ROUND can keep behind the point.
const ROUND_DIGITS_MAX: i64 = 15;

/// Names of scalar functions, for suggestions.
const NAMES: &[&str] = &[
    "upper",
    "lower",
    "length",
    "char_length",
    "trim",
    "ltrim",
    "rtrim",
    "substring",
    "left",
    "right",
    "concat",
    "replace",
    "starts_with",
    "ends_with",
    "contains",
    "reverse",
    "abs",
    "sign",
    "round",
    "floor",
    "ceil",
    "sqrt",
    "exp",
    "ln",
    "power",
    "greatest",
    "least",
    "coalesce",
    "nullif",
    "extract",
    "date_trunc",
    "cast",
];

/// A call whose clauses are all known.
pub(super) struct FunctionCall<'e> {
    /// In lower case.
    pub(super) name: String,
    pub(super) span: sqlparser::tokenizer::Span,
    pub(super) arguments: Vec<&'e Expr>,
    /// `f(*)`
    pub(super) star: bool,
    pub(super) distinct: bool,
    pub(super) filter: Option<&'e Expr>,
    /// `WITHIN GROUP (ORDER BY ..)`
    pub(super) within: Option<&'e [OrderByExpr]>,
}

impl FunctionCall<'_> {
    /// Refuses clauses that only an aggregate may have.
    pub(super) fn refuse_aggregate_clauses(&self, source: &Source) -> Result<(), SqlError> {
        let clauses = [
            (self.star, "`*`"),
            (self.distinct, "DISTINCT"),
            (self.filter.is_some(), "FILTER"),
            (self.within.is_some(), "WITHIN GROUP"),
        ];
        match clauses.iter().find(|(given, _)| *given) {
            Some((_, what)) => Err(source.error(self.span, format!("{what} is only possible with an aggregate"))),
            None => Ok(()),
        }
    }
}

impl Lowering<'_, '_, '_> {
    pub(super) fn function(&mut self, expr: &Expr, function: &SqlFunction) -> Result<Scalar, SqlError> {
        let call = self.plain_call(expr, function)?;
        if aggregate::is_aggregate(&call.name) {
            return self.aggregate(&call);
        }
        if window::NAMES.contains(&call.name.as_str()) {
            let message = format!("{} can only stand in GROUP BY", call.name.to_uppercase());
            return Err(self.source.error(call.span, message));
        }
        call.refuse_aggregate_clauses(self.source)?;
        match self.measure_function(&call)? {
            Some(column) => Ok(column),
            None => self.scalar_function(&call),
        }
    }

    /// Lowers `lower(m)`, `upper(m)`, `previous(m)` and `lag(m)` of a measure in the condition of an alert; `None`: another
    /// function, or another place.
    fn measure_function(&self, call: &FunctionCall) -> Result<Option<Scalar>, SqlError> {
        let Some(view) = self.scope.alert_view() else { return Ok(None) };
        let function = match call.name.as_str() {
            "lower" => MeasureFunction::Lower,
            "upper" => MeasureFunction::Upper,
            "previous" | "lag" => MeasureFunction::Previous,
            _ => return Ok(None),
        };
        let column = match call.arguments.as_slice() {
            [Expr::Identifier(name)] => self.scope.measure_function(function, &name.value),
            _ => None,
        };
        if function != MeasureFunction::Previous {
            return Ok(column);
        }
        let name = call.name.to_uppercase();
        if !has_previous(view.window) {
            let message = format!("{name} needs a view with TUMBLE: `{}` has no previous windows", view.name);
            return Err(self.source.error(call.span, message));
        }
        if column.is_none() {
            let error = self.source.error(call.span, format!("{name} takes one measure of the view"));
            let names: Vec<&str> = view.measures.iter().map(|measure| measure.name.as_str()).collect();
            return Err(error.help(format!("the measures are {}", names.join(", "))));
        }
        Ok(column)
    }

    /// Takes a call apart; every clause that would be ignored is an error.
    pub(super) fn plain_call<'e>(&self, expr: &Expr, function: &'e SqlFunction) -> Result<FunctionCall<'e>, SqlError> {
        let SqlFunction { name, uses_odbc_syntax, parameters, args, filter, null_treatment, over, within_group } =
            function;
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return Err(self.unsupported(expr)) };
        let (name, span) = (ident.value.to_lowercase(), ident.span);
        let error = |message: String| Err(self.source.error(span, message));
        // `lag` of a measure is how an alert names the previous window.
        let is_of_alert = self.scope.clause == Clause::Alert && name == "lag";
        if let Some(later) = aggregate::later(&name).filter(|_| !is_of_alert) {
            return error(format!("{later} is not supported yet"));
        }
        if over.is_some() {
            return error("OVER is not supported yet".to_owned());
        }
        let FunctionArguments::List(list) = args else {
            return error(format!("{} needs parentheses, and is not supported", name.to_uppercase()));
        };
        let plain = !*uses_odbc_syntax
            && matches!(parameters, FunctionArguments::None)
            && null_treatment.is_none()
            && list.clauses.is_empty()
            && ident.quote_style.is_none();
        if !plain {
            return error(format!("this form of {} is not supported", name.to_uppercase()));
        }
        let mut call = FunctionCall {
            name,
            span,
            arguments: Vec::new(),
            star: false,
            distinct: list.duplicate_treatment == Some(DuplicateTreatment::Distinct),
            filter: filter.as_deref(),
            within: (!within_group.is_empty()).then_some(within_group.as_slice()),
        };
        for argument in &list.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => call.arguments.push(argument),
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if list.args.len() == 1 => call.star = true,
                _ => return error(format!("this form of argument of {} is not supported", call.name.to_uppercase())),
            }
        }
        Ok(call)
    }

    fn scalar_function(&mut self, function: &FunctionCall) -> Result<Scalar, SqlError> {
        use DataType::{BigInt, Boolean, Double, String};
        let arguments = function.arguments.as_slice();
        let upper = function.name.to_uppercase();
        let texts = |this: &mut Self| arguments.iter().map(|a| this.text(a, &upper)).collect::<Result<Vec<_>, _>>();
        let (kind, data_type) = match function.name.as_str() {
            "upper" => (Function::Upper, String),
            "lower" => (Function::Lower, String),
            "length" | "char_length" | "character_length" => (Function::Length, BigInt),
            "ltrim" => (Function::TrimStart, String),
            "rtrim" => (Function::TrimEnd, String),
            "reverse" => (Function::Reverse, String),
            "replace" => (Function::Replace, String),
            "starts_with" => (Function::StartsWith, Boolean),
            "ends_with" => (Function::EndsWith, Boolean),
            "contains" => (Function::Contains, Boolean),
            "concat" => {
                self.count_arguments(function, 1, usize::MAX)?;
                return Ok(call(Function::Concat, texts(self)?, String));
            }
            "left" | "right" => {
                self.count_arguments(function, 2, 2)?;
                let kind = if function.name == "left" { Function::Left } else { Function::Right };
                let arguments = vec![self.text(arguments[0], &upper)?, self.whole_number(arguments[1], &upper)?];
                return Ok(call(kind, arguments, String));
            }
            "abs" | "sign" => {
                self.count_arguments(function, 1, 1)?;
                let kind = if function.name == "abs" { Function::Abs } else { Function::Sign };
                return self.numeric_call(kind, &upper, arguments[0]);
            }
            "ceiling" => {
                self.count_arguments(function, 1, 1)?;
                return self.numeric_call(Function::Ceil, &upper, arguments[0]);
            }
            "round" => return self.round(function),
            "sqrt" | "exp" | "ln" => {
                self.count_arguments(function, 1, 1)?;
                let kind = match function.name.as_str() {
                    "sqrt" => Function::Sqrt,
                    "exp" => Function::Exp,
                    _ => Function::Ln,
                };
                return Ok(call(kind, vec![self.double(arguments[0], &upper)?], Double));
            }
            "power" | "pow" => {
                self.count_arguments(function, 2, 2)?;
                let arguments = vec![self.double(arguments[0], &upper)?, self.double(arguments[1], &upper)?];
                return Ok(call(Function::Power, arguments, Double));
            }
            "greatest" | "least" | "coalesce" => return self.choose(function),
            "nullif" => {
                self.count_arguments(function, 2, 2)?;
                let items = self.exprs(arguments)?;
                let items = self.unify_all(items, arguments, "compared")?;
                let data_type = items[0].data_type;
                return Ok(call(Function::NullIf, items, data_type));
            }
            "date_trunc" => return self.date_trunc(function),
            name => {
                let error = self.source.error(function.span, format!("unknown function `{name}`"));
                let names = NAMES.iter().chain(aggregate::NAMES).chain(window::NAMES).copied();
                return Err(error.maybe_help(did_you_mean(name, names)));
            }
        };
        let wanted = match kind {
            Function::Replace => 3,
            Function::StartsWith | Function::EndsWith | Function::Contains => 2,
            _ => 1,
        };
        self.count_arguments(function, wanted, wanted)?;
        Ok(call(kind, texts(self)?, data_type))
    }

    /// Errors at the function's name if it has too few or too many arguments.
    pub(super) fn count_arguments(&self, function: &FunctionCall, least: usize, most: usize) -> Result<(), SqlError> {
        let given = function.arguments.len();
        if (least..=most).contains(&given) && !function.star {
            return Ok(());
        }
        let wanted = match (least, most) {
            (1, 1) => "1 argument".to_owned(),
            (least, most) if least == most => format!("{least} arguments"),
            (least, usize::MAX) => format!("at least {least} argument{}", if least == 1 { "" } else { "s" }),
            (least, most) => format!("{least} to {most} arguments"),
        };
        let name = function.name.to_uppercase();
        Err(self.source.error(function.span, format!("{name} takes {wanted}, not {given}")))
    }

    fn exprs(&mut self, arguments: &[&Expr]) -> Result<Vec<Scalar>, SqlError> {
        arguments.iter().map(|argument| self.expr(argument)).collect()
    }

    fn choose(&mut self, function: &FunctionCall) -> Result<Scalar, SqlError> {
        self.count_arguments(function, 1, usize::MAX)?;
        let arguments = function.arguments.as_slice();
        let items = self.exprs(arguments)?;
        if items.iter().all(is_null) {
            let error = self.source.error(function.span, "every argument is NULL");
            return Err(error.help("write CAST(NULL AS ..)"));
        }
        let what = format!("arguments of one {}", function.name.to_uppercase());
        let items = self.unify_all(items, arguments, &what)?;
        let data_type = items[0].data_type;
        Ok(match function.name.as_str() {
            "greatest" => call(Function::Greatest, items, data_type),
            "least" => call(Function::Least, items, data_type),
            _ => Scalar { node: Node::Coalesce(items), data_type },
        })
    }

    /// ABS, SIGN, FLOOR and CEIL: of any number.
    pub(super) fn numeric_call(&mut self, kind: Function, name: &str, argument: &Expr) -> Result<Scalar, SqlError> {
        let scalar = self.number(argument, name)?;
        let data_type = match (kind, scalar.data_type) {
            (Function::Sign, DataType::Decimal { .. }) => DataType::BigInt,
            (Function::Floor | Function::Ceil, DataType::Decimal { scale, .. }) => {
                DataType::Decimal { precision: super::data_type::DECIMAL_DIGITS_MAX, scale }
            }
            (_, other) => other,
        };
        match (kind, scalar.data_type) {
            (Function::Floor | Function::Ceil, DataType::BigInt) => Ok(scalar),
            _ => Ok(call(kind, vec![scalar], data_type)),
        }
    }

    fn round(&mut self, function: &FunctionCall) -> Result<Scalar, SqlError> {
        self.count_arguments(function, 1, 2)?;
        let scalar = self.number(function.arguments[0], "ROUND")?;
        let digits = match function.arguments.get(1) {
            None => 0,
            Some(argument) => match self.expr(argument)?.node {
                Node::Literal(Literal::BigInt(digits @ 0..=ROUND_DIGITS_MAX)) => digits,
                _ => {
                    let message = format!("the digits of ROUND are a constant from 0 to {ROUND_DIGITS_MAX}");
                    return Err(self.error(argument, message));
                }
            },
        };
        let data_type = match scalar.data_type {
            DataType::BigInt => return Ok(scalar),
            DataType::Decimal { scale, .. } => {
                DataType::Decimal { precision: super::data_type::DECIMAL_DIGITS_MAX, scale }
            }
            other => other,
        };
        let digits = Scalar { node: Node::Literal(Literal::BigInt(digits)), data_type: DataType::BigInt };
        Ok(call(Function::Round, vec![scalar, digits], data_type))
    }

    /// A number that is BIGINT, DOUBLE or DECIMAL.
    fn number(&mut self, expr: &Expr, what: &str) -> Result<Scalar, SqlError> {
        let scalar = settle(self.expr(expr)?);
        self.need_number(&scalar, expr, what)?;
        match scalar.data_type {
            DataType::Int | DataType::String => self.bring(scalar, DataType::BigInt, expr),
            _ => Ok(scalar),
        }
    }

    fn double(&mut self, expr: &Expr, what: &str) -> Result<Scalar, SqlError> {
        let scalar = self.expr(expr)?;
        self.need_number(&scalar, expr, what)?;
        self.bring(scalar, DataType::Double, expr)
    }

    fn whole_number(&mut self, expr: &Expr, what: &str) -> Result<Scalar, SqlError> {
        let scalar = self.expr(expr)?;
        match scalar.data_type.is_integer() || is_null(&scalar) {
            true => self.bring(scalar, DataType::BigInt, expr),
            false => Err(self.error(expr, format!("{what} needs a whole number, this is {}", scalar.data_type))),
        }
    }

    pub(super) fn substring(&mut self, text: &Expr, from: &Expr, length: Option<&Expr>) -> Result<Scalar, SqlError> {
        let mut arguments = vec![self.text(text, "SUBSTRING")?, self.whole_number(from, "SUBSTRING")?];
        if let Some(length) = length {
            arguments.push(self.whole_number(length, "SUBSTRING")?);
        }
        Ok(call(Function::Substring, arguments, DataType::String))
    }

    pub(super) fn extract(&mut self, expr: &Expr, field: &DateTimeField, moment: &Expr) -> Result<Scalar, SqlError> {
        let function = match field {
            DateTimeField::Year => Function::Year,
            DateTimeField::Quarter => Function::Quarter,
            DateTimeField::Month => Function::Month,
            DateTimeField::Week(None) | DateTimeField::IsoWeek => Function::Week,
            DateTimeField::Day => Function::Day,
            DateTimeField::Dow | DateTimeField::DayOfWeek => Function::DayOfWeek,
            DateTimeField::Doy | DateTimeField::DayOfYear => Function::DayOfYear,
            DateTimeField::Hour => Function::Hour,
            DateTimeField::Minute => Function::Minute,
            DateTimeField::Second => Function::Second,
            DateTimeField::Epoch => Function::Epoch,
            other => {
                let error = self.error(expr, format!("EXTRACT({other} FROM ..) is not supported"));
                return Err(
                    error.help("parts are YEAR, QUARTER, MONTH, WEEK, DAY, DOW, DOY, HOUR, MINUTE, SECOND, EPOCH")
                );
            }
        };
        let moment = self.moment(moment, "EXTRACT")?;
        let data_type = if function == Function::Epoch { DataType::Double } else { DataType::BigInt };
        Ok(call(function, vec![moment], data_type))
    }

    fn date_trunc(&mut self, function: &FunctionCall) -> Result<Scalar, SqlError> {
        const UNITS: &[&str] = &["second", "minute", "hour", "day", "week", "month", "quarter", "year"];
        self.count_arguments(function, 2, 2)?;
        let unit = match function.arguments[0] {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(unit) => unit.to_lowercase(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        let kind = match unit.as_str() {
            "second" => Function::TruncateToSecond,
            "minute" => Function::TruncateToMinute,
            "hour" => Function::TruncateToHour,
            "day" => Function::TruncateToDay,
            "week" => Function::TruncateToWeek,
            "month" => Function::TruncateToMonth,
            "quarter" => Function::TruncateToQuarter,
            "year" => Function::TruncateToYear,
            _ => {
                let error = self.error(function.arguments[0], "the first argument of DATE_TRUNC is a unit in quotes");
                let help = did_you_mean(&unit, UNITS.iter().copied());
                return Err(error.help(help.unwrap_or_else(|| format!("the units are {}", UNITS.join(", ")))));
            }
        };
        let moment = self.moment(function.arguments[1], "DATE_TRUNC")?;
        Ok(call(kind, vec![moment], DataType::Timestamp))
    }
}
