//! Is this a schedule at all? A cron line of five fields in their ranges, one of its `@` names, or `@every` and an
//! interval; when it fires is the batch layer's question.

/// Name, smallest and largest number of each field.
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7)];
const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Names that stand for a cron line.
const NAMES: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Errors say which field is wrong.
pub(super) fn check_schedule(line: &str) -> Result<(), String> {
    let line = line.trim();
    if let Some(interval) = line.strip_prefix("@every") {
        let interval = interval.trim();
        let message = || format!("`{interval}` is not an interval of at least one second: write 5s, 10m, 2h or 1h30m");
        return interval_seconds(interval).filter(|seconds| *seconds > 0).map(drop).ok_or_else(message);
    }
    if line.starts_with('@') {
        let message =
            || format!("`{line}` is not known: use @hourly, @daily, @weekly, @monthly, @yearly or @every 30s");
        return NAMES.contains(&line).then_some(()).ok_or_else(message);
    }
    let fields: Vec<&str> = line.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("a schedule has 5 fields (minute hour day month weekday), this one has {}", fields.len()));
    }
    for (index, field) in fields.iter().enumerate() {
        let (name, min, max) = FIELDS[index];
        let words: &[&str] = match index {
            3 => MONTHS,
            4 => DAYS,
            _ => &[],
        };
        if !field.split(',').all(|item| is_item(item, min, max, words)) {
            return Err(format!("`{field}` is not a {name}: {min} to {max}, *, lists, ranges and steps"));
        }
    }
    Ok(())
}

/// `*`, `5`, `1-5`, each with an optional `/step`.
fn is_item(item: &str, min: u32, max: u32, words: &[&str]) -> bool {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let step_fits = step.is_none_or(|step| step.parse().is_ok_and(|step: u32| (1..=max).contains(&step)));
    let value = |text: &str| words.contains(&&*text.to_lowercase()) || is_number(text, min, max);
    let range_fits = match range.split_once('-') {
        Some((from, to)) => value(from) && value(to),
        None => range == "*" || value(range),
    };
    step_fits && range_fits
}

/// Seconds of `1h30m`: numbers, each with the unit `s`, `m` or `h`.
fn interval_seconds(text: &str) -> Option<u64> {
    let pieces = text.split_inclusive(|c: char| !c.is_ascii_digit());
    pieces
        .map(|piece| {
            let (count, unit) = piece.split_at_checked(piece.len().checked_sub(1)?)?;
            let seconds = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                _ => return None,
            };
            count.parse::<u64>().ok()?.checked_mul(seconds)
        })
        .try_fold(0_u64, |sum, seconds| sum.checked_add(seconds?))
}

fn is_number(text: &str, min: u32, max: u32) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse().is_ok_and(|n: u32| (min..=max).contains(&n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_and_lines_that_are_not() {
        for good in [
            "*/15 * * * *",
            "0 3 * * mon-fri",
            "5,35 1-5/2 1 JAN 0",
            "0 0 31 12 7",
            "@daily",
            "@every 5s",
            "@every 1h30m",
        ] {
            assert_eq!(check_schedule(good), Ok(()), "{good}");
        }
        for bad in [
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "1- * * * *",
            ", * * * *",
            "",
            "@never",
            "@every",
            "@every 0s",
            "@every 5",
            "@every 5 minutes",
            "@every 9é",
        ] {
            assert!(check_schedule(bad).is_err(), "{bad}");
        }
    }
}
