//! Objects that go in parts: nothing is visible before the last request, and nothing is left behind when it does not come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, header};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::client::{Body, Client, Gathering, Request};
use super::{Condition, PART, S3Store, description, duplicate, share, stored};
use crate::error::{Error, Kind, Result};
use crate::outbound::object_store::{Stored, Stream, Upload, opened};

/// Parts that one upload has in flight.
const IN_FLIGHT: usize = 3;
/// What S3 takes.
const MAX_PARTS: u64 = 10_000;
/// What S3 takes, in bytes.
const LARGEST_OBJECT: u64 = 50 * 1024 * 1024 * 1024 * 1024;
const TRIES: u32 = 3;
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

#[derive(Deserialize)]
struct Completed {}

/// An upload that is given up unless it is completed, also when the task that makes it is.
struct Unfinished {
    client: Arc<Client>,
    key: String,
    id: String,
    is_over: bool,
}

impl S3Store {
    pub(super) async fn put_in_parts(&self, upload: &Upload<'_>) -> Result<Stored> {
        if upload.size > LARGEST_OBJECT {
            return Err(Error::new(Kind::Rejected, "S3 takes no object of that size"));
        }
        let Some(condition) = self.condition(upload).await? else { return Ok(duplicate(upload)) };
        let content = opened(upload).await?;
        let mut unfinished = self.begin(upload).await?;
        let sent = match unfinished.send_all(content, upload.size).await {
            Ok(parts) => self.complete(&mut unfinished, &parts, condition).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            unfinished.abort().await;
            // Another try was faster: what lies there now says whether it was this delivery.
            if error.kind == Kind::Stale && self.condition(upload).await?.is_none() {
                return Ok(duplicate(upload));
            }
            return Err(error);
        }
        Ok(stored(upload))
    }

    async fn begin(&self, upload: &Upload<'_>) -> Result<Unfinished> {
        let mut request = Request::new(Method::POST, Some(upload.key.as_str()));
        request.query.push(("uploads", ""));
        request.headers = description(upload, None);
        let begun: Begun = self.client.send_for_xml(&request, MAX_ANSWER).await?;
        Ok(Unfinished { client: self.client.clone(), key: upload.key.to_string(), id: begun.upload_id, is_over: false })
    }

    async fn complete(&self, unfinished: &mut Unfinished, etags: &[String], condition: Condition) -> Result<()> {
        let mut document = String::from("<CompleteMultipartUpload>");
        for (n, etag) in etags.iter().enumerate() {
            let etag = quick_xml::escape::escape(etag);
            document.extend(["<Part><PartNumber>", &(n + 1).to_string(), "</PartNumber><ETag>", &etag, "</ETag></Part>"]);
        }
        document.push_str("</CompleteMultipartUpload>");
        let mut request = Request::new(Method::POST, Some(&unfinished.key));
        request.query.push(("uploadId", &unfinished.id));
        request.headers.extend(condition.header());
        request.body = document.into_bytes().into();
        let completed: Result<Completed> = self.client.send_for_xml(&request, MAX_ANSWER).await;
        completed?;
        unfinished.is_over = true;
        Ok(())
    }
}

impl Unfinished {
    /// Sends all parts, some at a time; gives their entity tags in order.
    async fn send_all(&self, mut content: Stream, size: u64) -> Result<Vec<String>> {
        let part_size = part_size(size);
        let mut etags = vec![String::new(); usize::try_from(size.div_ceil(part_size)).unwrap_or(usize::MAX).min(10_000)];
        let mut sending = JoinSet::new();
        let mut rest = Bytes::new();
        for number in 0..etags.len() {
            while sending.len() >= IN_FLIGHT {
                note(&mut etags, sending.join_next().await)?;
            }
            let length = part_size.min(size - number as u64 * part_size);
            let share = share(length).await?;
            let body = part(&mut content, &mut rest, length).await?;
            let (client, key, id) = (self.client.clone(), self.key.clone(), self.id.clone());
            sending.spawn(async move {
                let _share = share;
                let text = (number + 1).to_string();
                send_part(&client, &key, &id, &text, body).await.map(|etag| (number, etag))
            });
        }
        while !sending.is_empty() {
            note(&mut etags, sending.join_next().await)?;
        }
        // The end of the content says whether it was right.
        if !rest.is_empty() || content.next().await.transpose()?.is_some() {
            return Err(Error::new(Kind::Unavailable, "the content has more bytes than its source said"));
        }
        Ok(etags)
    }

    async fn abort(&mut self) {
        self.is_over = true;
        abort(&self.client, &self.key, &self.id).await;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.is_over, tokio::runtime::Handle::try_current()) {
            let (client, key, id) = (self.client.clone(), std::mem::take(&mut self.key), std::mem::take(&mut self.id));
            runtime.spawn(async move { abort(&client, &key, &id).await });
        }
    }
}

/// Gives up what was sent. If this fails, the bucket's lifecycle rule for incomplete uploads has to do it.
async fn abort(client: &Client, key: &str, id: &str) {
    let mut request = Request::new(Method::DELETE, Some(key));
    request.query.push(("uploadId", id));
    if let Err(error) = client.send(&request).await {
        tracing::warn!(%error, "An incomplete upload stays behind in bucket {}", client.bucket());
    }
}

fn note(etags: &mut [String], joined: Option<Result<Result<(usize, String)>, tokio::task::JoinError>>) -> Result<()> {
    match joined {
        Some(Ok(sent)) => {
            let (number, etag) = sent?;
            etags[number] = etag;
            Ok(())
        }
        Some(Err(_)) => Err(Error::new(Kind::Stopping, "the upload was given up")),
        None => Ok(()),
    }
}

/// One part. It is in memory, so a failure costs no more than sending it again.
async fn send_part(client: &Client, key: &str, id: &str, number: &str, body: Body) -> Result<String> {
    let mut request = Request::new(Method::PUT, Some(key));
    request.query = vec![("partNumber", number), ("uploadId", id)];
    request.body = body;
    let mut tried = 0;
    loop {
        tried += 1;
        match client.send(&request).await {
            Ok(response) => {
                let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
                return etag.map(str::to_owned).ok_or_else(|| Error::new(Kind::Malformed, "the answer of S3 lacks ETag"));
            }
            Err(error) if tried < TRIES && matches!(error.kind, Kind::Unavailable | Kind::RateLimited) => {
                tokio::time::sleep(error.retry_after.unwrap_or(Duration::from_millis(500 * u64::from(tried)))).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The next `length` bytes. What came beyond them is left in `rest`.
async fn part(content: &mut Stream, rest: &mut Bytes, length: u64) -> Result<Body> {
    let mut gathering = Gathering::new(true);
    while gathering.size() < length {
        if rest.is_empty() {
            let Some(chunk) = content.next().await.transpose()? else {
                return Err(Error::new(Kind::Unavailable, "the content has fewer bytes than its source said"));
            };
            *rest = chunk;
        }
        let wanted = usize::try_from(length - gathering.size()).unwrap_or(usize::MAX).min(rest.len());
        gathering.add(rest.split_to(wanted));
    }
    Ok(gathering.body(None))
}

/// Bytes of a part: the usual size, or what makes the number of parts possible.
fn part_size(size: u64) -> u64 {
    const MIB: u64 = 1024 * 1024;
    PART.max(size.div_ceil(MAX_PARTS).div_ceil(MIB) * MIB)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::hex::hex;

    #[test]
    fn every_size_fits_into_the_parts_there_may_be() {
        assert_eq!(part_size(PART + 1), PART);
        for size in [100 << 30, 5 << 40, LARGEST_OBJECT] {
            assert!(size.div_ceil(part_size(size)) <= MAX_PARTS);
        }
    }

    #[tokio::test]
    async fn parts_are_cut_where_they_should_be() {
        let chunks: Vec<Result<Bytes>> =
            ["abc", "defg", "", "hi"].iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        let mut content = stream::iter(chunks).boxed();
        let mut rest = Bytes::new();
        let mut parts = Vec::new();
        for length in [2, 4, 3] {
            let body = part(&mut content, &mut rest, length).await.unwrap();
            assert_eq!(body.size, length);
            let whole = body.chunks.concat();
            assert_eq!(body.sha256, hex(&Sha256::digest(&whole)));
            parts.push(String::from_utf8(whole).unwrap());
        }
        assert_eq!(parts, ["ab", "cdef", "ghi"]);
        assert!(part(&mut content, &mut rest, 1).await.is_err());
    }
}
