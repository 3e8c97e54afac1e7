//! Metadata of many items in one call.

use super::Outcome;
use super::items::set_metadata;
use crate::file360::model::{BatchResult, BatchResults, MetadataBatch, MetadataPatch, Problem};
use crate::server::authorize::Effect;
use crate::server::call::Answer;
use crate::server::records::items;
use crate::server::refusal::Refusal;
use crate::server::tx::Tx;

/// Most entries of a batch.
pub const MOST: usize = 1000;

/// `POST /v1/metadata/batch`
pub fn batch(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.admitted()?;
    let batch: MetadataBatch = tx.call.json()?;
    if batch.get.len() + batch.set.len() > MOST {
        return Err(Refusal::invalid("", "A batch has at most 1000 entries."));
    }
    let mut results = Vec::with_capacity(batch.get.len() + batch.set.len());
    for id in &batch.get {
        let read = items::by_id(tx, id).and_then(|placed| {
            placed.authorize_as(tx, Effect::ReadContent, |_| ())?;
            placed.shown(tx)
        });
        results.push(result(id, read));
    }
    for patch in batch.set {
        let id = patch.item_id.clone();
        let changed = set(tx, patch);
        results.push(result(&id, changed));
    }
    Answer::ok(&BatchResults { results })
}

/// An entry is checked completely before anything of it is written, so a refused one leaves nothing behind.
fn set(tx: &mut Tx<'_, '_, '_>, patch: MetadataPatch) -> Result<crate::file360::model::Item, Refusal> {
    let placed = items::by_id(tx, &patch.item_id)?;
    placed.authorize_as(tx, Effect::ChangeItem, |_| ())?;
    if patch.etag.as_ref().is_some_and(|etag| *etag != placed.item.etag()) {
        return Err(Refusal::etag_mismatch());
    }
    set_metadata(tx, &placed, patch.metadata)?;
    items::by_id(tx, &patch.item_id)?.shown(tx)
}

/// The entry's place in the answer.
pub fn result(id: &str, outcome: Result<crate::file360::model::Item, Refusal>) -> BatchResult {
    match outcome {
        Ok(item) => BatchResult { item_id: id.to_owned(), item: Some(item), problem: None },
        Err(refusal) => BatchResult { item_id: id.to_owned(), item: None, problem: Some(problem(&refusal)) },
    }
}

/// A refusal inside a batch.
pub fn problem(refusal: &Refusal) -> Problem {
    Problem {
        kind: format!("urn:file360:problem:{}", refusal.code()),
        title: refusal.status().canonical_reason().unwrap_or("Refused").to_owned(),
        status: refusal.status().as_u16(),
        detail: Some(refusal.detail().to_owned()),
        code: refusal.code().to_owned(),
        ..Problem::default()
    }
}
