//! Writing down what somebody decided.

use super::record::{DECISION, Decision, parse};
use crate::error::{Error, Kind, Result};
use crate::file360::content::Content;
use crate::file360::model::FacetPut;

/// What became of an attempt to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is decided so.
    New,
    /// Somebody had decided before; that stands.
    Before(String),
}

/// Decides about a version, unless that was done: of two who decide at the same time, one does (A3). The same decision again is the same.
pub async fn make(files: &dyn Content, file: &str, version: u64, decision: &Decision) -> Result<Made> {
    let value = serde_json::to_value(decision).map_err(|error| Error::new(Kind::Malformed, error.to_string()))?;
    let put = FacetPut { item_id: file.to_owned(), version, name: DECISION.into(), value: Some(value), announce: true };
    match files.create_facet(&put).await {
        Ok(()) => Ok(Made::New),
        Err(error) if error.kind == Kind::Stale => {
            let facet = files.facet(file, version, DECISION).await?;
            let before: Option<Decision> = facet.and_then(|facet| parse(&facet.value));
            match before {
                Some(before) if before == *decision => Ok(Made::New),
                Some(before) => Ok(Made::Before(before.by)),
                None => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}
