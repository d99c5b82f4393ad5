//! `trueup streams`: which streams does a server have, and what has arrived? One row per partition.

use shared::control::StreamStatus;

use crate::arguments::Listing;
use crate::exit::Failure;
use crate::quantities::{bytes, grouped};
use crate::table::{Align, draw};

use super::listing::{Entries, moment, show};

const HEADER: [(&str, Align); 10] = [
    ("stream", Align::Left),
    ("partition", Align::Right),
    ("events", Align::Right),
    ("archived", Align::Right),
    ("duplicates", Align::Right),
    ("late", Align::Right),
    ("rejected", Align::Right),
    ("events/s", Align::Right),
    ("log", Align::Right),
    ("watermark", Align::Left),
];

pub async fn run(arguments: Listing) -> Result<(), Failure> {
    show(&arguments, "/v1/streams", |Entries(streams)| table(&streams, None)).await
}

fn table(streams: &[StreamStatus], width: Option<u16>) -> String {
    let rows = streams.iter().flat_map(|stream| {
        stream.partitions.iter().enumerate().map(|(index, partition)| {
            // What is known of the stream only stands beside its first partition.
            let of_stream = |text: String| if index == 0 { text } else { String::new() };
            vec![
                of_stream(stream.name.to_string()),
                partition.partition.to_string(),
                grouped(partition.head.0),
                grouped(partition.archived.0),
                grouped(partition.duplicates),
                grouped(partition.late),
                of_stream(grouped(stream.rejected)),
                of_stream(format!("{:.0}", stream.events_per_second)),
                bytes(partition.log_bytes),
                moment(partition.watermark),
            ]
        })
    });
    draw(&HEADER, rows, width)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_per_partition() {
        let partition = |number: u32, head: u64| {
            json!({"partition": number, "log_start": 0, "head": head, "archived": 10, "watermark": "2001-01-01T00:00:00Z",
                   "accepted": head, "duplicates": 1, "late": 0, "ahead": 0, "log_bytes": 2048, "last_arrival": null,
                   "archive_error": null})
        };
        let stream = json!({"name": "flights", "columns": [], "partitions": [partition(0, 41200), partition(1, 12)],
                            "rejected": 3, "unknown_fields": 0, "events_per_second": 817.6});
        let streams: Entries<StreamStatus> = serde_json::from_value(json!([stream])).expect("the contract's shape");
        insta::assert_snapshot!(table(&streams.0, Some(120)), @r#"
         stream    partition   events   archived   duplicates   late   rejected   events/s       log   watermark
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         flights           0   41,200         10            1      0          3        818   2.0 KiB   2001-01-01T00:00:00Z
                           1       12         10            1      0                         2.0 KiB   2001-01-01T00:00:00Z
        "#);
    }
}
