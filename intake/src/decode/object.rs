//! Reads any event with `serde_json`, in one pass, and says what is wrong with an invalid one.
//!
//! This module defines which events are valid. [`super::fast_path`] reads flat events faster, to the same result.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Fields, Member, Members};
use super::reject_reason::RejectReason;
use super::row::{Cell, Row};
use super::token::Token;
use super::value;

/// Reads the JSON object `text` into an empty row.
pub(super) fn read<'a>(text: &'a str, fields: &Fields<'a>, row: &mut Row<'a>) -> Result<(), RejectReason<'a>> {
    if !text.starts_with('{') {
        return Err(match serde_json::from_str::<&RawValue>(text) {
            Ok(value) => RejectReason::NotObject { raw: value.get() },
            Err(error) => RejectReason::syntax(&error),
        });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let mut event = EventReader { fields, row, first: None };
    let top = Level { event: &mut event, members: &fields.top, is_top: true };
    json.deserialize_map(top).map_err(|error| RejectReason::syntax(&error))?;
    json.end().map_err(|error| RejectReason::syntax(&error))?;
    event.first.map_or(Ok(()), Err)
}

/// One event on its way into a row.
struct EventReader<'r, 'a> {
    fields: &'r Fields<'a>,
    row: &'r mut Row<'a>,
    /// The first reason against a field. The event is read to its end all the same: a syntax error comes before it.
    first: Option<RejectReason<'a>>,
}

impl<'a> EventReader<'_, 'a> {
    /// Reads the value of a column.
    fn value(&mut self, column: usize, raw: &'a str) {
        let index = column;
        let column = &self.fields.columns[index];
        let cell = &mut self.row.cells[index];
        let reason = if *cell == Cell::Missing {
            let read = value::read(column, Token::of(raw), &mut self.row.unescaped, cell);
            read.err().map(|error| error.reason(column, raw))
        } else {
            Some(RejectReason::FieldTwice { column })
        };
        self.refuse(reason);
    }

    fn refuse(&mut self, reason: Option<RejectReason<'a>>) {
        if self.first.is_none() {
            self.first = reason;
        }
    }

    /// Notes that the event has the object or array that `number` counts.
    fn enter(&mut self, number: usize, name: &str) {
        if std::mem::replace(&mut self.row.entered[number], true) {
            self.refuse(Some(RejectReason::ObjectTwice { name: name.to_owned() }));
        }
    }
}

/// An object or array of an event. Anything else in its place has no members: their columns are NULL.
struct Level<'l, 'r, 'a> {
    event: &'l mut EventReader<'r, 'a>,
    members: &'l Members,
    is_top: bool,
}

impl<'a> DeserializeSeed<'a> for Level<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Level<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        let Level { event, members, is_top } = self;
        let keeps_unknown = is_top && event.fields.reject_unknown;
        while let Some(found) = map.next_key_seed(MemberName { members, keeps_unknown })? {
            let at = match found {
                Ok(at) => at,
                Err(name) => {
                    map.next_value::<IgnoredAny>()?;
                    event.row.unknown_fields += u64::from(is_top);
                    event.refuse(name.map(|name| RejectReason::UnknownField { name }));
                    continue;
                }
            };
            match &members.members[at] {
                Member::Column(column) => {
                    let raw: &'a RawValue = map.next_value()?;
                    event.value(*column, raw.get());
                }
                Member::Nested { number, members: inner } => {
                    event.enter(*number, &members.names[at]);
                    map.next_value_seed(Level { event: &mut *event, members: inner, is_top: false })?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut elements: S) -> Result<(), S::Error> {
        let Level { event, members, .. } = self;
        for index in 0.. {
            let more = match members.element(index).map(|at| &members.members[at]) {
                None => elements.next_element::<IgnoredAny>()?.is_some(),
                Some(Member::Column(column)) => {
                    let raw: Option<&'a RawValue> = elements.next_element()?;
                    raw.map(|raw| event.value(*column, raw.get())).is_some()
                }
                Some(Member::Nested { number, members: inner }) => {
                    let level = Level { event: &mut *event, members: inner, is_top: false };
                    let read = elements.next_element_seed(level)?;
                    if read.is_some() {
                        event.enter(*number, &index.to_string());
                    }
                    read.is_some()
                }
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// Finds the member that a name means; where there is none, keeps the name if that rejects the event.
struct MemberName<'m> {
    members: &'m Members,
    keeps_unknown: bool,
}

impl<'de> DeserializeSeed<'de> for MemberName<'_> {
    type Value = Result<usize, Option<String>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberName<'_> {
    type Value = Result<usize, Option<String>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.members.find(name).ok_or_else(|| self.keeps_unknown.then(|| name.to_owned())))
    }
}
