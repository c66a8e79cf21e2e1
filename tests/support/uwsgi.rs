//! Real servers that speak uwsgi: uWSGI itself, and gunicorn told to.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::lines::Lines;
use super::shop::{self, python};
use super::worker::Transport;
use super::{Address, look_until};

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Uwsgi,
    Gunicorn,
}

/// A running server with the app of `tests/python/bare.py`, or another. Ends with its workers when it is dropped.
pub(crate) struct Uwsgi {
    child: Child,
    log: Lines,
    address: Address,
    _folder: TempDir,
}

/// Two workers, and nothing else that is not a default.
const WORKERS: u32 = 2;

impl Uwsgi {
    /// Starts, and waits until the workers are there.
    pub(crate) fn start(server: Program, transport: Transport) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("app.sock");
        let bind = match (transport, server) {
            (Transport::Tcp, _) => "127.0.0.1:0".to_owned(),
            (Transport::Unix, Program::Uwsgi) => socket.display().to_string(),
            (Transport::Unix, Program::Gunicorn) => format!("unix:{}", socket.display()),
        };
        let (mut command, workers) = (Command::new(python()), WORKERS.to_string());
        match server {
            Program::Uwsgi => command.args(RUN).args(["--master", "--processes", &workers, "--socket", &bind]),
            Program::Gunicorn => command
                .args(["-m", "gunicorn", "--no-control-socket", "--log-level", "info", "--protocol", "uwsgi"])
                .args(["--workers", &workers, "--bind", &bind]),
        };
        match server {
            Program::Uwsgi => command.args(["--module", "bare"]),
            Program::Gunicorn => command.arg("bare"),
        };
        command.current_dir(root().join("tests/python"));
        Self::run(command, folder)
    }

    /// uWSGI with the shop, whose variables may take so many bytes.
    pub(crate) fn shop(transport: Transport, buffer_size: u32) -> Self {
        let folder = shop::folder();
        let bind = match transport {
            Transport::Tcp => "127.0.0.1:0".to_owned(),
            Transport::Unix => folder.path().join("app.sock").display().to_string(),
        };
        let mut command = Command::new(python());
        command.args(RUN).args(["--master", "--processes", &WORKERS.to_string(), "--need-app", "--socket", &bind]);
        command.args(["--module", "shop.wsgi", "--buffer-size", &buffer_size.to_string()]);
        command.current_dir(shop::root());
        Self::run(command, folder)
    }

    /// uWSGI with this module of `tests/python`, which reads these variables.
    pub(crate) fn serving(module: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("app.sock").display().to_string();
        let mut command = Command::new(python());
        command.args(RUN).args(["--master", "--processes", &WORKERS.to_string(), "--need-app", "--socket", &socket]);
        command.args(["--module", module]).current_dir(root().join("tests/python"));
        command.envs(variables.iter().copied());
        Self::run(command, folder)
    }

    /// uWSGI with the shop, as this file of settings says; its socket is put into a folder of the test's own.
    pub(crate) fn with_settings(file: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let is_socket = |line: &&str| line.starts_with("socket =");
        assert_eq!(text.lines().filter(is_socket).count(), 1, "one socket in {}", file.display());
        let socket = format!("socket = {}", folder.path().join("app.sock").display());
        let lines: Vec<&str> = text.lines().map(|line| if is_socket(&line) { &socket } else { line }).collect();
        let settings = folder.path().join("uwsgi.ini");
        std::fs::write(&settings, lines.join("\n")).unwrap();
        let mut command = Command::new(python());
        command.args(RUN).arg("--ini").arg(settings).current_dir(shop::root());
        Self::run(command, folder)
    }

    fn run(mut command: Command, folder: TempDir) -> Self {
        command.env("PYTHONDONTWRITEBYTECODE", "1").envs(shop::variables(folder.path()));
        command.env("SHOP_ALLOWED_HOSTS", "shop.example");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", python().display()));
        let log = Lines::of(child.stderr.take().unwrap());
        let (mut address, mut booted) = (None, 0);
        let is_up = log.find(|line| {
            address = address.take().or_else(|| listens(line));
            // All of them: a gunicorn worker does not hear a signal before it has booted, and would hold up the end.
            let is_worker = line.starts_with("spawned uWSGI worker ") || line.contains("Booting worker with pid");
            booted += u32::from(is_worker);
            (booted >= WORKERS && address.is_some()).then_some(())
        });
        assert!(is_up.is_some(), "it does not start:\n{}", log.all().join("\n"));
        let address = address.expect("the server says where it listens");
        Self { child, log, address, _folder: folder }
    }

    /// As `endpoints` in a configuration has it.
    pub(crate) fn endpoint(&self) -> String {
        self.address.uwsgi_endpoint()
    }

    /// The first line of its log, written or yet to come, that holds this.
    pub(crate) fn wait_log(&self, part: &str) -> String {
        let found = self.log.find(|line| line.contains(part).then(|| line.to_owned()));
        found.unwrap_or_else(|| panic!("no `{part}` in\n{}", self.log.all().join("\n")))
    }
}

impl Drop for Uwsgi {
    fn drop(&mut self) {
        // The quick shutdown of both takes the workers with it. Errors say that it has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        let ended = look_until(|| self.child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Makes a Python interpreter uWSGI.
const RUN: [&str; 2] = ["-c", "import pyuwsgi; pyuwsgi.run()"];

/// The address, in the words of either server.
fn listens(line: &str) -> Option<Address> {
    let word = |rest: &str| rest.split(' ').next().unwrap_or_default().to_owned();
    if let Some((_, rest)) = line.split_once("bound to UNIX address ") {
        return Some(Address::Unix(word(rest).into()));
    }
    let (_, rest) = line.split_once("bound to TCP address ").or_else(|| line.split_once("Listening at: "))?;
    Some(Address::parse(&word(rest)))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
