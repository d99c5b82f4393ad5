//! Which sessions do event times form, and would an event still join one in time?

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

/// The session that `at` is part of, among `others` and itself.
pub fn joined(others: &[i64], at: i64, gap: i64) -> (i64, i64) {
    let mut times = others.to_vec();
    times.push(at);
    let of_at = |(start, end): &(i64, i64)| *start <= at && at < *end;
    sessions(times, gap).into_iter().find(of_at).expect("every event is in a session")
}
