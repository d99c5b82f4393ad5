//! `trueup plan`: what would change if these definitions were served over the data there is?

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;

use lake::{Lake, is_remote};
use shared::changes::{Change, DefinitionPart};

use crate::arguments::{ListFormat, Plan};
use crate::data_dir::Place;
use crate::definition_plan::{Drops, Fate, Loses, Outlook, Recompute, StreamOutlook, ViewOutlook};
use crate::definitions;
use crate::exit::{Failure, NO};
use crate::human_units::{bytes, counted, grouped, length};

pub async fn run(arguments: Plan) -> Result<(), Failure> {
    let definitions = definitions::parse(&definitions::read(&arguments.files)?)?;
    let (place, local) = {
        let place = Place::new(&arguments.data, arguments.local.as_deref());
        (place.lake_location(), place.local_folder().to_owned())
    };
    // Opening a lake creates its folder; here nothing is to be changed.
    let lake = match is_remote(&place) || Path::new(&place).exists() {
        true => Some(Lake::open(&place).map_err(|error| Failure::new(NO, error))?),
        false => {
            eprintln!("there is nothing at {place} yet");
            None
        }
    };
    let outlook = Outlook::of(&definitions, lake.as_ref(), &local).await?;
    let text = match arguments.output {
        ListFormat::Json => format!("{}\n", serde_json::to_string_pretty(&outlook).expect("an outlook is plain data")),
        ListFormat::Table => {
            let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            Words { coloured }.text(&outlook)
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    match outlook.refused {
        0 => Ok(()),
        refused => Err(Failure::new(NO, format!("`serve` would refuse {}", counted(refused, "change")))),
    }
}

/// Puts an outlook into words.
struct Words {
    coloured: bool,
}

impl Words {
    fn text(&self, outlook: &Outlook) -> String {
        let mut text = String::new();
        for stream in &outlook.streams {
            self.stream(&mut text, stream);
        }
        for view in &outlook.views {
            self.view(&mut text, view);
        }
        let count = |fate: Fate| outlook.views.iter().filter(|view| view.fate == fate).count();
        let of_streams = |fate: Fate| outlook.streams.iter().filter(|stream| stream.fate == fate).count();
        let parts = [
            (of_streams(Fate::New), "new stream", "new streams"),
            (of_streams(Fate::Changed), "stream changes", "streams change"),
            (count(Fate::New), "new view", "new views"),
            (count(Fate::Changed), "view is computed anew", "views are computed anew"),
            (outlook.refused, "change is refused", "changes are refused"),
        ];
        let part = |(n, one, many): &(usize, &str, &str)| {
            (*n > 0).then(|| format!("{} {}", grouped(*n as u64), if *n == 1 { one } else { many }))
        };
        let parts: Vec<String> = parts.iter().filter_map(part).collect();
        let sum = if parts.is_empty() { "nothing to compute anew".to_owned() } else { parts.join(", ") };
        text += &format!("\n{}\n", self.bold(&sum));
        text
    }

    fn stream(&self, text: &mut String, stream: &StreamOutlook) {
        let events =
            format!("{} in the archive", counted(usize::try_from(stream.events).unwrap_or(usize::MAX), "event"));
        let what = match stream.fate {
            Fate::New => "new".to_owned(),
            Fate::Unchanged => format!("unchanged ({events})"),
            Fate::Options | Fate::Changed => format!("changed ({events})"),
            Fate::Refused => format!("{} ({events})", self.red("refused")),
            Fate::Undeclared => format!("no longer declared: its log and its archive stay ({events})"),
        };
        line(text, 0, &format!("{} {}: {what}", self.bold("stream"), stream.name));
        self.changes(text, &stream.changes);
        if let Some(from) = stream.retained_from {
            line(text, 2, &format!("events before {from} have been dropped; nothing brings them back"));
        }
        if let Some(Drops { before, dates, first, events }) = &stream.drops {
            let (events, dates) = (counted(*events as usize, "event"), counted(*dates as usize, "date"));
            line(text, 2, &format!("drops {events} of {dates}: all before {before}, from {first} on"));
            line(text, 2, "each date once every view has taken it in and no window that reaches into it is open");
        }
    }

    fn view(&self, text: &mut String, view: &ViewOutlook) {
        let version = view.version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
        let what = match view.fate {
            Fate::New => "new".to_owned(),
            Fate::Unchanged => format!("unchanged ({version})"),
            Fate::Options => format!("only its options change: nothing is computed anew ({version})"),
            Fate::Changed if view.answers_meanwhile => {
                format!("computed anew; {version} answers as before until the new one is complete")
            }
            Fate::Changed => {
                "computed anew; its version is no longer understood, so that until then only live figures \
                              answer"
                    .to_owned()
            }
            Fate::Refused => "not looked at, because its stream is refused".to_owned(),
            Fate::Undeclared => {
                format!("no longer declared: its table stays ({version}, {})", counted(view.rows as usize, "row"))
            }
        };
        line(text, 0, &format!("{} {}: {what}", self.bold("view"), view.name));
        self.changes(text, &view.changes);
        if let Some(reason) = &view.refused {
            line(text, 2, &format!("{} {reason}", self.red("refused:")));
            return;
        }
        if let Some(Loses { begins, dates, rows }) = &view.loses {
            line(
                text,
                2,
                &format!("begins with {begins}: the events before have been dropped by the stream's retention"),
            );
            if *rows > 0 {
                let (dates, rows) = (counted(*dates as usize, "date"), counted(*rows as usize, "row"));
                line(text, 2, &self.red(&format!("loses {dates} of windows, {rows}: they cannot be computed anew")));
            }
        }
        if let Some(recompute) = view.recompute.as_ref().filter(|recompute| recompute.events > 0) {
            for sentence in work(recompute) {
                line(text, 2, &sentence);
            }
        }
    }

    fn changes(&self, text: &mut String, changes: &[Change]) {
        for change in changes {
            let said = match (&change.before, &change.after) {
                (None, Some(after)) => format!("{} {}", self.green("+"), defined(change, after)),
                (Some(before), None) => format!("{} {}", self.red("-"), defined(change, before)),
                (before, after) => {
                    let of = |side: &Option<String>| side.clone().unwrap_or_default();
                    let sign = if change.refused.is_some() { self.red("!") } else { self.yellow("~") };
                    format!("{sign} {} → {}", defined(change, &of(before)), of(after))
                }
            };
            let note = change.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
            line(text, 2, &format!("{said}{note}"));
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

/// What computing a view anew takes.
fn work(recompute: &Recompute) -> [String; 2] {
    let dates = counted(usize::try_from(recompute.dates).unwrap_or(usize::MAX), "date");
    let span = match (&recompute.first, &recompute.last) {
        (Some(first), Some(last)) if first != last => format!(" ({first} to {last})"),
        (Some(day), _) | (_, Some(day)) => format!(" ({day})"),
        (None, None) => String::new(),
    };
    let files = counted(usize::try_from(recompute.files).unwrap_or(usize::MAX), "file");
    let takes = recompute.seconds.map_or_else(String::new, |s| format!("; takes about {}", length(s * 1000.0)));
    [
        format!("computes {dates} of events{span}, {} events", grouped(recompute.events)),
        format!("reads about {} of the {} in {files}{takes}", bytes(recompute.read_bytes), bytes(recompute.file_bytes)),
    ]
}

/// `column tail STRING`, `measure n = COUNT(*)`, `filter a > 0`; a dimension that is a plain column is its name.
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
