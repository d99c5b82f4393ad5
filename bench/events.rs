//! Makes the events of the benchmarks: bids of 170 bytes, an hour of event time, 100 channels, a million bidders.

use std::fmt::Write;

pub const STREAM: &str = "
    CREATE STREAM bids (event_id STRING PRIMARY KEY, auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP, url STRING)
    WITH (event_time = 'ts', watermark_delay = '10 seconds', allowed_lateness = '1 hour');";

pub const PER_CHANNEL: &str = "
    CREATE VIEW per_channel AS
    SELECT window_start, channel, COUNT(*) AS bids, SUM(price) AS total, MAX(price) AS highest
    FROM bids GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), channel;";

/// Mixes a number so that neighbours look unrelated (SplitMix64).
pub fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// Lines `from..to` of `of`, spread over one hour from 2026-01-01T00:00:00Z.
pub fn bids(from: u64, to: u64, of: u64) -> Vec<u8> {
    let mut text = String::with_capacity((to - from) as usize * 175);
    for n in from..to {
        let r = mixed(n);
        let millis = (u128::from(n) * 3_600_000 / u128::from(of)) as u64;
        let (minute, second, milli) = (millis / 60_000, millis / 1000 % 60, millis % 1000);
        let _ = writeln!(
            text,
            "{{\"event_id\":\"e{n:010}\",\"auction\":{},\"bidder\":{},\"price\":{},\"channel\":\"channel-{}\",\
             \"ts\":\"2026-01-01T00:{minute:02}:{second:02}.{milli:03}Z\",\"url\":\"https://www.example.com/{:08}?r=abc\"}}",
            r % 1000,
            (r >> 10) % 1_000_000,
            (r >> 30) % 10_000,
            (r >> 44) % 100,
            r % 100_000_000,
        );
    }
    text.into_bytes()
}
