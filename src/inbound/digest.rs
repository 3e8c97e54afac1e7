//! `Repr-Digest` and `Content-Digest` (RFC 9530): which bytes a request says it carries.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::signature::Malformed;

/// SHA-256 of a body.
pub type Sha256Digest = [u8; 32];

/// The SHA-256 that the headers state. One of both is enough; two that differ are refused.
pub fn from_headers(headers: &HeaderMap) -> Result<Sha256Digest, Malformed> {
    let mut found = None;
    for name in ["repr-digest", "content-digest"] {
        for value in headers.get_all(name) {
            let text = value.to_str().map_err(|_| BROKEN)?;
            let Some(digest) = parse(text)? else { continue };
            if found.is_some_and(|earlier| earlier != digest) {
                return Err(Malformed("The digests of the request contradict each other."));
            }
            found = Some(digest);
        }
    }
    found.ok_or(Malformed("The request needs a header Repr-Digest: sha-256=:<base64>: of its body."))
}

const BROKEN: Malformed = Malformed("A digest has the form sha-256=:<base64 of 32 bytes>:.");

/// The entry `sha-256` of one header's value; other algorithms are passed over.
pub fn parse(value: &str) -> Result<Option<Sha256Digest>, Malformed> {
    let mut found = None;
    for entry in value.split(',').map(str::trim) {
        let (name, rest) = entry.split_once('=').ok_or(BROKEN)?;
        if name != "sha-256" {
            continue;
        }
        let item = rest.split_once(';').map_or(rest, |(item, _)| item).trim();
        let encoded = item.strip_prefix(':').and_then(|item| item.strip_suffix(':')).ok_or(BROKEN)?;
        let digest: Sha256Digest = STANDARD.decode(encoded).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(BROKEN)?;
        if found.is_some_and(|earlier| earlier != digest) {
            return Err(Malformed("The digests of the request contradict each other."));
        }
        found = Some(digest);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hex::hex;

    /// Of the empty body.
    const EMPTY: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    #[test]
    fn the_sha_256_is_found_among_others() {
        for value in [
            EMPTY.to_owned(),
            format!("md5=:AAAA:, {EMPTY}"),
            format!("{EMPTY};q=1,sha-512=:AAAA:"),
            format!("{EMPTY}, {EMPTY}"),
        ] {
            let digest = parse(&value).unwrap().unwrap();
            assert_eq!(hex(&digest), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "{value}");
        }
        assert_eq!(parse("sha-512=:AAAA:"), Ok(None));
    }

    #[test]
    fn broken_missing_and_contradicting_digests_are_refused() {
        let other = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        for value in
            ["", "sha-256", "sha-256=", "sha-256=AAAA", "sha-256=:AAAA:", "sha-256=:!:", &format!("{EMPTY}, {other}")]
        {
            assert!(parse(value).is_err(), "{value}");
        }
        let headers = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            from_headers(&headers)
        };
        assert!(headers(&[]).is_err());
        assert!(headers(&[("repr-digest", "sha-512=:AAAA:")]).is_err());
        assert!(headers(&[("repr-digest", EMPTY), ("content-digest", other)]).is_err());
        assert!(headers(&[("content-digest", EMPTY)]).is_ok());
        assert!(headers(&[("repr-digest", EMPTY), ("content-digest", EMPTY)]).is_ok());
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panicking(value in ".{0,200}") {
            let _ = parse(&value);
        }

        #[test]
        fn every_digest_survives_its_header(digest in any::<[u8; 32]>()) {
            prop_assert_eq!(parse(&format!("sha-256=:{}:", STANDARD.encode(digest))), Ok(Some(digest)));
        }
    }
}
