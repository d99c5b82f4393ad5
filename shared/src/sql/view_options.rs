//! Reads the options of `CREATE VIEW`.

use super::cursor::Cursor;
use super::error::SqlError;
use super::options::{SqlOption, parse_options};
use super::source::Source;
use super::suggest::did_you_mean;
use crate::calendar::{UnknownZone, Zone};
use crate::engine::EngineChoice;
use crate::ids::Name;
use crate::limits::{VERSIONS_KEPT, VERSIONS_KEPT_MAX};
use crate::retention::Retention;
use crate::schedule::Schedule;
use crate::time::{MICROS_PER_DAY, Micros};
use crate::view::ViewLayers;
use crate::window::Window;

const OPTIONS: &[&str] = &[
    "schedule",
    "schedule_time_zone",
    "time_zone",
    "max_drift",
    "versions_kept",
    "retention",
    "layers",
    "checkpoint_schedule",
    "engine",
    "connection",
];

/// The options of a view.
pub(super) struct ViewOptions {
    pub(super) layers: ViewLayers,
    pub(super) engine: Option<EngineChoice>,
    pub(super) connection: Option<Name>,
    pub(super) schedule: Option<String>,
    pub(super) checkpoint_schedule: Option<String>,
    pub(super) schedule_zone: Option<Zone>,
    pub(super) zone: Zone,
    pub(super) max_drift: Option<f64>,
    pub(super) versions_kept: u32,
    /// With its place.
    pub(super) retention: Option<(Retention, SqlOption)>,
}

impl Default for ViewOptions {
    fn default() -> ViewOptions {
        ViewOptions {
            layers: ViewLayers::Both,
            engine: None,
            connection: None,
            schedule: None,
            checkpoint_schedule: None,
            schedule_zone: None,
            zone: Zone::UTC,
            max_drift: None,
            versions_kept: VERSIONS_KEPT,
            retention: None,
        }
    }
}

/// Reads from behind `WITH` to the closing parenthesis.
pub(super) fn view_options(cursor: &mut Cursor) -> Result<ViewOptions, SqlError> {
    let source = cursor.source;
    let mut options = ViewOptions::default();
    let (mut zone_without_schedule, mut of_batch) = (None, None);
    for option in parse_options(cursor, OPTIONS)? {
        match option.name.as_str() {
            "schedule" => options.schedule = Some(schedule(source, option)?),
            "checkpoint_schedule" => options.checkpoint_schedule = Some(schedule(source, option)?),
            "layers" => options.layers = layers(source, &option)?,
            "engine" => {
                options.engine = Some(engine(source, &option)?);
                of_batch = of_batch.or(Some(option));
            }
            "connection" => {
                let name = option.value.parse::<Name>();
                options.connection = Some(name.map_err(|error| option.error(source, error.to_string()))?);
                of_batch = of_batch.or(Some(option));
            }
            "max_drift" => {
                let share = option.value.parse().ok().filter(|share: &f64| share.is_finite() && *share >= 0.0);
                let mistake = || format!("`{}` is not a share such as 0.01, which is 1 %", option.value);
                options.max_drift = Some(share.ok_or_else(|| option.error(source, mistake()))?);
            }
            "retention" => options.retention = Some((option.retention(source)?, option)),
            "versions_kept" => options.versions_kept = versions_kept(source, &option)?,
            "schedule_time_zone" => {
                options.schedule_zone = Some(zone_of(source, &option)?);
                zone_without_schedule = Some(option);
            }
            _ => options.zone = zone_of(source, &option)?,
        }
    }
    if let Some(option) = of_batch.filter(|_| options.layers == ViewLayers::Speed) {
        let error = option.error(source, format!("`{}` is for batch runs, which the view does not have", option.name));
        return Err(error.help("leave it out, or remove layers = 'speed'"));
    }
    let has_schedule = options.schedule.is_some() || options.checkpoint_schedule.is_some();
    match zone_without_schedule.filter(|_| !has_schedule) {
        Some(option) => Err(option
            .error(source, "`schedule_time_zone` without a schedule")
            .help("add schedule = '0 2 * * *', or leave it out")),
        None => Ok(options),
    }
}

fn schedule(source: &Source, option: SqlOption) -> Result<String, SqlError> {
    Schedule::parse(&option.value).map_err(|mistake| option.error(source, mistake.to_string()))?;
    Ok(option.value)
}

fn layers(source: &Source, option: &SqlOption) -> Result<ViewLayers, SqlError> {
    let known = [ViewLayers::Both, ViewLayers::Speed];
    known.into_iter().find(|layers| layers.name() == option.value).ok_or_else(|| {
        let message = format!("`{}` is not `both` or `speed`", option.value);
        option.error(source, message).help("both: batch runs make the figures exact; speed: there are no batch runs")
    })
}

fn engine(source: &Source, option: &SqlOption) -> Result<EngineChoice, SqlError> {
    let known = [EngineChoice::Polars, EngineChoice::Spark, EngineChoice::Auto];
    known.into_iter().find(|engine| engine.name() == option.value).ok_or_else(|| {
        let message = format!("`{}` is not `polars`, `spark` or `auto`", option.value);
        option.error(source, message).help("auto: Spark for runs that read much, Polars for others")
    })
}

fn zone_of(source: &Source, option: &SqlOption) -> Result<Zone, SqlError> {
    let unknown = |error: UnknownZone| option.error(source, error.to_string()).maybe_help(zone_meant(&option.value));
    option.value.parse().map_err(unknown)
}

/// Checks that the view has window dates, which retention drops, and that those of the trailing window stay.
pub(super) fn has_dates(
    source: &Source,
    retention: Retention,
    option: &SqlOption,
    window: Window,
) -> Result<Retention, SqlError> {
    match window {
        Window::All => {
            let error = option.error(source, "the view has one window over all time, which cannot be dropped in part");
            Err(error.help("leave retention out, or add a window to GROUP BY"))
        }
        Window::TableSession { .. } => {
            let error = option.error(source, "sessions over a table cannot be dropped by retention");
            Err(error.help("remove retention, or use another window: rows of all dates are joined to sessions"))
        }
        Window::Slide { size, .. }
            if retention.first_day(Micros(0)).start().0.saturating_add(size) > -MICROS_PER_DAY =>
        {
            Err(option.error(source, "retention must be longer than the trailing window by at least a day"))
        }
        _ => Ok(retention),
    }
}

fn versions_kept(source: &Source, option: &SqlOption) -> Result<u32, SqlError> {
    match option.value.trim().parse() {
        Ok(kept) if (1..=VERSIONS_KEPT_MAX).contains(&kept) => Ok(kept),
        _ => {
            let message = format!("`{}` is not a number from 1 to {VERSIONS_KEPT_MAX}", option.value);
            Err(option.error(source, message).help("1 keeps only the version that answers"))
        }
    }
}

/// The time zone that a city alone or a misspelt name may mean.
fn zone_meant(name: &str) -> Option<String> {
    let names = || Zone::all().map(Zone::name);
    let city = name.trim().replace(' ', "_");
    let of_city = |zone: &&str| zone.rsplit_once('/').is_some_and(|(_, last)| last.eq_ignore_ascii_case(&city));
    match names().find(of_city) {
        Some(zone) => Some(format!("did you mean `{zone}`?")),
        None => did_you_mean(name, names()),
    }
}
