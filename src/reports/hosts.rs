//! A system that is away is asked by one at a time, not by every workspace that has something to tell it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::reconcile::backoff;

/// While one asks whether a system is back, the others wait this long.
const ASKING: Duration = Duration::from_secs(5);

/// Which systems, by URL, are away; for each namespace of its own: one tenant's trouble is not another's.
#[derive(Default)]
pub struct Hosts(Mutex<HashMap<(String, String), Away>>);

struct Away {
    failures: u32,
    until: Instant,
}

impl Hosts {
    /// Whether a call may be made; else how long to wait. Whoever may, says how it went.
    pub fn enter(&self, namespace: &str, url: &str) -> Result<(), Duration> {
        let now = Instant::now();
        match self.0.lock().get_mut(&(namespace.to_owned(), url.to_owned())) {
            Some(away) if away.until > now => Err(away.until - now),
            Some(away) => {
                away.until = now + ASKING;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// It answered.
    pub fn is_here(&self, namespace: &str, url: &str) {
        self.0.lock().remove(&(namespace.to_owned(), url.to_owned()));
    }

    /// It did not answer, or is too busy. How long to wait.
    pub fn is_away(&self, namespace: &str, url: &str, retry_after: Option<Duration>) -> Duration {
        let mut hosts = self.0.lock();
        let away = hosts
            .entry((namespace.to_owned(), url.to_owned()))
            .or_insert_with(|| Away { failures: 0, until: Instant::now() });
        away.failures = away.failures.saturating_add(1);
        let wait = retry_after.unwrap_or_else(|| pause(away.failures));
        away.until = Instant::now() + wait;
        wait
    }

    /// Somebody asks for another try now.
    pub fn forget(&self, namespace: &str) {
        self.0.lock().retain(|(known, _), _| known != namespace);
    }
}

/// The wait after so many failures in a row: from about a second to about a minute.
pub fn pause(failures: u32) -> Duration {
    backoff::delay(failures, rand::random()) / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_asks_whether_a_system_is_back_and_the_others_wait() {
        let hosts = Hosts::default();
        assert!(hosts.enter("a", "crm").is_ok());
        let wait = hosts.is_away("a", "crm", None);
        assert!(hosts.enter("a", "crm").is_err() && hosts.enter("b", "crm").is_ok() && hosts.enter("a", "sap").is_ok());
        tokio::time::advance(wait).await;
        assert!(hosts.enter("a", "crm").is_ok(), "one tries");
        assert!(hosts.enter("a", "crm").is_err(), "the next waits for it");
        hosts.is_here("a", "crm");
        assert!(hosts.enter("a", "crm").is_ok());
        hosts.is_away("a", "crm", Some(Duration::from_mins(9)));
        hosts.forget("a");
        assert!(hosts.enter("a", "crm").is_ok());
    }
}
