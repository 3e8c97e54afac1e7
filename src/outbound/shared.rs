//! One value that many callers need and one of them makes: a connection, a preparation.

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// A value that is made when it is first needed, and again when it is no good any more.
#[derive(Debug)]
pub struct Shared<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
enum State<T> {
    Empty,
    Made(T),
    Failed(Error, Instant),
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State::Empty) }
    }
}

impl<T: Clone> Shared<T> {
    /// The value, if it `is_good`; otherwise what `make` makes, which must end by itself. One caller makes it; the others wait. A failure is
    /// everybody's who waited for it: they do not each wait for the same once more.
    pub async fn get(&self, is_good: impl Fn(&T) -> bool + Send, make: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        match &*state {
            State::Made(value) if is_good(value) => return Ok(value.clone()),
            State::Failed(error, at) if *at >= asked => return Err(error.clone()),
            _ => {}
        }
        let made = make.await;
        *state = match &made {
            Ok(value) => State::Made(value.clone()),
            Err(error) => State::Failed(error.clone(), Instant::now()),
        };
        made
    }

    /// Gives up the value if it is the one that `is_it`.
    pub async fn discard(&self, is_it: impl Fn(&T) -> bool + Send) {
        let mut state = self.state.lock().await;
        if matches!(&*state, State::Made(value) if is_it(value)) {
            *state = State::Empty;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_caller_makes_it_and_a_failure_stands_for_those_behind() {
        let shared = Shared::<u32>::default();
        let slow_failure = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Err(Error::new(Kind::Unavailable, "down"))
        };
        let begun = Instant::now();
        let (first, second) = tokio::join!(shared.get(|_| true, slow_failure), shared.get(|_| true, async { Ok(2) }));
        assert!(first.is_err() && second.is_err(), "the second waited for the first's answer only");
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(shared.get(|_| true, async { Ok(3) }).await.unwrap(), 3, "who asks later tries anew");
        assert_eq!(shared.get(|_| true, async { Ok(4) }).await.unwrap(), 3, "made once");
        assert_eq!(shared.get(|value| *value != 3, async { Ok(5) }).await.unwrap(), 5, "it is no good any more");
        shared.discard(|value| *value == 3).await;
        assert_eq!(shared.get(|_| true, async { Ok(6) }).await.unwrap(), 5, "another one was given up");
        shared.discard(|value| *value == 5).await;
        assert_eq!(shared.get(|_| true, async { Ok(7) }).await.unwrap(), 7);
    }
}
