//! Draws a series of numbers as one line of text, with a bar for each number.

/// Bars from the lowest to the highest value of a series.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Returns one bar per value. The largest value gets the full bar; every value above 0 gets at least the second lowest.
pub fn sparkline(values: &[f64]) -> String {
    let largest = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| match *value / largest {
        share if share > 0.0 => BARS[((share * 7.0).ceil() as usize).min(7)],
        _ => BARS[0],
    };
    values.iter().map(bar).collect()
}
