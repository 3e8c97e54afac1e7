//! How long to wait after a failure.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(5);

/// The wait after `failures` failures in a row (1 is the first): doubles from 5 s to 5 min. `chance` in 0..1 spreads it by
/// ±20 %, so that objects that failed together do not come back together.
pub fn delay(failures: u32, chance: f64) -> Duration {
    let base = FIRST.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(16))).min(LONGEST);
    base.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
}

/// `base`, spread by ±20 %.
pub fn jittered(base: Duration) -> Duration {
    base.mul_f64(0.8 + 0.4 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_from_five_seconds_to_five_minutes() {
        let seconds: Vec<u64> = (1..=9).map(|failures| delay(failures, 0.5).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(delay(u32::MAX, 0.5), LONGEST);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        assert_eq!(delay(1, 0.0), Duration::from_secs(4));
        assert_eq!(delay(1, 1.0), Duration::from_secs(6));
    }
}
