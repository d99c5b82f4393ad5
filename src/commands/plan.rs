//! `trueup plan`: shows what serving definitions would change in the stored data.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;

use lake::{Lake, is_remote};
use shared::changes::{Change, DefinitionPart};

use crate::arguments::{ListFormat, Plan, PlanEngine};
use crate::data_dir::DataDir;
use crate::definition_plan::{
    AlertPlan, DataLoss, DefinitionPlan, PlanStatus, RecomputeEstimate, RetentionDrop, SinkEffect, SinkPlan,
    StreamPlan, ViewPlan,
};
use crate::definitions;
use crate::exit::{Failure, NO};
use crate::human_units::{bytes, counted, grouped, length};
use crate::spark_plan::SparkPlans;

pub async fn run(arguments: Plan) -> Result<(), Failure> {
    let definitions = definitions::parse(&definitions::read(&arguments.files)?)?;
    let data_dir = DataDir::new(&arguments.data, arguments.local.as_deref());
    let location = data_dir.lake_location();
    // Opening a lake would create its folder, but this command changes nothing.
    let lake = match is_remote(&location) || Path::new(&location).exists() {
        true => Some(Lake::open(&location).map_err(|error| Failure::new(NO, error))?),
        false => {
            eprintln!("no data at {location} yet");
            None
        }
    };
    let plan = DefinitionPlan::of(&definitions, lake.as_ref(), data_dir.local_folder()).await?;
    if arguments.engine == PlanEngine::Spark && plan.refused == 0 {
        let plans = SparkPlans::of(&definitions, lake.as_ref()).await.map_err(|error| Failure::new(NO, error))?;
        let text = serde_json::to_string_pretty(&plans).expect("a plan is plain data");
        return Ok(writeln!(std::io::stdout(), "{text}")?);
    }
    let text = match arguments.output {
        ListFormat::Json => format!("{}\n", serde_json::to_string_pretty(&plan).expect("a plan is plain data")),
        ListFormat::Table => {
            let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            PlanPrinter { coloured }.print(&plan)
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    match plan.refused {
        0 => Ok(()),
        refused => Err(Failure::new(NO, format!("`serve` would refuse {}", counted(refused, "change")))),
    }
}

/// Prints a plan as text, with or without colours.
struct PlanPrinter {
    coloured: bool,
}

impl PlanPrinter {
    fn print(&self, plan: &DefinitionPlan) -> String {
        let mut text = String::new();
        for stream in &plan.streams {
            self.stream(&mut text, stream);
        }
        for view in &plan.views {
            self.view(&mut text, view);
        }
        for alert in &plan.alerts {
            self.alert(&mut text, alert);
        }
        for sink in &plan.sinks {
            self.sink(&mut text, sink);
        }
        let of_sinks = |status: PlanStatus| plan.sinks.iter().filter(|sink| sink.status == status).count();
        let of_alerts = |status: PlanStatus| plan.alerts.iter().filter(|alert| alert.status == status).count();
        let count = |status: PlanStatus| plan.views.iter().filter(|view| view.status == status).count();
        let of_streams = |status: PlanStatus| plan.streams.iter().filter(|stream| stream.status == status).count();
        let parts = [
            (of_streams(PlanStatus::New), "new stream", "new streams"),
            (of_streams(PlanStatus::Changed), "changed stream", "changed streams"),
            (count(PlanStatus::New), "new view", "new views"),
            (count(PlanStatus::Changed), "view to recompute", "views to recompute"),
            (of_alerts(PlanStatus::New), "new alert", "new alerts"),
            (of_alerts(PlanStatus::Changed), "changed alert", "changed alerts"),
            (of_sinks(PlanStatus::New), "new sink", "new sinks"),
            (of_sinks(PlanStatus::Changed), "sink that stops", "sinks that stop"),
            (plan.refused, "refused change", "refused changes"),
        ];
        let part = |(n, one, many): &(usize, &str, &str)| {
            (*n > 0).then(|| format!("{} {}", grouped(*n as u64), if *n == 1 { one } else { many }))
        };
        let parts: Vec<String> = parts.iter().filter_map(part).collect();
        let sum = if parts.is_empty() { "nothing to recompute".to_owned() } else { parts.join(", ") };
        text += &format!("\n{}\n", self.bold(&sum));
        text
    }

    fn stream(&self, text: &mut String, stream: &StreamPlan) {
        let events =
            format!("{} in the archive", counted(usize::try_from(stream.events).unwrap_or(usize::MAX), "event"));
        let what = match stream.status {
            PlanStatus::New => "new".to_owned(),
            PlanStatus::Unchanged => format!("unchanged ({events})"),
            PlanStatus::Options | PlanStatus::Changed => format!("changed ({events})"),
            PlanStatus::Refused => format!("{} ({events})", self.red("refused")),
            PlanStatus::Undeclared => format!("no longer declared; its log and its archive are kept ({events})"),
        };
        line(text, 0, &format!("{} {}: {what}", self.bold("stream"), stream.name));
        self.changes(text, &stream.changes);
        if let Some(from) = stream.retained_from {
            line(text, 2, &format!("events before {from} have been dropped and cannot be restored"));
        }
        if let Some(RetentionDrop { before, dates, first, events }) = &stream.drops {
            let (events, dates) = (counted(*events as usize, "event"), counted(*dates as usize, "date"));
            line(text, 2, &format!("drops {events} of {dates}: all from {first} to before {before}"));
            line(
                text,
                2,
                "each date is dropped once every view includes it and no window that reaches into it is open",
            );
        }
    }

    fn view(&self, text: &mut String, view: &ViewPlan) {
        let version = view.version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
        let what = match view.status {
            PlanStatus::New => "new".to_owned(),
            PlanStatus::Unchanged => format!("unchanged ({version})"),
            PlanStatus::Options => format!("only options change, nothing to recompute ({version})"),
            PlanStatus::Changed if view.stays_active && view.layers == "speed" => {
                format!("replay; {version} stays active until the replay has caught up")
            }
            PlanStatus::Changed if view.stays_active => {
                format!("recompute; {version} stays active until the new version is complete")
            }
            PlanStatus::Changed => {
                "recompute; the definition of its version can no longer be read, so only live figures are served until \
                 the new version is complete"
                    .to_owned()
            }
            PlanStatus::Refused => "not checked because its stream is refused".to_owned(),
            PlanStatus::Undeclared => {
                format!("no longer declared; its table is kept ({version}, {})", counted(view.rows as usize, "row"))
            }
        };
        line(text, 0, &format!("{} {}: {what}", self.bold("view"), view.name));
        self.changes(text, &view.changes);
        if let Some(reason) = &view.refused {
            line(text, 2, &format!("{} {reason}", self.red("refused:")));
            return;
        }
        if let Some(DataLoss { first_date, dates, rows }) = &view.data_loss {
            line(text, 2, &format!("starts with {first_date}: the stream's retention has dropped earlier events"));
            if *rows > 0 {
                let (dates, rows) = (counted(*dates as usize, "date"), counted(*rows as usize, "row"));
                line(text, 2, &self.red(&format!("loses {dates} of windows ({rows}), which cannot be recomputed")));
            }
        }
        if let Some(recompute) = view.recompute.as_ref().filter(|recompute| recompute.events > 0) {
            for sentence in estimate(recompute, if view.layers == "speed" { "replays" } else { "computes" }) {
                line(text, 2, &sentence);
            }
        }
    }

    fn alert(&self, text: &mut String, alert: &AlertPlan) {
        let records = counted(alert.records, "record");
        let what = match alert.status {
            PlanStatus::New => format!("new on view {}; raised by rows that change from now on", alert.view),
            PlanStatus::Unchanged => format!("unchanged ({records})"),
            PlanStatus::Options => format!("only its target changes ({records})"),
            PlanStatus::Changed | PlanStatus::Refused => {
                format!(
                    "starts again; what the earlier definition raised stays listed and is not judged any more ({records})"
                )
            }
            PlanStatus::Undeclared => format!("no longer declared; what it raised stays listed ({records})"),
        };
        line(text, 0, &format!("{} {}: {what}", self.bold("alert"), alert.name));
        for (name, before, after) in &alert.changes {
            line(text, 2, &format!("{} {name} {before} → {after}", self.yellow("~")));
        }
    }

    fn sink(&self, text: &mut String, sink: &SinkPlan) {
        let (target, holder) = match (&sink.topic, &sink.connection) {
            (Some(topic), _) => (format!("topic {topic}"), "topic"),
            (None, Some(connection)) => (format!("webhook {connection}"), "receiver"),
            (None, None) => ("topic unknown".to_owned(), "topic"),
        };
        let has = match &sink.stream {
            None => format!("epoch {}, the {holder} has {}", sink.epoch, counted(sink.rows, "row")),
            Some(_) => format!("epoch {}", sink.epoch),
        };
        let paused = if sink.paused { "; paused" } else { "" };
        let what = match sink.effect {
            SinkEffect::WritesAll if sink.stream.is_some() => {
                let stream = sink.stream.as_ref().map_or_else(String::new, |stream| format!(" of stream {stream}"));
                format!("new; writes all events{stream} to {target}")
            }
            SinkEffect::WritesAll => {
                let view = sink.view.as_ref().map_or_else(String::new, |view| format!(" of view {view}"));
                format!("new; writes the rows{view} to {target}")
            }
            SinkEffect::Continues if sink.status == PlanStatus::Unchanged => format!("unchanged ({has}{paused})"),
            SinkEffect::Continues => format!("only options change; it continues ({has}{paused})"),
            SinkEffect::NeedsResume => format!("{} ({has})", self.red("stops until it is resumed")),
            SinkEffect::OtherKeys => format!("{} ({has})", self.red("stops")),
            SinkEffect::Ends => format!("no longer declared; {target} and its state are kept ({has})"),
        };
        line(text, 0, &format!("{} {}: {what}", self.bold("sink"), sink.name));
        for (name, before, after) in &sink.changes {
            line(text, 2, &format!("{} {name} {before} → {after}", self.yellow("~")));
        }
        let written = if sink.stream.is_some() { "events" } else { "rows" };
        match sink.effect {
            SinkEffect::NeedsResume => {
                let command = format!("trueup sinks resume {} --from start", sink.name);
                line(
                    text,
                    2,
                    &format!("no epoch is known under the new transactional id: {command} writes all {written} again"),
                );
            }
            SinkEffect::OtherKeys if sink.stream.is_some() => {
                let why =
                    format!("the {holder} has events of another stream, or with another key: declare the sink under");
                line(text, 2, &why);
                line(text, 2, "another name, with another topic");
            }
            SinkEffect::Continues if sink.changes.iter().any(|(name, ..)| ["where", "select"].contains(name)) => {
                line(text, 2, "holds for the events after its position");
            }
            SinkEffect::OtherKeys => {
                line(
                    text,
                    2,
                    "its records would not replace those that the topic has: declare the sink under another name,",
                );
                line(text, 2, "with another topic");
            }
            SinkEffect::WritesAll | SinkEffect::Continues | SinkEffect::Ends => {}
        }
    }

    fn changes(&self, text: &mut String, changes: &[Change]) {
        for change in changes {
            let description = match (&change.before, &change.after) {
                (None, Some(after)) => format!("{} {}", self.green("+"), defined(change, after)),
                (Some(before), None) => format!("{} {}", self.red("-"), defined(change, before)),
                (before, after) => {
                    let of = |side: &Option<String>| side.clone().unwrap_or_default();
                    let sign = if change.refused.is_some() { self.red("!") } else { self.yellow("~") };
                    format!("{sign} {} → {}", defined(change, &of(before)), of(after))
                }
            };
            let note = change.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
            line(text, 2, &format!("{description}{note}"));
            if let Some(refusal) = &change.refused {
                line(text, 6, &format!("{} {}", self.red("refused:"), refusal.reason));
                line(text, 6, &format!("to do:   {}", refusal.next_step));
            }
        }
    }

    fn bold(&self, text: &str) -> String {
        self.painted(text, "1")
    }

    fn red(&self, text: &str) -> String {
        self.painted(text, "1;31")
    }

    fn green(&self, text: &str) -> String {
        self.painted(text, "32")
    }

    fn yellow(&self, text: &str) -> String {
        self.painted(text, "33")
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Describes the cost of recomputing a view.
fn estimate(recompute: &RecomputeEstimate, verb: &str) -> [String; 2] {
    let dates = counted(usize::try_from(recompute.dates).unwrap_or(usize::MAX), "date");
    let span = match (&recompute.first, &recompute.last) {
        (Some(first), Some(last)) if first != last => format!(" ({first} to {last})"),
        (Some(day), _) | (_, Some(day)) => format!(" ({day})"),
        (None, None) => String::new(),
    };
    let files = counted(usize::try_from(recompute.files).unwrap_or(usize::MAX), "file");
    let takes = match recompute.seconds.filter(|seconds| *seconds > 0.0) {
        Some(seconds) => {
            let rate = grouped((recompute.events as f64 / seconds) as u64);
            format!("; takes about {}, at the measured {rate} events/s", length(seconds * 1000.0))
        }
        None => String::new(),
    };
    [
        format!("{verb} {} events of {dates}{span}", grouped(recompute.events)),
        format!("reads about {} of the {} in {files}{takes}", bytes(recompute.read_bytes), bytes(recompute.file_bytes)),
    ]
}

/// Describes one side of a change: `column tail STRING`, `measure n = COUNT(*)`, `filter a > 0`. A dimension that is a plain
/// column is described by its name.
fn defined(change: &Change, text: &str) -> String {
    let subject = change.subject();
    match change.part {
        DefinitionPart::Dimension if change.name.as_deref() == Some(text) => subject,
        DefinitionPart::Dimension | DefinitionPart::Measure | DefinitionPart::Option => format!("{subject} = {text}"),
        _ => format!("{subject} {text}"),
    }
}

fn line(text: &mut String, indent: usize, words: &str) {
    writeln!(text, "{:indent$}{words}", "").expect("a String takes any text");
}
