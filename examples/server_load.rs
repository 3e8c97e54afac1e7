//! Measures the embedded File 360: durable small calls a second over loopback, and the CPU time that each costs the server.
//!
//! `cargo run --release --example server_load -- target/release/file360-operator [calls] [in flight]`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SEED: &str = "clients: [{id: load, secret: load-secret, scopes: [read, write, share, govern, audit, admin]}]\n\
                    users: [{name: u0}, {name: u1}, {name: u2}]\n";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let program = arguments.get(1).map_or("target/release/file360-operator", String::as_str);
    let calls: usize = arguments.get(2).map_or(60_000, |text| text.parse().unwrap());
    let in_flight: usize = arguments.get(3).map_or(32, |text| text.parse().unwrap());
    let folder = tempfile::tempdir_in(".").unwrap();
    let seed = folder.path().join("seed.yaml");
    std::fs::write(&seed, SEED).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut server = Command::new(program)
        .args(["serve", "--listen", &address, "--seed"])
        .arg(&seed)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let token = token(&address).await;
    let users = users(&address, &token).await;
    let before = cpu_seconds(server.id());
    let started = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|worker| {
            let (address, token, users) = (address.clone(), token.clone(), users.clone());
            tokio::spawn(async move { load(&address, &token, &users, worker, calls / in_flight).await })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds(server.id()) - before;
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 100].as_micros();
    #[allow(clippy::cast_precision_loss, reason = "a report")]
    let done = latencies.len() as f64;
    println!(
        "{{\"calls\":{done},\"inFlight\":{in_flight},\"seconds\":{seconds:.2},\"callsPerSecond\":{:.0},\"serverCpuMicrosPerCall\":{:.0},\
         \"p50Micros\":{},\"p99Micros\":{}}}",
        done / seconds,
        cpu * 1e6 / done,
        at(50),
        at(99)
    );
    server.kill().unwrap();
    server.wait().unwrap();
}

/// What converging a workspace takes: create, folders, members.
async fn load(address: &str, token: &str, users: &[String], worker: usize, calls: usize) -> Vec<Duration> {
    let mut connection = Connection::open(address, token).await;
    let mut latencies = Vec::with_capacity(calls);
    let mut workspace = String::new();
    for call in 0..calls {
        let started = Instant::now();
        let step = call % 10;
        let (status, body) = match step {
            0 => {
                let path = format!("/v1/workspaces/by-key/load/{worker}-{call}");
                connection
                    .call("PUT", &path, "if-none-match: *\r\n", "{\"displayName\":\"Load\",\"classification\":\"Internal\"}")
                    .await
            }
            1..=6 => {
                let key = format!("idempotency-key: {worker}-{call}\r\n");
                let body = format!("{{\"path\":\"/Folder {step}\",\"managedKey\":\"folders/{step}\"}}");
                connection.call("POST", &format!("/v1/workspaces/{workspace}/folders"), &key, &body).await
            }
            _ => {
                let path = format!("/v1/workspaces/{workspace}/members/{}", users[step - 7]);
                connection.call("PUT", &path, "", "{\"role\":\"Editor\",\"managed\":true}").await
            }
        };
        latencies.push(started.elapsed());
        assert_eq!(status, 201, "{body}");
        if step == 0 {
            let value: serde_json::Value = serde_json::from_str(&body).unwrap();
            value["id"].as_str().unwrap().clone_into(&mut workspace);
        }
    }
    latencies
}

/// HTTP/1.1 with as little work as possible, so that the loader does not compete with the server.
struct Connection {
    stream: TcpStream,
    token: String,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str, token: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, token: token.to_owned(), buffer: vec![0; 64 * 1024] }
    }

    async fn call(&mut self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: load\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut filled = 0;
        loop {
            filled += self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            let text = std::str::from_utf8(&self.buffer[..filled]).unwrap();
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |text| text.parse::<usize>().unwrap());
                if rest.len() >= length {
                    return (head[9..12].parse().unwrap(), rest[..length].to_owned());
                }
            }
        }
    }
}

async fn token(address: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).await.is_err() {
        assert!(Instant::now() < deadline, "the server does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = "grant_type=client_credentials&client_id=load&client_secret=load-secret";
    let request = format!(
        "POST /oauth2/token HTTP/1.1\r\nhost: load\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let value: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    value["access_token"].as_str().unwrap().to_owned()
}

async fn users(address: &str, token: &str) -> Vec<String> {
    let mut connection = Connection::open(address, token).await;
    let (_, body) = connection.call("GET", "/v1/principals?kind=User", "", "").await;
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    page["items"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_owned()).collect()
}

/// User and system time of a process; the kernel counts in hundredths of a second.
fn cpu_seconds(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
