//! Real gunicorn with the example shop, or another app.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::journal::Journal;
use super::lines::Lines;
use super::shop::{self, python};
use super::worker::{Protocol, Transport};
use super::{Address, look_until};

/// gunicorn's own kinds of workers that serve WSGI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sync,
    Gthread { threads: u32 },
    Gevent,
}

/// How a gunicorn is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    kind: Kind,
    workers: u32,
    transport: Transport,
    protocol: Protocol,
    app: &'static str,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Plan {
    pub(crate) fn new(kind: Kind, workers: u32, transport: Transport) -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { kind, workers, transport, protocol: Protocol::Http1, app: "shop.wsgi", arguments, environment }
    }

    /// It serves a module of `tests/python` instead of the shop.
    pub(crate) fn serving(mut self, module: &'static str) -> Self {
        self.app = module;
        self.argument(&format!("--pythonpath={}/tests/python", env!("CARGO_MANIFEST_DIR")))
    }

    /// It speaks uwsgi instead of HTTP.
    pub(crate) fn uwsgi(mut self) -> Self {
        self.protocol = Protocol::Uwsgi;
        self.argument("--protocol=uwsgi")
    }

    /// One argument more, such as `--timeout=5`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A variable that the app reads.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts, and waits until the workers have booted.
    pub(crate) fn start(self) -> Gunicorn {
        let folder = shop::folder();
        // Not 127.0.0.1, whose ports are those of every client too: this one is free for a gunicorn that comes back.
        let bind = match self.transport {
            Transport::Tcp => "127.0.0.77:0".to_owned(),
            Transport::Unix => format!("unix:{}", folder.path().join("gunicorn.sock").display()),
        };
        let (child, log, address) = self.launch(&folder, &bind);
        Gunicorn { plan: self, child: Some(child), log, address, folder, workers: Vec::new() }
    }

    fn launch(&self, folder: &TempDir, bind: &str) -> (Child, Lines, Address) {
        let mut command = Command::new(python());
        command.args(["-m", "gunicorn", self.app, "--no-control-socket", "--log-level", "info", "--bind", bind]);
        command.args(["--workers", &self.workers.to_string()]);
        match self.kind {
            Kind::Sync => {}
            Kind::Gthread { threads } => {
                command.args(["--worker-class", "gthread", "--threads", &threads.to_string()]);
            }
            Kind::Gevent => {
                command.args(["--worker-class", "gevent"]);
            }
        }
        command.args(&self.arguments);
        shop::prepare(&mut command, folder.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
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
            (booted == self.workers).then_some(())
        });
        assert!(is_up.is_some(), "gunicorn does not start:\n{}", log.all().join("\n"));
        (child, log, address.expect("gunicorn says where it listens"))
    }
}

/// A running gunicorn. Ends with its workers when it is dropped.
pub(crate) struct Gunicorn {
    plan: Plan,
    /// `None` while it is stopped.
    child: Option<Child>,
    log: Lines,
    address: Address,
    folder: TempDir,
    /// The workers of those that were stopped.
    workers: Vec<i32>,
}

impl Gunicorn {
    /// Sync workers on a unix socket.
    pub(crate) fn start(workers: u32) -> Self {
        Self::start_as(Kind::Sync, workers, Transport::Unix)
    }

    /// Starts, and waits until the workers have booted.
    pub(crate) fn start_as(kind: Kind, workers: u32, transport: Transport) -> Self {
        Plan::new(kind, workers, transport).start()
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// As `endpoints` in a configuration has it.
    pub(crate) fn endpoint(&self) -> String {
        self.address.endpoint_in(self.plan.protocol)
    }

    /// The process that supervises the workers.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Where `/count` keeps its number.
    pub(crate) fn counter(&self) -> PathBuf {
        self.folder.path().join("count")
    }

    /// Every run of the app, whichever of its processes it was in.
    pub(crate) fn journal(&self) -> Journal {
        Journal::at(shop::journal(self.folder.path()))
    }

    /// Its log as it is now, since it was last started.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// All processes that have served, as its log has named them, in the order of their start.
    pub(crate) fn worker_pids(&self) -> Vec<i32> {
        let pid = |line: String| line.split_once("Booting worker with pid: ")?.1.trim().parse().ok();
        self.workers.iter().copied().chain(self.log.all().into_iter().filter_map(pid)).collect()
    }

    /// SIGTERM, and waits for the end: running requests are finished, and nobody listens any more.
    pub(crate) fn stop(&mut self) {
        self.workers = self.worker_pids();
        let mut child = self.child.take().expect("it runs");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let ended = look_until(|| child.try_wait().unwrap());
        if ended.is_none() {
            end(&mut child);
            panic!("gunicorn does not stop:\n{}", self.log.all().join("\n"));
        }
    }

    /// Starts one that was stopped at the address where it was.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let bind = match &self.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => format!("unix:{}", path.display()),
        };
        let (child, log, _) = self.plan.launch(&self.folder, &bind);
        (self.child, self.log) = (Some(child), log);
    }

    /// SIGKILL for one of its workers, and waits until another has taken its place.
    pub(crate) fn kill_worker(&self, pid: i32) {
        let before = self.worker_pids().len();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let replaced = look_until(|| (self.worker_pids().len() > before).then_some(()));
        assert!(replaced.is_some(), "nobody took the place of {pid}:\n{}", self.log.all().join("\n"));
    }
}

impl Drop for Gunicorn {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

/// Its quick shutdown takes the workers with it. Errors say that it has ended already.
fn end(child: &mut Child) {
    let _ = kill_process(Pid::from_child(child), Signal::QUIT);
    let ended = look_until(|| child.try_wait().ok().flatten());
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
}
