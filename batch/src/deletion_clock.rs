//! Gives the time by which data may be deleted: the clock's, as long as it is plausible.
//!
//! A clock that is wrong for a minute must not delete what was to be kept for years. So the wall clock is compared with the
//! time that has passed since it was last plausible, by the monotonic clock, and with the newest event of the stream:
//!
//! ```text
//! plausible(now)  ⟺  now ≤ trusted + passed + CLOCK_AHEAD_MAX   or   now ≤ newest event + CLOCK_AHEAD_MAX
//! ```
//!
//! As long as it is not, deletions use `max(trusted + passed, newest event)` instead. A clock that is ahead and stays so for
//! `CLOCK_BELIEVED_AFTER` is believed: it was the trusted time that was wrong, for instance after a long standstill.
//!
//! A process starts with the trusted time that the one before noted. If there is no note, as on another machine, the lake is
//! the evidence: the last version of a view, the last commit of an archive, and the newest event. Versions and commits were
//! dated by some clock, which may be the one in question, so the newest event bounds them:
//!
//! ```text
//! trusted at the start = min(now, max(last publish, last archive commit), newest event)
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lake::{DataFile, Lake, LakeError, TablePath};
use parking_lot::Mutex;
use shared::clock::Clock;
use shared::limits::{CLOCK_AHEAD_MAX_MS, CLOCK_BELIEVED_AFTER_MS};
use shared::stream::Stream;
use shared::time::{MICROS_PER_SECOND, Micros};

/// How far the clock may drift from the time that passes without having been set.
const DRIFT_MAX: Duration = Duration::from_secs(600);
/// Time between two notes of the trusted time.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// The clock of deletions.
#[derive(Debug)]
pub struct DeletionClock {
    clock: Arc<dyn Clock>,
    /// Keeps the trusted time across restarts; `None`: it is not kept.
    note: Option<PathBuf>,
    trust: Mutex<Trust>,
}

/// What a lake says about the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LakeEvidence {
    /// When the last version of any view was published.
    pub published: Option<Micros>,
    /// When the archive of any stream was last changed.
    pub archived: Option<Micros>,
    /// The time of the newest archived event of any stream.
    pub newest_event: Option<Micros>,
}

impl LakeEvidence {
    /// Reads the evidence of a lake, of which `published` is known. Tables that cannot be read are skipped.
    pub async fn read(lake: &Lake, streams: &[Arc<Stream>], published: Option<Micros>) -> LakeEvidence {
        let mut evidence = LakeEvidence { published, ..LakeEvidence::default() };
        for stream in streams {
            match archive_evidence(lake, stream).await {
                Ok((archived, newest_event)) => {
                    evidence.archived = evidence.archived.max(archived);
                    evidence.newest_event = evidence.newest_event.max(newest_event);
                }
                Err(error) => {
                    tracing::warn!(stream = %stream.name, %error, "cannot read when the archive was changed; deletions may wait for a day");
                }
            }
        }
        evidence
    }

    /// Returns the latest time that all of the evidence makes plausible; `None`: there is none, and nothing to delete.
    fn time(self) -> Option<Micros> {
        let written = self.published.max(self.archived);
        match (written, self.newest_event) {
            (Some(written), Some(event)) => Some(written.min(event)),
            (written, event) => written.or(event),
        }
    }
}

async fn archive_evidence(lake: &Lake, stream: &Stream) -> Result<(Option<Micros>, Option<Micros>), LakeError> {
    let Some(table) = lake.open_table(&TablePath::events(&stream.name)).await? else { return Ok((None, None)) };
    let newest = newest_event(&table.snapshot().await?.files);
    // A table without events was only declared: nothing in it can be deleted.
    Ok((if newest.is_some() { table.committed_at().await? } else { None }, newest))
}

/// The evidence about the clock.
#[derive(Debug, Clone, Copy)]
struct Trust {
    /// A time that was plausible, and the uptime then.
    trusted: Micros,
    uptime: Duration,
    /// Since when the clock has been ahead, in uptime, and what it showed then.
    ahead: Option<(Duration, Micros)>,
    /// Uptime when the trusted time was noted.
    noted: Option<Duration>,
}

/// The outcome of a check.
enum Verdict {
    Plausible,
    /// The clock is ahead; `since_now`: it was not before.
    Ahead {
        now: Micros,
        limit: Micros,
        since_now: bool,
    },
}

impl DeletionClock {
    /// Returns the clock of a process that has just started. `evidence` counts if there is no note.
    pub fn new(clock: Arc<dyn Clock>, note: Option<PathBuf>, evidence: LakeEvidence) -> DeletionClock {
        let now = clock.now();
        let noted = note.as_ref().and_then(|note| Micros::parse(std::fs::read_to_string(note).ok()?.trim()));
        // Without any evidence there is nothing yet that could be deleted.
        let trusted = noted.or(evidence.time()).unwrap_or(now).min(now);
        let trust = Trust { trusted, uptime: clock.uptime(), ahead: None, noted: None };
        let clock = DeletionClock { clock, note, trust: Mutex::new(trust) };
        if noted.is_none() {
            clock.write_note(trusted);
        }
        clock
    }

    /// Returns the time by which data of a stream may be deleted, which is never after the clock's. `newest_event` is the
    /// time of its newest event, if known.
    pub fn now(&self, newest_event: Option<Micros>) -> Micros {
        let (now, uptime) = (self.clock.now(), self.clock.uptime());
        let mut trust = self.trust.lock();
        let (next, deletion_time, verdict) = trust.checked(now, uptime, newest_event);
        let is_note_due = next.noted.is_none_or(|noted| uptime.saturating_sub(noted) >= NOTE_EVERY);
        *trust = Trust { noted: if is_note_due { Some(uptime) } else { next.noted }, ..next };
        let trusted = trust.trusted;
        drop(trust);
        if is_note_due {
            self.write_note(trusted);
        }
        report(&verdict);
        deletion_time
    }

    /// Returns how far the clock is ahead of the time by which data may be deleted.
    pub fn ahead(&self, newest_event: Option<Micros>) -> Duration {
        let ahead = self.clock.now().0.saturating_sub(self.now(newest_event).0);
        Duration::from_micros(u64::try_from(ahead).unwrap_or(0))
    }

    fn write_note(&self, trusted: Micros) {
        let Some(note) = &self.note else { return };
        let unfinished = note.with_extension("new");
        let written =
            std::fs::write(&unfinished, trusted.to_string()).and_then(|()| std::fs::rename(&unfinished, note));
        if let Err(error) = written {
            tracing::warn!(%error, "could not note the time; after a restart, deletions may wait for a day");
        }
    }
}

impl Trust {
    /// Returns what is known after a look at the clock, and the time by which data may be deleted.
    fn checked(self, now: Micros, uptime: Duration, newest_event: Option<Micros>) -> (Trust, Micros, Verdict) {
        let slack = Duration::from_millis(CLOCK_AHEAD_MAX_MS);
        let passed = self.trusted.plus(uptime.saturating_sub(self.uptime));
        let limit = newest_event.map_or(passed, |event| event.max(passed)).plus(slack);
        if now <= limit {
            // Trust follows the time that passes, and not the clock: steps within the limit must not add up.
            let is_event_near = newest_event.is_some_and(|event| now <= event.plus(slack));
            let trusted = if is_event_near { now.max(passed) } else { passed };
            return (Trust { trusted, uptime, ahead: None, ..self }, now, Verdict::Plausible);
        }
        let stays = |(since, shown): &(Duration, Micros)| {
            let expected = shown.plus(uptime.saturating_sub(*since));
            now.0.abs_diff(expected.0) <= DRIFT_MAX.as_micros() as u64
        };
        let known = self.ahead.filter(stays);
        let (since, shown) = known.unwrap_or((uptime, now));
        if uptime.saturating_sub(since) >= Duration::from_millis(CLOCK_BELIEVED_AFTER_MS) {
            return (Trust { trusted: now, uptime, ahead: None, ..self }, now, Verdict::Plausible);
        }
        let next = Trust { trusted: passed, uptime, ahead: Some((since, shown)), ..self };
        let deletion_time = newest_event.map_or(passed, |event| event.max(passed)).min(now);
        (next, deletion_time, Verdict::Ahead { now, limit, since_now: known.is_none() })
    }
}

fn report(verdict: &Verdict) {
    let ahead_us = match verdict {
        Verdict::Plausible => 0,
        Verdict::Ahead { now, limit, since_now } => {
            if *since_now {
                tracing::warn!(%now, plausible_until = %limit, "the clock is further ahead than any evidence; nothing is \
                    deleted by it until events confirm it or it has stayed so for a day");
            }
            now.0.saturating_sub(limit.0)
        }
    };
    metrics::gauge!("trueup_clock_ahead_seconds").set(ahead_us as f64 / MICROS_PER_SECOND as f64);
}

/// Returns the time of the newest event of an archive: its largest watermark is at most that late.
pub fn newest_event(files: &[DataFile]) -> Option<Micros> {
    let watermark = |file: &DataFile| file.tags.get("latest_watermark")?.parse().ok().map(Micros);
    files.iter().filter_map(watermark).max().filter(|watermark| *watermark > Micros::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::clock::ManualClock;
    use shared::time::MICROS_PER_DAY;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const START: Micros = Micros(20_000 * MICROS_PER_DAY);

    fn days(count: i64) -> Micros {
        Micros(START.0 + count * MICROS_PER_DAY)
    }

    fn started(note: Option<PathBuf>) -> (ManualClock, DeletionClock) {
        let clock = ManualClock::at(START);
        let deletion = DeletionClock::new(Arc::new(clock.clone()), note, LakeEvidence::default());
        (clock, deletion)
    }

    #[test]
    fn a_clock_that_jumps_years_ahead_deletes_nothing_more_and_recovers() {
        let (clock, deletion) = started(None);
        assert_eq!(deletion.now(None), START);
        clock.set(days(1_000));
        assert_eq!(deletion.now(None), START);
        assert_eq!(deletion.now(Some(days(0))), START);
        clock.advance(DAY / 24);
        assert_eq!(deletion.now(None), START.plus(DAY / 24), "time passes all the same");
        clock.set(START.plus(DAY / 12));
        assert_eq!(deletion.now(None), START.plus(DAY / 12));
    }

    #[test]
    fn events_confirm_a_clock_and_so_does_a_day_without_another_step() {
        let (clock, deletion) = started(None);
        clock.set(days(40));
        assert_eq!(deletion.now(None), START);
        assert_eq!(deletion.now(Some(days(39))), days(40), "the events are from the same time");

        clock.set(days(900));
        assert_eq!(deletion.now(None), days(40));
        clock.advance(DAY / 2);
        assert!(deletion.now(None) < days(41));
        clock.set(days(950));
        clock.advance(DAY / 2);
        assert!(deletion.now(None) < days(42), "the clock was set again, so the day begins again");
        clock.advance(DAY);
        assert_eq!(deletion.now(None), clock.now(), "the clock has stayed");
    }

    #[test]
    fn a_clock_that_is_set_back_deletes_nothing_until_it_is_back() {
        let (clock, deletion) = started(None);
        clock.set(days(-3_000));
        assert_eq!(deletion.now(Some(days(0))), days(-3_000));
        clock.set(days(0));
        assert_eq!(deletion.now(None), days(0), "that it was wrong is not held against it");
    }

    #[test]
    fn the_trusted_time_survives_a_restart_within_a_jump() {
        let folder = tempfile::tempdir().expect("a folder");
        let note = folder.path().join("clock");
        let (clock, deletion) = started(Some(note.clone()));
        assert_eq!(deletion.now(None), START);
        clock.set(days(1_000));
        let by_the_wrong_clock = Some(days(1_000));
        let evidence = LakeEvidence { published: by_the_wrong_clock, archived: by_the_wrong_clock, newest_event: None };
        let restarted = DeletionClock::new(Arc::new(clock.clone()), Some(note.clone()), evidence);
        assert_eq!(restarted.now(None), START);
        // A note that was cut off does not count.
        std::fs::write(&note, "2001-").expect("written");
        let newest_event = Some(days(1));
        let unreadable = DeletionClock::new(Arc::new(clock), Some(note), LakeEvidence { newest_event, ..evidence });
        assert_eq!(unreadable.now(None), days(1));
    }

    #[test]
    fn without_a_note_the_lake_bounds_a_clock_that_is_years_ahead() {
        let at = |evidence, clock_days| {
            let clock = ManualClock::at(days(clock_days));
            DeletionClock::new(Arc::new(clock), None, evidence).now(evidence.newest_event)
        };
        let day = |count: i64| Some(days(count));
        let published = LakeEvidence { published: day(2), ..LakeEvidence::default() };
        let archived = LakeEvidence { archived: day(3), ..LakeEvidence::default() };
        for years in [1, 30, 300] {
            assert_eq!(at(published, 365 * years), days(2));
            assert_eq!(at(archived, 365 * years), days(3));
            assert_eq!(at(LakeEvidence { published: day(2), ..archived }, 365 * years), days(3), "the later one");
            // The clock was wrong when it dated them, and still is: the events are from another time.
            let by_the_wrong_clock =
                LakeEvidence { published: day(365 * years), archived: day(365 * years), newest_event: day(1) };
            assert_eq!(at(by_the_wrong_clock, 365 * years), days(1));
            // Set back: never later than the clock.
            assert_eq!(at(by_the_wrong_clock, -365 * years), days(-365 * years));
        }
        // A clock that is right is believed at once.
        let usual = LakeEvidence { published: day(9), archived: day(10), newest_event: day(10) };
        assert_eq!(at(usual, 10), days(10));
        assert_eq!(at(LakeEvidence::default(), 10), days(10), "an empty lake");
    }

    proptest! {
        #[test]
        fn no_sequence_of_steps_gets_more_than_a_day_ahead_of_the_time_that_passes(
            steps in prop::collection::vec((-2_000i64..2_000, 0u32..600), 1..60),
        ) {
            let (clock, deletion) = started(None);
            let mut passed = Duration::ZERO;
            for (set_hours, minutes) in steps {
                clock.set(Micros(START.0 + set_hours * MICROS_PER_DAY / 24));
                let by = Duration::from_secs(60) * minutes;
                clock.advance(by);
                passed += by;
                // A clock that stays as it is for a day is believed; each of these steps is shorter.
                prop_assert!(deletion.now(None) <= START.plus(passed).plus(DAY));
                prop_assert!(deletion.now(None) <= clock.now());
            }
        }
    }
}
