//! `trueup key`: creates, lists and revokes the keys of a server, in its data folder. Needs no running server.

use std::io::Write;
use std::path::PathBuf;

use auth::Scopes;
use auth::key_file::{KeyFile, KeyFileError, NewKey, StoredKey};
use serde_json::{Value, json};
use shared::clock::{Clock, SystemClock};
use shared::time::Micros;

use crate::arguments::{Expiry, Key, KeyCreate, KeyFolder, KeyList, KeyRevoke, ListFormat};
use crate::data_dir::DataDir;
use crate::exit::{FAILED, Failure, USAGE};
use crate::settings::Settings;
use crate::table::{Align, draw};

use super::listing::dash;

const HEADER: [(&str, Align); 7] = [
    ("key", Align::Left),
    ("scopes", Align::Left),
    ("row filter", Align::Left),
    ("rates", Align::Left),
    ("expires", Align::Left),
    ("state", Align::Left),
    ("label", Align::Left),
];

pub fn run(command: Key) -> Result<(), Failure> {
    match command {
        Key::Create(arguments) => create(arguments),
        Key::List(arguments) => list(&arguments),
        Key::Revoke(arguments) => revoke(&arguments),
    }
}

fn create(arguments: KeyCreate) -> Result<(), Failure> {
    let KeyCreate { scopes, expires, row_filter, rates, label, folder } = arguments;
    let file = key_file(&folder)?;
    let now = SystemClock.now();
    let expires_at = match expires {
        Expiry::Never => None,
        Expiry::After(time) => Some(now.plus(time)),
    };
    let scopes = Scopes(scopes);
    let (id, text) = file.create(NewKey { label, scopes: scopes.clone(), row_filter, rates, expires_at }, now)?;
    // Only the key goes to stdout, so that it can be written to a file.
    writeln!(std::io::stdout(), "{text}")?;
    let until = expires_at.map_or_else(|| "never expires".to_owned(), |end| format!("expires {end}"));
    eprintln!("created key {id} with {scopes}; it {until}, and is not shown again");
    Ok(())
}

fn list(arguments: &KeyList) -> Result<(), Failure> {
    let keys = key_file(&arguments.folder)?.read()?;
    let now = SystemClock.now();
    let text = match arguments.output {
        ListFormat::Table => table(&keys, now, None),
        ListFormat::Json => {
            format!("{:#}\n", json!({"keys": keys.iter().map(|key| shown(key, now)).collect::<Vec<_>>()}))
        }
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn revoke(arguments: &KeyRevoke) -> Result<(), Failure> {
    key_file(&arguments.folder)?.revoke(&arguments.id, SystemClock.now())?;
    eprintln!("revoked key {}", arguments.id);
    Ok(())
}

/// Returns the file of the keys, in the folder that `serve` would use.
fn key_file(folder: &KeyFolder) -> Result<KeyFile, Failure> {
    let settings = match &folder.config {
        Some(path) => Settings::read(path).map_err(|error| Failure::new(USAGE, error))?,
        None => Settings::default(),
    };
    let data = folder.data.clone().or(settings.data).unwrap_or_else(|| super::serve::DEFAULT_DATA.to_owned());
    let local: Option<PathBuf> = folder.local.clone().or(settings.local);
    let local = DataDir::new(&data, local.as_deref()).create_local()?;
    Ok(KeyFile::in_folder(&local))
}

fn state(key: &StoredKey, now: Micros) -> &'static str {
    if key.revoked_at.is_some() {
        return "revoked";
    }
    if key.expires_at.is_some_and(|end| end <= now) { "expired" } else { "valid" }
}

/// Everything about a key but its hash.
fn shown(key: &StoredKey, now: Micros) -> Value {
    json!({
        "id": key.id, "label": key.label, "scopes": key.scopes, "row_filter": key.row_filter, "rates": key.rates,
        "created_at": key.created_at, "expires_at": key.expires_at, "revoked_at": key.revoked_at, "state": state(key, now),
    })
}

fn table(keys: &[StoredKey], now: Micros, width: Option<u16>) -> String {
    let rows = keys.iter().map(|key| {
        let rates: Vec<String> = key.rates.iter().map(ToString::to_string).collect();
        vec![
            key.id.to_string(),
            key.scopes.to_string(),
            key.row_filter.clone().unwrap_or_else(dash),
            if rates.is_empty() { dash() } else { rates.join(" ") },
            key.expires_at.map_or_else(|| "never".to_owned(), |end| end.to_string()),
            state(key, now).to_owned(),
            key.label.clone().unwrap_or_else(dash),
        ]
    });
    draw(&HEADER, rows, width)
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Failure {
        let code = if matches!(error, KeyFileError::Unknown(_)) { USAGE } else { FAILED };
        Failure::new(code, error)
    }
}
