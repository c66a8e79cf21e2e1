//! Real gunicorn with the example shop.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::lines::Lines;
use super::worker::Transport;
use super::{Address, look_until};

/// gunicorn's own kinds of workers that serve WSGI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sync,
    Gthread { threads: u32 },
}

/// A running gunicorn. Ends with its workers when it is dropped.
pub(crate) struct Gunicorn {
    child: Child,
    log: Lines,
    address: Address,
    folder: TempDir,
}

impl Gunicorn {
    /// Sync workers on a unix socket.
    pub(crate) fn start(workers: u32) -> Self {
        Self::start_as(Kind::Sync, workers, Transport::Unix)
    }

    /// Starts, and waits until the workers have booted.
    pub(crate) fn start_as(kind: Kind, workers: u32, transport: Transport) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gunicorn.sock");
        let bind = match transport {
            Transport::Tcp => "127.0.0.1:0".to_owned(),
            Transport::Unix => format!("unix:{}", socket.display()),
        };
        let mut command = Command::new(python());
        command.args(["-m", "gunicorn", "shop.wsgi", "--no-control-socket", "--log-level", "info", "--bind", &bind]);
        command.args(["--workers", &workers.to_string()]);
        if let Kind::Gthread { threads } = kind {
            command.args(["--worker-class", "gthread", "--threads", &threads.to_string()]);
        }
        command.current_dir(root().join("examples/shop"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("SHOP_COUNTER", folder.path().join("count"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", python().display()));
        let log = Lines::of(child.stderr.take().unwrap());
        let mut address = None;
        let mut booted = 0;
        let is_up = log.find(|line| {
            if let Some((_, rest)) = line.split_once("Listening at: ") {
                address = rest.split(' ').next().map(Address::parse);
            }
            booted += u32::from(line.contains("Booting worker with pid"));
            (booted == workers).then_some(())
        });
        assert!(is_up.is_some(), "gunicorn does not start:\n{}", log.all().join("\n"));
        let address = address.expect("gunicorn says where it listens");
        Self { child, log, address, folder }
    }

    /// As `endpoints` in a configuration has it.
    pub(crate) fn endpoint(&self) -> String {
        self.address.endpoint()
    }

    /// The process that supervises the workers.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where `/count` keeps its number.
    pub(crate) fn counter(&self) -> PathBuf {
        self.folder.path().join("count")
    }

    /// Its log as it is now.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// The processes that serve, as its log has named them.
    pub(crate) fn worker_pids(&self) -> Vec<i32> {
        let pid = |line: String| line.split_once("Booting worker with pid: ")?.1.trim().parse().ok();
        self.log.all().into_iter().filter_map(pid).collect()
    }
}

impl Drop for Gunicorn {
    fn drop(&mut self) {
        // Its quick shutdown takes the workers with it. Errors say that it has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        let ended = look_until(|| self.child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The interpreter that has gunicorn and Django: `make` tells where it is.
pub(crate) fn python() -> PathBuf {
    std::env::var_os("HOSTLER_TEST_PYTHON").map_or_else(|| root().join(".venv/bin/python"), PathBuf::from)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
