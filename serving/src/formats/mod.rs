//! In which form does the reader get an answer? By extension, or by the first media type of `Accept` that is known.
//!
//! [`cells`]: one value as text. [`json`], [`ndjson`], [`csv`], [`parquet`]: one file each. [`json_events`]: the events
//! of a stream.

mod cells;
pub mod csv;
pub mod json;
pub mod json_events;
mod json_rows;
pub mod ndjson;
pub mod parquet;

/// A form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Ndjson,
    Csv,
    Parquet,
    /// Known, but not supported yet.
    Arrow,
}

const MEDIA_TYPES: [(&str, Format); 9] = [
    ("application/json", Format::Json),
    ("application/x-ndjson", Format::Ndjson),
    ("application/ndjson", Format::Ndjson),
    ("application/jsonl", Format::Ndjson),
    ("text/csv", Format::Csv),
    ("application/vnd.apache.parquet", Format::Parquet),
    ("application/x-parquet", Format::Parquet),
    ("application/vnd.apache.arrow.stream", Format::Arrow),
    ("application/vnd.apache.arrow.file", Format::Arrow),
];

impl Format {
    /// The form asked for by an `Accept` header: the known media type with the greatest weight, the first of equals.
    /// JSON where anything will do; `None` where nothing known will.
    pub fn accepted(header: Option<&str>) -> Option<Format> {
        let Some(header) = header.filter(|h| !h.trim().is_empty()) else { return Some(Format::Json) };
        let mut best: Option<(f32, Format)> = None;
        for range in header.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let known = MEDIA_TYPES.iter().find(|(name, _)| *name == media).map(|(_, format)| *format);
            let format = known.or(match media.as_str() {
                "*/*" | "application/*" => Some(Format::Json),
                "text/*" => Some(Format::Csv),
                _ => None,
            });
            if let Some(format) = format
                && weight > best.map_or(0.0, |(w, _)| w)
            {
                best = Some((weight, format));
            }
        }
        best.map(|(_, format)| format)
    }

    /// Value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Parquet => "application/vnd.apache.parquet",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_read_by_weight_then_by_order() {
        let cases = [
            (None, Some(Format::Json)),
            (Some(""), Some(Format::Json)),
            (Some("*/*"), Some(Format::Json)),
            (Some("text/html, application/xhtml+xml, */*;q=0.8"), Some(Format::Json)),
            (Some("text/csv"), Some(Format::Csv)),
            (Some("application/json;q=0.5, TEXT/CSV"), Some(Format::Csv)),
            (Some("application/x-ndjson, application/json"), Some(Format::Ndjson)),
            (Some("application/vnd.apache.parquet"), Some(Format::Parquet)),
            (Some("text/html"), None),
            (Some("text/csv;q=0"), None),
        ];
        for (header, expected) in cases {
            assert_eq!(Format::accepted(header), expected, "{header:?}");
        }
    }
}
