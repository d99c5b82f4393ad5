//! Reads the exact value of a decimal text at a given scale, never through a float.

/// A decimal text multiplied by a power of ten and cut to an integer (towards zero).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScaledNumber {
    pub(super) value: i128,
    /// Digits other than zero were cut off.
    pub(super) inexact: bool,
    pub(super) negative: bool,
}

/// Why a text has no scaled value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScaleError {
    /// Not of the form `[+-]digits[.digits][e[+-]digits]`.
    NotNumber,
    /// More than an `i128` holds.
    TooLarge,
}

/// The number written in `text`, times ten to the power of `scale`.
pub(super) fn scaled(text: &str, scale: i8) -> Result<ScaledNumber, ScaleError> {
    let (negative, unsigned) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (integer, rest) = digits(unsigned);
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => digits(rest),
        rest => (&rest[..0], rest),
    };
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', rest @ ..] => exponent(rest).ok_or(ScaleError::NotNumber)?,
        _ => return Err(ScaleError::NotNumber),
    };
    if integer.is_empty() && fraction.is_empty() {
        return Err(ScaleError::NotNumber);
    }

    // Digits from `kept` on stand behind the point once it has moved.
    let kept = integer.len() as i64 + exponent + i64::from(scale);
    let mut value = 0i128;
    let mut inexact = false;
    let written = integer.len() + fraction.len();
    for (index, digit) in integer.iter().chain(fraction).enumerate() {
        if (index as i64) < kept {
            let digit = i128::from(digit - b'0');
            value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(ScaleError::TooLarge)?;
        } else {
            inexact |= *digit != b'0';
        }
    }
    if value != 0 {
        // At most 38 rounds: then it overflows.
        for _ in written as i64..kept {
            value = value.checked_mul(10).ok_or(ScaleError::TooLarge)?;
        }
    }
    Ok(ScaledNumber { value: if negative { -value } else { value }, inexact, negative })
}

/// The leading digits of a text, and what follows them.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len()))
}

/// An exponent, clamped to what no `i128` survives anyway.
fn exponent(text: &[u8]) -> Option<i64> {
    const FAR: i64 = 1 << 40;
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (digits, rest) = digits(unsigned);
    if digits.is_empty() || !rest.is_empty() {
        return None;
    }
    let size = digits.iter().fold(0i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(FAR));
    Some(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decimal_point_moves_without_rounding() {
        let cases = [
            ("12.34", 2, 1234, false),
            ("12.3400", 2, 1234, false),
            ("-12.345", 2, -1234, true),
            ("1e3", 0, 1000, false),
            ("1.5E+1", 0, 15, false),
            ("1500e-2", 0, 15, false),
            ("0.000000000000000000000000000000000000001e39", 0, 1, false),
            ("0e999999999999999999999", 0, 0, false),
            ("1e-999999999999999999999", 0, 0, true),
            ("-0", 3, 0, false),
            ("1234", -2, 12, true),
            ("99999999999999999999999999999999999999", 0, 99_999_999_999_999_999_999_999_999_999_999_999_999, false),
        ];
        for (text, scale, value, inexact) in cases {
            let got = scaled(text, scale).unwrap();
            assert_eq!((got.value, got.inexact, got.negative), (value, inexact, text.starts_with('-')), "{text}");
        }
    }

    #[test]
    fn refusals_give_their_reason() {
        for text in ["", "-", ".", "e5", "1e", "1e+", "1.2.3", "0x10", "NaN", " 1", "1 ", "--1"] {
            assert_eq!(scaled(text, 0), Err(ScaleError::NotNumber), "{text}");
        }
        for text in ["1e39", "999999999999999999999999999999999999999", "1e99999999999999999999"] {
            assert_eq!(scaled(text, 0), Err(ScaleError::TooLarge), "{text}");
        }
    }
}
