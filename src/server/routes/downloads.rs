//! Bytes on their way out. The audit event of a download is on disk before the first byte leaves.

use std::io::SeekFrom;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::files::content_tag;
use crate::file360::model::ItemKind;
use crate::server::App;
use crate::server::authorize::Effect;
use crate::server::blobs;
use crate::server::call::{Answer, Call, Payload};
use crate::server::http::Reply;
use crate::server::records::items::{self, Placed, VersionRecord};
use crate::server::refusal::Refusal;
use crate::server::tx::{Tx, View};

/// Bytes per read: large enough that a disk read is not the cost, small enough for thousands of readers.
const CHUNK: usize = 128 * 1024;
const NAME_KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a permitted download sends.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name for the one who saves it.
    pub name: String,
    /// The version.
    pub version: VersionRecord,
    /// Its content, if that is small; else it is a file.
    pub small: Option<Bytes>,
    /// Workspace's revision, for the header.
    pub revision: Option<u64>,
}

/// `GET /v1/items/{id}/content`
pub async fn get(app: App, call: Call) -> Reply {
    let headers = call.headers.clone();
    let found = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&found);
    let reply = app
        .write(call, move |tx| {
            let placed = items::by_id(tx, tx.call.param("id"))?;
            let wanted = tx.call.number("version", 1..=u64::from(u32::MAX))?;
            let source = permit(tx, &placed, wanted)?;
            if tx.call.is_unchanged(&content_tag(&source.version.sha256)) {
                return Ok(Answer::empty(304).tagged(&content_tag(&source.version.sha256)));
            }
            *slot.lock() = Some(source);
            tx.took_effect();
            Ok(Answer::empty(200))
        })
        .await;
    let source = found.lock().take();
    match (source, reply.outcome.is_ok()) {
        (Some(source), true) => Reply { outcome: send(&app, &headers, &source).await, revision: reply.revision },
        _ => reply,
    }
}

/// Whether the caller may read the bytes of this version (the visible one if none is named).
pub fn permit(tx: &Tx<'_, '_, '_>, placed: &Placed, wanted: Option<u64>) -> Result<Source, Refusal> {
    if placed.item.kind != ItemKind::File {
        return Err(Refusal::new(409, "state-conflict", "A folder has no content."));
    }
    let n = wanted.or(placed.item.version).unwrap_or(placed.item.last_version);
    let version = items::version(tx.db, &placed.item.id, n)?;
    let released = version.as_ref().is_none_or(|version| version.state == 0);
    placed.authorize_as(tx, Effect::Download, |target| {
        if let Some(item) = &mut target.item {
            item.version_pending = !released;
        }
    })?;
    tx.note(|about| about.version = Some(n));
    let version = version.ok_or_else(|| Refusal::not_found("version"))?;
    let small = blobs::small(tx.db, &version.sha256, version.size)?;
    Ok(Source { name: placed.item.name.clone(), version, small, revision: tx.answered_revision(false) })
}

/// Sends the bytes, or the range that is asked for.
pub async fn send(app: &App, headers: &HeaderMap, source: &Source) -> Result<Answer, Refusal> {
    let VersionRecord { size, sha256, mime, .. } = &source.version;
    let tag = content_tag(sha256);
    let range = match requested_range(headers, *size, &tag) {
        Asked::Whole => None,
        Asked::Part(first, last) => Some((first, last)),
        Asked::Beyond => {
            let refusal = Refusal::new(416, "range-not-satisfiable", "The range lies outside the content.");
            return Err(refusal.header(header::CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    let (first, length) = range.map_or((0, *size), |(first, last)| (first, last - first + 1));
    let body = match &source.small {
        Some(bytes) => Body::from(part(bytes, first, length)),
        None => read_file(&app.blobs.path(sha256), first, length).await?,
    };
    let answer = Answer { status: StatusCode::OK, headers: Vec::new(), body: Payload::Other(body) };
    let mut answer = answer
        .tagged(&tag)
        .with(header::CONTENT_TYPE, mime)
        .with(header::CONTENT_LENGTH, &length.to_string())
        .with(header::ACCEPT_RANGES, "bytes")
        .with(header::CONTENT_DISPOSITION, &disposition(&source.name))
        .with(header::HeaderName::from_static("repr-digest"), &blobs::digest_header(sha256))
        // Whatever was uploaded is never run in this server's name.
        .with(header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
    if let Some((first, last)) = range {
        answer.status = StatusCode::PARTIAL_CONTENT;
        answer = answer.with(header::CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
    }
    Ok(answer)
}

fn part(bytes: &Bytes, first: u64, length: u64) -> Bytes {
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(first)..at(first.saturating_add(length)))
}

async fn read_file(path: &std::path::Path, first: u64, length: u64) -> std::io::Result<Body> {
    let mut file = tokio::fs::File::open(path).await?;
    if first > 0 {
        file.seek(SeekFrom::Start(first)).await?;
    }
    Ok(Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK)))
}

fn disposition(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._ ()".contains(c) { c } else { '_' }).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", utf8_percent_encode(name, NAME_KEPT))
}

/// What the `Range` header comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(u64, u64),
    Beyond,
}

/// One range is honoured; several, or one that is not understood, are answered with everything, as HTTP allows.
fn requested_range(headers: &HeaderMap, size: u64, tag: &str) -> Asked {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|condition| condition != tag) {
        return Asked::Whole;
    }
    let range = text(header::RANGE).and_then(|value| value.strip_prefix("bytes=")).filter(|spec| !spec.contains(','));
    let Some((first, last)) = range.and_then(|spec| spec.trim().split_once('-')) else { return Asked::Whole };
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (number(first), number(last)) {
        (Some(first), _) if first >= size => Asked::Beyond,
        (Some(first), Some(last)) if last < first => Asked::Whole,
        (Some(first), Some(last)) => Asked::Part(first, last.min(size - 1)),
        (Some(first), None) if last.is_empty() => Asked::Part(first, size - 1),
        (None, Some(0)) if first.is_empty() => Asked::Beyond,
        (None, Some(_)) if first.is_empty() && size == 0 => Asked::Beyond,
        (None, Some(length)) if first.is_empty() => Asked::Part(size.saturating_sub(length), size - 1),
        _ => Asked::Whole,
    }
}

/// A snapshot's word on whether content can be offered for download.
pub fn is_offered(view: &View<'_>, placed: &Placed) -> bool {
    placed.item.kind == ItemKind::File && placed.authorize_as(view, Effect::Download, |_| ()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_says() {
        let asked = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            requested_range(&headers, 10, "\"t\"")
        };
        for (range, expected) in [
            ("bytes=0-3", Asked::Part(0, 3)),
            ("bytes=4-", Asked::Part(4, 9)),
            ("bytes=-2", Asked::Part(8, 9)),
            ("bytes=-99", Asked::Part(0, 9)),
            ("bytes=8-99", Asked::Part(8, 9)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=3-2", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
        ] {
            assert_eq!(asked(range), expected, "{range}");
        }
    }
}
