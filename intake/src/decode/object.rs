//! How is an object read with nothing taken for granted? With `serde_json`, which also says what is wrong with it.
//!
//! The definition of what is valid. [`super::fast_path`] reads the usual objects sooner, to the same result.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Fields;
use super::reject_reason::Fault;
use super::row::{Cell, Row};
use super::token::Token;
use super::value;

/// Reads the JSON object `text` into an empty row.
pub(super) fn read<'a>(text: &'a str, fields: &Fields<'a>, row: &mut Row<'a>) -> Result<(), Fault<'a>> {
    if !text.starts_with('{') {
        return Err(match serde_json::from_str::<&RawValue>(text) {
            Ok(value) => Fault::NotObject { raw: value.get() },
            Err(error) => Fault::syntax(&error),
        });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let wrong = json.deserialize_map(Object { fields, row }).map_err(|error| Fault::syntax(&error))?;
    json.end().map_err(|error| Fault::syntax(&error))?;
    wrong.map_or(Ok(()), Err)
}

/// Reads an object to its end; the first fault of a field is kept, as one of the syntax would hide all others.
struct Object<'r, 'a> {
    fields: &'r Fields<'a>,
    row: &'r mut Row<'a>,
}

impl<'a> Visitor<'a> for Object<'_, 'a> {
    type Value = Option<Fault<'a>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut first = None;
        while let Some(field) = map.next_key_seed(FieldName(self.fields))? {
            let fault = match field {
                Ok(index) => {
                    let raw: &'a RawValue = map.next_value()?;
                    let column = &self.fields.columns[index];
                    let cell = &mut self.row.cells[index];
                    if *cell == Cell::Missing {
                        let token = Token::of(raw.get());
                        let read = value::read(column.data_type, token, &mut self.row.unescaped, cell);
                        read.err().map(|wrong| wrong.fault(column, raw.get()))
                    } else {
                        Some(Fault::Twice { column })
                    }
                }
                Err(name) => {
                    map.next_value::<IgnoredAny>()?;
                    self.row.unknown_fields += 1;
                    name.map(|name| Fault::UnknownField { name })
                }
            };
            first = first.or(fault);
        }
        Ok(first)
    }
}

/// Finds a field's column; where there is none, its name if that is a fault.
struct FieldName<'r, 'a>(&'r Fields<'a>);

impl<'de> DeserializeSeed<'de> for FieldName<'_, '_> {
    type Value = Result<usize, Option<String>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_, '_> {
    type Value = Result<usize, Option<String>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.find(name).ok_or_else(|| self.0.reject_unknown.then(|| name.to_owned())))
    }
}
