//! How does a row of figures look in one line of text? A bar for each.

/// From nothing to the most of a line.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One bar per value, the largest full; the least that is not 0 is more than nothing.
pub fn sparkline(values: &[f64]) -> String {
    let largest = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| match *value / largest {
        share if share > 0.0 => BARS[((share * 7.0).ceil() as usize).min(7)],
        _ => BARS[0],
    };
    values.iter().map(bar).collect()
}
