//! Fences: the epoch that mutating calls of a consumer must carry at least.

use rusqlite::{OptionalExtension, params};

use super::Outcome;
use crate::file360::model::Fence;
use crate::server::call::Answer;
use crate::server::names;
use crate::server::refusal::Refusal;
use crate::server::tx::{Tx, View};

fn find(view: &View<'_>) -> Result<Option<Fence>, Refusal> {
    let mut find = view.db.prepare_cached("SELECT epoch, holder FROM fences WHERE cluster_id = ?1 AND consumer = ?2")?;
    let name = [view.call.param("clusterId"), view.call.param("consumer")];
    Ok(find.query_row(name, |row| Ok(Fence { epoch: row.get(0)?, holder: row.get(1)? })).optional()?)
}

fn etag(fence: &Fence) -> String {
    format!("\"{}\"", fence.epoch)
}

/// `GET /v1/fences/{clusterId}/{consumer}`
pub fn get(view: &View<'_>) -> Outcome {
    view.authorize_alone()?;
    let fence = find(view)?.ok_or_else(|| Refusal::not_found("fence"))?;
    Ok(Answer::ok(&fence)?.tagged(&etag(&fence)))
}

/// `PUT /v1/fences/{clusterId}/{consumer}`
pub fn put(tx: &mut Tx<'_, '_, '_>) -> Outcome {
    tx.authorize_alone()?;
    let (cluster, consumer) = (tx.call.param("clusterId"), tx.call.param("consumer"));
    names::required_text(cluster, 253, "clusterId")?;
    names::required_text(consumer, 253, "consumer")?;
    let fence: Fence = tx.call.json()?;
    if i64::try_from(fence.epoch).is_err() {
        return Err(Refusal::invalid("/epoch", "At most 9223372036854775807."));
    }
    if let Some(holder) = &fence.holder {
        names::text(holder, 253, "/holder")?;
    }
    let before = find(tx)?;
    match &before {
        Some(_) if tx.call.creates_only() => return Err(Refusal::etag_mismatch()),
        Some(before) => tx.call.require_match(&etag(before))?,
        None if tx.call.creates_only() => {}
        None => {
            let detail = "The fence does not exist: the call needs `If-None-Match: *`.";
            let has = tx.call.headers.contains_key(http::header::IF_MATCH);
            return Err(if has { Refusal::etag_mismatch() } else { Refusal::new(428, "precondition-required", detail) });
        }
    }
    if before.as_ref().is_some_and(|before| fence.epoch <= before.epoch) {
        return Err(Refusal::new(412, "fenced", "The epoch must be larger than the one that stands.").audited());
    }
    tx.db
        .prepare_cached(
            "INSERT INTO fences (cluster_id, consumer, epoch, holder) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (cluster_id, consumer) DO UPDATE SET epoch = ?3, holder = ?4",
        )?
        .execute(params![cluster, consumer, fence.epoch, fence.holder])?;
    tx.note(|about| about.subject = Some(format!("{cluster}/{consumer}")));
    tx.took_effect();
    Ok(Answer::json(if before.is_some() { 200 } else { 201 }, &fence)?.tagged(&etag(&fence)))
}
