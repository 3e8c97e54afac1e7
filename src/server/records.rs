//! Rows of the database as values, and the facts about them that `authorize` looks at.

pub mod items;
pub mod people;
pub mod workspaces;

use jiff::Timestamp;
use rusqlite::types::Type;

/// A time from its column.
pub fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or_default()
}

/// A JSON column.
pub fn json<T: serde::de::DeserializeOwned>(at: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, error.into()))
}

/// A column that names one of a closed set by its number.
pub fn enumerated<T: Copy>(at: usize, all: &[T], number: usize) -> rusqlite::Result<T> {
    all.get(number).copied().ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(at, Type::Integer, format!("{number} is not a known value").into())
    })
}
