//! Formats numbers for people (thousands separators, bytes and durations with units) and parses sizes with units.

const BYTE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Formats `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats `1536` as `1.5 KiB`.
pub fn bytes(count: u64) -> String {
    match BYTE_UNITS.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", count as f64 / *size as f64),
        None => format!("{count} B"),
    }
}

/// Formats milliseconds as `250 ms`, `12.5 s`, `31 min`, `4.25 h` or `3 d`: three digits of the largest unit of which
/// there are at least two.
pub fn length(ms: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("d", 86_400_000.0), ("h", 3_600_000.0), ("min", 60_000.0), ("s", 1000.0)];
    let (unit, size) = UNITS.into_iter().find(|(_, size)| ms >= 2.0 * size).unwrap_or(("ms", 1.0));
    let value = ms / size;
    let digits = if value < 10.0 {
        100.0
    } else if value < 100.0 {
        10.0
    } else {
        1.0
    };
    format!("{} {unit}", (value * digits).round() / digits)
}

/// Formats a count with its noun: `3 views`, `1 view`.
pub fn counted(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{} {one}s", grouped(count as u64)) }
}

/// Parses `512 MiB`, `2GiB`, `64KB` or a plain number of bytes. K, M, G and T are powers of 1024.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = text[..end].parse().ok()?;
    let size = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    count.checked_mul(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_groups_of_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (245_522, "245,522"), (1_000_000, "1,000,000")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn lengths_have_three_digits_and_a_unit() {
        for (ms, text) in [
            (0.0, "0 ms"),
            (0.125, "0.13 ms"),
            (1_999.0, "1999 ms"),
            (2_000.0, "2 s"),
            (90_000.0, "90 s"),
            (1_852_000.0, "30.9 min"),
            (15_300_000.0, "4.25 h"),
            (200_000_000.0, "2.31 d"),
        ] {
            assert_eq!(length(ms), text, "{ms}");
        }
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, size) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("2 GiB", Some(2 << 30)),
            ("512MB", Some(512 << 20)),
            ("7k", Some(7 << 10)),
            ("", None),
            ("GiB", None),
            ("1.5 GiB", None),
            ("2 parsecs", None),
            ("99999999999 TiB", None),
        ] {
            assert_eq!(parse_bytes(text), size, "{text}");
        }
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(17), "17 B");
    }
}
