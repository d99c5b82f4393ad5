//! Reads the `where` of a query: one condition, cut into the part that a group's dimensions decide and the part that needs the
//! measures of a finished row.

use sqlparser::tokenizer::Span;

use super::cursor::ExpressionTree;
use super::dialect::{parse_expression, tokens};
use super::error::SqlError;
use super::lower::{boolean, lower_condition};
use super::operators::balanced;
use super::scope::{Clause, Scope};
use super::source::Source;
use crate::scalar::{Node, Scalar};
use crate::types::DataType;

/// What a row has to fulfil to be shown; both parts, where they are there. NULL counts as false.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueryFilter {
    /// Over the dimensions alone: a column is the index of a dimension.
    pub groups: Option<Scalar>,
    /// Over measures too: columns are the dimensions, and behind them the measures.
    pub rows: Option<Scalar>,
}

/// Reads the `where` of a query over a view's dimensions and measures. Every condition that AND joins goes to
/// [`QueryFilter::groups`] if it names no measure. Errors: the text is wrong, or a measure is JSON, which cannot be compared.
pub fn parse_query_filter(
    text: &str,
    dimensions: &[(String, DataType)],
    measures: &[(String, DataType)],
) -> Result<QueryFilter, SqlError> {
    let columns: Vec<_> = dimensions.iter().chain(measures).cloned().collect();
    let mut conditions = Vec::new();
    split(predicate(text, &columns)?, &mut conditions);
    let names_measure = |condition: &Scalar| {
        let mut names = false;
        condition.for_each_column(&mut |index| names |= index >= dimensions.len());
        names
    };
    let (rows, groups): (Vec<_>, Vec<_>) = conditions.into_iter().partition(names_measure);
    Ok(QueryFilter { groups: join(groups), rows: join(rows) })
}

/// Reads one BOOLEAN expression over `columns`.
pub(super) fn predicate(text: &str, columns: &[(String, DataType)]) -> Result<Scalar, SqlError> {
    let source = Source::new("where", text);
    let tokens = tokens(&source)?;
    let end = tokens.last().map_or_else(Span::empty, |token| Span::new(token.span.end, token.span.end));
    let expression = parse_expression(&source, &tokens, end)?;
    let mut scope = Scope::new(Clause::Rows("the where of a query"), columns, None);
    lower_condition(&source, &mut scope, &ExpressionTree { expression, tokens: &tokens }, "where")
}

/// The conditions that AND joins, in their order.
fn split(condition: Scalar, into: &mut Vec<Scalar>) {
    match condition.node {
        Node::And(a, b) => {
            split(*a, into);
            split(*b, into);
        }
        node => into.push(Scalar { node, data_type: condition.data_type }),
    }
}

fn join(conditions: Vec<Scalar>) -> Option<Scalar> {
    let and = |a, b| boolean(Node::And(Box::new(a), Box::new(b)));
    (!conditions.is_empty()).then(|| balanced(conditions, and))
}
