//! The dialect, one value at a time: slow, plain, and written from its description.

use std::cmp::Ordering;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, StringViewArray,
    TimestampMicrosecondArray,
};
use chrono::{DateTime, Datelike, Timelike, Utc};

use crate::scalar::{ArithmeticOp, CompareOp, Function, Literal, Node, Scalar};
use crate::types::DataType;

/// One value. NULL is `None` around it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Boolean(bool),
    Integer(i128),
    Double(f64),
    Text(String),
}

use Value::{Boolean, Double, Integer, Text};

/// A column of values as Arrow; integers stand for dates, moments and unscaled decimals too.
pub(super) fn to_arrow(values: &[Option<Value>], data_type: DataType) -> ArrayRef {
    let integer = |value: &Option<Value>| match value {
        Some(Integer(value)) => Some(*value),
        _ => None,
    };
    let integers = || values.iter().map(integer);
    match data_type {
        DataType::Boolean => {
            let boolean = |value: &Option<Value>| if let Some(Boolean(value)) = value { Some(*value) } else { None };
            std::sync::Arc::new(values.iter().map(boolean).collect::<BooleanArray>())
        }
        DataType::Int => std::sync::Arc::new(integers().map(|v| v.map(|v| v as i32)).collect::<Int32Array>()),
        DataType::BigInt => std::sync::Arc::new(integers().map(|v| v.map(|v| v as i64)).collect::<Int64Array>()),
        DataType::Double => {
            let double = |value: &Option<Value>| if let Some(Double(value)) = value { Some(*value) } else { None };
            std::sync::Arc::new(values.iter().map(double).collect::<Float64Array>())
        }
        DataType::Decimal { precision, scale } => {
            let array = integers().collect::<Decimal128Array>().with_precision_and_scale(precision, scale);
            std::sync::Arc::new(array.expect("a valid type"))
        }
        DataType::String | DataType::Json => {
            let text = |value: &Option<Value>| if let Some(Text(value)) = value { Some(value.clone()) } else { None };
            std::sync::Arc::new(values.iter().map(text).collect::<StringViewArray>())
        }
        DataType::Date => std::sync::Arc::new(integers().map(|v| v.map(|v| v as i32)).collect::<Date32Array>()),
        DataType::Timestamp => {
            let array = integers().map(|v| v.map(|v| v as i64)).collect::<TimestampMicrosecondArray>();
            std::sync::Arc::new(array.with_timezone("UTC"))
        }
    }
}

/// The other way round.
pub(super) fn from_arrow(array: &ArrayRef, data_type: DataType) -> Vec<Option<Value>> {
    assert_eq!(*array.data_type(), data_type.arrow());
    let any = array.as_any();
    let value = |row: usize| match data_type {
        DataType::Boolean => Boolean(any.downcast_ref::<BooleanArray>().expect("its type").value(row)),
        DataType::Int => Integer(any.downcast_ref::<Int32Array>().expect("its type").value(row).into()),
        DataType::BigInt => Integer(any.downcast_ref::<Int64Array>().expect("its type").value(row).into()),
        DataType::Double => Double(any.downcast_ref::<Float64Array>().expect("its type").value(row)),
        DataType::Decimal { .. } => Integer(any.downcast_ref::<Decimal128Array>().expect("its type").value(row)),
        DataType::String | DataType::Json => {
            Text(any.downcast_ref::<StringViewArray>().expect("its type").value(row).to_owned())
        }
        DataType::Date => Integer(any.downcast_ref::<Date32Array>().expect("its type").value(row).into()),
        DataType::Timestamp => {
            Integer(any.downcast_ref::<TimestampMicrosecondArray>().expect("its type").value(row).into())
        }
    };
    (0..array.len()).map(|row| array.is_valid(row).then(|| value(row))).collect()
}

/// Are both the same value? NaN is NaN, and the sign of zero does not show.
pub(super) fn same(a: &Option<Value>, b: &Option<Value>) -> bool {
    match (a, b) {
        (Some(Double(a)), Some(Double(b))) => order_doubles(*a, *b) == Ordering::Equal,
        (a, b) => a == b,
    }
}

fn order_doubles(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Double(a), Double(b)) => order_doubles(*a, *b),
        (Integer(a), Integer(b)) => a.cmp(b),
        (Text(a), Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Boolean(a), Boolean(b)) => a.cmp(b),
        _ => panic!("operands have one type"),
    }
}

fn fits(value: i128, data_type: DataType) -> Option<Value> {
    let fits = match data_type {
        DataType::Int | DataType::Date => i32::try_from(value).is_ok(),
        DataType::BigInt | DataType::Timestamp => i64::try_from(value).is_ok(),
        DataType::Decimal { precision, .. } => value.unsigned_abs() < 10_u128.pow(precision.into()),
        _ => panic!("not a type of integers"),
    };
    fits.then_some(Integer(value))
}

fn scale(data_type: DataType) -> u32 {
    if let DataType::Decimal { scale, .. } = data_type { scale as u32 } else { 0 }
}

/// The value of `scalar` over one row.
pub(super) fn value(scalar: &Scalar, row: &[Option<Value>]) -> Option<Value> {
    let of = |scalar: &Scalar| value(scalar, row);
    let truth = |scalar: &Scalar| match value(scalar, row) {
        Some(Boolean(value)) => Some(value),
        None => None,
        other => panic!("{other:?} is no BOOLEAN"),
    };
    match &scalar.node {
        Node::Column(index) => row[*index].clone(),
        Node::Literal(value) => literal(value),
        Node::Arithmetic(op, a, b) => arithmetic(*op, of(a)?, of(b)?, scalar.data_type),
        Node::Compare(op, a, b) => {
            let order = order(&of(a)?, &of(b)?);
            Some(Boolean(match op {
                CompareOp::Equal => order.is_eq(),
                CompareOp::NotEqual => order.is_ne(),
                CompareOp::Less => order.is_lt(),
                CompareOp::LessOrEqual => order.is_le(),
                CompareOp::Greater => order.is_gt(),
                CompareOp::GreaterOrEqual => order.is_ge(),
            }))
        }
        Node::And(a, b) => match (truth(a), truth(b)) {
            (Some(false), _) | (_, Some(false)) => Some(Boolean(false)),
            (Some(true), Some(true)) => Some(Boolean(true)),
            _ => None,
        },
        Node::Or(a, b) => match (truth(a), truth(b)) {
            (Some(true), _) | (_, Some(true)) => Some(Boolean(true)),
            (Some(false), Some(false)) => Some(Boolean(false)),
            _ => None,
        },
        Node::Not(a) => truth(a).map(|value| Boolean(!value)),
        Node::Negate(a) => match of(a)? {
            Integer(value) => fits(-value, scalar.data_type),
            Double(value) => Some(Double(-value)),
            other => panic!("{other:?} is no number"),
        },
        Node::IsNull(a) => Some(Boolean(of(a).is_none())),
        Node::Case(branches, otherwise) => {
            for (condition, result) in branches {
                if truth(condition) == Some(true) {
                    return of(result);
                }
            }
            otherwise.as_ref().and_then(|otherwise| of(otherwise))
        }
        Node::Cast(a) => cast(of(a)?, a.data_type, scalar.data_type),
        Node::In(a, list) => {
            let a = of(a)?;
            let found = list.iter().filter_map(literal).any(|item| order(&a, &item).is_eq());
            if found { Some(Boolean(true)) } else { (!list.contains(&Literal::Null)).then_some(Boolean(false)) }
        }
        Node::Like { text, pattern, escape, ignore_case } => {
            let Text(text) = of(text)? else { panic!("not a text") };
            let fold = |text: &str| if *ignore_case { text.to_lowercase() } else { text.to_owned() };
            let (text, pattern): (Vec<char>, Vec<char>) =
                (fold(&text).chars().collect(), fold(pattern).chars().collect());
            Some(Boolean(like(&text, &pattern, *escape)))
        }
        Node::Coalesce(items) => items.iter().find_map(of),
        Node::Shift(a, by) => match of(a)? {
            Integer(moment) => fits(moment + i128::from(*by), DataType::Timestamp),
            other => panic!("{other:?} is no moment"),
        },
        Node::Call(Function::Greatest, items) => items.iter().filter_map(of).max_by(order),
        Node::Call(Function::Least, items) => items.iter().filter_map(of).min_by(order),
        Node::Call(Function::NullIf, items) => {
            let a = of(&items[0])?;
            match of(&items[1]) {
                Some(b) if order(&a, &b).is_eq() => None,
                _ => Some(a),
            }
        }
        Node::Call(function, items) => {
            let types: Vec<DataType> = items.iter().map(|item| item.data_type).collect();
            call(*function, items.iter().map(of).collect::<Option<Vec<_>>>()?, &types, scalar.data_type)
        }
    }
}

fn literal(literal: &Literal) -> Option<Value> {
    Some(match literal {
        Literal::Null => return None,
        Literal::Boolean(value) => Boolean(*value),
        Literal::BigInt(value) | Literal::Timestamp(value) => Integer((*value).into()),
        Literal::Double(value) => Double(*value),
        Literal::Decimal(value) => Integer(*value),
        Literal::String(value) => Text(value.clone()),
        Literal::Date(value) => Integer((*value).into()),
    })
}

fn arithmetic(op: ArithmeticOp, a: Value, b: Value, data_type: DataType) -> Option<Value> {
    match (a, b) {
        (Double(a), Double(b)) => Some(Double(match op {
            ArithmeticOp::Add => a + b,
            ArithmeticOp::Subtract => a - b,
            ArithmeticOp::Multiply => a * b,
            ArithmeticOp::Divide => a / b,
            ArithmeticOp::Modulo => a % b,
        })),
        (Integer(a), Integer(b)) => fits(
            match op {
                ArithmeticOp::Add => a.checked_add(b)?,
                ArithmeticOp::Subtract => a.checked_sub(b)?,
                ArithmeticOp::Multiply => a.checked_mul(b)?,
                ArithmeticOp::Divide => a.checked_div(b)?,
                ArithmeticOp::Modulo => a.checked_rem(b)?,
            },
            data_type,
        ),
        other => panic!("{other:?} are no numbers"),
    }
}

fn cast(value: Value, from: DataType, to: DataType) -> Option<Value> {
    let half_up = |value: i128, unit: i128| {
        let (quotient, rest) = (value / unit, value % unit);
        if rest.unsigned_abs() * 2 >= unit.unsigned_abs() { quotient + value.signum() } else { quotient }
    };
    match (value, to) {
        (value, to) if from == to => Some(value),
        (Text(text), _) => read(text.trim(), to),
        (Boolean(value), DataType::String) => Some(Text(value.to_string())),
        (Boolean(value), to) => fits(value.into(), to),
        (Double(value), DataType::String) => Some(Text(format!("{value:?}"))),
        (Double(value), DataType::Decimal { scale, .. }) => {
            let scaled = (value * 10_f64.powi(scale.into())).round();
            if scaled.is_nan() || scaled.abs() >= 1e38 { None } else { fits(scaled as i128, to) }
        }
        (Double(value), to) => {
            let value = value.trunc();
            if value.is_nan() || value.abs() > 1e19 { None } else { fits(value as i128, to) }
        }
        (Integer(value), DataType::String) => Some(Text(match from {
            DataType::Date => crate::time::Day(value as i32).to_string(),
            DataType::Timestamp => crate::time::Micros(value as i64).to_string(),
            DataType::Decimal { scale: 0, .. } => value.to_string(),
            DataType::Decimal { scale, .. } => {
                let unit = 10_u128.pow(scale as u32);
                let sign = if value < 0 { "-" } else { "" };
                let (whole, rest) = (value.unsigned_abs() / unit, value.unsigned_abs() % unit);
                format!("{sign}{whole}.{rest:0width$}", width = scale as usize)
            }
            _ => value.to_string(),
        })),
        (Integer(value), DataType::Double) => match from {
            DataType::Decimal { scale, .. } => format!("{value}e-{scale}").parse().ok().map(Double),
            _ => Some(Double(value as f64)),
        },
        (Integer(value), DataType::Date) => fits(value.div_euclid(86_400_000_000), to),
        (Integer(value), DataType::Timestamp) => fits(value * 86_400_000_000, to),
        (Integer(value), DataType::Decimal { .. }) => match (scale(from), scale(to)) {
            (from, into) if from <= into => fits(value.checked_mul(10_i128.pow(into - from))?, to),
            (from, into) => fits(half_up(value, 10_i128.pow(from - into)), to),
        },
        (Integer(value), to) => fits(value / 10_i128.pow(scale(from)), to),
    }
}

fn read(text: &str, to: DataType) -> Option<Value> {
    match to {
        DataType::Boolean => match text.to_lowercase().as_str() {
            "true" | "t" | "1" => Some(Boolean(true)),
            "false" | "f" | "0" => Some(Boolean(false)),
            _ => None,
        },
        DataType::Double => text.parse().ok().map(Double),
        DataType::Int | DataType::BigInt => text.parse().ok().and_then(|value| fits(value, to)),
        DataType::Date => {
            let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            (date.to_string() == text).then(|| Integer((date.num_days_from_ce() - 719_163).into()))
        }
        DataType::Timestamp => crate::time::Micros::parse(text).map(|moment| Integer(moment.0.into())),
        DataType::Decimal { .. } | DataType::String | DataType::Json => {
            panic!("texts as decimals are tested in the table")
        }
    }
}

fn like(text: &[char], pattern: &[char], escape: Option<char>) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((c, rest)) if Some(*c) == escape => {
            rest.first() == text.first() && !rest.is_empty() && like(&text[1..], &rest[1..], escape)
        }
        Some(('%', rest)) => (0..=text.len()).any(|skipped| like(&text[skipped..], rest, escape)),
        Some(('_', rest)) => !text.is_empty() && like(&text[1..], rest, escape),
        Some((c, rest)) => text.first() == Some(c) && like(&text[1..], rest, escape),
    }
}

fn call(function: Function, items: Vec<Value>, types: &[DataType], output: DataType) -> Option<Value> {
    let text = |index: usize| if let Text(text) = &items[index] { text.clone() } else { panic!("not a text") };
    let number = |index: usize| if let Integer(value) = &items[index] { *value } else { panic!("not an integer") };
    let double = |index: usize| if let Double(value) = &items[index] { *value } else { panic!("not a double") };
    let chars = |index: usize| text(index).chars().collect::<Vec<char>>();
    let unit = 10_i128.pow(scale(types[0]));
    let is_double = types[0] == DataType::Double;
    let result = match function {
        Function::Upper => Text(text(0).to_uppercase()),
        Function::Lower => Text(text(0).to_lowercase()),
        Function::Length => Integer(chars(0).len() as i128),
        Function::Trim => Text(text(0).trim_matches(' ').to_owned()),
        Function::TrimStart => Text(text(0).trim_start_matches(' ').to_owned()),
        Function::TrimEnd => Text(text(0).trim_end_matches(' ').to_owned()),
        Function::Reverse => Text(chars(0).into_iter().rev().collect()),
        Function::Concat => Text((0..items.len()).map(text).collect()),
        Function::Replace if text(1).is_empty() => Text(text(0)),
        Function::Replace => Text(text(0).split(text(1).as_str()).collect::<Vec<_>>().join(&text(2))),
        Function::StartsWith => Boolean(chars(0).starts_with(&chars(1))),
        Function::EndsWith => Boolean(chars(0).ends_with(&chars(1))),
        Function::Contains => Boolean(text(0).match_indices(&text(1)).next().is_some()),
        Function::Left if number(1) < 0 => return None,
        Function::Left => Text(chars(0).into_iter().take(number(1) as usize).collect()),
        Function::Right if number(1) < 0 => return None,
        Function::Right => {
            let kept: String = chars(0).into_iter().rev().take(number(1) as usize).collect();
            Text(kept.chars().rev().collect())
        }
        Function::Substring => {
            let length = if items.len() == 3 { number(2) } else { i64::MAX.into() };
            if length < 0 {
                return None;
            }
            let end = if items.len() == 3 { number(1) + length } else { i128::MAX };
            let inside = |(at, _): &(usize, char)| (*at as i128 + 1) >= number(1) && (*at as i128 + 1) < end;
            Text(chars(0).into_iter().enumerate().filter(inside).map(|(_, c)| c).collect())
        }
        Function::Abs if is_double => Double(double(0).abs()),
        Function::Abs => return fits(number(0).abs(), output),
        Function::Sign if is_double && double(0) > 0.0 => Double(1.0),
        Function::Sign if is_double && double(0) < 0.0 => Double(-1.0),
        Function::Sign if is_double => Double(double(0)),
        Function::Sign => Integer(number(0).signum()),
        Function::Floor if is_double => Double(double(0).floor()),
        Function::Floor => return fits(number(0).div_euclid(unit) * unit, output),
        Function::Ceil if is_double => Double(double(0).ceil()),
        Function::Ceil => return fits(-(-number(0)).div_euclid(unit) * unit, output),
        Function::Round if is_double => {
            let factor = 10_f64.powi(number(1) as i32);
            let rounded = (double(0) * factor).round() / factor;
            Double(if rounded.is_finite() { rounded } else { double(0) })
        }
        Function::Round => {
            let Some(digits) = scale(types[0]).checked_sub(number(1) as u32) else { return fits(number(0), output) };
            let unit = 10_i128.pow(digits);
            let up = (number(0) % unit).abs() * 2 >= unit && digits > 0;
            return fits((number(0) / unit + if up { number(0).signum() } else { 0 }) * unit, output);
        }
        Function::Sqrt => Double(double(0).sqrt()),
        Function::Exp => Double(double(0).exp()),
        Function::Ln => Double(double(0).ln()),
        Function::Power => Double(double(0).powf(double(1))),
        Function::Epoch => Double(number(0) as f64 / 1e6),
        _ => return moment(function, number(0) as i64),
    };
    Some(result)
}

fn moment(function: Function, micros: i64) -> Option<Value> {
    let moment = DateTime::<Utc>::from_timestamp_micros(micros)?;
    let days_back = |days: u32| moment.date_naive() - chrono::Days::new(days.into());
    let start = |date: chrono::NaiveDate| Some(date.and_hms_opt(0, 0, 0)?.and_utc());
    let on_first = |month: u32| start(chrono::NaiveDate::from_ymd_opt(moment.year(), month, 1)?);
    let truncated = match function {
        Function::TruncateToSecond => moment.with_nanosecond(0)?,
        Function::TruncateToMinute => moment.with_nanosecond(0)?.with_second(0)?,
        Function::TruncateToHour => moment.with_nanosecond(0)?.with_second(0)?.with_minute(0)?,
        Function::TruncateToDay => start(moment.date_naive())?,
        Function::TruncateToWeek => start(days_back(moment.weekday().num_days_from_monday()))?,
        Function::TruncateToMonth => on_first(moment.month())?,
        Function::TruncateToQuarter => on_first(moment.month0() / 3 * 3 + 1)?,
        Function::TruncateToYear => on_first(1)?,
        function => {
            return Some(Integer(i128::from(match function {
                Function::Year => moment.year(),
                Function::Quarter => moment.month0() as i32 / 3 + 1,
                Function::Month => moment.month() as i32,
                Function::Week => moment.iso_week().week() as i32,
                Function::Day => moment.day() as i32,
                Function::DayOfWeek => moment.weekday().num_days_from_sunday() as i32,
                Function::DayOfYear => moment.ordinal() as i32,
                Function::Hour => moment.hour() as i32,
                Function::Minute => moment.minute() as i32,
                Function::Second => moment.second() as i32,
                other => panic!("{other:?} is not of a moment"),
            })));
        }
    };
    Some(Integer(truncated.timestamp_micros().into()))
}
