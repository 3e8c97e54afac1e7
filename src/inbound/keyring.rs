//! The keys of one Secret, kept at hand: no request waits for the Kubernetes API, and none can be told by its timing.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::signature::Keys;
use crate::error::{Error, Kind};
use crate::outbound::secrets::References;

/// How long the last known keys count while the Kubernetes API cannot be reached. Nobody can take a key out through it meanwhile.
const OUTAGE: Duration = Duration::from_hours(1);

/// The keys of a Secret. Read at the start and again and again until dropped.
pub struct Keyring {
    secret: String,
    state: Arc<RwLock<State>>,
    _reading: AbortOnDropHandle<()>,
}

struct State {
    keys: Arc<Keys>,
    read_at: Instant,
    problem: Option<Error>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Reads the keys of `secret`, and from then on `every` so often. A Secret that is missing or wrong gives no keys, and
    /// [`Keyring::problem`] says why.
    pub async fn open(references: Arc<dyn References>, secret: impl Into<String>, every: Duration) -> Self {
        let secret = secret.into();
        let nobodys = State { keys: Arc::new(Keys::nobodys()), read_at: Instant::now(), problem: None };
        let state = Arc::new(RwLock::new(nobodys));
        read(&*references, &secret, &state).await;
        let reading = tokio::spawn({
            let (secret, state) = (secret.clone(), Arc::clone(&state));
            async move {
                loop {
                    tokio::time::sleep(every).await;
                    read(&*references, &secret, &state).await;
                }
            }
        });
        Self { secret, state, _reading: AbortOnDropHandle::new(reading) }
    }

    /// Name of the Secret.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The keys that count now.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.state.read().keys)
    }

    /// Why keys are missing, if they are. Never contains a key.
    pub fn problem(&self) -> Option<Error> {
        self.state.read().problem.clone()
    }
}

async fn read(references: &dyn References, secret: &str, state: &RwLock<State>) {
    let result = references.keys(secret).await;
    let mut state = state.write();
    let known = state.problem.as_ref().map(ToString::to_string);
    match result {
        Ok(values) => {
            let (keys, problems) = Keys::new(values.iter().map(|(name, value)| (name.as_str(), value.expose())));
            let text = format!("Secret {secret}: {}", problems.join("; "));
            let problem = (!problems.is_empty()).then(|| Error::new(Kind::Reference, text));
            *state = State { keys: Arc::new(keys), read_at: Instant::now(), problem };
        }
        Err(error) => {
            let is_gone = matches!(error.kind, Kind::NotFound | Kind::Reference | Kind::Denied) || error.code == "Forbidden";
            if is_gone || state.read_at.elapsed() > OUTAGE {
                state.keys = Arc::new(Keys::nobodys());
            }
            state.problem = Some(error);
        }
    }
    // Once for each problem, not once a minute.
    if let Some(problem) = state.problem.as_ref().filter(|problem| known.as_ref() != Some(&problem.to_string())) {
        warn!(secret, "Keys of inbound requests: {problem}");
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::api::common::SecretKeyRef;
    use crate::api::connection::CaRef;
    use crate::error::Result;
    use crate::inbound::signature::Claim;
    use crate::redacted::Redacted;

    struct Secret(Mutex<Result<Vec<(String, Redacted)>>>);

    #[async_trait]
    impl References for Secret {
        async fn credential(&self, _: &SecretKeyRef, _: &str) -> Result<Redacted> {
            unreachable!("keys are checked here and sent nowhere")
        }

        async fn keys(&self, _: &str) -> Result<Vec<(String, Redacted)>> {
            self.0.lock().clone()
        }

        async fn authorities(&self, _: &CaRef) -> Result<Vec<u8>> {
            unreachable!("keys are checked here and sent nowhere")
        }

        async fn client_certificate(&self, _: &str, _: &str) -> Result<Redacted> {
            unreachable!("keys are checked here and sent nowhere")
        }

        fn refused(&self) {}
    }

    fn keys(value: &str) -> Vec<(String, Redacted)> {
        vec![("current".to_owned(), Redacted::new(value))]
    }

    /// `a`, at second 1, with the empty payload.
    fn opens(keyring: &Keyring, signature: &str) -> bool {
        Claim::parse("a", "1", signature).unwrap().is_signed(&keyring.keys(), b"")
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("{what}"));
    }

    /// By `openssl`, with keys of 24 times the letter.
    const BY_A: &str = "v1,63Hgc2zDedP6KJ714QFOVyxeBo76WJE9TZ1d0diW5yA=";
    const BY_B: &str = "v1,b0AsjfKUNmjMsEXgzrZ26Sg36smUC4g+BLdCyTeiY58=";

    #[tokio::test]
    async fn t4_a_changed_secret_counts_soon_and_a_missing_one_opens_nothing() {
        let secret = Arc::new(Secret(Mutex::new(Ok(keys(&"a".repeat(24))))));
        let keyring = Keyring::open(secret.clone(), "inbox", Duration::from_millis(2)).await;
        assert!(opens(&keyring, BY_A) && !opens(&keyring, BY_B) && keyring.problem().is_none());

        *secret.0.lock() = Ok(keys(&"b".repeat(24)));
        until("the new key counts", || opens(&keyring, BY_B)).await;
        assert!(!opens(&keyring, BY_A), "the old key is out");

        *secret.0.lock() = Err(Error::new(Kind::Kubernetes, "the API server is away"));
        until("the outage is known", || keyring.problem().is_some()).await;
        assert!(opens(&keyring, BY_B), "an outage takes no key out");

        *secret.0.lock() = Err(Error::new(Kind::Reference, "Secret inbox is not there"));
        until("the Secret is gone", || !opens(&keyring, BY_B)).await;

        *secret.0.lock() = Ok(keys("short"));
        until("the problem is named", || keyring.problem().is_some_and(|it| it.to_string().contains("at least 24"))).await;
        assert!(!keyring.problem().unwrap().to_string().contains("short"), "a key stands in no message");
    }
}
