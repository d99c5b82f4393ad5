//! `trueup repair`: finds files that are gone. Of an archive it gives their events up on request, so that runs work again; of a
//! view it says what computes them again.

use std::collections::BTreeMap;
use std::io::Write;

use lake::{ArchiveTags, DataFile, Lake, TablePath};
use shared::date_partition::DatePartition;
use shared::ids::{Partition, ViewName};

use crate::arguments::Repair;
use crate::data_dir::{DataDir, open_lake};
use crate::exit::{Failure, NO, USAGE};
use crate::human_units::{counted, grouped};
use crate::settings::Settings;

pub async fn run(arguments: Repair) -> Result<(), Failure> {
    super::serve::log_to_stderr("warn");
    let Repair { stream, data, config, apply } = arguments;
    let settings = match &config {
        Some(path) => Settings::read(path).map_err(|error| Failure::new(USAGE, error))?,
        None => Settings::default(),
    };
    let failed = |error: lake::LakeError| Failure::new(NO, error);
    let data = data.or(settings.data.clone()).unwrap_or_else(|| "data".to_owned());
    let data_dir = DataDir::new(&data, settings.local.as_deref());
    let lake = open_lake(&data_dir).map_err(|error| Failure::new(NO, format!("{error:#}")))?;
    let Some(table) = lake.open_table(&TablePath::events(&stream)).await.map_err(failed)? else {
        let view = stream.as_str().parse().ok();
        return match view.map(|view| (lake.clone(), view)) {
            Some((lake, view)) => of_view(&lake, &view, &data).await,
            None => Err(unknown(&data, stream.as_str())),
        };
    };
    let snapshot = table.snapshot().await.map_err(failed)?;
    let missing = table.missing(&snapshot.files).await.map_err(failed)?;
    let mut out = std::io::stdout();
    if missing.is_empty() {
        let files = counted(snapshot.files.len(), "file");
        writeln!(out, "{stream}: {files} of version {}, none of them missing", snapshot.version)?;
        return Ok(());
    }
    for (date, (files, rows)) in by_date(&missing) {
        writeln!(out, "{date}: {} missing, with {} events", counted(files, "file"), grouped(rows))?;
    }
    let rows: u64 = missing.iter().map(rows_of).sum();
    let all = format!("{} with {} events", counted(missing.len(), "file"), grouped(rows));
    if !apply {
        let error = Failure::new(NO, format!("version {} of {stream} lists {all} that are gone", snapshot.version));
        return Err(error.next_step("restore them from a backup, or give their events up with --apply"));
    }
    let has_history = missing.iter().any(is_historical);
    let version = table.give_up_lost(snapshot.version, missing).await.map_err(failed)?;
    writeln!(out, "{stream}: {all} given up in version {version}")?;
    eprintln!(
        "Versions of views keep the events until their dates are recomputed: trueup batch run VIEW --full --wait"
    );
    if has_history {
        eprintln!("Historical events can be ingested again: trueup ingest {stream} FILE --historical --again");
    }
    Ok(())
}

fn unknown(data: &str, name: &str) -> Failure {
    Failure::new(
        NO,
        format!("the lake in {data} has no archive of a stream called \"{name}\", and no view of this name"),
    )
}

/// Lists the files of a view that are gone.
async fn of_view(lake: &Lake, view: &ViewName, data: &str) -> Result<(), Failure> {
    let failed = |error: lake::LakeError| Failure::new(NO, error);
    let Some(table) = lake.open_table(&TablePath::view(view)).await.map_err(failed)? else {
        return Err(unknown(data, view.as_str()));
    };
    let snapshot = table.snapshot().await.map_err(failed)?;
    let missing = table.missing(&snapshot.files).await.map_err(failed)?;
    let mut out = std::io::stdout();
    if missing.is_empty() {
        let files = counted(snapshot.files.len(), "file");
        writeln!(out, "{view}: {files} of version {}, none of them missing", snapshot.version)?;
        return Ok(());
    }
    for (date, (files, rows)) in by_date(&missing) {
        writeln!(out, "{date}: {} missing, with {} rows", counted(files, "file"), grouped(rows))?;
    }
    let all = counted(missing.len(), "file");
    let error = Failure::new(NO, format!("version {} of the view {view} lists {all} that are gone", snapshot.version));
    Err(error.next_step(format!("restore them from a backup, or compute them again: trueup batch run {view} --full")))
}

/// Returns the number of files and rows of each date.
fn by_date(files: &[DataFile]) -> BTreeMap<DatePartition, (usize, u64)> {
    let mut dates = BTreeMap::new();
    for file in files {
        let (count, rows) = dates.entry(file.partition).or_insert((0, 0));
        (*count, *rows) = (*count + 1, *rows + rows_of(file));
    }
    dates
}

fn rows_of(file: &DataFile) -> u64 {
    u64::try_from(file.rows).unwrap_or(0)
}

fn is_historical(file: &DataFile) -> bool {
    ArchiveTags::from_tags(&file.tags).is_ok_and(|tags| tags.partition == Partition::HISTORY)
}
