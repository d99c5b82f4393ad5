//! Prepares views for Apache Spark: the query, and exactly those files of the archive that its newest version lists.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use lake::{ArchiveTags, DataFile, Lake, TablePath, with_scheme};
use serde::Serialize;
use shared::ids::ViewName;
use shared::sql::Definitions;
use shared::stream::Stream;
use shared::view::{View, ViewLayers};

/// The plans of all views that batch computes.
#[derive(Debug, Serialize)]
pub struct SparkPlans {
    pub views: Vec<SparkPlan>,
}

/// What a session of Spark needs to compute a view.
#[derive(Debug, Serialize)]
pub struct SparkPlan {
    pub view: ViewName,
    /// Version of the archive's Delta table; `None`: the stream has no archive yet.
    pub archive_version: Option<i64>,
    pub events: u64,
    pub bytes: u64,
    /// Settings of the session, which give the query its meaning.
    pub settings: BTreeMap<&'static str, &'static str>,
    /// The name under which the query reads the files.
    pub table: &'static str,
    /// The columns of the files; a file that lacks one has NULL there.
    pub schema: String,
    /// URLs of the Parquet files.
    pub files: Vec<String>,
    /// Statements to execute before the query.
    pub statements: Vec<String>,
    pub query: String,
}

impl SparkPlans {
    /// Prepares the views of `definitions`. Fails if Spark would compute one of them differently.
    pub async fn of(definitions: &Definitions, lake: Option<&Lake>) -> anyhow::Result<SparkPlans> {
        let mut plans = SparkPlans { views: Vec::new() };
        for view in definitions.views.iter().filter(|view| view.layers == ViewLayers::Both) {
            let stream = definitions.streams.iter().find(|stream| stream.name == view.stream);
            let stream = stream.with_context(|| format!("view {} has no stream", view.name))?;
            plans.views.push(SparkPlan::of(view, stream, lake).await?);
        }
        Ok(plans)
    }
}

impl SparkPlan {
    async fn of(view: &View, stream: &Stream, lake: Option<&Lake>) -> anyhow::Result<SparkPlan> {
        let statement = spark::statement(view, stream)?;
        if let Some(versions) = statement.versions.first() {
            bail!(
                "view {}: its events are joined with rows of table {}, and only a run has the versions of these rows that each event \
                 sees; run the view with engine = 'spark', or leave it out of the plan",
                view.name,
                versions.table
            );
        }
        let table = match lake {
            Some(lake) => lake.open_table(&TablePath::events(&stream.name)).await?,
            None => None,
        };
        let (mut files, mut urls, mut version) = (Vec::new(), Vec::new(), None);
        if let Some(table) = &table {
            let snapshot = table.snapshot().await?;
            version = Some(snapshot.version);
            files.extend(snapshot.files.iter().cloned());
            urls.extend(files.iter().map(|file| with_scheme(&table.url_of(file))));
        }
        let statements = match &statement.calendar {
            None => Vec::new(),
            Some(tables) => {
                let days: Option<std::collections::BTreeSet<_>> =
                    files.iter().map(|file| file.partition.day()).collect();
                let Some(days) = days else {
                    bail!(
                        "view {}: stream {} has events outside the years 1 to 9999, which the calendar tables do not list; \
                         for Spark, use a window of hours or less",
                        view.name,
                        stream.name
                    )
                };
                tables.statements(days)
            }
        };
        let events = |file: &DataFile| Ok(ArchiveTags::from_tags(&file.tags)?.rows);
        Ok(SparkPlan {
            view: view.name.clone(),
            archive_version: version,
            events: files.iter().map(events).sum::<anyhow::Result<u64>>()?,
            bytes: files.iter().map(|file| u64::try_from(file.size_bytes).unwrap_or(0)).sum(),
            settings: spark::SETTINGS.iter().copied().collect(),
            table: spark::EVENTS,
            schema: spark::schema(stream),
            files: urls,
            statements,
            query: statement.query,
        })
    }
}
