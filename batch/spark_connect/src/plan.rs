//! Describes what a session executes.

use std::collections::HashMap;

use crate::messages::{
    CollectMetrics, Command, CommandKind, CreateView, DataSource, ERROR_IF_EXISTS, Expression, ExpressionKind,
    ExpressionText, PlanKind, PlanMessage, Read, Relation, RelationCommon, RelationKind, Sql, SqlCommand,
    WriteOperation,
};

/// The name of the metric that counts the rows of a write.
pub(crate) const ROWS_WRITTEN: &str = "trueup_rows_written";

/// Something that Spark executes.
#[derive(Debug, Clone)]
pub struct Plan(pub(crate) PlanMessage);

impl Plan {
    /// Executes a statement that has no rows.
    pub fn statement(sql: &str) -> Plan {
        let input = Some(relation(RelationKind::Sql(Sql { query: sql.to_owned() })));
        Plan::command(CommandKind::Sql(SqlCommand { input }))
    }

    /// Returns the rows of a query.
    pub fn query(sql: &str) -> Plan {
        Plan::root(relation(RelationKind::Sql(Sql { query: sql.to_owned() })))
    }

    /// Returns the lines of a text file.
    pub fn lines(url: &str) -> Plan {
        Plan::root(read("text", None, [url.to_owned()]))
    }

    /// Declares the Parquet files at `urls`, and no others, as a table of the session. Without files it has no rows.
    pub fn table(name: &str, schema: &str, urls: impl IntoIterator<Item = String>) -> Plan {
        let input = Some(read("parquet", Some(schema), urls));
        Plan::command(CommandKind::CreateView(CreateView {
            input,
            name: name.to_owned(),
            is_global: false,
            replace: true,
        }))
    }

    /// Writes the rows of a query as Parquet below `url`, in a folder per value of the column `by`. The folder must not exist.
    /// The outcome has the number of rows.
    pub fn write(sql: &str, url: &str, by: &str) -> Plan {
        let query = relation(RelationKind::Sql(Sql { query: sql.to_owned() }));
        let count = ExpressionText { expression: "count(1) AS rows".to_owned() };
        let counted = CollectMetrics {
            input: Some(Box::new(query)),
            name: ROWS_WRITTEN.to_owned(),
            metrics: vec![Expression { kind: Some(ExpressionKind::Text(count)) }],
        };
        let mut counted = relation(RelationKind::CollectMetrics(Box::new(counted)));
        counted.common = Some(RelationCommon { plan_id: Some(1) });
        Plan::command(CommandKind::Write(WriteOperation {
            input: Some(counted),
            source: Some("parquet".to_owned()),
            path: Some(url.to_owned()),
            mode: ERROR_IF_EXISTS,
            partitioning_columns: vec![by.to_owned()],
            options: HashMap::from([("compression".to_owned(), "zstd".to_owned())]),
        }))
    }

    fn command(kind: CommandKind) -> Plan {
        Plan(PlanMessage { kind: Some(PlanKind::Command(Command { kind: Some(kind) })) })
    }

    fn root(relation: Relation) -> Plan {
        Plan(PlanMessage { kind: Some(PlanKind::Root(relation)) })
    }
}

fn relation(kind: RelationKind) -> Relation {
    Relation { common: None, kind: Some(kind) }
}

fn read(format: &str, schema: Option<&str>, urls: impl IntoIterator<Item = String>) -> Relation {
    let source = DataSource {
        format: Some(format.to_owned()),
        schema: schema.map(str::to_owned),
        // A bracket in the name of a folder is not a pattern.
        options: HashMap::from([("__globPaths__".to_owned(), "false".to_owned())]),
        paths: urls.into_iter().collect(),
    };
    relation(RelationKind::Read(Read { data_source: Some(source) }))
}
