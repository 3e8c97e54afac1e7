//! What the tests against a real API server stand on: a control plane, the embedded File 360 and the operator, each a process
//! of its own, and checkers that look at both ends without the product's code.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod case_system;
pub mod controlplane;
pub mod counterparts;
pub mod crm;
pub mod kubernetes;
pub mod proxy;
pub mod remote;
pub mod search;
pub mod world;

pub use counterparts::{free_port, listen_again};

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before it counts as "never". Not a measure of speed.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again until `check` has an answer; panics with `what` and the last refusal when it never has.
pub async fn eventually<T, F, Fut>(what: &str, mut check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        match check().await {
            Ok(value) => return value,
            Err(why) if start.elapsed() > PATIENCE => panic!("{what} never came true: {why}"),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Chooses the process's cryptography, once.
pub fn install_crypto() {
    static PROVIDER: std::sync::Once = std::sync::Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The operator's binary.
pub const OPERATOR: &str = env!("CARGO_BIN_EXE_file360-operator");
