//! A real NATS server with JetStream that can be watched and paused.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::counterparts::NatsServer;

/// A server of one test.
pub struct Server {
    nats: NatsServer,
    folder: TempDir,
    monitoring: u16,
}

impl Server {
    /// A server with JetStream and these further settings; `{folder}` in them is its folder.
    pub async fn start(settings: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let monitoring = crate::counterparts::free_port();
        let nats = NatsServer::start_with(&whole(settings, &folder, monitoring));
        let server = Self { nats, folder, monitoring };
        server.is_healthy().await;
        server
    }

    /// Other settings; they count once it is started again.
    pub fn configure(&self, settings: &str) {
        let path = self.nats.config();
        let before = std::fs::read_to_string(&path).unwrap();
        let base: Vec<&str> = before.lines().take(2).collect();
        std::fs::write(path, format!("{}\n{}", base.join("\n"), whole(settings, &self.folder, self.monitoring))).unwrap();
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `scheme://127.0.0.1:port`.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.nats.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.nats.port
    }

    /// Starts it at the same address with what it stored. Returns once it is ready.
    pub async fn start_again(&self) {
        self.nats.start_again();
        self.is_healthy().await;
    }

    async fn is_healthy(&self) {
        let health = format!("http://127.0.0.1:{}/healthz", self.monitoring);
        let begun = Instant::now();
        while !reqwest::get(&health).await.is_ok_and(|answer| answer.status().is_success()) {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_mins(1), "nats-server does not get healthy: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&self) {
        self.nats.stop();
    }

    /// Sends the server a signal, such as `STOP` and `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.path("pid")).unwrap();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.trim()).status().unwrap();
        assert!(sent.success(), "signal {name}");
    }

    /// How many connections it ever had.
    pub async fn connections_so_far(&self) -> u64 {
        let url = format!("http://127.0.0.1:{}/varz", self.monitoring);
        let answer: serde_json::Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        answer["total_connections"].as_u64().unwrap()
    }

    /// A client of the test's own.
    pub async fn client(&self, options: async_nats::ConnectOptions) -> async_nats::Client {
        options.connection_timeout(Duration::from_secs(20)).connect(self.url("nats")).await.expect("the test connects")
    }
}

fn whole(settings: &str, folder: &TempDir, monitoring: u16) -> String {
    let folder = folder.path().display().to_string();
    let base = format!("http: \"127.0.0.1:{monitoring}\"\npid_file: \"{folder}/pid\"\nlog_file: \"{folder}/log\"\n");
    format!("{base}{}\n", settings.replace("{folder}", &folder))
}
