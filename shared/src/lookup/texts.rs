//! Keeps the texts of a column: a code for each, while the column has few different ones, and afterwards one after the other.
//!
//! Codes take two bytes, and rows with one code have one text, so a view can group by codes and does not read the texts.

use std::sync::{Arc, OnceLock};

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, NullBufferBuilder, PrimitiveArray, StringViewArray, StringViewBuilder,
};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::UInt16Type;
use arrow::error::ArrowError;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::values::{Column, Form, NO_ROW, SeenRows, grow};
use crate::limits::LOOKUP_CODED_TEXTS_MAX;

const NULL: u16 = u16::MAX;

/// The texts of a column.
#[derive(Debug)]
pub(super) enum TextColumn {
    Coded { codes: Vec<u16>, dictionary: Dictionary },
    Plain { texts: Texts, are_valid: NullBufferBuilder },
}

impl Default for TextColumn {
    fn default() -> TextColumn {
        TextColumn::Coded { codes: Vec::new(), dictionary: Dictionary::default() }
    }
}

/// Texts, numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Texts {
    all: String,
    ends: Vec<usize>,
}

/// Different texts, each with the code that is its number.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    texts: Texts,
    codes: HashTable<u16>,
    /// Made when it is read.
    array: OnceLock<ArrayRef>,
}

impl Texts {
    fn get(&self, number: usize) -> &str {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.all[start..self.ends[number]]
    }

    fn push(&mut self, text: &str) {
        if self.all.capacity() - self.all.len() < text.len() {
            self.all.reserve_exact(text.len().max(self.all.len() / 4));
        }
        self.all.push_str(text);
        grow(&mut self.ends, 1);
        self.ends.push(self.all.len());
    }

    fn bytes(&self) -> usize {
        self.all.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

impl Dictionary {
    /// Returns the code of a text; `None`: it is new, and there are too many.
    fn code_of(&mut self, text: &str) -> Option<u16> {
        let Dictionary { texts, codes, array } = self;
        let hash = xxh3_64(text.as_bytes());
        if let Some(code) = codes.find(hash, |code| texts.get(usize::from(*code)) == text) {
            return Some(*code);
        }
        let code = texts.ends.len();
        if code == LOOKUP_CODED_TEXTS_MAX {
            return None;
        }
        texts.push(text);
        *array = OnceLock::new();
        let code = code as u16;
        codes.insert_unique(hash, code, |code| xxh3_64(texts.get(usize::from(*code)).as_bytes()));
        Some(code)
    }

    fn array(&self) -> &ArrayRef {
        self.array.get_or_init(|| {
            let texts = (0..self.texts.ends.len()).map(|code| self.texts.get(code));
            Arc::new(StringViewArray::from_iter_values(texts))
        })
    }

    fn bytes(&self) -> usize {
        self.texts.bytes() + self.codes.allocation_size()
    }
}

impl TextColumn {
    fn push(&mut self, text: Option<&str>) {
        match self {
            TextColumn::Coded { codes, dictionary } => {
                let code = text.map_or(Some(NULL), |text| dictionary.code_of(text));
                if let Some(code) = code {
                    codes.push(code);
                } else {
                    self.make_plain();
                    self.push(text);
                }
            }
            TextColumn::Plain { texts, are_valid } => {
                texts.push(text.unwrap_or_default());
                are_valid.append(text.is_some());
            }
        }
    }

    /// Keeps texts instead of codes from now on.
    fn make_plain(&mut self) {
        let TextColumn::Coded { codes, dictionary } = self else { return };
        let (mut texts, mut are_valid) = (Texts::default(), NullBufferBuilder::new(codes.len()));
        for code in codes {
            let text = (*code != NULL).then(|| dictionary.texts.get(usize::from(*code)));
            texts.push(text.unwrap_or_default());
            are_valid.append(text.is_some());
        }
        *self = TextColumn::Plain { texts, are_valid };
    }
}

impl Column for TextColumn {
    fn add(&mut self, values: &ArrayRef) {
        let values = values.as_string_view();
        if let TextColumn::Coded { codes, .. } = self {
            grow(codes, values.len());
        }
        values.iter().for_each(|text| self.push(text));
    }

    fn gather(&self, rows: &SeenRows, form: Form) -> Result<ArrayRef, ArrowError> {
        match self {
            TextColumn::Coded { codes, dictionary } => {
                let code = |row: &u32| codes.get(*row as usize).copied().unwrap_or(NULL);
                let codes: Vec<u16> = rows.rows().iter().map(code).collect();
                let nulls =
                    codes.contains(&NULL).then(|| codes.iter().map(|code| *code != NULL).collect::<NullBuffer>());
                let codes = PrimitiveArray::<UInt16Type>::try_new(codes.into(), nulls)?;
                match form {
                    Form::Coded => Ok(Arc::new(DictionaryArray::try_new(codes, ArrayRef::clone(dictionary.array()))?)),
                    Form::Plain => take(dictionary.array(), &codes, None),
                }
            }
            TextColumn::Plain { texts, are_valid } => {
                let mut gathered = StringViewBuilder::with_capacity(rows.rows().len());
                for row in rows.rows() {
                    let is_text = *row != NO_ROW && are_valid.is_valid(*row as usize);
                    gathered.append_option(is_text.then(|| texts.get(*row as usize)));
                }
                Ok(Arc::new(gathered.finish()))
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            TextColumn::Coded { codes, dictionary } => codes.capacity() * size_of::<u16>() + dictionary.bytes(),
            TextColumn::Plain { texts, are_valid } => texts.bytes() + are_valid.allocated_size(),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType as ArrowType;

    use super::*;

    fn texts(values: &[Option<String>]) -> ArrayRef {
        Arc::new(values.iter().map(Option::as_deref).collect::<StringViewArray>())
    }

    fn gathered(column: &TextColumn, rows: &[u32], form: Form) -> ArrayRef {
        column.gather(&SeenRows::new(rows.to_vec()), form).expect("gathers")
    }

    #[test]
    fn a_column_has_codes_until_it_has_too_many_different_texts() {
        let values: Vec<Option<String>> =
            (0..2 * LOOKUP_CODED_TEXTS_MAX).map(|n| (n % 7 != 3).then(|| format!("text number {n}"))).collect();
        let (mut column, mut different) = (TextColumn::default(), 0);
        for (number, some) in values.chunks(100).enumerate() {
            column.add(&texts(some));
            different += some.iter().flatten().count();
            let end = number * 100 + some.len();
            let rows: Vec<u32> = (0..end as u32).rev().chain([NO_ROW]).collect();
            let expected: Vec<Option<String>> = values[..end].iter().rev().cloned().chain([None]).collect();
            assert_eq!(&gathered(&column, &rows, Form::Plain), &texts(&expected));
            let coded = gathered(&column, &rows, Form::Coded);
            let is_coded = matches!(coded.data_type(), ArrowType::Dictionary(..));
            assert_eq!(is_coded, different <= LOOKUP_CODED_TEXTS_MAX, "{different} texts");
            if let Some(coded) = coded.as_dictionary_opt::<UInt16Type>() {
                assert_eq!(&take(coded.values(), coded.keys(), None).expect("codes"), &texts(&expected));
                assert_eq!(coded.values().len(), different);
            }
        }
        assert!(different > LOOKUP_CODED_TEXTS_MAX);
    }

    #[test]
    fn equal_texts_have_one_code() {
        let mut column = TextColumn::default();
        for _ in 0..1_000 {
            column.add(&texts(&[Some("some text".to_owned()), None, Some(String::new())]));
        }
        let coded = gathered(&column, &(0..3_000).collect::<Vec<_>>(), Form::Coded);
        let coded = coded.as_dictionary::<UInt16Type>();
        assert_eq!((coded.values().len(), coded.null_count()), (2, 1_000));
        assert!(column.bytes() < 3 * 3_000, "{} bytes", column.bytes());
    }

    #[test]
    fn a_column_of_nulls_has_no_texts() {
        let mut column = TextColumn::default();
        assert_eq!(gathered(&column, &[NO_ROW], Form::Plain).null_count(), 1);
        column.add(&texts(&[None, None]));
        for form in [Form::Plain, Form::Coded] {
            assert_eq!(gathered(&column, &[1, NO_ROW, 0], form).logical_null_count(), 3);
        }
    }
}
