//! Ports of the loopback interface that nobody else takes while a test holds them, also while the program that listens there is killed and started again.
//!
//! They lie below those that the system gives to outgoing connections: one of these would take the port of a program that is away. Every process
//! holds a block of ports of its own for as long as it runs, and gives each port out once.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tokio::net::TcpSocket;

const ALL: Range<u16> = 10_000..32_000;
/// More than one run of all tests asks for: a port that comes round again may belong to a program that is away for a moment.
const BLOCK: u16 = 5_500;

struct Ports {
    left: Box<dyn Iterator<Item = u16> + Send>,
    /// Locked while the process lives.
    _lock: Option<File>,
}

static PORTS: LazyLock<Mutex<Ports>> = LazyLock::new(|| Mutex::new(Ports::take()));

/// A free port of the loopback interface.
pub fn free_port() -> u16 {
    let mut ports = PORTS.lock().expect("no holder panics");
    ports.left.find(|port| is_free(*port)).expect("a free port")
}

/// Binds without listening: a program that another thread starts at this moment has a copy of every socket until it executes, and only one that
/// listens keeps others away.
fn is_free(port: u16) -> bool {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option of every socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port))).is_ok()
}

/// Listens again where a listener of this process was closed, once the last copy of it in a program that is being started is closed too.
#[allow(dead_code, reason = "not every test binary has a server that goes away")]
pub fn listen_again(address: SocketAddr) -> TcpListener {
    for _ in 0..500 {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => std::thread::sleep(Duration::from_millis(10)),
            answer => return answer.expect("a listener"),
        }
    }
    panic!("{address} stays in use")
}

impl Ports {
    fn take() -> Self {
        let blocks = ALL.step_by(usize::from(BLOCK)).map(|first| first..first + BLOCK);
        for block in blocks {
            if let Some(lock) = lock(block.start) {
                return Self { left: Box::new(block.cycle()), _lock: Some(lock) };
            }
        }
        // All are held: more test runs than blocks.
        Self { left: Box::new(std::iter::repeat_with(|| rand::random_range(ALL))), _lock: None }
    }
}

fn lock(first: u16) -> Option<File> {
    let path = std::env::temp_dir().join(format!("file360-operator-ports-{first}.lock"));
    let file = File::options().create(true).append(true).open(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}
