//! Connections that the kernel keeps for a server that has not accepted them yet.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::{Address, LOOK_AGAIN};

/// Looks at a listen backlog again and again.
pub(crate) struct Backlog {
    enough: Arc<AtomicBool>,
    looks: JoinHandle<Vec<u32>>,
}

impl Backlog {
    pub(crate) fn watch(address: &Address) -> Self {
        let (enough, address) = (Arc::new(AtomicBool::new(false)), address.clone());
        let stop = Arc::clone(&enough);
        let looks = std::thread::spawn(move || {
            let mut looks = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                looks.push(length(&address));
                std::thread::sleep(LOOK_AGAIN * 4);
            }
            looks
        });
        Self { enough, looks }
    }

    /// What was seen, one number for each look.
    pub(crate) fn seen(self) -> Vec<u32> {
        self.enough.store(true, Ordering::Relaxed);
        self.looks.join().unwrap()
    }
}

/// How many connections wait to be accepted there.
pub(crate) fn length(address: &Address) -> u32 {
    match address {
        Address::Tcp(address) => tcp(*address),
        Address::Unix(path) => unix(path),
    }
}

/// The receive queue of a listening TCP socket is its backlog.
fn tcp(address: SocketAddr) -> u32 {
    let SocketAddr::V4(v4) = address else { panic!("{address} is not IPv4") };
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(v4.ip().octets()), v4.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&"0A");
        is_it.then(|| u32::from_str_radix(fields[4].split(':').nth(1).unwrap(), 16).unwrap())
    });
    queue.unwrap_or_else(|| panic!("nobody listens on {address}"))
}

/// /proc does not tell it of unix sockets.
fn unix(path: &Path) -> u32 {
    let output = Command::new("ss").args(["-xlH"]).output().expect("ss (tests/python/tools.sh installs it)");
    let table = String::from_utf8_lossy(&output.stdout);
    let path = path.to_str().unwrap();
    let queue = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(4) == Some(&path)).then(|| fields[2].parse().unwrap())
    });
    queue.unwrap_or_else(|| panic!("nobody listens on {path}:\n{table}"))
}
