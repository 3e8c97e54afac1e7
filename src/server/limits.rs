//! A token bucket per client.

use std::collections::HashMap;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

/// What a client has left.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Requests it may send at once.
    pub remaining: u64,
    /// Seconds until the bucket is full again, or until the next request is allowed.
    pub reset: u64,
}

/// The buckets. Without a limit every request passes.
pub struct Buckets {
    per_second: Option<u32>,
    levels: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Buckets {
    /// Buckets that refill at this rate and hold one second's worth.
    pub fn new(per_second: Option<u32>) -> Self {
        Self { per_second, levels: Mutex::default() }
    }

    /// Takes one request of `client`; `Err`: there is none left.
    pub fn take(&self, client: &str) -> Result<Quota, Quota> {
        let Some(limit) = self.per_second.map(f64::from) else { return Ok(Quota { remaining: u64::MAX, reset: 0 }) };
        let now = Instant::now();
        let mut levels = self.levels.lock();
        let (level, at) = levels.entry(client.to_owned()).or_insert((limit, now));
        *level = limit.min(*level + now.duration_since(*at).as_secs_f64() * limit);
        *at = now;
        if *level < 1.0 {
            return Err(Quota { remaining: 0, reset: 1 });
        }
        *level -= 1.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the limit, which is a u32"
        )]
        Ok(Quota { remaining: *level as u64, reset: 1 })
    }
}

/// States the limit and what is left: the current fields and the older ones, which middleware still reads.
pub fn describe(headers: &mut HeaderMap, limit: u32, quota: Quota) {
    let Quota { remaining, reset } = quota;
    let fields = [
        ("ratelimit-policy", format!("\"client\";q={limit};w=1")),
        ("ratelimit", format!("\"client\";r={remaining};t={reset}")),
        ("ratelimit-limit", limit.to_string()),
        ("ratelimit-remaining", remaining.to_string()),
        ("ratelimit-reset", reset.to_string()),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
