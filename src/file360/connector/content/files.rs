//! Bytes in and out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, header};
use sha2::{Digest, Sha256};

use super::items::item_path;
use crate::error::{Error, Kind, Result};
use crate::file360::connector::Connector;
use crate::file360::exchange::Leaving;
use crate::file360::exchange::{Call, segment};
use crate::file360::model::{Item, NewUpload, OnConflict, Upload, UploadCommit};
use crate::file360::{ByteStream, Cause, Download, IdempotencyKey, NewFile};
use crate::hex::{hex, unhex};

/// Longest query of an upload. Servers take addresses of 8,000 bytes and more; longer metadata goes another way.
const MOST_QUERY: usize = 6_000;

impl Connector {
    pub(super) async fn get_content(&self, item: &str, version: u64) -> Result<Download> {
        let operation = "download a file";
        let version = version.to_string();
        let query = [("version", version.as_str())];
        let call = Call::new(operation, Method::GET, format!("{}/content", item_path(item))).query(&query);
        let arriving = self.transport.receive(call).await?;
        let sha256 = stated_sha256(&arriving.headers).ok_or_else(|| {
            Error::new(Kind::Malformed, "the answer has no Repr-Digest with a SHA-256").while_doing(operation)
        })?;
        let mime_type = arriving.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let mime_type = mime_type.unwrap_or("application/octet-stream").to_owned();
        Ok(Download { size: arriving.size, sha256, mime_type, content: arriving.content })
    }

    pub(super) async fn post_file(
        &self,
        folder: &str,
        new: &NewFile,
        content: ByteStream,
        key: &IdempotencyKey,
        cause: &Cause,
    ) -> Result<Item> {
        let operation = "upload a file";
        let names: Vec<String> = new.metadata.keys().map(|name| format!("metadata[{name}]")).collect();
        let mut query = vec![("name", new.name.as_str()), ("onConflict", word(new.on_conflict))];
        query.extend(names.iter().map(String::as_str).zip(new.metadata.values().map(String::as_str)));
        let content = leaving(content, &new.mime_type, new.size, new.sha256.as_deref())?;
        if query.iter().map(|(name, value)| encoded_len(name) + encoded_len(value) + 2).sum::<usize>() > MOST_QUERY {
            return self.post_in_session(folder, new, content, key, cause).await;
        }
        let path = format!("{}/files", item_path(folder));
        let call = Call::new(operation, Method::POST, path).query(&query).key(key).cause(cause);
        self.transport.send_content(call, content).await?.json(operation)
    }

    /// An upload whose metadata is too long for an address: session, one part, commit. Each step is repeatable under a key
    /// of its own; the session of an earlier attempt is taken up where that ended.
    async fn post_in_session(
        &self,
        folder: &str,
        new: &NewFile,
        content: Leaving,
        key: &IdempotencyKey,
        cause: &Cause,
    ) -> Result<Item> {
        let operation = "upload a file with much metadata";
        let session = NewUpload {
            parent_id: Some(folder.to_owned()),
            name: Some(new.name.clone()),
            mime_type: Some(new.mime_type.clone()),
            metadata: new.metadata.clone(),
            on_conflict: new.on_conflict,
            ..NewUpload::default()
        };
        let (first, last) = (derived(key, "session"), derived(key, "commit"));
        let call = Call::new(operation, Method::POST, "/v1/uploads".into()).json(&session)?.key(&first).cause(cause);
        let answer = self.transport.call(call).await?;
        let upload: Upload = answer.json(operation)?;
        let path = format!("/v1/uploads/{}", segment(&upload.id));
        let commit = UploadCommit { sha256: new.sha256.clone() };
        let committing = || {
            let call = Call::new(operation, Method::POST, format!("{path}/commit"));
            Ok::<_, Error>(self.transport.call(call.json(&commit)?.key(&last).cause(cause)))
        };
        if answer.is_replay {
            match committing()?.await {
                // The part is missing, or it is not what it should be: it is sent again.
                Err(error) if error.kind == Kind::Conflict || error.code == "digest-mismatch" => {}
                committed => return committed?.json(operation),
            }
        }
        let part = Call::new(operation, Method::PUT, format!("{path}/parts/1")).cause(cause);
        self.transport.send_content(part, content).await?;
        committing()?.await?.json(operation)
    }

    pub(super) async fn replace_content(&self, item: &str, etag: &str, content: Leaving, cause: &Cause) -> Result<Item> {
        let operation = "replace the content of a file";
        let path = format!("{}/content", item_path(item));
        let call = Call::new(operation, Method::PUT, path).if_match(etag).cause(cause);
        self.transport.send_content(call, content).await?.json(operation)
    }
}

/// Content to send, with its digest if it is known.
pub(super) fn leaving(content: ByteStream, mime_type: &str, size: Option<u64>, sha256: Option<&str>) -> Result<Leaving> {
    let digest = match sha256 {
        None => None,
        Some(hex) => {
            let bytes = unhex(hex).ok_or_else(|| Error::new(Kind::Rejected, "a SHA-256 has 64 hexadecimal digits"))?;
            Some(format!("sha-256=:{}:", STANDARD.encode(bytes)))
        }
    };
    Ok(Leaving::new(content, mime_type, size, digest))
}

/// A key that belongs to `key` and to one step.
fn derived(key: &IdempotencyKey, step: &str) -> IdempotencyKey {
    IdempotencyKey(hex(&Sha256::digest(format!("{step}\n{}", key.0))))
}

fn word(on_conflict: OnConflict) -> &'static str {
    match on_conflict {
        OnConflict::Fail => "fail",
        OnConflict::Return => "return",
        OnConflict::NewVersion => "newVersion",
        OnConflict::Rename => "rename",
    }
}

fn encoded_len(text: &str) -> usize {
    url::form_urlencoded::byte_serialize(text.as_bytes()).map(str::len).sum()
}

/// The SHA-256 in `Repr-Digest`, in hexadecimal.
fn stated_sha256(headers: &HeaderMap) -> Option<String> {
    let stated = headers.get("repr-digest")?.to_str().ok()?;
    let entry = stated.split(',').map(str::trim).find_map(|entry| entry.strip_prefix("sha-256=:"))?;
    let bytes = STANDARD.decode(entry.strip_suffix(':')?).ok()?;
    (bytes.len() == 32).then(|| hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_both_of_its_notations() {
        let text = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let mut headers = HeaderMap::new();
        let value = format!("md5=:AAAA:, sha-256=:{}:", STANDARD.encode(unhex(text).unwrap()));
        headers.insert("repr-digest", value.parse().unwrap());
        assert_eq!(stated_sha256(&headers).as_deref(), Some(text));
        for wrong in ["", "2cf2", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
