//! Declares the streams and views of the checker. Each stream has a kind of writer; each view groups by batch, so that every
//! batch is counted for itself, or by nothing, so that the total is.

use crate::checks::ViewModel;

pub const STREAMS: [&str; 4] = ["with_id", "with_key", "plain", "timed"];

const DECLARED: &str = "
    CREATE STREAM with_id (id STRING PRIMARY KEY, at TIMESTAMP, batch BIGINT, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '1000 days', partitions = 2);
    CREATE STREAM with_key (at TIMESTAMP, batch BIGINT, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '1000 days', partitions = 2);
    CREATE STREAM plain (at TIMESTAMP, batch BIGINT, amount BIGINT) WITH (event_time = 'at', allowed_lateness = '1000 days');
    CREATE STREAM timed (id STRING PRIMARY KEY, at TIMESTAMP, batch BIGINT, amount BIGINT)
        WITH (event_time = 'at', watermark_delay = '1 second', allowed_lateness = '10 minutes');
    CREATE VIEW ids AS SELECT window_start, batch, COUNT(*) AS n, SUM(amount) AS total
        FROM with_id GROUP BY TUMBLE(at, INTERVAL '1' DAY), batch;
    CREATE VIEW all_ids WITH (schedule = '* * * * *') AS SELECT COUNT(*) AS n, SUM(amount) AS total FROM with_id;
    CREATE VIEW keys AS SELECT batch, COUNT(*) AS n, SUM(amount) AS total FROM with_key GROUP BY batch;
    CREATE VIEW plains AS SELECT window_start, batch, COUNT(*) AS n, SUM(amount) AS total
        FROM plain GROUP BY TUMBLE(at, INTERVAL '6' HOUR), batch;
    CREATE VIEW minutes AS SELECT window_start, batch, COUNT(*) AS n, SUM(amount) AS total
        FROM timed GROUP BY TUMBLE(at, INTERVAL '1' MINUTE), batch;
    CREATE VIEW all_timed AS SELECT COUNT(*) AS n, SUM(amount) AS total FROM timed;";

const ADDED: &str = "
    CREATE VIEW added AS SELECT window_start, batch, COUNT(*) AS n, SUM(amount) AS total
        FROM with_key GROUP BY TUMBLE(at, INTERVAL '1' HOUR), batch;";

const fn view(name: &'static str, stream: &'static str) -> ViewModel {
    ViewModel { name, stream, by_batch: true, lateness: false, added: false }
}

pub const VIEWS: [ViewModel; 7] = [
    view("ids", "with_id"),
    ViewModel { by_batch: false, ..view("all_ids", "with_id") },
    view("keys", "with_key"),
    view("plains", "plain"),
    ViewModel { lateness: true, ..view("minutes", "timed") },
    ViewModel { by_batch: false, lateness: true, ..view("all_timed", "timed") },
    ViewModel { added: true, ..view("added", "with_key") },
];

/// Returns the definitions, with or without the view that is added later.
pub fn definitions(with_added: bool) -> String {
    DECLARED.to_owned() + if with_added { ADDED } else { "" }
}

/// Small segments and files and frequent compaction, so that a short history has all kinds of work in it.
pub const LIMITS: &str = "log_segment_bytes = 20000\narchive_wait_ms = 5\narchive_file_rows = 500\ncompaction_every_ms = 150\n\
                          vacuum_every_ms = 200\nvacuum_age_ms = 0\ndedup_horizon_events = 20000\nrun_attempts_max = 1\n";
