//! A real NATS server with JetStream, built by tests/counterparts/build.sh.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

/// A server of one test. It ends with the test process, whatever ends that.
pub struct Server {
    folder: TempDir,
    port: u16,
    monitoring: u16,
    process: Mutex<Option<Child>>,
}

fn programs() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/counterparts/build.sh");
        let built = Command::new(script).args(["keep", "nats-server"]).stderr(Stdio::inherit()).output().expect("build.sh runs");
        assert!(built.status.success(), "{script} failed");
        String::from_utf8(built.stdout).unwrap().lines().last().expect("build.sh prints a folder").into()
    })
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// A server with JetStream and these further settings; `{folder}` in them is its folder.
    pub async fn start(settings: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let server = Self { folder, port: free_port(), monitoring: free_port(), process: Mutex::new(None) };
        server.configure(settings);
        server.start_again().await;
        server
    }

    /// Other settings; they count once it is started again.
    pub fn configure(&self, settings: &str) {
        let folder = self.folder.path().display().to_string();
        let base = format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\npid_file: \"{folder}/pid\"\nlog_file: \"{folder}/log\"\n\
             jetstream {{ store_dir: \"{folder}/store\", max_mem: 64M, max_file: 256M }}\n",
            self.port, self.monitoring
        );
        std::fs::write(self.path("settings"), format!("{base}{}\n", settings.replace("{folder}", &folder))).unwrap();
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `scheme://127.0.0.1:port`.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it at the same address with what it stored. Returns once it answers.
    pub async fn start_again(&self) {
        let child = Command::new(programs().join("keep"))
            .arg(programs().join("nats-server"))
            .arg("-c")
            .arg(self.path("settings"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("keep starts");
        *self.process.lock() = Some(child);
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
        let Some(mut child) = self.process.lock().take() else { return };
        self.signal("KILL");
        child.wait().unwrap();
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

impl Drop for Server {
    fn drop(&mut self) {
        // `keep` ends the server when its input closes.
        if let Some(mut child) = self.process.lock().take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
