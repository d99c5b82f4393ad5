//! Hashes values to the 128 bits that every DataSketches library computes, so that sketches can be merged with theirs.
//!
//! MurmurHash3_x64_128 (Appleby) with seed 9001 of these bytes:
//!
//! | type | bytes |
//! |---|---|
//! | BOOLEAN, INT, BIGINT, DATE, TIMESTAMP | the value (0 or 1, days, microseconds) as 64 bits, little endian |
//! | DOUBLE | IEEE 754 bits, little endian; one NaN, -0.0 as 0.0 |
//! | STRING | UTF-8; the empty text, which other libraries skip, is one zero byte, and the text of one NUL is the byte 0xFF |
//! | DECIMAL | its text with all digits of its scale |
//!
//! The text of one NUL has another hash than in other libraries, because the empty text has had that hash in stored states
//! from the beginning; 0xFF occurs in no UTF-8. All other texts have the hash of other libraries.

use fastmurmur3::murmur3_x64_128;

/// The seed of all DataSketches libraries.
const SEED: u64 = 9001;

/// The hash of an integer. The low 64 bits are murmur's first word.
#[inline]
pub fn of_long(value: i64) -> u128 {
    murmur3_x64_128(&value.to_le_bytes(), SEED)
}

/// The hash of a DOUBLE.
#[inline]
pub fn of_double(value: f64) -> u128 {
    of_long(canonical_bits(value))
}

/// The hash of a text.
#[inline]
pub fn of_text(text: &str) -> u128 {
    let bytes = match text {
        "" => &[0],
        "\0" => &[0xff],
        text => text.as_bytes(),
    };
    murmur3_x64_128(bytes, SEED)
}

/// The bits of a DOUBLE: one NaN, one zero.
#[inline]
pub fn canonical_bits(value: f64) -> i64 {
    const NAN: i64 = 0x7ff8_0000_0000_0000;
    if value.is_nan() { NAN } else { (value + 0.0).to_bits() as i64 }
}
