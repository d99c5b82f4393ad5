//! How is a list that the server gives printed? As it came (JSON), or entry by entry into a table.

use std::io::Write;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use shared::time::Micros;

use crate::arguments::{ListFormat, Listing};
use crate::client::Client;
use crate::exit::Failure;

/// GETs `path` and prints it: JSON as it came, or what `draw` makes of it.
pub async fn show<T: DeserializeOwned>(
    arguments: &Listing,
    path: &str,
    draw: impl FnOnce(T) -> String,
) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let answer: Value = client.get(path).await?;
    let text = match arguments.output {
        ListFormat::Json => format!("{answer:#}\n"),
        ListFormat::Table => draw(serde_json::from_value(answer).map_err(|cause| client.unreadable(&cause))?),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// A list: an array, or an object that holds one array (`{"runs": [..]}`).
#[derive(Debug)]
pub struct Entries<T>(pub Vec<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let array = match Value::deserialize(deserializer)? {
            Value::Object(fields) => fields.into_iter().map(|(_, value)| value).find(Value::is_array),
            other => Some(other),
        };
        let array = array.ok_or_else(|| de::Error::custom("there is no list in it"))?;
        serde_json::from_value(array).map(Entries).map_err(de::Error::custom)
    }
}

/// A moment, or a dash.
pub fn moment(time: Option<Micros>) -> String {
    time.map_or_else(dash, |time| time.to_string())
}

/// What stands where there is nothing.
pub fn dash() -> String {
    "-".to_owned()
}
