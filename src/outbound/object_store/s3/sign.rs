//! Signature version 4 of Amazon's APIs, in the `Authorization` header. Pure.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// SHA-256 of nothing.
pub const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const PATH: &AsciiSet = &VALUE.remove(b'/');

/// What is signed. Paths and queries are encoded with [`path`] and [`query`]: what is signed is what is sent.
pub struct Signable<'a> {
    /// Method.
    pub method: &'a str,
    /// Encoded path.
    pub path: &'a str,
    /// Encoded query.
    pub query: &'a str,
    /// Headers that are signed, with lower-case names. `host`, `x-amz-date` and `x-amz-content-sha256` are among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body in hexadecimal.
    pub body: &'a str,
}

/// The value of `Authorization`.
pub fn authorization(request: &Signable<'_>, at: Timestamp, region: &str, key_id: &str, secret: &str) -> String {
    let mut headers: Vec<(&str, &str)> = request.headers.to_vec();
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", squeezed(value))).collect();
    let canonical = [request.method, request.path, request.query, &lines, &names, request.body].join("\n");

    let time = time(at);
    let day = &time[..8];
    let scope = format!("{day}/{region}/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let key = mac(format!("AWS4{secret}").as_bytes(), day);
    let key = ["s3", "aws4_request"].iter().fold(mac(&key, region), |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &text));
    format!("AWS4-HMAC-SHA256 Credential={key_id}/{scope},SignedHeaders={names},Signature={signature}")
}

/// The value of `x-amz-date`.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The path of an object, encoded once.
pub fn path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

/// A query, encoded and in the order in which it is signed.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let encoded = |text| utf8_percent_encode(text, VALUE);
    let mut pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(*name), encoded(*value))).collect();
    pairs.sort_unstable();
    pairs.join("&")
}

fn squeezed(value: &str) -> String {
    value.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[expect(clippy::expect_used, reason = "the text says why it cannot fail")]
fn mac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is fine for HMAC");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of Amazon's documentation of the signature, with its example credential.
    #[test]
    fn it_signs_as_documented() {
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let date = ("x-amz-date", "20130524T000000Z");
        let empty = ("x-amz-content-sha256", EMPTY);
        let put = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let put_headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            host,
            ("x-amz-content-sha256", put),
            date,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let cases = [
            (
                Signable {
                    method: "GET",
                    path: "/test.txt",
                    query: "",
                    headers: &[host, ("range", "bytes=0-9"), empty, date],
                    body: EMPTY,
                },
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                Signable { method: "PUT", path: &path("/test$file.text"), query: "", headers: &put_headers, body: put },
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                Signable {
                    method: "GET",
                    path: "/",
                    query: &query(&[("lifecycle", "")]),
                    headers: &[host, empty, date],
                    body: EMPTY,
                },
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                Signable {
                    method: "GET",
                    path: "/",
                    query: &query(&[("prefix", "J"), ("max-keys", "2")]),
                    headers: &[host, empty, date],
                    body: EMPTY,
                },
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ];
        for (request, signature) in cases {
            let at: Timestamp = "2013-05-24T00:00:00Z".parse().unwrap();
            let value =
                authorization(&request, at, "us-east-1", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
            assert!(value.ends_with(signature), "{} {}?{}: {value}", request.method, request.path, request.query);
            assert!(value.contains("Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"));
        }
    }

    #[test]
    fn everything_but_letters_and_a_few_signs_is_encoded() {
        assert_eq!(path("/b/a b+c%20/ü~._-"), "/b/a%20b%2Bc%2520/%C3%BC~._-");
        assert_eq!(query(&[("start-after", "a/b c"), ("list-type", "2")]), "list-type=2&start-after=a%2Fb%20c");
    }
}
