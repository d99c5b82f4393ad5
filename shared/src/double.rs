//! Defines what a DOUBLE is where IEEE 754 leaves a choice: one NaN, one zero, and a text for what JSON cannot write.
//!
//! `canonical` maps every NaN to one bit pattern, which `total_cmp` puts above every number, and -0.0 to 0.0. Two canonical
//! DOUBLEs are the same value exactly if they have the same bits, so grouping, sorting and comparing by bits are right.
//!
//! `serde_json` is built without `float_roundtrip`: it may read a number a few units in the last place off. JSON that is
//! stored goes through [`make_exact`] before it is written, or is read by [`read_exactly`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float64Type;
use serde::{Deserialize, Deserializer, Serializer, de};
use serde_json::Value;
use serde_json::value::RawValue;

/// Returns the canonical DOUBLE of the same value.
#[inline]
pub fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::NAN.abs() } else { value + 0.0 }
}

/// Returns a column with canonical values; columns of other types as they are.
pub fn canonical_column(column: ArrayRef) -> ArrayRef {
    let Some(doubles) = column.as_primitive_opt::<Float64Type>() else { return column };
    let is_canonical = |value: &f64| value.to_bits() == canonical(*value).to_bits();
    if doubles.values().iter().all(is_canonical) {
        return column;
    }
    let values: Float64Array = doubles.unary(canonical);
    Arc::new(values)
}

/// Above it a DOUBLE is written as text: `serde_json` rounds while it reads, and may call the largest numbers infinite.
const LARGEST_JSON_NUMBER: f64 = 1e300;

/// Writes a DOUBLE so that it can be read back: as a JSON number, or as text if JSON does not have it: `"NaN"`, `"Infinity"`,
/// `"-Infinity"`, and magnitudes above 1e300 as `"1.7e308"`. For `#[serde(with = "crate::double")]`.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match text(*value) {
        Some(text) => serializer.serialize_str(&text),
        None => serializer.serialize_f64(*value),
    }
}

/// Returns the JSON value that [`serialize`] writes.
pub fn to_json(value: f64) -> Value {
    text(value).map_or_else(|| value.into(), Value::String)
}

/// Replaces the numbers in `value` that `serde_json` would not read back to the bit by their text, which [`deserialize`]
/// reads exactly. For JSON that other libraries parse on the way back.
pub fn make_exact(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let Some(double) = number.as_f64() else { return };
            let read = serde_json::from_str::<f64>(&number.to_string());
            if read.map(f64::to_bits).ok() != Some(double.to_bits()) {
                *value = Value::String(format!("{double:e}"));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_exact),
        Value::Object(members) => members.values_mut().for_each(make_exact),
        _ => {}
    }
}

/// Reads JSON in which every number with a fraction or an exponent becomes the nearest DOUBLE.
pub fn read_exactly(json: &str) -> serde_json::Result<Value> {
    // Also limits the depth.
    let rounded: Value = serde_json::from_str(json)?;
    exact(&rounded, json)
}

/// Returns `rounded`, which was read from `json`, with exact numbers.
fn exact(rounded: &Value, json: &str) -> serde_json::Result<Value> {
    Ok(match rounded {
        Value::Number(number) if number.is_f64() => {
            json.trim().parse::<f64>().map_or_else(|_| rounded.clone(), Value::from)
        }
        Value::Array(values) => {
            let raw: Vec<&RawValue> = serde_json::from_str(json)?;
            values.iter().zip(raw).map(|(value, raw)| exact(value, raw.get())).collect::<Result<_, _>>()?
        }
        Value::Object(members) => {
            let raw: BTreeMap<String, &RawValue> = serde_json::from_str(json)?;
            let member = |(name, value): (&String, &Value)| {
                let value = raw.get(name).map_or_else(|| Ok(value.clone()), |raw| exact(value, raw.get()))?;
                Ok((name.clone(), value))
            };
            Value::Object(members.iter().map(member).collect::<serde_json::Result<_>>()?)
        }
        other => other.clone(),
    })
}

fn text(value: f64) -> Option<String> {
    match value {
        f64::INFINITY => Some("Infinity".to_owned()),
        f64::NEG_INFINITY => Some("-Infinity".to_owned()),
        nan if nan.is_nan() => Some("NaN".to_owned()),
        large if large.abs() > LARGEST_JSON_NUMBER => Some(format!("{large:e}")),
        _ => None,
    }
}

/// Reads what [`serialize`] wrote, and the null that earlier versions wrote for every value that is not finite: NaN, as it is
/// not known which it was.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(NumberOrText)
}

struct NumberOrText;

impl de::Visitor<'_> for NumberOrText {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"Infinity\", \"-Infinity\" or null")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_unit<E: de::Error>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<f64, E> {
        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// The same for a DOUBLE that may be absent, which is null.
pub mod optional {
    use super::{Deserialize, Deserializer, Serializer};

    /// Writes null for `None`.
    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads null as `None`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        #[derive(Deserialize)]
        struct Number(#[serde(with = "super")] f64);
        Ok(Option::<Number>::deserialize(deserializer)?.map(|number| number.0))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Note {
        #[serde(with = "super")]
        value: f64,
        #[serde(default, with = "super::optional", skip_serializing_if = "Option::is_none")]
        maybe: Option<f64>,
    }

    fn any_double() -> impl Strategy<Value = f64> {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MAX, f64::MIN, 5e-324, f64::MIN_POSITIVE];
        prop_oneof![any::<u64>().prop_map(f64::from_bits), prop::sample::select(special.to_vec())]
    }

    proptest! {
        #[test]
        fn every_double_round_trips(value in any_double(), maybe in prop::option::of(any_double())) {
            let same = |read: f64, written: f64| read.is_nan() && written.is_nan() || read.to_bits() == written.to_bits();
            let check = |read: Note, text: &str| {
                prop_assert!(same(read.value, value), "{text}");
                prop_assert_eq!(read.maybe.is_some(), maybe.is_some());
                prop_assert!(read.maybe.zip(maybe).is_none_or(|(read, written)| same(read, written)), "{text}");
                Ok(())
            };
            // Made exact before it is written, or read exactly.
            let mut note = serde_json::to_value(Note { value, maybe }).expect("plain data");
            let text = note.to_string();
            check(serde_json::from_value(read_exactly(&text).expect("JSON")).expect("a note"), &text)?;
            make_exact(&mut note);
            let text = note.to_string();
            check(serde_json::from_str(&text).expect("a note"), &text)?;
        }

        #[test]
        fn nested_numbers_are_read_exactly(bits in prop::collection::vec(any::<u64>(), 0..6), name in "\\PC*") {
            let doubles: Vec<f64> = bits.into_iter().map(f64::from_bits).filter(|double| double.is_finite()).collect();
            let value = serde_json::json!([{name: doubles, "long": i64::MIN, "text": "1.0"}, null, true, u64::MAX]);
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            for text in [value.to_string(), pretty] {
                prop_assert_eq!(&read_exactly(&text).expect("JSON"), &value, "{}", text);
            }
        }

        #[test]
        fn canonical_values_are_equal_exactly_if_their_bits_are(a in any_double(), b in any_double()) {
            let same = a == b || (a.is_nan() && b.is_nan());
            prop_assert_eq!(canonical(a).to_bits() == canonical(b).to_bits(), same);
        }
    }

    #[test]
    fn the_null_of_earlier_versions_is_read() {
        let read: Note = serde_json::from_str(r#"{"value":null,"maybe":null}"#).expect("readable");
        assert!(read.value.is_nan() && read.maybe.is_none());
        let integer: Note = serde_json::from_str(r#"{"value":3}"#).expect("readable");
        assert_eq!(integer.value, 3.0);
        assert!(serde_json::from_str::<Note>(r#"{"value":"many"}"#).is_err());
    }

    #[test]
    fn columns_are_made_canonical() {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(-f64::NAN), Some(1.5)]));
        let canonical = canonical_column(column);
        let bits = |row: usize| canonical.as_primitive::<Float64Type>().value(row).to_bits();
        assert_eq!((bits(0), bits(2), bits(3)), (0, f64::NAN.abs().to_bits(), 1.5f64.to_bits()));
        assert!(canonical.is_null(1));
    }
}
