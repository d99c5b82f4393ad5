//! Prints lists from the server: as JSON, unchanged, or as a table.

use std::io::Write;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use shared::time::Micros;

use crate::arguments::{ListFormat, Listing};
use crate::client::Client;
use crate::exit::Failure;

/// Gets `path` and prints the response: as JSON, unchanged, or as the text that `draw` makes of it.
pub async fn show<T: DeserializeOwned>(
    arguments: &Listing,
    path: &str,
    draw: impl FnOnce(T) -> String,
) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let response: Value = client.get(path).await?;
    let text = match arguments.output {
        ListFormat::Json => format!("{response:#}\n"),
        ListFormat::Table => draw(serde_json::from_value(response).map_err(|cause| client.unreadable(&cause))?),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The entries of a list: of an array, or of an object that holds one array (`{"runs": [..]}`).
#[derive(Debug)]
pub struct Entries<T>(pub Vec<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let array = match Value::deserialize(deserializer)? {
            Value::Object(fields) => fields.into_iter().map(|(_, value)| value).find(Value::is_array),
            other => Some(other),
        };
        let array = array.ok_or_else(|| de::Error::custom("the response holds no list"))?;
        serde_json::from_value(array).map(Entries).map_err(de::Error::custom)
    }
}

/// Formats a time, or a dash if there is none.
pub fn time_or_dash(time: Option<Micros>) -> String {
    time.map_or_else(dash, |time| time.to_string())
}

/// The text of an empty cell.
pub fn dash() -> String {
    "-".to_owned()
}
