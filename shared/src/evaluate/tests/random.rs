//! Random expressions over random rows, edges included: Polars and the interpreter agree.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::interpreter::{Value, from_arrow, same, to_arrow, value};
use crate::evaluate::evaluate;
use crate::scalar::{ArithmeticOp, CompareOp, Function, Literal, Node, Scalar};
use crate::sql::print;
use crate::types::DataType;

const DECIMAL: DataType = DataType::Decimal { precision: 20, scale: 3 };
const WIDE: DataType = DataType::Decimal { precision: 38, scale: 3 };

/// Columns of the random rows: two of each type that operators treat apart.
const COLUMNS: [DataType; 12] = [
    DataType::Boolean,
    DataType::Boolean,
    DataType::Int,
    DataType::BigInt,
    DataType::BigInt,
    DataType::Double,
    DataType::Double,
    DECIMAL,
    DataType::String,
    DataType::String,
    DataType::Date,
    DataType::Timestamp,
];

fn cell(data_type: DataType) -> BoxedStrategy<Option<Value>> {
    let integers = |edges: Vec<i128>, small: std::ops::Range<i128>| {
        prop_oneof![1 => prop::sample::select(edges), 3 => small].prop_map(Value::Integer)
    };
    let values = match data_type {
        DataType::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        DataType::Int => integers(vec![i32::MIN.into(), i32::MAX.into(), 0], -5..5).boxed(),
        DataType::BigInt => integers(vec![i64::MIN.into(), i64::MAX.into(), 0, 1 << 62], -5..5).boxed(),
        DataType::Double => {
            let edges = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e18, 1e300, 0.5, 2.5, -2.5];
            prop_oneof![prop::sample::select(edges), -5.0..5.0].prop_map(Value::Double).boxed()
        }
        DataType::Decimal { .. } => {
            integers(vec![10_i128.pow(20) - 1, 1 - 10_i128.pow(20), 0, 2500, -2500], -5000..5000).boxed()
        }
        DataType::String | DataType::Json => {
            let texts = ["", "a", "A", "ab", "aé%", "_", "12", " 7 ", "2001-02-03", "NaN", "true", "a\nb", "x.y", "ß"];
            prop::sample::select(texts.to_vec()).prop_map(|text| Value::Text(text.to_owned())).boxed()
        }
        DataType::Date => integers(vec![-700_000, 0, -1, 2_000_000], -800..800).boxed(),
        DataType::Timestamp => {
            integers(vec![-1, 0, -62_135_596_800_000_000, 4_102_444_800_000_000], -90_000_000_000..90_000_000_000)
                .boxed()
        }
    };
    prop_oneof![1 => Just(None), 4 => values.prop_map(Some)].boxed()
}

fn literal(data_type: DataType) -> BoxedStrategy<Scalar> {
    let literal = move |value| match (value, data_type) {
        (None, _) => Literal::Null,
        (Some(Value::Boolean(value)), _) => Literal::Boolean(value),
        (Some(Value::Double(value)), _) => Literal::Double(value),
        (Some(Value::Text(value)), _) => Literal::String(value),
        (Some(Value::Integer(value)), DataType::Decimal { .. }) => Literal::Decimal(value),
        (Some(Value::Integer(value)), DataType::Date) => Literal::Date(value as i32),
        (Some(Value::Integer(value)), DataType::Timestamp) => Literal::Timestamp(value as i64),
        (Some(Value::Integer(value)), _) => Literal::BigInt(value as i64),
    };
    cell(data_type).prop_map(move |value| Scalar { node: Node::Literal(literal(value)), data_type }).boxed()
}

fn column(data_type: DataType) -> BoxedStrategy<Scalar> {
    let matching: Vec<usize> = (0..COLUMNS.len()).filter(|index| COLUMNS[*index] == data_type).collect();
    match matching.is_empty() {
        true => literal(data_type),
        false => prop::sample::select(matching).prop_map(move |index| Scalar::column(index, data_type)).boxed(),
    }
}

/// An expression of a type, at most `depth` levels deep.
fn scalar(data_type: DataType, depth: u32) -> BoxedStrategy<Scalar> {
    if depth == 0 {
        return match data_type {
            DataType::Int => column(data_type),
            _ => prop_oneof![3 => column(data_type), 1 => literal(data_type)].boxed(),
        };
    }
    let of = move |wanted: DataType| scalar(wanted, depth - 1);
    let new = move |node: Node| Scalar { node, data_type };
    let call = move |function: Function, items: Vec<Scalar>| new(Node::Call(function, items));
    let choice = {
        let case =
            (of(DataType::Boolean), of(data_type), of(DataType::Boolean), of(data_type), of(data_type), any::<bool>());
        let case = case.prop_map(move |(c1, r1, c2, r2, e, has_else)| {
            new(Node::Case(vec![(c1, r1), (c2, r2)], has_else.then(|| Box::new(e))))
        });
        let coalesce = prop::collection::vec(of(data_type), 1..4).prop_map(move |items| new(Node::Coalesce(items)));
        let kinds = prop::sample::select(vec![Function::Greatest, Function::Least]);
        let extreme =
            (kinds, prop::collection::vec(of(data_type), 1..4)).prop_map(move |(kind, items)| call(kind, items));
        let null_if = (of(data_type), of(data_type)).prop_map(move |(a, b)| call(Function::NullIf, vec![a, b]));
        prop_oneof![scalar(data_type, 0), case, coalesce, extreme, null_if].boxed()
    };
    let cast = prop::sample::select(castable(data_type))
        .prop_flat_map(of)
        .prop_map(move |from| new(Node::Cast(Box::new(from))));
    let arithmetic = |ops: Vec<ArithmeticOp>, of_type: DataType| {
        (prop::sample::select(ops), of(of_type), of(of_type))
            .prop_map(move |(op, a, b)| new(Node::Arithmetic(op, Box::new(a), Box::new(b))))
    };
    let unary = |functions: Vec<Function>, of_type: DataType| {
        (prop::sample::select(functions), of(of_type)).prop_map(move |(function, a)| call(function, vec![a]))
    };
    use ArithmeticOp::{Add, Divide, Modulo, Multiply, Subtract};
    let negate = of(data_type).prop_map(move |a| new(Node::Negate(Box::new(a))));
    match data_type {
        DataType::Boolean => prop_oneof![choice, logic(depth), predicates(depth)].boxed(),
        DataType::Int => prop_oneof![choice, cast].boxed(),
        DataType::BigInt => prop_oneof![
            choice,
            cast,
            negate,
            arithmetic(vec![Add, Subtract, Multiply, Divide, Modulo], data_type),
            unary(vec![Function::Abs, Function::Sign], data_type),
            unary(vec![Function::Sign], DECIMAL),
            unary(vec![Function::Length], DataType::String),
            unary(PARTS.to_vec(), DataType::Timestamp),
        ]
        .boxed(),
        DataType::Double => prop_oneof![
            choice,
            cast,
            negate,
            arithmetic(vec![Add, Subtract, Multiply, Divide, Modulo], data_type),
            unary(
                vec![
                    Function::Abs,
                    Function::Sign,
                    Function::Floor,
                    Function::Ceil,
                    Function::Sqrt,
                    Function::Exp,
                    Function::Ln
                ],
                data_type
            ),
            (of(data_type), 0..4_i64)
                .prop_map(move |(a, digits)| call(Function::Round, vec![a, digits_literal(digits)])),
            unary(vec![Function::Epoch], DataType::Timestamp),
        ]
        .boxed(),
        DataType::Decimal { .. } if data_type == WIDE => prop_oneof![
            choice,
            cast,
            negate,
            arithmetic(vec![Add, Subtract], data_type),
            // Three digits behind the point and none.
            (of(data_type), of(DataType::Decimal { precision: 38, scale: 0 }))
                .prop_map(move |(a, b)| new(Node::Arithmetic(Multiply, Box::new(a), Box::new(b)))),
            unary(vec![Function::Floor, Function::Ceil, Function::Abs], data_type),
            (of(DECIMAL), 0..4_i64).prop_map(move |(a, digits)| call(Function::Round, vec![a, digits_literal(digits)])),
        ]
        .boxed(),
        DataType::Decimal { .. } => prop_oneof![choice, cast, negate].boxed(),
        DataType::String | DataType::Json => {
            let ways = vec![
                Function::Upper,
                Function::Lower,
                Function::Trim,
                Function::TrimStart,
                Function::TrimEnd,
                Function::Reverse,
            ];
            let cut = prop::sample::select(vec![Function::Left, Function::Right, Function::Substring]);
            prop_oneof![
                choice,
                cast,
                unary(ways, data_type),
                prop::collection::vec(of(data_type), 1..4).prop_map(move |items| call(Function::Concat, items)),
                (cut, of(data_type), of(DataType::BigInt)).prop_map(move |(function, a, n)| call(function, vec![a, n])),
                (of(data_type), of(DataType::BigInt), of(DataType::BigInt))
                    .prop_map(move |(a, from, length)| call(Function::Substring, vec![a, from, length])),
                (of(data_type), of(data_type), of(data_type))
                    .prop_map(move |(a, b, c)| call(Function::Replace, vec![a, b, c])),
            ]
            .boxed()
        }
        DataType::Date => prop_oneof![choice, cast].boxed(),
        DataType::Timestamp => prop_oneof![
            choice,
            cast,
            unary(TRUNCATIONS.to_vec(), data_type),
            (of(data_type), -100_000_000_000_i64..100_000_000_000)
                .prop_map(move |(a, by)| new(Node::Shift(Box::new(a), by))),
        ]
        .boxed(),
    }
}

const PARTS: [Function; 10] = [
    Function::Year,
    Function::Quarter,
    Function::Month,
    Function::Week,
    Function::Day,
    Function::DayOfWeek,
    Function::DayOfYear,
    Function::Hour,
    Function::Minute,
    Function::Second,
];

const TRUNCATIONS: [Function; 8] = [
    Function::TruncateToSecond,
    Function::TruncateToMinute,
    Function::TruncateToHour,
    Function::TruncateToDay,
    Function::TruncateToWeek,
    Function::TruncateToMonth,
    Function::TruncateToQuarter,
    Function::TruncateToYear,
];

fn digits_literal(digits: i64) -> Scalar {
    Scalar { node: Node::Literal(Literal::BigInt(digits)), data_type: DataType::BigInt }
}

/// Types that CAST turns into `to`. Texts as decimals are in the table.
fn castable(to: DataType) -> Vec<DataType> {
    use DataType::{BigInt, Boolean, Date, Double, Int, String, Timestamp};
    match to {
        Boolean => vec![String],
        Int => vec![Boolean, BigInt, Double, DECIMAL, String],
        BigInt => vec![Boolean, Int, Double, DECIMAL, String],
        Double => vec![Int, BigInt, DECIMAL, String],
        DataType::Decimal { .. } => vec![Int, BigInt, Double, DECIMAL],
        String | DataType::Json => vec![Boolean, Int, BigInt, Double, DECIMAL, Date, Timestamp],
        Date => vec![Timestamp, String],
        Timestamp => vec![Date, String],
    }
}

fn boolean(node: Node) -> Scalar {
    Scalar { node, data_type: DataType::Boolean }
}

fn logic(depth: u32) -> BoxedStrategy<Scalar> {
    let of = move || scalar(DataType::Boolean, depth - 1);
    prop_oneof![
        (of(), of()).prop_map(|(a, b)| boolean(Node::And(Box::new(a), Box::new(b)))),
        (of(), of()).prop_map(|(a, b)| boolean(Node::Or(Box::new(a), Box::new(b)))),
        of().prop_map(|a| boolean(Node::Not(Box::new(a)))),
    ]
    .boxed()
}

fn predicates(depth: u32) -> BoxedStrategy<Scalar> {
    use CompareOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let any_type = prop::sample::select(COLUMNS.to_vec());
    let compare = any_type.clone().prop_flat_map(move |data_type| {
        let ops = vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual];
        (prop::sample::select(ops), scalar(data_type, depth - 1), scalar(data_type, depth - 1))
    });
    let is_null = any_type.clone().prop_flat_map(move |data_type| scalar(data_type, depth - 1));
    let is_in = any_type.prop_flat_map(move |data_type| {
        (scalar(data_type, depth - 1), prop::collection::vec(literal(data_type), 1..4))
    });
    let patterns = ["%", "a%", "_", "%é!%", "a_b", "", "x.y", "A", "%b", "!__"];
    let like = (scalar(DataType::String, depth - 1), prop::sample::select(patterns.to_vec()), any::<(bool, bool)>());
    let tests = vec![Function::StartsWith, Function::EndsWith, Function::Contains];
    let test = (prop::sample::select(tests), scalar(DataType::String, depth - 1), scalar(DataType::String, depth - 1));
    prop_oneof![
        compare.prop_map(|(op, a, b)| boolean(Node::Compare(op, Box::new(a), Box::new(b)))),
        is_null.prop_map(|a| boolean(Node::IsNull(Box::new(a)))),
        is_in.prop_map(|(a, list)| {
            let constant = |item: Scalar| if let Node::Literal(item) = item.node { item } else { Literal::Null };
            boolean(Node::In(Box::new(a), list.into_iter().map(constant).collect()))
        }),
        like.prop_map(|(text, pattern, (escapes, ignore_case))| {
            let escape = escapes.then_some('!');
            boolean(Node::Like { text: Box::new(text), pattern: pattern.to_owned(), escape, ignore_case })
        }),
        test.prop_map(|(function, a, b)| boolean(Node::Call(function, vec![a, b]))),
    ]
    .boxed()
}

fn rows() -> impl Strategy<Value = Vec<Vec<Option<Value>>>> {
    prop::collection::vec(COLUMNS.map(cell).to_vec(), 0..8)
}

fn any_scalar() -> impl Strategy<Value = Scalar> {
    let types = [
        DataType::Boolean,
        DataType::Int,
        DataType::BigInt,
        DataType::Double,
        DECIMAL,
        WIDE,
        DataType::String,
        DataType::Date,
        DataType::Timestamp,
    ];
    (prop::sample::select(types.to_vec()), 1..4_u32).prop_flat_map(|(data_type, depth)| scalar(data_type, depth))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn polars_and_the_interpreter_agree(scalars in prop::collection::vec(any_scalar(), 1..4), rows in rows()) {
        let fields: Vec<Field> = COLUMNS.iter().enumerate().map(|(i, t)| Field::new(format!("x{i}"), t.arrow(), true)).collect();
        let arrays = COLUMNS.iter().enumerate().map(|(index, data_type)| {
            let values: Vec<Option<Value>> = rows.iter().map(|row| row[index].clone()).collect();
            to_arrow(&values, *data_type)
        });
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.collect()).expect("columns fit");
        let results = evaluate(&scalars.iter().collect::<Vec<_>>(), &batch);
        let results = results.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        for (scalar, result) in scalars.iter().zip(&results) {
            let found = from_arrow(result, scalar.data_type);
            prop_assert_eq!(found.len(), rows.len());
            for (row, found) in rows.iter().zip(&found) {
                let expected = value(scalar, row);
                let text = print(scalar, &|index| format!("x{index}"));
                prop_assert!(same(&expected, found), "{text}\n{row:?}\nexpected {expected:?}\nfound    {found:?}");
            }
        }
    }
}
