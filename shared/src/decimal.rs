//! Writes a DECIMAL as text with all digits of its scale, as casts, hashes and listings show it.

/// Appends a DECIMAL's text, all digits of its scale.
pub fn write_decimal(unscaled: i128, scale: i8, out: &mut String) {
    use std::fmt::Write;
    let unit = u32::try_from(scale).ok().and_then(|scale| 10u128.checked_pow(scale)).unwrap_or(1);
    let magnitude = unscaled.unsigned_abs();
    let sign = if unscaled < 0 { "-" } else { "" };
    write!(out, "{sign}{}", magnitude / unit).expect("writing into memory does not fail");
    if unit > 1 {
        let digits = scale.unsigned_abs() as usize;
        write!(out, ".{:0digits$}", magnitude % unit).expect("writing into memory does not fail");
    }
    if scale < 0 && magnitude > 0 {
        out.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
    }
}
