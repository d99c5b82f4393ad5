//! Computes the sessions of event times, and which events are late for theirs.

/// The sessions `(first event, last event + gap)` of event times in any order.
pub fn sessions(mut times: Vec<i64>, gap: i64) -> Vec<(i64, i64)> {
    times.sort_unstable();
    let mut sessions: Vec<(i64, i64)> = Vec::new();
    for at in times {
        match sessions.last_mut() {
            Some((_, end)) if at < *end => *end = at + gap,
            _ => sessions.push((at, at + gap)),
        }
    }
    sessions
}

/// The open sessions of one key, which decide whether an event is late.
///
/// An event is judged with the open session it joins, or alone. Late events are in no open session. A session is
/// closed once its end plus the allowed lateness is not after the watermark.
#[derive(Debug, Default)]
pub struct Live {
    /// First and last event of each.
    sessions: Vec<(i64, i64)>,
}

impl Live {
    /// Adds the next event of the key; returns whether it is late. All in microseconds.
    pub fn judge(&mut self, at: i64, watermark: Option<i64>, gap: i64, allowed_lateness: i64) -> bool {
        let is_over = |last: i64| watermark.is_some_and(|w| last + gap + allowed_lateness <= w);
        self.sessions.retain(|(_, last)| !is_over(*last));
        let (met, apart): (Vec<_>, Vec<_>) =
            self.sessions.iter().partition(|(first, last)| at < last + gap && *first < at + gap);
        let first = met.iter().map(|(first, _)| *first).fold(at, i64::min);
        let last = met.iter().map(|(_, last)| *last).fold(at, i64::max);
        let late = is_over(last);
        if !late {
            self.sessions = apart;
            self.sessions.push((first, last));
        }
        late
    }
}
