//! Suggests time settings that fit the measured lateness, rounded up to durations that people write.

use std::time::Duration;

use shared::control::SuggestedTime;
use shared::explain::duration;

use super::disorder::DisorderSummary;

const MICROS_PER_MILLISECOND: u64 = 1_000;
const MICROS_PER_SECOND: u64 = 1_000 * MICROS_PER_MILLISECOND;
const MICROS_PER_MINUTE: u64 = 60 * MICROS_PER_SECOND;
const MICROS_PER_HOUR: u64 = 60 * MICROS_PER_MINUTE;
const MICROS_PER_DAY: u64 = 24 * MICROS_PER_HOUR;

/// Durations up to the first value are rounded up to multiples of the second.
const STEPS: [(u64, u64); 9] = [
    (10 * MICROS_PER_MILLISECOND, MICROS_PER_MILLISECOND),
    (100 * MICROS_PER_MILLISECOND, 10 * MICROS_PER_MILLISECOND),
    (MICROS_PER_SECOND, 100 * MICROS_PER_MILLISECOND),
    (10 * MICROS_PER_SECOND, MICROS_PER_SECOND),
    (MICROS_PER_MINUTE, 5 * MICROS_PER_SECOND),
    (10 * MICROS_PER_MINUTE, MICROS_PER_MINUTE),
    (2 * MICROS_PER_HOUR, 5 * MICROS_PER_MINUTE),
    (2 * MICROS_PER_DAY, MICROS_PER_HOUR),
    (u64::MAX, MICROS_PER_DAY),
];

/// Suggests the delay that 99 of 100 events stay within, and the lateness that all but one of 1,000 stay within.
pub(super) fn suggest(measured: &DisorderSummary) -> SuggestedTime {
    let delay_us = measured.quantile_at_most_us(0.99);
    let lateness_us = measured.quantile_at_most_us(0.999) - delay_us;
    SuggestedTime { watermark_delay: written(delay_us), allowed_lateness: written(lateness_us) }
}

fn written(length_us: u64) -> String {
    let rounded = rounded_up(length_us);
    if rounded == 0 { "0 seconds".to_owned() } else { duration(Duration::from_micros(rounded)) }
}

/// The next duration with few digits in its unit.
fn rounded_up(length_us: u64) -> u64 {
    let step = STEPS.iter().find(|(up_to, _)| length_us <= *up_to).map_or(1, |(_, step)| *step);
    length_us.checked_next_multiple_of(step).unwrap_or(length_us)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_rounded_up_to_common_ones() {
        for (seconds, text) in [
            (0.0, "0 seconds"),
            (0.000_001, "1 millisecond"),
            (0.25, "300 milliseconds"),
            (7.0, "7 seconds"),
            (7.1, "8 seconds"),
            (59.0, "1 minute"),
            (31.0 * 60.0, "35 minutes"),
            (61.0 * 60.0, "65 minutes"),
            (255.0 * 60.0, "5 hours"),
            (10.75 * 3600.0, "11 hours"),
            (47.5 * 3600.0, "2 days"),
            (100.0 * 3600.0, "5 days"),
        ] {
            assert_eq!(written((seconds * 1e6) as u64), text, "{seconds}");
        }
    }

    proptest! {
        #[test]
        fn a_rounded_length_is_never_shorter_and_at_most_twice_as_long(length_us in 1_000..10_000_000_000_000u64) {
            let rounded = rounded_up(length_us);
            prop_assert!(rounded >= length_us && rounded <= 2 * length_us, "{rounded}");
            prop_assert!(rounded_up(rounded) == rounded);
        }
    }
}
