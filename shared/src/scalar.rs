//! Represents a checked expression as a small typed tree; nothing outside it can be evaluated.
//!
//! The same tree serves three places, which differ only in what a column index means: a stream's columns (WHERE,
//! dimensions, arguments), a view's aggregates (arithmetic over measures) and a view's output columns (`where` of a
//! query). Evaluation is elsewhere ([`crate::evaluate`]); this file only knows types.

use serde::{Deserialize, Serialize};

use crate::types::DataType;

/// An expression with its type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scalar {
    pub node: Node,
    pub data_type: DataType,
}

/// One step of an expression. Explicit [`Node::Cast`]s give operands the types that the operator needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Node {
    /// The column at an index of the place's columns.
    Column(usize),
    Literal(Literal),
    /// `+ - * / %`: over BIGINT (overflow gives NULL, division truncates toward zero, by zero gives NULL),
    /// DOUBLE (IEEE 754) or DECIMAL (`+ - *` only: sums have operands of one scale, products add their scales; what
    /// does not fit the digits gives NULL).
    Arithmetic(ArithmeticOp, Box<Scalar>, Box<Scalar>),
    /// Operands have one type. NaN equals itself and is greater than every number.
    Compare(CompareOp, Box<Scalar>, Box<Scalar>),
    /// Three-valued.
    And(Box<Scalar>, Box<Scalar>),
    Or(Box<Scalar>, Box<Scalar>),
    Not(Box<Scalar>),
    Negate(Box<Scalar>),
    IsNull(Box<Scalar>),
    /// `CASE WHEN .. THEN .. [..] ELSE .. END`; without ELSE: NULL.
    Case(Vec<(Scalar, Scalar)>, Option<Box<Scalar>>),
    /// A value that does not fit becomes NULL.
    Cast(Box<Scalar>),
    /// Operand IN (constants); SQL NULL rules.
    In(Box<Scalar>, Vec<Literal>),
    /// `%` and `_`, with an escape character if one was given; over the whole text.
    Like {
        text: Box<Scalar>,
        pattern: String,
        escape: Option<char>,
        ignore_case: bool,
    },
    Coalesce(Vec<Scalar>),
    /// A TIMESTAMP moved by a fixed number of microseconds.
    Shift(Box<Scalar>, i64),
    Call(Function, Vec<Scalar>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArithmeticOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A constant. NULL is typed by the [`Scalar`] around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Literal {
    Null,
    Boolean(bool),
    BigInt(i64),
    Double(f64),
    /// Unscaled value; the scale is that of the [`Scalar`]'s type.
    Decimal(i128),
    String(String),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since 1970.
    Timestamp(i64),
}

/// Scalar functions of the dialect, by what they compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Function {
    Upper,
    Lower,
    /// Characters, not bytes.
    Length,
    /// Spaces only.
    Trim,
    TrimStart,
    TrimEnd,
    /// `SUBSTRING(text, from [, length])`, characters, from 1; positions before 1 count towards the length.
    Substring,
    /// A negative length gives NULL, as it does for SUBSTRING and RIGHT.
    Left,
    Right,
    /// Of any number of texts; NULL if one is NULL.
    Concat,
    /// An empty text is replaced nowhere.
    Replace,
    StartsWith,
    EndsWith,
    Contains,
    Reverse,
    Abs,
    Sign,
    /// `ROUND(x, digits)`, half away from zero; the digits are a constant.
    Round,
    Floor,
    Ceil,
    Sqrt,
    Exp,
    Ln,
    Power,
    /// Ignores NULLs, as LEAST does.
    Greatest,
    Least,
    NullIf,
    Year,
    Quarter,
    Month,
    /// ISO week.
    Week,
    Day,
    /// Sunday is 0.
    DayOfWeek,
    DayOfYear,
    Hour,
    Minute,
    /// Whole seconds.
    Second,
    /// Seconds since 1970, as DOUBLE.
    Epoch,
    TruncateToSecond,
    TruncateToMinute,
    TruncateToHour,
    TruncateToDay,
    /// From Monday.
    TruncateToWeek,
    TruncateToMonth,
    TruncateToQuarter,
    TruncateToYear,
}

impl Scalar {
    /// The column at `index`, of type `data_type`.
    pub fn column(index: usize, data_type: DataType) -> Scalar {
        Scalar { node: Node::Column(index), data_type }
    }

    /// The index, if this is nothing but a column.
    pub fn as_column(&self) -> Option<usize> {
        match self.node {
            Node::Column(index) => Some(index),
            _ => None,
        }
    }

    /// Calls `each` with every operand.
    pub fn for_each_child<'a>(&'a self, each: &mut dyn FnMut(&'a Scalar)) {
        match &self.node {
            Node::Column(_) | Node::Literal(_) => {}
            Node::Arithmetic(_, a, b) | Node::Compare(_, a, b) | Node::And(a, b) | Node::Or(a, b) => {
                each(a);
                each(b);
            }
            Node::Not(a) | Node::Negate(a) | Node::IsNull(a) | Node::Cast(a) | Node::In(a, _) | Node::Shift(a, _) => {
                each(a);
            }
            Node::Like { text, .. } => each(text),
            Node::Case(branches, otherwise) => {
                for (condition, result) in branches {
                    each(condition);
                    each(result);
                }
                if let Some(otherwise) = otherwise {
                    each(otherwise);
                }
            }
            Node::Coalesce(items) | Node::Call(_, items) => items.iter().for_each(each),
        }
    }

    /// Calls `each` with the index of every column the expression reads, as often as it reads it.
    pub fn for_each_column(&self, each: &mut dyn FnMut(usize)) {
        match &self.node {
            Node::Column(index) => each(*index),
            _ => self.for_each_child(&mut |child| child.for_each_column(each)),
        }
    }

    /// Returns the number of nodes.
    pub fn nodes(&self) -> usize {
        let mut nodes = 1;
        self.for_each_child(&mut |child| nodes += child.nodes());
        nodes
    }
}

impl Scalar {
    /// Lets `each` change the index of every column the expression reads.
    pub fn renumber(&mut self, each: &mut dyn FnMut(&mut usize)) {
        match &mut self.node {
            Node::Column(index) => each(index),
            Node::Literal(_) => {}
            Node::Arithmetic(_, a, b) | Node::Compare(_, a, b) | Node::And(a, b) | Node::Or(a, b) => {
                a.renumber(each);
                b.renumber(each);
            }
            Node::Not(a) | Node::Negate(a) | Node::IsNull(a) | Node::Cast(a) | Node::In(a, _) | Node::Shift(a, _) => {
                a.renumber(each);
            }
            Node::Like { text, .. } => text.renumber(each),
            Node::Case(branches, otherwise) => {
                for (condition, result) in branches {
                    condition.renumber(each);
                    result.renumber(each);
                }
                if let Some(otherwise) = otherwise {
                    otherwise.renumber(each);
                }
            }
            Node::Coalesce(items) | Node::Call(_, items) => items.iter_mut().for_each(|item| item.renumber(each)),
        }
    }
}

impl ArithmeticOp {
    /// As written in SQL.
    pub fn symbol(self) -> &'static str {
        match self {
            ArithmeticOp::Add => "+",
            ArithmeticOp::Subtract => "-",
            ArithmeticOp::Multiply => "*",
            ArithmeticOp::Divide => "/",
            ArithmeticOp::Modulo => "%",
        }
    }
}

impl CompareOp {
    /// As written in SQL.
    pub fn symbol(self) -> &'static str {
        match self {
            CompareOp::Equal => "=",
            CompareOp::NotEqual => "<>",
            CompareOp::Less => "<",
            CompareOp::LessOrEqual => "<=",
            CompareOp::Greater => ">",
            CompareOp::GreaterOrEqual => ">=",
        }
    }
}
