//! What answers say about the server's rate limit, and the pause that follows when nothing is left.
//!
//! Understood are the fields of draft-ietf-httpapi-ratelimit-headers (`RateLimit: "default";r=0;t=3`) and the older pair
//! `RateLimit-Remaining` and `RateLimit-Reset`. `Retry-After` is the business of who handles a refused call.

use std::time::{Duration, Instant};

use http::HeaderMap;
use parking_lot::Mutex;

/// A server cannot ask for a longer pause than this.
const LONGEST: Duration = Duration::from_mins(5);
/// The pause where the server says that nothing is left, but not until when.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The pause that the latest answers asked for.
#[derive(Default)]
pub struct Pause {
    until: Mutex<Option<Instant>>,
}

impl Pause {
    /// Takes up what an answer says. Answers overtake each other: the latest end counts, and only time ends a pause.
    pub fn heed(&self, headers: &HeaderMap) {
        let Some(end) = asked(headers).map(|pause| Instant::now() + pause) else { return };
        let mut until = self.until.lock();
        *until = Some(until.map_or(end, |known| known.max(end)));
    }

    /// How long it lasts from now on; `None`: a request may be sent.
    pub fn rest(&self) -> Option<Duration> {
        let until = (*self.until.lock())?;
        until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
    }
}

/// The pause that an answer asks for, bounded; `None` while something is left, or nothing is said.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let texts = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let current = texts("ratelimit").flat_map(|text| split(text, ',')).filter_map(exhausted);
    let older = || {
        let spent = texts("ratelimit-remaining").filter_map(leading_number).any(|left| left == 0);
        spent.then(|| texts("ratelimit-reset").filter_map(leading_number).max().map_or(UNKNOWN, Duration::from_secs))
    };
    let pause = if headers.contains_key("ratelimit") { current.max() } else { older() };
    pause.map(|pause| pause.min(LONGEST))
}

/// The pause of one item such as `"default";r=0;t=3`; `None` while something is left.
fn exhausted(item: &str) -> Option<Duration> {
    let number = |name: &str| {
        let parameters = split(item, ';').skip(1).filter_map(|parameter| parameter.split_once('='));
        parameters.filter(|(key, _)| key.trim() == name).find_map(|(_, value)| value.trim().parse::<u64>().ok())
    };
    (number("r") == Some(0)).then(|| number("t").map_or(UNKNOWN, Duration::from_secs))
}

fn leading_number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
}

/// The parts of a structured field: a separator within quotes is text.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let is_end = c == separator && !quoted;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        is_end
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use http::{HeaderName, HeaderValue, Method, StatusCode};
    use tokio_util::sync::CancellationToken;

    use super::super::Credential;
    use super::super::{Call, Observer, Settings, Transport};
    use super::*;
    use crate::error::Kind;
    use crate::redacted::Redacted;

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter();
        lines.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_pause_is_asked_for_by_whoever_has_nothing_left() {
        let seconds = |lines: &[(&'static str, &str)]| asked(&fields(lines)).map(|pause| pause.as_secs());
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&[("ratelimit", "\"default\";r=1;t=9")]), None);
        assert_eq!(seconds(&[("ratelimit", "\"default\";r=0;t=9")]), Some(9));
        assert_eq!(seconds(&[("ratelimit", "\"burst\";r=0;t=2, \"hour, of;r=0;t=99\";r=7;t=60")]), Some(2));
        assert_eq!(seconds(&[("ratelimit", "\"a\\\", b\";r=0;t=2 , \"b\" ; t=30 ; r=0")]), Some(30));
        assert_eq!(seconds(&[("ratelimit", "\"default\";r=0")]), Some(1), "until when is not said");
        assert_eq!(seconds(&[("ratelimit", "\"default\";r=0;t=86400")]), Some(300), "bounded");
        assert_eq!(seconds(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "7")]), Some(7));
        assert_eq!(seconds(&[("ratelimit-remaining", "0, 0;w=60"), ("ratelimit-reset", "7;w=60")]), Some(7));
        assert_eq!(seconds(&[("ratelimit-remaining", "3"), ("ratelimit-reset", "7")]), None);
        assert_eq!(
            seconds(&[("ratelimit", "\"d\";r=5;t=1"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "7")]),
            None,
            "the current field is the one that counts"
        );
        for nonsense in ["", ";;;", "\"", "r=0", "\"d\";r=-1;t=5", "\"d\";r=0x0;t=5", "\"d\";r=99999999999999999999;t=5"] {
            assert_eq!(seconds(&[("ratelimit", nonsense)]), None, "{nonsense}");
            assert_eq!(seconds(&[("ratelimit-remaining", nonsense)]), None, "{nonsense}");
        }
    }

    struct Nobody;

    impl Observer for Nobody {
        fn call_ended(&self, _: &'static str, _: &'static str, _: Duration) {}
    }

    /// A server that answers everything with these fields; notes when it is asked.
    async fn server(lines: HeaderMap) -> (Transport, Arc<Mutex<Vec<Instant>>>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let answer = move || {
            let (lines, noted) = (lines.clone(), noted.clone());
            async move {
                noted.lock().push(Instant::now());
                (StatusCode::OK, lines, "{}")
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let transport = Transport::new(Settings {
            endpoint,
            credential: Credential::Bearer(Redacted::new("token")),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            requests_per_second: None,
            concurrency: None,
            stop_writes: CancellationToken::new(),
            observer: Arc::new(Nobody),
        });
        (transport, asked)
    }

    fn call() -> Call<'static> {
        Call::new("look", Method::GET, "/v1/service".into())
    }

    #[tokio::test]
    async fn no_request_is_sent_before_the_server_has_some_left_again() {
        for lines in [
            fields(&[("ratelimit", "\"client\";r=0;t=1")]),
            fields(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "1")]),
        ] {
            let (transport, asked) = server(lines).await;
            for _ in 0..2 {
                transport.call(call()).await.unwrap();
            }
            let asked = asked.lock();
            assert!(asked[1] - asked[0] >= Duration::from_secs(1), "{:?}", asked[1] - asked[0]);
        }
    }

    #[tokio::test]
    async fn a_long_pause_is_told_at_once_and_holds_nobody_up() {
        let (transport, asked) = server(fields(&[("ratelimit", "\"client\";r=0;t=60")])).await;
        transport.call(call()).await.unwrap();
        let error = transport.call(call()).await.unwrap_err();
        assert_eq!(error.kind, Kind::RateLimited);
        assert!(error.retry_after.is_some_and(|after| after > Duration::from_secs(50)));
        assert_eq!(asked.lock().len(), 1);
    }
}
