//! Ports of the loopback interface that nobody else takes while a test holds them, also while the program that listens there is killed and started again.
//!
//! They lie below those that the system gives to outgoing connections: one of these would take the port of a program that is away. Every process
//! holds a block of ports of its own for as long as it runs, and gives each port out once.

use std::fs::File;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{LazyLock, Mutex};

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
    ports.left.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
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
